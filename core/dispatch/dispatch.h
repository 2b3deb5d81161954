/* The eager path: an op call becomes a request, a class, a kernel, a launch. Knows no op. */
#ifndef TERN_DISPATCH_DISPATCH_H_
#define TERN_DISPATCH_DISPATCH_H_
#include "device/device.h"
#include "ops/op.h"

/* Run an op with one output. Result borrowed from the scope; NULL with the error set. */
tern_tensor *tern__run(const tern__op *op, tern_tensor *const *in, int n_in, const tern_word *attr, int n_attr);
/* The same on a given device (for ops without tensor inputs; NULL: this thread's). */
tern_tensor *tern__run_on(tern__device *device, const tern__op *op, tern_tensor *const *in, int n_in,
                          const tern_word *attr, int n_attr);
/* Results into tensors that exist: out[o] is row-major with the shape and dtype that infer gives for result o (q->n_out
   and the results array are infer's to fill); it may be the same memory as an operand of the same layout (in place).
   One launch. Recorded by no hook. */
tern_rc tern__run_into(const tern__op *op, tern_tensor *const *in, int n_in, const tern_word *attr, int n_attr,
                       tern_tensor *const *out, int n_out);
/* For ops that are not one launch (concat, stack, pad): show the finished call to the hooks. Returns out, or NULL. */
tern_tensor *tern__done(const tern__op *op, tern_tensor *const *in, int n_in, const tern_word *attr, int n_attr,
                        tern_tensor *out);
/* The device of the operands (this thread's when they have none): weak scalars go anywhere, and so does a rank-0 tensor
   in host memory. NULL with the error set. */
tern__device *tern__common_device(tern__thread *t, const tern__call *c);
/* One and two operands: tries the fast path first. */
tern_tensor *tern__run1(const tern__op *op, tern_tensor *x);
tern_tensor *tern__run2(const tern__op *op, tern_tensor *a, tern_tensor *b);
/* Two row-major matrices; NULL (nothing recorded unless it failed) when the fast path does not apply. */
tern_tensor *tern__run_matrices(const tern__op *op, tern_tensor *a, tern_tensor *b);
/* dst[..] = cast(src[..]) where dst is a view: the way into parts of a fresh tensor. Shapes must broadcast. */
tern_rc tern__write(tern_tensor *dst, tern_tensor *src);

/* ---- kernels.c ---- */

enum { TERN__NATIVE = 1, TERN__SPLIT, TERN__ON_HOST };
/* What a class turned out to be on a device. Immutable once in the table; lives as long as the device. */
typedef struct tern__kernel_class {
  uint64_t hash;
  tern__class_key key;
  uint8_t state;       /* NATIVE, SPLIT into primitives, ON_HOST */
  uint8_t out_dtype;   /* of output 0 */
  _Atomic bool ready;  /* the plugin was asked to make it ready, or has nothing to do for that */
  tern_kernel *kernel; /* NATIVE */
  uint64_t workspace;  /* bytes; UINT64_MAX: ask */
  tern__region *region;
  const char *op;
} tern__kernel_class;

void tern__kernel_make_ready(const struct tern__device *d, tern__kernel_class *k);
/* Before a launch, and before its queue is taken: builds what compile put off, so that other threads' launches do not
   wait for that. */
static inline void tern__kernel_ready(const struct tern__device *d, const tern__kernel_class *k) {
  if (TERN__UNLIKELY(!atomic_load_explicit(&k->ready, memory_order_relaxed)))
    tern__kernel_make_ready(d, (tern__kernel_class *)(uintptr_t)k);
}

/* The class of a canonical request on its device, compiled if new. NULL with the error set. */
tern__kernel_class *tern__kernel_of(const tern__request *q);
/* The class of a group's region (which it takes over), compiled if new; its state says whether the device takes it.
   name must live as long as the device. NULL with the error set. */
tern__kernel_class *tern__kernel_of_region(tern__device *d, tern__region *region, const char *name);
/* The kernel of a region with literal sizes. Counted: it ends with its last holder, once it is not among the device's
   last ones either. */
typedef struct tern__fixed_kernel {
  tern__kernel_class c; /* no key, no hash; c.op is `name` */
  struct tern__device *device;
  uint64_t *layout; /* by argument: the packed layouts that the plugin asks for, 0 = as it is; then their bytes */
  char *name;       /* owned */
  uint32_t refs;    /* under the device's compile lock */
  struct tern__fixed_kernel *next;
} tern__fixed_kernel;
/* Takes over the region. One reference more; c.state says whether the device takes it. NULL with the error set. */
tern__fixed_kernel *tern__fixed_kernel_of(tern__device *d, tern__region *region, const char *name);
void tern__fixed_kernel_release(tern__fixed_kernel *k);
/* Launch a canonical request whose operands all have storage. */
tern_rc tern__launch(const tern__request *q);
tern_rc tern__launch_class(const tern__request *q, tern__kernel_class *k);

/* fallback.c: the two ways round. */
tern_rc tern__launch_split(const tern__request *q, const tern__kernel_class *k);
tern_rc tern__launch_on_host(const tern__request *q);

/* fast.c: remember the class for the fast path when the request has one of its patterns. a, b: the call's operands (b
   may be NULL) */
void tern__fast_learn(const tern__request *q, tern__kernel_class *k, tern_tensor *a, tern_tensor *b);

/* memo.c: calls whose operands have the same form as earlier ones (op, attributes, and each operand's dtype, shape,
   strides, device): inference, canonical form and kernel are remembered, a table for each thread. */
#define TERN__MEMO_WORDS 96
typedef struct tern__memo_key {
  uint64_t hash;
  uint32_t n;
  uint64_t word[TERN__MEMO_WORDS];
} tern__memo_key;
typedef struct tern__memo tern__memo;
/* The memory of such a call; NULL: none, and key->n tells whether it can be learned (not 0). out: results that exist
   already, or NULL. */
/* device: where a call without operands runs. */
tern__memo *tern__memo_find(tern__thread *t, const tern__call *c, const tern__device *device, tern_tensor *const *out,
                            int n_out, tern__memo_key *key);
/* Launch it. out NULL: a new tensor, not yet in a scope, is returned in *made. */
tern_rc tern__memo_run(tern__thread *t, const tern__memo *m, const tern__call *c, tern_tensor *const *out,
                       tern_tensor **made);
/* Remember a canonical request that was launched natively. */
void tern__memo_learn(tern__thread *t, const tern__memo_key *key, const tern__call *c, const tern__request *q,
                      const tern__result *r, const tern__kernel_class *k, tern_tensor *const *out);

/* hooks.c */
/* After an op ran (hooks != 0): sync, trace, shadow, numerics, tape. */
tern_rc tern__after(tern__thread *t, const tern__call *c, tern_tensor *out, uint64_t began_ns);
#endif
