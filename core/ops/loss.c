/* Losses with Keras 3's formulas (keras.losses), each one value an example, then weighted and reduced. Made of public
   ops, but for the cross-entropies (loss_entropy.c). 16-bit floats are computed in float32. Where Keras's backends
   differ in the last digits (sparse cross-entropy of probabilities) this is TensorFlow's. */
#include "ops/loss.h"
#include "dispatch/dispatch.h"
#include "ops/composite.h"
#include <math.h>
#include <stdio.h>

#define EPSILON 1e-7 /* keras.config.epsilon() */

static tern_tensor *num(double value) { return tern_scalar(value); }
static tern_tensor *plus(tern_tensor *x, double by) { return tern_add(x, num(by)); }
static tern_tensor *times(tern_tensor *x, double by) { return tern_mul(x, num(by)); }
static tern_tensor *from(double value, tern_tensor *x) { return tern_sub(num(value), x); }
static tern_tensor *at_least(tern_tensor *x, double low) { return tern_maximum(x, num(low)); }
static tern_tensor *within(tern_tensor *x, double low, double high) { return tern_clip(x, num(low), num(high)); }
/* An option whose 0 means `standard`, and -0.0 zero. */
static double option(double asked, double standard) { return asked != 0 || signbit(asked) ? asked : standard; }

/* ---- what all have in common ---- */

/* One call: operands of one shape and float dtype, options that can be read. */
typedef struct loss {
  const char *op;
  tern_tensor *y_true, *y_pred;
  tern_loss_opts opts;
  int axis;         /* opts.axis in 0 .. rank - 1; the last by default */
  tern_dtype dtype; /* of the result */
} loss;

/* A last axis of size 1 that only one of the two has: added to the other where that has rank 1, else dropped. */
static void same_rank(tern_tensor **a, tern_tensor **b) {
  tern_tensor **more = (*a)->rank > (*b)->rank ? a : b, **less = more == a ? b : a;
  if ((*more)->rank != (*less)->rank + 1 || (*more)->shape[(*more)->rank - 1] != 1) return;
  if ((*less)->rank == 1)
    *less = tern_expand_dims(*less, -1);
  else
    *more = tern_squeeze(*more, -1);
}

static bool same_shape(const tern_tensor *a, const tern_tensor *b) {
  return a->rank == b->rank && !memcmp(a->shape, b->shape, a->rank * sizeof *a->shape);
}

static bool begin_pred(loss *l, const char *op, tern_tensor *y_true, tern_tensor *y_pred, const tern_loss_opts *opts) {
  *l = (loss){.op = op, .y_true = y_true, .y_pred = y_pred, .opts = opts ? *opts : (tern_loss_opts){0}};
  if (!tern__usable(y_true, op, 1) || !tern__usable(y_pred, op, 2) || !tern__loss_opts_ok(op, opts)) return false;
  if (y_pred->rank == 0) {
    tern__fail(TERN_E_ARG, "%s: y_pred has rank 0; the last axis holds what one example consists of", op);
    return false;
  }
  l->dtype = tern__float_of((tern_dtype)y_pred->dtype);
  l->y_pred = tern_cast(y_pred, tern__wide(l->dtype));
  l->axis = tern__axis(op, l->opts.axis ? l->opts.axis : -1, y_pred->rank);
  return l->y_pred && l->axis >= 0;
}

static bool begin(loss *l, const char *op, tern_tensor *y_true, tern_tensor *y_pred, const tern_loss_opts *opts) {
  if (!begin_pred(l, op, y_true, y_pred, opts)) return false;
  l->y_true = tern_cast(tern__solid(y_true, tern__wide(l->dtype)), tern__wide(l->dtype));
  if (!l->y_true) return false;
  same_rank(&l->y_true, &l->y_pred);
  if (!l->y_true || !l->y_pred) return false;
  if (same_shape(l->y_true, l->y_pred)) return true;
  char a[200], b[200];
  tern__fail(TERN_E_ARG, "%s: y_true has shape %s and y_pred %s; they must be the same", op,
             tern__shape_text(a, y_true->rank, y_true->shape), tern__shape_text(b, y_pred->rank, y_pred->shape));
  return false;
}

static tern_reduce_opts along(const int *axis) { return (tern_reduce_opts){.axes = axis, .n_axes = 1}; }
static tern_tensor *sum_along(tern_tensor *x, int axis) {
  return tern_sum(x, &(tern_reduce_opts){.axes = &axis, .n_axes = 1});
}

