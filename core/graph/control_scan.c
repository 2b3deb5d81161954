/* tern_scan in graphs: a loop with a count as its first state, then the states of the call, then ys, into which each
   trip writes a slice. Its gradient is a scan the other way, over xs, the states that the forward one gave as further
   ys, and the gradients of ys. */
#include "base/alloc.h"
#include "device/device.h"
#include "graph/control.h"
#include "tape/tape.h"
#include "tensor/dtype.h"
#include <stdlib.h>
#include <tern/ops.h>

static bool is_float(const tern_tensor *x) { return tern__is_float((tern_dtype)x->dtype); }

/* ---- the loop ---- */

/* A slice of ys, or of what was drawn, goes into a state of its own. */
static tern_rc put_slice(tern__body *b, const tern__scan_form *f, int k, tern_tensor *y, tern_tensor *at,
                         tern_tensor *form, tern_tensor **next) {
  if (y->rank == TERN_MAX_RANK)
    return tern__fail(TERN_E_UNSUPPORTED, "scan: ys %d has rank %d and cannot be stacked", k + 1, y->rank);
  if (1 + f->n_carry + k >= TERN__CONTROL_MOST)
    return tern__fail(TERN_E_UNSUPPORTED, "scan: %d states, %d ys and the random draws are too many", f->n_carry,
                      f->n_ys);
  tern__stack_form(y, f->length, &form[k]);
  tern_tensor *stack = tern__body_input(b, &form[k]);
  if (!stack || !(*next = tern_scatter(stack, at, y, 0, TERN_SCATTER_SET))) return tern__recorded();
  return TERN_OK;
}

/* Everything but the condition. form: what ys look like stacked, then what was drawn if that is noted; zeros are put
   there around the loop. */
static tern_rc trip(tern__body *b, const tern__callee *body, tern__draws *draws, const tern__scan_form *f,
                    tern_tensor *const *carry, tern_tensor *const *xs, const tern_tensor *count, tern_tensor *form) {
  const int n_out = f->n_carry + f->n_ys;
  tern_tensor *in[2 * TERN__CONTROL_MOST], *out[TERN__CONTROL_MOST], *stack[TERN__CONTROL_MOST];
  tern_tensor *like[TERN__CONTROL_MOST] = {0};
  tern_tensor *i = tern__body_input(b, count), *at = i;
  if (!i) return tern__recorded();
  if (f->reverse && !(at = tern_sub(tern_scalar_int(f->length - 1), i))) return tern__recorded();
  if (draws->replay) draws->trip = at;
  for (int k = 0; k < f->n_carry; k++)
    if (!(in[k] = like[k] = tern__body_input(b, carry[k]))) return tern__recorded();
  for (int k = 0; k < f->n_xs; k++)
    if (!(in[f->n_carry + k] = tern_take(xs[k], at, 0))) return tern__recorded();
  tern_rc rc = tern__callee_call(body, in, f->n_carry + f->n_xs, out, n_out, like);
  for (int k = 0; k < f->n_carry && !rc; k++)
    if (!tern__control_same("scan", "state", k, out[k], carry[k])) rc = tern__recorded();
  const int n_slices = f->n_ys + draws->n;
  for (int k = 0; k < n_slices && !rc; k++) {
    tern_tensor *y = k < f->n_ys ? out[f->n_carry + k] : tern__tracer_tensor(b->tracer, draws->value[k - f->n_ys]);
    rc = y ? put_slice(b, f, k, y, at, form, &stack[k]) : tern__recorded();
  }
  if (!rc) {
    tern_tensor *next = tern_add(i, tern_scalar_int(1));
    rc = next ? tern__body_output(b, next) : tern__recorded();
  }
  for (int k = 0; k < f->n_carry && !rc; k++) rc = tern__body_output(b, out[k]);
  for (int k = 0; k < n_slices && !rc; k++) rc = tern__body_output(b, stack[k]);
  return rc;
}

typedef struct count_to {
  int64_t length;
} count_to;

static tern_rc below(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in, (void)n_out;
  out[0] = tern_less(in[0], tern_scalar_int(((const count_to *)self)->length));
  return out[0] ? TERN_OK : tern__recorded();
}

/* The body, traced. xs: handles that nothing else has, so that they can be told apart. */
static tern_rc trace_trip(tern__thread *t, tern__body *b, const tern__callee *body, tern__draws *draws,
                          const tern__scan_form *f, tern_tensor *const *carry, tern_tensor *const *xs,
                          const tern_tensor *count, tern_tensor *form) {
  tern_rc rc = tern__body_open(t, b, draws);
  if (!rc) rc = trip(b, body, draws, f, carry, xs, count, form);
  return tern__body_close(t, b, rc);
}

