/* See random_graph.h. An op is chosen, tried on random operands, and kept when it fits; sizes are formulas in the
   variable ones, which the body takes from its operands with TERN_LIKE. */
#include "graph/random_graph.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <tern/graph.h>
#include <tern/tern.h>

#define OPS(X)                                                                                                         \
  X(UNARY)                                                                                                             \
  X(BINARY) X(SCALAR) X(REDUCE) X(PERMUTE) X(SLICE) X(MERGE) X(INSERT) X(SQUEEZE) X(EXPAND) X(CONCAT) X(STACK) X(PAD)  \
      X(MATMUL) X(LINEAR) X(SOFTMAX) X(NORM) X(TAKE) X(CAST) X(WHERE) X(COMPARE) X(READ) X(ASSIGN) X(ARGMAX) X(CUMSUM) \
          X(RANDOM) X(SCATTER) X(REPEAT) X(FLIP) X(CENTRE) X(INDEX) X(MEAN_ALL)
enum {
#define X(name) OP_##name,
  OPS(X)
#undef X
      N_OPS
};
static const char *const op_name[] = {
#define X(name) #name,
    OPS(X)
#undef X
};

/* ---- sizes ---- */

static const random_size one = {-1, -1, 1, 0};
static random_size number(int n) { return (random_size){-1, -1, (int16_t)n, 0}; }
static bool is_one(random_size s) { return s.a < 0 && s.mul + s.add == 1; }
static bool same_size(random_size x, random_size y) { return !memcmp(&x, &y, sizeof x); }
static int64_t size_of(random_size s, const int64_t *size) {
  return s.mul * (s.a < 0 ? 1 : size[s.a]) * (s.b < 0 ? 1 : size[s.b]) + s.add;
}
/* The largest that a size can be, for bounds. */
static double largest(random_size s) {
  static const int64_t most[RANDOM_CLASSES] = {9, 9, 9};
  return (double)size_of(s, most);
}
static tern_shape shape_of(const random_form *f, const int64_t *size) {
  tern_shape s = {f->rank, {0}};
  for (int d = 0; d < f->rank; d++) s.dim[d] = size_of(f->dim[d], size);
  return s;
}

/* ---- generating ---- */

typedef struct maker {
  random_graph *g;
  uint64_t state;
  random_step s;
  random_form out;
} maker;

static int below(maker *m, int n) { return (int)test_below(&m->state, n); }
static bool is_float(tern_dtype d) { return d == TERN_F32 || d == TERN_F64 || d == TERN_F16 || d == TERN_BF16; }
static double eps_of(tern_dtype d) {
  return d == TERN_F64 ? 0x1p-52 : d == TERN_F32 ? 0x1p-23 : d == TERN_F16 ? 0x1p-10 : d == TERN_BF16 ? 0x1p-7 : 0;
}

/* Newer values more often. */
static int any_value(maker *m) {
  const int n = m->g->n_values;
  return below(m, 3) ? n - 1 - below(m, n < 6 ? n : 6) : below(m, n);
}
static const random_form *form(const maker *m, int k) { return &m->g->form[m->s.in[k]]; }

static bool broadcast(const random_form *a, const random_form *b, random_form *out) {
  out->rank = a->rank > b->rank ? a->rank : b->rank;
  for (int d = 0; d < out->rank; d++) {
    const int i = d - (out->rank - a->rank), k = d - (out->rank - b->rank);
    const random_size x = i < 0 ? one : a->dim[i], y = k < 0 ? one : b->dim[k];
    if (!is_one(x) && !is_one(y) && !same_size(x, y)) return false;
    out->dim[d] = is_one(x) ? y : x;
  }
  return true;
}

/* Results of arithmetic lie an ulp or so apart; those of one value may not be compared. */
static void inexact(random_form *f, double bound, double error) {
  f->bound = bound;
  f->error = error + 4 * eps_of(f->dtype) * bound;
  f->exact = false;
}

