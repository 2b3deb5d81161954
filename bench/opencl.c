/* An eager op on OpenCL and the wait for it, beside the same kernel through the bare OpenCL API: its arguments set
   every time, enqueued, clFinish. The library is found with dlopen. Two forms of the kernel are tried, an element a
   work-item and all of a chunk in one work-item; the faster is the peer. */
#include "bench.h"

#if __has_include(<CL/cl.h>)
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <dlfcn.h>

enum { SIZE = 1000, GROUP = 64, CHUNK = 1024 };

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
  F(GetPlatformIDs)                                                                                                  \
  F(GetDeviceIDs) F(GetDeviceInfo) F(CreateContext) F(CreateCommandQueue) F(CreateProgramWithSource) F(BuildProgram) \
      F(CreateKernel) F(CreateBuffer) F(EnqueueWriteBuffer) F(EnqueueReadBuffer) F(SetKernelArg)                     \
          F(EnqueueNDRangeKernel) F(Finish) F(ReleaseKernel) F(ReleaseProgram) F(ReleaseMemObject)                   \
              F(ReleaseCommandQueue) F(ReleaseContext)
// clang-format on
#define CL_MEMBER(name) __typeof__(&cl##name) name;

/* The bare side: one in-order queue, two kernels, three buffers. */
typedef struct bare {
  void *library;
  CL_FUNCTIONS(CL_MEMBER)
  cl_device_id device;
  cl_context context;
  cl_command_queue queue;
  cl_program program;
  cl_kernel kernel[2]; /* each, chunk */
  cl_mem buffer[3];
  int form;
  cl_int error; /* the first */
} bare;

typedef struct operands {
  tern_tensor *a, *b;
} operands;

static bool load(bare *s) {
  s->library = dlopen("libOpenCL.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!s->library) return false;
#define CL_LOAD(name)                                           \
  s->name = (__typeof__(s->name))dlsym(s->library, "cl" #name); \
  if (!s->name) return false;
  CL_FUNCTIONS(CL_LOAD)
  return true;
}

/* The device that tern's description names, so that both sides use the same one. */
static bool find_device(bare *s, const char *description) {
  cl_platform_id platforms[16];
  cl_uint n_platforms = 0;
  if (s->GetPlatformIDs(16, platforms, &n_platforms)) return false;
  for (cl_uint p = 0; p < n_platforms && p < 16; p++) {
    cl_device_id devices[16];
    cl_uint n = 0;
    if (s->GetDeviceIDs(platforms[p], CL_DEVICE_TYPE_ALL, 16, devices, &n)) continue;
    for (cl_uint d = 0; d < n && d < 16; d++) {
      char name[256] = "";
      if (s->GetDeviceInfo(devices[d], CL_DEVICE_NAME, sizeof name - 1, name, NULL) || !*name) continue;
      s->device = devices[d];
      if (strstr(description, name)) return true;
    }
  }
  return false;
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
  for (int i = 0; i < 3 && !e; i++) {
    s->buffer[i] = s->CreateBuffer(s->context, CL_MEM_READ_WRITE, sizeof ones, NULL, &e);
    if (!e) e = s->EnqueueWriteBuffer(s->queue, s->buffer[i], CL_TRUE, 0, sizeof ones, ones, 0, NULL, NULL);
  }
  s->error = e;
  return !e;
}

static void destroy(bare *s) {
  for (int i = 0; i < 3; i++)
    if (s->buffer[i]) s->ReleaseMemObject(s->buffer[i]);
  for (int i = 0; i < 2; i++)
    if (s->kernel[i]) s->ReleaseKernel(s->kernel[i]);
  if (s->program) s->ReleaseProgram(s->program);
  if (s->queue) s->ReleaseCommandQueue(s->queue);
  if (s->context) s->ReleaseContext(s->context);
}

static void bare_loop(void *context, long reps) {
  bare *s = context;
  const cl_kernel k = s->kernel[s->form];
  const cl_uint n = SIZE, step = CHUNK;
  const size_t local = s->form ? 1 : GROUP, global = s->form ? 1 : (SIZE + GROUP - 1) / GROUP * GROUP;
  for (long i = 0; i < reps; i++) {
    cl_int e = CL_SUCCESS;
    for (cl_uint j = 0; j < 3; j++) e |= s->SetKernelArg(k, j, sizeof(cl_mem), &s->buffer[j]);
    e |= s->SetKernelArg(k, 3, sizeof n, &n);
    e |= s->SetKernelArg(k, 4, sizeof step, &step);
    e |= s->EnqueueNDRangeKernel(s->queue, k, 1, NULL, &global, &local, 0, NULL, NULL);
    e |= s->Finish(s->queue);
    if (e && !s->error) s->error = e;
  }
}

static void tern_loop(void *context, long reps) {
  const operands *s = context;
  for (long i = 0; i < reps; i++) {
    TERN_SCOPE;
    tern_add(s->a, s->b);
    tern_sync(NULL);
  }
}

/* Both forms compute 1 + 1. */
static bool right(bare *s) {
  float c[SIZE];
  for (s->form = 0; s->form < 2; s->form++) {
    bare_loop(s, 1);
    if (s->error || s->EnqueueReadBuffer(s->queue, s->buffer[2], CL_TRUE, 0, sizeof c, c, 0, NULL, NULL)) return false;
    for (int i = 0; i < SIZE; i++)
      if (c[i] != 2) return false;
  }
  return true;
}

static int compare(const char *name, bare *s) {
  TERN_SCOPE;
  operands o = {tern_ones(TERN_SHAPE(SIZE), TERN_F32), tern_ones(TERN_SHAPE(SIZE), TERN_F32)};
  bench_pair least = {.ratio = INFINITY};
  if (!right(s)) return bench_fail("%s: the bare kernels fail (OpenCL error %d)", name, s->error);
  for (s->form = 0; s->form < 2; s->form++) {
    const bench_pair p = bench_pairs(tern_loop, &o, bare_loop, s, BENCH_SECONDS);
    if (p.ratio < least.ratio) least = p;
  }
  if (s->error) return bench_fail("%s: OpenCL error %d", name, s->error);
  const bench_row row = {name,        "opencl:0", "us", "bare OpenCL", false, 1e6 * least.tern, 1e6 * least.peer,
                         least.ratio, 0.77};
  bench_print(&row);
  return bench_errors(name);
}

static int launch_case(const char *name) {
  if (tern_set_device("opencl:0")) {
    bench_fail("%s: %s", name, tern_error());
    return BENCH_SKIP;
  }
  tern_device_desc d = {0};
  for (int i = 0; !tern_device_at(i, &d) && strcmp(d.name, "opencl:0");) i++;
  bare s = {0};
  int rc = 1;
  if (!load(&s))
    bench_fail("%s: libOpenCL.so.1 cannot be loaded", name);
  else if (!find_device(&s, d.desc ? d.desc : ""))
    bench_fail("%s: no OpenCL device has tern's description \"%s\"", name, d.desc);
  else if (!make(&s))
    bench_fail("%s: OpenCL error %d", name, s.error);
  else
    rc = compare(name, &s);
  if (s.library) destroy(&s);
  return rc;
}
#else
static int launch_case(const char *name) {
  bench_fail("%s: built without OpenCL headers", name);
  return BENCH_SKIP;
}
#endif

int main(int argc, char **argv) {
  const bench_case cases[] = {{.name = "opencl/launch", .measure = launch_case}};
  const int rc = bench_main(argc, argv, "Launching on OpenCL.", cases, sizeof cases / sizeof *cases);
  return tern_finish() || rc == 1 ? 1 : rc;
}
