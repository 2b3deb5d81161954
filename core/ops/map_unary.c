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

/* tolerances: absolute, relative, ulp */
#define UNARY(id, primitive, types, to_float, ulps, text)      \
  const tern__op tern__op_##id = {.name = #id,                 \
                                  .family = "map_unary",       \
                                  .operands = "x",             \
                                  .doc = text,                 \
                                  .prim = TERN_OP_##primitive, \
                                  .number = TERN__N_##id,      \
                                  .dtypes = TERN_D_##types,    \
                                  .first_float = to_float,     \
                                  .infer = infer_unary,        \
                                  .lower = tern__lower_prim,   \
                                  .absolute = (ulps)*2e-38,    \
                                  .relative = (ulps)*1.2e-7,   \
                                  .ulp = ulps};                \
  tern_tensor *tern_##id(tern_tensor *x) { return tern__run1(&tern__op_##id, x); }

UNARY(neg, NEG, NUM, 0, 0, "-x")
UNARY(abs, ABS, NUM, 0, 0, "|x|")
UNARY(sign, SIGN, NUM, 0, 0, "-1, 0 or 1 by the sign of x; NaN stays")
UNARY(sqrt, SQRT, FLOAT, 1, 1, "square root; NaN below 0")
UNARY(rsqrt, RSQRT, FLOAT, 1, 2, "1 / sqrt(x)")
UNARY(reciprocal, RECIPROCAL, FLOAT, 1, 1, "1 / x")
UNARY(cbrt, CBRT, FLOAT, 1, 4, "cube root")
UNARY(exp, EXP, FLOAT, 1, 4, "e to the x")
UNARY(exp2, EXP2, FLOAT, 1, 4, "2 to the x")
UNARY(expm1, EXPM1, FLOAT, 1, 4, "exp(x) - 1, accurate near 0")
UNARY(log, LOG, FLOAT, 1, 4, "natural logarithm")
UNARY(log2, LOG2, FLOAT, 1, 4, "logarithm to base 2")
UNARY(log10, LOG10, FLOAT, 1, 4, "logarithm to base 10")
UNARY(log1p, LOG1P, FLOAT, 1, 4, "log(1 + x), accurate near 0")
UNARY(sin, SIN, FLOAT, 1, 4, "sine, x in radians")
UNARY(cos, COS, FLOAT, 1, 4, "cosine, x in radians")
UNARY(tan, TAN, FLOAT, 1, 5, "tangent, x in radians")
UNARY(asin, ASIN, FLOAT, 1, 4, "inverse sine")
UNARY(acos, ACOS, FLOAT, 1, 4, "inverse cosine")
UNARY(atan, ATAN, FLOAT, 1, 5, "inverse tangent")
UNARY(sinh, SINH, FLOAT, 1, 4, "hyperbolic sine")
UNARY(cosh, COSH, FLOAT, 1, 4, "hyperbolic cosine")
UNARY(tanh, TANH, FLOAT, 1, 5, "hyperbolic tangent")
UNARY(asinh, ASINH, FLOAT, 1, 4, "inverse hyperbolic sine")
UNARY(acosh, ACOSH, FLOAT, 1, 4, "inverse hyperbolic cosine")
UNARY(atanh, ATANH, FLOAT, 1, 5, "inverse hyperbolic tangent")
UNARY(erf, ERF, FLOAT, 1, 16, "error function")
UNARY(erfc, ERFC, FLOAT, 1, 16, "1 - erf(x), accurate for large x")
UNARY(erfinv, ERFINV, FLOAT, 1, 16, "inverse of erf")
UNARY(sinpi, SINPI, FLOAT, 1, 4, "sin(pi x), exact at multiples of 1/2")
UNARY(cospi, COSPI, FLOAT, 1, 4, "cos(pi x), exact at multiples of 1/2")
UNARY(bitwise_not, NOT, BOOLINT, 0, 0, "all bits inverted; logical on bool")
UNARY(isnan, ISNAN, FLOAT, 1, 0, "true where x is NaN")
UNARY(isinf, ISINF, FLOAT, 1, 0, "true where x is infinite")
UNARY(isfinite, ISFINITE, FLOAT, 1, 0, "true where x is finite")
UNARY(signbit, SIGNBIT, FLOAT, 1, 0, "true where the sign bit is set")

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
                                .dtypes = TERN_D_ANY,
                                .infer = infer_unary,
                                .lower = tern__lower_prim};

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

const tern__op tern__op_cast = {.name = "cast",
                                .family = "map_unary",
                                .operands = "x, dtype",
                                .doc = "x as dtype: truncates, saturates, NaN gives 0",
                                .prim = TERN_OP_CAST,
                                .number = TERN__N_cast,
                                .dtypes = TERN_D_ANY,
                                .infer = infer_cast,
                                .lower = lower_cast};

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
                                  .dtypes = TERN_D_NUM,
                                  .infer = infer_unary,
                                  .lower = lower_square};
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
                                       .dtypes = TERN_D_ANY,
                                       .infer = infer_logical_not,
                                       .lower = tern__lower_prim};
tern_tensor *tern_logical_not(tern_tensor *x) { return tern__run1(&tern__op_logical_not, x); }
