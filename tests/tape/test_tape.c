/* The tape: what it records and for how long, nesting, persistence, custom gradients, checkpoints, and what it
   refuses. */
#include "support/test.h"
#include <math.h>
#include <pthread.h>
#include <string.h>
#include <tern/tern.h>

static double item(tern_tensor *t) { return t == TERN_NONE ? NAN : tern_item(t); }
static double at(tern_tensor *t, int i) {
  tern_tensor *flat = tern_flatten(t);
  return flat ? tern_item(tern_index(flat, 0, i)) : NAN;
}
static void near(const char *what, double got, double expected) {
  CHECK(fabs(got - expected) <= 1e-5 * (1 + fabs(expected)), "%s: got %.9g, expected %.9g", what, got, expected);
}

static void variables_watch_themselves(void) {
  TERN_SCOPE;
  tern_tensor *w = tern_variable(tern_f32(TERN_SHAPE(2, 1), 2, 3), &(tern_variable_opts){.name = "w"});
  tern_tensor *frozen = tern_variable(tern_f32(TERN_SHAPE(), 5), &(tern_variable_opts){.frozen = 1});
  tern_tensor *x = tern_f32(TERN_SHAPE(2, 2), 1, 2, 3, 4), *g[2];
  CHECK(!tern_recording(), "recording without a tape");
  tern_tape *tape = tern_tape_begin(NULL);
  CHECK(tern_recording(), "not recording");
  tern_tensor *loss = tern_sum(tern_square(tern_mul(tern_matmul(x, w), frozen)), NULL);
  tern_tensor *const sources[] = {w, frozen};
  CHECK(tern_tape_gradient(tape, loss, sources, 2, g) == TERN_OK, "%s", tern_error());
  /* y = 5 x w = (40, 90); d = 2 y 5 x^T */
  near("dw0", at(g[0], 0), 2 * 5 * (40 * 1 + 90 * 3));
  near("dw1", at(g[0], 1), 2 * 5 * (40 * 2 + 90 * 4));
  CHECK(g[1] == TERN_NONE, "a frozen variable has a gradient");
  CHECK(!tern_recording(), "a one-shot tape records on");
  CHECK(tern_rank(g[0]) == 2 && tern_dim(g[0], 0) == 2, "shape of the gradient");
  tern_release(w);
  tern_release(frozen);
  CHECK_NO_ERROR();
}

static void unused_variables_and_zeros(void) {
  TERN_SCOPE;
  tern_tensor *a = tern_variable(tern_f32(TERN_SHAPE(3), 1, 2, 3), NULL),
              *b = tern_variable(tern_f32(TERN_SHAPE(2), 1, 2), NULL);
  tern_tensor *const sources[] = {a, b};
  tern_tensor *g[2];
  tern_tape *tape = tern_tape_begin(&(tern_tape_opts){.persistent = 1});
  tern_tensor *y = tern_sum(a, NULL);
  CHECK(!tern_tape_gradient(tape, y, sources, 2, g), "%s", tern_error());
  near("used", at(g[0], 2), 1);
  CHECK(g[1] == TERN_NONE, "an unused variable has a gradient");
  CHECK(!tern_tape_gradients(tape, &y, NULL, 1, sources, 2, g, &(tern_gradient_opts){.unconnected_zeros = 1}), "%s",
        tern_error());
  near("zeros", at(g[1], 1), 0);
  tern_tensor *c = tern_ones(TERN_SHAPE(2), TERN_F32);
  CHECK(!tern_tape_gradients(tape, &c, NULL, 1, sources, 2, g, &(tern_gradient_opts){.unconnected_zeros = 1}), "%s",
        tern_error());
  near("zeros of an unseen target", at(g[0], 0), 0);
  tern_tape_end(tape);
  tern_release(a);
  tern_release(b);
  CHECK_NO_ERROR();
}

