/* What tools ask: the op table, the options, and how a device computes an op, found out by running it once on a few
   elements. */
#include "base/options.h"
#include "device/device.h"
#include "ops/op.h"
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
  const tern__sample sample = {op, dtype, tern_ones(shape, dtype), tern_ones(shape, dtype)};
  tern_tensor *warm = sample.x && sample.y ? op->sample(&sample) : NULL;
  const uint64_t fallbacks = d->stats.fallbacks, splits = d->stats.splits;
  tern_tensor *result = warm ? op->sample(&sample) : NULL;
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
