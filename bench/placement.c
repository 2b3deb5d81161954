/* Placement: 10,000 random graphs of up to 12 nodes on up to 3 devices against all their assignments under the same
   scheduler, and the time that a graph of 1,000 nodes takes. */
#include "bench.h"

#include "planner/place_graphs.h"

enum { GRAPHS = 10000, NODES = 1000 };

static place_graph graph; /* too large for a stack */

static void row(const char *name, const char *unit, bool higher, double value, double need) {
  const bench_row r = {name, "host", unit, NULL, higher, value, NAN, NAN, need};
  bench_print(&r);
}

/* Share of optimal answers, the worst answer as a multiple of the optimum, how many were worse than one device; the
   share once more without branch and bound. */
static int random_case(const char *name) {
  uint64_t state = 1;
  uint32_t optimal = 0, searched = 0, worse = 0;
  double worst = 1;
  for (uint32_t i = 0; i < GRAPHS; i++) {
    int at[16];
    tern__place_report r, s;
    place_graph_random(&graph, &state);
    if (tern__place_solve(&graph.problem, NULL, at, &r) ||
        tern__place_solve(&graph.problem, &(tern__place_opts){.effort = 2}, at, &s))
      return bench_fail("%s: graph %u: %s", name, i, tern_error());
    const uint64_t best = place_graph_optimum(&graph, NULL);
    if (r.makespan < best || s.makespan < best) return bench_fail("%s: graph %u: better than the optimum", name, i);
    optimal += r.makespan == best;
    searched += s.makespan == best;
    worse += r.makespan > r.single_makespan;
    if (best && (double)r.makespan / (double)best > worst) worst = (double)r.makespan / (double)best;
  }
  row("placement/optimal", "%", true, 100.0 * optimal / GRAPHS, 95);
  row("placement/worst", "x", false, worst, 1.1);
  row("placement/above_single", "graphs", false, worse, 0);
  row("placement/search_only", "%", true, 100.0 * searched / GRAPHS, NAN);
  return 0;
}

static int large_case(const char *name) {
  static const char *const names[PLACE_SHAPES] = {"placement/chain1000", "placement/wide1000", "placement/layered1000",
                                                  "placement/transformer1000"};
  static int at[PLACE_GRAPH_NODES];
  for (int shape = 0; shape < PLACE_SHAPES; shape++) {
    uint64_t state = 7;
    double ms[BENCH_PAIRS];
    place_graph_shaped(&graph, (place_shape)shape, NODES, &state);
    for (int i = 0; i < BENCH_PAIRS; i++) {
      const double start = bench_now();
      if (tern__place_solve(&graph.problem, NULL, at, NULL)) return bench_fail("%s: %s", name, tern_error());
      ms[i] = 1e3 * (bench_now() - start);
    }
    row(names[shape], "ms", false, bench_median(ms, BENCH_PAIRS), 50);
  }
  return 0;
}

static const bench_case cases[] = {{"placement/random", random_case, NULL, NULL, 0, NULL},
                                   {"placement/large", large_case, NULL, NULL, 0, NULL}};

int main(int argc, char **argv) {
  return bench_main(argc, argv, "Placement of graphs on devices.", cases, (int)(sizeof cases / sizeof *cases));
}
