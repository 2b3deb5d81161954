/* Constructors that compute, and moving between devices. Attributes of a call begin with the shape: rank, then that
   many sizes. */
#include "device/device.h"
#include "dispatch/dispatch.h"
#include "ops/table.h"
#include "tensor/dtype.h"
#include <math.h>
#include <tern/device.h>
#include <tern/ops.h>

#define MAX_WORDS (TERN_MAX_RANK + 8)

static int shape_words(tern_word *w, tern_shape shape) {
  w[0].i = shape.rank;
  for (int d = 0; d < shape.rank; d++) w[d + 1].i = shape.dim[d];
  return shape.rank + 1;
}

/* The space of a call that begins with a shape. Returns the number of words read. */
static int space_words(const tern__call *c, tern__request *q) {
  q->n_space = q->n_sizes = (uint8_t)c->attr[0].i;
  for (int d = 0; d < q->n_space; d++) {
    q->size[d] = c->attr[d + 1].i;
    q->role[d] = TERN__ROLE_MAP;
  }
  return q->n_space + 1;
}

/* float64 where the device computes it. */
static tern_dtype widest_float(const tern__device *d) {
  return !d->info.dtypes || d->info.dtypes >> TERN_F64 & 1 ? TERN_F64 : TERN_F32;
}

/* ---- full: words: shape, dtype, value (of that dtype) ---- */

static tern_rc infer_full(const tern__call *c, tern__request *q, tern__result *r) {
  const int at = space_words(c, q);
  const tern_dtype d = (tern_dtype)c->attr[at].i;
  q->dtype = (uint8_t)d;
  q->n_in = 1;
  tern__operand_param(q, 0, d, c->attr[at + 1]);
  tern__result_space(q, r, d);
  tern__operand_out(q, 0, d, 0);
  return TERN_OK;
}

static tern_tensor *sample_full(const tern__sample *s) { return tern_full((tern_shape){2, {2, 3}}, s->d, 2); }

const tern__op tern__op_full = {.name = "full",
                                .family = "create",
                                .operands = "shape, dtype, value",
                                .doc = "all elements one value",
                                .prim = TERN_OP_COPY,
                                .number = TERN__N_full,
                                .sample = sample_full,
                                .dtypes = TERN_D_ANY,
                                .infer = infer_full,
                                .lower = tern__lower_prim};

static tern_tensor *full_on(tern__device *device, tern_shape shape, tern_dtype dtype, tern_word value) {
  if (!tern__shape_ok("full", shape, dtype)) return NULL;
  tern_word w[MAX_WORDS];
  int n = shape_words(w, shape);
  w[n++].i = dtype;
  w[n++] = value;
  return tern__run_on(device, &tern__op_full, NULL, 0, w, n);
}

static tern_word word_of(double value, tern_dtype dtype) {
  return dtype > TERN_NO_DTYPE && dtype < TERN_DTYPE_END ? tern__convert((tern_word){.f = value}, TERN_F64, dtype)
                                                         : (tern_word){.u = 0};
}

tern_tensor *tern_full(tern_shape shape, tern_dtype dtype, double value) {
  return full_on(NULL, shape, dtype, word_of(value, dtype));
}
tern_tensor *tern_zeros(tern_shape shape, tern_dtype dtype) { return tern_full(shape, dtype, 0); }
tern_tensor *tern_ones(tern_shape shape, tern_dtype dtype) { return tern_full(shape, dtype, 1); }

tern_tensor *tern_full_like(tern_tensor *t, double value) {
  if (!tern__usable(t, "full_like", 1)) return NULL;
  const tern_dtype d = t->flags & TERN__WEAK && t->dtype == TERN_F64 ? TERN_F32 : (tern_dtype)t->dtype;
  return full_on(t->device, tern_shape_of(t->rank, t->shape), d, word_of(value, d));
}
tern_tensor *tern_zeros_like(tern_tensor *t) { return tern_full_like(t, 0); }
tern_tensor *tern_ones_like(tern_tensor *t) { return tern_full_like(t, 1); }

