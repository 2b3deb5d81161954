/* See test.h. */
#include "support/test.h"
#include <math.h>
#include <stdarg.h>
#include <string.h>
#include <tern/tern.h>

static int explained;

int test_main(int argc, char **argv, const char *suite, const test_case *cases, int n) {
  if (CU_initialize_registry() != CUE_SUCCESS) return 1;
  CU_pSuite s = CU_add_suite(suite, NULL, NULL);
  for (int i = 0; i < n; i++)
    if (argc < 2 || strstr(cases[i].name, argv[1])) CU_add_test(s, cases[i].name, cases[i].run);
  CU_basic_set_mode(CU_BRM_VERBOSE);
  CU_basic_run_tests();
  const unsigned failed = CU_get_number_of_failures();
  CU_cleanup_registry();
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
