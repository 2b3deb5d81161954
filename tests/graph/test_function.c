/* Functions: when they are traced, what they keep, variables and gradients through them, errors, threads, memory. */
#include "base/alloc.h"
#include "support/values.h"
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <tern/graph.h>
#include <tern/tern.h>

static tern_function_info info_of(tern_function *f) {
  tern_function_info info = {0};
  CHECK(!tern_function_get_info(f, &info), "%s", tern_error());
  return info;
}

static tern_tensor *ramp(tern_shape shape, double first, double step) {
  double x[1024];
  for (int64_t i = 0; i < test_numel(shape); i++) x[i] = first + step * (double)i;
  return test_tensor(shape, TERN_F32, x);
}

/* ---- bodies ---- */

static tern_rc one(tern_tensor *y, tern_tensor **out) {
  *out = y;
  return y ? TERN_OK : tern_error_code();
}
#define BODY(name) static tern_rc name(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out)
#define UNUSED (void)self, (void)in, (void)n_in, (void)out, (void)n_out

BODY(row_means) {
  UNUSED;
  if (self) ++*(int *)self;
  const int last = -1;
  return one(tern_sub(in[0], tern_mean(in[0], &(tern_reduce_opts){.axes = &last, .n_axes = 1, .keepdims = 1})), out);
}
BODY(flat_by_number) {
  UNUSED;
  return one(tern_reshape(in[0], TERN_SHAPE(tern_dim(in[0], 0) * tern_dim(in[0], 1))), out);
}
BODY(flat_by_like) {
  UNUSED;
  return one(tern_reshape(in[0], TERN_SHAPE(TERN_LIKE(in[0], 0) * TERN_LIKE(in[0], 1))), out);
}

/* ---- when it is traced ---- */

static void cache(void) {
  TERN_SCOPE;
  int runs = 0;
  tern_function *f = tern_function_new(row_means, &runs, 1, 1, NULL);
  for (int k = 0; k < 3; k++) CHECK(tern_call(f, ramp(TERN_SHAPE(2, 3), k, 1)) != NULL, "%s", tern_error());
  CHECK(runs == 1 && info_of(f).traces == 1 && info_of(f).programs == 1 && info_of(f).calls == 3, "%d runs", runs);
  CHECK_LIST(tern_call(f, ramp(TERN_SHAPE(2, 3), 5, 1)), TERN_SHAPE(2, 3), TERN_F32, -1, 0, 1, -1, 0, 1);
  tern_call(f, tern_cast(ramp(TERN_SHAPE(2, 3), 0, 1), TERN_F64));
  CHECK(runs == 2, "another dtype: %d runs", runs);
  tern_call(f, ramp(TERN_SHAPE(6), 0, 1));
  CHECK(runs == 3, "another rank: %d runs", runs);
  tern_call(f, tern_transpose(ramp(TERN_SHAPE(3, 2), 0, 1)));
  CHECK(runs == 3, "other strides: %d runs", runs);
  CHECK_NO_ERROR();
  tern_function_release(f);
}

static void batches(void) {
  int runs = 0;
  tern_function *f = tern_function_new(row_means, &runs, 1, 1, NULL);
  for (int n = 1; n <= 20; n++) {
    TERN_SCOPE;
    tern_tensor *x = ramp(TERN_SHAPE(n, 4), n, 0.5), *y = tern_call(f, x), *expected;
    row_means(NULL, &x, 1, &expected, 1);
    CHECK(y && tern_allclose(y, expected, 1e-6, 1e-6), "batch of %d: %s", n, tern_error());
  }
  CHECK(runs <= 2 && info_of(f).programs == 20, "%d runs of the body, %d programs", runs, info_of(f).programs);
  tern_function_release(f);
  f = tern_function_new(row_means, NULL, 1, 1, &(tern_function_opts){.fixed_sizes = 1});
  for (int n = 1; n <= 5; n++) {
    TERN_SCOPE;
    tern_call(f, ramp(TERN_SHAPE(n, 4), n, 0.5));
  }
  CHECK(info_of(f).traces == 5, "fixed sizes: %d traces", info_of(f).traces);
  tern_function_release(f);
}

