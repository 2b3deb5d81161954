/* Test programs: a list of named cases run by CUnit, and a few checks that print what they saw. */
#ifndef TERN_TESTS_TEST_H_
#define TERN_TESTS_TEST_H_
#include <CUnit/Basic.h>
#include <stdio.h>

typedef struct test_case {
  const char *name;
  void (*run)(void);
} test_case;

/* Runs all cases (or those whose name contains argv[1]); 0 when every check held. */
int test_main(int argc, char **argv, const char *suite, const test_case *cases, int n);
#define TEST_MAIN(suite, cases)                                                         \
  int main(int argc, char **argv) {                                                     \
    return test_main(argc, argv, suite, cases, (int)(sizeof(cases) / sizeof *(cases))); \
  }

/* Whether to run the next sub-case of a program that has many and is slow on this device: always, or with
   TERN_TEST_SLICE=N in the environment about every N-th, spread evenly and the same ones each time. What was left out
   is printed at the end. */
int test_chosen(void);

/* A check with a printed explanation (at most 20 a program). */
int test_check(int holds, const char *file, int line, const char *format, ...) __attribute__((format(printf, 4, 5)));
#define CHECK(holds, ...) test_check((holds) != 0, __FILE__, __LINE__, __VA_ARGS__)
/* The thread's error must be this code and its text contain `part`; it is cleared. */
void test_error_is(int code, const char *part, const char *file, int line);
#define CHECK_ERROR(code, part) test_error_is((code), (part), __FILE__, __LINE__)
/* The thread must have no error; if it has, it is printed and cleared. */
#define CHECK_NO_ERROR() test_error_is(0, "", __FILE__, __LINE__)

/* Distance of two numbers in units of the last place of dtype (a tern_dtype) at `expected`; 0 for equal or both NaN. */
double test_ulps(double got, double expected, int dtype);
#endif
