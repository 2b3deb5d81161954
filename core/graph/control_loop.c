/* tern_while in graphs: the node, and its gradient, a loop over the states that the forward one saved, one a trip. Such
   a loop counts: behind its states come the count, then stacks into which each trip puts the states, the variables and
   what was drawn. */
#include "base/alloc.h"
#include "device/device.h"
#include "graph/control.h"
#include "tensor/dtype.h"
#include <stdlib.h>
#include <tern/ops.h>

static bool is_float(const tern_tensor *x) { return tern__is_float((tern_dtype)x->dtype); }

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

void tern__stack_form(const tern_tensor *t, int64_t n, tern_tensor *form) {
  *form = *t;
  form->rank = (uint8_t)(t->rank < TERN_MAX_RANK ? t->rank + 1 : t->rank); /* tern__stack_of refuses it */
  form->shape[0] = n;
  memcpy(form->shape + 1, t->shape, (size_t)(form->rank - 1) * sizeof *t->shape);
}

typedef struct loop {
  const tern__callee *bodies;
  const tern__reads *reads; /* states, what is read from outside */
  const tern__assigned *assigned;
  int n, n_drawn;
  int64_t limit;
  bool saves;                /* states and variables: for a gradient */
  bool saves_seeded;         /* what was saved may have a gradient of its own: a second derivative */
  tern_tensor *const *saved; /* going back: stacks of states, of variables, of draws */
  tern_tensor *saved_gradient[TERN__CONTROL_MOST]; /* of states; NULL: none */
  int n_float;
} loop;

/* The first n states are the user's. */
static tern_rc condition_of(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const loop *l = self;
  (void)n_in;
  const tern_rc rc = tern__callee_call(&l->bodies[0], in, l->n, out, n_out, NULL);
  return rc ? rc : (out[0] = tern__as_predicate("while: the condition's result", out[0])) ? TERN_OK : tern__recorded();
}

static tern_rc body_of(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const loop *l = self;
  (void)n_in, (void)n_out;
  tern_rc rc = tern__callee_call(&l->bodies[1], in, l->n, out, l->n, in);
  for (int i = 0; i < l->n && !rc; i++)
    if (!tern__control_same("while", "state", i, out[i], in[i])) rc = tern__recorded();
  return rc;
}

/* ---- gradient ---- */

static tern_rc trips_left(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  out[0] = tern_greater(in[0], tern_scalar_int(0));
  return out[0] ? TERN_OK : tern__recorded();
}

