/* tern_custom_gradient and tern_checkpoint_call: one entry whose rule calls a function of the user. Attribute 0 of the
   entry is the closure, a reference to which the entry owns. */
#include "base/alloc.h"
#include "device/device.h"
#include "ops/table.h"
#include "tape/tape.h"
#include "tensor/dtype.h"
#include <stdlib.h>

enum { MAX_TENSORS = 16, MAX_VARIABLES = 1024 };

typedef struct closure {
  _Atomic uint32_t refs;
  tern_function_body body;
  tern_gradient_body gradient; /* NULL: a checkpoint, body runs again */
  void *self;
  void (*release)(void *self);
  int n_given; /* operands of the call; the rest are variables that body reads */
  uint64_t random;
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

/* A handle of its own to x's value and place in the record. */
static tern_tensor *alias_of(tern_tensor *x, uint64_t id) {
  tern_tensor *v = tern__view_header(x);
  if (!v) return NULL;
  v->rank = x->rank;
  v->flags = x->flags & TERN__CONTIG;
  v->grad_id = id;
  memcpy(v->shape, x->shape, sizeof v->shape);
  memcpy(v->stride, x->stride, sizeof v->stride);
  return v;
}

/* ---- the backward pass ---- */

static void custom_rule(closure *c, const tern__grad *g, tern_tensor **din) {
  const tern_rc rc = c->gradient(c->self, g->in, g->n_in, g->out, g->dout, g->n_out, din);
  for (int i = 0; i < g->n_in; i++) {
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

static void checkpoint_rule(closure *c, const tern__grad *g, tern_tensor **din) {
  tern_tensor *in[MAX_TENSORS], *out[MAX_TENSORS], *seeds[MAX_TENSORS], *then[MAX_VARIABLES];
  tern_tensor **sources = tern__calloc((size_t)g->n_in * 2 + 1, sizeof *sources),
              **found = sources ? sources + g->n_in : NULL;
  int n_sources = 0, n_targets = 0, where[MAX_TENSORS + MAX_VARIABLES];
  if (!sources) {
    tern__fail(TERN_E_OOM, "checkpoint: out of host memory");
    for (int i = 0; i < g->n_in; i++) din[i] = NULL;
    return;
  }
  const uint64_t position = tern__random_position();
  bool ok = true;
  for (int i = 0; i < c->n_variables && ok; i++)
    ok = (then[i] = tern__push(alias_of(g->in[c->n_given + i], 0))) != NULL;
  tern_tape *tape = ok ? tern_tape_begin(&(tern_tape_opts){.watch_nothing = 1}) : NULL;
  ok = tape != NULL;
  for (int i = 0; i < g->n_in && ok; i++) {
    tern_tensor *x = i < c->n_given ? g->in[i] : c->variables[i - c->n_given];
    if (i < c->n_given) in[i] = x;
    if (!(g->wanted >> (i < 31 ? i : 31) & 1) && i < 31) continue;
    if (x == TERN_NONE || !tern__is_float((tern_dtype)x->dtype) || x->flags & TERN__WEAK) continue;
    ok = !tern_tape_watch(tape, x);
    where[n_sources] = i;
    sources[n_sources++] = x;
  }
  if (ok) {
    swap_values(c, then);
    tern__random_seek(c->random);
    ok = !c->body(c->self, in, c->n_given, out, g->n_out);
    tern__random_seek(position);
    swap_values(c, then);
    if (!ok) tern__fail(TERN_E_ARG, "checkpoint: the function failed when it ran again for the gradient");
  }
  for (int o = 0; o < g->n_out && ok; o++) {
    if (g->dout[o] == TERN_NONE) continue;
    out[n_targets] = out[o];
    seeds[n_targets++] = g->dout[o];
  }
  ok = ok && !tern_tape_gradients(tape, out, seeds, n_targets, sources, n_sources, found,
                                  &(tern_gradient_opts){.unconnected_zeros = 1});
  for (int i = 0; i < n_sources; i++) din[where[i]] = ok ? found[i] : NULL;
  if (!ok)
    for (int i = 0; i < g->n_in; i++) din[i] = NULL;
  tern_tape_end(tape);
  free(sources);
}

static void grad_custom(const tern__grad *g, tern_tensor **din) {
  closure *c = closure_of(g->attr[0]);
  if (c->gradient)
    custom_rule(c, g, din);
  else
    checkpoint_rule(c, g, din);
}

const tern__op tern__op_custom = {
    .name = "custom function", .family = "tape", .grad = grad_custom, .keeps = 0xffffffff};

/* ---- the forward pass ---- */

static bool arguments(const char *what, bool has_body, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  if (!has_body || n_in < 0 || n_in > MAX_TENSORS || n_out < 1 || n_out > MAX_TENSORS || !out || (n_in && !in)) {
    tern__fail(TERN_E_ARG,
               "%s: %d operands and %d results; there may be 0 to %d and 1 to %d, and no function or array may be NULL",
               what, n_in, n_out, MAX_TENSORS, MAX_TENSORS);
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
    r->collector = collector;
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
    out[o] = solid ? alias_of(solid, 0) : NULL;
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
  if (!(t->hooks & TERN__HOOK_TAPE) || r->collector) return TERN_OK;
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
  closure *c = t && arguments("custom_gradient", body && gradient, in, n_in, out, n_out)
                   ? new_closure(body, gradient, self, release, n_in)
                   : NULL;
  if (!c) {
    if (release) release(self);
    return tern__recorded();
  }
  const bool ok = run_body("custom_gradient", t, c, NULL, in, n_in, out, n_out) && !record(t, c, in, n_in, out, n_out);
  tern__closure_release((tern_word){.u = (uintptr_t)c});
  return ok ? TERN_OK : tern__recorded();
}

tern_rc tern_checkpoint_call(tern_function_body body, void *self, void (*release)(void *self), tern_tensor *const *in,
                             int n_in, tern_tensor **out, int n_out) {
  tern__thread *t = tern__thread_get();
  closure *c = t && arguments("checkpoint_call", body != NULL, in, n_in, out, n_out)
                   ? new_closure(body, NULL, self, release, n_in)
                   : NULL;
  if (!c) {
    if (release) release(self);
    return tern__recorded();
  }
  struct tern__collector collector = {0};
  c->random = tern__random_position();
  bool ok = run_body("checkpoint_call", t, c, t->recorder ? &collector : NULL, in, n_in, out, n_out);
  if (ok && (collector.failed || collector.n > MAX_VARIABLES)) {
    tern__fail(collector.failed ? TERN_E_OOM : TERN_E_UNSUPPORTED,
               "checkpoint_call: the function reads %d variables; at most %d are possible", collector.n, MAX_VARIABLES);
    ok = false;
  }
  tern_tensor **all = ok ? tern__calloc((size_t)(n_in + collector.n) + 1, sizeof *all) : NULL;
  if (ok && !all) {
    tern__fail(TERN_E_OOM, "checkpoint_call: out of host memory");
    ok = false;
  }
  if (ok) {
    int n = 0;
    for (; n < n_in; n++) all[n] = in[n];
    for (int i = 0; i < collector.n; i++) {
      bool given = false;
      for (int k = 0; k < n_in; k++) given |= in[k] == collector.variables[i];
      if (given) continue;
      all[n++] = collector.variables[i];
    }
    c->n_variables = n - n_in;
    c->variables = tern__calloc((size_t)c->n_variables + 1, sizeof *c->variables);
    for (int i = 0; i < c->n_variables && c->variables; i++) c->variables[i] = tern__ref(all[n_in + i]);
    if (c->variables) {
      ok = !record(t, c, all, n, out, n_out);
    } else {
      c->n_variables = 0;
      tern__fail(TERN_E_OOM, "checkpoint_call: out of host memory");
      ok = false;
    }
  }
  free(all);
  for (int i = 0; i < collector.n; i++) tern__unref(collector.variables[i]);
  free(collector.variables);
  tern__closure_release((tern_word){.u = (uintptr_t)c});
  return ok ? TERN_OK : tern__recorded();
}
