/* Reads the MAP nodes behind a DOT or CONV as a chain of post-ops: bias, activation, scale, residual. A library that
   takes such steps inside its product, or a kernel template with a slot for them, needs no loop nest then. Depends on
   tern/backend.h alone. */
#ifndef TERN_MATCH_H_
#define TERN_MATCH_H_
#include <stdbool.h>
#include <tern/backend.h>

enum match_kind {
  MATCH_ADD = 1,   /* x + v; v: operand, a bias or a residual */
  MATCH_SUB,       /* x - v */
  MATCH_MUL,       /* x * v */
  MATCH_DIV,       /* x / v */
  MATCH_MAX,       /* maximum(x, v) */
  MATCH_MIN,       /* minimum(x, v) */
  MATCH_WHERE,     /* cond ? x : v; cond: `condition` */
  MATCH_RELU,      /* maximum(x, 0) */
  MATCH_GELU_ERF,  /* x / 2 (1 + erf(x / sqrt 2)) */
  MATCH_GELU_TANH, /* x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) */
  MATCH_SIGMOID,   /* 1 / (1 + exp(-x)) */
  MATCH_SILU,      /* x / (1 + exp(-x)) */
  MATCH_SQUARE,    /* x * x */
  MATCH_UNARY,     /* the primitive `op` of x alone: TANH, NEG, ABS, SQRT, EXP, .. */
  MATCH_CAST       /* to the dtype of `out` */
};
enum match_form {
  MATCH_FULL,
  MATCH_SCALAR,
  MATCH_LAST /* 1 but in the last dim */,
  MATCH_SECOND /* .. in dim 1 */,
  MATCH_OTHER
};
typedef struct match_step {
  uint16_t kind, op;
  uint16_t form;             /* of v, against the result's shape */
  uint32_t value, condition; /* v, and WHERE's condition: values of the region, UINT32_MAX: none */
  uint32_t out;              /* the value that the step makes */
} match_step;

/* Follows value `x` (the result of a DOT, CONV, ..) through the region's MAP nodes by the longest patterns. A step is
   taken only when every use of x and of all that lies within the pattern lies inside it, and nothing within it is an
   OUT. Operands v and conditions are never computed in the region. Returns the number of steps (at most `most`);
   *whole: together they are all MAP nodes of the region, and the last one's result is its only OUT. */
uint32_t match_epilogue(const tern_region *, uint32_t x, match_step *steps, uint32_t most, bool *whole);
#endif
