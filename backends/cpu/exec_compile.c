/* From the nests of a region to lists of items: every load, instruction, fold and store of each pass and phase, with
   block registers assigned, the map functions looked up, and stores that may be written to at once found. */
#include "exec_super.h"
#include <stdlib.h>
#include <string.h>

typedef struct builder {
  const nest_plan *plan;
  const tern_region *r;
  const nest *n;
  x_nest *x;
  x_list *list;  /* being filled */
  uint32_t room; /* of list->item */
  uint32_t stream_room;
  int32_t *made;              /* [n_val] item of this list that makes the value, or X_NONE */
  int32_t *last;              /* [n_val] last item that reads it */
  uint32_t *row_slot;         /* [n_val] */
  uint32_t *group;            /* [n_args] arguments that share memory have one number */
  uint32_t *free_reg, n_free; /* stack of registers */
  bool oom, bad;
} builder;

static uint32_t val_of(const builder *b, uint32_t value) { return (uint32_t)(nest_find(b->n, value) - b->n->val); }
static const nest_val *nv(const builder *b, uint32_t val) { return &b->n->val[val]; }
static uint32_t dtype_of(const builder *b, uint32_t val) { return b->r->values[nv(b, val)->value].dtype; }
static uint8_t item_of(const builder *b, uint32_t val) { return (uint8_t)cpu_item_size(dtype_of(b, val)); }

static x_item *add_item(builder *b, uint8_t kind, uint32_t val) {
  x_list *const l = b->list;
  if (l->n == b->room) {
    const uint32_t room = b->room ? 2 * b->room : 8;
    x_item *const more = realloc(l->item, room * sizeof *more);
    if (!more) {
      b->oom = true;
      return NULL;
    }
    l->item = more;
    b->room = room;
  }
  x_item *const it = &l->item[l->n++];
  memset(it, 0, sizeof *it);
  it->kind = kind;
  it->val = val;
  for (int k = 0; k < X_LEAVES; k++) it->in[k] = X_NONE;
  it->stream = it->direct = X_NONE;
  it->dtype = dtype_of(b, val);
  b->x->n_items++;
  return it;
}

static int32_t add_stream(builder *b, x_stream s) {
  x_nest *const x = b->x;
  if (x->n_stream == b->stream_room) {
    const uint32_t room = b->stream_room ? 2 * b->stream_room : 8;
    x_stream *const more = realloc(x->stream, room * sizeof *more);
    if (!more) {
      b->oom = true;
      return 0;
    }
    x->stream = more;
    b->stream_room = room;
  }
  x->stream[x->n_stream] = s;
  return (int32_t)x->n_stream++;
}

static int32_t memory_stream(builder *b, uint32_t value, uint32_t to, uint32_t mem) {
  const uint8_t item = (uint8_t)cpu_item_size(b->r->values[value].dtype);
  return add_stream(b, (x_stream){.kind = S_MEM, .item = item, .value = value, .to = to, .mem = mem});
}

static int32_t scratch_stream(builder *b, uint32_t value, uint32_t slot) {
  const uint8_t item = (uint8_t)cpu_item_size(b->r->values[value].dtype);
  return add_stream(b, (x_stream){.kind = S_SCRATCH, .item = item, .value = value, .mem = slot});
}

/* Where the OUT `value` of this nest is stored */
static const nest_store *store_of(const nest *n, uint32_t value) {
  for (uint32_t p = 0; p < n->n_pass; p++)
    for (uint32_t i = 0; i < n->pass[p].n_store; i++)
      if (n->pass[p].store[i].value == value) return &n->pass[p].store[i];
  return NULL;
}

/* The memory in which a kept value lies */
static int32_t kept_stream(builder *b, const nest_val *v) {
  if (v->keep == NEST_KEEP_SCRATCH) return scratch_stream(b, v->value, v->holder);
  const nest_store *const s = store_of(b->n, v->holder);
  if (!s) {
    b->bad = true;
    return 0;
  }
  const int32_t stream = memory_stream(b, v->holder, s->to, s->mem);
  b->x->stream[stream].kept = v->holder != v->value;
  return stream;
}

