/* Placement: small cases that can be worked out by hand, random graphs against all their assignments, schedules that
   keep the rules, large graphs, bad input. */
#include "base/alloc.h"
#include "graph/passes/place.h"
#include "planner/place_graphs.h"
#include "support/test.h"
#include <stdlib.h>
#include <string.h>
#include <tern/tern.h>

enum { SLICE = 300 };

static struct { place_graph g; } test; /* too large for a stack */

/* ---- by hand ---- */

/* Device 0 is the host; 1 and 2 have links of 10 ns and 1 byte a ns. */
static const tern__place_device devices[3] = {{0, 0}, {1000000000, 10}, {1000000000, 10}};

typedef struct hand {
  uint64_t time[12];
  uint32_t in_first[5], in[8];
  tern__place_value values[8];
  int32_t pin[4], group[4];
} hand;

static tern__place_problem problem_of(const hand *h, uint32_t nodes, uint32_t n_devices, uint32_t values) {
  return (tern__place_problem){.n_nodes = nodes,
                               .n_devices = n_devices,
                               .n_values = values,
                               .devices = devices,
                               .time = h->time,
                               .in_first = h->in_first,
                               .in = h->in,
                               .values = h->values};
}

static uint64_t makespan_of(const tern__place_problem *p, const int *at, uint32_t *copies) {
  uint64_t ns = 0;
  CHECK(tern__place_simulate(p, at, &ns, NULL, NULL, copies) == TERN_OK, "%s", tern_error());
  return ns;
}

/* One maker on the host, two readers: 100 bytes go to device 1 once for both of them. */
static void test_one_copy(void) {
  const hand h = {.time = {50, 50, 70, 70, 80, 80},
                  .in_first = {0, 0, 1, 2},
                  .in = {0, 0},
                  .values = {{0, -1, -1, 100}, {1, -1, -1, 100}, {2, -1, 0, 40}}};
  const tern__place_problem p = problem_of(&h, 3, 2, 3);
  uint32_t copies = 0;
  CHECK(makespan_of(&p, (const int[]){0, 1, 1}, &copies) == 50 + 110 + 80 + 70 && copies == 2,
        "made by 50, there by 160, node 2 first, since its result has a way home, then node 1: %u copies", copies);
  CHECK(makespan_of(&p, (const int[]){0, 0, 0}, &copies) == 200 && copies == 0, "everything at home");
  CHECK(makespan_of(&p, (const int[]){0, 1, 0}, &copies) == 50 + 110 + 70 && copies == 1, "side by side");
  int at[3];
  tern__place_report r = {0};
  CHECK(tern__place_solve(&p, NULL, at, &r) == TERN_OK && r.makespan == 200 && r.optimal && r.single == 0 &&
            r.single_makespan == 200 && r.copies == 0,
        "the host alone is best: %llu", (unsigned long long)r.makespan);
}

/* From device 1 to device 2: over both links, which carry one thing at a time. */
static void test_two_links(void) {
  const hand h = {.time = {9, 5, 9, 9, 5, 9, 9, 9, 7},
                  .in_first = {0, 0, 0, 2},
                  .in = {0, 1},
                  .values = {{0, -1, -1, 100}, {1, -1, -1, 20}, {2, -1, -1, 0}}};
  const tern__place_problem p = problem_of(&h, 3, 3, 3);
  uint64_t start[3], finish[3], ns;
  CHECK(tern__place_simulate(&p, (const int[]){1, 1, 2}, &ns, start, finish, NULL) == TERN_OK, "%s", tern_error());
  /* the value of node 0 is ready at 5: link 1 until 115, link 2 until 225; that of node 1 follows: 115 to 145, then
     225 to 255 */
  CHECK(start[0] == 0 && finish[1] == 10 && start[2] == 255 && ns == 262, "node 2 starts at %llu",
        (unsigned long long)start[2]);
}

