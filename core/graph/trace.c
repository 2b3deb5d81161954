/* The listener: ops, views, writes and assignments of a tracing thread become nodes. */
#include "graph/trace.h"
#include "base/alloc.h"
#include "device/device.h"
#include "dispatch/dispatch.h"
#include "graph/control.h"
#include "graph/labels.h"
#include "graph/mode.h"
#include "ops/table.h"
#include "ops/write.h"
#include "tape/tape.h"
#include "tensor/dtype.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static tern_rc no_memory(void) { return tern__fail(TERN_E_OOM, "graph: out of host memory"); }

/* ---- ghosts and symbolic tensors ---- */

void tern__tracer_ref(tern__tracer *trace) { trace->refs++; }

void tern__tracer_unref(tern__tracer *trace) {
  if (--trace->refs == 0) free(trace);
}

static void ghost_free(tern__storage *s) {
  tern__tracer_unref((tern__tracer *)(void *)s->import);
  free(s);
}

static tern__storage *ghost_new(tern__tracer *trace, tern__device *device, uint32_t value) {
  tern__storage *s = tern__calloc64(sizeof *s);
  if (!s) {
    no_memory();
    return NULL;
  }
  atomic_store_explicit(&s->refs, 1, memory_order_relaxed);
  s->flags = TERN__STORAGE_GHOST;
  s->device = device;
  s->import = (struct tern__import *)(void *)trace;
  s->mem_offset = s->bytes = value;
  trace->refs++;
  return s;
}

/* A header for a value, one reference, in no scope. */
static tern_tensor *symbolic(tern__tracer *trace, uint32_t value) {
  const tern__ir_value *v = &trace->g->value[value];
  if (tern__numel(v->rank, v->shape) < 0) { /* marks of more than two variable sizes */
    char text[200];
    tern__fail(TERN_E_ARG, "graph: shape %s has too many elements", tern__shape_text(text, v->rank, v->shape));
    return NULL;
  }
  tern_tensor *t = tern__header(tern__tls);
  if (!t) return NULL;
  t->dtype = v->dtype;
  t->rank = v->rank;
  t->flags = v->weak ? TERN__WEAK : 0;
  t->slot = UINT32_MAX;
  t->device = v->device;
  t->offset = 0;
  t->grad_id = 0;
  memcpy(t->shape, v->shape, v->rank * sizeof *v->shape);
  t->storage = NULL;
  tern__set_dense(t);
  if (v->weak) t->flags = TERN__WEAK;
  t->storage = ghost_new(trace, v->device, value);
  if (!t->storage) {
    tern__free_tensor(t);
    return NULL;
  }
  t->live = TERN__SYMBOLIC;
  t->imm.u = value;
  return t;
}

tern_tensor *tern__tracer_tensor(tern__tracer *trace, uint32_t value) { return tern__push(symbolic(trace, value)); }

/* ---- traces ---- */

tern__tracer *tern__tracer_new(int kind, const char *name) {
  tern__tracer_install();
  tern__tracer *trace = tern__calloc(1, sizeof *trace);
  if (trace && (trace->g = tern__graph_new(name))) {
    trace->kind = kind;
    trace->name = name && *name ? name : "graph";
    trace->refs = 1;
    return trace;
  }
  free(trace);
  no_memory();
  return NULL;
}

tern__graph *tern__tracer_finish(tern__tracer *trace) {
  tern__graph *g = trace->g;
  if (trace->mode) tern__mode_end(trace);
  for (uint32_t i = 0; i < trace->n_current; i++)
    if (trace->current[i]) tern__unref(trace->current[i]);
  for (int i = 0; i < trace->n_captures; i++) tern__unref(trace->captures[i].outer);
  for (int i = 0; i < trace->n_pins; i++) free(trace->pins[i].text);
  for (int i = 0; i < trace->n_bound; i++) tern__unref(trace->bound[i].value);
  free(trace->bound);
  trace->bound = NULL;
  trace->n_bound = 0;
  free(trace->current);
  free(trace->captures);
  free(trace->pins);
  free(trace->constant);
  trace->g = NULL;
  trace->current = NULL;
  trace->captures = NULL;
  trace->pins = NULL;
  trace->constant = NULL;
  trace->n_current = trace->n_constants = trace->constant_capacity = 0;
  trace->n_captures = trace->n_pins = 0;
  tern__tracer_unref(trace);
  return g;
}

