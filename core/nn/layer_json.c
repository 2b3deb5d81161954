/* Layers as JSON, by the tables of their options: {"class": "Dense", "config": {"name": "dense", "units": 3, ..},
   "layers": [those inside]}. What is not there has its default. Written so that it comes back to the last bit: doubles
   by the shortest text that reads as the same one, seeds as text. 0 in a file is a number that is meant to be 0
   (TERN_ZERO); "Infinity" and "-Infinity" are texts. A layer of the program's own is "Custom", its "body" the name. */
#include "base/alloc.h"
#include "base/string.h"
#include "base/thread.h"
#include "nn/custom.h"
#include "nn/layer.h"
#include <cjson/cJSON.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KIND(x) extern const tern__layer_kind tern__kind_##x;
#include "nn/kinds.def"
#undef KIND
static const tern__layer_kind *const kinds[] = {
#define KIND(x) &tern__kind_##x,
#include "nn/kinds.def"
#undef KIND
    &tern__kind_custom};
enum { N_KINDS = sizeof kinds / sizeof *kinds, MAX_DEPTH = 100 };

const tern__layer_kind *tern__layer_kind_named(const char *name) {
  for (int i = 0; i < N_KINDS; i++)
    if (!strcmp(kinds[i]->name, name)) return kinds[i];
  tern__string list = {0};
  for (int i = 0; i < N_KINDS; i++) tern__string_append_format(&list, "%s%s", i ? ", " : "", kinds[i]->name);
  tern__fail(TERN_E_ARG, "there is no kind of layer \"%s\"; there are: %s", name, list.text ? list.text : "");
  tern__string_free(&list);
  return NULL;
}

/* Fields that all kinds have. */
static const tern__field common[] = {TERN__FIELD(TERN__TEXT, tern_layer_opts, name, "name"),
                                     TERN__FIELD(TERN__SHAPE, tern_layer_opts, input_shape, "input_shape")};
enum { N_COMMON = sizeof common / sizeof *common };

/* ---- writing ---- */

static cJSON *write_long(int64_t v) {
  char text[32];
  snprintf(text, sizeof text, "%lld", (long long)v);
  return v > -(INT64_C(1) << 53) && v < INT64_C(1) << 53 ? cJSON_CreateRaw(text) : cJSON_CreateString(text);
}

cJSON *tern__json_double(double v) {
  if (!isfinite(v)) return cJSON_CreateString(isnan(v) ? "NaN" : v > 0 ? "Infinity" : "-Infinity");
  char text[40] = "0"; /* for -0 */
  for (int digits = 15; v != 0 && digits <= 17; digits++) {
    snprintf(text, sizeof text, "%.*g", digits, v);
    if (strtod(text, NULL) == v) break;
  }
  for (char *c = text; *c; c++) /* the locale's point */
    if (!strchr("+-0123456789e", *c)) *c = '.';
  return cJSON_CreateRaw(text);
}

/* Element i of a field. */
static cJSON *write_one(const tern__field *f, const void *at, int i) {
  switch (f->type) {
  case TERN__TEXT: return cJSON_CreateString(((const char *const *)at)[i]);
  case TERN__INT: return write_long(((const int *)at)[i]);
  case TERN__LONG: return write_long(((const int64_t *)at)[i]);
  case TERN__DOUBLE: return tern__json_double(((const double *)at)[i]);
  case TERN__SEED: {
    char text[32];
    snprintf(text, sizeof text, "%llu", (unsigned long long)((const uint64_t *)at)[i]);
    return cJSON_CreateString(text);
  }
  default: return write_long(((const tern_shape *)at)->dim[i]);
  }
}

static int count_of(const tern__field *f) { return f->count ? f->count : 1; }

/* Whether it is the default: all zeros. */
static bool is_default(const tern__field *f, const void *at) {
  static const size_t sizes[] = {
      [TERN__TEXT] = sizeof(char *),   [TERN__INT] = sizeof(int),       [TERN__LONG] = sizeof(int64_t),
      [TERN__DOUBLE] = sizeof(double), [TERN__SHAPE] = sizeof(int32_t), [TERN__SEED] = sizeof(uint64_t)};
  const unsigned char *byte = at;
  for (size_t i = 0; i < sizes[f->type] * (size_t)count_of(f); i++)
    if (byte[i]) return false;
  return true;
}

