/* Variables: tensors whose storage is swapped on assignment, so that whoever holds the old one keeps the old value. */
#include "base/alloc.h"
#include "device/device.h"
#include "dispatch/dispatch.h"
#include <stdlib.h>

tern_tensor *tern_variable(tern_tensor *initial, const tern_variable_opts *opts) {
  if (!tern__usable(initial, "variable", 1)) return NULL;
  tern_scope_mark mark = tern_scope_begin();
  tern_tensor *copy = tern_clone(tern__solid(initial, initial->dtype == TERN_F64 ? TERN_F32 : initial->dtype));
  tern_tensor *v = copy ? tern__view_header(copy) : NULL;
  struct tern__variable *extra = v ? tern__calloc(1, sizeof *extra) : NULL;
  char *name = extra ? tern__strdup(opts && opts->name ? opts->name : "") : NULL;
  if (name) {
    v->rank = copy->rank;
    memcpy(v->shape, copy->shape, sizeof v->shape);
    tern__set_dense(v);
    *extra = (struct tern__variable){.name = name, .frozen = opts ? opts->frozen : 0};
    v->variable = extra;
    v->flags |= TERN__VARIABLE;
  } else {
    free(extra);
    if (copy) tern__fail(TERN_E_OOM, "variable: out of host memory");
    if (v) tern__unref(v);
    v = NULL;
  }
  tern_scope_end(&mark);
  return v;
}

const char *tern_variable_name(const tern_tensor *v) {
  return v && v->live == TERN__LIVE && (v->flags & TERN__VARIABLE) ? v->variable->name : "";
}

tern_rc tern_assign(tern_tensor *v, tern_tensor *value) {
  char a[200], b[200];
  if (!tern__usable(v, "assign", 1) || !tern__usable(value, "assign", 2)) return TERN_E_ARG;
  if (!(v->flags & TERN__VARIABLE))
    return tern__fail(TERN_E_ARG, "assign: argument 1 is not a variable; make one with tern_variable");
  if (!(value->flags & TERN__WEAK) &&
      (value->rank != v->rank || memcmp(value->shape, v->shape, v->rank * sizeof *v->shape)))
    return tern__fail(TERN_E_ARG, "assign: variable %s has shape %s, the value %s; the shape of a variable is fixed",
                      v->variable->name, tern__shape_text(a, v->rank, v->shape),
                      tern__shape_text(b, value->rank, value->shape));
  tern_scope_mark mark = tern_scope_begin();
  tern_rc rc = TERN_E_OOM;
  const tern_shape shape = tern_shape_of(v->rank, v->shape);
  tern_tensor *x = value->flags & TERN__WEAK ? value : tern_to(value, v->device->name);
  tern_device_mark device = {tern__tls->device};
  tern__tls->device = v->device;
  tern_tensor *fresh = x ? tern_empty(shape, (tern_dtype)v->dtype) : NULL;
  if (fresh) rc = tern__write(fresh, x);
  tern_device_end(&device);
  if (!rc) { /* whoever holds the old storage keeps the old value */
    tern__storage *old = v->storage;
    tern__storage_ref(fresh->storage);
    v->storage = fresh->storage;
    v->offset = fresh->offset;
    tern__storage_unref(old);
  }
  tern_scope_end(&mark);
  return rc;
}
