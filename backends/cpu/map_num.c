/* Arithmetic and comparisons of BOOL, the integers, float32 and float64, each with either input as one element. Plain
   loops for the vectoriser; nothing here may contract: one operation, one rounding. */
#include "map.h"

#define INT_ARITH(N, D, T, W)                                \
  MAP_FN2_SPLAT(add_##N, T, T, (W)x + (W)y)                  \
  MAP_FN2_SPLAT(sub_##N, T, T, (W)x - (W)y)                  \
  MAP_FN2_SPLAT(mul_##N, T, T, (W)x * (W)y)                  \
  MAP_FN1(neg_##N, T, T, 0 - (W)x)
MAP_INTS(INT_ARITH)
#define SINT_SIGN(N, D, T, W)                                \
  MAP_FN1(abs_##N, T, T, x < 0 ? 0 - (W)x : (W)x)            \
  MAP_FN1(sign_##N, T, T, (x > 0) - (x < 0))
MAP_SINTS(SINT_SIGN)
#define UINT_SIGN(N, D, T, W)                                \
  MAP_FN1(abs_##N, T, T, x)                                  \
  MAP_FN1(sign_##N, T, T, x != 0)
MAP_UINTS(UINT_SIGN)
#define FLOAT_ARITH(N, D, T, W)                              \
  MAP_FN2_SPLAT(add_##N, T, T, x + y)                        \
  MAP_FN2_SPLAT(sub_##N, T, T, x - y)                        \
  MAP_FN2_SPLAT(mul_##N, T, T, x * y)                        \
  MAP_FN2_SPLAT(div_##N, T, T, x / y)                        \
  MAP_FN1(neg_##N, T, T, -x)                                 \
  MAP_FN1(recip_##N, T, T, (T)1 / x)                         \
  MAP_FN1(sign_##N, T, T, x > 0 ? (T)1 : x < 0 ? (T)-1 : x)
MAP_FLOATS(FLOAT_ARITH)
MAP_FN1(abs_f32, float, float, __builtin_fabsf(x))
MAP_FN1(abs_f64, double, double, __builtin_fabs(x))
MAP_FN1(sqrt_f64, double, double, sqrt(x))

/* A NaN in x is chosen by the first test, one in y by failing the second */
#define FLOAT_ORDER(N, D, T, W)                              \
  MAP_FN2_SPLAT(max_##N, T, T, x != x ? x : x > y ? x : y)   \
  MAP_FN2_SPLAT(min_##N, T, T, x != x ? x : x < y ? x : y)
MAP_FLOATS(FLOAT_ORDER)
#define INT_ORDER(N, D, T, W)                                \
  MAP_FN2_SPLAT(max_##N, T, T, x > y ? x : y)                \
  MAP_FN2_SPLAT(min_##N, T, T, x < y ? x : y)
MAP_INTS(INT_ORDER)

#define COMPARE(N, D, T, W)                                  \
  MAP_FN2_SPLAT(eq_##N, uint8_t, T, x == y)                  \
  MAP_FN2_SPLAT(ne_##N, uint8_t, T, x != y)                  \
  MAP_FN2_SPLAT(lt_##N, uint8_t, T, x < y)                   \
  MAP_FN2_SPLAT(le_##N, uint8_t, T, x <= y)                  \
  MAP_FN2_SPLAT(gt_##N, uint8_t, T, x > y)                   \
  MAP_FN2_SPLAT(ge_##N, uint8_t, T, x >= y)
MAP_INTS(COMPARE)
MAP_FLOATS(COMPARE)

enum { FIRST = TERN_OP_ADD, COUNT = TERN_OP_GE - TERN_OP_ADD + 1 };
#define ROW_NUM(N, D, T, W)                                                                                       \
  [TERN_OP_ADD - FIRST][D] = MAP_SPLATS(add_##N), [TERN_OP_SUB - FIRST][D] = MAP_SPLATS(sub_##N),                 \
  [TERN_OP_MUL - FIRST][D] = MAP_SPLATS(mul_##N), ROW_ORDER(N, D)
#define ROW_DIV(N, D, T, W) [TERN_OP_DIV - FIRST][D] = MAP_SPLATS(div_##N),
#define ROW_ORDER(N, D)                                                                                           \
  [TERN_OP_MAXIMUM - FIRST][D] = MAP_SPLATS(max_##N), [TERN_OP_MINIMUM - FIRST][D] = MAP_SPLATS(min_##N),         \
  [TERN_OP_EQ - FIRST][D] = MAP_SPLATS(eq_##N), [TERN_OP_NE - FIRST][D] = MAP_SPLATS(ne_##N),                     \
  [TERN_OP_LT - FIRST][D] = MAP_SPLATS(lt_##N), [TERN_OP_LE - FIRST][D] = MAP_SPLATS(le_##N),                     \
  [TERN_OP_GT - FIRST][D] = MAP_SPLATS(gt_##N), [TERN_OP_GE - FIRST][D] = MAP_SPLATS(ge_##N),
static const cpu_map_fn binary[COUNT][TERN_DTYPE_END][3] = {
  MAP_INTS(ROW_NUM) MAP_FLOATS(ROW_NUM) MAP_FLOATS(ROW_DIV) ROW_ORDER(u8, TERN_BOOL)
};

#define ROW_UNARY(N, D, T, W)                                                                                     \
  [TERN_OP_NEG][D] = neg_##N, [TERN_OP_ABS][D] = abs_##N, [TERN_OP_SIGN][D] = sign_##N,
#define ROW_UNARY_FLOAT(N, D, T, W) [TERN_OP_RECIPROCAL][D] = recip_##N,
static const cpu_map_fn unary[TERN_OP_RECIPROCAL + 1][TERN_DTYPE_END] = {
  MAP_INTS(ROW_UNARY) MAP_FLOATS(ROW_UNARY) MAP_FLOATS(ROW_UNARY_FLOAT) [TERN_OP_SQRT][TERN_F64] = sqrt_f64
};

cpu_map_fn map_num_find(uint32_t op, uint32_t dtype, uint32_t splat) {
  if (op <= TERN_OP_RECIPROCAL) return splat ? NULL : unary[op][dtype];
  if (op < FIRST || op - FIRST >= COUNT || splat > 2) return NULL;
  return binary[op - FIRST][dtype][splat];
}
