/* What becomes of elements: functions, batches, caches, prefetching; errors in the middle, ends before the end, several
   iterators at once, wrong arguments. */
#include "base/alloc.h"
#include "data/collect.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <tern/graph.h>
#include <tern/tape.h>
#include <time.h>

static tern_dataset *range(int64_t n) { return tern_dataset_range(0, n, 1); }

static int twice(void *self, tern_tensor *const *in, int n, tern_tensor **out) {
  (void)self;
  for (int i = 0; i < n; i++) out[i] = tern_add(in[i], in[i]);
  return n;
}

/* Fails for 3, 4 (without a text), 5 (an op), 6 (returns nothing), 7 (an error that it does not look at). */
static int fails(void *self, tern_tensor *const *in, int n, tern_tensor **out) {
  const int64_t value = tern_item_int(in[0]);
  if (self) atomic_fetch_add((atomic_int *)self, 1);
  out[0] = in[0];
  if (value == 3) return tern_matmul(in[0], in[0]) ? 1 : tern_error_code();
  if (value == 4) return TERN_E_TIMEOUT;
  if (value == 5) out[0] = tern_reshape(in[0], TERN_SHAPE(7));
  if (value == 7) tern_reshape(in[0], TERN_SHAPE(8));
  return value == 6 ? 0 : n;
}

static int keep_fails(void *self, tern_tensor *const *in, int n) {
  (void)self;
  (void)n;
  const int64_t value = tern_item_int(in[0]);
  return value == 2 ? TERN_E_LOST : value % 2 == 0;
}

static void test_errors(void) {
  static const int threads[] = {0, 1, 3};
  for (int i = 0; i < 3; i++) {
    collected c = collect_all(tern_dataset_map(range(10), fails, NULL, &(tern_map_opts){threads[i]}));
    CHECK(c.elements == 5 && c.values[2] == 2 && c.values[3] == 8 && c.errors == 5, "%d elements, %d errors",
          c.elements, c.errors);
    static const char *const texts[] = {"element 3: matmul",
                                        "element 4: the program's function returned TERN_E_TIMEOUT",
                                        "element 5: reshape", "element 6: 0 tensors", "element 7: reshape"};
    for (int k = 0; k < 5; k++)
      CHECK(c.error_at[k] == 3 && !strncmp(c.error[k], "dataset_map: ", 13) && strstr(c.error[k], texts[k]),
            "%d threads, error %d: %s", threads[i], k, c.error[k]);
    collected_free(&c);
    CHECK_NO_ERROR();
  }
  collected c = collect_all(tern_dataset_filter(range(6), keep_fails, NULL));
  CHECK(c.elements == 2 && c.values[1] == 4 && c.errors == 1 && strstr(c.error[0], "dataset_filter: element 2"), "%s",
        c.error[0]);
  collected_free(&c);
  /* what came before an error in a batch is not lost */
  c = collect_all(tern_dataset_batch(tern_dataset_map(range(10), fails, NULL, NULL), 4, NULL));
  CHECK(c.elements == 2 && c.n_values == 5 && c.values[3] == 8 && c.errors == 5, "%d batches", c.elements);
  collected_free(&c);
  c = collect_all(tern_dataset_shuffle(tern_dataset_map(range(10), fails, NULL, NULL), 3, NULL));
  CHECK(c.elements == 5 && c.errors == 5, "%d elements", c.elements);
  collected_free(&c);
  /* side by side stays side by side */
  tern_dataset *const two[] = {tern_dataset_map(range(10), fails, NULL, NULL), range(10)};
  c = collect_all(tern_dataset_zip(two, 2));
  CHECK(c.elements == 5 && c.errors == 5 && c.values[6] == 8 && c.values[7] == 8, "%d elements", c.elements);
  collected_free(&c);
  tern_dataset *const both[] = {tern_dataset_map(range(7), fails, NULL, NULL),
                                tern_dataset_map(range(8), fails, NULL, NULL)};
  c = collect_all(tern_dataset_zip(both, 2));
  CHECK(c.elements == 3 && c.errors == 4 && strstr(c.error[3], "element 6: 0 tensors"), "%d elements", c.elements);
  collected_free(&c);
}

