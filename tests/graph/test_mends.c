/* What once went wrong in traces: gradients of variables that are reached through views, operands left out before
   others, scatters into variables, functions that call themselves, numbers of the program that look like sizes. Eager
   and traced results are both compared with numbers worked out here. */
#include "graph/both.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <tern/graph.h>
#include <tern/tern.h>

#define BODY(name) static tern_rc name(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out)
#define UNUSED (void)self, (void)in, (void)n_in, (void)out, (void)n_out

static tern_rc one(tern_tensor *y, tern_tensor **out) {
  *out = y;
  return y ? TERN_OK : tern_error_code();
}

/* The gradient that a tape outside of the call takes: the body itself (f NULL), or the function. */
static bool gradient_through(tern_function *f, tern_function_body body, void *self, tern_tensor *const *in, int n_in,
                             tern_tensor *const *sources, int n, tern_tensor **loss, tern_tensor **found) {
  tern_tape *tape = tern_tape_begin(NULL);
  bool ok = tape != NULL;
  for (int i = 0; i < n_in && ok; i++)
    if (in[i] != TERN_NONE && tern_dtype_get(in[i]) == TERN_F32) ok = !tern_tape_watch(tape, in[i]);
  if (ok) ok = !(f ? tern_function_run(f, in, n_in, loss, 1) : body(self, in, n_in, loss, 1));
  return ok &&
         !tern_tape_gradients(tape, loss, NULL, 1, sources, n, found, &(tern_gradient_opts){.unconnected_zeros = 1});
}

/* ---- a. variables behind views ---- */

enum { SLICE, RESHAPE, TRANSPOSE, SEVERAL, ASSIGNED, VIEW_OF_VIEW, WAYS };

typedef struct viewing {
  tern_tensor *variable; /* [2, 3] */
  int way;
} viewing;

static tern_tensor *weighted_squares(tern_tensor *x, tern_tensor *weights) {
  return tern_sum(tern_mul(tern_square(x), weights), NULL);
}

static tern_tensor *row_of(tern_tensor *v, int row) { return tern_slice(v, &TERN_RANGE(row, row + 1, 1), 1); }

/* in[0]: weights [3]. out[0]: the loss. */
BODY(looks) {
  const viewing *w = self;
  tern_tensor *v = w->variable, *six = tern_arange(1, 7, 1, TERN_F32), *loss = NULL;
  (void)n_in, (void)n_out;
  if (w->way == SLICE) loss = weighted_squares(row_of(v, 1), in[0]);
  if (w->way == RESHAPE) loss = weighted_squares(tern_reshape(v, TERN_SHAPE(6)), six);
  if (w->way == TRANSPOSE) loss = weighted_squares(tern_transpose(v), tern_reshape(in[0], TERN_SHAPE(3, 1)));
  if (w->way == SEVERAL)
    loss = tern_add(weighted_squares(tern_reshape(v, TERN_SHAPE(6)), six),
                    tern_add(weighted_squares(row_of(v, 1), in[0]),
                             weighted_squares(tern_transpose(v), tern_reshape(in[0], TERN_SHAPE(3, 1)))));
  if (w->way == VIEW_OF_VIEW) /* the second column, by way of three views */
    loss = weighted_squares(
        tern_index(tern_transpose(tern_reshape(tern_reshape(v, TERN_SHAPE(6)), TERN_SHAPE(2, 3))), 0, 1),
        tern_slice(in[0], &TERN_RANGE(0, 2, 1), 1));
  if (w->way == ASSIGNED) {
    loss = weighted_squares(row_of(v, 0), in[0]);
    if (tern_assign_add(v, tern_scalar(1))) return tern_error_code();
    loss = tern_add(loss, weighted_squares(row_of(v, 1), in[0]));
  }
  return one(loss, out);
}

