/* fit: epochs over batches, with validation, callbacks and progress. The losses of steps are looked at as they come
   where that costs nothing, else some steps later, so that a device with a queue is not waited for at each. */
#include "base/alloc.h"
#include "base/thread.h"
#include "device/device.h"
#include "nn/callback.h"
#include "nn/fit.h"
#include "nn/metric.h"
#include "nn/model.h"
#include "tensor/tensor.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tern/device.h>

enum { LATE = 16, NAME = 96 };

typedef struct seen {    /* a step whose loss was not looked at yet */
  tern_tensor *loss, *x; /* a reference each */
  int64_t step;
} seen;

typedef struct trainer {
  tern_model *m;
  const tern_fit_opts *opts;
  tern_dataset *data, *validation; /* validation: NULL for none */
  tern_iterator *endless;          /* one that goes on from epoch to epoch */
  tern__bar bar;
  seen seen[LATE];
  int n_seen;
  char (*name)[NAME]; /* loss, metrics, then their val_ forms */
  const char **names;
  double *values;
  int n_figures; /* of training: 1 + metrics */
  tern_moment moment;
  bool per_batch, stop;
} trainer;

/* ---- callbacks ---- */

typedef enum { BEGIN, EPOCH_BEGIN, BATCH_END, EPOCH_END, END } event;

static tern_rc tell(trainer *t, event e) {
  for (int i = 0; i < t->opts->n_callbacks; i++) {
    tern_callback *c = t->opts->callbacks[i];
    int (*const f[])(void *, const tern_moment *) = {c->body.begin, c->body.epoch_begin, c->body.batch_end,
                                                     c->body.epoch_end, c->body.end};
    if (!f[e]) continue;
    const int rc = f[e](c->self, &t->moment);
    if (rc < 0) return tern__pending()[0] ? rc : tern__fail(rc, "fit: callback %d failed", i);
    if (rc == TERN_STOP_TRAINING) t->stop = true;
  }
  return TERN_OK;
}

/* ---- losses that are not finite ---- */

static void forget_seen(trainer *t) {
  for (int i = 0; i < t->n_seen; i++) {
    tern_release(t->seen[i].loss);
    tern_release(t->seen[i].x);
  }
  t->n_seen = 0;
}

static tern_rc bad_loss(trainer *t, const seen *s, double loss) {
  const tern_layer *bad = tern__model_find_bad(t->m, s->x);
  char where[300];
  if (bad)
    snprintf(where, sizeof where, "the first result that is not finite is that of layer %.100s (%.60s)",
             tern_layer_name(bad), bad->kind->name);
  else
    snprintf(where, sizeof where, "every layer's result is finite, so it is the loss itself");
  return tern__fail(TERN_E_ARG,
                    "fit: the loss of step %" PRId64 " of epoch %d is %g; %s. That step changed no weight. Look at the "
                    "inputs and labels, the learning rate, and the optimiser's clip_norm",
                    s->step + 1, t->moment.epoch + 1, loss, where);
}

static tern_rc look_at_losses(trainer *t) {
  tern_rc rc = TERN_OK;
  for (int i = 0; i < t->n_seen && !rc; i++) {
    const double loss = tern_item(t->seen[i].loss);
    if (!isfinite(loss)) rc = tern__pending()[0] ? tern__recorded() : bad_loss(t, &t->seen[i], loss);
  }
  forget_seen(t);
  return rc;
}

static tern_rc note_loss(trainer *t, tern_tensor *loss, tern_tensor *x) {
  const bool now = !loss->device->queue; /* nothing is waited for */
  t->seen[t->n_seen++] = (seen){tern_keep(loss), tern_keep(x), t->moment.step};
  return now || t->n_seen == LATE ? look_at_losses(t) : TERN_OK;
}

/* ---- an epoch ---- */

static tern_rc to_device(tern_tensor **element, int n) {
  const char *device = tern_default_device();
  for (int i = 0; i < n; i++)
    if (strcmp(tern_device_get(element[i]), device) && !(element[i] = tern_to(element[i], device)))
      return tern__recorded();
  return TERN_OK;
}

static tern_rc check_element(tern_tensor **element, int n, const char *op) {
  if (n < 2 || n > 3)
    return tern__fail(TERN_E_ARG,
                      "%s: elements of the dataset have %d components; they must be x, y and perhaps sample "
                      "weights",
                      op, n);
  for (int i = 0; i < n; i++)
    if (tern_rank(element[i]) < 1 || tern_dim(element[i], 0) < 1)
      return tern__fail(TERN_E_ARG, "%s: component %d of a batch has no rows", op, i);
  return TERN_OK;
}

