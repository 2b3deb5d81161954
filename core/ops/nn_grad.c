/* Gradients of the activations: each is one composite of what was kept and of the gradient that comes in, with a rule
   of its own written with public ops and these composites, so that every higher order exists. */
#include "ops/nn_grad.h"
#include "dispatch/dispatch.h"
#include "ops/composite.h"
#include <tern/ops.h>

/* ---- regions: operand 0 is what was kept, operand 1 the gradient ---- */

/* dy where the result was above 0; a NaN lets it through. */
static void lower_relu_grad(tern__builder *b) {
  const int y = tern__b_in(b, 0), dy = tern__b_in(b, 1);
  tern__b_out(b, 0,
              tern__b_where(b, tern__b_map2(b, TERN_OP_LE, y, tern__c_const(b, y, 0)), tern__c_const(b, dy, 0), dy));
}

/* dy y (1 - y) */
static void lower_sigmoid_grad(tern__builder *b) {
  const int y = tern__c_in(b, 0);
  tern__b_out(b, 0, tern__c_mul(b, tern__c_in(b, 1), tern__c_mul(b, y, tern__c_sub(b, tern__c_const(b, y, 1), y))));
}

/* dy s (1 + x (1 - s)), s = sigmoid(x) */
static void lower_silu_grad(tern__builder *b) {
  const int x = tern__c_in(b, 0), one = tern__c_const(b, x, 1), s = tern__c_logistic(b, one, x);
  const int slope = tern__c_mul(b, s, tern__c_add(b, tern__c_mul(b, x, tern__c_sub(b, one, s)), one));
  tern__b_out(b, 0, tern__c_mul(b, tern__c_in(b, 1), slope));
}

#define SQRT_2_OVER_PI 0.79788456080286535588
#define CUBIC 0.044715

/* dy (Phi(x) + x phi(x)); tanh form: dy (0.5 (1 + t) + 0.5 x (1 - t^2) k (1 + 3 c x^2)), t = tanh(k (x + c x^3)) */
static void lower_gelu_grad(tern__builder *b) {
  const int x = tern__c_in(b, 0), square = tern__c_mul(b, x, x);
  int inner, density;
  if (tern__b_request(b)->n_attrs) {
    const int cube = tern__c_mul(b, square, x);
    inner = tern__b_map1(b, TERN_OP_TANH,
                         tern__c_scale(b, tern__c_add(b, x, tern__c_scale(b, cube, CUBIC)), SQRT_2_OVER_PI));
    const int q = tern__c_plus(b, tern__c_scale(b, square, 1.5 * CUBIC * SQRT_2_OVER_PI), 0.5 * SQRT_2_OVER_PI);
    density = tern__c_mul(b, tern__c_sub(b, tern__c_const(b, x, 1), tern__c_mul(b, inner, inner)), q);
  } else {
    inner = tern__b_map1(b, TERN_OP_ERF, tern__c_scale(b, x, 0.70710678118654752440));
    density = tern__c_scale(b, tern__c_exp(b, tern__c_scale(b, square, -0.5)), 0.39894228040143267794);
  }
  const int share = tern__c_plus(b, tern__c_scale(b, inner, 0.5), 0.5);
  tern__b_out(b, 0, tern__c_mul(b, tern__c_in(b, 1), tern__c_add(b, share, tern__c_mul(b, x, density))));
}

/* y (dy - sum(dy y)) */
static void lower_softmax_grad(tern__builder *b) {
  const int y = tern__c_in(b, 0), dy = tern__c_in(b, 1);
  tern__b_out(b, 0, tern__c_mul(b, y, tern__c_sub(b, dy, tern__c_sum(b, tern__c_mul(b, dy, y)))));
}

/* dy - exp(y) sum(dy) */
static void lower_log_softmax_grad(tern__builder *b) {
  const int y = tern__c_in(b, 0), dy = tern__c_in(b, 1);
  tern__b_out(b, 0, tern__c_sub(b, dy, tern__c_mul(b, tern__c_exp(b, y), tern__c_sum(b, dy))));
}

