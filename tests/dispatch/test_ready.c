/* Kernels are made ready without holding the queue: while one thread waits for that, the launches of others go on. The
   device is the faulty plugin, which makes a product ready only once something else was launched meanwhile. */
#include "support/values.h"
#include <pthread.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct {
  tern_tensor *x;
  tern_function *function;
  atomic_bool done;
  double got;
} all;

static void *eager(void *unused) {
  TERN_SCOPE;
  all.got = tern_item(tern_sum(tern_mul(all.x, all.x), NULL));
  atomic_store(&all.done, true);
  return unused;
}

static void *compiled(void *unused) {
  TERN_SCOPE;
  all.got = tern_item(tern_sum(tern_call_n(all.function, &all.x, 1), NULL));
  atomic_store(&all.done, true);
  return unused;
}

static tern_rc square(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  out[0] = tern_mul(in[0], in[0]);
  return TERN_OK;
}

static tern_rc cube_and_sort(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  out[0] = tern_sort(tern_mul(tern_mul(in[0], in[0]), in[0]), 0, NULL);
  return TERN_OK;
}

/* What `other` gives, on a thread of its own while this one launches additions. */
static double beside(void *(*other)(void *)) {
  pthread_t thread;
  atomic_store(&all.done, false);
  all.got = NAN;
  if (pthread_create(&thread, NULL, other, NULL)) return NAN;
  while (!atomic_load(&all.done)) {
    TERN_SCOPE;
    tern_add(all.x, all.x);
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  }
  pthread_join(thread, NULL);
  return all.got;
}

static bool operands(void) {
  static const double values[] = {1, 2, 3};
  all.x = test_tensor(TERN_SHAPE(3), TERN_F32, values);
  return tern_add(all.x, all.x) && !strncmp(tern_device_get(all.x), "faulty", 6); /* addition is ready from here on */
}

/* In a child, for which the faulty plugin is there. */
static int child(const char *name) {
  TERN_SCOPE;
  tern_with_device("faulty");
  if (!operands()) return 2;
  if (!strcmp(name, "fails")) {
    eager(NULL);
    return all.got == 14 && tern_error_code() == TERN_OK ? 0 : 1;
  }
  bool right = beside(eager) == 14;
  all.function = tern_function_new(square, NULL, 1, 1, NULL); /* one launch */
  right = right && beside(compiled) == 14;
  tern_function_release(all.function);
  all.function = tern_function_new(cube_and_sort, NULL, 1, 1, NULL);
  right = right && beside(compiled) == 36;
  tern_function_release(all.function);
  return right ? 0 : 1;
}

static void in_child(const char *name, const char *fail) {
  char setting[64], text[2000];
  snprintf(setting, sizeof setting, "TERN_FAULTY_FAIL=%s", fail);
  const char *const environment[] = {"TERN_PLUGIN_PATH=" TERN_TEST_PLUGINS ":" TERN_PLUGINS, setting, NULL};
  if (test_child(name, environment, text, sizeof text)) CU_FAIL(text);
}

static void launches_go_on(void) { in_child("goes on", "hold"); }
static void failures_are_left_to_the_launch(void) { in_child("fails", "ready"); }

static const test_case cases[] = {{"launches go on while a kernel is made ready", launches_go_on},
                                  {"a failure is left to the launch", failures_are_left_to_the_launch}};
TEST_MAIN_CHILD("ready", cases, child)
