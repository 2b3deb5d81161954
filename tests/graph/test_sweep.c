/* Loops over slices (core/graph/passes/sweep.c): compiled, they give what they give eagerly, whatever of them is such a
   loop and whatever is not. */
#include "support/values.h"
#include <stdlib.h>
#include <string.h>
#include <tern/graph.h>

enum { TIME = 6, BATCH = 2, UNITS = 3 };

typedef struct form {
  const char *name;
  tern_function_body step; /* 2 states; slices of x [TIME, BATCH, UNITS] and y [TIME, UNITS]; 2 ys */
  int reverse, whole;      /* whole: x is used beside the loop too, ys are summed */
} form;

static const form *now;
static tern_tensor *outside; /* x, for bodies that look at all of it */

static tern_rc done(tern_tensor **out, int n) {
  for (int i = 0; i < n; i++)
    if (!out[i]) return TERN_E_ARG;
  return TERN_OK;
}

/* A state is a y; a y is nobody else's. */
static tern_rc plain(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in;
  out[0] = out[2] = tern_tanh(tern_add(tern_mul(in[0], tern_scalar(0.5)), in[2]));
  out[1] = tern_add(in[1], tern_mul(out[0], in[3]));
  out[3] = tern_sub(out[1], in[2]);
  return done(out, n_out);
}

/* The states that came in, and an x, as ys. */
static tern_rc through(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in;
  out[0] = tern_add(in[0], in[2]);
  out[1] = in[1];
  out[2] = in[0];
  out[3] = in[2];
  return done(out, n_out);
}

/* One value in both ys and both states. */
static tern_rc same(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in;
  for (int i = 0; i < 4; i++) out[i] = i ? out[0] : tern_add(tern_mul(in[0], in[3]), in[2]);
  return done(out, n_out);
}

/* ys that are views; states change places. */
static tern_rc views(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in;
  tern_tensor *z = tern_add(in[0], tern_mul(in[2], in[3]));
  out[0] = in[1];
  out[1] = z;
  out[2] = tern_flip(z, NULL, 0);
  out[3] = tern_transpose(tern_reshape(z, TERN_SHAPE(UNITS, BATCH)));
  return done(out, n_out);
}

/* A slice and all of x. */
static tern_rc all_of_it(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in;
  out[0] = tern_sub(in[2], tern_mean(outside, TERN_AXES(0)));
  out[1] = tern_add(in[1], out[0]);
  out[2] = tern_mul(in[0], in[3]);
  out[3] = tern_sum(out[1], NULL);
  return done(out, n_out);
}

/* A loop in the loop. */
static tern_rc inner(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in;
  out[0] = out[1] = tern_add(tern_mul(in[0], tern_scalar(0.5)), in[1]);
  return done(out, n_out);
}

static tern_rc nested(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  tern_tensor *found[2], *start = tern_index(in[0], 0, 0);
  (void)n_in;
  const tern_rc rc = tern_scan(inner, self, &start, 1, (tern_tensor *[]){in[2]}, 1, found, 1, NULL);
  if (rc) return rc;
  out[0] = found[1];
  out[1] = tern_add(in[1], found[1]);
  out[2] = found[1];
  out[3] = found[0];
  return done(out, n_out);
}

static tern_rc run(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  tern_tensor *sources[4] = {in[0], in[1], in[2], in[3]}, *found[4];
  (void)self, (void)n_in, (void)n_out;
  outside = in[2];
  tern_tape *tape = tern_tape_begin(&(tern_tape_opts){.persistent = 1});
  for (int i = 0; i < 4 && tape; i++)
    if (tern_tape_watch(tape, in[i])) return TERN_E_ARG;
  const tern_rc rc = tern_scan(now->step, NULL, in, 2, in + 2, 2, out, 2, &(tern_scan_loop_opts){now->reverse, 0});
  if (rc) return rc;
  tern_tensor *loss = tern_scalar(0);
  for (int i = 0; i < 4; i++) loss = tern_add(loss, tern_sum(tern_square(out[i]), NULL));
  if (now->whole) out[2] = tern_add(tern_sum(out[2], NULL), tern_sum(in[2], NULL));
  const tern_rc back =
      tern_tape_gradients(tape, &loss, NULL, 1, sources, 4, found, &(tern_gradient_opts){.unconnected_zeros = 1});
  for (int i = 0; i < 4; i++) out[4 + i] = back ? NULL : found[i];
  tern_tape_end(tape);
  return back ? back : done(out, 8);
}

