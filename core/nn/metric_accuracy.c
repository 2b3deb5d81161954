/* Accuracies: 1 where a prediction is right, else 0. Keras's accuracy_metrics; a label that is no class is never
   right. */
#include "nn/metric_kind.h"

const tern__metric_kind *tern__metric_accuracy_for(const tern_tensor *y_true, const tern_tensor *y_pred) {
  const int last = y_pred->rank - 1;
  if (last < 0 || y_pred->shape[last] == 1) return &tern__metric_binary_accuracy;
  if (last == 0 && y_true->rank == 1) return &tern__metric_binary_accuracy; /* one number an example */
  if (y_true->rank < y_pred->rank || (y_true->rank > 0 && y_true->shape[y_true->rank - 1] == 1))
    return &tern__metric_sparse_categorical_accuracy;
  return &tern__metric_categorical_accuracy;
}

static tern_tensor *largest(tern_tensor *x) {
  const int last = -1;
  return tern_argmax(x, &(tern_reduce_opts){.axes = &last, .n_axes = 1});
}

static tern_tensor *binary(tern_metric *m, tern_tensor *y_true, tern_tensor *y_pred) {
  if (!tern__metric_pair(m, &y_true, &y_pred)) return NULL;
  tern_tensor *yes = tern_greater(tern__metric_float(y_pred), tern_scalar(m->opts.threshold));
  tern_tensor *target = tern__metric_float(y_true);
  return target ? tern_equal(target, tern_cast(yes, (tern_dtype)target->dtype)) : NULL;
}

static bool have_classes(const tern_metric *m, const tern_tensor *y_true, const tern_tensor *y_pred) {
  return y_pred->rank > 0 ||
         tern__metric_shapes_fail(m, y_true, y_pred, "y_pred's last axis must be that of the classes");
}

static tern_tensor *categorical(tern_metric *m, tern_tensor *y_true, tern_tensor *y_pred) {
  if (!have_classes(m, y_true, y_pred) || !tern__metric_pair(m, &y_true, &y_pred)) return NULL;
  return tern_equal(largest(y_true), largest(y_pred));
}

static tern_tensor *sparse(tern_metric *m, tern_tensor *y_true, tern_tensor *y_pred) {
  tern_tensor *labels = tern__metric_labels(m, y_true, y_pred);
  return labels ? tern_equal(labels, largest(y_pred)) : NULL;
}

/* Whether fewer than k classes have more than the label's; NaN counts as more. */
static tern_tensor *in_top_k(const tern_metric *m, tern_tensor *labels, tern_tensor *y_pred) {
  const double last = (double)y_pred->shape[y_pred->rank - 1] - 1;
  y_pred = tern__metric_float(y_pred);
  tern_tensor *at = tern_clip(labels, tern_scalar_int(0), tern_scalar_int((int64_t)last));
  tern_tensor *own = tern_take_along_axis(y_pred, tern_expand_dims(at, -1), -1);
  tern_tensor *more = tern_cast(tern_logical_not(tern_less_equal(y_pred, own)), TERN_F32);
  const int axis = -1;
  tern_tensor *rank = tern_sum(more, &(tern_reduce_opts){.axes = &axis, .n_axes = 1});
  tern_tensor *right = tern_logical_and(tern_less(rank, tern_scalar(m->opts.k)), tern_equal(at, labels));
  return tern_logical_and(right, tern_squeeze(tern_isfinite(own), -1));
}

static tern_tensor *top_k(tern_metric *m, tern_tensor *y_true, tern_tensor *y_pred) {
  if (!have_classes(m, y_true, y_pred) || !tern__metric_pair(m, &y_true, &y_pred)) return NULL;
  tern_tensor *labels = largest(y_true);
  return labels ? in_top_k(m, labels, y_pred) : NULL;
}

static tern_tensor *sparse_top_k(tern_metric *m, tern_tensor *y_true, tern_tensor *y_pred) {
  tern_tensor *labels = tern__metric_labels(m, y_true, y_pred);
  return labels ? in_top_k(m, labels, y_pred) : NULL;
}

const tern__metric_kind tern__metric_binary_accuracy = {
    .name = "binary_accuracy", .larger_is_better = true, .values = binary};
const tern__metric_kind tern__metric_categorical_accuracy = {
    .name = "categorical_accuracy", .larger_is_better = true, .values = categorical};
const tern__metric_kind tern__metric_sparse_categorical_accuracy = {
    .name = "sparse_categorical_accuracy", .larger_is_better = true, .values = sparse};
const tern__metric_kind tern__metric_top_k = {
    .name = "top_k_categorical_accuracy", .larger_is_better = true, .values = top_k};
const tern__metric_kind tern__metric_sparse_top_k = {
    .name = "sparse_top_k_categorical_accuracy", .larger_is_better = true, .values = sparse_top_k};
