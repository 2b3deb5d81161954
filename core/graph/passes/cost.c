/* The cost of a region on a device (cost.h): the roofline, what it needs to know of regions and devices, and the
   process's measurements. */
#include "graph/passes/cost.h"
#include "base/log.h"
#include "base/options.h"
#include "graph/passes/cost_probe.h"
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct {
  pthread_mutex_t lock, probing; /* probing: held while a device is measured */
  tern__history *history;        /* NULL until the first use */
  bool changed;                  /* since it was saved */
  bool known[TERN__MAX_DEVICES];
  tern__cost_model model[TERN__MAX_DEVICES];
} state = {.lock = PTHREAD_MUTEX_INITIALIZER, .probing = PTHREAD_MUTEX_INITIALIZER};

/* ---- regions ---- */

/* Exponentials and their like (9 EXP2 .. 33 COSPI, and EXP, SQRT, RSQRT) take several operations. */
static double weight(uint32_t op) {
  if (op == TERN_OP_EXP || op == TERN_OP_SQRT) return 8;
  return op >= TERN_OP_RSQRT && op <= TERN_OP_COSPI ? 8 : 1;
}

static uint32_t kind_of(uint32_t op) {
  switch (op) {
#define TERN_X(name, num, n, kind, dtypes) \
  case num: return TERN_K_##kind;
    TERN_PRIMS(TERN_X)
#undef TERN_X
  default: return TERN_K_MAP;
  }
}

static double elements(const tern_value *v, const tern_word *words) {
  double n = 1;
  for (uint32_t d = 0; d < v->rank; d++) n *= (double)TERN_LIT(v->shape[d], words);
  return n;
}

static double operations(const tern_region *r, const tern_node *n, const tern_word *words) {
  const tern_value *out = &r->values[r->edges[n->out]];
  const tern_value *a = n->n_in ? &r->values[r->edges[n->in]] : out,
                   *b = n->n_in > 1 ? &r->values[r->edges[n->in + 1]] : a;
  const double made = elements(out, words), read = elements(a, words);
  switch (kind_of(n->op)) {
  case TERN_K_DOT: return a->rank ? 2 * made * (double)TERN_LIT(a->shape[a->rank - 1], words) : made;
  case TERN_K_CONV: { /* of y and w; the gradients multiply as often as the convolution */
    const tern_value *y = n->op == TERN_OP_CONV ? out : n->op == TERN_OP_CONV_DX ? a : b;
    const tern_value *w = n->op == TERN_OP_CONV_DW ? out : b;
    const double channels = w->rank ? (double)TERN_LIT(w->shape[0], words) : 1;
    return 2 * elements(y, words) * elements(w, words) / channels;
  }
  case TERN_K_REDUCE:
  case TERN_K_SCAN: return read;
  case TERN_K_SORT: return read * (1 + log2(read));
  default: return made * weight(n->op);
  }
}

static uint64_t whole(double x) { return x < 1e18 ? (uint64_t)x : (uint64_t)1e18; }

static double item_size(uint32_t dtype) {
  static const uint8_t size[TERN_DTYPE_END] = {0, 1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 2, 4, 8};
  return dtype < TERN_DTYPE_END ? size[dtype] : 0;
}

void tern__cost_count(const tern_region *r, const tern_word *words, uint64_t *flops, uint64_t *bytes) {
  double work = 0, moved = 0;
  for (uint32_t i = 0; i < r->n_nodes; i++) work += operations(r, &r->nodes[i], words);
  for (uint32_t i = 0; i < r->n_values; i++) {
    const tern_value *v = &r->values[i];
    if (v->kind == TERN_V_IN || v->kind == TERN_V_OUT) moved += elements(v, words) * item_size(v->dtype);
  }
  *flops = whole(work);
  *bytes = whole(moved);
}

uint64_t tern__cost_roofline(const tern__cost_model *m, uint64_t flops, uint64_t bytes, uint32_t launches) {
  const double compute = m->flops ? (double)flops / (double)m->flops : 0;
  const double memory = m->bandwidth ? (double)bytes / (double)m->bandwidth : 0;
  return whole((double)launches * (double)m->launch_ns + 1e9 * (compute > memory ? compute : memory));
}

/* ---- measurements ---- */

static bool path_of(char *path, size_t size) {
  const char *folder = tern__cache_dir();
  const int n = folder ? snprintf(path, size, "%s/costs.bin", folder) : -1;
  return n > 0 && (size_t)n < size;
}

/* The process's; read from the cache folder on first use. NULL when memory is exhausted. */
static tern__history *history(void) {
  char path[4096];
  pthread_mutex_lock(&state.lock);
  if (!state.history && (state.history = tern__history_new()) && path_of(path, sizeof path))
    tern__history_load(state.history, path);
  tern__history *h = state.history;
  pthread_mutex_unlock(&state.lock);
  return h;
}

/* A device without an id is another one in every process. */
static uint64_t device_number(const tern__device *d) {
  char who[160], driver[320];
  snprintf(who, sizeof who, "%s", d->info.id);
  if (!*who) snprintf(who, sizeof who, "%s of process %ld", d->name, (long)getpid());
  snprintf(driver, sizeof driver, "%s %s %s", d->plugin->name, d->plugin->version ? d->plugin->version : "",
           d->info.desc);
  return tern__cost_device(who, driver);
}

static tern__cost_key key_of(const tern__device *d, const tern_region *r, uint64_t bytes) {
  return (tern__cost_key){{r->key[0], r->key[1]}, device_number(d), tern__cost_bucket(bytes)};
}

