/* Variables: tensors whose value is replaced. While nobody else holds a variable's storage it is written in place (the
   device's one queue orders that after what reads it); else fresh storage is swapped in, so that views and tapes keep
   the old value. No hook sees any of it. */
#include "base/alloc.h"
#include "device/device.h"
#include "dispatch/dispatch.h"
#include "ops/scatter.h"
#include "ops/table.h"
#include "ops/variable.h"
#include "tensor/dtype.h"
#include <stdlib.h>

static bool is_variable(const tern_tensor *t) { return t && t->live == TERN__LIVE && (t->flags & TERN__VARIABLE); }

/* The operands of an assignment. Records what is wrong. */
static bool assignable(const tern_tensor *v, const tern_tensor *value, const char *op) {
  if (!tern__usable(v, op, 1) || !tern__usable(value, op, 2)) return false;
  if (v->flags & TERN__VARIABLE) return true;
  tern__fail(TERN_E_ARG, "%s: argument 1 is not a variable; make one with tern_variable", op);
  return false;
}

static tern_tensor *fresh_like(const tern_tensor *t, tern__device *device, tern_dtype dtype, const char *op) {
  return tern__push(tern__new(device, dtype, t->rank, t->shape, op));
}

/* x on that device, by copying its bytes, borrowed from the scope. Weak scalars go anywhere as they are. */
static tern_tensor *moved(tern_tensor *x, tern__device *device, const char *op) {
  if (x->flags & TERN__WEAK || x->device == device) return x;
  if (tern__tracing_ops()) return tern__graph_listener.move(tern__tls, x, device);
  const tern_dtype dtype = (tern_dtype)x->dtype;
  tern_tensor *dense = x->flags & TERN__CONTIG ? x : fresh_like(x, x->device, dtype, op);
  if (!dense || (dense != x && tern__write(dense, x))) return NULL;
  tern_tensor *out = fresh_like(x, device, dtype, op);
  const uint64_t item = tern__dtype_size[dtype];
  if (!out || tern__copy_bytes(out->storage, (uint64_t)out->offset * item, dense->storage,
                               (uint64_t)dense->offset * item, (uint64_t)x->numel * item))
    return NULL;
  return out;
}

/* Where a variable's next value may be written: its own memory when it alone holds that, else a fresh tensor of the
   scope. NULL with the error set. */
static tern_tensor *target_of(tern_tensor *v, const char *op) {
  if (tern__tracing_ops()) return v; /* a graph writes no memory */
  if (atomic_load_explicit(&v->storage->refs, memory_order_acquire) == 1) return v;
  return fresh_like(v, v->device, (tern_dtype)v->dtype, op);
}

void tern__variable_take(tern_tensor *v, tern_tensor *value) {
  if (value == v) return;
  if (tern__tracing_ops()) {
    tern__graph_listener.assign(tern__tls, v, value);
    return;
  }
  tern__storage *old = v->storage;
  tern__storage_ref(value->storage);
  v->storage = value->storage;
  v->offset = value->offset;
  tern__storage_unref(old);
}

/* ---- making and asking ---- */

static tern_tensor *make_variable(tern_tensor *initial, const tern_variable_opts *opts) {
  tern__device *device = opts && opts->device ? tern__device_named(opts->device)
                         : initial->device    ? initial->device
                                              : tern__device_default();
  if (!device) return NULL;
  const bool weak_float = initial->flags & TERN__WEAK && initial->dtype == TERN_F64;
  const tern_dtype dtype = weak_float ? TERN_F32 : (tern_dtype)initial->dtype;
  struct tern__variable *extra = tern__calloc(1, sizeof *extra);
  char *name = extra ? tern__strdup(opts && opts->name ? opts->name : "") : NULL;
  if (!name) {
    free(extra);
    tern__fail(TERN_E_OOM, "variable: out of host memory");
    return NULL;
  }
  tern_scope_mark mark = tern_scope_begin();
  tern_tensor *x = moved(initial, device, "variable");
  tern_tensor *v = x ? tern__new(device, dtype, x->rank, x->shape, "variable") : NULL;
  if (v && tern__write(v, x)) {
    tern__unref(v);
    v = NULL;
  }
  tern_scope_end(&mark);
  if (!v) {
    free(name);
    free(extra);
    return NULL;
  }
  *extra = (struct tern__variable){.name = name, .frozen = opts ? opts->frozen != 0 : 0};
  v->variable = extra;
  v->flags |= TERN__VARIABLE;
  return v;
}

tern_tensor *tern_variable(tern_tensor *initial, const tern_variable_opts *opts) {
  if (!tern__usable(initial, "variable", 1) || !tern__readable(initial, "variable")) return NULL;
  const uint32_t graph = tern__eager_begin(tern__tls);
  tern_tensor *v = make_variable(initial, opts);
  tern__eager_end(tern__tls, graph);
  return v;
}

const char *tern_variable_name(const tern_tensor *v) { return is_variable(v) ? v->variable->name : ""; }

int tern_is_variable(const tern_tensor *t) { return is_variable(t); }

int tern_trainable(const tern_tensor *v) {
  return is_variable(v) && !v->variable->frozen && tern__is_float((tern_dtype)v->dtype);
}

tern_rc tern_set_trainable(tern_tensor *v, int trainable) {
  if (!tern__usable(v, "set_trainable", 1)) return TERN_E_ARG;
  if (!(v->flags & TERN__VARIABLE))
    return tern__fail(TERN_E_ARG, "set_trainable: argument 1 is not a variable; make one with tern_variable");
  if (trainable && !tern__is_float((tern_dtype)v->dtype))
    return tern__fail(TERN_E_ARG,
                      "set_trainable: variable \"%s\" is of dtype %s; only floats have gradients: make it a float",
                      v->variable->name, tern_dtype_name((tern_dtype)v->dtype));
  v->variable->frozen = !trainable;
  return TERN_OK;
}

