/* Recording: values, entries, and the table of watched tensors. */
#include "tape/tape.h"
#include "base/alloc.h"
#include "device/device.h"
#include "ops/table.h"
#include "tensor/dtype.h"
#include <stdlib.h>

enum { CHUNK = 64 << 10 };

/* Ids are unique in the process: each record, and each part of one whose values were dropped, takes a stamp of its
   own. */
static _Atomic uint64_t stamps = 1;
static void new_stamp(tern__recorder *r) {
  r->stamp = atomic_fetch_add_explicit(&stamps, 1, memory_order_relaxed) << TERN__ID_BITS;
}

tern__recorder *tern__recorder_of(tern__thread *t) {
  if (t->recorder) return t->recorder;
  tern__recorder *r = tern__calloc(1, sizeof *r);
  if (!r) {
    tern__fail(TERN_E_OOM, "tape: out of host memory");
    return NULL;
  }
  new_stamp(r);
  return t->recorder = r;
}

void tern__hook_update(tern__thread *t) {
  const tern__recorder *r = t->recorder;
  if (r && (r->collector || (!r->paused && r->active)))
    t->hooks |= TERN__HOOK_TAPE;
  else
    t->hooks &= ~(uint32_t)TERN__HOOK_TAPE;
}

static bool no_memory(void) {
  tern__fail(
      TERN_E_OOM,
      "tape: out of host memory for its record; take the gradient in shorter pieces, or use tern_checkpoint_call");
  return false;
}

/* ---- values ---- */

static __attribute__((noinline)) bool more_values(tern__recorder *r) {
  const uint64_t capacity = r->value_capacity ? 2 * (uint64_t)r->value_capacity : 1024;
  if (capacity > TERN__ID_INDEX) return no_memory();
  tern__value *values = tern__realloc(r->values, capacity * sizeof *values);
  if (!values) return no_memory();
  r->values = values;
  r->value_capacity = (uint32_t)capacity;
  return true;
}

/* n: at most 1024 */
static inline bool room_for_values(tern__recorder *r, uint32_t n) {
  return TERN__LIKELY(r->n_values + n <= r->value_capacity) || more_values(r);
}

static inline uint32_t new_value(tern__recorder *r, uint32_t mask, uint32_t watched) {
  const uint32_t i = r->n_values++;
  r->values[i] = (tern__value){.id = r->stamp | i | (watched ? TERN__ID_WATCHED : 0), .mask = mask, .watched = watched};
  return i;
}

static inline uint64_t id_of(const tern_tensor *t) { return __atomic_load_n(&t->grad_id, __ATOMIC_RELAXED); }

static inline bool is_value(const tern__recorder *r, uint64_t id) {
  const uint64_t i = id & TERN__ID_INDEX;
  return i < r->n_values && r->values[i].id == id;
}

/* ---- watched tensors ---- */

static uint32_t slot_of(const tern__recorder *r, const tern_tensor *t) {
  uint32_t i = (uint32_t)((uintptr_t)t >> 6) * 2654435761u;
  for (;; i++) {
    const struct tern__watched *w = &r->watched[i & (r->watched_capacity - 1)];
    if (!w->tensor || w->tensor == t) return i & (r->watched_capacity - 1);
  }
}

static bool room_to_watch(tern__recorder *r) {
  if (2 * (r->n_watched + 1) <= r->watched_capacity) return true;
  const uint32_t old = r->watched_capacity, capacity = old ? 2 * old : 64;
  struct tern__watched *table = tern__calloc(capacity, sizeof *table), *before = r->watched;
  if (!table) return no_memory();
  r->watched = table;
  r->watched_capacity = capacity;
  for (uint32_t i = 0; i < old; i++)
    if (before[i].tensor) r->watched[slot_of(r, before[i].tensor)] = before[i];
  free(before);
  return true;
}

static int32_t find_watched(const tern__recorder *r, const tern_tensor *t) {
  if (!r->n_watched) return -1;
  const struct tern__watched *w = &r->watched[slot_of(r, t)];
  return w->tensor ? w->value : -1;
}

