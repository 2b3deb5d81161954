/* Making tensors and looking at them, in every dtype. */
#include "support/values.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const tern_dtype all_dtypes[] = {TERN_BOOL, TERN_I8,  TERN_I16, TERN_I32,  TERN_I64, TERN_U8, TERN_U16,
                                        TERN_U32,  TERN_U64, TERN_F16, TERN_BF16, TERN_F32, TERN_F64};
enum { N_DTYPES = sizeof all_dtypes / sizeof *all_dtypes };
static bool is_float(tern_dtype d) { return TERN_D_FLOAT >> d & 1; }

static void test_literals(void) {
  TERN_SCOPE;
  CHECK_LIST(tern_f32(TERN_SHAPE(2, 2), 1, 2.5, -3, 4), TERN_SHAPE(2, 2), TERN_F32, 1, 2.5, -3, 4);
  CHECK_LIST(tern_f64(TERN_SHAPE(1), 0.1), TERN_SHAPE(1), TERN_F64, 0.1);
  CHECK_LIST(tern_i32(TERN_SHAPE(3), 1, -2, INT32_MIN), TERN_SHAPE(3), TERN_I32, 1, -2, -2147483648.0);
  CHECK_LIST(tern_i64(TERN_SHAPE(), 7), TERN_SHAPE(), TERN_I64, 7);
  CHECK_LIST(tern_u8(TERN_SHAPE(2), 0, 255), TERN_SHAPE(2), TERN_U8, 0, 255);
  CHECK_LIST(tern_bool(TERN_SHAPE(2), 1, 0), TERN_SHAPE(2), TERN_BOOL, 1, 0);
  CHECK_LIST(tern_f32(TERN_SHAPE(2, 3), 7), TERN_SHAPE(2, 3), TERN_F32, 7, 7, 7, 7, 7, 7);
  CHECK_LIST(tern_i32(TERN_SHAPE(2), -1), TERN_SHAPE(2), TERN_I32, -1, -1);
  CHECK_LIST(tern_constant(TERN_SHAPE(0, 3), TERN_F32, NULL, 0), TERN_SHAPE(0, 3), TERN_F32, 0);
  CHECK(tern_f32(TERN_SHAPE(3), 1, 2) == NULL, "two values for three places");
  CHECK_ERROR(TERN_E_ARG, "2 values");
  /* a fill of 64-bit integers keeps all digits */
  int64_t wide[3];
  const int64_t value = INT64_MAX - 1;
  CHECK(tern_to_host(tern_constant(TERN_SHAPE(3), TERN_I64, &value, 1), wide, sizeof wide) == TERN_OK &&
            wide[2] == value,
        "fill of int64: %lld", (long long)wide[2]);
  const uint64_t large = UINT64_MAX - 2;
  uint64_t back[2];
  CHECK(tern_to_host(tern_constant(TERN_SHAPE(2), TERN_U64, &large, 1), back, sizeof back) == TERN_OK &&
            back[1] == large,
        "fill of uint64: %llu", (unsigned long long)back[1]);
  CHECK_NO_ERROR();
}

