/* Compiled functions called again and again, which a device with a queue records and replays: other operands, other
   memory, random numbers, variables, errors that the device reports later, threads, functions released while their work
   is under way. What is expected comes from the same ops without a function. */
#include "support/values.h"
#include <pthread.h>
#include <stdlib.h>
#include <tern/graph.h>
#include <tern/tern.h>

enum { SIDE = 24, CALLS = 60 };

#define BODY(name) static tern_rc name(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out)
#define UNUSED (void)self, (void)in, (void)n_in, (void)out, (void)n_out

static tern_rc one(tern_tensor *y, tern_tensor **out) {
  *out = y;
  return y ? TERN_OK : tern_error_code();
}

/* Steps that do not become one kernel: products, a sort, a running sum, rows picked by number. */
BODY(steps) {
  UNUSED;
  tern_tensor *x = in[0], *w = in[1];
  for (int i = 0; i < 3; i++) {
    tern_tensor *y = tern_tanh(tern_matmul(x, w));
    y = tern_sort(tern_cumsum(y, 1, NULL), 1, NULL);
    x = tern_add(tern_take(y, in[2], 0), tern_mul(x, tern_scalar(0.25)));
  }
  return one(x, out);
}
BODY(picked) {
  UNUSED;
  return one(tern_matmul(tern_take(tern_matmul(in[0], in[1]), in[2], 0), in[1]), out);
}
BODY(noisy) {
  UNUSED;
  tern_tensor *noise = tern_random_uniform(TERN_SHAPE(SIDE, SIDE), NULL);
  return one(tern_matmul(tern_sort(tern_add(noise, in[0]), 1, NULL), in[1]), out);
}
BODY(counting) { /* self: a variable */
  UNUSED;
  tern_tensor *const v = self, *const step = tern_matmul(in[0], in[1]);
  const tern_rc rc = tern_assign_add(v, tern_sort(step, 1, NULL));
  return rc ? rc : one(tern_matmul(v, in[1]), out);
}

static tern_tensor *square(uint64_t *state) {
  double x[SIDE * SIDE];
  for (int i = 0; i < SIDE * SIDE; i++) x[i] = test_uniform(state, -0.3, 0.3);
  return test_tensor(TERN_SHAPE(SIDE, SIDE), TERN_F32, x);
}
static tern_tensor *rows(uint64_t *state, int64_t wrong) {
  double x[SIDE];
  for (int i = 0; i < SIDE; i++) x[i] = (double)test_below(state, SIDE);
  if (wrong) x[5] = (double)wrong;
  return test_tensor(TERN_SHAPE(SIDE), TERN_I32, x);
}

static bool same(tern_tensor *got, tern_tensor *expected) {
  return got && expected && tern_allclose(got, expected, 1e-5, 1e-5);
}

static uint64_t launches(void) {
  tern_counters c = {0};
  tern_counters_get(NULL, &c);
  return c.launches;
}

static void operands(void) {
  uint64_t state = 1;
  tern_function *f = tern_function_new(steps, NULL, 3, 1, NULL);
  tern_tensor *kept[8] = {0}; /* results that live on, so that others get other memory */
  uint64_t each[CALLS];
  for (int call = 0; call < CALLS; call++) {
    TERN_SCOPE;
    tern_tensor *in[3] = {square(&state), square(&state), rows(&state, 0)}, *expected = NULL;
    CHECK(!steps(NULL, in, 3, &expected, 1), "%s", tern_error());
    const uint64_t before = launches();
    tern_tensor *y = tern_call_n(f, in, 3);
    each[call] = launches() - before;
    CHECK(same(y, expected), "call %d: %s", call, tern_error());
    const int again = call % 7 ? 0 : 3; /* the same operands at the same place */
    for (int k = 0; k < again; k++) CHECK(same(tern_call_n(f, in, 3), expected), "call %d again %d", call, k);
    tern_tensor **const place = &kept[test_below(&state, 8)];
    if (*place) tern_release(*place);
    *place = y ? tern_keep(y) : NULL;
    if (call == CALLS / 2) tern_memory_trim();
  }
  tern_function_info info = {0};
  CHECK(!tern_function_get_info(f, &info) && info.launches > 3, "%u launches", info.launches);
  for (int call = 1; call < CALLS; call++)
    CHECK(each[call] == info.launches, "call %d launched %llu kernels, not %u", call, (unsigned long long)each[call],
          info.launches);
  for (int i = 0; i < 8; i++)
    if (kept[i]) tern_release(kept[i]);
  tern_function_release(f);
  CHECK_NO_ERROR();
}

