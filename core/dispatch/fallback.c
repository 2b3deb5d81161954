/* What happens when a device refuses: a composite is split into its primitives, each launched on the device with
   temporaries; a primitive runs on the host device, with copies there and back, counted and reported. */
#include "base/log.h"
#include "base/options.h"
#include "dispatch/dispatch.h"
#include "tensor/dtype.h"
#include <stdio.h>
#include <stdlib.h>

/* ---- composites ---- */

#define MAX_VALUES 96

typedef struct {
  const tern__request *q;
  const tern_region *r;
  tern_word words[TERN__MAX_WORDS];
  tern__operand value[MAX_VALUES]; /* each value with numbers */
  bool made[MAX_VALUES];
} split_state;

/* The operand behind argument slot s. */
static const tern__operand *of_slot(const tern__request *q, uint32_t s) {
  uint32_t n = 0;
  for (int i = 0; i < q->n_in + q->n_out; i++) {
    const tern__operand *a = &q->arg[i];
    if (a->kind == TERN_V_PARAM || a->same_as != i) continue;
    if (n++ == s) return a;
  }
  return NULL;
}

static tern_rc make_value(split_state *s, uint32_t id) {
  const tern_value *v = &s->r->values[id];
  tern__operand *o = &s->value[id];
  if (s->made[id]) return TERN_OK;
  memset(o, 0, sizeof *o);
  o->kind = TERN_V_PARAM;
  o->dtype = (uint8_t)v->dtype;
  s->made[id] = true;
  switch (v->kind) {
  case TERN_V_CONST: o->value = v->imm; return TERN_OK;
  case TERN_V_PARAM: o->value = s->words[v->slot]; return TERN_OK;
  case TERN_V_SIZE: {
    const tern_value *of = &s->r->values[v->slot];
    int64_t n = 1;
    for (int d = 0; d < of->rank; d++)
      if (v->imm.u >> d & 1) n *= TERN_LIT(of->shape[d], s->words);
    o->value = tern__convert((tern_word){.i = n}, TERN_I64, (tern_dtype)v->dtype);
    return TERN_OK;
  }
  case TERN_V_IN:
  case TERN_V_OUT: {
    const tern__operand *a = of_slot(s->q, v->slot);
    *o = *a;
    tern__storage_ref(o->storage);
    return TERN_OK;
  }
  default: break;
  }
  int64_t n = 1;
  o->kind = TERN_V_IN;
  o->rank = (uint8_t)v->rank;
  for (int d = v->rank; d-- > 0;) {
    const bool one = !TERN_IS_SYM(v->shape[d]);
    o->dim[d] = one ? TERN__ONE : (uint8_t)TERN_SYM_ID(v->shape[d]);
    o->stride[d] = one ? 0 : n;
    if (!one) n *= s->q->size[o->dim[d]];
  }
  o->storage = tern__storage_new(tern__thread_get(), s->q->device, (uint64_t)n * tern__dtype_size[v->dtype]);
  if (o->storage) return TERN_OK;
  s->made[id] = false;
  return TERN_E_OOM;
}

/* Numbers that earlier nodes made have rank 0, but all operands of one node have the same rank: that of the others, or
   of the space where all are numbers, in which none then has a size. */
static void give_rank(tern__request *q, int n) {
  uint8_t rank = 0;
  for (int i = 0; i < n; i++)
    if (q->arg[i].kind != TERN_V_PARAM && q->arg[i].rank > rank) rank = q->arg[i].rank;
  if (!rank) rank = q->n_sizes = q->n_space;
  for (int i = 0; i < n; i++) {
    tern__operand *o = &q->arg[i];
    if (o->kind == TERN_V_PARAM || o->rank) continue;
    o->rank = rank;
    memset(o->dim, TERN__ONE, rank);
    memset(o->stride, 0, rank * sizeof *o->stride);
  }
}

static tern_rc on_host(const tern__request *q, const tern__op *whole);

