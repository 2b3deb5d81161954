/* Reductions. Attributes of a call: axes (bit mask), keepdims, dtype (0 = the op's own), correction. */
#include "device/device.h"
#include "dispatch/dispatch.h"
#include "ops/table.h"
#include "tensor/dtype.h"
#include <math.h>
#include <tern/ops.h>

enum { AXES, KEEPDIMS, DTYPE, CORRECTION, N_ATTRS };

/* The space with its reduced dims, operand 0, and the result's shape; the caller adds output 0. */
static tern_rc space_of(const tern__call *c, tern__request *q, tern__result *r, tern_dtype want, tern_dtype out) {
  const tern_rc rc = tern__space(c, q);
  if (rc) return rc;
  const uint64_t axes = c->attr[AXES].u;
  r->dtype = out;
  r->rank = 0;
  for (int d = 0; d < q->n_space; d++) {
    const bool reduced = axes >> d & 1;
    q->role[d] = reduced ? TERN__ROLE_REDUCED : TERN__ROLE_MAP;
    if (!reduced || c->attr[KEEPDIMS].u) r->shape[r->rank++] = reduced ? 1 : q->size[d];
  }
  q->dtype = (uint8_t)want;
  tern__operand_of(q, 0, c->in[0], want);
  q->want[0] = q->arg[0].dtype == want ? 0 : (uint8_t)want;
  tern__operand_out(q, 0, out, (uint32_t)axes);
  return TERN_OK;
}

static tern_dtype sum_dtype(tern_dtype d) {
  if (tern__is_float(d)) return d;
  return tern__is_unsigned(d) ? TERN_U64 : TERN_I64;
}

static tern_rc infer_sum(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_dtype d = c->attr[DTYPE].u ? (tern_dtype)c->attr[DTYPE].u : sum_dtype(tern__meet(c, 0, 1));
  const tern_rc rc = tern__check_dtype(c, d);
  return rc ? rc : space_of(c, q, r, d, d);
}

static tern_rc infer_same(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_dtype d = tern__meet(c, 0, 1);
  return space_of(c, q, r, d, d);
}

static tern_rc infer_bool(const tern__call *c, tern__request *q, tern__result *r) {
  return space_of(c, q, r, TERN_BOOL, TERN_BOOL);
}

static tern_rc infer_arg(const tern__call *c, tern__request *q, tern__result *r) {
  return space_of(c, q, r, tern__meet(c, 0, 1), TERN_I64);
}

/* Float statistics: integers in float64. */
static tern_rc infer_mean(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_dtype in = tern__meet(c, 0, 1), d = tern__is_float(in) ? in : TERN_F64;
  return space_of(c, q, r, d, d);
}

/* As infer_mean, with n - correction as a PARAM behind x. */
static tern_rc infer_var(const tern__call *c, tern__request *q, tern__result *r) {
  tern_rc rc = infer_mean(c, q, r);
  if (rc) return rc;
  const tern_dtype wide = r->dtype == TERN_F64 ? TERN_F64 : TERN_F32;
  double n = 1;
  for (int d = 0; d < q->n_space; d++)
    if (q->role[d] == TERN__ROLE_REDUCED) n *= (double)q->size[d];
  n -= c->attr[CORRECTION].f;
  q->arg[2] = q->arg[1];
  q->n_in = 2;
  tern__operand_param(q, 1, wide, tern__convert((tern_word){.f = n > 0 ? n : 0}, TERN_F64, wide));
  return TERN_OK;
}

static tern_rc infer_logsumexp(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_dtype d = tern__float_of(tern__meet(c, 0, 1));
  return space_of(c, q, r, d, d);
}

/* Composites compute 16-bit floats in float32 throughout. */
static int wide_input(tern__builder *b) {
  const tern_dtype d = tern__b_dtype(b, tern__b_in(b, 0));
  return tern__b_cast(b, tern__b_in(b, 0), d == TERN_F64 ? TERN_F64 : TERN_F32);
}

