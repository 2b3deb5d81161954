/* Convolutions with a pooling behind them: one launch on the CPU, where a block of the batch at a time goes through
   both. All values are small whole numbers, so that every order of adding gives the same float, and results are
   compared exactly: compiled with eager, float32 with float64. */
#include "graph/both.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <tern/graph.h>
#include <tern/tern.h>

typedef struct block {
  tern_conv_opts conv;
  tern_pool_opts pool;
  bool mean;   /* average instead of maximum */
  int between; /* maps between the two: none, relu, bias and relu, a scale that may be negative */
  int behind;  /* maps after them */
  bool both;   /* the convolution's result is wanted too */
} block;

static tern_tensor *channelwise(const block *b, tern_tensor *x) { /* of shape [o], against x */
  const int rank = b->conv.layout == TERN_NCHW ? 3 : 1;
  return rank == 1 ? x : tern_reshape(x, TERN_SHAPE(tern_dim(x, 0), 1, 1));
}

static tern_rc run(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const block *b = self;
  (void)n_in;
  tern_tensor *y = tern_conv(in[0], in[1], &b->conv);
  if (b->between >= 2) y = tern_add(y, channelwise(b, in[2]));
  if (b->between == 1 || b->between == 2) y = tern_relu(y);
  if (b->between == 3) y = tern_mul(y, channelwise(b, in[3]));
  tern_tensor *z = b->mean ? tern_avg_pool(y, &b->pool) : tern_max_pool(y, &b->pool);
  if (b->behind >= 1) z = tern_add(z, channelwise(b, in[3]));
  if (b->behind == 2) z = tern_maximum(z, tern_scalar(1));
  out[0] = z;
  if (n_out > 1) out[1] = y;
  return tern_error_code();
}

static tern_tensor *whole(uint64_t *state, tern_shape shape, tern_dtype dtype) {
  double *v = malloc((size_t)test_numel(shape) * sizeof *v);
  for (int64_t i = 0; i < test_numel(shape); i++) v[i] = (double)test_below(state, 7) - 3;
  tern_tensor *t = test_tensor(shape, dtype, v);
  free(v);
  return t;
}

static bool on_opencl(void) { return !strncmp(tern_default_device(), "opencl", 6); }

static int64_t pick(uint64_t *state, int64_t a, int64_t b) { return a + test_below(state, b - a + 1); }

typedef struct sizes {
  int64_t n, c, o, in[2], taps[2];
} sizes;

static void operands(uint64_t *state, const block *b, const sizes *s, tern_dtype dtype, tern_tensor **in) {
  const int64_t c = s->c / (b->conv.groups ? b->conv.groups : 1);
  const bool first = b->conv.layout == TERN_NCHW;
  in[0] = whole(state, first ? TERN_SHAPE(s->n, s->c, s->in[0], s->in[1]) : TERN_SHAPE(s->n, s->in[0], s->in[1], s->c),
                dtype);
  in[1] = whole(
      state, first ? TERN_SHAPE(s->o, c, s->taps[0], s->taps[1]) : TERN_SHAPE(s->taps[0], s->taps[1], c, s->o), dtype);
  in[2] = whole(state, TERN_SHAPE(s->o), dtype);
  in[3] = whole(state, TERN_SHAPE(s->o), dtype);
}

/* The same in float64, which goes another way through every backend */
static void against_float64(const char *name, block *b, tern_tensor *const *in, tern_tensor *got) {
  tern_tensor *wide[4], *expected;
  for (int i = 0; i < 4; i++) wide[i] = tern_cast(in[i], TERN_F64);
  if (run(b, wide, 4, &expected, 1)) {
    CHECK(0, "%s in float64: %s", name, tern_error());
    return;
  }
  both_same(name, 0, got, tern_cast(expected, tern_dtype_get(got)), 0, 0);
}

