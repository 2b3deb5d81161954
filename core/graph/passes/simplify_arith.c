/* Identities of arithmetic. What is exact for integers (which wrap) but not for floats needs fast_math for those:
   x + 0 turns -0 into 0, x * 0 keeps NaN, -(-x) in a product turns the sign of NaN. */
#include "graph/passes/simplify_rule_list.h"
#include "tensor/tensor.h"
#include <math.h>

#define RULE(name) bool tern__rule_##name(tern__rewrite *r, uint32_t i)

static uint32_t operand(const tern__rewrite *r, uint32_t i, uint32_t k) { return r->g->node[i].in[k]; }
static tern_dtype result(const tern__rewrite *r, uint32_t i) {
  return (tern_dtype)r->g->value[r->g->node[i].first_out].dtype;
}
static bool is(const tern__rewrite *r, uint32_t i, uint32_t k, double x) {
  return tern__is_number(r->g, operand(r, i, k), result(r, i), x);
}
/* Whether rules of exact arithmetic hold: no floats, or nobody minds. */
static bool exact(const tern__rewrite *r, uint32_t i) { return r->fast_math || tern__is_bits(result(r, i)); }
/* Operand k has the result's type: nothing was broadcast or promoted. */
static bool typed(const tern__rewrite *r, uint32_t i, uint32_t k) {
  return tern__same_type(&r->g->value[operand(r, i, k)], &r->g->value[r->g->node[i].first_out]);
}

RULE(add_zero) {
  for (uint32_t k = 0; k < 2; k++) {
    const bool zero = is(r, i, k, -0.0) || (exact(r, i) && is(r, i, k, 0.0));
    if (zero && tern__stand_in(r, i, operand(r, i, 1 - k))) return true;
  }
  return false;
}

/* What -x negates, where the node reads it as it is. */
static bool negated(const tern__rewrite *r, uint32_t i, uint32_t k, uint32_t *x) {
  const uint32_t v = operand(r, i, k);
  if (!tern__made_by(r->g, v, &tern__op_neg)) return false;
  *x = tern__maker(r->g, v)->in[0];
  return tern__same_type(&r->g->value[v], &r->g->value[*x]) && r->g->value[v].dtype == result(r, i);
}

RULE(add_neg) {
  uint32_t x;
  if (!exact(r, i) || result(r, i) == TERN_BOOL) return false;
  if (negated(r, i, 1, &x)) return tern__become2(r, i, &tern__op_sub, operand(r, i, 0), x);
  return negated(r, i, 0, &x) && tern__become2(r, i, &tern__op_sub, operand(r, i, 1), x);
}

RULE(sub_zero) {
  const bool zero = is(r, i, 1, 0.0) || (r->fast_math && is(r, i, 1, -0.0));
  return zero && tern__stand_in(r, i, operand(r, i, 0));
}

RULE(sub_self) { return exact(r, i) && operand(r, i, 0) == operand(r, i, 1) && tern__become_number(r, i, 0); }

RULE(sub_from_zero) {
  return exact(r, i) && typed(r, i, 1) && (is(r, i, 0, 0.0) || is(r, i, 0, -0.0)) &&
         tern__become1(r, i, &tern__op_neg, operand(r, i, 1));
}

RULE(sub_neg) {
  uint32_t x;
  return exact(r, i) && negated(r, i, 1, &x) && tern__become2(r, i, &tern__op_add, operand(r, i, 0), x);
}

/* ---- chains of numbers: s x + c, and x c ---- */

/* A number of dtype d as a word that arithmetic below takes: integers of any width in i. */
static bool number(const tern__rewrite *r, uint32_t v, tern_dtype d, tern_word *w) {
  tern_dtype from;
  if (!tern__uniform(r->g, v, w, &from) || tern__varies_word(*w, from)) return false;
  *w = tern__convert(*w, from, d);
  return true;
}

