/* The public ops on TERN_DEVICE: promotion and broadcasting against the fixtures that numpy gave, everything with a
   shape of its own (reductions, joining, picking, sorting, scans; products: test_products.c) against plain loops in
   double. */
#include "fixtures/fixtures.h"
#include "support/values.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const tern_dtype all_dtypes[] = {TERN_BOOL, TERN_I8,  TERN_I16, TERN_I32,  TERN_I64, TERN_U8, TERN_U16,
                                        TERN_U32,  TERN_U64, TERN_F16, TERN_BF16, TERN_F32, TERN_F64};
enum { N_DTYPES = sizeof all_dtypes / sizeof *all_dtypes };
static const tern_dtype floats[] = {TERN_F16, TERN_BF16, TERN_F32, TERN_F64};

typedef tern_tensor *(*binary)(tern_tensor *, tern_tensor *);

/* ---- promotion and broadcasting ---- */

/* of_bools: what the op gives for two bools where the table refuses them. */
static void promotion_table(const fixture *f, const char *name, binary op, tern_dtype of_bools) {
  const unsigned char *table = f->out[0].data;
  for (int i = 0; i < N_DTYPES; i++)
    for (int k = 0; k < N_DTYPES; k++) {
      if (!test_chosen()) continue;
      TERN_SCOPE;
      const tern_dtype a = all_dtypes[i], b = all_dtypes[k];
      int want = table[(a - 1) * N_DTYPES + (b - 1)];
      if (!want && a == TERN_BOOL && b == TERN_BOOL) want = (int)of_bools;
      tern_tensor *r = op(tern_ones(TERN_SHAPE(2), a), tern_ones(TERN_SHAPE(1), b));
      if (want) {
        CHECK(r && tern_dtype_get(r) == (tern_dtype)want, "%s of %s and %s: %s, expected %s (%s)", name,
              tern_dtype_name(a), tern_dtype_name(b), tern_dtype_name(tern_dtype_get(r)),
              tern_dtype_name((tern_dtype)want), tern_error());
        tern_error_clear();
      } else {
        CHECK(!r, "%s of %s and %s must be refused", name, tern_dtype_name(a), tern_dtype_name(b));
        CHECK_ERROR(TERN_E_ARG, name);
      }
    }
}

static tern_tensor *upload(const fixture_array *a) {
  return tern_constant(tern_shape_of(a->rank, a->shape), a->dtype, a->data, a->count);
}

static void values_record(const fixture *f, int record, binary op, double ulps) {
  TERN_SCOPE;
  const fixture_array *e = &f->out[0];
  tern_tensor *got = op(upload(&f->in[0]), upload(&f->in[1])), *expected = upload(e);
  double *values = test_values(expected);
  char what[100];
  snprintf(what, sizeof what, "%s, record %d (%s, %s)", f->op, record, tern_dtype_name(f->in[0].dtype),
           tern_dtype_name(f->in[1].dtype));
  if (CHECK(values != NULL, "%s: no values", what))
    CHECK_VALUES(got, tern_shape_of(e->rank, e->shape), e->dtype, values, ulps, 0, what);
  /* 64-bit integers have more digits than a double */
  if (got && tern_dtype_size(e->dtype) == 8 && e->dtype != TERN_F64)
    CHECK(tern_equal_all(got, expected) == 1, "%s: 64-bit integers differ", what);
  tern_error_clear();
  free(values);
}

static void test_promotion(void) {
  fixtures reader;
  fixture f;
  const bool opened = fixtures_open(&reader, TERN_FIXTURES "/ops/public.bin");
  if (!CHECK(opened, "public.bin: %s", reader.error ? reader.error : "?")) return;
  while (fixtures_next(&reader, &f)) {
    if (strncmp(f.op, "promote", 7) != 0 && !test_chosen()) continue;
    if (!strcmp(f.op, "promote_add"))
      promotion_table(&f, "add", tern_add, TERN_BOOL);
    else if (!strcmp(f.op, "promote_divide"))
      promotion_table(&f, "div", tern_div, TERN_F64);
    else if (!strcmp(f.op, "promote_bitwise"))
      promotion_table(&f, "bitwise_and", tern_bitwise_and, TERN_NO_DTYPE);
    else if (!strcmp(f.op, "promote_compare"))
      promotion_table(&f, "equal", tern_equal, TERN_NO_DTYPE);
    else if (!strcmp(f.op, "add"))
      values_record(&f, reader.record, tern_add, 0);
    else if (!strcmp(f.op, "divide"))
      values_record(&f, reader.record, tern_div, 1);
    else
      CHECK(0, "public.bin: record %d is of unknown op %s", reader.record, f.op);
  }
  CHECK(!reader.error && reader.record > 300, "public.bin: %s after %d records",
        reader.error ? reader.error : "too few", reader.record);
  fixtures_close(&reader);
  TERN_SCOPE;
  CHECK_LIST(tern_add(tern_bool(TERN_SHAPE(4), 0, 0, 1, 1), tern_bool(TERN_SHAPE(4), 0, 1, 0, 1)), TERN_SHAPE(4),
             TERN_BOOL, 0, 1, 1, 1);
  CHECK_LIST(tern_mul(tern_bool(TERN_SHAPE(4), 0, 0, 1, 1), tern_bool(TERN_SHAPE(4), 0, 1, 0, 1)), TERN_SHAPE(4),
             TERN_BOOL, 0, 0, 0, 1);
}