static void random_case(uint64_t seed) {
  TERN_SCOPE;
  uint64_t state = seed;
  static const int64_t channels[] = {1, 1, 2, 3, 4, 5, 16}, outs[] = {16, 32, 48, 8, 5, 64, 16};
  sizes s = {.n = pick(&state, 1, 5), .c = channels[test_below(&state, 7)], .o = outs[test_below(&state, 7)]};
  block b = {.mean = test_below(&state, 4) == 0,
             .between = (int)test_below(&state, 4),
             .behind = (int)test_below(&state, 3),
             .both = test_below(&state, 8) == 0};
  b.conv.layout = b.pool.layout = test_below(&state, 3) ? TERN_NHWC : TERN_NCHW;
  b.conv.padding = test_below(&state, 2) ? TERN_PAD_SAME : TERN_PAD_VALID;
  b.pool.padding = test_below(&state, 4) ? TERN_PAD_VALID : TERN_PAD_SAME;
  if (s.c % 2 == 0 && s.o % 2 == 0 && test_below(&state, 4) == 0) b.conv.groups = 2;
  for (int d = 0; d < 2; d++) {
    s.in[d] = pick(&state, 11, 19);
    s.taps[d] = pick(&state, 1, 4);
    b.conv.strides[d] = pick(&state, 1, 2);
    b.conv.dilations[d] = b.conv.strides[d] == 1 && test_below(&state, 4) == 0 ? 2 : 1;
    b.pool.window[d] = pick(&state, 1, 3);
    b.pool.strides[d] = pick(&state, 1, 3);
    b.pool.dilations[d] = 1;
  }
  if (test_below(&state, 12) == 0) s.n = 70; /* many blocks */
  static const tern_dtype dtypes[] = {TERN_F32, TERN_F32, TERN_F32, TERN_F64, TERN_F16};
  const tern_dtype dtype = dtypes[test_below(&state, on_opencl() ? 3 : 5)];
  char name[120];
  snprintf(name, sizeof name, "seed %d: n %d, %dx%d, %d to %d", (int)seed, (int)s.n, (int)s.in[0], (int)s.in[1],
           (int)s.c, (int)s.o);
  tern_tensor *in[4], *eager[2] = {0};
  operands(&state, &b, &s, dtype, in);
  both_ways(name, run, &b, in, 4, eager, b.both ? 2 : 1, 0, 0);
  if (dtype == TERN_F32 && eager[0] && !b.mean) against_float64(name, &b, in, eager[0]);
}

static void at_random(void) {
  const char *more = getenv("TERN_TEST_SEEDS");
  const int seeds = more ? atoi(more) : on_opencl() ? 6 : 150;
  for (int seed = 1; seed <= seeds; seed++) random_case((uint64_t)seed);
}

/* Launches, and where NaN, infinities and the sign of zero go */
static void one_launch(void) {
  TERN_SCOPE;
  uint64_t state = 5;
  block b = {.conv.padding = TERN_PAD_SAME, .between = 2};
  const sizes s = {.n = 40, .c = 1, .o = 32, .in = {28, 28}, .taps = {3, 3}};
  tern_tensor *in[4], *eager;
  operands(&state, &b, &s, TERN_F32, in);
  tern_function *f = tern_function_new(run, &b, 4, 1, NULL);
  tern_tensor *got = tern_call_n(f, in, 4);
  tern_function_info info = {0};
  tern_function_get_info(f, &info);
  char *text = tern_explain(f);
  CHECK(info.launches == (on_opencl() ? 2 : 1), "%u launches:\n%s", info.launches, text);
  free(text);
  CHECK(run(&b, in, 4, &eager, 1) == 0, "%s", tern_error());
  both_same("one launch", 0, got, eager, 0, 0);
  tern_tensor *odd[4] = {NULL, in[1], in[2], in[3]};
  odd[0] = tern_concat((tern_tensor *[]){tern_full(TERN_SHAPE(1, 28, 28, 1), TERN_F32, (double)NAN),
                                         tern_full(TERN_SHAPE(1, 28, 28, 1), TERN_F32, (double)INFINITY),
                                         tern_slice(in[0], &TERN_RANGE(2, 40, 1), 1)},
                       3, 0);
  CHECK(run(&b, odd, 4, &eager, 1) == 0, "%s", tern_error());
  both_same("NaN", 0, tern_call_n(f, odd, 4), eager, 0, 0);
  tern_function_release(f);
}

