/* See gradients.h. With L(x) = sum(r f(x)) for fixed random r, and random directions v: the tape's gradient times v
   against (L(x + h v) - L(x - h v)) / 2h, and the gradient of G(x) = grad L(x) v, by nested tapes, against the same of
   G. */
#include "tape/gradients.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef enum layout { PLAIN, TURNED, STEPPED, N_LAYOUTS } layout;
static const char *const layout_name[] = {"row-major", "transposed", "strided"};

typedef struct point {
  const gradient_case *c;
  layout layout;
  tern_dtype dtype;
  int n;
  int64_t numel[GRADIENT_INPUTS];
  double x[GRADIENT_INPUTS][GRADIENT_NUMEL];
} point;
typedef double vectors[GRADIENT_INPUTS][GRADIENT_NUMEL];

/* ---- inputs ---- */

static uint64_t seed_of(const gradient_case *c) {
  uint64_t h = 1469598103934665603u;
  for (const char *s = c->op; *s; s++) h = (h ^ (uint8_t)*s) * 1099511628211u;
  for (const char *s = c->form; *s; s++) h = (h ^ (uint8_t)*s) * 1099511628211u;
  return h ^ (uint64_t)c->number;
}

/* Slot k of all the case's elements, shuffled, is where an element lies in its input's range: no ties, also between
   inputs. */
static bool fill(point *p, const gradient_case *c) {
  static int slot[GRADIENT_INPUTS * GRADIENT_NUMEL];
  uint64_t state = seed_of(c);
  int64_t total = 0;
  *p = (point){.c = c, .dtype = TERN_F64};
  for (; p->n < GRADIENT_INPUTS && c->in[p->n].low < c->in[p->n].high; p->n++) {
    p->numel[p->n] = test_numel(c->in[p->n].shape);
    if (!CHECK(p->numel[p->n] <= GRADIENT_NUMEL, "%s (%s): input %d is too large for this test", c->op, c->form, p->n))
      return false;
    total += p->numel[p->n];
  }
  for (int64_t k = 0; k < total; k++) {
    const int64_t at = test_below(&state, k + 1);
    slot[k] = slot[at];
    slot[at] = (int)k;
  }
  int64_t k = 0;
  for (int i = 0; i < p->n; i++) {
    const gradient_input *in = &c->in[i];
    for (int64_t e = 0; e < p->numel[i]; e++) {
      double x = in->low + (in->high - in->low) * (slot[k++] + test_uniform(&state, 0.25, 0.75)) / (double)total;
      if (in->away > 0) x += copysign(in->away, x);
      p->x[i][e] = e < in->zeros ? 0 : x;
    }
  }
  return p->n > 0;
}

/* The values as a view: of the reversed axes, or of every second element, even axes backwards, with NaN between. */
static tern_tensor *viewed(tern_shape shape, tern_dtype dtype, const double *values, layout how) {
  if (how == PLAIN || shape.rank == 0) return test_tensor(shape, dtype, values);
  tern_shape base = shape;
  for (int d = 0; d < shape.rank; d++) base.dim[d] = how == TURNED ? shape.dim[shape.rank - 1 - d] : 2 * shape.dim[d];
  const int64_t n = test_numel(base);
  double *data = malloc((size_t)(n ? n : 1) * sizeof *data);
  if (!data) return NULL;
  for (int64_t i = 0; i < n; i++) data[i] = NAN;
  int64_t index[TERN_MAX_RANK] = {0}, at[TERN_MAX_RANK];
  for (bool more = n > 0; more; more = test_step(shape, index)) {
    for (int d = 0; d < shape.rank; d++) {
      if (how == TURNED)
        at[shape.rank - 1 - d] = index[d];
      else
        at[d] = d % 2 ? 2 * index[d] : base.dim[d] - 1 - 2 * index[d];
    }
    data[test_at(base, at)] = values[test_at(shape, index)];
  }
  tern_tensor *t = test_tensor(base, dtype, data);
  free(data);
  if (how == TURNED) return tern_permute(t, NULL, shape.rank);
  tern_range ranges[TERN_MAX_RANK];
  for (int d = 0; d < shape.rank; d++) ranges[d] = TERN_RANGE(TERN_OPEN, TERN_OPEN, d % 2 ? 2 : -2);
  return tern_slice(t, ranges, shape.rank);
}

static bool make_inputs(const point *p, tern_tensor **x) {
  for (int i = 0; i < p->n; i++)
    if (!(x[i] = viewed(p->c->in[i].shape, p->dtype, p->x[i], p->layout))) return false;
  return true;
}

static void random_vectors(uint64_t seed, const point *p, vectors v) {
  for (int i = 0; i < p->n; i++)
    for (int64_t e = 0; e < p->numel[i]; e++) v[i][e] = test_uniform(&seed, -1, 1);
}

