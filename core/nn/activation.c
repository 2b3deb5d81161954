/* Keras's activations by name. */
#include "base/thread.h"
#include "nn/layer.h"
#include "tensor/tensor.h"
#include <stdio.h>
#include <string.h>

static tern_tensor *linear(tern_tensor *x) { return x ? tern__itself(x) : NULL; }
static tern_tensor *scaled(tern_tensor *x, double factor) { return tern_mul(x, tern_scalar(factor)); }
static tern_tensor *zero(void) { return tern_scalar(0); }
/* At the kinks gradients are TensorFlow's: relu6's is 0 at both, leaky_relu's the left one, elu's and selu's the right
   one. */
static tern_tensor *relu6(tern_tensor *x) {
  return tern_where(tern_greater_equal(x, tern_scalar(6)), tern_scalar(6), tern_relu(x));
}
static tern_tensor *leaky_relu(tern_tensor *x) { return tern_where(tern_greater(x, zero()), x, scaled(x, 0.2)); }
static tern_tensor *elu(tern_tensor *x) {
  return tern_where(tern_less(x, zero()), tern_expm1(tern_minimum(x, zero())), x);
}
/* Klambauer et al., 2017 */
static tern_tensor *selu(tern_tensor *x) {
  const double scale = 1.0507009873554804934193349852946, alpha = 1.6732632423543772848170429916717;
  return tern_where(tern_less(x, zero()), scaled(tern_expm1(tern_minimum(x, zero())), scale * alpha), scaled(x, scale));
}
static tern_tensor *softplus(tern_tensor *x) { return tern_logaddexp(x, tern_scalar(0)); }
static tern_tensor *softsign(tern_tensor *x) { return tern_div(x, tern_add(tern_abs(x), tern_scalar(1))); }
static tern_tensor *hard_sigmoid(tern_tensor *x) {
  return tern_div(relu6(tern_add(x, tern_scalar(3))), tern_scalar(6));
}
static tern_tensor *hard_silu(tern_tensor *x) { return tern_mul(x, hard_sigmoid(x)); }
static tern_tensor *gelu(tern_tensor *x) { return tern_gelu(x, NULL); }
static tern_tensor *gelu_tanh(tern_tensor *x) { return tern_gelu(x, &(tern_gelu_opts){.tanh_form = 1}); }
static tern_tensor *mish(tern_tensor *x) { return tern_mul(x, tern_tanh(softplus(x))); }
static tern_tensor *softmax(tern_tensor *x) { return tern_softmax(x, -1); }
static tern_tensor *log_softmax(tern_tensor *x) { return tern_log_softmax(x, -1); }

static const struct {
  const char *name;
  tern_tensor *(*f)(tern_tensor *);
} table[] = {{"linear", linear},
             {"relu", tern_relu},
             {"relu6", relu6},
             {"leaky_relu", leaky_relu},
             {"elu", elu},
             {"selu", selu},
             {"celu", elu},
             {"softplus", softplus},
             {"softsign", softsign},
             {"sigmoid", tern_sigmoid},
             {"hard_sigmoid", hard_sigmoid},
             {"tanh", tern_tanh},
             {"silu", tern_silu},
             {"swish", tern_silu},
             {"hard_silu", hard_silu},
             {"gelu", gelu},
             {"gelu_tanh", gelu_tanh},
             {"mish", mish},
             {"exponential", tern_exp},
             {"softmax", softmax},
             {"log_softmax", log_softmax}};
enum { N_TABLE = sizeof table / sizeof *table };

tern_rc tern__activation_check(const char *name) {
  for (int i = 0; i < N_TABLE; i++)
    if (!name || !strcmp(name, table[i].name)) return TERN_OK;
  char list[400] = "";
  for (int k = 0, n = 0; k < N_TABLE; k++)
    n += snprintf(list + n, sizeof list - (size_t)n, "%s%s", k ? ", " : "", table[k].name);
  return tern__fail(TERN_E_ARG, "there is no activation \"%s\"; there are: %s", name, list);
}

tern_tensor *tern_activate(const char *name, tern_tensor *x) {
  if (tern__activation_check(name)) return NULL;
  for (int i = 0; i < N_TABLE && name; i++)
    if (!strcmp(name, table[i].name)) return table[i].f(x);
  return linear(x);
}
