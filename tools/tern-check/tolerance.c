/* How far a result may be from the reference. In units in the last place (ulp) of the output's dtype: the same numbers
   as in the op table (docs/ops.md), by primitive. Sums are bounded by what went into them: an error of a few eps times
   the sum of magnitudes, growing as the square root of the count (Higham, Accuracy and Stability of Numerical
   Algorithms, 4.2). */
#include "check.h"
#include <float.h>
#include <math.h>

double ulps_of(uint32_t op) {
  switch (op) {
  case TERN_OP_SQRT:
  case TERN_OP_RECIPROCAL:
  case TERN_OP_DIV: return 1;
  case TERN_OP_RSQRT: return 2;
  case TERN_OP_TAN:
  case TERN_OP_ATAN:
  case TERN_OP_TANH:
  case TERN_OP_ATANH: return 5;
  case TERN_OP_ATAN2: return 6;
  case TERN_OP_HYPOT: return 4;
  case TERN_OP_POW:
  case TERN_OP_ERF:
  case TERN_OP_ERFC:
  case TERN_OP_ERFINV: return 16;
  default: break;
  }
  const bool exact = op == TERN_OP_ABS || op == TERN_OP_SIGN || (op >= TERN_OP_FLOOR && op <= TERN_OP_TRUNC);
  return op >= TERN_OP_EXP && op <= TERN_OP_COSPI && !exact ? 4 : 0;
}

/* Spacing of dtype's numbers at magnitude x, and its smallest normal number. */
static double spacing(uint32_t dtype, double x, double *normal) {
  int e = 0, bits = 53, least = -1021;
  if (dtype == TERN_F16) bits = 11, least = -13;
  if (dtype == TERN_BF16) bits = 8, least = -125;
  if (dtype == TERN_F32) bits = 24, least = -125;
  *normal = ldexp(1, least - 1);
  frexp(x, &e);
  if (e < least || x == 0) e = least;
  return ldexp(1, e - bits);
}

static double largest(uint32_t dtype) {
  return dtype == TERN_F16 ? 65504 : dtype == TERN_BF16 ? 0x1.fep127 : dtype == TERN_F32 ? FLT_MAX : DBL_MAX;
}

static bool keeps_zero_sign(uint32_t op) {
  return op == TERN_OP_COPY || op == TERN_OP_NEG || op == TERN_OP_ABS || op == TERN_OP_COPYSIGN || op == TERN_OP_WHERE;
}

bool is_sum(uint32_t op) {
  return op == TERN_OP_SUM || op == TERN_OP_DOT || op == TERN_OP_CUMSUM ||
         (op >= TERN_OP_CONV && op <= TERN_OP_CONV_DW);
}

/* How many elements one result takes in. */
static double terms(const problem *p) {
  if (p->op == TERN_OP_DOT) return (double)p->size[p->n_space + 1];
  if (p->op >= TERN_OP_CONV && p->op <= TERN_OP_CONV_DW) return conv_terms(p);
  double n = 1;
  for (int d = 0; d < p->n_space; d++)
    if (p->role[d] != ROLE_MAP) n *= (double)p->size[d];
  return n;
}

static double composite_allowance(uint32_t dtype, double want, double ulp) {
  if (dtype == TERN_F64) return 1e-12 + 1e-12 * fabs(want);
  if (dtype == TERN_F32) return 2e-6 + 2e-5 * fabs(want);
  return 6 * ulp + (dtype == TERN_F16 ? 4e-3 : 3e-2); /* each node rounds to 8 or 11 bits */
}

bool close_enough(const problem *p, uint32_t dtype, tern_word want, tern_word got, double scale) {
  if (dtype < TERN_F16) return want.u == got.u;
  if (isnan(want.f) || isnan(got.f)) return isnan(want.f) && isnan(got.f);
  if (want.f == got.f) return !keeps_zero_sign(p->op) || signbit(want.f) == signbit(got.f);
  double normal;
  const double ulp = spacing(dtype, fabs(want.f), &normal), ulps = ulps_of(p->op);
  const bool sum = is_sum(p->op);
  const bool product = p->op == TERN_OP_PROD || p->op == TERN_OP_CUMPROD;
  const bool half = dtype == TERN_F16 || dtype == TERN_BF16;
  double allowed = 0;
  if (p->tight)
    allowed = (half ? 1 : 16) * ulp;
  else if (!p->op)
    allowed = composite_allowance(dtype, want.f, ulp);
  else if (sum)
    allowed = (dtype == TERN_F64 ? DBL_EPSILON : FLT_EPSILON) * scale * (4 + 2 * sqrt(terms(p))) + (half ? ulp : 0);
  else if (product)
    allowed = (half ? 1 : 8 + 2 * sqrt(terms(p))) * ulp;
  else if (ulps > 0)
    allowed = (half ? 1 : ulps) * ulp;
  if (isinf(want.f) || isinf(got.f)) { /* at the edge of the range either side may have rounded over it */
    const double other = isinf(want.f) ? got.f : want.f;
    return allowed > 0 && !isinf(other) && signbit(want.f) == signbit(got.f) &&
           fabs(other) >= largest(dtype) * (1 - 1e-2 * half - 4e-6);
  }
  if (allowed > 0 && fabs(want.f) < normal) allowed += normal; /* subnormal results may be flushed */
  return fabs(want.f - got.f) <= allowed;
}