tern_tensor *tern__loss_reduce(const char *op, tern_tensor *values, tern_tensor *valid, const tern_loss_opts *opts) {
  if (!values) return NULL;
  const tern_loss_reduction how = opts ? opts->reduction : TERN_LOSS_MEAN;
  tern_tensor *weights = opts && opts->weights ? opts->weights : TERN_NONE;
  if (weights != TERN_NONE) {
    if (!tern__usable(weights, op, 3)) return NULL;
    const tern_dtype dtype = (tern_dtype)values->dtype;
    weights = weights->flags & TERN__WEAK ? weights : tern_cast(weights, dtype);
    if (!weights) return NULL;
    if (weights->rank > 0) same_rank(&values, &weights);
    if (!values || !weights) return NULL;
    bool fits = weights->rank <= values->rank;
    for (int d = 1; d <= weights->rank && fits; d++)
      fits = weights->shape[weights->rank - d] == 1 ||
             weights->shape[weights->rank - d] == values->shape[values->rank - d];
    if (!fits) {
      char a[200], b[200];
      tern__fail(TERN_E_ARG, "%s: weights of shape %s do not broadcast to the examples' values, of shape %s", op,
                 tern__shape_text(a, weights->rank, weights->shape), tern__shape_text(b, values->rank, values->shape));
      return NULL;
    }
    values = tern_mul(values, weights);
  }
  if (how == TERN_LOSS_NONE || !values) return values;
  if (how == TERN_LOSS_SUM || values->numel == 0) return tern_sum(values, NULL);
  if (!valid) return tern_mean(values, NULL);
  return tern_div(tern_sum(values, NULL), at_least(tern_sum(tern_cast(valid, (tern_dtype)values->dtype), NULL), 1));
}

static tern_tensor *finish(const loss *l, tern_tensor *values) {
  tern_tensor *y = tern__loss_reduce(l->op, values, NULL, &l->opts);
  return y ? tern_cast(y, l->dtype) : NULL;
}

/* The mean along axis, then the reduction: in one where that is the same. */
static tern_tensor *finish_mean(const loss *l, tern_tensor *each, int axis) {
  const bool weighted = l->opts.weights && l->opts.weights != TERN_NONE;
  if (!each) return NULL;
  if (l->opts.reduction == TERN_LOSS_MEAN && !weighted && each->numel)
    return tern_cast(tern_mean(each, NULL), l->dtype);
  const tern_reduce_opts opts = along(&axis);
  return finish(l, tern_mean(each, &opts));
}

/* ---- regression ---- */