static tern_rc infer_gelu_grad(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_rc rc = tern__infer_floats(c, q, r);
  q->n_attrs = (uint8_t)c->n_attr;
  if (c->n_attr) q->attr[0] = c->attr[0];
  return rc;
}

/* ---- first order ---- */

static tern_tensor *run2(const tern__op *op, tern_tensor *kept, tern_tensor *dy, const tern__grad *g) {
  tern_tensor *const in[] = {kept, dy};
  return tern__run(op, in, 2, g->attr, g->n_attr);
}

void tern__grad_relu(const tern__grad *g, tern_tensor **din) {
  din[0] = run2(&tern__op_relu_grad, g->out[0], g->dout[0], g);
}
void tern__grad_sigmoid(const tern__grad *g, tern_tensor **din) {
  din[0] = run2(&tern__op_sigmoid_grad, g->out[0], g->dout[0], g);
}
void tern__grad_silu(const tern__grad *g, tern_tensor **din) {
  din[0] = run2(&tern__op_silu_grad, g->in[0], g->dout[0], g);
}
void tern__grad_gelu(const tern__grad *g, tern_tensor **din) {
  din[0] = run2(&tern__op_gelu_grad, g->in[0], g->dout[0], g);
}
void tern__grad_softmax(const tern__grad *g, tern_tensor **din) {
  din[0] = run2(&tern__op_softmax_grad, g->out[0], g->dout[0], g);
}
void tern__grad_log_softmax(const tern__grad *g, tern_tensor **din) {
  din[0] = run2(&tern__op_log_softmax_grad, g->out[0], g->dout[0], g);
}

tern_tensor *tern__softmax_grad(tern_tensor *y, tern_tensor *dy, int axis) {
  tern_tensor *const in[] = {y, dy};
  const tern_word attr = {.i = axis};
  return tern__run(&tern__op_softmax_grad, in, 2, &attr, 1);
}

/* ---- second order: u comes to the result of such a composite. Each is linear in dy, and its own transpose ---- */

static bool wants(const tern__grad *g, int i) { return g->wanted >> i & 1; }
static tern_tensor *minus(double from, tern_tensor *x) { return tern_sub(tern_scalar(from), x); }
static tern_tensor *times(tern_tensor *x, double by) { return tern_mul(x, tern_scalar(by)); }

static void to_dy(const tern__grad *g, tern_tensor **din) {
  if (wants(g, 1)) din[1] = run2(g->op, g->in[0], g->dout[0], g);
}

static void again_relu(const tern__grad *g, tern_tensor **din) { to_dy(g, din); }

/* u dy (1 - 2 y) */
static void again_sigmoid(const tern__grad *g, tern_tensor **din) {
  to_dy(g, din);
  if (wants(g, 0)) din[0] = tern_mul(tern_mul(g->dout[0], g->in[1]), minus(1, times(g->in[0], 2)));
}

/* u dy s (1 - s) (2 + x (1 - 2 s)) */
static void again_silu(const tern__grad *g, tern_tensor **din) {
  to_dy(g, din);
  if (!wants(g, 0)) return;
  tern_tensor *x = g->in[0], *s = tern_sigmoid(x);
  tern_tensor *bend = tern_add(tern_mul(x, minus(1, times(s, 2))), tern_scalar(2));
  din[0] = tern_mul(tern_mul(g->dout[0], g->in[1]), tern_mul(tern_mul(s, minus(1, s)), bend));
}

