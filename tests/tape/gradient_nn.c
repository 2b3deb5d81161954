/* Gradient cases of the neural-network ops, and of the composites that compute their gradients: those are results of a
   tape, so that their own derivatives are second ones of the op, and the second ones that are tested third ones. */
#include "tape/gradients.h"

/* The gradient of body to its first input from dy, the last of n, as an op of all of them. */
static tern_tensor *back(tern_tensor *(*body)(tern_tensor *const *x, int form), tern_tensor *const *x, int n,
                         int form) {
  tern_tensor *g = NULL;
  tern_tape *tape = tern_tape_begin(NULL);
  if (tern_tape_watch(tape, x[0])) return NULL;
  tern_tensor *y = body(x, form);
  return y && !tern_tape_gradients(tape, &y, &x[n - 1], 1, x, 1, &g, NULL) ? g : NULL;
}

/* ---- activations ---- */

static tern_tensor *softmax(tern_tensor *const *x, int axis) { return tern_softmax(x[0], axis); }
static tern_tensor *log_softmax(tern_tensor *const *x, int axis) { return tern_log_softmax(x[0], axis); }
static tern_tensor *relu(tern_tensor *const *x, int form) {
  (void)form;
  return tern_relu(x[0]);
}
static tern_tensor *sigmoid(tern_tensor *const *x, int form) {
  (void)form;
  return tern_sigmoid(x[0]);
}
static tern_tensor *silu(tern_tensor *const *x, int form) {
  (void)form;
  return tern_silu(x[0]);
}
static tern_tensor *gelu(tern_tensor *const *x, int tanh_form) {
  return tern_gelu(x[0], &(tern_gelu_opts){.tanh_form = tanh_form});
}
static tern_tensor *relu_grad(tern_tensor *const *x, int form) { return back(relu, x, 2, form); }
static tern_tensor *sigmoid_grad(tern_tensor *const *x, int form) { return back(sigmoid, x, 2, form); }
static tern_tensor *silu_grad(tern_tensor *const *x, int form) { return back(silu, x, 2, form); }
static tern_tensor *gelu_grad(tern_tensor *const *x, int form) { return back(gelu, x, 2, form); }
static tern_tensor *softmax_grad(tern_tensor *const *x, int form) { return back(softmax, x, 2, form); }
static tern_tensor *log_softmax_grad(tern_tensor *const *x, int form) { return back(log_softmax, x, 2, form); }

/* ---- normalisation ---- */

static tern_tensor *layer_norm(tern_tensor *const *x, int form) {
  if (form == 1) return tern_layer_norm(x[0], x[1], TERN_NONE, NULL);
  if (form == 2) return tern_layer_norm(x[0], TERN_NONE, x[1], &(tern_layer_norm_opts){.epsilon = 0.1});
  if (form == 3) return tern_layer_norm(x[0], x[1], x[2], &(tern_layer_norm_opts){.axis = 1});
  if (form == 4) return tern_layer_norm(x[0], TERN_NONE, TERN_NONE, NULL);
  return tern_layer_norm(x[0], x[1], x[2], NULL);
}
static tern_tensor *rms_norm(tern_tensor *const *x, int form) {
  if (form == 1) return tern_rms_norm(x[0], TERN_NONE, NULL);
  return tern_rms_norm(x[0], x[1], form ? &(tern_rms_norm_opts){.axis = 1, .epsilon = 0.05} : NULL);
}
static tern_tensor *batch_norm(tern_tensor *const *x, int form) {
  const tern_batch_norm_opts channels = {.axis = 1};
  if (form == 0) return tern_batch_norm(x[0], TERN_NONE, TERN_NONE, x[1], x[2], NULL);
  if (form == 1) return tern_batch_norm(x[0], x[1], x[2], x[3], x[4], NULL);
  if (form == 2) return tern_batch_norm(x[0], TERN_NONE, TERN_NONE, x[1], TERN_NONE, &channels);
  if (form == 3) return tern_batch_norm(x[0], x[1], x[2], TERN_NONE, x[3], &channels);
  return tern_batch_norm(x[0], TERN_NONE, TERN_NONE, TERN_NONE, TERN_NONE, NULL);
}
static tern_tensor *group_norm(tern_tensor *const *x, int form) {
  if (form == 1) return tern_group_norm(x[0], 2, TERN_NONE, TERN_NONE, &(tern_group_norm_opts){.axis = 1});
  return tern_group_norm(x[0], form == 2 ? 4 : 2, x[1], x[2], NULL);
}
static tern_tensor *norm_grad(tern_tensor *const *x, int form) {
  if (form == 0) return back(layer_norm, x, 3, 1); /* x, scale, dy */
  if (form == 1) return back(layer_norm, x, 2, 4);
  if (form == 2) return back(rms_norm, x, 3, 0);
  return back(batch_norm, x, 3, 2);
}

