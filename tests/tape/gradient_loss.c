/* Gradient cases of the losses, to the predictions and to the targets. Keras's are made of other ops but for the
   cross-entropies; each has a case under its name. */
#include "tape/gradients.h"

/* ---- cross-entropies ---- */

static tern_tensor *classes(void) {
  static const int64_t labels[] = {2, 0, 3};
  return tern_constant((tern_shape){1, {3}}, TERN_I64, labels, 3);
}

static const tern_loss_opts entropy_opts[] = {
    {.reduction = TERN_LOSS_MEAN},
    {.reduction = TERN_LOSS_NONE},
    {.reduction = TERN_LOSS_SUM, .label_smoothing = 0.2},
    {.reduction = TERN_LOSS_MEAN, .ignore = 1, .ignore_class = 0},
    {.reduction = TERN_LOSS_NONE, .ignore = 1, .ignore_class = 3, .label_smoothing = 0.1},
    {.reduction = TERN_LOSS_NONE, .axis = 1, .label_smoothing = 0.1},
};
static tern_tensor *sparse(tern_tensor *const *x, int form) {
  return tern_cross_entropy(x[0], classes(), &entropy_opts[form]);
}
static tern_tensor *dense(tern_tensor *const *x, int form) {
  return tern_cross_entropy(x[0], x[1], &entropy_opts[form]);
}
static tern_tensor *weighted(tern_tensor *const *x, int form) {
  tern_loss_opts o = entropy_opts[form];
  o.weights = x[1];
  return tern_cross_entropy(x[0], classes(), &o);
}

/* The gradient to the logits from dy, the last of n. */
static tern_tensor *back(tern_tensor *y, tern_tape *tape, tern_tensor *const *x, int n) {
  tern_tensor *g = NULL;
  return y && !tern_tape_gradients(tape, &y, &x[n - 1], 1, x, 1, &g, NULL) ? g : NULL;
}
static tern_tensor *sparse_grad(tern_tensor *const *x, int form) {
  tern_tape *tape = tern_tape_begin(NULL);
  return tern_tape_watch(tape, x[0]) ? NULL : back(sparse(x, form), tape, x, 2);
}
static tern_tensor *dense_grad(tern_tensor *const *x, int form) {
  tern_tape *tape = tern_tape_begin(NULL);
  return tern_tape_watch(tape, x[0]) ? NULL : back(dense(x, form), tape, x, 3);
}

static tern_tensor *binary(tern_tensor *const *x, int form) {
  static const tern_loss_opts opts[] = {{.from_logits = 1, .reduction = TERN_LOSS_NONE},
                                        {.from_logits = 1, .label_smoothing = 0.2}};
  return tern_loss_binary_crossentropy(x[1], x[0], &opts[form]);
}

/* ---- Keras's ---- */

static tern_tensor *sparse_keras(tern_tensor *const *x, int form) {
  const tern_loss_opts o = {.from_logits = form == 1,
                            .ignore = form == 2,
                            .ignore_class = 3,
                            .reduction = form == 2 ? TERN_LOSS_NONE : TERN_LOSS_MEAN};
  return tern_loss_sparse_categorical_crossentropy(classes(), x[0], &o);
}

/* form & 3: the reduction; & 4: weights x[2]; & 8: from logits; & 16: label smoothing; & 32: axis 1; & 64: options
   other than the defaults */
static tern_loss_opts options(tern_tensor *const *x, int form) {
  tern_loss_opts o = {.reduction = (tern_loss_reduction)(form & 3),
                      .from_logits = form >> 3 & 1,
                      .label_smoothing = form & 16 ? 0.1 : 0,
                      .axis = form & 32 ? 1 : 0};
  if (form & 4) o.weights = x[2];
  if (form & 64) {
    o.delta = 0.4;
    o.alpha = 0.7;
    o.beta = 0.2;
    o.gamma = 1.5;
  }
  return o;
}
#define KERAS(name)                                           \
  static tern_tensor *name(tern_tensor *const *x, int form) { \
    const tern_loss_opts o = options(x, form);                \
    return tern_loss_##name(x[0], x[1], &o);                  \
  }
