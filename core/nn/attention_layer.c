/* Multi-head self-attention as Keras lays out its weights: query, key, value and output projections, each a product
   over all steps of the batch. */
#include "base/thread.h"
#include "nn/layer.h"
#include <math.h>

typedef struct attention {
  int64_t heads, key_dim;
  tern_attention_layer_opts opts;
} attention;

static int64_t value_dim(const attention *a) { return a->opts.value_dim ? a->opts.value_dim : a->key_dim; }

static tern_rc check(const void *params) {
  const attention *a = params;
  if (a->heads < 1 || a->key_dim < 1 || a->opts.value_dim < 0)
    return tern__fail(TERN_E_ARG, "heads is %lld, key_dim %lld, value_dim %lld; they must be at least 1",
                      (long long)a->heads, (long long)a->key_dim, (long long)value_dim(a));
  if (!(a->opts.dropout >= 0 && a->opts.dropout < 1))
    return tern__fail(TERN_E_ARG, "dropout is %g; it must be at least 0 and less than 1", a->opts.dropout);
  return TERN_OK;
}

static bool dense(tern_layer *l, const char *kernel, const char *bias, tern_shape shape, tern_shape small,
                  tern_dtype dtype) {
  const attention *a = l->params;
  return tern__layer_weight(l, kernel, shape, dtype, a->opts.kernel_initializer, "glorot_uniform", false) &&
         (a->opts.no_bias || tern__layer_weight(l, bias, small, dtype, a->opts.bias_initializer, "zeros", false));
}

static tern_rc build(tern_layer *l, tern_shape in, tern_dtype dtype) {
  const attention *a = l->params;
  const int64_t h = a->heads, k = a->key_dim, v = value_dim(a);
  int64_t f = 0;
  if (in.rank != 3) return tern__fail(TERN_E_ARG, "its input has rank %d; it must be [batch, time, features]", in.rank);
  const tern_rc rc = tern__layer_size(in, 2, &f);
  if (rc) return rc;
  const bool ok =
      dense(l, "query/kernel", "query/bias", TERN_SHAPE(f, h, k), TERN_SHAPE(h, k), dtype) &&
      dense(l, "key/kernel", "key/bias", TERN_SHAPE(f, h, k), TERN_SHAPE(h, k), dtype) &&
      dense(l, "value/kernel", "value/bias", TERN_SHAPE(f, h, v), TERN_SHAPE(h, v), dtype) &&
      dense(l, "attention_output/kernel", "attention_output/bias", TERN_SHAPE(h, v, f), TERN_SHAPE(f), dtype);
  return ok ? TERN_OK : tern__recorded();
}

/* x [batch, time, features] by dense number d. */
static tern_tensor *project(const tern_layer *l, tern_tensor *x, int d, int64_t in, int64_t out) {
  const attention *a = l->params;
  const int per = a->opts.no_bias ? 1 : 2;
  tern_tensor *y = tern_matmul(x, tern_reshape(l->weight[d * per], TERN_SHAPE(in, out)));
  return per == 1 ? y : tern_add(y, tern_reshape(l->weight[d * per + 1], TERN_SHAPE(out)));
}

/* [batch, heads, time, size] */
static tern_tensor *by_head(tern_tensor *x, int64_t batch, int64_t time, int64_t heads, int64_t size) {
  return tern_permute(tern_reshape(x, TERN_SHAPE(batch, time, heads, size)), (int[]){0, 2, 1, 3}, 4);
}

/* Keras masks a pair where either step is masked. A masked query then sees nothing, and its weights are all equal. */
static tern_tensor *masked_queries(tern_tensor *y, tern_tensor *value, tern_tensor *mask) {
  tern_tensor *seen = tern_expand_dims(tern_expand_dims(mask, 1), 3); /* [batch, 1, time, 1] */
  return tern_where(seen, y, tern_mean(value, TERN_AXES_KEEP(2)));
}

/* Attention of what sees all of `time` keys, or those before it. In a graph the scale and the causal mask, a constant,
   are done with the product, and the softmax is a plain one, for which backends have their fastest kernels. */
