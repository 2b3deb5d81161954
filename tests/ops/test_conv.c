/* Convolution and transposed convolution on TERN_DEVICE: values, gradients and second derivatives against PyTorch's
   (tests/fixtures/make_conv.py), operands that are views, every float dtype, and what is refused. */
#include "fixtures/fixtures.h"
#include "support/values.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef tern_tensor *(*convolution)(tern_tensor *, tern_tensor *, const tern_conv_opts *);

static double number(const fixture_array *a, size_t i) {
  return a->dtype == TERN_F64 ? ((const double *)a->data)[i] : (double)((const float *)a->data)[i];
}

static tern_tensor *upload(const fixture_array *a, tern_dtype dtype) {
  double *values = malloc(a->count * sizeof *values);
  for (size_t i = 0; i < a->count; i++) values[i] = number(a, i);
  tern_tensor *t = test_tensor(tern_shape_of(a->rank, a->shape), dtype, values);
  free(values);
  return t;
}

/* Within a few roundings of the sum's magnitude: the inputs are at most 1, the sums have some ten terms. */
static void expect(tern_tensor *got, const fixture_array *want, tern_dtype dtype, const char *what) {
  double *values = malloc(want->count * sizeof *values), largest = 1;
  for (size_t i = 0; i < want->count; i++) {
    values[i] = number(want, i);
    largest = fmax(largest, fabs(values[i]));
  }
  const double unit = dtype == TERN_F64 ? 0x1p-50 : dtype == TERN_F32 ? 0x1p-20 : dtype == TERN_F16 ? 0x1p-7 : 0x1p-4;
  CHECK_VALUES(got, tern_shape_of(want->rank, want->shape), dtype, values, 0, unit * largest, what);
  free(values);
}

static tern_conv_opts options_of(const fixture *f) {
  tern_conv_opts o = {.layout = (tern_layout)fixture_attr(f, "layout", 0),
                      .padding = (tern_pad_mode)fixture_attr(f, "padding", 0),
                      .groups = fixture_attr(f, "groups", 1)};
  for (int d = 0; d < f->in[0].rank - 2; d++) {
    char name[5][16];
    static const char *const what[] = {"stride", "dilation", "before", "after", "more"};
    for (int i = 0; i < 5; i++) snprintf(name[i], sizeof name[i], "%s%d", what[i], d);
    o.strides[d] = fixture_attr(f, name[0], 1);
    o.dilations[d] = fixture_attr(f, name[1], 1);
    o.pads[d] = (tern_padding){fixture_attr(f, name[2], 0), fixture_attr(f, name[3], 0)};
    o.output_padding[d] = fixture_attr(f, name[4], 0);
  }
  return o;
}

static tern_tensor *reversed(tern_tensor *t) {
  int order[TERN_MAX_RANK];
  const int rank = tern_rank(t);
  for (int d = 0; d < rank; d++) order[d] = rank - 1 - d;
  return tern_permute(t, order, rank);
}

/* The same values in memory of the reverse order of axes, every second element: a view that no layout is. */
static tern_tensor *awkward(tern_tensor *t) {
  tern_tensor *backwards = tern_contiguous(reversed(t));
  tern_tensor *both = tern_stack((tern_tensor *const[]){backwards, backwards}, 2, -1);
  return tern_squeeze(tern_slice(reversed(both), (tern_range[]){{0, 1, 1}}, 1), 0);
}

static void values(const fixture *f, convolution op, const char *what) {
  const tern_conv_opts o = options_of(f);
  for (tern_dtype d = TERN_F16; d <= TERN_F64; d++) {
    TERN_SCOPE;
    if (d < TERN_F64 ? f->in[0].dtype != TERN_F32 : f->in[0].dtype != TERN_F64) continue;
    tern_tensor *x = upload(&f->in[0], d), *w = upload(&f->in[1], d);
    expect(op(x, w, &o), &f->out[0], d, what);
    expect(op(awkward(x), awkward(w), &o), &f->out[0], d, what);
  }
  CHECK_NO_ERROR();
}

/* The gradients of <dy, y> are dx and dw. Those are bilinear again, so that <x, dx> and <w, dw> lead back to the
   rest. */
