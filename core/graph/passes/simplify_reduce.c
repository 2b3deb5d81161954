/* Identities of reductions. Attributes: axes (bit mask), keepdims, dtype, correction. */
#include "graph/passes/simplify_rule_list.h"

#define RULE(name) bool tern__rule_##name(tern__rewrite *r, uint32_t i)

enum { AXES, KEEPDIMS, DTYPE };

static tern__ir_value *out_of(const tern__rewrite *r, uint32_t i) { return &r->g->value[r->g->node[i].first_out]; }

/* Every reduced axis has one element, and the dtype stays. */
static bool of_one(const tern__rewrite *r, uint32_t i, bool same_dtype) {
  const tern__ir_node *n = &r->g->node[i];
  const tern__ir_value *x = &r->g->value[n->in[0]];
  if (x->weak || (same_dtype && x->dtype != out_of(r, i)->dtype)) return false;
  for (int d = 0; d < x->rank; d++)
    if (n->attr[AXES].u >> d & 1 && x->shape[d] != 1) return false;
  return true;
}

static bool as_reshape(tern__rewrite *r, uint32_t i) {
  const uint32_t x = r->g->node[i].in[0];
  return tern__stand_in(r, i, x) || tern__become1(r, i, &tern__op_reshape, x);
}

RULE(reduce_one) { return of_one(r, i, true) && as_reshape(r, i); }

/* A sum begins with +0, which turns -0 into +0: of floats x + 0 is left. */
RULE(sum_one) {
  const tern__ir_value *out = out_of(r, i);
  if (!of_one(r, i, true)) return false;
  if (r->fast_math || !tern__is_float((tern_dtype)out->dtype)) return as_reshape(r, i);
  uint32_t x = r->g->node[i].in[0];
  if (!tern__same_shape(&r->g->value[x], out)) {
    const tern__ir_value to = *out;
    x = tern__new_node(r, i, &tern__op_reshape, x, to.rank, to.shape);
  }
  const uint32_t zero = x == TERN__IR_NONE ? x : tern__new_scalar(r, TERN_F64, (tern_word){.f = 0});
  return zero != TERN__IR_NONE && tern__become2(r, i, &tern__op_add, x, zero);
}

RULE(bool_one) { return r->g->value[r->g->node[i].in[0]].dtype == TERN_BOOL && of_one(r, i, true) && as_reshape(r, i); }

RULE(arg_one) { return of_one(r, i, false) && tern__become_number(r, i, 0); }

/* Axes of the outer reduction as axes of the inner one's operand. */
static uint64_t outer_axes(const tern__ir_node *outer, const tern__ir_node *inner, int rank) {
  if (inner->attr[KEEPDIMS].u) return outer->attr[AXES].u;
  uint64_t axes = 0;
  for (int d = 0, k = 0; d < rank; d++)
    if (!(inner->attr[AXES].u >> d & 1) && outer->attr[AXES].u >> k++ & 1) axes |= UINT64_C(1) << d;
  return axes;
}

/* The same reduction over some axes, then others: over all at once. Sums and products of floats round otherwise, of
   maxima the zeros may differ. */
RULE(reduce_reduce) {
  const tern__ir_node *outer = &r->g->node[i], *inner = tern__maker(r->g, outer->in[0]);
  if (inner->kind != TERN__IR_OP || inner->op != outer->op || inner->attr[KEEPDIMS].u != outer->attr[KEEPDIMS].u)
    return false;
  const tern__ir_value *x = &r->g->value[inner->in[0]], *middle = &r->g->value[outer->in[0]], *out = out_of(r, i);
  if (x->weak || middle->dtype != out->dtype) return false;
  if (tern__is_float((tern_dtype)out->dtype) && !(r->fast_math && x->dtype == out->dtype)) return false;
  for (int d = 0; d < x->rank; d++)
    if (x->shape[d] == 0) return false;
  tern_word attr[4] = {inner->attr[0], inner->attr[1], inner->attr[2], inner->attr[3]};
  attr[AXES].u |= outer_axes(outer, inner, x->rank);
  const uint32_t from = inner->in[0];
  return tern__become(r, i, outer->op, &from, 1, attr, 4);
}