static bool make_map(maker *m) {
  const random_form *a = form(m, 0);
  m->out = *a;
  if (m->s.op == OP_UNARY) {
    const int k = m->s.p[0] = below(m, 9);
    if (!is_float(a->dtype)) return false;
    if (k < 3) return true; /* neg, abs, relu */
    if (k == 8 && a->bound > 3) return false;
    inexact(&m->out,
            k == 8   ? exp(a->bound)
            : k == 7 ? a->bound * a->bound
            : k == 6 ? a->bound + 1
                     : 1,
            a->error * (k == 8   ? exp(a->bound)
                        : k == 7 ? 2 * a->bound
                                 : 2));
    return m->out.bound < 64;
  }
  if (m->s.op == OP_SCALAR) {
    const int k = m->s.p[0] = below(m, 4);
    m->s.value = 0.25 * (1 + below(m, 6));
    if (!is_float(a->dtype)) return false;
    inexact(&m->out,
            k < 2    ? a->bound + m->s.value
            : k == 2 ? a->bound * m->s.value
                     : a->bound / m->s.value,
            a->error * (k < 2    ? 1
                        : k == 2 ? m->s.value
                                 : 1 / m->s.value));
    return m->out.bound < 64;
  }
  const random_form *b = form(m, 1);
  const int k = m->s.p[0] = below(m, 5);
  if (!is_float(a->dtype) || a->dtype != b->dtype || !broadcast(a, b, &m->out)) return false;
  if (k >= 3) { /* maximum, minimum */
    m->out.bound = fmax(a->bound, b->bound);
    m->out.error = fmax(a->error, b->error);
    m->out.exact = a->exact && b->exact;
    return true;
  }
  inexact(&m->out, k == 2 ? a->bound * b->bound : a->bound + b->bound,
          k == 2 ? a->error * b->bound + b->error * a->bound : a->error + b->error);
  return m->out.bound < 64;
}

static bool make_reduce(maker *m) {
  const random_form *a = form(m, 0);
  if (!is_float(a->dtype) || a->rank == 0) return false;
  const int mask = m->s.p[1] = 1 + below(m, (1 << a->rank) - 1), keep = m->s.p[2] = below(m, 2);
  const int k = m->s.p[0] = below(m, 4); /* sum, mean, max, min */
  double n = 1;
  m->out = *a;
  m->out.rank = 0;
  for (int d = 0; d < a->rank; d++) {
    if (mask >> d & 1) n *= largest(a->dim[d]);
    if (!(mask >> d & 1) || keep) m->out.dim[m->out.rank++] = mask >> d & 1 ? one : a->dim[d];
  }
  if (k < 2) inexact(&m->out, k ? a->bound : n * a->bound, (k ? 1 : n) * a->error + n * eps_of(a->dtype) * a->bound);
  return m->out.bound < 64;
}

static bool make_view(maker *m) {
  const random_form *a = form(m, 0);
  const int r = a->rank, axis = m->s.p[0] = r ? below(m, r) : 0;
  m->out = *a;
  switch (m->s.op) {
  case OP_PERMUTE:
    if (r < 2) return false;
    for (int d = 0; d < r; d++) m->s.p[d] = d;
    for (int d = r - 1; d > 0; d--) {
      const int k = below(m, d + 1), t = m->s.p[d];
      m->s.p[d] = m->s.p[k];
      m->s.p[k] = t;
    }
    for (int d = 0; d < r; d++) m->out.dim[d] = a->dim[m->s.p[d]];
    return true;
  case OP_SLICE: /* without the first and the last, maybe backwards */
    if (!r || a->dim[axis].a < 0 || a->dim[axis].add < 0) return false;
    m->s.p[1] = below(m, 3);
    m->out.dim[axis].add = (int16_t)(m->out.dim[axis].add - (m->s.p[1] == 2 ? 1 : 1 + m->s.p[1]));
    return true;
  case OP_MERGE: /* two axes as one */
    if (r < 2 || axis == r - 1) return false;
    if (a->dim[axis].b >= 0 || a->dim[axis + 1].b >= 0 || a->dim[axis].add || a->dim[axis + 1].add) return false;
    if (a->dim[axis].mul * a->dim[axis + 1].mul > 40) return false;
    m->out.dim[axis] =
        (random_size){a->dim[axis].a, a->dim[axis + 1].a, (int16_t)(a->dim[axis].mul * a->dim[axis + 1].mul), 0};
    if (m->out.dim[axis].a < m->out.dim[axis].b) {
      m->out.dim[axis].a = a->dim[axis + 1].a;
      m->out.dim[axis].b = a->dim[axis].a;
    }
    memmove(&m->out.dim[axis + 1], &a->dim[axis + 2], (size_t)(r - axis - 2) * sizeof *a->dim);
    m->out.rank--;
    return true;
  case OP_INSERT:
    if (r == RANDOM_RANK) return false;
    memmove(&m->out.dim[axis + 1], &a->dim[axis], (size_t)(r - axis) * sizeof *a->dim);
    m->out.dim[axis] = one;
    m->out.rank++;
    return true;
  case OP_SQUEEZE:
    if (!r || !is_one(a->dim[axis])) return false;
    memmove(&m->out.dim[axis], &a->dim[axis + 1], (size_t)(r - axis - 1) * sizeof *a->dim);
    m->out.rank--;
    return true;
  case OP_EXPAND:
    if (!r || !is_one(a->dim[axis])) return false;
    m->out.dim[axis] = (random_size){(int8_t)(m->s.p[1] = below(m, RANDOM_CLASSES)), -1, 1, 0};
    return true;
  case OP_INDEX:
    if (!r) return false;
    m->s.p[1] = below(m, 2);
    memmove(&m->out.dim[axis], &a->dim[axis + 1], (size_t)(r - axis - 1) * sizeof *a->dim);
    m->out.rank--;
    return true;
  default: /* FLIP */ return r > 0;
  }
}