static void test_parallel(void) {
  const hand h = {
      .time = {100, 100, 100, 100, 100, 100, 100, 100}, .in_first = {0, 0, 0, 0, 0}, .values = {{0, -1, -1, 0}}};
  const tern__place_problem p = problem_of(&h, 4, 2, 1);
  int at[4];
  tern__place_report r = {0};
  CHECK(tern__place_solve(&p, NULL, at, &r) == TERN_OK && r.makespan == 200 && r.lower_bound == 200 && r.optimal,
        "two on each: %llu", (unsigned long long)r.makespan);
  CHECK(at[0] + at[1] + at[2] + at[3] == 2, "two on each");
}

/* A later node with nothing to wait for uses the time in which its device waits for a copy. */
static void test_gap(void) {
  const hand h = {.time = {10, TERN__PLACE_NEVER, TERN__PLACE_NEVER, 500, TERN__PLACE_NEVER, 60},
                  .in_first = {0, 0, 1, 1},
                  .in = {0},
                  .values = {{0, -1, -1, 100}}};
  const tern__place_problem p = problem_of(&h, 3, 2, 1);
  uint64_t start[3];
  CHECK(tern__place_simulate(&p, (const int[]){0, 1, 1}, NULL, start, NULL, NULL) == TERN_OK, "%s", tern_error());
  CHECK(start[1] == 120 && start[2] == 0, "node 2 runs first: %llu", (unsigned long long)start[2]);
}

static void test_inputs(void) {
  hand h = {.time = {10, 10}, .in_first = {0, 1}, .in = {0}, .values = {{-1, 1, -1, 90}, {0, -1, 0, 40}}};
  const tern__place_problem p = problem_of(&h, 1, 2, 2);
  CHECK(makespan_of(&p, (const int[]){0}, NULL) == 110, "the input comes from device 1");
  CHECK(makespan_of(&p, (const int[]){1}, NULL) == 60, "the result goes home");
  h.values[0].home = -1;
  CHECK(makespan_of(&p, (const int[]){0}, NULL) == 10, "a constant is everywhere");
}

static void test_constraints(void) {
  hand h = {.time = {1, 100, 1, 100, 100, 1, 1, 1},
            .in_first = {0, 0, 0, 0, 0},
            .values = {{0, -1, -1, 0}},
            .pin = {-1, 1, -1, -1},
            .group = {2, -1, 2, -1}};
  tern__place_problem p = problem_of(&h, 4, 2, 1);
  p.pin = h.pin;
  p.group = h.group;
  int at[4];
  tern__place_report r = {0};
  CHECK(tern__place_solve(&p, NULL, at, &r) == TERN_OK, "%s", tern_error());
  CHECK(at[1] == 1 && at[0] == at[2] && r.single == 1, "%d %d %d, single %d", at[0], at[1], at[2], r.single);
  CHECK(tern__place_simulate(&p, (const int[]){0, 0, 0, 0}, NULL, NULL, NULL, NULL) == TERN_E_ARG, "a pin");
  CHECK_ERROR(TERN_E_ARG, "node 1");
  CHECK(tern__place_simulate(&p, (const int[]){0, 1, 1, 0}, NULL, NULL, NULL, NULL) == TERN_E_ARG, "a group");
  CHECK_ERROR(TERN_E_ARG, "group");
  h.pin[0] = 0;
  h.pin[2] = 1;
  CHECK(tern__place_solve(&p, NULL, at, &r) == TERN_E_UNSUPPORTED, "two pins in a group");
  CHECK_ERROR(TERN_E_UNSUPPORTED, "group");
  h.pin[0] = h.pin[2] = -1;
  h.time[6] = h.time[7] = TERN__PLACE_NEVER;
  CHECK(tern__place_solve(&p, NULL, at, &r) == TERN_E_UNSUPPORTED, "nothing can run node 3");
  CHECK_ERROR(TERN_E_UNSUPPORTED, "node 3");
}

