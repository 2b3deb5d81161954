/* Views against a model: the same chain of random views is applied to a tensor and to a list of positions kept by
   plain loops. */
#include "support/values.h"
#include <stdlib.h>
#include <string.h>

#define MOST 4096

/* A view as a list: element i (row-major) of `shape` is element `from[i]` of the original. */
typedef struct model {
  tern_shape shape;
  int64_t from[MOST];
} model;

static model whole(tern_shape shape) {
  model m = {.shape = shape};
  for (int64_t i = 0; i < test_numel(shape); i++) m.from[i] = i;
  return m;
}

static int matches(tern_tensor *t, const model *m, const char *what) {
  double expected[MOST];
  for (int64_t i = 0; i < test_numel(m->shape); i++) expected[i] = (double)m->from[i];
  return CHECK_VALUES(t, m->shape, TERN_F32, expected, 0, 0, what);
}

/* Fill `out` by asking, for each index of out->shape, where in `in` it lies. */
static void remap(model *out, const model *in, void (*source)(const int64_t *index, int64_t *from, const void *how),
                  const void *how) {
  int64_t index[TERN_MAX_RANK] = {0}, from[TERN_MAX_RANK];
  if (test_numel(out->shape)) do {
      source(index, from, how);
      out->from[test_at(out->shape, index)] = in->from[test_at(in->shape, from)];
    } while (test_step(out->shape, index));
}

typedef struct slicing {
  int rank;
  int64_t start[TERN_MAX_RANK], step[TERN_MAX_RANK];
} slicing;
static void source_slice(const int64_t *index, int64_t *from, const void *how) {
  const slicing *s = how;
  for (int d = 0; d < s->rank; d++) from[d] = s->start[d] + index[d] * s->step[d];
}

/* Python's range of one axis by stepping: the places it visits. */
static int64_t visit(tern_range r, int64_t size, int64_t *first) {
  const int64_t step = r.step ? r.step : 1;
  int64_t at, n = 0;
  if (r.start == TERN_OPEN)
    at = step > 0 ? 0 : size - 1;
  else {
    at = r.start < 0 ? r.start + size : r.start;
    if (at < 0) at = step > 0 ? 0 : -1;
    if (at > size - 1) at = step > 0 ? size : size - 1;
  }
  *first = at;
  const int64_t stop = r.stop == TERN_OPEN ? (step > 0 ? size : -1)
                       : r.stop < 0        ? (r.stop + size < 0 ? -1 : r.stop + size)
                                           : r.stop;
  for (; at >= 0 && at < size && (step > 0 ? at < stop : at > stop); at += step) n++;
  return n;
}

static int64_t bound(uint64_t *state, int64_t size) {
  const int64_t kind = test_below(state, 8);
  if (kind == 0) return TERN_OPEN;
  if (kind == 1) return test_below(state, 2) ? 1000 : -1000;
  return test_below(state, 2 * size + 3) - size - 1;
}

static tern_tensor *do_slice(tern_tensor *t, model *m, uint64_t *state) {
  tern_range ranges[TERN_MAX_RANK];
  slicing s = {.rank = m->shape.rank};
  model out = {.shape = {.rank = m->shape.rank}};
  const int n = (int)test_below(state, m->shape.rank + 1);
  for (int d = 0; d < m->shape.rank; d++) {
    ranges[d] = TERN_RANGE(bound(state, m->shape.dim[d]), bound(state, m->shape.dim[d]), test_below(state, 7) - 3);
    if (d >= n) ranges[d] = TERN_ALL;
    out.shape.dim[d] = visit(ranges[d], m->shape.dim[d], &s.start[d]);
    s.step[d] = ranges[d].step ? ranges[d].step : 1;
  }
  remap(&out, m, source_slice, &s);
  *m = out;
  return tern_slice(t, ranges, n);
}

static void source_permute(const int64_t *index, int64_t *from, const void *how) {
  const int *order = how;
  for (int d = 1; d <= order[0]; d++) from[order[d]] = index[d - 1];
}

