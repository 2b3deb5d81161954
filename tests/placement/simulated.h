/* For tests with simulated devices: the clock of the virtual plugin, a case list run in a child process with other
   devices, and the bodies that several tests compile. */
#ifndef TERN_TESTS_PLACEMENT_SIMULATED_H_
#define TERN_TESTS_PLACEMENT_SIMULATED_H_
#include "../../plugins/virtual/virtual.h"
#include "support/values.h"

/* The clock of a simulated device, by its number in TERN_VIRTUAL_DEVICES. */
virtual_clock simulated_clock(uint32_t device);

#define BODY(name) static tern_rc name(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out)
#define UNUSED (void)self, (void)in, (void)n_in, (void)out, (void)n_out
/* out[0] = y, and the code of a body. */
tern_rc simulated_one(tern_tensor *y, tern_tensor **out);

/* A function for the tests: its body and operands. Parameters are made with it. */
typedef struct simulated_work {
  tern_tensor *w[8], *variable[8]; /* references */
  int n_variables;
  tern_optimizer *optimizer;
} simulated_work;
/* Weights of a small perceptron, four variables, with an optimiser. */
void simulated_work_make(simulated_work *w);
void simulated_work_end(simulated_work *w);
/* in[0]: 8 x 16, out[0]: 8 x 4, from constants. */
tern_rc simulated_mlp(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out);
/* One step of training the variables: in[0] 8 x 16, in[1] 8 x 4; out[0] the loss. */
tern_rc simulated_train(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out);

/* A tensor of numbers that differ, about 1 in size, on the default device. */
tern_tensor *simulated_numbers(tern_shape shape, uint64_t seed);
/* Run this program's case list `child` with that environment; what it wrote is printed when it fails. */
bool simulated_child(const char *child, const char *const *environment);
#endif
