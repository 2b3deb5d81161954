/* Each identity on a small graph: how many nodes are left, and that the bits stay. Operands: x, y f32 [4, 6];
   i, j int32 [4, 6]; b bool [4, 6]; u uint8 [4, 6]. */
#include "graph_ir/simplify_build.h"
#include <math.h>
#include <stdlib.h>

typedef struct ground {
  tern__graph *g;
  uint32_t x, y, i, j, b, u, column; /* column: f32 [6, 1] */
} ground;

static ground start(void) {
  const tern_shape s = TERN_SHAPE(4, 6);
  ground q = {.g = tern__graph_new("rules")};
  q.x = b_input(q.g, TERN_F32, s);
  q.y = b_input(q.g, TERN_F32, s);
  q.i = b_input(q.g, TERN_I32, s);
  q.j = b_input(q.g, TERN_I32, s);
  q.b = b_input(q.g, TERN_BOOL, s);
  q.u = b_input(q.g, TERN_U8, s);
  q.column = b_input(q.g, TERN_F32, TERN_SHAPE(6, 1));
  return q;
}

static uint32_t number(ground *q, double x) { return b_scalar(q->g, x); }
static uint32_t integer(ground *q, int64_t x) { return b_integer(q->g, x); }

/* The value as the output: `nodes` are left that are no leaves, and the last is op (NULL: any). */
static void expect(ground *q, uint32_t value, uint32_t nodes, const tern__op *op, bool fast, int line) {
  CHECK(value != TERN__IR_NONE, "line %d: the graph could not be built", line);
  if (value == TERN__IR_NONE) {
    tern__graph_free(q->g);
  } else {
    tern__graph_add_output(q->g, value);
    const b_result r = b_try(q->g, fast);
    CHECK(r.nodes == nodes, "line %d: %u nodes are left, not %u", line, r.nodes, nodes);
    CHECK(!op || r.op == op, "line %d: %s is left, not %s", line, r.op ? r.op->name : "a leaf", op ? op->name : "");
    CHECK(r.same, "line %d: other results", line);
  }
  *q = start();
}
#define IS(value, nodes) expect(&q, (value), (nodes), NULL, false, __LINE__)
#define IS_OP(value, nodes, op) expect(&q, (value), (nodes), &tern__op_##op, false, __LINE__)
#define FAST(value, nodes) expect(&q, (value), (nodes), NULL, true, __LINE__)
#define ONE(op, a) b1(q.g, &tern__op_##op, (a))
#define TWO(op, a, b) b2(q.g, &tern__op_##op, (a), (b))

static void arithmetic(void) {
  ground q = start();
  IS(TWO(mul, q.x, number(&q, 1)), 0);
  IS(TWO(mul, number(&q, 1), q.x), 0);
  IS(TWO(mul, q.x, b_full(q.g, TERN_SHAPE(4, 6), TERN_F32, 1)), 0);
  IS(TWO(mul, q.x, b_full(q.g, TERN_SHAPE(2, 4, 6), TERN_F32, 1)), 2); /* broadcasts */
  IS(TWO(mul, q.x, b_full(q.g, TERN_SHAPE(), TERN_F64, 1)), 2);        /* promotes */
  IS(TWO(mul, q.i, number(&q, 1)), 1);
  IS(TWO(mul, q.i, integer(&q, 1)), 0);
  IS(TWO(div, q.x, integer(&q, 1)), 0);
  IS(TWO(div, q.i, integer(&q, 1)), 1);
  IS(TWO(sub, q.x, number(&q, 0)), 0);
  IS(TWO(sub, q.x, number(&q, -0.0)), 1);
  IS(TWO(add, q.x, number(&q, 0)), 1);
  IS(TWO(add, q.x, number(&q, -0.0)), 0);
  FAST(TWO(add, q.x, number(&q, 0)), 0);
  IS(TWO(add, q.i, integer(&q, 0)), 0);
  IS_OP(TWO(mul, q.i, integer(&q, 0)), 1, full);
  IS(TWO(mul, q.x, number(&q, 0)), 1);
  IS_OP(TWO(sub, q.i, q.i), 1, full);
  IS_OP(TWO(sub, q.x, q.x), 1, sub);
  IS_OP(TWO(mul, q.i, integer(&q, -1)), 1, neg);
  IS_OP(TWO(sub, integer(&q, 0), q.i), 1, neg);
  IS_OP(TWO(add, q.i, ONE(neg, q.j)), 1, sub);
  IS_OP(TWO(sub, q.i, ONE(neg, q.j)), 1, add);
  IS_OP(TWO(div, q.x, number(&q, 8)), 1, mul);
  IS_OP(TWO(div, q.x, number(&q, 3)), 1, div);
  IS_OP(TWO(pow, q.x, number(&q, 2)), 1, square);
  IS_OP(TWO(pow, q.i, integer(&q, 2)), 1, square);
  IS_OP(TWO(pow, q.x, number(&q, 0)), 1, full);
  IS_OP(TWO(pow, q.i, integer(&q, 0)), 1, full);
  IS(TWO(pow, q.i, integer(&q, 1)), 0);
  IS(TWO(pow, q.x, number(&q, 1)), 1);
  IS(TWO(maximum, q.x, q.x), 0);
  IS(TWO(minimum, q.x, number(&q, INFINITY)), 0);
  IS(TWO(maximum, number(&q, -INFINITY), q.x), 0);
  IS(TWO(floor_divide, q.i, integer(&q, 1)), 0);
  IS_OP(TWO(remainder, q.i, integer(&q, 1)), 1, full);
  IS_OP(TWO(fmod, q.i, q.i), 1, full);
  IS(TWO(left_shift, q.i, integer(&q, 0)), 0);
  IS(TWO(add, TWO(add, q.i, integer(&q, 5)), integer(&q, 16777215)), 1);
  IS(TWO(sub, integer(&q, 7), TWO(sub, q.u, integer(&q, 250))), 1);
  IS(TWO(mul, TWO(mul, q.u, integer(&q, 77)), integer(&q, 99)), 1);
  IS(TWO(mul, TWO(mul, q.x, number(&q, 2)), number(&q, 3)), 2);
  tern__graph_free(q.g);
}

