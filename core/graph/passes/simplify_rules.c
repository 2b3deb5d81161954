/* The sweep that applies the rule table, and what rules are written with. Rules change a node in place or let another
   value stand for its value, so the order of the nodes holds; what they add goes where it belongs at the end. */
#include "base/alloc.h"
#include "device/device.h"
#include "graph/passes/simplify_parts.h"
#include <math.h>
#include <stdlib.h>
#include <tern/ops.h>

enum { MOST_APPLICATIONS = 8, MOST_VIEWS = 16, MOST_ELEMENTS = 64 };

bool tern__same_shape(const tern__ir_value *a, const tern__ir_value *b) {
  return a->rank == b->rank && !memcmp(a->shape, b->shape, a->rank * sizeof *a->shape);
}

bool tern__same_type(const tern__ir_value *a, const tern__ir_value *b) {
  return a->dtype == b->dtype && a->weak == b->weak && a->device == b->device && tern__same_shape(a, b);
}

/* Sizes that vary are stood for by numbers from 2^24 on, and what is computed from them lies below 2^60 (dims.h);
   reading them back exactly is dear, and large numbers are rare. */
bool tern__varies(int64_t size) {
  const int64_t least = INT64_C(1) << 24, most = INT64_C(1) << 60;
  return (size >= least && size < most) || (size <= -least && size > -most);
}

/* Scalars made of sizes are whole, or 1 or 2 over what is whole. */
bool tern__varies_word(tern_word w, tern_dtype d) {
  if (!tern__is_float(d)) return tern__varies(w.i);
  const double x = fabs(w.f);
  return (x >= 0x1p24 && x < 0x1p60 && x == trunc(x)) || (x <= 0x1p-23 && x > 0x1p-60);
}

bool tern__dense_strides(int rank, const int64_t *shape, const int64_t *stride) {
  int64_t step = 1;
  for (int d = rank; d-- > 0;) {
    if (shape[d] != 1 && stride[d] != step) return false;
    if (__builtin_mul_overflow(step, shape[d], &step)) return false;
  }
  return true;
}

/* ---- numbers ---- */

/* The one number that all elements of an eager tensor are; reads at most MOST_ELEMENTS. */
static bool uniform_tensor(tern_tensor *t, tern_word *w) {
  if (t->numel < 1 || t->numel > MOST_ELEMENTS) return false;
  if (t->flags & TERN__WEAK) {
    *w = t->imm;
    return true;
  }
  char data[MOST_ELEMENTS * 8];
  const size_t item = tern__dtype_size[t->dtype], bytes = (size_t)t->numel * item;
  if (t->numel == 1 && t->storage->host && !t->device->queue)
    memcpy(data, t->storage->host + t->offset * (int64_t)item, item);
  else if (tern_to_host(t, data, bytes))
    return false;
  for (int64_t i = 1; i < t->numel; i++)
    if (memcmp(data, data + (size_t)i * item, item)) return false;
  *w = tern__load((tern_dtype)t->dtype, data);
  return true;
}

bool tern__uniform(const tern__graph *g, uint32_t v, tern_word *w, tern_dtype *d) {
  for (int depth = 0; depth < MOST_VIEWS; depth++) {
    const tern__ir_node *n = tern__maker(g, v);
    *d = (tern_dtype)g->value[v].dtype;
    if (n->kind == TERN__IR_SCALAR) {
      *w = n->attr[0];
      return true;
    }
    if (n->kind == TERN__IR_CONST) return uniform_tensor(n->tensor, w);
    if (n->kind != TERN__IR_OP) return false;
    if (n->op == &tern__op_full) {
      *w = n->attr[n->attr[0].i + 2];
      return true;
    }
    if (!tern__ir_is_view(n) || g->value[n->in[0]].weak) return false;
    v = n->in[0];
  }
  return false;
}

bool tern__is_number(const tern__graph *g, uint32_t v, tern_dtype d, double x) {
  tern_word w;
  tern_dtype from;
  if (!tern__uniform(g, v, &w, &from)) return false;
  const double y = tern__word_double(tern__convert(w, from, d), d);
  return y == x && (x != 0 || !tern__is_float(d) || !signbit(x) == !signbit(y));
}

/* ---- what rules do ---- */

static bool fail(tern__rewrite *r) {
  r->failed = true;
  return false;
}