static void weak_with(tern_dtype d) {
  TERN_SCOPE;
  const bool is_float = TERN_D_FLOAT >> d & 1;
  const tern_dtype with_float = is_float                         ? d
                                : d == TERN_I64 || d == TERN_U64 ? TERN_F64
                                                                 : TERN_F32,
                   with_int = d == TERN_BOOL ? TERN_I64 : d;
  tern_tensor *t = test_tensor(TERN_SHAPE(3), d, (const double[]){0, 1, 1});
  CHECK_LIST(tern_add(t, tern_scalar(2.5)), TERN_SHAPE(3), with_float, 2.5, 3.5, 3.5);
  CHECK_LIST(tern_sub(tern_scalar(2.5), tern_cast(t, with_float)), TERN_SHAPE(3), with_float, 2.5, 1.5, 1.5);
  for (int again = 0; again < 2; again++) { /* the second call takes the fast path */
    CHECK_LIST(tern_add(t, tern_scalar_int(3)), TERN_SHAPE(3), with_int, 3, 4, 4);
    CHECK_LIST(tern_add(tern_scalar_int(3), t), TERN_SHAPE(3), with_int, 3, 4, 4);
    CHECK_LIST(tern_sub(tern_scalar_int(3), t), TERN_SHAPE(3), with_int, 3, 2, 2);
    CHECK_LIST(tern_mul(t, tern_scalar(0.5)), TERN_SHAPE(3), with_float, 0, 0.5, 0.5);
  }
  CHECK_LIST(tern_maximum(t, tern_scalar_int(1)), TERN_SHAPE(3), with_int, 1, 1, 1);
  CHECK_LIST(tern_less(t, tern_scalar(0.5)), TERN_SHAPE(3), TERN_BOOL, 1, 0, 0);
  CHECK_LIST(tern_where(tern_bool(TERN_SHAPE(3), 1, 0, 1), t, tern_scalar_int(7)), TERN_SHAPE(3), with_int, 0, 7, 1);
}

static void test_weak(void) {
  TERN_SCOPE;
  for (int i = 0; i < N_DTYPES; i++)
    if (test_chosen()) weak_with(all_dtypes[i]);
  CHECK_LIST(tern_add(tern_scalar(1.5), tern_scalar(2)), TERN_SHAPE(), TERN_F32, 3.5);
  CHECK_LIST(tern_add(tern_scalar_int(1), tern_scalar_int(2)), TERN_SHAPE(), TERN_I64, 3);
  CHECK_LIST(tern_mul(tern_scalar_int(3), tern_scalar(0.5)), TERN_SHAPE(), TERN_F32, 1.5);
  CHECK_LIST(tern_div(tern_scalar_int(1), tern_scalar_int(2)), TERN_SHAPE(), TERN_F64, 0.5);
  CHECK_LIST(tern_sqrt(tern_scalar_int(9)), TERN_SHAPE(), TERN_F64, 3);
  CHECK_LIST(tern_sqrt(tern_scalar(9)), TERN_SHAPE(), TERN_F32, 3);
  CHECK_LIST(tern_neg(tern_scalar(9)), TERN_SHAPE(), TERN_F32, -9);
  /* 0-D tensors are not weak */
  CHECK_LIST(tern_add(tern_f32(TERN_SHAPE(2), 1, 2), tern_f64(TERN_SHAPE(), 1)), TERN_SHAPE(2), TERN_F64, 2, 3);
  CHECK_LIST(tern_add(tern_u8(TERN_SHAPE(2), 250, 1), tern_scalar_int(10)), TERN_SHAPE(2), TERN_U8, 4, 11); /* wraps */
}

/* ---- elementwise over views ---- */

static void test_strided(void) {
  TERN_SCOPE;
  uint64_t state = 7;
  enum { R = 6, C = 5 };
  double a[R * C], b[R * C], expected[R * C];
  for (int i = 0; i < R * C; i++) {
    a[i] = (double)test_below(&state, 200) - 100;
    b[i] = (double)test_below(&state, 200) - 100;
  }
  for (size_t k = 0; k < sizeof all_dtypes / sizeof *all_dtypes; k++) {
    const tern_dtype d = all_dtypes[k];
    if (d == TERN_BOOL) continue;
    TERN_SCOPE;
    tern_tensor *x = test_tensor(TERN_SHAPE(R, C), d, a), *y = test_tensor(TERN_SHAPE(C, R), d, b);
    /* x[::-1, ::2] - y.T[:, ::2] */
    const tern_range back[] = {TERN_RANGE(TERN_OPEN, TERN_OPEN, -1), TERN_RANGE(TERN_OPEN, TERN_OPEN, 2)};
    const tern_range forth[] = {TERN_ALL, TERN_RANGE(TERN_OPEN, TERN_OPEN, 2)};
    tern_tensor *got = tern_maximum(tern_slice(x, back, 2), tern_slice(tern_transpose(y), forth, 2));
    for (int r = 0; r < R; r++)
      for (int c = 0; c < 3; c++) {
        const double p = test_rounded(a[(R - 1 - r) * C + 2 * c], d), q = test_rounded(b[2 * c * R + r], d);
        expected[r * 3 + c] = p > q ? p : q;
      }
    CHECK_VALUES(got, TERN_SHAPE(R, 3), d, expected, 0, 0, "maximum of a reversed and a transposed view");
    tern_tensor *row = tern_index(x, 0, -1), *column = tern_index(y, 1, 2); /* both C long */
    for (int c = 0; c < C; c++) expected[c] = test_rounded(a[(R - 1) * C + c], d) == test_rounded(b[c * R + 2], d);
    CHECK_VALUES(tern_equal(row, column), TERN_SHAPE(C), TERN_BOOL, expected, 0, 0, "equal of a row and a column");
  }
}

