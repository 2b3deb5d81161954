/* Random draws and assigned variables inside of the bodies of traced loops and branches: what eager execution gives, to
   the bit for the draws, in every run, with and without passes, and with the generator left where eager leaves it. */
#include "graph/both.h"
#include <stdlib.h>
#include <string.h>

static tern_rc give(tern_tensor **out, tern_tensor *x) { return (out[0] = x) ? TERN_OK : tern_error_code(); }

/* A program of tensors, and the variable that it may assign. */
typedef struct script {
  tern_rc (*loss)(struct script *s, tern_tensor *const *in, tern_tensor **out);
  tern_tensor *variable;
  int reverse, twice, by_variable;
  int64_t trips;
} script;

enum { ROUNDS = 3, MOST = 8 };

/* What ROUNDS runs give, the variable behind them, and what is drawn next: n_out * ROUNDS + 2 references. */
static tern_rc rounds(tern_function_body body, tern_function *f, script *s, tern_tensor *const *in, int n_in, int n_out,
                      tern_tensor **all) {
  tern_rc rc = TERN_OK;
  tern_set_seed(99);
  if (s->variable) tern_assign(s->variable, tern_f32(TERN_SHAPE(2), 0.5, -0.25));
  for (int round = 0; round < ROUNDS && !rc; round++) {
    TERN_SCOPE;
    tern_tensor *out[MOST] = {0};
    rc = f ? tern_function_run(f, in, n_in, out, n_out) : body(s, in, n_in, out, n_out);
    for (int o = 0; o < n_out && !rc; o++) *all++ = tern_keep(out[o]);
  }
  TERN_SCOPE;
  if (rc) return rc;
  *all++ = tern_keep(s->variable ? tern_clone(s->variable) : tern_zeros(TERN_SHAPE(), TERN_F32));
  *all++ = tern_keep(tern_random_uniform(TERN_SHAPE(3), NULL));
  return TERN_OK;
}

static void same_numbers(const char *name, tern_function_body body, script *s, tern_tensor *const *in, int n_in,
                         int n_out, double ulps, double absolute) {
  TERN_SCOPE;
  enum { ALL = MOST * ROUNDS + 2 };
  tern_tensor *expected[ALL] = {0}, *got[ALL];
  const int n = n_out * ROUNDS + 2;
  tern_rc rc = rounds(body, NULL, s, in, n_in, n_out, expected);
  CHECK(rc == 0, "%s: eagerly: %s", name, tern_error());
  tern_error_clear();
  for (int way = 0; way < 3 && !rc; way++) {
    const tern_function_opts opts = {.name = name, .no_fuse = way == 1, .no_simplify = way == 2};
    tern_function *f = tern_function_new(body, s, n_in, n_out, &opts);
    memset(got, 0, sizeof got);
    rc = rounds(body, f, s, in, n_in, n_out, got);
    CHECK(rc == 0, "%s, way %d: %s", name, way, tern_error());
    tern_error_clear();
    for (int i = 0; i < n && got[i]; i++) both_same(name, i, got[i], expected[i], ulps, absolute);
    for (int i = 0; i < n; i++) tern_release(got[i]);
    tern_function_release(f);
  }
  for (int i = 0; i < n; i++) tern_release(expected[i]);
}

/* ---- draws ---- */

static tern_tensor *uniform(int64_t n) { return tern_random_uniform(TERN_SHAPE(n), NULL); }

static tern_rc below_five(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  return give(out, tern_less(in[0], tern_scalar_int(5)));
}
/* Uneven counts, so that the order of draws shows in each number. */
static tern_rc walk(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  out[0] = tern_add(in[0], tern_scalar_int(1));
  return give(out + 1, tern_add(tern_mul(in[1], tern_scalar(0.5)), tern_add(uniform(2), tern_sum(uniform(5), NULL))));
}
static tern_rc walking(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in, (void)n_out;
  tern_tensor *before = uniform(3), *state[] = {in[0], tern_add(in[1], tern_index(before, 0, 1))}, *end[2];
  tern_rc rc = tern_while(below_five, walk, self, state, 2, end, NULL);
  tern_tensor *between = uniform(3);
  state[1] = tern_add(end[1], tern_index(between, 0, 0));
  if (!rc) rc = tern_while(below_five, walk, self, state, 2, end, NULL);
  out[1] = before;
  out[2] = between;
  out[3] = uniform(4);
  return rc ? rc : give(out, end[1]);
}

