/* Joining and padding: a fresh result, each part written into its slice of it by a COPY launch. */
#include "device/device.h"
#include "dispatch/dispatch.h"
#include "ops/table.h"
#include "tensor/dtype.h"
#include <tern/ops.h>

static tern_tensor *narrow(tern_tensor *t, int axis, int64_t start, int64_t stop) {
  tern_range all[TERN_MAX_RANK];
  for (int d = 0; d < axis; d++) all[d] = TERN_ALL;
  all[axis] = TERN_RANGE(start, stop, 1);
  return tern_slice(t, all, axis + 1);
}

/* ---- gradients: each operand's part of the result's. Attributes of concat and stack: axis; of pad: before, after of
   each axis ---- */

static void grad_concat(const tern__grad *g, tern_tensor **din) {
  const int axis = (int)g->attr[0].i;
  int64_t at = 0;
  for (int i = 0; i < g->n_in; i++) {
    const int64_t stop = at + g->in[i]->shape[axis];
    din[i] = narrow(g->dout[0], axis, at, stop);
    at = stop;
  }
}

static void grad_stack(const tern__grad *g, tern_tensor **din) {
  for (int i = 0; i < g->n_in; i++) din[i] = tern_index(g->dout[0], (int)g->attr[0].i, i);
}

static void grad_pad(const tern__grad *g, tern_tensor **din) {
  tern_range inside[TERN_MAX_RANK];
  for (int d = 0; d < g->in[0]->rank; d++) {
    const int64_t before = g->attr[2 * d].i;
    inside[d] = TERN_RANGE(before, before + g->in[0]->shape[d], 1);
  }
  din[0] = tern_slice(g->dout[0], inside, g->in[0]->rank);
}

static tern_tensor *sample_concat(const tern__sample *s) {
  tern_tensor *const in[] = {s->x, s->y};
  return tern_concat(in, 2, 0);
}

static tern_tensor *sample_stack(const tern__sample *s) {
  tern_tensor *const in[] = {s->x, s->y};
  return tern_stack(in, 2, 0);
}

static tern_tensor *sample_pad(const tern__sample *s) {
  const tern_padding around[] = {{1, 1}, {0, 1}};
  return tern_pad(s->x, around, 2, 0);
}

/* For the table: no inference or lowering of their own, since each is several COPY launches. */
#define JOIN(id, args, text)                              \
  const tern__op tern__op_##id = {.name = #id,            \
                                  .family = "join",       \
                                  .operands = args,       \
                                  .doc = text,            \
                                  .number = TERN__N_##id, \
                                  .sample = sample_##id,  \
                                  .dtypes = TERN_D_ANY,   \
                                  .grad = grad_##id};
JOIN(concat, "xs, axis", "tensors joined along axis")
JOIN(stack, "xs, axis", "tensors of one shape along a new axis")
JOIN(pad, "x, padding, value", "x with value around it")

/* The dtype and device of several tensors; false with the error set. */
static bool common(const char *op, tern_tensor *const *xs, int n, tern_dtype *dtype, tern__device **device) {
  *dtype = TERN_NO_DTYPE;
  *device = NULL;
  if (n <= 0 || !xs) {
    tern__fail(TERN_E_ARG, "%s: no tensors were given", op);
    return false;
  }
  for (int i = 0; i < n; i++) {
    if (!tern__usable(xs[i], op, i + 1)) return false;
    if (xs[i]->flags & TERN__WEAK) {
      tern__fail(TERN_E_ARG, "%s: operand %d is a host scalar; make it a tensor with tern_constant", op, i + 1);
      return false;
    }
    *dtype = i ? tern__promote(*dtype, (tern_dtype)xs[i]->dtype) : (tern_dtype)xs[i]->dtype;
    if (!*device) *device = xs[i]->device;
    if (*device != xs[i]->device) {
      tern__fail(TERN_E_ARG, "%s: operand 1 is on %s and operand %d on %s; move one of them: tern_to(t, \"%s\")", op,
                 (*device)->name, i + 1, xs[i]->device->name, (*device)->name);
      return false;
    }
  }
  return true;
}

