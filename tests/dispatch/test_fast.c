/* The fast path gives what the general path gives: each op is called with row-major operands until its kernel is
   known, and with the same values in views that only the general path takes. A child runs all of it again with a hook
   on, which turns the fast path off, and must print the same digest. Also: a kernel serves a class, so new sizes
   compile nothing. */
#include "support/values.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef tern_tensor *(*binary)(tern_tensor *, tern_tensor *);
typedef tern_tensor *(*unary)(tern_tensor *);
static const struct {
  const char *name;
  binary run;
} binaries[] = {{"add", tern_add},         {"sub", tern_sub},   {"mul", tern_mul},
                {"maximum", tern_maximum}, {"less", tern_less}, {"div", tern_div}};
static const struct {
  const char *name;
  unary run;
} unaries[] = {{"neg", tern_neg}, {"square", tern_square}, {"relu", tern_relu}, {"sqrt", tern_sqrt}};
enum { N_BINARIES = sizeof binaries / sizeof *binaries, N_UNARIES = sizeof unaries / sizeof *unaries };
static const tern_dtype dtypes[] = {TERN_F32, TERN_F64, TERN_I32, TERN_I64, TERN_U8, TERN_F16};
enum { N_DTYPES = sizeof dtypes / sizeof *dtypes };

/* The same values with gaps between them, so that the tensor is not row-major. */
static tern_tensor *spread_out(tern_tensor *t) {
  const int rank = tern_rank(t);
  if (rank == 0 || tern_size(t) < 2) return t;
  tern_padding pad[TERN_MAX_RANK] = {{0}};
  tern_range all[TERN_MAX_RANK];
  for (int d = 0; d < rank; d++) all[d] = TERN_ALL;
  pad[rank - 1] = (tern_padding){1, 2};
  all[rank - 1] = TERN_RANGE(1, 1 + tern_dim(t, -1), 1);
  return tern_slice(tern_pad(t, pad, rank, 0), all, rank);
}

static void same(tern_tensor *fast, tern_tensor *slow, const char *name, tern_dtype d, const char *pattern) {
  char what[120];
  snprintf(what, sizeof what, "%s of %s, %s", name, tern_dtype_name(d), pattern);
  double *expected = test_values(slow);
  if (CHECK(expected != NULL, "%s: %s", what, tern_error()))
    CHECK_VALUES(fast, tern_shape_get(slow), tern_dtype_get(slow), expected, 1, 0, what);
  tern_error_clear();
  free(expected);
}

static tern_tensor *some(uint64_t *state, tern_shape shape, tern_dtype d) {
  double v[512];
  for (int64_t i = 0; i < test_numel(shape); i++) v[i] = (double)(1 + test_below(state, 60));
  return test_tensor(shape, d, v);
}

static void one_shape(uint64_t *state, tern_shape shape, tern_dtype d) {
  TERN_SCOPE;
  tern_tensor *a = some(state, shape, d), *b = some(state, shape, d), *one = some(state, TERN_SHAPE(), d),
              *single = some(state, TERN_SHAPE(1), d);
  tern_tensor *wide_a = spread_out(a), *wide_b = spread_out(b);
  for (int k = 0; k < N_BINARIES; k++)
    for (int again = 0; again < 2; again++) {
      TERN_SCOPE;
      const binary f = binaries[k].run;
      const char *name = binaries[k].name;
      same(f(a, b), f(wide_a, wide_b), name, d, "two tensors");
      same(f(a, a), f(wide_a, tern_clone(wide_a)), name, d, "one tensor twice");
      same(f(a, tern_reshape(a, shape)), f(wide_a, wide_a), name, d, "a tensor and its view");
      same(f(a, one), f(wide_a, tern_expand(one, shape)), name, d, "tensor and 0-D");
      same(f(one, a), f(tern_expand(one, shape), wide_a), name, d, "0-D and tensor");
      if (shape.rank) same(f(a, single), f(wide_a, tern_expand(single, shape)), name, d, "tensor and one element");
      if (shape.rank) same(f(single, a), f(tern_expand(single, shape), wide_a), name, d, "one element and tensor");
      same(f(a, tern_scalar_int(3)), f(wide_a, tern_full(shape, d, 3)), name, d, "tensor and host scalar");
      same(f(tern_scalar_int(3), a), f(tern_full(shape, d, 3), wide_a), name, d, "host scalar and tensor");
      if (TERN_D_FLOAT >> d & 1)
        same(f(a, tern_scalar(0.3)), f(wide_a, tern_full(shape, d, 0.3)), name, d, "tensor and host float");
    }
  for (int k = 0; k < N_UNARIES; k++)
    for (int again = 0; again < 2; again++) {
      TERN_SCOPE;
      same(unaries[k].run(a), unaries[k].run(wide_a), unaries[k].name, d, "one operand");
    }
}

