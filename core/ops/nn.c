/* Activations and normalisation: composites, one region each. 16-bit floats are computed in float32 and rounded once. */
#include "device/device.h"
#include "dispatch/dispatch.h"
#include "ops/table.h"
#include "tensor/dtype.h"
#include <tern/ops.h>

static tern_rc infer_float(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_dtype d = tern__float_of(tern__meet(c, 0, 1));
  const tern_rc rc = tern__space(c, q);
  if (rc) return rc;
  q->dtype = (uint8_t)d;
  tern__operand_of(q, 0, c->in[0], d);
  if (q->arg[0].dtype != d) q->want[0] = (uint8_t)d;
  tern__result_space(q, r, d);
  tern__operand_out(q, 0, d, 0);
  return TERN_OK;
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

static int wide_input(tern__builder *b, int i) {
  const int x = tern__b_in(b, i);
  return tern__b_cast(b, x, tern__b_request(b)->dtype == TERN_F64 ? TERN_F64 : TERN_F32);
}
static int constant(tern__builder *b, int like, double value) {
  return tern__b_const(b, tern__b_dtype(b, like), value);
}

static void lower_relu(tern__builder *b) {
  const int x = tern__b_in(b, 0);
  tern__b_out(b, 0, tern__b_map2(b, TERN_OP_MAXIMUM, x, constant(b, x, 0)));
}

/* 1 + exp(-x) */
static int sigmoid_below(tern__builder *b, int x) {
  return tern__b_map2(b, TERN_OP_ADD, constant(b, x, 1), tern__b_map1(b, TERN_OP_EXP, tern__b_map1(b, TERN_OP_NEG, x)));
}

static void lower_sigmoid(tern__builder *b) {
  const int x = wide_input(b, 0);
  tern__b_out(b, 0, tern__b_map2(b, TERN_OP_DIV, constant(b, x, 1), sigmoid_below(b, x)));
}

static void lower_silu(tern__builder *b) {
  const int x = wide_input(b, 0);
  tern__b_out(b, 0, tern__b_map2(b, TERN_OP_DIV, x, sigmoid_below(b, x)));
}

/* 0.5 x (1 + erf(x / sqrt 2)), or with attribute 0 the tanh form. */
static void lower_gelu(tern__builder *b) {
  const int x = wide_input(b, 0);
  int inner;
  if (tern__b_request(b)->n_attrs) {
    const int cube = tern__b_map2(b, TERN_OP_MUL, tern__b_map2(b, TERN_OP_MUL, x, x), x);
    const int sum = tern__b_map2(b, TERN_OP_ADD, x, tern__b_map2(b, TERN_OP_MUL, cube, constant(b, x, 0.044715)));
    inner = tern__b_map1(b, TERN_OP_TANH, tern__b_map2(b, TERN_OP_MUL, sum, constant(b, x, 0.79788456080286535588)));
  } else {
    inner = tern__b_map1(b, TERN_OP_ERF, tern__b_map2(b, TERN_OP_MUL, x, constant(b, x, 0.70710678118654752440)));
  }
  const int half = tern__b_map2(b, TERN_OP_MUL, x, constant(b, x, 0.5));
  tern__b_out(b, 0, tern__b_map2(b, TERN_OP_MUL, half, tern__b_map2(b, TERN_OP_ADD, inner, constant(b, x, 1))));
}

static tern_rc infer_gelu(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_rc rc = infer_float(c, q, r);
  q->n_attrs = (uint8_t)c->n_attr;
  if (c->n_attr) q->attr[0] = c->attr[0];
  return rc;
}

/* ---- along an axis: attribute 0 of the call ---- */

static tern_rc infer_along(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_rc rc = infer_float(c, q, r);
  if (!rc) q->role[c->attr[0].i] = TERN__ROLE_REDUCED;
  return rc;
}

static int minus_max(tern__builder *b) {
  const int x = wide_input(b, 0);
  return tern__b_map2(b, TERN_OP_SUB, x, tern__b_reduce(b, TERN_OP_AMAX, x, tern__b_dtype(b, x)));
}

static void lower_softmax(tern__builder *b) {
  const int e = tern__b_map1(b, TERN_OP_EXP, minus_max(b));
  tern__b_out(b, 0, tern__b_map2(b, TERN_OP_DIV, e, tern__b_reduce(b, TERN_OP_SUM, e, tern__b_dtype(b, e))));
}

static void lower_log_softmax(tern__builder *b) {
  const int x = minus_max(b),
            sum = tern__b_reduce(b, TERN_OP_SUM, tern__b_map1(b, TERN_OP_EXP, x), tern__b_dtype(b, x));
  tern__b_out(b, 0, tern__b_map2(b, TERN_OP_SUB, x, tern__b_map1(b, TERN_OP_LOG, sum)));
}

/* ---- layer_norm: attributes: first normalised axis, epsilon. Operands: x, epsilon, then scale and offset where given ---- */

static tern_rc infer_layer_norm(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_dtype in = tern__meet(c, 0, 3), d = tern__float_of(in), wide = d == TERN_F64 ? TERN_F64 : TERN_F32;
  const tern_rc rc = tern__space(c, q);
  if (rc) return rc;
  for (int k = (int)c->attr[0].i; k < q->n_space; k++) q->role[k] = TERN__ROLE_REDUCED;
  q->dtype = (uint8_t)d;
  q->n_attrs = 1;
  q->attr[0].u = 0;
  tern__operand_of(q, 0, c->in[0], d);
  if (q->arg[0].dtype != d) q->want[0] = (uint8_t)d;
  tern__operand_param(q, 1, wide, c->attr[1]);
  int n = 2;
  for (int i = 1; i < 3; i++) {
    if (c->in[i] == TERN_NONE) continue;
    tern__operand_of(q, n, c->in[i], d);
    q->want[n] = q->arg[n].dtype == d ? 0 : (uint8_t)d;
    q->attr[0].u |= 1u << i;
    n++;
  }
  q->n_in = (uint8_t)n;
  tern__result_space(q, r, d);
  tern__operand_out(q, 0, d, 0);
  return TERN_OK;
}

static void lower_layer_norm(tern__builder *b) {
  const uint64_t given = tern__b_request(b)->attr[0].u;
  const int x = wide_input(b, 0);
  const tern_dtype d = tern__b_dtype(b, x);
  const int n = tern__b_count(b, x, d);
  const int mean = tern__b_map2(b, TERN_OP_DIV, tern__b_reduce(b, TERN_OP_SUM, x, d), n);
  const int centred = tern__b_map2(b, TERN_OP_SUB, x, mean);
  const int variance = tern__b_map2(
      b, TERN_OP_DIV, tern__b_reduce(b, TERN_OP_SUM, tern__b_map2(b, TERN_OP_MUL, centred, centred), d), n);
  const int deviation = tern__b_map1(b, TERN_OP_SQRT, tern__b_map2(b, TERN_OP_ADD, variance, tern__b_in(b, 1)));
  int y = tern__b_map2(b, TERN_OP_DIV, centred, deviation);
  int next = 2;
  if (given & 2) y = tern__b_map2(b, TERN_OP_MUL, y, wide_input(b, next++));
  if (given & 4) y = tern__b_map2(b, TERN_OP_ADD, y, wide_input(b, next));
  tern__b_out(b, 0, y);
}

#define COMPOSITE(id, args, may_lack, types, inference, lowering, tolerance, text) \
  const tern__op tern__op_##id = {.name = #id,                                     \
                                  .family = "nn",                                  \
                                  .operands = args,                                \
                                  .optional = may_lack,                            \
                                  .doc = text,                                     \
                                  .number = TERN__N_##id,                          \
                                  .dtypes = TERN_D_##types,                        \
                                  .infer = inference,                              \
                                  .lower = lowering,                               \
                                  .absolute = tolerance,                           \
                                  .relative = tolerance,                           \
                                  .ulp = (tolerance) / 1.2e-7};