static tern_tensor *do_permute(tern_tensor *t, model *m, uint64_t *state) {
  int order[TERN_MAX_RANK + 1] = {m->shape.rank}, given[TERN_MAX_RANK];
  model out = {.shape = {.rank = m->shape.rank}};
  const bool reverse = test_below(state, 4) == 0, last = !reverse && m->shape.rank > 1 && test_below(state, 3) == 0;
  for (int d = 0; d < m->shape.rank; d++) order[d + 1] = reverse ? m->shape.rank - 1 - d : d;
  if (last) {
    order[m->shape.rank] = m->shape.rank - 2;
    order[m->shape.rank - 1] = m->shape.rank - 1;
  }
  for (int d = m->shape.rank; !reverse && !last && d > 1; d--) {
    const int other = (int)test_below(state, d) + 1, swap = order[d];
    order[d] = order[other];
    order[other] = swap;
  }
  for (int d = 0; d < m->shape.rank; d++) {
    out.shape.dim[d] = m->shape.dim[order[d + 1]];
    given[d] = test_below(state, 2) ? order[d + 1] : order[d + 1] - m->shape.rank;
  }
  remap(&out, m, source_permute, order);
  *m = out;
  return reverse ? tern_permute(t, NULL, 0) : last ? tern_transpose(t) : tern_permute(t, given, m->shape.rank);
}

static void source_expand(const int64_t *index, int64_t *from, const void *how) {
  const tern_shape *shapes = how; /* in, out */
  const int extra = shapes[1].rank - shapes[0].rank;
  for (int d = 0; d < shapes[0].rank; d++) from[d] = shapes[0].dim[d] == 1 ? 0 : index[d + extra];
}

static tern_tensor *do_expand(tern_tensor *t, model *m, uint64_t *state) {
  tern_shape shapes[2] = {m->shape, m->shape}, given;
  if (m->shape.rank < TERN_MAX_RANK && test_below(state, 2)) {
    shapes[1].rank++;
    shapes[1].dim[0] = 1 + test_below(state, 2);
    for (int d = 0; d < m->shape.rank; d++) shapes[1].dim[d + 1] = m->shape.dim[d];
  }
  given = shapes[1];
  const int extra = shapes[1].rank - shapes[0].rank;
  for (int d = extra; d < shapes[1].rank; d++) {
    if (shapes[1].dim[d] == 1 && test_below(state, 2))
      given.dim[d] = shapes[1].dim[d] = test_below(state, 4);
    else if (test_below(state, 2))
      given.dim[d] = -1;
  }
  if (test_numel(shapes[1]) > MOST) return tern_reshape(t, m->shape);
  model out = {.shape = shapes[1]};
  remap(&out, m, source_expand, shapes);
  *m = out;
  return tern_expand(t, given);
}

/* Another factorisation of the count. */
static tern_tensor *do_reshape(tern_tensor *t, model *m, uint64_t *state) {
  int64_t n = test_numel(m->shape);
  tern_shape shape = {.rank = 0};
  if (n == 0) {
    shape = TERN_SHAPE(test_below(state, 3), 0);
    m->shape = shape;
    return tern_reshape(t, shape);
  }
  while (n > 1 && shape.rank < 5) {
    int64_t f = 2;
    while (n % f && f < n) f++;
    if (shape.rank && test_below(state, 3) == 0)
      shape.dim[shape.rank - 1] *= f;
    else
      shape.dim[shape.rank++] = f;
    if (test_below(state, 5) == 0) shape.dim[shape.rank++] = 1;
    n /= f;
  }
  if (n > 1) shape.dim[shape.rank++] = n;
  for (int d = shape.rank; d > 1; d--) {
    const int other = (int)test_below(state, d);
    const int64_t swap = shape.dim[d - 1];
    shape.dim[d - 1] = shape.dim[other];
    shape.dim[other] = swap;
  }
  m->shape = shape;
  if (shape.rank && test_below(state, 2)) shape.dim[test_below(state, shape.rank)] = -1;
  return tern_reshape(t, shape);
}

static void source_index(const int64_t *index, int64_t *from, const void *how) {
  const int64_t *h = how; /* rank of the input, axis, place */
  for (int d = 0; d < h[0]; d++) from[d] = d < h[1] ? index[d] : d == h[1] ? h[2] : index[d - 1];
}

