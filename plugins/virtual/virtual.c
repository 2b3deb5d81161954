/* Simulated devices (virtual.h): driver, memory, queues, copies and compute. Everything is done at once, on the calling
   thread; only the clocks pretend that it takes time. */
#include "virtual.h"
#include "../../backends/common/eval.h"
#include "../../backends/common/nest.h"
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TICKETS = 1024 }; /* whose times a queue remembers */

struct tern_dev {
  tern_drv *drv;
  virtual_spec spec;
  virtual_clock clock; /* less host */
  uint64_t used;       /* bytes of memory */
};
struct tern_drv {
  const tern_host *host;
  pthread_mutex_t lock; /* clocks and used */
  uint64_t now;         /* the program's time */
  uint32_t n;
  tern_dev dev[VIRTUAL_MAX];
};
struct tern_mem {
  uint64_t size;
  unsigned char *data;
};
typedef struct recorded { /* a launch of a program */
  struct recorded *next;
  const tern_kernel *kernel;
  tern_launch launch; /* its arrays are behind it */
} recorded;
struct tern_program {
  recorded *first, **last;
};
struct tern_queue {
  tern_program *recording; /* between program_begin and program_end */
  uint64_t tickets, time[TICKETS]; /* of ticket t: time[t % TICKETS] */
  tern_rc failed;                  /* stays */
  char message[240];
};
struct tern_kernel {
  tern_region region; /* its arrays are behind it */
};

static struct { tern_drv *drv; } state; /* for the clock's reader, which has no handle */

__attribute__((format(printf, 3, 4))) static tern_rc fail(const tern_drv *d, tern_rc rc, const char *format, ...) {
  char text[400];
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  return d->host->error(d->host->ctx, rc, text);
}

/* ---- driver and devices ---- */

static tern_rc init(const tern_host *host, tern_drv **drv) {
  tern_drv *d = calloc(1, sizeof *d);
  virtual_spec *spec = calloc(VIRTUAL_MAX, sizeof *spec);
  char message[256] = "";
  if (!d || !spec) {
    free(d);
    free(spec);
    return host->error(host->ctx, TERN_E_OOM, "virtual: out of host memory");
  }
  d->host = host;
  const int n = virtual_parse(host->option(host->ctx, "devices"), spec, message, sizeof message);
  for (int i = 0; i < n; i++) d->dev[i] = (tern_dev){.drv = d, .spec = spec[i]};
  free(spec);
  if (n < 0) {
    const tern_rc rc = fail(d, TERN_E_ARG, "virtual: TERN_VIRTUAL_DEVICES: %s", message);
    free(d);
    return rc;
  }
  d->n = (uint32_t)n;
  pthread_mutex_init(&d->lock, NULL);
  *drv = state.drv = d;
  return TERN_OK;
}

static void fini(tern_drv *d) {
  if (state.drv == d) state.drv = NULL;
  pthread_mutex_destroy(&d->lock);
  free(d);
}

/* 0 would ask the core to measure, which a simulation must not be. */
static uint64_t declared(double rate) { return rate >= 1 ? (uint64_t)rate : (uint64_t)1e18; }

static tern_rc device_info(tern_drv *drv, uint32_t i, tern_device_info *info) {
  if (i >= drv->n) return TERN_E_END;
  const virtual_spec *s = &drv->dev[i].spec;
  snprintf(info->name, sizeof info->name, "%s", s->name);
  snprintf(info->desc, sizeof info->desc, "simulated %s: right results, declared costs", s->name);
  snprintf(info->id, sizeof info->id, "virtual:%s", s->name);
  snprintf(info->features, sizeof info->features, "simulated");
  info->kind = s->kind;
  info->flags = TERN_DEV_ASYNC | TERN_DEV_HIDDEN;
  info->mem_total = info->mem_free = info->max_alloc = s->memory;
  info->mem_align = 64;
  info->max_args = s->max_args;
  info->max_nodes = s->max_nodes;
  info->dtypes = s->dtypes;
  info->flops = declared(s->flops);
  info->bandwidth = declared(s->bandwidth);
  info->launch_ns = s->launch_ns ? s->launch_ns : 1;
  info->link_bandwidth = declared(s->link);
  info->link_ns = s->latency_ns ? s->latency_ns : 1;
  return TERN_OK;
}

