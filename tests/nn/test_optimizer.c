/* Optimisers against Keras 3 (fixtures/optimizers.bin), and what Keras has no word for: launches, compiles, copy on
   write, saved state, bad input. */
#include "base/alloc.h"
#include "fixtures/fixtures.h"
#include "support/values.h"
#include "tensor/tensor.h"
#include <math.h>
#include <stdlib.h>
#include <tern/train.h>

enum { MAX_VARIABLES = 4, MAX_VALUES = 64 };
static const int kept[] = {1, 2, 10, 100};

static double option(const fixture *f, const char *name) {
  const int64_t bits = fixture_attr(f, name, 0);
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

#define COMMON(f)                                                                         \
  .learning_rate = option(f, "learning_rate"), .weight_decay = option(f, "weight_decay"), \
  .clip_value = option(f, "clip_value"), .clip_norm = option(f, "clip_norm"),             \
  .global_clip_norm = option(f, "global_clip_norm")

static tern_optimizer *optimizer_of(const fixture *f) {
  if (!strcmp(f->op, "sgd"))
    return tern_sgd(&(tern_sgd_opts){COMMON(f), .momentum = option(f, "momentum"),
                                     .nesterov = (int)fixture_attr(f, "nesterov", 0)});
  if (!strcmp(f->op, "rmsprop"))
    return tern_rmsprop(&(tern_rmsprop_opts){COMMON(f), .rho = option(f, "rho"), .momentum = option(f, "momentum"),
                                             .epsilon = option(f, "epsilon"),
                                             .centered = (int)fixture_attr(f, "centered", 0)});
  if (!strcmp(f->op, "adagrad"))
    return tern_adagrad(&(tern_adagrad_opts){COMMON(f), .initial_accumulator = option(f, "initial_accumulator"),
                                             .epsilon = option(f, "epsilon")});
  if (!strcmp(f->op, "lion"))
    return tern_lion(&(tern_lion_opts){COMMON(f), .beta1 = option(f, "beta1"), .beta2 = option(f, "beta2")});
  const tern_adam_opts adam = {COMMON(f), .beta1 = option(f, "beta1"), .beta2 = option(f, "beta2"),
                               .epsilon = option(f, "epsilon"), .amsgrad = (int)fixture_attr(f, "amsgrad", 0)};
  return strcmp(f->op, "adamw") ? tern_adam(&adam) : tern_adamw(&adam);
}

/* make_optimizers.py says what the gradients are. */
static tern_tensor *gradient(int k, int step, tern_shape shape, tern_dtype dtype) {
  double v[MAX_VALUES];
  for (int i = 0; i < test_numel(shape); i++) v[i] = ((7 * i + 13 * k + 5 * step) % 23 - 11) / 8.0;
  return test_tensor(shape, dtype, v);
}

static void describe(const fixture *f, char *text, size_t size) {
  int at = snprintf(text, size, "%s", f->op);
  for (int i = 0; i < f->n_attrs && at < (int)size; i++)
    at += snprintf(text + at, size - (size_t)at, " %s %.3g", f->attr_name[i],
                   f->attr_value[i] == 1 ? 1 : option(f, f->attr_name[i]));
}

/* The largest |tern - Keras| / max(1, |Keras|) after kept[0..n_kept) steps. */
static double distance(const fixture *f, tern_dtype dtype, int n_kept) {
  tern_tensor *variables[MAX_VARIABLES] = {0};
  tern_optimizer *o = optimizer_of(f);
  double worst = 0;
  {
    TERN_SCOPE;
    for (int k = 0; k < f->n_in; k++)
      variables[k] =
          tern_variable(test_tensor(tern_shape_of(f->in[k].rank, f->in[k].shape), dtype, f->in[k].data), NULL);
  }
  for (int step = 1, at = 0; at < n_kept; step++) {
    TERN_SCOPE;
    tern_tensor *gradients[MAX_VARIABLES];
    for (int k = 0; k < f->n_in; k++) gradients[k] = gradient(k, step, tern_shape_get(variables[k]), dtype);
    if (tern_optimizer_apply(o, gradients, variables, f->n_in)) worst = INFINITY;
    if (step != kept[at]) continue;
    for (int k = 0; k < f->n_in; k++) {
      const size_t n = f->in[k].count;
      const double *expected = (const double *)f->out[k].data + (size_t)at * n;
      double *got = test_values(variables[k]);
      for (size_t i = 0; i < n; i++) {
        const double d = got ? fabs(got[i] - expected[i]) / fmax(1, fabs(expected[i])) : INFINITY;
        if (!(d <= worst)) worst = d;
      }
      free(got);
    }
    at++;
  }
  CHECK(tern_optimizer_steps(o) == kept[n_kept - 1], "%s: %lld steps", f->op, (long long)tern_optimizer_steps(o));
  for (int k = 0; k < f->n_in; k++) tern_release(variables[k]);
  tern_optimizer_release(o);
  return worst;
}

/* Rounding: a step rounds the variable once, by at most half an ulp, 2^-24 of it: 100 steps of float32 are within
   6e-6 for certain (all in one direction) and 6e-7 by chance (the square root of 100); what a rule rounds before is
   times the learning rate, except what momentum gathers, a few ulp of the slot. The bound is between. float64: as
   float32, with 2^-53, and Keras rounds too. 16-bit variables round their slots as well: 10 steps. */
static const struct {
  tern_dtype dtype;
  int n_kept;
  double bound;
} forms[] = {{TERN_F32, 4, 2e-6}, {TERN_F64, 4, 5e-14}, {TERN_F16, 3, 8e-3}, {TERN_BF16, 3, 6e-2}};

static void test_keras(void) {
  double worst[4] = {0};
  const bool on_cpu = !strncmp(tern_default_device(), "cpu", 3);
  int n = 0;
  fixtures file;
  fixture f;
  const bool opened = fixtures_open(&file, TERN_FIXTURES "/optimizers.bin");
  if (!CHECK(opened, "optimizers.bin: %s", file.error)) return;
  for (; fixtures_next(&file, &f); n++) {
    char what[300];
    if (!strcmp(f.op, "schedule")) continue;
    describe(&f, what, sizeof what);
    /* elsewhere each form compiles a kernel a dtype: float32 stands for the rules, a slice for the dtypes */
    for (int k = 0; k < (on_cpu || n % 8 == 0 ? 4 : 1); k++) {
      const double d = distance(&f, forms[k].dtype, forms[k].n_kept);
      CHECK(d <= forms[k].bound, "%s of %s is %.3g from Keras: %s", what, tern_dtype_name(forms[k].dtype), d,
            tern_error());
      tern_error_clear();
      if (d > worst[k]) worst[k] = d;
    }
  }
  CHECK(!file.error && n > 140, "optimizers.bin: %d records, %s", n, file.error ? file.error : "");
  printf("    worst distance: float32 %.2g, float64 %.2g, float16 %.2g, bfloat16 %.2g\n", worst[0], worst[1], worst[2],
         worst[3]);
  fixtures_close(&file);
  CHECK_NO_ERROR();
}

/* ---- every rule once ---- */

enum { N_RULES = 9 };
static tern_optimizer *rule(int i) {
  switch (i) {
  case 0: return tern_sgd(NULL);
  case 1: return tern_sgd(&(tern_sgd_opts){.momentum = 0.9, .nesterov = 1, .weight_decay = 0.01});
  case 2: return tern_adam(NULL);
  case 3: return tern_adam(&(tern_adam_opts){.amsgrad = 1, .weight_decay = 0.01, .clip_value = 0.5});
  case 4: return tern_adamw(NULL);
  case 5:
    return tern_rmsprop(&(tern_rmsprop_opts){.momentum = 0.5, .centered = 1, .weight_decay = 0.01, .clip_value = 2});
  case 6: return tern_adagrad(NULL);
  case 7: return tern_lion(NULL);
  default: return tern_adam(&(tern_adam_opts){.global_clip_norm = 1});
  }
}

static tern_tensor *variable(const char *name, tern_shape shape, tern_dtype dtype) {
  TERN_SCOPE;
  double v[MAX_VALUES];
  for (int i = 0; i < test_numel(shape); i++) v[i] = (i % 7 - 3) / 4.0;
  return tern_variable(test_tensor(shape, dtype, v), &(tern_variable_opts){.name = name});
}

static int same_values(tern_tensor *a, tern_tensor *b) {
  double *x = test_values(a), *y = test_values(b);
  const int same = x && y && !memcmp(x, y, (size_t)tern_size(a) * sizeof *x);
  free(x);
  free(y);
  return same;
}

static tern_counters counters(void) {
  tern_counters c = {0};
  CHECK(tern_counters_get(NULL, &c) == TERN_OK, "%s", tern_error());
  return c;
}

/* One launch a variable; another learning rate, step or size compiles nothing; nothing is split or computed
   elsewhere; in place. */
static void test_launches(void) {
  for (int r = 0; r < N_RULES; r++) {
    TERN_SCOPE;
    tern_optimizer *o = rule(r);
    tern_tensor *v[3] = {variable("a", TERN_SHAPE(2, 1), TERN_F32), variable("b", TERN_SHAPE(7), TERN_F32),
                         variable("c", TERN_SHAPE(2, 3, 4), TERN_F32)};
    tern_tensor *g[3];
    for (int k = 0; k < 3; k++) g[k] = tern_full(tern_shape_get(v[k]), TERN_F32, 0.25 * (k + 1));
    for (int step = 0; step < 2; step++) CHECK(tern_optimizer_apply(o, g, v, 3) == TERN_OK, "%s", tern_error());
    const tern_counters before = counters();
    tern_memory memory, later;
    tern_memory_info(NULL, &memory);
    for (int step = 0; step < 20; step++) {
      tern_optimizer_set_learning_rate(o, 0.001 * (step + 1));
      CHECK(tern_optimizer_apply(o, g, v, 3) == TERN_OK, "%s", tern_error());
    }
    const tern_counters after = counters();
    tern_memory_info(NULL, &later);
    const uint64_t launches = r == N_RULES - 1 ? 3 + 3 + 3 : 3; /* a global norm: a sum each, root, maximum, quotient */
    CHECK(after.launches - before.launches == 20 * launches, "rule %d: %llu launches in 20 steps", r,
          (unsigned long long)(after.launches - before.launches));
    CHECK(after.compiles == before.compiles, "rule %d: compiled %llu", r,
          (unsigned long long)(after.compiles - before.compiles));
    CHECK(!after.splits && !after.fallbacks, "rule %d: %llu splits", r, (unsigned long long)after.splits);
    CHECK(memory.live == later.live, "rule %d: %lld bytes more", r, (long long)(later.live - memory.live));
    for (int k = 0; k < 3; k++) tern_release(v[k]);
    tern_optimizer_release(o);
  }
  CHECK_NO_ERROR();
}

/* Views and kept handles of a variable or of a slot see the old value; the values are those of the update in place. */
static void test_copy_on_write(void) {
  for (int r = 0; r < N_RULES; r++) {
    TERN_SCOPE;
    tern_optimizer *a = rule(r), *b = rule(r);
    tern_tensor *v = variable("v", TERN_SHAPE(2, 3), TERN_F32), *w = variable("v", TERN_SHAPE(2, 3), TERN_F32);
    CHECK(!tern_optimizer_build(a, &v, 1), "%s", tern_error());
    for (int step = 1; step < 4; step++) {
      tern_tensor *g = gradient(1, step, TERN_SHAPE(2, 3), TERN_F32);
      tern_tensor *state[8];
      const int n = tern_optimizer_state(a, state, 8);
      tern_tensor *view = tern_transpose(v), *before = tern_clone(v),
                  *slot = n > 1 ? tern_reshape(state[0], TERN_SHAPE(6)) : NULL,
                  *slot_before = slot ? tern_clone(slot) : NULL;
      const tern__storage *memory = w->storage;
      CHECK(tern_optimizer_apply(a, &g, &v, 1) == TERN_OK, "%s", tern_error());
      CHECK(tern_optimizer_apply(b, &g, &w, 1) == TERN_OK, "%s", tern_error());
      CHECK(same_values(view, tern_transpose(before)), "rule %d: a view changed", r);
      if (slot) CHECK(same_values(slot, slot_before), "rule %d: a view of a slot changed", r);
      CHECK(same_values(v, w) && !same_values(v, before), "rule %d: another value with a view", r);
      CHECK(w->storage == memory && v->storage != view->storage, "rule %d: not in place, or not copied", r);
    }
    tern_release(v);
    tern_release(w);
    tern_optimizer_release(a);
    tern_optimizer_release(b);
  }
  CHECK_NO_ERROR();
}

/* Gradients that are views, broadcast, host scalars, the variable itself or left out. */
static void test_gradients(void) {
  TERN_SCOPE;
  tern_optimizer *o = tern_sgd(&(tern_sgd_opts){.learning_rate = 0.5});
  tern_tensor *v = tern_variable(tern_f32(TERN_SHAPE(2, 2), 1, 2, 3, 4), NULL);
  tern_tensor *g = tern_transpose(tern_f32(TERN_SHAPE(2, 2), 2, 4, 6, 8));
  CHECK(tern_optimizer_apply(o, &g, &v, 1) == TERN_OK, "%s", tern_error());
  CHECK_LIST(v, TERN_SHAPE(2, 2), TERN_F32, 0, -1, 1, 0);
  g = tern_expand(tern_f32(TERN_SHAPE(), 2), TERN_SHAPE(2, 2));
  CHECK(tern_optimizer_apply(o, &g, &v, 1) == TERN_OK, "%s", tern_error());
  CHECK_LIST(v, TERN_SHAPE(2, 2), TERN_F32, -1, -2, 0, -1);
  CHECK(tern_optimizer_apply(o, &v, &v, 1) == TERN_OK, "%s", tern_error());
  CHECK_LIST(v, TERN_SHAPE(2, 2), TERN_F32, -0.5, -1, 0, -0.5);
  g = tern_transpose(v);
  CHECK(tern_optimizer_apply(o, &g, &v, 1) == TERN_OK, "%s", tern_error());
  CHECK_LIST(v, TERN_SHAPE(2, 2), TERN_F32, -0.25, -1, 0.5, -0.25);
  tern_tensor *s = tern_variable(tern_f32(TERN_SHAPE(), 3), NULL), *weak = tern_scalar(2);
  CHECK(tern_optimizer_apply(o, &weak, &s, 1) == TERN_OK, "%s", tern_error());
  CHECK_LIST(s, TERN_SHAPE(), TERN_F32, 2);
  /* the second gradient is the first variable, as it was before the step */
  tern_tensor *a = tern_variable(tern_f32(TERN_SHAPE(1), 8), NULL),
              *b = tern_variable(tern_f32(TERN_SHAPE(1), 8), NULL);
  CHECK(tern_optimizer_apply(o, (tern_tensor *[]){b, a}, (tern_tensor *[]){a, b}, 2) == TERN_OK, "%s", tern_error());
  CHECK_LIST(a, TERN_SHAPE(1), TERN_F32, 4);
  CHECK_LIST(b, TERN_SHAPE(1), TERN_F32, 4);
  CHECK(tern_optimizer_apply(o, (tern_tensor *[]){TERN_NONE, a}, (tern_tensor *[]){a, b}, 2) == TERN_OK, "%s",
        tern_error());
  CHECK_LIST(a, TERN_SHAPE(1), TERN_F32, 4);
  CHECK_LIST(b, TERN_SHAPE(1), TERN_F32, 2);
  CHECK(tern_optimizer_steps(o) == 7, "%lld steps", (long long)tern_optimizer_steps(o));
  tern_tensor *nothing = tern_variable(tern_zeros(TERN_SHAPE(0, 3), TERN_F32), NULL),
              *of_nothing = tern_zeros(TERN_SHAPE(0, 3), TERN_F32);
  CHECK(tern_optimizer_apply(o, &of_nothing, &nothing, 1) == TERN_OK, "%s", tern_error());
  CHECK(tern_optimizer_apply(o, NULL, NULL, 0) == TERN_OK, "%s", tern_error());
  tern_tensor *nan = tern_f32(TERN_SHAPE(1), NAN); /* not an error; limiting keeps it */
  tern_optimizer *limited = tern_sgd(&(tern_sgd_opts){.clip_value = 1});
  CHECK(tern_optimizer_apply(limited, &nan, &a, 1) == TERN_OK, "%s", tern_error());
  CHECK_LIST(a, TERN_SHAPE(1), TERN_F32, NAN);
  tern_tensor *all[] = {v, s, a, b, nothing};
  for (int i = 0; i < 5; i++) tern_release(all[i]);
  tern_optimizer_release(o);
  tern_optimizer_release(limited);
  CHECK_NO_ERROR();
}

/* Many variables in changing order, some of them twice in a step: each keeps its own slots. */
static void test_order(void) {
  enum { N = 40 };
  TERN_SCOPE;
  uint64_t state = 3;
  tern_optimizer *o = tern_sgd(&(tern_sgd_opts){.learning_rate = 1, .momentum = 0.5});
  tern_tensor *v[N];
  double m[N] = {0}, x[N] = {0};
  for (int i = 0; i < N; i++) v[i] = tern_variable(tern_zeros(TERN_SHAPE(1 + i % 3), TERN_F64), NULL);
  for (int step = 0; step < 30; step++) {
    TERN_SCOPE;
    tern_tensor *some[N], *g[N];
    const int n = 1 + (int)test_below(&state, N);
    for (int i = 0; i < n; i++) {
      const int k = step % 3 ? (int)test_below(&state, N) : i;
      some[i] = v[k];
      g[i] = tern_full(tern_shape_get(v[k]), TERN_F64, k + step);
      m[k] = m[k] * 0.5 - (k + step);
      x[k] += m[k];
    }
    CHECK(tern_optimizer_apply(o, g, some, n) == TERN_OK, "%s", tern_error());
  }
  for (int i = 0; i < N; i++) {
    const double expected[] = {x[i], x[i], x[i]};
    CHECK_VALUES(v[i], TERN_SHAPE(1 + i % 3), TERN_F64, expected, 8, 0, "momentum");
    tern_release(v[i]);
  }
  tern_optimizer_release(o);
  CHECK_NO_ERROR();
}

/* A tape sees none of an update, and keeps the values that it saw. Its gradients, clipped, are differentiable. */
static void test_tape(void) {
  TERN_SCOPE;
  for (int r = 0; r < N_RULES; r++) {
    TERN_SCOPE;
    tern_optimizer *o = rule(r);
    tern_tensor *v = tern_variable(tern_f32(TERN_SHAPE(2), 3, -2), NULL), *g = TERN_NONE,
                *one = tern_ones(TERN_SHAPE(2), TERN_F32);
    tern_tape *tape = tern_tape_begin(&(tern_tape_opts){.persistent = 1});
    tern_tensor *y = tern_sum(tern_mul(tern_square(v), v), NULL);
    CHECK(tern_optimizer_apply(o, &one, &v, 1) == TERN_OK, "%s", tern_error());
    CHECK(tern_tape_gradient(tape, y, &v, 1, &g) == TERN_OK, "rule %d: %s", r, tern_error());
    CHECK_LIST(g, TERN_SHAPE(2), TERN_F32, 27, 12);
    tern_tape_end(tape);
    tern_release(v);
    tern_optimizer_release(o);
  }
  /* norm 5, limit 1: d (w . x / |x|) / dx = w / |x| - x (w . x) / |x|^3, by hand for w = (1, 2) */
  tern_tensor *x = tern_f64(TERN_SHAPE(2), 3, 4), *g = NULL;
  tern_tape *tape = tern_tape_begin(NULL);
  CHECK(tern_tape_watch(tape, x) == TERN_OK, "%s", tern_error());
  tern_tensor *y = tern_sum(tern_mul(tern_clip_by_norm(x, 1), tern_f64(TERN_SHAPE(2), 1, 2)), NULL);
  CHECK(tern_tape_gradient(tape, y, &x, 1, &g) == TERN_OK, "%s", tern_error());
  const double expected[] = {1.0 / 5 - 3 * 11.0 / 125, 2.0 / 5 - 4 * 11.0 / 125};
  CHECK_VALUES(g, TERN_SHAPE(2), TERN_F64, expected, 16, 1e-15, "gradient of clip_by_norm");
  CHECK_NO_ERROR();
}

/* ---- state ---- */

static void test_state(void) {
  for (int r = 0; r < N_RULES; r++) {
    TERN_SCOPE;
    tern_optimizer *a = rule(r), *b = rule(r);
    tern_tensor *v[] = {variable("w", TERN_SHAPE(2, 3), TERN_F32), variable("", TERN_SHAPE(4), TERN_BF16)};
    tern_tensor *w[] = {variable("w", TERN_SHAPE(2, 3), TERN_F32), variable("", TERN_SHAPE(4), TERN_BF16)};
    tern_tensor *from[16], *to[16], *g[2];
    for (int step = 1; step < 6; step++) {
      TERN_SCOPE;
      for (int k = 0; k < 2; k++) g[k] = gradient(k, step, tern_shape_get(v[k]), tern_dtype_get(v[k]));
      CHECK(tern_optimizer_apply(a, g, v, 2) == TERN_OK, "%s", tern_error());
    }
    CHECK(tern_optimizer_build(b, w, 2) == TERN_OK && tern_optimizer_build(b, w, 2) == TERN_OK, "%s", tern_error());
    const int n = tern_optimizer_state(a, from, 16);
    CHECK(n == tern_optimizer_state(b, to, 16) && n == tern_optimizer_state(b, NULL, 0) && n <= 16, "rule %d: %d", r,
          n);
    for (int i = 0; i < n; i++) {
      CHECK(!strcmp(tern_variable_name(from[i]), tern_variable_name(to[i])), "%s", tern_variable_name(to[i]));
      CHECK(tern_assign(to[i], from[i]) == TERN_OK, "%s", tern_error());
    }
    for (int k = 0; k < 2; k++) CHECK(tern_assign(w[k], v[k]) == TERN_OK, "%s", tern_error());
    CHECK(tern_optimizer_steps(b) == 5 && tern_item_int(to[n - 1]) == 5, "%lld", (long long)tern_optimizer_steps(b));
    for (int k = 0; k < 2; k++) g[k] = gradient(k, 6, tern_shape_get(v[k]), tern_dtype_get(v[k]));
    CHECK(tern_optimizer_apply(a, g, v, 2) == TERN_OK && tern_optimizer_apply(b, g, w, 2) == TERN_OK, "%s",
          tern_error());
    for (int k = 0; k < 2; k++) CHECK(same_values(v[k], w[k]), "rule %d: variable %d differs after a restore", r, k);
    if (r == 3) {
      const char *names[] = {"adam/w/momentum", "adam/w/velocity", "adam/w/velocity_hat", "adam/variable_1/momentum"};
      for (int i = 0; i < 4; i++)
        CHECK(!strcmp(tern_variable_name(from[i]), names[i]), "%s", tern_variable_name(from[i]));
      CHECK(n == 7 && !strcmp(tern_variable_name(from[6]), "adam/steps") && tern_dtype_get(from[6]) == TERN_I64, "%d",
            n);
      CHECK(tern_dtype_get(from[3]) == TERN_BF16 && !tern_trainable(from[0]), "slots");
      tern_tensor *seen = tern_reshape(from[6], TERN_SHAPE(1));
      CHECK(tern_optimizer_apply(a, g, v, 2) == TERN_OK, "%s", tern_error());
      CHECK(tern_item_int(seen) == 6 && tern_item_int(from[6]) == 7, "a view of the step count changed");
    }
    for (int k = 0; k < 2; k++) {
      tern_release(v[k]);
      tern_release(w[k]);
    }
    tern_optimizer_release(a);
    tern_optimizer_release(b);
  }
  CHECK_NO_ERROR();
}

/* ---- bad input ---- */

static void refused(tern_optimizer *o, const char *part) {
  CHECK(!o, "accepted: %s", part);
  CHECK_ERROR(TERN_E_ARG, part);
  tern_optimizer_release(o);
}

static void test_bad_options(void) {
  refused(tern_sgd(&(tern_sgd_opts){.learning_rate = -1}), "sgd: learning_rate is -1");
  refused(tern_sgd(&(tern_sgd_opts){.learning_rate = NAN}), "learning_rate");
  refused(tern_sgd(&(tern_sgd_opts){.momentum = 1.5}), "momentum is 1.5");
  refused(tern_sgd(&(tern_sgd_opts){.weight_decay = -0.1}), "weight_decay");
  refused(tern_adam(&(tern_adam_opts){.beta1 = 1}), "adam: beta1 is 1");
  refused(tern_adamw(&(tern_adam_opts){.beta2 = -0.5}), "adamw: beta2");
  refused(tern_adam(&(tern_adam_opts){.epsilon = -1}), "epsilon");
  refused(tern_adam(&(tern_adam_opts){.clip_norm = 1, .clip_value = 1}), "at most one");
  refused(tern_rmsprop(&(tern_rmsprop_opts){.rho = 2}), "rho");
  refused(tern_adagrad(&(tern_adagrad_opts){.initial_accumulator = -1}), "initial_accumulator");
  refused(tern_lion(&(tern_lion_opts){.beta1 = 7}), "beta1");
  refused(tern_sgd(&(tern_sgd_opts){.schedule = &(tern_schedule){.kind = 9}}), "schedule");
  tern_optimizer_release(NULL);
  tern_optimizer *o = tern_adamw(&(tern_adam_opts){.weight_decay = TERN_ZERO, .learning_rate = TERN_ZERO});
  CHECK(o && tern_optimizer_learning_rate(o) == 0 && !signbit(tern_optimizer_learning_rate(o)), "TERN_ZERO");
  CHECK(tern_optimizer_set_learning_rate(o, NAN) == TERN_E_ARG, "NaN");
  CHECK_ERROR(TERN_E_ARG, "learning rate of nan");
  tern_optimizer_release(o);
  CHECK(tern_optimizer_set_learning_rate(NULL, 1) == TERN_E_ARG, "NULL");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  CHECK(isnan(tern_optimizer_learning_rate(NULL)) && tern_optimizer_steps(NULL) == 0, "NULL");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  CHECK(tern_optimizer_state(NULL, NULL, 0) == 0, "NULL");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  tern_tensor *state[2], *w = variable("w", TERN_SHAPE(1), TERN_F32);
  o = tern_sgd(&(tern_sgd_opts){.name = "first"});
  CHECK(tern_optimizer_state(o, NULL, 0) == 0 && tern_optimizer_state(o, state, 2) == 0, "state before it is there");
  CHECK_ERROR(TERN_E_ARG, "tern_optimizer_build");
  CHECK(!tern_optimizer_build(o, &w, 1) && tern_optimizer_state(o, state, 2) == 1 &&
            !strcmp(tern_variable_name(state[0]), "first/steps"),
        "a name of its own");
  tern_optimizer_release(o);
  tern_release(w);
}

/* The second pair of a step is wrong: the first variable must stay. */
static void wrong(tern_optimizer *o, tern_tensor *g, tern_tensor *v, const char *part) {
  TERN_SCOPE;
  tern_tensor *good = variable("good", TERN_SHAPE(2), TERN_F32), *before = tern_clone(good);
  tern_tensor *one = tern_ones(TERN_SHAPE(2), TERN_F32);
  const int64_t steps = tern_optimizer_steps(o);
  const int state = tern_optimizer_state(o, NULL, 0);
  CHECK(tern_optimizer_apply(o, (tern_tensor *[]){one, g}, (tern_tensor *[]){good, v}, 2) == TERN_E_ARG, "accepted: %s",
        part);
  CHECK_ERROR(TERN_E_ARG, part);
  CHECK(same_values(good, before) && tern_optimizer_steps(o) == steps && tern_optimizer_state(o, NULL, 0) == state,
        "%s: something changed", part);
  tern_release(good);
}

static void test_bad_input(void) {
  TERN_SCOPE;
  tern_optimizer *o = tern_adam(NULL);
  tern_tensor *v = variable("kernel", TERN_SHAPE(2, 3), TERN_F32),
              *whole = tern_variable(tern_i32(TERN_SHAPE(2), 1, 2), NULL),
              *tensor = tern_ones(TERN_SHAPE(2, 3), TERN_F32);
  wrong(o, tern_ones(TERN_SHAPE(3, 2), TERN_F32), v, "variable kernel has shape (3, 2), the variable (2, 3)");
  wrong(o, tern_scalar(1), v, "kernel has shape ()");
  wrong(o, tern_ones(TERN_SHAPE(2, 3), TERN_F64), v, "kernel is float64, the variable float32; tern_cast");
  wrong(o, tern_ones(TERN_SHAPE(2, 3), TERN_I32), v, "kernel is int32");
  wrong(o, NULL, v, "kernel is NULL");
  wrong(o, tensor, tensor, "variable 1 is a tensor");
  wrong(o, tensor, NULL, "variable 1 is NULL");
  wrong(o, TERN_NONE, TERN_NONE, "variable 1 is TERN_NONE");
  wrong(o, tern_i32(TERN_SHAPE(2), 1, 1), whole, "variable variable_1 is of dtype int32");
  if (strcmp(tern_device_get(v), "cpu:0")) wrong(o, tern_to(tensor, "cpu:0"), v, "kernel is on cpu:0, the variable on");
  CHECK(tern_optimizer_apply(NULL, &tensor, &v, 1) == TERN_E_ARG, "NULL");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  CHECK(tern_optimizer_apply(o, NULL, &v, 1) == TERN_E_ARG, "NULL");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  CHECK(tern_optimizer_apply(o, &tensor, &v, -1) == TERN_E_ARG, "-1");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  CHECK(tern_optimizer_build(o, &tensor, 1) == TERN_E_ARG, "a tensor");
  CHECK_ERROR(TERN_E_ARG, "tern_variable");
  CHECK(tern_optimizer_build(o, NULL, 1) == TERN_E_ARG, "NULL");
  CHECK_ERROR(TERN_E_ARG, "NULL");
  tern_release(v);
  tern_release(whole);
  tern_optimizer_release(o);
}

/* Each allocation fails once: an error or success, never a crash, and the next try works. */
static void test_out_of_memory(void) {
  TERN_SCOPE;
  tern_tensor *v[] = {variable("a", TERN_SHAPE(2, 3), TERN_F32), variable("b", TERN_SHAPE(5), TERN_F32)};
  tern_tensor *g[] = {tern_ones(TERN_SHAPE(2, 3), TERN_F32), tern_ones(TERN_SHAPE(5), TERN_F32)};
  for (int r = 0; r < N_RULES; r++)
    for (long k = 1; k < 12; k++) {
      tern__alloc_fail_at(k);
      tern_optimizer *o = rule(r);
      const tern_rc rc = o ? tern_optimizer_apply(o, g, v, 2) : TERN_E_OOM;
      tern__alloc_fail_at(0);
      CHECK(rc == TERN_OK || rc == TERN_E_OOM, "rule %d, allocation %ld: %s: %s", r, k, tern_rc_name(rc), tern_error());
      tern_error_clear();
      if (o) CHECK(tern_optimizer_apply(o, g, v, 2) == TERN_OK, "rule %d after allocation %ld: %s", r, k, tern_error());
      tern_optimizer_release(o);
    }
  tern_release(v[0]);
  tern_release(v[1]);
  CHECK_NO_ERROR();
}

static const test_case cases[] = {{"as Keras 3", test_keras},
                                  {"one launch, no compile, in place", test_launches},
                                  {"copy on write", test_copy_on_write},
                                  {"kinds of gradients", test_gradients},
                                  {"variables in any order", test_order},
                                  {"beside a tape", test_tape},
                                  {"state saved and restored", test_state},
                                  {"bad options", test_bad_options},
                                  {"bad input", test_bad_input},
                                  {"out of memory", test_out_of_memory}};
TEST_MAIN("optimisers", cases)