static bool make_join(maker *m) {
  const random_form *a = form(m, 0), *b = form(m, 1);
  const int r = a->rank, axis = m->s.p[0] = r ? below(m, r) : 0;
  m->out = *a;
  if (m->s.op == OP_PAD) {
    if (!r || !is_float(a->dtype)) return false;
    m->s.p[1] = below(m, 3);
    m->s.p[2] = below(m, 2);
    m->out.dim[axis].add = (int16_t)(m->out.dim[axis].add + m->s.p[1] + m->s.p[2]);
    m->out.bound = fmax(a->bound, 0.5);
    return true;
  }
  if (m->s.op == OP_REPEAT) {
    if (!r || a->dim[axis].mul > 4) return false;
    m->s.p[1] = below(m, 2);
    m->out.dim[axis].mul = (int16_t)(m->out.dim[axis].mul * 2);
    m->out.dim[axis].add = (int16_t)(m->out.dim[axis].add * 2);
    return true;
  }
  if (a->dtype != b->dtype || r != b->rank || (m->s.op == OP_CONCAT && !r)) return false;
  for (int d = 0; d < r; d++)
    if (!same_size(a->dim[d], b->dim[d])) return false;
  m->out.bound = fmax(a->bound, b->bound);
  m->out.error = fmax(a->error, b->error);
  m->out.exact = a->exact && b->exact;
  if (m->s.op == OP_CONCAT) {
    if (a->dim[axis].mul > 4) return false;
    m->out.dim[axis].mul = (int16_t)(m->out.dim[axis].mul * 2);
    m->out.dim[axis].add = (int16_t)(m->out.dim[axis].add * 2);
    return true;
  }
  if (r == RANDOM_RANK) return false;
  memmove(&m->out.dim[axis + 1], &a->dim[axis], (size_t)(r - axis) * sizeof *a->dim);
  m->out.dim[axis] = number(2);
  m->out.rank++;
  return true;
}

static bool make_product(maker *m) {
  const random_form *a = form(m, 0), *b = form(m, 1), *c = form(m, 2);
  m->out = *a;
  if (a->rank < 2 || b->rank != 2 || a->dtype != b->dtype || (a->dtype != TERN_F32 && a->dtype != TERN_F64))
    return false;
  const random_size k = a->dim[a->rank - 1];
  m->s.p[0] = same_size(b->dim[0], k) ? 0 : 1;
  if (!same_size(b->dim[m->s.p[0]], k)) return false;
  m->out.dim[a->rank - 1] = b->dim[!m->s.p[0]];
  const double n = largest(k);
  inexact(&m->out, n * a->bound * b->bound,
          n * (a->error * b->bound + b->error * a->bound + 4 * eps_of(a->dtype) * a->bound * b->bound));
  if (m->s.op == OP_MATMUL) return m->out.bound < 64;
  random_form sum;
  m->s.p[1] = below(m, 3);
  if (c->dtype != a->dtype || !broadcast(&m->out, c, &sum) || sum.rank != m->out.rank) return false;
  for (int d = 0; d < sum.rank; d++)
    if (!same_size(sum.dim[d], m->out.dim[d])) return false;
  inexact(&m->out, m->out.bound + c->bound, 2 * (m->out.error + c->error));
  return m->out.bound < 64;
}

