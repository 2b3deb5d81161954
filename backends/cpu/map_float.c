/* Float32 and float64: rounding to integers, tests of class, division with floor and remainders, neighbours. */
#include "map.h"

typedef uint32_t __attribute__((may_alias)) bits_f32;
typedef uint64_t __attribute__((may_alias)) bits_f64;
#if defined __FMA__ || defined __aarch64__
#define HAVE_FMA 1 /* a fused multiply-add is one instruction */
#endif

#define FLOAT_TESTS(N, T, B, ABS, INF)                     \
  MAP_FN1(isnan_##N, uint8_t, T, x != x)                   \
  MAP_FN1(isinf_##N, uint8_t, T, ABS(x) == INF)            \
  MAP_FN1(isfinite_##N, uint8_t, T, ABS(x) < INF)          \
  MAP_FN1(signbit_##N, uint8_t, B, x >> (8 * sizeof(B) - 1))
FLOAT_TESTS(f32, float, bits_f32, __builtin_fabsf, __builtin_inff())
FLOAT_TESTS(f64, double, bits_f64, __builtin_fabs, __builtin_inf())
MAP_FN1(floor_f32, float, float, __builtin_floorf(x))
MAP_FN1(floor_f64, double, double, __builtin_floor(x))
MAP_FN1(ceil_f32, float, float, __builtin_ceilf(x))
MAP_FN1(ceil_f64, double, double, __builtin_ceil(x))
MAP_FN1(round_f32, float, float, __builtin_rintf(x))
MAP_FN1(round_f64, double, double, __builtin_rint(x))
MAP_FN1(trunc_f32, float, float, __builtin_truncf(x))
MAP_FN1(trunc_f64, double, double, __builtin_trunc(x))
MAP_FN2_SPLAT(copysign_f32, float, float, __builtin_copysignf(x, y))
MAP_FN2_SPLAT(copysign_f64, double, double, __builtin_copysign(x, y))

/* The next number from x towards y: one step of the bits, away from zero or back */
#define NEXTAFTER(N, T, I, TINY, COPYSIGN)                 \
  static inline T next_##N(T x, T y) {                     \
    I u;                                                   \
    memcpy(&u, &x, sizeof u);                              \
    u += (x < y) == (x > 0) ? 1 : (I)-1; /* at 0: wraps */ \
    T near;                                                \
    memcpy(&near, &u, sizeof u);                           \
    near = x == 0 ? COPYSIGN((T)TINY, y) : near;           \
    near = x == y ? y : near;                              \
    return x != x || y != y ? x + y : near;                \
  }
NEXTAFTER(f32, float, uint32_t, 0x1p-149f, __builtin_copysignf)
NEXTAFTER(f64, double, uint64_t, 0x1p-1074, __builtin_copysign)
MAP_FN2_SPLAT(nextafter_f32, float, float, next_f32(x, y))
MAP_FN2_SPLAT(nextafter_f64, double, double, next_f64(x, y))

/* Floor of the exact quotient, -1 where a tiny negative one (or a / -inf) came out as -0; inf has no quotient but
   by 0, as in numpy.
   In double the quotient of two floats is never rounded across an integer. */
static inline float floordiv_f32(float x, float y) {
  const double a = x, b = y, q = a / b, k = __builtin_floor(q);
  const double r = q == 0 && a != 0 && (a < 0) != (b < 0) ? -1 : k;
  return __builtin_fabsf(x) == __builtin_inff() && y != 0 ? __builtin_nanf("") : (float)r;
}
static inline double floordiv_f64(double a, double b) {
  const double q = a / b, k = __builtin_floor(q);
#ifdef HAVE_FMA
  const double left = __builtin_fma(-k, b, a); /* its sign is exact: too large a k leaves less than nothing */
#else
  /* q may have been rounded up to the integer k only if there is a remainder: nearly |b|, or nearly 0 when q < 0 */
  const double rem = k == q && __builtin_fabs(q) < 0x1p53 ? fmod(a, b) : 0;
  const int small = __builtin_fabs(rem) < __builtin_fabs(b) / 2, up = rem != 0 && ((a < 0) == (b < 0)) != small;
  const double left = up ? (b < 0 ? 1 : -1) : 0;
#endif
  const int down = __builtin_fabs(q) < 0x1p53 && (b > 0 ? left < 0 : left > 0);
  const int tiny = q == 0 && a != 0 && (a < 0) != (b < 0);
  return __builtin_fabs(a) == __builtin_inf() && b != 0 ? __builtin_nan("") : k - (down | tiny);
}
MAP_FN2_SPLAT(floordiv_f32, float, float, floordiv_f32(x, y))
MAP_FN2_SPLAT(floordiv_f64, double, double, floordiv_f64(x, y))

/* C fmod where the quotient is small enough for a - trunc(a / b) * b to be exact; sets *far where it is not (or not
   finite) */
static inline float near_fmod_f32(float x, float y, int *far) {
  const double a = x, b = y, q = a / b, k = __builtin_trunc(q);
  *far |= !(__builtin_fabs(q) < 0x1p27);
  return __builtin_copysignf(k == 0 ? x : (float)(a - k * b), x);
}
static inline double near_fmod_f64(double a, double b, int *far) {
#ifdef HAVE_FMA
  const double q = a / b, k = __builtin_trunc(q), r = __builtin_fma(-k, b, a);
  const double size = __builtin_copysign(1.0, a) * r; /* below 0 when q was rounded up to k */
  const double rest = size < 0 ? size + __builtin_fabs(b) : size;
  *far |= !(__builtin_fabs(q) < 0x1p52);
  return __builtin_copysign(k == 0 ? a : rest, a);
#else
  *far |= 1;
  return a + b;
#endif
}
/* numpy.remainder from fmod: the divisor's sign */
#define FLOORED(N, T, COPYSIGN)                                                      \
  static inline T floored_##N(T r, T y) {                                            \
    return r == 0 ? COPYSIGN((T)0, y) : r != r || (r < 0) == (y < 0) ? r : r + y;    \
  }
FLOORED(f32, float, __builtin_copysignf)
FLOORED(f64, double, __builtin_copysign)
#define TRUNCATED(r, y) (r)

/* A block is first tried the fast way, into a buffer since out may be an input */
enum { BLOCK = 128 };
#define REMAINDER(NAME, N, T, FMOD, FINISH, X_, Y_)                                          \
  static void NAME(void *out, const void *a_, const void *b_, const void *c_, int64_t n) {   \
    T *o = out, block[BLOCK];                                                                \
    const T *a = a_, *b = b_, x0 = *a, y0 = *b;                                              \
    (void)c_, (void)x0, (void)y0;                                                            \
    for (int64_t first = 0; first < n; first += BLOCK) {                                     \
      const int64_t m = n - first < BLOCK ? n - first : BLOCK;                               \
      int far = 0;                                                                           \
      MAP_LOOP for (int64_t j = 0; j < m; j++) {                                             \
        const int64_t i = first + j;                                                         \
        const T y = Y_, r = near_fmod_##N(X_, y, &far);                                      \
        block[j] = FINISH(r, y);                                                             \
      }                                                                                      \
      if (!far) memcpy(o + first, block, (size_t)m * sizeof(T));                             \
      for (int64_t i = first; far && i < first + m; i++) {                                   \
        const T y = Y_, r = FMOD(X_, y);                                                     \
        o[i] = FINISH(r, y);                                                                 \
      }                                                                                      \
    }                                                                                        \
  }
#define REMAINDERS(NAME, N, T, FMOD, FINISH)           \
  REMAINDER(NAME##_0, N, T, FMOD, FINISH, a[i], b[i])  \
  REMAINDER(NAME##_1, N, T, FMOD, FINISH, x0, b[i])    \
  REMAINDER(NAME##_2, N, T, FMOD, FINISH, a[i], y0)
REMAINDERS(fmod_f32, f32, float, fmodf, TRUNCATED)
REMAINDERS(fmod_f64, f64, double, fmod, TRUNCATED)
REMAINDERS(mod_f32, f32, float, fmodf, floored_f32)
REMAINDERS(mod_f64, f64, double, fmod, floored_f64)

enum { FIRST1 = TERN_OP_FLOOR, COUNT1 = TERN_OP_SIGNBIT - FIRST1 + 1 };
#define ROW1(N, D)                                                                                                    \
  [TERN_OP_FLOOR - FIRST1][D] = floor_##N, [TERN_OP_CEIL - FIRST1][D] = ceil_##N,                                     \
  [TERN_OP_ROUND - FIRST1][D] = round_##N, [TERN_OP_TRUNC - FIRST1][D] = trunc_##N,                                   \
  [TERN_OP_ISNAN - FIRST1][D] = isnan_##N, [TERN_OP_ISINF - FIRST1][D] = isinf_##N,                                   \
  [TERN_OP_ISFINITE - FIRST1][D] = isfinite_##N, [TERN_OP_SIGNBIT - FIRST1][D] = signbit_##N
static const cpu_map_fn unary[COUNT1][2] = {ROW1(f32, 0), ROW1(f64, 1)};
enum { FIRST2 = TERN_OP_FLOORDIV, COUNT2 = TERN_OP_NEXTAFTER - FIRST2 + 1 };
#define ROW2(N, D)                                                                                                    \
  [TERN_OP_FLOORDIV - FIRST2][D] = MAP_SPLATS(floordiv_##N), [TERN_OP_MOD - FIRST2][D] = MAP_SPLATS(mod_##N),         \
  [TERN_OP_FMOD - FIRST2][D] = MAP_SPLATS(fmod_##N), [TERN_OP_COPYSIGN - FIRST2][D] = MAP_SPLATS(copysign_##N),       \
  [TERN_OP_NEXTAFTER - FIRST2][D] = MAP_SPLATS(nextafter_##N)
static const cpu_map_fn binary[COUNT2][2][3] = {ROW2(f32, 0), ROW2(f64, 1)};

cpu_map_fn map_float_find(uint32_t op, uint32_t dtype, uint32_t splat) {
  if (dtype != TERN_F32 && dtype != TERN_F64) return NULL;
  const int column = dtype == TERN_F64;
  if (op >= FIRST1 && op - FIRST1 < COUNT1) return splat ? NULL : unary[op - FIRST1][column];
  if (op < FIRST2 || op - FIRST2 >= COUNT2 || splat > 2) return NULL;
  return binary[op - FIRST2][column][splat];
}
