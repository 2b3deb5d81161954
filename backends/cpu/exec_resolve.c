/* From a compiled nest and a launch's numbers to instructions: sizes, strides and addresses; neighbouring dims
   merged; the lane dim chosen; each item made into instructions that know which operands are splats and which lie in
   memory ready to use. Every choice depends on sizes and strides only, never on the number of threads. */
#include "exec.h"
#include <stdlib.h>
#include <string.h>

enum {
  REG_BYTES = 16 << 10,    /* what the block registers should fit */
  SCRATCH_BYTES = 1 << 20, /* most for kept values of a thread */
  MIN_LANES = 16,          /* fewest lanes that a COL block is planned with */
  MAP_CHUNK = 16 << 10,    /* elements of a unit of a map nest */
  COL_BARE = 2048,         /* columns of a unit when nothing but folds is to be done */
  SHORT_DIM = 48,
  LONG_DIM = 64,
  SPLIT_UNITS = 16,
  SPLIT_FROM = 128 << 10,
  SPLIT_PIECE = 64 << 10,
  SPLIT_MAX = 64
};

static size_t round64(size_t n) { return (n + 63) & ~(size_t)63; }

size_t x_resolve_bytes(const x_nest *x) {
  const size_t n_at = x->nest->n_val + X_TEMPS, lists = 2 * (size_t)x->nest->n_pass + 1;
  return round64(lists * sizeof(r_list)) + round64(x->n_stream * sizeof(r_stream)) + round64(n_at * sizeof(char *)) +
         round64(n_at) + round64(x->n_inst * sizeof(r_inst)) + round64(x->n_stream) + round64(n_at * 8);
}

static int64_t scratch_row_bytes(const x_nest *x) {
  int64_t bytes = 0;
  for (uint32_t i = 0; i < x->n_stream; i++) {
    const x_stream *const s = &x->stream[i];
    bool seen = s->kind != S_SCRATCH;
    for (uint32_t k = 0; k < i && !seen; k++) seen = x->stream[k].kind == S_SCRATCH && x->stream[k].mem == s->mem;
    if (!seen) bytes += s->item;
  }
  return bytes;
}

bool x_scratch_fits(const x_nest *x, const tern_word *words) {
  int64_t elems = scratch_row_bytes(x) * MIN_LANES;
  for (uint32_t d = 0; d < x->nest->rank && elems <= SCRATCH_BYTES; d++)
    if (x->nest->red >> d & 1) elems *= TERN_LIT(x->nest->size[d], words);
  return elems <= SCRATCH_BYTES;
}

/* ---- addresses ---- */

/* Strides by the nest's own dims, in bytes (S_INDEX: in units); base: address of index 0 */
static void place_stream(const x_plan *plan, const x_nest *x, const x_stream *s, const tern_launch *l,
                         const uint64_t *ws_off, r_stream *out) {
  const tern_value *const v = &plan->plan->region->values[s->value];
  memset(out, 0, sizeof *out);
  if (s->kind == S_SCRATCH) return;
  if (s->kind == S_INDEX) {
    int64_t step = 1;
    for (uint32_t d = v->rank; d-- > 0;) {
      const int64_t size = TERN_LIT(v->shape[d], l->words);
      out->stride[d] = v->shape[d] == 1 ? 0 : s->rng ? step : d == s->dim;
      step *= size;
    }
    return;
  }
  nest_addr a;
  nest_layout(plan->plan, s->value, s->to, l->words, &a);
  const char *const base =
      s->to == NEST_ARG ? cpu_arg(l, s->mem) : (const char *)l->workspace.mem + l->workspace.offset + ws_off[s->mem];
  out->base = (int64_t)(intptr_t)base + a.offset * s->item;
  for (uint32_t d = 0; d < x->nest->rank && d < v->rank; d++) out->stride[d] = a.stride[d] * s->item;
}

