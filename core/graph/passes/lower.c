/* From nodes to requests over buffers. Views become strides; `write` shares its operand's memory; nodes that compute
   nothing vanish. */
#include "base/alloc.h"
#include "device/device.h"
#include "graph/passes/low.h"
#include "ops/table.h"
#include "ops/write.h"
#include "tensor/dtype.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <tern/ops.h>

typedef struct tern__unit_chunk {
  struct tern__unit_chunk *next;
  size_t used, capacity;
  _Alignas(16) char data[];
} tern__unit_chunk;

void *tern__unit_alloc(tern__unit *u, size_t count, size_t size) {
  const size_t bytes = (count * size + 15) & ~(size_t)15;
  if (!u->chunks || u->chunks->used + bytes > u->chunks->capacity) {
    const size_t capacity = bytes > 65536 ? bytes : 65536;
    tern__unit_chunk *c = tern__calloc(1, sizeof *c + capacity);
    if (!c) {
      tern__fail(TERN_E_OOM, "graph: out of host memory to compile \"%s\"", u->g->name);
      return NULL;
    }
    c->capacity = capacity;
    c->next = u->chunks;
    u->chunks = c;
  }
  void *p = u->chunks->data + u->chunks->used;
  u->chunks->used += bytes;
  return p;
}

void tern__unit_free(tern__unit *u) {
  while (u->chunks) {
    tern__unit_chunk *c = u->chunks;
    u->chunks = c->next;
    free(c);
  }
  for (uint32_t b = 0; b < u->n_buffers; b++)
    if (u->buffer[b].tensor) tern__unref(u->buffer[b].tensor);
  for (uint32_t k = 0; k < u->n_groups; k++) free(u->group[k].op);
  free(u->buffer);
  free(u->ghost);
  free(u->op);
  free(u->group);
  free(u->why);
  tern__graph_free(u->g);
  memset(u, 0, sizeof *u);
}

void tern__unit_note_text(tern__unit *u, const char *text) {
  const size_t length = strlen(text);
  if (u->why_size + length + 1 > u->why_capacity) {
    const size_t capacity = 2 * (u->why_capacity + length + 512);
    char *more = tern__realloc(u->why, capacity);
    if (!more) return; /* only for people */
    u->why = more;
    u->why_capacity = capacity;
  }
  memcpy(u->why + u->why_size, text, length + 1);
  u->why_size += length;
}

void tern__unit_note(tern__unit *u, const char *format, ...) {
  va_list list;
  va_start(list, format);
  char line[1024];
  vsnprintf(line, sizeof line, format, list);
  va_end(list);
  tern__unit_note_text(u, line);
}

/* ---- buffers ---- */

static uint32_t add_buffer(tern__unit *u, tern__place place, uint32_t index, const tern__ir_value *v) {
  tern__lbuffer *b = &u->buffer[u->n_buffers]; /* room for one a value was made */
  const int64_t n = tern__numel(v->rank, v->shape);
  *b = (tern__lbuffer){.place = (uint8_t)place,
                       .dtype = v->dtype,
                       .index = index,
                       .same = TERN__NO,
                       .maker = TERN__NO,
                       .numel = n,
                       .bytes = (uint64_t)n * tern__dtype_size[v->dtype],
                       .device = v->device};
  tern__storage *s = &u->ghost[u->n_buffers];
  s->flags = TERN__STORAGE_GHOST;
  s->device = v->device;
  s->bytes = b->bytes;
  atomic_store_explicit(&s->refs, 1 << 30, memory_order_relaxed);
  return u->n_buffers++;
}

/* The stand-in tensor of a value that is dense in its own buffer. */
static void dense(tern__unit *u, uint32_t value, uint32_t buffer) {
  const tern__ir_value *v = &u->g->value[value];
  tern_tensor *t = &u->fake[value];
  t->live = TERN__LIVE;
  atomic_store_explicit(&t->refs, 1 << 30, memory_order_relaxed);
  t->dtype = v->dtype;
  t->rank = v->rank;
  t->device = v->device;
  t->storage = &u->ghost[buffer];
  t->offset = 0; /* a view that had to be copied was somewhere else */
  memcpy(t->shape, v->shape, v->rank * sizeof *v->shape);
  tern__set_dense(t);
  u->base[value] = value;
  u->buffer_of[value] = buffer;
}