tern__tracer_mark tern__tracer_enter(tern__thread *t, tern__tracer *trace, bool hide_tapes) {
  tern__recorder *r = t->recorder;
  const tern__tracer_mark before = {t->trace, t->hooks & TERN__HOOK_GRAPH, hide_tapes && r ? r->active : 0};
  if (r && before.tapes) {
    r->active = 0;
    tern__hook_update(t);
  }
  t->trace = trace;
  t->hooks |= TERN__HOOK_GRAPH;
  return before;
}

void tern__tracer_leave(tern__thread *t, tern__tracer_mark before) {
  t->trace = before.trace;
  t->hooks = (t->hooks & ~(uint32_t)TERN__HOOK_GRAPH) | before.hook;
  if (t->recorder && before.tapes) {
    t->recorder->active |= before.tapes & t->recorder->open;
    tern__hook_update(t);
  }
}

/* ---- leaves ---- */

static uint32_t describe(tern__graph *g, uint32_t node, tern_dtype dtype, int rank, const int64_t *shape,
                         tern__device *device) {
  if (node == TERN__IR_NONE) return TERN__IR_NONE;
  tern__ir_value *v = &g->value[g->node[node].first_out];
  v->dtype = (uint8_t)dtype;
  v->rank = (uint8_t)rank;
  v->device = device;
  if (rank) memcpy(v->shape, shape, (size_t)rank * sizeof *shape);
  return g->node[node].first_out;
}

static uint32_t add_input(tern__tracer *trace, tern_dtype dtype, int rank, const int64_t *shape, tern__device *device) {
  tern__graph *g = trace->g;
  const tern_word number = {.u = g->n_inputs};
  const uint32_t node = tern__graph_add(g, TERN__IR_INPUT, NULL, NULL, 0, &number, 1, 1);
  const uint32_t value = describe(g, node, dtype, rank, shape, device);
  if (value == TERN__IR_NONE || tern__graph_add_input(g, value)) return TERN__IR_NONE;
  g->node[node].device = device;
  return value;
}

tern_tensor *tern__tracer_input(tern__tracer *trace, tern_dtype dtype, int rank, const int64_t *shape,
                                tern__device *device) {
  const uint32_t value = add_input(trace, dtype, rank, shape, device);
  return value == TERN__IR_NONE ? NULL : tern__tracer_tensor(trace, value);
}

static struct tern__constant *slot_of(const tern__tracer *trace, const tern_tensor *t) {
  uint32_t i = (uint32_t)((uintptr_t)t >> 6) * 2654435761u;
  for (;; i++) {
    struct tern__constant *c = &trace->constant[i & (trace->constant_capacity - 1)];
    if (!c->tensor || c->tensor == t) return c;
  }
}

static bool room_for_constant(tern__tracer *trace) {
  if (2 * (trace->n_constants + 1) <= trace->constant_capacity) return true;
  const uint32_t old = trace->constant_capacity, capacity = old ? 2 * old : 64;
  struct tern__constant *before = trace->constant, *table = tern__calloc(capacity, sizeof *table);
  if (!table) return no_memory(), false;
  trace->constant = table;
  trace->constant_capacity = capacity;
  for (uint32_t i = 0; i < old; i++)
    if (before[i].tensor) *slot_of(trace, before[i].tensor) = before[i];
  free(before);
  return true;
}

static uint32_t constant(tern__tracer *trace, tern_tensor *t) {
  if (!room_for_constant(trace)) return TERN__IR_NONE;
  struct tern__constant *c = slot_of(trace, t);
  if (c->tensor) return c->value;
  tern__graph *g = trace->g;
  const uint32_t graph = tern__eager_begin(tern__tls);
  tern_tensor *dense = tern_contiguous(t);
  tern__eager_end(tern__tls, graph);
  if (!dense) return TERN__IR_NONE;
  const uint32_t node = tern__graph_add(g, TERN__IR_CONST, NULL, NULL, 0, NULL, 0, 1);
  const uint32_t value = describe(g, node, (tern_dtype)t->dtype, t->rank, t->shape, t->device);
  if (value == TERN__IR_NONE) return value;
  g->node[node].tensor = tern__ref(dense);
  g->node[node].device = t->device;
  if (dense != t) return value; /* t may end before the trace does */
  *c = (struct tern__constant){t, value};
  trace->n_constants++;
  return value;
}

static uint32_t scalar(tern__tracer *trace, const tern_tensor *t) {
  tern__graph *g = trace->g;
  const uint32_t node = tern__graph_add(g, TERN__IR_SCALAR, NULL, NULL, 0, &t->imm, 1, 1);
  const uint32_t value = describe(g, node, (tern_dtype)t->dtype, 0, NULL, NULL);
  if (value != TERN__IR_NONE) g->value[value].weak = true;
  return value;
}

