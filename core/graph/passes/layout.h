/* Packed arrays. A kernel for literal sizes may ask for arguments in a layout of the device's own; this pass finds who
   asks, what is gained, and where arrays are copied into and out of such layouts. */
#ifndef TERN_GRAPH_PASSES_LAYOUT_H_
#define TERN_GRAPH_PASSES_LAYOUT_H_
#include "graph/passes/emit.h"

/* layout_pool.c: maps that may as well run behind a max_pool do. On the graph, before it is lowered. */
tern_rc tern__layout_pools(tern__graph *g);

/* A step that packs or unpacks, before or after the group at place `turn` of the order. */
typedef struct tern__layout_copy {
  uint32_t turn, from, to;         /* buffers */
  uint64_t from_offset, to_offset; /* bytes */
  bool before;
  tern__fixed_kernel *kernel;
} tern__layout_copy;

typedef struct tern__layout {
  tern__emitter **emitter; /* of each group; NULL: the pass did not look at it */
  tern__layout_copy *copy; /* in order */
  uint32_t n_copies;
} tern__layout;

/* What a program holds for its launches: kernels for literal sizes. */
typedef struct tern__layout_hold tern__layout_hold;
/* Ends a unit's or a program's hold (NULL is allowed), and the packed constants that nobody uses any more. */
void tern__layout_release(tern__layout_hold *hold);
#endif
