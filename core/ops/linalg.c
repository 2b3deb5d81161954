/* Matrix products: the DOT primitive over [batch.., M, K] and [batch.., K, N]; everything else is views. Norms: one
   region each. */
#include "device/device.h"
#include "dispatch/dispatch.h"
#include "ops/table.h"
#include "tensor/dtype.h"
#include <math.h>
#include <tern/ops.h>

/* Operand i: batch dims aligned at their end in [0, nb), then two fixed sizes. */
static void matrix_operand(tern__request *q, int i, tern_tensor *t, int nb, int row, int column) {
  tern__operand *a = &q->arg[i];
  a->kind = TERN_V_IN;
  a->dtype = t->dtype;
  a->rank = (uint8_t)(nb + 2);
  a->storage = t->storage;
  a->offset = t->offset;
  const int extra = nb + 2 - t->rank;
  for (int d = 0; d < nb + 2; d++) {
    const bool one = d < extra || (d < nb && t->shape[d - extra] == 1);
    a->dim[d] = one ? TERN__ONE : (uint8_t)(d < nb ? d : d == nb ? row : column);
    a->stride[d] = one ? 0 : t->shape[d - extra] == 1 ? (d == nb + 1) : t->stride[d - extra];
  }
}

static tern_rc batch_space(const tern__call *c, tern__request *q, int nb) {
  for (int d = 0; d < nb; d++) {
    q->size[d] = 1;
    q->role[d] = TERN__ROLE_BATCH;
  }
  for (int i = 0; i < 2; i++)
    for (int d = 0; d < c->in[i]->rank - 2; d++) {
      int64_t *size = &q->size[d + nb - (c->in[i]->rank - 2)];
      const int64_t have = c->in[i]->shape[d];
      if (have == 1 || have == *size) continue;
      if (*size != 1) return TERN_E_ARG;
      *size = have;
    }
  return TERN_OK;
}

static tern_rc infer_matmul(const tern__call *c, tern__request *q, tern__result *r) {
  tern_tensor *x = c->in[0], *y = c->in[1];
  const tern_dtype d = tern__meet(c, 0, 2);
  const tern_rc rc = tern__check_dtype(c, d);
  if (rc) return rc;
  const int nb = (x->rank > y->rank ? x->rank : y->rank) - 2;
  const int64_t m = x->shape[x->rank - 2], k = x->shape[x->rank - 1], n = y->shape[y->rank - 1];
  if (k != y->shape[y->rank - 2] || batch_space(c, q, nb)) {
    char a[200], b[200];
    return tern__fail(
        TERN_E_ARG,
        "matmul: %s and %s do not fit: the last axis of the first must be as long as the last but one of the second%s",
        tern__shape_text(a, x->rank, x->shape), tern__shape_text(b, y->rank, y->shape),
        nb > 0 ? ", and the leading ones must broadcast" : "; tern_transpose turns one");
  }
  const int64_t sizes[] = {m, k, n};
  q->n_space = (uint8_t)nb;
  q->n_sizes = (uint8_t)(nb + 3);
  for (int i = 0; i < 3; i++) {
    q->size[nb + i] = sizes[i];
    q->role[nb + i] = TERN__ROLE_FIXED;
  }
  q->dtype = (uint8_t)d;
  matrix_operand(q, 0, x, nb, nb, nb + 1);
  matrix_operand(q, 1, y, nb, nb + 1, nb + 2);
  tern__operand *o = &q->arg[2];
  *o = (tern__operand){.kind = TERN_V_OUT, .dtype = (uint8_t)d, .rank = (uint8_t)(nb + 2)};
  uint64_t step = (uint64_t)m * (uint64_t)n; /* too large a shape is refused after this */
  for (int i = nb; i-- > 0;) {
    o->dim[i] = (uint8_t)i;
    o->stride[i] = (int64_t)step;
    step *= (uint64_t)q->size[i];
  }
  o->dim[nb] = (uint8_t)nb;
  o->stride[nb] = n;
  o->dim[nb + 1] = (uint8_t)(nb + 2);
  o->stride[nb + 1] = 1;
  r->dtype = d;
  r->rank = nb + 2;
  for (int i = 0; i < nb; i++) r->shape[i] = q->size[i];
  r->shape[nb] = m;
  r->shape[nb + 1] = n;
  return TERN_OK;
}