static void test_constants(void) {
  for (int k = 0; k < N_DTYPES; k++) {
    TERN_SCOPE;
    const tern_dtype d = all_dtypes[k];
    const size_t item = tern_dtype_size(d);
    unsigned char bytes[40 * 8], back[40 * 8];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = d == TERN_BOOL ? i & 1 : (unsigned char)(i * 37 + 11);
    tern_tensor *t = tern_constant(TERN_SHAPE(5, 8), d, bytes, 40);
    CHECK(tern_to_host(t, back, 40 * item) == TERN_OK && !memcmp(bytes, back, 40 * item), "%s: bytes come back changed",
          tern_dtype_name(d));
    tern_tensor *turned = tern_contiguous(tern_transpose(t));
    CHECK(tern_to_host(tern_transpose(turned), back, 40 * item) == TERN_OK && !memcmp(bytes, back, 40 * item),
          "%s: bytes change in a transpose", tern_dtype_name(d));
    CHECK(tern_to_host(tern_clone(t), back, 40 * item) == TERN_OK && !memcmp(bytes, back, 40 * item),
          "%s: bytes change in a clone", tern_dtype_name(d));
    double wide[3] = {0, 1, 1};
    CHECK_VALUES(tern_stack((tern_tensor *[]){tern_zeros(TERN_SHAPE(), d), tern_ones(TERN_SHAPE(), d),
                                              tern_full(TERN_SHAPE(), d, 1)},
                            3, 0),
                 TERN_SHAPE(3), d, wide, 0, 0, "zeros, ones, full");
    const double expected = d == TERN_BOOL ? 1 : 5;
    CHECK_LIST(tern_full(TERN_SHAPE(2, 2), d, 5), TERN_SHAPE(2, 2), d, expected, expected, expected, expected);
    tern_tensor *like = tern_full_like(t, 5);
    CHECK(tern_dtype_get(like) == d && tern_rank(like) == 2 && tern_dim(like, 0) == 5 &&
              tern_item(tern_index(tern_index(like, 0, 4), 0, 7)) == expected,
          "full_like");
    CHECK(tern_item_int(tern_all(tern_ones_like(t), NULL)) == 1 &&
              tern_item_int(tern_any(tern_zeros_like(t), NULL)) == 0,
          "ones_like, zeros_like");
    CHECK(tern_size(tern_empty(TERN_SHAPE(3, 0), d)) == 0 && tern_size(tern_empty(TERN_SHAPE(3, 2), d)) == 6, "empty");
    CHECK_NO_ERROR();
  }
  TERN_SCOPE;
  CHECK_LIST(tern_full(TERN_SHAPE(3), TERN_I8, 300), TERN_SHAPE(3), TERN_I8, 127, 127, 127);
  CHECK_LIST(tern_full(TERN_SHAPE(1), TERN_U8, -5), TERN_SHAPE(1), TERN_U8, 0);
  CHECK_LIST(tern_full(TERN_SHAPE(2), TERN_F32, NAN), TERN_SHAPE(2), TERN_F32, NAN, NAN);
  CHECK_LIST(tern_full(TERN_SHAPE(1), TERN_I32, NAN), TERN_SHAPE(1), TERN_I32, 0);
  CHECK_LIST(tern_full_like(tern_scalar(1), 2.5), TERN_SHAPE(), TERN_F32, 2.5);
}

static void test_series(void) {
  for (int k = 0; k < N_DTYPES; k++) {
    TERN_SCOPE;
    const tern_dtype d = all_dtypes[k];
    double eye[12] = {0};
    for (int diagonal = -4; diagonal <= 4; diagonal++) {
      for (int r = 0; r < 3; r++)
        for (int c = 0; c < 4; c++) eye[r * 4 + c] = c == r + diagonal;
      CHECK_VALUES(tern_eye(3, 4, diagonal, d), TERN_SHAPE(3, 4), d, eye, 0, 0, "eye");
    }
    if (d == TERN_BOOL) continue;
    CHECK_LIST(tern_arange(0, 5, 1, d), TERN_SHAPE(5), d, 0, 1, 2, 3, 4);
    CHECK_LIST(tern_arange(2, 11, 3, d), TERN_SHAPE(3), d, 2, 5, 8);
    CHECK_LIST(tern_arange(10, 3, -3, d), TERN_SHAPE(3), d, 10, 7, 4);
    CHECK_LIST(tern_arange(3, 3, 1, d), TERN_SHAPE(0), d, 0);
    CHECK_LIST(tern_arange(3, 0, 1, d), TERN_SHAPE(0), d, 0);
    if (!is_float(d)) continue;
    CHECK_LIST(tern_arange(0, 1, 0.25, d), TERN_SHAPE(4), d, 0, 0.25, 0.5, 0.75);
    CHECK_LIST(tern_arange(-1, 1, 0.5, d), TERN_SHAPE(4), d, -1, -0.5, 0, 0.5);
    CHECK_LIST(tern_linspace(0, 1, 5, d), TERN_SHAPE(5), d, 0, 0.25, 0.5, 0.75, 1);
    CHECK_LIST(tern_linspace(2, -2, 3, d), TERN_SHAPE(3), d, 2, 0, -2);
    CHECK_LIST(tern_linspace(3, 9, 1, d), TERN_SHAPE(1), d, 3);
    CHECK_LIST(tern_linspace(3, 9, 0, d), TERN_SHAPE(0), d, 0);
    double values[1000];
    for (int i = 0; i < 1000; i++) values[i] = 0.1 + i * (0.7 - 0.1) / 999;
    values[999] = test_rounded(0.7, d);
    CHECK_VALUES(tern_linspace(0.1, 0.7, 1000, d), TERN_SHAPE(1000), d, values, d == TERN_F64 ? 2 : 1, 0, "linspace");
    double *got = test_values(tern_linspace(0.1, 0.7, 1000, d));
    CHECK(got && got[999] == test_rounded(0.7, d), "linspace ends at its stop");
    free(got);
  }
  TERN_SCOPE; /* int64 beyond a double's whole numbers comes from start + i * step in integers */
  int64_t wide[3];
  CHECK(tern_to_host(tern_arange(9007199254740992.0, 9007199254740995.0 + 1, 1, TERN_I64), NULL, 0) == TERN_E_ARG,
        "sizes differ");
  tern_error_clear();
  CHECK(tern_to_host(
            tern_slice(tern_arange(9007199254740992.0, 9007199254740996.0, 1, TERN_I64), &TERN_RANGE(0, 3, 1), 1), wide,
            sizeof wide) == TERN_OK &&
            wide[1] == INT64_C(9007199254740993),
        "arange of int64: %lld", (long long)wide[1]);
  double values[100];
  for (int i = 0; i < 100; i++) values[i] = 0.1 * i;
  CHECK_VALUES(tern_arange(0, 9.95, 0.1, TERN_F32), TERN_SHAPE(100), TERN_F32, values, 1, 0, "arange by 0.1");
  CHECK_NO_ERROR();
}

