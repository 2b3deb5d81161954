/* A stand-in for the core, for tests of the OpenCL plugin: loads it, plays the host, opens the first device, and
   makes one-node regions and launches of them. Everything is static: each test program has its own. */
#ifndef TERN_TEST_OPENCL_HOST_H_
#define TERN_TEST_OPENCL_HOST_H_
#include <CUnit/Basic.h>
#include <CUnit/CUnit.h>
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tern/backend.h>

#ifndef TERN_PLUGINS
#define TERN_PLUGINS "."
#endif

static struct {
  void *so;
  const tern_backend *api;
  tern_drv *drv;
  tern_dev *dev;
  tern_queue *q;
  char error[1400];
  int warnings;
  const char *cache_dir, *gemm, *cache, *replay, *build, *tune;
} host_state;

static tern_rc fake_error(void *ctx, tern_rc code, const char *msg) {
  (void)ctx;
  snprintf(host_state.error, sizeof host_state.error, "%s", msg);
  return code;
}
static void fake_log(void *ctx, int level, const char *msg) {
  (void)ctx;
  if (level <= 1) {
    host_state.warnings++;
    fprintf(stderr, "log %d: %s\n", level, msg);
  }
}
static const char *fake_option(void *ctx, const char *key) {
  (void)ctx;
  return !strcmp(key, "cache_dir") ? host_state.cache_dir
         : !strcmp(key, "gemm")    ? host_state.gemm
         : !strcmp(key, "cache")   ? host_state.cache
         : !strcmp(key, "replay")  ? host_state.replay
         : !strcmp(key, "build")   ? host_state.build
         : !strcmp(key, "tune")    ? host_state.tune
                                   : NULL;
}
static const tern_host fake_host = {
    .struct_size = sizeof fake_host, .abi = TERN_ABI, .error = fake_error, .log = fake_log, .option = fake_option};

/* Growable structs arrive in zeroed blocks of 1 KiB. */
typedef union info_block {
  tern_device_info info;
  tern_kernel_info kernel;
  tern_mem_desc mem;
  tern_copy copy;
  tern_region region;
  char room[1024];
} info_block;

static tern_rc device_describe(uint32_t i, info_block *b) {
  memset(b, 0, sizeof *b);
  b->info.struct_size = sizeof b->info;
  return host_state.api->device_info(host_state.drv, i, &b->info);
}

/* Load and open the first device. false: the reason was printed and the test is skipped. */
static inline bool host_open(int argc, char **argv) {
  const char *path = argc > 1 ? argv[1] : TERN_PLUGINS "/libtern-opencl.so";
  host_state.so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  const tern_backend *(*query)(uint32_t) = NULL;
  if (host_state.so) *(void **)&query = dlsym(host_state.so, "tern_plugin_query");
  if (!query) {
    printf("cannot load %s: %s\n", path, dlerror());
    exit(1);
  }
  host_state.api = query(TERN_ABI);
  if (!host_state.api || host_state.api->init(&fake_host, &host_state.drv)) {
    printf("the plugin does not start: %s\n", host_state.error);
    exit(1);
  }
  info_block b;
  if (device_describe(0, &b) == TERN_E_END) {
    printf("skipped: there is no OpenCL device on this machine\n");
    return false;
  }
  printf("device: %s, %s, %s\n", b.info.name, b.info.desc, b.info.features);
  return host_state.api->device_open(host_state.drv, 0, &host_state.dev) == TERN_OK &&
         host_state.api->queue_open(host_state.dev, 0, &host_state.q) == TERN_OK;
}

static inline void host_close(void) {
  host_state.api->queue_close(host_state.dev, host_state.q);
  host_state.api->device_close(host_state.dev);
  host_state.api->fini(host_state.drv);
}

static inline tern_mem *mem_new(uint64_t size) {
  info_block b = {0};
  b.mem.struct_size = sizeof b.mem;
  b.mem.size = size;
  tern_mem *m = NULL;
  return host_state.api->mem_alloc(host_state.dev, &b.mem, &m) ? NULL : m;
}

static inline tern_rc put(tern_mem *m, uint64_t off, const void *data, uint64_t size) {
  info_block b = {0};
  b.copy = (tern_copy){.struct_size = sizeof b.copy, .dst = m, .dst_off = off, .host_src = data, .size = size};
  return host_state.api->copy(host_state.dev, host_state.q, &b.copy);
}

static inline tern_rc finish(void) {
  uint64_t t;
  const tern_rc rc = host_state.api->queue_signal(host_state.dev, host_state.q, &t);
  return rc ? rc : host_state.api->queue_sync(host_state.dev, host_state.q, t, UINT64_MAX);
}

static inline tern_rc get(tern_mem *m, uint64_t off, void *data, uint64_t size) {
  info_block b = {0};
  b.copy = (tern_copy){.struct_size = sizeof b.copy, .src = m, .src_off = off, .host_dst = data, .size = size};
  const tern_rc rc = host_state.api->copy(host_state.dev, host_state.q, &b.copy);
  return rc ? rc : finish();
}

