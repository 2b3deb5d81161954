/* Activations and normalisation on TERN_DEVICE, in every float dtype, against the formulas in long double. The inputs
   are rounded to the dtype first; the tolerance is the op table's for float32 and float64, one unit of the last place
   (of the row's largest value where a sum is involved) for the 16-bit floats, which are computed in float32 and
   rounded once. */
#include "support/values.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const tern_dtype floats[] = {TERN_F16, TERN_BF16, TERN_F32, TERN_F64};
enum { N_FLOATS = sizeof floats / sizeof *floats };

static double epsilon_of(tern_dtype d) {
  return d == TERN_F64 ? 0x1p-52 : d == TERN_F32 ? 0x1p-23 : d == TERN_F16 ? 0x1p-10 : 0x1p-7;
}

/* Absolute tolerance for results of about `scale`. */
static double allowed(const char *name, tern_dtype d, double scale) {
  tern_op_info op;
  for (int i = 0; !tern_op_at(i, &op); i++)
    if (!strcmp(op.name, name)) {
      const double table = op.absolute + op.relative * scale;
      return d == TERN_F32   ? table
             : d == TERN_F64 ? fmax(table * 1e-8, 1e-13 * scale)
                             : fmax(table, epsilon_of(d) * scale);
    }
  CHECK(0, "no op is named %s", name);
  return 0;
}

/* ---- elementwise ---- */

static long double f_relu(long double x) { return isnan(x) ? x : x > 0 ? x : 0; }
static long double f_sigmoid(long double x) { return 1 / (1 + expl(-x)); }
static long double f_silu(long double x) { return x == -INFINITY ? NAN : x * f_sigmoid(x); }
static long double f_gelu(long double x) { return x * 0.5L * erfcl(-x / sqrtl(2)); }
static long double f_gelu_tanh(long double x) {
  return 0.5L * x * (1 + tanhl(sqrtl(2 / 3.14159265358979323846264338328L) * (x + 0.044715L * x * x * x)));
}
static tern_tensor *gelu(tern_tensor *x) { return tern_gelu(x, NULL); }
static tern_tensor *gelu_tanh(tern_tensor *x) { return tern_gelu(x, &(tern_gelu_opts){.tanh_form = 1}); }

static const struct {
  const char *name;
  tern_tensor *(*run)(tern_tensor *);
  long double (*formula)(long double);
} activations[] = {{"relu", tern_relu, f_relu},
                   {"sigmoid", tern_sigmoid, f_sigmoid},
                   {"silu", tern_silu, f_silu},
                   {"gelu", gelu, f_gelu},
                   {"gelu", gelu_tanh, f_gelu_tanh}};
enum { N_ACTIVATIONS = sizeof activations / sizeof *activations };

static void activation(int a, tern_dtype d) {
  enum { N = 2000 };
  TERN_SCOPE;
  uint64_t state = 1;
  double *x = malloc(N * sizeof *x), *expected = malloc(N * sizeof *expected);
  for (int i = 0; i < N; i++) {
    x[i] = test_rounded(i % 3 ? test_uniform(&state, -12, 12) : test_uniform(&state, -1, 1), d);
    expected[i] = (double)activations[a].formula(x[i]);
  }
  tern_tensor *t = test_tensor(TERN_SHAPE(40, 50), d, x);
  char what[60];
  snprintf(what, sizeof what, "%s (%s)", activations[a].name, tern_dtype_name(d));
  /* near 0 the absolute tolerance counts, elsewhere that of the value */
  for (int i = 0; i < N; i++)
    if (fabs(expected[i]) < 1e-30) expected[i] = 0;
  for (int turned = 0; turned < 2; turned++) { /* of the tensor and of a transposed view */
    tern_tensor *y = turned ? tern_transpose(activations[a].run(tern_transpose(t))) : activations[a].run(t);
    double *got = test_values(y);
    if (CHECK(got != NULL, "%s: %s", what, tern_error()))
      for (int i = 0; i < N; i++)
        if (!(fabs(got[i] - expected[i]) <=
                  allowed(activations[a].name, d, fmax(fabs(expected[i]), a > 1 ? fabs(x[i]) : 0)) ||
              test_ulps(got[i], expected[i], (int)d) <= 1)) {
          CHECK(0, "%s of %.9g%s: %.17g, expected %.17g", what, x[i], turned ? " (transposed)" : "", got[i],
                expected[i]);
          break;
        }
    free(got);
  }
  CHECK_NO_ERROR();
  free(x);
  free(expected);
}

