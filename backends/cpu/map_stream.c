/* ADD, SUB, MUL, DIV and COPY with non-temporal stores, for outputs much larger than the caches: the output's lines
   are then not read first. Elements before the first whole aligned vector of the output and after the last are done
   one by one. */
#include "map.h"
#include "vmath.h"

#ifdef __x86_64__
enum { BYTES = 4 * VF_N };

/* p is aligned to BYTES */
static inline void stream(void *p, vi v) {
#if defined VM_AVX512
  _mm512_stream_si512(p, (__m512i)v);
#elif defined VM_AVX2
  _mm256_stream_si256(p, (__m256i)v);
#else
  _mm_stream_si128(p, (__m128i)v);
#endif
}

#define STREAM(NAME, T, EXPR, X_, Y_, XV, YV)                                                   \
  static void NAME(void *out, const void *a_, const void *b_, const void *c_, int64_t n) {      \
    enum { LANES = BYTES / sizeof(T) };                                                         \
    typedef T vec __attribute__((vector_size(BYTES), aligned(sizeof(T))));                      \
    T *o = out;                                                                                 \
    const T *a = a_, *b = b_ ? b_ : a_, x0 = *a, y0 = *b;                                       \
    const vec x0v = x0 - (vec){0}, y0v = y0 - (vec){0};                                         \
    const int64_t head = (int64_t)((0 - (uintptr_t)out) % BYTES / sizeof(T));                   \
    int64_t i = 0;                                                                              \
    (void)c_, (void)x0v, (void)y0v;                                                             \
    for (; i < n && i < head; i++) {                                                            \
      const T x = X_, y = Y_;                                                                   \
      (void)y;                                                                                  \
      o[i] = EXPR;                                                                              \
    }                                                                                           \
    for (; i + LANES <= n; i += LANES) {                                                        \
      const vec x = XV, y = YV;                                                                 \
      (void)y;                                                                                  \
      stream(o + i, (vi)(EXPR));                                                                \
    }                                                                                           \
    for (; i < n; i++) {                                                                        \
      const T x = X_, y = Y_;                                                                   \
      (void)y;                                                                                  \
      o[i] = EXPR;                                                                              \
    }                                                                                           \
    _mm_sfence();                                                                               \
  }
#define VEC_A (*(const vec *)(a + i))
#define VEC_B (*(const vec *)(b + i))
#define STREAMS(NAME, T, EXPR)                              \
  STREAM(NAME##_0, T, EXPR, a[i], b[i], VEC_A, VEC_B)       \
  STREAM(NAME##_1, T, EXPR, x0, b[i], x0v, VEC_B)           \
  STREAM(NAME##_2, T, EXPR, a[i], y0, VEC_A, y0v)
#define STREAMS_OF(N, D, T, W)                              \
  STREAMS(add_##N, T, x + y)                                \
  STREAMS(sub_##N, T, x - y)                                \
  STREAMS(mul_##N, T, x * y)                                \
  STREAMS(div_##N, T, x / y)                                \
  STREAM(copy_##N, T, x, a[i], y0, VEC_A, y0v)              \
  STREAM(fill_##N, T, x, x0, y0, x0v, y0v)
MAP_FLOATS(STREAMS_OF)

#define ROW(N) {MAP_SPLATS(add_##N), MAP_SPLATS(sub_##N), MAP_SPLATS(mul_##N), MAP_SPLATS(div_##N), {copy_##N, fill_##N, NULL}}
static const cpu_map_fn streams[2][5][3] = {ROW(f32), ROW(f64)};

cpu_map_fn cpu_map_stream(uint32_t op, uint32_t dtype, uint32_t splat) {
  if ((dtype != TERN_F32 && dtype != TERN_F64) || splat > 2) return NULL;
  if (op == TERN_OP_COPY) return streams[dtype == TERN_F64][4][splat];
  return op >= TERN_OP_ADD && op <= TERN_OP_DIV ? streams[dtype == TERN_F64][op - TERN_OP_ADD][splat] : NULL;
}
#else
cpu_map_fn cpu_map_stream(uint32_t op, uint32_t dtype, uint32_t splat) {
  (void)op, (void)dtype, (void)splat;
  return NULL; /* no such store in C here */
}
#endif