static void logic(void) {
  ground q = start();
  IS(TWO(logical_and, q.b, q.b), 0);
  IS(TWO(logical_and, q.x, q.x), 1);
  IS(TWO(logical_or, q.b, integer(&q, 0)), 0);
  IS_OP(TWO(logical_and, q.x, integer(&q, 0)), 1, full);
  IS_OP(TWO(logical_or, q.x, integer(&q, 3)), 1, full);
  IS_OP(TWO(logical_xor, q.b, integer(&q, 1)), 1, logical_not);
  IS_OP(TWO(logical_xor, q.x, q.x), 1, full);
  IS(TWO(bitwise_and, q.i, integer(&q, -1)), 0);
  IS_OP(TWO(bitwise_and, q.i, integer(&q, 0)), 1, full);
  IS(TWO(bitwise_and, q.u, integer(&q, 255)), 0);
  IS_OP(TWO(bitwise_or, q.u, integer(&q, 255)), 1, full);
  IS(TWO(bitwise_or, q.i, q.i), 0);
  IS_OP(TWO(bitwise_xor, q.i, integer(&q, -1)), 1, bitwise_not);
  IS_OP(TWO(bitwise_xor, q.i, q.i), 1, full);
  IS_OP(TWO(less, q.x, q.x), 1, full);
  IS_OP(TWO(less_equal, q.i, q.i), 1, full);
  IS_OP(TWO(less_equal, q.x, q.x), 1, less_equal);
  IS_OP(TWO(not_equal, q.i, q.i), 1, full);
  IS_OP(ONE(logical_not, TWO(equal, q.x, q.y)), 1, not_equal);
  IS_OP(ONE(logical_not, TWO(less, q.i, q.j)), 1, greater_equal);
  IS(ONE(logical_not, TWO(less, q.x, q.y)), 2);
  IS(ONE(logical_not, ONE(logical_not, q.b)), 0);
  IS(ONE(logical_not, ONE(logical_not, q.x)), 2);
  IS(ONE(bitwise_not, ONE(bitwise_not, q.i)), 0);
  IS(TWO(add, q.b, q.b), 0);
  IS_OP(TWO(mul, q.b, b_full(q.g, TERN_SHAPE(), TERN_BOOL, 0)), 1, full);
  IS(b3(q.g, &tern__op_where, b_full(q.g, TERN_SHAPE(), TERN_BOOL, 1), q.x, q.y), 0);
  IS(b3(q.g, &tern__op_where, b_full(q.g, TERN_SHAPE(2, 4, 6), TERN_BOOL, 1), q.x, q.y), 2);
  IS(b3(q.g, &tern__op_where, q.b, q.x, q.x), 0);
  IS_OP(b3(q.g, &tern__op_where, ONE(logical_not, q.b), q.x, q.y), 1, where);
  tern__graph_free(q.g);
}

