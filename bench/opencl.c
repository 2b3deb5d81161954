/* Eager ops on OpenCL beside the same kernels through the bare OpenCL API, its arguments set every time. launch: one
   op and the wait for it, beside an enqueue and clFinish. chain: CHAIN ops, each of the one before, and the result on
   the host, beside as many enqueues on an in-order queue and one blocking read. The library is found with dlopen. Two
   forms of the kernel are tried, an element a work-item and all of a chunk in one work-item; the faster is the peer. */
#include "bench.h"

#if __has_include(<CL/cl.h>)
#define CL_TARGET_OPENCL_VERSION 120
#include "opencl_find.h"
#include <dlfcn.h>

enum { SIZE = 1000, GROUP = 64, CHUNK = 1024, CHAIN = 100 };

static const char *const SOURCE =
    "kernel void each(global const float *a, global const float *b, global float *c, uint n, uint step) {\n"
    "  const uint i = get_global_id(0);\n"
    "  if (i < n) c[i] = a[i] + b[i];\n"
    "}\n"
    "kernel __attribute__((reqd_work_group_size(1, 1, 1)))\n"
    "void chunk(global const float *a, global const float *b, global float *c, uint n, uint step) {\n"
    "  const uint first = get_global_id(0) * step, end = min(first + step, n);\n"
    "  for (uint i = first; i < end; i++) c[i] = a[i] + b[i];\n"
    "}\n";

// clang-format off
#define CL_FUNCTIONS(F)                                                                                              \
  F(GetPlatformIDs) F(GetPlatformInfo)                                                                               \
  F(GetDeviceIDs) F(GetDeviceInfo) F(CreateContext) F(CreateCommandQueue) F(CreateProgramWithSource) F(BuildProgram) \
      F(CreateKernel) F(CreateBuffer) F(EnqueueWriteBuffer) F(EnqueueReadBuffer) F(SetKernelArg)                     \
          F(EnqueueNDRangeKernel) F(Finish) F(ReleaseKernel) F(ReleaseProgram) F(ReleaseMemObject)                   \
              F(ReleaseCommandQueue) F(ReleaseContext)
// clang-format on
#define CL_MEMBER(name) __typeof__(&cl##name) name;

/* The bare side: one in-order queue, two kernels, four buffers: two operands, two results. */
typedef struct bare {
  void *library;
  CL_FUNCTIONS(CL_MEMBER)
  cl_device_id device;
  cl_context context;
  cl_command_queue queue;
  cl_program program;
  cl_kernel kernel[2]; /* each, chunk */
  cl_mem buffer[4];
  float result[SIZE];
  int form;
  cl_int error; /* the first */
} bare;

