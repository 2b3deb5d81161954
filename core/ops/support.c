/* What tools ask: the op table, the options, and how a device computes an op, found out by running it once on a few elements. */
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
  if (op == &tern__op_layer_norm) return tern_layer_norm(x, TERN_NONE, TERN_NONE, NULL);
  if (op == &tern__op_softmax || op == &tern__op_log_softmax) return tern__run(op, &x, 1, &axis, 1);
  if (!strcmp(op->family, "nn")) return tern__run(op, &x, 1, NULL, 0);
  if (op == &tern__op_concat) return tern_concat(two, 2, 0);
  if (op == &tern__op_stack) return tern_stack(two, 2, 0);
  const tern_padding around[] = {{1, 1}, {0, 1}};
  if (op == &tern__op_pad) return tern_pad(x, around, 2, 0);
  if (op == &tern__op_matmul) return tern_matmul(x, tern_transpose(y));
  if (op == &tern__op_take) return tern_take(x, tern_zeros((tern_shape){1, {2}}, TERN_I64), 0);
  if (op == &tern__op_one_hot) return tern_one_hot(tern_zeros((tern_shape){1, {2}}, TERN_I64), 3, d);
  if (op == &tern__op_sort || op == &tern__op_argsort) return tern__run(op, &x, 1, &none, 1);
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
