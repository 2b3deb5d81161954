/* A backend that misbehaves on request, for the tests of the core and of tern-check. Left alone it is a right,
   asynchronous device: plain host memory behind queues (queue.c), every region computed by the kit's reference
   evaluator, slowly. Settings (TERN_FAULTY_FAIL and so on):
     fail    the entry point that fails: init device_info device_open mem_alloc mem_map queue_open queue_signal
             queue_sync queue_wait copy fill supports compile workspace ready launch; or async (a launch fails when it runs,
             so the next sync says so), lost (a launch loses the device), oom_after:N (block N + 1 is refused), wrong
             (one element of each output is wrong), overrun (a byte behind each output is written), slow (20 ms a
             launch), mute (launch fails without a message), hold (a kernel that multiplies is ready only after some
             other launch, and can never be launched when none came for ten seconds)
     single  1: refuses regions of several nodes, so that composites are split
     refuse  1: refuses every region, so that everything runs on the host */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include "faulty.h"
#include "../../backends/common/eval.h"
#include "../../backends/common/nest.h"
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct tern_drv {
  const tern_host *host;
  const char *fail;
  bool single, refuse;
};
struct tern_dev {
  tern_drv *drv;
  atomic_long blocks, launches; /* ever */
  atomic_bool lost;
};
struct tern_kernel {
  tern_dev *dev;
  atomic_int readied; /* how often; less than 0: held in vain */
  tern_region region; /* its arrays are behind it */
};

static tern_rc error(const tern_drv *d, tern_rc rc, const char *what) {
  char text[200];
  snprintf(text, sizeof text, "faulty: %s, as TERN_FAULTY_FAIL=%s asks", what, d->fail);
  return d->host->error(d->host->ctx, rc, text);
}
static bool asked(const tern_drv *d, const char *what) { return !strcmp(d->fail, what); }

/* ---- driver and device ---- */

static tern_rc init(const tern_host *host, tern_drv **drv) {
  tern_drv *d = calloc(1, sizeof *d);
  if (!d) return host->error(host->ctx, TERN_E_OOM, "faulty: out of host memory");
  const char *fail = host->option(host->ctx, "fail"), *single = host->option(host->ctx, "single"),
             *refuse = host->option(host->ctx, "refuse");
  *d = (tern_drv){
      .host = host, .fail = fail ? fail : "", .single = single && *single == '1', .refuse = refuse && *refuse == '1'};
  if (asked(d, "init")) {
    const tern_rc rc = error(d, TERN_E_INTERNAL, "init fails");
    free(d);
    return rc;
  }
  *drv = d;
  return TERN_OK;
}

static void fini(tern_drv *drv) { free(drv); }

static tern_rc device_info(tern_drv *drv, uint32_t i, tern_device_info *info) {
  if (asked(drv, "device_info")) return error(drv, TERN_E_INTERNAL, "device_info fails");
  if (i > 0) return TERN_E_END;
  snprintf(info->name, sizeof info->name, "faulty");
  snprintf(info->desc, sizeof info->desc, "a device that misbehaves on request");
  snprintf(info->id, sizeof info->id, "faulty:0");
  info->kind = TERN_KIND_OTHER;
  info->flags = TERN_DEV_ASYNC | (asked(drv, "mem_map") ? TERN_DEV_HOST_MEM : 0);
  info->mem_align = 64;
  info->dtypes = TERN_D_ANY;
  return TERN_OK;
}

static tern_rc device_open(tern_drv *drv, uint32_t i, tern_dev **dev) {
  if (i > 0 || asked(drv, "device_open")) return error(drv, TERN_E_INTERNAL, "device_open fails");
  tern_dev *d = calloc(1, sizeof *d);
  if (!d) return TERN_E_OOM;
  d->drv = drv;
  *dev = d;
  return TERN_OK;
}

static void device_close(tern_dev *dev) { free(dev); }

/* ---- memory: the handle is the pointer ---- */

static tern_rc mem_alloc(tern_dev *dev, const tern_mem_desc *want, tern_mem **mem) {
  const tern_drv *d = dev->drv;
  if (want->flags || want->host_ptr || want->handle) return TERN_E_UNSUPPORTED;
  if (asked(d, "mem_alloc")) return error(d, TERN_E_OOM, "mem_alloc fails");
  const long before = atomic_fetch_add(&dev->blocks, 1);
  if (!strncmp(d->fail, "oom_after:", 10) && before >= atol(d->fail + 10))
    return error(d, TERN_E_OOM, "the device is full");
  const uint64_t align = want->align > 64 ? want->align : 64;
  void *p = want->size < UINT64_C(1) << 48 ? aligned_alloc(align, (want->size + align - 1) / align * align) : NULL;
  if (!p) return d->host->error(d->host->ctx, TERN_E_OOM, "faulty: out of host memory");
  *mem = p;
  return TERN_OK;
}

