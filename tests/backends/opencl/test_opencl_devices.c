/* Memory, downloads and uploads of the OpenCL backend on both kinds of devices (those that share the host's memory, and
   those with their own: the first device is made to be one by a change of its description), devices that compute
   wrongly and devices that are lost. OpenCL's calls are intercepted by this program's own functions of their names.
   Needs an OpenCL device; says so and exits with 77 when there is none. */
#include "ocl.h"
#include "opencl_host.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <tern/tern.h>
#include <unistd.h>

/* ---- calls that fail, or do nothing ---- */

static struct {
  const char *call; /* "clFinish" */
  int after;        /* calls that still work; then all fail */
  cl_int code;
  bool idle_kernels; /* kernels are taken and not run */
} fault;

static cl_int failing(const char *call) {
  if (!fault.call || strcmp(fault.call, call) != 0) return CL_SUCCESS;
  return fault.after-- > 0 ? CL_SUCCESS : fault.code;
}

static void *real(const char *name) {
  static void *loader;
  if (!loader) loader = dlopen("libOpenCL.so.1", RTLD_NOW | RTLD_LOCAL);
  return loader ? dlsym(loader, name) : NULL;
}

#pragma GCC visibility push(default) /* the plugin finds them, too */
cl_int clFinish(cl_command_queue q) {
  const cl_int code = failing("clFinish");
  return code ? code : ((__typeof__(&clFinish))real("clFinish"))(q);
}

cl_int clFlush(cl_command_queue q) {
  const cl_int code = failing("clFlush");
  return code ? code : ((__typeof__(&clFlush))real("clFlush"))(q);
}

cl_int clWaitForEvents(cl_uint n, const cl_event *events) {
  const cl_int code = failing("clWaitForEvents");
  return code ? code : ((__typeof__(&clWaitForEvents))real("clWaitForEvents"))(n, events);
}

cl_int clEnqueueNDRangeKernel(cl_command_queue q, cl_kernel k, cl_uint dims, const size_t *offset, const size_t *global,
                              const size_t *local, cl_uint n, const cl_event *events, cl_event *event) {
  const cl_int code = failing("clEnqueueNDRangeKernel");
  if (code || (fault.idle_kernels && !event)) return code;
  return ((__typeof__(&clEnqueueNDRangeKernel))real("clEnqueueNDRangeKernel"))(q, k, dims, offset, global, local, n,
                                                                               events, event);
}

#pragma GCC visibility pop

/* ---- the first device, as it is or as one with memory of its own ---- */

static char cache[] = "/tmp/tern-devices-XXXXXX";

static bool open_first(bool own_memory) {
  memset(&host_state, 0, sizeof host_state);
  host_state.api = tern_plugin_query(TERN_ABI);
  host_state.cache_dir = cache;
  if (host_state.api->init(&fake_host, &host_state.drv)) return false;
  if (!host_state.drv->n_ids) return false;
  if (own_memory) host_state.drv->ids[0].unified = false;
  return !host_state.api->device_open(host_state.drv, 0, &host_state.dev) &&
         !host_state.api->queue_open(host_state.dev, 0, &host_state.q);
}

enum { N = 100000, BYTES = N * 4 };

static tern_rc fill_all(tern_mem *m, float v) {
  return host_state.api->fill(host_state.dev, host_state.q, m, 0, m->size, &v, sizeof v);
}

static tern_rc copy_on_device(tern_mem *to, tern_mem *from, uint64_t size) {
  info_block b = {0};
  b.copy = (tern_copy){.struct_size = sizeof b.copy, .src = from, .dst = to, .size = size};
  return host_state.api->copy(host_state.dev, host_state.q, &b.copy);
}

static tern_rc begin_get(tern_mem *m, void *to, uint64_t size) {
  info_block b = {0};
  b.copy = (tern_copy){.struct_size = sizeof b.copy, .src = m, .host_dst = to, .size = size};
  return host_state.api->copy(host_state.dev, host_state.q, &b.copy);
}

static int differ(const float *v, int n, float x) {
  int bad = 0;
  for (int i = 0; i < n; i++) bad += v[i] != x;
  return bad;
}