static void test_malformed(void) {
  hand h = {.time = {1, 1, 1, 1}, .in_first = {0, 1, 2}, .in = {0, 1}, .values = {{0, -1, -1, 4}, {-1, 0, -1, 4}}};
  tern__place_problem p = problem_of(&h, 2, 2, 2);
  int at[2];
  CHECK(tern__place_solve(&p, NULL, at, NULL) == TERN_E_ARG, "a node that reads its own value");
  CHECK_ERROR(TERN_E_ARG, "input of node 0");
  h.in[0] = 7;
  CHECK(tern__place_solve(&p, NULL, at, NULL) == TERN_E_ARG, "a value that is not there");
  CHECK_ERROR(TERN_E_ARG, "input of node 0");
  h.in[0] = 1;
  h.values[0].out = 2;
  CHECK(tern__place_solve(&p, NULL, at, NULL) == TERN_E_ARG, "a device that is not there");
  CHECK_ERROR(TERN_E_ARG, "value 0");
  h.values[0].out = -1;
  p.n_devices = 0;
  CHECK(tern__place_solve(&p, NULL, at, NULL) == TERN_E_ARG, "no devices");
  CHECK_ERROR(TERN_E_ARG, "devices");
  tern__place_report r = {0};
  p = problem_of(&h, 0, 1, 0);
  CHECK(tern__place_solve(&p, NULL, at, &r) == TERN_OK && r.makespan == 0 && r.optimal, "an empty graph");
}

/* Every allocation fails once: OOM, or (one that only the search wanted) an answer all the same. */
static void test_oom(void) {
  uint64_t state = 5;
  int at[16];
  tern_rc rc = TERN_E_OOM;
  do place_graph_random(&test.g, &state);
  while (test.g.problem.n_nodes < 10);
  for (long k = 1; k < 100; k++) {
    tern__alloc_fail_at(k);
    rc = tern__place_solve(&test.g.problem, NULL, at, NULL);
    const long made = tern__alloc_count();
    tern__alloc_fail_at(0);
    CHECK(rc == TERN_OK || rc == TERN_E_OOM, "allocation %ld: %d %s", k, rc, tern_error());
    tern_error_clear();
    if (made < k) break;
  }
  CHECK(rc == TERN_OK, "without a failure it works");
}

/* ---- schedules keep the rules ---- */

/* Nodes of one device never overlap, and none starts before its inputs can be there. */
static void check_schedule(const tern__place_problem *p, const int *at, const char *what) {
  uint64_t *start = malloc(2 * (p->n_nodes + 1) * sizeof *start), *finish = start ? start + p->n_nodes : NULL, ns = 0;
  if (!start || tern__place_simulate(p, at, &ns, start, finish, NULL)) {
    CHECK(0, "%s: %s", what, tern_error());
    free(start);
    return;
  }
  for (uint32_t i = 0; i < p->n_nodes; i++) {
    CHECK(finish[i] - start[i] == p->time[i * p->n_devices + (uint32_t)at[i]] && finish[i] <= ns, "%s: node %u's time",
          what, i);
    for (uint32_t k = p->in_first[i]; k < p->in_first[i + 1]; k++) {
      const tern__place_value *v = &p->values[p->in[k]];
      const int from = v->node >= 0 ? at[v->node] : v->home;
      uint64_t way = 0;
      for (int end = 0; from >= 0 && from != at[i] && end < 2; end++) {
        const tern__place_device *d = &p->devices[end ? at[i] : from];
        way += d->link_ns + (d->link_bandwidth ? (uint64_t)((double)v->bytes * 1e9 / (double)d->link_bandwidth) : 0);
      }
      CHECK(start[i] >= (v->node >= 0 ? finish[v->node] : 0) + way, "%s: node %u starts before its input", what, i);
    }
    for (uint32_t j = 0; j < i; j++)
      if (at[j] == at[i] && finish[j] > start[i] && finish[i] > start[j] && finish[i] > start[i] &&
          finish[j] > start[j])
        CHECK(0, "%s: nodes %u and %u overlap", what, j, i);
  }
  free(start);
}

