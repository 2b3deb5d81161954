/* Which element comes when, and which random numbers go into it: a matter of seeds, never of threads. */
#include "data/collect.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <tern/graph.h>
#include <tern/ops.h>

/* ---- shuffle ---- */

static tern_dataset *shuffled(int64_t n, int64_t buffer, uint64_t seed, int same_each_time) {
  return tern_dataset_shuffle(tern_dataset_range(0, n, 1), buffer,
                              &(tern_shuffle_opts){.seed = seed, .same_each_time = same_each_time});
}

/* Each of 0 .. n-1 once, and none earlier than the buffer allows. */
static void check_order(const collected *c, size_t n, size_t buffer, const char *what) {
  CHECK(c->errors == 0 && c->n_values == n, "%s: %zu values", what, c->n_values);
  bool *seen = calloc(n + 1, 1);
  for (size_t i = 0; seen && i < c->n_values && i < n; i++) {
    const size_t value = (size_t)c->values[i];
    CHECK(value < n && !seen[value], "%s: %zu twice", what, value);
    CHECK(buffer == 0 || value < i + buffer, "%s: %zu at place %zu with a buffer of %zu", what, value, i, buffer);
    if (value < n) seen[value] = true;
  }
  free(seen);
}

static void test_shuffle(void) {
  static const size_t buffers[] = {0, 1, 2, 7, 50, 100};
  for (size_t i = 0; i < 6; i++) {
    collected c = collect_all(shuffled(50, (int64_t)buffers[i], 3, 0));
    check_order(&c, 50, buffers[i], "shuffle");
    if (buffers[i] == 1)
      for (size_t k = 0; k < c.n_values; k++) CHECK(c.values[k] == (double)k, "a buffer of 1 changed the order");
    collected_free(&c);
  }
  /* the same seed gives the same, each iterator another order, unless told otherwise */
  tern_dataset *a = shuffled(40, 0, 5, 0), *b = shuffled(40, 0, 5, 0), *s = shuffled(40, 0, 5, 1),
               *other = shuffled(40, 0, 6, 0);
  collected a1 = collect(a), a2 = collect(a), b1 = collect(b), b2 = collect(b), s1 = collect(s), s2 = collect(s),
            o = collect(other);
  CHECK(collected_equal(&a1, &b1) && collected_equal(&a2, &b2), "the same seeds, different orders");
  CHECK(!collected_equal(&a1, &a2), "two iterators, one order");
  CHECK(collected_equal(&s1, &s2) && collected_equal(&s1, &a1), "same_each_time");
  CHECK(!collected_equal(&a1, &o), "two seeds, one order");
  collected *all[] = {&a1, &a2, &b1, &b2, &s1, &s2, &o};
  for (int i = 0; i < 7; i++) collected_free(all[i]);
  tern_dataset *d[] = {a, b, s, other};
  for (int i = 0; i < 4; i++) tern_dataset_release(d[i]);
  /* each turn of repeat has an order of its own */
  collected r = collect_all(tern_dataset_repeat(shuffled(30, 0, 9, 0), 2));
  CHECK(r.n_values == 60 && memcmp(r.values, r.values + 30, 30 * sizeof *r.values) != 0, "two turns, one order");
  collected_free(&r);
  r = collect_all(tern_dataset_repeat(shuffled(30, 0, 9, 1), 2));
  CHECK(r.n_values == 60 && memcmp(r.values, r.values + 30, 30 * sizeof *r.values) == 0, "same_each_time, repeated");
  collected_free(&r);
}

/* Seed 0 follows tern_set_seed. */
static void test_drawn_seed(void) {
  collected c[3];
  for (int i = 0; i < 3; i++) {
    tern_set_seed(i == 2 ? 12 : 11);
    c[i] = collect_all(shuffled(40, 0, 0, 0));
  }
  CHECK(collected_equal(&c[0], &c[1]) && !collected_equal(&c[0], &c[2]), "tern_set_seed");
  tern_set_seed(11);
  tern_dataset *a = shuffled(40, 0, 0, 0), *b = shuffled(40, 0, 0, 0);
  collected x = collect_all(a), y = collect_all(b);
  CHECK(collected_equal(&x, &c[0]) && !collected_equal(&x, &y), "two datasets, one seed");
  collected_free(&x);
  collected_free(&y);
  for (int i = 0; i < 3; i++) collected_free(&c[i]);
}

