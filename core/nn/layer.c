/* Layers: their life, their weights, calling them. What a kind computes is in the file of that kind. */
#include "nn/custom.h"
#include "nn/layer.h"
#include "base/alloc.h"
#include "base/thread.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- parameters ---- */

static const tern__field common_fields[] = {TERN__FIELD(TERN__TEXT, tern_layer_opts, name, "name")};

static char **text_at(void *params, size_t offset) { return (char **)(void *)((char *)params + offset); }

/* Texts become copies. On failure those that are not yet are NULL. */
static bool own_texts(const tern__layer_kind *kind, void *params) {
  bool ok = true;
  for (int i = -1; i < kind->n_fields; i++) {
    const tern__field *f = i < 0 ? common_fields : &kind->field[i];
    if (f->type != TERN__TEXT) continue;
    char **text = text_at(params, f->offset + (i < 0 ? kind->opts : 0));
    if (!*text) continue;
    *text = ok ? tern__strdup(*text) : NULL;
    ok = ok && *text;
  }
  return ok;
}

static void free_params(const tern__layer_kind *kind, void *params) {
  for (int i = -1; params && i < kind->n_fields; i++) {
    const tern__field *f = i < 0 ? common_fields : &kind->field[i];
    if (f->type == TERN__TEXT) free(*text_at(params, f->offset + (i < 0 ? kind->opts : 0)));
  }
  free(params);
}

int tern__one_of(const char *what, const char *text, const char *const *names) {
  if (!text) return 0;
  char list[512] = "";
  size_t n = 0;
  for (int i = 0; names[i]; i++) {
    if (!strcmp(text, names[i])) return i;
    n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", names[i]);
    if (n >= sizeof list) n = sizeof list - 1;
  }
  tern__fail(TERN_E_ARG, "%s is \"%s\"; there are: %s", what, text, list);
  return -1;
}

/* ---- life ---- */

void tern__layer_free(tern_layer *l) {
  if (!l) return;
  for (int i = 0; i < l->n_inner; i++) tern__layer_free(l->inner[i]);
  if (l->state && l->kind->end) l->kind->end(l);
  for (int i = 0; i < l->n_weights; i++) tern_release(l->weight[i]);
  free(l->weight);
  free(l->fixed);
  free(l->inner);
  free(l->state);
  free(l->name);
  free_params(l->kind, l->params);
  free(l);
}

/* Takes over what can be; false with the error set when one cannot. */
static bool take_inner(tern_layer *l, tern_layer *const *inner, int n) {
  bool ok = true;
  l->inner = tern__calloc((size_t)n + 1, sizeof(tern_layer *));
  if (!l->inner) {
    tern__fail(TERN_E_OOM, "%s: out of host memory", l->kind->name);
    ok = false;
  }
  for (int i = 0; i < n; i++) {
    tern_layer *x = inner[i];
    if (x && x->taken) {
      tern__fail(TERN_E_ARG, "%s: layer %d (%s) is part of a model already; make another one", l->kind->name, i,
                 x->name ? x->name : x->kind->name);
      ok = false;
      continue;
    }
    if (!x) {
      tern__fail(TERN_E_ARG, "%s: layer %d is NULL", l->kind->name, i);
      ok = false;
      continue;
    }
    x->taken = true; /* now: it may be in the list twice */
    x->parent = l;
    if (l->inner)
      l->inner[l->n_inner++] = x;
    else
      tern__layer_free(x);
  }
  return ok;
}

tern_layer *tern__layer_new(const tern__layer_kind *kind, const void *params, tern_layer *const *inner, int n_inner) {
  tern_layer *l = tern__calloc(1, sizeof *l);
  if (!l) {
    tern__fail(TERN_E_OOM, "%s: out of host memory", kind->name);
    for (int i = 0; i < n_inner; i++)
      if (inner[i] && !inner[i]->taken) tern__layer_free(inner[i]);
    return NULL;
  }
  l->kind = kind;
  bool ok = take_inner(l, inner, n_inner);
  l->params = tern__calloc(1, kind->params);
  l->state = kind->state ? tern__calloc(1, kind->state) : NULL;
  if (l->params) memcpy(l->params, params, kind->params);
  const bool room = l->params && own_texts(kind, l->params) && (l->state || !kind->state);
  if (!room) tern__fail(TERN_E_OOM, "%s: out of host memory", kind->name);
  const char *name = room ? tern__layer_common(l)->name : NULL;
  if (room && name) {
    l->name = tern__strdup(name);
    if (!l->name) ok = tern__fail(TERN_E_OOM, "%s: out of host memory", kind->name) == TERN_OK;
    if (!*name || strchr(name, '/'))
      ok = tern__fail(TERN_E_ARG, "%s: a layer's name must not be empty or hold a '/', as \"%s\" does", kind->name,
                      name) == TERN_OK;
  }
  ok = ok && room && (!kind->check || !kind->check(l->params));
  if (ok) return l;
  free(l->state); /* nothing is in it yet that would have to be ended */
  l->state = NULL;
  tern__layer_free(l);
  return NULL;
}

