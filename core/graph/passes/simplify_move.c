/* Identities of what moves elements without computing: copies, casts, devices, writes. */
#include "graph/passes/simplify_rule_list.h"

#define RULE(name) bool tern__rule_##name(tern__rewrite *r, uint32_t i)

static tern__ir_value *out_of(const tern__rewrite *r, uint32_t i) { return &r->g->value[r->g->node[i].first_out]; }
static tern__ir_value *in_of(const tern__rewrite *r, uint32_t i, uint32_t k) {
  return &r->g->value[r->g->node[i].in[k]];
}

/* A copy of what has memory of its own already; one of a view may be there for its layout. */
RULE(copy_dense) {
  const uint32_t v = tern__behind_reshapes(r->g, r->g->node[i].in[0]);
  return !tern__ir_is_view(tern__maker(r->g, v)) && tern__stand_in(r, i, r->g->node[i].in[0]);
}

/* ---- casts ---- */

RULE(cast_same) { return tern__stand_in(r, i, r->g->node[i].in[0]); }

RULE(cast_number) {
  tern_word w;
  tern_dtype d;
  return tern__made_by(r->g, r->g->node[i].in[0], &tern__op_full) && tern__uniform(r->g, r->g->node[i].in[0], &w, &d) &&
         !tern__varies_word(w, d) && tern__become_full(r, i, tern__convert(w, d, (tern_dtype)out_of(r, i)->dtype));
}

/* Bits of the numbers that dtype d holds without gaps: of integers their size, of floats the significand. */
static int whole_bits(tern_dtype d) {
  switch (d) {
  case TERN_BOOL: return 1;
  case TERN_BF16: return 8;
  case TERN_F16: return 11;
  case TERN_F32: return 24;
  case TERN_F64: return 53;
  default: return 8 * tern__dtype_size[d] - !tern__is_unsigned(d);
  }
}

/* Whether b holds every number of a. */
static bool holds(tern_dtype b, tern_dtype a) {
  if (a == b || a == TERN_BOOL) return true;
  if (b == TERN_BOOL) return false;
  if (tern__is_float(a)) return b == TERN_F64 || (b == TERN_F32 && a != TERN_F64);
  if (!tern__is_unsigned(a) && tern__is_unsigned(b)) return false;
  return whole_bits(b) >= whole_bits(a);
}

/* a -> b -> c where b holds all of a is a -> c. Between integers and floats only where the way round leads back: how
   often a conversion rounds on its way is the backend's affair. */
RULE(cast_cast) {
  const uint32_t v = r->g->node[i].in[0];
  if (!tern__made_by(r->g, v, &tern__op_cast)) return false;
  const uint32_t x = tern__maker(r->g, v)->in[0];
  const tern_dtype a = (tern_dtype)r->g->value[x].dtype, b = (tern_dtype)r->g->value[v].dtype,
                   c = (tern_dtype)out_of(r, i)->dtype;
  if (r->g->value[x].weak || !holds(b, a)) return false;
  if (a == c) return tern__stand_in(r, i, x);
  if (a != TERN_BOOL && tern__is_float(a) != tern__is_float(b)) return false;
  const tern_word to = {.i = c};
  return tern__become(r, i, &tern__op_cast, &x, 1, &to, 1);
}

/* ---- reshapes ---- */

/* Other sizes, those of 1 left aside. */
static bool regroups(const tern__ir_value *a, const tern__ir_value *b) {
  int d = 0, e = 0;
  for (;;) {
    while (d < a->rank && a->shape[d] == 1) d++;
    while (e < b->rank && b->shape[e] == 1) e++;
    if (d == a->rank || e == b->rank) return d != a->rank || e != b->rank;
    if (a->shape[d++] != b->shape[e++]) return true;
  }
}

/* Dense memory of its own, which others read too or nobody computes here: to reshape it costs nothing, and parts it
   from no node that it is launched with. */
static bool stands(const tern__rewrite *r, uint32_t v) {
  bool shared = false;
  for (;; v = tern__maker(r->g, v)->in[0]) {
    shared |= r->uses[v] > 1;
    if (!tern__made_by(r->g, v, &tern__op_reshape)) break;
  }
  const tern__ir_node *n = tern__maker(r->g, v);
  return n->kind != TERN__IR_OP || (shared && !tern__ir_is_view(n));
}