/* Cut to the width of d, as its arithmetic wraps. False where a host scalar of int64 cannot hold it. */
static bool wrapped(tern_dtype d, uint64_t bits, tern_word *w) {
  const int width = 8 * tern__dtype_size[d], gap = 64 - width;
  if (tern__is_unsigned(d)) {
    w->u = bits << gap >> gap;
    return w->u <= INT64_MAX;
  }
  w->i = (int64_t)(bits << gap) >> gap;
  return true;
}

typedef struct linear {
  uint32_t x;
  int sign;
  tern_word c;
} linear;

/* Node n as sign x + c of dtype d. */
static bool linear_of(const tern__rewrite *r, const tern__ir_node *n, tern_dtype d, linear *f) {
  if (n->kind != TERN__IR_OP || (n->op != &tern__op_add && n->op != &tern__op_sub)) return false;
  const bool sub = n->op == &tern__op_sub;
  for (uint32_t k = 0; k < 2; k++) {
    const uint32_t other = n->in[1 - k];
    const tern__ir_value *x = &r->g->value[other];
    if (x->dtype != d || x->weak || !tern__same_shape(x, &r->g->value[n->first_out]) || !number(r, n->in[k], d, &f->c))
      continue;
    f->x = other;
    f->sign = sub && k == 0 ? -1 : 1;
    if (sub && k == 1) f->c = tern__is_float(d) ? (tern_word){.f = -f->c.f} : (tern_word){.u = -f->c.u};
    return true;
  }
  return false;
}

RULE(add_chain) {
  const tern_dtype d = result(r, i);
  linear outer, inner;
  if (!exact(r, i) || d == TERN_BOOL || !linear_of(r, &r->g->node[i], d, &outer) ||
      !linear_of(r, tern__maker(r->g, outer.x), d, &inner) || r->g->value[outer.x].dtype != d)
    return false;
  tern_word c;
  if (tern__is_float(d)) {
    c.f = outer.sign * inner.c.f + outer.c.f;
    if (!isfinite(c.f)) return false;
  } else if (!wrapped(d, (outer.sign < 0 ? -inner.c.u : inner.c.u) + outer.c.u, &c)) {
    return false;
  }
  const uint32_t s = tern__new_scalar(r, tern__is_float(d) ? TERN_F64 : TERN_I64, c);
  if (s == TERN__IR_NONE) return false;
  if (outer.sign * inner.sign > 0) return tern__become2(r, i, &tern__op_add, inner.x, s);
  return tern__become2(r, i, &tern__op_sub, s, inner.x);
}

/* Node n as x * c of dtype d. */
static bool product_of(const tern__rewrite *r, const tern__ir_node *n, tern_dtype d, linear *f) {
  if (n->kind != TERN__IR_OP || n->op != &tern__op_mul) return false;
  for (uint32_t k = 0; k < 2; k++) {
    const tern__ir_value *x = &r->g->value[n->in[1 - k]];
    f->x = n->in[1 - k];
    if (x->dtype == d && !x->weak && tern__same_shape(x, &r->g->value[n->first_out]) && number(r, n->in[k], d, &f->c))
      return true;
  }
  return false;
}

RULE(mul_chain) {
  const tern_dtype d = result(r, i);
  linear outer, inner;
  if (!exact(r, i) || d == TERN_BOOL || !product_of(r, &r->g->node[i], d, &outer) ||
      !product_of(r, tern__maker(r->g, outer.x), d, &inner))
    return false;
  tern_word c;
  if (tern__is_float(d)) {
    c.f = inner.c.f * outer.c.f;
    if (!isfinite(c.f)) return false;
  } else if (!wrapped(d, inner.c.u * outer.c.u, &c)) {
    return false;
  }
  const uint32_t s = tern__new_scalar(r, tern__is_float(d) ? TERN_F64 : TERN_I64, c);
  return s != TERN__IR_NONE && tern__become2(r, i, &tern__op_mul, inner.x, s);
}

/* ---- products and quotients ---- */

RULE(mul_one) {
  for (uint32_t k = 0; k < 2; k++)
    if (is(r, i, k, 1) && tern__stand_in(r, i, operand(r, i, 1 - k))) return true;
  return false;
}