/* An operand: host data, its extent in elements, and how the region sees it. */
typedef struct operand {
  void *data;
  int64_t n, offset; /* elements in the buffer; offset of element 0 */
  uint32_t dtype, rank;
  int64_t shape[8], stride[8];
} operand;

static inline uint32_t size_of(uint32_t dtype) {
  static const uint8_t size[TERN_DTYPE_END] = {0, 1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 2, 4, 8};
  return size[dtype];
}

/* Row-major strides; returns the number of elements. */
static inline int64_t dense(operand *o) {
  int64_t n = 1;
  for (uint32_t d = o->rank; d-- > 0;) {
    o->stride[d] = n;
    n *= o->shape[d];
  }
  return o->n = n;
}

/* A region of one node over n operands, the last the output. Sizes and strides become words, except strides 0 and 1
   of the innermost dims and shapes of 1 that broadcast. */
typedef struct one_node {
  tern_value values[3];
  tern_node node;
  uint32_t edges[3];
  tern_word attrs[2], words[64];
  info_block block;
} one_node;

static inline int64_t as_word(one_node *o, int64_t x) { /* equal sizes are equal symbols */
  tern_region *r = &o->block.region;
  for (uint32_t i = 0; i < r->n_words; i++)
    if (o->words[i].i == x) return TERN_SYM(i);
  o->words[r->n_words].i = x;
  return TERN_SYM(r->n_words++);
}

static inline const tern_region *region_of(one_node *o, uint32_t op, int64_t attr0, int64_t attr1, uint32_t flags,
                                           uint32_t n, const operand *const *list) {
  memset(o, 0, sizeof *o);
  tern_region *r = &o->block.region;
  *r = (tern_region){.struct_size = sizeof *r,
                     .flags = flags,
                     .n_nodes = 1,
                     .n_values = n,
                     .n_args = n,
                     .nodes = &o->node,
                     .values = o->values,
                     .edges = o->edges,
                     .attrs = o->attrs,
                     .key = {op, n}};
  o->attrs[0].i = attr0;
  o->attrs[1].i = attr1;
  o->node = (tern_node){.op = op, .n_in = n - 1, .n_out = 1, .n_attr = 2, .out = n - 1};
  for (uint32_t i = 0; i < n; i++) {
    const operand *p = list[i];
    o->edges[i] = i;
    tern_value *v = &o->values[i];
    *v = (tern_value){.dtype = (uint16_t)p->dtype,
                      .rank = (uint16_t)p->rank,
                      .kind = i + 1 == n ? TERN_V_OUT : TERN_V_IN,
                      .slot = i,
                      .alias = -1};
    for (uint32_t d = 0; d < p->rank; d++) {
      v->shape[d] = p->shape[d] == 1 ? 1 : as_word(o, p->shape[d]);
      const bool literal = d + 2 >= p->rank && (p->stride[d] == 0 || p->stride[d] == 1);
      v->stride[d] = literal ? p->stride[d] : as_word(o, p->stride[d]);
    }
  }
  return r;
}

/* Compile, upload, launch, download the output into list[n - 1]->data. Buffers start at a byte offset of 64. */
static inline tern_rc run_one(one_node *o, uint32_t n, const operand *const *list) {
  const tern_backend *api = host_state.api;
  uint32_t want_static = 0;
  tern_rc rc = api->supports(host_state.dev, &o->block.region, &want_static);
  if (rc) return rc;
  info_block info = {0};
  info.kernel.struct_size = sizeof info.kernel;
  tern_kernel *k = NULL;
  rc = api->compile(host_state.dev, &o->block.region, &k, &info.kernel);
  if (rc) return rc;
  uint64_t bytes = info.kernel.workspace;
  if (bytes == UINT64_MAX) rc = api->workspace(host_state.dev, k, o->words, &bytes);
  tern_arg args[3] = {0};
  for (uint32_t i = 0; i < n && !rc; i++) {
    const uint64_t size = (uint64_t)list[i]->n * size_of(list[i]->dtype);
    args[i] = (tern_arg){mem_new(size + 64), 64 + (uint64_t)list[i]->offset * size_of(list[i]->dtype)};
    rc = args[i].mem ? put(args[i].mem, 64, list[i]->data, size) : TERN_E_OOM;
  }
  tern_arg ws = {bytes ? mem_new(bytes + 64) : NULL, 64};
  const tern_launch l = {
      .args = args, .words = o->words, .n_args = n, .n_words = o->block.region.n_words, .workspace = ws};
  if (!rc) rc = api->launch(host_state.dev, host_state.q, k, &l);
  if (!rc)
    rc = get(args[n - 1].mem, 64, list[n - 1]->data, (uint64_t)list[n - 1]->n * size_of(list[n - 1]->dtype));
  else
    finish();
  for (uint32_t i = 0; i < n; i++)
    if (args[i].mem) api->mem_free(host_state.dev, args[i].mem);
  if (ws.mem) api->mem_free(host_state.dev, ws.mem);
  api->kernel_free(host_state.dev, k);
  return rc;
}

static inline uint32_t random_u32(uint32_t *state) { /* xorshift32 */
  uint32_t x = *state;
  x ^= x << 13;
  x ^= x >> 17;
  x ^= x << 5;
  return *state = x;
}
#endif
