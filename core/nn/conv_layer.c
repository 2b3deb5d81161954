/* Convolutions over one and two axes, channels last. Kernels lie as Keras has them, which is how tern_conv takes them;
   the depthwise one is a convolution in as many groups as there are channels. */
#include "base/thread.h"
#include "nn/check.h"

typedef struct {
  int64_t filters, kernel[2]; /* filters: of the depthwise one, results a channel */
  tern_conv_layer_opts opts;
} conv;

#define KERNEL_FIELDS(n, initializer)                                           \
  TERN__FIELDS(TERN__LONG, conv, kernel, n, "kernel_size"),                     \
      TERN__FIELD(TERN__TEXT, conv, opts.activation, "activation"),             \
      TERN__FIELD(TERN__TEXT, conv, opts.padding, "padding"),                   \
      TERN__FIELD(TERN__TEXT, conv, opts.kernel_initializer, initializer),      \
      TERN__FIELD(TERN__TEXT, conv, opts.bias_initializer, "bias_initializer"), \
      TERN__FIELDS(TERN__LONG, conv, opts.strides, n, "strides"),               \
      TERN__FIELDS(TERN__LONG, conv, opts.dilations, n, "dilation_rate"),       \
      TERN__FIELD(TERN__INT, conv, opts.no_bias, "no_bias")
static const tern__field fields_1d[] = {TERN__FIELD(TERN__LONG, conv, filters, "filters"),
                                        KERNEL_FIELDS(1, "kernel_initializer"),
                                        TERN__FIELD(TERN__LONG, conv, opts.groups, "groups")};
static const tern__field fields_2d[] = {TERN__FIELD(TERN__LONG, conv, filters, "filters"),
                                        KERNEL_FIELDS(2, "kernel_initializer"),
                                        TERN__FIELD(TERN__LONG, conv, opts.groups, "groups")};
static const tern__field fields_depthwise[] = {TERN__FIELD(TERN__LONG, conv, filters, "depth_multiplier"),
                                               KERNEL_FIELDS(2, "depthwise_initializer")};
static const tern__field fields_transpose[] = {TERN__FIELD(TERN__LONG, conv, filters, "filters"),
                                               KERNEL_FIELDS(2, "kernel_initializer")};
#undef KERNEL_FIELDS

enum { VALID, SAME, CAUSAL };
static const char *const paddings_1d[] = {"valid", "same", "causal", NULL}, *const paddings[] = {"valid", "same", NULL};

/* ---- parameters ---- */

static tern_rc check_axes(const char *kind, const conv *c, int dims) {
  static const char *const sizes[2][2] = {{"size", ""}, {"rows", "columns"}};
  tern_rc rc = TERN_OK;
  for (int d = 0; d < 2 && !rc; d++) {
    if (d >= dims) { /* there is no second axis */
      rc = c->opts.strides[d] || c->opts.dilations[d]
               ? tern__fail(TERN_E_ARG, "%s: strides and dilations have a second number, but there is one axis", kind)
               : TERN_OK;
      continue;
    }
    rc = tern__check_count(kind, sizes[dims - 1][d], c->kernel[d], 1);
    if (!rc) rc = tern__check_count(kind, "strides", c->opts.strides[d], 0);
    if (!rc) rc = tern__check_count(kind, "dilations", c->opts.dilations[d], 0);
  }
  return rc;
}

static tern_rc check(const char *kind, const conv *c, int dims, const char *filters, bool grouped) {
  tern_rc rc = tern__check_count(kind, filters, c->filters, 1);
  if (!rc) rc = check_axes(kind, c, dims);
  if (!rc) rc = tern__check_count(kind, "groups", c->opts.groups, 0);
  if (!rc && c->opts.groups > 1 && !grouped)
    rc = tern__fail(TERN_E_ARG, "%s: groups is %lld; this layer has none", kind, (long long)c->opts.groups);
  if (!rc && c->opts.groups > 1 && c->filters % c->opts.groups)
    rc = tern__fail(TERN_E_ARG, "%s: groups is %lld, which does not divide the %lld filters", kind,
                    (long long)c->opts.groups, (long long)c->filters);
  if (!rc && tern__one_of("padding", c->opts.padding, dims == 1 ? paddings_1d : paddings) < 0) rc = TERN_E_ARG;
  if (!rc) rc = tern__check_activation(kind, "activation", c->opts.activation);
  if (!rc) rc = tern__check_initializer(kind, "kernel_initializer", c->opts.kernel_initializer);
  return rc ? rc : tern__check_initializer(kind, "bias_initializer", c->opts.bias_initializer);
}

