/* What becomes one kernel: launches and planned memory of compiled functions, and that the fused results are right. */
#include "support/values.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <tern/graph.h>
#include <tern/tern.h>
#include <tern/train.h>

enum { MOST = 4 };

static tern_rc one(tern_tensor *y, tern_tensor **out) {
  *out = y;
  return y ? TERN_OK : tern_error_code();
}
#define BODY(name) static tern_rc name(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out)
#define UNUSED (void)self, (void)in, (void)n_in, (void)out, (void)n_out

static const int last = -1;
static const tern_reduce_opts rows = {.axes = &last, .n_axes = 1, .keepdims = 1};
static tern_tensor *num(double x) { return tern_scalar(x); }

BODY(softmax) {
  UNUSED;
  return one(tern_softmax(in[0], -1), out);
}
BODY(softmax_by_hand) {
  UNUSED;
  tern_tensor *e = tern_exp(tern_sub(in[0], tern_max(in[0], &rows)));
  return one(tern_div(e, tern_sum(e, &rows)), out);
}
BODY(layer_norm) {
  UNUSED;
  return one(tern_layer_norm(in[0], in[1], in[2], NULL), out);
}
BODY(rms_by_hand) {
  UNUSED;
  tern_tensor *scale = tern_rsqrt(tern_add(tern_mean(tern_square(in[0]), &rows), num(1e-6)));
  return one(tern_mul(tern_mul(in[0], scale), in[1]), out);
}
BODY(centred) {
  UNUSED;
  return one(tern_sub(in[0], tern_mean(in[0], &rows)), out);
}
BODY(chain) {
  UNUSED;
  tern_tensor *x = in[0], *z = in[3];
  return one(tern_add(tern_mul(tern_tanh(tern_add(tern_mul(x, z), num(1))), tern_exp(tern_mul(tern_neg(x), x))), z),
             out);
}
BODY(relu_mean) {
  UNUSED;
  return one(tern_mean(tern_relu(in[0]), &rows), out);
}
BODY(relu_and_mean) {
  UNUSED;
  out[1] = tern_relu(in[0]);
  return one(tern_mean(out[1], &rows), out);
}
BODY(linear_gelu) {
  UNUSED;
  return one(tern_gelu(tern_add(tern_matmul(in[0], tern_transpose(in[3])), tern_index(in[4], 1, 0)), NULL), out);
}
BODY(two_parts) {
  UNUSED;
  return one(tern_concat((tern_tensor *[]){tern_exp(in[0]), tern_mul(in[3], num(2))}, 2, 1), out);
}
BODY(broadcast_sum) {
  UNUSED;
  return one(tern_sum(tern_mul(tern_expand(in[1], tern_shape_get(in[0])), num(3)), NULL), out);
}
BODY(filled_sum) {
  UNUSED;
  return one(tern_sum(tern_add(tern_full(TERN_SHAPE(6, 16), TERN_F32, 2), tern_mul(in[0], num(0))), NULL), out);
}
BODY(entropy) {
  UNUSED;
  tern_tape *tape = tern_tape_begin(NULL);
  if (!tape || tern_tape_watch(tape, in[0])) return tern_error_code();
  tern_tensor *labels = tern_cast(tern_mul(tern_abs(tern_index(in[3], 1, 0)), num(3)), TERN_I64);
  out[1] = tern_cross_entropy(in[0], labels, NULL);
  return out[1] ? tern_tape_gradient(tape, out[1], in, 1, out) : tern_error_code();
}

typedef struct row {
  const char *name;
  tern_function_body body;
  uint32_t launches; /* at most; with the passes on */
  int n_out;
  bool own_memory; /* nothing between kernels */
} row;

static const row table[] = {
    {"softmax", softmax, 1, 1, true},
    {"softmax by hand", softmax_by_hand, 1, 1, true},
    {"layer_norm", layer_norm, 1, 1, true},
    {"rms norm by hand", rms_by_hand, 1, 1, true},
    {"x - mean(x)", centred, 1, 1, true},
    {"tanh(x z + 1) exp(-x x) + z", chain, 1, 1, true},
    {"mean(relu(x))", relu_mean, 1, 1, true},
    {"relu(x) and its mean", relu_and_mean, 1, 2, true},
    {"gelu(x w + b)", linear_gelu, 1, 1, true},
    {"concat(exp(x), 2 y)", two_parts, 2, 1, true},
    {"sum of a broadcast product", broadcast_sum, 1, 1, true},
    {"sum of a fill", filled_sum, 1, 1, true},
    {"cross entropy and its gradient", entropy, 3, 2, false},
};

static void fill(tern_tensor **in) {
  static const tern_shape shapes[] = {{2, {6, 16}}, {1, {16}}, {1, {16}}, {2, {6, 16}}, {2, {6, 2}}};
  uint64_t state = 3;
  double x[256];
  for (int i = 0; i < 5; i++) {
    for (int64_t e = 0; e < test_numel(shapes[i]); e++) x[e] = test_uniform(&state, -1, 1);
    in[i] = test_tensor(shapes[i], TERN_F32, x);
  }
}

static void counts(void) {
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
    TERN_SCOPE;
    const row *r = &table[i];
    tern_tensor *in[5], *out[MOST], *expected[MOST];
    fill(in);
    tern_function *f = tern_function_new(r->body, NULL, 5, r->n_out, &(tern_function_opts){.name = r->name});
    if (CHECK(!r->body(NULL, in, 5, expected, r->n_out) && !tern_function_run(f, in, 5, out, r->n_out), "%s: %s",
              r->name, tern_error())) {
      for (int o = 0; o < r->n_out; o++)
        CHECK(tern_allclose(out[o], expected[o], 1e-5, 1e-6), "%s: result %d differs from the eager one", r->name, o);
      tern_function_info info;
      tern_function_get_info(f, &info);
      char *text = tern_explain(f);
      CHECK(info.launches <= r->launches, "%s: %u launches, %u expected:\n%s", r->name, info.launches, r->launches,
            text);
      CHECK(!r->own_memory || info.arena_bytes == 0, "%s: %llu bytes between kernels:\n%s", r->name,
            (unsigned long long)info.arena_bytes, text);
      free(text);
    }
    tern_error_clear();
    tern_function_release(f);
  }
}