static void pins(void) {
  TERN_SCOPE;
  static const tern_function_body bodies[] = {flat_by_number, flat_by_like};
  for (int k = 0; k < 2; k++) {
    tern_function *f = tern_function_new(bodies[k], NULL, 1, 1, NULL);
    for (int n = 2; n <= 6; n++) {
      tern_tensor *x = ramp(TERN_SHAPE(n, 4), n, 0.5), *y = tern_call(f, x);
      CHECK(y && tern_equal_all(y, tern_flatten(x)), "body %d, %d rows: %s", k, n, tern_error());
    }
    const int traces = info_of(f).traces;
    CHECK(k ? traces <= 2 : traces >= 5, "body %d: %d traces", k, traces);
    char *text = tern_explain(f);
    CHECK(text && (k || strstr(text, "fixed a size")), "%s", text ? text : tern_error());
    CHECK(text && (!k || strstr(text, "s0")), "%s", text ? text : tern_error());
    free(text);
    tern_function_release(f);
  }
  CHECK_NO_ERROR();
}

/* ---- operands and results ---- */

BODY(optional) {
  UNUSED;
  out[1] = in[1] == TERN_NONE ? TERN_NONE : tern_neg(in[1]);
  out[2] = in[0];
  out[3] = tern_transpose(in[0]);
  return one(in[1] == TERN_NONE ? tern_neg(in[0]) : tern_add(in[0], in[1]), out);
}

static void operands(void) {
  TERN_SCOPE;
  tern_function *f = tern_function_new(optional, NULL, 2, 4, NULL);
  tern_tensor *x = ramp(TERN_SHAPE(2, 2), 0, 1), *out[5];
  CHECK(!tern_function_run(f, (tern_tensor *[]){x, TERN_NONE}, 2, out, 4), "%s", tern_error());
  CHECK_LIST(out[0], TERN_SHAPE(2, 2), TERN_F32, 0, -1, -2, -3);
  CHECK(out[1] == TERN_NONE, "a result is not none");
  CHECK_LIST(out[2], TERN_SHAPE(2, 2), TERN_F32, 0, 1, 2, 3);
  CHECK_LIST(out[3], TERN_SHAPE(2, 2), TERN_F32, 0, 2, 1, 3);
  CHECK(!tern_function_run(f, (tern_tensor *[]){x, tern_scalar(2)}, 2, out, 4), "%s", tern_error());
  CHECK_LIST(out[0], TERN_SHAPE(2, 2), TERN_F32, 2, 3, 4, 5);
  CHECK(!tern_function_run(f, (tern_tensor *[]){x, tern_scalar(3)}, 2, out, 4), "%s", tern_error());
  CHECK_LIST(out[0], TERN_SHAPE(2, 2), TERN_F32, 3, 4, 5, 6);
  CHECK(tern_function_run(f, &x, 1, out, 4) == TERN_E_ARG, "one operand too few is fine");
  CHECK_ERROR(TERN_E_ARG, "takes 2 operands and gives 4 results");
  CHECK(tern_function_run(f, (tern_tensor *[]){x, x}, 2, out, 5) == TERN_E_ARG, "one result too many is fine");
  CHECK_ERROR(TERN_E_ARG, "takes 2 operands");
  CHECK(tern_function_run(f, (tern_tensor *[]){x, NULL}, 2, out, 4) != TERN_OK, "NULL is fine");
  tern_error_clear();
  CHECK(!tern_function_new(NULL, NULL, 1, 1, NULL), "a function without a body");
  CHECK_ERROR(TERN_E_ARG, "function_new");
  tern_function_release(f);
}

/* ---- errors ---- */

BODY(reads_item) {
  UNUSED;
  return one(tern_mul(in[0], tern_scalar(tern_item(tern_sum(in[0], NULL)))), out);
}
BODY(fails_for_rank_1) {
  UNUSED;
  return one(tern_matmul(in[0], tern_reshape(in[0], TERN_SHAPE(2, -1))), out);
}
BODY(finds_unique) {
  UNUSED;
  return one(tern_unique(in[0], NULL, NULL), out);
}

static void errors(void) {
  TERN_SCOPE;
  tern_function *f = tern_function_new(reads_item, NULL, 1, 1, &(tern_function_opts){.name = "reader"});
  CHECK(!tern_call(f, ramp(TERN_SHAPE(3), 0, 1)), "tern_item gave a number");
  CHECK_ERROR(TERN_E_ARG, "\"reader\"");
  CHECK(!tern_call(f, ramp(TERN_SHAPE(3), 0, 1)), "tern_item gave a number");
  CHECK_ERROR(TERN_E_ARG, "sum");
  tern_function_release(f);
  f = tern_function_new(finds_unique, NULL, 1, 1, NULL);
  CHECK(!tern_call(f, ramp(TERN_SHAPE(3), 0, 1)), "unique has a size");
  CHECK_ERROR(TERN_E_ARG, "unique");
  tern_function_release(f);
  f = tern_function_new(fails_for_rank_1, NULL, 1, 1, NULL);
  CHECK(!tern_call(f, ramp(TERN_SHAPE(3), 0, 1)), "three elements in two rows");
  CHECK_ERROR(TERN_E_ARG, "reshape");
  CHECK(tern_call(f, ramp(TERN_SHAPE(2, 2), 0, 1)) != NULL, "%s", tern_error());
  CHECK(!tern_call(f, ramp(TERN_SHAPE(2, 3), 0, 1)), "[2, 3] times [2, 3]");
  tern_error_clear();
  CHECK_LIST(tern_call(f, ramp(TERN_SHAPE(2, 2), 0, 1)), TERN_SHAPE(2, 2), TERN_F32, 2, 3, 6, 11);
  CHECK_NO_ERROR();
  tern_function_release(f);
}

