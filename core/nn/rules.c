/* The rules and their constructors. One table entry an optimiser; names, defaults and formulas are Keras 3's. */
#include "base/thread.h"
#include "nn/optimizer.h"
#include <math.h>

/* Adam's bias corrections, folded into the rate (Kingma and Ba, 2015, end of section 2): hyper = 1 - beta1, 1 -
   beta2. */
static double adam_rate(const double *hyper, double rate, int64_t step) {
  const double t = (double)step;
  return rate * sqrt(-expm1(t * log1p(-hyper[1]))) / -expm1(t * log1p(-hyper[0]));
}

static const tern__rule sgd = {.name = "sgd",
                               .op = &tern__op_sgd_update,
                               .learning_rate = 0.01,
                               .n_hyper = 1, /* momentum */
                               .slot = {{"momentum", TERN__UPDATE_MOMENTUM}}};
static const tern__rule adam = {.name = "adam",
                                .op = &tern__op_adam_update,
                                .learning_rate = 0.001,
                                .n_hyper = 3, /* 1 - beta1, 1 - beta2, epsilon */
                                .slot = {{"momentum", 0}, {"velocity", 0}, {"velocity_hat", TERN__UPDATE_AMSGRAD}},
                                .rate = adam_rate};
static const tern__rule adamw = {.name = "adamw",
                                 .op = &tern__op_adam_update,
                                 .learning_rate = 0.001,
                                 .weight_decay = 0.004,
                                 .n_hyper = 3,
                                 .slot = {{"momentum", 0}, {"velocity", 0}, {"velocity_hat", TERN__UPDATE_AMSGRAD}},
                                 .rate = adam_rate};
static const tern__rule rmsprop = {
    .name = "rmsprop",
    .op = &tern__op_rmsprop_update,
    .learning_rate = 0.001,
    .n_hyper = 4, /* rho, 1 - rho, epsilon, momentum */
    .slot = {{"velocity", 0}, {"momentum", TERN__UPDATE_MOMENTUM}, {"average_gradient", TERN__UPDATE_CENTERED}}};
static const tern__rule adagrad = {.name = "adagrad",
                                   .op = &tern__op_adagrad_update,
                                   .learning_rate = 0.001,
                                   .n_hyper = 1, /* epsilon */
                                   .slot = {{"accumulator", 0}}};
static const tern__rule lion = {.name = "lion",
                                .op = &tern__op_lion_update,
                                .learning_rate = 0.001,
                                .n_hyper = 4, /* beta1, 1 - beta1, beta2, 1 - beta2 */
                                .slot = {{"momentum", 0}}};

const tern__rule *tern__rule_named(const char *name) {
  static const tern__rule *const rules[] = {&sgd, &adam, &adamw, &rmsprop, &adagrad, &lion};
  for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
    if (!strcmp(rules[i]->name, name)) return rules[i];
  return NULL;
}

/* Whether an option lies in [low, high], or in [low, high) when open. */
static bool within(const char *name, const char *option, double value, double high, bool open) {
  if (value >= 0 && (open ? value < high : value <= high) && isfinite(value)) return true;
  if (isinf(high))
    tern__fail(TERN_E_ARG, "%s: %s is %g; it must be 0 or more", name, option, value);
  else
    tern__fail(TERN_E_ARG, "%s: %s is %g; it must be from 0 to %s%g", name, option, value, open ? "below " : "", high);
  return false;
}

/* The fields that every options struct begins with. */
static tern__optimizer_opts common(const void *opts) {
  tern__optimizer_opts c = {0};
  if (opts) memcpy(&c, opts, sizeof c);
  return c;
}

tern_optimizer *tern_sgd(const tern_sgd_opts *opts) {
  const tern__optimizer_opts c = common(opts);
  const double momentum = opts ? tern__option_or(opts->momentum, 0) : 0;
  if (!within("sgd", "momentum", momentum, 1, false)) return NULL;
  uint32_t bits = momentum > 0 ? TERN__UPDATE_MOMENTUM : 0;
  if (bits && opts->nesterov) bits |= TERN__UPDATE_NESTEROV;
  return tern__optimizer_new(&sgd, &c, bits, &momentum, 0);
}

static tern_optimizer *adam_of(const tern__rule *rule, const tern_adam_opts *opts) {
  const tern_adam_opts o = opts ? *opts : (tern_adam_opts){0};
  const tern__optimizer_opts c = common(opts);
  const double beta1 = tern__option_or(o.beta1, 0.9), beta2 = tern__option_or(o.beta2, 0.999),
               epsilon = tern__option_or(o.epsilon, 1e-7);
  if (!within(rule->name, "beta1", beta1, 1, true) || !within(rule->name, "beta2", beta2, 1, true) ||
      !within(rule->name, "epsilon", epsilon, INFINITY, true))
    return NULL;
  const double hyper[] = {1 - beta1, 1 - beta2, epsilon};
  return tern__optimizer_new(rule, &c, o.amsgrad ? TERN__UPDATE_AMSGRAD : 0, hyper, 0);
}

tern_optimizer *tern_adam(const tern_adam_opts *opts) { return adam_of(&adam, opts); }
tern_optimizer *tern_adamw(const tern_adam_opts *opts) { return adam_of(&adamw, opts); }

tern_optimizer *tern_rmsprop(const tern_rmsprop_opts *opts) {
  const tern_rmsprop_opts o = opts ? *opts : (tern_rmsprop_opts){0};
  const tern__optimizer_opts c = common(opts);
  const double rho = tern__option_or(o.rho, 0.9), momentum = tern__option_or(o.momentum, 0),
               epsilon = tern__option_or(o.epsilon, 1e-7);
  if (!within("rmsprop", "rho", rho, 1, false) || !within("rmsprop", "momentum", momentum, 1, false) ||
      !within("rmsprop", "epsilon", epsilon, INFINITY, true))
    return NULL;
  const double hyper[] = {rho, 1 - rho, epsilon, momentum};
  const uint32_t bits = (momentum > 0 ? TERN__UPDATE_MOMENTUM : 0u) | (o.centered ? TERN__UPDATE_CENTERED : 0u);
  return tern__optimizer_new(&rmsprop, &c, bits, hyper, 0);
}

tern_optimizer *tern_adagrad(const tern_adagrad_opts *opts) {
  const tern_adagrad_opts o = opts ? *opts : (tern_adagrad_opts){0};
  const tern__optimizer_opts c = common(opts);
  const double initial = tern__option_or(o.initial_accumulator, 0.1), epsilon = tern__option_or(o.epsilon, 1e-7);
  if (!within("adagrad", "initial_accumulator", initial, INFINITY, true) ||
      !within("adagrad", "epsilon", epsilon, INFINITY, true))
    return NULL;
  return tern__optimizer_new(&adagrad, &c, 0, &epsilon, initial);
}

tern_optimizer *tern_lion(const tern_lion_opts *opts) {
  const tern_lion_opts o = opts ? *opts : (tern_lion_opts){0};
  const tern__optimizer_opts c = common(opts);
  const double beta1 = tern__option_or(o.beta1, 0.9), beta2 = tern__option_or(o.beta2, 0.99);
  if (!within("lion", "beta1", beta1, 1, false) || !within("lion", "beta2", beta2, 1, false)) return NULL;
  const double hyper[] = {beta1, 1 - beta1, beta2, 1 - beta2};
  return tern__optimizer_new(&lion, &c, 0, hyper, 0);
}
