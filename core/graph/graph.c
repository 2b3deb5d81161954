/* Graph mode: the thread's switch, graphs and their values by name, placeholders. A placeholder's unknown sizes are
   marks (dims.h), which inference computes with as with numbers; a session puts the sizes of what is fed in their
   place. */
#include "graph/mode.h"
#include "base/alloc.h"
#include "device/device.h"
#include "graph/ir/text.h"
#include "tensor/dtype.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <tern/ops.h>

static tern_rc no_memory(void) { return tern__fail(TERN_E_OOM, "graph: out of host memory"); }

/* ---- what graph mode keeps ---- */

static tern__tracer *mode_new(const char *name) {
  tern__tracer *trace = tern__tracer_new(TERN__TRACE_MODE, name);
  if (!trace) return NULL;
  trace->name = trace->g->name;
  trace->mode = tern__calloc(1, sizeof *trace->mode);
  if (trace->mode) return trace;
  tern__graph_free(tern__tracer_finish(trace));
  no_memory();
  return NULL;
}

void tern__mode_end(tern__tracer *trace) {
  tern__mode *m = trace->mode;
  trace->mode = NULL;
  trace->name = "a graph that was released";
  for (uint32_t i = 0; i < m->n_found; i++) tern__unref(m->found[i]);
  free(m->found);
  free(m->assignment);
  free(m);
}

tern_rc tern__mode_assigned(tern__tracer *trace, uint32_t variable, uint32_t value) {
  tern__mode *m = trace->mode;
  if (m->n_assignments == m->assignment_capacity) {
    const uint32_t capacity = m->assignment_capacity ? 2 * m->assignment_capacity : 16;
    tern__assignment *more = tern__realloc(m->assignment, capacity * sizeof *more);
    if (!more) return no_memory();
    m->assignment = more;
    m->assignment_capacity = capacity;
  }
  m->assignment[m->n_assignments++] = (tern__assignment){variable, value};
  return TERN_OK;
}

int64_t tern__mode_size(const tern__tracer *trace, int64_t size) {
  static const tern__dims none;
  tern__dims dims = none;
  uint32_t used = 0;
  dims.n = trace->mode ? trace->mode->n_unknown : 0;
  if (dims.n) tern__dims_eval(&dims, size, &used);
  return used ? -1 : size;
}

const char *tern__mode_shape(const tern__tracer *trace, int rank, const int64_t *shape, char *buffer) {
  int at = snprintf(buffer, 200, "(");
  for (int d = 0; d < rank; d++) {
    const int64_t size = tern__mode_size(trace, shape[d]);
    at += snprintf(buffer + at, 200 - (size_t)at, d ? ", " : "");
    at += size < 0 ? snprintf(buffer + at, 200 - (size_t)at, "?")
                   : snprintf(buffer + at, 200 - (size_t)at, "%lld", (long long)size);
  }
  snprintf(buffer + at, 200 - (size_t)at, rank == 1 ? ",)" : ")");
  return buffer;
}

/* ---- the switch ---- */

static bool in_graph(const tern__thread *t) { return t->hooks & TERN__HOOK_GRAPH; }

/* Inside a function or a body that is being traced: graph mode can be neither entered nor left there. */
static bool in_function(const tern__thread *t, const char *what) {
  if (!in_graph(t) || t->trace->kind == TERN__TRACE_MODE) return false;
  tern__fail(TERN_E_ARG,
             "%s: \"%s\" is being traced, whose ops have a graph of their own; call it outside of the function", what,
             t->trace->name);
  return true;
}

tern__tracer *tern__mode_default(tern__thread *t) {
  if (!t->graph_mode) t->graph_mode = mode_new("default");
  return t->graph_mode;
}

int tern_executing_eagerly(void) {
  const tern__thread *t = tern__tls;
  return !t || !in_graph(t);
}

void tern_disable_eager_execution(void) {
  tern__thread *t = tern__thread_get();
  if (!t || in_function(t, "disable_eager_execution") || in_graph(t)) return;
  if (!t->trace && !(t->trace = tern__mode_default(t))) return;
  t->hooks |= TERN__HOOK_GRAPH;
}

