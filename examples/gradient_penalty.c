/* Second derivatives by nested tapes: a small critic is trained to tell two clouds of points apart while the length of
   its gradient with respect to its input is held near 1 (the gradient penalty of Gulrajani et al., 2017). The inner
   tape gives that gradient; the outer one differentiates through it. */
#include <stdio.h>
#include <tern/tern.h>

enum { POINTS = 64, HIDDEN = 32 };

typedef struct critic {
  tern_tensor *variables[4]; /* hidden weights and bias, output weights and bias */
} critic;

static tern_tensor *score(const critic *c, tern_tensor *x) {
  tern_tensor *h = tern_tanh(tern_add(tern_matmul(x, c->variables[0]), c->variables[1]));
  return tern_add(tern_matmul(h, c->variables[2]), c->variables[3]);
}

/* mean((|d score / d x| - 1)^2), as something that can be differentiated again. *length: the mean length. */
static tern_tensor *penalty(const critic *c, tern_tensor *x, tern_tensor **length) {
  tern_tensor *gradient;
  tern_tape *inner = tern_tape_begin(&(tern_tape_opts){.watch_nothing = 1});
  tern_tape_watch(inner, x);
  tern_tape_gradient(inner, score(c, x), &x, 1, &gradient);
  tern_tensor *norms = tern_norm(gradient, &(tern_norm_opts){.axes = (const int[]){1}, .n_axes = 1});
  *length = tern_mean(norms, NULL);
  return tern_mean(tern_square(tern_sub(norms, tern_scalar(1))), NULL);
}

/* Points around (at, at). */
static tern_tensor *cloud(double at) {
  return tern_random_normal(TERN_SHAPE(POINTS, 2), &(tern_random_opts){.mean = at, .stddev = 0.5});
}

int main(void) {
  TERN_SCOPE;
  tern_set_seed(3);
  critic c = {{tern_variable(tern_random_normal(TERN_SHAPE(2, HIDDEN), &(tern_random_opts){.stddev = 0.7}), NULL),
               tern_variable(tern_zeros(TERN_SHAPE(HIDDEN), TERN_F32), NULL),
               tern_variable(tern_random_normal(TERN_SHAPE(HIDDEN, 1), &(tern_random_opts){.stddev = 0.18}), NULL),
               tern_variable(tern_zeros(TERN_SHAPE(1), TERN_F32), NULL)}};
  tern_optimizer *optimizer = tern_adam(&(tern_adam_opts){.learning_rate = 0.01});
  for (int step = 0; step <= 200; step++) {
    TERN_SCOPE;
    tern_tensor *real = cloud(1), *fake = cloud(-1), *gradients[4], *length;
    tern_tensor *between = tern_mul(tern_add(real, fake), tern_scalar(0.5));
    tern_tape *tape = tern_tape_begin(NULL);
    tern_tensor *gap = tern_sub(tern_mean(score(&c, fake), NULL), tern_mean(score(&c, real), NULL));
    tern_tensor *loss = tern_add(gap, tern_mul(penalty(&c, between, &length), tern_scalar(10)));
    tern_tape_gradient(tape, loss, c.variables, 4, gradients);
    tern_optimizer_apply(optimizer, gradients, c.variables, 4);
    if (step % 50 == 0)
      printf("step %3d: loss %.3f, scores apart by %.3f, length of the input's gradient %.3f\n", step, tern_item(loss),
             -tern_item(gap), tern_item(length));
  }
  tern_optimizer_release(optimizer);
  for (int i = 0; i < 4; i++) tern_release(c.variables[i]);
  return tern_finish();
}