/* What node i computes, of `in` instead: elements in the shape of `like`. */
static uint32_t in_shape(tern__rewrite *r, uint32_t i, const uint32_t *in, const tern__ir_value *like) {
  const tern__ir_value shape = *like;
  const uint32_t made = tern__new_node(r, i, r->g->node[i].op, in[0], shape.rank, shape.shape);
  if (made == TERN__IR_NONE) return made;
  tern__ir_node *to = tern__maker(r->g, made);
  const tern__ir_node *from = &r->g->node[i];
  uint32_t *operands = tern__graph_alloc(r->g, from->n_in, sizeof *operands);
  if (!operands) {
    r->failed = true;
    return TERN__IR_NONE;
  }
  for (uint32_t k = 0; k < from->n_in; k++) {
    operands[k] = in[k];
    if (k && in[k] != TERN__IR_NONE) r->uses[in[k]]++;
  }
  to->in = operands;
  to->n_in = from->n_in;
  to->attr = from->attr;
  to->n_attr = from->n_attr;
  r->g->value[made].dtype = r->g->value[from->first_out].dtype;
  r->g->value[made].device = r->g->value[from->first_out].device;
  return made;
}

/* f(reshape(w), y) is reshape(f(w, reshape(y))), elementwise, where nobody else reads w: then f and what makes w are
   one launch. y may stay as it is, or be a host scalar. */
RULE(reshape_behind) {
  const tern__ir_node *n = &r->g->node[i];
  const tern__ir_value *out = out_of(r, i);
  uint32_t in[3], w = TERN__IR_NONE, at = 0;
  if (n->n_in > 3 || out->weak) return false;
  for (uint32_t k = 0; k < n->n_in && w == TERN__IR_NONE; k++) {
    const uint32_t v = n->in[k];
    if (v == TERN__IR_NONE || r->uses[v] != 1 || !tern__made_by(r->g, v, &tern__op_reshape)) continue;
    const uint32_t x = tern__maker(r->g, v)->in[0];
    const tern__ir_node *m = tern__maker(r->g, x);
    if (r->uses[x] == 1 && !r->g->value[x].weak && m->kind == TERN__IR_OP && (tern__op_facts(m->op) & TERN__OP_MAP) &&
        tern__same_shape(&r->g->value[v], out) && regroups(&r->g->value[x], out)) {
      w = x;
      at = k;
    }
  }
  if (w == TERN__IR_NONE) return false;
  for (uint32_t k = 0; k < n->n_in; k++) {
    in[k] = n->in[k];
    if (k != at && in[k] != TERN__IR_NONE && !r->g->value[in[k]].weak &&
        (!tern__same_shape(in_of(r, i, k), out) || !stands(r, in[k])))
      return false;
  }
  const tern__ir_value like = r->g->value[w];
  in[at] = w;
  for (uint32_t k = 0; k < r->g->node[i].n_in; k++) {
    if (k == at || in[k] == TERN__IR_NONE || r->g->value[in[k]].weak) continue;
    in[k] = tern__new_node(r, i, &tern__op_reshape, in[k], like.rank, like.shape);
    if (in[k] == TERN__IR_NONE) return false;
  }
  const uint32_t made = in_shape(r, i, in, &like);
  return made != TERN__IR_NONE && tern__become1(r, i, &tern__op_reshape, made);
}

/* ---- devices ---- */

RULE(to_same) { return tern__stand_in(r, i, r->g->node[i].in[0]); }

RULE(to_to) {
  const uint32_t v = r->g->node[i].in[0];
  if (!tern__made_by(r->g, v, &tern__op_to)) return false;
  const uint32_t x = tern__maker(r->g, v)->in[0];
  if (r->g->value[x].weak) return false;
  if (r->g->value[x].device == out_of(r, i)->device) return tern__stand_in(r, i, x);
  return tern__become1(r, i, &tern__op_to, x);
}

/* ---- writes ---- */

typedef struct part {
  int64_t offset;
  int rank;
  const tern_word *size, *stride;
} part;

