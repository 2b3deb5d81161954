/* Whether a launch gives the same bits on one thread as on all (replay.h). All kernels of our own cut their work by its
   size alone; the libraries' products may not, so those are run both ways, over memory made for it and filled with
   random numbers, and the results compared. */
#include "replay.h"
#include <stdlib.h>
#include <string.h>

enum { MOST_BYTES = 64 << 20 /* of one launch */, MOST_ARGS = 64 };

typedef struct probe {
  const replay_node *node;
  const cpu_touch *touch;
  size_t at[MOST_ARGS + 1]; /* of each argument and the workspace, in the block */
  size_t bytes;
  tern_arg arg[MOST_ARGS];
} probe;

/* Where each argument goes; those that are the same memory stay so. False: too large, or they overlap in part */
static bool lay_out(probe *q) {
  const replay_node *const n = q->node;
  for (uint32_t i = 0; i < n->n_spans; i++) {
    const touch_span *const s = &n->span[i];
    bool shared = false;
    for (uint32_t k = 0; k < i && !shared; k++) {
      if (!touch_conflict(&n->span[k], s)) continue;
      if (n->span[k].lo != s->lo || n->span[k].hi != s->hi) return false;
      q->at[i] = q->at[k];
      shared = true;
    }
    if (shared) continue;
    if (s->hi - s->lo > MOST_BYTES) return false;
    q->at[i] = q->bytes;
    q->bytes += (s->hi - s->lo + 127) & ~(size_t)63;
    if (q->bytes > MOST_BYTES) return false;
  }
  return true;
}

/* Numbers in [-1/4, 1/4), so that sums of many products are of size 1 */
static void fill_floats(char *to, size_t n, uint32_t dtype) {
  uint64_t state = 0x9E3779B97F4A7C15u;
  const size_t item = cpu_item_size(dtype);
  for (size_t i = 0; i < n; i++) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const double x = ((double)(state >> 11) * 0x1p-53 - 0.5) / 2;
    cpu_word_store(to + i * item, dtype, (tern_word){.f = x});
  }
}

/* Each time the same: floats are random, what else is read is as it is */
static void fill(const probe *q, char *block) {
  const replay_node *const n = q->node;
  memset(block, 0, q->bytes);
  for (uint32_t i = 0; i + 1 < n->n_spans; i++) {
    const touch_span *const s = &n->span[i];
    uint32_t dtype = TERN_F32;
    for (uint32_t v = 0; v < q->touch->n_views; v++)
      if (q->touch->view[v].slot == i) dtype = q->touch->view[v].dtype;
    if (dtype >= TERN_F16 && dtype <= TERN_F64)
      fill_floats(block + q->at[i], (s->hi - s->lo) / cpu_item_size(dtype), dtype);
    else if (!s->written)
      memcpy(block + q->at[i], (const char *)s->lo, s->hi - s->lo);
  }
}

static bool run(probe *q, char *block, bool pool) {
  const replay_node *const n = q->node;
  cpu_caught caught;
  tern_launch l = n->launch;
  for (uint32_t i = 0; i < l.n_args; i++) { /* an argument may point into its memory's middle */
    const uintptr_t p = (uintptr_t)l.args[i].mem + l.args[i].offset;
    q->arg[i] = (tern_arg){(tern_mem *)(void *)block, q->at[i] + (size_t)(p - n->span[i].lo)};
  }
  l.args = q->arg;
  if (l.workspace.mem) l.workspace = (tern_arg){(tern_mem *)(void *)block, q->at[l.n_args]};
  const bool token = !pool && cpu_pool_try(); /* nobody else has it then, nor the kernel */
  if (!pool && !token) return false;
  fill(q, block);
  const unsigned refused = cpu_pool_refused();
  cpu_error_into(&caught);
  const tern_rc rc = n->kernel->run(n->kernel, &l);
  cpu_error_into(NULL);
  if (token) cpu_pool_done();
  return rc == TERN_OK && (!pool || cpu_pool_refused() == refused); /* else somebody else had all threads */
}

static bool same(const probe *q, const char *a, const char *b) {
  for (uint32_t i = 0; i + 1 < q->node->n_spans; i++) {
    const touch_span *const s = &q->node->span[i];
    if (s->written && memcmp(a + q->at[i], b + q->at[i], s->hi - s->lo) != 0) return false;
  }
  return true;
}

bool replay_steady(const replay_node *n) {
  const cpu_touch *const t = n->kernel->touch;
  if (t->sums_by_thread) return false;
  if (!t->library) return true;
  if (n->launch.n_args > MOST_ARGS) return false;
  probe q = {.node = n, .touch = t};
  if (!lay_out(&q)) return false;
  const size_t bytes = (q.bytes + 63) & ~(size_t)63;
  char *const block = aligned_alloc(64, 2 * bytes + 64);
  if (!block) return false;
  const bool steady = run(&q, block, true) && run(&q, block + bytes, false) && same(&q, block, block + bytes);
  free(block);
  return steady;
}
