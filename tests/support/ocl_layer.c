/* A layer for the OpenCL loader that makes an implementation worse than it is: a test tool, loaded by the loader itself
   (ocl-icd 2.3 and Khronos' loader) into any program, without a change to it:

     OPENCL_LAYERS=BUILD/lib/ocl_layer.so OCL_LAYER_FAIL=clBuildProgram:2:-5 PROGRAM

   OCL_LAYER_NO_COMPILER=1   No online compiler, as on an FPGA board: CL_DEVICE_COMPILER_AVAILABLE and
                             CL_DEVICE_LINKER_AVAILABLE read false; programs are made of binaries only (source,
                             IL, compile and link are refused with CL_COMPILER_NOT_AVAILABLE, and so is building a
                             program that has a source).
   OCL_LAYER_FAIL=RULE,...   RULE is NAME:N:CODE: the N-th call (1 is the first) of the function NAME is not made but
                             answered with the error CODE, a negative number; N+ also fails all that come after,
                             as a lost device does. clSVMAlloc answers with NULL.
   OCL_LAYER_NO_DEVICES=PART Platforms whose name contains PART fail to list devices (CL_OUT_OF_HOST_MEMORY).
   OCL_LAYER_ONLY=PART       The rules of OCL_LAYER_FAIL count and fail only calls whose object belongs to a
                             platform whose name contains PART (what takes no object: all).
   OCL_LAYER_LOCAL_MEM=N     Devices have N bytes of local memory.
   OCL_LAYER_WRITTEN=1       Buffers count as written by somebody from their beginning on. (oclgrind 21.10 remembers of a
                             buffer only as much as the host's last write or mapping of it covered, nothing of what
                             kernels write beyond, and so reports values from memory that somebody has written. What
                             nobody wrote is left to be found in private and local memory.)
   OCL_LAYER_QUIET_EXIT=1    clFlush and clFinish do nothing once the main thread's thread-local objects are gone:
                             oclgrind keeps a stack of calls in one, and corrupts the heap when a handler at exit
                             waits for a queue.
   OCL_LAYER_COUNT=FILE      At exit FILE gets a line "NAME CALLS FAILED" for each function of the list below that was
                             called.

   Only functions of the list below can be named; of these only those are put between program and implementation that
   the variables need. Functions that an extension brings (clGetExtensionFunctionAddressForPlatform) are out of reach.
   A variable that it cannot understand ends the program with status 99: a test with a typing error must not pass. */
#define CL_TARGET_OPENCL_VERSION 300
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#pragma GCC visibility push(default)
#include <CL/cl_layer.h>
#pragma GCC visibility pop
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* INT(name, object, parameters, arguments): returns a status; OBJ: returns an object, and the status through its last
   parameter, `err`; OWN: written out below. `object` is what tells the platform, NULL where nothing does. */
