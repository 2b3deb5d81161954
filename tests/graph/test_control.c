/* tern_cond, tern_while, tern_scan: the same results eagerly and in functions, what bodies may read, and what is
   refused. Gradients: test_control_grad.c. */
#include "graph/both.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static tern_rc give(tern_tensor **out, tern_tensor *x) { return (out[0] = x) ? TERN_OK : tern_error_code(); }

/* ---- loops whose number of trips depends on data ---- */

static tern_rc factorial_goes_on(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  return give(out, tern_greater(in[0], tern_scalar_int(1)));
}
static tern_rc factorial_trip(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  out[0] = tern_sub(in[0], tern_scalar_int(1));
  out[1] = tern_mul(in[1], in[0]);
  return TERN_OK;
}
static tern_rc factorial(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  tern_tensor *state[2] = {in[0], tern_ones_like(in[0])}, *last[2];
  const tern_rc rc = tern_while(factorial_goes_on, factorial_trip, NULL, state, 2, last, NULL);
  out[0] = last[1];
  return rc;
}

static tern_tensor *int_scalar(int64_t v) { return tern_constant(TERN_SHAPE(), TERN_I64, &v, 1); }
static tern_tensor *float_scalar(float v) { return tern_constant(TERN_SHAPE(), TERN_F32, &v, 1); }

static void test_factorial(void) {
  TERN_SCOPE;
  tern_tensor *n = int_scalar(10), *out;
  both_ways("factorial", factorial, NULL, &n, 1, &out, 1, 0, 0);
  CHECK_LIST(out, TERN_SHAPE(), TERN_I64, 3628800);
  tern_function *f = tern_function_new(factorial, NULL, 1, 1, NULL);
  const double expected[] = {1, 1, 2, 6, 24, 120, 720};
  for (int i = 0; i < 7; i++) { /* 0 and 1: no trips */
    tern_tensor *x = int_scalar(i), *y = tern_call(f, x);
    CHECK_LIST(y, TERN_SHAPE(), TERN_I64, expected[i]);
  }
  tern_function_info info;
  tern_function_get_info(f, &info);
  CHECK(info.traces == 1, "%d traces", info.traces);
  tern_function_release(f);
}

static tern_rc gcd_goes_on(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  out[0] = in[1]; /* a number: whether it is not 0 */
  return TERN_OK;
}
static tern_rc gcd_trip(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  out[0] = in[1]; /* one state becomes another */
  out[1] = tern_remainder(in[0], in[1]);
  return TERN_OK;
}
static tern_rc gcd(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_out;
  tern_tensor *last[2];
  const tern_rc rc = tern_while(gcd_goes_on, gcd_trip, NULL, in, n_in, last, NULL);
  out[0] = last[0];
  return rc;
}

static void test_gcd(void) {
  TERN_SCOPE;
  tern_function *f = tern_function_new(gcd, NULL, 2, 1, NULL);
  const int64_t cases[][3] = {{48, 36, 12}, {17, 5, 1}, {1071, 462, 21}, {7, 0, 7}, {0, 9, 9}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    tern_tensor *in[] = {int_scalar(cases[i][0]), int_scalar(cases[i][1])}, *out;
    both_ways("gcd", gcd, NULL, in, 2, &out, 1, 0, 0);
    CHECK_LIST(out, TERN_SHAPE(), TERN_I64, (double)cases[i][2]);
    CHECK_LIST(tern_call(f, in[0], in[1]), TERN_SHAPE(), TERN_I64, (double)cases[i][2]);
  }
  tern_function_release(f);
}

/* x -> (x + a / x) / 2 while it moves; a is read from outside */
static tern_rc newton_goes_on(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in, (void)n_out;
  tern_tensor *off = tern_abs(tern_sub(tern_mul(in[0], in[0]), *(tern_tensor **)self));
  return give(out, tern_any(tern_greater(off, tern_mul(*(tern_tensor **)self, tern_scalar(1e-5))), NULL));
}
static tern_rc newton_trip(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in, (void)n_out;
  out[0] = tern_mul(tern_add(in[0], tern_div(*(tern_tensor **)self, in[0])), tern_scalar(0.5));
  out[1] = tern_add(in[1], tern_scalar_int(1));
  return TERN_OK;
}
static tern_rc newton(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  tern_tensor *a = in[0], *state[] = {tern_ones_like(a), tern_constant(TERN_SHAPE(), TERN_I32, (int[]){0}, 1)};
  return tern_while(newton_goes_on, newton_trip, &a, state, 2, out, &(tern_while_opts){.max_trips = 100});
}

