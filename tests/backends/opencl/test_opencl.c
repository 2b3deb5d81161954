/* The OpenCL plugin's devices, memory, copies, tickets, elementwise launches and fork refusal, driven as
   the core would. Needs an OpenCL device; says so and exits with 77 when there is none. */
#include "opencl_host.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_devices(void) {
  info_block a, b;
  char seen[64][48];
  uint32_t n = 0;
  bool hidden = false;
  for (; n < 64 && device_describe(n, &a) == TERN_OK; n++) {
    CU_ASSERT(a.info.name[0] && a.info.desc[0] && a.info.id[0] && strlen(a.info.id) < 48);
    CU_ASSERT(a.info.flags & TERN_DEV_ASYNC);
    CU_ASSERT(a.info.mem_align >= 64 && (a.info.mem_align & (a.info.mem_align - 1)) == 0);
    CU_ASSERT(!hidden || (a.info.flags & TERN_DEV_HIDDEN)); /* hidden ones come last */
    hidden = a.info.flags & TERN_DEV_HIDDEN;
    for (uint32_t i = 0; i < n; i++) CU_ASSERT_STRING_NOT_EQUAL(seen[i], a.info.id);
    snprintf(seen[n], sizeof seen[n], "%s", a.info.id);
  }
  CU_ASSERT_EQUAL(device_describe(n, &a), TERN_E_END);
  tern_drv *again = NULL; /* a second enumeration gives the same ids in the same order */
  CU_ASSERT_EQUAL_FATAL(host_state.api->init(&fake_host, &again), TERN_OK);
  for (uint32_t i = 0; i < n; i++) {
    memset(&b, 0, sizeof b);
    b.info.struct_size = sizeof b.info;
    CU_ASSERT_EQUAL(host_state.api->device_info(again, i, &b.info), TERN_OK);
    CU_ASSERT_STRING_EQUAL(b.info.id, seen[i]);
  }
  host_state.api->fini(again);
  tern_dev *none = NULL;
  CU_ASSERT_EQUAL(host_state.api->device_open(host_state.drv, n, &none), TERN_E_ARG);
}

static void test_options(void) {
  bool gemm = false;
  for (const tern_ext *e = host_state.api->ext; e; e = e->next)
    if (e->type == TERN_EXT_OPTIONS)
      for (uint32_t i = 0; i < ((const tern_ext_options *)(const void *)e)->n; i++)
        gemm |= !strcmp(((const tern_ext_options *)(const void *)e)->options[i].key, "gemm");
  CU_ASSERT(gemm);
  CU_ASSERT_PTR_NULL(((const tern_backend *(*)(uint32_t))dlsym(host_state.so, "tern_plugin_query"))(77u << 16));
}

/* ---- memory and copies ---- */

static tern_rc alloc_rc(tern_mem_desc want, tern_mem **m) {
  info_block b = {0};
  b.mem = want;
  b.mem.struct_size = sizeof b.mem;
  *m = NULL;
  return host_state.api->mem_alloc(host_state.dev, &b.mem, m);
}

static void test_memory_refusals(void) {
  tern_mem *m;
  info_block b;
  device_describe(0, &b);
  CU_ASSERT_EQUAL(alloc_rc((tern_mem_desc){.size = 0}, &m), TERN_E_ARG);
  CU_ASSERT_EQUAL(alloc_rc((tern_mem_desc){.size = UINT64_MAX}, &m), TERN_E_OOM);
  CU_ASSERT_PTR_NOT_NULL(strstr(host_state.error, "out of device memory"));
  CU_ASSERT_EQUAL(alloc_rc((tern_mem_desc){.size = UINT64_MAX - 63}, &m), TERN_E_OOM);
  CU_ASSERT_EQUAL(alloc_rc((tern_mem_desc){.size = 64, .flags = 1u << 30}, &m), TERN_E_UNSUPPORTED);
  CU_ASSERT_EQUAL(alloc_rc((tern_mem_desc){.size = b.info.max_alloc + 1}, &m), TERN_E_OOM);
}

