/* The fast path: same-dtype, row-major operands of one shape (or one of them a scalar) reach a kernel without a request
   being built. The general path teaches it: a table by op, dtype and pattern holds the class that serves every size of
   the pattern. */
#include "dispatch/dispatch.h"
#include "tensor/dtype.h"
#include <stdio.h>

enum { VV, VV_SAME, VP, PV, VS, SV, V, MATRICES };

static inline _Atomic(tern__kernel_class *) *entry(const tern__device *d, const tern__op *op, uint32_t dtype,
                                                   int pattern) {
  return &d->fast[((uint32_t)op->number * TERN_DTYPE_END + dtype) * TERN__FAST_PATTERNS + (uint32_t)pattern];
}

static inline tern_arg arg_of(const tern_tensor *t) {
  const tern__storage *s = t->storage;
  return (tern_arg){s->mem, s->mem_offset + (uint64_t)t->offset * tern__dtype_size[t->dtype]};
}

static inline bool plain(const tern_tensor *t) { return t && t->live == TERN__LIVE && (t->flags & TERN__CONTIG); }

/* A fresh tensor of like's shape. */
static inline tern_tensor *result_like(tern__thread *thread, const tern_tensor *like, uint32_t dtype) {
  tern_tensor *t = tern__header(thread);
  if (TERN__UNLIKELY(!t)) return NULL;
  t->dtype = (uint8_t)dtype;
  t->rank = like->rank;
  t->flags = TERN__CONTIG;
  t->device = like->device;
  t->offset = 0;
  t->numel = like->numel;
  t->grad_id = 0;
  int64_t n = 1;
  for (int d = like->rank; d-- > 0;) {
    t->shape[d] = like->shape[d];
    t->stride[d] = n;
    n *= like->shape[d];
  }
  t->storage = tern__storage_new(thread, like->device, (uint64_t)t->numel * tern__dtype_size[dtype]);
  if (TERN__LIKELY(t->storage != NULL)) return t;
  tern__free_tensor(t);
  return NULL;
}

static inline tern_tensor *finish(tern__thread *t, tern_tensor *out, const tern__kernel_class *k, const tern_arg *args,
                                  uint32_t n_args, const tern_word *words, uint32_t n_words) {
  tern__device *d = out->device;
  const tern_launch l = {.args = args, .words = words, .n_args = n_args, .n_words = n_words};
  tern_rc rc;
  if (TERN__UNLIKELY(d->queue != NULL)) {
    tern__kernel_ready(d, k);
    pthread_mutex_lock(&d->lock);
    rc = d->launch(d->dev, d->queue, k->kernel, &l);
    pthread_mutex_unlock(&d->lock);
  } else {
    rc = d->launch(d->dev, NULL, k->kernel, &l);
  }
  tern__count_launch(t, d);
  if (TERN__LIKELY(!rc)) return tern__push_on(t, out);
  tern__unref(out);
  char what[96];
  snprintf(what, sizeof what, "launching %s", k->op);
  tern__device_failed(d, rc, what);
  return NULL;
}

static inline bool same_shape(const tern_tensor *a, const tern_tensor *b) {
  if (a->rank != b->rank) return false;
  for (int d = 0; d < a->rank; d++)
    if (a->shape[d] != b->shape[d]) return false;
  return true;
}

/* A result that a tape may record. */
static inline tern_tensor *seen(tern__thread *t, const tern__op *op, tern_tensor *a, tern_tensor *b, int n,
                                tern_tensor *out) {
  if (TERN__LIKELY(!t->hooks) || !out) return out;
  tern_tensor *const in[] = {a, b};
  return tern__tape_listener.op(t, op, in, n, NULL, 0, &out, 1) ? out : NULL;
}

static tern_tensor *slow(const tern__op *op, tern_tensor *a, tern_tensor *b, int n) {
  tern_tensor *const in[] = {a, b};
  return tern__run(op, in, n, NULL, 0);
}