/* [.., rows, columns] as one matrix of all rows. */
static tern_tensor *all_rows(tern_tensor *t) {
  const int64_t columns = t->shape[t->rank - 1];
  return tern_reshape(t, (tern_shape){2, {columns ? t->numel / columns : 0, columns}});
}

/* da = dy b', db = a' dy. Where one matrix b serves all of a, db is one product too instead of a sum of many. */
static void grad_matmul(const tern__grad *g, tern_tensor **din) {
  tern_tensor *a = g->in[0], *b = g->in[1], *dy = g->dout[0];
  if (g->wanted & 1) {
    tern_tensor *turned = tern_transpose(b);
    din[0] = turned ? tern_matmul(dy, turned) : NULL;
  }
  if (!(g->wanted & 2)) return;
  if (b->rank == 2 && a->rank > 2 && a->numel && dy->numel) {
    a = all_rows(a);
    dy = all_rows(dy);
  }
  tern_tensor *turned = a && dy ? tern_transpose(a) : NULL;
  din[1] = turned ? tern_matmul(turned, dy) : NULL;
}

static tern_tensor *sample_matmul(const tern__sample *s) { return tern_matmul(s->x, tern_transpose(s->y)); }

const tern__op tern__op_matmul = {.name = "matmul",
                                  .family = "linalg",
                                  .operands = "a, b",
                                  .doc = "matrix product over the last two axes, the others broadcast",
                                  .prim = TERN_OP_DOT,
                                  .number = TERN__N_matmul,
                                  .sample = sample_matmul,
                                  .dtypes = TERN_D_NUM,
                                  .infer = infer_matmul,
                                  .lower = tern__lower_prim,
                                  .absolute = 1e-4,
                                  .relative = 1e-4,
                                  .ulp = 840,
                                  .grad = grad_matmul,
                                  .keeps = TERN__KEEP_A | TERN__KEEP_B};

static tern_rc infer_matmul_int32(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_rc rc = infer_matmul(c, q, r);
  if (rc) return rc;
  q->arg[2].dtype = TERN_I32;
  r->dtype = TERN_I32;
  return TERN_OK;
}

static tern_tensor *sample_matmul_int32(const tern__sample *s) { return tern_matmul_int32(s->x, tern_transpose(s->y)); }

const tern__op tern__op_matmul_int32 = {.name = "matmul_int32",
                                        .family = "linalg",
                                        .operands = "a, b",
                                        .doc = "matrix product of 8-bit integers, summed in int32",
                                        .prim = TERN_OP_DOT,
                                        .number = TERN__N_matmul_int32,
                                        .sample = sample_matmul_int32,
                                        .dtypes = 1 << TERN_I8 | 1 << TERN_U8,
                                        .infer = infer_matmul_int32,
                                        .lower = tern__lower_prim};

/* Both cast to the dtype where they meet, then multiplied. */
static tern_tensor *product(const tern__op *op, tern_tensor *a, tern_tensor *b) {
  const bool widen = op == &tern__op_matmul_int32;
  if (widen && (a->dtype != b->dtype || (a->dtype != TERN_I8 && a->dtype != TERN_U8))) {
    tern__fail(TERN_E_ARG, "matmul_int32: %s and %s; both are int8 or both uint8 (tern_cast makes them so)",
               tern_dtype_name((tern_dtype)a->dtype), tern_dtype_name((tern_dtype)b->dtype));
    return NULL;
  }
  if (a->dtype != b->dtype) {
    const tern_dtype d = tern__promote((tern_dtype)a->dtype, (tern_dtype)b->dtype);
    a = tern_cast(a, d);
    b = tern_cast(b, d);
    if (!a || !b) return NULL;
  }
  tern_tensor *const in[] = {a, b};
  if (a->shape[a->rank - 1] == 0 && a->shape[a->rank - 1] == b->shape[b->rank - 2]) { /* a sum over nothing */
    tern_shape s = {.rank = 2, .dim = {a->shape[a->rank - 2], b->shape[b->rank - 1]}};
    if (a->rank == 2 && b->rank == 2) return tern_zeros(s, widen ? TERN_I32 : (tern_dtype)a->dtype);
  }
  return tern__run(op, in, 2, NULL, 0);
}