static void gradients(const fixture *f, convolution op, const char *what) {
  TERN_SCOPE;
  const tern_conv_opts o = options_of(f);
  const tern_dtype d = f->in[0].dtype;
  tern_tensor *x = upload(&f->in[0], d), *w = upload(&f->in[1], d), *dy = upload(&f->in[2], d), *g[2], *h[2];
  tern_tape *outer = tern_tape_begin(&(tern_tape_opts){.persistent = 1});
  tern_tape_watch(outer, x);
  tern_tape_watch(outer, w);
  tern_tape_watch(outer, dy);
  tern_tape *inner = tern_tape_begin(NULL);
  tern_tape_watch(inner, x);
  tern_tape_watch(inner, w);
  tern_tensor *y = op(x, w, &o);
  if (!CHECK(!tern_tape_gradients(inner, &y, &dy, 1, (tern_tensor *const[]){x, w}, 2, g, NULL), "%s: %s", what,
             tern_error()))
    return;
  expect(g[0], &f->out[1], d, what);
  expect(g[1], &f->out[2], d, what);
  if (CHECK(!tern_tape_gradients(outer, &g[0], &x, 1, (tern_tensor *const[]){w, dy}, 2, h, NULL), "%s: %s", what,
            tern_error())) {
    expect(h[0], &f->out[2], d, what);
    expect(h[1], &f->out[0], d, what);
  }
  if (CHECK(!tern_tape_gradients(outer, &g[1], &w, 1, (tern_tensor *const[]){x, dy}, 2, h, NULL), "%s: %s", what,
            tern_error())) {
    expect(h[0], &f->out[1], d, what);
    expect(h[1], &f->out[0], d, what);
  }
  tern_tape_end(outer);
  CHECK_NO_ERROR();
}

static void each(void (*run)(const fixture *, convolution, const char *)) {
  fixtures reader;
  fixture f;
  if (!CHECK(fixtures_open(&reader, TERN_FIXTURES "/ops/conv.bin"), "conv.bin cannot be read")) return;
  while (fixtures_next(&reader, &f)) {
    char what[80];
    const int transposed = !strcmp(f.op, "conv_transpose");
    if (!CHECK(transposed || !strcmp(f.op, "conv"), "conv.bin: record %d is of op %s", reader.record, f.op)) continue;
    snprintf(what, sizeof what, "%s, record %d of conv.bin", f.op, reader.record);
    run(&f, transposed ? tern_conv_transpose : tern_conv, what);
  }
  CHECK(!reader.error && reader.record >= 70, "conv.bin: %s after %d records", reader.error ? reader.error : "too few",
        reader.record);
  fixtures_close(&reader);
}

static void test_records(void) { each(values); }
static void test_gradients(void) { each(gradients); }

static void test_small(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_f32(TERN_SHAPE(1, 4, 1), 1, 2, 3, 4), *w = tern_f32(TERN_SHAPE(2, 1, 1), 10, 1);
  CHECK_LIST(tern_conv(x, w, NULL), TERN_SHAPE(1, 3, 1), TERN_F32, 12, 23, 34);
  CHECK_LIST(tern_conv(x, w, &(tern_conv_opts){.padding = TERN_PAD_SAME}), TERN_SHAPE(1, 4, 1), TERN_F32, 12, 23, 34,
             40);
  CHECK_LIST(tern_conv_transpose(x, w, NULL), TERN_SHAPE(1, 5, 1), TERN_F32, 10, 21, 32, 43, 4);
  CHECK_LIST(tern_conv(tern_cast(x, TERN_I32), w, NULL), TERN_SHAPE(1, 3, 1), TERN_F32, 12, 23, 34);
  CHECK_LIST(tern_conv(tern_cast(x, TERN_F16), tern_cast(w, TERN_BF16), NULL), TERN_SHAPE(1, 3, 1), TERN_F32, 12, 23,
             34);
  CHECK_LIST(tern_conv(tern_cast(x, TERN_I32), tern_cast(w, TERN_U8), NULL), TERN_SHAPE(1, 3, 1), TERN_F32, 12, 23, 34);
  const int64_t far = 1000000000;
  const tern_conv_opts wide = {
      .padding = TERN_PAD_EXPLICIT, .pads = {{far, far}}, .strides = {far}, .dilations = {far}};
  CHECK_LIST(tern_conv(x, tern_f32(TERN_SHAPE(1, 1, 1), 3), &wide), TERN_SHAPE(1, 3, 1), TERN_F32, 0, 3, 0);
  CHECK_NO_ERROR();
}

