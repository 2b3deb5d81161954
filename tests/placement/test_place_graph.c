/* TERN_PLACEMENT=auto over the CPU and simulated devices: results are those of eager ops, what the program pins stays,
   values are copied once, and the simulated clocks say that a placement is worth it. Case lists with other devices run
   in children (options are read once a process). */
#include "device/device.h"
#include "graph/passes/cost.h"
#include "graph/random_graph.h"
#include "graph/traced.h"
#include "placement/simulated.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define FEW_OPS "ops=copy|add|sub|mul|maximum|minimum,dtypes=float32"
/* gpu: all ops, fast; fpga: few ops, faster still at those */
#define DEVICES                                       \
  "gpu:kind=gpu,flops=1e14,bandwidth=1e13,link=1e13;" \
  "fpga:kind=fpga," FEW_OPS ",flops=1e14,bandwidth=1e14,link=1e13"
enum { GPU, FPGA };
/* all but scans and sorts */
#define MOST_OPS                                                                                                      \
  "ops=copy|cast|neg|exp|sqrt|abs|sign|rsqrt|reciprocal|exp2|expm1|log|log2|log1p|sin|cos|tanh|erf|floor|ceil|round|" \
  "trunc|not|isnan|isfinite|add|sub|mul|div|maximum|minimum|pow|floordiv|mod|and|or|xor|shl|shr|eq|ne|lt|le|gt|ge|"   \
  "where|sum|amax|amin|prod|any|all|argmax|argmin|dot|gather|scatter|rng|iota"

/* ---- bodies ---- */

BODY(convolutions) {
  UNUSED;
  const simulated_work *w = self;
  tern_tensor *filters = tern_reshape(tern_slice(w->w[0], (tern_range[]){TERN_RANGE(0, 9, 1), TERN_RANGE(0, 4, 1)}, 2),
                                      TERN_SHAPE(3, 3, 2, 2));
  tern_tensor *x = tern_reshape(in[0], TERN_SHAPE(1, 8, 8, 2));
  tern_tensor *y = tern_relu(tern_conv(x, filters, &(tern_conv_opts){.padding = TERN_PAD_SAME}));
  out[1] = tern_mean(y, NULL);
  return simulated_one(tern_max_pool(y, NULL), out);
}
BODY(pieces) {
  UNUSED;
  tern_tensor *x = in[0];
  tern_tensor *left = tern_slice(x, (tern_range[]){TERN_ALL, TERN_RANGE(0, 8, 1)}, 2);
  tern_tensor *right = tern_exp(tern_slice(x, (tern_range[]){TERN_ALL, TERN_RANGE(8, TERN_OPEN, 1)}, 2));
  tern_tensor *both = tern_concat((tern_tensor *[]){tern_mul(left, right), tern_add(left, right), left}, 3, 1);
  tern_tensor *padded = tern_pad(both, (tern_padding[]){{1, 1}, {0, 2}}, 2, 0.5);
  out[1] = tern_cumsum(tern_transpose(padded), 0, NULL);
  out[2] = tern_take(padded, tern_constant(TERN_SHAPE(3), TERN_I64, (int64_t[]){4, 0, 4}, 3), 0);
  return simulated_one(tern_add(tern_reshape(padded, TERN_SHAPE(-1)), tern_flatten(padded)), out);
}
BODY(through) { /* results that are an operand, a view of one, a constant, a view of what is made, and twice the same */
  UNUSED;
  const simulated_work *w = self;
  tern_tensor *y = tern_matmul(in[0], w->w[0]);
  out[1] = tern_transpose(in[0]);
  out[2] = tern_ones(TERN_SHAPE(3), TERN_F32);
  out[3] = tern_transpose(y);
  out[4] = y;
  return simulated_one(in[0], out);
}
BODY(positive) {
  UNUSED;
  return simulated_one(tern_matmul(in[0], tern_transpose(in[0])), out);
}
BODY(negative) {
  UNUSED;
  tern_tensor *y = tern_sin(in[0]);
  return simulated_one(tern_matmul(y, tern_transpose(y)), out);
}
BODY(small) {
  UNUSED;
  return simulated_one(tern_less(tern_sum(tern_abs(in[0]), NULL), tern_scalar(1000)), out);
}
BODY(larger) {
  UNUSED;
  return simulated_one(tern_add(tern_mul(in[0], tern_scalar(2)), tern_sin(in[0])), out);
}
BODY(decisions) {
  UNUSED;
  tern_tensor *y = tern_mul(in[0], tern_scalar(0.5)), *z, *last;
  tern_rc rc = tern_cond(tern_greater(tern_sum(y, NULL), tern_scalar(0)), positive, negative, NULL, &y, 1, &z, 1);
  if (!rc) rc = tern_while(small, larger, NULL, &z, 1, &last, NULL);
  return rc ? rc : simulated_one(tern_matmul(last, y), out);
}
BODY(draws) {
  UNUSED;
  tern_tensor *noise = tern_random_normal(TERN_SHAPE(8, 16), &(tern_random_opts){.stddev = 1, .dtype = TERN_F32});
  out[1] = tern_dropout(noise, 0.5, NULL);
  return simulated_one(tern_add(in[0], tern_mul(noise, tern_scalar(0.1))), out);
}
BODY(counts) { /* a variable read, assigned, read again */
  UNUSED;
  simulated_work *w = self;
  tern_tensor *before = tern_mul(w->variable[0], tern_scalar(2));
  if (tern_assign(w->variable[0], tern_sin(before)) || tern_assign_add(w->variable[3], tern_sum(in[0], NULL)))
    return tern_error_code();
  out[1] = before;
  return simulated_one(tern_matmul(in[0], w->variable[0]), out);
}
BODY(other_types) {
  UNUSED;
  tern_tensor *i = tern_cast(tern_mul(in[0], tern_scalar(100)), TERN_I32);
  out[1] = tern_argmax(in[0], NULL);
  out[2] = tern_sum(tern_cast(in[0], TERN_F64), NULL);
  return simulated_one(tern_where(tern_greater(i, tern_scalar_int(3)), i, tern_neg(i)), out);
}

