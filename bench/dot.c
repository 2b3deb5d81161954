/* Square matrix products beside the best BLAS of the machine, all in this process: OpenBLAS, oneDNN (sgemm and the
   matmul primitive) and BLIS, found with dlopen. The number of threads comes from the environment (bench/run sets
   TERN_NUM_THREADS, OMP_NUM_THREADS and the like to one number, which TERN_BENCH_THREADS tells). The ratio is the
   least of those to each peer. */
#include "bench.h"

#include <dlfcn.h>
#if __has_include(<oneapi/dnnl/dnnl.h>)
#include <oneapi/dnnl/dnnl.h>
#endif

enum { MAX_PEERS = 4, ROW_MAJOR = 101, NO_TRANSPOSE = 111 /* CBLAS */ };

typedef void (*cblas_sgemm_fn)(int, int, int, int, int, int, float, const float *, int, const float *, int, float,
                               float *, int);
typedef void (*cblas_dgemm_fn)(int, int, int, int, int, int, double, const double *, int, const double *, int, double,
                               double *, int);
typedef int (*dnnl_sgemm_fn)(char, char, int64_t, int64_t, int64_t, float, const float *, int64_t, const float *,
                             int64_t, float, float *, int64_t);

/* One product: n x n, row-major, c = a b. The tensors are a and b in place. */
typedef struct product {
  int64_t n;
  void *a, *b, *c;
  tern_tensor *ta, *tb;
  void *function; /* of the peer at work */
  void *state;    /* its prepared primitive, if it has one */
} product;

/* A peer: prepare (may be NULL) returns 0 when it cannot. */
typedef struct peer {
  const char *name, *library, *symbol;
  bool wide; /* float64 */
  bench_fn loop;
  int (*prepare)(product *p, void *library);
  void (*finish)(product *p);
} peer;

static void tern_loop(void *context, long reps) {
  const product *p = context;
  for (long i = 0; i < reps; i++) {
    TERN_SCOPE;
    tern_matmul(p->ta, p->tb);
  }
}

static void cblas_s(void *context, long reps) {
  const product *p = context;
  const int n = (int)p->n;
  const cblas_sgemm_fn f = (cblas_sgemm_fn)p->function;
  for (long i = 0; i < reps; i++) f(ROW_MAJOR, NO_TRANSPOSE, NO_TRANSPOSE, n, n, n, 1, p->a, n, p->b, n, 0, p->c, n);
}

static void cblas_d(void *context, long reps) {
  const product *p = context;
  const int n = (int)p->n;
  const cblas_dgemm_fn f = (cblas_dgemm_fn)p->function;
  for (long i = 0; i < reps; i++) f(ROW_MAJOR, NO_TRANSPOSE, NO_TRANSPOSE, n, n, n, 1, p->a, n, p->b, n, 0, p->c, n);
}

static void dnnl_s(void *context, long reps) { /* row-major, as its documentation says of dnnl_sgemm */
  const product *p = context;
  const dnnl_sgemm_fn f = (dnnl_sgemm_fn)p->function;
  for (long i = 0; i < reps; i++) f('N', 'N', p->n, p->n, p->n, 1, p->a, p->n, p->b, p->n, 0, p->c, p->n);
}

#if defined(DNNL_VERSION_MAJOR) && DNNL_VERSION_MAJOR == 2
#define HAVE_PRIMITIVE 1
/* oneDNN's matmul primitive, made once; execution alone is timed. */
typedef struct primitive {
  __typeof__(&dnnl_primitive_execute) execute;
  __typeof__(&dnnl_stream_wait) wait;
  void *library;
  dnnl_engine_t engine;
  dnnl_stream_t stream;
  dnnl_primitive_desc_t desc;
  dnnl_primitive_t matmul;
  dnnl_exec_arg_t args[3];
} primitive;

#define DNNL(s, name) ((__typeof__(&dnnl_##name))dlsym((s)->library, "dnnl_" #name))