static void weak(tern__unit *u, uint32_t value, tern_word word) {
  const tern__ir_value *v = &u->g->value[value];
  tern_tensor *t = &u->fake[value];
  t->live = TERN__LIVE;
  t->dtype = v->dtype;
  t->flags = TERN__WEAK;
  t->numel = 1;
  t->imm = word;
  u->base[value] = value;
  u->buffer_of[value] = TERN__NO;
}

/* ---- views ---- */

/* False: no strides do it, copy first. */
static bool view_of(const tern__ir_node *n, const tern__ir_value *v, const tern_tensor *from, tern_tensor *t) {
  *t = *from;
  t->flags = 0;
  t->rank = v->rank;
  memcpy(t->shape, v->shape, v->rank * sizeof *v->shape);
  if (n->op == &tern__op_permute) {
    for (int d = 0; d < v->rank; d++) t->stride[d] = from->stride[n->attr[d].i];
  } else if (n->op == &tern__op_slice) {
    const int dropped = (int)n->attr[0].i;
    for (int d = 0, o = 0; d < from->rank; d++) {
      const int64_t first = n->attr[1 + 2 * d].i, step = n->attr[2 + 2 * d].i;
      t->offset += first * from->stride[d];
      if (d == dropped) continue;
      t->stride[o] = from->stride[d] * (v->shape[o] > 1 ? step : 1);
      o++;
    }
  } else if (n->op == &tern__op_expand) {
    const int extra = v->rank - from->rank;
    for (int d = 0; d < v->rank; d++)
      t->stride[d] = d < extra || from->shape[d - extra] != v->shape[d] ? 0 : from->stride[d - extra];
  } else {
    const tern_shape shape = tern_shape_of(v->rank, v->shape);
    if (from->flags & TERN__CONTIG || from->numel == 0)
      tern__set_dense(t);
    else if (!tern__reshaped_strides(from, &shape, t->stride))
      return false;
  }
  tern__set_contig_flag(t);
  return true;
}

/* ---- ops ---- */

static tern__lop *add_op(tern__unit *u, uint32_t node, tern__lkind kind) {
  if (u->n_ops == u->op_capacity) {
    const uint32_t capacity = u->op_capacity ? 2 * u->op_capacity : 64;
    tern__lop *op = tern__realloc(u->op, capacity * sizeof *op);
    if (!op) {
      tern__fail(TERN_E_OOM, "graph: out of host memory to compile \"%s\"", u->g->name);
      return NULL;
    }
    u->op = op;
    u->op_capacity = capacity;
  }
  tern__lop *op = &u->op[u->n_ops++];
  *op = (tern__lop){.kind = (uint8_t)kind,
                    .node = node,
                    .group = TERN__NO,
                    .device = u->g->node[node].device,
                    .again = u->g->node[node].again != 0};
  return op;
}

static bool set_lists(tern__unit *u, tern__lop *op, uint32_t n_in, uint32_t n_out, uint32_t n_deps) {
  op->n_in = n_in;
  op->n_out = n_out;
  op->in = tern__unit_alloc(u, n_in + 1, sizeof *op->in);
  op->out = tern__unit_alloc(u, n_out + 1, sizeof *op->out);
  op->dep = tern__unit_alloc(u, n_deps + 1, sizeof *op->dep);
  return op->in && op->out && op->dep;
}

static void add_dep(const tern__unit *u, tern__lop *op, uint32_t value) {
  const uint32_t maker = u->maker[u->base[value]];
  if (maker == TERN__NO) return;
  for (uint32_t i = 0; i < op->n_deps; i++)
    if (op->dep[i] == maker) return;
  op->dep[op->n_deps++] = maker;
}

/* What the request's lowering consists of. */
static bool classify(tern__unit *u, tern__lop *op) {
  const tern__request *q = op->q;
  (void)u;
  op->prims = 1;
  op->kind = TERN__L_OPAQUE;
  for (int d = 0; d < q->n_space; d++) op->fixed |= q->role[d] == TERN__ROLE_FIXED;
  const tern__prim *p = q->op->prim ? tern__prim_of(q->op->prim) : NULL;
  if (p && p->kind == TERN_K_DOT) return op->kind = TERN__L_ANCHOR, true;
  if (p && p->kind == TERN_K_MAP && p->number != TERN_OP_RNG && p->number != TERN_OP_IOTA)
    return op->kind = TERN__L_MAP, true;
  if (p && p->kind == TERN_K_REDUCE) return op->kind = TERN__L_ROW, true;
  if (p) return true;
  tern__request canonical = *q;
  tern__canonicalise(&canonical);
  tern__region *r = tern__lower(&canonical);
  if (!r) return false;
  op->prims = (uint16_t)r->r.n_nodes;
  op->kind = TERN__L_MAP;
  for (uint32_t i = 0; i < r->r.n_nodes; i++) {
    const tern__prim *prim = tern__prim_of(r->r.nodes[i].op);
    if (prim->kind == TERN_K_REDUCE && op->kind == TERN__L_MAP) op->kind = TERN__L_ROW;
    if ((prim->kind != TERN_K_REDUCE && prim->kind != TERN_K_MAP) || prim->number == TERN_OP_RNG)
      op->kind = TERN__L_OPAQUE;
  }
  free(r);
  return true;
}

