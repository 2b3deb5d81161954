/* What tools ask: the op table, the options, and how a device computes an op, found out by running it once on a few
   elements. */
#include "base/options.h"
#include "device/device.h"
#include "dispatch/dispatch.h"
#include "ops/table.h"
#include "tensor/dtype.h"
#include <stdio.h>
#include <tern/ops.h>

tern_rc tern_op_at(int i, tern_op_info *out) {
  const tern__op *op = i >= 0 ? tern__op_at(i + 1) : NULL;
  if (!op) return TERN_E_END;
  *out = (tern_op_info){.name = op->name,
                        .family = op->family,
                        .operands = op->operands,
                        .doc = op->doc,
                        .dtypes = op->dtypes,
                        .absolute = op->absolute,
                        .relative = op->relative,
                        .ulp = op->ulp};
  return TERN_OK;
}

tern_rc tern_option_at(int i, tern_option_info *out) {
  const tern__option_row *row = tern__option_at(i);
  if (!row) return TERN_E_END;
  *out = (tern_option_info){
      .variable = row->variable, .value = row->value, .standard = row->fallback, .meaning = row->meaning};
  return TERN_OK;
}

/* Call `op` with x and y (2 x 3, dtype d); the public function by family, since they differ in how they are called. */
static tern_tensor *call(const tern__op *op, tern_dtype d, tern_tensor *x, tern_tensor *y) {
  const tern_shape shape = {2, {2, 3}};
  tern_tensor *const two[] = {x, y};
  const tern_word none = {.u = 0}, axis = {.i = 1};
  if (!strcmp(op->family, "map_unary")) {
    if (op == &tern__op_cast) return tern_cast(x, d == TERN_F32 ? TERN_I32 : TERN_F32);
    return tern__run(op, &x, 1, NULL, 0);
  }
  if (op == &tern__op_where) return tern_where(tern_ones(shape, TERN_BOOL), x, y);
  if (op == &tern__op_clip) return tern_clip(x, x, y);
  if (!strcmp(op->family, "map_binary")) return tern__run(op, two, 2, NULL, 0);
  if (!strcmp(op->family, "reduce")) {
    const tern_word attr[] = {{.u = 2}, {.u = 0}, {.u = 0}, {.f = 0}};
    return tern__run(op, &x, 1, attr, 4);
  }
  if (!strcmp(op->family, "scan")) {
    const tern_word attr[] = {axis, none};
    return tern__run(op, &x, 1, attr, 2);
  }
  if (!strcmp(op->family, "norm")) {
    const tern_word attr[] = {
        {.u = 2}, {.f = 1e-5}, {.u = op == &tern__op_rms_norm}}; /* axes, epsilon, without the mean */
    tern_tensor *const operands[] = {x, op == &tern__op_norm_grad ? y : TERN_NONE, TERN_NONE};
    return tern__run(op, operands, 3, attr, 3);
  }
  if (!strcmp(op->family, "nn_grad")) return tern__run(op, two, 2, &axis, op->infer == tern__op_softmax_grad.infer);
  if (op == &tern__op_scaled_dot_product_attention) return tern_scaled_dot_product_attention(x, y, y, NULL);
  if (op == &tern__op_attention_weights) {
    tern_tensor *const operands[] = {x, TERN_NONE};
    const tern_word attr[] = {axis, {.f = 1}, none};
    return tern__run(op, operands, 2, attr, 3);
  }
  if (op == &tern__op_dropout) return tern_dropout(x, 0.5, &(tern_dropout_opts){.seed = 1});
  if (op == &tern__op_embedding) return tern_embedding(x, tern_zeros((tern_shape){1, {2}}, TERN_I64));
  if (op == &tern__op_cross_entropy || op == &tern__op_cross_entropy_grad) {
    tern_tensor *const operands[] = {x, y, x};
    const tern_word attr[] = {axis, {.u = 1}, {.f = 1}, {.f = 1}, {.f = 0}, none}; /* dense labels */
    return tern__run(op, operands, op == &tern__op_cross_entropy ? 2 : 3, attr, 6);
  }
  if (op == &tern__op_sigmoid_cross_entropy) return tern__run(op, two, 2, NULL, 0);
  if (op == &tern__op_loss_sparse_categorical_crossentropy)
    return tern_loss_sparse_categorical_crossentropy(tern_zeros((tern_shape){1, {2}}, TERN_I64), x, NULL);
  if (!strcmp(op->family, "losses")) return tern_loss_named(op->name + sizeof "loss_" - 1)(x, y, NULL);
  if (op == &tern__op_softmax || op == &tern__op_log_softmax) return tern__run(op, &x, 1, &axis, 1);
  if (!strcmp(op->family, "nn")) return tern__run(op, &x, 1, NULL, 0);
  if (op == &tern__op_concat) return tern_concat(two, 2, 0);
  if (op == &tern__op_stack) return tern_stack(two, 2, 0);
  const tern_padding around[] = {{1, 1}, {0, 1}};
  if (op == &tern__op_pad) return tern_pad(x, around, 2, 0);
  if (op == &tern__op_matmul) return tern_matmul(x, tern_transpose(y));
  if (op == &tern__op_norm) return tern_norm(x, NULL);
  if (op == &tern__op_einsum) return tern_einsum("ij,kj->ik", two, 2);
  if (op == &tern__op_embed) return tern_embed(x, (tern_shape){2, {3, 3}}, &TERN_RANGE(1, TERN_OPEN, 1), 1);
  if (op == &tern__op_repeat) return tern_repeat(x, 2, 0);
  if (op == &tern__op_tile) return tern_tile(x, shape);
  if (op == &tern__op_flip) return tern_flip(x, NULL, 0);
  if (op == &tern__op_roll) return tern_roll(x, 1, 1);
  if (op == &tern__op_diag) return tern_diag(x, 0);
  if (op == &tern__op_triu) return tern_triu(x, 0);
  if (op == &tern__op_tril) return tern_tril(x, 0);
  if (op == &tern__op_outer) return tern_outer(x, y);
  if (op == &tern__op_take_along_axis) return tern_take_along_axis(x, tern_zeros(shape, TERN_I64), 1);
  if (op == &tern__op_gather_nd) return tern_gather_nd(x, tern_zeros((tern_shape){2, {2, 2}}, TERN_I64));
  if (op == &tern__op_top_k) return tern_top_k(x, 2, NULL, NULL);
  if (op == &tern__op_searchsorted) return tern_searchsorted(tern_flatten(x), y, 0);
  if (op == &tern__op_unique) return tern_unique(x, NULL, NULL);
  if (op == &tern__op_take) return tern_take(x, tern_zeros((tern_shape){1, {2}}, TERN_I64), 0);
  if (op == &tern__op_scatter_add) return tern_scatter_add(x, tern_zeros((tern_shape){1, {2}}, TERN_I64), y, 0);
  if (op == &tern__op_scatter)
    return tern_scatter(x, tern_zeros((tern_shape){1, {2}}, TERN_I64), y, 0, TERN_SCATTER_SET);
  if (op == &tern__op_scatter_nd)
    return tern_scatter_nd(x, tern_zeros((tern_shape){2, {2, 1}}, TERN_I64), y, TERN_SCATTER_SET);
  if (!strcmp(op->family, "pool")) { /* NHWC, a window of 2 x 2 */
    const tern_word attr[] = {{.i = 0}, {.u = 0}, {.i = 2}, {.i = 2}, {.i = 1}, {.i = 1}, {.i = 1}, {.i = 1}};
    tern_tensor *image = tern_reshape(x, (tern_shape){4, {1, 2, 3, 1}});
    return tern__run(op, &image, 1, attr, 8);
  }
  if (op == &tern__op_one_hot) return tern_one_hot(tern_zeros((tern_shape){1, {2}}, TERN_I64), 3, d);
  if (op == &tern__op_sort || op == &tern__op_argsort) return tern__run(op, &x, 1, &none, 1);
  if (op == &tern__op_conv) return tern_conv(tern_expand_dims(x, 0), tern_expand_dims(tern_transpose(y), 0), NULL);
  if (op == &tern__op_conv_dx) return tern_conv_transpose(tern_expand_dims(x, 0), tern_expand_dims(y, 0), NULL);
  if (op == &tern__op_conv_dw) { /* one position, no groups; the sizes of the filters come last */
    static const tern_word attr[] = {{0}, {1}, {1}, {1}, {0}, {1}, {1}, {0}, {1}, {1}};
    tern_tensor *const in[] = {tern_expand_dims(x, 0), tern_expand_dims(y, 0)};
    return tern__run(op, in, 2, attr, 10);
  }
  if (op == &tern__op_to) return tern_to(x, tern_device_get(y));
  if (op == &tern__op_reshape) return tern_reshape(x, (tern_shape){1, {6}});
  if (op == &tern__op_permute) return tern_transpose(x);
  if (op == &tern__op_slice) return tern_slice(x, &TERN_RANGE(1, TERN_OPEN, 1), 1);
  if (op == &tern__op_expand) return tern_expand(x, (tern_shape){3, {2, 2, 3}});
  if (op == &tern__op_full) return tern_full(shape, d, 2);
  if (op == &tern__op_arange) return tern_arange(0, 4, 1, d);
  if (op == &tern__op_eye) return tern_eye(2, 3, 0, d);
  const tern_random_opts random = {.dtype = d, .seed = 1};
  if (op == &tern__op_random_uniform) return tern_random_uniform(shape, &random);
  if (op == &tern__op_random_normal) return tern_random_normal(shape, &random);
  if (op == &tern__op_random_integers) return tern_random_integers(shape, 0, 4, &random);
  if (op == &tern__op_random_bernoulli) return tern_random_bernoulli(shape, 0.5, &random);
  return tern_random_permutation(4, &random);
}

