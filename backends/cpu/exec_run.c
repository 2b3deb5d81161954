/* The block interpreter: runs a resolved nest's instructions over lanes, with loops over the other dims. */
#include "exec.h"
#include <string.h>

static size_t round64(size_t n) { return (n + 63) & ~(size_t)63; }

size_t x_work_bytes(const r_nest *r) {
  const x_nest *const x = r->x;
  return round64(r->n_at * sizeof(char *)) + 2 * round64(x->n_stream * sizeof(int64_t)) +
         round64(x->n_red * sizeof(cpu_acc)) + round64(r->reg_bytes) + round64(r->row_bytes) +
         round64(r->scratch_bytes);
}

static char *carve(char **mem, size_t bytes) {
  char *const p = *mem;
  *mem += round64(bytes);
  return p;
}

void x_acc_place(work *w, char *row) {
  const r_nest *const r = w->r;
  w->row = row;
  for (uint32_t i = 0; i < r->x->n_red; i++) {
    w->acc[i].v = row + r->x->red[i].acc_v * r->row_slot;
    w->acc[i].i = (int64_t *)(void *)(row + r->x->red[i].acc_i * r->row_slot);
  }
}

void x_work_init(work *w, const r_nest *r, char *mem) {
  const x_nest *const x = r->x;
  w->r = r;
  w->at = (char **)(void *)carve(&mem, r->n_at * sizeof(char *));
  w->cur = (int64_t *)(void *)carve(&mem, x->n_stream * sizeof(int64_t));
  w->pos = (int64_t *)(void *)carve(&mem, x->n_stream * sizeof(int64_t));
  w->acc = (cpu_acc *)(void *)carve(&mem, x->n_red * sizeof(cpu_acc));
  w->regs = carve(&mem, r->reg_bytes);
  char *const row = carve(&mem, r->row_bytes);
  w->scratch = mem;
  memcpy(w->at, r->at, r->n_at * sizeof(char *));
  x_acc_place(w, row);
}

void x_unit_place(work *w, int64_t unit) {
  const r_nest *const r = w->r;
  const x_nest *const x = r->x;
  const int64_t chunk = r->n_chunks > 1 ? unit % r->n_chunks : 0;
  int64_t rest = r->n_chunks > 1 ? unit / r->n_chunks : unit;
  w->lo = chunk * r->chunk;
  w->n = r->lanes - w->lo < r->chunk ? r->lanes - w->lo : r->chunk;
  for (uint32_t s = 0; s < x->n_stream; s++) {
    const r_stream *const st = &r->stream[s];
    w->cur[s] = x->stream[s].kind == S_SCRATCH || st->local
                    ? (int64_t)(intptr_t)w->scratch + st->base
                    : st->base + (st->walk ? 0 : w->lo * (st->tiled ? st->tile_lane : st->lane));
  }
  if (r->n_flat) x_flat_place(w, w->lo);
  w->rows = 1;
  for (uint32_t d = r->n_outer; d-- > 0;) {
    const bool tiles = d == r->tile_loop;
    const int64_t size = tiles ? (r->outer[d] + X_TILE - 1) / X_TILE : r->outer[d];
    const int64_t index = (d ? rest % size : rest) * (tiles ? X_TILE : 1);
    rest = d ? rest / size : 0;
    if (tiles) w->rows = r->outer[d] - index < X_TILE ? r->outer[d] - index : X_TILE;
    if (index)
      for (uint32_t s = 0; s < x->n_stream; s++) w->cur[s] += index * r->stream[s].outer[d];
  }
}

/* ---- instructions ---- */

static char *address(int64_t a) { return (char *)(intptr_t)a; }

static void draw(const work *w, const r_inst *in, char *out, int64_t start, int64_t step, int64_t n) {
  uint64_t key, counter;
  memcpy(&key, w->at[in->a], 8);
  memcpy(&counter, w->at[in->b], 8);
  uint32_t *const to = (uint32_t *)(void *)out;
  if (step == 1) {
    cpu_rng_u32(to, start, n, key, counter, in->seed);
    return;
  }
  for (int64_t i = 0; i < n; i++) cpu_rng_u32(to + i, start + i * step, 1, key, counter, in->seed);
}

