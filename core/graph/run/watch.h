/* Young programs under TERN_PLACEMENT=auto: their launches are timed one by one, so that later placements know better
   than a roofline what a kernel takes (cost.h). */
#ifndef TERN_GRAPH_RUN_WATCH_H_
#define TERN_GRAPH_RUN_WATCH_H_
#include "graph/passes/low.h"

typedef struct tern__watch tern__watch;
/* For the steps of a complete unit; NULL: nothing is to be timed (or memory is exhausted, unrecorded). Owned. */
tern__watch *tern__watch_new(tern__unit *u);
void tern__watch_free(tern__watch *w); /* NULL is allowed */
/* Whether the run that begins now is to be timed: the second to the fourth. */
bool tern__watch_takes(tern__watch *w);
/* Whether step i is, and that it took ns. */
bool tern__watch_wants(const tern__watch *w, uint32_t i);
void tern__watch_tell(tern__watch *w, uint32_t i, uint64_t ns);

/* The region of a group's launch, as it is for all sizes, and its words: what a placement asks about and what is told
   of a run are the same then. UNSUPPORTED: it is too large for one. *region is owned; *words are the unit's. Errors are
   recorded. */
tern_rc tern__unit_region(tern__unit *u, uint32_t group, tern__region **region, const tern_word **words);
#endif