static void refused(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_f32(TERN_SHAPE(2), 1, 2), *i = tern_i32(TERN_SHAPE(2), 1, 2), *g[1] = {x};
  CHECK(tern_tape_watch(NULL, x) == TERN_E_ARG, "a NULL tape");
  CHECK_ERROR(TERN_E_ARG, "the tape is NULL");
  tern_tape *tape = tern_tape_begin(&(tern_tape_opts){.persistent = 1});
  CHECK(tern_tape_watch(tape, i) == TERN_E_ARG, "an integer is watched");
  CHECK_ERROR(TERN_E_ARG, "int32");
  CHECK(!tern_tape_watch(tape, x), "%s", tern_error());
  tern_tensor *y = tern_square(x), *unseen = tern_ones(TERN_SHAPE(2), TERN_F32);
  CHECK(tern_tape_gradient(tape, unseen, &x, 1, g) == TERN_E_ARG && !g[0], "a target that the tape never saw");
  CHECK_ERROR(TERN_E_ARG, "never saw");
  CHECK(tern_tape_gradient(tape, y, &unseen, 1, g) == TERN_E_ARG && !g[0], "a source that was not watched");
  CHECK_ERROR(TERN_E_ARG, "tern_tape_watch");
  CHECK(tern_tape_gradient(tape, tern_cast(y, TERN_I32), &x, 1, g) == TERN_E_ARG, "the gradient of an integer");
  CHECK_ERROR(TERN_E_ARG, "int32");
  tern_tensor *const seed = tern_ones(TERN_SHAPE(3), TERN_F32);
  CHECK(tern_tape_gradients(tape, &y, &seed, 1, &x, 1, g, NULL) == TERN_E_ARG, "a seed of another shape");
  CHECK_ERROR(TERN_E_ARG, "(3,)");
  tern_tape_end(tape);
  CHECK(tern_tape_gradient(tape, y, &x, 1, g) == TERN_E_ARG, "a finished tape");
  CHECK_ERROR(TERN_E_ARG, "has ended");
  tern_tape_end(tape);
  tern_tape *once = tern_tape_begin(NULL);
  tern_tape_watch(once, x);
  y = tern_square(x);
  CHECK(!tern_tape_gradient(once, y, &x, 1, g), "%s", tern_error());
  CHECK(tern_tape_gradient(once, y, &x, 1, g) == TERN_E_ARG, "a second gradient of a one-shot tape");
  CHECK_ERROR(TERN_E_ARG, "persistent");
  CHECK(tern_tape_gradient(NULL, NULL, NULL, 1, NULL) == TERN_E_ARG, "NULL arrays");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  CHECK_NO_ERROR();
}

static void assigned_after_use(void) {
  TERN_SCOPE;
  tern_tensor *v = tern_variable(tern_f32(TERN_SHAPE(), 3), NULL), *g[1];
  tern_tape *tape = tern_tape_begin(NULL);
  tern_tensor *y = tern_mul(v, tern_square(v)); /* v^3 at 3 */
  tern_assign(v, tern_f32(TERN_SHAPE(), 10));
  y = tern_add(y, tern_mul(v, tern_scalar(2)));
  CHECK(!tern_tape_gradient(tape, y, &v, 1, g), "%s", tern_error());
  near("3 v^2 at the old value, + 2", item(g[0]), 3 * 9 + 2);
  near("the value now", item(v), 10);
  tern_release(v);
  CHECK_NO_ERROR();
}

static void nested(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_f32(TERN_SHAPE(3), 1, 2, 3), *g[1], *h[1];
  tern_tape *outer = tern_tape_begin(NULL);
  tern_tape_watch(outer, x);
  tern_tape *inner = tern_tape_begin(NULL);
  tern_tape_watch(inner, x);
  tern_tensor *y = tern_sum(tern_mul(tern_square(x), x), NULL);
  CHECK(!tern_tape_gradient(inner, y, &x, 1, g), "%s", tern_error());
  near("3 x^2", at(g[0], 2), 27);
  tern_tensor *penalty = tern_sum(tern_square(g[0]), NULL); /* sum 9 x^4 */
  CHECK(!tern_tape_gradient(outer, penalty, &x, 1, h), "%s", tern_error());
  near("36 x^3", at(h[0], 0), 36);
  near("36 x^3", at(h[0], 2), 36 * 27);
  CHECK_NO_ERROR();
}

