/* A body run eagerly and as a function, on the same operands, and the results compared. */
#ifndef TERN_TESTS_GRAPH_BOTH_H_
#define TERN_TESTS_GRAPH_BOTH_H_
#include "support/values.h"

/* Results must lie within `ulps` (of their dtype), or `absolute` of each other; functions with and without passes are
   called twice, and traced once. out (may be NULL): the eager results, borrowed from the scope. */
void both_ways(const char *name, tern_function_body body, void *self, tern_tensor *const *in, int n_in,
               tern_tensor **out, int n_out, double ulps, double absolute);
/* The two must be alike as above. */
int both_same(const char *name, int result, tern_tensor *got, tern_tensor *expected, double ulps, double absolute);
/* Gradients against differences: body gives, behind a loss of one element, its gradients by in[0, n_in). Compared with
   central differences of the loss; for float64 operands, or float32 ones of size about 1. */
void both_differences(const char *name, tern_function_body body, void *self, tern_tensor *const *in, int n_in,
                      double step, double absolute);
#endif
