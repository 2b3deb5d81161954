/* Pooling: a reduction over a sliding view. The request's input has the window's dims in front, then x's axes with the
   result's sizes; both walk the same memory, with the steps dilation * stride and step * stride, so windows overlap
   without a copy. Padding is a tern_pad before. max_pool, max_pool_index (where in x each largest one is) and avg_pool
   share their attributes; avg_pool can leave the sum undivided, which is what its gradient needs. */
#include "device/device.h"
#include "dispatch/dispatch.h"
#include "ops/scatter.h"
#include "ops/table.h"
#include "tensor/dtype.h"
#include <math.h>

enum { LAYOUT, SUM_ONLY, WINDOW, STEP = WINDOW + 2, DILATION = STEP + 2, N_ATTRS = DILATION + 2 };

/* First spatial axis; there are rank - 2 of them. */
static int first_of(int64_t layout) { return layout == TERN_NCHW ? 2 : 1; }

/* The space (window.., axes..), x's operand in it and the result; the caller adds output 0. */
static tern_rc sliding(const tern__call *c, tern__request *q, tern__result *r, tern_dtype want, tern_dtype out,
                       uint8_t role) {
  const tern_tensor *x = c->in[0];
  const int n = x->rank - 2, first = first_of(c->attr[LAYOUT].i);
  tern__operand *a = &q->arg[0];
  *a = (tern__operand){
      .kind = TERN_V_IN, .dtype = x->dtype, .rank = (uint8_t)(n + x->rank), .storage = x->storage, .offset = x->offset};
  q->n_space = q->n_sizes = a->rank;
  q->dtype = (uint8_t)want;
  q->want[0] = x->dtype == want ? 0 : (uint8_t)want;
  r->dtype = out;
  r->rank = x->rank;
  for (int d = 0; d < a->rank; d++) {
    const int axis = d < n ? first + d : d - n, s = axis - first;
    const bool space = s >= 0 && s < n;
    a->dim[d] = (uint8_t)d;
    q->role[d] = d < n ? TERN__ROLE_REDUCED : role;
    a->stride[d] = x->stride[axis];
    q->size[d] = d < n ? c->attr[WINDOW + s].i : x->shape[axis];
    if (space) {
      const int64_t window = c->attr[WINDOW + s].i, step = c->attr[STEP + s].i, dilation = c->attr[DILATION + s].i;
      a->stride[d] *= d < n ? dilation : step;
      if (d >= n) q->size[d] = (x->shape[axis] - (window - 1) * dilation - 1) / step + 1;
    }
    if (d >= n) r->shape[axis] = q->size[d];
  }
  tern__operand_out(q, 0, out, (1u << n) - 1);
  return TERN_OK;
}

static tern_rc infer_max(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_dtype d = (tern_dtype)c->in[0]->dtype;
  return sliding(c, q, r, d, d, TERN__ROLE_MAP);
}

static tern_rc infer_avg(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_dtype d = tern__float_of((tern_dtype)c->in[0]->dtype);
  q->n_attrs = 1;
  q->attr[0] = c->attr[SUM_ONLY];
  return sliding(c, q, r, d, d, TERN__ROLE_MAP);
}

static void lower_avg(tern__builder *b) {
  const tern__request *q = tern__b_request(b);
  const tern_dtype d = q->dtype == TERN_F64 ? TERN_F64 : TERN_F32;
  const int x = tern__b_cast(b, tern__b_in(b, 0), d), sum = tern__b_reduce(b, TERN_OP_SUM, x, d);
  tern__b_out(b, 0, q->attr[0].u ? sum : tern__b_map2(b, TERN_OP_DIV, sum, tern__b_count(b, x, d)));
}

/* ---- max_pool_index. Operands behind x: the window's columns (or one over them), what a row more than those columns
   adds to the place in x, what a column adds, then what one step along each axis of the result adds ---- */

enum { COLUMNS = 1, ROW_STEP, COLUMN_STEP, AXIS_STEP };
enum { FEW = 1 << 22 }; /* window elements up to which row_of is exact in float32 */

