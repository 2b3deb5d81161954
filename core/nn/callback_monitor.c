/* Early stopping, and the learning rate that falls when nothing gets better: Keras 3's rules (callbacks.EarlyStopping,
   callbacks.ReduceLROnPlateau). A log that is not there is an error; NaN is no progress. */
#include "base/alloc.h"
#include "base/thread.h"
#include "nn/callback_parts.h"
#include <math.h>
#include <stdlib.h>

/* ---- early stopping ---- */

static const char stopping_name[] = "early_stopping";

typedef struct stopping {
  tern__monitor monitor;
  int patience, start_from, wait;
  bool restore, has_baseline;
  double baseline;
  tern_tensor **weights; /* of the best epoch, one reference each; NULL: none yet */
  int n_weights;
} stopping;

static void forget_weights(stopping *s) {
  for (int i = 0; i < s->n_weights; i++) tern_release(s->weights[i]);
  free(s->weights);
  s->weights = NULL;
  s->n_weights = 0;
}

static tern_rc take_weights(stopping *s, tern_model *model) {
  forget_weights(s);
  const int n = tern_model_variables(model, NULL, 0);
  tern_tensor **weights = tern__calloc((size_t)n + 1, sizeof(tern_tensor *));
  if (!weights) return tern__fail(TERN_E_OOM, "%s: out of host memory for the best weights", stopping_name);
  tern_scope_mark scope = tern_scope_begin();
  const bool ok = tern_get_weights(model, weights, n) == n;
  for (int i = 0; i < n && ok; i++) tern_keep(weights[i]);
  tern_scope_end(&scope);
  if (!ok) {
    free(weights);
    return tern__recorded();
  }
  s->weights = weights;
  s->n_weights = n;
  return TERN_OK;
}

static int stopping_begin(void *self, const tern_moment *moment) {
  (void)moment;
  stopping *s = self;
  forget_weights(s);
  s->wait = 0;
  s->monitor.has_best = false;
  return TERN_OK;
}

static int stopping_epoch_end(void *self, const tern_moment *moment) {
  stopping *s = self;
  bool found;
  const double value = tern__log_of(moment, s->monitor.name, &found);
  if (!found) return tern__no_log(stopping_name, s->monitor.name, moment);
  if (moment->epoch < s->start_from) return TERN_OK;
  s->wait++;
  const bool better = tern__monitor_improves(&s->monitor, value);
  if (s->restore && (better || !s->weights)) {
    const tern_rc rc = take_weights(s, moment->model);
    if (rc) return rc;
  }
  if (better) {
    if (!s->has_baseline || tern__monitor_better(&s->monitor, value, s->baseline)) s->wait = 0;
    return TERN_OK;
  }
  return s->wait >= s->patience && moment->epoch > 0 ? TERN_STOP_TRAINING : TERN_OK;
}

static int stopping_end(void *self, const tern_moment *moment) {
  stopping *s = self;
  const tern_rc rc = s->weights ? tern_set_weights(moment->model, s->weights, s->n_weights) : TERN_OK;
  forget_weights(s);
  return rc;
}

static void stopping_release(void *self) {
  stopping *s = self;
  forget_weights(s);
  free(s->monitor.name);
  free(s);
}

tern_callback *tern_early_stopping(const tern_early_stopping_opts *opts) {
  static const tern_callback_body body = {
      .begin = stopping_begin, .epoch_end = stopping_epoch_end, .end = stopping_end, .release = stopping_release};
  const tern_early_stopping_opts o = opts ? *opts : (tern_early_stopping_opts){0};
  if (o.patience < 0 || o.start_from < 0 || (o.has_baseline && isnan(o.baseline))) {
    tern__fail(TERN_E_ARG,
               "%s: patience is %d, start_from %d, baseline %g; the first two must be 0 or more, the last a "
               "number",
               stopping_name, o.patience, o.start_from, o.baseline);
    return NULL;
  }
  stopping s = {.patience = o.patience,
                .start_from = o.start_from,
                .restore = o.restore_best,
                .has_baseline = o.has_baseline,
                .baseline = o.baseline};
  if (tern__monitor_new(&s.monitor, stopping_name, o.monitor, o.larger_is_better, o.min_delta)) return NULL;
  tern_callback *c = tern__callback_make(stopping_name, &body, &s, sizeof s);
  if (!c) free(s.monitor.name);
  return c;
}

/* ---- reduce on plateau ---- */

static const char plateau_name[] = "reduce_rate_on_plateau";

typedef struct plateau {
  tern__monitor monitor;
  int patience, cooldown, wait, cooling; /* cooling: epochs that are still left */
  double factor, min_rate;
} plateau;

static int plateau_begin(void *self, const tern_moment *moment) {
  (void)moment;
  plateau *p = self;
  p->wait = p->cooling = 0;
  p->monitor.has_best = false;
  return TERN_OK;
}

static tern_rc reduce(plateau *p, tern_optimizer *optimizer) {
  const double rate = tern_optimizer_learning_rate(optimizer);
  if (!(rate > p->min_rate)) return TERN_OK;
  p->cooling = p->cooldown;
  p->wait = 0;
  return tern_optimizer_set_learning_rate(optimizer, fmax(rate * p->factor, p->min_rate));
}

static int plateau_epoch_end(void *self, const tern_moment *moment) {
  plateau *p = self;
  bool found;
  const double value = tern__log_of(moment, p->monitor.name, &found);
  if (!found) return tern__no_log(plateau_name, p->monitor.name, moment);
  if (p->cooling > 0) {
    p->cooling--;
    p->wait = 0;
  }
  if (tern__monitor_improves(&p->monitor, value))
    p->wait = 0;
  else if (!p->cooling && ++p->wait >= p->patience)
    return reduce(p, moment->optimizer);
  return TERN_OK;
}

static void plateau_release(void *self) {
  plateau *p = self;
  free(p->monitor.name);
  free(p);
}

tern_callback *tern_reduce_rate_on_plateau(const tern_reduce_rate_opts *opts) {
  static const tern_callback_body body = {
      .begin = plateau_begin, .epoch_end = plateau_epoch_end, .release = plateau_release};
  const tern_reduce_rate_opts o = opts ? *opts : (tern_reduce_rate_opts){0};
  const double factor = o.factor != 0 ? o.factor : 0.1;
  if (!(factor > 0) || factor >= 1 || !(o.min_rate >= 0) || isinf(o.min_rate)) {
    tern__fail(TERN_E_ARG, "%s: factor is %g, min_rate %g; the first must lie between 0 and 1, the other be 0 or more",
               plateau_name, factor, o.min_rate);
    return NULL;
  }
  if (o.patience < 0 || o.cooldown < 0) {
    tern__fail(TERN_E_ARG, "%s: patience is %d, cooldown %d; both must be 0 or more", plateau_name, o.patience,
               o.cooldown);
    return NULL;
  }
  plateau p = {
      .patience = o.patience ? o.patience : 10, .cooldown = o.cooldown, .factor = factor, .min_rate = o.min_rate};
  const double min_delta = o.min_delta != 0 || signbit(o.min_delta) ? o.min_delta : 1e-4;
  if (tern__monitor_new(&p.monitor, plateau_name, o.monitor, o.larger_is_better, min_delta)) return NULL;
  tern_callback *c = tern__callback_make(plateau_name, &body, &p, sizeof p);
  if (!c) free(p.monitor.name);
  return c;
}
