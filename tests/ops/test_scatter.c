/* scatter, scatter_add, scatter_nd and the gradients of take and sort on TERN_DEVICE against numpy, TensorFlow and
   PyTorch (fixtures/make_scatter_pool.py), and what they refuse. */
#include "fixtures/fixtures.h"
#include "support/values.h"
#include <stdlib.h>
#include <string.h>

static tern_shape shape_of(const fixture_array *a) { return tern_shape_of(a->rank, a->shape); }

static tern_tensor *tensor(const fixture_array *a) {
  if (a->count == 0) return tern_empty(shape_of(a), a->dtype);
  return tern_constant(shape_of(a), a->dtype, a->data, a->count);
}

static void same(tern_tensor *got, const fixture_array *want, double ulps, double absolute, const fixture *f,
                 int number) {
  char what[80];
  snprintf(what, sizeof what, "record %d, %s", number, f->op);
  CHECK(got != NULL, "%s: failed", what);
  CHECK_NO_ERROR();
  double *expected = test_values(tensor(want));
  if (got && expected) CHECK_VALUES(got, shape_of(want), want->dtype, expected, ulps, absolute, what);
  free(expected);
}

static void check_gradient(const fixture *f, int number) {
  const int axis = (int)fixture_attr(f, "axis", 0), last = f->n_in - 1;
  const tern_scatter_mode mode = (tern_scatter_mode)fixture_attr(f, "mode", 0);
  tern_tensor *x = tensor(&f->in[0]), *index = tensor(&f->in[1]), *updates = NULL, *y, *dy = tensor(&f->in[last]),
              *got[2];
  tern_tape *tape = tern_tape_begin(NULL);
  tern_tape_watch(tape, x);
  if (!strcmp(f->op, "scatter_grad")) {
    updates = tensor(&f->in[2]);
    tern_tape_watch(tape, updates);
    y = tern_scatter(x, index, updates, axis, mode);
  } else {
    y = !strcmp(f->op, "take_grad") ? tern_take(x, index, axis) : tern_sort(x, axis, NULL);
  }
  tern_tensor *const sources[] = {x, updates};
  CHECK(!tern_tape_gradients(tape, &y, &dy, 1, sources, updates ? 2 : 1, got, NULL), "record %d, %s", number, f->op);
  for (int i = 0; i < f->n_out; i++) same(got[i], &f->out[i], 0, 1e-13, f, number);
}

/* The gradient of sum(v * d sum(f(x)^3) / d x). */
static void check_second(const fixture *f, int number) {
  tern_tensor *x = tensor(&f->in[0]), *v = tensor(&f->in[1]), *y, *first, *second;
  tern_tape *outer = tern_tape_begin(NULL);
  tern_tape_watch(outer, x);
  tern_tape *inner = tern_tape_begin(NULL);
  tern_tape_watch(inner, x);
  if (!strcmp(f->op, "take_second"))
    y = tern_take(x, tern_i64(TERN_SHAPE(4), 3, 1, 1, 0), 0);
  else if (!strcmp(f->op, "sort_second"))
    y = tern_sort(x, 1, NULL);
  else
    y = tern_scatter_add(x, tern_i64(TERN_SHAPE(3), 2, 0, 2), tern_slice(x, &TERN_RANGE(0, 3, 1), 1), 0);
  tern_tensor *target = tern_sum(tern_mul(tern_mul(y, y), y), NULL);
  CHECK(!tern_tape_gradient(inner, target, &x, 1, &first), "record %d, %s: first", number, f->op);
  CHECK(!tern_tape_gradient(outer, tern_sum(tern_mul(first, v), NULL), &x, 1, &second), "record %d, %s: second", number,
        f->op);
  same(second, &f->out[0], 0, 1e-12, f, number);
}