static tern_rc infer_index(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_tensor *x = c->in[0];
  const int n = x->rank - 2, first = first_of(c->attr[LAYOUT].i);
  const tern_rc rc = sliding(c, q, r, (tern_dtype)x->dtype, TERN_I64, TERN__ROLE_FIXED);
  if (rc) return rc;
  int64_t place[TERN_MAX_RANK], next = 1;
  for (int axis = x->rank; axis-- > 0; next *= x->shape[axis]) place[axis] = next;
  const int64_t columns = c->attr[WINDOW + n - 1].i, rows = n == 2 ? c->attr[WINDOW].i : 1;
  const int64_t column = place[first + n - 1] * c->attr[DILATION + n - 1].i, row = place[first] * c->attr[DILATION].i;
  const tern__operand out = q->arg[q->n_in];
  q->n_attrs = 1;
  q->attr[0].u = rows == 1 ? 0 : columns < FEW / rows ? 1 : 2;
  if (q->attr[0].u == 1)
    tern__operand_param(q, COLUMNS, TERN_F32,
                        tern__convert((tern_word){.f = 1.0 / (double)columns}, TERN_F64, TERN_F32));
  else
    tern__operand_param(q, COLUMNS, TERN_I64, (tern_word){.i = columns});
  tern__operand_param(q, ROW_STEP, TERN_I64, (tern_word){.i = row - columns * column});
  tern__operand_param(q, COLUMN_STEP, TERN_I64, (tern_word){.i = column});
  for (int axis = 0; axis < x->rank; axis++) {
    const bool space = axis >= first && axis < first + n;
    tern__operand_param(q, AXIS_STEP + axis, TERN_I64,
                        (tern_word){.i = place[axis] * (space ? c->attr[STEP + axis - first].i : 1)});
  }
  q->n_in = (uint8_t)(AXIS_STEP + x->rank);
  q->arg[q->n_in] = out;
  return TERN_OK;
}

/* at / columns. With few elements floor((at + 1/2) * (1 / columns)) is right in float32: the exact value is at least
   1 / (2 columns) away from an integer, and two roundings move it by less. */
static int row_of(tern__builder *b, int at) {
  const int columns = tern__b_in(b, COLUMNS);
  if (tern__b_request(b)->attr[0].u == 2) return tern__b_map2(b, TERN_OP_FLOORDIV, at, columns);
  const int middle = tern__b_map2(b, TERN_OP_ADD, tern__b_cast(b, at, TERN_F32), tern__b_const(b, TERN_F32, 0.5));
  return tern__b_cast(b, tern__b_map1(b, TERN_OP_FLOOR, tern__b_map2(b, TERN_OP_MUL, middle, columns)), TERN_I64);
}

static void lower_index(tern__builder *b) {
  const tern__request *q = tern__b_request(b);
  const int at = tern__b_reduce(b, TERN_OP_ARGMAX, tern__b_in(b, 0), TERN_I64);
  int begin = -1; /* where the window begins: last axes first, so that little is computed in full */
  for (int d = q->n_space, axis = q->n_in - AXIS_STEP; d-- > 0;) {
    if (q->role[d] != TERN__ROLE_FIXED) continue;
    axis--;
    const int term = tern__b_map2(b, TERN_OP_MUL, tern__b_iota(b, d, TERN_I64), tern__b_in(b, AXIS_STEP + axis));
    begin = begin < 0 ? term : tern__b_map2(b, TERN_OP_ADD, begin, term);
  }
  int inside = tern__b_map2(b, TERN_OP_MUL, at, tern__b_in(b, COLUMN_STEP));
  if (q->attr[0].u)
    inside = tern__b_map2(b, TERN_OP_ADD, inside, tern__b_map2(b, TERN_OP_MUL, row_of(b, at), tern__b_in(b, ROW_STEP)));
  tern__b_out(b, 0, tern__b_map2(b, TERN_OP_ADD, begin, inside));
}

/* ---- gradients ---- */

