/* Elementwise ops of one operand. */
#include "dispatch/dispatch.h"
#include "ops/table.h"
#include "tensor/dtype.h"
#include <tern/ops.h>

static tern_rc infer_unary(const tern__call *c, tern__request *q, tern__result *r) {
  tern_dtype d = tern__meet(c, 0, 1);
  if (c->op->first_float) d = tern__float_of(d);
  tern_rc rc = tern__check_dtype(c, d);
  if (!rc) rc = tern__space(c, q);
  if (rc) return rc;
  q->dtype = (uint8_t)d;
  tern__operand_of(q, 0, c->in[0], d);
  if (q->arg[0].dtype != d) q->want[0] = (uint8_t)d;
  const bool predicate = c->op->prim >= TERN_OP_ISNAN && c->op->prim <= TERN_OP_SIGNBIT;
  tern__result_space(q, r, predicate ? TERN_BOOL : d);
  tern__operand_out(q, 0, r->dtype, 0);
  return TERN_OK;
}

/* ---- gradients: g is that of the result y ---- */

#define RULE(id, expression)                                                               \
  static void grad_##id(const tern__grad *step, tern_tensor **din) {                       \
    tern_tensor *const g = step->dout[0], *const x = step->in[0], *const y = step->out[0]; \
    (void)x;                                                                               \
    (void)y;                                                                               \
    din[0] = expression;                                                                   \
  }
static tern_tensor *times(tern_tensor *x, double factor) { return tern_mul(x, tern_scalar(factor)); }
static tern_tensor *plus(tern_tensor *x, double term) { return tern_add(x, tern_scalar(term)); }
static tern_tensor *one_minus_square(tern_tensor *x) { return tern_sub(tern_scalar(1), tern_square(x)); }

RULE(neg, tern_neg(g))
RULE(abs, tern_mul(g, tern_sign(x)))
RULE(square, times(tern_mul(g, x), 2))
RULE(sqrt, tern_div(times(g, 0.5), y))
RULE(rsqrt, tern_mul(times(g, -0.5), tern_mul(tern_square(y), y)))
RULE(reciprocal, tern_neg(tern_mul(g, tern_square(y))))
RULE(cbrt, tern_div(g, times(tern_square(y), 3)))
RULE(exp, tern_mul(g, y))
RULE(exp2, tern_mul(times(g, 0.69314718055994530942), y))
RULE(expm1, tern_mul(g, plus(y, 1)))
RULE(log, tern_div(g, x))
RULE(log2, tern_div(times(g, 1.4426950408889634074), x))
RULE(log10, tern_div(times(g, 0.43429448190325182765), x))
RULE(log1p, tern_div(g, plus(x, 1)))
RULE(sin, tern_mul(g, tern_cos(x)))
RULE(cos, tern_neg(tern_mul(g, tern_sin(x))))
RULE(tan, tern_mul(g, plus(tern_square(y), 1)))
RULE(asin, tern_mul(g, tern_rsqrt(one_minus_square(x))))
RULE(acos, tern_neg(tern_mul(g, tern_rsqrt(one_minus_square(x)))))
RULE(atan, tern_div(g, plus(tern_square(x), 1)))
RULE(sinh, tern_mul(g, tern_cosh(x)))
RULE(cosh, tern_mul(g, tern_sinh(x)))
RULE(tanh, tern_mul(g, one_minus_square(y)))
RULE(asinh, tern_mul(g, tern_rsqrt(plus(tern_square(x), 1))))
RULE(acosh, tern_mul(g, tern_rsqrt(tern_mul(plus(x, -1), plus(x, 1)))))
RULE(atanh, tern_div(g, one_minus_square(x)))
RULE(erf, tern_mul(times(g, 1.1283791670955125739), tern_exp(tern_neg(tern_square(x)))))
RULE(erfc, tern_mul(times(g, -1.1283791670955125739), tern_exp(tern_neg(tern_square(x)))))
RULE(erfinv, tern_mul(times(g, 0.88622692545275801365), tern_exp(tern_square(y))))
RULE(sinpi, tern_mul(times(g, 3.14159265358979323846), tern_cospi(x)))
RULE(cospi, tern_mul(times(g, -3.14159265358979323846), tern_sinpi(x)))
RULE(same, g)

