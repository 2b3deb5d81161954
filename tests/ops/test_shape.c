/* embed, repeat, tile, flip, roll, diag, triu, tril, outer and norm against numpy's results (fixtures/ops/shape.bin,
   norm.bin). */
#include "fixtures/fixtures.h"
#include "ops/check_gradient.h"
#include "support/values.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static tern_tensor *upload(const fixture_array *a) {
  return tern_constant(tern_shape_of(a->rank, a->shape), a->dtype, a->data, a->count);
}

/* A device compiles a kernel for each dtype: there the dtypes of three sizes stand for all. */
static bool on_cpu(void) {
  const char *device = getenv("TERN_DEVICE");
  return !device || !strncmp(device, "cpu", 3);
}

static bool is_tried(tern_dtype d) { return on_cpu() || d == TERN_F32 || d == TERN_I64 || d == TERN_U8; }

static void matches(tern_tensor *got, const fixture_array *e, double ulps, double absolute, const char *what) {
  tern_tensor *expected = upload(e);
  double *values = test_values(expected);
  if (CHECK(values != NULL, "%s: no values", what))
    CHECK_VALUES(got, tern_shape_of(e->rank, e->shape), e->dtype, values, ulps, absolute, what);
  if (got && tern_dtype_size(e->dtype) == 8 && e->dtype != TERN_F64)
    CHECK(tern_equal_all(got, expected) == 1, "%s: 64-bit integers differ", what);
  if (!got) CHECK(0, "%s: %s", what, tern_error());
  tern_error_clear();
  free(values);
}

/* Attributes a0, a1, .. */
static int listed(const fixture *f, int64_t *list) {
  int n = 0;
  for (int i = 0; i < f->n_attrs; i++)
    if (f->attr_name[i][0] == 'a' && f->attr_name[i][1] >= '0' && f->attr_name[i][1] <= '9')
      list[n++] = f->attr_value[i];
  return n;
}

static int listed_ints(const fixture *f, int *list) {
  int64_t wide[FIXTURE_MAX_ATTRS];
  const int n = listed(f, wide);
  for (int i = 0; i < n; i++) list[i] = (int)wide[i];
  return n;
}

static tern_tensor *run(const fixture *f, tern_tensor *x) {
  int64_t list[FIXTURE_MAX_ATTRS];
  const int k = (int)fixture_attr(f, "k", 0), axis = (int)fixture_attr(f, "axis", 0), n = listed(f, list);
  if (!strcmp(f->op, "embed")) {
    tern_range ranges[TERN_MAX_RANK];
    for (int d = 0; d < n / 3; d++) ranges[d] = TERN_RANGE(list[3 * d], list[3 * d + 1], list[3 * d + 2]);
    return tern_embed(x, tern_shape_of(f->out[0].rank, f->out[0].shape), ranges, n / 3);
  }
  if (!strcmp(f->op, "repeat")) return tern_repeat(x, fixture_attr(f, "n", -1), axis);
  if (!strcmp(f->op, "tile")) return tern_tile(x, tern_shape_of(n, list));
  if (!strcmp(f->op, "flip")) {
    int axes[FIXTURE_MAX_ATTRS];
    return tern_flip(x, axes, listed_ints(f, axes));
  }
  if (!strcmp(f->op, "roll")) return tern_roll(x, fixture_attr(f, "shift", 0), axis);
  if (!strcmp(f->op, "diag")) return tern_diag(x, k);
  if (!strcmp(f->op, "triu")) return tern_triu(x, k);
  if (!strcmp(f->op, "tril")) return tern_tril(x, k);
  if (!strcmp(f->op, "outer")) return tern_outer(x, upload(&f->in[1]));
  return NULL;
}

/* The same elements behind strides that are not row-major: every second of a longer last axis, turned round. */
static tern_tensor *strided(tern_tensor *x) {
  if (tern_rank(x) == 0 || tern_size(x) == 0) return x;
  tern_range all[TERN_MAX_RANK];
  for (int d = 0; d < tern_rank(x); d++) all[d] = TERN_ALL;
  tern_tensor *wide = tern_repeat(tern_flip(x, NULL, 0), 2, -1);
  all[tern_rank(x) - 1].step = 2;
  return tern_flip(tern_slice(wide, all, tern_rank(x)), NULL, 0);
}