static bool can_merge(const r_nest *r, uint32_t d, uint32_t e) { /* d outside e */
  if ((r->red_mask >> d & 1) != (r->red_mask >> e & 1)) return false;
  for (uint32_t i = 0; i < r->x->n_stream; i++)
    if (r->stream[i].stride[d] != r->stream[i].stride[e] * r->size[e]) return false;
  return true;
}

/* More streams step farther along dim b of the nest than along dim a; those that stand still along one say nothing */
static bool steps_less(const r_nest *r, uint32_t a, uint32_t b) {
  int less = 0;
  for (uint32_t i = 0; i < r->x->n_stream; i++) {
    const int64_t x = llabs(r->stream[i].stride[a]), y = llabs(r->stream[i].stride[b]);
    if (x && y) less += (x < y) - (x > y);
  }
  return less > 0;
}

/* The dims that have more than one element. What each element of a map nest is depends on no order: dims go by memory
   then, whatever order the region has (a convolution's result has the channels before the pixels) */
static uint32_t order_dims(const r_nest *r, uint32_t *dims) {
  const nest *const n = r->x->nest;
  uint32_t rank = 0;
  for (uint32_t d = 0; d < n->rank; d++) {
    if (TERN_LIT(n->size[d], r->launch->words) == 1) continue;
    uint32_t at = rank++;
    for (; at > 0 && !n->red && steps_less(r, dims[at - 1], d); at--) dims[at] = dims[at - 1];
    dims[at] = d;
  }
  return rank;
}

/* Drop dims of size 1 and merge neighbours that every stream steps through evenly */
static void merge_dims(r_nest *r) {
  const nest *const n = r->x->nest;
  uint32_t dims[TERN_MAX_RANK], rank = 0;
  const uint32_t n_dims = order_dims(r, dims);
  int64_t stride[TERN_MAX_RANK];
  r->red_mask = 0;
  for (uint32_t i = 0; i < r->x->n_stream; i++) {
    memcpy(stride, r->stream[i].stride, sizeof stride);
    for (uint32_t k = 0; k < n_dims; k++) r->stream[i].stride[k] = stride[dims[k]];
  }
  for (uint32_t k = 0; k < n_dims; k++) {
    const int64_t size = TERN_LIT(n->size[dims[k]], r->launch->words);
    r->size[rank] = size;
    if (n->red >> dims[k] & 1) r->red_mask |= 1u << rank;
    for (uint32_t i = 0; i < r->x->n_stream; i++) r->stream[i].stride[rank] = r->stream[i].stride[k];
    rank++;
    if (rank < 2 || !can_merge(r, rank - 2, rank - 1)) continue;
    rank--;
    r->size[rank - 1] *= size;
    r->red_mask &= ~(1u << rank);
    for (uint32_t i = 0; i < r->x->n_stream; i++) r->stream[i].stride[rank - 1] = r->stream[i].stride[rank];
  }
  if (rank == 0) {
    r->size[0] = 1;
    r->red_mask = n->red ? 1 : 0;
    for (uint32_t i = 0; i < r->x->n_stream; i++) r->stream[i].stride[0] = 0;
    rank = 1;
  }
  r->rank = rank;
}

/* ---- mapping ---- */

static uint32_t longest(const r_nest *r, uint32_t mask) { /* of equals the innermost */
  uint32_t best = UINT32_MAX;
  for (uint32_t d = 0; d < r->rank; d++)
    if ((mask >> d & 1) && (best == UINT32_MAX || r->size[d] >= r->size[best])) best = d;
  return best;
}

/* One element a row, where rows have many: it weighs nothing beside the others */
static bool once_a_row(const r_nest *r, const r_stream *s) {
  bool still = r->red_mask != 0;
  for (uint32_t d = 0; d < r->rank; d++) still &= !(r->red_mask >> d & 1) || s->stride[d] == 0;
  return still;
}

/* Streams of memory that are contiguous along dim d, those of row-level values left out */
static uint32_t unit_streams(const r_nest *r, uint32_t d) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < r->x->n_stream; i++)
    n += r->x->stream[i].kind == S_MEM && r->stream[i].stride[d] == r->x->stream[i].item &&
         !once_a_row(r, &r->stream[i]);
  return n;
}

