/* Work whose cost is memory, beside loops that move the same bytes: x * z over 2^26 floats and a compiled chain of maps
   over 2^24 beside STREAM's triad, compiled softmax and layer_norm of rows beside its copy (the better of a plain one
   and one with non-temporal stores), a sum beside a loop that only reads. The loops run on as many threads as tern
   (TERN_BENCH_THREADS, default: processors), over the very arrays that tern reads. */
#include "bench.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { MAX_THREADS = 64, LANES = 16 };

static const int64_t SIZE = 1 << 26, ROWS = 1 << 14, COLS = 1 << 10;

/* 64 B; loads and stores of it become what the function's target has. */
typedef float lanes __attribute__((vector_size(64)));

typedef struct part part;
typedef void (*part_fn)(part *p);

/* One thread's share, n vectors: to = a + 3 b, to = a, or sum = sum of a. */
struct part {
  part_fn work;
  lanes *to;
  const lanes *a, *b;
  int64_t n;
  float sum;
  pthread_t id;
};

typedef struct arrays {
  int64_t n; /* elements of each */
  float *to, *a, *b;
  tern_tensor *ta, *tb, *scale, *shift; /* of layer_norm */
  tern_function *f;
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

BEST_TARGET static void plain_copy(part *p) {
  for (int64_t i = 0; i < p->n; i++) p->to[i] = p->a[i];
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

__attribute__((target("avx512f"))) static void copy512(part *p) {
  for (int64_t i = 0; i < p->n; i++) _mm512_stream_ps((float *)&p->to[i], _mm512_load_ps((const float *)&p->a[i]));
  _mm_sfence();
}

static void copy128(part *p) {
  const float *a = (const float *)p->a;
  float *to = (float *)p->to;
  for (int64_t i = 0; i < p->n * LANES; i += 4) _mm_stream_ps(to + i, _mm_load_ps(a + i));
  _mm_sfence();
}

static part_fn non_temporal(bool triad) {
  const bool wide = __builtin_cpu_supports("avx512f");
  return triad ? (wide ? stream512 : stream128) : wide ? copy512 : copy128;
}
#else
static part_fn non_temporal(bool triad) { /* no portable non-temporal store */
  (void)triad;
  return NULL;
}
#endif

static void *part_main(void *p) {
  ((part *)p)->work(p);
  return NULL;
}

/* One pass over the arrays, the calling thread among the workers. */
static void pass(arrays *s) {
  part parts[MAX_THREADS];
  const int64_t vectors = s->n / LANES, each = vectors / s->threads / 4 * 4;
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
    tern_sync(NULL);
  }
}

static void sum(void *context, long reps) {
  const arrays *s = context;
  for (long i = 0; i < reps; i++) {
    TERN_SCOPE;
    tern_sum(s->ta, NULL);
    tern_sync(NULL);
  }
}

/* Beside the better of the two loops. Triad: two arrays read, one written; copy: one and one. */
static void beside_stream(const char *name, bench_fn tern, arrays *s, bool triad, double need) {
  s->work = triad ? plain : plain_copy;
  bench_pair p = bench_pairs(tern, s, passes, s, BENCH_SECONDS);
  const char *peer = triad ? "STREAM triad" : "STREAM copy";
  s->work = non_temporal(triad);
  if (s->work) {
    const bench_pair q = bench_pairs(tern, s, passes, s, BENCH_SECONDS);
    if (q.ratio < p.ratio) p = q, peer = triad ? "STREAM triad, non-temporal" : "STREAM copy, non-temporal";
  }
  const double bytes = (triad ? 12e-9 : 8e-9) * (double)s->n;
  const bench_row row = {name, bench_device(), "GB/s", peer, true, bytes / p.tern, bytes / p.peer, p.ratio, need};
  bench_print(&row);
}

static bool on_opencl(const char *name) { return !strncmp(name, "opencl/", 7); }

static int map_case(const char *name, arrays *s) {
  beside_stream(name, multiply, s, true, on_opencl(name) ? 0.8 : 0.95);
  return 0;
}

static int sum_case(const char *name, arrays *s) {
  s->work = read_all;
  const bench_pair p = bench_pairs(sum, s, passes, s, BENCH_SECONDS);
  const double got = tern_item(tern_sum(s->ta, NULL)), want = (double)SIZE; /* all ones; both sums are exact */
  if (got != want || (double)s->sum != want)
    return bench_fail("%s: sums %.9g (tern) and %.9g (the loop), should be %.9g", name, got, (double)s->sum, want);
  const double bytes = 4e-9 * (double)SIZE;
  const bench_row row = {name,           bench_device(), "GB/s",
                         "read loop",    true,           bytes / p.tern,
                         bytes / p.peer, p.ratio,        on_opencl(name) ? 0.8 : 0.9};
  bench_print(&row);
  return 0;
}

/* ---- compiled functions ---- */

static tern_rc chain_body(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  tern_tensor *x = in[0], *z = in[1];
  (void)self, (void)n_in, (void)n_out;
  out[0] =
      tern_add(tern_mul(tern_tanh(tern_add(tern_mul(x, z), tern_scalar(1))), tern_exp(tern_mul(tern_neg(x), x))), z);
  return tern_error_code();
}

static tern_rc softmax_body(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  out[0] = tern_softmax(in[0], -1);
  return tern_error_code();
}

static tern_rc layer_norm_body(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const arrays *s = self;
  (void)n_in, (void)n_out;
  out[0] = tern_layer_norm(in[0], s->scale, s->shift, &(tern_layer_norm_opts){.epsilon = 1e-5});
  return tern_error_code();
}

static void calls(void *context, long reps) {
  const arrays *s = context;
  tern_tensor *in[] = {s->ta, s->tb};
  for (long i = 0; i < reps; i++) {
    TERN_SCOPE; /* the result's memory serves the next call */
    tern_call_n(s->f, in, s->tb ? 2 : 1);
    tern_sync(NULL);
  }
}

static double chain_value(const arrays *s, int64_t i) {
  const double x = s->a[i], z = s->b[i];
  return tanh(x * z + 1) * exp(-x * x) + z;
}

static double softmax_value(const arrays *s, int64_t i) {
  const float *row = s->a + i / COLS * COLS;
  double sum = 0;
  for (int64_t k = 0; k < COLS; k++) sum += exp((double)row[k]);
  return exp((double)s->a[i]) / sum;
}

/* The scale is 1 and the shift 0 */
static double layer_norm_value(const arrays *s, int64_t i) {
  const float *row = s->a + i / COLS * COLS;
  double mean = 0, squares = 0;
  for (int64_t k = 0; k < COLS; k++) mean += row[k] / (double)COLS;
  for (int64_t k = 0; k < COLS; k++) squares += (row[k] - mean) * (row[k] - mean);
  return (s->a[i] - mean) / sqrt(squares / (double)COLS + 1e-5);
}

/* A few elements of the result */
static int check(const char *name, const arrays *s, double (*want)(const arrays *s, int64_t i)) {
  const int64_t some[] = {0, 1, COLS - 1, COLS, s->n / 2 + 17, s->n - 1};
  TERN_SCOPE;
  tern_tensor *in[] = {s->ta, s->tb}, *y = tern_call_n(s->f, in, s->tb ? 2 : 1);
  y = tern_reshape(y, TERN_SHAPE(s->n));
  for (size_t k = 0; k < sizeof some / sizeof *some; k++) {
    const double got = tern_item(tern_index(y, 0, some[k])), right = want(s, some[k]);
    if (!(fabs(got - right) <= 1e-5 * (1e-3 + fabs(right))))
      return bench_fail("%s: element %lld is %.9g, should be %.9g", name, (long long)some[k], got, right);
  }
  return 0;
}

static int function_case(const char *name, arrays *s) {
  const bool chain = strstr(name, "chain"), norm = strstr(name, "layernorm");
  const tern_function_body body = chain ? chain_body : norm ? layer_norm_body : softmax_body;
  s->scale = tern_ones(TERN_SHAPE(COLS), TERN_F32);
  s->shift = tern_zeros(TERN_SHAPE(COLS), TERN_F32);
  s->f = tern_function_new(body, s, chain ? 2 : 1, 1, NULL);
  const int rc = check(name, s, chain ? chain_value : norm ? layer_norm_value : softmax_value);
  if (!rc) beside_stream(name, calls, s, chain, chain ? 0.68 : on_opencl(name) ? 0.4 : 0.75);
  tern_function_release(s->f);
  return rc;
}

/* ---- cases ---- */

static float *array_new(int64_t n) {
  const size_t bytes = 4 * (size_t)n;
  float *p = aligned_alloc((size_t)1 << 21, bytes);
  if (p) madvise(p, bytes, MADV_HUGEPAGE);
  return p;
}

static void fill(float *p, int64_t n, float value) {
  for (int64_t i = 0; i < n; i++) p[i] = value;
}

/* From -most to most, in no order */
static void mix(float *p, int64_t n, float most, uint32_t seed) {
  for (int64_t i = 0; i < n; i++) {
    const uint32_t h = ((uint32_t)i + seed) * 0x9E3779B1u;
    p[i] = most * ((float)((h ^ h >> 15) >> 8 & 0xffff) * 0x1p-15f - 1);
  }
}

static int thread_count(void) {
  const char *text = getenv("TERN_BENCH_THREADS");
  const long n = text ? atol(text) : sysconf(_SC_NPROCESSORS_ONLN);
  return n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : (int)n;
}

static int memory_case(const char *name) {
  const bool rows = strstr(name, "_rows"), function = rows || strstr(name, "chain");
  const int64_t n = function ? ROWS * COLS : SIZE;
  arrays s = {.n = n, .to = array_new(n), .a = array_new(n), .b = array_new(n), .threads = thread_count()};
  int rc = 1;
  if (s.to && s.a && s.b) {
    TERN_SCOPE; /* ends before the arrays are freed */
    fill(s.to, n, 0);
    if (function) {
      mix(s.a, n, 4, 1);
      mix(s.b, n, 1, 2);
    } else {
      fill(s.a, n, 1);
      fill(s.b, n, 2);
    }
    const tern_shape shape = rows ? TERN_SHAPE(ROWS, COLS) : TERN_SHAPE(n);
    s.ta = tern_from_host(shape, TERN_F32, s.a, NULL, NULL);
    s.tb = rows ? NULL : tern_from_host(shape, TERN_F32, s.b, NULL, NULL);
    rc = (function ? function_case : strstr(name, "map") ? map_case : sum_case)(name, &s) || bench_errors(name);
  } else {
    bench_fail("%s: no memory for three arrays of %lld MiB", name, (long long)(n >> 18));
  }
  free(s.to);
  free(s.a);
  free(s.b);
  return rc;
}

int main(int argc, char **argv) {
  const bench_case cases[] = {{.name = "map/64M", .measure = memory_case},
                              {.name = "reduce/sum/64M", .measure = memory_case},
                              {.name = "memory/chain16M", .measure = memory_case},
                              {.name = "memory/softmax_rows", .measure = memory_case},
                              {.name = "memory/layernorm_rows", .measure = memory_case}};
  const bench_case on_device[] = {{.name = "opencl/map", .measure = memory_case},
                                  {.name = "opencl/reduce", .measure = memory_case},
                                  {.name = "opencl/softmax_rows", .measure = memory_case},
                                  {.name = "opencl/layernorm_rows", .measure = memory_case}};
  const char *about = "Work bound by memory, beside STREAM.";
  const int rc = strncmp(bench_device(), "opencl", 6)
                     ? bench_main(argc, argv, about, cases, sizeof cases / sizeof *cases)
                     : bench_main(argc, argv, about, on_device, sizeof on_device / sizeof *on_device);
  return tern_finish() || rc == 1 ? 1 : rc;
}
