/* evaluate and predict: a model's figures, and its results, over many batches. */
#include "base/alloc.h"
#include "base/thread.h"
#include "nn/fit.h"
#include "nn/model.h"
#include "tensor/dtype.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tern/device.h>

int tern_evaluate_dataset(tern_model *m, tern_dataset *data, double *results, int max, const tern_run_opts *opts) {
  static const tern_run_opts none = {0};
  const tern_run_opts *o = opts ? opts : &none;
  tern_rc rc = tern__model_need(m, "evaluate", true);
  if (rc) return rc;
  if (!data) return tern__pending()[0] ? tern__recorded() : tern__fail(TERN_E_ARG, "evaluate: the dataset is NULL");
  const int n = 1 + m->n_metrics;
  double *figures = tern__calloc((size_t)n, sizeof *figures);
  const char **names = tern__calloc((size_t)n, sizeof *names);
  tern__bar bar = {.kind = tern__progress_kind(o->progress), .what = "evaluate", .steps = tern_dataset_size(data)};
  if (!figures || !names) rc = tern__fail(TERN_E_OOM, "evaluate: out of host memory");
  tern__bar_begin(&bar);
  if (!rc) rc = tern__model_test_all(m, data, o->steps, &bar, "evaluate");
  if (!rc && !tern__model_figures(m, figures)) rc = tern__recorded();
  for (int i = 0; i < n && !rc; i++) {
    names[i] = i ? tern_metric_name(m->metric[i - 1]) : "loss";
    if (i < max) results[i] = figures[i];
  }
  if (rc)
    tern__bar_end(&bar);
  else
    tern__bar_show(&bar, bar.steps, names, figures, n, true);
  free(figures);
  free(names);
  return rc ? rc : n;
}

int tern_evaluate(tern_model *m, tern_tensor *x, tern_tensor *y, double *results, int max, const tern_run_opts *opts) {
  const tern_rc rc = tern__model_need(m, "evaluate", true);
  if (rc) return rc;
  if (!x || !y) return tern__pending()[0] ? tern__recorded() : tern__fail(TERN_E_ARG, "evaluate: x or y is NULL");
  tern_dataset *d = tern__batches(x, y, NULL, opts ? opts->batch_size : 0);
  const int n = d ? tern_evaluate_dataset(m, d, results, max, opts) : tern__recorded();
  tern_dataset_release(d);
  return n;
}

/* ---- predictions: rows that grow batch by batch ---- */

typedef struct rows {
  char *data;
  size_t size, capacity; /* bytes */
  int64_t n;
  tern_shape shape; /* of a batch */
  tern_dtype dtype;
} rows;

static tern_rc add_rows(rows *r, tern_tensor *t) {
  const tern_shape s = tern_shape_get(t);
  const tern_dtype dtype = tern_dtype_get(t);
  if (s.rank < 1) return tern__fail(TERN_E_ARG, "predict: the model's result has rank 0, without a batch");
  if (r->n && (s.rank != r->shape.rank || memcmp(s.dim + 1, r->shape.dim + 1, (size_t)(s.rank - 1) * sizeof *s.dim)))
    return tern__fail(TERN_E_ARG, "predict: the results of two batches have other shapes; predict them one by one");
  const size_t bytes = (size_t)tern_size(t) * tern_dtype_size(dtype);
  if (r->size + bytes > r->capacity) {
    const size_t capacity = r->size + bytes > 2 * r->capacity ? r->size + bytes : 2 * r->capacity;
    char *more = tern__realloc(r->data, capacity);
    if (!more) return tern__fail(TERN_E_OOM, "predict: out of host memory for the results");
    r->data = more;
    r->capacity = capacity;
  }
  const tern_rc rc = tern_to_host(t, r->data + r->size, bytes);
  r->size += bytes;
  r->n += s.dim[0];
  r->shape = s;
  r->dtype = dtype;
  return rc;
}

static tern_tensor *whole(rows *r) {
  tern_shape s = r->shape;
  s.dim[0] = r->n;
  const size_t item = tern_dtype_size(r->dtype);
  return tern_constant(s, r->dtype, r->data, r->size / item);
}

tern_tensor *tern_predict_dataset(tern_model *m, tern_dataset *data, const tern_run_opts *opts) {
  static const tern_run_opts none = {0};
  const tern_run_opts *o = opts ? opts : &none;
  if (tern__model_need(m, "predict", false)) return NULL;
  if (!data) {
    if (!tern__pending()[0]) tern__fail(TERN_E_ARG, "predict: the dataset is NULL");
    return NULL;
  }
  tern_iterator *it = tern_dataset_begin(data);
  rows r = {0};
  tern_rc rc = it ? TERN_OK : tern__recorded();
  for (int64_t step = 0; !rc && (!o->steps || step < o->steps); step++) {
    TERN_SCOPE;
    tern_tensor *e[TERN_MAX_COMPONENTS];
    const int n = tern_iterator_next(it, e);
    if (n <= 0) {
      rc = n;
      break;
    }
    if (strcmp(tern_device_get(e[0]), tern_default_device())) e[0] = tern_to(e[0], tern_default_device());
    rc = tern__model_for(m, "predict", e[0]);
    tern_tensor *y = rc ? NULL : tern__model_predict(m, e[0]);
    if (!rc) rc = y ? add_rows(&r, y) : tern__recorded();
  }
  tern_iterator_end(it);
  if (!rc && !r.n) rc = tern__fail(TERN_E_ARG, "predict: the dataset has no elements");
  tern_tensor *result = rc ? NULL : whole(&r);
  free(r.data);
  return result;
}

tern_tensor *tern_predict(tern_model *m, tern_tensor *x, const tern_run_opts *opts) {
  if (tern__model_need(m, "predict", false)) return NULL;
  if (!x || tern__model_for(m, "predict", x)) return NULL;
  tern_dataset *d = tern__batches(x, NULL, NULL, opts ? opts->batch_size : 0);
  tern_tensor *result = d ? tern_predict_dataset(m, d, opts) : NULL;
  tern_dataset_release(d);
  return result;
}
