/* The builder: turns the class of a request into a tern_region by running its op's lowering. Sizes become TERN_SYM
   words in the order of tern__words. Values that nothing uses are fine: backends ignore them. Of a group, the lowering
   of each member runs in turn, over the group's sizes: dimension d of the member is position member->position[d] of the
   values of its component. */
#include "base/alloc.h"
#include "ops/op.h"
#include "region/region.h"
#include "tensor/dtype.h"
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

enum { MAX_VALUES = 96, MAX_NODES = 64, MAX_EDGES = 256, MAX_NODE_ATTRS = 128 }; /* of one request */

struct tern__builder {
  const tern__request *q;
  const char *problem; /* first failure: static text */
  uint32_t n_values, n_nodes, n_edges, n_attrs;
  uint32_t max_values, max_nodes, max_edges, max_attrs;
  int32_t in_value[TERN__MAX_ARGS]; /* -1: not used yet */
  tern_value *value;
  tern_node *node;
  uint32_t *edge;
  tern_word *attr;
  /* of a group */
  const tern__group *group;
  const tern__group_member *member;
  int32_t *arg_value;                /* the value of each argument */
  int32_t (*result)[TERN__MAX_ARGS]; /* of each member: the value of each output */
};

static size_t aligned(size_t n) { return (n + 15) & ~(size_t)15; }

const tern__request *tern__b_request(const tern__builder *b) { return b->q; }
tern_dtype tern__b_dtype(const tern__builder *b, int v) { return v < 0 ? TERN_F32 : (tern_dtype)b->value[v].dtype; }

static int fail(tern__builder *b, const char *why) {
  if (!b->problem) b->problem = why;
  return -1;
}

static int new_value(tern__builder *b, uint8_t kind, tern_dtype dtype) {
  if (b->n_values == b->max_values) return fail(b, "it has too many values");
  tern_value *v = &b->value[b->n_values];
  memset(v, 0, sizeof *v);
  v->kind = kind;
  v->dtype = (uint16_t)dtype;
  v->alias = -1;
  return (int)b->n_values++;
}

/* Where operand i's words and argument begin: the numbering of tern__words and tern__args. */
static void numbers_of(const tern__request *q, int i, uint32_t *word, uint32_t *slot) {
  *word = q->n_sizes;
  *slot = 0;
  for (int k = 0; k < i; k++) {
    const tern__operand *a = &q->arg[k];
    if (a->kind == TERN_V_PARAM)
      ++*word;
    else if (a->same_as == k) {
      ++*slot;
      for (int d = 0; d < a->rank; d++) *word += !tern__stride_is_literal(q, a, d);
    }
  }
}

static int operand_value(tern__builder *b, int i) {
  const tern__request *q = b->q;
  const tern__operand *a = &q->arg[i];
  uint32_t word, slot;
  numbers_of(q, i, &word, &slot);
  const int id = new_value(b, a->kind, a->dtype);
  if (id < 0) return -1;
  tern_value *v = &b->value[id];
  if (a->kind == TERN_V_PARAM) {
    v->slot = word;
    return id;
  }
  v->slot = slot;
  if (a->kind == TERN_V_OUT && a->alias != TERN__ONE) {
    uint32_t ignored, donor;
    numbers_of(q, a->alias, &ignored, &donor);
    v->alias = (int32_t)donor;
  }
  v->rank = a->rank;
  for (int d = 0; d < a->rank; d++) {
    const bool one = a->dim[d] == TERN__ONE;
    v->shape[d] = one ? 1 : TERN_SYM(a->dim[d]);
    v->stride[d] = one ? 0 : tern__stride_is_literal(q, a, d) ? a->stride[d] : TERN_SYM(word++);
  }
  return id;
}

/* Launch word w of the region, or what it is in all launches. */
static int64_t number(const tern__builder *b, uint32_t w) {
  return b->group && b->group->fixed ? b->group->fixed[w].i : TERN_SYM(w);
}

/* An argument of the group, or a view. */
static int strided(tern__builder *b, const tern__group_arg *arg, uint32_t slot) {
  const int id = new_value(b, arg->kind, arg->dtype);
  if (id < 0) return -1;
  tern_value *v = &b->value[id];
  uint32_t word = arg->first_word;
  v->slot = slot;
  v->rank = arg->rank;
  v->offset = arg->offset;
  v->alias = arg->alias;
  for (int d = 0; d < arg->rank; d++) {
    const bool one = arg->size[d] == TERN__GROUP_ONE;
    v->shape[d] = one ? 1 : number(b, arg->size[d]);
    v->stride[d] = one ? 0 : arg->literal >> d & 1 ? arg->stride[d] : number(b, word++);
    if (v->shape[d] == 1) v->stride[d] = 0;
  }
  v->layout = arg->layout;
  return id;
}