/* ---- borrowed memory ---- */

typedef struct lent {
  float data[64];
  int released;
} lent;
static void give_back(void *data, void *context) {
  lent *l = context;
  if (data == l->data) l->released++;
}

static void test_borrowed(void) {
  static lent memory; /* aligned as its items are */
  memory = (lent){.data = {1, 2, 3, 4, 5, 6}};
  tern_tensor *kept;
  {
    TERN_SCOPE;
    tern_tensor *t = tern_from_host(TERN_SHAPE(2, 3), TERN_F32, memory.data, give_back, &memory);
    CHECK_LIST(t, TERN_SHAPE(2, 3), TERN_F32, 1, 2, 3, 4, 5, 6);
    CHECK_LIST(tern_add(t, t), TERN_SHAPE(2, 3), TERN_F32, 2, 4, 6, 8, 10, 12);
    CHECK_LIST(tern_matmul(t, tern_transpose(t)), TERN_SHAPE(2, 2), TERN_F32, 14, 32, 32, 77);
    CHECK(memory.released == 0, "released while in use");
    kept = tern_keep(tern_index(t, 0, 1));
  }
  CHECK(memory.released == 0, "released while a view lives");
  {
    TERN_SCOPE;
    CHECK_LIST(tern_neg(kept), TERN_SHAPE(3), TERN_F32, -4, -5, -6);
  }
  tern_release(kept);
  CHECK(memory.released == 1, "released %d times", memory.released);
  { /* another alignment than the device's own */
    TERN_SCOPE;
    memory.released = 0;
    lent *shifted = &memory;
    tern_tensor *t = tern_from_host(TERN_SHAPE(40), TERN_F32, shifted->data, give_back, shifted),
                *odd = tern_slice(t, &TERN_RANGE(1, 38, 1), 1);
    CHECK(tern_item(tern_sum(odd, NULL)) == 20, "sum of a slice of borrowed memory: %g",
          tern_item(tern_sum(odd, NULL)));
  }
  CHECK(memory.released == 1, "released %d times", memory.released);
  memory.released = 0;
  { /* empty: nothing to use, given back at once or with the tensor, but once */
    TERN_SCOPE;
    CHECK(tern_size(tern_from_host(TERN_SHAPE(0), TERN_F32, memory.data, give_back, &memory)) == 0, "no elements");
  }
  CHECK(memory.released == 1, "released %d times", memory.released);
  memory.released = 0;
  CHECK(tern_from_host(TERN_SHAPE(-1), TERN_F32, memory.data, give_back, &memory) == NULL, "a negative size");
  CHECK_ERROR(TERN_E_ARG, "from_host");
  CHECK(memory.released == 0, "a refused tensor does not release what the caller still holds");
  int16_t odd_data[5] = {1, 2, 3, 4, 5}; /* only aligned to two bytes */
  TERN_SCOPE;
  CHECK_LIST(tern_from_host(TERN_SHAPE(4), TERN_I16, odd_data + 1, NULL, NULL), TERN_SHAPE(4), TERN_I16, 2, 3, 4, 5);
  CHECK_LIST(tern_cast(tern_from_host(TERN_SHAPE(4), TERN_I16, odd_data + 1, NULL, NULL), TERN_F32), TERN_SHAPE(4),
             TERN_F32, 2, 3, 4, 5);
  CHECK_NO_ERROR();
}