/* The same with the gradients of the variable and of the weights behind the loss. */
BODY(looks_and_derives) {
  const viewing *w = self;
  tern_tensor *sources[] = {w->variable, in[0]}, *found[2];
  tern_tape *tape = tern_tape_begin(NULL);
  (void)n_out;
  if (!tape || tern_tape_watch(tape, in[0]) || looks(self, in, n_in, out, 1)) return tern_error_code();
  if (tern_tape_gradients(tape, out, NULL, 1, sources, 2, found, &(tern_gradient_opts){.unconnected_zeros = 1}))
    return tern_error_code();
  out[1] = found[0];
  out[2] = found[1];
  return TERN_OK;
}

static const double VALUES[6] = {1, -2, 3, 0.5, 4, -1}, WEIGHTS[3] = {2, -1, 0.5};

/* Loss and gradients by hand: a weight and a value for each element of each term. */
static void view_by_hand(int way, double *loss, double *dv, double *dw) {
  memset(dv, 0, 6 * sizeof *dv);
  memset(dw, 0, 3 * sizeof *dw);
  *loss = 0;
  for (int i = 0; i < 2; i++)
    for (int j = 0; j < 3; j++) {
      const int k = 3 * i + j;
      const double x = VALUES[k] + (way == ASSIGNED && i == 1 ? 1 : 0);
      if (way == RESHAPE || way == SEVERAL) {
        *loss += (k + 1) * x * x;
        dv[k] += 2 * (k + 1) * x;
      }
      int times = 0, weight = j; /* how often the element is weighted with which weight */
      if (way == SLICE) times = i == 1;
      if (way == TRANSPOSE || way == ASSIGNED) times = 1;
      if (way == SEVERAL) times = 1 + (i == 1);
      if (way == VIEW_OF_VIEW) times = j == 1, weight = i;
      *loss += times * WEIGHTS[weight] * x * x;
      dv[k] += times * 2 * WEIGHTS[weight] * x;
      dw[weight] += times * x * x;
    }
}

static void check_view(const char *what, int way, tern_tensor *loss, tern_tensor *dv, tern_tensor *dw,
                       tern_tensor *variable) {
  char text[100];
  double l, v[6], w[3], now[6];
  view_by_hand(way, &l, v, w);
  for (int k = 0; k < 6; k++) now[k] = VALUES[k] + (way == ASSIGNED);
  snprintf(text, sizeof text, "way %d, %s", way, what);
  CHECK_VALUES(loss, TERN_SHAPE(), TERN_F32, &l, 4, 0, text);
  CHECK_VALUES(dv, TERN_SHAPE(2, 3), TERN_F32, v, 4, 0, text);
  CHECK_VALUES(dw, TERN_SHAPE(3), TERN_F32, w, 4, 0, text);
  CHECK_VALUES(variable, TERN_SHAPE(2, 3), TERN_F32, now, 0, 0, text);
}

static void views(void) {
  TERN_SCOPE;
  tern_tensor *start = test_tensor(TERN_SHAPE(2, 3), TERN_F32, VALUES);
  tern_tensor *weights = test_tensor(TERN_SHAPE(3), TERN_F32, WEIGHTS);
  viewing w = {.variable = tern_variable(start, &(tern_variable_opts){.name = "v"})};
  for (w.way = 0; w.way < WAYS; w.way++) {
    tern_function *inside = tern_function_new(looks_and_derives, &w, 1, 3, NULL);
    tern_function *outside = tern_function_new(looks, &w, 1, 1, NULL);
    tern_tensor *sources[] = {w.variable, weights};
    for (int call = 0; call < 4; call++) {
      TERN_SCOPE;
      tern_tensor *out[3] = {0}, *found[2] = {0};
      CHECK(!tern_assign(w.variable, start), "%s", tern_error());
      CHECK(!(call ? tern_function_run(inside, &weights, 1, out, 3) : looks_and_derives(&w, &weights, 1, out, 3)),
            "way %d: %s", w.way, tern_error());
      check_view(call ? "traced, a tape inside" : "eager, a tape inside", w.way, out[0], out[1], out[2], w.variable);
      CHECK(!tern_assign(w.variable, start), "%s", tern_error());
      CHECK(gradient_through(call ? outside : NULL, looks, &w, &weights, 1, sources, 2, out, found), "way %d: %s",
            w.way, tern_error());
      check_view(call ? "traced, a tape outside" : "eager, a tape outside", w.way, out[0], found[0], found[1],
                 w.variable);
    }
    tern_function_release(inside);
    tern_function_release(outside);
  }
  CHECK_NO_ERROR();
  tern_release(w.variable);
}

