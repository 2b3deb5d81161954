/* See again.h. Time is counted in bytes that nodes make. A value is made again where it would wait while several times
   its own size is made, and where an elementwise op of its shape reads the operand at that time anyway: fusion puts the
   two into one launch. */
#include "graph/passes/again.h"
#include "base/alloc.h"
#include "graph/passes/simplify_parts.h"
#include <stdlib.h>

enum {
  LEAST_BYTES = 256 << 10,
  LONG = 4, /* times its size is made while a value waits */
  NEAR = 2  /* .. at most between its late use and the other reader of its operand */
};

typedef struct again {
  tern__graph *g;
  uint32_t n_nodes, n_values; /* before */
  uint32_t *base;             /* of each value: what it is a view of, or itself */
  uint32_t *first, *reader;   /* of each base: nodes, no views, that read it, in order; an entry an operand */
  bool *result;               /* bases that results or variables at their end show */
  uint64_t *made;             /* bytes made before each node */
  uint32_t *copy, *before;    /* of each value: its copy for the one in question; of each new node: its place */
  uint32_t n_new, capacity;
} again;

static bool is_view(const again *a, uint32_t node) { return tern__ir_is_view(&a->g->node[node]); }

/* Room for everything, and who reads what. */
static bool prepare(again *a) {
  const tern__graph *g = a->g;
  const uint32_t n = a->n_values = g->n_values, m = a->n_nodes = g->n_nodes;
  uint32_t total = 0;
  for (uint32_t i = 0; i < m; i++) total += g->node[i].n_in;
  a->base = tern__calloc(n + 1u, sizeof *a->base);
  a->first = tern__calloc(n + 2u, sizeof *a->first);
  a->reader = tern__calloc(total + 1u, sizeof *a->reader);
  a->result = tern__calloc(n + 1u, sizeof *a->result);
  a->made = tern__calloc(m + 1u, sizeof *a->made);
  a->copy = tern__calloc(n + 1u, sizeof *a->copy);
  if (!a->base || !a->first || !a->reader || !a->result || !a->made || !a->copy) return false;
  for (uint32_t i = 0; i < m; i++) {
    const tern__ir_node *node = &g->node[i];
    const bool view = is_view(a, i);
    a->made[i + 1] = a->made[i];
    for (uint32_t o = 0; o < node->n_out; o++) {
      a->base[node->first_out + o] = view ? a->base[node->in[0]] : node->first_out + o;
      if (node->kind == TERN__IR_OP && !view) a->made[i + 1] += tern__ir_bytes(&g->value[node->first_out + o]);
    }
    for (uint32_t k = 0; k < node->n_in && !view; k++)
      if (node->in[k] != TERN__IR_NONE) a->first[a->base[node->in[k]] + 2]++;
  }
  for (uint32_t v = 0; v < n; v++) a->first[v + 2] += a->first[v + 1];
  for (uint32_t i = 0; i < m; i++)
    for (uint32_t k = 0; k < g->node[i].n_in && !is_view(a, i); k++)
      if (g->node[i].in[k] != TERN__IR_NONE) a->reader[a->first[a->base[g->node[i].in[k]] + 1]++] = i;
  for (uint32_t o = 0; o < g->n_outputs; o++)
    if (g->output[o] != TERN__IR_NONE) a->result[a->base[g->output[o]]] = true;
  for (uint32_t v = 0; v < g->n_variables; v++) a->result[a->base[g->variable[v].value]] = true;
  return true;
}

static bool is_map(const tern__ir_node *n) {
  return n->kind == TERN__IR_OP && n->op && !n->op->draws && n->n_out == 1 && tern__op_facts(n->op) & TERN__OP_MAP;
}

/* Elementwise, or the gradient of what is. */
static bool is_beside(const tern__ir_node *n) {
  return is_map(n) || (n->kind == TERN__IR_OP && (n->op == &tern__op_gelu_grad || n->op == &tern__op_silu_grad));
}

/* The array that an elementwise node makes its result of; TERN__IR_NONE: there is not just one. */
static uint32_t operand_of(const again *a, const tern__ir_node *n) {
  uint32_t x = TERN__IR_NONE;
  if (!is_map(n) || n->again) return x;
  for (uint32_t k = 0; k < n->n_in; k++) {
    if (n->in[k] == TERN__IR_NONE || a->g->value[n->in[k]].weak) continue;
    if (x != TERN__IR_NONE) return TERN__IR_NONE;
    x = n->in[k];
  }
  if (x == TERN__IR_NONE || a->base[x] != x) return TERN__IR_NONE;
  const tern__ir_value *from = &a->g->value[x], *to = &a->g->value[n->first_out];
  return a->g->node[from->node].kind == TERN__IR_OP && tern__same_shape(from, to) && from->dtype == to->dtype
             ? x
             : TERN__IR_NONE;
}

