/* Models: fit, evaluate and predict beside Keras's own (tests/fixtures/make_model.py), compiled and eager; files; bad
   input. */
#include "fixtures/fixtures.h"
#include "support/values.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static tern_tensor *tensor_of(const fixture_array *a) {
  return tern_constant(tern_shape_of(a->rank, a->shape), a->dtype, a->data, a->count);
}

/* ---- the models of the fixture ---- */

static tern_model *classes(void) {
  return tern_sequential(tern_dense(8, &(tern_dense_opts){.activation = "relu", .input_shape = TERN_SHAPE(4)}),
                         tern_dense(3, &(tern_dense_opts){.activation = "softmax"}));
}
static tern_model *normalised(void) {
  return tern_sequential(tern_dense(8, &(tern_dense_opts){.input_shape = TERN_SHAPE(4)}), tern_batch_norm_layer(NULL),
                         tern_activation("relu", NULL), tern_dense(1, NULL));
}
static tern_model *convolved(void) {
  return tern_sequential(
      tern_conv2d(3, 3, 3,
                  &(tern_conv_layer_opts){.padding = "same", .activation = "relu", .input_shape = TERN_SHAPE(6, 6, 2)}),
      tern_max_pool2d(NULL), tern_flatten_layer(NULL), tern_dense(2, &(tern_dense_opts){.activation = "softmax"}));
}
static tern_model *binary(void) {
  return tern_sequential(tern_dense(5, &(tern_dense_opts){.activation = "tanh", .input_shape = TERN_SHAPE(4)}),
                         tern_dense(1, &(tern_dense_opts){.activation = "sigmoid"}));
}

static const struct {
  const char *name;
  tern_model *(*make)(void);
  const char *loss, *metric;
} cases[] = {{"classes", classes, "sparse_categorical_crossentropy", "accuracy"},
             {"normalised", normalised, "mean_squared_error", "mean_absolute_error"},
             {"convolved", convolved, "categorical_crossentropy", "categorical_accuracy"},
             {"binary", binary, "binary_crossentropy", "accuracy"}};
enum { N_CASES = sizeof cases / sizeof *cases };

static tern_optimizer *optimizer_of(int i) {
  switch (i) {
  case 0: return tern_adam(&(tern_adam_opts){.learning_rate = 0.01});
  case 1: return tern_sgd(&(tern_sgd_opts){.learning_rate = 0.05, .momentum = 0.9});
  case 2: return tern_rmsprop(&(tern_rmsprop_opts){.learning_rate = 0.003});
  default: return tern_adamw(&(tern_adam_opts){.learning_rate = 0.02, .weight_decay = 0.1});
  }
}

/* A model that is compiled and holds the fixture's first weights. */
static tern_model *start(int i, const fixture *r, int eager) {
  tern_model *m = cases[i].make();
  tern_tensor *weights[16];
  const int n = (int)fixture_attr(r, "weights", 0);
  for (int k = 0; k < n; k++) weights[k] = tensor_of(&r->in[2 + k]);
  CU_ASSERT_EQUAL(tern_set_weights(m, weights, n), TERN_OK);
  CU_ASSERT_EQUAL(tern_compile(m, &(tern_compile_opts){.optimizer_object = optimizer_of(i),
                                                       .loss = cases[i].loss,
                                                       .metrics = TERN_NAMES(cases[i].metric),
                                                       .eager = eager}),
                  TERN_OK);
  return m;
}

static bool close_to(const double *got, const fixture_array *want, double tolerance) {
  for (size_t i = 0; got && i < want->count; i++) {
    const double w = want->dtype == TERN_F64 ? ((const double *)want->data)[i] : ((const float *)want->data)[i];
    if (!(fabs(got[i] - w) <= tolerance * (1 + fabs(w)))) {
      fprintf(stderr, "element %zu: %.9g, not %.9g\n", i, got[i], w);
      return false;
    }
  }
  return got != NULL;
}

