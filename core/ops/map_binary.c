/* Elementwise ops of two and three operands. */
#include "dispatch/dispatch.h"
#include "ops/table.h"
#include "tensor/dtype.h"
#include <tern/ops.h>

/* The dtype that the op computes in. */
static tern_dtype compute_dtype(const tern__call *c) {
  const tern_dtype d = tern__meet(c, 0, c->n_in);
  if (!c->op->first_float || tern__is_float(d)) return d;
  return c->op->prim == TERN_OP_DIV ? TERN_F64 : tern__float_of(d);
}

/* Operands [0, n) of the call into the request, cast to d. */
static void take_operands(const tern__call *c, tern__request *q, tern_dtype d) {
  for (int i = 0; i < c->n_in; i++) {
    tern__operand_of(q, i, c->in[i], d);
    if (q->arg[i].dtype != d) q->want[i] = (uint8_t)d;
  }
}

static tern_rc infer_with(const tern__call *c, tern__request *q, tern__result *r, tern_dtype d, tern_dtype out) {
  tern_rc rc = tern__check_dtype(c, d);
  if (!rc) rc = tern__space(c, q);
  if (rc) return rc;
  q->dtype = (uint8_t)d;
  take_operands(c, q, d);
  tern__result_space(q, r, out);
  tern__operand_out(q, 0, out, 0);
  return TERN_OK;
}

static tern_rc infer_binary(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_dtype d = compute_dtype(c);
  return infer_with(c, q, r, d, d);
}

static tern_rc infer_compare(const tern__call *c, tern__request *q, tern__result *r) {
  return infer_with(c, q, r, compute_dtype(c), TERN_BOOL);
}

static tern_rc infer_logical(const tern__call *c, tern__request *q, tern__result *r) {
  return infer_with(c, q, r, TERN_BOOL, TERN_BOOL);
}

/* add and mul of bool are or and and. */
static void lower_add_mul(tern__builder *b) {
  const tern__request *q = tern__b_request(b);
  const uint32_t logical = q->op->prim == TERN_OP_ADD ? TERN_OP_OR : TERN_OP_AND;
  tern__b_out(b, 0, tern__b_map2(b, q->dtype == TERN_BOOL ? logical : q->op->prim, tern__b_in(b, 0), tern__b_in(b, 1)));
}

/* ---- gradients: g is that of the result y ---- */

static bool wants(const tern__grad *s, int i) { return s->wanted >> i & 1; }
#define RULE(id, of_a, of_b)                                                                                       \
  static void grad_##id(const tern__grad *step, tern_tensor **din) {                                               \
    tern_tensor *const g = step->dout[0], *const a = step->in[0], *const b = step->in[1], *const y = step->out[0]; \
    (void)a;                                                                                                       \
    (void)b;                                                                                                       \
    (void)y;                                                                                                       \
    if (wants(step, 0)) din[0] = of_a;                                                                             \
    if (wants(step, 1)) din[1] = of_b;                                                                             \
  }
static tern_tensor *zero(void) { return tern_scalar(0); }
static tern_tensor *square_sum(tern_tensor *a, tern_tensor *b) { return tern_add(tern_square(a), tern_square(b)); }
/* b a^(b-1), 0 where b is 0: there a is left out too, or the infinite slope at a = 0 would make the next derivative
   NaN */
static tern_tensor *pow_by_a(tern_tensor *a, tern_tensor *b) {
  tern_tensor *none = tern_equal(b, zero()), *base = tern_where(none, tern_scalar(1), a);
  return tern_where(none, zero(), tern_mul(b, tern_pow(base, tern_sub(b, tern_scalar(1)))));
}
/* a^b log a, 0 where a is 0 */
static tern_tensor *pow_by_b(tern_tensor *a, tern_tensor *y) {
  tern_tensor *none = tern_equal(a, zero());
  return tern_where(none, zero(), tern_mul(y, tern_log(tern_where(none, tern_scalar(1), a))));
}