/* ---- arange: words: shape, dtype, start, step. start + i * step in the widest float, or in int64 ---- */

static tern_rc infer_arange(const tern__call *c, tern__request *q, tern__result *r) {
  const int at = space_words(c, q);
  const tern_dtype d = (tern_dtype)c->attr[at].i, wide = tern__is_float(d) ? widest_float(q->device) : TERN_I64;
  q->dtype = (uint8_t)wide;
  q->role[0] = TERN__ROLE_FIXED;
  q->n_in = 2;
  tern__operand_param(q, 0, wide, tern__convert(c->attr[at + 1], tern__is_float(d) ? TERN_F64 : TERN_I64, wide));
  tern__operand_param(q, 1, wide, tern__convert(c->attr[at + 2], tern__is_float(d) ? TERN_F64 : TERN_I64, wide));
  tern__result_space(q, r, d);
  tern__operand_out(q, 0, d, 0);
  return TERN_OK;
}

static void lower_arange(tern__builder *b) {
  const int i = tern__b_iota(b, 0, (tern_dtype)tern__b_request(b)->dtype);
  tern__b_out(b, 0, tern__b_map2(b, TERN_OP_ADD, tern__b_in(b, 0), tern__b_map2(b, TERN_OP_MUL, i, tern__b_in(b, 1))));
}

static tern_tensor *sample_arange(const tern__sample *s) { return tern_arange(0, 4, 1, s->d); }

const tern__op tern__op_arange = {.name = "arange",
                                  .family = "create",
                                  .operands = "start, stop, step, dtype",
                                  .doc = "start, start + step, ... (linspace too)",
                                  .number = TERN__N_arange,
                                  .sample = sample_arange,
                                  .dtypes = TERN_D_NUM,
                                  .infer = infer_arange,
                                  .lower = lower_arange,
                                  .relative = 2.4e-7,
                                  .ulp = 2};

static tern_tensor *series(int64_t n, tern_dtype dtype, tern_word start, tern_word step) {
  tern_word w[MAX_WORDS];
  const tern_shape shape = {1, {n}};
  int count = shape_words(w, shape);
  w[count++].i = dtype;
  w[count++] = start;
  w[count++] = step;
  return tern__run(&tern__op_arange, NULL, 0, w, count);
}

tern_tensor *tern_arange(double start, double stop, double step, tern_dtype dtype) {
  if (dtype <= TERN_BOOL || dtype >= TERN_DTYPE_END || step == 0 || !isfinite(start) || !isfinite(stop) ||
      !isfinite(step)) {
    tern__fail(TERN_E_ARG,
               "arange: start %g, stop %g, step %g, dtype %s; they must be finite, step not 0, the dtype a number",
               start, stop, step, tern_dtype_name(dtype));
    return NULL;
  }
  const double n = ceil((stop - start) / step);
  if (n > 1e15) {
    tern__fail(TERN_E_ARG, "arange: %g elements are too many", n);
    return NULL;
  }
  tern_word a = {.f = start}, s = {.f = step};
  if (!tern__is_float(dtype)) {
    a = tern__convert(a, TERN_F64, TERN_I64);
    s = tern__convert(s, TERN_F64, TERN_I64);
    if (start != trunc(start) || step != trunc(step)) {
      tern__fail(TERN_E_ARG, "arange: start %g and step %g must be whole for %s", start, step, tern_dtype_name(dtype));
      return NULL;
    }
  }
  return series(n > 0 ? (int64_t)n : 0, dtype, a, s);
}

tern_tensor *tern_linspace(double start, double stop, int64_t n, tern_dtype dtype) {
  if (!tern__is_float(dtype) || n < 0 || n > (int64_t)1e15 || !isfinite(start) || !isfinite(stop)) {
    tern__fail(TERN_E_ARG, "linspace: %lld values from %g to %g as %s; n must not be negative, the dtype a float",
               (long long)n, start, stop, tern_dtype_name(dtype));
    return NULL;
  }
  tern_tensor *t =
      series(n, dtype, (tern_word){.f = start}, (tern_word){.f = n > 1 ? (stop - start) / (double)(n - 1) : 0});
  if (!t || n < 2) return t;
  tern_tensor *last = tern_slice(t, &TERN_RANGE(n - 1, TERN_OPEN, 1), 1), *end = tern_scalar(stop); /* exactly stop */
  return last && end && !tern__write(last, end) ? t : NULL;
}

