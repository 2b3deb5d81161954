/* Norms of gradients and clipping by them. A sum of squares is one launch a gradient, which adds to the sum so far. */
#include "base/thread.h"
#include "device/device.h"
#include "dispatch/dispatch.h"
#include "nn/optimizer.h"
#include "tensor/dtype.h"
#include <math.h>
#include <tern/ops.h>

/* Operands: x of rank 1 and more, a rank-0 sum or TERN_NONE. Gives sum + sum(x * x): float64 when one of them is,
   else float32. */
static tern_rc infer_square_sum(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_tensor *x = c->in[0];
  const bool with_sum = c->in[1] != TERN_NONE;
  const tern_dtype wide = x->dtype == TERN_F64 || (with_sum && c->in[1]->dtype == TERN_F64) ? TERN_F64 : TERN_F32;
  q->n_space = q->n_sizes = x->rank;
  for (int d = 0; d < x->rank; d++) {
    q->size[d] = x->shape[d];
    q->role[d] = TERN__ROLE_REDUCED;
  }
  q->dtype = (uint8_t)wide;
  q->n_in = with_sum ? 2 : 1;
  for (int i = 0; i < q->n_in; i++) {
    tern__operand_of(q, i, c->in[i], wide);
    if (q->arg[i].dtype != wide) q->want[i] = (uint8_t)wide;
  }
  tern__operand_out(q, 0, wide, UINT32_MAX);
  *r = (tern__result){.dtype = wide, .rank = 0};
  return TERN_OK;
}

static void lower_square_sum(tern__builder *b) {
  const tern_dtype wide = (tern_dtype)tern__b_request(b)->dtype;
  const int x = tern__b_in(b, 0);
  int sum = tern__b_reduce(b, TERN_OP_SUM, tern__b_map2(b, TERN_OP_MUL, x, x), wide);
  if (tern__b_request(b)->n_in > 1) sum = tern__b_map2(b, TERN_OP_ADD, sum, tern__b_in(b, 1));
  tern__b_out(b, 0, sum);
}

static void grad_square_sum(const tern__grad *g, tern_tensor **din) {
  din[0] = tern_mul(tern_mul(g->in[0], tern_scalar(2)), g->dout[0]);
  if (g->n_in > 1) din[1] = g->dout[0];
}

static const tern__op square_sum = {.name = "square_sum",
                                    .family = "optimizer",
                                    .operands = "x, sum?",
                                    .optional = 2,
                                    .number = 905,
                                    .dtypes = TERN_D_FLOAT,
                                    .infer = infer_square_sum,
                                    .lower = lower_square_sum,
                                    .absolute = 1e-6,
                                    .relative = 1e-5,
                                    .ulp = 1e-5 / 1.2e-7,
                                    .grad = grad_square_sum,
                                    .keeps = TERN__KEEP_A};

/* The norm of all together. */
static tern_tensor *norm_of(const char *op, tern_tensor *const *gradients, int n) {
  tern_tensor *sum = TERN_NONE;
  for (int i = 0; i < n && sum; i++) {
    tern_tensor *x = gradients[i];
    if (x == TERN_NONE) continue;
    if (!tern__usable(x, op, i + 1)) return NULL;
    if (!tern__is_float((tern_dtype)x->dtype)) {
      tern__fail(TERN_E_ARG, "%s: gradient %d is of dtype %s; gradients are floats: tern_cast it", op, i + 1,
                 tern_dtype_name((tern_dtype)x->dtype));
      return NULL;
    }
    if (x->numel == 0 && !(x->flags & TERN__WEAK)) continue;
    if (x->flags & TERN__WEAK) x = tern__solid(x, TERN_F32);
    if (x && x->rank == 0) x = tern_reshape(x, (tern_shape){1, {1}});
    if (x && sum != TERN_NONE && sum->device != x->device) sum = tern_to(sum, x->device->name);
    tern_tensor *const in[] = {x, sum};
    sum = x ? tern__run(&square_sum, in, 2, NULL, 0) : NULL;
  }
  return sum == TERN_NONE ? tern_zeros((tern_shape){0, {0}}, TERN_F32) : tern_sqrt(sum);
}

static bool limit_ok(const char *op, double limit) {
  if (limit > 0) return true;
  tern__fail(TERN_E_ARG, "%s: the limit is %g; it must be above 0", op, limit);
  return false;
}

tern_tensor *tern__clip_scale(const char *op, tern_tensor *const *gradients, int n, double limit, tern_tensor **norm) {
  tern_tensor *of_all = norm_of(op, gradients, n);
  if (norm) *norm = of_all;
  return tern_div(tern_scalar(limit), tern_maximum(of_all, tern_scalar(limit)));
}

/* x * scale with x's dtype and on its device. */
static tern_tensor *scaled(tern_tensor *x, tern_tensor *scale) {
  if (!(x->flags & TERN__WEAK) && scale->device != x->device) scale = tern_to(scale, x->device->name);
  tern_tensor *y = tern_mul(x, scale);
  return y && y->dtype != x->dtype && !(x->flags & TERN__WEAK) ? tern_cast(y, (tern_dtype)x->dtype) : y;
}

tern_tensor *tern_global_norm(tern_tensor *const *gradients, int n) {
  if (n < 0 || (n && !gradients)) {
    tern__fail(TERN_E_ARG, "global_norm: %d gradients at %s", n, gradients ? "an array" : "NULL");
    return NULL;
  }
  return norm_of("global_norm", gradients, n);
}

tern_rc tern_clip_by_global_norm(tern_tensor *const *gradients, int n, double limit, tern_tensor **clipped,
                                 tern_tensor **norm) {
  if (norm) *norm = NULL;
  if (n < 0 || (n && (!gradients || !clipped)))
    return tern__fail(TERN_E_ARG, "clip_by_global_norm: %d gradients at NULL, or no room for the clipped ones", n);
  tern_tensor *scale = NULL;
  if (limit_ok("clip_by_global_norm", limit))
    scale = tern__clip_scale("clip_by_global_norm", gradients, n, limit, norm);
  tern_rc rc = scale ? TERN_OK : tern__recorded();
  for (int i = 0; i < n && !rc; i++) {
    clipped[i] = gradients[i] == TERN_NONE ? TERN_NONE : scaled(gradients[i], scale);
    if (!clipped[i]) rc = tern__recorded();
  }
  for (int i = 0; i < n && rc; i++) clipped[i] = NULL;
  return rc;
}

tern_tensor *tern_clip_by_norm(tern_tensor *x, double limit) {
  if (!tern__usable(x, "clip_by_norm", 1) || !limit_ok("clip_by_norm", limit)) return NULL;
  tern_tensor *scale = tern__clip_scale("clip_by_norm", &x, 1, limit, NULL);
  return scale ? scaled(x, scale) : NULL;
}
