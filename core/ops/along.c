/* Picking by computed places: along an axis, by index tuples, the largest, by binary search, the different ones. All of
   it ends in tern_take of flat int64 places, through which gradients flow. */
#include "device/device.h"
#include "dispatch/dispatch.h"
#include "ops/table.h"
#include "tensor/dtype.h"
#include <stdio.h>
#include <tern/ops.h>

#define PICK(id, args, text)                              \
  const tern__op tern__op_##id = {.name = #id,            \
                                  .family = "along",      \
                                  .operands = args,       \
                                  .doc = text,            \
                                  .number = TERN__N_##id, \
                                  .dtypes = TERN_D_ANY,   \
                                  .sample = sample_##id}

static bool integer_indices(const char *op, const tern_tensor *indices) {
  if (tern__is_int((tern_dtype)indices->dtype)) return true;
  tern__fail(TERN_E_ARG, "%s: indices are %s; they must be integers: tern_cast them", op,
             tern_dtype_name((tern_dtype)indices->dtype));
  return false;
}

/* Constructors make tensors on this thread's device: these make them on x's. */
static tern_tensor *arange_on(tern__device *device, int64_t n) {
  tern_device_mark mark = {tern__tls->device};
  tern__tls->device = device;
  tern_tensor *t = tern_arange(0, (double)n, 1, TERN_I64);
  tern_device_end(&mark);
  return t;
}

static tern_tensor *integers_on(tern__device *device, tern_shape shape, const int64_t *values) {
  tern_device_mark mark = {tern__tls->device};
  tern__tls->device = device;
  tern_tensor *t = values ? tern_constant(shape, TERN_I64, values, (size_t)shape.dim[0]) : tern_zeros(shape, TERN_I64);
  tern_device_end(&mark);
  return t;
}

/* Rows of x at flat places. Where the device finds at once that one is out of range, the error is told in the caller's
   words. */
static tern_tensor *take_rows(tern_tensor *x, tern_tensor *places, const char *why) {
  tern__thread *t = tern__tls;
  const bool unread = t->error_state == TERN__ERROR_UNREAD;
  tern_tensor *out = tern_take(x, places, 0);
  if (out || unread || t->error_state != TERN__ERROR_UNREAD || !strstr(t->error_text, "out of range")) return out;
  t->error_state = TERN__ERROR_NONE;
  tern__fail(TERN_E_ARG, "%s", why);
  return NULL;
}

/* ---- take_along_axis. What the table entry computes are the flat places: operand: indices [O, J, I]; attributes of
   the call, words of the launch: n, the axis's length, I, and the number of elements, which stands for an index out of
   range and makes take refuse it ---- */

static tern_rc infer_places(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_rc rc = tern__space(c, q);
  if (rc) return rc;
  for (int d = 0; d < q->n_space; d++) q->role[d] = TERN__ROLE_FIXED;
  q->dtype = TERN_I64;
  tern__operand_of(q, 0, c->in[0], TERN_I64);
  q->want[0] = q->arg[0].dtype == TERN_I64 ? 0 : TERN_I64;
  q->n_in = 4;
  for (int i = 0; i < 3; i++) tern__operand_param(q, i + 1, TERN_I64, c->attr[i]);
  tern__result_space(q, r, TERN_I64);
  tern__operand_out(q, 0, TERN_I64, 0);
  return TERN_OK;
}

static void lower_places(tern__builder *b) {
  const int i = tern__b_in(b, 0), n = tern__b_in(b, 1), inner = tern__b_in(b, 2), end = tern__b_in(b, 3);
  const int zero = tern__b_const_int(b, TERN_I64, 0);
  const int at = tern__b_where(b, tern__b_map2(b, TERN_OP_LT, i, zero), tern__b_map2(b, TERN_OP_ADD, i, n), i);
  const int inside =
      tern__b_map2(b, TERN_OP_AND, tern__b_map2(b, TERN_OP_GE, at, zero), tern__b_map2(b, TERN_OP_LT, at, n));
  const int row = tern__b_map2(b, TERN_OP_ADD, tern__b_map2(b, TERN_OP_MUL, tern__b_iota(b, 0, TERN_I64), n), at);
  const int place =
      tern__b_map2(b, TERN_OP_ADD, tern__b_map2(b, TERN_OP_MUL, row, inner), tern__b_iota(b, 2, TERN_I64));
  tern__b_out(b, 0, tern__b_where(b, inside, place, end));
}

