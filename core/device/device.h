/* Plugins, their drivers and devices, as the core sees them. Nothing here knows a backend by name. */
#ifndef TERN_DEVICE_DEVICE_H_
#define TERN_DEVICE_DEVICE_H_
#include "device/memory.h"
#include <pthread.h>
#include <tern/device.h>

typedef struct tern__plugin {
  char *path, *file; /* file: the part of its name between "libtern-" and ".so" */
  char *name, *version, *refused;
  char *none; /* why it has no devices, as it said */
  void *handle;
  const tern_backend *table; /* the plugin's own */
  tern_backend api;          /* a zero-extended copy */
  int score;
  bool outranked; /* refused only because another of its name is better */
  bool opened, running /* its driver */, started /* and all its devices are known */;
  tern_drv *driver;
  tern_host host;
  int n_devices;
  tern_option_info *options; /* what it declares, made when asked for */
  int n_options;
} tern__plugin;

/* Live statistics; relaxed. */
typedef struct tern__stats {
  _Atomic uint64_t launches, compiles, fallbacks, splits;
} tern__stats;

#define TERN__FAST_OPS 256
#define TERN__FAST_PATTERNS 8
struct tern__kernel_class;

typedef struct tern__device {
  /* hot */
  tern_rc (*launch)(tern_dev *, tern_queue *, const tern_kernel *, const tern_launch *);
  tern_dev *dev;
  tern_queue *queue;
  uint32_t index, flags;                      /* TERN_DEV_* */
  _Atomic(struct tern__kernel_class *) *fast; /* [op][dtype][pattern] */
  tern__stats stats;
  /* cold */
  tern__plugin *plugin;
  uint32_t plugin_index;
  const tern_backend *api;
  tern_device_info info;
  char name[80], alias[80];
  pthread_mutex_t lock; /* opening, and everything on the queue */
  atomic_bool open, lost;
  atomic_bool refused; /* its plugin could not use it: not chosen by kind, and info.features says why */
  struct tern__class_table *classes;
  pthread_mutex_t pool_lock;
  tern__storage *free[TERN__CLASSES];
  tern__storage *free_headers;
  tern__pool_cache *caches;       /* of all threads */
  uint64_t reserved, peak, limit; /* bytes, under pool_lock */
  int64_t live_shared;            /* large blocks and those of threads that ended */
  char *slab_host;
  tern_mem *slab;
  uint64_t slab_used, slab_bytes;
} tern__device;

/* The process's devices (all drivers that were started so far). */
typedef struct tern__registry {
  pthread_mutex_t lock;
  tern__plugin *plugins;
  int n_plugins;
  tern__device *devices[TERN__MAX_DEVICES];
  _Atomic int n_devices;
  _Atomic(tern__device *) default_device; /* NULL: not resolved yet */
  _Atomic(tern__device *) host_device;    /* where fallbacks run */
  bool scanned;
  bool starved; /* some plugin or device could not be taken in for want of host memory; tried again next time */
} tern__registry;
extern tern__registry tern__devices;

/* loader.c: find plugin files (once). Open those whose file name starts with `name` (NULL: all). Caller holds the
   lock. */
tern_rc tern__plugins_open(const char *name);
/* Start the driver (idempotent) and append its devices. Caller holds the lock. */
tern_rc tern__plugin_start(tern__plugin *p);
/* The message of the plugin's last error on this thread. */
const char *tern__plugin_error(void);
void tern__plugin_error_clear(void);

/* names.c: a device by name, opened and ready. NULL with an error that lists what there is. */
tern__device *tern__device_named(const char *name);
/* This thread's device: override, else the default. NULL with the error set. */
tern__device *tern__device_default(void);
static inline tern__device *tern__device_here(tern__thread *t) {
  tern__device *d = t->device ? t->device : atomic_load_explicit(&tern__devices.default_device, memory_order_acquire);
  return TERN__LIKELY(d != NULL) ? d : tern__device_default();
}
/* The device where refused primitives run and host data lives. NULL with the error set. */
tern__device *tern__device_host(void);
/* Open the device if it is not. */
tern_rc tern__device_open(tern__device *d);

