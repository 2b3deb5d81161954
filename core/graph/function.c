/* tern_function: traces by signature, programs by sizes. The first call with some sizes is traced for just those; when
   others come, once more with the sizes that changed as variables; a program is compiled for each set of sizes from the
   same trace. The newest program is tried first, by comparing what the operands look like. */
#include "graph/compile.h"
#include "graph/function.h"
#include "graph/trace.h"
#include "graph/vjp.h"
#include "graph/agree.h"
#include "graph/labels.h"
#include "graph/sized.h"
#include "base/alloc.h"
#include "base/log.h"
#include "device/device.h"
#include "device/trace.h"
#include "ops/op.h"
#include "tape/tape.h"
#include "tensor/dtype.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <tern/graph.h>
#include <tern/ops.h>

enum { MAX_OPERANDS = 256, MOST_INNER = 100, MAX_PROGRAMS = 64 };
enum { DIMS_BOUND = 1 << 24 }; /* sizes that vary are smaller than every mark */

typedef struct form { /* what an operand looks like */
  uint8_t dtype, rank;
  tern__device *device; /* NULL: TERN_NONE */
  const tern_tensor *variable;
  int64_t shape[TERN_MAX_RANK];
} form;

typedef struct trace {
  struct trace *next;
  tern__graph *graph;
  form *in; /* shapes: numbers, or marks of variable sizes */
  int n_dims;
  char *why;  /* it was made */
  bool fixed; /* sizes cannot be variable */
  bool asked; /* for vjp */
  tern__vjp *vjp;
} trace;

typedef struct program {
  struct program *next;
  trace *of;
  form *in;
  tern__program *run;
  const tern__graph *labels; /* has labels to look at before a run; NULL: there are none */
} program;

struct tern_function {
  tern_function_body body;
  void *self;
  int n_in, n_out;
  tern_function_opts opts;
  char *name;
  pthread_mutex_t lock; /* of everything below but `newest` and `calls` */
  trace *traces;
  program *programs; /* newest first */
  program *retired;  /* ended when no call is under way */
  _Atomic(program *) newest;
  _Atomic uint32_t active; /* calls under way */
  int n_programs, n_traces, n_compiled;
  _Atomic int64_t calls;
  double trace_ms;
  tern__program_stats stats;
  char *pins; /* sizes that were read, for tern_explain */
};

/* ---- life ---- */

tern_function *tern_function_new(tern_function_body body, void *self, int n_in, int n_out,
                                 const tern_function_opts *opts) {
  if (!body || n_in < 0 || n_in > MAX_OPERANDS || n_out < 1 || n_out > MAX_OPERANDS) {
    tern__fail(TERN_E_ARG, "function_new: %d operands and %d results (0 to %d and 1 to %d are possible)%s", n_in, n_out,
               MAX_OPERANDS, MAX_OPERANDS, body ? "" : "; the body is NULL");
    return NULL;
  }
  tern__tracer_install();
  tern_function *f = tern__calloc(1, sizeof *f);
  if (f) {
    f->body = body;
    f->self = self;
    f->n_in = n_in;
    f->n_out = n_out;
    if (opts) f->opts = *opts;
    f->name = tern__strdup(opts && opts->name && *opts->name ? opts->name : "function");
    pthread_mutex_init(&f->lock, NULL);
  }
  if (f && f->name) {
    f->opts.name = f->name;
    return f;
  }
  free(f);
  tern__fail(TERN_E_OOM, "function_new: out of host memory");
  return NULL;
}

static void programs_free(program *p) {
  while (p) {
    program *next = p->next;
    tern__program_free(p->run);
    free(p->in);
    free(p);
    p = next;
  }
}

/* Programs stay as long as a call is under way. */
static inline void begin_call(tern_function *f) {
  if (TERN__SINGLE_THREADED)
    atomic_store_explicit(&f->active, atomic_load_explicit(&f->active, memory_order_relaxed) + 1, memory_order_relaxed);
  else
    atomic_fetch_add(&f->active, 1); /* before `newest` is read */
}
static inline void end_call(tern_function *f) {
  if (TERN__SINGLE_THREADED)
    atomic_store_explicit(&f->active, atomic_load_explicit(&f->active, memory_order_relaxed) - 1, memory_order_relaxed);
  else
    atomic_fetch_sub_explicit(&f->active, 1, memory_order_release);
}