static int group_arg(tern__builder *b, uint32_t a) {
  if (b->arg_value[a] < 0) b->arg_value[a] = strided(b, &b->group->arg[a], a);
  return b->arg_value[a];
}

static int constant(tern__builder *b, tern_dtype dtype, tern_word w);

static int group_in(tern__builder *b, int i) {
  const tern__group_operand *o = &b->member->in[i];
  int id = -1;
  switch (o->how) {
  case TERN__GROUP_ARG: id = group_arg(b, o->index); break;
  case TERN__GROUP_RESULT: id = b->result[o->index][o->out]; break;
  case TERN__GROUP_VIEW:
    if (b->result[o->index][o->out] >= 0)
      id = strided(b, &b->group->view[o->view], (uint32_t)b->result[o->index][o->out]);
    break;
  case TERN__GROUP_CONST: id = constant(b, (tern_dtype)o->dtype, o->value); break;
  case TERN__GROUP_PARAM:
    id = new_value(b, TERN_V_PARAM, (tern_dtype)o->dtype);
    if (id >= 0) b->value[id].slot = o->index;
    break;
  }
  return id < 0 ? fail(b, "an operand has no value") : id;
}

int tern__b_in(tern__builder *b, int i) {
  if (b->group) {
    if (b->in_value[i] < 0) b->in_value[i] = group_in(b, i);
    return b->q->want[i] ? tern__b_cast(b, b->in_value[i], b->q->want[i]) : b->in_value[i];
  }
  int id = b->in_value[b->q->arg[i].same_as];
  if (id < 0) id = b->in_value[b->q->arg[i].same_as] = operand_value(b, b->q->arg[i].same_as);
  return b->q->want[i] ? tern__b_cast(b, id, b->q->want[i]) : id;
}

static int constant(tern__builder *b, tern_dtype dtype, tern_word w) {
  const int id = new_value(b, TERN_V_CONST, dtype);
  if (id >= 0) b->value[id].imm = w;
  return id;
}

int tern__b_const(tern__builder *b, tern_dtype dtype, double value) {
  return constant(b, dtype, tern__convert((tern_word){.f = value}, TERN_F64, dtype));
}

int tern__b_const_int(tern__builder *b, tern_dtype dtype, int64_t value) {
  return constant(b, dtype, tern__convert((tern_word){.i = value}, TERN_I64, dtype));
}

static int add_node(tern__builder *b, uint32_t prim, int n, const int *in, int out, int n_attrs,
                    const tern_word *attrs) {
  if (out < 0) return -1;
  for (int i = 0; i < n; i++)
    if (in[i] < 0) return -1;
  if (b->n_nodes == b->max_nodes || b->n_edges + (uint32_t)n + 1 > b->max_edges ||
      b->n_attrs + (uint32_t)n_attrs > b->max_attrs)
    return fail(b, "it has too many nodes");
  tern_node *node = &b->node[b->n_nodes];
  *node = (tern_node){
      .op = prim, .n_in = (uint32_t)n, .n_out = 1, .n_attr = (uint32_t)n_attrs, .in = b->n_edges, .attr = b->n_attrs};
  for (int i = 0; i < n; i++) b->edge[b->n_edges++] = (uint32_t)in[i];
  node->out = b->n_edges;
  b->edge[b->n_edges++] = (uint32_t)out;
  for (int i = 0; i < n_attrs; i++) b->attr[b->n_attrs++] = attrs[i];
  b->n_nodes++;
  return out;
}

/* Result shape of a map: the broadcast of its inputs. */
static void broadcast(tern__builder *b, tern_value *out, int n, const int *in) {
  for (int i = 0; i < n; i++) {
    if (in[i] < 0) continue;
    const tern_value *v = &b->value[in[i]];
    for (int d = 0; d < v->rank; d++) {
      if (d >= out->rank) out->shape[d] = 1;
      if (out->shape[d] == 1) out->shape[d] = v->shape[d];
    }
    if (v->rank > out->rank) out->rank = v->rank;
  }
}

int tern__b_map(tern__builder *b, uint32_t prim, tern_dtype dtype, int n, const int *in) {
  const int out = new_value(b, TERN_V_TEMP, dtype);
  if (out >= 0) broadcast(b, &b->value[out], n, in);
  return add_node(b, prim, n, in, out, 0, NULL);
}

