/* Saving the model after epochs, and going on from such a file. What a file holds beside the model is JSON:
   {"epoch": epochs done, "learning_rate", "random": ["seed", "counter"], "best" (where there is one), "history": {name:
   [values]}}; numbers that JSON lacks are texts ("nan", "inf", "-inf"), 64-bit ones too. */
#include "base/alloc.h"
#include "base/thread.h"
#include "nn/callback_parts.h"
#include "nn/model.h"
#include "ops/op.h"
#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char what[] = "model_checkpoint";

typedef struct checkpoint {
  tern__monitor monitor;
  char *path;
  bool best_only;
} checkpoint;

/* ---- numbers in JSON ---- */

static cJSON *json_number(double v) {
  char text[TERN__NUMBER_TEXT];
  tern__number_text(v, text);
  return isfinite(v) ? cJSON_CreateRaw(text) : cJSON_CreateString(text);
}

static bool read_number(const cJSON *json, double *v) {
  if (cJSON_IsNumber(json)) {
    *v = json->valuedouble;
    return true;
  }
  static const char *const names[] = {"nan", "inf", "-inf"};
  const double values[] = {NAN, INFINITY, -INFINITY};
  for (int i = 0; i < 3 && cJSON_IsString(json); i++)
    if (!strcmp(json->valuestring, names[i])) {
      *v = values[i];
      return true;
    }
  return false;
}

static cJSON *json_word(uint64_t v) {
  char text[32];
  snprintf(text, sizeof text, "%" PRIu64, v);
  return cJSON_CreateString(text);
}

static bool read_word(const cJSON *json, uint64_t *v) {
  if (!cJSON_IsString(json) || strspn(json->valuestring, "0123456789") != strlen(json->valuestring)) return false;
  *v = strtoull(json->valuestring, NULL, 10);
  return *json->valuestring != '\0';
}

/* ---- writing ---- */

/* Adds the item, which is ended when that fails; NULL fails too. */
static bool add(cJSON *to, const char *key, cJSON *item) {
  const bool ok = item && (key ? cJSON_AddItemToObject(to, key, item) : cJSON_AddItemToArray(to, item));
  if (!ok) cJSON_Delete(item);
  return ok;
}

static cJSON *json_history(const tern_model *m) {
  cJSON *history = cJSON_CreateObject();
  bool ok = history != NULL;
  for (int i = 0; i < m->n_history && ok; i++) {
    cJSON *values = cJSON_CreateArray();
    ok = values != NULL;
    for (int k = 0; k < m->history[i].n && ok; k++) ok = add(values, NULL, json_number(m->history[i].value[k]));
    ok = add(history, m->history[i].name, values) && ok;
  }
  if (ok) return history;
  cJSON_Delete(history);
  return NULL;
}

/* malloc'ed; NULL with the error set. */
static char *extra_of(const checkpoint *c, const tern_moment *moment) {
  const tern__random_state random = tern__random_get();
  cJSON *json = cJSON_CreateObject(), *words = cJSON_CreateArray();
  bool ok = json && words && add(words, NULL, json_word(random.seed)) && add(words, NULL, json_word(random.counter));
  if (json)
    ok = add(json, "random", words) && ok;
  else
    cJSON_Delete(words);
  ok = ok && add(json, "epoch", cJSON_CreateNumber(moment->epoch + 1));
  ok = ok && add(json, "learning_rate", json_number(tern_optimizer_learning_rate(moment->optimizer)));
  if (c->monitor.has_best) ok = ok && add(json, "best", json_number(c->monitor.best));
  ok = ok && add(json, "history", json_history(moment->model));
  char *text = ok ? cJSON_PrintUnformatted(json) : NULL;
  cJSON_Delete(json);
  if (!text) tern__fail(TERN_E_OOM, "%s: out of host memory", what);
  return text;
}

/* The folders that the path needs, as Keras makes them. */
static tern_rc make_folders(char *path) {
  for (char *p = path + 1; *p; p++) {
    if (*p != '/') continue;
    *p = '\0';
    const bool failed = mkdir(path, 0777) && errno != EEXIST;
    const tern_rc rc =
        failed ? tern__fail(TERN_E_IO, "%s: cannot make the folder %s: %s", what, path, strerror(errno)) : TERN_OK;
    *p = '/';
    if (rc) return rc;
  }
  return TERN_OK;
}

static int save(void *self, const tern_moment *moment) {
  checkpoint *c = self;
  if (c->best_only) {
    bool found;
    const double value = tern__log_of(moment, c->monitor.name, &found);
    if (!found) return tern__no_log(what, c->monitor.name, moment);
    if (!tern__monitor_improves(&c->monitor, value)) return TERN_OK;
  }
  char *path = tern__path_fill(what, c->path, moment);
  char *extra = path ? extra_of(c, moment) : NULL;
  tern_rc rc = extra ? make_folders(path) : tern__recorded();
  if (!rc) rc = tern__model_save_with(moment->model, path, extra);
  if (rc) tern__error_prefix("model_checkpoint: ");
  cJSON_free(extra);
  free(path);
  return rc;
}

/* ---- going on ---- */