/* The grad_id of a watched tensor is a hint that other threads may overwrite: the table is the truth. What another
   record computed keeps its id. */
static void leave_hint(tern__recorder *r, tern_tensor *t, int32_t value) {
  const uint64_t before = id_of(t);
  if (before == 0 || before & TERN__ID_WATCHED)
    __atomic_store_n(&t->grad_id, r->values[value].id, __ATOMIC_RELAXED);
  else if (before != r->values[value].id)
    r->foreign = true;
}

bool tern__watch(tern__recorder *r, tern_tensor *t, uint32_t mask) {
  int32_t v = find_watched(r, t);
  if (v < 0) {
    if (!room_for_values(r, 1) || !room_to_watch(r)) return false;
    const bool computed = is_value(r, id_of(t)); /* under another tape */
    v = computed ? (int32_t)(id_of(t) & TERN__ID_INDEX) : (int32_t)new_value(r, 0, mask);
    r->watched[slot_of(r, t)] = (struct tern__watched){tern__ref(t), v};
    r->n_watched++;
    leave_hint(r, t, v);
  }
  r->values[v].mask |= mask;
  r->values[v].watched |= mask;
  return true;
}

/* A variable, or a tensor whose id is of another record. */
static __attribute__((noinline)) int32_t find_slow(tern__recorder *r, tern_tensor *t) {
  int32_t v = find_watched(r, t);
  const bool automatic = (t->flags & TERN__VARIABLE) && !t->variable->frozen && tern__is_float((tern_dtype)t->dtype);
  if (v < 0 && automatic && r->automatic & r->active) {
    if (!tern__watch(r, t, r->automatic & r->active)) return -2;
    v = find_watched(r, t);
  }
  if (v >= 0 && automatic) {
    r->values[v].mask |= r->automatic & r->active;
    r->values[v].watched |= r->automatic & r->active;
    leave_hint(r, t, v);
  }
  return v;
}

static inline int32_t find(tern__recorder *r, tern_tensor *t) {
  const uint64_t id = id_of(t), i = id & TERN__ID_INDEX;
  if (TERN__LIKELY(i < r->n_values && r->values[i].id == id)) {
    /* a tape that began since the variable was first seen watches it now */
    if (TERN__UNLIKELY((t->flags & TERN__VARIABLE) && (r->automatic & r->active & ~r->values[i].mask)))
      return find_slow(r, t);
    return (int32_t)i;
  }
  if (TERN__UNLIKELY((t->flags & TERN__VARIABLE) || id & TERN__ID_WATCHED || (r->foreign && id)))
    return find_slow(r, t);
  return -1;
}

int32_t tern__value_of(tern__recorder *r, tern_tensor *t) { return find(r, t); }

/* ---- entries ---- */

static __attribute__((noinline)) bool next_chunk(tern__recorder *r, uint32_t bytes) {
  if (r->chunk && r->chunk->next && r->chunk->next->capacity >= bytes) {
    r->chunk = r->chunk->next;
    r->chunk->used = 0;
    return true;
  }
  tern__chunk *c = tern__calloc(1, sizeof *c + CHUNK);
  if (!c) return no_memory();
  c->capacity = CHUNK;
  if (r->chunk) {
    c->next = r->chunk->next;
    r->chunk->next = c;
  } else {
    r->first_chunk = c;
  }
  r->chunk = c;
  return true;
}

static inline tern__entry *new_entry(tern__recorder *r, uint32_t bytes) {
  if (TERN__UNLIKELY(!r->chunk || r->chunk->used + bytes > r->chunk->capacity) && !next_chunk(r, bytes)) return NULL;
  tern__entry *e = (tern__entry *)(r->chunk->data + r->chunk->used);
  r->chunk->used += bytes;
  return e;
}

/* Only shape, dtype and device of t. */
static tern_tensor *ghost(const tern_tensor *t) {
  tern_tensor *g = tern__header(tern__tls);
  if (TERN__UNLIKELY(!g)) return NULL;
  g->dtype = t->dtype;
  g->rank = t->rank;
  g->flags = t->flags & TERN__CONTIG;
  g->device = t->device;
  g->storage = NULL;
  g->offset = 0;
  g->numel = t->numel;
  g->grad_id = 0;
  for (int d = 0; d < t->rank; d++) {
    g->shape[d] = t->shape[d];
    g->stride[d] = t->stride[d];
  }
  return g;
}