COMPOSITE(relu, "x", 0, NUM, infer_relu, lower_relu, 0, "max(x, 0)")
COMPOSITE(sigmoid, "x", 0, FLOAT, infer_float, lower_sigmoid, 1e-6, "1 / (1 + exp(-x))")
COMPOSITE(silu, "x", 0, FLOAT, infer_float, lower_silu, 1e-6, "x * sigmoid(x)")
COMPOSITE(gelu, "x", 0, FLOAT, infer_gelu, lower_gelu, 2e-6, "x times the normal distribution function of x")
COMPOSITE(softmax, "x, axis", 0, FLOAT, infer_along, lower_softmax, 2e-6, "exp(x) / sum(exp(x)) along axis")
COMPOSITE(log_softmax, "x, axis", 0, FLOAT, infer_along, lower_log_softmax, 4e-6, "log(softmax(x)) along axis")
COMPOSITE(layer_norm, "x, scale?, offset?", 6, FLOAT, infer_layer_norm, lower_layer_norm, 1e-5,
          "(x - mean) / sqrt(var + epsilon) * scale + offset")

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

tern_tensor *tern_layer_norm(tern_tensor *x, tern_tensor *scale, tern_tensor *offset,
                             const tern_layer_norm_opts *opts) {
  if (!tern__usable(x, "layer_norm", 1)) return NULL;
  const int axis = tern__axis("layer_norm", opts && opts->axis ? opts->axis : -1, x->rank);
  if (axis < 0) return NULL;
  tern_tensor *const in[] = {x, scale, offset};
  for (int i = 1; i < 3; i++) {
    if (in[i] == TERN_NONE) continue;
    if (!tern__usable(in[i], "layer_norm", i + 1)) return NULL;
    if (in[i]->rank != x->rank - axis || memcmp(in[i]->shape, x->shape + axis, in[i]->rank * sizeof *x->shape)) {
      char a[200], b[200];
      tern__fail(TERN_E_ARG, "layer_norm: %s has shape %s; it must have that of the normalised axes, %s",
                 i == 1 ? "scale" : "offset", tern__shape_text(a, in[i]->rank, in[i]->shape),
                 tern__shape_text(b, x->rank - axis, x->shape + axis));
      return NULL;
    }
  }
  const double epsilon = opts && (opts->epsilon != 0 || __builtin_signbit(opts->epsilon)) ? opts->epsilon : 1e-5;
  const tern_word attr[] = {{.i = axis}, {.f = epsilon}};
  return tern__run(&tern__op_layer_norm, in, 3, attr, 2);
}
