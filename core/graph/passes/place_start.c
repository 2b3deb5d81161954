/* First assignments: everything on one device, and greedy ones that take the nodes in the scheduler's order. HEFT gives
   each node the device where it ends first; with lookahead, where its end and the least that must follow come first
   (the table of Arabnejad and Barbosa's PEFT, 2014); with clusters, nodes that are joined by values dearer than
   themselves go together. */
#include "graph/passes/place_internal.h"
#include <string.h>

static void give(place *s, uint32_t u, uint32_t d) {
  for (uint32_t k = s->member_first[u]; k < s->member_first[u + 1]; k++) s->at[s->member[k]] = (uint8_t)d;
}

void place__all_on(place *s, uint32_t d) {
  for (uint32_t u = 0; u < s->n_units; u++) {
    uint64_t best_ns = UINT64_MAX;
    uint32_t best = 0;
    for (uint32_t to = 0; to < s->n_devices; to++) {
      uint64_t ns = 0;
      if (!(s->mask[u] >> to & 1)) continue;
      for (uint32_t k = s->member_first[u]; k < s->member_first[u + 1]; k++)
        ns += s->time[(size_t)s->member[k] * s->n_devices + to];
      if (to == d) ns = 0;
      if (ns < best_ns) best_ns = ns, best = to;
    }
    give(s, u, best);
  }
}

static uint32_t root_of(uint32_t *parent, uint32_t u) {
  for (; parent[u] != u; u = parent[u]) parent[u] = parent[parent[u]];
  return u;
}

static uint64_t mean_time(const place *s, uint32_t i) {
  uint64_t sum = 0, able = 0;
  for (uint32_t d = 0; d < s->n_devices; d++) {
    const uint64_t ns = s->time[(size_t)i * s->n_devices + d];
    if (ns != TERN__PLACE_NEVER) sum += ns, able++;
  }
  return able ? sum / able : 0;
}

/* parent[unit]: joins units over values whose mean way costs more than the smaller of the two nodes; mask[root] is what
   can run the whole cluster */
static void make_clusters(place *s, uint32_t *parent, uint64_t *mask) {
  for (uint32_t u = 0; u < s->n_units; u++) parent[u] = u, mask[u] = s->mask[u];
  for (uint32_t i = 0; i < s->n; i++)
    for (uint32_t k = s->in_first[i]; k < s->in_first[i + 1]; k++) {
      const uint32_t v = s->in[k];
      if (s->maker[v] < 0) continue;
      uint64_t way = 0;
      for (uint32_t d = 0; d < s->n_devices; d++) way += s->leg[(size_t)v * s->n_devices + d];
      const uint64_t a = mean_time(s, (uint32_t)s->maker[v]), b = mean_time(s, i);
      const uint32_t x = root_of(parent, s->unit[s->maker[v]]), y = root_of(parent, s->unit[i]);
      if (x == y || !(mask[x] & mask[y]) || way * 2 / s->n_devices <= (a < b ? a : b)) continue;
      parent[y] = x;
      mask[x] &= mask[y];
    }
}

/* Where position i would end on device d; nothing is kept. */
static uint64_t end_on(place *s, uint32_t i, uint32_t d) {
  place_timeline own = s->line[d];
  const uint64_t load = s->load, top = s->top;
  place_timeline links[TERN__PLACE_MAX_DEVICES];
  const size_t bytes = s->n_devices * sizeof *links;
  memcpy(links, s->line + s->n_devices, bytes);
  s->at[i] = (uint8_t)d;
  const uint64_t end = place__put(s, i);
  memcpy(s->line + s->n_devices, links, bytes);
  s->line[d] = own;
  s->load = load;
  s->top = top;
  for (uint32_t k = s->in_first[i]; k < s->in_first[i + 1]; k++) {
    const size_t x = (size_t)s->in[k] * s->n_devices + d;
    if (s->stamp[x] == s->run && s->writer[x] == i) s->stamp[x] = s->run - 1;
  }
  s->work++;
  return end;
}

/* What the rest of unit u (beyond position i) takes on d */
static uint64_t rest_of(const place *s, uint32_t u, uint32_t i, uint32_t d) {
  uint64_t ns = 0;
  for (uint32_t k = s->member_first[u]; k < s->member_first[u + 1]; k++)
    if (s->member[k] > i) ns += s->time[(size_t)s->member[k] * s->n_devices + d];
  return ns;
}

static uint32_t choose(place *s, int how, uint32_t i, uint64_t mask, uint32_t u) {
  uint64_t best_key = UINT64_MAX;
  uint32_t best = 0;
  for (uint32_t d = 0; d < s->n_devices; d++) {
    if (!(mask >> d & 1)) continue;
    uint64_t key = end_on(s, i, d) + rest_of(s, u, i, d);
    if (how != PLACE_HEFT) key += s->tail[(size_t)i * s->n_devices + d];
    if (key < best_key) best_key = key, best = d;
  }
  return best;
}

void place__greedy(place *s, int how, uint32_t *parent, uint64_t *mask) {
  enum { OPEN = 255 };
  if (how == PLACE_CLUSTERS)
    make_clusters(s, parent, mask);
  else
    for (uint32_t u = 0; u < s->n_units; u++) parent[u] = u, mask[u] = s->mask[u];
  place__begin(s);
  memset(s->at, OPEN, s->n);
  for (uint32_t i = 0; i < s->n; i++) {
    if (s->at[i] == OPEN) {
      const uint32_t u = s->unit[i], root = root_of(parent, u), d = choose(s, how, i, mask[root], u);
      give(s, u, d);
      mask[root] = UINT64_C(1) << d; /* the others of its cluster follow */
    }
    place__put(s, i);
  }
}