static int primitive_memory(primitive *s, const dnnl_memory_desc_t *desc, int what, int i, void *data) {
  s->args[i].arg = what;
  return DNNL(s, memory_create)(&s->args[i].memory, desc, s->engine, data);
}

static void primitive_finish(product *p) {
  primitive *s = p->state;
  for (int i = 0; i < 3; i++)
    if (s->args[i].memory) DNNL(s, memory_destroy)(s->args[i].memory);
  if (s->matmul) DNNL(s, primitive_destroy)(s->matmul);
  if (s->desc) DNNL(s, primitive_desc_destroy)(s->desc);
  if (s->stream) DNNL(s, stream_destroy)(s->stream);
  if (s->engine) DNNL(s, engine_destroy)(s->engine);
  free(s);
  p->state = NULL;
}

static int primitive_make(primitive *s, const product *p) {
  dnnl_memory_desc_t matrix;
  dnnl_matmul_desc_t op;
  return DNNL(s, engine_create)(&s->engine, dnnl_cpu, 0) ||
         DNNL(s, stream_create)(&s->stream, s->engine, dnnl_stream_default_flags) ||
         DNNL(s, memory_desc_init_by_tag)(&matrix, 2, (const dnnl_dims_t){p->n, p->n}, dnnl_f32, dnnl_ab) ||
         DNNL(s, matmul_desc_init)(&op, &matrix, &matrix, NULL, &matrix) ||
         DNNL(s, primitive_desc_create)(&s->desc, &op, NULL, s->engine, NULL) ||
         DNNL(s, primitive_create)(&s->matmul, s->desc) || primitive_memory(s, &matrix, DNNL_ARG_SRC, 0, p->a) ||
         primitive_memory(s, &matrix, DNNL_ARG_WEIGHTS, 1, p->b) || primitive_memory(s, &matrix, DNNL_ARG_DST, 2, p->c);
}

static int primitive_prepare(product *p, void *library) {
  primitive *s = calloc(1, sizeof *s);
  if (!s) return 0;
  p->state = s;
  s->library = library;
  s->execute = DNNL(s, primitive_execute);
  s->wait = DNNL(s, stream_wait);
  return !primitive_make(s, p);
}

static void primitive_loop(void *context, long reps) {
  const product *p = context;
  const primitive *s = p->state;
  for (long i = 0; i < reps; i++) {
    s->execute(s->matmul, s->stream, 3, s->args);
    s->wait(s->stream);
  }
}
#endif

static const peer peers[] = {{"OpenBLAS", "libopenblas.so.0", "cblas_sgemm", false, cblas_s, NULL, NULL},
                             {"OpenBLAS", "libopenblas.so.0", "cblas_dgemm", true, cblas_d, NULL, NULL},
                             {"oneDNN sgemm", "libdnnl.so.2", "dnnl_sgemm", false, dnnl_s, NULL, NULL},
#ifdef HAVE_PRIMITIVE
                             {"oneDNN matmul", "libdnnl.so.2", "dnnl_matmul_desc_init", false, primitive_loop,
                              primitive_prepare, primitive_finish},
#endif
                             {"BLIS", "libblis.so.4", "cblas_sgemm", false, cblas_s, NULL, NULL}};

/* The peer's product is the right one; else its time means nothing. */
static bool agrees(const product *p, bool wide) {
  TERN_SCOPE;
  const tern_shape shape = TERN_SHAPE(p->n, p->n);
  tern_tensor *c = tern_constant(shape, wide ? TERN_F64 : TERN_F32, p->c, (size_t)(p->n * p->n));
  return tern_allclose(tern_matmul(p->ta, p->tb), c, 1e-4, 1e-4) == 1;
}