static const struct {
  const char *name;
  tern_function_body body;
  int n_in, n_out;
} functions[] = {
    {"mlp", simulated_mlp, 1, 1}, {"training", simulated_train, 2, 1}, {"convolutions", convolutions, 1, 2},
    {"pieces", pieces, 1, 3},     {"through", through, 1, 5},          {"decisions", decisions, 1, 1},
    {"draws", draws, 1, 2},       {"variables", counts, 1, 2},         {"other types", other_types, 1, 3}};

/* ---- the same results ---- */

typedef struct kept {
  tern_tensor *value[16];
  char device[16][40];
  int n;
} kept;

static void keep_all(kept *k, simulated_work *w, tern_tensor *const *out, int n_out) {
  k->n = 0;
  for (int i = 0; i < n_out + w->n_variables; i++) {
    tern_tensor *t = i < n_out ? out[i] : w->variable[i - n_out];
    snprintf(k->device[k->n], sizeof k->device[0], "%s", t ? tern_device_get(t) : "");
    k->value[k->n++] = tern_clone(t);
  }
}

/* Three calls; the last one's results and the variables behind it are kept. text: what became of it. */
static bool run_three(int which, bool function, kept *k, char **text) {
  simulated_work w;
  simulated_work_make(&w);
  const int n_in = functions[which].n_in, n_out = functions[which].n_out;
  tern_function *f = tern_function_new(functions[which].body, &w, n_in, n_out, NULL);
  tern_tensor *out[8] = {0};
  tern_rc rc = TERN_OK;
  tern_set_seed(5);
  for (int call = 0; call < 3 && !rc; call++) {
    const bool flat = functions[which].body == convolutions;
    tern_tensor *in[] = {simulated_numbers(flat ? TERN_SHAPE(128) : TERN_SHAPE(8, 16), 7 + (uint64_t)call),
                         simulated_numbers(TERN_SHAPE(8, 4), 17 + (uint64_t)call)};
    rc = function ? tern_function_run(f, in, n_in, out, n_out) : functions[which].body(&w, in, n_in, out, n_out);
  }
  CHECK(rc == 0, "%s, %s: %s", functions[which].name, function ? "as a function" : "eagerly", tern_error());
  tern_error_clear();
  if (!rc) keep_all(k, &w, out, n_out);
  if (text) *text = tern_explain(f);
  tern_function_release(f);
  simulated_work_end(&w);
  return !rc;
}

