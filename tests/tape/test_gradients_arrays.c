/* Gradients of reductions, scans and products, and of what moves elements, against finite differences. */
#include "tape/gradients.h"

static void reduce(void) { gradient_check_all("reductions, scans, products", gradient_reduce_cases); }
static void arrange(void) { gradient_check_all("arrangements", gradient_arrange_cases); }

static const test_case cases[] = {{"reductions, scans, products", reduce}, {"arrangements", arrange}};
TEST_MAIN("gradients of arrays", cases)
