/* The passes one by one: what dies and what stays, folding and what it leaves alone, equal nodes, decided control
   flow. */
#include "base/alloc.h"
#include "graph_ir/interpret.h"
#include "graph_ir/simplify_build.h"
#include "tensor/tensor.h"
#include <math.h>
#include <stdlib.h>

static const tern_shape shape = {2, {4, 6}};
#define OP(name) &tern__op_##name

static uint32_t count(const tern__graph *g, tern__ir_kind kind) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < g->n_nodes; i++) n += g->node[i].kind == kind;
  return n;
}

static uint32_t variable(tern__graph *g, tern_tensor *t) {
  const uint32_t v = b_const(g, t);
  g->node[g->value[v].node].kind = TERN__IR_VARIABLE;
  tern__graph_add_variable(g, t, g->value[v].node);
  return v;
}

static void dead(void) {
  TERN_SCOPE;
  tern__graph *g = tern__graph_new("dead");
  tern_tensor *w = tern_variable(tern_ones(shape, TERN_F32), NULL),
              *r = tern_variable(tern_ones(shape, TERN_F32), NULL),
              *n = tern_variable(tern_ones(shape, TERN_F32), NULL);
  const uint32_t x = b_input(g, TERN_F32, shape), unused = b_input(g, TERN_F32, shape);
  const uint32_t a = variable(g, w), b = variable(g, r);
  variable(g, n); /* neither read nor assigned */
  b1(g, OP(exp), x);
  g->variable[0].value = b2(g, OP(add), a, x);
  tern__graph_add(g, TERN__IR_PRINT, NULL, (const uint32_t[]){b1(g, OP(tanh), x)}, 1, &(tern_word){.u = 0}, 1, 0);
  tern__graph_add_output(g, b1(g, OP(neg), b));
  bool changed = false;
  CHECK(!tern__simplify_dead(g, NULL, &changed) && changed, "dead");
  CHECK(!tern__graph_compact(g), "compact");
  CHECK(count(g, TERN__IR_OP) == 3, "%u ops are left", count(g, TERN__IR_OP));
  CHECK(count(g, TERN__IR_INPUT) == 2 && g->n_inputs == 2, "inputs stay");
  CHECK(g->n_variables == 2 && count(g, TERN__IR_VARIABLE) == 2, "%u variables are left", g->n_variables);
  CHECK(count(g, TERN__IR_PRINT) == 1, "the print stays");
  (void)unused;
  tern__graph_free(g);
  tern_release(w);
  tern_release(r);
  tern_release(n);
}

/* sin(2 + [1, 2, 3]) and concat of constants; a random draw and a large sum stay. */
static void fold(void) {
  TERN_SCOPE;
  static const double one_two[] = {1, 2, 3};
  tern__graph *g = tern__graph_new("fold");
  const uint32_t c = b_const(g, test_tensor(TERN_SHAPE(3), TERN_F32, one_two));
  const uint32_t s = b1(g, OP(sin), b2(g, OP(add), b_scalar(g, 2), c));
  const int64_t zero[] = {0}, three[] = {3}, back[] = {2, -1, 3};
  const uint32_t joined =
      b_write(g, b_write(g, b_empty(g, TERN_SHAPE(6), TERN_F32), c, zero, TERN_SHAPE(3)), s, three, TERN_SHAPE(3));
  tern__graph_add_output(g, s);
  tern__graph_add_output(g, joined);
  tern__graph_add_output(g, b2(g, OP(mul), b_scalar(g, 3), b_integer(g, 4)));
  tern__graph_add_output(g, b_slice(g, c, -1, back));
  tern__graph_add_output(g, b_reduce(g, OP(sum), b_full(g, TERN_SHAPE(150, 150), TERN_F32, 1), 3, false));
  tern__graph_add_output(g, b2(g, OP(add), c, b_full(g, TERN_SHAPE(6000, 3), TERN_F32, 1)));
  tern__graph_add_output(g, b2(g, OP(mul), b_scalar(g, 29986577), b_scalar(g, 2))); /* may be a size that varies */
  tern_tensor *before[7], *after[7];
  CHECK(!interpret(g, NULL, before), "runs");
  CHECK(!tern__simplify(g, NULL), "simplify");
  for (int o = 0; o < 4; o++)
    CHECK(g->node[g->value[g->output[o]].node].kind == TERN__IR_CONST, "output %d is a constant", o);
  for (int o = 4; o < 7; o++)
    CHECK(g->node[g->value[g->output[o]].node].kind == TERN__IR_OP, "output %d is computed", o);
  CHECK(!interpret(g, NULL, after), "runs again");
  for (int o = 0; o < 7; o++) CHECK(tern_equal_all(before[o], after[o]), "output %d", o);
  CHECK(g->value[g->output[2]].dtype == TERN_F32, "two host scalars give float32");
  CHECK_NO_ERROR();
  tern__graph_free(g);
}