/* 1: a batch was trained on; 0: there is no more. */
static int train_batch(trainer *t, tern_iterator *it) {
  TERN_SCOPE;
  tern_tensor *e[TERN_MAX_COMPONENTS];
  const int n = tern_iterator_next(it, e);
  if (n <= 0) return n;
  tern_rc rc = check_element(e, n, "fit");
  if (!rc) rc = to_device(e, n);
  if (!rc) rc = tern__model_for(t->m, "fit", e[0]);
  if (rc) return rc;
  tern_tensor *loss = tern__model_train(t->m, e[0], e[1], n > 2 ? e[2] : TERN_NONE);
  if (!loss || (rc = note_loss(t, loss, e[0]))) {
    char where[80];
    snprintf(where, sizeof where, "fit: step %" PRId64 " of epoch %d: ", t->moment.step + 1, t->moment.epoch + 1);
    if (!loss) tern__error_prefix(where);
    return loss ? rc : tern__recorded();
  }
  return 1;
}

static tern_rc after_batch(trainer *t) {
  t->moment.step++;
  const bool due = tern__bar_due(&t->bar, t->moment.step);
  if (!due && !t->per_batch) return TERN_OK;
  if (!tern__model_figures(t->m, t->values)) return tern__recorded();
  t->moment.n = t->n_figures;
  if (due) tern__bar_show(&t->bar, t->moment.step, t->names, t->values, t->n_figures, false);
  if (!t->per_batch) return TERN_OK;
  t->moment.step--;
  const tern_rc rc = tell(t, BATCH_END);
  t->moment.step++;
  return rc;
}

static tern_rc train_epoch(trainer *t) {
  const int64_t most = t->opts->steps;
  tern_iterator *it = t->endless ? t->endless : tern_dataset_begin(t->data);
  if (!it) return tern__recorded();
  int more = 1;
  tern_rc rc = tern__model_reset_figures(t->m);
  for (t->moment.step = 0; !rc && more > 0 && (!most || t->moment.step < most);) {
    more = train_batch(t, it);
    rc = more > 0 ? after_batch(t) : more;
  }
  if (!rc) rc = look_at_losses(t);
  if (!rc && !t->moment.step) rc = tern__fail(TERN_E_ARG, "fit: the dataset has no elements");
  if (!rc && more == 0 && most && t->endless) {
    tern_iterator_end(t->endless); /* it has an end after all: from the start in the next epoch */
    t->endless = tern_dataset_begin(t->data);
    if (!t->endless) rc = tern__recorded();
  }
  if (!t->endless) tern_iterator_end(it);
  if (!rc) t->bar.steps = t->moment.steps = t->moment.step;
  return rc;
}

tern_rc tern__model_test_all(tern_model *m, tern_dataset *data, int64_t most, tern__bar *bar, const char *op) {
  tern_iterator *it = tern_dataset_begin(data);
  if (!it) return tern__recorded();
  tern_rc rc = tern__model_reset_figures(m);
  int64_t step = 0;
  for (int n = 1; !rc && n > 0 && (!most || step < most);) {
    TERN_SCOPE;
    tern_tensor *e[TERN_MAX_COMPONENTS];
    n = tern_iterator_next(it, e);
    if (n <= 0) {
      rc = n;
      break;
    }
    rc = check_element(e, n, op);
    if (!rc) rc = to_device(e, n);
    if (!rc) rc = tern__model_for(m, op, e[0]);
    if (!rc && !tern__model_test(m, e[0], e[1], n > 2 ? e[2] : TERN_NONE)) rc = tern__recorded();
    step++;
    if (bar && tern__bar_due(bar, step)) tern__bar_show(bar, step, NULL, NULL, 0, false);
  }
  tern_iterator_end(it);
  if (!rc && !step) rc = tern__fail(TERN_E_ARG, "%s: the dataset has no elements", op);
  if (bar) bar->steps = step;
  return rc;
}

static tern_rc one_epoch(trainer *t) {
  t->bar.epoch = t->moment.epoch;
  t->bar.steps = t->moment.steps;
  t->moment.n = 0;
  tern_rc rc = tell(t, EPOCH_BEGIN);
  if (rc) return rc;
  tern__bar_begin(&t->bar);
  rc = train_epoch(t);
  int n = t->n_figures;
  if (!rc && !tern__model_figures(t->m, t->values)) rc = tern__recorded();
  if (!rc && t->validation) {
    rc = tern__model_test_all(t->m, t->validation, 0, NULL, "fit: validation");
    if (!rc && !tern__model_figures(t->m, t->values + n)) rc = tern__recorded();
    n *= 2;
  }
  if (rc) {
    tern__bar_end(&t->bar);
    return rc;
  }
  tern__bar_show(&t->bar, t->moment.step, t->names, t->values, n, true);
  for (int i = 0; i < n && !rc; i++) rc = tern__model_log(t->m, t->names[i], t->values[i]);
  t->moment.n = n;
  return rc ? rc : tell(t, EPOCH_END);
}