int tern_op_support(const char *name, const char *device, tern_dtype dtype) {
  const tern__op *op = name ? tern__op_named(name) : NULL;
  if (!op || dtype <= TERN_NO_DTYPE || dtype >= TERN_DTYPE_END)
    return tern__fail(TERN_E_ARG, "op_support: no op is named \"%s\", or %d is not a dtype; tern-info --ops lists them",
                      name ? name : "", (int)dtype);
  tern__device *d = tern__device_named(device);
  if (!d) return TERN_E_ARG;
  if (!(op->dtypes >> dtype & 1)) return 0;
  tern__thread *t = tern__thread_get();
  tern_scope_mark mark = tern_scope_begin();
  tern__device *before = t->device;
  t->device = d;
  const tern_shape shape = {2, {2, 3}};
  tern_tensor *x = tern_ones(shape, dtype), *y = tern_ones(shape, dtype);
  tern_tensor *warm = x && y ? call(op, dtype, x, y) : NULL;
  const uint64_t fallbacks = d->stats.fallbacks, splits = d->stats.splits;
  tern_tensor *result = warm ? call(op, dtype, x, y) : NULL;
  t->device = before;
  int how = 1;
  if (!result)
    how = t->error_state != TERN__ERROR_NONE && t->error_code ? t->error_code : TERN_E_INTERNAL;
  else if (d->stats.fallbacks != fallbacks)
    how = 3;
  else if (d->stats.splits != splits)
    how = 2;
  tern_scope_end(&mark);
  return how;
}