static void same_results(void) {
  for (int i = 0; i < (int)(sizeof functions / sizeof *functions); i++) {
    TERN_SCOPE;
    kept eager = {0}, placed = {0};
    char *text = NULL;
    if (run_three(i, false, &eager, NULL) && run_three(i, true, &placed, &text)) {
      CHECK(text && strstr(text, "placement:"), "%s: %s", functions[i].name, text ? text : tern_error());
      for (int k = 0; k < eager.n; k++) {
        char what[200];
        CHECK(traced_same(placed.value[k], eager.value[k], 64, 1e-6, what, sizeof what), "%s, %d: %s",
              functions[i].name, k, what);
        CHECK(!strcmp(eager.device[k], placed.device[k]), "%s, %d is on %s instead of %s", functions[i].name, k,
              placed.device[k], eager.device[k]);
      }
    }
    if (getenv("TERN_TEST_VERBOSE")) printf("%s\n", text ? text : "");
    free(text);
  }
}

/* ---- where things are ---- */

static tern_function_info info_of(tern_function *f) {
  tern_function_info info = {0};
  CHECK(!tern_function_get_info(f, &info), "%s", tern_error());
  return info;
}

BODY(much_used) { /* x and the constants are read by several launches, the product by several */
  UNUSED;
  const simulated_work *w = self;
  tern_tensor *a = tern_matmul(in[0], w->w[0]), *b = tern_matmul(tern_cumsum(in[0], 0, NULL), w->w[0]);
  tern_tensor *c = tern_matmul(tern_cumsum(tern_add(a, b), 1, NULL), w->w[2]);
  return simulated_one(tern_add(tern_sum(tern_mul(c, c), NULL), tern_sum(tern_cumsum(tern_sin(a), 1, NULL), NULL)),
                       out);
}

/* All of it fits the fast device best: the operand goes there once, the result comes back, constants went before. */
static void few_copies(void) {
  TERN_SCOPE;
  simulated_work w;
  simulated_work_make(&w);
  tern_function *f = tern_function_new(much_used, &w, 1, 1, &(tern_function_opts){.fixed_sizes = 1});
  tern_tensor *x = simulated_numbers(TERN_SHAPE(8, 16), 3);
  CHECK(tern_call(f, x) != NULL && tern_call(f, x) != NULL, "%s", tern_error());
  char *text = tern_explain(f);
  CHECK(info_of(f).copies == 2, "%u copies:\n%s", info_of(f).copies, text);
  const virtual_clock before = simulated_clock(GPU);
  for (int i = 0; i < 10; i++) CHECK(tern_call(f, x) != NULL, "%s", tern_error());
  const virtual_clock after = simulated_clock(GPU);
  CHECK(after.copies - before.copies == 20 && after.bytes - before.bytes == 10 * (8 * 16 * 4 + 4),
        "%llu copies of %llu bytes in 10 runs:\n%s", (unsigned long long)(after.copies - before.copies),
        (unsigned long long)(after.bytes - before.bytes), text);
  free(text);
  tern_function_release(f);
  simulated_work_end(&w);
}

/* How many launches a device sees in one run of a function that ran before. */
static uint64_t launches_on(uint32_t device, tern_function *f, tern_tensor *x) {
  CHECK(tern_call(f, x) != NULL && tern_sync(NULL) == TERN_OK, "%s", tern_error());
  const uint64_t before = simulated_clock(device).launches;
  CHECK(tern_call(f, x) != NULL && tern_sync(NULL) == TERN_OK, "%s", tern_error());
  return simulated_clock(device).launches - before;
}

BODY(sines_and_products) {
  UNUSED;
  return simulated_one(tern_mul(tern_add(tern_cumsum(tern_sin(in[0]), 0, NULL), in[0]), in[0]), out);
}