/* What fails when it is run is not folded, and leaves no error. */
static void fold_failure(void) {
  TERN_SCOPE;
  tern__graph *g = tern__graph_new("empty");
  const uint32_t c = b_const(g, tern_zeros(TERN_SHAPE(0, 3), TERN_F32));
  const tern_word attr[4] = {{.u = 1}, {.u = 0}, {.u = 0}, {.f = 0}};
  tern__graph_add_output(g, b_op(g, OP(max), &c, 1, attr, 4));
  CHECK(!tern__simplify(g, NULL), "simplify");
  CHECK_NO_ERROR();
  CHECK(count(g, TERN__IR_OP) == 1, "the maximum of nothing stays");
  tern__graph_free(g);
}

static void common(void) {
  TERN_SCOPE;
  static const double few[] = {1, NAN, 3};
  tern__graph *g = tern__graph_new("common");
  const uint32_t x = b_input(g, TERN_F32, TERN_SHAPE(3)), i = b_input(g, TERN_I32, TERN_SHAPE(3));
  const uint32_t c = b_const(g, test_tensor(TERN_SHAPE(3), TERN_F32, few)),
                 d = b_const(g, test_tensor(TERN_SHAPE(3), TERN_F32, few));
  tern__graph_add_output(g, b2(g, OP(add), b1(g, OP(exp), x), c));
  tern__graph_add_output(g, b2(g, OP(add), b1(g, OP(exp), x), d)); /* the same */
  tern__graph_add_output(g, b2(g, OP(add), i, b1(g, OP(abs), i)));
  tern__graph_add_output(g, b2(g, OP(add), b1(g, OP(abs), i), i)); /* the same: integers */
  tern__graph_add_output(g, b2(g, OP(mul), x, c));
  tern__graph_add_output(g, b2(g, OP(mul), c, x)); /* another NaN may come out */
  tern__graph_add_output(g, b2(g, OP(less), x, c));
  tern__graph_add_output(g, b2(g, OP(greater), x, c)); /* another op */
  tern__graph_add_output(g, b_empty(g, TERN_SHAPE(3), TERN_F32));
  tern__graph_add_output(g, b_empty(g, TERN_SHAPE(3), TERN_F32)); /* memory of its own */
  CHECK(!tern__simplify(g, NULL), "simplify");
  CHECK(g->output[0] == g->output[1] && g->output[2] == g->output[3], "equal nodes are one");
  CHECK(g->output[4] != g->output[5] && g->output[6] != g->output[7] && g->output[8] != g->output[9], "others are not");
  CHECK(count(g, TERN__IR_CONST) == 1, "equal constants are one");
  CHECK(count(g, TERN__IR_OP) == 10, "%u ops are left", count(g, TERN__IR_OP));
  tern__graph_free(g);
}

/* then: exp(x) + 1 and x; else: x and -x. */
static tern__graph *branch(bool then) {
  tern__graph *g = tern__graph_new("branch");
  const uint32_t x = b_input(g, TERN_F32, shape);
  const uint32_t a = then ? b2(g, OP(add), b1(g, OP(exp), x), b_scalar(g, 1)) : x, b = then ? x : b1(g, OP(neg), x);
  tern__graph_add_output(g, a);
  tern__graph_add_output(g, b);
  return g;
}

static void type_as(tern__graph *g, uint32_t value, uint32_t like) {
  const tern__ir_value from = g->value[like];
  tern__ir_value *to = &g->value[value];
  to->dtype = from.dtype;
  to->rank = from.rank;
  to->weak = from.weak;
  to->device = from.device;
  memcpy(to->shape, from.shape, sizeof from.shape);
}

/* Two COND of one predicate, the second on the first's results. */
static void conditional(void) {
  for (int known = 0; known < 3; known++) {
    tern__graph *g = tern__graph_new("cond");
    const uint32_t x = b_input(g, TERN_F32, shape), p = b_input(g, TERN_BOOL, TERN_SHAPE());
    const uint32_t predicate = known == 2 ? p : b_full(g, TERN_SHAPE(), TERN_BOOL, known);
    uint32_t v = b1(g, OP(sqrt), x);
    for (int k = 0; k < 2; k++) {
      const uint32_t in[] = {predicate, v}, n = tern__graph_add(g, TERN__IR_COND, NULL, in, 2, NULL, 0, 2);
      g->node[n].body[0] = branch(true);
      g->node[n].body[1] = branch(false);
      for (uint32_t o = 0; o < 2; o++) type_as(g, g->node[n].first_out + o, x);
      v = g->node[n].first_out + (known == 0);
    }
    tern__graph_add_output(g, b1(g, OP(abs), v));
    tern__graph_add_output(g, v);
    const b_result r = b_try(g, false);
    CHECK(r.same, "predicate %d: other results", known);
    /* sqrt, abs, then two of exp and add, or two neg that are undone, or two COND */
    CHECK(r.nodes == (known == 0 ? 2u : known == 1 ? 6u : 4u), "predicate %d: %u nodes are left", known, r.nodes);
  }
}

