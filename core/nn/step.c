/* What training, testing and predicting compute for one batch: functions that are compiled at their first call, or run
   as they stand in an eager model. Figures are kept in variables that the functions assign, so that nothing waits for
   them. A step whose loss is not finite changes no weight: the optimiser is guarded by the loss. */
#include "base/alloc.h"
#include "base/thread.h"
#include "nn/metric.h"
#include "nn/model.h"
#include "nn/optimizer.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the pieces ---- */

/* What each class counts, picked by y: integers of one number an example, or one of the classes' places. */
static tern_tensor *by_class(const tern_model *m, tern_tensor *y) {
  const tern_shape s = tern_shape_get(y);
  tern_tensor *class = y;
  if (s.rank > 1 && s.dim[s.rank - 1] != 1) {
    const int last[] = {-1};
    class = tern_argmax(y, &(tern_reduce_opts){.axes = last, .n_axes = 1});
  } else if (s.rank > 1) {
    class = tern_squeeze(y, -1);
  }
  return tern_take(m->class_weights, tern_cast(class, TERN_I64), 0);
}

/* The batch's loss, rank 0. What classes count is for training alone. */
static tern_tensor *loss_of(tern_model *m, tern_tensor *y, tern_tensor *prediction, tern_tensor *weights,
                            bool training) {
  tern_loss_opts opts = m->loss_opts;
  if (weights != TERN_NONE) opts.weights = weights;
  if (m->class_weights && training) {
    tern_tensor *w = by_class(m, y);
    opts.weights = opts.weights && opts.weights != TERN_NONE ? tern_mul(opts.weights, w) : w;
    if (!opts.weights) return NULL;
  }
  tern_tensor *loss = m->loss(y, prediction, &opts);
  if (!loss) tern__error_prefix("the loss: ");
  return loss;
}

/* How many examples there are, rank 0. */
static tern_tensor *examples(tern_tensor *x) {
  return tern_sum(tern_ones(TERN_SHAPE(tern_like(x, 0)), TERN_F32), NULL);
}

static tern_rc note_figures(tern_model *m, tern_tensor *x, tern_tensor *y, tern_tensor *prediction, tern_tensor *loss) {
  tern_rc rc = tern_metric_update(m->tracker, TERN_NONE, loss, examples(x));
  for (int i = 0; i < m->n_metrics && !rc; i++) {
    rc = tern_metric_update(m->metric[i], y, prediction, TERN_NONE);
    if (rc) tern__error_prefix("a metric: ");
  }
  return rc;
}

static tern_rc train(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  tern_model *m = self;
  (void)n_out;
  tern_tensor *x = in[0], *y = in[1], *weights = n_in > 2 ? in[2] : TERN_NONE;
  tern_tensor **gradient = tern__calloc((size_t)m->n_variables + 1, sizeof *gradient);
  if (!gradient) return tern__fail(TERN_E_OOM, "a training step: out of host memory");
  tern_tape *tape = tern_tape_begin(NULL);
  tern_tensor *prediction = tern_model_call(m, x, 1), *loss = loss_of(m, y, prediction, weights, true);
  tern_rc rc = !tape || !loss ? tern__recorded()
                              : tern_tape_gradients(tape, &loss, NULL, 1, m->variable, m->n_variables, gradient,
                                                    &(tern_gradient_opts){0});
  if (!rc) rc = tern__optimizer_apply_guarded(m->optimizer, gradient, m->variable, m->n_variables, loss);
  if (!rc) rc = note_figures(m, x, y, prediction, loss);
  out[0] = loss;
  free(gradient);
  return rc;
}

static tern_rc test(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  tern_model *m = self;
  (void)n_out;
  TERN_NO_GRADIENT;
  tern_tensor *prediction = tern_model_call(m, in[0], 0);
  tern_tensor *loss = loss_of(m, in[1], prediction, n_in > 2 ? in[2] : TERN_NONE, false);
  out[0] = loss;
  return loss ? note_figures(m, in[0], in[1], prediction, loss) : tern__recorded();
}

static tern_rc predict(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in, (void)n_out;
  TERN_NO_GRADIENT;
  out[0] = tern_model_call(self, in[0], 0);
  return out[0] ? TERN_OK : tern__recorded();
}

/* ---- compiled, or as they stand ---- */

void tern__model_drop_functions(tern_model *m) {
  for (int i = 0; i < 2; i++) {
    tern_function_release(m->train[i]);
    tern_function_release(m->test[i]);
    m->train[i] = m->test[i] = NULL;
  }
  tern_function_release(m->predict);
  m->predict = NULL;
  free(m->variable);
  m->variable = NULL;
  m->n_variables = 0;
}

static tern_tensor *run(tern_model *m, tern_function **f, tern_function_body body, const char *name,
                        tern_tensor *const *in, int n) {
  if (m->eager) {
    tern_scope_mark scope = tern_scope_begin();
    tern_tensor *out = NULL;
    const tern_rc rc = body(m, in, n, &out, 1);
    out = rc ? NULL : tern_escape(out);
    tern_scope_end(&scope);
    return out;
  }
  if (!*f && !(*f = tern_function_new(body, m, n, 1, &(tern_function_opts){.name = name}))) return NULL;
  return tern_call_n(*f, in, n);
}

