/* A graph run node by node by the eager core, to compare what passes leave with what was there. */
#ifndef TERN_TESTS_GRAPH_IR_INTERPRET_H_
#define TERN_TESTS_GRAPH_IR_INTERPRET_H_
#include "graph/ir/ir.h"

/* in[]: the inputs' values, in order; out[]: the outputs', borrowed from the scope (TERN_NONE where the graph has
   none). Variables are read but not assigned: after_variables (may be NULL) gets what each ends with. PRINT does
   nothing. */
tern_rc interpret(const tern__graph *g, tern_tensor *const *in, tern_tensor **out);
tern_rc interpret_with(const tern__graph *g, tern_tensor *const *in, tern_tensor **out, tern_tensor **after_variables);
#endif