/* Batches of any size through one function: few traces, the same results */
static void batches(void) {
  TERN_SCOPE;
  uint64_t state = 9;
  block b = {.pool = {.window = {3, 3}, .strides = {2, 2}}, .between = 1, .behind = 1};
  tern_function *f = tern_function_new(run, &b, 4, 1, NULL);
  for (int64_t n = 1; n <= (on_opencl() ? 3 : 40); n += 3) {
    TERN_SCOPE;
    const sizes s = {.n = n, .c = 16, .o = 32, .in = {17, 23}, .taps = {3, 2}};
    tern_tensor *in[4], *eager;
    operands(&state, &b, &s, TERN_F32, in);
    CHECK(run(&b, in, 4, &eager, 1) == 0, "%s", tern_error());
    both_same("a batch", (int)n, tern_call_n(f, in, 4), eager, 0, 0);
  }
  tern_function_info info = {0};
  tern_function_get_info(f, &info);
  CHECK(info.traces <= 3, "%d traces", info.traces);
  tern_function_release(f);
}

/* Of sum(max_pool(relu(x + b)) w), by x and b: relu's gradient comes behind the reshapes of the pooling's */
static tern_rc slopes(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const block *b = self;
  (void)n_in, (void)n_out;
  tern_tape *tape = tern_tape_begin(NULL);
  if (!tape || tern_tape_watch(tape, in[0]) || tern_tape_watch(tape, in[1])) return tern_error_code();
  tern_tensor *z = tern_max_pool(tern_relu(tern_add(in[0], channelwise(b, in[1]))), &b->pool);
  return tern_tape_gradient(tape, tern_sum(tern_mul(z, in[2]), NULL), in, 2, out);
}

static void gradient_case(uint64_t seed, tern_dtype dtype) {
  TERN_SCOPE;
  uint64_t state = seed;
  static const int64_t channels[] = {1, 3, 16, 32, 33, 64, 7};
  const int64_t c = channels[test_below(&state, 7)], n = pick(&state, 1, 9);
  block b = {.pool.layout = test_below(&state, 3) ? TERN_NHWC : TERN_NCHW};
  b.conv.layout = b.pool.layout;
  tern_shape x = {.rank = 4, .dim = {n, c, c, c}}, z = x;
  for (int d = 0; d < 2; d++) {
    const int axis = (b.pool.layout == TERN_NHWC ? 1 : 2) + d;
    const int64_t window = b.pool.window[d] = pick(&state, 1, 3);
    b.pool.strides[d] = test_below(&state, 5) ? window : window + 1;
    x.dim[axis] = pick(&state, window, 29);
    z.dim[axis] = (x.dim[axis] - window) / b.pool.strides[d] + 1;
  }
  tern_tensor *in[] = {whole(&state, x, dtype), whole(&state, TERN_SHAPE(c), dtype), whole(&state, z, dtype)};
  char name[120];
  snprintf(name, sizeof name, "gradient, seed %d: %s, window %d x %d", (int)seed, tern_dtype_name(dtype),
           (int)b.pool.window[0], (int)b.pool.window[1]);
  both_ways(name, slopes, &b, in, 3, NULL, 2, 0, 0);
}

static void gradients(void) {
  for (uint64_t seed = 1; seed <= (on_opencl() ? 4 : 60); seed++) gradient_case(seed, seed % 5 ? TERN_F32 : TERN_F64);
}

static const test_case cases[] = {
    {"at random", at_random}, {"one launch", one_launch}, {"batches", batches}, {"gradients", gradients}};
TEST_MAIN("pooling", cases)