static uint64_t between(const again *a, uint32_t from, uint32_t to) {
  return from < to ? a->made[to] - a->made[from] : a->made[from] - a->made[to];
}

/* The node from which on value v, made of x, is to be a new one; TERN__IR_NONE: v may wait. */
static uint32_t late_use(const again *a, uint32_t v, uint32_t x) {
  const tern__graph *g = a->g;
  const uint64_t bytes = tern__ir_bytes(&g->value[v]);
  uint64_t longest = 0;
  uint32_t late = TERN__IR_NONE;
  if (bytes < LEAST_BYTES || a->result[v]) return TERN__IR_NONE;
  for (uint32_t k = a->first[v]; k + 1 < a->first[v + 1]; k++) {
    const uint64_t gap = between(a, a->reader[k] + 1, a->reader[k + 1]);
    if (a->reader[k] == a->reader[k + 1] || gap < LONG * bytes || gap <= longest) continue;
    longest = gap;
    late = a->reader[k + 1];
  }
  const uint32_t n = a->first[x + 1] - a->first[x], last = n ? a->reader[a->first[x + 1] - 1] : 0;
  if (late == TERN__IR_NONE || !n || between(a, last, late) > NEAR * bytes || !is_beside(&g->node[last]) ||
      !tern__same_shape(&g->value[v], &g->value[g->node[last].first_out]))
    return TERN__IR_NONE;
  return late;
}

/* A copy of the node that makes a value, over operands in[]. */
static uint32_t repeat(again *a, uint32_t value, const uint32_t *in, uint32_t before) {
  if (a->n_new == a->capacity) {
    const uint32_t capacity = a->capacity ? 2 * a->capacity : 16;
    uint32_t *more = tern__realloc(a->before, capacity * sizeof *more);
    if (!more) return tern__fail(TERN_E_OOM, "graph: out of host memory"), TERN__IR_NONE;
    a->before = more;
    a->capacity = capacity;
  }
  const uint32_t out = tern__graph_repeat(a->g, value, in);
  if (out == TERN__IR_NONE) return out;
  a->before[a->n_new++] = before;
  return a->copy[value] = out;
}

/* The value, or the view of it, for nodes from `late` on. */
static uint32_t copy_of(again *a, uint32_t value, uint32_t late) {
  if (a->copy[value]) return a->copy[value];
  if (a->base[value] == value) {
    const tern__ir_node *n = &a->g->node[a->g->value[value].node];
    const uint32_t out = repeat(a, value, n->in, late);
    if (out != TERN__IR_NONE) a->g->node[a->g->value[out].node].again = 1;
    return out;
  }
  const uint32_t shown = copy_of(a, a->g->node[a->g->value[value].node].in[0], late);
  return shown == TERN__IR_NONE ? shown : repeat(a, value, &shown, late);
}

static tern_rc split(again *a, uint32_t v, uint32_t late) {
  tern__graph *g = a->g;
  for (uint32_t k = a->first[v]; k < a->first[v + 1]; k++) {
    const uint32_t node = a->reader[k];
    if (node < late) continue;
    for (uint32_t i = 0; i < g->node[node].n_in; i++) {
      const uint32_t in = g->node[node].in[i];
      if (in == TERN__IR_NONE || in >= a->n_values || a->base[in] != v) continue;
      const uint32_t now = copy_of(a, in, late);
      if (now == TERN__IR_NONE) return tern__recorded();
      g->node[node].in[i] = now;
    }
  }
  return TERN_OK;
}

tern_rc tern__graph_again(tern__graph *g) {
  again a = {.g = g};
  tern_rc rc = prepare(&a) ? TERN_OK : tern__fail(TERN_E_OOM, "graph: out of host memory");
  for (uint32_t i = 0; i < a.n_nodes && !rc; i++) {
    const uint32_t x = operand_of(&a, &g->node[i]), v = g->node[i].first_out;
    const bool lasts = x != TERN__IR_NONE && !a.copy[x]; /* x is made again itself: it does not wait for v's copy */
    const uint32_t late = lasts ? late_use(&a, v, x) : TERN__IR_NONE;
    if (late != TERN__IR_NONE) rc = split(&a, v, late);
  }
  if (!rc && a.n_new) rc = tern__graph_settle(g, a.n_nodes, a.before);
  free(a.base);
  free(a.first);
  free(a.reader);
  free(a.result);
  free(a.made);
  free(a.copy);
  free(a.before);
  return rc;
}
