/* The smallest program: two tensors, their sum, printed. Try TERN_DEVICE=opencl:0 ./hello */
#include <tern/tern.h>

int main(void) {
  TERN_SCOPE; /* tensors made in this block end with it */
  tern_tensor *a = tern_f32(TERN_SHAPE(3), 1, 2, 3);
  tern_tensor *b = tern_f32(TERN_SHAPE(3), 4, 5, 6);
  tern_tensor *result = tern_add(a, b);
  tern_print(result);
  tern_print_values(result);
  return tern_finish(); /* 0, or 1 after printing the first error that nobody read */
}