/* r, in the shape of y. */
static double *weights_of(int64_t n) {
  double *r = malloc((size_t)(n ? n : 1) * sizeof *r);
  uint64_t state = 17;
  for (int64_t i = 0; r && i < n; i++) r[i] = test_uniform(&state, 0.5, 1.5) * (test_next(&state) & 1 ? 1 : -1);
  return r;
}
static tern_tensor *weights_like(tern_tensor *y) {
  double *r = weights_of(tern_size(y));
  tern_tensor *t = r ? test_tensor(tern_shape_get(y), tern_dtype_get(y), r) : NULL;
  free(r);
  return t;
}

/* ---- both sides ---- */

/* L at p; NaN when the op failed. */
static double value_at(const point *p) {
  TERN_SCOPE;
  tern_tensor *x[GRADIENT_INPUTS];
  tern_tensor *y = make_inputs(p, x) ? p->c->body(x, p->c->number) : NULL;
  double *values = y ? test_values(y) : NULL, *r = weights_of(tern_size(y)), sum = 0;
  for (int64_t i = 0; i < tern_size(y) && r && values; i++) sum += r[i] * values[i];
  if (!values) sum = NAN;
  free(values);
  free(r);
  return sum;
}

static bool same_form(const point *p, int i, tern_tensor *x, tern_tensor *g, const char *order) {
  const tern_shape a = tern_shape_get(x), b = tern_shape_get(g);
  return CHECK(tern_dtype_get(g) == p->dtype && a.rank == b.rank &&
                   !memcmp(a.dim, b.dim, (size_t)a.rank * sizeof *a.dim),
               "%s (%s), %s: the %s of input %d is %s of rank %d, the input %s of rank %d, or their sizes differ",
               p->c->op, p->c->form, layout_name[p->layout], order, i, tern_dtype_name(tern_dtype_get(g)), b.rank,
               tern_dtype_name(p->dtype), a.rank);
}

static bool download(const point *p, tern_tensor *const *x, tern_tensor *const *g, const char *order, vectors to) {
  for (int i = 0; i < p->n; i++) {
    if (!same_form(p, i, x[i], g[i], order)) return false;
    double *values = test_values(g[i]);
    if (!CHECK(values != NULL, "%s (%s): %s", p->c->op, p->c->form, tern_error())) return false;
    memcpy(to[i], values, (size_t)p->numel[i] * sizeof(double));
    free(values);
  }
  return true;
}

/* The gradient of L at p, and when v is given, that of L's derivative along v. */
static bool tape_at(const point *p, vectors v, vectors first, vectors second) {
  TERN_SCOPE;
  static const tern_gradient_opts zeros = {.unconnected_zeros = 1};
  tern_tensor *x[GRADIENT_INPUTS], *g[GRADIENT_INPUTS], *seeds[GRADIENT_INPUTS], *h[GRADIENT_INPUTS];
  bool ok = make_inputs(p, x);
  tern_tape *outer = v ? tern_tape_begin(NULL) : NULL, *inner = tern_tape_begin(NULL);
  for (int i = 0; i < p->n && ok; i++) ok = (!v || !tern_tape_watch(outer, x[i])) && !tern_tape_watch(inner, x[i]);
  tern_tensor *y = ok ? p->c->body(x, p->c->number) : NULL, *r = y ? weights_like(y) : NULL;
  ok = r && !tern_tape_gradients(inner, &y, &r, 1, x, p->n, g, &zeros);
  for (int i = 0; i < p->n && ok && v; i++) ok = (seeds[i] = test_tensor(p->c->in[i].shape, p->dtype, v[i])) != NULL;
  ok = ok && (!v || !tern_tape_gradients(outer, g, seeds, p->n, x, p->n, h, &zeros));
  if (!CHECK(ok, "%s (%s), %s, %s: %s", p->c->op, p->c->form, layout_name[p->layout], tern_dtype_name(p->dtype),
             tern_error())) {
    tern_error_clear();
    return false;
  }
  return download(p, x, g, "gradient", first) && (!v || download(p, x, h, "second gradient", second));
}

static double dot(const double *a, const double *b, int64_t n, double *size) {
  double sum = 0;
  *size = 0;
  for (int64_t e = 0; e < n; e++) {
    sum += a[e] * b[e];
    *size += fabs(a[e] * b[e]);
  }
  return sum;
}

static double step_of(const gradient_case *c) { return c->step > 0 ? c->step : 0x1p-18; }

static void move(point *to, const point *from, int i, const double *v, double by) {
  memcpy(to->x[i], from->x[i], (size_t)from->numel[i] * sizeof(double));
  for (int64_t e = 0; e < from->numel[i]; e++) to->x[i][e] += by * v[e];
}

static bool agree(const point *p, const char *order, int i, double got, double expected, double size, double rounding) {
  const double slack = (2e-6 * size + 1e-8 + rounding) * (p->c->loose > 0 ? p->c->loose : 1);
  return CHECK(fabs(got - expected) <= slack,
               "%s (%s), %s: %s to input %d: the tape gives %.10g, differences %.10g (allowed %.2g)", p->c->op,
               p->c->form, layout_name[p->layout], order, i, got, expected, slack);
}

