/* A group on its way to a launch: gathered (which arguments, which members, which dims were merged), then made a
   region. What emit.c and layout.c share. */
#ifndef TERN_GRAPH_PASSES_EMIT_H_
#define TERN_GRAPH_PASSES_EMIT_H_
#include "graph/passes/low.h"

/* An argument: its dims by position of the component, or by number of an own size (>= TERN__EMIT_OWN). */
enum { TERN__EMIT_NONE = 255, TERN__EMIT_OWN = 64 };
typedef struct tern__emit_arg {
  uint32_t buffer, component;
  uint8_t kind, dtype, rank;
  uint8_t at[TERN_MAX_RANK]; /* NONE: size 1 */
  int64_t stride[TERN_MAX_RANK], offset;
  int32_t alias;
} tern__emit_arg;

typedef struct tern__emit_component {
  uint32_t group;
  uint16_t first_size;
  uint8_t rank;                  /* merged */
  uint8_t merged[TERN_MAX_RANK]; /* position -> merged position */
  int64_t size[TERN_MAX_RANK];   /* merged */
} tern__emit_component;

typedef struct tern__emitter {
  tern__unit *u;
  tern__emit_component *component;
  uint32_t n_components;
  tern__emit_arg *arg, *view; /* views: of results of the first component, with strides in elements of these as dense */
  uint32_t n_args, n_views;
  int64_t *own; /* sizes that only anchors have */
  uint32_t n_own;
  tern__group_member *member;
  uint32_t n_members;
  tern__lword *dynamic;
  uint32_t n_dynamic;
  tern_word *param;
  uint32_t n_params;
  /* made once all is gathered */
  tern__group g;
  tern_word *word;
  uint32_t first_param;
  const char *name; /* of the ops */
  /* of the layout pass */
  tern__fixed_kernel *kernel; /* to use; the unit holds it */
  uint32_t *twin;             /* of each argument: the buffer that it lies in packed, TERN__NO; NULL: none does */
} tern__emitter;

/* *e NULL: too large for one launch. */
tern_rc tern__emit_gather(tern__unit *u, uint32_t group, tern__emitter **e);
/* The region: for all sizes, or for just these, arguments in the layouts given (NULL: none is packed). NULL with the
   error set. Owned: free(). */
tern__region *tern__emit_region(tern__emitter *e, bool fixed, const uint64_t *layout);
/* The size that argument a has along its dim d. */
int64_t tern__emit_size(const tern__emitter *e, const tern__emit_arg *a, int d);
#endif