static tern_tensor *sample_along(const tern__sample *s) {
  return tern_take_along_axis(s->x, tern_zeros((tern_shape){2, {2, 3}}, TERN_I64), 1);
}

const tern__op tern__op_take_along_axis = {.name = "take_along_axis",
                                           .family = "along",
                                           .operands = "x, indices, axis",
                                           .doc = "x's elements along axis at indices, of x's rank",
                                           .number = TERN__N_take_along_axis,
                                           .sample = sample_along,
                                           .dtypes = TERN_D_ANY,
                                           .infer = infer_places,
                                           .lower = lower_places};

/* x and indices broadcast to each other but for the axis. */
static bool along_shapes(const tern_tensor *x, const tern_tensor *indices, int axis, tern_shape *from, tern_shape *to) {
  bool fits = x->rank == indices->rank;
  *from = *to = (tern_shape){.rank = x->rank};
  for (int d = 0; d < x->rank && fits; d++) {
    const int64_t a = x->shape[d], b = indices->shape[d];
    fits = d == axis || a == b || a == 1 || b == 1;
    from->dim[d] = d == axis || b == 1 ? a : b;
    to->dim[d] = d == axis || a == 1 ? b : a;
  }
  char a[200], b[200];
  if (!fits)
    tern__fail(
        TERN_E_ARG,
        "take_along_axis: x has shape %s, indices %s; they must have one rank, and equal sizes (or 1) but for axis %d",
        tern__shape_text(a, x->rank, x->shape), tern__shape_text(b, indices->rank, indices->shape), axis);
  return fits;
}

tern_tensor *tern_take_along_axis(tern_tensor *x, tern_tensor *indices, int axis) {
  if (!tern__usable(x, "take_along_axis", 1) || !tern__usable(indices, "take_along_axis", 2)) return NULL;
  axis = tern__axis("take_along_axis", axis, x->rank);
  tern_shape from, to, three = {3, {1, 0, 1}};
  if (axis < 0 || !integer_indices("take_along_axis", indices) || !along_shapes(x, indices, axis, &from, &to))
    return NULL;
  x = tern_expand(x, from);
  indices = x ? tern_expand(indices, to) : NULL;
  if (!indices) return NULL; /* or too large */
  for (int d = 0; d < axis; d++) three.dim[0] *= to.dim[d];
  for (int d = axis + 1; d < x->rank; d++) three.dim[2] *= to.dim[d];
  three.dim[1] = to.dim[axis];
  tern_tensor *flat = tern_flatten(x), *wide = tern_reshape(indices, three);
  if (!flat || !wide) return NULL;
  if (from.dim[axis] == 0 && wide->numel) {
    tern__fail(TERN_E_ARG, "take_along_axis: axis %d is empty, no index is in range", axis);
    return NULL;
  }
  const tern_word attr[] = {{.i = from.dim[axis]}, {.i = three.dim[2]}, {.i = flat->numel}};
  tern_tensor *places = tern__run(&tern__op_take_along_axis, &wide, 1, attr, 3);
  char why[200];
  const long long n = from.dim[axis];
  snprintf(why, sizeof why,
           "take_along_axis: an index is out of range for axis %d of size %lld; they run from %lld to %lld", axis, n,
           -n, n - 1);
  return places ? take_rows(flat, tern_reshape(places, to), why) : NULL;
}

/* ---- gather_nd: tuples to row numbers, in int64 ---- */

static tern_tensor *sample_gather_nd(const tern__sample *s) {
  return tern_gather_nd(s->x, tern_zeros((tern_shape){2, {2, 2}}, TERN_I64));
}
PICK(gather_nd, "x, indices", "slices of x at the index tuples in the last axis of indices");

/* Row numbers of the tuples in [.., n] into the first n axes of x; `rows` for one that is out of range. */
static tern_tensor *tuple_rows(tern_tensor *x, tern_tensor *indices, int n, int64_t rows) {
  int64_t size[TERN_MAX_RANK], step[TERN_MAX_RANK], run = 1;
  for (int d = n; d-- > 0; run *= x->shape[d]) {
    size[d] = x->shape[d];
    step[d] = run;
  }
  const tern_shape list = {1, {n}};
  tern_tensor *sizes = integers_on(x->device, list, size), *steps = integers_on(x->device, list, step);
  tern_tensor *at = tern_cast(indices, TERN_I64), *zero = tern_scalar_int(0);
  if (!sizes || !steps || !at || !zero) return NULL;
  at = tern_where(tern_less(at, zero), tern_add(at, sizes), at);
  const int last = -1;
  const tern_reduce_opts along = {.axes = &last, .n_axes = 1};
  tern_tensor *inside = tern_logical_and(tern_greater_equal(at, zero), tern_less(at, sizes));
  return tern_where(tern_all(inside, &along), tern_sum(tern_mul(at, steps), &along), tern_scalar_int(rows));
}

