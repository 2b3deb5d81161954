/* Optimisers inside. A rule is one table entry; its update op is one region that takes the variable, its gradient and
   its slots and gives the new variable and slots; the object holds options, slots and the step count. */
#ifndef TERN_NN_OPTIMIZER_H_
#define TERN_NN_OPTIMIZER_H_
#include "ops/update.h"
#include <tern/train.h>

enum { TERN__MAX_SLOTS = 3, TERN__MAX_HYPER = 4, TERN__MAX_SCALARS = TERN__MAX_HYPER + 3 };

/* An update's scalars, in this order: the rate, the decay if any, hyper[0..n_hyper), the limit if any. They travel as
   host scalars behind the tensors, so that changing them compiles nothing, as many as TERN__MAX_ARGS leaves room for;
   the last ones, which no step changes, are attributes 1.. of the call otherwise. */
typedef struct tern__rule {
  const char *name;
  const tern__op *op;
  double learning_rate, weight_decay; /* the defaults */
  int n_hyper;
  struct {
    const char *name;
    uint32_t needs; /* only with these bits */
  } slot[TERN__MAX_SLOTS];
  /* What stands in for the learning rate in the step-th step (from 1); NULL: itself. */
  double (*rate)(const double *hyper, double learning_rate, int64_t step);
} tern__rule;

/* schedule.c: TERN_OK, or the error says what is wrong with it. */
tern_rc tern__schedule_check(const char *op, const tern_schedule *schedule);

/* optimizer.c: the fields that all options begin with, and the object. */
typedef struct tern__optimizer_opts {
  TERN_OPTIMIZER_OPTS;
} tern__optimizer_opts;
/* Owned; NULL with the error set. hyper: n_hyper of the rule; initial: what slots begin with. */
tern_optimizer *tern__optimizer_new(const tern__rule *rule, const tern__optimizer_opts *opts, uint32_t bits,
                                    const double *hyper, double initial);
/* What an optimiser was made of: tern__optimizer_new makes one like it. opts.name and what opts.schedule points to
   belong to the optimiser. */
typedef struct tern__optimizer_plan {
  const tern__rule *rule;
  tern__optimizer_opts opts;
  uint32_t bits;
  double hyper[TERN__MAX_HYPER], initial;
} tern__optimizer_plan;
void tern__optimizer_plan_of(const tern_optimizer *o, tern__optimizer_plan *plan);
/* The rule of that name ("adam"); NULL: there is none (no error is set). */
const tern__rule *tern__rule_named(const char *name);
/* tern_optimizer_apply, in which nothing but the count of steps changes while guard, rank 0, is not finite. */
tern_rc tern__optimizer_apply_guarded(tern_optimizer *o, tern_tensor *const *gradients, tern_tensor *const *variables,
                                      int n, tern_tensor *guard);
/* An option: 0 counts as `otherwise`, -0.0 as 0. */
double tern__option_or(double value, double otherwise);

/* clip.c: limit / max(norm of these gradients, limit), rank 0, borrowed from the scope. */
tern_tensor *tern__clip_scale(const char *op, tern_tensor *const *gradients, int n, double limit, tern_tensor **norm);
#endif
