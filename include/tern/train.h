/* Optimisers: they hold the state of an update rule (moments, step count) for the variables that they have seen and
   change variables in place, one kernel launch a variable. Rules, names and defaults are Keras 3's. An optimiser may be
   used by one thread at a time. */
#ifndef TERN_TRAIN_H_
#define TERN_TRAIN_H_
#include <tern/tensor.h>
#ifdef __cplusplus
extern "C" {
#endif

typedef struct tern_optimizer tern_optimizer;

/* ---- learning rates that change with the step (0, 1, ..): plain values, nothing to release ---- */

enum { TERN_SCHEDULE_CONSTANT = 0, TERN_SCHEDULE_STEP, TERN_SCHEDULE_COSINE, TERN_SCHEDULE_EXPONENTIAL };
/* rate(step), after warmup steps that rise linearly from warmup_start to the rate and are not counted: CONSTANT: rate.
   STEP: rate * factor^(number of boundaries < step), or with values the one of the interval (n_boundaries + 1 of
   them). EXPONENTIAL: rate * factor^(step / steps), the exponent rounded down if staircase. COSINE: from rate to rate *
   floor_factor along half a cosine over `steps`. The arrays must outlive the optimiser. */
typedef struct tern_schedule {
  int kind;
  double rate, factor, floor_factor;
  int64_t steps, warmup;
  double warmup_start;
  int staircase, n_boundaries;
  const int64_t *boundaries;
  const double *values;
} tern_schedule;
/* The learning rate at a step. */
TERN_API double tern_schedule_at(const tern_schedule *schedule, int64_t step);

/* ---- what all have. 0 means the default. ---- */

/* learning_rate: see each optimiser; schedule: instead of it (copied). weight_decay: the variable loses this share
   times the learning rate in each step (decoupled). clip_value: each gradient element limited to +-that; clip_norm:
   each gradient scaled down to that norm; global_clip_norm: all together; at most one of the three. name: what the
   names of its state begin with, NULL = the rule's ("adam"); two optimisers whose state goes into one file need two. */
#define TERN_OPTIMIZER_OPTS \
  double learning_rate; const tern_schedule *schedule; double weight_decay, clip_value, clip_norm, global_clip_norm; \
  const char *name
typedef struct tern_sgd_opts { TERN_OPTIMIZER_OPTS; double momentum; int nesterov; } tern_sgd_opts;
typedef struct tern_adam_opts { TERN_OPTIMIZER_OPTS; double beta1, beta2, epsilon; int amsgrad; } tern_adam_opts;
typedef struct tern_rmsprop_opts {
  TERN_OPTIMIZER_OPTS;
  double rho, momentum, epsilon;
  int centered;
} tern_rmsprop_opts;
typedef struct tern_adagrad_opts { TERN_OPTIMIZER_OPTS; double initial_accumulator, epsilon; } tern_adagrad_opts;
typedef struct tern_lion_opts { TERN_OPTIMIZER_OPTS; double beta1, beta2; } tern_lion_opts;

/* Each returns an optimiser that the caller owns: end it with tern_optimizer_release. NULL with the error set. */
/* Learning rate 0.01. With momentum m: v = m v - rate g; variable += v, or with nesterov m v - rate g. */
TERN_API tern_optimizer *tern_sgd(const tern_sgd_opts *opts);
/* Kingma and Ba, 2015. Learning rate 0.001, beta1 0.9, beta2 0.999, epsilon 1e-7; amsgrad: Reddi et al., 2018. */
TERN_API tern_optimizer *tern_adam(const tern_adam_opts *opts);
/* Loshchilov and Hutter, 2019: Adam with weight decay 0.004 unless given. */
TERN_API tern_optimizer *tern_adamw(const tern_adam_opts *opts);
/* Hinton, 2012. Learning rate 0.001, rho 0.9, epsilon 1e-7. */
TERN_API tern_optimizer *tern_rmsprop(const tern_rmsprop_opts *opts);
/* Duchi, Hazan, Singer, 2011. Learning rate 0.001, initial accumulator 0.1, epsilon 1e-7. */
TERN_API tern_optimizer *tern_adagrad(const tern_adagrad_opts *opts);
/* Chen et al., 2023. Learning rate 0.001, beta1 0.9, beta2 0.99. */
TERN_API tern_optimizer *tern_lion(const tern_lion_opts *opts);
/* NULL is allowed. */
TERN_API void tern_optimizer_release(tern_optimizer *optimizer);

/* One step: variables[i] changes by its gradient. gradients[i]: shape of the variable, or TERN_NONE (the variable is
   left alone). Nothing is changed when an argument is wrong; a device that fails on the way leaves the variables before
   it changed. Each call is a step, whatever it is given; a variable that stands twice changes twice, and a frozen one
   changes too. Not recorded by tapes. The optimiser keeps a reference to each variable that it has seen. */
TERN_API tern_rc tern_optimizer_apply(tern_optimizer *optimizer, tern_tensor *const *gradients,
                                      tern_tensor *const *variables, int n);
/* Steps made so far. */
TERN_API int64_t tern_optimizer_steps(const tern_optimizer *optimizer);
/* The rate of the next step. */
TERN_API double tern_optimizer_learning_rate(const tern_optimizer *optimizer);
/* A constant rate from now on; compiles nothing. */
TERN_API tern_rc tern_optimizer_set_learning_rate(tern_optimizer *optimizer, double rate);
/* The state, for saving: variables named "adam/VARIABLE/momentum" and the like, in a fixed order, and last a rank-0
   int64 "adam/steps". Borrowed from the optimiser. Returns their number; fills at most max. State exists from the first
   apply, or tern_optimizer_build, on; asking for it earlier is an error (and gives 0). */
TERN_API int tern_optimizer_state(tern_optimizer *optimizer, tern_tensor **state, int max);
/* Make the state for these variables now, so that it can be restored before the first step. */
TERN_API tern_rc tern_optimizer_build(tern_optimizer *optimizer, tern_tensor *const *variables, int n);

/* ---- gradients, clipped by hand. NONE entries stay; results are borrowed from the scope ---- */

/* The norm of all gradients together, rank 0. */
TERN_API tern_tensor *tern_global_norm(tern_tensor *const *gradients, int n);
/* clipped[i] = gradients[i] * limit / max(global norm, limit); norm (may be NULL): the global norm before. */
TERN_API tern_rc tern_clip_by_global_norm(tern_tensor *const *gradients, int n, double limit, tern_tensor **clipped,
                                          tern_tensor **norm);
/* x * limit / max(norm of x, limit) */
TERN_API tern_tensor *tern_clip_by_norm(tern_tensor *x, double limit);

/* ---- metrics: running figures over many batches, with Keras's names and formulas ---- */

typedef struct tern_metric tern_metric;
/* threshold: of binary_accuracy, precision, recall, 0 = 0.5. k: of the top_k ones, 0 = 5. classes: of confusion_matrix,
   and of precision and recall of `class_id` when one_class is set. thresholds: of auc, 0 = 200. from_logits: auc only.
   name: NULL = the metric's. */
typedef struct tern_metric_opts {
  const char *name;
  double threshold;
  int k, classes, class_id, one_class, thresholds, from_logits;
} tern_metric_opts;
/* "accuracy" (by the shapes that it meets: binary_, categorical_ or sparse_categorical_accuracy, also "acc"),
   "binary_accuracy", "categorical_accuracy", "sparse_categorical_accuracy", "top_k_categorical_accuracy",
   "sparse_top_k_categorical_accuracy", "auc", "precision", "recall", "confusion_matrix", "mean_squared_error" ("mse"),
   "root_mean_squared_error", "mean_absolute_error" ("mae"), "mean" (of y_pred), or a loss's name (but
   "cosine_similarity" is the similarity, as Keras's metric, not the loss, which is its negative). Owned. */
TERN_API tern_metric *tern_metric_new(const char *name, const tern_metric_opts *opts);
/* weights: one an example, NULL or TERN_NONE = 1. An op like others: in a traced function it is part of that. */
TERN_API tern_rc tern_metric_update(tern_metric *metric, tern_tensor *y_true, tern_tensor *y_pred, tern_tensor *weights);
/* The figure so far, float32 of rank 0; of confusion_matrix [classes, classes] in its sums' dtype, rows are the true
   ones. 0 before any. */
TERN_API tern_tensor *tern_metric_result(tern_metric *metric);
/* Begin anew. */
TERN_API tern_rc tern_metric_reset(tern_metric *metric);
/* Its name, as logs have it; valid as long as the metric. */
TERN_API const char *tern_metric_name(const tern_metric *metric);
/* NULL is allowed. */
TERN_API void tern_metric_release(tern_metric *metric);

/* ---- callbacks: what fit (nn.h) calls as it goes. Owned: tern_callback_release, after the fit ---- */

typedef struct tern_callback tern_callback;
struct tern_model;
/* Where training is. logs: n pairs of names and values, "loss" first, then metrics, then their val_ forms (epoch's end
   only). epoch and step count from 0. */
typedef struct tern_moment {
  struct tern_model *model;
  tern_optimizer *optimizer;
  int epoch, epochs;
  int64_t step, steps; /* steps: of an epoch, -1 = not known yet */
  const char *const *names;
  const double *values;
  int n;
} tern_moment;
enum { TERN_STOP_TRAINING = 1 };
/* Each may be NULL; each returns 0, TERN_STOP_TRAINING (after this epoch's end), or an error code, which ends the fit.
   batch_end costs a wait for the device a batch. release(self): when the callback ends. */
typedef struct tern_callback_body {
  int (*begin)(void *self, const tern_moment *moment);
  int (*epoch_begin)(void *self, const tern_moment *moment);
  int (*batch_end)(void *self, const tern_moment *moment);
  int (*epoch_end)(void *self, const tern_moment *moment);
  int (*end)(void *self, const tern_moment *moment);
  void (*release)(void *self);
} tern_callback_body;
/* A callback of your own; body is copied. */
TERN_API tern_callback *tern_callback_new(const tern_callback_body *body, void *self);

/* monitor: NULL = "val_loss"; larger_is_better: 0 = by the name (accuracies, auc, precision, recall), 1 yes, -1 no.
   patience: epochs without progress of more than min_delta; start_from: epochs before it looks. restore_best: weights
   of the best epoch at the end. baseline: value that must be passed, when set. */
typedef struct tern_early_stopping_opts {
  const char *monitor;
  int larger_is_better, patience, start_from, restore_best, has_baseline;
  double min_delta, baseline;
} tern_early_stopping_opts;
/* Ends training when what is monitored has stopped getting better. Owned. */
TERN_API tern_callback *tern_early_stopping(const tern_early_stopping_opts *opts);
/* monitor, larger_is_better: as above. best_only: only epochs that are better than all before. resume: when the file is
   there as a fit begins, that fit goes on behind the epoch it was written after: weights, optimiser, random numbers,
   history. path may hold "{epoch}" (from 1) and names of logs ("{val_loss}"); not with resume. */
typedef struct tern_checkpoint_opts {
  const char *monitor;
  int larger_is_better, best_only, resume;
} tern_checkpoint_opts;
/* tern_model_save after epochs. A process that is killed at any moment leaves the last file whole. */
TERN_API tern_callback *tern_model_checkpoint(const char *path, const tern_checkpoint_opts *opts);
/* The rate of each epoch: rate(self, epoch, the rate before). */
TERN_API tern_callback *tern_learning_rate_scheduler(double (*rate)(void *self, int epoch, double before), void *self);
/* factor: 0 = 0.1; patience: 0 = 10; min_delta: 0 = 1e-4. */
typedef struct tern_reduce_rate_opts {
  const char *monitor;
  int larger_is_better, patience, cooldown;
  double factor, min_delta, min_rate;
} tern_reduce_rate_opts;
/* rate *= factor when `patience` epochs gave no progress. */
TERN_API tern_callback *tern_reduce_rate_on_plateau(const tern_reduce_rate_opts *opts);
/* separator: 0 = ','. append: go on in a file that is there. */
typedef struct tern_csv_log_opts { char separator; int append; } tern_csv_log_opts;
/* A line an epoch: epoch and all logs, under a header. */
TERN_API tern_callback *tern_csv_log(const char *path, const tern_csv_log_opts *opts);
/* histograms: of all weights, every so many epochs, 0 = never. no_graph: leave the graph out. batches: write the loss
   every so many batches, 0 = never. */
typedef struct tern_tensorboard_opts { int histograms, no_graph, batches; } tern_tensorboard_opts;
/* Event files in folder/train and folder/validation, under Keras's tags ("epoch_loss"). */
TERN_API tern_callback *tern_tensorboard(const char *folder, const tern_tensorboard_opts *opts);
/* NULL is allowed. */
TERN_API void tern_callback_release(tern_callback *callback);

#ifdef __cplusplus
}
#endif
#endif
