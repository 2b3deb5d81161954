/* A multilayer perceptron on Fashion-MNIST, trained by a loop written by hand: mini-batches in random order, a tape,
   Adam. Runs on whatever TERN_DEVICE names; the same seed gives the same losses everywhere. Data: Debian's
   dataset-fashion-mnist, or the folder given. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tern/tern.h>
#include <time.h>
#include <unistd.h>

enum { PIXELS = 784, HIDDEN = 256, CLASSES = 10, BATCH = 128, TEST_BATCH = 1000 };

typedef struct mlp {
  tern_tensor *variables[4]; /* hidden weights and bias, output weights and bias */
} mlp;

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
  return tern_div(tern_cast(tern_reshape(images, TERN_SHAPE(tern_dim(images, 0), -1)), TERN_F32), tern_scalar(255));
}

static mlp mlp_new(void) {
  const tern_random_opts into_hidden = {.stddev = sqrt(2.0 / PIXELS)}, into_output = {.stddev = sqrt(1.0 / HIDDEN)};
  return (mlp){{tern_variable(tern_random_normal(TERN_SHAPE(PIXELS, HIDDEN), &into_hidden), NULL),
                tern_variable(tern_zeros(TERN_SHAPE(HIDDEN), TERN_F32), NULL),
                tern_variable(tern_random_normal(TERN_SHAPE(HIDDEN, CLASSES), &into_output), NULL),
                tern_variable(tern_zeros(TERN_SHAPE(CLASSES), TERN_F32), NULL)}};
}

/* silu is smooth: where relu's slope jumps, two devices that differ by a rounding may go different ways, and the losses
   with them. */
static tern_tensor *logits(const mlp *m, tern_tensor *x) {
  tern_tensor *hidden = tern_silu(tern_add(tern_matmul(x, m->variables[0]), m->variables[1]));
  return tern_add(tern_matmul(hidden, m->variables[2]), m->variables[3]);
}

/* The loss of the batch before the step, borrowed from the caller's scope. */
static tern_tensor *train_step(const mlp *m, tern_optimizer *optimizer, tern_tensor *x, tern_tensor *labels) {
  TERN_SCOPE;
  tern_tensor *gradients[4];
  tern_tape *tape = tern_tape_begin(NULL);
  tern_tensor *loss = tern_cross_entropy(logits(m, x), labels, NULL);
  tern_tape_gradient(tape, loss, m->variables, 4, gradients);
  tern_optimizer_apply(optimizer, gradients, m->variables, 4);
  return tern_escape(loss);
}

static void progress(int epoch, int64_t step, int64_t steps) {
  if (!isatty(1) || (step % 20 && step != steps)) return;
  if (step == steps)
    printf("\r%40s\r", "");
  else
    printf("\repoch %d: batch %lld of %lld ", epoch, (long long)step, (long long)steps);
  fflush(stdout);
}

/* One pass over the training data in a new order; the mean loss. */
static double train_epoch(const mlp *m, tern_optimizer *optimizer, tern_tensor *x, tern_tensor *labels, int epoch) {
  TERN_SCOPE;
  const int64_t n = tern_dim(x, 0), steps = n / BATCH;
  tern_tensor *order = tern_random_permutation(n, NULL), *sum = tern_zeros(TERN_SHAPE(), TERN_F32);
  for (int64_t step = 0; step < steps; step++) {
    TERN_SCOPE;
    tern_tensor *picked = tern_slice(order, &TERN_RANGE(step * BATCH, (step + 1) * BATCH, 1), 1);
    tern_tensor *loss = train_step(m, optimizer, tern_take(x, picked, 0), tern_take(labels, picked, 0));
    sum = tern_escape(tern_add(sum, loss)); /* stays on the device: nothing waits for a loss */
    progress(epoch, step + 1, steps);
  }
  return tern_item(sum) / (double)steps;
}

/* Share of right answers. */
static double accuracy(const mlp *m, tern_tensor *x, tern_tensor *labels) {
  double right = 0;
  const int64_t n = tern_dim(x, 0);
  for (int64_t at = 0; at < n; at += TEST_BATCH) {
    TERN_SCOPE;
    const tern_range part = TERN_RANGE(at, at + TEST_BATCH, 1);
    tern_tensor *answer = tern_argmax(logits(m, tern_slice(x, &part, 1)), TERN_AXES(1));
    right += tern_item(tern_sum(tern_equal(answer, tern_cast(tern_slice(labels, &part, 1), TERN_I64)), NULL));
  }
  return right / (double)n;
}

int main(int argc, char **argv) {
  const char *folder = "/usr/share/datasets/fashion-mnist";
  int epochs = 10;
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--epochs") && i + 1 < argc) {
      epochs = atoi(argv[++i]);
    } else if (argv[i][0] != '-') {
      folder = argv[i];
    } else {
      printf("usage: mnist_mlp [--epochs N] [FOLDER]   train a perceptron on Fashion-MNIST (TERN_DEVICE chooses the "
             "device)\n");
      return strcmp(argv[i], "--help") ? 2 : 0;
    }
  }
  TERN_SCOPE;
  const double began = seconds();
  tern_set_seed(1);
  tern_tensor *x = rows(read_file(folder, "train-images-idx3-ubyte.gz"));
  tern_tensor *labels = read_file(folder, "train-labels-idx1-ubyte.gz");
  tern_tensor *test_x = rows(read_file(folder, "t10k-images-idx3-ubyte.gz"));
  tern_tensor *test_labels = read_file(folder, "t10k-labels-idx1-ubyte.gz");
  mlp m = mlp_new();
  tern_optimizer *optimizer = tern_adam(NULL);
  for (int epoch = 1; epoch <= epochs && !tern_error_code(); epoch++) {
    const double loss = train_epoch(&m, optimizer, x, labels, epoch);
    printf("epoch %d: mean loss %.4f\n", epoch, loss);
  }
  printf("test accuracy: %.1f %%\n", 100 * accuracy(&m, test_x, test_labels));
  printf("%.1f s on %s\n", seconds() - began, tern_default_device());
  tern_optimizer_release(optimizer);
  for (int i = 0; i < 4; i++) tern_release(m.variables[i]);
  return tern_finish();
}