#define CALLS(INT, OBJ, OWN)                                                                                           \
  INT(clGetPlatformIDs, NULL, (cl_uint n, cl_platform_id * p, cl_uint * got), (n, p, got))                             \
  OWN(clGetDeviceIDs)                                                                                                  \
  OWN(clGetDeviceInfo)                                                                                                 \
  OBJ(cl_context, clCreateContext, n ? (const void *)d[0] : NULL,                                                      \
      (const cl_context_properties *props, cl_uint n, const cl_device_id *d,                                           \
       void(CL_CALLBACK * notify)(const char *, const void *, size_t, void *), void *user, cl_int *err),               \
      (props, n, d, notify, user, err))                                                                                \
  OBJ(cl_command_queue, clCreateCommandQueue, d,                                                                       \
      (cl_context c, cl_device_id d, cl_command_queue_properties props, cl_int * err), (c, d, props, err))             \
  OBJ(cl_command_queue, clCreateCommandQueueWithProperties, d,                                                         \
      (cl_context c, cl_device_id d, const cl_queue_properties *props, cl_int *err), (c, d, props, err))               \
  OWN(clCreateBuffer)                                                                                                  \
  OBJ(cl_mem, clCreateSubBuffer, m,                                                                                    \
      (cl_mem m, cl_mem_flags flags, cl_buffer_create_type type, const void *info, cl_int *err),                       \
      (m, flags, type, info, err))                                                                                     \
  OWN(clSVMAlloc)                                                                                                      \
  OWN(clCreateProgramWithSource)                                                                                       \
  OWN(clCreateProgramWithIL)                                                                                           \
  OBJ(cl_program, clCreateProgramWithBinary, c,                                                                        \
      (cl_context c, cl_uint n, const cl_device_id *d, const size_t *sizes, const unsigned char **bytes,               \
       cl_int *status, cl_int *err),                                                                                   \
      (c, n, d, sizes, bytes, status, err))                                                                            \
  OWN(clBuildProgram)                                                                                                  \
  OWN(clCompileProgram)                                                                                                \
  OWN(clLinkProgram)                                                                                                   \
  INT(clGetProgramInfo, p, (cl_program p, cl_program_info what, size_t size, void *to, size_t *got),                   \
      (p, what, size, to, got))                                                                                        \
  OBJ(cl_kernel, clCreateKernel, p, (cl_program p, const char *name, cl_int *err), (p, name, err))                     \
  INT(clSetKernelArg, k, (cl_kernel k, cl_uint i, size_t size, const void *value), (k, i, size, value))                \
  INT(clSetKernelArgSVMPointer, k, (cl_kernel k, cl_uint i, const void *value), (k, i, value))                         \
  INT(clEnqueueNDRangeKernel, q,                                                                                       \
      (cl_command_queue q, cl_kernel k, cl_uint dims, const size_t *first, const size_t *global, const size_t *local,  \
       cl_uint n, const cl_event *after, cl_event *e),                                                                 \
      (q, k, dims, first, global, local, n, after, e))                                                                 \
  INT(clEnqueueReadBuffer, q,                                                                                          \
      (cl_command_queue q, cl_mem m, cl_bool wait, size_t at, size_t size, void *to, cl_uint n, const cl_event *after, \
       cl_event *e),                                                                                                   \
      (q, m, wait, at, size, to, n, after, e))                                                                         \
  OWN(clEnqueueWriteBuffer)                                                                                            \
  INT(clEnqueueCopyBuffer, q,                                                                                          \
      (cl_command_queue q, cl_mem from, cl_mem to, size_t at, size_t there, size_t size, cl_uint n,                    \
       const cl_event *after, cl_event *e),                                                                            \
      (q, from, to, at, there, size, n, after, e))                                                                     \
  INT(clEnqueueFillBuffer, q,                                                                                          \
      (cl_command_queue q, cl_mem m, const void *pattern, size_t length, size_t at, size_t size, cl_uint n,            \
       const cl_event *after, cl_event *e),                                                                            \
      (q, m, pattern, length, at, size, n, after, e))                                                                  \
  OBJ(void *, clEnqueueMapBuffer, q,                                                                                   \
      (cl_command_queue q, cl_mem m, cl_bool wait, cl_map_flags flags, size_t at, size_t size, cl_uint n,              \
       const cl_event *after, cl_event *e, cl_int *err),                                                               \
      (q, m, wait, flags, at, size, n, after, e, err))                                                                 \
  INT(clEnqueueUnmapMemObject, q,                                                                                      \
      (cl_command_queue q, cl_mem m, void *p, cl_uint n, const cl_event *after, cl_event *e), (q, m, p, n, after, e))  \
  INT(clEnqueueSVMMap, q,                                                                                              \
      (cl_command_queue q, cl_bool wait, cl_map_flags flags, void *p, size_t size, cl_uint n, const cl_event *after,   \
       cl_event *e),                                                                                                   \
      (q, wait, flags, p, size, n, after, e))                                                                          \
  INT(clEnqueueSVMUnmap, q, (cl_command_queue q, void *p, cl_uint n, const cl_event *after, cl_event *e),              \
      (q, p, n, after, e))                                                                                             \
  INT(clEnqueueMigrateMemObjects, q,                                                                                   \
      (cl_command_queue q, cl_uint n_mem, const cl_mem *m, cl_mem_migration_flags flags, cl_uint n,                    \
       const cl_event *after, cl_event *e),                                                                            \
      (q, n_mem, m, flags, n, after, e))                                                                               \
  INT(clEnqueueMarkerWithWaitList, q, (cl_command_queue q, cl_uint n, const cl_event *after, cl_event *e),             \
      (q, n, after, e))                                                                                                \
  INT(clEnqueueBarrierWithWaitList, q, (cl_command_queue q, cl_uint n, const cl_event *after, cl_event *e),            \
      (q, n, after, e))                                                                                                \
  OWN(clFlush)                                                                                                         \
  OWN(clFinish)                                                                                                        \
  INT(clWaitForEvents, n ? (const void *)e[0] : NULL, (cl_uint n, const cl_event *e), (n, e))                          \
  INT(clGetEventInfo, e, (cl_event e, cl_event_info what, size_t size, void *to, size_t *got),                         \
      (e, what, size, to, got))                                                                                        \
  INT(clReleaseContext, c, (cl_context c), (c))                                                                        \
  INT(clReleaseCommandQueue, q, (cl_command_queue q), (q))                                                             \
  INT(clReleaseMemObject, m, (cl_mem m), (m))                                                                          \
  INT(clReleaseProgram, p, (cl_program p), (p))                                                                        \
  INT(clReleaseKernel, k, (cl_kernel k), (k))                                                                          \
  INT(clReleaseEvent, e, (cl_event e), (e))

