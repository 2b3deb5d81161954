/* A CONV of float32 with few input channels, the first layer of a network: the library's ways take many channels at a
   time, and leave most of a vector empty. Here the lanes are output channels, which lie last in the result and in the
   filters; a tile of neighbouring results stays in registers while one filter element after another passes. The rows of
   x that an output row needs are copied beside each other first, with the padding around them. */
#include "conv.h"
#include "vmath.h"

#include <string.h>

enum {
  MOST_CHANNELS = 2,     /* from three on the library is faster */
  MOST_ELEMENTS = 256,   /* of one filter */
  MOST_FLOATS = 1 << 15, /* of the rows of x that an output row needs */
  GRAIN = 1 << 18        /* multiplications of a piece */
};

struct few {
  const struct conv_job *j;
  int64_t row, across, along; /* floats: of a copied row; from result to result in the copy, and in y */
  int n;                      /* elements of a filter, and where each is in the copy and in the filters */
  int32_t x[MOST_ELEMENTS];
  int64_t w[MOST_ELEMENTS];
};

/* ---- a tile: `pixels` results of `wide` vectors ---- */

static inline __attribute__((always_inline)) void tile(const struct few *f, const float *x, const float *w, float *y,
                                                       const int pixels, const int wide) {
  const int64_t across = f->across, along = f->along;
  vf sum[14][2];
  for (int i = 0; i < pixels; i++)
    for (int v = 0; v < wide; v++) sum[i][v] = vf_set(0);
  for (int e = 0; e < f->n; e++) {
    const float *const from = x + f->x[e], *const at = w + f->w[e];
    vf filter[2];
    for (int v = 0; v < wide; v++) filter[v] = vf_load(at + v * VF_N);
    for (int i = 0; i < pixels; i++) {
      const vf one = vf_set(from[i * across]);
      for (int v = 0; v < wide; v++) sum[i][v] = vf_fma(one, filter[v], sum[i][v]);
    }
  }
  for (int i = 0; i < pixels; i++)
    for (int v = 0; v < wide; v++) vf_store(y + i * along + v * VF_N, sum[i][v]);
}

/* A row of results, a tile at a time; the last one reaches back over some that are done */
static inline __attribute__((always_inline)) void tiles(const struct few *f, const float *x, float *y,
                                                        const int pixels) {
  const struct conv_job *const j = f->j;
  const float *const w = (const float *)(const void *)j->w.p;
  for (int64_t o = 0; o < j->o; o += 2 * VF_N)
    for (int64_t i = 0; i < j->out[1]; i += pixels) {
      const int64_t at = i + pixels <= j->out[1] ? i : j->out[1] - pixels;
      if (o + 2 * VF_N <= j->o)
        tile(f, x + at * f->across, w + o, y + at * f->along + o, pixels, 2);
      else
        tile(f, x + at * f->across, w + o, y + at * f->along + o, pixels, 1);
    }
}

static int64_t waste(int64_t n, int pixels) { return (pixels - n % pixels) % pixels; }

/* Wide tiles for 32 registers: 28 sums, 2 filters, 1 element of x */
static void row_of_tiles(const struct few *f, const float *x, float *y) {
  const int64_t n = f->j->out[1];
  if (n < 4)
    tiles(f, x, y, 1);
  else if (VF_N < 16 || n < 8)
    tiles(f, x, y, 4);
  else if (n < 14 || waste(n, 8) * 2 < waste(n, 14))
    tiles(f, x, y, 8);
  else
    tiles(f, x, y, 14);
}

/* ---- rows ---- */

/* The rows of x under output row `out` of item n, zeros around them */
static void copy_rows(const struct few *f, int64_t n, int64_t out, float *to) {
  const struct conv_job *const j = f->j;
  const int64_t width = j->in[1] * j->c, before = j->pad[1] * j->c;
  for (int64_t k = 0; k < j->taps[0]; k++, to += f->row) {
    const int64_t h = out * j->stride[0] + k * j->dilation[0] - j->pad[0];
    if (h < 0 || h >= j->in[0]) {
      memset(to, 0, (size_t)f->row * sizeof *to);
      continue;
    }
    const float *const from = (const float *)(const void *)j->x.p + n * j->x.stride[0] + h * j->x.stride[2];
    const int64_t have = width < f->row - before ? width : f->row - before;
    memset(to, 0, (size_t)before * sizeof *to);
    if (j->x.stride[3] == j->c && (j->c == 1 || j->x.stride[1] == 1)) {
      memcpy(to + before, from, (size_t)have * sizeof *to);
    } else {
      for (int64_t i = 0; i < have; i++) to[before + i] = from[i / j->c * j->x.stride[3] + i % j->c * j->x.stride[1]];
    }
    memset(to + before + have, 0, (size_t)(f->row - before - have) * sizeof *to);
  }
}

static void run_rows(void *ctx, int64_t lo, int64_t hi) {
  const struct few *const f = ctx;
  const struct conv_job *const j = f->j;
  float rows[MOST_FLOATS];
  for (int64_t at = lo; at < hi; at++) {
    const int64_t n = at / j->out[0], out = at % j->out[0];
    copy_rows(f, n, out, rows);
    row_of_tiles(f, rows, (float *)(void *)j->y.p + n * j->y.stride[0] + out * j->y.stride[2]);
  }
}

bool conv_few(const struct conv_job *j) {
  if (j->op != TERN_OP_CONV || j->dtype != TERN_F32 || j->groups != 1 || j->c > MOST_CHANNELS || j->o % VF_N ||
      (j->w.stride[0] != 1 && j->o > 1) || (j->y.stride[1] != 1 && j->o > 1) || j->taps[0] > MOST_ELEMENTS ||
      j->taps[1] > MOST_ELEMENTS || j->c * j->taps[0] * j->taps[1] > MOST_ELEMENTS)
    return false;
  if (j->out[1] > MOST_FLOATS || j->stride[1] > MOST_FLOATS || j->dilation[1] > MOST_FLOATS || j->pad[1] > MOST_FLOATS)
    return false;
  struct few f;
  f.j = j;
  f.n = 0;
  f.row = ((j->out[1] - 1) * j->stride[1] + (j->taps[1] - 1) * j->dilation[1] + 1) * j->c;
  if (f.row > MOST_FLOATS / j->taps[0] || j->pad[1] * j->c > f.row) return false;
  f.across = j->stride[1] * j->c;
  f.along = j->y.stride[3];
  for (int64_t k = 0; k < j->taps[0]; k++)
    for (int64_t q = 0; q < j->taps[1]; q++)
      for (int64_t c = 0; c < j->c; c++, f.n++) {
        f.x[f.n] = (int32_t)(k * f.row + q * j->dilation[1] * j->c + c);
        f.w[f.n] = k * j->w.stride[2] + q * j->w.stride[3] + c * j->w.stride[1];
      }
  const int64_t each = j->out[1] * j->o * j->c * j->taps[0] * j->taps[1];
  cpu_parallel(j->n * j->out[0], GRAIN / each + 1, run_rows, &f);
  return true;
}
