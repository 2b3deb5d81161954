/* See check_gradient.h. The weights are random, so that no two wrong terms cancel. */
#include "ops/check_gradient.h"
#include <math.h>
#include <stdlib.h>

typedef struct checked {
  const gradient_case *c;
  double *x[GRADIENT_MAX_INPUTS]; /* owned values of the inputs */
  uint64_t seed;                  /* of the weights */
  int order;                      /* of the derivative that `loss` gives: 0 or 1 */
} checked;

/* Fixed numbers in [-1, 1) of t's shape. */
static tern_tensor *weights(tern_tensor *t, uint64_t seed) {
  const int64_t n = tern_size(t);
  double *w = malloc((size_t)n * sizeof *w + 1);
  if (!w) return NULL;
  for (int64_t i = 0; i < n; i++) w[i] = test_uniform(&seed, -1, 1);
  tern_tensor *out = tern_constant(tern_shape_get(t), TERN_F64, w, (size_t)n);
  free(w);
  return out;
}

static tern_tensor *weighted(tern_tensor *t, uint64_t seed) {
  return t ? tern_sum(tern_mul(t, weights(t, seed)), NULL) : NULL;
}

/* Order 0: the weighted result. Order 1: the weighted sum of its gradients. */
static tern_tensor *loss(const checked *k, tern_tensor *const *x) {
  if (k->order == 0) return weighted(k->c->body(x, k->c->n), k->seed);
  tern_tape *tape = tern_tape_begin(NULL);
  tern_tensor *g[GRADIENT_MAX_INPUTS], *sum = tern_f64(TERN_SHAPE(), 0);
  for (int i = 0; i < k->c->n; i++) tern_tape_watch(tape, x[i]);
  tern_tensor *y = weighted(k->c->body(x, k->c->n), k->seed);
  if (tern_tape_gradients(tape, &y, NULL, 1, x, k->c->n, g, &(tern_gradient_opts){1})) return NULL;
  for (int i = 0; i < k->c->n; i++) sum = tern_add(sum, weighted(g[i], k->seed + 1000 + (uint64_t)i));
  return sum;
}

static void inputs(const checked *k, tern_tensor **x) {
  for (int i = 0; i < k->c->n; i++)
    x[i] = tern_constant(k->c->shapes[i], TERN_F64, k->x[i], (size_t)test_numel(k->c->shapes[i]));
}

static double loss_at(const checked *k) {
  TERN_SCOPE;
  tern_tensor *x[GRADIENT_MAX_INPUTS];
  inputs(k, x);
  return tern_item(loss(k, x));
}

/* Every element of input i moved both ways. */
static void compare(const checked *k, int i, const double *analytic) {
  const double h = 1e-5;
  for (int64_t at = 0; at < test_numel(k->c->shapes[i]); at++) {
    double *x = &k->x[i][at];
    const double before = *x;
    *x = before + h;
    const double above = loss_at(k);
    *x = before - h;
    const double below = loss_at(k), slope = (above - below) / (2 * h);
    *x = before;
    if (!CHECK(fabs(slope - analytic[at]) <= 2e-7 * (1 + fabs(slope)),
               "%s: derivative %d by element %lld of input %d is %.9g, differences give %.9g", k->c->name, k->order + 1,
               (long long)at, i, analytic[at], slope))
      return;
  }
}

static void check_order(checked *k) {
  TERN_SCOPE;
  tern_tensor *x[GRADIENT_MAX_INPUTS], *g[GRADIENT_MAX_INPUTS];
  inputs(k, x);
  tern_tape *tape = tern_tape_begin(NULL);
  for (int i = 0; i < k->c->n; i++) tern_tape_watch(tape, x[i]);
  tern_tensor *y = loss(k, x);
  const tern_rc rc = tern_tape_gradients(tape, &y, NULL, 1, x, k->c->n, g, &(tern_gradient_opts){1});
  CHECK(!rc, "%s: derivative %d: %s", k->c->name, k->order + 1, tern_error());
  for (int i = 0; i < k->c->n && !rc; i++) {
    const tern_shape want = k->c->shapes[i], have = tern_shape_get(g[i]);
    CHECK(tern_dtype_get(g[i]) == TERN_F64 && have.rank == want.rank && tern_size(g[i]) == test_numel(want),
          "%s: gradient %d is %s of rank %d", k->c->name, i, tern_dtype_name(tern_dtype_get(g[i])), have.rank);
    double *values = test_values(g[i]);
    if (CHECK(values != NULL, "%s: no values", k->c->name)) compare(k, i, values);
    free(values);
  }
  tern_error_clear();
}

void check_gradient(const gradient_case *c) {
  checked k = {.c = c, .seed = 42};
  uint64_t state = 7;
  for (int i = 0; i < c->n; i++) {
    const int64_t n = test_numel(c->shapes[i]);
    if (!(k.x[i] = malloc((size_t)n * sizeof(double) + 1))) return;
    for (int64_t at = 0; at < n; at++) {
      const double size = test_uniform(&state, 0.5, 1.5);
      k.x[i][at] = test_uniform(&state, 0, 1) < c->zeros ? 0 : test_below(&state, 2) ? size : -size;
    }
  }
  for (k.order = 0; k.order < 2; k.order++) check_order(&k);
  for (int i = 0; i < c->n; i++) free(k.x[i]);
}