/* ---- eye: words: shape, dtype, k ---- */

static tern_rc infer_eye(const tern__call *c, tern__request *q, tern__result *r) {
  const int at = space_words(c, q);
  q->dtype = TERN_I64;
  q->role[0] = q->role[1] = TERN__ROLE_FIXED;
  q->n_in = 1;
  tern__operand_param(q, 0, TERN_I64, c->attr[at + 1]);
  tern__result_space(q, r, (tern_dtype)c->attr[at].i);
  tern__operand_out(q, 0, r->dtype, 0);
  return TERN_OK;
}

static void lower_eye(tern__builder *b) {
  const int row = tern__b_map2(b, TERN_OP_ADD, tern__b_iota(b, 0, TERN_I64), tern__b_in(b, 0));
  tern__b_out(b, 0, tern__b_map2(b, TERN_OP_EQ, row, tern__b_iota(b, 1, TERN_I64)));
}

static tern_tensor *sample_eye(const tern__sample *s) { return tern_eye(2, 3, 0, s->d); }

const tern__op tern__op_eye = {.name = "eye",
                               .family = "create",
                               .operands = "rows, columns, k, dtype",
                               .doc = "ones on diagonal k, else zeros",
                               .number = TERN__N_eye,
                               .sample = sample_eye,
                               .dtypes = TERN_D_ANY,
                               .infer = infer_eye,
                               .lower = lower_eye};

tern_tensor *tern_eye(int64_t rows, int64_t columns, int k, tern_dtype dtype) {
  const tern_shape shape = {2, {rows, columns}};
  if (!tern__shape_ok("eye", shape, dtype)) return NULL;
  tern_word w[MAX_WORDS];
  int n = shape_words(w, shape);
  w[n++].i = dtype;
  w[n++].i = k;
  return tern__run(&tern__op_eye, NULL, 0, w, n);
}

/* ---- moving ---- */

static void grad_to(const tern__grad *g, tern_tensor **din) { din[0] = tern_to(g->dout[0], g->in[0]->device->name); }

static tern_tensor *sample_to(const tern__sample *s) { return tern_to(s->x, tern_device_get(s->y)); }

const tern__op tern__op_to = {.name = "to",
                              .family = "create",
                              .operands = "x, device",
                              .doc = "x on another device",
                              .number = TERN__N_to,
                              .sample = sample_to,
                              .dtypes = TERN_D_ANY,
                              .grad = grad_to};

tern_tensor *tern_to(tern_tensor *t, const char *name) {
  if (!tern__usable(t, "to", 1)) return NULL;
  tern__device *d = tern__device_named(name);
  if (!d) return NULL;
  if (t->flags & TERN__WEAK) {
    tern_device_mark mark = {tern__tls->device};
    tern__tls->device = d;
    tern_tensor *solid = tern_clone(t);
    tern_device_end(&mark);
    return solid;
  }
  if (t->device == d) return tern__itself(t);
  if (tern__tracing_ops()) return tern__graph_listener.move(tern__tls, t, d);
  tern_tensor *dense = tern_contiguous(t);
  tern_tensor *out = dense ? tern__new(d, (tern_dtype)t->dtype, t->rank, t->shape, "to") : NULL;
  if (!out) return NULL;
  const uint64_t item = tern__dtype_size[t->dtype];
  if (!tern__copy_bytes(out->storage, 0, dense->storage, (uint64_t)dense->offset * item, (uint64_t)t->numel * item))
    return tern__done(&tern__op_to, &t, 1, NULL, 0, tern__push(out));
  tern__unref(out);
  return NULL;
}