static void test_skip_errors(void) {
  tern_dataset *d = tern_dataset_skip_errors(tern_dataset_map(range(10), fails, NULL, &(tern_map_opts){2}), 0);
  d = tern_dataset_prefetch(d, 2, NULL);
  tern_iterator *it = tern_dataset_begin(d);
  tern_dataset_release(d);
  collected c = collect_from(it, "cpu");
  CHECK(c.elements == 5 && c.errors == 0 && tern_iterator_skipped(it) == 5, "%d elements, %lld skipped", c.elements,
        (long long)tern_iterator_skipped(it));
  collected_free(&c);
  tern_iterator_end(it);
  c = collect_all(tern_dataset_skip_errors(tern_dataset_map(range(10), fails, NULL, NULL), 3));
  CHECK(c.elements == 5 && c.errors == 2 && strstr(c.error[0], "more than 3 elements failed") &&
            strstr(c.error[0], "element 6"),
        "%d errors: %s", c.errors, c.error[0]);
  collected_free(&c);
  /* an older error of the program's is not touched, and nothing fails for it */
  TERN_SCOPE;
  tern_reshape(tern_f32(TERN_SHAPE(2), 1, 2), TERN_SHAPE(3));
  d = tern_dataset_skip_errors(tern_dataset_map(range(10), fails, NULL, NULL), 0);
  it = tern_dataset_begin(d);
  tern_tensor *out[TERN_MAX_COMPONENTS];
  int n = 0;
  while (tern_iterator_next(it, out) == 1) n++;
  CHECK(n == 5, "%d elements", n);
  tern_iterator_end(it);
  tern_dataset_release(d);
  CHECK_ERROR(TERN_E_ARG, "reshape");
}

/* Repeats of what never gives anything end. */
static void test_repeat_nothing(void) {
  collected c = collect_all(tern_dataset_repeat(range(0), -1));
  CHECK(c.elements == 0 && c.errors == 0, "elements");
  collected_free(&c);
  c = collect_all(tern_dataset_repeat(tern_dataset_map(tern_dataset_range(3, 6, 1), fails, NULL, NULL), -1));
  CHECK(c.elements == 0 && c.errors == 3, "%d errors", c.errors);
  collected_free(&c);
}

