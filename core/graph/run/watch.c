/* See watch.h. A step that the device was given in another form (for these sizes only, arguments packed) is remembered
   under the region that it stands for. */
#include "graph/run/watch.h"
#include "base/alloc.h"
#include "base/options.h"
#include "device/device.h"
#include "graph/passes/cost.h"
#include "graph/passes/emit.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_RUN = 1, LAST_RUN = 4 };

typedef struct watched {
  tern__region *region; /* NULL: not timed */
  tern_word *words;
  tern__device *device;
} watched;

struct tern__watch {
  atomic_uint runs; /* begun so far */
  uint32_t n;
  watched step[];
};

/* ---- regions ---- */

static tern_rc of_op(tern__unit *u, uint32_t op, tern__region **region, const tern_word **words) {
  tern_word *w = tern__unit_alloc(u, TERN__MAX_WORDS, sizeof *w);
  if (!w) return TERN_E_OOM;
  tern__request q = *u->op[op].q;
  tern__canonicalise(&q);
  tern__words(&q, w);
  *words = w;
  *region = tern__lower(&q);
  return *region ? TERN_OK : tern__recorded();
}

tern_rc tern__unit_region(tern__unit *u, uint32_t group, tern__region **region, const tern_word **words) {
  const tern__lgroup *g = &u->group[group];
  *region = NULL;
  if (g->n_ops == 1 && g->sibling == TERN__NO) return of_op(u, g->op[0], region, words);
  tern__emitter *e = NULL;
  const tern_rc rc = tern__emit_gather(u, group, &e);
  if (rc || !e) return rc ? rc : TERN_E_UNSUPPORTED;
  *region = tern__emit_region(e, false, NULL);
  *words = e->word;
  return *region ? TERN_OK : tern__recorded();
}

/* ---- watching ---- */

static void save_at_exit(void) { atexit(tern__cost_save); }

/* A device that tells costs itself (a simulated one above all) is believed. */
static bool to_time(const tern__lstep *s) { return s->kind <= TERN__L_OPAQUE && !s->slow && !s->device->api->cost; }

static bool take(tern__unit *u, const tern__lstep *s, watched *to) {
  const tern__lgroup *g = &u->group[s->group];
  const tern_word *words;
  tern__region *region = NULL;
  const bool whole =
      s->op == g->op[0] && (s->n_nodes > u->op[s->op].prims || (g->n_ops == 1 && g->sibling == TERN__NO));
  const tern_rc rc = whole ? tern__unit_region(u, s->group, &region, &words) : of_op(u, s->op, &region, &words);
  if (rc) return false;
  to->words = tern__calloc(region->r.n_words + 1u, sizeof *to->words);
  if (!to->words) {
    free(region);
    return false;
  }
  memcpy(to->words, words, region->r.n_words * sizeof *words);
  to->region = region;
  to->device = s->device;
  return true;
}

tern__watch *tern__watch_new(tern__unit *u) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  uint32_t n = 0;
  if (strcmp(tern__opt()->placement, "auto")) return NULL;
  for (uint32_t i = 0; i < u->n_steps; i++) n += to_time(&u->step[i]);
  tern__watch *w = n ? tern__calloc(1, sizeof *w + u->n_steps * sizeof *w->step) : NULL;
  if (!w) return NULL;
  w->n = u->n_steps;
  for (uint32_t i = 0; i < u->n_steps; i++)
    if (to_time(&u->step[i]) && !take(u, &u->step[i], &w->step[i])) tern_error_clear();
  pthread_once(&once, save_at_exit);
  return w;
}

void tern__watch_free(tern__watch *w) {
  if (!w) return;
  for (uint32_t i = 0; i < w->n; i++) {
    free(w->step[i].region);
    free(w->step[i].words);
  }
  if (atomic_load(&w->runs) > FIRST_RUN) tern__cost_save();
  free(w);
}

bool tern__watch_takes(tern__watch *w) {
  if (atomic_load_explicit(&w->runs, memory_order_relaxed) >= LAST_RUN) return false;
  const unsigned run = atomic_fetch_add_explicit(&w->runs, 1, memory_order_relaxed);
  return run >= FIRST_RUN && run < LAST_RUN;
}

bool tern__watch_wants(const tern__watch *w, uint32_t i) { return i < w->n && w->step[i].region; }

void tern__watch_tell(tern__watch *w, uint32_t i, uint64_t ns) {
  const watched *s = &w->step[i];
  tern__cost_measured(s->device, &s->region->r, s->words, ns);
}
