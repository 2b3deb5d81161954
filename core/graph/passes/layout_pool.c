/* max_pool(f(x)) becomes f(max_pool(x)) where f is monotone and the same all over a window: a relu, or the addition of
   a finite constant that has one value a channel. Rounding is monotone, so the values are the same to the bit (which
   zero of two comes out, maximum and max_pool leave open). f then runs on the pooled array, in one launch with the
   pooling, and what comes before keeps its own layout. An infinite addend could meet -inf in a window and make a NaN of
   it: those stay. */
#include "graph/passes/layout.h"
#include "ops/table.h"
#include "tensor/dtype.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <tern/ops.h>

enum { MOST_ADDENDS = 1 << 14 };

static bool finite_constant(const tern__graph *g, uint32_t value) {
  const tern__ir_node *n = &g->node[g->value[value].node];
  if (n->kind == TERN__IR_SCALAR) return g->value[value].dtype != TERN_F64 || fabs(n->attr[0].f) <= FLT_MAX;
  if (n->kind != TERN__IR_CONST || n->tensor->dtype != TERN_F32 || n->tensor->numel > MOST_ADDENDS) return false;
  const size_t count = (size_t)n->tensor->numel;
  float *data = malloc(count * sizeof *data + 1);
  bool finite = data && !tern_to_host(n->tensor, data, count * sizeof *data);
  for (size_t i = 0; i < count && finite; i++) finite = isfinite(data[i]) != 0;
  free(data);
  return finite;
}

/* One value a window: no more than 1 along the spatial dims, which are one dim after the batch or two. */
static bool even_in_windows(const tern__ir_value *c, const tern__ir_value *x, int first) {
  if (c->rank > x->rank) return false;
  for (int d = 0; d < c->rank; d++) {
    const int axis = d + x->rank - c->rank;
    if (axis >= first && axis < first + x->rank - 2 && c->shape[d] != 1) return false;
  }
  return true;
}

/* The operand of node m through which the pooled array goes; -1: not such a node. */
static int through(const tern__graph *g, const tern__ir_node *m, int64_t layout) {
  const tern__ir_value *v = &g->value[m->first_out];
  if (m->kind != TERN__IR_OP || v->dtype != TERN_F32) return -1;
  if (m->op == &tern__op_relu) return 0;
  if (m->op != &tern__op_add) return -1;
  for (int i = 0; i < 2; i++) {
    const tern__ir_value *x = &g->value[m->in[i]], *c = &g->value[m->in[1 - i]];
    if (!x->weak && x->dtype == TERN_F32 && x->rank == v->rank &&
        !memcmp(x->shape, v->shape, v->rank * sizeof *v->shape) &&
        (c->weak || even_in_windows(c, v, layout == TERN_NCHW ? 2 : 1)) && finite_constant(g, m->in[1 - i]))
      return i;
  }
  return -1;
}

tern_rc tern__layout_pools(tern__graph *g) {
  uint32_t *uses = calloc(g->n_values + 1, sizeof *uses);
  if (!uses) return tern__fail(TERN_E_OOM, "graph: out of host memory to compile \"%s\"", g->name);
  tern__graph_count_uses(g, uses);
  for (uint32_t i = 0; i < g->n_nodes; i++)
    for (tern__ir_node *p = &g->node[i]; p->kind == TERN__IR_OP && p->op == &tern__op_max_pool;) {
      const uint32_t v = p->in[0];
      tern__ir_node *m = &g->node[g->value[v].node];
      const int k = uses[v] == 1 && m->device == p->device ? through(g, m, p->attr[0].i) : -1;
      if (k < 0) break;
      const tern__ir_node map = *m, pool = *p; /* they change places; v is the pooled array now */
      pool.in[0] = map.in[k];
      map.in[k] = v;
      m->op = pool.op, m->in = pool.in, m->n_in = pool.n_in, m->attr = pool.attr, m->n_attr = pool.n_attr;
      p->op = map.op, p->in = map.in, p->n_in = map.n_in, p->attr = map.attr, p->n_attr = map.n_attr;
      memcpy(g->value[v].shape, g->value[p->first_out].shape, sizeof g->value[v].shape);
      p = m;
    }
  free(uses);
  return TERN_OK;
}
