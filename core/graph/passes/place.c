/* tern__place_solve: first answers (everything on each device; HEFT, with lookahead, over clusters), local search from
   the best of them (place_search.c), shaken restarts, and for few units branch and bound with a budget of positions
   (place_exact.c), which is complete where the assignments are very few. Budgets count simulated positions, so the same
   problem has the same answer on every machine. */
#include "graph/passes/place_internal.h"
#include "base/alloc.h"
#include "base/thread.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TINY_UNITS = 6, FEW_UNITS = 24, MANY_UNITS = 200, STARTS = 8, QUIET_ROUNDS = 40 };
static const uint64_t search_work = 300000, exact_work = 30000;

typedef struct first_answer {
  place_cost cost;
  uint8_t *at;
} first_answer;

typedef struct solver {
  place_search q;
  first_answer start[STARTS]; /* the best ones, best first, without equals */
  uint32_t n_starts;
  uint32_t *parent;
  uint64_t *mask;
  void *memory;
} solver;

static void keep_best(place_search *q) {
  if (!place__better(q->s->base, q->best_cost)) return;
  q->best_cost = q->s->base;
  memcpy(q->best, q->s->at, q->s->n);
}

/* s->at, scheduled, among the starts. */
static void add_start(solver *v) {
  place *s = v->q.s;
  place__rebase(s, 0);
  keep_best(&v->q);
  uint32_t at = 0;
  while (at < v->n_starts && !place__better(s->base, v->start[at].cost)) {
    if (!memcmp(v->start[at].at, s->at, s->n)) return;
    at++;
  }
  if (at == STARTS) return;
  uint8_t *room = v->start[v->n_starts < STARTS ? v->n_starts : STARTS - 1].at;
  if (v->n_starts < STARTS) v->n_starts++;
  memmove(v->start + at + 1, v->start + at, (v->n_starts - 1 - at) * sizeof *v->start);
  v->start[at] = (first_answer){s->base, room};
  memcpy(room, s->at, s->n);
}

static void first_answers(solver *v, tern__place_report *report) {
  place *s = v->q.s;
  report->single = -1;
  report->single_makespan = UINT64_MAX;
  for (uint32_t d = 0; d < s->n_devices; d++) {
    bool all = true;
    for (uint32_t u = 0; u < s->n_units && all; u++) all = s->mask[u] >> d & 1;
    place__all_on(s, d);
    add_start(v);
    if (all && s->base.makespan < report->single_makespan) {
      report->single = (int)d;
      report->single_makespan = s->base.makespan;
    }
  }
  for (int how = 0; how < PLACE_GREEDY_END; how++) {
    place__greedy(s, how, v->parent, v->mask);
    add_start(v);
  }
}

/* Longest path with every choice free, and for each few devices the work that only they can do */
static uint64_t lower_bound(const place *s) {
  uint64_t bound = 0;
  for (uint32_t i = 0; i < s->n; i++) {
    uint64_t least = UINT64_MAX;
    for (uint32_t d = 0; d < s->n_devices; d++) {
      const size_t x = (size_t)i * s->n_devices + d;
      if (s->time[x] != TERN__PLACE_NEVER && s->head[x] + s->tail[x] < least) least = s->head[x] + s->tail[x];
    }
    bound = least > bound ? least : bound;
  }
  for (uint32_t o = 0; o < s->n_outs; o++) {
    const uint32_t v = s->outs[o];
    const uint64_t way = s->maker[v] < 0 ? place__way(s, v, s->home[v], (uint32_t)s->out[v]) : 0;
    bound = way > bound ? way : bound;
  }
  const uint64_t whole = s->n_devices == 64 ? ~UINT64_C(0) : (UINT64_C(1) << s->n_devices) - 1;
  for (uint64_t set = s->n_devices <= 5 ? 1 : whole; set <= whole && set; set++) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < s->n; i++) {
      uint64_t least = UINT64_MAX;
      if (s->mask[s->unit[i]] & ~set) continue;
      for (uint32_t d = 0; d < s->n_devices; d++)
        if (s->time[(size_t)i * s->n_devices + d] < least) least = s->time[(size_t)i * s->n_devices + d];
      sum += least;
    }
    const uint64_t devices = (uint64_t)__builtin_popcountll(set);
    bound = (sum + devices - 1) / devices > bound ? (sum + devices - 1) / devices : bound;
    if (set == whole) break;
  }
  return bound;
}

