/* Quick plans: buffers are placed one after the other in some order, each into the smallest gap that holds it (or the
   lowest one) between those placed before. Which are those is read from lists sorted by offset: one of all, and one
   for each of some equal parts of the time, for buffers that live in one part only. When the deadline passes before
   there is any plan, the rest is put on top of everything, by a segment tree over the sections. */
#include "graph/passes/plan_parts.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

enum { MAX_LISTS = 64, BUFFERS_A_LIST = 64, CHECK_CLOCK = 64, ORDERS = 10 };

typedef struct placed {
  uint64_t offset, top;
  uint32_t first, last;
} placed;

typedef struct list {
  placed *items;
  uint32_t count, room;
} list;

typedef struct ranked {
  double rank; /* highest first */
  uint32_t buffer;
} ranked;

typedef struct greedy {
  tern__part *part;
  ranked *queue;
  uint64_t *offset;       /* of the plan being made */
  uint64_t *load;         /* [sections]: sizes of all that live there */
  uint32_t n_lists, span; /* time is cut into lists of `span` sections */
  list all, lists[MAX_LISTS];
} greedy;

static void greedy_end(greedy *g) {
  free(g->queue);
  free(g->offset);
  free(g->load);
  free(g->all.items);
  for (uint32_t i = 0; i < MAX_LISTS; i++) free(g->lists[i].items);
}

/* To be ended after a failure as well. */
static tern_rc greedy_begin(greedy *g, tern__part *part) {
  *g = (greedy){.part = part};
  g->queue = tern__calloc(part->count, sizeof *g->queue);
  g->offset = tern__calloc(part->count, sizeof *g->offset);
  g->load = tern__calloc(part->sections + 1, sizeof *g->load);
  if (!g->queue || !g->offset || !g->load) return TERN_E_OOM;
  uint32_t lists = part->count / BUFFERS_A_LIST;
  lists = lists < 1 ? 1 : lists > MAX_LISTS ? MAX_LISTS : lists;
  g->span = (part->sections + lists - 1) / lists;
  g->n_lists = (part->sections + g->span - 1) / g->span;
  for (uint32_t v = 0; v < part->count; v++) { /* differences; unsigned arithmetic wraps back */
    g->load[part->first[v]] += part->size[v];
    g->load[part->last[v]] -= part->size[v];
  }
  for (uint32_t t = 1; t < part->sections; t++) g->load[t] += g->load[t - 1];
  return TERN_OK;
}

/* ---- placing ---- */

static tern_rc insert(list *l, const placed *item) {
  if (l->count == l->room) {
    const uint32_t room = l->room * 2 + 32;
    placed *more = tern__realloc(l->items, room * sizeof *more);
    if (!more) return TERN_E_OOM;
    l->items = more;
    l->room = room;
  }
  uint32_t low = 0, high = l->count;
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    if (l->items[middle].offset < item->offset)
      low = middle + 1;
    else
      high = middle;
  }
  memmove(l->items + low + 1, l->items + low, (l->count - low) * sizeof *item);
  l->items[low] = *item;
  l->count++;
  return TERN_OK;
}

/* The lowest gap, or the smallest, that holds v; on top of all where there is none. */
static uint64_t find_gap(const list *l, const tern__part *p, uint32_t v, bool lowest) {
  const uint32_t first = p->first[v], last = p->last[v];
  const uint64_t size = p->size[v], align = p->align[v];
  uint64_t level = 0, best = 0, least = UINT64_MAX;
  for (uint32_t i = 0; i < l->count; i++) {
    const placed *w = &l->items[i];
    if (w->first >= last || w->last <= first) continue;
    if (w->offset > level && w->offset - level >= size && w->offset - level < least) {
      const uint64_t start = tern__plan_up(level, align);
      if (start < w->offset && w->offset - start >= size) {
        if (lowest) return start;
        best = start;
        least = w->offset - level;
      }
    }
    if (w->top > level) level = w->top;
  }
  return least != UINT64_MAX ? best : tern__plan_up(level, align);
}