/* A long dim along which more is contiguous than along the innermost one; a reduced one must be the last of the
   reduced */
static bool follow_memory(r_nest *r) {
  const uint32_t last = r->rank - 1;
  uint32_t best = last, inner_red = last;
  for (uint32_t d = 0; d < r->rank; d++)
    if (r->red_mask >> d & 1) inner_red = d;
  for (uint32_t d = 0; d < r->rank; d++)
    if (r->size[d] >= LONG_DIM && (!(r->red_mask >> d & 1) || d == inner_red) &&
        unit_streams(r, d) > unit_streams(r, best))
      best = d;
  if (best == last) return false;
  r->lane_dim = best;
  r->mapping = r->red_mask >> best & 1 ? M_ROW : M_COL;
  return true;
}

static void choose_mapping(r_nest *r) {
  const uint32_t last = r->rank - 1, outer_mask = ~r->red_mask & ((1u << r->rank) - 1);
  r->lane_dim = last;
  if (!r->x->nest->red) {
    r->mapping = x_flat_map(r) ? M_FLAT : M_MAP;
    return;
  }
  if (follow_memory(r)) return;
  const uint32_t wide = longest(r, outer_mask);
  if (r->red_mask >> last & 1) {
    r->mapping = wide != UINT32_MAX && r->size[last] < SHORT_DIM && r->size[wide] >= LONG_DIM ? M_COL : M_ROW;
    if (r->mapping == M_COL) r->lane_dim = wide;
    return;
  }
  uint32_t inner_red = UINT32_MAX;
  for (uint32_t d = 0; d < r->rank; d++)
    if (r->red_mask >> d & 1) inner_red = d;
  if (r->size[last] < MIN_LANES && inner_red != UINT32_MAX && r->size[inner_red] >= LONG_DIM) {
    r->mapping = M_ROW;
    r->lane_dim = inner_red;
    return;
  }
  r->mapping = M_COL;
  if (r->size[last] < MIN_LANES) r->lane_dim = wide;
}

/* Loops beside the lanes, and each stream's steps in them */
static void lay_loops(r_nest *r) {
  int64_t index_step = 1;
  int64_t step_of[TERN_MAX_RANK] = {0};
  r->n_outer = r->n_red = 0;
  r->row_elems = 1;
  for (uint32_t d = r->rank; d-- > 0;) { /* steps of the reduced index, innermost first */
    if (!(r->red_mask >> d & 1)) continue;
    r->row_elems *= r->size[d];
    step_of[d] = index_step;
    index_step *= r->size[d];
  }
  if (r->n_flat == 0) {
    r->lanes = r->size[r->lane_dim];
    for (uint32_t i = 0; i < r->x->n_stream; i++) r->stream[i].lane = r->stream[i].stride[r->lane_dim];
  }
  for (uint32_t d = 0; d < r->rank; d++) {
    const bool red = r->red_mask >> d & 1;
    if (r->n_flat ? !red : d == r->lane_dim) continue;
    const uint32_t at = red ? r->n_red++ : r->n_outer++;
    (red ? r->red : r->outer)[at] = r->size[d];
    if (red) r->red_index[at] = step_of[d];
    for (uint32_t i = 0; i < r->x->n_stream; i++)
      (red ? r->stream[i].red : r->stream[i].outer)[at] = r->stream[i].stride[d];
  }
}

/* A map nest whose operands are partly contiguous along an outer dim: those are read in tiles of X_TILE rows */
static void choose_tiles(r_nest *r) {
  r->n_tiled = 0;
  r->tile_loop = UINT32_MAX;
  if (r->mapping != M_MAP) return;
  for (uint32_t i = 0; i < r->x->n_stream; i++) {
    r_stream *const s = &r->stream[i];
    const x_stream *const xs = &r->x->stream[i];
    if (!xs->loaded || xs->kind != S_MEM || s->lane == 0 || s->lane == xs->item) continue;
    for (uint32_t d = 0; d < r->n_outer; d++) {
      if (s->outer[d] != xs->item || r->outer[d] < X_TILE || (r->tile_loop != UINT32_MAX && r->tile_loop != d))
        continue;
      r->tile_loop = d;
      s->tiled = true;
      s->tile_lane = s->lane;
      s->lane = xs->item; /* in the tile */
      r->n_tiled++;
      break;
    }
  }
}