static void test_memory_exhausted(void) { /* buffers that together exceed the device must be refused, not crash later */
  tern_mem *held[256];
  info_block b;
  device_describe(0, &b);
  int n = 0;
  tern_rc rc = TERN_OK;
  if (!b.info.mem_total || !b.info.max_alloc || b.info.kind != TERN_KIND_CPU)
    return; /* a GPU touches what it allocates */
  while (n < 256 && !(rc = alloc_rc((tern_mem_desc){.size = b.info.max_alloc}, &held[n]))) n++;
  CU_ASSERT(n < 256 && rc == TERN_E_OOM);
  while (n > 0) host_state.api->mem_free(host_state.dev, held[--n]);
  tern_mem *m = mem_new(1 << 20);
  CU_ASSERT_PTR_NOT_NULL(m);
  host_state.api->mem_free(host_state.dev, m);
}

static void test_copies(void) {
  enum { N = 300000 };
  unsigned char *in = malloc(N), *out = malloc(N);
  uint32_t seed = 9;
  for (int i = 0; i < N; i++) in[i] = (unsigned char)random_u32(&seed);
  tern_mem *a = mem_new(N), *b = mem_new(N);
  CU_ASSERT_FATAL(a && b);
  static const int sizes[] = {1, 12, 4096, 65536, 65537, N};
  for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
    CU_ASSERT_EQUAL(put(a, 0, in, (uint64_t)sizes[s]), TERN_OK);
    info_block c = {0};
    c.copy = (tern_copy){.struct_size = sizeof c.copy, .dst = b, .src = a, .size = (uint64_t)sizes[s]};
    CU_ASSERT_EQUAL(host_state.api->copy(host_state.dev, host_state.q, &c.copy), TERN_OK);
    memset(out, 0, N);
    CU_ASSERT_EQUAL(get(b, 0, out, (uint64_t)sizes[s]), TERN_OK);
    CU_ASSERT_EQUAL(memcmp(in, out, (size_t)sizes[s]), 0);
  }
  for (int i = 0; i < 2000;
       i++) { /* the caller's bytes are free on return, through many rounds of the staging memory */
    unsigned char piece[777];
    memset(piece, i, sizeof piece);
    CU_ASSERT_EQUAL(put(a, (uint64_t)(i % 300) * 777, piece, sizeof piece), TERN_OK);
    memset(piece, 255, sizeof piece);
  }
  CU_ASSERT_EQUAL(get(a, 0, out, 300 * 777), TERN_OK);
  int bad = 0;
  for (int i = 1700; i < 2000; i++) bad += out[(i % 300) * 777 + 776] != (unsigned char)i;
  CU_ASSERT_EQUAL(bad, 0);
  CU_ASSERT_EQUAL(put(a, N - 4, in, 8), TERN_E_ARG);
  CU_ASSERT_EQUAL(put(a, UINT64_MAX - 3, in, 8), TERN_E_ARG);
  info_block c = {0};
  c.copy = (tern_copy){.struct_size = sizeof c.copy, .dst = a, .src = a, .dst_off = 4, .size = 64};
  CU_ASSERT_EQUAL(host_state.api->copy(host_state.dev, host_state.q, &c.copy), TERN_E_ARG);
  c.copy = (tern_copy){.struct_size = sizeof c.copy, .dst = a, .host_dst = out, .src = b, .size = 64};
  CU_ASSERT_EQUAL(host_state.api->copy(host_state.dev, host_state.q, &c.copy), TERN_E_ARG);
  host_state.api->mem_free(host_state.dev, a);
  host_state.api->mem_free(host_state.dev, b);
  free(in), free(out);
}

static void test_fill(void) {
  unsigned char pattern[128], out[1024];
  for (int i = 0; i < 128; i++) pattern[i] = (unsigned char)(i * 7 + 1);
  tern_mem *m = mem_new(sizeof out);
  for (uint32_t p = 1; p <= 128; p *= 2) {
    memset(out, 0, sizeof out);
    CU_ASSERT_EQUAL(put(m, 0, out, sizeof out), TERN_OK);
    CU_ASSERT_EQUAL(host_state.api->fill(host_state.dev, host_state.q, m, p, 512, pattern, p), TERN_OK);
    CU_ASSERT_EQUAL(get(m, 0, out, sizeof out), TERN_OK);
    int bad = out[p - 1] != 0 || out[p + 512] != 0;
    for (uint32_t i = 0; i < 512; i++) bad += out[p + i] != pattern[i % p];
    CU_ASSERT_EQUAL(bad, 0);
  }
  CU_ASSERT_EQUAL(host_state.api->fill(host_state.dev, host_state.q, m, 0, 512, pattern, 3), TERN_E_ARG);
  CU_ASSERT_EQUAL(host_state.api->fill(host_state.dev, host_state.q, m, 0, 510, pattern, 4), TERN_E_ARG);
  CU_ASSERT_EQUAL(host_state.api->fill(host_state.dev, host_state.q, m, 512, 1024, pattern, 4), TERN_E_ARG);
  host_state.api->mem_free(host_state.dev, m);
}