void x_move_even(const work *w, const r_inst *in, char *reg, int64_t start, int64_t step, int64_t n) {
  switch (in->kind) {
  case I_GATHER: x_gather(reg, address(start), step, in->item, n); break;
  case I_IOTA: cpu_iota(reg, in->dtype, start, step, n); break;
  case I_RNG: draw(w, in, reg, start, step, n); break;
  case I_FILL: x_fill(address(start), step, reg, in->item, n); break;
  default: x_scatter(address(start), step, reg, in->item, n); break;
  }
}

static void move_block(work *w, const r_inst *in, char *reg, int64_t i, int64_t n) {
  if (in->walk)
    x_flat_move(w, in, reg, n);
  else
    x_move_even(w, in, reg, w->pos[in->stream] + i * in->lane, in->lane, in->one ? 1 : n);
}

typedef struct block {
  int64_t i, n, first, rows;
} block; /* lanes i .. i + n; reduced index; rows of a bare COL fold */

static void fold(const work *w, const r_inst *in, const block *b) {
  const x_red *const red = &w->r->x->red[in->out];
  if (w->r->mapping == M_ROW)
    red->r.row(w->acc[in->out], w->at[in->a], b->n, b->first + b->i);
  else
    red->r.col(w->acc[in->out], w->at[in->a], in->lane, b->rows, b->n, b->first);
}

static inline void fetch_share(const work *w, const r_list *l, const r_inst *in) {
  for (uint32_t k = 0; k < l->n_fetched; k++) {
    const char *const p = w->at[l->fetched[k]] + l->fetch_ahead;
    for (uint32_t line = in->from; line < in->to; line++) __builtin_prefetch(p + line * X_LINE);
  }
}

static void run_block(work *w, const r_list *l, const block *b) {
  char **const at = w->at;
  const r_inst *in = l->inst;
  for (const r_inst *const end = in + l->n; in < end; in++) {
    char *const reg = (in->row ? w->row : w->regs) + in->off;
    switch (in->kind) {
    case I_POINT:
      at[in->out] = address(w->pos[in->stream] + b->i * in->lane);
      if (in->ahead) x_stream_ahead(at[in->out] + in->ahead, b->n * in->item, in->part, in->parts);
      break;
    case I_SUPER:
      if (in->off != X_NONE) at[in->out] = reg;
      if (in->to) fetch_share(w, l, in);
      x_super_run(w, in, b->n);
      break;
    case I_STREAM: x_stream_out(address(w->pos[in->stream] + b->i * in->lane), at[in->a], b->n * in->item); break;
    case I_MAP:
      if (in->off != X_NONE) at[in->out] = reg;
      if (in->to) fetch_share(w, l, in);
      in->fn(at[in->out], at[in->a], at[in->b], at[in->c], in->one ? 1 : b->n);
      break;
    case I_GATHER:
    case I_IOTA:
    case I_RNG:
      if (in->off != X_NONE) at[in->out] = reg;
      move_block(w, in, at[in->out], b->i, b->n);
      break;
    case I_EXPAND:
      at[in->out] = reg;
      x_spread(reg, at[in->a], in->item, b->n);
      break;
    case I_REDUCE: fold(w, in, b); break;
    default: move_block(w, in, at[in->a], b->i, b->n); break;
    }
  }
}

static void run_lanes(work *w, const r_list *l, int64_t lo, int64_t hi, int64_t first) {
  const int64_t width = l->bare ? hi - lo : w->r->width;
  for (int64_t i = lo; i < hi; i += width) {
    const block b = {i, hi - i < width ? hi - i : width, first, 1};
    if (w->r->n_flat && i) x_flat_place(w, w->lo + i);
    run_block(w, l, &b);
  }
}

void x_run_phase(work *w, uint32_t phase) {
  const r_list *const l = &w->r->phase[phase];
  if (!l->n) return;
  memcpy(w->pos, w->cur, w->r->x->n_stream * sizeof *w->pos);
  const block b = {0, w->r->mapping == M_COL ? w->n : 1, 0, 1};
  run_block(w, l, &b);
}

static void step(work *w, uint32_t d, int64_t by) {
  for (uint32_t s = 0; s < w->r->x->n_stream; s++) w->pos[s] += by * w->r->stream[s].red[d];
}

