/* Loops whose body computes each row by itself run in parts (core/graph/passes/rows.c): results and gradients as
   eagerly, whichever part a thread takes; bodies that mix rows are found, and stay whole. */
#include "support/values.h"
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <tern/graph.h>

enum { TIME = 5, ROWS = 32, UNITS = 6, INS = 6, OUTS = 4 };

/* in: states h [ROWS, UNITS] and c; slices of x [TIME, ROWS, UNITS] and y [TIME, UNITS]. out: h, c; ys. */
typedef struct form {
  const char *name;
  tern_function_body step;
  bool parts;     /* it may fall into parts */
  bool gradients; /* and so may the loop that goes back */
  int reverse;
} form;

static const form *now;
static tern_tensor *weights, *mask; /* [UNITS, UNITS], [ROWS, 1] */

static tern_rc done(tern_tensor **out, int n) {
  for (int i = 0; i < n; i++)
    if (!out[i]) return TERN_E_ARG;
  return TERN_OK;
}

static tern_tensor *columns(tern_tensor *x, int64_t first) {
  return tern_slice(x, (tern_range[]){TERN_ALL, TERN_RANGE(first, first + UNITS, 1)}, 2);
}
static tern_tensor *product(tern_tensor *x) { return tern_matmul(x, weights); }

static tern_rc cell(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in;
  out[0] = out[2] = tern_tanh(tern_add(product(in[0]), in[2]));
  out[1] = tern_add(tern_mul(in[1], tern_sigmoid(in[2])), tern_mul(out[0], in[3]));
  out[3] = tern_sub(out[1], in[0]);
  return done(out, n_out);
}

/* What is captured has rows, too; columns are put together and taken apart. */
static tern_rc masked(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in;
  tern_tensor *both = tern_concat((tern_tensor *[]){product(in[0]), in[2], in[1]}, 3, 1);
  tern_tensor *middle = columns(both, 3);
  out[0] = tern_where(tern_greater(mask, tern_scalar(0)), middle, in[0]);
  out[1] = tern_mul(columns(both, 2 * UNITS), tern_cos(mask));
  out[2] = tern_sub(out[0], tern_mean(middle, &(tern_reduce_opts){.axes = (int[]){1}, .n_axes = 1, .keepdims = 1}));
  out[3] = tern_max(both, TERN_AXES(1));
  return done(out, n_out);
}

/* Rows that other axes are moved about behind, and slices of two rows each. */
static tern_rc shaped(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in;
  tern_tensor *three = tern_reshape(in[2], TERN_SHAPE(ROWS, 2, UNITS / 2));
  tern_tensor *turned =
      tern_reshape(tern_contiguous(tern_permute(three, (int[]){0, 2, 1}, 3)), TERN_SHAPE(ROWS, UNITS));
  out[0] = tern_add(tern_mul(in[0], tern_scalar(0.5)), turned);
  out[1] = tern_sub(in[1], tern_mul(turned, tern_ones(TERN_SHAPE(ROWS, 1), TERN_F32)));
  out[2] = tern_reshape(out[0], TERN_SHAPE(ROWS * UNITS));
  out[3] = in[2];
  return done(out, n_out);
}

/* Elementwise on what has rows only: the loop that goes back has no sums over rows. */
static tern_rc gates(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in;
  out[0] = out[2] = tern_tanh(tern_add(in[0], in[2]));
  out[1] = tern_mul(tern_add(in[1], out[0]), tern_sigmoid(in[2]));
  out[3] = tern_relu(out[1]);
  return done(out, n_out);
}

/* ---- rows that meet ---- */

static tern_rc mean_of_all(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in;
  out[0] = tern_sub(in[0], tern_mean(in[2], TERN_AXES(0)));
  out[1] = in[1];
  out[2] = out[3] = out[0];
  return done(out, n_out);
}

static tern_rc turned_over(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in;
  out[0] = tern_add(tern_mul(in[0], tern_scalar(0.5)), tern_flip(in[2], (int[]){0}, 1));
  out[1] = tern_add(in[1], in[3]);
  out[2] = out[0];
  out[3] = out[1];
  return done(out, n_out);
}

static tern_rc gram(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in;
  tern_tensor *square = tern_mul(tern_matmul(tern_transpose(in[2]), in[0]), tern_scalar(0.01));
  out[0] = tern_tanh(tern_matmul(in[2], square));
  out[1] = tern_add(in[1], tern_sum(square, NULL));
  out[2] = out[3] = out[0];
  return done(out, n_out);
}

static tern_rc half(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in;
  out[0] = tern_concat((tern_tensor *[]){tern_slice(in[2], (tern_range[]){TERN_RANGE(8, ROWS, 1)}, 1),
                                         tern_slice(in[0], (tern_range[]){TERN_RANGE(0, 8, 1)}, 1)},
                       2, 0);
  out[1] = tern_cumsum(in[2], 0, NULL);
  out[2] = tern_reshape(tern_transpose(in[2]), TERN_SHAPE(ROWS, UNITS));
  out[3] = out[0];
  return done(out, n_out);
}

/* ---- running ---- */

