/* Gradient rules of the activations, and the composites that they launch. */
#ifndef TERN_OPS_NN_GRAD_H_
#define TERN_OPS_NN_GRAD_H_
#include "ops/op.h"

void tern__grad_relu(const tern__grad *g, tern_tensor **din);
void tern__grad_sigmoid(const tern__grad *g, tern_tensor **din);
void tern__grad_silu(const tern__grad *g, tern_tensor **din);
void tern__grad_gelu(const tern__grad *g, tern_tensor **din);
void tern__grad_softmax(const tern__grad *g, tern_tensor **din);
void tern__grad_log_softmax(const tern__grad *g, tern_tensor **din);
/* y (dy - sum(dy y)) along axis: what comes to the operand of a softmax whose result is y. */
tern_tensor *tern__softmax_grad(tern_tensor *y, tern_tensor *dy, int axis);
#endif
