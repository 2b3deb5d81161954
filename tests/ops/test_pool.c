/* max_pool and avg_pool on TERN_DEVICE with their first and second derivatives against PyTorch and TensorFlow
   (fixtures/make_scatter_pool.py), and what they refuse. */
#include "fixtures/fixtures.h"
#include "support/values.h"
#include <stdlib.h>
#include <string.h>

static tern_shape shape_of(const fixture_array *a) { return tern_shape_of(a->rank, a->shape); }
static tern_tensor *tensor(const fixture_array *a) { return tern_constant(shape_of(a), a->dtype, a->data, a->count); }

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

static tern_pool_opts options(const fixture *f) {
  tern_pool_opts o = {.layout = (tern_layout)fixture_attr(f, "layout", 0),
                      .padding = (tern_pad_mode)fixture_attr(f, "padding", 0),
                      .count_padding = (int)fixture_attr(f, "count", 0)};
  for (int s = 0; s < 2; s++) {
    o.pads[s].before = fixture_attr(f, s ? "before1" : "before0", 0);
    o.pads[s].after = fixture_attr(f, s ? "after1" : "after0", 0);
    o.window[s] = fixture_attr(f, s ? "window1" : "window0", 0);
    o.strides[s] = fixture_attr(f, s ? "stride1" : "stride0", 0);
    o.dilations[s] = fixture_attr(f, s ? "dilation1" : "dilation0", 0);
  }
  return o;
}

static tern_tensor *pooled(const fixture *f, tern_tensor *x) {
  const tern_pool_opts o = options(f);
  return strncmp(f->op, "max", 3) ? tern_avg_pool(x, &o) : tern_max_pool(x, &o);
}

static void check_gradient(const fixture *f, int number) {
  tern_tensor *x = tensor(&f->in[0]), *dy = tensor(&f->in[1]), *dx;
  tern_tape *tape = tern_tape_begin(NULL);
  tern_tape_watch(tape, x);
  tern_tensor *y = pooled(f, x);
  CHECK(!tern_tape_gradients(tape, &y, &dy, 1, &x, 1, &dx, NULL), "record %d, %s", number, f->op);
  same(dx, &f->out[0], 0, 1e-13, f, number);
}

static void check_second(const fixture *f, int number) {
  tern_tensor *x = tensor(&f->in[0]), *v = tensor(&f->in[1]), *first, *second;
  tern_tape *outer = tern_tape_begin(NULL);
  tern_tape_watch(outer, x);
  tern_tape *inner = tern_tape_begin(NULL);
  tern_tape_watch(inner, x);
  tern_tensor *y = pooled(f, x), *target = tern_sum(tern_mul(tern_mul(y, y), y), NULL);
  CHECK(!tern_tape_gradient(inner, target, &x, 1, &first), "record %d, %s: first", number, f->op);
  CHECK(!tern_tape_gradient(outer, tern_sum(tern_mul(first, v), NULL), &x, 1, &second), "record %d, %s: second", number,
        f->op);
  same(second, &f->out[0], 0, 1e-12, f, number);
}

static void test_fixtures(void) {
  fixtures reader;
  fixture f;
  int n = 0;
  CU_ASSERT_FATAL(fixtures_open(&reader, TERN_FIXTURES "/ops/pool.bin"));
  while (fixtures_next(&reader, &f)) {
    TERN_SCOPE;
    n++;
    if (strstr(f.op, "_grad"))
      check_gradient(&f, n);
    else if (strstr(f.op, "_second"))
      check_second(&f, n);
    else
      same(pooled(&f, tensor(&f.in[0])), &f.out[0], 0, f.out[0].dtype == TERN_F64 ? 1e-14 : 0, &f, n);
  }
  CHECK(!reader.error, "%s", reader.error ? reader.error : "");
  CHECK(n >= 120, "only %d records", n);
  fixtures_close(&reader);
}

