/* The region checks of the reference evaluator (see kit.c). */
#include "../../backends/common/nest_check.c"
