/* Bodies as graphs: traced into a tracer of their own, what they read from outside captured as further inputs; and the
   nodes over them. */
#include "base/alloc.h"
#include "device/device.h"
#include "graph/control.h"
#include "tape/tape.h"
#include "tensor/dtype.h"
#include <stdlib.h>
#include <tern/ops.h>

static tern_rc no_memory(void) { return tern__fail(TERN_E_OOM, "graph: out of host memory for control flow"); }

/* ---- opening and closing ---- */

tern_rc tern__body_open(tern__thread *t, tern__body *b, tern__draws *draws) {
  memset(b, 0, sizeof *b);
  b->tracer = tern__tracer_new(TERN__TRACE_BODY, t->trace->name);
  if (!b->tracer) return tern__recorded();
  b->tracer->outer = t->trace;
  b->tracer->quiet = t->trace->quiet;
  b->tracer->draws = draws;
  b->tracer->in_turn = draws && draws->in_turn;
  b->before = tern__tracer_enter(t, b->tracer, true);
  b->scope = tern_scope_begin();
  return TERN_OK;
}

tern_tensor *tern__body_input(tern__body *b, const tern_tensor *like) {
  if (b->n_inputs == sizeof b->input / sizeof *b->input) {
    tern__fail(TERN_E_UNSUPPORTED, "graph: a body with more than %zu inputs", sizeof b->input / sizeof *b->input);
    return NULL;
  }
  tern_tensor *x = tern__tracer_input(b->tracer, (tern_dtype)like->dtype, like->rank, like->shape, like->device);
  if (x) b->input[b->n_inputs++] = (uint32_t)x->imm.u;
  return x;
}

tern_rc tern__body_output(tern__body *b, tern_tensor *x) {
  const uint32_t value = tern__tracer_value(b->tracer, x);
  return value == TERN__IR_NONE ? tern__recorded() : tern__graph_add_output(b->tracer->g, value);
}

static void number_input(tern__graph *g, uint32_t place, uint32_t value) {
  g->input[place] = value;
  g->node[g->value[value].node].attr[0].u = place;
}

/* Inputs in order: those declared, then what was captured, whose handles go from the tracer to the body. */
static tern_rc take_captures(tern__body *b) {
  tern__tracer *trace = b->tracer;
  b->outer = tern__calloc((size_t)trace->n_captures + 1, sizeof *b->outer);
  if (!b->outer) return no_memory();
  for (uint32_t i = 0; i < b->n_inputs; i++) number_input(trace->g, i, b->input[i]);
  for (int i = 0; i < trace->n_captures; i++) {
    b->outer[b->n_outer++] = trace->captures[i].outer;
    number_input(trace->g, b->n_inputs + (uint32_t)i, trace->captures[i].value);
  }
  trace->n_captures = 0;
  return TERN_OK;
}

/* What variables are at the end; before captures are taken, since reading may capture. */
static tern_rc take_assigned(tern__body *b) {
  tern__tracer *trace = b->tracer;
  if (!trace->n_bound) return TERN_OK;
  b->assigned = tern__calloc((size_t)trace->n_bound, sizeof *b->assigned);
  if (!b->assigned) return no_memory();
  for (int i = 0; i < trace->n_bound; i++) {
    struct tern__body_assigned *a = &b->assigned[b->n_assigned];
    if (trace->bound[i].local) continue;
    tern_tensor *before = tern__tracer_variable(trace->outer, trace->bound[i].variable);
    if (!before) return tern__recorded();
    a->value = tern__tracer_value(trace, trace->bound[i].value);
    if (a->value == TERN__IR_NONE) return tern__recorded();
    a->variable = tern__ref(trace->bound[i].variable);
    a->before = tern__ref(before);
    b->n_assigned++;
  }
  return TERN_OK;
}

tern_rc tern__body_close(tern__thread *t, tern__body *b, tern_rc rc) {
  if (!b->tracer) return rc; /* never opened */
  if (!rc) rc = take_assigned(b);
  tern__tracer_leave(t, b->before);
  if (!rc) rc = take_captures(b);
  tern_scope_end(&b->scope);
  b->drew = b->tracer->drew;
  b->fresh = b->tracer->fresh;
  b->tracer->draws = NULL;
  b->g = tern__tracer_finish(b->tracer);
  b->tracer = NULL;
  if (rc) tern__body_free(b);
  return rc;
}

