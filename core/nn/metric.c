/* The metric object: its kind, its running sums, weighted means. Formulas, names and weights are Keras 3's
   (keras.metrics). Sums are variables: an update is ops and assignments, part of what is traced, off every tape. */
#include "nn/metric.h"
#include "base/alloc.h"
#include "base/string.h"
#include "device/device.h"
#include "nn/metric_kind.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- shapes ---- */

tern_tensor *tern__metric_float(tern_tensor *x) {
  if (!x || x->dtype == TERN_F64 || x->dtype == TERN_F32) return x;
  return tern_cast(x, TERN_F32);
}

void tern__metric_same_rank(tern_tensor **a, tern_tensor **b) {
  tern_tensor **more = (*a)->rank > (*b)->rank ? a : b, **less = more == a ? b : a;
  if ((*more)->rank != (*less)->rank + 1 || (*more)->shape[(*more)->rank - 1] != 1) return;
  if ((*less)->rank == 1)
    *less = tern_expand_dims(*less, -1);
  else
    *more = tern_squeeze(*more, -1);
}

bool tern__metric_shapes_fail(const tern_metric *m, const tern_tensor *y_true, const tern_tensor *y_pred,
                              const char *must) {
  char a[200], b[200];
  tern__fail(TERN_E_ARG, "metric %s: y_true has shape %s and y_pred %s; %s", m->name,
             tern__shape_text(a, y_true->rank, y_true->shape), tern__shape_text(b, y_pred->rank, y_pred->shape), must);
  return false;
}

static bool same_shape(const tern_tensor *a, const tern_tensor *b) {
  return a->rank == b->rank && !memcmp(a->shape, b->shape, a->rank * sizeof *a->shape);
}

bool tern__metric_pair(const tern_metric *m, tern_tensor **y_true, tern_tensor **y_pred) {
  const tern_tensor *a = *y_true, *b = *y_pred;
  tern__metric_same_rank(y_true, y_pred);
  if (!*y_true || !*y_pred) return false;
  return same_shape(*y_true, *y_pred) || tern__metric_shapes_fail(m, a, b, "they must be the same");
}

tern_tensor *tern__metric_labels(const tern_metric *m, tern_tensor *y_true, const tern_tensor *y_pred) {
  bool fits = y_pred->rank > 0 && (y_true->rank == y_pred->rank - 1 ||
                                   (y_true->rank == y_pred->rank && y_true->shape[y_true->rank - 1] == 1));
  for (int d = 0; d < y_pred->rank - 1 && fits; d++) fits = y_true->shape[d] == y_pred->shape[d];
  if (!fits) {
    tern__metric_shapes_fail(m, y_true, y_pred, "labels must have y_pred's axes but for the last, that of the classes");
    return NULL;
  }
  tern_tensor *labels = y_true->rank == y_pred->rank ? tern_squeeze(y_true, -1) : y_true;
  return labels && labels->dtype != TERN_I64 ? tern_cast(labels, TERN_I64) : labels;
}

tern_tensor *tern__metric_weights(const tern_metric *m, tern_tensor *weights, const tern_tensor *y) {
  tern_tensor *w = tern__metric_float(tern__solid(weights, TERN_F32));
  if (w && w->rank == y->rank + 1 && w->shape[w->rank - 1] == 1) w = tern_squeeze(w, -1);
  while (w && w->rank > 0 && w->rank < y->rank) w = tern_expand_dims(w, -1);
  if (!w) return NULL;
  bool fits = w->rank == 0 || w->rank == y->rank;
  for (int d = 0; d < w->rank && fits; d++) fits = w->shape[d] == 1 || w->shape[d] == y->shape[d];
  if (fits) return w;
  char a[200], b[200];
  tern__fail(TERN_E_ARG, "metric %s: weights of shape %s do not fit values of shape %s; give one an example", m->name,
             tern__shape_text(a, weights->rank, weights->shape), tern__shape_text(b, y->rank, y->shape));
  return NULL;
}

tern_tensor *tern__metric_ratio(tern_tensor *a, tern_tensor *b) {
  return tern_where(tern_equal(b, tern_scalar(0)), tern_zeros_like(b), tern_div(a, b));
}

/* ---- means ---- */

/* The mean over axes first .. rank - 1; x itself where there are none. */
static tern_tensor *mean_from(tern_tensor *x, int first) {
  int axes[TERN_MAX_RANK], n = 0;
  if (!x) return NULL;
  for (int d = first; d < x->rank; d++) axes[n++] = d;
  return n ? tern_mean(x, &(tern_reduce_opts){.axes = axes, .n_axes = n}) : x;
}

