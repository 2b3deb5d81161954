/* Compiled graphs beside their peers (peers/README.md has the cases, their fixed data and what the checks are): replays
   of small graphs, fused chains and rows, training steps, inference. Through --serve; the limits of the compiler itself
   print lines of their own. */
#include "bench.h"
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LAYERS = 4, WIDTH = 256, HEADS = 4, LENGTH = 128 };

/* ---- fixed data ---- */

static uint32_t hash(uint32_t i, uint32_t seed) {
  uint32_t h = i * 0x9E3779B1u + seed * 0x85EBCA77u;
  h = (h ^ h >> 16) * 0x7FEB352Du;
  h = (h ^ h >> 15) * 0x846CA68Bu;
  return h ^ h >> 16;
}

static tern_tensor *values(tern_shape shape, uint32_t seed, double scale, double plus) {
  size_t n = 1;
  for (int d = 0; d < shape.rank; d++) n *= (size_t)shape.dim[d];
  float *data = malloc(n * sizeof *data);
  for (size_t i = 0; data && i < n; i++)
    data[i] = ((float)(hash((uint32_t)i, seed) >> 8) * 0x1p-23f - 1) * (float)scale + (float)plus;
  tern_tensor *t = tern_keep(tern_constant(shape, TERN_F32, data, n));
  free(data);
  return t;
}

static double he(double n) { return (float)sqrt(6 / n); }

static double check_of(tern_tensor *y) {
  const size_t n = (size_t)tern_size(y);
  float *data = malloc(n * sizeof *data);
  double sum = 0;
  if (!data || tern_to_host(y, data, n * sizeof *data)) {
    free(data);
    return NAN;
  }
  for (size_t i = 0; i < n; i++) sum += (double)(1 + i % 7) * ((double)data[i] + (double)data[i] * data[i]);
  free(data);
  return sum / (double)n;
}

/* ---- a case: a function and its operands ---- */

typedef struct job {
  tern_function_body body;
  tern_function_opts opts;
  void (*prepare)(struct job *);
  tern_tensor *in[2], *w[80];
  int n_in;
  tern_optimizer *optimizer;
  tern_function *f;
  int steps; /* training: the check is the loss of that step */
} job;

static void open_job(job *j) {
  if (j->f) return;
  TERN_SCOPE;
  j->prepare(j);
  j->f = tern_function_new(j->body, j, j->n_in, 1, &j->opts);
}

static void loop(void *context, long reps) {
  job *j = context;
  open_job(j);
  for (long i = 0; i < reps; i++) {
    TERN_SCOPE;
    tern_call_n(j->f, j->in, j->n_in);
  }
}

/* Training is checked from its start on, whatever was timed before. */
static double check_training(const job *j) {
  job fresh = {.body = j->body, .opts = j->opts, .prepare = j->prepare, .steps = j->steps};
  double loss = NAN;
  open_job(&fresh);
  for (int i = 0; i < fresh.steps; i++) {
    TERN_SCOPE;
    tern_tensor *y = tern_call_n(fresh.f, fresh.in, fresh.n_in);
    loss = y ? tern_item(y) : NAN;
  }
  tern_function_release(fresh.f);
  tern_optimizer_release(fresh.optimizer);
  for (int i = 0; i < fresh.n_in; i++) tern_release(fresh.in[i]);
  for (size_t i = 0; i < sizeof fresh.w / sizeof *fresh.w; i++) tern_release(fresh.w[i]);
  return loss;
}

static double check_job(job *j) {
  if (j->steps) return check_training(j);
  open_job(j);
  TERN_SCOPE;
  tern_tensor *y = tern_call_n(j->f, j->in, j->n_in);
  return y ? check_of(y) : NAN;
}

/* ---- adds ---- */