/* All 24 orders of 4 elements are equally likely: chi-squared with 23 degrees of freedom is below its 99.99% point. */
static void test_uniform_orders(void) {
  enum { TURNS = 4800 };
  int count[256] = {0};
  tern_dataset *d = tern_dataset_batch(tern_dataset_repeat(shuffled(4, 0, 1, 0), TURNS), 4, NULL);
  collected c = collect_all(d);
  for (size_t i = 0; i + 3 < c.n_values; i += 4) {
    const double *v = c.values + i;
    count[(int)v[0] * 64 + (int)v[1] * 16 + (int)v[2] * 4 + (int)v[3]]++;
  }
  double chi = 0;
  int kinds = 0;
  for (int i = 0; i < 256; i++)
    if (count[i]) kinds++, chi += pow(count[i] - TURNS / 24.0, 2) / (TURNS / 24.0);
  CHECK(kinds == 24 && chi < 58.6, "%d orders, chi-squared %g", kinds, chi);
  collected_free(&c);
}

/* Rows of tensors in a batch are the rows, whatever way they came. */
static void test_rows(void) {
  TERN_SCOPE;
  tern_tensor *const two[] = {tern_reshape(tern_arange(0, 60, 1, TERN_F32), TERN_SHAPE(20, 3)),
                              tern_arange(100, 120, 1, TERN_I16)};
  tern_dataset *d = tern_dataset_batch(
      tern_dataset_repeat(tern_dataset_shuffle(tern_dataset_tensors(two, 2), 0, &(tern_shuffle_opts){.seed = 4}), 2), 7,
      NULL);
  CHECK(tern_dataset_size(d) == 6, "size %lld", (long long)tern_dataset_size(d));
  tern_iterator *it = tern_dataset_begin(d);
  int rows = 0, seen[20] = {0};
  for (;;) {
    TERN_SCOPE;
    tern_tensor *out[TERN_MAX_COMPONENTS];
    const int n = tern_iterator_next(it, out);
    if (n <= 0) break;
    CHECK(n == 2 && tern_dtype_get(out[1]) == TERN_I16, "%d components", n);
    double *x = test_values(out[0]), *y = test_values(out[1]);
    for (int64_t i = 0; x && y && i < tern_dim(out[1], 0); i++, rows++) {
      const int row = (int)y[i] - 100;
      CHECK(row >= 0 && row < 20 && x[3 * i] == 3 * row && x[3 * i + 2] == 3 * row + 2, "row %d", row);
      if (row >= 0 && row < 20) seen[row]++;
    }
    free(x);
    free(y);
  }
  for (int i = 0; i < 20; i++) CHECK(seen[i] == 2, "row %d came %d times", i, seen[i]);
  CHECK(rows == 40, "%d rows", rows);
  tern_iterator_end(it);
  tern_dataset_release(d);
}

/* ---- random ops in functions ---- */

static int noise(void *self, tern_tensor *const *in, int n, tern_tensor **out) {
  (void)self;
  (void)n;
  out[0] = in[0];
  out[1] = tern_random_uniform(TERN_SHAPE(3), NULL);
  out[2] = tern_add(tern_random_normal(TERN_SHAPE(2), NULL), in[0]);
  return 3;
}

static int coin(void *self, tern_tensor *const *in, int n) {
  (void)self;
  (void)in;
  (void)n;
  return tern_item(tern_random_uniform(TERN_SHAPE(), NULL)) < 0.6;
}

static int draw(void *self, void *state, tern_tensor **out) {
  (void)state;
  out[0] = tern_random_integers(TERN_SHAPE(), 0, 1000000, NULL);
  return tern_item_int(out[0]) % 16 == (*(int *)self)++ % 16 ? 0 : 1;
}

