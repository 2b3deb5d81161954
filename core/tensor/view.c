/* Views: another shape, stride and offset over the same storage. Weak scalars become ordinary tensors first. */
#include "tensor/dtype.h"
#include "tensor/tensor.h"

static __attribute__((noinline)) tern_tensor *solid_slow(tern_tensor *t) {
  if (t->flags & TERN__WEAK) return tern__solid(t, t->dtype == TERN_F64 ? TERN_F32 : (tern_dtype)t->dtype);
  return tern__tls->hooks & TERN__HOOK_GRAPH ? tern__graph_listener.read(tern__tls, t) : t;
}

static inline tern_tensor *solid(tern_tensor *t) {
  return TERN__UNLIKELY(t->flags & (TERN__WEAK | TERN__VARIABLE)) ? solid_slow(t) : t;
}

static bool bad_axis(const char *op, int *axis, int rank) {
  if (*axis < 0) *axis += rank;
  if (*axis >= 0 && *axis < rank) return false;
  tern__fail(TERN_E_ARG, "%s: axis %d does not exist in a tensor of rank %d", op, *axis < 0 ? *axis - rank : *axis,
             rank);
  return true;
}

/* A view that a tape may record. */
static inline tern_tensor *seen(tern__view_kind kind, tern_tensor *from, const tern_word *attr, int n_attr,
                                tern_tensor *view) {
  tern__thread *t = tern__tls;
  if (TERN__LIKELY(!view || !(t->hooks & (TERN__HOOK_TAPE | TERN__HOOK_GRAPH)))) return view;
  if (t->hooks & TERN__HOOK_GRAPH && !tern__graph_listener.view(t, kind, from, attr, n_attr, view)) return NULL;
  if (!(t->hooks & TERN__HOOK_TAPE)) return view;
  return tern__tape_listener.view(t, kind, from, attr, n_attr, view) ? view : NULL;
}

bool tern__reshaped_strides(const tern_tensor *t, const tern_shape *shape, int64_t *stride) {
  int old = t->rank - 1;
  int64_t run = 1, step = 0; /* elements of the current old block not yet used, and their step */
  for (int d = shape->rank; d-- > 0;) {
    if (shape->dim[d] == 1) {
      stride[d] = 1;
      continue;
    }
    if (run == 1) { /* take old dims that lie behind each other as one block */
      while (old >= 0 && t->shape[old] == 1) old--;
      if (old < 0) return false;
      run = t->shape[old];
      step = t->stride[old];
      for (old--; old >= 0 && (t->shape[old] == 1 || t->stride[old] == step * run); old--) run *= t->shape[old];
    }
    if (run % shape->dim[d]) return false;
    stride[d] = step;
    step *= shape->dim[d];
    run /= shape->dim[d];
  }
  return true;
}

static bool no_such_shape(const tern_tensor *t, const tern_shape *shape) {
  char a[200], b[200];
  tern__fail(TERN_E_ARG,
             "reshape: %s has %lld elements and cannot become %s; sizes must multiply to that, one may be -1",
             tern__shape_text(a, t->rank, t->shape), (long long)t->numel,
             shape->rank < 0 || shape->rank > TERN_MAX_RANK ? "a shape of more than 8 dimensions"
                                                            : tern__shape_text(b, shape->rank, shape->dim));
  return false;
}

/* Works out a -1; false (with the error) when the sizes do not fit. */
static inline bool complete_shape(const tern_tensor *t, tern_shape *shape) {
  int unknown = -1;
  int64_t known = 1;
  bool bad = shape->rank < 0 || shape->rank > TERN_MAX_RANK;
  for (int d = 0; d < shape->rank && !bad; d++) {
    if (TERN__UNLIKELY(shape->dim[d] == -1 && unknown < 0))
      unknown = d;
    else
      bad = shape->dim[d] < 0 || __builtin_mul_overflow(known, shape->dim[d], &known);
  }
  if (TERN__LIKELY(!bad && unknown < 0)) return known == t->numel || no_such_shape(t, shape);
  if (bad || known == 0 || t->numel % known) return no_such_shape(t, shape);
  shape->dim[unknown] = t->numel / known;
  return true;
}

static tern_tensor *with(tern_tensor *t, int rank, const int64_t *shape, const int64_t *stride, int64_t offset) {
  tern_tensor *v = tern__view_header(t);
  if (TERN__UNLIKELY(!v)) return NULL;
  v->rank = (uint8_t)rank;
  v->offset = offset;
  for (int d = 0; d < rank; d++) {
    v->shape[d] = shape[d];
    v->stride[d] = stride[d];
  }
  tern__set_contig_flag(v);
  return tern__push(v);
}

/* A row-major view of a row-major tensor; nothing is checked. */
static inline tern_tensor *dense_view(tern_tensor *t, const tern_shape *shape) {
  tern__thread *thread = tern__tls;
  tern_tensor *v = TERN__LIKELY(thread != NULL) ? tern__header(thread) : NULL;
  if (TERN__UNLIKELY(!v)) return NULL;
  v->live = t->live;
  v->dtype = t->dtype;
  v->rank = (uint8_t)shape->rank;
  v->flags = TERN__CONTIG;
  v->device = t->device;
  v->storage = t->storage;
  tern__storage_ref(t->storage);
  v->offset = t->offset;
  v->numel = t->numel;
  v->grad_id = 0;
  int64_t step = 1;
  for (int d = shape->rank; d-- > 0;) {
    v->shape[d] = shape->dim[d];
    v->stride[d] = step;
    step *= shape->dim[d];
  }
  return tern__push_on(thread, v);
}

