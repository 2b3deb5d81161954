/* Probes: ordinary ops on the device, hidden from the thread's tapes and traces. */
#include "graph/passes/cost_probe.h"
#include "base/alloc.h"
#include <stdlib.h>
#include <string.h>
#include <tern/tern.h>
#include <time.h>

enum { TRIES = 8, LAUNCHES = 16, SIDE = 256, MANY = 262144, SENT = 1048576 };

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

typedef struct probe {
  tern__device *device;
  tern_tensor *a, *b;
  bool product;
} probe;

/* ns of one of n launches that are waited for together, the least of the tries; UINT64_MAX: failed */
static uint64_t launches(const probe *p, int n) {
  uint64_t least = UINT64_MAX;
  for (int try = 0; try <= TRIES; try++) { /* the first compiles */
    TERN_SCOPE;
    const uint64_t start = now();
    for (int i = 0; i < n; i++)
      if (!(p->product ? tern_matmul(p->a, p->b) : tern_add(p->a, p->b))) return UINT64_MAX;
    if (tern__device_sync(p->device)) return UINT64_MAX;
    const uint64_t ns = (now() - start) / (uint64_t)n;
    if (try && ns < least) least = ns;
  }
  return least;
}

static uint64_t of_size(tern__device *d, tern_shape shape, bool product, int n) {
  TERN_SCOPE;
  const probe p = {d, tern_full(shape, TERN_F32, 1), tern_full(shape, TERN_F32, 2), product};
  return p.a && p.b ? launches(&p, n) : UINT64_MAX;
}

static uint64_t upload(tern__device *d, uint64_t bytes) {
  uint64_t least = UINT64_MAX;
  void *host = tern__calloc(1, bytes);
  tern__storage *to = host ? tern__storage_new(tern__thread_get(), d, bytes) : NULL;
  for (int try = 0; to && try <= TRIES; try++) {
    const uint64_t start = now();
    if (tern__upload(to, 0, host, bytes) || tern__device_sync(d)) break;
    if (try && now() - start < least) least = now() - start;
  }
  if (to) tern__storage_unref(to);
  free(host);
  return least;
}

static bool measure(tern__device *d, uint64_t ns[TERN__PROBES]) {
  if (tern_op_support("add", d->name, TERN_F32) != 1) return false;
  ns[TERN__PROBE_EMPTY] = of_size(d, TERN_SHAPE(1), false, LAUNCHES);
  ns[TERN__PROBE_MOVE] = of_size(d, TERN_SHAPE(MANY), false, 4);
  ns[TERN__PROBE_DOT] = 0;
  if (tern_op_support("matmul", d->name, TERN_F32) == 1)
    ns[TERN__PROBE_DOT] = of_size(d, TERN_SHAPE(SIDE, SIDE), true, 2);
  ns[TERN__PROBE_TOUCH] = upload(d, 4);
  ns[TERN__PROBE_SEND] = upload(d, SENT);
  for (int i = 0; i < TERN__PROBES; i++)
    if (ns[i] == UINT64_MAX) return false;
  return true;
}

bool tern__probe(tern__device *d, uint64_t ns[TERN__PROBES]) {
  tern__thread *t = tern__thread_get();
  if (!t) return false;
  const uint32_t hooks = t->hooks;
  tern__device *const device = t->device;
  const uint8_t error_state = t->error_state;
  const tern_rc error_code = t->error_code;
  char error_text[sizeof t->error_text];
  memcpy(error_text, t->error_text, sizeof error_text);
  t->hooks = 0;
  t->device = d;
  const bool ok = measure(d, ns);
  t->hooks = hooks;
  t->device = device;
  t->error_state = error_state;
  t->error_code = error_code;
  memcpy(t->error_text, error_text, sizeof error_text);
  return ok;
}
