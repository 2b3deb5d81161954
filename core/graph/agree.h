/* Whether a trace with variable sizes says, for the sizes of an earlier trace, what that one says. C code between the
   ops may have computed with a mark in a way that cannot be read back (a loop over halvings, 0.1 / n), or branched on
   it; then the two differ in some node, and the function cannot be traced for variable sizes. */
#ifndef TERN_GRAPH_AGREE_H_
#define TERN_GRAPH_AGREE_H_
#include "graph/ir/ir.h"

/* Nodes, attributes, shapes, scalars and constants made while tracing are the same. text: the first difference. */
bool tern__graph_agrees(const tern__graph *a, const tern__graph *b, char *text, size_t size);
#endif