tern_layer *tern__layer_copy(const tern_layer *l) {
  tern_layer **inner = tern__calloc((size_t)l->n_inner + 1, sizeof(tern_layer *));
  if (!inner) {
    tern__fail(TERN_E_OOM, "%s: out of host memory", l->kind->name);
    return NULL;
  }
  for (int i = 0; i < l->n_inner; i++) inner[i] = tern__layer_copy(l->inner[i]);
  tern_layer *copy = tern__layer_new(l->kind, l->params, inner, l->n_inner);
  free(inner);
  return copy;
}

void tern_layer_release(tern_layer *layer) {
  if (!layer) return;
  if (layer->taken)
    tern__fail(TERN_E_ARG, "tern_layer_release: %s belongs to a model; release that",
               layer->name ? layer->name : layer->kind->name);
  else
    tern__layer_free(layer);
}

/* ---- names ---- */

static bool name_used(const tern_layer *l, const char *name) {
  for (int i = 0; i < l->n_inner; i++)
    if (l->inner[i]->name && !strcmp(l->inner[i]->name, name)) return true;
  return false;
}

static const char *stem_of(const tern_layer *l) {
  return l->kind == &tern__kind_custom ? ((const tern__custom *)l->params)->body.name : l->kind->stem;
}

static tern_rc give_name(tern_layer *l) {
  const char *stem = stem_of(l);
  char name[128];
  snprintf(name, sizeof name, "%.100s", stem);
  for (int i = 1; l->parent && name_used(l->parent, name); i++) snprintf(name, sizeof name, "%.100s_%d", stem, i);
  l->name = tern__strdup(name);
  return l->name ? TERN_OK : tern__fail(TERN_E_OOM, "%s: out of host memory", l->kind->name);
}

tern_rc tern__layer_name_inner(tern_layer *l) {
  for (int i = 0; i < l->n_inner; i++)
    for (int j = 0; j < i && l->inner[i]->name; j++)
      if (l->inner[j]->name && !strcmp(l->inner[i]->name, l->inner[j]->name))
        return tern__fail(TERN_E_ARG, "%s: two layers are named \"%s\"", l->kind->name, l->inner[i]->name);
  tern_rc rc = TERN_OK;
  for (int i = 0; i < l->n_inner && !rc; i++) {
    if (!l->inner[i]->name) rc = give_name(l->inner[i]);
    if (!rc) rc = tern__layer_name_inner(l->inner[i]);
  }
  return rc;
}

/* "residual/dense"; that of a model, the outermost chain, is left out. */
static size_t path_of(const tern_layer *l, char *to, size_t size) {
  size_t n = l->parent ? path_of(l->parent, to, size) : 0;
  if (!l->parent && l->kind == &tern__kind_chain) {
    *to = 0;
    return 0;
  }
  const int more = snprintf(to + n, size - n, "%s%s", n ? "/" : "", l->name ? l->name : stem_of(l));
  n += more > 0 ? (size_t)more : 0;
  return n < size ? n : size - 1;
}

const char *tern_layer_name(const tern_layer *layer) {
  return !layer ? "" : layer->name ? layer->name : stem_of(layer);
}

/* ---- weights ---- */

tern_tensor *tern__layer_weight(tern_layer *l, const char *name, tern_shape shape, tern_dtype dtype,
                                const char *initializer, const char *otherwise, bool frozen) {
  for (int d = 0; d < shape.rank; d++)
    if (shape.dim[d] <= 0) {
      tern__fail(TERN_E_ARG, "weight %s has size %lld at axis %d; sizes must be known and at least 1", name,
                 (long long)shape.dim[d], d);
      return NULL;
    }
  tern_tensor **weight = tern__realloc(l->weight, ((size_t)l->n_weights + 1) * sizeof(tern_tensor *));
  if (weight) l->weight = weight;
  bool *fixed = tern__realloc(l->fixed, ((size_t)l->n_weights + 1) * sizeof *fixed);
  if (fixed) l->fixed = fixed;
  if (!weight || !fixed) {
    tern__fail(TERN_E_OOM, "weight %s: out of host memory", name);
    return NULL;
  }
  char path[512];
  const size_t n = path_of(l, path, sizeof path);
  snprintf(path + n, sizeof path - n, "%s%s", n ? "/" : "", name);
  const tern_variable_opts opts = {.name = path, .frozen = frozen || tern__layer_common(l)->frozen};
  tern_scope_mark scope = tern_scope_begin();
  tern_tensor *v = tern_variable(tern_initialize(initializer ? initializer : otherwise, shape, dtype), &opts);
  tern_scope_end(&scope);
  if (!v) return NULL;
  l->fixed[l->n_weights] = frozen;
  l->weight[l->n_weights++] = v;
  return v;
}