bool tern__stand_in(tern__rewrite *r, uint32_t i, uint32_t value) {
  tern__graph *g = r->g;
  const uint32_t own = g->node[i].first_out;
  tern__ir_value *from = &g->value[own], *to = &g->value[value];
  if (own == value || !tern__same_type(from, to)) return false;
  r->map[own] = value;
  r->uses[value] += r->uses[own];
  if (from->name && !to->name) {
    to->name = from->name;
    from->name = NULL;
  }
  return true;
}

bool tern__become(tern__rewrite *r, uint32_t i, const tern__op *op, const uint32_t *in, uint32_t n_in,
                  const tern_word *attr, uint32_t n_attr) {
  uint32_t *operands = tern__graph_alloc(r->g, n_in, sizeof *operands);
  tern_word *words = tern__graph_alloc(r->g, n_attr, sizeof *words);
  if (!operands || !words) return fail(r);
  for (uint32_t k = 0; k < n_in; k++) {
    operands[k] = in[k];
    if (in[k] != TERN__IR_NONE) r->uses[in[k]]++;
  }
  if (n_attr) memcpy(words, attr, n_attr * sizeof *attr);
  tern__ir_node *n = &r->g->node[i];
  for (uint32_t k = 0; k < n->n_in; k++)
    if (n->in[k] != TERN__IR_NONE) r->uses[n->in[k]]--;
  n->op = op;
  n->in = operands;
  n->n_in = n_in;
  n->attr = words;
  n->n_attr = (uint16_t)n_attr;
  return true;
}

bool tern__become_full(tern__rewrite *r, uint32_t i, tern_word w) {
  const tern__ir_value *v = &r->g->value[r->g->node[i].first_out];
  tern_word attr[TERN_MAX_RANK + 3];
  if (v->weak) return false;
  attr[0].i = v->rank;
  for (int d = 0; d < v->rank; d++) attr[d + 1].i = v->shape[d];
  attr[v->rank + 1].i = v->dtype;
  attr[v->rank + 2] = w;
  return tern__become(r, i, &tern__op_full, NULL, 0, attr, v->rank + 3u);
}

bool tern__become_number(tern__rewrite *r, uint32_t i, int x) {
  const tern_dtype d = (tern_dtype)r->g->value[r->g->node[i].first_out].dtype;
  return tern__become_full(r, i, tern__is_float(d) ? (tern_word){.f = x} : (tern_word){.i = x});
}

/* Room for the newest node and its one value in the sweep's arrays. */
static bool keep_up(tern__rewrite *r, uint32_t before) {
  tern__graph *g = r->g;
  if (g->n_values > r->capacity) {
    const uint32_t capacity = 2 * g->n_values;
    uint32_t *map = tern__realloc(r->map, capacity * sizeof *map);
    if (map) r->map = map;
    uint32_t *uses = tern__realloc(r->uses, capacity * sizeof *uses);
    if (uses) r->uses = uses;
    if (!map || !uses) return false;
    r->capacity = capacity;
  }
  const uint32_t added = g->n_nodes - r->first_new;
  if (added > r->before_capacity) {
    const uint32_t capacity = 2 * added + 16;
    uint32_t *list = tern__realloc(r->before, capacity * sizeof *list);
    if (!list) return false;
    r->before = list;
    r->before_capacity = capacity;
  }
  r->before[added - 1] = before;
  r->map[g->n_values - 1] = g->n_values - 1;
  r->uses[g->n_values - 1] = 0;
  return true;
}

/* A node was added that the sweep's arrays have no room for: it is left out. */
static uint32_t give_up(tern__rewrite *r) {
  tern__graph *g = r->g;
  tern__fail(TERN_E_OOM, "simplify: out of host memory");
  r->failed = true;
  g->n_nodes--;
  g->n_values--;
  return TERN__IR_NONE;
}

uint32_t tern__new_scalar(tern__rewrite *r, tern_dtype d, tern_word w) {
  tern__graph *g = r->g;
  const uint32_t at = tern__graph_add(g, TERN__IR_SCALAR, NULL, NULL, 0, &w, 1, 1);
  if (at == TERN__IR_NONE) {
    r->failed = true;
    return at;
  }
  tern__ir_value *v = &g->value[g->node[at].first_out];
  v->dtype = (uint8_t)d;
  v->weak = true;
  return keep_up(r, 0) ? g->node[at].first_out : give_up(r);
}

