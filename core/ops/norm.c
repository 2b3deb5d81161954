/* Normalisation: one composite whose reduced axes, operands and form differ serves layer_norm, rms_norm, batch_norm
   (statistics of the batch) and group_norm (on a view with the groups as an axis). batch_norm with given statistics is
   a map. The gradient to x is one composite too. */
#include "dispatch/dispatch.h"
#include "ops/composite.h"
#include <tern/ops.h>

/* Attributes of a call. axes: bit mask of the reduced ones, 0 where mean and variance are given. */
enum { AXES, EPSILON, RMS, N_ATTRS };
/* Attribute 0 of a request: which operands there are behind x and epsilon, and the form. */
enum { HAS_SCALE = 1, HAS_OFFSET = 2, GIVEN = 4, NO_MEAN = 8 };

/* Operands of a call: x, scale?, offset?, and with given statistics mean, variance. Of the request: x, epsilon, those
   that are there. */
static tern_rc infer_norm(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_dtype d = tern__float_of(tern__meet(c, 0, c->n_in));
  const tern_rc rc = tern__space(c, q);
  if (rc) return rc;
  for (int k = 0; k < q->n_space; k++)
    if (c->attr[AXES].u >> k & 1) q->role[k] = TERN__ROLE_REDUCED;
  q->dtype = (uint8_t)d;
  q->n_attrs = 1;
  q->attr[0].u = (c->attr[RMS].u ? NO_MEAN : 0) | (c->n_in > 3 ? GIVEN : 0);
  tern__c_operand(q, 0, c->in[0], d);
  tern__c_param(q, 1, tern__wide(d), c->attr[EPSILON].f);
  int n = 2;
  for (int i = 1; i < c->n_in; i++) {
    if (c->in[i] == TERN_NONE) continue;
    if (i < 3) q->attr[0].u |= i == 1 ? HAS_SCALE : HAS_OFFSET;
    tern__c_operand(q, n++, c->in[i], d);
  }
  q->n_in = (uint8_t)n;
  tern__result_space(q, r, d);
  tern__operand_out(q, 0, d, 0);
  return TERN_OK;
}

/* What lowerings compute of x: the centred values and the deviation of each row. */
typedef struct rows {
  int centred, deviation, n;
} rows;

static rows rows_of(tern__builder *b, int x, bool no_mean) {
  rows s = {.n = tern__b_count(b, x, tern__b_dtype(b, x))};
  s.centred = no_mean ? x : tern__c_sub(b, x, tern__c_div(b, tern__c_sum(b, x), s.n));
  const int variance = tern__c_div(b, tern__c_sum(b, tern__c_mul(b, s.centred, s.centred)), s.n);
  s.deviation = tern__b_map1(b, TERN_OP_SQRT, tern__c_add(b, variance, tern__b_in(b, 1)));
  return s;
}

static void lower_norm(tern__builder *b) {
  const uint64_t form = tern__b_request(b)->attr[0].u;
  const int x = tern__c_in(b, 0);
  int next = 2 + (form & HAS_SCALE ? 1 : 0) + (form & HAS_OFFSET ? 1 : 0), y;
  if (form & GIVEN) {
    const int mean = tern__c_in(b, next), variance = tern__c_in(b, next + 1);
    y = tern__c_div(b, tern__c_sub(b, x, mean),
                    tern__b_map1(b, TERN_OP_SQRT, tern__c_add(b, variance, tern__b_in(b, 1))));
  } else {
    const rows s = rows_of(b, x, form & NO_MEAN);
    y = tern__c_div(b, s.centred, s.deviation);
  }
  next = 2;
  if (form & HAS_SCALE) y = tern__c_mul(b, y, tern__c_in(b, next++));
  if (form & HAS_OFFSET) y = tern__c_add(b, y, tern__c_in(b, next));
  tern__b_out(b, 0, y);
}

/* norm_grad: operands x, dy, scale?. With h = dy * scale, n = x normalised and means over the rows:
   (h - mean(h) - n mean(h n)) / deviation; without the mean(h) in the RMS form. */
