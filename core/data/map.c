/* The program's functions over elements. A map with threads keeps a ring of slots: a worker takes the next element from
   the source (one worker at a time) and with it the next slot, runs the body, and fills the slot; the iterator empties
   the slots in order. */
#include "data/data.h"
#include "base/alloc.h"
#include "ops/random.h"
#include <sched.h>
#include <stdlib.h>

enum { MOST_THREADS = 1024 };

typedef struct map {
  tern_dataset base;
  tern_map_body body;
  int (*keep)(void *self, tern_tensor *const *in, int n_in); /* filter */
  void *self;
  int threads;
  uint64_t seed;
} map;

typedef struct map_iter {
  tern__iter base;
  uint64_t key;
  int64_t at; /* elements that the source gave */
} map_iter;

static tern_rc map_begin(tern__iter *base) {
  map_iter *it = (map_iter *)base;
  it->key = tern__mix(((const map *)base->dataset)->seed, base->run.number);
  return TERN_OK;
}

/* Body of element `number`, which is dropped. 1, or an error code. */
static int apply(const map *d, uint64_t key, int64_t number, tern__element *e, tern__element *out) {
  TERN_SCOPE;
  const char *op = d->base.type->name;
  int n = tern__element_solid(e);
  if (!n) {
    tern_tensor *made[TERN_MAX_COMPONENTS] = {NULL};
    tern__random_state random = {tern__mix(key, (uint64_t)number), 0}, *before = tern__random_own(&random);
    tern_error_clear(); /* whatever a function before it looked at */
    n = d->body(d->self, e->t, e->n, made);
    tern__random_own(before);
    if (n >= 0 && *tern__pending()) n = tern__recorded();
    if (n >= 0) n = tern__element_from(op, made, n, out);
  }
  tern__element_drop(e);
  return n < 0 ? tern__fail_element(n, op, number) : 1;
}

static int map_next(tern__iter *base, tern__element *out) {
  map_iter *it = (map_iter *)base;
  tern__element e;
  const int rc = tern__next(base->source, &e);
  return rc > 0 ? apply((const map *)base->dataset, it->key, it->at++, &e, out) : rc;
}

/* ---- with threads ---- */

typedef struct slot {
  bool done;
  tern__outcome outcome;
} slot;

typedef struct pool_iter {
  tern__iter base;
  tern__iter *below; /* the source's */
  uint64_t key;
  tern__stop stop;
  bool locks;
  int n_threads; /* that run */
  pthread_t *thread;
  pthread_mutex_t lock; /* all below */
  pthread_cond_t room /* workers wait */, ready /* the iterator waits */;
  bool pulling /* a worker is in the source */, ended;
  bool broken;        /* a worker could not begin */
  int64_t at;         /* elements that the source gave */
  int64_t head, tail; /* slots [head, tail) are in use */
  int64_t n_slots;
  slot *slot;
} pool_iter;

static void fill(pool_iter *it, int64_t at, const tern__outcome *outcome) {
  pthread_mutex_lock(&it->lock);
  slot *s = &it->slot[at % it->n_slots];
  s->outcome = *outcome;
  s->done = true;
  if (at == it->head) pthread_cond_signal(&it->ready);
  pthread_mutex_unlock(&it->lock);
}

/* The next element and its slot. False when there is none any more. Called and left with the lock held. */
static bool pull(pool_iter *it, int *rc, tern__element *e, int64_t *at, int64_t *number) {
  const tern__run own = {.stop = &it->stop};
  while (!it->ended && !tern__stopped(&own) && (it->pulling || it->tail - it->head == it->n_slots))
    pthread_cond_wait(&it->room, &it->lock);
  if (it->ended || tern__stopped(&own)) {
    it->ended = true;
  } else {
    it->pulling = true;
    pthread_mutex_unlock(&it->lock);
    *rc = tern__next(it->below, e);
    pthread_mutex_lock(&it->lock);
    it->pulling = false;
    if (*rc == 0 || (*rc < 0 && tern__stopped(&own))) it->ended = true;
    if (it->ended && *rc > 0) tern__element_drop(e);
  }
  if (it->ended) {
    pthread_cond_broadcast(&it->room);
    pthread_cond_signal(&it->ready);
    return false;
  }
  *at = it->tail++;
  *number = *rc > 0 ? it->at++ : -1;
  it->slot[*at % it->n_slots].done = false;
  pthread_cond_signal(&it->room);
  return true;
}