void tern_function_release(tern_function *f) {
  if (!f) return;
  programs_free(f->programs);
  programs_free(f->retired);
  while (f->traces) {
    trace *t = f->traces;
    f->traces = t->next;
    tern__vjp_free(t->vjp);
    tern__graph_free(t->graph);
    free(t->in);
    free(t->why);
    free(t);
  }
  pthread_mutex_destroy(&f->lock);
  free(f->name);
  free(f->pins);
  free(f);
}

/* ---- what operands look like ---- */

static inline bool fits(const form *f, const tern_tensor *t) {
  if (TERN__UNLIKELY(t == TERN_NONE)) return !f->device;
  if (f->dtype != t->dtype || f->rank != t->rank || f->device != t->device) return false;
  for (int d = 0; d < t->rank; d++)
    if (f->shape[d] != t->shape[d]) return false;
  return f->variable == (TERN__UNLIKELY(t->flags & TERN__VARIABLE) ? t : NULL);
}

static inline bool fit(const form *f, tern_tensor *const *in, int n) {
  for (int i = 0; i < n; i++)
    if (!fits(&f[i], in[i])) return false;
  return true;
}

static form *forms_of(tern_tensor *const *in, int n) {
  form *f = tern__calloc((size_t)n + 1, sizeof *f);
  for (int i = 0; f && i < n; i++) {
    if (in[i] == TERN_NONE) continue;
    f[i] = (form){.dtype = in[i]->dtype,
                  .rank = in[i]->rank,
                  .device = in[i]->device,
                  .variable = in[i]->flags & TERN__VARIABLE ? in[i] : NULL};
    memcpy(f[i].shape, in[i]->shape, in[i]->rank * sizeof *f[i].shape);
  }
  if (!f) tern__fail(TERN_E_OOM, "function: out of host memory");
  return f;
}

/* All but the sizes. */
static bool same_kind(const form *a, const form *b, int n) {
  for (int i = 0; i < n; i++)
    if (a[i].dtype != b[i].dtype || a[i].rank != b[i].rank || a[i].device != b[i].device ||
        a[i].variable != b[i].variable)
      return false;
  return true;
}

/* The variable size that a mark stands for; -1: a plain size. */
static int mark_of(int64_t size) {
  for (int i = 0; i < TERN__MAX_DIMS; i++)
    if (size == tern__dims_mark(i)) return i;
  return -1;
}

/* Whether a trace serves operands of these sizes, and what its variable sizes are then. */
static bool serves(const trace *t, const form *in, int n, tern__dims *dims) {
  bool known[TERN__MAX_DIMS] = {false};
  dims->n = t->n_dims;
  if (!same_kind(t->in, in, n)) return false;
  for (int i = 0; i < n; i++)
    for (int d = 0; d < in[i].rank; d++) {
      const int k = mark_of(t->in[i].shape[d]);
      if (k < 0 && t->in[i].shape[d] != in[i].shape[d]) return false;
      if (k < 0) continue;
      if (in[i].shape[d] == 0 || in[i].shape[d] >= DIMS_BOUND || (known[k] && dims->size[k] != in[i].shape[d]))
        return false;
      known[k] = true;
      dims->size[k] = in[i].shape[d];
    }
  return true;
}

/* ---- tracing ---- */

typedef struct attempt {
  tern_rc rc;
  uint32_t pinned;
  tern__graph *graph;
} attempt;

static tern_rc give_outputs(tern_function *f, tern__tracer *tracer, tern_tensor *const *out) {
  for (int o = 0; o < f->n_out; o++) {
    tern_tensor *x = out[o];
    if (!x) {
      if (tern__tls->error_state == TERN__ERROR_NONE)
        tern__fail(TERN_E_ARG, "function \"%s\" left result %d NULL; it has to set out[%d], to TERN_NONE for none",
                   f->name, o + 1, o);
      return tern__recorded();
    }
    if (x != TERN_NONE) {
      if (!tern__usable(x, f->name, o + 1)) return tern__recorded();
      const tern_dtype d = x->dtype == TERN_F64 ? TERN_F32 : (tern_dtype)x->dtype;
      if (x->flags & TERN__WEAK)
        x = x->live == TERN__LIVE ? tern__solid(x, d) : tern_add(x, tern_zeros((tern_shape){0, {0}}, d));
      if (!x) return tern__recorded();
    }
    const uint32_t value = tern__tracer_value(tracer, x);
    if (value == TERN__IR_NONE && x != TERN_NONE) return tern__recorded();
    const tern_rc rc = tern__graph_add_output(tracer->g, value);
    if (rc) return rc;
  }
  return TERN_OK;
}

