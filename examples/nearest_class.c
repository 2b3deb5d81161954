/* A classifier in a page: the mean image of each Fashion-MNIST class (a one-hot matrix product), then every test image
   goes to the class whose mean is nearest. Eager ops on whatever TERN_DEVICE names. Data: Debian's
   dataset-fashion-mnist, or the folder given as argument. */
#include <stdio.h>
#include <string.h>
#include <tern/tern.h>
#include <time.h>
#include <unistd.h>

#define CLASSES 10
#define BATCH 1000

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static tern_tensor *read_file(const char *folder, const char *name) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return tern_read_idx(path);
}

/* Images [n, 28, 28] of bytes as rows [n, 784] in [0, 1]. */
static tern_tensor *rows(tern_tensor *images) {
  tern_tensor *flat = tern_reshape(images, TERN_SHAPE(tern_dim(images, 0), -1));
  return tern_div(tern_cast(flat, TERN_F32), tern_scalar(255));
}

/* [10, 784]: one_hot' x, each row divided by its count. */
static tern_tensor *class_means(tern_tensor *x, tern_tensor *labels) {
  tern_tensor *member = tern_one_hot(labels, CLASSES, TERN_F32);
  tern_tensor *count = tern_sum(member, TERN_AXES(0));
  return tern_div(tern_matmul(tern_transpose(member), x), tern_expand_dims(count, 1));
}

/* The nearest mean of each row: |x - m|^2 = |x|^2 - 2 x.m + |m|^2, and |x|^2 is the same for all m. */
static tern_tensor *nearest(tern_tensor *x, tern_tensor *means) {
  tern_tensor *length = tern_sum(tern_square(means), TERN_AXES(1));
  tern_tensor *score = tern_sub(tern_mul(tern_matmul(x, tern_transpose(means)), tern_scalar(2)), length);
  return tern_argmax(score, TERN_AXES(1));
}

static void progress(int64_t done, int64_t all) {
  if (!isatty(1)) return;
  printf("\rclassifying %lld of %lld", (long long)done, (long long)all);
  if (done == all) printf("\r%40s\r", "");
  fflush(stdout);
}

int main(int argc, char **argv) {
  if (argc > 1 && !strcmp(argv[1], "--help")) {
    printf("usage: nearest_class [FOLDER]   classify Fashion-MNIST by the nearest class mean (TERN_DEVICE chooses the "
           "device)\n");
    return 0;
  }
  TERN_SCOPE;
  const char *folder = argc > 1 ? argv[1] : "/usr/share/datasets/fashion-mnist";
  const double began = seconds();
  tern_tensor *train = read_file(folder, "train-images-idx3-ubyte.gz"),
              *train_labels = read_file(folder, "train-labels-idx1-ubyte.gz");
  tern_tensor *test = read_file(folder, "t10k-images-idx3-ubyte.gz"),
              *test_labels = read_file(folder, "t10k-labels-idx1-ubyte.gz");
  if (tern_error_code()) {
    fprintf(stderr, "nearest_class: %s\n  (apt install dataset-fashion-mnist, or name the folder)\n", tern_error());
    return 1;
  }
  const double loaded = seconds();
  tern_tensor *means = class_means(rows(train), train_labels);
  const int64_t n = tern_dim(test, 0);
  tern_tensor *confusion = tern_zeros(TERN_SHAPE(CLASSES, CLASSES), TERN_F32);
  for (int64_t at = 0; at < n; at += BATCH) {
    TERN_SCOPE;
    const tern_range batch = TERN_RANGE(at, at + BATCH, 1);
    tern_tensor *guess = nearest(rows(tern_slice(test, &batch, 1)), means);
    tern_tensor *is = tern_one_hot(tern_slice(test_labels, &batch, 1), CLASSES, TERN_F32),
                *said = tern_one_hot(guess, CLASSES, TERN_F32);
    confusion = tern_escape(tern_add(confusion, tern_matmul(tern_transpose(is), said)));
    progress(at + BATCH < n ? at + BATCH : n, n);
  }
  printf("confusion matrix (row: the class it is, column: the class it was taken for)\n");
  tern_print_values(tern_cast(confusion, TERN_I32));
  const double right = tern_item(tern_sum(tern_mul(confusion, tern_eye(CLASSES, CLASSES, 0, TERN_F32)), NULL));
  printf("accuracy: %.2f %% of %lld test images on %s\n", 100 * right / (double)n, (long long)n, tern_default_device());
  printf("time: %.3f s to read the files, %.3f s to learn and classify\n", loaded - began, seconds() - loaded);
  return tern_finish();
}