static void mem_free(tern_dev *dev, tern_mem *mem) {
  (void)dev;
  free(mem);
}

static tern_rc mem_map(tern_dev *dev, tern_mem *mem, uint64_t off, uint64_t size, uint32_t rw, void **p) {
  (void)size, (void)rw;
  if (asked(dev->drv, "mem_map")) return error(dev->drv, TERN_E_INTERNAL, "mem_map fails");
  *p = (char *)mem + off;
  return TERN_OK;
}

static tern_rc mem_unmap(tern_dev *dev, tern_mem *mem, void *p) {
  (void)dev, (void)mem, (void)p;
  return TERN_OK;
}

/* ---- queues ---- */

static tern_rc queue_open(tern_dev *dev, uint32_t flags, tern_queue **queue) {
  if (flags) return TERN_E_UNSUPPORTED;
  if (asked(dev->drv, "queue_open")) return error(dev->drv, TERN_E_INTERNAL, "queue_open fails");
  *queue = faulty_queue_new();
  return *queue ? TERN_OK
                : dev->drv->host->error(dev->drv->host->ctx, TERN_E_OOM, "faulty: no memory or no thread for a queue");
}

static void queue_close(tern_dev *dev, tern_queue *queue) {
  (void)dev;
  faulty_queue_free(queue);
}

static command *new_command(size_t data) { return calloc(1, sizeof(command) + data); }

static tern_rc queue_signal(tern_dev *dev, tern_queue *q, uint64_t *ticket) {
  if (asked(dev->drv, "queue_signal")) return error(dev->drv, TERN_E_INTERNAL, "queue_signal fails");
  command *c = new_command(0);
  if (!c) return TERN_E_OOM;
  *ticket = c->ticket = ++q->tickets; /* calls on one queue never overlap */
  faulty_push(q, c);
  return TERN_OK;
}

static tern_rc run_wait(command *c, char *message, size_t size) {
  (void)message, (void)size;
  faulty_queue_until(c->other, c->ticket, UINT64_MAX); /* its failure is reported by its own sync */
  return TERN_OK;
}

static tern_rc queue_wait(tern_dev *dev, tern_queue *q, tern_queue *other, uint64_t ticket) {
  if (asked(dev->drv, "queue_wait")) return error(dev->drv, TERN_E_INTERNAL, "queue_wait fails");
  command *c = new_command(0);
  if (!c) return TERN_E_OOM;
  c->run = run_wait;
  c->other = other;
  c->ticket = ticket;
  faulty_push(q, c);
  return TERN_OK;
}

static tern_rc queue_sync(tern_dev *dev, tern_queue *q, uint64_t ticket, uint64_t timeout_ns) {
  const tern_drv *d = dev->drv;
  if (asked(d, "queue_sync")) return error(d, TERN_E_INTERNAL, "queue_sync fails");
  const tern_rc rc = faulty_queue_until(q, ticket, timeout_ns);
  return rc && rc != TERN_E_TIMEOUT ? d->host->error(d->host->ctx, rc, q->message) : rc;
}

/* ---- copies ---- */

static tern_rc run_copy(command *c, char *message, size_t size) {
  (void)message, (void)size;
  memmove(c->dst, c->src, c->size);
  return TERN_OK;
}

static tern_rc copy(tern_dev *dev, tern_queue *q, const tern_copy *c) {
  const tern_drv *d = dev->drv;
  if (c->flags || (c->src_dev && c->src_dev != dev)) return TERN_E_UNSUPPORTED;
  if (asked(d, "copy")) return error(d, TERN_E_INTERNAL, "copy fails");
  command *k = new_command(c->host_src ? c->size : 0);
  if (!k) return TERN_E_OOM;
  k->run = run_copy;
  k->dst = c->dst ? (char *)c->dst + c->dst_off : c->host_dst;
  k->src = c->src ? (const char *)c->src + c->src_off : c->host_src ? memcpy(k->data, c->host_src, c->size) : NULL;
  k->size = c->size;
  if (!k->dst || !k->src) {
    free(k);
    return d->host->error(d->host->ctx, TERN_E_ARG, "faulty: a copy without source or destination");
  }
  faulty_push(q, k);
  return TERN_OK;
}

static tern_rc run_fill(command *c, char *message, size_t size) {
  (void)message, (void)size;
  for (uint64_t i = 0; i < c->size; i++) ((unsigned char *)c->dst)[i] = c->data[i % c->pattern];
  return TERN_OK;
}