#define INT_ID(name, object, params, args) AT_##name,
#define OBJ_ID(type, name, object, params, args) AT_##name,
#define OWN_ID(name) AT_##name,
enum { CALLS(INT_ID, OBJ_ID, OWN_ID) N_CALLS };

static struct {
  const cl_icd_dispatch *real;
  cl_icd_dispatch mine;
  bool no_compiler, written, quiet_exit;
  atomic_bool gone;
  const char *no_devices, *only, *count;
  unsigned long local_mem; /* 0: as it is */
  struct {
    atomic_long all, counted, failed; /* counted: those that the rules look at */
  } calls[N_CALLS];
  struct rule {
    int call;
    long nth;
    cl_int code;
    bool after;
  } rules[32];
  int n_rules;
} layer;

/* Every object begins with the address of its implementation's table of functions (cl_khr_icd). */
static bool same_platform(const void *object, cl_platform_id platform) {
  return *(const void *const *)object == *(const void *const *)(const void *)platform;
}

static bool name_contains(cl_platform_id platform, const char *part) {
  char name[256] = "";
  layer.real->clGetPlatformInfo(platform, CL_PLATFORM_NAME, sizeof name - 1, name, NULL);
  return strstr(name, part) != NULL;
}

static bool is_meant(const void *object) {
  cl_platform_id list[32];
  cl_uint n = 0;
  if (!layer.only || !object) return true;
  if (layer.real->clGetPlatformIDs(32, list, &n) != CL_SUCCESS) return false;
  for (cl_uint i = 0; i < n && i < 32; i++)
    if (same_platform(object, list[i]) && name_contains(list[i], layer.only)) return true;
  return false;
}

/* Counts a call; the error that it is to be answered with, or CL_SUCCESS. */
static cl_int enter(int call, const void *object) {
  atomic_fetch_add(&layer.calls[call].all, 1);
  if (!layer.n_rules || !is_meant(object)) return CL_SUCCESS;
  const long nth = atomic_fetch_add(&layer.calls[call].counted, 1) + 1;
  for (int i = 0; i < layer.n_rules; i++) {
    const struct rule *r = &layer.rules[i];
    if (r->call != call || (r->after ? nth < r->nth : nth != r->nth)) continue;
    atomic_fetch_add(&layer.calls[call].failed, 1);
    return r->code;
  }
  return CL_SUCCESS;
}

static void *refused(cl_int code, cl_int *err) {
  if (err) *err = code;
  return NULL;
}

#define INT_WRAPPER(name, object, params, args)   \
  static cl_int CL_API_CALL on_##name params {    \
    const cl_int code = enter(AT_##name, object); \
    return code ? code : layer.real->name args;   \
  }
#define OBJ_WRAPPER(type, name, object, params, args)         \
  static type CL_API_CALL on_##name params {                  \
    const cl_int code = enter(AT_##name, object);             \
    return code ? refused(code, err) : layer.real->name args; \
  }
#define OWN_WRAPPER(name)
CALLS(INT_WRAPPER, OBJ_WRAPPER, OWN_WRAPPER)