static tern_rc adds(tern_tensor *const *in, tern_tensor **out, int n) {
  tern_tensor *y = in[0];
  for (int i = 0; i < n; i++) y = tern_add(y, in[1]);
  out[0] = y;
  return tern_error_code();
}
static tern_rc adds_1000(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  return adds(in, out, 1000);
}
static tern_rc adds_1(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  return adds(in, out, 1);
}
static void adds_data(job *j) {
  j->in[0] = values(TERN_SHAPE(4), 6, 1, 0);
  j->in[1] = values(TERN_SHAPE(4), 7, 1, 0);
  j->n_in = 2;
}
static job adds1000 = {.body = adds_1000, .prepare = adds_data, .opts = {.no_simplify = 1, .no_fuse = 1}};
static job adds1000_fused = {.body = adds_1000, .prepare = adds_data};
static job adds1 = {.body = adds_1, .prepare = adds_data};

/* ---- branches ---- */

/* 8 chains of 4 products of 64 x 256 with 256 x 256, joined at the end. */
enum { CHAINS = 8, CHAIN_LENGTH = 4 };

static void branches_data(job *j) {
  j->in[0] = values(TERN_SHAPE(64, 256), 3, 1, 0);
  j->n_in = 1;
  for (uint32_t k = 0; k < CHAINS * CHAIN_LENGTH; k++) j->w[k] = values(TERN_SHAPE(256, 256), 40 + k, 0.1, 0);
}
static tern_rc in_branches(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const job *j = self;
  (void)n_in, (void)n_out;
  out[0] = NULL;
  for (int c = 0; c < CHAINS; c++) {
    tern_tensor *h = in[0];
    for (int d = 0; d < CHAIN_LENGTH; d++) h = tern_tanh(tern_matmul(h, j->w[c * CHAIN_LENGTH + d]));
    out[0] = c ? tern_add(out[0], h) : h;
  }
  return tern_error_code();
}
static job branches = {.body = in_branches, .prepare = branches_data};

/* ---- chains and rows ---- */

static tern_rc chain(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  tern_tensor *x = in[0], *z = in[1];
  out[0] =
      tern_add(tern_mul(tern_tanh(tern_add(tern_mul(x, z), tern_scalar(1))), tern_exp(tern_mul(tern_neg(x), x))), z);
  return tern_error_code();
}
static void chain_data(job *j, int64_t n) {
  j->in[0] = values(TERN_SHAPE(n), 1, 2, 0);
  j->in[1] = values(TERN_SHAPE(n), 2, 1, 0);
  j->n_in = 2;
}
static void chain_large(job *j) { chain_data(j, 1 << 24); }
static void chain_small(job *j) { chain_data(j, 1 << 16); }
static job chain16m = {.body = chain, .prepare = chain_large}, chain64k = {.body = chain, .prepare = chain_small};

static void rows_data(job *j) {
  j->in[0] = values(TERN_SHAPE(1 << 14, 1 << 10), 5, 4, 0);
  j->w[0] = values(TERN_SHAPE(1 << 10), 6, 0.5, 1);
  j->w[1] = values(TERN_SHAPE(1 << 10), 7, 0.5, 0);
  j->n_in = 1;
}
static tern_rc softmax(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  out[0] = tern_softmax(in[0], -1);
  return tern_error_code();
}
static tern_rc layer_norm(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const job *j = self;
  (void)n_in, (void)n_out;
  out[0] = tern_layer_norm(in[0], j->w[0], j->w[1], &(tern_layer_norm_opts){.epsilon = 1e-5});
  return tern_error_code();
}
static job softmax_rows = {.body = softmax, .prepare = rows_data},
           layernorm_rows = {.body = layer_norm, .prepare = rows_data};
static double softmax_check(void) {
  open_job(&softmax_rows);
  TERN_SCOPE;
  return check_of(tern_mul(tern_call(softmax_rows.f, softmax_rows.in[0]), tern_scalar(1024)));
}

/* ---- training ---- */

static tern_rc descend(job *j, tern_tape *tape, tern_tensor *loss, int n, tern_tensor **out) {
  tern_tensor *gradients[8];
  tern_tape_gradient(tape, loss, j->w, n, gradients);
  tern_optimizer_apply(j->optimizer, gradients, j->w, n);
  out[0] = loss;
  return tern_error_code();
}

