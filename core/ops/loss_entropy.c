/* Cross-entropy: a softmax, its logarithm, the pick of the label and the mean over the examples as one region; its
   gradient (softmax - target) as another. A label out of range is an error where the host can read the labels at once
   (a device without a queue), and where they are an operand of a compiled function there (graph/labels.h); elsewhere it
   makes the example's loss and gradient NaN. */
#include "device/device.h"
#include "dispatch/dispatch.h"
#include "ops/composite.h"
#include "ops/loss.h"
#include <math.h>

/* Attributes of a call. FORM is a mask of the flags; the target is ON * label + OFF; each value is multiplied by
   FACTOR. */
enum { AXIS, FORM, FACTOR, ON, OFF, IGNORED, N_ATTRS };
enum { DENSE = 1, WHOLE = 2 /* summed over all examples */, SMOOTH = 4, IGNORE = 8, WIDE_INDEX = 16 };
/* Operands of a request: logits, labels, (gradient: dout,) factor, then on and off, then the ignored class where the
   form has them. */

static tern_rc infer_into(const tern__call *c, tern__request *q, tern_dtype *d) {
  const uint64_t form = c->attr[FORM].u;
  const int axis = (int)c->attr[AXIS].i;
  *d = tern__float_of(tern__meet(c, 0, form & DENSE ? 2 : 1));
  const tern_rc rc = tern__space(c, q);
  if (rc) return rc;
  const tern_dtype wide = tern__wide(*d);
  q->role[axis] = TERN__ROLE_REDUCED;
  q->dtype = (uint8_t)*d;
  q->n_attrs = 1;
  q->attr[0].u = form | (q->size[axis] > INT32_MAX ? WIDE_INDEX : 0);
  tern__c_operand(q, 0, c->in[0], *d);
  tern__c_operand(q, 1, c->in[1], form & DENSE ? *d : TERN_I64);
  int n = 2;
  if (c->n_in > 2) tern__c_operand(q, n++, c->in[2], *d);
  tern__c_param(q, n++, wide, c->attr[FACTOR].f);
  if (form & SMOOTH) {
    tern__c_param(q, n++, wide, c->attr[ON].f);
    tern__c_param(q, n++, wide, c->attr[OFF].f);
  }
  if (form & IGNORE) tern__operand_param(q, n++, TERN_I64, c->attr[IGNORED]);
  q->n_in = (uint8_t)n;
  return TERN_OK;
}

static tern_rc infer_entropy(const tern__call *c, tern__request *q, tern__result *r) {
  tern_dtype d;
  const tern_rc rc = infer_into(c, q, &d);
  if (rc) return rc;
  const bool whole = c->attr[FORM].u & WHOLE;
  *r = (tern__result){.dtype = d};
  for (int k = 0; k < q->n_space && !whole; k++)
    if (k != c->attr[AXIS].i) r->shape[r->rank++] = q->size[k];
  tern__operand_out(q, 0, d, whole ? (1u << q->n_space) - 1 : 1u << c->attr[AXIS].i);
  return TERN_OK;
}

static tern_rc infer_entropy_grad(const tern__call *c, tern__request *q, tern__result *r) {
  tern_dtype d;
  const tern_rc rc = infer_into(c, q, &d);
  if (rc) return rc;
  tern__result_space(q, r, d);
  tern__operand_out(q, 0, d, 0);
  return TERN_OK;
}

/* ---- lowering ---- */

static uint32_t class_mask(const tern__request *q) {
  uint32_t mask = 0;
  for (int d = 0; d < q->n_space; d++) mask |= (uint32_t)(q->role[d] == TERN__ROLE_REDUCED) << d;
  return mask;
}

/* What both regions begin with. */
typedef struct parts {
  uint64_t form;
  int x, top;            /* logits and their maximum */
  int shifted;           /* logits - their maximum */
  int exponentials, sum; /* exp(shifted), and its sum */
  int target;            /* DENSE: on * labels + off */
  int is_label;          /* sparse: bool, where the class is the label */
  int label;             /* sparse: int64, one a row */
  int dout, factor, on, off, ignored;
} parts;