/* Windows that lie side by side: each element is in one window at most, so that what comes to it is found by comparing,
   without a place to look up. Sizes that vary (numbers beyond any real one) are left to the general way. */
enum { LARGEST = 1 << 24 };
static bool side_by_side(const tern__grad *g, int n, int first) {
  for (int s = 0; s < n; s++) {
    const int64_t window = g->attr[WINDOW + s].i, size = g->in[0]->shape[first + s];
    if (g->attr[STEP + s].i != window || (window > 1 && g->attr[DILATION + s].i != 1) || size > LARGEST ||
        window > 1024)
      return false;
  }
  return true;
}

/* t with each spatial axis as two, windows and places in a window; places: their sizes, else 1. */
static tern_tensor *by_window(const tern__grad *g, tern_tensor *t, int n, int first, bool places) {
  tern_shape shape = {0};
  for (int axis = 0; axis < t->rank; axis++) {
    const int s = axis - first;
    const int64_t window = s >= 0 && s < n && places ? g->attr[WINDOW + s].i : 1;
    shape.dim[shape.rank++] = t->shape[axis] / window;
    if (s >= 0 && s < n) shape.dim[shape.rank++] = window;
  }
  return tern_reshape(t, shape);
}

/* dy where x is the first of its window that is not less than the result. */
static tern_tensor *to_first(const tern__grad *g, int n, int first) {
  tern_tensor *x = g->in[0], *dy = g->dout[0];
  tern_range ranges[TERN_MAX_RANK];
  tern_shape places = {.rank = x->rank + n};
  int axes[2];
  int64_t count = 1;
  bool whole = true;
  for (int d = 0; d < places.rank; d++) places.dim[d] = 1;
  for (int axis = 0; axis < x->rank; axis++) ranges[axis] = TERN_ALL;
  for (int s = 0; s < n; s++) {
    const int64_t window = g->attr[WINDOW + s].i, used = dy->shape[first + s] * window;
    axes[s] = first + 2 * s + 1;
    places.dim[axes[s]] = window;
    count *= window;
    whole = whole && used == x->shape[first + s];
    ranges[first + s] = TERN_RANGE(0, used, 1);
  }
  tern_tensor *in = by_window(g, whole ? x : tern_slice(x, ranges, x->rank), n, first, true);
  tern_tensor *out = by_window(g, g->out[0], n, first, false);
  tern_tensor *place = tern_reshape(tern_arange(0, (double)count, 1, TERN_F32), places);
  tern_tensor *held = tern_where(tern_less(in, out), tern_scalar((double)count), place); /* not less: NaN too */
  tern_tensor *at = tern_min(held, &(tern_reduce_opts){.axes = axes, .n_axes = n, .keepdims = 1});
  tern_tensor *spread = tern_where(tern_equal(place, at), by_window(g, dy, n, first, false), tern_scalar(0));
  tern_shape used = tern_shape_of(x->rank, x->shape);
  for (int s = 0; s < n; s++) used.dim[first + s] = dy->shape[first + s] * g->attr[WINDOW + s].i;
  spread = tern_reshape(spread, used);
  return whole ? spread : tern_embed(spread, tern_shape_of(x->rank, x->shape), ranges, x->rank);
}

static void grad_max_pool(const tern__grad *g, tern_tensor **din) {
  const int n = g->in[0]->rank - 2, first = first_of(g->attr[LAYOUT].i);
  if (side_by_side(g, n, first)) {
    din[0] = to_first(g, n, first);
    return;
  }
  tern_tensor *x = g->in[0], *dy = g->dout[0];
  tern_tensor *at = tern__run(&tern__op_max_pool_index, &x, 1, g->attr, g->n_attr);
  tern_tensor *flat = tern_reshape(dy, (tern_shape){3, {1, dy->numel, 1}});
  din[0] =
      tern_reshape(at ? tern__scatter_zeros(tern_flatten(at), flat, x->numel) : NULL, tern_shape_of(x->rank, x->shape));
}