bool x_only_folds(const x_nest *x) {
  if (x->nest->n_pass != 1) return false;
  for (uint32_t i = 0; i < x->pass[0].n; i++)
    if (x->pass[0].item[i].kind != X_LOAD && x->pass[0].item[i].kind != X_REDUCE) return false;
  return true;
}

static void choose_width(r_nest *r) {
  const x_nest *const x = r->x;
  const size_t each = (size_t)(x->n_reg ? x->n_reg : 1) * x->item_max;
  int64_t width = 1024;
  while (width > 256 && (size_t)width * each > REG_BYTES) width /= 2;
  if (r->mapping == M_COL) {
    if (x_only_folds(x)) width = COL_BARE;
    const int64_t lane_bytes = scratch_row_bytes(x) * r->row_elems;
    while (width > MIN_LANES && lane_bytes * width > SCRATCH_BYTES) width /= 2;
  }
  if (r->n_tiled) width = X_TILE_LANES;
  if (r->n_flat) width = x_flat_width(r, width);
  r->width = width;
  r->chunk = r->mapping == M_COL ? width : r->mapping == M_ROW ? r->lanes : r->n_tiled ? 16 * X_TILE_LANES : MAP_CHUNK;
  if (r->mapping == M_FLAT) r->chunk -= r->chunk % width;
  if (r->chunk > r->lanes) r->chunk = r->lanes;
  r->n_chunks = r->mapping == M_ROW ? 1 : (r->lanes + r->chunk - 1) / r->chunk;
  r->units = r->n_chunks;
  for (uint32_t d = 0; d < r->n_outer; d++)
    r->units *= d == r->tile_loop ? (r->outer[d] + X_TILE - 1) / X_TILE : r->outer[d];
}

/* Few rows that are long: cut the longest reduced dim */
static void choose_split(r_nest *r) {
  r->split = 0;
  const int64_t lanes = r->mapping == M_COL ? r->chunk : 1, elems = r->row_elems * lanes;
  if ((r->mapping != M_ROW && r->mapping != M_COL) || !r->x->n_red || r->x->nest->n_scratch) return;
  if (r->units > SPLIT_UNITS || elems < SPLIT_FROM) return;
  r->split_dim = r->n_red;
  int64_t size = r->mapping == M_ROW ? r->lanes : 0;
  for (uint32_t d = 0; d < r->n_red; d++)
    if (r->red[d] > size) {
      size = r->red[d];
      r->split_dim = d;
    }
  int64_t pieces = elems / SPLIT_PIECE;
  if (pieces > SPLIT_MAX) pieces = SPLIT_MAX;
  r->piece = (size + pieces - 1) / pieces;
  if (r->split_dim == r->n_red) r->piece = (r->piece + 1023) / 1024 * 1024;
  r->split = (size + r->piece - 1) / r->piece;
  if (r->split < 2) r->split = 0;
}

/* Kept values: a dense row for each slot; in COL each element is a vector of lanes */
static void place_scratch(r_nest *r) {
  const int64_t lanes = r->mapping == M_COL ? r->width : 1;
  size_t end = 0;
  for (uint32_t i = 0; i < r->x->n_stream; i++) {
    const x_stream *const s = &r->x->stream[i];
    if (s->kind != S_SCRATCH) continue;
    r_stream *const o = &r->stream[i];
    bool seen = false;
    for (uint32_t k = 0; k < i && !seen; k++)
      if (r->x->stream[k].kind == S_SCRATCH && r->x->stream[k].mem == s->mem) {
        o->base = r->stream[k].base;
        seen = true;
      }
    if (!seen) {
      o->base = (int64_t)end;
      end += round64((size_t)(r->row_elems * lanes * s->item));
    }
    o->lane = s->item;
    for (uint32_t d = 0; d < r->n_red; d++) o->red[d] = r->red_index[d] * lanes * s->item;
  }
  for (uint32_t i = 0; i < r->x->n_stream && r->n_tiled; i++) /* a map nest has tiles instead */
    if (r->stream[i].tiled) {
      r->stream[i].tile = (int64_t)end;
      end += X_TILE * X_TILE_LANES * 8;
    }
  r->scratch_bytes = end;
}