static void test_forms(void) { /* defaults, views, a variable, integers */
  TERN_SCOPE;
  tern_tensor *x = tern_f32(TERN_SHAPE(1, 2, 4, 1), 1, 5, 2, 0, 3, -1, 7, 4);
  CHECK_LIST(tern_max_pool(x, NULL), TERN_SHAPE(1, 1, 2, 1), TERN_F32, 5, 7);
  CHECK_LIST(tern_avg_pool(x, NULL), TERN_SHAPE(1, 1, 2, 1), TERN_F32, 2, 3.25);
  CHECK_LIST(tern_max_pool(tern_flip(x, NULL, 0), NULL), TERN_SHAPE(1, 1, 2, 1), TERN_F32, 7, 5);
  CHECK_LIST(tern_avg_pool(tern_cast(x, TERN_I32), NULL), TERN_SHAPE(1, 1, 2, 1), TERN_F32, 2, 3.25);
  tern_tensor *v = tern_variable(x, NULL);
  CHECK_LIST(tern_max_pool(v, &(tern_pool_opts){.window = {1, 4}}), TERN_SHAPE(1, 2, 1, 1), TERN_F32, 5, 7);
  tern_release(v);
  CHECK_LIST(tern_max_pool(tern_zeros(TERN_SHAPE(0, 4, 4, 2), TERN_F32), NULL), TERN_SHAPE(0, 2, 2, 2), TERN_F32, 0);
  CHECK_NO_ERROR();
}

static void test_refused(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_ones(TERN_SHAPE(1, 3, 3, 1), TERN_F32);
  CU_ASSERT_PTR_NULL(tern_max_pool(tern_ones(TERN_SHAPE(3, 3), TERN_F32), NULL));
  CHECK_ERROR(TERN_E_ARG, "rank 3 (one spatial axis) or 4");
  CU_ASSERT_PTR_NULL(tern_max_pool(x, &(tern_pool_opts){.window = {4, 2}}));
  CHECK_ERROR(TERN_E_ARG, "the window reaches over 4");
  CU_ASSERT_PTR_NULL(tern_max_pool(x, &(tern_pool_opts){.window = {2, -1}}));
  CHECK_ERROR(TERN_E_ARG, "a window is -1");
  CU_ASSERT_PTR_NULL(tern_avg_pool(x, &(tern_pool_opts){.strides = {-2, 1}}));
  CHECK_ERROR(TERN_E_ARG, "a stride is -2");
  CU_ASSERT_PTR_NULL(tern_max_pool(x, &(tern_pool_opts){.padding = TERN_PAD_EXPLICIT, .pads = {{2, 0}}}));
  CHECK_ERROR(TERN_E_ARG, "padding alone");
  CU_ASSERT_PTR_NULL(tern_avg_pool(x, &(tern_pool_opts){.pads = {{1, 1}}}));
  CHECK_ERROR(TERN_E_ARG, "TERN_PAD_EXPLICIT");
  CU_ASSERT_PTR_NULL(tern_avg_pool(x, &(tern_pool_opts){.padding = TERN_PAD_EXPLICIT, .pads = {{-1, 0}}}));
  CHECK_ERROR(TERN_E_ARG, "negative");
  CU_ASSERT_PTR_NULL(tern_avg_pool(x, &(tern_pool_opts){.layout = (tern_layout)7}));
  CHECK_ERROR(TERN_E_ARG, "layout 7");
  CU_ASSERT_PTR_NULL(tern_avg_pool(x, &(tern_pool_opts){.window = {INT64_MAX, 2}, .dilations = {INT64_MAX, 1}}));
  CHECK_ERROR(TERN_E_ARG, "avg_pool");
  CU_ASSERT_PTR_NULL(tern_max_pool(NULL, NULL));
  CHECK_ERROR(TERN_E_ARG, "");
}

static const test_case cases[] = {
    {"against PyTorch and TensorFlow", test_fixtures}, {"forms of operands", test_forms}, {"refused", test_refused}};
TEST_MAIN("pool", cases)
