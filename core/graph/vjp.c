/* Gradients through functions (vjp.h). While its body is traced for this, variables stand for their values of the
   forward call, which come in as operands, and what the body prints is left out. */
#include "graph/vjp.h"
#include "base/alloc.h"
#include "graph/trace.h"
#include "tape/tape.h"
#include "tensor/dtype.h"
#include <stdlib.h>

enum { MAX_OPERANDS = 256 };

struct tern__vjp {
  tern_function_body body;
  void *self;
  int n_in, n_out, n_variables;
  tern_tensor **variables; /* references */
  tern_function *f;        /* operands: in, the variables' values, gradients of out */
};

static bool differentiable(const tern_tensor *x) {
  return x != TERN_NONE && !(x->flags & TERN__WEAK) && tern__is_float((tern_dtype)x->dtype);
}

/* Operands and variables that are floats, each once. */
static int sources_of(const tern__vjp *v, tern_tensor *const *in, tern_tape *tape, tern_tensor **source, int *where) {
  int n = 0;
  for (int i = 0; i < v->n_in + v->n_variables; i++) {
    tern_tensor *x = i < v->n_in ? in[i] : v->variables[i - v->n_in];
    if (!differentiable(x)) continue;
    if (tern_tape_watch(tape, x)) return -1;
    where[n] = i;
    source[n++] = x;
  }
  return n;
}

static tern_rc body_of(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  tern__vjp *v = self;
  tern__tracer *tracer = tern__tls->trace;
  tern_tensor *const *dout = in + v->n_in + v->n_variables;
  tern_tensor *result[MAX_OPERANDS] = {0}, *target[MAX_OPERANDS], *seed[MAX_OPERANDS], *source[MAX_OPERANDS],
              *found[MAX_OPERANDS];
  int where[MAX_OPERANDS], n_targets = 0;
  (void)n_in;
  for (int i = 0; i < v->n_variables; i++)
    if (tern__tracer_bind(tracer, v->variables[i], in[v->n_in + i])) return tern__recorded();
  tracer->quiet = true;
  tern_tape *tape = tern_tape_begin(&(tern_tape_opts){.watch_nothing = 1});
  const int n = tape ? sources_of(v, in, tape, source, where) : -1;
  if (n < 0) return tern__recorded();
  tern_rc rc = v->body(v->self, in, v->n_in, result, v->n_out);
  for (int o = 0; o < v->n_out && !rc; o++) {
    if (dout[o] == TERN_NONE) continue;
    if (!result[o]) return tern__recorded();
    target[n_targets] = result[o];
    seed[n_targets++] = dout[o];
  }
  if (!rc)
    rc = tern_tape_gradients(tape, target, seed, n_targets, source, n, found,
                             &(tern_gradient_opts){.unconnected_zeros = 1});
  for (int o = 0; o < n_out; o++) out[o] = TERN_NONE;
  for (int i = 0; i < n && !rc; i++) out[where[i]] = found[i];
  tern_tape_end(tape);
  return rc;
}

/* Sources that may run twice: random numbers, whose generator is put back. */
static bool repeatable(const tern__graph *g) {
  for (uint32_t i = 0; i < g->n_nodes; i++)
    if (g->node[i].kind == TERN__IR_SOURCE && strcmp(g->node[i].source->name, "random") != 0) return false;
  return true;
}

tern__vjp *tern__vjp_new(tern_function_body body, void *self, int n_in, int n_out, const char *name,
                         const tern__graph *g) {
  const int n_variables = (int)g->n_variables, n = n_in + n_variables;
  if (n + n_out > MAX_OPERANDS || n < 1 || !repeatable(g)) return NULL;
  tern__vjp *v = tern__calloc(1, sizeof *v);
  if (!v) return NULL;
  *v = (tern__vjp){.body = body, .self = self, .n_in = n_in, .n_out = n_out};
  v->variables = tern__calloc((size_t)n_variables + 1, sizeof *v->variables);
  v->f = v->variables ? tern_function_new(body_of, v, n + n_out, n, &(tern_function_opts){.name = name}) : NULL;
  if (!v->f) {
    free(v->variables);
    free(v);
    tern_error_clear();
    return NULL;
  }
  for (int i = 0; i < n_variables; i++) v->variables[v->n_variables++] = tern__ref(g->variable[i].variable);
  return v;
}

void tern__vjp_free(tern__vjp *v) {
  if (!v) return;
  tern_function_release(v->f);
  for (int i = 0; i < v->n_variables; i++) tern__unref(v->variables[i]);
  free(v->variables);
  free(v);
}

bool tern__vjp_run(void *self, const tern__grad *g, tern__random_state random, tern_tensor **din) {
  tern__vjp *v = self;
  tern_tensor *in[MAX_OPERANDS];
  const int n = v->n_in + v->n_variables;
  for (int i = 0; i < n; i++) in[i] = g->in[i];
  for (int o = 0; o < v->n_out; o++) in[n + o] = g->dout[o];
  const tern__random_state now = tern__random_get();
  tern__random_set(random);
  const tern_rc rc = tern_function_run(v->f, in, n + v->n_out, din, n);
  tern__random_set(now);
  return !rc;
}
