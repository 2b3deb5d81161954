/* Values that wait long for a second use though they are cheap to make again then. Without a budget (remat.h) only what
   costs next to nothing is made twice. */
#ifndef TERN_GRAPH_PASSES_AGAIN_H_
#define TERN_GRAPH_PASSES_AGAIN_H_
#include "graph/ir/ir.h"

/* An activation whose gradient wants its operand (gelu, silu) leaves two arrays for the way back: the operand, and the
   result, which the gradient of the next product reads. Such a result is computed again beside the gradient: copies its
   node in front of its late users. g: with sizes that are numbers. Run after what merges equal nodes. */
tern_rc tern__graph_again(tern__graph *g);
#endif