/* Inside of tern_with_graph t->trace stays: eager execution may be disabled again there. */
void tern_enable_eager_execution(void) {
  tern__thread *t = tern__thread_get();
  if (!t || in_function(t, "enable_eager_execution")) return;
  t->hooks &= ~(uint32_t)TERN__HOOK_GRAPH;
  if (t->trace == t->graph_mode && t->trace && !t->trace->mode->entered) t->trace = NULL;
}

enum { NO_MARK = 2 };

tern_graph_mark tern_graph_begin(tern_graph *graph) {
  tern__thread *t = tern__thread_get();
  tern__tracer *trace = tern__tracer_of_graph(graph);
  const tern_graph_mark none = {NULL, NO_MARK};
  if (!t || in_function(t, "graph_begin")) return none;
  if (!trace || !trace->mode) {
    tern__fail(TERN_E_ARG, "graph_begin: the graph is NULL or was released");
    return none;
  }
  const tern_graph_mark mark = {(tern_graph *)(void *)t->trace, !in_graph(t)};
  if (t->trace) t->trace->mode->entered++;
  trace->mode->entered++;
  t->trace = trace;
  t->hooks |= TERN__HOOK_GRAPH;
  return mark;
}

void tern_graph_end(tern_graph_mark *mark) {
  tern__thread *t = tern__thread_get();
  if (!t || !mark || mark->eager == NO_MARK) return;
  tern__tracer *outer = tern__tracer_of_graph(mark->outer);
  if (t->trace && t->trace->mode) t->trace->mode->entered--;
  if (outer) outer->mode->entered--;
  t->trace = outer;
  t->hooks = mark->eager ? t->hooks & ~(uint32_t)TERN__HOOK_GRAPH : t->hooks | TERN__HOOK_GRAPH;
  mark->eager = NO_MARK;
}

/* ---- graphs ---- */

tern_graph *tern_graph_new(const char *name) {
  return tern__thread_get() ? (tern_graph *)(void *)mode_new(name) : NULL;
}

tern_graph *tern_default_graph(void) {
  tern__thread *t = tern__thread_get();
  return t ? (tern_graph *)(void *)tern__mode_default(t) : NULL;
}

void tern_graph_release(tern_graph *graph) {
  tern__tracer *trace = tern__tracer_of_graph(graph);
  tern__thread *t = tern__thread_get();
  if (!trace || !t) return;
  if (!trace->mode || trace->mode->entered || (in_graph(t) && t->trace == trace)) {
    tern__fail(TERN_E_ARG, "graph_release: %s",
               trace->mode
                   ? "ops of this thread still go into the graph; tern_graph_end it, or enable eager execution, "
                     "first"
                   : "the graph was released before");
    return;
  }
  if (t->graph_mode == trace) t->graph_mode = NULL;
  tern__graph_free(tern__tracer_finish(trace));
}

/* The tracer of a graph that is given, or NULL with the error set. */
static tern__tracer *alive(const tern_graph *graph, const char *what) {
  tern__tracer *trace = tern__tracer_of_graph(graph);
  if (trace && trace->mode) return trace;
  if (tern__thread_get()) tern__fail(TERN_E_ARG, "%s: the graph is NULL or was released", what);
  return NULL;
}

char *tern_graph_to_string(tern_graph *graph, tern_graph_format format) {
  tern__tracer *trace = alive(graph, "graph_to_string");
  if (!trace) return NULL;
  tern__tracer_close_variables(trace);
  if (format == TERN_GRAPH_TEXT) return tern__graph_text(trace->g, 1);
  if (format == TERN_GRAPH_DOT) return tern__graph_dot(trace->g);
  tern__fail(TERN_E_ARG, "graph_to_string: %d is no format; TERN_GRAPH_TEXT and TERN_GRAPH_DOT are", (int)format);
  return NULL;
}