static cl_int CL_API_CALL on_clGetDeviceIDs(cl_platform_id p, cl_device_type type, cl_uint n, cl_device_id *d,
                                            cl_uint *got) {
  const cl_int code = enter(AT_clGetDeviceIDs, p);
  if (code) return code;
  if (layer.no_devices && p && name_contains(p, layer.no_devices)) return CL_OUT_OF_HOST_MEMORY;
  return layer.real->clGetDeviceIDs(p, type, n, d, got);
}

static cl_int CL_API_CALL on_clGetDeviceInfo(cl_device_id d, cl_device_info what, size_t size, void *to, size_t *got) {
  const cl_int code = enter(AT_clGetDeviceInfo, d);
  if (code) return code;
  const cl_int rc = layer.real->clGetDeviceInfo(d, what, size, to, got);
  const bool compiler = what == CL_DEVICE_COMPILER_AVAILABLE || what == CL_DEVICE_LINKER_AVAILABLE;
  if (rc == CL_SUCCESS && layer.no_compiler && compiler && to) *(cl_bool *)to = CL_FALSE;
  if (rc == CL_SUCCESS && layer.local_mem && what == CL_DEVICE_LOCAL_MEM_SIZE && to) *(cl_ulong *)to = layer.local_mem;
  return rc;
}

static cl_int CL_API_CALL on_clFlush(cl_command_queue q) {
  const cl_int code = enter(AT_clFlush, q);
  return code || atomic_load(&layer.gone) ? code : layer.real->clFlush(q);
}

static cl_int CL_API_CALL on_clFinish(cl_command_queue q) {
  const cl_int code = enter(AT_clFinish, q);
  return code || atomic_load(&layer.gone) ? code : layer.real->clFinish(q);
}

static void *CL_API_CALL on_clSVMAlloc(cl_context c, cl_svm_mem_flags flags, size_t size, cl_uint align) {
  return enter(AT_clSVMAlloc, c) ? NULL : layer.real->clSVMAlloc(c, flags, size, align);
}

static cl_program CL_API_CALL on_clCreateProgramWithSource(cl_context c, cl_uint n, const char **text,
                                                           const size_t *sizes, cl_int *err) {
  cl_int code = enter(AT_clCreateProgramWithSource, c);
  if (!code && layer.no_compiler) code = CL_COMPILER_NOT_AVAILABLE;
  return code ? refused(code, err) : layer.real->clCreateProgramWithSource(c, n, text, sizes, err);
}

static cl_program CL_API_CALL on_clCreateProgramWithIL(cl_context c, const void *il, size_t size, cl_int *err) {
  cl_int code = enter(AT_clCreateProgramWithIL, c);
  if (!code && layer.no_compiler) code = CL_COMPILER_NOT_AVAILABLE;
  return code ? refused(code, err) : layer.real->clCreateProgramWithIL(c, il, size, err);
}

static cl_int CL_API_CALL on_clBuildProgram(cl_program p, cl_uint n, const cl_device_id *d, const char *options,
                                            void(CL_CALLBACK *notify)(cl_program, void *), void *user) {
  const cl_int code = enter(AT_clBuildProgram, p);
  if (code) return code;
  size_t source = 0;
  if (layer.no_compiler && layer.real->clGetProgramInfo(p, CL_PROGRAM_SOURCE, 0, NULL, &source) == CL_SUCCESS &&
      source > 1)
    return CL_COMPILER_NOT_AVAILABLE;
  return layer.real->clBuildProgram(p, n, d, options, notify, user);
}

static cl_int CL_API_CALL on_clCompileProgram(cl_program p, cl_uint n, const cl_device_id *d, const char *options,
                                              cl_uint n_heads, const cl_program *heads, const char **names,
                                              void(CL_CALLBACK *notify)(cl_program, void *), void *user) {
  const cl_int code = enter(AT_clCompileProgram, p);
  if (code) return code;
  if (layer.no_compiler) return CL_COMPILER_NOT_AVAILABLE;
  return layer.real->clCompileProgram(p, n, d, options, n_heads, heads, names, notify, user);
}

