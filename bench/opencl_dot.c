/* Square float32 products on OpenCL, eager, many in the queue and one wait at the end: beside OpenBLAS on the
   processors of this machine, and beside CLBlast as it comes, on the same device through a queue of its own. Both are
   found with dlopen. Which OpenCL implementation is measured is the loader's choice (bench/run names them). */
#include "bench.h"

#if __has_include(<CL/cl.h>) && __has_include(<clblast_c.h>)
#define CL_TARGET_OPENCL_VERSION 120
#include "opencl_find.h"
#include <clblast_c.h>
#include <dlfcn.h>

enum { ROW_MAJOR = 101, NO_TRANSPOSE = 111 /* CBLAS */ };

typedef void (*cblas_sgemm_fn)(int, int, int, int, int, int, float, const float *, int, const float *, int, float,
                               float *, int);

// clang-format off
#define CL_FUNCTIONS(F)                                                                                              \
  F(GetPlatformIDs) F(GetPlatformInfo) F(GetDeviceIDs) F(GetDeviceInfo) F(CreateContext) F(CreateCommandQueue)       \
      F(CreateBuffer) F(EnqueueReadBuffer) F(Finish) F(ReleaseMemObject) F(ReleaseCommandQueue) F(ReleaseContext)
// clang-format on
#define CL_MEMBER(name) __typeof__(&cl##name) name;

/* One size: c = a b, and who multiplies. */
typedef struct product {
  int n;
  float *a, *b, *c;
  tern_tensor *ta, *tb;
  cblas_sgemm_fn sgemm;
  CL_FUNCTIONS(CL_MEMBER)
  __typeof__(&CLBlastSgemm) clblast;
  cl_device_id device;
  cl_context context;
  cl_command_queue queue;
  cl_mem buffer[3];
  int error; /* of CLBlast or OpenCL, the first */
} product;

static void tern_loop(void *context, long reps) {
  const product *p = context;
  for (long i = 0; i < reps; i++) {
    TERN_SCOPE;
    tern_matmul(p->ta, p->tb);
  }
  tern_sync(NULL);
}

static void cblas_loop(void *context, long reps) {
  const product *p = context;
  const int n = p->n;
  for (long i = 0; i < reps; i++)
    p->sgemm(ROW_MAJOR, NO_TRANSPOSE, NO_TRANSPOSE, n, n, n, 1, p->a, n, p->b, n, 0, p->c, n);
}

static void clblast_loop(void *context, long reps) {
  product *p = context;
  const size_t n = (size_t)p->n;
  for (long i = 0; i < reps && !p->error; i++)
    p->error = (int)p->clblast(CLBlastLayoutRowMajor, CLBlastTransposeNo, CLBlastTransposeNo, n, n, n, 1, p->buffer[0],
                               0, n, p->buffer[1], 0, n, 0, p->buffer[2], 0, n, &p->queue, NULL);
  const cl_int e = p->Finish(p->queue);
  if (e && !p->error) p->error = e;
}

/* What tern says of the default device. */
static tern_device_desc default_device(void) {
  const char *name = tern_default_device();
  tern_device_desc d = {0};
  for (int i = 0; name && !tern_device_at(i, &d); i++)
    if (!strcmp(d.name, name) || (d.alias && !strcmp(d.alias, name))) return d;
  return (tern_device_desc){0};
}

/* "opencl:pocl" */
static const char *device_alias(void) {
  const char *alias = default_device().alias;
  return alias && *alias ? alias : bench_device();
}

/* ---- CLBlast's side ---- */

