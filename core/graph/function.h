/* What the layers above may see of a tern_function. */
#ifndef TERN_GRAPH_FUNCTION_H_
#define TERN_GRAPH_FUNCTION_H_
#include "graph/ir/ir.h"
#include <tern/graph.h>

/* Shows look() the trace that the function's newest program was made of, or the newest trace; nobody changes it
   meanwhile. Sizes may be marks of variable ones (graph/dims.h). Returns what look() does; TERN_E_ARG, recorded, when
   the function was never traced. op: for that message. */
tern_rc tern__function_look(tern_function *f, const char *op, tern_rc (*look)(void *self, const tern__graph *g),
                            void *self);
#endif