static void test_against_numpy(void) {
  fixtures reader;
  fixture f;
  const bool opened = fixtures_open(&reader, TERN_FIXTURES "/ops/shape.bin");
  if (!CHECK(opened, "shape.bin: %s", reader.error)) return;
  while (fixtures_next(&reader, &f)) {
    TERN_SCOPE;
    char what[100];
    snprintf(what, sizeof what, "%s, record %d (%s)", f.op, reader.record, tern_dtype_name(f.in[0].dtype));
    if (!is_tried(f.in[0].dtype)) continue;
    tern_tensor *x = upload(&f.in[0]);
    matches(run(&f, x), &f.out[0], 0, 0, what);
    if (f.in[0].dtype != TERN_F32) continue;
    snprintf(what, sizeof what, "%s, record %d (strided)", f.op, reader.record);
    matches(run(&f, strided(x)), &f.out[0], 0, 0, what);
  }
  CHECK(!reader.error && reader.record > 1000, "shape.bin: %s after %d records",
        reader.error ? reader.error : "too few", reader.record);
  fixtures_close(&reader);
}

static void test_norm(void) {
  fixtures reader;
  fixture f;
  const bool opened = fixtures_open(&reader, TERN_FIXTURES "/ops/norm.bin");
  if (!CHECK(opened, "norm.bin: %s", reader.error)) return;
  while (fixtures_next(&reader, &f)) {
    TERN_SCOPE;
    if (!on_cpu() && f.in[0].dtype != TERN_F32) continue;
    char what[100];
    int axes[FIXTURE_MAX_ATTRS];
    const int64_t twice = fixture_attr(&f, "p2", 4);
    tern_norm_opts opts = {.order = (double)twice / 2, .axes = axes};
    opts.n_axes = listed_ints(&f, axes);
    if (twice == 1000 || twice == -1000) opts.order = twice > 0 ? (double)INFINITY : -(double)INFINITY;
    if (twice == -1) opts.count_nonzero = 1;
    snprintf(what, sizeof what, "norm, record %d (%s, order %g)", reader.record, tern_dtype_name(f.in[0].dtype),
             opts.order);
    tern_tensor *x = upload(&f.in[0]);
    matches(tern_norm(x, &opts), &f.out[0], f.out[0].dtype == TERN_F64 ? 64 : 4, 0, what);
    if (!opts.n_axes || f.in[0].dtype != TERN_F32) continue;
    opts.keepdims = 1;
    tern_tensor *kept = tern_norm(x, &opts);
    CHECK(tern_rank(kept) == tern_rank(x), "%s: keepdims gives rank %d", what, tern_rank(kept));
    fixture_array e = f.out[0];
    e.rank = tern_rank(kept);
    memcpy(e.shape, tern_shape_get(kept).dim, sizeof e.shape);
    matches(kept, &e, 4, 0, what);
  }
  CHECK(!reader.error && reader.record > 100, "norm.bin: %s after %d records", reader.error ? reader.error : "too few",
        reader.record);
  fixtures_close(&reader);
}

static void test_diagonals(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_reshape(tern_arange(0, 12, 1, TERN_F32), TERN_SHAPE(3, 4));
  CHECK_LIST(tern_diag(tern_transpose(x), 1), TERN_SHAPE(2), TERN_F32, 4, 9);
  CHECK_LIST(tern_diag(tern_flip(x, (const int[]){1}, 1), -1), TERN_SHAPE(2), TERN_F32, 7, 10);
  CHECK_LIST(tern_sum(tern_diag(x, 0), NULL), TERN_SHAPE(), TERN_F32, 15);
  CHECK_LIST(tern_triu(tern_transpose(x), 0), TERN_SHAPE(4, 3), TERN_F32, 0, 4, 8, 0, 5, 9, 0, 0, 10, 0, 0, 0);
  CHECK_LIST(tern_tile(tern_scalar(2), TERN_SHAPE(2)), TERN_SHAPE(2), TERN_F32, 2, 2);
  CHECK_LIST(tern_outer(tern_scalar(2), tern_f32(TERN_SHAPE(2), 1, 3)), TERN_SHAPE(1, 2), TERN_F32, 2, 6);
  CHECK_NO_ERROR();
}

