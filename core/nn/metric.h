/* Metrics inside: a table of kinds; running sums are variables, which updates assign, so that an update is part of a
   traced function like any op. */
#ifndef TERN_NN_METRIC_H_
#define TERN_NN_METRIC_H_
#include <stdbool.h>
#include <tern/nn.h>

/* Whether larger figures of this metric are better (accuracies, auc, precision, recall). */
bool tern__metric_larger_is_better(const char *name);
/* Its variables, for moving them and for whoever resets: number, fills at most max. */
int tern__metric_variables(const tern_metric *m, tern_tensor **out, int max);
/* TERN_OK, or an error that lists the names. */
tern_rc tern__metric_check(const char *name);
#endif
