/* What fuse.c and fuse_window.c share. */
#ifndef TERN_GRAPH_PASSES_FUSE_H_
#define TERN_GRAPH_PASSES_FUSE_H_
#include "graph/passes/low.h"

typedef struct tern__fuser {
  tern__unit *u;
  uint32_t *readers, *first_reader; /* ops that read each buffer, by buffer */
  uint32_t *mark, stamp;            /* of the walk, by op */
  uint32_t *stack;
} tern__fuser;

/* Whether op y, or the group that it is in, needs op `target` (or, with group != NO, anything of that group). Marks
   what it has seen with f->stamp. */
bool tern__fuse_needs(tern__fuser *f, uint32_t y, uint32_t target, uint32_t group);
/* Nests that read a convolution's result through windows are launched with it. */
void tern__fuse_windows(tern__fuser *f);
/* How operand `read` of a request sees what op `maker` makes, as strides and an offset of the result when it lies dense
   in the order of its component's positions. False: it does not stay inside, or goes backwards. */
bool tern__window_of(const tern__unit *u, uint32_t maker, uint32_t buffer, const tern__request *q,
                     const tern__operand *read, int64_t *stride, int64_t *offset);
#endif
