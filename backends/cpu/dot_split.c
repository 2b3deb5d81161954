/* Cuts a region of one DOT or CONV and MAP nodes into the product alone and the epilogue alone. Both parts get an
   argument for each strided value that they touch, so that a launch can move every one of them to a block; in the
   epilogue the product's result is one more argument, where possible in the memory of an OUT. */
#include "../common/nest.h"
#include "dot_fuse.h"
#include "dot_static.h"

#include <stdlib.h>
#include <string.h>

struct builder {
  const tern_region *r;
  struct fuse_split *s;
  uint32_t main, bias; /* nodes; UINT32_MAX: no bias */
  tern_value *main_values, *map_values;
  tern_node *map_nodes;
  uint32_t *map_edges;
};

static bool is_main(uint32_t op) { return op == TERN_OP_DOT || (op >= TERN_OP_CONV && op <= TERN_OP_CONV_DW); }

static const tern_value *value_of(const tern_region *r, uint32_t v) { return v < r->n_values ? &r->values[v] : NULL; }

/* The argument's value behind an IN, an OUT or a view of an IN; NULL: none */
static const tern_value *base_of(const tern_region *r, uint32_t v) {
  const tern_value *x = value_of(r, v);
  if (x && x->kind == TERN_V_VIEW) {
    x = value_of(r, x->slot);
    if (x && x->kind != TERN_V_IN) return NULL;
  }
  if (!x || (x->kind != TERN_V_IN && x->kind != TERN_V_OUT)) return NULL;
  return x->slot < r->n_args && x->rank <= TERN_MAX_RANK ? x : NULL;
}

static bool same_shape(const tern_value *a, const tern_value *b) {
  if (a->rank != b->rank) return false;
  for (uint32_t d = 0; d < a->rank; d++)
    if (a->shape[d] != b->shape[d]) return false;
  return true;
}

/* Is argument `slot` written by an OUT in place? */
static bool is_donor(const tern_region *r, uint32_t slot) {
  for (uint32_t i = 0; i < r->n_values; i++)
    if (r->values[i].kind == TERN_V_OUT && r->values[i].alias == (int32_t)slot) return true;
  return false;
}

/* ---- what is taken ---- */

static bool find_main(struct builder *b) {
  const tern_region *const r = b->r;
  bool found = false;
  for (uint32_t i = 0; i < r->n_nodes; i++) {
    const nest_prim *const p = nest_prim_of(r->nodes[i].op);
    if (!p || r->nodes[i].n_in != p->n_in || r->nodes[i].n_out != 1) return false;
    for (uint32_t k = 0; k < p->n_in; k++)
      if (nest_in(r, i, k) >= r->n_values) return false;
    if (nest_out(r, i) >= r->n_values) return false;
    if (is_main(p->op)) {
      if (found) return false;
      b->main = i;
      found = true;
    } else if (p->kind != TERN_K_MAP) {
      return false;
    }
  }
  return found;
}

static bool takes_result(const struct builder *b) {
  const tern_region *const r = b->r;
  const tern_value *const x = &r->values[b->s->result];
  if (x->kind != TERN_V_TEMP && !(x->kind == TERN_V_OUT && x->alias < 0)) return false;
  if (x->rank < 2 || x->rank > TERN_MAX_RANK) return false;
  for (uint32_t i = 0; i < 2; i++) {
    const tern_value *const in = base_of(r, nest_in(r, b->main, i));
    if (!in || in->kind != TERN_V_IN) return false;
  }
  bool used = b->bias != UINT32_MAX;
  for (uint32_t i = 0; i < r->n_nodes; i++)
    for (uint32_t k = 0; i != b->main && k < r->nodes[i].n_in; k++) used |= nest_in(r, i, k) == b->s->result;
  if (!used) return false;
  for (uint32_t i = 0; i < r->n_values; i++)
    if (r->values[i].kind == TERN_V_OUT && !same_shape(&r->values[i], x)) return false;
  return true;
}

/* ---- packed arrays ---- */

