/* Identities of views. Numbers in attributes may stand for sizes that vary: they are compared, and put together only
   where both are plain. */
#include "graph/passes/simplify_rule_list.h"

#define RULE(name) bool tern__rule_##name(tern__rewrite *r, uint32_t i)

static tern__ir_value *out_of(const tern__rewrite *r, uint32_t i) { return &r->g->value[r->g->node[i].first_out]; }
static tern__ir_value *in_of(const tern__rewrite *r, uint32_t i) { return &r->g->value[r->g->node[i].in[0]]; }
/* The node that operand 0 is made by, when it is this op of a tensor. */
static const tern__ir_node *under(const tern__rewrite *r, uint32_t i, const tern__op *op) {
  const tern__ir_node *n = tern__maker(r->g, r->g->node[i].in[0]);
  return n->kind == TERN__IR_OP && n->op == op && !r->g->value[n->in[0]].weak ? n : NULL;
}

/* Sizes without the ones. */
static int significant(const tern__ir_value *v, int64_t *size) {
  int n = 0;
  for (int d = 0; d < v->rank; d++)
    if (v->shape[d] != 1) size[n++] = v->shape[d];
  return n;
}

/* ---- reshape, permute ---- */

RULE(reshape_same) { return tern__stand_in(r, i, r->g->node[i].in[0]); }

RULE(reshape_reshape) {
  const tern__ir_node *n = under(r, i, &tern__op_reshape);
  return n && tern__become1(r, i, &tern__op_reshape, n->in[0]);
}

RULE(permute_permute) {
  const tern__ir_node *n = under(r, i, &tern__op_permute);
  if (!n) return false;
  tern_word order[TERN_MAX_RANK];
  for (int d = 0; d < n->n_attr; d++) order[d] = n->attr[r->g->node[i].attr[d].i];
  return tern__become(r, i, &tern__op_permute, &n->in[0], 1, order, n->n_attr);
}

/* Axes keep their order, but for those of size 1: a reshape. */
RULE(permute_identity) {
  const tern__ir_node *n = &r->g->node[i];
  const tern__ir_value *x = in_of(r, i);
  int64_t last = -1;
  if (x->weak) return false;
  for (int d = 0; d < n->n_attr; d++) {
    const int64_t from = n->attr[d].i;
    if (x->shape[from] == 1) continue;
    if (from < last) return false;
    last = from;
  }
  return tern__stand_in(r, i, n->in[0]) || tern__become1(r, i, &tern__op_reshape, n->in[0]);
}

/* ---- expand ---- */

/* The same shape, or only ones in front. */
RULE(expand_same) {
  int64_t a[TERN_MAX_RANK], b[TERN_MAX_RANK];
  const tern__ir_value *x = in_of(r, i), *out = out_of(r, i);
  if (tern__stand_in(r, i, r->g->node[i].in[0])) return true;
  const int n = significant(x, a);
  if (x->weak || significant(out, b) != n || memcmp(a, b, (size_t)n * sizeof *a)) return false;
  return tern__become1(r, i, &tern__op_reshape, r->g->node[i].in[0]);
}

RULE(expand_expand) {
  const tern__ir_node *n = under(r, i, &tern__op_expand);
  return n && tern__become1(r, i, &tern__op_expand, n->in[0]);
}

/* ---- slice: attributes: the axis that is dropped or -1, then first element and step of each axis ---- */

/* Every element, in order; an axis of size 1 may be dropped. */
RULE(slice_all) {
  const tern__ir_node *n = &r->g->node[i];
  const tern__ir_value *x = in_of(r, i), *out = out_of(r, i);
  const int dropped = (int)n->attr[0].i;
  if (x->weak) return false;
  for (int d = 0, k = 0; d < x->rank; d++) {
    const int64_t first = n->attr[1 + 2 * d].i, step = n->attr[2 + 2 * d].i;
    const int64_t count = d == dropped ? 1 : out->shape[k++];
    if (first != 0 || count != x->shape[d] || (count > 1 && step != 1)) return false;
  }
  return tern__stand_in(r, i, n->in[0]) || tern__become1(r, i, &tern__op_reshape, n->in[0]);
}

/* first + step * inner, where no size that varies is changed. */
static bool compose(int64_t first, int64_t step, int64_t inner_first, int64_t inner_step, int64_t *f, int64_t *s) {
  const int64_t plain = INT64_C(1) << 20;
  if (first == 0 && step == 1) {
    *f = inner_first;
    *s = inner_step;
    return true;
  }
  if (inner_first == 0 && inner_step == 1) {
    *f = first;
    *s = step;
    return true;
  }
  const int64_t part[] = {first, step, inner_first, inner_step};
  for (int k = 0; k < 4; k++)
    if (part[k] > plain || part[k] < -plain) return false;
  *f = inner_first + inner_step * first;
  *s = inner_step * step;
  return true;
}