/* A download that nobody has waited for has the bytes of its time, whatever is enqueued after it. */
static void downloads(void) {
  tern_mem *m = mem_new(BYTES), *other = mem_new(BYTES);
  float *v[40];
  uint64_t t[40];
  for (int i = 0; i < 40; i++) {
    v[i] = calloc(N, 4);
    CU_ASSERT_EQUAL(fill_all(m, (float)i), TERN_OK);
    CU_ASSERT_EQUAL(begin_get(m, v[i], BYTES), TERN_OK);
    if (i % 3) CU_ASSERT_EQUAL(host_state.api->queue_signal(host_state.dev, host_state.q, &t[i]), TERN_OK);
  }
  CU_ASSERT_EQUAL(copy_on_device(other, m, BYTES), TERN_OK);
  CU_ASSERT_EQUAL(finish(), TERN_OK);
  for (int i = 0; i < 40; i++) CU_ASSERT_EQUAL(differ(v[i], N, (float)i), 0);
  /* many in a row, more than a queue keeps */
  CU_ASSERT_EQUAL(fill_all(m, 7), TERN_OK);
  for (int i = 0; i < 40; i++) CU_ASSERT_EQUAL(begin_get(i % 2 ? m : other, v[i], BYTES), TERN_OK);
  CU_ASSERT_EQUAL(finish(), TERN_OK);
  for (int i = 0; i < 40; i++) CU_ASSERT_EQUAL(differ(v[i], N, i % 2 ? 7 : 39), 0);
  /* by looking instead of waiting; an earlier ticket */
  CU_ASSERT_EQUAL(fill_all(m, 8), TERN_OK);
  CU_ASSERT_EQUAL(begin_get(m, v[0], BYTES), TERN_OK);
  CU_ASSERT_EQUAL(host_state.api->queue_signal(host_state.dev, host_state.q, &t[0]), TERN_OK);
  tern_rc rc = TERN_E_TIMEOUT;
  while (rc == TERN_E_TIMEOUT) rc = host_state.api->queue_sync(host_state.dev, host_state.q, t[0], 0);
  CU_ASSERT_EQUAL(rc, TERN_OK);
  CU_ASSERT_EQUAL(differ(v[0], N, 8), 0);
  for (int i = 0; i < 40; i++) free(v[i]);
  host_state.api->mem_free(host_state.dev, m);
  host_state.api->mem_free(host_state.dev, other);
}

/* Uploads of every size between work that uses the same memory: nothing overtakes anything. */
static void uploads(void) {
  enum { LARGE = 5500000 }; /* more than two pieces of the transfer */
  static const int sizes[] = {1, 1000, 20000, 100000, 3000000, LARGE};
  tern_mem *m = mem_new(LARGE * 4ull), *before = mem_new(LARGE * 4ull), *after = mem_new(LARGE * 4ull);
  float *up = malloc(LARGE * 4ull), *down = malloc(LARGE * 4ull);
  for (int round = 0; round < 3; round++)
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
      const int n = sizes[k];
      const float mark = (float)(round * 100 + (int)k);
      for (int i = 0; i < n; i++) up[i] = mark + 0.25f;
      CU_ASSERT_EQUAL(fill_all(m, mark), TERN_OK);
      CU_ASSERT_EQUAL(copy_on_device(before, m, n * 4ull), TERN_OK);
      CU_ASSERT_EQUAL(put(m, 0, up, n * 4ull), TERN_OK);
      for (int i = 0; i < n; i++) up[i] = -1; /* it is ours again */
      CU_ASSERT_EQUAL(copy_on_device(after, m, n * 4ull), TERN_OK);
      CU_ASSERT_EQUAL(fill_all(m, -2), TERN_OK);
      if (round == 1) CU_ASSERT_EQUAL(finish(), TERN_OK);
      CU_ASSERT_EQUAL(get(before, 0, down, n * 4ull), TERN_OK);
      CU_ASSERT_EQUAL(differ(down, n, mark), 0);
      CU_ASSERT_EQUAL(get(after, 0, down, n * 4ull), TERN_OK);
      CU_ASSERT_EQUAL(differ(down, n, mark + 0.25f), 0);
      CU_ASSERT_EQUAL(put(m, 0, down, n * 4ull), TERN_OK); /* to an idle queue */
      CU_ASSERT_EQUAL(get(m, 0, up, n * 4ull), TERN_OK);
      CU_ASSERT_EQUAL(differ(up, n, mark + 0.25f), 0);
    }
  free(up), free(down);
  host_state.api->mem_free(host_state.dev, m);
  host_state.api->mem_free(host_state.dev, before);
  host_state.api->mem_free(host_state.dev, after);
}