/* The op itself fails, or the next wait does. */
static void bad_rows(void) {
  uint64_t state = 2;
  tern_function *f = tern_function_new(picked, NULL, 3, 1, NULL);
  for (int call = 0; call < 20; call++) {
    TERN_SCOPE;
    const int64_t wrong = call % 4 == 3 ? SIDE + call : 0;
    tern_tensor *in[3] = {square(&state), square(&state), rows(&state, wrong)}, *expected = NULL;
    tern_tensor *y = tern_call_n(f, in, 3);
    if (!wrong) {
      CHECK(!picked(NULL, in, 3, &expected, 1) && same(y, expected), "call %d: %s", call, tern_error());
      continue;
    }
    CHECK(!y || tern_sync(NULL), "call %d: no error", call);
    char part[64];
    snprintf(part, sizeof part, "index %d is out of range", (int)wrong);
    CHECK_ERROR(TERN_E_ARG, part);
    CHECK(!tern_sync(NULL), "call %d: reported twice", call);
  }
  tern_function_release(f);
  CHECK_NO_ERROR();
}

static void numbers(void) { /* words that change from run to run */
  uint64_t state = 3;
  tern_function *f = tern_function_new(noisy, NULL, 2, 1, NULL);
  TERN_SCOPE;
  tern_tensor *in[2] = {square(&state), square(&state)}, *expected[12] = {0}, *got[12] = {0};
  tern_set_seed(9);
  for (int i = 0; i < 12; i++) CHECK(!noisy(NULL, in, 2, &expected[i], 1), "%s", tern_error());
  tern_set_seed(9);
  for (int i = 0; i < 12; i++) got[i] = tern_call_n(f, in, 2);
  for (int i = 0; i < 12; i++) CHECK(same(got[i], expected[i]), "call %d: %s", i, tern_error());
  CHECK(!same(got[10], got[11]), "the same numbers again");
  tern_function_release(f);
}

static void variables(void) {
  uint64_t state = 4;
  TERN_SCOPE;
  tern_tensor *first = square(&state);
  tern_tensor *a = tern_variable(first, NULL), *b = tern_variable(first, NULL);
  tern_function *f = tern_function_new(counting, b, 2, 1, NULL);
  for (int call = 0; call < 20; call++) {
    tern_tensor *in[2] = {square(&state), square(&state)}, *expected = NULL;
    CHECK(!counting(a, in, 2, &expected, 1), "%s", tern_error());
    CHECK(same(tern_call_n(f, in, 2), expected) && same(b, a), "call %d: %s", call, tern_error());
    if (call == 10) {
      CHECK(!tern_assign(a, first) && !tern_assign(b, first), "%s", tern_error());
    }
  }
  tern_function_release(f);
  tern_release(a);
  tern_release(b);
}

static void *caller(void *arg) { /* each its own operands, one function */
  tern_function *f = arg;
  uint64_t state = (uint64_t)(uintptr_t)&state;
  for (int call = 0; call < 30; call++) {
    TERN_SCOPE;
    tern_tensor *in[3] = {square(&state), square(&state), rows(&state, 0)}, *expected = NULL, *y[3];
    for (int i = 0; i < 3; i++) y[i] = tern_call_n(f, in, 3); /* under way together */
    if (steps(NULL, in, 3, &expected, 1)) return "the ops failed";
    for (int i = 0; i < 3; i++)
      if (!same(y[i], expected)) return "results differ";
  }
  return NULL;
}
static void threads(void) {
  tern_function *f = tern_function_new(steps, NULL, 3, 1, NULL);
  pthread_t t[2];
  for (int i = 0; i < 2; i++) CHECK(!pthread_create(&t[i], NULL, caller, f), "a thread");
  for (int i = 0; i < 2; i++) {
    void *why = NULL;
    pthread_join(t[i], &why);
    CHECK(!why, "thread %d: %s", i, (const char *)why);
  }
  tern_function_release(f);
}

static void released(void) { /* nothing has waited for its runs */
  uint64_t state = 5;
  for (int round = 0; round < 5; round++) {
    TERN_SCOPE;
    tern_tensor *in[3] = {square(&state), square(&state), rows(&state, 0)}, *expected = NULL, *y[9];
    tern_function *f = tern_function_new(steps, NULL, 3, 1, NULL);
    for (int i = 0; i < 9; i++) y[i] = tern_call_n(f, in, 3);
    tern_function_release(f);
    CHECK(!steps(NULL, in, 3, &expected, 1), "%s", tern_error());
    for (int i = 0; i < 9; i++) CHECK(same(y[i], expected), "round %d, call %d: %s", round, i, tern_error());
  }
}

static const test_case cases[] = {{"operands", operands},      {"rows out of range", bad_rows},
                                  {"random numbers", numbers}, {"variables", variables},
                                  {"threads", threads},        {"released", released}};
TEST_MAIN("replays", cases)
