/* DOT of integers, wrapping: 8, 16 and 32 bits in uint32_t lanes, 64 bits in uint64_t lanes (sums modulo 2^32 hold
   those modulo 2^8 and 2^16). Each 64 x 64 tile of the output packs its operands, widened by their sign, into panels
   on the stack. */
#include "dot.h"
#include <string.h>

enum { TILE = 64, K_BLOCK = 128 };
#if defined(__AVX512F__)
enum { VEC_BYTES = 64 };
#elif defined(__AVX2__)
enum { VEC_BYTES = 32 };
#else
enum { VEC_BYTES = 16 };
#endif

#ifdef __clang__
#define DOT_UNROLL _Pragma("unroll")
#else
#define DOT_UNROLL _Pragma("GCC unroll 8")
#endif

/* dst[r][c], rows `pitch` apart, = src widened */
#define WIDEN(name, to, from)                                                                                   \
  static void name(void *dst, int64_t pitch, const void *src, int64_t row, int64_t col, int64_t r, int64_t c) { \
    to *const d = dst;                                                                                          \
    const from *const s = src;                                                                                  \
    if (col == 1) {                                                                                             \
      for (int64_t i = 0; i < r; i++)                                                                           \
        for (int64_t j = 0; j < c; j++) d[i * pitch + j] = (to)s[i * row + j];                                  \
      return;                                                                                                   \
    }                                                                                                           \
    for (int64_t i = 0; i < r; i++)                                                                             \
      for (int64_t j = 0; j < c; j++) d[i * pitch + j] = (to)s[i * row + j * col];                              \
  }
WIDEN(widen_i8, uint32_t, int8_t)
WIDEN(widen_u8, uint32_t, uint8_t)
WIDEN(widen_16, uint32_t, uint16_t)
WIDEN(widen_32, uint32_t, uint32_t)
WIDEN(widen_64, uint64_t, uint64_t)
typedef void (*widen)(void *dst, int64_t pitch, const void *src, int64_t row, int64_t col, int64_t r, int64_t c);

#define NARROW(name, to, from)                                                                   \
  static void name(void *dst, int64_t row, int64_t col, const void *src, int64_t r, int64_t c) { \
    to *const d = dst;                                                                           \
    const from *const s = src;                                                                   \
    for (int64_t i = 0; i < r; i++)                                                              \
      for (int64_t j = 0; j < c; j++) d[i * row + j * col] = (to)s[i * TILE + j];                \
  }
NARROW(narrow_8, uint8_t, uint32_t)
NARROW(narrow_16, uint16_t, uint32_t)
NARROW(narrow_32, uint32_t, uint32_t)
NARROW(narrow_64, uint64_t, uint64_t)
typedef void (*narrow)(void *dst, int64_t row, int64_t col, const void *src, int64_t r, int64_t c);

/* o[m][TILE] += a[m][K_BLOCK] b[k][TILE], the first n columns of it (rounded up to two vectors); four rows at a time,
   of which those past m repeat the last one and are dropped */
#define MULTIPLY(name, T)                                                                       \
  static void name(void *po, const void *pa, const void *pb, int64_t m, int64_t n, int64_t k) { \
    typedef T V __attribute__((vector_size(VEC_BYTES)));                                        \
    enum { W = VEC_BYTES / sizeof(T) };                                                         \
    T *const o = po;                                                                            \
    const T *const a = pa, *const b = pb;                                                       \
    for (int64_t i = 0; i < m; i += 4)                                                          \
      for (int64_t j = 0; j < n; j += 2 * W) {                                                  \
        V acc[4][2] = {{{0}}};                                                                  \
        const T *row[4];                                                                        \
        for (int r = 0; r < 4; r++) row[r] = a + (i + r < m ? i + r : m - 1) * K_BLOCK;         \
        for (int64_t p = 0; p < k; p++) {                                                       \
          const V *const bv = (const V *)(const void *)(b + p * TILE + j);                      \
          DOT_UNROLL for (int r = 0; r < 4; r++) {                                              \
            acc[r][0] += row[r][p] * bv[0];                                                     \
            acc[r][1] += row[r][p] * bv[1];                                                     \
          }                                                                                     \
        }                                                                                       \
        for (int r = 0; r < 4 && i + r < m; r++) {                                              \
          V *const ov = (V *)(void *)(o + (i + r) * TILE + j);                                  \
          ov[0] += acc[r][0];                                                                   \
          ov[1] += acc[r][1];                                                                   \
        }                                                                                       \
      }                                                                                         \
  }