/* The device with few ops has those, and nothing that it lacks. */
static void able(void) {
  TERN_SCOPE;
  tern_function *f = tern_function_new(sines_and_products, NULL, 1, 1, &(tern_function_opts){.no_fuse = 1});
  tern_tensor *x = simulated_numbers(TERN_SHAPE(256, 256), 3), *expected;
  sines_and_products(NULL, &x, 1, &expected, 1);
  CHECK(launches_on(FPGA, f, x) > 0, "nothing runs on the device with few ops");
  CHECK(tern_allclose(tern_call(f, x), expected, 1e-5, 1e-5), "%s", tern_error());
  char *text = tern_explain(f);
  int seen = 0;
  for (char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
    if (strncmp(line, "  virtual:fpga", 14)) continue;
    seen++;
    CHECK(strncmp(line + 15, "sin", 3) && strncmp(line + 15, "cumsum", 6), "%s", line);
  }
  CHECK(seen > 0, "%s", text);
  free(text);
  tern_function_release(f);
}

BODY(pinned_here_and_there) {
  UNUSED;
  tern_tensor *y = tern_matmul(in[0], tern_transpose(in[0])), *z;
  {
    tern_with_device("virtual:fpga");
    z = tern_add(tern_to(y, "virtual:fpga"), tern_to(y, "virtual:fpga"));
  }
  out[1] = z;
  return simulated_one(tern_sin(tern_to(z, "cpu")), out);
}

/* Every device is slow and far away: only what the program asks for by name goes there. */
static void pins(void) {
  TERN_SCOPE;
  tern_tensor *x = simulated_numbers(TERN_SHAPE(8, 16), 3), *expected[2], *got[2];
  CHECK(!pinned_here_and_there(NULL, &x, 1, expected, 2), "%s", tern_error());
  tern_function *f = tern_function_new(pinned_here_and_there, NULL, 1, 2, NULL);
  for (int call = 0; call < 2; call++) {
    const virtual_clock gpu = simulated_clock(GPU), fpga = simulated_clock(FPGA);
    CHECK(!tern_function_run(f, &x, 1, got, 2), "%s", tern_error());
    char *text = tern_explain(f);
    CHECK(simulated_clock(FPGA).launches - fpga.launches == 1, "the addition is not where it was put:\n%s", text);
    CHECK(simulated_clock(GPU).launches == gpu.launches && simulated_clock(GPU).copies == gpu.copies,
          "the gpu is used:\n%s", text);
    CHECK(text && strstr(text, "; pinned"), "%s", text);
    free(text);
    for (int i = 0; i < 2; i++) {
      CHECK(!strcmp(tern_device_get(got[i]), i ? "virtual:fpga" : "cpu:0"), "result %d is on %s", i,
            tern_device_get(got[i]));
      CHECK(tern_allclose(tern_to(got[i], "cpu"), tern_to(expected[i], "cpu"), 1e-5, 1e-5), "result %d", i);
    }
  }
  tern_function_release(f);
  simulated_work w;
  simulated_work_make(&w);
  f = tern_function_new(simulated_mlp, &w, 1, 1, NULL);
  CHECK(launches_on(GPU, f, x) == 0 && info_of(f).copies == 0, "a perceptron goes over a slow link");
  tern_function_release(f);
  simulated_work_end(&w);
}

/* ---- worth it ---- */

BODY(two_branches) { /* independent halves, then one */
  UNUSED;
  const simulated_work *w = self;
  tern_tensor *a = in[0], *b = in[0];
  for (int i = 0; i < 6; i++) {
    a = tern_tanh(tern_matmul(a, w->w[4]));
    b = tern_cumsum(tern_sin(tern_matmul(b, w->w[4])), 0, NULL);
  }
  return simulated_one(tern_add(a, b), out);
}
static const tern_function_body worth[] = {simulated_mlp, two_branches, sines_and_products};

