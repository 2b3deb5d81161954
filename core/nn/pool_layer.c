/* Pooling: over windows, and over all positions. */
#include "base/thread.h"
#include "nn/check.h"

typedef struct {
  tern_pool_layer_opts opts;
} pool;

static const tern__field fields_1d[] = {TERN__FIELD(TERN__TEXT, pool, opts.padding, "padding"),
                                        TERN__FIELDS(TERN__LONG, pool, opts.window, 1, "pool_size"),
                                        TERN__FIELDS(TERN__LONG, pool, opts.strides, 1, "strides")};
static const tern__field fields_2d[] = {TERN__FIELD(TERN__TEXT, pool, opts.padding, "padding"),
                                        TERN__FIELDS(TERN__LONG, pool, opts.window, 2, "pool_size"),
                                        TERN__FIELDS(TERN__LONG, pool, opts.strides, 2, "strides")};
static const tern__field fields_global[] = {TERN__FIELD(TERN__INT, pool, opts.keepdims, "keepdims")};
static const char *const paddings[] = {"valid", "same", NULL};

static tern_rc check_windows(const char *kind, const pool *p, int dims) {
  tern_rc rc = TERN_OK;
  if (p->opts.keepdims) rc = tern__fail(TERN_E_ARG, "%s: keepdims is of the global pooling layers only", kind);
  if (!rc && dims == 1 && (p->opts.window[1] || p->opts.strides[1]))
    rc = tern__fail(TERN_E_ARG, "%s: window and strides have a second number, but there is one axis", kind);
  for (int d = 0; d < dims && !rc; d++) {
    rc = tern__check_count(kind, "window", p->opts.window[d], 0);
    if (!rc) rc = tern__check_count(kind, "strides", p->opts.strides[d], 0);
  }
  if (!rc && tern__one_of("padding", p->opts.padding, paddings) < 0) rc = TERN_E_ARG;
  return rc;
}

static tern_rc check_global(const char *kind, const pool *p) {
  return p->opts.padding || p->opts.window[0] || p->opts.window[1] || p->opts.strides[0] || p->opts.strides[1]
             ? tern__fail(TERN_E_ARG, "%s: it takes in all positions; padding, window and strides are of other layers",
                          kind)
             : TERN_OK;
}

static tern_rc check_shape(tern_tensor *x, int dims) {
  return tern__check_rank(tern_rank(x), dims + 2,
                          dims == 1 ? "[batch, time, channels]" : "[batch, height, width, channels]");
}

/* The mask does not hold for the steps of the result. */
static tern_tensor *windows(const tern_layer *l, tern_tensor *x, tern__pass *pass, int dims, bool largest) {
  const pool *p = l->params;
  if (check_shape(x, dims)) return NULL;
  tern_pool_opts o = {.padding = tern__one_of("padding", p->opts.padding, paddings) ? TERN_PAD_SAME : TERN_PAD_VALID};
  o.window[0] = p->opts.window[0] ? p->opts.window[0] : 2;
  o.window[1] = p->opts.window[1] ? p->opts.window[1] : o.window[0];
  o.strides[0] = p->opts.strides[0] ? p->opts.strides[0] : o.window[0];
  o.strides[1] = p->opts.strides[1] ? p->opts.strides[1] : p->opts.strides[0] ? o.strides[0] : o.window[1];
  pass->mask = TERN_NONE;
  return largest ? tern_max_pool(x, &o) : tern_avg_pool(tern__as_float(x), &o);
}

static tern_tensor *call_max_pool1d(tern_layer *l, tern_tensor *x, tern__pass *p) { return windows(l, x, p, 1, true); }
static tern_tensor *call_max_pool2d(tern_layer *l, tern_tensor *x, tern__pass *p) { return windows(l, x, p, 2, true); }
static tern_tensor *call_avg_pool1d(tern_layer *l, tern_tensor *x, tern__pass *p) { return windows(l, x, p, 1, false); }
static tern_tensor *call_avg_pool2d(tern_layer *l, tern_tensor *x, tern__pass *p) { return windows(l, x, p, 2, false); }

