/* DOT through OpenBLAS, oneDNN and our own strips: which of them is faster differs by size, strides, threads and
   processor, so the first launch of a shape times both and the cache remembers. A cache belongs to one kernel: sets of
   slots, each held by one thread at a time. What is chosen once for a shape stays, whatever the number of threads and
   the slot, since the libraries round differently. */
#include "dot.h"

#include <limits.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#if TERN_CPU_OPENBLAS
#include <cblas.h>
#endif

enum { SETS = 16, WAYS = 4, CHOICES = 64 };
enum { WAY_NONE = 0, WAY_BLAS, WAY_PRIM, WAY_SGEMM, WAY_STRIP, WAYS_END, WAY_BITS = 7 };

struct key { /* all that the choice and a primitive depend on; compared as bytes, so zeroed first */
  int64_t m, n, k, ld[3], size[DOT_BATCH_MAX], batch[3][DOT_BATCH_MAX];
  int32_t rank, threads, layout, fixed;
};
struct slot {
  atomic_int busy;
  int choice;
  atomic_uint_least64_t used;
  struct key key;
  struct dot_prim *prim;
};
struct dot_cache {
  atomic_uint_least64_t clock;
  atomic_uint_least64_t chosen[CHOICES]; /* of a shape: hash of the key without its threads, above the way; 0: free */
  struct slot slot[SETS][WAYS];
};

struct dot_cache *dot_cache_new(void) {
  return calloc(1, sizeof(struct dot_cache));
}

void dot_cache_free(struct dot_cache *c) {
  if (!c) return;
  for (int s = 0; s < SETS; s++)
    for (int w = 0; w < WAYS; w++) dot_prim_free(c->slot[s][w].prim);
  free(c);
}

/* OpenMP threads that the libraries use from the calling thread; returns the number before */
static int threads_set(int n) {
#ifdef _OPENMP
  const int old = omp_get_max_threads();
  if (old != n) omp_set_num_threads(n);
  return old;
#else
  (void)n;
  return 1;
#endif
}

/* ---- OpenBLAS ---- */
#if TERN_CPU_OPENBLAS
static bool blas_fits(const struct dot_job *j) {
  int64_t ld;
  if (j->in != TERN_F32 && j->in != TERN_F64) return false;
  if (j->m > INT_MAX || j->n > INT_MAX || j->k > INT_MAX) return false;
  return dot_layout(&j->a, j->m, j->k, &ld) && ld <= INT_MAX && dot_layout(&j->b, j->k, j->n, &ld) && ld <= INT_MAX &&
         dot_layout(&j->o, j->m, j->n, &ld) == 'N' && ld <= INT_MAX;
}

static void blas_items(void *ctx, int64_t lo, int64_t hi) {
  const struct dot_job *const j = ctx;
  const size_t size = j->in == TERN_F32 ? 4 : 8;
  int64_t la, lb, lo_ld;
  const enum CBLAS_TRANSPOSE ta = dot_layout(&j->a, j->m, j->k, &la) == 'N' ? CblasNoTrans : CblasTrans;
  const enum CBLAS_TRANSPOSE tb = dot_layout(&j->b, j->k, j->n, &lb) == 'N' ? CblasNoTrans : CblasTrans;
  dot_layout(&j->o, j->m, j->n, &lo_ld);
  for (int64_t i = lo; i < hi; i++) {
    const void *const a = dot_item(j, &j->a, i, size), *const b = dot_item(j, &j->b, i, size);
    void *const o = dot_item(j, &j->o, i, size);
    if (j->in == TERN_F32)
      cblas_sgemm(CblasRowMajor, ta, tb, (int)j->m, (int)j->n, (int)j->k, 1, a, (int)la, b, (int)lb, 0, o, (int)lo_ld);
    else
      cblas_dgemm(CblasRowMajor, ta, tb, (int)j->m, (int)j->n, (int)j->k, 1, a, (int)la, b, (int)lb, 0, o, (int)lo_ld);
  }
}
#else
static bool blas_fits(const struct dot_job *j) {
  (void)j;
  return false;
}
static void blas_items(void *ctx, int64_t lo, int64_t hi) { (void)ctx, (void)lo, (void)hi; }
#endif

/* Items one after the other, each with the threads now set; our own loops where BLAS cannot */
static void run_blas(const struct dot_job *j) {
  if (blas_fits(j))
    blas_items((void *)(uintptr_t)j, 0, j->items);
  else
    dot_own(j);
}

/* Many middling items: one thread each (a library sees that it is inside a parallel region and stays serial) */
static bool run_spread(const struct dot_job *j) {
  const double flops = 2.0 * (double)j->m * (double)j->n * (double)j->k;
  if (j->items < 2 || j->items < cpu_threads() || flops > 1e8 || !blas_fits(j)) return false;
  const int64_t grain = flops > 2e5 ? 1 : (int64_t)(2e5 / flops) + 1;
  const int old = threads_set(1);
  cpu_parallel(j->items, grain, blas_items, (void *)(uintptr_t)j);
  threads_set(old);
  return true;
}

