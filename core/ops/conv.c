/* Convolution: three ops that are one trilinear form seen from three sides. conv makes y of x and w, conv_dx makes x of
   y and w, conv_dw makes w of x and y; so each one's gradients are the other two. They share their attributes, which
   hold the spatial sizes of the result: nothing has to be derived back from padding. Layouts are strides: an NHWC
   tensor goes to the device as NCHW with its own strides. */
#include "device/device.h"
#include "dispatch/dispatch.h"
#include "ops/table.h"
#include "tensor/dtype.h"
#include <tern/ops.h>

enum { X, W, Y }; /* x [N, C, I..], w [O, C/G, K..], y [N, O, J..] */
enum {
  A_LAYOUT,
  A_GROUPS,
  A_SPACE,
  A_RESULT = A_SPACE + 6,
  N_ATTRS = A_RESULT + 2
};                                      /* SPACE: stride, dilation, pad before, twice */
enum { S_N, S_C, S_O, S_PER, S_SPACE }; /* places in the request's sizes; then the spatial sizes of x, y and w */

/* Which arrays an op takes and makes. */
static const uint8_t roles[][3] = {{X, W, Y}, {Y, W, X}, {X, Y, W}};
static const uint8_t *roles_of(const tern__op *op) { return roles[op->prim - TERN_OP_CONV]; }

/* Public axis of the device's dim d. */
static int axis_of(int role, tern_layout layout, int dims, int d) {
  if (layout == TERN_NCHW) return d;
  if (d >= 2) return d - 2 + (role != W);
  return role == W ? dims + 1 - d : d ? dims + 1 : 0;
}

static const uint8_t *places_of(int role, int dims, uint8_t *place) {
  static const uint8_t first[][2] = {[X] = {S_N, S_C}, [W] = {S_O, S_PER}, [Y] = {S_N, S_O}};
  const int space = S_SPACE + (role == X ? 0 : role == Y ? 1 : 2) * dims;
  place[0] = first[role][0];
  place[1] = first[role][1];
  for (int d = 0; d < dims; d++) place[2 + d] = (uint8_t)(space + d);
  return place;
}

static void operand(tern__request *q, int i, int role, tern_layout layout, int dims, tern_tensor *t, tern_dtype dtype) {
  tern__operand *a = &q->arg[i];
  *a = (tern__operand){.kind = t ? TERN_V_IN : TERN_V_OUT,
                       .dtype = (uint8_t)dtype,
                       .rank = (uint8_t)(dims + 2),
                       .storage = t ? t->storage : NULL,
                       .offset = t ? t->offset : 0};
  uint64_t step[TERN_MAX_RANK],
      next = 1; /* of a fresh output: row-major in its public layout; too large a shape is refused later */
  places_of(role, dims, a->dim);
  int dim_at[TERN_MAX_RANK];
  for (int d = 0; d < dims + 2; d++) dim_at[axis_of(role, layout, dims, d)] = d;
  for (int axis = dims + 2; axis-- > 0;) {
    step[axis] = next;
    next *= (uint64_t)q->size[a->dim[dim_at[axis]]];
  }
  for (int d = 0; d < dims + 2; d++) {
    const int axis = axis_of(role, layout, dims, d);
    a->stride[d] = t ? t->stride[axis] : (int64_t)step[axis];
  }
}

static tern_rc misfit(const tern__call *c) {
  char a[200], b[200];
  return tern__fail(TERN_E_ARG, "%s: %s and %s do not fit", c->op->name,
                    tern__shape_text(a, c->in[0]->rank, c->in[0]->shape),
                    tern__shape_text(b, c->in[1]->rank, c->in[1]->shape));
}

/* The sizes that tensor i has; a size that two have must agree. */
static bool sizes_of(const tern__call *c, tern__request *q, int i, tern_layout layout, int dims) {
  uint8_t place[TERN_MAX_RANK];
  const int role = roles_of(c->op)[i];
  places_of(role, dims, place);
  for (int d = 0; d < dims + 2; d++) {
    const int64_t have = c->in[i]->shape[axis_of(role, layout, dims, d)];
    if (q->size[place[d]] >= 0 && q->size[place[d]] != have) return false;
    q->size[place[d]] = have;
  }
  return true;
}