static bool put(cJSON *object, const char *key, cJSON *item) {
  if (item && cJSON_AddItemToObject(object, key, item)) return true;
  cJSON_Delete(item);
  return false;
}

static bool write_field(cJSON *config, const tern__field *f, const void *params, size_t opts) {
  const void *at = (const char *)params + f->offset + opts;
  if (is_default(f, at)) return true;
  if (f->type != TERN__SHAPE && f->count == 0) return put(config, f->key, write_one(f, at, 0));
  cJSON *array = cJSON_CreateArray();
  const int n = f->type == TERN__SHAPE ? ((const tern_shape *)at)->rank : count_of(f);
  for (int i = 0; array && i < n; i++) {
    cJSON *item = write_one(f, at, i);
    if (item && cJSON_AddItemToArray(array, item)) continue;
    cJSON_Delete(item);
    cJSON_Delete(array);
    return false;
  }
  return put(config, f->key, array);
}

static cJSON *write_layer(const tern_layer *l) {
  cJSON *json = cJSON_CreateObject(), *config = cJSON_CreateObject();
  bool ok = json && put(json, "class", cJSON_CreateString(l->kind->name));
  if (ok)
    ok = put(json, "config", config);
  else
    cJSON_Delete(config);
  /* a name that was made up belongs to the layer, not to its options */
  if (ok && l->name) ok = put(config, "name", cJSON_CreateString(l->name));
  if (ok) ok = write_field(config, &common[1], l->params, l->kind->opts);
  if (ok && tern__layer_common(l)->frozen) ok = put(config, "trainable", cJSON_CreateFalse());
  for (int i = 0; ok && i < l->kind->n_fields; i++) ok = write_field(config, &l->kind->field[i], l->params, 0);
  cJSON *inner = ok && l->n_inner ? cJSON_CreateArray() : NULL;
  if (ok && l->n_inner) ok = put(json, "layers", inner);
  for (int i = 0; ok && i < l->n_inner; i++) {
    cJSON *item = write_layer(l->inner[i]);
    ok = item && cJSON_AddItemToArray(inner, item);
    if (!ok) cJSON_Delete(item);
  }
  if (ok) return json;
  cJSON_Delete(json);
  return NULL;
}

cJSON *tern__layer_to_json(const tern_layer *l) {
  cJSON *json = write_layer(l);
  if (!json) tern__fail(TERN_E_OOM, "layer %s as JSON: out of host memory", tern_layer_name(l));
  return json;
}

/* ---- reading ---- */

/* A number, parsed or as it was written here. */
static bool number_of(const cJSON *json, double *v) {
  if (cJSON_IsNumber(json)) {
    *v = json->valuedouble;
    return true;
  }
  cJSON *parsed = cJSON_IsRaw(json) ? cJSON_Parse(json->valuestring) : NULL;
  const bool ok = cJSON_IsNumber(parsed);
  if (ok) *v = parsed->valuedouble;
  cJSON_Delete(parsed);
  return ok;
}

static bool read_long(const cJSON *json, int64_t low, int64_t high, int64_t *to) {
  double v;
  if (number_of(json, &v)) {
    if (v != floor(v) || fabs(v) > 9007199254740992.0) return false;
    *to = (int64_t)v;
  } else {
    char *end = NULL;
    if (!cJSON_IsString(json) || !*json->valuestring) return false;
    errno = 0;
    *to = strtoll(json->valuestring, &end, 10);
    if (errno || *end) return false;
  }
  return *to >= low && *to <= high;
}

static bool read_double(const cJSON *json, double *to) {
  if (cJSON_IsString(json)) {
    const char *text = json->valuestring;
    *to = !strcmp(text, "NaN") ? NAN : *text == '-' ? -INFINITY : INFINITY;
    return !strcmp(text, "NaN") || !strcmp(text + (*text == '-'), "Infinity");
  }
  if (!number_of(json, to)) return false;
  if (*to == 0) *to = TERN_ZERO;
  return true;
}