static tern_rc fill(tern_dev *dev, tern_queue *q, tern_mem *mem, uint64_t off, uint64_t size, const void *pat,
                    uint32_t pat_size) {
  if (asked(dev->drv, "fill")) return error(dev->drv, TERN_E_INTERNAL, "fill fails");
  if (!pat_size) return TERN_E_ARG;
  command *c = new_command(pat_size);
  if (!c) return TERN_E_OOM;
  c->run = run_fill;
  c->dst = (char *)mem + off;
  c->size = size;
  c->pattern = pat_size;
  memcpy(c->data, pat, pat_size);
  faulty_push(q, c);
  return TERN_OK;
}

/* ---- compute ---- */

static bool known_value(const tern_region *r, const tern_value *v) {
  return v->dtype && v->dtype < TERN_DTYPE_END && !v->layout && v->kind >= TERN_V_IN && v->kind <= TERN_V_SIZE &&
         v->rank <= TERN_MAX_RANK && (v->kind != TERN_V_VIEW || v->slot < r->n_values);
}

static tern_rc supports(tern_dev *dev, const tern_region *r, uint32_t *want_static) {
  (void)want_static;
  const tern_drv *d = dev->drv;
  if (asked(d, "supports")) return error(d, TERN_E_INTERNAL, "supports fails");
  if (d->refuse || (d->single && r->n_nodes > 1)) return TERN_E_UNSUPPORTED;
  for (uint32_t i = 0; i < r->n_values; i++)
    if (!known_value(r, &r->values[i])) return TERN_E_UNSUPPORTED;
  for (uint32_t i = 0; i < r->n_nodes; i++)
    if (nest_check_node(r, i, NULL, 0)) return TERN_E_UNSUPPORTED;
  return TERN_OK;
}

static uint32_t last_index(const tern_region *r, bool attrs) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < r->n_nodes; i++) {
    const tern_node *k = &r->nodes[i];
    if (attrs && k->attr + k->n_attr > n) n = k->attr + k->n_attr;
    if (!attrs && k->in + k->n_in > n) n = k->in + k->n_in;
    if (!attrs && k->out + k->n_out > n) n = k->out + k->n_out;
  }
  return n;
}

static tern_rc compile(tern_dev *dev, const tern_region *r, tern_kernel **out, tern_kernel_info *info) {
  const tern_drv *d = dev->drv;
  if (asked(d, "compile")) return error(d, TERN_E_INTERNAL, "compile fails");
  const size_t values = r->n_values * sizeof *r->values, nodes = r->n_nodes * sizeof *r->nodes,
               attrs = last_index(r, true) * sizeof *r->attrs, edges = last_index(r, false) * sizeof *r->edges;
  tern_kernel *k = calloc(1, sizeof *k + values + nodes + attrs + edges); /* in this order all are aligned */
  if (!k) return d->host->error(d->host->ctx, TERN_E_OOM, "faulty: out of host memory");
  char *at = (char *)(k + 1);
  k->dev = dev;
  k->region = (tern_region){.struct_size = sizeof k->region,
                            .flags = r->flags,
                            .n_nodes = r->n_nodes,
                            .n_values = r->n_values,
                            .n_args = r->n_args,
                            .n_words = r->n_words};
  if (values) memcpy(at, r->values, values);
  if (nodes) memcpy(at + values, r->nodes, nodes);
  if (attrs) memcpy(at + values + nodes, r->attrs, attrs);
  if (edges) memcpy(at + values + nodes + attrs, r->edges, edges);
  k->region.values = (const tern_value *)(void *)at;
  k->region.nodes = (const tern_node *)(void *)(at + values);
  k->region.attrs = (const tern_word *)(void *)(at + values + nodes);
  k->region.edges = (const uint32_t *)(void *)(at + values + nodes + attrs);
  info->workspace = asked(d, "workspace") ? UINT64_MAX : 0;
  *out = k;
  return TERN_OK;
}

static tern_rc workspace(tern_dev *dev, const tern_kernel *k, const tern_word *words, uint64_t *bytes) {
  (void)k, (void)words;
  *bytes = 0;
  return asked(dev->drv, "workspace") ? error(dev->drv, TERN_E_INTERNAL, "workspace fails") : TERN_OK;
}

static bool multiplies(const tern_kernel *k) {
  bool found = false;
  for (uint32_t i = 0; i < k->region.n_nodes; i++) found |= k->region.nodes[i].op == TERN_OP_MUL;
  return found;
}

static tern_rc ready(tern_dev *dev, const tern_kernel *const_kernel) {
  tern_kernel *k = (tern_kernel *)(uintptr_t)const_kernel;
  const tern_drv *d = dev->drv;
  if (asked(d, "ready")) return error(d, TERN_E_INTERNAL, "ready fails");
  if (!asked(d, "hold") || !multiplies(k)) return TERN_OK;
  const long before = atomic_load(&dev->launches);
  for (int i = 0; i < 10000 && atomic_load(&dev->launches) == before; i++)
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  atomic_store(&k->readied, atomic_load(&dev->launches) == before ? -1 : 1);
  return TERN_OK;
}