/* ---- the choice ---- */
static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool run_way(int way, struct slot *s, const struct dot_job *j) {
  if (way == WAY_PRIM) return dot_prim_run(s->prim, j);
  if (way == WAY_SGEMM) return dot_sgemm_run(j);
  if (way == WAY_STRIP) return dot_strip(j, s->key.threads);
  run_blas(j);
  return true;
}

/* Run each and keep the fastest. The rounds follow from the work: 7 below 10 MFLOP, 2 above 1 GFLOP; one is enough for
   large products when they differ by 10 %. All write the same product to the same place, so running twice does no
   harm. The result that stays is the winner's. */
static void measure(struct slot *s, const struct dot_job *j) {
  const double flops = 2.0 * (double)j->m * (double)j->n * (double)j->k * (double)j->items;
  const int rounds = flops < 1e7 ? 7 : flops < 1e9 ? 4 : 2;
  const bool fits[WAYS_END] = {false, true, true, dot_sgemm_fits(j), dot_strip_fits(j)};
  double best[WAYS_END] = {1e30, 1e30, 1e30, 1e30, 1e30};
  for (int way = WAY_BLAS; way < WAYS_END && flops < 3e8; way++) /* first runs also fault pages in and wake threads */
    if (fits[way]) run_way(way, s, j);
  int last = WAY_NONE;
  for (int r = 0; r < rounds; r++) {
    for (int way = WAY_BLAS; way < WAYS_END; way++) {
      if (!fits[way]) continue;
      const double t = now();
      if (!run_way(way, s, j)) {
        s->choice = WAY_BLAS;
        run_blas(j);
        return;
      }
      const double d = now() - t;
      if (d < best[way]) best[way] = d;
      last = way;
    }
    if (flops >= 3e8 && (best[WAY_BLAS] > 1.1 * best[WAY_PRIM] || best[WAY_PRIM] > 1.1 * best[WAY_BLAS])) break;
  }
  s->choice = best[WAY_PRIM] <= best[WAY_BLAS] ? WAY_PRIM : WAY_BLAS;
  for (int way = WAY_SGEMM; way < WAYS_END; way++)
    if (best[way] < best[s->choice]) s->choice = way;
  if (s->choice != last) run_way(s->choice, s, j);
}

static void make_key(struct key *k, const struct dot_job *j, int threads, bool fixed) {
  memset(k, 0, sizeof *k);
  k->m = j->m, k->n = j->n, k->k = j->k;
  k->rank = j->rank, k->threads = threads, k->fixed = fixed;
  k->layout = dot_layout(&j->a, j->m, j->k, &k->ld[0]) << 8 | dot_layout(&j->b, j->k, j->n, &k->ld[1]);
  dot_layout(&j->o, j->m, j->n, &k->ld[2]);
  for (int d = 0; d < j->rank; d++) {
    k->size[d] = j->size[d];
    k->batch[0][d] = j->a.batch[d], k->batch[1][d] = j->b.batch[d], k->batch[2][d] = j->o.batch[d];
  }
}

/* FNV-1a over words (Fowler, Noll, Vo), without the way's bits; never 0 */
static uint64_t shape_hash(const struct key *k) {
  struct key any = *k;
  any.threads = 0;
  uint64_t words[sizeof any / sizeof(uint64_t)], h = 0xcbf29ce484222325u;
  memcpy(words, &any, sizeof words);
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) h = (h ^ words[i]) * 0x100000001b3u;
  return (h | (WAY_BITS + 1)) & ~(uint64_t)WAY_BITS;
}

/* The way that was chosen for this shape; none: `way`, which is remembered (WAY_NONE is not) */
static int choice_of(struct dot_cache *c, const struct key *k, int way) {
  const uint64_t h = shape_hash(k);
  for (uint32_t i = 0; i < CHOICES; i++) {
    uint64_t now = atomic_load_explicit(&c->chosen[i], memory_order_relaxed);
    if (!now && !way) break;
    if (!now && atomic_compare_exchange_strong_explicit(&c->chosen[i], &now, h | (uint64_t)way, memory_order_relaxed,
                                                        memory_order_relaxed))
      break;
    if ((now & ~(uint64_t)WAY_BITS) == h) return (int)(now & WAY_BITS);
  }
  return way;
}

static bool slot_take(struct slot *s) {
  int expected = 0;
  return atomic_compare_exchange_strong_explicit(&s->busy, &expected, 1, memory_order_acquire, memory_order_relaxed);
}
static void slot_give(struct slot *s) { atomic_store_explicit(&s->busy, 0, memory_order_release); }

