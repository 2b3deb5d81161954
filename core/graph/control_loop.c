/* tern_cond and tern_while in graphs: the nodes, and what their gradients compute. The gradient of a branch is a branch
   on the same predicate; that of a loop is a loop over the states that the forward one saved, one a trip. */
#include "base/alloc.h"
#include "device/device.h"
#include "graph/control.h"
#include "tensor/dtype.h"
#include <stdlib.h>
#include <tern/ops.h>

static bool is_float(const tern_tensor *x) { return tern__is_float((tern_dtype)x->dtype); }

/* One element, BOOL. */
static tern_tensor *as_predicate(const char *what, tern_tensor *x) {
  char text[200];
  x = tern__control_solid(x, NULL);
  if (!x) return NULL;
  if (x->numel != 1) {
    tern__fail(TERN_E_ARG, "%s has shape %s; it must have one element: tern_all or tern_any make one of many", what,
               tern__shape_text(text, x->rank, x->shape));
    return NULL;
  }
  if (x->flags & TERN__VARIABLE) x = tern__itself(x);
  return !x || x->dtype == TERN_BOOL ? x : tern_not_equal(x, tern_scalar_int(0));
}

tern_tensor *tern__count_beside(const tern_tensor *t, int64_t value) {
  tern_device_mark mark = tern_device_begin(t->device->name);
  tern_tensor *x = tern_full((tern_shape){0, {0}}, TERN_I64, (double)value);
  tern_device_end(&mark);
  return x;
}

tern_tensor *tern__stack_of(const tern_tensor *t, int64_t n) {
  char text[200];
  tern_shape shape = {.rank = t->rank + 1, .dim = {n}};
  if (shape.rank > TERN_MAX_RANK) {
    tern__fail(TERN_E_UNSUPPORTED, "graph: slices of shape %s cannot be stacked: the rank would be %d",
               tern__shape_text(text, t->rank, t->shape), shape.rank);
    return NULL;
  }
  for (int d = 0; d < t->rank; d++) shape.dim[d + 1] = t->shape[d];
  tern_device_mark mark = tern_device_begin(t->device->name);
  tern_tensor *x = tern_zeros(shape, (tern_dtype)t->dtype);
  tern_device_end(&mark);
  return x;
}

/* ---- cond ---- */

typedef struct branches {
  const tern__callee *bodies;
  const tern__reads *reads; /* the predicate, operands, what is read from outside */
  int n_in, n_out;
  const bool *seeded;
} branches;

typedef struct branch {
  const branches *of;
  int which;
} branch;

/* operands, gradients of results -> gradients of what is tracked */
static tern_rc branch_back(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const branch *b = self;
  const branches *of = b->of;
  tern_tensor *seeds[TERN__CONTROL_MOST], *sources[TERN__CONTROL_MOST];
  int n = 0;
  (void)n_in;
  for (int i = 1; i < of->reads->n && n < n_out; i++)
    if (of->reads->tracked[i]) sources[n++] = i <= of->n_in ? in[i - 1] : of->reads->tensor[i];
  for (int o = 0, k = of->n_in; o < of->n_out; o++) seeds[o] = of->seeded[o] ? in[k++] : NULL;
  return tern__vjp_through(&of->bodies[b->which], in, of->n_in, of->n_out, NULL, seeds, sources, n, out);
}

/* predicate, operands, results, gradients of results -> gradients of what is tracked */
static tern_rc cond_back(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  branches *of = self;
  tern_tensor *given[2 * TERN__CONTROL_MOST];
  int n = 0;
  for (int i = 0; i < of->n_in; i++) given[n++] = in[1 + i];
  for (int k = 1 + of->n_in + of->n_out; k < n_in; k++) given[n++] = in[k];
  branch then = {of, 0}, otherwise = {of, 1};
  const tern__callee bodies[2] = {{"cond", "gradient of the function for true", branch_back, &then},
                                  {"cond", "gradient of the function for false", branch_back, &otherwise}};
  return tern__cond_traced(tern__tls, in[0], bodies, given, n, out, n_out);
}