/* ---- updates ---- */

enum { PARAMETERS = 20 };

typedef struct model {
  tern_tensor *parameter[PARAMETERS], *gradient[PARAMETERS];
  tern_optimizer *optimizer;
} model;

BODY(step) {
  model *m = self;
  (void)n_in, (void)n_out;
  tern_tensor *g[PARAMETERS];
  for (int i = 0; i < PARAMETERS; i++) g[i] = tern_mul(m->gradient[i], in[0]);
  const tern_rc rc = tern_optimizer_apply(m->optimizer, g, m->parameter, PARAMETERS);
  return rc ? rc : one(in[0], out);
}
BODY(adds_to_variable) {
  model *m = self;
  (void)n_in, (void)n_out;
  if (tern_assign(m->parameter[0], tern_add(tern_mul(m->parameter[0], num(0.5)), in[0]))) return tern_error_code();
  return one(in[0], out);
}

static void updates(void) {
  TERN_SCOPE;
  model m = {.optimizer = tern_adam(NULL)};
  for (int i = 0; i < PARAMETERS; i++) {
    m.parameter[i] = tern_variable(tern_full(TERN_SHAPE(3 + i % 4, 5), TERN_F32, 1), NULL);
    m.gradient[i] = tern_full(TERN_SHAPE(3 + i % 4, 5), TERN_F32, 0.1 * (i + 1));
  }
  tern_function *f = tern_function_new(step, &m, 1, 1, NULL);
  for (int k = 0; k < 3; k++) CHECK(tern_call(f, tern_full(TERN_SHAPE(), TERN_F32, 1)) != NULL, "%s", tern_error());
  tern_function_info info;
  tern_function_get_info(f, &info);
  char *text = tern_explain(f);
  CHECK(info.launches <= PARAMETERS + 2, "%u launches for %d parameters:\n%s", info.launches, PARAMETERS, text);
  free(text);
  for (int i = 0; i < PARAMETERS; i++) {
    double *x = test_values(m.parameter[i]);
    CHECK(x && fabs(x[0] - 0.997) < 1e-5, "parameter %d is %g after three steps of 0.001", i, x ? x[0] : 0);
    free(x);
  }
  tern_function_release(f);
  f = tern_function_new(adds_to_variable, &m, 1, 1, NULL);
  tern_tensor *x = tern_full(TERN_SHAPE(3, 5), TERN_F32, 2);
  CHECK(tern_call(f, x) != NULL && !tern_function_get_info(f, &info), "%s", tern_error());
  CHECK(info.launches == 1 && info.arena_bytes == 0, "a variable in place: %u launches, %llu bytes", info.launches,
        (unsigned long long)info.arena_bytes);
  tern_function_release(f);
  tern_optimizer_release(m.optimizer);
  for (int i = 0; i < PARAMETERS; i++) tern_release(m.parameter[i]);
}

/* w = adam(w, x^T y): behind the product in one launch, or, where the device takes few arrays there, one launch for all
   weights. */
enum { WEIGHTS = 3 };

BODY(product_step) {
  model *m = self;
  (void)n_in, (void)n_out;
  tern_tensor *g[WEIGHTS];
  for (int i = 0; i < WEIGHTS; i++) g[i] = tern_matmul(tern_transpose(m->gradient[i]), in[0]);
  const tern_rc rc = tern_optimizer_apply(m->optimizer, g, m->parameter, WEIGHTS);
  return rc ? rc : one(in[0], out);
}

static void updates_of_products(void) {
  TERN_SCOPE;
  model m = {.optimizer = tern_adam(NULL)};
  for (int i = 0; i < WEIGHTS; i++) {
    m.parameter[i] = tern_variable(tern_full(TERN_SHAPE(30 + i, 64), TERN_F32, 1), NULL);
    m.gradient[i] = tern_full(TERN_SHAPE(16, 30 + i), TERN_F32, 0.1 * (i + 1));
  }
  tern_function *f = tern_function_new(product_step, &m, 1, 1, NULL);
  for (int k = 0; k < 3; k++)
    CHECK(tern_call(f, tern_full(TERN_SHAPE(16, 64), TERN_F32, 1)) != NULL, "%s", tern_error());
  tern_function_info info;
  tern_function_get_info(f, &info);
  char *text = tern_explain(f);
  const uint32_t expected = !strncmp(tern_device_get(m.parameter[0]), "opencl", 6) ? WEIGHTS + 1 : WEIGHTS;
  CHECK(info.launches == expected, "%u launches, %u expected:\n%s", info.launches, expected, text);
  free(text);
  for (int i = 0; i < WEIGHTS; i++) {
    double *x = test_values(m.parameter[i]);
    CHECK(x && fabs(x[0] - 0.997) < 1e-5, "weights %d are %g after three steps of 0.001", i, x ? x[0] : 0);
    free(x);
  }
  tern_function_release(f);
  tern_optimizer_release(m.optimizer);
  for (int i = 0; i < WEIGHTS; i++) tern_release(m.parameter[i]);
}

static const test_case cases[] = {
    {"launches", counts}, {"updates", updates}, {"updates of products", updates_of_products}};
TEST_MAIN("fusion", cases)