/* ---- instructions ---- */

static r_inst *emit(r_nest *r, r_list *l, uint8_t kind, int32_t out) {
  r_inst *const in = &l->inst[l->n++];
  memset(in, 0, sizeof *in);
  r->n_inst++;
  in->kind = kind;
  in->out = out;
  in->a = in->b = in->c = in->stream = X_NONE;
  in->off = X_NONE;
  return in;
}

static int64_t reg_off(const r_nest *r, uint32_t slot) { return (int64_t)(slot * r->reg_step); }
static int64_t item_off(const r_nest *r, const x_item *it) {
  return it->row ? (int64_t)(it->slot * r->row_slot) : reg_off(r, it->slot);
}

/* A splat made into a whole register of its own (temporary t) */
static int32_t expand(r_nest *r, r_list *l, int32_t val, uint8_t item, uint32_t t) {
  const int32_t out = (int32_t)(r->x->nest->n_val + t);
  r_inst *const in = emit(r, l, I_EXPAND, out);
  in->a = val;
  in->item = item;
  in->off = reg_off(r, r->x->n_reg + t);
  r->splat[out] = false;
  return out;
}

static uint8_t val_item(const r_nest *r, int32_t val) {
  return (uint8_t)cpu_item_size(r->plan->plan->region->values[r->x->nest->val[val].value].dtype);
}

static void emit_load(r_nest *r, r_list *l, const x_item *it) {
  const r_stream *const s = &r->stream[it->stream];
  const uint8_t item = r->x->stream[it->stream].item;
  const bool one = s->lane == 0 && !s->walk, point = !s->walk && !it->copy && (one || s->lane == item);
  const bool cell = it->row && (one || r->mapping == M_ROW); /* read before the row is written */
  r_inst *const in = emit(r, l, point && !cell ? I_POINT : I_GATHER, (int32_t)it->val);
  in->stream = it->stream;
  in->item = item;
  in->lane = s->lane;
  in->walk = s->walk;
  in->one = one || cell;
  in->row = it->row;
  if (in->kind == I_GATHER) in->off = item_off(r, it);
  r->splat[it->val] = in->one;
}

/* Have the result go straight to where it will be stored. False: it goes to its register */
static bool aim_direct(r_nest *r, r_list *l, const x_item *it) {
  if (it->direct == X_NONE) return false;
  const r_stream *const s = &r->stream[it->direct];
  const uint8_t item = r->x->stream[it->direct].item;
  if (s->walk || s->lane != item) return false;
  r_inst *const in = emit(r, l, I_POINT, (int32_t)it->val);
  in->stream = it->direct;
  in->item = item;
  in->lane = s->lane;
  r->written[it->direct] = true;
  return true;
}

static void emit_generator(r_nest *r, r_list *l, const x_item *it) {
  const r_stream *const s = &r->stream[it->stream];
  const bool one = (s->lane == 0 && !s->walk) || (it->row && r->mapping == M_ROW),
             direct = !one && aim_direct(r, l, it);
  r_inst *const in = emit(r, l, it->kind == X_RNG ? I_RNG : I_IOTA, (int32_t)it->val);
  in->stream = it->stream;
  in->item = (uint8_t)cpu_item_size(it->dtype);
  in->dtype = (uint8_t)it->dtype;
  in->seed = it->in_dtype;
  in->lane = s->lane;
  in->walk = s->walk;
  in->one = one;
  in->row = it->row;
  in->a = it->in[0];
  in->b = it->in[1];
  in->off = direct ? X_NONE : item_off(r, it);
  r->splat[it->val] = one;
}