/* A reduction over nothing, or a result without elements: nothing to launch. 1: done, 0: go on, negative: an error. */
static int nothing_to_do(tern__unit *u, uint32_t node, const tern__request *q) {
  const tern__ir_node *n = &u->g->node[node];
  bool empty = true, nothing = false;
  for (uint32_t o = 0; o < n->n_out; o++) empty = empty && u->fake[n->first_out + o].numel == 0;
  if (empty) return 1;
  for (int d = 0; d < q->n_sizes; d++) nothing = nothing || q->size[d] == 0;
  if (!nothing) return 0;
  const tern__ir_value *v = &u->g->value[n->first_out];
  if (isnan(n->op->of_nothing)) {
    tern__fail(TERN_E_ARG, "%s: a reduction over no elements has no value; check that the axis is not empty",
               n->op->name);
    return -1;
  }
  tern_scope_mark mark = tern_scope_begin();
  tern_device_mark device = {tern__tls->device};
  tern__tls->device = v->device;
  tern_tensor *t = tern_full(tern_shape_of(v->rank, v->shape), (tern_dtype)v->dtype, n->op->of_nothing);
  tern__tls->device = device.outer;
  tern__lbuffer *b = &u->buffer[u->buffer_of[n->first_out]];
  if (t) {
    b->place = TERN__PLACE_CONST;
    b->tensor = tern__ref(t);
  }
  tern_scope_end(&mark);
  return t ? 1 : -1;
}

/* A COPY of a strided value into a dense buffer of its own. The op, TERN__NO with the error set. */
static uint32_t copy_to_dense(tern__unit *u, uint32_t node, uint32_t value) {
  const tern__ir_value *v = &u->g->value[value];
  tern_tensor *from = &u->fake[value];
  const uint32_t buffer = add_buffer(u, TERN__PLACE_ARENA, 0, v), source = u->buffer_of[value];
  tern__lop *op = add_op(u, node, TERN__L_MAP);
  tern__request *q = tern__unit_alloc(u, 1, sizeof *q);
  if (!op || !q || !set_lists(u, op, 1, 1, 1)) return TERN__NO;
  u->buffer[buffer].device = op->device = q->device = from->device;
  u->ghost[buffer].device = from->device;
  q->op = tern__op_of_prim(TERN_OP_COPY);
  q->n_in = q->n_out = 1;
  q->dtype = from->dtype;
  q->n_sizes = q->n_space = from->rank;
  for (int d = 0; d < from->rank; d++) {
    q->size[d] = from->shape[d];
    q->role[d] = TERN__ROLE_MAP;
  }
  tern__operand_of(q, 0, from, (tern_dtype)from->dtype);
  tern__operand_out(q, 0, (tern_dtype)from->dtype, 0);
  q->arg[1].storage = &u->ghost[buffer];
  op->q = q;
  op->prims = 1;
  op->in[0] = source;
  op->out[0] = buffer;
  u->buffer[source].n_readers++;
  u->buffer[buffer].maker = u->n_ops - 1;
  add_dep(u, op, value);
  return u->n_ops - 1;
}

static tern_rc lower_view(tern__unit *u, uint32_t node) {
  const tern__ir_node *n = &u->g->node[node];
  const uint32_t value = n->first_out, from = n->in[0];
  if (u->fake[from].flags & TERN__WEAK)
    return tern__fail(TERN_E_INTERNAL, "graph: node %u is a view of a host scalar", node);
  u->base[value] = u->base[from];
  u->buffer_of[value] = u->buffer_of[from];
  if (view_of(n, &u->g->value[value], &u->fake[from], &u->fake[value])) return TERN_OK;
  const uint32_t copy = copy_to_dense(u, node, from); /* row-major, whatever the shape */
  if (copy == TERN__NO) return tern__recorded();
  dense(u, value, u->op[copy].out[0]);
  u->maker[value] = copy;
  return TERN_OK;
}