static bool read_seed(const cJSON *json, uint64_t *to) {
  char *end = NULL;
  if (!cJSON_IsString(json) || json->valuestring[0] < '0' || json->valuestring[0] > '9') return false;
  errno = 0;
  *to = strtoull(json->valuestring, &end, 10);
  return !errno && !*end;
}

static bool read_one(const tern__field *f, const cJSON *json, void *at, int i) {
  int64_t v = 0;
  switch (f->type) {
  case TERN__TEXT:
    if (!cJSON_IsString(json)) return false;
    ((const char **)at)[i] = json->valuestring;
    return true;
  case TERN__INT:
    if (cJSON_IsBool(json))
      v = cJSON_IsTrue(json);
    else if (!read_long(json, INT32_MIN, INT32_MAX, &v))
      return false;
    ((int *)at)[i] = (int)v;
    return true;
  case TERN__LONG: return read_long(json, INT64_MIN, INT64_MAX, (int64_t *)at + i);
  case TERN__DOUBLE: return read_double(json, (double *)at + i);
  case TERN__SEED: return read_seed(json, (uint64_t *)at + i);
  default: return read_long(json, -1, INT64_MAX, &((tern_shape *)at)->dim[i]);
  }
}

static const char *type_text(const tern__field *f) {
  static const char *const one[] = {[TERN__TEXT] = "a text",
                                    [TERN__INT] = "an integer",
                                    [TERN__LONG] = "an integer",
                                    [TERN__DOUBLE] = "a number",
                                    [TERN__SHAPE] = "a list of at most 8 sizes (-1: any)",
                                    [TERN__SEED] = "a seed as text (\"17\")"};
  return f->count && f->type != TERN__SHAPE ? "a list of integers" : one[f->type];
}

static tern_rc read_field(const char *class, const tern__field *f, const cJSON *json, void *params, size_t opts) {
  void *at = (char *)params + f->offset + opts;
  bool ok = true;
  if (f->type != TERN__SHAPE && !f->count) {
    ok = read_one(f, json, at, 0);
  } else {
    const int n = cJSON_GetArraySize(json);
    ok = cJSON_IsArray(json) && n <= (f->type == TERN__SHAPE ? TERN_MAX_RANK : f->count);
    for (int i = 0; ok && i < n; i++) ok = read_one(f, cJSON_GetArrayItem(json, i), at, i);
    if (ok && f->type == TERN__SHAPE) ((tern_shape *)at)->rank = n;
  }
  return ok ? TERN_OK : tern__fail(TERN_E_ARG, "layer of class \"%s\": \"%s\" must be %s", class, f->key, type_text(f));
}

static const tern__field *field_named(const tern__layer_kind *kind, const char *key, bool *is_common) {
  for (int i = 0; i < N_COMMON + kind->n_fields; i++) {
    const tern__field *f = i < N_COMMON ? &common[i] : &kind->field[i - N_COMMON];
    *is_common = i < N_COMMON;
    if (!strcmp(f->key, key)) return f;
  }
  return NULL;
}

/* params, zeroed, from the object; texts stay the object's. */
static tern_rc read_config(const tern__layer_kind *kind, const cJSON *config, void *params) {
  if (config && !cJSON_IsObject(config))
    return tern__fail(TERN_E_ARG, "layer of class \"%s\": \"config\" must be an object", kind->name);
  for (const cJSON *item = config ? config->child : NULL; item; item = item->next) {
    bool is_common = false;
    if (!strcmp(item->string, "trainable")) {
      if (!cJSON_IsBool(item))
        return tern__fail(TERN_E_ARG, "layer of class \"%s\": \"trainable\" must be true or false", kind->name);
      ((tern_layer_opts *)(void *)((char *)params + kind->opts))->frozen = cJSON_IsFalse(item);
      continue;
    }
    const tern__field *f = field_named(kind, item->string, &is_common);
    if (!f) return tern__fail(TERN_E_ARG, "layer of class \"%s\": it has no \"%.200s\"", kind->name, item->string);
    const tern_rc rc = read_field(kind->name, f, item, params, is_common ? kind->opts : 0);
    if (rc) return rc;
  }
  return TERN_OK;
}