/* Another queue's work waits for a ticket that has a download: what it overwrites was read before. */
static void two_queues(void) {
  tern_queue *first = host_state.q, *second = NULL;
  CU_ASSERT_EQUAL_FATAL(host_state.api->queue_open(host_state.dev, 0, &second), TERN_OK);
  tern_mem *m = mem_new(BYTES);
  float *v = malloc(BYTES);
  for (int i = 0; i < 20; i++) {
    uint64_t t, u;
    CU_ASSERT_EQUAL(fill_all(m, (float)i), TERN_OK);
    CU_ASSERT_EQUAL(begin_get(m, v, BYTES), TERN_OK);
    CU_ASSERT_EQUAL(host_state.api->queue_signal(host_state.dev, first, &t), TERN_OK);
    CU_ASSERT_EQUAL(host_state.api->queue_wait(host_state.dev, second, first, t), TERN_OK);
    host_state.q = second;
    CU_ASSERT_EQUAL(fill_all(m, -1), TERN_OK);
    CU_ASSERT_EQUAL(host_state.api->queue_signal(host_state.dev, second, &u), TERN_OK);
    CU_ASSERT_EQUAL(host_state.api->queue_sync(host_state.dev, second, u, UINT64_MAX), TERN_OK);
    host_state.q = first;
    CU_ASSERT_EQUAL(host_state.api->queue_sync(host_state.dev, first, t, UINT64_MAX), TERN_OK);
    CU_ASSERT_EQUAL(differ(v, N, (float)i), 0);
  }
  free(v);
  host_state.api->mem_free(host_state.dev, m);
  host_state.api->queue_close(host_state.dev, second);
}

/* Two queues read the same memory, and the one that is done first may overwrite it once it waits for the other. */
static void two_readers(void) {
  enum { LARGE = 3000000, TIMES = 24 };
  tern_queue *first = host_state.q, *second = NULL;
  CU_ASSERT_EQUAL_FATAL(host_state.api->queue_open(host_state.dev, 0, &second), TERN_OK);
  tern_mem *m = mem_new(LARGE * 4ull), *by_first = mem_new(LARGE * 4ull), *by_second = mem_new(64);
  float *v = malloc(LARGE * 4ull), little[16] = {0};
  uint64_t t;
  CU_ASSERT_EQUAL(fill_all(m, 1), TERN_OK);
  CU_ASSERT_EQUAL(finish(), TERN_OK);
  for (int i = 0; i < TIMES; i++) CU_ASSERT_EQUAL(copy_on_device(by_first, m, LARGE * 4ull), TERN_OK);
  CU_ASSERT_EQUAL(host_state.api->queue_signal(host_state.dev, first, &t), TERN_OK);
  host_state.q = second;
  CU_ASSERT_EQUAL(copy_on_device(by_second, m, 64), TERN_OK);
  CU_ASSERT_EQUAL(get(by_second, 0, little, 64), TERN_OK);
  CU_ASSERT_EQUAL(host_state.api->queue_wait(host_state.dev, second, first, t), TERN_OK);
  for (int i = 0; i < LARGE; i++) v[i] = 2;
  CU_ASSERT_EQUAL(put(m, 0, v, LARGE * 4ull), TERN_OK);
  CU_ASSERT_EQUAL(finish(), TERN_OK);
  CU_ASSERT_EQUAL(get(m, 0, v, LARGE * 4ull), TERN_OK);
  CU_ASSERT_EQUAL(differ(v, LARGE, 2), 0);
  CU_ASSERT_EQUAL(differ(little, 16, 1), 0);
  host_state.q = first;
  CU_ASSERT_EQUAL(get(by_first, 0, v, LARGE * 4ull), TERN_OK);
  CU_ASSERT_EQUAL(differ(v, LARGE, 1), 0);
  free(v);
  host_state.api->mem_free(host_state.dev, m);
  host_state.api->mem_free(host_state.dev, by_first);
  host_state.api->mem_free(host_state.dev, by_second);
  host_state.api->queue_close(host_state.dev, second);
}