static tern_rc run(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  tern_tensor *found[4];
  (void)self, (void)n_in;
  weights = in[4];
  mask = in[5];
  tern_tape *tape = tern_tape_begin(&(tern_tape_opts){.persistent = 1});
  tern_tensor *const sources[] = {in[0], in[2], in[3], in[4]};
  for (int i = 0; i < 4 && tape; i++)
    if (tern_tape_watch(tape, sources[i])) return TERN_E_ARG;
  tern_rc rc = tern_scan(now->step, NULL, in, 2, (tern_tensor *const[]){in[2], in[3]}, 2, out, 2,
                         &(tern_scan_loop_opts){now->reverse, 0});
  tern_tensor *loss = tern_scalar(0);
  for (int i = 0; i < OUTS && !rc; i++) loss = tern_add(loss, tern_sum(tern_square(out[i]), NULL));
  if (!rc)
    rc = tern_tape_gradients(tape, &loss, NULL, 1, sources, 4, found, &(tern_gradient_opts){.unconnected_zeros = 1});
  for (int i = 0; i < 4; i++) out[OUTS + i] = rc ? NULL : found[i];
  tern_tape_end(tape);
  return rc ? rc : done(out, n_out);
}

static void operands(tern_tensor **in) {
  const int64_t sizes[INS][3] = {{ROWS, UNITS}, {ROWS, UNITS},  {TIME, ROWS, UNITS},
                                 {TIME, UNITS}, {UNITS, UNITS}, {ROWS, 1}};
  for (int i = 0; i < INS; i++) {
    const tern_shape shape = {i == 2 ? 3 : 2, {sizes[i][0], sizes[i][1], sizes[i][2]}};
    in[i] = tern_random_normal(shape, &(tern_random_opts){.seed = (uint64_t)i + 3});
  }
}

static int times(const char *text, const char *what) {
  int n = 0;
  for (const char *at = text; at && (at = strstr(at, what)); at++) n++;
  return n;
}

/* Whether this device runs parts at all: a CPU with more than one thread. (tern_device_at knows, and would start OpenCL
   to say so.) */
static bool has_team(void) {
  const char *device = getenv("TERN_DEVICE"), *threads = getenv("TERN_NUM_THREADS");
  cpu_set_t set;
  CPU_ZERO(&set);
  const int cpus = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
  return device && !strncmp(device, "cpu", 3) && (threads && atoi(threads) ? atoi(threads) : cpus) > 1;
}

static void check(const form *f) {
  TERN_SCOPE;
  tern_tensor *in[INS], *a[OUTS + 4], *b[OUTS + 4];
  operands(in);
  now = f;
  tern_function *function = tern_function_new(run, NULL, INS, OUTS + 4, NULL);
  CHECK(run(NULL, in, INS, a, OUTS + 4) == TERN_OK, "%s: %s", f->name, tern_error());
  for (int again = 0; again < 3; again++) {
    if (!CHECK(tern_function_run(function, in, INS, b, OUTS + 4) == TERN_OK, "%s: %s", f->name, tern_error())) break;
    for (int i = 0; i < OUTS + 4; i++)
      CHECK(tern_allclose(b[i], a[i], 2e-5, 2e-5) == 1, "%s, run %d: result %d differs %s", f->name, again, i,
            tern_error());
  }
  char *text = tern_explain(function);
  const int parts = times(text, "parts side by side"), expected = has_team() ? f->parts + f->gradients : 0;
  CHECK(parts == expected, "%s: %d loops in parts, expected %d:\n%s", f->name, parts, expected, text ? text : "");
  free(text);
  tern_function_release(function);
}

static void test_forms(void) {
  static const form forms[] = {
      {"cell", cell, 1, 0, 0},     {"cell", cell, 1, 0, 1},        {"masked", masked, 1, 0, 0},
      {"shaped", shaped, 1, 0, 0}, {"shaped", shaped, 1, 0, 1},    {"gates", gates, 1, 1, 0},
      {"gates", gates, 1, 1, 1},   {"mean", mean_of_all, 0, 0, 0}, {"turned", turned_over, 0, 0, 0},
      {"gram", gram, 0, 0, 0},     {"half", half, 0, 0, 1}};
  for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
    if (test_chosen()) check(&forms[i]);
}

/* ---- several at once: one has the device's threads, the others run their parts themselves ---- */

static tern_function *shared;
static tern_tensor *given[INS], *wanted;

static void *caller(void *bad) {
  for (int i = 0; i < 50; i++) {
    TERN_SCOPE;
    tern_tensor *out[OUTS + 4];
    if (tern_function_run(shared, given, INS, out, OUTS + 4) || tern_allclose(out[2], wanted, 2e-5, 2e-5) != 1)
      ++*(int *)bad;
  }
  return NULL;
}

static void test_at_once(void) {
  TERN_SCOPE;
  static const form f = {"cell", cell, 1, 0, 0};
  pthread_t thread[4];
  int bad[4] = {0}, n = 0;
  tern_tensor *out[OUTS + 4];
  now = &f;
  operands(given);
  shared = tern_function_new(run, NULL, INS, OUTS + 4, NULL);
  if (!CHECK(tern_function_run(shared, given, INS, out, OUTS + 4) == TERN_OK, "%s", tern_error())) return;
  wanted = out[2];
  while (n < 4 && !pthread_create(&thread[n], NULL, caller, &bad[n])) n++;
  for (int i = 0; i < n; i++) pthread_join(thread[i], NULL);
  for (int i = 0; i < n; i++) CHECK(bad[i] == 0, "thread %d: %d of 50 calls were wrong", i, bad[i]);
  CHECK(n == 4, "%d threads", n);
  tern_function_release(shared);
}

static const test_case cases[] = {{"forms", test_forms}, {"at once", test_at_once}};
TEST_MAIN("graph.rows", cases)