/* count, gradients of float states, of reads from outside -> those of the trip before */
static tern_rc trip_back(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const loop *l = self;
  tern_tensor *state[TERN__CONTROL_MOST], *seeds[TERN__CONTROL_MOST] = {0}, *sources[TERN__CONTROL_MOST];
  tern_tensor *found[TERN__CONTROL_MOST], *held[TERN__CONTROL_MOST];
  int n = 0;
  (void)n_in;
  tern_tensor *trip = out[0] = tern_sub(in[0], tern_scalar_int(1));
  for (int i = 0; i < l->n; i++) {
    if (!(state[i] = tern_take(l->saved[i], trip, 0))) return tern__recorded();
    if (!is_float(state[i])) continue;
    seeds[i] = in[1 + n];
    sources[n++] = state[i];
  }
  for (int k = 0; k < l->assigned->n; k++)
    if (!(held[k] = tern_take(l->saved[l->n + k], trip, 0))) return tern__recorded();
  for (int i = l->n; i < l->reads->n; i++)
    if (l->reads->tracked[i]) sources[n++] = l->reads->tensor[i];
  tern__draws draws = {.replay = true, .trip = trip, .saved = l->saved + l->n + l->assigned->n, .n_saved = l->n_drawn};
  const tern__again again = {&draws, l->assigned, held};
  tern_rc rc = tern__vjp_through(&l->bodies[1], &again, state, l->n, l->n, state, seeds, sources, n, found);
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
  tern_tensor *const *result = in + l.n, *const *seed = result + 2 * l.n + 1 + l.assigned->n + l.n_drawn;
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

/* ---- the loop that counts ---- */

typedef struct counting {
  loop *l;
  tern_tensor *state[2 * TERN__CONTROL_MOST]; /* as the loop begins: of the user, the count, stacks */
  tern_tensor form[TERN__CONTROL_MOST];       /* of what is stacked: a slice */
  int n_stacks;
  tern__draws draws;
  tern__body condition, body;
  tern__assigned assigned;
} counting;

/* x is saved once a trip, in a stack that is a further state. */
static tern_rc save(counting *c, tern_tensor *x, tern_tensor *count, tern_tensor **next) {
  tern_tensor stacked, *stack;
  if (c->n_stacks == TERN__CONTROL_MOST || c->l->n + 1 + c->n_stacks == TERN__CONTROL_MOST)
    return tern__fail(TERN_E_UNSUPPORTED, "while: %d states and %d random draws are too many for a tape", c->l->n,
                      c->draws.n);
  c->form[c->n_stacks++] = *x;
  tern__stack_form(x, c->l->limit, &stacked);
  stack = tern__body_input(&c->body, &stacked);
  if (!stack || !(*next = tern_scatter(stack, count, x, 0, TERN_SCATTER_SET))) return tern__recorded();
  return TERN_OK;
}

/* Everything between the body's opening and its end. */
static tern_rc counting_trip(tern__thread *t, counting *c) {
  const loop *l = c->l;
  tern_tensor *in[TERN__CONTROL_MOST], *out[2 * TERN__CONTROL_MOST], *held[TERN__CONTROL_MOST];
  for (int i = 0; i <= l->n; i++)
    if (!(in[i] = tern__body_input(&c->body, c->state[i]))) return tern__recorded();
  tern_tensor *count = in[l->n];
  if (c->draws.replay) c->draws.trip = count;
  for (int k = 0; k < l->assigned->n && l->saves; k++)
    if (!(held[k] = tern__itself(l->assigned->variable[k]))) return tern__recorded();
  tern_rc rc = body_of((void *)(uintptr_t)l, in, l->n, out, l->n);
  if (!rc && !(out[l->n] = tern_add(count, tern_scalar_int(1)))) rc = tern__recorded();
  tern_tensor **next = out + l->n + 1;
  for (int i = 0; i < l->n && l->saves && !rc; i++) rc = save(c, in[i], count, next++);
  for (int k = 0; k < l->assigned->n && l->saves && !rc; k++) rc = save(c, held[k], count, next++);
  for (int k = 0; k < c->draws.n && !rc; k++) {
    tern_tensor *x = tern__tracer_tensor(t->trace, c->draws.value[k]);
    rc = x ? save(c, x, count, next++) : tern__recorded();
  }
  for (tern_tensor **o = out; o < next && !rc; o++) rc = tern__body_output(&c->body, *o);
  return rc;
}

static tern_rc record_while(tern__thread *t, loop *l, tern_tensor *const *end, int n_all) {
  bool seeded[2 * TERN__CONTROL_MOST] = {false};
  if (l->assigned->n && l->reads->order > 1) return tern__assigned_refuse(l->assigned, "while");
  l->saves_seeded = l->reads->order > 1;
  for (int i = 0; i < l->n; i++) {
    seeded[i] = is_float(end[i]);
    seeded[l->n + 1 + i] = seeded[i] && l->saves_seeded;
  }
  const tern__taped taped = {.what = "while",
                             .reads = l->reads,
                             .n_given = l->n,
                             .out = end,
                             .n_out = n_all,
                             .seeded = seeded,
                             .vjp = while_back,
                             .self = l};
  return tern__control_record(t, &taped);
}

static tern_rc count_trips(tern__thread *t, counting *c, tern_tensor *const *state, tern_tensor **out) {
  loop *l = c->l;
  tern_tensor *end[2 * TERN__CONTROL_MOST];
  for (int i = 0; i < l->n; i++) c->state[i] = state[i];
  if (!(c->state[l->n] = tern__count_beside(state[0], 0))) return tern__recorded();
  tern__draws_begin(&c->draws, t, l->reads->order || (t->trace->draws && t->trace->draws->record));
  tern_rc rc = tern__body_open(t, &c->body, &c->draws);
  if (!rc) rc = counting_trip(t, c);
  rc = tern__body_close(t, &c->body, rc);
  const int n_all = l->n + 1 + c->n_stacks;
  for (int k = 0; k < c->n_stacks && !rc; k++)
    if (!(c->state[l->n + 1 + k] = tern__stack_of(&c->form[k], l->limit))) rc = tern__recorded();
  const tern__callee condition = {"while", "condition", condition_of, l};
  tern__draws none;
  tern__draws_begin(&none, t, false);
  none.refuse |= tern__draws_matter(t);
  if (!rc) rc = tern__body_trace(t, &c->condition, &condition, &none, c->state, n_all, 1, NULL);
  if (!rc) rc = tern__assigned_begin(&c->assigned, &c->condition, &c->body, true);
  for (int k = 0; k < c->assigned.n; k++) c->state[n_all + k] = c->assigned.before[k];
  if (!rc) rc = tern__body_unite(&c->condition, &c->body);
  const int n = n_all + c->assigned.n;
  if (!rc) rc = tern__control_node(t, NULL, c->state, n, &c->condition, &c->body, l->limit, end, n);
  for (int i = 0; i < l->n && !rc; i++) out[i] = end[i];
  l->n_drawn = c->draws.n;
  for (int k = n_all - l->n_drawn; k < n_all && !rc; k++) rc = tern__draws_note(t, end[k]);
  if (!rc && l->reads->order) rc = record_while(t, l, end, n_all);
  return tern__assigned_end(t, &c->assigned, end + n_all, rc);
}

/* The loop once more, which saves what its gradient or that of a loop around needs. */
static tern_rc counting_while(tern__thread *t, loop *l, tern_tensor *const *state, tern_tensor **out) {
  l->saves = l->reads->order > 0;
  const bool noted = t->trace->draws && t->trace->draws->record;
  if (l->limit <= 0 && (l->saves || noted))
    return tern__fail(TERN_E_ARG,
                      "while: a tape records this loop in a graph; its gradient needs room for the states of "
                      "every trip: set .max_trips, or call it under TERN_NO_GRADIENT");
  counting *c = tern__calloc(1, sizeof *c);
  if (!c) return tern__fail(TERN_E_OOM, "while: out of host memory");
  c->l = l;
  const tern_rc rc = count_trips(t, c, state, out);
  tern__body_free(&c->condition);
  tern__body_free(&c->body);
  tern__assigned_drop(&c->assigned);
  free(c);
  return rc;
}

/* ---- the plain one ---- */

static tern_rc plain_while(tern__thread *t, tern__body *condition, tern__body *body, tern_tensor *const *state,
                           const loop *l, tern__assigned *assigned, tern_tensor **out) {
  tern_tensor *begin[2 * TERN__CONTROL_MOST], *end[2 * TERN__CONTROL_MOST];
  const int n = l->n + assigned->n;
  tern_rc rc = tern__body_unite(condition, body);
  for (int i = 0; i < l->n; i++) begin[i] = state[i];
  for (int k = 0; k < assigned->n; k++) begin[l->n + k] = assigned->before[k];
  if (!rc) rc = tern__control_node(t, NULL, begin, n, condition, body, l->limit, end, n);
  for (int i = 0; i < l->n && !rc; i++) out[i] = end[i];
  return tern__assigned_end(t, assigned, end + l->n, rc);
}

/* Both bodies; what the second one reads, before variables that it assigns become states. */
static tern_rc trace_both(tern__thread *t, loop *l, tern__body *condition, tern__body *body, tern_tensor *const *state,
                          tern__reads *reads, tern__assigned *assigned) {
  const tern__callee wrapped[2] = {{"while", l->bodies[0].part, condition_of, l},
                                   {"while", l->bodies[1].part, body_of, l}};
  tern__draws draws[2];
  for (int k = 0; k < 2; k++) tern__draws_begin(&draws[k], t, false);
  draws[0].refuse |= tern__draws_matter(t);
  if (draws[1].replay && !(draws[1].trip = tern__count_beside(state[0], 0))) return tern__recorded();
  tern_rc rc = tern__body_trace(t, condition, &wrapped[0], &draws[0], state, l->n, 1, NULL);
  if (!rc) rc = tern__body_trace(t, body, &wrapped[1], &draws[1], state, l->n, l->n, NULL);
  if (!rc) rc = tern__reads_begin(t, reads, state, l->n, body, NULL, 0);
  return rc ? rc : tern__assigned_begin(assigned, condition, body, true);
}

tern_rc tern__while_traced(tern__thread *t, const tern__callee bodies[2], tern_tensor *const *state, int n,
                           tern_tensor **out, int64_t max_trips) {
  tern__reads reads = {0};
  tern__assigned assigned = {.n = 0};
  loop l = {.bodies = bodies, .reads = &reads, .assigned = &assigned, .n = n, .limit = max_trips};
  tern__body condition = {0}, body = {0};
  const int place = tern__draws_place(t);
  tern_rc rc = trace_both(t, &l, &condition, &body, state, &reads, &assigned);
  const bool counts = reads.order || (body.drew && tern__draws_matter(t));
  if (!rc && !counts) rc = plain_while(t, &condition, &body, state, &l, &assigned, out);
  tern__body_free(&condition);
  tern__body_free(&body);
  if (!rc && counts) {
    tern__draws_go(t, place);
    rc = counting_while(t, &l, state, out);
  }
  tern__assigned_drop(&assigned);
  tern__reads_end(&reads);
  return rc;
}