/* ---- b. operands left out before others ---- */

/* clip(in[1], in[0], in[2]), weighted: the operands come in another order so that what is left out is first */
BODY(clips) {
  UNUSED;
  return one(tern_sum(tern_mul(tern_clip(in[1], in[0], in[2]), in[3]), NULL), out);
}
/* in: scale, x, offset, weights */
BODY(norms) {
  UNUSED;
  return one(
      tern_sum(tern_mul(tern_layer_norm(in[1], in[0], in[2], &(tern_layer_norm_opts){.epsilon = 0.25}), in[3]), NULL),
      out);
}

typedef struct derived {
  tern_function_body body;
} derived;

/* The body's loss, then its gradients by in[1] and in[2], with the tape inside. */
BODY(derives) {
  const derived *d = self;
  tern_tensor *found[2];
  tern_tape *tape = tern_tape_begin(NULL);
  (void)n_out;
  if (!tape || tern_tape_watch(tape, in[1]) || tern_tape_watch(tape, in[2]) || d->body(NULL, in, n_in, out, 1))
    return tern_error_code();
  if (tern_tape_gradients(tape, out, NULL, 1, in + 1, 2, found, NULL)) return tern_error_code();
  out[1] = found[0];
  out[2] = found[1];
  return TERN_OK;
}

enum { ROWS = 2, COLUMNS = 3 };

static void clip_by_hand(const double *x, const double *high, const double *weight, double *loss, double *dx,
                         double *dhigh) {
  *loss = 0;
  memset(dhigh, 0, COLUMNS * sizeof *dhigh);
  for (int k = 0; k < ROWS * COLUMNS; k++) {
    const int j = k % COLUMNS;
    *loss += weight[k] * fmin(x[k], high[j]);
    dx[k] = x[k] < high[j] ? weight[k] : 0;
    if (x[k] > high[j]) dhigh[j] += weight[k];
  }
}

static void norm_by_hand(const double *x, const double *offset, const double *weight, double *loss, double *dx,
                         double *doffset) {
  *loss = 0;
  memset(doffset, 0, COLUMNS * sizeof *doffset);
  for (int i = 0; i < ROWS; i++) {
    const double *a = x + i * COLUMNS, *w = weight + i * COLUMNS;
    double mean = 0, variance = 0, of_w = 0, of_both = 0;
    for (int j = 0; j < COLUMNS; j++) mean += a[j] / COLUMNS;
    for (int j = 0; j < COLUMNS; j++) variance += (a[j] - mean) * (a[j] - mean) / COLUMNS;
    const double scale = 1 / sqrt(variance + 0.25);
    for (int j = 0; j < COLUMNS; j++) {
      const double y = (a[j] - mean) * scale;
      *loss += w[j] * (y + offset[j]);
      doffset[j] += w[j];
      of_w += w[j] / COLUMNS;
      of_both += w[j] * y / COLUMNS;
    }
    for (int j = 0; j < COLUMNS; j++) dx[i * COLUMNS + j] = scale * (w[j] - of_w - (a[j] - mean) * scale * of_both);
  }
}