static bool make_along(maker *m) {
  const random_form *a = form(m, 0);
  const int axis = m->s.p[0] = a->rank ? below(m, a->rank) : 0;
  m->out = *a;
  if (!a->rank || !is_float(a->dtype)) return false;
  const double n = largest(a->dim[axis]), eps = eps_of(a->dtype);
  switch (m->s.op) {
  case OP_SOFTMAX:
    m->s.p[1] = below(m, 2);
    inexact(&m->out, m->s.p[1] ? 2 * a->bound + log(n + 1) : 1, 4 * a->error + n * eps + 4 * eps * a->bound);
    return m->out.bound < 64 && a->bound < 16;
  case OP_NORM: /* epsilon 1: little amplification */
    m->s.p[1] = below(m, 2);
    inexact(&m->out, fmin(a->bound * 2, sqrt(n) + 1),
            6 * (1 + a->bound) * (1 + a->bound) * (a->error + n * eps * a->bound));
    return a->bound < 16;
  case OP_CENTRE: inexact(&m->out, 2 * a->bound, 2 * a->error + n * eps * a->bound); return m->out.bound < 64;
  case OP_CUMSUM: inexact(&m->out, n * a->bound, n * (a->error + n * eps * a->bound)); return m->out.bound < 64;
  case OP_MEAN_ALL: {
    double all = 1;
    for (int d = 0; d < a->rank; d++) all *= largest(a->dim[d]);
    inexact(&m->out, a->bound, a->error + all * eps * a->bound);
    m->out.rank = 0;
    return true;
  }
  case OP_ARGMAX:
    if (!a->exact) return false;
    m->out.dtype = TERN_I64;
    m->out.bound = n;
    m->out.error = 0;
    memmove(&m->out.dim[axis], &a->dim[axis + 1], (size_t)(a->rank - axis - 1) * sizeof *a->dim);
    m->out.rank--;
    return true;
  default: /* TAKE, SCATTER: at places 0, -1, 0 */
    if (m->s.op == OP_TAKE) m->out.dim[axis] = number(3);
    if (m->s.op == OP_SCATTER && (axis || a->rank < 2)) return false;
    if (m->s.op == OP_SCATTER) inexact(&m->out, 4 * a->bound, 4 * a->error);
    return m->out.bound < 64;
  }
}

static bool make_other(maker *m) {
  const random_form *a = form(m, 0), *b = form(m, 1), *c = form(m, 2);
  random_graph *g = m->g;
  m->out = *a;
  switch (m->s.op) {
  case OP_CAST: {
    static const tern_dtype to[] = {TERN_F32, TERN_F64, TERN_F16, TERN_BF16, TERN_F32};
    m->s.dtype = to[below(m, 5)];
    if (a->dtype == m->s.dtype) return false;
    m->out.dtype = m->s.dtype;
    m->out.error = a->error + eps_of(m->s.dtype) * a->bound * (a->exact ? 0 : 1);
    return a->dtype != TERN_I64 || a->bound < 64;
  }
  case OP_COMPARE:
    m->s.p[0] = below(m, 3);
    if (!a->exact || !b->exact || a->dtype != b->dtype || !broadcast(a, b, &m->out)) return false;
    m->out.dtype = TERN_BOOL;
    m->out.bound = 1;
    return true;
  case OP_WHERE:
    if (a->dtype != TERN_BOOL || b->dtype != c->dtype || !broadcast(b, c, &m->out)) return false;
    m->out.dtype = b->dtype;
    m->out.bound = fmax(b->bound, c->bound);
    m->out.error = fmax(b->error, c->error);
    m->out.exact = b->exact && c->exact;
    random_form all = m->out;
    if (!broadcast(a, &m->out, &all)) return false;
    m->out.rank = all.rank;
    memcpy(m->out.dim, all.dim, sizeof all.dim);
    return true;
  case OP_READ:
    m->s.n_in = 0;
    m->s.p[0] = below(m, g->n_variables);
    m->out = (random_form){
        TERN_F32, 2, {number(3), number(4)}, g->variable_error[m->s.p[0]] == 0, 64, g->variable_error[m->s.p[0]]};
    return true;
  case OP_ASSIGN: /* variable += tanh(value), or = */
    m->s.p[0] = below(m, g->n_variables);
    m->s.p[1] = below(m, 2);
    if (a->dtype != TERN_F32 || a->rank > 2) return false;
    random_form v = {.rank = 2, .dim = {number(3), number(4)}}, sum;
    if (!broadcast(&v, a, &sum) || sum.rank != 2 || !same_size(sum.dim[0], v.dim[0]) ||
        !same_size(sum.dim[1], v.dim[1]))
      return false;
    if (m->s.p[1] && (a->rank != 2 || !same_size(a->dim[0], v.dim[0]) || !same_size(a->dim[1], v.dim[1]))) return false;
    g->variable_error[m->s.p[0]] = (m->s.p[1] ? 0 : g->variable_error[m->s.p[0]]) + a->error + 0x1p-20;
    return true;
  default: /* RANDOM */
    m->s.n_in = 0;
    m->s.p[0] = below(m, RANDOM_CLASSES);
    m->s.p[1] = below(m, 3);
    m->out = (random_form){TERN_F32, 2, {{(int8_t)m->s.p[0], -1, 1, 0}, number(4)}, true, 1, 0};
    if (m->s.p[1]) inexact(&m->out, 8, 0);
    return true;
  }
}

