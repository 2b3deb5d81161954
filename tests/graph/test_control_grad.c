/* Gradients through tern_cond, tern_while and tern_scan: in functions as eagerly, and as differences say. */
#include "graph/both.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static tern_rc give(tern_tensor **out, tern_tensor *x) { return (out[0] = x) ? TERN_OK : tern_error_code(); }

static tern_tensor *truth(int v) {
  const uint8_t byte = (uint8_t)v;
  return tern_constant(TERN_SHAPE(), TERN_BOOL, &byte, 1);
}

/* A function of tensors, and what of it is a parameter of the test: out[0] = f(in), out[1..] = the gradients. */
typedef struct graded {
  tern_rc (*loss)(struct graded *g, tern_tensor *const *in, tern_tensor **loss);
  tern_tensor *predicate, *outer; /* outer: of the function that is traced */
  tern_tensor *variable;
  int64_t trips;
  int twice, use_variable, reverse;
} graded;

/* in: what to differentiate by. Behind them, with use_variable, the variable. */
static tern_rc gradients(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  graded *g = self;
  tern_tensor *sources[8];
  tern_tape *tape = tern_tape_begin(NULL);
  (void)n_out;
  for (int i = 0; i < n_in; i++) {
    sources[i] = in[i];
    tern_tape_watch(tape, in[i]);
  }
  if (g->use_variable) sources[n_in] = g->variable;
  tern_rc rc = g->loss(g, in, out);
  if (!rc) /* a branch that is not taken leads nowhere eagerly, and gives zeros in a graph */
    rc = tern_tape_gradients(tape, out, NULL, 1, sources, n_in + (g->use_variable != 0), out + 1,
                             &(tern_gradient_opts){.unconnected_zeros = 1});
  tern_tape_end(tape);
  return rc;
}

static void check(const char *name, graded *g, tern_tensor *const *in, int n_in, double ulps) {
  TERN_SCOPE;
  both_ways(name, gradients, g, in, n_in, NULL, 1 + n_in + (g->use_variable != 0), ulps, 1e-6);
  const int with = g->use_variable;
  g->use_variable = 0;
  both_differences(name, gradients, g, in, n_in, 1e-2, 2e-2);
  g->use_variable = with;
}

/* ---- cond ---- */

static tern_rc then(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const graded *g = self;
  (void)n_in, (void)n_out;
  out[0] = tern_mul(tern_sin(in[0]), tern_add(in[1], g->outer));
  out[1] = tern_sum(tern_mul(out[0], g->variable), NULL);
  return TERN_OK;
}
static tern_rc otherwise(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const graded *g = self;
  (void)n_in, (void)n_out;
  out[0] = tern_exp(in[1]);
  out[1] = tern_sum(tern_mul(g->outer, g->outer), NULL);
  return TERN_OK;
}
static tern_rc cond_loss(graded *g, tern_tensor *const *in, tern_tensor **loss) {
  tern_tensor *out[2];
  g->outer = tern_tanh(in[0]);
  const tern_rc rc = tern_cond(g->predicate, then, otherwise, g, in, 2, out, 2);
  return rc ? rc : give(loss, tern_add(tern_sum(tern_mul(out[0], out[0]), NULL), out[1]));
}

static void test_cond(void) {
  TERN_SCOPE;
  tern_tensor *in[] = {tern_f32(TERN_SHAPE(2), 0.5, -0.25), tern_f32(TERN_SHAPE(2), 0.75, 1.25)};
  graded g = {.loss = cond_loss, .variable = tern_variable(tern_f32(TERN_SHAPE(2), 1.5, -2), NULL), .use_variable = 1};
  for (int p = 0; p < 2; p++) {
    g.predicate = truth(p);
    check(p ? "cond, true" : "cond, false", &g, in, 2, 8);
  }
  tern_release(g.variable);
}

/* ---- while ---- */

