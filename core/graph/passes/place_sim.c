/* The list scheduler of place.h: timelines with gaps, whole and partial runs, and the public ways to it. */
#include "base/thread.h"
#include "graph/passes/place_internal.h"
#include <string.h>

/* The first idle time of `ns` at or after `ready`; it is taken. */
static uint64_t reserve(place_timeline *line, uint64_t ready, uint64_t ns) {
  if (ready >= line->tail) {
    if (ready > line->tail && ns) {
      if (line->n == PLACE_GAPS) memmove(line->gap, line->gap + 1, --line->n * sizeof *line->gap);
      line->gap[line->n].from = line->tail;
      line->gap[line->n++].to = ready;
    }
    if (ns) line->tail = ready + ns;
    return ready;
  }
  if (!ns) return ready;
  for (uint32_t g = 0; g < line->n; g++) {
    const uint64_t from = line->gap[g].from, to = line->gap[g].to, at = ready > from ? ready : from;
    if (at + ns > to) continue;
    const bool left = at > from, right = at + ns < to;
    if (left && right && line->n == PLACE_GAPS) { /* the shorter part is forgotten */
      if (at - from > to - at - ns)
        line->gap[g].to = at;
      else
        line->gap[g].from = at + ns;
    } else if (left && right) {
      memmove(line->gap + g + 1, line->gap + g, (line->n++ - g) * sizeof *line->gap);
      line->gap[g].to = at;
      line->gap[g + 1].from = at + ns;
    } else if (left) {
      line->gap[g].to = at;
    } else if (right) {
      line->gap[g].from = at + ns;
    } else {
      memmove(line->gap + g, line->gap + g + 1, (--line->n - g) * sizeof *line->gap);
    }
    return at;
  }
  const uint64_t at = line->tail;
  line->tail += ns;
  return at;
}

/* When value v is on device d for position i, copied if it is not there yet. `from` positions are the base's. */
static uint64_t arrive(place *s, uint32_t v, uint32_t d, uint32_t i, uint32_t from) {
  const int32_t maker = s->maker[v], src = maker >= 0 ? s->at[maker] : s->home[v];
  const uint64_t ready = maker < 0 ? 0 : (uint32_t)maker < from ? s->base_finish[maker] : s->finish[maker];
  if (src < 0 || (uint32_t)src == d) return ready;
  const size_t x = (size_t)v * s->n_devices + d;
  if (s->stamp[x] == s->run) return s->arrival[x];
  if (from && s->base_writer[x] < from) return s->base_arrival[x];
  const uint64_t *leg = s->leg + (size_t)v * s->n_devices;
  place_timeline *link = s->line + s->n_devices;
  uint64_t at = ready;
  if (leg[src]) at = reserve(&link[src], at, leg[src]) + leg[src];
  if (leg[d]) at = reserve(&link[d], at, leg[d]) + leg[d];
  s->load += leg[src] + leg[d];
  s->stamp[x] = s->run;
  s->writer[x] = i;
  return s->arrival[x] = at;
}

static inline uint64_t put(place *s, uint32_t i, uint32_t from) {
  const uint32_t d = s->at[i];
  uint64_t ready = 0;
  for (uint32_t k = s->in_first[i]; k < s->in_first[i + 1]; k++) {
    const uint64_t there = arrive(s, s->in[k], d, i, from);
    ready = there > ready ? there : ready;
  }
  const uint64_t ns = s->time[(size_t)i * s->n_devices + d], start = reserve(&s->line[d], ready, ns);
  s->start[i] = start;
  s->load += ns;
  return s->finish[i] = start + ns;
}

uint64_t place__put(place *s, uint32_t i) {
  const uint64_t end = put(s, i, 0);
  s->top = end > s->top ? end : s->top;
  return end;
}

void place__begin(place *s) {
  s->run++;
  s->top = s->load = 0;
  for (uint32_t k = 0; k < 2 * s->n_devices; k++) s->line[k].tail = s->line[k].n = 0;
}

static uint64_t end_run(place *s, uint32_t from) {
  for (uint32_t o = 0; o < s->n_outs; o++) {
    const uint32_t v = s->outs[o];
    const uint64_t there = arrive(s, v, (uint32_t)s->out[v], s->n, from);
    s->top = there > s->top ? there : s->top;
  }
  return s->top;
}

uint64_t place__end(place *s) { return end_run(s, 0); }

static void save(place *s, uint32_t slot) {
  memcpy(s->snapshot + (size_t)slot * 2 * s->n_devices, s->line, 2 * s->n_devices * sizeof *s->line);
  s->snapshot_cost[slot] = (place_cost){s->top, s->load};
}

