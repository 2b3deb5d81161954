/* Metrics against Keras 3 (fixtures/metrics.bin): three uneven batches, eager and in a traced function; and what Keras
   has no word for: bad input, reset, tapes. */
#include "base/alloc.h"
#include "fixtures/fixtures.h"
#include "nn/metric.h"
#include "support/values.h"
#include <math.h>
#include <stdlib.h>

enum { BATCHES = 3 };

static tern_metric *metric_of(const fixture *f) {
  const int64_t bits = fixture_attr(f, "threshold", 0);
  tern_metric_opts opts = {.k = (int)fixture_attr(f, "k", 0),
                           .classes = (int)fixture_attr(f, "classes", 0),
                           .class_id = (int)fixture_attr(f, "class_id", 0),
                           .one_class = (int)fixture_attr(f, "one_class", 0),
                           .thresholds = (int)fixture_attr(f, "thresholds", 0),
                           .from_logits = (int)fixture_attr(f, "from_logits", 0)};
  memcpy(&opts.threshold, &bits, sizeof bits);
  return tern_metric_new(f->op, &opts);
}

static tern_tensor *tensor_of(const fixture_array *a) {
  return tern_constant(tern_shape_of(a->rank, a->shape), a->dtype, a->data, a->count);
}

static tern_rc update(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_out;
  const tern_rc rc = tern_metric_update(self, in[0], in[1], n_in > 2 ? in[2] : NULL);
  out[0] = tern_metric_result(self);
  return rc;
}

/* Sums of float32 values in another order than Keras's: a few ulp of the mean; areas are sums of such. */
static void check_result(const fixture *f, int number, int batch, tern_tensor *got, const char *way) {
  const fixture_array *e = &f->out[0];
  const size_t n = e->count / BATCHES;
  double *values = test_values(got);
  if (!CHECK(values && (size_t)tern_size(got) == n && tern_rank(got) == e->rank - 1, "%d %s %s: %s", number, f->op, way,
             tern_error()))
    return;
  for (size_t i = 0; i < n; i++) {
    const double expected = ((const double *)e->data)[(size_t)batch * n + i];
    CHECK(fabs(values[i] - expected) <= 2e-6 * fmax(1, fabs(expected)),
          "%d %s (%s, weights %d), batch %d: %.9g, Keras %.9g", number, f->op, way, (int)fixture_attr(f, "weighted", 0),
          batch, values[i], expected);
  }
  free(values);
}

static void one_fixture(const fixture *f, int number, bool traced) {
  tern_metric *m = metric_of(f);
  if (!CHECK(m != NULL, "%s: %s", f->op, tern_error())) return;
  const int n = f->n_in / BATCHES;
  tern_function *function = traced ? tern_function_new(update, m, n, 1, NULL) : NULL;
  for (int turn = 0; turn < 2; turn++) {
    for (int b = 0; b < BATCHES; b++) {
      TERN_SCOPE;
      tern_tensor *in[3], *out = NULL;
      for (int i = 0; i < n; i++) in[i] = tensor_of(&f->in[b * n + i]);
      tern_rc rc = traced ? tern_function_run(function, in, n, &out, 1) : update(m, in, n, &out, 1);
      CHECK(rc == TERN_OK, "%d %s: %s", number, f->op, tern_error());
      check_result(f, number, b, out, traced ? "traced" : "eager");
      CHECK_NO_ERROR();
    }
    CHECK(tern_metric_reset(m) == TERN_OK, "%s", tern_error());
  }
  tern_function_release(function);
  tern_metric_release(m);
}

static void each_fixture(bool traced) {
  const bool on_cpu = !strncmp(tern_default_device(), "cpu", 3);
  fixtures file;
  fixture f;
  int n = 0;
  const bool opened = fixtures_open(&file, TERN_FIXTURES "/metrics.bin");
  if (!CHECK(opened, "metrics.bin: %s", file.error)) return;
  for (; fixtures_next(&file, &f); n++)
    if ((on_cpu || n % 12 == 0) && test_chosen()) one_fixture(&f, n, traced);
  CHECK(!file.error && n > 90, "metrics.bin: record %d: %s", n, file.error ? file.error : "too few");
  fixtures_close(&file);
}