static void left_out(void) {
  static const double x[] = {1, -2, 3, 0.5, 4, -1}, other[] = {0.75, 2, -0.25}, weight[] = {1, 2, -3, 0.5, -1, 4};
  static const tern_function_body bodies[] = {clips, norms};
  static void (*const by_hand[])(const double *, const double *, const double *, double *, double *,
                                 double *) = {clip_by_hand, norm_by_hand};
  TERN_SCOPE;
  tern_tensor *in[] = {TERN_NONE, test_tensor(TERN_SHAPE(2, 3), TERN_F32, x),
                       test_tensor(TERN_SHAPE(3), TERN_F32, other), test_tensor(TERN_SHAPE(2, 3), TERN_F32, weight)};
  for (int b = 0; b < 2; b++) {
    double loss, dx[6], dother[3];
    by_hand[b](x, other, weight, &loss, dx, dother);
    derived d = {bodies[b]};
    tern_function *inside = tern_function_new(derives, &d, 4, 3, NULL);
    tern_function *outside = tern_function_new(bodies[b], NULL, 4, 1, NULL);
    for (int call = 0; call < 6; call++) {
      TERN_SCOPE;
      const char *const what = b ? "layer_norm without scale" : "clip without a lower bound";
      tern_tensor *out[3] = {0};
      bool ok;
      if (call & 1)
        ok = !(call > 1 ? tern_function_run(inside, in, 4, out, 3) : derives(&d, in, 4, out, 3));
      else
        ok = gradient_through(call > 1 ? outside : NULL, bodies[b], NULL, in, 4, in + 1, 2, out, out + 1);
      CHECK(ok, "%s, call %d: %s", what, call, tern_error());
      CHECK_VALUES(out[0], TERN_SHAPE(), TERN_F32, &loss, 8, 1e-6, what);
      CHECK_VALUES(out[1], TERN_SHAPE(2, 3), TERN_F32, dx, 8, 1e-6, what);
      CHECK_VALUES(out[2], TERN_SHAPE(3), TERN_F32, dother, 8, 1e-6, what);
    }
    /* with something there instead, it is traced anew */
    tern_tensor *all[] = {b ? tern_ones(TERN_SHAPE(3), TERN_F32) : tern_scalar(-100), in[1], in[2], in[3]}, *y = NULL;
    CHECK(!tern_function_run(outside, all, 4, &y, 1), "%s", tern_error());
    CHECK_VALUES(y, TERN_SHAPE(), TERN_F32, &loss, 8, 1e-6, "with the operand");
    tern_function_release(inside);
    tern_function_release(outside);
  }
  CHECK_NO_ERROR();
}

/* ---- c. scatters into variables ---- */

enum { WIDTH = 2, PLACES = 4, UPDATES = 3 };

typedef struct scattering {
  tern_tensor *variable, *matrix; /* [4], [4, 2] */
  tern_scatter_mode mode;
} scattering;

/* in: indices [3], updates [3], updates [3, 2]. out: each variable before, between two scatters and after them. */
BODY(scatters) {
  const scattering *s = self;
  (void)n_in, (void)n_out;
  for (int k = 0; k < 2; k++) {
    tern_tensor *v = k ? s->matrix : s->variable;
    out[3 * k] = tern_mul(v, tern_scalar(2));
    if (tern_assign_scatter(v, in[0], in[1 + k], s->mode)) return tern_error_code();
    out[3 * k + 1] = tern_neg(v);
    if (tern_assign_scatter(v, tern_scalar_int(-1), k ? tern_f32(TERN_SHAPE(2), 5, -5) : tern_scalar(5), s->mode))
      return tern_error_code();
    out[3 * k + 2] = tern_add(v, tern_scalar(1));
  }
  for (int o = 0; o < 6; o++)
    if (!out[o]) return tern_error_code();
  return TERN_OK;
}

static double combined(tern_scatter_mode mode, double before, double x) {
  return mode == TERN_SCATTER_ADD   ? before + x
         : mode == TERN_SCATTER_SET ? x
         : mode == TERN_SCATTER_MAX ? fmax(before, x)
                                    : fmin(before, x);
}

