/* Random order: an element is drawn from a buffer of those that come next, and the last of the buffer takes its place.
   The numbers are splitmix64's over (seed, iterator, draw); a draw below n is the high word of a product, with Lemire's
   rejection ("Fast random integer generation in an interval", 2019), so that all orders are equally likely. */
#include "data/data.h"
#include "ops/random.h"

typedef struct shuffle {
  tern_dataset base;
  int64_t buffer; /* 0: all */
  uint64_t seed;
  bool same_each_time;
} shuffle;

typedef struct shuffle_iter {
  tern__iter base;
  uint64_t key, draws;
  bool drained; /* the source */
  tern__packed_list list;
} shuffle_iter;

static tern_rc shuffle_begin(tern__iter *base) {
  shuffle_iter *it = (shuffle_iter *)base;
  const shuffle *d = (const shuffle *)base->dataset;
  it->key = tern__mix(d->seed, d->same_each_time ? 0 : base->run.number);
  return TERN_OK;
}

static void shuffle_end(tern__iter *base) { tern__packed_clear(&((shuffle_iter *)base)->list); }

/* In [0, n). */
static int64_t draw(shuffle_iter *it, uint64_t n) {
  for (;;) {
    const unsigned __int128 product = (unsigned __int128)tern__mix(it->key, it->draws++) * n;
    const uint64_t low = (uint64_t)product;
    if (low >= n || low >= -n % n) return (int64_t)(product >> 64);
  }
}

static int shuffle_next(tern__iter *base, tern__element *out) {
  shuffle_iter *it = (shuffle_iter *)base;
  const int64_t buffer = ((const shuffle *)base->dataset)->buffer;
  while (!it->drained && (buffer == 0 || it->list.count < buffer)) {
    tern__element e;
    int rc = tern__next(base->source, &e);
    if (rc > 0) rc = tern__packed_add(&it->list, &e) ? tern__recorded() : 1;
    if (rc < 0) return rc;
    it->drained = rc == 0;
  }
  if (it->list.count == 0) return 0;
  tern__packed *item = it->list.item, *drawn = &item[draw(it, (uint64_t)it->list.count)];
  tern__unpack(drawn, out);
  *drawn = item[--it->list.count];
  return 1;
}

static const tern__dataset_type shuffle_type = {.name = "dataset_shuffle",
                                                .state_bytes = sizeof(shuffle_iter),
                                                .begin = shuffle_begin,
                                                .next = shuffle_next,
                                                .end = shuffle_end,
                                                .size = tern__size_of_source};

tern_dataset *tern_dataset_shuffle(tern_dataset *source, int64_t buffer, const tern_shuffle_opts *opts) {
  if (!source) return NULL;
  if (buffer < 0) {
    tern__fail(TERN_E_ARG, "dataset_shuffle: a buffer of %lld elements; use 1 or more, or 0 for all",
               (long long)buffer);
    tern_dataset_release(source);
    return NULL;
  }
  if (buffer == 0 && tern_dataset_size(source) == TERN__ENDLESS) {
    tern__fail(TERN_E_ARG, "dataset_shuffle: all elements of an endless dataset can never be in the buffer; shuffle "
                           "before tern_dataset_repeat, or give the buffer a size");
    tern_dataset_release(source);
    return NULL;
  }
  shuffle *d = tern__dataset_new(&shuffle_type, sizeof *d, source);
  if (!d) return NULL;
  d->buffer = buffer;
  d->seed = opts && opts->seed ? opts->seed : tern__random_seed();
  d->same_each_time = opts && opts->same_each_time;
  return &d->base;
}
