/* How long the device is idle while examples/mnist_cnn.c's model is fitted from its pipeline: a process of its own
   trains with TERN_TRACE, and the trace says it. Idle is what no launch of the training steps covers of the time from
   one step's first launch to a later one's; launches of the pipeline, which run on the same CPU beside them, do not
   count as work. The part of it in front of the steps' first launches is printed too: there the training thread waits
   for its batch, after it has handed out the figures of the last one. Writing the trace itself counts as idle. */
#ifndef TERN_BENCH_MNIST_IDLE_H_
#define TERN_BENCH_MNIST_IDLE_H_
#include "bench.h"
#include "child.h"

enum { IDLE_STEPS = 400, IDLE_COUNTED = 300, IDLE_BATCH = 64, IDLE_MOST_LAUNCHES = 200 /* of a step */ };
#define IDLE_NEED 2.0 /* % */

/* ---- the child ---- */

static int idle_floats(void *self, tern_tensor *const *in, int n_in, tern_tensor **out) {
  (void)self, (void)n_in;
  tern_tensor *images = tern_reshape(in[0], TERN_SHAPE(-1, 28, 28, 1));
  out[0] = tern_div(tern_cast(images, TERN_F32), tern_scalar(255));
  out[1] = tern_cast(in[1], TERN_I32);
  return 2;
}

/* Fashion-MNIST where Debian's dataset-fashion-mnist is installed, else random images of its form. */
static tern_dataset *idle_images(void) {
  static const char *const files[] = {"/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz",
                                      "/usr/share/datasets/fashion-mnist/train-labels-idx1-ubyte.gz"};
  if (!access(files[0], R_OK) && !access(files[1], R_OK))
    return tern_dataset_take(tern_dataset_idx(files, 2), IDLE_STEPS * IDLE_BATCH);
  TERN_SCOPE;
  const tern_random_opts bytes = {.dtype = TERN_U8};
  return tern_dataset_tensors(
      (tern_tensor *const[]){tern_random_integers(TERN_SHAPE(IDLE_STEPS * IDLE_BATCH, 28, 28), 0, 256, &bytes),
                             tern_random_integers(TERN_SHAPE(IDLE_STEPS * IDLE_BATCH), 0, 10, &bytes)},
      2);
}

static int idle_child(void) {
  TERN_SCOPE;
  tern_set_seed(1);
  tern_dataset *d = tern_dataset_shuffle(idle_images(), 0, &(tern_shuffle_opts){.seed = 1});
  d = tern_dataset_map(tern_dataset_batch(d, IDLE_BATCH, NULL), idle_floats, NULL, NULL);
  d = tern_dataset_prefetch(d, 4, tern_default_device());
  const tern_conv_layer_opts first = {.activation = "relu", .input_shape = TERN_SHAPE(28, 28, 1)},
                             relu = {.activation = "relu"};
  tern_model *net = tern_sequential(
      tern_conv2d(32, 3, 3, &first), tern_max_pool2d(NULL), tern_conv2d(64, 3, 3, &relu), tern_max_pool2d(NULL),
      tern_flatten_layer(NULL), tern_dense(128, &(tern_dense_opts){.activation = "relu"}),
      tern_dropout_layer(0.3, NULL), tern_dense(10, &(tern_dense_opts){.activation = "softmax"}));
  tern_compile(net, &(tern_compile_opts){.optimizer = "adam",
                                         .loss = "sparse_categorical_crossentropy",
                                         .metrics = TERN_NAMES("accuracy")});
  tern_fit_dataset(net, d, &(tern_fit_opts){.epochs = 1, .progress = TERN_PROGRESS_NONE});
  const int failed = bench_errors("fit/mnist_idle");
  if (!failed) printf("0\n");
  tern_model_release(net);
  tern_dataset_release(d);
  return tern_finish() || failed;
}

/* ---- the trace ---- */

typedef struct idle_launch {
  char name[80];
  double from, to; /* microseconds */
} idle_launch;

static int idle_order(const void *a, const void *b) {
  const idle_launch *x = (const idle_launch *)a, *y = (const idle_launch *)b;
  return (x->from > y->from) - (x->from < y->from);
}