static void test_paths(void) {
  uint64_t state = 5;
  for (int k = 0; k < N_DTYPES; k++) {
    one_shape(&state, TERN_SHAPE(), dtypes[k]);
    one_shape(&state, TERN_SHAPE(1), dtypes[k]);
    one_shape(&state, TERN_SHAPE(7), dtypes[k]);
    one_shape(&state, TERN_SHAPE(3, 5), dtypes[k]);
    one_shape(&state, TERN_SHAPE(2, 1, 4), dtypes[k]);
    one_shape(&state, TERN_SHAPE(1, 1), dtypes[k]);
    one_shape(&state, TERN_SHAPE(300), dtypes[k]);
  }
}

static void test_matrices(void) {
  uint64_t state = 6;
  for (int k = 0; k < N_DTYPES; k++)
    for (int turn = 0; turn < 12; turn++) {
      TERN_SCOPE;
      const int64_t m = 1 + test_below(&state, 9), depth = 1 + test_below(&state, 9), n = 1 + test_below(&state, 9);
      tern_tensor *a = tern_remainder(some(&state, TERN_SHAPE(m, depth), dtypes[k]), tern_scalar_int(5)),
                  *b = tern_remainder(some(&state, TERN_SHAPE(depth, n), dtypes[k]), tern_scalar_int(5));
      same(tern_matmul(a, b), tern_matmul(spread_out(a), spread_out(b)), "matmul", dtypes[k], "row-major and not");
      same(tern_matmul(a, b), tern_transpose(tern_matmul(tern_transpose(b), tern_transpose(a))), "matmul", dtypes[k],
           "transposed");
    }
}

/* An empty operand, and a fresh one of another dtype, between calls that take the fast path. */
static void test_odd_ones(void) {
  TERN_SCOPE;
  tern_tensor *a = tern_f32(TERN_SHAPE(3), 1, 2, 3), *none = tern_zeros(TERN_SHAPE(0), TERN_F32),
              *other = tern_i32(TERN_SHAPE(3), 1, 2, 3);
  for (int i = 0; i < 3; i++) {
    CHECK_LIST(tern_add(a, a), TERN_SHAPE(3), TERN_F32, 2, 4, 6);
    CHECK_LIST(tern_add(none, none), TERN_SHAPE(0), TERN_F32, 0);
    CHECK_LIST(tern_add(a, other), TERN_SHAPE(3), TERN_F32, 2, 4, 6);
    CHECK_LIST(tern_add(none, tern_scalar(1)), TERN_SHAPE(0), TERN_F32, 0);
    CHECK_LIST(tern_add(none, tern_f32(TERN_SHAPE(1), 1)), TERN_SHAPE(0), TERN_F32, 0);
    CHECK_LIST(tern_add(a, tern_f32(TERN_SHAPE(1, 1), 1)), TERN_SHAPE(1, 3), TERN_F32, 2, 3, 4);
    CHECK_LIST(tern_add(tern_f32(TERN_SHAPE(1), 1), tern_f32(TERN_SHAPE(1, 1), 1)), TERN_SHAPE(1, 1), TERN_F32, 2);
    CHECK_LIST(tern_add(other, tern_scalar(0.5)), TERN_SHAPE(3), TERN_F32, 1.5, 2.5, 3.5);
    CHECK_LIST(tern_mul(other, tern_scalar_int(4294967298)), TERN_SHAPE(3), TERN_I32, 2, 4,
               6); /* a scalar wraps into the dtype */
    CHECK_LIST(tern_exp(tern_neg(none)), TERN_SHAPE(0), TERN_F32, 0);
  }
  CHECK_NO_ERROR();
}

/* ---- kernels serve classes ---- */

