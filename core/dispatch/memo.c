/* The memory of calls. A program's loop makes the same calls with the same shapes again and again: what the general
   path works out about one (result shape, canonical sizes, kernel) is kept under a key of everything that it depends
   on. A hit copies the launch words, fills in host scalars and memory handles, and launches. */
#include "base/alloc.h"
#include "device/trace.h"
#include "dispatch/dispatch.h"
#include "tensor/dtype.h"
#include <stdio.h>
#include <stdlib.h>

enum { MAX_IN = 16, RESULT = 0x80 };

struct tern__memo {
  uint64_t hash;
  uint32_t n_key;
  const tern__kernel_class *kernel;
  tern__device *device;
  uint64_t workspace;
  uint8_t n_words, n_args, n_scalars, n_out, dtype, rank;
  struct {
    uint8_t word, input, dtype;
  } scalar[MAX_IN];            /* launch word = host scalar `input` as dtype */
  uint8_t arg[TERN__MAX_ARGS]; /* RESULT + output, or number of the input */
  int64_t shape[TERN_MAX_RANK];
  tern_word words[]; /* n_words, then the key's n_key */
};

static inline uint64_t mix(uint64_t h, uint64_t w) {
  h = (h ^ w) * UINT64_C(0x9E3779B97F4A7C15);
  return h ^ h >> 29;
}

/* Dtype, rank, kind and device of an operand, then its shape, and its strides unless they are the usual ones. */
static inline uint32_t put_operand(uint64_t *w, const tern_tensor *t) {
  uint32_t n = 0;
  const uint64_t about =
      (uint64_t)t->dtype | (uint64_t)t->rank << 8 | (uint64_t)(t->flags & (TERN__CONTIG | TERN__WEAK)) << 16;
  if (t->flags & TERN__WEAK || t == TERN_NONE) {
    w[n++] = about | (uint64_t)(t == TERN_NONE) << 31;
    return n;
  }
  w[n++] = about | (uint64_t)t->device->index << 32;
  for (int d = 0; d < t->rank; d++) w[n++] = (uint64_t)t->shape[d];
  if (t->flags & TERN__CONTIG) return n;
  for (int d = 0; d < t->rank; d++) w[n++] = (uint64_t)t->stride[d];
  return n;
}

static inline bool same_place(const tern_tensor *a, const tern_tensor *b) {
  return a == b || (a->storage == b->storage && a->offset == b->offset && a->storage);
}

tern__memo *tern__memo_find(tern__thread *t, const tern__call *c, const tern__device *device, tern_tensor *const *out,
                            int n_out, tern__memo_key *key) {
  key->n = 0;
  uint64_t most = 3 + (uint64_t)c->n_attr;
  for (int i = 0; i < c->n_in; i++) most += 1 + 2 * (uint64_t)c->in[i]->rank;
  if (c->n_in > MAX_IN || most + 2 * (uint64_t)n_out > TERN__MEMO_WORDS) return NULL;
  uint64_t *w = key->word, relation = 0;
  bool solid = device || n_out; /* host scalars alone run on the thread's device of the moment */
  uint32_t n = 0;
  w[n++] = (uintptr_t)c->op;
  const uint32_t at_relation = n++, at_count = n++;
  for (int i = 0; i < c->n_attr; i++) w[n++] = c->attr[i].u;
  for (int i = 0; i < c->n_in; i++) {
    n += put_operand(w + n, c->in[i]);
    solid |= c->in[i]->storage != NULL;
    int first = 0; /* the first operand in the same place */
    while (first < i && !same_place(c->in[i], c->in[first])) first++;
    relation |= (uint64_t)first << 4 * i;
  }
  for (int o = 0; o < n_out; o++) {
    uint64_t from = 0;
    for (int i = 0; i < c->n_in; i++)
      if (same_place(out[o], c->in[i])) from |= UINT64_C(1) << i;
    w[n++] = from | (uint64_t)out[o]->dtype << 32 | (uint64_t)out[o]->device->index << 40;
    w[n++] = (uint64_t)out[o]->numel << 1 | (out[o]->flags & TERN__CONTIG);
  }
  if (TERN__UNLIKELY(!solid)) return NULL;
  w[at_relation] = relation;
  w[at_count] = (uint64_t)(device ? device->index + 1 : 0) << 16 | (uint64_t)c->n_in << 8 | (uint64_t)n_out;
  uint64_t hash = 0;
  for (uint32_t i = 0; i < n; i++) hash = mix(hash, w[i]);
  key->hash = hash;
  key->n = n;
  if (TERN__UNLIKELY(!t->memo)) return NULL;
  tern__memo *m = t->memo[hash & (TERN__MEMO_SLOTS - 1)];
  if (!m || m->hash != hash || m->n_key != n || memcmp(m->words + m->n_words, w, n * sizeof *w)) return NULL;
  return m;
}

