/* A model's life: layers taken over, weights made for a shape, weights in and out, history. */
#include "nn/model.h"
#include "base/alloc.h"
#include "base/thread.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

tern_rc tern__model_need(const tern_model *m, const char *op, bool compiled) {
  if (!m) return tern__pending()[0] ? tern__recorded() : tern__fail(TERN_E_ARG, "%s: the model is NULL", op);
  if (compiled && (!m->compiled || !m->loss))
    return tern__fail(TERN_E_ARG, "%s: the model was not compiled with a loss; call tern_compile first", op);
  return TERN_OK;
}

/* ---- life ---- */

/* The shape that the first layer, or the first inside of it, was given. */
static const tern_layer *first_of(const tern_layer *l) {
  while (l->n_inner && !tern__layer_common(l)->input_shape.rank) l = l->inner[0];
  return l;
}

tern_model *tern_sequential_n(tern_layer *const *layers, int n) {
  static const tern_layer_opts none = {.name = "sequential"};
  tern_model *m = tern__calloc(1, sizeof *m);
  tern_layer *root = tern__layer_new(&tern__kind_chain, &none, layers, n); /* takes the layers over in any case */
  if (!m) tern__fail(TERN_E_OOM, "tern_sequential: out of host memory");
  if (!m || !root || (n < 1 && tern__fail(TERN_E_ARG, "tern_sequential: a model needs a layer")) ||
      tern__layer_name_inner(root)) {
    tern__layer_free(root);
    free(m);
    return NULL;
  }
  m->root = root;
  root->taken = true;
  const tern_layer *first = first_of(root);
  const tern_shape shape = tern__layer_common(first)->input_shape;
  const bool ids = !strcmp(first->kind->name, "Embedding");
  if (shape.rank && tern_model_build(m, shape, ids ? TERN_I32 : TERN_F32)) {
    tern_model_release(m);
    return NULL;
  }
  return m;
}

static void drop_compiled(tern_model *m) {
  tern__model_drop_functions(m);
  tern_optimizer_release(m->optimizer);
  tern_metric_release(m->tracker);
  for (int i = 0; i < m->n_metrics; i++) {
    tern_metric_release(m->metric[i]);
    free(m->metric_name[i]);
  }
  free(m->metric);
  free(m->metric_name);
  free(m->loss_name);
  if (m->loss_opts.weights && m->loss_opts.weights != TERN_NONE) tern_release(m->loss_opts.weights);
  m->optimizer = NULL;
  m->tracker = NULL;
  m->metric = NULL;
  m->metric_name = NULL;
  m->loss_name = NULL;
  m->loss = NULL;
  m->loss_opts = (tern_loss_opts){0};
  m->n_metrics = 0;
  m->fits[0].rank = 0;
  m->compiled = false;
}

void tern_model_release(tern_model *m) {
  if (!m) return;
  drop_compiled(m);
  tern__layer_free(m->root);
  for (int i = 0; i < m->n_history; i++) {
    free(m->history[i].name);
    free(m->history[i].value);
  }
  tern_release(m->class_weights);
  free(m->history);
  free(m->boundaries);
  free(m->rates);
  free(m->output);
  free(m);
}

/* ---- shapes ---- */

/* The layers on a placeholder in a graph of its own: weights are made, shapes found, nothing is computed. */
static tern_rc try_shape(tern_model *m, tern_shape in, tern_dtype dtype, tern_shape *output) {
  tern_graph *g = tern_graph_new("shapes");
  if (!g) return tern__recorded();
  tern_scope_mark scope = tern_scope_begin();
  tern_graph_mark mark = tern_graph_begin(g);
  tern__pass p = {.mask = TERN_NONE};
  tern_tensor *x = tern_placeholder(in, dtype, "x");
  for (int i = 0; i < m->root->n_inner && x; i++) {
    x = tern__layer_run(m->root->inner[i], x, &p);
    if (x) output[i] = tern_shape_get(x);
  }
  const tern_rc rc = x ? TERN_OK : tern__recorded();
  tern_graph_end(&mark);
  tern_scope_end(&scope);
  tern_graph_release(g);
  return rc;
}