static uint64_t compiles(void) {
  tern_counters c = {0};
  CHECK(tern_counters_get(NULL, &c) == TERN_OK, "%s", tern_error());
  return c.compiles;
}

/* A few ops over tensors whose structure is fixed and whose sizes (2 and more) are not. */
static void fixed_structure(int64_t m, int64_t n, int64_t k) {
  TERN_SCOPE;
  tern_tensor *a = tern_ones(TERN_SHAPE(m, n), TERN_F32), *row = tern_ones(TERN_SHAPE(n), TERN_F32),
              *column = tern_ones(TERN_SHAPE(m, 1), TERN_F32);
  tern_tensor *b = tern_ones(TERN_SHAPE(n, k), TERN_F32), *deep = tern_ones(TERN_SHAPE(k, m, n), TERN_F32);
  tern_tensor *results[] = {tern_add(a, a),
                            tern_sub(a, row),
                            tern_mul(a, column),
                            tern_add(tern_transpose(deep), tern_reshape(deep, TERN_SHAPE(k, n, m))),
                            tern_sum(deep, TERN_AXES(1)),
                            tern_max(a, TERN_AXES(1)),
                            tern_mean(a, NULL),
                            tern_softmax(a, 1),
                            tern_matmul(a, b),
                            tern_matmul(tern_transpose(b), tern_transpose(a)),
                            tern_cumsum(a, 1, NULL),
                            tern_sort(a, 1, NULL),
                            tern_concat((tern_tensor *[]){a, a}, 2, 0),
                            tern_slice(a, &TERN_RANGE(1, TERN_OPEN, 1), 1)};
  for (size_t i = 0; i < sizeof results / sizeof *results; i++)
    CHECK(results[i] != NULL, "result %zu: %s", i, tern_error());
}

static void test_sizes(void) {
  uint64_t state = 77;
  fixed_structure(3, 4, 5);
  fixed_structure(6, 7, 8);
  const uint64_t before = compiles();
  for (int i = 0; i < 500; i++)
    fixed_structure(2 + test_below(&state, 30), 2 + test_below(&state, 30), 2 + test_below(&state, 6));
  CHECK(compiles() == before, "500 new shapes compiled %llu kernels", (unsigned long long)(compiles() - before));
  CHECK_NO_ERROR();
}

/* Any rank, sizes and broadcasting: a handful of classes (about 20), not one a shape. */
static void test_classes(void) {
  uint64_t state = 78;
  const uint64_t before = compiles();
  for (int i = 0; i < 2000; i++) {
    TERN_SCOPE;
    tern_shape a = {.rank = 1 + (int)test_below(&state, 4)}, b;
    for (int d = 0; d < a.rank; d++) a.dim[d] = 1 + test_below(&state, 5);
    b = a;
    for (int d = 0; d < a.rank; d++)
      if (test_below(&state, 3) == 0) (test_below(&state, 2) ? &a : &b)->dim[d] = 1;
    tern_tensor *x = tern_atan2(tern_ones(a, TERN_F32), tern_ones(b, TERN_F32));
    CHECK(x != NULL, "%s", tern_error());
  }
  CHECK(compiles() - before < 60, "2000 random operands compiled %llu kernels",
        (unsigned long long)(compiles() - before));
  /* another value of a host scalar, another seed, another bound compile nothing */
  for (int i = 0; i < 100; i++) {
    TERN_SCOPE;
    static uint64_t warm;
    tern_tensor *t = tern_ones(TERN_SHAPE(5), TERN_F32);
    tern_add(t, tern_scalar(0.1 * i));
    tern_clip(t, tern_scalar(-i), tern_scalar(i + 1));
    tern_full(TERN_SHAPE(3), TERN_F32, i);
    tern_random_normal(TERN_SHAPE(9), &(tern_random_opts){.seed = (uint64_t)i + 1, .stddev = i + 1});
    tern_arange(i, i + 7, 1, TERN_F32);
    tern_eye(4, 5, i % 3, TERN_F32);
    tern_one_hot(tern_i64(TERN_SHAPE(2), 0, 1), 2 + i, TERN_F32);
    tern_layer_norm(t, TERN_NONE, TERN_NONE, &(tern_layer_norm_opts){.epsilon = 1e-5 * (i + 1)});
    if (i == 1) warm = compiles();
    CHECK(i < 2 || compiles() == warm, "value %d compiled %llu kernels", i, (unsigned long long)(compiles() - warm));
  }
  CHECK_NO_ERROR();
}