/* The clock: what ten runs take, in ns, of each body. */
static void tell_times(void) {
  TERN_SCOPE;
  simulated_work w;
  simulated_work_make(&w);
  w.w[4] = tern_keep(simulated_numbers(TERN_SHAPE(16, 16), 9));
  tern_tensor *x = simulated_numbers(TERN_SHAPE(8, 16), 3);
  for (size_t i = 0; i < sizeof worth / sizeof *worth; i++) {
    tern_function *f = tern_function_new(worth[i], &w, 1, 1, &(tern_function_opts){.fixed_sizes = 1});
    CHECK(tern_call(f, x) != NULL && tern_sync(NULL) == TERN_OK, "%s", tern_error());
    const uint64_t before = simulated_clock(0).host;
    for (int k = 0; k < 10; k++) CHECK(tern_call(f, x) != NULL && tern_sync(NULL) == TERN_OK, "%s", tern_error());
    printf("took %llu\n", (unsigned long long)(simulated_clock(0).host - before));
    if (getenv("TERN_TEST_VERBOSE")) {
      char *text = tern_explain(f);
      printf("%s\n", text);
      free(text);
    }
    tern_function_release(f);
  }
  tern_release(w.w[4]);
  simulated_work_end(&w);
}

static bool times_with(const char *devices, const char *candidates, uint64_t ns[3]) {
  char spec[600], list[200], text[8192];
  snprintf(spec, sizeof spec, "TERN_VIRTUAL_DEVICES=%s", devices);
  snprintf(list, sizeof list, "TERN_PLACEMENT_DEVICES=%s", candidates);
  const char *const environment[] = {spec, list, "TERN_DEVICE=virtual:home", NULL};
  const int status = test_child("times", environment, text, sizeof text);
  const char *at = text;
  int n = 0;
  while (n < 3 && at && (at = strstr(at, "took "))) ns[n++] = strtoull(at += 5, NULL, 10);
  return CHECK(status == 0 && n == 3, "%s with %s: %d\n%s", devices, candidates, status, text);
}

/* All of it on simulated devices, operands and results on `home`: with all devices to choose from no run takes longer
   than with `home` alone or with it and one other. */
static void never_worse(void) {
  static const char *const sets[] = {
      "home:flops=1e9,bandwidth=1e9,link=1e9,latency=1us,launch=5us;a:flops=1e11,bandwidth=1e11,link=1e10,latency=2us,"
      "launch=4us;b:flops=1e10,bandwidth=1e11,link=1e10,latency=1us,launch=1us",
      "home:flops=1e10,bandwidth=1e10,link=1e10,latency=1us,launch=2us;a:flops=1e12,bandwidth=1e12,link=1e8,"
      "latency=100us,launch=1us;b:" FEW_OPS ",flops=1e12,bandwidth=1e12,link=1e10,latency=500ns,launch=200ns",
      "home:flops=1e8,bandwidth=1e8,link=1e10,launch=10us;a:flops=1e9,bandwidth=1e9,link=1e10,launch=1us;"
      "b:flops=1e9,bandwidth=1e9,link=1e10,launch=1us"};
  int better = 0;
  for (size_t s = 0; s < sizeof sets / sizeof *sets; s++) {
    uint64_t with_a[3] = {0}, with_b[3] = {0}, all[3] = {0}, home[3] = {0};
    if (!times_with(sets[s], "virtual:home", home) || !times_with(sets[s], "virtual:home,virtual:a", with_a) ||
        !times_with(sets[s], "virtual:home,virtual:b", with_b) ||
        !times_with(sets[s], "virtual:home,virtual:a,virtual:b", all))
      return;
    for (int i = 0; i < 3; i++) {
      uint64_t best = home[i] < with_a[i] ? home[i] : with_a[i];
      best = best < with_b[i] ? best : with_b[i];
      better += all[i] < home[i];
      CHECK((double)all[i] <= 1.02 * (double)best,
            "devices %d, body %d: all %llu ns; home %llu, with a %llu, with b %llu", (int)s, i,
            (unsigned long long)all[i], (unsigned long long)home[i], (unsigned long long)with_a[i],
            (unsigned long long)with_b[i]);
    }
  }
  CHECK(better >= 5, "placement is better than one device in %d of 9", better);
}

/* ---- random programs ---- */

static tern_rc operands(void *self, int call, tern_tensor **in) { return random_graph_operands(self, call, in); }