/* while (x < limit) x = x + x, or never. */
static void loop(void) {
  for (int never = 0; never < 2; never++) {
    tern__graph *g = tern__graph_new("loop"), *condition = tern__graph_new("condition"),
                *body = tern__graph_new("body");
    const uint32_t x = b_input(g, TERN_I32, TERN_SHAPE());
    const uint32_t a = b_input(condition, TERN_I32, TERN_SHAPE()), b = b_input(body, TERN_I32, TERN_SHAPE());
    uint32_t go = b2(condition, OP(less), a, b_integer(condition, 1000));
    if (never) go = b2(condition, OP(less), a, a);
    tern__graph_add_output(condition, go);
    const uint32_t one =
        b2(body, OP(add), b2(body, OP(mul), b2(body, OP(mul), b, b), b_integer(body, 0)), b_integer(body, 1));
    tern__graph_add_output(body, b2(body, OP(add), b2(body, OP(add), b1(body, OP(abs), b), b1(body, OP(abs), b)), one));
    const uint32_t n = tern__graph_add(g, TERN__IR_WHILE, NULL, &x, 1, &(tern_word){.i = 0}, 1, 1);
    g->node[n].body[0] = condition;
    g->node[n].body[1] = body;
    type_as(g, g->node[n].first_out, x);
    tern__graph_add_output(g, b1(g, OP(abs), g->node[n].first_out));
    const b_result r = b_try(g, false);
    CHECK(r.same, "never %d: other results", never);
    CHECK(r.nodes == (never ? 1u : 2u), "never %d: %u nodes are left", never, r.nodes);
  }
}

/* A variable that is read in the body that is taken, and already outside; the other is new. */
static void variables_in_bodies(void) {
  TERN_SCOPE;
  tern_tensor *w = tern_variable(tern_ones(shape, TERN_F32), NULL),
              *u = tern_variable(tern_ones(shape, TERN_F32), NULL);
  tern__graph *g = tern__graph_new("outer"), *body[2];
  const uint32_t x = b_input(g, TERN_F32, shape), outside = variable(g, w);
  for (int b = 0; b < 2; b++) {
    body[b] = tern__graph_new("inner");
    const uint32_t y = b_input(body[b], TERN_F32, shape);
    tern__graph_add_output(body[b],
                           b2(body[b], OP(mul), b2(body[b], OP(add), y, variable(body[b], w)), variable(body[b], u)));
  }
  const uint32_t in[] = {b_full(g, TERN_SHAPE(), TERN_BOOL, 1), x};
  const uint32_t n = tern__graph_add(g, TERN__IR_COND, NULL, in, 2, NULL, 0, 1);
  g->node[n].body[0] = body[0];
  g->node[n].body[1] = body[1];
  type_as(g, g->node[n].first_out, x);
  g->variable[0].value = g->node[n].first_out;
  tern__graph_add_output(g, b2(g, OP(sub), g->node[n].first_out, outside));
  CHECK(!tern__simplify(g, NULL), "simplify");
  CHECK(count(g, TERN__IR_COND) == 0 && count(g, TERN__IR_VARIABLE) == 2 && g->n_variables == 2, "one node a variable");
  CHECK(count(g, TERN__IR_OP) == 3, "%u ops are left", count(g, TERN__IR_OP));
  const tern__ir_value *end = &g->value[g->variable[0].value];
  CHECK(g->node[end->node].op == OP(mul), "what the variable ends with");
  tern__graph_free(g);
  tern_release(w);
  tern_release(u);
}

/* Whichever allocation fails, the graph can be freed. */
static void no_memory(void) {
  TERN_SCOPE;
  bool whole = false;
  for (long n = 1; n < 200 && !whole; n++) {
    tern__graph *g = tern__graph_new("memory");
    const uint32_t x = b_input(g, TERN_F32, shape), p = b_full(g, TERN_SHAPE(), TERN_BOOL, 1), in[] = {p, x};
    const uint32_t node = tern__graph_add(g, TERN__IR_COND, NULL, in, 2, NULL, 0, 2);
    g->node[node].body[0] = branch(true);
    g->node[node].body[1] = branch(false);
    for (uint32_t o = 0; o < 2; o++) type_as(g, g->node[node].first_out + o, x);
    const uint32_t y = g->node[node].first_out, column = b_reshape(g, y, TERN_SHAPE(24, 1));
    tern__graph_add_output(g, b_reduce(g, OP(sum), b2(g, OP(div), column, b_scalar(g, 4)), 2, false));
    tern__graph_add_output(g, b2(g, OP(mul), b_full(g, shape, TERN_F32, 3), y));
    tern__alloc_fail_at(n);
    const tern_rc rc = tern__simplify(g, NULL);
    tern__alloc_fail_at(0);
    CHECK(rc == TERN_OK || rc == TERN_E_OOM, "allocation %ld: %d", n, (int)rc);
    whole = rc == TERN_OK && n > 100;
    tern_error_clear();
    tern__graph_free(g);
  }
  CHECK(whole, "no run without a failed allocation");
}

static const test_case cases[] = {{"dead", dead},
                                  {"fold", fold},
                                  {"fold_failure", fold_failure},
                                  {"common", common},
                                  {"conditional", conditional},
                                  {"loop", loop},
                                  {"variables_in_bodies", variables_in_bodies},
                                  {"no_memory", no_memory}};
TEST_MAIN("graph_ir.simplify_passes", cases)
