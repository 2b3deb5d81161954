/* Hand-written training loops: the guide's linear model and a multilayer perceptron, one eager step each, beside
   libtorch's (peers/, through --serve); what recording an op on the tape costs; what a thousand steps leave behind.
   Memory is measured in a process of its own: the growth of peak RSS from before the model to the end of 100 steps. */
#include "bench.h"
#include "child.h"

enum {
  BATCH = 128,
  INPUTS = 784,
  HIDDEN = 512,
  CLASSES = 10,
  LAYERS = 3,
  MEMORY_STEPS = 100,
  OPS = 1000,
  LIVE_STEPS = 1000
};

/* ---- y = x w + b by least squares, Adam ---- */

typedef struct linear {
  tern_tensor *x, *y, *w, *b;
  tern_optimizer *optimizer;
} linear;
static linear small;

static linear linear_new(void) {
  const tern_adam_opts adam = {.learning_rate = 0.01};
  return (linear){.x = tern_keep(tern_f32(TERN_SHAPE(2, 2), 1, 2, 3, 4)),
                  .y = tern_keep(tern_f32(TERN_SHAPE(2, 1), 0, 1)),
                  .w = tern_variable(tern_random_normal(TERN_SHAPE(2, 1), NULL), NULL),
                  .b = tern_variable(tern_zeros(TERN_SHAPE(1), TERN_F32), NULL),
                  .optimizer = tern_adam(&adam)};
}

static void linear_release(linear *m) {
  tern_release(m->x);
  tern_release(m->y);
  tern_release(m->w);
  tern_release(m->b);
  tern_optimizer_release(m->optimizer);
}

static void linear_step(linear *m) {
  TERN_SCOPE;
  tern_tape *tape = tern_tape_begin(NULL);
  tern_tensor *loss = tern_mean(tern_square(tern_sub(m->y, tern_add(tern_matmul(m->x, m->w), m->b))), NULL);
  tern_tensor *const variables[] = {m->w, m->b};
  tern_tensor *gradients[2];
  tern_tape_gradient(tape, loss, variables, 2, gradients);
  tern_optimizer_apply(m->optimizer, gradients, variables, 2);
}

static void linear_loop(void *context, long reps) {
  for (long i = 0; i < reps; i++) linear_step(context);
}

/* ---- 784-512-512-10 with relu and cross-entropy, Adam ---- */

typedef struct mlp {
  tern_tensor *x, *labels, *variables[2 * LAYERS];
  tern_optimizer *optimizer;
} mlp;
static mlp large;

static void mlp_new(mlp *m) {
  static const int64_t sizes[] = {INPUTS, HIDDEN, HIDDEN, CLASSES};
  TERN_SCOPE;
  m->x = tern_keep(tern_random_uniform(TERN_SHAPE(BATCH, INPUTS), NULL));
  m->labels = tern_keep(tern_random_integers(TERN_SHAPE(BATCH), 0, CLASSES, NULL));
  for (int i = 0; i < LAYERS; i++) {
    const tern_random_opts init = {.stddev = sqrt(2.0 / (double)sizes[i])};
    m->variables[2 * i] = tern_variable(tern_random_normal(TERN_SHAPE(sizes[i], sizes[i + 1]), &init), NULL);
    m->variables[2 * i + 1] = tern_variable(tern_zeros(TERN_SHAPE(sizes[i + 1]), TERN_F32), NULL);
  }
  m->optimizer = tern_adam(NULL);
}

static void mlp_release(mlp *m) {
  tern_release(m->x);
  tern_release(m->labels);
  for (int i = 0; i < 2 * LAYERS; i++) tern_release(m->variables[i]);
  tern_optimizer_release(m->optimizer);
}

static void mlp_step(mlp *m) {
  TERN_SCOPE;
  tern_tape *tape = tern_tape_begin(NULL);
  tern_tensor *h = m->x;
  for (int i = 0; i < LAYERS; i++) {
    h = tern_add(tern_matmul(h, m->variables[2 * i]), m->variables[2 * i + 1]);
    if (i + 1 < LAYERS) h = tern_relu(h);
  }
  tern_tensor *gradients[2 * LAYERS];
  tern_tape_gradient(tape, tern_cross_entropy(h, m->labels, NULL), m->variables, 2 * LAYERS, gradients);
  tern_optimizer_apply(m->optimizer, gradients, m->variables, 2 * LAYERS);
}

