/* Picking, one-hot, sorting, joining, padding. */
#include "device/device.h"
#include "dispatch/dispatch.h"
#include "ops/scatter.h"
#include "ops/table.h"
#include "tensor/dtype.h"
#include <tern/ops.h>

/* ---- take: data [O, A, I], indices [J], out [O, J, I]; the public shape is the call's business ---- */

static tern_rc infer_take(const tern__call *c, tern__request *q, tern__result *r) {
  tern_tensor *x = c->in[0], *j = c->in[1];
  static const uint8_t data_dims[] = {0, 1, 2}, index_dims[] = {3}, out_dims[] = {0, 3, 2};
  const int64_t sizes[] = {x->shape[0], x->shape[1], x->shape[2], j->shape[0]};
  q->n_space = 0;
  q->n_sizes = 4;
  for (int i = 0; i < 4; i++) {
    q->size[i] = sizes[i];
    q->role[i] = TERN__ROLE_FIXED;
  }
  q->dtype = x->dtype;
  tern__fixed_operand(&q->arg[0], TERN_V_IN, x, (tern_dtype)x->dtype, 3, data_dims, sizes);
  tern__fixed_operand(&q->arg[1], TERN_V_IN, j, (tern_dtype)j->dtype, 1, index_dims, sizes);
  tern__fixed_operand(&q->arg[2], TERN_V_OUT, NULL, (tern_dtype)x->dtype, 3, out_dims, sizes);
  *r = (tern__result){.dtype = (tern_dtype)x->dtype, .rank = 3, .shape = {sizes[0], sizes[3], sizes[2]}};
  return TERN_OK;
}

static void grad_take(const tern__grad *g, tern_tensor **din) {
  din[0] = tern__scatter_zeros(g->in[1], g->dout[0], g->in[0]->shape[1]);
}

static tern_tensor *sample_take(const tern__sample *s) {
  return tern_take(s->x, tern_zeros((tern_shape){1, {2}}, TERN_I64), 0);
}

const tern__op tern__op_take = {.name = "take",
                                .family = "index",
                                .operands = "x, indices, axis",
                                .doc = "slices of x along axis at integer indices",
                                .prim = TERN_OP_GATHER,
                                .number = TERN__N_take,
                                .sample = sample_take,
                                .dtypes = TERN_D_ANY,
                                .infer = infer_take,
                                .lower = tern__lower_prim,
                                .grad = grad_take,
                                .keeps = TERN__KEEP_B};

tern_tensor *tern_take(tern_tensor *x, tern_tensor *indices, int axis) {
  if (!tern__usable(x, "take", 1) || !tern__usable(indices, "take", 2)) return NULL;
  axis = tern__axis("take", axis, x->rank);
  if (axis < 0) return NULL;
  indices = tern__solid(indices, TERN_I64);
  if (!indices) return NULL;
  if (!tern__is_int((tern_dtype)indices->dtype)) {
    tern__fail(TERN_E_ARG, "take: indices are %s; they must be integers: tern_cast them",
               tern_dtype_name((tern_dtype)indices->dtype));
    return NULL;
  }
  if (x->rank - 1 + indices->rank > TERN_MAX_RANK) {
    tern__fail(TERN_E_ARG, "take: the result would have rank %d; the most there is is %d", x->rank - 1 + indices->rank,
               TERN_MAX_RANK);
    return NULL;
  }
  tern_shape shape = {.rank = 0}, three = {.rank = 3, .dim = {1, x->shape[axis], 1}};
  for (int d = 0; d < axis; d++) three.dim[0] *= shape.dim[shape.rank++] = x->shape[d];
  for (int d = 0; d < indices->rank; d++) shape.dim[shape.rank++] = indices->shape[d];
  for (int d = axis + 1; d < x->rank; d++) three.dim[2] *= shape.dim[shape.rank++] = x->shape[d];
  if (x->shape[axis] == 0 && indices->numel) {
    tern__fail(TERN_E_ARG, "take: axis %d is empty, no index is in range", axis);
    return NULL;
  }
  if (indices->dtype != TERN_I32 && indices->dtype != TERN_I64) indices = tern_cast(indices, TERN_I64);
  tern_tensor *const in[] = {tern_reshape(x, three), indices ? tern_flatten(indices) : NULL};
  return tern_reshape(tern__run(&tern__op_take, in, 2, NULL, 0), shape);
}

/* ---- one_hot: attributes: classes, dtype ---- */

static tern_rc infer_one_hot(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_rc rc = tern__space(c, q);
  if (rc) return rc;
  const int last = q->n_space - 1; /* the call's operand has a last axis of size 1 */
  q->size[last] = c->attr[0].i;
  q->role[last] = TERN__ROLE_FIXED;
  q->dtype = TERN_I64;
  tern__operand_of(q, 0, c->in[0], TERN_I64);
  if (q->arg[0].dtype != TERN_I64) q->want[0] = TERN_I64;
  tern__result_space(q, r, (tern_dtype)c->attr[1].i);
  tern__operand_out(q, 0, r->dtype, 0);
  return TERN_OK;
}

static int fixed_dim(const tern__request *q) {
  int d = q->n_space - 1;
  while (d > 0 && q->role[d] != TERN__ROLE_FIXED) d--;
  return d;
}

static void lower_one_hot(tern__builder *b) {
  const tern__request *q = tern__b_request(b);
  tern__b_out(b, 0, tern__b_map2(b, TERN_OP_EQ, tern__b_iota(b, fixed_dim(q), TERN_I64), tern__b_in(b, 0)));
}

static tern_tensor *sample_one_hot(const tern__sample *s) {
  return tern_one_hot(tern_zeros((tern_shape){1, {2}}, TERN_I64), 3, s->d);
}

