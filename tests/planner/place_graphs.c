/* Generators of graphs to place, and the search through all assignments that their answers are compared with. */
#include "planner/place_graphs.h"
#include <math.h>
#include <string.h>

uint64_t place_random(uint64_t *state) {
  uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  return z ^ z >> 31;
}

static uint32_t below(uint64_t *state, uint32_t n) { return (uint32_t)(place_random(state) % n); }
static bool chance(uint64_t *state, uint32_t percent) { return below(state, 100) < percent; }

/* Between low and high, its logarithm uniform */
static double spread(uint64_t *state, double low, double high) {
  const double u = (double)(place_random(state) >> 11) * 0x1p-53;
  return low * exp(u * log(high / low));
}

static void begin(place_graph *g, uint32_t n, uint32_t devices) {
  memset(g, 0, sizeof *g);
  g->problem = (tern__place_problem){.n_nodes = n,
                                     .n_devices = devices,
                                     .devices = g->device,
                                     .time = g->time,
                                     .pin = g->pin,
                                     .group = g->group,
                                     .in_first = g->in_first,
                                     .in = g->in,
                                     .values = g->value};
  for (uint32_t i = 0; i < n; i++) g->pin[i] = g->group[i] = -1;
}

static uint32_t add_value(place_graph *g, int32_t node, int32_t home, double bytes) {
  g->value[g->problem.n_values] = (tern__place_value){.node = node, .home = home, .out = -1, .bytes = (uint64_t)bytes};
  return g->problem.n_values++;
}

static bool is_read(const place_graph *g, uint32_t v) {
  for (uint32_t k = 0; k < g->in_first[g->problem.n_nodes]; k++)
    if (g->in[k] == v) return true;
  return false;
}

/* Results that nobody reads go home, most of them. */
static void set_outs(place_graph *g, uint64_t *state) {
  for (uint32_t v = 0; v < g->problem.n_values; v++)
    if (g->value[v].node >= 0 && !is_read(g, v) && chance(state, 70)) g->value[v].out = 0;
}

/* Capabilities, pins and groups; every node keeps a device that it may run on. */
static void restrict_nodes(place_graph *g, uint64_t *state) {
  const uint32_t d = g->problem.n_devices, n = g->problem.n_nodes, unable = below(state, 40), pinned = below(state, 15);
  for (uint32_t i = 0; i < n; i++) {
    const uint32_t able = below(state, d);
    for (uint32_t k = 0; k < d; k++)
      if (k != able && chance(state, unable)) g->time[i * d + k] = TERN__PLACE_NEVER;
    if (chance(state, pinned)) g->pin[i] = (int32_t)able;
  }
  if (n < 4 || !chance(state, 25)) return;
  const uint32_t a = below(state, n), b = below(state, n); /* two that share a variable */
  bool together = false;
  for (uint32_t k = 0; k < d; k++)
    together |= g->time[a * d + k] != TERN__PLACE_NEVER && g->time[b * d + k] != TERN__PLACE_NEVER &&
                (g->pin[a] < 0 || g->pin[a] == (int32_t)k) && (g->pin[b] < 0 || g->pin[b] == (int32_t)k);
  if (together && a != b) g->group[a] = g->group[b] = 0;
}

void place_graph_random(place_graph *g, uint64_t *state) {
  const uint32_t n = 1 + below(state, 12), d = chance(state, 5) ? 1 : chance(state, 40) ? 2 : 3;
  begin(g, n, d);
  double flops[PLACE_GRAPH_DEVICES], launch[PLACE_GRAPH_DEVICES];
  const double transfer = spread(state, 1e-3, 1e2); /* of a typical value, beside a typical node */
  for (uint32_t k = 0; k < d; k++) {
    flops[k] = spread(state, 1, 30); /* per ns */
    launch[k] = spread(state, 100, 1e5);
    if (k)
      g->device[k] =
          (tern__place_device){(uint64_t)(spread(state, 0.3, 3) * 1e9), (uint64_t)(transfer * spread(state, 100, 1e5))};
  }
  uint32_t at = 0;
  const uint32_t reach = 1 + below(state, 8);
  for (uint32_t i = 0; i < n; i++) {
    const double work = spread(state, 1e3, 1e6);
    g->in_first[i] = at;
    for (uint32_t k = 0, reads = below(state, 4); k < reads; k++) {
      const uint32_t values = g->problem.n_values;
      if (!values || chance(state, 15))
        g->in[at++] =
            add_value(g, -1, chance(state, 20) ? -1 : (int32_t)below(state, d), transfer * spread(state, 1e3, 1e6));
      else
        g->in[at++] = values - 1 - below(state, values < reach ? values : reach);
    }
    for (uint32_t k = 0; k < d; k++)
      g->time[i * d + k] = (uint64_t)(launch[k] + work / flops[k] * spread(state, 0.5, 2));
    for (uint32_t k = 0, makes = chance(state, 10) ? 2 : 1; k < makes; k++)
      add_value(g, (int32_t)i, -1, transfer * spread(state, 1e3, 1e6));
  }
  g->in_first[n] = at;
  restrict_nodes(g, state);
  set_outs(g, state);
}

