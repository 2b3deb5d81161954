/* Random numbers on TERN_DEVICE: known answers of Philox4x32-10 (Random123's kat_vectors), ranges, moments, a
   Kolmogorov-Smirnov test, and the same bits on every device. All seeds are fixed: nothing here can fail by chance.
   */
#include "support/values.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Philox4x32-10 (Salmon et al. 2011) for one block, written from the paper. */
static void philox(uint64_t key, uint64_t counter, uint32_t stream, uint32_t out[4]) {
  uint32_t x[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), stream, 0}, k0 = (uint32_t)key,
           k1 = (uint32_t)(key >> 32);
  for (int round = 0; round < 10; round++) {
    const uint64_t p = (uint64_t)0xD2511F53u * x[0], q = (uint64_t)0xCD9E8D57u * x[2];
    const uint32_t y[4] = {(uint32_t)(q >> 32) ^ x[1] ^ k0, (uint32_t)q, (uint32_t)(p >> 32) ^ x[3] ^ k1, (uint32_t)p};
    memcpy(x, y, sizeof x);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  memcpy(out, x, sizeof x);
}

static void test_known(void) {
  TERN_SCOPE;
  uint32_t block[4];
  philox(0, 0, 0, block);
  CHECK(block[0] == 0x6627e8d5 && block[1] == 0xe169c58d && block[2] == 0xbc57ac4c && block[3] == 0x9b00dbd8,
        "Random123's answer for zeros");
  tern_set_seed(0); /* seed 0, first call: key 0, counter 0 */
  double *u = test_values(tern_random_uniform(TERN_SHAPE(10), NULL));
  for (int i = 0; u && i < 10; i++) {
    philox(0, (uint64_t)i / 4, 0, block);
    CHECK(u[i] == (block[i % 4] >> 8) * 0x1p-24, "uniform %d of seed 0 is %.9g", i, u[i]);
  }
  free(u);
  /* the second call goes on three blocks later */
  u = test_values(tern_random_uniform(TERN_SHAPE(2, 3), NULL));
  for (int i = 0; u && i < 6; i++) {
    philox(0, 3 + (uint64_t)i / 4, 0, block);
    CHECK(u[i] == (block[i % 4] >> 8) * 0x1p-24, "uniform %d of the second call is %.9g", i, u[i]);
  }
  free(u);
  const uint64_t seed = UINT64_C(0x123456789abcdef0);
  u = test_values(tern_random_uniform(TERN_SHAPE(5), &(tern_random_opts){.seed = seed}));
  for (int i = 0; u && i < 5; i++) {
    philox(seed, (uint64_t)i / 4, 0, block);
    CHECK(u[i] == (block[i % 4] >> 8) * 0x1p-24, "uniform %d of an own seed is %.9g", i, u[i]);
  }
  free(u);
  CHECK_NO_ERROR();
}

static void test_seeds(void) {
  TERN_SCOPE;
  tern_set_seed(42);
  tern_tensor *a = tern_random_normal(TERN_SHAPE(100), NULL), *b = tern_random_normal(TERN_SHAPE(100), NULL);
  tern_set_seed(42);
  tern_tensor *c = tern_random_normal(TERN_SHAPE(100), NULL), *d = tern_random_normal(TERN_SHAPE(100), NULL);
  CHECK(tern_equal_all(a, c) == 1 && tern_equal_all(b, d) == 1,
        "the same seed gives the same numbers in the same order");
  CHECK(tern_equal_all(a, b) == 0, "the second call draws other numbers");
  tern_set_seed(43);
  CHECK(tern_equal_all(a, tern_random_normal(TERN_SHAPE(100), NULL)) == 0, "another seed draws other numbers");
  /* a call with its own seed leaves the process's generator alone, and repeats itself */
  tern_set_seed(42);
  tern_tensor *own = tern_random_uniform(TERN_SHAPE(9), &(tern_random_opts){.seed = 5});
  CHECK(tern_equal_all(a, tern_random_normal(TERN_SHAPE(100), NULL)) == 1,
        "a call with its own seed moved the process's generator");
  CHECK(tern_equal_all(own, tern_random_uniform(TERN_SHAPE(9), &(tern_random_opts){.seed = 5})) == 1,
        "an own seed repeats");
  /* the shape does not matter, only the count */
  tern_set_seed(42);
  CHECK(tern_equal_all(a, tern_flatten(tern_random_normal(TERN_SHAPE(4, 25), NULL))) == 1,
        "numbers do not depend on the shape");
  CHECK_NO_ERROR();
}

