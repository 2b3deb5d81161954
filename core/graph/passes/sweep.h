/* Loops over slices. A WHILE whose count runs from 0 to a known number, that takes slice `count` (or the count-th from
   the end) of arrays and puts slices into stacks, is what tern_scan makes. Its body is rewritten to take and give the
   slices themselves, and the run hands it memory inside the arrays: nothing is copied, no condition runs. */
#ifndef TERN_GRAPH_PASSES_SWEEP_H_
#define TERN_GRAPH_PASSES_SWEEP_H_
#include "graph/ir/ir.h"

/* What becomes of operand k of such a WHILE: attr[TERN__SWEEP_WAY + k]. Of a state it also says what its result is. */
typedef enum tern__sweep_way {
  TERN__SWEEP_WHOLE = 0,
  TERN__SWEEP_SLICE, /* an array of which trip i takes slice i */
  TERN__SWEEP_BACK,  /* slice trips - 1 - i */
  TERN__SWEEP_STACK, /* a state that is nothing but a stack: trip i makes slice i. The operand is not read */
  TERN__SWEEP_STACK_BACK
} tern__sweep_way;
/* Attributes of the node behind the limit. PARTS: how many times the body runs each trip, for a part each of the rows
   of those operands that have the bit ROWS besides their way (rows.h); 1: once, for all. */
enum { TERN__SWEEP_TRIPS = 1, TERN__SWEEP_PARTS = 2, TERN__SWEEP_WAY = 3, TERN__SWEEP_ROWS = 8 };

static inline bool tern__sweeps(const tern__ir_node *n) {
  return n->kind == TERN__IR_WHILE && n->n_attr > TERN__SWEEP_TRIPS;
}
static inline tern__sweep_way tern__sweep_way_of(const tern__ir_node *n, uint64_t k) {
  return (tern__sweep_way)(n->attr[TERN__SWEEP_WAY + k].i & (TERN__SWEEP_ROWS - 1));
}
/* Rewrites the WHILE nodes of g (not those of bodies) that are such loops. Sizes are numbers. The operands of stacks
   become the count, whatever its type; the nodes that nothing needs any more are dropped. */
tern_rc tern__graph_sweep(tern__graph *g);
#endif