static void kernel_free(tern_dev *dev, tern_kernel *k) {
  (void)dev;
  free(k);
}

/* wrong: the first byte of each output; overrun: the first byte behind its last element (outputs are dense) */
static void spoil(const command *c, bool overrun) {
  const tern_region *r = &c->kernel->region;
  for (uint32_t i = 0; i < r->n_values; i++) {
    const tern_value *v = &r->values[i];
    if (v->kind != TERN_V_OUT) continue;
    uint64_t bytes = nest_item_size(v->dtype);
    for (uint32_t d = 0; overrun && d < v->rank; d++) bytes *= (uint64_t)TERN_LIT(v->shape[d], c->words);
    ((unsigned char *)c->args[v->slot])[overrun ? bytes : bytes - 1] ^= 0x41;
  }
}

static tern_rc run_launch(command *c, char *message, size_t size) {
  const tern_drv *d = c->kernel->dev->drv;
  if (asked(d, "slow")) nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
  if (asked(d, "async")) {
    snprintf(message, size, "faulty: a launch fails when it runs, as TERN_FAULTY_FAIL=async asks");
    return TERN_E_INTERNAL;
  }
  const tern_rc rc = tern_eval(&c->kernel->region, c->args, c->words, message, size);
  if (!rc && (asked(d, "wrong") || asked(d, "overrun"))) spoil(c, asked(d, "overrun"));
  return rc;
}

static tern_rc launch(tern_dev *dev, tern_queue *q, const tern_kernel *k, const tern_launch *l) {
  const tern_drv *d = dev->drv;
  if (asked(d, "mute")) return TERN_E_INTERNAL;
  if (asked(d, "launch")) return error(d, TERN_E_INTERNAL, "launch fails");
  if (asked(d, "hold") && multiplies(k) && atomic_load(&k->readied) <= 0)
    return error(d, TERN_E_INTERNAL,
                 atomic_load(&k->readied) ? "nothing was launched while a kernel was made ready"
                                          : "a kernel was launched that nobody made ready");
  atomic_fetch_add(&dev->launches, 1);
  if (asked(d, "lost") || atomic_load(&dev->lost)) {
    atomic_store(&dev->lost, true);
    return error(d, TERN_E_LOST, "the device fell off the bus");
  }
  command *c = new_command(l->n_args * sizeof *c->args + l->n_words * sizeof *c->words);
  if (!c) return TERN_E_OOM;
  c->run = run_launch;
  c->kernel = k;
  c->args = (void **)(void *)c->data;
  c->words = (tern_word *)(void *)(c->data + l->n_args * sizeof *c->args);
  for (uint32_t i = 0; i < l->n_args; i++) c->args[i] = (char *)l->args[i].mem + l->args[i].offset;
  if (l->n_words) memcpy(c->words, l->words, l->n_words * sizeof *l->words);
  faulty_push(q, c);
  return TERN_OK;
}

static const tern_option options[] = {{"fail", "", "the entry point that fails (plugins/faulty/faulty.c lists them)"},
                                      {"single", "0", "1: refuse regions of several nodes"},
                                      {"refuse", "0", "1: refuse every region"}};
static const tern_ext_options extension = {
    .ext = {TERN_EXT_OPTIONS, sizeof extension, NULL}, .n = 3, .options = options};

static const tern_backend backend = {.struct_size = sizeof backend,
                                     .abi = TERN_ABI,
                                     .name = "faulty",
                                     .version = "1.0",
                                     .ext = &extension.ext,
                                     .init = init,
                                     .fini = fini,
                                     .device_info = device_info,
                                     .device_open = device_open,
                                     .device_close = device_close,
                                     .mem_alloc = mem_alloc,
                                     .mem_free = mem_free,
                                     .mem_map = mem_map,
                                     .mem_unmap = mem_unmap,
                                     .queue_open = queue_open,
                                     .queue_close = queue_close,
                                     .queue_signal = queue_signal,
                                     .queue_wait = queue_wait,
                                     .queue_sync = queue_sync,
                                     .copy = copy,
                                     .fill = fill,
                                     .supports = supports,
                                     .compile = compile,
                                     .workspace = workspace,
                                     .launch = launch,
                                     .kernel_free = kernel_free,
                                     .ready = ready};

const tern_backend *tern_plugin_query(uint32_t host_abi) { return host_abi >> 16 == TERN_ABI_MAJOR ? &backend : NULL; }