static void scatter_variables(void) {
  static const double start[] = {1, 2, 3, 4, 5, 6, 7, 8}, index[] = {1, -4, 1}, x[] = {10, 0.5, -3},
                      rows[] = {10, 20, 0.5, 9, -3, 30};
  TERN_SCOPE;
  scattering s = {.variable = tern_variable(test_tensor(TERN_SHAPE(4), TERN_F32, start), NULL),
                  .matrix = tern_variable(test_tensor(TERN_SHAPE(4, 2), TERN_F32, start), NULL)};
  tern_tensor *in[] = {test_tensor(TERN_SHAPE(3), TERN_I64, index), test_tensor(TERN_SHAPE(3), TERN_F32, x),
                       test_tensor(TERN_SHAPE(3, 2), TERN_F32, rows)};
  for (int mode = TERN_SCATTER_ADD; mode <= TERN_SCATTER_MIN; mode++) {
    double v[6][PLACES * WIDTH]; /* what the results are */
    s.mode = (tern_scatter_mode)mode;
    for (int k = 0; k < 2; k++) {
      const int width = k ? WIDTH : 1;
      double now[PLACES * WIDTH];
      memcpy(now, start, sizeof now);
      for (int i = 0; i < PLACES * width; i++) v[3 * k][i] = 2 * now[i];
      for (int u = 0; u < UPDATES; u++)
        for (int c = 0; c < width; c++) {
          double *at = &now[((int)index[u] + PLACES) % PLACES * width + c];
          *at = combined(s.mode, *at, (k ? rows : x)[u * width + c]);
        }
      for (int i = 0; i < PLACES * width; i++) v[3 * k + 1][i] = -now[i];
      for (int c = 0; c < width; c++) {
        double *at = &now[(PLACES - 1) * width + c];
        *at = combined(s.mode, *at, c ? -5 : 5);
      }
      for (int i = 0; i < PLACES * width; i++) v[3 * k + 2][i] = now[i] + 1;
    }
    tern_function *f = tern_function_new(scatters, &s, 3, 6, NULL);
    for (int call = 0; call < 4; call++) {
      TERN_SCOPE;
      tern_tensor *out[6] = {0};
      tern_assign(s.variable, test_tensor(TERN_SHAPE(4), TERN_F32, start));
      tern_assign(s.matrix, test_tensor(TERN_SHAPE(4, 2), TERN_F32, start));
      CHECK(!(call ? tern_function_run(f, in, 3, out, 6) : scatters(&s, in, 3, out, 6)), "mode %d: %s", mode,
            tern_error());
      for (int o = 0; o < 6; o++) {
        char what[60];
        snprintf(what, sizeof what, "mode %d, call %d, result %d", mode, call, o);
        CHECK_VALUES(out[o], o < 3 ? TERN_SHAPE(4) : TERN_SHAPE(4, 2), TERN_F32, v[o], 0, 0, what);
      }
      for (int i = 0; i < 8; i++) v[2][i] -= 1, v[5][i] -= 1;
      CHECK_VALUES(s.variable, TERN_SHAPE(4), TERN_F32, v[2], 0, 0, "the variable");
      CHECK_VALUES(s.matrix, TERN_SHAPE(4, 2), TERN_F32, v[5], 0, 0, "the matrix");
      for (int i = 0; i < 8; i++) v[2][i] += 1, v[5][i] += 1;
    }
    tern_function_release(f);
  }
  CHECK_NO_ERROR();
  tern_release(s.variable);
  tern_release(s.matrix);
}

/* Tapes do not record assignments: what is read before and after a scatter counts with the values seen then. */
BODY(scatters_between) {
  const scattering *s = self;
  (void)n_in, (void)n_out;
  tern_tensor *before = tern_sum(tern_square(s->variable), NULL);
  if (tern_assign_scatter(s->variable, in[0], in[1], TERN_SCATTER_ADD)) return tern_error_code();
  return one(tern_add(before, tern_sum(tern_mul(s->variable, tern_square(s->variable)), NULL)), out);
}
BODY(scatters_and_derives) {
  const scattering *s = self;
  tern_tape *tape = tern_tape_begin(NULL);
  (void)n_out;
  if (!tape || scatters_between(self, in, n_in, out, 1)) return tern_error_code();
  return tern_tape_gradient(tape, out[0], &s->variable, 1, out + 1);
}