static bool make_step(maker *m) {
  m->s = (random_step){.op = below(m, N_OPS), .n_in = 1};
  for (int k = 0; k < 3; k++) m->s.in[k] = any_value(m);
  switch (m->s.op) {
  case OP_BINARY:
  case OP_CONCAT:
  case OP_STACK:
  case OP_MATMUL:
  case OP_COMPARE: m->s.n_in = 2; break;
  case OP_LINEAR:
  case OP_WHERE: m->s.n_in = 3; break;
  default: break;
  }
  switch (m->s.op) {
  case OP_UNARY:
  case OP_BINARY:
  case OP_SCALAR: return make_map(m);
  case OP_REDUCE: return make_reduce(m);
  case OP_PERMUTE:
  case OP_SLICE:
  case OP_MERGE:
  case OP_INSERT:
  case OP_SQUEEZE:
  case OP_EXPAND:
  case OP_INDEX:
  case OP_FLIP: return make_view(m);
  case OP_CONCAT:
  case OP_STACK:
  case OP_REPEAT:
  case OP_PAD: return make_join(m);
  case OP_MATMUL:
  case OP_LINEAR: return make_product(m);
  case OP_SOFTMAX:
  case OP_NORM:
  case OP_CENTRE:
  case OP_CUMSUM:
  case OP_MEAN_ALL:
  case OP_ARGMAX:
  case OP_TAKE:
  case OP_SCATTER: return make_along(m);
  default: return make_other(m);
  }
}

static double elements(const random_form *f) {
  double n = 1;
  for (int d = 0; d < f->rank; d++) n *= largest(f->dim[d]);
  return n;
}

static tern_tensor *filled(tern_shape shape, tern_dtype d, uint64_t *state) {
  double x[4096];
  const int64_t n = test_numel(shape);
  if (n > 4096) return NULL;
  for (int64_t i = 0; i < n; i++) x[i] = test_uniform(state, -1, 1);
  return test_tensor(shape, d, x);
}

