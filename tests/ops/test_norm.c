/* Activations and normalisations with first and second derivatives, against PyTorch; views, empty operands, bad
   ones. */
#include "ops/gradients.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static tern_tensor *run_relu(const fixture *f, tern_tensor *const *in) { return (void)f, tern_relu(in[0]); }
static tern_tensor *run_sigmoid(const fixture *f, tern_tensor *const *in) { return (void)f, tern_sigmoid(in[0]); }
static tern_tensor *run_silu(const fixture *f, tern_tensor *const *in) { return (void)f, tern_silu(in[0]); }
static tern_tensor *run_gelu(const fixture *f, tern_tensor *const *in) { return (void)f, tern_gelu(in[0], NULL); }
static tern_tensor *run_gelu_tanh(const fixture *f, tern_tensor *const *in) {
  return (void)f, tern_gelu(in[0], &(tern_gelu_opts){.tanh_form = 1});
}
static int axis_of(const fixture *f) { return (int)fixture_attr(f, "axis", -1); }
static tern_tensor *run_softmax(const fixture *f, tern_tensor *const *in) { return tern_softmax(in[0], axis_of(f)); }
static tern_tensor *run_log_softmax(const fixture *f, tern_tensor *const *in) {
  return tern_log_softmax(in[0], axis_of(f));
}

static tern_tensor *scale_of(const fixture *f, tern_tensor *const *in) {
  return fixture_attr(f, "given", 0) & 1 ? in[1] : TERN_NONE;
}
static tern_tensor *offset_of(const fixture *f, tern_tensor *const *in) {
  const int64_t given = fixture_attr(f, "given", 0);
  return given & 2 ? in[given & 1 ? 2 : 1] : TERN_NONE;
}
static tern_tensor *run_layer_norm(const fixture *f, tern_tensor *const *in) {
  return tern_layer_norm(in[0], scale_of(f, in), offset_of(f, in), &(tern_layer_norm_opts){.axis = axis_of(f)});
}
static tern_tensor *run_rms_norm(const fixture *f, tern_tensor *const *in) {
  return tern_rms_norm(in[0], scale_of(f, in), &(tern_rms_norm_opts){.axis = axis_of(f)});
}
static tern_tensor *run_batch_norm(const fixture *f, tern_tensor *const *in) {
  return tern_batch_norm(in[0], TERN_NONE, TERN_NONE, scale_of(f, in), offset_of(f, in),
                         &(tern_batch_norm_opts){.axis = axis_of(f)});
}
static tern_tensor *run_batch_norm_given(const fixture *f, tern_tensor *const *in) {
  return tern_batch_norm(in[0], in[1], in[2], in[3], in[4], &(tern_batch_norm_opts){.axis = axis_of(f)});
}
static tern_tensor *run_group_norm(const fixture *f, tern_tensor *const *in) {
  return tern_group_norm(in[0], fixture_attr(f, "groups", 1), scale_of(f, in), offset_of(f, in),
                         &(tern_group_norm_opts){.axis = axis_of(f)});
}

