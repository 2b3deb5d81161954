/* erf, erfc, erfinv of float32 vectors. Both sides of a split are computed and one selected; the polynomials are
   minimax fits. */
#ifndef TERN_CPU_VMATH_ERF_H_
#define TERN_CPU_VMATH_ERF_H_
#include "vmath_log.h"

/* erf(x) = x + x P(x^2) for |x| < 0.85 */
VM_INLINE vf vm_erf_small(vf x) {
  const vf z = x * x;
  const vf p = VM_POLY(z, 0.128379166f, -0.376125753f, 0.112827696f, -0.026804531f, 0.00505420053f, -0.000633217744f);
  return vf_mad(p, x, x);
}
/* Small |x|: the above. Else 1 - 2^Q(|x|), Q a fit of log2(erfc) */
VM_INLINE vf vm_erf(vf x) {
  const vf a = vf_abs(x), y = vf_min(vf_set(3.95f), a);
  const vf q = VM_POLY(y, -0.000165490841f, -1.62738228f, -0.918422163f, -0.150686577f, 0.0324302576f, -0.00448269816f,
                       0.000292183599f);
  const vf n = vf_rint(q), f = q - n;
  const vf e = VM_POLY(f, 0.693147242f, 0.24022238f, 0.0555030927f, 0.00967175607f, 0.00134070404f);
#ifdef VM_AVX512
  const vf large = 1.0f - vf_scale(vf_mad(f, e, vf_set(1)), n);
#else
  const vf large = 1.0f - vf_mad(f, e, vf_set(1)) * vf_pow2(vf_to_int(n));
#endif
  return vf_sel(vf_lt(a, vf_set(0.85f)), vm_erf_small(x), vf_copysign(large, x));
}

/* erfc(a) = exp(-a^2) T((a - 2) / (a + 2)) / (1 + 2 a), the form of Shepherd and Laframboise (1981); a^2 in two parts
   */
VM_INLINE vf vm_erfc(vf x) {
  const vf a = vf_min(vf_set(10.2f), vf_abs(x)), t = (a - 2.0f) / (a + 2.0f);
  const vf p = VM_POLY(t, 1.27697837f, -0.0927638933f, -0.166031346f, 0.164052978f, -0.0542052574f, -0.00804321654f,
                       0.00863903668f, 0.00126938848f, -0.00125554274f, -0.000360656122f, 2.93328249e-05f);
  const vf s = a * a, lost = vf_fma(a, a, -s);
  vf n;
  const vf r = vm_exp_reduce(-s, &n) - lost;
  const vf e = vf_mad(r, vf_mad(r, vm_exp_tail(r), vf_set(1)), vf_set(1));
  const vf res = vf_scale(p / (a + a + 1.0f) * e, n);
  return vf_sel(vf_lt(vf_abs(x), vf_set(0.5f)), 1.0f - vm_erf_small(x), vf_sel(vf_lt(x, vf_set(0)), 2.0f - res, res));
}

/* x P(w) or x Q(sqrt w), w = -log(1 - x^2) (Giles, "Approximating the erfinv function", 2010); the split is at w = 5 */
VM_INLINE vf vm_erfinv(vf x) {
  const vf w = -vm_log(vf_fma(-x, x, vf_set(1))), u = w - 3.0f;
  const vf p = VM_POLY(u, 1.62354195f, 0.24163036f, -0.00573812006f, -0.000836069172f, 0.000195057524f, -1.28107085e-05f,
                       -1.76081448e-06f, 4.79983896e-07f, -1.6323261e-08f, -8.79047413e-09f);
  const vf v = vf_sqrt(w) - 3.0f;
  const vf q = VM_POLY(v, 2.83297682f, 1.00167501f, 0.00944530126f, -0.00763725583f, 0.00568682887f, -0.00359749119f,
                       0.00148555054f, -5.68435935e-05f, -0.000310023286f, 0.000115948351f);
  const vf res = x * vf_sel(vf_lt(w, vf_set(5)), p, q);
  return vf_sel(vf_eq(vf_abs(x), vf_set(1)), vf_copysign(vf_set(__builtin_inff()), x), res);
}
#endif