MULTIPLY(multiply_32, uint32_t)
MULTIPLY(multiply_64, uint64_t)

struct ints {
  const struct dot_job *j;
  int64_t m_blocks, n_blocks;
  widen in;
  narrow out;
};

/* The panels are sized for 64-bit lanes. Columns past n hold what they held: lanes do not mix, and those are never
   stored */
static void int_tile(const struct ints *w, int64_t m, int64_t n, const char *a, const char *b, char *o) {
  _Alignas(64) char ap[TILE * K_BLOCK * 8], bp[K_BLOCK * TILE * 8], op[TILE * TILE * 8];
  const struct dot_job *const j = w->j;
  const int64_t size = (int64_t)cpu_item_size(j->in);
  const int64_t lane = size == 8 ? 8 : 4,
                cols = (n + 2 * VEC_BYTES / lane - 1) / (2 * VEC_BYTES / lane) * (2 * VEC_BYTES / lane);
  memset(op, 0, (size_t)(m * TILE * lane));
  if (cols != n) memset(bp, 0, (size_t)((j->k < K_BLOCK ? j->k : K_BLOCK) * TILE * lane));
  for (int64_t p = 0; p < j->k; p += K_BLOCK) {
    const int64_t len = j->k - p < K_BLOCK ? j->k - p : K_BLOCK;
    w->in(ap, K_BLOCK, a + p * j->a.col * size, j->a.row, j->a.col, m, len);
    w->in(bp, TILE, b + p * j->b.row * size, j->b.row, j->b.col, len, n);
    if (lane == 8)
      multiply_64(op, ap, bp, m, cols, len);
    else
      multiply_32(op, ap, bp, m, cols, len);
  }
  w->out(o, j->o.row, j->o.col, op, m, n);
}

static void int_piece(void *ctx, int64_t lo, int64_t hi) {
  const struct ints *const w = ctx;
  const struct dot_job *const j = w->j;
  const size_t si = cpu_item_size(j->in), so = cpu_item_size(j->out);
  const int64_t tiles = w->m_blocks * w->n_blocks;
  for (int64_t t = lo; t < hi; t++) {
    const int64_t item = t / tiles, i0 = t % tiles / w->n_blocks * TILE, j0 = t % w->n_blocks * TILE;
    const int64_t m = j->m - i0 < TILE ? j->m - i0 : TILE, n = j->n - j0 < TILE ? j->n - j0 : TILE;
    int_tile(w, m, n, dot_item(j, &j->a, item, si) + i0 * j->a.row * (int64_t)si,
             dot_item(j, &j->b, item, si) + j0 * j->b.col * (int64_t)si,
             dot_item(j, &j->o, item, so) + (i0 * j->o.row + j0 * j->o.col) * (int64_t)so);
  }
}

void dot_int(const struct dot_job *j) {
  static const widen in[] = {
      [TERN_I8] = widen_i8,  [TERN_U8] = widen_u8,  [TERN_I16] = widen_16, [TERN_U16] = widen_16,
      [TERN_I32] = widen_32, [TERN_U32] = widen_32, [TERN_I64] = widen_64, [TERN_U64] = widen_64};
  static const narrow out[] = {
      [TERN_I8] = narrow_8,   [TERN_U8] = narrow_8,   [TERN_I16] = narrow_16, [TERN_U16] = narrow_16,
      [TERN_I32] = narrow_32, [TERN_U32] = narrow_32, [TERN_I64] = narrow_64, [TERN_U64] = narrow_64};
  struct ints w = {.j = j,
                   .m_blocks = (j->m + TILE - 1) / TILE,
                   .n_blocks = (j->n + TILE - 1) / TILE,
                   .in = in[j->in],
                   .out = out[j->out]};
  const int64_t work = (j->m < TILE ? j->m : TILE) * (j->n < TILE ? j->n : TILE) * j->k;
  cpu_parallel(j->items * w.m_blocks * w.n_blocks, work > 32768 ? 1 : 32768 / work + 1, int_piece, &w);
}
