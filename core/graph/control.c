/* tern_cond, tern_while and tern_scan: arguments, the calls of bodies, and what runs at once. Then tapes see what the
   bodies do, op by op; while a graph is made, control_trace.c and control_scan.c take over. */
#include "graph/control.h"
#include "base/alloc.h"
#include "device/device.h"
#include "tensor/dtype.h"
#include <stdlib.h>
#include <tern/ops.h>

enum { MOST_STATES = 16, MOST_GIVEN = 64, STACKED = 256 };

/* ---- bodies ---- */

void tern__control_drop(tern_tensor **list, int n) {
  for (int i = 0; i < n; i++) {
    if (list[i]) tern__unref(list[i]);
    list[i] = NULL;
  }
}

bool tern__control_same(const char *what, const char *which, int i, const tern_tensor *x, const tern_tensor *like) {
  char a[200], b[200];
  if (x->dtype == like->dtype && x->rank == like->rank && x->device == like->device &&
      !memcmp(x->shape, like->shape, x->rank * sizeof *x->shape))
    return true;
  if (x->device != like->device && x->dtype == like->dtype)
    tern__fail(TERN_E_ARG, "%s: %s %d was on %s and is on %s; it must stay: tern_to(x, \"%s\")", what, which, i + 1,
               like->device->name, x->device->name, like->device->name);
  else
    tern__fail(TERN_E_ARG, "%s: %s %d was %s of shape %s and is %s of shape %s; dtype and shape must stay", what, which,
               i + 1, tern_dtype_name((tern_dtype)like->dtype), tern__shape_text(a, like->rank, like->shape),
               tern_dtype_name((tern_dtype)x->dtype), tern__shape_text(b, x->rank, x->shape));
  return false;
}

tern_tensor *tern__control_solid(tern_tensor *x, const tern_tensor *like) {
  if (!(x->flags & TERN__WEAK)) return x;
  tern_dtype d = x->dtype == TERN_F64 ? TERN_F32 : (tern_dtype)x->dtype;
  const bool fits = like && (tern__is_float((tern_dtype)like->dtype) ||
                             (!tern__is_float((tern_dtype)x->dtype) && like->dtype != TERN_BOOL));
  if (fits) d = (tern_dtype)like->dtype;
  tern_device_mark mark;
  if (like) mark = tern_device_begin(like->device->name);
  tern_tensor *y =
      x->live == TERN__LIVE ? tern__solid(x, d) : tern_cast(tern_add(x, tern_zeros((tern_shape){0, {0}}, d)), d);
  if (like) tern_device_end(&mark);
  return y;
}

/* Results of a body, as references; on failure those taken so far are in held[]. */
static tern_rc take_results(const tern__callee *c, tern_tensor *const *out, int n_out, tern_tensor *const *like,
                            tern_tensor **held) {
  for (int o = 0; o < n_out; o++) {
    tern_tensor *x = out[o];
    if (!x || x == TERN_NONE) {
      if (tern__tls->error_state == TERN__ERROR_NONE)
        tern__fail(TERN_E_ARG, "%s: the %s left result %d %s", c->what, c->part, o + 1, x ? "TERN_NONE" : "NULL");
      return tern__recorded();
    }
    if (!tern__usable(x, c->what, o + 1) || !(x = tern__control_solid(x, like ? like[o] : NULL)))
      return tern__recorded();
    if (x->flags & TERN__VARIABLE && !(x = tern__itself(x))) return tern__recorded(); /* its value of now */
    held[o] = tern__ref(x);
  }
  return TERN_OK;
}

tern_rc tern__callee_run(const tern__callee *c, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out,
                         tern_tensor *const *like) {
  tern_tensor *result[TERN__CONTROL_MOST] = {0}, *held[TERN__CONTROL_MOST] = {0};
  tern_scope_mark mark = tern_scope_begin();
  tern_rc rc = c->body(c->self, in, n_in, result, n_out);
  if (rc && tern__tls->error_state == TERN__ERROR_NONE)
    tern__fail(rc, "%s: the %s returned %s", c->what, c->part, tern_rc_name(rc));
  else if (rc)
    tern__tls->error_state = TERN__ERROR_UNREAD; /* the body may have read what it passes on */
  else
    rc = take_results(c, result, n_out, like, held);
  if (rc) tern__control_drop(held, n_out);
  tern_scope_end(&mark);
  for (int o = 0; o < n_out; o++) out[o] = held[o];
  return rc;
}

