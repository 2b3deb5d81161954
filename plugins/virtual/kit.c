/* The reference evaluator of the plugin kit, compiled into this plugin. */
#include "../../backends/common/eval.c"