/* Mean and variance within six standard errors of those of the distribution, all values in [low, high]. */
static void moments(tern_tensor *t, double mean, double variance, double fourth, double low, double high,
                    const char *what) {
  const int64_t n = tern_size(t);
  double *v = test_values(t), sum = 0, squares = 0;
  if (!CHECK(v != NULL, "%s: %s", what, tern_error())) return;
  int64_t outside = 0;
  for (int64_t i = 0; i < n; i++) {
    sum += v[i];
    outside += !(v[i] >= low && v[i] <= high);
  }
  for (int64_t i = 0; i < n; i++) squares += (v[i] - mean) * (v[i] - mean);
  const double count = (double)n;
  CHECK(outside == 0, "%s: %lld values outside [%g, %g]", what, (long long)outside, low, high);
  CHECK(fabs(sum / count - mean) <= 6 * sqrt(variance / count), "%s: mean %.6g, expected %.6g", what, sum / count,
        mean);
  CHECK(fabs(squares / count - variance) <= 6 * sqrt((fourth - variance * variance) / count),
        "%s: variance %.6g, expected %.6g", what, squares / count, variance);
  free(v);
}

static double uniform_cdf(double x) { return x < 0 ? 0 : x > 1 ? 1 : x; }
static double normal_cdf(double x) { return 0.5 * erfc(-x / sqrt(2)); }

/* Kolmogorov and Smirnov: sqrt(n) times the largest distance of the distribution functions is below 1.95 but once in
   1000. */
static void kolmogorov(tern_tensor *t, double (*cdf)(double), const char *what) {
  const int64_t n = tern_size(t);
  double *v = test_values(t), largest = 0;
  if (!CHECK(v != NULL, "%s: %s", what, tern_error())) return;
  qsort(v, (size_t)n, sizeof *v, ascending);
  for (int64_t i = 0; i < n; i++) {
    const double f = cdf(v[i]);
    largest = fmax(largest, fmax(f - (double)i / (double)n, (double)(i + 1) / (double)n - f));
  }
  CHECK(largest * sqrt((double)n) < 1.95, "%s: Kolmogorov-Smirnov distance %.4g of %lld", what,
        largest * sqrt((double)n), (long long)n);
  free(v);
}

static void test_uniforms(void) {
  static const tern_dtype floats[] = {TERN_F32, TERN_F64, TERN_F16, TERN_BF16};
  for (int k = 0; k < 4; k++) {
    TERN_SCOPE;
    tern_tensor *u = tern_random_uniform(TERN_SHAPE(100, 400), &(tern_random_opts){.seed = 3, .dtype = floats[k]});
    const double step = floats[k] == TERN_F16 ? 0x1p-11 : floats[k] == TERN_BF16 ? 0x1p-8 : 0;
    moments(u, 0.5 - step / 2, 1.0 / 12, 1.0 / 80, 0, nextafter(1, 0), "uniform in [0, 1)");
    if (!step) kolmogorov(u, uniform_cdf, "uniform");
    u = tern_random_uniform(TERN_SHAPE(40000),
                            &(tern_random_opts){.seed = 4, .dtype = floats[k], .low = -3, .high = 5});
    moments(u, 1 - 4 * step, 64.0 / 12, 4096.0 / 80, -3, nextafter(5, 0), "uniform in [-3, 5)");
  }
  TERN_SCOPE; /* a range so narrow that rounding could reach its end */
  for (int k = 0; k < 4; k++) {
    TERN_SCOPE;
    const double high = floats[k] == TERN_F64   ? 1 + 0x1p-50
                        : floats[k] == TERN_F32 ? 1 + 0x1p-21
                        : floats[k] == TERN_F16 ? 1 + 0x1p-8
                                                : 1 + 0x1p-5;
    double *v = test_values(tern_random_uniform(
        TERN_SHAPE(20000), &(tern_random_opts){.seed = 8, .dtype = floats[k], .low = 1, .high = high}));
    bool inside = v != NULL;
    for (int i = 0; inside && i < 20000; i++) inside = v[i] >= 1 && v[i] < high;
    CHECK(inside, "%s uniform in [1, %.17g) reached its end", tern_dtype_name(floats[k]), high);
    free(v);
  }
  double *v =
      test_values(tern_random_uniform(TERN_SHAPE(3), &(tern_random_opts){.seed = 8, .low = -1, .high = TERN_ZERO}));
  for (int i = 0; v && i < 3; i++) CHECK(v[i] >= -1 && v[i] < 0, "uniform in [-1, 0): %g", v[i]);
  free(v);
  CHECK(tern_size(tern_random_uniform(TERN_SHAPE(0, 3), NULL)) == 0, "no numbers");
  CHECK_NO_ERROR();
}