tern_rc tern_model_build(tern_model *m, tern_shape input, tern_dtype dtype) {
  tern_rc rc = tern__model_need(m, "tern_model_build", false);
  if (rc) return rc;
  if (input.rank < 0 || input.rank >= TERN_MAX_RANK)
    return tern__fail(TERN_E_ARG, "tern_model_build: inputs of rank %d (without the batch); 0 to %d can be had",
                      input.rank, TERN_MAX_RANK - 1);
  tern_shape in = {.rank = input.rank + 1, .dim = {-1}};
  for (int d = 0; d < input.rank; d++) in.dim[d + 1] = input.dim[d] < 0 ? -1 : input.dim[d];
  tern_shape *output = tern__calloc((size_t)m->root->n_inner, sizeof *output);
  if (!output) return tern__fail(TERN_E_OOM, "tern_model_build: out of host memory");
  m->root->built = true; /* it has no weights of its own */
  rc = try_shape(m, in, dtype ? dtype : TERN_F32, output);
  if (rc) {
    free(output);
    return rc;
  }
  free(m->output);
  m->output = output;
  m->input = input;
  m->dtype = dtype ? dtype : TERN_F32;
  m->shaped = true;
  return TERN_OK;
}

tern_rc tern__model_for(tern_model *m, const char *op, tern_tensor *x) {
  if (!x || x == TERN_NONE) return x ? tern__fail(TERN_E_ARG, "%s: x is missing", op) : tern__recorded();
  tern_shape s = tern_shape_get(x);
  if (s.rank < 1 || s.dim[0] == 0)
    return tern__fail(TERN_E_ARG, "%s: x has %s; axis 0 is the batch and must not be empty", op,
                      s.rank < 1 ? "rank 0" : "no rows");
  bool fits = m->shaped && s.rank == m->input.rank + 1;
  for (int d = 1; d < s.rank && fits; d++) fits = m->input.dim[d - 1] < 0 || m->input.dim[d - 1] == s.dim[d];
  if (fits) return TERN_OK;
  if (m->shaped) {
    char given[200], wanted[200];
    tern_shape want = {.rank = m->input.rank + 1, .dim = {-1}};
    memcpy(want.dim + 1, m->input.dim, (size_t)m->input.rank * sizeof *want.dim);
    s.dim[0] = -1;
    return tern__fail(TERN_E_ARG, "%s: the model takes inputs of shape %s, and x has %s", op,
                      tern__model_shape(want, wanted), tern__model_shape(s, given));
  }
  tern_shape in = {.rank = s.rank - 1};
  memcpy(in.dim, s.dim + 1, (size_t)in.rank * sizeof *in.dim);
  return tern_model_build(m, in, tern_dtype_get(x));
}

tern_tensor *tern_model_call(tern_model *m, tern_tensor *x, int training) {
  if (tern__model_need(m, "tern_model_call", false)) return NULL;
  tern__pass p = {.training = training, .mask = TERN_NONE};
  m->root->built = true;
  return tern__layer_run(m->root, x, &p);
}

/* ---- layers and weights ---- */

tern_layer *tern_model_layer(tern_model *m, int i) {
  if (tern__model_need(m, "tern_model_layer", false)) return NULL;
  if (i >= 0 && i < m->root->n_inner) return m->root->inner[i];
  tern__fail(TERN_E_ARG, "tern_model_layer: the model has %d layers; there is no number %d", m->root->n_inner, i);
  return NULL;
}

tern_layer *tern_model_layer_named(tern_model *m, const char *name) {
  if (tern__model_need(m, "tern_model_layer_named", false)) return NULL;
  char list[600] = "";
  size_t n = 0;
  for (int i = 0; i < m->root->n_inner; i++) {
    tern_layer *l = m->root->inner[i];
    if (name && !strcmp(l->name, name)) return l;
    n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", l->name);
    if (n >= sizeof list) n = sizeof list - 1;
  }
  tern__fail(TERN_E_ARG, "the model has no layer \"%s\"; there are: %s", name ? name : "NULL", list);
  return NULL;
}

int tern_model_variables(tern_model *m, tern_tensor **out, int max) {
  return m ? tern_layer_variables(m->root, out, max) : 0;
}

/* All variables, in memory of the caller's: free(). */
static tern_tensor **all_variables(tern_model *m, int *n) {
  *n = tern_model_variables(m, NULL, 0);
  tern_tensor **all = tern__calloc((size_t)*n + 1, sizeof(tern_tensor *));
  if (all)
    tern_model_variables(m, all, *n);
  else
    tern__fail(TERN_E_OOM, "a model's variables: out of host memory");
  return all;
}