static void one_case(int i, const fixture *r, int eager) {
  TERN_SCOPE;
  tern_model *m = start(i, r, eager);
  tern_tensor *x = tensor_of(&r->in[0]), *y = tensor_of(&r->in[1]);
  const int n_weights = (int)fixture_attr(r, "weights", 0), figures = (int)fixture_attr(r, "figures", 0);
  const int64_t kept = fixture_attr(r, "validation", 0);
  const fixture_array *more = &r->in[2 + n_weights];
  tern_fit_opts o = {.epochs = (int)fixture_attr(r, "epochs", 0),
                     .batch_size = (int)fixture_attr(r, "batch", 0),
                     .no_shuffle = 1,
                     .progress = TERN_PROGRESS_NONE,
                     .validation_split = kept ? ((double)kept - 0.5) / (double)r->in[0].shape[0] : 0};
  if (fixture_attr(r, "class_weights", 0)) o.class_weights = more->data, o.n_classes = (int)more->count;
  if (fixture_attr(r, "sample_weights", 0)) o.sample_weights = tensor_of(more);
  CHECK(tern_fit(m, x, y, &o) == TERN_OK, "%s: %s", r->op, tern_error());
  const char *const names[] = {"loss", cases[i].metric, "val_loss", NULL};
  char last[100];
  snprintf(last, sizeof last, "val_%s", cases[i].metric);
  for (int k = 0; k < figures; k++) {
    int n;
    const double *v = tern_history(m, k == 3 ? last : names[k], &n);
    CHECK(v && n == o.epochs && close_to(v, &r->out[k], 2e-4), "%s, eager %d: history %d", r->op, eager, k);
  }
  tern_tensor *weights[16];
  CU_ASSERT_EQUAL(tern_get_weights(m, weights, 16), n_weights);
  for (int k = 0; k < n_weights; k++) {
    double *v = test_values(weights[k]);
    CHECK(close_to(v, &r->out[figures + k], 2e-3), "%s, eager %d: weight %d", r->op, eager, k);
    free(v);
  }
  double result[2];
  const tern_run_opts quiet = {.batch_size = o.batch_size, .progress = TERN_PROGRESS_NONE};
  CU_ASSERT_EQUAL(tern_evaluate(m, x, y, result, 2, &quiet), 2);
  CHECK(close_to(result, &r->out[figures + n_weights], 1e-3), "%s, eager %d: evaluate", r->op, eager);
  double *p = test_values(tern_predict(m, x, &quiet));
  CHECK(close_to(p, &r->out[figures + n_weights + 1], 2e-3), "%s, eager %d: predict", r->op, eager);
  free(p);
  tern_model_release(m);
}

static void as_keras(void) {
  fixtures f;
  fixture r;
  int n = 0;
  CU_ASSERT_TRUE_FATAL(fixtures_open(&f, TERN_FIXTURES "/ops/model.bin"));
  while (fixtures_next(&f, &r))
    for (int i = 0; i < N_CASES; i++)
      if (!strcmp(cases[i].name, r.op)) {
        one_case(i, &r, 0);
        one_case(i, &r, 1);
        n++;
      }
  CHECK(!f.error && n == N_CASES, "%d records; %s", n, f.error ? f.error : "");
  fixtures_close(&f);
}

/* ---- shuffling, seeds, datasets ---- */

static tern_tensor *some(int64_t n, int64_t columns) {
  return tern_random_normal(TERN_SHAPE(n, columns), &(tern_random_opts){.seed = 7});
}

static tern_model *small(const char *optimizer) {
  tern_set_seed(3);
  tern_model *m = binary();
  CU_ASSERT_EQUAL(tern_compile(m, &(tern_compile_opts){.optimizer = optimizer, .loss = "binary_crossentropy"}),
                  TERN_OK);
  return m;
}

static tern_tensor *answers(tern_tensor *x) {
  return tern_cast(tern_greater(tern_sum(x, TERN_AXES_KEEP(1)), tern_scalar(0)), TERN_F32);
}

static void trains(void) {
  TERN_SCOPE;
  tern_tensor *x = some(300, 4), *y = answers(x);
  double last[2] = {0, 0};
  for (int k = 0; k < 2; k++) {
    tern_model *m = small("adam");
    tern_compile(m, &(tern_compile_opts){.optimizer_object = tern_adam(&(tern_adam_opts){.learning_rate = 0.01}),
                                         .loss = "binary_crossentropy"});
    CHECK(tern_fit(m, x, y, &(tern_fit_opts){.epochs = 30, .progress = TERN_PROGRESS_NONE, .seed = 5}) == TERN_OK, "%s",
          tern_error());
    int n;
    const double *loss = tern_history(m, "loss", &n);
    CU_ASSERT_EQUAL_FATAL(n, 30);
    CHECK(loss[29] < 0.5 * loss[0], "the loss went from %g to %g", loss[0], loss[29]);
    last[k] = loss[29];
    tern_model_release(m);
  }
  CHECK(last[0] == last[1], "the same seed: %.17g and %.17g", last[0], last[1]);
}