/* Have the full-level value ready in this list: a load where it comes from memory */
static void need(builder *b, uint32_t val, uint32_t pass) {
  const nest_val *const v = nv(b, val);
  if (v->level != NEST_FULL || b->made[val] != X_NONE) return;
  const bool kept = v->src == NEST_NODE && v->keep != NEST_KEEP_NO && pass > v->kept_at;
  if (v->src == NEST_NODE && !kept) {
    b->bad = true; /* the nest promises a step before */
    return;
  }
  const int32_t s = kept ? kept_stream(b, v) : memory_stream(b, v->value, v->src, v->mem);
  x_item *const it = add_item(b, X_LOAD, val);
  if (!it) return;
  it->stream = s;
  b->x->stream[s].loaded = true;
  b->made[val] = (int32_t)b->list->n - 1;
}

static void find_functions(builder *b, x_item *it, uint32_t op) {
  const uint32_t data = op == TERN_OP_WHERE ? 1 : 0;
  it->in_dtype = it->n_in ? dtype_of(b, (uint32_t)it->in[data]) : it->dtype;
  for (uint32_t mask = 0; mask + 1 < (2u << (it->n_in ? it->n_in - 1 : 0)) || mask == 0; mask++)
    it->fn[mask] = cpu_map(op, it->in_dtype, it->dtype, mask);
  if (!it->fn[0]) b->bad = true;
}

static void add_step(builder *b, uint32_t node, uint32_t pass, bool row) {
  const tern_node *const nd = &b->r->nodes[node];
  const uint32_t val = val_of(b, nest_out(b->r, node));
  const bool generator = nd->op == TERN_OP_IOTA || nd->op == TERN_OP_RNG;
  if (!row)
    for (uint32_t i = 0; i < nd->n_in; i++) need(b, val_of(b, nest_in(b->r, node, i)), pass);
  x_item *const it = add_item(b, nd->op == TERN_OP_IOTA ? X_IOTA : nd->op == TERN_OP_RNG ? X_RNG : X_MAP, val);
  if (!it) return;
  it->row = row;
  it->n_in = (uint8_t)nd->n_in;
  for (uint32_t i = 0; i < nd->n_in; i++) it->in[i] = (int32_t)val_of(b, nest_in(b->r, node, i));
  b->made[val] = (int32_t)b->list->n - 1;
  it->copies = nd->op == TERN_OP_COPY;
  if (!generator) {
    find_functions(b, it, nd->op);
    return;
  }
  x_stream s = {.kind = S_INDEX, .item = 1, .rng = nd->op == TERN_OP_RNG, .value = nv(b, val)->value};
  if (s.rng)
    it->in_dtype = nd->n_attr ? (uint32_t)nest_attr(b->r, node, 0) : 0;
  else
    s.dim = nd->n_attr ? (uint32_t)nest_attr(b->r, node, 0) : 0;
  it->stream = add_stream(b, s);
}

static void add_fold(builder *b, uint32_t node, uint32_t pass) {
  const uint32_t val = val_of(b, nest_out(b->r, node)), in = val_of(b, nest_in(b->r, node, 0));
  need(b, in, pass);
  x_item *const it = add_item(b, X_REDUCE, val);
  if (!it) return;
  it->in[0] = (int32_t)in;
  it->n_in = 1;
  it->slot = b->x->n_red++;
  x_red *const red = &b->x->red[it->slot];
  if (cpu_reduce_find(b->r->nodes[node].op, dtype_of(b, in), &red->r) != TERN_OK) {
    b->bad = true;
    return;
  }
  red->in = in;
  red->val = val;
  red->pass = pass;
  red->in_item = (uint8_t)cpu_item_size(red->r.in_dtype);
  red->acc_item = (uint8_t)cpu_item_size(red->r.acc_dtype);
  red->out_item = (uint8_t)cpu_item_size(red->r.out_dtype);
  red->acc_v = b->x->n_row++;
  red->acc_i = b->x->n_row++;
  red->slot = b->row_slot[val];
  if (red->r.in_dtype != dtype_of(b, in)) red->cast = cpu_map(TERN_OP_CAST, dtype_of(b, in), red->r.in_dtype, 0);
  if (!red->r.indexed && red->r.acc_dtype != red->r.out_dtype)
    red->finish = cpu_map(TERN_OP_CAST, red->r.acc_dtype, red->r.out_dtype, 0);
  cpu_word_store(&red->start, red->r.acc_dtype, red->r.identity);
}

