/* Every family of ops gives for a view (reversed, stepped, transposed, expanded, offset) what it gives for a row-
   major copy of it. */
#include "support/values.h"
#include <stdlib.h>
#include <string.h>

/* A random view of a fresh tensor of small positive whole numbers; rank 1 to 4. */
static tern_tensor *random_view(uint64_t *state, tern_dtype d) {
  tern_shape shape = {.rank = 1 + (int)test_below(state, 4)};
  double v[2048];
  for (int k = 0; k < shape.rank; k++) shape.dim[k] = 1 + test_below(state, 6);
  for (int64_t i = 0; i < test_numel(shape); i++) v[i] = (double)(1 + test_below(state, 7));
  tern_tensor *t = test_tensor(shape, d, v);
  tern_range ranges[TERN_MAX_RANK];
  for (int k = 0; k < shape.rank; k++) {
    static const int64_t steps[] = {1, 1, -1, 2, -2};
    const int64_t step = steps[test_below(state, 5)], skip = test_below(state, 2) && shape.dim[k] > 1;
    ranges[k] = TERN_RANGE(step > 0 ? skip : TERN_OPEN, step > 0 || !skip ? TERN_OPEN : 0, step);
  }
  if (test_below(state, 2)) t = tern_slice(t, ranges, shape.rank);
  int order[TERN_MAX_RANK];
  for (int k = 0; k < shape.rank; k++) order[k] = k;
  for (int k = shape.rank; k > 1; k--) {
    const int other = (int)test_below(state, k), swap = order[k - 1];
    order[k - 1] = order[other];
    order[other] = swap;
  }
  if (test_below(state, 2)) t = tern_permute(t, order, shape.rank);
  tern_shape wide = tern_shape_get(t);
  bool expands = false;
  for (int k = 0; k < wide.rank; k++)
    if (wide.dim[k] == 1 && test_below(state, 2)) {
      wide.dim[k] = 1 + test_below(state, 4);
      expands = true;
    }
  if (wide.rank < 4 && test_below(state, 4) == 0) {
    for (int k = wide.rank; k > 0; k--) wide.dim[k] = wide.dim[k - 1];
    wide.dim[0] = 1 + test_below(state, 3);
    wide.rank++;
    expands = true;
  }
  return expands ? tern_expand(t, wide) : t;
}

/* What an op is given: x, one of its axes, and that axis again with the last one. */
typedef struct given {
  tern_tensor *x;
  int axis;
  const tern_reduce_opts *one, *two;
} given;

static tern_tensor *f_neg(given g) { return tern_neg(g.x); }
static tern_tensor *f_sqrt(given g) { return tern_sqrt(g.x); }
static tern_tensor *f_cast(given g) { return tern_cast(g.x, TERN_I16); }
static tern_tensor *f_twice(given g) { return tern_add(g.x, g.x); }
static tern_tensor *f_scalar(given g) { return tern_sub(tern_scalar_int(9), g.x); }
static tern_tensor *f_row(given g) { return tern_mul(g.x, tern_expand_dims(tern_index(g.x, g.axis, -1), g.axis)); }
static tern_tensor *f_where(given g) { return tern_where(tern_less(g.x, tern_scalar_int(4)), g.x, tern_scalar_int(0)); }
static tern_tensor *f_clip(given g) { return tern_clip(g.x, tern_scalar_int(2), g.x); }
static tern_tensor *f_sum(given g) { return tern_sum(g.x, g.one); }
static tern_tensor *f_sum_all(given g) { return tern_sum(g.x, NULL); }
static tern_tensor *f_prod(given g) { return tern_prod(g.x, g.one); }
static tern_tensor *f_max(given g) { return tern_max(g.x, g.two); }
static tern_tensor *f_argmax(given g) { return tern_argmax(g.x, g.two); }
static tern_tensor *f_argmin(given g) { return tern_argmin(g.x, NULL); }
static tern_tensor *f_var(given g) { return tern_var(g.x, g.two); }
static tern_tensor *f_logsumexp(given g) { return tern_logsumexp(g.x, g.one); }
static tern_tensor *f_softmax(given g) { return tern_softmax(g.x, g.axis); }
static tern_tensor *f_layer_norm(given g) {
  return tern_layer_norm(g.x, TERN_NONE, TERN_NONE, &(tern_layer_norm_opts){.axis = g.axis ? g.axis : -1});
}
static tern_tensor *f_cumsum(given g) {
  return tern_cumsum(g.x, g.axis, &(tern_scan_opts){.exclusive = 1, .reverse = 1});
}
static tern_tensor *f_cumprod(given g) { return tern_cumprod(g.x, g.axis, NULL); }
static tern_tensor *f_sort(given g) { return tern_sort(g.x, g.axis, &(tern_sort_opts){.descending = 1}); }
static tern_tensor *f_argsort(given g) { return tern_argsort(g.x, g.axis, NULL); }
static tern_tensor *f_take(given g) { return tern_take(g.x, tern_i64(TERN_SHAPE(2, 1), 0, -1), g.axis); }
static tern_tensor *f_index(given g) { return tern_take(tern_arange(0, 20, 1, TERN_F32), tern_cast(g.x, TERN_I32), 0); }
static tern_tensor *f_one_hot(given g) { return tern_one_hot(tern_cast(g.x, TERN_I64), 9, TERN_F32); }
static tern_tensor *f_concat(given g) { return tern_concat((tern_tensor *[]){g.x, tern_neg(g.x), g.x}, 3, g.axis); }
static tern_tensor *f_stack(given g) { return tern_stack((tern_tensor *[]){g.x, g.x}, 2, g.axis); }
static tern_tensor *f_pad(given g) {
  return tern_pad(g.x, (const tern_padding[4]){{1, 0}, {0, 2}, {0, 0}, {1, 1}}, tern_rank(g.x), 5);
}
static tern_tensor *f_square(given g) { /* x . x^T, batched */
  return tern_rank(g.x) < 2 ? tern_matmul(g.x, g.x) : tern_matmul(g.x, tern_transpose(g.x));
}
static tern_tensor *f_flat(given g) { return tern_flatten(g.x); }
static tern_tensor *f_clone(given g) { return tern_clone(g.x); }