tern_rc tern__tracer_bind(tern__tracer *trace, tern_tensor *variable, tern_tensor *value) {
  const uint32_t number = tern__tracer_value(trace, value);
  tern_tensor *now = number == TERN__IR_NONE ? NULL : symbolic(trace, number);
  if (!now) return tern__recorded();
  for (int i = 0; i < trace->n_bound; i++)
    if (trace->bound[i].variable == variable) {
      tern__unref(trace->bound[i].value);
      trace->bound[i].value = now;
      return TERN_OK;
    }
  struct tern__bound *bound = tern__realloc(trace->bound, (size_t)(trace->n_bound + 1) * sizeof *bound);
  if (!bound) {
    tern__unref(now);
    return no_memory();
  }
  trace->bound = bound;
  bound[trace->n_bound++] = (struct tern__bound){variable, now, false};
  return TERN_OK;
}

void tern__tracer_keep(tern__tracer *trace, const tern_tensor *variable) {
  for (int i = 0; i < trace->n_bound; i++)
    if (trace->bound[i].variable == variable) trace->bound[i].local = true;
}

static bool is_bound(const tern__tracer *trace, const tern_tensor *v) {
  for (int i = 0; i < trace->n_bound; i++)
    if (trace->bound[i].variable == v) return true;
  return false;
}

tern_tensor *tern__tracer_variable(tern__tracer *trace, tern_tensor *v) {
  tern__graph *g = trace->g;
  for (int i = 0; i < trace->repeat.n; i++)
    if (trace->repeat.variables[i] == v) return trace->repeat.values[i];
  for (int i = 0; i < trace->n_bound; i++)
    if (trace->bound[i].variable == v) return trace->bound[i].value;
  for (uint32_t i = 0; i < g->n_variables; i++)
    if (g->variable[i].variable == v) return trace->current[i];
  if (trace->kind == TERN__TRACE_BODY && trace->outer) return tern__tracer_variable(trace->outer, v);
  tern_tensor **current = tern__realloc(trace->current, (g->n_variables + 1) * sizeof *current);
  if (!current) return no_memory(), NULL;
  trace->current = current;
  const uint32_t node = tern__graph_add(g, TERN__IR_VARIABLE, NULL, NULL, 0, NULL, 0, 1);
  const uint32_t value = describe(g, node, (tern_dtype)v->dtype, v->rank, v->shape, v->device);
  if (value == TERN__IR_NONE) return NULL;
  g->node[node].tensor = tern__ref(v);
  g->node[node].device = v->device;
  tern_tensor *t = symbolic(trace, value);
  if (!t) return NULL;
  if (tern__graph_add_variable(g, v, node)) {
    tern__unref(t);
    return NULL;
  }
  trace->current[trace->n_current++] = t;
  return t;
}

/* A value of an outer trace as an input of this body. */
static uint32_t capture(tern__tracer *trace, tern_tensor *outer) {
  for (int i = 0; i < trace->n_captures; i++)
    if (trace->captures[i].outer == outer) return trace->captures[i].value;
  tern__capture *captures = tern__realloc(trace->captures, (size_t)(trace->n_captures + 1) * sizeof *captures);
  if (!captures) return no_memory(), TERN__IR_NONE;
  trace->captures = captures;
  const uint32_t value = add_input(trace, (tern_dtype)outer->dtype, outer->rank, outer->shape, outer->device);
  if (value == TERN__IR_NONE) return value;
  captures[trace->n_captures++] = (tern__capture){tern__ref(outer), value};
  return value;
}

uint32_t tern__tracer_value(tern__tracer *trace, tern_tensor *t) {
  if (t == TERN_NONE) return TERN__IR_NONE;
  if (t->live == TERN__SYMBOLIC) {
    if (tern__tracer_of(t) != trace) return capture(trace, t);
    return t->imm.u == t->storage->bytes ? (uint32_t)t->storage->mem_offset : (uint32_t)t->imm.u;
  }
  if (t->flags & TERN__VARIABLE) {
    tern_tensor *now = tern__tracer_variable(trace, t);
    return now ? tern__tracer_value(trace, now) : TERN__IR_NONE;
  }
  return t->flags & TERN__WEAK ? scalar(trace, t) : constant(trace, t);
}

/* ---- nodes ---- */

