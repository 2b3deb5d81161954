/* Gradient cases of what moves elements: views, joins, arrangements, picking, sorting, scattering. */
#include "tape/gradients.h"

static tern_tensor *indices_of(tern_shape shape, const int64_t *values) {
  return tern_constant(shape, TERN_I64, values, (size_t)test_numel(shape));
}

/* ---- views ---- */

static tern_tensor *reshape(tern_tensor *const *x, int form) {
  if (form == 1) return tern_flatten(x[0]);
  if (form == 2) return tern_squeeze(tern_expand_dims(x[0], 1), 1);
  if (form == 3) return tern_reshape(x[0], TERN_SHAPE());
  return tern_reshape(x[0], TERN_SHAPE(3, 1, -1));
}
static tern_tensor *permute(tern_tensor *const *x, int form) {
  static const int order[] = {2, 0, 1};
  return form == 1 ? tern_transpose(x[0]) : tern_permute(x[0], form ? NULL : order, 3);
}
static tern_tensor *slice(tern_tensor *const *x, int form) {
  const tern_range steps[] = {TERN_RANGE(1, TERN_OPEN, 2), TERN_RANGE(TERN_OPEN, TERN_OPEN, -2)};
  const tern_range backwards[] = {TERN_ALL, TERN_RANGE(-1, 0, -1)};
  if (form == 1) return tern_slice(x[0], backwards, 2);
  if (form == 2) return tern_index(x[0], -1, 1);
  if (form == 3) return tern_slice(x[0], &TERN_RANGE(2, 2, 1), 1);
  if (form == 4) return tern_mul(tern_index(x[0], 0, 0), tern_index(x[0], 0, -1));
  return tern_slice(x[0], steps, 2);
}
static tern_tensor *expand(tern_tensor *const *x, int form) {
  if (form == 1) return tern_expand(x[0], TERN_SHAPE(2, 2));
  if (form == 2) return tern_expand(x[0], TERN_SHAPE(0, 3));
  return tern_square(tern_expand(x[0], TERN_SHAPE(2, 4, -1)));
}
static tern_tensor *embed(tern_tensor *const *x, int form) {
  const tern_range ranges[] = {TERN_RANGE(1, TERN_OPEN, 2), TERN_RANGE(TERN_OPEN, TERN_OPEN, -2)};
  return form ? tern_embed(x[0], TERN_SHAPE(4, 3), &TERN_RANGE(0, 2, 1), 1)
              : tern_embed(x[0], TERN_SHAPE(4, 5), ranges, 2);
}
static tern_tensor *repeat(tern_tensor *const *x, int axis) {
  return tern_repeat(x[0], axis == 2 ? 0 : 3, axis == 2 ? 0 : axis);
}
static tern_tensor *tile(tern_tensor *const *x, int form) {
  return tern_tile(x[0], form ? TERN_SHAPE(3) : TERN_SHAPE(2, 3, 2));
}
static tern_tensor *flip(tern_tensor *const *x, int form) {
  static const int axes[] = {1};
  return tern_flip(x[0], form ? axes : NULL, form);
}
static tern_tensor *roll(tern_tensor *const *x, int shift) { return tern_roll(x[0], shift, 1); }
static tern_tensor *diag(tern_tensor *const *x, int k) { return tern_diag(x[0], k); }
static tern_tensor *triu(tern_tensor *const *x, int k) { return tern_triu(x[0], k); }
static tern_tensor *tril(tern_tensor *const *x, int k) { return tern_tril(x[0], k); }
static tern_tensor *outer(tern_tensor *const *x, int twice) { return tern_outer(x[0], x[!twice]); }

/* ---- joins ---- */

static tern_tensor *concat(tern_tensor *const *x, int form) {
  tern_tensor *const twice[] = {x[0], x[1], x[0]};
  return form == 1 ? tern_concat(twice, 3, 0) : tern_concat(x, 3, 1);
}
static tern_tensor *stack(tern_tensor *const *x, int form) { return tern_stack(x, 2, form ? -1 : 0); }
static tern_tensor *pad(tern_tensor *const *x, int form) {
  static const tern_padding around[] = {{1, 0}, {0, 2}}, none[] = {{0, 0}, {0, 0}};
  return tern_pad(x[0], form ? none : around, 2, 0.5);
}