/* All OUTs have one layout; no IN but the product's operands has another one. Views are never packed */
static bool read_layouts(struct builder *b) {
  const tern_region *const r = b->r;
  struct fuse_split *const s = b->s;
  bool first = true;
  for (uint32_t i = 0; i < r->n_values; i++) {
    const tern_value *const v = &r->values[i];
    if (v->kind == TERN_V_OUT) {
      if (!first && v->layout != s->layout) return false;
      s->layout = v->layout;
      first = false;
    }
    if (v->kind != TERN_V_TEMP) s->fixed |= v->layout != 0;
    if (v->kind == TERN_V_VIEW && (v->layout || v->slot >= r->n_values || r->values[v->slot].layout)) return false;
  }
  for (uint32_t i = 0; s->fixed && i < r->n_values; i++)
    for (uint32_t d = 0; d < r->values[i].rank; d++)
      if (TERN_IS_SYM(r->values[i].shape[d])) return false;
  if (!s->layout) return true;
  const int64_t n = cpu_static_elements(s->layout);
  s->packed_bytes = (uint64_t)n * sizeof(float);
  return n > 0;
}

static uint32_t readers(const tern_region *r, uint32_t v, uint32_t *reader) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < r->n_nodes; i++)
    for (uint32_t k = 0; k < r->nodes[i].n_in; k++)
      if (nest_in(r, i, k) == v) *reader = i, n++;
  return n;
}

/* A CONV's result that one ADD of a [1, O, 1, 1] reads, where an array is packed: oneDNN adds that */
static void find_bias(struct builder *b) {
  const tern_region *const r = b->r;
  struct fuse_split *const s = b->s;
  uint32_t node = 0;
  if (!s->fixed || s->op != TERN_OP_CONV || r->values[s->product].kind != TERN_V_TEMP ||
      readers(r, s->product, &node) != 1 || r->nodes[node].op != TERN_OP_ADD)
    return;
  const uint32_t other = nest_in(r, node, nest_in(r, node, 0) == s->product);
  const tern_value *const v = &r->values[other], *const base = base_of(r, other);
  const tern_value *const out = &r->values[nest_out(r, node)];
  if (!base || base->kind != TERN_V_IN || v->layout || v->rank != 4 || v->dtype != TERN_F32 || out->alias >= 0) return;
  for (uint32_t d = 0; d < 4; d++)
    if (v->shape[d] != (d == 1 ? r->values[s->product].shape[1] : 1)) return;
  if (v->shape[1] != 1 && v->stride[1] != 1) return;
  b->bias = node;
  s->result = nest_out(r, node);
}

/* ---- the parts ---- */

static bool add_mem(struct fuse_part *p, const tern_value *base, const tern_value *v, uint32_t *arg) {
  if (p->region.n_args == FUSE_ARGS) return false;
  *arg = p->region.n_args++;
  p->mem[*arg] = (struct fuse_mem){.slot = (int32_t)base->slot,
                                   .item = (uint32_t)cpu_item_size(v->dtype),
                                   .offset = v->kind == TERN_V_VIEW ? v->offset : 0};
  return true;
}

/* The result's sizes become our words; a value of another shape (or layout): false */
static bool resize(const struct fuse_split *s, tern_value *v) {
  if (v->rank == 0) return true;
  if (v->rank != s->rank) return false;
  for (uint32_t d = 0; d < s->rank; d++)
    if ((v->shape[d] != 1 || s->layout) && v->shape[d] != s->size[d]) return false;
  if (v->kind != TERN_V_TEMP && v->layout != s->layout) return false;
  v->layout = 0;
  if (s->layout) {
    v->rank = 1;
    v->shape[0] = (int64_t)(s->packed_bytes / sizeof(float));
    v->stride[0] = 1;
  }
  if (s->fixed) return true;
  for (uint32_t d = 0; d < s->rank; d++)
    if (v->shape[d] != 1) v->shape[d] = TERN_SYM(s->n_words + d);
  return true;
}

/* Which dims of the value walk with the block */
static void moves(const struct fuse_split *s, struct fuse_mem *m, const tern_value *v, uint32_t dims) {
  for (uint32_t d = 0; d < s->rank; d++)
    if ((dims >> d & 1) && v->shape[d] != 1) m->stride[d] = v->stride[d];
}