static int mean_of(tern__builder *b, int x) {
  const tern_dtype d = tern__b_dtype(b, x);
  return tern__b_map2(b, TERN_OP_DIV, tern__b_reduce(b, TERN_OP_SUM, x, d), tern__b_count(b, x, d));
}

static void lower_mean(tern__builder *b) { tern__b_out(b, 0, mean_of(b, wide_input(b))); }

static int variance(tern__builder *b) {
  const int x = wide_input(b), centred = tern__b_map2(b, TERN_OP_SUB, x, mean_of(b, x));
  const int squares = tern__b_map2(b, TERN_OP_MUL, centred, centred);
  return tern__b_map2(b, TERN_OP_DIV, tern__b_reduce(b, TERN_OP_SUM, squares, tern__b_dtype(b, x)), tern__b_in(b, 1));
}

static void lower_var(tern__builder *b) { tern__b_out(b, 0, variance(b)); }
static void lower_std(tern__builder *b) { tern__b_out(b, 0, tern__b_map1(b, TERN_OP_SQRT, variance(b))); }

static void lower_logsumexp(tern__builder *b) {
  const int x = wide_input(b);
  const tern_dtype d = tern__b_dtype(b, x);
  const int top = tern__b_reduce(b, TERN_OP_AMAX, x, d);
  const int shift = tern__b_where(b, tern__b_map1(b, TERN_OP_ISFINITE, top), top, tern__b_const(b, d, 0));
  const int sum =
      tern__b_reduce(b, TERN_OP_SUM, tern__b_map1(b, TERN_OP_EXP, tern__b_map2(b, TERN_OP_SUB, x, shift)), d);
  tern__b_out(b, 0, tern__b_map2(b, TERN_OP_ADD, tern__b_map1(b, TERN_OP_LOG, sum), shift));
}

/* ---- gradients ---- */

/* t, whose reduced axes may be gone, with them as size 1. */
static tern_tensor *kept(const tern__grad *s, tern_tensor *t) {
  const tern_tensor *x = s->in[0];
  tern_shape shape = {.rank = x->rank};
  for (int d = 0; d < x->rank; d++) shape.dim[d] = s->attr[AXES].u >> d & 1 ? 1 : x->shape[d];
  return s->attr[KEEPDIMS].u ? t : tern_reshape(t, shape);
}

static double count_of(const tern__grad *s) {
  double n = 1;
  for (int d = 0; d < s->in[0]->rank; d++)
    if (s->attr[AXES].u >> d & 1) n *= (double)s->in[0]->shape[d];
  return n;
}

static void grad_sum(const tern__grad *s, tern_tensor **din) { din[0] = kept(s, s->dout[0]); } /* the tape expands */

static void grad_mean(const tern__grad *s, tern_tensor **din) {
  din[0] = kept(s, tern_mul(s->dout[0], tern_scalar(1 / count_of(s))));
}

/* Shared evenly among equals, as in TensorFlow. */
static void grad_extreme(const tern__grad *s, tern_tensor **din) {
  tern_tensor *same = tern_equal(s->in[0], kept(s, s->out[0]));
  int axes[TERN_MAX_RANK], n = 0;
  for (int d = 0; d < s->in[0]->rank; d++)
    if (s->attr[AXES].u >> d & 1) axes[n++] = d;
  const tern_reduce_opts o = {.axes = axes, .n_axes = n, .keepdims = 1};
  tern_tensor *number = same ? tern_sum(tern_cast(same, (tern_dtype)s->dout[0]->dtype), &o) : NULL;
  din[0] = tern_where(same, tern_div(kept(s, s->dout[0]), number), tern_scalar(0));
}

