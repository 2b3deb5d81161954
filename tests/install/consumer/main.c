/* The guide's first program, as somebody who installed tern builds it. */
#include <tern/tern.h>

int main(void) {
  TERN_SCOPE;
  tern_tensor *a = tern_f32(TERN_SHAPE(3), 1, 2, 3);
  tern_tensor *b = tern_f32(TERN_SHAPE(3), 4, 5, 6);
  tern_print(tern_add(a, b));
  return tern_finish();
}
