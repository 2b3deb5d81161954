/* Every op as a traced function: the gradient cases of tests/tape (each op with its gradient) and the samples of the
   op table in every dtype, against the same body run eagerly; first with the sizes of the case, then with others, which
   one more trace with variable sizes must serve. */
#include "graph/traced.h"
#include "ops/op.h"
#include "tape/gradients.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <tern/tern.h>

enum { CALLS = 4 };

/* A case, and what its inputs' sizes are in each call. */
typedef struct subject {
  const gradient_case *c;
  tern_dtype dtype;
  int n, from, input, axis; /* the size that changes: `from` everywhere, or (from 0) an axis of an input */
  int to[CALLS];
  bool gradients;
} subject;

static bool on_opencl(void) { return !strncmp(tern_default_device(), "opencl", 6); }

static uint64_t hash(const char *text, uint64_t h) {
  for (; *text; text++) h = (h ^ (uint8_t)*text) * 1099511628211u;
  return h;
}

/* ---- operands ---- */

static tern_shape shape_in(const subject *s, int i, int call) {
  tern_shape shape = s->c->in[i].shape;
  for (int d = 0; d < shape.rank; d++)
    if (s->from ? shape.dim[d] == s->from : i == s->input && d == s->axis) shape.dim[d] = s->to[call];
  return shape;
}

/* Spread over the input's range in random order, all inputs' elements on one grid, so that there are no ties. */
static tern_rc case_operands(void *self, int call, tern_tensor **in) {
  const subject *s = self;
  uint64_t state = hash(s->c->op, hash(s->c->form, 1469598103934665603u)) + (uint64_t)call;
  int64_t total = 0, k = 0;
  for (int i = 0; i < s->n; i++) total += test_numel(shape_in(s, i, call));
  int64_t *slot = malloc((size_t)(total + 1) * sizeof *slot);
  double *x = malloc((size_t)(total + 1) * sizeof *x);
  tern_rc rc = slot && x ? TERN_OK : TERN_E_OOM;
  for (int64_t j = 0; j < total && !rc; j++) {
    const int64_t at = test_below(&state, j + 1);
    slot[j] = slot[at];
    slot[at] = j;
  }
  for (int i = 0; i < s->n && !rc; i++) {
    const gradient_input *g = &s->c->in[i];
    const tern_shape shape = shape_in(s, i, call);
    const int64_t n = test_numel(shape);
    for (int64_t e = 0; e < n; e++) {
      x[e] = g->low + (g->high - g->low) * ((double)slot[k++] + 0.5) / (double)total;
      if (g->away > 0) x[e] += copysign(g->away, x[e]);
      if (e < g->zeros) x[e] = 0;
    }
    if (!(in[i] = test_tensor(shape, s->dtype, x))) rc = TERN_E_ARG;
  }
  free(slot);
  free(x);
  return rc;
}

/* ---- bodies ---- */

static tern_rc case_body(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  static const tern_gradient_opts zeros = {.unconnected_zeros = 1};
  const subject *s = self;
  (void)n_out;
  if (!s->gradients) return (out[0] = s->c->body(in, s->c->number)) ? TERN_OK : tern_error_code();
  tern_tape *tape = tern_tape_begin(NULL);
  for (int i = 0; i < n_in; i++)
    if (!tape || tern_tape_watch(tape, in[i])) return tern_error_code();
  tern_tensor *y = s->c->body(in, s->c->number);
  tern_tensor *seed = y ? tern_sin(tern_add(tern_mul(tern_stop_gradient(y), tern_scalar(3)), tern_scalar(1))) : NULL;
  if (!seed) return tern_error_code();
  out[0] = y;
  return tern_tape_gradients(tape, &y, &seed, 1, in, n_in, out + 1, &zeros);
}

/* ---- which sizes ---- */

static bool valid(subject *s, int call) {
  TERN_SCOPE;
  tern_tensor *in[GRADIENT_INPUTS], *out[1 + GRADIENT_INPUTS] = {0};
  const tern_rc rc = case_operands(s, call, in);
  const bool ok = !rc && !case_body(s, in, s->n, out, 1 + s->n);
  tern_error_clear();
  return ok;
}

/* Three more sizes for which the case makes sense; false: there are none. */
static bool other_sizes(subject *s, int now) {
  static const int more[][3] = {{1, 2, 3}, {2, 4, 6}};
  s->to[0] = now;
  for (int k = 0; k < 3; k++) {
    bool all = true;
    for (int i = 0; i < 3; i++) s->to[1 + i] = k < 2 ? now + more[k][i] : (2 + i) * now;
    for (int i = 0; i < 3 && all; i++) all = valid(s, 1 + i);
    if (all) return true;
  }
  return false;
}

static void run_both(subject *s, const char *what, int calls, traced_count *count) {
  char name[256];
  snprintf(name, sizeof name, "%s (%s), %s, %s", s->c->op, s->c->form, tern_dtype_name(s->dtype), what);
  traced t = {.name = name,
              .body = case_body,
              .operands = case_operands,
              .self = s,
              .n_in = s->n,
              .n_out = 1 + (s->gradients ? s->n : 0),
              .n_calls = calls};
  static const tern_function_opts plain = {.name = "plain", .no_simplify = 1, .no_fuse = 1};
  if (!traced_check(&t, &plain, count)) return;
  t.tolerance = 64;
  traced_check(&t, NULL, count);
}

