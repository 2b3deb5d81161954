/* One nest in order: the level of each value, the pass in which it can be computed, when each output may be stored (in
   place: not before the donor's last read), what is worth keeping between passes. Time within a nest: phase p is 2p,
   pass p is 2p+1. */
#include "nest_internal.h"

#include <stdlib.h>
#include <string.h>

typedef struct vinfo {
  uint8_t used, level, src, keep;
  uint32_t at, store_at /* pass (FULL) or phase (ROW) of a target's store */, kept_at, holder, uses;
  uint64_t want; /* bit p: a step of pass p */
} vinfo;

typedef struct sched {
  nest_build_state *b;
  const tern_region *r;
  const nest_proto *p;
  nest *t;
  uint32_t j, flags, n_pass, n_scratch;
  vinfo *v;       /* by value */
  uint8_t *mark;  /* by node */
  uint32_t *last; /* by argument: time of its last read */
} sched;

static bool in_home(const sched *s, uint32_t v) { return s->b->home[v] == s->j && s->b->producer[v] != NEST_NONE; }

static bool is_target(const sched *s, uint32_t v) {
  return in_home(s, v) && (s->r->values[v].kind == TERN_V_OUT || s->b->ws[v] != NEST_NONE);
}

static uint8_t level_of(const sched *s, const tern_value *v) {
  if (s->p->rank == 0)
    return v->kind == TERN_V_CONST || v->kind == TERN_V_PARAM || v->kind == TERN_V_SIZE ? NEST_SCALAR : NEST_FULL;
  if (v->rank == 0) return NEST_SCALAR;
  if (!s->p->red) return NEST_FULL;
  for (uint32_t d = 0; d < v->rank; d++)
    if ((s->p->red >> d & 1) && v->shape[d] != 1) return NEST_FULL;
  return NEST_ROW;
}

static void touch(sched *s, uint32_t v) {
  vinfo *i = &s->v[v];
  if (i->used) return;
  const tern_value *val = &s->r->values[v];
  i->used = 1;
  i->level = level_of(s, val);
  i->holder = NEST_NONE;
  if (val->kind == TERN_V_CONST || val->kind == TERN_V_PARAM || val->kind == TERN_V_SIZE)
    i->src = NEST_IMM;
  else if (nest__computed(s->b, s->j, v))
    i->src = NEST_NODE;
  else
    i->src = nest__arg_of(s->b, v) == NEST_NONE ? NEST_WS : NEST_ARG;
}

/* Levels and earliest passes, in node order */
static void place_values(sched *s) {
  s->n_pass = 1;
  for (uint32_t k = 0; k < s->p->n_node; k++) {
    const uint32_t n = s->p->node[k], out = nest_out(s->r, n);
    uint32_t at = 0;
    for (uint32_t i = 0; i < s->r->nodes[n].n_in; i++) {
      const uint32_t v = nest_in(s->r, n, i);
      touch(s, v);
      s->v[v].uses++;
      if (s->v[v].src == NEST_NODE && s->v[v].at > at) at = s->v[v].at;
    }
    touch(s, out);
    const bool reduce = nest__is_reduce(s->r, n);
    s->v[out].at = s->v[out].store_at = at + reduce;
    if (reduce) s->v[out].level = NEST_ROW;
    const uint32_t passes = reduce || s->v[out].level == NEST_ROW ? s->v[out].at : at + 1;
    if (s->v[out].level != NEST_SCALAR && passes > s->n_pass) s->n_pass = passes;
  }
}

static bool computed_in(const sched *s, uint32_t v, uint32_t pass) {
  const vinfo *i = &s->v[v];
  return i->src == NEST_NODE && i->level == NEST_FULL && !(i->keep && i->kept_at < pass);
}

/* mark[node] = 1 for the steps of a pass */
static void mark_steps(const sched *s, uint32_t pass) {
  for (uint32_t k = 0; k < s->p->n_node; k++) s->mark[s->p->node[k]] = 0;
  for (uint32_t k = s->p->n_node; k-- > 0;) {
    const uint32_t n = s->p->node[k], out = nest_out(s->r, n);
    const vinfo *o = &s->v[out];
    if (nest__is_reduce(s->r, n))
      s->mark[n] = o->at == pass + 1;
    else if (o->level == NEST_FULL && ((is_target(s, out) && o->store_at == pass) || (o->keep && o->kept_at == pass)))
      s->mark[n] = 1;
    if (!s->mark[n]) continue;
    for (uint32_t i = 0; i < s->r->nodes[n].n_in; i++)
      if (computed_in(s, nest_in(s->r, n, i), pass)) s->mark[s->b->producer[nest_in(s->r, n, i)]] = 1;
  }
}