static void test_map(void) {
  tern_mem *m = mem_new(4096);
  void *p = NULL;
  char out[16];
  CU_ASSERT_EQUAL_FATAL(host_state.api->mem_map(host_state.dev, m, 128, 16, 3, &p), TERN_OK);
  memcpy(p, "fifteen letters", 16);
  CU_ASSERT_EQUAL(host_state.api->mem_unmap(host_state.dev, m, p), TERN_OK);
  CU_ASSERT_EQUAL(get(m, 128, out, 16), TERN_OK);
  CU_ASSERT_STRING_EQUAL(out, "fifteen letters");
  CU_ASSERT_EQUAL(host_state.api->mem_map(host_state.dev, m, 4090, 16, 3, &p), TERN_E_ARG);
  host_state.api->mem_free(host_state.dev, m);
}

static void test_import(void) {
  info_block b;
  device_describe(0, &b);
  char *host = aligned_alloc(4096, 8192), out[64];
  tern_mem *m;
  memset(host, 'x', 8192);
  const tern_rc rc = alloc_rc((tern_mem_desc){.size = 8192, .host_ptr = host}, &m);
  if (!(b.info.flags & TERN_DEV_IMPORT_HOST)) {
    CU_ASSERT_EQUAL(rc, TERN_E_UNSUPPORTED);
  } else {
    CU_ASSERT_EQUAL_FATAL(rc, TERN_OK);
    CU_ASSERT_EQUAL(get(m, 100, out, sizeof out), TERN_OK);
    CU_ASSERT(out[0] == 'x' && out[63] == 'x');
    host_state.api->mem_free(host_state.dev, m);
    CU_ASSERT_EQUAL(alloc_rc((tern_mem_desc){.size = 100, .host_ptr = host + 1}, &m), TERN_E_UNSUPPORTED);
  }
  free(host);
}

/* ---- launches, tickets, queues ---- */

typedef struct adder { /* c = a + b, float32 */
  one_node node;
  tern_kernel *k;
  tern_mem *m[3];
  tern_arg args[3];
  tern_launch launch;
  int64_t n;
} adder;

static void adder_open(adder *x, int64_t n) {
  operand a = {.dtype = TERN_F32, .rank = 1, .shape = {n}}, b, c;
  dense(&a);
  b = a, c = a;
  const operand *list[] = {&a, &b, &c};
  region_of(&x->node, TERN_OP_ADD, 0, 0, TERN_R_IDX32, 3, list);
  x->n = n;
  uint32_t want = 0;
  CU_ASSERT_EQUAL_FATAL(host_state.api->supports(host_state.dev, &x->node.block.region, &want), TERN_OK);
  info_block info = {0};
  info.kernel.struct_size = sizeof info.kernel;
  CU_ASSERT_EQUAL_FATAL(host_state.api->compile(host_state.dev, &x->node.block.region, &x->k, &info.kernel), TERN_OK);
  CU_ASSERT_EQUAL(info.kernel.workspace, 0);
  for (int i = 0; i < 3; i++) {
    x->m[i] = mem_new((uint64_t)n * 4);
    x->args[i] = (tern_arg){x->m[i], 0};
  }
  x->launch =
      (tern_launch){.args = x->args, .words = x->node.words, .n_args = 3, .n_words = x->node.block.region.n_words};
}
static void adder_close(adder *x) {
  for (int i = 0; i < 3; i++) host_state.api->mem_free(host_state.dev, x->m[i]);
  host_state.api->kernel_free(host_state.dev, x->k);
}

static void test_add(void) {
  static const int64_t sizes[] = {1, 3, 1000, 100003};
  for (size_t s = 0; s < 4; s++) {
    const int64_t n = sizes[s];
    adder x;
    adder_open(&x, n);
    float *a = malloc((size_t)n * 4), *b = malloc((size_t)n * 4);
    for (int64_t i = 0; i < n; i++) a[i] = (float)i * 0.5f, b[i] = 1.0f - (float)i;
    CU_ASSERT(!put(x.m[0], 0, a, (uint64_t)n * 4) && !put(x.m[1], 0, b, (uint64_t)n * 4));
    CU_ASSERT_EQUAL(host_state.api->launch(host_state.dev, host_state.q, x.k, &x.launch), TERN_OK);
    int bad = 0;
    float *c = malloc((size_t)n * 4);
    CU_ASSERT_EQUAL(get(x.m[2], 0, c, (uint64_t)n * 4), TERN_OK);
    for (int64_t i = 0; i < n; i++) bad += c[i] != a[i] + b[i];
    CU_ASSERT_EQUAL(bad, 0);
    x.args[1].mem = NULL;
    CU_ASSERT_EQUAL(host_state.api->launch(host_state.dev, host_state.q, x.k, &x.launch), TERN_E_ARG);
    adder_close(&x);
    free(a), free(b), free(c);
  }
}

