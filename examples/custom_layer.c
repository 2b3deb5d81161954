/* A layer of one's own, a pair of functions: here one that lets each feature through by as much as it learns to
   (x sigmoid(slope x), one slope a feature), in a net that learns the distance of points from the origin. */
#include <tern/tern.h>

static tern_rc build(void *self, tern_layer *layer, tern_shape input) {
  (void)self;
  const int64_t features = input.dim[input.rank - 1];
  return tern_layer_weight(layer, "slope", TERN_SHAPE(features), &(tern_weight_opts){.initializer = "ones"})
             ? TERN_OK
             : tern_error_code();
}

static tern_tensor *call(void *self, tern_layer *layer, tern_tensor *x, int training) {
  (void)self, (void)training;
  return tern_mul(x, tern_sigmoid(tern_mul(x, tern_layer_get_weight(layer, 0))));
}

static tern_layer *gate(void) {
  static const tern_layer_body body = {.name = "gate", .build = build, .call = call};
  return tern_layer_new(&body, NULL, NULL);
}

int main(void) {
  TERN_SCOPE;
  tern_set_seed(1);
  tern_tensor *x = tern_random_normal(TERN_SHAPE(512, 2), NULL);
  tern_tensor *y = tern_sqrt(tern_sum(tern_square(x), TERN_AXES_KEEP(1)));
  tern_model *net = tern_sequential(tern_dense(16, &(tern_dense_opts){.input_shape = TERN_SHAPE(2)}), gate(),
                                    tern_dense(16, NULL), gate(), tern_dense(1, NULL));
  tern_summary(net);
  tern_compile(net, &(tern_compile_opts){.optimizer_object = tern_adam(&(tern_adam_opts){.learning_rate = 0.01}),
                                         .loss = "mean_squared_error"});
  tern_fit(net, x, y, &(tern_fit_opts){.epochs = 20, .validation_split = 0.2});
  tern_tensor *points = tern_f32(TERN_SHAPE(3, 2), 0, 0, 1, 0, 3, -4);
  tern_print(tern_predict(net, points, &(tern_run_opts){.progress = TERN_PROGRESS_NONE}));
  tern_print(tern_layer_get_weight(tern_model_layer(net, 1), 0)); /* what its slopes became */
  tern_model_release(net);
  return tern_finish();
}