/* An inner tape sees only what it watches, though it shares the record. */
static void nested_watching(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_f32(TERN_SHAPE(), 2), *z = tern_f32(TERN_SHAPE(), 5), *g[1];
  tern_tape *outer = tern_tape_begin(NULL);
  tern_tape_watch(outer, x);
  tern_tensor *before = tern_square(x);
  for (int i = 0; i < 3; i++) {
    tern_tape *inner = tern_tape_begin(NULL);
    tern_tape_watch(inner, z);
    tern_tensor *y = tern_mul(before, z);
    CHECK(tern_tape_gradient(inner, y, &x, 1, g) == TERN_E_ARG, "the inner tape knows what only the outer one watches");
    CHECK_ERROR(TERN_E_ARG, "not watched");
    inner = tern_tape_begin(NULL);
    tern_tape_watch(inner, z);
    y = tern_mul(before, z);
    CHECK(!tern_tape_gradient(inner, y, &z, 1, g), "%s", tern_error());
    near("x^2", item(g[0]), 4);
  }
  tern_tensor *y = tern_mul(before, z);
  CHECK(!tern_tape_gradient(outer, y, &x, 1, g), "%s", tern_error());
  near("2 x z", item(g[0]), 20);
  CHECK_NO_ERROR();
}

static void persistent_and_reset(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_f32(TERN_SHAPE(), 3), *g[1];
  tern_tape *tape = tern_tape_begin(&(tern_tape_opts){.persistent = 1});
  tern_tape_watch(tape, x);
  tern_tensor *y = tern_square(x), *z = tern_square(y);
  for (int i = 0; i < 3; i++) {
    CHECK(!tern_tape_gradient(tape, z, &x, 1, g), "%s", tern_error());
    near("4 x^3", item(g[0]), 108);
    CHECK(!tern_tape_gradient(tape, y, &x, 1, g), "%s", tern_error());
    near("2 x", item(g[0]), 6);
    CHECK(!tern_tape_gradient(tape, z, &y, 1, g), "%s", tern_error());
    near("2 y", item(g[0]), 18);
  }
  CHECK(!tern_tape_reset(tape), "%s", tern_error());
  CHECK(tern_tape_gradient(tape, z, &x, 1, g) == TERN_E_ARG, "what was recorded before the reset is known");
  CHECK_ERROR(TERN_E_ARG, "never saw");
  tern_tape_watch(tape, x);
  y = tern_exp(x);
  CHECK(!tern_tape_gradient(tape, y, &x, 1, g), "%s", tern_error());
  near("exp", item(g[0]), exp(3));
  CHECK_NO_ERROR();
}

static void stopped(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_f32(TERN_SHAPE(), 3), *g[1];
  tern_tape *tape = tern_tape_begin(&(tern_tape_opts){.persistent = 1});
  tern_tape_watch(tape, x);
  tern_tensor *y = tern_mul(x, tern_stop_gradient(tern_square(x))), *hidden;
  CHECK(!tern_tape_gradient(tape, y, &x, 1, g), "%s", tern_error());
  near("x * const", item(g[0]), 9);
  {
    TERN_NO_GRADIENT;
    CHECK(!tern_recording(), "recording");
    hidden = tern_square(x);
  }
  CHECK(tern_recording(), "not recording again");
  y = tern_add(hidden, x);
  CHECK(!tern_tape_gradient(tape, y, &x, 1, g), "%s", tern_error());
  near("1", item(g[0]), 1);
  CHECK_NO_ERROR();
}