static void test_eager(void) { each_fixture(false); }
static void test_traced(void) { each_fixture(true); }

static void test_names(void) {
  static const char *const names[] = {"acc", "accuracy", "auc", "mse", "huber", "tversky", "mean"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    tern_metric *m = tern_metric_new(names[i], NULL);
    CHECK(m && !strcmp(tern_metric_name(m), names[i]), "%s is called %s: %s", names[i], tern_metric_name(m),
          tern_error());
    tern_tensor *sums[4];
    const int n = tern__metric_variables(m, sums, 4);
    CHECK(n >= 1 && n <= 2, "%s: %d sums", names[i], n);
    for (int k = 0; k < n; k++) CHECK(!tern_trainable(sums[k]), "%s: sum %d is trained", names[i], k);
    tern_metric_release(m);
  }
  tern_metric *m = tern_metric_new("auc", &(tern_metric_opts){.name = "area"});
  CHECK(m && !strcmp(tern_metric_name(m), "area"), "%s", tern_metric_name(m));
  TERN_SCOPE;
  CHECK_LIST(tern_metric_result(m), TERN_SHAPE(), TERN_F32, 0);
  tern_metric_release(m);
  tern_metric_release(NULL);
  CHECK(tern__metric_larger_is_better("acc") && tern__metric_larger_is_better("recall"), "accuracy, recall");
  CHECK(!tern__metric_larger_is_better("mse") && !tern__metric_larger_is_better("none such"), "mse");
  CHECK(tern__metric_check("huber") == TERN_OK, "%s", tern_error());
}

static void test_bad_options(void) {
  CHECK(!tern_metric_new("acuracy", NULL), "a misspelt name");
  CHECK_ERROR(TERN_E_ARG, "\"acuracy\" is no metric; there are accuracy (acc), binary_accuracy");
  CHECK(!tern_metric_new(NULL, NULL), "NULL");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  CHECK(!tern_metric_new("confusion_matrix", NULL), "no classes");
  CHECK_ERROR(TERN_E_ARG, "metric confusion_matrix: classes is 0");
  CHECK(!tern_metric_new("auc", &(tern_metric_opts){.thresholds = 1}), "one threshold");
  CHECK_ERROR(TERN_E_ARG, "metric auc: thresholds is 1");
  CHECK(!tern_metric_new("top_k_categorical_accuracy", &(tern_metric_opts){.k = -1}), "k -1");
  CHECK_ERROR(TERN_E_ARG, "k is -1");
  CHECK(!tern_metric_new("precision", &(tern_metric_opts){.threshold = NAN}), "NaN");
  CHECK_ERROR(TERN_E_ARG, "metric precision: threshold is");
  CHECK(!tern_metric_new("recall", &(tern_metric_opts){.one_class = 1, .class_id = -2}), "class -2");
  CHECK_ERROR(TERN_E_ARG, "metric recall: class_id is -2");
  CHECK(tern_metric_update(NULL, TERN_NONE, TERN_NONE, NULL) == TERN_E_ARG, "no metric");
  CHECK_ERROR(TERN_E_ARG, "the metric is NULL");
  CHECK(!tern_metric_result(NULL), "no metric");
  CHECK_ERROR(TERN_E_ARG, "the metric is NULL");
}

/* An update that must fail with such a text. */
static void fails(const char *name, const tern_metric_opts *opts, tern_tensor *y_true, tern_tensor *y_pred,
                  tern_tensor *weights, const char *text) {
  tern_metric *m = tern_metric_new(name, opts);
  CHECK(m && tern_metric_update(m, y_true, y_pred, weights) != TERN_OK, "%s took what does not fit", name);
  CHECK_ERROR(TERN_E_ARG, text);
  tern_metric_release(m);
}