/* Vectors as matrices, and back */
static tern_tensor *any_rank(const tern__op *op, tern_tensor *a, tern_tensor *b) {
  if (!tern__usable(a, op->name, 1) || !tern__usable(b, op->name, 2)) return NULL;
  if (a->rank == 0 || b->rank == 0) {
    tern__fail(TERN_E_ARG, "%s: operand %d is a scalar; use tern_mul", op->name, a->rank == 0 ? 1 : 2);
    return NULL;
  }
  const bool row = a->rank == 1, column = b->rank == 1;
  if (row && !(a = tern_expand_dims(a, 0))) return NULL;
  if (column && !(b = tern_expand_dims(b, 1))) return NULL;
  tern_tensor *c = product(op, a, b);
  if (c && column) c = tern_squeeze(c, -1);
  return c && row ? tern_squeeze(c, column ? -1 : -2) : c;
}

tern_tensor *tern_matmul(tern_tensor *a, tern_tensor *b) {
  tern_tensor *fast = tern__run_matrices(&tern__op_matmul, a, b);
  return TERN__LIKELY(fast != NULL) ? fast : any_rank(&tern__op_matmul, a, b);
}

tern_tensor *tern_matmul_int32(tern_tensor *a, tern_tensor *b) { return any_rank(&tern__op_matmul_int32, a, b); }

tern_tensor *tern_dot(tern_tensor *a, tern_tensor *b) {
  if (!tern__usable(a, "dot", 1) || !tern__usable(b, "dot", 2)) return NULL;
  if (a->rank == 0 || b->rank == 0) return tern_mul(a, b);
  if (b->rank <= 2) return tern_matmul(a, b);
  /* a [.., K] . b [.., K, N]: bring K to the front of b, one matrix product, restore */
  int order[TERN_MAX_RANK], at = 1;
  order[0] = b->rank - 2;
  tern_shape shape = {.rank = 0};
  if (a->rank + b->rank - 2 > TERN_MAX_RANK) {
    tern__fail(TERN_E_ARG, "dot: the result would have rank %d; the most there is is %d", a->rank + b->rank - 2,
               TERN_MAX_RANK);
    return NULL;
  }
  for (int d = 0; d + 1 < a->rank; d++) shape.dim[shape.rank++] = a->shape[d];
  for (int d = 0; d < b->rank; d++)
    if (d != b->rank - 2) {
      order[at++] = d;
      shape.dim[shape.rank++] = b->shape[d];
    }
  tern_tensor *wide = tern_permute(b, order, b->rank);
  if (!wide) return NULL;
  int64_t columns = 1;
  for (int d = 1; d < wide->rank; d++) columns *= wide->shape[d];
  tern_tensor *flat = tern_reshape(wide, (tern_shape){2, {wide->shape[0], columns}});
  return tern_reshape(tern_matmul(a, flat), shape);
}

/* ---- norm: attributes of the call: axes (bit mask), keepdims, which norm, the order of POWER ---- */

enum { AXES, KEEPDIMS, KIND, ORDER, N_ATTRS };
enum { EUCLIDEAN, ABSOLUTE, LARGEST, SMALLEST, NONZEROS, POWER };