static void random_programs(void) {
  static random_graph g;
  const char *first = getenv("TERN_TEST_FIRST"), *more = getenv("TERN_TEST_SEEDS");
  const uint64_t begin = first ? strtoull(first, NULL, 10) : 1, n = more ? strtoull(more, NULL, 10) : 100;
  traced_count count = {0};
  int failed = 0;
  for (uint64_t seed = begin; seed < begin + n && failed < 3; seed++) {
    double slack[RANDOM_OUTPUTS + 2];
    char name[64];
    if (!CHECK(random_graph_make(&g, seed, 5 + (int)(seed * 7 % 40)), "seed %d: %s", (int)seed, tern_error())) return;
    for (int o = 0; o < g.n_outputs; o++) slack[o] = 2 * g.form[g.output[o]].error;
    for (int v = 0; v < 2; v++) slack[g.n_outputs + v] = 2 * g.variable_error[v];
    snprintf(name, sizeof name, "seed %llu, placed", (unsigned long long)seed);
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
    const bool ok = traced_check(&t, NULL, &count);
    failed += !ok;
    if (!ok) random_graph_print(&g);
    random_graph_end(&g);
  }
  printf("(seeds %llu to %llu: %d calls, %d results compared; %llu and %llu launches on simulated devices)\n",
         (unsigned long long)begin, (unsigned long long)(begin + n - 1), count.calls, count.compared,
         (unsigned long long)simulated_clock(0).launches, (unsigned long long)simulated_clock(1).launches);
  CHECK(simulated_clock(0).launches + simulated_clock(1).launches > n, "the simulated devices are not used");
}

#define SPEC "TERN_VIRTUAL_DEVICES="
#define RESTRICTED \
  "a:ops=copy|add|mul|dot|exp|where|lt|le|eq,launch=10ns;b:ops=copy|sum|amax|amin|maximum|mul|sub,launch=5ns"

static void fuzz_fast(void) {
  simulated_child("programs", (const char *[]){SPEC "gpu:flops=1e14,bandwidth=1e13,link=1e13," MOST_OPS ";fpga:" FEW_OPS
                                                    ",flops=1e14,bandwidth=1e14,link=1e13",
                                               "TERN_TEST_SEEDS=100", NULL});
}
static void fuzz_split(void) {
  simulated_child("programs", (const char *[]){SPEC RESTRICTED, "TERN_PLACEMENT_DEVICES=cpu,virtual:a,virtual:b",
                                               "TERN_TEST_FIRST=1001", "TERN_TEST_SEEDS=150", NULL});
}
static void fuzz_single_nodes(void) {
  simulated_child("programs", (const char *[]){SPEC "a:nodes=1," MOST_OPS ";b:args=3,dtypes=float32|int64," MOST_OPS,
                                               "TERN_PLACEMENT_DEVICES=cpu,virtual:a,virtual:b", "TERN_TEST_FIRST=2001",
                                               "TERN_TEST_SEEDS=60", NULL});
}
static void fuzz_home(void) { /* operands and variables on a simulated device; what it lacks falls back to the host */
  simulated_child("programs",
                  (const char *[]){SPEC "a:launch=1ms," MOST_OPS ";b:link=1e12," MOST_OPS, "TERN_DEVICE=virtual:a",
                                   "TERN_FALLBACK=silent", "TERN_PLACEMENT_DEVICES=cpu,virtual:a,virtual:b",
                                   "TERN_TEST_FIRST=3001", "TERN_TEST_SEEDS=60", NULL});
}
static void far_away(void) {
  simulated_child("pins", (const char *[]){SPEC "gpu:launch=100us,flops=1e6,bandwidth=1e7,link=1e7,latency=10ms;"
                                                "fpga:launch=100us,flops=1e6,bandwidth=1e7,link=1e7,latency=10ms",
                                           NULL});
}

/* ---- measured ---- */

static tern_rc (*cpu_launch)(tern_dev *, tern_queue *, const tern_kernel *, const tern_launch *);
static tern_rc slow_launch(tern_dev *dev, tern_queue *queue, const tern_kernel *k, const tern_launch *l) {
  nanosleep(&(struct timespec){.tv_nsec = 4000000}, NULL);
  return cpu_launch(dev, queue, k, l);
}

