/* Normalisations: each is one composite op, and weights. The batch's keeps moving averages of what it saw. */
#include "base/thread.h"
#include "nn/check.h"
#include <math.h>

/* The size along axis; 0 is the last axis. The batch's is not known. */
static tern_rc axis_size(tern_shape in, int axis, int64_t *size) {
  return tern__layer_size(in, axis ? axis : -1, size);
}

/* The weight made next, unless it is left out; false: failed. */
static bool affine(tern_layer *l, const char *name, tern_shape shape, tern_dtype dtype, const char *begin,
                   bool without) {
  return without || tern__layer_weight(l, name, shape, dtype, NULL, begin, false);
}

static tern_tensor *weight_or_none(const tern_layer *l, bool without, int i) {
  return without ? TERN_NONE : l->weight[i];
}

static tern_rc check_epsilon(const char *kind, double epsilon) {
  return tern__check_range(kind, "epsilon", epsilon, 0, INFINITY);
}

/* ---- batch ---- */

typedef struct {
  tern_batch_norm_layer_opts opts;
} batch_norm;

static const tern__field batch_fields[] = {TERN__FIELD(TERN__DOUBLE, batch_norm, opts.momentum, "momentum"),
                                           TERN__FIELD(TERN__DOUBLE, batch_norm, opts.epsilon, "epsilon"),
                                           TERN__FIELD(TERN__INT, batch_norm, opts.axis, "axis"),
                                           TERN__FIELD(TERN__INT, batch_norm, opts.no_scale, "no_scale"),
                                           TERN__FIELD(TERN__INT, batch_norm, opts.no_center, "no_center")};

static tern_rc check_batch(const void *params) {
  const batch_norm *b = params;
  const tern_rc rc = tern__check_range("BatchNormalization", "momentum", b->opts.momentum, 0, 1);
  return rc ? rc : check_epsilon("BatchNormalization", b->opts.epsilon);
}

static tern_rc build_batch(tern_layer *l, tern_shape in, tern_dtype dtype) {
  const batch_norm *b = l->params;
  int64_t size = 0;
  const tern_rc rc = axis_size(in, b->opts.axis, &size);
  if (rc) return rc;
  const tern_shape shape = TERN_SHAPE(size);
  dtype = tern__weight_dtype(dtype);
  return affine(l, "gamma", shape, dtype, "ones", b->opts.no_scale) &&
                 affine(l, "beta", shape, dtype, "zeros", b->opts.no_center) &&
                 tern__layer_weight(l, "moving_mean", shape, dtype, NULL, "zeros", true) &&
                 tern__layer_weight(l, "moving_variance", shape, dtype, NULL, "ones", true)
             ? TERN_OK
             : TERN_E_ARG;
}

/* All axes but that of the channels. */
static int other_axes(const tern_tensor *x, int axis, int axes[TERN_MAX_RANK]) {
  int n = 0;
  for (int d = 0; d < tern_rank(x); d++)
    if (d != axis) axes[n++] = d;
  return n;
}

/* Mean and biased variance of the steps that count, [channels], as Keras has them: 1e-7 keeps the quotient finite. */
static tern_rc masked_moments(tern_tensor *x, tern_tensor *mask, const tern_reduce_opts *over, tern_tensor **mean,
                              tern_tensor **variance) {
  if (tern_rank(mask) != tern_rank(x) - 1)
    return tern__fail(TERN_E_ARG, "its input has rank %d and the mask rank %d; a mask has one axis less", tern_rank(x),
                      tern_rank(mask));
  tern_tensor *counts = tern_expand_dims(mask, -1), *zero = tern_scalar(0);
  tern_tensor *n = tern_sum(tern_where(counts, tern_ones_like(x), zero), over);
  n = tern_add(n, tern_scalar(1e-7));
  tern_tensor *m = tern_div(tern_sum(tern_where(counts, x, zero), over), n);
  tern_tensor *distance = tern_where(counts, tern_sub(x, m), zero);
  *mean = tern_flatten(m);
  *variance = tern_flatten(tern_div(tern_sum(tern_square(distance), over), n));
  return *mean && *variance ? TERN_OK : tern__recorded();
}

static tern_rc move(tern_tensor *average, tern_tensor *seen, double momentum) {
  return tern_assign(average,
                     tern_add(tern_mul(average, tern_scalar(momentum)), tern_mul(seen, tern_scalar(1 - momentum))));
}