#define OP(name) \
  { #name, f_##name }
static const struct {
  const char *name;
  tern_tensor *(*run)(given);
} ops[] = {OP(neg),     OP(sqrt),       OP(cast),   OP(twice),   OP(scalar), OP(row),     OP(where), OP(clip),
           OP(sum),     OP(sum_all),    OP(prod),   OP(max),     OP(argmax), OP(argmin),  OP(var),   OP(logsumexp),
           OP(softmax), OP(layer_norm), OP(cumsum), OP(cumprod), OP(sort),   OP(argsort), OP(take),  OP(index),
           OP(one_hot), OP(concat),     OP(stack),  OP(pad),     OP(square), OP(flat),    OP(clone)};
enum { N_OPS = sizeof ops / sizeof *ops };

static void compare(uint64_t *state, tern_dtype d, int turn) {
  TERN_SCOPE;
  tern_tensor *view = random_view(state, d), *copy = tern_clone(view);
  if (!CHECK(view && copy && tern_size(view) > 0, "turn %d: %s", turn, tern_error())) return;
  const int axis = (int)test_below(state, tern_rank(view)), last = tern_rank(view) - 1, axes[] = {axis, last};
  const tern_reduce_opts one = {.axes = axes, .n_axes = 1},
                         two = {.axes = axes, .n_axes = axis == last ? 1 : 2, .keepdims = 1};
  for (int k = 0; k < N_OPS; k++) {
    if (!test_chosen()) continue;
    char what[120];
    snprintf(what, sizeof what, "turn %d: %s of a view of rank %d, axis %d", turn, ops[k].name, tern_rank(view), axis);
    tern_tensor *expected = ops[k].run((given){copy, axis, &one, &two}),
                *got = ops[k].run((given){view, axis, &one, &two});
    double *values = test_values(expected);
    if (CHECK(values != NULL, "%s: %s", what, tern_error()))
      CHECK_VALUES(got, tern_shape_get(expected), tern_dtype_get(expected), values, 16, 1e-5, what);
    tern_error_clear();
    free(values);
  }
}

/* Fewer turns where every class of strides is a kernel that takes a while to compile. */
static void turns(tern_dtype d, int n) {
  uint64_t state = (uint64_t)d;
  if (strncmp(tern_default_device(), "cpu", 3)) n /= 8;
  for (int turn = 0; turn < n; turn++) compare(&state, d, turn);
}

static void test_floats(void) { turns(TERN_F32, 300); }
static void test_integers(void) { turns(TERN_I64, 100); }
static void test_bytes(void) { turns(TERN_U8, 100); }

static const test_case cases[] = {{"float32", test_floats}, {"int64", test_integers}, {"uint8", test_bytes}};
TEST_MAIN("operands that are views", cases)