static void note_reads(sched *s, uint32_t node, uint32_t time) {
  for (uint32_t i = 0; i < s->r->nodes[node].n_in; i++) {
    const uint32_t v = nest_in(s->r, node, i);
    if (s->v[v].src != NEST_ARG) continue;
    const uint32_t arg = nest__arg_of(s->b, v);
    if (s->last[arg] < time) s->last[arg] = time;
  }
}

/* Last read of every argument, and which passes compute what */
static void find_reads(sched *s) {
  memset(s->last, 0, s->r->n_args * sizeof *s->last);
  for (uint32_t k = 0; k < s->p->n_node; k++) {
    const uint32_t n = s->p->node[k];
    const vinfo *o = &s->v[nest_out(s->r, n)];
    s->v[nest_out(s->r, n)].want = 0;
    if (o->level == NEST_ROW && !nest__is_reduce(s->r, n)) note_reads(s, n, 2 * o->at);
  }
  for (uint32_t pass = 0; pass < s->n_pass; pass++) {
    mark_steps(s, pass);
    for (uint32_t k = 0; k < s->p->n_node; k++) {
      if (!s->mark[s->p->node[k]]) continue;
      note_reads(s, s->p->node[k], 2 * pass + 1);
      if (pass < 64) s->v[nest_out(s->r, s->p->node[k])].want |= (uint64_t)1 << pass;
    }
  }
}

/* In place: no store before the donor's last read. A later store can bring new reads, so repeat until nothing moves. */
static void settle_stores(sched *s) {
  for (bool moved = true; moved;) {
    moved = false;
    find_reads(s);
    for (uint32_t k = 0; k < s->p->n_node; k++) {
      const uint32_t o = nest_out(s->r, s->p->node[k]);
      const tern_value *val = &s->r->values[o];
      if (!is_target(s, o) || val->kind != TERN_V_OUT || val->alias < 0 || s->b->deferred[o]) continue;
      const uint32_t last = s->last[val->alias], need = s->v[o].level == NEST_FULL ? last / 2 : (last + 1) / 2;
      if (need <= s->v[o].store_at) continue;
      s->v[o].store_at = need;
      moved = true;
    }
  }
}

static uint32_t node_cost(uint32_t op) {
  switch (op) {
  case TERN_OP_COPY:
  case TERN_OP_CAST:
  case TERN_OP_NEG:
  case TERN_OP_ABS: return 1;
  case TERN_OP_SQRT:
  case TERN_OP_RSQRT:
  case TERN_OP_RECIPROCAL:
  case TERN_OP_DIV: return 3;
  case TERN_OP_RNG: return 12;
  default: return (op >= TERN_OP_EXP && op <= TERN_OP_COSPI && op != TERN_OP_SIGN) || op == TERN_OP_POW ? 6 : 1;
  }
}

/* Cost of computing v once more in a pass: its chain up to what is in memory */
static uint32_t chain_cost(const sched *s, uint32_t v, uint32_t pass) {
  for (uint32_t k = 0; k < s->p->n_node; k++) s->mark[s->p->node[k]] = 0;
  s->mark[s->b->producer[v]] = 1;
  uint32_t cost = 0;
  for (uint32_t k = s->p->n_node; k-- > 0;) {
    const uint32_t n = s->p->node[k];
    if (!s->mark[n]) continue;
    cost += node_cost(s->r->nodes[n].op);
    for (uint32_t i = 0; i < s->r->nodes[n].n_in; i++)
      if (computed_in(s, nest_in(s->r, n, i), pass)) s->mark[s->b->producer[nest_in(s->r, n, i)]] = 1;
  }
  return cost;
}

static uint32_t last_want(const vinfo *v) { return v->want ? 63 - (uint32_t)__builtin_clzll(v->want) : 0; }