tern_tensor *tern__alias(tern_tensor *v, uint64_t id) {
  tern_tensor *s = tern__view_header(v);
  if (TERN__UNLIKELY(!s)) return NULL;
  s->rank = v->rank;
  s->flags = v->flags & TERN__CONTIG;
  s->grad_id = id;
  for (int d = 0; d < v->rank; d++) {
    s->shape[d] = v->shape[d];
    s->stride[d] = v->stride[d];
  }
  return s;
}

static inline bool same_form(const tern_tensor *a, const tern_tensor *b) {
  if (a->dtype != b->dtype || a->rank != b->rank || a->device != b->device) return false;
  for (int d = 0; d < a->rank; d++)
    if (a->shape[d] != b->shape[d]) return false;
  return true;
}

static __attribute__((noinline)) bool hold_other(const tern__recorder *r, tern_tensor *t, bool data, int32_t value,
                                                 tern_tensor **held) {
  if (t == TERN_NONE)
    *held = t;
  else if (t->flags & TERN__VARIABLE) /* its shape never changes, its value may */
    *held = data ? tern__alias(t, value >= 0 ? r->values[value].id : 0) : tern__ref(t);
  else
    *held = t->flags & TERN__WEAK ? tern__ref(t) : ghost(t);
  return *held != NULL;
}

/* What the entry holds of operand i. NULL: the same form as output 0, data not needed. */
static inline __attribute__((always_inline)) bool hold(const tern__recorder *r, tern_tensor *t, bool data,
                                                       int32_t value, const tern_tensor *out, tern_tensor **held) {
  const bool plain = !(t->flags & (TERN__VARIABLE | TERN__WEAK)) && t != TERN_NONE;
  if (TERN__LIKELY(plain && data)) {
    *held = tern__ref(t);
    return true;
  }
  *held = NULL;
  if (TERN__LIKELY(plain && same_form(t, out))) return true;
  return hold_other(r, t, data, value, held);
}

static void drop_held(tern_tensor **held, int n) {
  for (int i = 0; i < n; i++)
    if (held[i] && held[i] != TERN_NONE) tern__unref(held[i]);
}

/* Variables that a body uses (tern_checkpoint_call). */
void tern__collect(tern__recorder *r, tern_tensor *const *in, int n_in) {
  struct tern__collector *c = r->collector;
  for (int i = 0; i < n_in; i++) {
    if (in[i] == TERN_NONE || !(in[i]->flags & TERN__VARIABLE)) continue;
    int k = 0;
    while (k < c->n && c->variables[k] != in[i]) k++;
    if (k < c->n) continue;
    if (c->n == c->capacity) {
      const int capacity = c->capacity ? 2 * c->capacity : 16;
      tern_tensor **more = tern__realloc(c->variables, (size_t)capacity * sizeof *more);
      if (!more) {
        c->failed = true;
        return;
      }
      c->variables = more;
      c->capacity = capacity;
    }
    c->variables[c->n++] = tern__ref(in[i]);
  }
}

static bool too_large(const tern__op *op, int n_in) {
  tern__fail(TERN_E_UNSUPPORTED, "tape: %s with %d operands is too much for one entry; split it", op->name, n_in);
  return false;
}

