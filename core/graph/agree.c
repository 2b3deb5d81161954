/* See agree.h. */
#include "graph/agree.h"
#include "tensor/dtype.h"
#include "tensor/tensor.h"
#include <stdio.h>
#include <stdlib.h>

/* The same memory, or the same bytes. Constants that the body made are few and small; those from outside are one
   tensor in both. */
static bool same_constant(tern_tensor *a, tern_tensor *b) {
  if (a->storage == b->storage && a->offset == b->offset) return true;
  const size_t bytes = (size_t)a->numel * tern__dtype_size[a->dtype];
  char *data = bytes && a->numel == b->numel && a->dtype == b->dtype ? malloc(2 * bytes) : NULL;
  const bool same = data && !tern_to_host(a, data, bytes) && !tern_to_host(b, data + bytes, bytes) &&
                    !memcmp(data, data + bytes, bytes);
  free(data);
  return same || (a->numel == 0 && b->numel == 0);
}

static bool same_value(const tern__ir_value *v, const tern__ir_value *w) {
  return v->dtype == w->dtype && v->rank == w->rank && v->weak == w->weak && v->device == w->device &&
         !memcmp(v->shape, w->shape, v->rank * sizeof *v->shape);
}

static bool same_node(const tern__graph *a, const tern__graph *b, uint32_t i) {
  const tern__ir_node *n = &a->node[i], *m = &b->node[i];
  if (n->kind != m->kind || n->op != m->op || n->n_in != m->n_in || n->n_out != m->n_out || n->n_attr != m->n_attr ||
      n->first_out != m->first_out || (n->n_in && memcmp(n->in, m->in, n->n_in * sizeof *n->in)) ||
      (n->n_attr && memcmp(n->attr, m->attr, n->n_attr * sizeof *n->attr)))
    return false;
  for (uint32_t o = 0; o < n->n_out; o++)
    if (!same_value(&a->value[n->first_out + o], &b->value[m->first_out + o])) return false;
  if (n->kind == TERN__IR_VARIABLE && n->tensor != m->tensor) return false;
  if (n->kind == TERN__IR_CONST && !same_constant(n->tensor, m->tensor)) return false;
  if (n->kind == TERN__IR_SOURCE && (n->source->next != m->source->next || n->source->self != m->source->self))
    return false;
  for (int k = 0; k < 2; k++)
    if (n->body[k] && !tern__graph_agrees(n->body[k], m->body[k], NULL, 0)) return false;
  return true;
}

bool tern__graph_agrees(const tern__graph *a, const tern__graph *b, char *text, size_t size) {
  if (!a || !b) return a == b;
  const uint32_t n = a->n_nodes < b->n_nodes ? a->n_nodes : b->n_nodes;
  for (uint32_t i = 0; i < n; i++) {
    if (same_node(a, b, i)) continue;
    const tern__ir_node *node = &a->node[i];
    if (text)
      snprintf(text, size, "node %u, %s", i,
               node->kind == TERN__IR_OP       ? node->op->name
               : node->kind == TERN__IR_SCALAR ? "a host scalar"
               : node->kind == TERN__IR_CONST  ? "a constant"
                                               : "a value");
    return false;
  }
  const bool same = a->n_nodes == b->n_nodes && a->n_inputs == b->n_inputs && a->n_outputs == b->n_outputs &&
                    a->n_variables == b->n_variables &&
                    (!a->n_outputs || !memcmp(a->output, b->output, a->n_outputs * sizeof *a->output));
  bool variables = same;
  for (uint32_t i = 0; same && i < a->n_variables; i++)
    variables =
        variables && a->variable[i].variable == b->variable[i].variable && a->variable[i].value == b->variable[i].value;
  if (!variables && text) snprintf(text, size, "%u nodes instead of %u, or other results", a->n_nodes, b->n_nodes);
  return variables;
}