static tern_rc infer_conv(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_dtype d = tern__meet(c, 0, 2);
  const tern_rc rc = tern__check_dtype(c, d);
  if (rc) return rc;
  if (c->in[0]->rank != c->in[1]->rank || c->in[0]->rank < 3 || c->in[0]->rank > 4 || c->n_attr != N_ATTRS)
    return misfit(c);
  const int dims = c->in[0]->rank - 2;
  const tern_layout layout = (tern_layout)c->attr[A_LAYOUT].i;
  const int64_t groups = c->attr[A_GROUPS].i;
  const uint8_t *role = roles_of(c->op);
  q->n_space = 0;
  q->n_sizes = (uint8_t)(S_SPACE + 3 * dims);
  for (int i = 0; i < q->n_sizes; i++) {
    q->size[i] = -1;
    q->role[i] = TERN__ROLE_FIXED;
  }
  if (!sizes_of(c, q, 0, layout, dims) || !sizes_of(c, q, 1, layout, dims)) return misfit(c);
  if (q->size[S_C] < 0 && __builtin_mul_overflow(q->size[S_PER], groups, &q->size[S_C])) return misfit(c);
  if (q->size[S_PER] < 0) q->size[S_PER] = q->size[S_C] / groups;
  if (q->size[S_C] != q->size[S_PER] * groups || q->size[S_O] % groups) return misfit(c);
  uint8_t place[TERN_MAX_RANK];
  places_of(role[2], dims, place);
  for (int i = 0; i < dims; i++) q->size[place[2 + i]] = c->attr[A_RESULT + i].i;
  for (int i = 0; i < 2; i++) {
    operand(q, i, role[i], layout, dims, c->in[i], (tern_dtype)c->in[i]->dtype);
    if (c->in[i]->dtype != d) q->want[i] = (uint8_t)d;
  }
  operand(q, 2, role[2], layout, dims, NULL, d);
  q->dtype = (uint8_t)d;
  q->n_attrs = (uint8_t)(2 + 3 * dims);
  q->attr[0].i = dims;
  q->attr[1].i = groups;
  for (int i = 0; i < 3 * dims; i++) q->attr[2 + i] = c->attr[A_SPACE + i];
  r->dtype = d;
  r->rank = dims + 2;
  for (int k = 0; k < dims + 2; k++) r->shape[axis_of(role[2], layout, dims, k)] = q->size[place[k]];
  return TERN_OK;
}

/* The gradient with respect to an operand is the op that makes that array of the other two. */
static void grad_conv(const tern__grad *g, tern_tensor **din) {
  static const tern__op *const makes[] = {[X] = &tern__op_conv_dx, [W] = &tern__op_conv_dw, [Y] = &tern__op_conv};
  const uint8_t *role = roles_of(g->op);
  tern_tensor *array[3];
  array[role[0]] = g->in[0];
  array[role[1]] = g->in[1];
  array[role[2]] = g->dout[0];
  for (int i = 0; i < 2; i++) {
    if (!(g->wanted >> i & 1)) continue;
    const int dims = g->in[i]->rank - 2;
    tern_word attr[N_ATTRS];
    memcpy(attr, g->attr, sizeof attr);
    for (int d = 0; d < dims; d++)
      attr[A_RESULT + d].i = g->in[i]->shape[axis_of(role[i], (tern_layout)attr[A_LAYOUT].i, dims, 2 + d)];
    const tern__op *op = makes[role[i]];
    tern_tensor *const in[] = {array[roles_of(op)[0]], array[roles_of(op)[1]]};
    din[i] = tern__run(op, in, 2, attr, N_ATTRS);
  }
}

static tern_tensor *sample_conv(const tern__sample *s) {
  return tern_conv(tern_expand_dims(s->x, 0), tern_expand_dims(tern_transpose(s->y), 0), NULL);
}