static void test_where_clip(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_f32(TERN_SHAPE(2, 3), -2, -1, 0, 1, 2, NAN);
  CHECK_LIST(tern_clip(x, tern_scalar(-1), tern_scalar(1)), TERN_SHAPE(2, 3), TERN_F32, -1, -1, 0, 1, 1, NAN);
  CHECK_LIST(tern_clip(x, TERN_NONE, tern_scalar(1)), TERN_SHAPE(2, 3), TERN_F32, -2, -1, 0, 1, 1, NAN);
  CHECK_LIST(tern_clip(x, tern_scalar(0.5), TERN_NONE), TERN_SHAPE(2, 3), TERN_F32, 0.5, 0.5, 0.5, 1, 2, NAN);
  CHECK_LIST(tern_clip(x, TERN_NONE, TERN_NONE), TERN_SHAPE(2, 3), TERN_F32, -2, -1, 0, 1, 2, NAN);
  CHECK_LIST(tern_clip(x, tern_f32(TERN_SHAPE(2, 1), 0, -5), tern_f32(TERN_SHAPE(3), 9, 0, 9)), TERN_SHAPE(2, 3),
             TERN_F32, 0, 0, 0, 1, 0, NAN);
  CHECK_LIST(tern_clip(tern_i32(TERN_SHAPE(3), -7, 3, 70), tern_scalar_int(0), tern_scalar_int(50)), TERN_SHAPE(3),
             TERN_I32, 0, 3, 50);
  CHECK_LIST(tern_where(tern_bool(TERN_SHAPE(2, 1), 1, 0), tern_f32(TERN_SHAPE(3), 1, 2, 3), tern_scalar(0)),
             TERN_SHAPE(2, 3), TERN_F32, 1, 2, 3, 0, 0, 0);
  CHECK_LIST(
      tern_where(tern_i32(TERN_SHAPE(2), 5, 0), tern_i32(TERN_SHAPE(2), 1, 2), tern_f64(TERN_SHAPE(2), 3.5, 4.5)),
      TERN_SHAPE(2), TERN_F64, 1, 4.5);
  CHECK_LIST(tern_where(tern_bool(TERN_SHAPE(), 0), tern_f32(TERN_SHAPE(1, 2), 1, 2), tern_f32(TERN_SHAPE(2, 1), 3, 4)),
             TERN_SHAPE(2, 2), TERN_F32, 3, 3, 4, 4);
}

/* ---- reductions ---- */

enum { SUM, PROD, MEAN, MAX, MIN, ANY, ALL, VAR, STD, LOGSUMEXP, ARGMAX, ARGMIN, N_REDUCTIONS };
static const struct {
  const char *name;
  tern_tensor *(*run)(tern_tensor *, const tern_reduce_opts *);
} reductions[N_REDUCTIONS] = {{"sum", tern_sum},       {"prod", tern_prod},
                              {"mean", tern_mean},     {"max", tern_max},
                              {"min", tern_min},       {"any", tern_any},
                              {"all", tern_all},       {"var", tern_var},
                              {"std", tern_std},       {"logsumexp", tern_logsumexp},
                              {"argmax", tern_argmax}, {"argmin", tern_argmin}};

static double reduced(int which, const double *v, int64_t n, double correction) {
  long double sum = 0, product = 1, squares = 0, exps = 0;
  int64_t top = 0, bottom = 0;
  bool any = false, all = true;
  for (int64_t i = 0; i < n; i++) {
    sum += v[i];
    product *= v[i];
    if (v[i] > v[top] || (isnan(v[i]) && !isnan(v[top]))) top = i;
    if (v[i] < v[bottom] || (isnan(v[i]) && !isnan(v[bottom]))) bottom = i;
    any = any || v[i] != 0;
    all = all && v[i] != 0;
  }
  for (int64_t i = 0; i < n; i++) {
    squares += (v[i] - sum / n) * (v[i] - sum / n);
    exps += expl((long double)v[i] - v[top]);
  }
  const double variance = n > correction ? (double)(squares / (n - (long double)correction))
                          : n == 0       ? NAN
                          : squares > 0  ? INFINITY
                                         : NAN;
  const double results[] = {(double)sum,
                            (double)product,
                            (double)(sum / n),
                            v[top],
                            v[bottom],
                            any,
                            all,
                            variance,
                            sqrt(variance),
                            (double)(logl(exps) + v[top]),
                            (double)top,
                            (double)bottom};
  return results[which];
}

static tern_dtype reduced_dtype(int which, tern_dtype d) {
  const bool is_float = TERN_D_FLOAT >> d & 1;
  if (which == ANY || which == ALL) return TERN_BOOL;
  if (which == ARGMAX || which == ARGMIN) return TERN_I64;
  if (which == MAX || which == MIN || is_float) return d;
  if (which == SUM || which == PROD) return TERN_D_UINT >> d & 1 ? TERN_U64 : TERN_I64;
  return which == LOGSUMEXP && tern_dtype_size(d) < 8 ? TERN_F32 : TERN_F64;
}

