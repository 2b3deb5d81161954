/* Random graphs give the same bits before and after simplification. Operands are special values; ops are drawn from all
   that the rules know, with many constants, repeated nodes and views. */
#include "graph_ir/simplify_build.h"
#include <math.h>
#include <stdlib.h>
#include <time.h>

enum { GRAPHS = 300, NODES = 40 };

static const tern__op *const unary[] = {
    &tern__op_neg,         &tern__op_abs,         &tern__op_sign,      &tern__op_relu,  &tern__op_floor,
    &tern__op_ceil,        &tern__op_exp,         &tern__op_log,       &tern__op_sqrt,  &tern__op_square,
    &tern__op_trunc,       &tern__op_round,       &tern__op_copy,      &tern__op_isnan, &tern__op_tanh,
    &tern__op_bitwise_not, &tern__op_logical_not, &tern__op_reciprocal};
static const tern__op *const binary[] = {
    &tern__op_add,         &tern__op_sub,        &tern__op_mul,         &tern__op_div,        &tern__op_pow,
    &tern__op_maximum,     &tern__op_minimum,    &tern__op_equal,       &tern__op_not_equal,  &tern__op_less,
    &tern__op_less_equal,  &tern__op_greater,    &tern__op_logical_and, &tern__op_logical_or, &tern__op_logical_xor,
    &tern__op_bitwise_and, &tern__op_bitwise_or, &tern__op_bitwise_xor, &tern__op_left_shift, &tern__op_right_shift,
    &tern__op_remainder,   &tern__op_fmod,       &tern__op_floor_divide};
static const tern__op *const reductions[] = {&tern__op_sum, &tern__op_prod, &tern__op_max,  &tern__op_min,
                                             &tern__op_any, &tern__op_all,  &tern__op_mean, &tern__op_argmax};
static const tern_dtype dtypes[] = {TERN_F32, TERN_F32, TERN_F64,  TERN_F16, TERN_I32,
                                    TERN_I64, TERN_U8,  TERN_BOOL, TERN_I8};
static const double numbers[] = {0, -0.0, 1, -1, 2, 0.5, 3, 8, 255, INFINITY, -INFINITY};
#define PICK(list) (list)[test_below(seed, sizeof(list) / sizeof *(list))]

static uint32_t any(const tern__graph *g, uint64_t *seed) {
  /* near the end more often */
  const int64_t n = g->n_values, back = test_below(seed, 3) ? test_below(seed, n < 8 ? n : 8) : test_below(seed, n);
  return (uint32_t)(n - 1 - back);
}

static tern_shape shape_of(const tern__graph *g, uint32_t v) {
  return tern_shape_of(g->value[v].rank, g->value[v].shape);
}

static uint32_t random_view(tern__graph *g, uint32_t x, uint64_t *seed) {
  if (g->value[x].weak) return TERN__IR_NONE;
  const tern_shape s = shape_of(g, x);
  const int64_t n = test_numel(s);
  int order[TERN_MAX_RANK];
  int64_t part[3 * TERN_MAX_RANK];
  switch (test_below(seed, 5)) {
  case 0: {
    const tern_shape to[] = {TERN_SHAPE(n), TERN_SHAPE(n, 1), TERN_SHAPE(1, n), TERN_SHAPE(4, n / 4),
                             TERN_SHAPE(n / 6, 6)};
    const tern_shape t = PICK(to);
    return test_numel(t) == n ? b_reshape(g, x, t) : TERN__IR_NONE;
  }
  case 1:
  case 2:
    for (int d = 0; d < s.rank; d++) order[d] = s.rank - 1 - d;
    return b_permute(g, x, order);
  case 3: {
    if (s.rank >= 3) return TERN__IR_NONE;
    tern_shape t = {.rank = s.rank + 1, .dim = {test_below(seed, 2) ? 1 : 2}};
    for (int d = 0; d < s.rank; d++) t.dim[d + 1] = s.dim[d];
    return test_numel(t) > 200 ? TERN__IR_NONE : b_expand(g, x, test_below(seed, 4) ? t : s);
  }
  default: {
    const int dropped = s.rank ? (int)test_below(seed, s.rank + 2) - 2 : -1;
    for (int d = 0; d < s.rank; d++) {
      const int64_t step = test_below(seed, 3) ? 1 : -1, count = 1 + test_below(seed, s.dim[d]);
      const int64_t first = test_below(seed, s.dim[d] - count + 1);
      part[3 * d] = d == dropped ? test_below(seed, s.dim[d]) : step > 0 ? first : first + count - 1;
      part[3 * d + 1] = d == dropped ? 1 : step;
      part[3 * d + 2] = count;
    }
    return b_slice(g, x, dropped < 0 ? -1 : dropped, part);
  }
  }
}

static uint32_t random_write(tern__graph *g, uint32_t x, uint64_t *seed) {
  if (g->value[x].weak || g->value[x].rank != 2) return TERN__IR_NONE;
  const tern_shape s = shape_of(g, x);
  const int64_t zero[] = {0, 0}, next[] = {s.dim[0], 0};
  const tern_dtype d = test_below(seed, 3) ? (tern_dtype)g->value[x].dtype : PICK(dtypes);
  if (test_below(seed, 2) || test_numel(s) > 100) return b_write(g, b_empty(g, s, d), x, zero, s);
  const uint32_t empty = b_empty(g, TERN_SHAPE(2 * s.dim[0], s.dim[1]), d);
  return b_write(g, b_write(g, empty, x, zero, s), test_below(seed, 2) ? x : b_scalar(g, 1), next, s);
}