static void test_bad_updates(void) {
  TERN_SCOPE;
  tern_tensor *a = tern_ones(TERN_SHAPE(4, 3), TERN_F32), *b = tern_ones(TERN_SHAPE(4, 2), TERN_F32);
  tern_tensor *few = tern_ones(TERN_SHAPE(3), TERN_F32), *zeros = tern_zeros(TERN_SHAPE(4), TERN_I64);
  tern_tensor *one = tern_ones(TERN_SHAPE(4, 1), TERN_F32);
  static const char *const all[] = {"accuracy",
                                    "binary_accuracy",
                                    "categorical_accuracy",
                                    "sparse_categorical_accuracy",
                                    "top_k_categorical_accuracy",
                                    "sparse_top_k_categorical_accuracy",
                                    "auc",
                                    "precision",
                                    "recall",
                                    "mse",
                                    "root_mean_squared_error",
                                    "cosine_similarity"};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    char text[100];
    snprintf(text, sizeof text, "metric %s: ", all[i]);
    fails(all[i], NULL, a, b, NULL, text);
    fails(all[i], NULL, few, one, NULL, text);
    fails(all[i], NULL, TERN_NONE, a, NULL, all[i]);
  }
  fails("mse", NULL, a, a, few, "metric mse: weights of shape (3,)");
  fails("auc", NULL, a, a, few, "metric auc: weights of shape (3,)");
  fails("dice", NULL, a, a, zeros, "metric dice: weights of shape (4,)");
  fails("precision", &(tern_metric_opts){.one_class = 1, .class_id = 3}, a, a, NULL, "class_id is 3");
  const tern_metric_opts three = {.classes = 3}, two = {.classes = 2};
  fails("confusion_matrix", &two, zeros, a, NULL, "its last axis may hold 1 to 2 classes");
  fails("confusion_matrix", &three, few, a, NULL, "metric confusion_matrix: y_true has shape (3,)");

  tern_metric *m = tern_metric_new("accuracy", NULL); /* what did not fit decided nothing */
  CHECK(tern_metric_update(m, few, a, NULL) != TERN_OK, "three labels for four rows");
  CHECK_ERROR(TERN_E_ARG, "metric accuracy");
  CHECK(tern_metric_update(m, a, a, NULL) == TERN_OK, "%s", tern_error());
  CHECK_LIST(tern_metric_result(m), TERN_SHAPE(), TERN_F32, 1);
  tern_metric_release(m);
}

/* On the host an error, elsewhere left out. */
static void test_labels_out_of_range(void) {
  TERN_SCOPE;
  tern_tensor *labels = tern_i64(TERN_SHAPE(4), 0, 3, 1, -1), *y = tern_zeros(TERN_SHAPE(4, 3), TERN_F32);
  tern_metric *m = tern_metric_new("confusion_matrix", &(tern_metric_opts){.classes = 3});
  if (!strncmp(tern_default_device(), "cpu", 3)) {
    CHECK(tern_metric_update(m, labels, y, NULL) != TERN_OK, "label 3 of 3 classes");
    CHECK_ERROR(TERN_E_ARG, "metric confusion_matrix: label 3 (number 1) is no class");
    tern_function *f = tern_function_new(update, m, 2, 1, NULL);
    tern_tensor *out;
    CHECK(tern_function_run(f, (tern_tensor *const[]){labels, y}, 2, &out, 1) != TERN_OK, "traced");
    CHECK_ERROR(TERN_E_ARG, "label 3");
    tern_function_release(f);
    CHECK_LIST(tern_sum(tern_metric_result(m), NULL), TERN_SHAPE(), TERN_F64, 0);
  } else {
    CHECK(tern_metric_update(m, labels, y, NULL) == TERN_OK, "%s", tern_error());
    CHECK_LIST(tern_cast(tern_sum(tern_metric_result(m), NULL), TERN_F64), TERN_SHAPE(), TERN_F64, 2);
  }
  tern_metric_release(m);
  /* accuracies: such a label is never right */
  m = tern_metric_new("sparse_top_k_categorical_accuracy", NULL);
  CHECK(tern_metric_update(m, labels, y, NULL) == TERN_OK, "%s", tern_error());
  CHECK_LIST(tern_metric_result(m), TERN_SHAPE(), TERN_F32, 0.5);
  tern_metric_release(m);
}

