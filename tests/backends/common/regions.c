/* The builder of regions.h and the random regions; regions_known.c has the composites. */
#include "regions.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../../backends/common/eval.h"
#include "../../../backends/common/nest.h"

void rb_init(region_builder *b, const char *name, uint64_t seed) {
  memset(b, 0, sizeof *b);
  snprintf(b->name, sizeof b->name, "%s", name);
  b->seed = seed * 0x9E3779B97F4A7C15u + 88172645463325252u;
  b->region = (tern_region){.struct_size = sizeof b->region,
                            .flags = TERN_R_IDX32,
                            .nodes = b->nodes,
                            .values = b->values,
                            .edges = b->edges,
                            .attrs = b->attrs};
}

void rb_free(region_builder *b) {
  for (uint32_t i = 0; i < b->region.n_args; i++) free(b->args[i].data);
  b->region.n_args = 0;
}

uint64_t rb_random(region_builder *b) { /* xorshift64* */
  b->seed ^= b->seed >> 12;
  b->seed ^= b->seed << 25;
  b->seed ^= b->seed >> 27;
  return (b->seed * 2685821657736338717u) >> 16;
}

static void full(const char *what) {
  fprintf(stderr, "a test region has too many %s\n", what);
  exit(2);
}

static int64_t new_word(region_builder *b, tern_word w) {
  if (b->region.n_words == RB_MAX_WORDS) full("words");
  b->words[b->region.n_words] = w;
  return TERN_SYM(b->region.n_words++);
}

int64_t rb_sym(region_builder *b, int64_t n) { return new_word(b, (tern_word){.i = n}); }

static uint32_t new_value(region_builder *b, uint32_t kind, uint32_t dtype, uint32_t rank, const int64_t *shape) {
  if (b->region.n_values == RB_MAX_VALUES) full("values");
  tern_value *v = &b->values[b->region.n_values];
  *v = (tern_value){.kind = (uint8_t)kind, .dtype = (uint16_t)dtype, .rank = (uint16_t)rank, .alias = -1};
  for (uint32_t d = 0; d < rank; d++) v->shape[d] = shape[d];
  return b->region.n_values++;
}

static uint32_t new_arg(region_builder *b, uint32_t dtype, int64_t count, int64_t origin) {
  if (b->region.n_args == RB_MAX_ARGS) full("arguments");
  rb_arg *a = &b->args[b->region.n_args];
  *a = (rb_arg){.dtype = dtype, .count = count, .origin = origin, .data = calloc((size_t)count, nest_item_size(dtype))};
  if (!a->data) full("bytes");
  return b->region.n_args++;
}

static tern_word number(uint32_t dtype, double x) {
  if (dtype >= TERN_F16) return eval_fit(dtype, (tern_word){.f = x});
  return eval_fit(dtype, (tern_word){.i = (int64_t)x});
}

/* A stride: innermost 0 and 1 stay literals, others mostly become words */
static int64_t stride_of(region_builder *b, int64_t s, bool inner) {
  if ((inner && (s == 0 || s == 1)) || rb_random(b) % 4 == 0) return s;
  return rb_sym(b, s);
}