static void test_tickets(void) {
  const tern_backend *api = host_state.api;
  uint64_t t[200], before;
  adder x;
  adder_open(&x, 5000);
  CU_ASSERT_EQUAL(api->queue_signal(host_state.dev, host_state.q, &before), TERN_OK);
  for (int i = 0; i < 200; i++) { /* more tickets than are remembered */
    CU_ASSERT_EQUAL(api->launch(host_state.dev, host_state.q, x.k, &x.launch), TERN_OK);
    CU_ASSERT_EQUAL(api->queue_signal(host_state.dev, host_state.q, &t[i]), TERN_OK);
    CU_ASSERT(i ? t[i] > t[i - 1] : t[i] >= before);
  }
  const tern_rc poll = api->queue_sync(host_state.dev, host_state.q, t[199], 0);
  CU_ASSERT(poll == TERN_OK || poll == TERN_E_TIMEOUT);
  CU_ASSERT_EQUAL(api->queue_sync(host_state.dev, host_state.q, t[3], UINT64_MAX), TERN_OK);
  CU_ASSERT_EQUAL(api->queue_sync(host_state.dev, host_state.q, t[150], 10000000000u), TERN_OK);
  CU_ASSERT_EQUAL(api->queue_sync(host_state.dev, host_state.q, t[199], UINT64_MAX), TERN_OK);
  CU_ASSERT_EQUAL(api->queue_sync(host_state.dev, host_state.q, t[0], 0), TERN_OK);
  CU_ASSERT_EQUAL(api->queue_sync(host_state.dev, host_state.q, t[199] + 100, 0), TERN_E_ARG);
  adder_close(&x);
}

static void test_two_queues(void) { /* q2 reads what q writes, ordered by a ticket only */
  const tern_backend *api = host_state.api;
  tern_queue *q2 = NULL;
  CU_ASSERT_EQUAL_FATAL(api->queue_open(host_state.dev, 0, &q2), TERN_OK);
  adder x;
  adder_open(&x, 200000);
  float *h = malloc(200000 * 4), one = 1, zero = 0;
  int bad = 0;
  for (int round = 0; round < 20; round++) {
    uint64_t t;
    CU_ASSERT(!api->fill(host_state.dev, host_state.q, x.m[0], 0, 200000 * 4, &one, 4));
    CU_ASSERT(!api->fill(host_state.dev, host_state.q, x.m[1], 0, 200000 * 4, round % 2 ? &one : &zero, 4));
    CU_ASSERT(!api->launch(host_state.dev, host_state.q, x.k, &x.launch));
    CU_ASSERT(!api->queue_signal(host_state.dev, host_state.q, &t));
    CU_ASSERT(!api->queue_wait(host_state.dev, q2, host_state.q, t));
    info_block c = {0};
    c.copy = (tern_copy){.struct_size = sizeof c.copy, .src = x.m[2], .host_dst = h, .size = 200000 * 4};
    CU_ASSERT(!api->copy(host_state.dev, q2, &c.copy));
    CU_ASSERT(!api->queue_signal(host_state.dev, q2, &t));
    CU_ASSERT(!api->queue_sync(host_state.dev, q2, t, UINT64_MAX));
    for (int i = 0; i < 200000; i += 997) bad += h[i] != (round % 2 ? 2.0f : 1.0f);
    CU_ASSERT(!api->queue_wait(host_state.dev, host_state.q, q2, t));
  }
  CU_ASSERT_EQUAL(bad, 0);
  CU_ASSERT_EQUAL(api->queue_wait(host_state.dev, host_state.q, q2, 1u << 30), TERN_E_ARG);
  adder_close(&x);
  api->queue_close(host_state.dev, q2);
  free(h);
}

