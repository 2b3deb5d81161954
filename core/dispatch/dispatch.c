/* The general eager path: device, inference, output, canonical form, kernel, launch, hooks. */
#include "device/trace.h"
#include "dispatch/dispatch.h"
#include "tensor/dtype.h"
#include <stdio.h>

tern__device *tern__common_device(tern__thread *t, const tern__call *c) {
  tern__device *d = NULL;
  int from = 0;
  for (int pass = 0; pass < 2 && !d; pass++)
    for (int i = 0; i < c->n_in && !d; i++)
      if (c->in[i] != TERN_NONE && !(c->in[i]->flags & TERN__WEAK) && (pass || c->in[i]->rank > 0)) {
        d = c->in[i]->device;
        from = i;
      }
  if (!d) return tern__device_here(t);
  for (int i = 0; i < c->n_in; i++) {
    const tern_tensor *x = c->in[i];
    if (x == TERN_NONE || (x->flags & TERN__WEAK) || x->device == d) continue;
    if (x->rank == 0 && ((x->storage->host && !x->device->queue) || x->live == TERN__SYMBOLIC)) continue;
    tern__fail(TERN_E_ARG, "%s: operand %d is on %s and operand %d on %s; move one of them: tern_to(t, \"%s\")",
               c->op->name, from + 1, d->name, i + 1, x->device->name, d->name);
    return NULL;
  }
  return d;
}

/* A reduction over no elements. */
static tern_rc fill_nothing(const tern__op *op, tern_tensor *out) {
  if (op->of_nothing != op->of_nothing)
    return tern__fail(TERN_E_ARG, "%s: a reduction over no elements has no value; check that the axis is not empty",
                      op->name);
  tern_tensor *value = tern_scalar(op->of_nothing);
  return value ? tern__write(out, value) : TERN_E_OOM;
}

static tern_rc compute(tern__thread *t, const tern__call *c, tern__request *q, const tern__result *r,
                       const tern__memo_key *key, tern_tensor *out) {
  if (out->numel == 0) return TERN_OK;
  for (int d = 0; d < q->n_sizes; d++)
    if (q->size[d] == 0) return fill_nothing(c->op, out);
  tern__operand *o = &q->arg[q->n_in];
  o->storage = out->storage;
  o->offset = 0;
  tern__canonicalise(q);
  tern__kernel_class *k = tern__kernel_of(q);
  if (!k) return TERN_E_INTERNAL; /* recorded */
  const tern_rc rc = tern__launch_class(q, k);
  if (!rc && (c->n_in == 1 || c->n_in == 2) && !c->n_attr && c->in[0] != TERN_NONE &&
      (c->n_in < 2 || c->in[1] != TERN_NONE))
    tern__fast_learn(q, k, c->in[0], c->n_in == 2 ? c->in[1] : NULL);
  if (!rc) tern__memo_learn(t, key, c, q, r, k, NULL);
  return rc;
}

/* The end of a call: out goes to the scope and before the hooks. */
static tern_tensor *finished(tern__thread *t, const tern__call *c, tern_tensor *out, uint64_t began) {
  out = tern__push(out);
  if (TERN__LIKELY(!t->hooks) || !out) return out;
  if (t->hooks == TERN__HOOK_TAPE)
    return tern__tape_listener.op(t, c->op, c->in, c->n_in, c->attr, c->n_attr, &out, 1) ? out : NULL;
  return tern__after(t, c, out, began) ? NULL : out;
}

tern_tensor *tern__run_on(tern__device *device, const tern__op *op, tern_tensor *const *in, int n_in,
                          const tern_word *attr, int n_attr) {
  tern__thread *t = tern__thread_get();
  if (!t) return NULL;
  for (int i = 0; i < n_in; i++)
    if (!(in[i] == TERN_NONE && op->optional >> i & 1) && !tern__usable(in[i], op->name, i + 1)) return NULL;
  if (TERN__UNLIKELY(t->hooks & TERN__HOOK_GRAPH))
    return tern__graph_listener.op(t, device, op, in, n_in, attr, n_attr);
  const uint64_t began = TERN__UNLIKELY(t->hooks & ~TERN__HOOK_TAPE) ? tern__now_ns() : 0;
  const tern__call c = {.op = op, .in = in, .n_in = n_in, .attr = attr, .n_attr = n_attr};
  tern__memo_key key;
  key.n = 0;
  if (!op->draws) {
    if (!n_in && !device && !(device = tern__device_here(t))) return NULL;
    const tern__memo *m = tern__memo_find(t, &c, device, NULL, 0, &key);
    tern_tensor *made = NULL;
    if (TERN__LIKELY(m != NULL)) return tern__memo_run(t, m, &c, NULL, &made) ? NULL : finished(t, &c, made, began);
  }
  tern__request q;
  q.op = op;
  q.n_in = (uint8_t)n_in;
  q.n_out = 1;
  q.n_attrs = q.n_sizes = q.n_space = 0;
  memset(q.want, 0, sizeof q.want);
  q.device = device ? device : tern__common_device(t, &c);
  if (!q.device) return NULL;
  tern__result r;
  if (op->infer(&c, &q, &r)) return NULL;
  tern_tensor *out = tern__new(q.device, r.dtype, r.rank, r.shape, op->name);
  if (!out) return NULL;
  if (compute(t, &c, &q, &r, &key, out)) {
    tern__unref(out);
    return NULL;
  }
  return finished(t, &c, out, began);
}

