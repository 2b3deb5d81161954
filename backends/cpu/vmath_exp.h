/* exp, exp2, expm1 of float32 vectors. x = n ln 2 + r, |r| <= ln 2 / 2, and a polynomial for exp(r); the
   polynomials are minimax fits (Remez exchange) of the function's remainder after its leading terms. */
#ifndef TERN_CPU_VMATH_EXP_H_
#define TERN_CPU_VMATH_EXP_H_
#include "vmath.h"

#define VM_LOG2E 1.44269504f
#define VM_LN2_HI 0.693145752f    /* 15 bits: n times it is exact */
#define VM_LN2_LO 1.42860677e-06f /* ln 2 - VM_LN2_HI */

/* r and n with x = n ln 2 + r. A number of which 1 is the last bit, added and taken away, leaves the nearest integer */
VM_INLINE vf vm_exp_reduce(vf x, vf *n) {
  *n = vf_mad(x, vf_set(VM_LOG2E), vf_set(0x1.8p23f)) - 0x1.8p23f;
  return vf_mad(*n, vf_set(-VM_LN2_LO), vf_mad(*n, vf_set(-VM_LN2_HI), x));
}
/* (exp(r) - 1 - r) / r^2 */
VM_INLINE vf vm_exp_tail(vf r) {
  return VM_POLY(r, 0.5f, 0.16666545f, 0.0416662879f, 0.00836636312f, 0.00139461725f);
}
/* (2^f - 1) / f for |f| <= 1/2 */
VM_INLINE vf vm_exp2_tail(vf f) {
  return VM_POLY(f, 0.693147182f, 0.240226507f, 0.0555032901f, 0.00961800478f, 0.00133999623f, 0.000154761641f);
}

/* exp(x) = p 2^n with p near 1 */
VM_INLINE vf vm_exp_parts(vf x, vf *n) {
  const vf r = vm_exp_reduce(x, n);
  return vf_mad(r, vf_mad(r, vm_exp_tail(r), vf_set(1)), vf_set(1));
}
VM_INLINE vf vm_exp(vf x) {
  vf n;
  const vf p = vm_exp_parts(vf_clamp(x, -104.5f, 89.0f), &n);
  return vf_scale(p, n);
}
/* exp(x) / 2 */
VM_INLINE vf vm_half_exp(vf x) {
  vf n;
  const vf p = vm_exp_parts(vf_clamp(x, -104.5f, 91.0f), &n);
  return vf_scale(p, n - 1.0f);
}

VM_INLINE vf vm_exp2(vf x) {
  x = vf_clamp(x, -151.0f, 129.0f);
  const vf n = vf_rint(x), f = x - n;
  return vf_scale(vf_mad(f, vm_exp2_tail(f), vf_set(1)), n);
}

/* 2^n (exp(r) - 1) + (2^n - 1); s = 2^n */
VM_INLINE vf vm_expm1_join(vf r, vf s, vf s_less_1) {
  const vf tail = r * r * vm_exp_tail(r);
  return vf_mad(s, tail, vf_mad(s, r, s_less_1));
}

VM_INLINE vf vm_expm1(vf x) {
  vf n;
  const vf y = vf_clamp(x, -20.0f, 89.0f), r = vm_exp_reduce(y, &n);
  const vf half_s = (vf)(((vu)vf_to_int(n) + 126u) << 23); /* half of 2^n: n = 128 must not overflow */
  const vf res = vm_expm1_join(r, half_s, half_s - 0.5f) * 2.0f;
  return vf_sel(vf_lt(vf_abs(x), vf_set(0x1p-30f)), x, res); /* NaN is in n and r */
}
#endif