static void note_pins(tern_function *f, const tern__tracer *tracer) {
  for (int i = 0; i < tracer->n_pins; i++) {
    const size_t old = f->pins ? strlen(f->pins) : 0, more = strlen(tracer->pins[i].text) + 32;
    char *text = old < 4096 ? tern__realloc(f->pins, old + more) : NULL;
    if (!text) return;
    snprintf(text + old, more, "  fixed a size: %s\n", tracer->pins[i].text);
    f->pins = text;
  }
}

/* The pending error with the function's name in front, where it does not say so itself. */
static void say_where(const tern_function *f, tern__thread *t) {
  char reason[1024];
  if (t->error_state != TERN__ERROR_UNREAD || strstr(t->error_text, f->name)) return;
  snprintf(reason, sizeof reason, "%s", t->error_text);
  t->error_state = TERN__ERROR_NONE;
  tern__fail(t->error_code, "%s (while function \"%s\" was traced)", reason, f->name);
}

/* Runs the body over symbolic operands of these forms. */
static attempt trace_once(tern_function *f, const form *in, tern_tensor *const *operands, const tern__dims *dims) {
  tern__thread *t = tern__tls;
  attempt a = {0};
  tern__tracer *tracer = tern__tracer_new(TERN__TRACE_FUNCTION, f->name);
  if (!tracer) return (attempt){.rc = TERN_E_OOM};
  tracer->dims = dims;
  const uint64_t began = tern__now_ns();
  const tern__tracer_mark before = tern__tracer_enter(t, tracer, true);
  tern_scope_mark mark = tern_scope_begin();
  tern_tensor *given[MAX_OPERANDS], *out[MAX_OPERANDS] = {0};
  for (int i = 0; i < f->n_in && !a.rc; i++) {
    tern_tensor *x = in[i].device
                         ? tern__tracer_input(tracer, (tern_dtype)in[i].dtype, in[i].rank, in[i].shape, in[i].device)
                         : TERN_NONE;
    given[i] = in[i].variable ? operands[i] : x; /* a variable is itself: it can be assigned */
    if (!x) a.rc = tern__recorded();
  }
  if (!a.rc) {
    const bool pending = t->error_state == TERN__ERROR_UNREAD;
    a.rc = f->body(f->self, given, f->n_in, out, f->n_out);
    if (!a.rc && !pending && t->error_state == TERN__ERROR_UNREAD)
      a.rc = tern__recorded();                                                           /* it went on all the same */
    if (a.rc && t->error_state == TERN__ERROR_READ) t->error_state = TERN__ERROR_UNREAD; /* the body looked at it */
    if (a.rc && t->error_state == TERN__ERROR_NONE)
      tern__fail(a.rc, "function \"%s\" returned %s while it was traced", f->name, tern_rc_name(a.rc));
  }
  if (!a.rc) a.rc = give_outputs(f, tracer, out);
  if (!a.rc) tern__tracer_close_variables(tracer);
  tern__tracer_leave(t, before);
  tern_scope_end(&mark);
  a.pinned = tracer->pinned;
  note_pins(f, tracer);
  a.graph = tern__tracer_finish(tracer);
  f->trace_ms = (double)(tern__now_ns() - began) * 1e-6;
  f->n_traces++;
  if (a.rc) {
    say_where(f, t);
    tern__graph_free(a.graph);
    a.graph = NULL;
  }
  return a;
}

static trace *keep_trace(tern_function *f, form *in, int n_dims, tern__graph *g, const char *why) {
  trace *t = tern__calloc(1, sizeof *t);
  if (!t || !(t->why = tern__strdup(why))) {
    free(t);
    free(in);
    tern__graph_free(g);
    tern__fail(TERN_E_OOM, "function: out of host memory");
    return NULL;
  }
  t->in = in;
  t->n_dims = n_dims;
  t->graph = g;
  t->next = f->traces;
  return f->traces = t;
}

static form *copy_forms(const form *in, int n) {
  form *copy = tern__calloc((size_t)n + 1, sizeof *copy);
  if (copy)
    memcpy(copy, in, (size_t)n * sizeof *copy);
  else
    tern__fail(TERN_E_OOM, "function: out of host memory");
  return copy;
}

static trace *trace_fixed(tern_function *f, const form *in, tern_tensor *const *operands, const char *why) {
  form *copy = copy_forms(in, f->n_in);
  const attempt a = copy ? trace_once(f, in, operands, NULL) : (attempt){.rc = TERN_E_OOM};
  if (!a.rc) return keep_trace(f, copy, 0, a.graph, why);
  free(copy);
  return NULL;
}

