/* Elements: tensors, or a row of arrays that is looked at only when somebody needs its tensors. A batch of such rows is
   gathered by their numbers, and no tensor is ever made of one. */
#include "base/alloc.h"
#include "data/data.h"
#include "tensor/dtype.h"
#include <stdlib.h>

/* ---- rows ---- */

static tern_tensor *rows_part(const char *op, tern_tensor *x, int number, const char *path) {
  if (!tern__usable(x, op, number) || !tern__readable(x, op)) return NULL;
  if (x->rank > 0) return tern__host_dense(tern__itself(x));
  if (path)
    tern__fail(TERN_E_ARG, "%s: %s holds a single number; rows need at least one axis", op, path);
  else
    tern__fail(TERN_E_ARG, "%s: tensor %d has rank 0; rows need at least one axis", op, number);
  return NULL;
}

static tern_rc rows_fill(const char *op, tern__rows *rows, tern_tensor *const *tensors, int n,
                         const char *const *paths) {
  for (int i = 0; i < n; i++) {
    tern_tensor *t = rows_part(op, tensors[i], i + 1, paths ? paths[i] : NULL);
    if (!t) return tern__recorded();
    if (i == 0) rows->count = t->shape[0];
    if (t->shape[0] != rows->count && paths)
      return tern__fail(TERN_E_ARG, "%s: %s has %lld rows, but %s has %lld", op, paths[i], (long long)t->shape[0],
                        paths[0], (long long)rows->count);
    if (t->shape[0] != rows->count)
      return tern__fail(TERN_E_ARG, "%s: tensor %d has %lld rows, but the first has %lld", op, i + 1,
                        (long long)t->shape[0], (long long)rows->count);
    rows->part[i].t = tern__ref(t);
    rows->part[i].base = t->numel ? tern__host_bytes(t) : NULL;
    rows->part[i].bytes = t->numel ? (size_t)(t->numel / t->shape[0]) * tern__dtype_size[t->dtype] : 0;
    rows->n = i + 1;
  }
  return TERN_OK;
}

tern__rows *tern__rows_new(const char *op, tern_tensor *const *tensors, int n, const char *const *paths) {
  tern__rows *rows = tern__calloc(1, sizeof *rows);
  if (!rows) {
    tern__fail(TERN_E_OOM, "%s: out of host memory", op);
    return NULL;
  }
  atomic_init(&rows->refs, 1);
  if (!rows_fill(op, rows, tensors, n, paths)) return rows;
  tern__rows_release(rows);
  return NULL;
}

void tern__rows_release(tern__rows *rows) {
  if (!rows || !tern__refs_down(&rows->refs)) return;
  for (int i = 0; i < rows->n; i++) tern__unref(rows->part[i].t);
  free(rows);
}

/* ---- elements ---- */

void tern__element_drop(tern__element *e) {
  if (e->rows)
    tern__rows_release(e->rows);
  else
    for (int i = 0; i < e->n; i++) tern__unref(e->t[i]);
  e->n = 0;
  e->rows = NULL;
}

tern_rc tern__element_solid(tern__element *e) {
  if (!e->rows) return TERN_OK;
  tern__rows *rows = e->rows;
  tern_tensor *view[TERN_MAX_COMPONENTS];
  for (int i = 0; i < rows->n; i++) {
    tern_tensor *all = rows->part[i].t;
    tern_tensor *v = view[i] = tern__view_header(all);
    if (!v) {
      while (i-- > 0) tern__unref(view[i]);
      return tern__fail(TERN_E_OOM, "out of host memory for an element");
    }
    v->rank = (uint8_t)(all->rank - 1);
    memcpy(v->shape, all->shape + 1, v->rank * sizeof *v->shape);
    tern__set_dense(v);
    v->offset += e->row * v->numel;
  }
  memcpy(e->t, view, (size_t)rows->n * sizeof *view);
  e->n = rows->n;
  e->rows = NULL;
  tern__rows_release(rows);
  return TERN_OK;
}