/* The variables that steps change; and the optimiser's state for them, so that nothing is made inside of a step. */
static tern_rc find_variables(tern_model *m) {
  const int n = tern_model_trainable_variables(m, NULL, 0);
  bool same = m->variable && n == m->n_variables;
  for (int i = 0; i < n && same; i++) same = tern_trainable(m->variable[i]);
  if (same) return TERN_OK;
  tern__model_drop_functions(m);
  m->variable = tern__calloc((size_t)n + 1, sizeof *m->variable);
  if (!m->variable) return tern__fail(TERN_E_OOM, "fit: out of host memory");
  m->n_variables = tern_model_trainable_variables(m, m->variable, n);
  if (!n) return tern__fail(TERN_E_ARG, "fit: the model has no weights that are trained");
  return tern_optimizer_build(m->optimizer, m->variable, n);
}

tern_tensor *tern__model_train(tern_model *m, tern_tensor *x, tern_tensor *y, tern_tensor *weights) {
  const bool weighted = weights != TERN_NONE;
  if (find_variables(m)) return NULL;
  return run(m, &m->train[weighted], train, "train_step", (tern_tensor *const[]){x, y, weights}, 2 + weighted);
}

tern_tensor *tern__model_test(tern_model *m, tern_tensor *x, tern_tensor *y, tern_tensor *weights) {
  const bool weighted = weights != TERN_NONE;
  return run(m, &m->test[weighted], test, "test_step", (tern_tensor *const[]){x, y, weights}, 2 + weighted);
}

tern_tensor *tern__model_predict(tern_model *m, tern_tensor *x) {
  return run(m, &m->predict, predict, "predict_step", &x, 1);
}

/* ---- figures ---- */

bool tern__model_figures(tern_model *m, double *out) {
  tern_scope_mark scope = tern_scope_begin();
  bool ok = true;
  for (int i = 0; i <= m->n_metrics && ok; i++) {
    tern_tensor *t = tern_metric_result(i ? m->metric[i - 1] : m->tracker);
    out[i] = t && tern_size(t) == 1 ? tern_item(t) : NAN; /* a confusion matrix is no number */
    ok = t != NULL;
  }
  tern_scope_end(&scope);
  return ok;
}

tern_rc tern__model_reset_figures(tern_model *m) {
  tern_rc rc = tern_metric_reset(m->tracker);
  for (int i = 0; i < m->n_metrics && !rc; i++) rc = tern_metric_reset(m->metric[i]);
  return rc;
}

/* ---- what does not fit, what is not finite ---- */

static bool same_form(const tern_model *m, int i, tern_shape s, tern_dtype dtype) {
  return s.rank && s.rank == m->fits[i].rank && dtype == m->fits_dtype[i] &&
         !memcmp(s.dim, m->fits[i].dim, (size_t)s.rank * sizeof *s.dim);
}

tern_rc tern__model_check(tern_model *m, tern_tensor *x, tern_tensor *y) {
  if (m->eager) return TERN_OK; /* what may look at values cannot be tried without any */
  tern_shape sx = tern_shape_get(x), sy = tern_shape_get(y);
  const tern_dtype dx = tern_dtype_get(x), dy = tern_dtype_get(y);
  sx.dim[0] = -1;
  if (sy.rank) sy.dim[0] = -1;
  if (same_form(m, 0, sx, dx) && same_form(m, 1, sy, dy)) return TERN_OK;
  tern_graph *g = tern_graph_new("check");
  if (!g) return tern__recorded();
  tern_scope_mark scope = tern_scope_begin();
  tern_graph_mark mark = tern_graph_begin(g);
  tern_tensor *px = tern_placeholder(sx, dx, "x"), *py = tern_placeholder(sy, dy, "y");
  tern_tensor *loss = loss_of(m, py, tern_model_call(m, px, 0), TERN_NONE, true);
  tern_rc rc = loss ? TERN_OK : tern__recorded();
  if (!rc && tern_rank(loss) != 0)
    rc = tern__fail(TERN_E_ARG, "the loss has rank %d; it must give one number for the batch", tern_rank(loss));
  tern_graph_end(&mark);
  tern_scope_end(&scope);
  tern_graph_release(g);
  if (!rc) m->fits[0] = sx, m->fits[1] = sy, m->fits_dtype[0] = dx, m->fits_dtype[1] = dy;
  return rc;
}

static bool all_finite(tern_tensor *t) {
  if (tern_dtype_get(t) < TERN_F16) return true;
  return tern_item(tern_all(tern_isfinite(t), NULL)) != 0;
}

static const tern_layer *bad_in(tern_layer *l, tern_tensor **x, tern__pass *p) {
  for (int i = 0; i < l->n_inner && *x; i++) {
    tern_layer *inner = l->inner[i];
    tern_tensor *before = *x;
    tern__pass again = *p;
    *x = tern__layer_run(inner, *x, p);
    if (!*x || all_finite(*x)) continue;
    const tern_layer *deeper = inner->n_inner ? bad_in(inner, &before, &again) : NULL;
    return deeper ? deeper : inner;
  }
  return NULL;
}

const tern_layer *tern__model_find_bad(tern_model *m, tern_tensor *x) {
  tern_scope_mark scope = tern_scope_begin();
  TERN_NO_GRADIENT;
  tern__pass p = {.mask = TERN_NONE}; /* as in inference: what dropout did cannot be had again */
  const tern_layer *bad = bad_in(m->root, &x, &p);
  tern_scope_end(&scope);
  return bad;
}