static uint32_t random_node(tern__graph *g, uint64_t *seed) {
  const uint32_t x = any(g, seed), y = any(g, seed);
  switch (test_below(seed, 16)) {
  case 0: return b_scalar(g, PICK(numbers));
  case 1: return b_integer(g, test_below(seed, 5) - 2);
  case 2: return b_full(g, shape_of(g, x), PICK(dtypes), PICK(numbers));
  case 3:
  case 4: return b1(g, PICK(unary), x);
  case 5:
  case 6:
  case 7: return b2(g, PICK(binary), x, test_below(seed, 6) ? y : x);
  case 8:
    return b2(g, PICK(binary), x, test_below(seed, 2) ? b_integer(g, test_below(seed, 3)) : b_scalar(g, PICK(numbers)));
  case 9: return b3(g, &tern__op_where, any(g, seed), x, y);
  case 10: return b_cast(g, x, PICK(dtypes));
  case 11:
    if (!g->value[x].rank || g->value[x].weak) return TERN__IR_NONE;
    return b_reduce(g, PICK(reductions), x, 1u << test_below(seed, g->value[x].rank), test_below(seed, 2));
  case 12: return random_write(g, x, seed);
  case 13: { /* a node again */
    const tern__ir_node *n = &g->node[g->value[x].node];
    return n->kind == TERN__IR_OP && n->op->infer ? b_op(g, n->op, n->in, n->n_in, n->attr, n->n_attr) : TERN__IR_NONE;
  }
  default: return random_view(g, x, seed);
  }
}

static tern__graph *random_graph(uint64_t *seed, int nodes) {
  static const double few[] = {1, 2, 1, -0.0, NAN, 1};
  tern__graph *g = tern__graph_new("random");
  b_input(g, TERN_F32, TERN_SHAPE(4, 6));
  b_input(g, TERN_F64, TERN_SHAPE(4, 6));
  b_input(g, TERN_I32, TERN_SHAPE(4, 6));
  b_input(g, TERN_BOOL, TERN_SHAPE(4, 6));
  b_input(g, TERN_F16, TERN_SHAPE(6));
  b_input(g, TERN_F32, TERN_SHAPE(6, 1));
  b_input(g, TERN_F32, TERN_SHAPE());
  b_const(g, test_tensor(TERN_SHAPE(6), TERN_F32, few));
  for (int made = 0; made < nodes;) made += random_node(g, seed) != TERN__IR_NONE;
  for (int o = 0; o < 8; o++) {
    const uint32_t v = any(g, seed);
    if (!g->value[v].weak && g->node[g->value[v].node].op != &tern__op_empty) tern__graph_add_output(g, v);
  }
  if (!g->n_outputs) tern__graph_add_output(g, g->input[0]);
  return g;
}

static void graphs(void) {
  uint32_t before = 0, after = 0;
  for (int k = 0; k < GRAPHS; k++) {
    TERN_SCOPE;
    uint64_t seed = 1000 + (uint64_t)k;
    tern__graph *g = random_graph(&seed, NODES);
    before += g->n_nodes;
    const b_result r = b_try(g, false);
    after += r.all;
    CHECK(r.same, "graph %d: other results", k);
  }
  CHECK(after < before, "nothing was simplified: %u nodes of %u", after, before);
}

/* Random graphs may compute anything: no result is compared with fast_math, but nothing fails and types hold. */
static void fast_graphs(void) {
  for (int k = 0; k < GRAPHS; k++) {
    TERN_SCOPE;
    uint64_t seed = 5000 + (uint64_t)k;
    tern__graph *g = random_graph(&seed, NODES);
    b_try(g, true);
  }
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* Linear in the nodes; the bound is far from what is measured (about 1 ms for 1,000). */
static void large(void) {
  double first = 0;
  for (int nodes = 1000; nodes <= 10000; nodes *= 10) {
    double best = 1e9;
    for (int run = 0; run < 5; run++) {
      TERN_SCOPE;
      uint64_t seed = 9;
      tern__graph *g = random_graph(&seed, nodes);
      for (uint32_t v = 8; v < g->n_values; v += 3)
        if (!g->value[v].weak && g->node[g->value[v].node].op != &tern__op_empty) tern__graph_add_output(g, v);
      const uint32_t n = g->n_nodes;
      const double began = now();
      tern__simplify(g, NULL);
      const double took = now() - began;
      best = took < best ? took : best;
      if (getenv("TERN_TEST_TIMES")) printf("%u nodes to %u: %.2f ms\n", n, g->n_nodes, took);
      tern__graph_free(g);
    }
    if (nodes == 1000) first = best;
    CHECK(nodes == 1000 || best < 100 * first + 50, "10,000 nodes take %.1f ms, 1,000 nodes %.1f ms", best, first);
  }
}

static const test_case cases[] = {{"graphs", graphs}, {"fast_graphs", fast_graphs}, {"large", large}};
TEST_MAIN("graph_ir.simplify_random", cases)