/* A node with operands in[]; its results are described by r[]. The first output's value, TERN__IR_NONE on failure. */
static uint32_t add_node(tern__tracer *trace, const tern__op *op, tern__device *device, tern_tensor *const *in,
                         int n_in, const tern_word *attr, int n_attr, const tern__result *r, int n_out) {
  uint32_t operand[64];
  if (n_in > 64) {
    tern__fail(TERN_E_UNSUPPORTED, "graph: %s with %d operands is too much for one node", op->name, n_in);
    return TERN__IR_NONE;
  }
  for (int i = 0; i < n_in; i++) {
    operand[i] = tern__tracer_value(trace, in[i]);
    if (operand[i] == TERN__IR_NONE && in[i] != TERN_NONE) return TERN__IR_NONE;
  }
  tern__graph *g = trace->g;
  const uint32_t node =
      tern__graph_add(g, TERN__IR_OP, op, operand, (uint32_t)n_in, attr, (uint32_t)n_attr, (uint32_t)n_out);
  if (node == TERN__IR_NONE) return node;
  g->node[node].device = device;
  g->node[node].again = trace->repeat.number;
  for (int o = 0; o < n_out; o++) {
    tern__ir_value *v = &g->value[g->node[node].first_out + (uint32_t)o];
    v->dtype = (uint8_t)r[o].dtype;
    v->rank = (uint8_t)r[o].rank;
    v->device = device;
    memcpy(v->shape, r[o].shape, (size_t)r[o].rank * sizeof *v->shape);
  }
  return g->node[node].first_out;
}

static tern_tensor *recorded(tern__thread *t, const tern__op *op, tern_tensor *const *in, int n_in,
                             const tern_word *attr, int n_attr, tern_tensor *out) {
  out = tern__push(out);
  if (!out || !(t->hooks & TERN__HOOK_TAPE)) return out;
  return tern__tape_listener.op(t, op, in, n_in, attr, n_attr, &out, 1) ? out : NULL;
}

static tern_tensor *on_move(tern__thread *t, tern_tensor *from, tern__device *device) {
  tern__result r = {(tern_dtype)from->dtype, from->rank, {0}};
  memcpy(r.shape, from->shape, from->rank * sizeof *r.shape);
  const uint32_t value = add_node(t->trace, &tern__op_to, device, &from, 1, NULL, 0, &r, 1);
  if (value == TERN__IR_NONE) return NULL;
  return recorded(t, &tern__op_to, &from, 1, NULL, 0, symbolic(t->trace, value));
}

/* Rank-0 operands on other devices are moved. */
static bool bring(tern__thread *t, tern__device *device, tern_tensor *const *in, int n_in, tern_tensor **here) {
  const uint32_t tape = t->hooks & TERN__HOOK_TAPE;
  bool ok = true;
  t->hooks &= ~(uint32_t)TERN__HOOK_TAPE;
  for (int i = 0; i < n_in && ok; i++) {
    here[i] = in[i];
    if (in[i] == TERN_NONE || in[i]->flags & TERN__WEAK || in[i]->device == device) continue;
    ok = (here[i] = on_move(t, in[i], device)) != NULL;
  }
  t->hooks |= tape;
  return ok;
}

enum { MAX_OPERANDS = 64 };

/* Operands where they are needed, and the inference. */
static tern_rc prepare(tern__thread *t, const tern__call *c, tern__device *device, tern_tensor **here, int n_out,
                       tern__result *r) {
  tern__request q;
  if (c->n_in > MAX_OPERANDS) return tern__fail(TERN_E_UNSUPPORTED, "graph: %s has too many operands", c->op->name);
  memset(&q, 0, sizeof q);
  q.op = c->op;
  q.n_in = (uint8_t)c->n_in;
  q.n_out = (uint8_t)n_out;
  q.device = device;
  if (!bring(t, device, c->in, c->n_in, here)) return tern__recorded();
  tern__call moved = *c;
  moved.in = here;
  return c->op->infer(&moved, &q, r);
}

static tern_tensor *on_op(tern__thread *t, tern__device *device, const tern__op *op, tern_tensor *const *in, int n_in,
                          const tern_word *attr, int n_attr) {
  const tern__call c = {.op = op, .in = in, .n_in = n_in, .attr = attr, .n_attr = n_attr};
  tern_tensor *here[MAX_OPERANDS];
  tern__result r;
  if (!device) device = tern__common_device(t, &c);
  if (!device || prepare(t, &c, device, here, 1, &r)) return NULL;
  if (tern__numel(r.rank, r.shape) < 0) {
    char text[200];
    tern__fail(TERN_E_ARG, "%s: shape %s has too many elements", op->name, tern__shape_text(text, r.rank, r.shape));
    return NULL;
  }
  const uint32_t value = add_node(t->trace, op, device, here, n_in, attr, n_attr, &r, 1);
  if (value == TERN__IR_NONE) return NULL;
  if (t->device) t->trace->g->node[t->trace->g->value[value].node].pinned = true;
  return recorded(t, op, in, n_in, attr, n_attr, symbolic(t->trace, value));
}

