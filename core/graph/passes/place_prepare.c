/* A placement problem made ready for the scheduler: checked, times clamped, nodes renumbered by upward rank, bounds of
   what comes before and after each node. */
#include "graph/passes/place_internal.h"
#include "base/alloc.h"
#include "base/thread.h"
#include <stdlib.h>
#include <string.h>

static const uint64_t longest = UINT64_C(1) << 40;

static uint64_t clamped(uint64_t ns) { return ns < longest ? ns : longest; }

static tern_rc bad(const char *what, uint32_t i) {
  return tern__fail(TERN_E_ARG, "placement: %s %u is malformed", what, i);
}

static tern_rc check(const tern__place_problem *p) {
  const int32_t n = (int32_t)p->n_nodes, d = (int32_t)p->n_devices;
  if (!p->n_devices || p->n_devices > TERN__PLACE_MAX_DEVICES)
    return tern__fail(TERN_E_ARG, "placement: %u devices; 1 to %d are possible", p->n_devices, TERN__PLACE_MAX_DEVICES);
  if (p->n_nodes > 1u << 22 || p->n_values > 1u << 22)
    return tern__fail(TERN_E_ARG, "placement: %u nodes and %u values; 4194304 of each are possible", p->n_nodes,
                      p->n_values);
  for (uint32_t v = 0; v < p->n_values; v++) {
    const tern__place_value *x = &p->values[v];
    if (x->node < -1 || x->node >= n || x->home < -1 || x->home >= d || x->out < -1 || x->out >= d)
      return bad("value", v);
  }
  for (uint32_t i = 0; i < p->n_nodes; i++) {
    if (p->in_first[i] > p->in_first[i + 1] || (p->pin && (p->pin[i] < -1 || p->pin[i] >= d)) ||
        (p->group && (p->group[i] < -1 || p->group[i] >= n)))
      return bad("node", i);
    for (uint32_t k = p->in_first[i]; k < p->in_first[i + 1]; k++)
      if (p->in[k] >= p->n_values || p->values[p->in[k]].node >= (int32_t)i) return bad("an input of node", i);
  }
  return TERN_OK;
}

/* Parts of one block; every size is rounded to 16 bytes. */
static void *carve(char *memory, size_t *at, size_t count, size_t size) {
  void *part = memory ? memory + *at : NULL;
  *at += (count * size + 15) & ~(size_t)15;
  return part;
}

#define CARVE(field, count) s->field = carve(memory, &at, (count), sizeof *s->field)
static size_t lay_out(place *s, char *memory) {
  const tern__place_problem *p = s->problem;
  const size_t n = s->n, d = s->n_devices, v = s->n_values, e = p->n_nodes ? p->in_first[n] - p->in_first[0] : 0;
  size_t at = 0;
  CARVE(order, n);
  CARVE(position, n);
  CARVE(time, n * d);
  CARVE(in_first, n + 1);
  CARVE(in, e);
  CARVE(maker, v);
  CARVE(home, v);
  CARVE(out, v);
  CARVE(leg, v * d);
  CARVE(tail, n * d);
  CARVE(head, n * d);
  CARVE(outs, v);
  CARVE(unit, n);
  CARVE(member_first, n + 2);
  CARVE(member, n);
  CARVE(mask, n + 1);
  CARVE(next_first, n + 2);
  CARVE(next, e);
  CARVE(prev_first, n + 2);
  CARVE(prev, e);
  CARVE(at, n + 1);
  CARVE(start, n);
  CARVE(finish, n);
  CARVE(arrival, v * d);
  CARVE(stamp, v * d);
  CARVE(writer, v * d);
  CARVE(line, 2 * d);
  CARVE(base_finish, n);
  CARVE(base_arrival, v * d);
  CARVE(base_writer, v * d);
  CARVE(snapshot, (PLACE_SNAPSHOTS + 1) * 2 * d);
  CARVE(snapshot_cost, PLACE_SNAPSHOTS + 1);
  return at;
}
#undef CARVE

static void set_values(place *s) {
  const tern__place_problem *p = s->problem;
  for (uint32_t v = 0; v < s->n_values; v++) {
    const tern__place_value *x = &p->values[v];
    s->maker[v] = x->node; /* a node until positions are known */
    s->home[v] = x->node < 0 ? x->home : -1;
    s->out[v] = x->out;
    if (x->out >= 0 && (x->node >= 0 || x->home >= 0)) s->outs[s->n_outs++] = v;
    for (uint32_t d = 0; d < s->n_devices; d++) {
      const tern__place_device *device = &p->devices[d];
      const double over = device->link_bandwidth ? (double)x->bytes * 1e9 / (double)device->link_bandwidth : 0;
      const uint64_t ns = over < (double)longest ? (uint64_t)over : longest;
      s->leg[(size_t)v * s->n_devices + d] = clamped(clamped(device->link_ns) + ns);
    }
  }
}

/* A value's mean time from one device to another one */
static uint64_t mean_way(const place *s, uint32_t v) {
  uint64_t sum = 0;
  for (uint32_t d = 0; d < s->n_devices; d++) sum += s->leg[(size_t)v * s->n_devices + d];
  return s->n_devices > 1 ? 2 * sum / s->n_devices : 0;
}

