/* CAST between all dtypes. Float to integer saturates and NaN gives 0; to BOOL is x != 0. The 16-bit formats go
   through float32 in blocks; what float32 cannot hold is rounded to odd on the way, so that the result is rounded
   once. */
#include "map.h"

/* TOP is one more than the largest T, MIN the smallest: both exact in F */
#define SATURATE(NAME, F, T, MIN, TOP, MAX)             \
  static inline T NAME(F x) {                           \
    const F low = x < (F)(MIN) ? (F)(MIN) : x;          \
    const F y = low < (F)(TOP) ? low : (F)0;            \
    return x >= (F)(TOP) ? (T)MAX : (T)y;               \
  }
#define SATURATE_ALL(N, F)                                                     \
  SATURATE(N##_to_i8, F, int8_t, -0x1p7, 0x1p7, INT8_MAX)                      \
  SATURATE(N##_to_i16, F, int16_t, -0x1p15, 0x1p15, INT16_MAX)                 \
  SATURATE(N##_to_i32, F, int32_t, -0x1p31, 0x1p31, INT32_MAX)                 \
  SATURATE(N##_to_i64, F, int64_t, -0x1p63, 0x1p63, INT64_MAX)                 \
  SATURATE(N##_to_u8, F, uint8_t, 0, 0x1p8, UINT8_MAX)                         \
  SATURATE(N##_to_u16, F, uint16_t, 0, 0x1p16, UINT16_MAX)                     \
  SATURATE(N##_to_u32, F, uint32_t, 0, 0x1p32, UINT32_MAX)                     \
  SATURATE(N##_to_u64, F, uint64_t, 0, 0x1p64, UINT64_MAX)
SATURATE_ALL(f32, float)
SATURATE_ALL(f64, double)

#define CASTS_TO_FLOAT(N, T)                 \
  MAP_FN1(N##_b8, uint8_t, T, x != 0)      \
  MAP_FN1(N##_f32, float, T, x)              \
  MAP_FN1(N##_f64, double, T, x)
#define CASTS_INT(N, T)                      \
  MAP_FN1(N##_i8, int8_t, T, x)              \
  MAP_FN1(N##_i16, int16_t, T, x)            \
  MAP_FN1(N##_i32, int32_t, T, x)            \
  MAP_FN1(N##_i64, int64_t, T, x)            \
  MAP_FN1(N##_u8, uint8_t, T, x)             \
  MAP_FN1(N##_u16, uint16_t, T, x)           \
  MAP_FN1(N##_u32, uint32_t, T, x)           \
  MAP_FN1(N##_u64, uint64_t, T, x)           \
  CASTS_TO_FLOAT(N, T)
#define CASTS_FLOAT(N, T)                    \
  MAP_FN1(N##_i8, int8_t, T, N##_to_i8(x))   \
  MAP_FN1(N##_i16, int16_t, T, N##_to_i16(x)) \
  MAP_FN1(N##_i32, int32_t, T, N##_to_i32(x)) \
  MAP_FN1(N##_i64, int64_t, T, N##_to_i64(x)) \
  MAP_FN1(N##_u8, uint8_t, T, N##_to_u8(x))  \
  MAP_FN1(N##_u16, uint16_t, T, N##_to_u16(x)) \
  MAP_FN1(N##_u32, uint32_t, T, N##_to_u32(x)) \
  MAP_FN1(N##_u64, uint64_t, T, N##_to_u64(x)) \
  CASTS_TO_FLOAT(N, T)
CASTS_INT(b8, uint8_t)
CASTS_INT(i8, int8_t)
CASTS_INT(i16, int16_t)
CASTS_INT(i32, int32_t)
CASTS_INT(i64, int64_t)
CASTS_INT(u8, uint8_t)
CASTS_INT(u16, uint16_t)
CASTS_INT(u32, uint32_t)
CASTS_INT(u64, uint64_t)
CASTS_FLOAT(f32, float)
CASTS_FLOAT(f64, double)

MAP_FN1(i32_odd, float, int32_t, map_odd_f64(x))
MAP_FN1(u32_odd, float, uint32_t, map_odd_f64(x))
MAP_FN1(i64_odd, float, int64_t, map_odd_i64(x))
MAP_FN1(u64_odd, float, uint64_t, map_odd_u64(x))
MAP_FN1(f64_odd, float, double, map_odd_f64(x))

/* To a half format: `to_f32` by blocks, then packed. In place reads each block before it writes it */
enum { BLOCK = 256 };
static inline void to_half(uint16_t *out, const char *in, size_t size, uint32_t dtype, cpu_map_fn to_f32, int64_t n) {
  float x[BLOCK];
  for (int64_t i = 0; i < n; i += BLOCK) {
    const int64_t m = n - i < BLOCK ? n - i : BLOCK;
    to_f32(x, in + (size_t)i * size, NULL, NULL, m);
    map_half_pack(out + i, x, dtype, m);
  }
}
#define TO_HALF(N, T, TO_F32)                                                                        \
  static void N##_f16(void *out, const void *a, const void *b, const void *c, int64_t n) {           \
    (void)b, (void)c;                                                                                \
    to_half(out, a, sizeof(T), TERN_F16, TO_F32, n);                                                 \
  }                                                                                                  \
  static void N##_bf16(void *out, const void *a, const void *b, const void *c, int64_t n) {          \
    (void)b, (void)c;                                                                                \
    to_half(out, a, sizeof(T), TERN_BF16, TO_F32, n);                                                \
  }
TO_HALF(b8, uint8_t, b8_f32)
TO_HALF(i8, int8_t, i8_f32)
TO_HALF(i16, int16_t, i16_f32)
TO_HALF(i32, int32_t, i32_odd)
TO_HALF(i64, int64_t, i64_odd)
TO_HALF(u8, uint8_t, u8_f32)
TO_HALF(u16, uint16_t, u16_f32)
TO_HALF(u32, uint32_t, u32_odd)
TO_HALF(u64, uint64_t, u64_odd)
TO_HALF(f64, double, f64_odd)
static void f32_f16(void *out, const void *a, const void *b, const void *c, int64_t n) {
  (void)b, (void)c;
  map_half_pack(out, a, TERN_F16, n);
}
static void f32_bf16(void *out, const void *a, const void *b, const void *c, int64_t n) {
  (void)b, (void)c;
  map_half_pack(out, a, TERN_BF16, n);
}

/* From a half format: unpacked by blocks, then as float32 */
static inline void from_half(char *out, size_t size, const uint16_t *in, uint32_t dtype, cpu_map_fn from_f32, int64_t n) {
  float x[BLOCK];
  for (int64_t i = 0; i < n; i += BLOCK) {
    const int64_t m = n - i < BLOCK ? n - i : BLOCK;
    map_half_unpack(x, in + i, dtype, m);
    from_f32(out + (size_t)i * size, x, NULL, NULL, m);
  }
}
#define FROM_HALF(H, D, N, T)                                                                        \
  static void H##_##N(void *out, const void *a, const void *b, const void *c, int64_t n) {           \
    (void)b, (void)c;                                                                                \
    from_half(out, sizeof(T), a, D, f32_##N, n);                                                     \
  }
#define FROM_HALF_ALL(H, D)                                                                          \
  FROM_HALF(H, D, b8, uint8_t)                                                                     \
  FROM_HALF(H, D, i8, int8_t)                                                                        \
  FROM_HALF(H, D, i16, int16_t)                                                                      \
  FROM_HALF(H, D, i32, int32_t)                                                                      \
  FROM_HALF(H, D, i64, int64_t)                                                                      \
  FROM_HALF(H, D, u8, uint8_t)                                                                       \
  FROM_HALF(H, D, u16, uint16_t)                                                                     \
  FROM_HALF(H, D, u32, uint32_t)                                                                     \
  FROM_HALF(H, D, u64, uint64_t)                                                                     \
  FROM_HALF(H, D, f64, double)                                                                       \
  static void H##_f32(void *out, const void *a, const void *b, const void *c, int64_t n) {           \
    (void)b, (void)c;                                                                                \
    map_half_unpack(out, a, D, n);                                                                   \
  }
FROM_HALF_ALL(f16, TERN_F16)
FROM_HALF_ALL(bf16, TERN_BF16)
FROM_HALF(f16, TERN_F16, bf16, uint16_t)
FROM_HALF(bf16, TERN_BF16, f16, uint16_t)

#define ROW(N)                                                                                                     \
  [TERN_BOOL] = N##_b8, [TERN_I8] = N##_i8, [TERN_I16] = N##_i16, [TERN_I32] = N##_i32, [TERN_I64] = N##_i64,    \
  [TERN_U8] = N##_u8, [TERN_U16] = N##_u16, [TERN_U32] = N##_u32, [TERN_U64] = N##_u64, [TERN_F32] = N##_f32,      \
  [TERN_F64] = N##_f64
#define HALF_COLUMNS(N) [TERN_F16] = N##_f16, [TERN_BF16] = N##_bf16
static const cpu_map_fn casts[TERN_DTYPE_END][TERN_DTYPE_END] = { /* from, to */
  [TERN_BOOL] = {ROW(b8), HALF_COLUMNS(b8)}, [TERN_I8] = {ROW(i8), HALF_COLUMNS(i8)},
  [TERN_I16] = {ROW(i16), HALF_COLUMNS(i16)},    [TERN_I32] = {ROW(i32), HALF_COLUMNS(i32)},
  [TERN_I64] = {ROW(i64), HALF_COLUMNS(i64)},    [TERN_U8] = {ROW(u8), HALF_COLUMNS(u8)},
  [TERN_U16] = {ROW(u16), HALF_COLUMNS(u16)},    [TERN_U32] = {ROW(u32), HALF_COLUMNS(u32)},
  [TERN_U64] = {ROW(u64), HALF_COLUMNS(u64)},    [TERN_F32] = {ROW(f32), HALF_COLUMNS(f32)},
  [TERN_F64] = {ROW(f64), HALF_COLUMNS(f64)},    [TERN_F16] = {ROW(f16), [TERN_BF16] = f16_bf16},
  [TERN_BF16] = {ROW(bf16), [TERN_F16] = bf16_f16}
};

cpu_map_fn map_cast_find(uint32_t in_dtype, uint32_t out_dtype) {
  return in_dtype == out_dtype ? cpu_map(TERN_OP_COPY, in_dtype, in_dtype, 0) : casts[in_dtype][out_dtype];
}