/* Value v of the whole, as a value of the epilogue. sized: it must have the result's sizes, or 1 */
static bool take(struct builder *b, uint32_t v, bool sized, uint32_t *out) {
  struct fuse_split *const s = b->s;
  struct fuse_part *const p = &s->map;
  const tern_value *const from = &b->r->values[v];
  if (s->renamed[v] != UINT32_MAX) {
    *out = s->renamed[v];
    return true;
  }
  const tern_value *const base = base_of(b->r, v);
  tern_value to = *from;
  uint32_t arg = 0;
  switch (from->kind) {
  case TERN_V_CONST:
  case TERN_V_PARAM: break;
  case TERN_V_SIZE:
    if (from->slot >= b->r->n_values || !take(b, from->slot, false, &to.slot)) return false;
    s->block_dims = 0;
    break;
  case TERN_V_IN:
  case TERN_V_VIEW:
    if (!base) return false;
    if (from->kind == TERN_V_VIEW && is_donor(b->r, base->slot)) { /* the analysis must see that it is one memory */
      if (!take(b, from->slot, false, &to.slot)) return false;
      s->block_dims = 0;
      break;
    }
    to.kind = TERN_V_IN;
    if (!add_mem(p, base, from, &arg)) return false;
    to.slot = arg;
    to.offset = 0;
    break;
  case TERN_V_OUT:
    if (!base || !add_mem(p, base, from, &arg)) return false;
    to.slot = arg;
    break;
  case TERN_V_TEMP:
    if (v == s->result) return false; /* taken already */
    break;
  default: return false;
  }
  if (!resize(s, &to)) {
    if (sized) return false;
    s->block_dims = 0;
  }
  if (to.kind == TERN_V_IN || to.kind == TERN_V_OUT) moves(s, &p->mem[arg], from, ~0u);
  s->renamed[v] = *out = p->region.n_values;
  b->map_values[p->region.n_values++] = to;
  return true;
}

/* The result as an argument of the epilogue; where it lies is settled later */
static bool take_result(struct builder *b) {
  struct fuse_split *const s = b->s;
  const tern_value *const from = &b->r->values[s->result];
  tern_value to = *from;
  uint32_t arg;
  if (!add_mem(&s->map, from, from, &arg)) return false;
  if (to.kind == TERN_V_TEMP) to.layout = s->layout;
  to.kind = TERN_V_IN, to.slot = arg, to.alias = -1, to.offset = 0;
  s->home = (int32_t)arg;
  if (!resize(s, &to)) return false;
  if (from->kind == TERN_V_OUT) moves(s, &s->map.mem[arg], from, ~0u);
  s->renamed[s->result] = s->map.region.n_values;
  b->map_values[s->map.region.n_values++] = to;
  return true;
}

/* OUTs in place name arguments of the epilogue; a donor that it does not read as it lies is plain memory to it */
static void fix_alias(struct builder *b) {
  struct fuse_part *const p = &b->s->map;
  for (uint32_t i = 0; i < p->region.n_values; i++) {
    tern_value *const v = &b->map_values[i];
    if (v->kind != TERN_V_OUT || v->alias < 0) continue;
    const uint32_t donor = (uint32_t)v->alias;
    v->alias = -1;
    for (uint32_t k = 0; k < b->r->n_values; k++)
      if (b->r->values[k].kind == TERN_V_IN && b->r->values[k].slot == donor && b->s->renamed[k] != UINT32_MAX)
        v->alias = (int32_t)b->map_values[b->s->renamed[k]].slot;
    for (uint32_t k = 0; k < 2; k++) /* the product must be complete before the first block of it is overwritten */
      if (base_of(b->r, nest_in(b->r, b->main, k))->slot == donor) b->s->block_dims = 0;
  }
}