static tern_rc put(greedy *g, uint32_t v, bool lowest) {
  const tern__part *p = g->part;
  const uint32_t from = p->first[v] / g->span, to = (p->last[v] - 1) / g->span;
  const list *where = from == to && g->n_lists > 1 ? &g->lists[from] : &g->all;
  const uint64_t offset = g->offset[v] = find_gap(where, p, v, lowest);
  const placed item = {offset, offset + p->size[v], p->first[v], p->last[v]};
  tern_rc rc = insert(&g->all, &item);
  for (uint32_t i = from; i <= to && !rc && g->n_lists > 1; i++) rc = insert(&g->lists[i], &item);
  return rc;
}

/* ---- on top of everything ---- */

/* A segment tree over the sections. A node's cover is the height of what spans all of it, high the highest in it. */
typedef struct skyline {
  uint64_t *high, *cover; /* [2 * leaves] */
  uint32_t leaves;        /* a power of two */
} skyline;

static void skyline_node(const skyline *k, uint32_t node, uint64_t height) {
  if (k->cover[node] < height) k->cover[node] = height;
  if (k->high[node] < height) k->high[node] = height;
}

static void skyline_lift(const skyline *k, uint32_t first, uint32_t last, uint64_t height) {
  const uint32_t a = first + k->leaves, b = last - 1 + k->leaves;
  for (uint32_t l = a, r = b + 1; l < r; l /= 2, r /= 2) {
    if (l & 1) skyline_node(k, l++, height);
    if (r & 1) skyline_node(k, --r, height);
  }
  for (uint32_t i = a; i; i /= 2)
    if (k->high[i] < height) k->high[i] = height;
  for (uint32_t i = b; i; i /= 2)
    if (k->high[i] < height) k->high[i] = height;
}

static uint64_t skyline_height(const skyline *k, uint32_t first, uint32_t last) {
  uint64_t height = 0;
  const uint32_t a = first + k->leaves, b = last - 1 + k->leaves;
  for (uint32_t l = a, r = b + 1; l < r; l /= 2, r /= 2) {
    if (l & 1 && k->high[l] > height) height = k->high[l];
    l += l & 1;
    if (r & 1 && k->high[--r] > height) height = k->high[r];
  }
  for (uint32_t i = a; i; i /= 2)
    if (k->cover[i] > height) height = k->cover[i];
  for (uint32_t i = b; i; i /= 2)
    if (k->cover[i] > height) height = k->cover[i];
  return height;
}

/* Puts g->queue[from ..] over those before it. */
static tern_rc put_on_top(greedy *g, uint32_t from) {
  const tern__part *p = g->part;
  skyline k = {.leaves = 1};
  while (k.leaves < p->sections) k.leaves *= 2;
  k.high = tern__calloc((size_t)k.leaves * 4, sizeof *k.high);
  if (!k.high) return TERN_E_OOM;
  k.cover = k.high + (size_t)k.leaves * 2;
  for (uint32_t i = 0; i < p->count; i++) {
    const uint32_t v = g->queue[i].buffer;
    if (i >= from) g->offset[v] = tern__plan_up(skyline_height(&k, p->first[v], p->last[v]), p->align[v]);
    skyline_lift(&k, p->first[v], p->last[v], g->offset[v] + p->size[v]);
  }
  free(k.high);
  return TERN_OK;
}

/* ---- orders ---- */

static int by_rank(const void *a, const void *b) {
  const ranked *x = a, *y = b;
  if (x->rank != y->rank) return x->rank < y->rank ? 1 : -1;
  return (x->buffer > y->buffer) - (x->buffer < y->buffer);
}

static void keep_best(greedy *g) {
  tern__part *p = g->part;
  const uint64_t height = tern__part_height(p, g->offset);
  if (height >= p->height) return;
  p->height = height;
  memcpy(p->offset, g->offset, p->count * sizeof *p->offset);
}