#define REFUSED(call, part)                             \
  do {                                                  \
    CHECK((call) == NULL, "%s must be refused", #call); \
    CHECK_ERROR(TERN_E_ARG, part);                      \
  } while (0)

static void test_bad_input(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_ones(TERN_SHAPE(2, 3), TERN_F32), *one = tern_ones(TERN_SHAPE(), TERN_F32),
              *big = tern_ones(TERN_SHAPE(3), TERN_F32);
  REFUSED(tern_embed(x, TERN_SHAPE(3, 3), NULL, 0), "embed");
  REFUSED(tern_embed(x, TERN_SHAPE(2, 3), NULL, 1), "embed");
  REFUSED(tern_embed(x, TERN_SHAPE(2), (const tern_range[]){TERN_ALL, TERN_ALL}, 2), "embed");
  REFUSED(tern_embed(x, TERN_SHAPE(-2, 3), NULL, 0), "embed");
  REFUSED(tern_embed(x, (tern_shape){-1, {0}}, NULL, 0), "embed");
  REFUSED(tern_embed(x, TERN_SHAPE(4, 3), &TERN_RANGE(0, 3, 1), 1), "(3, 3)");
  REFUSED(tern_repeat(x, -1, 0), "repeat");
  REFUSED(tern_repeat(x, 2, 2), "repeat");
  REFUSED(tern_repeat(x, INT64_MAX, 1), "repeat");
  REFUSED(tern_tile(x, TERN_SHAPE(-1)), "tile");
  REFUSED(tern_tile(x, (tern_shape){-1, {0}}), "tile");
  REFUSED(tern_tile(x, TERN_SHAPE(INT64_MAX / 2, 2)), "tile");
  REFUSED(tern_flip(x, (const int[]){1, -1}, 2), "twice");
  REFUSED(tern_flip(x, (const int[]){2}, 1), "flip");
  REFUSED(tern_flip(x, (const int[]){0}, -1), "flip");
  REFUSED(tern_roll(x, 1, 2), "roll");
  REFUSED(tern_roll(one, 1, 0), "roll");
  REFUSED(tern_diag(one, 0), "diag");
  REFUSED(tern_diag(big, INT32_MIN), "diag");
  REFUSED(tern_triu(big, 0), "triu");
  REFUSED(tern_tril(one, 0), "tril");
  REFUSED(tern_norm(x, &(tern_norm_opts){.axes = (const int[]){0, 0}, .n_axes = 2}), "twice");
  REFUSED(tern_norm(x, &(tern_norm_opts){.axes = (const int[]){2}, .n_axes = 1}), "norm");
  REFUSED(tern_norm(x, &(tern_norm_opts){.n_axes = 1}), "norm");
  REFUSED(tern_norm(x, &(tern_norm_opts){.order = (double)NAN}), "NaN");
  REFUSED(tern_norm(tern_ones(TERN_SHAPE(0), TERN_F32), &(tern_norm_opts){.order = (double)INFINITY}), "no elements");
  REFUSED(tern_outer(x, NULL), "outer");
  REFUSED(tern_embed(TERN_NONE, TERN_SHAPE(1), NULL, 0), "embed");
  REFUSED(tern_cummax(x, 0, &(tern_scan_opts){.exclusive = 1}), "exclusive");
  REFUSED(tern_cummin(x, 5, NULL), "cummin");
}

static void test_running_extremes(void) {
  TERN_SCOPE;
  const double nan = (double)NAN;
  tern_tensor *x = tern_f32(TERN_SHAPE(2, 4), 1, 3, 2, 3, (float)NAN, 0, 5, 4);
  CHECK_LIST(tern_cummax(x, 1, NULL), TERN_SHAPE(2, 4), TERN_F32, 1, 3, 3, 3, nan, nan, nan, nan);
  CHECK_LIST(tern_cummin(x, 1, &(tern_scan_opts){.reverse = 1}), TERN_SHAPE(2, 4), TERN_F32, 1, 2, 2, 3, nan, 0, 4, 4);
  CHECK_LIST(tern_cummax(tern_u8(TERN_SHAPE(3), 7, 9, 8), 0, NULL), TERN_SHAPE(3), TERN_U8, 7, 9, 9);
  CHECK_LIST(tern_cummin(tern_bool(TERN_SHAPE(3), 1, 0, 1), 0, NULL), TERN_SHAPE(3), TERN_BOOL, 1, 0, 0);
}

/* ---- gradients ---- */

#define BODY(name, expression)                             \
  static tern_tensor *name(tern_tensor *const *x, int n) { \
    (void)n;                                               \
    return expression;                                     \
  }
BODY(embedded, tern_embed(x[0], TERN_SHAPE(5, 4), ((const tern_range[]){{4, 0, -2}, {1, TERN_OPEN, 1}}), 2))
BODY(repeated, tern_repeat(x[0], 3, 1))
BODY(tiled, tern_tile(x[0], TERN_SHAPE(2, 1, 2)))
BODY(tiled_deep, tern_tile(x[0], TERN_SHAPE(2, 2, 2, 2, 2)))
BODY(flipped, tern_mul(tern_flip(x[0], NULL, 0), x[0]))
BODY(rolled, tern_mul(tern_roll(x[0], 1, 1), x[0]))
BODY(diagonal, tern_square(tern_diag(x[0], 1)))
BODY(below_diagonal, tern_square(tern_diag(x[0], -1)))
BODY(on_diagonal, tern_square(tern_diag(x[0], -2)))
BODY(upper, tern_square(tern_triu(x[0], 1)))
BODY(lower, tern_square(tern_tril(x[0], -1)))
BODY(outer, tern_outer(x[0], x[1]))
BODY(joined, tern_square(tern_concat(x, n, 1)))
BODY(stacked, tern_square(tern_stack(x, n, -1)))
BODY(padded, tern_square(tern_pad(x[0], (const tern_padding[]){{1, 0}, {0, 2}}, 2, 3)))
BODY(summed, tern_square(tern_cumsum(x[0], 1, NULL)))
BODY(summed_back, tern_square(tern_cumsum(x[0], 0, &(tern_scan_opts){1, 1})))
BODY(multiplied, tern_cumprod(x[0], 1, NULL))
BODY(multiplied_others, tern_cumprod(x[0], 1, &(tern_scan_opts){.exclusive = 1}))
BODY(multiplied_back, tern_cumprod(x[0], 0, &(tern_scan_opts){.reverse = 1}))
BODY(multiplied_both, tern_cumprod(x[0], -1, &(tern_scan_opts){1, 1}))
BODY(highest, tern_square(tern_cummax(x[0], 1, NULL)))
BODY(lowest_back, tern_square(tern_cummin(x[0], 0, &(tern_scan_opts){.reverse = 1})))
BODY(multiplied_matrices, tern_matmul(x[0], x[1]))
BODY(dotted, tern_dot(x[0], x[1]))
BODY(norm_2, tern_norm(x[0], &(tern_norm_opts){.axes = (const int[]){1}, .n_axes = 1}))
BODY(norm_1, tern_norm(x[0], &(tern_norm_opts){.order = 1, .axes = (const int[]){0}, .n_axes = 1, .keepdims = 1}))
BODY(norm_largest,
     tern_norm(x[0], &(tern_norm_opts){.order = (double)INFINITY, .axes = (const int[]){-1}, .n_axes = 1}))
BODY(norm_smallest, tern_norm(x[0], &(tern_norm_opts){.order = -(double)INFINITY}))
BODY(norm_3, tern_norm(x[0], &(tern_norm_opts){.order = 3}))
BODY(norm_half, tern_norm(x[0], &(tern_norm_opts){.order = 0.5, .axes = (const int[]){1}, .n_axes = 1}))

static void test_gradients(void) {
  static const gradient_case list[] = {
      {"embed", embedded, 1, {{2, {2, 3}}}, 0},
      {"repeat", repeated, 1, {{2, {2, 2}}}, 0},
      {"tile", tiled, 1, {{2, {2, 2}}}, 0},
      {"tile, rank 5", tiled_deep, 1, {{5, {1, 2, 1, 2, 2}}}, 0},
      {"flip", flipped, 1, {{2, {2, 3}}}, 0},
      {"roll", rolled, 1, {{2, {2, 3}}}, 0},
      {"diag", diagonal, 1, {{3, {2, 3, 4}}}, 0},
      {"diag below", below_diagonal, 1, {{2, {4, 2}}}, 0},
      {"diag of a vector", on_diagonal, 1, {{1, {3}}}, 0},
      {"triu", upper, 1, {{3, {2, 3, 2}}}, 0},
      {"tril", lower, 1, {{2, {3, 3}}}, 0},
      {"outer", outer, 2, {{1, {2}}, {1, {3}}}, 0},
      {"concat", joined, 3, {{2, {2, 1}}, {2, {2, 3}}, {2, {2, 2}}}, 0},
      {"stack", stacked, 2, {{2, {2, 2}}, {2, {2, 2}}}, 0},
      {"pad", padded, 1, {{2, {2, 2}}}, 0},
      {"cumsum", summed, 1, {{2, {2, 4}}}, 0},
      {"cumsum, exclusive, reverse", summed_back, 1, {{2, {3, 2}}}, 0},
      {"cumprod", multiplied, 1, {{2, {2, 5}}}, 0},
      {"cumprod with zeros", multiplied, 1, {{2, {4, 5}}}, 0.4},
      {"cumprod, exclusive", multiplied_others, 1, {{3, {2, 4, 2}}}, 0.3},
      {"cumprod, reverse", multiplied_back, 1, {{2, {4, 2}}}, 0.3},
      {"cumprod, exclusive, reverse", multiplied_both, 1, {{2, {2, 4}}}, 0.3},
      {"cumprod of one", multiplied, 1, {{2, {2, 1}}}, 0},
      {"cummax", highest, 1, {{2, {3, 6}}}, 0},
      {"cummin, reverse", lowest_back, 1, {{2, {6, 2}}}, 0},
      {"cummax of one", highest, 1, {{2, {2, 1}}}, 0},
      {"matmul", multiplied_matrices, 2, {{2, {2, 3}}, {2, {3, 2}}}, 0},
      {"matmul, batches", multiplied_matrices, 2, {{3, {2, 2, 3}}, {3, {2, 3, 2}}}, 0},
      {"matmul, one right matrix", multiplied_matrices, 2, {{4, {2, 2, 2, 3}}, {2, {3, 2}}}, 0},
      {"matmul, one left matrix", multiplied_matrices, 2, {{2, {2, 3}}, {3, {2, 3, 2}}}, 0},
      {"matmul, broadcast batches", multiplied_matrices, 2, {{4, {2, 1, 2, 3}}, {3, {2, 3, 1}}}, 0},
      {"matmul, vectors", multiplied_matrices, 2, {{1, {3}}, {1, {3}}}, 0},
      {"matmul, vector and matrices", multiplied_matrices, 2, {{1, {3}}, {3, {2, 3, 2}}}, 0},
      {"dot", dotted, 2, {{2, {2, 3}}, {3, {2, 3, 2}}}, 0},
      {"norm", norm_2, 1, {{2, {2, 3}}}, 0},
      {"norm, order 1", norm_1, 1, {{2, {2, 3}}}, 0},
      {"norm, largest", norm_largest, 1, {{2, {2, 3}}}, 0},
      {"norm, smallest", norm_smallest, 1, {{2, {2, 3}}}, 0},
      {"norm, order 3", norm_3, 1, {{2, {2, 3}}}, 0},
      {"norm, order 1/2", norm_half, 1, {{2, {2, 3}}}, 0},
  };
  for (size_t i = 0; i < sizeof list / sizeof *list; i++) check_gradient(&list[i]);
}

static tern_tensor *slope(tern_tensor *(*f)(tern_tensor *), tern_tensor *x) {
  tern_tape *tape = tern_tape_begin(NULL);
  tern_tape_watch(tape, x);
  tern_tensor *g = NULL;
  return tern_tape_gradient(tape, f(x), &x, 1, &g) ? NULL : g;
}
static tern_tensor *norm_of(tern_tensor *x) { return tern_norm(x, NULL); }
static tern_tensor *rows_of(tern_tensor *x) {
  return tern_norm(x, &(tern_norm_opts){.axes = (const int[]){1}, .n_axes = 1});
}
static tern_tensor *cubic_of(tern_tensor *x) { return tern_norm(x, &(tern_norm_opts){.order = 3}); }
static tern_tensor *half_of(tern_tensor *x) { return tern_norm(x, &(tern_norm_opts){.order = 0.5}); }
static tern_tensor *largest_of(tern_tensor *x) { return tern_norm(x, &(tern_norm_opts){.order = (double)INFINITY}); }
static tern_tensor *count_of(tern_tensor *x) {
  return tern_add(tern_sum(x, NULL), tern_norm(x, &(tern_norm_opts){.count_nonzero = 1}));
}
static tern_tensor *running_max(tern_tensor *x) { return tern_cummax(x, 0, NULL); }

static tern_tensor *forty(tern_tensor *x) {
  tern_tensor *xs[40];
  for (int i = 0; i < 40; i++) xs[i] = i % 2 ? tern_mul(x, tern_scalar(i)) : tern_cast(x, TERN_F64);
  return tern_concat(xs, 40, 0);
}

/* More operands than an op of one launch may have, of two dtypes. */
static void test_many(void) {
  TERN_SCOPE;
  CHECK_LIST(slope(forty, tern_ones(TERN_SHAPE(2), TERN_F32)), TERN_SHAPE(2), TERN_F32, 420, 420);
  CHECK_NO_ERROR();
}

/* Where there is no derivative: 0, one of equals, or evenly shared. */
static void test_edges(void) {
  TERN_SCOPE;
  CHECK_LIST(slope(norm_of, tern_zeros(TERN_SHAPE(3), TERN_F32)), TERN_SHAPE(3), TERN_F32, 0, 0, 0);
  CHECK_LIST(slope(rows_of, tern_f32(TERN_SHAPE(2, 2), 0, 0, 0, 2)), TERN_SHAPE(2, 2), TERN_F32, 0, 0, 0, 1);
  CHECK_LIST(slope(cubic_of, tern_zeros(TERN_SHAPE(2), TERN_F32)), TERN_SHAPE(2), TERN_F32, 0, 0);
  CHECK_LIST(slope(half_of, tern_f32(TERN_SHAPE(2), 0, 4)), TERN_SHAPE(2), TERN_F32, 0, 1);
  CHECK_LIST(slope(largest_of, tern_f32(TERN_SHAPE(4), 3, -3, 1, 0)), TERN_SHAPE(4), TERN_F32, 0.5, -0.5, 0, 0);
  CHECK_LIST(slope(count_of, tern_f32(TERN_SHAPE(2), 3, 0)), TERN_SHAPE(2), TERN_F32, 1, 1);
  CHECK_LIST(slope(running_max, tern_f32(TERN_SHAPE(5), 2, 2, 1, 3, 3)), TERN_SHAPE(5), TERN_F32, 3, 0, 0, 2, 0);
  CHECK_LIST(slope(running_max, tern_f32(TERN_SHAPE(4), 2, (float)NAN, 1, 3)), TERN_SHAPE(4), TERN_F32, 1, 3, 0, 0);
  CHECK_LIST(slope(norm_of, tern_cast(tern_f32(TERN_SHAPE(2), 3, 4), TERN_F16)), TERN_SHAPE(2), TERN_F16,
             test_rounded(0.6, TERN_F16), test_rounded(0.8, TERN_F16));
  CHECK_NO_ERROR();
}

static const test_case cases[] = {
    {"results of numpy", test_against_numpy},    {"norms", test_norm},          {"diagonals", test_diagonals},
    {"running extremes", test_running_extremes}, {"bad input", test_bad_input}, {"gradients", test_gradients},
    {"edges of gradients", test_edges},          {"many operands", test_many},
};
TEST_MAIN("shape", cases)