/* ---- before and after ---- */

static tern_rc make_names(trainer *t) {
  const int n = t->n_figures = 1 + t->m->n_metrics;
  t->name = tern__calloc((size_t)n * 2, sizeof *t->name);
  t->names = tern__calloc((size_t)n * 2, sizeof *t->names);
  t->values = tern__calloc((size_t)n * 2, sizeof *t->values);
  if (!t->name || !t->names || !t->values) return tern__fail(TERN_E_OOM, "fit: out of host memory");
  for (int i = 0; i < n; i++) {
    const char *name = i ? tern_metric_name(t->m->metric[i - 1]) : "loss";
    snprintf(t->name[i], NAME, "%.80s", name);
    snprintf(t->name[n + i], NAME, "val_%.80s", name);
    t->names[i] = t->name[i];
    t->names[n + i] = t->name[n + i];
  }
  return TERN_OK;
}

static tern_rc check_options(const tern_fit_opts *o) {
  if (o->epochs < 0 || o->batch_size < 0 || o->initial_epoch < 0 || o->steps < 0 || o->n_callbacks < 0)
    return tern__fail(TERN_E_ARG, "fit: epochs, batch_size, initial_epoch, steps and n_callbacks must not be negative");
  if (!(o->validation_split >= 0) || o->validation_split >= 1)
    return tern__fail(TERN_E_ARG, "fit: validation_split is %g; it must be at least 0 and below 1",
                      o->validation_split);
  if (!o->validation_x != !o->validation_y)
    return tern__fail(TERN_E_ARG, "fit: validation_x and validation_y come together");
  if ((o->validation_split > 0) + (o->validation_x != NULL) + (o->validation_data != NULL) > 1)
    return tern__fail(TERN_E_ARG, "fit: give one of validation_split, validation_x and validation_data");
  for (int i = 0; i < o->n_callbacks; i++)
    if (!o->callbacks || !o->callbacks[i])
      return tern__pending()[0] ? tern__recorded() : tern__fail(TERN_E_ARG, "fit: callback %d is NULL", i);
  return TERN_OK;
}

static tern_rc set_class_weights(tern_model *m, const tern_fit_opts *o) {
  const bool had = m->class_weights != NULL;
  if (!o->class_weights && !had) return TERN_OK;
  tern__model_drop_functions(m); /* they hold what classes counted before */
  tern_release(m->class_weights);
  m->class_weights = NULL;
  if (!o->class_weights) return TERN_OK;
  tern_scope_mark scope = tern_scope_begin();
  m->class_weights = tern_variable(
      tern_cast(tern_constant(TERN_SHAPE(o->n_classes), TERN_F64, o->class_weights, (size_t)o->n_classes), TERN_F32),
      &(tern_variable_opts){.name = "class_weights", .frozen = 1});
  tern_scope_end(&scope);
  return m->class_weights ? TERN_OK : tern__recorded();
}

static tern_rc resume(trainer *t, int *epoch) {
  tern_rc rc = TERN_OK;
  for (int i = 0; i < t->opts->n_callbacks && !rc; i++)
    if (t->opts->callbacks[i]->resume)
      rc = t->opts->callbacks[i]->resume(t->opts->callbacks[i]->self, &t->moment, epoch);
  return rc;
}