/* Weights brought to the rank of the values, or the values to that of the weights, as Keras does
   (reduce_to_samplewise_values). */
static bool weighted(const tern_metric *m, tern_tensor **values, tern_tensor **weights) {
  tern_tensor *v = *values, *w = tern__metric_float(tern__solid(*weights, TERN_F32));
  if (!v || !w) return false;
  if (w->rank > 0) tern__metric_same_rank(&v, &w);
  if (!v || !w) return false;
  if (v->rank > w->rank) v = mean_from(v, w->rank);
  if (!v || !(w = tern__metric_weights(m, w, v))) return false;
  if (!same_shape(w, v)) w = tern_expand(w, tern_shape_of(v->rank, v->shape));
  *values = tern_mul(v, w);
  *weights = mean_from(w, 1);
  return *values && *weights;
}

static tern_rc add_mean(tern_metric *m, tern_tensor *values, tern_tensor *weights) {
  values = tern__metric_float(values);
  tern_tensor *count = NULL;
  if (weights != TERN_NONE) {
    if (!weighted(m, &values, &weights)) return tern__recorded();
    count = tern_sum(weights, NULL);
  } else if (values) {
    count = tern_scalar(values->rank ? (double)values->shape[0] : 1); /* a size that varies stays one */
  }
  tern_tensor *total = tern_sum(mean_from(values, 1), NULL);
  if (!total || !count) return tern__recorded();
  const tern_rc rc = tern_assign_add(m->sum[0], total);
  return rc ? rc : tern_assign_add(m->sum[1], count);
}

static tern_tensor *value_of_pred(tern_metric *m, tern_tensor *y_true, tern_tensor *y_pred) {
  (void)m, (void)y_true;
  return y_pred;
}

static tern_tensor *value_of_loss(tern_metric *m, tern_tensor *y_true, tern_tensor *y_pred) {
  return m->loss(y_true, y_pred, &(tern_loss_opts){.reduction = TERN_LOSS_NONE});
}

/* Keras's metric of that name is the similarity, its loss the negative of it. */
static tern_tensor *value_of_similarity(tern_metric *m, tern_tensor *y_true, tern_tensor *y_pred) {
  return tern_neg(value_of_loss(m, y_true, y_pred));
}

static tern_tensor *value_of_square(tern_metric *m, tern_tensor *y_true, tern_tensor *y_pred) {
  y_pred = tern__metric_float(y_pred);
  if (!y_pred || !tern__metric_pair(m, &y_true, &y_pred)) return NULL;
  return tern_square(tern_sub(y_pred, tern_cast(y_true, (tern_dtype)y_pred->dtype)));
}

static tern_tensor *mean_so_far(tern_metric *m) { return tern__metric_ratio(m->sum[0], m->sum[1]); }
static tern_tensor *root_so_far(tern_metric *m) { return tern_sqrt(mean_so_far(m)); }

/* ---- kinds ---- */

/* Its first update decides what it is. */
static const tern__metric_kind accuracy = {.name = "accuracy", .alias = "acc", .larger_is_better = true};
static const tern__metric_kind mean = {.name = "mean", .only_pred = true, .values = value_of_pred};
static const tern__metric_kind root = {
    .name = "root_mean_squared_error", .values = value_of_square, .result = root_so_far};
static const tern__metric_kind squared = {.name = "mean_squared_error", .alias = "mse", .values = value_of_loss};
static const tern__metric_kind absolute = {.name = "mean_absolute_error", .alias = "mae", .values = value_of_loss};
static const tern__metric_kind similarity = {
    .name = "cosine_similarity", .larger_is_better = true, .values = value_of_similarity};
static const tern__metric_kind loss = {.values = value_of_loss}; /* of any name that the others do not have */

static const tern__metric_kind *const kinds[] = {&accuracy,
                                                 &tern__metric_binary_accuracy,
                                                 &tern__metric_categorical_accuracy,
                                                 &tern__metric_sparse_categorical_accuracy,
                                                 &tern__metric_top_k,
                                                 &tern__metric_sparse_top_k,
                                                 &tern__metric_auc,
                                                 &tern__metric_precision,
                                                 &tern__metric_recall,
                                                 &tern__metric_confusion_matrix,
                                                 &squared,
                                                 &root,
                                                 &absolute,
                                                 &similarity,
                                                 &mean};
