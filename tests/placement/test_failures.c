/* What goes wrong while a program runs: a launch that fails in the middle, a device that is lost, memory that ends,
   operands on other devices, ops that a device refuses; and the files of TERN_DUMP. A device's launch entry is replaced
   by one that fails when it is told to; loss is for the rest of a process, so those cases are children. */
#include "device/device.h"
#include "graph/traced.h"
#include "placement/simulated.h"
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEVICES "gpu:kind=gpu;fpga:kind=fpga;tiny:memory=1M;poor:ops=copy|add|mul|dot|maximum"

/* ---- launches that fail ---- */

static struct {
  tern_rc (*launch)(tern_dev *, tern_queue *, const tern_kernel *, const tern_launch *);
  tern__device *device;
  int left; /* launches until the one that fails; below 0: none does */
  tern_rc rc;
  tern_backend api;
  const tern_backend *own;
} hook;

static tern_rc hooked(tern_dev *dev, tern_queue *queue, const tern_kernel *k, const tern_launch *l) {
  if (hook.left >= 0 && hook.left-- == 0) return hook.rc;
  return hook.launch(dev, queue, k, l);
}

/* From now on (and in programs compiled later) launches go through the hook. */
static bool hook_device(const char *name) {
  tern__device *d = tern__device_named(name);
  if (!CHECK(d && !tern__device_open(d), "%s: %s", name, tern_error())) return false;
  hook.device = d;
  hook.launch = d->launch;
  hook.left = -1;
  hook.own = d->api;
  hook.api = *d->api; /* step by step, not as a program that the device recorded */
  hook.api.program_run = NULL;
  hook.api.program_begin = NULL;
  d->launch = hooked;
  d->api = &hook.api;
  return true;
}
static void unhook(void) {
  hook.device->launch = hook.launch;
  hook.device->api = hook.own;
}

BODY(updates) { /* two variables, in place and swapped, and results */
  UNUSED;
  simulated_work *w = self;
  tern_tensor *sum = tern_sum(w->variable[0], NULL);
  if (tern_assign_add(w->variable[0], in[0])) return tern_error_code();
  tern_tensor *y = tern_matmul(w->variable[0], w->variable[1]);
  if (tern_assign(w->variable[1], tern_mul(y, tern_scalar(0.5)))) return tern_error_code();
  out[1] = tern_cumsum(y, 0, NULL);
  return simulated_one(tern_add(tern_sin(y), sum), out);
}

static void start_variables(simulated_work *w) {
  for (int i = 0; i < 2; i++) {
    tern_tensor *x = simulated_numbers(TERN_SHAPE(6, 6), 20 + (uint64_t)i);
    if (w->variable[i])
      CHECK(!tern_assign(w->variable[i], x), "%s", tern_error());
    else
      w->variable[i] = tern_variable(x, NULL);
  }
}

static bool same(tern_tensor *a, tern_tensor *b) {
  char text[200];
  return traced_same(a, b, 16, 1e-6, text, sizeof text);
}

static uint64_t live(const char *device) {
  tern_memory m = {0};
  CHECK(!tern_sync(NULL) && !tern_memory_info(device, &m), "%s", tern_error());
  return m.live;
}

/* Each launch of a run fails once. Each variable then holds its old value or its new one, whole: those that are updated
   in place by a launch before the failing one are new, all others old. */
