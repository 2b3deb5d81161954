/* Placement of a graph (TERN_PLACEMENT=auto): clusters of ops that would fuse go to the devices where the whole ends
   soonest, as place.h finds out; values are copied by `to` nodes, each to a device once. */
#ifndef TERN_GRAPH_PASSES_PLACE_GRAPH_H_
#define TERN_GRAPH_PASSES_PLACE_GRAPH_H_
#include "graph/passes/low.h"

/* Changes devices in g and inserts copies. Nodes that the program pinned, control flow, prints and updates of variables
   stay; results end where they would have been. *report: malloc'ed text for people. */
tern_rc tern__graph_place(tern__graph *g, const tern__compile_opts *opts, char **report);
#endif
