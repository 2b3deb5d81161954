/* Convolution without a library for it. CONV and CONV_DX gather: each pixel of the destination is a row of (tap,
   channel) elements of the source, so that a tile of pixels times the rearranged filters is a tile of the result.
   CONV_DW multiplies the same rows, transposed, with the pixels of y. Nothing is added from two threads: the result
   does not depend on their number. Half dtypes are converted where elements are moved. */
#include "conv.h"
#include "dot.h"
#include "dot_half.h"

#include <stdatomic.h>
#include <string.h>

enum { TILE_BYTES = 1 << 17, TILE_MOST = 512, DW_COLUMNS = 64, DW_PIXELS = 256, DW_ITEMS = 16 };

/* A run of n elements between storage (dtype, any stride) and compute form (float, or double for float64;
   contiguous) */
static void take(void *to, const char *from, int64_t stride, uint32_t dtype, int64_t n) {
  if (dtype == TERN_F64) {
    double *const d = to;
    const double *const s = (const double *)(const void *)from;
    for (int64_t i = 0; i < n; i++) d[i] = s[i * stride];
    return;
  }
  float *const d = to;
  if (dtype == TERN_F32) {
    const float *const s = (const float *)(const void *)from;
    if (stride == 1)
      memcpy(d, s, (size_t)n * sizeof *d);
    else
      for (int64_t i = 0; i < n; i++) d[i] = s[i * stride];
    return;
  }
  const uint16_t *const s = (const uint16_t *)(const void *)from;
  for (int64_t i = 0; i < n; i++) d[i] = dtype == TERN_F16 ? from_f16(s[i * stride]) : from_bf16(s[i * stride]);
}

static void give(char *to, int64_t stride, const void *from, uint32_t dtype, int64_t n) {
  if (dtype == TERN_F64) {
    double *const d = (double *)(void *)to;
    const double *const s = from;
    for (int64_t i = 0; i < n; i++) d[i * stride] = s[i];
    return;
  }
  const float *const s = from;
  if (dtype == TERN_F32) {
    float *const d = (float *)(void *)to;
    for (int64_t i = 0; i < n; i++) d[i * stride] = s[i];
    return;
  }
  uint16_t *const d = (uint16_t *)(void *)to;
  for (int64_t i = 0; i < n; i++) d[i * stride] = dtype == TERN_F16 ? to_f16(s[i]) : to_bf16(s[i]);
}

/* ---- rows of source elements ---- */
struct own {
  const struct conv_job *j;
  const struct conv_array *from, *to; /* CONV: x, y. CONV_DX: y, x. CONV_DW: x, y (which is read) */
  int64_t from_size[2], to_size[2];
  int64_t red, each, columns; /* channels a group of from and to; columns = taps * red */
  int64_t item, real;         /* bytes of a stored and of a computed element */
  uint32_t dtype, compute;
  bool back; /* CONV_DX: the source pixel is (i + pad - k dilation) / stride, where that is whole */
  int64_t pixels, tile, tiles;
  char *filters;                 /* [groups][columns][each] */
  int64_t blocks, chunks, chunk; /* CONV_DW: blocks of columns; chunks of `chunk` tiles of pixels */
  char *sums;                    /* [groups][blocks][chunks][DW_COLUMNS][each] */
  atomic_bool failed;            /* a thread had no memory for its rows */
};

/* Position in dimension d of the source for pixel i and tap k; -1: outside */
static inline int64_t source_of(const struct own *w, int d, int64_t i, int64_t k) {
  const struct conv_job *const j = w->j;
  int64_t at;
  if (w->back) {
    at = i + j->pad[d] - k * j->dilation[d];
    if (at < 0 || at % j->stride[d]) return -1;
    at /= j->stride[d];
  } else {
    at = i * j->stride[d] + k * j->dilation[d] - j->pad[d];
  }
  return at < 0 || at >= w->from_size[d] ? -1 : at;
}

/* Columns [first, first + n) of the row of pixel p (of all pixels of the batch) for group g */
static void patch(const struct own *w, int64_t g, int64_t p, int64_t first, int64_t n, char *row) {
  const struct conv_job *const j = w->j;
  const int64_t i1 = p % w->to_size[1], i0 = p / w->to_size[1] % w->to_size[0], b = p / w->to_size[1] / w->to_size[0];
  const int64_t *const step = w->from->stride;
  const char *const image = w->from->p + (b * step[0] + g * w->red * step[1]) * w->item;
  for (int64_t at = first; at < first + n;) {
    const int64_t tap = at / w->red, c = at % w->red, rest = w->red - c;
    const int64_t run = rest < first + n - at ? rest : first + n - at;
    const int64_t s0 = source_of(w, 0, i0, tap / j->taps[1]), s1 = source_of(w, 1, i1, tap % j->taps[1]);
    if (s0 < 0 || s1 < 0)
      memset(row, 0, (size_t)(run * w->real));
    else
      take(row, image + (s0 * step[2] + s1 * step[3] + c * step[1]) * w->item, step[1], w->dtype, run);
    row += run * w->real;
    at += run;
  }
}