const tern__op tern__op_one_hot = {.name = "one_hot",
                                   .family = "index",
                                   .operands = "indices, classes, dtype",
                                   .doc = "1 where the class is the index, else 0",
                                   .number = TERN__N_one_hot,
                                   .sample = sample_one_hot,
                                   .dtypes = TERN_D_ANY,
                                   .infer = infer_one_hot,
                                   .lower = lower_one_hot};

tern_tensor *tern_one_hot(tern_tensor *indices, int64_t classes, tern_dtype dtype) {
  if (!tern__usable(indices, "one_hot", 1)) return NULL;
  indices = tern__solid(indices, TERN_I64);
  if (!indices) return NULL;
  if (!tern__is_int((tern_dtype)indices->dtype) || classes < 0 || dtype <= TERN_NO_DTYPE || dtype >= TERN_DTYPE_END) {
    tern__fail(TERN_E_ARG, "one_hot: indices are %s (must be integers), classes %lld (at least 0), dtype %s",
               tern_dtype_name((tern_dtype)indices->dtype), (long long)classes, tern_dtype_name(dtype));
    return NULL;
  }
  tern_tensor *wide = tern_expand_dims(indices, -1);
  const tern_word attr[] = {{.i = classes}, {.i = dtype}};
  return wide ? tern__run(&tern__op_one_hot, &wide, 1, attr, 2) : NULL;
}

/* ---- sort: along the last axis; attribute 0: descending ---- */

static tern_rc infer_sort(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_rc rc = tern__space(c, q);
  if (rc) return rc;
  const int last = q->n_space - 1;
  const tern_dtype d = (tern_dtype)c->in[0]->dtype;
  q->role[last] = TERN__ROLE_FIXED;
  q->dtype = (uint8_t)d;
  q->n_attrs = 1;
  q->attr[0] = c->attr[0];
  tern__operand_of(q, 0, c->in[0], d);
  if (q->arg[0].dim[last] == TERN__ONE) q->arg[0].stride[last] = 1;
  q->arg[0].dim[last] = (uint8_t)last;
  tern__result_space(q, r, c->op->prim == TERN_OP_ARGSORT ? TERN_I64 : d);
  tern__operand_out(q, 0, r->dtype, 0);
  return TERN_OK;
}

/* Each element's gradient goes back to where it came from: rows along the last axis, sorted again for their order. */
static void grad_sort(const tern__grad *g, tern_tensor **din) {
  tern_tensor *x = g->in[0], *dy = g->dout[0];
  const int64_t size = x->shape[x->rank - 1], rows = size ? x->numel / size : 0;
  if (x->numel == 0) {
    din[0] = dy;
    return;
  }
  tern_tensor *order = tern__run(&tern__op_argsort, &x, 1, g->attr, 1);
  tern_device_mark mark = tern_device_begin(x->device->name);
  tern_tensor *begin = tern_arange(0, (double)x->numel, (double)size, TERN_I64);
  tern_device_end(&mark);
  tern_tensor *at = tern_add(tern_reshape(order, (tern_shape){2, {rows, size}}), tern_expand_dims(begin, 1));
  tern_tensor *dx =
      tern__scatter_zeros(tern_flatten(at), tern_reshape(dy, (tern_shape){3, {1, x->numel, 1}}), x->numel);
  din[0] = tern_reshape(dx, tern_shape_of(x->rank, x->shape));
}

static tern_tensor *sample_sort(const tern__sample *s) {
  const tern_word axis = {.i = 0};
  return tern__run(s->op, &s->x, 1, &axis, 1);
}

#define SORT(id, primitive, rule, kept, text)                \
  const tern__op tern__op_##id = {.name = #id,               \
                                  .family = "index",         \
                                  .operands = "x, axis",     \
                                  .doc = text,               \
                                  .prim = primitive,         \
                                  .number = TERN__N_##id,    \
                                  .sample = sample_sort,     \
                                  .dtypes = TERN_D_ANY,      \
                                  .infer = infer_sort,       \
                                  .lower = tern__lower_prim, \
                                  .grad = rule,              \
                                  .keeps = kept};
SORT(sort, TERN_OP_SORT, grad_sort, TERN__KEEP_A, "sorted along axis, stable; NaN last")
SORT(argsort, TERN_OP_ARGSORT, NULL, 0, "indices (int64) that sort along axis, stable")

static tern_tensor *sorted(const tern__op *op, tern_tensor *x, int axis, const tern_sort_opts *opts) {
  if (!tern__usable(x, op->name, 1)) return NULL;
  axis = tern__axis(op->name, axis, x->rank);
  if (axis < 0) return NULL;
  int order[TERN_MAX_RANK], back[TERN_MAX_RANK];
  for (int d = 0; d < x->rank; d++) order[d] = d < axis ? d : d + 1;
  order[x->rank - 1] = axis;
  for (int d = 0; d < x->rank; d++) back[order[d]] = d;
  tern_tensor *last = axis == x->rank - 1 ? x : tern_permute(x, order, x->rank);
  const tern_word attr = {.u = opts && opts->descending};
  tern_tensor *y = last ? tern__run(op, &last, 1, &attr, 1) : NULL;
  return y && last != x ? tern_permute(y, back, y->rank) : y;
}

tern_tensor *tern_sort(tern_tensor *x, int axis, const tern_sort_opts *opts) {
  return sorted(&tern__op_sort, x, axis, opts);
}
tern_tensor *tern_argsort(tern_tensor *x, int axis, const tern_sort_opts *opts) {
  return sorted(&tern__op_argsort, x, axis, opts);
}
