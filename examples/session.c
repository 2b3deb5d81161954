/* Graph mode, as in TensorFlow 1: ops are written down first, a session runs what is asked for. */
#include <tern/tern.h>

int main(void) {
  TERN_SCOPE;
  tern_disable_eager_execution(); /* from here on ops go into this thread's default graph */
  tern_tensor *a = tern_f32(TERN_SHAPE(3), 1, 2, 3);
  tern_tensor *b = tern_f32(TERN_SHAPE(3), 4, 5, 6);
  tern_tensor *result = tern_add(a, b);
  tern_print(result); /* no value yet: its name, shape and dtype */

  tern_session *session = tern_session_new(NULL);
  tern_tensor *output;
  tern_session_run(session, NULL, 0, &result, 1, &output);
  tern_print_values(output); /* [5. 7. 9.] */

  tern_session_release(session);
  tern_enable_eager_execution();
  return tern_finish();
}