static cl_program CL_API_CALL on_clLinkProgram(cl_context c, cl_uint n, const cl_device_id *d, const char *options,
                                               cl_uint n_parts, const cl_program *parts,
                                               void(CL_CALLBACK *notify)(cl_program, void *), void *user, cl_int *err) {
  cl_int code = enter(AT_clLinkProgram, c);
  if (!code && layer.no_compiler) code = CL_LINKER_NOT_AVAILABLE;
  return code ? refused(code, err) : layer.real->clLinkProgram(c, n, d, options, n_parts, parts, notify, user, err);
}

/* A mapping of all of the buffer that may write, and writes nothing. */
static cl_int count_as_written(cl_command_queue q, cl_mem m) {
  size_t size = 0;
  cl_int err = layer.real->clGetMemObjectInfo(m, CL_MEM_SIZE, sizeof size, &size, NULL);
  void *p = err ? NULL : layer.real->clEnqueueMapBuffer(q, m, CL_TRUE, CL_MAP_WRITE, 0, size, 0, NULL, NULL, &err);
  if (!err) err = layer.real->clEnqueueUnmapMemObject(q, m, p, 0, NULL, NULL);
  return err ? err : layer.real->clFinish(q);
}

static cl_mem CL_API_CALL on_clCreateBuffer(cl_context c, cl_mem_flags flags, size_t size, void *host, cl_int *err) {
  const cl_int code = enter(AT_clCreateBuffer, c);
  if (code) return refused(code, err);
  cl_mem m = layer.real->clCreateBuffer(c, flags, size, host, err);
  cl_device_id device;
  if (!m || !layer.written ||
      layer.real->clGetContextInfo(c, CL_CONTEXT_DEVICES, sizeof device, &device, NULL) != CL_SUCCESS)
    return m;
  cl_command_queue q = layer.real->clCreateCommandQueue(c, device, 0, NULL);
  if (!q) return m;
  count_as_written(q, m);
  layer.real->clReleaseCommandQueue(q);
  return m;
}

static cl_int CL_API_CALL on_clEnqueueWriteBuffer(cl_command_queue q, cl_mem m, cl_bool wait, size_t at, size_t size,
                                                  const void *from, cl_uint n, const cl_event *after, cl_event *e) {
  const cl_int code = enter(AT_clEnqueueWriteBuffer, q);
  if (code) return code;
  const cl_int err = layer.real->clEnqueueWriteBuffer(q, m, wait, at, size, from, n, after, e);
  return err || !layer.written ? err : count_as_written(q, m);
}

/* ---- what the loader calls ---- */

#define INT_ROW(name, object, params, args) OWN_ROW(name)
#define OBJ_ROW(type, name, object, params, args) OWN_ROW(name)
#define OWN_ROW(name) [AT_##name] = {#name, offsetof(cl_icd_dispatch, name), (void (*)(void))on_##name},
static const struct {
  const char *name;
  size_t at; /* in the table of functions */
  void (*wrapper)(void);
} table[N_CALLS] = {CALLS(INT_ROW, OBJ_ROW, OWN_ROW)};

/* Thread-local objects of C++ libraries end with handlers that the C library keeps for each thread (Itanium C++
   ABI). */
int __cxa_thread_atexit_impl(void (*)(void *), void *, void *);
static void main_thread_ends(void *nothing) {
  (void)nothing;
  atomic_store(&layer.gone, true);
}

static void bad(const char *variable, const char *value) {
  fprintf(stderr, "ocl_layer: %s=%s is not understood\n", variable, value);
  _Exit(99);
}

static int call_of(const char *name) {
  for (int i = 0; i < N_CALLS; i++)
    if (!strcmp(table[i].name, name)) return i;
  return -1;
}

static void read_rules(const char *text) {
  while (*text) {
    char name[64], plus[2] = "";
    long nth = 0;
    int code = 0, used = 0;
    if (sscanf(text, "%63[A-Za-z]:%ld%1[+]:%d%n", name, &nth, plus, &code, &used) < 4) {
      plus[0] = 0;
      used = 0;
      if (sscanf(text, "%63[A-Za-z]:%ld:%d%n", name, &nth, &code, &used) < 3) bad("OCL_LAYER_FAIL", text);
    }
    const int call = call_of(name);
    const bool room = layer.n_rules < (int)(sizeof layer.rules / sizeof layer.rules[0]);
    if (call < 0 || nth < 1 || code >= 0 || !room || (text[used] && text[used] != ',')) bad("OCL_LAYER_FAIL", text);
    layer.rules[layer.n_rules++] = (struct rule){.call = call, .nth = nth, .code = code, .after = plus[0] == '+'};
    text += used + (text[used] == ',');
  }
}