/* ---- looking ---- */

static void test_inspection(void) {
  TERN_SCOPE;
  tern_tensor *t = tern_zeros(TERN_SHAPE(2, 3, 4), TERN_I16);
  CHECK(tern_rank(t) == 3 && tern_size(t) == 24 && tern_dtype_get(t) == TERN_I16, "rank %d, size %lld", tern_rank(t),
        (long long)tern_size(t));
  CHECK(tern_dim(t, 0) == 2 && tern_dim(t, -1) == 4 && tern_dim(t, 1) == 3, "dims");
  CHECK(tern_dim(t, 3) == -1, "dim 3");
  CHECK_ERROR(TERN_E_ARG, "axis 3");
  const tern_shape s = tern_shape_get(t);
  CHECK(s.rank == 3 && s.dim[2] == 4, "shape");
  CHECK(!strcmp(tern_device_get(t), tern_default_device()), "device %s", tern_device_get(t));
  CHECK(tern_rank(NULL) == -1 && tern_size(NULL) == 0 && tern_dtype_get(NULL) == TERN_NO_DTYPE &&
            !*tern_device_get(NULL) && tern_shape_get(NULL).rank == -1,
        "of NULL");
  tern_error_clear();
  static const char *const names[] = {"bool",   "int8",   "int16",   "int32",    "int64",   "uint8",  "uint16",
                                      "uint32", "uint64", "float16", "bfloat16", "float32", "float64"};
  static const size_t sizes[] = {1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 2, 4, 8};
  for (int k = 0; k < N_DTYPES; k++)
    CHECK(!strcmp(tern_dtype_name(all_dtypes[k]), names[k]) && tern_dtype_size(all_dtypes[k]) == sizes[k], "dtype %s",
          names[k]);
  CHECK(tern_dtype_size(TERN_NO_DTYPE) == 0 && tern_dtype_size((tern_dtype)200) == 0 &&
            tern_dtype_name((tern_dtype)-3) != NULL,
        "no dtype");
  CHECK(TERN_SHAPE().rank == 0 && TERN_SHAPE(5, 6).dim[1] == 6, "TERN_SHAPE");
  CHECK(tern_shape_of(9, (int64_t[9]){0}).rank == -1 && tern_shape_of(-1, NULL).rank == -1, "shapes of rank 9 and -1");
}

static void test_items(void) {
  TERN_SCOPE;
  CHECK(tern_item(tern_f32(TERN_SHAPE(1, 1), 2.5)) == 2.5 && tern_item(tern_scalar(0.1)) == 0.1 &&
            tern_item(tern_bool(TERN_SHAPE(), 1)) == 1,
        "item");
  CHECK(tern_item_int(tern_i64(TERN_SHAPE(), INT64_MAX)) == INT64_MAX &&
            tern_item_int(tern_scalar_int(INT64_MIN)) == INT64_MIN,
        "item_int");
  CHECK(tern_item_int(tern_f32(TERN_SHAPE(), -2.7)) == -2 && tern_item_int(tern_f32(TERN_SHAPE(), 1e30)) == INT64_MAX,
        "item_int of floats");
  CHECK(tern_item_int(tern_scalar(NAN)) == 0, "item_int of NaN");
  CHECK(isnan(tern_item(tern_zeros(TERN_SHAPE(2), TERN_F32))), "item of two");
  CHECK_ERROR(TERN_E_ARG, "(2,)");
  CHECK(tern_item_int(tern_zeros(TERN_SHAPE(0), TERN_F32)) == 0, "item_int of none");
  CHECK_ERROR(TERN_E_ARG, "item_int");
  CHECK(isnan(tern_item(NULL)), "item of NULL");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  float view[4];
  CHECK(tern_to_host(tern_transpose(tern_f32(TERN_SHAPE(2, 2), 1, 2, 3, 4)), view, sizeof view) == TERN_OK &&
            view[1] == 3 && view[2] == 2,
        "to_host of a view");
  CHECK(tern_to_host(tern_slice(tern_f32(TERN_SHAPE(4), 1, 2, 3, 4), &TERN_RANGE(TERN_OPEN, TERN_OPEN, -2), 1), view,
                     8) == TERN_OK &&
            view[0] == 4 && view[1] == 2,
        "to_host of a reversed view");
  CHECK(tern_to_host(tern_zeros(TERN_SHAPE(0), TERN_F32), NULL, 0) == TERN_OK, "to_host of nothing");
  CHECK_NO_ERROR();
}