/* Inlined for the counts that ops mostly have. */
static inline __attribute__((always_inline)) bool append(tern__recorder *r, const tern__op *op, tern_tensor *const *in,
                                                         int n_in, const tern_word *attr, int n_attr,
                                                         tern_tensor *const *out, int n_out) {
  const uint32_t bytes =
      (uint32_t)(sizeof(tern__entry) + (((size_t)n_in * 4 + 7) & ~(size_t)7) +
                 ((size_t)n_in + (size_t)n_out) * sizeof(tern_tensor *) + (size_t)n_attr * sizeof(tern_word));
  if (TERN__UNLIKELY(bytes > UINT16_MAX)) return too_large(op, n_in);
  if (TERN__UNLIKELY(!room_for_values(r, (uint32_t)n_out))) return false;
  tern__entry *e = new_entry(r, bytes);
  if (TERN__UNLIKELY(!e)) return false;
  e->n_in = (uint16_t)n_in;
  e->n_out = (uint16_t)n_out;
  int32_t *values = tern__entry_values(e);
  uint32_t mask = 0;
  for (int i = 0; i < n_in; i++) {
    values[i] = find(r, in[i]);
    if (values[i] >= 0)
      mask |= r->values[values[i]].mask;
    else if (TERN__UNLIKELY(values[i] == -2)) /* out of memory */
      return r->chunk->used -= bytes, false;
  }
  mask &= r->active;
  if (!mask) {
    r->chunk->used -= bytes;
    return true;
  }
  tern_tensor **held = tern__entry_in(e);
  bool holds = n_attr != 0; /* a closure may be among them */
  for (int i = 0; i < n_in; i++) {
    if (TERN__UNLIKELY(!hold(r, in[i], op->keeps >> (i < 16 ? i : 15) & 1, values[i], out[0], &held[i]))) {
      drop_held(held, i);
      r->chunk->used -= bytes;
      return no_memory();
    }
    holds |= held[i] != NULL;
  }
  tern_tensor **kept_out = tern__entry_out(e);
  e->first_out = (int32_t)r->n_values;
  for (int o = 0; o < n_out; o++) {
    kept_out[o] = op->keeps >> (o < 16 ? 16 + o : 31) & 1 ? tern__ref(out[o]) : NULL;
    holds |= kept_out[o] != NULL;
    out[o]->grad_id = r->values[new_value(r, mask, 0)].id;
  }
  tern_word *words = tern__entry_attr(e);
  for (int i = 0; i < n_attr; i++) words[i] = attr[i];
  e->op = op;
  e->mask = mask;
  e->holds = holds;
  r->n_holding += holds;
  e->n_attr = (uint16_t)n_attr;
  e->bytes = (uint16_t)bytes;
  e->prev = r->last;
  r->last = e;
  return true;
}

bool tern__record_op(tern__thread *t, const tern__op *op, tern_tensor *const *in, int n_in, const tern_word *attr,
                     int n_attr, tern_tensor *const *out, int n_out) {
  tern__recorder *r = t->recorder;
  if (TERN__UNLIKELY(r->collector != NULL)) {
    tern__collect(r, in, n_in);
    return true;
  }
  if (TERN__UNLIKELY(!op->grad)) return true;
  bool any = false; /* of several results some may be floats */
  for (int o = 0; o < n_out && !any; o++) any = TERN_D_FLOAT >> out[o]->dtype & 1;
  if (TERN__UNLIKELY(!any)) return true;
  if (TERN__LIKELY(n_attr == 0 && n_out == 1)) {
    if (TERN__LIKELY(n_in == 2)) return append(r, op, in, 2, NULL, 0, out, 1);
    if (n_in == 1) return append(r, op, in, 1, NULL, 0, out, 1);
  }
  return append(r, op, in, n_in, attr, n_attr, out, n_out);
}

void tern__entry_release(tern__recorder *r, tern__entry *e) {
  r->n_holding -= e->holds;
  if (!e->holds) {
    e->mask = 0;
    return;
  }
  drop_held(tern__entry_in(e), e->n_in);
  drop_held(tern__entry_out(e), e->n_out);
  if (e->op == &tern__op_custom) tern__closure_release(tern__entry_attr(e)[0]);
  e->mask = 0;
  e->holds = false;
}

static bool in_chunk(const tern__chunk *c, const tern__entry *e) {
  return (const char *)e >= c->data && (const char *)e < c->data + c->capacity;
}