/* ---- attention, dropout ---- */

static tern_tensor *attention(tern_tensor *const *x, int form) {
  static const uint8_t seen[] = {1, 0, 1, 1, 1, 1, 0, 1, 1, 0, 0, 1};
  tern_attention_opts o = {0};
  if (form == 1) o.causal = 1;
  if (form == 2) o.mask = x[3];
  if (form == 3) o.mask = tern_constant((tern_shape){2, {3, 4}}, TERN_BOOL, seen, 12);
  if (form == 4) o = (tern_attention_opts){.scale = 0.3, .dropout = 0.4, .seed = 7};
  if (form == 5) o = (tern_attention_opts){.mask = x[3], .causal = 1, .scale = 1.5};
  return tern_scaled_dot_product_attention(x[0], x[1], x[2], &o);
}
static tern_tensor *dropout(tern_tensor *const *x, int form) {
  return tern_dropout(x[0], form ? 0.9 : 0.3, &(tern_dropout_opts){.seed = 5});
}

/* ---- convolution ---- */

static const tern_conv_opts conv_opts[] = {
    {.layout = TERN_NHWC},
    {.padding = TERN_PAD_SAME, .strides = {2, 2}},
    {.padding = TERN_PAD_EXPLICIT, .pads = {{1, 2}, {0, 1}}, .strides = {2, 1}, .dilations = {1, 2}},
    {.groups = 2},
    {.layout = TERN_NCHW, .padding = TERN_PAD_SAME},
    {.layout = TERN_NCHW, .strides = {2, 3}, .groups = 2},
    {.strides = {3}},
    {.padding = TERN_PAD_SAME, .dilations = {2}},
    {.padding = TERN_PAD_EXPLICIT, .pads = {{1, 0}, {1, 1}}, .strides = {2, 2}, .output_padding = {1, 0}},
};
static tern_tensor *conv(tern_tensor *const *x, int form) { return tern_conv(x[0], x[1], &conv_opts[form]); }
static tern_tensor *conv_transpose(tern_tensor *const *x, int form) {
  return tern_conv_transpose(x[0], x[1], &conv_opts[form]);
}
/* The gradient to the filters: x, filters, dy */
static tern_tensor *conv_dw(tern_tensor *const *x, int form) {
  tern_tensor *g = NULL;
  tern_tape *tape = tern_tape_begin(NULL);
  if (tern_tape_watch(tape, x[1])) return NULL;
  tern_tensor *y = conv(x, form);
  return y && !tern_tape_gradients(tape, &y, &x[2], 1, &x[1], 1, &g, NULL) ? g : NULL;
}

/* ---- pooling ---- */

static const tern_pool_opts pool_opts[] = {
    {.layout = TERN_NHWC},
    {.window = {3, 2}, .strides = {1, 1}},
    {.padding = TERN_PAD_SAME, .window = {3, 3}, .strides = {2, 2}},
    {.padding = TERN_PAD_EXPLICIT, .pads = {{1, 0}, {1, 1}}, .window = {2, 3}, .strides = {2, 2}, .count_padding = 1},
    {.layout = TERN_NCHW,
     .padding = TERN_PAD_EXPLICIT,
     .pads = {{1, 1}, {0, 1}},
     .window = {2, 2},
     .strides = {1, 2},
     .dilations = {2, 1}},
    {.window = {3}, .strides = {2}},
    {.window = {2}, .strides = {3}},
};
static tern_tensor *max_pool(tern_tensor *const *x, int form) { return tern_max_pool(x[0], &pool_opts[form]); }
static tern_tensor *avg_pool(tern_tensor *const *x, int form) { return tern_avg_pool(x[0], &pool_opts[form]); }