/* ---- nested, variables ---- */

typedef struct pair {
  tern_function *inner;
  tern_tensor *variable;
} pair;

BODY(twice_inner) {
  const pair *p = self;
  (void)n_in, (void)n_out;
  return one(tern_call(p->inner, tern_call(p->inner, in[0])), out);
}
BODY(halved) {
  UNUSED;
  return one(tern_mul(in[0], tern_scalar(0.5)), out);
}
BODY(counts_up) {
  const pair *p = self;
  (void)n_in, (void)n_out;
  tern_tensor *before = tern_add(p->variable, tern_scalar(0));
  if (tern_assign_add(p->variable, in[0])) return tern_error_code();
  out[1] = before;
  return one(tern_mul(p->variable, tern_scalar(2)), out);
}

static void nested(void) {
  TERN_SCOPE;
  pair p = {.inner = tern_function_new(halved, NULL, 1, 1, NULL)};
  tern_function *f = tern_function_new(twice_inner, &p, 1, 1, NULL);
  CHECK_LIST(tern_call(f, ramp(TERN_SHAPE(2), 4, 4)), TERN_SHAPE(2), TERN_F32, 1, 2);
  CHECK(info_of(p.inner).traces == 0 && info_of(f).launches <= 2, "the inner function was traced on its own");
  tern_function_release(f);
  tern_function_release(p.inner);
}

static void variables(void) {
  TERN_SCOPE;
  pair p = {.variable = tern_variable(ramp(TERN_SHAPE(3), 0, 1), &(tern_variable_opts){.name = "v"})};
  tern_function *f = tern_function_new(counts_up, &p, 1, 2, NULL);
  tern_tensor *x = ramp(TERN_SHAPE(3), 1, 0), *out[2];
  CHECK(!tern_function_run(f, &x, 1, out, 2), "%s", tern_error());
  CHECK_LIST(out[0], TERN_SHAPE(3), TERN_F32, 2, 4, 6);
  CHECK_LIST(out[1], TERN_SHAPE(3), TERN_F32, 0, 1, 2);
  CHECK_LIST(p.variable, TERN_SHAPE(3), TERN_F32, 1, 2, 3);
  tern_tensor *view = tern_slice(p.variable, &TERN_RANGE(1, 3, 1), 1);
  CHECK(!tern_function_run(f, &x, 1, out, 2), "%s", tern_error());
  CHECK_LIST(view, TERN_SHAPE(2), TERN_F32, 2, 3);
  CHECK_LIST(p.variable, TERN_SHAPE(3), TERN_F32, 2, 3, 4);
  for (int k = 0; k < 10; k++) tern_function_run(f, &x, 1, out, 2);
  CHECK_LIST(p.variable, TERN_SHAPE(3), TERN_F32, 12, 13, 14);
  CHECK(!tern_assign(p.variable, x), "%s", tern_error());
  CHECK(!tern_function_run(f, &x, 1, out, 2), "%s", tern_error());
  CHECK_LIST(p.variable, TERN_SHAPE(3), TERN_F32, 2, 2, 2);
  CHECK(info_of(f).traces == 1, "%d traces", info_of(f).traces);
  CHECK_NO_ERROR();
  tern_function_release(f);
  tern_release(p.variable);
}

/* ---- gradients ---- */

BODY(cubed) {
  UNUSED;
  return one(tern_mul(in[0], tern_square(in[0])), out);
}
BODY(slope) {
  UNUSED;
  tern_tape *tape = tern_tape_begin(NULL);
  if (!tape || tern_tape_watch(tape, in[0])) return tern_error_code();
  tern_tensor *y = tern_mul(in[0], tern_square(in[0]));
  return y ? tern_tape_gradient(tape, y, in, 1, out) : tern_error_code();
}