static tern_rc linear_step(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  job *j = self;
  (void)n_in, (void)n_out;
  tern_tape *tape = tern_tape_begin(NULL);
  tern_tensor *y = tern_add(tern_matmul(in[0], j->w[0]), j->w[1]);
  return descend(j, tape, tern_mean(tern_square(tern_sub(in[1], y)), NULL), 2, out);
}
static void linear_data(job *j) {
  j->in[0] = tern_keep(tern_f32(TERN_SHAPE(2, 2), 1, 2, 3, 4));
  j->in[1] = tern_keep(tern_f32(TERN_SHAPE(2, 1), 0, 1));
  j->n_in = 2;
  j->w[0] = tern_variable(tern_f32(TERN_SHAPE(2, 1), 0.5f, -0.25f), NULL);
  j->w[1] = tern_variable(tern_zeros(TERN_SHAPE(1), TERN_F32), NULL);
  j->optimizer = tern_adam(&(tern_adam_opts){.learning_rate = 0.01});
}
static job linear = {.body = linear_step, .prepare = linear_data, .steps = 10};

static tern_tensor *mlp(const job *j, tern_tensor *x) {
  for (int i = 0; i < 3; i++) {
    x = tern_add(tern_matmul(x, j->w[2 * i]), j->w[2 * i + 1]);
    if (i < 2) x = tern_relu(x);
  }
  return x;
}
static void mlp_data(job *j) {
  static const int64_t size[] = {784, 512, 512, 10};
  int64_t labels[128];
  j->in[0] = values(TERN_SHAPE(128, 784), 3, 1, 0);
  for (uint32_t i = 0; i < 128; i++) labels[i] = hash(i, 4) % 10;
  j->in[1] = tern_keep(tern_constant(TERN_SHAPE(128), TERN_I64, labels, 128));
  for (int i = 0; i < 3; i++) {
    tern_tensor *w = values(TERN_SHAPE(size[i], size[i + 1]), (uint32_t)(10 + i), he((double)size[i]), 0);
    j->w[2 * i] = j->steps ? tern_variable(w, NULL) : w;
    tern_tensor *b = tern_zeros(TERN_SHAPE(size[i + 1]), TERN_F32);
    j->w[2 * i + 1] = j->steps ? tern_variable(b, NULL) : tern_keep(b);
  }
  j->n_in = j->steps ? 2 : 1;
  if (j->steps) j->optimizer = tern_adam(NULL);
}
static tern_rc mlp_step(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  job *j = self;
  (void)n_in, (void)n_out;
  tern_tape *tape = tern_tape_begin(NULL);
  return descend(j, tape, tern_cross_entropy(mlp(j, in[0]), in[1], NULL), 6, out);
}
static tern_rc mlp_forward(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in, (void)n_out;
  out[0] = mlp(self, in[0]);
  return tern_error_code();
}
static job mlp_train = {.body = mlp_step, .prepare = mlp_data, .steps = 10};
static job mlp_infer = {.body = mlp_forward, .prepare = mlp_data};

/* ---- the cnn ---- */

static void cnn_data(job *j) {
  static const int64_t shape[4][4] = {{3, 3, 1, 32}, {3, 3, 32, 64}, {3136, 128}, {128, 10}};
  static const double inputs[] = {9, 288, 3136, 128};
  j->in[0] = values(TERN_SHAPE(64, 28, 28, 1), 8, 1, 0);
  j->n_in = 1;
  for (int k = 0; k < 4; k++) {
    const int rank = k < 2 ? 4 : 2;
    j->w[2 * k] = values(tern_shape_of(rank, shape[k]), (uint32_t)(20 + k), he(inputs[k]), 0);
    j->w[2 * k + 1] = values(TERN_SHAPE(shape[k][rank - 1]), (uint32_t)(30 + k), 0.1, 0);
  }
}
static tern_rc cnn(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const job *j = self;
  (void)n_in, (void)n_out;
  tern_tensor *x = in[0];
  for (int k = 0; k < 2; k++)
    x = tern_max_pool(
        tern_relu(tern_add(tern_conv(x, j->w[2 * k], &(tern_conv_opts){.padding = TERN_PAD_SAME}), j->w[2 * k + 1])),
        NULL);
  x = tern_reshape(x, (tern_shape){2, {-1, 3136}});
  x = tern_relu(tern_add(tern_matmul(x, j->w[4]), j->w[5]));
  out[0] = tern_add(tern_matmul(x, j->w[6]), j->w[7]);
  return tern_error_code();
}
static job cnn_infer = {.body = cnn, .prepare = cnn_data};