tern_tensor *tern_gather_nd(tern_tensor *x, tern_tensor *indices) {
  if (!tern__usable(x, "gather_nd", 1) || !tern__usable(indices, "gather_nd", 2)) return NULL;
  if (!integer_indices("gather_nd", indices)) return NULL;
  const int rank = indices->rank;
  const int64_t n = rank ? indices->shape[rank - 1] : -1;
  if (n < 0 || n > x->rank || rank - 1 + x->rank - n > TERN_MAX_RANK) {
    char a[200], b[200];
    tern__fail(
        TERN_E_ARG,
        "gather_nd: indices have shape %s, x has %s; the last size must be the number of axes of x that are indexed, "
        "0 to %d, and the result's rank at most %d",
        tern__shape_text(a, rank, indices->shape), tern__shape_text(b, x->rank, x->shape), x->rank, TERN_MAX_RANK);
    return NULL;
  }
  tern_shape out = tern_shape_of(rank - 1, indices->shape), table = {.rank = 1, .dim = {1}};
  for (int d = 0; d < n; d++) table.dim[0] *= x->shape[d];
  for (int d = (int)n; d < x->rank; d++) out.dim[out.rank++] = table.dim[table.rank++] = x->shape[d];
  if (n == 0) return tern_expand(x, out);
  if (table.dim[0] == 0 && indices->numel) {
    tern__fail(TERN_E_ARG, "gather_nd: the indexed axes of x are empty, no index is in range");
    return NULL;
  }
  tern_tensor *rows = tuple_rows(x, indices, (int)n, table.dim[0]);
  tern_tensor *slices = rows ? tern_reshape(x, table) : NULL;
  char why[300], text[200];
  snprintf(why, sizeof why, "gather_nd: an index is out of range for the first %d axes of shape %s", (int)n,
           tern__shape_text(text, x->rank, x->shape));
  return slices ? take_rows(slices, rows, why) : NULL;
}

/* ---- top_k ---- */

static tern_tensor *sample_top_k(const tern__sample *s) { return tern_top_k(s->x, 2, NULL, NULL); }
PICK(top_k, "x, k, axis", "the k largest along axis, in order, and their indices");

tern_tensor *tern_top_k(tern_tensor *x, int64_t k, tern_tensor **indices, const tern_top_k_opts *opts) {
  if (indices) *indices = NULL;
  if (!tern__usable(x, "top_k", 1)) return NULL;
  const int axis = tern__axis("top_k", opts && opts->axis ? opts->axis : -1, x->rank);
  if (axis < 0) return NULL;
  if (k < 0 || k > x->shape[axis]) {
    tern__fail(TERN_E_ARG, "top_k: k is %lld; axis %d has %lld elements", (long long)k, axis,
               (long long)x->shape[axis]);
    return NULL;
  }
  tern_range first[TERN_MAX_RANK];
  for (int d = 0; d < axis; d++) first[d] = TERN_ALL;
  first[axis] = TERN_RANGE(0, k, 1);
  tern_tensor *order = tern_argsort(x, axis, &(tern_sort_opts){.descending = !(opts && opts->smallest)});
  tern_tensor *places = order ? tern_slice(order, first, axis + 1) : NULL;
  tern_tensor *values = places ? tern_take_along_axis(x, places, axis) : NULL;
  if (values && indices) *indices = places;
  return values;
}

/* ---- searchsorted ---- */

/* What the table entry computes is one step of the search, found bit by bit from the highest: with `count` elements
   known to stand before the place of v, whether `step` more do. Operands: count, then for the decision sorted[min(count
   + step, n) - 1] and v; without them the result is that index. Attributes of the call: right; step and n, which are
   words of the launch. */

