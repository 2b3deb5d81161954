/* Float64 functions: SLEEF's where this instruction set has FMA, else the C library's; erfinv by Newton's method. */
#include "map.h"
#include "vmath.h" /* which instruction set */
#if TERN_CPU_SLEEF && (defined VM_AVX512 || defined VM_AVX2)
#include <sleef.h>
#endif

#if TERN_CPU_SLEEF && defined VM_AVX512
#define LANES 8
#define SLEEF(FN, ULP) Sleef_##FN##d8_u##ULP##avx512f
typedef __m512d vd;
VM_INLINE vd vd_load(const double *p) { return _mm512_loadu_pd(p); }
VM_INLINE void vd_store(double *p, vd v) { _mm512_storeu_pd(p, v); }
VM_INLINE vd vd_load_part(const double *p, int n) { return _mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1), p); }
VM_INLINE void vd_store_part(double *p, vd v, int n) { _mm512_mask_storeu_pd(p, (__mmask8)((1u << n) - 1), v); }
VM_INLINE vd vd_set(double x) { return _mm512_set1_pd(x); }
VM_INLINE vd vd_rint(vd x) { return _mm512_roundscale_pd(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/* Bit i: |x[i]| > limit */
VM_INLINE int vd_beyond(vd x, double limit) { return _mm512_cmp_pd_mask(_mm512_abs_pd(x), vd_set(limit), _CMP_GT_OQ); }
VM_INLINE vd vd_or_zero_of(vd v, vd x) { /* v, but where v is zero a zero with the sign of x */
  const __mmask8 zero = _mm512_cmp_pd_mask(v, _mm512_setzero_pd(), _CMP_EQ_OQ);
  return _mm512_mask_and_pd(v, zero, x, vd_set(-0.0));
}
#elif TERN_CPU_SLEEF && defined VM_AVX2
#define LANES 4
#define SLEEF(FN, ULP) Sleef_##FN##d4_u##ULP##avx2
typedef __m256d vd;
VM_INLINE __m256i first_lanes(int n) { return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3)); }
VM_INLINE vd vd_load(const double *p) { return _mm256_loadu_pd(p); }
VM_INLINE void vd_store(double *p, vd v) { _mm256_storeu_pd(p, v); }
VM_INLINE vd vd_load_part(const double *p, int n) { return _mm256_maskload_pd(p, first_lanes(n)); }
VM_INLINE void vd_store_part(double *p, vd v, int n) { _mm256_maskstore_pd(p, first_lanes(n), v); }
VM_INLINE vd vd_set(double x) { return _mm256_set1_pd(x); }
VM_INLINE vd vd_rint(vd x) { return _mm256_round_pd(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/* Bit i: |x[i]| > limit */
VM_INLINE int vd_beyond(vd x, double limit) {
  return _mm256_movemask_pd(_mm256_cmp_pd(_mm256_andnot_pd(vd_set(-0.0), x), vd_set(limit), _CMP_GT_OQ));
}
VM_INLINE vd vd_or_zero_of(vd v, vd x) { /* v, but where v is zero a zero with the sign of x */
  return _mm256_blendv_pd(v, _mm256_and_pd(x, vd_set(-0.0)), _mm256_cmp_pd(v, _mm256_setzero_pd(), _CMP_EQ_OQ));
}
#endif

#define LIBM1(NAME, FN) MAP_FN1(NAME, double, double, FN(x))
#define LIBM2(NAME, FN) MAP_FN2_SPLAT(NAME, double, double, FN(x, y))
#ifdef SLEEF
/* The lanes in mask by the C library */
static __attribute__((noinline)) vd repair(vd r, vd x, int mask, double (*f)(double)) {
  for (int i = 0; i < LANES; i++)
    if (mask >> i & 1) r[i] = f(x[i]);
  return r;
}
/* SLEEF's functions that overflow on the way to a finite result, or miss the sign of a zero */
#define REPAIRED(NAME, FN, LIMIT)                                                                 \
  VM_INLINE vd NAME(vd x) {                                                                       \
    const vd r = SLEEF(FN, 10)(x);                                                                \
    const int far = vd_beyond(x, LIMIT);                                                          \
    return __builtin_expect(far != 0, 0) ? repair(r, x, far, FN) : r;                             \
  }
REPAIRED(v_exp, exp, 709)
REPAIRED(v_log1p, log1p, 1e300)
REPAIRED(v_asinh, asinh, 1e150)
REPAIRED(v_acosh, acosh, 1e150)
/* Exactly to [-1, 1]: SLEEF gives 0 and 1 for large arguments */
VM_INLINE vd v_wrap2(vd x) {
  return x - vd_rint(x * 0.5) * 2.0;
}
VM_INLINE vd v_sinpi(vd x) {
  return vd_or_zero_of(SLEEF(sinpi, 05)(v_wrap2(x)), x); /* IEEE 754: sinPi(n) is 0 with the sign of n */
}
VM_INLINE vd v_cospi(vd x) {
  return SLEEF(cospi, 05)(v_wrap2(x)) + 0.0; /* IEEE 754: cosPi(n + 1/2) is +0 */
}
VM_INLINE vd v_pow(vd x, vd y) {
  vd r = SLEEF(pow, 10)(x, y);
  const int far = vd_beyond(r, 1e308);
  for (int i = 0; far && i < LANES; i++)
    if (far >> i & 1) r[i] = pow(x[i], y[i]);
  return r;
}
#define MATHS1(NAME, FN, ULP) VECTOR1(NAME, SLEEF(FN, ULP))
#define VECTOR1(NAME, FN)                                                                   \
  static void NAME(void *out, const void *a_, const void *b_, const void *c_, int64_t n) {  \
    double *o = out;                                                                        \
    const double *a = a_;                                                                   \
    int64_t i = 0;                                                                          \
    (void)b_, (void)c_;                                                                     \
    for (; i + LANES <= n; i += LANES) vd_store(o + i, FN(vd_load(a + i)));                 \
    const int r = (int)(n - i);                                                             \
    if (r) vd_store_part(o + i, FN(vd_load_part(a + i, r)), r);                             \
  }
#define VECTOR2(NAME, FN, A, B, A_PART, B_PART)                                             \
  static void NAME(void *out, const void *a_, const void *b_, const void *c_, int64_t n) {  \
    double *o = out;                                                                        \
    const double *a = a_, *b = b_, a0 = *a, b0 = *b;                                        \
    int64_t i = 0;                                                                          \
    (void)c_, (void)a0, (void)b0;                                                           \
    for (; i + LANES <= n; i += LANES) vd_store(o + i, FN(A, B));                           \
    const int r = (int)(n - i);                                                             \
    if (r) vd_store_part(o + i, FN(A_PART, B_PART), r);                                     \
  }
#define VECTOR2_ALL(NAME, FN)                                                                              \
  VECTOR2(NAME##_0, FN, vd_load(a + i), vd_load(b + i), vd_load_part(a + i, r), vd_load_part(b + i, r))    \
  VECTOR2(NAME##_1, FN, vd_set(a0), vd_load(b + i), vd_set(a0), vd_load_part(b + i, r))                    \
  VECTOR2(NAME##_2, FN, vd_load(a + i), vd_set(b0), vd_load_part(a + i, r), vd_set(b0))
#define MATHS2(NAME, FN, ULP) VECTOR2_ALL(NAME, SLEEF(FN, ULP))
#else
#define MATHS1(NAME, FN, ULP) LIBM1(NAME, FN)
#define MATHS2(NAME, FN, ULP) LIBM2(NAME, FN)
/* |x| >= 2^53 is an even integer; the reduction to |r| <= 1/4 is exact */
static double sincospi_of(double x, int shift) {
  const double y = x - 2 * rint(x / 2), n = rint(2 * y), r = (y - n / 2) * 3.14159265358979323846;
  const int quadrant = isfinite(x) ? (int)n + shift : 0;
  const double v = quadrant & 1 ? cos(r) : sin(r);
  return quadrant & 2 ? -v : v;
}
#endif

MATHS1(exp2_f64, exp2, 10)
MATHS1(expm1_f64, expm1, 10)
MATHS1(log_f64, log, 10)
MATHS1(log2_f64, log2, 10)
MATHS1(log10_f64, log10, 10)
MATHS1(cbrt_f64, cbrt, 10)
MATHS1(sin_f64, sin, 10)
MATHS1(cos_f64, cos, 10)
MATHS1(tan_f64, tan, 10)
MATHS1(asin_f64, asin, 10)
MATHS1(acos_f64, acos, 10)
MATHS1(atan_f64, atan, 10)
MATHS1(sinh_f64, sinh, 10)
MATHS1(cosh_f64, cosh, 10)
MATHS1(tanh_f64, tanh, 10)
MATHS1(atanh_f64, atanh, 10)
MATHS1(erf_f64, erf, 10)
MATHS1(erfc_f64, erfc, 15)
MATHS2(atan2_f64, atan2, 10)
MATHS2(hypot_f64, hypot, 05)
MAP_FN1(rsqrt_f64, double, double, 1.0 / sqrt(x))
#ifdef SLEEF
VECTOR1(exp_f64, v_exp)
VECTOR2_ALL(general_pow, v_pow)
VECTOR1(log1p_f64, v_log1p)
VECTOR1(asinh_f64, v_asinh)
VECTOR1(acosh_f64, v_acosh)
VECTOR1(sinpi_f64, v_sinpi)
VECTOR1(cospi_f64, v_cospi)
#else
LIBM1(exp_f64, exp)
LIBM2(general_pow, pow)
LIBM1(log1p_f64, log1p)
LIBM1(asinh_f64, asinh)
LIBM1(acosh_f64, acosh)
static double sinpi_of(double x) {
  const double v = sincospi_of(x, 0);
  return v == 0 ? copysign(v, x) : v;
}
MAP_FN1(sinpi_f64, double, double, sinpi_of(x))
MAP_FN1(cospi_f64, double, double, sincospi_of(x, 1) + 0.0)
#endif

/* Winitzki's estimate, then Halley steps on erf, or on erfc near 1 where 1 - |x| is exact and erf has no digits left */
static double erfinv_of(double x) {
  const double a = fabs(x);
  if (!(a < 1)) return a == 1 ? copysign(INFINITY, x) : NAN;
  if (a < 1e-9) return x * 0.88622692545275801365;
  const double l = log1p(-a * a), t = 2 / (M_PI * 0.147) + l / 2;
  double y = a < 0.1 ? a * 0.88622692545275801365 : sqrt(sqrt(t * t - l / 0.147) - t);
  for (int i = 0; i < 3; i++) {
    const double miss = a < 0.5 ? erf(y) - a : (1 - a) - erfc(y);
    const double step = miss * 0.88622692545275801365 * exp(y * y);
    y -= step / (1 + y * step);
  }
  return copysign(y, x);
}
MAP_FN1(erfinv_f64, double, double, erfinv_of(x))

/* One exponent for all: the usual ones are one or two operations */
static void pow_f64_2(void *out, const void *a, const void *b, const void *c, int64_t n) {
  double *o = out;
  const double *x = a, y = *(const double *)b;
  if (y == 2) {
    MAP_LOOP for (int64_t i = 0; i < n; i++) o[i] = x[i] * x[i];
  } else if (y == -1) {
    MAP_LOOP for (int64_t i = 0; i < n; i++) o[i] = 1.0 / x[i];
  } else if (y == 0.5) { /* pow(-0, 1/2) is +0 and pow(-inf, 1/2) is inf, unlike sqrt */
    MAP_LOOP for (int64_t i = 0; i < n; i++) o[i] = x[i] == -(double)INFINITY ? (double)INFINITY : sqrt(x[i] + 0.0);
  } else {
    general_pow_2(out, a, b, c, n);
  }
}

static const cpu_map_fn unary[TERN_OP_COSPI + 1] = {
  [TERN_OP_EXP] = exp_f64, [TERN_OP_EXP2] = exp2_f64, [TERN_OP_EXPM1] = expm1_f64, [TERN_OP_TANH] = tanh_f64,
  [TERN_OP_LOG] = log_f64, [TERN_OP_LOG2] = log2_f64, [TERN_OP_LOG10] = log10_f64, [TERN_OP_LOG1P] = log1p_f64,
  [TERN_OP_CBRT] = cbrt_f64, [TERN_OP_RSQRT] = rsqrt_f64, [TERN_OP_SIN] = sin_f64, [TERN_OP_COS] = cos_f64,
  [TERN_OP_SINPI] = sinpi_f64, [TERN_OP_COSPI] = cospi_f64, [TERN_OP_ERF] = erf_f64, [TERN_OP_ERFC] = erfc_f64,
  [TERN_OP_ERFINV] = erfinv_f64, [TERN_OP_TAN] = tan_f64, [TERN_OP_ASIN] = asin_f64, [TERN_OP_ACOS] = acos_f64,
  [TERN_OP_ATAN] = atan_f64, [TERN_OP_SINH] = sinh_f64, [TERN_OP_COSH] = cosh_f64, [TERN_OP_ASINH] = asinh_f64,
  [TERN_OP_ACOSH] = acosh_f64, [TERN_OP_ATANH] = atanh_f64
};
cpu_map_fn map_f64_find(uint32_t op, uint32_t splat) {
  if (op <= TERN_OP_COSPI) return splat ? NULL : unary[op];
  if (splat > 2) return NULL;
  switch (op) {
    case TERN_OP_POW: return ((const cpu_map_fn[]){general_pow_0, general_pow_1, pow_f64_2})[splat];
    case TERN_OP_ATAN2: return ((const cpu_map_fn[])MAP_SPLATS(atan2_f64))[splat];
    case TERN_OP_HYPOT: return ((const cpu_map_fn[])MAP_SPLATS(hypot_f64))[splat];
    default: return NULL;
  }
}
