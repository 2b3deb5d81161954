/* Integer instructions beyond + - *: bits, shifts, division, remainders, powers. Dividing by zero gives 0, INT_MIN /
   -1 wraps. 8, 16 and 32-bit division goes through floating point, where the truncated quotient is exact, because
   that vectorises. */
#include "map.h"

/* Bits, on BOOL (bytes 0 and 1) and integers */
#define BITS(N, D, T, W)                                      \
  MAP_FN1(not_##N, T, T, ~(W)x)                               \
  MAP_FN2_SPLAT(and_##N, T, T, (W)x & (W)y)                   \
  MAP_FN2_SPLAT(or_##N, T, T, (W)x | (W)y)                    \
  MAP_FN2_SPLAT(xor_##N, T, T, (W)x ^ (W)y)
MAP_INTS(BITS)
MAP_FN1(not_bool, uint8_t, uint8_t, x == 0)

/* A count below 0 is a large one when seen as unsigned */
#define WIDTH(T) (8 * sizeof(T))
#define SHIFTS(N, D, T, W, U)                                                                        \
  MAP_FN2_SPLAT(shl_##N, T, T, (U)y < WIDTH(T) ? (W)x << ((W)y & (WIDTH(T) - 1)) : 0)                \
  MAP_FN2_SPLAT(shr_##N, T, T, (U)y < WIDTH(T) ? x >> (y & (T)(WIDTH(T) - 1)) : x < (T)1 ? (T)-(x != 0) : 0)
SHIFTS(i8, , int8_t, uint32_t, uint8_t)
SHIFTS(i16, , int16_t, uint32_t, uint16_t)
SHIFTS(i32, , int32_t, uint32_t, uint32_t)
SHIFTS(i64, , int64_t, uint64_t, uint64_t)
SHIFTS(u8, , uint8_t, uint32_t, uint8_t)
SHIFTS(u16, , uint16_t, uint32_t, uint16_t)
SHIFTS(u32, , uint32_t, uint32_t, uint32_t)
SHIFTS(u64, , uint64_t, uint64_t, uint64_t)

/* Quotient towards zero: q is wide enough for every one, INT_MIN / -1 among them */
#define DIVIDE(N, T, Q, F)                                                                                          \
  static inline Q quot_##N(T x, T y) {                                                                              \
    return (Q)((F)x / (F)(y == 0 ? 1 : y));                                                                         \
  }
#define REMAIN(N, T, Q)                                                                                             \
  static inline Q rem_##N(T x, T y) { return y == 0 ? 0 : (Q)x - quot_##N(x, y) * (Q)y; }
DIVIDE(i8, int8_t, int32_t, float)
DIVIDE(u8, uint8_t, int32_t, float)
DIVIDE(i16, int16_t, int32_t, float)
DIVIDE(u16, uint16_t, int32_t, float)
DIVIDE(i32, int32_t, int64_t, double)
DIVIDE(u32, uint32_t, int64_t, double)
REMAIN(i8, int8_t, int32_t)
REMAIN(u8, uint8_t, int32_t)
REMAIN(i16, int16_t, int32_t)
REMAIN(u16, uint16_t, int32_t)
REMAIN(i32, int32_t, int64_t)
REMAIN(u32, uint32_t, int64_t)
static inline int64_t quot_i64(int64_t x, int64_t y) {
  return y == -1 ? (int64_t)(0 - (uint64_t)x) : y == 0 ? 0 : x / y;
}
static inline int64_t rem_i64(int64_t x, int64_t y) {
  return y == -1 || y == 0 ? 0 : x % y;
}
static inline uint64_t quot_u64(uint64_t x, uint64_t y) {
  return y == 0 ? 0 : x / y;
}
static inline uint64_t rem_u64(uint64_t x, uint64_t y) {
  return y == 0 ? 0 : x % y;
}
/* Floor: one less than towards zero where a remainder has the other sign than the divisor */
#define OTHER_SIGN(N) (rem_##N(x, y) != 0 && (x < 0) != (y < 0))
#define DIVISION_S(N, D, T, W)                                                                       \
  MAP_FN2_SPLAT(floordiv_##N, T, T, y == 0 ? 0 : (W)quot_##N(x, y) - (W)OTHER_SIGN(N))               \
  MAP_FN2_SPLAT(mod_##N, T, T, (W)rem_##N(x, y) + (OTHER_SIGN(N) ? (W)y : 0))                        \
  MAP_FN2_SPLAT(fmod_##N, T, T, rem_##N(x, y))
MAP_SINTS(DIVISION_S)
#define DIVISION_U(N, D, T, W)                                                                       \
  MAP_FN2_SPLAT(floordiv_##N, T, T, y == 0 ? 0 : quot_##N(x, y))                                     \
  MAP_FN2_SPLAT(mod_##N, T, T, rem_##N(x, y))                                                        \
  MAP_FN2_SPLAT(fmod_##N, T, T, rem_##N(x, y))
MAP_UINTS(DIVISION_U)

/* Modulo 2^64, which every narrower type wraps from */
static inline uint64_t power(uint64_t base, uint64_t exponent) {
  uint64_t r = 1;
  for (; exponent; exponent >>= 1, base *= base)
    if (exponent & 1) r *= base;
  return r;
}
static inline uint64_t power_signed(int64_t base, int64_t exponent) {
  if (exponent >= 0) return power((uint64_t)base, (uint64_t)exponent);
  return base == 1 ? 1 : base == -1 ? (exponent & 1 ? (uint64_t)-1 : 1) : 0;
}
#define POWER_S(N, D, T, W) MAP_FN2_SPLAT(pow_##N, T, T, power_signed(x, y))
MAP_SINTS(POWER_S)
#define POWER_U(N, D, T, W) MAP_FN2_SPLAT(pow_##N, T, T, power(x, y))
MAP_UINTS(POWER_U)

enum { FIRST = TERN_OP_POW, COUNT = TERN_OP_SHR - TERN_OP_POW + 1 };
#define ROW_BITS(N, D, T, W)                                                                                      \
  [TERN_OP_AND - FIRST][D] = MAP_SPLATS(and_##N), [TERN_OP_OR - FIRST][D] = MAP_SPLATS(or_##N),                   \
  [TERN_OP_XOR - FIRST][D] = MAP_SPLATS(xor_##N),
#define ROW_INT(N, D, T, W)                                                                                       \
  ROW_BITS(N, D, T, W)                                                                                            \
  [TERN_OP_POW - FIRST][D] = MAP_SPLATS(pow_##N), [TERN_OP_FLOORDIV - FIRST][D] = MAP_SPLATS(floordiv_##N),       \
  [TERN_OP_MOD - FIRST][D] = MAP_SPLATS(mod_##N), [TERN_OP_FMOD - FIRST][D] = MAP_SPLATS(fmod_##N),               \
  [TERN_OP_SHL - FIRST][D] = MAP_SPLATS(shl_##N), [TERN_OP_SHR - FIRST][D] = MAP_SPLATS(shr_##N),
static const cpu_map_fn binary[COUNT][TERN_DTYPE_END][3] = {MAP_INTS(ROW_INT) ROW_BITS(u8, TERN_BOOL, , )};
#define ROW_NOT(N, D, T, W) [D] = not_##N,
static const cpu_map_fn invert[TERN_DTYPE_END] = {MAP_INTS(ROW_NOT)[TERN_BOOL] = not_bool};

cpu_map_fn map_int_find(uint32_t op, uint32_t dtype, uint32_t splat) {
  if (op == TERN_OP_NOT) return splat ? NULL : invert[dtype];
  if (op < FIRST || op - FIRST >= COUNT || splat > 2) return NULL;
  return binary[op - FIRST][dtype][splat];
}
