/* Other arrangements of the same elements: embedding in zeros, repeating, turning, diagonals, triangles, outer
   products. Most are views and one copy; embed and diag are ops of their own to a tape, the rest is recorded as what it
   is made of. */
#include "device/device.h"
#include "dispatch/dispatch.h"
#include "ops/table.h"
#include "tensor/dtype.h"
#include <tern/ops.h>

#define SHAPE_OP(id, args, text)                          \
  const tern__op tern__op_##id = {.name = #id,            \
                                  .family = "shape",      \
                                  .operands = args,       \
                                  .doc = text,            \
                                  .number = TERN__N_##id, \
                                  .dtypes = TERN_D_ANY,   \
                                  .sample = sample_##id}

/* ---- embed: attributes of the call: start, stop, step of each range ---- */

static void grad_embed(const tern__grad *g, tern_tensor **din) {
  tern_range ranges[TERN_MAX_RANK];
  const int n = g->n_attr / 3;
  for (int d = 0; d < n; d++) ranges[d] = TERN_RANGE(g->attr[3 * d].i, g->attr[3 * d + 1].i, g->attr[3 * d + 2].i);
  din[0] = tern_slice(g->dout[0], ranges, n);
}

static tern_tensor *sample_embed(const tern__sample *s) {
  return tern_embed(s->x, (tern_shape){2, {3, 3}}, &TERN_RANGE(1, TERN_OPEN, 1), 1);
}

const tern__op tern__op_embed = {.name = "embed",
                                 .family = "shape",
                                 .operands = "x, shape, ranges",
                                 .doc = "zeros of shape with x in a slice",
                                 .number = TERN__N_embed,
                                 .sample = sample_embed,
                                 .dtypes = TERN_D_ANY,
                                 .grad = grad_embed};

static tern_dtype weak_dtype(const tern_tensor *x) { return x->dtype == TERN_F64 ? TERN_F32 : (tern_dtype)x->dtype; }

tern_tensor *tern_embed(tern_tensor *x, tern_shape shape, const tern_range *ranges, int n) {
  if (!tern__usable(x, "embed", 1) || !(x = tern__solid(x, weak_dtype(x)))) return NULL;
  if (n < 0 || n > shape.rank || (n && !ranges)) {
    tern__fail(TERN_E_ARG, "embed: %d ranges were given for a shape of rank %d", n, shape.rank);
    return NULL;
  }
  if (!tern__shape_ok("embed", shape, (tern_dtype)x->dtype)) return NULL;
  tern_tensor *out = tern__push(tern__new(x->device, (tern_dtype)x->dtype, shape.rank, shape.dim, "embed"));
  tern_tensor *part = out ? tern_slice(out, ranges, n) : NULL;
  if (!part) return NULL;
  if (part->rank != x->rank || memcmp(part->shape, x->shape, x->rank * sizeof *x->shape)) {
    char a[200], b[200], c[200];
    tern__fail(TERN_E_ARG, "embed: x has shape %s, but the slice of %s that it goes to has %s",
               tern__shape_text(a, x->rank, x->shape), tern__shape_text(b, shape.rank, shape.dim),
               tern__shape_text(c, part->rank, part->shape));
    return NULL;
  }
  tern_tensor *zero = part->numel < out->numel ? tern_scalar(0) : NULL;
  if ((part->numel < out->numel && (!zero || tern__write(out, zero))) || tern__write(part, x)) return NULL;
  tern_word attr[3 * TERN_MAX_RANK];
  for (int d = 0; d < n; d++) {
    attr[3 * d].i = ranges[d].start;
    attr[3 * d + 1].i = ranges[d].stop;
    attr[3 * d + 2].i = ranges[d].step;
  }
  return tern__done(&tern__op_embed, &x, 1, attr, 3 * n, out);
}

/* ---- repeating ---- */

