/* float16 and bfloat16: conversions to and from float32, and every instruction as: unpack a block, compute in
   float32, round once (to nearest, ties to even). What only touches the sign or tests bits works on the bits. */
#include "map.h"
#if defined __F16C__ || defined __AVX512F__
#include <immintrin.h>
#elif defined __aarch64__
#include <arm_neon.h>
#endif

static inline float as_float(uint32_t u) {
  float f;
  memcpy(&f, &u, 4);
  return f;
}
static inline uint32_t as_bits(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  return u;
}
/* The exponent moves by a product with 2^112, which turns float16's subnormals into normal numbers too */
static inline float f16_to_f32(uint16_t h) {
  const uint32_t magnitude = (uint32_t)(h & 0x7fff) << 13, special = (h & 0x7fff) >= 0x7c00 ? 0x7f800000u : 0;
  const uint32_t quiet = (h & 0x7fff) > 0x7c00 ? 0x400000u : 0;
  return as_float(as_bits(as_float(magnitude) * 0x1p112f) | special | quiet | (uint32_t)(h & 0x8000) << 16);
}
static inline uint16_t f16_from_f32(float x) {
  const uint32_t u = as_bits(x), a = u & 0x7fffffff;
  const uint32_t normal = (a - 0x38000000u + 0xfffu + ((a >> 13) & 1)) >> 13; /* may carry into infinity */
  const uint32_t small = as_bits(as_float(a) + 0.5f) - 0x3f000000u; /* one ulp of 1/2 is float16's smallest step */
  const uint32_t nan = 0x7e00u | (a >> 13 & 0x1ff), finite = a < 0x38800000u ? small : normal;
  const uint32_t r = a > 0x7f800000u ? nan : a >= 0x47800000u ? 0x7c00u : finite;
  return (uint16_t)(r | (u >> 16 & 0x8000u));
}
static inline float bf16_to_f32(uint16_t h) {
  return as_float((uint32_t)h << 16);
}
static inline uint16_t bf16_from_f32(float x) {
  const uint32_t u = as_bits(x), rounded = (u + 0x7fffu + (u >> 16 & 1)) >> 16;
  return (uint16_t)((u & 0x7fffffff) > 0x7f800000u ? u >> 16 | 0x40u : rounded);
}

float map_half_to_f32(uint16_t h, uint32_t dtype) {
  return dtype == TERN_F16 ? f16_to_f32(h) : bf16_to_f32(h);
}
uint16_t map_half_from_f32(float x, uint32_t dtype) {
  return dtype == TERN_F16 ? f16_from_f32(x) : bf16_from_f32(x);
}

void map_half_unpack(float *out, const uint16_t *in, uint32_t dtype, int64_t n) {
  int64_t i = 0;
  if (dtype == TERN_BF16) {
    MAP_LOOP for (; i < n; i++) out[i] = bf16_to_f32(in[i]);
    return;
  }
#if defined __AVX512F__
  for (; i + 16 <= n; i += 16) _mm512_storeu_ps(out + i, _mm512_cvtph_ps(_mm256_loadu_si256((const void *)(in + i))));
#elif defined __F16C__
  for (; i + 8 <= n; i += 8) _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128((const void *)(in + i))));
#elif defined __aarch64__
  for (; i + 4 <= n; i += 4) vst1q_f32(out + i, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(in + i))));
#endif
  MAP_LOOP for (; i < n; i++) out[i] = f16_to_f32(in[i]);
}
void map_half_pack(uint16_t *out, const float *in, uint32_t dtype, int64_t n) {
  int64_t i = 0;
  if (dtype == TERN_BF16) {
    MAP_LOOP for (; i < n; i++) out[i] = bf16_from_f32(in[i]);
    return;
  }
#if defined __AVX512F__
  for (; i + 16 <= n; i += 16)
    _mm256_storeu_si256((void *)(out + i), _mm512_cvtps_ph(_mm512_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT));
#elif defined __F16C__
  for (; i + 8 <= n; i += 8)
    _mm_storeu_si128((void *)(out + i), _mm256_cvtps_ph(_mm256_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT));
#elif defined __aarch64__
  for (; i + 4 <= n; i += 4) vst1_u16(out + i, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(in + i))));
#endif
  MAP_LOOP for (; i < n; i++) out[i] = f16_from_f32(in[i]);
}

enum { BLOCK = 256 };
static inline void half_unary(uint32_t op, uint32_t dtype, uint16_t *out, const uint16_t *a, int64_t n) {
  const cpu_map_fn fn = cpu_map(op, TERN_F32, TERN_F32, 0);
  float x[BLOCK];
  for (int64_t i = 0; i < n; i += BLOCK) {
    const int64_t m = n - i < BLOCK ? n - i : BLOCK;
    map_half_unpack(x, a + i, dtype, m);
    fn(x, x, NULL, NULL, m);
    map_half_pack(out + i, x, dtype, m);
  }
}
/* splat, test: literals. A test's output is BOOL, one byte an element */
static inline void half_binary(uint32_t op, uint32_t dtype, uint32_t splat, int test, void *out, const uint16_t *a,
                               const uint16_t *b, int64_t n) {
  const cpu_map_fn fn = cpu_map(op, TERN_F32, TERN_F32, splat);
  float x[BLOCK], y[BLOCK];
  if (splat == 1) x[0] = map_half_to_f32(*a, dtype);
  if (splat == 2) y[0] = map_half_to_f32(*b, dtype);
  for (int64_t i = 0; i < n; i += BLOCK) {
    const int64_t m = n - i < BLOCK ? n - i : BLOCK;
    if (splat != 1) map_half_unpack(x, a + i, dtype, m);
    if (splat != 2) map_half_unpack(y, b + i, dtype, m);
    if (test) {
      fn((uint8_t *)out + i, x, y, NULL, m);
    } else {
      float *r = splat == 1 ? y : x;
      fn(r, x, y, NULL, m);
      map_half_pack((uint16_t *)out + i, r, dtype, m);
    }
  }
}