static void add_store(builder *b, uint32_t value, int32_t stream, uint32_t pass, bool row) {
  const uint32_t val = val_of(b, value);
  if (!row) need(b, val, pass);
  x_item *const it = add_item(b, X_STORE, val);
  if (!it) return;
  it->stream = stream;
  it->row = row;
  it->in[0] = (int32_t)val;
  it->n_in = 1;
}

/* ---- direct stores ---- */

static uint32_t group_of(const builder *b, uint32_t to, uint32_t mem) {
  return to == NEST_ARG ? b->group[mem] : UINT32_MAX / 2 + mem;
}

/* May item j write straight into the memory of stream s? Not while something loaded from there is still to be read */
static bool may_be_direct(const builder *b, int32_t j, const x_stream *s) {
  const x_item *const maker = &b->list->item[j];
  for (uint32_t i = 0; i < b->list->n && s->kind == S_MEM; i++) {
    const x_item *const it = &b->list->item[i];
    if (it->kind != X_LOAD) continue;
    const x_stream *const from = &b->x->stream[it->stream];
    if (from->kind != S_MEM || group_of(b, from->to, from->mem) != group_of(b, s->to, s->mem)) continue;
    if (b->last[it->val] > j) return false;
    if (b->last[it->val] == j && from->item != cpu_item_size(maker->dtype)) return false;
  }
  return true;
}

static void find_direct(builder *b) {
  for (uint32_t i = 0; i < b->list->n; i++) {
    const x_item *const it = &b->list->item[i];
    if (it->kind != X_STORE || it->row || b->made[it->val] == X_NONE) continue;
    const int32_t j = b->made[it->val];
    x_item *const maker = &b->list->item[j];
    const bool makes = maker->kind == X_MAP || maker->kind == X_SUPER || maker->kind == X_IOTA || maker->kind == X_RNG;
    if (!makes || maker->row || maker->direct != X_NONE) continue;
    if (may_be_direct(b, j, &b->x->stream[it->stream])) maker->direct = it->stream;
  }
}

/* ---- registers: linear scan over one list ---- */

static uint32_t take_reg(builder *b) { return b->n_free ? b->free_reg[--b->n_free] : b->x->n_reg++; }

static void assign_registers(builder *b) {
  b->n_free = 0;
  for (uint32_t i = b->x->n_reg; i-- > 0;) b->free_reg[b->n_free++] = i;
  for (uint32_t i = 0; i < b->list->n; i++) {
    x_item *const it = &b->list->item[i];
    const bool makes = !it->row && it->kind != X_STORE && it->kind != X_REDUCE;
    bool mixed = false; /* an operand of another size ends here: its bytes do not line up with the result's */
    for (uint32_t k = 0; k < it->n_in; k++) mixed |= item_of(b, (uint32_t)it->in[k]) != cpu_item_size(it->dtype);
    if (makes && mixed) it->slot = take_reg(b);
    for (uint32_t k = 0; k < it->n_in; k++) {
      const uint32_t v = (uint32_t)it->in[k];
      bool again = false;
      for (uint32_t m = 0; m < k; m++) again |= it->in[m] == it->in[k];
      if (again || b->last[v] != (int32_t)i || b->made[v] == X_NONE || b->list->item[b->made[v]].row) continue;
      b->free_reg[b->n_free++] = b->list->item[b->made[v]].slot;
    }
    if (makes && !mixed) it->slot = take_reg(b);
  }
}

static void begin_list(builder *b, x_list *l) {
  b->list = l;
  b->room = 0;
  for (uint32_t v = 0; v < b->n->n_val; v++) b->made[v] = b->last[v] = X_NONE;
}

static void read_places(builder *b) {
  for (uint32_t v = 0; v < b->n->n_val; v++) b->last[v] = X_NONE;
  for (uint32_t i = 0; i < b->list->n; i++)
    for (uint32_t k = 0; k < b->list->item[i].n_in; k++) b->last[b->list->item[i].in[k]] = (int32_t)i;
}