static parts begin(tern__builder *b, bool gradient) {
  const tern__request *q = tern__b_request(b);
  parts p = {.form = q->attr[0].u};
  int next = 2;
  p.x = tern__c_in(b, 0);
  p.top = tern__c_max(b, p.x);
  p.shifted = tern__c_sub(b, p.x, p.top);
  p.exponentials = tern__c_exp(b, p.shifted);
  p.sum = tern__c_sum(b, p.exponentials);
  if (gradient) p.dout = tern__c_in(b, next++);
  p.factor = tern__b_in(b, next++);
  if (p.form & SMOOTH) {
    p.on = tern__b_in(b, next++);
    p.off = tern__b_in(b, next++);
  }
  if (p.form & IGNORE) p.ignored = tern__b_in(b, next);
  if (p.form & DENSE) {
    p.target = tern__c_in(b, 1);
    if (p.form & SMOOTH) p.target = tern__c_add(b, tern__c_mul(b, p.target, p.on), p.off);
    return p;
  }
  p.label = tern__b_in(b, 1);
  const tern_dtype index = p.form & WIDE_INDEX ? TERN_I64 : TERN_I32; /* narrow where it runs over the classes */
  p.is_label = tern__b_map2(b, TERN_OP_EQ, tern__b_iota(b, __builtin_ctz(class_mask(q)), index),
                            tern__b_cast(b, p.label, index));
  return p;
}

/* One value a row: NaN where the label is no class, 0 where it is the ignored one. */
static int checked(tern__builder *b, const parts *p, int row) {
  if (p->form & DENSE) return row;
  const int classes = tern__b_count(b, p->shifted, TERN_I64);
  const int valid = tern__b_map2(b, TERN_OP_AND, tern__b_map2(b, TERN_OP_GE, p->label, tern__c_const(b, p->label, 0)),
                                 tern__b_map2(b, TERN_OP_LT, p->label, classes));
  row = tern__b_where(b, valid, row, tern__c_const(b, row, NAN));
  if (!(p->form & IGNORE)) return row;
  return tern__b_where(b, tern__b_map2(b, TERN_OP_EQ, p->label, p->ignored), tern__c_const(b, row, 0), row);
}

/* log(sum exp(z)) sum(target) - sum(target z), z = logits - maximum; the target of a label sums to 1 */
static void lower_entropy(tern__builder *b) {
  const tern__request *q = tern__b_request(b);
  const parts p = begin(b, false);
  int row = tern__b_map1(b, TERN_OP_LOG, p.sum);
  if (p.form & DENSE) {
    row = tern__c_mul(b, row, tern__c_sum(b, p.target));
    row = tern__c_sub(b, row, tern__c_sum(b, tern__c_mul(b, p.target, p.shifted)));
  } else {
    /* of x, not of shifted: so it shares the first pass over the row with the maximum, and the one with the
       exponentials stays plain */
    int picked = tern__c_sum(b, tern__b_where(b, p.is_label, p.x, tern__c_const(b, p.x, 0)));
    picked = tern__c_sub(b, picked, p.top);
    if (p.form & SMOOTH)
      picked = tern__c_add(b, tern__c_mul(b, picked, p.on), tern__c_mul(b, tern__c_sum(b, p.shifted), p.off));
    row = tern__c_sub(b, row, picked);
  }
  row = tern__c_mul(b, checked(b, &p, row), p.factor);
  const tern_word examples = {.u = ((1u << q->n_space) - 1) & ~class_mask(q)};
  if (p.form & WHOLE && examples.u) row = tern__b_node(b, TERN_OP_SUM, 1, &row, 0, 1, &examples);
  tern__b_out(b, 0, row);
}

/* (softmax sum(target) - target) dout factor */
static void lower_entropy_grad(tern__builder *b) {
  const parts p = begin(b, true);
  const int each = checked(b, &p, tern__c_mul(b, p.dout, p.factor));
  int share = tern__c_div(b, p.exponentials, p.sum), target;
  if (p.form & DENSE) {
    share = tern__c_mul(b, share, tern__c_sum(b, p.target));
    target = p.target;
  } else {
    const int high = p.form & SMOOTH ? tern__c_add(b, p.on, p.off) : tern__c_const(b, share, 1);
    target = tern__b_where(b, p.is_label, high, p.form & SMOOTH ? p.off : tern__c_const(b, share, 0));
  }
  tern__b_out(b, 0, tern__c_mul(b, tern__c_sub(b, share, target), each));
}

/* ---- gradients ---- */

static bool wants(const tern__grad *g, int i) { return g->wanted >> i & 1; }

static void grad_entropy(const tern__grad *g, tern_tensor **din) {
  const int axis = (int)g->attr[AXIS].i;
  tern_tensor *dout = g->attr[FORM].u & WHOLE ? g->dout[0] : tern_expand_dims(g->dout[0], axis);
  if (wants(g, 0)) {
    tern_tensor *const in[] = {g->in[0], g->in[1], dout};
    din[0] = tern__run(&tern__op_cross_entropy_grad, in, 3, g->attr, N_ATTRS);
  }
  if (wants(g, 1) && g->attr[FORM].u & DENSE)
    din[1] =
        tern_mul(tern_log_softmax(g->in[0], axis), tern_mul(dout, tern_scalar(-g->attr[FACTOR].f * g->attr[ON].f)));
}