bool random_graph_make(random_graph *g, uint64_t seed, int steps) {
  TERN_SCOPE;
  maker m = {.g = g, .state = seed};
  memset(g, 0, sizeof *g);
  g->seed = seed;
  g->n_inputs = 2 + below(&m, RANDOM_INPUTS - 1);
  g->n_variables = 2;
  const tern_dtype d = below(&m, 4) ? TERN_F32 : TERN_F64;
  for (int i = 0; i < RANDOM_CLASSES; i++) g->size[i] = 4;
  for (int i = 0; i < g->n_inputs; i++) {
    random_form *f = &g->form[g->n_values++];
    *f = (random_form){.dtype = below(&m, 5) ? d : TERN_F32, .rank = 1 + below(&m, 3), .exact = true, .bound = 1};
    for (int k = 0; k < f->rank; k++)
      f->dim[k] = below(&m, 6)   ? (random_size){(int8_t)below(&m, RANDOM_CLASSES), -1, 1, 0}
                  : below(&m, 2) ? one
                                 : number(4);
  }
  for (int i = 0; i < RANDOM_CLASSES; i++) g->form[0].dim[i] = (random_size){(int8_t)i, -1, 1, 0}; /* all of them */
  g->form[0].rank = RANDOM_CLASSES;
  uint64_t state = seed ^ 77;
  g->form[g->n_values++] = (random_form){TERN_F32, 2, {number(3), number(4)}, true, 1, 0};
  g->constant = tern_keep(filled((tern_shape){2, {3, 4}}, TERN_F32, &state));
  for (int i = 0; i < 2; i++)
    g->variable[i] =
        tern_variable(filled((tern_shape){2, {3, 4}}, TERN_F32, &state), &(tern_variable_opts){.name = "v"});
  if (!g->constant || !g->variable[0] || !g->variable[1]) return false;
  g->first_step_value = g->n_values;
  for (int tries = 0; tries < 40 * steps && g->n_steps < steps && g->n_values < RANDOM_VALUES; tries++) {
    if (!make_step(&m) || elements(&m.out) > 4000 || m.out.error > 0.02 * (m.out.bound + 1)) continue;
    g->step[g->n_steps++] = m.s;
    g->form[g->n_values++] = m.out;
  }
  g->n_outputs = 1 + below(&m, RANDOM_OUTPUTS);
  for (int i = 0; i < g->n_outputs; i++) g->output[i] = any_value(&m);
  return true;
}

void random_graph_end(random_graph *g) {
  tern_release(g->constant);
  tern_release(g->variable[0]);
  tern_release(g->variable[1]);
}

/* ---- running ---- */

static tern_tensor *run_map(const random_step *s, tern_tensor *const *x) {
  static tern_tensor *(*const unary[])(tern_tensor *) = {tern_neg, tern_abs,     tern_relu,   tern_tanh, tern_sin,
                                                         tern_cos, tern_sigmoid, tern_square, tern_exp};
  static tern_tensor *(*const binary[])(tern_tensor *, tern_tensor *) = {tern_add, tern_sub, tern_mul, tern_maximum,
                                                                         tern_minimum};
  if (s->op == OP_UNARY) return unary[s->p[0]](x[0]);
  if (s->op == OP_BINARY) return binary[s->p[0]](x[0], x[1]);
  tern_tensor *k = tern_scalar(s->value);
  return s->p[0] == 0   ? tern_add(x[0], k)
         : s->p[0] == 1 ? tern_sub(k, x[0])
         : s->p[0] == 2 ? tern_mul(x[0], k)
                        : tern_div(x[0], k);
}

static tern_tensor *run_reduce(const random_step *s, tern_tensor *x, int rank) {
  static tern_tensor *(*const reduce[])(tern_tensor *, const tern_reduce_opts *) = {tern_sum, tern_mean, tern_max,
                                                                                    tern_min};
  int axes[RANDOM_RANK], n = 0;
  for (int d = 0; d < rank; d++)
    if (s->p[1] >> d & 1) axes[n++] = d;
  return reduce[s->p[0]](x, &(tern_reduce_opts){.axes = axes, .n_axes = n, .keepdims = s->p[2]});
}

static tern_tensor *run_view(const random_step *s, tern_tensor *x, const random_form *from, const random_form *to,
                             const int64_t *size) {
  tern_range all[RANDOM_RANK];
  const int axis = s->p[0];
  for (int d = 0; d < RANDOM_RANK; d++) all[d] = TERN_ALL;
  switch (s->op) {
  case OP_PERMUTE: return tern_permute(x, s->p, from->rank);
  case OP_SLICE:
    all[axis] = s->p[1] == 0   ? TERN_RANGE(1, TERN_OPEN, 1)
                : s->p[1] == 1 ? TERN_RANGE(1, -1, 1)
                               : TERN_RANGE(-2, TERN_OPEN, -1);
    return tern_slice(x, all, axis + 1);
  case OP_INSERT: return tern_expand_dims(x, axis);
  case OP_SQUEEZE: return tern_squeeze(x, axis);
  case OP_INDEX: return tern_index(x, axis, s->p[1] ? -1 : 0);
  case OP_FLIP: return tern_flip(x, &axis, 1);
  case OP_MERGE: return tern_reshape(x, shape_of(to, size));
  default: return tern_expand(x, shape_of(to, size));
  }
}