tern_tensor *tern_concat(tern_tensor *const *xs, int n, int axis) {
  tern_dtype dtype;
  tern__device *device;
  if (!common("concat", xs, n, &dtype, &device)) return NULL;
  axis = tern__axis("concat", axis, xs[0]->rank);
  if (axis < 0) return NULL;
  int64_t shape[TERN_MAX_RANK];
  memcpy(shape, xs[0]->shape, sizeof shape);
  for (int i = 1; i < n; i++) {
    bool fits = xs[i]->rank == xs[0]->rank;
    for (int d = 0; d < xs[0]->rank && fits; d++) fits = d == axis || xs[i]->shape[d] == shape[d];
    char a[200], b[200];
    if (!fits) {
      tern__fail(TERN_E_ARG,
                 "concat: operand %d has shape %s, operand 1 %s; all sizes but those of axis %d must be equal", i + 1,
                 tern__shape_text(a, xs[i]->rank, xs[i]->shape), tern__shape_text(b, xs[0]->rank, xs[0]->shape), axis);
      return NULL;
    }
    shape[axis] += xs[i]->shape[axis];
  }
  tern_tensor *out = tern__push(tern__new(device, dtype, xs[0]->rank, shape, "concat"));
  int64_t at = 0;
  for (int i = 0; i < n && out; i++) {
    tern_tensor *part = narrow(out, axis, at, at + xs[i]->shape[axis]);
    if (!part || tern__write(part, xs[i])) return NULL;
    at += xs[i]->shape[axis];
  }
  return tern__done(&tern__op_concat, xs, n, &(tern_word){.i = axis}, 1, out);
}

tern_tensor *tern_stack(tern_tensor *const *xs, int n, int axis) {
  tern_dtype dtype;
  tern__device *device;
  if (!common("stack", xs, n, &dtype, &device)) return NULL;
  axis = tern__axis("stack", axis, xs[0]->rank + 1);
  if (axis < 0) return NULL;
  if (xs[0]->rank == TERN_MAX_RANK) {
    tern__fail(TERN_E_ARG, "stack: the operands have rank %d already, the most there is", TERN_MAX_RANK);
    return NULL;
  }
  int64_t shape[TERN_MAX_RANK];
  for (int d = 0; d <= xs[0]->rank; d++) shape[d] = d == axis ? n : xs[0]->shape[d - (d > axis)];
  for (int i = 1; i < n; i++) {
    char a[200], b[200];
    if (xs[i]->rank == xs[0]->rank && !memcmp(xs[i]->shape, xs[0]->shape, xs[0]->rank * sizeof *shape)) continue;
    tern__fail(TERN_E_ARG, "stack: operand %d has shape %s, operand 1 %s; all must be equal", i + 1,
               tern__shape_text(a, xs[i]->rank, xs[i]->shape), tern__shape_text(b, xs[0]->rank, xs[0]->shape));
    return NULL;
  }
  tern_tensor *out = tern__push(tern__new(device, dtype, xs[0]->rank + 1, shape, "stack"));
  for (int i = 0; i < n && out; i++) {
    tern_tensor *part = tern_index(out, axis, i);
    if (!part || tern__write(part, xs[i])) return NULL;
  }
  return tern__done(&tern__op_stack, xs, n, &(tern_word){.i = axis}, 1, out);
}

tern_tensor *tern_pad(tern_tensor *x, const tern_padding *padding, int n, double value) {
  if (!tern__usable(x, "pad", 1)) return NULL;
  if (n != x->rank || (n && !padding) || (x->flags & TERN__WEAK)) {
    tern__fail(TERN_E_ARG, "pad: %d paddings were given for a tensor of rank %d", n, x->rank);
    return NULL;
  }
  tern_shape shape = {.rank = n};
  tern_range inside[TERN_MAX_RANK];
  tern_word attr[2 * TERN_MAX_RANK];
  for (int d = 0; d < n; d++) {
    if (padding[d].before < 0 || padding[d].after < 0 ||
        __builtin_add_overflow(x->shape[d], padding[d].before, &shape.dim[d]) ||
        __builtin_add_overflow(shape.dim[d], padding[d].after, &shape.dim[d])) {
      tern__fail(TERN_E_ARG, "pad: axis %d is padded by %lld and %lld; neither may be negative (tern_slice crops)", d,
                 (long long)padding[d].before, (long long)padding[d].after);
      return NULL;
    }
    inside[d] = TERN_RANGE(padding[d].before, padding[d].before + x->shape[d], 1);
    attr[2 * d].i = padding[d].before;
    attr[2 * d + 1].i = padding[d].after;
  }
  if (!tern__shape_ok("pad", shape, (tern_dtype)x->dtype)) return NULL;
  tern_tensor *out = tern__push(tern__new(x->device, (tern_dtype)x->dtype, n, shape.dim, "pad"));
  tern_tensor *fill = tern_scalar(value), *part = out ? tern_slice(out, inside, n) : NULL;
  if (!out || !fill || !part || tern__write(out, fill) || tern__write(part, x)) return NULL;
  return tern__done(&tern__op_pad, &x, 1, attr, 2 * n, out);
}
