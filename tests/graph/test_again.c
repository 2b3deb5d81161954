/* What a training step keeps and for how long, by the bytes of its arena: an activation's result is computed again
   where its operand is kept anyway, weights are updated as soon as their gradients' operands are there, and sums of
   large arrays do not wait for the updates. The numbers are those of the same body run eagerly. */
#include "graph/both.h"
#include <stdlib.h>
#include <string.h>
#include <tern/tern.h>

enum { LAYERS = 6, ROWS = 256, WIDTH = 64, HIDDEN = 256, BYTES = 4 };

typedef enum activation { GELU, GELU_TANH, SILU, RELU } activation;

typedef struct net {
  activation activation;
  tern_tensor *weight[2 * LAYERS]; /* variables [WIDTH, HIDDEN], [HIDDEN, WIDTH] in turn */
  tern_tensor *bias[LAYERS];       /* [HIDDEN] */
  tern_tensor *all[3 * LAYERS];
  tern_optimizer *optimizer;
} net;

static tern_tensor *activate(const net *n, tern_tensor *x) {
  switch (n->activation) {
  case GELU: return tern_gelu(x, NULL);
  case GELU_TANH: return tern_gelu(x, &(tern_gelu_opts){.tanh_form = 1});
  case SILU: return tern_silu(x);
  default: return tern_relu(x);
  }
}

/* x = x + activation(x w + b) v, block after block; the loss is the mean of the squares. A step of all variables. */
static tern_rc step(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  net *n = self;
  tern_tape *tape = tern_tape_begin(NULL);
  tern_tensor *x = in[0], *d[3 * LAYERS] = {0};
  (void)n_in, (void)n_out;
  for (int l = 0; l < LAYERS; l++) {
    tern_tensor *inner = activate(n, tern_add(tern_matmul(x, n->weight[2 * l]), n->bias[l]));
    x = tern_add(x, tern_matmul(inner, n->weight[2 * l + 1]));
  }
  tern_tensor *loss = tern_mean(tern_square(x), NULL);
  tern_rc rc = tape && loss ? tern_tape_gradient(tape, loss, n->all, 3 * LAYERS, d) : tern_error_code();
  if (!rc) rc = tern_optimizer_apply(n->optimizer, d, n->all, 3 * LAYERS);
  out[0] = loss;
  return rc;
}

static void begin(net *n) {
  tern_set_seed(3);
  const tern_random_opts small = {.stddev = 0.1};
  n->optimizer = tern_sgd(&(tern_sgd_opts){.learning_rate = 0.1});
  for (int l = 0; l < LAYERS; l++) {
    n->all[3 * l] = n->weight[2 * l] = tern_variable(tern_random_normal(TERN_SHAPE(WIDTH, HIDDEN), &small), NULL);
    n->all[3 * l + 1] = n->weight[2 * l + 1] =
        tern_variable(tern_random_normal(TERN_SHAPE(HIDDEN, WIDTH), &small), NULL);
    n->all[3 * l + 2] = n->bias[l] = tern_variable(tern_random_normal(TERN_SHAPE(HIDDEN), &small), NULL);
  }
}

static void end(net *n) {
  for (int i = 0; i < 3 * LAYERS; i++) tern_release(n->all[i]);
  tern_optimizer_release(n->optimizer);
}

/* Three steps in both ways; the arena's bytes. text: tern_explain's, to be freed. */
static uint64_t steps(activation which, const char *name, char **text) {
  TERN_SCOPE;
  net eager = {.activation = which}, traced = {.activation = which};
  begin(&eager);
  begin(&traced);
  tern_tensor *x = tern_random_normal(TERN_SHAPE(ROWS, WIDTH), NULL);
  tern_function *f = tern_function_new(step, &traced, 1, 1, NULL);
  for (int k = 0; k < 3; k++) {
    tern_tensor *expected = NULL, *got = NULL;
    CHECK(!step(&eager, &x, 1, &expected, 1), "%s: %s", name, tern_error());
    CHECK(!tern_function_run(f, &x, 1, &got, 1), "%s: %s", name, tern_error());
    both_same(name, 0, got, expected, 0, 1e-5);
  }
  for (int i = 0; i < 3 * LAYERS; i++) both_same(name, 1 + i, traced.all[i], eager.all[i], 0, 1e-5);
  tern_function_info info = {0};
  tern_function_get_info(f, &info);
  *text = tern_explain(f);
  CHECK_NO_ERROR();
  tern_function_release(f);
  end(&eager);
  end(&traced);
  return info.arena_bytes;
}

/* Per block: x, and the activation's operand (relu: its result). Beside them, at the fullest moment, the last blocks'
   results, which do not wait long, and the gradient that is under way. */
static void activations(void) {
  static const char *const names[] = {"gelu", "gelu, tanh form", "silu", "relu"};
  const uint64_t hidden = ROWS * HIDDEN * BYTES, x = ROWS * WIDTH * BYTES;
  for (int which = GELU; which <= RELU; which++) {
    char *text = NULL;
    const uint64_t bytes = steps((activation)which, names[which], &text), most = LAYERS * (hidden + x) + 3 * hidden;
    CHECK(bytes <= most, "%s: %llu bytes, at most %llu expected:\n%s", names[which], (unsigned long long)bytes,
          (unsigned long long)most, text);
    if (!strncmp(tern_default_device(), "cpu", 3) && (which == GELU || which == SILU))
      CHECK(text && strstr(text, which == GELU ? "gelu+gelu_grad" : "silu+silu_grad"),
            "%s: computed again in a launch of its own:\n%s", names[which], text);
    free(text);
  }
}