/* The memory behind dst, which is a fresh tensor's or a variable, holds `value` from now on. */
static tern_rc becomes(tern__thread *t, tern_tensor *dst, uint32_t value) {
  if (dst->live == TERN__SYMBOLIC) {
    const tern__ir_value *first = &t->trace->g->value[dst->storage->bytes], *v = &t->trace->g->value[value];
    if (first->rank != v->rank || memcmp(first->shape, v->shape, v->rank * sizeof *v->shape)) { /* through a view */
      tern_tensor *now = tern__tracer_tensor(t->trace, value);
      tern__result r = {(tern_dtype)first->dtype, first->rank, {0}};
      memcpy(r.shape, first->shape, sizeof r.shape);
      value = now ? add_node(t->trace, &tern__op_reshape, dst->device, &now, 1, NULL, 0, &r, 1) : TERN__IR_NONE;
      if (value == TERN__IR_NONE) return tern__recorded();
    }
    dst->storage->mem_offset = value;
    return TERN_OK;
  }
  if (!(dst->flags & TERN__VARIABLE)) return tern__fail(TERN_E_INTERNAL, "graph: an op writes into an eager tensor");
  tern_tensor *now = tern__tracer_tensor(t->trace, value);
  return now ? tern__graph_listener.assign(t, dst, now) : tern__recorded();
}

static tern_rc on_into(tern__thread *t, const tern__op *op, tern_tensor *const *in, int n_in, const tern_word *attr,
                       int n_attr, tern_tensor *const *out, int n_out) {
  const tern__call c = {.op = op, .in = in, .n_in = n_in, .attr = attr, .n_attr = n_attr};
  tern_tensor *here[MAX_OPERANDS];
  tern__result r[TERN__MAX_ARGS];
  tern_rc rc = prepare(t, &c, out[0]->device, here, n_out, r);
  if (rc) return rc;
  const uint32_t first = add_node(t->trace, op, out[0]->device, here, n_in, attr, n_attr, r, n_out);
  if (first == TERN__IR_NONE) return tern__recorded();
  for (int o = 0; o < n_out && !rc; o++) rc = becomes(t, out[o], first + (uint32_t)o);
  return rc;
}

static tern_rc on_write(tern__thread *t, tern_tensor *dst, tern_tensor *src) {
  tern__tracer *trace = t->trace;
  if (dst->numel == 0) return TERN_OK;
  tern_tensor *whole = dst;
  if (dst->live == TERN__SYMBOLIC) {
    whole = tern__tracer_tensor(trace, (uint32_t)dst->storage->mem_offset);
  } else if (dst->flags & TERN__VARIABLE) {
    whole = tern__tracer_variable(trace, dst);
  } else {
    return tern__fail(TERN_E_INTERNAL, "graph: an op writes into an eager tensor");
  }
  if (!whole) return tern__recorded();
  tern_word attr[TERN__WRITE_ATTRS] = {{.i = dst->live == TERN__SYMBOLIC ? dst->offset : 0}, {.i = dst->rank}};
  for (int d = 0; d < dst->rank; d++) {
    attr[2 + d].i = dst->shape[d];
    attr[2 + dst->rank + d].i = dst->stride[d];
  }
  tern_tensor *const in[] = {whole, src};
  const tern__call c = {.op = &tern__op_write, .in = in, .n_in = 2, .attr = attr, .n_attr = 2 + 2 * dst->rank};
  tern_tensor *here[MAX_OPERANDS];
  tern__result r;
  tern_rc rc = prepare(t, &c, dst->device, here, 1, &r);
  if (rc) return rc;
  const uint32_t value = add_node(trace, &tern__op_write, dst->device, here, 2, attr, c.n_attr, &r, 1);
  return value == TERN__IR_NONE ? tern__recorded() : becomes(t, dst, value);
}

static bool on_view(tern__thread *t, tern__view_kind kind, tern_tensor *from, const tern_word *attr, int n_attr,
                    tern_tensor *view) {
  static const tern__op *const ops[] = {&tern__op_reshape, &tern__op_permute, &tern__op_slice, &tern__op_expand};
  if (view->live != TERN__SYMBOLIC) return true; /* of an eager tensor: eager itself */
  tern__result r = {(tern_dtype)view->dtype, view->rank, {0}};
  memcpy(r.shape, view->shape, view->rank * sizeof *r.shape);
  const uint32_t value = add_node(t->trace, ops[kind], view->device, &from, 1, attr, n_attr, &r, 1);
  view->imm.u = value;
  if (value == TERN__IR_NONE || tern__tracer_of(view) == t->trace) return value != TERN__IR_NONE;
  tern__storage *here =
      ghost_new(t->trace, view->device, value); /* a view of a value from outside belongs to the body */
  if (!here) return false;
  tern__storage_unref(view->storage);
  view->storage = here;
  return true;
}