static tern_rc infer_norm(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_dtype d = tern__float_of(tern__meet(c, 0, 1)), wide = d == TERN_F64 ? TERN_F64 : TERN_F32;
  const tern_rc rc = tern__space(c, q);
  if (rc) return rc;
  const uint64_t axes = c->attr[AXES].u, kind = c->attr[KIND].u;
  r->dtype = d;
  r->rank = 0;
  for (int k = 0; k < q->n_space; k++) {
    const bool reduced = axes >> k & 1;
    q->role[k] = reduced ? TERN__ROLE_REDUCED : TERN__ROLE_MAP;
    if (!reduced || c->attr[KEEPDIMS].u) r->shape[r->rank++] = reduced ? 1 : q->size[k];
  }
  q->dtype = (uint8_t)d;
  q->n_attrs = 1;
  q->attr[0].u = kind;
  tern__operand_of(q, 0, c->in[0], d);
  q->want[0] = q->arg[0].dtype == wide ? 0 : (uint8_t)wide;
  if (kind == POWER) {
    q->n_in = 3;
    tern__operand_param(q, 1, wide, tern__convert(c->attr[ORDER], TERN_F64, wide));
    tern__operand_param(q, 2, wide, tern__convert((tern_word){.f = 1 / c->attr[ORDER].f}, TERN_F64, wide));
  }
  tern__operand_out(q, 0, d, (uint32_t)axes);
  return TERN_OK;
}

static void lower_norm(tern__builder *b) {
  const int x = tern__b_in(b, 0);
  const tern_dtype d = tern__b_dtype(b, x);
  const int size = tern__b_map1(b, TERN_OP_ABS, x);
  int y;
  switch (tern__b_request(b)->attr[0].u) {
  case EUCLIDEAN:
    y = tern__b_map1(b, TERN_OP_SQRT, tern__b_reduce(b, TERN_OP_SUM, tern__b_map2(b, TERN_OP_MUL, x, x), d));
    break;
  case ABSOLUTE: y = tern__b_reduce(b, TERN_OP_SUM, size, d); break;
  case LARGEST: y = tern__b_reduce(b, TERN_OP_AMAX, size, d); break;
  case SMALLEST: y = tern__b_reduce(b, TERN_OP_AMIN, size, d); break;
  case NONZEROS:
    y = tern__b_reduce(b, TERN_OP_SUM, tern__b_cast(b, tern__b_map2(b, TERN_OP_NE, x, tern__b_const(b, d, 0)), d), d);
    break;
  default:
    y = tern__b_reduce(b, TERN_OP_SUM, tern__b_map2(b, TERN_OP_POW, size, tern__b_in(b, 1)), d);
    y = tern__b_map2(b, TERN_OP_POW, y, tern__b_in(b, 2));
  }
  tern__b_out(b, 0, y);
}

/* t with the reduced axes of x as size 1. */
static tern_tensor *with_axes(tern_tensor *t, const tern_tensor *x, uint64_t axes) {
  tern_shape shape = tern_shape_of(x->rank, x->shape);
  for (int d = 0; d < x->rank; d++)
    if (axes >> d & 1) shape.dim[d] = 1;
  return tern_reshape(t, shape);
}

/* a / b, and 0 where b is 0. */
static tern_tensor *divided(tern_tensor *a, tern_tensor *b) {
  tern_tensor *zero = tern_scalar(0), *is_zero = tern_equal(b, zero);
  return is_zero ? tern_where(is_zero, zero, tern_div(a, tern_where(is_zero, tern_scalar(1), b))) : NULL;
}

/* x / |x| of order p: x |x|^(p-2) / y^(p-1), and 0 where that has no value (x = 0, or all of them). */
static tern_tensor *power_slope(tern_tensor *x, tern_tensor *y, double p) {
  tern_tensor *zero = tern_scalar(0), *one = tern_scalar(1), *size = tern_abs(x), *less = tern_scalar(p - 1);
  tern_tensor *no_x = tern_equal(x, zero), *no_y = tern_equal(y, zero);
  tern_tensor *ratio = no_x && no_y ? tern_div(tern_where(no_x, one, size), tern_where(no_y, one, y)) : NULL;
  return ratio ? tern_where(no_x, zero, tern_mul(tern_sign(x), tern_pow(ratio, less))) : NULL;
}

