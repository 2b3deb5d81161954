/* Instructions without tensor inputs: random words, index ramps, and the storing of scalars. */
#include "map.h"

enum { LANES = 16 }; /* counters at once */

/* Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", 2011) of the counters
   c, c + 1 .. c + LANES - 1; out[4 * lane + word] */
static void philox(uint32_t *out, uint64_t c, uint64_t key, uint32_t stream) {
  uint32_t w0[LANES], w1[LANES], w2[LANES], w3[LANES], k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
  for (int i = 0; i < LANES; i++) {
    w0[i] = (uint32_t)(c + (uint64_t)i);
    w1[i] = (uint32_t)((c + (uint64_t)i) >> 32);
    w2[i] = stream;
    w3[i] = 0;
  }
  for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
    for (int i = 0; i < LANES; i++) {
      const uint64_t p = (uint64_t)0xD2511F53u * w0[i], q = (uint64_t)0xCD9E8D57u * w2[i];
      w0[i] = (uint32_t)(q >> 32) ^ w1[i] ^ k0;
      w1[i] = (uint32_t)q;
      w2[i] = (uint32_t)(p >> 32) ^ w3[i] ^ k1;
      w3[i] = (uint32_t)p;
    }
  for (int i = 0; i < LANES; i++) {
    out[4 * i] = w0[i];
    out[4 * i + 1] = w1[i];
    out[4 * i + 2] = w2[i];
    out[4 * i + 3] = w3[i];
  }
}

void cpu_rng_u32(uint32_t *out, int64_t first, int64_t n, uint64_t key, uint64_t counter, uint32_t stream) {
  uint32_t words[4 * LANES];
  while (n > 0) {
    const int skip = (int)(first & 3); /* words of the first counter that belong before */
    const uint64_t c = counter + (uint64_t)(first / 4);
    int64_t now = 4 * LANES - skip;
    if (!skip && n >= now) {
      philox(out, c, key, stream);
    } else {
      now = now < n ? now : n;
      philox(words, c, key, stream);
      memcpy(out, words + skip, (size_t)now * 4);
    }
    out += now, first += now, n -= now;
  }
}

#define IOTA(T, EXPR)                            \
  do {                                           \
    T *o = out;                                  \
    for (int64_t i = 0; i < n; i++) {            \
      const int64_t v = (int64_t)((uint64_t)start + (uint64_t)i * (uint64_t)step); \
      o[i] = (T)(EXPR);                          \
    }                                            \
    return;                                      \
  } while (0)

void cpu_iota(void *out, uint32_t dtype, int64_t start, int64_t step, int64_t n) {
  switch (dtype) {
    case TERN_BOOL: IOTA(uint8_t, v != 0);
    case TERN_I8:
    case TERN_U8: IOTA(uint8_t, v);
    case TERN_I16:
    case TERN_U16: IOTA(uint16_t, v);
    case TERN_I32:
    case TERN_U32: IOTA(uint32_t, v);
    case TERN_I64:
    case TERN_U64: IOTA(uint64_t, v);
    case TERN_F16:
    case TERN_BF16: IOTA(uint16_t, map_half_from_f32(map_odd_i64(v), dtype));
    case TERN_F32: IOTA(float, v);
    case TERN_F64: IOTA(double, v);
    default: return;
  }
}

void cpu_word_store(void *out, uint32_t dtype, tern_word w) {
  const float f = (float)w.f;
  const uint8_t truth = w.u != 0;
  uint16_t half;
  switch (dtype) {
    case TERN_BOOL: memcpy(out, &truth, 1); return;
    case TERN_F16:
    case TERN_BF16:
      half = map_half_from_f32(map_odd_f64(w.f), dtype);
      memcpy(out, &half, 2);
      return;
    case TERN_F32: memcpy(out, &f, 4); return;
    case TERN_F64: memcpy(out, &w.f, 8); return;
    default: break;
  }
  const uint8_t b1 = (uint8_t)w.u;
  const uint16_t b2 = (uint16_t)w.u;
  const uint32_t b4 = (uint32_t)w.u;
  switch (cpu_item_size(dtype)) {
    case 1: memcpy(out, &b1, 1); return;
    case 2: memcpy(out, &b2, 2); return;
    case 4: memcpy(out, &b4, 4); return;
    case 8: memcpy(out, &w.u, 8); return;
    default: return;
  }
}