static tern_rc infer_search(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_rc rc = tern__space(c, q);
  if (rc) return rc;
  q->dtype = TERN_I64;
  q->n_attrs = 2;
  q->attr[0].u = c->n_in == 3;
  q->attr[1] = c->attr[0];
  q->n_in = (uint8_t)(c->n_in + 2);
  for (int i = 0; i < c->n_in; i++) tern__operand_of(q, i, c->in[i], (tern_dtype)c->in[i]->dtype);
  for (int i = 0; i < 2; i++) tern__operand_param(q, c->n_in + i, TERN_I64, c->attr[1 + i]);
  tern__result_space(q, r, TERN_I64);
  tern__operand_out(q, 0, TERN_I64, 0);
  return TERN_OK;
}

/* Whether a stands before the place of v: a < v, right: a <= v; NaN is the largest and equal to itself. */
static int lower_before(tern__builder *b, int a, int v, bool right) {
  const int is = tern__b_map2(b, right ? TERN_OP_LE : TERN_OP_LT, a, v);
  if (!tern__is_float(tern__b_dtype(b, v))) return is;
  const int last = tern__b_map2(b, TERN_OP_NE, v, v);
  const int also = right ? last : tern__b_map2(b, TERN_OP_AND, last, tern__b_map2(b, TERN_OP_EQ, a, a));
  return tern__b_map2(b, TERN_OP_OR, is, also);
}

static void lower_search(tern__builder *b) {
  const tern__request *q = tern__b_request(b);
  const bool decide = q->attr[0].u;
  const int count = tern__b_in(b, 0), n = tern__b_in(b, decide ? 4 : 2);
  const int next = tern__b_map2(b, TERN_OP_ADD, count, tern__b_in(b, decide ? 3 : 1));
  if (!decide) {
    const int low = tern__b_map2(b, TERN_OP_MINIMUM, next, n);
    tern__b_out(b, 0, tern__b_map2(b, TERN_OP_SUB, low, tern__b_const_int(b, TERN_I64, 1)));
    return;
  }
  const int is = lower_before(b, tern__b_in(b, 1), tern__b_in(b, 2), q->attr[1].u);
  const int go = tern__b_map2(b, TERN_OP_AND, is, tern__b_map2(b, TERN_OP_LE, next, n));
  tern__b_out(b, 0, tern__b_where(b, go, next, count));
}

static tern_tensor *sample_search(const tern__sample *s) { return tern_searchsorted(tern_flatten(s->x), s->y, 0); }

const tern__op tern__op_searchsorted = {.name = "searchsorted",
                                        .family = "along",
                                        .operands = "sorted, values",
                                        .doc = "where values would be inserted into sorted",
                                        .number = TERN__N_searchsorted,
                                        .sample = sample_search,
                                        .dtypes = TERN_D_ANY,
                                        .infer = infer_search,
                                        .lower = lower_search};

static tern_tensor *search(tern_tensor *sorted, tern_tensor *v, bool right) {
  const int64_t n = sorted->shape[0];
  tern_tensor *count = integers_on(v->device, tern_shape_of(v->rank, v->shape), NULL);
  int64_t step = 1;
  while (step <= n / 2) step *= 2;
  for (; step && count; step /= 2) {
    const tern_word attr[] = {{.u = right}, {.i = step}, {.i = n}};
    tern_tensor *place = tern__run(&tern__op_searchsorted, &count, 1, attr, 3);
    tern_tensor *const in[] = {count, place ? tern_take(sorted, place, 0) : NULL, v};
    count = in[1] ? tern__run(&tern__op_searchsorted, in, 3, attr, 3) : NULL;
  }
  return count;
}

/* The same for few comparisons, all made at once. */
static tern_tensor *before(tern_tensor *a, tern_tensor *v, bool right) {
  tern_tensor *is = right ? tern_less_equal(a, v) : tern_less(a, v);
  if (!tern__is_float((tern_dtype)v->dtype)) return is;
  tern_tensor *last = tern_not_equal(v, v);
  return tern_logical_or(is, right ? last : tern_logical_and(last, tern_equal(a, a)));
}

enum { COUNT_AT_MOST = 1 << 12 }; /* comparisons made at once */