static void test_activations(void) {
  for (int a = 0; a < N_ACTIVATIONS; a++)
    for (int k = 0; k < N_FLOATS; k++) activation(a, floats[k]);
  TERN_SCOPE;
  CHECK_LIST(tern_relu(tern_f32(TERN_SHAPE(5), -1, 0, 2, NAN, INFINITY)), TERN_SHAPE(5), TERN_F32, 0, 0, 2, NAN,
             INFINITY);
  CHECK_LIST(tern_relu(tern_i32(TERN_SHAPE(3), -1, 0, 2)), TERN_SHAPE(3), TERN_I32, 0, 0, 2);
  CHECK_LIST(tern_sigmoid(tern_f32(TERN_SHAPE(5), -INFINITY, -1000, 0, 1000, NAN)), TERN_SHAPE(5), TERN_F32, 0, 0, 0.5,
             1, NAN);
  CHECK_LIST(tern_silu(tern_f32(TERN_SHAPE(3), 0, 100, INFINITY)), TERN_SHAPE(3), TERN_F32, 0, 100, INFINITY);
  CHECK_LIST(tern_gelu(tern_f32(TERN_SHAPE(3), 0, 100, NAN), NULL), TERN_SHAPE(3), TERN_F32, 0, 100, NAN);
  CHECK_LIST(tern_sigmoid(tern_i64(TERN_SHAPE(1), 0)), TERN_SHAPE(1), TERN_F64, 0.5);
  CHECK_LIST(tern_sigmoid(tern_scalar(0)), TERN_SHAPE(), TERN_F32, 0.5);
}

/* ---- softmax ---- */

/* softmax or its logarithm over v[0], v[step], ..., n of them. */
static void softmax_row(const double *v, double *out, int64_t n, int64_t step, bool logarithm) {
  double top = -INFINITY;
  long double sum = 0;
  for (int64_t i = 0; i < n; i++) top = v[i * step] > top ? v[i * step] : top;
  for (int64_t i = 0; i < n; i++) sum += expl((long double)v[i * step] - top);
  for (int64_t i = 0; i < n; i++) {
    const long double below = (long double)v[i * step] - top;
    out[i * step] = (double)(logarithm ? below - logl(sum) : expl(below) / sum);
  }
}

static void softmax_case(tern_shape shape, int axis, tern_dtype d, double low, double high) {
  TERN_SCOPE;
  uint64_t state = 9;
  const int at = axis < 0 ? axis + shape.rank : axis;
  const int64_t n = test_numel(shape);
  int64_t inner = 1, outer = 1;
  for (int k = at + 1; k < shape.rank; k++) inner *= shape.dim[k];
  for (int k = 0; k < at; k++) outer *= shape.dim[k];
  double *v = malloc((size_t)n * sizeof *v + 1), *expected = malloc((size_t)n * sizeof *v + 1), scale = 0;
  for (int64_t i = 0; i < n; i++) {
    v[i] = test_rounded(test_uniform(&state, low, high), d);
    scale = fmax(scale, fabs(v[i]));
  }
  tern_tensor *x = test_tensor(shape, d, v);
  char what[100];
  for (int logarithm = 0; logarithm < 2; logarithm++) {
    for (int64_t o = 0; o < outer; o++)
      for (int64_t i = 0; i < inner; i++)
        softmax_row(v + o * shape.dim[at] * inner + i, expected + o * shape.dim[at] * inner + i, shape.dim[at], inner,
                    logarithm);
    const char *name = logarithm ? "log_softmax" : "softmax";
    snprintf(what, sizeof what, "%s of %lld x %lld x %lld along the middle", name, (long long)outer,
             (long long)shape.dim[at], (long long)inner);
    /* x - max is rounded before exp: an error of eps * |x|, relative in softmax, absolute in its logarithm */
    const double wide = d == TERN_F64 ? 0x1p-53 : 0x1p-24;
    CHECK_VALUES(logarithm ? tern_log_softmax(x, axis) : tern_softmax(x, axis), shape, d, expected, 1,
                 allowed(name, d, logarithm ? 2 * scale + 20 : 1) + 2 * wide * scale, what);
  }
  free(v);
  free(expected);
}