/* Tolerance: as many ulp as the table gives; results near 0 may be off by that share of the inputs. */
static double tolerance(const char *name, tern_dtype d) {
  tern_op_info op;
  for (int i = 0; !tern_op_at(i, &op); i++)
    if (!strcmp(op.name, name)) return d == TERN_F32 || d == TERN_F64 ? op.ulp : 1;
  return 0;
}

/* Every reduction of x over the axes of `mask`. */
static void reduce_case(const double *v, tern_tensor *x, tern_shape shape, unsigned mask, bool keep,
                        double correction) {
  int axes[TERN_MAX_RANK], n_axes = 0;
  tern_shape out = {.rank = 0}, inner = {.rank = 0};
  int64_t index[TERN_MAX_RANK] = {0}, i[TERN_MAX_RANK] = {0};
  for (int d = 0; d < shape.rank; d++) {
    if (mask >> d & 1) {
      axes[n_axes] = n_axes & 1 ? d : d - shape.rank; /* some counted from the end */
      n_axes++;
      inner.dim[inner.rank++] = shape.dim[d];
    }
    if (!(mask >> d & 1))
      out.dim[out.rank++] = shape.dim[d];
    else if (keep)
      out.dim[out.rank++] = 1;
  }
  const tern_reduce_opts opts = {.axes = axes, .n_axes = n_axes, .keepdims = keep, .correction = correction};
  const int64_t n = test_numel(inner), n_out = test_numel(out);
  double *part = malloc((size_t)n * sizeof *part + 1), *expected = malloc((size_t)n_out * sizeof *expected + 1);
  for (int which = 0; which < N_REDUCTIONS; which++) {
    TERN_SCOPE;
    memset(index, 0, sizeof index);
    double scale = 0;
    do {
      int64_t at = 0, k = 0;
      memset(i, 0, sizeof i);
      do { /* gather the elements of one result in row-major order of the reduced axes */
        int64_t whole_index[TERN_MAX_RANK];
        for (int d = 0, from_out = 0, from_in = 0; d < shape.rank; d++) {
          if (mask >> d & 1) {
            whole_index[d] = i[from_in++];
            from_out += keep;
          } else {
            whole_index[d] = index[from_out++];
          }
        }
        part[k++] = v[test_at(shape, whole_index)];
        scale = fmax(scale, fabs(part[k - 1]));
      } while (test_step(inner, i));
      at = test_at(out, index);
      expected[at] = reduced(which, part, n, correction);
    } while (test_step(out, index));
    const tern_dtype d = tern_dtype_get(x), dtype = reduced_dtype(which, d);
    const double ulps = tolerance(reductions[which].name, dtype);
    const double epsilon = dtype == TERN_F64    ? 0x1p-52
                           : dtype == TERN_F32  ? 0x1p-23
                           : dtype == TERN_F16  ? 0x1p-10
                           : dtype == TERN_BF16 ? 0x1p-7
                                                : 0;
    CHECK_VALUES(reductions[which].run(x, n_axes ? &opts
                                          : keep ? &opts
                                                 : NULL),
                 out, dtype, expected, ulps, 4 * epsilon * scale * (which == SUM ? (double)n : 1),
                 reductions[which].name);
  }
  free(part);
  free(expected);
}

static void test_reductions(void) {
  static const struct {
    int rank;
    int64_t dim[4];
  } shapes[] = {{1, {7}}, {2, {4, 5}}, {3, {2, 3, 4}}, {4, {2, 1, 3, 2}}, {2, {3, 70}}};
  uint64_t state = 21;
  for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
    const tern_shape shape = tern_shape_of(shapes[s].rank, shapes[s].dim);
    for (int k = 0; k < N_DTYPES; k++) {
      const tern_dtype d = all_dtypes[k];
      /* on a device each is a kernel of its own to compile: other dtypes reduce one shape by one axis and by two */
      const bool all = d == TERN_F32 || (d == TERN_I32 && s == 2);
      if (!all && s != 2) continue;
      TERN_SCOPE;
      double v[256];
      for (int64_t i = 0; i < test_numel(shape); i++)
        v[i] = d == TERN_BOOL          ? (double)test_below(&state, 2)
               : TERN_D_FLOAT >> d & 1 ? test_rounded(test_uniform(&state, -2, 2), d)
                                       : (double)(test_below(&state, 5) - (TERN_D_SINT >> d & 1 ? 2 : 0));
      tern_tensor *x = test_tensor(shape, d, v);
      for (unsigned mask = 1; mask < 1u << shape.rank; mask++)
        for (int keep = 0; keep < 2 && (all || mask == 3 || mask == 4); keep++)
          if (test_chosen()) reduce_case(v, x, shape, mask, keep, mask & 1 ? 1 : 0);
    }
  }
}