/* Which sizes of its inputs are unknown. */
static void find_unknown(tern__tracer *trace) {
  const tern__graph *g = trace->g;
  tern__mode *m = trace->mode;
  for (uint32_t i = 0; i < g->n_inputs; i++) {
    const tern__ir_value *v = &g->value[g->input[i]];
    for (int d = 0; d < v->rank; d++)
      for (int k = 0; k < TERN__MAX_DIMS; k++) {
        if (v->shape[d] != tern__dims_mark(k)) continue;
        if (m->unknown[k].size == 0) m->unknown[k] = (tern__unknown){-1, d};
        if (m->n_unknown <= k) m->n_unknown = k + 1;
      }
  }
}

/* The current values of its variables, and what it assigns to them. */
static tern_rc find_variables(tern__tracer *trace) {
  const tern__graph *g = trace->g;
  trace->current = tern__calloc(g->n_variables + 1, sizeof *trace->current);
  if (!trace->current) return no_memory();
  for (uint32_t i = 0; i < g->n_variables; i++) {
    const uint32_t value = g->variable[i].value;
    tern_tensor *now = tern__tracer_tensor(trace, value);
    if (!now) return tern__recorded();
    trace->current[trace->n_current++] = tern__ref(now);
    if (value != g->node[g->variable[i].node].first_out && tern__mode_assigned(trace, i, value))
      return tern__recorded();
  }
  return TERN_OK;
}

tern_graph *tern_graph_from_string(const char *text, size_t length) {
  if (!tern__thread_get()) return NULL;
  if (!text) {
    tern__fail(TERN_E_ARG, "graph_from_string: the text is NULL");
    return NULL;
  }
  tern__graph *g = tern__graph_parse(text, length);
  if (!g || tern__graph_verify(g, "reading its text")) {
    tern__graph_free(g);
    return NULL;
  }
  tern__tracer *trace = mode_new(g->name);
  if (!trace) {
    tern__graph_free(g);
    return NULL;
  }
  tern__graph_free(trace->g);
  trace->g = g;
  trace->name = g->name;
  find_unknown(trace);
  tern_scope_mark mark = tern_scope_begin();
  const tern_rc rc = find_variables(trace);
  tern_scope_end(&mark);
  if (!rc) return (tern_graph *)(void *)trace;
  tern__graph_free(tern__tracer_finish(trace));
  return NULL;
}

/* ---- names ---- */

/* Nodes of the same kind before this one. */
static uint32_t number_of(const tern__graph *g, uint32_t node) {
  const tern__ir_node *n = &g->node[node];
  uint32_t number = 0;
  for (uint32_t i = 0; i < node; i++) number += g->node[i].kind == n->kind && g->node[i].op == n->op;
  return number;
}

const char *tern__mode_name(const tern__tracer *trace, uint32_t value, char *buffer) {
  const tern__ir_value *v = &trace->g->value[value];
  const tern__ir_node *n = &trace->g->node[v->node];
  if (n->kind == TERN__IR_VARIABLE && !v->name && *n->tensor->variable->name) {
    snprintf(buffer, 128, "%s", n->tensor->variable->name);
  } else if (v->name) {
    snprintf(buffer, 128, "%s", v->name);
  } else {
    const uint32_t number = number_of(trace->g, v->node);
    snprintf(buffer, 128, number ? "%.80s_%u" : "%.80s", tern__node_word(n), number);
  }
  return buffer;
}

void tern__mode_print(tern__tracer *trace, const tern_tensor *t) {
  char name[128], shape[200];
  const char *dtype = tern_dtype_name((tern_dtype)t->dtype);
  tern__mode_shape(trace, t->rank, t->shape, shape);
  if (t->flags & TERN__VARIABLE) {
    printf("tern.Variable(\"%s\", shape=%s, dtype=%s)\n", t->variable->name, shape, dtype);
    return;
  }
  if (!(trace = tern__tracer_of(t))->mode) {
    printf("tern.Tensor(symbolic, shape=%s, dtype=%s)\n", shape, dtype); /* its graph is gone */
    return;
  }
  const uint32_t value = tern__tracer_value(trace, (tern_tensor *)(uintptr_t)t);
  tern__mode_shape(trace, t->rank, t->shape, shape);
  printf("tern.Tensor(\"%s:%u\", shape=%s, dtype=%s)\n", tern__mode_name(trace, value, name),
         (unsigned)trace->g->value[value].out, shape, dtype);
}

