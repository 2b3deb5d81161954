/* Float32 functions. The common ones are our own vector code (vmath*.h), the rest SLEEF's where this instruction set
   has FMA, else the C library's. A shorter last vector is loaded and stored under a mask. */
#include "map.h"
#include "vmath_erf.h"
#include "vmath_tanh.h"
#include "vmath_trig.h"
#if TERN_CPU_SLEEF && (defined VM_AVX512 || defined VM_AVX2)
#include <sleef.h>
#endif

#define VECTOR1(NAME, FN)                                                                   \
  static void NAME(void *out, const void *a_, const void *b_, const void *c_, int64_t n) {  \
    float *o = out;                                                                         \
    const float *a = a_;                                                                    \
    int64_t i = 0;                                                                          \
    (void)b_, (void)c_;                                                                     \
    for (; i + VF_N <= n; i += VF_N) vf_store(o + i, FN(vf_load(a + i)));                   \
    if (i < n) vf_store_part(o + i, FN(vf_load_part(a + i, (int)(n - i))), (int)(n - i));   \
  }
#define LIBM1(NAME, FN) MAP_FN1(NAME, float, float, FN(x))

VECTOR1(exp_f32, vm_exp)
VECTOR1(exp2_f32, vm_exp2)
VECTOR1(expm1_f32, vm_expm1)
VECTOR1(tanh_f32, vm_tanh)
VECTOR1(log_f32, vm_log)
VECTOR1(log2_f32, vm_log2)
VECTOR1(log10_f32, vm_log10)
VECTOR1(log1p_f32, vm_log1p)
VECTOR1(cbrt_f32, vm_cbrt)
VECTOR1(sqrt_f32, vm_sqrt)
VECTOR1(rsqrt_f32, vm_rsqrt)
VECTOR1(sin_f32, vm_sin)
VECTOR1(cos_f32, vm_cos)
VECTOR1(sinpi_f32, vm_sinpi)
VECTOR1(cospi_f32, vm_cospi)
VECTOR1(erf_f32, vm_erf)
VECTOR1(erfc_f32, vm_erfc)
VECTOR1(erfinv_f32, vm_erfinv)

