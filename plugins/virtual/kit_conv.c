/* Convolution of the reference evaluator (see kit.c). */
#include "../../backends/common/eval_conv.c"