static tern_tensor *do_index(tern_tensor *t, model *m, uint64_t *state) {
  if (m->shape.rank == 0) return tern_flatten(tern_expand_dims(t, 0)), tern_reshape(t, TERN_SHAPE());
  const int axis = (int)test_below(state, m->shape.rank);
  if (m->shape.dim[axis] == 0) return tern_reshape(t, m->shape);
  const int64_t size = m->shape.dim[axis], how[] = {m->shape.rank, axis, test_below(state, size)};
  model out = {.shape = {.rank = m->shape.rank - 1}};
  for (int d = 0; d < out.shape.rank; d++) out.shape.dim[d] = m->shape.dim[d + (d >= axis)];
  remap(&out, m, source_index, how);
  const int named = test_below(state, 2) ? axis : axis - m->shape.rank;
  *m = out;
  return tern_index(t, named, test_below(state, 2) ? how[2] : how[2] - size);
}

static tern_tensor *do_ones(tern_tensor *t, model *m, uint64_t *state) {
  tern_shape shape = {.rank = 0};
  if (test_below(state, 2) && m->shape.rank < TERN_MAX_RANK) {
    const int axis = (int)test_below(state, m->shape.rank + 1);
    for (int d = 0; d < m->shape.rank; d++) {
      if (d == axis) shape.dim[shape.rank++] = 1;
      shape.dim[shape.rank++] = m->shape.dim[d];
    }
    if (axis == m->shape.rank) shape.dim[shape.rank++] = 1;
    m->shape = shape;
    return tern_expand_dims(t, test_below(state, 2) ? axis : axis - shape.rank);
  }
  int one = -1;
  for (int d = 0; d < m->shape.rank; d++)
    if (m->shape.dim[d] == 1) one = d;
  const bool all = one < 0 || test_below(state, 2);
  for (int d = 0; d < m->shape.rank; d++)
    if (all ? m->shape.dim[d] != 1 : d != one) shape.dim[shape.rank++] = m->shape.dim[d];
  m->shape = shape;
  return tern_squeeze(t, all ? TERN_ALL_AXES : one);
}

static void test_chains(void) {
  static const struct {
    const char *name;
    tern_tensor *(*run)(tern_tensor *, model *, uint64_t *);
  } steps[] = {{"slice", do_slice},     {"permute", do_permute}, {"expand", do_expand},
               {"reshape", do_reshape}, {"index", do_index},     {"expand_dims or squeeze", do_ones}};
  uint64_t state = 1;
  for (int chain = 0; chain < 3000; chain++) {
    TERN_SCOPE;
    tern_shape shape = {.rank = (int)test_below(&state, 5)};
    for (int d = 0; d < shape.rank; d++)
      shape.dim[d] = test_below(&state, 40) == 0 ? 0 : 1 + test_below(&state, d == shape.rank - 1 ? 7 : 5);
    model m = whole(shape);
    const int64_t n = test_numel(shape);
    tern_tensor *t = tern_reshape(tern_arange(0, (double)n, 1, TERN_F32), shape);
    char what[120];
    int at = snprintf(what, sizeof what, "chain %d:", chain);
    for (int k = 0; k < 4 && t; k++) {
      const size_t step = (size_t)test_below(&state, sizeof steps / sizeof *steps);
      at += snprintf(what + at, sizeof what - (size_t)at, " %s", steps[step].name);
      t = steps[step].run(t, &m, &state);
      if (!matches(t, &m, what)) break;
      if (!matches(tern_contiguous(t), &m, what) || !matches(tern_neg(tern_neg(t)), &m, what)) break;
    }
  }
  CHECK_NO_ERROR();
}

static void test_slices(void) {
  /* all of start, stop, step in a small range, against Python's rule */
  TERN_SCOPE;
  tern_tensor *t = tern_arange(0, 4, 1, TERN_F32);
  for (int64_t start = -6; start <= 6; start++)
    for (int64_t stop = -6; stop <= 6; stop++)
      for (int64_t step = -3; step <= 3; step++) {
        TERN_SCOPE;
        const tern_range r = TERN_RANGE(start == 6 ? TERN_OPEN : start, stop == 6 ? TERN_OPEN : stop, step);
        int64_t first;
        const int64_t n = visit(r, 4, &first);
        double expected[8];
        for (int64_t i = 0; i < n; i++) expected[i] = (double)(first + i * (step ? step : 1));
        CHECK_VALUES(tern_slice(t, &r, 1), TERN_SHAPE(n), TERN_F32, expected, 0, 0, "slice");
      }
  const tern_range extreme[] = {TERN_RANGE(INT64_MIN, INT64_MAX - 1, INT64_MAX),
                                TERN_RANGE(INT64_MAX - 1, INT64_MIN, INT64_MIN + 1)};
  CHECK_LIST(tern_slice(t, &extreme[0], 1), TERN_SHAPE(1), TERN_F32, 0);
  CHECK_LIST(tern_slice(t, &extreme[1], 1), TERN_SHAPE(1), TERN_F32, 3);
}