static char *pixel_of(const struct own *w, int64_t g, int64_t p) {
  const int64_t i1 = p % w->to_size[1], i0 = p / w->to_size[1] % w->to_size[0], b = p / w->to_size[1] / w->to_size[0];
  const int64_t *const step = w->to->stride;
  return w->to->p + (b * step[0] + g * w->each * step[1] + i0 * step[2] + i1 * step[3]) * w->item;
}

/* ---- CONV, CONV_DX ---- */

/* Column (tap, c) of the filters: one element for each channel of the destination */
static void filter_piece(void *ctx, int64_t lo, int64_t hi) {
  const struct own *const w = ctx;
  const struct conv_job *const j = w->j;
  const int64_t *const s = j->w.stride;
  const int64_t per_o = j->o / j->groups, red_step = w->back ? s[0] : s[1], each_step = w->back ? s[1] : s[0];
  for (int64_t t = lo; t < hi; t++) {
    const int64_t g = t / w->columns, tap = t % w->columns / w->red, c = t % w->columns % w->red;
    const int64_t at = g * per_o * s[0] + c * red_step + tap / j->taps[1] * s[2] + tap % j->taps[1] * s[3];
    take(w->filters + t * w->each * w->real, j->w.p + at * w->item, each_step, w->dtype, w->each);
  }
}

static void gather_piece(void *ctx, int64_t lo, int64_t hi) {
  struct own *const w = ctx;
  char *const rows = cpu_scratch(CPU_SCRATCH_PIECE, (size_t)(w->tile * (w->columns + w->each) * w->real));
  if (!rows) {
    atomic_store(&w->failed, true);
    return;
  }
  char *const result = rows + w->tile * w->columns * w->real;
  for (int64_t t = lo; t < hi; t++) {
    const int64_t g = t / w->tiles, first = t % w->tiles * w->tile;
    const int64_t n = w->pixels - first < w->tile ? w->pixels - first : w->tile;
    for (int64_t p = 0; p < n; p++) patch(w, g, first + p, 0, w->columns, rows + p * w->columns * w->real);
    const struct dot_job product = {
        .in = w->compute,
        .out = w->compute,
        .m = n,
        .n = w->each,
        .k = w->columns,
        .items = 1,
        .a = {.p = rows, .row = w->columns, .col = 1},
        .b = {.p = w->filters + g * w->columns * w->each * w->real, .row = w->each, .col = 1},
        .o = {.p = result, .row = w->each, .col = 1}};
    dot_lib(&product, NULL, true);
    for (int64_t p = 0; p < n; p++)
      give(pixel_of(w, g, first + p), w->to->stride[1], result + p * w->each * w->real, w->dtype, w->each);
  }
}

static bool run_gather(struct own *w) {
  const int64_t groups = w->j->groups;
  w->filters = cpu_scratch(CPU_SCRATCH_LAUNCH, (size_t)(groups * w->columns * w->each * w->real));
  if (!w->filters) return false;
  w->tile = TILE_BYTES / ((w->columns + w->each) * w->real) / 8 * 8;
  w->tile = w->tile < 8 ? 8 : w->tile > TILE_MOST ? TILE_MOST : w->tile;
  w->tiles = (w->pixels + w->tile - 1) / w->tile;
  cpu_parallel(groups * w->columns, 16384 / w->each + 1, filter_piece, w);
  const int64_t work = (w->tile < w->pixels ? w->tile : w->pixels) * w->columns * w->each;
  cpu_parallel(groups * w->tiles, work > 65536 ? 1 : 65536 / work + 1, gather_piece, w);
  return true;
}

/* ---- CONV_DW ---- */

/* One block of columns over one chunk of the pixels: sums[column][o] = rows^T y */
static void weights_piece(void *ctx, int64_t lo, int64_t hi) {
  struct own *const w = ctx;
  char *const rows = cpu_scratch(CPU_SCRATCH_PIECE, (size_t)(DW_PIXELS * (DW_COLUMNS + w->each) * w->real));
  if (!rows) {
    atomic_store(&w->failed, true);
    return;
  }
  char *const y = rows + DW_PIXELS * DW_COLUMNS * w->real;
  for (int64_t t = lo; t < hi; t++) {
    const int64_t chunk = t % w->chunks, block = t / w->chunks % w->blocks, g = t / w->chunks / w->blocks;
    const int64_t first = block * DW_COLUMNS, left = w->columns - first, n = left < DW_COLUMNS ? left : DW_COLUMNS;
    char *const sum = w->sums + t * DW_COLUMNS * w->each * w->real;
    memset(sum, 0, (size_t)(n * w->each * w->real));
    for (int64_t tile = chunk * w->chunk; tile < (chunk + 1) * w->chunk && tile < w->tiles; tile++) {
      const int64_t p0 = tile * DW_PIXELS, many = w->pixels - p0 < DW_PIXELS ? w->pixels - p0 : DW_PIXELS;
      for (int64_t p = 0; p < many; p++) {
        patch(w, g, p0 + p, first, n, rows + p * n * w->real);
        take(y + p * w->each * w->real, pixel_of(w, g, p0 + p), w->to->stride[1], w->dtype, w->each);
      }
      if (w->compute == TERN_F64)
        dot_block_f64(n, w->each, many, (const double *)(void *)rows, 1, n, (const double *)(void *)y, w->each,
                      (double *)(void *)sum, w->each, true);
      else
        dot_block_f32(n, w->each, many, (const float *)(void *)rows, 1, n, (const float *)(void *)y, w->each,
                      (float *)(void *)sum, w->each, true);
    }
  }
}

