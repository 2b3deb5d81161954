/* Gradients of control flow in traces. A call is one entry of the tape, of tern_custom_gradient's kind, whose rule puts
   a graph into the trace that was made along with the call, while what the bodies refer to was still there. Where
   several tapes record, the rule's rule is made as well, and so on. */
#include "base/alloc.h"
#include "device/device.h"
#include "graph/control.h"
#include "tape/tape.h"
#include "tensor/dtype.h"
#include <stdlib.h>
#include <tern/ops.h>

/* back's inputs: the operands that were given, results, gradients of those results that have seeded; then what it
   reads from outside. Its results: the gradients of operands gradient_of[]. */
typedef struct rule {
  _Atomic uint32_t refs;
  const char *what;
  tern__graph *back;
  int n_given, n_out, n_gradients;
  bool *seeded;
  int *gradient_of;
  int *outer; /* of each value read from outside: the operand that it is, or -1 - k: extra[k] */
  tern_tensor **extra;
  int n_outer, n_extra;
  struct rule *next; /* NULL: no further derivative was asked for */
} rule;

static void rule_release(void *self) {
  rule *r = self;
  if (!r || !tern__refs_down(&r->refs)) return;
  tern__graph_free(r->back);
  if (r->extra) tern__control_drop(r->extra, r->n_extra);
  rule_release(r->next);
  free(r->seeded);
  free(r->gradient_of);
  free(r->outer);
  free(r->extra);
  free(r);
}

static int n_seeded(const bool *seeded, int n) {
  int sum = 0;
  for (int o = 0; o < n; o++) sum += seeded[o];
  return sum;
}

/* ---- going back ---- */

static tern_rc no_further(void *self, tern_tensor *const *in, int n_in, tern_tensor *const *out,
                          tern_tensor *const *out_gradients, int n_out, tern_tensor **in_gradients) {
  (void)in, (void)n_in, (void)out, (void)out_gradients, (void)n_out, (void)in_gradients;
  return tern__fail(TERN_E_UNSUPPORTED,
                    "%s: a second derivative through a traced %s is possible only for tapes that were begun before the "
                    "%s itself",
                    (const char *)self, (const char *)self, (const char *)self);
}

/* What back takes, in order; list has room. */
static tern_rc gather(const rule *r, tern_tensor *const *in, tern_tensor *const *out, tern_tensor *const *dout,
                      tern_tensor **list) {
  int n = 0;
  for (int i = 0; i < r->n_given; i++) list[n++] = in[i];
  for (int o = 0; o < r->n_out; o++) list[n++] = out[o];
  for (int o = 0; o < r->n_out; o++)
    if (r->seeded[o] && !(list[n++] = dout[o] == TERN_NONE ? tern_zeros_like(out[o]) : dout[o]))
      return tern__recorded();
  for (int i = 0; i < r->n_outer; i++) list[n++] = r->outer[i] >= 0 ? in[r->outer[i]] : r->extra[-1 - r->outer[i]];
  return TERN_OK;
}

static tern_rc go_back(void *self, tern_tensor *const *in, int n_in, tern_tensor *const *out,
                       tern_tensor *const *out_gradients, int n_out, tern_tensor **in_gradients) {
  rule *r = self;
  tern__thread *t = tern__tls;
  if (!(t->hooks & TERN__HOOK_GRAPH))
    return tern__fail(TERN_E_ARG, "%s: it was traced; its gradient must be taken inside of the same function", r->what);
  const int n_own = r->n_given + n_out + n_seeded(r->seeded, n_out), n_captured = n_in - r->n_given;
  tern_tensor **list = tern__calloc((size_t)(n_own + n_captured + r->n_outer) + 1, sizeof *list);
  tern_tensor **gradients = tern__calloc((size_t)r->n_gradients + 1, sizeof *gradients);
  tern_rc rc = list && gradients ? gather(r, in, out, out_gradients, list)
                                 : tern__fail(TERN_E_OOM, "%s: out of host memory", r->what);
  if (!rc) rc = tern__graph_splice(t, r->back, list, gradients);
  if (!rc && t->hooks & TERN__HOOK_TAPE) {
    for (int i = 0; i < n_captured; i++) list[n_own + i] = in[r->n_given + i];
    if (r->next) tern__refs_up(&r->next->refs);
    rc = tern__record_custom(t, r->next ? go_back : no_further, r->next ? (void *)r->next : (void *)(uintptr_t)r->what,
                             r->next ? rule_release : NULL, list, n_own + n_captured, gradients, r->n_gradients);
  }
  for (int k = 0; k < r->n_gradients && !rc; k++) in_gradients[r->gradient_of[k]] = gradients[k];
  free(list);
  free(gradients);
  return rc;
}

