/* Graphs by hand for the tests of simplification, and what they give before and after. */
#ifndef TERN_TESTS_GRAPH_IR_SIMPLIFY_BUILD_H_
#define TERN_TESTS_GRAPH_IR_SIMPLIFY_BUILD_H_
#include "graph/passes/simplify.h"
#include "ops/table.h"
#include "ops/write.h"
#include "support/values.h"

/* Values; TERN__IR_NONE (and no error) where the op does not take its operands. A NONE operand gives NONE. */
uint32_t b_input(tern__graph *g, tern_dtype d, tern_shape shape);
uint32_t b_const(tern__graph *g, tern_tensor *t); /* t is borrowed from the scope */
uint32_t b_scalar(tern__graph *g, double x);
uint32_t b_integer(tern__graph *g, int64_t x);
uint32_t b_full(tern__graph *g, tern_shape shape, tern_dtype d, double x);
uint32_t b_empty(tern__graph *g, tern_shape shape, tern_dtype d);
uint32_t b_op(tern__graph *g, const tern__op *op, const uint32_t *in, uint32_t n_in, const tern_word *attr,
              uint32_t n_attr);
uint32_t b1(tern__graph *g, const tern__op *op, uint32_t a);
uint32_t b2(tern__graph *g, const tern__op *op, uint32_t a, uint32_t b);
uint32_t b3(tern__graph *g, const tern__op *op, uint32_t a, uint32_t b, uint32_t c);
uint32_t b_cast(tern__graph *g, uint32_t a, tern_dtype d);
uint32_t b_reduce(tern__graph *g, const tern__op *op, uint32_t a, unsigned axes, bool keepdims);
uint32_t b_reshape(tern__graph *g, uint32_t a, tern_shape shape);
uint32_t b_expand(tern__graph *g, uint32_t a, tern_shape shape);
uint32_t b_permute(tern__graph *g, uint32_t a, const int *order);
/* dropped: an axis or -1; part[3 d ..]: first, step, count of axis d. */
uint32_t b_slice(tern__graph *g, uint32_t a, int dropped, const int64_t *part);
/* source into the part of whole that begins at first[] and has the source's or the given sizes. */
uint32_t b_write(tern__graph *g, uint32_t whole, uint32_t source, const int64_t *first, tern_shape sizes);

/* A tensor of shape and dtype with NaN, infinities, zeros of both signs, denormals and numbers between. */
tern_tensor *b_special(tern_shape shape, tern_dtype d, uint64_t *seed);
/* Runs g with special inputs, simplifies it, runs it again: whether the outputs are the same bits (close: within
   1e-5). Checks the order of the result. Frees g. *left: how many nodes are left that are no leaves; where not NULL,
   out_kind: the kind of the node of output 0, out_op its op. */
typedef struct b_result {
  uint32_t nodes, all;
  uint8_t kind;
  const tern__op *op;
  bool same;
} b_result;
b_result b_try(tern__graph *g, bool fast_math);
#endif