void tern__body_free(tern__body *b) {
  tern__graph_free(b->g);
  b->g = NULL;
  if (b->outer) tern__control_drop(b->outer, (int)b->n_outer);
  free(b->outer);
  for (uint32_t i = 0; i < b->n_assigned; i++) {
    tern__unref(b->assigned[i].variable);
    tern__unref(b->assigned[i].before);
  }
  free(b->assigned);
  b->outer = NULL;
  b->assigned = NULL;
  b->n_outer = b->n_assigned = 0;
}

tern_rc tern__body_trace(tern__thread *t, tern__body *b, const tern__callee *c, tern__draws *draws,
                         tern_tensor *const *in, int n_in, int n_out, tern_tensor *const *like) {
  tern_tensor *given[2 * TERN__CONTROL_MOST], *out[TERN__CONTROL_MOST] = {0};
  tern_rc rc = tern__body_open(t, b, draws);
  for (int i = 0; i < n_in && !rc; i++)
    if (!(given[i] = tern__body_input(b, in[i]))) rc = tern__recorded();
  if (!rc) rc = tern__callee_call(c, given, n_in, out, n_out, like);
  for (int o = 0; o < n_out && !rc; o++) rc = tern__body_output(b, out[o]);
  return tern__body_close(t, b, rc);
}

void tern__body_form(const tern__body *b, int o, tern_tensor *form) { tern__value_form(b, b->g->output[o], form); }

void tern__value_form(const tern__body *b, uint32_t value, tern_tensor *form) {
  const tern__ir_value *v = &b->g->value[value];
  memset(form, 0, sizeof *form);
  form->live = TERN__LIVE;
  atomic_store_explicit(&form->refs, 1u << 30, memory_order_relaxed);
  form->dtype = v->dtype;
  form->rank = v->rank;
  form->device = v->device;
  memcpy(form->shape, v->shape, v->rank * sizeof *v->shape);
}

/* ---- two bodies, one list of inputs ---- */

static tern_rc add_outer(tern__body *b, tern_tensor *outer) {
  tern__graph *g = b->g;
  tern_tensor **list = tern__realloc(b->outer, ((size_t)b->n_outer + 1) * sizeof *list);
  if (!list) return no_memory();
  b->outer = list;
  const tern_word number = {.u = g->n_inputs};
  const uint32_t node = tern__graph_add(g, TERN__IR_INPUT, NULL, NULL, 0, &number, 1, 1);
  if (node == TERN__IR_NONE) return tern__recorded();
  tern__ir_value *v = &g->value[g->node[node].first_out];
  v->dtype = outer->dtype;
  v->rank = outer->rank;
  v->device = g->node[node].device = outer->device;
  memcpy(v->shape, outer->shape, outer->rank * sizeof *v->shape);
  const tern_rc rc = tern__graph_add_input(g, g->node[node].first_out);
  if (!rc) b->outer[b->n_outer++] = tern__ref(outer);
  return rc;
}

static uint32_t place_of(const tern__body *b, const tern_tensor *outer) {
  uint32_t k = 0;
  while (k < b->n_outer && b->outer[k] != outer) k++;
  return k;
}

uint32_t tern__body_value_of(tern__body *b, tern_tensor *outer) {
  const uint32_t k = place_of(b, outer);
  return k == b->n_outer && add_outer(b, outer) ? TERN__IR_NONE : b->g->input[b->n_inputs + k];
}

void tern__body_number(tern__body *b, const uint32_t *values) {
  for (uint32_t i = 0; i < b->n_inputs; i++) number_input(b->g, i, b->input[i]);
  for (uint32_t i = 0; i < b->n_outer; i++) number_input(b->g, b->n_inputs + i, values[i]);
}

tern_rc tern__body_unite(tern__body *a, tern__body *b) {
  tern_rc rc = TERN_OK;
  for (uint32_t i = 0; i < b->n_outer && !rc; i++)
    if (place_of(a, b->outer[i]) == a->n_outer) rc = add_outer(a, b->outer[i]);
  for (uint32_t i = 0; i < a->n_outer && !rc; i++)
    if (place_of(b, a->outer[i]) == b->n_outer) rc = add_outer(b, a->outer[i]);
  uint32_t *value = rc ? NULL : tern__calloc((size_t)b->n_outer + 1, sizeof *value);
  if (!rc && !value) rc = no_memory();
  if (rc) return rc;
  for (uint32_t i = 0; i < a->n_outer; i++) value[i] = b->g->input[b->n_inputs + place_of(b, a->outer[i])];
  for (uint32_t i = 0; i < a->n_outer; i++) {
    number_input(b->g, b->n_inputs + i, value[i]);
    b->outer[i] = a->outer[i]; /* the same set: each list holds one reference to each */
  }
  free(value);
  return TERN_OK;
}