static void add_to(char *sum, const char *more, uint32_t compute, int64_t n) {
  if (compute == TERN_F64)
    for (int64_t i = 0; i < n; i++) ((double *)(void *)sum)[i] += ((const double *)(const void *)more)[i];
  else
    for (int64_t i = 0; i < n; i++) ((float *)(void *)sum)[i] += ((const float *)(const void *)more)[i];
}

/* The chunks of one column added up in order, and stored to w */
static void column_piece(void *ctx, int64_t lo, int64_t hi) {
  const struct own *const w = ctx;
  const struct conv_job *const j = w->j;
  const int64_t *const s = j->w.stride;
  const int64_t row = w->each * w->real;
  for (int64_t t = lo; t < hi; t++) {
    const int64_t g = t / w->columns, column = t % w->columns, block = column / DW_COLUMNS;
    char *const sum = w->sums + ((g * w->blocks + block) * w->chunks * DW_COLUMNS + column % DW_COLUMNS) * row;
    for (int64_t c = 1; c < w->chunks; c++) add_to(sum, sum + c * DW_COLUMNS * row, w->compute, w->each);
    const int64_t tap = column / w->red, c = column % w->red;
    const int64_t at = g * w->each * s[0] + c * s[1] + tap / j->taps[1] * s[2] + tap % j->taps[1] * s[3];
    give(j->w.p + at * w->item, s[0], sum, w->dtype, w->each);
  }
}

static bool run_weights(struct own *w) {
  const int64_t groups = w->j->groups;
  w->tiles = (w->pixels + DW_PIXELS - 1) / DW_PIXELS;
  w->blocks = (w->columns + DW_COLUMNS - 1) / DW_COLUMNS;
  w->chunks = (DW_ITEMS + groups * w->blocks - 1) / (groups * w->blocks);
  if (w->chunks > w->tiles) w->chunks = w->tiles;
  w->chunk = (w->tiles + w->chunks - 1) / w->chunks;
  w->chunks = (w->tiles + w->chunk - 1) / w->chunk;
  const int64_t items = groups * w->blocks * w->chunks;
  w->sums = cpu_scratch(CPU_SCRATCH_LAUNCH, (size_t)(items * DW_COLUMNS * w->each * w->real));
  if (!w->sums) return false;
  const int64_t work = w->chunk * DW_PIXELS * (w->columns < DW_COLUMNS ? w->columns : DW_COLUMNS) * w->each;
  cpu_parallel(items, work > 65536 ? 1 : 65536 / work + 1, weights_piece, w);
  cpu_parallel(groups * w->columns, 4096 / (w->each * w->chunks) + 1, column_piece, w);
  return true;
}

bool conv_own(const struct conv_job *j) {
  const bool back = j->op == TERN_OP_CONV_DX;
  const int64_t per_c = j->c / j->groups, per_o = j->o / j->groups;
  struct own w = {.j = j,
                  .from = back ? &j->y : &j->x,
                  .to = back ? &j->x : &j->y,
                  .red = back ? per_o : per_c,
                  .each = back ? per_c : per_o,
                  .item = (int64_t)cpu_item_size((uint32_t)j->dtype),
                  .dtype = (uint32_t)j->dtype,
                  .compute = j->dtype == TERN_F64 ? TERN_F64 : TERN_F32,
                  .back = back};
  for (int d = 0; d < 2; d++) {
    w.from_size[d] = back ? j->out[d] : j->in[d];
    w.to_size[d] = back ? j->in[d] : j->out[d];
  }
  w.real = (int64_t)cpu_item_size(w.compute);
  w.columns = j->taps[0] * j->taps[1] * w.red;
  w.pixels = j->n * w.to_size[0] * w.to_size[1];
  atomic_init(&w.failed, false);
  return (j->op == TERN_OP_CONV_DW ? run_weights(&w) : run_gather(&w)) && !atomic_load(&w.failed);
}
