/* Local search over a base schedule: connected regions of one device, from whole components down to single units along
   the critical chain, are tried on the other devices; then pairs. Every step that is kept shortens the schedule, or
   keeps its length and lightens the devices. */
#include "graph/passes/place_internal.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BOTH, DOWN, UP, ALL_PAIRS = 32 };

bool place__out_of_time(const place_search *q) {
  if (q->s->work >= q->limit) return true;
  struct timespec now;
  if (q->deadline <= 0) return false;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec >= q->deadline;
}

static uint32_t device_of(const place *s, uint32_t u) { return s->at[s->member[s->member_first[u]]]; }

static void give(place *s, uint32_t u, uint32_t d) {
  for (uint32_t k = s->member_first[u]; k < s->member_first[u + 1]; k++) s->at[s->member[k]] = (uint8_t)d;
}

static uint32_t first_of(const place *s, uint32_t u) { return s->member[s->member_first[u]]; }

/* The schedule with s->at as it is now, changed from position `from` on: kept as the base when it is better. */
static bool keep_if_better(place_search *q, uint32_t from) {
  place *s = q->s;
  const uint64_t makespan = place__trial(s, from, s->base.makespan);
  if (makespan == PLACE_OVER || !place__better((place_cost){makespan, s->load}, s->base)) return false;
  place__rebase(s, from);
  return true;
}

/* The n units of the list to device d. */
static bool try_move(place_search *q, const uint32_t *list, uint32_t n, uint32_t d) {
  place *s = q->s;
  uint32_t from = UINT32_MAX;
  const uint32_t old = device_of(s, list[0]);
  for (uint32_t k = 0; k < n; k++) {
    const uint32_t p = first_of(s, list[k]);
    from = p < from ? p : from;
    give(s, list[k], d);
  }
  if (keep_if_better(q, from)) return true;
  for (uint32_t k = 0; k < n; k++) give(s, list[k], old);
  return false;
}

static bool try_pair(place_search *q, uint32_t a, uint32_t to_a, uint32_t b, uint32_t to_b) {
  place *s = q->s;
  const uint32_t old_a = device_of(s, a), old_b = device_of(s, b);
  if (!(s->mask[a] >> to_a & 1) || !(s->mask[b] >> to_b & 1)) return false;
  give(s, a, to_a);
  give(s, b, to_b);
  if (keep_if_better(q, first_of(s, a) < first_of(s, b) ? first_of(s, a) : first_of(s, b))) return true;
  give(s, a, old_a);
  give(s, b, old_b);
  return false;
}

static void visit(place_search *q, uint32_t u, uint32_t d, uint32_t from, uint32_t *n) {
  if (q->mark[u] == q->marks || device_of(q->s, u) != from || !(q->s->mask[u] >> d & 1)) return;
  q->mark[u] = q->marks;
  q->queue[(*n)++] = u;
}

/* Into q->queue: up to `most` units around (BOTH), below or above u, all on its device, that could go to d. */
static uint32_t grow(place_search *q, uint32_t u, uint32_t d, uint32_t most, int way) {
  const place *s = q->s;
  const uint32_t from = device_of(s, u);
  uint32_t n = 0;
  q->marks++;
  visit(q, u, d, from, &n);
  for (uint32_t k = 0; k < n && n < most; k++) {
    const uint32_t x = q->queue[k];
    for (uint32_t e = s->next_first[x]; way != UP && e < s->next_first[x + 1] && n < most; e++)
      visit(q, s->next[e], d, from, &n);
    for (uint32_t e = s->prev_first[x]; way != DOWN && e < s->prev_first[x + 1] && n < most; e++)
      visit(q, s->prev[e], d, from, &n);
  }
  return n;
}

/* Whole connected regions of one device, each to every other device */
static bool components(place_search *q) {
  place *s = q->s;
  bool improved = false;
  for (uint32_t d = 0; d < s->n_devices; d++) {
    memset(q->seen, 0, s->n_units);
    for (uint32_t u = 0; u < s->n_units && !place__out_of_time(q); u++) {
      if (q->seen[u] || device_of(s, u) == d || !(s->mask[u] >> d & 1)) continue;
      const uint32_t n = grow(q, u, d, s->n_units, BOTH);
      for (uint32_t k = 0; k < n; k++) q->seen[q->queue[k]] = 1;
      improved |= try_move(q, q->queue, n, d);
    }
  }
  return improved;
}

/* Positions by device, then by when they end, the later position first of equals. */
static int by_end(const void *a, const void *b, void *context) {
  const place *s = context;
  const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  if (s->at[x] != s->at[y]) return s->at[x] < s->at[y] ? -1 : 1;
  if (s->finish[x] != s->finish[y]) return s->finish[x] < s->finish[y] ? -1 : 1;
  return (x < y) - (x > y);
}

/* Who had the device until position i started; n: nobody. q->ends is sorted. */
static uint32_t before(const place_search *q, uint32_t i) {
  const place *s = q->s;
  uint32_t low = 0, high = s->n;
  while (low < high) {
    const uint32_t mid = (low + high) / 2, k = q->ends[mid];
    if (s->at[k] < s->at[i] || (s->at[k] == s->at[i] && s->finish[k] < s->start[i]))
      low = mid + 1;
    else
      high = mid;
  }
  for (; low < s->n && s->at[q->ends[low]] == s->at[i] && s->finish[q->ends[low]] == s->start[i]; low++)
    if (s->start[q->ends[low]] < s->start[i]) return q->ends[low];
  return s->n;
}