static void launches_fail_on(const char *device) {
  TERN_SCOPE;
  if (!hook_device(device)) return;
  tern_with_device(device);
  simulated_work w = {0};
  start_variables(&w);
  tern_tensor *x = simulated_numbers(TERN_SHAPE(6, 6), 4), *expected[4], *out[2];
  CHECK(!updates(&w, &x, 1, expected, 2), "%s", tern_error());
  for (int i = 0; i < 2; i++) expected[2 + i] = tern_clone(w.variable[i]);
  start_variables(&w);
  tern_tensor *before[] = {tern_clone(w.variable[0]), tern_clone(w.variable[1])};
  tern_function *f = tern_function_new(updates, &w, 1, 2, &(tern_function_opts){.name = "updates", .no_fuse = 1});
  CHECK(!tern_function_run(f, &x, 1, out, 2), "%s", tern_error());
  tern_function_info info = {0};
  tern_function_get_info(f, &info);
  CHECK(info.launches >= 5, "%u launches", info.launches);
  int old = 0, new = 0;
  for (uint32_t k = 0; k < info.launches; k++) {
    TERN_SCOPE;
    start_variables(&w);
    const uint64_t held = live(device);
    hook.left = (int)k;
    hook.rc = TERN_E_INTERNAL;
    out[0] = out[1] = x;
    const tern_rc rc = tern_function_run(f, &x, 1, out, 2);
    hook.left = -1;
    CHECK(rc == TERN_E_INTERNAL && !out[0] && !out[1], "launch %u: %s", k, tern_rc_name(rc));
    CHECK(strstr(tern_error(), device) && strstr(tern_error(), "\"updates\""), "%s", tern_error());
    tern_error_clear();
    CHECK(live(device) == held, "launch %u: %llu bytes are held, %llu were", k, (unsigned long long)live(device),
          (unsigned long long)held);
    for (int i = 0; i < 2; i++) {
      const bool is_old = same(w.variable[i], before[i]), is_new = same(w.variable[i], expected[2 + i]);
      CHECK(is_old || is_new, "launch %u: variable %d is neither old nor new", k, i);
      old += is_old;
      new += is_new;
    }
    start_variables(&w);
    CHECK(!tern_function_run(f, &x, 1, out, 2), "%s", tern_error());
    for (int i = 0; i < 4; i++)
      CHECK(same(i < 2 ? out[i] : w.variable[i - 2], expected[i]), "the run behind launch %u, value %d", k, i);
  }
  CHECK(old > 0, "%d old and %d new", old, new);
  tern_function_release(f);
  for (int i = 0; i < 2; i++) tern_release(w.variable[i]);
  unhook();
}
static void launches_fail(void) {
  launches_fail_on("cpu");
  launches_fail_on("virtual:gpu");
}

/* ---- a device is lost ---- */

static tern_rc lost_replay(tern_dev *dev, tern_queue *queue, const tern_program *program) {
  (void)dev, (void)queue, (void)program;
  return TERN_E_LOST;
}

BODY(chain) {
  UNUSED;
  return simulated_one(tern_add(tern_cumsum(tern_matmul(in[0], in[0]), 0, NULL), in[0]), out);
}
BODY(chain_elsewhere) { /* begins and ends on the CPU */
  UNUSED;
  tern_tensor *y = tern_to(in[0], "virtual:gpu");
  return simulated_one(tern_to(tern_cumsum(tern_matmul(y, y), 0, NULL), "cpu"), out);
}

/* Behind a loss: the program, others on the device and eager ops say so; other devices go on. */
static void after_loss(tern_function *f, tern_tensor *x, tern_tensor *at_home) {
  for (int again = 0; again < 2; again++) {
    CHECK(!tern_call(f, x), "a lost device computes");
    CHECK_ERROR(TERN_E_LOST, "virtual:gpu is lost; use another device");
  }
  CHECK(!tern_add(x, x), "a lost device adds");
  CHECK_ERROR(TERN_E_LOST, "virtual:gpu");
  tern_function *fresh = tern_function_new(chain, NULL, 1, 1, &(tern_function_opts){.name = "fresh"});
  CHECK(!tern_call(fresh, x), "a lost device compiles");
  CHECK_ERROR(TERN_E_LOST, "virtual:gpu");
  tern_tensor *expected;
  chain(NULL, &at_home, 1, &expected, 1);
  CHECK(same(tern_call(fresh, at_home), expected), "the CPU goes on: %s", tern_error());
  tern_tensor *other = tern_to(at_home, "virtual:fpga");
  CHECK(same(tern_call(fresh, other), expected), "another device goes on: %s", tern_error());
  tern_function_release(fresh);
}

static void lost_by_launch(void) {
  TERN_SCOPE;
  if (!hook_device("virtual:gpu")) return;
  tern_tensor *at_home = simulated_numbers(TERN_SHAPE(6, 6), 4), *x = tern_to(at_home, "virtual:gpu");
  tern_function *f = tern_function_new(chain, NULL, 1, 1, &(tern_function_opts){.name = "chain", .no_fuse = 1});
  tern_function *g = tern_function_new(chain_elsewhere, NULL, 1, 1, &(tern_function_opts){.name = "elsewhere"});
  CHECK(tern_call(f, x) && tern_call(g, at_home), "%s", tern_error());
  hook.left = 1;
  hook.rc = TERN_E_LOST;
  CHECK(!tern_call(f, x), "the device is lost");
  CHECK(strstr(tern_error(), "virtual:gpu") && strstr(tern_error(), "\"chain\""), "%s", tern_error());
  CHECK_ERROR(TERN_E_LOST, "the device is lost: its tensors are gone, use another device or start again");
  after_loss(f, x, at_home);
  CHECK(!tern_call(g, at_home), "a program that goes through the lost device");
  CHECK_ERROR(TERN_E_LOST, "virtual:gpu");
  tern_function_release(f);
  tern_function_release(g);
}