static tern_rc branches_agree(const tern__body *a, const tern__body *b, int n_out) {
  char s[200], r[200];
  for (int o = 0; o < n_out; o++) {
    tern_tensor x, y;
    tern__body_form(a, o, &x);
    tern__body_form(b, o, &y);
    if (x.dtype == y.dtype && x.rank == y.rank && x.device == y.device &&
        !memcmp(x.shape, y.shape, x.rank * sizeof *x.shape))
      continue;
    const bool apart = x.device != y.device;
    return tern__fail(TERN_E_ARG,
                      "cond: result %d is %s of shape %s%s%s if true and %s of shape %s%s%s if false; in a graph both "
                      "must be the same",
                      o + 1, tern_dtype_name((tern_dtype)x.dtype), tern__shape_text(s, x.rank, x.shape),
                      apart ? " on " : "", apart ? x.device->name : "", tern_dtype_name((tern_dtype)y.dtype),
                      tern__shape_text(r, y.rank, y.shape), apart ? " on " : "", apart ? y.device->name : "");
  }
  return TERN_OK;
}

static tern_rc record_cond(tern__thread *t, const tern__callee bodies[2], const tern__reads *reads, int n_in,
                           tern_tensor **out, int n_out) {
  bool seeded[TERN__CONTROL_MOST];
  for (int o = 0; o < n_out; o++) seeded[o] = is_float(out[o]);
  branches of = {bodies, reads, n_in, n_out, seeded};
  const tern__taped taped = {.what = "cond",
                             .reads = reads,
                             .n_given = 1 + n_in,
                             .out = out,
                             .n_out = n_out,
                             .seeded = seeded,
                             .vjp = cond_back,
                             .self = &of};
  return tern__control_record(t, &taped);
}

tern_rc tern__cond_traced(tern__thread *t, tern_tensor *predicate, const tern__callee bodies[2], tern_tensor *const *in,
                          int n_in, tern_tensor **out, int n_out) {
  tern_tensor *given[2 * TERN__CONTROL_MOST + 1];
  if (n_in > 2 * TERN__CONTROL_MOST || n_out > TERN__CONTROL_MOST)
    return tern__fail(TERN_E_UNSUPPORTED, "cond: %d operands and %d results are too many", n_in, n_out);
  given[0] = as_predicate("cond: the predicate", predicate);
  if (!given[0]) return tern__recorded();
  for (int i = 0; i < n_in; i++) given[1 + i] = in[i];
  tern__body then = {0}, otherwise = {0};
  tern__assigned assigned = {.n = 0};
  tern_tensor *all[2 * TERN__CONTROL_MOST];
  tern__reads reads = {0};
  tern_rc rc = tern__body_trace(t, &then, &bodies[0], in, n_in, n_out, NULL);
  if (!rc) rc = tern__body_trace(t, &otherwise, &bodies[1], in, n_in, n_out, NULL);
  if (!rc) rc = branches_agree(&then, &otherwise, n_out);
  if (!rc) rc = tern__assigned_begin(&assigned, &then, &otherwise, false);
  if (!rc) rc = tern__body_unite(&then, &otherwise);
  if (!rc) rc = tern__reads_begin(t, &reads, given, 1 + n_in, &then, NULL, 0);
  if (!rc && reads.order) rc = tern__assigned_refuse(&assigned, "cond");
  if (!rc) rc = tern__control_node(t, given[0], in, n_in, &then, &otherwise, 0, all, n_out + assigned.n);
  for (int o = 0; o < n_out && !rc; o++) out[o] = all[o];
  if (!rc && reads.order) rc = record_cond(t, bodies, &reads, n_in, out, n_out);
  rc = tern__assigned_end(t, &assigned, all + n_out, rc);
  tern__body_free(&then);
  tern__body_free(&otherwise);
  tern__reads_end(&reads);
  return rc;
}

/* ---- while ---- */

typedef struct loop {
  const tern__callee *bodies;
  const tern__reads *reads; /* states, what is read from outside */
  int n;
  int64_t limit;
  bool saves_seeded;         /* what was saved may have a gradient of its own: a second derivative */
  tern_tensor *const *saved; /* going back: the stacks, and their gradients (NULL: none) */
  tern_tensor *saved_gradient[TERN__CONTROL_MOST];
  int n_float, n_captured; /* float states; tracked reads from outside */
} loop;

/* The first n states are the user's. */
static tern_rc condition_of(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const loop *l = self;
  (void)n_in;
  const tern_rc rc = tern__callee_call(&l->bodies[0], in, l->n, out, n_out, NULL);
  return rc ? rc : (out[0] = as_predicate("while: the condition's result", out[0])) ? TERN_OK : tern__recorded();
}