tern_tensor *tern__run1(const tern__op *op, tern_tensor *x) {
  tern__thread *t = tern__tls;
  if (TERN__UNLIKELY(!t || t->hooks & ~TERN__HOOK_TAPE || !plain(x) || x->numel == 0 || x->numel > INT32_MAX))
    return slow(op, x, NULL, 1);
  tern__kernel_class *k = atomic_load_explicit(entry(x->device, op, x->dtype, V), memory_order_acquire);
  if (TERN__UNLIKELY(!k)) return slow(op, x, NULL, 1);
  tern_tensor *out = result_like(t, x, k->out_dtype);
  if (TERN__UNLIKELY(!out)) return NULL;
  const tern_arg args[] = {arg_of(x), arg_of(out)};
  const tern_word words[] = {{.i = x->numel}};
  return seen(t, op, x, NULL, 1, finish(t, out, k, args, 2, words, 1));
}

/* One operand is a host scalar. */
static tern_tensor *with_param(tern__thread *t, const tern__op *op, tern_tensor *x, const tern_tensor *scalar,
                               int pattern) {
  if (!plain(x) || x->numel == 0 || x->numel > INT32_MAX || scalar->dtype == TERN_BOOL) return NULL;
  const bool whole = scalar->dtype == TERN_I64;
  if (!whole && !tern__is_float(x->dtype)) return NULL; /* the result is another dtype */
  tern__kernel_class *k = atomic_load_explicit(entry(x->device, op, x->dtype, pattern), memory_order_acquire);
  tern_tensor *out = k ? result_like(t, x, k->out_dtype) : NULL;
  if (!out) return NULL;
  const tern_arg args[] = {arg_of(x), arg_of(out)};
  tern_word words[] = {{.i = x->numel}, scalar->imm};
  if (x->dtype != TERN_F32 || whole)
    words[1] = tern__convert(scalar->imm, scalar->dtype, x->dtype);
  else
    words[1].f = (double)(float)scalar->imm.f;
  return finish(t, out, k, args, 2, words, 2);
}

tern_tensor *tern__run2(const tern__op *op, tern_tensor *a, tern_tensor *b) {
  tern__thread *t = tern__tls;
  if (TERN__UNLIKELY(!t || t->hooks & ~TERN__HOOK_TAPE || !plain(a) || !plain(b))) {
    if (t && !(t->hooks & ~TERN__HOOK_TAPE) && a && b && a->live == TERN__LIVE && b->live == TERN__LIVE) {
      tern_tensor *out = b->flags & TERN__WEAK   ? with_param(t, op, a, b, VP)
                         : a->flags & TERN__WEAK ? with_param(t, op, b, a, PV)
                                                 : NULL;
      if (out) return seen(t, op, a, b, 2, out);
    }
    return slow(op, a, b, 2);
  }
  if (TERN__UNLIKELY(a->dtype != b->dtype || a->device != b->device || a->numel == 0 || b->numel == 0))
    return slow(op, a, b, 2);
  int pattern = VV;
  const tern_tensor *like = a;
  if (TERN__UNLIKELY(!same_shape(a, b))) {
    pattern = b->numel == 1 && b->rank <= a->rank ? VS : SV;
    like = pattern == VS ? a : b;
    if (pattern == SV && !(a->numel == 1 && a->rank <= b->rank)) return slow(op, a, b, 2);
  } else if (a->storage == b->storage && a->offset == b->offset) {
    pattern = VV_SAME;
  }
  if (TERN__UNLIKELY(like->numel > INT32_MAX || (pattern != VV && like->numel == 1))) return slow(op, a, b, 2);
  tern__kernel_class *k = atomic_load_explicit(entry(a->device, op, a->dtype, pattern), memory_order_acquire);
  if (TERN__UNLIKELY(!k)) return slow(op, a, b, 2);
  tern_tensor *out = result_like(t, like, k->out_dtype);
  if (TERN__UNLIKELY(!out)) return NULL;
  const tern_word words[] = {{.i = like->numel}};
  if (pattern == VV_SAME) {
    const tern_arg args[] = {arg_of(a), arg_of(out)};
    return seen(t, op, a, b, 2, finish(t, out, k, args, 2, words, 1));
  }
  const tern_arg args[] = {arg_of(a), arg_of(b), arg_of(out)};
  return seen(t, op, a, b, 2, finish(t, out, k, args, 3, words, 1));
}

