/* What a launch would take: a roofline over the region's operations and the bytes of its arguments. */
#include "virtual.h"
#include "../../backends/common/nest.h"
#include <math.h>

static double elements(const tern_region *r, uint32_t value, const tern_word *words) {
  const tern_value *v = &r->values[value];
  double n = 1;
  for (uint32_t d = 0; d < v->rank; d++) n *= (double)TERN_LIT(v->shape[d], words);
  return n;
}

/* Exponentials and their like take several operations. */
static double weight(uint32_t op) {
  return op == TERN_OP_COPY || op == TERN_OP_CAST || op == TERN_OP_NEG || op == TERN_OP_ABS ? 1
         : op <= TERN_OP_COSPI && op != TERN_OP_SIGN                                        ? 8
                                                                                            : 1;
}

static double operations(const tern_region *r, uint32_t node, const tern_word *words) {
  const tern_node *n = &r->nodes[node];
  const nest_prim *prim = nest_prim_of(n->op);
  const double out = elements(r, nest_out(r, node), words),
               in = n->n_in ? elements(r, nest_in(r, node, 0), words) : out;
  switch (prim ? prim->kind : 0) {
  case TERN_K_DOT: {
    const tern_value *a = &r->values[nest_in(r, node, 0)];
    return a->rank ? 2 * out * (double)TERN_LIT(a->shape[a->rank - 1], words) : out;
  }
  case TERN_K_CONV: { /* multiplications and additions are the same for a convolution and its gradients */
    const uint32_t at = n->op == TERN_OP_CONV ? nest_out(r, node) : nest_in(r, node, n->op == TERN_OP_CONV_DX ? 0 : 1);
    const uint32_t w = n->op == TERN_OP_CONV_DW ? nest_out(r, node) : nest_in(r, node, 1);
    return 2 * elements(r, at, words) * elements(r, w, words) / (double)TERN_LIT(r->values[w].shape[0], words);
  }
  case TERN_K_REDUCE:
  case TERN_K_SCAN: return in;
  case TERN_K_SORT: return in * (1 + log2(in));
  default: return out * weight(n->op);
  }
}

uint64_t virtual_cost(const virtual_spec *s, const tern_region *r, const tern_word *words) {
  double work = 0, moved = 0;
  for (uint32_t i = 0; i < r->n_nodes; i++) work += operations(r, i, words);
  for (uint32_t i = 0; i < r->n_values; i++)
    if (r->values[i].kind == TERN_V_IN || r->values[i].kind == TERN_V_OUT)
      moved += elements(r, i, words) * (double)nest_item_size(r->values[i].dtype);
  const double compute = s->flops > 0 ? work / s->flops : 0, memory = s->bandwidth > 0 ? moved / s->bandwidth : 0;
  const double ns = 1e9 * (compute > memory ? compute : memory);
  return s->launch_ns + (ns < 1e18 ? (uint64_t)ns : (uint64_t)1e18);
}

uint64_t virtual_transfer(const virtual_spec *s, uint64_t size) {
  const double ns = s->link > 0 ? 1e9 * (double)size / s->link : 0;
  return s->latency_ns + (ns < 1e18 ? (uint64_t)ns : (uint64_t)1e18);
}