/* Sizes that differ between an earlier trace and now become variables; those that changed in step are one. Returns how
   many there are; 0: more than can be. */
static int vary(const form *then, const form *now, int n, form *to, int64_t *size, uint32_t keep_fixed) {
  int64_t before[TERN__MAX_DIMS];
  int n_dims = 0, seen = 0;
  for (int i = 0; i < n; i++)
    for (int d = 0; d < now[i].rank; d++) {
      if (then[i].shape[d] == now[i].shape[d]) continue;
      int k = 0;
      while (k < n_dims && (before[k] != then[i].shape[d] || size[k] != now[i].shape[d])) k++;
      if (k == n_dims) {
        if (n_dims == TERN__MAX_DIMS || now[i].shape[d] == 0 || then[i].shape[d] == 0) return 0;
        before[n_dims] = then[i].shape[d];
        size[n_dims++] = now[i].shape[d];
      }
      seen = k;
      if (!(keep_fixed >> k & 1)) to[i].shape[d] = tern__dims_mark(k);
    }
  (void)seen;
  return n_dims;
}

/* ---- variable sizes read back ---- */

/* The trace's graph for sizes that it serves; NULL with the error set: they come out wrong. */
static tern__graph *instance_of(tern__graph *graph, int n_dims, const tern__dims *dims) {
  tern__graph *g = tern__graph_sized(graph, n_dims ? dims : NULL);
  if (!g || !n_dims || !tern__graph_verify(g, "variable sizes")) return g;
  tern__graph_free(g);
  return NULL;
}

/* Whether a new trace says of the first one's sizes what that does. */
static bool confirmed(const tern_function *f, const trace *fresh) {
  const trace *first = NULL;
  tern__dims dims = {0};
  for (const trace *t = f->traces; t; t = t->next)
    if (!t->n_dims && same_kind(t->in, fresh->in, f->n_in) && serves(fresh, t->in, f->n_in, &dims)) first = t;
  if (!first || !serves(fresh, first->in, f->n_in, &dims)) return false;
  char text[128] = "";
  tern__graph *g = instance_of(fresh->graph, fresh->n_dims, &dims);
  const bool same = g && tern__graph_agrees(g, first->graph, text, sizeof text);
  if (!same) tern__log(TERN__LOG_DEBUG, "graph", "%s: sizes stay fixed: %s", f->name, g ? text : tern_error());
  if (!g) tern_error_clear();
  tern__graph_free(g);
  return same;
}

/* A trace with variable sizes, from one of the same kind and other sizes; NULL without an error: not possible. */
static trace *trace_varying(tern_function *f, const trace *then, const form *in, tern_tensor *const *operands) {
  uint32_t fixed = 0;
  for (int round = 0; round < 2; round++) {
    tern__dims dims = {0};
    form *to = copy_forms(in, f->n_in);
    if (!to) return NULL;
    dims.n = vary(then->in, in, f->n_in, to, dims.size, fixed);
    if (!dims.n || (fixed && fixed == (1u << dims.n) - 1)) {
      free(to);
      return NULL;
    }
    const attempt a = trace_once(f, to, operands, &dims);
    const bool good = !a.rc && !a.pinned && confirmed(f, &(trace){.graph = a.graph, .in = to, .n_dims = dims.n});
    if (good) return keep_trace(f, to, dims.n, a.graph, "other sizes: those that changed are variable now");
    free(to);
    tern__graph_free(a.graph);
    if (!a.rc && !a.pinned) return NULL;
    if (a.rc && a.pinned & ~fixed)
      tern_error_clear(); /* numbers and marks mixed: again with those fixed */
    else if (a.rc) {
      tern__log(TERN__LOG_DEBUG, "graph", "%s: not traced for variable sizes: %s", f->name, tern_error());
      tern_error_clear();
      return NULL;
    }
    fixed |= a.pinned;
  }
  return NULL;
}

/* ---- programs ---- */