/* Over the axes between batch and channels. */
static tern_reduce_opts positions(const tern_layer *l, int dims) {
  static const int axes[] = {1, 2};
  const pool *p = l->params;
  return (tern_reduce_opts){.axes = axes, .n_axes = dims, .keepdims = p->opts.keepdims};
}

static tern_tensor *global_max(const tern_layer *l, tern_tensor *x, tern__pass *p, int dims) {
  if (check_shape(x, dims)) return NULL;
  const tern_reduce_opts o = positions(l, dims);
  p->mask = TERN_NONE;
  return tern_max(x, &o);
}

static tern_tensor *call_global_max_pool1d(tern_layer *l, tern_tensor *x, tern__pass *p) {
  return global_max(l, x, p, 1);
}
static tern_tensor *call_global_max_pool2d(tern_layer *l, tern_tensor *x, tern__pass *p) {
  return global_max(l, x, p, 2);
}

/* The mean of the steps that the mask lets count. */
static tern_tensor *call_global_avg_pool1d(tern_layer *l, tern_tensor *x, tern__pass *p) {
  if (check_shape(x, 1)) return NULL;
  const tern_reduce_opts o = positions(l, 1);
  tern_tensor *mask = p->mask;
  p->mask = TERN_NONE;
  x = tern__as_float(x);
  if (mask == TERN_NONE) return tern_mean(x, &o);
  mask = tern_expand_dims(mask, -1);
  tern_tensor *n = tern_sum(tern_cast(mask, tern_dtype_get(x)), &o);
  return tern_div(tern_sum(tern_where(mask, x, tern_scalar(0)), &o), n);
}

static tern_tensor *call_global_avg_pool2d(tern_layer *l, tern_tensor *x, tern__pass *p) {
  if (check_shape(x, 2)) return NULL;
  const tern_reduce_opts o = positions(l, 2);
  p->mask = TERN_NONE;
  return tern_mean(tern__as_float(x), &o);
}

#define KIND(id, text, short_text, list, test)                                      \
  static tern_rc check_##id(const void *params) { return test; }                    \
  const tern__layer_kind tern__kind_##id = {.name = text,                           \
                                            .stem = short_text,                     \
                                            .params = sizeof(pool),                 \
                                            .field = list,                          \
                                            .n_fields = sizeof list / sizeof *list, \
                                            .check = check_##id,                    \
                                            .call = call_##id};                     \
  tern_layer *tern_##id(const tern_pool_layer_opts *opts) {                         \
    const pool p = {.opts = opts ? *opts : (tern_pool_layer_opts){0}};              \
    return tern__layer_new(&tern__kind_##id, &p, NULL, 0);                          \
  }
KIND(max_pool1d, "MaxPooling1D", "max_pooling1d", fields_1d, check_windows("MaxPooling1D", params, 1))
KIND(max_pool2d, "MaxPooling2D", "max_pooling2d", fields_2d, check_windows("MaxPooling2D", params, 2))
KIND(avg_pool1d, "AveragePooling1D", "average_pooling1d", fields_1d, check_windows("AveragePooling1D", params, 1))
KIND(avg_pool2d, "AveragePooling2D", "average_pooling2d", fields_2d, check_windows("AveragePooling2D", params, 2))
KIND(global_max_pool1d, "GlobalMaxPooling1D", "global_max_pooling1d", fields_global,
     check_global("GlobalMaxPooling1D", params))
KIND(global_max_pool2d, "GlobalMaxPooling2D", "global_max_pooling2d", fields_global,
     check_global("GlobalMaxPooling2D", params))
KIND(global_avg_pool1d, "GlobalAveragePooling1D", "global_average_pooling1d", fields_global,
     check_global("GlobalAveragePooling1D", params))
KIND(global_avg_pool2d, "GlobalAveragePooling2D", "global_average_pooling2d", fields_global,
     check_global("GlobalAveragePooling2D", params))
#undef KIND