/* A pass whose items are complete: beside the plain list, which stays for small launches, the list that is run, with
   superinstructions and registers */
static void end_pass(builder *b, x_list *fused) {
  if (b->oom || b->bad) return;
  const x_list *const plain = b->list;
  fused->item = malloc((plain->n ? plain->n : 1) * sizeof *fused->item);
  if (!fused->item) {
    b->oom = true;
    return;
  }
  if (plain->n) memcpy(fused->item, plain->item, plain->n * sizeof *fused->item);
  fused->n = plain->n;
  read_places(b);
  find_direct(b);
  x_super_fuse(b->r, b->n, fused);
  b->list = fused;
  for (uint32_t v = 0; v < b->n->n_val; v++) b->made[v] = X_NONE;
  for (uint32_t i = 0; i < fused->n; i++)
    if (fused->item[i].kind != X_STORE && fused->item[i].kind != X_REDUCE) b->made[fused->item[i].val] = (int32_t)i;
  read_places(b);
  find_direct(b);
  assign_registers(b);
}

/* ---- one nest ---- */

static void build_pass(builder *b, uint32_t p) {
  const nest_pass *const np = &b->n->pass[p];
  begin_list(b, &b->x->pass[p]);
  for (uint32_t i = 0; i < np->n_step && !b->oom && !b->bad; i++) {
    const nest_prim *const prim = nest_prim_of(b->r->nodes[np->step[i]].op);
    if (prim && prim->kind == TERN_K_REDUCE)
      add_fold(b, np->step[i], p);
    else
      add_step(b, np->step[i], p, false);
  }
  for (uint32_t i = 0; i < np->n_keep && !b->oom && !b->bad; i++)
    add_store(b, np->keep[i], kept_stream(b, nest_find(b->n, np->keep[i])), p, false);
  for (uint32_t i = 0; i < np->n_store && !b->oom && !b->bad; i++)
    add_store(b, np->store[i].value, memory_stream(b, np->store[i].value, np->store[i].to, np->store[i].mem), p, false);
  end_pass(b, &b->x->fused[p]);
}

static void build_phase(builder *b, uint32_t p) {
  const nest_phase *const np = &b->n->phase[p];
  begin_list(b, &b->x->phase[p]);
  for (uint32_t v = 0; p == 0 && v < b->n->n_val && !b->oom;
       v++) { /* row-level memory: once, before anything is stored */
    if (nv(b, v)->level != NEST_ROW || (nv(b, v)->src != NEST_ARG && nv(b, v)->src != NEST_WS)) continue;
    const int32_t s = memory_stream(b, nv(b, v)->value, nv(b, v)->src, nv(b, v)->mem);
    x_item *const it = add_item(b, X_LOAD, v);
    if (!it) return;
    it->stream = s;
    it->row = true;
    it->slot = b->row_slot[v];
    uint32_t sharers = 0;
    for (uint32_t a = 0; a < b->r->n_args && nv(b, v)->src == NEST_ARG; a++)
      sharers += b->group[a] == b->group[nv(b, v)->mem];
    it->copy = sharers > 1;
  }
  for (uint32_t i = 0; i < np->n_node && !b->oom && !b->bad; i++) {
    add_step(b, np->node[i], p, true);
    if (!b->oom) b->list->item[b->list->n - 1].slot = b->row_slot[b->list->item[b->list->n - 1].val];
  }
  for (uint32_t i = 0; i < np->n_store && !b->oom && !b->bad; i++)
    add_store(b, np->store[i].value, memory_stream(b, np->store[i].value, np->store[i].to, np->store[i].mem), p, true);
}

