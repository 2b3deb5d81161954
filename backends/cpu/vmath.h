/* Vectors of float32 for the elementwise maths: one small vocabulary (load, fma, select, scale by 2^n ...) over
   AVX-512, AVX2 + FMA, SSE2 and NEON. The functions proper are in vmath_exp.h, vmath_tanh.h, vmath_log.h, vmath_trig.h
   and vmath_erf.h. */
#ifndef TERN_CPU_VMATH_H_
#define TERN_CPU_VMATH_H_
#include <math.h>
#include <stdint.h>
#if defined __x86_64__
#include <immintrin.h>
#elif defined __aarch64__
#include <arm_neon.h>
#endif

#if defined __AVX512F__ && defined __AVX512BW__ && defined __AVX512DQ__ && defined __AVX512VL__
#define VM_AVX512 1
#define VF_N 16
#elif defined __AVX2__ && defined __FMA__
#define VM_AVX2 1
#define VF_N 8
#else
#define VF_N 4
#endif

typedef float vf __attribute__((vector_size(4 * VF_N)));
typedef int32_t vi __attribute__((vector_size(4 * VF_N)));
typedef uint32_t vu __attribute__((vector_size(4 * VF_N))); /* where bits may overflow */
#define VM_INLINE static inline __attribute__((always_inline, unused))

VM_INLINE vf vf_set(float x) {
  return x - (vf){0};
}
VM_INLINE vi vi_set(int32_t x) {
  return x - (vi){0};
}

