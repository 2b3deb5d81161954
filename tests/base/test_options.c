/* The variables that tern reads: the list that tools show, and what the logging ones do, seen from outside in
   children. */
#include "support/values.h"
#include <stdlib.h>
#include <string.h>

static void test_list(void) {
  static const char *const expected[] = {"TERN_DEVICE",      "TERN_PLUGIN_PATH", "TERN_FALLBACK", "TERN_LOG",
                                         "TERN_TRACE",       "TERN_CACHE_DIR",   "TERN_SHADOW",   "TERN_SYNC",
                                         "TERN_NUM_THREADS", "TERN_MEM_LIMIT"};
  tern_option_info o;
  int n = 0;
  for (; tern_option_at(n, &o) == TERN_OK; n++) {
    CHECK(!strncmp(o.variable, "TERN_", 5) && o.value && o.standard && *o.meaning, "option %d", n);
    const char *set = getenv(o.variable);
    CHECK(!strcmp(o.value, set && *set ? set : o.standard), "%s is \"%s\"", o.variable, o.value);
  }
  CHECK(tern_option_at(n, &o) == TERN_E_END && tern_option_at(-1, &o) == TERN_E_END, "past the ends");
  for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
    bool found = false;
    for (int k = 0; k < n && !found; k++) found = tern_option_at(k, &o) == TERN_OK && !strcmp(o.variable, expected[i]);
    CHECK(found, "%s is not listed", expected[i]);
  }
  CHECK_NO_ERROR();
}

static void test_ops(void) {
  tern_op_info op;
  int n = 0;
  for (; tern_op_at(n, &op) == TERN_OK; n++)
    CHECK(*op.name && *op.family && op.operands && *op.doc && op.dtypes && op.ulp >= 0 && op.absolute >= 0 &&
              op.relative >= 0,
          "op %d", n);
  CHECK(n > 80 && tern_op_at(n, &op) == TERN_E_END && tern_op_at(-1, &op) == TERN_E_END, "%d ops", n);
  CHECK_NO_ERROR();
}

/* Every op of the table is there in every dtype that the table names. */
static void test_support(void) {
  tern_op_info op;
  for (int i = 0; tern_op_at(i, &op) == TERN_OK; i++)
    for (int d = 1; d < TERN_DTYPE_END; d++) {
      const int how = tern_op_support(op.name, "cpu", (tern_dtype)d);
      CHECK(op.dtypes >> d & 1 ? how == 1 || how == 2 : how == 0, "%s in %s: %d %s", op.name,
            tern_dtype_name((tern_dtype)d), how, tern_error());
      tern_error_clear();
    }
  CHECK(tern_op_support("no_such_op", "cpu", TERN_F32) == TERN_E_ARG, "an unknown op");
  CHECK_ERROR(TERN_E_ARG, "no_such_op");
  CHECK(tern_op_support("add", "nowhere", TERN_F32) < 0, "an unknown device");
  CHECK_ERROR(TERN_E_ARG, "nowhere");
  CHECK(tern_op_support("add", "cpu", TERN_NO_DTYPE) < 0 && tern_op_support(NULL, "cpu", TERN_F32) < 0,
        "no dtype, no op");
  tern_error_clear();
}

/* ---- children ---- */

static int child(const char *name) {
  TERN_SCOPE;
  if (!strcmp(name, "work")) {
    tern_print(tern_add(tern_ones(TERN_SHAPE(2), TERN_F32), tern_ones(TERN_SHAPE(2), TERN_F32)));
    return tern_finish();
  }
  if (!strcmp(name, "value")) {
    tern_option_info o;
    for (int i = 0; tern_option_at(i, &o) == TERN_OK; i++) printf("%s=%s\n", o.variable, o.value);
    return 0;
  }
  return 99;
}

static char text[32768];
static const char *run(const char *name, const char *setting) {
  const int status = test_child(name, (const char *const[]){setting, NULL}, text, sizeof text);
  CHECK(status == 0, "%s with %s: %d: %s", name, setting, status, text);
  return text;
}

static void test_log(void) {
  CHECK(!strstr(run("work", "TERN_LOG=warn"), "tern: dispatch"), "warn: %s", text);
  CHECK(strstr(run("work", "TERN_LOG=debug"), "compiled add") != NULL, "debug: %s", text);
  CHECK(strstr(run("work", "TERN_LOG=dispatch:debug"), "compiled add") != NULL, "dispatch:debug: %s", text);
  CHECK(strstr(run("work", "TERN_LOG=error,dispatch:debug"), "compiled add") != NULL, "error,dispatch:debug: %s", text);
  CHECK(!strstr(run("work", "TERN_LOG=debug,dispatch:warn"), "compiled add"), "debug,dispatch:warn: %s", text);
  CHECK(!strstr(run("work", "TERN_LOG=scope:debug"), "compiled add"), "scope:debug: %s", text);
  CHECK(!strstr(run("work", "TERN_LOG=nonsense,,:,dispatch:"), "compiled add"), "nonsense: %s", text);
  CHECK(!strstr(run("work", "TERN_LOG="), "compiled add"), "empty: %s", text);
}

static void test_values_seen(void) {
  CHECK(strstr(run("value", "TERN_NUM_THREADS=3"), "TERN_NUM_THREADS=3\n") != NULL, "%s", text);
  CHECK(strstr(run("value", "TERN_NUM_THREADS="), "TERN_NUM_THREADS=0\n") != NULL,
        "an empty variable counts as unset: %s", text);
  CHECK(strstr(run("work", "TERN_NUM_THREADS=1"), "[2. 2.]") != NULL, "one thread: %s", text);
  const int status = test_child("work", (const char *const[]){"TERN_DEVICE=warp-drive", NULL}, text, sizeof text);
  CHECK(status == 0 && strstr(text, "warp-drive") && strstr(text, "cpu:0"),
        "an unknown TERN_DEVICE lists the devices (printing the error counts as reading it): %d: %s", status, text);
}

static const test_case cases[] = {{"the list", test_list},
                                  {"the op table", test_ops},
                                  {"op support", test_support},
                                  {"TERN_LOG", test_log},
                                  {"values", test_values_seen}};
TEST_MAIN_CHILD("options", cases, child)
