/* Layers against Keras 3 (fixtures/layers.bin: make_layers.py): results, gradients, moving averages, masks; at once and
   in compiled functions for batches of any size; and from JSON. */
#include "fixtures/fixtures.h"
#include "nn/layer.h"
#include "support/values.h"
#include <cjson/cJSON.h>
#include <stdlib.h>

enum { MAX_OUT = 8, MAX_WEIGHTS = 4 };

/* ---- the configurations of make_layers.py ---- */

#define LAYER(name, ...) \
  static tern_layer *make_##name(void) { return __VA_ARGS__; }
#define CONV(...) (&(tern_conv_layer_opts){__VA_ARGS__})
#define POOL(...) (&(tern_pool_layer_opts){__VA_ARGS__})
#define NORM(...) (&(tern_norm_layer_opts){__VA_ARGS__})
#define BATCH(...) (&(tern_batch_norm_layer_opts){__VA_ARGS__})
#define LAYERS(X)                                                                                                    \
  X(dense, tern_dense(3, NULL))                                                                                      \
  X(dense_relu_3d, tern_dense(4, &(tern_dense_opts){.activation = "relu"}))                                          \
  X(dense_no_bias, tern_dense(4, &(tern_dense_opts){.activation = "tanh", .no_bias = 1}))                            \
  X(dense_softmax, tern_dense(5, &(tern_dense_opts){.activation = "softmax"}))                                       \
  X(dense_mask, tern_dense(2, &(tern_dense_opts){.activation = "gelu"}))                                             \
  X(conv1d, tern_conv1d(4, 3, NULL))                                                                                 \
  X(conv1d_same, tern_conv1d(4, 3, CONV(.strides = {2}, .padding = "same", .activation = "relu")))                   \
  X(conv1d_causal, tern_conv1d(4, 3, CONV(.dilations = {2}, .padding = "causal")))                                   \
  X(conv1d_causal_stride, tern_conv1d(4, 2, CONV(.strides = {2}, .padding = "causal", .no_bias = 1)))                \
  X(conv1d_groups, tern_conv1d(6, 3, CONV(.padding = "same", .groups = 2)))                                          \
  X(conv1d_mask, tern_conv1d(2, 3, NULL))                                                                            \
  X(conv2d, tern_conv2d(4, 3, 0, NULL))                                                                              \
  X(conv2d_same, tern_conv2d(3, 3, 2, CONV(.strides = {2, 3}, .padding = "same", .activation = "silu")))             \
  X(conv2d_same_even, tern_conv2d(3, 4, 4, CONV(.strides = {2}, .padding = "same")))                                 \
  X(conv2d_stride, tern_conv2d(3, 2, 3, CONV(.strides = {2, 2}, .no_bias = 1)))                                      \
  X(conv2d_dilated, tern_conv2d(2, 3, 3, CONV(.dilations = {2, 1}, .padding = "same")))                              \
  X(conv2d_groups, tern_conv2d(6, 3, 3, CONV(.strides = {2}, .groups = 3, .activation = "relu")))                    \
  X(depthwise, tern_depthwise_conv2d(3, 0, 1, NULL))                                                                 \
  X(depthwise_same, tern_depthwise_conv2d(2, 3, 2, CONV(.strides = {2}, .padding = "same", .activation = "relu6")))  \
  X(transpose, tern_conv2d_transpose(3, 3, 3, CONV(.strides = {2})))                                                 \
  X(transpose_same, tern_conv2d_transpose(3, 3, 4, CONV(.strides = {2, 1}, .padding = "same", .activation = "elu"))) \
  X(transpose_short, tern_conv2d_transpose(2, 2, 2, CONV(.strides = {3})))                                           \
  X(transpose_short_same, tern_conv2d_transpose(2, 2, 1, CONV(.strides = {3}, .padding = "same", .no_bias = 1)))     \
  X(max_pool1d, tern_max_pool1d(NULL))                                                                               \
  X(max_pool1d_same, tern_max_pool1d(POOL(.window = {3}, .strides = {2}, .padding = "same")))                        \
  X(max_pool2d, tern_max_pool2d(NULL))                                                                               \
  X(max_pool2d_window, tern_max_pool2d(POOL(.window = {3, 2})))                                                      \
  X(max_pool2d_same, tern_max_pool2d(POOL(.window = {3, 2}, .strides = {2, 1}, .padding = "same")))                  \
  X(avg_pool1d, tern_avg_pool1d(POOL(.window = {3}, .strides = {1}, .padding = "same")))                             \
  X(avg_pool2d, tern_avg_pool2d(NULL))                                                                               \
  X(avg_pool2d_same, tern_avg_pool2d(POOL(.window = {3}, .strides = {2}, .padding = "same")))                        \
  X(global_max_pool1d, tern_global_max_pool1d(NULL))                                                                 \
  X(global_max_pool2d, tern_global_max_pool2d(POOL(.keepdims = 1)))                                                  \
  X(global_avg_pool1d, tern_global_avg_pool1d(POOL(.keepdims = 1)))                                                  \
  X(global_avg_pool1d_mask, tern_global_avg_pool1d(NULL))                                                            \
  X(global_avg_pool2d, tern_global_avg_pool2d(NULL))                                                                 \
  X(flatten, tern_flatten_layer(NULL))                                                                               \
  X(flatten_numbers, tern_flatten_layer(NULL))                                                                       \
  X(flatten_mask, tern_flatten_layer(NULL))                                                                          \
  X(reshape, tern_reshape_layer(TERN_SHAPE(2, 6), NULL))                                                             \
  X(reshape_open, tern_reshape_layer(TERN_SHAPE(3, -1, 2), NULL))                                                    \
  X(activation, tern_activation("hard_silu", NULL))                                                                  \
  X(dropout, tern_dropout_layer(0, NULL))                                                                            \
  X(masking, tern_masking(0, NULL))                                                                                  \
  X(masking_value, tern_masking(-1, NULL))                                                                           \
  X(embedding, tern_embedding_layer(7, 3, NULL))                                                                     \
  X(embedding_mask, tern_embedding_layer(4, 2, &(tern_embedding_opts){.mask_zero = 1}))                              \
  X(batch_norm, tern_batch_norm_layer(NULL))                                                                         \
  X(batch_norm_2d, tern_batch_norm_layer(BATCH(.momentum = 0.75, .epsilon = 0.0625)))                                \
  X(batch_norm_axis, tern_batch_norm_layer(BATCH(.axis = 1, .no_scale = 1)))                                         \
  X(batch_norm_no_center, tern_batch_norm_layer(BATCH(.axis = -2, .no_center = 1)))                                  \
  X(batch_norm_mask, tern_batch_norm_layer(NULL))                                                                    \
  X(batch_norm_frozen, tern_batch_norm_layer(BATCH(.frozen = 1)))                                                    \
  X(layer_norm, tern_layer_norm_layer(NULL))                                                                         \
  X(layer_norm_axes, tern_layer_norm_layer(NORM(.axis = 1, .epsilon = 0.125)))                                       \
  X(layer_norm_mask, tern_layer_norm_layer(NORM(.no_scale = 1)))                                                     \
  X(layer_norm_plain, tern_layer_norm_layer(NORM(.no_scale = 1, .no_center = 1)))                                    \
  X(rms_norm, tern_rms_norm_layer(NULL))                                                                             \
  X(rms_norm_axes, tern_rms_norm_layer(NORM(.axis = -2, .epsilon = 0.25)))                                           \
  X(group_norm, tern_group_norm_layer(2, NULL))                                                                      \
  X(group_norm_axis, tern_group_norm_layer(3, NORM(.axis = 1, .no_center = 1, .epsilon = 0.5)))
