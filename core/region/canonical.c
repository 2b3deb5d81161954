/* Canonical form, class key and launch words of a request. */
#include "device/device.h"
#include "ops/op.h"
#include "region/region.h"
#include <string.h>

static bool present(const tern__operand *a, int d) { return a->kind != TERN_V_PARAM && a->dim[d] != TERN__ONE; }

static bool can_merge(const tern__request *q, int p, int d) {
  if (q->role[p] != q->role[d] || q->role[d] == TERN__ROLE_FIXED) return false;
  for (int i = 0; i < q->n_in + q->n_out; i++) {
    const tern__operand *a = &q->arg[i];
    if (a->kind == TERN_V_PARAM) continue;
    if (present(a, p) != present(a, d)) return false;
    if (present(a, p) && a->stride[p] != a->stride[d] * q->size[d]) return false;
  }
  return true;
}

static void move_dim(tern__request *q, int to, int from) {
  q->size[to] = q->size[from];
  q->role[to] = q->role[from];
  for (int i = 0; i < q->n_in + q->n_out; i++) {
    tern__operand *a = &q->arg[i];
    if (a->kind == TERN_V_PARAM) continue;
    a->stride[to] = a->stride[from];
    a->dim[to] = a->dim[from];
  }
}

/* A last dim of size 1, which operand i has where has[i]. */
static void append_one(tern__request *q, int at, uint8_t role, const bool *has) {
  for (int d = q->n_sizes; d > at; d--) { /* fixed sizes behind the space move up */
    q->size[d] = q->size[d - 1];
    q->role[d] = q->role[d - 1];
  }
  q->size[at] = 1;
  q->role[at] = role;
  for (int i = 0; i < q->n_in + q->n_out; i++) {
    tern__operand *a = &q->arg[i];
    if (a->kind == TERN_V_PARAM) continue;
    for (int d = a->rank; d > at; d--) {
      a->stride[d] = a->stride[d - 1];
      a->dim[d] = a->dim[d - 1];
    }
    a->dim[at] = has[i] ? (uint8_t)at : TERN__ONE;
    a->stride[at] = has[i];
    a->rank++;
  }
  q->n_sizes++;
  q->n_space++;
}

/* Sizes were removed from the space: shift what follows and number the operands' dims anew. */
static void close_gap(tern__request *q, int kept) {
  const int gone = q->n_space - kept;
  for (int d = q->n_space; d < q->n_sizes; d++) {
    q->size[d - gone] = q->size[d];
    q->role[d - gone] = q->role[d];
  }
  for (int i = 0; i < q->n_in + q->n_out; i++) {
    tern__operand *a = &q->arg[i];
    if (a->kind == TERN_V_PARAM) continue;
    for (int d = q->n_space; d < a->rank; d++) {
      a->stride[d - gone] = a->stride[d];
      a->dim[d - gone] = a->dim[d] == TERN__ONE ? TERN__ONE : (uint8_t)(a->dim[d] - gone);
    }
    a->rank = (uint8_t)(a->rank - gone);
    for (int d = 0; d < kept; d++)
      if (a->dim[d] != TERN__ONE) a->dim[d] = (uint8_t)d;
  }
  q->n_sizes = (uint8_t)(q->n_sizes - gone);
  q->n_space = (uint8_t)kept;
}

static bool same_memory(const tern__operand *a, const tern__operand *b) {
  return b->kind == TERN_V_IN && a->storage == b->storage && a->offset == b->offset && a->dtype == b->dtype &&
         a->rank == b->rank && !memcmp(a->dim, b->dim, a->rank) &&
         !memcmp(a->stride, b->stride, a->rank * sizeof *a->stride);
}

static void mark_duplicates(tern__request *q) {
  for (int i = 0; i < q->n_in + q->n_out; i++) {
    tern__operand *a = &q->arg[i];
    a->same_as = (uint8_t)i;
    a->alias = TERN__ONE;
    for (int j = 0; j < i && j < q->n_in && a->kind != TERN_V_PARAM; j++) {
      if (!same_memory(a, &q->arg[j])) continue;
      if (i < q->n_in)
        a->same_as = q->arg[j].same_as;
      else
        a->alias = q->arg[j].same_as;
      break;
    }
  }
}

void tern__canonicalise(tern__request *q) {
  int kept = 0;
  bool had_reduced = false, kept_reduced = false, has[TERN__MAX_ARGS];
  for (int i = 0; i < q->n_in + q->n_out; i++) { /* stride 0 is a broadcast, whoever made it */
    tern__operand *a = &q->arg[i];
    has[i] = a->kind != TERN_V_PARAM;
    if (a->kind != TERN_V_IN) continue;
    for (int d = 0; d < q->n_space; d++)
      if (a->dim[d] != TERN__ONE && a->stride[d] == 0 &&
          (q->role[d] == TERN__ROLE_MAP || q->role[d] == TERN__ROLE_BATCH))
        a->dim[d] = TERN__ONE;
  }
  for (int d = 0; d < q->n_space; d++) {
    const bool reduced = q->role[d] == TERN__ROLE_REDUCED;
    if (reduced && !had_reduced)
      for (int i = 0; i < q->n_in + q->n_out; i++) has[i] = present(&q->arg[i], d);
    had_reduced |= reduced;
    if (q->size[d] == 1 && q->role[d] != TERN__ROLE_FIXED) continue;
    kept_reduced |= reduced;
    if (kept && can_merge(q, kept - 1, d)) {
      q->size[kept - 1] *= q->size[d];
      for (int i = 0; i < q->n_in + q->n_out; i++) q->arg[i].stride[kept - 1] = q->arg[i].stride[d];
      continue;
    }
    if (kept != d) move_dim(q, kept, d);
    kept++;
  }
  close_gap(q, kept);
  if (had_reduced && !kept_reduced) {
    append_one(q, kept, TERN__ROLE_REDUCED, has);
  } else if (q->n_sizes == 0) {
    for (int i = 0; i < q->n_in + q->n_out; i++) has[i] = true;
    append_one(q, 0, TERN__ROLE_MAP, has);
  }
  mark_duplicates(q);
}

