/* Many float32 by one, without the divider, rounded exactly as it rounds: it takes 10 cycles or more for 16 floats, the
   steps here 4. The last one is Markstein's ("Computation of elementary functions on the IBM RISC System/6000
   processor", 1990): with r near 1 / b and q within little more than half an ulp of a / b, q + (a - q b) r is the
   correctly rounded quotient. It needs that nothing on the way over- or underflows: other arguments (zeros, subnormals,
   infinities, NaN, magnitudes beyond 2^+-60) take the divider. */
#ifndef TERN_CPU_VMATH_DIV_H_
#define TERN_CPU_VMATH_DIV_H_
#include "vmath.h"

#ifdef VM_AVX512
enum { VM_DIV_LEAST = (127 - 60) << 23, VM_DIV_SPAN = 120 << 23 }; /* bits of 2^-60; of the range above it */

/* Lanes whose magnitude is in [2^-60, 2^60) */
VM_INLINE vm vf_moderate(vf a) {
  const vu u = ((vu)a & (uint32_t)INT32_MAX) - (uint32_t)VM_DIV_LEAST;
  return _mm512_cmplt_epu32_mask((__m512i)u, _mm512_set1_epi32(VM_DIV_SPAN));
}
VM_INLINE int vf_all(vm m) { return __builtin_expect(m == 0xffff, 1); }

/* A divisor for many: 1 / b in two parts; fast: it is moderate */
typedef struct vm_divisor {
  vf b, r, low;
  int fast;
} vm_divisor;
VM_INLINE vm_divisor vm_divisor_of(float b) {
  const float r = 1.0f / b, low = __builtin_fmaf(-b, r, 1.0f) * r, size = __builtin_fabsf(b);
  return (vm_divisor){vf_set(b), vf_set(r), vf_set(low), size >= 0x1p-60f && size < 0x1p60f};
}
/* With 1 / b known to 48 bits q is off by little more than half an ulp, and the last step is right for every b. For
   moderate b and a */
VM_INLINE vf vm_div_easily(vf a, const vm_divisor *d) {
  const vf q = vf_fma(a, d->r, a * d->low);
  return vf_fma(vf_fma(-d->b, q, a), d->r, q);
}
VM_INLINE vf vm_div_by(vf a, const vm_divisor *d) {
  return d->fast && vf_all(vf_moderate(a)) ? vm_div_easily(a, d) : a / d->b;
}
/* May all of [least, 1] be divided easily? */
VM_INLINE int vm_easy(const vm_divisor *d, float least) { return d->fast && least >= 0x1p-60f; }
#else
typedef struct vm_divisor {
  vf b;
} vm_divisor;
VM_INLINE vm_divisor vm_divisor_of(float b) { return (vm_divisor){vf_set(b)}; }
VM_INLINE vf vm_div_by(vf a, const vm_divisor *d) { return a / d->b; }
VM_INLINE vf vm_div_easily(vf a, const vm_divisor *d) { return a / d->b; }
VM_INLINE int vm_easy(const vm_divisor *d, float least) { return (void)d, (void)least, 0; }
#endif
#endif
