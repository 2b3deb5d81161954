/* Looking at tensors: shape, dtype, device, values on the host. */
#include "device/device.h"
#include "tensor/dtype.h"
#include "tensor/tensor.h"
#include <math.h>
#include <tern/ops.h>

void tern_at(const char *file, int line) {
  tern__thread *t = tern__tls;
  if (!t) return;
  t->place_file = file;
  t->place_line = line;
}

int tern_rank(const tern_tensor *t) { return tern__usable(t, "rank", 1) ? t->rank : -1; }
/* A size of t as a number, which a graph for variable sizes must know that the program saw. */
static int64_t seen_size(const tern_tensor *t, int64_t size, const char *what) {
  return TERN__LIKELY(t->live == TERN__LIVE) ? size : tern__graph_listener.size(tern__tls, size, what);
}

int64_t tern_size(const tern_tensor *t) { return tern__usable(t, "size", 1) ? seen_size(t, t->numel, "size") : 0; }
tern_dtype tern_dtype_get(const tern_tensor *t) {
  return tern__usable(t, "dtype", 1) ? (tern_dtype)t->dtype : TERN_NO_DTYPE;
}

const char *tern_device_get(const tern_tensor *t) {
  if (!tern__usable(t, "device", 1)) return "";
  return t->device ? t->device->name : "host";
}

int64_t tern_dim(const tern_tensor *t, int axis) {
  if (!tern__usable(t, "dim", 1)) return -1;
  const int d = axis < 0 ? axis + t->rank : axis;
  if (d >= 0 && d < t->rank) return seen_size(t, t->shape[d], "dim");
  tern__fail(TERN_E_ARG, "dim: axis %d does not exist in a tensor of rank %d", axis, t->rank);
  return -1;
}

tern_shape tern_shape_get(const tern_tensor *t) {
  if (!tern__usable(t, "shape", 1)) return (tern_shape){.rank = -1};
  tern_shape shape = tern_shape_of(t->rank, t->shape);
  for (int d = 0; d < t->rank; d++) shape.dim[d] = seen_size(t, shape.dim[d], "shape");
  return shape;
}

static tern_rc to_host(tern_tensor *t, const char *op, void *dst, size_t size) {
  if (!tern__usable(t, op, 1)) return TERN_E_ARG;
  if (!tern__readable(t, op)) return tern__recorded();
  const size_t item = tern__dtype_size[t->dtype], bytes = (size_t)t->numel * item;
  if (size != bytes || (!dst && bytes))
    return tern__fail(TERN_E_ARG, "%s: the tensor has %zu bytes, the destination %zu", op, bytes, dst ? size : 0);
  if (t->flags & TERN__WEAK) {
    tern__store(t->dtype, dst, t->imm);
    return TERN_OK;
  }
  if (t->flags & TERN__CONTIG) return tern__download(dst, t->storage, (uint64_t)t->offset * item, bytes);
  tern_scope_mark mark = tern_scope_begin();
  const uint32_t graph = tern__eager_begin(tern__tls); /* a value is read, whatever is traced meanwhile */
  tern_tensor *dense = tern_contiguous(t);
  const tern_rc rc = dense ? tern__download(dst, dense->storage, (uint64_t)dense->offset * item, bytes) : TERN_E_OOM;
  tern__eager_end(tern__tls, graph);
  tern_scope_end(&mark);
  return rc;
}

tern_rc tern_to_host(tern_tensor *t, void *dst, size_t size) { return to_host(t, "to_host", dst, size); }

/* The one element of t as a word of its dtype. */
static bool one(tern_tensor *t, const char *op, tern_word *w) {
  uint8_t element[8];
  if (!tern__usable(t, op, 1)) return false;
  if (t->numel != 1) {
    char text[200];
    tern__fail(TERN_E_ARG, "%s: the tensor has shape %s, not one element; use tern_to_host", op,
               tern__shape_text(text, t->rank, t->shape));
    return false;
  }
  if (to_host(t, op, element, tern__dtype_size[t->dtype])) return false;
  *w = tern__load(t->dtype, element);
  return true;
}

double tern_item(tern_tensor *t) {
  tern_word w;
  return one(t, "item", &w) ? tern__word_double(w, t->dtype) : NAN;
}

int64_t tern_item_int(tern_tensor *t) {
  tern_word w;
  return one(t, "item_int", &w) ? tern__convert(w, t->dtype, TERN_I64).i : 0;
}

int tern_equal_all(tern_tensor *a, tern_tensor *b) {
  if (!tern__usable(a, "equal_all", 1) || !tern__usable(b, "equal_all", 2)) return -1;
  if (a->rank != b->rank || memcmp(a->shape, b->shape, a->rank * sizeof *a->shape)) return 0;
  if (a->numel == 0) return 1;
  TERN_SCOPE;
  if (!tern__readable(a, "equal_all") || !tern__readable(b, "equal_all")) return -1;
  const uint32_t graph = tern__eager_begin(tern__tls);
  tern_tensor *all = tern_all(tern_equal(a, b), NULL);
  const int equal = all ? tern_item_int(all) != 0 : -1;
  tern__eager_end(tern__tls, graph);
  return equal;
}

int tern_allclose(tern_tensor *a, tern_tensor *b, double relative, double absolute) {
  TERN_SCOPE;
  if (relative == 0) relative = signbit(relative) ? 0 : 1e-5;
  if (absolute == 0) absolute = signbit(absolute) ? 0 : 1e-8;
  if (!tern__usable(a, "allclose", 1) || !tern__usable(b, "allclose", 2)) return -1;
  if (!tern__readable(a, "allclose") || !tern__readable(b, "allclose")) return -1;
  const uint32_t graph = tern__eager_begin(tern__tls);
  tern_tensor *x = tern_cast(tern__solid(a, TERN_F64), TERN_F64), *y = tern_cast(tern__solid(b, TERN_F64), TERN_F64);
  tern_tensor *limit = tern_add(tern_mul(tern_abs(y), tern_scalar(relative)), tern_scalar(absolute));
  tern_tensor *near = tern_logical_or(tern_equal(x, y), tern_less_equal(tern_abs(tern_sub(x, y)), limit));
  /* inf - inf is NaN and inf <= inf * relative: only equal infinities are close */
  near = tern_logical_and(near, tern_logical_or(tern_isfinite(y), tern_equal(x, y)));
  tern_tensor *all = tern_all(near, NULL);
  const int close = all ? tern_item_int(all) != 0 : -1;
  tern__eager_end(tern__tls, graph);
  return close;
}
