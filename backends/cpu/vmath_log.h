/* log, log2, log10, log1p, cbrt, rsqrt of float32 vectors. x = 2^e (1 + f), -1/4 <= f < 1/2, and log(1 + f) = f - f^2
   / 2 + f^3 P(f), P a minimax fit. The special arguments are put right at the end. */
#ifndef TERN_CPU_VMATH_LOG_H_
#define TERN_CPU_VMATH_LOG_H_
#include "vmath_exp.h"

/* Significand in [0.75, 1.5) and exponent of x > 0; whatever else x is, vm_log_special() replaces */
VM_INLINE vf vm_split(vf x, vf *e) {
#ifdef VM_AVX512
  const __m512 m = _mm512_getmant_ps((__m512)x, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_nan);
  *e = (vf)_mm512_sub_ps(_mm512_getexp_ps((__m512)x), _mm512_getexp_ps(m));
  return (vf)m;
#else
  const vm tiny = vf_lt(x, vf_set(0x1p-126f));
  const vf y = vf_sel(tiny, x * 0x1p23f, x);
  const vi k = (vi)((vu)y - 0x3f400000u) >> 23;
  *e = vi_to_float(k) - vf_sel(tiny, vf_set(23), vf_set(0));
  return (vf)((vu)y - ((vu)k << 23));
#endif
}
/* log(1 + f) - f */
VM_INLINE vf vm_log_tail(vf f) {
  const vf p = VM_POLY(f, 0.333334416f, -0.250001967f, 0.199913412f, -0.166438714f, 0.144646212f, -0.13183248f,
                       0.105928309f, -0.0463181995f);
  const vf z = f * f;
  return vf_mad(z, vf_set(-0.5f), z * f * p);
}
/* What any logarithm gives for zero, negative numbers, infinity and NaN */
VM_INLINE vf vm_log_special(vf x, vf res) {
  const vf inf = vf_set(__builtin_inff());
  res = vf_sel(vf_lt(x, inf), res, x); /* +inf and NaN */
  res = vf_sel(vf_lt(x, vf_set(0)), vf_set(__builtin_nanf("")), res);
  return vf_sel(vf_eq(x, vf_set(0)), -inf, res);
}

VM_INLINE vf vm_log_join(vf f, vf e) {
  const vf low = vf_mad(e, vf_set(VM_LN2_LO), vm_log_tail(f));
  return vf_mad(e, vf_set(VM_LN2_HI), f + low);
}
VM_INLINE vf vm_log(vf x) {
  vf e;
  const vf f = vm_split(x, &e) - 1.0f, res = vm_log_join(f, e);
#ifdef VM_AVX512
  return res; /* getexp and getmant answer zero, infinity and NaN such that the sums above come out right */
#else
  return vm_log_special(x, res);
#endif
}

/* hi + lo = the constant 1 / ln(base) */
VM_INLINE vf vm_log_base(vf f, float hi, float lo) {
  return vf_fma(f, vf_set(hi), vf_mad(vm_log_tail(f), vf_set(hi), f * lo));
}
VM_INLINE vf vm_log2(vf x) {
  vf e;
  const vf f = vm_split(x, &e) - 1.0f;
  return vm_log_special(x, e + vm_log_base(f, VM_LOG2E, 1.92596299e-08f));
}
VM_INLINE vf vm_log10(vf x) {
  vf e;
  const vf f = vm_split(x, &e) - 1.0f;
  const vf low = vf_mad(e, vf_set(4.60503850e-06f), vm_log_base(f, 0.434294492f, -1.01030882e-08f));
  return vm_log_special(x, vf_mad(e, vf_set(0.301025391f), low)); /* log10(2), 12 bits and the rest */
}

/* u = 1 + x rounded, d what that lost: both are scaled into f */
VM_INLINE vf vm_log1p(vf x) {
  vf e;
  const vf u = x + 1.0f, one = vf_set(1), d = vf_min(one, x) - (u - vf_max(one, x));
  const vf m = vm_split(u, &e), f = (m - 1.0f) + vf_scale(d, -e);
  return vf_copysign(vf_sel(vf_lt(vf_set(-1), x), vf_sel(vf_lt(x, vf_set(__builtin_inff())), vm_log_join(f, e), x),
                            vf_sel(vf_eq(x, -one), vf_set(__builtin_inff()), vf_set(__builtin_nanf("")))), x);
}

/* |x| = m 2^(3q), 1 <= m < 8: a guess good to 1e-5 and one Newton step */
VM_INLINE vf vm_cbrt(vf x) {
  const vf a = vf_abs(x);
  const vm tiny = vf_lt(a, vf_set(0x1p-126f));
  const vf y = vf_sel(tiny, a * 0x1p24f, a);
  const vi e = ((vi)y >> 23) - 127, q = (((e + 300) * 21846) >> 16) - 100, rest = e - q * 3;
  const vf m1 = (vf)(((vi)y & 0x7fffff) | 0x3f800000), m = (vf)((vi)m1 + (rest << 23));
  vf g = VM_POLY(m1, 0.506978989f, 0.718155086f, -0.300612718f, 0.0860918686f, -0.010603982f);
  g *= vf_sel(vi_ne0(rest & 1), vf_set(1.25992105f), vf_sel(vi_ne0(rest & 2), vf_set(1.58740105f), vf_set(1)));
  const vf g2 = g * g;
  g -= vf_fma(g2, g, -m) * vf_rcp_approx(g2 * 3.0f);
  const vf scale = (vf)((q + 127) << 23);
  const vf res = g * vf_sel(tiny, scale * 0x1p-8f, scale);
  return vf_sel(vf_lt(vf_set(0), a), vf_sel(vf_lt(a, vf_set(__builtin_inff())), vf_copysign(res, x), x), x);
}

VM_INLINE vf vm_rsqrt(vf x) {
#ifdef VM_AVX512
  const vf y = (vf)_mm512_rsqrt14_ps((__m512)x), h = vf_fma(-(x * y), y, vf_set(1));
  return vf_sel(vf_eq(h, h), vf_fma(y * 0.5f, h, y), y); /* h is NaN at 0 and infinity, where y is exact */
#else
  return 1.0f / vf_sqrt(x);
#endif
}

/* Correctly rounded: two refinements of 1 / (2 sqrt x) and sqrt x together, then the exact remainder (Markstein's
   scheme; equal to the square root instruction for every significand, and less than its time). The remainder of tiny x
   would underflow. */
VM_INLINE vf vm_sqrt(vf x) {
#ifdef VM_AVX512
  const vm tiny = vf_lt(vf_set(0), x) & vf_lt(x, vf_set(0x1p-70f));
  if (__builtin_expect(tiny != 0, 0)) return vf_sqrt(x);
  const vf y = (vf)_mm512_rsqrt14_ps((__m512)x), s = x * y, h = y * 0.5f, e = vf_fma(-h, s, vf_set(0.5f));
  const vf h1 = vf_fma(h, e, h), s1 = vf_fma(s, e, s);
  const vf res = vf_fma(vf_fma(-s1, s1, x), h1, s1);
  return vf_sel(vf_eq(x, vf_set(0)) | vf_eq(x, vf_set(__builtin_inff())), x, res);
#else
  return vf_sqrt(x);
#endif
}
#endif
