/* Scatter: updates combined into slices at indices, the transpose of take. scatter_add adds; scatter sets or takes
   the larger or smaller (they differ in what their gradients need). Both see arrays of three dims, x [O, A, I],
   indices [J], updates [O, J, I]; x may be a weak scalar, from which the result begins everywhere. Attributes of a
   call: mode, A (read where x is a scalar). */
#include "ops/scatter.h"
#include "device/device.h"
#include "dispatch/dispatch.h"
#include "ops/table.h"
#include "tensor/dtype.h"

enum { MODE, ROWS, N_ATTRS };

void tern__fixed_operand(tern__operand *a, uint8_t kind, tern_tensor *t, tern_dtype dtype, int rank, const uint8_t *dim,
                         const int64_t *size) {
  *a = (tern__operand){.kind = kind,
                       .dtype = (uint8_t)dtype,
                       .rank = (uint8_t)rank,
                       .storage = t ? t->storage : NULL,
                       .offset = t ? t->offset : 0};
  uint64_t n = 1; /* too large a result is refused after this */
  for (int d = rank; d-- > 0;) {
    a->dim[d] = dim[d];
    a->stride[d] = t ? t->stride[d] : (int64_t)n;
    n *= (uint64_t)size[dim[d]];
  }
}

static tern_rc infer_scatter(const tern__call *c, tern__request *q, tern__result *r) {
  tern_tensor *x = c->in[0], *index = c->in[1], *updates = c->in[2];
  const tern_dtype dtype = (tern_dtype)updates->dtype;
  const tern_rc rc = tern__check_dtype(c, dtype);
  if (rc) return rc;
  static const uint8_t x_dims[] = {0, 1, 2}, index_dims[] = {3}, updates_dims[] = {0, 3, 2};
  const bool filled = x->flags & TERN__WEAK;
  const int64_t sizes[] = {updates->shape[0], filled ? c->attr[ROWS].i : x->shape[1], updates->shape[2],
                           index->shape[0]};
  q->n_space = 0;
  q->n_sizes = 4;
  for (int i = 0; i < 4; i++) {
    q->size[i] = sizes[i];
    q->role[i] = TERN__ROLE_FIXED;
  }
  q->dtype = (uint8_t)dtype;
  q->n_attrs = 1;
  q->attr[0] = c->attr[MODE];
  q->n_out = 1;
  if (filled)
    tern__operand_param(q, 0, dtype, tern__convert(x->imm, (tern_dtype)x->dtype, dtype));
  else
    tern__fixed_operand(&q->arg[0], TERN_V_IN, x, dtype, 3, x_dims, sizes);
  tern__fixed_operand(&q->arg[1], TERN_V_IN, index, (tern_dtype)index->dtype, 1, index_dims, sizes);
  tern__fixed_operand(&q->arg[2], TERN_V_IN, updates, dtype, 3, updates_dims, sizes);
  tern__fixed_operand(&q->arg[3], TERN_V_OUT, NULL, dtype, 3, x_dims, sizes);
  *r = (tern__result){.dtype = dtype, .rank = 3, .shape = {sizes[0], sizes[1], sizes[2]}};
  return TERN_OK;
}

/* ---- gradients ---- */

static tern_tensor *run(const tern__op *op, tern_tensor *x, tern_tensor *indices, tern_tensor *updates, int mode,
                        int64_t a) {
  if (!x || !indices || !updates) return NULL;
  tern_tensor *const in[] = {x, indices, updates};
  const tern_word attr[N_ATTRS] = {{.i = mode}, {.i = a}};
  return tern__run(op, in, 3, attr, N_ATTRS);
}

static void grad_scatter_add(const tern__grad *g, tern_tensor **din) {
  din[0] = g->dout[0];
  if (g->wanted & 4) din[2] = tern_take(g->dout[0], g->in[1], 1);
}

/* `value` on the device of t, in all of its places; costs one element. */
static tern_tensor *everywhere(const tern_tensor *t, double value) {
  tern_device_mark mark = tern_device_begin(t->device->name);
  tern_tensor *one = tern_full((tern_shape){.rank = 0}, (tern_dtype)t->dtype, value);
  tern_device_end(&mark);
  return tern_expand(one, tern_shape_of(t->rank, t->shape));
}