/* References become borrowed from the scope. */
static tern_rc hand_over(tern_tensor **list, int n) {
  tern_rc rc = TERN_OK;
  for (int i = 0; i < n; i++)
    if (!(list[i] = tern__push(list[i]))) rc = tern__recorded();
  for (int i = 0; i < n && rc; i++) list[i] = NULL;
  return rc;
}

tern_rc tern__callee_call(const tern__callee *c, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out,
                          tern_tensor *const *like) {
  const tern_rc rc = tern__callee_run(c, in, n_in, out, n_out, like);
  return rc ? rc : hand_over(out, n_out);
}

/* ---- arguments ---- */

/* Operands as tensors: host scalars solid, variables as what they hold now. */
static tern_rc operands(const char *what, tern_tensor *const *in, int n, tern_tensor **plain) {
  for (int i = 0; i < n; i++) {
    if (!tern__usable(in[i], what, i + 1) || !(plain[i] = tern__control_solid(in[i], NULL))) return tern__recorded();
    if (plain[i]->flags & TERN__VARIABLE && !(plain[i] = tern__itself(plain[i]))) return tern__recorded();
  }
  return TERN_OK;
}

static bool one_element(const char *what, const char *which, const tern_tensor *x) {
  char text[200];
  if (x->flags & TERN__WEAK || x->numel == 1) return true;
  tern__fail(TERN_E_ARG, "%s: the %s has shape %s; it must have one element: tern_all or tern_any make one of many",
             what, which, tern__shape_text(text, x->rank, x->shape));
  return false;
}

/* Waits for the value. */
static tern_rc truth_of(const char *what, const char *which, tern_tensor *x, bool *truth) {
  uint8_t element[16] = {0};
  if (!one_element(what, which, x)) return tern__recorded();
  tern_word w = x->imm;
  if (!(x->flags & TERN__WEAK)) {
    const tern_rc rc = tern_to_host(x, element, tern__dtype_size[x->dtype]);
    if (rc) return rc;
    w = tern__load((tern_dtype)x->dtype, element);
  }
  *truth = tern__convert(w, (tern_dtype)x->dtype, TERN_BOOL).u != 0;
  return TERN_OK;
}

static tern_rc nothing(tern_tensor **out, int n, tern_rc rc) {
  for (int o = 0; out && o < n; o++) out[o] = NULL;
  return rc;
}

static bool traced(const tern__thread *t) { return TERN__UNLIKELY(t->hooks & TERN__HOOK_GRAPH); }

/* ---- cond ---- */

tern_rc tern_cond(tern_tensor *predicate, tern_function_body then, tern_function_body otherwise, void *self,
                  tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  tern__thread *t = tern__thread_get();
  if (!t) return TERN_E_OOM;
  if (!then || !otherwise || n_in < 0 || n_in > MOST_GIVEN || n_out < 1 || n_out > MOST_GIVEN || !out || (n_in && !in))
    return nothing(out, n_out < 0 || n_out > MOST_GIVEN ? 0 : n_out,
                   tern__fail(TERN_E_ARG,
                              "cond: %d operands and %d results; there may be 0 to %d and 1 to %d, and no function or "
                              "array may be NULL",
                              n_in, n_out, MOST_GIVEN, MOST_GIVEN));
  const tern__callee bodies[2] = {{"cond", "function for true", then, self},
                                  {"cond", "function for false", otherwise, self}};
  tern_tensor *given[MOST_GIVEN], *result[MOST_GIVEN] = {0};
  tern_rc rc = operands("cond", in, n_in, given);
  bool truth = false;
  if (!rc && !tern__usable(predicate, "cond", 1)) rc = tern__recorded();
  if (!rc && traced(t)) {
    rc = one_element("cond", "predicate", predicate) ? TERN_OK : tern__recorded();
    if (!rc) rc = tern__cond_traced(t, predicate, bodies, given, n_in, result, n_out);
  } else if (!rc) {
    rc = truth_of("cond", "predicate", predicate, &truth);
    if (!rc) rc = tern__callee_call(&bodies[truth ? 0 : 1], given, n_in, result, n_out, NULL);
  }
  for (int o = 0; o < n_out; o++) out[o] = rc ? NULL : result[o];
  return rc;
}