static tern_tensor *on_make(tern__thread *t, tern__device *device, tern_dtype dtype, int rank, const int64_t *shape) {
  tern_word attr[2 + TERN_MAX_RANK] = {{.i = dtype}, {.i = rank}};
  tern__result r = {dtype, rank, {0}};
  for (int d = 0; d < rank; d++) attr[2 + d].i = r.shape[d] = shape[d];
  const uint32_t value = add_node(t->trace, &tern__op_empty, device, NULL, 0, attr, 2 + rank, &r, 1);
  return value == TERN__IR_NONE ? NULL : symbolic(t->trace, value);
}

/* For tapes it is still the variable. */
static tern_tensor *on_read(tern__thread *t, tern_tensor *variable) {
  const uint32_t value = tern__tracer_value(t->trace, variable);
  tern_tensor *now = value == TERN__IR_NONE ? NULL : tern__tracer_tensor(t->trace, value);
  if (!now || !(t->hooks & TERN__HOOK_TAPE) || t->recorder->collector) return now;
  const int32_t watched = tern__value_of(t->recorder, variable);
  if (watched == -2) return NULL; /* no memory: recorded */
  if (watched >= 0) now->grad_id = t->recorder->values[watched].id;
  return now;
}

/* In graph mode an assignment is a node of its own (a view that changes nothing), so that a session can tell who
   depends on it. */
static uint32_t assigned(tern__tracer *trace, uint32_t variable, uint32_t value) {
  tern__graph *g = trace->g;
  const uint32_t node = tern__graph_add(g, TERN__IR_OP, &tern__op_reshape, &value, 1, NULL, 0, 1);
  if (node == TERN__IR_NONE) return node;
  const tern__ir_value v = g->value[value];
  g->node[node].device = v.device;
  const uint32_t now = describe(g, node, (tern_dtype)v.dtype, v.rank, v.shape, v.device);
  return now == TERN__IR_NONE || tern__mode_assigned(trace, variable, now) ? TERN__IR_NONE : now;
}

static tern_rc on_assign(tern__thread *t, tern_tensor *variable, tern_tensor *value) {
  tern__tracer *trace = t->trace;
  if (trace->kind == TERN__TRACE_BODY || is_bound(trace, variable)) /* of a body: a result of its node, in the end */
    return tern__tracer_bind(trace, variable, value);
  if (!tern__tracer_variable(trace, variable)) return tern__recorded();
  uint32_t i = 0;
  while (i < trace->n_current && trace->g->variable[i].variable != variable) i++;
  if (i == trace->n_current) return tern__fail(TERN_E_INTERNAL, "graph: a variable got lost");
  uint32_t v = tern__tracer_value(trace, value);
  if (v != TERN__IR_NONE && trace->mode) v = assigned(trace, i, v);
  tern_tensor *now = v == TERN__IR_NONE ? NULL : symbolic(trace, v);
  if (!now) return tern__recorded();
  tern__unref(trace->current[i]);
  trace->current[i] = now;
  return TERN_OK;
}

void tern__tracer_close_variables(tern__tracer *trace) {
  for (uint32_t i = 0; i < trace->n_current; i++)
    trace->g->variable[i].value = tern__tracer_value(trace, trace->current[i]);
}

/* The source that what is being repeated made at this point; TERN__IR_NONE: nothing is repeated. */
static uint32_t source_of_then(tern__tracer *trace, const char *name, int64_t elements, uint32_t n_out) {
  const tern__graph *g = trace->g;
  if (!trace->repeat.source) return TERN__IR_NONE;
  for (uint32_t i = trace->repeat.source - 1; i < g->n_nodes; i++) {
    const tern__ir_node *node = &g->node[i];
    if (node->kind != TERN__IR_SOURCE || node->n_out != n_out || node->attr[0].i != elements ||
        strcmp(node->source->name, name) != 0)
      continue;
    trace->repeat.source = i + 2;
    return i;
  }
  return TERN__IR_NONE;
}