static tern_rc body_of(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const loop *l = self;
  (void)n_in, (void)n_out;
  tern_rc rc = tern__callee_call(&l->bodies[1], in, l->n, out, l->n, in);
  for (int i = 0; i < l->n && !rc; i++)
    if (!tern__control_same("while", "state", i, out[i], in[i])) rc = tern__recorded();
  return rc;
}

/* states, count, stacks -> the next */
static tern_rc saving_body(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const loop *l = self;
  tern_tensor *const *stack = in + l->n + 1, *count = in[l->n];
  tern_rc rc = body_of(self, in, n_in, out, n_out);
  if (!rc && !(out[l->n] = tern_add(count, tern_scalar_int(1)))) rc = tern__recorded();
  for (int i = 0; i < l->n && !rc; i++)
    if (!(out[l->n + 1 + i] = tern_scatter(stack[i], count, in[i], 0, TERN_SCATTER_SET))) rc = tern__recorded();
  return rc;
}

static tern_rc trips_left(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  out[0] = tern_greater(in[0], tern_scalar_int(0));
  return out[0] ? TERN_OK : tern__recorded();
}

/* count, gradients of float states, of reads from outside -> those of the trip before */
static tern_rc trip_back(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const loop *l = self;
  tern_tensor *state[TERN__CONTROL_MOST], *seeds[TERN__CONTROL_MOST] = {0}, *sources[TERN__CONTROL_MOST];
  tern_tensor *found[TERN__CONTROL_MOST];
  int n = 0;
  (void)n_in;
  tern_tensor *trip = out[0] = tern_sub(in[0], tern_scalar_int(1));
  for (int i = 0; i < l->n; i++) {
    if (!(state[i] = tern_take(l->saved[i], trip, 0))) return tern__recorded();
    if (!is_float(state[i])) continue;
    seeds[i] = in[1 + n];
    sources[n++] = state[i];
  }
  for (int i = l->n; i < l->reads->n; i++)
    if (l->reads->tracked[i]) sources[n++] = l->reads->tensor[i];
  tern_rc rc = tern__vjp_through(&l->bodies[1], state, l->n, l->n, state, seeds, sources, n, found);
  for (int i = 0, k = 0; i < l->n && !rc; i++) {
    if (!seeds[i]) continue;
    if (l->saved_gradient[i]) found[k] = tern_add(found[k], tern_take(l->saved_gradient[i], trip, 0));
    out[1 + k] = found[k];
    k++;
  }
  for (int k = l->n_float; k < n && !rc; k++) out[1 + k] = tern_add(in[1 + k], found[k]);
  for (int o = 0; o < n_out && !rc; o++)
    if (!out[o]) rc = tern__recorded();
  return rc;
}

/* states, results (states, count, stacks), gradients of float results -> gradients of what is tracked */
static tern_rc while_back(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  loop l = *(const loop *)self;
  tern_tensor *begin[TERN__CONTROL_MOST], *end[TERN__CONTROL_MOST];
  tern_tensor *const *result = in + l.n, *const *seed = result + 2 * l.n + 1;
  int n = 1, k = 0;
  (void)n_in, (void)n_out;
  l.saved = result + l.n + 1;
  begin[0] = result[l.n];
  for (int i = 0; i < l.n; i++)
    if (is_float(result[i])) begin[n++] = seed[k++];
  l.n_float = k;
  for (int i = 0; i < l.n; i++) l.saved_gradient[i] = l.saves_seeded && is_float(result[i]) ? seed[k++] : NULL;
  for (int i = l.n; i < l.reads->n; i++)
    if (l.reads->tracked[i] && !(begin[n++] = tern_zeros_like(l.reads->tensor[i]))) return tern__recorded();
  const tern__callee bodies[2] = {{"while", "condition of the gradient", trips_left, NULL},
                                  {"while", "gradient of the body", trip_back, &l}};
  const tern_rc rc = tern__while_traced(tern__tls, bodies, begin, n, end, l.limit);
  int to = 0, from = 1;
  for (int i = 0; i < l.n && !rc; i++) {
    if (l.reads->tracked[i]) out[to++] = end[from];
    from += is_float(result[i]);
  }
  for (int i = l.n; i < l.reads->n && !rc; i++)
    if (l.reads->tracked[i]) out[to++] = end[from++];
  return rc;
}