/* tolerances: absolute, relative, ulp; reads: TERN__KEEP bits of the gradient rule */
#define UNARY(id, primitive, types, to_float, ulps, rule, reads, text) \
  const tern__op tern__op_##id = {.name = #id,                         \
                                  .family = "map_unary",               \
                                  .operands = "x",                     \
                                  .doc = text,                         \
                                  .prim = TERN_OP_##primitive,         \
                                  .number = TERN__N_##id,              \
                                  .sample = tern__sample_x,            \
                                  .dtypes = TERN_D_##types,            \
                                  .first_float = to_float,             \
                                  .infer = infer_unary,                \
                                  .lower = tern__lower_prim,           \
                                  .absolute = (ulps)*2e-38,            \
                                  .relative = (ulps)*1.2e-7,           \
                                  .ulp = ulps,                         \
                                  .grad = rule,                        \
                                  .keeps = reads};                     \
  tern_tensor *tern_##id(tern_tensor *x) { return tern__run1(&tern__op_##id, x); }

UNARY(neg, NEG, NUM, 0, 0, grad_neg, 0, "-x")
UNARY(abs, ABS, NUM, 0, 0, grad_abs, TERN__KEEP_A, "|x|")
UNARY(sign, SIGN, NUM, 0, 0, NULL, 0, "-1, 0 or 1 by the sign of x; NaN stays")
UNARY(sqrt, SQRT, FLOAT, 1, 1, grad_sqrt, TERN__KEEP_OUT, "square root; NaN below 0")
UNARY(rsqrt, RSQRT, FLOAT, 1, 2, grad_rsqrt, TERN__KEEP_OUT, "1 / sqrt(x)")
UNARY(reciprocal, RECIPROCAL, FLOAT, 1, 1, grad_reciprocal, TERN__KEEP_OUT, "1 / x")
UNARY(cbrt, CBRT, FLOAT, 1, 4, grad_cbrt, TERN__KEEP_OUT, "cube root")
UNARY(exp, EXP, FLOAT, 1, 4, grad_exp, TERN__KEEP_OUT, "e to the x")
UNARY(exp2, EXP2, FLOAT, 1, 4, grad_exp2, TERN__KEEP_OUT, "2 to the x")
UNARY(expm1, EXPM1, FLOAT, 1, 4, grad_expm1, TERN__KEEP_OUT, "exp(x) - 1, accurate near 0")
UNARY(log, LOG, FLOAT, 1, 4, grad_log, TERN__KEEP_A, "natural logarithm")
UNARY(log2, LOG2, FLOAT, 1, 4, grad_log2, TERN__KEEP_A, "logarithm to base 2")
UNARY(log10, LOG10, FLOAT, 1, 4, grad_log10, TERN__KEEP_A, "logarithm to base 10")
UNARY(log1p, LOG1P, FLOAT, 1, 4, grad_log1p, TERN__KEEP_A, "log(1 + x), accurate near 0")
UNARY(sin, SIN, FLOAT, 1, 4, grad_sin, TERN__KEEP_A, "sine, x in radians")
UNARY(cos, COS, FLOAT, 1, 4, grad_cos, TERN__KEEP_A, "cosine, x in radians")
UNARY(tan, TAN, FLOAT, 1, 5, grad_tan, TERN__KEEP_OUT, "tangent, x in radians")
UNARY(asin, ASIN, FLOAT, 1, 4, grad_asin, TERN__KEEP_A, "inverse sine")
UNARY(acos, ACOS, FLOAT, 1, 4, grad_acos, TERN__KEEP_A, "inverse cosine")
UNARY(atan, ATAN, FLOAT, 1, 5, grad_atan, TERN__KEEP_A, "inverse tangent")
UNARY(sinh, SINH, FLOAT, 1, 4, grad_sinh, TERN__KEEP_A, "hyperbolic sine")
UNARY(cosh, COSH, FLOAT, 1, 4, grad_cosh, TERN__KEEP_A, "hyperbolic cosine")
UNARY(tanh, TANH, FLOAT, 1, 5, grad_tanh, TERN__KEEP_OUT, "hyperbolic tangent")
UNARY(asinh, ASINH, FLOAT, 1, 4, grad_asinh, TERN__KEEP_A, "inverse hyperbolic sine")
UNARY(acosh, ACOSH, FLOAT, 1, 4, grad_acosh, TERN__KEEP_A, "inverse hyperbolic cosine")
UNARY(atanh, ATANH, FLOAT, 1, 5, grad_atanh, TERN__KEEP_A, "inverse hyperbolic tangent")
UNARY(erf, ERF, FLOAT, 1, 16, grad_erf, TERN__KEEP_A, "error function")
UNARY(erfc, ERFC, FLOAT, 1, 16, grad_erfc, TERN__KEEP_A, "1 - erf(x), accurate for large x")
UNARY(erfinv, ERFINV, FLOAT, 1, 16, grad_erfinv, TERN__KEEP_OUT, "inverse of erf")
UNARY(sinpi, SINPI, FLOAT, 1, 4, grad_sinpi, TERN__KEEP_A, "sin(pi x), exact at multiples of 1/2")
UNARY(cospi, COSPI, FLOAT, 1, 4, grad_cospi, TERN__KEEP_A, "cos(pi x), exact at multiples of 1/2")
UNARY(bitwise_not, NOT, BOOLINT, 0, 0, NULL, 0, "all bits inverted; logical on bool")
UNARY(isnan, ISNAN, FLOAT, 1, 0, NULL, 0, "true where x is NaN")
UNARY(isinf, ISINF, FLOAT, 1, 0, NULL, 0, "true where x is infinite")
UNARY(isfinite, ISFINITE, FLOAT, 1, 0, NULL, 0, "true where x is finite")
UNARY(signbit, SIGNBIT, FLOAT, 1, 0, NULL, 0, "true where the sign bit is set")