/* Take unused entries off the end of the record; their values' ids must not be given again. */
static void trim(tern__recorder *r) {
  bool any = false;
  uint32_t n_values = r->n_values;
  while (r->last && !r->last->mask) {
    if ((uint32_t)r->last->first_out < n_values) n_values = (uint32_t)r->last->first_out;
    for (tern_tape *tape = r->tapes; tape; tape = tape->outer) /* tapes may end in any order */
      if (tape->start == r->last) tape->start = r->last->prev;
    r->last = r->last->prev;
    any = true;
  }
  if (!any) return;
  /* watched tensors may have values behind those of the dropped entries: then the numbers stay taken */
  for (uint32_t i = 0; i < r->watched_capacity; i++)
    if (r->watched[i].tensor && (uint32_t)r->watched[i].value >= n_values) n_values = (uint32_t)r->watched[i].value + 1;
  if (r->last) { /* nor are those of an entry that stays */
    const uint32_t end = (uint32_t)r->last->first_out + r->last->n_out;
    if (n_values < end) n_values = end;
  }
  if (n_values < r->n_values) {
    r->n_values = n_values;
    for (tern_tape *tape = r->tapes; tape; tape = tape->outer)
      if (tape->first_value > n_values) tape->first_value = n_values;
    new_stamp(r);
  }
  tern__chunk *c = r->first_chunk;
  if (r->last)
    while (!in_chunk(c, r->last)) c = c->next;
  r->chunk = c;
  if (c) c->used = r->last ? (uint32_t)((char *)r->last - c->data) + r->last->bytes : 0;
}

static void clear_value(tern__value *v, uint32_t bit) {
  v->mask &= ~bit;
  v->watched &= ~bit;
}

/* Let go of the tensors that no tape watches any more. The table keeps its size; without memory for another it stays.
   */
static void forget_watched(tern__recorder *r) {
  uint32_t gone = 0;
  for (uint32_t i = 0; i < r->watched_capacity; i++)
    gone += r->watched[i].tensor && !r->values[r->watched[i].value].watched;
  struct tern__watched *before = r->watched, *table = gone ? tern__calloc(r->watched_capacity, sizeof *table) : NULL;
  if (!table) return;
  r->watched = table;
  for (uint32_t i = 0; i < r->watched_capacity; i++) {
    if (!before[i].tensor) continue;
    if (r->values[before[i].value].watched)
      r->watched[slot_of(r, before[i].tensor)] = before[i];
    else
      tern__unref(before[i].tensor);
  }
  r->n_watched -= gone;
  free(before);
}

void tern__forget(tern__recorder *r, uint32_t bit, tern__entry *start, uint32_t first_value) {
  for (tern__entry *e = r->last; e && e != start; e = e->prev) {
    if (!(e->mask & bit)) continue;
    e->mask &= ~bit;
    if (!e->mask) tern__entry_release(r, e);
  }
  for (uint32_t i = first_value; i < r->n_values; i++) clear_value(&r->values[i], bit);
  for (uint32_t i = 0; i < r->watched_capacity; i++)
    if (r->watched[i].tensor) clear_value(&r->values[r->watched[i].value], bit);
  forget_watched(r);
  trim(r);
}

void tern__record_clear(tern__recorder *r) {
  for (tern__entry *e = r->last; e && r->n_holding; e = e->prev)
    if (e->holds) tern__entry_release(r, e);
  r->last = NULL;
  r->n_values = 0;
  new_stamp(r);
  r->chunk = r->first_chunk;
  if (r->chunk) r->chunk->used = 0;
  for (uint32_t i = 0; i < r->watched_capacity && r->n_watched; i++)
    if (r->watched[i].tensor) {
      tern_tensor *t = r->watched[i].tensor;
      r->watched[i].tensor = NULL;
      r->n_watched--;
      tern__unref(t);
    }
  r->n_watched = 0;
  r->foreign = false;
}

void tern__recorder_free(tern__recorder *r) {
  tern__record_clear(r);
  for (tern__chunk *c = r->first_chunk, *next; c; c = next) {
    next = c->next;
    free(c);
  }
  tern_tape *lists[] = {r->tapes, r->finished, r->free_tapes};
  for (int i = 0; i < 3; i++)
    for (tern_tape *tape = lists[i], *next; tape; tape = next) {
      next = tape->outer;
      free(tape);
    }
  free(r->values);
  free(r->watched);
  free(r);
}
