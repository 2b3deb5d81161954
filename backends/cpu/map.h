/* What the map*.c files share: the loop macros (the table is op x dtype, hence macros) and each family's look-up.
   Loops over plain C expressions are left to the vectoriser; float32 maths uses vmath*.h. */
#ifndef TERN_CPU_MAP_H_
#define TERN_CPU_MAP_H_
#include "cpu.h"
#include <math.h>
#include <string.h>

/* As cpu_map, but with stores that pass the cache by, for outputs much larger than it. Float32 and float64 ADD, SUB,
   MUL, DIV and COPY, else NULL. out must not be read soon; n should be large. */
cpu_map_fn cpu_map_stream(uint32_t op, uint32_t dtype, uint32_t splat);

/* map_num.c: + - * /, max, min, comparisons, sign */
cpu_map_fn map_num_find(uint32_t op, uint32_t dtype, uint32_t splat);
/* map_div.c: float32 by one divisor, faster than map_num.c's; else NULL */
cpu_map_fn map_div_find(uint32_t op, uint32_t dtype, uint32_t splat);
/* map_int.c: bits, shifts, integer pow and division */
cpu_map_fn map_int_find(uint32_t op, uint32_t dtype, uint32_t splat);
cpu_map_fn map_cast_find(uint32_t in_dtype, uint32_t out_dtype);        /* map_cast.c */
/* map_float.c: rounding, tests, float division */
cpu_map_fn map_float_find(uint32_t op, uint32_t dtype, uint32_t splat);
cpu_map_fn map_f32_find(uint32_t op, uint32_t splat);                   /* map_f32.c: float32 functions */
cpu_map_fn map_f64_find(uint32_t op, uint32_t splat);                   /* map_f64.c: float64 functions */
cpu_map_fn map_half_find(uint32_t op, uint32_t dtype, uint32_t splat);  /* map_half.c: float16 and bfloat16, all ops */
float map_half_to_f32(uint16_t h, uint32_t dtype);
uint16_t map_half_from_f32(float x, uint32_t dtype);
/* Between float32 and the half format `dtype` */
void map_half_unpack(float *out, const uint16_t *in, uint32_t dtype, int64_t n);
void map_half_pack(uint16_t *out, const float *in, uint32_t dtype, int64_t n);

/* x to float32, an inexact one to the neighbour whose last bit is odd: rounding that to 16 bits rounds x only once */
static inline float map_odd_f64(double x) {
  float f = (float)x;
  uint32_t u;
  memcpy(&u, &f, 4);
  u = __builtin_fabs((double)f) > __builtin_fabs(x) ? (u - 1) | 1 : (double)f != x && x == x ? u | 1 : u;
  memcpy(&f, &u, 4);
  return f;
}
/* What double cannot hold is itself rounded to odd, at the 12th bit */
static inline float map_odd_i64(int64_t x) {
  const double small = (double)x, large = (double)(x >> 12 | ((x & 4095) != 0)) * 4096;
  return map_odd_f64(x >> 52 == 0 || x >> 52 == -1 ? small : large);
}
static inline float map_odd_u64(uint64_t x) {
  const double small = (double)x, large = (double)(x >> 12 | ((x & 4095) != 0)) * 4096;
  return map_odd_f64(x >> 52 == 0 ? small : large);
}

/* No element's result is read by another: out may be an input, element for element */
#if defined __clang__
#pragma clang diagnostic ignored "-Wpass-failed" /* some loops cannot be vectorised, and need not be */
#define MAP_LOOP _Pragma("clang loop vectorize(assume_safety)")
#else
#define MAP_LOOP _Pragma("GCC ivdep")
#endif

/* X(name, dtype, C type, unsigned type wide enough to wrap in) */
#define MAP_SINTS(X) \
  X(i8, TERN_I8, int8_t, uint32_t) X(i16, TERN_I16, int16_t, uint32_t) X(i32, TERN_I32, int32_t, uint32_t) \
  X(i64, TERN_I64, int64_t, uint64_t)
#define MAP_UINTS(X) \
  X(u8, TERN_U8, uint8_t, uint32_t) X(u16, TERN_U16, uint16_t, uint32_t) X(u32, TERN_U32, uint32_t, uint32_t) \
  X(u64, TERN_U64, uint64_t, uint64_t)
#define MAP_INTS(X) MAP_SINTS(X) MAP_UINTS(X)
#define MAP_FLOATS(X) X(f32, TERN_F32, float, float) X(f64, TERN_F64, double, double)

/* One function: EXPR of x (and y) over TI gives TO */
#define MAP_FN1(NAME, TO, TI, EXPR)                                                                             \
  static void NAME(void *out, const void *a_, const void *b_, const void *c_, int64_t n) {                      \
    TO *o = out;                                                                                                \
    const TI *a = a_;                                                                                           \
    (void)b_, (void)c_;                                                                                         \
    MAP_LOOP for (int64_t i = 0; i < n; i++) {                                                                  \
      const TI x = a[i];                                                                                        \
      o[i] = (TO)(EXPR);                                                                                        \
    }                                                                                                           \
  }
#define MAP_FN2(NAME, TO, TI, EXPR) MAP_FN2_AS(NAME, TO, TI, EXPR, a[i], b[i])
#define MAP_FN2_AS(NAME, TO, TI, EXPR, X_, Y_)                                                                  \
  static void NAME(void *out, const void *a_, const void *b_, const void *c_, int64_t n) {                      \
    TO *o = out;                                                                                                \
    const TI *a = a_, *b = b_, x0 = *a, y0 = *b;                                                                \
    (void)c_, (void)x0, (void)y0;                                                                               \
    MAP_LOOP for (int64_t i = 0; i < n; i++) {                                                                  \
      const TI x = X_, y = Y_;                                                                                  \
      o[i] = (TO)(EXPR);                                                                                        \
    }                                                                                                           \
  }
/* NAME_0, and with input 0 or input 1 as one element NAME_1, NAME_2 */
#define MAP_FN2_SPLAT(NAME, TO, TI, EXPR)      \
  MAP_FN2_AS(NAME##_0, TO, TI, EXPR, a[i], b[i]) \
  MAP_FN2_AS(NAME##_1, TO, TI, EXPR, x0, b[i])   \
  MAP_FN2_AS(NAME##_2, TO, TI, EXPR, a[i], y0)
#define MAP_SPLATS(NAME) {NAME##_0, NAME##_1, NAME##_2}
#endif