/* A fresh row-major tensor of the remembered result's form. */
static inline tern_tensor *result(tern__thread *thread, const tern__memo *m) {
  tern_tensor *t = tern__header(thread);
  if (TERN__UNLIKELY(!t)) return NULL;
  t->dtype = m->dtype;
  t->rank = m->rank;
  t->flags = TERN__CONTIG;
  t->device = m->device;
  t->offset = 0;
  t->grad_id = 0;
  int64_t n = 1;
  for (int d = m->rank; d-- > 0;) {
    t->shape[d] = m->shape[d];
    t->stride[d] = n;
    n *= m->shape[d];
  }
  t->numel = n;
  t->storage = tern__storage_new(thread, m->device, (uint64_t)n * tern__dtype_size[m->dtype]);
  if (TERN__LIKELY(t->storage != NULL)) return t;
  tern__free_tensor(t);
  return NULL;
}

tern_rc tern__memo_run(tern__thread *t, const tern__memo *m, const tern__call *c, tern_tensor *const *out,
                       tern_tensor **made) {
  tern__device *d = m->device;
  if (TERN__UNLIKELY(atomic_load_explicit(&d->lost, memory_order_relaxed)))
    return tern__fail(TERN_E_LOST, "%s: %s is lost; use another device", c->op->name, d->name);
  tern_tensor *fresh = NULL;
  if (!out) {
    fresh = result(t, m);
    if (TERN__UNLIKELY(!fresh)) return TERN_E_OOM;
    out = &fresh;
  }
  tern_word words[TERN__MAX_WORDS];
  tern_arg args[TERN__MAX_ARGS];
  for (int i = 0; i < m->n_words; i++) words[i] = m->words[i];
  for (int i = 0; i < m->n_scalars; i++) {
    const tern_tensor *s = c->in[m->scalar[i].input];
    words[m->scalar[i].word] = tern__convert(s->imm, (tern_dtype)s->dtype, (tern_dtype)m->scalar[i].dtype);
  }
  for (int i = 0; i < m->n_args; i++) {
    const tern_tensor *x = m->arg[i] & RESULT ? out[m->arg[i] & ~RESULT] : c->in[m->arg[i]];
    args[i] = (tern_arg){x->storage->mem, x->storage->mem_offset + (uint64_t)x->offset * tern__dtype_size[x->dtype]};
  }
  tern_launch l = {.args = args, .words = words, .n_args = m->n_args, .n_words = m->n_words};
  tern__storage *workspace = NULL;
  tern_rc rc = TERN_OK;
  if (m->workspace) {
    workspace = tern__storage_new(t, d, m->workspace);
    if (workspace)
      l.workspace = (tern_arg){workspace->mem, workspace->mem_offset};
    else
      rc = TERN_E_OOM;
  }
  if (TERN__LIKELY(!rc)) {
    const bool traced = TERN__UNLIKELY(t->hooks & TERN__HOOK_TRACE);
    const uint64_t began = traced ? tern__now_ns() : 0;
    tern__plugin_error_clear();
    tern__queue_lock(d);
    rc = d->launch(d->dev, d->queue, m->kernel->kernel, &l);
    tern__queue_unlock(d);
    tern__count_launch(t, d);
    if (traced) tern__trace("launch", m->kernel->op, d, 0, began, "");
    if (TERN__UNLIKELY(rc)) {
      char what[96];
      snprintf(what, sizeof what, "launching %s", m->kernel->op);
      tern__device_failed(d, rc, what);
    }
  }
  if (workspace) tern__storage_unref(workspace); /* same queue: reusable at once */
  if (fresh && rc)
    tern__unref(fresh);
  else if (fresh)
    *made = fresh;
  return rc;
}