/* ---- while ---- */

static tern_rc goes_on(const tern__callee *condition, tern_tensor *const *state, int n, bool *truth) {
  tern_tensor *go = NULL;
  tern_rc rc = tern__callee_run(condition, state, n, &go, 1, NULL);
  if (!rc) rc = truth_of("while", "condition's result", go, truth);
  tern__control_drop(&go, 1);
  return rc;
}

/* Holds the references to states itself, so that those of past trips end. */
static tern_rc while_now(const tern__callee bodies[2], tern_tensor *const *begin, int n, tern_tensor **out,
                         int64_t max_trips) {
  tern_tensor *state[MOST_STATES] = {0}, *next[MOST_STATES] = {0};
  tern_rc rc = TERN_OK;
  for (int i = 0; i < n; i++) state[i] = tern__ref(begin[i]);
  for (int64_t trip = 0; !rc; trip++) {
    bool more = false;
    rc = goes_on(&bodies[0], state, n, &more);
    if (rc || !more) break;
    if (max_trips > 0 && trip >= max_trips)
      rc = tern__fail(TERN_E_ARG, "while: the loop would run more often than its limit, max_trips = %lld",
                      (long long)max_trips);
    if (!rc) rc = tern__callee_run(&bodies[1], state, n, next, n, begin);
    for (int i = 0; i < n && !rc; i++)
      if (!tern__control_same("while", "state", i, next[i], begin[i])) rc = tern__recorded();
    for (int i = 0; i < n && !rc; i++) {
      tern__unref(state[i]);
      state[i] = next[i];
      next[i] = NULL;
    }
  }
  tern__control_drop(next, n);
  if (rc) {
    tern__control_drop(state, n);
    return rc;
  }
  for (int i = 0; i < n; i++) out[i] = state[i];
  return hand_over(out, n);
}

tern_rc tern_while(tern_function_body condition, tern_function_body body, void *self, tern_tensor *const *state, int n,
                   tern_tensor **out, const tern_while_opts *opts) {
  tern__thread *t = tern__thread_get();
  const int64_t limit = opts ? opts->max_trips : 0;
  if (!t) return TERN_E_OOM;
  if (!condition || !body || n < 1 || n > MOST_STATES || !out || !state || limit < 0)
    return nothing(out, n < 0 || n > MOST_STATES ? 0 : n,
                   tern__fail(TERN_E_ARG,
                              "while: %d states and max_trips = %lld; there may be 1 to %d states, the limit is not "
                              "negative, and no function or array may be NULL",
                              n, (long long)limit, MOST_STATES));
  const tern__callee bodies[2] = {{"while", "condition", condition, self}, {"while", "body", body, self}};
  tern_tensor *begin[MOST_STATES], *last[MOST_STATES] = {0};
  tern_rc rc = operands("while", state, n, begin);
  if (!rc)
    rc = traced(t) ? tern__while_traced(t, bodies, begin, n, last, limit) : while_now(bodies, begin, n, last, limit);
  for (int i = 0; i < n; i++) out[i] = rc ? NULL : last[i];
  return rc;
}

/* ---- scan ---- */