RULE(add, g, g)
RULE(sub, g, tern_neg(g))
RULE(mul, tern_mul(g, b), tern_mul(g, a))
RULE(div, tern_div(g, b), tern_neg(tern_div(tern_mul(g, y), b)))
RULE(remainder, g, tern_neg(tern_mul(g, tern_floor_divide(a, b))))
RULE(fmod, g, tern_neg(tern_mul(g, tern_trunc(tern_div(a, b)))))
RULE(pow, tern_mul(g, pow_by_a(a, b)), tern_mul(g, pow_by_b(a, y)))
/* of equals the first gets all */
RULE(maximum, tern_where(tern_greater_equal(a, b), g, zero()), tern_where(tern_greater_equal(a, b), zero(), g))
RULE(minimum, tern_where(tern_less_equal(a, b), g, zero()), tern_where(tern_less_equal(a, b), zero(), g))
RULE(atan2, tern_div(tern_mul(g, b), square_sum(a, b)), tern_neg(tern_div(tern_mul(g, a), square_sum(a, b))))
RULE(hypot, tern_div(tern_mul(g, a), y), tern_div(tern_mul(g, b), y))
RULE(copysign, tern_mul(tern_copysign(g, tern_mul(g, b)), tern_sign(a)), TERN_NONE)
RULE(logaddexp, tern_mul(g, tern_exp(tern_sub(a, y))), tern_mul(g, tern_exp(tern_sub(b, y))))

/* reads: TERN__KEEP bits of the gradient rule */
#define BINARY_(id, primitive, types, to_float, ulps, text, inference, lowering, rule, reads) \
  const tern__op tern__op_##id = {.name = #id,                                                \
                                  .family = "map_binary",                                     \
                                  .operands = "a, b",                                         \
                                  .doc = text,                                                \
                                  .prim = primitive,                                          \
                                  .number = TERN__N_##id,                                     \
                                  .sample = tern__sample_xy,                                  \
                                  .dtypes = types,                                            \
                                  .first_float = to_float,                                    \
                                  .infer = inference,                                         \
                                  .lower = lowering,                                          \
                                  .absolute = (ulps)*2e-38,                                   \
                                  .relative = (ulps)*1.2e-7,                                  \
                                  .ulp = ulps,                                                \
                                  .grad = rule,                                               \
                                  .keeps = reads};                                            \
  tern_tensor *tern_##id(tern_tensor *a, tern_tensor *b) { return tern__run2(&tern__op_##id, a, b); }