static bool load(bare *s) {
  s->library = dlopen("libOpenCL.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!s->library) return false;
#define CL_LOAD(name)                                           \
  s->name = (__typeof__(s->name))dlsym(s->library, "cl" #name); \
  if (!s->name) return false;
  CL_FUNCTIONS(CL_LOAD)
  return true;
}

static bool make(bare *s) {
  static const char *const names[] = {"each", "chunk"};
  cl_int e = CL_SUCCESS;
  float ones[SIZE];
  for (int i = 0; i < SIZE; i++) ones[i] = 1;
  s->context = s->CreateContext(NULL, 1, &s->device, NULL, NULL, &e);
  if (!e) s->queue = s->CreateCommandQueue(s->context, s->device, 0, &e);
  if (!e) s->program = s->CreateProgramWithSource(s->context, 1, (const char **)&(const char *){SOURCE}, NULL, &e);
  if (!e) e = s->BuildProgram(s->program, 1, &s->device, "-cl-std=CL1.2", NULL, NULL);
  for (int i = 0; i < 2 && !e; i++) s->kernel[i] = s->CreateKernel(s->program, names[i], &e);
  for (int i = 0; i < 4 && !e; i++) {
    s->buffer[i] = s->CreateBuffer(s->context, CL_MEM_READ_WRITE, sizeof ones, NULL, &e);
    if (!e) e = s->EnqueueWriteBuffer(s->queue, s->buffer[i], CL_TRUE, 0, sizeof ones, ones, 0, NULL, NULL);
  }
  s->error = e;
  return !e;
}

static void destroy(bare *s) {
  for (int i = 0; i < 4; i++)
    if (s->buffer[i]) s->ReleaseMemObject(s->buffer[i]);
  for (int i = 0; i < 2; i++)
    if (s->kernel[i]) s->ReleaseKernel(s->kernel[i]);
  if (s->program) s->ReleaseProgram(s->program);
  if (s->queue) s->ReleaseCommandQueue(s->queue);
  if (s->context) s->ReleaseContext(s->context);
}

/* out = a + b */
static cl_int bare_add(bare *s, cl_mem a, cl_mem b, cl_mem out) {
  const cl_kernel k = s->kernel[s->form];
  const cl_uint n = SIZE, step = CHUNK;
  const size_t local = s->form ? 1 : GROUP, global = s->form ? 1 : (SIZE + GROUP - 1) / GROUP * GROUP;
  cl_int e = s->SetKernelArg(k, 0, sizeof a, &a);
  e |= s->SetKernelArg(k, 1, sizeof b, &b);
  e |= s->SetKernelArg(k, 2, sizeof out, &out);
  e |= s->SetKernelArg(k, 3, sizeof n, &n);
  e |= s->SetKernelArg(k, 4, sizeof step, &step);
  return e | s->EnqueueNDRangeKernel(s->queue, k, 1, NULL, &global, &local, 0, NULL, NULL);
}

static void keep_error(bare *s, cl_int e) {
  if (e && !s->error) s->error = e;
}

static void bare_launch(void *context, long reps) {
  bare *s = context;
  for (long i = 0; i < reps; i++)
    keep_error(s, bare_add(s, s->buffer[0], s->buffer[1], s->buffer[2]) | s->Finish(s->queue));
}

/* Two buffers by turns: each kernel reads what the one before wrote. */
static void bare_chain(void *context, long reps) {
  bare *s = context;
  for (long i = 0; i < reps; i++) {
    cl_mem from = s->buffer[0];
    cl_int e = CL_SUCCESS;
    for (int j = 0; j < CHAIN; j++) {
      const cl_mem to = s->buffer[2 + j % 2];
      e |= bare_add(s, from, s->buffer[1], to);
      from = to;
    }
    e |= s->EnqueueReadBuffer(s->queue, from, CL_TRUE, 0, sizeof s->result, s->result, 0, NULL, NULL);
    keep_error(s, e);
  }
}

typedef struct operands {
  tern_tensor *a, *b;
  float result[SIZE];
} operands;

static void add_and_wait(void *context, long reps) {
  const operands *s = context;
  for (long i = 0; i < reps; i++) {
    TERN_SCOPE;
    tern_add(s->a, s->b);
    tern_sync(NULL);
  }
}

static void add_chain(void *context, long reps) {
  operands *s = context;
  for (long i = 0; i < reps; i++) {
    TERN_SCOPE;
    tern_tensor *y = s->a;
    for (int j = 0; j < CHAIN; j++) y = tern_add(y, s->b);
    tern_to_host(y, s->result, sizeof s->result);
  }
}

static const struct {
  const char *name, *device;
  bench_fn tern, bare;
  float sum; /* what every element of the result is, of ones */
  double need;
} table[] = {{"opencl/launch_pocl", "opencl:pocl", add_and_wait, bare_launch, 2, 0.77},
             {"opencl/launch_intel", "opencl:intel", add_and_wait, bare_launch, 2, 0.77},
             {"opencl/chain_pocl", "opencl:pocl", add_chain, bare_chain, 1 + CHAIN, 0.67},
             {"opencl/chain_intel", "opencl:intel", add_chain, bare_chain, 1 + CHAIN, 0.67}};
enum { CASES = sizeof table / sizeof table[0] };

static bool all_are(const float *v, float sum) {
  for (int i = 0; i < SIZE; i++)
    if (v[i] != sum) return false;
  return true;
}

/* Both forms and tern compute what they should. */
static bool right(bare *s, operands *o, int c) {
  add_chain(o, 1);
  for (s->form = 0; s->form < 2; s->form++) {
    table[c].bare(s, 1);
    if (table[c].bare == bare_launch)
      keep_error(s,
                 s->EnqueueReadBuffer(s->queue, s->buffer[2], CL_TRUE, 0, sizeof s->result, s->result, 0, NULL, NULL));
    if (s->error || !all_are(s->result, table[c].sum)) return false;
  }
  return all_are(o->result, 1 + CHAIN);
}

static int compare(int c, bare *s) {
  TERN_SCOPE;
  const char *name = table[c].name;
  operands o = {.a = tern_ones(TERN_SHAPE(SIZE), TERN_F32), .b = tern_ones(TERN_SHAPE(SIZE), TERN_F32)};
  bench_pair least = {.ratio = INFINITY};
  if (!right(s, &o, c))
    return bench_errors(name) || bench_fail("%s: a result is wrong (OpenCL error %d)", name, s->error);
  for (s->form = 0; s->form < 2; s->form++) {
    const bench_pair p = bench_pairs(table[c].tern, &o, table[c].bare, s, BENCH_SECONDS);
    if (p.ratio < least.ratio) least = p;
  }
  if (s->error) return bench_fail("%s: OpenCL error %d", name, s->error);
  const bench_row row = {name,        table[c].device, "us", "bare OpenCL", false, 1e6 * least.tern, 1e6 * least.peer,
                         least.ratio, table[c].need};
  bench_print(&row);
  return bench_errors(name);
}

static int measure(const char *name) {
  int c = 0;
  while (strcmp(table[c].name, name) != 0) c++;
  if (tern_set_device(table[c].device)) {
    bench_fail("%s: %s is not among the OpenCL implementations here", name, table[c].device + strlen("opencl:"));
    return BENCH_SKIP;
  }
  tern_device_desc d = {0};
  for (int i = 0; !tern_device_at(i, &d) && strcmp(d.alias, table[c].device) != 0;) i++;
  bare s = {0};
  int rc = 1;
  if (!load(&s))
    bench_fail("%s: libOpenCL.so.1 cannot be loaded", name);
  else if (!bench_find_device(s.GetPlatformIDs, s.GetPlatformInfo, s.GetDeviceIDs, s.GetDeviceInfo,
                              d.desc ? d.desc : "", &s.device))
    bench_fail("%s: no OpenCL device has tern's description \"%s\"", name, d.desc);
  else if (!make(&s))
    bench_fail("%s: OpenCL error %d", name, s.error);
  else
    rc = compare(c, &s);
  if (s.library) destroy(&s);
  return rc;
}

int main(int argc, char **argv) {
  bench_case cases[CASES];
  for (int i = 0; i < CASES; i++) cases[i] = (bench_case){.name = table[i].name, .measure = measure};
  const int rc = bench_main(argc, argv, "Launching on OpenCL.", cases, CASES);
  return tern_finish() || rc == 1 ? 1 : rc;
}
#else
int main(int argc, char **argv) {
  const int rc = bench_main(argc, argv, "Launching on OpenCL (built without OpenCL headers: no cases).", NULL, 0);
  return tern_finish() || rc == 1 ? 1 : rc;
}
#endif