#define ROW(name) \
  { #name, run_##name }
static const struct {
  const char *name;
  record_call call;
} activations[] = {ROW(relu), ROW(sigmoid), ROW(silu), ROW(gelu), ROW(gelu_tanh), ROW(softmax), ROW(log_softmax)},
  norms[] = {ROW(layer_norm), ROW(rms_norm), ROW(batch_norm), ROW(batch_norm_given), ROW(group_norm)};

static record_call activation_named(const char *op) {
  for (size_t i = 0; i < sizeof activations / sizeof *activations; i++)
    if (!strcmp(op, activations[i].name)) return activations[i].call;
  return NULL;
}
static record_call norm_named(const char *op) {
  for (size_t i = 0; i < sizeof norms / sizeof *norms; i++)
    if (!strcmp(op, norms[i].name)) return norms[i].call;
  return NULL;
}

static void test_activations(void) { check_records("nn.bin", activation_named, 28); }
static void test_norms(void) { check_records("nn.bin", norm_named, 35); }

/* A strided x gives what its copy gives; statistics over a long batch. */
static void test_views(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_random_normal(TERN_SHAPE(6, 4, 5), NULL), *turned = tern_transpose(x),
              *copy = tern_clone(turned);
  tern_tensor *none = TERN_NONE;
  CHECK(tern_allclose(tern_layer_norm(turned, none, none, NULL), tern_layer_norm(copy, none, none, NULL), 1e-5, 1e-6) ==
            1,
        "layer_norm of a view");
  CHECK(tern_allclose(tern_batch_norm(turned, none, none, none, none, NULL),
                      tern_batch_norm(copy, none, none, none, none, NULL), 1e-5, 1e-6) == 1,
        "batch_norm of a view");
  CHECK(tern_allclose(tern_group_norm(turned, 2, none, none, NULL), tern_group_norm(copy, 2, none, none, NULL), 1e-5,
                      1e-6) == 1,
        "group_norm of a view");
  tern_tensor *far = tern_add(tern_random_normal(TERN_SHAPE(5000, 3), NULL), tern_scalar(1000));
  tern_tensor *y = tern_batch_norm(far, none, none, none, none, &(tern_batch_norm_opts){.epsilon = TERN_ZERO});
  const int rows = 0;
  const tern_reduce_opts over = {.axes = &rows, .n_axes = 1};
  CHECK(tern_allclose(tern_mean(y, &over), tern_zeros(TERN_SHAPE(3), TERN_F32), 0, 1e-3) == 1,
        "mean of a batch far from 0");
  CHECK(tern_allclose(tern_std(y, &over), tern_ones(TERN_SHAPE(3), TERN_F32), 0, 1e-3) == 1,
        "deviation of a batch far from 0");
  CHECK(tern_size(tern_batch_norm(tern_zeros(TERN_SHAPE(0, 3), TERN_F32), none, none, none, none, NULL)) == 0,
        "an empty batch");
  CHECK_NO_ERROR();
}

static void test_refusals(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_ones(TERN_SHAPE(2, 6), TERN_F32), *two = tern_ones(TERN_SHAPE(2), TERN_F32), *none = TERN_NONE;
  CHECK(!tern_layer_norm(x, two, none, NULL), "a scale of another shape");
  CHECK_ERROR(TERN_E_ARG, "layer_norm: scale has shape (2,)");
  CHECK(!tern_rms_norm(x, none, &(tern_rms_norm_opts){.axis = 5}), "no such axis");
  CHECK_ERROR(TERN_E_ARG, "axis 5");
  CHECK(!tern_layer_norm(x, none, none, &(tern_layer_norm_opts){.epsilon = -1}), "a negative epsilon");
  CHECK_ERROR(TERN_E_ARG, "epsilon is -1");
  CHECK(!tern_batch_norm(x, two, none, none, none, NULL), "a mean alone");
  CHECK_ERROR(TERN_E_ARG, "only the mean is given");
  CHECK(!tern_batch_norm(x, none, none, two, none, NULL), "a scale that is not one a channel");
  CHECK_ERROR(TERN_E_ARG, "must be (6,)");
  CHECK(!tern_batch_norm(two, none, none, none, none, NULL), "no batch");
  CHECK_ERROR(TERN_E_ARG, "rank 1");
  CHECK(!tern_group_norm(x, 4, none, none, NULL), "groups that do not divide");
  CHECK_ERROR(TERN_E_ARG, "4 groups");
  CHECK(!tern_group_norm(x, 2, none, none, &(tern_group_norm_opts){.axis = -2}), "groups of the batch");
  CHECK_ERROR(TERN_E_ARG, "axis 0 is the batch");
  CHECK(!tern_layer_norm(NULL, none, none, NULL), "NULL");
  CHECK_ERROR(TERN_E_ARG, "NULL");
}

static const test_case cases[] = {{"activations", test_activations},
                                  {"normalisations", test_norms},
                                  {"views", test_views},
                                  {"refusals", test_refusals}};
TEST_MAIN("norm", cases)
