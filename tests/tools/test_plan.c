/* tern-plan: its exit status, rows and report. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/test.h"

#define PLAN TERN_PLUGINS "/../../bin/tern-plan"
#define FOUR "id,lower,upper,size\\na,0,3,2\\nb,2,5,2\\nc,0,2,3\\nd,3,5,3\\n"

static struct { char output[1 << 16]; } test;

/* Runs tern-plan on a text (a format of printf(1)); its exit status. */
static int run(const char *text, const char *arguments) {
  char command[4096];
  snprintf(command, sizeof command, "printf '%s' | $TERN_TEST_EMULATOR " PLAN " %s", text, arguments);
  fflush(stdout);
  test.output[0] = 0;
  FILE *f = popen(command, "r");
  if (!f) return -1;
  test.output[fread(test.output, 1, sizeof test.output - 1, f)] = 0;
  const int status = pclose(f);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define SAID(text) CHECK(strstr(test.output, text), "\"%s\" is not in:\n%.1000s", text, test.output)

static void test_fits(void) {
  CHECK(run(FOUR, "- --capacity 5 2>/dev/null") == 0, "it fits 5");
  CHECK(!strncmp(test.output, "id,lower,upper,size,offset\na,0,3,2,", 35), "%s", test.output);
  CHECK(run(FOUR, "- 2>&1 >/dev/null") == 0, "no capacity");
  SAID("capacity used  5 (no plan needs less)");
  SAID("lower bound    5");
  SAID("without reuse  10");
  CHECK(run("id,lower,upper,size\\n", "- 2>/dev/null") == 0, "no rows");
  CHECK(!strcmp(test.output, "id,lower,upper,size,offset\n"), "%s", test.output);
}

static void test_too_high(void) {
  CHECK(run(FOUR, "- --capacity 4 --seconds 0.1 2>&1") == 1, "it cannot fit 4");
  SAID("does not fit; no plan does");
  SAID("a,0,3,2,");
}

static void test_align(void) {
  CHECK(run(FOUR, "- --align 16 2>&1") == 0, "aligned");
  SAID(",16\n");
  SAID("capacity used  19");
}

static void test_json(void) {
  CHECK(run(FOUR, "- --json --capacity 6 2>&1 >/dev/null") == 0, "json");
  CHECK(!strncmp(test.output,
                 "{\"version\": 1, \"tool\": \"tern-plan\", \"buffers\": 4, \"capacity\": 6, \"height\": ", 74),
        "%s", test.output);
  SAID("\"fits\": true");
}

static void test_malformed(void) {
  CHECK(run("id,lower,upper,size\\na,0,3,2\\na,0,3,2\\n", "- 2>&1") == 2, "duplicate");
  SAID("tern-plan: -: line 3: id a is in row 1 already");
  CHECK(run("", "- 2>&1") == 2, "empty");
  SAID("line 1:");
  CHECK(run("", "/nonexistent.csv 2>&1") == 2, "no file");
  SAID("/nonexistent.csv: No such file");
  CHECK(run("id,lower,upper,size\\na,0,3,9223372036854775807\\n", "- --align 2 2>&1") == 2, "overflow by alignment");
  SAID("2^63");
}

static void test_usage(void) {
  CHECK(run("", "--help") == 0, "help");
  SAID("usage: tern-plan FILE.csv");
  CHECK(run("", "2>&1") == 2 && run("", "- x 2>&1") == 2 && run("", "- --nonsense 2>&1") == 2, "usage");
  CHECK(run(FOUR, "- --capacity 2>&1") == 2 && run(FOUR, "- --capacity 5x 2>&1") == 2, "bad capacity");
  CHECK(run(FOUR, "- --align 0 2>&1") == 2 && run(FOUR, "- --seconds -1 2>&1") == 2, "bad numbers");
}

int main(int argc, char **argv) {
  if (access(PLAN, X_OK) || run("", "--help")) {
    printf("skipped: %s is not built, or does not run here by itself\n", PLAN);
    return 77;
  }
  static const test_case cases[] = {{"fits", test_fits}, {"too high", test_too_high},   {"alignment", test_align},
                                    {"JSON", test_json}, {"malformed", test_malformed}, {"usage", test_usage}};
  return test_main(argc, argv, "tools/plan", cases, (int)(sizeof cases / sizeof *cases));
}