static void test_batches(void) {
  TERN_SCOPE;
  tern_tensor *a = tern_f32(TERN_SHAPE(1, 2), 1, 2), *b = tern_f32(TERN_SHAPE(1, 3), 3, 4, 5),
              *c = tern_i32(TERN_SHAPE(1, 2), 6, 7);
  tern_tensor *const two[] = {a, c};
  tern_dataset *shapes[] = {tern_dataset_tensors(&a, 1), tern_dataset_tensors(&b, 1), tern_dataset_tensors(&a, 1)};
  collected got = collect_all(tern_dataset_batch(tern_dataset_concat(shapes, 3), 2, NULL));
  CHECK(got.elements == 1 && got.errors == 1 && strstr(got.error[0], "float32 (3,)") &&
            strstr(got.error[0], "float32 (2,)"),
        "%s", got.error[0]);
  collected_free(&got);
  tern_dataset *dtypes[] = {tern_dataset_tensors(&a, 1), tern_dataset_tensors(&c, 1)};
  got = collect_all(tern_dataset_padded_batch(tern_dataset_concat(dtypes, 2), 2, NULL));
  CHECK(got.errors == 1 && strstr(got.error[0], "int32 of rank 1"), "%s", got.error[0]);
  collected_free(&got);
  tern_dataset *counts[] = {tern_dataset_tensors(&a, 1), tern_dataset_tensors(two, 2)};
  got = collect_all(tern_dataset_batch(tern_dataset_concat(counts, 2), 2, NULL));
  CHECK(got.errors == 1 && strstr(got.error[0], "has 2 components, the first has 1"), "%s", got.error[0]);
  collected_free(&got);
  tern_tensor *deep = tern_zeros(TERN_SHAPE(1, 1, 1, 1, 1, 1, 1, 1), TERN_F32);
  got = collect_all(tern_dataset_batch(tern_dataset_batch(tern_dataset_tensors(&deep, 1), 1, NULL), 1, NULL));
  CHECK(got.errors == 1 && strstr(got.error[0], "at most 8 axes"), "%s", got.error[0]);
  collected_free(&got);

  /* padding in other dtypes, two components, fixed sizes */
  tern_dataset *ragged[] = {tern_dataset_tensors(&a, 1), tern_dataset_tensors(&b, 1)};
  tern_dataset *both[] = {tern_dataset_concat(ragged, 2), range(2)};
  const tern_padded_opts opts = {
      .shapes = (tern_shape[]){{1, {4}}, {0, {0}}}, .values = (double[]){-0.5, 0}, .n = 2, .lengths = 1};
  CHECK_SEQUENCE(tern_dataset_padded_batch(tern_dataset_zip(both, 2), 5, &opts), 1, 2, -0.5, -0.5, 3, 4, 5, -0.5, 0, 1,
                 2, 3);
  const tern_padded_opts tight = {.shapes = (tern_shape[]){{1, {1}}}, .n = 1},
                         wide = {.values = (double[]){1, 2}, .n = 2},
                         ranks = {.shapes = (tern_shape[]){{2, {1, 1}}}, .n = 1}, lengths = {.lengths = 1};
  const tern_padded_opts *const bad[] = {&tight, &wide, &ranks};
  static const char *const texts[] = {"more than the 1", "for 2 components, but elements have 1", "has rank 1"};
  for (int i = 0; i < 3; i++) {
    got = collect_all(tern_dataset_padded_batch(tern_dataset_tensors(&a, 1), 2, bad[i]));
    CHECK(got.errors == 1 && strstr(got.error[0], texts[i]), "%s", got.error[0]);
    collected_free(&got);
  }
  got = collect_all(tern_dataset_padded_batch(range(3), 2, &lengths));
  CHECK(got.errors == 2 && strstr(got.error[0], "rank 0"), "%s", got.error[0]);
  collected_free(&got);
  got = collect_all(tern_dataset_bucket_by_length(range(3), (const int64_t[]){1}, (const int64_t[]){1, 1}, 1, NULL));
  CHECK(got.errors == 3 && strstr(got.error[0], "no length"), "%s", got.error[0]);
  collected_free(&got);
}

/* ---- cache ---- */

static void test_cache(void) {
  atomic_int calls = 0;
  tern_dataset *d = tern_dataset_cache(tern_dataset_map(tern_dataset_take(range(10), 3), fails, &calls, NULL));
  {
    TERN_SCOPE;
    tern_tensor *out[TERN_MAX_COMPONENTS];
    tern_iterator *it = tern_dataset_begin(d); /* never reaches the end */
    tern_iterator_next(it, out);
    tern_iterator_end(it);
  }
  for (int i = 0; i < 3; i++) {
    collected c = collect(d);
    CHECK(c.elements == 3 && c.values[2] == 2, "%d elements", c.elements);
    collected_free(&c);
  }
  CHECK(calls == 4 && tern_dataset_size(d) == 3, "%d calls", calls);
  tern_dataset_release(d);
  /* errors are not kept out of sight */
  d = tern_dataset_cache(tern_dataset_map(tern_dataset_take(range(10), 5), fails, NULL, NULL));
  for (int i = 0; i < 2; i++) {
    collected c = collect(d);
    CHECK(c.elements == 3 && c.errors == 2, "%d errors", c.errors);
    collected_free(&c);
  }
  tern_dataset_release(d);
  /* rows, shuffled behind the cache */
  TERN_SCOPE;
  tern_tensor *x = tern_arange(0, 20, 1, TERN_F32);
  d = tern_dataset_repeat(tern_dataset_shuffle(tern_dataset_cache(tern_dataset_tensors(&x, 1)), 0, NULL), 3);
  collected c = collect_all(d);
  double sum = 0;
  for (size_t i = 0; i < c.n_values; i++) sum += c.values[i];
  CHECK(c.elements == 60 && sum == 570, "%d elements, sum %g", c.elements, sum);
  collected_free(&c);
}