KERAS(mean_squared_error)
KERAS(mean_absolute_error)
KERAS(mean_absolute_percentage_error)
KERAS(mean_squared_logarithmic_error)
KERAS(binary_crossentropy)
KERAS(categorical_crossentropy)
KERAS(binary_focal_crossentropy)
KERAS(categorical_focal_crossentropy)
KERAS(kl_divergence)
KERAS(poisson)
KERAS(cosine_similarity)
KERAS(hinge)
KERAS(squared_hinge)
KERAS(categorical_hinge)
KERAS(huber)
KERAS(log_cosh)
KERAS(dice)
KERAS(tversky)
#undef KERAS

/* Labels of 0 and 1 are turned into -1 and 1: a constant, since differences of them would be something else. */
static tern_tensor *hinge_of_bits(tern_tensor *const *x, int squared) {
  static const int64_t bits[] = {1, 0, 0, 1, 1, 0};
  tern_tensor *y_true = tern_constant((tern_shape){2, {2, 3}}, TERN_I64, bits, 6);
  return squared ? tern_loss_squared_hinge(y_true, x[0], NULL) : tern_loss_hinge(y_true, x[0], NULL);
}

#define MINOR GRADIENT_MINOR
#define LOGITS IN(-2, 2, 3, 4)
#define REAL IN(-2, 2, 2, 3)
#define SHARE IN(0.1, 0.9, 2, 3)
enum { NONE = TERN_LOSS_NONE, SUM = TERN_LOSS_SUM };
static const gradient_case rows[] = {
    ROW("cross_entropy", "classes, mean", sparse, 0, 0, LOGITS),
    ROW("cross_entropy", "classes, none", sparse, 1, MINOR, LOGITS),
    ROW("cross_entropy", "classes, smoothed sum", sparse, 2, MINOR, LOGITS),
    ROW("cross_entropy", "classes, one ignored", sparse, 3, MINOR, LOGITS),
    ROW("cross_entropy", "classes, one ignored, smoothed, none", sparse, 4, MINOR, LOGITS),
    ROW("cross_entropy", "classes, weights", weighted, 0, MINOR, LOGITS, IN(0.5, 1.5, 3)),
    ROW("cross_entropy", "classes, weights, one ignored", weighted, 3, MINOR, LOGITS, IN(0.5, 1.5, 3)),
    ROW("cross_entropy", "probabilities, mean", dense, 0, 0, LOGITS, IN(0.1, 0.9, 3, 4)),
    ROW("cross_entropy", "probabilities, smoothed sum", dense, 2, MINOR, LOGITS, IN(0.1, 0.9, 3, 4)),
    ROW("cross_entropy", "probabilities along axis 1, none", dense, 5, MINOR, IN(-2, 2, 2, 4, 3),
        IN(0.1, 0.9, 2, 4, 3)),
    ROW("cross_entropy_grad", "classes", sparse_grad, 1, 0, LOGITS, IN(-1, 1, 3)),
    ROW("cross_entropy_grad", "classes, smoothed sum", sparse_grad, 2, MINOR, LOGITS, IN(-1, 1, )),
    ROW("cross_entropy_grad", "classes, one ignored", sparse_grad, 4, MINOR, LOGITS, IN(-1, 1, 3)),
    ROW("cross_entropy_grad", "probabilities", dense_grad, 0, 0, LOGITS, IN(0.1, 0.9, 3, 4), IN(-1, 1, )),
    ROW("cross_entropy_grad", "probabilities along axis 1", dense_grad, 5, MINOR, IN(-2, 2, 2, 4, 3),
        IN(0.1, 0.9, 2, 4, 3), IN(-1, 1, 2, 3)),
    ROW("sigmoid_cross_entropy", "none", binary, 0, 0, IN_AWAY(-2, 2, 0.1, 2, 3), SHARE),
    ROW("sigmoid_cross_entropy", "smoothed", binary, 1, MINOR, IN_AWAY(-2, 2, 0.1, 2, 3), SHARE),
    ROW("loss_mean_squared_error", "mean", mean_squared_error, 0, 0, REAL, REAL),
    ROW("loss_mean_squared_error", "none, weights", mean_squared_error, NONE | 4, MINOR, REAL, REAL, IN(0.5, 1.5, 2)),
    ROW("loss_mean_squared_error", "sum, weights", mean_squared_error, SUM | 4, MINOR, REAL, REAL, IN(0.5, 1.5, 2)),
    ROW("loss_mean_squared_error", "a last axis of 1 too many", mean_squared_error, 0, MINOR, IN(-2, 2, 4),
        IN(-2, 2, 4, 1)),
    ROW("loss_mean_absolute_error", "mean", mean_absolute_error, 0, 0, REAL, REAL),
    ROW("loss_mean_absolute_percentage_error", "none", mean_absolute_percentage_error, NONE, 0,
        IN_AWAY(-2, 2, 0.5, 2, 3), REAL),
    ROW("loss_mean_squared_logarithmic_error", "mean", mean_squared_logarithmic_error, 0, 0, IN(0.2, 2, 2, 3),
        IN(0.2, 2, 2, 3)),
    ROW("loss_binary_crossentropy", "probabilities", binary_crossentropy, 0, 0, SHARE, SHARE),
    ROW("loss_binary_crossentropy", "smoothed, axis 1, sum", binary_crossentropy, SUM | 16 | 32, MINOR,
        IN(0.1, 0.9, 2, 3, 2), IN(0.1, 0.9, 2, 3, 2)),
    ROW("loss_categorical_crossentropy", "probabilities", categorical_crossentropy, 0, 0, SHARE, SHARE),
    ROW("loss_categorical_crossentropy", "logits, smoothed, none", categorical_crossentropy, NONE | 8 | 16, MINOR,
        SHARE, REAL),
    ROW("loss_sparse_categorical_crossentropy", "probabilities", sparse_keras, 0, 0, IN(0.1, 0.9, 3, 4)),
    ROW("loss_sparse_categorical_crossentropy", "logits", sparse_keras, 1, MINOR, LOGITS),
    ROW("loss_sparse_categorical_crossentropy", "probabilities, one ignored, none", sparse_keras, 2, MINOR,
        IN(0.1, 0.9, 3, 4)),
    ROW("loss_binary_focal_crossentropy", "probabilities", binary_focal_crossentropy, 0, 0, SHARE, SHARE),
    ROW("loss_binary_focal_crossentropy", "logits, alpha and gamma", binary_focal_crossentropy, NONE | 8 | 64, MINOR,
        SHARE, REAL),
    ROW("loss_categorical_focal_crossentropy", "probabilities", categorical_focal_crossentropy, 0, 0, SHARE, SHARE),
    ROW("loss_categorical_focal_crossentropy", "logits, smoothed, alpha and gamma", categorical_focal_crossentropy,
        8 | 16 | 64, MINOR, SHARE, REAL),
    ROW("loss_kl_divergence", "mean", kl_divergence, 0, 0, SHARE, SHARE),
    ROW("loss_poisson", "mean", poisson, 0, 0, REAL, IN(0.2, 2, 2, 3)),
    ROW("loss_cosine_similarity", "the last axis", cosine_similarity, 0, 0, REAL, REAL),
    ROW("loss_cosine_similarity", "axis 1, none", cosine_similarity, NONE | 32, MINOR, IN(-2, 2, 2, 3, 2),
        IN(-2, 2, 2, 3, 2)),
    ROW("loss_hinge", "labels of any size", hinge, 0, 0, REAL, REAL),
    ROW("loss_hinge", "labels of 0 and 1", hinge_of_bits, 0, MINOR, REAL),
    ROW("loss_squared_hinge", "labels of any size", squared_hinge, 0, 0, REAL, REAL),
    ROW("loss_squared_hinge", "labels of 0 and 1", hinge_of_bits, 1, MINOR, REAL),
    ROW("loss_categorical_hinge", "mean", categorical_hinge, 0, 0, SHARE, REAL),
    ROW("loss_huber", "mean", huber, 0, 0, REAL, REAL),
    ROW("loss_huber", "delta, none", huber, NONE | 64, MINOR, REAL, REAL),
    ROW("loss_log_cosh", "mean", log_cosh, 0, 0, REAL, REAL),
    ROW("loss_dice", "all", dice, 0, 0, SHARE, SHARE),
    ROW("loss_dice", "axis 1, none", dice, NONE | 32, MINOR, IN(0.1, 0.9, 2, 3), IN(0.1, 0.9, 2, 3)),
    ROW("loss_tversky", "all", tversky, 0, 0, SHARE, SHARE),
    ROW("loss_tversky", "alpha and beta", tversky, 64, MINOR, SHARE, SHARE),
};

void gradient_loss_cases(gradient_visit visit, void *context) { GRADIENT_ROWS(rows, visit, context); }