uint32_t rb_in_range(region_builder *b, uint32_t dtype, uint32_t rank, const int64_t *shape, int layout, double lo,
                     double hi) {
  const uint32_t v = new_value(b, TERN_V_IN, dtype, rank, shape);
  int64_t stride[TERN_MAX_RANK], count = 1, origin = 0;
  uint32_t order[TERN_MAX_RANK];
  for (uint32_t d = 0; d < rank; d++) order[d] = d;
  if (layout == RB_PERMUTED && rank > 1) {
    const uint32_t k = (uint32_t)(rb_random(b) % (rank - 1));
    order[k] = rank - 1;
    order[rank - 1] = k;
  }
  const uint32_t skip = layout == RB_BROADCAST && rank ? (uint32_t)(rb_random(b) % rank) : 99;
  for (uint32_t k = rank; k-- > 0;) {
    const uint32_t d = order[k];
    const int64_t n = TERN_LIT(shape[d], b->words);
    stride[d] = d == skip ? 0 : count;
    count *= d == skip ? 1 : n + (layout == RB_PADDED ? 3 : 0);
  }
  if (layout == RB_REVERSED && rank) {
    const uint32_t d = (uint32_t)(rb_random(b) % rank);
    origin = (TERN_LIT(shape[d], b->words) - 1) * stride[d];
    stride[d] = -stride[d];
  }
  for (uint32_t d = 0; d < rank; d++)
    b->values[v].stride[d] = shape[d] == 1 ? 0 : stride_of(b, stride[d], d == rank - 1);
  b->values[v].slot = new_arg(b, dtype, count, origin);
  rb_arg *a = &b->args[b->values[v].slot];
  for (int64_t i = 0; i < count; i++) {
    const double x = lo + (hi - lo) * (double)(rb_random(b) % 100003) / 100003;
    eval_store(a->data, i, dtype, number(dtype, b->exact ? (double)(int64_t)(x * 1.5) : x));
  }
  return v;
}

uint32_t rb_in(region_builder *b, uint32_t dtype, uint32_t rank, const int64_t *shape, int layout) {
  const bool is_signed = dtype >= TERN_F16 || (dtype >= TERN_I8 && dtype <= TERN_I64);
  const double end = dtype >= TERN_F16 ? 2 : dtype == TERN_BOOL ? 2 : 100;
  return rb_in_range(b, dtype, rank, shape, layout, is_signed ? -end : 0, end);
}

uint32_t rb_const(region_builder *b, uint32_t dtype, double x) {
  const uint32_t v = new_value(b, TERN_V_CONST, dtype, 0, NULL);
  b->values[v].imm = number(dtype, x);
  return v;
}

uint32_t rb_param(region_builder *b, uint32_t dtype, double x) {
  const uint32_t v = new_value(b, TERN_V_PARAM, dtype, 0, NULL);
  b->values[v].slot = TERN_SYM_ID(new_word(b, number(dtype, x)));
  return v;
}

uint32_t rb_size(region_builder *b, uint32_t dtype, uint32_t of, uint64_t dims) {
  const uint32_t v = new_value(b, TERN_V_SIZE, dtype, 0, NULL);
  b->values[v].slot = of;
  b->values[v].imm.u = dims;
  return v;
}

uint32_t rb_view(region_builder *b, uint32_t of, uint32_t rank, const int64_t *shape, const int64_t *stride,
                 int64_t offset) {
  const uint32_t v = new_value(b, TERN_V_VIEW, b->values[of].dtype, rank, shape);
  memcpy(b->values[v].stride, stride, rank * sizeof *stride);
  b->values[v].slot = of;
  b->values[v].offset = rb_random(b) % 2 ? offset : rb_sym(b, offset);
  return v;
}

static uint32_t new_node(region_builder *b, uint32_t op, const uint32_t *in, uint32_t n_in, uint32_t out) {
  if (b->region.n_nodes == RB_MAX_NODES || b->n_edges + n_in + 1 > RB_MAX_EDGES) full("nodes");
  tern_node *n = &b->nodes[b->region.n_nodes];
  *n = (tern_node){.op = op, .n_in = n_in, .n_out = 1, .in = b->n_edges, .out = b->n_edges + n_in, .attr = b->n_attrs};
  for (uint32_t i = 0; i < n_in; i++) b->edges[b->n_edges++] = in[i];
  b->edges[b->n_edges++] = out;
  return b->region.n_nodes++;
}

static void add_attr(region_builder *b, uint32_t node, int64_t x) {
  b->attrs[b->n_attrs++].i = x;
  b->nodes[node].n_attr++;
}

