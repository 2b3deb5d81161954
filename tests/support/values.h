/* Values between tests and tensors as doubles, a small generator of inputs, and the test program run again as a child
   with another environment. */
#ifndef TERN_TESTS_VALUES_H_
#define TERN_TESTS_VALUES_H_
#include "support/test.h"
#include <stdbool.h>
#include <stddef.h>
#include <tern/tern.h>

/* The value that dtype holds when given v (rounded, saturated), computed on the host. */
double test_rounded(double v, tern_dtype dtype);
/* A tensor on the default device from doubles, converted on the host. Borrowed from the scope. */
tern_tensor *test_tensor(tern_shape shape, tern_dtype dtype, const double *values);
/* All elements in row-major order, owned by the caller (free). NULL with the thread's error set. */
double *test_values(tern_tensor *t);
/* Elements of a shape. */
int64_t test_numel(tern_shape shape);

/* The tensor must have that shape and dtype, and each element lie within `ulps` (of the dtype) or `absolute` of the
   expected one; NaN equals NaN. Says what it saw and returns whether it held. dtype TERN_NO_DTYPE accepts any. */
int test_values_are(tern_tensor *got, tern_shape shape, tern_dtype dtype, const double *expected, double ulps,
                    double absolute, const char *file, int line, const char *what);
#define CHECK_VALUES(got, shape, dtype, expected, ulps, absolute, what) \
  test_values_are((got), (shape), (dtype), (expected), (ulps), (absolute), __FILE__, __LINE__, (what))
/* Exactly these few: CHECK_LIST(t, TERN_SHAPE(2), TERN_F32, 1, 2) */
#define CHECK_LIST(got, shape, dtype, ...) \
  test_values_are((got), (shape), (dtype), (const double[]){__VA_ARGS__}, 0, 0, __FILE__, __LINE__, #got)

/* The next of a fixed sequence (splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators",
   2014). */
uint64_t test_next(uint64_t *state);
/* In [0, n). */
int64_t test_below(uint64_t *state, int64_t n);
/* Uniform in [low, high). */
double test_uniform(uint64_t *state, double low, double high);

/* Row-major walk: steps index to the next element of shape; false after the last. Start with zeros (and not at all
   when empty). */
bool test_step(tern_shape shape, int64_t *index);
/* Row-major position of an index. */
int64_t test_at(tern_shape shape, const int64_t *index);

/* Become `PATH FIRST SECOND`, with status 127 if that cannot be run. Where programs run under an emulator,
   TERN_TEST_EMULATOR is its command (words separated by spaces). */
_Noreturn void test_exec(const char *path, const char *first, const char *second);
/* Run this program again as `PROGRAM --child NAME` with `environment` ("NAME=VALUE", NULL at the end) added. Returns
   its exit status, or minus the signal that ended it; text gets what it wrote to stdout and stderr. */
int test_child(const char *name, const char *const *environment, char *text, size_t size);
/* main of a program with children: runs child(NAME) for --child NAME, else the cases. */
int test_main_with_child(int argc, char **argv, const char *suite, const test_case *cases, int n,
                         int (*child)(const char *name));
#define TEST_MAIN_CHILD(suite, cases, child)                                                              \
  int main(int argc, char **argv) {                                                                       \
    return test_main_with_child(argc, argv, suite, cases, (int)(sizeof(cases) / sizeof *(cases)), child); \
  }
#endif
