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

#ifdef __cplusplus
}
#endif
#endif