/* ---- nodes ---- */

static void describe(const tern__ir_value *from, tern__ir_value *to) {
  to->dtype = from->dtype;
  to->rank = from->rank;
  to->device = from->device;
  memcpy(to->shape, from->shape, from->rank * sizeof *to->shape);
}

tern_rc tern__control_node(tern__thread *t, tern_tensor *predicate, tern_tensor *const *in, int n_in, tern__body *a,
                           tern__body *b, int64_t max_trips, tern_tensor **out, int n_out) {
  tern__tracer *trace = t->trace;
  tern__graph *g = trace->g;
  if (trace->repeat.source && (a->fresh || b->fresh)) return tern__draws_repeated();
  uint32_t *value = tern__calloc((size_t)n_in + a->n_outer + 1, sizeof *value), n = 0;
  if (!value) return no_memory();
  tern_rc rc = TERN_OK;
  for (uint32_t i = 0; i < (predicate ? 1u : 0u) + (uint32_t)n_in + a->n_outer && !rc; i++) {
    const uint32_t k = i - (predicate ? 1u : 0u);
    tern_tensor *x = predicate && i == 0 ? predicate : k < (uint32_t)n_in ? in[k] : a->outer[k - (uint32_t)n_in];
    if ((value[n++] = tern__tracer_value(trace, x)) == TERN__IR_NONE) rc = tern__recorded();
  }
  const tern_word limit = {.i = max_trips};
  const uint32_t node = rc ? TERN__IR_NONE
                           : tern__graph_add(g, predicate ? TERN__IR_COND : TERN__IR_WHILE, NULL, value, n, &limit,
                                             predicate ? 0 : 1, (uint32_t)n_out);
  free(value);
  if (node == TERN__IR_NONE) return tern__recorded();
  const tern__graph *made = b->g; /* whose results are the node's */
  for (int o = 0; o < n_out; o++)
    describe(&made->value[made->output[o]], &g->value[g->node[node].first_out + (uint32_t)o]);
  g->node[node].device = predicate ? predicate->device : in[0]->device;
  g->node[node].body[0] = a->g;
  g->node[node].body[1] = b->g;
  a->g = b->g = NULL;
  trace->drew |= a->drew || b->drew;
  trace->fresh |= a->fresh || b->fresh;
  trace->in_turn |= a->fresh || b->fresh;
  for (int o = 0; o < n_out; o++)
    if (!(out[o] = tern__tracer_tensor(trace, g->node[node].first_out + (uint32_t)o))) return tern__recorded();
  return TERN_OK;
}

/* ---- a graph inside of another ---- */

static bool without_prints(tern__graph *g) {
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    if (g->node[i].kind == TERN__IR_PRINT) g->node[i].kind = TERN__IR_DEAD;
    for (int b = 0; b < 2; b++)
      if (g->node[i].body[b] && !without_prints(g->node[i].body[b])) return false;
  }
  return true;
}

static tern_rc splice_node(tern__graph *to, const tern__graph *g, const tern__ir_node *n, uint32_t *map) {
  uint32_t *in = tern__calloc((size_t)n->n_in + 1, sizeof *in);
  if (!in) return no_memory();
  for (uint32_t i = 0; i < n->n_in; i++) in[i] = n->in[i] == TERN__IR_NONE ? TERN__IR_NONE : map[n->in[i]];
  const uint32_t at = tern__graph_add(to, (tern__ir_kind)n->kind, n->op, in, n->n_in, n->attr, n->n_attr, n->n_out);
  free(in);
  if (at == TERN__IR_NONE) return tern__recorded();
  tern__ir_node *copy = &to->node[at];
  copy->pinned = n->pinned;
  copy->device = n->device;
  if (n->source) { /* borrowed from the graph that is put in, as in its copies */
    if (!(copy->source = tern__graph_alloc(to, 1, sizeof *copy->source))) return tern__recorded();
    *copy->source = *n->source;
    copy->source->release = NULL;
  }
  if (n->tensor) copy->tensor = tern__ref(n->tensor);
  for (uint32_t o = 0; o < n->n_out; o++) {
    const tern__ir_value *v = &g->value[n->first_out + o];
    describe(v, &to->value[copy->first_out + o]);
    to->value[copy->first_out + o].weak = v->weak;
    map[n->first_out + o] = copy->first_out + o;
  }
  for (int b = 0; b < 2; b++) {
    if (!n->body[b]) continue;
    if (!(copy->body[b] = tern__graph_clone(n->body[b], NULL, NULL))) return tern__recorded();
    without_prints(copy->body[b]);
  }
  return TERN_OK;
}

