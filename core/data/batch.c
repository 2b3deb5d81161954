/* Batches: elements are collected, then copied side by side into new host memory. Rows of the same arrays are gathered
   by their numbers. */
#include "data/data.h"

/* ---- stacking ---- */

tern_tensor *tern__stacked(const char *op, tern_dtype dtype, int rank, const int64_t *shape, int64_t count) {
  if (rank + 1 > TERN_MAX_RANK) {
    tern__fail(TERN_E_ARG, "%s: elements of rank %d cannot be stacked: a tensor has at most %d axes", op, rank,
               TERN_MAX_RANK);
    return NULL;
  }
  int64_t all[TERN_MAX_RANK];
  all[0] = count;
  for (int d = 0; d < rank; d++) all[d + 1] = shape[d];
  tern__device *host = tern__device_host();
  return host ? tern__new(host, dtype, rank + 1, all, op) : NULL;
}

static tern_rc gather(const char *op, const tern__packed *items, int64_t count, tern__element *out) {
  const tern__rows *rows = items[0].rows;
  for (int i = 0; i < rows->n; i++) {
    const tern_tensor *all = rows->part[i].t;
    tern_tensor *t = tern__stacked(op, (tern_dtype)all->dtype, all->rank - 1, all->shape + 1, count);
    if (!t) return tern__recorded();
    out->t[out->n++] = t;
    const size_t bytes = rows->part[i].bytes;
    if (!bytes) continue;
    char *dst = tern__host_bytes(t);
    for (int64_t k = 0; k < count; k++, dst += bytes)
      memcpy(dst, rows->part[i].base + (size_t)items[k].row * bytes, bytes);
  }
  return TERN_OK;
}

static tern_rc differs(const char *op, int component, int64_t k, const tern_tensor *a, const tern_tensor *b) {
  char first[200], other[200];
  return tern__fail(
      TERN_E_ARG, "%s: component %d of element %lld of the batch is %s %s, but that of the first is %s %s; %s", op,
      component, (long long)k, tern_dtype_name((tern_dtype)b->dtype), tern__shape_text(other, b->rank, b->shape),
      tern_dtype_name((tern_dtype)a->dtype), tern__shape_text(first, a->rank, a->shape),
      "make them equal with tern_dataset_map, or use tern_dataset_padded_batch");
}

/* Component c of each of the elements into one tensor. */
static tern_rc stack_component(const char *op, tern__packed *items, int64_t count, int c, tern__element *out) {
  const tern_tensor *first = items[0].element->t[c];
  tern_tensor *all = NULL;
  for (int64_t k = 0; k < count; k++) {
    TERN_SCOPE;
    tern_tensor *t = items[k].element->t[c];
    if (t->dtype != first->dtype || t->rank != first->rank ||
        memcmp(t->shape, first->shape, first->rank * sizeof *t->shape))
      return differs(op, c, k, first, t);
    if (k == 0 && !(all = tern__stacked(op, (tern_dtype)t->dtype, t->rank, t->shape, count))) return tern__recorded();
    if (k == 0) out->t[out->n++] = all;
    if (t->numel == 0) continue;
    if (!(t = tern__host_dense(t))) return tern__recorded();
    const size_t bytes = (size_t)t->numel * tern__dtype_size[t->dtype];
    memcpy(tern__host_bytes(all) + (size_t)k * bytes, tern__host_bytes(t), bytes);
  }
  return TERN_OK;
}

tern_rc tern__packed_solid(const char *op, tern__packed *items, int64_t count) {
  for (int64_t k = 0; k < count; k++) {
    if (items[k].rows) {
      tern__element e;
      tern__unpack(&items[k], &e);
      tern_rc rc = tern__element_solid(&e);
      if (!rc) rc = tern__pack(&e, &items[k]);
      if (rc) {
        tern__element_drop(&e);
        return rc;
      }
    }
    if (items[k].element->n != items[0].element->n)
      return tern__fail(TERN_E_ARG, "%s: element %lld of the batch has %d components, the first has %d", op,
                        (long long)k, items[k].element->n, items[0].element->n);
  }
  return TERN_OK;
}