static void unary(void) {
  ground q = start();
  IS(ONE(neg, ONE(neg, q.x)), 0);
  IS(ONE(neg, ONE(neg, ONE(neg, q.x))), 1);
  IS(ONE(abs, ONE(abs, q.x)), 1);
  IS_OP(ONE(abs, ONE(neg, q.x)), 1, abs);
  IS(ONE(abs, q.u), 0);
  IS(ONE(relu, ONE(relu, q.x)), 1);
  IS(ONE(relu, q.u), 0);
  IS_OP(ONE(floor, ONE(ceil, q.x)), 1, ceil);
  IS(ONE(sign, ONE(sign, q.x)), 1);
  IS_OP(ONE(square, ONE(neg, q.i)), 1, square);
  IS_OP(ONE(neg, TWO(sub, q.i, q.j)), 1, sub);
  IS(ONE(neg, TWO(sub, q.x, q.y)), 2);
  IS(ONE(exp, ONE(log, q.x)), 2);
  IS(ONE(copy, q.x), 0);
  IS(b_cast(q.g, b_cast(q.g, q.x, TERN_F64), TERN_F32), 0);
  IS(b_cast(q.g, b_cast(q.g, q.i, TERN_I64), TERN_I32), 0);
  IS(b_cast(q.g, b_cast(q.g, q.i, TERN_F64), TERN_I32), 0);
  IS(b_cast(q.g, b_cast(q.g, q.i, TERN_F32), TERN_I32), 2);
  IS(b_cast(q.g, b_cast(q.g, q.x, TERN_F16), TERN_F32), 2);
  IS(b_cast(q.g, b_cast(q.g, q.b, TERN_F32), TERN_I8), 1);
  IS(b_cast(q.g, b_cast(q.g, q.u, TERN_I32), TERN_I8), 1);
  IS(b_cast(q.g, b_cast(q.g, q.u, TERN_F32), TERN_I8), 2);
  IS(b_cast(q.g, q.x, TERN_F32), 0);
  IS(TWO(add, q.x, b_full(q.g, TERN_SHAPE(4, 6), TERN_F32, 1.5)), 1);
  IS(TWO(add, q.x, b_full(q.g, TERN_SHAPE(3, 1, 1), TERN_F32, 1.5)), 2);
  tern__graph_free(q.g);
}

static void views(void) {
  ground q = start();
  const int swap[] = {1, 0}, turn[] = {1, 2, 0};
  const int64_t all[] = {0, 1, 4, 0, 1, 6}, part[] = {1, 1, 3, 5, -1, 6}, again[] = {0, 2, 2, 1, 1, 4};
  const int64_t row[] = {1, 1, 1, 0, 1, 5};
  IS(b_reshape(q.g, q.x, TERN_SHAPE(4, 6)), 0);
  IS(b_reshape(q.g, b_reshape(q.g, q.x, TERN_SHAPE(24)), TERN_SHAPE(8, 3)), 1);
  IS(b_permute(q.g, b_permute(q.g, q.x, swap), swap), 0);
  IS(b_permute(q.g, b_permute(q.g, b_reshape(q.g, q.x, TERN_SHAPE(2, 3, 4)), turn), turn), 2);
  IS_OP(b_permute(q.g, q.column, swap), 1, reshape);
  IS(b_expand(q.g, q.x, TERN_SHAPE(4, 6)), 0);
  IS_OP(b_expand(q.g, q.x, TERN_SHAPE(1, 4, 6)), 1, reshape);
  IS(b_expand(q.g, b_expand(q.g, q.column, TERN_SHAPE(6, 4)), TERN_SHAPE(3, 6, 4)), 1);
  IS(b_slice(q.g, q.x, -1, all), 0);
  IS(b_slice(q.g, b_slice(q.g, q.x, -1, part), -1, again), 1);
  IS(b_slice(q.g, b_slice(q.g, q.x, -1, part), 0, row), 1);
  IS_OP(b_expand(q.g, b_full(q.g, TERN_SHAPE(1), TERN_F32, 3), TERN_SHAPE(5, 7)), 1, full);
  IS(b_permute(q.g, ONE(exp, ONE(neg, b_permute(q.g, q.x, swap))), swap), 2);
  IS(b_reshape(q.g, TWO(mul, b_reshape(q.g, q.x, TERN_SHAPE(24)), number(&q, 3)), TERN_SHAPE(4, 6)), 1);
  const uint32_t inner = ONE(exp, b_permute(q.g, q.x, swap)); /* read twice: it stays */
  tern__graph_add_output(q.g, inner);
  IS(b_permute(q.g, inner, swap), 3);
  tern__graph_free(q.g);
}