tern_tensor *tern_reshape(tern_tensor *t, tern_shape shape) {
  if (!tern__usable(t, "reshape", 1) || !(t = solid(t)) || !complete_shape(t, &shape)) return NULL;
  if (TERN__LIKELY(t->flags & TERN__CONTIG)) return seen(TERN__VIEW_RESHAPE, t, NULL, 0, dense_view(t, &shape));
  int64_t stride[TERN_MAX_RANK];
  if (tern__reshaped_strides(t, &shape, stride))
    return seen(TERN__VIEW_RESHAPE, t, NULL, 0, with(t, shape.rank, shape.dim, stride, t->offset));
  tern_tensor *copy = tern_clone(t);
  return copy ? tern_reshape(copy, shape) : NULL;
}

tern_tensor *tern_flatten(tern_tensor *t) { return tern_reshape(t, (tern_shape){1, {-1}}); }

tern_tensor *tern_permute(tern_tensor *t, const int *order, int n) {
  if (!tern__usable(t, "permute", 1) || !(t = solid(t))) return NULL;
  int64_t shape[TERN_MAX_RANK], stride[TERN_MAX_RANK];
  tern_word attr[TERN_MAX_RANK];
  unsigned named = 0;
  if (order && n != t->rank) {
    tern__fail(TERN_E_ARG, "permute: %d axes were given for a tensor of rank %d", n, t->rank);
    return NULL;
  }
  for (int d = 0; d < t->rank; d++) {
    int from = order ? order[d] : t->rank - 1 - d;
    if (bad_axis("permute", &from, t->rank)) return NULL;
    if (named >> from & 1) {
      tern__fail(TERN_E_ARG, "permute: axis %d is named twice", from);
      return NULL;
    }
    named |= 1u << from;
    attr[d].i = from;
    shape[d] = t->shape[from];
    stride[d] = t->stride[from];
  }
  return seen(TERN__VIEW_PERMUTE, t, attr, t->rank, with(t, t->rank, shape, stride, t->offset));
}

tern_tensor *tern_transpose(tern_tensor *t) {
  if (!tern__usable(t, "transpose", 1)) return NULL;
  if (t->rank < 2) {
    tern__fail(TERN_E_ARG,
               "transpose: a tensor of rank %d has no two last axes to swap; use tern_permute or tern_expand_dims",
               t->rank);
    return NULL;
  }
  int order[TERN_MAX_RANK];
  for (int d = 0; d < t->rank; d++) order[d] = d;
  order[t->rank - 1] = t->rank - 2;
  order[t->rank - 2] = t->rank - 1;
  return tern_permute(t, order, t->rank);
}

/* Python's slice.indices(size): first element and count. */
static void slice_bounds(tern_range r, int64_t size, int64_t *first, int64_t *count) {
  const int64_t step = r.step ? r.step : 1;
  const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? size : size - 1;
  int64_t start = r.start == TERN_OPEN ? (step > 0 ? low : high) : r.start < 0 ? r.start + size : r.start;
  int64_t stop = r.stop == TERN_OPEN ? (step > 0 ? high : low) : r.stop < 0 ? r.stop + size : r.stop;
  start = start < low ? low : start > high ? high : start;
  stop = stop < low ? low : stop > high ? high : stop;
  const int64_t distance = step > 0 ? stop - start : start - stop, by = step > 0 ? step : -step;
  *count = distance > 0 ? (distance - 1) / by + 1 : 0;
  *first = *count ? start : 0;
}

tern_tensor *tern_slice(tern_tensor *t, const tern_range *ranges, int n) {
  if (!tern__usable(t, "slice", 1) || !(t = solid(t))) return NULL;
  if (n < 0 || n > t->rank || (n && !ranges)) {
    tern__fail(TERN_E_ARG, "slice: %d ranges were given for a tensor of rank %d", n, t->rank);
    return NULL;
  }
  int64_t shape[TERN_MAX_RANK], stride[TERN_MAX_RANK], offset = t->offset;
  tern_word attr[1 + 2 * TERN_MAX_RANK] = {{.i = -1}};
  for (int d = 0; d < t->rank; d++) {
    int64_t first = 0;
    attr[1 + 2 * d].i = 0;
    attr[2 + 2 * d].i = 1;
    shape[d] = t->shape[d];
    stride[d] = t->stride[d];
    if (d >= n) continue;
    if (ranges[d].step == INT64_MIN) {
      tern__fail(TERN_E_ARG, "slice: step of axis %d is out of range", d);
      return NULL;
    }
    slice_bounds(ranges[d], t->shape[d], &first, &shape[d]);
    offset += first * t->stride[d];
    if (shape[d] > 1) stride[d] *= ranges[d].step ? ranges[d].step : 1;
    attr[1 + 2 * d].i = first;
    attr[2 + 2 * d].i = ranges[d].step ? ranges[d].step : 1;
  }
  return seen(TERN__VIEW_SLICE, t, attr, 1 + 2 * t->rank, with(t, t->rank, shape, stride, offset));
}