static tern_rc scan_node(tern__thread *t, tern__body *b, const tern__scan_form *f, tern_tensor *count,
                         tern_tensor *const *carry, const tern_tensor *form, tern_tensor **out) {
  tern_tensor *begin[2 * TERN__CONTROL_MOST], *end[2 * TERN__CONTROL_MOST];
  const int n = 1 + f->n_carry + f->n_ys;
  begin[0] = count;
  for (int k = 0; k < f->n_carry; k++) begin[1 + k] = carry[k];
  for (int k = 0; k < f->n_ys; k++) {
    tern_tensor slice = form[k];
    slice.rank--;
    memmove(slice.shape, slice.shape + 1, slice.rank * sizeof *slice.shape);
    if (!(begin[1 + f->n_carry + k] = tern__stack_of(&slice, f->length))) return tern__recorded();
  }
  count_to limit = {f->length};
  const tern__callee condition = {"scan", "condition", below, &limit};
  tern__body c = {0};
  tern__assigned assigned = {.n = 0};
  tern_rc rc = tern__body_trace(t, &c, &condition, NULL, begin, n, 1, NULL);
  if (!rc) rc = tern__assigned_begin(&assigned, &c, b, true);
  for (int k = 0; k < assigned.n; k++) begin[n + k] = assigned.before[k];
  if (!rc) rc = tern__body_unite(&c, b);
  if (!rc) rc = tern__control_node(t, NULL, begin, n + assigned.n, &c, b, 0, end, n + assigned.n);
  rc = tern__assigned_end(t, &assigned, end + n, rc);
  tern__body_free(&c);
  for (int k = 1; k < n && !rc; k++) out[k - 1] = end[k];
  return rc;
}

/* ---- gradient ---- */

typedef struct scanned {
  const tern__callee *body;
  const tern__reads *reads;       /* states, xs, what is read from outside */
  const tern__assigned *assigned; /* variables */
  tern__scan_form f;              /* of the call */
  bool saves;                     /* states and variables: for a gradient */
  bool saves_seeded;
  int n_drawn;
  int n_float, n_captured, n_seeded_ys; /* going back: float states, tracked reads, float ys */
  const bool *y_seeded;
} scanned;

/* state, slices -> the next state, slices of ys, the state that came in, and what variables were */
static tern_rc saving_body(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const scanned *s = self;
  const int n = s->f.n_carry + s->f.n_ys;
  tern_tensor *like[TERN__CONTROL_MOST] = {0};
  (void)n_out;
  for (int k = 0; k < s->assigned->n; k++)
    if (!(out[n + s->f.n_carry + k] = tern__itself(s->assigned->variable[k]))) return tern__recorded();
  for (int k = 0; k < s->f.n_carry; k++) like[k] = in[k];
  const tern_rc rc = tern__callee_call(s->body, in, n_in, out, n, like);
  for (int k = 0; k < s->f.n_carry && !rc; k++) out[n + k] = in[k];
  return rc;
}

/* gradients of float states, of reads; slices of xs, of states, of the gradients of ys, of those of saved states, of
   variables, of draws -> gradients of states and of reads; those of the tracked xs */
static tern_rc trip_back(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const scanned *s = self;
  const int n_carry = s->f.n_carry, n_xs = s->f.n_xs, n_ys = s->f.n_ys;
  tern_tensor *const *x = in + s->n_float + s->n_captured, *const *state = x + n_xs, *const *dy = state + n_carry;
  tern_tensor *const *dsaved = dy + s->n_seeded_ys, *const *held = dsaved + (s->saves_seeded ? s->n_float : 0);
  tern_tensor *given[TERN__CONTROL_MOST], *seeds[TERN__CONTROL_MOST] = {0}, *like[TERN__CONTROL_MOST] = {0};
  tern_tensor *sources[TERN__CONTROL_MOST], *found[TERN__CONTROL_MOST];
  int n = 0, used = 0;
  (void)n_in;
  for (int k = 0; k < n_carry; k++) {
    given[k] = like[k] = state[k];
    if (!is_float(state[k])) continue;
    seeds[k] = in[n];
    sources[n++] = given[k];
  }
  for (int i = n_carry + n_xs; i < s->reads->n; i++)
    if (s->reads->tracked[i]) sources[n++] = s->reads->tensor[i];
  for (int k = 0; k < n_xs; k++) {
    given[n_carry + k] = x[k];
    if (s->reads->tracked[n_carry + k]) sources[n++] = x[k];
  }
  for (int k = 0; k < n_ys; k++)
    if (s->y_seeded[k]) seeds[n_carry + k] = dy[used++];
  tern__draws draws = {.replay = true, .saved = held + s->assigned->n, .n_saved = s->n_drawn};
  const tern__again again = {&draws, s->assigned, held};
  tern_rc rc =
      tern__vjp_through(s->body, &again, given, n_carry + n_xs, n_carry + n_ys, like, seeds, sources, n, found);
  if (rc) return rc;
  for (int k = 0; k < n; k++) {
    const bool add_saved = k < s->n_float && s->saves_seeded,
               captured = k >= s->n_float && k < s->n_float + s->n_captured;
    out[k] = add_saved ? tern_add(found[k], dsaved[k]) : captured ? tern_add(in[k], found[k]) : found[k];
  }
  for (int o = 0; o < n_out; o++)
    if (!out[o]) return tern__recorded();
  return TERN_OK;
}

