/* tern_custom_gradient and tern_checkpoint_call: one entry whose rule calls a function of the user. Attribute 0 of the
   entry is the closure, a reference to which the entry owns. */
#include "base/alloc.h"
#include "device/device.h"
#include "ops/table.h"
#include "tape/tape.h"
#include "tensor/dtype.h"
#include <stdlib.h>

enum {
  MAX_TENSORS = 256,
  MAX_GIVEN = 16,
  MAX_VARIABLES = 1024
}; /* operands and results of functions; of users' calls */

typedef struct closure {
  _Atomic uint32_t refs;
  tern_function_body body;
  tern_gradient_body gradient; /* NULL: a checkpoint, body runs again */
  void *self;
  void (*release)(void *self);
  tern__call_rule rule; /* instead of running body again, where nothing records */
  void *rule_self;
  int n_given;                /* operands of the call; the rest are variables that body reads */
  uint32_t position;          /* of a checkpoint's call in the trace; 0: it ran at once */
  struct tern__tracer *trace; /* compared, never followed */
  tern__random_state random;
  tern_tensor **variables; /* owned references */
  int n_variables;
} closure;

static closure *closure_of(tern_word w) { return (closure *)(uintptr_t)w.u; }

void tern__closure_release(tern_word w) {
  closure *c = closure_of(w);
  if (!tern__refs_down(&c->refs)) return;
  for (int i = 0; i < c->n_variables; i++) tern__unref(c->variables[i]);
  free(c->variables);
  if (c->release) c->release(c->self);
  free(c);
}

/* ---- the backward pass ---- */

static void custom_rule(closure *c, const tern__grad *g, tern_tensor **din) {
  const tern_rc rc = c->gradient(c->self, g->in, g->n_in, g->out, g->dout, g->n_out, din);
  for (int i = 0; i < g->n_in; i++) {
    if (!rc && !din[i] && tern__tls->error_state == TERN__ERROR_NONE)
      tern__fail(TERN_E_ARG, "the custom gradient function left the gradient of operand %d NULL; TERN_NONE means none",
                 i + 1);
    if (rc) {
      tern__fail(rc, "the custom gradient function returned %s", tern_rc_name(rc));
      din[i] = NULL;
    } else if (din[i] && din[i] != TERN_NONE &&
               (din[i]->rank != g->in[i]->rank ||
                memcmp(din[i]->shape, g->in[i]->shape, (size_t)din[i]->rank * sizeof *din[i]->shape))) {
      char a[200], b[200];
      tern__fail(TERN_E_ARG,
                 "the custom gradient function gave operand %d a gradient of shape %s; it must have the operand's, %s",
                 i + 1, tern__shape_text(a, din[i]->rank, din[i]->shape),
                 tern__shape_text(b, g->in[i]->rank, g->in[i]->shape));
      din[i] = NULL;
    }
  }
}

/* The variables have the values of the forward pass while body runs again. */
static void swap_values(closure *c, tern_tensor *const *then) {
  for (int i = 0; i < c->n_variables; i++) {
    tern_tensor *v = c->variables[i], *s = then[i];
    tern__storage *storage = v->storage;
    const int64_t offset = v->offset;
    if (storage == s->storage && offset == s->offset) continue;
    v->storage = s->storage;
    v->offset = s->offset;
    s->storage = storage;
    s->offset = offset;
  }
}

/* What of the recorder a second pass must not meet: TERN_NO_GRADIENT round the gradient, and a collecting call. */
typedef struct outside {
  uint32_t paused, active;
  struct tern__collector *collector;
} outside;

static outside leave(tern__thread *t) {
  tern__recorder *r = t->recorder;
  const outside before = {r->paused, r->paused ? r->active : 0, r->collector};
  r->active &= ~before.active; /* what was paused records neither this */
  r->paused = 0;
  r->collector = NULL;
  tern__hook_update(t);
  return before;
}

static void come_back(tern__thread *t, outside before) {
  tern__recorder *r = t->recorder;
  r->active |= before.active & r->open;
  r->paused = before.paused;
  r->collector = before.collector;
  tern__hook_update(t);
}

/* Watches the operands whose gradients are asked for, each value once though it may stand in several places. Returns
   how many; -1 after an error. */