static bool check_first(const point *p, vectors g) {
  static vectors v;
  static point moved;
  const double h = step_of(p->c);
  moved = *p;
  for (int k = 0; k < 3; k++) {
    random_vectors(seed_of(p->c) + 1 + (uint64_t)k, p, v);
    for (int i = 0; i < p->n; i++) {
      double size;
      const double got = dot(g[i], v[i], p->numel[i], &size);
      move(&moved, p, i, v[i], h);
      const double above = value_at(&moved);
      move(&moved, p, i, v[i], -h);
      const double below = value_at(&moved);
      move(&moved, p, i, v[i], 0);
      if (!agree(p, "derivative", i, got, (above - below) / (2 * h), size, 4e-15 * (fabs(above) + fabs(below)) / h))
        return false;
    }
  }
  return true;
}

/* G: all inputs along v. */
static double slope_at(const point *p, vectors v) {
  static vectors g;
  double sum = 0, size;
  if (!tape_at(p, NULL, g, NULL)) return NAN;
  for (int i = 0; i < p->n; i++) sum += dot(g[i], v[i], p->numel[i], &size);
  return sum;
}

static bool check_second(const point *p) {
  static vectors v, u, first, second;
  static point moved;
  const double h = step_of(p->c);
  random_vectors(seed_of(p->c) + 11, p, v);
  if (!tape_at(p, v, first, second)) return false;
  moved = *p;
  for (int k = 0; k < 2; k++) {
    random_vectors(seed_of(p->c) + 21 + (uint64_t)k, p, u);
    for (int i = 0; i < p->n; i++) {
      double size;
      const double got = dot(second[i], u[i], p->numel[i], &size);
      move(&moved, p, i, u[i], h);
      const double above = slope_at(&moved, v);
      move(&moved, p, i, u[i], -h);
      const double below = slope_at(&moved, v);
      move(&moved, p, i, u[i], 0);
      if (!agree(p, "second derivative", i, got, (above - below) / (2 * h), size,
                 4e-15 * (fabs(above) + fabs(below)) / h))
        return false;
    }
  }
  return true;
}

/* In another float: gradients keep its dtype and are finite; float32 ones are near those of float64. */
static bool check_narrow(point *p, tern_dtype dtype, vectors g) {
  static vectors narrow;
  double largest = 0;
  p->dtype = dtype;
  p->layout = PLAIN;
  bool ok = tape_at(p, NULL, narrow, NULL);
  for (int i = 0; i < p->n; i++)
    for (int64_t e = 0; e < p->numel[i]; e++) largest = fmax(largest, fabs(g[i][e]));
  const double slack = dtype == TERN_F32 ? 2e-4 * (largest + 0.1) : 0x1p1000; /* rounding to 16 bits makes ties */
  for (int i = 0; i < p->n && ok; i++)
    for (int64_t e = 0; e < p->numel[i] && ok; e++)
      ok = CHECK(fabs(narrow[i][e] - g[i][e]) <= slack,
                 "%s (%s), %s: gradient of input %d, element %d: %.9g, in float64 %.9g", p->c->op, p->c->form,
                 tern_dtype_name(dtype), i, (int)e, narrow[i][e], g[i][e]);
  p->dtype = TERN_F64;
  return ok;
}

/* ---- which ---- */

static bool compiles_kernels(void) { return !strncmp(tern_default_device(), "opencl", 6); }

void gradient_check(const gradient_case *c, void *count) {
  static point p;
  static vectors g;
  gradient_count *n = count;
  const bool few = compiles_kernels(), chosen = seed_of(c) % 12 == 0;
  const bool first_only = c->flags & GRADIENT_FIRST_ONLY || (few && seed_of(c) % 2);
  n->cases++;
  if (few && c->flags & GRADIENT_MINOR && !chosen) {
    n->left_out++;
    return;
  }
  if (!fill(&p, c)) return;
  bool ok = true;
  for (layout how = PLAIN; how < N_LAYOUTS && ok; how++) {
    if (few && how != PLAIN && !(chosen && how == STEPPED)) continue;
    n->checks++;
    p.layout = how;
    ok = tape_at(&p, NULL, g, NULL) && check_first(&p, g) && (first_only || check_second(&p));
  }
  for (tern_dtype d = TERN_F16; d <= TERN_F32 && ok; d++) {
    if (c->flags & GRADIENT_WIDE_ONLY || (d != TERN_F16 && d != TERN_BF16 && d != TERN_F32) || (few && !chosen))
      continue;
    n->checks++;
    ok = check_narrow(&p, d, g);
  }
  if (ok && tern_error_code()) CHECK(0, "%s (%s): %s", c->op, c->form, tern_error());
  tern_error_clear();
}

void gradient_check_all(const char *table, void (*cases)(gradient_visit visit, void *context)) {
  gradient_count n = {0};
  cases(gradient_check, &n);
  printf("(%s on %s: %d cases, %d checks", table, tern_default_device(), n.cases, n.checks);
  if (n.left_out || compiles_kernels())
    printf("; left out, since each kernel is compiled: %d minor cases, and of most others layouts, dtypes, second "
           "derivatives",
           n.left_out);
  printf(") ");
}