static tern_tensor *call_batch(tern_layer *l, tern_tensor *x, tern__pass *p) {
  const batch_norm *b = l->params;
  tern_tensor *gamma = weight_or_none(l, b->opts.no_scale, 0);
  tern_tensor *beta = weight_or_none(l, b->opts.no_center, !b->opts.no_scale);
  tern_tensor *const *moving = l->weight + l->n_weights - 2;
  const tern_batch_norm_opts o = {.epsilon = b->opts.epsilon, .axis = b->opts.axis};
  x = tern__as_float(x);
  if (!x || !p->training || b->opts.frozen) return tern_batch_norm(x, moving[0], moving[1], gamma, beta, &o);
  int axes[TERN_MAX_RANK];
  const int axis = b->opts.axis > 0 ? b->opts.axis : b->opts.axis + tern_rank(x) - !b->opts.axis;
  tern_reduce_opts over = {.axes = axes, .n_axes = other_axes(x, axis, axes), .keepdims = 1};
  if (!over.n_axes) {
    tern__check_rank(tern_rank(x), 2, "[batch, .., channels], or more");
    return NULL;
  }
  tern_tensor *mean = TERN_NONE, *variance = TERN_NONE;
  const tern_dtype dtype = tern_dtype_get(x);
  tern_tensor *wide = dtype == TERN_F16 || dtype == TERN_BF16 ? tern_cast(x, TERN_F32) : x;
  if (p->mask != TERN_NONE && masked_moments(wide, p->mask, &over, &mean, &variance)) return NULL;
  tern_tensor *y = tern_cast(tern_batch_norm(wide, mean, variance, gamma, beta, &o), dtype);
  if (!y) return NULL;
  TERN_NO_GRADIENT;
  over.keepdims = 0;
  if (p->mask == TERN_NONE) {
    mean = tern_mean(wide, &over);
    variance = tern_var(wide, &over);
  }
  const double momentum = tern__number_or(b->opts.momentum, 0.99);
  if (move(moving[0], mean, momentum) || move(moving[1], variance, momentum)) return NULL;
  return y;
}

const tern__layer_kind tern__kind_batch_norm = {.name = "BatchNormalization",
                                                .stem = "batch_normalization",
                                                .params = sizeof(batch_norm),
                                                .opts = offsetof(batch_norm, opts),
                                                .field = batch_fields,
                                                .n_fields = sizeof batch_fields / sizeof *batch_fields,
                                                .check = check_batch,
                                                .build = build_batch,
                                                .call = call_batch};

tern_layer *tern_batch_norm_layer(const tern_batch_norm_layer_opts *opts) {
  const batch_norm b = {.opts = opts ? *opts : (tern_batch_norm_layer_opts){0}};
  return tern__layer_new(&tern__kind_batch_norm, &b, NULL, 0);
}

/* ---- layer, root mean square, groups ---- */

typedef struct {
  int64_t groups; /* of the groups' only */
  tern_norm_layer_opts opts;
} norm;

#define COMMON_FIELDS                                                                                        \
  TERN__FIELD(TERN__DOUBLE, norm, opts.epsilon, "epsilon"), TERN__FIELD(TERN__INT, norm, opts.axis, "axis"), \
      TERN__FIELD(TERN__INT, norm, opts.no_scale, "no_scale")
#define CENTER_FIELD TERN__FIELD(TERN__INT, norm, opts.no_center, "no_center")
static const tern__field layer_fields[] = {COMMON_FIELDS, CENTER_FIELD};
static const tern__field rms_fields[] = {COMMON_FIELDS};
static const tern__field group_fields[] = {TERN__FIELD(TERN__LONG, norm, groups, "groups"), COMMON_FIELDS,
                                           CENTER_FIELD};
#undef COMMON_FIELDS
#undef CENTER_FIELD

static tern_rc check_layer(const void *params) {
  return check_epsilon("LayerNormalization", ((const norm *)params)->opts.epsilon);
}

static tern_rc check_rms(const void *params) {
  return check_epsilon("RMSNormalization", ((const norm *)params)->opts.epsilon);
}

static tern_rc check_group(const void *params) {
  const norm *n = params;
  const tern_rc rc = tern__check_count("GroupNormalization", "groups", n->groups, 1);
  return rc ? rc : check_epsilon("GroupNormalization", n->opts.epsilon);
}

/* The shape of the axes from opts.axis on. */
static tern_rc last_axes(const tern_layer *l, tern_shape in, tern_shape *shape) {
  const norm *n = l->params;
  int axis = n->opts.axis ? n->opts.axis : -1;
  if (axis < 0) axis += in.rank;
  *shape = (tern_shape){.rank = 0};
  tern_rc rc = TERN_OK;
  do {
    rc = tern__layer_size(in, axis, &shape->dim[shape->rank]);
    if (!rc) shape->rank++;
  } while (!rc && ++axis < in.rank);
  return rc;
}

