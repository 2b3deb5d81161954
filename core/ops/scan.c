/* Running sums, products, largest and smallest. Attributes of a call: axis, flags (1 exclusive, 2 from the end). */
#include "device/device.h"
#include "dispatch/dispatch.h"
#include "ops/table.h"
#include "tensor/dtype.h"
#include <tern/ops.h>

enum { EXCLUSIVE = 1, REVERSE = 2 };

static tern_rc infer_as(const tern__call *c, tern__request *q, tern__result *r, tern_dtype d) {
  const tern_rc rc = tern__space(c, q);
  if (rc) return rc;
  q->dtype = (uint8_t)d;
  q->role[c->attr[0].i] = TERN__ROLE_FIXED;
  q->n_attrs = 1;
  q->attr[0] = c->attr[1];
  tern__operand_of(q, 0, c->in[0], d);
  if (q->arg[0].kind == TERN_V_IN) { /* an axis of size 1 counts as present */
    q->arg[0].dim[c->attr[0].i] = (uint8_t)c->attr[0].i;
    if (q->size[c->attr[0].i] == 1) q->arg[0].stride[c->attr[0].i] = 1;
  }
  q->want[0] = q->arg[0].dtype == d ? 0 : (uint8_t)d;
  tern__result_space(q, r, d);
  tern__operand_out(q, 0, d, 0);
  return TERN_OK;
}

static tern_rc infer_wide(const tern__call *c, tern__request *q, tern__result *r) {
  tern_dtype d = tern__meet(c, 0, 1);
  if (!tern__is_float(d)) d = tern__is_unsigned(d) ? TERN_U64 : TERN_I64; /* as sum */
  return infer_as(c, q, r, d);
}

static tern_rc infer_same(const tern__call *c, tern__request *q, tern__result *r) {
  return infer_as(c, q, r, tern__meet(c, 0, 1));
}

static void lower_scan(tern__builder *b) {
  const tern__request *q = tern__b_request(b);
  tern_word attr[2] = {{.i = 0}, q->attr[0]};
  for (int d = 0; d < q->n_space; d++)
    if (q->role[d] == TERN__ROLE_FIXED) attr[0].i = d;
  const int x = tern__b_in(b, 0);
  tern__b_out(b, 0, tern__b_node(b, q->op->prim, 1, &x, 0, 2, attr));
}

/* ---- gradients ---- */

static tern_tensor *range_of(tern_tensor *t, int axis, int64_t start, int64_t stop, int64_t step) {
  tern_range all[TERN_MAX_RANK];
  for (int d = 0; t && d < axis; d++) all[d] = TERN_ALL;
  all[axis] = TERN_RANGE(start, stop, step);
  return t ? tern_slice(t, all, axis + 1) : NULL;
}

static tern_tensor *turned(tern_tensor *t, int axis, bool turn) {
  return turn ? range_of(t, axis, TERN_OPEN, TERN_OPEN, -1) : t;
}

/* t with `before` and `after` zeros around it along axis. */
static tern_tensor *padded(tern_tensor *t, int axis, int64_t before, int64_t after) {
  tern_padding zeros[TERN_MAX_RANK] = {{0, 0}};
  zeros[axis] = (tern_padding){before, after};
  return t ? tern_pad(t, zeros, t->rank, 0) : NULL;
}

/* s[k] = b[k] + a[k] s[k + 1] along axis, n elements of b and n - 1 of a, by doubling (Hillis and Steele, 1986): after
   the step of distance w, b[k] holds what s[k] takes from the 2 w elements from k on, and a[k] the product of a[k .. k
   + 2 w - 1]. Divides by nothing, so zeros in a are as good as others. NULL in gives NULL out. */
static tern_tensor *recurrence(tern_tensor *b, tern_tensor *a, int axis) {
  const int64_t n = b ? b->shape[axis] : 0;
  for (int64_t w = 1; w < n && a && b; w *= 2) {
    b = tern_add(b, padded(tern_mul(a, range_of(b, axis, w, n, 1)), axis, 0, w));
    if (2 * w < n) a = tern_mul(range_of(a, axis, 0, n - 2 * w, 1), range_of(a, axis, w, n - w, 1));
  }
  return a ? b : NULL;
}

/* 16-bit floats are summed in float32. */
static tern_tensor *widened(tern_tensor *t) {
  return t->dtype == TERN_F16 || t->dtype == TERN_BF16 ? tern_cast(t, TERN_F32) : t;
}

static void grad_cumsum(const tern__grad *g, tern_tensor **din) {
  const uint64_t flags = g->attr[1].u;
  const tern_scan_opts back = {.exclusive = flags & EXCLUSIVE, .reverse = !(flags & REVERSE)};
  din[0] = tern_cumsum(g->dout[0], (int)g->attr[0].i, &back);
}

/* y[i] = x[0] .. x[i], so dx[k] = (x[0] .. x[k-1]) s[k] with s[k] = dy[k] + x[k+1] s[k+1]. Exclusive: the same with dy
   moved up by one. */