static void build_nest(builder *b) {
  const nest *const n = b->n;
  x_nest *const x = b->x;
  uint32_t folds = 0;
  for (uint32_t p = 0; p < n->n_pass; p++) folds += n->pass[p].n_step;
  x->nest = n;
  x->pass = calloc(n->n_pass ? n->n_pass : 1, sizeof *x->pass);
  x->phase = calloc(n->n_pass + 1, sizeof *x->phase);
  x->fused = calloc(n->n_pass ? n->n_pass : 1, sizeof *x->fused);
  x->red = calloc(folds ? folds : 1, sizeof *x->red);
  if (!x->fused || !x->pass || !x->phase || !x->red) {
    b->oom = true;
    return;
  }
  for (uint32_t v = 0; v < n->n_val; v++) {
    if (nv(b, v)->level == NEST_ROW) b->row_slot[v] = x->n_row++;
    if (item_of(b, v) > x->item_max) x->item_max = item_of(b, v);
  }
  begin_list(b, &x->scalar);
  for (uint32_t i = 0; i < n->n_scalar && !b->oom && !b->bad; i++) add_step(b, n->scalar[i], 0, true);
  for (uint32_t p = 0; p < n->n_pass && !b->oom && !b->bad; p++) build_pass(b, p);
  for (uint32_t p = 0; p <= n->n_pass && !b->oom && !b->bad; p++) build_phase(b, p);
  if (x->item_max < 4) x->item_max = 4; /* float16 folds pass through float32 */
  x->n_inst = 6 * x->n_items + 1;
}

/* Arguments that are one piece of memory: an in-place OUT and its IN */
static void group_args(const tern_region *r, uint32_t *group) {
  for (uint32_t a = 0; a < r->n_args; a++) group[a] = a;
  for (uint32_t v = 0; v < r->n_values; v++)
    if (r->values[v].kind == TERN_V_OUT && r->values[v].alias >= 0)
      group[r->values[v].slot] = (uint32_t)r->values[v].alias;
}

static tern_rc build_all(builder *b, x_plan *out) {
  const size_t vals = b->r->n_values + 1, items = 8 * (size_t)b->r->n_nodes + 2 * vals + 16;
  b->made = malloc(vals * sizeof *b->made);
  b->last = malloc(vals * sizeof *b->last);
  b->row_slot = calloc(vals, sizeof *b->row_slot);
  b->group = calloc(b->r->n_args + 1, sizeof *b->group);
  b->free_reg = malloc(items * sizeof *b->free_reg);
  if (!b->made || !b->last || !b->row_slot || !b->group || !b->free_reg) return TERN_E_OOM;
  group_args(b->r, b->group);
  for (uint32_t i = 0; i < b->plan->n_nests; i++) {
    b->n = &b->plan->nests[i];
    b->x = &out->nest[i];
    b->stream_room = 0;
    build_nest(b);
    if (b->oom) return TERN_E_OOM;
    if (b->bad) return TERN_E_INTERNAL;
  }
  return TERN_OK;
}

tern_rc x_plan_build(const tern_region *r, uint32_t flags, x_plan *out) {
  char why[256] = "";
  memset(out, 0, sizeof *out);
  tern_rc rc = nest_build(r, flags, &out->plan, why, sizeof why);
  if (rc != TERN_OK) return cpu_error(rc, "cpu: cannot compile a region of %u nodes: %s", r->n_nodes, why);
  out->nest = calloc(out->plan->n_nests ? out->plan->n_nests : 1, sizeof *out->nest);
  builder b = {.plan = out->plan, .r = out->plan->region};
  rc = out->nest ? build_all(&b, out) : TERN_E_OOM;
  free(b.made);
  free(b.last);
  free(b.row_slot);
  free(b.group);
  free(b.free_reg);
  if (rc == TERN_OK) return rc;
  x_plan_free(out);
  return cpu_error(rc,
                   rc == TERN_E_OOM ? "cpu: no memory to compile a region of %u nodes"
                                    : "cpu: a region of %u nodes uses an instruction that this build lacks",
                   r->n_nodes);
}

void x_plan_free(x_plan *p) {
  for (uint32_t i = 0; p->nest && i < p->plan->n_nests; i++) {
    x_nest *const x = &p->nest[i];
    for (uint32_t k = 0; x->pass && k < x->nest->n_pass; k++) free(x->pass[k].item);
    for (uint32_t k = 0; x->fused && k < x->nest->n_pass; k++) free(x->fused[k].item);
    for (uint32_t k = 0; x->phase && k <= x->nest->n_pass; k++) free(x->phase[k].item);
    free(x->scalar.item);
    free(x->pass);
    free(x->fused);
    free(x->phase);
    free(x->stream);
    free(x->red);
  }
  free(p->nest);
  nest_free(p->plan);
  memset(p, 0, sizeof *p);
}
