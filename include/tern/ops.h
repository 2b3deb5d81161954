/* Ops. Each runs at once on the device of its operands (constructors and random numbers: on the default device) and
   returns a new tensor borrowed from the scope, or NULL with the thread's error set. Operands broadcast as in NumPy and
   are promoted as in the Python Array API standard, tern_scalar() weakly: docs/guide.md has the rules, docs/ops.md
   every op with its dtypes. Options: NULL means defaults, and so does 0 in every field. All functions may be called
   from any thread. */
#ifndef TERN_OPS_H_
#define TERN_OPS_H_
#include <tern/tensor.h>
#ifdef __cplusplus
extern "C" {
#endif

/* Elements added before and after an axis. */
typedef struct tern_padding { int64_t before, after; } tern_padding;

/* ---- elementwise, one operand. Maths ops turn integers into the default float (float64 for 64-bit integers) ---- */

/* -x. */
TERN_API tern_tensor *tern_neg(tern_tensor *x);
/* |x|. */
TERN_API tern_tensor *tern_abs(tern_tensor *x);
/* -1, 0 or 1 by the sign of x; NaN stays. */
TERN_API tern_tensor *tern_sign(tern_tensor *x);
/* x * x. */
TERN_API tern_tensor *tern_square(tern_tensor *x);
/* The square root; NaN below 0. */
TERN_API tern_tensor *tern_sqrt(tern_tensor *x);
/* 1 / sqrt(x). */
TERN_API tern_tensor *tern_rsqrt(tern_tensor *x);
/* 1 / x. */
TERN_API tern_tensor *tern_reciprocal(tern_tensor *x);
/* The cube root. */
TERN_API tern_tensor *tern_cbrt(tern_tensor *x);
/* e to the x. */
TERN_API tern_tensor *tern_exp(tern_tensor *x);
/* 2 to the x. */
TERN_API tern_tensor *tern_exp2(tern_tensor *x);
/* exp(x) - 1, accurate near 0. */
TERN_API tern_tensor *tern_expm1(tern_tensor *x);
/* The natural logarithm. */
TERN_API tern_tensor *tern_log(tern_tensor *x);
/* The logarithm to base 2. */
TERN_API tern_tensor *tern_log2(tern_tensor *x);
/* The logarithm to base 10. */
TERN_API tern_tensor *tern_log10(tern_tensor *x);
/* log(1 + x), accurate near 0. */
TERN_API tern_tensor *tern_log1p(tern_tensor *x);
/* Sine, x in radians. */
TERN_API tern_tensor *tern_sin(tern_tensor *x);
/* Cosine, x in radians. */
TERN_API tern_tensor *tern_cos(tern_tensor *x);
/* Tangent, x in radians. */
TERN_API tern_tensor *tern_tan(tern_tensor *x);
/* Inverse sine. */
TERN_API tern_tensor *tern_asin(tern_tensor *x);
/* Inverse cosine. */
TERN_API tern_tensor *tern_acos(tern_tensor *x);
/* Inverse tangent. */
TERN_API tern_tensor *tern_atan(tern_tensor *x);
/* Hyperbolic sine. */
TERN_API tern_tensor *tern_sinh(tern_tensor *x);
/* Hyperbolic cosine. */
TERN_API tern_tensor *tern_cosh(tern_tensor *x);
/* Hyperbolic tangent. */
TERN_API tern_tensor *tern_tanh(tern_tensor *x);
/* Inverse hyperbolic sine. */
TERN_API tern_tensor *tern_asinh(tern_tensor *x);
/* Inverse hyperbolic cosine. */
TERN_API tern_tensor *tern_acosh(tern_tensor *x);
/* Inverse hyperbolic tangent. */
TERN_API tern_tensor *tern_atanh(tern_tensor *x);
/* The error function. */
TERN_API tern_tensor *tern_erf(tern_tensor *x);
/* 1 - erf(x), accurate for large x. */
TERN_API tern_tensor *tern_erfc(tern_tensor *x);
/* The inverse of erf. */
TERN_API tern_tensor *tern_erfinv(tern_tensor *x);
/* sin(pi x), exact at multiples of 1/2. */
TERN_API tern_tensor *tern_sinpi(tern_tensor *x);
/* cos(pi x), exact at multiples of 1/2. */
TERN_API tern_tensor *tern_cospi(tern_tensor *x);
/* Round down (integers unchanged). */
TERN_API tern_tensor *tern_floor(tern_tensor *x);
/* Round up (integers unchanged). */
TERN_API tern_tensor *tern_ceil(tern_tensor *x);
/* Round to the nearest integer, halves to even (integers unchanged). */
TERN_API tern_tensor *tern_round(tern_tensor *x);
/* Round towards 0 (integers unchanged). */
TERN_API tern_tensor *tern_trunc(tern_tensor *x);
/* All bits inverted; logical on bool. */
TERN_API tern_tensor *tern_bitwise_not(tern_tensor *x);
/* True where x is 0. */
TERN_API tern_tensor *tern_logical_not(tern_tensor *x);
/* True where x is NaN. */
TERN_API tern_tensor *tern_isnan(tern_tensor *x);
/* True where x is infinite. */
TERN_API tern_tensor *tern_isinf(tern_tensor *x);
/* True where x is finite. */
TERN_API tern_tensor *tern_isfinite(tern_tensor *x);
/* True where the sign bit is set. */
TERN_API tern_tensor *tern_signbit(tern_tensor *x);
/* x as dtype. Float to integer truncates, saturates and makes NaN 0; to bool: x != 0. x itself when it has that
   dtype. */
TERN_API tern_tensor *tern_cast(tern_tensor *x, tern_dtype dtype);

/* ---- elementwise, two operands ---- */

/* a + b; on bool: or. */
TERN_API tern_tensor *tern_add(tern_tensor *a, tern_tensor *b);
/* a - b. */
TERN_API tern_tensor *tern_sub(tern_tensor *a, tern_tensor *b);
/* a * b; on bool: and. */
TERN_API tern_tensor *tern_mul(tern_tensor *a, tern_tensor *b);
/* a / b; integers give float64. */
TERN_API tern_tensor *tern_div(tern_tensor *a, tern_tensor *b);
/* floor(a / b); integer division by 0 gives 0. */
TERN_API tern_tensor *tern_floor_divide(tern_tensor *a, tern_tensor *b);
/* a - b * floor(a / b), the sign of b; integers by 0 give 0. */
TERN_API tern_tensor *tern_remainder(tern_tensor *a, tern_tensor *b);
/* The remainder with the sign of a. */
TERN_API tern_tensor *tern_fmod(tern_tensor *a, tern_tensor *b);
/* a to the b. */
TERN_API tern_tensor *tern_pow(tern_tensor *a, tern_tensor *b);
/* The larger; NaN if either is. */
TERN_API tern_tensor *tern_maximum(tern_tensor *a, tern_tensor *b);
/* The smaller; NaN if either is. */
TERN_API tern_tensor *tern_minimum(tern_tensor *a, tern_tensor *b);
/* The angle of the point (b, a). */
TERN_API tern_tensor *tern_atan2(tern_tensor *a, tern_tensor *b);
/* sqrt(a*a + b*b) without overflow. */
TERN_API tern_tensor *tern_hypot(tern_tensor *a, tern_tensor *b);
/* |a| with the sign of b. */
TERN_API tern_tensor *tern_copysign(tern_tensor *a, tern_tensor *b);
/* The next number after a towards b; float32 and float64. */
TERN_API tern_tensor *tern_nextafter(tern_tensor *a, tern_tensor *b);
/* log(exp(a) + exp(b)), without overflow. */
TERN_API tern_tensor *tern_logaddexp(tern_tensor *a, tern_tensor *b);
/* a == b, as bool. */
TERN_API tern_tensor *tern_equal(tern_tensor *a, tern_tensor *b);
/* a != b. */
TERN_API tern_tensor *tern_not_equal(tern_tensor *a, tern_tensor *b);
/* a < b. */
TERN_API tern_tensor *tern_less(tern_tensor *a, tern_tensor *b);
/* a <= b. */
TERN_API tern_tensor *tern_less_equal(tern_tensor *a, tern_tensor *b);
/* a > b. */
TERN_API tern_tensor *tern_greater(tern_tensor *a, tern_tensor *b);
/* a >= b. */
TERN_API tern_tensor *tern_greater_equal(tern_tensor *a, tern_tensor *b);
/* Both nonzero. */
TERN_API tern_tensor *tern_logical_and(tern_tensor *a, tern_tensor *b);
/* Either nonzero. */
TERN_API tern_tensor *tern_logical_or(tern_tensor *a, tern_tensor *b);
/* Just one nonzero. */
TERN_API tern_tensor *tern_logical_xor(tern_tensor *a, tern_tensor *b);
/* Bits of both; integers and bool. */
TERN_API tern_tensor *tern_bitwise_and(tern_tensor *a, tern_tensor *b);
/* Bits of either. */
TERN_API tern_tensor *tern_bitwise_or(tern_tensor *a, tern_tensor *b);
/* Bits of just one. */
TERN_API tern_tensor *tern_bitwise_xor(tern_tensor *a, tern_tensor *b);
/* a shifted left by b bits; b of the width or more gives 0. */
TERN_API tern_tensor *tern_left_shift(tern_tensor *a, tern_tensor *b);
/* a shifted right by b bits, arithmetic on signed integers. */
TERN_API tern_tensor *tern_right_shift(tern_tensor *a, tern_tensor *b);

/* ---- elementwise, three operands ---- */

/* a where condition (bool) is true, else b. */
TERN_API tern_tensor *tern_where(tern_tensor *condition, tern_tensor *a, tern_tensor *b);
/* x limited to [low, high]; TERN_NONE leaves a side open. */
TERN_API tern_tensor *tern_clip(tern_tensor *x, tern_tensor *low, tern_tensor *high);

/* ---- activations and normalisation ---- */

/* max(x, 0). */
TERN_API tern_tensor *tern_relu(tern_tensor *x);
/* 1 / (1 + exp(-x)). */
TERN_API tern_tensor *tern_sigmoid(tern_tensor *x);
/* x * sigmoid(x). */
TERN_API tern_tensor *tern_silu(tern_tensor *x);
/* tanh_form: the approximation 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) instead of x Phi(x). */
typedef struct tern_gelu_opts { int tanh_form; } tern_gelu_opts;
/* x times the normal distribution function of x (Hendrycks and Gimpel, 2016). */
TERN_API tern_tensor *tern_gelu(tern_tensor *x, const tern_gelu_opts *opts);
/* exp(x) / sum(exp(x)) along axis. */
TERN_API tern_tensor *tern_softmax(tern_tensor *x, int axis);
/* log(softmax(x)) along axis. */
TERN_API tern_tensor *tern_log_softmax(tern_tensor *x, int axis);
/* epsilon: 0 = 1e-5; axis: the first normalised one, 0 = the last axis only (negative counts from the end). */
typedef struct tern_layer_norm_opts { double epsilon; int axis; } tern_layer_norm_opts;
/* (x - mean) / sqrt(var + epsilon) * scale + offset over the last axes (Ba, Kiros, Hinton, 2016); scale and offset have
   the shape of those axes, or are TERN_NONE. */
TERN_API tern_tensor *tern_layer_norm(tern_tensor *x, tern_tensor *scale, tern_tensor *offset,
                                      const tern_layer_norm_opts *opts);

/* epsilon: 0 = 1e-3 (Keras); axis: that of the channels, 0 = the last (negative counts from the end; for axis 0 say
   -rank). */
typedef struct tern_batch_norm_opts { double epsilon; int axis; } tern_batch_norm_opts;
/* (x - mean) / sqrt(variance + epsilon) * scale + offset, one mean, variance, scale and offset a channel (Ioffe and
   Szegedy, 2015). mean and variance TERN_NONE: those of x over the other axes (training; gradients flow through them).
   scale, offset may be TERN_NONE. */
TERN_API tern_tensor *tern_batch_norm(tern_tensor *x, tern_tensor *mean, tern_tensor *variance, tern_tensor *scale,
                                      tern_tensor *offset, const tern_batch_norm_opts *opts);
/* epsilon: 0 = 1e-3 (Keras); axis: as tern_batch_norm_opts. */
typedef struct tern_group_norm_opts { double epsilon; int axis; } tern_group_norm_opts;
/* Each example's channels in `groups` groups, each group normalised over its channels and all positions (Wu and He,
   2018). scale, offset: one a channel, or TERN_NONE. Axis 0 is the batch. */
TERN_API tern_tensor *tern_group_norm(tern_tensor *x, int64_t groups, tern_tensor *scale, tern_tensor *offset,
                                      const tern_group_norm_opts *opts);
/* epsilon: 0 = 1e-6; axis: as tern_layer_norm_opts. */
typedef struct tern_rms_norm_opts { double epsilon; int axis; } tern_rms_norm_opts;
/* x / sqrt(mean(x^2) + epsilon) * scale over the last axes (Zhang and Sennrich, 2019); scale may be TERN_NONE. */
TERN_API tern_tensor *tern_rms_norm(tern_tensor *x, tern_tensor *scale, const tern_rms_norm_opts *opts);
/* seed: 0 = the process's generator. inference: return x as it is. */
typedef struct tern_dropout_opts { uint64_t seed; int inference; } tern_dropout_opts;
/* Each element 0 with probability rate, else divided by 1 - rate. */
TERN_API tern_tensor *tern_dropout(tern_tensor *x, double rate, const tern_dropout_opts *opts);
/* Rows of table [n, ..] at the integer ids (negative ones count from the end): shape of ids followed by that of a row.
   */
TERN_API tern_tensor *tern_embedding(tern_tensor *table, tern_tensor *ids);
/* mask: bool (true = take part) or float (added to the scores), broadcasting to [.., L, S]; NULL or TERN_NONE = none.
   causal: position i sees keys 0 .. i. scale: 0 = 1/sqrt(E). dropout: probability, with seed as tern_dropout_opts. */
typedef struct tern_attention_opts {
  tern_tensor *mask;
  int causal;
  double scale, dropout;
  uint64_t seed;
} tern_attention_opts;
/* softmax(q k^T scale + mask) v; q [.., L, E], k [.., S, E], v [.., S, V], out [.., L, V], leading axes broadcast
   (Vaswani et al., 2017). A row that may see nothing gives zeros, as in PyTorch. */
TERN_API tern_tensor *tern_scaled_dot_product_attention(tern_tensor *q, tern_tensor *k, tern_tensor *v,
                                                        const tern_attention_opts *opts);

/* ---- convolution and pooling over 1 (rank 3) or 2 (rank 4) spatial axes ---- */

/* NHWC: x [batch, space.., channels], filters [space.., channels / groups, out], as TensorFlow. NCHW: x [batch,
   channels, space..], filters [out, channels / groups, space..], as PyTorch. */
typedef enum tern_layout { TERN_NHWC = 0, TERN_NCHW } tern_layout;
/* VALID: none. SAME: as much as makes out = ceil(in / stride), the odd one behind. EXPLICIT: pads[d] before and
   after. */
typedef enum tern_pad_mode { TERN_PAD_VALID = 0, TERN_PAD_SAME, TERN_PAD_EXPLICIT } tern_pad_mode;
/* strides, dilations: 0 = 1, and in the second place the first; groups: 0 = 1. pads: with EXPLICIT only.
   output_padding: tern_conv_transpose only, how much longer the result is. */
typedef struct tern_conv_opts {
  tern_layout layout;
  tern_pad_mode padding;
  tern_padding pads[2];
  int64_t strides[2], dilations[2], output_padding[2], groups;
} tern_conv_opts;
/* Cross-correlation, as the neural-network libraries call convolution. */
TERN_API tern_tensor *tern_conv(tern_tensor *x, tern_tensor *filters, const tern_conv_opts *opts);
/* The transpose (gradient) of tern_conv with respect to its input. filters: NHWC [space.., out / groups, channels],
   NCHW [channels, out / groups, space..]: those of the tern_conv that it transposes. With SAME the result is in *
   stride long. */
TERN_API tern_tensor *tern_conv_transpose(tern_tensor *x, tern_tensor *filters, const tern_conv_opts *opts);
/* window: 0 = 2; strides: 0 = the window; dilations: 0 = 1; 0 in the second place: the first. pads: with EXPLICIT only;
   for tern_max_pool less than the window. */
typedef struct tern_pool_opts {
  tern_layout layout;
  tern_pad_mode padding;
  tern_padding pads[2];
  int64_t window[2], strides[2], dilations[2];
  int count_padding; /* tern_avg_pool: padding counts as zeros instead of not at all */
} tern_pool_opts;
/* The largest of each window; padding never wins. The gradient goes to the first of equals. */
TERN_API tern_tensor *tern_max_pool(tern_tensor *x, const tern_pool_opts *opts);
/* The mean of each window. */
TERN_API tern_tensor *tern_avg_pool(tern_tensor *x, const tern_pool_opts *opts);

/* ---- losses. y_true and y_pred of one shape; the mean (or the op's own formula) over the last axis gives one value an
   example ---- */

/* What becomes of the examples' values: MEAN of all (Keras's sum_over_batch_size), SUM, or NONE: kept. */
typedef enum tern_loss_reduction { TERN_LOSS_MEAN = 0, TERN_LOSS_SUM, TERN_LOSS_NONE } tern_loss_reduction;
/* from_logits: y_pred is not yet a probability (cross-entropies; others ignore it). label_smoothing: share of the
   target spread evenly. axis: the classes', 0 = the last. delta: huber (0 = 1). alpha, gamma: of the focal losses (0 =
   0.25 and 2); an alpha given to the binary one also balances the classes by it. alpha, beta: of tversky (0 = 0.5).
   weights: broadcast to the examples' values, NULL or TERN_NONE = 1. ignore_class: sparse, examples of this class count
   nothing, when ignore is set. */
typedef struct tern_loss_opts {
  tern_loss_reduction reduction;
  int from_logits, axis, ignore, ignore_class;
  double label_smoothing, delta, alpha, beta, gamma;
  tern_tensor *weights;
} tern_loss_opts;
/* Cross-entropy of logits with integer labels (one rank less) or with probabilities of the same shape, from_logits
   implied: the usual classification loss, computed with its softmax. A label out of range is an error where the labels
   are in host memory: when the op runs, or when a compiled function is called whose operand the labels are. Elsewhere
   (on other devices, labels that a compiled function computes or slices itself, graph mode) that example's loss and
   gradient are NaN. */
TERN_API tern_tensor *tern_cross_entropy(tern_tensor *logits, tern_tensor *labels, const tern_loss_opts *opts);
#define TERN_LOSSES(X)                                                                                           \
  X(mean_squared_error) X(mean_absolute_error) X(mean_absolute_percentage_error)                                 \
  X(mean_squared_logarithmic_error) X(binary_crossentropy) X(categorical_crossentropy)                           \
  X(sparse_categorical_crossentropy) X(binary_focal_crossentropy) X(categorical_focal_crossentropy)              \
  X(kl_divergence) X(poisson) X(cosine_similarity) X(hinge) X(squared_hinge) X(categorical_hinge) X(huber)       \
  X(log_cosh) X(dice) X(tversky)
/* Keras's losses under their names, tern_loss_huber(y_true, y_pred, opts) and so on, with Keras 3's formulas and
   defaults. */
#define TERN_LOSS_DECLARATION(name) \
  TERN_API tern_tensor *tern_loss_##name(tern_tensor *y_true, tern_tensor *y_pred, const tern_loss_opts *opts);
TERN_LOSSES(TERN_LOSS_DECLARATION)
#undef TERN_LOSS_DECLARATION
/* Any of them. */
typedef tern_tensor *(*tern_loss_function)(tern_tensor *y_true, tern_tensor *y_pred, const tern_loss_opts *opts);
/* The loss of that name ("huber"); NULL with an error that lists them. */
TERN_API tern_loss_function tern_loss_named(const char *name);

/* ---- reductions ---- */

/* axes: which to reduce, n_axes of them (0 = all; negative counts from the end). keepdims: leave them as size 1.
   correction: tern_var and tern_std only, subtracted from the count. dtype: sum and prod only, 0 = see the op. */
typedef struct tern_reduce_opts {
  const int *axes;
  int n_axes, keepdims;
  double correction;
  tern_dtype dtype;
} tern_reduce_opts;
#ifndef __cplusplus
/* tern_sum(x, TERN_AXES(0, 1)) */
#define TERN_AXES(...) \
  (&(const tern_reduce_opts){.axes = (const int[]){__VA_ARGS__}, .n_axes = (int)(sizeof((const int[]){__VA_ARGS__}) / sizeof(int))})
/* The same, keeping the axes as size 1. */
#define TERN_AXES_KEEP(...) \
  (&(const tern_reduce_opts){ \
      .axes = (const int[]){__VA_ARGS__}, .n_axes = (int)(sizeof((const int[]){__VA_ARGS__}) / sizeof(int)), .keepdims = 1})
#endif

/* Sum; of small integers and bool in int64 / uint64. */
TERN_API tern_tensor *tern_sum(tern_tensor *x, const tern_reduce_opts *opts);
/* Product; of small integers and bool in int64 / uint64. */
TERN_API tern_tensor *tern_prod(tern_tensor *x, const tern_reduce_opts *opts);
/* Mean; integers give float64. */
TERN_API tern_tensor *tern_mean(tern_tensor *x, const tern_reduce_opts *opts);
/* Largest; NaN if any is. */
TERN_API tern_tensor *tern_max(tern_tensor *x, const tern_reduce_opts *opts);
/* Smallest; NaN if any is. */
TERN_API tern_tensor *tern_min(tern_tensor *x, const tern_reduce_opts *opts);
/* True where any is nonzero. */
TERN_API tern_tensor *tern_any(tern_tensor *x, const tern_reduce_opts *opts);
/* True where all are nonzero. */
TERN_API tern_tensor *tern_all(tern_tensor *x, const tern_reduce_opts *opts);
/* Variance: mean of squared distances from the mean, divided by n - correction. */
TERN_API tern_tensor *tern_var(tern_tensor *x, const tern_reduce_opts *opts);
/* Square root of tern_var. */
TERN_API tern_tensor *tern_std(tern_tensor *x, const tern_reduce_opts *opts);
/* log(sum(exp(x))), without overflow. */
TERN_API tern_tensor *tern_logsumexp(tern_tensor *x, const tern_reduce_opts *opts);
/* Index (int64) of the largest along the axes, in row-major order of them; the first of equals; the first NaN wins. */
TERN_API tern_tensor *tern_argmax(tern_tensor *x, const tern_reduce_opts *opts);
/* Index of the smallest; see tern_argmax. */
TERN_API tern_tensor *tern_argmin(tern_tensor *x, const tern_reduce_opts *opts);

/* exclusive: element i leaves x[i] out; reverse: from the end. */
typedef struct tern_scan_opts { int exclusive, reverse; } tern_scan_opts;
/* Running sum along axis. */
TERN_API tern_tensor *tern_cumsum(tern_tensor *x, int axis, const tern_scan_opts *opts);
/* Running product along axis. */
TERN_API tern_tensor *tern_cumprod(tern_tensor *x, int axis, const tern_scan_opts *opts);

/* Running maximum along axis; exclusive is not allowed. */
TERN_API tern_tensor *tern_cummax(tern_tensor *x, int axis, const tern_scan_opts *opts);
/* Running minimum along axis; exclusive is not allowed. */
TERN_API tern_tensor *tern_cummin(tern_tensor *x, int axis, const tern_scan_opts *opts);

/* ---- linear algebra ---- */

/* Matrix product over the last two axes, the others broadcast; 1-D operands as in NumPy. */
TERN_API tern_tensor *tern_matmul(tern_tensor *a, tern_tensor *b);
/* The same of int8 with int8 or uint8 with uint8, summed in int32, which wraps: for quantised inference. No
   gradient. */
TERN_API tern_tensor *tern_matmul_int32(tern_tensor *a, tern_tensor *b);
/* Sum over the last axis of a and the last but one of b (NumPy's dot); a scalar operand multiplies. */
TERN_API tern_tensor *tern_dot(tern_tensor *a, tern_tensor *b);

/* Sums of products by NumPy's einsum notation, with implicit or explicit output, "...", repeated letters (diagonals),
   any number of operands: tern_einsum("bij,bjk->bik", TERN_TENSORS(a, b)). Contracted pairwise from left to right, by
   matrix products. */
TERN_API tern_tensor *tern_einsum(const char *subscripts, tern_tensor *const *operands, int n);
#ifndef __cplusplus
/* An array of tensors and its length: two arguments. */
#define TERN_TENSORS(...) \
  ((tern_tensor *const[]){__VA_ARGS__}), (int)(sizeof((tern_tensor *const[]){__VA_ARGS__}) / sizeof(tern_tensor *))
#endif
/* a and b flattened; every product: [size of a, size of b]. */
TERN_API tern_tensor *tern_outer(tern_tensor *a, tern_tensor *b);
/* order: 0 = 2, the Euclidean (of a matrix: Frobenius) norm; INFINITY, -INFINITY, 1, or any p: vector norms. axes,
   n_axes, keepdims: as reductions. count_nonzero: the "norm" of order 0. */
typedef struct tern_norm_opts { double order; const int *axes; int n_axes, keepdims, count_nonzero; } tern_norm_opts;
/* Vector norm over the axes (0 of them = all). */
TERN_API tern_tensor *tern_norm(tern_tensor *x, const tern_norm_opts *opts);
/* The diagonal k of the last two axes (rank 2 and more), or a matrix with x on diagonal k (rank 1). */
TERN_API tern_tensor *tern_diag(tern_tensor *x, int k);
/* x with zeros below diagonal k of the last two axes. */
TERN_API tern_tensor *tern_triu(tern_tensor *x, int k);
/* x with zeros above diagonal k of the last two axes. */
TERN_API tern_tensor *tern_tril(tern_tensor *x, int k);

/* ---- joining, picking, sorting ---- */

/* n tensors joined along axis; other sizes equal. */
TERN_API tern_tensor *tern_concat(tern_tensor *const *xs, int n, int axis);
/* n tensors of one shape along a new axis. */
TERN_API tern_tensor *tern_stack(tern_tensor *const *xs, int n, int axis);
/* x with `value` around it; n must be the rank. */
TERN_API tern_tensor *tern_pad(tern_tensor *x, const tern_padding *padding, int n, double value);
/* Slices of x along axis at the integer indices; result shape: axis replaced by the indices' shape. Negative indices
   count from the end; one out of range is an error. */
TERN_API tern_tensor *tern_take(tern_tensor *x, tern_tensor *indices, int axis);
/* 1 where the class is the index, else 0, along a new last axis. An index out of range gives zeros. */
TERN_API tern_tensor *tern_one_hot(tern_tensor *indices, int64_t classes, tern_dtype dtype);
/* descending: largest first (NaN first then, else last). Always stable. */
typedef struct tern_sort_opts { int descending; } tern_sort_opts;
/* Sorted along axis. */
TERN_API tern_tensor *tern_sort(tern_tensor *x, int axis, const tern_sort_opts *opts);
/* Indices (int64) that sort along axis. */
TERN_API tern_tensor *tern_argsort(tern_tensor *x, int axis, const tern_sort_opts *opts);

/* axis: 0 = the last (for axis 0 say -rank); smallest: the k smallest, ascending. */
typedef struct tern_top_k_opts { int axis, smallest; } tern_top_k_opts;
/* The k largest along axis, in descending order; *indices (may be NULL): theirs, int64. */
TERN_API tern_tensor *tern_top_k(tern_tensor *x, int64_t k, tern_tensor **indices, const tern_top_k_opts *opts);
/* Where values (any shape) would be inserted into sorted (rank 1, ascending), int64; right: behind equal ones. */
TERN_API tern_tensor *tern_searchsorted(tern_tensor *sorted, tern_tensor *values, int right);
/* The different values of x, ascending, rank 1. inverse (shape of x, int64: where each element went) and counts (int64)
   may be NULL. Waits for the device: the size of the result depends on the values. */
TERN_API tern_tensor *tern_unique(tern_tensor *x, tern_tensor **inverse, tern_tensor **counts);
/* x's elements along axis at indices, which has x's rank and broadcasts to it elsewhere. */
TERN_API tern_tensor *tern_take_along_axis(tern_tensor *x, tern_tensor *indices, int axis);
/* Slices of x at the index tuples in the last axis of indices [.., n]: shape [..] followed by x's axes from n on
   (TensorFlow's gather_nd). */
TERN_API tern_tensor *tern_gather_nd(tern_tensor *x, tern_tensor *indices);
/* x with updates added to (set, max, min: see the mode) its slices along axis at the integer indices. updates: shape of
   tern_take(x, indices, axis), or a number. An index that occurs twice counts twice, in order. */
TERN_API tern_tensor *tern_scatter(tern_tensor *x, tern_tensor *indices, tern_tensor *updates, int axis,
                                   tern_scatter_mode mode);
/* tern_scatter that adds. */
TERN_API tern_tensor *tern_scatter_add(tern_tensor *x, tern_tensor *indices, tern_tensor *updates, int axis);
/* x with updates combined into the slices that tern_gather_nd(x, indices) reads. */
TERN_API tern_tensor *tern_scatter_nd(tern_tensor *x, tern_tensor *indices, tern_tensor *updates,
                                      tern_scatter_mode mode);
/* Zeros of shape, with x in the slice that tern_slice(.., ranges, n) of it would give: the transpose of tern_slice. */
TERN_API tern_tensor *tern_embed(tern_tensor *x, tern_shape shape, const tern_range *ranges, int n);
/* Each element n times, along axis. */
TERN_API tern_tensor *tern_repeat(tern_tensor *x, int64_t n, int axis);
/* x laid side by side, times.dim[d] times along axis d (aligned at the end, as NumPy). */
TERN_API tern_tensor *tern_tile(tern_tensor *x, tern_shape times);
/* The order of elements along the axes turned round (NULL or n = 0: along all). A view. */
TERN_API tern_tensor *tern_flip(tern_tensor *x, const int *axes, int n);
/* Elements moved by shift along axis, round the end. */
TERN_API tern_tensor *tern_roll(tern_tensor *x, int64_t shift, int axis);

/* ---- random numbers: Philox4x32-10, same seed, same numbers on every device ---- */

/* Restart the process's generator. It starts with seed 0. */
TERN_API void tern_set_seed(uint64_t seed);
/* mean, stddev (0 = 1): normal; low, high (both 0 = 0 and 1): uniform. seed: 0 = the process's generator, else a
   generator of this call's own. dtype: 0 = float32. */
typedef struct tern_random_opts { double mean, stddev, low, high; uint64_t seed; tern_dtype dtype; } tern_random_opts;
/* Uniform in [low, high). */
TERN_API tern_tensor *tern_random_uniform(tern_shape shape, const tern_random_opts *opts);
/* Normal. */
TERN_API tern_tensor *tern_random_normal(tern_shape shape, const tern_random_opts *opts);
/* Integers in [low, high); dtype 0 = int64. Options: seed, dtype. */
TERN_API tern_tensor *tern_random_integers(tern_shape shape, int64_t low, int64_t high, const tern_random_opts *opts);
/* 0 .. n-1 in random order, int64. Options: seed. */
TERN_API tern_tensor *tern_random_permutation(int64_t n, const tern_random_opts *opts);
/* true with probability p, as bool (or opts->dtype). */
TERN_API tern_tensor *tern_random_bernoulli(tern_shape shape, double p, const tern_random_opts *opts);

#ifdef __cplusplus
}
#endif
#endif