tern_tensor *tern__run_matrices(const tern__op *op, tern_tensor *a, tern_tensor *b) {
  tern__thread *t = tern__tls;
  if (TERN__UNLIKELY(!t || t->hooks & ~TERN__HOOK_TAPE || !plain(a) || !plain(b) || a->rank != 2 || b->rank != 2 ||
                     a->dtype != b->dtype || a->device != b->device || a->shape[1] != b->shape[0]))
    return NULL;
  const int64_t m = a->shape[0], depth = a->shape[1], n = b->shape[1];
  if (m == 0 || n == 0 || depth == 0 || a->numel > INT32_MAX || b->numel > INT32_MAX || m > INT32_MAX / n) return NULL;
  tern__kernel_class *k = atomic_load_explicit(entry(a->device, op, a->dtype, MATRICES), memory_order_acquire);
  if (!k) return NULL;
  const int64_t shape[] = {m, n};
  tern_tensor *out = tern__new(a->device, k->out_dtype, 2, shape, op->name);
  if (!out) return NULL;
  const tern_arg args[] = {arg_of(a), arg_of(b), arg_of(out)};
  const tern_word words[] = {{.i = m}, {.i = depth}, {.i = n}, {.i = depth}, {.i = n}, {.i = n}};
  if (TERN__LIKELY(k->workspace == 0)) return seen(t, op, a, b, 2, finish(t, out, k, args, 3, words, 6));
  tern__unref(out);
  return NULL;
}

/* ---- learning ---- */

static bool dense(const tern__operand *a) { return a->kind != TERN_V_PARAM && a->dim[0] == 0 && a->stride[0] == 1; }

static int pattern_of(const tern__request *q, const tern_tensor *a, const tern_tensor *b) {
  if (q->op->prim == TERN_OP_DOT) {
    const bool matrices = a->rank == 2 && b->rank == 2 && (a->flags & b->flags & TERN__CONTIG) && a->dtype == b->dtype;
    return matrices ? MATRICES : -1;
  }
  if (q->n_sizes != 1 || q->n_space != 1 || q->role[0] != TERN__ROLE_MAP || !dense(&q->arg[q->n_in])) return -1;
  if (q->n_attrs) return -1;
  if (!b) return (a->flags & TERN__CONTIG) && dense(&q->arg[0]) ? V : -1;
  if (b->flags & TERN__WEAK) return q->arg[1].dtype == a->dtype && (a->flags & TERN__CONTIG) ? VP : -1;
  if (a->flags & TERN__WEAK) return q->arg[0].dtype == b->dtype && (b->flags & TERN__CONTIG) ? PV : -1;
  if (!(a->flags & b->flags & TERN__CONTIG) || a->dtype != b->dtype || a->device != b->device) return -1;
  if (q->arg[1].same_as == 0) return same_shape(a, b) ? VV_SAME : -1;
  if (dense(&q->arg[0]) && dense(&q->arg[1])) return same_shape(a, b) ? VV : -1;
  if (dense(&q->arg[0])) return b->numel == 1 && b->rank <= a->rank ? VS : -1;
  return dense(&q->arg[1]) && a->numel == 1 && a->rank <= b->rank ? SV : -1;
}

void tern__fast_learn(const tern__request *q, tern__kernel_class *k, tern_tensor *a, tern_tensor *b) {
  if (k->state != TERN__NATIVE || k->workspace || q->n_in > 2 || q->n_in != 1 + (b != NULL) ||
      q->op->number >= TERN__FAST_OPS || !tern__fits_int32(q) ||
      (a->flags & TERN__WEAK && (!b || b->flags & TERN__WEAK)))
    return;
  const int pattern = pattern_of(q, a, b);
  if (pattern < 0) return;
  const uint32_t dtype = a->flags & TERN__WEAK ? b->dtype : a->dtype;
  atomic_store_explicit(entry(q->device, q->op, dtype, pattern), k, memory_order_release);
}