static void test_normals(void) {
  TERN_SCOPE;
  tern_set_seed(1);
  tern_tensor *z = tern_random_normal(TERN_SHAPE(50000), NULL);
  moments(z, 0, 1, 3, -7, 7, "normal");
  kolmogorov(z, normal_cdf, "normal");
  tern_tensor *wide = tern_random_normal(TERN_SHAPE(50000), &(tern_random_opts){.dtype = TERN_F64});
  moments(wide, 0, 1, 3, -9, 9, "normal, float64");
  kolmogorov(wide, normal_cdf, "normal, float64");
  moments(tern_random_normal(TERN_SHAPE(50000), &(tern_random_opts){.mean = 10, .stddev = 0.5}), 10, 0.25, 3 * 0.0625,
          5, 15, "normal of 10 and 0.5");
  moments(tern_random_normal(TERN_SHAPE(50000), &(tern_random_opts){.dtype = TERN_F16}), 0, 1, 3, -7, 7,
          "normal, float16");
  CHECK_LIST(tern_random_normal(TERN_SHAPE(3), &(tern_random_opts){.mean = 2, .stddev = TERN_ZERO}), TERN_SHAPE(3),
             TERN_F32, 2, 2, 2);
  /* neighbours do not depend on each other */
  double *v = test_values(z), sum = 0;
  for (int i = 0; v && i + 1 < 50000; i++) sum += v[i] * v[i + 1];
  CHECK(fabs(sum) / 50000 < 6 / sqrt(50000), "correlation of neighbours is %g", sum / 50000);
  free(v);
  CHECK_NO_ERROR();
}

static void test_integers(void) {
  TERN_SCOPE;
  tern_set_seed(2);
  enum { N = 60000 };
  double *v = test_values(tern_random_integers(TERN_SHAPE(N), -2, 4, NULL));
  int count[6] = {0}, outside = 0;
  for (int i = 0; v && i < N; i++) {
    if (v[i] < -2 || v[i] > 3)
      outside++;
    else
      count[(int)v[i] + 2]++;
  }
  double chi = 0;
  for (int i = 0; i < 6; i++) chi += (count[i] - N / 6.0) * (count[i] - N / 6.0) / (N / 6.0);
  CHECK(!outside && chi < 25, "integers in [-2, 4): %d outside, chi squared %.3g of 5 degrees", outside, chi);
  free(v);
  static const tern_dtype ints[] = {TERN_I8, TERN_I16, TERN_I32, TERN_I64, TERN_U8, TERN_U16, TERN_U32, TERN_U64};
  for (int k = 0; k < 8; k++) {
    TERN_SCOPE;
    tern_tensor *t = tern_random_integers(TERN_SHAPE(20000), 3, 120, &(tern_random_opts){.dtype = ints[k], .seed = 77});
    CHECK(tern_dtype_get(t) == ints[k], "integers of %s are %s", tern_dtype_name(ints[k]),
          tern_dtype_name(tern_dtype_get(t)));
    moments(t, 61, (117.0 * 117 - 1) / 12, 117.0 * 117 * 117 * 117 / 80, 3, 119, "integers in [3, 120)");
  }
  /* ranges of more than 32 bits, and the whole int64 */
  const double huge = 0x1p62;
  moments(tern_random_integers(TERN_SHAPE(20000), 0, INT64_C(1) << 62, NULL), huge / 2, huge * huge / 12,
          huge * huge * huge * huge / 80, 0, huge, "integers below 2^62");
  moments(tern_random_integers(TERN_SHAPE(20000), INT64_MIN, INT64_MAX, NULL), 0, 0x1p128 / 12, 0x1p256 / 80, -0x1p63,
          0x1p63, "all int64");
  CHECK_LIST(tern_random_integers(TERN_SHAPE(2), 5, 6, NULL), TERN_SHAPE(2), TERN_I64, 5, 5);
  CHECK_NO_ERROR();
}

static void test_bernoulli(void) {
  TERN_SCOPE;
  tern_set_seed(6);
  tern_tensor *t = tern_random_bernoulli(TERN_SHAPE(40000), 0.3, NULL);
  CHECK(tern_dtype_get(t) == TERN_BOOL, "bernoulli gives %s", tern_dtype_name(tern_dtype_get(t)));
  const double p = 0.3, v = p * (1 - p);
  moments(t, p, v, v * (1 - 3 * v), 0, 1, "bernoulli 0.3");
  moments(tern_random_bernoulli(TERN_SHAPE(40000), 0.3, &(tern_random_opts){.dtype = TERN_F32}), p, v, v * (1 - 3 * v),
          0, 1, "bernoulli 0.3 as float32");
  CHECK(tern_item_int(tern_any(tern_random_bernoulli(TERN_SHAPE(5000), 0, NULL), NULL)) == 0, "bernoulli 0");
  CHECK(tern_item_int(tern_all(tern_random_bernoulli(TERN_SHAPE(5000), 1, NULL), NULL)) == 1, "bernoulli 1");
  CHECK_NO_ERROR();
}

