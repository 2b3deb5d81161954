/* Life of tensor headers, shapes as text, references. */
#include "tensor/tensor.h"
#include "base/alloc.h"
#include "device/device.h"
#include "tensor/dtype.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define BATCH 64          /* headers made at a time */
#define KEEP_HEADERS 4096 /* a thread keeps at most this many */

tern_tensor tern_none = {.live = TERN__DEAD};

static struct {
  pthread_mutex_t lock;
  tern_tensor *free;
} shared = {.lock = PTHREAD_MUTEX_INITIALIZER};

static bool refill(tern__thread *thread) {
  pthread_mutex_lock(&shared.lock);
  for (int i = 0; i < BATCH && shared.free; i++) {
    tern_tensor *t = shared.free;
    shared.free = t->next_free;
    t->next_free = thread->free_headers;
    thread->free_headers = t;
    thread->free_headers_count++;
  }
  pthread_mutex_unlock(&shared.lock);
  if (thread->free_headers) return true;
  tern_tensor *batch = tern__calloc64(BATCH * sizeof *batch);
  if (!batch) return false;
  for (int i = 0; i < BATCH; i++) {
    batch[i].live = TERN__DEAD;
    batch[i].next_free = thread->free_headers;
    thread->free_headers = &batch[i];
  }
  thread->free_headers_count = BATCH;
  return true;
}

tern_tensor *tern__header_slow(tern__thread *thread) {
  if (refill(thread)) return tern__header(thread);
  tern__fail(TERN_E_OOM, "out of host memory for a tensor's header");
  return NULL;
}

static void share_header(tern_tensor *t) {
  pthread_mutex_lock(&shared.lock);
  t->next_free = shared.free;
  shared.free = t;
  pthread_mutex_unlock(&shared.lock);
}

void tern__headers_give_back(tern__thread *thread) {
  while (thread->free_headers) {
    tern_tensor *t = thread->free_headers;
    thread->free_headers = t->next_free;
    share_header(t);
  }
  thread->free_headers_count = 0;
}

void tern__free_tensor(tern_tensor *t) {
  if (t->flags & TERN__VARIABLE) {
    free(t->variable->name);
    free(t->variable);
  }
  t->live = TERN__DEAD;
  if (t->storage) tern__storage_unref(t->storage);
  t->storage = NULL;
  tern__thread *thread = tern__tls;
  if (TERN__UNLIKELY(!thread || thread->free_headers_count >= KEEP_HEADERS)) {
    share_header(t);
    return;
  }
  t->next_free = thread->free_headers;
  thread->free_headers = t;
  thread->free_headers_count++;
}

bool tern__unusable(const tern_tensor *t, const char *op, int argument) {
  if (!t) {
    if (!tern__tls || tern__tls->error_state == TERN__ERROR_NONE)
      tern__fail(TERN_E_ARG, "%s: argument %d is NULL", op, argument);
  } else if (t->live == TERN__SYMBOLIC) {
    return tern__graph_listener.usable(t, op, argument);
  } else if (t == TERN_NONE) {
    tern__fail(TERN_E_ARG, "%s: argument %d is TERN_NONE, but it is not optional", op, argument);
  } else {
    tern__fail(TERN_E_ARG,
               "%s: argument %d was freed when its scope ended; tern_escape it to the outer scope or tern_keep it", op,
               argument);
  }
  return false;
}

tern_tensor *tern_keep(tern_tensor *t) {
  if (!tern__usable(t, "tern_keep", 1)) return NULL;
  return tern__ref(t);
}

void tern_release(tern_tensor *t) {
  if (!t || t == TERN_NONE) return;
  if (t->live != TERN__SYMBOLIC && !tern__usable(t, "tern_release", 1)) return; /* a symbolic one at any time */
  tern__unref(t);
}

void tern__set_dense(tern_tensor *t) {
  int64_t n = 1;
  for (int d = t->rank; d-- > 0;) {
    t->stride[d] = n;
    n *= t->shape[d];
  }
  t->numel = n;
  t->flags |= TERN__CONTIG;
}

void tern__set_contig_flag(tern_tensor *t) {
  int64_t n = 1;
  bool dense = true;
  for (int d = t->rank; d-- > 0;) {
    if (t->shape[d] != 1 && t->stride[d] != n) dense = false;
    n *= t->shape[d];
  }
  t->numel = n;
  if (dense || n == 0)
    t->flags |= TERN__CONTIG;
  else
    t->flags &= (uint16_t)~TERN__CONTIG;
}

int64_t tern__numel(int rank, const int64_t *shape) {
  int64_t n = 1;
  bool empty = false;
  for (int d = 0; d < rank; d++) {
    if (shape[d] < 0) return -1;
    if (shape[d] == 0)
      empty = true;
    else if (__builtin_mul_overflow(n, shape[d], &n) || n > INT64_MAX / 16)
      return -1;
  }
  return empty ? 0 : n;
}

