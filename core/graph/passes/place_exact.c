/* Branch and bound: positions in turn, the devices of each by how soon the whole could end, cut where that is no better
   than the best known. Exact, since no later node moves an earlier one. */
#include "base/alloc.h"
#include "graph/passes/place_internal.h"
#include <stdlib.h>
#include <string.h>

typedef struct exact {
  place_search *q;
  place_timeline *saved; /* [depth]: timelines before a position was put */
  uint64_t left;         /* positions that may still be put */
  bool complete;
} exact;

static void take_back(place *s, uint32_t v, uint32_t d, uint32_t i) {
  const size_t x = (size_t)v * s->n_devices + d;
  if (s->stamp[x] == s->run && s->writer[x] == i) s->stamp[x] = s->run - 1;
}

static void leaf(exact *e) {
  place *s = e->q->s;
  const uint64_t end = place__end(s);
  if (end < e->q->best_cost.makespan) {
    e->q->best_cost = (place_cost){end, s->load};
    memcpy(e->q->best, s->at, s->n);
  }
  for (uint32_t o = 0; o < s->n_outs; o++) take_back(s, s->outs[o], (uint32_t)s->out[s->outs[o]], s->n);
}

static void descend(exact *e, uint32_t i);

/* Position i on device d: a bound of the whole. Deeper positions follow when `deep`. All is undone. */
static uint64_t place_on(exact *e, uint32_t i, uint32_t d, bool deep) {
  place *s = e->q->s;
  const size_t lines = 2 * s->n_devices;
  const uint64_t top = s->top, load = s->load;
  place_timeline *saved = e->saved + i * lines;
  memcpy(saved, s->line, lines * sizeof *saved);
  s->at[i] = (uint8_t)d;
  uint64_t bound = place__put(s, i) + s->tail[(size_t)i * s->n_devices + d];
  if (bound < s->top) bound = s->top;
  s->work++;
  if (deep && bound < e->q->best_cost.makespan) descend(e, i + 1);
  memcpy(s->line, saved, lines * sizeof *saved);
  for (uint32_t k = s->in_first[i]; k < s->in_first[i + 1]; k++) take_back(s, s->in[k], d, i);
  s->top = top;
  s->load = load;
  return bound;
}

static void descend(exact *e, uint32_t i) {
  place *s = e->q->s;
  if (i == s->n) {
    leaf(e);
    return;
  }
  uint64_t bound[TERN__PLACE_MAX_DEVICES], mask = s->mask[s->unit[i]];
  const uint32_t first = s->member[s->member_first[s->unit[i]]];
  if (first != i) mask = UINT64_C(1) << s->at[first];
  for (uint32_t d = 0; d < s->n_devices; d++)
    if (mask >> d & 1) bound[d] = mask & (mask - 1) ? place_on(e, i, d, false) : 0;
  while (mask) {
    uint32_t best = TERN__PLACE_MAX_DEVICES;
    for (uint32_t d = 0; d < s->n_devices; d++)
      if (mask >> d & 1 && (best == TERN__PLACE_MAX_DEVICES || bound[d] < bound[best])) best = d;
    mask &= ~(UINT64_C(1) << best);
    if (bound[best] >= e->q->best_cost.makespan) return;
    if (!e->left) {
      e->complete = false;
      return;
    }
    e->left--;
    place_on(e, i, best, true);
  }
}

bool place__exact(place_search *q, uint64_t nodes) {
  place *s = q->s;
  exact e = {.q = q, .left = nodes, .complete = true};
  e.saved = tern__calloc((size_t)(s->n + 1) * 2 * s->n_devices, sizeof *e.saved);
  if (!e.saved) return false; /* the best so far stands */
  place__begin(s);
  descend(&e, 0);
  free(e.saved);
  return e.complete;
}