static tern_rc drawing_kinds(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)in, (void)n_in, (void)n_out;
  out[0] = tern_cast(tern_random_integers(TERN_SHAPE(3), -5, 90, NULL), TERN_F32);
  out[1] = tern_cast(tern_random_permutation(5, NULL), TERN_F32);
  out[2] = tern_cast(tern_random_bernoulli(TERN_SHAPE(7), 0.5, NULL), TERN_F32);
  out[3] = tern_random_normal(TERN_SHAPE(2, 2), NULL);
  return out[3] ? TERN_OK : tern_error_code();
}
static tern_rc kinds(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in, (void)n_out;
  const tern_scan_loop_opts opts = {.length = 3};
  (void)in;
  return tern_scan(drawing_kinds, self, NULL, 0, NULL, 0, out, 4, &opts);
}

static tern_rc draws_two(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  return give(out, tern_add(in[0], uniform(2)));
}
static tern_rc draws_many(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  return give(out, tern_sub(in[0], tern_sum(uniform(9), NULL)));
}
/* A draw decides which branch draws, in a loop; what is drawn and not used counts. */
static tern_rc gamble(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in, (void)n_out;
  tern_tensor *coin = tern_less(tern_random_uniform(TERN_SHAPE(), NULL), tern_scalar(0.5));
  tern_rc rc = tern_cond(coin, draws_two, draws_many, self, in, 1, out, 1);
  uniform(6);
  return rc ? rc : give(out + 1, tern_add(out[0], uniform(2)));
}
static tern_rc gambling(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in, (void)n_out;
  const tern_scan_loop_opts opts = {.length = 6};
  return tern_scan(gamble, self, in, 1, NULL, 0, out, 1, &opts);
}

/* The condition draws. */
static tern_rc lucky(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)in, (void)n_in, (void)n_out;
  return give(out, tern_less(tern_random_uniform(TERN_SHAPE(), NULL), tern_scalar(0.75)));
}
static tern_rc count_draws(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  return give(out, tern_add(tern_mul(in[0], tern_scalar(2)), uniform(2)));
}
static tern_rc until_unlucky(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in, (void)n_out;
  return tern_while(lucky, count_draws, self, in, 1, out, NULL);
}

/* Branches that are decided when the graph is made, around a loop: none may come before what was drawn earlier. */
static tern_rc decided(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in, (void)n_out;
  const tern_scan_loop_opts twice = {.length = 2};
  tern_tensor *yes = tern_full((tern_shape){0, {0}}, TERN_BOOL, 1), *x = in[0];
  tern_rc rc = tern_cond(yes, draws_two, draws_many, self, &x, 1, &x, 1);
  out[1] = uniform(3);
  if (!rc) rc = tern_cond(yes, gambling, gambling, self, &x, 1, &x, 1);
  if (!rc) rc = tern_scan(gamble, self, &x, 1, NULL, 0, out + 2, 0, &twice);
  out[3] = uniform(3);
  if (!rc) rc = tern_cond(yes, draws_many, draws_two, self, out + 2, 1, out, 1);
  uniform(5);
  return rc;
}

/* The ys of no trips. */
static tern_rc never(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in, (void)n_out;
  const tern_scan_loop_opts none = {.length = 0};
  tern_rc rc = tern_scan(gamble, self, in, 1, NULL, 0, out, 1, &none);
  out[1] = uniform(3);
  return rc;
}