static void test_fixtures(void) {
  fixtures reader;
  fixture f;
  int n = 0;
  CU_ASSERT_FATAL(fixtures_open(&reader, TERN_FIXTURES "/ops/scatter.bin"));
  while (fixtures_next(&reader, &f)) {
    TERN_SCOPE;
    const int axis = (int)fixture_attr(&f, "axis", 0);
    const tern_scatter_mode mode = (tern_scatter_mode)fixture_attr(&f, "mode", 0);
    n++;
    if (strstr(f.op, "_grad")) {
      check_gradient(&f, n);
    } else if (strstr(f.op, "_second")) {
      check_second(&f, n);
    } else {
      tern_tensor *x = tensor(&f.in[0]), *index = tensor(&f.in[1]), *updates = tensor(&f.in[2]);
      const bool nd = !strcmp(f.op, "scatter_nd");
      same(nd ? tern_scatter_nd(x, index, updates, mode) : tern_scatter(x, index, updates, axis, mode), f.out, 0, 0, &f,
           n);
    }
  }
  CHECK(!reader.error, "%s", reader.error ? reader.error : "");
  CHECK(n >= 220, "only %d records", n);
  fixtures_close(&reader);
}

static void test_forms(void) { /* views, scalars, other dtypes, empty updates */
  TERN_SCOPE;
  tern_tensor *x = tern_f32(TERN_SHAPE(2, 3), 1, 2, 3, 4, 5, 6);
  CHECK_LIST(tern_scatter(x, tern_i64(TERN_SHAPE(1), -1), tern_scalar(9), 1, TERN_SCATTER_SET), TERN_SHAPE(2, 3),
             TERN_F32, 1, 2, 9, 4, 5, 9);
  CHECK_LIST(
      tern_scatter_add(tern_transpose(x), tern_u8(TERN_SHAPE(2), 0, 0), tern_i32(TERN_SHAPE(2, 2), 1, 2, 3, 4), 0),
      TERN_SHAPE(3, 2), TERN_F32, 5, 10, 2, 5, 3, 6);
  CHECK_LIST(tern_scatter_add(x, tern_scalar_int(1), tern_f32(TERN_SHAPE(3), 1, 1, 1), 0), TERN_SHAPE(2, 3), TERN_F32,
             1, 2, 3, 5, 6, 7);
  CHECK_LIST(tern_scatter_add(x, tern_empty(TERN_SHAPE(0), TERN_I64), tern_empty(TERN_SHAPE(0, 3), TERN_F32), 0),
             TERN_SHAPE(2, 3), TERN_F32, 1, 2, 3, 4, 5, 6);
  tern_tensor *variable = tern_variable(x, NULL);
  CHECK_LIST(tern_scatter_add(variable, tern_i64(TERN_SHAPE(1), 0), tern_f32(TERN_SHAPE(1, 3), 1, 1, 1), 0),
             TERN_SHAPE(2, 3), TERN_F32, 2, 3, 4, 4, 5, 6);
  CHECK_LIST(variable, TERN_SHAPE(2, 3), TERN_F32, 1, 2, 3, 4, 5, 6);
  CHECK(!tern_assign_scatter(variable, tern_i64(TERN_SHAPE(3), 1, -1, 0), tern_scalar(2), TERN_SCATTER_ADD),
        "assign_scatter");
  CHECK_LIST(variable, TERN_SHAPE(2, 3), TERN_F32, 3, 4, 5, 8, 9, 10);
  CHECK(!tern_assign_scatter(variable, tern_scalar_int(0), tern_f32(TERN_SHAPE(3), 1, 9, 5), TERN_SCATTER_MAX),
        "assign_scatter");
  CHECK_LIST(variable, TERN_SHAPE(2, 3), TERN_F32, 3, 9, 5, 8, 9, 10);
  CHECK(!tern_assign_scatter(variable, tern_i64(TERN_SHAPE(2), 1, 0), variable, TERN_SCATTER_SET), "rows swapped");
  CHECK_LIST(variable, TERN_SHAPE(2, 3), TERN_F32, 8, 9, 10, 3, 9, 5);
  tern_release(variable);
  CHECK_NO_ERROR();
}

