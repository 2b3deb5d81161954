/* Identities of logic, comparisons, choices and of one op after another. */
#include "graph/passes/simplify_rule_list.h"

#define RULE(name) bool tern__rule_##name(tern__rewrite *r, uint32_t i)

static uint32_t operand(const tern__rewrite *r, uint32_t i, uint32_t k) { return r->g->node[i].in[k]; }
static tern_dtype dtype_of(const tern__rewrite *r, uint32_t v) { return (tern_dtype)r->g->value[v].dtype; }
static tern_dtype result(const tern__rewrite *r, uint32_t i) { return dtype_of(r, r->g->node[i].first_out); }
/* What operand 0 was made from, when it was by op. */
static bool of(const tern__rewrite *r, uint32_t i, const tern__op *op, uint32_t *x) {
  const uint32_t v = operand(r, i, 0);
  if (!tern__made_by(r->g, v, op)) return false;
  *x = tern__maker(r->g, v)->in[0];
  return !r->g->value[*x].weak;
}
static bool exact(const tern__rewrite *r, uint32_t i) { return r->fast_math || tern__is_bits(result(r, i)); }

/* ---- and, or, xor; add and mul of bool. logical_* turn their operands into bool: those that are bool already ---- */

static bool is_and(const tern__op *op) {
  return op == &tern__op_logical_and || op == &tern__op_bitwise_and || op == &tern__op_mul;
}

RULE(and_or_same) {
  const tern__op *op = r->g->node[i].op;
  if ((op == &tern__op_add || op == &tern__op_mul) && result(r, i) != TERN_BOOL) return false;
  return operand(r, i, 0) == operand(r, i, 1) && tern__stand_in(r, i, operand(r, i, 0));
}

/* All bits set: of integers -1 or the largest. */
static bool all_bits(const tern__rewrite *r, uint32_t v, tern_dtype d) {
  if (d == TERN_BOOL) return tern__is_number(r->g, v, d, 1);
  tern_word w, ones = {.i = -1};
  tern_dtype from;
  if (!tern__uniform(r->g, v, &w, &from)) return false;
  const int gap = 64 - 8 * tern__dtype_size[d];
  if (tern__is_unsigned(d)) ones.u = UINT64_MAX >> gap;
  return tern__convert(w, from, d).u == ones.u;
}

RULE(and_or_number) {
  const tern__op *op = r->g->node[i].op;
  const tern_dtype d = result(r, i);
  if ((op == &tern__op_add || op == &tern__op_mul) && d != TERN_BOOL) return false;
  for (uint32_t k = 0; k < 2; k++) {
    const uint32_t v = operand(r, i, k);
    const bool none = tern__is_number(r->g, v, d, 0), all = !none && all_bits(r, v, d);
    if (!none && !all) continue;
    if (none != is_and(op)) { /* and with all, or with none */
      if (tern__stand_in(r, i, operand(r, i, 1 - k))) return true;
    } else if (none) {
      return tern__become_number(r, i, 0);
    } else {
      const int gap = 64 - 8 * tern__dtype_size[d];
      const tern_word ones = {.i = d == TERN_BOOL ? 1 : -1};
      return tern__become_full(r, i, tern__is_unsigned(d) ? (tern_word){.u = UINT64_MAX >> gap} : ones);
    }
  }
  return false;
}

RULE(xor_same) { return operand(r, i, 0) == operand(r, i, 1) && tern__become_number(r, i, 0); }

RULE(xor_number) {
  const tern_dtype d = result(r, i);
  for (uint32_t k = 0; k < 2; k++) {
    const uint32_t v = operand(r, i, k), x = operand(r, i, 1 - k);
    if (tern__is_number(r->g, v, d, 0) && tern__stand_in(r, i, x)) return true;
    if (all_bits(r, v, d) && tern__same_type(&r->g->value[x], &r->g->value[r->g->node[i].first_out]))
      return tern__become1(r, i, d == TERN_BOOL ? &tern__op_logical_not : &tern__op_bitwise_not, x);
  }
  return false;
}

/* x against x: false for less, greater; true for equal and its like, except of NaN. */
RULE(compare_self) {
  if (operand(r, i, 0) != operand(r, i, 1)) return false;
  const tern__op *op = r->g->node[i].op;
  if (op == &tern__op_less || op == &tern__op_greater) return tern__become_number(r, i, 0);
  if (!tern__is_bits(dtype_of(r, operand(r, i, 0)))) return false;
  return tern__become_number(r, i, op != &tern__op_not_equal);
}

/* ---- choices ---- */

RULE(where_known) {
  tern_word w;
  tern_dtype d;
  if (!tern__uniform(r->g, operand(r, i, 0), &w, &d)) return false;
  return tern__stand_in(r, i, operand(r, i, tern__convert(w, d, TERN_BOOL).u ? 1 : 2));
}

RULE(where_same) { return operand(r, i, 1) == operand(r, i, 2) && tern__stand_in(r, i, operand(r, i, 1)); }