static void emit_map(r_nest *r, r_list *l, const x_item *it) {
  int32_t arg[3] = {it->in[0], it->in[1], it->in[2]};
  uint32_t mask = 0;
  for (uint32_t i = 0; i < it->n_in; i++) mask |= (uint32_t)r->splat[arg[i]] << i;
  const bool one = mask + 1 == 1u << it->n_in;
  cpu_map_fn fn = it->fn[one ? 0 : mask];
  if (!fn) {
    for (uint32_t i = 0; i < it->n_in; i++)
      if (mask >> i & 1) arg[i] = expand(r, l, arg[i], val_item(r, arg[i]), i);
    fn = it->fn[0];
  }
  const bool direct = !one && aim_direct(r, l, it);
  r_inst *const in = emit(r, l, I_MAP, (int32_t)it->val);
  in->a = arg[0];
  in->b = it->n_in > 1 ? arg[1] : arg[0];
  in->c = it->n_in > 2 ? arg[2] : arg[0];
  in->fn = fn;
  in->one = one;
  in->row = it->row;
  in->off = direct ? X_NONE : item_off(r, it);
  r->splat[it->val] = one;
}

static void emit_fold(r_nest *r, r_list *l, const x_item *it) {
  const x_red *const red = &r->x->red[it->slot];
  int32_t arg = it->in[0];
  if (r->splat[arg]) arg = expand(r, l, arg, val_item(r, arg), 0);
  if (red->cast) {
    const int32_t out = (int32_t)r->x->nest->n_val + 1;
    r_inst *const in = emit(r, l, I_MAP, out);
    in->a = in->b = in->c = arg;
    in->fn = red->cast;
    in->off = reg_off(r, r->x->n_reg + 1);
    arg = out;
  }
  r_inst *const in = emit(r, l, I_REDUCE, (int32_t)it->slot);
  in->a = arg;
  r->splat[it->val] = r->mapping == M_ROW;
}

static void emit_store(r_nest *r, r_list *l, const x_item *it) {
  if (r->written[it->stream]) return;
  const r_stream *const s = &r->stream[it->stream];
  const uint8_t item = r->x->stream[it->stream].item;
  const bool fill = r->splat[it->val];
  r_inst *const in = emit(r, l, fill ? I_FILL : !s->walk && s->lane == item ? I_COPY : I_SCATTER, X_NONE);
  in->a = (int32_t)it->val;
  in->stream = it->stream;
  in->item = item;
  in->lane = s->lane;
  in->walk = s->walk;
  in->one = s->lane == 0 && !s->walk;
}

/* Nothing but pointing at memory and folding it: blocks need not fit a register */
static void find_bare(r_nest *r, r_list *l) {
  l->bare = l->n > 0;
  for (uint32_t i = 0; i < l->n; i++)
    if (l->inst[i].kind != I_REDUCE && (l->inst[i].kind != I_POINT || l->inst[i].one)) l->bare = false;
  for (uint32_t i = 0; i < l->n && l->bare && r->n_red; i++) {
    if (l->inst[i].kind != I_REDUCE) continue;
    for (uint32_t k = 0; k < i; k++)
      if (l->inst[k].kind == I_POINT && l->inst[k].out == l->inst[i].a)
        l->inst[i].lane = r->stream[l->inst[k].stream].red[r->n_red - 1] / l->inst[k].item;
  }
}

static void emit_list(r_nest *r, const x_list *from, r_list *l) {
  l->inst = r->inst + r->n_inst;
  l->n = 0;
  for (uint32_t i = 0; i < from->n; i++) {
    const x_item *const it = &from->item[i];
    switch (it->kind) {
    case X_LOAD: emit_load(r, l, it); break;
    case X_MAP: emit_map(r, l, it); break;
    case X_IOTA:
    case X_RNG: emit_generator(r, l, it); break;
    case X_REDUCE: emit_fold(r, l, it); break;
    case X_SUPER: x_super_emit(r, l, it); break;
    default: emit_store(r, l, it); break;
    }
  }
  find_bare(r, l);
}

