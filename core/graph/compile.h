/* From a graph to something that runs: simplify, place, lower, fuse, lay out, schedule, alias, plan, record. */
#ifndef TERN_GRAPH_COMPILE_H_
#define TERN_GRAPH_COMPILE_H_
#include "graph/ir/ir.h"

typedef struct tern__compile_opts {
  const char *name;          /* for messages and dumps */
  bool no_simplify, no_fuse; /* no_fuse: one launch a node */
  bool fast_math;            /* identities that may change IEEE results */
  double plan_seconds;       /* deadline of the memory planner; 0 = the default */
  uint32_t n_states;         /* results may be made in the memory of inputs [0, n_states): the states of a loop */
  uint64_t memory_budget;    /* bytes of the arena above which values are computed twice; 0 = none */
} tern__compile_opts;

typedef struct tern__program_stats {
  uint32_t nodes, launches, copies; /* of the graph; of one run */
  uint64_t arena_bytes, arena_bound, naive_bytes, constant_bytes;
  double compile_ms, kernel_ms; /* kernel_ms: of that, in the backends' compilers */
} tern__program_stats;

typedef struct tern__program tern__program;
/* Compiles a graph, which it takes over and changes (freed on failure too). NULL with the error set. */
tern__program *tern__compile(tern__graph *g, const tern__compile_opts *opts);
void tern__program_free(tern__program *p); /* waits for nothing: storages know their queues */
/* One run. in[]: tensors of the inputs' dtypes, shapes and devices; out[]: new tensors, one reference each, in no scope
   (TERN_NONE stays). Any thread; several at once take a frame each. */
tern_rc tern__program_run(tern__program *p, tern_tensor *const *in, tern_tensor **out);
const tern__program_stats *tern__program_statistics(const tern__program *p);
/* What was compiled, as it was compiled. */
const tern__graph *tern__program_graph(const tern__program *p);
/* What was fused, where, and why; malloc'ed text. */
char *tern__program_explain(const tern__program *p);
#endif