static void scatter_gradients(void) {
  static const double start[] = {1, 2, 3, 4}, after[] = {1, 9, 3, 7};
  TERN_SCOPE;
  scattering s = {.variable = tern_variable(test_tensor(TERN_SHAPE(4), TERN_F32, start), NULL)};
  tern_tensor *in[] = {tern_i64(TERN_SHAPE(3), 1, -1, 1), tern_f32(TERN_SHAPE(3), 5, 3, 2)};
  tern_function *inside = tern_function_new(scatters_and_derives, &s, 2, 2, NULL);
  tern_function *outside = tern_function_new(scatters_between, &s, 2, 1, NULL);
  double d[4];
  for (int i = 0; i < 4; i++) d[i] = 2 * start[i] + 3 * after[i] * after[i];
  for (int call = 0; call < 6; call++) {
    TERN_SCOPE;
    tern_tensor *out[2] = {0};
    tern_assign(s.variable, test_tensor(TERN_SHAPE(4), TERN_F32, start));
    bool ok;
    if (call & 1)
      ok = !(call > 1 ? tern_function_run(inside, in, 2, out, 2) : scatters_and_derives(&s, in, 2, out, 2));
    else
      ok = gradient_through(call > 1 ? outside : NULL, scatters_between, &s, in, 2, &s.variable, 1, out, out + 1);
    CHECK(ok, "call %d: %s", call, tern_error());
    CHECK_VALUES(out[1], TERN_SHAPE(4), TERN_F32, d, 4, 0, "the gradient");
    CHECK_VALUES(s.variable, TERN_SHAPE(4), TERN_F32, after, 0, 0, "the variable");
  }
  CHECK_NO_ERROR();
  tern_function_release(inside);
  tern_function_release(outside);
  tern_release(s.variable);
}

/* ---- d. functions that call themselves ---- */

typedef struct caller {
  tern_function *next; /* the one that it calls; NULL: none */
  int calls;           /* how often it still does, negative: without end */
  bool derives;
} caller;

BODY(calls_on) {
  caller *c = self;
  (void)n_in, (void)n_out;
  tern_tensor *x = tern_mul(in[0], tern_scalar(2));
  if (!c->next || c->calls == 0) return one(x, out);
  if (c->calls > 0) c->calls--;
  tern_tape *tape = c->derives ? tern_tape_begin(NULL) : NULL;
  if (c->derives && (!tape || tern_tape_watch(tape, x))) return tern_error_code();
  tern_tensor *y = tern_call(c->next, x), *d;
  if (!y || !tape) return one(y, out);
  if (tern_tape_gradient(tape, y, &x, 1, &d)) return tern_error_code();
  return one(d, out);
}

static void recursion(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_f32(TERN_SHAPE(2), 1, 3), *y;
  for (int kind = 0; kind < 4; kind++) { /* direct, mutual; each with tapes and without */
    caller a = {.calls = -1, .derives = kind & 1}, b = a;
    tern_function *f = tern_function_new(calls_on, &a, 1, 1, &(tern_function_opts){.name = "snake"});
    tern_function *g = tern_function_new(calls_on, &b, 1, 1, &(tern_function_opts){.name = "tail"});
    a.next = kind & 2 ? g : f;
    b.next = f;
    for (int call = 0; call < 3; call++) {
      CHECK(!tern_call(call == 1 ? g : f, x), "kind %d: a function that calls itself gave a result", kind);
      CHECK_ERROR(TERN_E_ARG, kind & 1 ? "32 tapes are open" : "it seems to call itself");
      tern_error_clear();
    }
    a.next = b.next = NULL; /* now they do not */
    CHECK_LIST(tern_call(f, x), TERN_SHAPE(2), TERN_F32, 2, 6);
    CHECK_LIST(tern_call(g, x), TERN_SHAPE(2), TERN_F32, 2, 6);
    tern_function_release(f);
    tern_function_release(g);
    /* as often as that is fine */
    caller c = {.calls = 5};
    f = tern_function_new(calls_on, &c, 1, 1, NULL);
    c.next = f;
    y = tern_call(f, x);
    CHECK_LIST(y, TERN_SHAPE(2), TERN_F32, 64, 192);
    y = tern_call(f, x);
    CHECK_LIST(y, TERN_SHAPE(2), TERN_F32, 64, 192);
    tern_function_release(f);
  }
  CHECK_LIST(tern_add(x, x), TERN_SHAPE(2), TERN_F32, 2, 6);
  CHECK_NO_ERROR();
}