/* ---- the transformer ---- */

enum { WQ, WK, WV, WO, W1, W2, BQ, BK, BV, BO, B1, B2, SCALE1, OFFSET1, SCALE2, OFFSET2, N_ARRAYS };

static void transformer_data(job *j) {
  j->in[0] = values(TERN_SHAPE(1, LENGTH, WIDTH), 9, 2, 0);
  j->n_in = 1;
  for (int l = 0; l < LAYERS; l++)
    for (int k = 0; k < N_ARRAYS; k++) {
      const int64_t rows = k == W2 ? 4 * WIDTH : WIDTH, columns = k == W1 || k == B1 ? 4 * WIDTH : WIDTH;
      const uint32_t seed = (uint32_t)(100 + 20 * l + k);
      j->w[N_ARRAYS * l + k] = k <= W2 ? values(TERN_SHAPE(rows, columns), seed, he(2 * (double)rows), 0)
                                       : values(TERN_SHAPE(columns), seed, 0.1, k == SCALE1 || k == SCALE2);
    }
}

static tern_tensor *heads(tern_tensor *x) {
  return tern_permute(tern_reshape(x, (tern_shape){4, {1, -1, HEADS, WIDTH / HEADS}}), (const int[]){0, 2, 1, 3}, 4);
}

static tern_rc transformer(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const job *j = self;
  const tern_layer_norm_opts norm = {.epsilon = 1e-5};
  (void)n_in, (void)n_out;
  tern_tensor *x = in[0];
  for (int l = 0; l < LAYERS; l++) {
    tern_tensor *const *w = j->w + N_ARRAYS * l;
    tern_tensor *h = tern_layer_norm(x, w[SCALE1], w[OFFSET1], &norm), *part[3];
    for (int k = 0; k < 3; k++) part[k] = heads(tern_add(tern_matmul(h, w[WQ + k]), w[BQ + k]));
    tern_tensor *a = tern_scaled_dot_product_attention(part[0], part[1], part[2], NULL);
    a = tern_reshape(tern_permute(a, (const int[]){0, 2, 1, 3}, 4), (tern_shape){3, {1, -1, WIDTH}});
    x = tern_add(x, tern_add(tern_matmul(a, w[WO]), w[BO]));
    h = tern_gelu(tern_add(tern_matmul(tern_layer_norm(x, w[SCALE2], w[OFFSET2], &norm), w[W1]), w[B1]), NULL);
    x = tern_add(x, tern_add(tern_matmul(h, w[W2]), w[B2]));
  }
  out[0] = x;
  return tern_error_code();
}
static job transformer_infer = {.body = transformer, .prepare = transformer_data};

/* ---- limits of our own ---- */

static int limit(const char *name, const char *unit, double value, double need) {
  const bench_row row = {name, bench_device(), unit, NULL, false, value, NAN, NAN, need};
  bench_print(&row);
  return bench_errors(name);
}

/* A graph of about a thousand nodes that simplification cannot shorten. */
static tern_rc thousand(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  tern_tensor *x = in[0], *w = in[1];
  for (int i = 0; i < 100; i++) {
    tern_tensor *y = tern_matmul(x, w),
                *m = tern_mean(y, &(tern_reduce_opts){.axes = (const int[]){1}, .n_axes = 1, .keepdims = 1});
    y = tern_mul(tern_tanh(tern_sub(y, m)), tern_sigmoid(y));
    x = tern_add(x, tern_softmax(tern_add(tern_relu(y), tern_exp(tern_neg(y))), -1));
  }
  out[0] = x;
  return tern_error_code();
}