static void lost_by_replay(void) { /* of what the device recorded */
  TERN_SCOPE;
  tern__device *d = tern__device_named("virtual:gpu");
  if (!CHECK(d && !tern__device_open(d) && d->api->program_run, "%s", tern_error())) return;
  tern_tensor *at_home = simulated_numbers(TERN_SHAPE(6, 6), 4), *x = tern_to(at_home, "virtual:gpu");
  tern_function *f = tern_function_new(chain, NULL, 1, 1, &(tern_function_opts){.name = "chain", .no_fuse = 1});
  for (int i = 0; i < 6; i++) CHECK(tern_call(f, x) != NULL, "%s", tern_error());
  tern_backend changed = *d->api;
  const tern_backend *own = d->api;
  changed.program_run = lost_replay;
  d->api = &changed;
  CHECK(!tern_call(f, x), "the device is lost");
  CHECK_ERROR(TERN_E_LOST, "virtual:gpu: replaying \"chain\" failed");
  d->api = own;
  after_loss(f, x, at_home);
  tern_function_release(f);
}

/* The plugin that misbehaves: its first launch loses the device, or fails when it runs. */
static void lost_faulty(void) {
  TERN_SCOPE;
  tern_tensor *x = simulated_numbers(TERN_SHAPE(6, 6), 4), *there = tern_to(x, "faulty:0");
  tern_function *f = tern_function_new(chain, NULL, 1, 1, &(tern_function_opts){.name = "chain"});
  CHECK(!tern_call(f, there), "a device that falls off the bus");
  CHECK_ERROR(TERN_E_LOST, "fell off the bus");
  CHECK(!tern_call(f, there), "and stays away");
  CHECK_ERROR(TERN_E_LOST, "faulty:0 is lost");
  CHECK(tern_call(f, x) != NULL, "%s", tern_error());
  tern_function_release(f);
}
static void late_faulty(void) {
  TERN_SCOPE;
  tern_tensor *x = simulated_numbers(TERN_SHAPE(6, 6), 4), *there = tern_to(x, "faulty:0");
  tern_function *f = tern_function_new(chain, NULL, 1, 1, &(tern_function_opts){.name = "chain"});
  if (tern_call(f, there)) tern_sync("faulty:0");
  CHECK_ERROR(TERN_E_INTERNAL, "faulty:0");
  CHECK(tern_call(f, x) != NULL, "%s", tern_error());
  tern_function_release(f);
}

static void losses(void) {
  simulated_child("lost by a launch", NULL);
  simulated_child("lost by a replay", NULL);
  simulated_child("lost, faulty", (const char *[]){"TERN_FAULTY_FAIL=lost", NULL});
  simulated_child("late, faulty", (const char *[]){"TERN_FAULTY_FAIL=async", NULL});
}

/* ---- memory ---- */

BODY(wide) { /* much in between */
  UNUSED;
  tern_tensor *y = tern_matmul(tern_transpose(in[0]), in[0]);
  return simulated_one(tern_sum(tern_cumsum(tern_cumsum(y, 0, NULL), 1, NULL), NULL), out);
}
BODY(wide_result) {
  UNUSED;
  return simulated_one(tern_matmul(tern_transpose(in[0]), in[0]), out);
}
BODY(wide_results) {
  UNUSED;
  out[1] = tern_matmul(tern_transpose(in[0]), in[0]);
  return simulated_one(tern_cumsum(out[1], 0, NULL), out);
}

static void memory_ends(void) {
  static const tern_function_body bodies[] = {wide, wide_result, wide_results};
  for (int i = 0; i < 3; i++) {
    TERN_SCOPE;
    const int n_out = 1 + (bodies[i] == wide_results);
    tern_tensor *out[2] = {0}, *large = tern_to(simulated_numbers(TERN_SHAPE(1, 700), 4), "virtual:tiny");
    tern_tensor *small = tern_to(simulated_numbers(TERN_SHAPE(1, 20), 4), "virtual:tiny");
    tern_function *f = tern_function_new(bodies[i], NULL, 1, n_out, &(tern_function_opts){.name = "wide"});
    for (int round = 0; round < 3; round++) {
      TERN_SCOPE;
      const uint64_t held = live("virtual:tiny");
      CHECK(tern_function_run(f, &large, 1, out, n_out) == TERN_E_OOM, "body %d: 2 MB fit into one", i);
      CHECK_ERROR(TERN_E_OOM, "tiny");
      CHECK(live("virtual:tiny") == held, "body %d: %llu bytes held, %llu before", i,
            (unsigned long long)live("virtual:tiny"), (unsigned long long)held);
      tern_memory_trim();
      CHECK(!tern_function_run(f, &small, 1, out, n_out), "body %d: %s", i, tern_error());
      tern_tensor *home = tern_to(small, "cpu"), *expected[2];
      CHECK(!bodies[i](NULL, &home, 1, expected, n_out) && same(out[0], expected[0]), "body %d", i);
    }
    tern_function_release(f);
  }
}