static void views(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_reshape(tern_arange(0, 24, 1, TERN_F64), TERN_SHAPE(2, 3, 4)), *g[1];
  tern_tape *tape = tern_tape_begin(NULL);
  tern_tape_watch(tape, x);
  const int order[] = {2, 0, 1};
  const tern_range part[] = {TERN_ALL, TERN_RANGE(2, TERN_OPEN, -2), TERN_RANGE(0, 4, 2)};
  tern_tensor *a = tern_permute(x, order, 3);                 /* [4, 2, 3] */
  tern_tensor *b = tern_flatten(tern_slice(x, part, 3));      /* 2 * 2 * 2 */
  tern_tensor *c = tern_index(tern_expand_dims(x, 0), 2, -1); /* [1, 2, 4] */
  tern_tensor *d = tern_expand(tern_squeeze(c, 0), TERN_SHAPE(5, 2, 4));
  tern_tensor *y =
      tern_add(tern_sum(tern_mul(a, a), NULL), tern_add(tern_sum(tern_square(b), NULL), tern_sum(d, NULL)));
  CHECK(!tern_tape_gradient(tape, y, &x, 1, g), "%s", tern_error());
  for (int i = 0; i < 24; i++) {
    const int j = i / 4 % 3, k = i % 4;
    near("views", at(g[0], i), 2 * i + (j != 1 && k % 2 == 0 ? 2 * i : 0) + (j == 2 ? 5 : 0));
  }
  CHECK_NO_ERROR();
}

static void jacobian(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_f64(TERN_SHAPE(3), 1, 2, 3);
  tern_tape *tape = tern_tape_begin(NULL);
  tern_tape_watch(tape, x);
  tern_tensor *y = tern_mul(tern_reshape(x, TERN_SHAPE(3, 1)), tern_square(x)); /* y[i][j] = x_i x_j^2 */
  tern_tensor *j = tern_tape_jacobian(tape, y, x);
  CHECK(j && tern_rank(j) == 3, "%s", tern_error());
  for (int i = 0; i < 27 && j; i++) {
    const int r = i / 9, c = i / 3 % 3, k = i % 3;
    const double v[] = {1, 2, 3};
    near("jacobian", at(j, i), (k == r) * v[c] * v[c] + (k == c) * v[r] * 2 * v[c]);
  }
  CHECK_NO_ERROR();
}

/* ---- custom gradients and checkpoints ---- */

static tern_rc cubed(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  out[0] = tern_mul(in[0], tern_square(in[0]));
  out[1] = in[0];
  return tern_error_code();
}
static tern_rc tenfold(void *self, tern_tensor *const *in, int n_in, tern_tensor *const *out, tern_tensor *const *dout,
                       int n_out, tern_tensor **din) {
  (void)in, (void)n_in, (void)out, (void)n_out;
  ++*(int *)self;
  din[0] = tern_mul(dout[0], tern_scalar(10));
  if (dout[1] != TERN_NONE) din[0] = tern_add(din[0], dout[1]);
  return tern_error_code();
}
static void count_release(void *self) { ((int *)self)[1]++; }

static void custom(void) {
  TERN_SCOPE;
  int calls[2] = {0, 0};
  tern_tensor *x = tern_f32(TERN_SHAPE(2), 1, 2), *y[2], *g[1];
  tern_tape *tape = tern_tape_begin(NULL);
  tern_tape_watch(tape, x);
  CHECK(!tern_custom_gradient(cubed, tenfold, calls, count_release, &x, 1, y, 2), "%s", tern_error());
  near("forward", at(y[0], 1), 8);
  tern_tensor *loss = tern_add(tern_sum(y[0], NULL), tern_sum(tern_square(y[1]), NULL));
  CHECK(!tern_tape_gradient(tape, loss, &x, 1, g), "%s", tern_error());
  near("10 + 2 x", at(g[0], 1), 14);
  CHECK(calls[0] == 1 && calls[1] == 1, "%d calls, %d releases", calls[0], calls[1]);
  CHECK(!tern_custom_gradient(cubed, tenfold, calls, count_release, &x, 1, y, 2), "without a tape: %s", tern_error());
  CHECK(calls[1] == 2, "released without a tape");
  CHECK_NO_ERROR();
}

struct block {
  tern_tensor *w;
  int runs;
};
static tern_rc noisy(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in, (void)n_out;
  struct block *b = self;
  b->runs++;
  tern_tensor *noise = tern_random_uniform(TERN_SHAPE(4), &(tern_random_opts){.dtype = TERN_F64});
  out[0] = tern_tanh(tern_mul(tern_mul(in[0], b->w), noise));
  return tern_error_code();
}