static bool name_taken(const tern__graph *g, const char *name, uint32_t but) {
  for (uint32_t v = 0; v < g->n_values; v++)
    if (v != but && g->value[v].name && !strcmp(g->value[v].name, name)) return true;
  return false;
}

/* The name, or the first of NAME_1, NAME_2, .. that no other value has. */
static tern_rc give_name(tern__graph *g, uint32_t value, const char *name) {
  const size_t size = strlen(name) + 16;
  char *unique = tern__calloc(size, 1);
  if (!unique) return no_memory();
  memcpy(unique, name, strlen(name));
  for (uint32_t k = 1; name_taken(g, unique, value); k++) snprintf(unique, size, "%s_%u", name, k);
  free(g->value[value].name);
  g->value[value].name = unique;
  return TERN_OK;
}

tern_tensor *tern_named(tern_tensor *t, const char *name) {
  if (!t || t->live != TERN__SYMBOLIC) return tern__usable(t, "named", 1) ? t : NULL;
  tern__tracer *trace = tern__tracer_of(t);
  if (!trace->g || !name || !*name) {
    tern__fail(TERN_E_ARG,
               trace->g ? "named: the name is NULL or empty" : "named: the graph of the tensor was released");
    return NULL;
  }
  return give_name(trace->g, tern__tracer_value(trace, t), name) ? NULL : t;
}

/* A value that goes by this name; out: which output of its node. */
static uint32_t find_value(const tern__tracer *trace, const char *name, size_t length, uint32_t out) {
  const tern__graph *g = trace->g;
  char text[128];
  for (uint32_t v = 0; v < g->n_values; v++)
    if (g->value[v].name && strlen(g->value[v].name) == length && !memcmp(g->value[v].name, name, length)) return v;
  if (length == 6 && !memcmp(name, "return", 6)) return out < g->n_outputs ? g->output[out] : TERN__IR_NONE;
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    const tern__ir_node *n = &g->node[i];
    if (out >= n->n_out || strncmp(name, tern__node_word(n), strlen(tern__node_word(n))) != 0) continue;
    tern__mode_name(trace, n->first_out + out, text);
    if (strlen(text) == length && !memcmp(text, name, length)) return n->first_out + out;
  }
  return TERN__IR_NONE;
}

static tern_tensor *find_variable(const tern__graph *g, const char *name) {
  for (uint32_t i = 0; i < g->n_variables; i++)
    if (*name && !strcmp(g->variable[i].variable->variable->name, name)) return g->variable[i].variable;
  return NULL;
}

static void no_such_name(const tern__tracer *trace, const char *name) {
  const tern__graph *g = trace->g;
  char known[400] = "";
  size_t at = 0;
  for (uint32_t v = 0; v < g->n_values && at + 100 < sizeof known; v++)
    if (g->value[v].name)
      at += (size_t)snprintf(known + at, sizeof known - at, "%s%.64s", at ? ", " : "; it has ", g->value[v].name);
  tern__fail(TERN_E_ARG, "graph_tensor: graph \"%s\" has no value named \"%s\"%s", g->name, name, known);
}

/* Tensors that were found stay, one for a value. */
static tern_tensor *keep_found(tern__tracer *trace, uint32_t value) {
  tern__mode *m = trace->mode;
  for (uint32_t i = 0; i < m->n_found; i++)
    if (m->found[i]->imm.u == value) return m->found[i];
  tern_tensor **more = tern__realloc(m->found, (m->n_found + 1) * sizeof *more);
  if (!more) return no_memory(), NULL;
  m->found = more;
  tern_scope_mark mark = tern_scope_begin();
  tern_tensor *t = tern__tracer_tensor(trace, value);
  if (t) m->found[m->n_found++] = tern__ref(t);
  tern_scope_end(&mark);
  return t;
}

