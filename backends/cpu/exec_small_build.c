/* Building the programs of small launches (exec_small.h). A program follows the item lists of the compiled nests, over
   r_nest's choices, so that sums are taken in the same order as there; but each value is computed once, for all rows at
   once, in an array of its own in the order [outer dims][reduced dims], the lane dim last. */
#include "exec_small.h"
#include "exec_tiny.h"
#include <stdlib.h>
#include <string.h>

enum {
  MOST_ELEMS = X_SMALL_ELEMS, /* of a nest */
  MOST_BYTES = 24 << 10,      /* of its arrays: beyond, the general path's blocks stay closer to the core */
  MOST_WORK = 12 << 10        /* elements times items where nothing is reduced: beyond, fused instructions win */
};

enum { F_NONE, F_ONE, F_ROW, F_FULL }; /* of a value: not made, one element, one a row, all */

typedef struct state {
  uint8_t form;
  bool lone;      /* the general path holds it as one element */
  p_ref at, full; /* full: expanded to all elements */
  bool expanded;
  int32_t slot, full_slot; /* to be freed, or X_NONE */
  int32_t last;            /* position of its last reader */
} state;

typedef struct array { /* that grows */
  char *p;
  uint32_t n, room;
} array;

typedef struct maker {
  const x_plan *plan;
  const tern_launch *l;
  const uint64_t *ws_off;
  const x_nest *x;
  r_nest r;
  array inst, walk, take, fold, param, consts;
  p_ref *cell; /* [n_values] of the region: where a constant, parameter or scalar is */
  bool *has_cell;
  uint32_t cells;     /* bytes */
  size_t slots, most; /* bytes of this nest, and of all */
  state *val;         /* [n_val] */
  bool *written;      /* [n_stream] */
  array free_row, free_full;
  uint32_t order[TERN_MAX_RANK], n_dims, n_outer; /* dims as the arrays have them; the first n_outer are not reduced */
  int64_t rows, full;                             /* elements of a row-level and of a full value */
  p_inst nowhere;
  bool bad; /* cannot be, or no memory */
} maker;

static size_t round64(size_t n) { return (n + 63) & ~(size_t)63; }

static void *add(maker *k, array *a, size_t item) {
  if (a->n == a->room) {
    const uint32_t room = a->room ? 2 * a->room : 16;
    char *const more = realloc(a->p, room * item);
    if (!more) {
      k->bad = true;
      return NULL;
    }
    a->p = more;
    a->room = room;
  }
  void *const p = a->p + a->n++ * item;
  memset(p, 0, item);
  return p;
}

static p_ref ref(maker *k, uint32_t base, int64_t off) {
  if (off != (int32_t)off) k->bad = true;
  return (p_ref){base, (int32_t)off};
}

static p_inst *emit(maker *k, uint8_t kind, p_ref out, p_ref a) {
  p_inst *const in = add(k, &k->inst, sizeof *in);
  if (!in) return &k->nowhere;
  in->kind = kind;
  in->out = out;
  in->a = a;
  return in;
}

/* ---- places ---- */

static int64_t row_room(const maker *k) { return (int64_t)round64((size_t)k->rows * 8); }
static int64_t full_room(const maker *k) { return (int64_t)round64((size_t)k->full * k->x->item_max); }

static int32_t take(maker *k, bool full) {
  array *const freed = full ? &k->free_full : &k->free_row;
  if (freed->n) return ((int32_t *)(void *)freed->p)[--freed->n];
  const size_t at = k->slots;
  k->slots += (size_t)(full ? full_room(k) : row_room(k));
  if (k->slots > k->most) k->most = k->slots;
  if (k->most > MOST_BYTES) k->bad = true;
  return (int32_t)at;
}

static void give(maker *k, bool full, int32_t slot) {
  int32_t *const to = add(k, full ? &k->free_full : &k->free_row, sizeof *to);
  if (to) *to = slot;
}

static p_ref new_cell(maker *k) {
  k->cells += 8;
  return (p_ref){P_CELLS, (int32_t)k->cells - 8};
}

