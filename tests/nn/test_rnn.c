/* SimpleRNN, LSTM, GRU and Bidirectional against Keras 3 (fixtures/rnn.bin), and what is wrong with them. */
#include "nn/layer_fixture.h"
#include "support/values.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const activations[] = {NULL, "linear", "relu", "tanh", "sigmoid", "softsign"};
static const char *const merges[] = {NULL, "concat", "sum", "mul", "ave"};

static tern_layer *layer_of(const fixture *f) {
  const tern_rnn_opts o = {.return_sequences = (int)fixture_attr(f, "sequences", 0),
                           .backwards = (int)fixture_attr(f, "backwards", 0),
                           .stateful = (int)fixture_attr(f, "stateful", 0),
                           .no_bias = (int)fixture_attr(f, "no_bias", 0),
                           .reset_before = (int)fixture_attr(f, "reset_before", 0),
                           .activation = activations[fixture_attr(f, "activation", 0)],
                           .recurrent_activation = activations[fixture_attr(f, "recurrent", 0)]};
  const char *merge = merges[fixture_attr(f, "merge", 0)];
  tern_layer *l = !strcmp(f->op, "lstm")  ? tern_lstm(4, &o)
                  : !strcmp(f->op, "gru") ? tern_gru(4, &o)
                                          : tern_simple_rnn(4, &o);
  return merge ? tern_bidirectional(l, &(tern_bidirectional_opts){.merge = merge}) : l;
}

static void test_keras(void) { layer_fixture_check(TERN_FIXTURES "/rnn.bin", layer_of, 12, 3); }

static tern_tensor *numbers(tern_shape shape) { return tern_random_normal(shape, &(tern_random_opts){.seed = 3}); }

/* The forget gate's bias begins with 1, or not. */
static void test_forget_bias(void) {
  TERN_SCOPE;
  for (int no = 0; no < 2; no++) {
    tern_layer *l = tern_lstm(2, &(tern_rnn_opts){.no_forget_bias = no});
    CHECK(tern_layer_call(l, numbers(TERN_SHAPE(1, 2, 3)), NULL) != NULL, "%s", tern_error());
    const double bias[2][8] = {{0, 0, 1, 1, 0, 0, 0, 0}, {0}};
    CHECK_VALUES(tern_layer_get_weight(l, 2), TERN_SHAPE(8), TERN_F32, bias[no], 0, 0, "bias");
    tern_layer_release(l);
  }
}

/* The two are named after the one that was given. */
static void test_names(void) {
  TERN_SCOPE;
  tern_layer *l = tern_bidirectional(tern_gru(2, &(tern_rnn_opts){.name = "both"}), NULL);
  tern_tensor *v[6] = {0};
  CHECK(tern_layer_call(l, numbers(TERN_SHAPE(1, 2, 3)), NULL) != NULL, "%s", tern_error());
  CHECK(tern_layer_variables(l, v, 6) == 6, "%s", tern_error());
  CHECK(!strcmp(tern_variable_name(v[0]), "bidirectional/forward_both/kernel"), "%s", tern_variable_name(v[0]));
  CHECK(!strcmp(tern_variable_name(v[5]), "bidirectional/backward_both/bias"), "%s", tern_variable_name(v[5]));
  tern_layer_release(l);
}

/* Only in training; one mask for all steps: with the identity as kernel and no recurrence a column of x is left out in
   all steps of an example, or in none. */
static void test_dropout(void) {
  TERN_SCOPE;
  enum { BATCH = 20, STEPS = 6, UNITS = 5 };
  tern_layer *l = tern_simple_rnn(UNITS, &(tern_rnn_opts){.dropout = 0.5,
                                                          .return_sequences = 1,
                                                          .activation = "linear",
                                                          .kernel_initializer = "identity",
                                                          .recurrent_initializer = "zeros"});
  tern_tensor *x = tern_ones(TERN_SHAPE(BATCH, STEPS, UNITS), TERN_F32);
  CHECK(tern_allclose(tern_layer_call(l, x, NULL), x, 0, 0) == 1, "inference drops");
  double *y = test_values(tern_layer_call(l, x, &(tern_layer_call_opts){.training = 1}));
  int left = 0, torn = 0;
  for (int b = 0; b < BATCH && y; b++)
    for (int u = 0; u < UNITS; u++) {
      const double *first = y + b * STEPS * UNITS + u;
      left += *first == 2;
      for (int t = 0; t < STEPS; t++) torn += first[t * UNITS] != *first || (*first != 0 && *first != 2);
    }
  CHECK(left > 25 && left < 75 && !torn, "%d of 100 columns left, %d differ from step to step", left, torn);
  free(y);
  tern_layer_release(l);
}