static tern_rc infer_norm_grad(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_dtype d = tern__float_of(tern__meet(c, 0, 1));
  const tern_rc rc = tern__space(c, q);
  if (rc) return rc;
  for (int k = 0; k < q->n_space; k++)
    if (c->attr[AXES].u >> k & 1) q->role[k] = TERN__ROLE_REDUCED;
  q->dtype = (uint8_t)d;
  q->n_attrs = 1;
  q->attr[0].u = c->attr[RMS].u ? NO_MEAN : 0;
  tern__c_operand(q, 0, c->in[0], d);
  tern__c_param(q, 1, tern__wide(d), c->attr[EPSILON].f);
  tern__c_operand(q, 2, c->in[1], d);
  q->n_in = 3;
  if (c->in[2] != TERN_NONE) {
    q->attr[0].u |= HAS_SCALE;
    tern__c_operand(q, 3, c->in[2], d);
    q->n_in = 4;
  }
  tern__result_space(q, r, d);
  tern__operand_out(q, 0, d, 0);
  return TERN_OK;
}

static void lower_norm_grad(tern__builder *b) {
  const uint64_t form = tern__b_request(b)->attr[0].u;
  const rows s = rows_of(b, tern__c_in(b, 0), form & NO_MEAN);
  int h = tern__c_in(b, 2);
  if (form & HAS_SCALE) h = tern__c_mul(b, h, tern__c_in(b, 3));
  const int n = tern__c_div(b, s.centred, s.deviation);
  const int along = tern__c_div(b, tern__c_sum(b, tern__c_mul(b, h, n)), s.n);
  int y = tern__c_sub(b, h, tern__c_mul(b, n, along));
  if (!(form & NO_MEAN)) y = tern__c_sub(b, y, tern__c_div(b, tern__c_sum(b, h), s.n));
  tern__b_out(b, 0, tern__c_div(b, y, s.deviation));
}

/* ---- gradients ---- */

static bool wants(const tern__grad *g, int i) { return g->wanted >> i & 1; }
static tern_tensor *scaled(tern_tensor *x, tern_tensor *scale) { return scale == TERN_NONE ? x : tern_mul(x, scale); }

/* x normalised, without scale and offset, as the call g was. */
static tern_tensor *normalised(const tern__grad *g) {
  tern_tensor *const in[] = {g->in[0], TERN_NONE, TERN_NONE};
  return tern__run(&tern__op_layer_norm, in, 3, g->attr, N_ATTRS);
}

static tern_tensor *norm_grad(const tern__grad *g, tern_tensor *dy, tern_tensor *scale) {
  tern_tensor *const in[] = {g->in[0], dy, scale};
  return tern__run(&tern__op_norm_grad, in, 3, g->attr, N_ATTRS);
}

/* y = (x - mean) r scale + offset, r = 1 / sqrt(variance + epsilon) */
static void grad_given(const tern__grad *g, tern_tensor **din) {
  tern_tensor *dy = g->dout[0], *scale = g->in[1];
  tern_tensor *r = tern_rsqrt(tern_add(g->in[4], tern_scalar(g->attr[EPSILON].f)));
  tern_tensor *dx = tern_mul(dy, scaled(r, scale));
  din[0] = dx;
  if (wants(g, 3)) din[3] = tern_neg(dx);
  if (!wants(g, 1) && !wants(g, 4)) return;
  tern_tensor *centred = tern_sub(g->in[0], g->in[3]);
  if (wants(g, 1)) din[1] = tern_mul(tern_mul(dy, centred), r);
  if (wants(g, 4)) din[4] = tern_mul(tern_mul(dx, centred), tern_mul(tern_square(r), tern_scalar(-0.5)));
}

static void grad_norm(const tern__grad *g, tern_tensor **din) {
  if (wants(g, 2)) din[2] = g->dout[0];
  if (g->n_in > 3) {
    grad_given(g, din);
    return;
  }
  if (wants(g, 0)) din[0] = norm_grad(g, g->dout[0], g->in[1]);
  if (wants(g, 1)) din[1] = tern_mul(g->dout[0], normalised(g));
}

static tern_tensor *mean_of(tern_tensor *x, const tern__grad *g) {
  int axes[TERN_MAX_RANK], n = 0;
  for (int d = 0; d < TERN_MAX_RANK; d++)
    if (g->attr[AXES].u >> d & 1) axes[n++] = d;
  return tern_mean(x, &(tern_reduce_opts){.axes = axes, .n_axes = n, .keepdims = 1});
}