static program *compile(tern_function *f, trace *t, const form *in, const tern__dims *dims) {
  tern__graph *g = instance_of(t->graph, t->n_dims, dims);
  if (!g) return NULL;
  const tern__compile_opts opts = {.name = f->name,
                                   .no_simplify = f->opts.no_simplify,
                                   .no_fuse = f->opts.no_fuse,
                                   .fast_math = f->opts.fast_math,
                                   .memory_budget = f->opts.memory_budget};
  program *p = tern__calloc(1, sizeof *p);
  tern__program *run = tern__compile(g, &opts);
  if (p && run && (p->in = copy_forms(in, f->n_in))) {
    p->of = t;
    p->run = run;
    p->labels = tern__program_graph(run)->n_labels ? tern__program_graph(run) : NULL;
    f->stats = *tern__program_statistics(run);
    f->n_compiled++;
    return p;
  }
  if (!p) tern__fail(TERN_E_OOM, "function: out of host memory");
  tern__program_free(run);
  free(p);
  return NULL;
}

static void keep_program(tern_function *f, program *p) {
  p->next = f->programs;
  f->programs = p;
  atomic_store(&f->newest, p); /* nobody comes to an old one from here on */
  if (++f->n_programs <= MAX_PROGRAMS) return;
  program **last = &f->programs;
  while ((*last)->next) last = &(*last)->next;
  (*last)->next = f->retired;
  f->retired = *last;
  *last = NULL;
  f->n_programs--;
  if (atomic_load(&f->active) != 1) return; /* others may be inside one */
  programs_free(f->retired);
  f->retired = NULL;
}

/* The program for these operands, made if it is new. Caller holds the lock. */
static bool has_nothing(const form *in, int n) {
  for (int i = 0; i < n; i++)
    for (int d = 0; d < in[i].rank; d++)
      if (in[i].shape[d] == 0) return true;
  return false;
}

static program *make_program(tern_function *f, tern_tensor *const *in) {
  form *now = forms_of(in, f->n_in);
  if (!now) return NULL;
  trace *of = NULL, *same = NULL;
  tern__dims dims = {0};
  for (trace *t = f->traces; t && !of; t = t->next) {
    if (serves(t, now, f->n_in, &dims)) of = t;
    if (!same && same_kind(t->in, now, f->n_in) && !has_nothing(t->in, f->n_in)) same = t;
  }
  if (!of && same && !same->fixed && !f->opts.fixed_sizes) {
    of = trace_varying(f, same, now, in);
    if (of && !serves(of, now, f->n_in, &dims)) of = NULL;
    if (!of) same->fixed = true;
  }
  program *p = of ? compile(f, of, now, &dims) : NULL;
  if (of && !p && of->n_dims) { /* a size came out as something else than the trace says */
    tern__log(TERN__LOG_DEBUG, "graph", "%s: traced anew: %s", f->name, tern_error());
    tern_error_clear();
    of = NULL;
  }
  if (!of) {
    of = trace_fixed(f, now, in, same ? "other sizes" : f->traces ? "operands of another kind" : "the first call");
    p = of ? compile(f, of, now, &dims) : NULL;
    if (of && same) of->fixed = same->fixed;
  }
  free(now);
  if (p) keep_program(f, p);
  return p;
}

static program *find_program(tern_function *f, tern_tensor *const *in) {
  for (program **at = &f->programs; *at; at = &(*at)->next) {
    program *p = *at;
    if (!fit(p->in, in, f->n_in)) continue;
    *at = p->next; /* to the front: the last one is dropped when there are too many */
    p->next = f->programs;
    return f->programs = p;
  }
  return NULL;
}

/* Within a call. */
static program *program_for(tern_function *f, tern_tensor *const *in) {
  pthread_mutex_lock(&f->lock);
  program *p = find_program(f, in);
  if (!p) p = make_program(f, in);
  if (p) atomic_store_explicit(&f->newest, p, memory_order_release);
  pthread_mutex_unlock(&f->lock);
  return p;
}

/* ---- calling ---- */

/* Inside another trace: the body's ops become part of that. */
static tern_rc run_inline(tern_function *f, tern_tensor *const *in, tern_tensor **out) {
  tern_tensor *result[MAX_OPERANDS] = {0};
  tern__tracer *tracer = tern__tls->trace;
  if (tracer->inner >= MOST_INNER)
    return tern__fail(TERN_E_ARG, "function \"%s\": %d calls of functions inside each other; it seems to call itself",
                      f->name, MOST_INNER);
  tern_scope_mark mark = tern_scope_begin();
  tracer->inner++;
  tern_rc rc = f->body(f->self, in, f->n_in, result, f->n_out);
  tracer->inner--;
  if (rc && tern__tls->error_state == TERN__ERROR_NONE)
    tern__fail(rc, "function \"%s\" returned %s", f->name, tern_rc_name(rc));
  if (rc) tern__tls->error_state = TERN__ERROR_UNREAD; /* the body looked at it; its caller may too */
  for (int o = 0; o < f->n_out && !rc; o++) {
    if (!result[o] || (result[o] != TERN_NONE && !tern__usable(result[o], f->name, o + 1))) rc = tern__recorded();
    if (!rc && result[o] != TERN_NONE) tern_escape(result[o]);
  }
  tern_scope_end(&mark);
  for (int o = 0; o < f->n_out; o++) out[o] = rc ? NULL : result[o];
  return rc;
}