/* Recurrent dropout takes the custom gradient and the tape alike: gradients against differences. */
static void test_recurrent_dropout(void) {
  TERN_SCOPE;
  tern_layer *const layers[] = {tern_simple_rnn(3, &(tern_rnn_opts){.recurrent_dropout = 0.4}),
                                tern_lstm(3, &(tern_rnn_opts){.recurrent_dropout = 0.4}),
                                tern_gru(3, &(tern_rnn_opts){.recurrent_dropout = 0.4}),
                                tern_gru(3, &(tern_rnn_opts){.recurrent_dropout = 0.4, .reset_before = 1})};
  const bool wide = !strncmp(tern_default_device(), "cpu", 3);
  for (int i = 0; i < 4; i++) {
    tern_tensor *x = tern_cast(numbers(TERN_SHAPE(2, 3, 2)), wide ? TERN_F64 : TERN_F32), *dx, *weight;
    const tern_layer_call_opts training = {.training = 1};
    CHECK(tern_layer_call(layers[i], x, NULL) != NULL, "%s", tern_error());
    weight = tern_layer_get_weight(layers[i], 1);
    tern_set_seed(5);
    tern_tape *tape = tern_tape_begin(NULL);
    tern_tensor *loss = tern_sum(tern_layer_call(layers[i], x, &training), NULL);
    CHECK(tern_tape_gradient(tape, loss, &weight, 1, &dx) == TERN_OK, "%s", tern_error());
    tern_tensor *d = tern_cast(numbers(tern_shape_get(weight)), tern_dtype_get(weight));
    const double h = wide ? 1e-5 : 1e-2, slope = tern_item(tern_sum(tern_mul(dx, d), NULL));
    double value[2];
    for (int k = 0; k < 2; k++) {
      CHECK(tern_assign_add(weight, tern_mul(d, tern_scalar(k ? -2 * h : h))) == TERN_OK, "%s", tern_error());
      tern_set_seed(5);
      value[k] = tern_item(tern_sum(tern_layer_call(layers[i], x, &training), NULL));
    }
    const double seen = (value[0] - value[1]) / (2 * h);
    CHECK(fabs(slope - seen) < (wide ? 1e-7 : 1e-2), "layer %d: the slope is %g, the gradient gives %g", i, seen,
          slope);
    tern_layer_release(layers[i]);
  }
}

/* The derivative of the sum of squares of d y / d x, against differences. */
static void test_second_derivative(void) {
  TERN_SCOPE;
  if (strncmp(tern_default_device(), "cpu", 3)) return;
  tern_layer *l = tern_lstm(2, NULL);
  tern_tensor *x = tern_cast(numbers(TERN_SHAPE(1, 3, 2)), TERN_F64), *d, *dd, *at[2];
  double value[2];
  const double h = 1e-5;
  CHECK(tern_layer_call(l, x, NULL) != NULL, "%s", tern_error());
  tern_tape *outer = tern_tape_begin(NULL);
  CHECK(tern_tape_watch(outer, x) == TERN_OK, "%s", tern_error());
  tern_tape *tape = tern_tape_begin(NULL);
  CHECK(tern_tape_watch(tape, x) == TERN_OK, "%s", tern_error());
  tern_tensor *y = tern_sum(tern_layer_call(l, x, NULL), NULL);
  CHECK(tern_tape_gradient(tape, y, &x, 1, &d) == TERN_OK, "%s", tern_error());
  CHECK(tern_tape_gradient(outer, tern_sum(tern_square(d), NULL), &x, 1, &dd) == TERN_OK, "%s", tern_error());
  tern_tensor *way = tern_cast(tern_random_normal(TERN_SHAPE(1, 3, 2), &(tern_random_opts){.seed = 9}), TERN_F64);
  for (int k = 0; k < 2; k++) {
    at[k] = tern_add(x, tern_mul(way, tern_scalar(k ? -h : h)));
    tape = tern_tape_begin(NULL);
    CHECK(tern_tape_watch(tape, at[k]) == TERN_OK, "%s", tern_error());
    y = tern_sum(tern_layer_call(l, at[k], NULL), NULL);
    CHECK(tern_tape_gradient(tape, y, &at[k], 1, &d) == TERN_OK, "%s", tern_error());
    value[k] = tern_item(tern_sum(tern_square(d), NULL));
  }
  const double slope = tern_item(tern_sum(tern_mul(dd, way), NULL)), seen = (value[0] - value[1]) / (2 * h);
  CHECK(fabs(slope - seen) < 1e-6, "the slope is %g, the second derivative gives %g", seen, slope);
  tern_layer_release(l);
}