/* Let F(h) be norm_grad (linear in h and its own transpose), u what comes to it. To dy: F(u) scale; to scale: F(u) dy;
   to x: -n (mean(u h) - mean(u) mean(h) - mean(u n) mean(h n)) / deviation^2 - (mean(h n) F(u) + mean(u n) F(h)) /
   deviation, from differentiating the sum of u F(h), with d deviation / dx = n / count. The RMS form has no mean(u)
   mean(h). */
static void grad_norm_grad(const tern__grad *g, tern_tensor **din) {
  tern_tensor *u = g->dout[0], *scale = g->in[2], *back = norm_grad(g, u, TERN_NONE);
  if (wants(g, 1)) din[1] = scaled(back, scale);
  if (wants(g, 2)) din[2] = tern_mul(back, g->in[1]);
  if (!wants(g, 0)) return;
  const bool rms = g->attr[RMS].u;
  tern_tensor *x = g->in[0], *h = scaled(g->in[1], scale), *n = normalised(g);
  tern_tensor *centred = rms ? x : tern_sub(x, mean_of(x, g));
  tern_tensor *r = tern_rsqrt(tern_add(mean_of(tern_square(centred), g), tern_scalar(g->attr[EPSILON].f)));
  tern_tensor *un = mean_of(tern_mul(u, n), g), *hn = mean_of(tern_mul(h, n), g);
  tern_tensor *spread = tern_sub(mean_of(tern_mul(u, h), g), tern_mul(un, hn));
  if (!rms) spread = tern_sub(spread, tern_mul(mean_of(u, g), mean_of(h, g)));
  tern_tensor *bent = tern_add(tern_mul(hn, back), tern_mul(un, norm_grad(g, h, TERN_NONE)));
  din[0] = tern_neg(tern_mul(r, tern_add(tern_mul(n, tern_mul(r, spread)), bent)));
}

/* Over axis 1, without scale and offset. */
static tern_tensor *sample_norm(const tern__sample *s) {
  const tern_word attr[N_ATTRS] = {{.u = 2}, {.f = 1e-5}, {.u = s->op == &tern__op_rms_norm}};
  tern_tensor *const in[] = {s->x, s->op == &tern__op_norm_grad ? s->y : TERN_NONE, TERN_NONE};
  return tern__run(s->op, in, 3, attr, N_ATTRS);
}

#define NORM(id, args, may_lack, kept, text)              \
  const tern__op tern__op_##id = {.name = #id,            \
                                  .family = "norm",       \
                                  .operands = args,       \
                                  .optional = may_lack,   \
                                  .doc = text,            \
                                  .number = TERN__N_##id, \
                                  .sample = sample_norm,  \
                                  .dtypes = TERN_D_FLOAT, \
                                  .infer = infer_norm,    \
                                  .lower = lower_norm,    \
                                  .grad = grad_norm,      \
                                  .keeps = kept,          \
                                  .absolute = 1e-5,       \
                                  .relative = 1e-5,       \
                                  .ulp = 1e-5 / 1.2e-7};
enum { KEEP_FIRST = TERN__KEEP_A | TERN__KEEP_B };
NORM(layer_norm, "x, scale?, offset?", 6, KEEP_FIRST,
     "(x - mean) / sqrt(var + epsilon) * scale + offset over the last axes")
NORM(rms_norm, "x, scale?", 6, KEEP_FIRST, "x / sqrt(mean(x^2) + epsilon) * scale over the last axes")
NORM(group_norm, "x, groups, scale?, offset?", 6, KEEP_FIRST, "layer_norm of each group of channels of each example")
NORM(batch_norm, "x, mean?, variance?, scale?, offset?", 6, KEEP_FIRST | TERN__KEEP_IN(3) | TERN__KEEP_IN(4),
     "(x - mean) / sqrt(variance + epsilon) * scale + offset, a channel")

