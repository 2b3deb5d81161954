/* Device memory: storages (reference-counted blocks), pooled by device and size class. Small blocks come from
   per-thread free lists, which spill to the device's central list; a storage keeps its memory while it waits there. */
#ifndef TERN_DEVICE_MEMORY_H_
#define TERN_DEVICE_MEMORY_H_
#include "base/thread.h"
#include <stdatomic.h>

#define TERN__SMALL_BYTES 65536 /* up to this, blocks are carved from slabs and kept per thread */
#define TERN__SMALL_CLASSES 37
#define TERN__CLASSES 400
#define TERN__CACHE_BLOCKS 32 /* blocks of one class that a thread keeps */

enum {
  TERN__STORAGE_IMPORTED = 1,
  TERN__STORAGE_GHOST = 2 /* of symbolic tensors: no memory; see core/graph/trace.c */
};

/* One cache line. */
typedef struct tern__storage {
  _Atomic uint32_t refs;
  uint16_t size_class, flags;
  struct tern__device *device;
  tern_mem *mem;
  uint64_t mem_offset; /* bytes into mem */
  char *host;          /* address on host-memory devices, else NULL */
  uint64_t bytes;      /* usable */
  struct tern__storage *next;
  struct tern__import *import; /* IMPORTED: whose memory it is */
} tern__storage;

typedef struct tern__pool_cache {
  tern__storage *free[TERN__SMALL_CLASSES];
  uint32_t count[TERN__SMALL_CLASSES];
  _Atomic int64_t live;          /* bytes taken minus given back by this thread; only it writes */
  _Atomic uint64_t launches;     /* by this thread; only it writes */
  struct tern__pool_cache *next; /* the device's list, under its pool_lock */
} tern__pool_cache;

/* The smallest class that holds `bytes`, and how much a class holds. */
static inline uint32_t tern__size_class(uint64_t bytes) {
  if (bytes <= 256) return bytes ? (uint32_t)((bytes - 1) >> 6) : 0;
  const uint32_t shift = 61 - (uint32_t)__builtin_clzll(bytes - 1); /* four steps a doubling */
  return (shift - 6) * 4 + (uint32_t)((bytes - 1) >> shift);
}
static inline uint64_t tern__class_bytes(uint32_t c) {
  return c < 4 ? (uint64_t)(c + 1) << 6 : (uint64_t)(c % 4 + 5) << (c / 4 + 5);
}

/* The slow half of tern__storage_new (device.h). */
tern__storage *tern__storage_slow(tern__thread *t, struct tern__device *device, uint64_t bytes);
void tern__storage_free(tern__storage *s);
extern void (*tern__ghost_free)(tern__storage *s); /* set by whoever makes ghosts */

static inline void tern__storage_ref(tern__storage *s) { tern__refs_up(&s->refs); }
static inline void tern__storage_unref(tern__storage *s) {
  if (tern__refs_down(&s->refs)) tern__storage_free(s);
}

/* A storage over host memory. The device must have IMPORT_HOST. release may be NULL. */
tern__storage *tern__storage_import(struct tern__device *device, void *data, uint64_t bytes,
                                    void (*release)(void *, void *), void *context);
/* Spill and free a thread's caches. */
void tern__pool_thread_end(tern__thread *t);
/* Launches on the device so far, of all threads. */
uint64_t tern__launches(struct tern__device *device);
/* Free what the device's pool keeps (large blocks only: slabs stay). Waits for the device. */
void tern__pool_trim(struct tern__device *device);
uint64_t tern__parse_bytes(const char *text); /* "512M"; 0 when it cannot be read */
#endif