/* x y in one row, as it comes back from there: 4 nodes. */
static uint32_t row_of(ground *q) {
  return b2(q->g, &tern__op_mul, b_reshape(q->g, q->x, TERN_SHAPE(24)), b_reshape(q->g, q->y, TERN_SHAPE(24)));
}
static uint32_t regrouped(ground *q) { return b_reshape(q->g, row_of(q), TERN_SHAPE(4, 6)); }

/* `made` has another reader: it is a result behind the first one. */
#define READ_TOO(made, value, nodes, op)           \
  do {                                             \
    const uint32_t also = (made), first = (value); \
    tern__graph_add_output(q.g, first);            \
    tern__graph_add_output(q.g, also);             \
    IS_OP(first, nodes, op);                       \
  } while (0)

/* What is computed of a reshape comes before it, where the other operands lie there anyway. */
static void reshapes(void) {
  ground q = start();
  const int swap[] = {1, 0};
  IS_OP(TWO(maximum, q.y, regrouped(&q)), 5, reshape);
  IS_OP(TWO(maximum, regrouped(&q), q.y), 5, reshape);
  IS_OP(TWO(relu_grad, q.y, regrouped(&q)), 5, reshape);
  IS_OP(TWO(sub, number(&q, 2), regrouped(&q)), 5, reshape);
  IS_OP(TWO(add, regrouped(&q), q.j), 6, reshape); /* promotes */
  IS_OP(b3(q.g, &tern__op_where, q.b, regrouped(&q), number(&q, 0)), 6, reshape);
  IS_OP(ONE(tanh, TWO(relu_grad, q.y, regrouped(&q))), 6, reshape);
  IS_OP(TWO(sub, TWO(mul, regrouped(&q), q.x), q.y), 6, reshape);
  READ_TOO(ONE(exp, q.x), TWO(maximum, also, regrouped(&q)), 7, reshape);
  READ_TOO(row_of(&q), TWO(maximum, q.y, b_reshape(q.g, also, TERN_SHAPE(4, 6))), 5, maximum); /* it stays */
  READ_TOO(regrouped(&q), TWO(maximum, q.y, also), 5, maximum);
  IS_OP(TWO(maximum, ONE(exp, q.x), regrouped(&q)), 6, maximum); /* exp would come apart */
  IS_OP(TWO(maximum, b_permute(q.g, b_reshape(q.g, q.x, TERN_SHAPE(6, 4)), swap), regrouped(&q)), 7, maximum);
  IS_OP(TWO(maximum, b_reshape(q.g, q.column, TERN_SHAPE(6)), regrouped(&q)), 6, maximum); /* broadcasts */
  IS_OP(TWO(maximum, b_reshape(q.g, q.x, TERN_SHAPE(1, 24)), b_reshape(q.g, row_of(&q), TERN_SHAPE(1, 24))), 6,
        maximum); /* the same sizes */
  tern__graph_free(q.g);
}

static void writes(void) {
  ground q = start();
  const int64_t zero[] = {0, 0}, next[] = {4, 0};
  const tern_shape s = TERN_SHAPE(4, 6), tall = TERN_SHAPE(8, 6);
  IS(b_write(q.g, b_empty(q.g, s, TERN_F32), q.x, zero, s), 0);
  IS_OP(b_write(q.g, b_empty(q.g, s, TERN_F64), q.x, zero, s), 1, cast);
  IS_OP(b_write(q.g, b_empty(q.g, s, TERN_F32), number(&q, 2.5), zero, s), 1, full);
  IS_OP(b_write(q.g, b_empty(q.g, TERN_SHAPE(6, 5), TERN_F32), q.column, zero, TERN_SHAPE(6, 5)), 1, expand);
  const uint32_t both = b_write(q.g, b_write(q.g, b_empty(q.g, tall, TERN_F32), q.x, zero, s), q.y, next, s);
  IS(both, 3);
  const uint32_t joined = b_write(q.g, b_write(q.g, b_empty(q.g, tall, TERN_F32), q.x, zero, s), q.y, next, s);
  const int64_t second[] = {4, 1, 4, 0, 1, 6};
  IS(b_slice(q.g, joined, -1, second), 0);
  tern__graph_free(q.g);
}

