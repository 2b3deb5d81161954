/* Dense, and an activation as a layer. */
#include "nn/check.h"

typedef struct {
  int64_t units;
  tern_dense_opts opts;
} dense;

static const tern__field dense_fields[] = {
    TERN__FIELD(TERN__LONG, dense, units, "units"),
    TERN__FIELD(TERN__TEXT, dense, opts.activation, "activation"),
    TERN__FIELD(TERN__TEXT, dense, opts.kernel_initializer, "kernel_initializer"),
    TERN__FIELD(TERN__TEXT, dense, opts.bias_initializer, "bias_initializer"),
    TERN__FIELD(TERN__INT, dense, opts.no_bias, "no_bias"),
};

static tern_rc check_dense(const void *params) {
  const dense *d = params;
  tern_rc rc = tern__check_count("Dense", "units", d->units, 1);
  if (!rc) rc = tern__check_activation("Dense", "activation", d->opts.activation);
  if (!rc) rc = tern__check_initializer("Dense", "kernel_initializer", d->opts.kernel_initializer);
  return rc ? rc : tern__check_initializer("Dense", "bias_initializer", d->opts.bias_initializer);
}

static tern_rc build_dense(tern_layer *l, tern_shape in, tern_dtype dtype) {
  const dense *d = l->params;
  int64_t size = 0;
  if (in.rank < 2) return tern__check_rank(in.rank, 2, "[batch, .., features], or more");
  const tern_rc rc = tern__layer_size(in, -1, &size);
  if (rc) return rc;
  dtype = tern__weight_dtype(dtype);
  if (!tern__layer_weight(l, "kernel", TERN_SHAPE(size, d->units), dtype, d->opts.kernel_initializer, "glorot_uniform",
                          false))
    return TERN_E_ARG;
  if (!d->opts.no_bias &&
      !tern__layer_weight(l, "bias", TERN_SHAPE(d->units), dtype, d->opts.bias_initializer, "zeros", false))
    return TERN_E_ARG;
  return TERN_OK;
}

static tern_tensor *call_dense(tern_layer *l, tern_tensor *x, tern__pass *p) {
  const dense *d = l->params;
  (void)p;
  tern_tensor *y = tern_matmul(tern__as_float(x), l->weight[0]);
  return tern__biased(y, d->opts.no_bias ? NULL : l->weight[1], d->opts.activation);
}

const tern__layer_kind tern__kind_dense = {.name = "Dense",
                                           .stem = "dense",
                                           .params = sizeof(dense),
                                           .opts = offsetof(dense, opts),
                                           .field = dense_fields,
                                           .n_fields = sizeof dense_fields / sizeof *dense_fields,
                                           .check = check_dense,
                                           .build = build_dense,
                                           .call = call_dense};

tern_layer *tern_dense(int64_t units, const tern_dense_opts *opts) {
  const dense d = {.units = units, .opts = opts ? *opts : (tern_dense_opts){0}};
  return tern__layer_new(&tern__kind_dense, &d, NULL, 0);
}

/* ---- activation ---- */

typedef struct {
  const char *name;
  tern_layer_opts opts;
} activation;

static const tern__field activation_fields[] = {TERN__FIELD(TERN__TEXT, activation, name, "activation")};

static tern_rc check_activation(const void *params) {
  const activation *a = params;
  return tern__check_activation("Activation", "name", a->name);
}

static tern_tensor *call_activation(tern_layer *l, tern_tensor *x, tern__pass *p) {
  const activation *a = l->params;
  (void)p;
  return tern_activate(a->name, x);
}

const tern__layer_kind tern__kind_activation = {.name = "Activation",
                                                .stem = "activation",
                                                .params = sizeof(activation),
                                                .opts = offsetof(activation, opts),
                                                .field = activation_fields,
                                                .n_fields = 1,
                                                .check = check_activation,
                                                .call = call_activation};

tern_layer *tern_activation(const char *name, const tern_layer_opts *opts) {
  const activation a = {.name = name, .opts = opts ? *opts : (tern_layer_opts){0}};
  return tern__layer_new(&tern__kind_activation, &a, NULL, 0);
}