RULE(mul_zero) {
  const bool zero = is(r, i, 0, 0.0) || is(r, i, 1, 0.0) || is(r, i, 0, -0.0) || is(r, i, 1, -0.0);
  return exact(r, i) && zero && tern__become_number(r, i, 0);
}

RULE(mul_minus_one) {
  for (uint32_t k = 0; k < 2; k++)
    if (exact(r, i) && is(r, i, k, -1) && typed(r, i, 1 - k))
      return tern__become1(r, i, &tern__op_neg, operand(r, i, 1 - k));
  return false;
}

RULE(div_one) { return is(r, i, 1, 1) && tern__stand_in(r, i, operand(r, i, 0)); }

/* x / c as x * (1 / c). */
static bool times_inverse(tern__rewrite *r, uint32_t i, double c) {
  const uint32_t s = tern__new_scalar(r, TERN_F64, (tern_word){.f = 1 / c});
  return s != TERN__IR_NONE && tern__become2(r, i, &tern__op_mul, operand(r, i, 0), s);
}

/* Both are the exact quotient, rounded once; 1 / c must be a normal number of the dtype. */
RULE(div_power_of_two) {
  const tern_dtype d = result(r, i);
  tern_word c;
  if (!typed(r, i, 0) || !tern__is_float(d) || !number(r, operand(r, i, 1), d, &c)) return false;
  int exponent;
  const int most = d == TERN_F16 ? 14 : d == TERN_F64 ? 1000 : 120;
  if (!isfinite(c.f) || c.f == 1 || fabs(frexp(c.f, &exponent)) != 0.5) return false;
  return exponent <= most && exponent >= -most && times_inverse(r, i, c.f);
}

RULE(div_number) {
  const tern_dtype d = result(r, i);
  tern_word c;
  if (!r->fast_math || !typed(r, i, 0) || !tern__is_float(d) || !number(r, operand(r, i, 1), d, &c)) return false;
  return isnormal(c.f) && isnormal(tern__convert((tern_word){.f = 1 / c.f}, TERN_F64, d).f) && times_inverse(r, i, c.f);
}

RULE(div_self) {
  return r->fast_math && operand(r, i, 0) == operand(r, i, 1) && tern__is_float(result(r, i)) &&
         tern__become_number(r, i, 1);
}

/* Powers: 2 is x * x on every backend, 0 is 1 even of NaN; 1 makes another NaN of a NaN. */
RULE(pow_number) {
  if (is(r, i, 1, 0.0) || is(r, i, 1, -0.0)) return tern__become_number(r, i, 1);
  if (!typed(r, i, 0)) return false;
  const uint32_t x = operand(r, i, 0);
  if (is(r, i, 1, 2)) return tern__become1(r, i, &tern__op_square, x);
  if (exact(r, i) && is(r, i, 1, 1)) return tern__stand_in(r, i, x);
  if (!r->fast_math || !tern__is_float(result(r, i))) return false;
  if (is(r, i, 1, 0.5)) return tern__become1(r, i, &tern__op_sqrt, x);
  if (is(r, i, 1, -0.5)) return tern__become1(r, i, &tern__op_rsqrt, x);
  return is(r, i, 1, -1) && tern__become1(r, i, &tern__op_reciprocal, x);
}

/* ---- maximum, minimum, integer division, shifts ---- */

RULE(max_same) { return operand(r, i, 0) == operand(r, i, 1) && tern__stand_in(r, i, operand(r, i, 0)); }

RULE(max_bound) {
  const double nothing = r->g->node[i].op == &tern__op_maximum ? -INFINITY : INFINITY;
  if (!tern__is_float(result(r, i))) return false;
  for (uint32_t k = 0; k < 2; k++)
    if (is(r, i, k, nothing) && tern__stand_in(r, i, operand(r, i, 1 - k))) return true;
  return false;
}

RULE(int_by_one) {
  if (!tern__is_int(result(r, i)) || !is(r, i, 1, 1)) return false;
  if (r->g->node[i].op == &tern__op_floor_divide) return tern__stand_in(r, i, operand(r, i, 0));
  return tern__become_number(r, i, 0);
}

