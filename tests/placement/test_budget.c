/* memory_budget: less memory for more work, and the same results. On the CPU, where results are the same bits,
   except for sums, whose order follows what they are fused with. */
#include "graph/random_graph.h"
#include "graph/traced.h"
#include "placement/simulated.h"
#include <stdlib.h>
#include <string.h>

static const uint64_t budgets[] = {0, 1u << 20, 300000, 200000, 120000, 60000, 20000, 1};
enum { BUDGETS = sizeof budgets / sizeof *budgets, LAYERS = 8 };

/* Layers whose activations the gradient needs: they wait through the whole forward pass. in[0]: 64 x 64 */
static tern_tensor *layers(simulated_work *w, tern_tensor *x) {
  for (int i = 0; i < LAYERS; i++) x = tern_tanh(tern_add(tern_matmul(x, w->variable[4]), tern_sin(x)));
  return tern_sum(tern_square(x), NULL);
}

BODY(gradients) {
  UNUSED;
  simulated_work *w = self;
  tern_tensor *gradient[2];
  tern_tape *tape = tern_tape_begin(NULL);
  tern_tape_watch(tape, in[0]);
  out[0] = layers(w, in[0]);
  const tern_rc rc = tern_tape_gradient(tape, out[0], (tern_tensor *[]){w->variable[4], in[0]}, 2, gradient);
  out[1] = gradient[0];
  out[2] = gradient[1];
  return rc;
}
BODY(with_noise) { /* draws that the gradient needs again: each is one draw */
  UNUSED;
  simulated_work *w = self;
  tern_tensor *gradient, *x = in[0];
  tern_tape *tape = tern_tape_begin(NULL);
  tern_tape_watch(tape, in[0]);
  for (int i = 0; i < LAYERS; i++) {
    tern_tensor *noise = tern_random_normal(TERN_SHAPE(64, 64), &(tern_random_opts){.stddev = 0.5});
    x = tern_mul(tern_dropout(tern_add(tern_tanh(tern_matmul(x, w->variable[4])), tern_sin(x)), 0.3, NULL),
                 tern_exp(noise));
  }
  out[0] = x;
  const tern_rc rc = tern_tape_gradient(tape, tern_sum(x, NULL), &in[0], 1, &gradient);
  out[1] = gradient;
  out[2] = tern_sum(x, NULL);
  return rc;
}
BODY(with_assignments) { /* a variable that changes between where a value is made and where it is made again */
  UNUSED;
  simulated_work *w = self;
  tern_tensor *v = w->variable[4], *kept[LAYERS], *sum = tern_zeros_like(in[0]);
  for (int i = 0; i < LAYERS; i++) {
    kept[i] = tern_exp(tern_mul(v, in[0])); /* of the value before the assignment */
    if (tern_assign(v, tern_mul(tern_matmul(v, in[0]), tern_scalar(0.1)))) return tern_error_code();
  }
  for (int i = LAYERS; i-- > 0;) sum = tern_cumsum(tern_add(sum, kept[i]), 0, NULL);
  out[0] = sum;
  out[1] = tern_add(v, tern_scalar(0));
  out[2] = tern_sum(kept[0], NULL);
  return TERN_OK;
}
BODY(twice) {
  UNUSED;
  out[0] = tern_mul(in[0], tern_scalar(0.5));
  return out[0] ? TERN_OK : tern_error_code();
}
BODY(half_sum) {
  UNUSED;
  out[0] = tern_add(in[0], tern_scalar(1));
  return out[0] ? TERN_OK : tern_error_code();
}
BODY(large) {
  UNUSED;
  return simulated_one(tern_greater(tern_sum(tern_abs(in[0]), NULL), tern_scalar(1)), out);
}
BODY(with_control) {
  UNUSED;
  tern_tensor *kept[LAYERS], *x = in[0], *sum;
  tern_rc rc = TERN_OK;
  for (int i = 0; i < LAYERS && !rc; i++) {
    kept[i] = tern_exp(tern_cumsum(tern_mul(in[0], tern_scalar(1 + i)), 0, NULL));
    if (i % 2)
      rc = tern_cond(tern_greater(tern_sum(x, NULL), tern_scalar(0)), twice, half_sum, NULL, &x, 1, &x, 1);
    else
      rc = tern_while(large, twice, NULL, &x, 1, &x, NULL);
  }
  sum = x;
  for (int i = LAYERS; i-- > 0 && !rc;) sum = tern_cumsum(tern_mul(sum, tern_tanh(kept[i])), 1, NULL);
  out[0] = sum;
  out[1] = x;
  out[2] = kept[0];
  return rc;
}

typedef struct outcome {
  double *value[4]; /* results, then the variable */
  uint64_t arena;
  uint32_t nodes;
} outcome;

static void forget(outcome *o) {
  for (int i = 0; i < 4; i++) free(o->value[i]);
  *o = (outcome){0};
}