tern_tensor *tern_searchsorted(tern_tensor *sorted, tern_tensor *values, int right) {
  if (!tern__usable(sorted, "searchsorted", 1) || !tern__usable(values, "searchsorted", 2)) return NULL;
  if (sorted->rank != 1) {
    tern__fail(TERN_E_ARG, "searchsorted: the sorted values have rank %d; it must be 1", sorted->rank);
    return NULL;
  }
  const bool weak = values->flags & TERN__WEAK;
  const tern_dtype own = (tern_dtype)sorted->dtype;
  const tern_dtype d =
      weak ? tern__promote_weak(own, values->dtype == TERN_F64) : tern__promote(own, (tern_dtype)values->dtype);
  tern_tensor *v = tern_cast(weak ? tern__solid(values, d) : values, d), *s = tern_cast(sorted, d);
  if (!v || !s) return NULL;
  const int64_t n = s->numel;
  if (n == 0 || v->numel == 0) return integers_on(s->device, tern_shape_of(v->rank, v->shape), NULL);
  if (v->rank == TERN_MAX_RANK || v->numel > COUNT_AT_MOST / n) return search(s, v, right != 0);
  const int last = -1;
  tern_tensor *is = before(s, tern_expand_dims(v, -1), right != 0);
  return is ? tern_sum(is, &(tern_reduce_opts){.axes = &last, .n_axes = 1, .dtype = TERN_I64}) : NULL;
}

/* ---- unique ---- */

static tern_tensor *sample_unique(const tern__sample *s) { return tern_unique(s->x, NULL, NULL); }
PICK(unique, "x", "the different values of x, ascending; where each element went and how often each occurs");

static tern_tensor *part(tern_tensor *t, int64_t start, int64_t stop) {
  return t ? tern_slice(t, &TERN_RANGE(start, stop, 1), 1) : NULL;
}

/* For each element of s, sorted, how many different values stand before it (its group's number). All NaN are one
   value. */
static tern_tensor *groups_of(tern_tensor *s) {
  const int64_t n = s->numel;
  tern_tensor *now = part(s, 1, n), *was = part(s, 0, n - 1);
  tern_tensor *fresh = now && was ? tern_not_equal(now, was) : NULL;
  if (fresh && tern__is_float((tern_dtype)s->dtype)) fresh = tern_logical_and(fresh, tern_equal(was, was));
  tern_tensor *padded = fresh ? tern_pad(fresh, &(tern_padding){1, 0}, 1, 0) : NULL;
  padded = padded ? tern_cast(padded, TERN_I64) : NULL;
  return padded ? tern_cumsum(padded, 0, NULL) : NULL;
}

tern_tensor *tern_unique(tern_tensor *x, tern_tensor **inverse, tern_tensor **counts) {
  if (inverse) *inverse = NULL;
  if (counts) *counts = NULL;
  if (!tern__usable(x, "unique", 1)) return NULL;
  const tern_shape shape = tern_shape_of(x->rank, x->shape);
  tern_tensor *flat = tern_flatten(x), *order = NULL;
  if (!flat) return NULL;
  const int64_t n = flat->numel;
  if (n == 0) {
    tern_tensor *no_inverse = integers_on(flat->device, shape, NULL),
                *no_counts = integers_on(flat->device, (tern_shape){1, {0}}, NULL);
    if (!no_inverse || !no_counts) return NULL;
    if (inverse) *inverse = no_inverse;
    if (counts) *counts = no_counts;
    return tern__itself(flat);
  }
  if (inverse && !(order = tern_argsort(flat, 0, NULL))) return NULL;
  tern_tensor *s = order ? tern_take(flat, order, 0) : tern_sort(flat, 0, NULL);
  tern_tensor *groups = s ? groups_of(s) : NULL, *last = groups ? tern_index(groups, 0, n - 1) : NULL;
  if (!last || !tern__readable(last, "unique")) return NULL;
  const int64_t m = tern_item_int(last) + 1;
  if (m < 1 || m > n) return NULL; /* the wait failed: recorded */
  tern_tensor *firsts = tern_searchsorted(groups, arange_on(s->device, m), 0);
  tern_tensor *values = firsts ? tern_take(s, firsts, 0) : NULL, *where = NULL, *how_many = NULL;
  if (values && counts) {
    tern_tensor *ends = tern_pad(part(firsts, 1, m), &(tern_padding){0, 1}, 1, (double)n);
    if (!(how_many = ends ? tern_sub(ends, firsts) : NULL)) return NULL;
  }
  if (values && inverse) { /* element order[i] is in groups[i] */
    tern_tensor *place = tern_argsort(order, 0, NULL);
    if (!(where = place ? tern_reshape(tern_take(groups, place, 0), shape) : NULL)) return NULL;
  }
  if (inverse) *inverse = where;
  if (counts) *counts = how_many;
  return values;
}
