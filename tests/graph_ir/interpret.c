/* The interpreter: one tensor a value. */
#include "graph_ir/interpret.h"
#include "dispatch/dispatch.h"
#include "ops/table.h"
#include "ops/write.h"
#include <stdlib.h>
#include <tern/tern.h>

typedef struct state {
  const tern__graph *g;
  tern_tensor *const *in;
  tern_tensor **value;
} state;

static tern_tensor *slice(const tern__ir_node *n, tern_tensor *x, const tern__ir_value *out) {
  int64_t dropped = n->attr[0].i;
  tern_range range[TERN_MAX_RANK];
  for (int d = 0, k = 0; d < x->rank; d++) {
    const int64_t first = n->attr[1 + 2 * d].i, step = n->attr[2 + 2 * d].i;
    const int64_t count = d == dropped ? 1 : out->shape[k++], last = first + (count - 1) * step;
    range[d] = TERN_RANGE(first, count == 0 ? first : step > 0 ? last + 1 : last ? last - 1 : TERN_OPEN, step);
  }
  x = tern_slice(x, range, x->rank);
  return dropped < 0 ? x : tern_index(x, (int)dropped, 0);
}

static tern_tensor *write(const tern__ir_node *n, tern_tensor *whole, tern_tensor *source) {
  whole = tern_clone(whole);
  if (!whole) return NULL;
  tern_tensor *part = tern__view_header(whole);
  part->rank = (uint8_t)n->attr[1].i;
  part->offset = whole->offset + n->attr[0].i;
  for (int d = 0; d < part->rank; d++) {
    part->shape[d] = n->attr[2 + d].i;
    part->stride[d] = n->attr[2 + part->rank + d].i;
  }
  tern__set_contig_flag(part);
  const tern_rc rc = tern__write(part, source);
  tern__unref(part);
  return rc ? NULL : whole;
}

/* Results of an op with several outputs, or with one. */
static tern_rc run_op(state *s, const tern__ir_node *n) {
  const tern__graph *g = s->g;
  tern_tensor *in[64], **out = s->value + n->first_out;
  const tern__ir_value *type = &g->value[n->first_out];
  for (uint32_t k = 0; k < n->n_in; k++) in[k] = n->in[k] == TERN__IR_NONE ? TERN_NONE : s->value[n->in[k]];
  if (n->n_out > 1) {
    for (uint32_t o = 0; o < n->n_out; o++)
      if (!(out[o] = tern__push(tern__new(type[o].device, type[o].dtype, type[o].rank, type[o].shape, n->op->name))))
        return tern__recorded();
    return tern__run_into(n->op, in, (int)n->n_in, n->attr, n->n_attr, out, (int)n->n_out);
  }
  int order[TERN_MAX_RANK];
  for (int d = 0; n->op == &tern__op_permute && d < n->n_attr; d++) order[d] = (int)n->attr[d].i;
  if (n->op == &tern__op_reshape)
    *out = tern_reshape(in[0], tern_shape_of(type->rank, type->shape));
  else if (n->op == &tern__op_expand)
    *out = tern_expand(in[0], tern_shape_of(type->rank, type->shape));
  else if (n->op == &tern__op_permute)
    *out = tern_permute(in[0], order, n->n_attr);
  else if (n->op == &tern__op_slice)
    *out = slice(n, in[0], type);
  else if (n->op == &tern__op_to)
    *out = tern_to(in[0], n->device->name);
  else if (n->op == &tern__op_empty)
    *out = tern_full(tern_shape_of(type->rank, type->shape), (tern_dtype)type->dtype, 0);
  else if (n->op == &tern__op_write)
    *out = write(n, in[0], in[1]);
  else
    *out = tern__run_on(n->device, n->op, in, (int)n->n_in, n->attr, n->n_attr);
  return *out ? TERN_OK : tern__recorded();
}

static tern_rc run_body(const tern__graph *body, tern_tensor *const *in, tern_tensor **out) {
  return interpret(body, in, out);
}

static tern_rc run_control(state *s, const tern__ir_node *n) {
  tern_tensor *in[64], *next[64], *go = NULL;
  for (uint32_t k = 0; k < n->n_in; k++) in[k] = s->value[n->in[k]];
  if (n->kind == TERN__IR_COND)
    return run_body(n->body[tern_item(in[0]) != 0 ? 0 : 1], in + 1, s->value + n->first_out);
  for (int trips = 0; trips < 1000; trips++) {
    tern_rc rc = run_body(n->body[0], in, &go);
    if (rc) return rc;
    if (tern_item(go) == 0) break;
    if ((rc = run_body(n->body[1], in, next))) return rc;
    for (uint32_t o = 0; o < n->n_out; o++) in[o] = next[o];
  }
  for (uint32_t o = 0; o < n->n_out; o++) s->value[n->first_out + o] = in[o];
  return TERN_OK;
}

static tern_rc run_node(state *s, const tern__ir_node *n) {
  tern_tensor **out = s->value + n->first_out;
  tern_word words[8];
  tern_rc rc = TERN_OK;
  switch ((tern__ir_kind)n->kind) {
  case TERN__IR_DEAD:
  case TERN__IR_PRINT: break;
  case TERN__IR_OP: return run_op(s, n);
  case TERN__IR_INPUT: *out = s->in[n->attr[0].u]; break;
  case TERN__IR_CONST:
  case TERN__IR_VARIABLE: *out = n->tensor; break;
  case TERN__IR_SCALAR:
    *out = s->g->value[n->first_out].dtype == TERN_F64 ? tern_scalar(n->attr[0].f) : tern_scalar_int(n->attr[0].i);
    break;
  case TERN__IR_SOURCE:
    rc = n->source->next(n->source->self, 0, words, (int)n->n_out);
    for (uint32_t o = 0; o < n->n_out; o++)
      out[o] = s->g->value[n->first_out + o].dtype == TERN_F64 ? tern_scalar(words[o].f) : tern_scalar_int(words[o].i);
    break;
  case TERN__IR_COND:
  case TERN__IR_WHILE: return run_control(s, n);
  }
  return rc;
}

tern_rc interpret_with(const tern__graph *g, tern_tensor *const *in, tern_tensor **out, tern_tensor **after) {
  state s = {g, in, calloc(g->n_values + 1, sizeof *s.value)};
  tern_rc rc = s.value ? TERN_OK : TERN_E_OOM;
  for (uint32_t i = 0; i < g->n_nodes && !rc; i++) rc = run_node(&s, &g->node[i]);
  for (uint32_t o = 0; o < g->n_outputs && !rc; o++)
    out[o] = g->output[o] == TERN__IR_NONE ? TERN_NONE : s.value[g->output[o]];
  for (uint32_t k = 0; k < g->n_variables && after && !rc; k++) after[k] = s.value[g->variable[k].value];
  free(s.value);
  return rc;
}

tern_rc interpret(const tern__graph *g, tern_tensor *const *in, tern_tensor **out) {
  return interpret_with(g, in, out, NULL);
}
