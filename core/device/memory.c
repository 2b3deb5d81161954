/* The pool. Small blocks: thread cache -> central list -> carved from a slab. Large blocks: central list by class ->
   the plugin. When the plugin or TERN_MEM_LIMIT says no, pooled blocks are given back and it is asked once more. */
#include "base/alloc.h"
#include "base/options.h"
#include "device/device.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLAB_BYTES (1u << 20)
#define HEADER_BATCH 64

struct tern__import {
  void *data, *context;
  void (*release)(void *, void *);
};

static tern__storage *header_new(tern__device *d) {
  tern__storage *s = d->free_headers;
  if (!s) {
    tern__storage *batch = tern__calloc64(HEADER_BATCH * sizeof *batch);
    if (!batch) return NULL;
    for (int i = 0; i < HEADER_BATCH; i++) {
      batch[i].next = d->free_headers;
      d->free_headers = &batch[i];
    }
    s = d->free_headers;
  }
  d->free_headers = s->next;
  memset(s, 0, sizeof *s);
  s->device = d;
  return s;
}

static void header_free(tern__device *d, tern__storage *s) {
  s->next = d->free_headers;
  d->free_headers = s;
}

static int64_t live_now(tern__device *d) {
  int64_t live = d->live_shared;
  for (tern__pool_cache *c = d->caches; c; c = c->next) live += atomic_load_explicit(&c->live, memory_order_relaxed);
  return live;
}

static void note_peak(tern__device *d) {
  const int64_t live = live_now(d);
  if (live > 0 && (uint64_t)live > d->peak) d->peak = (uint64_t)live;
}

/* Ask the plugin. Caller holds pool_lock. */
static tern_rc ask(tern__device *d, uint64_t bytes, tern_mem **mem, char **host) {
  union {
    tern_mem_desc desc;
    char block[1024];
  } want;
  memset(&want, 0, sizeof want);
  want.desc.struct_size = sizeof want.desc;
  want.desc.size = bytes;
  want.desc.align = d->info.mem_align > 64 ? d->info.mem_align : 64;
  if (d->limit && d->reserved + bytes > d->limit)
    return tern__fail(TERN_E_OOM, "%s: TERN_MEM_LIMIT is %llu bytes; %llu are held and %llu more were asked for",
                      d->name, (unsigned long long)d->limit, (unsigned long long)d->reserved,
                      (unsigned long long)bytes);
  if (d->info.max_alloc && bytes > d->info.max_alloc)
    return tern__fail(TERN_E_OOM,
                      "%s: a tensor of %.4g GiB (%llu bytes) is larger than the %.4g GiB that the device allows in one "
                      "piece; make it smaller (the batch, for elementwise work), or use TERN_DEVICE=cpu",
                      d->name, (double)bytes / 0x1p30, (unsigned long long)bytes, (double)d->info.max_alloc / 0x1p30);
  tern__plugin_error_clear();
  tern_rc rc = d->api->mem_alloc(d->dev, &want.desc, mem);
  if (rc) return tern__device_failed(d, rc, "allocating memory");
  void *address = NULL;
  if ((d->flags & TERN_DEV_HOST_MEM) && (rc = d->api->mem_map(d->dev, *mem, 0, bytes, 1, &address))) {
    d->api->mem_free(d->dev, *mem);
    return tern__device_failed(d, rc, "mapping memory");
  }
  *host = address;
  d->reserved += bytes;
  return TERN_OK;
}

/* Give the large blocks that wait in the pool back. Caller holds pool_lock. Returns whether there were any. */
static bool give_back(tern__device *d) {
  bool any = false;
  for (uint32_t c = 0; c < TERN__CLASSES && !any; c++) any = c > tern__size_class(TERN__SMALL_BYTES) && d->free[c];
  if (!any) return false;
  tern__device_sync(d);
  for (uint32_t c = tern__size_class(TERN__SMALL_BYTES) + 1; c < TERN__CLASSES; c++)
    while (d->free[c]) {
      tern__storage *s = d->free[c];
      d->free[c] = s->next;
      d->reserved -= s->bytes;
      d->api->mem_free(d->dev, s->mem);
      header_free(d, s);
    }
  return true;
}

/* ask(), and once more after give_back(). Leaves no error behind when the second try works. */
static tern_rc ask_hard(tern__device *d, uint64_t bytes, tern_mem **mem, char **host) {
  tern__thread *t = tern__tls;
  const uint8_t before = t->error_state;
  tern_rc rc = ask(d, bytes, mem, host);
  if (rc != TERN_E_OOM || !give_back(d)) return rc;
  if (before != TERN__ERROR_UNREAD) t->error_state = before;
  return ask(d, bytes, mem, host);
}

