/* Models in files: a safetensors file of the weights and the optimiser's state, whose metadata hold JSON ("tern_model":
   docs/formats.md): what the layers are and how the model was compiled. */
#include "base/alloc.h"
#include "base/thread.h"
#include "nn/metric.h"
#include "nn/model.h"
#include "nn/optimizer.h"
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tern/io.h>
#include <unistd.h>

#define KEY "tern_model"
#define EXTRA "tern_training"

/* ---- writing ---- */

static void add_number(cJSON *to, const char *key, double v) { cJSON_AddItemToObject(to, key, tern__json_double(v)); }

static void add_numbers(cJSON *to, const char *key, const double *v, int n) {
  cJSON *a = cJSON_AddArrayToObject(to, key);
  for (int i = 0; i < n; i++) cJSON_AddItemToArray(a, tern__json_double(v[i]));
}

static cJSON *schedule_json(const tern_schedule *s) {
  cJSON *j = cJSON_CreateObject();
  cJSON_AddNumberToObject(j, "kind", s->kind);
  add_number(j, "rate", s->rate);
  add_number(j, "factor", s->factor);
  add_number(j, "floor_factor", s->floor_factor);
  cJSON_AddNumberToObject(j, "steps", (double)s->steps);
  cJSON_AddNumberToObject(j, "warmup", (double)s->warmup);
  add_number(j, "warmup_start", s->warmup_start);
  cJSON_AddNumberToObject(j, "staircase", s->staircase);
  cJSON *b = cJSON_AddArrayToObject(j, "boundaries");
  for (int i = 0; i < s->n_boundaries; i++) cJSON_AddItemToArray(b, cJSON_CreateNumber((double)s->boundaries[i]));
  if (s->values) add_numbers(j, "values", s->values, s->n_boundaries + 1);
  return j;
}

static cJSON *optimizer_json(const tern_optimizer *o) {
  tern__optimizer_plan p;
  tern__optimizer_plan_of(o, &p);
  cJSON *j = cJSON_CreateObject();
  cJSON_AddStringToObject(j, "rule", p.rule->name);
  cJSON_AddStringToObject(j, "name", p.opts.name);
  add_number(j, "learning_rate", p.opts.learning_rate);
  add_number(j, "weight_decay", p.opts.weight_decay);
  add_number(j, "clip_value", p.opts.clip_value);
  add_number(j, "clip_norm", p.opts.clip_norm);
  add_number(j, "global_clip_norm", p.opts.global_clip_norm);
  add_number(j, "initial", p.initial);
  cJSON_AddNumberToObject(j, "bits", p.bits);
  add_numbers(j, "hyper", p.hyper, p.rule->n_hyper);
  if (p.opts.schedule) cJSON_AddItemToObject(j, "schedule", schedule_json(p.opts.schedule));
  return j;
}

static cJSON *compile_json(const tern_model *m) {
  cJSON *j = cJSON_CreateObject();
  cJSON_AddItemToObject(j, "optimizer", optimizer_json(m->optimizer));
  if (m->loss_name) cJSON_AddStringToObject(j, "loss", m->loss_name);
  const tern_loss_opts *o = &m->loss_opts;
  cJSON *l = cJSON_AddObjectToObject(j, "loss_options");
  cJSON_AddNumberToObject(l, "reduction", o->reduction);
  cJSON_AddNumberToObject(l, "from_logits", o->from_logits);
  cJSON_AddNumberToObject(l, "axis", o->axis);
  cJSON_AddNumberToObject(l, "ignore", o->ignore);
  cJSON_AddNumberToObject(l, "ignore_class", o->ignore_class);
  add_number(l, "label_smoothing", o->label_smoothing);
  add_number(l, "delta", o->delta);
  add_number(l, "alpha", o->alpha);
  add_number(l, "beta", o->beta);
  add_number(l, "gamma", o->gamma);
  cJSON *metrics = cJSON_AddArrayToObject(j, "metrics");
  for (int i = 0; i < m->n_metrics; i++) cJSON_AddItemToArray(metrics, cJSON_CreateString(m->metric_name[i]));
  cJSON_AddBoolToObject(j, "eager", m->eager);
  return j;
}