/* [1, J, 1]: 0 .. J-1 */
static tern_tensor *positions(const tern_tensor *indices) {
  tern_device_mark mark = tern_device_begin(indices->device->name);
  const int64_t n = indices->shape[0];
  tern_tensor *p = tern_arange(0, (double)n, 1, TERN_I64);
  tern_device_end(&mark);
  return tern_reshape(p, (tern_shape){3, {1, n, 1}});
}

/* x keeps its gradient where nothing was set; an update has one if it was the last of its row. */
static void grad_set(const tern__grad *g, tern_tensor **din) {
  tern_tensor *dout = g->dout[0], *indices = g->in[1], *updates = g->in[2];
  if (g->wanted & 1) din[0] = run(g->op, dout, indices, everywhere(updates, 0), TERN_SCATTER_SET, 0);
  if (!(g->wanted & 4)) return;
  tern_tensor *p = positions(indices);
  tern_tensor *last = run(g->op, tern_scalar_int(-1), indices, p, TERN_SCATTER_MAX, dout->shape[1]);
  tern_tensor *won = tern_equal(tern_take(last, indices, 1), p);
  din[2] = tern_where(won, tern_take(dout, indices, 1), tern_scalar(0));
}

/* Those that are equal to the result share its gradient evenly, as in TensorFlow. */
static void grad_extreme(const tern__grad *g, tern_tensor **din) {
  tern_tensor *x = g->in[0], *indices = g->in[1], *updates = g->in[2], *out = g->out[0], *dout = g->dout[0];
  const tern_dtype dtype = (tern_dtype)out->dtype;
  tern_tensor *x_won = tern_cast(tern_equal(x, out), dtype);
  tern_tensor *won = tern_cast(tern_equal(updates, tern_take(out, indices, 1)), dtype);
  tern_tensor *share = tern_div(dout, tern_add(x_won, tern__scatter_zeros(indices, won, out->shape[1])));
  if (g->wanted & 1) din[0] = tern_where(tern_equal(x, out), share, tern_scalar(0));
  if (g->wanted & 4) din[2] = tern_where(tern_cast(won, TERN_BOOL), tern_take(share, indices, 1), tern_scalar(0));
}

static void grad_scatter(const tern__grad *g, tern_tensor **din) {
  if (g->attr[MODE].i == TERN_SCATTER_SET)
    grad_set(g, din);
  else
    grad_extreme(g, din);
}

static tern_tensor *sample_scatter(const tern__sample *s) {
  return tern_scatter(s->x, tern_zeros((tern_shape){1, {2}}, TERN_I64), s->y, 0, TERN_SCATTER_SET);
}

static tern_tensor *sample_scatter_add(const tern__sample *s) {
  return tern_scatter_add(s->x, tern_zeros((tern_shape){1, {2}}, TERN_I64), s->y, 0);
}

static tern_tensor *sample_scatter_nd(const tern__sample *s) {
  return tern_scatter_nd(s->x, tern_zeros((tern_shape){2, {2, 1}}, TERN_I64), s->y, TERN_SCATTER_SET);
}

const tern__op tern__op_scatter = {
    .name = "scatter",
    .family = "scatter",
    .operands = "x, indices, updates, axis",
    .doc = "x with updates combined (add, set, max, min) into its slices along axis at integer indices",
    .prim = TERN_OP_SCATTER,
    .number = TERN__N_scatter,
    .sample = sample_scatter,
    .dtypes = TERN_D_ANY,
    .infer = infer_scatter,
    .lower = tern__lower_prim,
    .grad = grad_scatter,
    .keeps = TERN__KEEP_A | TERN__KEEP_B | TERN__KEEP_C | TERN__KEEP_OUT};
const tern__op tern__op_scatter_add = {.name = "scatter_add",
                                       .family = "scatter",
                                       .operands = "x, indices, updates, axis",
                                       .doc = "x with updates added to its slices along axis at integer indices",
                                       .prim = TERN_OP_SCATTER,
                                       .number = TERN__N_scatter_add,
                                       .sample = sample_scatter_add,
                                       .dtypes = TERN_D_NUM,
                                       .infer = infer_scatter,
                                       .lower = tern__lower_prim,
                                       .grad = grad_scatter_add,
                                       .keeps = TERN__KEEP_B};