static int watch_operands(const closure *c, const tern__grad *g, tern_tape *tape, tern_tensor **sources, int *where) {
  tern__recorder *r = tern__tls->recorder;
  int n = 0;
  for (int i = 0; i < g->n_in; i++) {
    tern_tensor *x = i < c->n_given ? g->in[i] : c->variables[i - c->n_given];
    if (i < 32 && !(g->wanted >> i & 1)) continue;
    if (x == TERN_NONE || !tern__is_float((tern_dtype)x->dtype) || x->flags & TERN__WEAK) continue;
    if (tern_tape_watch(tape, x)) return -1;
    int k = 0;
    while (k < n && tern__value_of(r, sources[k]) != tern__value_of(r, x)) k++;
    if (k < n) continue;
    where[n] = i;
    sources[n++] = x;
  }
  return n;
}

/* Whether the forward pass and this one are of the same trace. */
static bool in_its_trace(const closure *c) {
  return c->position && tern__tls->hooks & TERN__HOOK_GRAPH && tern__tls->trace == c->trace;
}

static tern_rc trace_again(closure *c, const tern__grad *g, tern_tensor *const *in, tern_tensor **out) {
  const tern__repeat replay = {
      .source = c->position, .n = c->n_variables, .variables = c->variables, .values = g->in + c->n_given};
  const tern__repeat before = tern__graph_listener.repeat(tern__tls, replay);
  const tern_rc rc = c->body(c->self, in, c->n_given, out, g->n_out);
  tern__graph_listener.repeated(tern__tls, before);
  return rc;
}

static bool run_again(closure *c, const tern__grad *g, tern_tensor **then, tern_tensor **out) {
  tern_tensor *in[MAX_TENSORS];
  tern_rc rc;
  for (int i = 0; i < c->n_given; i++) in[i] = g->in[i];
  if (in_its_trace(c)) {
    rc = trace_again(c, g, in, out);
  } else {
    const tern__random_state now = tern__random_get();
    swap_values(c, then);
    tern__random_set(c->random);
    rc = c->body(c->self, in, c->n_given, out, g->n_out);
    tern__random_set(now);
    swap_values(c, then);
  }
  if (rc) tern__fail(rc, "checkpoint: the function failed when it ran again for the gradient");
  return !rc;
}

static bool checkpoint_gradients(closure *c, const tern__grad *g, tern_tensor **din, tern_tensor **sources,
                                 tern_tensor **found) {
  tern_tensor *out[MAX_TENSORS], *seeds[MAX_TENSORS], *then[MAX_VARIABLES];
  int where[MAX_TENSORS + MAX_VARIABLES], n_targets = 0;
  for (int i = 0; i < c->n_variables && !in_its_trace(c); i++)
    if (!(then[i] = tern__push(tern__alias(g->in[c->n_given + i], 0)))) return false;
  tern_tape *tape = tern_tape_begin(&(tern_tape_opts){.watch_nothing = 1});
  const int n_sources = tape ? watch_operands(c, g, tape, sources, where) : -1;
  bool ok = n_sources >= 0 && run_again(c, g, then, out);
  for (int o = 0; o < g->n_out && ok; o++) {
    if (g->dout[o] == TERN_NONE) continue;
    out[n_targets] = out[o];
    seeds[n_targets++] = g->dout[o];
  }
  ok = ok && !tern_tape_gradients(tape, out, seeds, n_targets, sources, n_sources, found,
                                  &(tern_gradient_opts){.unconnected_zeros = 1});
  for (int i = 0; i < n_sources && ok; i++) din[where[i]] = found[i];
  tern_tape_end(tape);
  return ok;
}

static void checkpoint_rule(closure *c, const tern__grad *g, tern_tensor **din) {
  tern_tensor **sources = tern__calloc((size_t)g->n_in * 2 + 1, sizeof *sources);
  if (!sources) tern__fail(TERN_E_OOM, "checkpoint: out of host memory");
  const outside before = leave(tern__tls);
  const bool ok = sources && checkpoint_gradients(c, g, din, sources, sources + g->n_in);
  come_back(tern__tls, before);
  for (int i = 0; i < g->n_in && !ok; i++) din[i] = NULL;
  free(sources);
}

static void grad_custom(const tern__grad *g, tern_tensor **din) {
  closure *c = closure_of(g->attr[0]);
  if (c->gradient) {
    custom_rule(c, g, din);
  } else if (c->rule && !(tern__tls->hooks & (TERN__HOOK_TAPE | TERN__HOOK_GRAPH))) {
    if (!c->rule(c->rule_self, g, c->random, din))
      for (int i = 0; i < g->n_in; i++) din[i] = NULL;
  } else {
    checkpoint_rule(c, g, din);
  }
}

const tern__op tern__op_custom = {
    .name = "custom function", .family = "tape", .grad = grad_custom, .keeps = 0xffffffff};

/* ---- the forward pass ---- */