tern_tensor *tern__new(tern__device *device, tern_dtype dtype, int rank, const int64_t *shape, const char *op) {
  tern__thread *thread = tern__thread_get();
  if (TERN__UNLIKELY(!thread)) return NULL;
  if (TERN__UNLIKELY(thread->hooks & TERN__HOOK_GRAPH))
    return tern__graph_listener.make(thread, device, dtype, rank, shape);
  const int64_t n = tern__numel(rank, shape);
  if (TERN__UNLIKELY(n < 0)) {
    char text[200];
    tern__fail(TERN_E_ARG, "%s: shape %s has too many elements", op, tern__shape_text(text, rank, shape));
    return NULL;
  }
  tern_tensor *t = tern__header(thread);
  if (TERN__UNLIKELY(!t)) return NULL;
  t->dtype = (uint8_t)dtype;
  t->rank = (uint8_t)rank;
  t->flags = 0;
  t->slot = UINT32_MAX;
  t->device = device;
  t->storage = NULL;
  t->offset = 0;
  t->grad_id = 0;
  if (rank) memcpy(t->shape, shape, (size_t)rank * sizeof *shape);
  tern__set_dense(t);
  t->storage = tern__storage_new(thread, device, (uint64_t)n * tern__dtype_size[dtype]);
  if (TERN__UNLIKELY(!t->storage)) {
    char text[200];
    char reason[sizeof thread->error_text];
    snprintf(reason, sizeof reason, "%s", tern__pending());
    if (thread->error_state == TERN__ERROR_UNREAD && thread->error_code == TERN_E_OOM) {
      thread->error_state = TERN__ERROR_NONE;
      tern__fail(TERN_E_OOM, "%s: no memory for a result of shape %s, %s: %s", op, tern__shape_text(text, rank, shape),
                 tern_dtype_name(dtype), reason);
    }
    tern__free_tensor(t);
    return NULL;
  }
  return t;
}

tern_tensor *tern__view_header(tern_tensor *t) {
  tern__thread *thread = tern__thread_get();
  if (TERN__UNLIKELY(thread && thread->hooks & TERN__HOOK_GRAPH && t->flags & TERN__VARIABLE) &&
      !(t = tern__graph_listener.read(thread, t)))
    return NULL;
  tern_tensor *v = thread ? tern__header(thread) : NULL;
  if (TERN__UNLIKELY(!v)) return NULL;
  v->live = t->live;
  if (TERN__UNLIKELY(t->live != TERN__LIVE)) v->imm = t->imm;
  v->dtype = t->dtype;
  v->flags = 0;
  v->slot = UINT32_MAX;
  v->device = t->device;
  v->storage = t->storage;
  tern__storage_ref(t->storage);
  v->offset = t->offset;
  v->grad_id = 0;
  v->numel = t->numel;
  return v;
}

tern_tensor *tern__itself(tern_tensor *x) {
  if (!(x->flags & TERN__VARIABLE)) return tern__push(tern__ref(x));
  return tern_reshape(x, tern_shape_of(x->rank, x->shape));
}

const char *tern__shape_text(char *buffer, int rank, const int64_t *shape) {
  int at = snprintf(buffer, 200, "(");
  for (int d = 0; d < rank; d++) {
    int64_t size = shape[d];
    if (size >= 1 << 24 && tern__tracing_ops()) size = tern__graph_listener.shown(tern__tls, size);
    at += size == -1 && shape[d] != -1
              ? snprintf(buffer + at, 200 - (size_t)at, d ? ", ?" : "?")
              : snprintf(buffer + at, 200 - (size_t)at, d ? ", %lld" : "%lld", (long long)size);
  }
  snprintf(buffer + at, 200 - (size_t)at, rank == 1 ? ",)" : ")");
  return buffer;
}

bool tern__shape_ok(const char *op, tern_shape shape, tern_dtype dtype) {
  char text[200];
  if (dtype <= TERN_NO_DTYPE || dtype >= TERN_DTYPE_END) {
    tern__fail(TERN_E_ARG, "%s: %d is not a dtype", op, (int)dtype);
    return false;
  }
  if (shape.rank < 0 || shape.rank > TERN_MAX_RANK) {
    tern__fail(TERN_E_ARG, "%s: a shape has 0 to %d dimensions", op, TERN_MAX_RANK);
    return false;
  }
  if (tern__numel(shape.rank, shape.dim) >= 0) return true;
  tern__fail(TERN_E_ARG, "%s: shape %s has a negative size or too many elements", op,
             tern__shape_text(text, shape.rank, shape.dim));
  return false;
}

tern_shape tern_shape_of(int rank, const int64_t *dim) {
  tern_shape shape; /* an initialiser would clear it with a slow string instruction */
  shape.rank = rank >= 0 && rank <= TERN_MAX_RANK ? rank : -1;
  int d = 0;
  for (; d < shape.rank; d++) shape.dim[d] = dim[d];
  for (; d < TERN_MAX_RANK; d++) shape.dim[d] = 0;
  return shape;
}
