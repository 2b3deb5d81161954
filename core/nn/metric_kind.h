/* Kinds of metrics. Most are weighted means of one value an example: such a kind gives the values, metric.c does the
   rest. The others (metric_counts.c) keep counts of their own. */
#ifndef TERN_NN_METRIC_KIND_H_
#define TERN_NN_METRIC_KIND_H_
#include "nn/metric.h"
#include "tensor/tensor.h"

enum { TERN__METRIC_SUMS = 2 };

typedef struct tern__metric_kind {
  const char *name, *alias; /* alias: another name, or NULL */
  bool larger_is_better;
  bool only_pred; /* y_true is not looked at */
  /* One value or more an example [batch, ..], or one for the batch (rank 0). NULL: not a mean. */
  tern_tensor *(*values)(tern_metric *m, tern_tensor *y_true, tern_tensor *y_pred);
  /* Not means: adds to the sums. weights: TERN_NONE where all count 1. */
  tern_rc (*update)(tern_metric *m, tern_tensor *y_true, tern_tensor *y_pred, tern_tensor *weights);
  /* NULL: total / count. */
  tern_tensor *(*result)(tern_metric *m);
  /* The elements of its sums, in rank 1; 0: two of rank 0. NULL: 0. */
  int64_t (*elements)(const tern_metric_opts *opts);
  const char *sum[TERN__METRIC_SUMS]; /* their names; {NULL}: "total", "count" */
} tern__metric_kind;

struct tern_metric {
  const tern__metric_kind *kind;       /* of "accuracy": replaced by what the first shapes ask for */
  tern_loss_function loss;             /* where the kind is a loss */
  tern_metric_opts opts;               /* defaults filled in */
  char *name;                          /* owned */
  tern_tensor *sum[TERN__METRIC_SUMS]; /* variables, owned; frozen; float64 where the device has it, else float32 */
  int n_sums;
};

extern const tern__metric_kind tern__metric_precision, tern__metric_recall, tern__metric_auc,
    tern__metric_confusion_matrix; /* metric_counts.c */
extern const tern__metric_kind tern__metric_binary_accuracy, tern__metric_categorical_accuracy,
    tern__metric_sparse_categorical_accuracy, tern__metric_top_k, tern__metric_sparse_top_k; /* metric_accuracy.c */

/* "accuracy" for such shapes. */
const tern__metric_kind *tern__metric_accuracy_for(const tern_tensor *y_true, const tern_tensor *y_pred);

/* All give NULL with the error set, and NULL for NULL. */

/* x as float32 or, where it is that, float64. */
tern_tensor *tern__metric_float(tern_tensor *x);
/* A last axis of size 1 that only one of the two has: added to the other where that has rank 1, else dropped. */
void tern__metric_same_rank(tern_tensor **a, tern_tensor **b);
/* The two with the same rank and shape, or false with an error. */
bool tern__metric_pair(const tern_metric *m, tern_tensor **y_true, tern_tensor **y_pred);
bool tern__metric_shapes_fail(const tern_metric *m, const tern_tensor *y_true, const tern_tensor *y_pred,
                              const char *must);
/* Integer labels [..] for y_pred [.., classes]: y_true of that shape, or with 1 at the end; floats truncated. */
tern_tensor *tern__metric_labels(const tern_metric *m, tern_tensor *y_true, const tern_tensor *y_pred);
/* The weights as floats that broadcast to y, whose leading axes they have. */
tern_tensor *tern__metric_weights(const tern_metric *m, tern_tensor *weights, const tern_tensor *y);
/* a / b, 0 where b is 0. */
tern_tensor *tern__metric_ratio(tern_tensor *a, tern_tensor *b);
#endif
