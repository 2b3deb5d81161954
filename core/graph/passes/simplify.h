/* Simplification: dead nodes, constants, common subexpressions, identities, control flow that is decided. Results keep
   their bits (signed zeros and NaN included) unless fast_math is set. The passes take turns until nothing changes. */
#ifndef TERN_GRAPH_PASSES_SIMPLIFY_H_
#define TERN_GRAPH_PASSES_SIMPLIFY_H_
#include "graph/ir/ir.h"

typedef struct tern__simplify_opts {
  bool fast_math;      /* allow what changes rounding, the sign of zeros, NaN and infinities */
  uint64_t fold_bytes; /* the largest constant that folding makes; 0 = 64 KiB, at most 16 MiB */
  int rounds;          /* over all passes; 0 = 8 */
} tern__simplify_opts;

/* All passes, in the bodies of control nodes too, and tern__graph_compact. opts NULL: the defaults. A node whose
   operands are constants runs once, on its own device; one that fails stays as it is. On an error (no memory) the graph
   can only be freed. */
tern_rc tern__simplify(tern__graph *g, const tern__simplify_opts *opts);

/* ---- the passes alone; *changed becomes true where something was done. Bodies are left as they are ---- */

/* simplify_dead.c: nodes that no output, variable or effect needs become DEAD. */
tern_rc tern__simplify_dead(tern__graph *g, const tern__simplify_opts *opts, bool *changed);
/* simplify_rules.c: the identities of the rule table. */
tern_rc tern__simplify_rewrite(tern__graph *g, const tern__simplify_opts *opts, bool *changed);
/* fold.c: nodes of constant operands become constants. */
tern_rc tern__simplify_fold(tern__graph *g, const tern__simplify_opts *opts, bool *changed);
/* cse.c: equal nodes become one. */
tern_rc tern__simplify_common(tern__graph *g, const tern__simplify_opts *opts, bool *changed);
/* simplify_control.c: COND with a known predicate, WHILE that never runs. */
tern_rc tern__simplify_control(tern__graph *g, const tern__simplify_opts *opts, bool *changed);
#endif