static int compile_case(const char *name) {
  TERN_SCOPE;
  tern_tensor *in[] = {tern_random_normal(TERN_SHAPE(8, 8), NULL), tern_random_normal(TERN_SHAPE(8, 8), NULL)};
  double ms[BENCH_PAIRS];
  for (int i = 0; i < BENCH_PAIRS; i++) {
    tern_function *f = tern_function_new(thousand, NULL, 2, 1, NULL);
    tern_function_info info = {0};
    tern_call_n(f, in, 2);
    tern_function_get_info(f, &info);
    ms[i] = info.compile_ms - info.kernel_ms;
    tern_function_release(f);
  }
  return limit(name, "ms", bench_median(ms, BENCH_PAIRS), 20);
}

static int traces_case(const char *name) {
  TERN_SCOPE;
  job j = {.body = mlp_forward, .prepare = mlp_data};
  open_job(&j);
  tern_function_info info = {0};
  for (int64_t batch = 1; batch <= 20; batch++) {
    TERN_SCOPE;
    tern_tensor *x = tern_random_normal(TERN_SHAPE(batch * 3, 784), NULL);
    tern_call(j.f, x);
  }
  tern_function_get_info(j.f, &info);
  return limit(name, "traces", info.traces, 2);
}

/* Planned memory of our models: beside its lower bound, and beside the sum of all buffers. */
static int arena_of(const char *name, job *j) {
  TERN_SCOPE;
  tern_function_info info = {0};
  open_job(j);
  tern_call_n(j->f, j->in, j->n_in);
  tern_function_get_info(j->f, &info);
  const double arena = (double)info.arena_bytes, sum = (double)info.naive_bytes;
  const bench_row row = {name,       bench_device(), "MB", "sum of all buffers", false, arena * 1e-6,
                         sum * 1e-6, sum / arena,    NAN};
  bench_print(&row);
  return limit(name, "x bound", arena / (double)info.arena_bound, 1.01);
}
static int arena_mlp(const char *name) { return arena_of(name, &mlp_infer); }
static int arena_train(const char *name) { return arena_of(name, &mlp_train); }
static int arena_cnn(const char *name) { return arena_of(name, &cnn_infer); }
static int arena_transformer(const char *name) { return arena_of(name, &transformer_infer); }

static int launches_case(const char *name) {
  TERN_SCOPE;
  tern_counters before = {0}, after = {0};
  open_job(&adds1000);
  tern_call_n(adds1000.f, adds1000.in, 2);
  tern_counters_get(NULL, &before);
  tern_call_n(adds1000.f, adds1000.in, 2);
  tern_counters_get(NULL, &after);
  return limit(name, "launches", (double)(after.launches - before.launches), 1000);
}

#define BRANCHES "replay/branches"

/* This program as a server of times, with TERN_CPU_BRANCHES set. */
typedef struct server {
  FILE *to, *from;
  pid_t pid;
} server;

static bool server_start(server *s, const char *way) {
  int to[2], from[2];
  if (pipe(to)) return false;
  if (pipe(from)) {
    close(to[0]), close(to[1]);
    return false;
  }
  s->pid = fork();
  if (s->pid == 0) {
    dup2(to[0], 0), dup2(from[1], 1);
    close(to[1]), close(from[0]);
    setenv("TERN_CPU_BRANCHES", way, 1);
    execl("/proc/self/exe", "graph", "--serve", (char *)NULL);
    _exit(127);
  }
  close(to[0]), close(from[1]);
  fcntl(to[1], F_SETFD, FD_CLOEXEC); /* else the second server keeps the first one's input open */
  s->to = fdopen(to[1], "w");
  s->from = fdopen(from[0], "r");
  return s->pid > 0 && s->to && s->from;
}
static double server_ask(server *s) {
  char line[64];
  fprintf(s->to, BRANCHES "\n");
  fflush(s->to);
  return fgets(line, sizeof line, s->from) ? strtod(line, NULL) : NAN;
}
static void server_end(server *s) {
  if (s->to) fclose(s->to);
  if (s->from) fclose(s->from);
  if (s->pid > 0) waitpid(s->pid, NULL, 0);
}

