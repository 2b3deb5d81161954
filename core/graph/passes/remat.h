/* Rematerialisation: less memory for more work. While the values that are alive at one time take more than the budget,
   one of them is computed again where it is needed later instead of being kept (Chen et al., "Training deep nets with
   sublinear memory cost", 2016, choose by hand; here the cheapest byte is chosen, one at a time). */
#ifndef TERN_GRAPH_PASSES_REMAT_H_
#define TERN_GRAPH_PASSES_REMAT_H_
#include "graph/passes/low.h"

/* Copies nodes of g until the arena's lower bound is at most `budget` bytes, or nothing more can be gained. *report:
   malloc'ed text for people, or NULL. Run after what merges equal nodes. */
tern_rc tern__graph_remat(tern__graph *g, const tern__compile_opts *opts, uint64_t budget, char **report);
#endif