static tern_rc on_source(tern__thread *t, const char *name,
                         tern_rc (*next)(void *self, int64_t elements, tern_word *out, int n_out), void *self,
                         tern_dtype dtype, int64_t elements, tern_tensor **out, int n) {
  tern__graph *g = t->trace->g;
  if (t->trace->kind == TERN__TRACE_BODY && strcmp(name, "random") != 0)
    return tern__fail(TERN_E_UNSUPPORTED,
                      "%s: it counts the runs of a graph, and would not see those of the body of a traced loop or "
                      "branch; apply the optimizer outside of the body, or run the loop eagerly",
                      name);
  const uint32_t then = source_of_then(t->trace, name, elements, (uint32_t)n);
  if (then != TERN__IR_NONE) {
    for (int o = 0; o < n; o++)
      if (!(out[o] = tern__tracer_tensor(t->trace, g->node[then].first_out + (uint32_t)o))) return tern__recorded();
    return TERN_OK;
  }
  const uint32_t node = tern__graph_add(g, TERN__IR_SOURCE, NULL, NULL, 0, &(tern_word){.i = elements}, 1, (uint32_t)n);
  if (node == TERN__IR_NONE) return tern__recorded();
  tern__ir_source *s = tern__graph_alloc(g, 1, sizeof *s);
  if (!s) return tern__recorded();
  *s = (tern__ir_source){.next = next, .self = self, .name = name};
  g->node[node].source = s;
  for (int o = 0; o < n; o++) {
    const uint32_t value = g->node[node].first_out + (uint32_t)o;
    g->value[value].dtype = (uint8_t)dtype;
    g->value[value].weak = true;
    if (!(out[o] = tern__tracer_tensor(t->trace, value))) return tern__recorded();
  }
  return TERN_OK;
}

static tern_rc on_print(tern__thread *t, tern_tensor *x, bool values_only) {
  tern__tracer *trace = t->trace;
  const bool eager = !(t->hooks & TERN__HOOK_GRAPH); /* then x is symbolic */
  if (eager || trace->kind == TERN__TRACE_MODE) {
    tern__mode_print(eager ? tern__tracer_of(x) : trace, x);
    return TERN_OK;
  }
  if (trace->quiet) return TERN_OK;
  const uint32_t value = tern__tracer_value(trace, x);
  if (value == TERN__IR_NONE) return tern__recorded();
  const tern_word attr = {.u = values_only};
  const uint32_t node = tern__graph_add(trace->g, TERN__IR_PRINT, NULL, &value, 1, &attr, 1, 0);
  if (node == TERN__IR_NONE) return tern__recorded();
  trace->g->node[node].device = x->device;
  return TERN_OK;
}

/* " at FILE:LINE" where the program's call noted it; "". */
static const char *place_of(tern__thread *t, char *buffer, size_t size) {
  *buffer = 0;
  if (t->place_file) snprintf(buffer, size, " at %s:%d", t->place_file, t->place_line);
  t->place_file = NULL;
  return buffer;
}

static int64_t on_size(tern__thread *t, int64_t size, const char *what) {
  tern__tracer *trace = t->trace;
  while (trace && !trace->dims && trace->outer) trace = trace->outer;
  if (trace && trace->mode) return tern__mode_size(trace, size);
  if (!trace || !trace->dims) return size;
  uint32_t used;
  const int64_t now = tern__dims_eval(trace->dims, size, &used);
  if (!used) return size;
  trace->pinned |= used;
  tern__pin *pins = tern__realloc(trace->pins, (size_t)(trace->n_pins + 1) * sizeof *pins);
  if (!pins) return now;
  trace->pins = pins;
  char text[512], place[300];
  snprintf(text, sizeof text, "%s read as %lld%s", what, (long long)now, place_of(t, place, sizeof place));
  pins[trace->n_pins++] = (tern__pin){strdup(text), used};
  return now;
}

static int64_t on_shown(tern__thread *t, int64_t size) {
  const tern__tracer *trace = t->trace;
  while (trace && !trace->dims && trace->outer) trace = trace->outer;
  if (trace && trace->mode) return tern__mode_size(trace, size);
  return trace && trace->dims ? tern__dims_eval(trace->dims, size, NULL) : size;
}

/* ---- what cannot be done ---- */

static const char *made_by(const tern__tracer *trace, const tern_tensor *t, char *buffer, size_t size) {
  if (!trace->g || t->imm.u >= trace->g->n_values) return "";
  const tern__ir_node *n = &trace->g->node[trace->g->value[t->imm.u].node];
  snprintf(buffer, size, "%s",
           n->kind == TERN__IR_OP      ? n->op->name
           : n->kind == TERN__IR_INPUT ? "an operand"
                                       : "a value");
  return buffer;
}