RULE(where_not) {
  uint32_t c;
  if (!of(r, i, &tern__op_logical_not, &c)) return false;
  return tern__become(r, i, &tern__op_where, (const uint32_t[]){c, operand(r, i, 2), operand(r, i, 1)}, 3, NULL, 0);
}

RULE(clip_nothing) {
  return operand(r, i, 1) == TERN__IR_NONE && operand(r, i, 2) == TERN__IR_NONE &&
         tern__stand_in(r, i, operand(r, i, 0));
}

/* ---- one after another ---- */

/* neg(neg x), not(not x), not in one of its two names after the other. */
RULE(undone) {
  const tern__op *op = r->g->node[i].op;
  uint32_t x;
  if (of(r, i, op, &x)) return tern__stand_in(r, i, x);
  if (op == &tern__op_neg || result(r, i) != TERN_BOOL) return false;
  return of(r, i, op == &tern__op_bitwise_not ? &tern__op_logical_not : &tern__op_bitwise_not, &x) &&
         dtype_of(r, x) == TERN_BOOL && tern__stand_in(r, i, x);
}

/* abs(abs x), relu(relu x), sign(sign x); any two roundings. */
RULE(idempotent) {
  static const tern__op *const roundings[] = {&tern__op_floor, &tern__op_ceil, &tern__op_round, &tern__op_trunc};
  const uint32_t v = operand(r, i, 0);
  const tern__op *op = r->g->node[i].op;
  if (tern__made_by(r->g, v, op)) return tern__stand_in(r, i, v);
  bool rounds = false;
  for (int k = 0; k < 4; k++) rounds |= op == roundings[k];
  for (int k = 0; k < 4 && rounds; k++)
    if (tern__made_by(r->g, v, roundings[k])) return tern__stand_in(r, i, v);
  return false;
}

/* not(a == b) is a != b, of NaN too; not(a < b) is a >= b only without NaN. */
RULE(not_compare) {
  static const tern__op *const opposite[][2] = {
      {&tern__op_equal, &tern__op_not_equal},    {&tern__op_not_equal, &tern__op_equal},
      {&tern__op_less, &tern__op_greater_equal}, {&tern__op_less_equal, &tern__op_greater},
      {&tern__op_greater, &tern__op_less_equal}, {&tern__op_greater_equal, &tern__op_less}};
  const tern__ir_node *n = tern__maker(r->g, operand(r, i, 0));
  if (n->kind != TERN__IR_OP || n->n_in != 2) return false;
  for (int k = 0; k < 6; k++) {
    if (n->op != opposite[k][0]) continue;
    const uint32_t a = n->in[0], b = n->in[1];
    const bool whole = tern__is_bits(dtype_of(r, a)) && tern__is_bits(dtype_of(r, b));
    return (k < 2 || whole) && tern__become2(r, i, opposite[k][1], a, b);
  }
  return false;
}

RULE(abs_neg) {
  uint32_t x;
  return of(r, i, &tern__op_neg, &x) && tern__become1(r, i, &tern__op_abs, x);
}

/* The square of -x and of |x|; NaN would keep another sign. */
RULE(square_neg) {
  uint32_t x;
  return exact(r, i) && (of(r, i, &tern__op_neg, &x) || of(r, i, &tern__op_abs, &x)) &&
         tern__become1(r, i, &tern__op_square, x);
}

/* -(a - b) as b - a; of equal floats the zeros differ. */
RULE(neg_sub) {
  const tern__ir_node *n = tern__maker(r->g, operand(r, i, 0));
  return exact(r, i) && n->kind == TERN__IR_OP && n->op == &tern__op_sub &&
         tern__become2(r, i, &tern__op_sub, n->in[1], n->in[0]);
}

RULE(unsigned_same) { return tern__is_unsigned(result(r, i)) && tern__stand_in(r, i, operand(r, i, 0)); }

/* ---- fast_math ---- */

RULE(inverse_pair) {
  static const tern__op *const pairs[][2] = {
      {&tern__op_exp, &tern__op_log},     {&tern__op_log, &tern__op_exp},
      {&tern__op_exp2, &tern__op_log2},   {&tern__op_log2, &tern__op_exp2},
      {&tern__op_expm1, &tern__op_log1p}, {&tern__op_log1p, &tern__op_expm1},
      {&tern__op_square, &tern__op_sqrt}, {&tern__op_reciprocal, &tern__op_reciprocal}};
  uint32_t x;
  for (size_t k = 0; k < sizeof pairs / sizeof *pairs && r->fast_math; k++)
    if (r->g->node[i].op == pairs[k][0] && of(r, i, pairs[k][1], &x)) return tern__stand_in(r, i, x);
  return false;
}

RULE(sqrt_square) {
  uint32_t x;
  return r->fast_math && of(r, i, &tern__op_square, &x) && dtype_of(r, x) == result(r, i) &&
         tern__become1(r, i, &tern__op_abs, x);
}