static void test_refused(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_ones(TERN_SHAPE(2, 3), TERN_F32), *i = tern_i64(TERN_SHAPE(2), 0, 1);
  CU_ASSERT_PTR_NULL(tern_scatter_add(x, i, x, 2));
  CHECK_ERROR(TERN_E_ARG, "scatter_add: axis 2");
  CU_ASSERT_PTR_NULL(tern_scatter_add(x, x, x, 0));
  CHECK_ERROR(TERN_E_ARG, "must be integers");
  CU_ASSERT_PTR_NULL(tern_scatter(x, i, x, 1, TERN_SCATTER_SET));
  CHECK_ERROR(TERN_E_ARG, "it must be (2, 2)");
  CU_ASSERT_PTR_NULL(tern_scatter(x, i, x, 0, (tern_scatter_mode)4));
  CHECK_ERROR(TERN_E_ARG, "not a mode");
  CU_ASSERT_PTR_NULL(tern_scatter_add(tern_cast(x, TERN_I32), i, x, 0));
  CHECK_ERROR(TERN_E_ARG, "do not fit into int32");
  tern_tensor *b = tern_ones(TERN_SHAPE(2), TERN_BOOL);
  CU_ASSERT_PTR_NULL(tern_scatter_add(b, i, b, 0));
  CHECK_ERROR(TERN_E_ARG, "not defined for bool");
  CU_ASSERT_PTR_NULL(tern_scatter_nd(x, tern_zeros(TERN_SHAPE(1, 3), TERN_I64), tern_zeros(TERN_SHAPE(1), TERN_F32),
                                     TERN_SCATTER_ADD));
  CHECK_ERROR(TERN_E_ARG, "tuples of 1 to 2");
  CU_ASSERT_PTR_NULL(tern_scatter_add(x, NULL, x, 0));
  CHECK_ERROR(TERN_E_ARG, "");
}

/* An index out of range: an error at once on a host, else at the next wait. A tuple out of range in its second index is
   no other row. */
static void test_out_of_range(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_f32(TERN_SHAPE(2, 3), 1, 2, 3, 4, 5, 6);
  float out[6];
  tern_tensor *y = tern_scatter_add(x, tern_i64(TERN_SHAPE(2), 1, 2), tern_ones(TERN_SHAPE(2, 3), TERN_F32), 0);
  if (y) CU_ASSERT_NOT_EQUAL(tern_to_host(y, out, sizeof out), 0);
  CHECK_ERROR(TERN_E_ARG, "scatter: index 2 is out of range for an axis of");
  y = tern_scatter_nd(x, tern_i64(TERN_SHAPE(1, 2), 0, 3), tern_f32(TERN_SHAPE(1), 7), TERN_SCATTER_SET);
  if (y) CU_ASSERT_NOT_EQUAL(tern_to_host(y, out, sizeof out), 0);
  CHECK_ERROR(TERN_E_ARG, "scatter: index 6 is out of range for an axis of");
  CHECK_LIST(tern_add(x, x), TERN_SHAPE(2, 3), TERN_F32, 2, 4, 6, 8, 10, 12);
}

/* Sums in one order: the same bits in every run, and those of a plain loop. */
static void test_order(void) {
  enum { A = 300, J = 4096, I = 65 };
  TERN_SCOPE;
  uint64_t state = 3;
  int64_t *index = malloc(J * sizeof *index);
  float *updates = malloc((size_t)J * I * sizeof *updates), *want = calloc((size_t)A * I, sizeof *want),
        *got = malloc((size_t)A * I * sizeof *got);
  for (int j = 0; j < J; j++) index[j] = j % 3 ? test_below(&state, A) : 7;
  for (int k = 0; k < J * I; k++) updates[k] = (float)test_uniform(&state, -1, 1);
  for (int j = 0; j < J; j++)
    for (int i = 0; i < I; i++) want[index[j] * I + i] += updates[j * I + i];
  tern_tensor *at = tern_constant(TERN_SHAPE(J), TERN_I64, index, J),
              *u = tern_constant(TERN_SHAPE(J, I), TERN_F32, updates, J * I);
  for (int run = 0; run < 3; run++) {
    tern_tensor *y = tern_scatter_add(tern_zeros(TERN_SHAPE(A, I), TERN_F32), at, u, 0);
    CHECK(!tern_to_host(y, got, (size_t)A * I * sizeof *got) && !memcmp(got, want, (size_t)A * I * sizeof *got),
          "run %d differs", run);
  }
  free(index);
  free(updates);
  free(want);
  free(got);
}

static const test_case cases[] = {{"against numpy, TensorFlow and PyTorch", test_fixtures},
                                  {"forms of operands", test_forms},
                                  {"refused", test_refused},
                                  {"out of range", test_out_of_range},
                                  {"order of sums", test_order}};
TEST_MAIN("scatter", cases)