/* Every element gets the sum of the windows that it is in: the result's gradient with gaps of step - 1 between its
   elements and borders of (window - 1) * dilation, summed over a window that slides by 1. */
static void grad_avg_pool(const tern__grad *g, tern_tensor **din) {
  const tern_tensor *x = g->in[0];
  const int n = x->rank - 2, first = first_of(g->attr[LAYOUT].i);
  tern_shape shape = tern_shape_of(x->rank, x->shape);
  tern_range ranges[TERN_MAX_RANK];
  tern_word attr[N_ATTRS];
  double count = 1;
  memcpy(attr, g->attr, sizeof attr);
  attr[SUM_ONLY].u = 1;
  for (int axis = 0; axis < x->rank; axis++) {
    const int s = axis - first;
    ranges[axis] = TERN_ALL;
    if (s < 0 || s >= n) continue;
    const int64_t border = (attr[WINDOW + s].i - 1) * attr[DILATION + s].i, step = attr[STEP + s].i;
    count *= (double)attr[WINDOW + s].i;
    ranges[axis] = TERN_RANGE(border, border + (g->dout[0]->shape[axis] - 1) * step + 1, step);
    shape.dim[axis] += border;
    attr[STEP + s].i = 1;
  }
  tern_tensor *dy = g->attr[SUM_ONLY].u ? g->dout[0] : tern_div(g->dout[0], tern_scalar(count));
  tern_tensor *spread = tern_embed(dy, shape, ranges, x->rank);
  din[0] = spread ? tern__run(g->op, &spread, 1, attr, N_ATTRS) : NULL;
}

/* NHWC, a window of 2 x 2. */
static tern_tensor *sample_pool(const tern__sample *s) {
  const tern_word attr[N_ATTRS] = {{.i = 0}, {.u = 0}, {.i = 2}, {.i = 2}, {.i = 1}, {.i = 1}, {.i = 1}, {.i = 1}};
  tern_tensor *image = tern_reshape(s->x, (tern_shape){4, {1, 2, 3, 1}});
  return tern__run(s->op, &image, 1, attr, N_ATTRS);
}

const tern__op tern__op_max_pool = {.name = "max_pool",
                                    .family = "pool",
                                    .operands = "x, window",
                                    .doc = "largest of each window",
                                    .prim = TERN_OP_AMAX,
                                    .number = TERN__N_max_pool,
                                    .sample = sample_pool,
                                    .dtypes = TERN_D_ANY,
                                    .infer = infer_max,
                                    .lower = tern__lower_prim,
                                    .of_nothing = NAN,
                                    .grad = grad_max_pool,
                                    .keeps = TERN__KEEP_A | TERN__KEEP_OUT};
const tern__op tern__op_max_pool_index = {
    .name = "max_pool_index",
    .family = "pool",
    .operands = "x, window",
    .doc = "place in x (int64, row-major) of the largest of each window (behind max_pool)",
    .number = TERN__N_max_pool_index,
    .sample = sample_pool,
    .dtypes = TERN_D_ANY,
    .infer = infer_index,
    .lower = lower_index,
    .of_nothing = NAN};
const tern__op tern__op_avg_pool = {.name = "avg_pool",
                                    .family = "pool",
                                    .operands = "x, window",
                                    .doc = "mean of each window; integers give floats",
                                    .number = TERN__N_avg_pool,
                                    .sample = sample_pool,
                                    .dtypes = TERN_D_FLOAT,
                                    .infer = infer_avg,
                                    .lower = lower_avg,
                                    .absolute = 1e-5,
                                    .relative = 1e-5,
                                    .ulp = 84,
                                    .of_nothing = NAN,
                                    .grad = grad_avg_pool};

/* ---- the public functions ---- */

/* A call worked out: attributes, padding of each axis of x, and by spatial axis the sizes of x and of the result. */
typedef struct pool {
  tern_word attr[N_ATTRS];
  tern_padding pads[TERN_MAX_RANK];
  int64_t in[2], out[2];
  int n, first;
  bool padded;
} pool;