static bool check(tern_function *f, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  if (TERN__UNLIKELY(!f || n_in != f->n_in || n_out > f->n_out || !out || (n_in && !in))) {
    if (!f)
      tern__fail(TERN_E_ARG, "function_run: the function is NULL");
    else
      tern__fail(TERN_E_ARG, "function \"%s\" takes %d operands and gives %d results; it was called with %d and %d",
                 f->name, f->n_in, f->n_out, n_in, n_out);
    return false;
  }
  for (int i = 0; i < n_in; i++)
    if (in[i] != TERN_NONE && !tern__usable(in[i], f->name, i + 1)) return false;
  return true;
}

/* Host scalars and strided tensors as dense ones. */
static bool make_plain(const tern_function *f, tern_tensor **in) {
  for (int i = 0; i < f->n_in; i++) {
    if (in[i] == TERN_NONE || TERN__LIKELY((in[i]->flags & (TERN__WEAK | TERN__CONTIG)) == TERN__CONTIG)) continue;
    const tern_dtype d = in[i]->dtype == TERN_F64 ? TERN_F32 : (tern_dtype)in[i]->dtype;
    in[i] = in[i]->flags & TERN__WEAK ? tern__solid(in[i], d) : tern_contiguous(in[i]);
    if (!in[i]) return false;
  }
  return true;
}

/* Within a call. */
static tern_rc run_program(tern_function *f, tern__thread *t, tern_tensor *const *in, tern_tensor **out) {
  tern_tensor *given[MAX_OPERANDS]; /* a graph has no inputs for operands that are left out */
  int n = 0;
  program *p = atomic_load_explicit(&f->newest, memory_order_acquire);
  if (!(p && fit(p->in, in, f->n_in)) && !(p = program_for(f, in))) return tern__recorded();
  const uint32_t hooks = t->hooks;
  t->hooks = hooks & TERN__HOOK_TRACE; /* what runs is still to be seen in the trace */
  for (int i = 0; i < f->n_in; i++)
    if (in[i] != TERN_NONE) given[n++] = in[i];
  const bool good = !p->labels || tern__labels_ok(p->labels, given);
  const tern_rc rc = good ? tern__program_run(p->run, given, out) : tern__recorded();
  t->hooks = hooks;
  for (int o = 0; o < f->n_out && !rc; o++)
    if (out[o] != TERN_NONE && !(out[o] = tern__push_on(t, out[o]))) return tern__recorded();
  return rc;
}

/* The body as the tape runs it again. */
static tern_rc body_again(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  tern_function *f = self;
  return f->body(f->self, in, n_in, out, n_out);
}

/* The compiled gradient of a trace, made when first needed; NULL: the body runs again. */
static tern__vjp *vjp_of(tern_function *f, trace *t) {
  pthread_mutex_lock(&f->lock);
  if (!t->asked) {
    t->vjp = tern__vjp_new(f->body, f->self, f->n_in, f->n_out, f->name, t->graph);
    t->asked = true;
  }
  tern__vjp *v = t->vjp;
  pthread_mutex_unlock(&f->lock);
  return v;
}

/* Each variable's memory for that of then[], and back. */
static void swap_memory(tern_tensor *const *variables, tern_tensor *const *then, int n) {
  for (int i = 0; i < n; i++) {
    if (!then[i]) continue;
    tern__storage *storage = variables[i]->storage;
    const int64_t offset = variables[i]->offset;
    variables[i]->storage = then[i]->storage;
    variables[i]->offset = then[i]->offset;
    then[i]->storage = storage;
    then[i]->offset = offset;
  }
}