static void test_newton(void) {
  TERN_SCOPE;
  tern_tensor *a = tern_f32(TERN_SHAPE(3), 2, 9, 1e4), *out[2];
  both_ways("newton", newton, NULL, &a, 1, out, 2, 4, 0);
  const double roots[] = {1.4142135623730951, 3, 100};
  CHECK_VALUES(out[0], TERN_SHAPE(3), TERN_F32, roots, 64, 0, "square roots");
  double *trips = test_values(out[1]);
  CHECK(trips && trips[0] > 5 && trips[0] < 30, "%g trips", trips ? trips[0] : -1);
  free(trips);
}

/* The number of steps until 1: n even: n / 2, else 3 n + 1. A branch in a loop. */
static tern_rc half(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  return give(out, tern_floor_divide(in[0], tern_scalar_int(2)));
}
static tern_rc triple(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  return give(out, tern_add(tern_mul(in[0], tern_scalar_int(3)), tern_scalar_int(1)));
}
static tern_rc collatz_trip(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in, (void)n_out;
  tern_tensor *even = tern_equal(tern_remainder(in[0], tern_scalar_int(2)), tern_scalar_int(0));
  out[1] = tern_add(in[1], tern_scalar_int(1));
  return tern_cond(even, half, triple, self, in, 1, out, 1);
}
static tern_rc collatz(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in, (void)n_out;
  tern_tensor *state[] = {in[0], tern_zeros_like(in[0])}, *last[2];
  const tern_rc rc = tern_while(factorial_goes_on, collatz_trip, self, state, 2, last, NULL);
  out[0] = last[1];
  return rc;
}

static void test_nested(void) {
  TERN_SCOPE;
  tern_tensor *n = int_scalar(27), *out;
  both_ways("collatz", collatz, NULL, &n, 1, &out, 1, 0, 0);
  CHECK_LIST(out, TERN_SHAPE(), TERN_I64, 111);
}

/* ---- what bodies read ---- */

typedef struct outside {
  tern_tensor *constant, *value, *variable;
  tern_function *inner;
} outside;

static tern_rc reads_then(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const outside *o = self;
  (void)n_in, (void)n_out;
  return give(out, tern_add(tern_mul(in[0], o->constant), tern_add(o->value, o->variable)));
}
static tern_rc reads_otherwise(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const outside *o = self;
  (void)n_in, (void)n_out;
  tern_tensor *y = tern_call(o->inner, in[0], o->variable);
  return give(out, tern_sub(y, tern_f32(TERN_SHAPE(2), 1, 2)));
}
static tern_rc reads(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  outside o = *(outside *)self;
  (void)n_in, (void)n_out;
  o.value = tern_exp(in[1]);
  return tern_cond(in[0], reads_then, reads_otherwise, &o, in + 1, 1, out, 1);
}
static tern_rc inner(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  return give(out, tern_mul(tern_sin(in[0]), in[1]));
}

static tern_tensor *truth(int v) {
  const uint8_t byte = (uint8_t)v;
  return tern_constant(TERN_SHAPE(), TERN_BOOL, &byte, 1);
}

static void test_reads(void) {
  TERN_SCOPE;
  outside o = {.constant = tern_f32(TERN_SHAPE(2), 3, 4),
               .variable = tern_variable(tern_f32(TERN_SHAPE(2), 5, 6), NULL)};
  o.inner = tern_function_new(inner, NULL, 2, 1, NULL);
  tern_tensor *x = tern_f32(TERN_SHAPE(2), 0.5, -1);
  tern_function *f = tern_function_new(reads, &o, 2, 1, NULL);
  for (int round = 0; round < 4; round++) {
    tern_tensor *in[] = {truth(round & 1), x}, *out;
    both_ways("reads", reads, &o, in, 2, &out, 1, 4, 0);
    both_same("reads, one trace", round, tern_call(f, in[0], in[1]), out, 4, 0);
    tern_assign_add(o.variable, tern_scalar(1)); /* the functions see it */
  }
  tern_function_info info;
  tern_function_get_info(f, &info);
  CHECK(info.traces == 1, "%d traces for two predicates", info.traces);
  tern_function_release(f);
  tern_function_release(o.inner);
  tern_release(o.variable);
}