uint32_t tern__new_node(tern__rewrite *r, uint32_t i, const tern__op *op, uint32_t in, int rank, const int64_t *shape) {
  tern__graph *g = r->g;
  const uint32_t at = tern__graph_add(g, TERN__IR_OP, op, &in, 1, NULL, 0, 1);
  if (at == TERN__IR_NONE) {
    r->failed = true;
    return at;
  }
  tern__ir_value *v = &g->value[g->node[at].first_out];
  v->dtype = g->value[in].dtype;
  v->device = g->value[in].device;
  v->rank = (uint8_t)rank;
  for (int d = 0; d < rank; d++) v->shape[d] = shape[d];
  g->node[at].device = g->node[i].device;
  g->node[at].again = g->node[i].again;
  if (!keep_up(r, i)) return give_up(r);
  r->uses[in]++;
  return g->node[at].first_out;
}

/* ---- the sweep ---- */

static bool begin(tern__rewrite *r) {
  const tern__graph *g = r->g;
  r->capacity = g->n_values + 64;
  r->map = tern__calloc(r->capacity, sizeof *r->map);
  r->uses = tern__calloc(r->capacity, sizeof *r->uses);
  if (!r->map || !r->uses) return false;
  for (uint32_t v = 0; v < g->n_values; v++) r->map[v] = v;
  tern__graph_count_uses(g, r->uses);
  return true;
}

/* Whether a rule did something to node i that is not finished: the node has another form now. */
static bool apply(tern__rewrite *r, uint32_t i) {
  const tern__identity *rule = tern__rules_of(r->g->node[i].op);
  const uint32_t own = r->g->node[i].first_out;
  for (; rule && *rule && !r->failed; rule++) {
    if (!(*rule)(r, i)) continue;
    r->changed = true;
    return r->map[own] == own;
  }
  return false;
}

tern_rc tern__simplify_rewrite(tern__graph *g, const tern__simplify_opts *opts, bool *changed) {
  tern__rewrite r = {.g = g, .fast_math = opts && opts->fast_math, .first_new = g->n_nodes};
  tern_rc rc = begin(&r) ? TERN_OK : tern__fail(TERN_E_OOM, "simplify: out of host memory");
  for (uint32_t i = 0; i < r.first_new && !rc; i++) {
    tern__ir_node *n = &g->node[i];
    if (n->kind == TERN__IR_DEAD) continue;
    for (uint32_t k = 0; k < n->n_in; k++)
      if (n->in[k] != TERN__IR_NONE) n->in[k] = r.map[n->in[k]];
    if (n->kind != TERN__IR_OP || n->n_out != 1) continue;
    for (int k = 0; k < MOST_APPLICATIONS && apply(&r, i);) k++;
    if (r.failed) rc = TERN_E_OOM;
  }
  if (r.map && r.uses && r.changed) {
    for (uint32_t v = 0; v < g->n_values; v++)
      while (r.map[v] != r.map[r.map[v]]) r.map[v] = r.map[r.map[v]];
    tern__graph_replace_all(g, r.map);
    *changed = true;
  }
  if (g->n_nodes > r.first_new) {
    const tern_rc settled = tern__graph_settle(g, r.first_new, r.before);
    if (!rc) rc = settled;
  }
  free(r.map);
  free(r.uses);
  free(r.before);
  return rc;
}

/* ---- order ---- */

tern_rc tern__graph_settle(tern__graph *g, uint32_t first_new, const uint32_t *before) {
  const uint32_t n = g->n_nodes;
  uint32_t *start = tern__calloc(first_new + 2u, sizeof *start), *number = tern__calloc(n + 1u, sizeof *number);
  tern_rc rc;
  if (start && number) {
    /* start[b]: where the nodes that go before b begin */
    for (uint32_t k = first_new; k < n; k++) start[before[k - first_new] + 1]++;
    for (uint32_t b = 0; b < first_new; b++) start[b + 1] += start[b] + 1;
    for (uint32_t k = first_new; k < n; k++) number[k] = start[before[k - first_new]]++;
    for (uint32_t b = 0; b < first_new; b++) number[b] = start[b];
    rc = tern__graph_permute(g, number);
  } else {
    rc = tern__fail(TERN_E_OOM, "simplify: out of host memory");
  }
  free(start);
  free(number);
  return rc;
}