/* dout factor a row, 0 for ignored ones. */
static tern_tensor *share_of(const tern__grad *g) {
  tern_tensor *each = tern_mul(g->in[2], tern_scalar(g->attr[FACTOR].f));
  if (!(g->attr[FORM].u & IGNORE)) return each;
  return tern_where(tern_equal(g->in[1], tern_scalar_int(g->attr[IGNORED].i)), tern_scalar(0), each);
}

/* u comes to G = (p sum(t) - t) c, p = softmax(x), c = dout factor. To x: c sum(t) softmax_grad(p, u); to dout: u G at
   dout = 1; to dense labels: c on (sum(u p) - u). */
static void grad_entropy_grad(const tern__grad *g, tern_tensor **din) {
  const int axis = (int)g->attr[AXIS].i;
  const tern_reduce_opts classes = {.axes = &axis, .n_axes = 1, .keepdims = 1};
  const bool dense = g->attr[FORM].u & DENSE;
  tern_tensor *u = g->dout[0];
  if (wants(g, 0)) {
    tern_tensor *p = tern_softmax(g->in[0], axis), *each = share_of(g);
    if (dense) {
      const int along = axis < 0 ? axis + g->in[0]->rank : axis;
      const double spread = g->attr[OFF].f * (double)g->in[0]->shape[along];
      tern_tensor *mass =
          tern_add(tern_mul(tern_sum(g->in[1], &classes), tern_scalar(g->attr[ON].f)), tern_scalar(spread));
      each = tern_mul(each, mass);
    }
    tern_tensor *const in[] = {p, u};
    const tern_word attr = {.i = axis};
    din[0] = tern_mul(each, tern__run(&tern__op_softmax_grad, in, 2, &attr, 1));
  }
  if (wants(g, 1) && dense) {
    tern_tensor *back = tern_sub(tern_sum(tern_mul(u, tern_softmax(g->in[0], axis)), &classes), u);
    din[1] = tern_mul(back, tern_mul(g->in[2], tern_scalar(g->attr[FACTOR].f * g->attr[ON].f)));
  }
  if (wants(g, 2)) {
    tern_tensor *const in[] = {g->in[0], g->in[1], tern_scalar(1)};
    din[2] = tern_mul(u, tern__run(&tern__op_cross_entropy_grad, in, 3, g->attr, N_ATTRS));
  }
}

/* ---- binary ---- */

static void lower_binary(tern__builder *b) {
  const int x = tern__c_in(b, 0), target = tern__c_in(b, 1);
  const int size = tern__b_map1(b, TERN_OP_ABS, x);
  const int tail = tern__b_map1(b, TERN_OP_LOG1P, tern__c_exp(b, tern__b_map1(b, TERN_OP_NEG, size)));
  const int slope =
      tern__c_sub(b, tern__b_map2(b, TERN_OP_MAXIMUM, x, tern__c_const(b, x, 0)), tern__c_mul(b, x, target));
  tern__b_out(b, 0, tern__c_add(b, slope, tail));
}

static void grad_binary(const tern__grad *g, tern_tensor **din) {
  if (wants(g, 0)) din[0] = tern_mul(g->dout[0], tern_sub(tern_sigmoid(g->in[0]), g->in[1]));
  if (wants(g, 1)) din[1] = tern_neg(tern_mul(g->dout[0], g->in[0]));
}

/* Dense labels. */
static tern_tensor *sample_entropy(const tern__sample *s) {
  tern_tensor *const in[] = {s->x, s->y, s->x};
  const tern_word attr[N_ATTRS] = {{.i = 1}, {.u = DENSE}, {.f = 1}, {.f = 1}, {.f = 0}, {.u = 0}};
  return tern__run(s->op, in, s->op == &tern__op_cross_entropy ? 2 : 3, attr, N_ATTRS);
}

#define ENTROPY(id, args, inference, lowering, rule, kept, sampled, tolerance, text) \
  const tern__op tern__op_##id = {.name = #id,                                       \
                                  .family = "loss",                                  \
                                  .operands = args,                                  \
                                  .doc = text,                                       \
                                  .number = TERN__N_##id,                            \
                                  .sample = sampled,                                 \
                                  .dtypes = TERN_D_FLOAT,                            \
                                  .infer = inference,                                \
                                  .lower = lowering,                                 \
                                  .grad = rule,                                      \
                                  .keeps = kept,                                     \
                                  .absolute = tolerance,                             \
                                  .relative = tolerance,                             \
                                  .ulp = (tolerance) / 1.2e-7};