/* ---- making rules ---- */

/* Which operand each value read from outside is. */
static tern_rc find_outer(rule *r, const tern__body *b, const tern__reads *reads, const tern__tracer *trace) {
  r->outer = tern__calloc((size_t)b->n_outer + 1, sizeof *r->outer);
  r->extra = tern__calloc((size_t)b->n_outer + 1, sizeof *r->extra);
  if (!r->outer || !r->extra) return tern__fail(TERN_E_OOM, "graph: out of host memory for a gradient");
  for (uint32_t i = 0; i < b->n_outer; i++) {
    const tern_tensor *x = tern__as_recorded(trace, b->outer[i]);
    int k = r->n_given;
    while (k < reads->n && reads->tensor[k] != x) k++;
    if (k == reads->n) {
      r->extra[r->n_extra] = tern__ref(b->outer[i]);
      k = -1 - r->n_extra++;
    }
    r->outer[r->n_outer++] = k;
  }
  return TERN_OK;
}

static rule *new_rule(const tern__taped *c) {
  rule *r = tern__calloc(1, sizeof *r);
  if (r) {
    r->refs = 1;
    r->what = c->what;
    r->n_given = c->n_given;
    r->n_out = c->n_out;
    r->seeded = tern__calloc((size_t)c->n_out + 1, sizeof *r->seeded);
    r->gradient_of = tern__calloc((size_t)c->reads->n + 1, sizeof *r->gradient_of);
  }
  if (!r || !r->seeded || !r->gradient_of) {
    rule_release(r);
    tern__fail(TERN_E_OOM, "graph: out of host memory for a gradient");
    return NULL;
  }
  memcpy(r->seeded, c->seeded, (size_t)c->n_out * sizeof *r->seeded);
  for (int i = 0; i < c->reads->n; i++)
    if (c->reads->tracked[i]) r->gradient_of[r->n_gradients++] = i;
  return r;
}

static rule *make_rule(tern__thread *t, const tern__taped *c, int order);

/* The gradient of a rule: through one call of its function. */
typedef struct again {
  const tern__taped *of, *own;
} again;

static tern_rc vjp_again(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const again *a = self;
  const tern__reads *reads = a->own->reads;
  const int n_given = a->own->n_given;
  tern_tensor *sources[2 * TERN__CONTROL_MOST];
  int n = 0;
  (void)n_in;
  for (int i = 0; i < reads->n; i++)
    if (reads->tracked[i] && n < 2 * TERN__CONTROL_MOST) sources[n++] = i < n_given ? in[i] : reads->tensor[i];
  if (n != n_out) return tern__fail(TERN_E_UNSUPPORTED, "%s: too many operands for a second derivative", a->of->what);
  const tern__callee callee = {a->of->what, "gradient", a->of->vjp, a->of->self};
  return tern__vjp_through(&callee, NULL, in, n_given, a->own->n_out, NULL, in + n_given + a->own->n_out, sources, n,
                           out);
}

/* The rule of r, whose call is c. */
static rule *rule_of_rule(tern__thread *t, const tern__taped *c, const rule *r, int order) {
  const int n_given = c->n_given + c->n_out + n_seeded(c->seeded, c->n_out), n = n_given + c->reads->n - c->n_given;
  tern__reads reads = {.tensor = tern__calloc((size_t)n + 1, sizeof *reads.tensor),
                       .tracked = tern__calloc((size_t)n + 1, 1),
                       .order = order};
  tern_tensor **forms = tern__calloc((size_t)r->n_gradients + 1, sizeof *forms);
  bool *seeded = tern__calloc((size_t)r->n_gradients + 1, sizeof *seeded);
  rule *made = NULL;
  if (reads.tensor && reads.tracked && forms && seeded) {
    for (int i = 0; i < c->n_given; i++) {
      reads.tracked[reads.n] = c->reads->tracked[i];
      reads.tensor[reads.n++] = c->reads->tensor[i];
    }
    for (int pass = 0; pass < 2; pass++) /* results, then their gradients */
      for (int o = 0; o < c->n_out; o++) {
        if (pass && !c->seeded[o]) continue;
        reads.tracked[reads.n] = tern__is_float((tern_dtype)c->out[o]->dtype);
        reads.tensor[reads.n++] = c->out[o];
      }
    for (int i = c->n_given; i < c->reads->n; i++) {
      reads.tracked[reads.n] = c->reads->tracked[i];
      reads.tensor[reads.n++] = c->reads->tensor[i];
    }
    for (int k = 0; k < r->n_gradients; k++) {
      forms[k] = c->reads->tensor[r->gradient_of[k]];
      seeded[k] = true;
    }
    again a = {.of = c};
    const tern__taped own = {.what = c->what,
                             .reads = &reads,
                             .n_given = n_given,
                             .out = forms,
                             .n_out = r->n_gradients,
                             .seeded = seeded,
                             .vjp = vjp_again,
                             .self = &a};
    a.own = &own;
    made = make_rule(t, &own, order);
  } else {
    tern__fail(TERN_E_OOM, "graph: out of host memory for a gradient");
  }
  free(reads.tensor); /* borrowed ones, these */
  free(reads.tracked);
  free(forms);
  free(seeded);
  return made;
}