uint32_t rb_map(region_builder *b, uint32_t op, uint32_t x, uint32_t y, uint32_t z) {
  const uint32_t in[3] = {x, y, z}, n = nest_prim_of(op)->n_in;
  uint32_t dtype = b->values[op == TERN_OP_WHERE ? y : x].dtype, rank = 0;
  if ((op >= TERN_OP_EQ && op <= TERN_OP_GE) || (op >= TERN_OP_ISNAN && op <= TERN_OP_SIGNBIT)) dtype = TERN_BOOL;
  int64_t shape[TERN_MAX_RANK] = {0};
  for (uint32_t i = 0; i < n; i++) {
    const tern_value *v = &b->values[in[i]];
    if (v->rank && !rank) memcpy(shape, v->shape, sizeof shape);
    for (uint32_t d = 0; d < v->rank; d++)
      if (v->shape[d] != 1) shape[d] = v->shape[d];
    if (v->rank) rank = v->rank;
  }
  const uint32_t out = new_value(b, TERN_V_TEMP, dtype, rank, shape);
  new_node(b, op, in, n, out);
  return out;
}

uint32_t rb_cast(region_builder *b, uint32_t a, uint32_t dtype) {
  const uint32_t out = rb_map(b, TERN_OP_CAST, a, RB_NONE, RB_NONE);
  b->values[out].dtype = (uint16_t)dtype;
  return out;
}

uint32_t rb_reduce(region_builder *b, uint32_t op, uint32_t a, uint64_t dims) {
  const tern_value *v = &b->values[a];
  int64_t shape[TERN_MAX_RANK];
  for (uint32_t d = 0; d < v->rank; d++) shape[d] = dims >> d & 1 ? 1 : v->shape[d];
  const uint32_t dtype = op == TERN_OP_ARGMAX || op == TERN_OP_ARGMIN ? TERN_I64 : v->dtype;
  const uint32_t out = new_value(b, TERN_V_TEMP, dtype, v->rank, shape);
  add_attr(b, new_node(b, op, &a, 1, out), (int64_t)dims);
  return out;
}

uint32_t rb_iota(region_builder *b, uint32_t dtype, uint32_t rank, const int64_t *shape, uint32_t dim) {
  const uint32_t out = new_value(b, TERN_V_TEMP, dtype, rank, shape);
  add_attr(b, new_node(b, TERN_OP_IOTA, NULL, 0, out), dim);
  return out;
}

uint32_t rb_rng(region_builder *b, uint32_t rank, const int64_t *shape, uint32_t stream) {
  const uint32_t key = rb_param(b, TERN_U64, 0), counter = rb_param(b, TERN_U64, 0);
  b->words[b->values[key].slot].u = rb_random(b) << 17 ^ rb_random(b);
  b->words[b->values[counter].slot].u = 0xfffffffeu; /* carries into the high half */
  const uint32_t out = new_value(b, TERN_V_TEMP, TERN_U32, rank, shape);
  add_attr(b, new_node(b, TERN_OP_RNG, (uint32_t[]){key, counter}, 2, out), stream);
  return out;
}

int64_t rb_count(const region_builder *b, uint32_t v) {
  int64_t n = 1;
  for (uint32_t d = 0; d < b->values[v].rank; d++) n *= TERN_LIT(b->values[v].shape[d], b->words);
  return n;
}

static void dense_strides(region_builder *b, tern_value *v) {
  int64_t count = 1;
  for (uint32_t d = v->rank; d-- > 0;) {
    v->stride[d] = v->shape[d] == 1 ? 0 : stride_of(b, count, d == v->rank - 1u);
    count *= TERN_LIT(v->shape[d], b->words);
  }
}

void rb_out(region_builder *b, uint32_t v) {
  tern_value *val = &b->values[v];
  val->kind = TERN_V_OUT;
  dense_strides(b, val);
  val->slot = new_arg(b, val->dtype, rb_count(b, v), 0);
  memset(b->args[val->slot].data, 0x5a, (size_t)b->args[val->slot].count * nest_item_size(val->dtype));
}

