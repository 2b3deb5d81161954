/* For those who change variables with what they have computed or read themselves. */
#ifndef TERN_OPS_VARIABLE_H_
#define TERN_OPS_VARIABLE_H_
#include "tensor/tensor.h"

/* The variable takes over the value's memory: cannot fail, moves nothing. value: row-major, with the variable's shape,
   dtype and device, and nobody else's. Whoever holds the old memory keeps the old value. */
void tern__variable_take(tern_tensor *variable, tern_tensor *value);
#endif
