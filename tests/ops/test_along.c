/* take_along_axis, gather_nd, top_k, searchsorted and unique against numpy's results (fixtures/ops/along.bin). */
#include "fixtures/fixtures.h"
#include "ops/check_gradient.h"
#include "support/values.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static tern_tensor *upload(const fixture_array *a) {
  return tern_constant(tern_shape_of(a->rank, a->shape), a->dtype, a->data, a->count);
}

/* A device compiles a kernel for each dtype: there a few stand for all. */
static bool is_tried(tern_dtype d) {
  const char *device = getenv("TERN_DEVICE");
  return !device || !strncmp(device, "cpu", 3) || d == TERN_F32 || d == TERN_I64;
}

static void matches(tern_tensor *got, const fixture_array *e, const char *what) {
  tern_tensor *expected = upload(e);
  double *values = test_values(expected);
  if (CHECK(values != NULL, "%s: no values", what))
    CHECK_VALUES(got, tern_shape_of(e->rank, e->shape), e->dtype, values, 0, 0, what);
  if (got && tern_dtype_size(e->dtype) == 8 && e->dtype != TERN_F64)
    CHECK(tern_equal_all(got, expected) == 1, "%s: 64-bit integers differ", what);
  if (!got) CHECK(0, "%s: %s", what, tern_error());
  tern_error_clear();
  free(values);
}

static void record(const fixture *f, int number) {
  TERN_SCOPE;
  char what[100];
  const int axis = (int)fixture_attr(f, "axis", 0);
  snprintf(what, sizeof what, "%s, record %d (%s)", f->op, number, tern_dtype_name(f->in[0].dtype));
  tern_tensor *x = upload(&f->in[0]), *y = f->n_in > 1 ? upload(&f->in[1]) : NULL, *second = NULL, *third = NULL;
  if (!strcmp(f->op, "take_along_axis")) {
    matches(tern_take_along_axis(x, y, axis), &f->out[0], what);
  } else if (!strcmp(f->op, "gather_nd")) {
    matches(tern_gather_nd(x, y), &f->out[0], what);
  } else if (!strcmp(f->op, "searchsorted")) {
    matches(tern_searchsorted(x, y, (int)fixture_attr(f, "right", 0)), &f->out[0], what);
  } else if (!strcmp(f->op, "top_k")) {
    const tern_top_k_opts opts = {.axis = axis, .smallest = (int)fixture_attr(f, "smallest", 0)};
    matches(tern_top_k(x, fixture_attr(f, "k", 0), &second, &opts), &f->out[0], what);
    matches(second, &f->out[1], what);
  } else if (!strcmp(f->op, "unique")) {
    matches(tern_unique(x, &second, &third), &f->out[0], what);
    matches(second, &f->out[1], what);
    matches(third, &f->out[2], what);
    matches(tern_unique(x, NULL, NULL), &f->out[0], what);
    matches(tern_unique(x, NULL, &third), &f->out[0], what);
    matches(third, &f->out[2], what);
  } else {
    CHECK(0, "record %d is of unknown op %s", number, f->op);
  }
}

static void test_against_numpy(void) {
  fixtures reader;
  fixture f;
  const bool opened = fixtures_open(&reader, TERN_FIXTURES "/ops/along.bin");
  if (!CHECK(opened, "along.bin: %s", reader.error)) return;
  while (fixtures_next(&reader, &f))
    if (is_tried(f.in[0].dtype)) record(&f, reader.record);
  CHECK(!reader.error && reader.record > 400, "along.bin: %s after %d records", reader.error ? reader.error : "too few",
        reader.record);
  fixtures_close(&reader);
}

/* Operands that are views, and ranks of 8. */
static void test_views(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_reshape(tern_arange(0, 12, 1, TERN_F32), TERN_SHAPE(3, 4));
  tern_tensor *i = tern_i64(TERN_SHAPE(2, 2), 0, -1, 2, 1);
  CHECK_LIST(tern_take_along_axis(tern_transpose(x), tern_reshape(i, TERN_SHAPE(4, 1)), 1), TERN_SHAPE(4, 1), TERN_F32,
             0, 9, 10, 7);
  CHECK_LIST(tern_gather_nd(tern_transpose(x), tern_transpose(i)), TERN_SHAPE(2), TERN_F32, 8, 7);
  tern_tensor *deep = tern_reshape(x, TERN_SHAPE(1, 3, 1, 1, 4, 1, 1, 1));
  CHECK_LIST(tern_top_k(deep, 1, NULL, &(tern_top_k_opts){.axis = 4}), TERN_SHAPE(1, 3, 1, 1, 1, 1, 1, 1), TERN_F32, 3,
             7, 11);
  CHECK_LIST(tern_searchsorted(tern_f32(TERN_SHAPE(3), 1, 2, 3), tern_scalar(2.5), 0), TERN_SHAPE(), TERN_I64, 2);
  CHECK_LIST(tern_searchsorted(tern_i64(TERN_SHAPE(3), 1, 2, 3), tern_scalar(2.5), 0), TERN_SHAPE(), TERN_I64, 2);
  CHECK_LIST(tern_searchsorted(tern_f32(TERN_SHAPE(3), 1, 2, 3),
                               tern_reshape(tern_f32(TERN_SHAPE(2), 2, 9), TERN_SHAPE(1, 1, 1, 1, 1, 1, 1, 2)), 1),
             TERN_SHAPE(1, 1, 1, 1, 1, 1, 1, 2), TERN_I64, 2, 3);
  CHECK_NO_ERROR();
}

