/* Float32 arithmetic on a handful of elements, inline: by pieces of 8, 4, 2 and 1. The next instruction loads the same
   pieces that this one stores, so that a load never waits for two stores or for part of one, which costs more than
   everything else here. */
#ifndef TERN_CPU_EXEC_TINY_H_
#define TERN_CPU_EXEC_TINY_H_
#include "cpu.h"
#include <string.h>
#ifdef __x86_64__
#include <immintrin.h>
#else
#include <math.h>
#endif

enum { X_TINY_MOST = 31 };
enum { X_ADD, X_SUB, X_MUL, X_DIV, X_NEG, X_SQRT, X_TINY_OPS };

typedef float tiny8 __attribute__((vector_size(32)));
typedef float tiny4 __attribute__((vector_size(16)));
typedef float tiny2 __attribute__((vector_size(8)));
#define TINY_INLINE static inline __attribute__((always_inline))

TINY_INLINE tiny4 tiny_sqrt4(tiny4 x) {
#ifdef __x86_64__
  return (tiny4)_mm_sqrt_ps((__m128)x);
#else
  return (tiny4){sqrtf(x[0]), sqrtf(x[1]), sqrtf(x[2]), sqrtf(x[3])};
#endif
}

/* x op y on one piece of a type with the four operators; root: its square root */
#define TINY_STEP(TYPE, ROOT)             \
  do {                                    \
    TYPE x, y, r;                         \
    if (splat & 1)                        \
      x = *a - (TYPE){0};                 \
    else                                  \
      memcpy(&x, a + i, sizeof x);        \
    if (op >= X_NEG)                      \
      y = x;                              \
    else if (splat & 2)                   \
      y = *b - (TYPE){0};                 \
    else                                  \
      memcpy(&y, b + i, sizeof y);        \
    switch (op) {                         \
    case X_ADD: r = x + y; break;         \
    case X_SUB: r = x - y; break;         \
    case X_MUL: r = x * y; break;         \
    case X_DIV: r = x / y; break;         \
    case X_NEG: r = -x; break;            \
    default: r = ROOT; break;             \
    }                                     \
    memcpy(o + i, &r, sizeof r);          \
    i += (int64_t)(sizeof r / sizeof *o); \
  } while (0)

/* o[i] = a[i] op b[i], i < n <= X_TINY_MOST; op, splat: literals. o may be a or b, element for element */
TINY_INLINE void x_tiny(int op, int splat, float *o, const float *a, const float *b, int64_t n) {
  int64_t i = 0;
#ifdef __AVX__
  for (; n - i >= 8;) TINY_STEP(tiny8, (tiny8)_mm256_sqrt_ps((__m256)x));
#endif
  for (; n - i >= 4;) TINY_STEP(tiny4, tiny_sqrt4(x));
  if (n & 2) TINY_STEP(tiny2, __builtin_shufflevector(tiny_sqrt4((tiny4){x[0], x[1], 0, 0}), (tiny4){0}, 0, 1));
  if (n & 1) TINY_STEP(float, __builtin_sqrtf(x));
}

/* A float32 op on n elements, with the bits of cpu_map's; NULL: none for this op, or for so many */
cpu_map_fn x_tiny_map(uint32_t op, uint32_t splat, int64_t n);
#endif
