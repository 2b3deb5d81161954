/* Elements made ahead: a thread fills a ring of outcomes (elements or errors, in order), the iterator empties it.
   Copies to the device are made by that thread. */
#include "base/alloc.h"
#include "data/data.h"
#include <stdlib.h>

enum { MOST = 1 << 20 };

typedef struct prefetch {
  tern_dataset base;
  int n;
  tern__device *device; /* NULL: elements stay where they are */
} prefetch;

typedef struct prefetch_iter {
  tern__iter base;
  tern__iter *below; /* the source's */
  tern__stop stop;
  bool locks, runs;
  pthread_t thread;
  pthread_mutex_t lock; /* all below */
  pthread_cond_t room, ready;
  bool ended, broken; /* broken: the thread could not begin */
  int64_t head, tail; /* slots [head, tail) are full */
  tern__outcome *slot;
} prefetch_iter;

static tern_rc move(tern__element *e, tern__device *device) {
  TERN_SCOPE;
  const tern_rc rc = tern__element_solid(e);
  if (rc) return rc;
  for (int i = 0; i < e->n; i++) {
    tern_tensor *t = e->t[i]->device == device ? e->t[i] : tern_to(e->t[i], device->name);
    if (!t) return tern__recorded();
    tern__ref(t);
    tern__unref(e->t[i]);
    e->t[i] = t;
  }
  return TERN_OK;
}

static int make(prefetch_iter *it, tern__outcome *o) {
  *o = (tern__outcome){0};
  o->rc = tern__next(it->below, &o->element);
  tern__device *device = ((const prefetch *)it->base.dataset)->device;
  if (o->rc > 0 && device) {
    const tern_rc rc = move(&o->element, device);
    if (rc) {
      tern__element_drop(&o->element);
      o->rc = rc;
    }
  }
  if (o->rc < 0) tern__outcome_failed(o, o->rc);
  return o->rc;
}

static void *run_ahead(void *self) {
  prefetch_iter *it = self;
  const int n = ((const prefetch *)it->base.dataset)->n;
  const tern__run own = {.stop = &it->stop};
  tern__guard g;
  const bool entered = !tern__enter(&g);
  pthread_mutex_lock(&it->lock);
  while (entered && !tern__stopped(&own)) {
    if (it->tail - it->head == n) {
      pthread_cond_wait(&it->room, &it->lock);
      continue;
    }
    pthread_mutex_unlock(&it->lock);
    tern__outcome o;
    const int rc = make(it, &o);
    pthread_mutex_lock(&it->lock);
    if (rc == 0) break;
    it->slot[it->tail++ % n] = o;
    pthread_cond_signal(&it->ready);
  }
  it->ended = true;
  it->broken = !entered;
  pthread_cond_signal(&it->ready);
  pthread_mutex_unlock(&it->lock);
  if (entered) tern__leave(&g, TERN_OK);
  return NULL;
}

static tern_rc prefetch_begin(tern__iter *base) {
  prefetch_iter *it = (prefetch_iter *)base;
  it->stop.above = base->run.stop;
  const tern__run run = {base->run.number, &it->stop, base->run.skipped};
  it->slot = tern__calloc((size_t)((const prefetch *)base->dataset)->n, sizeof *it->slot);
  if (!it->slot) return tern__fail(TERN_E_OOM, "dataset_prefetch: out of host memory for an iterator");
  it->below = tern__begin(base->dataset->source[0], &run);
  if (!it->below) return tern__recorded();
  pthread_mutex_init(&it->lock, NULL);
  pthread_cond_init(&it->room, NULL);
  pthread_cond_init(&it->ready, NULL);
  it->locks = true;
  const tern_rc rc = tern__start_thread(&it->thread, run_ahead, it, "dataset_prefetch");
  it->runs = !rc;
  return rc;
}

static int prefetch_next(tern__iter *base, tern__element *out) {
  prefetch_iter *it = (prefetch_iter *)base;
  const int n = ((const prefetch *)base->dataset)->n;
  pthread_mutex_lock(&it->lock);
  while (it->head == it->tail && !it->ended) pthread_cond_wait(&it->ready, &it->lock);
  tern__outcome o = {0};
  if (it->head < it->tail) {
    tern__outcome *s = &it->slot[it->head++ % n];
    o = *s;
    *s = (tern__outcome){0};
    pthread_cond_signal(&it->room);
  }
  const bool broken = it->broken;
  it->broken = false;
  pthread_mutex_unlock(&it->lock);
  if (broken) return tern__fail(TERN_E_OOM, "dataset_prefetch: out of host memory for its thread");
  return tern__outcome_take(&o, out);
}

static void prefetch_end(tern__iter *base) {
  prefetch_iter *it = (prefetch_iter *)base;
  if (it->locks) {
    atomic_store(&it->stop.set, true);
    pthread_mutex_lock(&it->lock);
    pthread_cond_signal(&it->room);
    pthread_mutex_unlock(&it->lock);
    if (it->runs) pthread_join(it->thread, NULL);
    pthread_cond_destroy(&it->ready);
    pthread_cond_destroy(&it->room);
    pthread_mutex_destroy(&it->lock);
  }
  tern__end(it->below);
  for (int i = 0; it->slot && i < ((const prefetch *)base->dataset)->n; i++) tern__outcome_drop(&it->slot[i]);
  free(it->slot);
}

static const tern__dataset_type prefetch_type = {.name = "dataset_prefetch",
                                                 .state_bytes = sizeof(prefetch_iter),
                                                 .begins_sources = true,
                                                 .begin = prefetch_begin,
                                                 .next = prefetch_next,
                                                 .end = prefetch_end,
                                                 .size = tern__size_of_source};

tern_dataset *tern_dataset_prefetch(tern_dataset *source, int n, const char *device) {
  if (!source) return NULL;
  if (n < 0 || n > MOST) {
    tern__fail(TERN_E_ARG, "dataset_prefetch: %d elements ahead; use 1 to %d, or 0 for 2", n, MOST);
    tern_dataset_release(source);
    return NULL;
  }
  tern__device *to = device ? tern__device_named(device) : NULL;
  if (device && !to) {
    tern_dataset_release(source);
    return NULL;
  }
  prefetch *d = tern__dataset_new(&prefetch_type, sizeof *d, source);
  if (!d) return NULL;
  d->n = n ? n : 2;
  d->device = to;
  return &d->base;
}
