/* Superinstructions: small trees of float32 MAPs that one function computes, values between them in registers. The
   results are bit for bit those of the nodes one by one. exec_super_fn.c has the table, exec_super.c finds its patterns
   in a pass and makes the instructions. */
#ifndef TERN_CPU_EXEC_SUPER_H_
#define TERN_CPU_EXEC_SUPER_H_
#include "exec.h"

/* pattern: the tree in prefix notation, '.' an operand; the operands of fn are in that order.
   + - * /   the binary operations
   N E T R S NEG, EXP, TANH, ERF, SQRT
   Q         MUL of a value by itself, with one child
   < L =     WHERE of LT, LE, EQ: the two that are compared, then the two that are chosen from */
typedef struct x_super {
  const char *pattern;
  x_super_fn fn;
} x_super;
extern const x_super x_super_table[];
extern const uint32_t x_super_count;

/* Replace trees of items by X_SUPER items. The list is of a pass; its items must not know each other's places yet */
void x_super_fuse(const tern_region *, const nest *, x_list *);
#endif