static bool bad_number(const char *op, const char *what, int64_t value) {
  tern__fail(TERN_E_ARG, "%s: %s is %lld; it must be positive, or 0 for the default", op, what, (long long)value);
  return false;
}

/* Spatial axis s: padding and the result's size. */
static bool work_out_axis(const char *op, pool *p, const tern_pool_opts *o, int s) {
  /* a 0 in the second place repeats the first */
  const int64_t wide = o->window[s] ? o->window[s] : o->window[0], window = wide ? wide : 2;
  const int64_t far = o->strides[s] ? o->strides[s] : o->strides[0], step = far ? far : window;
  const int64_t spread = o->dilations[s] ? o->dilations[s] : o->dilations[0], dilation = spread ? spread : 1;
  const int64_t in = p->in[s];
  if (window < 1) return bad_number(op, "a window", window);
  if (step < 1) return bad_number(op, "a stride", step);
  if (dilation < 1) return bad_number(op, "a dilation", dilation);
  tern_padding pad = {0, 0};
  int64_t reach;
  if (__builtin_mul_overflow(window - 1, dilation, &reach) || reach > INT64_MAX / 4)
    return bad_number(op, "a window", window);
  if (o->padding == TERN_PAD_EXPLICIT) {
    pad = o->pads[s];
  } else if (o->pads[s].before || o->pads[s].after) {
    tern__fail(TERN_E_ARG,
               "%s: pads are given along spatial axis %d, but the padding is %s; set .padding = TERN_PAD_EXPLICIT", op,
               s, o->padding == TERN_PAD_SAME ? "TERN_PAD_SAME" : "TERN_PAD_VALID");
    return false;
  }
  if (o->padding == TERN_PAD_SAME) {
    const int64_t total = ((in + step - 1) / step - 1) * step + reach + 1 - in;
    if (total > 0) pad = (tern_padding){total / 2, total - total / 2};
  }
  if (pad.before < 0 || pad.after < 0 || pad.before > INT64_MAX / 8 || pad.after > INT64_MAX / 8) {
    tern__fail(TERN_E_ARG, "%s: padding of %lld and %lld; it must not be negative", op, (long long)pad.before,
               (long long)pad.after);
    return false;
  }
  const int64_t room = in + pad.before + pad.after - reach - 1;
  if (room < 0) {
    tern__fail(TERN_E_ARG,
               "%s: the window reaches over %lld elements, but the axis has %lld with its padding; make the window "
               "smaller or pad "
               "more",
               op, (long long)reach + 1, (long long)(in + pad.before + pad.after));
    return false;
  }
  p->attr[WINDOW + s].i = window;
  p->attr[STEP + s].i = step;
  p->attr[DILATION + s].i = dilation;
  p->pads[p->first + s] = pad;
  p->padded |= pad.before || pad.after;
  p->out[s] = room / step + 1;
  return true;
}

static bool work_out(const char *op, const tern_tensor *x, const tern_pool_opts *o, pool *p) {
  memset(p, 0, sizeof *p);
  if (x->rank != 3 && x->rank != 4) {
    char shape[200];
    tern__fail(TERN_E_ARG,
               "%s: x has shape %s; it must be of rank 3 (one spatial axis) or 4 (two), with batch and channels", op,
               tern__shape_text(shape, x->rank, x->shape));
    return false;
  }
  if ((o->layout != TERN_NHWC && o->layout != TERN_NCHW) || (int)o->padding < TERN_PAD_VALID ||
      o->padding > TERN_PAD_EXPLICIT) {
    tern__fail(TERN_E_ARG, "%s: layout %d or padding %d is none of the enum's values", op, (int)o->layout,
               (int)o->padding);
    return false;
  }
  p->attr[LAYOUT].i = o->layout;
  p->n = x->rank - 2;
  p->first = first_of(o->layout);
  for (int s = 0; s < p->n; s++) {
    p->in[s] = x->shape[p->first + s];
    if (!work_out_axis(op, p, o, s)) return false;
  }
  return true;
}