/* states, xs, results (states, ys, saved states, variables, draws), gradients of float results -> gradients of what is
   tracked */
static tern_rc scan_back(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  scanned s = *(const scanned *)self;
  const int n_carry = s.f.n_carry, n_xs = s.f.n_xs, n_ys = s.f.n_ys;
  tern_tensor *const *result = in + n_carry + n_xs, *const *kept = result + 2 * n_carry + n_ys;
  const int n_kept = s.assigned->n + s.n_drawn;
  tern_tensor *const *seed = kept + n_kept;
  tern_tensor *carry[TERN__CONTROL_MOST], *xs[2 * TERN__CONTROL_MOST], *end[TERN__CONTROL_MOST];
  bool y_seeded[TERN__CONTROL_MOST];
  int n = 0, along = 0, n_dx = 0;
  (void)n_in, (void)n_out;
  for (int k = 0; k < n_carry; k++)
    if (is_float(result[k])) carry[n++] = *seed++;
  s.n_float = n;
  for (int i = n_carry + n_xs; i < s.reads->n; i++)
    if (s.reads->tracked[i] && !(carry[n++] = tern_zeros_like(s.reads->tensor[i]))) return tern__recorded();
  s.n_captured = n - s.n_float;
  for (int k = 0; k < n_xs; k++) {
    xs[along++] = in[n_carry + k];
    n_dx += s.reads->tracked[n_carry + k];
  }
  for (int k = 0; k < n_carry; k++) xs[along++] = result[n_carry + n_ys + k];
  s.n_seeded_ys = 0;
  for (int k = 0; k < n_ys; k++)
    if ((y_seeded[k] = is_float(result[n_carry + k]))) {
      xs[along++] = *seed++;
      s.n_seeded_ys++;
    }
  s.y_seeded = y_seeded;
  for (int k = 0; k < n_carry && s.saves_seeded; k++)
    if (is_float(result[k])) xs[along++] = *seed++;
  for (int k = 0; k < n_kept; k++) xs[along++] = kept[k];
  const tern__callee body = {"scan", "gradient of the body", trip_back, &s};
  const tern__scan_form f = {n, along, n_dx, s.f.length, !s.f.reverse};
  const tern_rc rc = tern__scan_traced(tern__tls, &body, &f, carry, xs, end);
  int to = 0, at = 0, dx = n;
  for (int k = 0; k < n_carry && !rc; k++) {
    if (s.reads->tracked[k]) out[to++] = end[at];
    at += is_float(result[k]);
  }
  for (int k = 0; k < n_xs && !rc; k++)
    if (s.reads->tracked[n_carry + k]) out[to++] = end[dx++];
  for (int k = 0; k < s.n_captured && !rc; k++) out[to++] = end[at++];
  return rc;
}

static tern_rc record_scan(tern__thread *t, scanned *s, tern_tensor *const *end, int n_all) {
  bool seeded[2 * TERN__CONTROL_MOST] = {false};
  const int n_saved = 2 * s->f.n_carry + s->f.n_ys;
  if (s->assigned->n && s->reads->order > 1) return tern__assigned_refuse(s->assigned, "scan");
  s->saves_seeded = s->reads->order > 1;
  for (int o = 0; o < n_saved; o++) seeded[o] = is_float(end[o]) && (o < s->f.n_carry + s->f.n_ys || s->saves_seeded);
  const tern__taped taped = {.what = "scan",
                             .reads = s->reads,
                             .n_given = s->f.n_carry + s->f.n_xs,
                             .out = end,
                             .n_out = n_all,
                             .seeded = seeded,
                             .vjp = scan_back,
                             .self = s};
  return tern__control_record(t, &taped);
}

/* The loop once more, which saves what its gradient or that of a loop around needs. xs: as given; names: the handles of
   their own. */
