/* Debugging by looking: every step of a small linear layer is an ordinary value that can be printed. */
#include <tern/tern.h>

int main(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_f32(TERN_SHAPE(2, 2), 1, 2, 3, 4);
  tern_tensor *weights =
      tern_variable(tern_f32(TERN_SHAPE(2, 2), 0.5, 0.2, 0.3, 0.4), &(tern_variable_opts){.name = "weights"});
  tern_tensor *bias = tern_f32(TERN_SHAPE(2), 0.1, 0.1);

  tern_print(x);
  tern_print(weights);
  tern_tensor *output = tern_matmul(x, weights);
  tern_print(output);
  tern_print(tern_add(output, bias)); /* the bias broadcasts over the rows */
  tern_print_values(tern_sum(output, TERN_AXES(1)));

  tern_release(weights);
  return tern_finish();
}
