/* Gradient rules against central differences, first and second derivatives, in float64 on the default device. */
#ifndef TERN_TESTS_CHECK_GRADIENT_H_
#define TERN_TESTS_CHECK_GRADIENT_H_
#include "support/values.h"

enum { GRADIENT_MAX_INPUTS = 6 };
/* What is checked: one tensor from float64 tensors. */
typedef tern_tensor *(*gradient_body)(tern_tensor *const *x, int n);
typedef struct gradient_case {
  const char *name;
  gradient_body body;
  int n;
  tern_shape shapes[GRADIENT_MAX_INPUTS];
  double zeros; /* share of the inputs' elements that is exactly 0, where the derivative must exist all the same */
} gradient_case;

/* The gradient of a weighted sum of body(x) with respect to every x, and that of a weighted sum of that gradient. */
void check_gradient(const gradient_case *c);
#endif