static void test_equality(void) {
  TERN_SCOPE;
  tern_tensor *a = tern_f32(TERN_SHAPE(2), 1, 2), *nan = tern_f32(TERN_SHAPE(1), NAN),
              *inf = tern_f32(TERN_SHAPE(2), INFINITY, 1);
  CHECK(tern_equal_all(a, a) == 1 && tern_equal_all(a, tern_i32(TERN_SHAPE(2), 1, 2)) == 1 &&
            tern_equal_all(a, tern_f32(TERN_SHAPE(2), 1, 3)) == 0,
        "equal_all");
  CHECK(tern_equal_all(a, tern_f32(TERN_SHAPE(1, 2), 1, 2)) == 0 && tern_equal_all(nan, nan) == 0,
        "equal_all: shapes, NaN");
  CHECK(tern_equal_all(tern_zeros(TERN_SHAPE(0), TERN_F32), tern_zeros(TERN_SHAPE(0), TERN_F32)) == 1,
        "equal_all of nothing");
  CHECK(tern_equal_all(a, NULL) == -1, "equal_all with NULL");
  CHECK_ERROR(TERN_E_ARG, "argument 2 is NULL");
  CHECK(tern_allclose(a, tern_f32(TERN_SHAPE(2), 1.000005, 2.000005), 0, 0) == 1 &&
            tern_allclose(a, tern_f32(TERN_SHAPE(2), 1.0005, 2), 0, 0) == 0,
        "allclose by default");
  CHECK(tern_allclose(a, tern_f32(TERN_SHAPE(2), 1.05, 2.05), 0.1, 0) == 1 &&
            tern_allclose(a, tern_f32(TERN_SHAPE(2), 1.05, 2), TERN_ZERO, 0.1) == 1,
        "allclose as asked");
  CHECK(tern_allclose(a, tern_f32(TERN_SHAPE(2), 1.000001, 2), TERN_ZERO, TERN_ZERO) == 0, "allclose with no room");
  CHECK(tern_allclose(nan, nan, 0, 0) == 0 && tern_allclose(inf, inf, 0, 0) == 1, "allclose: NaN, infinity");
  CHECK(tern_allclose(inf, tern_f32(TERN_SHAPE(2), -INFINITY, 1), 0, 0) == 0 && tern_allclose(a, inf, 0, 0) == 0,
        "allclose: other infinities");
  CHECK(tern_allclose(a, tern_f32(TERN_SHAPE(1, 2), 1, 2), 0, 0) == 1 &&
            tern_allclose(tern_ones(TERN_SHAPE(3), TERN_F32), tern_scalar(1), 0, 0) == 1,
        "allclose broadcasts");
  CHECK(tern_allclose(tern_zeros(TERN_SHAPE(0), TERN_F32), tern_zeros(TERN_SHAPE(0), TERN_F32), 0, 0) == 1,
        "allclose of nothing");
  CHECK_NO_ERROR();
}

static void test_text(void) {
  TERN_SCOPE;
  char *text = tern_to_string(tern_f32(TERN_SHAPE(3), 5, 7, 9));
  CHECK(text && !strcmp(text, "tern.Tensor([5. 7. 9.], shape=(3,), dtype=float32)"), "%s", text ? text : "NULL");
  free(text);
  text = tern_to_string(tern_transpose(tern_i32(TERN_SHAPE(2, 2), 1, 2, 3, 4)));
  CHECK(text && !strcmp(text, "tern.Tensor(\n[[1 3]\n [2 4]], shape=(2, 2), dtype=int32)"), "%s", text ? text : "NULL");
  free(text);
  text = tern_to_string(tern_scalar_int(3));
  CHECK(text && strstr(text, "3, shape=()"), "%s", text ? text : "NULL");
  free(text);
  CHECK(tern_to_string(NULL) == NULL, "text of NULL");
  CHECK_ERROR(TERN_E_ARG, "print");
}

static const test_case cases[] = {{"literals", test_literals},
                                  {"constants of every dtype", test_constants},
                                  {"arange, linspace, eye", test_series},
                                  {"borrowed memory", test_borrowed},
                                  {"inspection", test_inspection},
                                  {"items and copies", test_items},
                                  {"equal_all, allclose", test_equality},
                                  {"text", test_text}};
TEST_MAIN("tensors", cases)
