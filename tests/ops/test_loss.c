/* Cross-entropy against PyTorch and Keras's losses against Keras, with their derivatives; reductions, weights, bad
   operands. */
#include "ops/gradients.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static tern_loss_opts opts_of(const fixture *f) {
  return (tern_loss_opts){.reduction = (tern_loss_reduction)fixture_attr(f, "reduction", 0),
                          .axis = (int)fixture_attr(f, "axis", 0),
                          .from_logits = (int)fixture_attr(f, "from_logits", 0),
                          .ignore = (int)fixture_attr(f, "ignore", 0),
                          .ignore_class = (int)fixture_attr(f, "ignored", 0),
                          .label_smoothing = record_double(f, "smoothing_bits", 0),
                          .delta = record_double(f, "delta_bits", 0),
                          .alpha = record_double(f, "alpha_bits", 0),
                          .beta = record_double(f, "beta_bits", 0),
                          .gamma = record_double(f, "gamma_bits", 0)};
}

static tern_tensor *run_entropy(const fixture *f, tern_tensor *const *in) {
  tern_loss_opts opts = opts_of(f);
  if (opts.axis == 0) opts.axis = -tern_rank(in[0]); /* the first */
  return tern_cross_entropy(in[0], in[1], &opts);
}
static record_call entropy_named(const char *op) { return strcmp(op, "cross_entropy") ? NULL : run_entropy; }
static void test_entropy(void) { check_records("nn.bin", entropy_named, 50); }

/* Operands of a loss: y_true, y_pred, weights if there are three. */
static tern_tensor *run_loss(const fixture *f, tern_tensor *const *in) {
  tern_loss_opts opts = opts_of(f);
  if (fixture_attr(f, "operands", 0) > 2) opts.weights = in[2];
  const tern_loss_function loss = tern_loss_named(f->op);
  return loss ? loss(in[0], in[1], &opts) : NULL;
}
static record_call loss_named(const char *op) { return (void)op, run_loss; }
static void test_losses(void) { check_records("losses.bin", loss_named, 100); }

static void test_labels(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_f32(TERN_SHAPE(3, 2), 1, 2, 0, 0, 5, -5), *good = tern_u8(TERN_SHAPE(3), 1, 0, 1),
              *bad = tern_i32(TERN_SHAPE(3), 1, 2, 0);
  const tern_loss_opts each = {.reduction = TERN_LOSS_NONE};
  tern_tensor *y = tern_cross_entropy(x, bad, &each);
  if (!y) { /* read on the host at once */
    CHECK_ERROR(TERN_E_ARG, "label 2 (number 1)");
  } else {
    double *got = test_values(y);
    CHECK(got && isnan(got[1]) && !isnan(got[0]) && !isnan(got[2]), "a label out of range on a device");
    free(got);
  }
  CHECK(tern_allclose(tern_cross_entropy(x, tern_expand_dims(good, 1), &each), tern_cross_entropy(x, good, &each), 1e-6,
                      0) == 1,
        "labels with an axis of size 1");
  const tern_loss_opts ignoring = {.ignore = 1, .ignore_class = -1};
  CHECK(fabs(tern_item(tern_cross_entropy(x, tern_i64(TERN_SHAPE(3), -1, 0, -1), &ignoring)) - log(2)) < 1e-6,
        "ignored examples");
  CHECK(tern_item(tern_cross_entropy(x, tern_i64(TERN_SHAPE(3), -1), &ignoring)) == 0, "all ignored");
  CHECK(tern_item(
            tern_cross_entropy(tern_zeros(TERN_SHAPE(0, 2), TERN_F32), tern_zeros(TERN_SHAPE(0), TERN_I32), NULL)) == 0,
        "no examples");
  CHECK(tern_item(tern_cross_entropy(tern_f32(TERN_SHAPE(1, 3), 0, -INFINITY, 0), tern_i32(TERN_SHAPE(1), 0), NULL)) >
            0.69,
        "a hidden class");
  CHECK(tern_item(tern_cross_entropy(tern_f32(TERN_SHAPE(1, 2), 3e38, -3e38), tern_i32(TERN_SHAPE(1), 0), NULL)) == 0,
        "large logits");
  CHECK_NO_ERROR();
  CHECK(!tern_cross_entropy(x, tern_f32(TERN_SHAPE(3), 0, 1, 1), NULL), "float classes");
  CHECK_ERROR(TERN_E_ARG, "must be integers");
  CHECK(!tern_cross_entropy(x, tern_i32(TERN_SHAPE(2), 0, 1), NULL), "shape");
  CHECK_ERROR(TERN_E_ARG, "do not fit logits of shape (3, 2)");
  CHECK(!tern_cross_entropy(x, good, &(tern_loss_opts){.label_smoothing = 2}), "smoothing");
  CHECK_ERROR(TERN_E_ARG, "label_smoothing is 2");
  CHECK(!tern_cross_entropy(x, good, &(tern_loss_opts){.reduction = 7}), "reduction");
  CHECK_ERROR(TERN_E_ARG, "reduction 7");
  CHECK(!tern_cross_entropy(x, good, &(tern_loss_opts){.axis = 4}), "axis");
  CHECK_ERROR(TERN_E_ARG, "axis 4");
  CHECK(!tern_cross_entropy(x, good, &(tern_loss_opts){.weights = tern_ones(TERN_SHAPE(4), TERN_F32)}), "weights");
  CHECK_ERROR(TERN_E_ARG, "broadcast");
  CHECK(!tern_cross_entropy(tern_zeros(TERN_SHAPE(2, 0), TERN_F32), tern_i32(TERN_SHAPE(2), 0), NULL), "no classes");
  CHECK_ERROR(TERN_E_ARG, "no classes");
}

