/* The elements of tensors in pieces of at most 16 MiB, so that a large tensor of a device with memory of its own needs
   no second copy on the host. Where the memory is the host's, it is read and written in place. */
#include "device/device.h"
#include "dispatch/dispatch.h"
#include "io/draft.h"
#include <stdlib.h>

enum { PIECE = 16 << 20 };

tern_tensor *tern__snapshot(tern_tensor *t) {
  if (t->flags & TERN__WEAK) return tern__solid(t, t->dtype == TERN_F64 ? TERN_F32 : (tern_dtype)t->dtype);
  tern_tensor *v = tern__view_header(t);
  if (!v) return NULL;
  v->rank = t->rank;
  memcpy(v->shape, t->shape, sizeof v->shape);
  memcpy(v->stride, t->stride, sizeof v->stride);
  tern__set_contig_flag(v);
  return tern__push(v);
}

/* The bytes of a row-major tensor. */
static tern_rc dense_out(tern_tensor *t, const char *op, tern_rc (*take)(void *, const void *, size_t), void *self) {
  const uint64_t width = tern__dtype_size[t->dtype], bytes = (uint64_t)t->numel * width;
  const uint64_t from = (uint64_t)t->offset * width;
  const bool direct = t->storage->host && !t->device->queue;
  char *piece = direct || !bytes ? NULL : malloc(bytes < PIECE ? (size_t)bytes : PIECE);
  if (!direct && bytes && !piece) return tern__fail(TERN_E_OOM, "%s: out of host memory for a piece of a tensor", op);
  tern_rc rc = TERN_OK;
  for (uint64_t at = 0; at < bytes && !rc;) {
    const size_t n = bytes - at < PIECE ? (size_t)(bytes - at) : PIECE;
    if (!direct) rc = tern__download(piece, t->storage, from + at, n);
    if (!rc) rc = take(self, direct ? t->storage->host + from + at : piece, n);
    at += n;
  }
  free(piece);
  return rc;
}

tern_rc tern__pieces_out(tern_tensor *t, const char *op, tern_rc (*take)(void *, const void *, size_t), void *self) {
  if (t->flags & TERN__CONTIG) return dense_out(t, op, take, self);
  tern_scope_mark mark = tern_scope_begin();
  const uint32_t graph = tern__eager_begin(tern__tls); /* values are read, whatever is traced meanwhile */
  tern_tensor *dense = tern__push(tern__new(t->device, (tern_dtype)t->dtype, t->rank, t->shape, op));
  tern_rc rc = dense ? tern__write(dense, t) : tern__recorded();
  if (!rc) rc = dense_out(dense, op, take, self);
  tern__eager_end(tern__tls, graph);
  tern_scope_end(&mark);
  return rc;
}

tern_rc tern__pieces_in(tern_tensor *t, const char *op, tern_rc (*give)(void *, void *, size_t), void *self) {
  const uint64_t bytes = (uint64_t)t->numel * tern__dtype_size[t->dtype];
  const bool direct = t->storage->host && !t->device->queue;
  char *piece = direct || !bytes ? NULL : malloc(bytes < PIECE ? (size_t)bytes : PIECE);
  if (!direct && bytes && !piece) return tern__fail(TERN_E_OOM, "%s: out of host memory for a piece of a tensor", op);
  tern_rc rc = TERN_OK;
  for (uint64_t at = 0; at < bytes && !rc;) {
    const size_t n = bytes - at < PIECE ? (size_t)(bytes - at) : PIECE;
    char *to = direct ? t->storage->host + at : piece;
    rc = give(self, to, n);
    if (!rc && !direct) rc = tern__upload(t->storage, at, to, n);
    at += n;
  }
  free(piece);
  return rc;
}
