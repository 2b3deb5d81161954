/* Graph mode: a tern_graph is a tracer of kind MODE. What graph.c and session.c keep about one beside its nodes. */
#ifndef TERN_GRAPH_MODE_H_
#define TERN_GRAPH_MODE_H_
#include "graph/trace.h"
#include <tern/graph.h>

/* tern_assign and its like, and what an optimiser's update leaves in variables, in program order. */
typedef struct tern__assignment {
  uint32_t variable; /* in g->variable */
  uint32_t value;    /* that it takes; made by a node of its own, so that who uses it depends on the assignment */
} tern__assignment;

/* What unknown size number k (dims.h) stands for. */
typedef struct tern__unknown {
  int64_t size; /* as the program wrote it: -1, -2, .. */
  int axis;     /* of -1 */
} tern__unknown;

typedef struct tern__mode {
  tern__assignment *assignment;
  uint32_t n_assignments, assignment_capacity;
  tern__unknown unknown[TERN__MAX_DIMS];
  int n_unknown;
  tern_tensor **found; /* what tern_graph_tensor gave out: a reference each */
  uint32_t n_found;
  int entered; /* tern_graph_begin that have not ended, of this graph or from it */
} tern__mode;

static inline tern__tracer *tern__tracer_of_graph(const tern_graph *graph) { return (tern__tracer *)(uintptr_t)graph; }
static inline tern__tracer *tern__tracer_of(const tern_tensor *symbolic) {
  return (tern__tracer *)(void *)symbolic->storage->import;
}

/* trace.c tells of an assignment. */
tern_rc tern__mode_assigned(tern__tracer *trace, uint32_t variable, uint32_t value);
void tern__mode_end(tern__tracer *trace);
/* A size as the program sees it: -1 where it is unknown. */
int64_t tern__mode_size(const tern__tracer *trace, int64_t size);
/* "x" or "add_1", unique among the names that nobody gave; at least 128 bytes. Returns buffer. */
const char *tern__mode_name(const tern__tracer *trace, uint32_t value, char *buffer);
/* "(?, 2)"; at least 200 bytes. Returns buffer. */
const char *tern__mode_shape(const tern__tracer *trace, int rank, const int64_t *shape, char *buffer);
/* Prints a symbolic tensor or a variable: name, shape, dtype. */
void tern__mode_print(tern__tracer *trace, const tern_tensor *t);
/* The thread's default graph, made when needed; NULL with the error set. */
tern__tracer *tern__mode_default(tern__thread *t);
#endif
