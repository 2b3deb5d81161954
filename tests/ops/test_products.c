/* Matrix products on TERN_DEVICE against plain loops in double: every rank and dtype, views, sizes at which libraries
   take over. */
#include "support/values.h"
#include <stdlib.h>
#include <string.h>

/* A tensor of small whole numbers (every sum of products is exact in every dtype but the 16-bit ones, kept below 2^8
   there). */
static tern_tensor *whole(uint64_t *state, tern_shape shape, tern_dtype dtype, double **values) {
  const int64_t n = test_numel(shape);
  *values = malloc((size_t)n * sizeof **values + 1);
  for (int64_t i = 0; i < n; i++)
    (*values)[i] = (double)test_below(state, 5) - (TERN_D_SINT >> dtype & 1 || TERN_D_FLOAT >> dtype & 1 ? 2 : 0);
  return test_tensor(shape, dtype, *values);
}

/* a [.., M, K] x b [.., K, N] by loops; 1-D operands as numpy.matmul. */
static void matmul_case(tern_shape sa, tern_shape sb, tern_dtype dtype) {
  TERN_SCOPE;
  uint64_t state = 3;
  double *a, *b;
  tern_tensor *x = whole(&state, sa, dtype, &a), *y = whole(&state, sb, dtype, &b);
  const bool row = sa.rank == 1, column = sb.rank == 1;
  tern_shape ea = sa, eb = sb;
  if (row) ea = TERN_SHAPE(1, sa.dim[0]);
  if (column) eb = TERN_SHAPE(sb.dim[0], 1);
  const int nb = (ea.rank > eb.rank ? ea.rank : eb.rank) - 2;
  const int64_t m = ea.dim[ea.rank - 2], k = ea.dim[ea.rank - 1], n = eb.dim[eb.rank - 1];
  tern_shape full = {.rank = nb + 2}, out = {.rank = 0};
  for (int d = 0; d < nb; d++) {
    const int da = d - (nb + 2 - ea.rank), db = d - (nb + 2 - eb.rank);
    const int64_t p = da < 0 ? 1 : ea.dim[da], q = db < 0 ? 1 : eb.dim[db];
    full.dim[d] = p == 1 ? q : p;
    out.dim[out.rank++] = full.dim[d];
  }
  full.dim[nb] = m;
  full.dim[nb + 1] = n;
  if (!row) out.dim[out.rank++] = m;
  if (!column) out.dim[out.rank++] = n;
  double *expected = calloc((size_t)test_numel(full) + 1, sizeof *expected);
  int64_t i[TERN_MAX_RANK] = {0};
  if (test_numel(full)) do {
      int64_t pa = 0, pb = 0;
      for (int d = 0; d < ea.rank - 2; d++) pa = pa * ea.dim[d] + (ea.dim[d] == 1 ? 0 : i[d + nb + 2 - ea.rank]);
      for (int d = 0; d < eb.rank - 2; d++) pb = pb * eb.dim[d] + (eb.dim[d] == 1 ? 0 : i[d + nb + 2 - eb.rank]);
      double sum = 0;
      for (int64_t j = 0; j < k; j++) sum += a[(pa * m + i[nb]) * k + j] * b[(pb * k + j) * n + i[nb + 1]];
      expected[test_at(full, i)] = sum;
    } while (test_step(full, i));
  char what[120];
  snprintf(what, sizeof what, "matmul of ranks %d and %d, %lld x %lld x %lld", sa.rank, sb.rank, (long long)m,
           (long long)k, (long long)n);
  for (int again = 0; again < 2; again++) CHECK_VALUES(tern_matmul(x, y), out, dtype, expected, 0, 0, what);
  if (dtype == TERN_I8 || dtype == TERN_U8) CHECK_VALUES(tern_matmul_int32(x, y), out, TERN_I32, expected, 0, 0, what);
  free(a);
  free(b);
  free(expected);
}