static uint64_t mean_time(const place *s, uint32_t node) {
  uint64_t sum = 0, able = 0;
  for (uint32_t d = 0; d < s->n_devices; d++) {
    const uint64_t t = s->problem->time[(size_t)node * s->n_devices + d];
    if (t != TERN__PLACE_NEVER) sum += clamped(t), able++;
  }
  return able ? sum / able : 0;
}

typedef struct ranked {
  uint64_t rank;
  uint32_t node;
} ranked;

static int by_rank(const void *a, const void *b) {
  const ranked *x = a, *y = b;
  if (x->rank != y->rank) return x->rank < y->rank ? 1 : -1;
  return (x->node > y->node) - (x->node < y->node);
}

/* Falling upward rank. A reader's rank is never above its maker's, and the problem's own order decides equals, so the
   order is topological. */
static bool set_order(place *s) {
  const tern__place_problem *p = s->problem;
  ranked *r = tern__calloc(s->n + 1, sizeof *r);
  uint64_t *most = tern__calloc(s->n + 1, sizeof *most); /* [node] most of what follows it */
  const bool ok = r && most;
  for (uint32_t v = 0; ok && v < s->n_values; v++)
    if (p->values[v].node >= 0 && p->values[v].out >= 0) most[p->values[v].node] = mean_way(s, v);
  for (uint32_t i = s->n; ok && i-- > 0;) {
    r[i] = (ranked){mean_time(s, i) + most[i], i};
    for (uint32_t k = p->in_first[i]; k < p->in_first[i + 1]; k++) {
      const int32_t maker = p->values[p->in[k]].node;
      const uint64_t way = maker >= 0 ? mean_way(s, p->in[k]) + r[i].rank : 0;
      if (maker >= 0 && most[maker] < way) most[maker] = way;
    }
  }
  if (ok) qsort(r, s->n, sizeof *r, by_rank);
  for (uint32_t i = 0; ok && i < s->n; i++) {
    s->order[i] = r[i].node;
    s->position[r[i].node] = i;
  }
  free(r);
  free(most);
  return ok;
}

static void set_nodes(place *s) {
  const tern__place_problem *p = s->problem;
  uint32_t at = 0;
  for (uint32_t i = 0; i < s->n; i++) {
    const uint32_t node = s->order[i];
    for (uint32_t d = 0; d < s->n_devices; d++) {
      const uint64_t t = p->time[(size_t)node * s->n_devices + d];
      s->time[(size_t)i * s->n_devices + d] = t == TERN__PLACE_NEVER ? t : clamped(t);
    }
    s->in_first[i] = at;
    for (uint32_t k = p->in_first[node]; k < p->in_first[node + 1]; k++) {
      bool seen = false;
      for (uint32_t j = s->in_first[i]; j < at && !seen; j++) seen = s->in[j] == p->in[k];
      if (!seen) s->in[at++] = p->in[k];
    }
  }
  s->in_first[s->n] = at;
  for (uint32_t v = 0; v < s->n_values; v++)
    if (s->maker[v] >= 0) s->maker[v] = (int32_t)s->position[s->maker[v]];
}

/* Units in the order of their first position; their members and the devices that can run them all. */
static tern_rc set_units(place *s) {
  const tern__place_problem *p = s->problem;
  uint32_t *of = tern__calloc(s->n + 1, sizeof *of); /* [group] unit + 1 */
  if (!of) return TERN_E_OOM;
  for (uint32_t i = 0; i < s->n; i++) {
    const uint32_t node = s->order[i];
    const int32_t group = p->group ? p->group[node] : -1, pin = p->pin ? p->pin[node] : -1;
    uint32_t u = group >= 0 && of[group] ? of[group] - 1 : s->n_units;
    if (u == s->n_units) {
      s->n_units++;
      s->mask[u] = s->n_devices == 64 ? ~UINT64_C(0) : (UINT64_C(1) << s->n_devices) - 1;
      if (group >= 0) of[group] = u + 1;
    }
    s->unit[i] = u;
    s->member_first[u + 1]++;
    for (uint32_t d = 0; d < s->n_devices; d++)
      if (s->time[(size_t)i * s->n_devices + d] == TERN__PLACE_NEVER || (pin >= 0 && (uint32_t)pin != d))
        s->mask[u] &= ~(UINT64_C(1) << d);
  }
  free(of);
  for (uint32_t u = 0; u < s->n_units; u++) s->member_first[u + 1] += s->member_first[u];
  for (uint32_t i = s->n; i-- > 0;) s->member[--s->member_first[s->unit[i] + 1]] = i;
  /* filling from behind left each first in the slot after it */
  for (uint32_t u = 0; u < s->n_units; u++) s->member_first[u] = s->member_first[u + 1];
  s->member_first[s->n_units] = s->n;
  for (uint32_t i = 0; i < s->n; i++)
    if (!s->mask[s->unit[i]])
      return tern__fail(TERN_E_UNSUPPORTED, "placement: no device can run node %u%s%s", s->order[i],
                        p->pin && p->pin[s->order[i]] >= 0 ? " where it is pinned" : "",
                        p->group && p->group[s->order[i]] >= 0 ? " with its group" : "");
  return TERN_OK;
}