static rule *make_rule(tern__thread *t, const tern__taped *c, int order) {
  rule *r = new_rule(c);
  if (!r) return NULL;
  tern_tensor *in[2 * TERN__CONTROL_MOST];
  int n = 0;
  tern_rc rc = TERN_OK;
  if (c->n_given + 2 * c->n_out > 2 * TERN__CONTROL_MOST || r->n_gradients > TERN__CONTROL_MOST)
    rc = tern__fail(TERN_E_UNSUPPORTED, "%s: %d operands, %d results and %d gradients are too much for one rule",
                    c->what, c->reads->n, c->n_out, r->n_gradients);
  for (int i = 0; i < c->n_given && !rc; i++) in[n++] = c->reads->tensor[i];
  for (int o = 0; o < c->n_out && !rc; o++) in[n++] = c->out[o];
  for (int o = 0; o < c->n_out && !rc; o++)
    if (c->seeded[o]) in[n++] = c->out[o];
  const tern__callee callee = {c->what, "gradient", c->vjp, c->self};
  tern__body b = {0};
  tern__draws draws = {.in_turn = true}; /* a rule's own draws come behind those of the call */
  if (!rc) rc = tern__body_trace(t, &b, &callee, &draws, in, n, r->n_gradients, NULL);
  if (!rc) rc = find_outer(r, &b, c->reads, t->trace);
  r->back = b.g;
  b.g = NULL;
  tern__body_free(&b);
  if (!rc && order > 1 && !(r->next = rule_of_rule(t, c, r, order - 1))) rc = tern__recorded();
  if (!rc) return r;
  rule_release(r);
  return NULL;
}

tern_rc tern__control_record(tern__thread *t, const tern__taped *c) {
  if (!c->reads->order) return TERN_OK;
  rule *r = make_rule(t, c, c->reads->order);
  if (!r) return tern__recorded();
  return tern__record_custom(t, go_back, r, rule_release, c->reads->tensor, c->reads->n,
                             (tern_tensor **)(uintptr_t)c->out, c->n_out);
}

/* ---- through a body ---- */

/* The variables are those values in this body, whatever the call assigns. */
static tern_rc hold_variables(tern__tracer *trace, const tern__again *rerun) {
  tern_rc rc = TERN_OK;
  for (int k = 0; k < rerun->assigned->n && !rc; k++) {
    rc = tern__tracer_bind(trace, rerun->assigned->variable[k], rerun->value[k]);
    tern__tracer_keep(trace, rerun->assigned->variable[k]);
  }
  return rc;
}

tern_rc tern__vjp_through(const tern__callee *c, const tern__again *rerun, tern_tensor *const *in, int n_in, int n_out,
                          tern_tensor *const *like, tern_tensor *const *seeds, tern_tensor *const *sources,
                          int n_sources, tern_tensor **gradients) {
  tern_tensor *out[TERN__CONTROL_MOST], *target[TERN__CONTROL_MOST], *seed[TERN__CONTROL_MOST];
  int n = 0;
  tern_tape *tape = tern_tape_begin(&(tern_tape_opts){.watch_nothing = 1});
  tern_rc rc = tape ? TERN_OK : tern__recorded();
  for (int i = 0; i < n_sources && !rc; i++) rc = tern_tape_watch(tape, sources[i]);
  tern__tracer *trace = tern__tls->trace;
  tern__draws *const own = trace->draws;
  if (rerun && !rc) rc = hold_variables(trace, rerun);
  if (rerun) trace->draws = rerun->draws;
  if (!rc) rc = tern__callee_call(c, in, n_in, out, n_out, like);
  trace->draws = own;
  for (int o = 0; o < n_out && !rc; o++) {
    if (!seeds[o] || !tern__is_float((tern_dtype)out[o]->dtype)) continue;
    target[n] = out[o];
    seed[n++] = seeds[o];
  }
  if (!rc)
    rc = tern_tape_gradients(tape, target, seed, n, sources, n_sources, gradients,
                             &(tern_gradient_opts){.unconnected_zeros = 1});
  tern_tape_end(tape);
  return rc;
}
