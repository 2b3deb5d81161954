/* Padding: the elements of a batch are copied into the corners of equal blocks that were filled with the padding. And
   batches of elements of similar length, which need little of it. */
#include "base/alloc.h"
#include "data/data.h"
#include "tensor/dtype.h"
#include <stdlib.h>

tern_rc tern__padding_set(const char *op, const tern_padded_opts *opts, tern__padding *out) {
  *out = (tern__padding){0};
  if (!opts) return TERN_OK;
  out->drop_remainder = opts->drop_remainder;
  out->lengths = opts->lengths;
  const int n = opts->shapes || opts->values ? opts->n : 0;
  if ((opts->shapes || opts->values) && (n < 1 || n > TERN_MAX_COMPONENTS))
    return tern__fail(TERN_E_ARG, "%s: shapes or values for %d components; n must be 1 to %d", op, n,
                      TERN_MAX_COMPONENTS);
  for (int c = 0; opts->shapes && c < n; c++) {
    const tern_shape s = opts->shapes[c];
    bool good = s.rank >= 0 && s.rank <= TERN_MAX_RANK;
    for (int d = 0; good && d < s.rank; d++) good = s.dim[d] >= -1;
    if (!good)
      return tern__fail(TERN_E_ARG,
                        "%s: the shape of component %d has a rank or size that cannot be; sizes are 0 or "
                        "more, or -1 for the largest",
                        op, c);
  }
  out->n = n;
  if (opts->shapes) out->shapes = tern__calloc((size_t)n, sizeof *out->shapes);
  if (opts->values) out->values = tern__calloc((size_t)n, sizeof *out->values);
  if ((opts->shapes && !out->shapes) || (opts->values && !out->values))
    return tern__fail(TERN_E_OOM, "%s: out of host memory", op);
  if (out->shapes) memcpy(out->shapes, opts->shapes, (size_t)n * sizeof *out->shapes);
  if (out->values) memcpy(out->values, opts->values, (size_t)n * sizeof *out->values);
  return TERN_OK;
}

void tern__padding_free(tern__padding *p) {
  free(p->shapes);
  free(p->values);
  *p = (tern__padding){0};
}

/* The padded shape of component c, the batch not counted. */
static tern_rc shape_of(const char *op, const tern__padding *padding, tern__packed *items, int64_t count, int c,
                        int64_t *shape) {
  const tern_tensor *first = items[0].element->t[c];
  const tern_shape *wanted = padding->shapes ? &padding->shapes[c] : NULL;
  if (wanted && wanted->rank != first->rank)
    return tern__fail(TERN_E_ARG, "%s: component %d has rank %d, but the shape to pad it to has rank %d", op, c,
                      first->rank, wanted->rank);
  for (int d = 0; d < first->rank; d++) shape[d] = wanted && wanted->dim[d] >= 0 ? wanted->dim[d] : 0;
  for (int64_t k = 0; k < count; k++) {
    const tern_tensor *t = items[k].element->t[c];
    if (t->dtype != first->dtype || t->rank != first->rank)
      return tern__fail(TERN_E_ARG,
                        "%s: component %d of element %lld of the batch is %s of rank %d, but that of the "
                        "first is %s of rank %d",
                        op, c, (long long)k, tern_dtype_name((tern_dtype)t->dtype), t->rank,
                        tern_dtype_name((tern_dtype)first->dtype), first->rank);
    for (int d = 0; d < t->rank; d++) {
      if (t->shape[d] <= shape[d]) continue;
      if (wanted && wanted->dim[d] >= 0)
        return tern__fail(TERN_E_ARG,
                          "%s: axis %d of component %d of element %lld of the batch has size %lld, more "
                          "than the %lld it is to be padded to",
                          op, d, c, (long long)k, (long long)t->shape[d], (long long)shape[d]);
      shape[d] = t->shape[d];
    }
  }
  return TERN_OK;
}

/* count elements of `item` bytes, all the same. */
static void fill(char *dst, const void *element, size_t item, int64_t count) {
  const unsigned char *byte = element;
  bool zero = true;
  for (size_t i = 0; i < item; i++) zero &= byte[i] == 0;
  if (zero || item == 1) {
    memset(dst, byte[0], (size_t)count * item);
    return;
  }
  for (int64_t i = 0; i < count; i++) memcpy(dst + (size_t)i * item, element, item);
}