static void test_draws(void) {
  TERN_SCOPE;
  script s = {0};
  const int64_t from = 2;
  tern_tensor *x = tern_f32(TERN_SHAPE(2), 1, 2), *in[] = {tern_constant(TERN_SHAPE(), TERN_I64, &from, 1), x};
  same_numbers("walking", walking, &s, in, 2, 4, 4, 0);
  same_numbers("kinds", kinds, &s, &x, 1, 4, 4, 1e-6);
  same_numbers("gambling", gambling, &s, &x, 1, 2, 4, 1e-6);
  same_numbers("decided", decided, &s, &x, 1, 4, 4, 1e-6);
  same_numbers("never", never, &s, &x, 1, 2, 0, 0);
  same_numbers("until unlucky", until_unlucky, &s, &x, 1, 1, 4, 0);
}

/* Each run of a session draws anew: with one seed the numbers that eager execution draws. */
static void test_session(void) {
  TERN_SCOPE;
  const int64_t from = 2;
  tern_tensor *x = tern_f32(TERN_SHAPE(2), 1, 2), *in[] = {tern_constant(TERN_SHAPE(), TERN_I64, &from, 1), x},
              *out[4] = {0};
  tern_tensor *expected[2] = {0}, *got[2];
  tern_set_seed(3);
  for (int k = 0; k < 2; k++) {
    CHECK(walking(NULL, in, 2, out, 4) == 0, "%s", tern_error());
    expected[k] = out[3];
  }
  tern_graph *graph = tern_graph_new("walking");
  {
    tern_with_graph(graph);
    CHECK(walking(NULL, in, 2, out, 4) == 0, "%s", tern_error());
  }
  tern_session *session = tern_session_new(graph);
  tern_set_seed(3);
  for (int k = 0; k < 2; k++) {
    tern_tensor *value[4] = {0};
    CHECK(tern_session_run(session, NULL, 0, out, 4, value) == 0, "%s", tern_error());
    got[k] = value[3];
    if (got[k]) both_same("session", k, got[k], expected[k], 0, 0);
  }
  tern_session_release(session);
  tern_graph_release(graph);
}

/* ---- gradients ---- */

static tern_rc gradients(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  script *s = self;
  tern_tensor *sources[MOST], *first[MOST];
  tern_tape *tape = tern_tape_begin(NULL), *outer = s->twice ? tern_tape_begin(NULL) : NULL;
  (void)n_out;
  for (int i = 0; i < n_in; i++) {
    sources[i] = in[i];
    tern_tape_watch(tape, in[i]);
    if (outer) tern_tape_watch(outer, in[i]);
  }
  const int n = n_in + (s->by_variable != 0);
  if (s->by_variable) sources[n_in] = s->variable;
  const tern_gradient_opts zeros = {.unconnected_zeros = 1};
  tern_rc rc = s->loss(s, in, out);
  if (!rc) rc = tern_tape_gradients(tape, out, NULL, 1, sources, n, s->twice ? first : out + 1, &zeros);
  tern_tape_end(tape);
  if (!outer) return rc;
  tern_tensor *all = tern_scalar(0);
  for (int i = 0; i < n && !rc; i++) all = tern_add(all, tern_sum(tern_mul(first[i], first[i]), NULL));
  if (!rc) rc = tern_tape_gradients(outer, &all, NULL, 1, sources, n, out + 1, &zeros);
  tern_tape_end(outer);
  return rc;
}

static tern_tensor *dropout(tern_tensor *x) {
  tern_tensor *keep = tern_cast(tern_random_bernoulli(TERN_SHAPE(2), 0.6, NULL), TERN_F32);
  return tern_div(tern_mul(x, keep), tern_scalar(0.6));
}

