/* A graph with variable sizes, for sizes that are known (dims.h). */
#ifndef TERN_GRAPH_SIZED_H_
#define TERN_GRAPH_SIZED_H_
#include "graph/dims.h"
#include "graph/ir/ir.h"

/* A copy in which marks are replaced in shapes, attributes and host scalars, the reciprocals among them too. NULL with
   the error set. dims NULL or without sizes: a copy. */
tern__graph *tern__graph_sized(const tern__graph *g, const tern__dims *dims);
/* The sizes that vary in it, as bits: what tern__graph_sized needs. */
uint32_t tern__graph_varies(const tern__graph *g);
#endif