static bool try_holder(sched *s, uint32_t v, uint32_t o, uint32_t pass) {
  const tern_value *a = &s->r->values[v], *h = &s->r->values[o];
  if (h->kind != TERN_V_OUT || h->dtype != a->dtype || s->v[o].level != NEST_FULL ||
      s->v[o].store_at < last_want(&s->v[v]))
    return false;
  for (uint32_t d = 0; d < s->p->rank; d++)
    if (a->shape[d] != s->p->size[d] || h->shape[d] != s->p->size[d]) return false;
  for (uint32_t k = 0; k < s->p->n_node; k++) {
    const uint32_t w = nest_out(s->r, s->p->node[k]);
    if (w != o && s->v[w].keep == NEST_KEEP_OUT && s->v[w].holder == o) return false;
  }
  s->v[v].keep = NEST_KEEP_OUT;
  s->v[v].holder = o;
  s->v[v].kept_at = pass;
  find_reads(s);
  if (h->alias < 0 || s->b->deferred[o] || s->last[h->alias] <= 2 * pass + 1) return true;
  s->v[v].keep = NEST_KEEP_NO;
  s->v[v].holder = NEST_NONE;
  find_reads(s);
  return false;
}

static void keep_value(sched *s, uint32_t v, uint32_t pass) {
  for (uint32_t k = 0; k < s->p->n_node; k++) {
    const uint32_t o = nest_out(s->r, s->p->node[k]);
    if (o != v && is_target(s, o) && try_holder(s, v, o, pass)) return;
  }
  if (s->flags & NEST_NO_SCRATCH) return;
  for (uint32_t d = 0; d < s->p->rank; d++)
    if ((s->p->red >> d & 1) && s->r->values[v].shape[d] != s->p->size[d]) return;
  s->v[v].keep = NEST_KEEP_SCRATCH;
  s->v[v].holder = s->n_scratch++;
  s->v[v].kept_at = pass;
  find_reads(s);
}

static void choose_keeps(sched *s) {
  if (s->n_pass < 2 || s->n_pass > 64 || (s->flags & NEST_NO_KEEP) || s->p->n_node > 512) return;
  for (uint32_t k = 0; k < s->p->n_node; k++) {
    const uint32_t o = nest_out(s->r, s->p->node[k]);
    vinfo *i = &s->v[o];
    if (i->level != NEST_FULL || !is_target(s, o) || last_want(i) <= i->store_at) continue;
    i->keep = NEST_KEEP_OUT;
    i->holder = o;
    i->kept_at = i->store_at;
  }
  find_reads(s);
  for (uint32_t pass = 0; pass + 1 < s->n_pass; pass++)
    for (uint32_t k = s->p->n_node; k-- > 0;) {
      const uint32_t n = s->p->node[k], v = nest_out(s->r, n);
      const vinfo *i = &s->v[v];
      if (nest__is_reduce(s->r, n) || i->level != NEST_FULL || i->keep || !(i->want >> pass & 1) ||
          last_want(i) <= pass)
        continue;
      if (chain_cost(s, v, pass + 1) >= 4) keep_value(s, v, pass);
    }
}

static nest_store store_of(const sched *s, uint32_t v) {
  const bool ws = s->b->ws[v] != NEST_NONE;
  return (nest_store){v, ws ? NEST_WS : NEST_ARG, ws ? s->b->ws[v] : s->r->values[v].slot};
}

/* The same loop twice: count, then fill */
static bool emit_pass(sched *s, uint32_t pass, nest_pass *out) {
  mark_steps(s, pass);
  uint32_t *step = NULL, *keep = NULL;
  nest_store *store = NULL;
  for (int fill = 0; fill < 2; fill++) {
    nest_pass c = {0};
    for (uint32_t k = 0; k < s->p->n_node; k++) {
      const uint32_t n = s->p->node[k], v = nest_out(s->r, n);
      const vinfo *i = &s->v[v];
      if (!s->mark[n]) continue;
      if (fill) step[c.n_step] = n;
      c.n_step++;
      if (nest__is_reduce(s->r, n)) continue;
      const bool saves = i->keep && i->kept_at == pass && !(i->keep == NEST_KEEP_OUT && i->holder == v);
      if (fill && saves) keep[c.n_keep] = v;
      c.n_keep += saves;
      const bool stores = is_target(s, v) && i->store_at == pass;
      if (fill && stores) store[c.n_store] = store_of(s, v);
      c.n_store += stores;
    }
    if (!fill) {
      step = nest__alloc(s->b->arena, c.n_step, sizeof *step);
      keep = nest__alloc(s->b->arena, c.n_keep, sizeof *keep);
      store = nest__alloc(s->b->arena, c.n_store, sizeof *store);
      if (s->b->arena->failed) return false;
    }
    *out = c;
  }
  out->step = step;
  out->keep = keep;
  out->store = store;
  return true;
}