static void visit_case(const gradient_case *c, void *context) {
  traced_count *count = context;
  subject s = {.c = c, .dtype = c->flags & GRADIENT_WIDE_ONLY ? TERN_F64 : TERN_F32};
  while (s.n < GRADIENT_INPUTS && c->in[s.n].low < c->in[s.n].high) s.n++;
  if (on_opencl() && hash(c->op, hash(c->form, 7)) % 12) {
    count->left_out++;
    return;
  }
  s.input = s.axis = -1;
  static const tern_dtype types[] = {TERN_F32, TERN_F64, TERN_F16, TERN_BF16};
  for (int k = 0; k < (on_opencl() ? 1 : 4); k++) {
    if (c->flags & GRADIENT_WIDE_ONLY && types[k] != TERN_F64) continue;
    s.dtype = types[k];
    s.gradients = true;
    if (!valid(&s, 0)) s.gradients = false;
    run_both(&s, "as it is", 1, count);
  }
  s.dtype = c->flags & GRADIENT_WIDE_ONLY ? TERN_F64 : TERN_F32;
  s.gradients = true;
  for (int i = 0; i < s.n; i++)
    for (int d = 0; d < c->in[i].shape.rank; d++) {
      const int now = (int)c->in[i].shape.dim[d];
      char what[64];
      bool seen = now < 2;
      for (int j = 0; j <= i; j++)
        for (int e = 0; e < (j < i ? c->in[j].shape.rank : d); e++) seen = seen || c->in[j].shape.dim[e] == now;
      s.from = now;
      snprintf(what, sizeof what, "%d changed", now);
      if (!seen && other_sizes(&s, now)) run_both(&s, what, CALLS, count);
      s.from = 0;
      s.input = i;
      s.axis = d;
      snprintf(what, sizeof what, "axis %d of input %d changed", d, i);
      if (now > 1 && other_sizes(&s, now)) run_both(&s, what, CALLS, count);
      s.input = s.axis = -1;
      if (on_opencl()) return;
    }
}

static void check_table(void (*cases)(gradient_visit, void *)) {
  traced_count n = {0};
  cases(visit_case, &n);
  printf("(%d functions, %d calls, %d results compared; %d of them traced more than twice) ", n.functions, n.calls,
         n.compared, n.many_traces);
}

static void maps(void) { check_table(gradient_map_cases); }
static void reductions(void) { check_table(gradient_reduce_cases); }
static void arrangements(void) { check_table(gradient_arrange_cases); }
static void nn(void) { check_table(gradient_nn_cases); }
static void losses(void) { check_table(gradient_loss_cases); }

/* ---- samples ---- */

typedef struct sample {
  const tern__op *op;
  tern_dtype dtype;
  int rows[3], columns[3];
} sample;

static tern_rc sample_operands(void *self, int call, tern_tensor **in) {
  const sample *s = self;
  double x[256], y[256];
  const tern_shape shape = {2, {s->rows[call], s->columns[call]}};
  for (int64_t e = 0; e < test_numel(shape); e++) {
    x[e] = s->dtype == TERN_BOOL ? (double)(e % 2) : 0.25 * (double)((e * 5) % 11) + (double)(e % 3);
    y[e] = s->dtype == TERN_BOOL ? (double)(e % 3 == 0) : (double)(e % 4) + 1;
  }
  tern_set_seed(5);
  in[0] = test_tensor(shape, s->dtype, x);
  in[1] = test_tensor(shape, s->dtype, y);
  return in[0] && in[1] ? TERN_OK : TERN_E_ARG;
}

static tern_rc sample_body(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const sample *s = self;
  (void)n_in;
  (void)n_out;
  const tern__sample call = {s->op, s->dtype, in[0], in[1]};
  out[0] = s->op->sample(&call);
  return out[0] ? TERN_OK : tern_error_code();
}

/* All but unique: the size of its result depends on the values, which a graph refuses (test_function.c). */
static void samples(void) {
  static const int sizes[][2][3] = {{{2, 4, 5}, {3, 3, 3}}, {{2, 2, 2}, {3, 5, 7}}, {{2, 5, 6}, {3, 5, 6}}};
  traced_count n = {0};
  const tern__op *op;
  for (int i = 1; (op = tern__op_at(i)); i++)
    for (tern_dtype d = TERN_BOOL; d < TERN_DTYPE_END; d++)
      for (int k = 0; k < 3 && op->dtypes >> d & 1; k++) {
        if (!op->sample || !strcmp(op->name, "unique") || (on_opencl() && (k || (i + (int)d) % 16))) continue;
        sample s = {.op = op, .dtype = d};
        memcpy(s.rows, sizes[k][0], sizeof s.rows);
        memcpy(s.columns, sizes[k][1], sizeof s.columns);
        char name[128];
        snprintf(name, sizeof name, "sample of %s, %s, sizes %d", op->name, tern_dtype_name(d), k);
        traced t = {.name = name,
                    .body = sample_body,
                    .operands = sample_operands,
                    .self = &s,
                    .n_in = 2,
                    .n_out = 1,
                    .n_calls = 3};
        static const tern_function_opts plain = {.name = "plain", .no_simplify = 1, .no_fuse = 1};
        if (!traced_check(&t, &plain, &n)) continue;
        t.tolerance = 64;
        traced_check(&t, NULL, &n);
      }
  printf("(%d functions, %d calls, %d results compared; %d traced more than twice; %d calls left out) ", n.functions,
         n.calls, n.compared, n.many_traces, n.left_out);
}

static const test_case cases[] = {
    {"elementwise", maps}, {"reductions", reductions},      {"arrangements", arrangements}, {"nn", nn},
    {"losses", losses},    {"samples, all dtypes", samples}};
TEST_MAIN("traced ops", cases)