static bool arguments(const char *what, bool has_body, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  if (!has_body || n_in < 0 || n_in > MAX_GIVEN || n_out < 1 || n_out > MAX_GIVEN || !out || (n_in && !in)) {
    tern__fail(TERN_E_ARG,
               "%s: %d operands and %d results; there may be 0 to %d and 1 to %d, and no function or array may be NULL",
               what, n_in, n_out, MAX_GIVEN, MAX_GIVEN);
    return false;
  }
  for (int i = 0; i < n_in; i++)
    if (in[i] != TERN_NONE && !tern__usable(in[i], what, i + 1)) return false;
  return true;
}

/* Runs body in a scope of its own, unrecorded; out[] are new handles, borrowed from the caller's scope. */
static bool run_body(const char *what, tern__thread *t, closure *c, struct tern__collector *collector,
                     tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  tern__recorder *r = t->recorder;
  struct tern__collector *outer = r ? r->collector : NULL;
  tern_scope_mark mark = tern_scope_begin();
  for (int o = 0; o < n_out; o++) out[o] = NULL;
  if (r) {
    if (collector) r->collector = collector; /* else an outer one goes on */
    if (!collector) r->paused++;
    tern__hook_update(t);
  }
  const tern_rc rc = c->body(c->self, in, n_in, out, n_out);
  if (r) {
    r->collector = outer;
    if (!collector) r->paused--;
    tern__hook_update(t);
  }
  bool ok = !rc;
  if (rc && t->error_state == TERN__ERROR_NONE) tern__fail(rc, "%s: the function returned %s", what, tern_rc_name(rc));
  for (int o = 0; o < n_out;
       o++) { /* out of the scope: as new tensors, since an operand may have been passed through */
    if (ok && !tern__usable(out[o], what, o + 1)) ok = false;
    tern_tensor *solid =
        ok ? tern__solid(out[o], out[o]->dtype == TERN_F64 ? TERN_F32 : (tern_dtype)out[o]->dtype) : NULL;
    out[o] = solid ? tern__alias(solid, 0) : NULL;
    ok = ok && out[o];
  }
  tern_scope_end(&mark);
  for (int o = 0; o < n_out; o++) {
    if (out[o] && ok)
      ok = tern__push(out[o]) != NULL;
    else if (out[o])
      tern__unref(out[o]);
    if (!ok) out[o] = NULL;
  }
  return ok;
}

static tern_rc record(tern__thread *t, closure *c, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const tern_word attr = {.u = (uintptr_t)c};
  tern__recorder *r = t->recorder;
  if (!(t->hooks & TERN__HOOK_TAPE)) return TERN_OK;
  const tern__entry *before = r->last;
  if (!tern__record_op(t, &tern__op_custom, in, n_in, &attr, 1, out, n_out)) return tern__recorded();
  if (r->last != before) tern__refs_up(&c->refs); /* the entry's */
  return TERN_OK;
}

static closure *new_closure(tern_function_body body, tern_gradient_body gradient, void *self, void (*release)(void *),
                            int n_in) {
  closure *c = tern__calloc(1, sizeof *c);
  if (!c) {
    tern__fail(TERN_E_OOM, "custom_gradient: out of host memory");
    return NULL;
  }
  *c = (closure){.refs = 1, .body = body, .gradient = gradient, .self = self, .release = release, .n_given = n_in};
  return c;
}

tern_rc tern_custom_gradient(tern_function_body body, tern_gradient_body gradient, void *self,
                             void (*release)(void *self), tern_tensor *const *in, int n_in, tern_tensor **out,
                             int n_out) {
  tern__thread *t = tern__thread_get();
  tern_tensor *held[MAX_TENSORS]; /* out may be the same array */
  closure *c = t && arguments("custom_gradient", body && gradient, in, n_in, out, n_out)
                   ? new_closure(body, gradient, self, release, n_in)
                   : NULL;
  if (!c) {
    if (release) release(self);
    return tern__recorded();
  }
  for (int i = 0; i < n_in; i++) held[i] = in[i];
  const bool ok =
      run_body("custom_gradient", t, c, NULL, held, n_in, out, n_out) && !record(t, c, held, n_in, out, n_out);
  tern__closure_release((tern_word){.u = (uintptr_t)c});
  return ok ? TERN_OK : tern__recorded();
}

/* What a checkpoint keeps of an operand: in a trace a variable's value of now. NULL on failure. */
static tern_tensor *kept(tern__thread *t, const closure *c, tern_tensor *x) {
  const bool reads = c->position && x != TERN_NONE && x->flags & TERN__VARIABLE && !t->recorder->collector;
  return reads ? tern__graph_listener.read(t, x) : x;
}