static void *work(void *self) {
  pool_iter *it = self;
  tern__guard g;
  const tern_rc entered = tern__enter(&g);
  pthread_mutex_lock(&it->lock);
  if (entered) {
    it->broken = it->ended = true;
    pthread_cond_broadcast(&it->room);
    pthread_cond_signal(&it->ready);
    pthread_mutex_unlock(&it->lock);
    return NULL;
  }
  int rc;
  tern__element e;
  int64_t at, number;
  while (pull(it, &rc, &e, &at, &number)) {
    pthread_mutex_unlock(&it->lock);
    tern__outcome outcome = {.rc = rc};
    if (rc > 0) outcome.rc = apply((const map *)it->base.dataset, it->key, number, &e, &outcome.element);
    if (outcome.rc < 0) tern__outcome_failed(&outcome, outcome.rc);
    fill(it, at, &outcome);
    pthread_mutex_lock(&it->lock);
  }
  pthread_mutex_unlock(&it->lock);
  tern__leave(&g, TERN_OK);
  return NULL;
}

static tern_rc pool_begin(tern__iter *base) {
  pool_iter *it = (pool_iter *)base;
  const map *d = (const map *)base->dataset;
  it->key = tern__mix(d->seed, base->run.number);
  it->stop.above = base->run.stop;
  const tern__run run = {base->run.number, &it->stop, base->run.skipped};
  it->n_slots = d->threads * (int64_t)4;
  it->slot = tern__calloc((size_t)it->n_slots, sizeof *it->slot);
  it->thread = tern__calloc((size_t)d->threads, sizeof *it->thread);
  if (!it->slot || !it->thread) return tern__fail(TERN_E_OOM, "dataset_map: out of host memory for an iterator");
  it->below = tern__begin(base->dataset->source[0], &run);
  if (!it->below) return tern__recorded();
  pthread_mutex_init(&it->lock, NULL);
  pthread_cond_init(&it->room, NULL);
  pthread_cond_init(&it->ready, NULL);
  it->locks = true;
  for (int i = 0; i < d->threads; i++) {
    if (tern__start_thread(&it->thread[i], work, it, "dataset_map")) {
      if (it->n_threads == 0) return tern__recorded();
      tern_error_clear(); /* those that run do it all */
      break;
    }
    it->n_threads++;
  }
  return TERN_OK;
}

static int pool_next(tern__iter *base, tern__element *out) {
  pool_iter *it = (pool_iter *)base;
  pthread_mutex_lock(&it->lock);
  slot *s = NULL;
  for (;;) {
    s = it->head < it->tail ? &it->slot[it->head % it->n_slots] : NULL;
    if (s ? s->done : it->ended && !it->pulling) break;
    pthread_cond_wait(&it->ready, &it->lock);
  }
  tern__outcome outcome = {0};
  if (s) {
    outcome = s->outcome;
    *s = (slot){0};
    it->head++; /* workers that found no room sleep until half of the slots are free */
    if (2 * (it->tail - it->head) <= it->n_slots) pthread_cond_signal(&it->room);
  }
  const bool broken = !s && it->broken;
  it->broken &= !broken;
  pthread_mutex_unlock(&it->lock);
  if (broken) return tern__fail(TERN_E_OOM, "dataset_map: out of host memory for a thread");
  return tern__outcome_take(&outcome, out);
}