/* ---- prefetch, threads, ends ---- */

static void test_prefetch(void) {
  for (int n = 0; n < 4; n++) {
    collected c = collect_all(tern_dataset_prefetch(tern_dataset_map(range(9), fails, NULL, NULL), n, "cpu"));
    CHECK(c.elements == 4 && c.errors == 5 && c.error_at[0] == 3 && c.values[3] == 8, "%d elements", c.elements);
    collected_free(&c);
  }
  /* to the device that the tests run on, and back where a batch needs it */
  TERN_SCOPE;
  const char *device = tern_default_device();
  tern_tensor *x = tern_reshape(tern_arange(0, 12, 1, TERN_F32), TERN_SHAPE(4, 3));
  tern_dataset *d = tern_dataset_prefetch(tern_dataset_tensors(&x, 1), 0, device);
  tern_iterator *it = tern_dataset_begin(d);
  collected c = collect_from(it, device);
  CHECK(c.elements == 4 && c.values[11] == 11, "%d elements", c.elements);
  collected_free(&c);
  tern_iterator_end(it);
  d = tern_dataset_batch(tern_dataset_map(d, twice, NULL, NULL), 3, NULL);
  CHECK_SEQUENCE(d, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22);
}

static int slowly(void *self, tern_tensor *const *in, int n, tern_tensor **out) {
  const int64_t first = tern_item_int(tern_slice(tern_flatten(in[0]), (const tern_range[]){{0, 1, 1}}, 1));
  nanosleep(&(struct timespec){0, 300000 * (1 + first % 3)}, NULL);
  return twice(self, in, n, out);
}

static int never(void *self, tern_tensor *const *in, int n) {
  (void)self;
  (void)in;
  (void)n;
  return 0;
}

/* Ends after `take` elements. */
static void end_early(tern_dataset *d, int take) {
  tern_iterator *it = tern_dataset_begin(d);
  tern_dataset_release(d);
  for (int i = 0; i < take; i++) {
    TERN_SCOPE;
    tern_tensor *out[TERN_MAX_COMPONENTS];
    CHECK(tern_iterator_next(it, out) == 1, "%s", tern_error());
  }
  tern_iterator_end(it);
}

static void test_end_early(void) {
  for (int take = 0; take < 3; take++) {
    const tern_map_opts opts = {3};
    end_early(tern_dataset_prefetch(tern_dataset_map(tern_dataset_repeat(range(5), -1), slowly, NULL, &opts), 2, NULL),
              take);
    end_early(tern_dataset_map(tern_dataset_prefetch(tern_dataset_repeat(range(5), -1), 4, NULL), slowly, NULL, &opts),
              take);
    end_early(tern_dataset_prefetch(tern_dataset_prefetch(range(100), 2, NULL), 2, NULL), take);
    end_early(tern_dataset_shuffle(tern_dataset_repeat(range(5), -1), 8, NULL), take);
    end_early(tern_dataset_cache(range(9)), take);
    end_early(tern_dataset_batch(tern_dataset_map(range(9), slowly, NULL, &opts), 2, NULL), take);
  }
  /* threads that would look for an element for ever */
  tern_dataset *d = tern_dataset_filter(tern_dataset_repeat(range(3), -1), never, NULL);
  end_early(tern_dataset_prefetch(tern_dataset_map(d, twice, NULL, &(tern_map_opts){2}), 1, NULL), 0);
  d = tern_dataset_filter(tern_dataset_repeat(range(3), -1), never, NULL);
  d = tern_dataset_prefetch(tern_dataset_skip_errors(d, 0), 1, NULL);
  end_early(tern_dataset_prefetch(tern_dataset_batch(d, 2, NULL), 1, NULL), 0);
  CHECK_NO_ERROR();
}

static void *go_through(void *self) {
  TERN_SCOPE;
  collected *c = malloc(sizeof *c);
  if (c) *c = collect(self);
  return c;
}