/* Sums far beyond 8 bits; vectors, nothing to sum, and what is refused */
static void test_matmul_int32(void) {
  TERN_SCOPE;
  tern_tensor *a = tern_full(TERN_SHAPE(3, 200), TERN_I8, 127), *b = tern_full(TERN_SHAPE(200, 2), TERN_I8, -128);
  CHECK_LIST(tern_matmul_int32(a, b), TERN_SHAPE(3, 2), TERN_I32, -3251200, -3251200, -3251200, -3251200, -3251200,
             -3251200);
  tern_tensor *u = tern_full(TERN_SHAPE(1000), TERN_U8, 255);
  CHECK_LIST(tern_matmul_int32(u, u), TERN_SHAPE(), TERN_I32, 65025000);
  CHECK_LIST(tern_matmul_int32(tern_zeros(TERN_SHAPE(1, 0), TERN_I8), tern_zeros(TERN_SHAPE(0, 2), TERN_I8)),
             TERN_SHAPE(1, 2), TERN_I32, 0, 0);
  CHECK(!tern_matmul_int32(a, u), "int8 by uint8");
  CHECK_ERROR(TERN_E_ARG, "matmul_int32: int8 and uint8");
  CHECK(!tern_matmul_int32(tern_ones(TERN_SHAPE(2, 2), TERN_F32), tern_ones(TERN_SHAPE(2, 2), TERN_F32)), "float32");
  CHECK_ERROR(TERN_E_ARG, "matmul_int32: float32");
  CHECK(!tern_matmul_int32(tern_cast(tern_scalar(3), TERN_I8), a), "a scalar");
  CHECK_ERROR(TERN_E_ARG, "scalar");
  CHECK_NO_ERROR();
}

static void test_matmul(void) {
  const tern_dtype some[] = {TERN_F32, TERN_F64, TERN_F16, TERN_BF16, TERN_I32, TERN_I64, TERN_I8, TERN_U8};
  for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
    const tern_dtype d = some[i];
    matmul_case(TERN_SHAPE(2, 3), TERN_SHAPE(3, 4), d);
    matmul_case(TERN_SHAPE(3), TERN_SHAPE(3), d);
    matmul_case(TERN_SHAPE(3), TERN_SHAPE(3, 4), d);
    matmul_case(TERN_SHAPE(2, 3), TERN_SHAPE(3), d);
    matmul_case(TERN_SHAPE(5, 2, 3), TERN_SHAPE(5, 3, 4), d);
    matmul_case(TERN_SHAPE(5, 2, 3), TERN_SHAPE(3, 4), d);
    matmul_case(TERN_SHAPE(2, 3), TERN_SHAPE(5, 3, 4), d);
    matmul_case(TERN_SHAPE(4, 1, 2, 3), TERN_SHAPE(5, 3, 2), d);
    matmul_case(TERN_SHAPE(4, 1, 2, 3), TERN_SHAPE(1, 5, 3, 2), d);
    matmul_case(TERN_SHAPE(3), TERN_SHAPE(2, 3, 4), d);
    matmul_case(TERN_SHAPE(2, 4, 3), TERN_SHAPE(3), d);
    matmul_case(TERN_SHAPE(1, 1), TERN_SHAPE(1, 1), d);
    matmul_case(TERN_SHAPE(17, 1), TERN_SHAPE(1, 9), d);
  }
  matmul_case(TERN_SHAPE(65, 130), TERN_SHAPE(130, 33), TERN_F32);
  matmul_case(TERN_SHAPE(1, 300), TERN_SHAPE(300, 1), TERN_F32);
  matmul_case(TERN_SHAPE(0, 3), TERN_SHAPE(3, 4), TERN_F32);
  matmul_case(TERN_SHAPE(2, 0), TERN_SHAPE(0, 4), TERN_F32);
  matmul_case(TERN_SHAPE(3, 2, 0), TERN_SHAPE(3, 0, 4), TERN_F32);
  matmul_case(TERN_SHAPE(0), TERN_SHAPE(0), TERN_I32);
  matmul_case(TERN_SHAPE(2, 1, 2, 1, 2, 1, 2, 3), TERN_SHAPE(1, 2, 1, 2, 1, 2, 3, 2), TERN_F32);
}

