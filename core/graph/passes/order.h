/* When launches run, beyond what comes before what. */
#ifndef TERN_GRAPH_PASSES_ORDER_H_
#define TERN_GRAPH_PASSES_ORDER_H_
#include "graph/passes/low.h"

/* Moves launches that free more memory than they take to where they first can run: an update of a weight, which stands
   at the end of its graph, would hold what its gradient is made of until then. head: of each group, the group that it
   is launched with; first_reader, readers: of each buffer the ops that read it, an entry an operand. */
tern_rc tern__order_early(tern__unit *u, const uint32_t *head, const uint32_t *first_reader, const uint32_t *readers);
#endif