#define MINOR GRADIENT_MINOR
#define A IN(-2, 2, 2, 3)
#define A3 IN(-2, 2, 2, 3, 4)
static const gradient_case rows[] = {
    ROW("softmax", "the last axis", softmax, -1, 0, A),
    ROW("softmax", "axis 0", softmax, 0, MINOR, A3),
    ROW("softmax", "axis 1", softmax, 1, MINOR, A3),
    ROW("softmax", "nothing", softmax, 1, MINOR, IN(-2, 2, 0, 3)),
    ROW("softmax", "a scalar", softmax, 0, MINOR, IN(-2, 2, )),
    ROW("log_softmax", "the last axis", log_softmax, -1, 0, A),
    ROW("log_softmax", "axis 1", log_softmax, 1, MINOR, A3),
    ROW("log_softmax", "nothing", log_softmax, 1, MINOR, IN(-2, 2, 0, 3)),
    ROW("relu_grad", "", relu_grad, 0, 0, IN_AWAY(-2, 2, 0.1, 2, 3), A),
    ROW("sigmoid_grad", "", sigmoid_grad, 0, 0, A, A),
    ROW("silu_grad", "", silu_grad, 0, 0, A, A),
    ROW("gelu_grad", "", gelu_grad, 0, 0, A, A),
    ROW("gelu_grad", "tanh form", gelu_grad, 1, 0, A, A),
    ROW("softmax_grad", "the last axis", softmax_grad, -1, 0, A, A),
    ROW("softmax_grad", "axis 1", softmax_grad, 1, MINOR, A3, A3),
    ROW("log_softmax_grad", "the last axis", log_softmax_grad, -1, 0, A, A),
    ROW("log_softmax_grad", "axis 1", log_softmax_grad, 1, MINOR, A3, A3),
    ROW("layer_norm", "scale and offset", layer_norm, 0, 0, IN(-2, 2, 2, 2, 4), IN(0.5, 1.5, 4), IN(-1, 1, 4)),
    ROW("layer_norm", "scale", layer_norm, 1, MINOR, IN(-2, 2, 3, 4), IN(0.5, 1.5, 4)),
    ROW("layer_norm", "offset, epsilon", layer_norm, 2, MINOR, IN(-2, 2, 3, 4), IN(-1, 1, 4)),
    ROW("layer_norm", "two axes", layer_norm, 3, MINOR, IN(-2, 2, 2, 3, 2), IN(0.5, 1.5, 3, 2), IN(-1, 1, 3, 2)),
    ROW("layer_norm", "x alone", layer_norm, 4, MINOR, IN(-2, 2, 4)),
    ROW("layer_norm", "no rows", layer_norm, 4, MINOR, IN(-2, 2, 0, 3)),
    ROW("rms_norm", "scale", rms_norm, 0, 0, IN(-2, 2, 3, 4), IN(0.5, 1.5, 4)),
    ROW("rms_norm", "x alone", rms_norm, 1, MINOR, IN(-2, 2, 2, 2, 3)),
    ROW("rms_norm", "two axes, epsilon", rms_norm, 2, MINOR, IN(-2, 2, 2, 3, 2), IN(0.5, 1.5, 3, 2)),
    ROW("batch_norm", "of the batch", batch_norm, 0, 0, IN(-2, 2, 3, 2, 4), IN(0.5, 1.5, 4), IN(-1, 1, 4)),
    ROW("batch_norm", "given statistics", batch_norm, 1, 0, IN(-2, 2, 3, 4), IN(-1, 1, 4), IN(0.5, 2, 4),
        IN(0.5, 1.5, 4), IN(-1, 1, 4)),
    ROW("batch_norm", "channels first, scale", batch_norm, 2, MINOR, IN(-2, 2, 3, 4, 2), IN(0.5, 1.5, 4)),
    ROW("batch_norm", "given, channels first, offset", batch_norm, 3, MINOR, IN(-2, 2, 3, 4, 2), IN(-1, 1, 4),
        IN(0.5, 2, 4), IN(-1, 1, 4)),
    ROW("batch_norm", "x alone", batch_norm, 4, MINOR, IN(-2, 2, 5, 3)),
    ROW("group_norm", "scale and offset", group_norm, 0, 0, IN(-2, 2, 2, 3, 4), IN(0.5, 1.5, 4), IN(-1, 1, 4)),
    ROW("group_norm", "channels first", group_norm, 1, MINOR, IN(-2, 2, 2, 4, 3)),
    ROW("group_norm", "as many as channels", group_norm, 2, MINOR, IN(-2, 2, 2, 3, 4), IN(0.5, 1.5, 4), IN(-1, 1, 4)),
    ROW("norm_grad", "layer_norm with scale", norm_grad, 0, 0, IN(-2, 2, 2, 4), IN(0.5, 1.5, 4), IN(-1, 1, 2, 4)),
    ROW("norm_grad", "layer_norm", norm_grad, 1, MINOR, IN(-2, 2, 2, 4), IN(-1, 1, 2, 4)),
    ROW("norm_grad", "rms_norm", norm_grad, 2, MINOR, IN(-2, 2, 2, 4), IN(0.5, 1.5, 4), IN(-1, 1, 2, 4)),
    ROW("norm_grad", "batch_norm", norm_grad, 3, MINOR, IN(-2, 2, 3, 4, 2), IN(0.5, 1.5, 4), IN(-1, 1, 3, 4, 2)),
    ROW("attention_weights", "plain", attention, 0, MINOR, IN(-1, 1, 3, 2), IN(-1, 1, 4, 2), IN(-1, 1, 4, 3)),
    ROW("scaled_dot_product_attention", "plain", attention, 0, 0, IN(-1, 1, 2, 3, 2), IN(-1, 1, 2, 4, 2),
        IN(-1, 1, 2, 4, 3)),
    ROW("scaled_dot_product_attention", "causal", attention, 1, MINOR, IN(-1, 1, 2, 3, 2), IN(-1, 1, 2, 4, 2),
        IN(-1, 1, 2, 4, 3)),
    ROW("attention_weights", "float mask", attention, 2, 0, IN(-1, 1, 2, 3, 2), IN(-1, 1, 4, 2), IN(-1, 1, 2, 4, 3),
        IN(-1, 1, 3, 4)),
    ROW("scaled_dot_product_attention", "bool mask", attention, 3, MINOR, IN(-1, 1, 3, 2), IN(-1, 1, 4, 2),
        IN(-1, 1, 4, 3)),
    ROW("scaled_dot_product_attention", "scale and dropout", attention, 4, MINOR, IN(-1, 1, 3, 2), IN(-1, 1, 4, 2),
        IN(-1, 1, 4, 3)),
    ROW("scaled_dot_product_attention", "mask of a row, causal, scale", attention, 5, MINOR, IN(-1, 1, 3, 2),
        IN(-1, 1, 4, 2), IN(-1, 1, 4, 3), IN(-1, 1, 1, 4)),
    ROW("dropout", "0.3", dropout, 0, 0, IN(-2, 2, 4, 5)),
    ROW("dropout", "0.9", dropout, 1, MINOR, IN(-2, 2, 4, 5)),
    ROW("conv", "two axes", conv, 0, 0, IN(-1, 1, 2, 4, 4, 2), IN(-1, 1, 2, 3, 2, 3)),
    ROW("conv", "same, stride 2", conv, 1, MINOR, IN(-1, 1, 1, 5, 4, 2), IN(-1, 1, 3, 2, 2, 2)),
    ROW("conv", "padded, strided, dilated", conv, 2, MINOR, IN(-1, 1, 2, 4, 5, 2), IN(-1, 1, 2, 2, 2, 2)),
    ROW("conv", "groups", conv, 3, MINOR, IN(-1, 1, 2, 3, 3, 4), IN(-1, 1, 2, 2, 2, 4)),
    ROW("conv", "channels first, same", conv, 4, MINOR, IN(-1, 1, 2, 2, 4, 3), IN(-1, 1, 3, 2, 2, 3)),
    ROW("conv", "channels first, strides, groups", conv, 5, MINOR, IN(-1, 1, 1, 4, 5, 5), IN(-1, 1, 4, 2, 2, 2)),
    ROW("conv", "one axis, stride 3", conv, 6, MINOR, IN(-1, 1, 2, 8, 2), IN(-1, 1, 3, 2, 3)),
    ROW("conv", "one axis, same, dilated", conv, 7, MINOR, IN(-1, 1, 2, 6, 2), IN(-1, 1, 3, 2, 2)),
    ROW("conv_dx", "two axes", conv_transpose, 0, 0, IN(-1, 1, 2, 3, 2, 3), IN(-1, 1, 2, 3, 2, 3)),
    ROW("conv_dx", "same, stride 2", conv_transpose, 1, MINOR, IN(-1, 1, 1, 3, 2, 2), IN(-1, 1, 3, 2, 2, 2)),
    ROW("conv_dx", "padded, strided, longer", conv_transpose, 8, MINOR, IN(-1, 1, 2, 3, 3, 2), IN(-1, 1, 3, 3, 2, 2)),
    ROW("conv_dx", "groups", conv_transpose, 3, MINOR, IN(-1, 1, 2, 2, 2, 4), IN(-1, 1, 2, 2, 2, 4)),
    ROW("conv_dx", "one axis, stride 3", conv_transpose, 6, MINOR, IN(-1, 1, 2, 3, 3), IN(-1, 1, 3, 2, 3)),
    ROW("conv_dw", "two axes", conv_dw, 0, 0, IN(-1, 1, 2, 4, 4, 2), IN(-1, 1, 2, 3, 2, 3), IN(-1, 1, 2, 3, 2, 3)),
    ROW("conv_dw", "groups", conv_dw, 3, MINOR, IN(-1, 1, 2, 3, 3, 4), IN(-1, 1, 2, 2, 2, 4), IN(-1, 1, 2, 2, 2, 4)),
    ROW("max_pool", "2 by 2", max_pool, 0, 0, IN(-2, 2, 2, 4, 5, 2)),
    ROW("max_pool", "overlapping", max_pool, 1, MINOR, IN(-2, 2, 2, 4, 4, 2)),
    ROW("max_pool", "same", max_pool, 2, MINOR, IN(-2, 2, 1, 5, 4, 2)),
    ROW("max_pool", "padded", max_pool, 3, MINOR, IN(-2, 2, 1, 5, 4, 2)),
    ROW("max_pool", "channels first, dilated", max_pool, 4, MINOR, IN(-2, 2, 1, 2, 5, 5)),
    ROW("max_pool", "one axis", max_pool, 5, MINOR, IN(-2, 2, 2, 8, 2)),
    ROW("avg_pool", "2 by 2", avg_pool, 0, 0, IN(-2, 2, 2, 4, 5, 2)),
    ROW("avg_pool", "overlapping", avg_pool, 1, MINOR, IN(-2, 2, 2, 4, 4, 2)),
    ROW("avg_pool", "same", avg_pool, 2, MINOR, IN(-2, 2, 1, 5, 4, 2)),
    ROW("avg_pool", "padded, padding counts", avg_pool, 3, MINOR, IN(-2, 2, 1, 5, 4, 2)),
    ROW("avg_pool", "channels first, dilated", avg_pool, 4, MINOR, IN(-2, 2, 1, 2, 5, 5)),
    ROW("avg_pool", "one axis", avg_pool, 5, MINOR, IN(-2, 2, 2, 8, 2)),
    ROW("avg_pool", "with gaps", avg_pool, 6, MINOR, IN(-2, 2, 2, 8, 2)),
};

void gradient_nn_cases(gradient_visit visit, void *context) { GRADIENT_ROWS(rows, visit, context); }
