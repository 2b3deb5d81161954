/* tern_cond in graphs: the node, and its gradient, which is a branch on the same predicate. What a branch drew is a
   result of the node when a tape records it; of the branch that is not taken these are zeros. */
#include "base/alloc.h"
#include "device/device.h"
#include "graph/control.h"
#include "tensor/dtype.h"
#include <stdlib.h>
#include <tern/ops.h>

tern_tensor *tern__as_predicate(const char *what, tern_tensor *x) {
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

/* ---- gradient ---- */

typedef struct branches {
  const tern__callee *bodies;
  const tern__reads *reads; /* the predicate, operands, variables before the call, what is read from outside */
  const tern__assigned *assigned;
  int n_in, n_out, n_drawn[2];
  const bool *seeded;
  tern_tensor *const *drawn; /* going back: by the first body, then by the second */
} branches;

typedef struct branch {
  const branches *of;
  int which;
} branch;

/* operands, variables before the call, gradients of results -> gradients of what is tracked */
static tern_rc branch_back(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const branch *b = self;
  const branches *of = b->of;
  tern_tensor *seeds[TERN__CONTROL_MOST], *sources[TERN__CONTROL_MOST];
  int n = 0;
  (void)n_in;
  for (int i = 1; i < of->reads->n && n < n_out; i++)
    if (of->reads->tracked[i]) sources[n++] = i <= of->n_in ? in[i - 1] : of->reads->tensor[i];
  for (int o = 0, k = of->n_in + of->assigned->n; o < of->n_out; o++) seeds[o] = of->seeded[o] ? in[k++] : NULL;
  tern__draws draws = {.replay = true, .saved = of->drawn + (b->which ? of->n_drawn[0] : 0)};
  draws.n_saved = of->n_drawn[b->which];
  const tern__again again = {&draws, of->assigned, in + of->n_in};
  return tern__vjp_through(&of->bodies[b->which], &again, in, of->n_in, of->n_out, NULL, seeds, sources, n, out);
}

/* predicate, operands, variables, results, gradients of results -> gradients of what is tracked */
static tern_rc cond_back(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  branches *of = self;
  tern_tensor *given[2 * TERN__CONTROL_MOST];
  const int first = 1 + of->n_in + of->assigned->n, n_drawn = of->n_drawn[0] + of->n_drawn[1];
  int n = 0;
  of->drawn = in + first + of->n_out;
  for (int i = 1; i < first; i++) given[n++] = in[i];
  for (int k = first + of->n_out + n_drawn; k < n_in; k++) given[n++] = in[k];
  branch then = {of, 0}, otherwise = {of, 1};
  const tern__callee bodies[2] = {{"cond", "gradient of the function for true", branch_back, &then},
                                  {"cond", "gradient of the function for false", branch_back, &otherwise}};
  return tern__cond_traced(tern__tls, in[0], bodies, given, n, out, n_out);
}

/* ---- the node ---- */

typedef struct call {
  const tern__callee *bodies;
  tern_tensor *const *in;
  int n_in, n_out, n_given;
  tern_tensor *given[2 * TERN__CONTROL_MOST + 1]; /* the predicate, in[], what assigned variables were before */
  tern__body body[2];
  tern__draws draws[2];
  tern__assigned assigned;
  tern__reads reads;
} call;

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

/* What one branch drew is a result of both. */
static tern_rc give_drawn(call *c) {
  tern_rc rc = TERN_OK;
  for (int k = 0; k < 2 * TERN__CONTROL_MOST && !rc; k++) {
    const int which = k / TERN__CONTROL_MOST, i = k % TERN__CONTROL_MOST;
    if (i >= c->draws[which].n) continue;
    tern__body *own = &c->body[which], *other = &c->body[1 - which];
    tern_tensor form;
    tern__value_form(own, c->draws[which].value[i], &form);
    tern_shape shape = {.rank = form.rank};
    memcpy(shape.dim, form.shape, form.rank * sizeof *form.shape);
    tern_device_mark mark = tern_device_begin(form.device->name);
    tern_tensor *zeros = tern_zeros(shape, (tern_dtype)form.dtype);
    tern_device_end(&mark);
    const uint32_t value = zeros ? tern__body_value_of(other, zeros) : TERN__IR_NONE;
    if (value == TERN__IR_NONE) return tern__recorded();
    rc = tern__graph_add_output(own->g, c->draws[which].value[i]);
    if (!rc) rc = tern__graph_add_output(other->g, value);
  }
  return rc;
}

static tern_rc trace_branches(tern__thread *t, call *c, bool record) {
  tern_rc rc = TERN_OK;
  for (int k = 0; k < 2 && !rc; k++) {
    tern__draws_begin(&c->draws[k], t, record);
    rc = tern__body_trace(t, &c->body[k], &c->bodies[k], &c->draws[k], c->in, c->n_in, c->n_out, NULL);
  }
  if (!rc) rc = branches_agree(&c->body[0], &c->body[1], c->n_out);
  if (!rc) rc = tern__assigned_begin(&c->assigned, &c->body[0], &c->body[1], false);
  if (!rc) rc = give_drawn(c);
  if (!rc) rc = tern__body_unite(&c->body[0], &c->body[1]);
  c->n_given = 1 + c->n_in;
  for (int k = 0; k < c->assigned.n && !rc && c->n_given < 2 * TERN__CONTROL_MOST; k++)
    c->given[c->n_given++] = c->assigned.before[k];
  return rc ? rc : tern__reads_begin(t, &c->reads, c->given, c->n_given, &c->body[0], NULL, 0);
}

static void end_branches(call *c) {
  for (int k = 0; k < 2; k++) tern__body_free(&c->body[k]);
  tern__assigned_drop(&c->assigned);
  tern__reads_end(&c->reads);
}

/* all: results, what variables end with, draws. */
static tern_rc record_cond(tern__thread *t, const call *c, tern_tensor *const *all, tern_tensor **out) {
  bool seeded[2 * TERN__CONTROL_MOST] = {false};
  tern_tensor *result[2 * TERN__CONTROL_MOST];
  const int n_drawn = c->draws[0].n + c->draws[1].n;
  if (c->assigned.n && c->reads.order > 1) return tern__assigned_refuse(&c->assigned, "cond");
  for (int o = 0; o < c->n_out; o++) {
    seeded[o] = tern__is_float((tern_dtype)out[o]->dtype);
    result[o] = out[o];
  }
  for (int k = 0; k < n_drawn; k++) result[c->n_out + k] = all[c->n_out + c->assigned.n + k];
  branches of = {.bodies = c->bodies,
                 .reads = &c->reads,
                 .assigned = &c->assigned,
                 .n_in = c->n_in,
                 .n_out = c->n_out,
                 .n_drawn = {c->draws[0].n, c->draws[1].n},
                 .seeded = seeded};
  const tern__taped taped = {.what = "cond",
                             .reads = &c->reads,
                             .n_given = c->n_given,
                             .out = result,
                             .n_out = c->n_out + n_drawn,
                             .seeded = seeded,
                             .vjp = cond_back,
                             .self = &of};
  return tern__control_record(t, &taped);
}

static tern_rc finish(tern__thread *t, call *c, tern_tensor **out) {
  tern_tensor *all[4 * TERN__CONTROL_MOST];
  const int n_drawn = c->draws[0].n + c->draws[1].n, n_before = c->n_out + c->assigned.n;
  if (c->n_out + n_drawn > TERN__CONTROL_MOST)
    return tern__fail(TERN_E_UNSUPPORTED, "cond: %d results and %d random draws are too many for a tape", c->n_out,
                      n_drawn);
  tern_rc rc = tern__control_node(t, c->given[0], c->in, c->n_in, &c->body[0], &c->body[1], 0, all, n_before + n_drawn);
  for (int o = 0; o < c->n_out && !rc; o++) out[o] = all[o];
  for (int k = 0; k < n_drawn && !rc; k++) rc = tern__draws_note(t, all[n_before + k]);
  if (!rc && c->reads.order) rc = record_cond(t, c, all, out);
  return tern__assigned_end(t, &c->assigned, all + c->n_out, rc);
}

tern_rc tern__cond_traced(tern__thread *t, tern_tensor *predicate, const tern__callee bodies[2], tern_tensor *const *in,
                          int n_in, tern_tensor **out, int n_out) {
  if (n_in > 2 * TERN__CONTROL_MOST || n_out > TERN__CONTROL_MOST)
    return tern__fail(TERN_E_UNSUPPORTED, "cond: %d operands and %d results are too many", n_in, n_out);
  call *c = tern__calloc(1, sizeof *c);
  if (!c) return tern__fail(TERN_E_OOM, "cond: out of host memory");
  c->bodies = bodies;
  c->in = in;
  c->n_in = n_in;
  c->n_out = n_out;
  c->given[0] = tern__as_predicate("cond: the predicate", predicate);
  for (int i = 0; i < n_in; i++) c->given[1 + i] = in[i];
  const int place = tern__draws_place(t);
  tern_rc rc = c->given[0] ? trace_branches(t, c, false) : tern__recorded();
  const bool noted = t->trace->draws && t->trace->draws->record;
  if (!rc && (c->reads.order || noted) && (c->body[0].drew || c->body[1].drew)) {
    end_branches(c);
    tern__draws_go(t, place);
    rc = trace_branches(t, c, true);
  }
  if (!rc) rc = finish(t, c, out);
  end_branches(c);
  free(c);
  return rc;
}