static void test_permutations(void) {
  TERN_SCOPE;
  tern_set_seed(9);
  static const int64_t sizes[] = {0, 1, 2, 7, 1000, 30000};
  for (int k = 0; k < 6; k++) {
    TERN_SCOPE;
    const int64_t n = sizes[k];
    tern_tensor *t = tern_random_permutation(n, NULL);
    double *v = test_values(t), moved = 0;
    CHECK(v && tern_rank(t) == 1 && tern_size(t) == n && tern_dtype_get(t) == TERN_I64, "permutation of %lld: %s",
          (long long)n, tern_error());
    for (int64_t i = 0; v && i < n; i++) moved += v[i] != (double)i;
    if (v) qsort(v, (size_t)n, sizeof *v, ascending);
    bool whole = v != NULL;
    for (int64_t i = 0; whole && i < n; i++) whole = v[i] == (double)i;
    CHECK(whole, "the permutation of %lld is not one", (long long)n);
    CHECK(n < 1000 || moved > (double)n * 0.99, "the permutation of %lld moved only %g", (long long)n, moved);
    free(v);
  }
  /* where the first of five goes: every place about equally often */
  int count[5] = {0};
  for (int i = 0; i < 2000; i++) {
    TERN_SCOPE;
    count[tern_item_int(tern_index(tern_random_permutation(5, NULL), 0, 0)) % 5]++;
  }
  for (int i = 0; i < 5; i++) CHECK(abs(count[i] - 400) < 120, "first of five is %d in %d of 2000", i, count[i]);
  CHECK_NO_ERROR();
}

/* The same calls on cpu and on the default device. */
static void same_on_both(const char *what, tern_tensor *(*make)(void), double ulps) {
  TERN_SCOPE;
  tern_tensor *here, *there;
  tern_set_seed(1234);
  here = make();
  {
    tern_with_device("cpu");
    tern_set_seed(1234);
    there = make();
  }
  double *expected = test_values(there);
  if (CHECK(expected != NULL, "%s: %s", what, tern_error()))
    CHECK_VALUES(here, tern_shape_get(there), tern_dtype_get(there), expected, ulps, 0, what);
  free(expected);
}

static tern_tensor *uniform32(void) { return tern_random_uniform(TERN_SHAPE(3, 1001), NULL); }
static tern_tensor *uniform64(void) {
  return tern_random_uniform(TERN_SHAPE(1001), &(tern_random_opts){.dtype = TERN_F64});
}
static tern_tensor *uniform16(void) {
  return tern_random_uniform(TERN_SHAPE(1001), &(tern_random_opts){.dtype = TERN_F16, .low = -2, .high = 7});
}
static tern_tensor *normal32(void) { return tern_random_normal(TERN_SHAPE(5001), NULL); }
static tern_tensor *integers(void) { return tern_random_integers(TERN_SHAPE(1001), -1000000, 1000000, NULL); }
static tern_tensor *wide_integers(void) {
  return tern_random_integers(TERN_SHAPE(1001), INT64_MIN / 2, INT64_MAX / 2, NULL);
}
static tern_tensor *coins(void) { return tern_random_bernoulli(TERN_SHAPE(1001), 0.37, NULL); }
static tern_tensor *order(void) { return tern_random_permutation(1001, NULL); }

static void test_devices(void) {
  if (!strncmp(tern_default_device(), "cpu", 3)) printf("(on cpu: compares it with itself) ");
  same_on_both("uniform", uniform32, 0);
  same_on_both("uniform, float64", uniform64, 0);
  same_on_both("uniform, float16", uniform16, 0);
  same_on_both("normal", normal32, 4);
  same_on_both("integers", integers, 0);
  same_on_both("wide integers", wide_integers, 0);
  same_on_both("bernoulli", coins, 0);
  same_on_both("permutation", order, 0);
}

static const test_case cases[] = {{"known answers", test_known},       {"seeds and order", test_seeds},
                                  {"uniform", test_uniforms},          {"normal", test_normals},
                                  {"integers", test_integers},         {"bernoulli", test_bernoulli},
                                  {"permutations", test_permutations}, {"the same on cpu", test_devices}};
TEST_MAIN("random", cases)