static tern_rc goes_on(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in, (void)n_out;
  return give(out, tern_less(in[0], tern_scalar_int(((graded *)self)->trips)));
}
/* i + 1, x -> sin(x) * w + v */
static tern_rc turn(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  graded *g = self;
  (void)n_in, (void)n_out;
  out[0] = tern_add(in[0], tern_scalar_int(1));
  return give(out + 1, tern_add(tern_mul(tern_sin(in[1]), g->outer), g->variable));
}
static tern_tensor *count(void) { return tern_constant(TERN_SHAPE(), TERN_I64, (int64_t[]){0}, 1); }
static tern_rc while_loss(graded *g, tern_tensor *const *in, tern_tensor **loss) {
  tern_tensor *state[] = {count(), in[0]}, *last[2];
  g->outer = tern_mul(in[1], tern_scalar(1.5));
  const tern_rc rc = tern_while(goes_on, turn, g, state, 2, last, &(tern_while_opts){.max_trips = 8});
  return rc ? rc : give(loss, tern_sum(tern_mul(last[1], last[1]), NULL));
}

static void test_while(void) {
  TERN_SCOPE;
  tern_tensor *in[] = {tern_f32(TERN_SHAPE(2), 0.5, -0.25), tern_f32(TERN_SHAPE(2), 0.75, 1.25)};
  graded g = {.loss = while_loss, .variable = tern_variable(tern_f32(TERN_SHAPE(2), 0.5, -1), NULL), .use_variable = 1};
  const int64_t trips[] = {0, 1, 5, 8};
  for (int i = 0; i < 4; i++) {
    g.trips = trips[i];
    check("while", &g, in, 2, 16);
  }
  tern_release(g.variable);
}

static tern_rc unlimited(graded *g, tern_tensor *const *in, tern_tensor **loss) {
  tern_tensor *state[] = {count(), in[0]}, *last[2];
  g->outer = in[1];
  const tern_rc rc = tern_while(goes_on, turn, g, state, 2, last, NULL);
  return rc ? rc : give(loss, tern_sum(last[1], NULL));
}
static void test_unlimited(void) {
  TERN_SCOPE;
  tern_tensor *in[] = {tern_f32(TERN_SHAPE(2), 0.5, -0.25), tern_f32(TERN_SHAPE(2), 0.75, 1.25)}, *out[3];
  graded g = {.loss = unlimited, .variable = tern_variable(tern_f32(TERN_SHAPE(2), 0.5, -1), NULL), .trips = 3};
  CHECK(gradients(&g, in, 2, out, 3) == 0, "eagerly it needs no limit: %s", tern_error());
  tern_function *f = tern_function_new(gradients, &g, 2, 3, NULL);
  CHECK(tern_function_run(f, in, 2, out, 3) == TERN_E_ARG, "without max_trips");
  CHECK_ERROR(TERN_E_ARG, "max_trips");
  tern_function_release(f);
  tern_release(g.variable);
}

/* A branch in the loop: x goes up where it is small. */
static tern_rc small(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in, (void)n_out;
  return give(out, tern_mul(tern_exp(in[0]), ((graded *)self)->outer));
}
static tern_rc large(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in, (void)n_out;
  return give(out, tern_sub(tern_mul(in[0], tern_scalar(0.25)), ((graded *)self)->variable));
}
static tern_rc branching_turn(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in, (void)n_out;
  out[0] = tern_add(in[0], tern_scalar_int(1));
  return tern_cond(tern_less(tern_sum(in[1], NULL), tern_scalar(1)), small, large, self, in + 1, 1, out + 1, 1);
}
static tern_rc branching_loss(graded *g, tern_tensor *const *in, tern_tensor **loss) {
  tern_tensor *state[] = {count(), in[0]}, *last[2];
  g->outer = tern_mul(in[1], tern_scalar(1.5));
  const tern_rc rc = tern_while(goes_on, branching_turn, g, state, 2, last, &(tern_while_opts){.max_trips = 8});
  return rc ? rc : give(loss, tern_sum(tern_mul(last[1], last[1]), NULL));
}
static void test_branch_in_loop(void) {
  TERN_SCOPE;
  tern_tensor *in[] = {tern_f32(TERN_SHAPE(2), 0.5, -0.25), tern_f32(TERN_SHAPE(2), 0.75, 1.25)};
  graded g = {.loss = branching_loss, .variable = tern_variable(tern_f32(TERN_SHAPE(2), 0.5, 0.125), NULL), .trips = 5};
  g.use_variable = 1;
  check("branch in loop", &g, in, 2, 16);
  tern_release(g.variable);
}

/* ---- scan: an RNN cell ---- */