/* Integers are whole already. */
static tern_tensor *rounded(const tern__op *op, tern_tensor *x) {
  if (!tern__usable(x, op->name, 1)) return NULL;
  if (tern__is_int((tern_dtype)x->dtype)) return tern__itself(x);
  return tern__run1(op, x);
}

#define ROUNDING(id, primitive, text)                          \
  const tern__op tern__op_##id = {.name = #id,                 \
                                  .family = "map_unary",       \
                                  .operands = "x",             \
                                  .doc = text,                 \
                                  .prim = TERN_OP_##primitive, \
                                  .number = TERN__N_##id,      \
                                  .sample = tern__sample_x,    \
                                  .dtypes = TERN_D_FLOAT,      \
                                  .infer = infer_unary,        \
                                  .lower = tern__lower_prim};  \
  tern_tensor *tern_##id(tern_tensor *x) { return rounded(&tern__op_##id, x); }

ROUNDING(floor, FLOOR, "round down (integers unchanged)")
ROUNDING(ceil, CEIL, "round up (integers unchanged)")
ROUNDING(round, ROUND, "round to nearest, halves to even (integers unchanged)")
ROUNDING(trunc, TRUNC, "round towards 0 (integers unchanged)")

/* ---- copies and casts ---- */

const tern__op tern__op_copy = {.name = "copy",
                                .family = "map_unary",
                                .operands = "x",
                                .doc = "x in memory of its own (tern_clone)",
                                .prim = TERN_OP_COPY,
                                .number = TERN__N_copy,
                                .sample = tern__sample_x,
                                .dtypes = TERN_D_ANY,
                                .infer = infer_unary,
                                .lower = tern__lower_prim,
                                .grad = grad_same};