/* The slot of this key, held; or the least recently used free one, emptied; NULL: every slot of the set is busy */
static struct slot *slot_find(struct dot_cache *c, const struct key *k) {
  const uint64_t h = ((uint64_t)k->m * 0x9E3779B97F4A7C15u) ^ ((uint64_t)k->n * 0xC2B2AE3D27D4EB4Fu) ^
                     ((uint64_t)k->k * 0x165667B19E3779F9u) ^ ((uint64_t)k->layout * 0xD6E8FEB86659FD93u);
  struct slot *const set = c->slot[(h >> 40) % SETS];
  const uint64_t tick = atomic_fetch_add_explicit(&c->clock, 1, memory_order_relaxed) + 1;
  for (int w = 0; w < WAYS; w++) {
    if (!slot_take(&set[w])) continue;
    if (set[w].choice && !memcmp(&set[w].key, k, sizeof *k)) {
      atomic_store_explicit(&set[w].used, tick, memory_order_relaxed);
      return &set[w];
    }
    slot_give(&set[w]);
  }
  for (int tries = 0; tries < WAYS; tries++) {
    int old = 0;
    for (int w = 1; w < WAYS; w++)
      if (atomic_load_explicit(&set[w].used, memory_order_relaxed) <
          atomic_load_explicit(&set[old].used, memory_order_relaxed))
        old = w;
    struct slot *const s = &set[old];
    atomic_store_explicit(&s->used, tick, memory_order_relaxed);
    if (!slot_take(s)) continue;
    dot_prim_free(s->prim);
    s->prim = NULL;
    s->choice = WAY_NONE;
    s->key = *k;
    return s;
  }
  return NULL;
}

static void run_slot(struct dot_cache *cache, struct slot *s, const struct dot_job *j, bool fixed) {
  if (s->choice == WAY_NONE) {
    bool measured = false;
    const int known = choice_of(cache, &s->key, WAY_NONE);
    s->prim = known == WAY_NONE || known == WAY_PRIM ? dot_prim_new(j) : NULL;
    if (known && known != WAY_PRIM) {
      s->choice = known;
    } else if (!s->prim) {
      s->choice = WAY_BLAS;
    } else if (known || j->in == TERN_BF16 || !blas_fits(j)) {
      s->choice = WAY_PRIM;
    } else if (fixed) {
      s->choice = dot_strip_wins(j) ? WAY_STRIP : dot_sgemm_fits(j) ? WAY_SGEMM : WAY_PRIM;
    } else {
      measure(s, j);
      measured = true;
    }
    const int settled = choice_of(cache, &s->key, s->choice);
    measured &= settled == s->choice; /* else another thread chose in the meantime */
    s->choice = settled;
    if (s->choice != WAY_PRIM) {
      dot_prim_free(s->prim);
      s->prim = NULL;
    }
    if (measured) return;
  }
  if (s->choice == WAY_PRIM && !s->prim) s->prim = dot_prim_new(j);
  if ((s->choice != WAY_PRIM || s->prim) && run_way(s->choice, s, j)) return;
  s->choice = WAY_BLAS;
  run_blas(j);
}

/* All slots of the set are with other threads: the way that they go needs none, or one of them is waited for */
static struct slot *run_elsewhere(struct dot_cache *cache, const struct key *k, const struct dot_job *j) {
  const int way = choice_of(cache, k, WAY_NONE);
  if (way == WAY_SGEMM && dot_sgemm_run(j)) return NULL;
  if (way == WAY_STRIP && dot_strip(j, k->threads)) return NULL;
  if (way != WAY_PRIM) {
    run_blas(j);
    return NULL;
  }
  for (;;) {
    struct slot *const s = slot_find(cache, k);
    if (s) return s;
    sched_yield();
  }
}

static void run_threads(const struct dot_job *j, struct dot_cache *cache, bool fixed, int threads) {
  const int old = threads_set(threads);
  if (cache && dot_prim_has(j->in, j->out)) {
    struct key k;
    make_key(&k, j, threads, fixed);
    struct slot *s = slot_find(cache, &k);
    if (!s) s = run_elsewhere(cache, &k, j);
    if (s) {
      run_slot(cache, s, j, fixed);
      slot_give(s);
    }
  } else {
    run_blas(j);
  }
  threads_set(old);
}

bool dot_lib_has(uint32_t in, uint32_t out) {
  return in == out && (in == TERN_F32 || in == TERN_F64 || dot_prim_has(in, out));
}

void dot_lib(const struct dot_job *j, struct dot_cache *cache, bool fixed) {
  const double flops = 2.0 * (double)j->m * (double)j->n * (double)j->k;
  const bool mid = flops <= 2.0 * 48 * 48 * 48 && j->in != TERN_BF16; /* a thread start costs as much */
  if (!blas_fits(j) && !dot_prim_has(j->in, j->out)) {
    dot_own(j);
    return;
  }
  if (mid && j->items == 1) {
    const int old = threads_set(1);
    run_blas(j);
    threads_set(old);
    return;
  }
  if (j->in != TERN_BF16 && (mid || !dot_prim_has(j->in, j->out)) && run_spread(j)) return;
  const bool token = cpu_threads() > 1 && cpu_pool_try();
  run_threads(j, cache, fixed, token ? cpu_threads() : 1);
  if (token) cpu_pool_done();
}