tern_rc tern__graph_splice(tern__thread *t, const tern__graph *g, tern_tensor *const *in, tern_tensor **out) {
  uint32_t *map = tern__calloc((size_t)g->n_values + 1, sizeof *map);
  if (!map) return no_memory();
  tern_rc rc = TERN_OK;
  for (uint32_t i = 0; i < g->n_inputs && !rc; i++)
    if ((map[g->input[i]] = tern__tracer_value(t->trace, in[i])) == TERN__IR_NONE) rc = tern__recorded();
  for (uint32_t i = 0; i < g->n_nodes && !rc; i++) {
    const tern__ir_node *n = &g->node[i];
    if (n->kind != TERN__IR_INPUT && n->kind != TERN__IR_PRINT && n->kind != TERN__IR_DEAD)
      rc = splice_node(t->trace->g, g, n, map);
    const bool draws = tern__ir_draws(n); /* only behind a draw that was in turn: see make_rule */
    t->trace->drew |= draws;
    t->trace->fresh |= draws;
    t->trace->in_turn |= draws && n->body[0];
  }
  for (uint32_t o = 0; o < g->n_outputs && !rc; o++)
    if (!(out[o] = tern__tracer_tensor(t->trace, map[g->output[o]]))) rc = tern__recorded();
  free(map);
  return rc;
}

/* ---- reads ---- */

tern_tensor *tern__as_recorded(const tern__tracer *trace, tern_tensor *x) {
  for (;; trace = trace->outer) {
    for (int i = 0; i < trace->n_bound; i++)
      if (trace->bound[i].value == x) return trace->bound[i].variable;
    if (trace->kind != TERN__TRACE_BODY || !trace->outer) break;
  }
  for (uint32_t i = 0; i < trace->n_current; i++)
    if (trace->current[i] == x) return trace->g->variable[i].variable;
  return x;
}

/* Of what bodies read by several handles with one place in the record, the first stands for all. */
static bool add_read(tern__recorder *record, tern__reads *r, tern_tensor *x, int n_in) {
  const bool differentiable = r->order && tern__is_float((tern_dtype)x->dtype);
  const int32_t v = differentiable ? tern__value_of(record, x) : -1;
  if (v == -2) return false;
  bool tracked = v >= 0 && record->values[v].mask & record->active;
  for (int k = n_in; k < r->n && tracked; k++)
    if (r->tracked[k] && tern__value_of(record, r->tensor[k]) == v) tracked = false;
  r->tracked[r->n] = tracked;
  r->tensor[r->n++] = tern__ref(x);
  return true;
}

static bool among(tern_tensor *const *list, int n, const tern_tensor *x) {
  for (int i = 0; i < n; i++)
    if (list[i] == x) return true;
  return false;
}

tern_rc tern__reads_begin(tern__thread *t, tern__reads *r, tern_tensor *const *in, int n_in, const tern__body *b,
                          tern_tensor *const *skip, int n_skip) {
  tern__recorder *record = t->recorder;
  const size_t most = (size_t)n_in + b->n_outer + 1;
  *r = (tern__reads){.tensor = tern__calloc(most, sizeof *r->tensor), .tracked = tern__calloc(most, 1)};
  if (!r->tensor || !r->tracked) {
    tern__reads_end(r);
    return no_memory();
  }
  if (t->hooks & TERN__HOOK_TAPE && !record->collector) r->order = __builtin_popcount(record->active);
  bool ok = true, any = false;
  for (int i = 0; i < n_in && ok; i++) ok = add_read(record, r, in[i], n_in + (int)b->n_outer);
  for (uint32_t i = 0; i < b->n_outer && ok; i++) {
    if (among(skip, n_skip, b->outer[i])) continue;
    tern_tensor *x = tern__as_recorded(t->trace, b->outer[i]);
    if (!among(r->tensor + n_in, r->n - n_in, x)) ok = add_read(record, r, x, n_in);
  }
  for (int i = 0; i < r->n; i++) any = any || r->tracked[i];
  if (!any) r->order = 0;
  if (ok) return TERN_OK;
  tern__reads_end(r);
  return tern__recorded();
}

void tern__reads_end(tern__reads *r) {
  if (r->tensor) tern__control_drop(r->tensor, r->n);
  free(r->tensor);
  free(r->tracked);
  *r = (tern__reads){0};
}