static bool shares_whole(const tern__unit *u, const uint32_t *uses, uint32_t whole) {
  const tern__lbuffer *b = &u->buffer[u->buffer_of[whole]];
  return uses[whole] == 1 && b->place == TERN__PLACE_ARENA && u->base[whole] == whole;
}

/* Buffers and stand-ins of an op's results. */
static void results(tern__unit *u, const tern__ir_node *n, const uint32_t *uses, bool is_write) {
  for (uint32_t o = 0; o < n->n_out; o++) {
    const uint32_t value = n->first_out + o;
    if (is_write && shares_whole(u, uses, n->in[0]))
      dense(u, value, u->buffer_of[n->in[0]]);
    else
      dense(u, value, add_buffer(u, TERN__PLACE_ARENA, 0, &u->g->value[value]));
  }
}

/* Dense, and all of its buffer. */
static bool is_whole(const tern__unit *u, uint32_t value) {
  const tern_tensor *t = &u->fake[value];
  return t->flags & TERN__CONTIG && t->offset == 0 && t->numel == u->buffer[u->buffer_of[value]].numel;
}

static tern_rc lower_op(tern__unit *u, uint32_t node, const uint32_t *uses) {
  const tern__ir_node *n = &u->g->node[node];
  const bool is_write = n->op == &tern__op_write, is_move = n->op == &tern__op_to;
  uint32_t moved = TERN__NO; /* of a move: the dense copy of a strided operand */
  tern_rc rc;
  if (is_move && !is_whole(u, n->in[0]) && u->fake[n->in[0]].numel) {
    moved = copy_to_dense(u, node, n->in[0]);
    if (moved == TERN__NO) return tern__recorded();
  }
  if (is_write && !shares_whole(u, uses, n->in[0])) { /* a copy of the whole first */
    const uint32_t copy = u->fake[n->in[0]].numel ? copy_to_dense(u, node, n->in[0]) : TERN__NO;
    if (copy != TERN__NO) {
      dense(u, n->first_out, u->op[copy].out[0]);
      u->maker[n->first_out] = copy;
    } else if (u->fake[n->in[0]].numel) {
      return tern__recorded();
    } else {
      results(u, n, uses, false);
    }
  } else {
    results(u, n, uses, is_write);
  }
  if (n->op == &tern__op_empty) return TERN_OK;
  tern__request *q = is_move ? NULL : tern__unit_alloc(u, 1, sizeof *q);
  tern_tensor *in[TERN__MAX_ARGS];
  tern__result r[TERN__MAX_ARGS];
  if (!is_move && !q) return TERN_E_OOM;
  if (n->n_in > TERN__MAX_ARGS)
    return tern__fail(TERN_E_UNSUPPORTED, "graph: %s has %u operands, too many", n->op->name, n->n_in);
  for (uint32_t i = 0; i < n->n_in; i++) in[i] = n->in[i] == TERN__IR_NONE ? TERN_NONE : &u->fake[n->in[i]];
  if (q) {
    q->op = n->op;
    q->device = n->device;
    q->n_in = (uint8_t)n->n_in;
    q->n_out = (uint8_t)n->n_out;
    const tern__call c = {.op = n->op, .in = in, .n_in = (int)n->n_in, .attr = n->attr, .n_attr = n->n_attr};
    if ((rc = n->op->infer(&c, q, r))) return rc;
    for (uint32_t o = 0; o < n->n_out; o++) {
      const tern__ir_value *v = &u->g->value[n->first_out + o];
      if (r[o].dtype == v->dtype && r[o].rank == v->rank && !memcmp(r[o].shape, v->shape, v->rank * sizeof *v->shape))
        continue;
      char a[200], b[200];
      return tern__fail(TERN_E_ARG, "%s: result %u has shape %s in the graph but %s for these operands", n->op->name, o,
                        tern__shape_text(a, v->rank, v->shape), tern__shape_text(b, r[o].rank, r[o].shape));
    }
    q->n_out = (uint8_t)n->n_out;
    for (uint32_t o = 0; o < n->n_out; o++) q->arg[q->n_in + o].storage = &u->ghost[u->buffer_of[n->first_out + o]];
    const int done = nothing_to_do(u, node, q);
    if (done) return done < 0 ? tern__recorded() : TERN_OK;
  } else if (u->fake[n->first_out].numel == 0) {
    return TERN_OK;
  }
  tern__lop *op = add_op(u, node, TERN__L_MOVE);
  if (!op) return TERN_E_OOM;
  op->q = q;
  const uint32_t n_q_in = q ? q->n_in : 1, this = u->n_ops - 1;
  if (!set_lists(u, op, n_q_in, n->n_out, n->n_in + 2)) return TERN_E_OOM;
  for (uint32_t i = 0; i < n_q_in; i++) {
    op->in[i] = !q && moved != TERN__NO       ? u->op[moved].out[0]
                : !q                          ? u->buffer_of[n->in[0]]
                : q->arg[i].kind == TERN_V_IN ? (uint32_t)(q->arg[i].storage - u->ghost)
                                              : TERN__NO;
    if (op->in[i] != TERN__NO) u->buffer[op->in[i]].n_readers++;
  }
  for (uint32_t i = 0; i < n->n_in; i++)
    if (n->in[i] != TERN__IR_NONE && !u->g->value[n->in[i]].weak) add_dep(u, op, n->in[i]);
  if (is_write && u->maker[n->first_out] != TERN__NO) op->dep[op->n_deps++] = u->maker[n->first_out];
  if (moved != TERN__NO) op->dep[op->n_deps++] = moved;
  for (uint32_t o = 0; o < n->n_out; o++) {
    tern__lbuffer *b = &u->buffer[op->out[o] = u->buffer_of[n->first_out + o]];
    u->maker[n->first_out + o] = this;
    b->maker = is_write ? TERN__NO : this;
    b->written_part |= is_write;
  }
  if (q && !classify(u, op)) return tern__recorded();
  return TERN_OK;
}