/* One primitive: on the device, or if that refuses it too, on the host. */
static tern_rc run_node(split_state *s, const tern_node *node) {
  tern__request q;
  memset(&q, 0, sizeof q);
  q.op = tern__op_of_prim(node->op);
  q.device = s->q->device;
  q.n_in = (uint8_t)node->n_in;
  q.n_out = 1;
  q.n_sizes = s->q->n_sizes;
  q.n_space = s->q->n_space;
  memcpy(q.size, s->q->size, sizeof q.size);
  uint32_t out = s->r->edges[node->out];
  const uint8_t kind = tern__prim_of(node->op)->kind;
  for (uint32_t i = 0; i < node->n_in + 1; i++) {
    const uint32_t id = i < node->n_in ? s->r->edges[node->in + i] : out;
    const tern_rc rc = make_value(s, id);
    if (rc) return rc;
    q.arg[i] = s->value[id];
    if (q.arg[i].kind != TERN_V_PARAM) q.arg[i].kind = i < node->n_in ? TERN_V_IN : TERN_V_OUT;
  }
  if (kind == TERN_K_MAP || kind == TERN_K_REDUCE) give_rank(&q, (int)node->n_in + 1);
  q.dtype = q.arg[0].dtype;
  for (int d = 0; d < q.n_sizes; d++)
    q.role[d] = d >= q.n_space || kind != TERN_K_MAP ? TERN__ROLE_FIXED : TERN__ROLE_MAP;
  if (kind == TERN_K_REDUCE)
    for (int d = 0; d < q.n_space; d++)
      q.role[d] = s->r->attrs[node->attr].u >> d & 1 ? TERN__ROLE_REDUCED : TERN__ROLE_MAP;
  else {
    if (node->op == TERN_OP_IOTA) q.role[s->r->attrs[node->attr].u] = TERN__ROLE_FIXED;
    q.n_attrs = (uint8_t)node->n_attr;
    for (uint32_t i = 0; i < node->n_attr; i++) q.attr[i] = s->r->attrs[node->attr + i];
  }
  /* dims that no operand of this node has are not its sizes */
  for (int d = 0; d < q.n_space; d++) {
    bool used = false;
    for (uint32_t i = 0; i < node->n_in + 1; i++) used |= q.arg[i].kind != TERN_V_PARAM && q.arg[i].dim[d] != TERN__ONE;
    if (!used) q.size[d] = 1;
  }
  tern__canonicalise(&q);
  if (node->op == TERN_OP_IOTA) /* dims before it may have gone */
    for (int d = 0; d < q.n_space; d++)
      if (q.role[d] == TERN__ROLE_FIXED) q.attr[0].i = d;
  tern__kernel_class *k = tern__kernel_of(&q);
  if (!k) return tern__tls->error_code;
  return k->state == TERN__NATIVE ? tern__launch_class(&q, k) : on_host(&q, s->q->op);
}

tern_rc tern__launch_split(const tern__request *q, const tern__kernel_class *k) {
  const tern_region *r = &k->region->r;
  if (r->n_values > MAX_VALUES) return tern__fail(TERN_E_INTERNAL, "%s: too many values to split", k->op);
  split_state *s = calloc(1, sizeof *s);
  if (!s) return tern__fail(TERN_E_OOM, "%s: out of host memory to split it", k->op);
  s->q = q;
  s->r = r;
  tern__words(q, s->words);
  tern_rc rc = TERN_OK;
  for (uint32_t i = 0; i < r->n_nodes && !rc; i++) rc = run_node(s, &r->nodes[i]);
  for (uint32_t i = 0; i < r->n_values; i++)
    if (s->made[i] && s->value[i].storage) tern__storage_unref(s->value[i].storage);
  free(s);
  atomic_fetch_add_explicit(&q->device->stats.splits, 1, memory_order_relaxed);
  return rc;
}

/* ---- the host ---- */

/* The dtype to name in a message: the first that the device lacks, else that of the first operand. */
static const char *dtype_of(const tern__request *q) {
  const uint32_t has = q->device->info.dtypes;
  uint8_t dtype = q->arg[0].dtype;
  for (int i = q->n_in + q->n_out; i-- > 0 && has;)
    if (!(has >> q->arg[i].dtype & 1)) dtype = q->arg[i].dtype;
  return tern_dtype_name((tern_dtype)dtype);
}

/* "softmax: its part EXP" where q is a part of the op `whole`, else the op */
static const char *name_of(const tern__request *q, const tern__op *whole, char *text, size_t size) {
  if (whole == q->op) return whole->name;
  snprintf(text, size, "%s: its part %s", whole->name, q->op->name);
  return text;
}