static void search_from(solver *v, const uint8_t *at) {
  place *s = v->q.s;
  if (at != s->at) memcpy(s->at, at, s->n);
  place__rebase(s, 0);
  place__improve(&v->q);
  keep_best(&v->q);
}

static void search(solver *v, uint64_t bound, uint64_t work) {
  place_search *q = &v->q;
  place *s = q->s;
  const uint64_t end = s->work + work;
  for (uint32_t k = 0; k < v->n_starts && q->best_cost.makespan > bound; k++) {
    q->limit = s->n_units > MANY_UNITS ? s->work + (end - s->work) / 2 : end;
    if (s->work < end) search_from(v, v->start[k].at);
  }
  q->limit = end;
  for (uint32_t quiet = 0; quiet < QUIET_ROUNDS && q->best_cost.makespan > bound && !place__out_of_time(q); quiet++) {
    const place_cost before = q->best_cost;
    memcpy(s->at, q->best, s->n);
    place__shake(q, 1 + quiet % 3);
    search_from(v, s->at);
    if (place__better(q->best_cost, before)) quiet = 0;
  }
}

static void solve(solver *v, const tern__place_opts *opts, tern__place_report *report) {
  place_search *q = &v->q;
  place *s = q->s;
  const int effort = opts && opts->effort > 0 ? opts->effort : 3;
  const uint64_t times = effort > 3 ? UINT64_C(1) << (effort - 3 < 20 ? effort - 3 : 20) : 1;
  q->best_cost = (place_cost){UINT64_MAX, UINT64_MAX};
  first_answers(v, report);
  report->lower_bound = lower_bound(s);
  const bool tiny = s->n_units <= TINY_UNITS && s->n_devices <= 4 && effort > 1;
  if (tiny) report->optimal = place__exact(q, UINT64_MAX);
  if (!tiny && effort > 1) search(v, report->lower_bound, search_work * times);
  if (!tiny && effort > 2 && s->n_units <= FEW_UNITS && q->best_cost.makespan > report->lower_bound)
    report->optimal = place__exact(q, exact_work * times);
  if (q->best_cost.makespan <= report->lower_bound) report->optimal = true;
}

static bool make_room(solver *v) {
  const size_t n = v->q.s->n + 1, u = v->q.s->n_units + 1;
  char *at = v->memory =
      tern__calloc(1, u * (4 * sizeof(uint32_t) + sizeof(uint64_t) + 1) + n * (sizeof(uint32_t) + STARTS + 1));
  if (!at) return false;
  v->mask = (uint64_t *)(void *)at;
  v->parent = (uint32_t *)(v->mask + u);
  v->q.queue = v->parent + u;
  v->q.mark = v->q.queue + u;
  v->q.list = v->q.mark + u;
  v->q.ends = v->q.list + u;
  v->q.seen = (uint8_t *)(v->q.ends + n);
  v->q.best = v->q.seen + u;
  for (int k = 0; k < STARTS; k++) v->start[k].at = v->q.best + (size_t)(k + 1) * n;
  return true;
}

tern_rc tern__place_solve(const tern__place_problem *problem, const tern__place_opts *opts, int *assignment,
                          tern__place_report *report) {
  solver v = {.q = {.random = 1}};
  tern__place_report r = {0};
  tern_rc rc = place__prepare(problem, &v.q.s);
  if (rc) return rc;
  place *s = v.q.s;
  if (opts && opts->seconds > 0) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    v.q.deadline = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec + opts->seconds;
  }
  if (make_room(&v)) {
    solve(&v, opts, &r);
    memcpy(s->at, v.q.best, s->n);
    place__rebase(s, 0);
    r.makespan = s->base.makespan;
    r.copies = place__copies(s);
    r.work = s->work;
    for (uint32_t i = 0; i < s->n; i++) assignment[s->order[i]] = s->at[i];
    if (report) *report = r;
  } else {
    rc = tern__fail(TERN_E_OOM, "placement: out of host memory");
  }
  free(v.memory);
  place__free(s);
  return rc;
}