static void test_matmul_views(void) {
  TERN_SCOPE;
  uint64_t state = 11;
  for (int turn = 0; turn < 8; turn++) {
    TERN_SCOPE;
    double *a, *b, expected[4 * 6];
    tern_tensor *x = whole(&state, turn & 1 ? TERN_SHAPE(5, 4) : TERN_SHAPE(4, 5), TERN_F32, &a);
    tern_tensor *y = whole(&state, turn & 2 ? TERN_SHAPE(6, 5) : TERN_SHAPE(5, 6), TERN_F32, &b);
    if (turn & 1) x = tern_transpose(x);
    if (turn & 2) y = tern_transpose(y);
    const tern_range flip[] = {TERN_ALL, TERN_RANGE(TERN_OPEN, TERN_OPEN, -1)};
    if (turn & 4) x = tern_slice(x, flip, 2);
    for (int i = 0; i < 4; i++)
      for (int j = 0; j < 6; j++) {
        double sum = 0;
        for (int k = 0; k < 5; k++) {
          const int from = turn & 4 ? 4 - k : k;
          sum += (turn & 1 ? a[from * 4 + i] : a[i * 5 + from]) * (turn & 2 ? b[j * 5 + k] : b[k * 6 + j]);
        }
        expected[i * 6 + j] = sum;
      }
    CHECK_VALUES(tern_matmul(x, y), TERN_SHAPE(4, 6), TERN_F32, expected, 0, 0,
                 "matmul of transposed and reversed views");
    free(a);
    free(b);
  }
  CHECK_LIST(tern_matmul(tern_i32(TERN_SHAPE(1, 2), 1, 2), tern_f32(TERN_SHAPE(2, 1), 0.5, 1)), TERN_SHAPE(1, 1),
             TERN_F32, 2.5);
  CHECK_LIST(tern_matmul(tern_u8(TERN_SHAPE(1, 2), 1, 2), tern_i32(TERN_SHAPE(2, 1), -1, 1)), TERN_SHAPE(1, 1),
             TERN_I32, 1);
}

/* numpy.dot: over the last axis of a and the last but one of b */
static void dot_case(tern_shape sa, tern_shape sb) {
  TERN_SCOPE;
  uint64_t state = 5;
  double *a, *b;
  tern_tensor *x = whole(&state, sa, TERN_F32, &a), *y = whole(&state, sb, TERN_F32, &b);
  tern_shape out = {.rank = 0}, left = sa, right = sb;
  const int at = sb.rank < 2 ? 0 : sb.rank - 2;
  const int64_t k = sa.dim[sa.rank - 1];
  for (int d = 0; d < sa.rank - 1; d++) out.dim[out.rank++] = sa.dim[d];
  for (int d = 0; d < sb.rank; d++)
    if (d != at) out.dim[out.rank++] = sb.dim[d];
  double *expected = calloc((size_t)test_numel(out) + 1, sizeof *expected);
  int64_t i[TERN_MAX_RANK + 1] = {0};
  if (test_numel(out)) do {
      double sum = 0;
      for (int64_t j = 0; j < k; j++) {
        int64_t ia[TERN_MAX_RANK], ib[TERN_MAX_RANK];
        for (int d = 0; d < sa.rank - 1; d++) ia[d] = i[d];
        ia[sa.rank - 1] = j;
        for (int d = 0, from = sa.rank - 1; d < sb.rank; d++) ib[d] = d == at ? j : i[from++];
        sum += a[test_at(left, ia)] * b[test_at(right, ib)];
      }
      expected[test_at(out, i)] = sum;
    } while (test_step(out, i));
  CHECK_VALUES(tern_dot(x, y), out, TERN_F32, expected, 0, 0, "dot");
  free(a);
  free(b);
  free(expected);
}