static void check(const form *f, int64_t time) {
  TERN_SCOPE;
  const tern_random_opts seed = {.seed = 7};
  tern_tensor *in[] = {tern_random_normal(TERN_SHAPE(BATCH, UNITS), &seed),
                       tern_random_normal(TERN_SHAPE(BATCH, UNITS), &(tern_random_opts){.seed = 8}),
                       tern_random_normal(TERN_SHAPE(time, BATCH, UNITS), &(tern_random_opts){.seed = 9}),
                       tern_random_normal(TERN_SHAPE(time, UNITS), &(tern_random_opts){.seed = 10})};
  tern_tensor *a[8], *b[8];
  now = f;
  tern_function *function = tern_function_new(run, NULL, 4, 8, NULL);
  CHECK(run(NULL, in, 4, a, 8) == TERN_OK, "%s: %s", f->name, tern_error());
  for (int again = 0; again < 4; again++) {
    if (!CHECK(tern_function_run(function, in, 4, b, 8) == TERN_OK, "%s: %s", f->name, tern_error())) break;
    for (int i = 0; i < 8; i++)
      CHECK(tern_allclose(b[i], a[i], 1e-5, 1e-5) == 1, "%s: time %d, run %d, result %d differs %s", f->name, (int)time,
            again, i, tern_error());
  }
  tern_function_release(function);
}

static void test_forms(void) {
  static const form forms[] = {{"plain", plain, 0, 0},     {"reverse", plain, 1, 0},   {"whole", plain, 0, 1},
                               {"through", through, 0, 0}, {"through", through, 1, 1}, {"same", same, 0, 0},
                               {"views", views, 0, 0},     {"views", views, 1, 0},     {"all", all_of_it, 0, 0},
                               {"nested", nested, 0, 0},   {"nested", nested, 1, 1}};
  const int64_t times[] = {TIME, 1};
  for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
    for (int t = 0; t < 2; t++)
      if (test_chosen()) check(&forms[i], times[t]);
}

/* A loop of the program's own with a count: that is a result too. */
static tern_rc more(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in;
  out[0] = tern_less(in[0], tern_scalar_int(TIME));
  return done(out, n_out);
}

static tern_rc count(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  tern_tensor *x = self;
  (void)n_in;
  out[0] = tern_add(in[0], tern_scalar_int(1));
  out[1] = tern_add(in[1], tern_take(x, in[0], 0));
  return done(out, n_out);
}

static tern_rc loop(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  tern_tensor *state[] = {tern_full(TERN_SHAPE(), TERN_I64, 0), tern_zeros(TERN_SHAPE(2), TERN_F32)};
  return tern_while(more, count, in[0], state, 2, out, NULL);
}

static void test_count(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_ones(TERN_SHAPE(TIME, 2), TERN_F32), *out[2];
  tern_function *f = tern_function_new(loop, NULL, 1, 2, NULL);
  CHECK(tern_function_run(f, &x, 1, out, 2) == TERN_OK, "%s", tern_error());
  CHECK_LIST(out[0], TERN_SHAPE(), TERN_I64, TIME);
  CHECK_LIST(out[1], TERN_SHAPE(2), TERN_F32, TIME, TIME);
  tern_function_release(f);
}

static const test_case cases[] = {{"forms", test_forms}, {"a count", test_count}};
TEST_MAIN("graph.sweep", cases)
