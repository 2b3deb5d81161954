/* Datasets that hand elements on as they are: which of them, how often, in what company. */
#include "base/alloc.h"
#include "data/data.h"
#include <stdio.h>

/* A dataset with one number. */
typedef struct counted {
  tern_dataset base;
  int64_t n, index;
} counted;

typedef struct counted_iter {
  tern__iter base;
  int64_t at;
  bool any; /* repeat: this time gave an element */
} counted_iter;

static int64_t number_of(const tern__iter *it) { return ((const counted *)it->dataset)->n; }

static tern_dataset *counted_new(const tern__dataset_type *type, tern_dataset *source, int64_t n) {
  counted *d = tern__dataset_new(type, sizeof *d, source);
  if (!d) return NULL;
  d->n = n;
  return &d->base;
}

static tern_dataset *refuse(tern_dataset *source, const char *what, int64_t n) {
  tern__fail(TERN_E_ARG, "%s: %lld", what, (long long)n);
  tern_dataset_release(source);
  return NULL;
}

/* ---- repeat ---- */

static int repeat_next(tern__iter *base, tern__element *out) {
  counted_iter *it = (counted_iter *)base;
  const int64_t times = number_of(base);
  if (times == 0 || !base->source) return 0;
  for (;;) {
    const int rc = tern__next(base->source, out);
    it->any |= rc > 0;
    if (rc) return rc;
    it->at++;
    if (!it->any || it->at == times) return 0; /* nothing comes from what gave nothing */
    tern__end(base->source);
    tern__run run = base->run;
    run.number = tern__mix(run.number, (uint64_t)it->at + 1);
    it->any = false;
    base->source = tern__begin(base->dataset->source[0], &run);
    if (!base->source) return tern__recorded();
  }
}

static int64_t repeat_size(const tern_dataset *d) {
  const int64_t size = tern_dataset_size(d->source[0]), times = ((const counted *)d)->n;
  if (size == 0 || times == 0) return 0;
  if (size < 0) return size;
  int64_t all;
  if (times < 0) return TERN__ENDLESS;
  return __builtin_mul_overflow(size, times, &all) ? INT64_MAX : all;
}

static const tern__dataset_type repeat_type = {
    .name = "dataset_repeat", .state_bytes = sizeof(counted_iter), .next = repeat_next, .size = repeat_size};

tern_dataset *tern_dataset_repeat(tern_dataset *d, int64_t times) {
  if (!d) return NULL;
  if (times < -1) return refuse(d, "dataset_repeat: times must be 0 or more, or -1 for ever", times);
  return counted_new(&repeat_type, d, times);
}

/* ---- take, skip, shard ---- */

static int take_next(tern__iter *base, tern__element *out) {
  counted_iter *it = (counted_iter *)base;
  if (it->at >= number_of(base)) return 0;
  const int rc = tern__next(base->source, out);
  it->at += rc > 0;
  return rc;
}

static int64_t take_size(const tern_dataset *d) {
  const int64_t size = tern_dataset_size(d->source[0]), n = ((const counted *)d)->n;
  if (n == 0) return 0;
  if (size == TERN__UNKNOWN) return size;
  return size < 0 || size > n ? n : size;
}

static const tern__dataset_type take_type = {
    .name = "dataset_take", .state_bytes = sizeof(counted_iter), .next = take_next, .size = take_size};

tern_dataset *tern_dataset_take(tern_dataset *d, int64_t n) {
  if (!d) return NULL;
  if (n < 0) return refuse(d, "dataset_take: the number of elements must be 0 or more", n);
  return counted_new(&take_type, d, n);
}

static int skip_next(tern__iter *base, tern__element *out) {
  counted_iter *it = (counted_iter *)base;
  for (;; it->at++) {
    const int rc = tern__next(base->source, out);
    if (rc <= 0 || it->at >= number_of(base)) return rc;
    tern__element_drop(out);
  }
}

static int64_t skip_size(const tern_dataset *d) {
  const int64_t size = tern_dataset_size(d->source[0]), n = ((const counted *)d)->n;
  if (size < 0) return size;
  return size > n ? size - n : 0;
}

static const tern__dataset_type skip_type = {
    .name = "dataset_skip", .state_bytes = sizeof(counted_iter), .next = skip_next, .size = skip_size};

tern_dataset *tern_dataset_skip(tern_dataset *d, int64_t n) {
  if (!d) return NULL;
  if (n < 0) return refuse(d, "dataset_skip: the number of elements must be 0 or more", n);
  return counted_new(&skip_type, d, n);
}

static int shard_next(tern__iter *base, tern__element *out) {
  counted_iter *it = (counted_iter *)base;
  const int64_t n = number_of(base), index = ((const counted *)base->dataset)->index;
  for (;;) {
    const int rc = tern__next(base->source, out);
    if (rc <= 0) return rc;
    const bool mine = it->at == index;
    it->at = it->at + 1 == n ? 0 : it->at + 1;
    if (mine) return 1;
    tern__element_drop(out);
  }
}

static int64_t shard_size(const tern_dataset *base) {
  const counted *d = (const counted *)base;
  const int64_t size = tern_dataset_size(base->source[0]);
  if (size < 0) return size;
  return size > d->index ? (size - d->index - 1) / d->n + 1 : 0;
}

static const tern__dataset_type shard_type = {
    .name = "dataset_shard", .state_bytes = sizeof(counted_iter), .next = shard_next, .size = shard_size};

tern_dataset *tern_dataset_shard(tern_dataset *d, int64_t n, int64_t index) {
  if (!d) return NULL;
  if (n < 1) return refuse(d, "dataset_shard: the number of shards must be 1 or more", n);
  if (index < 0 || index >= n) return refuse(d, "dataset_shard: the index must lie in [0, n)", index);
  counted *shard = (counted *)counted_new(&shard_type, d, n);
  if (shard) shard->index = index;
  return shard ? &shard->base : NULL;
}

/* ---- skip_errors ---- */

static int skip_errors_next(tern__iter *base, tern__element *out) {
  counted_iter *it = (counted_iter *)base;
  const int64_t most = number_of(base);
  for (;;) {
    const int rc = tern__next(base->source, out);
    if (rc >= 0 || tern__stopped(&base->run)) return rc;
    if (most && it->at >= most) {
      char text[sizeof(((tern__thread *)NULL)->error_text)];
      snprintf(text, sizeof text, "%s", tern__pending());
      tern_error_clear();
      return tern__fail(rc, "dataset_skip_errors: more than %lld elements failed; the newest: %s", (long long)most,
                        text);
    }
    tern_error_clear();
    it->at++;
    atomic_fetch_add(base->run.skipped, 1);
  }
}

static const tern__dataset_type skip_errors_type = {.name = "dataset_skip_errors",
                                                    .state_bytes = sizeof(counted_iter),
                                                    .next = skip_errors_next,
                                                    .size = tern__size_at_most_source};

tern_dataset *tern_dataset_skip_errors(tern_dataset *d, int64_t most) {
  if (!d) return NULL;
  if (most < 0) return refuse(d, "dataset_skip_errors: `most` must be 0 (any number) or more", most);
  return counted_new(&skip_errors_type, d, most);
}