/* h = tanh(x U + h W + b); y = h * h */
static tern_rc cell(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const graded *g = self;
  (void)n_in, (void)n_out;
  tern_tensor *h =
      tern_tanh(tern_add(tern_add(tern_matmul(in[1], g->outer), tern_matmul(in[0], g->predicate)), g->variable));
  out[0] = h;
  return give(out + 1, tern_mul(h, h));
}
static tern_rc rnn_loss(graded *g, tern_tensor *const *in, tern_tensor **loss) {
  tern_tensor *out[2];
  g->outer = in[1];
  g->predicate = in[2];
  const tern_rc rc = tern_scan(cell, g, in + 3, 1, in, 1, out, 1, &(tern_scan_loop_opts){.reverse = g->reverse});
  if (rc) return rc;
  tern_tensor *weight = tern_reshape(tern_arange(1, 5, 1, TERN_F32), TERN_SHAPE(4, 1, 1));
  return give(loss, tern_add(tern_sum(tern_mul(out[1], weight), NULL), tern_sum(out[0], NULL)));
}

static tern_tensor *some(uint64_t *seed, tern_shape shape) {
  double v[64];
  for (int64_t i = 0; i < test_numel(shape); i++) v[i] = test_uniform(seed, -1, 1);
  return test_tensor(shape, TERN_F32, v);
}

static void test_rnn(void) {
  TERN_SCOPE;
  uint64_t seed = 3;
  tern_tensor *in[] = {some(&seed, TERN_SHAPE(4, 2, 3)), some(&seed, TERN_SHAPE(3, 2)), some(&seed, TERN_SHAPE(2, 2)),
                       some(&seed, TERN_SHAPE(2, 2))};
  graded g = {.loss = rnn_loss, .variable = tern_variable(some(&seed, TERN_SHAPE(2)), NULL), .use_variable = 1};
  for (g.reverse = 0; g.reverse < 2; g.reverse++) check(g.reverse ? "rnn, reversed" : "rnn", &g, in, 4, 32);
  tern_release(g.variable);
}

/* Lengths that vary: gradients of one trace for all of them. */
static tern_rc run_length(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  graded *g = self;
  tern_tape *tape = tern_tape_begin(NULL);
  (void)n_in, (void)n_out;
  for (int i = 0; i < 4; i++) tern_tape_watch(tape, in[i]);
  g->outer = in[1];
  g->predicate = in[2];
  tern_tensor *last[2];
  tern_rc rc = tern_scan(cell, g, in + 3, 1, in, 1, last, 1, NULL);
  if (!rc) out[0] = tern_add(tern_sum(last[1], NULL), tern_sum(last[0], NULL));
  if (!rc) rc = tern_tape_gradient(tape, out[0], in, 4, out + 1);
  tern_tape_end(tape);
  return rc;
}
static void test_lengths(void) {
  TERN_SCOPE;
  uint64_t seed = 5;
  tern_tensor *in[] = {NULL, some(&seed, TERN_SHAPE(3, 2)), some(&seed, TERN_SHAPE(2, 2)),
                       some(&seed, TERN_SHAPE(2, 2))};
  graded g = {.variable = tern_variable(some(&seed, TERN_SHAPE(2)), NULL)};
  tern_function *f = tern_function_new(run_length, &g, 4, 5, NULL);
  for (int64_t n = 2; n < 8; n++) {
    TERN_SCOPE;
    tern_tensor *expected[5], *got[5];
    in[0] = some(&seed, TERN_SHAPE(n, 2, 3));
    CHECK(!run_length(&g, in, 4, expected, 5) && !tern_function_run(f, in, 4, got, 5), "%s", tern_error());
    for (int o = 0; o < 5; o++) both_same("rnn of variable length", o, got[o], expected[o], 64, 1e-6);
  }
  tern_function_info info;
  tern_function_get_info(f, &info);
  CHECK(info.traces == 2, "%d traces for 6 lengths", info.traces);
  tern_function_release(f);
  tern_release(g.variable);
}

/* ---- second derivatives ---- */

/* The gradient of the sum of the squares of the gradient. */
static tern_rc second(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  graded *g = self;
  tern_tensor *first[8], *inner[9];
  tern_tape *tape = tern_tape_begin(NULL);
  (void)n_out;
  for (int i = 0; i < n_in; i++) tern_tape_watch(tape, in[i]);
  tern_tape *under = tern_tape_begin(NULL);
  for (int i = 0; i < n_in; i++) tern_tape_watch(under, in[i]);
  tern_rc rc = g->loss(g, in, inner);
  if (!rc) rc = tern_tape_gradient(under, inner[0], in, n_in, first);
  out[0] = rc ? NULL : tern_sum(tern_mul(first[0], first[0]), NULL);
  for (int i = 1; i < n_in && out[0]; i++) out[0] = tern_add(out[0], tern_sum(tern_mul(first[i], first[i]), NULL));
  if (!rc) rc = tern_tape_gradient(tape, out[0], in, n_in, out + 1);
  tern_tape_end(under);
  tern_tape_end(tape);
  return rc;
}