static tern_tensor *sample_conv_dx(const tern__sample *s) {
  return tern_conv_transpose(tern_expand_dims(s->x, 0), tern_expand_dims(s->y, 0), NULL);
}

/* One position, no groups; the sizes of the filters come last. */
static tern_tensor *sample_conv_dw(const tern__sample *s) {
  static const tern_word attr[N_ATTRS] = {{0}, {1}, {1}, {1}, {0}, {1}, {1}, {0}, {1}, {1}};
  tern_tensor *const in[] = {tern_expand_dims(s->x, 0), tern_expand_dims(s->y, 0)};
  return tern__run(s->op, in, 2, attr, N_ATTRS);
}

#define CONV(id, primitive, takes, text)                                \
  const tern__op tern__op_##id = {.name = #id,                          \
                                  .family = "conv",                     \
                                  .operands = takes,                    \
                                  .doc = text,                          \
                                  .prim = primitive,                    \
                                  .number = TERN__N_##id,               \
                                  .sample = sample_##id,                \
                                  .dtypes = TERN_D_FLOAT,               \
                                  .infer = infer_conv,                  \
                                  .lower = tern__lower_prim,            \
                                  .grad = grad_conv,                    \
                                  .keeps = TERN__KEEP_A | TERN__KEEP_B, \
                                  .absolute = 1e-4,                     \
                                  .relative = 1e-4,                     \
                                  .ulp = 840}
CONV(conv, TERN_OP_CONV, "x, filters", "convolution over 1 or 2 axes, with stride, dilation, padding and groups");
CONV(conv_dx, TERN_OP_CONV_DX, "y, filters", "conv's gradient with respect to x (behind conv_transpose)");
CONV(conv_dw, TERN_OP_CONV_DW, "x, y", "conv's gradient with respect to the filters (behind conv)");
#undef CONV

/* ---- the public functions ---- */

typedef struct {
  const char *name;
  tern_layout layout;
  int dims;
  int64_t groups, in[2], taps[2]; /* in: the spatial sizes of the public function's x */
  const tern_conv_opts *opts;
  tern_word *attr;
} setting;

/* One number of the options: 0 means 1. */
static bool count_of(const setting *s, const char *what, int64_t given, int64_t *to) {
  *to = given ? given : 1;
  if (*to >= 1 && *to <= INT32_MAX) return true;
  tern__fail(TERN_E_ARG, "%s: %s is %lld; it must be at least 1 (0 means 1)", s->name, what, (long long)given);
  return false;
}

/* How far a filter of `taps` reaches; false: more than there are numbers. */
static bool reach(int64_t taps, int64_t dilation, int64_t *to) {
  return !__builtin_mul_overflow(taps - 1, dilation, to) && !__builtin_add_overflow(*to, 1, to) && *to < INT64_MAX / 8;
}

static bool check_shapes(setting *s, const tern_tensor *x, const tern_tensor *w, bool transposed) {
  char a[200], b[200];
  tern__shape_text(a, x->rank, x->shape);
  tern__shape_text(b, w->rank, w->shape);
  if (x->rank != w->rank || x->rank < 3 || x->rank > 4) {
    tern__fail(TERN_E_ARG, "%s: x %s and filters %s; both must have rank 3 (one spatial axis) or 4 (two)", s->name, a,
               b);
    return false;
  }
  s->dims = x->rank - 2;
  const int64_t channels = x->shape[axis_of(X, s->layout, s->dims, 1)], o = w->shape[axis_of(W, s->layout, s->dims, 0)],
                per = w->shape[axis_of(W, s->layout, s->dims, 1)];
  int64_t all;
  if (o % s->groups || __builtin_mul_overflow(per, s->groups, &all)) {
    tern__fail(TERN_E_ARG, "%s: the %lld %s channels of filters %s do not divide into %lld groups", s->name,
               (long long)o, transposed ? "input" : "output", b, (long long)s->groups);
    return false;
  }
  if (channels != (transposed ? o : all)) {
    tern__fail(TERN_E_ARG, "%s: x %s has %lld channels, filters %s take %lld (%s, %lld group%s)", s->name, a,
               (long long)channels, b, (long long)(transposed ? o : all), s->layout == TERN_NCHW ? "NCHW" : "NHWC",
               (long long)s->groups, s->groups == 1 ? "" : "s; filters hold those of one");
    return false;
  }
  for (int d = 0; d < s->dims; d++) {
    s->in[d] = x->shape[axis_of(X, s->layout, s->dims, 2 + d)];
    s->taps[d] = w->shape[axis_of(W, s->layout, s->dims, 2 + d)];
    if (s->taps[d] > 0) continue;
    tern__fail(TERN_E_ARG, "%s: filters %s have no taps along spatial axis %d", s->name, b, d);
    return false;
  }
  return true;
}