static tern_rc device_open(tern_drv *drv, uint32_t i, tern_dev **dev) {
  if (i >= drv->n) return fail(drv, TERN_E_ARG, "virtual: there is no device %u", i);
  *dev = &drv->dev[i];
  return TERN_OK;
}

static void device_close(tern_dev *dev) { (void)dev; }

static tern_rc read_clock(uint32_t device, virtual_clock *out) {
  tern_drv *d = state.drv;
  if (!d || device >= d->n) return TERN_E_END;
  pthread_mutex_lock(&d->lock);
  *out = d->dev[device].clock;
  out->host = d->now;
  pthread_mutex_unlock(&d->lock);
  return TERN_OK;
}

/* Work of `ns` goes to the device's queue, at `first` at the earliest. Caller holds the lock. */
static void advance(tern_dev *dev, uint64_t first, uint64_t ns) {
  if (dev->clock.device < dev->drv->now) dev->clock.device = dev->drv->now;
  if (dev->clock.device < first) dev->clock.device = first;
  dev->clock.device += ns;
}

/* ---- memory ---- */

static tern_rc mem_alloc(tern_dev *dev, const tern_mem_desc *want, tern_mem **mem) {
  tern_drv *d = dev->drv;
  if (want->flags || want->host_ptr || want->handle) return TERN_E_UNSUPPORTED;
  pthread_mutex_lock(&d->lock);
  const bool fits = want->size <= dev->spec.memory && dev->used <= dev->spec.memory - want->size;
  if (fits) dev->used += want->size;
  pthread_mutex_unlock(&d->lock);
  if (!fits)
    return fail(d, TERN_E_OOM, "virtual: %llu bytes do not fit: device %s has %llu", (unsigned long long)want->size,
                dev->spec.name, (unsigned long long)dev->spec.memory);
  const uint64_t align = want->align > 64 ? want->align : 64;
  tern_mem *m = calloc(1, sizeof *m);
  if (m && want->size < UINT64_C(1) << 46) m->data = aligned_alloc(align, (want->size + align - 1) / align * align);
  if (!m || !m->data) {
    free(m);
    pthread_mutex_lock(&d->lock);
    dev->used -= want->size;
    pthread_mutex_unlock(&d->lock);
    return fail(d, TERN_E_OOM, "virtual: out of host memory");
  }
  m->size = want->size;
  *mem = m;
  return TERN_OK;
}

static void mem_free(tern_dev *dev, tern_mem *mem) {
  pthread_mutex_lock(&dev->drv->lock);
  dev->used -= mem->size;
  pthread_mutex_unlock(&dev->drv->lock);
  free(mem->data);
  free(mem);
}

/* ---- queues ---- */

static tern_rc queue_open(tern_dev *dev, uint32_t flags, tern_queue **queue) {
  if (flags) return TERN_E_UNSUPPORTED;
  *queue = calloc(1, sizeof **queue);
  return *queue ? TERN_OK : fail(dev->drv, TERN_E_OOM, "virtual: out of host memory");
}

static void queue_close(tern_dev *dev, tern_queue *queue) {
  (void)dev;
  free(queue);
}

static tern_rc queue_signal(tern_dev *dev, tern_queue *q, uint64_t *ticket) {
  pthread_mutex_lock(&dev->drv->lock);
  *ticket = ++q->tickets;
  q->time[*ticket % TICKETS] = dev->clock.device;
  pthread_mutex_unlock(&dev->drv->lock);
  return TERN_OK;
}

/* When the ticket's work is done; of one that is too old to be known, the oldest that is. */
static uint64_t time_of(const tern_queue *q, uint64_t ticket) {
  if (ticket > q->tickets) ticket = q->tickets;
  return q->time[(ticket + TICKETS <= q->tickets ? q->tickets + 1 : ticket) % TICKETS];
}