const tern__op tern__op_norm_grad = {.name = "norm_grad",
                                     .family = "norm",
                                     .operands = "x, dy, scale?",
                                     .optional = 4,
                                     .doc = "the gradient of a normalisation to x (behind layer_norm)",
                                     .number = TERN__N_norm_grad,
                                     .sample = sample_norm,
                                     .dtypes = TERN_D_FLOAT,
                                     .infer = infer_norm_grad,
                                     .lower = lower_norm_grad,
                                     .grad = grad_norm_grad,
                                     .keeps = TERN__KEEP_A | TERN__KEEP_B | TERN__KEEP_C,
                                     .absolute = 2e-5,
                                     .relative = 2e-5,
                                     .ulp = 2e-5 / 1.2e-7};

/* ---- public ---- */

/* 0 is the default, -0.0 a zero. Negative and NaN are refused. */
static bool epsilon_of(const char *op, double asked, double standard, tern_word *out) {
  out->f = asked != 0 || __builtin_signbit(asked) ? asked : standard;
  if (out->f >= 0) return true;
  tern__fail(TERN_E_ARG, "%s: epsilon is %g; it must not be negative", op, asked);
  return false;
}

static bool shaped(const char *op, const char *what, tern_tensor *t, int argument, int rank, const int64_t *shape) {
  char a[200], b[200];
  if (t == TERN_NONE) return true;
  if (!tern__usable(t, op, argument)) return false;
  if (t->rank == rank && !memcmp(t->shape, shape, (size_t)rank * sizeof *shape)) return true;
  tern__fail(TERN_E_ARG, "%s: %s has shape %s; it must have that of the normalised axes, %s", op, what,
             tern__shape_text(a, t->rank, t->shape), tern__shape_text(b, rank, shape));
  return false;
}

static uint64_t bits(int from, int to) { return (UINT64_C(1) << to) - (UINT64_C(1) << from); }

static tern_tensor *over_last(const tern__op *op, tern_tensor *x, tern_tensor *scale, tern_tensor *offset, int axis,
                              double epsilon, double standard) {
  if (!tern__usable(x, op->name, 1)) return NULL;
  tern_word attr[N_ATTRS] = {{.u = 0}, {.f = 0}, {.u = op == &tern__op_rms_norm}};
  axis = tern__axis(op->name, axis ? axis : -1, x->rank);
  if (axis < 0 || !epsilon_of(op->name, epsilon, standard, &attr[EPSILON])) return NULL;
  attr[AXES].u = bits(axis, x->rank);
  if (!shaped(op->name, "scale", scale, 2, x->rank - axis, x->shape + axis) ||
      !shaped(op->name, "offset", offset, 3, x->rank - axis, x->shape + axis))
    return NULL;
  tern_tensor *const in[] = {x, scale, offset};
  return tern__run(op, in, 3, attr, N_ATTRS);
}

tern_tensor *tern_layer_norm(tern_tensor *x, tern_tensor *scale, tern_tensor *offset,
                             const tern_layer_norm_opts *opts) {
  return over_last(&tern__op_layer_norm, x, scale, offset, opts ? opts->axis : 0, opts ? opts->epsilon : 0, 1e-5);
}

tern_tensor *tern_rms_norm(tern_tensor *x, tern_tensor *scale, const tern_rms_norm_opts *opts) {
  return over_last(&tern__op_rms_norm, x, scale, TERN_NONE, opts ? opts->axis : 0, opts ? opts->epsilon : 0, 1e-6);
}

/* A vector of channels as a tensor of x's rank with 1 elsewhere. */
static tern_tensor *as_channels(const char *op, const char *what, tern_tensor *t, int argument, const tern_tensor *x,
                                int axis) {
  if (t == TERN_NONE) return t;
  if (!tern__usable(t, op, argument)) return NULL;
  char a[200];
  if (t->rank != 1 || t->shape[0] != x->shape[axis]) {
    tern__fail(TERN_E_ARG, "%s: %s has shape %s; it must be (%lld,), one a channel (axis %d)", op, what,
               tern__shape_text(a, t->rank, t->shape), (long long)x->shape[axis], axis);
    return NULL;
  }
  tern_shape shape = {.rank = x->rank - axis};
  for (int d = 0; d < shape.rank; d++) shape.dim[d] = d ? 1 : x->shape[axis];
  return tern_reshape(t, shape);
}