static tern_tensor *run_along(const random_step *s, tern_tensor *x, int rank) {
  const int axis = s->p[0];
  const tern_reduce_opts keep = {.axes = &axis, .n_axes = 1, .keepdims = 1}, drop = {.axes = &axis, .n_axes = 1};
  switch (s->op) {
  case OP_SOFTMAX: return s->p[1] ? tern_log_softmax(x, axis) : tern_softmax(x, axis);
  case OP_NORM:
    return s->p[1] ? tern_rms_norm(x, TERN_NONE, &(tern_rms_norm_opts){.epsilon = 1})
                   : tern_layer_norm(x, TERN_NONE, TERN_NONE, &(tern_layer_norm_opts){.epsilon = 1});
  case OP_CENTRE: return tern_sub(x, tern_mean(x, &keep));
  case OP_CUMSUM: return tern_cumsum(x, axis, NULL);
  case OP_MEAN_ALL: return tern_mean(x, NULL);
  case OP_ARGMAX: return tern_argmax(x, &drop);
  case OP_TAKE: return tern_take(x, tern_i64(TERN_SHAPE(3), 0, -1, 0), axis);
  default:
    (void)rank;
    return tern_scatter_add(x, tern_i64(TERN_SHAPE(3), 0, -1, 0), tern_take(x, tern_i64(TERN_SHAPE(3), 0, 0, -1), 0),
                            0);
  }
}

static tern_tensor *run_product(const random_step *s, tern_tensor *const *x) {
  tern_tensor *y = tern_matmul(x[0], s->p[0] ? tern_transpose(x[1]) : x[1]);
  if (s->op == OP_MATMUL) return y;
  y = tern_add(y, x[2]);
  return s->p[1] == 0 ? tern_relu(y) : s->p[1] == 1 ? tern_gelu(y, NULL) : y;
}

static tern_tensor *run_join(const random_step *s, tern_tensor *const *x, int rank) {
  tern_padding padding[RANDOM_RANK] = {{0, 0}};
  tern_shape times = {rank, {1, 1, 1, 1}};
  switch (s->op) {
  case OP_CONCAT: return tern_concat(x, 2, s->p[0]);
  case OP_STACK: return tern_stack(x, 2, s->p[0]);
  case OP_PAD: padding[s->p[0]] = (tern_padding){s->p[1], s->p[2]}; return tern_pad(x[0], padding, rank, 0.5);
  default: times.dim[s->p[0]] = 2; return s->p[1] ? tern_repeat(x[0], 2, s->p[0]) : tern_tile(x[0], times);
  }
}

static tern_tensor *run_other(random_graph *g, const random_step *s, tern_tensor *const *x, const int64_t *size) {
  const tern_shape shape = {2, {size[s->p[0] % RANDOM_CLASSES], 4}};
  switch (s->op) {
  case OP_CAST: return tern_cast(x[0], s->dtype);
  case OP_COMPARE:
    return s->p[0] == 0   ? tern_less(x[0], x[1])
           : s->p[0] == 1 ? tern_greater_equal(x[0], x[1])
                          : tern_equal(x[0], x[1]);
  case OP_WHERE: return tern_where(x[0], x[1], x[2]);
  case OP_READ: return s->p[0] ? tern_transpose(tern_transpose(g->variable[1])) : g->variable[0];
  case OP_ASSIGN:
    if (s->p[1] ? tern_assign(g->variable[s->p[0]], tern_tanh(x[0]))
                : tern_assign_add(g->variable[s->p[0]], tern_tanh(x[0])))
      return NULL;
    return x[0];
  default:
    return s->p[1] == 0   ? tern_random_uniform(shape, NULL)
           : s->p[1] == 1 ? tern_random_normal(shape, NULL)
                          : tern_dropout(tern_ones(shape, TERN_F32), 0.5, NULL);
  }
}

