/* The kernel cache: classes by key, an open-addressed table of atomic pointers to immutable entries. Readers take no
   lock; a miss compiles under the device's class lock, so that each class is compiled once. Old tables stay until the
   device ends. Kernels for literal sizes are kept apart: those are counted, and only the last ones stay. */
#include "device/trace.h"
#include "dispatch/dispatch.h"
#include "base/alloc.h"
#include "base/log.h"
#include "tensor/dtype.h"
#include <stdio.h>
#include <stdlib.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

typedef struct tern__class_table {
  struct tern__class_table *older;
  uint64_t capacity, used; /* capacity: a power of two */
  _Atomic(tern__kernel_class *) entry[];
} tern__class_table;

static pthread_mutex_t compile_lock[TERN__MAX_DEVICES];
static pthread_once_t locks_once = PTHREAD_ONCE_INIT;
static void make_locks(void) {
  for (int i = 0; i < TERN__MAX_DEVICES; i++) pthread_mutex_init(&compile_lock[i], NULL);
}

static tern__kernel_class *look(const tern__class_table *table, const tern__class_key *key, uint64_t hash) {
  if (!table) return NULL;
  for (uint64_t i = hash;; i++) {
    tern__kernel_class *k = atomic_load_explicit(&table->entry[i & (table->capacity - 1)], memory_order_acquire);
    if (!k) return NULL;
    if (k->hash == hash && k->key.bytes == key->bytes && !memcmp(k->key.data, key->data, key->bytes)) return k;
  }
}

static void put(tern__class_table *table, tern__kernel_class *k) {
  uint64_t i = k->hash & (table->capacity - 1);
  while (atomic_load_explicit(&table->entry[i], memory_order_relaxed)) i = (i + 1) & (table->capacity - 1);
  atomic_store_explicit(&table->entry[i], k, memory_order_release);
  table->used++;
}

/* Room for one more; publishes a larger table when needed. */
static bool make_room(tern__device *d) {
  tern__class_table *old = __atomic_load_n(&d->classes, __ATOMIC_RELAXED);
  if (old && old->used * 2 < old->capacity) return true;
  const uint64_t capacity = old ? old->capacity * 2 : 256;
  tern__class_table *table = tern__calloc64(sizeof *table + capacity * sizeof table->entry[0]);
  if (!table) return false;
  table->capacity = capacity;
  table->older = old;
  for (uint64_t i = 0; old && i < old->capacity; i++) {
    tern__kernel_class *k = atomic_load_explicit(&old->entry[i], memory_order_relaxed);
    if (k) put(table, k);
  }
  __atomic_store_n(&d->classes, table, __ATOMIC_RELEASE);
  return true;
}

typedef union {
  tern_kernel_info info;
  char block[1024];
} info_block;

/* NATIVE when the device takes the region; else whether it must be split or run on the host. */
static uint8_t ask(tern__device *d, const tern_region *r) {
  uint32_t want_static = 0;
  if ((d->info.max_args && r->n_args > d->info.max_args) || (d->info.max_nodes && r->n_nodes > d->info.max_nodes) ||
      d->api->supports(d->dev, r, &want_static) || want_static)
    return r->n_nodes > 1 ? TERN__SPLIT : TERN__ON_HOST;
  return TERN__NATIVE;
}

/* wishes: zeroed, two for each argument, into which the plugin writes the layouts that it would like, then their bytes;
   NULL: nobody wants to know. */
static tern_rc compile(tern__device *d, tern__kernel_class *k, uint64_t *wishes) {
  const uint32_t n = k->region->r.n_args;
  uint64_t few[2 * TERN__MAX_ARGS] = {0}, *layout = wishes ? wishes : few;
  if (!wishes && n > TERN__MAX_ARGS && !(layout = tern__calloc(2 * n, sizeof *layout)))
    return tern__fail(TERN_E_OOM, "%s: out of host memory for a kernel", k->op);
  info_block b;
  memset(&b, 0, sizeof b);
  b.info.struct_size = sizeof b.info;
  b.info.layout = layout;
  b.info.layout_bytes = layout + n;
  tern__plugin_error_clear();
  const uint64_t began = tern__now_ns();
  const tern_rc rc = d->api->compile(d->dev, &k->region->r, &k->kernel, &b.info);
  if (layout != few && !wishes) free(layout);
  if (rc) {
    char what[96];
    snprintf(what, sizeof what, "compiling %s", k->op);
    return tern__device_failed(d, rc, what);
  }
  k->workspace = b.info.workspace;
  atomic_store_explicit(&k->ready, d->api->ready == NULL, memory_order_relaxed);
  atomic_fetch_add_explicit(&d->stats.compiles, 1, memory_order_relaxed);
  if (tern__log_on(TERN__LOG_DEBUG, "dispatch"))
    tern__log(TERN__LOG_DEBUG, "dispatch", "%s: compiled %s (%u nodes) in %.3f ms", d->name, k->op,
              k->region->r.n_nodes, (double)(tern__now_ns() - began) * 1e-6);
  return TERN_OK;
}