#ifdef VM_AVX512
typedef __mmask16 vm; /* one bit a lane */
VM_INLINE vf vf_load(const float *p) { return (vf)_mm512_loadu_ps(p); }
VM_INLINE void vf_store(float *p, vf v) { _mm512_storeu_ps(p, (__m512)v); }
VM_INLINE vf vf_load_part(const float *p, int n) { return (vf)_mm512_maskz_loadu_ps((vm)((1u << n) - 1), p); }
VM_INLINE void vf_store_part(float *p, vf v, int n) { _mm512_mask_storeu_ps(p, (vm)((1u << n) - 1), (__m512)v); }
VM_INLINE vf vf_fma(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
VM_INLINE vf vf_min(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
VM_INLINE vf vf_max(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
VM_INLINE vf vf_sqrt(vf a) { return (vf)_mm512_sqrt_ps((__m512)a); }
VM_INLINE vf vf_rint(vf a) { return (vf)_mm512_roundscale_ps((__m512)a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
VM_INLINE vf vf_rcp_approx(vf a) { return (vf)_mm512_rcp14_ps((__m512)a); }
VM_INLINE vi vf_to_int(vf a) { return (vi)_mm512_cvttps_epi32((__m512)a); }
VM_INLINE vf vi_to_float(vi a) { return (vf)_mm512_cvtepi32_ps((__m512i)a); }
VM_INLINE vm vf_lt(vf a, vf b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LT_OQ); }
VM_INLINE vm vf_le(vf a, vf b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LE_OQ); }
VM_INLINE vm vf_eq(vf a, vf b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_EQ_OQ); }
VM_INLINE vm vf_not_lt(vf a, vf b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_NLT_UQ); }
VM_INLINE vm vi_ne0(vi a) { return _mm512_test_epi32_mask((__m512i)a, (__m512i)a); }
VM_INLINE vf vf_sel(vm m, vf a, vf b) { return (vf)_mm512_mask_blend_ps(m, (__m512)b, (__m512)a); }
VM_INLINE int vm_bits(vm m) { return m; }
/* p * 2^n, rounded once; n is integral, |p| < 2. A result below the least number takes a processor 20 times as long as
   another, and masks make many of them: lanes that are certain to be 0 are left out. */
VM_INLINE vf vf_scale(vf p, vf n) {
  return (vf)_mm512_maskz_scalef_ps(vf_not_lt(n, vf_set(-150.5f)), (__m512)p, (__m512)n); /* NaN goes on */
}
#else
typedef vi vm; /* -1 or 0 in each lane */
VM_INLINE vm vf_lt(vf a, vf b) { return a < b; }
VM_INLINE vm vf_le(vf a, vf b) { return a <= b; }
VM_INLINE vm vf_eq(vf a, vf b) { return a == b; }
VM_INLINE vm vf_not_lt(vf a, vf b) { return ~(a < b); }
VM_INLINE vm vi_ne0(vi a) { return a != (vi){0}; }
#ifdef VM_AVX2
VM_INLINE vi vm_first(int n) { return (vi){0, 1, 2, 3, 4, 5, 6, 7} < vi_set(n); }
VM_INLINE vf vf_load(const float *p) { return (vf)_mm256_loadu_ps(p); }
VM_INLINE void vf_store(float *p, vf v) { _mm256_storeu_ps(p, (__m256)v); }
VM_INLINE vf vf_load_part(const float *p, int n) { return (vf)_mm256_maskload_ps(p, (__m256i)vm_first(n)); }
VM_INLINE void vf_store_part(float *p, vf v, int n) { _mm256_maskstore_ps(p, (__m256i)vm_first(n), (__m256)v); }
VM_INLINE vf vf_fma(vf a, vf b, vf c) { return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
VM_INLINE vf vf_min(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
VM_INLINE vf vf_max(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
VM_INLINE vf vf_sqrt(vf a) { return (vf)_mm256_sqrt_ps((__m256)a); }
VM_INLINE vf vf_rint(vf a) { return (vf)_mm256_round_ps((__m256)a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
VM_INLINE vf vf_rcp_approx(vf a) { return (vf)_mm256_rcp_ps((__m256)a); }
VM_INLINE vi vf_to_int(vf a) { return (vi)_mm256_cvttps_epi32((__m256)a); }
VM_INLINE vf vi_to_float(vi a) { return (vf)_mm256_cvtepi32_ps((__m256i)a); }
VM_INLINE vf vf_sel(vm m, vf a, vf b) { return (vf)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)m); }
VM_INLINE int vm_bits(vm m) { return _mm256_movemask_ps((__m256)m); }
#else
VM_INLINE vf vf_load(const float *p) {
  vf v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
VM_INLINE void vf_store(float *p, vf v) { __builtin_memcpy(p, &v, sizeof v); }
VM_INLINE vf vf_load_part(const float *p, int n) {
  return (vf){p[0], n > 1 ? p[1] : 0, n > 2 ? p[2] : 0, 0};
}
VM_INLINE void vf_store_part(float *p, vf v, int n) {
  p[0] = v[0];
  if (n > 1) p[1] = v[1];
  if (n > 2) p[2] = v[2];
}
VM_INLINE vf vf_sel(vm m, vf a, vf b) { return (vf)((m & (vi)a) | (~m & (vi)b)); }
#ifdef __x86_64__
/* The product of two floats is exact in double, so this rounds like a fused one, but for double rounding at 2^-53 */
VM_INLINE vf vf_fma(vf a, vf b, vf c) {
  const __m128 x = (__m128)a, y = (__m128)b, z = (__m128)c;
  const __m128d lo = _mm_add_pd(_mm_mul_pd(_mm_cvtps_pd(x), _mm_cvtps_pd(y)), _mm_cvtps_pd(z));
  const __m128d hi = _mm_add_pd(_mm_mul_pd(_mm_cvtps_pd(_mm_movehl_ps(x, x)), _mm_cvtps_pd(_mm_movehl_ps(y, y))),
                                _mm_cvtps_pd(_mm_movehl_ps(z, z)));
  return (vf)_mm_movelh_ps(_mm_cvtpd_ps(lo), _mm_cvtpd_ps(hi));
}
VM_INLINE vf vf_min(vf a, vf b) { return (vf)_mm_min_ps((__m128)a, (__m128)b); }
VM_INLINE vf vf_max(vf a, vf b) { return (vf)_mm_max_ps((__m128)a, (__m128)b); }
VM_INLINE vf vf_sqrt(vf a) { return (vf)_mm_sqrt_ps((__m128)a); }
VM_INLINE vf vf_rcp_approx(vf a) { return (vf)_mm_rcp_ps((__m128)a); }
VM_INLINE vi vf_to_int(vf a) { return (vi)_mm_cvttps_epi32((__m128)a); }
VM_INLINE vf vi_to_float(vi a) { return (vf)_mm_cvtepi32_ps((__m128i)a); }
VM_INLINE int vm_bits(vm m) { return _mm_movemask_ps((__m128)m); }
VM_INLINE vf vf_rint(vf a) { /* adding 2^23 drops the fraction; larger magnitudes have none */
  const vi sign = (vi)a & INT32_MIN;
  const vf big = (vf)((vi)vf_set(0x1p23f) | sign);
  const vf near = (vf)((vi)((a + big) - big) | sign);
  return vf_sel(vf_lt((vf)((vi)a & INT32_MAX), vf_set(0x1p23f)), near, a);
}
#else
VM_INLINE vf vf_fma(vf a, vf b, vf c) { return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
VM_INLINE vf vf_min(vf a, vf b) { return vf_sel(a < b, a, b); }
VM_INLINE vf vf_max(vf a, vf b) { return vf_sel(a > b, a, b); }
VM_INLINE vf vf_sqrt(vf a) { return (vf)vsqrtq_f32((float32x4_t)a); }
VM_INLINE vf vf_rint(vf a) { return (vf)vrndnq_f32((float32x4_t)a); }
VM_INLINE vf vf_rcp_approx(vf a) { return 1.0f / a; }
VM_INLINE vi vf_to_int(vf a) { return (vi)vcvtq_s32_f32((float32x4_t)a); }
VM_INLINE vf vi_to_float(vi a) { return (vf)vcvtq_f32_s32((int32x4_t)a); }
VM_INLINE int vm_bits(vm m) { return (m[0] & 1) | (m[1] & 2) | (m[2] & 4) | (m[3] & 8); }
#endif
#endif
/* 2^n, -127 < n < 128 */
VM_INLINE vf vf_pow2(vi n) { return (vf)(((vu)n + 127u) << 23); }
/* p * 2^n for |n| < 250, |p| < 2, rounded once: the first factor loses nothing where the second can. A result below the
   least number takes a processor 20 times as long as another, and masks make many of them: p is 0 where it is
   certain. */
VM_INLINE vf vf_scale(vf p, vf n) {
  p = (vf)((vi)p & vf_not_lt(n, vf_set(-150.5f)));
  const vi k = vf_to_int(n), half = k >> 1;
  return p * vf_pow2(half) * vf_pow2(k - half);
}
#endif

/* a * b + c, fused where the machine can, else rounded twice */
VM_INLINE vf vf_mad(vf a, vf b, vf c) {
#if defined VM_AVX512 || defined VM_AVX2 || defined __aarch64__
  return vf_fma(a, b, c);
#else
  return a * b + c;
#endif
}
VM_INLINE vf vf_abs(vf x) {
  return (vf)((vi)x & INT32_MAX);
}
/* |magnitude| with the sign of `sign` */
VM_INLINE vf vf_copysign(vf magnitude, vf sign) {
#if defined VM_AVX512 && !defined __clang__ /* clang 14 merges it with a select around it wrongly */
  return (vf)_mm512_ternarylogic_epi32(_mm512_set1_epi32(INT32_MAX), (__m512i)magnitude, (__m512i)sign, 0xca);
#else
  return (vf)(((vi)magnitude & INT32_MAX) | ((vi)sign & INT32_MIN));
#endif
}
/* NaN passes: min and max give their second operand when either is NaN */
VM_INLINE vf vf_clamp(vf x, float lo, float hi) {
  return vf_max(vf_set(lo), vf_min(vf_set(hi), x));
}
/* Replace the lanes in mask by f(lane of x): arguments out of the fast range */
static __attribute__((noinline, unused)) vf vf_repair(vf r, vf x, int mask, float (*f)(float)) {
  for (int i = 0; i < VF_N; i++)
    if (mask >> i & 1) r[i] = f(x[i]);
  return r;
}
/* Horner: c[0] + c[1] x + ... with n a literal, so that it unrolls */
#define VM_POLY(x, ...) vf_poly(x, (const float[]){__VA_ARGS__}, (int)(sizeof((const float[]){__VA_ARGS__}) / sizeof(float)))
VM_INLINE vf vf_poly(vf x, const float *c, int n) {
  vf r = vf_set(c[n - 1]);
#if defined __clang__
#pragma clang loop unroll(full)
#else
#pragma GCC unroll 16
#endif
  for (int i = n - 2; i >= 0; i--) r = vf_mad(r, x, vf_set(c[i]));
  return r;
}
#endif