/* Strides of a result in the workspace: dense, of the block's sizes */
static void lay_in_workspace(struct fuse_split *s, tern_value *v) {
  int64_t dense = 1;
  for (uint32_t d = v->rank; s->fixed && d-- > 0; dense *= v->shape[d]) v->stride[d] = v->shape[d] == 1 ? 0 : dense;
  if (s->fixed) return;
  for (uint32_t d = 0; d < s->rank; d++)
    v->stride[d] = v->shape[d] == 1 ? 0 : d + 1 == s->rank ? 1 : TERN_SYM(s->n_words + s->rank + d);
}

/* An OUT that is memory of nobody else may hold the result until its own elements are computed */
static void choose_home(struct builder *b) {
  struct fuse_split *const s = b->s;
  struct fuse_part *const p = &s->map;
  tern_value *const result = &b->map_values[s->renamed[s->result]];
  if (b->r->values[s->result].kind == TERN_V_OUT) return;
  for (uint32_t i = 0; i < b->r->n_values; i++) {
    const tern_value *const v = &b->r->values[i];
    if (v->kind != TERN_V_OUT || v->alias >= 0 || v->dtype != result->dtype || s->renamed[i] == UINT32_MAX) continue;
    tern_value *const out = &b->map_values[s->renamed[i]];
    memcpy(result->stride, out->stride, sizeof out->stride);
    if (!nest_can_alias(&p->region, s->renamed[i], (uint32_t)s->home)) continue;
    out->alias = s->home;
    const int32_t home = s->home;
    p->mem[home] = p->mem[out->slot];
    return;
  }
  s->in_workspace = true;
  p->mem[s->home].slot = FUSE_NONE;
  lay_in_workspace(s, result);
}

static bool build_map(struct builder *b) {
  const tern_region *const r = b->r;
  struct fuse_part *const p = &b->s->map;
  uint32_t n_edges = 0;
  if (!take_result(b)) return false;
  for (uint32_t i = 0; i < r->n_nodes; i++) {
    if (i == b->main || i == b->bias) continue;
    tern_node *const to = &b->map_nodes[p->region.n_nodes++];
    *to = r->nodes[i];
    if (to->op == TERN_OP_IOTA || to->op == TERN_OP_RNG) b->s->block_dims = 0; /* they count from the array's start */
    to->in = n_edges;
    for (uint32_t k = 0; k < to->n_in; k++)
      if (!take(b, nest_in(r, i, k), true, &b->map_edges[n_edges++])) return false;
    to->out = n_edges;
    const uint8_t kind = r->values[nest_out(r, i)].kind;
    if (kind != TERN_V_TEMP && kind != TERN_V_OUT) return false;
    if (!take(b, nest_out(r, i), true, &b->map_edges[n_edges++])) return false;
  }
  fix_alias(b);
  p->region.flags = r->flags;
  p->region.n_words = r->n_words + 2 * b->s->rank;
  p->region.values = b->map_values;
  p->region.nodes = b->map_nodes;
  p->region.edges = b->map_edges;
  p->region.attrs = r->attrs;
  choose_home(b);
  return true;
}

/* The product: values 0 and 1 its operands, 2 its result, arguments in this order (one argument where both operands are
   one) */
