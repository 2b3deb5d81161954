/* Memory over many steps: what is alive returns to where it was, the pool stops growing, what it keeps can be given
   back. */
#include "support/values.h"
#include <pthread.h>
#include <string.h>

static tern_memory info(void) {
  tern_memory m = {0};
  CHECK(tern_memory_info(NULL, &m) == TERN_OK, "%s", tern_error());
  return m;
}

/* A training-like step: small and large tensors, views, a variable, composites. */
static void step(tern_tensor *weights, int i) {
  TERN_SCOPE;
  tern_tensor *x = tern_random_normal(TERN_SHAPE(8 + i % 5, 32), NULL), *h = tern_matmul(x, weights);
  tern_tensor *y = tern_softmax(tern_add(h, tern_ones(TERN_SHAPE(16), TERN_F32)), 1);
  tern_tensor *big = tern_zeros(TERN_SHAPE(200, 200), TERN_F32); /* larger than what threads keep for themselves */
  tern_tensor *gradient = tern_matmul(tern_transpose(x), tern_sub(y, tern_mean(y, TERN_AXES_KEEP(0))));
  CHECK(tern_assign(weights, tern_sub(weights, tern_mul(gradient, tern_scalar(0.01)))) == TERN_OK, "step %d: %s", i,
        tern_error());
  tern_sum(tern_slice(big, &TERN_RANGE(TERN_OPEN, TERN_OPEN, 2), 1), NULL);
  tern_tensor *kept = tern_keep(tern_sort(tern_flatten(y), 0, NULL));
  tern_release(kept);
}

static void test_steps(void) {
  TERN_SCOPE;
  const tern_memory outside = info();
  tern_tensor *weights = tern_variable(tern_zeros(TERN_SHAPE(32, 16), TERN_F32), NULL);
  for (int i = 0; i < 20; i++) step(weights, i);
  const tern_memory before = info();
  for (int i = 0; i < 1000; i++) step(weights, i);
  const tern_memory after = info();
  CHECK(after.live == before.live, "1000 steps left %lld bytes alive", (long long)(after.live - before.live));
  CHECK(after.live + after.pooled <= before.live + before.pooled, "the pool grew from %llu to %llu bytes",
        (unsigned long long)(before.live + before.pooled), (unsigned long long)(after.live + after.pooled));
  CHECK(after.peak >= after.live && after.peak - outside.live < 4 << 20, "peak %llu", (unsigned long long)after.peak);
  tern_release(weights);
  CHECK_NO_ERROR();
}

static void test_trim(void) {
  const tern_memory before = info();
  {
    TERN_SCOPE;
    for (int i = 0; i < 4; i++) CHECK(tern_zeros(TERN_SHAPE(1 << 20), TERN_F32) != NULL, "%s", tern_error());
    const tern_memory during = info();
    CHECK(during.live >= before.live + (16 << 20) && during.peak >= during.live, "16 MiB are alive: %llu",
          (unsigned long long)(during.live - before.live));
  }
  const tern_memory pooled = info();
  CHECK(pooled.live == before.live && pooled.pooled >= 16 << 20, "pooled: %llu", (unsigned long long)pooled.pooled);
  tern_memory_trim();
  const tern_memory after = info();
  CHECK(after.pooled + (16 << 20) <= pooled.pooled && after.live == before.live, "after the trim %llu are pooled",
        (unsigned long long)after.pooled);
  TERN_SCOPE;
  CHECK(tern_item(tern_sum(tern_ones(TERN_SHAPE(1 << 18), TERN_F32), NULL)) == 1 << 18, "works after a trim: %s",
        tern_error());
  CHECK_NO_ERROR();
}

/* Every size class once, and its neighbours: nothing overlaps. */
static void test_sizes(void) {
  TERN_SCOPE;
  tern_tensor *made[200];
  int n = 0;
  for (int64_t bytes = 1; bytes < 3 << 20 && n < 198; bytes += bytes / 8 + 1, n++)
    made[n] = tern_full(TERN_SHAPE(bytes), TERN_U8, n % 251);
  for (int i = 0; i < n; i++) {
    CHECK(tern_item(tern_min(made[i], NULL)) == i % 251 && tern_item(tern_max(made[i], NULL)) == i % 251,
          "tensor %d of %lld bytes was written over", i, (long long)tern_size(made[i]));
  }
  CHECK(n > 90, "%d sizes", n);
  CHECK_NO_ERROR();
}

static void *makes(void *unused) {
  (void)unused;
  TERN_SCOPE;
  return tern_keep(tern_full(TERN_SHAPE(1000), TERN_F32, 4)); /* freed by another thread */
}

static void test_handed_over(void) {
  for (int i = 0; i < 3; i++) { /* the first rounds warm up the pool */
    const tern_memory before = info();
    for (int k = 0; k < 20; k++) {
      pthread_t thread;
      void *t = NULL;
      if (!CHECK(!pthread_create(&thread, NULL, makes, NULL) && !pthread_join(thread, &t) && t, "a thread's tensor"))
        return;
      TERN_SCOPE;
      CHECK(tern_item(tern_sum(t, NULL)) == 4000, "made by a thread that ended: %s", tern_error());
      tern_release(t);
    }
    const tern_memory after = info();
    CHECK(after.live == before.live, "%lld bytes are alive", (long long)(after.live - before.live));
    CHECK(i == 0 || after.live + after.pooled == before.live + before.pooled, "the pool grew by %lld",
          (long long)(after.pooled - before.pooled));
  }
}

static const test_case cases[] = {{"a thousand steps", test_steps},
                                  {"trim", test_trim},
                                  {"every size", test_sizes},
                                  {"freed by another thread", test_handed_over}};
TEST_MAIN("memory", cases)
