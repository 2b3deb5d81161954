/* A linear model trained by hand: a tape records the forward pass, gives the gradients of the loss, and Adam changes
   the variables. The data are two points, so that every number can be followed. */
#include <stdio.h>
#include <tern/tern.h>

/* y = x weights + bias */
typedef struct linear {
  tern_tensor *weights, *bias;
} linear;

static tern_tensor *predict(const linear *m, tern_tensor *x) { return tern_add(tern_matmul(x, m->weights), m->bias); }

static tern_tensor *mean_squared_error(tern_tensor *y, tern_tensor *prediction) {
  return tern_mean(tern_square(tern_sub(y, prediction)), NULL);
}

/* One step of training; the loss before it. inspect: print the gradients as well. */
static double train_step(const linear *m, tern_optimizer *optimizer, tern_tensor *x, tern_tensor *y, int inspect) {
  TERN_SCOPE; /* what the step makes ends with it */
  tern_tensor *const variables[] = {m->weights, m->bias};
  tern_tensor *gradients[2];
  tern_tape *tape = tern_tape_begin(NULL);
  tern_tensor *loss = mean_squared_error(y, predict(m, x));
  tern_tape_gradient(tape, loss, variables, 2, gradients);
  if (inspect) {
    printf("gradient of the weights: ");
    tern_print(gradients[0]);
    printf("gradient of the bias: ");
    tern_print(gradients[1]);
  }
  tern_optimizer_apply(optimizer, gradients, variables, 2);
  return tern_item(loss);
}

int main(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_f32(TERN_SHAPE(2, 2), 1, 2, 3, 4), *y = tern_f32(TERN_SHAPE(2, 1), 0, 1);
  tern_set_seed(1);
  linear model = {.weights = tern_variable(tern_random_normal(TERN_SHAPE(2, 1), NULL), NULL),
                  .bias = tern_variable(tern_zeros(TERN_SHAPE(1), TERN_F32), NULL)};
  const tern_adam_opts adam = {.learning_rate = 0.01};
  tern_optimizer *optimizer = tern_adam(&adam);
  for (int epoch = 0; epoch < 100; epoch++) {
    const double loss = train_step(&model, optimizer, x, y, epoch == 0);
    if (epoch % 20 == 0) printf("Epoch %d, Loss: %.4f\n", epoch, loss);
  }
  printf("predictions: ");
  tern_print(predict(&model, x));
  tern_optimizer_release(optimizer);
  tern_release(model.weights);
  tern_release(model.bias);
  return tern_finish();
}