static tern_tensor *sample_repeat(const tern__sample *s) { return tern_repeat(s->x, 2, 0); }
static tern_tensor *sample_tile(const tern__sample *s) { return tern_tile(s->x, (tern_shape){2, {2, 3}}); }
SHAPE_OP(repeat, "x, n, axis", "each element n times along axis");
SHAPE_OP(tile, "x, times", "x laid side by side");

/* x as [outer, the axis, inner]. */
static tern_tensor *three_axes(tern_tensor *x, int axis, tern_shape *three) {
  *three = (tern_shape){3, {1, x->shape[axis], 1}};
  for (int d = 0; d < axis; d++) three->dim[0] *= x->shape[d];
  for (int d = axis + 1; d < x->rank; d++) three->dim[2] *= x->shape[d];
  return tern_reshape(x, *three);
}

/* x's shape with axis `times` as long; false with the error when that is no size. */
static bool longer(const char *op, const tern_tensor *x, int axis, int64_t times, tern_shape *shape) {
  *shape = tern_shape_of(x->rank, x->shape);
  if (times >= 0 && !__builtin_mul_overflow(shape->dim[axis], times, &shape->dim[axis]))
    return tern__shape_ok(op, *shape, (tern_dtype)x->dtype);
  tern__fail(TERN_E_ARG, "%s: axis %d of size %lld cannot be there %lld times", op, axis, (long long)x->shape[axis],
             (long long)times);
  return false;
}

/* Each element (inside), or the whole axis, `times` times along the axis. */
static tern_tensor *multiplied(const char *op, tern_tensor *x, int axis, int64_t times, bool inside) {
  tern_shape shape, s;
  if (!longer(op, x, axis, times, &shape)) return NULL;
  tern_tensor *three = three_axes(x, axis, &s);
  tern_tensor *four = three ? tern_expand_dims(three, inside ? 2 : 1) : NULL;
  const tern_shape wide = {4, {s.dim[0], inside ? s.dim[1] : times, inside ? times : s.dim[1], s.dim[2]}};
  return four ? tern_reshape(tern_expand(four, wide), shape) : NULL;
}

tern_tensor *tern_repeat(tern_tensor *x, int64_t n, int axis) {
  if (!tern__usable(x, "repeat", 1)) return NULL;
  axis = tern__axis("repeat", axis, x->rank);
  return axis < 0 ? NULL : multiplied("repeat", x, axis, n, true);
}

/* All axes at once, when the axes [times, size] of the result, those of size 1 left out, are few enough. */
static tern_tensor *tile_at_once(tern_tensor *x, const int64_t *times, tern_shape result, bool *done) {
  tern_shape narrow = {.rank = 0}, wide = {.rank = 0};
  *done = false;
  for (int d = 0; d < x->rank; d++) {
    const int64_t part[] = {times[d], x->shape[d]};
    for (int k = 0; k < 2; k++) {
      if (part[k] == 1) continue;
      if (wide.rank == TERN_MAX_RANK) return NULL;
      narrow.dim[narrow.rank++] = k ? part[k] : 1;
      wide.dim[wide.rank++] = part[k];
    }
  }
  *done = true;
  return tern_reshape(tern_expand(tern_reshape(x, narrow), wide), result);
}