/* ---- updates come early ---- */

enum { CHAIN = 10, SIDE = 96, EXAMPLES = 128 };

typedef struct chain {
  tern_tensor *weight[CHAIN]; /* [SIDE, SIDE] */
  tern_optimizer *optimizer;
} chain;

/* sigmoid(x w) again and again; each weight is read once more on the way back, in front of its update. */
static tern_rc chain_step(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  chain *c = self;
  tern_tape *tape = tern_tape_begin(NULL);
  tern_tensor *x = in[0], *d[CHAIN] = {0};
  (void)n_in, (void)n_out;
  for (int l = 0; l < CHAIN; l++) x = tern_sigmoid(tern_matmul(x, c->weight[l]));
  tern_tensor *loss = tern_mean(tern_square(x), NULL);
  tern_rc rc = tape && loss ? tern_tape_gradient(tape, loss, c->weight, CHAIN, d) : tern_error_code();
  if (!rc) rc = tern_optimizer_apply(c->optimizer, d, c->weight, CHAIN);
  out[0] = loss;
  return rc;
}

static void begin_chain(chain *c) {
  tern_set_seed(5);
  c->optimizer = tern_adam(NULL);
  for (int l = 0; l < CHAIN; l++)
    c->weight[l] = tern_variable(tern_random_normal(TERN_SHAPE(SIDE, SIDE), &(tern_random_opts){.stddev = 0.1}), NULL);
}

static void updates(void) {
  TERN_SCOPE;
  chain eager, traced;
  begin_chain(&eager);
  begin_chain(&traced);
  tern_tensor *x = tern_random_normal(TERN_SHAPE(EXAMPLES, SIDE), NULL);
  tern_function *f = tern_function_new(chain_step, &traced, 1, 1, NULL);
  for (int k = 0; k < 3; k++) {
    tern_tensor *expected = NULL, *got = NULL;
    CHECK(!chain_step(&eager, &x, 1, &expected, 1) && !tern_function_run(f, &x, 1, &got, 1), "%s", tern_error());
    both_same("the loss", k, got, expected, 0, 1e-5);
  }
  for (int l = 0; l < CHAIN; l++) both_same("a weight", l, traced.weight[l], eager.weight[l], 0, 1e-4);
  tern_function_info info = {0};
  tern_function_get_info(f, &info);
  char *text = tern_explain(f);
  /* what each layer gave, and a gradient with the next; updates at the end would keep the gradients of all layers, on
     a device that takes no update behind a product those of the weights */
  const uint64_t value = EXAMPLES * SIDE * BYTES, weight = SIDE * SIDE * BYTES;
  const bool behind = !strncmp(tern_default_device(), "cpu", 3);
  const uint64_t most = (CHAIN + 3) * value + (behind ? 0 : CHAIN * weight);
  CHECK(info.arena_bytes <= most, "%llu bytes, at most %llu expected:\n%s", (unsigned long long)info.arena_bytes,
        (unsigned long long)most, text);
  free(text);
  CHECK_NO_ERROR();
  tern_function_release(f);
  for (int l = 0; l < CHAIN; l++) tern_release(eager.weight[l]), tern_release(traced.weight[l]);
  tern_optimizer_release(eager.optimizer);
  tern_optimizer_release(traced.optimizer);
}

/* ---- sums of large arrays ---- */

typedef struct biased {
  tern_tensor *bias; /* [COLUMNS] */
  tern_optimizer *optimizer;
} biased;

enum { COLUMNS = 128 };

/* The sum over the rows of in[0] is the bias's gradient. */
static tern_rc bias_step(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  biased *b = self;
  (void)n_in, (void)n_out;
  tern_tensor *d = tern_sum(in[0], TERN_AXES(0));
  const tern_rc rc = d ? tern_optimizer_apply(b->optimizer, &d, &b->bias, 1) : tern_error_code();
  out[0] = b->bias;
  return rc;
}

static uint32_t launches_of(int64_t rows) {
  TERN_SCOPE;
  biased b = {tern_variable(tern_zeros(TERN_SHAPE(COLUMNS), TERN_F32), NULL), tern_sgd(NULL)};
  tern_function *f = tern_function_new(bias_step, &b, 1, 1, NULL);
  tern_function_info info = {0};
  tern_tensor *x = tern_ones(TERN_SHAPE(rows, COLUMNS), TERN_F32), *y = NULL;
  CHECK(!tern_function_run(f, &x, 1, &y, 1) && !tern_function_get_info(f, &info), "%s", tern_error());
  CHECK(y && tern_allclose(y, tern_full(TERN_SHAPE(COLUMNS), TERN_F32, -0.01 * (double)rows), 1e-5, 0), "%lld rows",
        (long long)rows);
  tern_function_release(f);
  tern_release(b.bias);
  tern_optimizer_release(b.optimizer);
  return info.launches;
}

static void sums(void) {
  CHECK(launches_of(64) == 1, "the sum of a small array is no part of the update");
  CHECK(launches_of(2048) == 2, "the sum of a large array waits for the update");
  CHECK_NO_ERROR();
}

static const test_case cases[] = {
    {"activations again", activations}, {"updates come early", updates}, {"sums of large arrays", sums}};
TEST_MAIN("again", cases)
