/* See test.h. */
#include "support/test.h"
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <tern/tern.h>

static int explained;
static uint64_t sub_cases, sub_cases_run;

static uint64_t slice(void) {
  const char *n = getenv("TERN_TEST_SLICE");
  return n && atoi(n) > 1 ? (uint64_t)atoi(n) : 1;
}

int test_chosen(void) {
  /* a multiplicative hash: every N-th alone would meet the same dtype again and again */
  const uint64_t mixed = (sub_cases++ * UINT64_C(0x9E3779B97F4A7C15)) >> 33;
  const int chosen = mixed % slice() == 0;
  sub_cases_run += (uint64_t)chosen;
  return chosen;
}

/* A program that runs with TERN_FALLBACK=silent, since its device has no float64, says how much the host did. */
static void say_fallbacks(void) {
  const char *mode = getenv("TERN_FALLBACK");
  tern_counters n;
  if (!mode || strcmp(mode, "silent") || tern_counters_get(NULL, &n) || !n.fallbacks) return;
  printf("ON THE HOST: %llu primitives, beside %llu launches on the device\n", (unsigned long long)n.fallbacks,
         (unsigned long long)n.launches);
}

int test_main(int argc, char **argv, const char *suite, const test_case *cases, int n) {
  if (CU_initialize_registry() != CUE_SUCCESS) return 1;
  CU_pSuite s = CU_add_suite(suite, NULL, NULL);
  for (int i = 0; i < n; i++)
    if (argc < 2 || strstr(cases[i].name, argv[1])) CU_add_test(s, cases[i].name, cases[i].run);
  CU_basic_set_mode(CU_BRM_VERBOSE);
  CU_basic_run_tests();
  const unsigned failed = CU_get_number_of_failures();
  CU_cleanup_registry();
  say_fallbacks();
  if (slice() > 1 && sub_cases)
    printf("A SLICE: TERN_TEST_SLICE=%llu ran %llu of %llu sub-cases\n", (unsigned long long)slice(),
           (unsigned long long)sub_cases_run, (unsigned long long)sub_cases);
  return failed != 0;
}

int test_check(int holds, const char *file, int line, const char *format, ...) {
  CU_assertImplementation(holds ? CU_TRUE : CU_FALSE, (unsigned)line, "CHECK", file, "", CU_FALSE);
  if (holds || ++explained > 20) return holds;
  va_list list;
  va_start(list, format);
  printf("\n    %s:%d: ", file, line);
  vprintf(format, list);
  va_end(list);
  return holds;
}

void test_error_is(int code, const char *part, const char *file, int line) {
  char text[1024];
  const int got = tern_error_code();
  snprintf(text, sizeof text, "%s", tern_error());
  tern_error_clear();
  test_check(got == code && strstr(text, part) != NULL, file, line, "error %s \"%s\"; expected %s with \"%s\"",
             tern_rc_name(got), text, tern_rc_name(code), part);
}

double test_ulps(double got, double expected, int dtype) {
  if (got == expected || (isnan(got) && isnan(expected))) return 0;
  if (isnan(got) || isnan(expected) || isinf(got) || isinf(expected)) return INFINITY;
  const int bits = dtype == TERN_F64 ? 53 : dtype == TERN_F32 ? 24 : dtype == TERN_F16 ? 11 : 8;
  const int least = dtype == TERN_F64 ? -1074 : dtype == TERN_F32 ? -149 : dtype == TERN_F16 ? -24 : -133;
  int e;
  frexp(expected, &e);
  e = expected == 0 || e - bits < least ? least : e - bits;
  return fabs(got - expected) / ldexp(1, e);
}