/* The pairs with peer q, or false when it is not there. */
static bool against(const peer *q, product *p, bench_pair *out, int *failed) {
  void *library = dlopen(q->library, RTLD_NOW | RTLD_LOCAL);
  p->function = library ? dlsym(library, q->symbol) : NULL;
  p->state = NULL;
  bool done = p->function != NULL;
  if (done && q->prepare) done = q->prepare(p, library);
  if (!done) fprintf(stderr, "dot: %s is not installed (%s)\n", q->name, q->library);
  if (done) {
    memset(p->c, 0xff, (size_t)(p->n * p->n) * (q->wide ? 8 : 4));
    q->loop(p, 1);
    if (!agrees(p, q->wide)) {
      *failed = bench_fail("dot: the product of %s differs from tern's at n = %lld: %s", q->name, (long long)p->n,
                           tern_error());
      done = false;
    }
  }
  if (done) *out = bench_pairs(tern_loop, p, q->loop, p, BENCH_SECONDS);
  if (q->finish && p->state) q->finish(p);
  return done; /* the library stays open: its threads may be alive */
}

/* Values in -1 .. 1 that need no more than the low bits of a float. */
static void fill(product *p, bool wide) {
  uint64_t state = 7;
  for (int64_t i = 0; i < 2 * p->n * p->n; i++) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const double v = (double)(int32_t)(state >> 32) / 2147483648.0;
    void *to = i < p->n * p->n ? p->a : p->b;
    if (wide)
      ((double *)to)[i % (p->n * p->n)] = v;
    else
      ((float *)to)[i % (p->n * p->n)] = (float)v;
  }
}

static int measure(const char *name, product *p, bool wide) {
  const char *best = NULL;
  bench_pair least = {0};
  int failed = 0;
  for (size_t i = 0; i < sizeof peers / sizeof *peers; i++) {
    bench_pair pair;
    if (peers[i].wide != wide || !against(&peers[i], p, &pair, &failed)) continue;
    if (!best || pair.ratio < least.ratio) least = pair, best = peers[i].name;
  }
  if (failed || bench_errors(name)) return 1;
  if (!best) return BENCH_SKIP;
  const double work = 2e-9 * (double)p->n * (double)p->n * (double)p->n;
  const bench_row row = {
      name, "cpu", "GFLOP/s", best, true, work / least.tern, work / least.peer, least.ratio, p->n < 128 ? 0.9 : 0.97};
  bench_print(&row);
  return 0;
}

/* name: dot/f32/N/2T or dot/f64/N/2T */
static int dot_case(const char *name) {
  TERN_SCOPE;
  const bool wide = !strncmp(name, "dot/f64", 7);
  product p = {.n = atoi(name + strlen("dot/f32/"))};
  const size_t bytes = (size_t)(p.n * p.n) * (wide ? 8 : 4);
  p.a = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  p.b = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  p.c = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  int rc = 1;
  if (p.a && p.b && p.c) {
    TERN_SCOPE; /* ends, and with it the tensors on a and b, before these are freed */
    fill(&p, wide);
    const tern_dtype dtype = wide ? TERN_F64 : TERN_F32;
    p.ta = tern_constant(TERN_SHAPE(p.n, p.n), dtype, p.a, (size_t)(p.n * p.n));
    p.tb = tern_constant(TERN_SHAPE(p.n, p.n), dtype, p.b, (size_t)(p.n * p.n));
    rc = measure(name, &p, wide);
  } else {
    bench_fail("%s: no memory", name);
  }
  free(p.a);
  free(p.b);
  free(p.c);
  return rc;
}

int main(int argc, char **argv) {
  static const int sizes[] = {32, 64, 128, 512, 2048};
  enum { SIZES = sizeof sizes / sizeof *sizes, N = 2 * SIZES };
  const char *threads = getenv("TERN_BENCH_THREADS");
  char names[N][64];
  bench_case cases[N];
  for (int i = 0; i < N; i++) {
    snprintf(names[i], sizeof names[i], "dot/f%d/%d/%.8sT", i < SIZES ? 32 : 64, sizes[i % SIZES],
             threads ? threads : "all");
    cases[i] = (bench_case){.name = names[i], .measure = dot_case};
  }
  const int rc = bench_main(argc, argv, "Square matrix products, eager, beside the best BLAS here.", cases, N);
  return tern_finish() || rc == 1 ? 1 : rc;
}