typedef struct worker {
  tern_kernel *k;
  const one_node *node;
  int bad;
} worker;
static void *work(void *ctx) { /* one kernel, launched from a queue of each thread over own buffers */
  worker *w = ctx;
  const tern_backend *api = host_state.api;
  tern_queue *q = NULL;
  if (api->queue_open(host_state.dev, 0, &q)) return w->bad = 1000, NULL;
  tern_mem *m[3] = {mem_new(4000), mem_new(4000), mem_new(4000)};
  const tern_arg args[3] = {{m[0], 0}, {m[1], 0}, {m[2], 0}};
  const tern_launch l = {.args = args, .words = w->node->words, .n_args = 3, .n_words = w->node->block.region.n_words};
  for (int i = 0; i < 100; i++) {
    const float v = (float)i + (float)((uintptr_t)w % 1000);
    float out[1000];
    uint64_t t;
    info_block c = {0};
    c.copy = (tern_copy){.struct_size = sizeof c.copy, .src = m[2], .host_dst = out, .size = 4000};
    w->bad += api->fill(host_state.dev, q, m[0], 0, 4000, &v, 4) ||
              api->fill(host_state.dev, q, m[1], 0, 4000, &v, 4) || api->launch(host_state.dev, q, w->k, &l) ||
              api->copy(host_state.dev, q, &c.copy) || api->queue_signal(host_state.dev, q, &t) ||
              api->queue_sync(host_state.dev, q, t, UINT64_MAX);
    w->bad += out[0] != v + v || out[999] != v + v;
  }
  for (int i = 0; i < 3; i++) api->mem_free(host_state.dev, m[i]);
  api->queue_close(host_state.dev, q);
  return NULL;
}
static void test_threads(void) {
  adder x;
  adder_open(&x, 1000);
  pthread_t t[4];
  worker w[4] = {{0}};
  for (int i = 0; i < 4; i++) {
    w[i] = (worker){.k = x.k, .node = &x.node};
    CU_ASSERT_EQUAL(pthread_create(&t[i], NULL, work, &w[i]), 0);
  }
  for (int i = 0; i < 4; i++) {
    pthread_join(t[i], NULL);
    CU_ASSERT_EQUAL(w[i].bad, 0);
  }
  adder_close(&x);
}

static void test_fork(void) {
  const pid_t child = fork();
  if (!child) { /* every call must answer, none may hang */
    tern_queue *q = NULL;
    tern_drv *drv = NULL;
    uint64_t t = 0;
    tern_mem *m;
    int ok = alloc_rc((tern_mem_desc){.size = 64}, &m) == TERN_E_UNSUPPORTED && strstr(host_state.error, "fork");
    ok = ok && host_state.api->queue_open(host_state.dev, 0, &q) == TERN_E_UNSUPPORTED;
    ok = ok && host_state.api->queue_signal(host_state.dev, host_state.q, &t) == TERN_E_UNSUPPORTED;
    ok = ok && host_state.api->queue_sync(host_state.dev, host_state.q, 1, UINT64_MAX) == TERN_E_UNSUPPORTED;
    ok = ok && host_state.api->init(&fake_host, &drv) == TERN_E_UNSUPPORTED;
    _exit(ok ? 0 : 1);
  }
  int status = -1;
  CU_ASSERT_EQUAL(waitpid(child, &status, 0), child);
  CU_ASSERT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(int argc, char **argv) {
  host_state.cache_dir = getenv("TERN_CACHE_DIR");
  if (!host_open(argc, argv)) return 77;
  CU_initialize_registry();
  CU_pSuite s = CU_add_suite("opencl", NULL, NULL);
  CU_add_test(s, "devices", test_devices);
  CU_add_test(s, "options", test_options);
  CU_add_test(s, "memory refusals", test_memory_refusals);
  CU_add_test(s, "memory exhausted", test_memory_exhausted);
  CU_add_test(s, "copies", test_copies);
  CU_add_test(s, "fill", test_fill);
  CU_add_test(s, "map", test_map);
  CU_add_test(s, "import", test_import);
  CU_add_test(s, "add", test_add);
  CU_add_test(s, "tickets", test_tickets);
  CU_add_test(s, "two queues", test_two_queues);
  CU_add_test(s, "threads", test_threads);
  CU_add_test(s, "fork", test_fork);
  CU_basic_set_mode(CU_BRM_VERBOSE);
  CU_basic_run_tests();
  const unsigned failed = CU_get_number_of_failures();
  CU_cleanup_registry();
  host_close();
  return failed != 0;
}