#define BINARY(id, primitive, types, to_float, ulps, rule, reads, text) \
  BINARY_(id, TERN_OP_##primitive, TERN_D_##types, to_float, ulps, text, infer_binary, tern__lower_prim, rule, reads)
#define COMPARE(id, primitive, text) \
  BINARY_(id, TERN_OP_##primitive, TERN_D_ANY, 0, 0, text, infer_compare, tern__lower_prim, NULL, 0)
#define LOGICAL(id, primitive, text) \
  BINARY_(id, TERN_OP_##primitive, TERN_D_ANY, 0, 0, text, infer_logical, tern__lower_prim, NULL, 0)

BINARY_(add, TERN_OP_ADD, TERN_D_ANY, 0, 0, "a + b; on bool: or", infer_binary, lower_add_mul, grad_add, 0)
BINARY_(mul, TERN_OP_MUL, TERN_D_ANY, 0, 0, "a * b; on bool: and", infer_binary, lower_add_mul, grad_mul,
        TERN__KEEP_A | TERN__KEEP_B)
BINARY(sub, SUB, NUM, 0, 0, grad_sub, 0, "a - b")
BINARY(div, DIV, FLOAT, 1, 1, grad_div, TERN__KEEP_B | TERN__KEEP_OUT, "a / b; integers give float64")
BINARY(floor_divide, FLOORDIV, NUM, 0, 0, NULL, 0, "floor(a / b); integers by 0 give 0")
BINARY(remainder, MOD, NUM, 0, 0, grad_remainder, TERN__KEEP_A | TERN__KEEP_B,
       "a - b * floor(a / b), the sign of b; integers by 0 give 0")
BINARY(fmod, FMOD, NUM, 0, 0, grad_fmod, TERN__KEEP_A | TERN__KEEP_B, "remainder with the sign of a")
BINARY(pow, POW, NUM, 0, 16, grad_pow, TERN__KEEP_A | TERN__KEEP_B | TERN__KEEP_OUT, "a to the b")
BINARY(maximum, MAXIMUM, ANY, 0, 0, grad_maximum, TERN__KEEP_A | TERN__KEEP_B, "the larger; NaN if either is")
BINARY(minimum, MINIMUM, ANY, 0, 0, grad_minimum, TERN__KEEP_A | TERN__KEEP_B, "the smaller; NaN if either is")
BINARY(atan2, ATAN2, FLOAT, 1, 6, grad_atan2, TERN__KEEP_A | TERN__KEEP_B, "angle of the point (b, a)")
BINARY(hypot, HYPOT, FLOAT, 1, 4, grad_hypot, TERN__KEEP_A | TERN__KEEP_B | TERN__KEEP_OUT,
       "sqrt(a*a + b*b) without overflow")
BINARY(copysign, COPYSIGN, FLOAT, 1, 0, grad_copysign, TERN__KEEP_A | TERN__KEEP_B, "|a| with the sign of b")
BINARY(nextafter, NEXTAFTER, F32UP, 1, 0, NULL, 0, "the next number after a towards b")
COMPARE(equal, EQ, "a == b")
COMPARE(not_equal, NE, "a != b")
COMPARE(less, LT, "a < b")
COMPARE(less_equal, LE, "a <= b")
COMPARE(greater, GT, "a > b")
COMPARE(greater_equal, GE, "a >= b")
LOGICAL(logical_and, AND, "both nonzero")
LOGICAL(logical_or, OR, "either nonzero")
LOGICAL(logical_xor, XOR, "just one nonzero")
BINARY(bitwise_and, AND, BOOLINT, 0, 0, NULL, 0, "bits of both")
BINARY(bitwise_or, OR, BOOLINT, 0, 0, NULL, 0, "bits of either")
BINARY(bitwise_xor, XOR, BOOLINT, 0, 0, NULL, 0, "bits of just one")
BINARY(left_shift, SHL, INT, 0, 0, NULL, 0, "a shifted left by b bits; b of the width or more gives 0")
BINARY(right_shift, SHR, INT, 0, 0, NULL, 0, "a shifted right by b bits, arithmetic on signed integers")

/* max + log1p(exp(-|a - b|)), and a + log 2 where the two are equal (also when both are infinite) */
static void lower_logaddexp(tern__builder *b) {
  const tern__request *q = tern__b_request(b);
  const tern_dtype wide = q->dtype == TERN_F64 ? TERN_F64 : TERN_F32;
  const int x = tern__b_cast(b, tern__b_in(b, 0), wide), y = tern__b_cast(b, tern__b_in(b, 1), wide);
  const int gap = tern__b_map1(b, TERN_OP_NEG, tern__b_map1(b, TERN_OP_ABS, tern__b_map2(b, TERN_OP_SUB, x, y)));
  const int far = tern__b_map2(b, TERN_OP_ADD, tern__b_map2(b, TERN_OP_MAXIMUM, x, y),
                               tern__b_map1(b, TERN_OP_LOG1P, tern__b_map1(b, TERN_OP_EXP, gap)));
  const int twice = tern__b_map2(b, TERN_OP_ADD, x, tern__b_const(b, wide, 0.69314718055994530942));
  tern__b_out(b, 0, tern__b_where(b, tern__b_map2(b, TERN_OP_EQ, x, y), twice, far));
}
BINARY_(logaddexp, 0, TERN_D_FLOAT, 1, 8, "log(exp(a) + exp(b)) without overflow", infer_binary, lower_logaddexp,
        grad_logaddexp, TERN__KEEP_A | TERN__KEEP_B | TERN__KEEP_OUT)

/* ---- three operands ---- */

static tern_rc infer_where(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_dtype d = tern__meet(c, 1, 2);
  const tern_rc rc = tern__space(c, q);
  if (rc) return rc;
  q->dtype = (uint8_t)d;
  take_operands(c, q, d);
  tern__operand_of(q, 0, c->in[0], TERN_BOOL);
  q->want[0] = q->arg[0].dtype == TERN_BOOL ? 0 : TERN_BOOL;
  tern__result_space(q, r, d);
  tern__operand_out(q, 0, d, 0);
  return TERN_OK;
}

static void grad_where(const tern__grad *step, tern_tensor **din) {
  if (wants(step, 1)) din[1] = tern_where(step->in[0], step->dout[0], zero());
  if (wants(step, 2)) din[2] = tern_where(step->in[0], zero(), step->dout[0]);
}

static tern_tensor *sample_where(const tern__sample *s) {
  return tern_where(tern_ones((tern_shape){2, {2, 3}}, TERN_BOOL), s->x, s->y);
}

const tern__op tern__op_where = {.name = "where",
                                 .family = "map_binary",
                                 .operands = "condition, a, b",
                                 .doc = "a where condition is true, else b",
                                 .prim = TERN_OP_WHERE,
                                 .number = TERN__N_where,
                                 .sample = sample_where,
                                 .dtypes = TERN_D_ANY,
                                 .infer = infer_where,
                                 .lower = tern__lower_prim,
                                 .grad = grad_where,
                                 .keeps = TERN__KEEP_A};

tern_tensor *tern_where(tern_tensor *condition, tern_tensor *a, tern_tensor *b) {
  tern_tensor *const in[] = {condition, a, b};
  return tern__run(&tern__op_where, in, 3, NULL, 0);
}

/* attr 0 of the request: which bounds there are (1 low, 2 high); those that are follow x. */
static tern_rc infer_clip(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_dtype d = tern__meet(c, 0, 3);
  tern_rc rc = tern__check_dtype(c, d);
  if (!rc) rc = tern__space(c, q);
  if (rc) return rc;
  int n = 0;
  q->dtype = (uint8_t)d;
  q->n_attrs = 1;
  q->attr[0].u = 0;
  for (int i = 0; i < 3; i++) {
    if (c->in[i] == TERN_NONE) continue;
    if (i) q->attr[0].u |= 1u << (i - 1);
    tern__operand_of(q, n, c->in[i], d);
    q->want[n] = q->arg[n].dtype == d ? 0 : (uint8_t)d;
    n++;
  }
  q->n_in = (uint8_t)n;
  tern__result_space(q, r, d);
  tern__operand_out(q, 0, d, 0);
  return TERN_OK;
}

static void lower_clip(tern__builder *b) {
  const uint64_t bounds = tern__b_request(b)->attr[0].u;
  int x = tern__b_in(b, 0), next = 1;
  if (bounds & 1) x = tern__b_map2(b, TERN_OP_MAXIMUM, x, tern__b_in(b, next++));
  if (bounds & 2) x = tern__b_map2(b, TERN_OP_MINIMUM, x, tern__b_in(b, next));
  tern__b_out(b, 0, x);
}

/* Each element's gradient goes to what the element came from. */
static void grad_clip(const tern__grad *step, tern_tensor **din) {
  tern_tensor *const g = step->dout[0], *const x = step->in[0], *const low = step->in[1], *const high = step->in[2];
  tern_tensor *raised = low == TERN_NONE ? x : tern_maximum(x, low);
  tern_tensor *over = high == TERN_NONE ? TERN_NONE : tern_greater(raised, high);
  tern_tensor *under = low == TERN_NONE ? TERN_NONE : tern_less(x, low);
  tern_tensor *inner = over == TERN_NONE ? g : tern_where(over, zero(), g);
  if (wants(step, 0)) din[0] = under == TERN_NONE ? inner : tern_where(under, zero(), inner);
  if (wants(step, 1)) din[1] = tern_where(under, inner, zero());
  if (wants(step, 2)) din[2] = tern_where(over, g, zero());
}

static tern_tensor *sample_clip(const tern__sample *s) { return tern_clip(s->x, s->x, s->y); }

const tern__op tern__op_clip = {.name = "clip",
                                .family = "map_binary",
                                .operands = "x, low?, high?",
                                .doc = "x limited to [low, high]",
                                .number = TERN__N_clip,
                                .sample = sample_clip,
                                .optional = 6,
                                .dtypes = TERN_D_ANY,
                                .infer = infer_clip,
                                .lower = lower_clip,
                                .grad = grad_clip,
                                .keeps = TERN__KEEP_A | TERN__KEEP_B | TERN__KEEP_C};

tern_tensor *tern_clip(tern_tensor *x, tern_tensor *low, tern_tensor *high) {
  tern_tensor *const in[] = {x, low, high};
  if (!tern__usable(x, "clip", 1)) return NULL;
  return tern__run(&tern__op_clip, in, 3, NULL, 0);
}