/* For the table: it is scatter at indices worked out from tuples. */
const tern__op tern__op_scatter_nd = {.name = "scatter_nd",
                                      .family = "scatter",
                                      .operands = "x, indices, updates",
                                      .doc = "x with updates combined into its slices at tuples of indices",
                                      .number = TERN__N_scatter_nd,
                                      .sample = sample_scatter_nd,
                                      .dtypes = TERN_D_ANY};

tern_tensor *tern__scatter_zeros(tern_tensor *indices, tern_tensor *updates, int64_t a) {
  if (!indices || !updates) return NULL;
  if (updates->numel == 0) {
    tern_device_mark mark = tern_device_begin(updates->device->name);
    tern_tensor *z = tern_zeros((tern_shape){3, {updates->shape[0], a, updates->shape[2]}}, (tern_dtype)updates->dtype);
    tern_device_end(&mark);
    return z;
  }
  return run(&tern__op_scatter_add, tern_scalar_int(0), indices, updates, TERN_SCATTER_ADD, a);
}

/* ---- the public functions ---- */

static bool check_mode(const char *op, tern_scatter_mode mode) {
  if ((int)mode >= TERN_SCATTER_ADD && mode <= TERN_SCATTER_MIN) return true;
  tern__fail(TERN_E_ARG, "%s: %d is not a mode; they are TERN_SCATTER_ADD, _SET, _MAX and _MIN", op, (int)mode);
  return false;
}

/* What a weak scalar stands for, on the device of x. */
static tern_tensor *solid_beside(const tern_tensor *x, tern_tensor *t, tern_dtype dtype) {
  if (!(t->flags & TERN__WEAK)) return t;
  tern_device_mark mark = tern_device_begin(x->device->name);
  t = tern__solid(t, dtype);
  tern_device_end(&mark);
  return t;
}

/* Indices as int32 or int64; NULL with the error. */
static tern_tensor *usable_indices(const char *op, const tern_tensor *x, tern_tensor *indices) {
  indices = solid_beside(x, indices, TERN_I64);
  if (!indices) return NULL;
  const tern_dtype d = (tern_dtype)indices->dtype;
  if (!tern__is_int(d)) {
    tern__fail(TERN_E_ARG, "%s: indices are %s; they must be integers: tern_cast them", op, tern_dtype_name(d));
    return NULL;
  }
  return d == TERN_I32 || d == TERN_I64 ? indices : tern_cast(indices, TERN_I64);
}

/* Updates of the given shape and x's dtype: a number goes everywhere. */
static tern_tensor *usable_updates(const char *op, const tern_tensor *x, tern_tensor *updates, tern_shape shape) {
  const tern_dtype dtype = (tern_dtype)x->dtype;
  char a[200], b[200];
  updates = solid_beside(x, updates, dtype);
  if (!updates) return NULL;
  if (tern__promote(dtype, (tern_dtype)updates->dtype) != dtype) {
    tern__fail(TERN_E_ARG, "%s: updates are %s and do not fit into %s; tern_cast one of them", op,
               tern_dtype_name((tern_dtype)updates->dtype), tern_dtype_name(dtype));
    return NULL;
  }
  if (updates->dtype != dtype) updates = tern_cast(updates, dtype);
  if (updates && updates->rank == 0) updates = tern_expand(updates, shape);
  if (!updates) return NULL;
  if (updates->rank == shape.rank && !memcmp(updates->shape, shape.dim, (size_t)shape.rank * sizeof *shape.dim))
    return updates;
  tern__fail(TERN_E_ARG, "%s: updates have shape %s; with these indices it must be %s, or a single number", op,
             tern__shape_text(a, updates->rank, updates->shape), tern__shape_text(b, shape.rank, shape.dim));
  return NULL;
}

/* x [O, A, I], indices [J], updates [O, J, I] of one dtype. */
static tern_tensor *scatter3(tern_tensor *x, tern_tensor *indices, tern_tensor *updates, tern_scatter_mode mode) {
  const tern__op *op = mode == TERN_SCATTER_ADD ? &tern__op_scatter_add : &tern__op_scatter;
  return run(op, x, indices, updates, (int)mode, 0);
}

