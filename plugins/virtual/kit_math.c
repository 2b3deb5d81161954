/* The element arithmetic of the reference evaluator (see kit.c). */
#include "../../backends/common/eval_math.c"
