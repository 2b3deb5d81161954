/* Metrics that are not means of one value an example: precision and recall, the area under the ROC curve, the confusion
   matrix. Keras's confusion_metrics. */
#include "nn/metric_kind.h"
#include "ops/loss.h"
#include <tern/device.h>

/* ---- what they share ---- */

static tern_tensor *sliced(tern_tensor *x, int64_t class) {
  tern_range ranges[TERN_MAX_RANK];
  for (int d = 0; d < x->rank - 1; d++) ranges[d] = TERN_ALL;
  ranges[x->rank - 1] = TERN_RANGE(class, class + 1, 1);
  return tern_slice(x, ranges, x->rank);
}

/* y_true as bool and y_pred as float of one shape; weights that broadcast to them, TERN_NONE staying; of class_id where
   that is set. */
static bool prepare(const tern_metric *m, tern_tensor **y_true, tern_tensor **y_pred, tern_tensor **weights) {
  if (!tern__metric_pair(m, y_true, y_pred)) return false;
  if (m->opts.one_class) {
    const int last = (*y_pred)->rank - 1;
    if (last < 1 || m->opts.class_id >= (*y_pred)->shape[last]) {
      char text[200];
      tern__fail(TERN_E_ARG, "metric %s: class_id is %d, but y_pred of shape %s has no such class in its last axis",
                 m->name, m->opts.class_id, tern__shape_text(text, (*y_pred)->rank, (*y_pred)->shape));
      return false;
    }
    *y_true = sliced(*y_true, m->opts.class_id);
    *y_pred = sliced(*y_pred, m->opts.class_id);
    if (!*y_true || !*y_pred) return false;
  }
  if (*weights != TERN_NONE) *weights = tern__metric_weights(m, *weights, *y_pred);
  *y_true = (*y_true)->dtype == TERN_BOOL ? *y_true : tern_not_equal(*y_true, tern_scalar(0));
  *y_pred = tern__metric_float(*y_pred);
  return *y_true && *y_pred && *weights;
}

static tern_tensor *times(tern_tensor *x, tern_tensor *weights) {
  return weights == TERN_NONE ? x : tern_mul(x, weights);
}

/* ---- precision and recall: true positives, and all that were predicted to be or were positive ---- */

static tern_rc add_positives(tern_metric *m, tern_tensor *y_true, tern_tensor *y_pred, tern_tensor *weights) {
  if (!prepare(m, &y_true, &y_pred, &weights)) return tern__recorded();
  const tern_dtype dtype = (tern_dtype)y_pred->dtype;
  tern_tensor *are = tern_cast(y_true, dtype);
  tern_tensor *said = tern_cast(tern_greater(y_pred, tern_scalar(m->opts.threshold)), dtype);
  tern_tensor *right = tern_sum(times(tern_mul(are, said), weights), NULL);
  tern_tensor *all = tern_sum(times(m->kind == &tern__metric_precision ? said : are, weights), NULL);
  if (!right || !all) return tern__recorded();
  const tern_rc rc = tern_assign_add(m->sum[0], right);
  return rc ? rc : tern_assign_add(m->sum[1], all);
}

const tern__metric_kind tern__metric_precision = {.name = "precision",
                                                  .larger_is_better = true,
                                                  .update = add_positives,
                                                  .sum = {"true_positives", "predicted_positives"}};
const tern__metric_kind tern__metric_recall = {
    .name = "recall", .larger_is_better = true, .update = add_positives, .sum = {"true_positives", "positives"}};

/* ---- counts by place ---- */

/* sum[0][at] += weights (or 1). at: integers of the shape of y. */
static tern_rc count_at(tern_metric *m, tern_tensor *at, tern_tensor *weights) {
  if (!at || !weights) return tern__recorded();
  const tern_dtype dtype = (tern_dtype)m->sum[0]->dtype;
  const tern_shape shape = tern_shape_of(at->rank, at->shape);
  tern_with_device(tern_device_get(at));
  tern_tensor *w = weights == TERN_NONE ? tern_ones(shape, dtype) : tern_cast(weights, dtype);
  if (w && (w->rank != at->rank || memcmp(w->shape, at->shape, at->rank * sizeof *at->shape)))
    w = tern_expand(w, shape);
  at = tern_flatten(at);
  w = tern_flatten(w);
  return at && w ? tern_assign_scatter(m->sum[0], at, w, TERN_SCATTER_ADD) : tern__recorded();
}

/* ---- area under the ROC curve ---- */

/* Thresholds 0, 1 / (n - 1), .., 1 divide the predictions into n - 1 buckets; a threshold belongs to the bucket below.
   sum[0] counts the positive ones in each, then the negative ones. Of Keras's counts, the true positives at a threshold
   are those in the buckets above. The area is the sum of trapezoids. */
static int64_t buckets(const tern_metric_opts *opts) { return 2 * ((int64_t)opts->thresholds - 1); }

static tern_rc add_buckets(tern_metric *m, tern_tensor *y_true, tern_tensor *y_pred, tern_tensor *weights) {
  if (!prepare(m, &y_true, &y_pred, &weights)) return tern__recorded();
  const int64_t n = m->opts.thresholds - 1;
  if (m->opts.from_logits) y_pred = tern_sigmoid(y_pred);
  tern_tensor *scaled = tern_mul(tern_clip(y_pred, tern_scalar(0), tern_scalar(1)), tern_scalar((double)n));
  tern_tensor *bucket = tern_maximum(tern_sub(tern_ceil(scaled), tern_scalar(1)), tern_scalar(0));
  bucket = tern_clip(tern_cast(bucket, TERN_I64), tern_scalar_int(0), tern_scalar_int(n - 1));
  return count_at(m, tern_where(y_true, bucket, tern_add(bucket, tern_scalar_int(n))), weights);
}

