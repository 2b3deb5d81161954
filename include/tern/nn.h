/* Layers and models, with Keras 3's names, formulas, defaults and order of weights. A layer makes its weights when it
   first sees a shape; what it computes are public ops, so tapes, graphs and functions see through it. A layer belongs
   to whoever made it until a model or another layer takes it over; a constructor that takes layers over ends them when
   it fails. NULL in gives NULL out, so that constructors can be nested. One thread at a time may use a model. */
#ifndef TERN_NN_H_
#define TERN_NN_H_
#include <tern/data.h>
#include <tern/graph.h>
#include <tern/ops.h>
#include <tern/train.h>
#ifdef __cplusplus
extern "C" {
#endif

typedef struct tern_layer tern_layer;
typedef struct tern_model tern_model;

/* ---- layers. Shapes leave out the batch, which is axis 0 of every tensor. 0 in an option is its default ---- */

/* name: NULL = made up ("dense", "dense_1", .. in a model). input_shape: for the first layer of a model, whose weights
   are then made at once; rank 0 = unknown, -1 = any size. frozen: its weights are not trained. */
#define TERN_LAYER_OPTS const char *name; tern_shape input_shape; int frozen
/* Names of activations: "linear" (NULL), "relu", "relu6", "leaky_relu" (slope 0.2), "elu", "selu", "celu", "softplus",
   "softsign", "sigmoid", "hard_sigmoid", "tanh", "silu" ("swish"), "hard_silu", "gelu" (the tanh form is "gelu_tanh"),
   "mish", "exponential", "softmax", "log_softmax" (over the last axis). */
/* The activation of that name; NULL with an error that lists them. */
TERN_API tern_tensor *tern_activate(const char *name, tern_tensor *x);
/* Initialisers: "glorot_uniform" (of kernels, unless said otherwise), "glorot_normal", "he_uniform", "he_normal",
   "lecun_uniform", "lecun_normal", "random_uniform" (-0.05 .. 0.05), "random_normal" and "truncated_normal" (standard
   deviation 0.05), "orthogonal", "identity", "zeros", "ones". Fans as Keras counts them: the last two axes, times the
   sizes of those before. The normal ones of glorot, he and lecun are truncated at two standard deviations. Draws from
   the process's generator. NULL with an error that lists the names. */
TERN_API tern_tensor *tern_initialize(const char *name, tern_shape shape, tern_dtype dtype);

typedef struct tern_layer_opts { TERN_LAYER_OPTS; } tern_layer_opts;
typedef struct tern_dense_opts {
  TERN_LAYER_OPTS;
  const char *activation, *kernel_initializer, *bias_initializer;
  int no_bias;
} tern_dense_opts;
/* activation(x kernel + bias) over the last axis. Weights: kernel [in, units], bias [units]. */
TERN_API tern_layer *tern_dense(int64_t units, const tern_dense_opts *opts);

/* padding: "valid" (NULL), "same", conv1d also "causal". strides, dilations: 0 = 1, in the second place 0 = the first.
   groups: 0 = 1. data_format: channels last only. */
typedef struct tern_conv_layer_opts {
  TERN_LAYER_OPTS;
  const char *activation, *padding, *kernel_initializer, *bias_initializer;
  int64_t strides[2], dilations[2], groups;
  int no_bias;
} tern_conv_layer_opts;
/* x [time, channels]; kernel [size, channels / groups, filters], bias [filters]. */
TERN_API tern_layer *tern_conv1d(int64_t filters, int64_t size, const tern_conv_layer_opts *opts);
/* x [height, width, channels]; kernel [height, width, channels / groups, filters]. columns: 0 = rows. */
TERN_API tern_layer *tern_conv2d(int64_t filters, int64_t rows, int64_t columns, const tern_conv_layer_opts *opts);
/* multiplier results a channel: kernel [rows, columns, channels, multiplier], bias [channels * multiplier]. */
TERN_API tern_layer *tern_depthwise_conv2d(int64_t rows, int64_t columns, int64_t multiplier,
                                           const tern_conv_layer_opts *opts);
/* The transpose of a convolution: kernel [rows, columns, filters, channels]. */
TERN_API tern_layer *tern_conv2d_transpose(int64_t filters, int64_t rows, int64_t columns,
                                           const tern_conv_layer_opts *opts);
/* window: 0 = 2; strides: 0 = the window; second place 0 = the first. padding: "valid" (NULL) or "same". keepdims: of
   the global ones only. */
typedef struct tern_pool_layer_opts {
  TERN_LAYER_OPTS;
  const char *padding;
  int64_t window[2], strides[2];
  int keepdims;
} tern_pool_layer_opts;
/* The largest of each window, [time, channels]. */
TERN_API tern_layer *tern_max_pool1d(const tern_pool_layer_opts *opts);
/* The same over [height, width, channels]. */
TERN_API tern_layer *tern_max_pool2d(const tern_pool_layer_opts *opts);
/* The mean of each window, [time, channels]. */
TERN_API tern_layer *tern_avg_pool1d(const tern_pool_layer_opts *opts);
/* The same over [height, width, channels]. */
TERN_API tern_layer *tern_avg_pool2d(const tern_pool_layer_opts *opts);
/* Over all positions: [.., channels] to [channels]. The averages leave masked steps out (1d). */
TERN_API tern_layer *tern_global_max_pool1d(const tern_pool_layer_opts *opts);
/* See tern_global_max_pool1d. */
TERN_API tern_layer *tern_global_max_pool2d(const tern_pool_layer_opts *opts);
/* See tern_global_max_pool1d. */
TERN_API tern_layer *tern_global_avg_pool1d(const tern_pool_layer_opts *opts);
/* See tern_global_max_pool1d. */
TERN_API tern_layer *tern_global_avg_pool2d(const tern_pool_layer_opts *opts);

/* [..] to one axis. */
TERN_API tern_layer *tern_flatten_layer(const tern_layer_opts *opts);
/* One size may be -1. */
TERN_API tern_layer *tern_reshape_layer(tern_shape shape, const tern_layer_opts *opts);
/* An activation by name. */
TERN_API tern_layer *tern_activation(const char *name, const tern_layer_opts *opts);
typedef struct tern_dropout_layer_opts { TERN_LAYER_OPTS; uint64_t seed; } tern_dropout_layer_opts;
/* In training each element is 0 with probability rate, else divided by 1 - rate. */
TERN_API tern_layer *tern_dropout_layer(double rate, const tern_dropout_layer_opts *opts);
/* mask_zero: id 0 is padding, which later layers leave out. embeddings_initializer: NULL = "uniform" (-0.05 ..
   0.05). */
typedef struct tern_embedding_opts {
  TERN_LAYER_OPTS;
  const char *embeddings_initializer;
  int mask_zero;
} tern_embedding_opts;
/* Integer ids below `words` to rows of embeddings [words, size]. */
TERN_API tern_layer *tern_embedding_layer(int64_t words, int64_t size, const tern_embedding_opts *opts);

/* axis: 0 = the last. momentum: of the moving averages, 0 = 0.99. epsilon: 0 = 0.001. */
typedef struct tern_batch_norm_layer_opts {
  TERN_LAYER_OPTS;
  double momentum, epsilon;
  int axis, no_scale, no_center;
} tern_batch_norm_layer_opts;
/* Weights: gamma, beta, moving_mean, moving_variance (the last two are not trained). In training by the batch's own
   mean and variance, without the masked steps. */
TERN_API tern_layer *tern_batch_norm_layer(const tern_batch_norm_layer_opts *opts);
/* axis: 0 = the last; the first that is normalised. epsilon: 0 = 0.001 (rms_norm: 1e-6). */
typedef struct tern_norm_layer_opts {
  TERN_LAYER_OPTS;
  double epsilon;
  int axis, no_scale, no_center;
} tern_norm_layer_opts;
/* Weights: gamma, beta. */
TERN_API tern_layer *tern_layer_norm_layer(const tern_norm_layer_opts *opts);
/* Weight: scale. */
TERN_API tern_layer *tern_rms_norm_layer(const tern_norm_layer_opts *opts);
/* Weights: gamma, beta. groups: Keras's default is 32. */
TERN_API tern_layer *tern_group_norm_layer(int64_t groups, const tern_norm_layer_opts *opts);

/* ---- recurrent layers: x [time, features], any number of steps ---- */

/* activation: NULL = "tanh"; recurrent_activation: NULL = "sigmoid". return_sequences: all outputs [time, units], else
   the last. backwards: from the last step to the first. stateful: example i of a batch begins with the state in which
   example i of the last one ended (fixed batch size; tern_reset_states). dropout, recurrent_dropout: of inputs, of
   states. reset_before: gru only, the reset gate before the product (Keras: reset_after=False). no_forget_bias: lstm
   only; else the forget gate's bias begins with 1. */
typedef struct tern_rnn_opts {
  TERN_LAYER_OPTS;
  const char *activation, *recurrent_activation, *kernel_initializer, *recurrent_initializer, *bias_initializer;
  int no_bias, return_sequences, backwards, stateful, reset_before, no_forget_bias;
  double dropout, recurrent_dropout;
} tern_rnn_opts;
/* Weights: kernel [in, units], recurrent_kernel [units, units], bias [units]. */
TERN_API tern_layer *tern_simple_rnn(int64_t units, const tern_rnn_opts *opts);
/* Gates in Keras's order i f c o: kernel [in, 4 units], recurrent_kernel [units, 4 units], bias [4 units]
   (Hochreiter and Schmidhuber, 1997). */
TERN_API tern_layer *tern_lstm(int64_t units, const tern_rnn_opts *opts);
/* Gates z r h: kernel [in, 3 units], recurrent_kernel [units, 3 units], bias [2, 3 units], or [3 units] with
   reset_before (Cho et al., 2014). */
TERN_API tern_layer *tern_gru(int64_t units, const tern_rnn_opts *opts);
/* merge: "concat" (NULL), "sum", "mul", "ave". */
typedef struct tern_bidirectional_opts { TERN_LAYER_OPTS; const char *merge; } tern_bidirectional_opts;
/* A recurrent layer, which is taken over, and a copy of it that goes backwards; weights: forward's, then backward's. */
TERN_API tern_layer *tern_bidirectional(tern_layer *layer, const tern_bidirectional_opts *opts);
/* Steps whose features are all `value` are masked for the layers behind. */
TERN_API tern_layer *tern_masking(double value, const tern_layer_opts *opts);

/* ---- attention and what is made of layers ---- */

/* value_dim: 0 = key_dim; dropout: of the attention weights. causal: a step sees itself and those before. */
typedef struct tern_attention_layer_opts {
  TERN_LAYER_OPTS;
  int64_t value_dim;
  double dropout;
  int causal, no_bias;
  const char *kernel_initializer, *bias_initializer;
} tern_attention_layer_opts;
/* Self-attention over x [time, features] (Vaswani et al., 2017). Masked steps are not seen. Weights: kernel and bias of
   query, key, value ([features, heads, key_dim], [heads, key_dim]) and of the output ([heads, value_dim, features],
   [features]). */
TERN_API tern_layer *tern_multi_head_attention(int64_t heads, int64_t key_dim, const tern_attention_layer_opts *opts);
/* One layer behind the other, as a layer. Takes them over. */
TERN_API tern_layer *tern_chain_n(tern_layer *const *layers, int n, const tern_layer_opts *opts);
/* x + layers(x), which must keep the shape. Takes them over. */
TERN_API tern_layer *tern_residual_n(tern_layer *const *layers, int n, const tern_layer_opts *opts);
#ifndef __cplusplus
#define TERN_LAYERS_(...) (tern_layer *const[]){__VA_ARGS__}, (int)(sizeof((tern_layer *const[]){__VA_ARGS__}) / sizeof(tern_layer *))
#define tern_chain(...) tern_chain_n(TERN_LAYERS_(__VA_ARGS__), NULL)
#define tern_residual(...) tern_residual_n(TERN_LAYERS_(__VA_ARGS__), NULL)
#endif

/* ---- layers of your own: a pair of functions ---- */

/* build: makes the weights with tern_layer_weight, once, from the shape of the first input (batch included, as -1); may
   be NULL. call: the result for x, borrowed from the scope; training: 0 or 1. release(self): when the layer ends; may
   be NULL. name: what layers of the kind are called ("scale"). */
typedef struct tern_layer_body {
  const char *name;
  tern_rc (*build)(void *self, tern_layer *layer, tern_shape input);
  tern_tensor *(*call)(void *self, tern_layer *layer, tern_tensor *x, int training);
  void (*release)(void *self);
} tern_layer_body;
/* body is copied; self must live as long as the layer, and is released at once when the call fails. */
TERN_API tern_layer *tern_layer_new(const tern_layer_body *body, void *self, const tern_layer_opts *opts);
/* initializer: NULL = "glorot_uniform". dtype: 0 = float32. frozen: not trained. */
typedef struct tern_weight_opts { const char *initializer; tern_dtype dtype; int frozen; } tern_weight_opts;
/* A new weight of the layer (in its build): a variable that the layer owns, named LAYER/name. */
TERN_API tern_tensor *tern_layer_weight(tern_layer *layer, const char *name, tern_shape shape,
                                        const tern_weight_opts *opts);
/* Weight i in the order in which they were made, borrowed from the layer; NULL with an error past the last. */
TERN_API tern_tensor *tern_layer_get_weight(const tern_layer *layer, int i);

/* ---- a layer by itself ---- */

/* training: as in fit. mask: bool [batch, time], the steps that count; NULL or TERN_NONE = all. */
typedef struct tern_layer_call_opts { int training; tern_tensor *mask; } tern_layer_call_opts;
/* The layer's result for x, batch included. Makes the weights when it is the first. */
TERN_API tern_tensor *tern_layer_call(tern_layer *layer, tern_tensor *x, const tern_layer_call_opts *opts);
/* Its name; valid as long as the layer. */
TERN_API const char *tern_layer_name(const tern_layer *layer);
/* All weights (those of layers inside too) in Keras's order, borrowed from the layer: returns their number, fills at
   most max. */
TERN_API int tern_layer_variables(const tern_layer *layer, tern_tensor **out, int max);
/* Its weights, and those of layers inside, are trained or not from now on (those made frozen stay so). */
TERN_API tern_rc tern_layer_set_trainable(tern_layer *layer, int trainable);
/* NULL is allowed. Only a layer that nothing has taken over. */
TERN_API void tern_layer_release(tern_layer *layer);

/* ---- models ---- */

/* Layers one behind the other; takes them over. Owned: tern_model_release. */
TERN_API tern_model *tern_sequential_n(tern_layer *const *layers, int n);
#ifndef __cplusplus
#define tern_sequential(...) tern_sequential_n(TERN_LAYERS_(__VA_ARGS__))
#endif
/* NULL is allowed. */
TERN_API void tern_model_release(tern_model *model);
/* Make the weights for inputs of this shape (without the batch) and dtype (0 = float32), and check that every layer
   fits the one before: an error names the layer. */
TERN_API tern_rc tern_model_build(tern_model *model, tern_shape input, tern_dtype dtype);
/* The model's result for a batch x, for loops of your own; training: 0 or 1. */
TERN_API tern_tensor *tern_model_call(tern_model *model, tern_tensor *x, int training);
/* Layer i, borrowed; NULL with an error past the last. */
TERN_API tern_layer *tern_model_layer(tern_model *model, int i);
/* The layer of that name; NULL with an error that lists them. */
TERN_API tern_layer *tern_model_layer_named(tern_model *model, const char *name);
/* The model's variables, or the trained ones only, borrowed from it: their number, fills at most max. */
TERN_API int tern_model_variables(tern_model *model, tern_tensor **out, int max);
/* See tern_model_variables. */
TERN_API int tern_model_trainable_variables(tern_model *model, tern_tensor **out, int max);
/* Copies of the weights' values, borrowed from the scope: their number, fills at most max. */
TERN_API int tern_get_weights(tern_model *model, tern_tensor **out, int max);
/* Values for all weights, in that order. All change or none. */
TERN_API tern_rc tern_set_weights(tern_model *model, tern_tensor *const *values, int n);
/* States of stateful layers to zero. */
TERN_API tern_rc tern_reset_states(tern_model *model);
/* A table of layers, output shapes and numbers of parameters, to stdout; or as text: free(). */
TERN_API void tern_summary(tern_model *model);
/* What tern_summary prints. */
TERN_API char *tern_summary_text(tern_model *model);
/* One file: a safetensors file whose metadata hold the architecture, how the model was compiled, and the optimiser's
   state (docs/formats.md). Whole or not at all. Layers of your own are saved by name. */
TERN_API tern_rc tern_model_save(tern_model *model, const char *path);
/* A kind of layer of your own for tern_model_load: makes one, as it was made at first (weights come from the file). */
typedef struct tern_layer_maker { const char *name; tern_layer *(*make)(void *self, const tern_layer_opts *opts); void *self; } tern_layer_maker;
typedef struct tern_load_opts { const tern_layer_maker *makers; int n_makers; } tern_load_opts;
/* The model in such a file, ready to go on training. Owned. */
TERN_API tern_model *tern_model_load(const char *path, const tern_load_opts *opts);
/* The weights alone, into a model of the same architecture: names, shapes and dtypes are checked first, and the error
   says what differs. */
TERN_API tern_rc tern_model_load_weights(tern_model *model, const char *path);

/* ---- training a model ---- */

/* optimizer: "sgd", "adam", "adamw", "rmsprop", "adagrad", "lion", or optimizer_object, which is taken over (also when
   the call fails). loss: a name of TERN_LOSSES, with loss_opts, or loss_function. metrics: names of tern_metric_new,
   NULL at the end (TERN_NAMES). eager: steps are not compiled, for debugging. 0 / NULL: optimizer "rmsprop" (Keras), no
   loss: predictions only. */
typedef struct tern_compile_opts {
  const char *optimizer, *loss;
  const char *const *metrics;
  tern_optimizer *optimizer_object;
  tern_loss_function loss_function;
  const tern_loss_opts *loss_opts;
  int eager;
} tern_compile_opts;
#ifndef __cplusplus
#define TERN_NAMES(...) ((const char *const[]){__VA_ARGS__, NULL})
#endif
/* How the model is trained, from now on; the weights stay. */
TERN_API tern_rc tern_compile(tern_model *model, const tern_compile_opts *opts);

/* AUTO: a bar on a terminal, else a plain line an epoch. */
typedef enum tern_progress { TERN_PROGRESS_AUTO = 0, TERN_PROGRESS_BAR, TERN_PROGRESS_LINE, TERN_PROGRESS_NONE } tern_progress;
/* batch_size: 0 = 32. epochs: 0 = 1. validation_split: share of x and y, their end, that is kept for validation; or
   validation_x and validation_y; or validation_data. no_shuffle: epochs go through x in order. class_weights: what each
   of n_classes classes counts. sample_weights: one number an example. callbacks: see train.h, n_callbacks of them.
   initial_epoch: as if so many had been done. steps: batches an epoch, 0 = all (needed for an endless dataset).
   seed: of the shuffling, 0 = drawn from the process's generator. */
typedef struct tern_fit_opts {
  int epochs, batch_size;
  tern_progress progress;
  double validation_split;
  tern_tensor *validation_x, *validation_y;
  tern_dataset *validation_data;
  int no_shuffle;
  const double *class_weights;
  int n_classes;
  tern_tensor *sample_weights;
  tern_callback *const *callbacks;
  int n_callbacks, initial_epoch;
  int64_t steps;
  uint64_t seed;
} tern_fit_opts;
/* Train on x, y. A loss that is not finite is an error that names the step and the first layer whose result is not
   finite; the weights are those of before the step. Arguments, shapes and labels are checked before anything
   changes. */
TERN_API tern_rc tern_fit(tern_model *model, tern_tensor *x, tern_tensor *y, const tern_fit_opts *opts);
/* The same over batches (x, y) or (x, y, sample weights) of a dataset, which stays the caller's. */
TERN_API tern_rc tern_fit_dataset(tern_model *model, tern_dataset *data, const tern_fit_opts *opts);
/* One step; the loss. NaN with the error set. */
TERN_API double tern_train_on_batch(tern_model *model, tern_tensor *x, tern_tensor *y);
/* What each epoch of fits so far gave: "loss", "accuracy", "val_loss", ..; *n values, borrowed from the model until its
   next fit. NULL with an error that lists the names. */
TERN_API const double *tern_history(tern_model *model, const char *name, int *n);

/* batch_size: 0 = 32. progress: as in fit. steps: batches, 0 = all. */
typedef struct tern_run_opts { int batch_size; tern_progress progress; int64_t steps; } tern_run_opts;
/* results: the loss, then the metrics in their order; returns how many there are, fills at most max. Less than 0: an
   error code. */
TERN_API int tern_evaluate(tern_model *model, tern_tensor *x, tern_tensor *y, double *results, int max,
                           const tern_run_opts *opts);
/* The same over batches (x, y) or (x, y, sample weights) of a dataset. */
TERN_API int tern_evaluate_dataset(tern_model *model, tern_dataset *data, double *results, int max,
                                   const tern_run_opts *opts);
/* The model's results for all of x, batch by batch, as one tensor on the default device. */
TERN_API tern_tensor *tern_predict(tern_model *model, tern_tensor *x, const tern_run_opts *opts);
/* The same over the first component of each element. */
TERN_API tern_tensor *tern_predict_dataset(tern_model *model, tern_dataset *data, const tern_run_opts *opts);

#ifdef __cplusplus
}
#endif
#endif
