/* Labels of losses in traced functions. A kernel makes the loss of a label that is no class NaN; where the labels are
   an argument of the function in host memory, each call looks at them first, so that it is an error as it is
   eagerly. */
#ifndef TERN_GRAPH_LABELS_H_
#define TERN_GRAPH_LABELS_H_
#include "graph/ir/ir.h"

/* While tracing: labels are classes of [0, classes), or *ignored (NULL: none is). Noted when they are an argument of
   the function on a device without a queue, whole, perhaps reshaped or widened. op: static. */
tern_rc tern__labels_note(tern__thread *t, const char *op, tern_tensor *labels, int64_t classes,
                          const int64_t *ignored);
/* Whether a call's operands in[], in the order of the graph's inputs, are classes; else the error names op, label and
   how many there are. */
bool tern__labels_ok(const tern__graph *g, tern_tensor *const *in);
#endif