static tern_rc check_1d(const void *params) { return check("Conv1D", params, 1, "filters", true); }
static tern_rc check_2d(const void *params) { return check("Conv2D", params, 2, "filters", true); }
static tern_rc check_depthwise(const void *params) { return check("DepthwiseConv2D", params, 2, "multiplier", false); }
static tern_rc check_transpose(const void *params) { return check("Conv2DTranspose", params, 2, "filters", false); }

/* ---- weights ---- */

static tern_rc channels_of(tern_shape in, int dims, int64_t *channels) {
  const tern_rc rc =
      tern__check_rank(in.rank, dims + 2, dims == 1 ? "[batch, time, channels]" : "[batch, height, width, channels]");
  return rc ? rc : tern__layer_size(in, -1, channels);
}

static tern_rc weights(tern_layer *l, tern_shape kernel, int64_t bias, tern_dtype dtype) {
  const conv *c = l->params;
  dtype = tern__weight_dtype(dtype);
  if (!tern__layer_weight(l, "kernel", kernel, dtype, c->opts.kernel_initializer, "glorot_uniform", false))
    return TERN_E_ARG;
  if (!c->opts.no_bias &&
      !tern__layer_weight(l, "bias", TERN_SHAPE(bias), dtype, c->opts.bias_initializer, "zeros", false))
    return TERN_E_ARG;
  return TERN_OK;
}

static tern_rc build_forward(tern_layer *l, tern_shape in, tern_dtype dtype, int dims) {
  const conv *c = l->params;
  int64_t channels = 0, groups = c->opts.groups ? c->opts.groups : 1;
  const tern_rc rc = channels_of(in, dims, &channels);
  if (rc) return rc;
  if (channels % groups)
    return tern__fail(TERN_E_ARG, "groups is %lld, which does not divide the %lld channels of its input",
                      (long long)groups, (long long)channels);
  const tern_shape kernel = dims == 1 ? TERN_SHAPE(c->kernel[0], channels / groups, c->filters)
                                      : TERN_SHAPE(c->kernel[0], c->kernel[1], channels / groups, c->filters);
  return weights(l, kernel, c->filters, dtype);
}

static tern_rc build_1d(tern_layer *l, tern_shape in, tern_dtype dtype) { return build_forward(l, in, dtype, 1); }
static tern_rc build_2d(tern_layer *l, tern_shape in, tern_dtype dtype) { return build_forward(l, in, dtype, 2); }

static tern_rc build_depthwise(tern_layer *l, tern_shape in, tern_dtype dtype) {
  const conv *c = l->params;
  int64_t channels = 0;
  const tern_rc rc = channels_of(in, 2, &channels);
  return rc ? rc
            : weights(l, TERN_SHAPE(c->kernel[0], c->kernel[1], channels, c->filters), channels * c->filters, dtype);
}

static tern_rc build_transpose(tern_layer *l, tern_shape in, tern_dtype dtype) {
  const conv *c = l->params;
  int64_t channels = 0;
  const tern_rc rc = channels_of(in, 2, &channels);
  return rc ? rc : weights(l, TERN_SHAPE(c->kernel[0], c->kernel[1], c->filters, channels), c->filters, dtype);
}

/* ---- results ---- */

/* A 0 in the second place is the first, then 1. */
static void both(const int64_t given[2], int64_t to[2]) {
  to[0] = given[0] ? given[0] : 1;
  to[1] = given[1] ? given[1] : to[0];
}

static tern_conv_opts options(const conv *c) {
  tern_conv_opts o = {.groups = c->opts.groups};
  both(c->opts.strides, o.strides);
  both(c->opts.dilations, o.dilations);
  const int padding = tern__one_of("padding", c->opts.padding, paddings_1d);
  o.padding = padding == SAME ? TERN_PAD_SAME : padding == CAUSAL ? TERN_PAD_EXPLICIT : TERN_PAD_VALID;
  if (padding == CAUSAL) o.pads[0].before = (c->kernel[0] - 1) * o.dilations[0];
  return o;
}