bool tern__stride_is_literal(const tern__request *q, const tern__operand *a, int d) {
  if (a->dim[d] == TERN__ONE) return true;
  if (d == a->rank - 1) return a->stride[d] == 1 || a->stride[d] == 0;
  /* a DOT's matrices are often transposed views: then the last dim but one is the dense one */
  return q->op->prim == TERN_OP_DOT && d == a->rank - 2 && a->stride[d] == 1 && a->stride[d + 1] != 1;
}

bool tern__fits_int32(const tern__request *q) {
  int64_t space = 1;
  for (int d = 0; d < q->n_sizes; d++)
    if (__builtin_mul_overflow(space, q->size[d], &space)) space = INT64_MAX;
  const uint32_t prim = q->op->prim; /* the sizes of these are not of one iteration space */
  const bool apart = prim == TERN_OP_DOT || (prim >= TERN_OP_CONV && prim <= TERN_OP_CONV_DW) ||
                     prim == TERN_OP_GATHER || prim == TERN_OP_SCATTER;
  if (space > INT32_MAX && !apart) return false;
  for (int i = 0; i < q->n_in + q->n_out; i++) {
    const tern__operand *a = &q->arg[i];
    if (a->kind == TERN_V_PARAM) continue;
    int64_t low = 0, high = 0, n = 1;
    for (int d = 0; d < a->rank; d++) {
      if (a->dim[d] == TERN__ONE) continue;
      const int64_t size = q->size[a->dim[d]], reach = (size - 1) * a->stride[d];
      n *= size;
      if (reach < 0)
        low += reach;
      else
        high += reach;
    }
    if (low < INT32_MIN || high > INT32_MAX || n > INT32_MAX) return false;
  }
  return true;
}

static void put(tern__class_key *key, const void *data, size_t n) {
  memcpy(key->data + key->bytes, data, n);
  key->bytes = (uint16_t)(key->bytes + n);
}

void tern__class_of(const tern__request *q, tern__class_key *key) {
  key->bytes = 0;
  const uint16_t op = q->op->number;
  const uint8_t head[] = {(uint8_t)op, (uint8_t)(op >> 8), q->n_in,    q->n_out,           q->n_sizes,
                          q->n_space,  q->dtype,           q->n_attrs, tern__fits_int32(q)};
  put(key, head, sizeof head);
  put(key, q->role, q->n_sizes);
  put(key, q->want, q->n_in);
  put(key, q->attr, q->n_attrs * sizeof *q->attr);
  for (int i = 0; i < q->n_in + q->n_out; i++) {
    const tern__operand *a = &q->arg[i];
    const uint8_t about[] = {a->kind, a->dtype, a->rank, a->same_as, a->alias};
    put(key, about, sizeof about);
    if (a->kind == TERN_V_PARAM || a->same_as != i) continue;
    put(key, a->dim, a->rank);
    for (int d = 0; d < a->rank; d++) {
      if (d + 2 < a->rank) continue;
      const uint8_t form = a->dim[d] == TERN__ONE ? 3 : tern__stride_is_literal(q, a, d) ? (uint8_t)a->stride[d] : 2;
      put(key, &form, 1);
    }
  }
}

uint32_t tern__words(const tern__request *q, tern_word *words) {
  uint32_t n = 0;
  for (int d = 0; d < q->n_sizes; d++) words[n++].i = q->size[d];
  for (int i = 0; i < q->n_in + q->n_out; i++) {
    const tern__operand *a = &q->arg[i];
    if (a->kind == TERN_V_PARAM)
      words[n++] = a->value;
    else if (a->same_as == i)
      for (int d = 0; d < a->rank; d++)
        if (!tern__stride_is_literal(q, a, d)) words[n++].i = a->stride[d];
  }
  return n;
}

uint32_t tern__args(const tern__request *q, tern_arg *args) {
  uint32_t n = 0;
  for (int i = 0; i < q->n_in + q->n_out; i++) {
    const tern__operand *a = &q->arg[i];
    if (a->kind == TERN_V_PARAM || a->same_as != i) continue;
    args[n].mem = a->storage->mem;
    args[n++].offset = a->storage->mem_offset + (uint64_t)a->offset * (uint64_t)tern_dtype_size(a->dtype);
  }
  return n;
}