static void test_dot(void) {
  dot_case(TERN_SHAPE(4), TERN_SHAPE(4));
  dot_case(TERN_SHAPE(2, 4), TERN_SHAPE(4));
  dot_case(TERN_SHAPE(4), TERN_SHAPE(4, 3));
  dot_case(TERN_SHAPE(2, 4), TERN_SHAPE(4, 3));
  dot_case(TERN_SHAPE(5, 2, 4), TERN_SHAPE(4, 3));
  dot_case(TERN_SHAPE(5, 2, 4), TERN_SHAPE(4));
  dot_case(TERN_SHAPE(4), TERN_SHAPE(2, 4, 3));
  dot_case(TERN_SHAPE(3, 4), TERN_SHAPE(2, 4, 3));
  dot_case(TERN_SHAPE(5, 3, 4), TERN_SHAPE(2, 4, 3));
  dot_case(TERN_SHAPE(2, 3, 4), TERN_SHAPE(2, 1, 4, 3));
  dot_case(TERN_SHAPE(2, 0), TERN_SHAPE(3, 0, 2));
  dot_case(TERN_SHAPE(2, 3), TERN_SHAPE(0, 3, 2));
  dot_case(TERN_SHAPE(2, 3), TERN_SHAPE(2, 3, 0));
  TERN_SCOPE;
  CHECK_LIST(tern_dot(tern_scalar(2), tern_f32(TERN_SHAPE(2), 1, 2)), TERN_SHAPE(2), TERN_F32, 2, 4);
  CHECK_LIST(tern_dot(tern_f32(TERN_SHAPE(2), 1, 2), tern_f32(TERN_SHAPE(), 3)), TERN_SHAPE(2), TERN_F32, 3, 6);
}

/* Sizes at which libraries take over, beside the same product in float64. */
static void large_product(tern_tensor *a, tern_tensor *b, const char *what) {
  TERN_SCOPE;
  tern_tensor *exact = tern_matmul(tern_cast(a, TERN_F64), tern_cast(b, TERN_F64));
  tern_tensor *far = tern_max(tern_abs(tern_sub(tern_cast(tern_matmul(a, b), TERN_F64), exact)), NULL);
  const double miss = tern_item(far), limit = 1e-5 * (double)tern_dim(a, -1);
  CHECK(miss < limit, "%s: %g from the float64 product, %g allowed", what, miss, limit);
  CHECK_NO_ERROR();
}

static void test_large_products(void) {
  TERN_SCOPE;
  tern_tensor *a = tern_random_uniform(TERN_SHAPE(300, 270), &(tern_random_opts){.seed = 1, .low = -1, .high = 1});
  tern_tensor *b = tern_random_uniform(TERN_SHAPE(270, 310), &(tern_random_opts){.seed = 2, .low = -1, .high = 1});
  large_product(a, b, "plain");
  large_product(tern_transpose(b), tern_transpose(a), "both transposed");
  large_product(tern_transpose(tern_contiguous(tern_transpose(a))), b, "a transposed");
  large_product(a, tern_transpose(tern_contiguous(tern_transpose(b))), "b transposed");
  tern_tensor *const two[] = {a, a};
  large_product(tern_stack(two, 2, 0), b, "a batch with one b");
  large_product(tern_slice(a, (const tern_range[]){TERN_RANGE(0, 299, 1), TERN_RANGE(3, 263, 1)}, 2),
                tern_slice(b, (const tern_range[]){TERN_RANGE(5, 265, 1)}, 1), "slices");
}

static const test_case cases[] = {{"large products", test_large_products},
                                  {"matmul", test_matmul},
                                  {"matmul_int32", test_matmul_int32},
                                  {"matmul of views", test_matmul_views},
                                  {"dot", test_dot}};
TEST_MAIN("products", cases)