#define LOSS(name) tern_tensor *tern_loss_##name(tern_tensor *y_true, tern_tensor *y_pred, const tern_loss_opts *opts)
#define BEGIN(name) \
  loss l;           \
  if (!begin(&l, "loss_" #name, y_true, y_pred, opts)) return NULL

LOSS(mean_squared_error) {
  BEGIN(mean_squared_error);
  return finish_mean(&l, tern_square(tern_sub(l.y_true, l.y_pred)), -1);
}

LOSS(mean_absolute_error) {
  BEGIN(mean_absolute_error);
  return finish_mean(&l, tern_abs(tern_sub(l.y_true, l.y_pred)), -1);
}

LOSS(mean_absolute_percentage_error) {
  BEGIN(mean_absolute_percentage_error);
  tern_tensor *share = tern_abs(tern_div(tern_sub(l.y_true, l.y_pred), at_least(tern_abs(l.y_true), EPSILON)));
  return finish_mean(&l, times(share, 100), -1);
}

LOSS(mean_squared_logarithmic_error) {
  BEGIN(mean_squared_logarithmic_error);
  tern_tensor *p = tern_log(plus(at_least(l.y_pred, EPSILON), 1)), *t = tern_log(plus(at_least(l.y_true, EPSILON), 1));
  return finish_mean(&l, tern_square(tern_sub(p, t)), -1);
}

LOSS(huber) {
  BEGIN(huber);
  const double delta = option(l.opts.delta, 1);
  if (!(delta >= 0)) {
    tern__fail(TERN_E_ARG, "loss_huber: delta is %g; it must not be negative", delta);
    return NULL;
  }
  tern_tensor *error = tern_sub(l.y_pred, l.y_true), *size = tern_abs(error);
  tern_tensor *near = times(tern_square(error), 0.5), *far = plus(times(size, delta), -0.5 * delta * delta);
  return finish_mean(&l, tern_where(tern_less_equal(size, num(delta)), near, far), -1);
}

/* x + softplus(-2 x) - log 2 */
LOSS(log_cosh) {
  BEGIN(log_cosh);
  tern_tensor *x = tern_sub(l.y_pred, l.y_true);
  return finish_mean(&l, plus(tern_add(x, tern_logaddexp(times(x, -2), num(0))), -0.69314718055994530942), -1);
}

LOSS(poisson) {
  BEGIN(poisson);
  return finish_mean(&l, tern_sub(l.y_pred, tern_mul(l.y_true, tern_log(plus(l.y_pred, EPSILON)))), -1);
}

LOSS(kl_divergence) {
  BEGIN(kl_divergence);
  tern_tensor *t = within(l.y_true, EPSILON, 1), *p = within(l.y_pred, EPSILON, 1);
  return finish(&l, sum_along(tern_mul(t, tern_log(tern_div(t, p))), -1));
}

static tern_tensor *unit_length(tern_tensor *x, int axis) {
  tern_tensor *squares = tern_sum(tern_square(x), &(tern_reduce_opts){.axes = &axis, .n_axes = 1, .keepdims = 1});
  return tern_mul(x, tern_minimum(tern_rsqrt(squares), num(1 / EPSILON)));
}

LOSS(cosine_similarity) {
  BEGIN(cosine_similarity);
  tern_tensor *product = tern_mul(unit_length(l.y_true, l.axis), unit_length(l.y_pred, l.axis));
  return finish(&l, tern_neg(sum_along(product, l.axis)));
}

/* ---- hinges ---- */

/* Labels 0 and 1 become -1 and 1 where there are no others. */
static tern_tensor *signs_of(tern_tensor *labels) {
  tern_tensor *binary = tern_all(tern_logical_or(tern_equal(labels, num(0)), tern_equal(labels, num(1))), NULL);
  return tern_where(binary, plus(times(labels, 2), -1), labels);
}

LOSS(hinge) {
  BEGIN(hinge);
  return finish_mean(&l, at_least(from(1, tern_mul(signs_of(l.y_true), l.y_pred)), 0), -1);
}

LOSS(squared_hinge) {
  BEGIN(squared_hinge);
  return finish_mean(&l, tern_square(at_least(from(1, tern_mul(signs_of(l.y_true), l.y_pred)), 0)), -1);
}

LOSS(categorical_hinge) {
  BEGIN(categorical_hinge);
  const int last = -1;
  const tern_reduce_opts axis = along(&last);
  tern_tensor *right = tern_sum(tern_mul(l.y_true, l.y_pred), &axis);
  tern_tensor *wrong = tern_max(tern_mul(from(1, l.y_true), l.y_pred), &axis);
  return finish(&l, at_least(plus(tern_sub(wrong, right), 1), 0));
}

/* ---- cross-entropies ---- */

/* Targets moved towards `even` by the smoothing. */
static tern_tensor *smoothed(const loss *l, double even) {
  const double s = l->opts.label_smoothing;
  return s > 0 ? plus(times(l->y_true, 1 - s), s * even) : l->y_true;
}

/* y_pred / sum(y_pred), kept off 0 and 1. */
static tern_tensor *as_shares(const loss *l, tern_tensor *p) {
  const tern_reduce_opts classes = {.axes = &l->axis, .n_axes = 1, .keepdims = 1};
  return within(tern_div(p, tern_sum(p, &classes)), EPSILON, 1 - EPSILON);
}

/* -(t log p + (1 - t) log(1 - p)) */
static tern_tensor *binary_of(tern_tensor *t, tern_tensor *p) {
  p = within(p, EPSILON, 1 - EPSILON);
  return tern_neg(tern_add(tern_mul(t, tern_log(p)), tern_mul(from(1, t), tern_log(from(1, p)))));
}

LOSS(binary_crossentropy) {
  BEGIN(binary_crossentropy);
  tern_tensor *t = smoothed(&l, 0.5);
  return finish_mean(&l, l.opts.from_logits ? tern__binary_entropy(l.y_pred, t) : binary_of(t, l.y_pred), l.axis);
}

/* With opts->alpha the classes are balanced by it (Keras: apply_class_balancing). */
LOSS(binary_focal_crossentropy) {
  BEGIN(binary_focal_crossentropy);
  tern_tensor *t = smoothed(&l, 0.5), *p = l.opts.from_logits ? tern_sigmoid(l.y_pred) : l.y_pred;
  tern_tensor *right = tern_add(tern_mul(t, p), tern_mul(from(1, t), from(1, p)));
  tern_tensor *each = tern_mul(tern_pow(from(1, right), num(option(l.opts.gamma, 2))), binary_of(t, p));
  const double alpha = option(l.opts.alpha, -1);
  if (alpha >= 0) each = tern_mul(each, tern_add(times(t, alpha), times(from(1, t), 1 - alpha)));
  return finish_mean(&l, each, l.axis);
}

LOSS(categorical_crossentropy) {
  BEGIN(categorical_crossentropy);
  if (l.opts.from_logits) {
    tern_tensor *y = tern__entropy(l.op, l.y_pred, l.y_true, l.axis, false, &l.opts);
    return y ? tern_cast(y, l.dtype) : NULL;
  }
  tern_tensor *t = smoothed(&l, 1 / (double)l.y_pred->shape[l.axis]);
  return finish(&l, tern_neg(sum_along(tern_mul(t, tern_log(as_shares(&l, l.y_pred))), l.axis)));
}

LOSS(categorical_focal_crossentropy) {
  BEGIN(categorical_focal_crossentropy);
  tern_tensor *t = smoothed(&l, 1 / (double)l.y_pred->shape[l.axis]);
  tern_tensor *p = as_shares(&l, l.opts.from_logits ? tern_softmax(l.y_pred, l.axis) : l.y_pred);
  tern_tensor *factor = times(tern_pow(from(1, p), num(option(l.opts.gamma, 2))), -option(l.opts.alpha, 0.25));
  return finish(&l, sum_along(tern_mul(factor, tern_mul(t, tern_log(p))), l.axis));
}

/* y_true: classes, of any dtype (floats are truncated), of one rank less or with size 1 at the axis. */
LOSS(sparse_categorical_crossentropy) {
  loss l;
  if (!begin_pred(&l, "loss_sparse_categorical_crossentropy", y_true, y_pred, opts)) return NULL;
  tern_tensor *labels = tern__solid(y_true, TERN_I64);
  if (labels && !tern__is_int((tern_dtype)labels->dtype)) labels = tern_cast(labels, TERN_I64);
  if (labels && labels->rank == y_pred->rank - 1) labels = tern_expand_dims(labels, l.axis);
  if (!labels) return NULL;
  bool fits = labels->rank == y_pred->rank;
  for (int d = 0; d < y_pred->rank && fits; d++) fits = labels->shape[d] == (d == l.axis ? 1 : y_pred->shape[d]);
  char a[200], b[200];
  if (!fits) {
    tern__fail(TERN_E_ARG,
               "%s: y_true of shape %s does not fit y_pred of shape %s: it must have y_pred's axes but for that of the "
               "classes, %d",
               l.op, tern__shape_text(a, y_true->rank, y_true->shape), tern__shape_text(b, y_pred->rank, y_pred->shape),
               l.axis);
    return NULL;
  }
  tern_tensor *logits = l.opts.from_logits ? l.y_pred : tern_log(within(l.y_pred, EPSILON, 1 - EPSILON));
  tern_tensor *y = logits ? tern__entropy(l.op, logits, labels, l.axis, true, &l.opts) : NULL;
  return y ? tern_cast(y, l.dtype) : NULL;
}

/* ---- overlaps: over all of y, or with opts->axis along that axis ---- */

static tern_tensor *overlap_sum(const loss *l, tern_tensor *x) {
  return l->opts.axis ? sum_along(x, l->axis) : tern_sum(x, NULL);
}

LOSS(dice) {
  BEGIN(dice);
  tern_tensor *both = overlap_sum(&l, tern_mul(l.y_true, l.y_pred));
  tern_tensor *size = tern_add(overlap_sum(&l, l.y_true), overlap_sum(&l, l.y_pred));
  return finish(&l, from(1, tern_div(times(both, 2), plus(size, EPSILON))));
}

LOSS(tversky) {
  BEGIN(tversky);
  tern_tensor *both = overlap_sum(&l, tern_mul(l.y_true, l.y_pred));
  tern_tensor *missed = overlap_sum(&l, tern_mul(from(1, l.y_pred), l.y_true));
  tern_tensor *extra = overlap_sum(&l, tern_mul(l.y_pred, from(1, l.y_true)));
  tern_tensor *all =
      tern_add(both, tern_add(times(missed, option(l.opts.alpha, 0.5)), times(extra, option(l.opts.beta, 0.5))));
  return finish(&l, from(1, tern_div(both, plus(all, EPSILON))));
}

/* ---- the table: no inference or lowering of their own, since each is made of other ops ---- */

static tern_tensor *sample_loss(const tern__sample *s) {
  return tern_loss_named(s->op->name + sizeof "loss_" - 1)(s->x, s->y, NULL);
}

static tern_tensor *sample_sparse(const tern__sample *s) {
  return tern_loss_sparse_categorical_crossentropy(tern_zeros((tern_shape){1, {2}}, TERN_I64), s->x, NULL);
}

#define ENTRY_(id, sampled, text)                                    \
  const tern__op tern__op_loss_##id = {.name = "loss_" #id,          \
                                       .family = "losses",           \
                                       .operands = "y_true, y_pred", \
                                       .doc = text,                  \
                                       .number = TERN__N_loss_##id,  \
                                       .sample = sampled,            \
                                       .dtypes = TERN_D_FLOAT,       \
                                       .absolute = 1e-5,             \
                                       .relative = 1e-5,             \
                                       .ulp = 1e-5 / 1.2e-7};
#define ENTRY(id, text) ENTRY_(id, sample_loss, text)
ENTRY(mean_squared_error, "mean((y_true - y_pred)^2)")
ENTRY(mean_absolute_error, "mean(|y_true - y_pred|)")
ENTRY(mean_absolute_percentage_error, "100 mean(|y_true - y_pred| / |y_true|)")
ENTRY(mean_squared_logarithmic_error, "mean((log(1 + y_true) - log(1 + y_pred))^2)")
ENTRY(binary_crossentropy, "-mean(t log(p) + (1 - t) log(1 - p))")
ENTRY(categorical_crossentropy, "-sum(t log(p)) over the classes")
ENTRY_(sparse_categorical_crossentropy, sample_sparse, "-log(p) at the class y_true")
ENTRY(binary_focal_crossentropy, "binary_crossentropy times (1 - p of the truth)^gamma")
ENTRY(categorical_focal_crossentropy, "-sum(alpha (1 - p)^gamma t log(p))")
ENTRY(kl_divergence, "sum(t log(t / p))")
ENTRY(poisson, "mean(p - t log(p))")
ENTRY(cosine_similarity, "-sum of the product of both at length 1")
ENTRY(hinge, "mean(max(1 - t p, 0))")
ENTRY(squared_hinge, "mean(max(1 - t p, 0)^2)")
ENTRY(categorical_hinge, "max(1 + max((1 - t) p) - sum(t p), 0)")
ENTRY(huber, "mean of e^2 / 2 where |e| <= delta, else delta |e| - delta^2 / 2")
ENTRY(log_cosh, "mean(log(cosh(y_pred - y_true)))")
ENTRY(dice, "1 - 2 sum(t p) / (sum(t) + sum(p))")
ENTRY(tversky, "1 - sum(t p) / (sum(t p) + alpha sum(t (1 - p)) + beta sum((1 - t) p))")

/* ---- by name ---- */

static const struct {
  const char *name;
  tern_loss_function function;
} losses[] = {
#define ROW(name) {#name, tern_loss_##name},
    TERN_LOSSES(ROW)
#undef ROW
};
enum { N_LOSSES = sizeof losses / sizeof *losses };

tern_loss_function tern_loss_named(const char *name) {
  char known[800] = "";
  size_t at = 0;
  for (int i = 0; i < N_LOSSES; i++) {
    if (name && !strcmp(name, losses[i].name)) return losses[i].function;
    const int n = snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "", losses[i].name);
    at += n > 0 && (size_t)n < sizeof known - at ? (size_t)n : 0;
  }
  tern__fail(TERN_E_ARG, "loss_named: no loss is named \"%s\"; there are %s", name ? name : "(null)", known);
  return NULL;
}