/* free() with cJSON_free; NULL with the error set. */
static char *model_text(const tern_model *m) {
  cJSON *j = cJSON_CreateObject(), *layers = cJSON_AddArrayToObject(j, "layers");
  cJSON_AddNumberToObject(j, "version", 1);
  cJSON_AddStringToObject(j, "kind", "sequential");
  cJSON_AddStringToObject(j, "dtype", tern_dtype_name(m->dtype));
  cJSON *shape = cJSON_AddArrayToObject(j, "input_shape");
  for (int d = 0; d < m->input.rank; d++) cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)m->input.dim[d]));
  bool ok = layers && shape;
  for (int i = 0; i < m->root->n_inner && ok; i++) {
    cJSON *l = tern__layer_to_json(m->root->inner[i]);
    ok = l && cJSON_AddItemToArray(layers, l);
  }
  if (m->compiled) cJSON_AddItemToObject(j, "compile", compile_json(m));
  char *text = ok ? cJSON_PrintUnformatted(j) : NULL;
  cJSON_Delete(j);
  if (!text && !tern__pending()[0]) tern__fail(TERN_E_OOM, "tern_model_save: out of host memory");
  return text;
}

/* The model's variables, then those of its optimiser's state, if there is one. free(); NULL with the error set. */
static tern_tensor **everything(tern_model *m, int *n, bool state) {
  const int weights = tern_model_variables(m, NULL, 0);
  int slots = 0;
  if (state && m->optimizer) {
    const int trained = tern_model_trainable_variables(m, NULL, 0);
    tern_tensor **v = tern__calloc((size_t)trained + 1, sizeof(tern_tensor *));
    if (!v) tern__fail(TERN_E_OOM, "a model's file: out of host memory");
    if (!v) return NULL;
    tern_model_trainable_variables(m, v, trained);
    const tern_rc rc = trained ? tern_optimizer_build(m->optimizer, v, trained) : TERN_OK;
    free(v);
    if (rc) return NULL;
    slots = trained ? tern_optimizer_state(m->optimizer, NULL, 0) : 0;
  }
  tern_tensor **all = tern__calloc((size_t)(weights + slots) + 1, sizeof(tern_tensor *));
  if (!all) {
    tern__fail(TERN_E_OOM, "a model's file: out of host memory");
    return NULL;
  }
  tern_model_variables(m, all, weights);
  if (slots) tern_optimizer_state(m->optimizer, all + weights, slots);
  *n = weights + slots;
  return all;
}

tern_rc tern__model_save_with(tern_model *m, const char *path, const char *extra) {
  tern_rc rc = tern__model_need(m, "tern_model_save", false);
  if (rc) return rc;
  if (!m->shaped)
    return tern__fail(TERN_E_ARG, "tern_model_save: the model has no weights yet; tern_model_build makes them");
  int n = 0;
  tern_tensor **all = everything(m, &n, true);
  const char **names = all ? tern__calloc((size_t)n + 1, sizeof *names) : NULL;
  char *text = names ? model_text(m) : NULL;
  if (all && !names) tern__fail(TERN_E_OOM, "tern_model_save: out of host memory");
  if (!text) rc = tern__recorded();
  for (int i = 0; i < n && !rc; i++) names[i] = tern_variable_name(all[i]);
  const char *const metadata[][2] = {{KEY, text}, {EXTRA, extra}};
  if (!rc) rc = tern_safetensors_write(path, names, all, n, metadata, extra ? 2 : 1);
  cJSON_free(text);
  free(names);
  free(all);
  return rc;
}

tern_rc tern_model_save(tern_model *m, const char *path) { return tern__model_save_with(m, path, NULL); }

/* ---- reading ---- */

char *tern__model_saved_extra(const char *path) {
  if (access(path, F_OK)) return NULL;
  tern_safetensors *f = tern_safetensors_open(path);
  const char *text = f ? tern_safetensors_metadata(f, EXTRA) : NULL;
  char *copy = text ? tern__strdup(text) : NULL;
  if (text && !copy) tern__fail(TERN_E_OOM, "%s: out of host memory", path);
  tern_safetensors_close(f);
  return copy;
}

static tern_rc restore(tern_model *m, const char *path, bool state) {
  int n = 0;
  tern_tensor **all = everything(m, &n, state);
  if (!all) return tern__recorded();
  const tern_rc rc = tern_checkpoint_restore(path, all, n);
  free(all);
  return rc;
}

tern_rc tern__model_restore(tern_model *m, const char *path) { return restore(m, path, true); }

tern_rc tern_model_load_weights(tern_model *m, const char *path) {
  const tern_rc rc = tern__model_need(m, "tern_model_load_weights", false);
  if (rc) return rc;
  if (!m->shaped)
    return tern__fail(TERN_E_ARG, "tern_model_load_weights: the model has no weights yet; tern_model_build makes them");
  return restore(m, path, false);
}

/* What is read, and where: for errors. */
typedef struct reader {
  const char *path;
  bool failed;
} reader;

