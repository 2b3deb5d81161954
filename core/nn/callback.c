/* Callbacks: the object, what the built-in ones share (callback_parts.h), and the learning-rate scheduler. */
#include "nn/callback.h"
#include "base/alloc.h"
#include "base/string.h"
#include "base/thread.h"
#include "graph/ir/text.h"
#include "nn/callback_parts.h"
#include "nn/metric.h"
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

tern_callback *tern_callback_new(const tern_callback_body *body, void *self) {
  if (!body) {
    tern__fail(TERN_E_ARG, "callback_new: body is NULL");
    return NULL;
  }
  tern_callback *c = tern__calloc(1, sizeof *c);
  if (!c) {
    tern__fail(TERN_E_OOM, "callback_new: out of host memory");
    return NULL;
  }
  c->body = *body;
  c->self = self;
  return c;
}

void tern_callback_release(tern_callback *c) {
  if (!c) return;
  if (c->body.release) c->body.release(c->self);
  free(c);
}

tern_callback *tern__callback_make(const char *what, const tern_callback_body *body, const void *self, size_t size) {
  void *copy = tern__calloc(1, size);
  if (!copy) {
    tern__fail(TERN_E_OOM, "%s: out of host memory", what);
    return NULL;
  }
  memcpy(copy, self, size);
  tern_callback *c = tern_callback_new(body, copy);
  if (!c) free(copy);
  return c;
}

/* ---- logs ---- */

double tern__log_of(const tern_moment *moment, const char *name, bool *found) {
  for (int i = 0; i < moment->n; i++) {
    if (strcmp(moment->names[i], name)) continue;
    if (found) *found = true;
    return moment->values[i];
  }
  if (found) *found = false;
  return NAN;
}

tern_rc tern__no_log(const char *what, const char *name, const tern_moment *moment) {
  tern__string list = {0};
  for (int i = 0; i < moment->n; i++)
    if (tern__string_append_format(&list, "%s%s", i ? ", " : "", moment->names[i])) break;
  const tern_rc rc = tern__fail(TERN_E_ARG, "%s: there is no log \"%s\"%s; there are: %s", what, name,
                                strncmp(name, "val_", 4) ? "" : " (give the fit data for validation, or another name)",
                                list.text ? list.text : "none");
  tern__string_free(&list);
  return rc;
}

bool tern__larger_is_better(int larger_is_better, const char *monitor) {
  if (larger_is_better) return larger_is_better > 0;
  if (!strncmp(monitor, "val_", 4)) monitor += 4;
  return tern__metric_larger_is_better(monitor);
}

tern_rc tern__monitor_new(tern__monitor *m, const char *what, const char *name, int larger_is_better,
                          double min_delta) {
  if (!isfinite(min_delta)) return tern__fail(TERN_E_ARG, "%s: min_delta is %g; it must be a number", what, min_delta);
  if (!name || !*name) name = "val_loss";
  *m = (tern__monitor){.name = tern__strdup(name),
                       .larger = tern__larger_is_better(larger_is_better, name),
                       .min_delta = fabs(min_delta)};
  return m->name ? TERN_OK : tern__fail(TERN_E_OOM, "%s: out of host memory", what);
}

bool tern__monitor_better(const tern__monitor *m, double value, double than) {
  return m->larger ? value - m->min_delta > than : value + m->min_delta < than;
}

bool tern__monitor_improves(tern__monitor *m, double value) {
  if (isnan(value) || (m->has_best && !tern__monitor_better(m, value, m->best))) return false;
  m->best = value;
  m->has_best = true;
  return true;
}

/* ---- numbers as text, independent of the locale ---- */

const char *tern__number_text(double value, char *text) {
  if (isnan(value))
    strcpy(text, "nan");
  else
    tern__element_text(TERN_F64, &value, text);
  return text;
}

void tern__point(char *text) {
  const char *point = localeconv()->decimal_point;
  const size_t n = strlen(point);
  char *at = n && strcmp(point, ".") ? strstr(text, point) : NULL;
  if (!at) return;
  *at = '.';
  memmove(at + 1, at + n, strlen(at + n) + 1);
}

/* ---- learning-rate scheduler ---- */

typedef struct scheduler {
  double (*rate)(void *self, int epoch, double before);
  void *self;
} scheduler;

static int set_rate(void *self, const tern_moment *moment) {
  const scheduler *s = self;
  const double rate = s->rate(s->self, moment->epoch, tern_optimizer_learning_rate(moment->optimizer));
  const tern_rc rc = tern_optimizer_set_learning_rate(moment->optimizer, rate);
  if (rc) tern__error_prefix("learning_rate_scheduler: ");
  return rc;
}

tern_callback *tern_learning_rate_scheduler(double (*rate)(void *self, int epoch, double before), void *self) {
  static const tern_callback_body body = {.epoch_begin = set_rate, .release = free};
  if (rate) return tern__callback_make("learning_rate_scheduler", &body, &(scheduler){rate, self}, sizeof(scheduler));
  tern__fail(TERN_E_ARG, "learning_rate_scheduler: the function is NULL");
  return NULL;
}