/* The entry of a call whose body runs again for the gradient: variables that it reads are operands too. */
static tern_rc record_with(tern__thread *t, closure *c, tern_tensor *const *in, int n_in, tern_tensor *const *variables,
                           int n_variables, tern_tensor **out, int n_out) {
  if (!(t->hooks & TERN__HOOK_TAPE)) return TERN_OK;
  tern_tensor **all = tern__calloc((size_t)(n_in + n_variables) + 1, sizeof *all);
  c->variables = tern__calloc((size_t)n_variables + 1, sizeof *c->variables);
  tern_rc rc = TERN_OK;
  if (all && c->variables) {
    for (int i = 0; i < n_in && !rc; i++)
      if (!(all[i] = kept(t, c, in[i]))) rc = tern__recorded();
    /* one that is an operand too must still be given its value of then */
    for (int i = 0; i < n_variables && !rc; i++) {
      c->variables[c->n_variables++] = tern__ref(variables[i]);
      if (!(all[n_in + i] = kept(t, c, variables[i]))) rc = tern__recorded();
    }
    if (!rc) rc = record(t, c, all, n_in + n_variables, out, n_out);
  } else {
    rc = tern__fail(TERN_E_OOM, "checkpoint_call: out of host memory");
  }
  free(all);
  return rc;
}

tern_rc tern__record_custom(tern__thread *t, tern_gradient_body gradient, void *self, void (*release)(void *self),
                            tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  closure *c = new_closure(NULL, gradient, self, release, n_in);
  if (!c) {
    if (release) release(self);
    return tern__recorded();
  }
  const tern_rc rc = record(t, c, in, n_in, out, n_out);
  tern__closure_release((tern_word){.u = (uintptr_t)c});
  return rc;
}

tern_rc tern__record_call(tern__thread *t, tern_function_body body, void *self, void (*release)(void *self),
                          tern__call_rule rule, void *rule_self, tern__random_state random, tern_tensor *const *in,
                          int n_in, tern_tensor *const *variables, int n_variables, tern_tensor **out, int n_out) {
  tern__recorder *r = t->recorder;
  if (r->collector) {
    tern__collect(r, in, n_in);
    tern__collect(r, variables, n_variables);
    if (release) release(self);
    return TERN_OK;
  }
  if (n_in > MAX_TENSORS || n_out > MAX_TENSORS || n_variables > MAX_VARIABLES) {
    if (release) release(self);
    return tern__fail(TERN_E_UNSUPPORTED,
                      "function: a call with %d operands, %d results and %d variables is too much for a tape", n_in,
                      n_out, n_variables);
  }
  closure *c = new_closure(body, NULL, self, release, n_in);
  if (!c) {
    if (release) release(self);
    return tern__recorded();
  }
  c->random = random;
  c->rule = rule;
  c->rule_self = rule_self;
  const tern_rc rc = record_with(t, c, in, n_in, variables, n_variables, out, n_out);
  tern__closure_release((tern_word){.u = (uintptr_t)c});
  return rc;
}

tern_rc tern_checkpoint_call(tern_function_body body, void *self, void (*release)(void *self), tern_tensor *const *in,
                             int n_in, tern_tensor **out, int n_out) {
  tern__thread *t = tern__thread_get();
  tern_tensor *held[MAX_TENSORS]; /* out may be the same array */
  closure *c = t && arguments("checkpoint_call", body != NULL, in, n_in, out, n_out)
                   ? new_closure(body, NULL, self, release, n_in)
                   : NULL;
  if (!c) {
    if (release) release(self);
    return tern__recorded();
  }
  struct tern__collector collector = {0};
  c->random = tern__random_get();
  c->position = t->hooks & TERN__HOOK_GRAPH ? tern__graph_listener.position(t) : 0;
  c->trace = t->trace;
  for (int i = 0; i < n_in; i++) held[i] = in[i];
  bool ok = run_body("checkpoint_call", t, c, t->recorder ? &collector : NULL, held, n_in, out, n_out);
  if (ok && (collector.failed || collector.n > MAX_VARIABLES)) {
    tern__fail(collector.failed ? TERN_E_OOM : TERN_E_UNSUPPORTED,
               "checkpoint_call: the function reads %d variables; at most %d are possible", collector.n, MAX_VARIABLES);
    ok = false;
  }
  ok = ok && !record_with(t, c, held, n_in, collector.variables, collector.n, out, n_out);
  for (int i = 0; i < collector.n; i++) tern__unref(collector.variables[i]);
  free(collector.variables);
  tern__closure_release((tern_word){.u = (uintptr_t)c});
  return ok ? TERN_OK : tern__recorded();
}