static void test_reductions_of_views(void) {
  TERN_SCOPE;
  uint64_t state = 22;
  double v[5 * 6], turned[5 * 6];
  for (int i = 0; i < 30; i++) v[i] = test_rounded(test_uniform(&state, -2, 2), TERN_F32);
  for (int r = 0; r < 5; r++)
    for (int c = 0; c < 6; c++) turned[c * 5 + (4 - r)] = v[r * 6 + c];
  const tern_range flip[] = {TERN_ALL, TERN_RANGE(TERN_OPEN, TERN_OPEN, -1)};
  tern_tensor *x = tern_slice(tern_transpose(test_tensor(TERN_SHAPE(5, 6), TERN_F32, v)), flip, 2);
  for (unsigned mask = 1; mask < 4; mask++) reduce_case(turned, x, TERN_SHAPE(6, 5), mask, false, 0);
  /* a broadcast axis */
  double wide[4 * 3];
  for (int i = 0; i < 12; i++) wide[i] = v[i % 3];
  tern_tensor *row = tern_expand(test_tensor(TERN_SHAPE(3), TERN_F32, v), TERN_SHAPE(4, 3));
  for (unsigned mask = 1; mask < 4; mask++) reduce_case(wide, row, TERN_SHAPE(4, 3), mask, true, 0);
}

static void test_reductions_edges(void) {
  TERN_SCOPE;
  tern_tensor *one = tern_f32(TERN_SHAPE(), 3), *none = tern_zeros(TERN_SHAPE(0, 3), TERN_F32);
  CHECK_LIST(tern_sum(one, NULL), TERN_SHAPE(), TERN_F32, 3);
  CHECK_LIST(tern_argmax(one, NULL), TERN_SHAPE(), TERN_I64, 0);
  CHECK_LIST(tern_var(one, NULL), TERN_SHAPE(), TERN_F32, 0);
  CHECK_LIST(tern_sum(tern_scalar_int(4), NULL), TERN_SHAPE(), TERN_I64, 4);
  CHECK_LIST(tern_sum(none, NULL), TERN_SHAPE(), TERN_F32, 0);
  CHECK_LIST(tern_prod(none, TERN_AXES(0)), TERN_SHAPE(3), TERN_F32, 1, 1, 1);
  CHECK_LIST(tern_any(none, TERN_AXES_KEEP(0)), TERN_SHAPE(1, 3), TERN_BOOL, 0, 0, 0);
  CHECK_LIST(tern_all(none, NULL), TERN_SHAPE(), TERN_BOOL, 1);
  CHECK_LIST(tern_logsumexp(none, TERN_AXES(0)), TERN_SHAPE(3), TERN_F32, -INFINITY, -INFINITY, -INFINITY);
  CHECK_LIST(tern_sum(none, TERN_AXES(1)), TERN_SHAPE(0), TERN_F32, 0);
  CHECK_LIST(tern_max(none, TERN_AXES(1)), TERN_SHAPE(0), TERN_F32, 0);
  CHECK(!tern_max(none, NULL), "the largest of nothing");
  CHECK_ERROR(TERN_E_ARG, "no elements");
  CHECK(!tern_argmin(none, TERN_AXES(0)), "the place of the smallest of nothing");
  CHECK_ERROR(TERN_E_ARG, "argmin");
  tern_tensor *x = tern_f32(TERN_SHAPE(2, 4), 1, 5, 5, 2, 3, NAN, 9, NAN);
  CHECK_LIST(tern_argmax(x, TERN_AXES(1)), TERN_SHAPE(2), TERN_I64, 1, 1);
  CHECK_LIST(tern_argmin(x, TERN_AXES(-1)), TERN_SHAPE(2), TERN_I64, 0, 1);
  CHECK_LIST(tern_argmax(x, NULL), TERN_SHAPE(), TERN_I64, 5);
  CHECK_LIST(tern_max(x, TERN_AXES(1)), TERN_SHAPE(2), TERN_F32, 5, NAN);
  CHECK_LIST(tern_min(x, TERN_AXES_KEEP(1)), TERN_SHAPE(2, 1), TERN_F32, 1, NAN);
  CHECK_LIST(tern_any(x, TERN_AXES(0)), TERN_SHAPE(4), TERN_BOOL, 1, 1, 1, 1);
  CHECK_LIST(tern_logsumexp(tern_f32(TERN_SHAPE(2, 2), -INFINITY, -INFINITY, INFINITY, 0), TERN_AXES(1)), TERN_SHAPE(2),
             TERN_F32, -INFINITY, INFINITY);
  CHECK_LIST(tern_logsumexp(tern_f32(TERN_SHAPE(2), 1000, -1000), NULL), TERN_SHAPE(), TERN_F32, 1000);
  CHECK_LIST(tern_sum(tern_u8(TERN_SHAPE(3), 200, 200, 200), NULL), TERN_SHAPE(), TERN_U64, 600);
  CHECK_LIST(tern_sum(tern_i32(TERN_SHAPE(2), INT32_MAX, INT32_MAX), NULL), TERN_SHAPE(), TERN_I64, 4294967294.0);
  CHECK_LIST(tern_sum(tern_bool(TERN_SHAPE(3), 1, 0, 1), NULL), TERN_SHAPE(), TERN_I64, 2);
  CHECK_LIST(tern_sum(tern_f32(TERN_SHAPE(2), 1.5, 2), &(tern_reduce_opts){.dtype = TERN_F64}), TERN_SHAPE(), TERN_F64,
             3.5);
  CHECK_LIST(tern_sum(tern_i32(TERN_SHAPE(2), 1, 2), &(tern_reduce_opts){.dtype = TERN_I32}), TERN_SHAPE(), TERN_I32,
             3);
  /* float16 sums accumulate in float32: 4096 ones would stick at 2048 */
  CHECK_LIST(tern_sum(tern_ones(TERN_SHAPE(4096), TERN_F16), NULL), TERN_SHAPE(), TERN_F16, 4096);
  CHECK_LIST(tern_mean(tern_full(TERN_SHAPE(1000), TERN_F16, 1000), NULL), TERN_SHAPE(), TERN_F16, 1000);
}