/* PRINT, COND and WHILE: operands are made dense. */
static tern_rc lower_other(tern__unit *u, uint32_t node) {
  const tern__ir_node *n = &u->g->node[node];
  uint32_t *copy = tern__unit_alloc(u, n->n_in + 1, sizeof *copy);
  if (!copy) return TERN_E_OOM;
  for (uint32_t i = 0; i < n->n_in; i++) {
    const tern_tensor *t = &u->fake[n->in[i]];
    copy[i] = TERN__NO;
    if (t->flags & TERN__WEAK)
      return tern__fail(TERN_E_UNSUPPORTED, "graph: a host scalar goes into control flow; make it a tensor");
    if ((t->flags & TERN__CONTIG && t->offset == 0 && t->numel == u->buffer[u->buffer_of[n->in[i]]].numel) ||
        t->numel == 0)
      continue;
    copy[i] = copy_to_dense(u, node, n->in[i]);
    if (copy[i] == TERN__NO) return tern__recorded();
  }
  for (uint32_t o = 0; o < n->n_out; o++)
    dense(u, n->first_out + o, add_buffer(u, TERN__PLACE_ARENA, 0, &u->g->value[n->first_out + o]));
  const bool print = n->kind == TERN__IR_PRINT;
  tern__lop *op = add_op(u, node, print ? TERN__L_PRINT : n->kind == TERN__IR_COND ? TERN__L_COND : TERN__L_WHILE);
  if (!op || !set_lists(u, op, n->n_in, n->n_out, n->n_in)) return TERN_E_OOM;
  for (uint32_t i = 0; i < n->n_in; i++) {
    op->in[i] = copy[i] == TERN__NO ? u->buffer_of[n->in[i]] : u->op[copy[i]].out[0];
    u->buffer[op->in[i]].n_readers++;
    if (copy[i] == TERN__NO)
      add_dep(u, op, n->in[i]);
    else
      op->dep[op->n_deps++] = copy[i];
  }
  for (uint32_t o = 0; o < n->n_out; o++) {
    op->out[o] = u->buffer_of[n->first_out + o];
    u->maker[n->first_out + o] = u->n_ops - 1;
  }
  return TERN_OK;
}