tern_rc tern__scan_nothing(tern__thread *t, const tern__callee *body, const tern__scan_form *f,
                           tern_tensor *const *carry, tern_tensor *const *xs, tern_tensor **out) {
  tern_tensor *like[TERN__CONTROL_MOST], *result[TERN__CONTROL_MOST] = {0};
  const bool inside = t->hooks & TERN__HOOK_GRAPH;
  tern__tracer *trace = tern__tracer_new(inside ? TERN__TRACE_BODY : TERN__TRACE_FUNCTION, "scan over nothing");
  if (!trace) return tern__recorded();
  if (inside) trace->outer = t->trace;
  const tern__tracer_mark before = tern__tracer_enter(t, trace, true);
  tern_scope_mark mark = tern_scope_begin();
  tern_rc rc = TERN_OK;
  for (int i = 0; i < f->n_carry + f->n_xs && !rc; i++) {
    const tern_tensor *x = i < f->n_carry ? carry[i] : xs[i - f->n_carry];
    const int skip = i < f->n_carry ? 0 : 1;
    like[i] = tern__tracer_input(trace, (tern_dtype)x->dtype, x->rank - skip, x->shape + skip, x->device);
    if (!like[i]) rc = tern__recorded();
  }
  if (!rc) rc = tern__callee_call(body, like, f->n_carry + f->n_xs, result, f->n_carry + f->n_ys, NULL);
  tern__tracer_leave(t, before);
  for (int o = 0; o < f->n_ys && !rc; o++) {
    const tern_tensor *y = result[f->n_carry + o];
    tern_shape shape = {.rank = y->rank + 1};
    for (int d = 0; d < y->rank && d + 1 < TERN_MAX_RANK; d++) shape.dim[d + 1] = y->shape[d];
    tern_device_mark device = tern_device_begin(y->device->name);
    tern_tensor *none = tern_zeros(shape, (tern_dtype)y->dtype);
    tern_device_end(&device);
    out[f->n_carry + o] = none ? tern__ref(none) : NULL;
    if (!none) rc = tern__recorded();
  }
  tern_scope_end(&mark);
  tern__graph_free(tern__tracer_finish(trace));
  return rc;
}

/* Some tensors joined into one, a reference; NULL with the error set. Takes their references. */
static tern_tensor *join(tern_tensor *(*op)(tern_tensor *const *, int, int), tern_tensor **list, int n, bool ok) {
  tern_scope_mark mark = tern_scope_begin();
  tern_tensor *all = ok ? op(list, n, 0) : NULL;
  if (all) tern__ref(all);
  tern__control_drop(list, n);
  tern_scope_end(&mark);
  return all;
}

/* n slices, [..] each, stacked: STACKED at a time, since a tape's entry holds only so many. Takes the references, gives
   one; NULL with the error set. */
static tern_tensor *stack_all(tern_tensor **slice, int64_t n) {
  bool ok = true;
  for (bool first = true; first || n > 1; first = false) {
    int64_t parts = 0;
    for (int64_t i = 0; i < n; i += STACKED) {
      const int some = (int)(n - i < STACKED ? n - i : STACKED);
      tern_tensor *part = join(first ? tern_stack : tern_concat, slice + i, some, ok);
      ok = ok && part;
      slice[parts++] = part;
    }
    n = parts;
  }
  tern_tensor *all = slice[0];
  slice[0] = NULL;
  if (ok || !all) return all;
  tern__unref(all);
  return NULL;
}

/* One trip: state[] becomes the next, ys[o * length + at] the slices. */
static tern_rc scan_trip(const tern__callee *body, const tern__scan_form *f, tern_tensor *const *carry,
                         tern_tensor *const *xs, int64_t at, tern_tensor **state, tern_tensor **ys) {
  tern_tensor *in[TERN__CONTROL_MOST], *like[TERN__CONTROL_MOST] = {0}, *next[TERN__CONTROL_MOST] = {0};
  tern_scope_mark mark = tern_scope_begin();
  tern_rc rc = TERN_OK;
  for (int i = 0; i < f->n_carry; i++) in[i] = state[i];
  for (int i = 0; i < f->n_xs && !rc; i++)
    if (!(in[f->n_carry + i] = tern_index(xs[i], 0, at))) rc = tern__recorded();
  for (int i = 0; i < f->n_carry; i++) like[i] = carry[i];
  if (!rc) rc = tern__callee_run(body, in, f->n_carry + f->n_xs, next, f->n_carry + f->n_ys, like);
  for (int i = 0; i < f->n_carry && !rc; i++)
    if (!tern__control_same("scan", "state", i, next[i], carry[i])) rc = tern__recorded();
  for (int i = 0; i < f->n_carry && !rc; i++) {
    tern__unref(state[i]);
    state[i] = next[i];
    next[i] = NULL;
  }
  for (int o = 0; o < f->n_ys && !rc; o++) {
    ys[o * f->length + at] = next[f->n_carry + o];
    next[f->n_carry + o] = NULL;
  }
  tern__control_drop(next, f->n_carry + f->n_ys);
  tern_scope_end(&mark);
  return rc;
}

