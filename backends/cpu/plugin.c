/* The CPU backend as a plugin: one host-memory device whose memory handles are plain pointers, without queues (every
   call is complete on return, and many threads may call). Compiling is passed on to the first compiler that knows the
   region. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1 /* madvise, MADV_HUGEPAGE */
#endif
#include "dot_fuse.h"
#include "dot_static.h"
#include "replay.h"
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { HUGE_PAGE = 2 << 20, HUGE_FROM = 4 << 20, COPY_PIECE = 1 << 20, ASK_FROM = 128 << 20 };

/* Imported pointers, each as often as it was imported; `live` lets mem_free skip the lock while there are none. An
   address that is both imported and ours is freed at the second mem_free, whichever order they come in. */
struct tern_dev {
  pthread_mutex_t lock;
  atomic_size_t live;
  size_t room;
  void **imported;
};
struct tern_drv {
  struct tern_dev dev; /* the only device: every device_open answers it */
};

static struct { const tern_host *host; } cpu;
static _Thread_local cpu_caught *catcher; /* of this thread's errors, while it works for another one */

void cpu_error_into(cpu_caught *c) { catcher = c; }

tern_rc cpu_error(tern_rc code, const char *fmt, ...) {
  char msg[512];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(msg, sizeof msg, fmt, ap);
  va_end(ap);
  if (catcher) {
    catcher->rc = code;
    memcpy(catcher->text, msg, sizeof msg);
    return code;
  }
  return cpu.host && cpu.host->error ? cpu.host->error(cpu.host->ctx, code, msg) : code;
}

void cpu_debug(const char *fmt, ...) {
  char msg[256];
  va_list ap;
  if (!cpu.host || !cpu.host->log) return;
  va_start(ap, fmt);
  vsnprintf(msg, sizeof msg, fmt, ap);
  va_end(ap);
  cpu.host->log(cpu.host->ctx, 3, msg);
}

static tern_rc init(const tern_host *host, tern_drv **drv) {
  cpu.host = host;
  const char *const wanted = host->option ? host->option(host->ctx, "num_threads") : NULL;
  char *end = NULL;
  const long n = wanted ? strtol(wanted, &end, 10) : 0;
  if (wanted && (end == wanted || *end != 0 || n < 0))
    return cpu_error(TERN_E_ARG,
                     "cpu: num_threads is not a count (set TERN_NUM_THREADS to 0 for all, or to 1 and more)");
  const char *const branches = host->option ? host->option(host->ctx, "branches") : NULL;
  const int mode = !branches || !strcmp(branches, "auto") ? 1 : !strcmp(branches, "off") ? 0 : 2;
  if (mode == 2 && strcmp(branches, "always") != 0)
    return cpu_error(TERN_E_ARG, "cpu: TERN_CPU_BRANCHES is auto, off or always");
  replay_set(mode);
  struct tern_drv *const d = calloc(1, sizeof *d);
  if (!d) return cpu_error(TERN_E_OOM, "cpu: no memory for the driver");
  pthread_mutex_init(&d->dev.lock, NULL);
  cpu_threads_init(n > 1 << 16 ? 1 << 16 : (int)n);
  *drv = d;
  return TERN_OK;
}

static void fini(tern_drv *drv) {
  cpu_scratch_fini();
  if (!drv) return;
  pthread_mutex_destroy(&drv->dev.lock);
  free(drv->dev.imported);
  free(drv);
}

/* ---- what the machine is ---- */

/* The first line of a /proc file that begins with key; the text after the colon, cut to size. False: none */
static bool proc_line(const char *path, const char *key, char *out, size_t size) {
  FILE *const f = fopen(path, "re");
  if (!f) return false;
  char line[4096];
  bool found = false;
  while (!found && fgets(line, sizeof line, f)) {
    if (strncmp(line, key, strlen(key)) != 0) continue;
    const char *text = strchr(line, ':');
    if (!text) continue;
    text += 1 + strspn(text + 1, " \t");
    snprintf(out, size, "%.*s", (int)strcspn(text, "\n"), text);
    found = true;
  }
  fclose(f);
  return found;
}