static void test_memory(void) {
  CU_ASSERT_FATAL(open_first(false));
  const ocl_id *id = host_state.dev->id;
  printf(" (%s: %s) ", id->alias,
         host_state.dev->direct == OCL_DIRECT_SVM    ? "SVM"
         : host_state.dev->direct == OCL_DIRECT_HOST ? "the host's memory"
                                                     : "memory of its own");
  if (ocl_is_cpu(id)) CU_ASSERT_NOT_EQUAL(host_state.dev->direct, OCL_NOT_DIRECT);
  tern_mem *m = mem_new(4096);
  if (host_state.dev->direct) {
    void *p = NULL;
    CU_ASSERT_EQUAL(host_state.api->mem_map(host_state.dev, m, 16, 16, 3, &p), TERN_OK);
    CU_ASSERT_PTR_EQUAL(p, m->host + 16);
    CU_ASSERT_EQUAL(fill_all(m, 2), TERN_OK);
    CU_ASSERT_EQUAL(finish(), TERN_OK);
    CU_ASSERT_EQUAL(*(float *)p, 2);
    *(float *)p = 3;
    float v = 0;
    CU_ASSERT_EQUAL(get(m, 16, &v, 4), TERN_OK);
    CU_ASSERT_EQUAL(v, 3);
  }
  host_state.api->mem_free(host_state.dev, m);
  downloads();
  uploads();
  two_queues();
  two_readers();
  host_close();
}

static void test_own_memory(void) {
  CU_ASSERT_FATAL(open_first(true));
  CU_ASSERT_EQUAL(host_state.dev->direct, OCL_NOT_DIRECT);
  CU_ASSERT_TRUE(host_state.dev->staged);
  downloads();
  uploads();
  CU_ASSERT_PTR_NOT_NULL(host_state.q->transfer);
  two_queues();
  two_readers();
  host_close();
}

static void test_largest(void) {
  CU_ASSERT_FATAL(open_first(false));
  info_block b = {0};
  tern_mem *m = NULL;
  b.mem.struct_size = sizeof b.mem;
  b.mem.size = host_state.drv->ids[0].max_alloc + 1;
  CU_ASSERT_EQUAL(host_state.api->mem_alloc(host_state.dev, &b.mem, &m), TERN_E_OOM);
  CU_ASSERT_PTR_NOT_NULL(strstr(host_state.error, "the device allows"));
  host_close();
}

/* ---- the self-test ---- */

static int passes(void) {
  char command[200], line[32] = "";
  snprintf(command, sizeof command, "ls %s | grep -c opencl-tested-", cache);
  FILE *f = popen(command, "r");
  if (f && !fgets(line, sizeof line, f)) line[0] = 0;
  if (f) pclose(f);
  return atoi(line);
}

static void forget(void) {
  char command[200];
  snprintf(command, sizeof command, "rm -f %s/opencl-tested-*", cache);
  CU_ASSERT_EQUAL(system(command), 0);
}

static void test_self(void) {
  CU_ASSERT_FATAL(open_first(false)); /* the tests before it passed already: kept */
  host_close();
  CU_ASSERT_EQUAL(passes(), 1);
  forget();
  fault.idle_kernels = true;
  CU_ASSERT_FALSE(open_first(false));
  CU_ASSERT_PTR_NOT_NULL(strstr(host_state.error, "computes wrongly"));
  CU_ASSERT_PTR_NULL(host_state.dev);
  CU_ASSERT_EQUAL(passes(), 0);
  host_state.api->fini(host_state.drv);
  fault.idle_kernels = false;
  CU_ASSERT_FATAL(open_first(false));
  host_close();
  CU_ASSERT_EQUAL(passes(), 1);
}

/* ---- names, through the public API ---- */

static void test_names(void) {
  tern_device_desc d = {0};
  int found = 0;
  for (int i = 0; !tern_device_at(i, &d); i++) {
    if (strncmp(d.name, "opencl:", 7) != 0) continue;
    char name[160];
    found++;
    CU_ASSERT_TRUE(strlen(d.features) < 256);
    CU_ASSERT_EQUAL(tern_set_device(d.name), TERN_OK);
    CU_ASSERT_EQUAL(tern_set_device(d.id), TERN_OK);
    if (!*d.alias) continue;
    CU_ASSERT_EQUAL(tern_set_device(d.alias), TERN_OK);
    snprintf(name, sizeof name, "%s/0", d.alias);
    CU_ASSERT_EQUAL(tern_set_device(name), TERN_OK);
    snprintf(name, sizeof name, "%s/17", d.alias);
    CU_ASSERT_EQUAL(tern_set_device(name), TERN_E_ARG);
    tern_error_clear();
    const char *kind = d.kind == TERN_KIND_GPU ? "gpu" : d.kind == TERN_KIND_FPGA ? "fpga" : NULL;
    if (kind && !d.hidden) CU_ASSERT_EQUAL(tern_set_device(kind), TERN_OK);
  }
  CU_ASSERT_TRUE(found > 0);
  CU_ASSERT_EQUAL(tern_set_device("opencl:nobody"), TERN_E_ARG);
  CU_ASSERT_PTR_NOT_NULL(strstr(tern_error(), "devices: "));
  tern_error_clear();
  CU_ASSERT_EQUAL(tern_set_device("cpu"), TERN_OK);
}