static tern_rc saving_scan(tern__thread *t, scanned *s, tern_tensor *count, tern_tensor *const *carry,
                           tern_tensor *const *names, tern_tensor **out) {
  tern_tensor *form = tern__calloc(TERN__CONTROL_MOST, sizeof *form), *end[2 * TERN__CONTROL_MOST];
  tern__scan_form f = s->f;
  s->saves = s->reads->order > 0;
  if (s->saves) f.n_ys += f.n_carry + s->assigned->n;
  if (!form) return tern__fail(TERN_E_OOM, "scan: out of host memory");
  const tern__callee saving = {"scan", "body", saving_body, s};
  tern__body b = {0};
  tern__draws draws;
  tern__draws_begin(&draws, t, true);
  tern_rc rc = f.n_carry + f.n_ys < TERN__CONTROL_MOST
                   ? trace_trip(t, &b, s->saves ? &saving : s->body, &draws, &f, carry, names, count, form)
                   : tern__fail(TERN_E_UNSUPPORTED, "scan: %d states and %d ys are too many for a tape", s->f.n_carry,
                                s->f.n_ys);
  s->n_drawn = draws.n;
  f.n_ys += draws.n;
  const int n_all = f.n_carry + f.n_ys;
  if (!rc) rc = scan_node(t, &b, &f, count, carry, form, end);
  tern__body_free(&b);
  free(form);
  for (int k = n_all - draws.n; k < n_all && !rc; k++) rc = tern__draws_note(t, end[k]);
  for (int o = 0; o < s->f.n_carry + s->f.n_ys && !rc; o++) out[o] = end[o];
  return rc || !s->saves ? rc : record_scan(t, s, end, n_all);
}

/* ---- both ---- */

static tern_rc over_nothing(tern__thread *t, const tern__callee *body, const tern__scan_form *f,
                            tern_tensor *const *carry, tern_tensor *const *xs, tern_tensor **out) {
  tern_rc rc = f->n_ys ? tern__scan_nothing(t, body, f, carry, xs, out) : TERN_OK;
  for (int k = 0; k < f->n_carry; k++) out[k] = carry[k];
  for (int k = f->n_carry; k < f->n_carry + f->n_ys && !rc; k++)
    if (!(out[k] = tern__push(out[k]))) rc = tern__recorded();
  return rc;
}

tern_rc tern__scan_traced(tern__thread *t, const tern__callee *body, const tern__scan_form *f,
                          tern_tensor *const *carry, tern_tensor *const *xs, tern_tensor **out) {
  if (f->length == 0) return over_nothing(t, body, f, carry, xs, out);
  if (f->n_carry + f->n_ys + f->n_carry >= TERN__CONTROL_MOST || f->n_carry + f->n_xs >= TERN__CONTROL_MOST)
    return tern__fail(TERN_E_UNSUPPORTED, "scan: %d states, %d xs and %d ys are too many", f->n_carry, f->n_xs,
                      f->n_ys);
  tern_tensor *names[2 * TERN__CONTROL_MOST], *given[2 * TERN__CONTROL_MOST];
  tern_tensor *form = tern__calloc(TERN__CONTROL_MOST, sizeof *form);
  if (!form) return tern__fail(TERN_E_OOM, "scan: out of host memory");
  tern_rc rc = TERN_OK;
  for (int k = 0; k < f->n_carry; k++) given[k] = carry[k];
  for (int k = 0; k < f->n_xs && !rc; k++) {
    given[f->n_carry + k] = xs[k];
    if (!(names[k] = tern__push(tern__alias(xs[k], 0)))) rc = tern__recorded();
  }
  tern_tensor *beside = f->n_carry ? carry[0] : f->n_xs ? xs[0] : NULL;
  tern_tensor *count = beside ? tern__count_beside(beside, 0) : tern_full((tern_shape){0, {0}}, TERN_I64, 0);
  if (!count && !rc) rc = tern__recorded();
  tern__reads reads = {0};
  tern__body b = {0};
  tern__draws draws;
  tern__assigned assigned = {.n = 0};
  const int place = tern__draws_place(t);
  tern__draws_begin(&draws, t, false);
  if (!rc) rc = trace_trip(t, &b, body, &draws, f, carry, names, count, form);
  if (!rc) rc = tern__reads_begin(t, &reads, given, f->n_carry + f->n_xs, &b, names, f->n_xs);
  const bool saves = reads.order || (b.drew && t->trace->draws && t->trace->draws->record);
  if (!rc && saves) rc = tern__assigned_list(&assigned, &b);
  if (!rc && !saves) rc = scan_node(t, &b, f, count, carry, form, out);
  tern__body_free(&b);
  free(form);
  scanned s = {.body = body, .reads = &reads, .assigned = &assigned, .f = *f};
  if (!rc && saves) {
    tern__draws_go(t, place);
    rc = saving_scan(t, &s, count, carry, names, out);
  }
  tern__assigned_drop(&assigned);
  tern__reads_end(&reads);
  return rc;
}