/* A new block of class c. Caller holds pool_lock. */
static tern__storage *block_new(tern__device *d, uint32_t c) {
  const uint64_t bytes = tern__class_bytes(c);
  tern__storage *s = header_new(d);
  if (!s) {
    tern__fail(TERN_E_OOM, "out of host memory for a storage's header");
    return NULL;
  }
  s->size_class = (uint16_t)c;
  s->bytes = bytes;
  if (bytes > TERN__SMALL_BYTES) {
    if (!ask_hard(d, bytes, &s->mem, &s->host)) return s;
    header_free(d, s);
    return NULL;
  }
  const uint64_t align = d->info.mem_align > 64 ? d->info.mem_align : 64, step = (bytes + align - 1) / align * align;
  if (!d->slab || d->slab_used + step > d->slab_bytes) {
    uint64_t slab_bytes = SLAB_BYTES;
    if (d->limit && d->limit / 8 < slab_bytes) slab_bytes = d->limit / 8 > step ? d->limit / 8 : step;
    tern_mem *slab = NULL;
    char *host = NULL;
    if (ask_hard(d, slab_bytes, &slab, &host)) {
      header_free(d, s);
      return NULL;
    }
    d->slab = slab; /* what was left of the old one stays unused until the end: under 64 KiB */
    d->slab_host = host;
    d->slab_bytes = slab_bytes;
    d->slab_used = 0;
  }
  s->mem = d->slab;
  s->mem_offset = d->slab_used;
  s->host = d->slab_host ? d->slab_host + d->slab_used : NULL;
  d->slab_used += step;
  return s;
}

static tern__pool_cache *cache_of(tern__thread *t, tern__device *d) {
  tern__pool_cache *cache = t->pool[d->index];
  if (cache) return cache;
  cache = tern__calloc64(sizeof *cache);
  if (!cache) return NULL;
  pthread_mutex_lock(&d->pool_lock);
  cache->next = d->caches;
  d->caches = cache;
  pthread_mutex_unlock(&d->pool_lock);
  return t->pool[d->index] = cache;
}

static void add_live(tern__pool_cache *cache, int64_t bytes) {
  atomic_store_explicit(&cache->live, atomic_load_explicit(&cache->live, memory_order_relaxed) + bytes,
                        memory_order_relaxed);
}

tern__storage *tern__storage_slow(tern__thread *t, tern__device *d, uint64_t bytes) {
  if (bytes > UINT64_C(1) << 48) {
    tern__fail(TERN_E_OOM, "%s: %llu bytes are more than any device has", d->name, (unsigned long long)bytes);
    return NULL;
  }
  const uint32_t c = tern__size_class(bytes);
  tern__pool_cache *cache = cache_of(t, d);
  if (!cache) {
    tern__fail(TERN_E_OOM, "out of host memory for a thread's pool");
    return NULL;
  }
  pthread_mutex_lock(&d->pool_lock);
  tern__storage *s = d->free[c];
  if (s)
    d->free[c] = s->next;
  else
    s = block_new(d, c);
  if (s && bytes <= TERN__SMALL_BYTES) { /* take a few more that wait there */
    for (int i = 0; i < TERN__CACHE_BLOCKS / 4 && d->free[c]; i++) {
      tern__storage *more = d->free[c];
      d->free[c] = more->next;
      more->next = cache->free[c];
      cache->free[c] = more;
      cache->count[c]++;
    }
    add_live(cache, (int64_t)s->bytes);
  } else if (s) {
    d->live_shared += (int64_t)s->bytes;
  }
  if (s) note_peak(d);
  pthread_mutex_unlock(&d->pool_lock);
  if (s) atomic_store_explicit(&s->refs, 1, memory_order_relaxed);
  return s;
}

static void central_free(tern__device *d, tern__storage *s) {
  s->next = d->free[s->size_class];
  d->free[s->size_class] = s;
}

static void import_free(tern__device *d, tern__storage *s) {
  struct tern__import *import = s->import;
  if (d->queue) tern__device_sync(d);
  d->api->mem_free(d->dev, s->mem);
  pthread_mutex_lock(&d->pool_lock);
  d->live_shared -= (int64_t)s->bytes;
  header_free(d, s);
  pthread_mutex_unlock(&d->pool_lock);
  if (import->release) import->release(import->data, import->context);
  free(import);
}

void (*tern__ghost_free)(tern__storage *s);

void tern__storage_free(tern__storage *s) {
  tern__device *d = s->device;
  if (TERN__UNLIKELY(s->flags & TERN__STORAGE_GHOST)) {
    tern__ghost_free(s);
    return;
  }
  if (TERN__UNLIKELY(s->flags & TERN__STORAGE_IMPORTED)) {
    import_free(d, s);
    return;
  }
  tern__pool_cache *cache = tern__tls ? tern__tls->pool[d->index] : NULL;
  const uint32_t c = s->size_class;
  if (TERN__LIKELY(s->bytes <= TERN__SMALL_BYTES && cache)) {
    add_live(cache, -(int64_t)s->bytes);
    if (TERN__LIKELY(cache->count[c] < TERN__CACHE_BLOCKS)) {
      s->next = cache->free[c];
      cache->free[c] = s;
      cache->count[c]++;
      return;
    }
    pthread_mutex_lock(&d->pool_lock);
    central_free(d, s);
    while (cache->count[c] > TERN__CACHE_BLOCKS / 2) {
      tern__storage *more = cache->free[c];
      cache->free[c] = more->next;
      cache->count[c]--;
      central_free(d, more);
    }
    pthread_mutex_unlock(&d->pool_lock);
    return;
  }
  pthread_mutex_lock(&d->pool_lock);
  d->live_shared -= (int64_t)s->bytes;
  central_free(d, s);
  pthread_mutex_unlock(&d->pool_lock);
}