LAYERS(LAYER)
#define NAMED(name, ...) {#name, make_##name},
static const struct {
  const char *name;
  tern_layer *(*make)(void);
} table[] = {LAYERS(NAMED)};
enum { N_TABLE = sizeof table / sizeof *table };

/* ---- JSON ---- */

static char *json_text(const tern_layer *l) {
  cJSON *json = tern__layer_to_json(l);
  char *text = cJSON_PrintUnformatted(json);
  cJSON_Delete(json);
  return text;
}

static tern_layer *again(const char *text) {
  cJSON *json = cJSON_Parse(text);
  tern_layer *l = tern__layer_from_json(json, NULL);
  cJSON_Delete(json);
  return l;
}

/* l as it comes back from its text, whose own text must be the same; ends l. */
static tern_layer *through_json(tern_layer *l, const char *name) {
  char *text = json_text(l);
  tern_layer *back = again(text);
  char *second = back ? json_text(back) : NULL;
  CHECK(back && !strcmp(text, second), "%s: %s came back as %s: %s", name, text, second ? second : "nothing",
        tern_error());
  free(text);
  free(second);
  tern_layer_release(l);
  return back;
}

/* ---- one configuration ---- */

typedef struct {
  const fixture *f, *g; /* the two records */
  tern_layer *layer;
  tern_dtype dtype;
  double tolerance;
} run;