/* A call that a tape sees: the variables that it assigns are recorded with what they held before. */
static tern_rc run_taped(tern_function *f, tern__thread *t, tern_tensor *const *in, tern_tensor **plain,
                         tern_tensor **out) {
  const tern__random_state random = tern__random_get();
  program *p = atomic_load_explicit(&f->newest, memory_order_acquire);
  if (!(p && fit(p->in, plain, f->n_in)) && !(p = program_for(f, plain))) return tern__recorded();
  const tern__graph *g = p->of->graph;
  const int n = (int)g->n_variables;
  tern_tensor **variables = tern__calloc(2 * (size_t)n + 1, sizeof *variables), **then = variables + n;
  if (!variables) return tern__fail(TERN_E_OOM, "function: out of host memory");
  tern_rc rc = TERN_OK;
  for (int i = 0; i < n && !rc; i++) {
    variables[i] = g->variable[i].variable;
    if (g->variable[i].value == g->node[g->variable[i].node].first_out) continue;
    if (!(then[i] = tern__alias(variables[i], 0))) rc = tern__recorded();
  }
  if (!rc) rc = run_program(f, t, plain, out);
  if (!rc) {
    tern__vjp *vjp = vjp_of(f, p->of);
    tern_tensor *all[MAX_OPERANDS];
    for (int o = 0; o < f->n_out; o++) all[o] = out[o];
    swap_memory(variables, then, n);
    rc = tern__record_call(t, body_again, f, NULL, vjp ? tern__vjp_run : NULL, vjp, random, in, f->n_in, variables, n,
                           all, f->n_out);
    swap_memory(variables, then, n);
  }
  for (int i = 0; i < n; i++)
    if (then[i]) tern__unref(then[i]);
  free(variables);
  return rc;
}

static inline void count_call(tern_function *f) {
  atomic_store_explicit(&f->calls, atomic_load_explicit(&f->calls, memory_order_relaxed) + 1, memory_order_relaxed);
}

tern_rc tern_function_run(tern_function *f, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  tern__thread *t = tern__thread_get();
  if (TERN__UNLIKELY(!t || !check(f, in, n_in, out, n_out))) {
    for (int o = 0; out && o < n_out; o++) out[o] = NULL;
    return t ? tern__recorded() : TERN_E_OOM;
  }
  tern_tensor *plain[MAX_OPERANDS], *result[MAX_OPERANDS];
  tern_rc rc;
  for (int i = 0; i < n_in; i++) plain[i] = in[i];
  if (TERN__UNLIKELY(t->hooks & TERN__HOOK_GRAPH)) {
    rc = run_inline(f, plain, result);
  } else {
    begin_call(f);
    rc = make_plain(f, plain) ? TERN_OK : tern__recorded();
    if (!rc)
      rc = TERN__UNLIKELY(t->hooks & TERN__HOOK_TAPE) ? run_taped(f, t, in, plain, result)
                                                      : run_program(f, t, plain, result);
    end_call(f);
    count_call(f);
  }
  for (int o = 0; o < n_out; o++) out[o] = rc ? NULL : result[o];
  return rc;
}

/* Dense tensors of just the newest program's forms, nobody watching. */
static inline bool ready(const program *p, tern_tensor *const *in, int n) {
  for (int i = 0; i < n; i++) {
    const tern_tensor *x = in[i];
    if (TERN__UNLIKELY(!x || x->live != TERN__LIVE || (x->flags & (TERN__WEAK | TERN__CONTIG)) != TERN__CONTIG ||
                       !fits(&p->in[i], x)))
      return false;
  }
  return true;
}

tern_tensor *tern_call_n(tern_function *f, tern_tensor *const *in, int n) {
  tern_tensor *out[MAX_OPERANDS];
  tern__thread *t = tern__tls;
  if (TERN__LIKELY(t && f && !t->hooks && n == f->n_in && f->n_out == 1)) {
    begin_call(f);
    program *p = atomic_load_explicit(&f->newest, memory_order_acquire);
    const bool fast = TERN__LIKELY(p && ready(p, in, n) && (!p->labels || tern__labels_ok(p->labels, in)));
    const tern_rc rc = fast ? tern__program_run(p->run, in, out) : TERN_OK;
    end_call(f);
    if (fast) {
      count_call(f);
      return rc ? NULL : TERN__LIKELY(out[0] != TERN_NONE) ? tern__push_on(t, out[0]) : out[0];
    }
  }
  return tern_function_run(f, in, n, out, f ? f->n_out : 1) ? NULL : out[0];
}

/* ---- asking ---- */

