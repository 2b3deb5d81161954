/* float16 and bfloat16 to and from float32, one element at a time; round to nearest even. Used where operands are
   packed or scanned (contiguous casts are map.c's). Formats: IEEE 754-2008 binary16; bfloat16 is the upper half of a
   binary32. */
#ifndef TERN_CPU_DOT_HALF_H_
#define TERN_CPU_DOT_HALF_H_
#include <stdint.h>
#include <string.h>
#ifdef __F16C__
#include <immintrin.h>
#endif

static inline float half_bits(uint32_t u) {
  float f;
  memcpy(&f, &u, sizeof f);
  return f;
}
static inline uint32_t half_word(float f) {
  uint32_t u;
  memcpy(&u, &f, sizeof u);
  return u;
}

static inline float from_bf16(uint16_t x) { return half_bits((uint32_t)x << 16); }
static inline uint16_t to_bf16(float f) {
  const uint32_t u = half_word(f);
  const uint32_t even = (u + 0x7FFF + (u >> 16 & 1)) >> 16;
  return (uint16_t)((u & 0x7FFFFFFF) > 0x7F800000 ? u >> 16 | 0x40 : even); /* a NaN stays one */
}

static inline float from_f16(uint16_t x) {
#ifdef __F16C__
  return _cvtsh_ss(x);
#else
  const uint32_t sign = (uint32_t)(x & 0x8000) << 16, mag = x & 0x7FFF;
  if (mag >= 0x7C00) return half_bits(sign | 0x7F800000 | (mag & 0x3FF) << 13);
  if (mag >= 0x400) return half_bits(sign | ((mag << 13) + (112u << 23)));
  const float tiny = (float)mag * 0x1p-24f; /* zero or subnormal: exact */
  return sign ? -tiny : tiny;
#endif
}
static inline uint16_t to_f16(float f) {
#ifdef __F16C__
  return (uint16_t)_cvtss_sh(f, 0);
#else
  const uint32_t u = half_word(f), mag = u & 0x7FFFFFFF;
  const uint16_t sign = (uint16_t)(u >> 16 & 0x8000);
  if (mag > 0x7F800000) return (uint16_t)(sign | 0x7E00 | (mag >> 13 & 0x3FF));
  if (mag >= 0x477FF000) return sign | 0x7C00; /* rounds to 65536 or more */
  if (mag < 0x38800000)                        /* subnormal: let the adder round at 2^-24 */
    return (uint16_t)(sign | (half_word(half_bits(mag) + 0.5f) - 0x3F000000));
  return (uint16_t)(sign | ((mag + 0xFFF + (mag >> 13 & 1)) - (112u << 23)) >> 13);
#endif
}
#endif