/* queue.c. lock/unlock: around every call with the queue; nothing on devices without one. */
static inline void tern__queue_lock(tern__device *d) {
  if (d->queue) pthread_mutex_lock(&d->lock);
}
static inline void tern__queue_unlock(tern__device *d) {
  if (d->queue) pthread_mutex_unlock(&d->lock);
}
/* Wait for everything submitted to a device with a queue, whose lock the caller holds. Records nothing. */
tern_rc tern__queue_wait_held(tern__device *d);
/* Wait for what the ticket covers. Records the error with the device's name. */
tern_rc tern__queue_wait_ticket(tern__device *d, uint64_t ticket);
/* Wait for everything submitted. Records the error with the device's name. */
tern_rc tern__device_sync(tern__device *d);
/* Have the process wait for its devices when it exits. Called after a driver's libraries were loaded, so that it comes
   before their destructors. */
void tern__drain_at_exit(void);
/* A plugin's call failed: record it as `what` on the device; marks it lost where that is the reason. Returns rc. */
tern_rc tern__device_failed(tern__device *d, tern_rc rc, const char *what);

/* copy.c: raw bytes. Offsets from the storage's start. Downloads wait. */
tern_rc tern__upload(tern__storage *dst, uint64_t dst_offset, const void *src, uint64_t size);
tern_rc tern__download(void *dst, tern__storage *src, uint64_t src_offset, uint64_t size);
tern_rc tern__copy_bytes(tern__storage *dst, uint64_t dst_offset, tern__storage *src, uint64_t src_offset,
                         uint64_t size);

/* The same to host memory, without waiting: dst is filled when *ticket has passed. src: of a device with a queue. */
tern_rc tern__download_begin(void *dst, tern__storage *src, uint64_t src_offset, uint64_t size, uint64_t *ticket);

/* Count a launch: in the thread's own cache line, since every thread reads the device's. */
static inline void tern__count_launch(tern__thread *t, tern__device *d) {
  tern__pool_cache *cache = t->pool[d->index];
  if (TERN__LIKELY(cache != NULL))
    atomic_store_explicit(&cache->launches, atomic_load_explicit(&cache->launches, memory_order_relaxed) + 1,
                          memory_order_relaxed);
  else
    atomic_fetch_add_explicit(&d->stats.launches, 1, memory_order_relaxed);
}

static inline void tern__count_launches(tern__thread *t, tern__device *d, uint32_t n) {
  tern__pool_cache *cache = t->pool[d->index];
  if (TERN__LIKELY(cache != NULL))
    atomic_store_explicit(&cache->launches, atomic_load_explicit(&cache->launches, memory_order_relaxed) + n,
                          memory_order_relaxed);
  else
    atomic_fetch_add_explicit(&d->stats.launches, n, memory_order_relaxed);
}

/* A block of at least `bytes` (0 is allowed) with one reference. NULL with the error set. */
static inline tern__storage *tern__storage_new(tern__thread *t, tern__device *device, uint64_t bytes) {
  tern__pool_cache *cache = t->pool[device->index];
  if (TERN__LIKELY(cache && bytes <= TERN__SMALL_BYTES)) {
    const uint32_t c = tern__size_class(bytes);
    tern__storage *s = cache->free[c];
    if (TERN__LIKELY(s != NULL)) {
      cache->free[c] = s->next;
      cache->count[c]--;
      atomic_store_explicit(&cache->live, atomic_load_explicit(&cache->live, memory_order_relaxed) + (int64_t)s->bytes,
                            memory_order_relaxed);
      atomic_store_explicit(&s->refs, 1, memory_order_relaxed);
      return s;
    }
  }
  return tern__storage_slow(t, device, bytes);
}
#endif