/* ---- constants and scalars ---- */

static void compute_scalars(r_nest *r, char *cells) {
  const nest *const n = r->x->nest;
  const tern_region *const reg = r->plan->plan->region;
  for (uint32_t v = 0; v < r->n_at; v++) {
    const bool imm = v < n->n_val && n->val[v].src == NEST_IMM;
    const bool scalar = v < n->n_val && n->val[v].level == NEST_SCALAR;
    r->at[v] = imm || scalar ? cells + 8 * (size_t)v : NULL;
    r->splat[v] = imm || scalar;
    if (imm)
      cpu_word_store(r->at[v], reg->values[n->val[v].value].dtype, nest_imm(reg, n->val[v].value, r->launch->words));
  }
  for (uint32_t i = 0; i < r->x->scalar.n; i++) {
    const x_item *const it = &r->x->scalar.item[i];
    char *const out = r->at[it->val];
    if (it->kind == X_IOTA) {
      cpu_iota(out, it->dtype, 0, 0, 1);
    } else if (it->kind == X_RNG) {
      uint64_t key, counter;
      memcpy(&key, r->at[it->in[0]], 8);
      memcpy(&counter, r->at[it->in[1]], 8);
      cpu_rng_u32((uint32_t *)(void *)out, 0, 1, key, counter, it->in_dtype);
    } else {
      const char *arg[3];
      for (int k = 0; k < 3; k++) arg[k] = it->in[k] == X_NONE ? r->at[it->in[0]] : r->at[it->in[k]];
      it->fn[0](out, arg[0], arg[1], arg[2], 1);
    }
  }
}

static char *carve(char **mem, size_t bytes) {
  char *const p = *mem;
  *mem += round64(bytes);
  return p;
}

void x_resolve(const x_plan *plan, const x_nest *x, const tern_launch *l, const uint64_t *ws_off, char *mem,
               r_nest *r) {
  const uint32_t n_pass = x->nest->n_pass;
  r->x = x;
  r->launch = l;
  r->plan = plan;
  r->n_at = x->nest->n_val + X_TEMPS;
  r->n_inst = 0;
  r->pass = (r_list *)(void *)carve(&mem, (2 * (size_t)n_pass + 1) * sizeof(r_list));
  r->phase = r->pass + n_pass;
  r->stream = (r_stream *)(void *)carve(&mem, x->n_stream * sizeof(r_stream));
  r->at = (char **)(void *)carve(&mem, r->n_at * sizeof(char *));
  r->splat = (bool *)carve(&mem, r->n_at);
  r->inst = (r_inst *)(void *)carve(&mem, x->n_inst * sizeof(r_inst));
  r->written = (bool *)carve(&mem, x->n_stream);
  char *const cells = carve(&mem, 8 * (size_t)r->n_at);
  memset(r->written, 0, x->n_stream);
  for (uint32_t i = 0; i < x->n_stream; i++) place_stream(plan, x, &x->stream[i], l, ws_off, &r->stream[i]);
  merge_dims(r);
  choose_mapping(r);
  r->n_flat = 0;
  if (r->mapping == M_FLAT || x_flat_fold(r)) x_flatten(r);
  lay_loops(r);
  choose_tiles(r);
  choose_width(r);
  choose_split(r);
  place_scratch(r);
  r->reg_step = round64((size_t)r->width * x->item_max);
  r->row_slot = r->mapping == M_COL ? round64((size_t)r->width * 8) : 8;
  r->row_bytes = round64(r->row_slot * (x->n_row ? x->n_row : 1));
  r->reg_bytes = r->reg_step * (x->n_reg + X_TEMPS);
  compute_scalars(r, cells);
  emit_list(r, &x->phase[0], &r->phase[0]);
  for (uint32_t p = 0; p < n_pass; p++) {
    emit_list(r, &x->fused[p], &r->pass[p]);
    emit_list(r, &x->phase[p + 1], &r->phase[p + 1]);
  }
}