/* A row-major array of `shape` into the corner of a larger one: the innermost axes that agree go in one copy. */
static void copy_corner(char *dst, const int64_t *dst_shape, const char *src, const int64_t *shape, int rank,
                        size_t item) {
  size_t block = item;
  while (rank > 0 && shape[rank - 1] == dst_shape[rank - 1]) block *= (size_t)shape[--rank];
  if (rank == 0) {
    memcpy(dst, src, block);
    return;
  }
  int64_t index[TERN_MAX_RANK] = {0};
  const size_t run = block * (size_t)shape[rank - 1]; /* contiguous in both */
  for (;;) {
    size_t at = 0;
    for (int d = 0; d < rank; d++) at = at * (size_t)dst_shape[d] + (size_t)index[d];
    memcpy(dst + at * block, src, run);
    src += run;
    int d = rank - 2;
    while (d >= 0 && ++index[d] == shape[d]) index[d--] = 0;
    if (d < 0) return;
  }
}

static tern_rc pad_component(const char *op, const tern__padding *padding, tern__packed *items, int64_t count, int c,
                             tern__element *out) {
  const tern_tensor *first = items[0].element->t[c];
  const int rank = first->rank;
  const tern_dtype dtype = (tern_dtype)first->dtype;
  int64_t shape[TERN_MAX_RANK];
  const tern_rc rc = shape_of(op, padding, items, count, c, shape);
  if (rc) return rc;
  tern_tensor *all = tern__stacked(op, dtype, rank, shape, count);
  if (!all) return tern__recorded();
  out->t[out->n++] = all;
  if (all->numel == 0) return TERN_OK;
  uint8_t element[8] = {0};
  const size_t item = tern__dtype_size[dtype];
  const double value = padding->values ? padding->values[c] : 0;
  tern__store(dtype, element, tern__convert((tern_word){.f = value}, TERN_F64, dtype));
  fill(tern__host_bytes(all), element, item, all->numel);
  const size_t step = (size_t)(all->numel / count) * item;
  for (int64_t k = 0; k < count; k++) {
    TERN_SCOPE;
    tern_tensor *t = items[k].element->t[c];
    if (t->numel == 0) continue;
    if (!(t = tern__host_dense(t))) return tern__recorded();
    copy_corner(tern__host_bytes(all) + (size_t)k * step, shape, tern__host_bytes(t), t->shape, rank, item);
  }
  return TERN_OK;
}

static tern_rc add_lengths(const char *op, tern__packed *items, int64_t count, tern__element *out) {
  if (out->n == TERN_MAX_COMPONENTS)
    return tern__fail(TERN_E_ARG, "%s: no room for the lengths: elements have %d components already", op, out->n);
  tern__device *host = tern__device_host();
  tern_tensor *lengths = host ? tern__new(host, TERN_I64, 1, &count, op) : NULL;
  if (!lengths) return tern__recorded();
  out->t[out->n++] = lengths;
  int64_t *to = (int64_t *)(void *)tern__host_bytes(lengths);
  for (int64_t k = 0; k < count; k++) {
    const tern_tensor *t = items[k].element->t[0];
    if (t->rank == 0) return tern__fail(TERN_E_ARG, "%s: component 0 has rank 0, so there are no lengths", op);
    to[k] = t->shape[0];
  }
  return TERN_OK;
}

static tern_rc pad_all(const char *op, const tern__padding *padding, tern__packed *items, int64_t count,
                       tern__element *out) {
  tern_rc rc = tern__packed_solid(op, items, count);
  if (rc) return rc;
  const int n = items[0].element->n;
  if (padding->n && padding->n != n)
    return tern__fail(TERN_E_ARG, "%s: shapes or values were given for %d components, but elements have %d", op,
                      padding->n, n);
  for (int c = 0; c < n && !rc; c++) rc = pad_component(op, padding, items, count, c, out);
  return !rc && padding->lengths ? add_lengths(op, items, count, out) : rc;
}

tern_rc tern__stack_padded(const char *op, const tern__padding *padding, tern__packed *items, int64_t count,
                           tern__element *out) {
  *out = (tern__element){0};
  const tern_rc rc = pad_all(op, padding, items, count, out);
  for (int64_t k = 0; k < count; k++) tern__packed_drop(&items[k]);
  if (rc) tern__element_drop(out);
  return rc;
}