/* ---- operands on other devices ---- */

BODY(sum_of_two) {
  UNUSED;
  return simulated_one(tern_add(in[0], in[1]), out);
}

static void operands_elsewhere(void) {
  TERN_SCOPE;
  tern_tensor *x = simulated_numbers(TERN_SHAPE(6, 6), 4), *there = tern_to(x, "virtual:gpu");
  tern_function *f = tern_function_new(sum_of_two, NULL, 2, 1, NULL);
  CHECK(tern_call(f, x, x) && tern_call(f, there, there), "%s", tern_error());
  CHECK(!strcmp(tern_device_get(tern_call(f, there, there)), "virtual:gpu"), "the result is elsewhere");
  for (int round = 0; round < 2; round++) {
    CHECK(!tern_call(f, x, there), "operands on two devices");
    CHECK_ERROR(TERN_E_ARG, "tern_to(t, \"cpu:0\")");
    CHECK(!tern_call(f, there, x), "operands on two devices");
    CHECK_ERROR(TERN_E_ARG, "tern_to(t, \"virtual:gpu\")");
  }
  CHECK(same(tern_call(f, x, x), tern_add(x, x)), "%s", tern_error());
  tern_function_release(f);
}

/* ---- refused ops ---- */

BODY(refused) {
  UNUSED;
  simulated_work *w = self;
  tern_tensor *y = tern_tanh(tern_matmul(in[0], in[0]));
  if (tern_assign_add(w->variable[0], tern_sin(y))) return tern_error_code();
  out[1] = tern_cumsum(y, 0, NULL);
  if (w->n_variables) out[1] = tern_add(out[1], tern_random_uniform(TERN_SHAPE(6, 6), NULL));
  return simulated_one(tern_mul(tern_add(y, y), in[0]), out);
}

static void refusing(bool allowed) {
  TERN_SCOPE;
  tern_with_device("virtual:poor");
  simulated_work w = {.n_variables = allowed}; /* with random numbers too */
  w.variable[0] = tern_variable(simulated_numbers(TERN_SHAPE(6, 6), 2), NULL);
  tern_tensor *x = simulated_numbers(TERN_SHAPE(6, 6), 4), *out[2], *expected[2];
  tern_function *f = tern_function_new(refused, &w, 1, 2, &(tern_function_opts){.name = "refused"});
  if (allowed) {
    tern_set_seed(3);
    CHECK(!refused(&w, &x, 1, expected, 2) && !refused(&w, &x, 1, expected, 2), "%s", tern_error());
    tern_tensor *after = tern_clone(w.variable[0]);
    CHECK(!tern_assign(w.variable[0], simulated_numbers(TERN_SHAPE(6, 6), 2)), "%s", tern_error());
    tern_set_seed(3);
    for (int call = 0; call < 2; call++) CHECK(!tern_function_run(f, &x, 1, out, 2), "%s", tern_error());
    CHECK(same(out[0], expected[0]) && same(out[1], expected[1]) && same(w.variable[0], after), "slow steps");
    char *text = tern_explain(f);
    CHECK(text && strstr(text, "not native"), "%s", text);
    free(text);
  } else {
    tern_tensor *before = tern_clone(w.variable[0]);
    for (int call = 0; call < 2; call++) {
      CHECK(tern_function_run(f, &x, 1, out, 2) != TERN_OK, "an op that the device lacks");
      CHECK(strstr(tern_error(), "tanh") != NULL, "%s", tern_error());
      CHECK_ERROR(TERN_E_UNSUPPORTED, "virtual:poor");
    }
    CHECK(tern_equal_all(tern_to(w.variable[0], "cpu"), tern_to(before, "cpu")), "the variable changed");
  }
  tern_function_release(f);
  tern_release(w.variable[0]);
}
static void refused_strictly(void) { refusing(false); }
static void refused_silently(void) { refusing(true); }
static void refusals(void) {
  simulated_child("refused", (const char *[]){"TERN_FALLBACK=error", NULL});
  simulated_child("silent", (const char *[]){"TERN_FALLBACK=silent", NULL});
}