/* ---- large graphs ---- */

static void read_value(place_graph *g, uint32_t *at, uint32_t v) { g->in[(*at)++] = v; }

/* Which earlier nodes node i reads */
static uint32_t reads_of(place_shape shape, uint32_t i, uint64_t *state, uint32_t from[3]) {
  const uint32_t step = i % 10, block = i - step;
  if (!i) return 0;
  switch (shape) {
  case PLACE_CHAIN: from[0] = i - 1; return 1;
  case PLACE_WIDE: /* 20 chains that meet now and then */
    from[0] = i < 20 ? 0 : i - 20;
    from[1] = i > 40 ? i - 1 - below(state, 40) : 0;
    return i % 25 ? 1 : 2;
  case PLACE_LAYERED: /* layers of 10, each node reads three of the layer before */
    if (i < 10) return 0;
    for (int k = 0; k < 3; k++) from[k] = block - 10 + below(state, 10);
    return 3;
  default: /* q k v; q k; softmax; v; project; add; norm; up; down */
    from[0] = step == 0   ? i - 1
              : step < 3  ? (block ? block - 1 : 0)
              : step == 3 ? block
              : step == 5 ? block + 2
                          : i - 1;
    from[1] = step == 3 ? block + 1 : step == 5 ? block + 4 : step == 7 ? (block ? block - 1 : 0) : block + 7;
    return step == 3 || step == 5 || step == 7 || step == 9 ? 2 : 1;
  }
}

void place_graph_shaped(place_graph *g, place_shape shape, uint32_t n, uint64_t *state) {
  enum { D = PLACE_GRAPH_DEVICES };
  begin(g, n, D);
  g->device[1] = (tern__place_device){12000000000u, 10000};
  g->device[2] = (tern__place_device){3000000000u, 30000};
  uint32_t at = 0, value_of[PLACE_GRAPH_NODES];
  for (uint32_t i = 0; i < n; i++) {
    uint32_t from[3];
    const uint32_t reads = reads_of(shape, i, state, from);
    const double work = spread(state, 1e3, 1e8), bytes = spread(state, 1e3, 1e6);
    g->in_first[i] = at;
    for (uint32_t k = 0; k < reads; k++) read_value(g, &at, value_of[from[k]]);
    if (i % 10 == 0) read_value(g, &at, add_value(g, -1, 0, 1e5)); /* a variable, on the host at first */
    g->time[i * D] = (uint64_t)(300 + work / 20);
    g->time[i * D + 1] = (uint64_t)(8000 + work / 2000);
    g->time[i * D + 2] = chance(state, 50) ? (uint64_t)(20000 + work / 200) : TERN__PLACE_NEVER;
    if (shape == PLACE_LAYERED && chance(state, 2)) g->pin[i] = (int32_t)below(state, 2);
    value_of[i] = add_value(g, (int32_t)i, -1, bytes);
  }
  g->in_first[n] = at;
  g->value[value_of[n - 1]].out = 0;
}

/* ---- all assignments ---- */

uint64_t place_graph_optimum(const place_graph *g, uint64_t *count) {
  const uint32_t n = g->problem.n_nodes, d = g->problem.n_devices;
  int at[16] = {0};
  uint64_t best = UINT64_MAX, seen = 0;
  tern__place_simulator *simulator;
  if (n > 16 || tern__place_simulator_new(&g->problem, &simulator)) return UINT64_MAX;
  for (uint32_t i = 0; i < n;) {
    bool may = true;
    for (uint32_t k = 0; k < n && may; k++) may = g->time[k * d + (uint32_t)at[k]] != TERN__PLACE_NEVER;
    if (may) {
      const uint64_t makespan = tern__place_simulator_run(simulator, at);
      seen += makespan != UINT64_MAX;
      best = makespan < best ? makespan : best;
    }
    for (i = 0; i < n && ++at[i] == (int)d; i++) at[i] = 0;
  }
  tern__place_simulator_free(simulator);
  if (count) *count = seen;
  return best;
}