/* A place for a value of that form; it belongs to v */
static p_ref place(maker *k, state *v, uint8_t form) {
  v->form = form;
  if (form == F_ONE) return v->at = new_cell(k);
  v->slot = take(k, form == F_FULL);
  return v->at = (p_ref){P_SLOTS, v->slot};
}

static p_ref constant(maker *k, const void *bytes) {
  char *const to = add(k, &k->consts, 8);
  if (to) memcpy(to, bytes, 8);
  return (p_ref){P_CONSTS, 8 * (int32_t)k->consts.n - 8};
}

static const tern_region *region(const maker *k) { return k->plan->plan->region; }
static uint32_t dtype_of(const maker *k, int32_t val) { return region(k)->values[k->x->nest->val[val].value].dtype; }
static uint8_t item_of(const maker *k, int32_t val) { return (uint8_t)cpu_item_size(dtype_of(k, val)); }

/* A constant, parameter or scalar: its cell, made on its first use in the program */
static state *immediate(maker *k, int32_t val) {
  state *const s = &k->val[val];
  const uint32_t value = k->x->nest->val[val].value;
  const tern_value *const v = &region(k)->values[value];
  s->form = F_ONE;
  s->lone = true;
  if (!k->has_cell[value]) {
    k->has_cell[value] = true;
    if (v->kind == TERN_V_PARAM) {
      k->cell[value] = new_cell(k);
      p_param *const p = add(k, &k->param, sizeof *p);
      if (p) *p = (p_param){v->slot, v->dtype, (uint32_t)k->cell[value].off};
    } else {
      uint64_t bytes = 0;
      cpu_word_store(&bytes, v->dtype, nest_imm(region(k), value, k->l->words));
      k->cell[value] = constant(k, &bytes);
    }
  }
  s->at = k->cell[value];
  return s;
}

static state *operand(maker *k, int32_t val) {
  state *const s = &k->val[val];
  if (s->form != F_NONE) return s;
  if (k->x->nest->val[val].src == NEST_IMM) return immediate(k, val);
  k->bad = true; /* the lists promise that it is made */
  return s;
}

/* ---- walks ---- */

/* The dims of a row-level or full stream, merged. Returns elements' step from one to the next when that is all there is
   (0: one element again and again), else -1 */
static int64_t merge(const maker *k, const int64_t *stride, bool full, p_walk *w) {
  memset(w, 0, sizeof *w);
  for (uint32_t i = 0; i < (full ? k->n_dims : k->n_outer); i++) {
    const uint32_t d = k->order[i];
    const int64_t size = k->r.size[d], step = stride[d];
    if (size == 1) continue;
    if (w->rank && w->stride[w->rank - 1] == step * size) {
      w->size[w->rank - 1] *= size;
      w->stride[w->rank - 1] = step;
      continue;
    }
    w->size[w->rank] = size;
    w->stride[w->rank++] = step;
  }
  if (w->rank > 1) return -1;
  if (w->rank == 1) return w->stride[0];
  w->rank = 1;
  w->size[0] = 1;
  return 0;
}

/* The dims of row-level arrays come first in a full one, but with lanes across the reduced dims the last of them come
   last */
static void order_dims(maker *k) {
  const r_nest *const r = &k->r;
  const bool across = r->mapping == M_COL;
  k->n_dims = k->n_outer = 0;
  k->rows = k->full = 1;
  for (uint32_t d = 0; d < r->rank; d++)
    if (!(r->red_mask >> d & 1) && !(across && d == r->lane_dim)) k->order[k->n_dims++] = d;
  k->n_outer = k->n_dims;
  for (uint32_t d = 0; d < r->rank; d++)
    if (r->red_mask >> d & 1) k->order[k->n_dims++] = d;
  if (across) k->order[k->n_dims++] = r->lane_dim;
  for (uint32_t d = 0; d < r->rank; d++) {
    k->full *= r->size[d];
    if (!(r->red_mask >> d & 1)) k->rows *= r->size[d];
  }
}

static bool across(const maker *k) { return k->r.mapping == M_COL; }