/* ---- dumps ---- */

static void dumping(void) {
  TERN_SCOPE;
  simulated_work w;
  simulated_work_make(&w);
  const tern_function_body bodies[] = {simulated_mlp, simulated_train};
  for (int i = 0; i < 2; i++) {
    tern_tensor *in[] = {simulated_numbers(TERN_SHAPE(8, 16), 4), simulated_numbers(TERN_SHAPE(8, 4), 5)}, *out;
    tern_function *f = tern_function_new(
        bodies[i], &w, 1 + i, 1, &(tern_function_opts){.name = i ? "train/step \"1\"" : "mlp", .memory_budget = 1000});
    CHECK(!tern_function_run(f, in, 1 + i, &out, 1), "%s", tern_error());
    tern_function_release(f);
  }
  simulated_work_end(&w);
}

static void check_file(const char *path, int *checked) {
  char command[1200], text[1000];
  snprintf(command, sizeof command, "$TERN_TEST_EMULATOR '%s' --check '%s' 2>&1", TERN_PLUGINS "/../../bin/tern-graph",
           path);
  FILE *p = popen(command, "r");
  const size_t n = p ? fread(text, 1, sizeof text - 1, p) : 0;
  text[n] = 0;
  CHECK(p && pclose(p) == 0, "%s: %s", path, text);
  ++*checked;
}

static void dumps(void) {
  char folder[] = "/tmp/tern-dump-XXXXXX", option[64], path[600];
  if (!CHECK(mkdtemp(folder) != NULL, "no folder")) return;
  snprintf(option, sizeof option, "TERN_DUMP=%s", folder);
  simulated_child("dumping", (const char *[]){option, "TERN_PLACEMENT=auto",
                                              "TERN_PLACEMENT_DEVICES=cpu,virtual:gpu,virtual:fpga", NULL});
  const bool tool = !access(TERN_PLUGINS "/../../bin/tern-graph", X_OK);
  static const char *const stages[] = {"1-traced.txt", "2-simplified.txt", "3-placed.txt", "4-budget.txt"};
  int checked = 0, seen[4] = {0}, steps = 0;
  DIR *d = opendir(folder);
  for (struct dirent *e; d && (e = readdir(d));) {
    if (e->d_name[0] == '.') continue;
    snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
    for (int s = 0; s < 4; s++) {
      if (!strstr(e->d_name, stages[s])) continue;
      seen[s]++;
      if (tool) check_file(path, &checked);
    }
    steps += strstr(e->d_name, "steps.txt") != NULL;
    unlink(path);
  }
  if (d) closedir(d);
  CHECK(!rmdir(folder), "%s stays", folder);
  CHECK(seen[0] >= 2 && seen[1] >= 2 && seen[2] >= 2 && seen[3] >= 2 && steps >= 2, "%d %d %d %d graphs, %d lists",
        seen[0], seen[1], seen[2], seen[3], steps);
  if (!tool) printf("(not checked: tern-graph is not built) ");
  printf("(%d files checked) ", checked);
}

static const test_case cases[] = {{"a launch fails", launches_fail}, {"losses", losses},
                                  {"memory ends", memory_ends},      {"operands elsewhere", operands_elsewhere},
                                  {"refused ops", refusals},         {"dumps", dumps}};
static const test_case children[] = {{"lost by a launch", lost_by_launch},
                                     {"lost by a replay", lost_by_replay},
                                     {"lost, faulty", lost_faulty},
                                     {"late, faulty", late_faulty},
                                     {"refused", refused_strictly},
                                     {"silent", refused_silently},
                                     {"dumping", dumping}};

static int child(const char *name) {
  for (size_t i = 0; i < sizeof children / sizeof *children; i++)
    if (!strcmp(name, children[i].name)) return test_main(0, NULL, "failures", &children[i], 1);
  return 1;
}

int main(int argc, char **argv) {
  setenv("TERN_PLUGIN_PATH", TERN_PLUGINS ":" TERN_TEST_PLUGINS, 1);
  setenv("TERN_VIRTUAL_DEVICES", DEVICES, 1);
  return test_main_with_child(argc, argv, "failures", cases, (int)(sizeof cases / sizeof *cases), child);
}