static void test_softmax(void) {
  for (int k = 0; k < N_FLOATS; k++) {
    const tern_dtype d = floats[k];
    softmax_case(TERN_SHAPE(4, 1), 1, d, -3, 3);
    softmax_case(TERN_SHAPE(4, 3), 1, d, -3, 3);
    softmax_case(TERN_SHAPE(4, 3), 0, d, -3, 3);
    softmax_case(TERN_SHAPE(2, 5, 4), 1, d, -3, 3);
    softmax_case(TERN_SHAPE(2, 5, 4), -3, d, -3, 3);
    softmax_case(TERN_SHAPE(3, 1000), -1, d, -8, 8);
    softmax_case(TERN_SHAPE(2, 5000), -1, d, -8, 8);
    softmax_case(TERN_SHAPE(1000, 3), 0, d, -8, 8);
    softmax_case(TERN_SHAPE(5), 0, d, -3, 3);
    softmax_case(TERN_SHAPE(2, 64), 1, d, -10000, 10000);
    softmax_case(TERN_SHAPE(0, 3), 1, d, -1, 1);
  }
  TERN_SCOPE;
  const double half = 0.5;
  CHECK_LIST(tern_softmax(tern_f32(TERN_SHAPE(), 3), 0), TERN_SHAPE(), TERN_F32, 1);
  CHECK_LIST(tern_softmax(tern_f32(TERN_SHAPE(1, 3), 1000, -INFINITY, 1000), 1), TERN_SHAPE(1, 3), TERN_F32, half, 0,
             half);
  CHECK_LIST(tern_softmax(tern_f32(TERN_SHAPE(1, 2), 3e38, -3e38), 1), TERN_SHAPE(1, 2), TERN_F32, 1, 0);
  CHECK_LIST(tern_softmax(tern_f32(TERN_SHAPE(2, 2), INFINITY, 0, -INFINITY, -INFINITY), 1), TERN_SHAPE(2, 2), TERN_F32,
             NAN, NAN, NAN, NAN);
  CHECK_LIST(tern_softmax(tern_f32(TERN_SHAPE(2, 2), NAN, 0, 1, 1), 1), TERN_SHAPE(2, 2), TERN_F32, NAN, NAN, half,
             half);
  CHECK_LIST(tern_log_softmax(tern_f32(TERN_SHAPE(1, 2), 5, -INFINITY), 1), TERN_SHAPE(1, 2), TERN_F32, 0, -INFINITY);
  CHECK_LIST(tern_softmax(tern_i32(TERN_SHAPE(2), 4, 4), 0), TERN_SHAPE(2), TERN_F32, half, half);
  /* along an expanded axis every share is 1 / n */
  CHECK_LIST(tern_softmax(tern_expand(tern_f32(TERN_SHAPE(2, 1), 3, -1), TERN_SHAPE(2, 2)), 1), TERN_SHAPE(2, 2),
             TERN_F32, half, half, half, half);
  tern_tensor *x = tern_random_normal(TERN_SHAPE(6, 7), NULL);
  CHECK(tern_allclose(tern_softmax(tern_transpose(x), 0), tern_transpose(tern_softmax(x, 1)), 1e-6, 1e-7) == 1,
        "softmax of a transposed view");
}

/* ---- layer_norm ---- */