/* The second derivative: phi(x) (2 - x^2), or with t and q = k (1 + 3 c x^2): (1 - t^2) (q + x (3 k c x - t q^2)) */
static tern_tensor *gelu_bend(tern_tensor *x, bool tanh_form) {
  tern_tensor *square = tern_square(x);
  if (!tanh_form) return tern_mul(times(tern_exp(times(square, -0.5)), 0.39894228040143267794), minus(2, square));
  tern_tensor *q = tern_add(times(square, 3 * CUBIC * SQRT_2_OVER_PI), tern_scalar(SQRT_2_OVER_PI));
  tern_tensor *t = tern_tanh(tern_mul(x, tern_add(times(square, CUBIC * SQRT_2_OVER_PI), tern_scalar(SQRT_2_OVER_PI))));
  tern_tensor *inner = tern_sub(times(x, 3 * CUBIC * SQRT_2_OVER_PI), tern_mul(t, tern_square(q)));
  return tern_mul(minus(1, tern_square(t)), tern_add(q, tern_mul(x, inner)));
}

static void again_gelu(const tern__grad *g, tern_tensor **din) {
  to_dy(g, din);
  if (wants(g, 0)) din[0] = tern_mul(tern_mul(g->dout[0], g->in[1]), gelu_bend(g->in[0], g->n_attr));
}

static tern_tensor *sum_along(tern_tensor *x, const tern__grad *g) {
  const int axis = (int)g->attr[0].i;
  return tern_sum(x, &(tern_reduce_opts){.axes = &axis, .n_axes = 1, .keepdims = 1});
}

/* u (dy - sum(dy y)) - dy sum(u y) */
static void again_softmax(const tern__grad *g, tern_tensor **din) {
  to_dy(g, din);
  if (!wants(g, 0)) return;
  tern_tensor *y = g->in[0], *dy = g->in[1], *u = g->dout[0];
  tern_tensor *centred = tern_sub(dy, sum_along(tern_mul(dy, y), g));
  din[0] = tern_sub(tern_mul(u, centred), tern_mul(dy, sum_along(tern_mul(u, y), g)));
}

/* To y: -u exp(y) sum(dy); to dy: u - sum(u exp(y)) */
static void again_log_softmax(const tern__grad *g, tern_tensor **din) {
  tern_tensor *share = tern_mul(g->dout[0], tern_exp(g->in[0]));
  if (wants(g, 0)) din[0] = tern_neg(tern_mul(share, sum_along(g->in[1], g)));
  if (wants(g, 1)) din[1] = tern_sub(g->dout[0], sum_along(share, g));
}

static tern_tensor *sample_along(const tern__sample *s) {
  const tern_word axis = {.i = 1};
  tern_tensor *const in[] = {s->x, s->y};
  return tern__run(s->op, in, 2, &axis, 1);
}

#define GRADIENT(id, kept, inference, sampled, tolerance)                             \
  const tern__op tern__op_##id##_grad = {.name = #id "_grad",                         \
                                         .family = "nn_grad",                         \
                                         .operands = kept ", dy",                     \
                                         .doc = "the gradient to x (behind " #id ")", \
                                         .number = TERN__N_##id##_grad,               \
                                         .sample = sampled,                           \
                                         .dtypes = TERN_D_FLOAT,                      \
                                         .infer = inference,                          \
                                         .lower = lower_##id##_grad,                  \
                                         .grad = again_##id,                          \
                                         .keeps = TERN__KEEP_A | TERN__KEEP_B,        \
                                         .absolute = tolerance,                       \
                                         .relative = tolerance,                       \
                                         .ulp = (tolerance) / 1.2e-7};
GRADIENT(relu, "y", tern__infer_floats, tern__sample_xy, 0)
GRADIENT(sigmoid, "y", tern__infer_floats, tern__sample_xy, 1e-6)
GRADIENT(silu, "x", tern__infer_floats, tern__sample_xy, 4e-6)
GRADIENT(gelu, "x", infer_gelu_grad, tern__sample_xy, 4e-6)
GRADIENT(softmax, "y", tern__infer_along, sample_along, 4e-6)
GRADIENT(log_softmax, "y", tern__infer_along, sample_along, 4e-6)