static tern_rc on_unreadable(const tern_tensor *t, const char *name) {
  tern__thread *thread = tern__tls;
  char place[300], op[400];
  snprintf(op, sizeof op, "%s%s", name, place_of(thread, place, sizeof place));
  const tern__tracer *trace = t->live == TERN__SYMBOLIC ? tern__tracer_of(t) : thread->trace;
  char shape[200], by[128] = "";
  if (trace->mode && trace->g) {
    tern__mode_shape(trace, t->rank, t->shape, shape);
    if (t->flags & TERN__VARIABLE)
      return tern__fail(
          TERN_E_ARG,
          "%s: variable \"%s\" of shape %s is read in graph mode, where it stands for what a run finds in "
          "it; fetch it with tern_session_run, or read it after tern_enable_eager_execution",
          op, t->variable->name, shape);
    return tern__fail(TERN_E_ARG, "%s: \"%s\", shape %s, is symbolic and has no value; fetch it with tern_session_run",
                      op, tern__mode_name(trace, (uint32_t)t->imm.u, by), shape);
  }
  tern__shape_text(shape, t->rank, t->shape);
  if (t->flags & TERN__VARIABLE)
    return tern__fail(
        TERN_E_ARG,
        "%s: variable \"%s\" of shape %s is read while \"%s\" is traced, which would fix what it holds now; "
        "use it as an operand, or read it outside of the function",
        op, t->variable->name, shape, trace->name);
  if (!trace->g)
    return tern__fail(TERN_E_ARG, "%s: a symbolic tensor of shape %s outlived the function in which it was traced", op,
                      shape);
  return tern__fail(TERN_E_ARG,
                    "%s: the result of %s, shape %s, has no value yet while \"%s\" is traced; return it from the "
                    "function, print it with tern_print, or branch with tern_cond",
                    op, made_by(trace, t, by, sizeof by), shape, trace->name);
}

static bool on_usable(const tern_tensor *t, const char *op, int argument) {
  const tern__tracer *trace = tern__tracer_of(t);
  const tern__thread *thread = tern__tls;
  if (trace->g && thread->hooks & TERN__HOOK_GRAPH)
    for (const tern__tracer *now = thread->trace; now; now = now->outer)
      if (now == trace) return true;
  if (!trace->g)
    tern__fail(TERN_E_ARG,
               "%s: argument %d is symbolic and outlived its graph (a traced function that has returned, or a graph "
               "that was released)",
               op, argument);
  else if (!(thread->hooks & TERN__HOOK_GRAPH))
    tern__fail(TERN_E_ARG,
               "%s: argument %d is symbolic, of graph \"%s\", but ops run eagerly here; use tern_with_graph", op,
               argument, trace->g->name);
  else
    tern__fail(TERN_E_ARG, "%s: argument %d belongs to another graph, \"%s\"", op, argument, trace->g->name);
  return false;
}

/* Node numbers, from 1; while something is repeated, those of then. */
static uint32_t on_position(tern__thread *t) {
  const tern__tracer *trace = t->trace;
  return trace->repeat.source ? trace->repeat.source : trace->g->n_nodes + 1;
}

static tern__repeat on_repeat(tern__thread *t, tern__repeat replay) {
  tern__tracer *trace = t->trace;
  const tern__repeat before = trace->repeat;
  if (trace->n_repeats < UINT16_MAX) trace->n_repeats++;
  trace->repeat = replay;
  trace->repeat.number = trace->n_repeats;
  return before;
}

static void on_repeated(tern__thread *t, tern__repeat before) { t->trace->repeat = before; }

static void on_thread_end(tern__thread *t) {
  t->hooks &= ~(uint32_t)TERN__HOOK_GRAPH;
  t->trace = NULL;
  tern__graph_free(tern__tracer_finish(t->graph_mode));
  t->graph_mode = NULL;
}

static void install(void) {
  tern__ghost_free = ghost_free;
  tern__graph_listener = (tern__graph_hooks){.op = on_op,
                                             .into = on_into,
                                             .write = on_write,
                                             .view = on_view,
                                             .make = on_make,
                                             .move = on_move,
                                             .read = on_read,
                                             .assign = on_assign,
                                             .source = on_source,
                                             .draw = tern__draw,
                                             .print = on_print,
                                             .size = on_size,
                                             .shown = on_shown,
                                             .unreadable = on_unreadable,
                                             .usable = on_usable,
                                             .labels = tern__labels_note,
                                             .position = on_position,
                                             .repeat = on_repeat,
                                             .repeated = on_repeated,
                                             .thread_end = on_thread_end};
}

void tern__tracer_install(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, install);
}
