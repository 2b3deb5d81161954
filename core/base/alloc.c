/* malloc with a fuse. The hot path recycles and does not come here. */
#include "base/alloc.h"
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static struct { atomic_long fail_at, count; } fuse;

static int blown(void) {
  const long now = atomic_fetch_add_explicit(&fuse.count, 1, memory_order_relaxed) + 1;
  return now == atomic_load_explicit(&fuse.fail_at, memory_order_relaxed);
}

void *tern__calloc(size_t count, size_t size) { return blown() ? NULL : calloc(count, size); }

void *tern__calloc64(size_t size) {
  if (blown() || size > SIZE_MAX - 63) return NULL;
  size = (size + 63) & ~(size_t)63;
  void *memory = aligned_alloc(64, size);
  if (memory) memset(memory, 0, size);
  return memory;
}

void *tern__realloc(void *old, size_t size) { return blown() ? NULL : realloc(old, size); }

char *tern__strdup(const char *text) { return blown() ? NULL : strdup(text); }

void tern__alloc_fail_at(long n) {
  atomic_store(&fuse.count, 0);
  atomic_store(&fuse.fail_at, n);
}

long tern__alloc_count(void) { return atomic_load(&fuse.count); }