tern_tensor *tern_tile(tern_tensor *x, tern_shape times) {
  if (!tern__usable(x, "tile", 1) || !(x = tern__solid(x, weak_dtype(x)))) return NULL;
  if (times.rank < 0 || times.rank > TERN_MAX_RANK) {
    tern__fail(TERN_E_ARG, "tile: times has rank %d; the most there is is %d", times.rank, TERN_MAX_RANK);
    return NULL;
  }
  const int rank = x->rank > times.rank ? x->rank : times.rank;
  tern_shape from = {.rank = rank}, result;
  int64_t n[TERN_MAX_RANK];
  for (int d = 0; d < rank; d++) {
    const int old = d - (rank - x->rank), given = d - (rank - times.rank);
    from.dim[d] = old < 0 ? 1 : x->shape[old];
    n[d] = given < 0 ? 1 : times.dim[given];
  }
  x = tern_reshape(x, from);
  if (!x) return NULL;
  result = from;
  for (int d = 0; d < rank; d++) {
    tern_shape one;
    if (!longer("tile", x, d, n[d], &one)) return NULL;
    result.dim[d] = one.dim[d];
  }
  if (!tern__shape_ok("tile", result, (tern_dtype)x->dtype)) return NULL;
  bool done;
  tern_tensor *out = tile_at_once(x, n, result, &done);
  if (done) return out;
  for (int d = rank; d-- > 0 && x;)
    if (n[d] != 1) x = multiplied("tile", x, d, n[d], false);
  return x;
}

/* ---- turning ---- */

static tern_tensor *sample_flip(const tern__sample *s) { return tern_flip(s->x, NULL, 0); }
static tern_tensor *sample_roll(const tern__sample *s) { return tern_roll(s->x, 1, 1); }
SHAPE_OP(flip, "x, axes", "the order of elements along axes turned round: a view");
SHAPE_OP(roll, "x, shift, axis", "elements moved along axis, round the end");

tern_tensor *tern_flip(tern_tensor *x, const int *axes, int n) {
  if (!tern__usable(x, "flip", 1)) return NULL;
  if (n < 0 || n > TERN_MAX_RANK) {
    tern__fail(TERN_E_ARG, "flip: %d axes were given for a tensor of rank %d", n, x->rank);
    return NULL;
  }
  const bool all = !axes || n == 0;
  tern_range ranges[TERN_MAX_RANK];
  for (int d = 0; d < x->rank; d++) ranges[d] = all ? TERN_RANGE(TERN_OPEN, TERN_OPEN, -1) : TERN_ALL;
  for (int i = 0; i < n && !all; i++) {
    const int axis = tern__axis("flip", axes[i], x->rank);
    if (axis < 0) return NULL;
    if (ranges[axis].step < 0) {
      tern__fail(TERN_E_ARG, "flip: axis %d is named twice", axis);
      return NULL;
    }
    ranges[axis].step = -1;
  }
  return tern_slice(x, ranges, x->rank);
}

static tern_tensor *narrow(tern_tensor *t, int axis, int64_t start, int64_t stop) {
  tern_range all[TERN_MAX_RANK];
  for (int d = 0; d < axis; d++) all[d] = TERN_ALL;
  all[axis] = TERN_RANGE(start, stop, 1);
  return tern_slice(t, all, axis + 1);
}

tern_tensor *tern_roll(tern_tensor *x, int64_t shift, int axis) {
  if (!tern__usable(x, "roll", 1)) return NULL;
  axis = tern__axis("roll", axis, x->rank);
  if (axis < 0) return NULL;
  const int64_t n = x->shape[axis], by = n ? (shift % n + n) % n : 0;
  if (by == 0) return tern__itself(x);
  tern_tensor *const parts[] = {narrow(x, axis, n - by, n), narrow(x, axis, 0, n - by)};
  return parts[0] && parts[1] ? tern_concat(parts, 2, axis) : NULL;
}

/* ---- diagonals: a view of the last two axes with both strides added. Attribute: k ---- */

/* Where diagonal k of a rows x columns matrix lies in its row-major elements. */
static tern_range diagonal_range(int64_t rows, int64_t columns, int64_t k, int64_t *length) {
  const int64_t row = k < 0 ? -k : 0, column = k > 0 ? k : 0;
  const int64_t down = rows - row, right = columns - column, n = down < right ? down : right;
  *length = n > 0 ? n : 0;
  if (*length == 0) return TERN_RANGE(0, 0, 1);
  const int64_t first = row * columns + column;
  return TERN_RANGE(first, first + (n - 1) * (columns + 1) + 1, columns + 1);
}