/* As merge, for row-level streams of nests with lanes across: their dims are the outer ones and the lane dim */
static int64_t merge_level(maker *k, const int64_t *stride, bool row, p_walk *w) {
  if (!row || !across(k)) return merge(k, stride, !row, w);
  const uint32_t n = k->n_outer, at = k->order[n];
  k->order[n] = k->r.lane_dim;
  k->n_outer = n + 1;
  const int64_t step = merge(k, stride, false, w);
  k->order[n] = at;
  k->n_outer = n;
  return step;
}

static void with_walk(maker *k, p_inst *in, const p_walk *w) {
  p_walk *const to = add(k, &k->walk, sizeof *to);
  if (to) *to = *w;
  in->more = (uint16_t)(k->walk.n - 1);
  if (k->walk.n > UINT16_MAX) k->bad = true;
}

/* Few elements of 4 bytes into a slot: an instruction without loops. False: not so */
static bool with_take(maker *k, p_inst *in, const p_walk *w, int64_t n) {
  if (in->item != 4 || n > TAKE_MOST || in->out.base != P_SLOTS || k->take.n == UINT16_MAX) return false;
  int64_t off[TAKE_MOST];
  for (int64_t i = 0; i < TAKE_MOST; i++) {
    int64_t rest = i < n ? i : 0;
    off[i] = 0;
    for (uint32_t d = w->rank; d-- > 0; rest /= w->size[d]) off[i] += rest % w->size[d] * w->stride[d];
    if (off[i] != (int32_t)off[i]) return false;
  }
  p_take *const t = add(k, &k->take, sizeof *t);
  for (int i = 0; t && i < TAKE_MOST; i++) t->off[i] = (int32_t)off[i];
  in->kind = P_TAKE;
  in->n = (int32_t)n;
  in->more = (uint16_t)(k->take.n - 1);
  return true;
}

/* Where a stream of memory begins, as base and offset */
static p_ref stream_ref(maker *k, int32_t stream) {
  const x_stream *const s = &k->x->stream[stream];
  const int64_t at = k->r.stream[stream].base;
  if (s->to == NEST_ARG) return ref(k, P_ARGS + s->mem, at - (int64_t)(intptr_t)cpu_arg(k->l, s->mem));
  return ref(k, P_WORK, at - (int64_t)(intptr_t)((char *)k->l->workspace.mem + k->l->workspace.offset));
}

/* The value as an array of all elements */
static p_ref expand(maker *k, int32_t val) {
  state *const s = operand(k, val);
  if (s->form == F_FULL || (s->form == F_ROW && k->rows == k->full)) return s->at;
  if (s->expanded) return s->full;
  p_walk w = {.rank = 1, .size = {k->full}, .stride = {0}};
  const uint8_t item = item_of(k, val);
  if (s->form == F_ROW && across(k)) {
    const int64_t lanes = k->r.lanes, m = k->r.row_elems;
    w = (p_walk){.rank = 3, .size = {k->rows / lanes, m, lanes}, .stride = {lanes * item, 0, item}};
  } else if (s->form == F_ROW) {
    w = (p_walk){.rank = 2, .size = {k->rows, k->r.row_elems}, .stride = {item, 0}};
  }
  s->full_slot = take(k, true);
  s->full = (p_ref){P_SLOTS, s->full_slot};
  s->expanded = true;
  p_inst *const in = emit(k, P_GATHER, s->full, s->at);
  in->item = item;
  if (!with_take(k, in, &w, k->full)) with_walk(k, in, &w);
  return s->full;
}

/* ---- items ---- */

/* A store for a later pass of this nest, into memory that is not the value's own: here the value stays where it is */
static bool is_keep(const maker *k, const x_item *it, int32_t stream) {
  const x_stream *const s = &k->x->stream[stream];
  return s->kind == S_SCRATCH || s->value != k->x->nest->val[it->val].value;
}