static void wrong(reader *r, const char *what) {
  if (!r->failed) tern__fail(TERN_E_IO, "%s: its \"%s\" metadata are damaged: %s", r->path, KEY, what);
  r->failed = true;
}

static double number(reader *r, const cJSON *in, const char *key) {
  const cJSON *v = cJSON_GetObjectItemCaseSensitive(in, key);
  if (!cJSON_IsNumber(v)) wrong(r, key);
  return cJSON_IsNumber(v) ? v->valuedouble : 0;
}

static const char *text_of(reader *r, const cJSON *in, const char *key) {
  const cJSON *v = cJSON_GetObjectItemCaseSensitive(in, key);
  if (!cJSON_IsString(v)) wrong(r, key);
  return cJSON_IsString(v) ? v->valuestring : "";
}

static const cJSON *list_of(reader *r, const cJSON *in, const char *key, int most) {
  const cJSON *v = cJSON_GetObjectItemCaseSensitive(in, key);
  if (cJSON_IsArray(v) && cJSON_GetArraySize(v) <= most) return v;
  wrong(r, key);
  return NULL;
}

/* Arrays become the model's. */
static tern_schedule schedule_of(reader *r, tern_model *m, const cJSON *j) {
  tern_schedule s = {.kind = (int)number(r, j, "kind"),
                     .rate = number(r, j, "rate"),
                     .factor = number(r, j, "factor"),
                     .floor_factor = number(r, j, "floor_factor"),
                     .steps = (int64_t)number(r, j, "steps"),
                     .warmup = (int64_t)number(r, j, "warmup"),
                     .warmup_start = number(r, j, "warmup_start"),
                     .staircase = (int)number(r, j, "staircase")};
  const cJSON *b = list_of(r, j, "boundaries", 1 << 20), *v = cJSON_GetObjectItemCaseSensitive(j, "values");
  s.n_boundaries = cJSON_GetArraySize(b);
  if (v && cJSON_GetArraySize(v) != s.n_boundaries + 1) wrong(r, "values");
  if (r->failed) return s;
  m->boundaries = tern__calloc((size_t)s.n_boundaries + 1, sizeof *m->boundaries);
  m->rates = tern__calloc((size_t)s.n_boundaries + 1, sizeof *m->rates);
  if (!m->boundaries || !m->rates) {
    wrong(r, "out of host memory");
    return s;
  }
  int i = 0;
  for (const cJSON *c = b->child; c; c = c->next) m->boundaries[i++] = (int64_t)c->valuedouble;
  i = 0;
  for (const cJSON *c = v ? v->child : NULL; c; c = c->next) m->rates[i++] = c->valuedouble;
  s.boundaries = m->boundaries;
  s.values = v ? m->rates : NULL;
  return s;
}

static tern_optimizer *optimizer_of(reader *r, tern_model *m, const cJSON *j) {
  const tern__rule *rule = tern__rule_named(text_of(r, j, "rule"));
  if (!rule) wrong(r, "rule");
  tern__optimizer_opts o = {.learning_rate = number(r, j, "learning_rate"),
                            .weight_decay = number(r, j, "weight_decay"),
                            .clip_value = number(r, j, "clip_value"),
                            .clip_norm = number(r, j, "clip_norm"),
                            .global_clip_norm = number(r, j, "global_clip_norm"),
                            .name = text_of(r, j, "name")};
  if (o.learning_rate == 0) o.learning_rate = -0.0; /* 0 is meant, not the default */
  if (o.weight_decay == 0) o.weight_decay = -0.0;
  const cJSON *h = list_of(r, j, "hyper", TERN__MAX_HYPER), *s = cJSON_GetObjectItemCaseSensitive(j, "schedule");
  double hyper[TERN__MAX_HYPER] = {0};
  int n = 0;
  for (const cJSON *c = h ? h->child : NULL; c; c = c->next) hyper[n++] = c->valuedouble;
  if (rule && n != rule->n_hyper) wrong(r, "hyper");
  const double bits = number(r, j, "bits"), initial = number(r, j, "initial");
  tern_schedule schedule = {0};
  if (s) schedule = schedule_of(r, m, s);
  if (s) o.schedule = &schedule;
  const uint32_t known = TERN__UPDATE_MOMENTUM | TERN__UPDATE_NESTEROV | TERN__UPDATE_AMSGRAD | TERN__UPDATE_CENTERED;
  if (bits < 0 || bits > known || ((uint32_t)bits & ~known)) wrong(r, "bits");
  return r->failed ? NULL : tern__optimizer_new(rule, &o, (uint32_t)bits, hyper, initial);
}