#if TERN_CPU_SLEEF && defined VM_AVX512
#define SLEEF(FN) Sleef_##FN##f16_u10avx512f
#define SLEEF_HYPOT Sleef_hypotf16_u05avx512f
#elif TERN_CPU_SLEEF && defined VM_AVX2
#define SLEEF(FN) Sleef_##FN##f8_u10avx2
#define SLEEF_HYPOT Sleef_hypotf8_u05avx2
#endif
#ifdef SLEEF
#define OTHER1(NAME, FN)                                  \
  VM_INLINE vf v_##NAME(vf x) { return (vf)SLEEF(FN)(x); } \
  VECTOR1(NAME, v_##NAME)
#define OTHER2(NAME, FN)                                                                            \
  static vf v_##NAME(vf x, vf y) { return (vf)FN(x, y); }                                           \
  VECTOR2(NAME##_0, v_##NAME, vf_load(a + i), vf_load(b + i), vf_load_part(a + i, r), vf_load_part(b + i, r)) \
  VECTOR2(NAME##_1, v_##NAME, vf_set(a0), vf_load(b + i), vf_set(a0), vf_load_part(b + i, r))       \
  VECTOR2(NAME##_2, v_##NAME, vf_load(a + i), vf_set(b0), vf_load_part(a + i, r), vf_set(b0))
#define VECTOR2(NAME, FN, A, B, A_PART, B_PART)                                             \
  static void NAME(void *out, const void *a_, const void *b_, const void *c_, int64_t n) {  \
    float *o = out;                                                                         \
    const float *a = a_, *b = b_, a0 = *a, b0 = *b;                                         \
    int64_t i = 0;                                                                          \
    (void)c_, (void)a0, (void)b0;                                                           \
    for (; i + VF_N <= n; i += VF_N) vf_store(o + i, FN(A, B));                             \
    const int r = (int)(n - i);                                                             \
    if (r) vf_store_part(o + i, FN(A_PART, B_PART), r);                                     \
  }
/* SLEEF's overflow too early: sinh and cosh above 88.7, asinh and acosh above 2^64 */
VM_INLINE vf v_sinh_cosh(vf res, vf x, vf a) {
  const vm far = vf_lt(vf_set(80), a);
  return __builtin_expect(vm_bits(far) != 0, 0) ? vf_sel(far, vf_copysign(vm_half_exp(a), x), res) : res;
}
VM_INLINE vf v_sinh(vf x) { return v_sinh_cosh((vf)SLEEF(sinh)(x), x, vf_abs(x)); }
VM_INLINE vf v_cosh(vf x) { return v_sinh_cosh((vf)SLEEF(cosh)(x), vf_abs(x), vf_abs(x)); }
VM_INLINE vf v_area(vf res, vf x, vf a) {
  const vm far = vf_lt(vf_set(1e10f), a);
  return __builtin_expect(vm_bits(far) != 0, 0) ? vf_sel(far, vf_copysign(vm_log(a) + 0.693147181f, x), res) : res;
}
VM_INLINE vf v_asinh(vf x) { return v_area((vf)SLEEF(asinh)(x), x, vf_abs(x)); }
VM_INLINE vf v_acosh(vf x) { return v_area((vf)SLEEF(acosh)(x), x, x); }
VECTOR1(sinh_f32, v_sinh)
VECTOR1(cosh_f32, v_cosh)
VECTOR1(asinh_f32, v_asinh)
VECTOR1(acosh_f32, v_acosh)
#else
LIBM1(sinh_f32, sinhf)
LIBM1(cosh_f32, coshf)
LIBM1(asinh_f32, asinhf)
LIBM1(acosh_f32, acoshf)
#define OTHER1(NAME, FN) LIBM1(NAME, FN##f)
#define OTHER2(NAME, FN) MAP_FN2_SPLAT(NAME, float, float, FN(x, y))
#define SLEEF(FN) FN##f
#define SLEEF_HYPOT hypotf
#endif
OTHER1(tan_f32, tan)
OTHER1(asin_f32, asin)
OTHER1(acos_f32, acos)
OTHER1(atan_f32, atan)
OTHER1(atanh_f32, atanh)
OTHER2(general_pow, SLEEF(pow))
OTHER2(atan2_f32, SLEEF(atan2))
OTHER2(hypot_f32, SLEEF_HYPOT)

/* One exponent for all: the usual ones are one or two operations */
static void pow_f32_2(void *out, const void *a, const void *b, const void *c, int64_t n) {
  float *o = out;
  const float *x = a, y = *(const float *)b;
  if (y == 2) {
    MAP_LOOP for (int64_t i = 0; i < n; i++) o[i] = x[i] * x[i];
  } else if (y == 3) {
    MAP_LOOP for (int64_t i = 0; i < n; i++) o[i] = x[i] * x[i] * x[i];
  } else if (y == -1) {
    MAP_LOOP for (int64_t i = 0; i < n; i++) o[i] = 1.0f / x[i];
  } else if (y == 0.5f) { /* pow(-0, 1/2) is +0 and pow(-inf, 1/2) is inf, unlike sqrt */
    MAP_LOOP for (int64_t i = 0; i < n; i++) o[i] = x[i] == -INFINITY ? INFINITY : sqrtf(x[i] + 0.0f);
  } else {
    general_pow_2(out, a, b, c, n);
  }
}

static const cpu_map_fn unary[TERN_OP_COSPI + 1] = {
  [TERN_OP_EXP] = exp_f32, [TERN_OP_EXP2] = exp2_f32, [TERN_OP_EXPM1] = expm1_f32, [TERN_OP_TANH] = tanh_f32,
  [TERN_OP_LOG] = log_f32, [TERN_OP_LOG2] = log2_f32, [TERN_OP_LOG10] = log10_f32, [TERN_OP_LOG1P] = log1p_f32,
  [TERN_OP_CBRT] = cbrt_f32, [TERN_OP_SQRT] = sqrt_f32, [TERN_OP_RSQRT] = rsqrt_f32, [TERN_OP_SIN] = sin_f32, [TERN_OP_COS] = cos_f32,
  [TERN_OP_SINPI] = sinpi_f32, [TERN_OP_COSPI] = cospi_f32, [TERN_OP_ERF] = erf_f32, [TERN_OP_ERFC] = erfc_f32,
  [TERN_OP_ERFINV] = erfinv_f32, [TERN_OP_TAN] = tan_f32, [TERN_OP_ASIN] = asin_f32, [TERN_OP_ACOS] = acos_f32,
  [TERN_OP_ATAN] = atan_f32, [TERN_OP_SINH] = sinh_f32, [TERN_OP_COSH] = cosh_f32, [TERN_OP_ASINH] = asinh_f32,
  [TERN_OP_ACOSH] = acosh_f32, [TERN_OP_ATANH] = atanh_f32
};
cpu_map_fn map_f32_find(uint32_t op, uint32_t splat) {
  if (op <= TERN_OP_COSPI) return splat ? NULL : unary[op];
  if (splat > 2) return NULL;
  switch (op) {
    case TERN_OP_POW: return ((const cpu_map_fn[]){general_pow_0, general_pow_1, pow_f32_2})[splat];
    case TERN_OP_ATAN2: return ((const cpu_map_fn[])MAP_SPLATS(atan2_f32))[splat];
    case TERN_OP_HYPOT: return ((const cpu_map_fn[])MAP_SPLATS(hypot_f32))[splat];
    default: return NULL;
  }
}