static tern_rc run(trainer *t) {
  const tern_fit_opts *o = t->opts;
  const int epochs = o->epochs ? o->epochs : 1;
  int epoch = o->initial_epoch;
  const int64_t size = tern_dataset_size(t->data);
  t->moment = (tern_moment){.model = t->m,
                            .optimizer = t->m->optimizer,
                            .epoch = epoch,
                            .epochs = epochs,
                            .steps = o->steps    ? o->steps
                                     : size >= 0 ? size
                                                 : -1,
                            .names = t->names,
                            .values = t->values};
  if (size == -1 && !o->steps)
    return tern__fail(TERN_E_ARG, "fit: the dataset has no end; give steps, batches an epoch");
  t->bar = (tern__bar){.kind = tern__progress_kind(o->progress), .epochs = epochs, .steps = t->moment.steps};
  if (o->steps && !(t->endless = tern_dataset_begin(t->data))) return tern__recorded();
  for (int i = 0; i < o->n_callbacks; i++) t->per_batch |= o->callbacks[i]->body.batch_end != NULL;
  tern_rc rc = resume(t, &epoch);
  for (int done = o->initial_epoch; !rc && !t->endless && done < epoch; done++) {
    tern_iterator *it = tern_dataset_begin(t->data); /* so that epochs have the orders that they would have had */
    if (!it) rc = tern__recorded();
    tern_iterator_end(it);
  }
  t->moment.epoch = epoch;
  if (!rc) rc = tell(t, BEGIN);
  for (; epoch < epochs && !rc && !t->stop; epoch++) {
    t->moment.epoch = epoch;
    rc = one_epoch(t);
  }
  forget_seen(t);
  if (!rc) return tell(t, END);
  return rc;
}

static void end_trainer(trainer *t) {
  forget_seen(t);
  tern_iterator_end(t->endless);
  free(t->name);
  free(t->names);
  free(t->values);
}

/* Weights exist and all fits, as the first batch shows, before anything changes. */
static tern_rc try_first(trainer *t, tern_dataset *data) {
  TERN_SCOPE;
  tern_tensor *e[TERN_MAX_COMPONENTS];
  tern_iterator *it = tern_dataset_begin(data);
  if (!it) return tern__recorded();
  const int n = tern_iterator_next(it, e);
  tern_rc rc = n < 0 ? n : !n ? tern__fail(TERN_E_ARG, "fit: the dataset has no elements") : check_element(e, n, "fit");
  if (!rc) rc = tern__model_for(t->m, "fit", e[0]);
  if (!rc) rc = tern__model_check(t->m, e[0], e[1]);
  tern_iterator_end(it);
  return rc;
}

static tern_rc fit(tern_model *m, tern_dataset *data, tern_dataset *validation, const tern_fit_opts *o, bool tried) {
  trainer t = {.m = m, .opts = o, .data = data, .validation = validation};
  tern_rc rc = set_class_weights(m, o);
  if (!rc && !tried && tern_dataset_size(data) >= 0) rc = try_first(&t, data); /* others may not begin twice */
  if (!rc) rc = make_names(&t);
  if (!rc) rc = run(&t);
  end_trainer(&t);
  return rc;
}

tern_rc tern_fit_dataset(tern_model *m, tern_dataset *data, const tern_fit_opts *opts) {
  static const tern_fit_opts none = {0};
  const tern_fit_opts *o = opts ? opts : &none;
  tern_rc rc = tern__model_need(m, "fit", true);
  if (!rc && !data) rc = tern__pending()[0] ? tern__recorded() : tern__fail(TERN_E_ARG, "fit: the dataset is NULL");
  if (!rc) rc = check_options(o);
  if (!rc && (o->validation_split > 0 || o->sample_weights))
    rc = tern__fail(TERN_E_ARG, "fit: validation_split and sample_weights are for tensors; a dataset brings its own");
  tern_dataset *validation = o->validation_data, *made = NULL;
  if (!rc && o->validation_x &&
      !(validation = made = tern__batches(o->validation_x, o->validation_y, NULL, o->batch_size)))
    rc = tern__recorded();
  if (!rc) rc = fit(m, data, validation, o, false);
  tern_dataset_release(made);
  return rc;
}

/* ---- tensors ---- */

static tern_tensor *on_host(tern_tensor *t) {
  const tern__device *host = t ? tern__device_host() : NULL;
  return !host || t->device == host ? t : tern_to(t, host->name);
}

tern_dataset *tern__batches(tern_tensor *x, tern_tensor *y, tern_tensor *weights, int batch) {
  TERN_SCOPE;
  tern_tensor *all[3];
  int n = 0;
  tern_tensor *const given[] = {x, y, weights};
  for (int i = 0; i < 3; i++)
    if (given[i] && given[i] != TERN_NONE && !(all[n++] = on_host(given[i]))) return NULL;
  return tern_dataset_batch(tern_dataset_tensors(all, n), batch ? batch : 32, NULL);
}

static tern_tensor *rows(tern_tensor *t, int64_t from, int64_t to) {
  return t ? tern_slice(t, &TERN_RANGE(from, to, 1), 1) : NULL;
}