static void from_datasets(void) {
  TERN_SCOPE;
  tern_tensor *x = some(64, 4), *y = answers(x), *both[] = {x, y};
  tern_model *a = small("sgd"), *b = small("sgd");
  const tern_fit_opts o = {.epochs = 2, .batch_size = 16, .no_shuffle = 1, .progress = TERN_PROGRESS_NONE};
  CU_ASSERT_EQUAL(tern_fit(a, x, y, &o), TERN_OK);
  tern_dataset *d = tern_dataset_repeat(tern_dataset_batch(tern_dataset_tensors(both, 2), 16, NULL), -1);
  CHECK(tern_fit_dataset(b, d, &o) == TERN_E_ARG && strstr(tern_error(), "steps"), "an endless dataset: %s",
        tern_error());
  tern_error_clear();
  CHECK(tern_fit_dataset(b, d, &(tern_fit_opts){.epochs = 2, .steps = 4, .progress = TERN_PROGRESS_NONE}) == TERN_OK,
        "%s", tern_error());
  tern_tensor *wa[4], *wb[4];
  CU_ASSERT_EQUAL_FATAL(tern_get_weights(a, wa, 4), 4);
  CU_ASSERT_EQUAL_FATAL(tern_get_weights(b, wb, 4), 4);
  for (int k = 0; k < 4; k++) CHECK(tern_equal_all(wa[k], wb[k]) == 1, "weight %d", k);
  tern_dataset_release(d);
  tern_model_release(a);
  tern_model_release(b);
}

/* Which weights are trained may change between fits, their number staying the same. */
static void frozen(void) {
  TERN_SCOPE;
  tern_tensor *x = some(32, 4), *y = answers(x);
  tern_model *m = tern_sequential(tern_dense(4, &(tern_dense_opts){.input_shape = TERN_SHAPE(4)}), tern_dense(1, NULL));
  tern_compile(m, &(tern_compile_opts){.optimizer = "sgd", .loss = "mean_squared_error"});
  for (int trained = 0; trained < 2; trained++) {
    tern_tensor *before[4], *after[4];
    for (int i = 0; i < 2; i++) tern_layer_set_trainable(tern_model_layer(m, i), i == trained);
    CU_ASSERT_EQUAL(tern_get_weights(m, before, 4), 4);
    CU_ASSERT_EQUAL(tern_fit(m, x, y, &(tern_fit_opts){.progress = TERN_PROGRESS_NONE}), TERN_OK);
    CU_ASSERT_EQUAL(tern_get_weights(m, after, 4), 4);
    for (int k = 0; k < 4; k++)
      CHECK(tern_equal_all(before[k], after[k]) == (k / 2 != trained), "layer %d is trained, weight %d", trained, k);
  }
  tern_model_release(m);
}

/* ---- files ---- */

static void files(void) {
  TERN_SCOPE;
  tern_tensor *x = some(64, 4), *y = answers(x);
  char path[] = "/tmp/tern_model_XXXXXX";
  const int fd = mkstemp(path);
  CU_ASSERT_TRUE_FATAL(fd >= 0);
  close(fd);
  tern_model *a = small("adam");
  const tern_fit_opts o = {.epochs = 2, .no_shuffle = 1, .progress = TERN_PROGRESS_NONE};
  CU_ASSERT_EQUAL(tern_fit(a, x, y, &o), TERN_OK);
  CHECK(tern_model_save(a, path) == TERN_OK, "%s", tern_error());
  tern_model *b = tern_model_load(path, NULL);
  CHECK(b != NULL, "%s", tern_error());
  CU_ASSERT_PTR_NOT_NULL_FATAL(b);
  const tern_run_opts quiet = {.progress = TERN_PROGRESS_NONE};
  CU_ASSERT_EQUAL(tern_equal_all(tern_predict(a, x, &quiet), tern_predict(b, x, &quiet)), 1);
  CU_ASSERT_EQUAL(tern_fit(a, x, y, &o), TERN_OK); /* with the optimiser's state: on as before */
  CU_ASSERT_EQUAL(tern_fit(b, x, y, &o), TERN_OK);
  CU_ASSERT_EQUAL(tern_equal_all(tern_predict(a, x, &quiet), tern_predict(b, x, &quiet)), 1);
  tern_model *c = convolved();
  CHECK(tern_model_load_weights(c, path) != TERN_OK && strstr(tern_error(), "conv2d/kernel"),
        "another architecture: %s", tern_error());
  tern_error_clear();
  CHECK(tern_model_save(a, "/no/such/folder/model") != TERN_OK && strstr(tern_error(), "/no/such/folder"), "%s",
        tern_error());
  tern_error_clear();
  CHECK(tern_model_load("/no/such/model", NULL) == NULL && strstr(tern_error(), "/no/such/model"), "%s", tern_error());
  tern_error_clear();
  tern_model_release(a);
  tern_model_release(b);
  tern_model_release(c);
  unlink(path);
}

/* ---- bad input ---- */