static void test_second(void) {
  TERN_SCOPE;
  uint64_t seed = 9;
  tern_tensor *in[] = {tern_f32(TERN_SHAPE(2), 0.5, -0.25), tern_f32(TERN_SHAPE(2), 0.75, 1.25)};
  graded g = {.loss = cond_loss, .variable = tern_variable(tern_f32(TERN_SHAPE(2), 1.5, -2), NULL), .trips = 3};
  for (int p = 0; p < 2; p++) {
    g.predicate = truth(p);
    both_ways("cond, second derivative", second, &g, in, 2, NULL, 3, 64, 1e-5);
    both_differences("cond, second derivative", second, &g, in, 2, 1e-2, 2e-2);
  }
  g.loss = while_loss;
  both_ways("while, second derivative", second, &g, in, 2, NULL, 3, 64, 1e-4);
  tern_tensor *rnn[] = {some(&seed, TERN_SHAPE(4, 2, 3)), some(&seed, TERN_SHAPE(3, 2)), some(&seed, TERN_SHAPE(2, 2)),
                        some(&seed, TERN_SHAPE(2, 2))};
  graded h = {.loss = rnn_loss, .variable = tern_variable(some(&seed, TERN_SHAPE(2)), NULL)};
  both_ways("rnn, second derivative", second, &h, rnn, 4, NULL, 5, 256, 1e-4);
  tern_release(g.variable);
  tern_release(h.variable);
}

/* A tape that begins after the branch cannot see through its gradient. */
static tern_rc too_late(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  graded *g = self;
  tern_tensor *y, *dy;
  tern_tape *inner = tern_tape_begin(NULL), *late = NULL;
  (void)n_in, (void)n_out;
  tern_tape_watch(inner, in[0]);
  tern_tape_watch(inner, in[1]);
  tern_rc rc = g->loss(g, in, &y);
  late = tern_tape_begin(NULL);
  tern_tape_watch(late, in[0]);
  if (!rc) rc = tern_tape_gradient(inner, y, in, 1, &dy);
  if (!rc) rc = tern_tape_gradient(late, tern_sum(dy, NULL), in, 1, out);
  tern_tape_end(late);
  tern_tape_end(inner);
  return rc;
}
static void test_too_late(void) {
  TERN_SCOPE;
  tern_tensor *in[] = {tern_f32(TERN_SHAPE(2), 0.5, -0.25), tern_f32(TERN_SHAPE(2), 0.75, 1.25)}, *out[1];
  graded g = {.loss = while_loss, .variable = tern_variable(tern_f32(TERN_SHAPE(2), 1.5, -2), NULL), .trips = 3};
  tern_function *f = tern_function_new(too_late, &g, 2, 1, NULL);
  CHECK(tern_function_run(f, in, 2, out, 1) == TERN_E_UNSUPPORTED, "a tape that began too late");
  CHECK_ERROR(TERN_E_UNSUPPORTED, "second derivative");
  tern_function_release(f);
  tern_release(g.variable);
}

/* A tape around the function, which is traced for its gradient too. */
static tern_rc loop_only(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  graded *g = self;
  (void)n_in, (void)n_out;
  return g->loss(g, in, out);
}
static void test_tape_around(void) {
  TERN_SCOPE;
  uint64_t seed = 11;
  tern_tensor *in[] = {some(&seed, TERN_SHAPE(4, 2, 3)), some(&seed, TERN_SHAPE(3, 2)), some(&seed, TERN_SHAPE(2, 2)),
                       some(&seed, TERN_SHAPE(2, 2))};
  graded g = {.loss = rnn_loss, .variable = tern_variable(some(&seed, TERN_SHAPE(2)), NULL), .use_variable = 1};
  tern_tensor *expected[6], *got[5], *sources[5] = {in[0], in[1], in[2], in[3], g.variable};
  CHECK(gradients(&g, in, 4, expected, 6) == 0, "%s", tern_error());
  tern_function *f = tern_function_new(loop_only, &g, 4, 1, NULL);
  for (int round = 0; round < 2; round++) {
    tern_tape *tape = tern_tape_begin(NULL);
    for (int i = 0; i < 4; i++) tern_tape_watch(tape, in[i]);
    tern_tensor *loss = tern_call_n(f, in, 4);
    CHECK(loss && tern_tape_gradient(tape, loss, sources, 5, got) == 0, "%s", tern_error());
    tern_error_clear();
    for (int i = 0; i < 5; i++) both_same("tape around a function", i, got[i], expected[1 + i], 64, 1e-6);
  }
  tern_function_release(f);
  tern_release(g.variable);
}