static void log_refusal(const tern__device *d, const tern__kernel_class *k) {
  if (!tern__log_on(TERN__LOG_DEBUG, "dispatch")) return;
  char *text = tern__region_text(&k->region->r);
  tern__log(TERN__LOG_DEBUG, "dispatch", "%s: %s %s:\n%s", d->name, k->op,
            k->state == TERN__SPLIT ? "runs as primitives" : "is refused", text ? text : "");
  free(text);
}

static tern__kernel_class *make(const tern__request *q, const tern__class_key *key, uint64_t hash) {
  tern__device *d = q->device;
  tern__kernel_class *k = tern__calloc(1, sizeof *k);
  if (!k) {
    tern__fail(TERN_E_OOM, "%s: out of host memory for a kernel", q->op->name);
    return NULL;
  }
  k->hash = hash;
  k->key = *key;
  k->op = q->op->name;
  k->out_dtype = q->arg[q->n_in].dtype;
  k->region = tern__lower(q);
  if (k->region) {
    k->state = ask(d, &k->region->r);
    if (k->state != TERN__NATIVE || !compile(d, k, NULL)) {
      if (k->state != TERN__NATIVE) log_refusal(d, k);
      return k;
    }
  }
  free(k->region);
  free(k);
  return NULL;
}

tern__kernel_class *tern__kernel_of(const tern__request *q) {
  tern__device *d = q->device;
  tern__class_key key;
  tern__class_of(q, &key);
  const uint64_t hash = XXH3_64bits(key.data, key.bytes);
  tern__kernel_class *k = look(__atomic_load_n(&d->classes, __ATOMIC_ACQUIRE), &key, hash);
  if (TERN__LIKELY(k != NULL)) return k;
  pthread_once(&locks_once, make_locks);
  pthread_mutex_lock(&compile_lock[d->index]);
  k = look(d->classes, &key, hash);
  if (!k && !make_room(d))
    tern__fail(TERN_E_OOM, "%s: out of host memory for the kernel table", q->op->name);
  else if (!k && (k = make(q, &key, hash)))
    put(d->classes, k);
  pthread_mutex_unlock(&compile_lock[d->index]);
  return k;
}

/* A region of a graph is its own class: no request is behind it. */
static tern__kernel_class *make_of_region(tern__device *d, tern__region *region, const char *name,
                                          const tern__class_key *key, uint64_t hash) {
  tern__kernel_class *k = tern__calloc(1, sizeof *k);
  if (!k) {
    tern__fail(TERN_E_OOM, "%s: out of host memory for a kernel", name);
    free(region);
    return NULL;
  }
  k->hash = hash;
  k->key = *key;
  k->op = name;
  k->region = region;
  k->state = ask(d, &region->r);
  if (k->state != TERN__NATIVE || !compile(d, k, NULL)) return k;
  free(region);
  free(k);
  return NULL;
}

tern__kernel_class *tern__kernel_of_region(tern__device *d, tern__region *region, const char *name) {
  tern__class_key key = {.bytes = 18, .data = {0xff, 0xff}}; /* no op has that number */
  memcpy(key.data + 2, region->r.key, sizeof region->r.key);
  const uint64_t hash = XXH3_64bits(key.data, key.bytes);
  tern__kernel_class *k = look(__atomic_load_n(&d->classes, __ATOMIC_ACQUIRE), &key, hash);
  if (k) {
    free(region);
    return k;
  }
  pthread_once(&locks_once, make_locks);
  pthread_mutex_lock(&compile_lock[d->index]);
  k = look(d->classes, &key, hash);
  if (k || !make_room(d)) {
    if (!k) tern__fail(TERN_E_OOM, "%s: out of host memory for the kernel table", name);
    free(region);
  } else if ((k = make_of_region(d, region, name, &key, hash))) {
    put(d->classes, k);
  }
  pthread_mutex_unlock(&compile_lock[d->index]);
  return k;
}

/* ---- kernels for literal sizes: few, counted, the least recently asked for go first ---- */

enum { MOST_FIXED = 256 };
static struct fixed_list { /* of a device, under its compile lock; the newest first */
  tern__fixed_kernel *first;
  uint32_t n;
} fixed_lists[TERN__MAX_DEVICES];

static void fixed_unref(tern__fixed_kernel *k) {
  if (--k->refs) return;
  if (k->c.kernel) k->device->api->kernel_free(k->device->dev, k->c.kernel);
  free(k->c.region);
  free(k->name);
  free(k->layout);
  free(k);
}

