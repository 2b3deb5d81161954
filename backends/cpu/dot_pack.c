/* Copies of stacks of matrices into the layout or dtype that the libraries take, and back. Parallel over blocks of
   rows; blocks of 16 x 16 keep a transposing copy in the cache. */
#include "dot.h"
#include "dot_half.h"

enum { PACK_ROWS = 32 };
typedef void (*copy2)(void *dst, int64_t drow, int64_t dcol, const void *src, int64_t srow, int64_t scol, int64_t r,
                      int64_t c);

#define COPY2(name, to, from, convert)                                                                              \
  static void name(void *dst, int64_t drow, int64_t dcol, const void *src, int64_t srow, int64_t scol, int64_t r,   \
                   int64_t c) {                                                                                     \
    to *const d = dst;                                                                                              \
    const from *const s = src;                                                                                      \
    if (dcol == 1 && scol == 1) {                                                                                   \
      for (int64_t i = 0; i < r; i++)                                                                               \
        for (int64_t j = 0; j < c; j++) d[i * drow + j] = convert(s[i * srow + j]);                                 \
      return;                                                                                                       \
    }                                                                                                               \
    for (int64_t i0 = 0; i0 < r; i0 += 16)                                                                          \
      for (int64_t j0 = 0; j0 < c; j0 += 16)                                                                        \
        for (int64_t i = i0; i < r && i < i0 + 16; i++)                                                             \
          for (int64_t j = j0; j < c && j < j0 + 16; j++) d[i * drow + j * dcol] = convert(s[i * srow + j * scol]); \
  }
COPY2(copy_16, uint16_t, uint16_t, )
COPY2(copy_32, uint32_t, uint32_t, )
COPY2(copy_64, uint64_t, uint64_t, )
COPY2(copy_f16_f32, float, uint16_t, from_f16)
COPY2(copy_bf16_f32, float, uint16_t, from_bf16)
COPY2(copy_f32_f16, uint16_t, float, to_f16)
COPY2(copy_f32_bf16, uint16_t, float, to_bf16)

static copy2 pick(uint32_t to, uint32_t from) {
  if (to == from) return cpu_item_size(to) == 8 ? copy_64 : cpu_item_size(to) == 4 ? copy_32 : copy_16;
  if (to == TERN_F32) return from == TERN_F16 ? copy_f16_f32 : copy_bf16_f32;
  return to == TERN_F16 ? copy_f32_f16 : copy_f32_bf16;
}

struct pack {
  const struct dot_copy *c;
  int64_t blocks; /* of rows, in one matrix */
  copy2 fn;
};

static void pack_piece(void *ctx, int64_t lo, int64_t hi) {
  const struct pack *const p = ctx;
  const struct dot_copy *const c = p->c;
  const int64_t ds = (int64_t)cpu_item_size(c->dst_dtype), ss = (int64_t)cpu_item_size(c->src_dtype);
  for (int64_t t = lo; t < hi; t++) {
    int64_t item = t / p->blocks, d_at = 0, s_at = 0;
    const int64_t i0 = t % p->blocks * PACK_ROWS, rows = c->r - i0 < PACK_ROWS ? c->r - i0 : PACK_ROWS;
    for (int d = c->rank - 1; d >= 0; d--) {
      d_at += item % c->size[d] * c->dst.batch[d];
      s_at += item % c->size[d] * c->src.batch[d];
      item /= c->size[d];
    }
    p->fn(c->dst.p + (d_at + i0 * c->dst.row) * ds, c->dst.row, c->dst.col, c->src.p + (s_at + i0 * c->src.row) * ss,
          c->src.row, c->src.col, rows, c->c);
  }
}

void dot_copy(const struct dot_copy *c) {
  struct pack p = {.c = c, .blocks = (c->r + PACK_ROWS - 1) / PACK_ROWS, .fn = pick(c->dst_dtype, c->src_dtype)};
  int64_t items = 1;
  for (int d = 0; d < c->rank; d++) items *= c->size[d];
  const int64_t work = (c->r < PACK_ROWS ? c->r : PACK_ROWS) * c->c;
  cpu_parallel(items * p.blocks, work > 16384 ? 1 : 16384 / work + 1, pack_piece, &p);
}