/* Zeros of [.., rows, columns] with x [.., n] on diagonal k. */
static tern_tensor *on_diagonal(tern_tensor *x, int64_t rows, int64_t columns, int64_t k) {
  tern_shape flat = tern_shape_of(x->rank, x->shape), shape = flat;
  tern_range ranges[TERN_MAX_RANK];
  int64_t length;
  const int last = x->rank - 1;
  if (__builtin_mul_overflow(rows, columns, &flat.dim[last]) || flat.dim[last] > INT64_MAX / 8) {
    tern__fail(TERN_E_ARG, "diag: a matrix of %lld x %lld is too large", (long long)rows, (long long)columns);
    return NULL;
  }
  for (int d = 0; d < last; d++) ranges[d] = TERN_ALL;
  ranges[last] = diagonal_range(rows, columns, k, &length);
  shape.rank++;
  shape.dim[last] = rows;
  shape.dim[last + 1] = columns;
  tern_tensor *embedded = tern_embed(x, flat, ranges, x->rank);
  return embedded ? tern_reshape(embedded, shape) : NULL;
}

static void grad_diag(const tern__grad *g, tern_tensor **din) {
  const tern_tensor *x = g->in[0];
  din[0] = on_diagonal(g->dout[0], x->shape[x->rank - 2], x->shape[x->rank - 1], g->attr[0].i);
}

static tern_tensor *sample_diag(const tern__sample *s) { return tern_diag(s->x, 0); }

const tern__op tern__op_diag = {.name = "diag",
                                .family = "shape",
                                .operands = "x, k",
                                .doc = "diagonal k of the last two axes (a view), or a matrix with x on it",
                                .number = TERN__N_diag,
                                .sample = sample_diag,
                                .dtypes = TERN_D_ANY,
                                .grad = grad_diag};

/* In a graph, whose views are reshape, permute, slice and expand: the elements as one axis, then every so many. */
static tern_tensor *traced_diagonal(tern_tensor *x, tern_range range) {
  tern_shape flat = tern_shape_of(x->rank - 1, x->shape);
  tern_range ranges[TERN_MAX_RANK];
  for (int d = 0; d < flat.rank; d++) ranges[d] = TERN_ALL;
  ranges[flat.rank - 1] = range;
  flat.dim[flat.rank - 1] *= x->shape[x->rank - 1];
  tern_tensor *row_major = tern_reshape(x, flat);
  return row_major ? tern_slice(row_major, ranges, flat.rank) : NULL;
}

tern_tensor *tern_diag(tern_tensor *x, int k) {
  if (!tern__usable(x, "diag", 1)) return NULL;
  if (x->rank == 0) {
    tern__fail(TERN_E_ARG, "diag: a scalar has no diagonal; tern_reshape it to rank 1 or 2");
    return NULL;
  }
  const int64_t away = k < 0 ? -(int64_t)k : k;
  if (x->rank == 1) return on_diagonal(x, x->shape[0] + away, x->shape[0] + away, k);
  const int r = x->rank - 2;
  int64_t length;
  const tern_range range = diagonal_range(x->shape[r], x->shape[r + 1], k, &length);
  if (tern__tls->hooks & TERN__HOOK_GRAPH) return traced_diagonal(x, range);
  tern_tensor *v = tern__view_header(x);
  if (!v) return NULL;
  v->rank = (uint8_t)(r + 1);
  for (int d = 0; d < r; d++) {
    v->shape[d] = x->shape[d];
    v->stride[d] = x->stride[d];
  }
  v->shape[r] = length;
  v->stride[r] = x->stride[r] + x->stride[r + 1];
  v->offset = x->offset;
  if (length)
    v->offset += range.start / x->shape[r + 1] * x->stride[r] + range.start % x->shape[r + 1] * x->stride[r + 1];
  tern__set_contig_flag(v);
  return tern__done(&tern__op_diag, &x, 1, &(tern_word){.i = k}, 1, tern__push(v));
}