static void checkpoint(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_f64(TERN_SHAPE(4), 1, -2, 3, 4), *g[2][2], *second[2];
  struct block b = {tern_variable(tern_f64(TERN_SHAPE(4), 0.1, 0.2, 0.3, 0.4), NULL), 0};
  tern_tensor *const sources[] = {x, b.w};
  for (int with = 0; with < 2; with++) {
    tern_set_seed(7);
    tern_assign(b.w, tern_f64(TERN_SHAPE(4), 0.1, 0.2, 0.3, 0.4));
    tern_tape *outer = tern_tape_begin(NULL);
    tern_tape_watch(outer, x);
    tern_tape *tape = tern_tape_begin(NULL);
    tern_tape_watch(tape, x);
    tern_tensor *y;
    if (with)
      CHECK(!tern_checkpoint_call(noisy, &b, NULL, &x, 1, &y, 1), "%s", tern_error());
    else
      noisy(&b, &x, 1, &y, 1);
    tern_tensor *more = tern_random_uniform(TERN_SHAPE(4), &(tern_random_opts){.dtype = TERN_F64});
    tern_assign(b.w, tern_zeros(TERN_SHAPE(4), TERN_F64)); /* the backward pass must not see it */
    CHECK(!tern_tape_gradient(tape, tern_sum(tern_mul(tern_square(y), more), NULL), sources, 2, g[with]), "%s",
          tern_error());
    near("the variable is as assigned", at(b.w, 0), 0);
    tern_tensor *norm = tern_sum(tern_square(g[with][0]), NULL);
    CHECK(!tern_tape_gradient(outer, norm, &x, 1, &second[with]), "%s", tern_error());
  }
  /* plain, checkpointed, and again for each of the two orders */
  CHECK(b.runs == 4, "the function ran %d times", b.runs);
  for (int i = 0; i < 2; i++)
    CHECK(tern_allclose(g[0][i], g[1][i], 1e-12, 1e-14) == 1, "gradient %d differs under checkpointing", i);
  CHECK(tern_allclose(second[0], second[1], 1e-12, 1e-14) == 1, "the second derivative differs under checkpointing");
  tern_release(b.w);
  CHECK_NO_ERROR();
}

/* Tapes that end in another order than they began. */
static void any_order(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_f32(TERN_SHAPE(), 3), *z = tern_f32(TERN_SHAPE(), 5), *g[1];
  for (int how = 0; how < 3; how++) { /* the outer one ends, is reset, gives its gradient */
    TERN_SCOPE;
    tern_tape *outer = tern_tape_begin(NULL);
    tern_tape_watch(outer, x);
    tern_tensor *y = tern_mul(x, x);
    tern_tape *inner = tern_tape_begin(NULL);
    if (how == 0)
      tern_tape_end(outer);
    else if (how == 1)
      CHECK(!tern_tape_reset(outer), "%s", tern_error());
    else
      CHECK(!tern_tape_gradient(outer, y, &x, 1, g), "%s", tern_error());
    tern_tape_watch(inner, z);
    tern_tensor *w = tern_mul(z, z);
    CHECK(!tern_tape_gradient(inner, w, &z, 1, g), "%s", tern_error());
    near("the inner tape of one that ended", item(g[0]), 10);
  }
  CHECK_NO_ERROR();
}

/* Wrong arguments leave a tape as it was. */
static void wrong_argument(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_f64(TERN_SHAPE(), 3), *other = tern_f64(TERN_SHAPE(), 1), *g[1];
  tern_tape *tape = tern_tape_begin(NULL);
  tern_tape_watch(tape, x);
  tern_tensor *y = tern_mul(x, x), *seed = tern_scalar(0.1);
  CHECK(tern_tape_gradient(tape, y, &other, 1, g) == TERN_E_ARG, "a source that was not watched");
  CHECK_ERROR(TERN_E_ARG, "not watched");
  CHECK(!tern_tape_gradients(tape, &y, &seed, 1, &x, 1, g, NULL), "%s", tern_error());
  CHECK(fabs(item(g[0]) - 0.6) < 1e-15, "a host scalar as seed lost digits: %.17g", item(g[0]));
  CHECK_NO_ERROR();
}