enum { KEEP_TWO = TERN__KEEP_A | TERN__KEEP_B };
ENTROPY(cross_entropy, "logits, labels", infer_entropy, lower_entropy, grad_entropy, KEEP_TWO, sample_entropy, 1e-5,
        "cross-entropy of logits with integer labels or with probabilities")
ENTROPY(cross_entropy_grad, "logits, labels, dy", infer_entropy_grad, lower_entropy_grad, grad_entropy_grad,
        KEEP_TWO | TERN__KEEP_C, sample_entropy, 4e-6,
        "the gradient of cross_entropy to the logits (behind cross_entropy)")
ENTROPY(sigmoid_cross_entropy, "logits, targets", tern__infer_floats, lower_binary, grad_binary, KEEP_TWO,
        tern__sample_xy, 2e-6, "max(x, 0) - x target + log(1 + exp(-|x|)) (behind binary_crossentropy)")

tern_tensor *tern__binary_entropy(tern_tensor *x, tern_tensor *target) {
  return tern__run2(&tern__op_sigmoid_cross_entropy, x, target);
}

/* ---- checks ---- */

/* Dense labels of the usual widths, all of them classes: a loop without branches. */
static bool all_in_range(const tern_tensor *labels, int64_t classes) {
  const char *data = labels->storage->host + (size_t)labels->offset * tern__dtype_size[labels->dtype];
  const uint64_t last = (uint64_t)classes - 1;
  uint64_t outside = 0; /* its sign bit: some are negative, or beyond the last */
  if (!(labels->flags & TERN__CONTIG)) return false;
  if (labels->dtype == TERN_I64) {
    const int64_t *x = (const int64_t *)(const void *)data;
    for (int64_t i = 0; i < labels->numel; i++) outside |= (uint64_t)x[i] | (last - (uint64_t)x[i]);
    return outside >> 63 == 0;
  }
  if (labels->dtype != TERN_I32) return false;
  const int32_t *x = (const int32_t *)(const void *)data;
  for (int64_t i = 0; i < labels->numel; i++) outside |= (uint64_t)(int64_t)x[i] | (last - (uint64_t)(int64_t)x[i]);
  return outside >> 63 == 0;
}

bool tern__labels_in_range(const char *op, const tern_tensor *labels, int64_t classes, const int64_t *ignored,
                           const char *function) {
  if (labels->flags & TERN__WEAK || labels->device->queue || !labels->storage || !labels->storage->host) return true;
  if (all_in_range(labels, classes)) return true;
  const size_t item = tern__dtype_size[labels->dtype];
  int64_t index[TERN_MAX_RANK] = {0};
  for (int64_t i = 0; i < labels->numel; i++) {
    int64_t at = labels->offset;
    for (int d = 0; d < labels->rank; d++) at += index[d] * labels->stride[d];
    const tern_word w = tern__load((tern_dtype)labels->dtype, labels->storage->host + (size_t)at * item);
    const bool too_large = labels->dtype == TERN_U64 && w.u > INT64_MAX;
    if ((too_large || w.i < 0 || w.i >= classes) && !(ignored && w.i == *ignored)) {
      tern__fail(TERN_E_ARG,
                 "%s: label %lld (number %lld%s%s%s) is no class: there are %lld, counted from 0; see ignore_class for "
                 "examples to leave out",
                 op, (long long)w.i, (long long)i, function ? " of an operand of function \"" : "",
                 function ? function : "", function ? "\"" : "", (long long)classes);
      return false;
    }
    for (int d = labels->rank; d-- > 0;) {
      if (++index[d] < labels->shape[d]) break;
      index[d] = 0;
    }
  }
  return true;
}

/* Labels that have no values yet are looked at when the trace runs. */
static bool in_range(const char *op, tern_tensor *labels, int64_t classes, const tern_loss_opts *opts) {
  const int64_t class = opts ? opts->ignore_class : 0, *ignored = opts && opts->ignore ? &class : NULL;
  if (labels->live == TERN__SYMBOLIC) return !tern__graph_listener.labels(tern__tls, op, labels, classes, ignored);
  return tern__labels_in_range(op, labels, classes, ignored, NULL);
}

bool tern__loss_opts_ok(const char *op, const tern_loss_opts *opts) {
  if (!opts) return true;
  if (!tern__optional(opts->weights)) return false;
  if ((int)opts->reduction < 0 || opts->reduction > TERN_LOSS_NONE) {
    tern__fail(TERN_E_ARG, "%s: reduction %d is none of TERN_LOSS_MEAN, TERN_LOSS_SUM, TERN_LOSS_NONE", op,
               (int)opts->reduction);
    return false;
  }
  if (opts->label_smoothing >= 0 && opts->label_smoothing <= 1) return true;
  tern__fail(TERN_E_ARG, "%s: label_smoothing is %g; it lies in [0, 1]", op, opts->label_smoothing);
  return false;
}

