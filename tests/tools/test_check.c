/* tern-check itself: it passes what is right (CPU, template, faulty left alone), with the numbers that it must claim,
   and fails, with a reason, each thing that plugins/faulty can do wrong. */
#include <CUnit/Basic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK TERN_PLUGINS "/../../bin/tern-check"
#define FAULTY TERN_TEST_PLUGINS "/libtern-faulty.so"

static struct { char output[1 << 16]; } test;

/* Run tern-check; its exit status, and what it said in test.output. */
static int run(const char *arguments) {
  char command[4096];
  snprintf(command, sizeof command, "$TERN_TEST_EMULATOR " CHECK " %s 2>&1", arguments);
  test.output[0] = 0;
  fflush(stdout);
  FILE *f = popen(command, "r");
  if (!f) return -1;
  size_t n = fread(test.output, 1, sizeof test.output - 1, f);
  test.output[n] = 0;
  char rest[4096];
  while (fread(rest, 1, sizeof rest, f) > 0) {}
  const int status = pclose(f);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void check(const char *arguments, int status, const char *text) {
  const int got = run(arguments);
  const bool ok = got == status && strstr(test.output, text);
  if (!ok)
    printf("\n    tern-check %s: status %d, wanted %d and \"%s\"; it said:\n%.2000s\n", arguments, got, status, text,
           test.output);
  CU_ASSERT_TRUE(ok);
}

/* "claimed C / total T" of the last run. */
static bool counts(long *claimed, long *total) {
  const char *at = strstr(test.output, "claimed ");
  return at && sscanf(at, "claimed %ld / total %ld", claimed, total) == 2;
}

static void test_cpu(void) {
  long claimed = 0, total = 0;
  check("--quick --min-claimed 4000 " TERN_PLUGINS "/libtern-cpu.so", 0, "failed 0");
  CU_ASSERT_TRUE(counts(&claimed, &total));
  CU_ASSERT_EQUAL(claimed, total); /* the CPU computes everything */
  CU_ASSERT_TRUE(total >= 4000);
}

static void test_template(void) {
  long claimed = 0, total = 0;
  check(TERN_TEST_PLUGINS "/libtern-template.so", 0, "failed 0");
  CU_ASSERT_TRUE(counts(&claimed, &total));
  CU_ASSERT_TRUE(claimed >= 30 && claimed < 60);
  check("--quick --min-claimed 1000 " TERN_TEST_PLUGINS "/libtern-template.so", 1, "--min-claimed asks for 1000");
}

static void test_right_when_left_alone(void) {
  long claimed = 0, total = 0;
  check("--quick " FAULTY, 0, "failed 0");
  CU_ASSERT_TRUE(counts(&claimed, &total));
  CU_ASSERT_EQUAL(claimed, total);
  check("--quick --option single=1 " FAULTY, 0, "failed 0");
  CU_ASSERT_TRUE(counts(&claimed, &total));
  CU_ASSERT_TRUE(claimed < total); /* no composites */
  check("--quick --option refuse=1 " FAULTY, 0, "claimed 0 /");
}

/* An eighth of the cases will do: the faults do not depend on the op. */
static void test_finds_failures(void) {
  static const struct {
    const char *fail, *text;
  } failures[] = {{"init", "init fails"},
                  {"device_info", "device_info fails"},
                  {"device_open", "device_open fails"},
                  {"mem_alloc", "mem_alloc fails"},
                  {"mem_map", "mem_map fails"},
                  {"queue_open", "queue_open fails"},
                  {"queue_signal", "queue_signal fails"},
                  {"queue_sync", "queue_sync fails"},
                  {"queue_wait", "queue_wait fails"},
                  {"copy", "copy fails"},
                  {"fill", "fill fails"},
                  {"supports", "yes is 0, no is TERN_E_UNSUPPORTED"},
                  {"compile", "supports said yes, compile failed"},
                  {"workspace", "workspace fails"},
                  {"launch", "launch fails"},
                  {"async", "a launch fails when it runs"},
                  {"lost", "TERN_E_LOST"},
                  {"oom_after:3", "the device is full"},
                  {"wrong", "expected"},
                  {"overrun", "memory outside the outputs was changed"},
                  {"mute", "no message"}};
  for (size_t i = 0; i < sizeof failures / sizeof *failures; i++) {
    char arguments[512];
    snprintf(arguments, sizeof arguments, "--quick --slice 8 --show 8 --option fail=%s " FAULTY, failures[i].fail);
    check(arguments, 1, failures[i].text);
  }
}

static void test_usage(void) {
  check("--help", 0, "usage:");
  check("", 2, "usage:");
  check("--nonsense x.so", 2, "usage:");
  check("/nonexistent/libtern-x.so", 1, "dlopen");
  check("--json --quick --filter 'ADD float32' " TERN_TEST_PLUGINS "/libtern-template.so", 0,
        "{\"version\": 1, \"tool\": \"tern-check\"");
  check("--quick --filter 'ADD float32, contiguous' --verbose " TERN_TEST_PLUGINS "/libtern-template.so", 0,
        "ok   ADD float32, contiguous");
}

int main(void) {
  if (access(CHECK, X_OK)) {
    printf("skipped: %s is not built\n", CHECK);
    return 77;
  }
  if (CU_initialize_registry() != CUE_SUCCESS) return 2;
  CU_pSuite suite = CU_add_suite("tools/check", NULL, NULL);
  CU_add_test(suite, "the CPU claims and passes everything", test_cpu);
  CU_add_test(suite, "template passes what it claims", test_template);
  CU_add_test(suite, "faulty is right when left alone", test_right_when_left_alone);
  CU_add_test(suite, "each fault is found", test_finds_failures);
  CU_add_test(suite, "usage", test_usage);
  CU_basic_set_mode(CU_BRM_VERBOSE);
  CU_basic_run_tests();
  const unsigned failures = CU_get_number_of_failures();
  CU_cleanup_registry();
  return failures ? 1 : 0;
}