/* A gradient that is one number for all comes as a broadcast view. */
static void test_sum_of_a_conv(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_ones(TERN_SHAPE(2, 4, 4, 3), TERN_F32), *w = tern_ones(TERN_SHAPE(3, 3, 3, 2), TERN_F32), *g[2];
  tern_tape *tape = tern_tape_begin(NULL);
  tern_tape_watch(tape, x);
  tern_tape_watch(tape, w);
  tern_tensor *total = tern_sum(tern_conv(x, w, NULL), NULL);
  CHECK(!tern_tape_gradient(tape, total, (tern_tensor *const[]){x, w}, 2, g), "%s", tern_error());
  CHECK_LIST(tern_max(g[0], NULL), TERN_SHAPE(), TERN_F32, 8);
  CHECK_LIST(tern_min(g[0], NULL), TERN_SHAPE(), TERN_F32, 2);
  CHECK_LIST(tern_max(g[1], NULL), TERN_SHAPE(), TERN_F32, 8);
  CHECK_LIST(tern_min(g[1], NULL), TERN_SHAPE(), TERN_F32, 8);
  CHECK_NO_ERROR();
}

static void test_nothing(void) {
  TERN_SCOPE;
  tern_tensor *none = tern_zeros(TERN_SHAPE(0, 5, 5, 2), TERN_F32), *w = tern_ones(TERN_SHAPE(3, 3, 2, 4), TERN_F32);
  CHECK_VALUES(tern_conv(none, w, NULL), TERN_SHAPE(0, 3, 3, 4), TERN_F32, NULL, 0, 0, "an empty batch");
  CHECK_LIST(tern_conv(tern_zeros(TERN_SHAPE(1, 2, 0), TERN_F32), tern_zeros(TERN_SHAPE(1, 0, 2), TERN_F32), NULL),
             TERN_SHAPE(1, 2, 2), TERN_F32, 0, 0, 0, 0);
  CHECK_LIST(
      tern_conv_transpose(tern_zeros(TERN_SHAPE(1, 2, 0), TERN_F32), tern_zeros(TERN_SHAPE(1, 1, 0), TERN_F32), NULL),
      TERN_SHAPE(1, 2, 1), TERN_F32, 0, 0);
  tern_tensor *g;
  tern_tape *tape = tern_tape_begin(NULL);
  tern_tape_watch(tape, w);
  tern_tensor *y = tern_conv(none, w, NULL);
  CHECK(!tern_tape_gradient(tape, y, &w, 1, &g), "%s", tern_error());
  CHECK_LIST(tern_max(tern_abs(g), NULL), TERN_SHAPE(), TERN_F32, 0);
  CHECK_NO_ERROR();
}

static tern_tensor *whole_numbers(uint64_t *state, tern_shape shape) {
  double *v = malloc((size_t)test_numel(shape) * sizeof *v);
  for (int64_t i = 0; i < test_numel(shape); i++) v[i] = (double)test_below(state, 7) - 3;
  tern_tensor *t = test_tensor(shape, TERN_F32, v);
  free(v);
  return t;
}

static tern_tensor *slope_by_x(tern_tensor *x, tern_tensor *w, tern_tensor *dy, const tern_conv_opts *o) {
  tern_tape *tape = tern_tape_begin(NULL);
  tern_tensor *dx = NULL;
  if (!tape || tern_tape_watch(tape, x)) return NULL;
  tern_tensor *y = tern_conv(x, w, o);
  return tern_tape_gradient(tape, tern_sum(tern_mul(y, dy), NULL), &x, 1, &dx) ? NULL : dx;
}

/* Gradients by x that are large enough to be computed as convolutions, and next to those: float32 as float64,
   exactly */
