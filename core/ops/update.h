/* Update rules of optimisers as ops: one region each, from variable, gradient and slots to the new variable and slots.
   Not in the op table: only optimisers call them, with tern__run_into, and graphs hold them. */
#ifndef TERN_OPS_UPDATE_H_
#define TERN_OPS_UPDATE_H_
#include "ops/op.h"

/* What an update does beyond its plain form: attribute 0 of the call. */
enum {
  TERN__UPDATE_MOMENTUM = 1,
  TERN__UPDATE_NESTEROV = 2,
  TERN__UPDATE_AMSGRAD = 4,
  TERN__UPDATE_CENTERED = 8,
  TERN__UPDATE_DECAY = 16, /* a scalar: the share that the variable loses first */
  TERN__UPDATE_LIMIT = 32, /* a scalar: gradient elements are limited to +- it */
  TERN__UPDATE_SCALE = 64, /* a rank-0 tensor behind the slots, by which the gradient is multiplied */
  TERN__UPDATE_GUARD = 128 /* a rank-0 tensor behind these: while it is not finite, nothing changes */
};

extern const tern__op tern__op_sgd_update, tern__op_adam_update, tern__op_rmsprop_update, tern__op_adagrad_update,
    tern__op_lion_update;
#endif