/* ---- joining, picking ---- */

static void test_join(void) {
  TERN_SCOPE;
  tern_tensor *a = tern_f32(TERN_SHAPE(2, 2), 1, 2, 3, 4), *b = tern_f32(TERN_SHAPE(1, 2), 5, 6),
              *c = tern_i32(TERN_SHAPE(2, 1), 7, 8);
  CHECK_LIST(tern_concat((tern_tensor *[]){a, b}, 2, 0), TERN_SHAPE(3, 2), TERN_F32, 1, 2, 3, 4, 5, 6);
  CHECK_LIST(tern_concat((tern_tensor *[]){a, c, tern_transpose(a)}, 3, -1), TERN_SHAPE(2, 5), TERN_F32, 1, 2, 7, 1, 3,
             3, 4, 8, 2, 4);
  CHECK_LIST(tern_concat((tern_tensor *[]){a}, 1, 1), TERN_SHAPE(2, 2), TERN_F32, 1, 2, 3, 4);
  CHECK_LIST(tern_concat((tern_tensor *[]){tern_zeros(TERN_SHAPE(0, 2), TERN_F32), b}, 2, 0), TERN_SHAPE(1, 2),
             TERN_F32, 5, 6);
  CHECK_LIST(tern_stack((tern_tensor *[]){a, tern_transpose(a)}, 2, 0), TERN_SHAPE(2, 2, 2), TERN_F32, 1, 2, 3, 4, 1, 3,
             2, 4);
  CHECK_LIST(tern_stack((tern_tensor *[]){a, tern_transpose(a)}, 2, 1), TERN_SHAPE(2, 2, 2), TERN_F32, 1, 2, 1, 3, 3, 4,
             2, 4);
  CHECK_LIST(tern_stack((tern_tensor *[]){a, tern_transpose(a)}, 2, -1), TERN_SHAPE(2, 2, 2), TERN_F32, 1, 1, 2, 3, 3,
             2, 4, 4);
  CHECK_LIST(tern_stack((tern_tensor *[]){tern_f32(TERN_SHAPE(), 1), tern_u8(TERN_SHAPE(), 2)}, 2, 0), TERN_SHAPE(2),
             TERN_F32, 1, 2);
  CHECK_LIST(tern_pad(a, (tern_padding[]){{1, 0}, {0, 2}}, 2, -1), TERN_SHAPE(3, 4), TERN_F32, -1, -1, -1, -1, 1, 2, -1,
             -1, 3, 4, -1, -1);
  CHECK_LIST(tern_pad(tern_transpose(a), (tern_padding[]){{0, 0}, {1, 0}}, 2, 0.5), TERN_SHAPE(2, 3), TERN_F32, 0.5, 1,
             3, 0.5, 2, 4);
  CHECK_LIST(tern_pad(tern_u8(TERN_SHAPE(1), 3), (tern_padding[]){{1, 1}}, 1, 255), TERN_SHAPE(3), TERN_U8, 255, 3,
             255);
  CHECK_LIST(tern_pad(tern_zeros(TERN_SHAPE(0), TERN_I32), (tern_padding[]){{1, 2}}, 1, 9), TERN_SHAPE(3), TERN_I32, 9,
             9, 9);
}

static void take_case(tern_shape shape, tern_shape index_shape, int axis, tern_dtype index_dtype) {
  TERN_SCOPE;
  uint64_t state = 31;
  const int at = axis < 0 ? axis + shape.rank : axis;
  const int64_t n = test_numel(shape), m = test_numel(index_shape), size = shape.dim[at];
  double v[512], j[64], expected[2048];
  for (int64_t i = 0; i < n; i++) v[i] = (double)(i % 100);
  for (int64_t i = 0; i < m; i++)
    j[i] = (double)(TERN_D_UINT >> index_dtype & 1 ? test_below(&state, size) : test_below(&state, 2 * size) - size);
  tern_shape out = {.rank = 0};
  for (int d = 0; d < at; d++) out.dim[out.rank++] = shape.dim[d];
  for (int d = 0; d < index_shape.rank; d++) out.dim[out.rank++] = index_shape.dim[d];
  for (int d = at + 1; d < shape.rank; d++) out.dim[out.rank++] = shape.dim[d];
  int64_t i[TERN_MAX_RANK] = {0};
  if (test_numel(out)) do {
      int64_t from[TERN_MAX_RANK], place = 0;
      for (int d = 0; d < at; d++) from[d] = i[d];
      for (int d = 0; d < index_shape.rank; d++) place = place * index_shape.dim[d] + i[at + d];
      from[at] = (int64_t)j[place] < 0 ? (int64_t)j[place] + size : (int64_t)j[place];
      for (int d = at + 1; d < shape.rank; d++) from[d] = i[d - 1 + index_shape.rank];
      expected[test_at(out, i)] = v[test_at(shape, from)];
    } while (test_step(out, i));
  CHECK_VALUES(tern_take(test_tensor(shape, TERN_F32, v), test_tensor(index_shape, index_dtype, j), axis), out,
               TERN_F32, expected, 0, 0, "take");
}