/* Libraries stay open: their threads may be alive. */
static const char *clblast_prepare(product *p) {
  void *cl = dlopen("libOpenCL.so.1", RTLD_NOW | RTLD_LOCAL), *blast = dlopen("libclblast.so.1", RTLD_NOW | RTLD_LOCAL);
  p->clblast = blast ? (__typeof__(p->clblast))dlsym(blast, "CLBlastSgemm") : NULL;
  if (!cl || !p->clblast) return "CLBlast is not installed (libclblast.so.1)";
#define CL_LOAD(name)                                   \
  p->name = (__typeof__(p->name))dlsym(cl, "cl" #name); \
  if (!p->name) return "libOpenCL.so.1 lacks a function";
  CL_FUNCTIONS(CL_LOAD)
  const tern_device_desc desc = default_device();
  if (!desc.desc || !bench_find_device(p->GetPlatformIDs, p->GetPlatformInfo, p->GetDeviceIDs, p->GetDeviceInfo,
                                       desc.desc, &p->device))
    return "no bare device has tern's description";
  const size_t bytes = (size_t)p->n * (size_t)p->n * sizeof(float);
  cl_int e = CL_SUCCESS;
  p->context = p->CreateContext(NULL, 1, &p->device, NULL, NULL, &e);
  if (!e) p->queue = p->CreateCommandQueue(p->context, p->device, 0, &e);
  for (int i = 0; i < 3 && !e; i++)
    p->buffer[i] =
        p->CreateBuffer(p->context, i < 2 ? CL_MEM_READ_ONLY | CL_MEM_COPY_HOST_PTR : CL_MEM_READ_WRITE, bytes,
                        i == 0   ? p->a
                        : i == 1 ? p->b
                                 : NULL,
                        &e);
  if (!e) clblast_loop(p, 1); /* compiles */
  if (!e) e = p->EnqueueReadBuffer(p->queue, p->buffer[2], CL_TRUE, 0, bytes, p->c, 0, NULL, NULL);
  return e || p->error ? "CLBlast or the bare OpenCL API fails here" : NULL;
}

static void clblast_finish(product *p) {
  for (int i = 0; i < 3; i++)
    if (p->buffer[i]) p->ReleaseMemObject(p->buffer[i]);
  if (p->queue) p->ReleaseCommandQueue(p->queue);
  if (p->context) p->ReleaseContext(p->context);
}

static const char *openblas_prepare(product *p) {
  void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
  p->sgemm = library ? (cblas_sgemm_fn)dlsym(library, "cblas_sgemm") : NULL;
  if (!p->sgemm) return "OpenBLAS is not installed (libopenblas.so.0)";
  cblas_loop(p, 1);
  return NULL;
}

/* ---- pairs ---- */

/* The peer's product is the right one; else its time means nothing. */
static bool agrees(const product *p) {
  TERN_SCOPE;
  tern_tensor *c = tern_constant(TERN_SHAPE(p->n, p->n), TERN_F32, p->c, (size_t)p->n * (size_t)p->n);
  return tern_allclose(tern_matmul(p->ta, p->tb), c, 1e-4, 1e-4) == 1;
}

/* Queues of `mine` and `other` products, timed in turn. */
static bench_pair pairs(product *p, bench_fn peer, long mine, long other, int n) {
  double a[BENCH_PAIRS], b[BENCH_PAIRS], ratio[BENCH_PAIRS];
  tern_loop(p, mine);
  peer(p, other);
  for (int i = 0; i < n; i++) {
    bench_rest();
    a[i] = bench_time(tern_loop, p, mine);
    bench_rest();
    b[i] = bench_time(peer, p, other);
    ratio[i] = b[i] / a[i];
  }
  return (bench_pair){bench_median(a, n), bench_median(b, n), bench_median(ratio, n)};
}

static bool make(product *p) {
  const size_t items = (size_t)p->n * (size_t)p->n, bytes = items * sizeof(float);
  p->a = aligned_alloc(4096, bytes);
  p->b = aligned_alloc(4096, bytes);
  p->c = aligned_alloc(4096, bytes);
  if (!p->a || !p->b || !p->c) return false;
  uint32_t state = 7;
  for (size_t i = 0; i < 2 * items; i++) {
    state = state * 1664525u + 1013904223u;
    (i < items ? p->a : p->b)[i % items] = (float)(int32_t)state / 2147483648.0f;
  }
  p->ta = tern_constant(TERN_SHAPE(p->n, p->n), TERN_F32, p->a, items);
  p->tb = tern_constant(TERN_SHAPE(p->n, p->n), TERN_F32, p->b, items);
  return p->ta && p->tb;
}

/* Size n beside the peer: rates in GFLOP/s and the ratio. 0, 1 or BENCH_SKIP. */
static int one_size(const char *name, int n, bool clblast, bench_pair *out) {
  product p = {.n = n};
  int rc = 0;
  TERN_SCOPE;
  if (!make(&p)) {
    rc = bench_fail("%s: no memory", name);
  } else {
    const char *why = clblast ? clblast_prepare(&p) : openblas_prepare(&p);
    if (why) {
      bench_fail("%s: %s", name, why);
      rc = BENCH_SKIP;
    } else if (!agrees(&p)) {
      rc = bench_errors(name) ? 1 : bench_fail("%s: the products differ", name);
    } else {
      const long queue = n > 1024 ? 10 : 100;
      *out = pairs(&p, clblast ? clblast_loop : cblas_loop, queue,
                   !clblast   ? queue
                   : n > 1024 ? 2
                   : n > 512  ? 5
                              : 20,
                   clblast ? 5 : BENCH_PAIRS);
      const double work = 2e-9 * n * n * n;
      *out = (bench_pair){work / out->tern, work / out->peer, out->ratio};
      if (p.error) rc = bench_fail("%s: CLBlast fails: %d", name, p.error);
    }
  }
  if (clblast && p.context) clblast_finish(&p);
  free(p.a);
  free(p.b);
  free(p.c);
  return rc ? rc : bench_errors(name);
}

static bool is_opencl(const char *name) {
  const char *device = tern_default_device();
  if (device && !strncmp(device, "opencl", 6)) return true;
  bench_fail("%s: the default device is %s, not an OpenCL one", name, device ? device : "(none)");
  return false;
}

/* opencl/dot_N */
static int dot_case(const char *name) {
  if (!is_opencl(name)) return BENCH_SKIP;
  bench_pair pair;
  const int rc = one_size(name, atoi(name + strlen("opencl/dot_")), false, &pair);
  if (rc) return rc;
  const bench_row row = {name, device_alias(), "GFLOP/s", "OpenBLAS", true, pair.tern, pair.peer, pair.ratio, 0.8};
  bench_print(&row);
  return 0;
}

static const int sizes[] = {128, 512, 1024, 2048};
enum { SIZES = sizeof sizes / sizeof *sizes };

/* opencl/dot_clblast: a row for each size, and the geometric mean of the ratios, which has the need. */
static int clblast_case(const char *name) {
  if (!is_opencl(name)) return BENCH_SKIP;
  const char *device = device_alias();
  double tern = 0, peer = 0, ratio = 0;
  for (int i = 0; i < SIZES; i++) {
    bench_pair pair;
    char each[64];
    const int rc = one_size(name, sizes[i], true, &pair);
    if (rc) return rc;
    snprintf(each, sizeof each, "%s_%d", name, sizes[i]);
    const bench_row row = {each, device, "GFLOP/s", "CLBlast untuned", true, pair.tern, pair.peer, pair.ratio, NAN};
    bench_print(&row);
    tern += log(pair.tern), peer += log(pair.peer), ratio += log(pair.ratio);
  }
  const bench_row row = {name,
                         device,
                         "GFLOP/s",
                         "CLBlast untuned, mean",
                         true,
                         exp(tern / SIZES),
                         exp(peer / SIZES),
                         exp(ratio / SIZES),
                         strstr(device, "intel") ? 1.5 : 4};
  bench_print(&row);
  return 0;
}

int main(int argc, char **argv) {
  char names[SIZES][32];
  bench_case cases[SIZES + 1];
  for (int i = 0; i < SIZES; i++) {
    snprintf(names[i], sizeof names[i], "opencl/dot_%d", sizes[i]);
    cases[i] = (bench_case){.name = names[i], .measure = dot_case};
  }
  cases[SIZES] = (bench_case){.name = "opencl/dot_clblast", .measure = clblast_case};
  const int rc = bench_main(argc, argv, "Matrix products on OpenCL, beside OpenBLAS and CLBlast.", cases, SIZES + 1);
  return tern_finish() || rc == 1 ? 1 : rc;
}
#else
static int skip(const char *name) {
  bench_fail("%s: built without OpenCL's or CLBlast's headers", name);
  return BENCH_SKIP;
}

int main(int argc, char **argv) {
  static const bench_case cases[] = {{.name = "opencl/dot", .measure = skip}};
  return bench_main(argc, argv, "Matrix products on OpenCL.", cases, 1);
}
#endif