static tern_rc leaves_null(void *self, tern_tensor *const *in, int n_in, tern_tensor *const *out,
                           tern_tensor *const *dout, int n_out, tern_tensor **din) {
  (void)in, (void)n_in, (void)out, (void)dout, (void)n_out;
  tern_tape **walked = self;
  din[0] = NULL;
  if (walked && *walked) tern_tape_end(*walked); /* refused: it is being walked */
  return TERN_OK;
}

static void bad_custom(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_f32(TERN_SHAPE(2), 1, 2), *y[2], *g[1];
  for (int with = 0; with < 2; with++) {
    tern_tape *tape = tern_tape_begin(NULL);
    tern_tape_watch(tape, x);
    CHECK(!tern_custom_gradient(cubed, leaves_null, with ? &tape : NULL, NULL, &x, 1, y, 2), "%s", tern_error());
    CHECK(tern_tape_gradient(tape, y[0], &x, 1, g) != TERN_OK && !g[0], "a rule that fails");
    CHECK_ERROR(TERN_E_ARG, with ? "is being taken" : "NULL");
  }
  CHECK_NO_ERROR();
}

static tern_rc product(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_out;
  out[0] = n_in > 1 ? tern_mul(in[0], in[1]) : in[0];
  if (self) out[0] = tern_mul(out[0], self);
  return tern_error_code();
}
static tern_rc nested_product(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  TERN_NO_GRADIENT; /* what is read here counts all the same when the function runs again */
  return tern_checkpoint_call(product, self, NULL, in, n_in, out, n_out);
}
static tern_rc nested_recorded(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  return tern_checkpoint_call(product, self, NULL, in, n_in, out, n_out);
}

static void checkpoint_operands(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_f32(TERN_SHAPE(), 3), *v = tern_variable(tern_f32(TERN_SHAPE(), 4), NULL), *y, *g[2];
  tern_tensor *const twice[] = {x, x}, *const sources[] = {x, v};
  tern_tape *tape = tern_tape_begin(NULL);
  tern_tape_watch(tape, x);
  CHECK(!tern_checkpoint_call(product, NULL, NULL, twice, 2, &y, 1), "%s", tern_error());
  CHECK(!tern_tape_gradient(tape, y, &x, 1, g), "%s", tern_error());
  near("one operand twice", item(g[0]), 6);
  tape = tern_tape_begin(NULL);
  tern_tape_watch(tape, x);
  CHECK(!tern_checkpoint_call(nested_recorded, v, NULL, &x, 1, &y, 1), "%s", tern_error());
  tern_assign(v, tern_f32(TERN_SHAPE(), 50));
  {
    TERN_NO_GRADIENT;
    CHECK(!tern_tape_gradient(tape, y, sources, 2, g), "%s", tern_error());
  }
  near("nested, by the operand, the variable as it was", item(g[0]), 4);
  near("nested, by the variable", item(g[1]), 3);
  tern_assign(v, tern_f32(TERN_SHAPE(), 4));
  tape = tern_tape_begin(NULL);
  CHECK(!tern_checkpoint_call(product, v, NULL, &v, 1, &y, 1), "%s", tern_error());
  tern_assign(v, tern_f32(TERN_SHAPE(), 50));
  CHECK(!tern_tape_gradient(tape, y, &v, 1, g), "%s", tern_error());
  near("a variable as operand and read", item(g[0]), 8);
  y = x; /* results into the array of the operands */
  CHECK(!tern_checkpoint_call(nested_product, v, NULL, &y, 1, &y, 1), "%s", tern_error());
  near("in place", item(y), 150);
  tern_release(v);
  CHECK_NO_ERROR();
}

/* ---- memory, scopes, threads ---- */

static uint64_t live(void) {
  tern_memory m = {0};
  tern_memory_info(NULL, &m);
  return m.live;
}