/* One plan in the queue's order. TERN_E_TIMEOUT: none was made; not where there is no plan yet. */
static tern_rc make_plan(greedy *g, bool lowest, double deadline) {
  const tern__part *p = g->part;
  g->all.count = 0;
  for (uint32_t i = 0; i < g->n_lists; i++) g->lists[i].count = 0;
  for (uint32_t i = 0; i < p->count; i++) {
    if (i % CHECK_CLOCK == 0 && (i || p->height != UINT64_MAX) && tern__plan_now() >= deadline) {
      if (p->height != UINT64_MAX) return TERN_E_TIMEOUT;
      const tern_rc rc = put_on_top(g, i);
      if (!rc) keep_best(g);
      return rc;
    }
    const tern_rc rc = put(g, g->queue[i].buffer, lowest);
    if (rc) return rc;
  }
  keep_best(g);
  return TERN_OK;
}

/* The largest load of a buffer's sections; of some of them where they are many. */
static uint64_t busiest(const greedy *g, uint32_t v) {
  const tern__part *p = g->part;
  const uint32_t step = (p->last[v] - p->first[v]) / 256 + 1; /* enough to tell buffers apart */
  uint64_t most = 0;
  for (uint32_t t = p->first[v]; t < p->last[v]; t += step)
    if (g->load[t] > most) most = g->load[t];
  return most;
}

static void set_order(greedy *g, int order) {
  const tern__part *p = g->part;
  for (uint32_t v = 0; v < p->count; v++) {
    const double size = (double)p->size[v], width = p->last[v] - p->first[v];
    double rank = size;
    if (order == 1) rank = size * width;
    if (order == 2) rank = width + size / ((double)p->total + 1);
    if (order == 3) rank = -(double)p->first[v] + size / ((double)p->total + 1);
    if (order == 4) rank = (double)busiest(g, v) * 16 + size;
    g->queue[v] = (ranked){rank, v};
  }
  qsort(g->queue, p->count, sizeof *g->queue, by_rank);
}

tern_rc tern__plan_greedy(tern__part *part, uint64_t goal, double deadline) {
  greedy g;
  tern_rc rc = greedy_begin(&g, part);
  part->height = UINT64_MAX;
  for (int i = 0; i < ORDERS && !rc && part->height > goal; i++) {
    if (i % 2 == 0) set_order(&g, i / 2);
    rc = make_plan(&g, i % 2 != 0, deadline);
  }
  greedy_end(&g);
  return rc == TERN_E_TIMEOUT ? TERN_OK : rc;
}

/* Moves every buffer whose top is above `limit` towards the front, some more than others. */
static void promote(greedy *g, uint64_t limit, uint64_t *seed) {
  const tern__part *p = g->part;
  for (uint32_t i = 0; i < p->count; i++) {
    ranked *r = &g->queue[i];
    const uint32_t v = r->buffer;
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    r->rank = (double)(p->count - i);
    if (g->offset[v] + p->size[v] > limit)
      r->rank = (double)p->count * (1 + 1e-9 * (double)(*seed >> 40)) + r->rank * 1e-3;
  }
  qsort(g->queue, p->count, sizeof *g->queue, by_rank);
}

tern_rc tern__plan_repair(tern__part *part, uint64_t goal, uint32_t rounds, double deadline) {
  enum { PATIENCE = 12, STARTS = ORDERS / 2 };
  greedy g;
  tern_rc rc = greedy_begin(&g, part);
  uint64_t seed = 1;
  for (uint32_t i = 0; i < rounds && !rc && part->height > goal; i++) {
    const uint32_t turn = i % PATIENCE, start = i / PATIENCE;
    if (!turn) set_order(&g, (int)(start % STARTS));
    if (turn) promote(&g, goal, &seed);
    rc = make_plan(&g, start / STARTS % 2 != 0, deadline);
  }
  greedy_end(&g);
  return rc == TERN_E_TIMEOUT ? TERN_OK : rc;
}