static uint64_t memory_total(void) {
  const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  return pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
}

static uint64_t memory_free(void) {
  char kib[64];
  if (proc_line("/proc/meminfo", "MemAvailable", kib, sizeof kib)) return strtoull(kib, NULL, 10) << 10;
  const long pages = sysconf(_SC_AVPHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  return pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
}

static void describe_features(char *out, size_t size) {
  size_t at = 0;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const struct {
    const char *name;
    int has;
  } isa[] = {{"sse4.2", __builtin_cpu_supports("sse4.2")},     {"avx", __builtin_cpu_supports("avx")},
             {"avx2", __builtin_cpu_supports("avx2")},         {"fma", __builtin_cpu_supports("fma")},
             {"avx512f", __builtin_cpu_supports("avx512f")},   {"avx512bw", __builtin_cpu_supports("avx512bw")},
             {"avx512vl", __builtin_cpu_supports("avx512vl")}, {"avx512dq", __builtin_cpu_supports("avx512dq")},
             {"avx512cd", __builtin_cpu_supports("avx512cd")}, {"avx512vnni", __builtin_cpu_supports("avx512vnni")}};
  for (size_t i = 0; i < sizeof isa / sizeof *isa; i++)
    if (isa[i].has && at < size) at += (size_t)snprintf(out + at, size - at, "%s ", isa[i].name);
#endif
  if (at < size) snprintf(out + at, size - at, "fp64 fp16 bf16 int64 threads=%d", cpu_threads());
}

static tern_rc device_info(tern_drv *drv, uint32_t i, tern_device_info *info) {
  (void)drv;
  if (i > 0) return TERN_E_END;
  info->kind = TERN_KIND_CPU;
  info->flags = TERN_DEV_HOST_MEM | TERN_DEV_IMPORT_HOST;
  snprintf(info->name, sizeof info->name, "cpu");
  snprintf(info->id, sizeof info->id, "cpu:0");
  if (!proc_line("/proc/cpuinfo", "model name", info->desc, sizeof info->desc))
    snprintf(info->desc, sizeof info->desc, "CPU");
  info->mem_total = memory_total();
  info->mem_free = memory_free();
  info->max_alloc = info->mem_total;
  info->mem_align = 64;
  info->dtypes = TERN_D_ANY;
  describe_features(info->features, sizeof info->features);
  info->team = replay_allowed() && cpu_threads() > 1 ? (uint32_t)cpu_threads() : 0;
  return TERN_OK;
}

static tern_rc device_open(tern_drv *drv, uint32_t i, tern_dev **dev) {
  if (i > 0) return cpu_error(TERN_E_ARG, "cpu: there is one CPU device, number 0; device %u was asked for", i);
  *dev = &drv->dev;
  return TERN_OK;
}

static void device_close(tern_dev *dev) { (void)dev; }

/* ---- memory ---- */

static tern_rc import_host(tern_dev *dev, const tern_mem_desc *want, tern_mem **mem) {
  tern_rc rc = TERN_OK;
  pthread_mutex_lock(&dev->lock);
  const size_t live = atomic_load_explicit(&dev->live, memory_order_relaxed);
  if (live == dev->room) {
    const size_t room = dev->room ? 2 * dev->room : 16;
    void **const more = realloc(dev->imported, room * sizeof *more);
    if (more) {
      dev->imported = more;
      dev->room = room;
    } else {
      rc = TERN_E_OOM;
    }
  }
  if (rc == TERN_OK) {
    dev->imported[live] = want->host_ptr;
    atomic_store_explicit(&dev->live, live + 1, memory_order_release);
    *mem = (tern_mem *)want->host_ptr;
  }
  pthread_mutex_unlock(&dev->lock);
  return rc == TERN_OK ? rc : cpu_error(rc, "cpu: no memory to remember an imported block");
}

static tern_rc mem_alloc(tern_dev *dev, const tern_mem_desc *want, tern_mem **mem) {
  if (want->flags || want->handle)
    return cpu_error(TERN_E_UNSUPPORTED, "cpu: memory can be imported by host pointer only (flags %#x)", want->flags);
  if (want->host_ptr) return import_host(dev, want, mem);
  const uint64_t total = memory_total(), size = want->size ? want->size : 1;
  uint64_t align = want->align > 64 ? want->align : 64;
  if (align & (align - 1))
    return cpu_error(TERN_E_ARG, "cpu: alignment %llu is no power of two", (unsigned long long)align);
  const bool huge = size >= HUGE_FROM;
  if (huge && align < HUGE_PAGE) align = HUGE_PAGE;
  void *p = NULL;
  /* Linux grants more than there is and kills the process later, so what cannot fit is refused here; what is free is
     asked only where the answer is worth the time */
  uint64_t most = total;
  if (size >= ASK_FROM && size <= total) most = memory_free();
  if ((most == 0 || size <= most) && size <= SIZE_MAX - align) {
    const size_t bytes = (size_t)((size + align - 1) & ~(align - 1));
    p = aligned_alloc((size_t)align, bytes);
    if (p && huge) (void)madvise(p, bytes, MADV_HUGEPAGE); /* only speed depends on it */
  }
  if (!p)
    return cpu_error(TERN_E_OOM,
                     "cpu: no memory for a block of %llu bytes (the machine has %llu, %llu available): use smaller "
                     "tensors or batches",
                     (unsigned long long)want->size, (unsigned long long)total, (unsigned long long)memory_free());
  *mem = (tern_mem *)p;
  return TERN_OK;
}

/* True: p was imported, and this was one of its imports */
static bool forget_import(tern_dev *dev, const void *p) {
  bool found = false;
  pthread_mutex_lock(&dev->lock);
  const size_t live = atomic_load_explicit(&dev->live, memory_order_relaxed);
  for (size_t i = live; i-- > 0 && !found;) {
    if (dev->imported[i] != p) continue;
    dev->imported[i] = dev->imported[live - 1];
    atomic_store_explicit(&dev->live, live - 1, memory_order_release);
    found = true;
  }
  pthread_mutex_unlock(&dev->lock);
  return found;
}

static void mem_free(tern_dev *dev, tern_mem *mem) {
  if (atomic_load_explicit(&dev->live, memory_order_acquire) && forget_import(dev, mem)) return;
  free(mem);
}

static tern_rc mem_map(tern_dev *dev, tern_mem *mem, uint64_t off, uint64_t size, uint32_t rw, void **p) {
  (void)dev, (void)size, (void)rw;
  *p = (char *)mem + off;
  return TERN_OK;
}

static tern_rc mem_unmap(tern_dev *dev, tern_mem *mem, void *p) {
  (void)dev, (void)mem, (void)p;
  return TERN_OK;
}

/* This thread is recording a program */
static bool recording(void) { return __atomic_load_n(&replay_quiet, __ATOMIC_RELAXED) != 1 && replay_recording(); }

typedef struct transfer {
  char *dst;
  const char *src;
  size_t pattern; /* fill: bytes of the pattern at src */
} transfer;

static void copy_piece(void *ctx, int64_t lo, int64_t hi) {
  const transfer *const t = ctx;
  memcpy(t->dst + lo, t->src + lo, (size_t)(hi - lo));
}

static tern_rc copy(tern_dev *dev, tern_queue *queue, const tern_copy *c) {
  (void)queue;
  if (recording()) return cpu_error(TERN_E_UNSUPPORTED, "cpu: a program has launches only, no copies");
  if (c->flags) return cpu_error(TERN_E_UNSUPPORTED, "cpu: unknown copy flags %#x", c->flags);
  if (c->src && c->src_dev && c->src_dev != dev)
    return cpu_error(TERN_E_UNSUPPORTED, "cpu: cannot read another device's memory; copy through the host");
  char *const dst = c->dst ? (char *)c->dst + c->dst_off : (char *)c->host_dst;
  const char *const src = c->src ? (const char *)c->src + c->src_off : (const char *)c->host_src;
  if (c->size == 0) return TERN_OK;
  if (!dst || !src)
    return cpu_error(TERN_E_ARG, "cpu: copy of %llu bytes lacks its %s", (unsigned long long)c->size,
                     dst ? "source" : "destination");
  const bool overlap = dst < src + c->size && src < dst + c->size;
  transfer t = {dst, src, 0};
  if (overlap)
    memmove(dst, src, (size_t)c->size);
  else
    cpu_parallel((int64_t)c->size, c->size < HUGE_FROM ? (int64_t)c->size : COPY_PIECE, copy_piece, &t);
  return TERN_OK;
}

/* Pieces begin at a multiple of COPY_PIECE, which need not be one of the pattern's size */
static void fill_piece(void *ctx, int64_t lo, int64_t hi) {
  const transfer *const t = ctx;
  char *const to = t->dst + lo;
  const size_t n = (size_t)(hi - lo), first = t->pattern < n ? t->pattern : n;
  bool bytes_equal = true;
  for (size_t i = 0; i < t->pattern; i++) bytes_equal &= t->src[i] == t->src[0];
  if (bytes_equal) {
    memset(to, t->src[0], n);
    return;
  }
  for (size_t i = 0; i < first; i++) to[i] = t->src[((size_t)lo + i) % t->pattern];
  for (size_t done = first; done < n;) { /* double what is there, up to 4 KiB at a time */
    size_t step = done < 4096 ? done : 4096 - 4096 % t->pattern;
    if (step == 0) step = t->pattern;
    if (step > n - done) step = n - done;
    memcpy(to + done, to, step);
    done += step;
  }
}

static tern_rc fill(tern_dev *dev, tern_queue *queue, tern_mem *mem, uint64_t off, uint64_t size, const void *pat,
                    uint32_t pat_size) {
  (void)dev, (void)queue;
  if (recording()) return cpu_error(TERN_E_UNSUPPORTED, "cpu: a program has launches only, no fills");
  if (size == 0) return TERN_OK;
  if (!pat || pat_size == 0)
    return cpu_error(TERN_E_ARG, "cpu: fill of %llu bytes with no pattern", (unsigned long long)size);
  transfer t = {(char *)mem + off, pat, pat_size};
  cpu_parallel((int64_t)size, size < HUGE_FROM ? (int64_t)size : COPY_PIECE, fill_piece, &t);
  return TERN_OK;
}

/* ---- compute ---- */

static const struct compiler {
  tern_rc (*supports)(const tern_region *);
  tern_rc (*compile)(const tern_region *, tern_kernel **, tern_kernel_info *);
  bool packed; /* knows packed layouts */
} compilers[] = {{cpu_nest_supports, cpu_nest_compile, false},    {cpu_dot_supports, cpu_dot_compile, false},
                 {cpu_conv_supports, cpu_conv_compile, false},    {cpu_fuse_supports, cpu_fuse_compile, true},
                 {cpu_static_supports, cpu_static_compile, true}, {cpu_window_supports, cpu_window_compile, false},
                 {cpu_index_supports, cpu_index_compile, false},  {cpu_scan_supports, cpu_scan_compile, false}};
enum { N_COMPILERS = sizeof compilers / sizeof *compilers };

/* The first that takes the region, or NULL */
static const struct compiler *compiler_of(const tern_region *r) {
  bool packed = false;
  for (uint32_t i = 0; i < r->n_values; i++) {
    if (!r->values[i].kind || r->values[i].kind > TERN_V_SIZE) return NULL;
    packed |= r->values[i].layout != 0;
  }
  for (int i = 0; i < N_COMPILERS; i++)
    if ((compilers[i].packed || !packed) && compilers[i].supports(r) == TERN_OK) return &compilers[i];
  return NULL;
}

static tern_rc supports(tern_dev *dev, const tern_region *r, uint32_t *want_static) {
  (void)dev, (void)want_static;
  return compiler_of(r) ? TERN_OK : TERN_E_UNSUPPORTED;
}

static tern_rc compile(tern_dev *dev, const tern_region *r, tern_kernel **k, tern_kernel_info *info) {
  (void)dev;
  const struct compiler *const c = compiler_of(r);
  if (!c)
    return cpu_error(TERN_E_UNSUPPORTED, "cpu: no compiler for this region (%u nodes, first op %u)", r->n_nodes,
                     r->n_nodes ? r->nodes[0].op : 0);
  const tern_rc rc = c->compile(r, k, info);
  if (rc != TERN_OK) return rc;
  cpu_static_ask(r, info);
  (*k)->touch = touch_new(r, info->workspace); /* without it the kernel is in no recorded program */
  return TERN_OK;
}

static tern_rc workspace(tern_dev *dev, const tern_kernel *k, const tern_word *words, uint64_t *bytes) {
  (void)dev;
  *bytes = k->workspace ? k->workspace(k, words) : 0;
  return TERN_OK;
}

/* The plain load of replay_quiet is meant (replay.h) */
__attribute__((no_sanitize("thread"))) static tern_rc launch(tern_dev *dev, tern_queue *queue, const tern_kernel *k,
                                                             const tern_launch *l) {
  (void)dev, (void)queue;
  if (__builtin_expect(replay_quiet != 1, 0) && replay_recording()) return replay_record(k, l);
  return k->run(k, l);
}

static void kernel_free(tern_dev *dev, tern_kernel *k) {
  (void)dev;
  if (!k) return;
  free(k->touch);
  cpu_kernel_free(k);
}

static const tern_option options[] = {
    {"branches", "auto",
     "launches of a graph that do not depend on each other, side by side on the threads: auto (where that is measured "
     "to be faster), off, always (for tests)"}};
static const tern_ext_options option_list = {.ext = {.type = TERN_EXT_OPTIONS, .size = sizeof option_list},
                                             .n = sizeof options / sizeof options[0],
                                             .options = options};

static tern_rc run_team(tern_dev *dev, uint32_t n, void (*part)(void *context, uint32_t i), void *context) {
  (void)dev;
  return cpu_team(n, part, context) ? TERN_OK : TERN_E_UNSUPPORTED;
}

static const tern_backend backend = {.struct_size = sizeof backend,
                                     .abi = TERN_ABI,
                                     .name = "cpu",
                                     .version = "0.1",
                                     .ext = &option_list.ext,
                                     .score = cpu_score,
                                     .init = init,
                                     .fini = fini,
                                     .device_info = device_info,
                                     .device_open = device_open,
                                     .device_close = device_close,
                                     .mem_alloc = mem_alloc,
                                     .mem_free = mem_free,
                                     .mem_map = mem_map,
                                     .mem_unmap = mem_unmap,
                                     .copy = copy,
                                     .fill = fill,
                                     .supports = supports,
                                     .compile = compile,
                                     .workspace = workspace,
                                     .launch = launch,
                                     .kernel_free = kernel_free,
                                     .program_begin = replay_begin,
                                     .program_end = replay_end,
                                     .program_update = replay_update,
                                     .program_run = replay_run,
                                     .program_free = replay_free,
                                     .team = run_team};

const tern_backend *tern_plugin_query(uint32_t host_abi) { return host_abi >> 16 == TERN_ABI_MAJOR ? &backend : NULL; }