tern_rc tern__layer_size(tern_shape in, int axis, int64_t *size) {
  const int at = axis < 0 ? axis + in.rank : axis;
  if (at < 0 || at >= in.rank)
    return tern__fail(TERN_E_ARG, "its input has rank %d (batch included): there is no axis %d", in.rank, axis);
  if (in.dim[at] <= 0)
    return tern__fail(TERN_E_ARG, "the size of its input along axis %d is not known, and its weights depend on it", at);
  *size = in.dim[at];
  return TERN_OK;
}

tern_tensor *tern_layer_get_weight(const tern_layer *layer, int i) {
  if (!layer) return NULL;
  if (i >= 0 && i < layer->n_weights) return layer->weight[i];
  tern__fail(TERN_E_ARG, "layer %s has %d weights of its own; there is no number %d", tern_layer_name(layer),
             layer->n_weights, i);
  return NULL;
}

int tern_layer_variables(const tern_layer *layer, tern_tensor **out, int max) {
  int n = 0;
  for (int i = 0; layer && i < layer->n_weights; i++, n++)
    if (n < max) out[n] = layer->weight[i];
  for (int i = 0; layer && i < layer->n_inner; i++)
    n += tern_layer_variables(layer->inner[i], n < max ? out + n : NULL, n < max ? max - n : 0);
  return n;
}

tern_rc tern_layer_set_trainable(tern_layer *layer, int trainable) {
  if (!layer) return tern__recorded();
  tern_rc rc = TERN_OK;
  ((tern_layer_opts *)(void *)((char *)layer->params + layer->kind->opts))->frozen = !trainable;
  for (int i = 0; i < layer->n_weights && !rc; i++)
    if (!layer->fixed[i]) rc = tern_set_trainable(layer->weight[i], trainable);
  for (int i = 0; i < layer->n_inner && !rc; i++) rc = tern_layer_set_trainable(layer->inner[i], trainable);
  return rc;
}

/* ---- building and calling ---- */

/* "layer residual/dense_1 (Dense): " before an error's text; one that names a layer inside stays. */
static void name_in_error(const tern_layer *l) {
  char path[600], text[700];
  const char *pending = tern__pending();
  if (!strncmp(pending, "layer ", 6)) return;
  path_of(l, path, sizeof path);
  snprintf(text, sizeof text, "layer %s (%s): ", *path ? path : tern_layer_name(l), l->kind->name);
  tern__error_prefix(text);
}

static tern_rc build(tern_layer *l, tern_shape in, tern_dtype dtype) {
  tern__thread *t = tern__thread_get();
  if (!t) return TERN_E_OOM;
  tern_rc rc = l->name ? TERN_OK : give_name(l);
  if (!rc && !l->parent) rc = tern__layer_name_inner(l);
  if (!rc && l->kind->build) {
    TERN_NO_GRADIENT;
    const uint32_t before = tern__eager_begin(t);
    rc = l->kind->build(l, in, dtype);
    tern__eager_end(t, before);
  }
  for (int i = 0; rc && i < l->n_weights; i++) tern_release(l->weight[i]);
  if (rc) l->n_weights = 0;
  l->built = !rc;
  return rc;
}

tern_rc tern__layer_build(tern_layer *l, tern_shape in, tern_dtype dtype) {
  if (l->built) return TERN_OK;
  const tern_rc rc = build(l, in, dtype);
  if (rc) name_in_error(l);
  return rc;
}

tern_tensor *tern__layer_run(tern_layer *l, tern_tensor *x, tern__pass *p) {
  if (!l || !x) return NULL;
  if (!l->built) {
    tern_shape in = tern_shape_get(x);
    if (in.rank) in.dim[0] = -1;
    if (tern__layer_build(l, in, tern_dtype_get(x))) return NULL;
  }
  tern_tensor *y = l->kind->call(l, x, p);
  if (!y) name_in_error(l);
  return y;
}

tern_tensor *tern_layer_call(tern_layer *layer, tern_tensor *x, const tern_layer_call_opts *opts) {
  tern__pass p = {.training = opts && opts->training, .mask = opts && opts->mask ? opts->mask : TERN_NONE};
  return tern__layer_run(layer, x, &p);
}

void tern__layer_reset(tern_layer *l) {
  if (l->kind->reset && l->built) l->kind->reset(l);
  for (int i = 0; i < l->n_inner; i++) tern__layer_reset(l->inner[i]);
}
