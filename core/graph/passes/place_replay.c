/* See place_replay.h. A run: the program's own clock and one for each device. A launch is queued on its device; on one
   in host memory the program does the work itself. A value comes from a device when all that was queued there before is
   done, and the program waits for it; it goes to a device in the device's queue. */
#include "graph/passes/place_replay.h"
#include "base/alloc.h"
#include "base/thread.h"
#include <stdlib.h>
#include <string.h>

typedef struct replay {
  const tern__place_problem *p;
  uint64_t *here; /* of each value: the devices that have it */
  uint64_t device[TERN__PLACE_MAX_DEVICES], host;
  uint32_t copies;
  uint64_t work; /* nodes */
} replay;

static const uint64_t most_work = 1000000;

static bool linked(const tern__place_device *d) { return d->link_ns || d->link_bandwidth; }

static uint64_t way(const tern__place_device *d, uint64_t bytes) {
  return d->link_ns + (d->link_bandwidth ? (uint64_t)(1e9 * (double)bytes / (double)d->link_bandwidth) : 0);
}

static uint64_t later(uint64_t a, uint64_t b) { return a > b ? a : b; }

static void bring(replay *r, const int *assignment, uint32_t v, uint32_t to) {
  const tern__place_value *x = &r->p->values[v];
  const int from = x->node >= 0 ? assignment[x->node] : x->home;
  if (from < 0 || from == (int)to || r->here[v] >> to & 1) return;
  r->here[v] |= UINT64_C(1) << to;
  r->copies++;
  if (linked(&r->p->devices[from]))
    r->host = r->device[from] = later(r->host, r->device[from]) + way(&r->p->devices[from], x->bytes);
  if (linked(&r->p->devices[to])) r->device[to] = later(r->host, r->device[to]) + way(&r->p->devices[to], x->bytes);
}

/* ns of a run; UINT64_MAX when a node cannot run where it is. */
static uint64_t run(replay *r, const int *assignment) {
  const tern__place_problem *p = r->p;
  memset(r->here, 0, (p->n_values + 1) * sizeof *r->here);
  memset(r->device, 0, sizeof r->device);
  r->host = r->copies = 0;
  r->work += p->n_nodes;
  for (uint32_t i = 0; i < p->n_nodes; i++) {
    const uint32_t d = (uint32_t)assignment[i];
    const uint64_t ns = p->time[(size_t)i * p->n_devices + d];
    if (ns == TERN__PLACE_NEVER) return UINT64_MAX;
    for (uint32_t k = p->in_first[i]; k < p->in_first[i + 1]; k++) bring(r, assignment, p->in[k], d);
    if (linked(&p->devices[d]))
      r->device[d] = later(r->host, r->device[d]) + ns;
    else
      r->host += ns;
  }
  for (uint32_t v = 0; v < p->n_values; v++)
    if (p->values[v].out >= 0) bring(r, assignment, v, (uint32_t)p->values[v].out);
  uint64_t end = r->host;
  for (uint32_t d = 0; d < p->n_devices; d++) end = later(end, r->device[d]);
  return end;
}

/* The group of each node by a number of its own; pins hold for all of a group. */
static void find_groups(const tern__place_problem *p, uint32_t *first, uint32_t *group, uint64_t *able) {
  const uint64_t all = p->n_devices == 64 ? ~UINT64_C(0) : (UINT64_C(1) << p->n_devices) - 1;
  for (uint32_t i = 0; i < p->n_nodes; i++) first[i] = UINT32_MAX;
  for (uint32_t i = 0; i < p->n_nodes; i++) {
    const int32_t g = p->group ? p->group[i] : -1;
    const bool known = g >= 0 && (uint32_t)g < p->n_nodes;
    if (known && first[g] == UINT32_MAX) first[g] = i;
    group[i] = known ? first[g] : i;
    if (group[i] == i) able[i] = all;
    for (uint32_t d = 0; d < p->n_devices; d++)
      if (p->time[(size_t)i * p->n_devices + d] == TERN__PLACE_NEVER ||
          (p->pin && p->pin[i] >= 0 && p->pin[i] != (int)d))
        able[group[i]] &= ~(UINT64_C(1) << d);
  }
}

static void move(const tern__place_problem *p, const uint32_t *group, uint32_t g, int to, int *assignment) {
  for (uint32_t i = g; i < p->n_nodes; i++)
    if (group[i] == g) assignment[i] = to;
}

/* Everything that may be on device d there, the rest as it is. */
static void gather(replay *r, const uint32_t *group, const uint64_t *able, int *trial, uint64_t *best, int *assignment,
                   tern__place_report *report) {
  const tern__place_problem *p = r->p;
  report->single = -1;
  report->single_makespan = UINT64_MAX;
  for (uint32_t d = 0; d < p->n_devices; d++) {
    bool all = true;
    for (uint32_t i = 0; i < p->n_nodes; i++) {
      const bool may = able[group[i]] >> d & 1;
      trial[i] = may ? (int)d : assignment[i];
      all = all && may;
    }
    const uint64_t ns = run(r, trial);
    if (all && ns < report->single_makespan) {
      report->single = (int)d;
      report->single_makespan = ns;
    }
    if (ns >= *best) continue;
    *best = ns;
    memcpy(assignment, trial, p->n_nodes * sizeof *trial);
  }
}

static void improve(replay *r, const uint32_t *group, const uint64_t *able, uint64_t *best, int *assignment) {
  const tern__place_problem *p = r->p;
  bool better = true;
  while (better && r->work < most_work) {
    better = false;
    for (uint32_t i = 0; i < p->n_nodes && r->work < most_work; i++) {
      if (group[i] != i) continue;
      int keep = assignment[i];
      for (uint32_t d = 0; d < p->n_devices; d++) {
        if (!(able[i] >> d & 1) || (int)d == keep) continue;
        move(p, group, i, (int)d, assignment);
        const uint64_t ns = run(r, assignment);
        if (ns >= *best) continue;
        *best = ns;
        keep = (int)d;
        better = true;
      }
      move(p, group, i, keep, assignment);
    }
  }
}

tern_rc tern__place_replay(const tern__place_problem *p, int *assignment, tern__place_report *report) {
  replay r = {.p = p, .here = tern__calloc(p->n_values + 1, sizeof *r.here)};
  uint32_t *group = tern__calloc(2 * (size_t)p->n_nodes + 1, sizeof *group);
  uint64_t *able = tern__calloc(p->n_nodes + 1, sizeof *able);
  int *trial = tern__calloc(p->n_nodes + 1, sizeof *trial);
  const bool ok = r.here && group && able && trial;
  if (ok) {
    find_groups(p, group + p->n_nodes, group, able);
    uint64_t best = run(&r, assignment);
    gather(&r, group, able, trial, &best, assignment, report);
    if (p->n_devices > 1) improve(&r, group, able, &best, assignment);
    report->makespan = run(&r, assignment);
    report->copies = r.copies;
  }
  free(r.here);
  free(group);
  free(able);
  free(trial);
  return ok ? TERN_OK : tern__fail(TERN_E_OOM, "placement: out of host memory");
}