/* ---- f. numbers of the program that look like sizes ---- */

/* Equal to the sizes of the first call, 2 rows of 3; none may change with them. in: x [n, 3] */
BODY(uses_two) {
  UNUSED;
  tern_tensor *x = in[0], *rows = tern_slice(x, &TERN_RANGE(0, 2, 1), 1);
  tern_tensor *y = tern_add(tern_mul(x, tern_scalar(2)), tern_scalar_int(3));
  y = tern_add(y, tern_full(TERN_SHAPE(3), TERN_F32, 2));
  y = tern_add(y, tern_sum(tern_mul(rows, tern_full(TERN_SHAPE(2, 3), TERN_F32, 0.5)), NULL));
  y = tern_concat((tern_tensor *[]){y, tern_ones(TERN_SHAPE(2, 3), TERN_F32)}, 2, 0);
  out[1] = tern_add(tern_arange(0, 2, 1, TERN_F32), tern_scalar(1.0 / 3));
  return one(tern_div(y, tern_scalar(1.0 / 2)), out);
}

static void sizes_that_are_numbers(void) {
  tern_function *f = tern_function_new(uses_two, NULL, 1, 2, NULL);
  for (int n = 2; n < 8; n++) {
    TERN_SCOPE;
    double x[21], y[27], sum = 0;
    for (int k = 0; k < 3 * n; k++) x[k] = k - 4;
    for (int k = 0; k < 6; k++) sum += x[k] / 2;
    for (int k = 0; k < 3 * n; k++) y[k] = 2 * (2 * x[k] + 3 + 2 + sum);
    for (int k = 3 * n; k < 3 * n + 6; k++) y[k] = 2;
    tern_tensor *in = test_tensor(TERN_SHAPE(n, 3), TERN_F32, x), *out[2] = {0};
    CHECK(!tern_function_run(f, &in, 1, out, 2), "%d rows: %s", n, tern_error());
    CHECK_VALUES(out[0], TERN_SHAPE(n + 2, 3), TERN_F32, y, 2, 0, "with rows of its own");
    CHECK_VALUES(out[1], TERN_SHAPE(2), TERN_F32, ((const double[]){1.0 / 3, 4.0 / 3}), 1, 0, "without");
  }
  tern_function_info info = {0};
  tern_function_get_info(f, &info);
  CHECK(info.traces == 2, "%d traces", info.traces);
  CHECK_NO_ERROR();
  tern_function_release(f);
}

/* Numbers as people write them, which are sums of products of what stands for three sizes that vary, and small numbers.
   in: int64 [n], [2 n + 1], [12 - n] */
static const int64_t LARGE[] = {10000000000, 80000000, 90000000000, 700000000,  5000000000,   160000000,
                                3600000000,  33000000, 22000000,    8589934592, 1200000000000};
enum { N_LARGE = sizeof LARGE / sizeof *LARGE };

BODY(adds_large) {
  UNUSED;
  for (int k = 0; k < N_LARGE; k++) {
    out[k] = tern_add(in[0], tern_scalar_int(LARGE[k]));
    if (!out[k]) return tern_error_code();
    out[N_LARGE + k] = tern_mul(tern_cast(in[0], TERN_F64), tern_scalar(1.0 / (double)LARGE[k]));
    if (!out[N_LARGE + k]) return tern_error_code();
  }
  return TERN_OK;
}