static tern_shape shape_of(const fixture_array *a) { return tern_shape_of(a->rank, a->shape); }

static tern_tensor *tensor_of(const fixture_array *a, tern_dtype dtype) {
  return a->dtype == TERN_F64 ? test_tensor(shape_of(a), dtype, a->data)
                              : tern_constant(shape_of(a), a->dtype, a->data, a->count);
}

static void compare(const run *r, tern_tensor *got, const fixture_array *expected, const char *what) {
  char text[200];
  double wide[512];
  snprintf(text, sizeof text, "%s of %s (%s)", what, r->f->op, tern_dtype_name(r->dtype));
  if (!CHECK(expected->count <= 512, "%s: %zu values", text, expected->count)) return;
  for (size_t i = 0; i < expected->count; i++)
    wide[i] = expected->dtype == TERN_BOOL ? ((const uint8_t *)expected->data)[i] : ((const double *)expected->data)[i];
  CHECK_VALUES(got, shape_of(expected), expected->dtype == TERN_BOOL ? TERN_BOOL : r->dtype, wide, 0, r->tolerance,
               text);
}

static int attr(const fixture *f, const char *name) { return (int)fixture_attr(f, name, 0); }

static void set_weights(const run *r) {
  tern_tensor *variables[MAX_WEIGHTS];
  const int n = tern_layer_variables(r->layer, variables, MAX_WEIGHTS);
  if (!CHECK(n == attr(r->f, "weights"), "%s has %d weights; Keras has %d", r->f->op, n, attr(r->f, "weights"))) return;
  for (int i = 0; i < n; i++)
    CHECK(!tern_assign(variables[i], tensor_of(&r->f->in[1 + attr(r->f, "mask") + i], r->dtype)), "%s: weight %d: %s",
          r->f->op, i, tern_error());
}

/* in: x, the gradient, a mask. out: the result, the mask behind, the gradients of x and the trained weights. */
static tern_rc train(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const run *r = self;
  tern_tensor *sources[1 + MAX_WEIGHTS], *variables[MAX_WEIGHTS];
  int n = 0, at = 0;
  tern_tape *tape = tern_tape_begin(NULL);
  if (attr(r->g, "dx")) {
    tern_tape_watch(tape, in[0]);
    sources[n++] = in[0];
  }
  tern__pass p = {.training = true, .mask = n_in > 2 ? in[2] : TERN_NONE};
  tern_tensor *y = tern__layer_run(r->layer, in[0], &p);
  out[at++] = y;
  if (attr(r->f, "mask_out"))
    out[at++] = p.mask;
  else
    CHECK(p.mask == TERN_NONE || !strncmp(r->f->op, "rms", 3), "%s leaves a mask", r->f->op);
  const int n_variables = tern_layer_variables(r->layer, variables, MAX_WEIGHTS);
  for (int i = 0; i < n_variables; i++)
    if (tern_trainable(variables[i])) sources[n++] = variables[i];
  if (!CHECK(at + n == n_out && y, "%s: %d of %d results: %s", r->f->op, at + n, n_out, tern_error()))
    return TERN_E_ARG;
  return n ? tern_tape_gradients(tape, &y, &in[1], 1, sources, n, out + at, NULL) : TERN_OK;
}