static tern__fixed_kernel *fixed_new(tern__device *d, tern__region *region, const char *name) {
  tern__fixed_kernel *k = tern__calloc(1, sizeof *k);
  if (k) k->layout = tern__calloc(2 * region->r.n_args + 1, sizeof *k->layout);
  if (k) k->name = tern__strdup(name);
  if (!k || !k->layout || !k->name) {
    tern__fail(TERN_E_OOM, "%s: out of host memory for a kernel", name);
    if (k) free(k->layout), free(k->name);
    free(k);
    free(region);
    return NULL;
  }
  k->refs = 1;
  k->device = d;
  k->c.op = k->name;
  k->c.region = region;
  k->c.state = ask(d, &region->r);
  if (k->c.state != TERN__NATIVE || !compile(d, &k->c, k->layout)) return k;
  fixed_unref(k);
  return NULL;
}

/* Found: moved to the front. */
static tern__fixed_kernel *fixed_find(struct fixed_list *list, const uint64_t *key) {
  for (tern__fixed_kernel **at = &list->first; *at; at = &(*at)->next) {
    tern__fixed_kernel *k = *at;
    if (memcmp(k->c.region->r.key, key, sizeof k->c.region->r.key)) continue;
    *at = k->next;
    k->next = list->first;
    list->first = k;
    return k;
  }
  return NULL;
}

static void fixed_add(struct fixed_list *list, tern__fixed_kernel *k) {
  k->next = list->first;
  list->first = k;
  if (list->n++ < MOST_FIXED) return;
  tern__fixed_kernel **last = &list->first;
  while ((*last)->next) last = &(*last)->next;
  tern__fixed_kernel *old = *last;
  *last = NULL;
  list->n--;
  fixed_unref(old);
}

tern__fixed_kernel *tern__fixed_kernel_of(tern__device *d, tern__region *region, const char *name) {
  pthread_once(&locks_once, make_locks);
  pthread_mutex_lock(&compile_lock[d->index]);
  tern__fixed_kernel *k = fixed_find(&fixed_lists[d->index], region->r.key);
  if (k)
    free(region);
  else if ((k = fixed_new(d, region, name)))
    fixed_add(&fixed_lists[d->index], k);
  if (k) k->refs++;
  pthread_mutex_unlock(&compile_lock[d->index]);
  return k;
}

void tern__fixed_kernel_release(tern__fixed_kernel *k) {
  if (!k) return;
  const uint32_t index = k->device->index;
  pthread_mutex_lock(&compile_lock[index]);
  fixed_unref(k);
  pthread_mutex_unlock(&compile_lock[index]);
}

void tern__kernel_make_ready(const tern__device *d, tern__kernel_class *k) {
  if (k->state == TERN__NATIVE && d->api->ready && d->api->ready(d->dev, k->kernel)) tern__plugin_error_clear();
  atomic_store_explicit(&k->ready, true, memory_order_relaxed);
}

static tern_rc launch_native(const tern__request *q, const tern__kernel_class *k) {
  tern__device *d = q->device;
  tern_word words[TERN__MAX_WORDS];
  tern_arg args[TERN__MAX_ARGS];
  tern_launch l = {.args = args, .words = words, .n_args = tern__args(q, args), .n_words = tern__words(q, words)};
  tern__storage *workspace = NULL;
  tern_rc rc = TERN_OK;
  tern__plugin_error_clear();
  if (k->workspace) {
    uint64_t bytes = k->workspace;
    if (bytes == UINT64_MAX) {
      bytes = 0;
      rc = d->api->workspace ? d->api->workspace(d->dev, k->kernel, words, &bytes) : TERN_E_INTERNAL;
    }
    if (!rc && bytes) {
      workspace = tern__storage_new(tern__thread_get(), d, bytes);
      if (!workspace) return TERN_E_OOM;
      l.workspace = (tern_arg){workspace->mem, workspace->mem_offset};
    }
  }
  if (!rc) {
    tern__kernel_ready(d, k);
    const bool traced = tern__tracing();
    const uint64_t began = traced ? tern__now_ns() : 0;
    tern__queue_lock(d);
    rc = d->launch(d->dev, d->queue, k->kernel, &l);
    tern__queue_unlock(d);
    tern__count_launch(tern__tls, d);
    if (traced) tern__trace("launch", k->op, d, 0, began, "");
  }
  if (workspace) tern__storage_unref(workspace); /* same queue: reusable at once */
  if (!rc) return TERN_OK;
  char what[96];
  snprintf(what, sizeof what, "launching %s", k->op);
  return tern__device_failed(d, rc, what);
}

tern_rc tern__launch_class(const tern__request *q, tern__kernel_class *k) {
  if (TERN__UNLIKELY(atomic_load_explicit(&q->device->lost, memory_order_relaxed)))
    return tern__fail(TERN_E_LOST, "%s: %s is lost; use another device", q->op->name, q->device->name);
  if (TERN__LIKELY(k->state == TERN__NATIVE)) return launch_native(q, k);
  return k->state == TERN__SPLIT ? tern__launch_split(q, k) : tern__launch_on_host(q);
}

tern_rc tern__launch(const tern__request *q) {
  tern__kernel_class *k = tern__kernel_of(q);
  return k ? tern__launch_class(q, k) : tern__recorded();
}