/* Which input operand a comes from; -1: none for certain. */
static int input_of(const tern__call *c, const tern__operand *a) {
  for (int i = 0; i < c->n_in; i++) {
    const tern_tensor *x = c->in[i];
    if (x != TERN_NONE && !(x->flags & TERN__WEAK) && x->storage == a->storage && x->offset == a->offset &&
        x->dtype == a->dtype)
      return i;
  }
  return -1;
}

/* The words, arguments and host scalars of the request; false when some of them cannot be told from the call alone. */
static bool describe(tern__memo *m, const tern__call *c, const tern__request *q, tern_tensor *const *out) {
  uint32_t word = q->n_sizes;
  for (int i = 0; i < q->n_in + q->n_out; i++) {
    const tern__operand *a = &q->arg[i];
    if (a->kind == TERN_V_PARAM) {
      if (a->weak == TERN_NONE) return false;
      int from = -1;
      for (int k = 0; k < c->n_in; k++)
        if (a->weak && c->in[k] == a->weak) from = k;
      if (a->weak && (from < 0 || m->n_scalars == MAX_IN)) return false;
      if (a->weak) {
        m->scalar[m->n_scalars].word = (uint8_t)word;
        m->scalar[m->n_scalars].input = (uint8_t)from;
        m->scalar[m->n_scalars++].dtype = a->dtype;
      }
      word++;
      continue;
    }
    if (a->same_as != i) continue;
    for (int d = 0; d < a->rank; d++) word += !tern__stride_is_literal(q, a, d);
    int from = i >= q->n_in ? RESULT + (i - q->n_in) : input_of(c, a);
    if (from < 0 || (i >= q->n_in && !out && i > q->n_in)) return false;
    m->arg[m->n_args++] = (uint8_t)from;
  }
  return word == m->n_words && word < 256;
}

void tern__memo_learn(tern__thread *t, const tern__memo_key *key, const tern__call *c, const tern__request *q,
                      const tern__result *r, const tern__kernel_class *k, tern_tensor *const *out) {
  if (!key->n || k->state != TERN__NATIVE) return;
  tern_word words[TERN__MAX_WORDS];
  const uint32_t n = tern__words(q, words);
  uint64_t workspace = k->workspace;
  if (workspace == UINT64_MAX &&
      (!q->device->api->workspace || q->device->api->workspace(q->device->dev, k->kernel, words, &workspace)))
    return;
  if (!t->memo && !(t->memo = tern__calloc(TERN__MEMO_SLOTS, sizeof *t->memo))) return;
  tern__memo *m = tern__calloc(1, sizeof *m + (n + key->n) * sizeof *m->words);
  if (!m) return;
  m->hash = key->hash;
  m->n_key = key->n;
  m->kernel = k;
  m->device = q->device;
  m->workspace = workspace;
  m->n_words = (uint8_t)n;
  m->n_out = q->n_out;
  m->dtype = (uint8_t)r->dtype;
  m->rank = (uint8_t)r->rank;
  memcpy(m->shape, r->shape, sizeof m->shape);
  memcpy(m->words, words, n * sizeof *words);
  memcpy(m->words + n, key->word, key->n * sizeof *key->word);
  if (n > 255 || !describe(m, c, q, out)) {
    free(m);
    return;
  }
  tern__memo **slot = &t->memo[key->hash & (TERN__MEMO_SLOTS - 1)];
  free(*slot);
  *slot = m;
}