/* in: x of the slice */
static tern_rc noisy_cell(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  out[0] = tern_tanh(tern_add(dropout(in[1]), tern_mul(in[0], tern_random_normal(TERN_SHAPE(2), NULL))));
  return give(out + 1, tern_mul(out[0], out[0]));
}
static tern_rc noisy_rnn(script *s, tern_tensor *const *in, tern_tensor **loss) {
  tern_tensor *out[2];
  const tern_scan_loop_opts opts = {.reverse = s->reverse};
  tern_tensor *scale = uniform(2);
  tern_rc rc = tern_scan(noisy_cell, s, in, 1, in + 1, 1, out, 1, &opts);
  if (rc) return rc;
  return give(loss,
              tern_sum(tern_mul(tern_mul(out[0], tern_add(scale, uniform(2))), tern_sum(out[1], TERN_AXES(0))), NULL));
}

static tern_rc noisy_body(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in, (void)n_out, (void)self;
  out[0] = tern_add(in[0], tern_scalar_int(1));
  out[2] = in[2];
  return give(out + 1, tern_sin(tern_mul(tern_add(in[1], in[2]), uniform(2))));
}
static tern_rc noisy_while(script *s, tern_tensor *const *in, tern_tensor **loss) {
  tern_tensor *state[] = {tern_full((tern_shape){0, {0}}, TERN_I64, 1), in[0], in[1]}, *out[3];
  const tern_rc rc = tern_while(below_five, noisy_body, s, state, 3, out, &(tern_while_opts){6});
  return rc ? rc : give(loss, tern_sum(tern_mul(out[1], uniform(2)), NULL));
}

static tern_rc noisy_then(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  return give(out, tern_mul(tern_mul(in[0], in[0]), uniform(2)));
}
static tern_rc noisy_else(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  return give(out, tern_sin(tern_mul(tern_add(in[0], uniform(2)), tern_sum(uniform(6), NULL))));
}
static tern_rc noisy_cond(script *s, tern_tensor *const *in, tern_tensor **loss) {
  tern_tensor *coin = tern_less(tern_random_uniform(TERN_SHAPE(), NULL), tern_scalar(0.5)), *out;
  const tern_rc rc = tern_cond(coin, noisy_then, noisy_else, s, in, 1, &out, 1);
  return rc ? rc : give(loss, tern_sum(tern_mul(out, in[1]), NULL));
}

static tern_rc noisy_condition(script *s, tern_tensor *const *in, tern_tensor **loss) {
  tern_tensor *out;
  const tern_rc rc = tern_while(lucky, count_draws, s, in, 1, &out, &(tern_while_opts){60});
  return rc ? rc : give(loss, tern_sum(tern_mul(tern_mul(out, uniform(2)), in[1]), NULL));
}

/* A loop whose trips have a loop and a branch, all of which draw. */
static tern_rc nested_trip(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in, (void)n_out;
  tern_tensor *state[] = {tern_full((tern_shape){0, {0}}, TERN_I64, 2), tern_mul(in[0], uniform(2)), in[0]}, *end[3];
  tern_rc rc = tern_while(below_five, noisy_body, self, state, 3, end, &(tern_while_opts){4});
  tern_tensor *coin = tern_less(tern_random_uniform(TERN_SHAPE(), NULL), tern_scalar(0.5)), *x;
  if (!rc) rc = tern_cond(coin, noisy_then, noisy_else, self, end + 1, 1, &x, 1);
  tern_tensor *along = rc ? NULL : tern_stack((tern_tensor *[]){x, in[1], x}, 3, 0), *swept[2];
  if (!rc) rc = tern_scan(noisy_cell, self, &x, 1, &along, 1, swept, 1, NULL);
  return rc ? rc : give(out, tern_add(dropout(swept[0]), tern_sum(swept[1], TERN_AXES(0))));
}
static tern_rc nested(script *s, tern_tensor *const *in, tern_tensor **loss) {
  tern_tensor *out;
  const tern_rc rc = tern_scan(nested_trip, s, in, 1, in + 1, 1, &out, 0, NULL);
  return rc ? rc : give(loss, tern_sum(out, NULL));
}