static tern_dtype result_dtype(uint32_t prim, tern_dtype in) {
  const bool predicate =
      (prim >= TERN_OP_EQ && prim <= TERN_OP_GE) || (prim >= TERN_OP_ISNAN && prim <= TERN_OP_SIGNBIT);
  return predicate ? TERN_BOOL : in;
}

int tern__b_map1(tern__builder *b, uint32_t prim, int x) {
  return tern__b_map(b, prim, result_dtype(prim, tern__b_dtype(b, x)), 1, &x);
}

int tern__b_map2(tern__builder *b, uint32_t prim, int x, int y) {
  const int in[] = {x, y};
  return tern__b_map(b, prim, result_dtype(prim, tern__b_dtype(b, x)), 2, in);
}

int tern__b_where(tern__builder *b, int condition, int x, int y) {
  const int in[] = {condition, x, y};
  return tern__b_map(b, TERN_OP_WHERE, tern__b_dtype(b, x), 3, in);
}

int tern__b_cast(tern__builder *b, int x, tern_dtype dtype) {
  if (x < 0 || tern__b_dtype(b, x) == dtype) return x;
  return tern__b_map(b, TERN_OP_CAST, dtype, 1, &x);
}

/* Dimension d of the request in the values of the region. */
static int position(const tern__builder *b, int d) { return b->group ? b->member->position[d] : d; }
static int space_rank(const tern__builder *b) { return b->group ? b->member->rank : b->q->n_space; }
static int64_t size_at(const tern__builder *b, int p) {
  return number(b, (uint32_t)(b->group ? b->member->first_size + p : p));
}

static uint64_t reduced_mask(const tern__builder *b) {
  uint64_t mask = 0;
  for (int d = 0; d < b->q->n_space; d++)
    if (b->q->role[d] == TERN__ROLE_REDUCED && position(b, d) < 64) mask |= UINT64_C(1) << position(b, d);
  return mask;
}

int tern__b_reduce(tern__builder *b, uint32_t prim, int x, tern_dtype dtype) {
  const tern_word axes = {.u = reduced_mask(b)};
  const int out = new_value(b, TERN_V_TEMP, dtype);
  if (out < 0 || x < 0) return -1;
  tern_value *v = &b->value[out];
  v->rank = b->value[x].rank;
  for (int d = 0; d < v->rank; d++) v->shape[d] = axes.u >> d & 1 ? 1 : b->value[x].shape[d];
  return add_node(b, prim, 1, &x, out, 1, &axes);
}

int tern__b_count(tern__builder *b, int x, tern_dtype dtype) {
  if (x < 0) return -1;
  const int id = new_value(b, TERN_V_SIZE, dtype);
  if (id < 0) return -1;
  b->value[id].slot = (uint32_t)x;
  b->value[id].imm.u = reduced_mask(b);
  return id;
}

int tern__b_iota(tern__builder *b, int dim, tern_dtype dtype) {
  const int at = position(b, dim);
  const tern_word attr = {.u = (uint64_t)at};
  const int out = new_value(b, TERN_V_TEMP, dtype);
  if (out < 0) return -1;
  tern_value *v = &b->value[out];
  v->rank = (uint16_t)space_rank(b);
  for (int d = 0; d < v->rank; d++) v->shape[d] = d == at ? size_at(b, d) : 1;
  return add_node(b, TERN_OP_IOTA, 0, NULL, out, 1, &attr);
}

int tern__b_rng(tern__builder *b, int key, int counter, uint32_t stream) {
  const tern_word attr = {.u = stream};
  const int in[] = {key, counter};
  const int out = new_value(b, TERN_V_TEMP, TERN_U32);
  if (out < 0) return -1;
  tern_value *v = &b->value[out];
  v->rank = (uint16_t)space_rank(b);
  for (int d = 0; d < v->rank; d++) v->shape[d] = 1;
  for (int d = 0; d < b->q->n_space; d++)
    if (position(b, d) < v->rank) v->shape[position(b, d)] = size_at(b, position(b, d));
  return add_node(b, TERN_OP_RNG, 2, in, out, 1, &attr);
}