static void pool_end(tern__iter *base) {
  pool_iter *it = (pool_iter *)base;
  if (it->locks) {
    atomic_store(&it->stop.set, true);
    pthread_mutex_lock(&it->lock);
    pthread_cond_broadcast(&it->room);
    pthread_mutex_unlock(&it->lock);
    for (int i = 0; i < it->n_threads; i++) pthread_join(it->thread[i], NULL);
    pthread_cond_destroy(&it->ready);
    pthread_cond_destroy(&it->room);
    pthread_mutex_destroy(&it->lock);
  }
  tern__end(it->below);
  for (int64_t i = 0; it->slot && i < it->n_slots; i++) tern__outcome_drop(&it->slot[i].outcome);
  free(it->slot);
  free(it->thread);
}

/* ---- filter ---- */

static int filter_next(tern__iter *base, tern__element *out) {
  map_iter *it = (map_iter *)base;
  const map *d = (const map *)base->dataset;
  for (;;) {
    const int rc = tern__next(base->source, out);
    if (rc <= 0) return rc;
    TERN_SCOPE;
    int keep = tern__element_solid(out);
    const int64_t number = it->at++;
    if (!keep) {
      tern__random_state random = {tern__mix(it->key, (uint64_t)number), 0}, *before = tern__random_own(&random);
      tern_error_clear(); /* whatever a function before it looked at */
      keep = d->keep(d->self, out->t, out->n);
      tern__random_own(before);
      if (keep >= 0 && *tern__pending()) keep = tern__recorded();
    }
    if (keep > 0) return 1;
    tern__element_drop(out);
    if (keep < 0) return tern__fail_element(keep, "dataset_filter", number);
  }
}

static const tern__dataset_type map_type = {.name = "dataset_map",
                                            .state_bytes = sizeof(map_iter),
                                            .begin = map_begin,
                                            .next = map_next,
                                            .size = tern__size_of_source};
static const tern__dataset_type pool_type = {.name = "dataset_map",
                                             .state_bytes = sizeof(pool_iter),
                                             .begins_sources = true,
                                             .begin = pool_begin,
                                             .next = pool_next,
                                             .end = pool_end,
                                             .size = tern__size_of_source};
static const tern__dataset_type filter_type = {.name = "dataset_filter",
                                               .state_bytes = sizeof(map_iter),
                                               .begin = map_begin,
                                               .next = filter_next,
                                               .size = tern__size_at_most_source};

/* Processors that the program may use. */
static int processors(void) {
  cpu_set_t set;
  const int n = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
  return n < 1 ? 1 : n > MOST_THREADS ? MOST_THREADS : n;
}

tern_dataset *tern_dataset_map(tern_dataset *source, tern_map_body body, void *self, const tern_map_opts *opts) {
  if (!source) return NULL;
  const int asked = opts ? opts->threads : 0;
  if (!body || asked < -1 || asked > MOST_THREADS) {
    if (!body)
      tern__fail(TERN_E_ARG, "dataset_map: the body is NULL");
    else
      tern__fail(TERN_E_ARG, "dataset_map: %d threads; use 0 to %d, or -1 for one a processor", asked, MOST_THREADS);
    tern_dataset_release(source);
    return NULL;
  }
  map *d = tern__dataset_new(asked ? &pool_type : &map_type, sizeof *d, source);
  if (!d) return NULL;
  d->body = body;
  d->self = self;
  d->threads = asked < 0 ? processors() : asked;
  d->seed = tern__random_seed();
  return &d->base;
}

tern_dataset *tern_dataset_filter(tern_dataset *source, int (*keep)(void *, tern_tensor *const *, int), void *self) {
  if (!source) return NULL;
  if (!keep) {
    tern__fail(TERN_E_ARG, "dataset_filter: `keep` is NULL");
    tern_dataset_release(source);
    return NULL;
  }
  map *d = tern__dataset_new(&filter_type, sizeof *d, source);
  if (!d) return NULL;
  d->keep = keep;
  d->self = self;
  d->seed = tern__random_seed();
  return &d->base;
}