typedef struct state { /* of a file; json holds the history */
  cJSON *json;
  int epoch;
  double rate, best;
  tern__random_state random;
} state;

static bool history_ok(const cJSON *history) {
  if (!cJSON_IsObject(history)) return false;
  double v;
  const cJSON *values, *value;
  cJSON_ArrayForEach(values, history) {
    if (!cJSON_IsArray(values)) return false;
    cJSON_ArrayForEach(value, values) if (!read_number(value, &v)) return false;
  }
  return true;
}

static tern_rc read_state(const char *path, const char *text, state *s) {
  s->json = cJSON_Parse(text);
  const cJSON *epoch = cJSON_GetObjectItemCaseSensitive(s->json, "epoch");
  const cJSON *random = cJSON_GetObjectItemCaseSensitive(s->json, "random");
  const cJSON *best = cJSON_GetObjectItemCaseSensitive(s->json, "best");
  s->best = NAN;
  const bool ok = cJSON_IsNumber(epoch) && epoch->valuedouble >= 1 && epoch->valuedouble <= INT_MAX &&
                  epoch->valuedouble == floor(epoch->valuedouble) &&
                  read_number(cJSON_GetObjectItemCaseSensitive(s->json, "learning_rate"), &s->rate) &&
                  read_word(cJSON_GetArrayItem(random, 0), &s->random.seed) &&
                  read_word(cJSON_GetArrayItem(random, 1), &s->random.counter) &&
                  (!best || read_number(best, &s->best)) &&
                  history_ok(cJSON_GetObjectItemCaseSensitive(s->json, "history"));
  if (!ok)
    return tern__fail(TERN_E_IO, "%s: what %s holds of the fit cannot be read; remove it to begin anew", what, path);
  s->epoch = (int)epoch->valuedouble;
  return TERN_OK;
}

static tern_rc set_history(tern_model *m, const cJSON *values) {
  const int n = cJSON_GetArraySize(values);
  double *v = tern__calloc((size_t)n + 1, sizeof *v);
  if (!v) return tern__fail(TERN_E_OOM, "%s: out of host memory", what);
  int i = 0;
  const cJSON *value;
  cJSON_ArrayForEach(value, values) read_number(value, &v[i++]);
  const tern_rc rc = tern__model_history_set(m, values->string, v, n);
  free(v);
  return rc;
}

static tern_rc go_on(checkpoint *c, const tern_moment *moment, const state *s) {
  tern_rc rc = tern__model_restore(moment->model, c->path);
  /* a schedule gives that rate by itself, for the number of steps is restored */
  if (!rc && tern_optimizer_learning_rate(moment->optimizer) != s->rate)
    rc = tern_optimizer_set_learning_rate(moment->optimizer, s->rate);
  const cJSON *values;
  cJSON_ArrayForEach(values, cJSON_GetObjectItemCaseSensitive(s->json, "history")) if (!rc) rc =
      set_history(moment->model, values);
  if (rc) return rc;
  tern__random_set(s->random);
  c->monitor.has_best = !isnan(s->best);
  c->monitor.best = s->best;
  return TERN_OK;
}

static tern_rc resume(void *self, const tern_moment *moment, int *epoch) {
  checkpoint *c = self;
  c->monitor.has_best = false;
  if (access(c->path, F_OK)) return TERN_OK;
  char *text = tern__model_saved_extra(c->path);
  state s = {0};
  tern_rc rc = text               ? read_state(c->path, text, &s)
               : *tern__pending() ? tern__recorded()
                                  : tern__fail(TERN_E_ARG,
                                               "%s: %s was not written during a fit, so none can go on from it; "
                                               "remove it, or load it with tern_model_load",
                                               what, c->path);
  if (!rc) rc = go_on(c, moment, &s);
  if (!rc) *epoch = s.epoch;
  if (rc) tern__error_prefix("model_checkpoint: ");
  cJSON_Delete(s.json);
  free(text);
  return rc;
}

/* ---- the callback ---- */

static void end_parts(checkpoint *c) {
  free(c->monitor.name);
  free(c->path);
}

static void checkpoint_release(void *self) {
  end_parts(self);
  free(self);
}

tern_callback *tern_model_checkpoint(const char *path, const tern_checkpoint_opts *opts) {
  static const tern_callback_body body = {.epoch_end = save, .release = checkpoint_release};
  const tern_checkpoint_opts o = opts ? *opts : (tern_checkpoint_opts){0};
  bool has_places;
  if (tern__path_check(what, path, &has_places)) return NULL;
  if (has_places && o.resume) {
    tern__fail(TERN_E_ARG, "%s: resume needs one file, but the path \"%s\" names many", what, path);
    return NULL;
  }
  checkpoint c = {.best_only = o.best_only, .path = tern__strdup(path)};
  if (!c.path) {
    tern__fail(TERN_E_OOM, "%s: out of host memory", what);
    return NULL;
  }
  tern_callback *callback = NULL;
  if (!tern__monitor_new(&c.monitor, what, o.monitor, o.larger_is_better, 0))
    callback = tern__callback_make(what, &body, &c, sizeof c);
  if (!callback)
    end_parts(&c);
  else if (o.resume)
    callback->resume = resume;
  return callback;
}
