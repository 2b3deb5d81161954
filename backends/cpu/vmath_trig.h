/* sin, cos, sin(pi x), cos(pi x) of float32 vectors: reduction to |r| <= pi / 4 (or 1 / 4), then a minimax polynomial
   for the sine and one for the cosine. Large or non-finite arguments of sin and cos go through the C library, lane by
   lane. */
#ifndef TERN_CPU_VMATH_TRIG_H_
#define TERN_CPU_VMATH_TRIG_H_
#include "vmath.h"

/* The quadrant's function: sine where quadrant is even, cosine where odd; negated where bit 1 is set */
VM_INLINE vf vm_quadrant(vf sine, vf cosine, vi quadrant) {
  const vf v = vf_sel(vi_ne0(quadrant & 1), cosine, sine);
  return (vf)((vu)v ^ ((vu)(quadrant & 2) << 30));
}

/* x - n pi / 2 with pi / 2 in three parts (Cody and Waite): the first fused step is exact. |x| < 1e5 */
VM_INLINE vf vm_sincos(vf x, int shift, float (*far_away)(float)) {
  const vf n = vf_rint(x * 0.636619772f);
  vf r = vf_fma(n, vf_set(-1.57079637f), x);
  r = vf_fma(n, vf_set(4.37113883e-08f), r);
  r = vf_mad(n, vf_set(1.71512448e-15f), r);
  const vf z = r * r;
  const vf s = vf_mad(z * r, VM_POLY(z, -0.166666552f, 0.00833217986f, -0.000195175075f), r);
  const vf c = vf_mad(z * z, VM_POLY(z, 0.0416666456f, -0.0013887377f, 2.4439385e-05f), vf_mad(z, vf_set(-0.5f), vf_set(1)));
  const vf res = vm_quadrant(s, c, vf_to_int(n) + shift);
  const int far = vm_bits(vf_not_lt(vf_abs(x), vf_set(1e5f)));
  return __builtin_expect(far != 0, 0) ? vf_repair(res, x, far, far_away) : res;
}
VM_INLINE vf vm_sin(vf x) {
  return vf_sel(vf_eq(x, vf_set(0)), x, vm_sincos(x, 0, sinf)); /* the sign of a zero */
}
VM_INLINE vf vm_cos(vf x) {
  return vm_sincos(x, 1, cosf);
}

/* sin(pi (x + shift / 2)); every step of the reduction is exact */
VM_INLINE vf vm_sincospi(vf x, int shift) {
  const vf y = vf_fma(vf_rint(x * 0.5f), vf_set(-2), x); /* [-1, 1]; NaN when x is infinite */
  const vf n = vf_rint(y + y), r = vf_mad(n, vf_set(-0.5f), y), z = r * r;
  const vf ps = VM_POLY(z, -5.16771269f, 2.55016279f, -0.599207461f, 0.0810409263f);
  const vf s = vf_fma(r, vf_set(3.14159274f), r * vf_mad(z, ps, vf_set(-8.74227766e-08f)));
  const vf c = vf_mad(z, VM_POLY(z, -4.93480206f, 4.05870819f, -1.33506322f, 0.231466264f), vf_set(1));
  return vm_quadrant(s, c, vf_to_int(n) + shift);
}
VM_INLINE vf vm_sinpi(vf x) {
  const vf res = vm_sincospi(x, 0);
  return vf_sel(vf_eq(res, vf_set(0)), vf_copysign(res, x), res); /* IEEE 754: sinPi(n) is 0 with the sign of n */
}
VM_INLINE vf vm_cospi(vf x) {
  return vm_sincospi(x, 1) + 0.0f; /* IEEE 754: cosPi(n + 1/2) is +0 */
}
#endif