void rb_out_alias(region_builder *b, uint32_t v, uint32_t arg, uint32_t like) {
  tern_value *val = &b->values[v];
  val->kind = TERN_V_OUT;
  val->alias = (int32_t)arg;
  if (like == RB_NONE)
    dense_strides(b, val);
  else
    memcpy(val->stride, b->values[like].stride, sizeof val->stride);
  if (b->region.n_args == RB_MAX_ARGS) full("arguments");
  val->slot = b->region.n_args++; /* no memory of its own: rb_copy_args shares the donor's */
  b->args[val->slot] = (rb_arg){.dtype = val->dtype, .origin = like == RB_NONE ? 0 : b->args[arg].origin};
}

bool rb_copy_args(const region_builder *b, unsigned char **storage, void **args) {
  bool ok = true;
  for (uint32_t i = 0; i < b->region.n_args; i++) {
    const rb_arg *a = &b->args[i];
    const size_t bytes = (size_t)a->count * nest_item_size(a->dtype);
    storage[i] = a->data ? malloc(bytes) : NULL;
    if (storage[i]) memcpy(storage[i], a->data, bytes);
    ok = ok && (storage[i] || !a->data);
    args[i] = storage[i] ? storage[i] + (size_t)a->origin * nest_item_size(a->dtype) : NULL;
  }
  for (uint32_t v = 0; v < b->region.n_values; v++) {
    const tern_value *val = &b->values[v];
    if (val->kind != TERN_V_OUT || val->alias < 0) continue;
    args[val->slot] = storage[val->alias] + (size_t)b->args[val->slot].origin * nest_item_size(val->dtype);
  }
  return ok;
}

/* ---- random regions ---- */

static const uint32_t float_ops1[] = {TERN_OP_NEG,  TERN_OP_ABS,   TERN_OP_TANH, TERN_OP_SIN,
                                      TERN_OP_SIGN, TERN_OP_FLOOR, TERN_OP_COPY, TERN_OP_ATAN};
static const uint32_t exact_ops1[] = {TERN_OP_NEG,  TERN_OP_ABS,   TERN_OP_ROUND, TERN_OP_TRUNC,
                                      TERN_OP_SIGN, TERN_OP_FLOOR, TERN_OP_COPY,  TERN_OP_CEIL};
static const uint32_t ops2[] = {TERN_OP_ADD, TERN_OP_SUB, TERN_OP_MUL, TERN_OP_MAXIMUM, TERN_OP_MINIMUM};

static bool is_bool(const region_builder *b, uint32_t v) { return b->values[v].dtype == TERN_BOOL; }

static bool compatible(const region_builder *b, uint32_t x, uint32_t y) {
  const tern_value *a = &b->values[x], *c = &b->values[y];
  if (a->dtype != c->dtype) return false;
  if (!a->rank || !c->rank) return true;
  if (a->rank != c->rank) return false;
  for (uint32_t d = 0; d < a->rank; d++)
    if (a->shape[d] != c->shape[d] && a->shape[d] != 1 && c->shape[d] != 1) return false;
  return true;
}

static uint32_t random_map(region_builder *b, const uint32_t *pool, uint32_t n_pool, uint32_t x) {
  const uint32_t dtype = b->values[x].dtype;
  uint32_t y = RB_NONE;
  for (int k = 0; k < 8 && y == RB_NONE; k++) {
    const uint32_t c = pool[rb_random(b) % n_pool];
    if (compatible(b, x, c) && (b->values[x].rank || b->values[c].rank)) y = c;
  }
  if (is_bool(b, x)) return rb_cast(b, x, rb_random(b) % 2 ? TERN_F32 : TERN_I32);
  const uint64_t pick = rb_random(b) % 10;
  if (y != RB_NONE && pick < 5) return rb_map(b, ops2[rb_random(b) % 5], x, y, RB_NONE);
  if (y != RB_NONE && pick < 7) return rb_map(b, TERN_OP_WHERE, rb_map(b, TERN_OP_LT, x, y, RB_NONE), x, y);
  if (pick == 7) return rb_cast(b, x, dtype == TERN_F32 ? (rb_random(b) % 2 ? TERN_F16 : TERN_I32) : TERN_F32);
  if (dtype >= TERN_F16) return rb_map(b, (b->exact ? exact_ops1 : float_ops1)[rb_random(b) % 8], x, RB_NONE, RB_NONE);
  return rb_map(b, rb_random(b) % 2 ? TERN_OP_NEG : TERN_OP_ABS, x, RB_NONE, RB_NONE);
}