static void remember(const tern__cost_key *key, uint64_t ns) {
  tern__history *h = history();
  if (!h || !tern__history_add(h, key, ns)) {
    tern__log(TERN__LOG_DEBUG, "place", "a measured time is not remembered: no room");
    return;
  }
  pthread_mutex_lock(&state.lock);
  state.changed = true;
  pthread_mutex_unlock(&state.lock);
}

void tern__cost_measured(tern__device *d, const tern_region *r, const tern_word *words, uint64_t ns) {
  uint64_t flops, bytes;
  tern__cost_count(r, words, &flops, &bytes);
  const tern__cost_key key = key_of(d, r, bytes);
  remember(&key, ns);
}

void tern__cost_save(void) {
  char path[4096];
  pthread_mutex_lock(&state.lock);
  const bool changed = state.changed;
  state.changed = false;
  tern__history *h = state.history;
  pthread_mutex_unlock(&state.lock);
  if (changed && h && path_of(path, sizeof path)) (void)tern__history_save(h, path);
}

/* ---- devices ---- */

/* What the probes took, from the file where it has them all. */
static bool probed(tern__device *d, uint64_t ns[TERN__PROBES]) {
  tern__history *h = history();
  const uint64_t device = device_number(d);
  int found = 0;
  for (uint32_t i = 0; h && i < TERN__PROBES; i++)
    found += tern__history_find(h, &(tern__cost_key){{TERN__PROBE_REGION, i}, device, 0}, &ns[i]);
  if (found == TERN__PROBES) return true;
  if (!tern__probe(d, ns)) return false;
  for (uint32_t i = 0; i < TERN__PROBES; i++) remember(&(tern__cost_key){{TERN__PROBE_REGION, i}, device, 0}, ns[i]);
  return true;
}

/* A second's worth, from an amount and the time beyond that of the empty probe */
static uint64_t rate(double amount, uint64_t ns, uint64_t empty) {
  const double beyond = ns > empty ? (double)(ns - empty) : 1;
  return 1 + whole(1e9 * amount / beyond);
}

static tern__cost_model measure(tern__device *d) {
  const tern_device_info *i = &d->info;
  const bool at_host = d->flags & TERN_DEV_HOST_MEM && !(d->flags & TERN_DEV_ASYNC);
  tern__cost_model m = {i->flops, i->bandwidth, i->launch_ns, i->link_bandwidth, i->link_ns};
  uint64_t ns[TERN__PROBES];
  const bool all = m.flops && m.bandwidth && m.launch_ns && (at_host || (m.link_bandwidth && m.link_ns));
  if (!all && probed(d, ns)) {
    if (!m.launch_ns) m.launch_ns = ns[TERN__PROBE_EMPTY] + 1;
    if (!m.flops && ns[TERN__PROBE_DOT]) m.flops = rate(TERN__PROBE_FLOPS, ns[TERN__PROBE_DOT], ns[TERN__PROBE_EMPTY]);
    if (!m.bandwidth) m.bandwidth = rate(TERN__PROBE_MOVED, ns[TERN__PROBE_MOVE], ns[TERN__PROBE_EMPTY]);
    if (!m.link_ns && !at_host) m.link_ns = ns[TERN__PROBE_TOUCH] + 1;
    if (!m.link_bandwidth && !at_host)
      m.link_bandwidth = rate(TERN__PROBE_SENT, ns[TERN__PROBE_SEND], ns[TERN__PROBE_TOUCH]);
  }
  if (!m.flops) m.flops = 10000000000; /* modest guesses */
  if (!m.bandwidth) m.bandwidth = 10000000000;
  if (!m.launch_ns) m.launch_ns = 10000;
  if (!m.link_ns && !at_host) m.link_ns = 10000;
  if (!m.link_bandwidth && !at_host) m.link_bandwidth = 5000000000;
  tern__log(TERN__LOG_DEBUG, "place", "%s: %.3g flop/s, %.3g B/s, %llu ns a launch, link %.3g B/s and %llu ns", d->name,
            (double)m.flops, (double)m.bandwidth, (unsigned long long)m.launch_ns, (double)m.link_bandwidth,
            (unsigned long long)m.link_ns);
  return m;
}

static bool known(uint32_t device, tern__cost_model *m) {
  pthread_mutex_lock(&state.lock);
  const bool yes = state.known[device];
  if (yes) *m = state.model[device];
  pthread_mutex_unlock(&state.lock);
  return yes;
}

tern__cost_model tern__cost_model_of(tern__device *d) {
  tern__cost_model m;
  if (known(d->index, &m)) return m;
  pthread_mutex_lock(&state.probing); /* two probes at once would disturb each other */
  if (!known(d->index, &m)) {
    m = measure(d);
    pthread_mutex_lock(&state.lock);
    state.model[d->index] = m;
    state.known[d->index] = true;
    pthread_mutex_unlock(&state.lock);
  }
  pthread_mutex_unlock(&state.probing);
  return m;
}

uint64_t tern__cost_region(tern__device *d, const tern_region *r, const tern_word *words) {
  uint64_t flops, bytes, ns = 0;
  tern__cost_count(r, words, &flops, &bytes);
  const tern__cost_key key = key_of(d, r, bytes);
  tern__history *h = history();
  if (h && tern__history_find(h, &key, &ns)) return ns;
  if (d->api->cost && d->api->cost(d->dev, r, words, &ns) == TERN_OK && ns < UINT64_MAX) return ns;
  const tern__cost_model m = tern__cost_model_of(d);
  return tern__cost_roofline(&m, flops, bytes, 1);
}
