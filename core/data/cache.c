/* Elements kept in host memory. Every iterator that reads the source collects them; the first that reaches the end
   without an error leaves its collection to all later ones. The source is always told that it is gone through for the
   first time, so that it does not matter whose collection that is. */
#include "base/alloc.h"
#include "data/data.h"
#include <stdlib.h>

typedef struct cache {
  tern_dataset base;
  pthread_mutex_t lock;
  bool full; /* under the lock; kept never changes any more */
  tern__packed_list kept;
} cache;

typedef struct cache_iter {
  tern__iter base;
  bool from_memory, failed;
  int64_t at;
  tern__packed_list list;
} cache_iter;

static bool is_full(cache *d) {
  pthread_mutex_lock(&d->lock);
  const bool full = d->full;
  pthread_mutex_unlock(&d->lock);
  return full;
}

/* The lock and what was collected are all of a dataset that ever changes. */
static cache *of(const tern_dataset *d) { return (cache *)(uintptr_t)d; }

static tern_rc cache_begin(tern__iter *base) {
  cache_iter *it = (cache_iter *)base;
  it->from_memory = is_full(of(base->dataset));
  if (it->from_memory) return TERN_OK;
  tern__run run = base->run;
  run.number = 0;
  base->source = tern__begin(base->dataset->source[0], &run);
  return base->source ? TERN_OK : tern__recorded();
}

static void publish(cache *d, tern__packed_list *list) {
  pthread_mutex_lock(&d->lock);
  if (!d->full) {
    d->kept = *list;
    *list = (tern__packed_list){0};
    d->full = true;
  }
  pthread_mutex_unlock(&d->lock);
}

static int cache_next(tern__iter *base, tern__element *out) {
  cache_iter *it = (cache_iter *)base;
  cache *d = of(base->dataset);
  if (it->from_memory) {
    if (it->at == d->kept.count) return 0;
    tern__packed_copy(&d->kept.item[it->at++], out);
    return 1;
  }
  const int rc = tern__next(base->source, out);
  if (rc == 0 && !it->failed) publish(d, &it->list);
  if (rc > 0 && !it->failed) {
    tern__element kept;
    tern__element_copy(out, &kept);
    const tern_rc added = tern__packed_add(&it->list, &kept);
    if (!added) return rc;
    tern__element_drop(out);
    it->failed = true;
    return added;
  }
  if (rc < 0 && !it->failed) {
    it->failed = true; /* another iterator may have more luck, and must see the error if not */
    tern__packed_clear(&it->list);
  }
  return rc;
}

static void cache_end(tern__iter *base) { tern__packed_clear(&((cache_iter *)base)->list); }

static int64_t cache_size(const tern_dataset *base) {
  cache *d = of(base);
  return is_full(d) ? d->kept.count : tern__size_of_source(base);
}

static void cache_release(tern_dataset *base) {
  cache *d = of(base);
  tern__packed_clear(&d->kept);
  pthread_mutex_destroy(&d->lock);
}

static const tern__dataset_type cache_type = {.name = "dataset_cache",
                                              .state_bytes = sizeof(cache_iter),
                                              .begins_sources = true,
                                              .begin = cache_begin,
                                              .next = cache_next,
                                              .end = cache_end,
                                              .size = cache_size,
                                              .release = cache_release};

tern_dataset *tern_dataset_cache(tern_dataset *source) {
  if (!source) return NULL;
  cache *d = tern__dataset_new(&cache_type, sizeof *d, source);
  if (d) pthread_mutex_init(&d->lock, NULL);
  return d ? &d->base : NULL;
}