/* A variable that was assigned before the branch in the same function. */
static tern_rc assigned(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  outside *o = self;
  (void)n_in, (void)n_out;
  tern_assign(o->variable, tern_mul(in[1], tern_scalar(2)));
  o->value = in[1];
  return tern_cond(in[0], reads_then, reads_otherwise, o, in + 1, 1, out, 1);
}

static void test_assigned_before(void) {
  TERN_SCOPE;
  outside o = {.constant = tern_f32(TERN_SHAPE(2), 3, 4),
               .variable = tern_variable(tern_f32(TERN_SHAPE(2), 5, 6), NULL)};
  tern_tensor *in[] = {truth(1), tern_f32(TERN_SHAPE(2), 0.5, -1)}, *out;
  o.inner = tern_function_new(inner, NULL, 2, 1, NULL);
  both_ways("assigned before", assigned, &o, in, 2, &out, 1, 4, 0);
  CHECK_LIST(out, TERN_SHAPE(2), TERN_F32, 3, -7);
  tern_function_release(o.inner);
  tern_release(o.variable);
}

/* ---- scan ---- */

/* power iteration: v -> A v / |A v|; ys: the norms */
static tern_rc power_trip(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in, (void)n_out;
  tern_tensor *w = tern_matmul(*(tern_tensor **)self, in[0]);
  tern_tensor *norm = tern_sqrt(tern_sum(tern_mul(w, w), NULL));
  out[0] = tern_div(w, norm);
  out[1] = norm;
  return TERN_OK;
}
static tern_rc power(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  tern_tensor *a = in[0];
  return tern_scan(power_trip, &a, in + 1, 1, NULL, 0, out, 1, &(tern_scan_loop_opts){.length = 30});
}

static void test_power(void) {
  TERN_SCOPE;
  tern_tensor *in[] = {tern_f32(TERN_SHAPE(3, 3), 4, 1, 0, 1, 3, 1, 0, 1, 2), tern_f32(TERN_SHAPE(3), 1, 0, 0)},
              *out[2];
  both_ways("power iteration", power, NULL, in, 2, out, 2, 16, 0);
  double *norms = test_values(out[1]);
  CHECK(norms && fabs(norms[29] - 4.7320508) < 1e-4, "the largest eigenvalue is %g", norms ? norms[29] : 0);
  free(norms);
}

/* carry: sum (float), count (int32). xs: a row, an int. ys: the running sum, whether the count is odd */
static tern_rc running_trip(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  out[0] = out[2] = tern_add(in[0], tern_mul(in[2], tern_cast(in[3], TERN_F32)));
  out[1] = tern_add(in[1], tern_scalar_int(1));
  out[3] = tern_equal(tern_remainder(out[1], tern_scalar_int(2)), tern_scalar_int(1));
  return TERN_OK;
}
static tern_rc running(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in, (void)n_out;
  tern_tensor *carry[] = {tern_zeros(TERN_SHAPE(2), TERN_F32), tern_constant(TERN_SHAPE(), TERN_I32, (int[]){0}, 1)};
  return tern_scan(running_trip, NULL, carry, 2, in, 2, out, 2, &(tern_scan_loop_opts){.reverse = self != NULL});
}

