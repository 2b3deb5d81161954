/* A convolutional net on Fashion-MNIST as in Keras: a pipeline of images, layers, compile, fit with a progress bar,
   evaluate. Runs on whatever TERN_DEVICE names. Data: Debian's dataset-fashion-mnist, or the folder given. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tern/tern.h>

enum { CLASSES = 10, BATCH = 64 };

/* Batches of bytes [n, 28, 28] and labels to floats [n, 28, 28, 1] in [0, 1] and labels. */
static int to_floats(void *self, tern_tensor *const *in, int n_in, tern_tensor **out) {
  (void)self, (void)n_in;
  tern_tensor *images = tern_reshape(in[0], TERN_SHAPE(-1, 28, 28, 1));
  out[0] = tern_div(tern_cast(images, TERN_F32), tern_scalar(255));
  out[1] = tern_cast(in[1], TERN_I32);
  return 2;
}

/* The images and labels of a part ("train", "t10k"), in random order when `seed` is not 0. */
static tern_dataset *part(const char *folder, const char *name, uint64_t seed, int64_t most) {
  char images[4096], labels[4096];
  snprintf(images, sizeof images, "%s/%s-images-idx3-ubyte.gz", folder, name);
  snprintf(labels, sizeof labels, "%s/%s-labels-idx1-ubyte.gz", folder, name);
  tern_dataset *d = tern_dataset_idx((const char *const[]){images, labels}, 2);
  if (most) d = tern_dataset_take(d, most);
  if (seed) d = tern_dataset_shuffle(d, 0, &(tern_shuffle_opts){.seed = seed});
  d = tern_dataset_map(tern_dataset_batch(d, BATCH, NULL), to_floats, NULL, NULL);
  return tern_dataset_prefetch(d, 4, tern_default_device());
}

static tern_model *network(void) {
  const tern_conv_layer_opts first = {.activation = "relu", .input_shape = TERN_SHAPE(28, 28, 1)},
                             relu = {.activation = "relu"};
  return tern_sequential(tern_conv2d(32, 3, 3, &first), tern_max_pool2d(NULL), tern_conv2d(64, 3, 3, &relu),
                         tern_max_pool2d(NULL), tern_flatten_layer(NULL),
                         tern_dense(128, &(tern_dense_opts){.activation = "relu"}), tern_dropout_layer(0.3, NULL),
                         tern_dense(CLASSES, &(tern_dense_opts){.activation = "softmax"}));
}

int main(int argc, char **argv) {
  const char *folder = "/usr/share/datasets/fashion-mnist";
  int epochs = 8, images = 0;
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--epochs") && i + 1 < argc) {
      epochs = atoi(argv[++i]);
    } else if (!strcmp(argv[i], "--images") && i + 1 < argc) {
      images = atoi(argv[++i]);
    } else if (argv[i][0] != '-') {
      folder = argv[i];
    } else {
      printf(
          "usage: mnist_cnn [--epochs N] [--images N] [FOLDER]   train a convolutional net on Fashion-MNIST, or on its "
          "first N images (TERN_DEVICE chooses the device)\n");
      return strcmp(argv[i], "--help") ? 2 : 0;
    }
  }
  TERN_SCOPE;
  tern_set_seed(1);
  tern_dataset *train = part(folder, "train", 1, images), *test = part(folder, "t10k", 0, images);
  tern_model *net = network();
  tern_summary(net);
  tern_compile(net, &(tern_compile_opts){.optimizer = "adam",
                                         .loss = "sparse_categorical_crossentropy",
                                         .metrics = TERN_NAMES("accuracy")});
  tern_fit_dataset(net, train, &(tern_fit_opts){.epochs = epochs});
  double result[2] = {0, 0};
  if (tern_evaluate_dataset(net, test, result, 2, NULL) == 2)
    printf("test accuracy: %.1f %% on %s\n", 100 * result[1], tern_default_device());
  tern_model_release(net);
  tern_dataset_release(train);
  tern_dataset_release(test);
  return tern_finish();
}