tern__storage *tern__storage_import(tern__device *d, void *data, uint64_t bytes, void (*release)(void *, void *),
                                    void *context) {
  struct tern__import *import = tern__calloc(1, sizeof *import);
  pthread_mutex_lock(&d->pool_lock);
  tern__storage *s = import ? header_new(d) : NULL;
  pthread_mutex_unlock(&d->pool_lock);
  if (!s) {
    free(import);
    tern__fail(TERN_E_OOM, "out of host memory for a storage's header");
    return NULL;
  }
  *import = (struct tern__import){.data = data, .context = context, .release = release};
  union {
    tern_mem_desc desc;
    char block[1024];
  } want;
  memset(&want, 0, sizeof want);
  want.desc = (tern_mem_desc){.struct_size = sizeof want.desc, .size = bytes, .align = 1, .host_ptr = data};
  tern__plugin_error_clear();
  tern_rc rc = d->api->mem_alloc(d->dev, &want.desc, &s->mem);
  pthread_mutex_lock(&d->pool_lock);
  if (rc) {
    header_free(d, s);
  } else {
    s->flags = TERN__STORAGE_IMPORTED;
    s->import = import;
    s->bytes = bytes;
    s->host = d->flags & TERN_DEV_HOST_MEM ? data : NULL;
    d->live_shared += (int64_t)bytes;
    note_peak(d);
  }
  pthread_mutex_unlock(&d->pool_lock);
  if (!rc) {
    atomic_store_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
  }
  free(import);
  tern__device_failed(d, rc, "importing host memory");
  return NULL;
}

void tern__pool_thread_end(tern__thread *t) {
  for (uint32_t i = 0; i < TERN__MAX_DEVICES; i++) {
    tern__pool_cache *cache = t->pool[i];
    if (!cache) continue;
    tern__device *d = tern__devices.devices[i];
    pthread_mutex_lock(&d->pool_lock);
    for (uint32_t c = 0; c < TERN__SMALL_CLASSES; c++)
      while (cache->free[c]) {
        tern__storage *s = cache->free[c];
        cache->free[c] = s->next;
        central_free(d, s);
      }
    d->live_shared += atomic_load_explicit(&cache->live, memory_order_relaxed);
    atomic_fetch_add_explicit(&d->stats.launches, atomic_load_explicit(&cache->launches, memory_order_relaxed),
                              memory_order_relaxed);
    tern__pool_cache **at = &d->caches;
    while (*at != cache) at = &(*at)->next;
    *at = cache->next;
    pthread_mutex_unlock(&d->pool_lock);
    free(cache);
    t->pool[i] = NULL;
  }
}

uint64_t tern__launches(tern__device *d) {
  pthread_mutex_lock(&d->pool_lock);
  uint64_t n = atomic_load_explicit(&d->stats.launches, memory_order_relaxed);
  for (tern__pool_cache *c = d->caches; c; c = c->next) n += atomic_load_explicit(&c->launches, memory_order_relaxed);
  pthread_mutex_unlock(&d->pool_lock);
  return n;
}

void tern__pool_trim(tern__device *d) {
  pthread_mutex_lock(&d->pool_lock);
  give_back(d);
  pthread_mutex_unlock(&d->pool_lock);
}

void tern_memory_trim(void) {
  for (int i = 0; i < tern__devices.n_devices; i++)
    if (atomic_load(&tern__devices.devices[i]->open)) tern__pool_trim(tern__devices.devices[i]);
}

tern_rc tern_memory_info(const char *name, tern_memory *out) {
  tern__device *d = name ? tern__device_named(name) : tern__device_default();
  if (!d) return tern__recorded();
  pthread_mutex_lock(&d->pool_lock);
  note_peak(d);
  const int64_t live = live_now(d);
  *out = (tern_memory){.live = live > 0 ? (uint64_t)live : 0, .peak = d->peak, .limit = d->limit};
  out->pooled = d->reserved > out->live ? d->reserved - out->live : 0;
  pthread_mutex_unlock(&d->pool_lock);
  return TERN_OK;
}

uint64_t tern__parse_bytes(const char *text) {
  char *end = NULL;
  const double value = strtod(text, &end);
  double scale = 1;
  if (*end == 'k' || *end == 'K')
    scale = 1024;
  else if (*end == 'm' || *end == 'M')
    scale = 1048576;
  else if (*end == 'g' || *end == 'G')
    scale = 1073741824;
  else if (*end)
    return 0;
  return value > 0 && value * scale < 9e18 ? (uint64_t)(value * scale) : 0;
}
