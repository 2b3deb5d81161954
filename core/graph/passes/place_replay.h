/* A placement as the program will run it, and better ones under that light. The solver's scheduler (place.h) lets
   copies wait for nothing but their value; a program's steps are given out in order by one thread, which waits where a
   value comes back from a device. */
#ifndef TERN_GRAPH_PASSES_PLACE_REPLAY_H_
#define TERN_GRAPH_PASSES_PLACE_REPLAY_H_
#include "graph/passes/place.h"

/* Improves assignment[] (which must be a valid one): everything that may be there on one device, then group by group,
   with a budget of simulated nodes. The report's makespan, copies, single and single_makespan become those of a run.
   OOM (recorded). */
tern_rc tern__place_replay(const tern__place_problem *problem, int *assignment, tern__place_report *report);
#endif