#define HALVES(X, OP, ...) X(f16, TERN_F16, OP, __VA_ARGS__) X(bf16, TERN_BF16, OP, __VA_ARGS__)
#define UNARY(N, D, OP, ...)                                                                          \
  static void N##_##OP(void *out, const void *a, const void *b, const void *c, int64_t n) {           \
    (void)b, (void)c;                                                                                 \
    half_unary(TERN_OP_##OP, D, out, a, n);                                                           \
  }
#define BINARY_AS(NAME, D, OP, SPLAT, TEST)                                                           \
  static void NAME(void *out, const void *a, const void *b, const void *c, int64_t n) {               \
    (void)c;                                                                                          \
    half_binary(TERN_OP_##OP, D, SPLAT, TEST, out, a, b, n);                                          \
  }
#define BINARY(N, D, OP, TEST)                \
  BINARY_AS(N##_##OP##_0, D, OP, 0, TEST)     \
  BINARY_AS(N##_##OP##_1, D, OP, 1, TEST)     \
  BINARY_AS(N##_##OP##_2, D, OP, 2, TEST)
#define UNARY_OPS(X)                                                                                             \
  X(EXP) X(SQRT) X(SIGN) X(RSQRT) X(RECIPROCAL) X(EXP2) X(EXPM1) X(LOG) X(LOG2) X(LOG10) X(LOG1P) X(CBRT) X(SIN) \
  X(COS) X(TAN) X(ASIN) X(ACOS) X(ATAN) X(SINH) X(COSH) X(TANH) X(ASINH) X(ACOSH) X(ATANH) X(ERF) X(ERFC)        \
  X(ERFINV) X(SINPI) X(COSPI) X(FLOOR) X(CEIL) X(ROUND) X(TRUNC)
#define BINARY_OPS(X)                                                                                            \
  X(ADD, 0) X(SUB, 0) X(MUL, 0) X(DIV, 0) X(MAXIMUM, 0) X(MINIMUM, 0) X(POW, 0) X(FLOORDIV, 0) X(MOD, 0)         \
  X(FMOD, 0) X(ATAN2, 0) X(HYPOT, 0) X(EQ, 1) X(NE, 1) X(LT, 1) X(LE, 1) X(GT, 1) X(GE, 1)
#define DEFINE1(OP) HALVES(UNARY, OP, )
#define DEFINE2(OP, TEST) HALVES(BINARY, OP, TEST)
UNARY_OPS(DEFINE1)
BINARY_OPS(DEFINE2)

/* INF: the bits of infinity */
#define ON_BITS(N, D, INF, ...)                                                        \
  MAP_FN1(N##_NEG, uint16_t, uint16_t, x ^ 0x8000)                                     \
  MAP_FN1(N##_ABS, uint16_t, uint16_t, x & 0x7fff)                                     \
  MAP_FN1(N##_ISNAN, uint8_t, uint16_t, (x & 0x7fff) > INF)                            \
  MAP_FN1(N##_ISINF, uint8_t, uint16_t, (x & 0x7fff) == INF)                           \
  MAP_FN1(N##_ISFINITE, uint8_t, uint16_t, (x & 0x7fff) < INF)                         \
  MAP_FN1(N##_SIGNBIT, uint8_t, uint16_t, x >> 15)                                     \
  MAP_FN2_SPLAT(N##_COPYSIGN, uint16_t, uint16_t, (x & 0x7fff) | (y & 0x8000))
ON_BITS(f16, TERN_F16, 0x7c00)
ON_BITS(bf16, TERN_BF16, 0x7f80)
#define BITS_OPS(X) X(NEG) X(ABS) X(ISNAN) X(ISINF) X(ISFINITE) X(SIGNBIT)

#define ROW1(OP) [TERN_OP_##OP] = {f16_##OP, bf16_##OP},
static const cpu_map_fn unary[TERN_OP_SIGNBIT + 1][2] = {UNARY_OPS(ROW1) BITS_OPS(ROW1)};
enum { FIRST = TERN_OP_ADD, COUNT = TERN_OP_GE - TERN_OP_ADD + 1 };
#define ROW2(OP, TEST) [TERN_OP_##OP - FIRST] = {MAP_SPLATS(f16_##OP), MAP_SPLATS(bf16_##OP)},
static const cpu_map_fn binary[COUNT][2][3] = {BINARY_OPS(ROW2) ROW2(COPYSIGN, 0)};

cpu_map_fn map_half_find(uint32_t op, uint32_t dtype, uint32_t splat) {
  const int column = dtype == TERN_BF16;
  if (op <= TERN_OP_SIGNBIT) return splat ? NULL : unary[op][column];
  if (op < FIRST || op - FIRST >= COUNT || splat > 2) return NULL;
  return binary[op - FIRST][column][splat];
}