static void reductions(void) {
  ground q = start();
  const uint32_t none = 0;
  IS(b_reduce(q.g, &tern__op_max, q.column, 2, true), none);
  IS_OP(b_reduce(q.g, &tern__op_max, q.column, 2, false), 1, reshape);
  IS_OP(b_reduce(q.g, &tern__op_sum, q.column, 2, true), 1, add);
  IS_OP(b_reduce(q.g, &tern__op_mean, q.column, 2, false), 2, add);
  FAST(b_reduce(q.g, &tern__op_sum, q.column, 2, true), 0);
  IS_OP(b_reduce(q.g, &tern__op_argmax, q.column, 2, false), 1, full);
  IS(b_reduce(q.g, &tern__op_any, q.column, 2, true), 1);
  IS(b_reduce(q.g, &tern__op_any, b_reduce(q.g, &tern__op_any, q.x, 1, false), 1, false), 1);
  IS(b_reduce(q.g, &tern__op_sum, b_reduce(q.g, &tern__op_sum, q.i, 2, true), 1, true), 1);
  IS(b_reduce(q.g, &tern__op_sum, b_reduce(q.g, &tern__op_sum, q.i, 2, true), 1, false), 2);
  IS(b_reduce(q.g, &tern__op_max, b_reduce(q.g, &tern__op_max, q.x, 2, false), 1, false), 2);
  FAST(b_reduce(q.g, &tern__op_max, b_reduce(q.g, &tern__op_max, q.x, 2, false), 1, false), 1);
  tern__graph_free(q.g);
}

/* Rewrites that change results on special values: only the nodes are counted. */
static void fast_count(tern__graph *g, uint32_t value, uint32_t nodes, int line) {
  bool ok = value != TERN__IR_NONE;
  if (ok) {
    tern__graph_add_output(g, value);
    const tern_rc rc = tern__simplify(g, &(tern__simplify_opts){.fast_math = true});
    uint32_t left = 0;
    for (uint32_t i = 0; i < g->n_nodes; i++) left += g->node[i].kind == TERN__IR_OP;
    ok = !rc && left == nodes;
    CHECK(ok, "line %d: %u nodes are left, not %u", line, left, nodes);
  }
  CHECK(ok, "line %d", line);
  tern__graph_free(g);
}
#define COUNT(value, nodes)                \
  do {                                     \
    q = start();                           \
    const uint32_t v = (value);            \
    fast_count(q.g, v, (nodes), __LINE__); \
  } while (0)

static void fast_math(void) {
  ground q;
  COUNT(TWO(mul, q.x, number(&q, 0)), 1);
  COUNT(TWO(sub, q.x, q.x), 1);
  COUNT(TWO(div, q.x, q.x), 1);
  COUNT(TWO(mul, TWO(mul, q.x, number(&q, 2)), number(&q, 3)), 1);
  COUNT(TWO(add, TWO(sub, number(&q, 1), q.x), number(&q, 3)), 1);
  COUNT(TWO(div, TWO(div, q.x, number(&q, 3)), number(&q, 7)), 1);
  COUNT(ONE(exp, ONE(log, q.x)), 0);
  COUNT(ONE(square, ONE(sqrt, q.x)), 0);
  COUNT(ONE(sqrt, ONE(square, q.x)), 1);
  COUNT(TWO(pow, q.x, number(&q, 1)), 0);
  COUNT(TWO(pow, q.x, number(&q, 0.5)), 1);
  COUNT(ONE(neg, TWO(sub, q.x, q.y)), 1);
  COUNT(b_reduce(q.g, &tern__op_mean, b_reduce(q.g, &tern__op_mean, q.x, 2, false), 1, false), 1);
  COUNT(TWO(add, TWO(mul, q.x, q.y), TWO(mul, q.y, q.x)), 2);
}

static const test_case cases[] = {{"arithmetic", arithmetic}, {"logic", logic},        {"unary", unary},
                                  {"views", views},           {"reshapes", reshapes},  {"writes", writes},
                                  {"reductions", reductions}, {"fast_math", fast_math}};
TEST_MAIN("graph_ir.simplify_rules", cases)