static void make_load(maker *k, const x_item *it) {
  state *const s = &k->val[it->val];
  if (s->form != F_NONE) return;
  if (k->x->stream[it->stream].kind != S_MEM) {
    k->bad = true;
    return;
  }
  p_walk w;
  const r_stream *const st = &k->r.stream[it->stream];
  const uint8_t item = k->x->stream[it->stream].item;
  const int64_t step = merge_level(k, st->stride, it->row, &w), n = it->row ? k->rows : k->full;
  const uint8_t form = step == 0 ? F_ONE : it->row ? F_ROW : F_FULL;
  const p_ref from = stream_ref(k, it->stream);
  s->lone = k->r.mapping == M_FLAT ? step == 0 : it->row && k->r.mapping == M_ROW ? true : st->lane == 0;
  if ((step == 0 || step == item) && !it->copy) {
    s->form = form;
    s->at = from;
    return;
  }
  const p_ref to = place(k, s, form);
  p_inst *const in = emit(k, step == 0 || step == item ? P_COPY : P_GATHER, to, from);
  in->item = item;
  in->n = (int32_t)(form == F_ONE ? item : n * item);
  if (in->kind == P_GATHER && !with_take(k, in, &w, n)) with_walk(k, in, &w);
}

/* May the value be made where it will be stored? */
static bool make_direct(maker *k, const x_item *it, state *s) {
  p_walk w;
  if (it->direct == X_NONE || is_keep(k, it, it->direct)) return false;
  if (merge(k, k->r.stream[it->direct].stride, true, &w) != k->x->stream[it->direct].item) return false;
  s->form = F_FULL;
  s->at = stream_ref(k, it->direct);
  k->written[it->direct] = true;
  return true;
}

static void make_generator(maker *k, const x_item *it) {
  state *const s = &k->val[it->val];
  if (s->form != F_NONE) return;
  p_walk w;
  const r_stream *const st = &k->r.stream[it->stream];
  const int64_t step = merge_level(k, st->stride, it->row, &w);
  const uint8_t form = step == 0 ? F_ONE : it->row ? F_ROW : F_FULL;
  s->lone = form == F_ONE || (it->row && k->r.mapping == M_ROW) || (k->r.mapping != M_FLAT && st->lane == 0);
  if (form == F_ONE) w.size[0] = 1;
  if (form != F_FULL || !make_direct(k, it, s)) place(k, s, form);
  p_inst *const in = emit(k, it->kind == X_RNG ? P_RNG : P_IOTA, s->at, s->at);
  in->item = (uint8_t)cpu_item_size(it->dtype);
  w.attr = it->kind == X_RNG ? it->in_dtype : it->dtype;
  if (it->kind == X_RNG) {
    in->b = operand(k, it->in[0])->at;
    in->c = operand(k, it->in[1])->at;
  }
  with_walk(k, in, &w);
}

static uint32_t op_of(const maker *k, const x_item *it) { return region(k)->nodes[k->x->nest->val[it->val].node].op; }

static void emit_map(maker *k, const x_item *it, cpu_map_fn fn, uint32_t mask, p_ref out, const p_ref *in, int64_t n) {
  p_inst *const m = emit(k, P_MAP, out, in[0]);
  const cpu_map_fn tiny = it->in_dtype == TERN_F32 && it->dtype == TERN_F32 ? x_tiny_map(op_of(k, it), mask, n) : NULL;
  m->b = it->n_in > 1 ? in[1] : in[0];
  m->c = it->n_in > 2 ? in[2] : in[0];
  m->fn = tiny ? tiny : fn;
  m->n = (int32_t)n;
  if (op_of(k, it) != TERN_OP_COPY) return;
  m->kind = mask ? P_MAP : P_COPY;
  if (!mask) m->n = (int32_t)(n * (int64_t)cpu_item_size(it->dtype));
}

