/* Activations: composites, one region each. 16-bit floats are computed in float32 and rounded once. Gradients are
   composites too (nn_grad.c). */
#include "dispatch/dispatch.h"
#include "ops/composite.h"
#include "ops/nn_grad.h"
#include <tern/ops.h>

tern_rc tern__infer_floats(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_dtype d = tern__float_of(tern__meet(c, 0, c->n_in));
  const tern_rc rc = tern__space(c, q);
  if (rc) return rc;
  q->dtype = (uint8_t)d;
  for (int i = 0; i < c->n_in; i++) tern__c_operand(q, i, c->in[i], d);
  tern__result_space(q, r, d);
  tern__operand_out(q, 0, d, 0);
  return TERN_OK;
}

tern_rc tern__infer_along(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_rc rc = tern__infer_floats(c, q, r);
  if (!rc) q->role[c->attr[0].i] = TERN__ROLE_REDUCED;
  return rc;
}

static tern_rc infer_relu(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_dtype d = tern__meet(c, 0, 1);
  tern_rc rc = tern__check_dtype(c, d);
  if (!rc) rc = tern__space(c, q);
  if (rc) return rc;
  q->dtype = (uint8_t)d;
  tern__operand_of(q, 0, c->in[0], d);
  tern__result_space(q, r, d);
  tern__operand_out(q, 0, d, 0);
  return TERN_OK;
}

static void lower_relu(tern__builder *b) {
  const int x = tern__b_in(b, 0);
  tern__b_out(b, 0, tern__b_map2(b, TERN_OP_MAXIMUM, x, tern__c_const(b, x, 0)));
}

static void lower_sigmoid(tern__builder *b) {
  const int x = tern__c_in(b, 0);
  tern__b_out(b, 0, tern__c_logistic(b, tern__c_const(b, x, 1), x));
}

static void lower_silu(tern__builder *b) {
  const int x = tern__c_in(b, 0);
  tern__b_out(b, 0, tern__c_logistic(b, x, x));
}

/* 0.5 x (1 + erf(x / sqrt 2)), or with attribute 0 the tanh form. */
static void lower_gelu(tern__builder *b) {
  const int x = tern__c_in(b, 0);
  int inner;
  if (tern__b_request(b)->n_attrs) {
    const int cube = tern__c_mul(b, tern__c_mul(b, x, x), x);
    inner = tern__b_map1(b, TERN_OP_TANH,
                         tern__c_scale(b, tern__c_add(b, x, tern__c_scale(b, cube, 0.044715)), 0.79788456080286535588));
  } else {
    inner = tern__b_map1(b, TERN_OP_ERF, tern__c_scale(b, x, 0.70710678118654752440));
  }
  tern__b_out(b, 0, tern__c_mul(b, tern__c_scale(b, x, 0.5), tern__c_plus(b, inner, 1)));
}

static tern_rc infer_gelu(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_rc rc = tern__infer_floats(c, q, r);
  q->n_attrs = (uint8_t)c->n_attr;
  if (c->n_attr) q->attr[0] = c->attr[0];
  return rc;
}

/* ---- along an axis: attribute 0 of the call ---- */

static int minus_max(tern__builder *b) {
  const int x = tern__c_in(b, 0);
  return tern__c_sub(b, x, tern__c_max(b, x));
}

static void lower_softmax(tern__builder *b) {
  const int e = tern__c_exp(b, minus_max(b));
  tern__b_out(b, 0, tern__c_div(b, e, tern__c_sum(b, e)));
}

static void lower_log_softmax(tern__builder *b) {
  const int x = minus_max(b);
  tern__b_out(b, 0, tern__c_sub(b, x, tern__b_map1(b, TERN_OP_LOG, tern__c_sum(b, tern__c_exp(b, x)))));
}

static tern_tensor *sample_along(const tern__sample *s) {
  const tern_word axis = {.i = 1};
  return tern__run(s->op, &s->x, 1, &axis, 1);
}

#define COMPOSITE(id, args, types, inference, lowering, rule, kept, sampled, tolerance, text) \
  const tern__op tern__op_##id = {.name = #id,                                                \
                                  .family = "nn",                                             \
                                  .operands = args,                                           \
                                  .doc = text,                                                \
                                  .number = TERN__N_##id,                                     \
                                  .sample = sampled,                                          \
                                  .dtypes = TERN_D_##types,                                   \
                                  .infer = inference,                                         \
                                  .lower = lowering,                                          \
                                  .grad = rule,                                               \
                                  .keeps = kept,                                              \
                                  .absolute = tolerance,                                      \
                                  .relative = tolerance,                                      \
                                  .ulp = (tolerance) / 1.2e-7};

COMPOSITE(relu, "x", NUM, infer_relu, lower_relu, tern__grad_relu, TERN__KEEP_OUT, tern__sample_x, 0, "max(x, 0)")
COMPOSITE(sigmoid, "x", FLOAT, tern__infer_floats, lower_sigmoid, tern__grad_sigmoid, TERN__KEEP_OUT, tern__sample_x,
          1e-6, "1 / (1 + exp(-x))")
COMPOSITE(silu, "x", FLOAT, tern__infer_floats, lower_silu, tern__grad_silu, TERN__KEEP_A, tern__sample_x, 1e-6,
          "x * sigmoid(x)")
COMPOSITE(gelu, "x", FLOAT, infer_gelu, lower_gelu, tern__grad_gelu, TERN__KEEP_A, tern__sample_x, 2e-6,
          "x times the normal distribution function of x")
COMPOSITE(softmax, "x, axis", FLOAT, tern__infer_along, lower_softmax, tern__grad_softmax, TERN__KEEP_OUT, sample_along,
          2e-6, "exp(x) / sum(exp(x)) along axis")
COMPOSITE(log_softmax, "x, axis", FLOAT, tern__infer_along, lower_log_softmax, tern__grad_log_softmax, TERN__KEEP_OUT,
          sample_along, 4e-6, "log(softmax(x)) along axis")

tern_tensor *tern_relu(tern_tensor *x) { return tern__run1(&tern__op_relu, x); }
tern_tensor *tern_sigmoid(tern_tensor *x) { return tern__run1(&tern__op_sigmoid, x); }
tern_tensor *tern_silu(tern_tensor *x) { return tern__run1(&tern__op_silu, x); }

tern_tensor *tern_gelu(tern_tensor *x, const tern_gelu_opts *opts) {
  if (!opts || !opts->tanh_form) return tern__run1(&tern__op_gelu, x);
  const tern_word attr = {.u = 1};
  return tern__run(&tern__op_gelu, &x, 1, &attr, 1);
}

static tern_tensor *along(const tern__op *op, tern_tensor *x, int axis) {
  if (!tern__usable(x, op->name, 1)) return NULL;
  if (x->rank == 0) return tern_reshape(along(op, tern_reshape(x, (tern_shape){1, {1}}), 0), (tern_shape){0, {0}});
  const tern_word attr = {.i = tern__axis(op->name, axis, x->rank)};
  return attr.i < 0 ? NULL : tern__run(op, &x, 1, &attr, 1);
}

tern_tensor *tern_softmax(tern_tensor *x, int axis) { return along(&tern__op_softmax, x, axis); }
tern_tensor *tern_log_softmax(tern_tensor *x, int axis) { return along(&tern__op_log_softmax, x, axis); }