static int trained_of(const tern_layer *l, tern_tensor **out, int n, int max) {
  for (int i = 0; i < l->n_weights; i++) {
    if (!tern_trainable(l->weight[i])) continue;
    if (n < max) out[n] = l->weight[i];
    n++;
  }
  for (int i = 0; i < l->n_inner; i++) n = trained_of(l->inner[i], out, n, max);
  return n;
}

int tern_model_trainable_variables(tern_model *m, tern_tensor **out, int max) {
  return m ? trained_of(m->root, out, 0, max) : 0;
}

int tern_get_weights(tern_model *m, tern_tensor **out, int max) {
  int n = 0;
  tern_tensor **v = m ? all_variables(m, &n) : NULL;
  if (!v) return 0;
  for (int i = 0; i < n && i < max; i++)
    if (!(out[i] = tern_clone(v[i]))) n = 0;
  free(v);
  return n;
}

tern_rc tern_set_weights(tern_model *m, tern_tensor *const *values, int n) {
  tern_rc rc = tern__model_need(m, "tern_set_weights", false);
  int have = 0;
  tern_tensor **v = rc ? NULL : all_variables(m, &have);
  if (!v) return tern__recorded();
  if (n != have)
    rc = tern__fail(TERN_E_ARG, "tern_set_weights: %d values for a model with %d weights%s", n, have,
                    have ? "" : " (none so far: tern_model_build makes them)");
  for (int i = 0; i < n && !rc; i++) {
    if (!values[i]) rc = tern__recorded();
    const tern_shape a = tern_shape_get(v[i]), b = rc ? a : tern_shape_get(values[i]);
    if (rc || (a.rank == b.rank && !memcmp(a.dim, b.dim, (size_t)a.rank * sizeof *a.dim))) continue;
    char want[200], got[200];
    rc = tern__fail(TERN_E_ARG, "tern_set_weights: %s has shape %s, value %d has %s; nothing was changed",
                    tern_variable_name(v[i]), tern__model_shape(a, want), i, tern__model_shape(b, got));
  }
  for (int i = 0; i < n && !rc; i++) rc = tern_assign(v[i], values[i]);
  free(v);
  return rc;
}

tern_rc tern_reset_states(tern_model *m) {
  const tern_rc rc = tern__model_need(m, "tern_reset_states", false);
  if (!rc) tern__layer_reset(m->root);
  return rc;
}

/* ---- how it is trained ---- */

static tern_optimizer *optimizer_named(const char *name) {
  if (!name) name = "rmsprop";
  if (!strcmp(name, "sgd")) return tern_sgd(NULL);
  if (!strcmp(name, "adam")) return tern_adam(NULL);
  if (!strcmp(name, "adamw")) return tern_adamw(NULL);
  if (!strcmp(name, "rmsprop")) return tern_rmsprop(NULL);
  if (!strcmp(name, "adagrad")) return tern_adagrad(NULL);
  if (!strcmp(name, "lion")) return tern_lion(NULL);
  tern__fail(TERN_E_ARG, "there is no optimizer \"%s\"; there are: sgd, adam, adamw, rmsprop, adagrad, lion", name);
  return NULL;
}

static tern_rc make_metrics(tern_model *m, const char *const *names) {
  int n = 0;
  while (names && names[n]) n++;
  m->metric = tern__calloc((size_t)n + 1, sizeof *m->metric);
  m->metric_name = tern__calloc((size_t)n + 1, sizeof *m->metric_name);
  m->tracker = tern_metric_new("mean", &(tern_metric_opts){.name = "loss"});
  if (!m->metric || !m->metric_name) return tern__fail(TERN_E_OOM, "tern_compile: out of host memory");
  if (!m->tracker) return tern__recorded();
  for (int i = 0; i < n; i++) {
    m->metric[i] = tern_metric_new(names[i], NULL);
    m->metric_name[i] = tern__strdup(names[i]);
    m->n_metrics = i + 1;
    if (!m->metric[i]) return tern__recorded();
    if (!m->metric_name[i]) return tern__fail(TERN_E_OOM, "tern_compile: out of host memory");
  }
  return TERN_OK;
}

