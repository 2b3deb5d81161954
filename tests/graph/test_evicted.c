/* A function keeps 64 programs; older ones go while other threads may be inside them. Threads call one function with
   more sizes than that, each in an order of its own; one is inside a program for so long that the others drive it out
   meanwhile. */
#include "support/values.h"
#include <pthread.h>
#include <stdlib.h>
#include <tern/graph.h>
#include <tern/tern.h>

enum { SIZES = 97, COLUMNS = 3, WIDE = 1 << 19, SLOW_CALLS = 30, THREADS = 3 };

static tern_rc scaled(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  *out = tern_add(tern_cumsum(in[0], 0, NULL), tern_mul(in[0], tern_scalar(3)));
  return *out ? TERN_OK : tern_error_code();
}

typedef struct worker {
  tern_function *f;
  int number, rounds, wrong, runs; /* number 0: few sizes, large ones */
} worker;

/* x counts from 1 in each column: row i of the result is (i + 1) (i + 2) / 2 + 3 (i + 1). Looks at the last column. */
static bool right(worker *w, int n, int columns) {
  TERN_SCOPE;
  tern_tensor *rows = tern_reshape(tern_arange(1, n + 1, 1, TERN_F32), TERN_SHAPE(n, 1));
  tern_tensor *x = tern_contiguous(tern_expand(rows, TERN_SHAPE(n, columns))), *y = NULL;
  if (w->runs++ % 2)
    y = tern_call(w->f, x);
  else if (tern_function_run(w->f, &x, 1, &y, 1))
    y = NULL;
  double *values = y ? test_values(tern_contiguous(tern_index(y, 1, columns - 1))) : NULL;
  bool ok = values && tern_dim(y, 0) == n;
  for (int k = 0; k < n && ok; k++) ok = values[k] == (k + 1) * (k + 2) / 2 + 3 * (k + 1);
  free(values);
  return ok;
}

/* Thread 0 takes long in each call, so that the others drive its program out while it is inside. */
static void *work(void *argument) {
  static const int steps[] = {1, 5, 31}; /* each without a common factor with SIZES */
  worker *w = argument;
  const int n = w->number ? w->rounds * SIZES : SLOW_CALLS;
  for (int k = 0; k < n; k++)
    w->wrong += w->number ? !right(w, 2 + k * steps[w->number % 3] % SIZES, COLUMNS) : !right(w, 2 + k % 3, WIDE);
  return NULL;
}

static void evicted(void) {
  tern_function *f = tern_function_new(scaled, NULL, 1, 1, NULL);
  pthread_t thread[THREADS];
  worker w[THREADS];
  for (int i = 0; i < THREADS; i++) {
    w[i] = (worker){.f = f, .number = i, .rounds = 6};
    CHECK(!pthread_create(&thread[i], NULL, work, &w[i]), "no thread %d", i);
  }
  for (int i = 0; i < THREADS; i++) {
    pthread_join(thread[i], NULL);
    CHECK(w[i].wrong == 0, "thread %d: %d of %d calls failed or gave something else", i, w[i].wrong, w[i].runs);
  }
  tern_function_info info = {0};
  CHECK(!tern_function_get_info(f, &info), "%s", tern_error());
  CHECK(info.traces <= 4 && info.programs > SIZES, "%d traces, %d programs", info.traces, info.programs);
  tern_function_release(f);
}

/* On one thread: what was used last stays, so three sizes in between are compiled once; all others each time. */
static void least_recently_used(void) {
  tern_function *f = tern_function_new(scaled, NULL, 1, 1, NULL);
  worker w = {.f = f};
  tern_function_info info = {0};
  for (int k = 0; k < 2 * SIZES; k++) {
    CHECK(right(&w, 2 + 3 + k % SIZES, COLUMNS), "size %d: %s", k, tern_error());
    CHECK(right(&w, 2 + k % 3, COLUMNS), "%s", tern_error());
  }
  tern_function_get_info(f, &info);
  CHECK(info.programs == 3 + 2 * SIZES, "%d programs were compiled", info.programs);
  for (int k = 0; k < 10; k++) right(&w, 2 + 3 + (SIZES - 1 - k), COLUMNS);
  tern_function_get_info(f, &info);
  CHECK(info.programs == 3 + 2 * SIZES, "%d programs were compiled: the newest were not kept", info.programs);
  CHECK_NO_ERROR();
  tern_function_release(f);
}

static const test_case cases[] = {{"while other threads run them", evicted},
                                  {"least recently used", least_recently_used}};
TEST_MAIN("evicted", cases)
