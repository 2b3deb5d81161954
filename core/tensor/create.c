/* Making tensors from host values. What needs an op (fill, arange, ...) is in core/ops/create.c. */
#include "device/device.h"
#include "tensor/dtype.h"
#include "tensor/tensor.h"

tern_tensor *tern_constant(tern_shape shape, tern_dtype dtype, const void *data, size_t count) {
  tern__thread *t = tern__thread_get();
  if (!t || !tern__shape_ok("constant", shape, dtype)) return NULL;
  const int64_t n = tern__numel(shape.rank, shape.dim);
  char text[200];
  if ((!data && count) || (count != (size_t)n && count != 1)) {
    tern__fail(TERN_E_ARG,
               "constant: %zu values for shape %s, which has %lld elements; give that many, or one to fill it",
               data ? count : 0, tern__shape_text(text, shape.rank, shape.dim), (long long)n);
    return NULL;
  }
  if (count == 1 && n != 1) {
    const tern_word w = tern__load(dtype, data);
    if (!tern__is_float(dtype)) {
      tern_tensor *s = tern_scalar_int(w.i);
      tern_tensor *one = s ? tern__solid(s, dtype) : NULL;
      tern_tensor *wide = one ? tern_expand(one, shape) : NULL;
      return wide ? tern_clone(wide) : NULL;
    }
    return tern_full(shape, dtype, w.f);
  }
  tern__device *d = tern__device_here(t);
  const uint32_t graph = tern__eager_begin(t); /* constants have their value at once */
  tern_tensor *out = d ? tern__new(d, dtype, shape.rank, shape.dim, "constant") : NULL;
  tern__eager_end(t, graph);
  if (!out) return NULL;
  if (tern__upload(out->storage, 0, data, (uint64_t)n * tern__dtype_size[dtype])) {
    tern__unref(out);
    return NULL;
  }
  return tern__push(out);
}

static tern_tensor *weak(tern_dtype dtype, tern_word value) {
  tern__thread *t = tern__thread_get();
  tern_tensor *s = t ? tern__header(t) : NULL;
  if (!s) return NULL;
  s->dtype = (uint8_t)dtype;
  s->rank = 0;
  s->flags = TERN__WEAK;
  s->slot = UINT32_MAX;
  s->device = NULL;
  s->storage = NULL;
  s->offset = 0;
  s->numel = 1;
  s->grad_id = 0;
  s->imm = value;
  return tern__push(s);
}

tern_tensor *tern_scalar(double value) { return weak(TERN_F64, (tern_word){.f = value}); }
tern_tensor *tern_scalar_int(int64_t value) { return weak(TERN_I64, (tern_word){.i = value}); }

tern_tensor *tern__solid(tern_tensor *t, tern_dtype dtype) {
  if (!t || !(t->flags & TERN__WEAK)) return t;
  uint8_t element[8];
  tern__store(dtype, element, tern__convert(t->imm, t->dtype, dtype));
  const tern_shape scalar = {0};
  return tern_constant(scalar, dtype, element, 1);
}

tern_tensor *tern_from_host(tern_shape shape, tern_dtype dtype, void *data, void (*release)(void *, void *),
                            void *context) {
  tern__thread *t = tern__thread_get();
  if (!t || !tern__shape_ok("from_host", shape, dtype)) return NULL;
  tern__device *d = tern__device_here(t);
  if (!d) return NULL;
  const int64_t n = tern__numel(shape.rank, shape.dim);
  const size_t item = tern__dtype_size[dtype];
  if (!data && n) {
    tern__fail(TERN_E_ARG, "from_host: data is NULL");
    return NULL;
  }
  if ((uintptr_t)data % item) {
    tern__fail(TERN_E_ARG, "from_host: data at %p is not aligned to the %zu bytes of %s", data, item,
               tern_dtype_name(dtype));
    return NULL;
  }
  if (!(d->flags & TERN_DEV_IMPORT_HOST) || !(d->flags & TERN_DEV_HOST_MEM) ||
      !n) { /* a copy: the memory is free at once */
    tern_tensor *copy = tern_constant(shape, dtype, data, (size_t)n);
    if (copy && d->queue && tern__device_sync(d)) return NULL;
    if (copy && release) release(data, context);
    return copy;
  }
  const int64_t none[1] = {0};
  const uint32_t graph = tern__eager_begin(t);
  tern_tensor *out = tern__new(d, dtype, 1, none, "from_host");
  tern__eager_end(t, graph);
  if (!out) return NULL;
  tern__storage *s = tern__storage_import(d, data, (uint64_t)n * item, release, context);
  if (!s) {
    tern__unref(out);
    return NULL;
  }
  tern__storage_unref(out->storage);
  out->storage = s;
  out->rank = (uint8_t)shape.rank;
  memcpy(out->shape, shape.dim, (size_t)shape.rank * sizeof *out->shape);
  tern__set_dense(out);
  return tern__push(out);
}

tern_tensor *tern_empty(tern_shape shape, tern_dtype dtype) {
  tern__thread *t = tern__thread_get();
  if (!t || !tern__shape_ok("empty", shape, dtype)) return NULL;
  tern__device *d = tern__device_here(t);
  return d ? tern__push(tern__new(d, dtype, shape.rank, shape.dim, "empty")) : NULL;
}
