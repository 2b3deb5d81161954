/* Gradients of the neural-network ops and losses, and of their gradients, against finite differences. */
#include "tape/gradients.h"

static void nn(void) { gradient_check_all("neural-network ops", gradient_nn_cases); }
static void losses(void) { gradient_check_all("losses", gradient_loss_cases); }

static const test_case cases[] = {{"neural-network ops", nn}, {"losses", losses}};
TEST_MAIN("gradients of neural-network ops", cases)