static void set_neighbours(place *s) {
  for (int fill = 0; fill < 2; fill++) {
    for (uint32_t i = 0; i < s->n; i++)
      for (uint32_t k = s->in_first[i]; k < s->in_first[i + 1]; k++) {
        const int32_t maker = s->maker[s->in[k]];
        if (maker < 0 || s->unit[maker] == s->unit[i]) continue;
        const uint32_t a = s->unit[maker], b = s->unit[i];
        if (fill)
          s->next[s->next_first[a + 1]++] = b, s->prev[s->prev_first[b + 1]++] = a;
        else
          s->next_first[a + 2]++, s->prev_first[b + 2]++;
      }
    for (uint32_t u = 0; !fill && u < s->n_units; u++) {
      s->next_first[u + 1] += s->next_first[u];
      s->prev_first[u + 1] += s->prev_first[u];
    }
  }
}

static uint64_t least_way(const place *s, uint32_t v, uint32_t d, const uint64_t *after, const uint64_t *time) {
  uint64_t least = UINT64_MAX;
  for (uint32_t to = 0; to < s->n_devices; to++) {
    if (time[to] == TERN__PLACE_NEVER) continue;
    const uint64_t all = place__way(s, v, (int32_t)d, to) + time[to] + after[to];
    least = all < least ? all : least;
  }
  return least == UINT64_MAX ? 0 : least;
}

/* What must follow each node on each device, and what must precede its end: longest paths in which every other node
   has the device that suits the path best. A device outside of a unit's mask counts as NEVER here. */
static void set_bounds(place *s) {
  const size_t d = s->n_devices;
  for (uint32_t i = 0; i < s->n; i++)
    for (size_t k = 0; k < d; k++)
      if (!(s->mask[s->unit[i]] >> k & 1)) s->time[i * d + k] = TERN__PLACE_NEVER;
  for (uint32_t o = 0; o < s->n_outs; o++) {
    const uint32_t v = s->outs[o];
    for (uint32_t k = 0; s->maker[v] >= 0 && k < d; k++) {
      uint64_t *tail = &s->tail[(size_t)s->maker[v] * d + k];
      const uint64_t way = place__way(s, v, (int32_t)k, (uint32_t)s->out[v]);
      *tail = way > *tail ? way : *tail;
    }
  }
  for (uint32_t i = s->n; i-- > 0;)
    for (uint32_t e = s->in_first[i]; e < s->in_first[i + 1]; e++)
      for (uint32_t k = 0; s->maker[s->in[e]] >= 0 && k < d; k++) {
        uint64_t *tail = &s->tail[(size_t)s->maker[s->in[e]] * d + k];
        const uint64_t way = least_way(s, s->in[e], k, &s->tail[i * d], &s->time[i * d]);
        *tail = way > *tail ? way : *tail;
      }
  for (uint32_t i = 0; i < s->n; i++)
    for (uint32_t k = 0; k < d; k++) {
      uint64_t from = 0;
      if (s->time[i * d + k] == TERN__PLACE_NEVER) continue;
      for (uint32_t e = s->in_first[i]; e < s->in_first[i + 1]; e++) {
        const uint32_t v = s->in[e];
        uint64_t least = s->maker[v] < 0 ? place__way(s, v, s->home[v], k) : UINT64_MAX;
        for (uint32_t b = 0; s->maker[v] >= 0 && b < d; b++) {
          const size_t x = (size_t)s->maker[v] * d + b;
          if (s->time[x] == TERN__PLACE_NEVER) continue;
          const uint64_t all = s->head[x] + place__way(s, v, (int32_t)b, k);
          least = all < least ? all : least;
        }
        from = least > from ? least : from;
      }
      s->head[i * d + k] = from + s->time[i * d + k];
    }
}

tern_rc place__prepare(const tern__place_problem *problem, place **out) {
  tern_rc rc = check(problem);
  if (rc) return rc;
  place *s = tern__calloc(1, sizeof *s);
  if (s) {
    s->problem = problem;
    s->n = problem->n_nodes;
    s->n_devices = problem->n_devices;
    s->n_values = problem->n_values;
    s->memory = tern__calloc(1, lay_out(s, NULL));
  }
  rc = s && s->memory ? TERN_OK : TERN_E_OOM;
  if (!rc) {
    lay_out(s, s->memory);
    s->stride = s->n / PLACE_SNAPSHOTS + 1;
    set_values(s);
    if (!set_order(s)) rc = TERN_E_OOM;
  }
  if (!rc) {
    set_nodes(s);
    rc = set_units(s);
  }
  if (rc) {
    place__free(s);
    return rc == TERN_E_OOM ? tern__fail(rc, "placement: out of host memory") : rc;
  }
  set_neighbours(s);
  set_bounds(s);
  *out = s;
  return TERN_OK;
}

void place__free(place *s) {
  if (s) free(s->memory);
  free(s);
}