static tern_tensor *scatter(const char *op, tern_tensor *x, tern_tensor *indices, tern_tensor *updates, int axis,
                            tern_scatter_mode mode) {
  if (!tern__usable(x, op, 1) || !tern__usable(indices, op, 2) || !tern__usable(updates, op, 3) ||
      !check_mode(op, mode))
    return NULL;
  axis = tern__axis(op, axis, x->rank);
  indices = axis < 0 ? NULL : usable_indices(op, x, indices);
  if (!indices) return NULL;
  if (x->rank - 1 + indices->rank > TERN_MAX_RANK) {
    tern__fail(TERN_E_ARG, "%s: updates would have rank %d; the most there is is %d", op, x->rank - 1 + indices->rank,
               TERN_MAX_RANK);
    return NULL;
  }
  tern_shape shape = {.rank = 0}, three = {.rank = 3, .dim = {1, x->shape[axis], 1}},
             from = {3, {1, indices->numel, 1}};
  for (int d = 0; d < axis; d++) three.dim[0] *= shape.dim[shape.rank++] = x->shape[d];
  for (int d = 0; d < indices->rank; d++) shape.dim[shape.rank++] = indices->shape[d];
  for (int d = axis + 1; d < x->rank; d++) three.dim[2] *= shape.dim[shape.rank++] = x->shape[d];
  updates = usable_updates(op, x, updates, shape);
  if (!updates) return NULL;
  if (x->shape[axis] == 0 && indices->numel) {
    tern__fail(TERN_E_ARG, "%s: axis %d is empty, no index is in range", op, axis);
    return NULL;
  }
  if (updates->numel == 0) return tern_clone(x);
  from.dim[0] = three.dim[0];
  from.dim[2] = three.dim[2];
  tern_tensor *y = scatter3(tern_reshape(x, three), tern_flatten(indices), tern_reshape(updates, from), mode);
  return tern_reshape(y, tern_shape_of(x->rank, x->shape));
}

tern_tensor *tern_scatter(tern_tensor *x, tern_tensor *indices, tern_tensor *updates, int axis,
                          tern_scatter_mode mode) {
  return scatter("scatter", x, indices, updates, axis, mode);
}

tern_tensor *tern_scatter_add(tern_tensor *x, tern_tensor *indices, tern_tensor *updates, int axis) {
  return scatter("scatter_add", x, indices, updates, axis, TERN_SCATTER_ADD);
}

/* ---- scatter_nd ---- */

/* One number for each tuple of n indices into sizes; past all of them where one index is out of range, so that the
   tuple names no other row. */
static tern_tensor *flat_indices(tern_tensor *indices, const int64_t *sizes, int n) {
  int64_t strides[TERN_MAX_RANK], total = 1;
  for (int d = n; d-- > 0; total *= sizes[d]) strides[d] = total;
  tern_device_mark mark = tern_device_begin(indices->device->name);
  tern_tensor *size = tern_constant((tern_shape){1, {n}}, TERN_I64, sizes, (size_t)n);
  tern_tensor *stride = tern_constant((tern_shape){1, {n}}, TERN_I64, strides, (size_t)n);
  tern_device_end(&mark);
  const int last = -1;
  const tern_reduce_opts along = {.axes = &last, .n_axes = 1};
  tern_tensor *at = tern_cast(indices, TERN_I64);
  at = tern_where(tern_less(at, tern_scalar_int(0)), tern_add(at, size), at);
  tern_tensor *outside = tern_logical_or(tern_less(at, tern_scalar_int(0)), tern_greater_equal(at, size));
  tern_tensor *flat = tern_sum(tern_mul(at, stride), &along);
  return tern_where(tern_any(outside, &along), tern_scalar_int(total), flat);
}