/* The loop once more, which saves its states. */
static tern_rc record_while(tern__thread *t, loop *l, tern_tensor *const *state, tern_tensor **out) {
  tern_tensor *begin[2 * TERN__CONTROL_MOST], *end[2 * TERN__CONTROL_MOST];
  bool seeded[2 * TERN__CONTROL_MOST] = {false};
  const int n = l->n, n_all = 2 * n + 1;
  if (l->limit <= 0)
    return tern__fail(TERN_E_ARG,
                      "while: a tape records this loop in a graph; its gradient needs room for the states of "
                      "every trip: set .max_trips, or call it under TERN_NO_GRADIENT");
  if (n_all > TERN__CONTROL_MOST) return tern__fail(TERN_E_UNSUPPORTED, "while: %d states are too many for a tape", n);
  for (int i = 0; i < n; i++) begin[i] = state[i];
  if (!(begin[n] = tern__count_beside(state[0], 0))) return tern__recorded();
  for (int i = 0; i < n; i++)
    if (!(begin[n + 1 + i] = tern__stack_of(state[i], l->limit))) return tern__recorded();
  const tern__callee bodies[2] = {{"while", "condition", condition_of, l}, {"while", "body", saving_body, l}};
  tern__body condition = {0}, body = {0};
  tern_rc rc = tern__body_trace(t, &condition, &bodies[0], begin, n_all, 1, NULL);
  if (!rc) rc = tern__body_trace(t, &body, &bodies[1], begin, n_all, n_all, NULL);
  if (!rc) rc = tern__body_unite(&condition, &body);
  if (!rc) rc = tern__control_node(t, NULL, begin, n_all, &condition, &body, l->limit, end, n_all);
  tern__body_free(&condition);
  tern__body_free(&body);
  if (rc) return rc;
  l->saves_seeded = l->reads->order > 1;
  for (int i = 0; i < n; i++) {
    seeded[i] = is_float(end[i]);
    seeded[n + 1 + i] = seeded[i] && l->saves_seeded;
    out[i] = end[i];
  }
  const tern__taped taped = {.what = "while",
                             .reads = l->reads,
                             .n_given = n,
                             .out = end,
                             .n_out = n_all,
                             .seeded = seeded,
                             .vjp = while_back,
                             .self = l};
  return tern__control_record(t, &taped);
}

tern_rc tern__while_traced(tern__thread *t, const tern__callee bodies[2], tern_tensor *const *state, int n,
                           tern_tensor **out, int64_t max_trips) {
  tern__reads reads = {0};
  loop l = {.bodies = bodies, .reads = &reads, .n = n, .limit = max_trips};
  const tern__callee wrapped[2] = {{"while", bodies[0].part, condition_of, &l}, {"while", bodies[1].part, body_of, &l}};
  tern__body condition = {0}, body = {0};
  tern__assigned assigned = {.n = 0};
  tern_tensor *begin[2 * TERN__CONTROL_MOST], *end[2 * TERN__CONTROL_MOST];
  tern_rc rc = tern__body_trace(t, &condition, &wrapped[0], state, n, 1, NULL);
  if (!rc) rc = tern__body_trace(t, &body, &wrapped[1], state, n, n, NULL);
  if (!rc) rc = tern__assigned_begin(&assigned, &condition, &body, true);
  if (!rc) rc = tern__body_unite(&condition, &body);
  if (!rc) rc = tern__reads_begin(t, &reads, state, n, &body, NULL, 0);
  if (!rc && reads.order) rc = tern__assigned_refuse(&assigned, "while");
  if (!rc && !reads.order) {
    for (int i = 0; i < n; i++) begin[i] = state[i];
    for (int k = 0; k < assigned.n; k++) begin[n + k] = assigned.before[k];
    rc = tern__control_node(t, NULL, begin, n + assigned.n, &condition, &body, max_trips, end, n + assigned.n);
    for (int i = 0; i < n && !rc; i++) out[i] = end[i];
  }
  rc = tern__assigned_end(t, &assigned, end + n, rc);
  tern__body_free(&condition);
  tern__body_free(&body);
  if (!rc && reads.order) rc = record_while(t, &l, state, out);
  tern__reads_end(&reads);
  return rc;
}