static tern_rc scan_now(tern__thread *t, const tern__callee *body, const tern__scan_form *f, tern_tensor *const *carry,
                        tern_tensor *const *xs, tern_tensor **out) {
  tern_tensor **ys = tern__calloc((size_t)f->n_ys * (size_t)f->length + 1, sizeof *ys);
  if (!ys) return tern__fail(TERN_E_OOM, "scan: out of host memory for %lld slices", (long long)f->length);
  tern_rc rc = TERN_OK;
  for (int i = 0; i < f->n_carry; i++) out[i] = tern__ref(carry[i]);
  for (int64_t trip = 0; trip < f->length && !rc; trip++)
    rc = scan_trip(body, f, carry, xs, f->reverse ? f->length - 1 - trip : trip, out, ys);
  if (!rc && f->length == 0 && f->n_ys) rc = tern__scan_nothing(t, body, f, carry, xs, out);
  for (int o = 0; o < f->n_ys && !rc && f->length; o++)
    if (!(out[f->n_carry + o] = stack_all(ys + o * f->length, f->length))) rc = tern__recorded();
  for (int64_t i = 0; i < f->n_ys * f->length; i++)
    if (ys[i]) tern__unref(ys[i]);
  free(ys);
  const int n = f->n_carry + f->n_ys;
  if (!rc) return hand_over(out, n);
  tern__control_drop(out, n);
  return rc;
}

/* The length that xs and opts agree on; -1 with the error. */
static int64_t length_of(tern_tensor *const *xs, int n_xs, const tern_scan_loop_opts *opts) {
  const int64_t asked = opts ? opts->length : 0;
  int64_t length = n_xs ? -1 : asked;
  char a[200];
  for (int i = 0; i < n_xs; i++) {
    if (xs[i]->rank == 0) {
      tern__fail(TERN_E_ARG, "scan: xs %d has rank 0; there is no axis to go along", i + 1);
      return -1;
    }
    if (length < 0) length = xs[i]->shape[0];
    if (xs[i]->shape[0] == length) continue;
    tern__fail(TERN_E_ARG, "scan: xs 1 has %lld slices, xs %d of shape %s another number", (long long)length, i + 1,
               tern__shape_text(a, xs[i]->rank, xs[i]->shape));
    return -1;
  }
  if (length >= 0 && (!n_xs || !asked || asked == length)) return length;
  tern__fail(TERN_E_ARG, "scan: .length = %lld%s", (long long)asked,
             n_xs ? " is not the number of slices; it is for loops without xs" : " is negative");
  return -1;
}

tern_rc tern_scan(tern_function_body body, void *self, tern_tensor *const *carry, int n_carry, tern_tensor *const *xs,
                  int n_xs, tern_tensor **out, int n_ys, const tern_scan_loop_opts *opts) {
  tern__thread *t = tern__thread_get();
  const int most = MOST_GIVEN;
  if (!t) return TERN_E_OOM;
  const bool counts = n_carry >= 0 && n_carry <= most && n_xs >= 0 && n_xs <= most && n_ys >= 0 && n_ys <= most;
  if (!body || !counts || n_carry + n_ys < 1 || !out || (n_carry && !carry) || (n_xs && !xs))
    return nothing(out, counts ? n_carry + n_ys : 0,
                   tern__fail(TERN_E_ARG,
                              "scan: %d states, %d xs and %d ys; there may be up to %d of each, some state or ys, and "
                              "no function or array may be NULL",
                              n_carry, n_xs, n_ys, most));
  const tern__callee callee = {"scan", "body", body, self};
  tern_tensor *begin[MOST_GIVEN], *along[MOST_GIVEN], *result[TERN__CONTROL_MOST] = {0};
  tern_rc rc = operands("scan", carry, n_carry, begin);
  if (!rc) rc = operands("scan", xs, n_xs, along);
  const int64_t length = rc ? -1 : length_of(along, n_xs, opts);
  if (!rc && length < 0) rc = tern__recorded();
  const tern__scan_form f = {n_carry, n_xs, n_ys, length, opts && opts->reverse};
  if (!rc)
    rc = traced(t) ? tern__scan_traced(t, &callee, &f, begin, along, result)
                   : scan_now(t, &callee, &f, begin, along, result);
  for (int o = 0; o < n_carry + n_ys; o++) out[o] = rc ? NULL : result[o];
  return rc;
}