static tern_rc report(const tern__request *q, const tern__op *whole) {
  static _Atomic uint8_t told[TERN__MAX_DEVICES][2048];
  const tern__device *d = q->device;
  const char *mode = tern__opt()->fallback;
  char name[96];
  if (!strcmp(mode, "error"))
    return tern__fail(TERN_E_UNSUPPORTED, "%s: %s does not compute it on %s, and TERN_FALLBACK=error forbids the host",
                      name_of(q, whole, name, sizeof name), d->name, dtype_of(q));
  if (!strcmp(mode, "silent") || q->op->number >= 2048 || atomic_exchange(&told[d->index][q->op->number], 1))
    return TERN_OK;
  tern__log(TERN__LOG_WARN, "dispatch",
            "%s: %s does not compute it on %s; it runs on the host, with copies (said once an op; "
            "TERN_FALLBACK=silent|error)",
            name_of(q, whole, name, sizeof name), d->name, dtype_of(q));
  return TERN_OK;
}

/* Elements from the lowest to the highest that the operand touches, relative to its offset. */
static void span(const tern__request *q, const tern__operand *a, int64_t *low, int64_t *high) {
  *low = *high = 0;
  for (int d = 0; d < a->rank; d++) {
    if (a->dim[d] == TERN__ONE) continue;
    const int64_t reach = (q->size[a->dim[d]] - 1) * a->stride[d];
    if (reach < 0)
      *low += reach;
    else
      *high += reach;
  }
}

/* The operand in host memory: same strides over a copy of its span. What the launch writes whole is not fetched. */
static tern_rc bring(const tern__request *q, tern__operand *a, tern__device *host) {
  int64_t low, high, n = 1;
  span(q, a, &low, &high);
  for (int d = 0; d < a->rank; d++)
    if (a->dim[d] != TERN__ONE) n *= q->size[a->dim[d]];
  const bool fetch = a->kind == TERN_V_IN || n != high - low + 1;
  const uint64_t item = tern__dtype_size[a->dtype], bytes = (uint64_t)(high - low + 1) * item;
  tern__storage *s = tern__storage_new(tern__thread_get(), host, bytes);
  if (!s) return TERN_E_OOM;
  const tern_rc rc = fetch ? tern__download(s->host, a->storage, (uint64_t)(a->offset + low) * item, bytes) : TERN_OK;
  a->storage = s;
  a->offset = -low;
  return rc;
}

static tern_rc on_host(const tern__request *q, const tern__op *whole) {
  tern__device *host = tern__device_host();
  char name[96];
  if (!host) return TERN_E_UNSUPPORTED;
  if (host == q->device)
    return tern__fail(TERN_E_UNSUPPORTED,
                      "%s: %s does not compute it on %s, and there is no other device to fall back to",
                      name_of(q, whole, name, sizeof name), host->name, dtype_of(q));
  tern_rc rc = report(q, whole);
  if (rc) return rc;
  atomic_fetch_add_explicit(&q->device->stats.fallbacks, 1, memory_order_relaxed);
  tern__request there = *q;
  there.device = host;
  const int n = q->n_in + q->n_out;
  bool brought[TERN__MAX_ARGS] = {false};
  for (int i = 0; i < n && !rc; i++) {
    tern__operand *a = &there.arg[i];
    if (a->kind == TERN_V_PARAM) continue;
    const uint8_t donor = a->same_as != i ? a->same_as : a->alias;
    if (donor != TERN__ONE) {
      a->storage = there.arg[donor].storage;
      a->offset = there.arg[donor].offset;
      continue;
    }
    rc = bring(q, a, host);
    brought[i] = a->storage != q->arg[i].storage;
  }
  if (!rc) rc = tern__launch(&there);
  for (int i = q->n_in; i < n && !rc; i++) {
    int64_t low, high;
    span(q, &q->arg[i], &low, &high);
    const uint64_t item = tern__dtype_size[q->arg[i].dtype];
    rc = tern__upload(q->arg[i].storage, (uint64_t)(q->arg[i].offset + low) * item, there.arg[i].storage->host,
                      (uint64_t)(high - low + 1) * item);
  }
  for (int i = 0; i < n; i++)
    if (brought[i]) tern__storage_unref(there.arg[i].storage);
  return rc;
}

tern_rc tern__launch_on_host(const tern__request *q) { return on_host(q, q->op); }