/* ---- a device that is lost; each in a process of its own, since it stays lost ---- */

/* 0: as it should be. */
static int use_until_lost(const char *call, cl_int code) {
  TERN_SCOPE;
  tern_tensor *a = tern_ones(TERN_SHAPE(1000), TERN_F32), *b = tern_ones(TERN_SHAPE(1000), TERN_F32);
  tern_tensor *c = tern_add(a, b), *large = tern_ones(TERN_SHAPE(1000, 1000), TERN_F32);
  if (!c || !large || tern_sync(NULL)) return 3;
  fault.call = call;
  fault.code = code;
  fault.after = 3;
  int n = 0;
  for (; n < 50 && !tern_error_code(); n++) {
    TERN_SCOPE;
    if (tern_add(a, b)) tern_sync(NULL);
  }
  if (tern_error_code() != TERN_E_LOST || n < 2) return 4;
  if (!strstr(tern_error(), "opencl:") || !strstr(tern_error(), " lost")) return 5;
  tern_error_clear();
  fault.call = NULL;
  if (tern_add(a, b) || tern_error_code() != TERN_E_LOST) return 6; /* it stays so */
  tern_error_clear();
  return 0;
}

static int lose(const char *call, cl_int code) {
  if (tern_set_device("opencl:0") && tern_set_device("opencl:oclgrind")) return 2; /* that one has no number */
  tern_error_clear();
  const int rc = use_until_lost(call, code);
  if (rc) return rc;
  tern_memory_trim(); /* memory can be given back */
  tern_error_clear();
  if (tern_set_device("cpu")) return 7; /* others go on */
  TERN_SCOPE;
  tern_tensor *x = tern_ones(TERN_SHAPE(10), TERN_F32), *y = tern_add(x, x);
  return y && tern_item(tern_sum(y, NULL)) == 20 ? 0 : 8;
}

static const struct {
  const char *call;
  cl_int code;
} losses[] = {{"clEnqueueNDRangeKernel", CL_OUT_OF_RESOURCES},
              {"clEnqueueNDRangeKernel", CL_DEVICE_NOT_AVAILABLE},
              {"clFinish", CL_OUT_OF_RESOURCES},
              {"clFinish", CL_INVALID_COMMAND_QUEUE},
              {"clFlush", CL_DEVICE_NOT_AVAILABLE}};
enum { LOSSES = sizeof losses / sizeof losses[0] };
static int lost[LOSSES];

static void run_losses(void) {
  for (int i = 0; i < LOSSES; i++) {
    fflush(NULL);
    const pid_t child = fork(); /* before OpenCL has started */
    if (!child) _exit(lose(losses[i].call, losses[i].code));
    int status = 0;
    lost[i] = child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -status;
  }
}

static void test_lost(void) {
  for (int i = 0; i < LOSSES; i++) {
    if (lost[i]) printf(" (%s %d: %d) ", losses[i].call, losses[i].code, lost[i]);
    CU_ASSERT_EQUAL(lost[i], 0);
  }
}

int main(void) {
  (void)host_open; /* the other tests' */
  if (!mkdtemp(cache)) return 1;
  run_losses();
  const bool there = open_first(false);
  if (!there) {
    printf("skipped: there is no OpenCL device on this machine, or it does not open: %s\n", host_state.error);
    rmdir(cache);
    return 77;
  }
  host_close();
  CU_initialize_registry();
  CU_pSuite s = CU_add_suite("opencl devices", NULL, NULL);
  CU_add_test(s, "memory that is shared", test_memory);
  CU_add_test(s, "memory of its own", test_own_memory);
  CU_add_test(s, "the largest buffer", test_largest);
  CU_add_test(s, "self-test", test_self);
  CU_add_test(s, "names", test_names);
  CU_add_test(s, "lost", test_lost);
  CU_basic_set_mode(CU_BRM_VERBOSE);
  CU_basic_run_tests();
  const bool failed = CU_get_number_of_tests_failed() != 0;
  CU_cleanup_registry();
  char command[200];
  snprintf(command, sizeof command, "rm -rf %s", cache);
  return failed || system(command) ? 1 : 0;
}