static tern_rc queue_wait(tern_dev *dev, tern_queue *q, tern_queue *other, uint64_t ticket) {
  (void)q;
  pthread_mutex_lock(&dev->drv->lock);
  advance(dev, time_of(other, ticket), 0);
  pthread_mutex_unlock(&dev->drv->lock);
  return TERN_OK;
}

static tern_rc queue_sync(tern_dev *dev, tern_queue *q, uint64_t ticket, uint64_t timeout_ns) {
  tern_drv *d = dev->drv;
  pthread_mutex_lock(&d->lock);
  const uint64_t done = time_of(q, ticket);
  if (timeout_ns && d->now < done) d->now = done; /* a poll does not wait */
  pthread_mutex_unlock(&d->lock);
  return q->failed ? d->host->error(d->host->ctx, q->failed, q->message) : TERN_OK;
}

/* ---- copies ---- */

static tern_rc copy(tern_dev *dev, tern_queue *q, const tern_copy *c) {
  tern_drv *d = dev->drv;
  (void)q;
  if (c->flags) return TERN_E_UNSUPPORTED;
  unsigned char *dst = c->dst ? c->dst->data + c->dst_off : c->host_dst;
  const unsigned char *src = c->src ? c->src->data + c->src_off : c->host_src;
  if (!dst || !src) return fail(d, TERN_E_ARG, "virtual: a copy without source or destination");
  memmove(dst, src, c->size);
  tern_dev *from = c->src && c->src_dev ? c->src_dev : dev;
  const bool inside = c->dst && c->src && from == dev;
  pthread_mutex_lock(&d->lock);
  if (inside) {
    const double ns = dev->spec.bandwidth > 0 ? 2e9 * (double)c->size / dev->spec.bandwidth : 0;
    advance(dev, 0, dev->spec.launch_ns + (uint64_t)ns);
  } else {
    uint64_t ns = virtual_transfer(&dev->spec, c->size);
    if (from != dev) ns += virtual_transfer(&from->spec, c->size); /* through the host */
    advance(dev, 0, ns);
    dev->clock.copying += ns;
    dev->clock.copies++;
    dev->clock.bytes += c->size;
  }
  pthread_mutex_unlock(&d->lock);
  return TERN_OK;
}

static tern_rc fill(tern_dev *dev, tern_queue *q, tern_mem *mem, uint64_t off, uint64_t size, const void *pat,
                    uint32_t pat_size) {
  (void)q;
  if (!pat_size) return fail(dev->drv, TERN_E_ARG, "virtual: a fill without a pattern");
  for (uint64_t i = 0; i < size; i++) mem->data[off + i] = ((const unsigned char *)pat)[i % pat_size];
  const double ns = dev->spec.bandwidth > 0 ? 1e9 * (double)size / dev->spec.bandwidth : 0;
  pthread_mutex_lock(&dev->drv->lock);
  advance(dev, 0, dev->spec.launch_ns + (uint64_t)ns);
  pthread_mutex_unlock(&dev->drv->lock);
  return TERN_OK;
}

/* ---- compute ---- */

static bool known_value(const virtual_spec *s, const tern_region *r, const tern_value *v) {
  return v->dtype && v->dtype < TERN_DTYPE_END && s->dtypes >> v->dtype & 1 && !v->layout && v->kind >= TERN_V_IN &&
         v->kind <= TERN_V_SIZE && v->rank <= TERN_MAX_RANK &&
         ((v->kind != TERN_V_VIEW && v->kind != TERN_V_SIZE) || v->slot < r->n_values);
}

static tern_rc supports(tern_dev *dev, const tern_region *r, uint32_t *want_static) {
  const virtual_spec *s = &dev->spec;
  (void)want_static;
  if ((s->max_args && r->n_args > s->max_args) || (s->max_nodes && r->n_nodes > s->max_nodes))
    return TERN_E_UNSUPPORTED;
  for (uint32_t i = 0; i < r->n_values; i++)
    if (!known_value(s, r, &r->values[i])) return TERN_E_UNSUPPORTED;
  for (uint32_t i = 0; i < r->n_nodes; i++)
    if (!virtual_has(s, r->nodes[i].op) || nest_check_node(r, i, NULL, 0)) return TERN_E_UNSUPPORTED;
  return TERN_OK;
}