static part part_of(const tern__ir_node *write) {
  const int rank = (int)write->attr[1].i;
  return (part){write->attr[0].i, rank, write->attr + 2, write->attr + 2 + rank};
}

/* The part is all of a value of this shape, in its order. */
static bool covers(const part *p, const tern__ir_value *whole) {
  int64_t size[TERN_MAX_RANK], stride[TERN_MAX_RANK], n = 1, have = 1;
  for (int d = 0; d < p->rank; d++) {
    size[d] = p->size[d].i;
    stride[d] = p->stride[d].i;
    if (__builtin_mul_overflow(have, size[d], &have)) return false;
  }
  for (int d = 0; d < whole->rank; d++)
    if (__builtin_mul_overflow(n, whole->shape[d], &n)) return false;
  return p->offset == 0 && n == have && n > 0 && tern__dense_strides(p->rank, size, stride);
}

static bool part_has_shape(const part *p, const tern__ir_value *v) {
  bool same = p->rank == v->rank;
  for (int d = 0; d < p->rank && same; d++) same = p->size[d].i == v->shape[d];
  return same;
}

/* A write over everything (a concatenation of one part ends as this) is its source. */
RULE(write_all) {
  const tern__ir_node *n = &r->g->node[i];
  const part p = part_of(n);
  const tern__ir_value *whole = in_of(r, i, 0), *from = in_of(r, i, 1);
  const uint32_t source = n->in[1];
  tern_word w;
  tern_dtype d;
  if (!covers(&p, whole)) return false;
  if (tern__uniform(r->g, source, &w, &d)) {
    if (tern__varies_word(w, d)) return false;
    return tern__become_full(r, i, tern__convert(w, d, (tern_dtype)whole->dtype));
  }
  if (from->weak || from->device != whole->device) return false;
  const bool shaped = part_has_shape(&p, from);
  if (from->dtype != whole->dtype) {
    const tern_word to = {.i = whole->dtype};
    return tern__same_shape(from, whole) && shaped && tern__become(r, i, &tern__op_cast, &source, 1, &to, 1);
  }
  if (shaped) return tern__stand_in(r, i, source) || tern__become1(r, i, &tern__op_reshape, source);
  return part_has_shape(&p, whole) && tern__become1(r, i, &tern__op_expand, source);
}

/* First element, sizes and strides of a slice, in elements of its operand (row-major). False where they overflow. */
static bool slice_part(const tern__rewrite *r, uint32_t i, part *p, tern_word *size, tern_word *stride) {
  const tern__ir_node *n = &r->g->node[i];
  const tern__ir_value *x = in_of(r, i, 0), *out = out_of(r, i);
  const int dropped = (int)n->attr[0].i;
  int64_t step = 1;
  *p = (part){0, out->rank, size, stride};
  for (int d = x->rank, k = out->rank; d-- > 0;) {
    int64_t at;
    if (__builtin_mul_overflow(n->attr[1 + 2 * d].i, step, &at) || __builtin_add_overflow(p->offset, at, &p->offset))
      return false;
    if (d != dropped) {
      k--;
      size[k].i = out->shape[k];
      if (__builtin_mul_overflow(n->attr[2 + 2 * d].i, step, &stride[k].i)) return false;
    }
    if (__builtin_mul_overflow(step, x->shape[d], &step)) return false;
  }
  return true;
}

/* A slice of what was just written there is the source. */
RULE(slice_of_write) {
  const uint32_t v = r->g->node[i].in[0];
  const tern__ir_node *n = tern__maker(r->g, v);
  if (n->kind != TERN__IR_OP || n->op != &tern__op_write) return false;
  tern_word size[TERN_MAX_RANK], stride[TERN_MAX_RANK];
  part p;
  const part q = part_of(n);
  if (!slice_part(r, i, &p, size, stride) || p.offset != q.offset || p.rank != q.rank) return false;
  for (int d = 0; d < p.rank; d++)
    if (size[d].i != q.size[d].i || (size[d].i != 1 && stride[d].i != q.stride[d].i)) return false;
  return tern__stand_in(r, i, n->in[1]);
}
