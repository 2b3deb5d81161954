/* Batches of elements of similar length: each element waits in the bucket of its length until that is full. What is
   left at the end comes in the order of the buckets, as tf.data.Dataset.bucket_by_sequence_length gives it. */
#include "base/alloc.h"
#include "data/data.h"
#include <stdlib.h>

typedef struct bucket {
  tern_dataset base;
  int n;               /* boundaries */
  int64_t *boundaries; /* owned, with the n + 1 sizes behind them */
  int64_t *sizes;
  tern__padding padding;
} bucket;

typedef struct bucket_iter {
  tern__iter base;
  tern__packed_list *list; /* n + 1 */
  bool drained;            /* the source */
  int at;                  /* drained: the next bucket to empty */
} bucket_iter;

#define OP "dataset_bucket_by_length"

static tern_rc bucket_begin(tern__iter *base) {
  bucket_iter *it = (bucket_iter *)base;
  it->list = tern__calloc((size_t)((const bucket *)base->dataset)->n + 1, sizeof *it->list);
  return it->list ? TERN_OK : tern__fail(TERN_E_OOM, OP ": out of host memory for an iterator");
}

static void bucket_end(tern__iter *base) {
  bucket_iter *it = (bucket_iter *)base;
  for (int i = 0; it->list && i <= ((const bucket *)base->dataset)->n; i++) tern__packed_clear(&it->list[i]);
  free(it->list);
}

/* The batch that waits in bucket i. */
static int give(bucket_iter *it, int i, tern__element *out) {
  const bucket *d = (const bucket *)it->base.dataset;
  const int64_t count = it->list[i].count;
  it->list[i].count = 0; /* they are dropped by stacking */
  const tern_rc rc = tern__stack_padded(OP, &d->padding, it->list[i].item, count, out);
  return rc ? rc : 1;
}

/* The bucket of that length: boundaries are sorted. */
static int place(const bucket *d, int64_t length) {
  int low = 0, high = d->n;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (length < d->boundaries[middle])
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

static int bucket_next(tern__iter *base, tern__element *out) {
  bucket_iter *it = (bucket_iter *)base;
  const bucket *d = (const bucket *)base->dataset;
  while (!it->drained) {
    tern__element e;
    int rc = tern__next(base->source, &e);
    it->drained = rc == 0;
    if (rc < 0) return rc;
    if (rc == 0) break;
    rc = tern__element_solid(&e);
    if (!rc && e.t[0]->rank == 0)
      rc = tern__fail(TERN_E_ARG, OP ": component 0 of an element has rank 0, so it has no length");
    if (rc) {
      tern__element_drop(&e);
      return rc;
    }
    const int i = place(d, e.t[0]->shape[0]);
    if (tern__packed_add(&it->list[i], &e)) return tern__recorded();
    if (it->list[i].count == d->sizes[i]) return give(it, i, out);
  }
  for (; it->at <= d->n; it->at++)
    if (it->list[it->at].count && !d->padding.drop_remainder) return give(it, it->at++, out);
  return 0;
}

static int64_t bucket_size(const tern_dataset *d) {
  const int64_t size = tern_dataset_size(d->source[0]);
  return size > 0 ? TERN__UNKNOWN : size;
}

static void bucket_release(tern_dataset *base) {
  bucket *d = (bucket *)base;
  free(d->boundaries);
  tern__padding_free(&d->padding);
}

static const tern__dataset_type bucket_type = {.name = OP,
                                               .state_bytes = sizeof(bucket_iter),
                                               .begin = bucket_begin,
                                               .next = bucket_next,
                                               .end = bucket_end,
                                               .size = bucket_size,
                                               .release = bucket_release};

static tern_rc check(const int64_t *boundaries, const int64_t *sizes, int n) {
  if (n < 1 || n > 1 << 20 || !boundaries || !sizes)
    return tern__fail(TERN_E_ARG, OP ": %d boundaries%s; give at least one, and one size more", n,
                      boundaries && sizes ? "" : " or their sizes at NULL");
  for (int i = 1; i < n; i++)
    if (boundaries[i] <= boundaries[i - 1])
      return tern__fail(TERN_E_ARG, OP ": boundary %d, %lld, is not above the one before, %lld", i,
                        (long long)boundaries[i], (long long)boundaries[i - 1]);
  for (int i = 0; i <= n; i++)
    if (sizes[i] < 1)
      return tern__fail(TERN_E_ARG, OP ": bucket %d gives batches of %lld elements; the size must be 1 or more", i,
                        (long long)sizes[i]);
  return TERN_OK;
}

tern_dataset *tern_dataset_bucket_by_length(tern_dataset *source, const int64_t *boundaries, const int64_t *sizes,
                                            int n, const tern_padded_opts *opts) {
  if (!source) return NULL;
  if (check(boundaries, sizes, n)) {
    tern_dataset_release(source);
    return NULL;
  }
  bucket *d = tern__dataset_new(&bucket_type, sizeof *d, source);
  if (!d) return NULL;
  d->n = n;
  d->boundaries = tern__calloc(2 * (size_t)n + 1, sizeof *d->boundaries);
  const tern_rc rc =
      d->boundaries ? tern__padding_set(OP, opts, &d->padding) : tern__fail(TERN_E_OOM, OP ": out of host memory");
  if (rc) {
    tern_dataset_release(&d->base);
    return NULL;
  }
  d->sizes = d->boundaries + n;
  memcpy(d->boundaries, boundaries, (size_t)n * sizeof *boundaries);
  memcpy(d->sizes, sizes, ((size_t)n + 1) * sizeof *sizes);
  return &d->base;
}