static void test_gradients(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_f32(TERN_SHAPE(2), 0.5, -0.75);
  tern_tensor *xs = tern_f32(TERN_SHAPE(4, 2), 0.1, -0.2, 0.3, 0.4, -0.5, 0.6, 0.7, -0.8);
  tern_tensor *two[] = {x, tern_f32(TERN_SHAPE(2), 0.25, 1.5)}, *in[] = {x, xs};
  for (int twice = 0; twice < 2; twice++) {
    script s = {.loss = noisy_rnn, .twice = twice};
    same_numbers("noisy rnn", gradients, &s, in, 2, 3, 64, 1e-5);
    s.reverse = 1;
    same_numbers("noisy rnn, reverse", gradients, &s, in, 2, 3, 64, 1e-5);
    s.loss = noisy_while;
    same_numbers("noisy while", gradients, &s, two, 2, 3, 64, 1e-5);
    s.loss = noisy_condition;
    same_numbers("noisy condition", gradients, &s, two, 2, 3, 64, 1e-4);
    s.loss = noisy_cond;
    same_numbers("noisy cond", gradients, &s, two, 2, 3, 64, 1e-5);
  }
  script s = {.loss = nested};
  same_numbers("nested", gradients, &s, in, 2, 3, 256, 2e-5);
}

/* The tape is around the function, which is run again for its gradient: with the same numbers. */
static tern_rc loss_only(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  script *s = self;
  (void)n_in, (void)n_out;
  return s->loss(s, in, out);
}
static void test_tape_around(void) {
  TERN_SCOPE;
  tern_tensor *in[] = {tern_f32(TERN_SHAPE(2), 0.5, -0.75),
                       tern_f32(TERN_SHAPE(4, 2), 0.1, -0.2, 0.3, 0.4, -0.5, 0.6, 0.7, -0.8)};
  script s = {.loss = noisy_rnn};
  tern_function *f = tern_function_new(loss_only, &s, 2, 1, NULL);
  tern_tensor *loss[2] = {0}, *gradient[2][2] = {0};
  for (int traced = 0; traced < 2; traced++) {
    tern_set_seed(5);
    tern_tape *tape = tern_tape_begin(NULL);
    for (int i = 0; i < 2; i++) tern_tape_watch(tape, in[i]);
    tern_rc rc = traced ? tern_function_run(f, in, 2, &loss[1], 1) : noisy_rnn(&s, in, &loss[0]);
    if (!rc) rc = tern_tape_gradients(tape, &loss[traced], NULL, 1, in, 2, gradient[traced], NULL);
    CHECK(rc == 0, "%s", tern_error());
    tern_error_clear();
    tern_tape_end(tape);
  }
  if (loss[0] && loss[1]) both_same("loss", 0, loss[1], loss[0], 16, 1e-6);
  for (int i = 0; i < 2 && gradient[0][i] && gradient[1][i]; i++)
    both_same("gradient", i, gradient[1][i], gradient[0][i], 64, 1e-5);
  tern_function_release(f);
}

/* With sizes that vary. */
static tern_rc wide_cell(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  tern_tensor *mask = tern_random_bernoulli(TERN_SHAPE(TERN_LIKE(in[0], 0), 2), 0.5, NULL);
  return give(out, tern_tanh(tern_add(in[0], tern_mul(in[1], tern_cast(mask, TERN_F32)))));
}
static tern_rc wide(script *s, tern_tensor *const *in, tern_tensor **loss) {
  tern_tensor *out;
  const tern_rc rc = tern_scan(wide_cell, s, in, 1, in + 1, 1, &out, 0, NULL);
  tern_tensor *more = tern_random_uniform(TERN_SHAPE(TERN_LIKE(in[0], 0), 2), NULL);
  return rc ? rc : give(loss, tern_mean(tern_mul(out, more), NULL));
}
static void test_sizes(void) {
  TERN_SCOPE;
  script s = {.loss = wide};
  tern_function *f = tern_function_new(gradients, &s, 2, 3, NULL);
  for (int64_t n = 2; n < 7; n++) {
    TERN_SCOPE;
    tern_tensor *in[] = {tern_full((tern_shape){2, {n, 2}}, TERN_F32, 0.25),
                         tern_full((tern_shape){3, {3, n, 2}}, TERN_F32, 0.5)};
    tern_tensor *expected[3], *got[3];
    tern_set_seed((uint64_t)n);
    CHECK(gradients(&s, in, 2, expected, 3) == 0, "%s", tern_error());
    tern_set_seed((uint64_t)n);
    if (!CHECK(tern_function_run(f, in, 2, got, 3) == 0, "%s", tern_error())) break;
    for (int i = 0; i < 3; i++) both_same("sizes", i, got[i], expected[i], 32, 1e-6);
  }
  tern_function_info info;
  tern_function_get_info(f, &info);
  CHECK(info.traces == 2, "%d traces", info.traces);
  tern_function_release(f);
}