static void test_take(void) {
  take_case(TERN_SHAPE(5), TERN_SHAPE(3), 0, TERN_I64);
  take_case(TERN_SHAPE(5), TERN_SHAPE(), 0, TERN_I32);
  take_case(TERN_SHAPE(4, 3), TERN_SHAPE(2, 3), 0, TERN_I64);
  take_case(TERN_SHAPE(4, 3), TERN_SHAPE(2, 3), -1, TERN_I32);
  take_case(TERN_SHAPE(2, 3, 4), TERN_SHAPE(5), 1, TERN_I8);
  take_case(TERN_SHAPE(2, 3, 4), TERN_SHAPE(2, 2), -2, TERN_U8);
  take_case(TERN_SHAPE(2, 3, 4), TERN_SHAPE(7), -1, TERN_U64);
  take_case(TERN_SHAPE(2, 3, 4), TERN_SHAPE(0), 1, TERN_I64);
  TERN_SCOPE;
  CHECK_LIST(tern_take(tern_f32(TERN_SHAPE(3), 1, 2, 3), tern_scalar_int(-1), 0), TERN_SHAPE(), TERN_F32, 3);
  CHECK_LIST(tern_take(tern_transpose(tern_i32(TERN_SHAPE(2, 3), 1, 2, 3, 4, 5, 6)), tern_i64(TERN_SHAPE(2), 2, 0), 0),
             TERN_SHAPE(2, 2), TERN_I32, 3, 6, 1, 4);
  CHECK_LIST(tern_one_hot(tern_i64(TERN_SHAPE(4), 2, 0, -1, 3), 3, TERN_F32), TERN_SHAPE(4, 3), TERN_F32, 0, 0, 1, 1, 0,
             0, 0, 0, 0, 0, 0, 0);
  CHECK_LIST(tern_one_hot(tern_u8(TERN_SHAPE(1, 2), 1, 0), 2, TERN_BOOL), TERN_SHAPE(1, 2, 2), TERN_BOOL, 0, 1, 1, 0);
  CHECK_LIST(tern_one_hot(tern_i32(TERN_SHAPE(), 1), 3, TERN_I8), TERN_SHAPE(3), TERN_I8, 0, 1, 0);
  CHECK_LIST(tern_one_hot(tern_i32(TERN_SHAPE(2), 0, 1), 1, TERN_F64), TERN_SHAPE(2, 1), TERN_F64, 1, 0);
  CHECK_LIST(tern_one_hot(tern_i32(TERN_SHAPE(2), 0, 1), 0, TERN_F64), TERN_SHAPE(2, 0), TERN_F64, 0);
}

/* ---- sorting, scans ---- */

/* Whether element i comes before element j; stable, NaN last (first when descending). */
static bool before(const double *v, int i, int j, bool descending) {
  const double a = v[i], b = v[j];
  if (isnan(a) || isnan(b)) return isnan(a) && isnan(b) ? i < j : descending ? isnan(a) : isnan(b);
  if (a == b) return i < j;
  return descending ? a > b : a < b;
}

static void sort_case(tern_dtype d, bool descending, int axis) {
  TERN_SCOPE;
  enum { R = 4, C = 9 };
  uint64_t state = (uint64_t)d * 7 + 1;
  double v[R * C], sorted[R * C], places[R * C];
  const bool is_float = TERN_D_FLOAT >> d & 1;
  for (int i = 0; i < R * C; i++)
    v[i] = d == TERN_BOOL ? (double)test_below(&state, 2)
                          : (double)(test_below(&state, 6) - (TERN_D_SINT >> d & 1 || is_float ? 3 : 0));
  if (is_float) v[3] = v[17] = v[20] = NAN;
  if (is_float) v[5] = INFINITY, v[24] = -INFINITY;
  const int n = axis ? C : R, rows = axis ? R : C;
  for (int row = 0; row < rows; row++) {
    double part[C];
    for (int i = 0; i < n; i++) part[i] = axis ? v[row * C + i] : v[i * C + row];
    for (int i = 0; i < n; i++) {
      int rank = 0;
      for (int j = 0; j < n; j++) rank += j != i && before(part, j, i, descending);
      const int to = axis ? row * C + rank : rank * C + row;
      sorted[to] = part[i];
      places[to] = i;
    }
  }
  tern_tensor *x = test_tensor(TERN_SHAPE(R, C), d, v);
  const tern_sort_opts opts = {.descending = descending};
  CHECK_VALUES(tern_sort(x, axis - 2, &opts), TERN_SHAPE(R, C), d, sorted, 0, 0, "sort");
  CHECK_VALUES(tern_argsort(x, axis, &opts), TERN_SHAPE(R, C), TERN_I64, places, 0, 0, "argsort");
}

static void test_sort(void) {
  for (int k = 0; k < N_DTYPES; k++)
    for (int turn = 0; turn < 4; turn++) sort_case(all_dtypes[k], turn & 1, turn >> 1);
  TERN_SCOPE;
  CHECK_LIST(tern_sort(tern_transpose(tern_f32(TERN_SHAPE(2, 2), 4, 1, 2, 3)), 1, NULL), TERN_SHAPE(2, 2), TERN_F32, 2,
             4, 1, 3);
  CHECK_LIST(tern_sort(tern_zeros(TERN_SHAPE(2, 0), TERN_F32), 1, NULL), TERN_SHAPE(2, 0), TERN_F32, 0);
  CHECK_LIST(tern_argsort(tern_f32(TERN_SHAPE(1, 1), 4), 0, NULL), TERN_SHAPE(1, 1), TERN_I64, 0);
  CHECK_LIST(tern_sort(tern_constant(TERN_SHAPE(2), TERN_U64, (const uint64_t[]){UINT64_MAX, 1}, 2), 0, NULL),
             TERN_SHAPE(2), TERN_U64, 1, 18446744073709551615.0);
}