tern_tensor *tern__entropy(const char *op, tern_tensor *logits, tern_tensor *labels, int axis, bool sparse,
                           const tern_loss_opts *opts) {
  if (!labels) return NULL;
  const int64_t classes = logits->shape[axis];
  const bool ignore = sparse && opts && opts->ignore, weighted = opts && opts->weights && opts->weights != TERN_NONE;
  if (classes == 0) {
    tern__fail(TERN_E_ARG, "%s: there are no classes (axis %d is empty)", op, axis);
    return NULL;
  }
  if (sparse && !in_range(op, labels, classes, opts)) return NULL;
  const double smoothing = opts ? opts->label_smoothing : 0;
  const tern_loss_reduction how = opts ? opts->reduction : TERN_LOSS_MEAN;
  const bool small = tern_dtype_size(logits->dtype) < 4; /* 16-bit sums would be rounded before the mean */
  const double examples = (double)(logits->numel / classes);
  const bool whole = how != TERN_LOSS_NONE && !weighted && !small && !(ignore && how == TERN_LOSS_MEAN);
  const uint64_t form =
      (sparse ? 0 : DENSE) | (whole ? WHOLE : 0) | (smoothing > 0 ? SMOOTH : 0) | (ignore ? IGNORE : 0);
  const tern_word attr[N_ATTRS] = {{.i = axis},
                                   {.u = form},
                                   {.f = whole && how == TERN_LOSS_MEAN && examples > 0 ? 1 / examples : 1},
                                   {.f = 1 - smoothing},
                                   {.f = smoothing / (double)classes},
                                   {.i = ignore ? opts->ignore_class : 0}};
  tern_tensor *const in[] = {logits, labels};
  tern_tensor *loss = tern__run(&tern__op_cross_entropy, in, 2, attr, N_ATTRS);
  if (!loss || whole) return loss;
  tern_tensor *valid = ignore ? tern_squeeze(tern_not_equal(labels, tern_scalar_int(opts->ignore_class)), axis) : NULL;
  return ignore && !valid ? NULL : tern__loss_reduce(op, loss, valid, opts);
}

tern_tensor *tern_cross_entropy(tern_tensor *logits, tern_tensor *labels, const tern_loss_opts *opts) {
  const char *const op = "cross_entropy";
  if (!tern__usable(logits, op, 1) || !tern__usable(labels, op, 2) || !tern__loss_opts_ok(op, opts)) return NULL;
  const int axis = tern__axis(op, opts && opts->axis ? opts->axis : -1, logits->rank);
  if (axis < 0) return NULL;
  char a[200], b[200];
  const bool integers = tern__is_int((tern_dtype)labels->dtype);
  int64_t rest[TERN_MAX_RANK];
  int n = 0;
  for (int d = 0; d < logits->rank; d++)
    if (d != axis) rest[n++] = logits->shape[d];
  if (labels->rank == n && !memcmp(labels->shape, rest, (size_t)n * sizeof *rest)) {
    if (integers)
      return tern__entropy(op, logits, tern_expand_dims(tern__solid(labels, TERN_I64), axis), axis, true, opts);
    tern__fail(TERN_E_ARG,
               "cross_entropy: labels of one rank less are classes and must be integers; these are %s: tern_cast them",
               tern_dtype_name((tern_dtype)labels->dtype));
    return NULL;
  }
  if (labels->rank == logits->rank && !memcmp(labels->shape, logits->shape, logits->rank * sizeof *logits->shape))
    return tern__entropy(op, logits, labels, axis, false, opts);
  if (integers && labels->rank == logits->rank && labels->shape[axis] == 1) {
    bool fits = true;
    for (int d = 0; d < logits->rank; d++) fits &= d == axis || labels->shape[d] == logits->shape[d];
    if (fits) return tern__entropy(op, logits, labels, axis, true, opts);
  }
  tern__fail(TERN_E_ARG,
             "cross_entropy: labels of shape %s do not fit logits of shape %s with the classes at axis %d: give "
             "integer classes "
             "of the other axes' shape %s, or probabilities of the logits' shape",
             tern__shape_text(a, labels->rank, labels->shape), tern__shape_text(b, logits->rank, logits->shape), axis,
             tern__shape_text((char[200]){0}, n, rest));
  return NULL;
}