static void test_no_numbers(void) {
  TERN_SCOPE;
  tern_tensor *y = tern_f32(TERN_SHAPE(3, 3), NAN, 0, 1, INFINITY, 0, -INFINITY, 0, NAN, 1);
  tern_tensor *labels = tern_i64(TERN_SHAPE(3), 0, 1, 2);
  tern_metric *m = tern_metric_new("sparse_top_k_categorical_accuracy", &(tern_metric_opts){.k = 2});
  CHECK(tern_metric_update(m, labels, y, NULL) == TERN_OK, "%s", tern_error());
  CHECK_LIST(tern_cast(tern_mul(tern_metric_result(m), tern_scalar(3)), TERN_I32), TERN_SHAPE(), TERN_I32, 2);
  tern_metric_release(m);
  m = tern_metric_new("auc", NULL); /* NaN is in the lowest bucket, what lies outside [0, 1] in the outermost */
  CHECK(tern_metric_update(m, tern_i64(TERN_SHAPE(4), 0, 1, 0, 1), tern_f32(TERN_SHAPE(4), NAN, 7, -INFINITY, INFINITY),
                           NULL) == TERN_OK,
        "%s", tern_error());
  CHECK_LIST(tern_metric_result(m), TERN_SHAPE(), TERN_F32, 1);
  tern_metric_release(m);
}

static void test_tapes(void) {
  TERN_SCOPE;
  tern_tensor *v = tern_variable(tern_ones(TERN_SHAPE(2, 1), TERN_F32), NULL), *gradient = NULL;
  tern_metric *m = tern_metric_new("mse", NULL);
  tern_tape *tape = tern_tape_begin(NULL);
  tern_tensor *y = tern_mul(v, tern_scalar(3));
  CHECK(tern_metric_update(m, tern_ones(TERN_SHAPE(2, 1), TERN_F32), y, NULL) == TERN_OK, "%s", tern_error());
  tern_tensor *loss = tern_add(tern_sum(y, NULL), tern_metric_result(m));
  CHECK(tern_tape_gradient(tape, loss, &v, 1, &gradient) == TERN_OK, "%s", tern_error());
  CHECK_LIST(gradient, TERN_SHAPE(2, 1), TERN_F32, 3, 3);
  CHECK_LIST(tern_metric_result(m), TERN_SHAPE(), TERN_F32, 4);
  tern_metric_release(m);
  tern_release(v);
}

/* What a result was stays so when more comes. */
static void test_results_stay(void) {
  TERN_SCOPE;
  tern_metric *m = tern_metric_new("confusion_matrix", &(tern_metric_opts){.classes = 2});
  tern_tensor *labels = tern_i64(TERN_SHAPE(3), 0, 1, 1), *y = tern_f32(TERN_SHAPE(3, 1), 0.2f, 0.2f, 0.9f);
  CHECK(tern_metric_update(m, labels, y, NULL) == TERN_OK, "%s", tern_error());
  tern_tensor *first = tern_metric_result(m);
  CHECK(tern_metric_update(m, labels, y, tern_f32(TERN_SHAPE(3), 1, 2, 4)) == TERN_OK, "%s", tern_error());
  CHECK_LIST(tern_cast(first, TERN_F32), TERN_SHAPE(2, 2), TERN_F32, 1, 0, 1, 1);
  CHECK_LIST(tern_cast(tern_metric_result(m), TERN_F32), TERN_SHAPE(2, 2), TERN_F32, 2, 0, 3, 5);
  tern_metric_release(m);
}

/* Counts that float32 could not hold. */
static void test_many(void) {
  TERN_SCOPE;
  tern_metric *m = tern_metric_new("precision", NULL);
  tern_tensor *sums[2];
  tern__metric_variables(m, sums, 2);
  if (tern_dtype_get(sums[0]) == TERN_F64) {
    CHECK(!tern_assign(sums[0], tern_scalar(33554432)) && !tern_assign(sums[1], tern_scalar(67108864)), "%s",
          tern_error());
    tern_tensor *one = tern_ones(TERN_SHAPE(1), TERN_F32);
    for (int i = 0; i < 3; i++) CHECK(tern_metric_update(m, one, one, NULL) == TERN_OK, "%s", tern_error());
    CHECK_LIST(sums[1], TERN_SHAPE(), TERN_F64, 67108867);
  }
  tern_metric_release(m);
}