static void mlp_loop(void *context, long reps) {
  for (long i = 0; i < reps; i++) mlp_step(context);
}

/* ---- peak memory ---- */

/* Of this program's own memory: getrusage's figure outlives exec, so that a child would begin with its parent's. */
static double peak_bytes(void) {
  char line[128];
  double kilobytes = NAN;
  FILE *file = fopen("/proc/self/status", "r");
  while (file && fgets(line, sizeof line, file))
    if (!strncmp(line, "VmHWM:", 6)) kilobytes = strtod(line + 6, NULL);
  if (file) fclose(file);
  return 1024 * kilobytes;
}

/* In a fresh process: prints the bytes. */
static int memory_child(void) {
  TERN_SCOPE;
  mlp m;
  tern_add(tern_ones(TERN_SHAPE(2), TERN_F32), tern_ones(TERN_SHAPE(2), TERN_F32)); /* the libraries are loaded */
  const double before = peak_bytes();
  mlp_new(&m);
  for (int i = 0; i < MEMORY_STEPS; i++) mlp_step(&m);
  if (bench_errors("train/memory")) return 1;
  printf("%.0f\n", peak_bytes() - before);
  mlp_release(&m);
  return tern_finish();
}

static double memory_bytes(void) { return bench_child((char *const[]){"train", "--memory", NULL}); }

/* ---- the tape ---- */

typedef struct adds {
  tern_tensor *a, *b;
  int taped;
} adds;

static void adds_loop(void *context, long reps) {
  const adds *s = context;
  for (long done = 0; done < reps; done += OPS) {
    TERN_SCOPE;
    tern_tape *tape = s->taped ? tern_tape_begin(NULL) : NULL;
    if (tape) tern_tape_watch(tape, s->a);
    for (int i = 0; i < OPS; i++) {
      TERN_SCOPE;
      tern_add(s->a, s->b);
    }
  }
}

/* Nanoseconds that recording adds to an op, the tape's beginning and end shared among OPS of them. */
static int record_case(const char *name) {
  TERN_SCOPE;
  adds plain = {tern_f32(TERN_SHAPE(3), 1, 2, 3), tern_f32(TERN_SHAPE(3), 4, 5, 6), 0}, taped = plain;
  taped.taped = 1;
  double more[BENCH_PAIRS];
  const long n = (bench_reps(adds_loop, &plain, BENCH_SECONDS) + OPS - 1) / OPS * OPS;
  for (int i = 0; i < BENCH_PAIRS; i++) more[i] = bench_time(adds_loop, &taped, n) - bench_time(adds_loop, &plain, n);
  const bench_row row = {name, bench_device(), "ns", NULL, false, 1e9 * bench_median(more, BENCH_PAIRS), NAN, NAN, 15};
  bench_print(&row);
  return bench_errors(name);
}

/* Bytes that LIVE_STEPS steps leave behind. */
static int live_case(const char *name) {
  TERN_SCOPE;
  linear m = linear_new();
  tern_memory before = {0}, after = {0};
  for (int i = 0; i < 10; i++) linear_step(&m);
  tern_memory_info(NULL, &before);
  for (int i = 0; i < LIVE_STEPS; i++) linear_step(&m);
  tern_memory_info(NULL, &after);
  linear_release(&m);
  const bench_row row = {name, bench_device(), "bytes", NULL, false, (double)after.live - (double)before.live, NAN, NAN,
                         0};
  bench_print(&row);
  return bench_errors(name);
}

int main(int argc, char **argv) {
  const bench_case cases[] = {{.name = "train/linear", .loop = linear_loop, .context = &small, .ops = 1},
                              {.name = "train/mlp784", .loop = mlp_loop, .context = &large, .ops = 1},
                              {.name = "train/memory", .once = memory_bytes},
                              {.name = "train/record", .measure = record_case},
                              {.name = "train/live", .measure = live_case}};
  if (argc == 2 && !strcmp(argv[1], "--memory")) return memory_child();
  TERN_SCOPE;
  small = linear_new();
  mlp_new(&large);
  if (bench_errors("train")) return 1;
  const int rc = bench_main(argc, argv, "Training steps by hand.", cases, sizeof cases / sizeof *cases);
  linear_release(&small);
  mlp_release(&large);
  return tern_finish() || rc == 1 ? 1 : rc;
}