static void refused(tern_rc rc, const char *part) {
  CHECK(rc != TERN_OK && strstr(tern_error(), part), "\"%s\" is not in: %s", part, rc ? tern_error() : "no error");
  tern_error_clear();
}

static void bad_input(void) {
  TERN_SCOPE;
  const tern_fit_opts quiet = {.progress = TERN_PROGRESS_NONE};
  tern_tensor *x = some(20, 4), *y = answers(x);
  tern_model *m = small("sgd");
  tern_tensor *before[4], *after[4];
  tern_get_weights(m, before, 4);
  refused(tern_fit(m, some(20, 5), y, &quiet), "(None, 4)");
  refused(tern_fit(m, x, some(19, 1), &quiet), "19");
  refused(tern_fit(m, x, some(20, 7), &quiet), "loss");
  refused(tern_fit(m, tern_zeros(TERN_SHAPE(0, 4), TERN_F32), tern_zeros(TERN_SHAPE(0, 1), TERN_F32), &quiet),
          "no rows");
  refused(tern_fit(m, x, y, &(tern_fit_opts){.validation_split = 1.5}), "validation_split");
  refused(tern_compile(m, &(tern_compile_opts){.optimizer = "fast"}), "adamw");
  refused(tern_compile(m, &(tern_compile_opts){.loss = "lost"}), "lost");
  refused(tern_compile(m, &(tern_compile_opts){.optimizer = "sgd", .loss = "mse"}), "mean_squared_error");
  tern_get_weights(m, after, 4);
  for (int k = 0; k < 4; k++) CU_ASSERT_EQUAL(tern_equal_all(before[k], after[k]), 1);
  tern_model_release(m);
  m = classes();
  refused(tern_fit(m, x, y, &quiet), "tern_compile");
  tern_compile(m, &(tern_compile_opts){.optimizer = "sgd", .loss = "sparse_categorical_crossentropy"});
  refused(tern_fit(m, x, tern_full(TERN_SHAPE(20), TERN_I64, 3), &quiet), "label 3");
  tern_model_release(m);
  CU_ASSERT_PTR_NULL(tern_sequential(tern_dense(4, &(tern_dense_opts){.input_shape = TERN_SHAPE(2)}),
                                     tern_reshape_layer(TERN_SHAPE(3), &(tern_layer_opts){.name = "cut"})));
  refused(tern_error_code(), "layer cut (Reshape)");
}

/* A step whose loss is not finite names itself and the layer, and changes nothing. */
static void not_finite(void) {
  TERN_SCOPE;
  tern_tensor *x = some(48, 4), *y = answers(x);
  tern_tensor *bad = tern_scatter(x, tern_i64(TERN_SHAPE(1), 20), tern_full(TERN_SHAPE(1, 4), TERN_F32, INFINITY), 0,
                                  TERN_SCATTER_SET);
  for (int eager = 0; eager < 2; eager++) {
    tern_model *m = small("adam"), *same = small("adam");
    tern_compile(m, &(tern_compile_opts){.optimizer = "adam", .loss = "mean_squared_error", .eager = eager});
    tern_compile(same, &(tern_compile_opts){.optimizer = "adam", .loss = "mean_squared_error"});
    const tern_fit_opts o = {.batch_size = 16, .no_shuffle = 1, .progress = TERN_PROGRESS_NONE};
    CHECK(tern_fit(m, bad, y, &o) != TERN_OK && strstr(tern_error(), "step 2 of epoch 1") &&
              strstr(tern_error(), "layer dense (Dense)"),
          "an input that is not finite: %s", tern_error());
    tern_error_clear();
    tern_range first = TERN_RANGE(0, 16, 1);
    CU_ASSERT_EQUAL(tern_fit(same, tern_slice(bad, &first, 1), tern_slice(y, &first, 1), &o), TERN_OK);
    tern_tensor *a[4], *b[4];
    tern_get_weights(m, a, 4);
    tern_get_weights(same, b, 4);
    const bool late = strncmp(tern_default_device(), "cpu", 3) != 0; /* the good step behind the bad one was made too */
    for (int k = 0; k < 4; k++)
      CHECK(late ? tern_item(tern_all(tern_isfinite(a[k]), NULL)) == 1 : tern_allclose(a[k], b[k], 1e-5, 1e-6) == 1,
            "eager %d, weight %d", eager, k);
    tern_model_release(m);
    tern_model_release(same);
  }
}

static const test_case all_cases[] = {{"as Keras", as_keras},    {"trains", trains}, {"datasets", from_datasets},
                                      {"frozen", frozen},        {"files", files},   {"bad input", bad_input},
                                      {"not finite", not_finite}};
TEST_MAIN("model", all_cases)