/* Of each element the product of all others, right for zeros too: exclusive products from both ends. */
static void grad_prod(const tern__grad *s, tern_tensor **din) {
  tern_tensor *x = s->in[0];
  int order[TERN_MAX_RANK], back[TERN_MAX_RANK], n = 0;
  for (int pass = 0; pass < 2; pass++)
    for (int d = 0; d < x->rank; d++)
      if ((int)(s->attr[AXES].u >> d & 1) == pass) order[n++] = d;
  for (int d = 0; d < n; d++) back[order[d]] = d;
  tern_tensor *moved = tern_permute(x, order, n);
  if (!moved) {
    din[0] = NULL;
    return;
  }
  tern_shape rows = {.rank = 2, .dim = {1, 1}};
  for (int d = 0; d < n; d++) rows.dim[s->attr[AXES].u >> order[d] & 1] *= moved->shape[d];
  tern_tensor *flat = tern_reshape(moved, rows);
  tern_tensor *others = tern_mul(tern_cumprod(flat, 1, &(tern_scan_opts){.exclusive = 1}),
                                 tern_cumprod(flat, 1, &(tern_scan_opts){.exclusive = 1, .reverse = 1}));
  others = tern_permute(tern_reshape(others, tern_shape_of(n, moved->shape)), back, n);
  din[0] = tern_mul(kept(s, s->dout[0]), others);
}

static tern_tensor *centred(const tern__grad *s) {
  int axes[TERN_MAX_RANK], n = 0;
  for (int d = 0; d < s->in[0]->rank; d++)
    if (s->attr[AXES].u >> d & 1) axes[n++] = d;
  return tern_sub(s->in[0], tern_mean(s->in[0], &(tern_reduce_opts){.axes = axes, .n_axes = n, .keepdims = 1}));
}

static void grad_var(const tern__grad *s, tern_tensor **din) {
  tern_tensor *scale = tern_mul(s->dout[0], tern_scalar(2 / (count_of(s) - s->attr[CORRECTION].f)));
  din[0] = tern_mul(kept(s, scale), centred(s));
}

static void grad_std(const tern__grad *s, tern_tensor **din) {
  tern_tensor *scale =
      tern_div(tern_mul(s->dout[0], tern_scalar(1 / (count_of(s) - s->attr[CORRECTION].f))), s->out[0]);
  din[0] = tern_mul(kept(s, scale), centred(s));
}

static void grad_logsumexp(const tern__grad *s, tern_tensor **din) {
  din[0] = tern_mul(kept(s, s->dout[0]), tern_exp(tern_sub(s->in[0], kept(s, s->out[0]))));
}

static tern_tensor *reduce(const tern__op *op, tern_tensor *x, const tern_reduce_opts *opts) {
  if (!tern__usable(x, op->name, 1)) return NULL;
  const int n = opts ? opts->n_axes : 0;
  if (n < 0 || (n && !opts->axes)) {
    tern__fail(TERN_E_ARG, "%s: n_axes is %d, axes is %s", op->name, n, opts->axes ? "set" : "NULL");
    return NULL;
  }
  if (opts && (opts->dtype < TERN_NO_DTYPE || opts->dtype >= TERN_DTYPE_END)) {
    tern__fail(TERN_E_ARG, "%s: %d is not a dtype", op->name, (int)opts->dtype);
    return NULL;
  }
  uint64_t mask = n ? 0 : (UINT64_C(1) << x->rank) - 1;
  for (int i = 0; i < n; i++) {
    const int axis = tern__axis(op->name, opts->axes[i], x->rank);
    if (axis < 0) return NULL;
    if (mask >> axis & 1) {
      tern__fail(TERN_E_ARG, "%s: axis %d is named twice", op->name, axis);
      return NULL;
    }
    mask |= UINT64_C(1) << axis;
  }
  bool keep = opts && opts->keepdims;
  if (x->rank == 0) { /* one axis of one element */
    x = tern_reshape(x, (tern_shape){1, {1}});
    if (!x) return NULL;
    mask = 1;
    keep = false;
  }
  const tern_dtype dtype = opts ? opts->dtype : TERN_NO_DTYPE;
  const tern_word attr[N_ATTRS] = {
      {.u = mask}, {.u = keep}, {.u = (uint64_t)dtype}, {.f = opts ? opts->correction : 0}};
  return tern__run(op, &x, 1, attr, N_ATTRS);
}

