/* Patterns of post-ops, matched against the nodes behind a value. A pattern is an expression in prefix order; inputs of
   commutative primitives match in either order. */
#include "match.h"

#include <math.h>
#include <string.h>

enum { P_END = 0, P_X = 0x8001, P_V, P_COND, P_K }; /* beside the primitives' numbers */
enum { LONGEST = 20, MOST_NODES = 16 };

typedef struct token {
  uint16_t op;
  double k; /* P_K: the constant */
} token;
typedef struct pattern {
  uint16_t kind;
  token t[LONGEST];
} pattern;

#define OP(name) \
  { TERN_OP_##name, 0 }
#define X \
  { P_X, 0 }
#define V \
  { P_V, 0 }
#define K(x) \
  { P_K, x }
#define ERF_X OP(ADD), OP(ERF), OP(MUL), X, K(0.70710678118654752440), K(1)
#define ERF_DIV OP(ADD), OP(ERF), OP(DIV), X, K(1.41421356237309504880), K(1)
#define CUBE OP(MUL), OP(MUL), X, X, X
#define TANH_X OP(ADD), OP(TANH), OP(MUL), OP(ADD), X, OP(MUL), CUBE, K(0.044715), K(0.79788456080286535588), K(1)
#define ONE_EXP OP(ADD), OP(EXP), OP(NEG), X, K(1)

/* Longest first */
static const pattern patterns[] = {
    {MATCH_GELU_TANH, {OP(MUL), OP(MUL), X, K(0.5), TANH_X}},
    {MATCH_GELU_TANH, {OP(MUL), X, OP(MUL), TANH_X, K(0.5)}},
    {MATCH_GELU_TANH, {OP(MUL), OP(MUL), X, TANH_X, K(0.5)}},
    {MATCH_GELU_ERF, {OP(MUL), OP(MUL), X, K(0.5), ERF_X}},
    {MATCH_GELU_ERF, {OP(MUL), X, OP(MUL), ERF_X, K(0.5)}},
    {MATCH_GELU_ERF, {OP(MUL), OP(MUL), X, ERF_X, K(0.5)}},
    {MATCH_GELU_ERF, {OP(MUL), OP(MUL), X, K(0.5), ERF_DIV}},
    {MATCH_GELU_ERF, {OP(MUL), X, OP(MUL), ERF_DIV, K(0.5)}},
    {MATCH_GELU_ERF, {OP(MUL), OP(MUL), X, ERF_DIV, K(0.5)}},
    {MATCH_SILU, {OP(MUL), X, OP(DIV), K(1), ONE_EXP}},
    {MATCH_SILU, {OP(MUL), X, OP(RECIPROCAL), ONE_EXP}},
    {MATCH_SILU, {OP(DIV), X, ONE_EXP}},
    {MATCH_SIGMOID, {OP(DIV), K(1), ONE_EXP}},
    {MATCH_SIGMOID, {OP(RECIPROCAL), ONE_EXP}},
    {MATCH_WHERE, {OP(WHERE), {P_COND, 0}, X, V}},
    {MATCH_RELU, {OP(MAXIMUM), X, K(0)}},
    {MATCH_SQUARE, {OP(MUL), X, X}},
    {MATCH_ADD, {OP(ADD), X, V}},
    {MATCH_SUB, {OP(SUB), X, V}},
    {MATCH_MUL, {OP(MUL), X, V}},
    {MATCH_DIV, {OP(DIV), X, V}},
    {MATCH_MAX, {OP(MAXIMUM), X, V}},
    {MATCH_MIN, {OP(MINIMUM), X, V}},
    {MATCH_CAST, {OP(CAST), X}},
};
enum { PATTERNS = sizeof patterns / sizeof *patterns };

typedef struct matcher {
  const tern_region *r;
  uint32_t x, v, condition;
  uint32_t node[MOST_NODES], n; /* nodes inside the pattern */
} matcher;

static bool is_map(uint32_t op) { return op < TERN_OP_SUM && op > 0; }
static uint32_t input(const tern_region *r, uint32_t node, uint32_t i) { return r->edges[r->nodes[node].in + i]; }
static uint32_t output(const tern_region *r, uint32_t node) { return r->edges[r->nodes[node].out]; }
static uint32_t inputs_of(uint32_t op) { return op >= TERN_OP_WHERE ? 3 : op >= TERN_OP_ADD ? 2 : 1; }
static bool commutes(uint32_t op) {
  return op == TERN_OP_ADD || op == TERN_OP_MUL || op == TERN_OP_MAXIMUM || op == TERN_OP_MINIMUM;
}

/* The node that computes v, or UINT32_MAX */
static uint32_t maker_of(const tern_region *r, uint32_t v) {
  for (uint32_t i = 0; i < r->n_nodes; i++)
    if (output(r, i) == v) return i;
  return UINT32_MAX;
}

/* Where the expression at t ends */
static const token *skip(const token *t) {
  if (t->op >= P_X) return t + 1;
  uint32_t n = inputs_of(t->op);
  for (t++; n > 0; n--) t = skip(t);
  return t;
}

/* Compared in the precision of the dtype: a constant is stored rounded */
static bool is_constant(const tern_value *v, double k) {
  if (v->kind != TERN_V_CONST) return false;
  if (v->dtype < TERN_F16) return v->dtype >= TERN_U8 ? (double)v->imm.u == k : (double)v->imm.i == k;
  const double near = v->dtype == TERN_F64 ? 1e-14 : v->dtype == TERN_F32 ? 1e-7 : v->dtype == TERN_F16 ? 5e-4 : 4e-3;
  return fabs(v->imm.f - k) <= near * fabs(k);
}

static bool inside(const matcher *m, uint32_t node) {
  for (uint32_t i = 0; i < m->n; i++)
    if (m->node[i] == node) return true;
  return false;
}

static bool matches(matcher *m, const token *t, uint32_t v);

static bool inputs_match(matcher *m, const token *t, uint32_t node, bool swapped) {
  const uint32_t n = m->r->nodes[node].n_in;
  for (uint32_t i = 0; i < n; i++, t = skip(t))
    if (!matches(m, t, input(m->r, node, swapped ? n - 1 - i : i))) return false;
  return true;
}

static bool node_matches(matcher *m, const token *t, uint32_t node) {
  const tern_node *const n = &m->r->nodes[node];
  if (n->op != t->op || n->n_in != inputs_of(t->op) || m->n == MOST_NODES) return false;
  const uint32_t v = m->v;
  if (!inside(m, node)) m->node[m->n++] = node; /* x * x is one node, however often it is read */
  const uint32_t n_nodes = m->n;
  if (inputs_match(m, t + 1, node, false)) return true;
  if (!commutes(t->op)) return false;
  m->n = n_nodes, m->v = v;
  return inputs_match(m, t + 1, node, true);
}

static bool matches(matcher *m, const token *t, uint32_t v) {
  const tern_value *const value = &m->r->values[v];
  switch (t->op) {
  case P_X: return v == m->x;
  case P_K: return is_constant(value, t->k);
  case P_V:
  case P_COND: {
    const bool given = value->kind == TERN_V_IN || value->kind == TERN_V_CONST || value->kind == TERN_V_PARAM ||
                       (value->kind == TERN_V_VIEW && m->r->values[value->slot].kind == TERN_V_IN);
    *(t->op == P_V ? &m->v : &m->condition) = v;
    return given;
  }
  default: {
    const uint32_t node = maker_of(m->r, v);
    return node != UINT32_MAX && node_matches(m, t, node);
  }
  }
}

/* Do all readers of x, and of all that is made within but the root's result, lie within? */
static bool closed(const matcher *m, uint32_t root) {
  const tern_region *const r = m->r;
  for (uint32_t i = 0; i < m->n; i++)
    if (m->node[i] != root && r->values[output(r, m->node[i])].kind != TERN_V_TEMP) return false;
  for (uint32_t n = 0; n < r->n_nodes; n++) {
    if (inside(m, n)) continue;
    for (uint32_t k = 0; k < r->nodes[n].n_in; k++) {
      const uint32_t v = input(r, n, k);
      if (v == m->x) return false;
      for (uint32_t i = 0; i < m->n; i++)
        if (m->node[i] != root && output(r, m->node[i]) == v) return false;
    }
  }
  for (uint32_t v = 0; v < r->n_values; v++) /* a view or a size of it counts as a reader */
    if ((r->values[v].kind == TERN_V_VIEW || r->values[v].kind == TERN_V_SIZE) && r->values[v].slot == m->x)
      return false;
  return true;
}

static uint16_t form_of(const tern_value *v, const tern_value *x) {
  if (v->rank == 0) return MATCH_SCALAR;
  if (v->rank != x->rank) return MATCH_OTHER;
  uint32_t same = 0, ones = 0;
  for (uint32_t d = 0; d < v->rank; d++) {
    same |= (uint32_t)(v->shape[d] == x->shape[d]) << d;
    ones |= (uint32_t)(v->shape[d] == 1) << d;
  }
  const uint32_t all = (1u << v->rank) - 1, last = 1u << (v->rank - 1);
  if (same == all) return MATCH_FULL;
  if (ones == all) return MATCH_SCALAR;
  if ((same & last) && (ones | last) == all) return MATCH_LAST;
  return v->rank > 1 && (same & 2) && (ones | 2) == all ? MATCH_SECOND : MATCH_OTHER;
}

static bool one_input(matcher *m, uint32_t node) {
  const uint32_t op = m->r->nodes[node].op;
  if (!is_map(op) || op >= TERN_OP_ADD || m->r->nodes[node].n_in != 1 || input(m->r, node, 0) != m->x) return false;
  m->n = 1, m->node[0] = node;
  return closed(m, node);
}

static uint32_t record(const matcher *m, uint32_t root, uint32_t kind, match_step *s) {
  const tern_region *const r = m->r;
  *s =
      (match_step){.kind = (uint16_t)kind, .op = (uint16_t)r->nodes[root].op, .value = m->v, .condition = m->condition};
  s->form = m->v == UINT32_MAX ? MATCH_OTHER : form_of(&r->values[m->v], &r->values[m->x]);
  s->out = output(r, root);
  return m->n;
}

/* One step from m->x; returns the nodes that it takes, 0: none fits */
static uint32_t take_step(matcher *m, match_step *s) {
  const tern_region *const r = m->r;
  for (int p = 0; p < PATTERNS; p++)
    for (uint32_t root = 0; root < r->n_nodes; root++) {
      m->n = 0, m->v = m->condition = UINT32_MAX;
      if (r->nodes[root].op == patterns[p].t[0].op && node_matches(m, patterns[p].t, root) && closed(m, root))
        return record(m, root, patterns[p].kind, s);
    }
  m->v = m->condition = UINT32_MAX;
  for (uint32_t root = 0; root < r->n_nodes; root++)
    if (one_input(m, root)) return record(m, root, MATCH_UNARY, s);
  return 0;
}

uint32_t match_epilogue(const tern_region *r, uint32_t x, match_step *steps, uint32_t most, bool *whole) {
  matcher m = {.r = r, .x = x};
  uint32_t n = 0, taken = 0, maps = 0, outs = 0;
  while (n < most && r->values[m.x].kind == TERN_V_TEMP) {
    const uint32_t nodes = take_step(&m, &steps[n]);
    if (!nodes) break;
    taken += nodes;
    m.x = steps[n++].out;
  }
  for (uint32_t i = 0; i < r->n_nodes; i++) maps += is_map(r->nodes[i].op) || r->nodes[i].op >= TERN_OP_RNG;
  for (uint32_t v = 0; v < r->n_values; v++) outs += r->values[v].kind == TERN_V_OUT;
  if (whole) *whole = n > 0 && taken == maps && outs == 1 && r->values[m.x].kind == TERN_V_OUT;
  return n;
}