tern_tensor *tern_clone(tern_tensor *x) {
  if (!tern__usable(x, "clone", 1)) return NULL;
  return x->flags & TERN__WEAK ? tern__solid(x, x->dtype == TERN_F64 ? TERN_F32 : (tern_dtype)x->dtype)
                               : tern__run1(&tern__op_copy, x);
}

tern_tensor *tern_contiguous(tern_tensor *x) {
  if (!tern__usable(x, "contiguous", 1)) return NULL;
  return x->flags & TERN__CONTIG ? tern__itself(x) : tern_clone(x);
}

static tern_rc infer_cast(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_dtype to = (tern_dtype)c->attr[0].i;
  const tern_rc rc = tern__space(c, q);
  if (rc) return rc;
  tern__operand_of(q, 0, c->in[0], to);
  q->dtype = q->arg[0].dtype;
  tern__result_space(q, r, to);
  tern__operand_out(q, 0, to, 0);
  return TERN_OK;
}

static void lower_cast(tern__builder *b) { tern__b_out(b, 0, tern__b_in(b, 0)); }

static tern_tensor *sample_cast(const tern__sample *s) {
  return tern_cast(s->x, s->d == TERN_F32 ? TERN_I32 : TERN_F32);
}

const tern__op tern__op_cast = {.name = "cast",
                                .family = "map_unary",
                                .operands = "x, dtype",
                                .doc = "x as dtype: truncates, saturates, NaN gives 0",
                                .prim = TERN_OP_CAST,
                                .number = TERN__N_cast,
                                .sample = sample_cast,
                                .dtypes = TERN_D_ANY,
                                .infer = infer_cast,
                                .lower = lower_cast,
                                .grad = grad_same};

tern_tensor *tern_cast(tern_tensor *x, tern_dtype dtype) {
  if (!tern__usable(x, "cast", 1)) return NULL;
  if (dtype <= TERN_NO_DTYPE || dtype >= TERN_DTYPE_END) {
    tern__fail(TERN_E_ARG, "cast: %d is not a dtype", (int)dtype);
    return NULL;
  }
  if (x->flags & TERN__WEAK) return tern__solid(x, dtype);
  if (x->dtype == dtype) return tern__itself(x);
  const tern_word attr = {.i = dtype};
  return tern__run(&tern__op_cast, &x, 1, &attr, 1);
}

/* ---- composites ---- */

static void lower_square(tern__builder *b) {
  const int x = tern__b_in(b, 0);
  tern__b_out(b, 0, tern__b_map2(b, TERN_OP_MUL, x, x));
}

const tern__op tern__op_square = {.name = "square",
                                  .family = "map_unary",
                                  .operands = "x",
                                  .doc = "x * x",
                                  .number = TERN__N_square,
                                  .sample = tern__sample_x,
                                  .dtypes = TERN_D_NUM,
                                  .infer = infer_unary,
                                  .lower = lower_square,
                                  .grad = grad_square,
                                  .keeps = TERN__KEEP_A};
tern_tensor *tern_square(tern_tensor *x) { return tern__run1(&tern__op_square, x); }

static tern_rc infer_logical_not(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_rc rc = tern__space(c, q);
  if (rc) return rc;
  q->dtype = q->want[0] = TERN_BOOL;
  tern__operand_of(q, 0, c->in[0], TERN_BOOL);
  tern__result_space(q, r, TERN_BOOL);
  tern__operand_out(q, 0, TERN_BOOL, 0);
  return TERN_OK;
}

const tern__op tern__op_logical_not = {.name = "logical_not",
                                       .family = "map_unary",
                                       .operands = "x",
                                       .doc = "true where x is 0",
                                       .prim = TERN_OP_NOT,
                                       .number = TERN__N_logical_not,
                                       .sample = tern__sample_x,
                                       .dtypes = TERN_D_ANY,
                                       .infer = infer_logical_not,
                                       .lower = tern__lower_prim};
tern_tensor *tern_logical_not(tern_tensor *x) { return tern__run1(&tern__op_logical_not, x); }