enum { KINDS = sizeof kinds / sizeof *kinds };

#define LOSS_NAME(name) #name,
static const char *const losses[] = {TERN_LOSSES(LOSS_NAME)};
enum { LOSSES = sizeof losses / sizeof *losses };

/* NULL without an error when there is none of that name. */
static const tern__metric_kind *kind_named(const char *name) {
  for (int i = 0; i < KINDS; i++)
    if (!strcmp(name, kinds[i]->name) || (kinds[i]->alias && !strcmp(name, kinds[i]->alias))) return kinds[i];
  for (int i = 0; i < LOSSES; i++)
    if (!strcmp(name, losses[i])) return &loss;
  return NULL;
}

static tern_rc unknown(const char *name) {
  tern__string text = {0};
  tern_rc rc = TERN_OK;
  for (int i = 0; i < KINDS && !rc; i++) {
    rc = tern__string_append_format(&text, "%s%s", i ? ", " : "", kinds[i]->name);
    if (!rc && kinds[i]->alias) rc = tern__string_append_format(&text, " (%s)", kinds[i]->alias);
  }
  for (int i = 0; i < LOSSES && !rc; i++)
    if (kind_named(losses[i]) == &loss) rc = tern__string_append_format(&text, ", %s", losses[i]);
  rc = rc ? tern__fail(TERN_E_OOM, "metric: out of host memory")
          : tern__fail(TERN_E_ARG, "metric: \"%s\" is no metric; there are %s", name, text.text);
  tern__string_free(&text);
  return rc;
}

tern_rc tern__metric_check(const char *name) {
  if (!name) return tern__fail(TERN_E_ARG, "metric: the name is NULL");
  return kind_named(name) ? TERN_OK : unknown(name);
}

bool tern__metric_larger_is_better(const char *name) {
  const tern__metric_kind *kind = name ? kind_named(name) : NULL;
  return kind && kind->larger_is_better;
}

/* ---- life ---- */

static tern_rc fill_options(tern_metric *m, const tern_metric_opts *opts) {
  tern_metric_opts *o = &m->opts;
  if (opts) *o = *opts;
  o->name = NULL;
  o->threshold = o->threshold != 0 || signbit(o->threshold) ? o->threshold : 0.5;
  o->k = o->k ? o->k : 5;
  o->thresholds = o->thresholds ? o->thresholds : 200;
  if (!isfinite(o->threshold))
    return tern__fail(TERN_E_ARG, "metric %s: threshold is %g; it must be a number", m->name, o->threshold);
  if (o->k < 1) return tern__fail(TERN_E_ARG, "metric %s: k is %d; it must be 1 or more", m->name, o->k);
  if (o->thresholds < 2 || o->thresholds > 1 << 20)
    return tern__fail(TERN_E_ARG, "metric %s: thresholds is %d; it must lie in 2 .. %d", m->name, o->thresholds,
                      1 << 20);
  if (o->one_class && o->class_id < 0)
    return tern__fail(TERN_E_ARG, "metric %s: class_id is %d; classes count from 0", m->name, o->class_id);
  if (m->kind == &tern__metric_confusion_matrix && (o->classes < 1 || o->classes > 1 << 15))
    return tern__fail(TERN_E_ARG, "metric %s: classes is %d; say how many there are, 1 .. %d", m->name, o->classes,
                      1 << 15);
  return TERN_OK;
}

/* A running sum of zeros on the default device. */
static tern_tensor *make_sum(const tern_metric *m, const char *name, int64_t elements) {
  const tern__device *device = tern__device_default();
  if (!device) return NULL;
  const bool wide = !device->info.dtypes || device->info.dtypes >> TERN_F64 & 1;
  char full[200];
  snprintf(full, sizeof full, "%s/%s", m->name, name);
  const double zero = 0; /* in either dtype */
  const tern_shape shape = {elements > 0, {elements}};
  TERN_SCOPE;
  tern_tensor *first = tern_constant(shape, wide ? TERN_F64 : TERN_F32, &zero, 1);
  return first ? tern_variable(first, &(tern_variable_opts){.name = full, .frozen = 1}) : NULL;
}

static tern_rc make_sums(tern_metric *m) {
  const tern__metric_kind *kind = m->kind;
  const int64_t elements = kind->elements ? kind->elements(&m->opts) : 0;
  m->n_sums = elements ? 1 : TERN__METRIC_SUMS;
  static const char *const usual[] = {"total", "count"};
  for (int i = 0; i < m->n_sums; i++)
    if (!(m->sum[i] = make_sum(m, kind->sum[i] ? kind->sum[i] : usual[i], elements))) return tern__recorded();
  return TERN_OK;
}