RULE(slice_slice) {
  const tern__ir_node *outer = &r->g->node[i], *inner = under(r, i, &tern__op_slice);
  if (!inner || (outer->attr[0].i >= 0 && inner->attr[0].i >= 0)) return false;
  const int rank = r->g->value[inner->in[0]].rank, gone = (int)inner->attr[0].i;
  tern_word attr[1 + 2 * TERN_MAX_RANK];
  attr[0] = gone >= 0 ? inner->attr[0] : outer->attr[0];
  for (int d = 0, k = 0; d < rank; d++) {
    const tern_word *in = inner->attr + 1 + 2 * d;
    if (d == gone) {
      attr[1 + 2 * d] = in[0];
      attr[2 + 2 * d] = in[1];
      continue;
    }
    const tern_word *out = outer->attr + 1 + 2 * k++;
    if (!compose(out[0].i, out[1].i, in[0].i, in[1].i, &attr[1 + 2 * d].i, &attr[2 + 2 * d].i)) return false;
  }
  return tern__become(r, i, &tern__op_slice, &inner->in[0], 1, attr, 1u + 2u * (uint32_t)rank);
}

/* A view of a `full` is a `full`. */
RULE(view_number) {
  const tern__ir_node *n = tern__maker(r->g, r->g->node[i].in[0]);
  return n->kind == TERN__IR_OP && n->op == &tern__op_full && tern__become_full(r, i, n->attr[n->attr[0].i + 2]);
}

/* ---- through elementwise ops ---- */

enum { LONGEST = 8 };

/* The operand of an elementwise node whose others are host scalars; TERN__IR_NONE where it is another kind. */
static uint32_t only_tensor(const tern__graph *g, const tern__ir_node *n) {
  uint32_t x = TERN__IR_NONE;
  if (n->kind != TERN__IR_OP || n->n_out != 1 || !(tern__op_facts(n->op) & TERN__OP_MAP)) return x;
  for (uint32_t k = 0; k < n->n_in; k++) {
    if (n->in[k] == TERN__IR_NONE || g->value[n->in[k]].weak) continue;
    if (x != TERN__IR_NONE && x != n->in[k]) return TERN__IR_NONE;
    x = n->in[k];
  }
  return x;
}

/* outer(inner(x)) has x's axes where they were. */
static bool cancels(const tern__rewrite *r, const tern__ir_node *outer, const tern__ir_node *inner) {
  const tern__ir_value *x = &r->g->value[inner->in[0]], *y = &r->g->value[outer->first_out];
  if (outer->op != inner->op || x->weak || !tern__same_shape(x, y)) return false;
  for (int d = 0; outer->op == &tern__op_permute && d < outer->n_attr; d++)
    if (inner->attr[outer->attr[d].i].i != d) return false;
  return true;
}

/* view(f(.. g(view back(x)))) is f(.. g(x)): elementwise nodes between that nobody else reads work on x's shape. */
RULE(view_through) {
  tern__graph *g = r->g;
  const tern__ir_node *outer = &g->node[i];
  uint32_t chain[LONGEST], n = 0, v = outer->in[0];
  for (;;) {
    const tern__ir_node *m = tern__maker(g, v);
    if (n && m->kind == TERN__IR_OP && m->op == outer->op) break;
    if (n == LONGEST || r->uses[v] != 1) return false;
    const uint32_t x = only_tensor(g, m);
    if (x == TERN__IR_NONE || !tern__same_shape(&g->value[x], &g->value[v])) return false;
    chain[n++] = g->value[v].node;
    v = x;
  }
  const tern__ir_node *inner = tern__maker(g, v);
  if (!cancels(r, outer, inner)) return false;
  const uint32_t x = inner->in[0];
  const tern__ir_value *shape = &g->value[x];
  tern__ir_node *last = &g->node[chain[n - 1]];
  for (uint32_t k = 0; k < last->n_in; k++) {
    if (last->in[k] != v) continue;
    last->in[k] = x;
    r->uses[x]++;
    r->uses[v]--;
  }
  for (uint32_t k = 0; k < n; k++) {
    tern__ir_value *y = &g->value[g->node[chain[k]].first_out];
    y->rank = shape->rank;
    memcpy(y->shape, shape->shape, sizeof y->shape);
  }
  return tern__stand_in(r, i, g->node[chain[0]].first_out);
}