tern_tensor *tern_index(tern_tensor *t, int axis, int64_t i) {
  if (!tern__usable(t, "index", 1) || !(t = solid(t)) || bad_axis("index", &axis, t->rank)) return NULL;
  const int64_t at = i < 0 ? i + t->shape[axis] : i;
  if (at < 0 || at >= t->shape[axis]) {
    tern__fail(TERN_E_ARG, "index: %lld is out of range for axis %d of size %lld", (long long)i, axis,
               (long long)t->shape[axis]);
    return NULL;
  }
  int64_t shape[TERN_MAX_RANK], stride[TERN_MAX_RANK];
  tern_word attr[1 + 2 * TERN_MAX_RANK] = {{.i = axis}};
  for (int d = 0; d < t->rank; d++) {
    attr[1 + 2 * d].i = d == axis ? at : 0;
    attr[2 + 2 * d].i = 1;
    if (d + 1 == t->rank) break;
    shape[d] = t->shape[d + (d >= axis)];
    stride[d] = t->stride[d + (d >= axis)];
  }
  return seen(TERN__VIEW_SLICE, t, attr, 1 + 2 * t->rank,
              with(t, t->rank - 1, shape, stride, t->offset + at * t->stride[axis]));
}

tern_tensor *tern_expand(tern_tensor *t, tern_shape shape) {
  if (!tern__usable(t, "expand", 1) || !(t = solid(t))) return NULL;
  int64_t stride[TERN_MAX_RANK];
  const int extra = shape.rank - t->rank;
  bool bad = extra < 0 || shape.rank > TERN_MAX_RANK;
  for (int d = 0; d < shape.rank && !bad; d++) {
    const int64_t have = d < extra ? 1 : t->shape[d - extra];
    if (shape.dim[d] == -1 && d >= extra) shape.dim[d] = have;
    bad = shape.dim[d] < 0 || (have != 1 && have != shape.dim[d]);
    stride[d] = have == shape.dim[d] && d >= extra ? t->stride[d - extra] : 0;
  }
  bad = bad || tern__numel(shape.rank, shape.dim) < 0;
  if (!bad) return seen(TERN__VIEW_EXPAND, t, NULL, 0, with(t, shape.rank, shape.dim, stride, t->offset));
  char a[200], b[200];
  tern__fail(TERN_E_ARG, "expand: %s does not broadcast to %s; sizes must be equal or 1, aligned at the end",
             tern__shape_text(a, t->rank, t->shape),
             shape.rank < 0 ? "a shape of more than 8 dimensions" : tern__shape_text(b, shape.rank, shape.dim));
  return NULL;
}

tern_tensor *tern_squeeze(tern_tensor *t, int axis) {
  if (!tern__usable(t, "squeeze", 1) || !(t = solid(t))) return NULL;
  const bool all = axis == TERN_ALL_AXES;
  if (!all && bad_axis("squeeze", &axis, t->rank)) return NULL;
  if (all && TERN__UNLIKELY(t->live != TERN__LIVE)) /* which axes go depends on the sizes of this call */
    for (int d = 0; d < t->rank; d++) tern__graph_listener.size(tern__tls, t->shape[d], "squeeze");
  if (!all && t->shape[axis] != 1) {
    tern__fail(TERN_E_ARG, "squeeze: axis %d has size %lld; only an axis of size 1 can be dropped", axis,
               (long long)t->shape[axis]);
    return NULL;
  }
  int64_t shape[TERN_MAX_RANK], stride[TERN_MAX_RANK];
  int rank = 0;
  for (int d = 0; d < t->rank; d++) {
    if (all ? t->shape[d] == 1 : d == axis) continue;
    shape[rank] = t->shape[d];
    stride[rank++] = t->stride[d];
  }
  return seen(TERN__VIEW_RESHAPE, t, NULL, 0, with(t, rank, shape, stride, t->offset));
}

tern_tensor *tern_expand_dims(tern_tensor *t, int axis) {
  if (!tern__usable(t, "expand_dims", 1) || !(t = solid(t))) return NULL;
  if (t->rank == TERN_MAX_RANK) {
    tern__fail(TERN_E_ARG, "expand_dims: the tensor has rank %d already, the most there is", TERN_MAX_RANK);
    return NULL;
  }
  if (bad_axis("expand_dims", &axis, t->rank + 1)) return NULL;
  int64_t shape[TERN_MAX_RANK], stride[TERN_MAX_RANK];
  for (int d = 0; d <= t->rank; d++) {
    shape[d] = d == axis ? 1 : t->shape[d - (d > axis)];
    stride[d] = d == axis ? 1 : t->stride[d - (d > axis)];
  }
  return seen(TERN__VIEW_RESHAPE, t, NULL, 0, with(t, t->rank + 1, shape, stride, t->offset));
}