static tern_tensor *area(tern_metric *m) {
  tern_tensor *both = tern_reshape(m->sum[0], (tern_shape){2, {2, m->opts.thresholds - 1}});
  tern_tensor *positive = tern_index(both, 0, 0), *negative = tern_index(both, 0, 1);
  tern_tensor *above = tern_cumsum(positive, 0, &(tern_scan_opts){.reverse = 1});
  tern_tensor *heights = tern_sub(tern_mul(above, tern_scalar(2)), positive); /* above here and above the next */
  tern_tensor *all = tern_mul(tern_sum(positive, NULL), tern_sum(negative, NULL));
  return tern__metric_ratio(tern_sum(tern_mul(negative, heights), NULL), tern_mul(all, tern_scalar(2)));
}

const tern__metric_kind tern__metric_auc = {.name = "auc",
                                            .larger_is_better = true,
                                            .update = add_buckets,
                                            .result = area,
                                            .elements = buckets,
                                            .sum = {"buckets"}};

/* ---- confusion matrix ---- */

static int64_t cells(const tern_metric_opts *opts) { return (int64_t)opts->classes * opts->classes; }

static tern_tensor *largest(tern_tensor *x) {
  const int last = -1;
  return tern_argmax(x, &(tern_reduce_opts){.axes = &last, .n_axes = 1});
}

static bool is_int(const tern_tensor *x) { return x->dtype >= TERN_BOOL && x->dtype <= TERN_U64; }

/* Whether x holds classes: at once where the host can look, or when the trace runs. */
static bool in_range(const tern_metric *m, tern_tensor *x) {
  static const char op[] = "metric confusion_matrix";
  if (x->live == TERN__SYMBOLIC) return !tern__graph_listener.labels(tern__tls, op, x, m->opts.classes, NULL);
  return tern__labels_in_range(op, x, m->opts.classes, NULL, NULL);
}

/* Labels of the same shape for integers y_pred. */
static bool given_classes(const tern_metric *m, tern_tensor **y_true, tern_tensor **y_pred) {
  if (!tern__metric_pair(m, y_true, y_pred)) return false;
  if ((is_int(*y_true) && !in_range(m, *y_true)) || !in_range(m, *y_pred)) return false;
  *y_true = tern_cast(*y_true, TERN_I64);
  *y_pred = tern_cast(*y_pred, TERN_I64);
  return *y_true && *y_pred;
}

/* Classes [..] of y_pred [.., classes], or [.., 1] (more than the threshold: class 1), and of labels [..], [.., 1] or
   [.., classes]. */
static bool likely_classes(const tern_metric *m, tern_tensor **y_true, tern_tensor **y_pred) {
  tern_tensor *t = *y_true, *y = *y_pred;
  const int64_t n = y->rank ? y->shape[y->rank - 1] : 0;
  if (n < 1 || (n == 1 ? 2 : n) > m->opts.classes) {
    char text[200];
    tern__fail(TERN_E_ARG, "metric %s: y_pred has shape %s; its last axis may hold 1 to %d classes", m->name,
               tern__shape_text(text, y->rank, y->shape), m->opts.classes);
    return false;
  }
  if (n > 1 && t->rank == y->rank && t->shape[y->rank - 1] == n) {
    if (!tern__metric_pair(m, &t, &y)) return false;
    *y_true = largest(t);
  } else {
    *y_true = tern__metric_labels(m, t, y);
    if (*y_true && !in_range(m, is_int(t) ? t : *y_true)) return false;
  }
  *y_pred = n > 1 ? largest(y) : tern_cast(tern_greater(tern_squeeze(y, -1), tern_scalar(m->opts.threshold)), TERN_I64);
  return *y_true && *y_pred;
}

/* Where the host cannot look, an example whose class is none is left out. */
static tern_rc add_cells(tern_metric *m, tern_tensor *y_true, tern_tensor *y_pred, tern_tensor *weights) {
  if (!(is_int(y_pred) ? given_classes : likely_classes)(m, &y_true, &y_pred)) return tern__recorded();
  if (weights != TERN_NONE && !(weights = tern__metric_weights(m, weights, y_true))) return tern__recorded();
  tern_tensor *zero = tern_scalar_int(0), *last = tern_scalar_int(m->opts.classes - 1);
  tern_tensor *row = tern_clip(y_true, zero, last), *column = tern_clip(y_pred, zero, last);
  tern_tensor *valid = tern_cast(tern_logical_and(tern_equal(row, y_true), tern_equal(column, y_pred)), TERN_F32);
  return count_at(m, tern_add(tern_mul(row, tern_scalar_int(m->opts.classes)), column), times(valid, weights));
}

static tern_tensor *matrix(tern_metric *m) {
  return tern_reshape(m->sum[0], (tern_shape){2, {m->opts.classes, m->opts.classes}});
}

const tern__metric_kind tern__metric_confusion_matrix = {
    .name = "confusion_matrix", .update = add_cells, .result = matrix, .elements = cells, .sum = {"counts"}};