static tern_rc lower_node(tern__unit *u, uint32_t node, const uint32_t *uses) {
  const tern__ir_node *n = &u->g->node[node];
  const uint32_t value = n->first_out;
  uint32_t buffer;
  switch (n->kind) {
  case TERN__IR_INPUT:
    dense(u, value, add_buffer(u, TERN__PLACE_INPUT, (uint32_t)n->attr[0].u, &u->g->value[value]));
    return TERN_OK;
  case TERN__IR_CONST:
    buffer = add_buffer(u, TERN__PLACE_CONST, 0, &u->g->value[value]);
    u->buffer[buffer].tensor = tern__ref(n->tensor);
    dense(u, value, buffer);
    return TERN_OK;
  case TERN__IR_VARIABLE:
    for (uint32_t i = 0; i < u->g->n_variables; i++)
      if (u->g->variable[i].node == node) dense(u, value, add_buffer(u, TERN__PLACE_VARIABLE, i, &u->g->value[value]));
    return TERN_OK;
  case TERN__IR_SCALAR: weak(u, value, n->attr[0]); return TERN_OK;
  case TERN__IR_SOURCE:
    for (uint32_t o = 0; o < n->n_out; o++) weak(u, value + o, (tern_word){.u = 0});
    return TERN_OK;
  case TERN__IR_OP: return tern__ir_is_view(n) ? lower_view(u, node) : lower_op(u, node, uses);
  default: return lower_other(u, node);
  }
}

/* What variables and results end with. A variable takes the memory in which its next value is made, unless that is
   something else's or only a part: then a copy. */
static tern_rc lower_ends(tern__unit *u) {
  const tern__graph *g = u->g;
  for (uint32_t i = 0; i < g->n_outputs; i++)
    if (g->output[i] != TERN__IR_NONE && u->buffer_of[g->output[i]] != TERN__NO)
      u->buffer[u->buffer_of[g->output[i]]].wanted = true;
  u->next = tern__unit_alloc(u, g->n_variables + 1, sizeof *u->next);
  if (!u->next) return TERN_E_OOM;
  for (uint32_t i = 0; i < g->n_variables; i++) {
    const uint32_t v = g->variable[i].value;
    u->next[i] = TERN__NO;
    if (v == g->node[g->variable[i].node].first_out) continue;
    uint32_t b = u->buffer_of[v];
    if (b == TERN__NO) return tern__fail(TERN_E_INTERNAL, "graph: a variable ends as a host scalar");
    const tern_tensor *t = &u->fake[v];
    if (u->buffer[b].place != TERN__PLACE_ARENA || !(t->flags & TERN__CONTIG) || t->numel != u->buffer[b].numel) {
      const uint32_t copy = t->numel ? copy_to_dense(u, g->value[v].node, v) : TERN__NO;
      if (copy == TERN__NO && t->numel) return tern__recorded();
      if (copy != TERN__NO) b = u->op[copy].out[0];
    }
    u->buffer[b].place = TERN__PLACE_NEXT;
    u->buffer[b].index = i;
    u->buffer[b].wanted = true;
    u->next[i] = b;
  }
  uint32_t n_results = 0;
  for (uint32_t i = 0; i < g->n_outputs; i++) {
    const uint32_t v = g->output[i];
    tern__lbuffer *b = v == TERN__IR_NONE || u->buffer_of[v] == TERN__NO ? NULL : &u->buffer[u->buffer_of[v]];
    if (!b || b->place != TERN__PLACE_ARENA) continue;
    b->place = TERN__PLACE_RESULT;
    b->index = n_results++;
  }
  u->n_results = n_results;
  return TERN_OK;
}

tern_rc tern__unit_lower(tern__unit *u) {
  const tern__graph *g = u->g;
  const uint32_t n = g->n_values + 1;
  uint32_t *uses = tern__unit_alloc(u, n, sizeof *uses);
  u->fake = tern__unit_alloc(u, n, sizeof *u->fake);
  u->base = tern__unit_alloc(u, n, sizeof *u->base);
  u->buffer_of = tern__unit_alloc(u, n, sizeof *u->buffer_of);
  u->maker = tern__unit_alloc(u, n, sizeof *u->maker);
  u->buffer_capacity = 2 * n + 4 * g->n_nodes + 64; /* copies made dense come on top */
  u->buffer = tern__calloc(u->buffer_capacity, sizeof *u->buffer);
  u->ghost = tern__calloc(u->buffer_capacity, sizeof *u->ghost);
  if (!uses || !u->fake || !u->base || !u->buffer_of || !u->maker || !u->buffer || !u->ghost)
    return tern__fail(TERN_E_OOM, "graph: out of host memory to compile \"%s\"", g->name);
  memset(u->maker, 0xff, n * sizeof *u->maker);
  tern__graph_count_uses(g, uses);
  tern_rc rc = TERN_OK;
  for (uint32_t i = 0; i < g->n_nodes && !rc; i++)
    if (g->node[i].kind != TERN__IR_DEAD) rc = lower_node(u, i, uses);
  if (!rc) rc = lower_ends(u);
  return rc;
}