tern_tensor *tern_batch_norm(tern_tensor *x, tern_tensor *mean, tern_tensor *variance, tern_tensor *scale,
                             tern_tensor *offset, const tern_batch_norm_opts *opts) {
  const char *const op = "batch_norm";
  if (!tern__usable(x, op, 1)) return NULL;
  const int axis = tern__axis(op, opts && opts->axis ? opts->axis : -1, x->rank);
  tern_word attr[N_ATTRS] = {{.u = 0}, {.f = 0}, {.u = 0}};
  if (axis < 0 || !epsilon_of(op, opts ? opts->epsilon : 0, 1e-3, &attr[EPSILON])) return NULL;
  const bool given = mean != TERN_NONE;
  if (given != (variance != TERN_NONE)) {
    tern__fail(TERN_E_ARG,
               "batch_norm: of mean and variance only the %s is given; give both, or neither to use those of x",
               given ? "mean" : "variance");
    return NULL;
  }
  tern_tensor *const in[] = {x, as_channels(op, "scale", scale, 4, x, axis),
                             as_channels(op, "offset", offset, 5, x, axis), as_channels(op, "mean", mean, 2, x, axis),
                             as_channels(op, "variance", variance, 3, x, axis)};
  for (int i = 1; i < 5; i++)
    if (!in[i]) return NULL;
  if (!given) attr[AXES].u = bits(0, x->rank) & ~(UINT64_C(1) << axis);
  if (given || x->rank > 1) return tern__run(&tern__op_batch_norm, in, given ? 5 : 3, attr, N_ATTRS);
  tern__fail(TERN_E_ARG, "batch_norm: x has rank 1, all of it channels; there is no batch to take the mean of");
  return NULL;
}

/* The channels' axis of size C as two, [groups, C / groups]. */
static tern_shape grouped_shape(const tern_tensor *x, int axis, int64_t groups) {
  tern_shape shape = {.rank = x->rank + 1};
  for (int d = 0; d < x->rank; d++) shape.dim[d + (d > axis)] = x->shape[d];
  shape.dim[axis] = groups;
  shape.dim[axis + 1] = x->shape[axis] / groups;
  return shape;
}

tern_tensor *tern_group_norm(tern_tensor *x, int64_t groups, tern_tensor *scale, tern_tensor *offset,
                             const tern_group_norm_opts *opts) {
  const char *const op = "group_norm";
  if (!tern__usable(x, op, 1)) return NULL;
  const int axis = tern__axis(op, opts && opts->axis ? opts->axis : -1, x->rank);
  tern_word attr[N_ATTRS] = {{.u = 0}, {.f = 0}, {.u = 0}};
  if (axis < 0 || !epsilon_of(op, opts ? opts->epsilon : 0, 1e-3, &attr[EPSILON])) return NULL;
  char text[200];
  if (axis == 0 || x->rank == TERN_MAX_RANK || groups < 1 || x->shape[axis] % groups) {
    tern__fail(TERN_E_ARG,
               "group_norm: %lld groups of the channels at axis %d of shape %s: axis 0 is the batch, the rank at most "
               "%d, and the "
               "groups must divide the channels",
               (long long)groups, axis, tern__shape_text(text, x->rank, x->shape), TERN_MAX_RANK - 1);
    return NULL;
  }
  tern_tensor *s = as_channels(op, "scale", scale, 3, x, axis), *o = as_channels(op, "offset", offset, 4, x, axis);
  tern_shape shape = grouped_shape(x, axis, groups), channels = {.rank = shape.rank - axis};
  for (int d = 0; d < channels.rank; d++) channels.dim[d] = d < 2 ? shape.dim[axis + d] : 1;
  if (s && s != TERN_NONE) s = tern_reshape(s, channels);
  if (o && o != TERN_NONE) o = tern_reshape(o, channels);
  tern_tensor *const in[] = {tern_reshape(x, shape), s, o};
  if (!in[0] || !s || !o) return NULL;
  attr[AXES].u = bits(1, shape.rank) & ~(UINT64_C(1) << axis);
  tern_tensor *y = tern__run(&tern__op_group_norm, in, 3, attr, N_ATTRS);
  return tern_reshape(y, tern_shape_of(x->rank, x->shape));
}