#define REFUSED(call, part)                             \
  do {                                                  \
    CHECK((call) == NULL, "%s must be refused", #call); \
    CHECK_ERROR(TERN_E_ARG, part);                      \
  } while (0)

static void test_bad_input(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_ones(TERN_SHAPE(2, 3), TERN_F32), *none = tern_ones(TERN_SHAPE(2, 0), TERN_F32), *second = x;
  tern_tensor *i = tern_i64(TERN_SHAPE(2, 1), 0, 2), *f = tern_ones(TERN_SHAPE(2, 1), TERN_F32);
  REFUSED(tern_take_along_axis(x, f, 1), "integers");
  REFUSED(tern_take_along_axis(x, i, 2), "take_along_axis");
  REFUSED(tern_take_along_axis(x, tern_i64(TERN_SHAPE(2), 0, 1), 1), "one rank");
  REFUSED(tern_take_along_axis(x, tern_i64(TERN_SHAPE(3, 1), 0, 1, 2), 1), "(3, 1)");
  REFUSED(tern_take_along_axis(none, i, 1), "empty");
  REFUSED(tern_take_along_axis(x, NULL, 1), "take_along_axis");
  REFUSED(tern_gather_nd(x, f), "integers");
  REFUSED(tern_gather_nd(x, tern_i64(TERN_SHAPE(1, 3), 0, 0, 0)), "(1, 3)");
  REFUSED(tern_gather_nd(x, tern_scalar_int(0)), "gather_nd");
  REFUSED(tern_gather_nd(none, tern_i64(TERN_SHAPE(1, 2), 0, 0)), "empty");
  REFUSED(tern_top_k(x, 4, &second, NULL), "top_k");
  CHECK(second == NULL, "a failed top_k leaves indices %p", (void *)second);
  REFUSED(tern_top_k(x, -1, NULL, NULL), "top_k");
  REFUSED(tern_top_k(tern_ones(TERN_SHAPE(), TERN_F32), 1, NULL, NULL), "top_k");
  REFUSED(tern_searchsorted(x, x, 0), "rank");
  second = x;
  REFUSED(tern_unique(NULL, &second, NULL), "unique");
  CHECK(second == NULL, "a failed unique leaves inverse %p", (void *)second);
}

/* An index out of its row must be an error though the element after the row exists. Where the device reports late, at
   the next wait. */
static void test_out_of_range(void) {
  static const int64_t bad[] = {3, -4, INT64_MAX, INT64_MIN};
  for (int k = 0; k < 4; k++) {
    TERN_SCOPE;
    tern_tensor *x = tern_ones(TERN_SHAPE(2, 3), TERN_F32), *i = tern_i64(TERN_SHAPE(2, 1), 0, bad[k]);
    tern_tensor *y = tern_take_along_axis(x, i, 1);
    float out[2];
    CHECK(!y || tern_to_host(y, out, sizeof out), "index %lld of a row of 3 is accepted", (long long)bad[k]);
    tern_error_clear();
    y = tern_gather_nd(x, tern_i64(TERN_SHAPE(1, 2), 0, bad[k]));
    CHECK(!y || tern_to_host(y, out, sizeof *out), "index (0, %lld) of (2, 3) is accepted", (long long)bad[k]);
    tern_error_clear();
  }
}

static tern_tensor *picked(tern_tensor *const *x, int n) {
  (void)n;
  return tern_square(tern_take_along_axis(x[0], tern_i64(TERN_SHAPE(2, 3), 0, -1, 0, 2, 2, 1), 1));
}
static tern_tensor *gathered(tern_tensor *const *x, int n) {
  (void)n;
  return tern_square(tern_gather_nd(x[0], tern_i64(TERN_SHAPE(3, 2), 0, 1, 1, -1, 0, 1)));
}
static tern_tensor *largest(tern_tensor *const *x, int n) {
  (void)n;
  return tern_square(tern_top_k(x[0], 2, NULL, NULL));
}
static tern_tensor *different(tern_tensor *const *x, int n) {
  (void)n;
  tern_tensor *inverse;
  return tern_square(tern_unique(x[0], &inverse, NULL));
}

static void test_gradients(void) {
  static const gradient_case list[] = {{"take_along_axis", picked, 1, {{2, {2, 3}}}, 0},
                                       {"gather_nd", gathered, 1, {{3, {2, 3, 2}}}, 0},
                                       {"top_k", largest, 1, {{2, {2, 4}}}, 0},
                                       {"unique", different, 1, {{2, {2, 2}}}, 0}};
  for (size_t i = 0; i < sizeof list / sizeof *list; i++) check_gradient(&list[i]);
}

static const test_case cases[] = {{"results of numpy", test_against_numpy},
                                  {"views", test_views},
                                  {"bad input", test_bad_input},
                                  {"out of range", test_out_of_range},
                                  {"gradients", test_gradients}};
TEST_MAIN("along", cases)