tern_tensor *tern__run(const tern__op *op, tern_tensor *const *in, int n_in, const tern_word *attr, int n_attr) {
  return tern__run_on(NULL, op, in, n_in, attr, n_attr);
}

tern_tensor *tern__done(const tern__op *op, tern_tensor *const *in, int n_in, const tern_word *attr, int n_attr,
                        tern_tensor *out) {
  tern__thread *t = tern__tls;
  if (TERN__LIKELY(!t || !out || !t->hooks)) return out;
  if (t->hooks & TERN__HOOK_GRAPH) { /* the graph has the writes */
    if (!(t->hooks & TERN__HOOK_TAPE)) return out;
    return tern__tape_listener.op(t, op, in, n_in, attr, n_attr, &out, 1) ? out : NULL;
  }
  const tern__call c = {.op = op, .in = in, .n_in = n_in, .attr = attr, .n_attr = n_attr};
  return tern__after(t, &c, out, tern__now_ns()) ? NULL : out;
}

/* Result o of the inference is what `out` can take. */
static tern_rc check_target(const tern__op *op, const tern__request *q, const tern__result *r, const tern_tensor *out,
                            int o) {
  const bool fits = (out->flags & TERN__CONTIG) && out->dtype == r->dtype && out->rank == r->rank &&
                    out->device == q->device && !memcmp(out->shape, r->shape, (size_t)r->rank * sizeof *r->shape);
  return fits ? TERN_OK
              : tern__fail(TERN_E_INTERNAL, "%s: result %d does not fit the tensor that it should go to", op->name, o);
}

tern_rc tern__run_into(const tern__op *op, tern_tensor *const *in, int n_in, const tern_word *attr, int n_attr,
                       tern_tensor *const *out, int n_out) {
  tern__thread *t = tern__thread_get();
  if (!t) return TERN_E_OOM;
  for (int i = 0; i < n_in; i++)
    if (!(in[i] == TERN_NONE && op->optional >> i & 1) && !tern__usable(in[i], op->name, i + 1)) return TERN_E_ARG;
  if (TERN__UNLIKELY(t->hooks & TERN__HOOK_GRAPH))
    return tern__graph_listener.into(t, op, in, n_in, attr, n_attr, out, n_out);
  const tern__call c = {.op = op, .in = in, .n_in = n_in, .attr = attr, .n_attr = n_attr};
  tern__memo_key key;
  const tern__memo *m = tern__memo_find(t, &c, NULL, out, n_out, &key);
  if (TERN__LIKELY(m != NULL)) return tern__memo_run(t, m, &c, out, NULL);
  tern__request q;
  q.op = op;
  q.n_in = (uint8_t)n_in;
  q.n_out = (uint8_t)n_out;
  q.n_attrs = q.n_sizes = q.n_space = 0;
  memset(q.want, 0, sizeof q.want);
  q.device = out[0]->device;
  tern__result r[TERN__MAX_ARGS];
  tern_rc rc = op->infer(&c, &q, r);
  for (int o = 0; o < n_out && !rc; o++) rc = check_target(op, &q, &r[o], out[o], o);
  if (rc || out[0]->numel == 0) return rc;
  for (int o = 0; o < n_out; o++) {
    q.arg[q.n_in + o].storage = out[o]->storage;
    q.arg[q.n_in + o].offset = out[o]->offset;
  }
  tern__canonicalise(&q);
  tern__kernel_class *k = tern__kernel_of(&q);
  if (!k) return tern__recorded();
  rc = tern__launch_class(&q, k);
  if (!rc) tern__memo_learn(t, &key, &c, &q, r, k, out);
  return rc;
}

tern_rc tern__write(tern_tensor *dst, tern_tensor *src) {
  if (tern__tracing_ops()) return tern__graph_listener.write(tern__tls, dst, src);
  if (dst->numel == 0) return TERN_OK;
  tern__request q;
  memset(&q, 0, sizeof q);
  q.op = tern__op_of_prim(TERN_OP_COPY);
  q.device = dst->device;
  q.n_in = q.n_out = 1;
  q.dtype = dst->dtype;
  q.n_sizes = q.n_space = dst->rank;
  for (int d = 0; d < dst->rank; d++) {
    q.size[d] = dst->shape[d];
    q.role[d] = TERN__ROLE_MAP;
  }
  tern__operand_of(&q, 0, src, (tern_dtype)dst->dtype);
  if (q.arg[0].dtype != dst->dtype) q.want[0] = dst->dtype;
  tern__operand_out(&q, 0, (tern_dtype)dst->dtype, 0);
  tern__operand *o = &q.arg[1];
  o->storage = dst->storage;
  o->offset = dst->offset;
  memcpy(o->stride, dst->stride, dst->rank * sizeof *o->stride);
  tern__canonicalise(&q);
  return tern__launch(&q);
}