static bool build_main(struct builder *b) {
  static const uint32_t edges[3] = {0, 1, 2};
  struct fuse_split *const s = b->s;
  struct fuse_part *const p = &s->main;
  const tern_region *const r = b->r;
  tern_node *const node = &b->map_nodes[r->n_nodes];
  *node = r->nodes[b->main];
  node->in = 0, node->out = 2;
  for (uint32_t i = 0; i < 2; i++) {
    const uint32_t v = nest_in(r, b->main, i);
    uint32_t arg;
    tern_value *const to = &b->main_values[i];
    *to = r->values[v];
    if (!add_mem(p, base_of(r, v), &r->values[v], &arg)) return false;
    to->kind = TERN_V_IN, to->slot = arg, to->offset = 0;
    const uint32_t batch = s->fixed ? 0 : s->op == TERN_OP_DOT ? s->rank - (i == 0 ? 1 : 2) : i == 0 ? 1 : 0;
    for (uint32_t d = 0; d < batch && s->op != TERN_OP_CONV_DW && d < to->rank; d++) {
      if (to->shape[d] == 1) continue;
      p->mem[arg].stride[d] = to->stride[d];
      if (to->shape[d] != s->size[d]) return false;
      to->shape[d] = TERN_SYM(s->n_words + d);
    }
  }
  tern_value *const out = &b->main_values[2];
  *out = s->layout ? r->values[s->product] : b->map_values[s->renamed[s->result]];
  out->kind = TERN_V_OUT, out->slot = p->region.n_args++, out->alias = -1, out->layout = s->layout;
  p->mem[out->slot] = s->map.mem[s->home];
  if (b->bias != UINT32_MAX) {
    const uint32_t v = nest_in(r, b->bias, nest_in(r, b->bias, 0) == s->product);
    uint32_t arg;
    if (!add_mem(p, base_of(r, v), &r->values[v], &arg)) return false;
    s->bias = (int32_t)arg;
  }
  p->region.flags = r->flags;
  p->region.n_nodes = 1, p->region.n_values = 3;
  p->region.n_words = r->n_words + 2 * s->rank;
  p->region.nodes = node, p->region.values = b->main_values, p->region.edges = edges, p->region.attrs = r->attrs;
  return true;
}

/* One block of memory for what the parts point to */
static bool allocate(struct builder *b) {
  const tern_region *const r = b->r;
  size_t edges = 0;
  for (uint32_t i = 0; i < r->n_nodes; i++) edges += r->nodes[i].n_in + 1;
  const size_t values = (3 + (size_t)r->n_values) * sizeof(tern_value),
               nodes = ((size_t)r->n_nodes + 1) * sizeof(tern_node);
  char *const at = malloc(values + nodes + (edges + r->n_values) * sizeof(uint32_t));
  if (!at) return false;
  b->s->memory = at;
  b->main_values = (tern_value *)(void *)at;
  b->map_values = b->main_values + 3;
  b->map_nodes = (tern_node *)(void *)(at + values);
  b->map_edges = (uint32_t *)(void *)(at + values + nodes);
  b->s->renamed = b->map_edges + edges;
  for (uint32_t i = 0; i < r->n_values; i++) b->s->renamed[i] = UINT32_MAX;
  return true;
}

tern_rc fuse_split_build(const tern_region *r, struct fuse_split **out) {
  if (r->n_nodes < 2 || r->n_nodes > FUSE_NODES || r->n_words > FUSE_WORDS - 2 * TERN_MAX_RANK)
    return TERN_E_UNSUPPORTED;
  struct builder b = {.r = r, .bias = UINT32_MAX};
  if (!find_main(&b)) return TERN_E_UNSUPPORTED;
  struct fuse_split *const s = calloc(1, sizeof *s);
  if (!s) return TERN_E_OOM;
  b.s = s;
  s->whole = r;
  s->op = r->nodes[b.main].op;
  s->bias = FUSE_NONE;
  s->result = s->product = nest_out(r, b.main);
  const bool known = read_layouts(&b);
  find_bias(&b);
  const tern_value *const x = &r->values[s->result];
  s->result_is_out = x->kind == TERN_V_OUT;
  s->rank = x->rank, s->dtype = x->dtype, s->n_words = r->n_words;
  memcpy(s->size, x->shape, sizeof s->size);
  s->block_dims = s->fixed ? 0 : s->op == TERN_OP_DOT ? (1u << (s->rank - 1)) - 1 : s->op == TERN_OP_CONV_DW ? 0 : 1;
  tern_rc rc = TERN_E_UNSUPPORTED;
  if (known && takes_result(&b)) rc = allocate(&b) ? TERN_OK : TERN_E_OOM;
  if (rc == TERN_OK && (!build_map(&b) || !build_main(&b))) rc = TERN_E_UNSUPPORTED;
  if (rc != TERN_OK) {
    fuse_split_free(s);
    return rc;
  }
  *out = s;
  return TERN_OK;
}

void fuse_split_free(struct fuse_split *s) {
  if (!s) return;
  free(s->memory);
  free(s);
}
