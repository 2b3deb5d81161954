/* A big COPY whose operand is contiguous along another dim than the result: tiles in both directions instead of
   lanes. */
#include "exec.h"

enum { TILE = 128, LEAST = 16, STREAM_FROM = 8 << 20 };

typedef struct transpose_job {
  const r_nest *r;
  const r_stream *from, *to;
  uint32_t swap; /* outer loop along which `from` is contiguous */
  size_t item;
  bool stream;           /* the result is larger than a cache */
  int64_t across, along; /* tiles in the swapped dim and in the lanes */
} transpose_job;

static void run_tiles(void *ctx, int64_t lo, int64_t hi) {
  const transpose_job *const j = ctx;
  const r_nest *const r = j->r;
  for (int64_t t = lo; t < hi; t++) {
    int64_t rest = t / (j->along * j->across), src = j->from->base, dst = j->to->base;
    for (uint32_t d = r->n_outer; d-- > 0;) {
      if (d == j->swap) continue;
      src += rest % r->outer[d] * j->from->outer[d];
      dst += rest % r->outer[d] * j->to->outer[d];
      rest /= r->outer[d];
    }
    const int64_t row = t / j->along % j->across * TILE, lane = t % j->along * TILE;
    const int64_t rows = r->outer[j->swap] - row < TILE ? r->outer[j->swap] - row : TILE;
    const int64_t lanes = r->lanes - lane < TILE ? r->lanes - lane : TILE;
    src += row * j->from->outer[j->swap] + lane * j->from->tile_lane;
    dst += row * j->to->outer[j->swap] + lane * j->to->lane;
    const int64_t item = (int64_t)j->item;
    x_transpose((char *)(intptr_t)dst, j->to->outer[j->swap] / item, (const char *)(intptr_t)src,
                j->from->tile_lane / item, lanes, rows, j->item, j->stream);
  }
}

/* The list is: load, COPY (in_dtype == dtype), store */
static bool is_copy(const x_nest *x, const x_item **load, const x_item **store) {
  if (x->nest->red || x->nest->n_pass != 1 || x->pass[0].n != 3) return false;
  const x_item *const it = x->pass[0].item;
  if (it[0].kind != X_LOAD || it[1].kind != X_MAP || it[1].n_in != 1 || it[2].kind != X_STORE) return false;
  *load = &it[0];
  *store = &it[2];
  return it[1].copies && it[2].val == it[1].val && it[1].in[0] == (int32_t)it[0].val;
}

bool x_try_transpose(const r_nest *r) {
  const x_item *load, *store;
  if (r->mapping != M_MAP || r->n_outer == 0 || !is_copy(r->x, &load, &store)) return false;
  transpose_job j = {
      .r = r,
      .from = &r->stream[load->stream],
      .to = &r->stream[store->stream],
  };
  j.item = r->x->stream[store->stream].item;
  const int64_t item = (int64_t)j.item;
  if (j.to->lane != item || !j.from->tiled) return false;
  j.swap = r->tile_loop;
  if (r->lanes < LEAST) return false;
  j.across = (r->outer[j.swap] + TILE - 1) / TILE;
  j.along = (r->lanes + TILE - 1) / TILE;
  int64_t tiles = j.across * j.along;
  for (uint32_t d = 0; d < r->n_outer; d++)
    if (d != j.swap) tiles *= r->outer[d];
  j.stream = tiles * TILE * TILE * item > STREAM_FROM;
  cpu_parallel(tiles, 2, run_tiles, &j);
  return true;
}