/* ---- assigning ---- */

tern_rc tern_assign(tern_tensor *v, tern_tensor *value) {
  char a[200], b[200];
  if (!assignable(v, value, "assign")) return TERN_E_ARG;
  if (!(value->flags & TERN__WEAK) &&
      (value->rank != v->rank || memcmp(value->shape, v->shape, v->rank * sizeof *v->shape)))
    return tern__fail(TERN_E_ARG, "assign: variable %s has shape %s, the value %s; the shape of a variable is fixed",
                      v->variable->name, tern__shape_text(a, v->rank, v->shape),
                      tern__shape_text(b, value->rank, value->shape));
  if (value == v) return TERN_OK;
  tern_scope_mark mark = tern_scope_begin();
  tern_tensor *x = moved(value, v->device, "assign");
  tern_tensor *target = x ? target_of(v, "assign") : NULL; /* a view of v shares its storage: never in place */
  const tern_rc rc = target ? tern__write(target, x) : tern__recorded();
  if (!rc) tern__variable_take(v, target);
  tern_scope_end(&mark);
  return rc;
}

static bool broadcasts_to(const tern_tensor *x, const tern_tensor *v) {
  const int extra = v->rank - x->rank;
  if (extra < 0) return false;
  for (int d = 0; d < x->rank; d++)
    if (x->shape[d] != 1 && x->shape[d] != v->shape[d + extra]) return false;
  return true;
}

/* v = op(v, value), computed in the dtype in which the two meet and converted to v's: one launch when that is v's. */
static tern_rc combine(tern_tensor *v, tern_tensor *x, const tern__op *op, const char *name) {
  tern_tensor *const in[] = {v, x};
  const tern__call call = {.op = op, .in = in, .n_in = 2};
  const tern_dtype dtype = tern__meet(&call, 0, 2);
  tern_tensor *target = target_of(v, name);
  tern_tensor *out = !target || dtype == (tern_dtype)v->dtype ? target : fresh_like(v, v->device, dtype, name);
  if (!out) return tern__recorded();
  tern_rc rc = tern__run_into(op, in, 2, NULL, 0, &out, 1);
  if (!rc && out != target) rc = tern__write(target, out);
  if (!rc) tern__variable_take(v, target);
  return rc;
}

static tern_rc assign_with(tern_tensor *v, tern_tensor *value, const tern__op *op, const char *name) {
  char a[200], b[200];
  if (!assignable(v, value, name)) return TERN_E_ARG;
  if (!broadcasts_to(value, v))
    return tern__fail(
        TERN_E_ARG, "%s: a value of shape %s does not broadcast to variable %s of shape %s, which is fixed", name,
        tern__shape_text(b, value->rank, value->shape), v->variable->name, tern__shape_text(a, v->rank, v->shape));
  tern_scope_mark mark = tern_scope_begin();
  tern_tensor *x = moved(value, v->device, name);
  const tern_rc rc = x ? combine(v, x, op, name) : tern__recorded();
  tern_scope_end(&mark);
  return rc;
}

tern_rc tern_assign_add(tern_tensor *v, tern_tensor *value) {
  return assign_with(v, value, &tern__op_add, "assign_add");
}

tern_rc tern_assign_sub(tern_tensor *v, tern_tensor *value) {
  return assign_with(v, value, &tern__op_sub, "assign_sub");
}

/* Another header over x's memory, which no tape knows, borrowed from the scope. */
static tern_tensor *plain(tern_tensor *x) {
  if (!x || x->flags & TERN__WEAK) return x;
  tern_tensor *p = tern__view_header(x);
  if (!p) return NULL;
  p->rank = x->rank;
  memcpy(p->shape, x->shape, sizeof p->shape);
  memcpy(p->stride, x->stride, sizeof p->stride);
  tern__set_contig_flag(p);
  return tern__push(p);
}

static tern_rc scatter_into(tern_tensor *v, tern_tensor *indices, tern_tensor *updates, tern_scatter_mode mode) {
  static const char name[] = "assign_scatter";
  tern_tensor *at = moved(indices, v->device, name), *from = at ? moved(updates, v->device, name) : NULL;
  if (!from) return tern__recorded();
  const bool reads_v = tern__tracing_ops() || at->storage == v->storage || from->storage == v->storage;
  tern_tensor *target = reads_v ? fresh_like(v, v->device, (tern_dtype)v->dtype, name) : target_of(v, name);
  tern_tensor *out = plain(target), *index = plain(at), *update = plain(from);
  if (!target || !out || !index || !update) return tern__recorded();
  tern_rc rc = target == v ? TERN_OK : tern__write(target, v);
  if (!rc) rc = tern__scatter_into(out, index, update, (int)mode);
  if (!rc) tern__variable_take(v, target);
  return rc;
}

tern_rc tern_assign_scatter(tern_tensor *v, tern_tensor *indices, tern_tensor *updates, tern_scatter_mode mode) {
  if (!assignable(v, indices, "assign_scatter") || !tern__usable(updates, "assign_scatter", 3)) return TERN_E_ARG;
  tern_scope_mark mark = tern_scope_begin();
  const tern_rc rc = scatter_into(v, indices, updates, mode);
  tern_scope_end(&mark);
  return rc;
}