/* ---- the same with a hook on ---- */

/* Prints a digest of the bits of many results. */
static int child(const char *name) {
  if (strcmp(name, "digest")) return 99;
  uint64_t state = 9, digest = UINT64_C(0xcbf29ce484222325); /* FNV-1a (Fowler, Noll, Vo) */
  for (int k = 0; k < N_DTYPES; k++)
    for (int again = 0; again < 3; again++) {
      TERN_SCOPE;
      tern_tensor *a = some(&state, TERN_SHAPE(4, 5), dtypes[k]), *b = some(&state, TERN_SHAPE(4, 5), dtypes[k]),
                  *one = some(&state, TERN_SHAPE(), dtypes[k]);
      tern_tensor *results[] = {tern_add(a, b),
                                tern_sub(a, one),
                                tern_mul(one, b),
                                tern_add(a, a),
                                tern_sub(a, tern_scalar_int(2)),
                                tern_less(a, b),
                                tern_neg(a),
                                tern_matmul(a, tern_transpose(b)),
                                tern_sum(a, NULL),
                                tern_maximum(a, tern_transpose(tern_reshape(b, TERN_SHAPE(5, 4))))};
      for (size_t i = 0; i < sizeof results / sizeof *results; i++) {
        double *v = test_values(results[i]);
        if (!v) {
          printf("result %zu: %s\n", i, tern_error());
          return 1;
        }
        for (const unsigned char *c = (unsigned char *)v; c < (unsigned char *)(v + tern_size(results[i])); c++)
          digest = (digest ^ *c) * UINT64_C(0x100000001b3);
        free(v);
      }
    }
  printf("digest %016llx\n", (unsigned long long)digest);
  return tern_finish();
}

static void test_hooked(void) {
  char plain[8192], hooked[8192];
  CHECK(test_child("digest", NULL, plain, sizeof plain) == 0 && strstr(plain, "digest "), "plain: %s", plain);
  CHECK(test_child("digest", (const char *const[]){"TERN_SYNC=1", NULL}, hooked, sizeof hooked) == 0, "TERN_SYNC=1: %s",
        hooked);
  const char *a = strstr(plain, "digest "), *b = strstr(hooked, "digest ");
  CHECK(a && b && !strncmp(a, b, 23), "fast %s against general %s", plain, hooked);
}

/* Calls whose operands have the same form, but are the same tensor in one and two in the other. */
static void test_same_operand(void) {
  TERN_SCOPE;
  const float expected[] = {1, 3};
  float got[2];
  tern_tensor *c = tern_bool(TERN_SHAPE(2), 1, 0), *s = tern_scalar(7), *x = tern_f32(TERN_SHAPE(2), 1, 3);
  for (int i = 0; i < 3; i++) {
    tern_where(c, s, s);
    tern_tensor *y = tern_where(c, tern_scalar(1), tern_scalar(3));
    CHECK(!tern_to_host(y, got, sizeof got) && !memcmp(got, expected, sizeof got), "two host scalars: %g %g", got[0],
          got[1]);
    tern_where(c, x, x);
    y = tern_where(c, x, tern_mul(x, tern_scalar(1)));
    CHECK(!tern_to_host(y, got, sizeof got) && !memcmp(got, expected, sizeof got), "two tensors: %g %g", got[0],
          got[1]);
    tern_tensor *row = tern_reshape(x, TERN_SHAPE(1, 2)), *other = tern_f32(TERN_SHAPE(1, 2), 10, 20);
    tern_matmul(row, tern_transpose(row));
    CHECK(tern_item(tern_matmul(row, tern_transpose(other))) == 70, "a product of two, after one with itself");
  }
  CHECK_NO_ERROR();
}

static const test_case cases[] = {{"one operand or two", test_same_operand},
                                  {"fast and general path", test_paths},
                                  {"matrices", test_matrices},
                                  {"odd ones between", test_odd_ones},
                                  {"new sizes compile nothing", test_sizes},
                                  {"few classes", test_classes},
                                  {"with a hook on", test_hooked}};
TEST_MAIN_CHILD("fast path and kernel classes", cases, child)
