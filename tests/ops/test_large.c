/* What devices do otherwise from some size on, or for many elements at once: division by one number, which a device may
   do without its divider; maps that bypass the cache, with results that begin anywhere; sums in blocks. Against C's own
   arithmetic. */
#include "support/values.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint32_t hash(uint32_t i) {
  i *= 0x9E3779B1u;
  i ^= i >> 15;
  i *= 0x85EBCA77u;
  return i ^ i >> 13;
}

static float from_bits(uint32_t u) {
  float f;
  memcpy(&f, &u, sizeof f);
  return f;
}

/* Steps between two floats in their order; 0 for two NaN */
static int64_t steps(float a, float b) {
  int32_t x, y;
  if (isnan(a) || isnan(b)) return isnan(a) && isnan(b) ? 0 : INT64_MAX;
  memcpy(&x, &a, sizeof x);
  memcpy(&y, &b, sizeof y);
  const int64_t i = x < 0 ? (int64_t)INT32_MIN - x : x, j = y < 0 ? (int64_t)INT32_MIN - y : y;
  return i < j ? j - i : i - j;
}

/* Divisors of every kind; numbers of all magnitudes, and of moderate ones only, which take the short way. Subnormals
   may be flushed by a device that has none. */
static void test_division(void) {
  enum { N = 4096 + 5 };
  static const float by[] = {3, 7.25f, -1.1f, 0x1.fffffep59f, 0x1p60f, 0x1.000002p-60f, 1e-38f, 0x1.fffffep127f};
  float *x = malloc(2 * N * sizeof *x), got[N];
  CHECK(x, "no memory");
  if (!x) return;
  for (uint32_t i = 0; i < N; i++) {
    x[i] = from_bits(hash(i));
    x[N + i] = from_bits((hash(i) & 0x807fffffu) | (uint32_t)(67 + hash(i + N) % 120) << 23);
  }
  const int64_t most = strstr(tern_default_device(), "rusticl") ? 3 : 0; /* not correctly rounded; allowed are 2.5 */
  for (size_t d = 0; d < sizeof by / sizeof *by; d++)
    for (int half = 0; half < 2; half++) {
      TERN_SCOPE;
      const tern_tensor *a = tern_from_host(TERN_SHAPE(N), TERN_F32, x + half * N, NULL, NULL);
      tern_tensor *y = tern_div((tern_tensor *)(uintptr_t)a, tern_f32(TERN_SHAPE(1), by[d]));
      CHECK(!tern_to_host(y, got, sizeof got), "%s", tern_error());
      int wrong = 0;
      for (int i = 0; i < N; i++) {
        const float p = x[half * N + i], want = p / by[d];
        const bool tiny = fabsf(want) < 0x1p-126f || fabsf(p) < 0x1p-126f || fabsf(by[d]) < 0x1p-126f;
        wrong += steps(got[i], want) > most && !(tiny && fabsf(got[i]) < 0x1p-125f);
      }
      CHECK(!wrong, "%d of %d quotients by %a are wrong", wrong, N, (double)by[d]);
    }
  free(x);
  CHECK_NO_ERROR();
}

/* 48 MiB and more altogether; the result of the second is a slice, whose rows begin anywhere */
static void test_bypass(void) {
  enum { N = (4 << 20) + 37 };
  TERN_SCOPE;
  tern_tensor *i = tern_arange(0, N, 1, TERN_F32), *three = tern_full(TERN_SHAPE(N), TERN_F32, 3);
  tern_tensor *y = tern_add(i, three),
              *z = tern_mul(tern_slice(y, &TERN_RANGE(5, N, 1), 1), tern_slice(three, &TERN_RANGE(5, N, 1), 1));
  float *got = malloc(2 * (size_t)N * sizeof *got);
  CHECK(got, "no memory");
  if (!got) return;
  CHECK(!tern_to_host(y, got, N * sizeof *got) && !tern_to_host(z, got + N, (N - 5) * sizeof *got), "%s", tern_error());
  int wrong = 0;
  for (int j = 0; j < N; j++) wrong += got[j] != (float)j + 3.0f;
  for (int j = 0; j < N - 5; j++) wrong += got[N + j] != ((float)(j + 5) + 3.0f) * 3.0f;
  CHECK(!wrong, "%d elements are wrong", wrong);
  free(got);
  CHECK_NO_ERROR();
}

/* Sums, largest and smallest of rows of every length up to some blocks, with what is left over; a NaN anywhere stays */
static void test_rows(void) {
  static const int64_t lengths[] = {1, 15, 16, 17, 31, 32, 33, 48, 255, 256, 257, 511, 512, 513, 544, 1000, 2100};
  for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++) {
    const int64_t n = lengths[l];
    float x[3][2100], sum[3], most[3], least[3];
    for (int r = 0; r < 3; r++)
      for (int64_t j = 0; j < n; j++) x[r][j] = (float)(int32_t)hash((uint32_t)(r * 7919 + j)) * 0x1p-31f;
    TERN_SCOPE;
    float *flat = malloc(3 * (size_t)n * sizeof *flat);
    CHECK(flat, "no memory");
    if (!flat) return;
    x[1][n / 2] = NAN;
    for (int r = 0; r < 3; r++) memcpy(flat + r * n, x[r], (size_t)n * sizeof *flat);
    tern_tensor *t = tern_from_host(TERN_SHAPE(3, n), TERN_F32, flat, NULL, NULL);
    CHECK(!tern_to_host(tern_sum(t, TERN_AXES(1)), sum, sizeof sum) &&
              !tern_to_host(tern_max(t, TERN_AXES(1)), most, sizeof most) &&
              !tern_to_host(tern_min(t, TERN_AXES(1)), least, sizeof least),
          "%s", tern_error());
    CHECK(isnan(sum[1]) && isnan(most[1]) && isnan(least[1]), "a NaN in a row of %lld is lost", (long long)n);
    for (int r = 0; r < 3; r += 2) {
      double s = 0;
      float hi = x[r][0], lo = x[r][0];
      for (int64_t j = 0; j < n; j++) {
        s += x[r][j];
        hi = fmaxf(hi, x[r][j]);
        lo = fminf(lo, x[r][j]);
      }
      CHECK(most[r] == hi && least[r] == lo, "extremes of a row of %lld: %g %g", (long long)n, (double)most[r],
            (double)least[r]);
      CHECK(fabs(sum[r] - s) <= 1e-5 * (1 + sqrt((double)n)), "the sum of a row of %lld: %g instead of %g",
            (long long)n, (double)sum[r], s);
    }
    free(flat);
  }
  CHECK_NO_ERROR();
}

static const test_case cases[] = {{"division", test_division}, {"bypass", test_bypass}, {"rows", test_rows}};
TEST_MAIN("large", cases)
