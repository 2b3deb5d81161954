/* A small net as in Keras: layers, compile, fit, predict, weights. */
#include <tern/tern.h>

int main(void) {
  TERN_SCOPE;
  tern_set_seed(1);
  tern_tensor *x = tern_f32(TERN_SHAPE(3, 2), 1, 2, 3, 4, 5, 6);
  tern_tensor *y = tern_f32(TERN_SHAPE(3, 1), 0, 1, 0);
  tern_model *net =
      tern_sequential(tern_dense(4, &(tern_dense_opts){.activation = "relu", .input_shape = TERN_SHAPE(2)}),
                      tern_dense(1, &(tern_dense_opts){.activation = "sigmoid"}));
  tern_summary(net);
  tern_compile(
      net, &(tern_compile_opts){.optimizer = "adam", .loss = "binary_crossentropy", .metrics = TERN_NAMES("accuracy")});
  tern_fit(net, x, y, &(tern_fit_opts){.epochs = 10});
  tern_print(tern_predict(net, x, &(tern_run_opts){.progress = TERN_PROGRESS_NONE}));
  tern_tensor *weights[4];
  const int n = tern_get_weights(net, weights, 4);
  for (int i = 0; i < n; i++) tern_print(weights[i]);
  tern_model_release(net);
  return tern_finish();
}