static void grad_norm(const tern__grad *g, tern_tensor **din) {
  const uint64_t axes = g->attr[AXES].u, kind = g->attr[KIND].u;
  tern_tensor *x = g->in[0], *dy = with_axes(g->dout[0], x, axes);
  if (kind == NONZEROS) return;
  if (kind == ABSOLUTE) {
    din[0] = dy ? tern_mul(dy, tern_sign(x)) : NULL;
    return;
  }
  tern_tensor *y = with_axes(g->out[0], x, axes), *slope = NULL;
  if (y && kind == EUCLIDEAN) {
    slope = divided(x, y);
  } else if (y && kind == POWER) {
    slope = power_slope(x, y, g->attr[ORDER].f);
  } else if (y) { /* shared evenly by the elements that reach it */
    int list[TERN_MAX_RANK], n = 0;
    for (int d = 0; d < x->rank; d++)
      if (axes >> d & 1) list[n++] = d;
    tern_tensor *reach = tern_cast(tern_equal(tern_abs(x), y), (tern_dtype)y->dtype);
    tern_tensor *share =
        tern_div(reach, tern_sum(reach, &(tern_reduce_opts){.axes = list, .n_axes = n, .keepdims = 1}));
    slope = share ? tern_mul(tern_sign(x), share) : NULL;
  }
  din[0] = dy && slope ? tern_mul(dy, slope) : NULL;
}

static tern_tensor *sample_norm(const tern__sample *s) { return tern_norm(s->x, NULL); }

const tern__op tern__op_norm = {.name = "norm",
                                .family = "linalg",
                                .operands = "x, axes",
                                .doc = "vector norm over the axes",
                                .number = TERN__N_norm,
                                .sample = sample_norm,
                                .dtypes = TERN_D_FLOAT,
                                .infer = infer_norm,
                                .lower = lower_norm,
                                .absolute = 1e-5,
                                .relative = 1e-5,
                                .ulp = 84,
                                .grad = grad_norm,
                                .keeps = TERN__KEEP_A | TERN__KEEP_OUT};

static uint64_t norm_kind(const tern_norm_opts *o) {
  if (!o) return EUCLIDEAN;
  if (o->count_nonzero || (o->order == 0 && signbit(o->order))) return NONZEROS;
  if (o->order == 0 || o->order == 2) return EUCLIDEAN;
  if (isinf(o->order)) return o->order > 0 ? LARGEST : SMALLEST;
  return o->order == 1 ? ABSOLUTE : POWER;
}

/* The axes as a bit mask; false with the error set. */
static bool norm_axes(const tern_tensor *x, const tern_norm_opts *o, uint64_t *mask) {
  const int n = o ? o->n_axes : 0;
  *mask = n ? 0 : (UINT64_C(1) << x->rank) - 1;
  if (n < 0 || (n && !o->axes)) {
    tern__fail(TERN_E_ARG, "norm: n_axes is %d, axes is %s", n, o->axes ? "set" : "NULL");
    return false;
  }
  for (int i = 0; i < n; i++) {
    const int axis = tern__axis("norm", o->axes[i], x->rank);
    if (axis < 0) return false;
    if (*mask >> axis & 1) {
      tern__fail(TERN_E_ARG, "norm: axis %d is named twice", axis);
      return false;
    }
    *mask |= UINT64_C(1) << axis;
  }
  return true;
}

tern_tensor *tern_norm(tern_tensor *x, const tern_norm_opts *opts) {
  uint64_t axes;
  if (!tern__usable(x, "norm", 1) || !norm_axes(x, opts, &axes)) return NULL;
  const uint64_t kind = norm_kind(opts);
  if (opts && isnan(opts->order)) {
    tern__fail(TERN_E_ARG, "norm: the order is NaN");
    return NULL;
  }
  bool keep = opts && opts->keepdims, nothing = false;
  if (x->rank == 0) { /* one axis of one element */
    x = tern_reshape(x, (tern_shape){1, {1}});
    if (!x) return NULL;
    axes = 1;
    keep = false;
  }
  for (int d = 0; d < x->rank; d++) nothing = nothing || (axes >> d & 1 && x->shape[d] == 0);
  if (nothing && (kind == LARGEST || kind == SMALLEST || (kind == POWER && opts->order < 0))) {
    tern__fail(TERN_E_ARG, "norm: of no elements, order %g has no value; check that the axis is not empty",
               opts->order);
    return NULL;
  }
  const tern_word attr[N_ATTRS] = {{.u = axes}, {.u = keep}, {.u = kind}, {.f = opts ? opts->order : 2}};
  return tern__run(&tern__op_norm, &x, 1, attr, N_ATTRS);
}