static uint32_t random_reduce(region_builder *b, uint32_t x, uint64_t usual) {
  static const uint32_t ops[] = {TERN_OP_SUM, TERN_OP_AMAX, TERN_OP_SUM, TERN_OP_AMIN, TERN_OP_ARGMAX};
  const uint32_t rank = b->values[x].rank;
  uint64_t dims = rb_random(b) % 4 ? usual : rb_random(b) % ((1u << rank) - 1) + 1;
  if (!(dims & ((1u << rank) - 1))) dims = 1;
  if (is_bool(b, x)) return rb_reduce(b, rb_random(b) % 2 ? TERN_OP_ANY : TERN_OP_ALL, x, dims);
  const uint32_t r = rb_reduce(b, ops[rb_random(b) % 5], x, dims);
  return b->values[r].dtype == TERN_I64 ? rb_cast(b, r, b->values[x].dtype) : r;
}

/* A permuted view of a computed value or an input that is dense */
static uint32_t random_view(region_builder *b, uint32_t x) {
  const tern_value *v = &b->values[x];
  int64_t dense[TERN_MAX_RANK], shape[TERN_MAX_RANK], stride[TERN_MAX_RANK], count = 1;
  for (uint32_t d = v->rank; d-- > 0;) {
    dense[d] = v->shape[d] == 1 ? 0 : count;
    count *= TERN_LIT(v->shape[d], b->words);
  }
  const uint32_t turn = (uint32_t)(rb_random(b) % v->rank);
  for (uint32_t d = 0; d < v->rank; d++) {
    const uint32_t from = (d + turn) % v->rank;
    shape[d] = v->shape[from];
    stride[d] = stride_of(b, dense[from], d == v->rank - 1u);
  }
  return rb_view(b, x, v->rank, shape, stride, 0);
}

static bool may_view(const region_builder *b, uint32_t x, const uint8_t *dense_in) {
  const tern_value *v = &b->values[x];
  return v->rank && (v->kind == TERN_V_TEMP || (v->kind == TERN_V_IN && dense_in[x]));
}

static void random_outs(region_builder *b, const uint32_t *made, uint32_t n_made, const uint32_t *ins, uint32_t n_ins) {
  uint32_t n_out = 0;
  uint8_t taken[RB_MAX_ARGS] = {0};
  for (uint32_t k = n_made; k-- > 0;) {
    const uint32_t v = made[k];
    if (b->values[v].kind != TERN_V_TEMP || !b->values[v].rank || (n_out && rb_random(b) % 4)) continue;
    if (n_out++ == 4) return;
    uint32_t donor = RB_NONE;
    bool viewed = false;
    for (uint32_t w = 0; w < b->region.n_values; w++)
      viewed = viewed || (b->values[w].kind == TERN_V_VIEW && b->values[w].slot == v);
    for (uint32_t i = 0; i < n_ins && !viewed && donor == RB_NONE; i++) {
      const tern_value *in = &b->values[ins[i]], *out = &b->values[v];
      const bool fits = in->rank == out->rank && !memcmp(in->shape, out->shape, in->rank * sizeof *in->shape) &&
                        nest_item_size(in->dtype) == nest_item_size(out->dtype) && !taken[in->slot] &&
                        b->args[in->slot].count >= rb_count(b, v);
      if (fits && rb_random(b) % 3) donor = ins[i];
    }
    if (donor == RB_NONE) {
      rb_out(b, v);
      continue;
    }
    taken[b->values[donor].slot] = 1;
    rb_out_alias(b, v, b->values[donor].slot, rb_random(b) % 4 ? donor : RB_NONE);
  }
}