static void gradients(void) {
  TERN_SCOPE;
  tern_function *f = tern_function_new(cubed, NULL, 1, 1, NULL), *g = tern_function_new(slope, NULL, 1, 1, NULL);
  tern_tensor *x = ramp(TERN_SHAPE(3), 1, 1), *d, *dd;
  for (int k = 0; k < 3; k++) {
    tern_tape *outer = tern_tape_begin(NULL), *inner = tern_tape_begin(NULL);
    tern_tape_watch(outer, x);
    tern_tape_watch(inner, x);
    tern_tensor *y = tern_call(f, x);
    CHECK(y && !tern_tape_gradient(inner, y, &x, 1, &d), "%s", tern_error());
    CHECK_LIST(d, TERN_SHAPE(3), TERN_F32, 3, 12, 27);
    CHECK(!tern_tape_gradient(outer, d, &x, 1, &dd), "%s", tern_error());
    CHECK_LIST(dd, TERN_SHAPE(3), TERN_F32, 6, 12, 18);
    CHECK_LIST(tern_call(g, x), TERN_SHAPE(3), TERN_F32, 3, 12, 27);
    tern_tape *around = tern_tape_begin(NULL);
    tern_tape_watch(around, x);
    tern_tensor *s = tern_call(g, x);
    CHECK(s && !tern_tape_gradient(around, s, &x, 1, &dd), "%s", tern_error());
    CHECK_LIST(dd, TERN_SHAPE(3), TERN_F32, 6, 12, 18);
  }
  CHECK_NO_ERROR();
  tern_function_release(f);
  tern_function_release(g);
}

/* ---- random numbers, constants ---- */

BODY(draws) {
  UNUSED;
  tern_tensor *a = tern_random_normal(TERN_SHAPE(2, 3), NULL);
  tern_random_uniform(TERN_SHAPE(5), NULL); /* not used, but drawn */
  return one(tern_add(tern_add(in[0], a), tern_dropout(tern_ones(TERN_SHAPE(2, 3), TERN_F32), 0.5, NULL)), out);
}

static void random_numbers(void) {
  TERN_SCOPE;
  tern_function *f = tern_function_new(draws, NULL, 1, 1, NULL);
  tern_tensor *x = ramp(TERN_SHAPE(2, 3), 0, 0), *eager[3], *traced[3];
  tern_set_seed(42);
  for (int k = 0; k < 3; k++) draws(NULL, &x, 1, &eager[k], 1);
  tern_set_seed(42);
  for (int k = 0; k < 3; k++) traced[k] = tern_call(f, x);
  for (int k = 0; k < 3; k++)
    CHECK(traced[k] && tern_equal_all(eager[k], traced[k]), "draw %d differs from the eager one", k);
  CHECK(!tern_equal_all(traced[0], traced[1]), "two calls drew the same numbers");
  tern_function_release(f);
}

BODY(adds_large_integer) {
  UNUSED;
  return one(tern_add(in[0], tern_scalar_int(2 * 29986577 + 3)), out);
}

/* A number of the program that looks like one made of a variable size. */
static void numbers_like_sizes(void) {
  tern_function *f = tern_function_new(adds_large_integer, NULL, 1, 1, NULL);
  for (int n = 2; n < 6; n++) {
    TERN_SCOPE;
    tern_tensor *y = tern_call(f, tern_zeros(TERN_SHAPE(n), TERN_I64));
    CHECK(y && tern_item_int(tern_index(y, 0, 1)) == 2 * 29986577 + 3, "%d elements: %s", n, tern_error());
  }
  tern_function_release(f);
}

BODY(smoothed_loss) {
  UNUSED;
  return one(
      tern_loss_categorical_crossentropy(in[0], in[1], &(tern_loss_opts){.label_smoothing = 0.1, .from_logits = 1}),
      out);
}

/* A host number made of a size in a way that cannot be read back: the function must notice. */
static void numbers_of_sizes(void) {
  tern_function *f = tern_function_new(smoothed_loss, NULL, 2, 1, NULL);
  for (int n = 2; n < 7; n++) {
    TERN_SCOPE;
    tern_tensor *in[] = {tern_softmax(ramp(TERN_SHAPE(2, n), 0, 0.3), 1), ramp(TERN_SHAPE(2, n), 1, -0.2)}, *expected;
    smoothed_loss(NULL, in, 2, &expected, 1);
    tern_tensor *y = tern_call_n(f, in, 2);
    CHECK(y && tern_allclose(y, expected, 1e-6, 0), "%d classes: %s", n, tern_error());
  }
  tern_function_release(f);
}

/* ---- threads ---- */

enum { THREADS = 4, ROUNDS = 200 };