static void layer_norm_case(tern_shape shape, int axis, tern_dtype d, bool with_scale, bool with_offset,
                            double epsilon) {
  TERN_SCOPE;
  uint64_t state = 13;
  const int at = axis == 0 ? shape.rank - 1 : axis < 0 ? axis + shape.rank : axis;
  int64_t row = 1;
  tern_shape inner = {.rank = shape.rank - at};
  for (int k = at; k < shape.rank; k++) row *= inner.dim[k - at] = shape.dim[k];
  const int64_t n = test_numel(shape);
  double *v = malloc((size_t)n * sizeof *v), *expected = malloc((size_t)n * sizeof *v),
         *s = malloc((size_t)row * sizeof *s), *o = malloc((size_t)row * sizeof *o);
  for (int64_t i = 0; i < n; i++) v[i] = test_rounded(test_uniform(&state, -4, 6), d);
  for (int64_t i = 0; i < row; i++) {
    s[i] = test_rounded(test_uniform(&state, -2, 2), d);
    o[i] = test_rounded(test_uniform(&state, -2, 2), d);
  }
  const double e = epsilon != 0 ? epsilon : 1e-5;
  double largest = 1;
  for (int64_t r = 0; r < n / row; r++) {
    long double mean = 0, squares = 0;
    for (int64_t i = 0; i < row; i++) mean += v[r * row + i];
    mean /= row;
    for (int64_t i = 0; i < row; i++) squares += (v[r * row + i] - mean) * (v[r * row + i] - mean);
    for (int64_t i = 0; i < row; i++) {
      const long double y = (v[r * row + i] - mean) / sqrtl(squares / row + e);
      expected[r * row + i] = (double)(y * (with_scale ? s[i] : 1) + (with_offset ? o[i] : 0));
      largest = fmax(largest, fabs((double)y) * 2 + 2);
    }
  }
  const tern_layer_norm_opts opts = {.epsilon = epsilon, .axis = axis};
  tern_tensor *scale = with_scale ? test_tensor(inner, d, s) : TERN_NONE,
              *offset = with_offset ? test_tensor(inner, d, o) : TERN_NONE;
  char what[100];
  snprintf(what, sizeof what, "layer_norm of rows of %lld%s%s", (long long)row, with_scale ? ", scale" : "",
           with_offset ? ", offset" : "");
  CHECK_VALUES(tern_layer_norm(test_tensor(shape, d, v), scale, offset, epsilon != 0 || axis ? &opts : NULL), shape, d,
               expected, 1, allowed("layer_norm", d, largest), what);
  free(v);
  free(expected);
  free(s);
  free(o);
}

static void test_layer_norm(void) {
  for (int k = 0; k < N_FLOATS; k++) {
    for (int given = 0; given < 4; given++) {
      layer_norm_case(TERN_SHAPE(3, 8), 0, floats[k], given & 1, given & 2, 0);
      layer_norm_case(TERN_SHAPE(2, 3, 5), -2, floats[k], given & 1, given & 2, 0);
      layer_norm_case(TERN_SHAPE(2, 3, 5), 1, floats[k], given & 1, given & 2, 0.5);
      layer_norm_case(TERN_SHAPE(2, 1000), 0, floats[k], given & 1, given & 2, 0);
    }
    layer_norm_case(TERN_SHAPE(5), 0, floats[k], true, true, 0);
    layer_norm_case(TERN_SHAPE(2, 3, 4), -3, floats[k], true, false, 1e-3);
  }
  TERN_SCOPE;
  tern_tensor *same = tern_full(TERN_SHAPE(2, 4), TERN_F32, 7);
  CHECK_LIST(tern_layer_norm(same, TERN_NONE, TERN_NONE, NULL), TERN_SHAPE(2, 4), TERN_F32, 0, 0, 0, 0, 0, 0, 0, 0);
  CHECK_LIST(tern_layer_norm(same, TERN_NONE, TERN_NONE, &(tern_layer_norm_opts){.epsilon = TERN_ZERO}),
             TERN_SHAPE(2, 4), TERN_F32, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN);
  /* a row of a far mean: a one-pass variance would lose it */
  double *got =
      test_values(tern_layer_norm(tern_f32(TERN_SHAPE(1, 4), 10000, 10001, 10002, 10003), TERN_NONE, TERN_NONE, NULL));
  const double unit = 1 / sqrt(1.25 + 1e-5);
  for (int i = 0; got && i < 4; i++)
    CHECK(fabs(got[i] - (i - 1.5) * unit) < 1e-4, "far mean, element %d: %.9g", i, got[i]);
  free(got);
}

static const test_case cases[] = {
    {"activations", test_activations}, {"softmax, log_softmax", test_softmax}, {"layer_norm", test_layer_norm}};
TEST_MAIN("composites", cases)