static void make_map(maker *k, const x_item *it) {
  state *const s = &k->val[it->val];
  if (s->form != F_NONE) return;
  uint8_t form = F_ONE;
  uint32_t ones = 0;
  bool lone = true, differs = false;
  for (uint32_t i = 0; i < it->n_in; i++) {
    const state *const o = operand(k, it->in[i]);
    if (o->form > form) form = o->form;
    if (o->form == F_ONE) ones |= 1u << i;
    lone &= o->lone;
    differs |= o->lone != (o->form == F_ONE);
  }
  if (form == F_ROW && !it->row) form = F_FULL;
  s->lone = lone;
  /* a power with one exponent for all is taken another way than one with many */
  if (differs && op_of(k, it) == TERN_OP_POW) k->bad = true;
  const uint32_t mask = form == F_ONE ? 0 : ones;
  cpu_map_fn fn = it->fn[mask];
  p_ref in[3];
  for (uint32_t i = 0; i < it->n_in; i++) {
    const bool whole = form == F_FULL && (!(ones >> i & 1) || !fn);
    if (form == F_ROW && (ones >> i & 1) && !fn) k->bad = true; /* rare: a row of one element spread out */
    in[i] = whole ? expand(k, it->in[i]) : operand(k, it->in[i])->at;
  }
  if (form != F_FULL || !make_direct(k, it, s)) place(k, s, form);
  emit_map(k, it, fn ? fn : it->fn[0], fn ? mask : 0, s->at, in, form == F_ONE ? 1 : form == F_ROW ? k->rows : k->full);
}

static int short_fold(const maker *k, const x_red *red, const p_fold *f, uint32_t in_dtype) {
  const bool last = f->across ? f->together < 4 : f->lanes < 16;
  if (in_dtype != TERN_F32 || red->r.indexed) return P_FOLD;
  const uint32_t op = region(k)->nodes[k->x->nest->val[red->val].node].op;
  if (op == TERN_OP_SUM) return last ? P_SUM_F32 : P_FOLD;
  if (!f->across && f->lanes >= 64) return P_FOLD;
  return op == TERN_OP_AMAX ? P_MAX_F32 : op == TERN_OP_AMIN ? P_MIN_F32 : P_FOLD;
}

static void make_fold(maker *k, const x_item *it, bool bare) {
  const x_red *const red = &k->x->red[it->slot];
  const r_nest *const r = &k->r;
  state *const s = &k->val[it->val];
  p_ref in = expand(k, it->in[0]);
  int32_t wide = X_NONE;
  if (red->cast) {
    wide = take(k, true);
    p_inst *const m = emit(k, P_MAP, (p_ref){P_SLOTS, wide}, in);
    m->b = m->c = in;
    m->fn = red->cast;
    m->n = (int32_t)k->full;
    in = m->out;
  }
  p_fold *const f = add(k, &k->fold, sizeof *f);
  if (!f || k->fold.n > UINT16_MAX) {
    k->bad = true;
    return;
  }
  f->red = red;
  f->across = across(k);
  f->lanes = r->lanes;
  f->outer = f->across ? k->rows / r->lanes : k->rows;
  f->m = f->across ? r->row_elems : r->row_elems / r->lanes;
  f->width = bare ? r->lanes : r->width;
  f->together = f->across && bare && r->n_red ? r->red[r->n_red - 1] : 1;
  const int kind = short_fold(k, red, f, dtype_of(k, it->in[0]));
  const uint8_t form = k->rows == 1 ? F_ONE : F_ROW;
  s->lone = r->mapping == M_ROW;
  place(k, s, form);
  const bool own = kind == P_FOLD && (red->finish || red->r.indexed); /* the accumulator is not the result */
  const int32_t spare = own ? take(k, false) : X_NONE;
  const p_ref other = {P_SLOTS, spare}, acc = own ? other : s->at;
  p_inst *const fold = emit(k, (uint8_t)kind, acc, in);
  fold->b = red->r.indexed ? s->at : acc;
  fold->more = (uint16_t)(k->fold.n - 1);
  if (own && !red->r.indexed) {
    p_inst *const m = emit(k, P_MAP, s->at, other);
    m->b = m->c = other;
    m->fn = red->finish;
    m->n = (int32_t)k->rows;
  }
  if (own) give(k, false, spare);
  if (wide != X_NONE) give(k, true, wide);
}