/* A draw in an inner condition cannot be had again. */
static tern_rc unlucky_trip(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in, (void)n_out;
  return tern_while(lucky, count_draws, self, in, 1, out, &(tern_while_opts){9});
}
static tern_rc unlucky(script *s, tern_tensor *const *in, tern_tensor **loss) {
  tern_tensor *out;
  const tern_scan_loop_opts opts = {.length = 2};
  const tern_rc rc = tern_scan(unlucky_trip, s, in, 1, NULL, 0, &out, 0, &opts);
  return rc ? rc : give(loss, tern_sum(out, NULL));
}
/* Nor can what a checkpoint would draw again. */
static tern_rc kept_loop(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in, (void)n_out;
  return noisy_rnn(self, in, out);
}
static tern_rc checkpointed(script *s, tern_tensor *const *in, tern_tensor **loss) {
  return tern_checkpoint_call(kept_loop, s, NULL, in, 2, loss, 1);
}
/* An optimiser counts the runs of the whole. */
static tern_rc step_trip(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  tern_optimizer *const *optimizer = self;
  tern_tensor *variable = ((tern_tensor *const *)self)[1];
  (void)n_in, (void)n_out;
  const tern_rc rc = tern_optimizer_apply(*optimizer, in, &variable, 1);
  return rc ? rc : give(out, in[0]);
}
static tern_rc steps(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in, (void)n_out;
  const tern_scan_loop_opts opts = {.length = 2};
  return tern_scan(step_trip, self, in, 1, NULL, 0, out, 0, &opts);
}
static void test_other_refusals(void) {
  TERN_SCOPE;
  script s = {.loss = checkpointed};
  tern_tensor *in[] = {tern_f32(TERN_SHAPE(2), 0.5, -0.75), tern_zeros(TERN_SHAPE(4, 2), TERN_F32)}, *out[3];
  tern_function *f = tern_function_new(gradients, &s, 2, 3, NULL);
  CHECK(tern_function_run(f, in, 2, out, 3) != 0, "a checkpoint around a loop that draws");
  CHECK_ERROR(TERN_E_UNSUPPORTED, "cannot be drawn again by tern_checkpoint_call");
  tern_function_release(f);
  void *given[] = {tern_sgd(&(tern_sgd_opts){.learning_rate = 0.5}), tern_variable(in[0], NULL)};
  f = tern_function_new(steps, given, 1, 1, NULL);
  CHECK(tern_function_run(f, in, 1, out, 1) != 0, "an optimiser's step in a loop");
  CHECK_ERROR(TERN_E_UNSUPPORTED, "it counts the runs of a graph");
  tern_function_release(f);
  tern_optimizer_release(given[0]);
  tern_release(given[1]);
}

static void test_refusals(void) {
  TERN_SCOPE;
  script s = {.loss = unlucky};
  tern_tensor *x = tern_f32(TERN_SHAPE(2), 0.5, -0.75), *out[2];
  tern_function *f = tern_function_new(gradients, &s, 1, 2, NULL);
  CHECK(tern_function_run(f, &x, 1, out, 2) != 0, "a draw in an inner condition");
  CHECK_ERROR(TERN_E_UNSUPPORTED, "condition of a loop inside");
  tern_function_release(f);
}

