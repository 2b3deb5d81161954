/* Launches of one program that do not depend on each other. A device without queues may run them side by side, if it
   records programs; memory that branches share would keep it from that. */
#ifndef TERN_GRAPH_RUN_BRANCHES_H_
#define TERN_GRAPH_RUN_BRANCHES_H_
#include "graph/passes/low.h"

/* Whether all steps are launches on one device without queues that records programs */
bool tern__branches_possible(const tern__unit *u);
/* Before memory is planned: whether so much of the work is in branches that they should not share memory. Then the
   lifetimes of buffers are widened to all steps that may run at that time, and from[s], to[s] are the first and the
   last that may run while step s does. Both have n_steps entries. */
bool tern__branches_spread(tern__unit *u, uint32_t *from, uint32_t *to);
/* After it: whether any two steps are independent. */
bool tern__branches_any(const tern__unit *u);
#endif