tern_rc tern_compile(tern_model *m, const tern_compile_opts *opts) {
  static const tern_compile_opts none = {0};
  if (!opts) opts = &none;
  tern_rc rc = tern__model_need(m, "tern_compile", false);
  if (!rc && opts->optimizer && opts->optimizer_object)
    rc = tern__fail(TERN_E_ARG, "tern_compile: give optimizer or optimizer_object");
  if (!rc && opts->loss && opts->loss_function) rc = tern__fail(TERN_E_ARG, "tern_compile: give loss or loss_function");
  tern_loss_function loss = rc || !opts->loss ? opts->loss_function : tern_loss_named(opts->loss);
  if (!rc && opts->loss && !loss) rc = tern__recorded();
  tern_optimizer *optimizer = opts->optimizer_object;
  if (!rc && !optimizer && !(optimizer = optimizer_named(opts->optimizer))) rc = tern__recorded();
  if (rc) {
    if (opts->optimizer_object) tern_optimizer_release(opts->optimizer_object);
    return rc;
  }
  drop_compiled(m);
  m->optimizer = optimizer;
  m->loss = loss;
  if (opts->loss_opts) m->loss_opts = *opts->loss_opts;
  if (m->loss_opts.weights && m->loss_opts.weights != TERN_NONE) tern_keep(m->loss_opts.weights);
  if (m->loss_opts.reduction == TERN_LOSS_NONE) m->loss_opts.reduction = TERN_LOSS_MEAN;
  m->eager = opts->eager;
  m->loss_name = opts->loss ? tern__strdup(opts->loss) : NULL;
  if (opts->loss && !m->loss_name) rc = tern__fail(TERN_E_OOM, "tern_compile: out of host memory");
  if (!rc) rc = make_metrics(m, opts->metrics);
  m->compiled = !rc;
  if (rc) drop_compiled(m);
  return rc;
}

/* ---- history ---- */

static tern__log *log_named(tern_model *m, const char *name) {
  for (int i = 0; i < m->n_history; i++)
    if (!strcmp(m->history[i].name, name)) return &m->history[i];
  return NULL;
}

static tern__log *log_make(tern_model *m, const char *name) {
  tern__log *l = log_named(m, name);
  if (l) return l;
  tern__log *more = tern__realloc(m->history, ((size_t)m->n_history + 1) * sizeof *more);
  char *copy = more ? tern__strdup(name) : NULL;
  if (more) m->history = more;
  if (!copy) {
    tern__fail(TERN_E_OOM, "a model's history: out of host memory");
    return NULL;
  }
  m->history[m->n_history] = (tern__log){.name = copy};
  return &m->history[m->n_history++];
}

tern_rc tern__model_log(tern_model *m, const char *name, double value) {
  tern__log *l = log_make(m, name);
  if (!l) return tern__recorded();
  if (l->n == l->capacity) {
    const int capacity = l->capacity ? 2 * l->capacity : 16;
    double *more = tern__realloc(l->value, (size_t)capacity * sizeof *more);
    if (!more) return tern__fail(TERN_E_OOM, "a model's history: out of host memory");
    l->value = more;
    l->capacity = capacity;
  }
  l->value[l->n++] = value;
  return TERN_OK;
}

tern_rc tern__model_history_set(tern_model *m, const char *name, const double *values, int n) {
  tern__log *l = log_make(m, name);
  if (!l) return tern__recorded();
  l->n = 0;
  tern_rc rc = TERN_OK;
  for (int i = 0; i < n && !rc; i++) rc = tern__model_log(m, name, values[i]);
  return rc;
}

const double *tern_history(tern_model *m, const char *name, int *n) {
  if (n) *n = 0;
  if (tern__model_need(m, "tern_history", false)) return NULL;
  const tern__log *l = name ? log_named(m, name) : NULL;
  if (l) {
    if (n) *n = l->n;
    return l->value;
  }
  char list[400] = "";
  size_t at = 0;
  for (int i = 0; i < m->n_history; i++) {
    at += (size_t)snprintf(list + at, sizeof list - at, "%s%s", i ? ", " : "", m->history[i].name);
    if (at >= sizeof list) at = sizeof list - 1;
  }
  tern__fail(TERN_E_ARG, "there is no history of \"%s\"; there is: %s", name ? name : "NULL",
             m->n_history ? list : "none, before the first fit");
  return NULL;
}