/* A launch of a training step: not one of the two of the pipeline. */
static bool idle_read(const char *line, idle_launch *l) {
  const char *name = strstr(line, "\"cat\":\"launch\",\"name\":\""), *at = strstr(line, "\"ts\":");
  double took;
  if (!name || !at || sscanf(at, "\"ts\":%lf,\"dur\":%lf", &l->from, &took) != 2) return false;
  snprintf(l->name, sizeof l->name, "%.*s", (int)strcspn(name + 23, "\""), name + 23);
  l->to = l->from + took;
  return strcmp(l->name, "cast") != 0 && strcmp(l->name, "div") != 0;
}

/* Launches of one step, where the first n end with IDLE_COUNTED steps that are alike. 0: they do not. */
static long idle_period(const idle_launch *l, long n) {
  for (long k = 2; k <= IDLE_MOST_LAUNCHES && IDLE_COUNTED * k <= n; k++) {
    const long all = (IDLE_COUNTED - 1) * k;
    long same = 0;
    while (same < all && !strcmp(l[n - 1 - same].name, l[n - 1 - same - k].name)) same++;
    if (same == all) return k;
  }
  return 0;
}

/* Per cent of the last steps: idle, and idle in front of a step. NAN: the trace is not understood. */
static void idle_shares(idle_launch *l, long n, double *idle, double *waiting) {
  long k = 0;
  qsort(l, (size_t)n, sizeof *l, idle_order);
  for (const long least = n - IDLE_MOST_LAUNCHES; n > 0 && n > least; n--) /* behind the steps come the figures */
    if ((k = idle_period(l, n)) > 0) break;
  const long first = n - k * IDLE_COUNTED;
  *idle = *waiting = NAN;
  if (!k) return;
  double gaps = 0, before = 0, done = l[first].to;
  for (long i = first + 1; i < n; i++) {
    const double gap = l[i].from > done ? l[i].from - done : 0;
    gaps += gap;
    if ((i - first) % k == 0) before += gap;
    if (l[i].to > done) done = l[i].to;
  }
  *idle = 100 * gaps / (done - l[first].from);
  *waiting = 100 * before / (done - l[first].from);
}

static void idle_of_file(const char *path, double *idle, double *waiting) {
  FILE *f = fopen(path, "r");
  char line[4096];
  long n = 0, room = 0;
  idle_launch *l = NULL;
  *idle = *waiting = NAN;
  while (f && fgets(line, sizeof line, f)) {
    if (n == room) {
      room = room ? 2 * room : 1024;
      idle_launch *more = (idle_launch *)realloc(l, (size_t)room * sizeof *l);
      if (!more) break;
      l = more;
    }
    n += idle_read(line, &l[n]);
  }
  if (f && n) idle_shares(l, n, idle, waiting);
  if (f) fclose(f);
  free(l);
}

static int idle_case(const char *name) {
  char path[] = "/tmp/tern-idle-XXXXXX";
  const int file = mkstemp(path);
  double idle, waiting;
  if (file < 0) return bench_fail("%s: no temporary file: %s", name, strerror(errno));
  close(file);
  char *before = getenv("TERN_TRACE");
  before = before ? strdup(before) : NULL;
  setenv("TERN_TRACE", path, 1);
  const double ended = bench_child((char *const[]){(char *)"fit", (char *)"--idle", NULL});
  if (before)
    setenv("TERN_TRACE", before, 1);
  else
    unsetenv("TERN_TRACE");
  free(before);
  idle_of_file(path, &idle, &waiting);
  unlink(path);
  if (isnan(ended) || isnan(idle)) return bench_fail("%s: the child failed, or its trace has no steps", name);
  const bench_row row = {name, bench_device(), "%", NULL, false, idle, NAN, NAN, IDLE_NEED},
                  part = {"fit/mnist_idle_between_steps", bench_device(), "%", NULL, false, waiting, NAN, NAN, NAN};
  bench_print(&row);
  bench_print(&part);
  return 0;
}
#endif
