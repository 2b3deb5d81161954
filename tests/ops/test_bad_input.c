/* What a caller can get wrong: every family must refuse it with an error that names the op, the shapes and dtypes and
   a remedy, go on working afterwards, and leak nothing (run under AddressSanitizer). Runs on TERN_DEVICE. */
#include "support/values.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The expression must give NULL and leave an error of that code whose text contains the part. */
#define REFUSED(expression, code, part)                       \
  do {                                                        \
    CHECK((expression) == NULL, "%s must fail", #expression); \
    CHECK_ERROR(code, part);                                  \
  } while (0)

static tern_tensor *ones(tern_shape shape) { return tern_ones(shape, TERN_F32); }

static void test_shapes(void) {
  TERN_SCOPE;
  tern_tensor *a = ones(TERN_SHAPE(2, 3)), *b = ones(TERN_SHAPE(4, 3)), *v = ones(TERN_SHAPE(5));
  REFUSED(tern_add(a, b), TERN_E_ARG, "add: the shapes of float32 (2, 3), float32 (4, 3) do not broadcast");
  REFUSED(tern_where(tern_ones(TERN_SHAPE(7), TERN_BOOL), a, a), TERN_E_ARG, "where");
  REFUSED(tern_clip(a, v, TERN_NONE), TERN_E_ARG, "clip");
  REFUSED(tern_logaddexp(a, v), TERN_E_ARG, "logaddexp");
  REFUSED(tern_matmul(a, b), TERN_E_ARG, "(2, 3) and (4, 3)");
  REFUSED(tern_matmul(a, v), TERN_E_ARG, "matmul");
  REFUSED(tern_matmul(v, a), TERN_E_ARG, "matmul");
  REFUSED(tern_matmul(a, tern_scalar(2)), TERN_E_ARG, "tern_mul");
  REFUSED(tern_matmul(ones(TERN_SHAPE(2, 2, 3)), ones(TERN_SHAPE(3, 3, 2))), TERN_E_ARG, "broadcast");
  REFUSED(tern_dot(a, ones(TERN_SHAPE(2, 2, 2))), TERN_E_ARG, "");
  REFUSED(tern_sum(a, TERN_AXES(2)), TERN_E_ARG, "sum: axis 2");
  REFUSED(tern_mean(a, TERN_AXES(-3)), TERN_E_ARG, "mean: axis -3");
  REFUSED(tern_max(a, TERN_AXES(0, 0)), TERN_E_ARG, "twice");
  REFUSED(tern_min(a, TERN_AXES(0, -2)), TERN_E_ARG, "twice");
  REFUSED(tern_sum(a, &(tern_reduce_opts){.n_axes = 1}), TERN_E_ARG, "NULL");
  REFUSED(tern_sum(a, &(tern_reduce_opts){.n_axes = -1}), TERN_E_ARG, "n_axes");
  REFUSED(tern_cumsum(a, 2, NULL), TERN_E_ARG, "cumsum: axis 2");
  REFUSED(tern_sort(a, -3, NULL), TERN_E_ARG, "sort: axis -3");
  REFUSED(tern_softmax(a, 5), TERN_E_ARG, "softmax: axis 5");
  REFUSED(tern_layer_norm(a, v, TERN_NONE, NULL), TERN_E_ARG,
          "layer_norm: scale has shape (5,); it must have that of the normalised axes, (3,)");
  REFUSED(tern_concat((tern_tensor *[]){a, b, v}, 3, 0), TERN_E_ARG, "concat: operand 3");
  REFUSED(tern_concat((tern_tensor *[]){a, b}, 2, 1), TERN_E_ARG, "(4, 3)");
  REFUSED(tern_concat(NULL, 0, 0), TERN_E_ARG, "no tensors");
  REFUSED(tern_concat((tern_tensor *[]){ones(TERN_SHAPE())}, 1, 0), TERN_E_ARG, "axis 0");
  REFUSED(tern_stack((tern_tensor *[]){a, b}, 2, 0), TERN_E_ARG, "stack: operand 2");
  REFUSED(tern_pad(a, (tern_padding[]){{1, 1}}, 1, 0), TERN_E_ARG, "pad");
  REFUSED(tern_pad(a, (tern_padding[]){{1, 1}, {-1, 0}}, 2, 0), TERN_E_ARG, "pad: axis 1");
  REFUSED(tern_pad(a, (tern_padding[]){{INT64_MAX, 1}, {0, 0}}, 2, 0), TERN_E_ARG, "pad");
  REFUSED(tern_reshape(a, TERN_SHAPE(4)), TERN_E_ARG, "6 elements");
  REFUSED(tern_reshape(a, TERN_SHAPE(-1, -1)), TERN_E_ARG, "reshape");
  REFUSED(tern_reshape(a, TERN_SHAPE(-1, 0)), TERN_E_ARG, "reshape");
  REFUSED(tern_reshape(a, TERN_SHAPE(-2, 3)), TERN_E_ARG, "reshape");
  REFUSED(tern_reshape(a, TERN_SHAPE(INT64_MAX, 4)), TERN_E_ARG, "reshape");
  REFUSED(tern_permute(a, (int[]){0, 0}, 2), TERN_E_ARG, "twice");
  REFUSED(tern_permute(a, (int[]){0}, 1), TERN_E_ARG, "permute");
  REFUSED(tern_permute(a, (int[]){0, 2}, 2), TERN_E_ARG, "axis 2");
  REFUSED(tern_transpose(v), TERN_E_ARG, "transpose");
  REFUSED(tern_slice(v, (tern_range[]){TERN_ALL, TERN_ALL}, 2), TERN_E_ARG, "slice");
  REFUSED(tern_slice(v, (tern_range[]){TERN_RANGE(0, 1, INT64_MIN)}, 1), TERN_E_ARG, "step");
  REFUSED(tern_index(a, 0, 2), TERN_E_ARG, "index: 2 is out of range");
  REFUSED(tern_index(a, 0, -3), TERN_E_ARG, "out of range");
  REFUSED(tern_index(a, 2, 0), TERN_E_ARG, "axis 2");
  REFUSED(tern_expand(a, TERN_SHAPE(2, 4)), TERN_E_ARG, "(2, 3) does not broadcast to (2, 4)");
  REFUSED(tern_expand(a, TERN_SHAPE(3)), TERN_E_ARG, "expand");
  REFUSED(tern_expand(a, TERN_SHAPE(-1, 2, 3)), TERN_E_ARG, "expand");
  REFUSED(tern_squeeze(a, 0), TERN_E_ARG, "size 2");
  REFUSED(tern_squeeze(a, 9), TERN_E_ARG, "axis 9");
  REFUSED(tern_expand_dims(a, 4), TERN_E_ARG, "axis 4");
  CHECK(tern_dim(a, 2) == -1, "dim 2 of rank 2");
  CHECK_ERROR(TERN_E_ARG, "axis 2");
  CHECK(isnan(tern_item(a)), "item of six");
  CHECK_ERROR(TERN_E_ARG, "(2, 3)");
  float host[6];
  CHECK(tern_to_host(a, host, 5 * sizeof *host) == TERN_E_ARG, "a destination that is too small");
  CHECK_ERROR(TERN_E_ARG, "24 bytes");
  CHECK(tern_to_host(a, NULL, sizeof host) == TERN_E_ARG, "no destination");
  CHECK_ERROR(TERN_E_ARG, "to_host");
  CHECK(tern_allclose(a, b, 0, 0) == -1, "allclose of shapes that do not broadcast");
  CHECK_ERROR(TERN_E_ARG, "broadcast");
  CHECK(tern_equal_all(a, b) == 0, "other shapes are not equal");
  CHECK_NO_ERROR();
  CHECK_LIST(tern_add(tern_f32(TERN_SHAPE(1), 1), tern_f32(TERN_SHAPE(1), 2)), TERN_SHAPE(1), TERN_F32, 3);
}

static void test_dtypes(void) {
  TERN_SCOPE;
  tern_tensor *f = ones(TERN_SHAPE(2)), *i = tern_ones(TERN_SHAPE(2), TERN_I32),
              *b = tern_ones(TERN_SHAPE(2), TERN_BOOL);
  REFUSED(tern_bitwise_and(f, f), TERN_E_ARG, "bitwise_and: not defined for float32");
  REFUSED(tern_bitwise_or(i, f), TERN_E_ARG, "it takes bool, int8");
  REFUSED(tern_left_shift(b, b), TERN_E_ARG, "left_shift: not defined for bool");
  REFUSED(tern_bitwise_not(f), TERN_E_ARG, "tern_cast");
  REFUSED(tern_neg(b), TERN_E_ARG, "neg");
  REFUSED(tern_sub(b, b), TERN_E_ARG, "sub");
  REFUSED(tern_relu(b), TERN_E_ARG, "relu");
  REFUSED(tern_nextafter(tern_ones(TERN_SHAPE(1), TERN_F16), tern_ones(TERN_SHAPE(1), TERN_F16)), TERN_E_ARG,
          "nextafter: not defined for float16");
  REFUSED(tern_matmul(tern_ones(TERN_SHAPE(2, 2), TERN_BOOL), tern_ones(TERN_SHAPE(2, 2), TERN_BOOL)), TERN_E_ARG,
          "matmul: not defined for bool");
  REFUSED(tern_take(f, f, 0), TERN_E_ARG, "take: indices are float32");
  REFUSED(tern_take(f, b, 0), TERN_E_ARG, "bool");
  REFUSED(tern_one_hot(f, 3, TERN_F32), TERN_E_ARG, "one_hot");
  REFUSED(tern_one_hot(i, -1, TERN_F32), TERN_E_ARG, "classes -1");
  REFUSED(tern_one_hot(i, 3, TERN_NO_DTYPE), TERN_E_ARG, "one_hot");
  REFUSED(tern_cast(f, TERN_NO_DTYPE), TERN_E_ARG, "cast");
  REFUSED(tern_cast(f, TERN_DTYPE_END), TERN_E_ARG, "14 is not a dtype");
  REFUSED(tern_zeros(TERN_SHAPE(1), TERN_NO_DTYPE), TERN_E_ARG, "");
  REFUSED(tern_zeros(TERN_SHAPE(1), (tern_dtype)99), TERN_E_ARG, "");
  REFUSED(tern_constant(TERN_SHAPE(1), (tern_dtype)-1, "x", 1), TERN_E_ARG, "constant");
  REFUSED(tern_empty(TERN_SHAPE(1), TERN_DTYPE_END), TERN_E_ARG, "empty");
  REFUSED(tern_sum(f, &(tern_reduce_opts){.dtype = TERN_BOOL}), TERN_E_ARG, "sum");
  REFUSED(tern_sum(f, &(tern_reduce_opts){.dtype = (tern_dtype)77}), TERN_E_ARG, "sum");
  REFUSED(tern_arange(0, 3, 1, TERN_BOOL), TERN_E_ARG, "arange");
  REFUSED(tern_arange(0, 3, 0, TERN_F32), TERN_E_ARG, "step");
  REFUSED(tern_arange(0, 3, 0.5, TERN_I32), TERN_E_ARG, "whole");
  REFUSED(tern_arange(0, 1e300, 1, TERN_F32), TERN_E_ARG, "too many");
  REFUSED(tern_arange(0, NAN, 1, TERN_F32), TERN_E_ARG, "finite");
  REFUSED(tern_linspace(0, 1, 3, TERN_I32), TERN_E_ARG, "linspace");
  REFUSED(tern_linspace(0, 1, -3, TERN_F32), TERN_E_ARG, "negative");
  REFUSED(tern_random_normal(TERN_SHAPE(2), &(tern_random_opts){.dtype = TERN_I32}), TERN_E_ARG, "not a float");
  REFUSED(tern_random_normal(TERN_SHAPE(2), &(tern_random_opts){.stddev = -1}), TERN_E_ARG, "stddev");
  REFUSED(tern_random_uniform(TERN_SHAPE(2), &(tern_random_opts){.low = 2, .high = 1}), TERN_E_ARG, "below");
  REFUSED(tern_random_uniform(TERN_SHAPE(2), &(tern_random_opts){.low = 2, .high = INFINITY}), TERN_E_ARG, "finite");
  REFUSED(tern_random_integers(TERN_SHAPE(2), 3, 3, NULL), TERN_E_ARG, "random_integers");
  REFUSED(tern_random_integers(TERN_SHAPE(2), 0, 3, &(tern_random_opts){.dtype = TERN_F32}), TERN_E_ARG, "integer");
  REFUSED(tern_random_bernoulli(TERN_SHAPE(2), 1.5, NULL), TERN_E_ARG, "probability");
  REFUSED(tern_random_bernoulli(TERN_SHAPE(2), NAN, NULL), TERN_E_ARG, "probability");
  REFUSED(tern_random_bernoulli(TERN_SHAPE(2), 0.5, &(tern_random_opts){.dtype = (tern_dtype)50}), TERN_E_ARG, "");
  REFUSED(tern_random_permutation(-1, NULL), TERN_E_ARG, "");
  /* maths on integers and bool is not refused: the default float */
  CHECK_LIST(tern_log(b), TERN_SHAPE(2), TERN_F32, 0, 0);
  CHECK_LIST(tern_sqrt(i), TERN_SHAPE(2), TERN_F32, 1, 1);
  CHECK_NO_ERROR();
}

static void test_sizes(void) {
  TERN_SCOPE;
  const int64_t nine[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
  REFUSED(tern_zeros(tern_shape_of(9, nine), TERN_F32), TERN_E_ARG, "8");
  REFUSED(tern_zeros(tern_shape_of(9, (const int64_t[]){1, 1, 1, 1, 1, 1, 1, 1, 1}), TERN_F32), TERN_E_ARG, "8");
  REFUSED(tern_zeros((tern_shape){.rank = 12}, TERN_F32), TERN_E_ARG, "");
  REFUSED(tern_zeros((tern_shape){.rank = -5}, TERN_F32), TERN_E_ARG, "");
  REFUSED(tern_constant(tern_shape_of(9, nine), TERN_F32, "abcd", 1), TERN_E_ARG, "8");
  REFUSED(tern_reshape(ones(TERN_SHAPE(1)), tern_shape_of(9, nine)), TERN_E_ARG, "8");
  REFUSED(tern_expand(ones(TERN_SHAPE(1)), tern_shape_of(9, nine)), TERN_E_ARG, "8");
  tern_tensor *deep = ones(TERN_SHAPE(1, 1, 1, 1, 1, 1, 1, 1));
  REFUSED(tern_expand_dims(deep, 0), TERN_E_ARG, "8");
  REFUSED(tern_stack(&deep, 1, 0), TERN_E_ARG, "8");
  REFUSED(tern_take(deep, tern_zeros(TERN_SHAPE(1, 1), TERN_I64), 0), TERN_E_ARG, "rank 9");
  REFUSED(tern_dot(deep, ones(TERN_SHAPE(1, 1, 1))), TERN_E_ARG, "rank 9");
  REFUSED(tern_one_hot(tern_cast(deep, TERN_I32), 2, TERN_F32), TERN_E_ARG, "8");
  REFUSED(tern_zeros(TERN_SHAPE(2, -1), TERN_F32), TERN_E_ARG, "");
  REFUSED(tern_random_normal(TERN_SHAPE(-4), NULL), TERN_E_ARG, "");
  REFUSED(tern_eye(-1, 3, 0, TERN_F32), TERN_E_ARG, "eye");
  const int64_t big = INT64_C(1) << 40;
  REFUSED(tern_zeros(TERN_SHAPE(big, big), TERN_F32), TERN_E_ARG, "");
  REFUSED(tern_zeros(TERN_SHAPE(INT64_MAX), TERN_F64), TERN_E_ARG, "");
  REFUSED(tern_eye(big, big, 0, TERN_I8), TERN_E_ARG, "");
  REFUSED(tern_expand(ones(TERN_SHAPE(1, 1)), TERN_SHAPE(big, big)), TERN_E_ARG, "");
  REFUSED(tern_pad(ones(TERN_SHAPE(1, 1)), (tern_padding[]){{big, 0}, {big, 0}}, 2, 0), TERN_E_ARG, "");
  tern_tensor *wide = tern_expand(ones(TERN_SHAPE(1)), TERN_SHAPE(INT64_C(1) << 58));
  REFUSED(tern_concat((tern_tensor *[]){wide, wide, wide, wide}, 4, 0), TERN_E_ARG, "concat");
  REFUSED(tern_stack((tern_tensor *[]){wide, wide, wide, wide}, 4, 0), TERN_E_ARG, "stack");
  REFUSED(tern_add(tern_expand_dims(tern_expand(ones(TERN_SHAPE(1)), TERN_SHAPE(big)), 1),
                   tern_expand(ones(TERN_SHAPE(1)), TERN_SHAPE(big))),
          TERN_E_ARG, "add");
  REFUSED(tern_constant(TERN_SHAPE(3), TERN_F32, (const float[]){1, 2}, 2), TERN_E_ARG, "2 values for shape (3,)");
  REFUSED(tern_constant(TERN_SHAPE(3), TERN_F32, NULL, 3), TERN_E_ARG, "constant");
  REFUSED(tern_from_host(TERN_SHAPE(3), TERN_F32, NULL, NULL, NULL), TERN_E_ARG, "NULL");
  float aligned[3] = {0};
  REFUSED(tern_from_host(TERN_SHAPE(1), TERN_F32, (char *)aligned + 1, NULL, NULL), TERN_E_ARG, "aligned");
  REFUSED(tern_to(ones(TERN_SHAPE(1)), "no-such-device"), TERN_E_ARG, "no-such-device");
}

static void test_too_large(void) {
  TERN_SCOPE;
  const int64_t sizes[] = {INT64_C(1) << 46, INT64_C(1) << 44, INT64_C(1) << 50};
  for (int i = 0; i < 3; i++) {
    REFUSED(tern_empty(TERN_SHAPE(sizes[i]), TERN_U8), TERN_E_OOM, "");
    REFUSED(tern_zeros(TERN_SHAPE(sizes[i] / 4), TERN_F32), TERN_E_OOM, "");
  }
  tern_tensor *line = tern_expand(ones(TERN_SHAPE(1)), TERN_SHAPE(INT64_C(1) << 44));
  REFUSED(tern_exp(line), TERN_E_OOM, "");
  /* the pool still serves */
  tern_tensor *t = ones(TERN_SHAPE(1000, 1000));
  CHECK(tern_item(tern_sum(t, NULL)) == 1e6, "the sum of a million ones after the device ran out of memory");
  CHECK_NO_ERROR();
}

static void test_take_range(void) {
  TERN_SCOPE;
  tern_tensor *x = ones(TERN_SHAPE(3, 2)), *bad = tern_i64(TERN_SHAPE(2), 0, 3);
  tern_tensor *t = tern_take(x, bad, 0);
  const bool at_once = t == NULL;
  if (!at_once) tern_sync(NULL); /* devices with a queue say so when they are waited for */
  CHECK_ERROR(TERN_E_ARG, at_once ? "take" : "");
  if (!strncmp(tern_default_device(), "cpu", 3)) CHECK(at_once, "cpu must refuse an index out of range at once");
  t = tern_take(x, tern_i32(TERN_SHAPE(1), -4), 0);
  if (t) tern_sync(NULL);
  CHECK_ERROR(TERN_E_ARG, "");
  REFUSED(tern_take(tern_zeros(TERN_SHAPE(0, 2), TERN_F32), tern_i64(TERN_SHAPE(1), 0), 0), TERN_E_ARG, "empty");
  REFUSED(tern_take(x, bad, 2), TERN_E_ARG, "axis 2");
  /* the device goes on */
  CHECK_LIST(tern_take(x, tern_i64(TERN_SHAPE(1), 2), 0), TERN_SHAPE(1, 2), TERN_F32, 1, 1);
  CHECK(tern_sync(NULL) == TERN_OK, "sync: %s", tern_error());
}

static void test_idx(void) {
  TERN_SCOPE;
  char path[] = "/tmp/tern-test-XXXXXX";
  const int file = mkstemp(path);
  if (!CHECK(file >= 0, "no temporary file")) return;
  REFUSED(tern_read_idx("/no/such/file"), TERN_E_IO, "/no/such/file");
  REFUSED(tern_read_idx(path), TERN_E_IO, path); /* empty */
  const unsigned char cut[] = {0, 0, 8, 1, 0, 0, 0, 9, 1, 2, 3}, whole[] = {0, 0, 8, 1, 0, 0, 0, 2, 7, 9};
  CHECK(write(file, cut, sizeof cut) == (ssize_t)sizeof cut, "write");
  REFUSED(tern_read_idx(path), TERN_E_IO, path);
  CHECK(!ftruncate(file, 0) && pwrite(file, whole, sizeof whole, 0) == (ssize_t)sizeof whole, "write");
  CHECK_LIST(tern_read_idx(path), TERN_SHAPE(2), TERN_U8, 7, 9);
  close(file);
  unlink(path);
}

static void test_two_devices(void) {
  TERN_SCOPE;
  const char *here = tern_default_device();
  tern_tensor *there = NULL, *scalar = NULL;
  {
    tern_with_device("cpu");
    there = ones(TERN_SHAPE(2));
    scalar = tern_f32(TERN_SHAPE(), 5);
  }
  tern_tensor *t = ones(TERN_SHAPE(2));
  if (!strcmp(here, tern_device_get(there))) {
    printf("(skipped: TERN_DEVICE is cpu, two devices are needed) ");
    return;
  }
  REFUSED(tern_add(t, there), TERN_E_ARG, "tern_to");
  REFUSED(tern_concat((tern_tensor *[]){t, there}, 2, 0), TERN_E_ARG, "tern_to");
  REFUSED(tern_matmul(t, there), TERN_E_ARG, "cpu:0");
  REFUSED(tern_where(tern_cast(there, TERN_BOOL), t, t), TERN_E_ARG, here);
  CHECK_LIST(tern_add(t, scalar), TERN_SHAPE(2), TERN_F32, 6, 6); /* 0-D host tensors go anywhere */
  CHECK_LIST(tern_add(t, tern_to(there, here)), TERN_SHAPE(2), TERN_F32, 2, 2);
  CHECK(!strcmp(tern_device_get(tern_to(t, "cpu")), "cpu:0"), "moved to %s", tern_device_get(tern_to(t, "cpu")));
  tern_tensor *variable = tern_variable(t, NULL);
  CHECK(tern_assign(variable, there) == TERN_OK, "assign from another device: %s", tern_error());
  tern_release(variable);
  CHECK_NO_ERROR();
}

static void test_variables(void) {
  TERN_SCOPE;
  tern_tensor *v = tern_variable(ones(TERN_SHAPE(2)), &(tern_variable_opts){.name = "weights"});
  CHECK(tern_assign(v, ones(TERN_SHAPE(3))) == TERN_E_ARG, "assign of another shape");
  CHECK_ERROR(TERN_E_ARG, "weights has shape (2,), the value (3,)");
  CHECK(tern_assign(ones(TERN_SHAPE(2)), ones(TERN_SHAPE(2))) == TERN_E_ARG, "assign to no variable");
  CHECK_ERROR(TERN_E_ARG, "tern_variable");
  CHECK(tern_assign(v, NULL) == TERN_E_ARG, "assign of NULL");
  CHECK_ERROR(TERN_E_ARG, "argument 2 is NULL");
  CHECK(tern_variable(NULL, NULL) == NULL, "a variable of NULL");
  CHECK_ERROR(TERN_E_ARG, "variable");
  CHECK_LIST(v, TERN_SHAPE(2), TERN_F32, 1, 1);
  tern_release(v);
}

/* ---- children ---- */

static int child_limit(void) {
  TERN_SCOPE;
  tern_tensor *small = tern_ones(TERN_SHAPE(1000), TERN_F32);
  tern_tensor *large = tern_empty(TERN_SHAPE(16 << 20), TERN_U8);
  if (!small || large || tern_error_code() != TERN_E_OOM || !strstr(tern_error(), "TERN_MEM_LIMIT")) return 10;
  tern_error_clear();
  tern_memory info;
  if (tern_memory_info(NULL, &info) || info.limit != 8u << 20) return 11;
  for (int i = 0; i < 100; i++) { /* within the limit, memory is used again */
    TERN_SCOPE;
    if (!tern_empty(TERN_SHAPE(3 << 20), TERN_U8)) return 12;
  }
  if (!tern_empty(TERN_SHAPE(5 << 20), TERN_U8)) return 13; /* what is pooled is given back for it */
  if (tern_item(tern_sum(small, NULL)) != 1000) return 14;
  return tern_finish() == 0 ? 0 : 15;
}

static int child(const char *name) { return strcmp(name, "limit") ? 99 : child_limit(); }

static void test_limit(void) {
  char text[4096];
  const int status = test_child("limit", (const char *const[]){"TERN_MEM_LIMIT=8M", NULL}, text, sizeof text);
  CHECK(status == 0, "TERN_MEM_LIMIT=8M: step %d: %s", status, text);
}

static const test_case cases[] = {{"shapes", test_shapes},
                                  {"dtypes", test_dtypes},
                                  {"ranks and sizes", test_sizes},
                                  {"more than there is", test_too_large},
                                  {"indices out of range", test_take_range},
                                  {"idx files", test_idx},
                                  {"two devices", test_two_devices},
                                  {"variables", test_variables},
                                  {"TERN_MEM_LIMIT", test_limit}};
TEST_MAIN_CHILD("bad input", cases, child)