static int n_results(const run *r) { return 1 + attr(r->f, "mask_out") + r->g->n_out; }

static void compare_training(const run *r, tern_tensor *const *out, const char *how) {
  char text[100];
  const int masks = attr(r->f, "mask_out"), stats = attr(r->f, "stats");
  snprintf(text, sizeof text, "%s: result", how);
  compare(r, out[0], &r->f->out[1], text);
  if (masks) compare(r, out[1], &r->f->out[2], "mask");
  for (int i = 0; i < r->g->n_out; i++) {
    snprintf(text, sizeof text, "%s: gradient %d", how, i);
    compare(r, out[1 + masks + i], &r->g->out[i], text);
  }
  tern_tensor *variables[MAX_WEIGHTS];
  const int n = tern_layer_variables(r->layer, variables, MAX_WEIGHTS);
  for (int i = 0; i < stats; i++) compare(r, variables[n - stats + i], &r->f->out[2 + masks + i], "moving average");
}

static tern_tensor *rows(tern_tensor *x, int64_t n) { return tern_slice(x, &TERN_RANGE(0, n, 1), 1); }

/* All of it, some of it, all of it; at most two traces. */
static void in_function(run *r, tern_tensor *const *in, int n_in) {
  const int n_out = n_results(r);
  tern_tensor *out[MAX_OUT] = {0}, *few[3], *expected[MAX_OUT] = {0};
  tern_function *f = tern_function_new(train, r, n_in, n_out, NULL);
  tern_function_info info = {0};
  for (int round = 0; round < 3; round++) {
    set_weights(r);
    for (int i = 0; i < n_in; i++) few[i] = round == 1 ? rows(in[i], tern_dim(in[i], 0) - 1) : in[i];
    if (!CHECK(!tern_function_run(f, few, n_in, out, n_out), "%s in a function: %s", r->f->op, tern_error())) break;
    if (round != 1) {
      compare_training(r, out, "in a function");
      continue;
    }
    CHECK(!train(r, few, n_in, expected, n_out), "%s: %s", r->f->op, tern_error());
    for (int i = 0; i < n_out; i++)
      CHECK(tern_allclose(out[i], expected[i], r->tolerance, r->tolerance) == 1, "%s: result %d of fewer rows: %s",
            r->f->op, i, tern_error());
  }
  tern_function_get_info(f, &info);
  CHECK(info.traces <= 2, "%s: %d traces", r->f->op, info.traces);
  tern_function_release(f);
}

static void configuration(const fixture *f, const fixture *g, tern_layer *layer, tern_dtype dtype, bool functions) {
  TERN_SCOPE;
  run r = {.f = f, .g = g, .layer = layer, .dtype = dtype, .tolerance = dtype == TERN_F64 ? 1e-12 : 2e-5};
  const int n_in = 2 + attr(f, "mask");
  tern_tensor *in[] = {tensor_of(&f->in[0], dtype), tensor_of(&g->in[0], dtype),
                       n_in > 2 ? tensor_of(&f->in[1], dtype) : TERN_NONE},
              *out[MAX_OUT] = {0};
  const tern_layer_call_opts opts = {.mask = in[2]};
  if (!CHECK(tern_layer_call(layer, in[0], &opts), "%s: %s", f->op, tern_error())) {
    tern_error_clear();
    return;
  }
  if (dtype == TERN_F32) r.layer = layer = through_json(layer, f->op);
  if (dtype == TERN_F32 && layer) tern_layer_call(layer, in[0], &opts);
  if (layer) set_weights(&r);
  if (layer) compare(&r, tern_layer_call(layer, in[0], &opts), &f->out[0], "inference: result");
  if (layer && CHECK(!train(&r, in, n_in, out, n_results(&r)), "%s: %s", f->op, tern_error()))
    compare_training(&r, out, "training");
  if (layer && functions) in_function(&r, in, n_in);
  tern_layer_release(layer);
  CHECK_NO_ERROR();
}