/* ---- picking ---- */

static tern_tensor *take(tern_tensor *const *x, int form) {
  static const int64_t places[] = {1, 0, -1, 1, 2, 1};
  tern_tensor *i = indices_of((tern_shape){2, {2, 3}}, places);
  if (form == 2) return tern_take(x[0], tern_constant((tern_shape){1, {0}}, TERN_I64, places, 0), 0);
  if (form == 3) return tern_take(x[0], tern_scalar_int(1), 0);
  if (form == 4) return tern_embedding(x[0], i);
  return tern_take(x[0], form ? tern_cast(i, TERN_I32) : i, form ? -1 : 0);
}
static tern_tensor *take_along_axis(tern_tensor *const *x, int form) {
  static const int64_t places[] = {1, 1, -1, 0};
  if (form) return tern_take_along_axis(x[0], indices_of((tern_shape){2, {1, 4}}, places), 1);
  return tern_take_along_axis(x[0], indices_of((tern_shape){2, {4, 1}}, places), 0);
}
static tern_tensor *gather_nd(tern_tensor *const *x, int form) {
  static const int64_t tuples[] = {1, 2, 0, -1, 1, 2};
  return tern_gather_nd(x[0], indices_of(form ? (tern_shape){3, {3, 2, 1}} : (tern_shape){2, {3, 2}},
                                         form ? (int64_t[]){1, 0, 1, 1, 0, 1} : tuples));
}
static tern_tensor *top_k(tern_tensor *const *x, int form) {
  static const tern_top_k_opts smallest = {.axis = -2, .smallest = 1};
  tern_tensor *places;
  return tern_top_k(x[0], 2, form ? &places : NULL, form ? &smallest : NULL);
}
static tern_tensor *sort(tern_tensor *const *x, int form) {
  static const tern_sort_opts descending = {.descending = 1};
  if (form == 1) return tern_sort(x[0], 0, &descending);
  return tern_sort(x[0], form ? 1 : -1, NULL);
}

/* ---- scattering ---- */

/* form: the mode, and 8: places that occur twice, 16: along axis 1 with a matrix of places */
static tern_tensor *scatter(tern_tensor *const *x, int form) {
  static const int64_t once[] = {2, -4, 3}, twice[] = {1, 1, -1}, matrix[] = {0, 2, 1, 3};
  const tern_scatter_mode mode = (tern_scatter_mode)(form & 7);
  if (form & 16) return tern_scatter(x[0], indices_of((tern_shape){2, {2, 2}}, matrix), x[1], 1, mode);
  return tern_scatter(x[0], indices_of((tern_shape){1, {3}}, form & 8 ? twice : once), x[1], 0, mode);
}
static tern_tensor *scatter_add(tern_tensor *const *x, int form) {
  static const int64_t places[] = {1, 1, -1};
  return tern_scatter_add(x[0], indices_of((tern_shape){1, {3}}, places), x[1], form);
}
static tern_tensor *scatter_nd(tern_tensor *const *x, int form) {
  static const int64_t once[] = {0, 2, 1, -1, 3, 0}, twice[] = {0, 2, 1, 1, 0, 2};
  return tern_scatter_nd(x[0], indices_of((tern_shape){2, {3, 2}}, form & 8 ? twice : once), x[1],
                         (tern_scatter_mode)(form & 7));
}