void rb_random_region(region_builder *b, uint64_t seed, bool exact) {
  rb_init(b, "random", seed);
  b->exact = exact;
  snprintf(b->name, sizeof b->name, "random %llu", (unsigned long long)seed);
  const uint32_t rank = rb_random(b) % 12 == 0 ? 5 + (uint32_t)(rb_random(b) % 4) : 1 + (uint32_t)(rb_random(b) % 4);
  int64_t full_shape[TERN_MAX_RANK], choice[3];
  for (int k = 0; k < 3; k++) {
    const int64_t n = 1 + (int64_t)(rb_random(b) % (rank > 4 ? 3 : rank > 2 ? 6 : 40));
    choice[k] = rb_random(b) % 4 && n > 1 ? rb_sym(b, n) : n;
  }
  for (uint32_t d = 0; d < rank; d++) full_shape[d] = choice[rb_random(b) % 3];
  uint32_t pool[RB_MAX_VALUES], n_pool = 0, ins[8], n_ins = 1 + (uint32_t)(rb_random(b) % 4), made[RB_MAX_VALUES],
                                n_made = 0;
  uint8_t dense_in[RB_MAX_VALUES] = {0};
  for (uint32_t i = 0; i < n_ins; i++) {
    int64_t shape[TERN_MAX_RANK];
    for (uint32_t d = 0; d < rank; d++) shape[d] = i && rb_random(b) % 4 == 0 ? 1 : full_shape[d];
    const uint32_t dtypes[] = {TERN_F32, TERN_F32, TERN_F32, TERN_I32, TERN_F16, TERN_F64};
    const int layout = rb_random(b) % 2 ? RB_DENSE : (int)(rb_random(b) % RB_LAYOUTS);
    ins[i] = pool[n_pool++] = rb_in(b, dtypes[i ? rb_random(b) % 6 : 0], rank, shape, layout);
    dense_in[ins[i]] = layout == RB_DENSE;
  }
  if (rb_random(b) % 2) pool[n_pool++] = rb_param(b, TERN_F32, 0.75);
  if (rb_random(b) % 2) pool[n_pool++] = rb_const(b, TERN_F32, -1.5);
  if (rb_random(b) % 3 == 0) pool[n_pool++] = rb_size(b, TERN_F32, ins[0], 1);
  if (rb_random(b) % 3 == 0) pool[n_pool++] = rb_iota(b, TERN_F32, rank, full_shape, (uint32_t)(rb_random(b) % rank));
  if (rb_random(b) % 6 == 0) pool[n_pool++] = rb_cast(b, rb_rng(b, rank, full_shape, 3), TERN_F32);
  const uint64_t usual = rb_random(b) % ((1u << rank) - 1) + 1;
  const uint32_t steps = 1 + (uint32_t)(rb_random(b) % 24);
  for (uint32_t k = 0; k < steps; k++) {
    const uint32_t back = n_pool > 6 && rb_random(b) % 2 ? 4 : n_pool; /* often something recent */
    const uint32_t x = pool[n_pool - 1 - rb_random(b) % back];
    const uint64_t what = rb_random(b) % 12;
    if (what == 0 && may_view(b, x, dense_in))
      pool[n_pool++] = random_view(b, x);
    else {
      const bool reduce = what < 4 && b->values[x].rank;
      const uint32_t v = reduce ? random_reduce(b, x, usual) : random_map(b, pool, n_pool, x);
      pool[n_pool++] = made[n_made++] = v;
    }
  }
  random_outs(b, made, n_made, ins, n_ins);
  bool any = false;
  for (uint32_t v = 0; v < b->region.n_values; v++) any = any || b->values[v].kind == TERN_V_OUT;
  if (any) return;
  rb_out(b, rb_map(b, TERN_OP_COPY, ins[0], RB_NONE, RB_NONE));
}