tern_rc tern__stack(const char *op, tern__packed *items, int64_t count, tern__element *out) {
  *out = (tern__element){0};
  bool same_rows = items[0].rows != NULL;
  for (int64_t k = 1; k < count && same_rows; k++) same_rows = items[k].rows == items[0].rows;
  tern_rc rc = same_rows ? gather(op, items, count, out) : tern__packed_solid(op, items, count);
  for (int c = 0; !same_rows && !rc && c < items[0].element->n; c++) rc = stack_component(op, items, count, c, out);
  for (int64_t k = 0; k < count; k++) tern__packed_drop(&items[k]);
  if (rc) tern__element_drop(out);
  return rc;
}

/* ---- batch and padded_batch ---- */

typedef struct batch {
  tern_dataset base;
  int64_t size;
  bool drop_remainder, padded;
  tern__padding padding;
} batch;

typedef struct batch_iter {
  tern__iter base;
  tern__packed_list list;
} batch_iter;

/* Where the source fails, what was collected waits for the next call. */
static int batch_next(tern__iter *base, tern__element *out) {
  batch_iter *it = (batch_iter *)base;
  const batch *d = (const batch *)base->dataset;
  while (it->list.count < d->size) {
    tern__element e;
    const int rc = tern__next(base->source, &e);
    if (rc < 0) return rc;
    if (rc == 0) break;
    if (tern__packed_add(&it->list, &e)) return tern__recorded();
  }
  const int64_t count = it->list.count;
  if (count == 0 || (count < d->size && d->drop_remainder)) return 0;
  it->list.count = 0; /* they are dropped by stacking */
  const char *op = d->base.type->name;
  const tern_rc rc = d->padded ? tern__stack_padded(op, &d->padding, it->list.item, count, out)
                               : tern__stack(op, it->list.item, count, out);
  return rc ? rc : 1;
}

static void batch_end(tern__iter *base) { tern__packed_clear(&((batch_iter *)base)->list); }

static int64_t batch_size(const tern_dataset *base) {
  const batch *d = (const batch *)base;
  const int64_t size = tern_dataset_size(base->source[0]);
  if (size < 0) return size;
  return size / d->size + (size % d->size && !d->drop_remainder);
}

static void batch_release(tern_dataset *base) { tern__padding_free(&((batch *)base)->padding); }

static const tern__dataset_type batch_type = {.name = "dataset_batch",
                                              .state_bytes = sizeof(batch_iter),
                                              .next = batch_next,
                                              .end = batch_end,
                                              .size = batch_size};
static const tern__dataset_type padded_type = {.name = "dataset_padded_batch",
                                               .state_bytes = sizeof(batch_iter),
                                               .next = batch_next,
                                               .end = batch_end,
                                               .size = batch_size,
                                               .release = batch_release};

/* A dataset of either type with its size; NULL with the error set and the source ended. */
static batch *batch_new(const tern__dataset_type *type, tern_dataset *source, int64_t size) {
  if (size < 1) {
    tern__fail(TERN_E_ARG, "%s: batches of %lld elements; the size must be 1 or more", type->name, (long long)size);
    tern_dataset_release(source);
    return NULL;
  }
  batch *d = tern__dataset_new(type, sizeof *d, source);
  if (d) d->size = size;
  return d;
}

tern_dataset *tern_dataset_batch(tern_dataset *source, int64_t size, const tern_batch_opts *opts) {
  if (!source) return NULL;
  batch *d = batch_new(&batch_type, source, size);
  if (!d) return NULL;
  d->drop_remainder = opts && opts->drop_remainder;
  return &d->base;
}

tern_dataset *tern_dataset_padded_batch(tern_dataset *source, int64_t size, const tern_padded_opts *opts) {
  if (!source) return NULL;
  batch *d = batch_new(&padded_type, source, size);
  if (!d) return NULL;
  d->padded = true;
  if (tern__padding_set("dataset_padded_batch", opts, &d->padding)) {
    tern_dataset_release(&d->base);
    return NULL;
  }
  d->drop_remainder = d->padding.drop_remainder;
  return &d->base;
}