/* What never wins against an element of dtype d. */
static double lowest(tern_dtype d) {
  if (tern__is_float(d)) return -INFINITY;
  if (d == TERN_BOOL || tern__is_unsigned(d)) return 0;
  return -ldexp(1, 8 * (int)tern_dtype_size(d) - 1);
}

/* No window sees padding alone: the largest of nothing has no value. */
static bool sees_something(const pool *p) {
  for (int s = 0; s < p->n; s++) {
    const int64_t reach = (p->attr[WINDOW + s].i - 1) * p->attr[DILATION + s].i + 1;
    const tern_padding pad = p->pads[p->first + s];
    if (pad.before < reach && pad.after < reach) continue;
    tern__fail(
        TERN_E_ARG,
        "max_pool: padding of %lld and %lld along spatial axis %d, but the window reaches over %lld elements: some "
        "windows would see padding alone",
        (long long)pad.before, (long long)pad.after, s, (long long)reach);
    return false;
  }
  return true;
}

tern_tensor *tern_max_pool(tern_tensor *x, const tern_pool_opts *opts) {
  static const tern_pool_opts standard = {0};
  pool p;
  if (!tern__usable(x, "max_pool", 1) || !work_out("max_pool", x, opts ? opts : &standard, &p) || !sees_something(&p))
    return NULL;
  if (p.padded) x = tern_pad(x, p.pads, x->rank, lowest((tern_dtype)x->dtype));
  return x ? tern__run(&tern__op_max_pool, &x, 1, p.attr, N_ATTRS) : NULL;
}

/* How many elements of x each window of the result takes in, broadcasting to the result: [.., out.., ..]. */
static tern_tensor *counts_of(const tern_tensor *x, const pool *p, tern_dtype dtype) {
  tern_tensor *counts = NULL;
  tern_device_mark mark = tern_device_begin(x->device->name);
  for (int s = 0; s < p->n; s++) {
    const int64_t window = p->attr[WINDOW + s].i, step = p->attr[STEP + s].i, dilation = p->attr[DILATION + s].i;
    tern_shape shape = {x->rank, {1, 1, 1, 1}};
    shape.dim[p->first + s] = p->out[s];
    tern_tensor *start = tern_arange(0, (double)p->out[s], 1, TERN_I64); /* inside of x: first_k <= k < stop_k */
    start = tern_sub(tern_mul(start, tern_scalar_int(step)), tern_scalar_int(p->pads[p->first + s].before));
    tern_tensor *skip = tern_floor_divide(tern_sub(tern_scalar_int(dilation - 1), start), tern_scalar_int(dilation));
    tern_tensor *stop =
        tern_floor_divide(tern_sub(tern_scalar_int(p->in[s] - 1 + dilation), start), tern_scalar_int(dilation));
    tern_tensor *from = tern_maximum(skip, tern_scalar_int(0)), *to = tern_minimum(stop, tern_scalar_int(window));
    tern_tensor *n = tern_reshape(tern_maximum(tern_sub(to, from), tern_scalar_int(0)), shape);
    counts = s ? tern_mul(counts, n) : n;
  }
  tern_device_end(&mark);
  return tern_cast(tern_maximum(counts, tern_scalar_int(1)), dtype);
}

tern_tensor *tern_avg_pool(tern_tensor *x, const tern_pool_opts *opts) {
  static const tern_pool_opts standard = {0};
  pool p;
  const tern_pool_opts *o = opts ? opts : &standard;
  if (!tern__usable(x, "avg_pool", 1) || !work_out("avg_pool", x, o, &p)) return NULL;
  if (!p.padded) return tern__run(&tern__op_avg_pool, &x, 1, p.attr, N_ATTRS);
  tern_tensor *padded = tern_pad(x, p.pads, x->rank, 0);
  p.attr[SUM_ONLY].u = !o->count_padding;
  tern_tensor *y = padded ? tern__run(&tern__op_avg_pool, &padded, 1, p.attr, N_ATTRS) : NULL;
  if (!y || o->count_padding) return y;
  return tern_div(y, counts_of(x, &p, (tern_dtype)y->dtype));
}