/* The time of the branches one after the other, of that side by side: two processes in turn. */
static int gain_case(const char *name) {
  static const char *const ways[] = {"off", "auto"};
  server s[2] = {{.pid = 0}, {.pid = 0}};
  double gain[BENCH_PAIRS], seconds[2] = {NAN, NAN};
  bool ok = true;
  for (int i = 0; i < 2 && ok; i++) ok = server_start(&s[i], ways[i]) && server_ask(&s[i]) > 0;
  for (int k = 0; k < BENCH_PAIRS && ok; k++) {
    for (int i = 0; i < 2; i++) seconds[i] = server_ask(&s[i]);
    gain[k] = seconds[0] / seconds[1];
    ok = gain[k] > 0;
  }
  for (int i = 0; i < 2; i++) server_end(&s[i]);
  if (!ok) return bench_fail("%s: no times", name);
  const bench_row row = {name, bench_device(), "x", NULL, true, bench_median(gain, BENCH_PAIRS), NAN, NAN, NAN};
  bench_print(&row);
  return 0;
}

#define CHECK(id) \
  static double check_##id(void) { return check_job(&id); }
CHECK(adds1000)
CHECK(adds1)
CHECK(chain16m)
CHECK(chain64k)
CHECK(layernorm_rows)
CHECK(linear)
CHECK(mlp_train)
CHECK(mlp_infer)
CHECK(cnn_infer)
CHECK(transformer_infer)

static const bench_case cases[] = {
    {.name = "replay/adds1000", .loop = loop, .context = &adds1000, .ops = 1000},
    {.name = "replay/adds1000_fused", .loop = loop, .context = &adds1000_fused, .ops = 1000},
    {.name = "replay/add1", .loop = loop, .context = &adds1, .ops = 1},
    {.name = BRANCHES, .loop = loop, .context = &branches, .ops = 1},
    {.name = "graph/chain16M", .loop = loop, .context = &chain16m, .ops = 1},
    {.name = "graph/chain64K", .loop = loop, .context = &chain64k, .ops = 1},
    {.name = "graph/softmax_rows", .loop = loop, .context = &softmax_rows, .ops = 1},
    {.name = "graph/layernorm_rows", .loop = loop, .context = &layernorm_rows, .ops = 1},
    {.name = "train/linear_compiled", .loop = loop, .context = &linear, .ops = 1},
    {.name = "train/mlp784_compiled", .loop = loop, .context = &mlp_train, .ops = 1},
    {.name = "infer/mlp784", .loop = loop, .context = &mlp_infer, .ops = 1},
    {.name = "infer/cnn", .loop = loop, .context = &cnn_infer, .ops = 1},
    {.name = "infer/transformer", .loop = loop, .context = &transformer_infer, .ops = 1},
    {.name = "check replay/adds1000", .once = check_adds1000},
    {.name = "check replay/add1", .once = check_adds1},
    {.name = "check graph/chain16M", .once = check_chain16m},
    {.name = "check graph/chain64K", .once = check_chain64k},
    {.name = "check graph/softmax_rows", .once = softmax_check},
    {.name = "check graph/layernorm_rows", .once = check_layernorm_rows},
    {.name = "check train/linear_compiled", .once = check_linear},
    {.name = "check train/mlp784_compiled", .once = check_mlp_train},
    {.name = "check infer/mlp784", .once = check_mlp_infer},
    {.name = "check infer/cnn", .once = check_cnn_infer},
    {.name = "check infer/transformer", .once = check_transformer_infer},
    {.name = "graph/compile1000", .measure = compile_case},
    {.name = "graph/traces20", .measure = traces_case},
    {.name = "graph/launches1000", .measure = launches_case},
    {.name = "graph/arena_mlp784", .measure = arena_mlp},
    {.name = "graph/arena_mlp784_train", .measure = arena_train},
    {.name = "graph/arena_cnn", .measure = arena_cnn},
    {.name = "graph/arena_transformer", .measure = arena_transformer},
    {.name = "graph/branches_gain", .measure = gain_case},
};

int main(int argc, char **argv) {
  const int rc = bench_main(argc, argv, "Compiled graphs.", cases, (int)(sizeof cases / sizeof *cases));
  return tern_finish() || rc == 1 ? 1 : rc;
}