/* How many edges and attributes the nodes refer to */
static void extent(const tern_region *r, size_t *edges, size_t *attrs) {
  *edges = *attrs = 0;
  for (uint32_t i = 0; i < r->n_nodes; i++) {
    const tern_node *n = &r->nodes[i];
    const size_t in = (size_t)n->in + n->n_in, out = (size_t)n->out + n->n_out, attr = (size_t)n->attr + n->n_attr;
    *edges = in > *edges ? in : *edges;
    *edges = out > *edges ? out : *edges;
    *attrs = attr > *attrs ? attr : *attrs;
  }
}

static tern_rc compile(tern_dev *dev, const tern_region *r, tern_kernel **out, tern_kernel_info *info) {
  size_t edges, attrs;
  (void)info;
  extent(r, &edges, &attrs);
  const size_t values_size = r->n_values * sizeof *r->values, nodes_size = r->n_nodes * sizeof *r->nodes,
               attrs_size = attrs * sizeof *r->attrs, edges_size = edges * sizeof *r->edges;
  tern_kernel *k = calloc(1, sizeof *k + values_size + nodes_size + attrs_size + edges_size);
  if (!k) return fail(dev->drv, TERN_E_OOM, "virtual: out of host memory");
  char *at = (char *)(k + 1); /* the strictest alignment first */
  k->region = (tern_region){.struct_size = sizeof k->region,
                            .flags = r->flags,
                            .n_nodes = r->n_nodes,
                            .n_values = r->n_values,
                            .n_args = r->n_args,
                            .n_words = r->n_words};
  k->region.values = values_size ? memcpy(at, r->values, values_size) : (void *)at;
  at += values_size;
  k->region.attrs = attrs_size ? memcpy(at, r->attrs, attrs_size) : (void *)at;
  at += attrs_size;
  k->region.nodes = nodes_size ? memcpy(at, r->nodes, nodes_size) : (void *)at;
  at += nodes_size;
  k->region.edges = edges_size ? memcpy(at, r->edges, edges_size) : (void *)at;
  *out = k;
  return TERN_OK;
}

static void kernel_free(tern_dev *dev, tern_kernel *k) {
  (void)dev;
  free(k);
}

/* ---- programs: launches that are kept ---- */

static recorded *keep(const tern_kernel *k, const tern_launch *l) {
  const size_t args = l->n_args * sizeof *l->args, words = l->n_words * sizeof *l->words;
  recorded *r = calloc(1, sizeof *r + args + words);
  if (!r) return NULL;
  r->kernel = k;
  r->launch = *l;
  r->launch.args = args ? memcpy(r + 1, l->args, args) : (void *)(r + 1);
  r->launch.words = words ? memcpy((char *)(r + 1) + args, l->words, words) : (void *)(r + 1);
  return r;
}

static void program_free(tern_dev *dev, tern_program *p) {
  (void)dev;
  for (recorded *r = p->first, *next; r; r = next) {
    next = r->next;
    free(r);
  }
  free(p);
}

static tern_rc program_begin(tern_dev *dev, tern_queue *q) {
  if (q->recording) return fail(dev->drv, TERN_E_ARG, "virtual: a program is being recorded already");
  tern_program *p = calloc(1, sizeof *p);
  if (!p) return fail(dev->drv, TERN_E_OOM, "virtual: out of host memory");
  p->last = &p->first;
  q->recording = p;
  return TERN_OK;
}

static tern_rc program_end(tern_dev *dev, tern_queue *q, tern_program **out) {
  if (!q->recording) return fail(dev->drv, TERN_E_ARG, "virtual: no program is being recorded");
  *out = q->recording;
  q->recording = NULL;
  return TERN_OK;
}

static tern_rc record(const tern_dev *dev, tern_program *p, const tern_kernel *k, const tern_launch *l) {
  recorded *r = keep(k, l);
  if (!r) return fail(dev->drv, TERN_E_OOM, "virtual: out of host memory");
  *p->last = r;
  p->last = &r->next;
  return TERN_OK;
}

