/* A wave on the pool (replay.h): every thread of the team takes the first launch that is ready until none is left. A
   thread inside a team gets no team of its own, so each launch runs on one thread. */
#include "replay.h"
#include <pthread.h>
#include <sched.h>
#include <stdio.h>

enum { CLAIMED = -1, SPINS = 2000 /* looks, some 10 us, before the processor is left to others */ };

typedef struct wave {
  tern_program *p;
  const uint32_t *list;
  uint32_t n;
  atomic_uint low;    /* all before are claimed */
  atomic_uint failed; /* launches after this one are left out; only falls */
  pthread_mutex_t lock;
  cpu_caught first; /* error of launch `failed` */
} wave;

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

/* A launch that is ready, now ours; n: there is none at the moment; *left: whether some are unclaimed */
static uint32_t claim(wave *w, bool *left) {
  const uint32_t low = atomic_load_explicit(&w->low, memory_order_relaxed);
  bool leading = true;
  *left = false;
  for (uint32_t i = low; i < w->n; i++) {
    atomic_int *const a = &w->p->pending[w->list[i]];
    int now = atomic_load_explicit(a, memory_order_acquire);
    if (now == 0 &&
        atomic_compare_exchange_strong_explicit(a, &now, CLAIMED, memory_order_acquire, memory_order_relaxed)) {
      if (leading) atomic_store_explicit(&w->low, i + 1, memory_order_relaxed); /* may fall back: it is a hint */
      return i;
    }
    *left |= now != CLAIMED;
    leading &= now == CLAIMED;
  }
  return w->n;
}

static void fail(wave *w, uint32_t node, tern_rc rc, cpu_caught *caught) {
  pthread_mutex_lock(&w->lock);
  if (node < atomic_load_explicit(&w->failed, memory_order_relaxed)) {
    atomic_store_explicit(&w->failed, node, memory_order_relaxed);
    w->first = *caught;
    w->first.rc = rc;
  }
  pthread_mutex_unlock(&w->lock);
}

static void run_one(wave *w, uint32_t node) {
  const replay_node *const x = &w->p->node[node];
  if (node < atomic_load_explicit(&w->failed, memory_order_relaxed)) {
    cpu_caught caught;
    caught.text[0] = 0;
    cpu_error_into(&caught);
    const tern_rc rc = x->kernel->run(x->kernel, &x->launch);
    cpu_error_into(NULL);
    if (rc != TERN_OK) fail(w, node, rc, &caught);
  }
  for (uint32_t k = 0; k < x->n_next; k++) {
    const uint32_t later = w->p->edge[x->next + k];
    if (w->p->node[later].segment == x->segment)
      atomic_fetch_sub_explicit(&w->p->pending[later], 1, memory_order_acq_rel);
  }
}

static void member(void *ctx, int64_t lo, int64_t hi) {
  wave *const w = ctx;
  (void)lo, (void)hi; /* one piece a thread */
  for (int looks = 0;;) {
    bool left;
    const uint32_t i = claim(w, &left);
    if (i < w->n) {
      run_one(w, w->list[i]);
      looks = 0;
    } else if (!left) {
      return;
    } else if (looks < SPINS) {
      looks++;
      relax();
    } else {
      sched_yield();
    }
  }
}

void replay_wave(tern_program *p, const replay_segment *s, uint32_t *last, tern_rc *rc) {
  wave w = {.p = p, .list = p->order + s->first, .n = s->n, .lock = PTHREAD_MUTEX_INITIALIZER};
  w.first.rc = TERN_OK;
  atomic_init(&w.low, 0);
  atomic_init(&w.failed, *last);
  for (uint32_t i = 0; i < s->n; i++) {
    const replay_node *const x = &p->node[w.list[i]];
    int waits = 0;
    for (uint32_t k = 0; k < x->n_before; k++) waits += p->node[p->edge[x->before + k]].segment == x->segment;
    atomic_store_explicit(&p->pending[w.list[i]], waits, memory_order_relaxed);
  }
  cpu_parallel(s->threads, 1, member, &w);
  pthread_mutex_destroy(&w.lock);
  const uint32_t failed = atomic_load_explicit(&w.failed, memory_order_relaxed);
  if (failed == *last) return;
  *last = failed;
  *rc = w.first.text[0] ? cpu_error(w.first.rc, "%s", w.first.text) : w.first.rc;
}