/* Launches on the simulated device in a run of a function that is new. */
static uint64_t placed_now(simulated_work *w, int runs) {
  TERN_SCOPE;
  tern_function *f = tern_function_new(simulated_mlp, w, 1, 1, NULL);
  tern_tensor *x = simulated_numbers(TERN_SHAPE(8, 16), 3);
  for (int i = 0; i < runs; i++) CHECK(tern_call(f, x) != NULL, "%s", tern_error());
  const uint64_t n = launches_on(GPU, f, x);
  if (getenv("TERN_TEST_VERBOSE")) {
    char *text = tern_explain(f);
    printf("%s\n", text);
    free(text);
  }
  tern_function_release(f);
  return n;
}

/* A CPU that is much slower than it seems: the first program stays there and is timed, the next one goes elsewhere. */
static void slower_than_it_seems(void) {
  tern__device *d = tern__device_named("cpu");
  if (!CHECK(d && !tern__device_open(d), "%s", tern_error())) return;
  simulated_work w;
  simulated_work_make(&w);
  tern__cost_model_of(d); /* its probes see it as it seems */
  cpu_launch = d->launch;
  d->launch = slow_launch;
  CHECK(placed_now(&w, 4) == 0, "the first program is elsewhere at once");
  CHECK(placed_now(&w, 1) >= 2, "the second program is still on the slow device");
  d->launch = cpu_launch;
  simulated_work_end(&w);
}
static void known_as_slow(void) { /* from the file */
  simulated_work w;
  simulated_work_make(&w);
  CHECK(placed_now(&w, 1) >= 2, "what was measured is forgotten");
  simulated_work_end(&w);
}

static void measured(void) {
  static const char slow[] = SPEC "gpu:launch=500us,latency=100us;fpga:launch=1s";
  char folder[] = "/tmp/tern-costs-XXXXXX", option[64], file[64];
  if (!CHECK(mkdtemp(folder) != NULL, "no folder")) return;
  snprintf(option, sizeof option, "TERN_CACHE_DIR=%s", folder);
  snprintf(file, sizeof file, "%s/costs.bin", folder);
  simulated_child("slow", (const char *[]){option, slow, NULL});
  simulated_child("known", (const char *[]){option, slow, NULL});
  CHECK(!unlink(file), "no file of costs");
  rmdir(folder);
}

/* ---- OpenCL ---- */

static void with_opencl(void) {
  tern_device_desc d;
  bool found = false;
  for (int i = 0; tern_device_at(i, &d) == TERN_OK; i++) found |= !strcmp(d.name, "opencl:0");
  tern_error_clear();
  if (!found) {
    printf("(skipped: there is no opencl:0) ");
    return;
  }
  simulated_child("results", (const char *[]){"TERN_PLACEMENT_DEVICES=cpu,opencl:0,virtual:fpga",
                                              SPEC "fpga:" FEW_OPS ",flops=1e14,bandwidth=1e14,link=1e13", NULL});
}

static const test_case cases[] = {{"results", same_results},
                                  {"copies", few_copies},
                                  {"a device with few ops", able},
                                  {"far away", far_away},
                                  {"never worse", never_worse},
                                  {"random programs", fuzz_fast},
                                  {"random programs, ops split between devices", fuzz_split},
                                  {"random programs, single nodes", fuzz_single_nodes},
                                  {"random programs, at home elsewhere", fuzz_home},
                                  {"measured", measured},
                                  {"OpenCL", with_opencl}};
static const test_case children[] = {{"results", same_results},      {"pins", pins},
                                     {"times", tell_times},          {"programs", random_programs},
                                     {"slow", slower_than_it_seems}, {"known", known_as_slow}};

static int child(const char *name) {
  for (size_t i = 0; i < sizeof children / sizeof *children; i++)
    if (!strcmp(name, children[i].name)) return test_main(0, NULL, "placement", &children[i], 1);
  return 1;
}

int main(int argc, char **argv) {
  setenv("TERN_PLUGIN_PATH", TERN_PLUGINS ":" TERN_TEST_PLUGINS, 1);
  setenv("TERN_PLACEMENT", "auto", 0);
  setenv("TERN_VIRTUAL_DEVICES", DEVICES, 0);
  setenv("TERN_PLACEMENT_DEVICES", "cpu,virtual:gpu,virtual:fpga", 0);
  setenv("TERN_FALLBACK", "error", 0);
  return test_main_with_child(argc, argv, "placement", cases, (int)(sizeof cases / sizeof *cases), child);
}