static void *caller(void *function) {
  for (int k = 0; k < ROUNDS; k++) {
    TERN_SCOPE;
    const int n = 2 + k % 5;
    tern_tensor *y = tern_call((tern_function *)function, ramp(TERN_SHAPE(n, 3), k, 1));
    double *values = y ? test_values(y) : NULL;
    const bool ok = values && values[0] == -1 && values[3 * n - 1] == 1;
    free(values);
    if (!ok) return function;
  }
  return NULL;
}

static void threads(void) {
  tern_function *f = tern_function_new(row_means, NULL, 1, 1, NULL);
  pthread_t thread[THREADS];
  void *failed = NULL;
  for (int i = 0; i < THREADS; i++) pthread_create(&thread[i], NULL, caller, f);
  for (int i = 0; i < THREADS; i++) {
    void *result;
    pthread_join(thread[i], &result);
    if (result) failed = result;
  }
  CHECK(!failed, "a thread got a wrong result");
  CHECK(info_of(f).calls <= THREADS * ROUNDS && info_of(f).traces <= 2, "%d traces", info_of(f).traces);
  tern_function_release(f);
}

/* ---- memory ---- */

static void replays(void) {
  TERN_SCOPE;
  pair p = {.variable = tern_variable(ramp(TERN_SHAPE(3), 0, 0), NULL)};
  tern_function *f = tern_function_new(counts_up, &p, 1, 2, NULL);
  tern_tensor *x = ramp(TERN_SHAPE(3), 1, 0), *out[2];
  for (int k = 0; k < 3; k++) {
    TERN_SCOPE;
    tern_function_run(f, &x, 1, out, 2);
  }
  tern__alloc_fail_at(0);
  const long before = tern__alloc_count();
  for (int k = 0; k < 10000; k++) {
    TERN_SCOPE;
    if (tern_function_run(f, &x, 1, out, 2)) break;
  }
  CHECK(tern__alloc_count() == before, "10000 replays allocated %ld times", tern__alloc_count() - before);
  CHECK_LIST(p.variable, TERN_SHAPE(3), TERN_F32, 10003, 10003, 10003);
  tern_function_release(f);
  tern_release(p.variable);
}

BODY(little_of_all) {
  const pair *p = self;
  (void)n_in, (void)n_out;
  tern_tape *tape = tern_tape_begin(NULL);
  if (!tape || tern_tape_watch(tape, in[0])) return tern_error_code();
  tern_tensor *h = tern_gelu(tern_matmul(in[0], tern_transpose(in[0])), NULL);
  tern_tensor *y =
      tern_mean(tern_softmax(tern_concat((tern_tensor *[]){h, tern_dropout(h, 0.5, NULL)}, 2, 1), -1), NULL);
  tern_tensor *d;
  if (!y || tern_tape_gradient(tape, y, in, 1, &d) || tern_assign_add(p->variable, tern_sum(d, NULL)))
    return tern_error_code();
  return one(y, out);
}

static void out_of_memory(void) {
  TERN_SCOPE;
  pair p = {.variable = tern_variable(ramp(TERN_SHAPE(3), 0, 0), NULL)};
  tern_tensor *x = ramp(TERN_SHAPE(4, 3), 0, 0.1);
  long failures = 0, at = 1;
  for (bool done = false; !done && at < 20000; at++) {
    TERN_SCOPE;
    tern_function *f = tern_function_new(little_of_all, &p, 1, 1, NULL);
    tern__alloc_fail_at(at);
    tern_tensor *y = f ? tern_call(f, x) : NULL;
    done = tern__alloc_count() < at;
    tern__alloc_fail_at(0);
    failures += !y;
    CHECK(y || tern_error_code() == TERN_E_OOM, "allocation %ld: %s", at, tern_error());
    tern_error_clear();
    if (at % 16 == 0 && f) {
      CHECK(tern_call(f, x) != NULL, "after allocation %ld failed: %s", at, tern_error());
      tern_error_clear();
    }
    tern_function_release(f);
  }
  CHECK(failures > 20, "only %ld failures", failures);
  printf("(%ld allocations, %ld made the call fail) ", at, failures);
  tern_release(p.variable);
}

static const test_case cases[] = {{"the cache", cache},
                                  {"batch sizes", batches},
                                  {"sizes read as numbers", pins},
                                  {"operands and results", operands},
                                  {"errors", errors},
                                  {"nested", nested},
                                  {"variables", variables},
                                  {"gradients", gradients},
                                  {"random numbers", random_numbers},
                                  {"numbers that look like sizes", numbers_like_sizes},
                                  {"numbers made of sizes", numbers_of_sizes},
                                  {"threads", threads},
                                  {"10000 replays", replays},
                                  {"out of memory", out_of_memory}};
TEST_MAIN("functions", cases)