/* Over axis 1. */
static tern_tensor *sample_along(const tern__sample *s) {
  const tern_word attr[] = {{.u = 2}, {.u = 0}, {.u = 0}, {.f = 0}};
  return tern__run(s->op, &s->x, 1, attr, 4);
}

#define REDUCTION(id, primitive, types, inference, lowering, tolerance, empty, rule, reads, text) \
  const tern__op tern__op_##id = {.name = #id,                                                    \
                                  .family = "reduce",                                             \
                                  .operands = "x, axes",                                          \
                                  .doc = text,                                                    \
                                  .prim = primitive,                                              \
                                  .number = TERN__N_##id,                                         \
                                  .sample = sample_along,                                         \
                                  .dtypes = TERN_D_##types,                                       \
                                  .infer = inference,                                             \
                                  .lower = lowering,                                              \
                                  .absolute = tolerance,                                          \
                                  .relative = tolerance,                                          \
                                  .ulp = (tolerance) / 1.2e-7,                                    \
                                  .of_nothing = empty,                                            \
                                  .grad = rule,                                                   \
                                  .keeps = reads};                                                \
  tern_tensor *tern_##id(tern_tensor *x, const tern_reduce_opts *opts) { return reduce(&tern__op_##id, x, opts); }

REDUCTION(sum, TERN_OP_SUM, NUM, infer_sum, tern__lower_prim, 1e-5, 0, grad_sum, 0,
          "sum; of small integers and bool in int64 / uint64")
REDUCTION(prod, TERN_OP_PROD, NUM, infer_sum, tern__lower_prim, 1e-5, 1, grad_prod, TERN__KEEP_A,
          "product; of small integers and bool in int64 / uint64")
REDUCTION(mean, 0, FLOAT, infer_mean, lower_mean, 1e-5, NAN, grad_mean, 0, "mean; integers give float64")
REDUCTION(max, TERN_OP_AMAX, ANY, infer_same, tern__lower_prim, 0, NAN, grad_extreme, TERN__KEEP_A | TERN__KEEP_OUT,
          "largest; NaN if any is")
REDUCTION(min, TERN_OP_AMIN, ANY, infer_same, tern__lower_prim, 0, NAN, grad_extreme, TERN__KEEP_A | TERN__KEEP_OUT,
          "smallest; NaN if any is")
REDUCTION(any, TERN_OP_ANY, ANY, infer_bool, tern__lower_prim, 0, 0, NULL, 0, "true where any is nonzero")
REDUCTION(all, TERN_OP_ALL, ANY, infer_bool, tern__lower_prim, 0, 1, NULL, 0, "true where all are nonzero")
REDUCTION(var, 0, FLOAT, infer_var, lower_var, 1e-5, NAN, grad_var, TERN__KEEP_A, "variance, divided by n - correction")
REDUCTION(std, 0, FLOAT, infer_var, lower_std, 1e-5, NAN, grad_std, TERN__KEEP_A | TERN__KEEP_OUT,
          "square root of the variance")
REDUCTION(logsumexp, 0, FLOAT, infer_logsumexp, lower_logsumexp, 1e-5, -INFINITY, grad_logsumexp,
          TERN__KEEP_A | TERN__KEEP_OUT, "log(sum(exp(x))) without overflow")
REDUCTION(argmax, TERN_OP_ARGMAX, ANY, infer_arg, tern__lower_prim, 0, NAN, NULL, 0,
          "index of the largest, int64; the first of equals")
REDUCTION(argmin, TERN_OP_ARGMIN, ANY, infer_arg, tern__lower_prim, 0, NAN, NULL, 0,
          "index of the smallest, int64; the first of equals")