static void test_scan(void) {
  TERN_SCOPE;
  tern_tensor *in[] = {tern_f32(TERN_SHAPE(3, 2), 1, 2, 3, 4, 5, 6),
                       tern_constant(TERN_SHAPE(3), TERN_I64, (int64_t[]){1, 10, 100}, 3)};
  tern_tensor *out[4];
  both_ways("scan", running, NULL, in, 2, out, 4, 0, 0);
  CHECK_LIST(out[0], TERN_SHAPE(2), TERN_F32, 531, 642);
  CHECK_LIST(out[1], TERN_SHAPE(), TERN_I32, 3);
  CHECK_LIST(out[2], TERN_SHAPE(3, 2), TERN_F32, 1, 2, 31, 42, 531, 642);
  CHECK_LIST(out[3], TERN_SHAPE(3), TERN_BOOL, 1, 0, 1);
  both_ways("scan, reversed", running, out, in, 2, out, 4, 0, 0);
  CHECK_LIST(out[0], TERN_SHAPE(2), TERN_F32, 531, 642);
  CHECK_LIST(out[2], TERN_SHAPE(3, 2), TERN_F32, 531, 642, 530, 640, 500, 600);
  CHECK_LIST(out[3], TERN_SHAPE(3), TERN_BOOL, 1, 0, 1);
  tern_tensor *none[] = {tern_zeros(TERN_SHAPE(0, 2), TERN_F32), tern_zeros(TERN_SHAPE(0), TERN_I64)};
  both_ways("scan over nothing", running, NULL, none, 2, out, 4, 0, 0);
  CHECK_LIST(out[0], TERN_SHAPE(2), TERN_F32, 0, 0);
  CHECK(out[2] && tern_rank(out[2]) == 2 && tern_dim(out[2], 0) == 0 && tern_dim(out[2], 1) == 2, "ys over nothing");
  CHECK(out[3] && tern_dtype_get(out[3]) == TERN_BOOL, "dtype of ys over nothing");
  const tern_rc rc = running(NULL, (tern_tensor *const[]){in[0], none[1]}, 2, out, 4);
  CHECK(rc == TERN_E_ARG, "xs of other lengths: %s", tern_rc_name(rc));
  CHECK_ERROR(TERN_E_ARG, "another number");
}

/* Sizes that vary: one more trace serves all lengths. */
static void test_variable_sizes(void) {
  TERN_SCOPE;
  tern_function *f = tern_function_new(running, NULL, 2, 4, NULL);
  const tern_scan_loop_opts opts = {0};
  (void)opts;
  for (int64_t n = 2; n < 12; n++) {
    TERN_SCOPE;
    tern_tensor *in[2], *expected[4], *got[4];
    in[0] = tern_reshape(tern_arange(0, (double)(2 * n), 1, TERN_F32), TERN_SHAPE(n, 2));
    in[1] = tern_arange(1, (double)n + 1, 1, TERN_I64);
    CHECK(running(NULL, in, 2, expected, 4) == 0 && tern_function_run(f, in, 2, got, 4) == 0, "%s", tern_error());
    for (int o = 0; o < 4; o++) both_same("scan of variable length", o, got[o], expected[o], 0, 0);
  }
  tern_function_info info;
  tern_function_get_info(f, &info);
  CHECK(info.traces == 2, "%d traces for 10 lengths", info.traces);
  tern_function_release(f);
}

/* ---- refusals ---- */

static tern_rc forever(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  return tern_while(factorial_goes_on, factorial_trip, NULL, in, 2, out, &(tern_while_opts){.max_trips = 5});
}

static void test_limit(void) {
  TERN_SCOPE;
  tern_function *f = tern_function_new(forever, NULL, 2, 2, NULL);
  for (int round = 0; round < 3; round++) {
    const int64_t trips = round == 1 ? 6 : 5; /* 5: just enough */
    tern_tensor *in[] = {int_scalar(trips + 1), int_scalar(1)}, *out[2];
    tern_rc rc = forever(NULL, in, 2, out, 2);
    CHECK((rc != 0) == (round == 1), "eagerly, %d trips: %s", (int)trips, tern_rc_name(rc));
    if (rc) CHECK_ERROR(TERN_E_ARG, "max_trips = 5");
    rc = tern_function_run(f, in, 2, out, 2);
    CHECK((rc != 0) == (round == 1), "traced, %d trips: %s", (int)trips, tern_rc_name(rc));
    if (rc)
      CHECK_ERROR(TERN_E_ARG, "max_trips = 5");
    else
      CHECK_LIST(out[1], TERN_SHAPE(), TERN_I64, 720);
  }
  CHECK_NO_ERROR();
  tern_function_release(f);
}