void x_run_pass(work *w, uint32_t pass, int64_t piece) {
  const r_nest *const r = w->r;
  const r_list *const l = &r->pass[pass];
  int64_t lo[TERN_MAX_RANK + 1] = {0}, hi[TERN_MAX_RANK + 1], index[TERN_MAX_RANK], first = 0;
  for (uint32_t d = 0; d < r->n_red; d++) hi[d] = r->red[d];
  hi[r->n_red] = w->n;
  if (r->split) {
    const int64_t k = r->split_dim;
    lo[k] = piece * r->piece;
    if (lo[k] + r->piece < hi[k]) hi[k] = lo[k] + r->piece;
  }
  const bool col = r->mapping == M_COL,
             whole = col && l->bare && r->n_red > 0; /* the innermost loop is the fold's own */
  const uint32_t loops = r->n_red - whole;
  memcpy(w->pos, w->cur, r->x->n_stream * sizeof *w->pos);
  for (uint32_t d = 0; d < r->n_red; d++) {
    index[d] = lo[d];
    first += lo[d] * r->red_index[d];
    if (lo[d]) step(w, d, lo[d]);
  }
  for (;;) {
    if (col) {
      const block b = {0, w->n, first, whole ? hi[loops] - lo[loops] : 1};
      run_block(w, l, &b);
    } else {
      run_lanes(w, l, lo[r->n_red], hi[r->n_red], first);
    }
    uint32_t d = loops;
    for (; d > 0; d--) {
      const uint32_t k = d - 1;
      first += r->red_index[k];
      step(w, k, 1);
      if (++index[k] < hi[k]) break;
      first -= (hi[k] - lo[k]) * r->red_index[k];
      step(w, k, lo[k] - hi[k]);
      index[k] = lo[k];
    }
    if (d == 0) return;
  }
}

void x_acc_start(work *w, uint32_t pass) {
  for (uint32_t i = 0; i < w->r->x->n_red; i++) {
    const x_red *const red = &w->r->x->red[i];
    if (red->pass != pass) continue;
    if (w->r->mapping == M_COL) {
      cpu_reduce_start(&red->r, w->acc[i], w->n);
    } else {
      memcpy(w->acc[i].v, &red->start, 8);
      *w->acc[i].i = INT64_MAX;
    }
  }
}

void x_acc_finish(work *w, uint32_t pass) {
  const int64_t n = w->r->mapping == M_COL ? w->n : 1;
  for (uint32_t i = 0; i < w->r->x->n_red; i++) {
    const x_red *const red = &w->r->x->red[i];
    if (red->pass != pass) continue;
    char *const out = w->row + red->slot * w->r->row_slot;
    w->at[red->val] = out;
    if (red->finish)
      red->finish(out, w->acc[i].v, NULL, NULL, n);
    else
      memcpy(out, red->r.indexed ? (void *)w->acc[i].i : w->acc[i].v, (size_t)n * red->out_item);
  }
}

/* Up to X_TILE rows of the tile loop: block by block, transpose what lies the other way, then run row by row */
static void run_tiles(work *w) {
  const r_nest *const r = w->r;
  const uint32_t n = r->x->n_stream;
  for (int64_t i = 0; i < w->n; i += X_TILE_LANES) {
    const int64_t lanes = w->n - i < X_TILE_LANES ? w->n - i : X_TILE_LANES;
    memcpy(w->pos, w->cur, n * sizeof *w->pos);
    for (uint32_t s = 0; s < n; s++) {
      const r_stream *const st = &r->stream[s];
      if (!st->tiled) continue;
      const int64_t item = r->x->stream[s].item;
      char *const tile = w->scratch + st->tile;
      x_transpose(tile, X_TILE_LANES, address(w->cur[s] + i * st->tile_lane), st->tile_lane / item, lanes, w->rows,
                  (size_t)item, false);
      w->pos[s] = (int64_t)(intptr_t)tile - i * item;
    }
    for (int64_t row = 0; row < w->rows; row++) {
      const block b = {i, lanes, 0, 1};
      run_block(w, &r->pass[0], &b);
      for (uint32_t s = 0; s < n; s++)
        w->pos[s] += r->stream[s].tiled ? X_TILE_LANES * r->x->stream[s].item : r->stream[s].outer[r->tile_loop];
    }
  }
}

void x_run_unit(work *w, int64_t unit) {
  const r_nest *const r = w->r;
  x_unit_place(w, unit);
  if (r->n_tiled) {
    run_tiles(w);
    return;
  }
  if (!r->x->nest->red) {
    x_run_pass(w, 0, 0);
    return;
  }
  const uint32_t n_pass = r->x->nest->n_pass;
  for (uint32_t p = 0; p < n_pass; p++) {
    x_run_phase(w, p);
    x_acc_start(w, p);
    x_run_pass(w, p, 0);
    x_acc_finish(w, p);
  }
  x_run_phase(w, n_pass);
}
