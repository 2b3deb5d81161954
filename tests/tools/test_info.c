/* tern-info: every form of its output, against what the public API says. */
#include "ops/op.h"
#include <CUnit/Basic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <tern/tern.h>
#include <unistd.h>

#define INFO TERN_PLUGINS "/../../bin/tern-info"

static struct { char output[1 << 20]; } test;

/* Run tern-info on the CPU and the plugins for tests; its exit status. */
static int run(const char *settings, const char *arguments) {
  char command[4096];
  snprintf(command, sizeof command, "%s TERN_PLUGIN_PATH='%s' $TERN_TEST_EMULATOR " INFO " %s 2>&1", settings,
           TERN_TEST_PLUGINS, arguments);
  fflush(stdout);
  test.output[0] = 0;
  FILE *f = popen(command, "r");
  if (!f) return -1;
  test.output[fread(test.output, 1, sizeof test.output - 1, f)] = 0;
  const int status = pclose(f);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool said(const char *text) {
  if (strstr(test.output, text)) return true;
  printf("\n    \"%s\" is not in:\n%.2000s\n", text, test.output);
  return false;
}

static void test_lists(void) {
  CU_ASSERT_EQUAL(run("", ""), 0);
  CU_ASSERT_TRUE(said("Plugins") && said("libtern-faulty.so") && said("Devices") && said("cpu:0") &&
                 said("template:0"));
  CU_ASSERT_TRUE(said("Default device: cpu:0"));
  CU_ASSERT_EQUAL(run("TERN_FAULTY_FAIL=init", ""), 0);
  CU_ASSERT_TRUE(said("not used: its driver did not start") && said("init fails"));
  CU_ASSERT_EQUAL(run("", "template"), 0);
  CU_ASSERT_TRUE(said("template:0") && said("counters"));
  CU_ASSERT_PTR_NULL(strstr(test.output, "cpu:0"));
  CU_ASSERT_EQUAL(run("", "nosuch"), 1);
  CU_ASSERT_TRUE(said("there is no device \"nosuch\""));
  CU_ASSERT_EQUAL(run("", "--help"), 0);
  CU_ASSERT_EQUAL(run("", "--nonsense"), 2);
}

static void test_environment(void) {
  tern_option_info o;
  CU_ASSERT_EQUAL(run("TERN_MEM_LIMIT=64m", "--env"), 0);
  for (int i = 0; tern_option_at(i, &o) == TERN_OK; i++) CU_ASSERT_TRUE(said(o.variable) && said(o.meaning));
  CU_ASSERT_TRUE(said("64m"));
}

static void test_ops(void) {
  tern_op_info op;
  CU_ASSERT_EQUAL(run("TERN_FAULTY_SINGLE=1", "--ops faulty"), 0);
  for (int i = 0; tern_op_at(i, &op) == TERN_OK; i++) CU_ASSERT_TRUE(said(op.name));
  CU_ASSERT_TRUE(said("softmax              split") && said("exp                  native") && said(" 0 fail"));
  CU_ASSERT_EQUAL(run("TERN_FALLBACK=error", "--ops template"), 0);
  CU_ASSERT_TRUE(said("exp                  host") && said("native (float32)"));
}

/* What --ops calls: every op of the table says how, in each dtype that it takes. */
static void test_samples(void) {
  const tern__op *op;
  for (int i = 1; (op = tern__op_at(i)); i++) {
    CU_ASSERT_PTR_NOT_NULL(op->sample);
    if (!op->sample) printf("\n    %s has no sample\n", op->name);
    for (int d = TERN_NO_DTYPE + 1; d < TERN_DTYPE_END && op->sample; d++) {
      const int how = tern_op_support(op->name, "cpu", (tern_dtype)d);
      CU_ASSERT_EQUAL(how > 0, op->dtypes >> d & 1);
      if (how < 0) printf("\n    %s, %s: %s\n", op->name, tern_dtype_name((tern_dtype)d), tern_error());
      tern_error_clear();
    }
  }
}

static void test_markdown(void) {
  tern_op_info op;
  int ops = 0, rows = 0;
  CU_ASSERT_EQUAL(run("", "--ops-markdown"), 0);
  while (tern_op_at(ops, &op) == TERN_OK) ops++;
  for (const char *at = test.output; (at = strstr(at, "\n| `")); at++) {
    int cells = 0;
    rows++;
    for (const char *c = at + 1; *c && *c != '\n'; c++) cells += *c == '|' && c[-1] != '\\';
    CU_ASSERT_EQUAL(cells, 6);
  }
  CU_ASSERT_EQUAL(rows, ops);
  CU_ASSERT_TRUE(ops > 80);
}

/* Quotes and brackets match outside strings. */
static void test_json(void) {
  CU_ASSERT_EQUAL(run("TERN_FAULTY_FAIL=init", "--json --ops cpu"), 0);
  CU_ASSERT_EQUAL(strncmp(test.output, "{\"version\": 1, ", 15), 0);
  CU_ASSERT_TRUE(said("\"plugins\": [") && said("\"devices\": [") && said("\"variables\": [") && said("\"ops\": ["));
  int depth = 0, least = 1;
  bool text = false;
  for (const char *c = test.output; *c && *c != 0; c++) {
    if (*c == '"' && (c == test.output || c[-1] != '\\')) text = !text;
    if (text) continue;
    depth += (*c == '{' || *c == '[') - (*c == '}' || *c == ']');
    if (depth < least && c[1] && c[1] != '\n') least = depth;
  }
  CU_ASSERT_EQUAL(depth, 0);
  CU_ASSERT_EQUAL(least, 1);
  CU_ASSERT_FALSE(text);
}

int main(void) {
  if (access(INFO, X_OK) || run("", "--help")) {
    printf("skipped: %s is not built, or does not run here by itself\n", INFO);
    return 77;
  }
  if (CU_initialize_registry() != CUE_SUCCESS) return 2;
  CU_pSuite suite = CU_add_suite("tools/info", NULL, NULL);
  CU_add_test(suite, "plugins and devices", test_lists);
  CU_add_test(suite, "variables", test_environment);
  CU_add_test(suite, "ops", test_ops);
  CU_add_test(suite, "samples", test_samples);
  CU_add_test(suite, "docs/ops.md", test_markdown);
  CU_add_test(suite, "JSON", test_json);
  CU_basic_set_mode(CU_BRM_VERBOSE);
  CU_basic_run_tests();
  const unsigned failures = CU_get_number_of_failures();
  CU_cleanup_registry();
  return failures ? 1 : 0;
}