int tern__b_node(tern__builder *b, uint32_t prim, int n, const int *in, int o, int n_attrs, const tern_word *attrs) {
  const tern__operand *a = &b->q->arg[b->q->n_in + o];
  const int out = new_value(b, TERN_V_TEMP, a->dtype);
  if (out < 0) return -1;
  tern_value *v = &b->value[out];
  if (b->group) { /* an anchor: its results have the component's positions */
    v->rank = b->member->rank;
    for (int d = 0; d < v->rank; d++) v->shape[d] = 1;
    for (int d = 0; d < a->rank; d++)
      if (a->dim[d] != TERN__ONE && position(b, a->dim[d]) < v->rank)
        v->shape[position(b, a->dim[d])] = size_at(b, position(b, a->dim[d]));
    return add_node(b, prim, n, in, out, n_attrs, attrs);
  }
  v->rank = a->rank;
  for (int d = 0; d < a->rank; d++) v->shape[d] = a->dim[d] == TERN__ONE ? 1 : TERN_SYM(a->dim[d]);
  return add_node(b, prim, n, in, out, n_attrs, attrs);
}

static bool same_shape(const tern_value *a, const tern_value *b) {
  return a->rank == b->rank && !memcmp(a->shape, b->shape, a->rank * sizeof *a->shape);
}

static void group_out(tern__builder *b, int o, int x) {
  const tern__group_member *m = b->member;
  int32_t *result = &b->result[m - b->group->member][o];
  *result = x;
  if (x < 0 || m->out_arg[o] < 0) return;
  const uint32_t arg = (uint32_t)m->out_arg[o];
  const int id = group_arg(b, arg);
  if (id < 0) return;
  const tern_value out = b->value[id];
  if (b->value[x].kind != TERN_V_TEMP || !same_shape(&b->value[x], &out)) {
    add_node(b, TERN_OP_COPY, 1, &x, id, 0, NULL);
    return;
  }
  if (id == (int)b->n_values - 1) b->n_values--;
  b->value[x] = out;
  b->arg_value[arg] = x;
}

void tern__b_out(tern__builder *b, int o, int x) {
  x = tern__b_cast(b, x, b->q->arg[b->q->n_in + o].dtype);
  if (b->group) {
    group_out(b, o, x);
    return;
  }
  const int id = operand_value(b, b->q->n_in + o); /* the last value: dropped again below */
  if (id < 0 || x < 0) {
    fail(b, "an output has no value");
    return;
  }
  const tern_value out = b->value[id];
  if (b->value[x].kind != TERN_V_TEMP ||
      !same_shape(&b->value[x], &out)) { /* an input or a constant, or it broadcasts */
    add_node(b, TERN_OP_COPY, 1, &x, id, 0, NULL);
    return;
  }
  b->n_values--; /* the producer writes the output itself */
  b->value[x] = out;
}

/* The region with its own arrays; the caller knows words, arguments and flags. */
static tern__region *pack(const tern__builder *b, uint32_t n_words, uint32_t n_args, uint32_t flags, const char *hint) {
  const size_t values = b->n_values * sizeof(tern_value), nodes = b->n_nodes * sizeof(tern_node),
               edges = b->n_edges * sizeof(uint32_t), attrs = b->n_attrs * sizeof(tern_word);
  const size_t size =
      aligned(sizeof(tern__region)) + aligned(values) + aligned(nodes) + aligned(edges) + aligned(attrs);
  tern__region *region = tern__calloc(1, size < 1024 ? 1024 : size);
  if (!region) return NULL;
  char *at = (char *)region + aligned(sizeof *region);
  tern_region *r = &region->r;
  r->struct_size = sizeof *r;
  r->values = memcpy(at, b->value, values);
  r->nodes = memcpy(at + aligned(values), b->node, nodes);
  r->edges = memcpy(at + aligned(values) + aligned(nodes), b->edge, edges);
  r->attrs = memcpy(at + aligned(values) + aligned(nodes) + aligned(edges), b->attr, attrs);
  r->n_values = b->n_values;
  r->n_nodes = b->n_nodes;
  r->n_words = n_words;
  r->n_args = n_args;
  r->flags = flags;
  r->hint = hint;
  XXH3_state_t *state = XXH3_createState();
  if (!state) {
    free(region);
    return NULL;
  }
  XXH3_128bits_reset(state);
  const uint32_t head[] = {TERN_ABI, r->flags, r->n_nodes, r->n_values, r->n_args, r->n_words};
  XXH3_128bits_update(state, head, sizeof head);
  XXH3_128bits_update(state, r->values, values);
  XXH3_128bits_update(state, r->nodes, nodes);
  XXH3_128bits_update(state, r->edges, edges);
  XXH3_128bits_update(state, r->attrs, attrs);
  const XXH128_hash_t hash = XXH3_128bits_digest(state);
  XXH3_freeState(state);
  r->key[0] = hash.low64;
  r->key[1] = hash.high64;
  return region;
}