/* By the maker that goes by its body's name. */
static tern_layer *make_custom(const tern__custom *c, const tern_load_opts *opts) {
  if (!c->body.name) {
    tern__fail(TERN_E_ARG, "layer of class \"Custom\": \"body\", the name of its kind, is missing");
    return NULL;
  }
  for (int i = 0; opts && i < opts->n_makers; i++) {
    const tern_layer_maker *m = &opts->makers[i];
    if (!m->name || !m->make || strcmp(m->name, c->body.name)) continue;
    tern_layer *l = m->make(m->self, &c->opts);
    if (!l) tern__fail(TERN_E_ARG, "the maker of layers \"%s\" gave NULL without an error", c->body.name);
    return l;
  }
  tern__fail(TERN_E_ARG,
             "a layer of the program's own, \"%s\", cannot be made: give its maker in tern_load_opts.makers",
             c->body.name);
  return NULL;
}

static tern_layer *read_layer(const cJSON *json, const tern_load_opts *opts, int depth);

/* Those inside: owned by the caller, as is the list. *n < 0: the error is set. */
static tern_layer **read_inner(const tern__layer_kind *kind, const cJSON *list, const tern_load_opts *opts, int depth,
                               int *n) {
  *n = -1;
  const int count = cJSON_GetArraySize(list);
  if (list && !cJSON_IsArray(list)) {
    tern__fail(TERN_E_ARG, "layer of class \"%s\": \"layers\" must be a list", kind->name);
    return NULL;
  }
  if (kind->inner != TERN__ANY_LAYERS && count != kind->inner) {
    tern__fail(TERN_E_ARG, "layer of class \"%s\": %d layers are inside; there must be %d", kind->name, count,
               kind->inner);
    return NULL;
  }
  tern_layer **inner = tern__calloc((size_t)count + 1, sizeof *inner);
  if (!inner) tern__fail(TERN_E_OOM, "layers from JSON: out of host memory");
  const cJSON *item = list ? list->child : NULL;
  int made = 0;
  for (; inner && item && (inner[made] = read_layer(item, opts, depth + 1)); item = item->next) made++;
  if (inner && !item) {
    *n = made;
    return inner;
  }
  for (int i = 0; i < made; i++) tern__layer_free(inner[i]);
  free(inner);
  return NULL;
}

static tern_layer *read_layer(const cJSON *json, const tern_load_opts *opts, int depth) {
  const cJSON *class = cJSON_GetObjectItemCaseSensitive(json, "class");
  if (!cJSON_IsString(class) || depth > MAX_DEPTH) {
    tern__fail(TERN_E_ARG, depth > MAX_DEPTH ? "a layer from JSON: layers are more than 100 inside each other"
                                             : "a layer from JSON: an object with a \"class\" was expected");
    return NULL;
  }
  for (const cJSON *item = json->child; item; item = item->next)
    if (strcmp(item->string, "class") && strcmp(item->string, "config") && strcmp(item->string, "layers")) {
      tern__fail(TERN_E_ARG, "layer of class \"%s\": \"%.200s\" is neither class, config nor layers",
                 class->valuestring, item->string);
      return NULL;
    }
  const tern__layer_kind *kind = tern__layer_kind_named(class->valuestring);
  void *params = kind ? tern__calloc(1, kind->params) : NULL;
  if (kind && !params) tern__fail(TERN_E_OOM, "layer of class \"%s\": out of host memory", kind->name);
  tern_layer *l = NULL;
  int n = -1;
  if (params && !read_config(kind, cJSON_GetObjectItemCaseSensitive(json, "config"), params)) {
    tern_layer **inner = read_inner(kind, cJSON_GetObjectItemCaseSensitive(json, "layers"), opts, depth, &n);
    if (n >= 0) l = kind == &tern__kind_custom ? make_custom(params, opts) : tern__layer_new(kind, params, inner, n);
    free(inner);
  }
  free(params);
  return l;
}

tern_layer *tern__layer_from_json(const cJSON *json, const tern_load_opts *opts) { return read_layer(json, opts, 0); }