/* Computed again in the backward pass. */
static tern_rc checkpointed(graded *g, tern_tensor *const *in, tern_tensor **loss) {
  static graded kept; /* must outlive the tape */
  kept = *g;
  kept.loss = rnn_loss;
  return tern_checkpoint_call(loop_only, &kept, NULL, in, 4, loss, 1);
}
static void test_checkpoint(void) {
  TERN_SCOPE;
  uint64_t seed = 13;
  tern_tensor *in[] = {some(&seed, TERN_SHAPE(4, 2, 3)), some(&seed, TERN_SHAPE(3, 2)), some(&seed, TERN_SHAPE(2, 2)),
                       some(&seed, TERN_SHAPE(2, 2))};
  graded g = {.loss = checkpointed, .variable = tern_variable(some(&seed, TERN_SHAPE(2)), NULL), .use_variable = 1};
  check("rnn, checkpointed", &g, in, 4, 32);
  tern_release(g.variable);
}

/* A whole training loop in one function: each trip has a tape of its own and assigns the variable. */
static tern_rc training_step(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  graded *g = self;
  tern_tape *tape = tern_tape_begin(NULL);
  (void)n_in, (void)n_out;
  tern_tensor *off = tern_sub(tern_matmul(in[0], g->variable), in[1]), *gradient;
  tern_tensor *loss = tern_mean(tern_mul(off, off), NULL);
  tern_rc rc = tern_tape_gradient(tape, loss, &g->variable, 1, &gradient);
  tern_tape_end(tape);
  if (!rc) rc = tern_assign_sub(g->variable, tern_mul(gradient, tern_scalar(0.25)));
  return rc ? rc : give(out, loss);
}
static tern_rc training(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_out;
  return tern_scan(training_step, self, NULL, 0, in, n_in, out, 1, NULL);
}
static void test_training(void) {
  TERN_SCOPE;
  uint64_t seed = 21;
  tern_tensor *start = some(&seed, TERN_SHAPE(3, 1)), *truth_of = some(&seed, TERN_SHAPE(3, 1));
  tern_tensor *in[] = {tern_random_normal(TERN_SHAPE(40, 8, 3), NULL), NULL}, *out[2], *weight[2];
  in[1] = tern_matmul(in[0], truth_of);
  for (int traced = 0; traced < 2; traced++) {
    graded g = {.variable = tern_variable(start, NULL)};
    tern_function *f = tern_function_new(training, &g, 2, 1, NULL);
    const tern_rc rc = traced ? tern_function_run(f, in, 2, &out[1], 1) : training(&g, in, 2, &out[0], 1);
    CHECK(rc == 0, "%s", tern_error());
    tern_error_clear();
    weight[traced] = tern_clone(g.variable);
    tern_function_release(f);
    tern_release(g.variable);
  }
  both_same("losses", 0, out[1], out[0], 256, 1e-5);
  both_same("weights", 0, weight[1], weight[0], 256, 1e-5);
  double *losses = test_values(out[1]);
  CHECK(losses && losses[39] < 0.05 * losses[0], "the loss went from %g to %g", losses ? losses[0] : 0,
        losses ? losses[39] : 0);
  free(losses);
}

static const test_case cases[] = {{"cond", test_cond},
                                  {"while", test_while},
                                  {"unlimited", test_unlimited},
                                  {"branch_in_loop", test_branch_in_loop},
                                  {"rnn", test_rnn},
                                  {"lengths", test_lengths},
                                  {"second", test_second},
                                  {"too_late", test_too_late},
                                  {"tape_around", test_tape_around},
                                  {"checkpoint", test_checkpoint},
                                  {"training", test_training}};
TEST_MAIN("control_grad", cases)