/* ---- variables ---- */

/* Reads the variable, assigns it, reads it again: what tapes see are reads of the variable. */
static tern_rc averaging(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  script *s = self;
  (void)n_in, (void)n_out;
  tern_tensor *y = tern_mul(tern_sin(in[0]), s->variable);
  tern_assign(s->variable, tern_add(tern_mul(s->variable, tern_scalar(0.75)), tern_mul(y, tern_scalar(0.25))));
  return give(out, tern_add(y, tern_mul(in[0], tern_mul(s->variable, s->variable))));
}
static tern_rc averaging_trip(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in, (void)n_out;
  out[0] = tern_add(in[0], tern_scalar_int(1));
  return averaging(self, in + 1, 1, out + 1, 1);
}
static tern_rc average_while(script *s, tern_tensor *const *in, tern_tensor **loss) {
  tern_tensor *state[] = {tern_full((tern_shape){0, {0}}, TERN_I64, 1), in[0]}, *out[2];
  const tern_rc rc = tern_while(below_five, averaging_trip, s, state, 2, out, &(tern_while_opts){4});
  return rc ? rc : give(loss, tern_sum(tern_mul(out[1], s->variable), NULL));
}
static tern_rc averaging_slice(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in, (void)n_out;
  tern_tensor *x = tern_add(in[0], in[1]);
  const tern_rc rc = averaging(self, &x, 1, out, 1);
  return rc ? rc : give(out + 1, tern_mul(out[0], ((script *)self)->variable));
}
static tern_rc average_scan(script *s, tern_tensor *const *in, tern_tensor **loss) {
  tern_tensor *out[2];
  const tern_scan_loop_opts opts = {.reverse = s->reverse};
  const tern_rc rc = tern_scan(averaging_slice, s, in, 1, in + 1, 1, out, 1, &opts);
  return rc ? rc : give(loss, tern_add(tern_sum(out[0], NULL), tern_sum(tern_mul(out[1], out[1]), NULL)));
}
static tern_rc leaves(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  return give(out, tern_mul(in[0], tern_scalar(3)));
}
static tern_rc average_cond(script *s, tern_tensor *const *in, tern_tensor **loss) {
  tern_tensor *out;
  tern_tensor *positive = tern_greater(tern_sum(in[1], NULL), tern_scalar(0));
  const tern_rc rc = tern_cond(positive, averaging, leaves, s, in, 1, &out, 1);
  return rc ? rc : give(loss, tern_sum(tern_mul(out, s->variable), NULL));
}
/* In a branch in a loop. */
static tern_rc branch_trip(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in, (void)n_out;
  tern_tensor *positive = tern_greater(tern_sum(in[1], NULL), tern_scalar(0)), *x = tern_add(in[0], in[1]);
  const tern_rc rc = tern_cond(positive, averaging, leaves, self, &x, 1, &x, 1);
  return rc ? rc : give(out, tern_tanh(tern_mul(x, tern_add(((script *)self)->variable, uniform(2)))));
}
static tern_rc branch_in_loop(script *s, tern_tensor *const *in, tern_tensor **loss) {
  tern_tensor *out;
  const tern_rc rc = tern_scan(branch_trip, s, in, 1, in + 1, 1, &out, 0, NULL);
  return rc ? rc : give(loss, tern_sum(out, NULL));
}