/* x mod x: 0, for x = 0 too. */
RULE(int_by_self) {
  return tern__is_int(result(r, i)) && operand(r, i, 0) == operand(r, i, 1) && tern__become_number(r, i, 0);
}

RULE(shift_zero) { return is(r, i, 1, 0) && tern__stand_in(r, i, operand(r, i, 0)); }

/* ---- operands ---- */

/* The dtype in which the node's operands [first, n) meet when operand k is a host scalar of dtype weak. */
static tern_dtype met(const tern__rewrite *r, uint32_t i, uint32_t first, uint32_t n, uint32_t k, tern_dtype weak) {
  tern_tensor t[3];
  tern_tensor *in[3];
  for (uint32_t j = first; j < n; j++) {
    const uint32_t v = operand(r, i, j);
    in[j] = v == TERN__IR_NONE ? TERN_NONE : &t[j];
    if (v == TERN__IR_NONE) continue;
    const bool is_weak = (j == k && weak) || r->g->value[v].weak;
    t[j].flags = is_weak ? TERN__WEAK : 0;
    t[j].dtype = j == k && weak ? (uint8_t)weak : r->g->value[v].dtype;
  }
  const tern__call c = {.op = r->g->node[i].op, .in = in, .n_in = (int)n};
  return tern__meet(&c, (int)first, (int)(n - first));
}

/* Whether the operands but k give the result's shape and there is one with a device among them. */
static bool shape_without(const tern__rewrite *r, uint32_t i, uint32_t k) {
  const tern__ir_node *n = &r->g->node[i];
  const tern__ir_value *out = &r->g->value[n->first_out];
  int64_t size[TERN_MAX_RANK];
  int rank = -1;
  for (int d = 0; d < TERN_MAX_RANK; d++) size[d] = 1;
  for (uint32_t j = 0; j < n->n_in; j++) {
    if (j == k || n->in[j] == TERN__IR_NONE || r->g->value[n->in[j]].weak) continue;
    const tern__ir_value *v = &r->g->value[n->in[j]];
    if (v->rank > rank) rank = v->rank;
    for (int d = 0; d < v->rank; d++)
      if (v->shape[d] != 1) size[TERN_MAX_RANK - v->rank + d] = v->shape[d];
  }
  if (rank != out->rank) return false;
  for (int d = 0; d < rank; d++)
    if (size[TERN_MAX_RANK - rank + d] != out->shape[d]) return false;
  return true;
}

/* A tensor of equal elements as a host scalar: no memory is read. Only where it is cast to the same number. */
RULE(full_to_scalar) {
  const tern__ir_node *n = &r->g->node[i];
  const uint32_t first = n->op == &tern__op_where, n_in = n->n_in, x = n->op == &tern__op_clip; /* x stays one */
  for (uint32_t k = first + x; k < n_in; k++) {
    tern_word w, s;
    tern_dtype from;
    const uint32_t v = operand(r, i, k);
    if (v == TERN__IR_NONE || r->g->value[v].weak || !tern__uniform(r->g, v, &w, &from) || from == TERN_BOOL) continue;
    const tern_dtype weak = tern__is_float(from) ? TERN_F64 : TERN_I64;
    const tern_dtype d = met(r, i, first, n_in, TERN__IR_NONE, TERN_NO_DTYPE);
    s = tern__convert(w, from, weak);
    if (d == TERN_BOOL || met(r, i, first, n_in, k, weak) != d || !shape_without(r, i, k)) continue;
    const tern_word as_tensor = tern__convert(w, from, d), as_scalar = tern__convert(s, weak, d);
    if (as_tensor.u != as_scalar.u) continue;
    const uint32_t scalar = tern__new_scalar(r, weak, s);
    if (scalar == TERN__IR_NONE) return false;
    r->uses[v]--;
    r->uses[scalar]++;
    r->g->node[i].in[k] = scalar;
    return true;
  }
  return false;
}