static void test_two_at_once(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_reshape(tern_arange(0, 120, 1, TERN_F32), TERN_SHAPE(40, 3));
  tern_dataset *d = tern_dataset_shuffle(tern_dataset_tensors(&x, 1), 0, &(tern_shuffle_opts){7, 1});
  d = tern_dataset_cache(tern_dataset_map(d, slowly, NULL, &(tern_map_opts){2}));
  d = tern_dataset_prefetch(tern_dataset_batch(d, 7, NULL), 2, NULL);
  tern_iterator *early = tern_dataset_begin(d);
  pthread_t thread[2];
  void *result[2] = {NULL};
  for (int i = 0; i < 2; i++) CHECK(!pthread_create(&thread[i], NULL, go_through, d), "no thread");
  collected own = collect_from(early, "cpu");
  for (int i = 0; i < 2; i++) {
    pthread_join(thread[i], &result[i]);
    collected *c = result[i];
    CHECK(c && c->elements == 6 && collected_equal(c, &own), "thread %d", i);
    if (c) collected_free(c);
    free(c);
  }
  collected_free(&own);
  tern_iterator_end(early);
  tern_dataset_release(d);
}

/* ---- surroundings ---- */

static tern_rc read_one(void *self, tern_tensor *const *in, int n, tern_tensor **out, int n_out) {
  (void)n;
  (void)n_out;
  tern_tensor *element[TERN_MAX_COMPONENTS];
  const int got = tern_iterator_next(self, element);
  out[0] = in[0];
  return got < 0 ? got : TERN_OK;
}

/* Pipelines do not see the program's tapes and devices; a traced function must not read elements. */
static void test_surroundings(void) {
  TERN_SCOPE;
  tern_tensor *v = tern_variable(tern_f32(TERN_SHAPE(2, 1), 3, 4), NULL);
  tern_tape *tape = tern_tape_begin(NULL);
  tern_dataset *d = tern_dataset_map(tern_dataset_tensors(&v, 1), twice, NULL, NULL);
  tern_iterator *it = tern_dataset_begin(d);
  tern_tensor *out[TERN_MAX_COMPONENTS], *gradient[1] = {NULL};
  CHECK(tern_iterator_next(it, out) == 1, "%s", tern_error());
  CHECK_LIST(out[0], TERN_SHAPE(1), TERN_F32, 6);
  CHECK(tern_recording(), "the tape stopped");
  tern_tape_gradient(tape, tern_sum(tern_mul(v, v), NULL), &v, 1, gradient);
  CHECK_LIST(gradient[0], TERN_SHAPE(2, 1), TERN_F32, 6, 8);
  tern_function *f = tern_function_new(read_one, it, 1, 1, NULL);
  CHECK(!tern_call(f, v), "a traced function read an element");
  CHECK_ERROR(TERN_E_ARG, "hand the tensors to the function");
  tern_function_release(f);
  tern_iterator_end(it);
  tern_dataset_release(d);
  tern_release(v);
}