static void test_variables(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_f32(TERN_SHAPE(2), 0.5, -0.75);
  tern_tensor *xs = tern_f32(TERN_SHAPE(4, 2), 0.1, -0.2, 0.3, 0.4, -0.5, 0.6, 0.7, -0.8);
  tern_tensor *in[] = {x, xs};
  script s = {.variable = tern_variable(tern_zeros(TERN_SHAPE(2), TERN_F32), NULL), .by_variable = 1};
  s.loss = average_while;
  same_numbers("average, while", gradients, &s, in, 1, 3, 64, 1e-5);
  s.loss = average_cond;
  same_numbers("average, cond", gradients, &s, in, 2, 4, 64, 1e-5);
  in[1] = tern_neg(xs);
  same_numbers("average, cond, otherwise", gradients, &s, in, 2, 4, 64, 1e-5);
  for (int k = 0; k < 2; k++) {
    s.loss = average_scan;
    s.reverse = k;
    same_numbers("average, scan", gradients, &s, in, 2, 4, 64, 1e-5);
  }
  s.loss = branch_in_loop;
  same_numbers("average, branch in loop", gradients, &s, in, 2, 4, 64, 1e-5);
  s.loss = average_while;
  s.twice = 1;
  tern_tensor *out[3];
  tern_function *f = tern_function_new(gradients, &s, 1, 3, NULL);
  CHECK(tern_function_run(f, &x, 1, out, 3) != 0, "a second derivative");
  CHECK_ERROR(TERN_E_UNSUPPORTED, "second derivative");
  tern_function_release(f);
  tern_release(s.variable);
}

/* What tern_explain says of bodies and sizes. */
static tern_rc nested_once(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  tern_tensor *given[] = {in[0], tern_mul(in[1], tern_scalar(2))};
  (void)n_in, (void)n_out;
  tern_tensor *end;
  const tern_rc rc = tern_scan(nested_trip, self, given, 1, given + 1, 1, &end, 0, NULL);
  return rc ? rc : give(out, end);
}
static void test_explain(void) {
  TERN_SCOPE;
  script s = {0};
  tern_tensor *x = tern_f32(TERN_SHAPE(2), 0.5, -0.75), *out;
  tern_function *f = tern_function_new(nested_once, &s, 2, 1, NULL);
  for (int n = 3; n < 6; n++) {
    tern_tensor *in[] = {x, tern_ones(TERN_SHAPE(n, 2), TERN_F32)};
    CHECK(tern_function_run(f, in, 2, &out, 1) == 0, "%s", tern_error());
  }
  char *text = tern_explain(f);
  static const char *const parts[] = {"operands: float32[2] float32[3, 2]\n",
                                      "program for float32[2] float32[3, 2]\n",
                                      "control\n      condition: ",
                                      "\n      do: ",
                                      "\n          0 ",
                                      "control\n            then: ",
                                      "\n            else: "};
  for (size_t i = 0; i < sizeof parts / sizeof *parts && text; i++)
    CHECK(strstr(text, parts[i]), "no \"%s\" in\n%s", parts[i], text);
  CHECK(text && !strchr(text, 1), "%s", text);
  free(text);
  tern_function_release(f);
  f = tern_function_new(walking, NULL, 2, 4, NULL);
  for (int n = 2; n < 5; n++) {
    tern_tensor *in[] = {tern_full((tern_shape){0, {0}}, TERN_I64, 2), tern_ones(TERN_SHAPE(n, 2), TERN_F32)}, *all[4];
    CHECK(tern_function_run(f, in, 2, all, 4) == 0, "%s", tern_error());
  }
  text = tern_explain(f);
  CHECK(text && strstr(text, "operands: int64[] float32[s0, 2]; s0: any size\n") &&
            strstr(text, "program for int64[] float32[s0 = 4, 2]\n"),
        "%s", text);
  free(text);
  tern_function_release(f);
}

static const test_case cases[] = {{"draws", test_draws},
                                  {"session", test_session},
                                  {"gradients", test_gradients},
                                  {"tape_around", test_tape_around},
                                  {"sizes", test_sizes},
                                  {"refusals", test_refusals},
                                  {"other_refusals", test_other_refusals},
                                  {"variables", test_variables},
                                  {"explain", test_explain}};
TEST_MAIN("control_draw", cases)
