/* Ops whose cost is memory: x * z over 2^26 floats beside STREAM's triad (the better of a plain one and one with non-
   temporal stores), and a sum beside a loop that only reads. The loops run on as many threads as tern
   (TERN_BENCH_THREADS, default: processors), over the very arrays that tern reads. */
#include "bench.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { MAX_THREADS = 64, LANES = 16 };

static const int64_t SIZE = 1 << 26;

/* 64 B; loads and stores of it become what the function's target has. */
typedef float lanes __attribute__((vector_size(64)));

typedef struct part part;
typedef void (*part_fn)(part *p);

/* One thread's share, n vectors: to = a + 3 b, or sum = sum of a. */
struct part {
  part_fn work;
  lanes *to;
  const lanes *a, *b;
  int64_t n;
  float sum;
  pthread_t id;
};

typedef struct arrays {
  float *to, *a, *b;
  tern_tensor *ta, *tb;
  int threads;
  part_fn work;
  float sum;
} arrays;

#if defined(__x86_64__)
#define BEST_TARGET __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define BEST_TARGET
#endif

BEST_TARGET static void plain(part *p) {
  for (int64_t i = 0; i < p->n; i++) p->to[i] = p->a[i] + 3 * p->b[i];
}

BEST_TARGET static void read_all(part *p) {
  lanes s[4] = {{0}};
  for (int64_t i = 0; i + 4 <= p->n; i += 4)
    for (int k = 0; k < 4; k++) s[k] += p->a[i + k];
  const lanes total = s[0] + s[1] + s[2] + s[3];
  p->sum = 0;
  for (int k = 0; k < LANES; k++) p->sum += total[k];
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static void stream512(part *p) {
  const __m512 three = _mm512_set1_ps(3);
  for (int64_t i = 0; i < p->n; i++) {
    const __m512 b = _mm512_load_ps((const float *)&p->b[i]);
    _mm512_stream_ps((float *)&p->to[i], _mm512_fmadd_ps(b, three, _mm512_load_ps((const float *)&p->a[i])));
  }
  _mm_sfence();
}

static void stream128(part *p) {
  const __m128 three = _mm_set1_ps(3);
  const float *a = (const float *)p->a, *b = (const float *)p->b;
  float *to = (float *)p->to;
  for (int64_t i = 0; i < p->n * LANES; i += 4)
    _mm_stream_ps(to + i, _mm_add_ps(_mm_load_ps(a + i), _mm_mul_ps(three, _mm_load_ps(b + i))));
  _mm_sfence();
}

static part_fn non_temporal(void) { return __builtin_cpu_supports("avx512f") ? stream512 : stream128; }
#else
static part_fn non_temporal(void) { return NULL; } /* no portable non-temporal store */
#endif

static void *part_main(void *p) {
  ((part *)p)->work(p);
  return NULL;
}

/* One pass over the arrays, the calling thread among the workers. */
static void pass(arrays *s) {
  part parts[MAX_THREADS];
  const int64_t vectors = SIZE / LANES, each = vectors / s->threads / 4 * 4;
  int started = 1;
  for (int t = 0; t < s->threads; t++) {
    const int64_t first = t * each * LANES;
    parts[t] = (part){.work = s->work,
                      .to = (lanes *)(s->to + first),
                      .a = (const lanes *)(s->a + first),
                      .b = (const lanes *)(s->b + first),
                      .n = t + 1 < s->threads ? each : vectors - t * each};
  }
  while (started < s->threads && !pthread_create(&parts[started].id, NULL, part_main, &parts[started])) started++;
  parts[0].work(&parts[0]);
  for (int t = started; t < s->threads; t++) parts[t].work(&parts[t]); /* those that did not start */
  for (int t = 1; t < started; t++) pthread_join(parts[t].id, NULL);
  s->sum = 0;
  for (int t = 0; t < s->threads; t++) s->sum += parts[t].sum;
}

static void passes(void *context, long reps) {
  for (long i = 0; i < reps; i++) pass(context);
}

static void multiply(void *context, long reps) {
  const arrays *s = context;
  for (long i = 0; i < reps; i++) {
    TERN_SCOPE;
    tern_mul(s->ta, s->tb);
  }
}

static void sum(void *context, long reps) {
  const arrays *s = context;
  for (long i = 0; i < reps; i++) {
    TERN_SCOPE;
    tern_sum(s->ta, NULL);
  }
}

static int map_case(const char *name, arrays *s) {
  s->work = plain;
  bench_pair p = bench_pairs(multiply, s, passes, s, BENCH_SECONDS);
  const char *peer = "STREAM triad";
  s->work = non_temporal();
  if (s->work) {
    const bench_pair q = bench_pairs(multiply, s, passes, s, BENCH_SECONDS);
    if (q.ratio < p.ratio) p = q, peer = "STREAM triad, non-temporal";
  }
  const double bytes = 12e-9 * (double)SIZE; /* two arrays read, one written */
  const bench_row row = {name, "cpu", "GB/s", peer, true, bytes / p.tern, bytes / p.peer, p.ratio, 0.95};
  bench_print(&row);
  return 0;
}

static int sum_case(const char *name, arrays *s) {
  s->work = read_all;
  const bench_pair p = bench_pairs(sum, s, passes, s, BENCH_SECONDS);
  const double got = tern_item(tern_sum(s->ta, NULL)), want = (double)SIZE; /* all ones; both sums are exact */
  if (got != want || (double)s->sum != want)
    return bench_fail("%s: sums %.9g (tern) and %.9g (the loop), should be %.9g", name, got, (double)s->sum, want);
  const double bytes = 4e-9 * (double)SIZE;
  const bench_row row = {name, "cpu", "GB/s", "read loop", true, bytes / p.tern, bytes / p.peer, p.ratio, 0.9};
  bench_print(&row);
  return 0;
}

static float *array_new(float value) {
  const size_t bytes = 4 * (size_t)SIZE;
  float *p = aligned_alloc((size_t)1 << 21, bytes);
  if (!p) return NULL;
  madvise(p, bytes, MADV_HUGEPAGE);
  for (int64_t i = 0; i < SIZE; i++) p[i] = value;
  return p;
}

static int thread_count(void) {
  const char *text = getenv("TERN_BENCH_THREADS");
  const long n = text ? atol(text) : sysconf(_SC_NPROCESSORS_ONLN);
  return n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : (int)n;
}

static int memory_case(const char *name) {
  arrays s = {array_new(0), array_new(1), array_new(2), NULL, NULL, thread_count(), NULL, 0};
  int rc = 1;
  if (s.to && s.a && s.b) {
    TERN_SCOPE; /* ends before the arrays are freed */
    s.ta = tern_from_host(TERN_SHAPE(SIZE), TERN_F32, s.a, NULL, NULL);
    s.tb = tern_from_host(TERN_SHAPE(SIZE), TERN_F32, s.b, NULL, NULL);
    rc = (strncmp(name, "map", 3) ? sum_case : map_case)(name, &s) || bench_errors(name);
  } else {
    bench_fail("%s: no memory for three arrays of 256 MiB", name);
  }
  free(s.to);
  free(s.a);
  free(s.b);
  return rc;
}

int main(int argc, char **argv) {
  const bench_case cases[] = {{.name = "map/64M", .measure = memory_case},
                              {.name = "reduce/sum/64M", .measure = memory_case}};
  const int rc = bench_main(argc, argv, "Ops bound by memory, beside STREAM.", cases, sizeof cases / sizeof *cases);
  return tern_finish() || rc == 1 ? 1 : rc;
}