static void test_wide(void) {
  static const tern_conv_opts opts[] = {
      {.padding = TERN_PAD_SAME},
      {.padding = TERN_PAD_VALID},
      {.padding = TERN_PAD_SAME, .dilations = {2, 3}},
      {.padding = TERN_PAD_EXPLICIT, .pads = {{2, 0}, {1, 1}}},
      {.padding = TERN_PAD_EXPLICIT, .pads = {{4, 1}, {0, 5}}}, /* wider than the filter */
      {.padding = TERN_PAD_SAME, .strides = {1, 2}},
      {.padding = TERN_PAD_SAME, .layout = TERN_NCHW}};
  uint64_t state = 3;
  const int cases = !strncmp(tern_default_device(), "opencl", 6) ? 1 : (int)(sizeof opts / sizeof *opts);
  for (int i = 0; i < cases; i++) {
    TERN_SCOPE;
    const bool first = opts[i].layout == TERN_NCHW;
    const int64_t c = 32 + i % 3, o = 16 + 5 * i;
    tern_tensor *x = whole_numbers(&state, first ? TERN_SHAPE(4, c, 27, 26) : TERN_SHAPE(4, 27, 26, c)),
                *w = whole_numbers(&state, first ? TERN_SHAPE(o, c, 3, 2) : TERN_SHAPE(3, 2, c, o));
    tern_tensor *y = tern_conv(x, w, &opts[i]), *dy = whole_numbers(&state, tern_shape_get(y));
    tern_tensor *got = slope_by_x(x, w, dy, &opts[i]);
    tern_tensor *want = slope_by_x(tern_cast(x, TERN_F64), tern_cast(w, TERN_F64), tern_cast(dy, TERN_F64), &opts[i]);
    CHECK(got && want && tern_equal_all(got, tern_cast(want, TERN_F32)), "case %d: %s", i, tern_error());
  }
}

static void refused(tern_tensor *got, const char *part) {
  CHECK(got == NULL, "a result instead of an error about \"%s\"", part);
  CHECK_ERROR(TERN_E_ARG, part);
}

static void test_refused(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_ones(TERN_SHAPE(1, 5, 5, 4), TERN_F32), *w = tern_ones(TERN_SHAPE(3, 3, 4, 6), TERN_F32);
  refused(tern_conv(NULL, w, NULL), "NULL");
  refused(tern_conv(x, TERN_NONE, NULL), "");
  refused(tern_conv(tern_ones(TERN_SHAPE(5, 5), TERN_F32), w, NULL), "rank");
  refused(tern_conv(x, tern_ones(TERN_SHAPE(3, 4, 6), TERN_F32), NULL), "rank");
  refused(tern_conv(tern_ones(TERN_SHAPE(1, 5, 5, 3), TERN_F32), w, NULL), "channels");
  refused(tern_conv(x, w, &(tern_conv_opts){.layout = TERN_NCHW}), "channels");
  refused(tern_conv(x, w, &(tern_conv_opts){.groups = 2}), "channels");
  refused(tern_conv(x, w, &(tern_conv_opts){.groups = 4}), "groups");
  refused(tern_conv(x, w, &(tern_conv_opts){.groups = -1}), "groups");
  refused(tern_conv(x, w, &(tern_conv_opts){.strides = {-1, 1}}), "stride");
  refused(tern_conv(x, w, &(tern_conv_opts){.dilations = {1, -2}}), "dilation");
  refused(tern_conv(x, w, &(tern_conv_opts){.dilations = {3, 1}}), "empty");
  refused(tern_conv(x, w, &(tern_conv_opts){.strides = {INT64_MAX, 1}}), "stride");
  refused(tern_conv(x, w, &(tern_conv_opts){.padding = TERN_PAD_EXPLICIT, .pads = {{-1, 0}}}), "negative");
  refused(tern_conv(x, w, &(tern_conv_opts){.padding = (tern_pad_mode)7}), "padding 7");
  refused(tern_conv(x, w, &(tern_conv_opts){.layout = (tern_layout)9}), "layout 9");
  refused(tern_conv(tern_ones(TERN_SHAPE(1, 2, 2, 4), TERN_F32), w, NULL), "empty");
  refused(tern_conv(x, tern_ones(TERN_SHAPE(0, 3, 4, 6), TERN_F32), NULL), "no taps");
  refused(tern_conv_transpose(x, w, NULL), "channels");
  refused(
      tern_conv_transpose(x, tern_ones(TERN_SHAPE(3, 3, 6, 4), TERN_F32), &(tern_conv_opts){.output_padding = {1, 0}}),
      "output_padding");
  refused(tern_conv_transpose(x, tern_ones(TERN_SHAPE(1, 1, 6, 4), TERN_F32),
                              &(tern_conv_opts){.padding = TERN_PAD_EXPLICIT, .pads = {{3, 3}}}),
          "empty");
}

static const test_case cases[] = {{"values", test_records},
                                  {"gradients", test_gradients},
                                  {"small", test_small},
                                  {"wide", test_wide},
                                  {"sum of a convolution", test_sum_of_a_conv},
                                  {"empty operands", test_nothing},
                                  {"refused", test_refused}};
TEST_MAIN("conv", cases)
