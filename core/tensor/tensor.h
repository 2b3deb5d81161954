/* The tensor header and its life. 192 bytes: the first cache line holds what every op reads, then shape and stride.
   Headers are recycled through per-thread free lists; `live` tells a dead handle from a living one. */
#ifndef TERN_TENSOR_TENSOR_H_
#define TERN_TENSOR_TENSOR_H_
#include "base/thread.h"
#include "device/memory.h"
#include <stdatomic.h>
#include <string.h>
#include <tern/tensor.h>

enum {
  TERN__CONTIG = 1,  /* row-major without gaps (strides are set all the same) */
  TERN__WEAK = 2,    /* host scalar: value in `imm`, no storage, no device */
  TERN__VARIABLE = 4 /* storage may be swapped by tern_assign; extra = tern__variable */
};
#define TERN__LIVE 0x7e51a11eu
#define TERN__DEAD 0xdead7e51u
#define TERN__SYMBOLIC 0x5e1b011cu /* stands for a value of a graph: imm.u is its number there, storage a ghost */

struct tern_tensor {
  _Atomic uint32_t refs;
  uint32_t live;
  uint8_t dtype, rank;
  uint16_t flags;
  uint32_t slot; /* where the newest handle lies in its thread's stack: a hint */
  struct tern__device *device;
  tern__storage *storage;
  int64_t offset; /* elements from the storage's start */
  int64_t numel;
  uint64_t grad_id;
  union {
    tern_word imm;                   /* WEAK; symbolic: the value's number */
    struct tern__variable *variable; /* VARIABLE */
    struct tern_tensor *next_free;
  };
  int64_t shape[TERN_MAX_RANK], stride[TERN_MAX_RANK]; /* strides in elements */
};

struct tern__variable {
  char *name;
  int frozen;
};

extern const uint8_t tern__dtype_size[TERN_DTYPE_END];

/* Slow halves; use the inline functions below. */
tern_tensor *tern__header_slow(tern__thread *t);
void tern__free_tensor(tern_tensor *t);
/* Records why a handle cannot be used: NULL, TERN_NONE or dead. Returns NULL-ness as false. */
bool tern__unusable(const tern_tensor *t, const char *op, int argument);
/* Give a finished thread's headers to the others. */
void tern__headers_give_back(tern__thread *t);

/* Whether the handle may be used; if not, the error is recorded (unless one is pending). argument counts from 1.
   Symbolic tensors may be used while their graph is being made. */
static inline bool tern__usable(const tern_tensor *t, const char *op, int argument) {
  if (TERN__LIKELY(t != NULL && t->live == TERN__LIVE)) return true;
  return tern__unusable(t, op, argument);
}

/* Whether t has a value; if not, the error says that op cannot read it. */
static inline bool tern__readable(const tern_tensor *t, const char *op) {
  if (TERN__LIKELY(t->live == TERN__LIVE && !(t->flags & TERN__VARIABLE))) return true;
  if (t->live == TERN__LIVE && !(tern__tls && tern__tls->hooks & TERN__HOOK_GRAPH)) return true;
  return tern__graph_listener.unreadable(t, op) == TERN_OK;
}
static inline bool tern__tracing_ops(void) { return TERN__UNLIKELY(tern__tls && tern__tls->hooks & TERN__HOOK_GRAPH); }

static inline void tern__unref(tern_tensor *t) {
  if (tern__refs_down(&t->refs)) tern__free_tensor(t);
}
static inline tern_tensor *tern__ref(tern_tensor *t) {
  tern__refs_up(&t->refs);
  return t;
}

/* A header with one reference and everything but shape and stride zeroed. */
static inline tern_tensor *tern__header(tern__thread *thread) {
  tern_tensor *t = thread->free_headers;
  if (TERN__UNLIKELY(!t)) return tern__header_slow(thread);
  thread->free_headers = t->next_free;
  thread->free_headers_count--;
  t->live = TERN__LIVE;
  atomic_store_explicit(&t->refs, 1, memory_order_relaxed);
  return t;
}

/* tern__push on a thread that is known. */
static inline tern_tensor *tern__push_on(tern__thread *thread, tern_tensor *t) {
  if (TERN__UNLIKELY(thread->top == thread->capacity)) return tern__push(t);
  t->slot = thread->top;
  thread->stack[thread->top++] = t;
  return t;
}

/* Row-major strides for t's shape; sets numel and CONTIG. Caller has checked that numel fits. */
void tern__set_dense(tern_tensor *t);
/* Recompute CONTIG from shape and stride. */
void tern__set_contig_flag(tern_tensor *t);
/* A fresh row-major tensor with memory, one reference, not in any scope. NULL with the error set; `op` is for its
   text. */
tern_tensor *tern__new(struct tern__device *device, tern_dtype dtype, int rank, const int64_t *shape, const char *op);
/* A view header sharing t's storage (one reference, not in any scope): dtype, device, offset copied; the caller sets
   shape, stride, rank and numel, then calls tern__set_contig_flag. */
tern_tensor *tern__view_header(tern_tensor *t);
/* The strides with which the elements of t in row-major order have shape (same number of elements, none 0); false when
   no strides do. */
bool tern__reshaped_strides(const tern_tensor *t, const tern_shape *shape, int64_t *stride);
/* Another handle to x's value: x itself, or a view of a variable, which keeps the value that it has now. Borrowed from
   the scope. */
tern_tensor *tern__itself(tern_tensor *x);
/* Elements of a shape; -1 when a size is negative or the product (times 8 bytes) overflows. */
int64_t tern__numel(int rank, const int64_t *shape);
/* "(2, 3)" into a buffer of at least 200 bytes; returns it. */
const char *tern__shape_text(char *buffer, int rank, const int64_t *shape);
/* Checks a public shape argument: rank, sizes, bytes. Records the error. */
bool tern__shape_ok(const char *op, tern_shape shape, tern_dtype dtype);
/* The tensor with memory that a weak scalar stands for, borrowed from the scope; other tensors as they are. */
tern_tensor *tern__solid(tern_tensor *t, tern_dtype dtype);
#endif