static bool emit_phase(sched *s, uint32_t phase, nest_phase *out) {
  uint32_t *node = NULL;
  nest_store *store = NULL;
  for (int fill = 0; fill < 2; fill++) {
    nest_phase c = {0};
    for (uint32_t k = 0; k < s->p->n_node; k++) {
      const uint32_t n = s->p->node[k], v = nest_out(s->r, n);
      const vinfo *i = &s->v[v];
      if (i->level != NEST_ROW) continue;
      const bool runs = i->at == phase && !nest__is_reduce(s->r, n), stores = is_target(s, v) && i->store_at == phase;
      if (fill && runs) node[c.n_node] = n;
      c.n_node += runs;
      if (fill && stores) store[c.n_store] = store_of(s, v);
      c.n_store += stores;
    }
    if (!fill) {
      node = nest__alloc(s->b->arena, c.n_node, sizeof *node);
      store = nest__alloc(s->b->arena, c.n_store, sizeof *store);
      if (s->b->arena->failed) return false;
    }
    *out = c;
  }
  out->node = node;
  out->store = store;
  return true;
}

static bool emit_values(sched *s) {
  nest *t = s->t;
  for (uint32_t v = 0; v < s->r->n_values; v++) t->n_val += s->v[v].used;
  nest_val *out = nest__alloc(s->b->arena, t->n_val, sizeof *out);
  uint32_t *scratch = nest__alloc(s->b->arena, s->n_scratch, sizeof *scratch);
  uint32_t *scalar = nest__alloc(s->b->arena, s->p->n_node, sizeof *scalar);
  if (s->b->arena->failed) return false;
  for (uint32_t v = 0, k = 0; v < s->r->n_values; v++) {
    const vinfo *i = &s->v[v];
    if (!i->used) continue;
    const uint32_t base = s->r->values[v].kind == TERN_V_VIEW ? s->r->values[v].slot : v;
    out[k++] = (nest_val){.value = v,
                          .node = i->src == NEST_NODE ? s->b->producer[v] : NEST_NONE,
                          .mem = i->src == NEST_WS    ? s->b->ws[base]
                                 : i->src == NEST_ARG ? nest__arg_of(s->b, v)
                                                      : NEST_NONE,
                          .holder = i->holder,
                          .at = (uint16_t)i->at,
                          .kept_at = (uint16_t)i->kept_at,
                          .level = i->level,
                          .src = i->src,
                          .keep = i->keep,
                          .uses = (uint8_t)(i->uses < 255 ? i->uses : 255)};
    if (i->keep == NEST_KEEP_SCRATCH) scratch[i->holder] = v;
  }
  for (uint32_t k = 0; k < s->p->n_node; k++)
    if (s->v[nest_out(s->r, s->p->node[k])].level == NEST_SCALAR) scalar[t->n_scalar++] = s->p->node[k];
  t->val = out;
  t->scratch = scratch;
  t->scalar = scalar;
  t->n_scratch = s->n_scratch;
  return true;
}

static bool emit(sched *s) {
  nest_pass *pass = nest__alloc(s->b->arena, s->n_pass, sizeof *pass);
  nest_phase *phase = nest__alloc(s->b->arena, (size_t)s->n_pass + 1, sizeof *phase);
  if (!pass || !phase) return false;
  for (uint32_t p = 0; p < s->n_pass; p++)
    if (!emit_pass(s, p, &pass[p])) return false;
  for (uint32_t p = 0; p <= s->n_pass; p++)
    if (!emit_phase(s, p, &phase[p])) return false;
  s->t->pass = pass;
  s->t->phase = phase;
  s->t->n_pass = s->n_pass;
  return emit_values(s);
}

