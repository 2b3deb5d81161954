/* Layers without weights: flatten, reshape, dropout, masking. */
#include "base/thread.h"
#include "nn/check.h"
#include "tensor/tensor.h"
#include <math.h>

/* The number of elements of an example; -1: not to be had as a number. Sizes that vary stay variables in it. */
static int64_t example_size(const tern_tensor *x) {
  int64_t n = 1;
  for (int d = 1; d < tern_rank(x); d++) {
    const int64_t size = tern_like(x, d);
    if (size < 0 || __builtin_mul_overflow(n, size, &n)) return -1;
  }
  return n;
}

/* ---- flatten ---- */

static tern_tensor *call_flatten(tern_layer *l, tern_tensor *x, tern__pass *p) {
  (void)l;
  p->mask = TERN_NONE;
  const int64_t n = example_size(x), batch = n > 0 ? -1 : tern_like(x, 0);
  return tern_reshape(x, TERN_SHAPE(batch, n));
}

const tern__layer_kind tern__kind_flatten = {
    .name = "Flatten", .stem = "flatten", .params = sizeof(tern_layer_opts), .call = call_flatten};

tern_layer *tern_flatten_layer(const tern_layer_opts *opts) {
  return tern__layer_new(&tern__kind_flatten, opts ? opts : &(tern_layer_opts){0}, NULL, 0);
}

/* ---- reshape ---- */

typedef struct {
  tern_shape shape;
  tern_layer_opts opts;
} reshape;

static const tern__field reshape_fields[] = {TERN__FIELD(TERN__SHAPE, reshape, shape, "target_shape")};

static tern_rc check_reshape(const void *params) {
  const reshape *r = params;
  int open = 0;
  if (r->shape.rank < 0 || r->shape.rank >= TERN_MAX_RANK)
    return tern__fail(TERN_E_ARG, "Reshape: shape has more than %d sizes", TERN_MAX_RANK - 1);
  for (int d = 0; d < r->shape.rank; d++) {
    open += r->shape.dim[d] == -1;
    if (r->shape.dim[d] < -1 || !r->shape.dim[d] || r->shape.dim[d] > INT32_MAX || open > 1)
      return tern__fail(TERN_E_ARG, "Reshape: shape has size %lld at axis %d; sizes are at least 1, and one may be -1",
                        (long long)r->shape.dim[d], d);
  }
  return TERN_OK;
}

static tern_tensor *call_reshape(tern_layer *l, tern_tensor *x, tern__pass *p) {
  const reshape *r = l->params;
  tern_shape shape = {.rank = r->shape.rank + 1, .dim = {tern_like(x, 0)}};
  const int64_t n = example_size(x);
  int64_t known = 1;
  int open = 0;
  for (int d = 0; d < r->shape.rank; d++) {
    shape.dim[d + 1] = r->shape.dim[d];
    if (r->shape.dim[d] == -1)
      open = d + 1;
    else if (__builtin_mul_overflow(known, r->shape.dim[d], &known))
      known = -1;
  }
  p->mask = TERN_NONE;
  if (n >= 0 && (known < 0 || (open ? n % known : n != known))) {
    tern__fail(TERN_E_ARG, "its input has %lld elements an example, which do not fit target_shape, with %lld%s",
               (long long)n, (long long)known, open ? " without the -1" : "");
    return NULL;
  }
  if (open && n >= 0) shape.dim[open] = n / known;
  return tern_reshape(x, shape);
}

const tern__layer_kind tern__kind_reshape = {.name = "Reshape",
                                             .stem = "reshape",
                                             .params = sizeof(reshape),
                                             .opts = offsetof(reshape, opts),
                                             .field = reshape_fields,
                                             .n_fields = 1,
                                             .check = check_reshape,
                                             .call = call_reshape};

tern_layer *tern_reshape_layer(tern_shape shape, const tern_layer_opts *opts) {
  const reshape r = {.shape = shape, .opts = opts ? *opts : (tern_layer_opts){0}};
  return tern__layer_new(&tern__kind_reshape, &r, NULL, 0);
}

/* ---- dropout ---- */

typedef struct {
  double rate;
  tern_dropout_layer_opts opts;
} dropout;

static const tern__field dropout_fields[] = {TERN__FIELD(TERN__DOUBLE, dropout, rate, "rate"),
                                             TERN__FIELD(TERN__SEED, dropout, opts.seed, "seed")};

static tern_rc check_dropout(const void *params) {
  const dropout *d = params;
  return tern__check_range("Dropout", "rate", d->rate, 0, 1);
}

static tern_tensor *call_dropout(tern_layer *l, tern_tensor *x, tern__pass *p) {
  const dropout *d = l->params;
  if (!p->training || d->rate == 0) return tern__itself(x);
  return tern_dropout(x, d->rate, &(tern_dropout_opts){.seed = d->opts.seed});
}

const tern__layer_kind tern__kind_dropout = {.name = "Dropout",
                                             .stem = "dropout",
                                             .params = sizeof(dropout),
                                             .opts = offsetof(dropout, opts),
                                             .field = dropout_fields,
                                             .n_fields = 2,
                                             .check = check_dropout,
                                             .call = call_dropout};

tern_layer *tern_dropout_layer(double rate, const tern_dropout_layer_opts *opts) {
  const dropout d = {.rate = rate, .opts = opts ? *opts : (tern_dropout_layer_opts){0}};
  return tern__layer_new(&tern__kind_dropout, &d, NULL, 0);
}

/* ---- masking ---- */

typedef struct {
  double value;
  tern_layer_opts opts;
} masking;

static const tern__field masking_fields[] = {TERN__FIELD(TERN__DOUBLE, masking, value, "mask_value")};

static tern_rc check_masking(const void *params) {
  const masking *m = params;
  return isnan(m->value) ? tern__fail(TERN_E_ARG, "Masking: value is NaN, which nothing equals") : TERN_OK;
}

/* Steps that do not count become 0, too. */
static tern_tensor *call_masking(tern_layer *l, tern_tensor *x, tern__pass *p) {
  const masking *m = l->params;
  if (tern_rank(x) < 2) {
    tern__check_rank(tern_rank(x), 3, "[batch, time, features]");
    return NULL;
  }
  tern_tensor *counts = tern_any(tern_not_equal(x, tern_scalar(m->value)), TERN_AXES_KEEP(-1));
  p->mask = tern_squeeze(counts, -1);
  return p->mask ? tern_where(counts, x, tern_scalar(0)) : NULL;
}

const tern__layer_kind tern__kind_masking = {.name = "Masking",
                                             .stem = "masking",
                                             .params = sizeof(masking),
                                             .opts = offsetof(masking, opts),
                                             .field = masking_fields,
                                             .n_fields = 1,
                                             .check = check_masking,
                                             .call = call_masking};

tern_layer *tern_masking(double value, const tern_layer_opts *opts) {
  const masking m = {.value = value, .opts = opts ? *opts : (tern_layer_opts){0}};
  return tern__layer_new(&tern__kind_masking, &m, NULL, 0);
}