static void test_arguments(void) {
  tern_tensor *out[TERN_MAX_COMPONENTS];
  CHECK(!tern_dataset_map(range(3), NULL, NULL, NULL), "accepted");
  CHECK_ERROR(TERN_E_ARG, "the body is NULL");
  CHECK(!tern_dataset_map(range(3), twice, NULL, &(tern_map_opts){-2}), "accepted");
  CHECK_ERROR(TERN_E_ARG, "-2 threads");
  CHECK(!tern_dataset_filter(range(3), NULL, NULL), "accepted");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  CHECK(!tern_dataset_shuffle(range(3), -1, NULL), "accepted");
  CHECK_ERROR(TERN_E_ARG, "buffer of -1");
  CHECK(!tern_dataset_shuffle(tern_dataset_repeat(range(3), -1), 0, NULL), "accepted");
  CHECK_ERROR(TERN_E_ARG, "endless");
  CHECK(!tern_dataset_batch(range(3), 0, NULL), "accepted");
  CHECK_ERROR(TERN_E_ARG, "batches of 0");
  CHECK(!tern_dataset_padded_batch(range(3), 1, &(tern_padded_opts){.values = (double[]){0}}), "accepted");
  CHECK_ERROR(TERN_E_ARG, "n must be 1 to 8");
  CHECK(!tern_dataset_padded_batch(range(3), 1, &(tern_padded_opts){.shapes = (tern_shape[]){{1, {-2}}}, .n = 1}),
        "accepted");
  CHECK_ERROR(TERN_E_ARG, "shape of component 0");
  const int64_t sizes[] = {1, 1, 0}, falling[] = {3, 3};
  CHECK(!tern_dataset_bucket_by_length(range(3), falling, sizes, 2, NULL), "accepted");
  CHECK_ERROR(TERN_E_ARG, "not above");
  CHECK(!tern_dataset_bucket_by_length(range(3), (const int64_t[]){1, 2}, sizes, 2, NULL), "accepted");
  CHECK_ERROR(TERN_E_ARG, "bucket 2");
  CHECK(!tern_dataset_bucket_by_length(range(3), NULL, sizes, 1, NULL), "accepted");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  CHECK(!tern_dataset_repeat(range(3), -2) && tern_error_code() == TERN_E_ARG, "accepted");
  CHECK(!tern_dataset_take(range(3), -1) && !tern_dataset_skip(range(3), -1), "accepted");
  CHECK(!tern_dataset_shard(range(3), 0, 0) && !tern_dataset_shard(range(3), 2, 2), "accepted");
  CHECK(!tern_dataset_skip_errors(range(3), -1) && !tern_dataset_prefetch(range(3), -1, NULL), "accepted");
  tern_error_clear();
  CHECK(!tern_dataset_prefetch(range(3), 1, "nonsense"), "accepted");
  CHECK_ERROR(TERN_E_ARG, "nonsense");
  tern_dataset *same = range(3), *const twin[] = {same, same};
  CHECK(!tern_dataset_zip(twin, 2), "accepted");
  CHECK_ERROR(TERN_E_ARG, "the same one");
  tern_dataset *const hole[] = {range(3), NULL};
  CHECK(!tern_dataset_concat(hole, 2) && !tern_dataset_zip(NULL, 2), "accepted");
  CHECK_ERROR(TERN_E_ARG, "dataset 2 is NULL");
  /* NULL in gives NULL out, and the first error stays */
  CHECK(!tern_dataset_prefetch(tern_dataset_batch(tern_dataset_cache(tern_dataset_range(0, 1, 0)), 2, NULL), 1, NULL),
        "a dataset of nothing");
  CHECK_ERROR(TERN_E_ARG, "the step is 0");
  CHECK(!tern_dataset_begin(NULL) && tern_error_code() == TERN_E_ARG, "begun");
  CHECK(tern_iterator_next(NULL, out) == TERN_E_ARG, "next");
  CHECK(tern_dataset_size(NULL) == -2 && tern_iterator_skipped(NULL) == 0, "NULL");
  tern_dataset_release(NULL);
  tern_iterator_end(NULL);
  tern_error_clear();
}

/* Many kinds in one pipeline; a NULL dataset ends all that went before. */
static tern_dataset *everything(const char *text, const char *table, tern_tensor *rows) {
  const tern_padded_opts opts = {.values = (double[]){1, 2}, .n = 2, .lengths = 1};
  tern_dataset *lines = tern_dataset_text(&text, 1);
  tern_dataset *numbers =
      tern_dataset_csv(table, &(tern_csv_opts){.label = "b", .words = (const char *const[]){"x", NULL}});
  tern_dataset *side[] = {tern_dataset_map(lines, twice, NULL, &(tern_map_opts){2}), tern_dataset_tensors(&rows, 1)};
  tern_dataset *d = tern_dataset_padded_batch(tern_dataset_zip(side, 2), 2, &opts);
  d = tern_dataset_repeat(tern_dataset_cache(tern_dataset_shuffle(d, 0, NULL)), 2);
  tern_dataset *both[] = {tern_dataset_prefetch(d, 2, NULL),
                          tern_dataset_batch(tern_dataset_skip(numbers, 1), 2, NULL)};
  d = tern_dataset_take(tern_dataset_concat(both, 2), 30);
  const int64_t boundaries[] = {2}, sizes[] = {2, 2};
  return tern_dataset_skip_errors(tern_dataset_bucket_by_length(d, boundaries, sizes, 1, NULL), 1);
}