static tern_tensor *attend(tern_tensor *query, tern_tensor *key, tern_tensor *value, const tern_attention_opts *opts,
                           int64_t time, int64_t size) {
  enum { LONGEST = 1 << 14 }; /* of a mask that is kept; a size that varies is a larger number, or negative */
  if (tern_executing_eagerly() || opts->mask || opts->dropout > 0 || time < 1 || time > LONGEST)
    return tern_scaled_dot_product_attention(query, key, value, opts);
  tern_tensor *scores = tern_mul(tern_matmul(query, tern_transpose(key)), tern_scalar(1 / sqrt((double)size)));
  if (opts->causal) {
    tern_tensor *at = tern_arange(0, (double)time, 1, TERN_I32), *row = tern_reshape(at, TERN_SHAPE(time, 1));
    tern_tensor *none = tern_zeros(TERN_SHAPE(time, time), tern_dtype_get(query));
    scores = tern_add(scores, tern_where(tern_greater_equal(row, at), none, tern_scalar(-INFINITY)));
  }
  return tern_matmul(tern_softmax(scores, -1), value);
}

static tern_tensor *call(tern_layer *l, tern_tensor *x, tern__pass *p) {
  const attention *a = l->params;
  const int64_t h = a->heads, k = a->key_dim, v = value_dim(a), f = tern_dim(l->weight[0], 0);
  if (tern_rank(x) != 3 || tern_dim(x, 2) != f) {
    tern__fail(TERN_E_ARG, "its input has rank %d; it must be [batch, time, %lld]", tern_rank(x), (long long)f);
    return NULL;
  }
  const int64_t batch = TERN_LIKE(x, 0), time = TERN_LIKE(x, 1);
  tern_tensor *query = by_head(project(l, x, 0, f, h * k), batch, time, h, k);
  tern_tensor *key = by_head(project(l, x, 1, f, h * k), batch, time, h, k);
  tern_tensor *value = by_head(project(l, x, 2, f, h * v), batch, time, h, v);
  tern_attention_opts opts = {.causal = a->opts.causal, .dropout = p->training ? a->opts.dropout : 0};
  if (p->mask != TERN_NONE) {
    if (tern_rank(p->mask) != 2) {
      tern__fail(TERN_E_ARG, "its mask has rank %d; it must be [batch, time]", tern_rank(p->mask));
      return NULL;
    }
    opts.mask = tern_expand_dims(tern_expand_dims(p->mask, 1), 1); /* keys [batch, 1, 1, time] */
    if (!opts.mask) return NULL;
  }
  tern_tensor *y = attend(query, key, value, &opts, time, k);
  if (p->mask != TERN_NONE) y = masked_queries(y, value, p->mask);
  y = tern_reshape(tern_permute(y, (int[]){0, 2, 1, 3}, 4), TERN_SHAPE(batch, time, h * v));
  return project(l, y, 3, h * v, f);
}

static const tern__field fields[] = {
    TERN__FIELD(TERN__LONG, attention, heads, "num_heads"),
    TERN__FIELD(TERN__LONG, attention, key_dim, "key_dim"),
    TERN__FIELD(TERN__LONG, attention, opts.value_dim, "value_dim"),
    TERN__FIELD(TERN__DOUBLE, attention, opts.dropout, "dropout"),
    TERN__FIELD(TERN__INT, attention, opts.causal, "use_causal_mask"),
    TERN__FIELD(TERN__INT, attention, opts.no_bias, "no_bias"),
    TERN__FIELD(TERN__TEXT, attention, opts.kernel_initializer, "kernel_initializer"),
    TERN__FIELD(TERN__TEXT, attention, opts.bias_initializer, "bias_initializer"),
};

extern const tern__layer_kind tern__kind_multi_head_attention;
const tern__layer_kind tern__kind_multi_head_attention = {.name = "MultiHeadAttention",
                                                          .stem = "multi_head_attention",
                                                          .params = sizeof(attention),
                                                          .opts = offsetof(attention, opts),
                                                          .field = fields,
                                                          .n_fields = (int)(sizeof fields / sizeof *fields),
                                                          .check = check,
                                                          .build = build,
                                                          .call = call};

tern_layer *tern_multi_head_attention(int64_t heads, int64_t key_dim, const tern_attention_layer_opts *opts) {
  attention a = {.heads = heads, .key_dim = key_dim};
  if (opts) a.opts = *opts;
  return tern__layer_new(&tern__kind_multi_head_attention, &a, NULL, 0);
}