/* Room for n requests' worth of everything, in one block behind the builder; NULL without memory. */
static tern__builder *builder_new(uint32_t n, uint32_t n_args) {
  const size_t values = aligned(n * MAX_VALUES * sizeof(tern_value)),
               nodes = aligned(n * MAX_NODES * sizeof(tern_node)), edges = aligned(n * MAX_EDGES * sizeof(uint32_t)),
               attrs = aligned(n * MAX_NODE_ATTRS * sizeof(tern_word)), args = aligned(n_args * sizeof(int32_t)),
               results = aligned(n * sizeof(int32_t[TERN__MAX_ARGS])), head = aligned(sizeof(tern__builder));
  char *block = tern__realloc(NULL, head + values + nodes + edges + attrs + args + results);
  if (!block) return NULL;
  tern__builder *b = (tern__builder *)block;
  memset(b, 0, sizeof *b);
  b->max_values = n * MAX_VALUES;
  b->max_nodes = n * MAX_NODES;
  b->max_edges = n * MAX_EDGES;
  b->max_attrs = n * MAX_NODE_ATTRS;
  b->value = (tern_value *)(void *)(block + head);
  b->node = (tern_node *)(void *)((char *)b->value + values);
  b->edge = (uint32_t *)(void *)((char *)b->node + nodes);
  b->attr = (tern_word *)(void *)((char *)b->edge + edges);
  b->arg_value = (int32_t *)(void *)((char *)b->attr + attrs);
  b->result = (int32_t(*)[TERN__MAX_ARGS])(void *)((char *)b->arg_value + args);
  memset(b->arg_value, -1, args + results);
  memset(b->in_value, -1, sizeof b->in_value);
  return b;
}

tern__region *tern__lower(const tern__request *q) {
  tern__builder *b = builder_new(1, 0);
  if (!b) {
    tern__fail(TERN_E_OOM, "%s: out of host memory to build its region", q->op->name);
    return NULL;
  }
  uint32_t n_words, n_args;
  b->q = q;
  q->op->lower(b);
  numbers_of(q, q->n_in + q->n_out, &n_words, &n_args);
  const uint32_t flags = TERN_R_DETERMINISTIC | (tern__fits_int32(q) ? TERN_R_IDX32 : 0);
  tern__region *region = b->problem ? NULL : pack(b, n_words, n_args, flags, q->op->prim ? NULL : q->op->name);
  if (!region)
    tern__fail(b->problem ? TERN_E_INTERNAL : TERN_E_OOM, "%s: its region cannot be built: %s", q->op->name,
               b->problem ? b->problem : "out of host memory");
  free(b);
  return region;
}

tern__region *tern__lower_group(const tern__group *group) {
  tern__builder *b = builder_new(group->n_members, group->n_args);
  if (!b) {
    tern__fail(TERN_E_OOM, "graph: out of host memory to build a region");
    return NULL;
  }
  b->group = group;
  for (uint32_t m = 0; m < group->n_members && !b->problem; m++) {
    b->member = &group->member[m];
    b->q = b->member->q;
    memset(b->in_value, -1, sizeof b->in_value);
    b->q->op->lower(b);
  }
  tern__region *region = b->problem ? NULL : pack(b, group->n_words, group->n_args, group->flags, group->hint);
  if (!region)
    tern__fail(b->problem ? TERN_E_INTERNAL : TERN_E_OOM, "graph: a region of %u ops, the last %s, cannot be built: %s",
               group->n_members, b->q ? b->q->op->name : "none", b->problem ? b->problem : "out of host memory");
  free(b);
  return region;
}

tern__region *tern__lower_node(uint32_t prim, int n, const tern_value *value) {
  tern__builder *b = builder_new(1, 0);
  if (!b) {
    tern__fail(TERN_E_OOM, "graph: out of host memory to build a region");
    return NULL;
  }
  static const int in[] = {0, 1, 2};
  for (int i = 0; i <= n; i++) b->value[b->n_values++] = value[i];
  add_node(b, prim, n, in, n, 0, NULL);
  tern__region *region = pack(b, 0, (uint32_t)n + 1, TERN_R_DETERMINISTIC, NULL);
  if (!region) tern__fail(TERN_E_OOM, "graph: out of host memory to build a region");
  free(b);
  return region;
}