tern_metric *tern_metric_new(const char *name, const tern_metric_opts *opts) {
  if (!tern__thread_get() || tern__metric_check(name)) return NULL;
  tern_metric *m = tern__calloc(1, sizeof *m);
  if (m) m->name = tern__strdup(opts && opts->name && *opts->name ? opts->name : name);
  if (!m || !m->name) {
    tern__fail(TERN_E_OOM, "metric %s: out of host memory", name);
    free(m);
    return NULL;
  }
  m->kind = kind_named(name);
  if (m->kind->values == value_of_loss || m->kind->values == value_of_similarity)
    m->loss = tern_loss_named(m->kind->name ? m->kind->name : name);
  if (!fill_options(m, opts) && !make_sums(m)) return m;
  tern_metric_release(m);
  return NULL;
}

void tern_metric_release(tern_metric *m) {
  if (!m) return;
  for (int i = 0; i < m->n_sums; i++) tern_release(m->sum[i]);
  free(m->name);
  free(m);
}

const char *tern_metric_name(const tern_metric *m) { return m ? m->name : ""; }

int tern__metric_variables(const tern_metric *m, tern_tensor **out, int max) {
  for (int i = 0; i < m->n_sums && i < max; i++) out[i] = m->sum[i];
  return m->n_sums;
}

/* ---- what they do ---- */

/* Errors of ops are given the metric's name. */
static tern_rc named(const tern_metric *m, tern_rc rc) {
  char text[200];
  snprintf(text, sizeof text, "metric %s: ", m->name);
  if (rc) tern__error_prefix(text);
  return rc;
}

static tern_rc update(tern_metric *m, tern_tensor *y_true, tern_tensor *y_pred, tern_tensor *weights) {
  TERN_SCOPE;
  TERN_NO_GRADIENT;
  y_true = tern__solid(y_true, TERN_F32);
  y_pred = tern__solid(y_pred, TERN_F32);
  if (!y_true || !y_pred) return tern__recorded();
  if (m->kind->update) return m->kind->update(m, y_true, y_pred, weights);
  const tern__metric_kind *kind = m->kind == &accuracy ? tern__metric_accuracy_for(y_true, y_pred) : m->kind;
  tern_tensor *values = kind->values(m, y_true, y_pred);
  const tern_rc rc = values ? add_mean(m, values, weights) : tern__recorded();
  if (!rc) m->kind = kind; /* shapes that do not fit decide nothing */
  return rc;
}

tern_rc tern_metric_update(tern_metric *m, tern_tensor *y_true, tern_tensor *y_pred, tern_tensor *weights) {
  if (!tern__thread_get()) return TERN_E_OOM;
  if (!m) return tern__fail(TERN_E_ARG, "metric_update: the metric is NULL");
  if (m->kind->only_pred) y_true = y_pred;
  if (!tern__usable(y_pred, m->name, 2) || !tern__usable(y_true, m->name, 1)) return tern__recorded();
  if (!weights) weights = TERN_NONE;
  if (weights != TERN_NONE && !tern__usable(weights, m->name, 3)) return tern__recorded();
  return named(m, update(m, y_true, y_pred, weights));
}

tern_tensor *tern_metric_result(tern_metric *m) {
  if (!tern__thread_get()) return NULL;
  if (!m) {
    tern__fail(TERN_E_ARG, "metric_result: the metric is NULL");
    return NULL;
  }
  TERN_SCOPE;
  TERN_NO_GRADIENT;
  tern_tensor *y = m->kind->result ? m->kind->result(m) : mean_so_far(m);
  if (y && y->rank == 0) y = tern_cast(y, TERN_F32);
  if (y) return tern_escape(y);
  named(m, TERN_E_ARG);
  return NULL;
}

tern_rc tern_metric_reset(tern_metric *m) {
  if (!tern__thread_get()) return TERN_E_OOM;
  if (!m) return tern__fail(TERN_E_ARG, "metric_reset: the metric is NULL");
  TERN_SCOPE;
  TERN_NO_GRADIENT;
  tern_rc rc = TERN_OK;
  for (int i = 0; i < m->n_sums && !rc; i++) {
    tern_tensor *zero = tern_zeros_like(m->sum[i]);
    rc = zero ? tern_assign(m->sum[i], zero) : tern__recorded();
  }
  return named(m, rc);
}