static void test_random(void) {
  uint64_t state = 1;
  uint32_t optimal = 0;
  double worst = 1;
  for (uint32_t i = 0; i < SLICE; i++) {
    int at[16], again[16];
    tern__place_report r = {0}, s = {0};
    char what[32];
    place_graph_random(&test.g, &state);
    snprintf(what, sizeof what, "graph %u", i);
    CHECK(tern__place_solve(&test.g.problem, NULL, at, &r) == TERN_OK, "%s: %s", what, tern_error());
    CHECK(tern__place_solve(&test.g.problem, NULL, again, &s) == TERN_OK, "%s: %s", what, tern_error());
    CHECK(!memcmp(at, again, test.g.problem.n_nodes * sizeof *at) && r.work == s.work, "%s: the same twice", what);
    const uint64_t best = place_graph_optimum(&test.g, NULL);
    CHECK(r.makespan == makespan_of(&test.g.problem, at, NULL), "%s: what it says", what);
    CHECK(r.makespan <= r.single_makespan && r.makespan >= best && r.lower_bound <= best, "%s: bounds", what);
    CHECK(!r.optimal || r.makespan == best, "%s: a proof of what is not so", what);
    optimal += r.makespan == best;
    if (best && (double)r.makespan / (double)best > worst) worst = (double)r.makespan / (double)best;
    check_schedule(&test.g.problem, at, what);
  }
  CHECK(optimal * 100 >= 95 * SLICE && worst <= 1.1, "%u of %d optimal, at worst %.3f times the optimum", optimal,
        SLICE, worst);
}

/* Less effort is allowed to be worse, but never than one device; more is never worse. */
static void test_efforts(void) {
  uint64_t state = 99;
  for (int i = 0; i < 100; i++) {
    int at[16];
    place_graph_random(&test.g, &state);
    uint64_t before = UINT64_MAX;
    for (int effort = 1; effort <= 5; effort++) {
      tern__place_report r = {0};
      CHECK(tern__place_solve(&test.g.problem, &(tern__place_opts){.effort = effort}, at, &r) == TERN_OK, "%s",
            tern_error());
      CHECK(r.makespan <= before && r.makespan <= r.single_makespan, "graph %d: effort %d", i, effort);
      before = r.makespan;
    }
  }
}

static void test_large(void) {
  static int at[PLACE_GRAPH_NODES];
  for (int shape = 0; shape < PLACE_SHAPES; shape++) {
    uint64_t state = 7;
    tern__place_report first = {0}, r = {0}, hurried = {0};
    char what[32];
    snprintf(what, sizeof what, "shape %d", shape);
    place_graph_shaped(&test.g, (place_shape)shape, 1000, &state);
    CHECK(tern__place_solve(&test.g.problem, &(tern__place_opts){.effort = 1}, at, &first) == TERN_OK, "%s",
          tern_error());
    CHECK(tern__place_solve(&test.g.problem, &(tern__place_opts){.seconds = 1e-9}, at, &hurried) == TERN_OK, "%s",
          tern_error());
    CHECK(tern__place_solve(&test.g.problem, NULL, at, &r) == TERN_OK, "%s", tern_error());
    CHECK(r.makespan <= first.makespan && r.makespan <= hurried.makespan && r.makespan >= r.lower_bound &&
              r.makespan <= r.single_makespan && hurried.makespan <= hurried.single_makespan,
          "%s: makespan %llu, first %llu", what, (unsigned long long)r.makespan, (unsigned long long)first.makespan);
    check_schedule(&test.g.problem, at, what);
  }
}

static const test_case cases[] = {{"a value goes to a device once", test_one_copy},
                                  {"from device to device through the host", test_two_links},
                                  {"independent nodes side by side", test_parallel},
                                  {"idle time is used", test_gap},
                                  {"inputs, constants and results", test_inputs},
                                  {"capabilities, pins and groups", test_constraints},
                                  {"malformed problems", test_malformed},
                                  {"memory runs out", test_oom},
                                  {"random graphs against all assignments", test_random},
                                  {"efforts", test_efforts},
                                  {"1000 nodes of four shapes", test_large}};
TEST_MAIN("planner/place", cases)