static tern_rc compile_of(reader *r, tern_model *m, const cJSON *j) {
  const char *names[64] = {NULL};
  const cJSON *metrics = list_of(r, j, "metrics", 63), *l = cJSON_GetObjectItemCaseSensitive(j, "loss_options");
  int n = 0;
  for (const cJSON *c = metrics ? metrics->child : NULL; c; c = c->next) {
    if (!cJSON_IsString(c)) wrong(r, "metrics");
    names[n++] = cJSON_IsString(c) ? c->valuestring : "";
  }
  const tern_loss_opts loss = {.reduction = (tern_loss_reduction)number(r, l, "reduction"),
                               .from_logits = (int)number(r, l, "from_logits"),
                               .axis = (int)number(r, l, "axis"),
                               .ignore = (int)number(r, l, "ignore"),
                               .ignore_class = (int)number(r, l, "ignore_class"),
                               .label_smoothing = number(r, l, "label_smoothing"),
                               .delta = number(r, l, "delta"),
                               .alpha = number(r, l, "alpha"),
                               .beta = number(r, l, "beta"),
                               .gamma = number(r, l, "gamma")};
  tern_optimizer *o = r->failed ? NULL : optimizer_of(r, m, cJSON_GetObjectItemCaseSensitive(j, "optimizer"));
  if (!o) return tern__recorded();
  const cJSON *name = cJSON_GetObjectItemCaseSensitive(j, "loss");
  return tern_compile(m, &(tern_compile_opts){.optimizer_object = o,
                                              .loss = cJSON_IsString(name) ? name->valuestring : NULL,
                                              .loss_opts = &loss,
                                              .metrics = names,
                                              .eager = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(j, "eager"))});
}

static tern_model *layers_of(reader *r, const cJSON *j, const tern_load_opts *opts) {
  const cJSON *list = list_of(r, j, "layers", 100000);
  if (!list) return NULL;
  const int n = cJSON_GetArraySize(list);
  tern_layer **layer = tern__calloc((size_t)n + 1, sizeof(tern_layer *));
  if (!layer) {
    tern__fail(TERN_E_OOM, "%s: out of host memory", r->path);
    return NULL;
  }
  int made = 0;
  for (const cJSON *c = list->child; c && (layer[made] = tern__layer_from_json(c, opts)); c = c->next) made++;
  tern_model *m = NULL;
  if (made == n)
    m = tern_sequential_n(layer, n);
  else
    for (int i = 0; i < made; i++) tern_layer_release(layer[i]);
  free(layer);
  return m;
}

static tern_dtype dtype_of(reader *r, const cJSON *j) {
  const char *name = text_of(r, j, "dtype");
  for (int d = TERN_BOOL; d < TERN_DTYPE_END; d++)
    if (!strcmp(name, tern_dtype_name((tern_dtype)d))) return (tern_dtype)d;
  wrong(r, "dtype");
  return TERN_F32;
}

static tern_model *model_of(reader *r, const cJSON *j, const tern_load_opts *opts) {
  if (number(r, j, "version") != 1) wrong(r, "version (this tern reads 1)");
  if (strcmp(text_of(r, j, "kind"), "sequential")) wrong(r, "kind");
  const cJSON *in = list_of(r, j, "input_shape", TERN_MAX_RANK - 1);
  const tern_dtype dtype = dtype_of(r, j);
  tern_model *m = r->failed ? NULL : layers_of(r, j, opts);
  if (!m) return NULL;
  tern_shape shape = {0};
  for (const cJSON *c = in->child; c; c = c->next) shape.dim[shape.rank++] = (int64_t)c->valuedouble;
  const cJSON *how = cJSON_GetObjectItemCaseSensitive(j, "compile");
  tern_rc rc = m->shaped ? TERN_OK : tern_model_build(m, shape, dtype);
  if (!rc && how) rc = compile_of(r, m, how);
  if (!rc) rc = restore(m, r->path, m->compiled);
  if (!rc) return m;
  tern_model_release(m);
  return NULL;
}

tern_model *tern_model_load(const char *path, const tern_load_opts *opts) {
  tern_safetensors *f = tern_safetensors_open(path);
  if (!f) return NULL;
  const char *text = tern_safetensors_metadata(f, KEY);
  cJSON *j = text ? cJSON_Parse(text) : NULL;
  reader r = {.path = path};
  tern_model *m = NULL;
  if (!text)
    tern__fail(TERN_E_IO, "%s: it holds tensors, but no model: there is no \"%s\" in its metadata", path, KEY);
  else if (!cJSON_IsObject(j))
    wrong(&r, "it is not JSON");
  else
    m = model_of(&r, j, opts);
  cJSON_Delete(j);
  tern_safetensors_close(f);
  return m;
}