tern_rc random_graph_body(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  random_graph *g = self;
  tern_tensor *value[RANDOM_VALUES];
  int64_t size[RANDOM_CLASSES];
  int n = 0;
  for (int i = 0; i < RANDOM_CLASSES; i++) size[i] = TERN_LIKE(in[0], i);
  while (n < n_in) value[n] = in[n], n++;
  value[n++] = g->constant;
  for (int i = 0; i < g->n_steps; i++, n++) {
    const random_step *s = &g->step[i];
    const random_form *from = &g->form[s->in[0]], *to = &g->form[n];
    tern_tensor *x[3] = {value[s->in[0]], value[s->in[1]], value[s->in[2]]}, *y;
    if (s->op <= OP_SCALAR)
      y = run_map(s, x);
    else if (s->op == OP_REDUCE)
      y = run_reduce(s, x[0], from->rank);
    else if ((s->op >= OP_PERMUTE && s->op <= OP_EXPAND) || s->op == OP_FLIP || s->op == OP_INDEX)
      y = run_view(s, x[0], from, to, size);
    else if (s->op == OP_CONCAT || s->op == OP_STACK || s->op == OP_PAD || s->op == OP_REPEAT)
      y = run_join(s, x, from->rank);
    else if (s->op == OP_MATMUL || s->op == OP_LINEAR)
      y = run_product(s, x);
    else if (s->op == OP_CAST || s->op == OP_COMPARE || s->op == OP_WHERE || s->op == OP_READ || s->op == OP_ASSIGN ||
             s->op == OP_RANDOM)
      y = run_other(g, s, x, size);
    else
      y = run_along(s, x[0], from->rank);
    if (!y) return tern_error_code() ? tern_error_code() : TERN_E_INTERNAL;
    value[n] = y;
  }
  for (int o = 0; o < n_out; o++) out[o] = value[g->output[o]];
  return TERN_OK;
}

tern_rc random_graph_operands(random_graph *g, int call, tern_tensor **in) {
  static const int64_t sizes[][RANDOM_CLASSES] = {{4, 3, 5}, {4, 3, 5}, {6, 3, 5}, {7, 3, 5},
                                                  {3, 7, 5}, {5, 4, 5}, {3, 3, 3}};
  uint64_t state = g->seed * 31 + (uint64_t)call;
  memcpy(g->size, sizes[call], sizeof g->size);
  tern_set_seed(g->seed + (uint64_t)call);
  for (int i = 0; i < g->n_inputs; i++)
    if (!(in[i] = filled(shape_of(&g->form[i], g->size), g->form[i].dtype, &state))) return TERN_E_ARG;
  for (int i = 0; i < 2; i++) {
    tern_tensor *v = filled((tern_shape){2, {3, 4}}, TERN_F32, &state);
    if (!v || tern_assign(g->variable[i], v)) return TERN_E_ARG;
  }
  return TERN_OK;
}

void random_graph_print(const random_graph *g) {
  bool live[RANDOM_VALUES] = {false};
  for (int o = 0; o < g->n_outputs; o++) live[g->output[o]] = true;
  for (int i = g->n_values; i-- > g->first_step_value;) {
    const random_step *s = &g->step[i - g->first_step_value];
    live[i] = live[i] || s->op == OP_ASSIGN;
    for (int k = 0; k < s->n_in && live[i]; k++) live[s->in[k]] = true;
  }
  for (int i = 0; i < g->n_values; i++) {
    if (!live[i]) continue;
    const random_form *f = &g->form[i];
    const int k = i - g->first_step_value;
    const random_step *s = &g->step[k < 0 ? 0 : k];
    printf("  %d = %s", i, k >= 0 ? op_name[s->op] : i < g->n_inputs ? "input" : "constant");
    for (int j = 0; k >= 0 && j < s->n_in; j++) printf(" %d", s->in[j]);
    if (k >= 0) printf(" (%d %d %d %d; %g)", s->p[0], s->p[1], s->p[2], s->p[3], s->value);
    printf(": %s[", tern_dtype_name(f->dtype));
    for (int d = 0; d < f->rank; d++) printf("%s%lld", d ? ", " : "", (long long)size_of(f->dim[d], g->size));
    printf("]%s, at most %.3g, error %.2g\n", f->exact ? " exact" : "", f->bound, f->error);
  }
  printf("  results:");
  for (int o = 0; o < g->n_outputs; o++) printf(" %d", g->output[o]);
  printf("\n");
}