static tern_rc program_update(tern_dev *dev, tern_program *p, uint32_t nth, const tern_launch *l) {
  recorded *r = p->first;
  while (r && nth--) r = r->next;
  if (!r || r->launch.n_args != l->n_args || r->launch.n_words != l->n_words)
    return fail(dev->drv, TERN_E_ARG, "virtual: the program has no such launch");
  memcpy((void *)(uintptr_t)r->launch.args, l->args, l->n_args * sizeof *l->args);
  memcpy((void *)(uintptr_t)r->launch.words, l->words, l->n_words * sizeof *l->words);
  return TERN_OK;
}

/* An error of the evaluator (an index out of range) belongs to the queue, as on a real device. */
static tern_rc run_now(tern_dev *dev, tern_queue *q, const tern_kernel *k, const tern_launch *l, bool first) {
  enum { FEW = 64 };
  void *few[FEW], **args = l->n_args <= FEW ? few : malloc(l->n_args * sizeof *args);
  if (!args) return fail(dev->drv, TERN_E_OOM, "virtual: out of host memory");
  for (uint32_t i = 0; i < l->n_args; i++) args[i] = l->args[i].mem->data + l->args[i].offset;
  char message[sizeof q->message] = "";
  const tern_rc rc = q->failed ? TERN_OK : tern_eval(&k->region, args, l->words, message, sizeof message);
  if (rc) {
    q->failed = rc;
    memcpy(q->message, message, sizeof message);
  }
  if (args != few) free(args);
  uint64_t ns = virtual_cost(&dev->spec, &k->region, l->words);
  if (!first && ns > dev->spec.launch_ns) ns -= dev->spec.launch_ns; /* of a program: one start for all */
  pthread_mutex_lock(&dev->drv->lock);
  advance(dev, 0, ns);
  dev->clock.launching += ns;
  dev->clock.launches++;
  pthread_mutex_unlock(&dev->drv->lock);
  return TERN_OK;
}

static tern_rc launch(tern_dev *dev, tern_queue *q, const tern_kernel *k, const tern_launch *l) {
  return q->recording ? record(dev, q->recording, k, l) : run_now(dev, q, k, l, true);
}

static tern_rc program_run(tern_dev *dev, tern_queue *q, const tern_program *p) {
  tern_rc rc = TERN_OK;
  for (const recorded *r = p->first; r && !rc; r = r->next) rc = run_now(dev, q, r->kernel, &r->launch, r == p->first);
  return rc;
}

static tern_rc cost(tern_dev *dev, const tern_region *r, const tern_word *words, uint64_t *ns) {
  *ns = virtual_cost(&dev->spec, r, words);
  return TERN_OK;
}

/* clang-format off */
static const tern_option options[] = {
  {"devices", virtual_default, "the simulated devices: NAME:KEY=VALUE,..;NAME:.. (plugins/virtual/virtual.h)"}};
static const tern_ext_options option_list = {.ext = {TERN_EXT_OPTIONS, sizeof option_list, NULL}, .n = 1,
                                             .options = options};
static const virtual_ext_clock clock_ext = {.ext = {VIRTUAL_EXT_CLOCK, sizeof clock_ext, &option_list.ext},
                                            .read = read_clock};
static const tern_backend backend = {
  .struct_size = sizeof backend, .abi = TERN_ABI, .name = "virtual", .version = "1.0", .ext = &clock_ext.ext,
  .init = init, .fini = fini, .device_info = device_info, .device_open = device_open, .device_close = device_close,
  .mem_alloc = mem_alloc, .mem_free = mem_free, .queue_open = queue_open, .queue_close = queue_close,
  .queue_signal = queue_signal, .queue_wait = queue_wait, .queue_sync = queue_sync, .copy = copy, .fill = fill,
  .supports = supports, .compile = compile, .launch = launch, .kernel_free = kernel_free, .cost = cost,
  .program_begin = program_begin, .program_end = program_end, .program_update = program_update,
  .program_run = program_run, .program_free = program_free};
/* clang-format on */
const tern_backend *tern_plugin_query(uint32_t host_abi) { return host_abi >> 16 == TERN_ABI_MAJOR ? &backend : NULL; }
