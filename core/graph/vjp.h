/* The gradient of a call of a tern_function, compiled: the vector-Jacobian product of its body as a function of its
   own, which computes the forward values again and the gradients of operands and variables from those of the
   results. */
#ifndef TERN_GRAPH_VJP_H_
#define TERN_GRAPH_VJP_H_
#include "graph/ir/ir.h"
#include <tern/graph.h>

typedef struct tern__vjp tern__vjp;
/* Of a body whose trace is g. NULL without an error: it cannot be (more operands than a function has, a body that steps
   an optimiser); the tape runs the body again then. name and self must outlive it. */
tern__vjp *tern__vjp_new(tern_function_body body, void *self, int n_in, int n_out, const char *name,
                         const tern__graph *g);
void tern__vjp_free(tern__vjp *v);
/* A step of a backward pass (tape.h: tern__call_rule); false with the error set. */
bool tern__vjp_run(void *vjp, const tern__grad *g, tern__random_state random, tern_tensor **din);
#endif