/* Elsewhere than on the CPU every form is a kernel to compile: a slice, and of it some in functions. */
static void test_keras(void) {
  const bool on_cpu = !strncmp(tern_default_device(), "cpu", 3);
  int seen = 0;
  fixtures file;
  fixture f, g;
  if (!CHECK(fixtures_open(&file, TERN_FIXTURES "/layers.bin"), "layers.bin: %s", file.error)) return;
  while (fixtures_next(&file, &f)) {
    if (!strncmp(f.op, "activation ", 11)) continue;
    if (!CHECK(fixtures_next(&file, &g) && !strcmp(g.op, "gradients"), "layers.bin: no gradients of %s", f.op)) break;
    int k = 0;
    while (k < N_TABLE && strcmp(table[k].name, f.op)) k++;
    if (!CHECK(k < N_TABLE, "there is no layer %s", f.op)) continue;
    seen++;
    if ((!on_cpu && seen % 4) || !test_chosen()) continue;
    const bool mixed = f.in[0].dtype == TERN_I32; /* ids: weights are float32 */
    configuration(&f, &g, table[k].make(), TERN_F32, on_cpu || seen % 16 == 0);
    if (on_cpu && !mixed) configuration(&f, &g, table[k].make(), TERN_F64, false);
  }
  CHECK(!file.error && seen == N_TABLE, "layers.bin: %d layers, %s", seen, file.error ? file.error : "");
  fixtures_close(&file);
}

/* ---- activations ---- */

static void test_activations(void) {
  const bool on_cpu = !strncmp(tern_default_device(), "cpu", 3);
  int seen = 0;
  fixtures file;
  fixture f;
  if (!CHECK(fixtures_open(&file, TERN_FIXTURES "/layers.bin"), "layers.bin: %s", file.error)) return;
  while (fixtures_next(&file, &f)) {
    if (strncmp(f.op, "activation ", 11)) continue;
    seen++;
    if ((!on_cpu && seen % 5) || !test_chosen()) continue;
    for (int k = 0; k < 1 + on_cpu; k++) {
      TERN_SCOPE;
      const tern_dtype dtype = k ? TERN_F64 : TERN_F32;
      tern_tensor *x = tensor_of(&f.in[0], dtype), *dy = tensor_of(&f.in[1], dtype), *dx = NULL;
      tern_tape *tape = tern_tape_begin(NULL);
      tern_tape_watch(tape, x);
      tern_tensor *y = tern_activate(f.op + 11, x);
      tern_tape_gradients(tape, &y, &dy, 1, &x, 1, &dx, NULL);
      /* 16 ulp, or what an ulp of tanh(20), which is 1 or just below, is worth in the gradient of mish */
      const double near = dtype == TERN_F64 ? 1e-14 : 1e-5;
      CHECK_VALUES(y, shape_of(&f.out[0]), dtype, f.out[0].data, 16, near, f.op);
      CHECK_VALUES(dx, shape_of(&f.out[1]), dtype, f.out[1].data, 16, near, f.op);
    }
    CHECK_NO_ERROR();
  }
  CHECK(seen == 21, "layers.bin: %d activations", seen);
  fixtures_close(&file);
}

static const test_case cases[] = {{"keras", test_keras}, {"activations", test_activations}};
TEST_MAIN("layers", cases)