tern_tensor *tern__host_dense(tern_tensor *t) {
  tern__device *host = tern__device_host();
  if (!t || !host) return NULL;
  if (t->device != host) t = tern_to(t, host->name);
  return !t || t->flags & TERN__CONTIG ? t : tern_contiguous(t);
}

/* The tensor that x stands for, on the host, borrowed from the scope. */
static tern_tensor *settled(const char *op, tern_tensor *x, int number) {
  if (!tern__usable(x, op, number) || !tern__readable(x, op)) return NULL;
  tern__device *host = tern__device_host();
  if (!host) return NULL;
  if (x->flags & TERN__WEAK) return tern__solid(x, tern__is_float(x->dtype) ? TERN_F32 : TERN_I64);
  return x->device == host ? tern__itself(x) : tern_to(x, host->name);
}

tern_rc tern__element_from(const char *op, tern_tensor *const *tensors, int n, tern__element *out) {
  if (n < 1 || n > TERN_MAX_COMPONENTS)
    return tern__fail(TERN_E_ARG, "%d tensors were returned; an element has 1 to %d", n, TERN_MAX_COMPONENTS);
  tern_tensor *t[TERN_MAX_COMPONENTS];
  for (int i = 0; i < n; i++)
    if (!(t[i] = settled(op, tensors[i], i + 1))) return tern__recorded();
  *out = (tern__element){.n = n};
  for (int i = 0; i < n; i++) out->t[i] = tern__ref(t[i]);
  return TERN_OK;
}

void tern__element_copy(const tern__element *e, tern__element *out) {
  *out = *e;
  if (e->rows) {
    tern__refs_up(&e->rows->refs);
    return;
  }
  for (int i = 0; i < e->n; i++) tern__ref(e->t[i]);
}

/* ---- packed ---- */

tern_rc tern__pack(tern__element *e, tern__packed *out) {
  if (e->rows) {
    *out = (tern__packed){e->rows, {.row = e->row}};
  } else {
    tern__element *kept = tern__calloc(1, offsetof(tern__element, t) + (size_t)e->n * sizeof *e->t);
    if (!kept) return tern__fail(TERN_E_OOM, "out of host memory for an element");
    memcpy(kept, e, offsetof(tern__element, t) + (size_t)e->n * sizeof *e->t);
    *out = (tern__packed){NULL, {.element = kept}};
  }
  e->rows = NULL;
  e->n = 0;
  return TERN_OK;
}

/* What p says, without a reference of its own. */
static void peek(const tern__packed *p, tern__element *out) {
  *out = (tern__element){.rows = p->rows};
  if (p->rows)
    out->row = p->row;
  else
    memcpy(out, p->element, offsetof(tern__element, t) + (size_t)p->element->n * sizeof *out->t);
}

void tern__unpack(tern__packed *p, tern__element *out) {
  peek(p, out);
  if (!p->rows) free(p->element);
  *p = (tern__packed){0};
}

void tern__packed_copy(const tern__packed *p, tern__element *out) {
  tern__element e;
  peek(p, &e);
  tern__element_copy(&e, out);
}

void tern__packed_drop(tern__packed *p) {
  if (!p->rows && !p->element) return;
  tern__element e;
  tern__unpack(p, &e);
  tern__element_drop(&e);
}

tern_rc tern__packed_add(tern__packed_list *list, tern__element *e) {
  if (list->count == list->capacity) {
    const int64_t capacity = list->capacity ? list->capacity * 2 : 16;
    tern__packed *item = tern__realloc(list->item, (size_t)capacity * sizeof *item);
    if (!item) {
      tern__element_drop(e);
      return tern__fail(TERN_E_OOM, "out of host memory for %lld elements", (long long)capacity);
    }
    list->item = item;
    list->capacity = capacity;
  }
  const tern_rc rc = tern__pack(e, &list->item[list->count]);
  if (rc)
    tern__element_drop(e);
  else
    list->count++;
  return rc;
}

void tern__packed_clear(tern__packed_list *list) {
  for (int64_t i = 0; i < list->count; i++) tern__packed_drop(&list->item[i]);
  free(list->item);
  *list = (tern__packed_list){0};
}