tern_tensor *tern_scatter_nd(tern_tensor *x, tern_tensor *indices, tern_tensor *updates, tern_scatter_mode mode) {
  static const char op[] = "scatter_nd";
  if (!tern__usable(x, op, 1) || !tern__usable(indices, op, 2) || !tern__usable(updates, op, 3) ||
      !check_mode(op, mode))
    return NULL;
  indices = usable_indices(op, x, indices);
  if (!indices) return NULL;
  const int tuples = indices->rank - 1;
  const int64_t n = tuples >= 0 ? indices->shape[tuples] : 0;
  char a[200], b[200];
  if (tuples < 0 || n < 1 || n > x->rank || tuples + x->rank - n > TERN_MAX_RANK) {
    tern__fail(TERN_E_ARG,
               "%s: indices have shape %s; their last axis holds tuples of 1 to %d indices into x of shape %s, and "
               "updates may have rank %d at most",
               op, tern__shape_text(a, indices->rank, indices->shape), x->rank, tern__shape_text(b, x->rank, x->shape),
               TERN_MAX_RANK);
    return NULL;
  }
  tern_shape shape = {.rank = 0}, three = {3, {1, 1, 1}}, from = {3, {1, 1, 1}};
  for (int d = 0; d < tuples; d++) from.dim[1] *= shape.dim[shape.rank++] = indices->shape[d];
  for (int d = 0; d < n; d++) three.dim[1] *= x->shape[d];
  for (int d = (int)n; d < x->rank; d++) three.dim[2] *= shape.dim[shape.rank++] = x->shape[d];
  from.dim[2] = three.dim[2];
  updates = usable_updates(op, x, updates, shape);
  if (!updates) return NULL;
  if (three.dim[1] == 0 && from.dim[1]) {
    tern__fail(TERN_E_ARG, "%s: x of shape %s is empty, no index is in range", op,
               tern__shape_text(a, x->rank, x->shape));
    return NULL;
  }
  if (updates->numel == 0) return tern_clone(x);
  tern_tensor *flat = flat_indices(indices, x->shape, (int)n);
  tern_tensor *y =
      flat ? scatter3(tern_reshape(x, three), tern_flatten(flat), tern_reshape(updates, from), mode) : NULL;
  return tern_reshape(y, tern_shape_of(x->rank, x->shape));
}

/* ---- in place ---- */

/* An operand on t's device and in memory that is not t's, which changes while it is read. */
static tern_tensor *apart(const tern_tensor *t, tern_tensor *operand) {
  if (operand) operand = tern_to(operand, t->device->name);
  return operand && operand->storage == t->storage ? tern_clone(operand) : operand;
}

tern_rc tern__scatter_into(tern_tensor *t, tern_tensor *indices, tern_tensor *updates, int mode) {
  static const char name[] = "assign_scatter";
  if (!tern__usable(t, name, 1) || !tern__usable(indices, name, 2) || !tern__usable(updates, name, 3))
    return TERN_E_ARG;
  if (!check_mode(name, (tern_scatter_mode)mode)) return TERN_E_ARG;
  if (tern__axis(name, 0, t->rank) < 0) return TERN_E_ARG;
  indices = usable_indices(name, t, indices);
  indices = apart(t, indices);
  if (!indices) return tern__recorded();
  if (t->rank - 1 + indices->rank > TERN_MAX_RANK)
    return tern__fail(TERN_E_ARG, "%s: updates would have rank %d; the most there is is %d", name,
                      t->rank - 1 + indices->rank, TERN_MAX_RANK);
  tern_shape shape = {.rank = 0}, three = {3, {1, t->shape[0], 1}};
  for (int d = 0; d < indices->rank; d++) shape.dim[shape.rank++] = indices->shape[d];
  for (int d = 1; d < t->rank; d++) three.dim[2] *= shape.dim[shape.rank++] = t->shape[d];
  updates = usable_updates(name, t, updates, shape);
  updates = apart(t, updates);
  if (!updates) return tern__recorded();
  if (t->shape[0] == 0 && indices->numel)
    return tern__fail(TERN_E_ARG, "%s: axis 0 is empty, no index is in range", name);
  if (updates->numel == 0) return TERN_OK;
  tern_tensor *base = tern_reshape(t, three), *flat = tern_flatten(indices);
  tern_tensor *from = tern_reshape(updates, (tern_shape){3, {1, indices->numel, three.dim[2]}});
  if (!base || !flat || !from) return tern__recorded();
  const tern__op *op = mode == TERN_SCATTER_ADD ? &tern__op_scatter_add : &tern__op_scatter;
  tern_tensor *const in[] = {base, flat, from};
  const tern_word attr[N_ATTRS] = {{.i = mode}, {.i = 0}};
  return tern__run_into(op, in, 3, attr, N_ATTRS, &base, 1);
}