typedef struct wrong {
  int what;
} wrong;
static tern_rc wrong_then(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const wrong *w = self;
  (void)n_in, (void)n_out;
  if (w->what == 2) return TERN_E_IO;
  if (w->what == 3) return TERN_OK; /* a result is missing */
  if (w->what == 4) return give(out, tern_add(in[0], tern_zeros(TERN_SHAPE(7), TERN_F32)));
  return give(out, w->what == 0 ? tern_cast(in[0], TERN_F64) : tern_concat((tern_tensor *const[]){in[0], in[0]}, 2, 0));
}
static tern_rc wrong_otherwise(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  return give(out, tern_neg(in[0]));
}
static tern_rc wrong_cond(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in;
  return tern_cond(in[0], wrong_then, wrong_otherwise, self, in + 1, 1, out, n_out);
}
static tern_rc wrong_trip(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  return wrong_then(self, in, n_in, out, n_out);
}
static tern_rc yes(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)in, (void)n_in, (void)n_out;
  out[0] = tern_scalar_int(1);
  return TERN_OK;
}
static tern_rc wrong_while(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in;
  return tern_while(yes, wrong_trip, self, in + 1, n_out, out, NULL);
}
static tern_rc wide_condition(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  return give(out, tern_greater(in[0], tern_scalar(0)));
}
static tern_rc wide_while(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in, (void)n_out;
  return tern_while(wide_condition, wrong_otherwise, self, in + 1, 1, out, NULL);
}

static void refused(tern_function_body body, int what, int traced, int code, const char *part) {
  TERN_SCOPE;
  wrong w = {what};
  tern_tensor *in[] = {truth(1), tern_f32(TERN_SHAPE(2), 1, 2)}, *out[1];
  tern_function *f = traced ? tern_function_new(body, &w, 2, 1, NULL) : NULL;
  const tern_rc rc = traced ? tern_function_run(f, in, 2, out, 1) : body(&w, in, 2, out, 1);
  CHECK(rc != 0 && out[0] == NULL, "case %d, traced %d: not refused", what, traced);
  CHECK_ERROR(code, part);
  tern_function_release(f);
}

static void test_refusals(void) {
  for (int traced = 0; traced < 2; traced++) {
    refused(wrong_cond, 2, traced, TERN_E_IO, "cond: the function for true returned TERN_E_IO");
    refused(wrong_cond, 3, traced, TERN_E_ARG, "cond: the function for true left result 1 NULL");
    refused(wrong_cond, 4, traced, TERN_E_ARG, "add");
    refused(wrong_while, 0, traced, TERN_E_ARG, "while: state 1 was float32 of shape (2,) and is float64");
    refused(wrong_while, 1, traced, TERN_E_ARG, "is float32 of shape (4,)");
    refused(wrong_while, 2, traced, TERN_E_IO, "while: the body returned TERN_E_IO");
    refused(wide_while, 0, traced, TERN_E_ARG, "must have one element");
  }
  refused(wrong_cond, 0, 1, TERN_E_ARG, "float64 of shape (2,) if true and float32 of shape (2,) if false");
  refused(wrong_cond, 1, 1, TERN_E_ARG, "float32 of shape (4,) if true and float32 of shape (2,) if false");
  TERN_SCOPE;
  tern_tensor *x = float_scalar(1), *out[1], *many[17];
  for (int i = 0; i < 17; i++) many[i] = x;
  CHECK(tern_while(yes, gcd_trip, NULL, many, 17, out, NULL) == TERN_E_ARG, "17 states");
  CHECK_ERROR(TERN_E_ARG, "1 to 16 states");
  CHECK(tern_cond(tern_f32(TERN_SHAPE(2), 1, 0), half, triple, NULL, &x, 1, out, 1) == TERN_E_ARG, "two predicates");
  CHECK_ERROR(TERN_E_ARG, "must have one element");
  CHECK(tern_scan(running_trip, NULL, NULL, 0, &x, 1, out, 0, NULL) == TERN_E_ARG, "nothing to give");
  CHECK_ERROR(TERN_E_ARG, "scan");
}

/* Assigning a variable inside of a body. */
static tern_rc assigns(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in, (void)n_out;
  tern_assign_add(self, in[0]);
  return give(out, tern_add(in[0], self));
}
static tern_rc cond_assigns(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in;
  return tern_cond(in[0], assigns, wrong_otherwise, self, in + 1, 1, out, n_out);
}
/* A loop that counts in a variable and, in a branch, in another. */
typedef struct counters {
  tern_tensor *all, *even;
} counters;
static tern_rc count_even(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const counters *c = self;
  (void)n_in, (void)n_out;
  tern_assign_add(c->even, tern_scalar_int(1));
  return give(out, tern_add(in[0], c->even));
}
static tern_rc pass(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  out[0] = in[0];
  return TERN_OK;
}
static tern_rc counting_trip(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const counters *c = self;
  (void)n_in, (void)n_out;
  out[0] = tern_sub(in[0], tern_scalar_int(1));
  tern_assign_add(c->all, tern_add(in[0], c->even)); /* sees what past trips assigned */
  tern_tensor *even = tern_equal(tern_remainder(in[0], tern_scalar_int(2)), tern_scalar_int(0));
  return tern_cond(even, count_even, pass, self, in + 1, 1, out + 1, 1);
}
static tern_rc counting(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in, (void)n_out;
  tern_tensor *state[] = {in[0], tern_zeros_like(in[0])};
  const tern_rc rc = tern_while(factorial_goes_on, counting_trip, self, state, 2, out, NULL);
  return rc ? rc : give(out + 2, tern_mul(((counters *)self)->all, tern_scalar_int(2)));
}