static void make_store(maker *k, const x_item *it) {
  const x_stream *const xs = &k->x->stream[it->stream];
  if (k->written[it->stream] || is_keep(k, it, it->stream)) return;
  p_walk w;
  const int64_t step = merge_level(k, k->r.stream[it->stream].stride, it->row, &w), n = it->row ? k->rows : k->full;
  const state *const s = operand(k, (int32_t)it->val);
  const p_ref from = s->form == F_ROW && !it->row ? expand(k, (int32_t)it->val) : s->at;
  const p_ref to = stream_ref(k, it->stream);
  const bool dense = n == 1 || (s->form != F_ONE && step == xs->item);
  p_inst *const in = emit(k, dense ? P_COPY : s->form == F_ONE ? P_FILL : P_SCATTER, to, from);
  in->item = xs->item;
  in->n = (int32_t)(n * xs->item);
  if (!dense) with_walk(k, in, &w);
}

static void make_item(maker *k, const x_item *it, bool bare) {
  switch (it->kind) {
  case X_LOAD: make_load(k, it); break;
  case X_MAP: make_map(k, it); break;
  case X_IOTA:
  case X_RNG: make_generator(k, it); break;
  case X_REDUCE: make_fold(k, it, bare); break;
  case X_STORE: make_store(k, it); break;
  default: k->bad = true; break;
  }
}

/* ---- a nest ---- */

static void make_scalars(maker *k) {
  for (uint32_t i = 0; i < k->x->scalar.n && !k->bad; i++) {
    const x_item *const it = &k->x->scalar.item[i];
    const uint32_t value = k->x->nest->val[it->val].value;
    state *const s = &k->val[it->val];
    s->lone = true;
    if (k->has_cell[value]) { /* an earlier nest's */
      s->form = F_ONE;
      s->at = k->cell[value];
      continue;
    }
    if (it->kind == X_IOTA) {
      uint64_t zero = 0;
      cpu_iota(&zero, it->dtype, 0, 0, 1);
      s->form = F_ONE;
      s->at = constant(k, &zero);
    } else if (it->kind == X_RNG) {
      k->bad = true; /* of rank 0: not worth an instruction of its own */
    } else {
      make_map(k, it);
    }
    k->has_cell[value] = true;
    k->cell[value] = s->at;
  }
}

typedef void visit_fn(maker *, const x_list *, bool bare, int32_t *at);

static void note_readers(maker *k, const x_list *l, bool bare, int32_t *at) {
  (void)bare;
  for (uint32_t i = 0; i < l->n; i++, ++*at) {
    for (uint32_t j = 0; j < l->item[i].n_in; j++) k->val[l->item[i].in[j]].last = *at;
    k->val[l->item[i].val].last = *at;
  }
}

static void release(maker *k, int32_t val, int32_t at) {
  state *const s = &k->val[val];
  if (s->last != at) return;
  if (s->slot != X_NONE) give(k, s->form == F_FULL, s->slot);
  if (s->full_slot != X_NONE) give(k, true, s->full_slot);
  s->slot = s->full_slot = X_NONE;
}

static void make_list(maker *k, const x_list *l, bool bare, int32_t *at) {
  for (uint32_t i = 0; i < l->n && !k->bad; i++, ++*at) {
    make_item(k, &l->item[i], bare);
    for (uint32_t j = 0; j < l->item[i].n_in && !k->bad; j++) release(k, l->item[i].in[j], *at);
  }
}

static void all_lists(maker *k, visit_fn *visit) {
  int32_t at = 0;
  for (uint32_t p = 0; p < k->x->nest->n_pass; p++) {
    visit(k, &k->x->phase[p], false, &at);
    visit(k, &k->x->pass[p], k->r.pass[p].bare, &at);
  }
  visit(k, &k->x->phase[k->x->nest->n_pass], false, &at);
}