/* A nest that copies a deferred OUT from the workspace into its argument */
static bool emit_copy(sched *s) {
  nest_pass *pass = nest__alloc(s->b->arena, 1, sizeof *pass);
  nest_phase *phase = nest__alloc(s->b->arena, 2, sizeof *phase);
  nest_store *store = nest__alloc(s->b->arena, 1, sizeof *store);
  if (!pass || !phase || !store) return false;
  const uint32_t v = s->p->copy_of;
  touch(s, v);
  *store = (nest_store){v, NEST_ARG, s->r->values[v].slot};
  *pass = (nest_pass){.store = store, .n_store = 1};
  s->t->pass = pass;
  s->t->phase = phase;
  s->t->n_pass = 1;
  return emit_values(s);
}

tern_rc nest__schedule(nest_build_state *b, uint32_t j, uint32_t flags) {
  const tern_region *r = b->r;
  sched s = {.b = b, .r = r, .p = &b->proto[j], .t = &b->nests[j], .j = j, .flags = flags};
  s.v = calloc(r->n_values + 1, sizeof *s.v);
  s.mark = calloc(r->n_nodes + 1, 1);
  s.last = calloc(r->n_args + 1, sizeof *s.last);
  bool ok = s.v && s.mark && s.last;
  if (ok) {
    s.t->rank = s.p->rank;
    s.t->red = s.p->red;
    memcpy(s.t->size, s.p->size, sizeof s.t->size);
    if (s.p->copy_of != NEST_NONE)
      ok = emit_copy(&s);
    else {
      place_values(&s);
      settle_stores(&s);
      choose_keeps(&s);
      ok = emit(&s);
    }
  }
  free(s.v);
  free(s.mark);
  free(s.last);
  return ok ? TERN_OK : TERN_E_OOM;
}

const nest_val *nest_find(const nest *t, uint32_t value) {
  uint32_t lo = 0, hi = t->n_val;
  while (lo < hi) {
    const uint32_t mid = (lo + hi) / 2;
    if (t->val[mid].value == value) return &t->val[mid];
    if (t->val[mid].value < value)
      lo = mid + 1;
    else
      hi = mid;
  }
  return NULL;
}

void nest_layout(const nest_plan *plan, uint32_t value, uint32_t to, const tern_word *words, nest_addr *addr) {
  const tern_value *v = &plan->region->values[value];
  int64_t dense = 1;
  *addr = (nest_addr){.offset = v->kind == TERN_V_VIEW ? TERN_LIT(v->offset, words) : 0};
  for (uint32_t d = v->rank; d-- > 0;) {
    const int64_t stride = to == NEST_WS && v->kind != TERN_V_VIEW ? dense : TERN_LIT(v->stride[d], words);
    addr->stride[d] = v->shape[d] == 1 ? 0 : stride;
    dense *= TERN_LIT(v->shape[d], words);
  }
}

uint64_t nest_workspace(const nest_plan *plan, const tern_word *words, uint64_t *offset) {
  uint64_t total = 0;
  for (uint32_t i = 0; i < plan->n_ws; i++) {
    const tern_value *v = &plan->region->values[plan->ws[i].value];
    uint64_t bytes = nest_item_size(v->dtype);
    for (uint32_t d = 0; d < v->rank; d++) bytes *= (uint64_t)TERN_LIT(v->shape[d], words);
    if (offset) offset[i] = total;
    total += (bytes + 63) & ~(uint64_t)63;
  }
  return total;
}

tern_word nest_imm(const tern_region *r, uint32_t value, const tern_word *words) {
  const tern_value *v = &r->values[value];
  if (v->kind == TERN_V_CONST) return v->imm;
  if (v->kind == TERN_V_PARAM) return words[v->slot];
  int64_t n = 1;
  for (uint32_t d = 0; d < r->values[v->slot].rank; d++)
    if (v->imm.u >> d & 1) n *= TERN_LIT(r->values[v->slot].shape[d], words);
  const bool real = v->dtype >= TERN_F16;
  return real ? (tern_word){.f = (double)n} : (tern_word){.i = v->dtype == TERN_BOOL ? n != 0 : n};
}