static void test_errors(void) {
  TERN_SCOPE;
  tern_tensor *x = numbers(TERN_SHAPE(2, 3, 4));
  CHECK(!tern_lstm(0, NULL), "units 0");
  CHECK_ERROR(TERN_E_ARG, "units is 0");
  CHECK(!tern_gru(4, &(tern_rnn_opts){.activation = "tank"}), "tank");
  CHECK_ERROR(TERN_E_ARG, "there is no activation \"tank\"");
  CHECK(!tern_gru(4, &(tern_rnn_opts){.recurrent_dropout = 1}), "rate");
  CHECK_ERROR(TERN_E_ARG, "recurrent_dropout is 1");
  tern_layer *l = tern_lstm(4, &(tern_rnn_opts){.name = "memory", .stateful = 1});
  CHECK(!tern_layer_call(l, tern_index(x, 0, 0), NULL), "rank 2");
  CHECK_ERROR(TERN_E_ARG, "layer memory (LSTM): its input has rank 2");
  CHECK(tern_layer_call(l, x, NULL) != NULL, "%s", tern_error());
  CHECK(!tern_layer_call(l, numbers(TERN_SHAPE(3, 3, 4)), NULL), "batch 3");
  CHECK_ERROR(TERN_E_ARG,
              "layer memory (LSTM): it is stateful and keeps the states of 2 examples, but this batch has 3");
  CHECK(!tern_layer_call(l, numbers(TERN_SHAPE(2, 3, 5)), NULL), "features");
  CHECK_ERROR(TERN_E_ARG, "has 5 features; it was built for 4");
  CHECK(!tern_layer_call(l, x, &(tern_layer_call_opts){.mask = tern_ones(TERN_SHAPE(2), TERN_BOOL)}), "mask");
  CHECK_ERROR(TERN_E_ARG, "its mask has rank 1");
  CHECK(!tern_bidirectional(l, NULL), "built");
  CHECK_ERROR(TERN_E_ARG, "memory has weights already");
  CHECK(!tern_bidirectional(tern_dense(3, NULL), NULL), "dense");
  CHECK_ERROR(TERN_E_ARG, "it must be a recurrent layer");
  CHECK(!tern_bidirectional(tern_lstm(3, &(tern_rnn_opts){.backwards = 1}), NULL), "backwards");
  CHECK_ERROR(TERN_E_ARG, "goes backwards");
  CHECK(!tern_bidirectional(tern_lstm(3, NULL), &(tern_bidirectional_opts){.merge = "max"}), "merge");
  CHECK_ERROR(TERN_E_ARG, "merge is \"max\"");
  CHECK(!tern_bidirectional(NULL, NULL), "NULL");
  tern_error_clear();
}

static const test_case cases[] = {{"as Keras", test_keras},
                                  {"the forget gate's bias", test_forget_bias},
                                  {"names", test_names},
                                  {"dropout of inputs", test_dropout},
                                  {"dropout of states", test_recurrent_dropout},
                                  {"second derivative", test_second_derivative},
                                  {"errors", test_errors}};
TEST_MAIN("nn.rnn", cases)