/* Of spatial axis d: what is asked for, checked. */
static bool read_axis(const setting *s, int d, int64_t *stride, int64_t *dilation, tern_padding *pad) {
  static const tern_conv_opts none;
  const tern_conv_opts *o = s->opts ? s->opts : &none;
  const int from = d && !o->strides[d] ? 0 : d, spread = d && !o->dilations[d] ? 0 : d; /* a 0 repeats the first */
  if (!count_of(s, "a stride", o->strides[from], stride) || !count_of(s, "a dilation", o->dilations[spread], dilation))
    return false;
  if (o->padding != TERN_PAD_EXPLICIT && (o->pads[d].before || o->pads[d].after)) {
    tern__fail(TERN_E_ARG,
               "%s: pads are given along spatial axis %d, but the padding is %s; set .padding = TERN_PAD_EXPLICIT",
               s->name, d, o->padding == TERN_PAD_SAME ? "TERN_PAD_SAME" : "TERN_PAD_VALID");
    return false;
  }
  *pad = o->padding == TERN_PAD_EXPLICIT ? o->pads[d] : (tern_padding){0, 0};
  if (pad->before >= 0 && pad->after >= 0 && pad->before <= INT32_MAX && pad->after <= INT32_MAX) return true;
  tern__fail(TERN_E_ARG, "%s: padding of (%lld, %lld) along spatial axis %d; it must not be negative", s->name,
             (long long)pad->before, (long long)pad->after, d);
  return false;
}

static bool same(const setting *s) { return s->opts && s->opts->padding == TERN_PAD_SAME; }

static void set_axis(const setting *s, int d, int64_t stride, int64_t dilation, int64_t before, int64_t result) {
  s->attr[A_SPACE + 3 * d].i = stride;
  s->attr[A_SPACE + 3 * d + 1].i = dilation;
  s->attr[A_SPACE + 3 * d + 2].i = before;
  s->attr[A_RESULT + d].i = result;
}

/* out: as TensorFlow counts (SAME: ceil(in / stride)); else floor((in + padding - reach) / stride) + 1 */
static bool forward_axis(const setting *s, int d) {
  int64_t stride, dilation, far, out;
  tern_padding pad;
  if (!read_axis(s, d, &stride, &dilation, &pad)) return false;
  if (s->opts && s->opts->output_padding[d]) {
    tern__fail(TERN_E_ARG, "%s: output_padding is of tern_conv_transpose only", s->name);
    return false;
  }
  const bool fits = reach(s->taps[d], dilation, &far) && s->in[d] < INT64_MAX / 8;
  if (fits && same(s)) {
    out = (s->in[d] + stride - 1) / stride;
    const int64_t total = (out - 1) * stride + far - s->in[d];
    pad.before = total > 0 ? total / 2 : 0;
  } else {
    const int64_t room = fits ? s->in[d] + pad.before + pad.after - far : -1;
    out = room < 0 ? 0 : room / stride + 1;
  }
  if (!fits || out < 1) {
    tern__fail(TERN_E_ARG,
               "%s: the result would be empty: spatial axis %d is %lld long, padding (%lld, %lld), and the filters' "
               "%lld taps reach"
               " over %lld; pad more or use TERN_PAD_SAME",
               s->name, d, (long long)s->in[d], (long long)pad.before, (long long)pad.after, (long long)s->taps[d],
               fits ? (long long)far : -1LL);
    return false;
  }
  set_axis(s, d, stride, dilation, pad.before, out);
  return true;
}

