/* exec_tiny.h as functions of the map tables' type. */
#include "exec_tiny.h"
#include "vmath_tanh.h"
#include "vmath_log.h"

#define TINY(NAME, OP, SPLAT)                                                           \
  static void NAME(void *out, const void *a, const void *b, const void *c, int64_t n) { \
    (void)c;                                                                            \
    x_tiny(OP, SPLAT, out, a, b, n);                                                    \
  }
#define TINY2(NAME, OP) \
  TINY(NAME##_0, OP, 0) \
  TINY(NAME##_1, OP, 1) \
  TINY(NAME##_2, OP, 2)
TINY2(add, X_ADD)
TINY2(sub, X_SUB)
TINY2(mul, X_MUL)
TINY2(div, X_DIV)
TINY(neg, X_NEG, 0)
TINY(root, X_SQRT, 0)
/* map_f32.c's functions on at most one vector, loaded and stored in one piece where there is a type for it */
static inline vf load_few(const float *a, int n) {
#if defined VM_AVX512
  if (n == 4) return (vf)_mm512_zextps128_ps512(_mm_loadu_ps(a));
  if (n == 8) return (vf)_mm512_zextps256_ps512(_mm256_loadu_ps(a));
#elif defined VM_AVX2
  if (n == 4) return (vf)_mm256_zextps128_ps256(_mm_loadu_ps(a));
#endif
  return n == VF_N ? vf_load(a) : vf_load_part(a, n);
}
static inline void store_few(float *o, vf v, int n) {
#if defined VM_AVX512
  if (n == 8) {
    _mm256_storeu_ps(o, _mm512_castps512_ps256((__m512)v));
    return;
  }
#endif
#if defined VM_AVX512 || defined VM_AVX2
  if (n == 4 || n == 2 || n == 1) {
    const tiny4 x = {v[0], v[1], v[2], v[3]};
    if (n == 4)
      memcpy(o, &x, 16);
    else if (n == 2)
      memcpy(o, &x, 8);
    else
      *o = x[0];
    return;
  }
#endif
  if (n == VF_N)
    vf_store(o, v);
  else
    vf_store_part(o, v, n);
}
#define FEW(NAME, FN)                                                                   \
  static void NAME(void *out, const void *a, const void *b, const void *c, int64_t n) { \
    (void)b, (void)c;                                                                   \
    store_few(out, FN(load_few(a, (int)n)), (int)n);                                    \
  }
FEW(few_exp, vm_exp)
FEW(few_log, vm_log)
FEW(few_tanh, vm_tanh)

/* One element */
#define ONE(NAME, OP)                                                                         \
  static void one_##NAME(void *out, const void *a, const void *b, const void *c, int64_t n) { \
    (void)c, (void)n;                                                                         \
    x_tiny(OP, 0, out, a, b, 1);                                                              \
  }
ONE(add, X_ADD)
ONE(sub, X_SUB)
ONE(mul, X_MUL)
ONE(div, X_DIV)
ONE(neg, X_NEG)
ONE(root, X_SQRT)

cpu_map_fn x_tiny_map(uint32_t op, uint32_t splat, int64_t n) {
  static const cpu_map_fn two[4][4] = {{add_0, add_1, add_2, one_add},
                                       {sub_0, sub_1, sub_2, one_sub},
                                       {mul_0, mul_1, mul_2, one_mul},
                                       {div_0, div_1, div_2, one_div}};
  if (n > X_TINY_MOST || n < 1) return NULL;
  if (op >= TERN_OP_ADD && op <= TERN_OP_DIV && splat < 3) return two[op - TERN_OP_ADD][n == 1 ? 3 : splat];
  if (splat) return NULL;
  if (op == TERN_OP_EXP || op == TERN_OP_LOG || op == TERN_OP_TANH)
    return n > VF_N ? NULL : op == TERN_OP_EXP ? few_exp : op == TERN_OP_LOG ? few_log : few_tanh;
  return op == TERN_OP_NEG ? (n == 1 ? one_neg : neg) : op == TERN_OP_SQRT ? (n == 1 ? one_root : root) : NULL;
}