/* Predictions and labels of other dtypes. */
static void test_dtypes(void) {
  TERN_SCOPE;
  static const tern_dtype dtypes[] = {TERN_F16, TERN_BF16, TERN_F64, TERN_I32};
  for (int i = 0; i < 4; i++) {
    const double y[] = {3, 0, 1, 0, 2, 1};
    tern_tensor *pred = test_tensor(TERN_SHAPE(2, 3), dtypes[i], y);
    static const char *const names[] = {"accuracy", "sparse_top_k_categorical_accuracy"};
    for (int k = 0; k < 2; k++) {
      tern_metric *m = tern_metric_new(names[k], &(tern_metric_opts){.k = 1});
      CHECK(tern_metric_update(m, tern_u8(TERN_SHAPE(2), 0, 2), pred, NULL) == TERN_OK, "%s", tern_error());
      CHECK_LIST(tern_metric_result(m), TERN_SHAPE(), TERN_F32, 0.5);
      tern_metric_release(m);
    }
    tern_metric *m = tern_metric_new("recall", NULL);
    CHECK(tern_metric_update(m, tern_bool(TERN_SHAPE(2, 3), 1, 1, 0, 0, 0, 1), pred, NULL) == TERN_OK, "%s",
          tern_error());
    CHECK_LIST(tern_mul(tern_metric_result(m), tern_scalar(1.5)), TERN_SHAPE(), TERN_F32, 1);
    tern_metric_release(m);
  }
}

/* In graph mode an update is part of what its result needs. */
static void test_graph_mode(void) {
  TERN_SCOPE;
  tern_graph *g = tern_graph_new("metrics");
  tern_metric *m = NULL;
  tern_tensor *x = NULL, *result = NULL;
  {
    tern_with_graph(g);
    x = tern_placeholder(TERN_SHAPE(-1, 1), TERN_F32, "x");
    m = tern_metric_new("mean", NULL);
    CHECK(tern_metric_update(m, TERN_NONE, x, NULL) == TERN_OK, "%s", tern_error());
    result = tern_metric_result(m);
  }
  tern_session *session = tern_session_new(g);
  tern_tensor *out = NULL;
  CHECK(!tern_session_run(session, &(tern_feed){x, tern_f32(TERN_SHAPE(2, 1), 1, 2)}, 1, &result, 1, &out), "%s",
        tern_error());
  CHECK_LIST(out, TERN_SHAPE(), TERN_F32, 1.5);
  CHECK(!tern_session_run(session, &(tern_feed){x, tern_f32(TERN_SHAPE(3, 1), 3, 4, 5)}, 1, &result, 1, &out), "%s",
        tern_error());
  CHECK_LIST(out, TERN_SHAPE(), TERN_F32, 3);
  CHECK_LIST(tern_metric_result(m), TERN_SHAPE(), TERN_F32, 3); /* eagerly */
  tern_session_release(session);
  tern_metric_release(m);
  tern_graph_release(g);
}

/* Every allocation fails once, in making and in the first update. */
static void test_no_memory(void) {
  static const char *const names[] = {"accuracy", "auc", "confusion_matrix", "huber"};
  TERN_SCOPE;
  tern_tensor *y = tern_ones(TERN_SHAPE(4, 3), TERN_F32);
  for (int i = 0; i < 4; i++) {
    bool done = false;
    for (int n = 1; n < 200 && !done; n++) {
      tern__alloc_fail_at(n);
      tern_metric *m = tern_metric_new(names[i], &(tern_metric_opts){.classes = 3});
      done = m && tern_metric_update(m, y, y, NULL) == TERN_OK && tern_metric_result(m);
      tern__alloc_fail_at(0);
      if (!done) CHECK_ERROR(TERN_E_OOM, "memory");
      tern_metric_release(m);
    }
    CHECK(done, "%s", names[i]);
  }
}

static const test_case cases[] = {{"eager", test_eager},
                                  {"traced", test_traced},
                                  {"names", test_names},
                                  {"bad options", test_bad_options},
                                  {"bad updates", test_bad_updates},
                                  {"labels out of range", test_labels_out_of_range},
                                  {"no numbers", test_no_numbers},
                                  {"tapes", test_tapes},
                                  {"results stay", test_results_stay},
                                  {"many", test_many},
                                  {"dtypes", test_dtypes},
                                  {"graph mode", test_graph_mode},
                                  {"no memory", test_no_memory}};
TEST_MAIN("metrics", cases)