/* Two calls from the same start with a budget; the second one's results. */
static bool run_with(const char *name, tern_function_body body, uint64_t budget, outcome *o) {
  TERN_SCOPE;
  simulated_work w = {.n_variables = 0};
  w.variable[4] = tern_variable(tern_mul(simulated_numbers(TERN_SHAPE(64, 64), 9), tern_scalar(0.2)), NULL);
  tern_set_seed(77);
  tern_tensor *x = simulated_numbers(TERN_SHAPE(64, 64), 4), *out[3];
  tern_function *f =
      tern_function_new(body, &w, 1, 3, &(tern_function_opts){.name = name, .memory_budget = budget, .fixed_sizes = 1});
  tern_rc rc = tern_function_run(f, &x, 1, out, 3);
  if (!rc) rc = tern_function_run(f, &x, 1, out, 3);
  CHECK(!rc, "%s, budget %llu: %s", name, (unsigned long long)budget, tern_error());
  tern_error_clear();
  tern_function_info info = {0};
  tern_function_get_info(f, &info);
  *o = (outcome){.arena = info.arena_bytes, .nodes = info.nodes};
  for (int i = 0; i < 3 && !rc; i++) o->value[i] = test_values(out[i]);
  if (!rc) o->value[3] = test_values(w.variable[4]);
  if (getenv("TERN_TEST_VERBOSE")) {
    char *text = tern_explain(f);
    printf("%s, budget %llu: %s\n", name, (unsigned long long)budget, text);
    free(text);
  }
  tern_function_release(f);
  tern_release(w.variable[4]);
  return !rc;
}

static void compare(const char *name, const outcome *got, const outcome *expected, const int64_t n[4],
                    uint64_t budget) {
  for (int i = 0; i < 4; i++) {
    bool same = got->value[i] && expected->value[i] &&
                !memcmp(got->value[i], expected->value[i], (size_t)n[i] * sizeof(double));
    double worst = 0;
    for (int64_t k = 0; !same && got->value[i] && expected->value[i] && k < n[i]; k++) {
      const double off = test_ulps(got->value[i][k], expected->value[i][k], TERN_F32);
      worst = off > worst ? off : worst;
    }
    same = same || (n[i] == 1 && worst <= 8); /* a sum over 4096, fused with other ops */
    CHECK(same, "%s, budget %llu, value %d: %g ulps apart", name, (unsigned long long)budget, i, worst);
  }
}

static void shrinks(const char *name, tern_function_body body, const int64_t n[4], double least) {
  outcome first, before = {0};
  if (!run_with(name, body, 0, &first)) return;
  before.arena = first.arena;
  uint64_t smallest = first.arena;
  for (int b = 1; b < BUDGETS; b++) {
    outcome o;
    if (!run_with(name, body, budgets[b], &o)) break;
    CHECK(o.arena <= before.arena || o.arena <= budgets[b],
          "%s: %llu bytes with a budget of %llu, %llu with a larger one", name, (unsigned long long)o.arena,
          (unsigned long long)budgets[b], (unsigned long long)before.arena);
    CHECK(first.arena > budgets[b] || o.nodes == first.nodes, "%s: %u nodes instead of %u within the budget", name,
          o.nodes, first.nodes);
    compare(name, &o, &first, n, budgets[b]);
    before.arena = o.arena;
    smallest = o.arena < smallest ? o.arena : smallest;
    forget(&o);
  }
  printf("(%s: %llu to %llu bytes) ", name, (unsigned long long)first.arena, (unsigned long long)smallest);
  CHECK((double)smallest <= least * (double)first.arena, "%s: %llu bytes at best, from %llu", name,
        (unsigned long long)smallest, (unsigned long long)first.arena);
  forget(&first);
}

static const int64_t scalar_first[] = {1, 4096, 4096, 4096}, scalar_last[] = {4096, 4096, 1, 4096},
                     whole[] = {4096, 4096, 4096, 4096};
static void test_gradients(void) { shrinks("gradients", gradients, scalar_first, 0.7); }
static void test_noise(void) { shrinks("noise", with_noise, scalar_last, 0.9); }
static void test_assignments(void) { shrinks("assignments", with_assignments, scalar_last, 0.7); }
static void test_control(void) { shrinks("control", with_control, whole, 0.7); }

/* ---- random programs with a budget that nothing fits ---- */

static tern_rc operands(void *self, int call, tern_tensor **in) { return random_graph_operands(self, call, in); }

static void random_programs(void) {
  static random_graph g;
  traced_count count = {0};
  int failed = 0;
  for (uint64_t seed = 5000; seed < 5200 && failed < 3; seed++) {
    double slack[RANDOM_OUTPUTS + 2];
    char name[64];
    if (!CHECK(random_graph_make(&g, seed, 10 + (int)(seed * 7 % 48)), "seed %d: %s", (int)seed, tern_error())) return;
    for (int o = 0; o < g.n_outputs; o++) slack[o] = 2 * g.form[g.output[o]].error;
    for (int v = 0; v < 2; v++) slack[g.n_outputs + v] = 2 * g.variable_error[v];
    snprintf(name, sizeof name, "seed %llu, within 1 byte", (unsigned long long)seed);
    const traced t = {.name = name,
                      .body = random_graph_body,
                      .operands = operands,
                      .self = &g,
                      .n_in = g.n_inputs,
                      .n_out = g.n_outputs,
                      .n_calls = 4,
                      .variables = g.variable,
                      .n_variables = 2,
                      .slack = slack};
    const bool ok = traced_check(&t, &(tern_function_opts){.memory_budget = 1}, &count);
    failed += !ok;
    if (!ok) random_graph_print(&g);
    random_graph_end(&g);
  }
  printf("(%d calls, %d results compared) ", count.calls, count.compared);
}

static const test_case cases[] = {{"gradients", test_gradients},
                                  {"random numbers", test_noise},
                                  {"assignments", test_assignments},
                                  {"control flow", test_control},
                                  {"random programs", random_programs}};
TEST_MAIN("memory budget", cases)