static void make_nest(maker *k, const x_nest *x, char *mem) {
  k->x = x;
  x_resolve(k->plan, x, k->l, k->ws_off, mem, &k->r);
  order_dims(k);
  if (k->full > MOST_ELEMS || k->r.split || (!x->nest->red && k->full * x->n_items > MOST_WORK)) {
    k->bad = true;
    return;
  }
  k->val = calloc(x->nest->n_val + 1, sizeof *k->val);
  k->written = calloc(x->n_stream + 1, sizeof *k->written);
  k->slots = 0;
  k->free_row.n = k->free_full.n = 0;
  if (k->val && k->written) {
    for (uint32_t v = 0; v < x->nest->n_val; v++) k->val[v].slot = k->val[v].full_slot = k->val[v].last = X_NONE;
    make_scalars(k);
    all_lists(k, note_readers);
    all_lists(k, make_list);
  } else {
    k->bad = true;
  }
  free(k->val);
  free(k->written);
}

/* ---- packing ---- */

static void *pack(char **to, const array *a, size_t item) {
  void *const p = *to;
  if (a->n) memcpy(p, a->p, a->n * item);
  *to += round64(a->n * item);
  return p;
}

/* One block that holds all; a program without instructions says that there is none for this key */
static p_prog *pack_all(maker *k, const uint32_t *key_word, uint32_t n_key) {
  if (k->bad) k->inst.n = k->walk.n = k->take.n = k->fold.n = k->param.n = k->consts.n = 0;
  const size_t key = n_key * sizeof(uint64_t);
  char *const block =
      malloc(round64(sizeof(p_prog)) + round64(key) + round64(k->inst.n * sizeof(p_inst)) +
             round64(k->walk.n * sizeof(p_walk)) + round64(k->take.n * sizeof(p_take)) +
             round64(k->fold.n * sizeof(p_fold)) + round64(k->param.n * sizeof(p_param)) + round64(k->consts.n * 8));
  if (!block) return NULL;
  p_prog *const p = (p_prog *)(void *)block;
  char *to = block + round64(sizeof *p);
  uint64_t *const words = (uint64_t *)(void *)to;
  to += round64(key);
  for (uint32_t i = 0; i < n_key; i++) words[i] = k->l->words[key_word[i]].u;
  memset(p, 0, sizeof *p);
  p->key = words;
  p->inst = pack(&to, &k->inst, sizeof(p_inst));
  p->walk = pack(&to, &k->walk, sizeof(p_walk));
  p->take = pack(&to, &k->take, sizeof(p_take));
  p->fold = pack(&to, &k->fold, sizeof(p_fold));
  p->param = pack(&to, &k->param, sizeof(p_param));
  p->consts = pack(&to, &k->consts, 8);
  p->n_inst = k->inst.n;
  p->n_param = k->param.n;
  p->n_args = region(k)->n_args;
  p->table = round64((P_ARGS + (size_t)p->n_args) * sizeof(char *));
  p->cells = round64(k->cells);
  p->bytes = p->table + p->cells + k->most;
  return p;
}

p_prog *x_prog_build(const x_plan *x, size_t launch_bytes, const tern_launch *l, const uint32_t *key, uint32_t n_key) {
  const nest_plan *const plan = x->plan;
  char *const mem = cpu_scratch(CPU_SCRATCH_LAUNCH, launch_bytes);
  const size_t values = plan->region->n_values + 1;
  maker k = {.plan = x, .l = l, .ws_off = (const uint64_t *)(void *)mem};
  k.cell = calloc(values, sizeof *k.cell);
  k.has_cell = calloc(values, sizeof *k.has_cell);
  p_prog *p = NULL;
  if (mem && k.cell && k.has_cell) {
    const size_t ws = (plan->n_ws * sizeof(uint64_t) + 63) & ~(size_t)63;
    if (plan->n_ws) nest_workspace(plan, l->words, (uint64_t *)(void *)mem);
    for (uint32_t i = 0; i < plan->n_nests; i++) k.bad |= !x_scratch_fits(&x->nest[i], l->words); /* other plan */
    for (uint32_t i = 0; i < plan->n_nests && !k.bad; i++) make_nest(&k, &x->nest[i], mem + ws);
    p = pack_all(&k, key, n_key);
  }
  const array *const all[] = {&k.inst, &k.walk, &k.take, &k.fold, &k.param, &k.consts, &k.free_row, &k.free_full};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]->p);
  free(k.cell);
  free(k.has_cell);
  return p;
}