tern_tensor *tern_graph_tensor(tern_graph *graph, const char *name) {
  tern__tracer *trace = alive(graph, "graph_tensor");
  if (!trace) return NULL;
  if (!name) {
    tern__fail(TERN_E_ARG, "graph_tensor: the name is NULL");
    return NULL;
  }
  tern_tensor *variable = find_variable(trace->g, name);
  if (variable) return variable;
  uint32_t value = find_value(trace, name, strlen(name), 0);
  const char *colon = strrchr(name, ':');
  if (value == TERN__IR_NONE && colon && isdigit((unsigned char)colon[1]))
    value = find_value(trace, name, (size_t)(colon - name), (uint32_t)strtoul(colon + 1, NULL, 10));
  if (value != TERN__IR_NONE) return keep_found(trace, value);
  no_such_name(trace, name);
  return NULL;
}

/* ---- placeholders ---- */

/* The mark of an unknown size, new or known; 0: there are too many. */
static int64_t mark_for(tern__mode *m, int64_t size, int axis) {
  const tern__unknown wanted = {size, size == -1 ? axis : 0};
  for (int k = 0; k < m->n_unknown; k++)
    if (m->unknown[k].size == wanted.size && m->unknown[k].axis == wanted.axis) return tern__dims_mark(k);
  if (m->n_unknown == TERN__MAX_DIMS) return 0;
  m->unknown[m->n_unknown] = wanted;
  return tern__dims_mark(m->n_unknown++);
}

static bool mark_unknown(tern__mode *m, tern_shape *shape, tern_dtype dtype) {
  int n = 0;
  for (int d = 0; d < shape->rank && shape->rank <= TERN_MAX_RANK; d++) {
    if (shape->dim[d] >= 0) continue;
    n++;
    if ((shape->dim[d] = mark_for(m, shape->dim[d], d))) continue;
    tern__fail(TERN_E_UNSUPPORTED, "placeholder: a graph has at most %d different unknown sizes", TERN__MAX_DIMS);
    return false;
  }
  if (!n || shape->rank > TERN_MAX_RANK || tern__numel(shape->rank, shape->dim) >= 0)
    return tern__shape_ok("placeholder", *shape, dtype);
  tern__fail(TERN_E_UNSUPPORTED,
             "placeholder: %d unknown sizes in a shape of rank %d are too many to compute with; give all but two", n,
             shape->rank);
  return false;
}

tern_tensor *tern_placeholder(tern_shape shape, tern_dtype dtype, const char *name) {
  tern__thread *t = tern__thread_get();
  if (!t || in_function(t, "placeholder")) return NULL;
  if (!in_graph(t)) {
    tern__fail(TERN_E_ARG, "placeholder: ops run eagerly here; a placeholder belongs to a graph: call "
                           "tern_disable_eager_execution or tern_with_graph first");
    return NULL;
  }
  tern__device *device = t->device ? t->device : tern__device_default();
  if (!device || !mark_unknown(t->trace->mode, &shape, dtype)) return NULL;
  tern_tensor *x = tern__tracer_input(t->trace, dtype, shape.rank, shape.dim, device);
  if (!x || !name || !*name) return x;
  return give_name(t->trace->g, (uint32_t)x->imm.u, name) ? NULL : x;
}

/* ---- symbolic tensors ---- */

int64_t tern_like(const tern_tensor *t, int axis) {
  if (!tern__usable(t, "like", 1)) return -1;
  const int d = axis < 0 ? axis + t->rank : axis;
  if (d >= 0 && d < t->rank) return t->shape[d];
  tern__fail(TERN_E_ARG, "like: axis %d does not exist in a tensor of rank %d", axis, t->rank);
  return -1;
}

int tern_is_symbolic(const tern_tensor *t) { return t && t->live == TERN__SYMBOLIC; }