/* The mask does not hold for the steps of the result. */
static tern_tensor *finish(tern_layer *l, tern_tensor *y, tern__pass *p) {
  const conv *c = l->params;
  p->mask = TERN_NONE;
  return tern__biased(y, c->opts.no_bias ? NULL : l->weight[1], c->opts.activation);
}

static tern_tensor *call_forward(tern_layer *l, tern_tensor *x, tern__pass *p) {
  const tern_conv_opts o = options(l->params);
  return finish(l, tern_conv(tern__as_float(x), l->weight[0], &o), p);
}

static tern_tensor *call_depthwise(tern_layer *l, tern_tensor *x, tern__pass *p) {
  const conv *c = l->params;
  tern_conv_opts o = options(c);
  const tern_shape kernel = tern_shape_get(l->weight[0]);
  o.groups = kernel.dim[2];
  tern_tensor *filters = tern_reshape(l->weight[0], TERN_SHAPE(kernel.dim[0], kernel.dim[1], 1, o.groups * c->filters));
  return finish(l, tern_conv(tern__as_float(x), filters, &o), p);
}

/* With "valid" TensorFlow's result is at least size * stride long, where the kernel is shorter than the stride too. */
static tern_tensor *call_transpose(tern_layer *l, tern_tensor *x, tern__pass *p) {
  const conv *c = l->params;
  tern_conv_opts o = options(c);
  for (int d = 0; d < 2 && o.padding == TERN_PAD_VALID; d++) {
    const int64_t reach = (c->kernel[d] - 1) * o.dilations[d] + 1;
    if (reach < o.strides[d]) o.output_padding[d] = o.strides[d] - reach;
  }
  return finish(l, tern_conv_transpose(tern__as_float(x), l->weight[0], &o), p);
}

#define KIND(id, text, short_text, list, form, computes)                            \
  const tern__layer_kind tern__kind_##id = {.name = text,                           \
                                            .stem = short_text,                     \
                                            .params = sizeof(conv),                 \
                                            .opts = offsetof(conv, opts),           \
                                            .field = list,                          \
                                            .n_fields = sizeof list / sizeof *list, \
                                            .check = check_##form,                  \
                                            .build = build_##form,                  \
                                            .call = computes};
KIND(conv1d, "Conv1D", "conv1d", fields_1d, 1d, call_forward)
KIND(conv2d, "Conv2D", "conv2d", fields_2d, 2d, call_forward)
KIND(depthwise_conv2d, "DepthwiseConv2D", "depthwise_conv2d", fields_depthwise, depthwise, call_depthwise)
KIND(conv2d_transpose, "Conv2DTranspose", "conv2d_transpose", fields_transpose, transpose, call_transpose)
#undef KIND

static tern_layer *make(const tern__layer_kind *kind, int64_t filters, int64_t rows, int64_t columns,
                        const tern_conv_layer_opts *opts) {
  const conv c = {.filters = filters, .kernel = {rows, columns}, .opts = opts ? *opts : (tern_conv_layer_opts){0}};
  return tern__layer_new(kind, &c, NULL, 0);
}

tern_layer *tern_conv1d(int64_t filters, int64_t size, const tern_conv_layer_opts *opts) {
  return make(&tern__kind_conv1d, filters, size, 0, opts);
}

tern_layer *tern_conv2d(int64_t filters, int64_t rows, int64_t columns, const tern_conv_layer_opts *opts) {
  return make(&tern__kind_conv2d, filters, rows, columns ? columns : rows, opts);
}

tern_layer *tern_depthwise_conv2d(int64_t rows, int64_t columns, int64_t multiplier, const tern_conv_layer_opts *opts) {
  return make(&tern__kind_depthwise_conv2d, multiplier, rows, columns ? columns : rows, opts);
}

tern_layer *tern_conv2d_transpose(int64_t filters, int64_t rows, int64_t columns, const tern_conv_layer_opts *opts) {
  return make(&tern__kind_conv2d_transpose, filters, rows, columns ? columns : rows, opts);
}