/* ---- triangles: x where column - row is on the right side of k, else 0. Attribute of the call, a word of the launch:
   k ---- */

static tern_rc infer_triangle(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_rc rc = tern__space(c, q);
  if (rc) return rc;
  q->dtype = c->in[0]->dtype;
  q->role[q->n_space - 1] = q->role[q->n_space - 2] = TERN__ROLE_FIXED;
  tern__operand_of(q, 0, c->in[0], (tern_dtype)q->dtype);
  q->arg[2] = q->arg[1];
  q->n_in = 2;
  tern__operand_param(q, 1, TERN_I64, c->attr[0]);
  tern__result_space(q, r, (tern_dtype)q->dtype);
  tern__operand_out(q, 0, r->dtype, 0);
  return TERN_OK;
}

static void lower_triangle(tern__builder *b) {
  const tern__request *q = tern__b_request(b);
  const int row = tern__b_iota(b, q->n_space - 2, TERN_I64), column = tern__b_iota(b, q->n_space - 1, TERN_I64);
  const int edge = tern__b_map2(b, TERN_OP_ADD, row, tern__b_in(b, 1)), x = tern__b_in(b, 0);
  const int inside = tern__b_map2(b, q->op == &tern__op_triu ? TERN_OP_GE : TERN_OP_LE, column, edge);
  tern__b_out(b, 0, tern__b_where(b, inside, x, tern__b_const_int(b, tern__b_dtype(b, x), 0)));
}

static void grad_triu(const tern__grad *g, tern_tensor **din) { din[0] = tern_triu(g->dout[0], (int)g->attr[0].i); }
static void grad_tril(const tern__grad *g, tern_tensor **din) { din[0] = tern_tril(g->dout[0], (int)g->attr[0].i); }

static tern_tensor *sample_triu(const tern__sample *s) { return tern_triu(s->x, 0); }
static tern_tensor *sample_tril(const tern__sample *s) { return tern_tril(s->x, 0); }

#define TRIANGLE(id, text)                                 \
  const tern__op tern__op_##id = {.name = #id,             \
                                  .family = "shape",       \
                                  .operands = "x, k",      \
                                  .doc = text,             \
                                  .number = TERN__N_##id,  \
                                  .sample = sample_##id,   \
                                  .dtypes = TERN_D_ANY,    \
                                  .infer = infer_triangle, \
                                  .lower = lower_triangle, \
                                  .grad = grad_##id}
TRIANGLE(triu, "x with zeros below diagonal k of the last two axes");
TRIANGLE(tril, "x with zeros above diagonal k of the last two axes");

static tern_tensor *triangle(const tern__op *op, tern_tensor *x, int k) {
  if (!tern__usable(x, op->name, 1)) return NULL;
  if (x->rank >= 2) return tern__run(op, &x, 1, &(tern_word){.i = k}, 1);
  tern__fail(TERN_E_ARG, "%s: a tensor of rank %d has no two last axes; tern_reshape it to a matrix", op->name,
             x->rank);
  return NULL;
}

tern_tensor *tern_triu(tern_tensor *x, int k) { return triangle(&tern__op_triu, x, k); }
tern_tensor *tern_tril(tern_tensor *x, int k) { return triangle(&tern__op_tril, x, k); }

/* ---- outer ---- */

static tern_tensor *sample_outer(const tern__sample *s) { return tern_outer(s->x, s->y); }
SHAPE_OP(outer, "a, b", "every product of an element of a and one of b");

tern_tensor *tern_outer(tern_tensor *a, tern_tensor *b) {
  if (!tern__usable(a, "outer", 1) || !tern__usable(b, "outer", 2)) return NULL;
  tern_tensor *column = tern_reshape(a, (tern_shape){2, {a->numel, 1}});
  tern_tensor *row = tern_reshape(b, (tern_shape){2, {1, b->numel}});
  return column && row ? tern_mul(column, row) : NULL;
}