static void scan_case(tern_dtype d, int axis, int exclusive, int reverse) {
  TERN_SCOPE;
  uint64_t state = (uint64_t)d + 50;
  const tern_shape shape = TERN_SHAPE(3, 4, 2);
  const bool is_float = TERN_D_FLOAT >> d & 1;
  double v[24], sums[24], products[24];
  for (int i = 0; i < 24; i++)
    v[i] = d == TERN_BOOL ? (double)test_below(&state, 2)
                          : (double)(test_below(&state, 4) - (TERN_D_SINT >> d & 1 || is_float ? 1 : 0));
  int64_t i[TERN_MAX_RANK] = {0};
  do {
    double sum = 0, product = 1;
    for (int64_t k = 0; k < shape.dim[axis]; k++) {
      int64_t at[3] = {i[0], i[1], i[2]};
      if (reverse ? k < i[axis] + exclusive : k > i[axis] - exclusive) continue;
      at[axis] = k;
      sum += v[test_at(shape, at)];
      product *= v[test_at(shape, at)];
    }
    sums[test_at(shape, i)] = sum;
    products[test_at(shape, i)] = product;
  } while (test_step(shape, i));
  const tern_scan_opts opts = {.exclusive = exclusive, .reverse = reverse};
  const tern_dtype out = is_float ? d : TERN_D_UINT >> d & 1 ? TERN_U64 : TERN_I64;
  tern_tensor *x = test_tensor(shape, d, v);
  CHECK_VALUES(tern_cumsum(x, axis, &opts), shape, out, sums, 0, 0, "cumsum");
  CHECK_VALUES(tern_cumprod(x, axis - 3, &opts), shape, out, products, 0, 0, "cumprod");
}

static void test_scans(void) {
  for (int k = 0; k < N_DTYPES; k++)
    for (int turn = 0; turn < 12; turn++) scan_case(all_dtypes[k], turn % 3, turn / 3 & 1, turn / 6);
  TERN_SCOPE;
  CHECK_LIST(tern_cumsum(tern_transpose(tern_f32(TERN_SHAPE(2, 2), 1, 2, 3, 4)), 1, NULL), TERN_SHAPE(2, 2), TERN_F32,
             1, 4, 2, 6);
  CHECK_LIST(tern_cumsum(tern_zeros(TERN_SHAPE(0), TERN_F32), 0, NULL), TERN_SHAPE(0), TERN_F32, 0);
  CHECK_LIST(tern_cumsum(tern_f32(TERN_SHAPE(2, 1), 1, 2), 1, NULL), TERN_SHAPE(2, 1), TERN_F32, 1, 2);
  CHECK_LIST(tern_cumsum(tern_ones(TERN_SHAPE(3), TERN_F32), 0, &(tern_scan_opts){.exclusive = 1}), TERN_SHAPE(3),
             TERN_F32, 0, 1, 2);
}

static void test_casts(void) {
  TERN_SCOPE;
  const double v[] = {0, 1, 2, 100};
  for (int i = 0; i < N_DTYPES; i++)
    for (int k = 0; k < N_DTYPES; k++) {
      if (!test_chosen()) continue;
      TERN_SCOPE;
      double expected[4];
      for (int j = 0; j < 4; j++) expected[j] = test_rounded(test_rounded(v[j], all_dtypes[i]), all_dtypes[k]);
      CHECK_VALUES(tern_cast(test_tensor(TERN_SHAPE(4), all_dtypes[i], v), all_dtypes[k]), TERN_SHAPE(4), all_dtypes[k],
                   expected, 0, 0, "cast");
    }
  CHECK_LIST(tern_cast(tern_f32(TERN_SHAPE(6), -1.7, 1.7, 300, -300, NAN, INFINITY), TERN_I8), TERN_SHAPE(6), TERN_I8,
             -1, 1, 127, -128, 0, 127);
  CHECK_LIST(tern_cast(tern_f32(TERN_SHAPE(3), NAN, -0.0, 0.25), TERN_BOOL), TERN_SHAPE(3), TERN_BOOL, 1, 0, 1);
  for (size_t i = 0; i < sizeof floats / sizeof *floats; i++)
    CHECK_LIST(tern_round(tern_cast(tern_f32(TERN_SHAPE(4), 0.5, 1.5, -2.5, 7), floats[i])), TERN_SHAPE(4), floats[i],
               0, 2, -2, 7);
  CHECK_LIST(tern_floor(tern_i32(TERN_SHAPE(2), 3, -3)), TERN_SHAPE(2), TERN_I32, 3, -3);
}

static const test_case cases[] = {{"promotion and broadcasting", test_promotion},
                                  {"weak scalars", test_weak},
                                  {"strided operands", test_strided},
                                  {"where and clip", test_where_clip},
                                  {"casts", test_casts},
                                  {"reductions", test_reductions},
                                  {"reductions of views", test_reductions_of_views},
                                  {"reductions at the edges", test_reductions_edges},
                                  {"concat, stack, pad", test_join},
                                  {"take, one_hot", test_take},
                                  {"sort, argsort", test_sort},
                                  {"cumsum, cumprod", test_scans}};
TEST_MAIN("public ops", cases)