tern_rc tern_function_get_info(tern_function *f, tern_function_info *info) {
  if (!f || !info) return tern__fail(TERN_E_ARG, "function_get_info: an argument is NULL");
  pthread_mutex_lock(&f->lock);
  *info = (tern_function_info){.traces = f->n_traces,
                               .programs = f->n_compiled,
                               .calls = atomic_load(&f->calls),
                               .nodes = f->stats.nodes,
                               .launches = f->stats.launches,
                               .copies = f->stats.copies,
                               .arena_bytes = f->stats.arena_bytes,
                               .arena_bound = f->stats.arena_bound,
                               .naive_bytes = f->stats.naive_bytes,
                               .trace_ms = f->trace_ms,
                               .compile_ms = f->stats.compile_ms,
                               .kernel_ms = f->stats.kernel_ms};
  pthread_mutex_unlock(&f->lock);
  return TERN_OK;
}

/* f32[s0, 784], or with the sizes of now f32[s0 = 32, 784]: what is variable has a name. */
static void explain_operands(FILE *out, const form *in, const form *now, int n) {
  for (int i = 0; i < n; i++) {
    char size[TERN__DIMS_TEXT];
    fprintf(out, " %s", in[i].device ? tern_dtype_name((tern_dtype)in[i].dtype) : "none");
    for (int d = 0; in[i].device && d < in[i].rank; d++) {
      fprintf(out, "%s%s", d ? ", " : "[", tern__dims_text(size, in[i].shape[d]));
      if (in[i].shape[d] != now[i].shape[d]) fprintf(out, " = %lld", (long long)now[i].shape[d]);
    }
    if (in[i].device) fprintf(out, "%s%s", in[i].rank ? "]" : "[]", in[i].variable ? " (variable)" : "");
  }
}

static void explain_trace(FILE *out, const tern_function *f, const trace *t, int number) {
  fprintf(out, "trace %d: %s\n  operands:", number, t->why);
  explain_operands(out, t->in, t->in, f->n_in);
  for (int k = 0; k < t->n_dims; k++) {
    char size[TERN__DIMS_TEXT];
    fprintf(out, "%s%s%s", k ? ", " : "; ", tern__dims_text(size, tern__dims_mark(k)),
            k + 1 == t->n_dims ? ": any size" : "");
  }
  fprintf(out, "\n  %u nodes, %u variables\n", t->graph->n_nodes, t->graph->n_variables);
}

char *tern_explain(tern_function *f) {
  if (!f) {
    tern__fail(TERN_E_ARG, "explain: the function is NULL");
    return NULL;
  }
  char *text = NULL;
  size_t size = 0;
  FILE *out = open_memstream(&text, &size);
  if (!out) {
    tern__fail(TERN_E_OOM, "explain: out of host memory");
    return NULL;
  }
  pthread_mutex_lock(&f->lock);
  fprintf(out, "function \"%s\": %d traces, %d programs, %lld calls\n", f->name, f->n_traces, f->n_compiled,
          (long long)atomic_load(&f->calls));
  if (f->pins) fprintf(out, "%s", f->pins);
  int number = 0;
  for (const trace *t = f->traces; t; t = t->next) explain_trace(out, f, t, ++number);
  for (const program *p = f->programs; p; p = p->next) {
    const tern__program_stats *s = tern__program_statistics(p->run);
    fprintf(out, "program for");
    explain_operands(out, p->of->in, p->in, f->n_in);
    fprintf(out,
            "\n  %u nodes, %u launches, %u copies, arena %llu bytes (bound %llu, without planning %llu), compiled "
            "in %.3f ms (%.3f in the backends)\n",
            s->nodes, s->launches, s->copies, (unsigned long long)s->arena_bytes, (unsigned long long)s->arena_bound,
            (unsigned long long)s->naive_bytes, s->compile_ms, s->kernel_ms);
    char *steps = tern__program_explain(p->run);
    if (steps) fprintf(out, "%s", steps);
    free(steps);
  }
  pthread_mutex_unlock(&f->lock);
  fclose(out);
  return text;
}

tern_rc tern__function_look(tern_function *f, const char *op, tern_rc (*look)(void *self, const tern__graph *g),
                            void *self) {
  if (!f) return tern__fail(TERN_E_ARG, "%s: the function is NULL", op);
  pthread_mutex_lock(&f->lock);
  const trace *t = f->programs ? f->programs->of : f->traces;
  const tern_rc rc =
      t ? look(self, t->graph)
        : tern__fail(TERN_E_ARG, "%s: function \"%s\" has no graph yet; call it once first", op, f->name);
  pthread_mutex_unlock(&f->lock);
  return rc;
}