static void write_counts(void) {
  FILE *f = fopen(layer.count, "w");
  if (!f) bad("OCL_LAYER_COUNT", layer.count);
  for (int i = 0; i < N_CALLS; i++)
    if (atomic_load(&layer.calls[i].all))
      fprintf(f, "%s %ld %ld\n", table[i].name, atomic_load(&layer.calls[i].all), atomic_load(&layer.calls[i].failed));
  fclose(f);
}

static bool is_wanted(int call) {
  if (layer.count) return true;
  for (int i = 0; i < layer.n_rules; i++)
    if (layer.rules[i].call == call) return true;
  switch (call) {
  case AT_clGetDeviceIDs: return layer.no_devices != NULL;
  case AT_clFlush:
  case AT_clFinish: return layer.quiet_exit;
  case AT_clCreateBuffer:
  case AT_clEnqueueWriteBuffer: return layer.written;
  case AT_clGetDeviceInfo: return layer.no_compiler || layer.local_mem;
  case AT_clCreateProgramWithSource:
  case AT_clCreateProgramWithIL:
  case AT_clBuildProgram:
  case AT_clCompileProgram:
  case AT_clLinkProgram: return layer.no_compiler;
  default: return false;
  }
}

static const char *variable(const char *name) {
  const char *v = getenv(name);
  return v && *v ? v : NULL;
}

static bool is_set(const char *name) {
  const char *v = variable(name);
  if (v && strcmp(v, "0") != 0 && strcmp(v, "1") != 0) bad(name, v);
  return v && *v == '1';
}

cl_int clGetLayerInfo(cl_layer_info what, size_t size, void *to, size_t *got) {
  static const char name[] = "tern's test layer";
  const cl_layer_api_version version = CL_LAYER_API_VERSION_100;
  const bool is_version = what == CL_LAYER_API_VERSION;
  if (!is_version && what != CL_LAYER_NAME) return CL_INVALID_VALUE;
  const size_t n = is_version ? sizeof version : sizeof name;
  if (to && size < n) return CL_INVALID_VALUE;
  if (to) memcpy(to, is_version ? (const void *)&version : name, n);
  if (got) *got = n;
  return CL_SUCCESS;
}

cl_int clInitLayer(cl_uint n, const cl_icd_dispatch *real, cl_uint *n_out, const cl_icd_dispatch **out) {
  if (!real || !n_out || !out || n < sizeof *real / sizeof(void *)) return CL_INVALID_VALUE;
  layer.real = real;
  layer.mine = *real;
  const char *rules = variable("OCL_LAYER_FAIL");
  layer.no_compiler = is_set("OCL_LAYER_NO_COMPILER");
  layer.quiet_exit = is_set("OCL_LAYER_QUIET_EXIT");
  if (layer.quiet_exit) __cxa_thread_atexit_impl(main_thread_ends, NULL, &layer);
  layer.written = is_set("OCL_LAYER_WRITTEN");
  const char *bytes = variable("OCL_LAYER_LOCAL_MEM");
  char *end = NULL;
  layer.local_mem = bytes ? strtoul(bytes, &end, 10) : 0;
  if (bytes && (!layer.local_mem || *end)) bad("OCL_LAYER_LOCAL_MEM", bytes);
  layer.no_devices = variable("OCL_LAYER_NO_DEVICES");
  layer.only = variable("OCL_LAYER_ONLY");
  layer.count = variable("OCL_LAYER_COUNT");
  if (rules) read_rules(rules);
  for (int i = 0; i < N_CALLS; i++)
    if (is_wanted(i)) memcpy((char *)&layer.mine + table[i].at, &table[i].wrapper, sizeof table[i].wrapper);
  if (layer.count) atexit(write_counts);
  *n_out = sizeof layer.mine / sizeof(void *);
  *out = &layer.mine;
  return CL_SUCCESS;
}