static void grad_cumprod(const tern__grad *g, tern_tensor **din) {
  const int axis = (int)g->attr[0].i;
  const bool turn = g->attr[1].u & REVERSE;
  tern_tensor *x = turned(widened(g->in[0]), axis, turn), *dy = turned(widened(g->dout[0]), axis, turn);
  const int64_t n = g->in[0]->shape[axis];
  if (n == 0) return;
  if (g->attr[1].u & EXCLUSIVE) dy = padded(range_of(dy, axis, 1, n, 1), axis, 0, 1);
  tern_tensor *before = x ? tern_cumprod(x, axis, &(tern_scan_opts){.exclusive = 1}) : NULL;
  tern_tensor *s = recurrence(dy, range_of(x, axis, 1, n, 1), axis);
  din[0] = before && s ? turned(tern_mul(before, s), axis, turn) : NULL;
}

/* The gradient of a run of equal results goes to where the run begins: x[k] begins one when it beats y[k-1]. s as above
   with a factor of 1 inside of a run and 0 at its end. */
static void grad_extreme(const tern__grad *g, tern_tensor **din) {
  const int axis = (int)g->attr[0].i;
  const bool turn = g->attr[1].u & REVERSE;
  const int64_t n = g->in[0]->shape[axis];
  if (n < 2) {
    din[0] = g->dout[0];
    return;
  }
  tern_tensor *x = turned(g->in[0], axis, turn), *dy = turned(widened(g->dout[0]), axis, turn);
  tern_tensor *now = range_of(x, axis, 1, n, 1), *before = range_of(turned(g->out[0], axis, turn), axis, 0, n - 1, 1);
  din[0] = NULL;
  if (!now || !before || !dy) return;
  tern_tensor *held = g->op->prim == TERN_OP_CUMMAX ? tern_less_equal(now, before) : tern_greater_equal(now, before);
  held = held ? tern_logical_or(held, tern_not_equal(before, before)) : NULL; /* NaN stays */
  tern_tensor *s = held ? recurrence(dy, tern_cast(held, (tern_dtype)dy->dtype), axis) : NULL;
  tern_tensor *begins = tern_logical_not(padded(held, axis, 1, 0));
  din[0] = begins && s ? turned(tern_where(begins, s, tern_scalar(0)), axis, turn) : NULL;
}

static tern_tensor *sample_along(const tern__sample *s) {
  const tern_word attr[] = {{.i = 1}, {.u = 0}};
  return tern__run(s->op, &s->x, 1, attr, 2);
}

#define SCAN(id, primitive, types, inference, tolerance, rule, kept, text) \
  const tern__op tern__op_##id = {.name = #id,                             \
                                  .family = "scan",                        \
                                  .operands = "x, axis",                   \
                                  .doc = text,                             \
                                  .prim = primitive,                       \
                                  .number = TERN__N_##id,                  \
                                  .sample = sample_along,                  \
                                  .dtypes = TERN_D_##types,                \
                                  .infer = inference,                      \
                                  .lower = lower_scan,                     \
                                  .absolute = tolerance,                   \
                                  .relative = tolerance,                   \
                                  .ulp = (tolerance)*8.4e6,                \
                                  .grad = rule,                            \
                                  .keeps = kept};
SCAN(cumsum, TERN_OP_CUMSUM, NUM, infer_wide, 1e-5, grad_cumsum, 0, "running sum along axis")
SCAN(cumprod, TERN_OP_CUMPROD, NUM, infer_wide, 1e-5, grad_cumprod, TERN__KEEP_A, "running product along axis")
SCAN(cummax, TERN_OP_CUMMAX, ANY, infer_same, 0, grad_extreme, TERN__KEEP_A | TERN__KEEP_OUT,
     "running maximum along axis")
SCAN(cummin, TERN_OP_CUMMIN, ANY, infer_same, 0, grad_extreme, TERN__KEEP_A | TERN__KEEP_OUT,
     "running minimum along axis")

static tern_tensor *scan(const tern__op *op, tern_tensor *x, int axis, const tern_scan_opts *opts) {
  if (!tern__usable(x, op->name, 1)) return NULL;
  const tern_word attr[] = {{.i = tern__axis(op->name, axis, x->rank)},
                            {.u = opts ? (opts->exclusive ? EXCLUSIVE : 0) | (opts->reverse ? REVERSE : 0) : 0}};
  return attr[0].i < 0 ? NULL : tern__run(op, &x, 1, attr, 2);
}

static tern_tensor *extreme(const tern__op *op, tern_tensor *x, int axis, const tern_scan_opts *opts) {
  if (!opts || !opts->exclusive) return scan(op, x, axis, opts);
  tern__fail(TERN_E_ARG, "%s: there is no exclusive form, since nothing is %s no elements; slice the result instead",
             op->name, op->prim == TERN_OP_CUMMAX ? "the largest of" : "the smallest of");
  return NULL;
}

tern_tensor *tern_cumsum(tern_tensor *x, int axis, const tern_scan_opts *opts) {
  return scan(&tern__op_cumsum, x, axis, opts);
}
tern_tensor *tern_cumprod(tern_tensor *x, int axis, const tern_scan_opts *opts) {
  return scan(&tern__op_cumprod, x, axis, opts);
}
tern_tensor *tern_cummax(tern_tensor *x, int axis, const tern_scan_opts *opts) {
  return extreme(&tern__op_cummax, x, axis, opts);
}
tern_tensor *tern_cummin(tern_tensor *x, int axis, const tern_scan_opts *opts) {
  return extreme(&tern__op_cummin, x, axis, opts);
}