/* Many examples of many classes, dense and as views, against the parts that it is made of. */
static void test_sizes(void) {
  TERN_SCOPE;
  static const int64_t sizes[][2] = {{100, 60}, {100, 30}, {3, 5000}};
  for (int k = 0; k < 3; k++) {
    const int64_t n = sizes[k][0], classes = sizes[k][1];
    const tern_random_opts random = {.seed = 3, .stddev = 3};
    tern_tensor *labels = tern_random_integers(TERN_SHAPE(n), 0, classes, &random);
    for (int turned = 0; turned < 2; turned++) {
      tern_tensor *x = turned ? tern_transpose(tern_random_normal(TERN_SHAPE(classes, n), &random))
                              : tern_random_normal(TERN_SHAPE(n, classes), &random);
      tern_tensor *picked = tern_take_along_axis(tern_log_softmax(x, 1), tern_expand_dims(labels, 1), 1);
      CHECK(fabs(tern_item(tern_cross_entropy(x, labels, NULL)) + tern_item(tern_mean(picked, NULL))) < 1e-4,
            "%d examples of %d classes%s: %g instead of %g", (int)n, (int)classes, turned ? ", transposed" : "",
            tern_item(tern_cross_entropy(x, labels, NULL)), -tern_item(tern_mean(picked, NULL)));
    }
  }
  CHECK_NO_ERROR();
}

static void test_common(void) {
  TERN_SCOPE;
  tern_tensor *t = tern_f32(TERN_SHAPE(2, 2), 0, 1, 1, 0), *p = tern_f32(TERN_SHAPE(2, 2), 1, 1, 3, 0);
  CHECK_LIST(tern_loss_mean_squared_error(t, p, &(tern_loss_opts){.reduction = TERN_LOSS_NONE}), TERN_SHAPE(2),
             TERN_F32, 0.5, 2);
  CHECK_LIST(tern_loss_mean_squared_error(t, p, &(tern_loss_opts){.reduction = TERN_LOSS_SUM}), TERN_SHAPE(), TERN_F32,
             2.5);
  CHECK_LIST(tern_loss_mean_squared_error(t, p, &(tern_loss_opts){.weights = tern_f32(TERN_SHAPE(2), 1, 0)}),
             TERN_SHAPE(), TERN_F32, 0.25);
  CHECK_LIST(tern_loss_mean_squared_error(tern_i32(TERN_SHAPE(2), 1, 3), tern_i32(TERN_SHAPE(2, 1), 1, 1), NULL),
             TERN_SHAPE(), TERN_F32, 2);
  CHECK_LIST(tern_loss_mean_squared_error(tern_cast(t, TERN_F16), tern_cast(p, TERN_F16), NULL), TERN_SHAPE(), TERN_F16,
             1.25);
  CHECK(tern_loss_named("huber") == tern_loss_huber, "huber by name");
  CHECK(!tern_loss_named("hubert"), "a name that is none");
  CHECK_ERROR(TERN_E_ARG, "log_cosh");
  CHECK(!tern_loss_huber(t, tern_ones(TERN_SHAPE(2, 3), TERN_F32), NULL), "shapes");
  CHECK_ERROR(TERN_E_ARG, "loss_huber: y_true has shape (2, 2) and y_pred (2, 3)");
  CHECK(!tern_loss_huber(NULL, p, NULL), "NULL");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  CHECK(!tern_loss_poisson(tern_scalar(1), tern_scalar(2), NULL), "rank 0");
  CHECK_ERROR(TERN_E_ARG, "rank 0");
}

static const test_case cases[] = {{"cross-entropy", test_entropy},
                                  {"losses", test_losses},
                                  {"labels", test_labels},
                                  {"sizes", test_sizes},
                                  {"common", test_common}};
TEST_MAIN("loss", cases)