static void test_assigning(void) {
  TERN_SCOPE;
  tern_tensor *v = tern_variable(tern_f32(TERN_SHAPE(2), 1, 2), &(tern_variable_opts){.name = "total"});
  tern_tensor *in[] = {truth(1), tern_f32(TERN_SHAPE(2), 10, 20)}, *out[3];
  CHECK(cond_assigns(v, in, 2, out, 1) == 0, "%s", tern_error());
  CHECK_LIST(out[0], TERN_SHAPE(2), TERN_F32, 21, 42);
  CHECK_LIST(v, TERN_SHAPE(2), TERN_F32, 11, 22);
  tern_function *f = tern_function_new(cond_assigns, v, 2, 1, NULL);
  CHECK(tern_function_run(f, in, 2, out, 1) == 0, "%s", tern_error());
  CHECK_LIST(out[0], TERN_SHAPE(2), TERN_F32, 31, 62);
  CHECK_LIST(v, TERN_SHAPE(2), TERN_F32, 21, 42);
  in[0] = truth(0);
  CHECK(tern_function_run(f, in, 2, out, 1) == 0, "%s", tern_error());
  CHECK_LIST(out[0], TERN_SHAPE(2), TERN_F32, -10, -20);
  CHECK_LIST(v, TERN_SHAPE(2), TERN_F32, 21, 42);
  tern_function_release(f);
  tern_release(v);
  double expected[5] = {0};
  for (int traced = 0; traced < 2; traced++) {
    tern_tensor *n = int_scalar(9);
    counters c = {tern_variable(int_scalar(0), NULL), tern_variable(int_scalar(0), NULL)};
    tern_function *g = tern_function_new(counting, &c, 1, 3, NULL);
    for (int round = 0; round < 2; round++) {
      CHECK((traced ? tern_function_run(g, &n, 1, out, 3) : counting(&c, &n, 1, out, 3)) == 0, "%s", tern_error());
      tern_error_clear();
    }
    tern_tensor *is[] = {out[0], out[1], out[2], c.all, c.even};
    for (int i = 0; i < 5; i++) {
      double *is_now = is[i] ? test_values(is[i]) : NULL;
      if (!traced) expected[i] = is_now ? is_now[0] : NAN;
      CHECK(is_now && is_now[0] == expected[i], "counting, value %d: %g, eagerly %g", i, is_now ? is_now[0] : NAN,
            expected[i]);
      free(is_now);
    }
    CHECK(expected[4] == 8 && expected[3] > 80, "%g, %g", expected[3], expected[4]);
    tern_function_release(g);
    tern_release(c.all);
    tern_release(c.even);
  }
}

/* States that are written in place, though others have their memory: the old value is a state too; two states begin as
   one tensor; one becomes a constant; the operand of the function itself. */