static void steps_leave_nothing(void) {
  TERN_SCOPE;
  tern_tensor *w = tern_variable(tern_random_normal(TERN_SHAPE(16, 16), NULL), NULL);
  tern_tensor *x = tern_ones(TERN_SHAPE(8, 16), TERN_F32);
  uint64_t before = 0;
  for (int i = 0; i < 1000; i++) {
    TERN_SCOPE;
    if (i == 10) before = live();
    tern_tape *tape = tern_tape_begin(NULL);
    tern_tensor *y = tern_mean(tern_square(tern_tanh(tern_matmul(x, w))), NULL), *g[1];
    if (i % 3 == 0) continue; /* abandoned: the scope ends it */
    CHECK(!tern_tape_gradient(tape, y, &w, 1, g), "%s", tern_error());
    tern_assign(w, tern_sub(w, tern_mul(g[0], tern_scalar(0.01))));
  }
  CHECK(!tern_recording(), "an abandoned tape records");
  CHECK(live() == before, "1000 steps changed the live bytes from %llu to %llu", (unsigned long long)before,
        (unsigned long long)live());
  tern_release(w);
  CHECK_NO_ERROR();
}

static void *other_thread(void *tape) {
  TERN_SCOPE;
  tern_tensor *x = tern_ones(TERN_SHAPE(2), TERN_F32);
  CHECK(tern_tape_watch(tape, x) == TERN_E_ARG, "a tape of another thread");
  CHECK_ERROR(TERN_E_ARG, "another thread");
  return NULL;
}

static tern_tensor *shared;
static void *train(void *unused) {
  (void)unused;
  for (int i = 0; i < 300; i++) {
    TERN_SCOPE;
    tern_tensor *g[1];
    tern_tape *tape = tern_tape_begin(NULL);
    tern_tensor *y = tern_sum(tern_mul(shared, tern_square(shared)), NULL);
    CHECK(!tern_tape_gradient(tape, y, &shared, 1, g), "%s", tern_error());
    near("two threads, one variable", at(g[0], 1), 12);
  }
  return NULL;
}

static void threads(void) {
  TERN_SCOPE;
  tern_tape *tape = tern_tape_begin(NULL);
  pthread_t t[2];
  pthread_create(&t[0], NULL, other_thread, tape);
  pthread_join(t[0], NULL);
  shared = tern_variable(tern_f32(TERN_SHAPE(2), 1, 2), NULL);
  for (int i = 0; i < 2; i++) pthread_create(&t[i], NULL, train, NULL);
  for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
  tern_release(shared);
  CHECK_NO_ERROR();
}

static void many_tapes(void) {
  TERN_SCOPE;
  tern_tape *tapes[33];
  for (int i = 0; i < 33; i++) tapes[i] = tern_tape_begin(NULL);
  CHECK(tapes[31] && !tapes[32], "32 tapes and no more");
  CHECK_ERROR(TERN_E_ARG, "32");
  for (int i = 0; i < 32; i++) tern_tape_end(tapes[i]);
  CHECK(!tern_recording(), "recording after all tapes ended");
  CHECK_NO_ERROR();
}

static const test_case cases[] = {{"variables watch themselves", variables_watch_themselves},
                                  {"unused variables and zeros", unused_variables_and_zeros},
                                  {"refused", refused},
                                  {"assigned after use", assigned_after_use},
                                  {"nested", nested},
                                  {"nested watching", nested_watching},
                                  {"persistent and reset", persistent_and_reset},
                                  {"stopped", stopped},
                                  {"views", views},
                                  {"jacobian", jacobian},
                                  {"custom", custom},
                                  {"checkpoint", checkpoint},
                                  {"any order", any_order},
                                  {"wrong argument", wrong_argument},
                                  {"bad custom", bad_custom},
                                  {"checkpoint operands", checkpoint_operands},
                                  {"steps leave nothing", steps_leave_nothing},
                                  {"threads", threads},
                                  {"many tapes", many_tapes}};
TEST_MAIN("tape", cases)