/* Go back to the base's snapshot before position `from`; the position where it stands. */
static uint32_t resume(place *s, uint32_t from) {
  const uint32_t slot = from / s->stride;
  if (!slot) {
    place__begin(s);
    return 0;
  }
  s->run++;
  memcpy(s->line, s->snapshot + (size_t)slot * 2 * s->n_devices, 2 * s->n_devices * sizeof *s->line);
  s->top = s->snapshot_cost[slot].makespan;
  s->load = s->snapshot_cost[slot].load;
  return slot * s->stride;
}

uint64_t place__trial(place *s, uint32_t from, uint64_t bound) {
  const uint32_t first = resume(s, from);
  for (uint32_t i = first; i < s->n; i++) {
    const uint64_t end = put(s, i, first);
    if (end + s->tail[(size_t)i * s->n_devices + s->at[i]] > bound) {
      s->work += i - first + 1;
      return PLACE_OVER;
    }
    s->top = end > s->top ? end : s->top;
  }
  s->work += s->n - first;
  const uint64_t makespan = end_run(s, first);
  return makespan > bound ? PLACE_OVER : makespan;
}

void place__rebase(place *s, uint32_t from) {
  const uint32_t first = resume(s, from);
  for (uint32_t i = first; i < s->n; i++) {
    if (i % s->stride == 0) save(s, i / s->stride);
    const uint64_t end = put(s, i, first);
    s->top = end > s->top ? end : s->top;
  }
  s->work += 2 * (s->n - first);
  s->base.makespan = end_run(s, first);
  s->base.load = s->load;
  memcpy(s->base_finish + first, s->finish + first, (s->n - first) * sizeof *s->finish);
  const size_t all = (size_t)s->n_values * s->n_devices;
  for (size_t x = 0; x < all; x++) {
    if (s->stamp[x] == s->run) {
      s->base_arrival[x] = s->arrival[x];
      s->base_writer[x] = s->writer[x];
    } else if (!first || s->base_writer[x] >= first) {
      s->base_writer[x] = UINT32_MAX;
    }
  }
}

uint32_t place__copies(const place *s) {
  uint32_t copies = 0;
  const size_t all = (size_t)s->n_values * s->n_devices;
  for (size_t x = 0; x < all; x++) copies += s->stamp[x] == s->run;
  return copies;
}

/* ---- public ---- */

static bool take(place *s, const int *assignment, uint32_t *wrong) {
  for (uint32_t i = 0; i < s->n; i++) {
    const int d = assignment[s->order[i]];
    const uint32_t u = s->unit[i];
    *wrong = s->order[i];
    if (d < 0 || (uint32_t)d >= s->n_devices || !(s->mask[u] >> d & 1)) return false;
    s->at[i] = (uint8_t)d;
    if (s->at[s->member[s->member_first[u]]] != (uint8_t)d) return false;
  }
  return true;
}

static uint64_t whole(place *s) {
  place__begin(s);
  for (uint32_t i = 0; i < s->n; i++) place__put(s, i);
  return place__end(s);
}

tern_rc tern__place_simulate(const tern__place_problem *problem, const int *assignment, uint64_t *makespan,
                             uint64_t *start, uint64_t *finish, uint32_t *copies) {
  place *s = NULL;
  uint32_t wrong = 0;
  tern_rc rc = place__prepare(problem, &s);
  if (rc) return rc;
  if (!take(s, assignment, &wrong)) {
    rc = tern__fail(TERN_E_ARG,
                    "placement: node %u is assigned to device %d, which cannot run it (or its pin or group "
                    "says otherwise)",
                    wrong, assignment[wrong]);
  } else {
    const uint64_t end = whole(s);
    if (makespan) *makespan = end;
    if (copies) *copies = place__copies(s);
    for (uint32_t i = 0; i < s->n; i++) {
      if (start) start[s->order[i]] = s->start[i];
      if (finish) finish[s->order[i]] = s->finish[i];
    }
  }
  place__free(s);
  return rc;
}

tern_rc tern__place_simulator_new(const tern__place_problem *problem, tern__place_simulator **out) {
  return place__prepare(problem, out);
}

uint64_t tern__place_simulator_run(tern__place_simulator *s, const int *assignment) {
  uint32_t wrong;
  return take(s, assignment, &wrong) ? whole(s) : UINT64_MAX;
}

void tern__place_simulator_free(tern__place_simulator *s) { place__free(s); }
