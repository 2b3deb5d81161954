/* Random programs, eagerly and as functions: without passes (the same bits), and simplified and fused (as far as
   rounding allows); seven calls with sizes that change. `test_random_graphs SEED N` or TERN_TEST_SEEDS=N runs N seeds
   from SEED on; a seed that fails prints its program. */
#include "graph/random_graph.h"
#include "graph/traced.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <tern/tern.h>

enum { CALLS = 7 };
static uint64_t first_seed = 1;
static int seeds;

static bool on_opencl(void) { return !strncmp(tern_default_device(), "opencl", 6); }

static tern_rc operands(void *self, int call, tern_tensor **in) { return random_graph_operands(self, call, in); }

static bool run_seed(uint64_t seed, traced_count *count) {
  static random_graph g;
  double slack[RANDOM_OUTPUTS + 2];
  char name[64];
  if (!CHECK(random_graph_make(&g, seed, 5 + (int)(seed * 7 % 56)), "seed %llu: %s", (unsigned long long)seed,
             tern_error()))
    return false;
  for (int o = 0; o < g.n_outputs; o++) slack[o] = 2 * g.form[g.output[o]].error;
  for (int v = 0; v < 2; v++) slack[g.n_outputs + v] = 2 * g.variable_error[v];
  traced t = {.name = name,
              .body = random_graph_body,
              .operands = operands,
              .self = &g,
              .n_in = g.n_inputs,
              .n_out = g.n_outputs,
              .n_calls = on_opencl() ? 3 : CALLS,
              .variables = g.variable,
              .n_variables = 2};
  static const tern_function_opts plain = {.name = "plain", .no_simplify = 1, .no_fuse = 1},
                                  unfused = {.name = "unfused", .no_fuse = 1},
                                  fused = {.name = "fused", .no_simplify = 1};
  snprintf(name, sizeof name, "seed %llu, plain", (unsigned long long)seed);
  bool ok = traced_check(&t, &plain, count);
  t.slack = slack;
  snprintf(name, sizeof name, "seed %llu, fused", (unsigned long long)seed);
  ok = ok && traced_check(&t, &fused, count);
  snprintf(name, sizeof name, "seed %llu, simplified", (unsigned long long)seed);
  ok = ok && (on_opencl() || traced_check(&t, &unfused, count));
  snprintf(name, sizeof name, "seed %llu, simplified and fused", (unsigned long long)seed);
  ok = ok && traced_check(&t, NULL, count);
  if (!ok) random_graph_print(&g);
  random_graph_end(&g);
  return ok;
}

static void programs(void) {
  traced_count n = {0};
  int failed = 0;
  for (int i = 0; i < seeds && failed < 3; i++) failed += !run_seed(first_seed + (uint64_t)i, &n);
  printf("(%d seeds from %llu: %d functions, %d calls, %d results compared; %d functions traced more than five times; "
         "%d calls left out) ",
         seeds, (unsigned long long)first_seed, n.functions, n.calls, n.compared, n.many_traces, n.left_out);
  CHECK(n.left_out == 0, "%d calls fail eagerly", n.left_out);
}

static const test_case cases[] = {{"programs", programs}};

int main(int argc, char **argv) {
  const char *more = getenv("TERN_TEST_SEEDS");
  seeds = more ? atoi(more) : on_opencl() ? 12 : 3000;
  if (argc > 1) first_seed = strtoull(argv[1], NULL, 10);
  if (argc > 2) seeds = atoi(argv[2]);
  return test_main(1, argv, "random graphs", cases, 1);
}