static void test_out_of_memory(void) {
  TERN_SCOPE;
  tern_tensor *rows = tern_arange(0, 5, 1, TERN_F32);
  const char *text = test_text_file("m.txt", "one\ntwo\nthree\nfour", false),
             *table = test_text_file("m.csv", "a,b\n1,2\nx,4\n5,6\n", false);
  for (long k = 1; k < 120; k++) {
    TERN_SCOPE;
    tern__alloc_fail_at(k);
    tern_dataset *d = everything(text, table, rows);
    tern_iterator *it = d ? tern_dataset_begin(d) : NULL;
    tern_tensor *out[TERN_MAX_COMPONENTS];
    int n = it ? 1 : 0;
    for (int i = 0; i < 50 && n; i++) n = tern_iterator_next(it, out);
    tern__alloc_fail_at(0);
    CHECK(n == 0, "allocation %ld: no end: %s", k, tern_error());
    tern_iterator_end(it);
    tern_dataset_release(d);
    tern_error_clear();
  }
}

static int64_t size_of(tern_dataset *d) {
  const int64_t size = tern_dataset_size(d);
  tern_dataset_release(d);
  return size;
}

static void test_sizes(void) {
#define ENDLESS tern_dataset_repeat(range(3), -1)
#define UNKNOWN tern_dataset_filter(range(3), never, NULL)
  CHECK(size_of(ENDLESS) == -1 && size_of(UNKNOWN) == -2, "repeat, filter");
  CHECK(size_of(tern_dataset_take(ENDLESS, 5)) == 5 && size_of(tern_dataset_take(UNKNOWN, 5)) == -2, "take");
  CHECK(size_of(tern_dataset_skip(ENDLESS, 5)) == -1 && size_of(tern_dataset_skip(range(3), 5)) == 0, "skip");
  CHECK(size_of(tern_dataset_shard(range(7), 3, 0)) == 3 && size_of(tern_dataset_shard(range(7), 3, 1)) == 2, "shard");
  CHECK(size_of(tern_dataset_batch(range(7), 3, NULL)) == 3, "batch");
  CHECK(size_of(tern_dataset_batch(range(7), 3, &(tern_batch_opts){1})) == 2, "batch");
  tern_dataset *zipped[] = {ENDLESS, range(4)}, *unsure[] = {UNKNOWN, range(4)}, *none[] = {UNKNOWN, range(0)};
  CHECK(size_of(tern_dataset_zip(zipped, 2)) == 4 && size_of(tern_dataset_zip(unsure, 2)) == -2 &&
            size_of(tern_dataset_zip(none, 2)) == 0,
        "zip");
  tern_dataset *joined[] = {range(2), range(4)}, *open[] = {UNKNOWN, ENDLESS};
  CHECK(size_of(tern_dataset_concat(joined, 2)) == 6 && size_of(tern_dataset_concat(open, 2)) == -1, "concat");
  CHECK(size_of(tern_dataset_repeat(range(INT64_MAX), 3)) == INT64_MAX, "repeat");
  CHECK(size_of(tern_dataset_prefetch(tern_dataset_cache(range(4)), 1, NULL)) == 4, "prefetch");
  CHECK(size_of(tern_dataset_skip_errors(range(4), 0)) == -2, "skip_errors");
}

static const test_case cases[] = {{"errors", test_errors},
                                  {"skip_errors", test_skip_errors},
                                  {"repeat nothing", test_repeat_nothing},
                                  {"batches", test_batches},
                                  {"cache", test_cache},
                                  {"prefetch", test_prefetch},
                                  {"end early", test_end_early},
                                  {"two at once", test_two_at_once},
                                  {"surroundings", test_surroundings},
                                  {"arguments", test_arguments},
                                  {"out of memory", test_out_of_memory},
                                  {"sizes", test_sizes}};
TEST_MAIN("data pipeline", cases)
