/* Eight threads at once: making, printing and freeing tensors, sharing one, escaping, assigning, failing, drawing
   random numbers. Meant for ThreadSanitizer as well. */
#include "support/values.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 8, TURNS = 60 };

static struct {
  tern_tensor *shared, *table[200];
  atomic_int wrong, barrier;
} all;

static void expect(bool holds) { /* CUnit is not for threads */
  if (!holds) atomic_fetch_add(&all.wrong, 1);
}

/* All begin at once, kernels and all. */
static void wait_for_all(void) {
  atomic_fetch_add(&all.barrier, 1);
  while (atomic_load(&all.barrier) < THREADS) sched_yield();
}

static tern_tensor *made(int i) {
  TERN_SCOPE;
  tern_ones(TERN_SHAPE(3), TERN_F32);
  return tern_escape(tern_full(TERN_SHAPE(2, 3), TERN_F32, i));
}

static void one_turn(int thread, int i) {
  TERN_SCOPE;
  const int v = thread * 100 + i;
  tern_tensor *t = made(v);
  char *text = tern_to_string(tern_add(t, tern_scalar(0.5))), part[20];
  snprintf(part, sizeof part, "%d.5", v);
  expect(text && strstr(text, part));
  free(text);
  expect(tern_item(tern_sum(tern_mul(all.shared, t), NULL)) == 21.0 * v);
  expect(tern_item(tern_max(tern_transpose(all.shared), NULL)) == 6);
  tern_tensor *kept = tern_keep(all.shared);
  tern_tensor *p = tern_matmul(kept, tern_transpose(t));
  expect(p && tern_item(tern_index(tern_index(p, 0, 1), 0, 0)) == 15.0 * v);
  tern_release(kept);
  expect(tern_add(all.shared, tern_ones(TERN_SHAPE(5), TERN_F32)) == NULL && strstr(tern_error(), "(5,)"));
  tern_error_clear();
  tern_tensor *big = tern_full(TERN_SHAPE(50000), TERN_F32, 1);
  expect(tern_item(tern_sum(big, NULL)) == 50000);
  tern_tensor *r = tern_random_uniform(TERN_SHAPE(33), NULL);
  expect(tern_item(tern_max(r, NULL)) < 1 && tern_item(tern_min(r, NULL)) >= 0);
  expect(tern_size(tern_read_idx("/no/such/file")) == 0 && tern_error_code() == TERN_E_IO);
  tern_error_clear();
  tern_memory m;
  tern_counters c;
  expect(!tern_memory_info(NULL, &m) && !tern_counters_get(NULL, &c) && !tern_sync(NULL) && c.launches > 0);
  expect(tern_error_code() == TERN_OK);
}

static void *run(void *number) {
  const int thread = (int)(intptr_t)number;
  wait_for_all();
  for (int i = 0; i < TURNS; i++) one_turn(thread, i);
  return NULL;
}

static void together(void *(*f)(void *)) {
  pthread_t thread[THREADS];
  atomic_store(&all.barrier, 0);
  atomic_store(&all.wrong, 0);
  int started = 0;
  for (; started < THREADS; started++)
    if (pthread_create(&thread[started], NULL, f, (void *)(intptr_t)started)) break;
  CHECK(started == THREADS, "%d threads started", started);
  atomic_fetch_add(&all.barrier, THREADS - started);
  for (int i = 0; i < started; i++) pthread_join(thread[i], NULL);
  CHECK(atomic_load(&all.wrong) == 0, "%d expectations failed", atomic_load(&all.wrong));
}

static void test_work(void) {
  TERN_SCOPE;
  all.shared = tern_f32(TERN_SHAPE(2, 3), 1, 2, 3, 4, 5, 6);
  tern_memory before, after;
  together(run);
  CHECK(tern_memory_info(NULL, &before) == TERN_OK, "%s", tern_error());
  together(run);
  CHECK(tern_memory_info(NULL, &after) == TERN_OK && after.live == before.live, "%lld bytes stayed alive",
        (long long)(after.live - before.live));
  CHECK_LIST(all.shared, TERN_SHAPE(2, 3), TERN_F32, 1, 2, 3, 4, 5, 6);
  CHECK_NO_ERROR();
}

/* Each tensor of the table is kept once a thread; the last reference may end in any of them. */
static void *releases(void *number) {
  (void)number;
  wait_for_all();
  for (int i = 0; i < 200; i++) {
    expect(tern_rank(all.table[i]) == 1);
    tern_release(all.table[i]);
  }
  return NULL;
}

static void test_references(void) {
  tern_memory before, after;
  CHECK(tern_memory_info(NULL, &before) == TERN_OK, "%s", tern_error());
  {
    TERN_SCOPE;
    for (int i = 0; i < 200; i++) {
      all.table[i] = tern_ones(TERN_SHAPE(100), TERN_F32);
      for (int k = 0; k < THREADS; k++) tern_keep(all.table[i]);
    }
  }
  together(releases);
  CHECK(tern_memory_info(NULL, &after) == TERN_OK && after.live == before.live, "%lld bytes stayed alive",
        (long long)(after.live - before.live));
}

/* The device of a thread is its own. */
static void *switches(void *number) {
  wait_for_all();
  for (int i = 0; i < 50; i++) {
    TERN_SCOPE;
    if ((intptr_t)number & 1) {
      tern_with_device("cpu");
      expect(!strcmp(tern_device_get(tern_ones(TERN_SHAPE(2), TERN_F32)), "cpu:0"));
    }
    expect(!strcmp(tern_device_get(tern_ones(TERN_SHAPE(2), TERN_F32)), tern_default_device()));
  }
  return NULL;
}

static void test_devices(void) { together(switches); }

static const test_case cases[] = {
    {"all at once", test_work}, {"references", test_references}, {"devices", test_devices}};
TEST_MAIN("threads", cases)
