/* The thread pool: OpenMP's, shared with oneDNN and OpenBLAS, since a second pool beside it makes every start slow.
   One process-wide token says who may use it; a launch that does not get it runs all its pieces on its own thread,
   which also settles nested use. Each thread owns a contiguous range of pieces and then helps the others.
   TERN_CPU_PTHREADS=1 builds a variant on plain threads, for ThreadSanitizer, which cannot see libgomp's
   synchronisation. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1 /* sched_getaffinity */
#endif
#include "cpu.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#if !defined(TERN_CPU_PTHREADS) || !TERN_CPU_PTHREADS
#define TERN_CPU_PTHREADS 0
#include <omp.h>
#endif

enum { MAX_THREADS = 128 };

static struct {
  atomic_int busy;     /* the token */
  atomic_int threads;  /* 0: not set yet */
  atomic_bool no_pool; /* in a child after fork: the pool's threads do not exist there */
  pthread_once_t fork_once;
} pool = {.fork_once = PTHREAD_ONCE_INIT};

static _Thread_local unsigned refused;

typedef struct range { /* pieces of one thread; its own cache line */
  _Alignas(64) atomic_llong next;
  int64_t end;
} range;

typedef struct job {
  int64_t n, grain;
  void (*fn)(void *ctx, int64_t lo, int64_t hi);
  void *ctx;
  int parts; /* ranges in use */
  range part[MAX_THREADS];
} job;

static void child_after_fork(void) {
  atomic_store(&pool.no_pool, true);
  atomic_store(&pool.busy, 0);
}

static void watch_fork(void) { pthread_atfork(NULL, NULL, child_after_fork); }

static int usable_cpus(void) {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  const int n = CPU_COUNT(&set);
  return n > 0 ? n : 1;
}

void cpu_threads_init(int wanted) {
  pthread_once(&pool.fork_once, watch_fork);
  int n = wanted > 0 ? wanted : usable_cpus();
  if (n > MAX_THREADS) n = MAX_THREADS;
  atomic_store(&pool.threads, n);
}

int cpu_threads(void) {
  const int n = atomic_load_explicit(&pool.threads, memory_order_relaxed);
  if (n > 0) return n;
  cpu_threads_init(0);
  return atomic_load_explicit(&pool.threads, memory_order_relaxed);
}

bool cpu_pool_try(void) {
  if (atomic_load_explicit(&pool.no_pool, memory_order_relaxed)) return false;
  int idle = 0;
  if (atomic_compare_exchange_strong_explicit(&pool.busy, &idle, 1, memory_order_acquire, memory_order_relaxed))
    return true;
  refused++;
  return false;
}

unsigned cpu_pool_refused(void) { return refused; }

void cpu_pool_done(void) { atomic_store_explicit(&pool.busy, 0, memory_order_release); }

static void run_piece(const job *j, int64_t piece) {
  const int64_t lo = piece * j->grain, hi = lo + j->grain;
  j->fn(j->ctx, lo, hi < j->n ? hi : j->n);
}

/* Own range first, then whatever is left of the others' */
static void work(job *j, int self) {
  for (int v = 0; v < j->parts; v++) {
    range *const r = &j->part[(self + v) % j->parts];
    for (;;) {
      const int64_t piece = atomic_fetch_add_explicit(&r->next, 1, memory_order_relaxed);
      if (piece >= r->end) break;
      run_piece(j, piece);
    }
  }
}

#if TERN_CPU_PTHREADS
typedef struct helper {
  job *j;
  int self;
} helper;

static void *help(void *p) {
  const helper *const h = p;
  work(h->j, h->self);
  return NULL;
}

static void run_team(job *j) {
  pthread_t thread[MAX_THREADS];
  helper h[MAX_THREADS];
  int started = 0;
  for (int t = 1; t < j->parts; t++) {
    h[started] = (helper){j, t};
    if (pthread_create(&thread[started], NULL, help, &h[started]) != 0) break; /* the others take its share */
    started++;
  }
  work(j, 0);
  for (int t = 0; t < started; t++) pthread_join(thread[t], NULL);
}
#else
static void run_team(job *j) {
#pragma omp parallel num_threads(j->parts)
  work(j, omp_get_thread_num());
}
#endif

static void run_shared(job *j, int64_t pieces) {
  for (int t = 0; t < j->parts; t++) {
    atomic_init(&j->part[t].next, pieces * t / j->parts);
    j->part[t].end = pieces * (t + 1) / j->parts;
  }
  run_team(j);
}

static void run_serial(int64_t n, int64_t grain, void (*fn)(void *ctx, int64_t lo, int64_t hi), void *ctx) {
  for (int64_t lo = 0; lo < n; lo += grain) fn(ctx, lo, n - lo < grain ? n : lo + grain);
}

void cpu_parallel_held(int threads, int64_t n, int64_t grain, void (*fn)(void *ctx, int64_t lo, int64_t hi),
                       void *ctx) {
  const int64_t pieces = n > 0 ? (n - 1) / grain + 1 : 0;
  if (pieces <= 1 || threads <= 1) {
    run_serial(n, grain, fn, ctx);
    return;
  }
  job j;
  j.n = n;
  j.grain = grain;
  j.fn = fn;
  j.ctx = ctx;
  j.parts = pieces < threads ? (int)pieces : threads;
  run_shared(&j, pieces);
}

void cpu_parallel(int64_t n, int64_t grain, void (*fn)(void *ctx, int64_t lo, int64_t hi), void *ctx) {
  if (n <= 0) return;
  if (grain < 1) grain = 1;
  if (n <= grain) {
    fn(ctx, 0, n);
    return;
  }
  const int threads = cpu_threads();
  if (threads < 2 || !cpu_pool_try()) {
    run_serial(n, grain, fn, ctx);
    return;
  }
  cpu_parallel_held(threads, n, grain, fn, ctx);
  cpu_pool_done();
}

typedef struct team {
  void (*part)(void *context, uint32_t i);
  void *context;
} team;

static void member(void *ctx, int64_t lo, int64_t hi) {
  const team *const t = ctx;
  for (int64_t i = lo; i < hi; i++) t->part(t->context, (uint32_t)i);
}

bool cpu_team(int64_t n, void (*part)(void *context, uint32_t i), void *context) {
  const int threads = cpu_threads();
  if (threads < 2 || !cpu_pool_try()) return false;
  team t = {part, context};
  cpu_parallel_held(threads, n, 1, member, &t);
  cpu_pool_done();
  return true;
}