static tern_rc writing_trip(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  tern_tensor *at = in[0], *fixed = *(tern_tensor **)self;
  (void)n_in, (void)n_out;
  out[0] = tern_add(at, tern_scalar_int(1));
  out[1] = tern_scatter(in[1], at, tern_scalar(7), 0, TERN_SCATTER_SET);
  out[2] = in[1];
  out[3] = tern_scatter(in[4], at, tern_sum(in[1], NULL), 0, TERN_SCATTER_ADD);
  out[4] = fixed;
  out[5] = tern_add(tern_scatter(in[5], at, tern_scalar(1), 0, TERN_SCATTER_ADD), in[5]); /* reads it afterwards */
  return TERN_OK;
}
static tern_rc writing_goes_on(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  return give(out, tern_less(in[0], tern_scalar_int(3)));
}
static tern_rc writing(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  tern_tensor *x = in[0], *state[] = {tern_constant(TERN_SHAPE(), TERN_I64, (int64_t[]){0}, 1), x, x, x, x, in[1]};
  (void)n_in, (void)n_out;
  return tern_while(writing_goes_on, writing_trip, self, state, 6, out, NULL);
}
static void test_in_place(void) {
  TERN_SCOPE;
  tern_tensor *in[] = {tern_f32(TERN_SHAPE(4), 1, 2, 3, 4), tern_f32(TERN_SHAPE(4), 0, 1, 0, 2)}, *out[6];
  tern_tensor *fixed = tern_f32(TERN_SHAPE(4), 10, 20, 30, 40);
  both_ways("written in place", writing, &fixed, in, 2, out, 6, 0, 0);
  CHECK_LIST(out[1], TERN_SHAPE(4), TERN_F32, 7, 7, 7, 4);
  CHECK_LIST(out[2], TERN_SHAPE(4), TERN_F32, 7, 7, 3, 4);
  CHECK_LIST(in[0], TERN_SHAPE(4), TERN_F32, 1, 2, 3, 4);
  CHECK_LIST(in[1], TERN_SHAPE(4), TERN_F32, 0, 1, 0, 2);
  CHECK_LIST(fixed, TERN_SHAPE(4), TERN_F32, 10, 20, 30, 40);
}

/* Memory does not grow with the number of trips. */
static tern_rc big_trip(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  out[0] = tern_sub(in[0], tern_scalar_int(1));
  out[1] = tern_mul(tern_add(in[1], tern_scalar(1)), tern_scalar(0.5));
  return TERN_OK;
}
static tern_rc big(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_out;
  return tern_while(factorial_goes_on, big_trip, self, in, n_in, out, NULL);
}
static void test_memory(void) {
  TERN_SCOPE;
  const int64_t n = 1 << 18;
  tern_tensor *in[] = {int_scalar(200), tern_zeros(TERN_SHAPE(n), TERN_F32)}, *out[2];
  tern_memory before, after;
  tern_function *f = tern_function_new(big, NULL, 2, 2, NULL);
  for (int traced = 0; traced < 2; traced++) {
    tern_memory_info(NULL, &before);
    const tern_rc rc = traced ? tern_function_run(f, in, 2, out, 2) : big(NULL, in, 2, out, 2);
    CHECK(rc == 0, "%s", tern_error());
    tern_memory_info(NULL, &after);
    CHECK(after.peak < before.live + 12 * (uint64_t)n * 4, "traced %d: peak %llu, %llu before", traced,
          (unsigned long long)after.peak, (unsigned long long)before.live);
  }
  tern_function_release(f);
}

/* In graph mode, with a predicate that is fed. */
static void test_session(void) {
  TERN_SCOPE;
  tern_graph *g = tern_graph_new("branches");
  tern_tensor *p, *x, *y = NULL;
  {
    tern_with_graph(g);
    p = tern_placeholder(TERN_SHAPE(), TERN_I64, "n");
    x = p;
    CHECK(collatz(NULL, &x, 1, &y, 1) == 0, "%s", tern_error());
  }
  tern_session *s = tern_session_new(g);
  if (!s) tern_error_clear(); /* sessions are another part's */
  for (int i = 0; i < 2 && s; i++) {
    const double steps[] = {111, 8};
    tern_tensor *out = NULL;
    CHECK(tern_session_run(s, &(tern_feed){p, int_scalar(i ? 6 : 27)}, 1, &y, 1, &out) == 0, "%s", tern_error());
    CHECK_LIST(out, TERN_SHAPE(), TERN_I64, steps[i]);
  }
  tern_session_release(s);
  tern_graph_release(g);
}

static const test_case cases[] = {
    {"factorial", test_factorial}, {"gcd", test_gcd},           {"newton", test_newton},
    {"nested", test_nested},       {"reads", test_reads},       {"assigned_before", test_assigned_before},
    {"power", test_power},         {"scan", test_scan},         {"variable_sizes", test_variable_sizes},
    {"limit", test_limit},         {"refusals", test_refusals}, {"assigning", test_assigning},
    {"in_place", test_in_place},   {"memory", test_memory},     {"session", test_session}};
TEST_MAIN("control", cases)