/* Why position i started when it did: the maker of the input that came last, or who had the device before; n: no
   reason */
static uint32_t cause_of(const place_search *q, uint32_t i) {
  const place *s = q->s;
  const uint32_t d = s->at[i];
  if (!s->start[i]) return s->n;
  for (uint32_t k = s->in_first[i]; k < s->in_first[i + 1]; k++) {
    const uint32_t v = s->in[k];
    const int32_t maker = s->maker[v];
    if (maker < 0) continue;
    const uint64_t there = s->at[maker] == d ? s->finish[maker] : s->arrival[(size_t)v * s->n_devices + d];
    if (there == s->start[i]) return (uint32_t)maker;
  }
  return before(q, i);
}

/* Into q->list: the units worth moving: all of a small graph, else those of the critical chain, last first. */
static uint32_t critical(place_search *q) {
  place *s = q->s;
  uint32_t n = 0, last = 0;
  if (s->n_units <= 2 * ALL_PAIRS) {
    for (uint32_t u = 0; u < s->n_units; u++) q->list[n++] = u;
    return n;
  }
  place__rebase(s, 0);
  for (uint32_t i = 0; i < s->n; i++)
    if (s->finish[i] >= s->finish[last]) last = i;
  for (uint32_t i = 0; i < s->n; i++) q->ends[i] = i;
  qsort_r(q->ends, s->n, sizeof *q->ends, by_end, s);
  s->work += s->n;
  memset(q->seen, 0, s->n_units);
  for (uint32_t i = last, steps = 0; i < s->n && steps < s->n; i = cause_of(q, i), steps++) {
    if (!q->seen[s->unit[i]]) q->list[n++] = s->unit[i];
    q->seen[s->unit[i]] = 1;
  }
  return n;
}

/* Regions of at most `size` units around every few units of the list */
static bool regions(place_search *q, uint32_t n, uint32_t size) {
  place *s = q->s;
  bool improved = false;
  for (uint32_t k = 0; k<n; k += size> 2 ? size / 2 : 1)
    for (uint32_t d = 0; d < s->n_devices; d++)
      for (int way = BOTH; way <= (size > 1 ? UP : BOTH) && !place__out_of_time(q); way++) {
        const uint32_t u = q->list[k];
        if (device_of(s, u) == d || !(s->mask[u] >> d & 1)) break;
        const uint32_t got = grow(q, u, d, size, way);
        if (got > size / 2) improved |= try_move(q, q->queue, got, d); /* smaller ones have their turn */
      }
  return improved;
}

/* Two units at once: any two of a small graph, neighbours on different devices of a large one */
static bool pairs(place_search *q, uint32_t n) {
  place *s = q->s;
  bool improved = false;
  if (s->n_units > ALL_PAIRS) {
    for (uint32_t k = 0; k < n; k++)
      for (uint32_t e = s->prev_first[q->list[k]]; e < s->prev_first[q->list[k] + 1] && !place__out_of_time(q); e++) {
        const uint32_t a = q->list[k], b = s->prev[e], at = device_of(s, a), bt = device_of(s, b);
        if (at != bt) improved |= try_pair(q, a, bt, b, at);
      }
    return improved;
  }
  for (uint32_t a = 0; a < s->n_units; a++)
    for (uint32_t b = a + 1; b < s->n_units && !place__out_of_time(q); b++)
      for (uint32_t x = 0; x < s->n_devices; x++)
        for (uint32_t y = 0; y < s->n_devices; y++)
          if (x != device_of(s, a) && y != device_of(s, b)) improved |= try_pair(q, a, x, b, y);
  return improved;
}

void place__improve(place_search *q) {
  for (bool improved = true; improved && !place__out_of_time(q);) {
    improved = components(q);
    uint32_t n = critical(q), size = 1;
    while (size < q->s->n_units / 2) size *= 2;
    for (; size && !place__out_of_time(q); size /= 2) {
      if (regions(q, n, size)) {
        improved = true;
        if (!place__out_of_time(q)) n = critical(q);
      }
    }
    if (!improved) improved = pairs(q, n);
  }
}

static uint64_t next_random(place_search *q) { /* splitmix64 */
  uint64_t z = q->random += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  return z ^ z >> 31;
}

void place__shake(place_search *q, uint32_t moves) {
  place *s = q->s;
  for (uint32_t m = 0; m < moves; m++) {
    const uint32_t u = (uint32_t)(next_random(q) % s->n_units), d = (uint32_t)(next_random(q) % s->n_devices);
    const uint32_t size = 1 + (uint32_t)(next_random(q) % (1 + s->n_units / 3));
    const int way = (int)(next_random(q) % 3);
    if (!(s->mask[u] >> d & 1)) continue;
    const uint32_t n = grow(q, u, d, size, way);
    for (uint32_t k = 0; k < n; k++) give(s, q->queue[k], d);
  }
  place__rebase(s, 0);
}