static tern_dataset *pipeline(int threads, int ahead, int *calls) {
  tern_set_seed(42);
  const tern_map_opts opts = {threads};
  const tern_generator g = {.next = draw};
  *calls = 0;
  tern_dataset *d = tern_dataset_filter(tern_dataset_take(tern_dataset_generator(&g, calls), 60), coin, NULL);
  d = tern_dataset_map(tern_dataset_shuffle(d, 10, NULL), noise, NULL, &opts);
  return ahead ? tern_dataset_prefetch(d, ahead, NULL) : d;
}

static void test_threads(void) {
  static const int threads[] = {0, 1, 4, -1};
  int calls;
  tern_dataset *d = pipeline(0, 0, &calls);
  collected first = collect(d), second;
  calls = 0;
  second = collect(d);
  tern_dataset_release(d);
  CHECK(first.elements > 0 && first.errors == 0, "%d elements, %s", first.elements, first.error[0]);
  CHECK(!collected_equal(&first, &second), "two iterators, the same numbers");
  for (int i = 0; i < 4; i++)
    for (int ahead = 0; ahead < 3; ahead++) {
      tern_dataset *e = pipeline(threads[i], ahead, &calls);
      tern_scope_mark scope = tern_scope_begin();
      tern_random_uniform(TERN_SHAPE(5), NULL); /* what the program draws itself changes nothing */
      tern_scope_end(&scope);
      collected c = collect(e);
      CHECK(collected_equal(&c, &first), "%d threads, %d ahead: %d elements", threads[i], ahead, c.elements);
      collected_free(&c);
      calls = 0;
      c = collect(e);
      CHECK(collected_equal(&c, &second), "%d threads, %d ahead, second time", threads[i], ahead);
      collected_free(&c);
      tern_dataset_release(e);
    }
  collected_free(&first);
  collected_free(&second);
}

static tern_rc noisy(void *self, tern_tensor *const *in, int n, tern_tensor **out, int n_out) {
  (void)self;
  (void)n;
  (void)n_out;
  out[0] = tern_add(tern_random_uniform(TERN_SHAPE(4), NULL), in[0]);
  return TERN_OK;
}

static int call_noisy(void *self, tern_tensor *const *in, int n, tern_tensor **out) {
  out[0] = tern_call_n(self, in, n);
  return 1;
}

/* A function that is compiled draws as its ops do. */
static void test_function(void) {
  static const int threads[] = {0, 1, 3};
  tern_function *f = tern_function_new(noisy, NULL, 1, 1, NULL);
  collected c[3];
  for (int i = 0; i < 3; i++) {
    tern_set_seed(5);
    c[i] = collect_all(tern_dataset_map(tern_dataset_range(0, 20, 1), call_noisy, f, &(tern_map_opts){threads[i]}));
    CHECK(c[i].elements == 20 && collected_equal(&c[i], &c[0]), "%d threads: %s", threads[i], c[i].error[0]);
  }
  for (int i = 0; i < 3; i++) collected_free(&c[i]);
  tern_function_release(f);
}

/* A pipeline takes no number from the program's generator while it runs. */
static void test_generator_untouched(void) {
  double drawn[2];
  for (int i = 0; i < 2; i++) {
    int calls;
    tern_dataset *d = pipeline(i ? 2 : 0, 0, &calls);
    if (i) {
      collected c = collect(d);
      collected_free(&c);
    }
    TERN_SCOPE;
    drawn[i] = tern_item(tern_random_uniform(TERN_SHAPE(), NULL));
    tern_dataset_release(d);
  }
  CHECK(drawn[0] == drawn[1], "%g and %g", drawn[0], drawn[1]);
}

static const test_case cases[] = {{"shuffle", test_shuffle},
                                  {"drawn seed", test_drawn_seed},
                                  {"uniform", test_uniform_orders},
                                  {"rows", test_rows},
                                  {"threads", test_threads},
                                  {"function", test_function},
                                  {"generator", test_generator_untouched}};
TEST_MAIN("data order", cases)