/* The input of a convolution whose output is `in` long: SAME in * stride, else (in - 1) * stride + reach - padding +
   output_padding */
static bool transposed_axis(const setting *s, int d) {
  int64_t stride, dilation, far, out = 0;
  tern_padding pad;
  if (!read_axis(s, d, &stride, &dilation, &pad)) return false;
  const int64_t more = s->opts ? s->opts->output_padding[d] : 0;
  if (more < 0 || (more >= stride && more >= dilation) || (more && same(s))) {
    tern__fail(
        TERN_E_ARG,
        "%s: output_padding %lld along spatial axis %d; it must be less than the stride or the dilation, and 0 with "
        "TERN_PAD_SAME",
        s->name, (long long)more, d);
    return false;
  }
  const bool fits =
      reach(s->taps[d], dilation, &far) && !__builtin_mul_overflow(s->in[d], stride, &out) && out < INT64_MAX / 8;
  if (fits && same(s)) {
    const int64_t total = far - stride; /* (in - 1) * stride + far - in * stride */
    pad.before = total > 0 ? total / 2 : 0;
  } else if (fits) {
    out += far - stride - pad.before - pad.after + more;
  }
  if (!fits || s->in[d] < 1 || out < 1) {
    tern__fail(TERN_E_ARG,
               "%s: the result would be empty or too large along spatial axis %d: %lld long, stride %lld, padding "
               "(%lld, %lld)",
               s->name, d, (long long)s->in[d], (long long)stride, (long long)pad.before, (long long)pad.after);
    return false;
  }
  set_axis(s, d, stride, dilation, pad.before, out);
  return true;
}

static tern_tensor *convolution(const tern__op *op, const char *name, tern_tensor *x, tern_tensor *w,
                                const tern_conv_opts *opts) {
  if (!tern__usable(x, name, 1) || !tern__usable(w, name, 2)) return NULL;
  const bool transposed = op == &tern__op_conv_dx;
  tern_word attr[N_ATTRS] = {{.i = 0}};
  setting s = {.name = name, .layout = opts ? opts->layout : TERN_NHWC, .opts = opts, .attr = attr};
  if ((s.layout != TERN_NHWC && s.layout != TERN_NCHW) ||
      (opts && (opts->padding < TERN_PAD_VALID || opts->padding > TERN_PAD_EXPLICIT))) {
    tern__fail(TERN_E_ARG, "%s: layout %d or padding %d is none of the known", name, (int)s.layout,
               opts ? (int)opts->padding : 0);
    return NULL;
  }
  if (!count_of(&s, "groups", opts ? opts->groups : 0, &s.groups) || !check_shapes(&s, x, w, transposed)) return NULL;
  attr[A_LAYOUT].i = s.layout;
  attr[A_GROUPS].i = s.groups;
  set_axis(&s, 1, 1, 1, 0, 1);
  for (int d = 0; d < s.dims; d++)
    if (!(transposed ? transposed_axis(&s, d) : forward_axis(&s, d))) return NULL;
  const tern_dtype common = tern__float_of(tern__promote((tern_dtype)x->dtype, (tern_dtype)w->dtype));
  tern_tensor *const in[] = {x->dtype == common ? x : tern_cast(x, common),
                             w->dtype == common ? w : tern_cast(w, common)};
  return in[0] && in[1] ? tern__run(op, in, 2, attr, N_ATTRS) : NULL;
}

tern_tensor *tern_conv(tern_tensor *x, tern_tensor *filters, const tern_conv_opts *opts) {
  return convolution(&tern__op_conv, "conv", x, filters, opts);
}

tern_tensor *tern_conv_transpose(tern_tensor *x, tern_tensor *filters, const tern_conv_opts *opts) {
  return convolution(&tern__op_conv_dx, "conv_transpose", x, filters, opts);
}