#define MINOR GRADIENT_MINOR
#define A IN(-2, 2, 2, 3)
#define A3 IN(-2, 2, 2, 3, 4)
static const gradient_case rows[] = {
    ROW("reshape", "(3, 1, 2)", reshape, 0, 0, A),
    ROW("reshape", "flatten", reshape, 1, MINOR, A3),
    ROW("reshape", "expand_dims and squeeze", reshape, 2, MINOR, A),
    ROW("reshape", "to a scalar", reshape, 3, MINOR, IN(-2, 2, 1, 1)),
    ROW("reshape", "flatten nothing", reshape, 1, MINOR, IN(-2, 2, 0, 3)),
    ROW("permute", "2, 0, 1", permute, 0, 0, A3),
    ROW("permute", "transpose", permute, 1, MINOR, A3),
    ROW("permute", "reversed", permute, 2, MINOR, A3),
    ROW("slice", "steps 2 and -2", slice, 0, 0, IN(-2, 2, 4, 5)),
    ROW("slice", "backwards, not the first", slice, 1, MINOR, IN(-2, 2, 2, 4, 2)),
    ROW("slice", "index", slice, 2, MINOR, A3),
    ROW("slice", "nothing", slice, 3, MINOR, IN(-2, 2, 4, 2)),
    ROW("slice", "the first and the last row", slice, 4, MINOR, IN(-2, 2, 3, 2)),
    ROW("expand", "(4, 1) to (2, 4, 1)", expand, 0, 0, IN(-2, 2, 4, 1)),
    ROW("expand", "a scalar", expand, 1, MINOR, IN(-2, 2, )),
    ROW("expand", "to nothing", expand, 2, MINOR, IN(-2, 2, 1, 3)),
    ROW("embed", "steps 2 and -2", embed, 0, 0, A),
    ROW("embed", "rows", embed, 1, MINOR, A),
    ROW("repeat", "axis 0", repeat, 0, 0, A),
    ROW("repeat", "axis 1", repeat, 1, MINOR, A),
    ROW("repeat", "not at all", repeat, 2, MINOR, A),
    ROW("tile", "2, 3, 2", tile, 0, 0, A),
    ROW("tile", "3 of (2, 3)", tile, 1, MINOR, A),
    ROW("flip", "all", flip, 0, 0, A3),
    ROW("flip", "axis 1", flip, 1, MINOR, A3),
    ROW("roll", "by 1", roll, 1, 0, A3),
    ROW("roll", "by -7", roll, -7, MINOR, A3),
    ROW("diag", "a matrix of (3,)", diag, 0, 0, IN(-2, 2, 3)),
    ROW("diag", "a matrix of (3,), below", diag, -2, MINOR, IN(-2, 2, 3)),
    ROW("diag", "of (3, 4), above", diag, 1, 0, IN(-2, 2, 3, 4)),
    ROW("diag", "of (2, 4, 3), below", diag, -1, MINOR, IN(-2, 2, 2, 4, 3)),
    ROW("diag", "outside", diag, 5, MINOR, A),
    ROW("triu", "0", triu, 0, 0, IN(-2, 2, 3, 3)),
    ROW("triu", "-1 of (2, 4, 3)", triu, -1, MINOR, IN(-2, 2, 2, 4, 3)),
    ROW("tril", "0", tril, 0, 0, IN(-2, 2, 3, 3)),
    ROW("tril", "1 of (2, 3, 4)", tril, 1, MINOR, A3),
    ROW("outer", "(2, 3) and (4,)", outer, 0, 0, A, IN(-2, 2, 4)),
    ROW("outer", "itself twice", outer, 1, MINOR, IN(-2, 2, 4)),
    ROW("concat", "three along axis 1", concat, 0, 0, A, IN(-2, 2, 2, 1), IN(-2, 2, 2, 0)),
    ROW("concat", "one of them twice", concat, 1, MINOR, A, IN(-2, 2, 1, 3)),
    ROW("stack", "axis 0", stack, 0, 0, A, A),
    ROW("stack", "the last axis", stack, 1, MINOR, A, A),
    ROW("stack", "scalars", stack, 0, MINOR, IN(-2, 2, ), IN(-2, 2, )),
    ROW("pad", "two sides", pad, 0, 0, A),
    ROW("pad", "by nothing", pad, 1, MINOR, A),
    ROW("pad", "round nothing", pad, 0, MINOR, IN(-2, 2, 0, 3)),
    ROW("take", "rows, some twice", take, 0, 0, IN(-2, 2, 4, 3)),
    ROW("take", "the last axis, int32 indices", take, 1, MINOR, A3),
    ROW("take", "nothing", take, 2, MINOR, A),
    ROW("take", "one row", take, 3, MINOR, A),
    ROW("embedding", "some rows twice", take, 4, 0, IN(-2, 2, 4, 3)),
    ROW("take_along_axis", "axis 0", take_along_axis, 0, 0, IN(-2, 2, 3, 4)),
    ROW("take_along_axis", "axis 1", take_along_axis, 1, MINOR, IN(-2, 2, 3, 4)),
    ROW("gather_nd", "elements", gather_nd, 0, 0, A),
    ROW("gather_nd", "slices", gather_nd, 1, MINOR, A3),
    ROW("top_k", "largest", top_k, 0, 0, IN(-2, 2, 2, 5)),
    ROW("top_k", "smallest along axis -2", top_k, 1, MINOR, IN(-2, 2, 5, 2)),
    ROW("sort", "ascending", sort, 0, 0, IN(-2, 2, 2, 5)),
    ROW("sort", "descending along axis 0", sort, 1, MINOR, IN(-2, 2, 5, 2)),
    ROW("sort", "the middle axis", sort, 2, MINOR, IN(-2, 2, 2, 4, 2)),
    ROW("sort", "nothing", sort, 0, MINOR, IN(-2, 2, 0, 3)),
    ROW("scatter", "add", scatter, TERN_SCATTER_ADD, MINOR, IN(-2, 2, 4, 2), IN(-2, 2, 3, 2)),
    ROW("scatter", "set", scatter, TERN_SCATTER_SET, 0, IN(-2, 2, 4, 2), IN(-2, 2, 3, 2)),
    ROW("scatter", "set, the last of two", scatter, 8 | TERN_SCATTER_SET, MINOR, IN(-2, 2, 4, 2), IN(-2, 2, 3, 2)),
    ROW("scatter", "max", scatter, TERN_SCATTER_MAX, 0, IN(-2, 2, 4, 2), IN(-2, 2, 3, 2)),
    ROW("scatter", "max of more than two", scatter, 8 | TERN_SCATTER_MAX, MINOR, IN(-2, 2, 4, 2), IN(-2, 2, 3, 2)),
    ROW("scatter", "min", scatter, 8 | TERN_SCATTER_MIN, MINOR, IN(-2, 2, 4, 2), IN(-2, 2, 3, 2)),
    ROW("scatter", "set along axis 1", scatter, 16 | TERN_SCATTER_SET, MINOR, IN(-2, 2, 2, 4, 2),
        IN(-2, 2, 2, 2, 2, 2)),
    ROW("scatter", "max along axis 1", scatter, 16 | TERN_SCATTER_MAX, MINOR, IN(-2, 2, 2, 4, 2),
        IN(-2, 2, 2, 2, 2, 2)),
    ROW("scatter", "one number set", scatter, TERN_SCATTER_SET, MINOR, IN(-2, 2, 4, 2), IN(-2, 2, )),
    ROW("scatter_add", "axis 0", scatter_add, 0, 0, IN(-2, 2, 4, 2), IN(-2, 2, 3, 2)),
    ROW("scatter_add", "axis 1", scatter_add, 1, MINOR, IN(-2, 2, 2, 4), IN(-2, 2, 2, 3)),
    ROW("scatter_add", "one number", scatter_add, 0, MINOR, IN(-2, 2, 4, 2), IN(-2, 2, )),
    ROW("scatter_nd", "add, some twice", scatter_nd, 8 | TERN_SCATTER_ADD, 0, IN(-2, 2, 4, 3, 2), IN(-2, 2, 3, 2)),
    ROW("scatter_nd", "set", scatter_nd, TERN_SCATTER_SET, MINOR, IN(-2, 2, 4, 3, 2), IN(-2, 2, 3, 2)),
    ROW("scatter_nd", "max", scatter_nd, 8 | TERN_SCATTER_MAX, MINOR, IN(-2, 2, 4, 3), IN(-2, 2, 3)),
    ROW("scatter_nd", "min", scatter_nd, TERN_SCATTER_MIN, MINOR, IN(-2, 2, 4, 3), IN(-2, 2, 3)),
};

void gradient_arrange_cases(gradient_visit visit, void *context) { GRADIENT_ROWS(rows, visit, context); }