/* A view costs no memory and, written through from_host's memory, shows the same elements. */
static void test_shared(void) {
  float data[6] = {1, 2, 3, 4, 5, 6};
  TERN_SCOPE;
  tern_tensor *t = tern_from_host(TERN_SHAPE(2, 3), TERN_F32, data, NULL, NULL);
  tern_memory before, after;
  CHECK(tern_memory_info(NULL, &before) == TERN_OK, "memory");
  tern_tensor *views[] = {
      tern_transpose(t),   tern_reshape(t, TERN_SHAPE(3, 2)),
      tern_index(t, 0, 1), tern_expand(t, TERN_SHAPE(4, 2, 3)),
      tern_flatten(t),     tern_slice(t, (tern_range[]){TERN_ALL, TERN_RANGE(TERN_OPEN, TERN_OPEN, -2)}, 2),
      tern_contiguous(t)};
  CHECK(tern_memory_info(NULL, &after) == TERN_OK && after.live == before.live, "views took %lld bytes",
        (long long)(after.live - before.live));
  data[3] = 40; /* nothing runs now: the caller's memory may be written to between ops */
  CHECK_LIST(views[0], TERN_SHAPE(3, 2), TERN_F32, 1, 40, 2, 5, 3, 6);
  CHECK_LIST(views[1], TERN_SHAPE(3, 2), TERN_F32, 1, 2, 3, 40, 5, 6);
  CHECK_LIST(views[2], TERN_SHAPE(3), TERN_F32, 40, 5, 6);
  CHECK_LIST(tern_index(views[3], 0, 3), TERN_SHAPE(2, 3), TERN_F32, 1, 2, 3, 40, 5, 6);
  CHECK_LIST(views[5], TERN_SHAPE(2, 2), TERN_F32, 3, 1, 6, 40);
  CHECK_LIST(views[6], TERN_SHAPE(2, 3), TERN_F32, 1, 2, 3, 40, 5, 6);
  tern_tensor *copy = tern_clone(t);
  data[0] = 100;
  CHECK_LIST(copy, TERN_SHAPE(2, 3), TERN_F32, 1, 2, 3, 40, 5, 6);
  /* a view keeps the storage when the tensor it was made from is gone */
  tern_tensor *outlived;
  {
    TERN_SCOPE;
    outlived = tern_escape(tern_index(tern_f32(TERN_SHAPE(2, 2), 1, 2, 3, 4), 0, 1));
  }
  CHECK_LIST(outlived, TERN_SHAPE(2), TERN_F32, 3, 4);
  CHECK_NO_ERROR();
}