static tern_rc build_layer(tern_layer *l, tern_shape in, tern_dtype dtype) {
  const norm *n = l->params;
  tern_shape shape;
  const tern_rc rc = last_axes(l, in, &shape);
  if (rc) return rc;
  dtype = tern__weight_dtype(dtype);
  return affine(l, "gamma", shape, dtype, "ones", n->opts.no_scale) &&
                 affine(l, "beta", shape, dtype, "zeros", n->opts.no_center)
             ? TERN_OK
             : TERN_E_ARG;
}

static tern_rc build_rms(tern_layer *l, tern_shape in, tern_dtype dtype) {
  const norm *n = l->params;
  tern_shape shape;
  const tern_rc rc = last_axes(l, in, &shape);
  if (rc) return rc;
  return affine(l, "scale", shape, tern__weight_dtype(dtype), "ones", n->opts.no_scale) ? TERN_OK : TERN_E_ARG;
}

static tern_rc build_group(tern_layer *l, tern_shape in, tern_dtype dtype) {
  const norm *n = l->params;
  int64_t size = 0;
  const tern_rc rc = axis_size(in, n->opts.axis, &size);
  if (rc) return rc;
  if (size % n->groups)
    return tern__fail(TERN_E_ARG, "groups is %lld, which does not divide the %lld channels of its input",
                      (long long)n->groups, (long long)size);
  dtype = tern__weight_dtype(dtype);
  return affine(l, "gamma", TERN_SHAPE(size), dtype, "ones", n->opts.no_scale) &&
                 affine(l, "beta", TERN_SHAPE(size), dtype, "zeros", n->opts.no_center)
             ? TERN_OK
             : TERN_E_ARG;
}

static tern_tensor *call_layer(tern_layer *l, tern_tensor *x, tern__pass *p) {
  const norm *n = l->params;
  (void)p;
  return tern_layer_norm(
      tern__as_float(x), weight_or_none(l, n->opts.no_scale, 0),
      weight_or_none(l, n->opts.no_center, !n->opts.no_scale),
      &(tern_layer_norm_opts){.epsilon = tern__number_or(n->opts.epsilon, 0.001), .axis = n->opts.axis});
}

static tern_tensor *call_rms(tern_layer *l, tern_tensor *x, tern__pass *p) {
  const norm *n = l->params;
  (void)p;
  return tern_rms_norm(tern__as_float(x), weight_or_none(l, n->opts.no_scale, 0),
                       &(tern_rms_norm_opts){.epsilon = n->opts.epsilon, .axis = n->opts.axis});
}

static tern_tensor *call_group(tern_layer *l, tern_tensor *x, tern__pass *p) {
  const norm *n = l->params;
  (void)p;
  return tern_group_norm(tern__as_float(x), n->groups, weight_or_none(l, n->opts.no_scale, 0),
                         weight_or_none(l, n->opts.no_center, !n->opts.no_scale),
                         &(tern_group_norm_opts){.epsilon = n->opts.epsilon, .axis = n->opts.axis});
}

#define KIND(id, text, short_text)                                                                       \
  const tern__layer_kind tern__kind_##id##_norm = {.name = text,                                         \
                                                   .stem = short_text,                                   \
                                                   .params = sizeof(norm),                               \
                                                   .opts = offsetof(norm, opts),                         \
                                                   .field = id##_fields,                                 \
                                                   .n_fields = sizeof id##_fields / sizeof *id##_fields, \
                                                   .check = check_##id,                                  \
                                                   .build = build_##id,                                  \
                                                   .call = call_##id};
KIND(layer, "LayerNormalization", "layer_normalization")
KIND(rms, "RMSNormalization", "rms_normalization")
KIND(group, "GroupNormalization", "group_normalization")
#undef KIND

static tern_layer *make(const tern__layer_kind *kind, int64_t groups, const tern_norm_layer_opts *opts) {
  const norm n = {.groups = groups, .opts = opts ? *opts : (tern_norm_layer_opts){0}};
  return tern__layer_new(kind, &n, NULL, 0);
}

tern_layer *tern_layer_norm_layer(const tern_norm_layer_opts *opts) { return make(&tern__kind_layer_norm, 0, opts); }

tern_layer *tern_rms_norm_layer(const tern_norm_layer_opts *opts) { return make(&tern__kind_rms_norm, 0, opts); }

tern_layer *tern_group_norm_layer(int64_t groups, const tern_norm_layer_opts *opts) {
  return make(&tern__kind_group_norm, groups, opts);
}