/* Labels of classes that do not exist, before anything is trained with them. */
static tern_rc check_labels(const tern_model *m, tern_tensor *y) {
  if (!m->loss_name || strcmp(m->loss_name, "sparse_categorical_crossentropy")) return TERN_OK;
  const tern_shape out = m->output[m->root->n_inner - 1];
  const int64_t classes = out.dim[out.rank - 1];
  TERN_SCOPE;
  tern_tensor *labels = tern_cast(y, TERN_I64);
  if (m->loss_opts.ignore)
    labels = tern_where(tern_equal(labels, tern_scalar_int(m->loss_opts.ignore_class)), tern_scalar_int(0), labels);
  const int64_t low = tern_item_int(tern_min(labels, NULL)), high = tern_item_int(tern_max(labels, NULL));
  if (tern__pending()[0]) return tern__recorded();
  if (low >= 0 && high < classes) return TERN_OK;
  return tern__fail(
      TERN_E_ARG, "fit: y has the label %" PRId64 ", and the model tells %" PRId64 " classes apart (0 to %" PRId64 ")",
      low < 0 ? low : high, classes, classes - 1);
}

static tern_rc check_tensors(tern_model *m, tern_tensor *x, tern_tensor *y, const tern_fit_opts *o, int64_t *n) {
  if (!x || !y) return tern__pending()[0] ? tern__recorded() : tern__fail(TERN_E_ARG, "fit: x or y is NULL");
  tern_rc rc = tern__model_for(m, "fit", x);
  if (rc) return rc;
  *n = tern_dim(x, 0);
  if (tern_rank(y) < 1 || tern_dim(y, 0) != *n)
    return tern__fail(TERN_E_ARG, "fit: x has %" PRId64 " rows, y has %" PRId64, *n,
                      tern_rank(y) < 1 ? 0 : tern_dim(y, 0));
  if (o->sample_weights && (tern_rank(o->sample_weights) != 1 || tern_dim(o->sample_weights, 0) != *n))
    return tern__fail(TERN_E_ARG, "fit: sample_weights must be a vector of %" PRId64 " numbers", *n);
  return tern__model_check(m, x, y);
}

tern_rc tern_fit(tern_model *m, tern_tensor *x, tern_tensor *y, const tern_fit_opts *opts) {
  static const tern_fit_opts none = {0};
  const tern_fit_opts *o = opts ? opts : &none;
  int64_t n = 0;
  TERN_SCOPE;
  tern_rc rc = tern__model_need(m, "fit", true);
  if (!rc) rc = check_options(o);
  if (!rc) rc = check_tensors(m, x, y, o, &n);
  if (!rc) rc = check_labels(m, y);
  if (rc) return rc;
  const int64_t used = (int64_t)floor((double)n * (1 - o->validation_split)), kept = n - used; /* as Keras splits */
  if (!used)
    return tern__fail(TERN_E_ARG, "fit: validation_split %g leaves none of %" PRId64 " rows to train on",
                      o->validation_split, n);
  const int batch = o->batch_size ? o->batch_size : 32;
  tern_tensor *all[3] = {on_host(rows(x, 0, used)), on_host(rows(y, 0, used)),
                         on_host(rows(o->sample_weights, 0, used))};
  if (!all[0] || !all[1] || (o->sample_weights && !all[2])) return tern__recorded();
  tern_dataset *d = tern_dataset_tensors(all, o->sample_weights ? 3 : 2), *validation = o->validation_data,
               *made = NULL;
  if (!o->no_shuffle) d = tern_dataset_shuffle(d, 0, &(tern_shuffle_opts){.seed = o->seed});
  d = tern_dataset_batch(d, batch, NULL);
  if (strcmp(tern_default_device(), tern_device_get(all[0]))) d = tern_dataset_prefetch(d, 0, tern_default_device());
  if (o->steps) d = tern_dataset_repeat(d, -1);
  if (kept)
    validation = made = tern__batches(rows(x, used, n), rows(y, used, n), rows(o->sample_weights, used, n), batch);
  else if (o->validation_x)
    validation = made = tern__batches(o->validation_x, o->validation_y, NULL, batch);
  rc = !d || ((kept || o->validation_x) && !made) ? tern__recorded() : fit(m, d, validation, o, true);
  tern_dataset_release(made);
  tern_dataset_release(d);
  return rc;
}

double tern_train_on_batch(tern_model *m, tern_tensor *x, tern_tensor *y) {
  TERN_SCOPE;
  tern_tensor *e[] = {x, y};
  if (tern__model_need(m, "tern_train_on_batch", true) || check_tensors(m, x, y, &(tern_fit_opts){0}, &(int64_t){0}) ||
      to_device(e, 2))
    return NAN;
  tern_tensor *loss = tern__model_train(m, e[0], e[1], TERN_NONE);
  return loss ? tern_item(loss) : NAN;
}