static void test_variables(void) {
  TERN_SCOPE;
  tern_tensor *v = tern_variable(tern_f32(TERN_SHAPE(2, 2), 1, 2, 3, 4), &(tern_variable_opts){.name = "w"});
  tern_tensor *view = tern_transpose(v), *row = tern_index(v, 0, 0), *flat = tern_flatten(v),
              *sum = tern_add(v, tern_scalar(1));
  tern_tensor *same = tern_contiguous(v), *cast = tern_cast(v, TERN_F32), *moved = tern_to(v, tern_device_get(v)),
              *kept = tern_reshape(v, TERN_SHAPE(4));
  CHECK(!strcmp(tern_variable_name(v), "w") && !strcmp(tern_variable_name(view), "") &&
            !strcmp(tern_variable_name(NULL), ""),
        "names");
  CHECK(tern_assign(v, tern_f32(TERN_SHAPE(2, 2), 10, 20, 30, 40)) == TERN_OK, "assign: %s", tern_error());
  CHECK_LIST(v, TERN_SHAPE(2, 2), TERN_F32, 10, 20, 30, 40);
  CHECK_LIST(view, TERN_SHAPE(2, 2), TERN_F32, 1, 3, 2, 4);
  CHECK_LIST(row, TERN_SHAPE(2), TERN_F32, 1, 2);
  CHECK_LIST(flat, TERN_SHAPE(4), TERN_F32, 1, 2, 3, 4);
  CHECK_LIST(sum, TERN_SHAPE(2, 2), TERN_F32, 2, 3, 4, 5);
  CHECK_LIST(kept, TERN_SHAPE(4), TERN_F32, 1, 2, 3, 4);
  /* "Tensors that were computed before keep theirs": these three are results of ops, whether or not they computed */
  CHECK_LIST(same, TERN_SHAPE(2, 2), TERN_F32, 1, 2, 3, 4);
  CHECK_LIST(cast, TERN_SHAPE(2, 2), TERN_F32, 1, 2, 3, 4);
  CHECK_LIST(moved, TERN_SHAPE(2, 2), TERN_F32, 1, 2, 3, 4);
  CHECK(tern_assign(v, tern_scalar(7)) == TERN_OK, "assign of a scalar: %s", tern_error());
  CHECK_LIST(v, TERN_SHAPE(2, 2), TERN_F32, 7, 7, 7, 7);
  CHECK(tern_assign(v, tern_i32(TERN_SHAPE(2, 2), 1, 2, 3, 4)) == TERN_OK, "assign of another dtype: %s", tern_error());
  CHECK_LIST(v, TERN_SHAPE(2, 2), TERN_F32, 1, 2, 3, 4);
  CHECK(tern_assign(v, tern_transpose(v)) == TERN_OK, "assign of its own view: %s", tern_error());
  CHECK_LIST(v, TERN_SHAPE(2, 2), TERN_F32, 1, 3, 2, 4);
  CHECK(tern_assign(v, v) == TERN_OK, "assign of itself: %s", tern_error());
  for (int i = 0; i < 100; i++) {
    TERN_SCOPE;
    CHECK(tern_assign(v, tern_add(v, tern_ones(TERN_SHAPE(2, 2), TERN_F32))) == TERN_OK, "step %d: %s", i,
          tern_error());
  }
  CHECK_LIST(v, TERN_SHAPE(2, 2), TERN_F32, 101, 103, 102, 104);
  tern_release(v);
  tern_tensor *zero = tern_variable(tern_scalar(3), NULL), *integer = tern_variable(tern_scalar_int(3), NULL);
  CHECK_LIST(zero, TERN_SHAPE(), TERN_F32, 3);
  CHECK_LIST(integer, TERN_SHAPE(), TERN_I64, 3);
  tern_release(zero);
  tern_release(integer);
  CHECK_NO_ERROR();
}

static void test_scalars(void) {
  TERN_SCOPE;
  CHECK_LIST(tern_reshape(tern_scalar(2), TERN_SHAPE(1, 1)), TERN_SHAPE(1, 1), TERN_F32, 2);
  CHECK_LIST(tern_expand(tern_scalar_int(2), TERN_SHAPE(3)), TERN_SHAPE(3), TERN_I64, 2, 2, 2);
  CHECK_LIST(tern_expand_dims(tern_scalar(2), -1), TERN_SHAPE(1), TERN_F32, 2);
  CHECK_LIST(tern_permute(tern_scalar(2), NULL, 0), TERN_SHAPE(), TERN_F32, 2);
  CHECK_LIST(tern_flatten(tern_scalar(2)), TERN_SHAPE(1), TERN_F32, 2);
  CHECK_LIST(tern_squeeze(tern_f32(TERN_SHAPE(1, 1), 2), TERN_ALL_AXES), TERN_SHAPE(), TERN_F32, 2);
  CHECK_LIST(tern_slice(tern_scalar(2), NULL, 0), TERN_SHAPE(), TERN_F32, 2);
  CHECK(tern_index(tern_scalar(2), 0, 0) == NULL, "index of a scalar");
  CHECK_ERROR(TERN_E_ARG, "index");
}

static const test_case cases[] = {{"chains of views", test_chains},
                                  {"every small slice", test_slices},
                                  {"views share memory", test_shared},
                                  {"variables and snapshots", test_variables},
                                  {"views of scalars", test_scalars}};
TEST_MAIN("views", cases)