static void large_numbers(void) {
  tern_function *f = tern_function_new(adds_large, NULL, 3, 2 * N_LARGE, NULL);
  for (int n = 2; n < 7; n++) {
    TERN_SCOPE;
    tern_tensor *out[2 * N_LARGE] = {0}, *in[3];
    for (int i = 0; i < 3; i++) in[i] = tern_ones(TERN_SHAPE(i == 0 ? n : i == 1 ? 2 * n + 1 : 12 - n), TERN_I64);
    CHECK(!tern_function_run(f, in, 3, out, 2 * N_LARGE), "%s", tern_error());
    for (int k = 0; k < N_LARGE && out[0]; k++) {
      int64_t now = 0;
      CHECK(!tern_to_host(tern_max(out[k], NULL), &now, sizeof now) && now == LARGE[k] + 1,
            "%d rows: %lld + 1 is %lld (%s)", n, (long long)LARGE[k], (long long)now, tern_error());
      double part = 0;
      CHECK(!tern_to_host(tern_max(out[N_LARGE + k], NULL), &part, sizeof part) && part == 1.0 / (double)LARGE[k],
            "%d rows: 1 / %lld is %g", n, (long long)LARGE[k], part);
    }
  }
  tern_function_info info = {0};
  tern_function_get_info(f, &info);
  CHECK(info.traces == 2, "%d traces: a number was taken for a size, which was seen", info.traces);
  CHECK_NO_ERROR();
  tern_function_release(f);
}

/* Small epsilons are attributes of ops: the reciprocals of large round numbers. */
BODY(norms_closely) {
  UNUSED;
  return one(tern_rms_norm(in[0], TERN_NONE, &(tern_rms_norm_opts){.epsilon = 1e-8}), out);
}

static void small_epsilons(void) {
  tern_function *f = tern_function_new(norms_closely, NULL, 1, 1, NULL);
  for (int n = 2; n < 8; n++) {
    TERN_SCOPE;
    double x[14], y[14];
    for (int k = 0; k < 2 * n; k++) x[k] = 1e-4 * (k % 2 ? 1 : -2);
    for (int k = 0; k < 2 * n; k++) y[k] = x[k] / sqrt(2.5e-8 + 1e-8);
    tern_tensor *in = test_tensor(TERN_SHAPE(n, 2), TERN_F32, x);
    CHECK_VALUES(tern_call(f, in), TERN_SHAPE(n, 2), TERN_F32, y, 8, 0, "rms_norm");
  }
  CHECK_NO_ERROR();
  tern_function_release(f);
}

/* ---- masks beyond the caches: their blocks end between two lines of a cache ---- */

BODY(mask) {
  UNUSED;
  return one(tern_less(tern_mul(in[0], in[1]), in[0]), out);
}

static void large_masks(void) {
  TERN_SCOPE;
  if (strncmp(tern_default_device(), "cpu", 3)) return; /* what it is about is in that backend */
  tern_tensor *x = tern_arange(0, 9000001, 1, TERN_F32),
              *sign = tern_sub(tern_remainder(x, tern_scalar(3)), tern_scalar(1));
  tern_function *f = tern_function_new(mask, NULL, 2, 1, NULL);
  tern_tensor *const in[] = {sign, x};
  tern_tensor *got = tern_call_n(f, in, 2); /* x sign < sign: -1 from x = 2 on, and nothing else */
  tern_tensor *want = tern_logical_and(tern_less(sign, tern_scalar(0)), tern_greater(x, tern_scalar(1)));
  CHECK(got && tern_equal_all(got, want), "%s", tern_error());
  CHECK_NO_ERROR();
  tern_function_release(f);
}

static const test_case cases[] = {{"variables behind views", views},
                                  {"operands left out before others", left_out},
                                  {"scatters into variables", scatter_variables},
                                  {"gradients around a scatter", scatter_gradients},
                                  {"functions that call themselves", recursion},
                                  {"numbers equal to sizes", sizes_that_are_numbers},
                                  {"large numbers", large_numbers},
                                  {"small epsilons", small_epsilons},
                                  {"large masks", large_masks}};
TEST_MAIN("mends", cases)
