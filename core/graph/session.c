/* Sessions: a run is compiled once for each set of fetches and form of feeds (session_cut.c takes its part of the
   graph) and kept. */
#include "graph/session.h"
#include "base/alloc.h"
#include "device/device.h"
#include "tensor/dtype.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <tern/ops.h>

enum { MAX_PROGRAMS = 64 };

typedef tern__session_form form;
typedef tern__session_program program;
typedef tern__session_request request;

struct tern_session {
  tern__tracer *trace; /* a reference */
  program *programs;   /* the last used first */
  int n_programs;
  atomic_flag busy;
};

static tern_rc no_memory(void) { return tern__fail(TERN_E_OOM, "session_run: out of host memory"); }

/* ---- life ---- */

tern_session *tern_session_new(tern_graph *graph) {
  tern__thread *t = tern__thread_get();
  if (!t) return NULL;
  tern__tracer *trace = graph ? tern__tracer_of_graph(graph) : tern__mode_default(t);
  if (!trace) return NULL;
  if (!trace->mode) {
    tern__fail(TERN_E_ARG, "session_new: the graph was released");
    return NULL;
  }
  tern_session *s = tern__calloc(1, sizeof *s);
  if (!s) {
    tern__fail(TERN_E_OOM, "session_new: out of host memory");
    return NULL;
  }
  s->trace = trace;
  atomic_flag_clear(&s->busy);
  tern__tracer_ref(trace);
  return s;
}

static void program_free(program *p) {
  tern__program_free(p->run);
  free(p->feed);
  free(p->fetch);
  free(p->input);
  free(p);
}

void tern_session_release(tern_session *s) {
  if (!s) return;
  while (s->programs) {
    program *p = s->programs;
    s->programs = p->next;
    program_free(p);
  }
  tern__tracer_unref(s->trace);
  free(s);
}

/* ---- programs ---- */

static bool same_form(const form *a, const form *b) {
  return a->value == b->value && a->dtype == b->dtype && a->rank == b->rank && a->device == b->device &&
         !memcmp(a->shape, b->shape, a->rank * sizeof *a->shape);
}

static bool serves(const program *p, const request *r) {
  if (p->n_feeds != r->n_feeds || p->n_fetches != r->n_fetches) return false;
  if (memcmp(p->fetch, r->fetch, r->n_fetches * sizeof *r->fetch)) return false;
  for (uint32_t i = 0; i < r->n_feeds; i++)
    if (!same_form(&p->feed[i], &r->feed[i])) return false;
  return true;
}

static void drop_last(tern_session *s) {
  program **last = &s->programs;
  while ((*last)->next) last = &(*last)->next;
  program_free(*last);
  *last = NULL;
  s->n_programs--;
}

static program *make_program(const request *r) {
  program *p = tern__calloc(1, sizeof *p);
  if (!p) return no_memory(), NULL;
  p->n_feeds = r->n_feeds;
  p->n_fetches = r->n_fetches;
  p->feed = tern__calloc(r->n_feeds + 1, sizeof *p->feed);
  p->fetch = tern__calloc(r->n_fetches + 1, sizeof *p->fetch);
  p->input = tern__calloc(r->n_feeds + 1, sizeof *p->input);
  if (!p->feed || !p->fetch || !p->input) {
    no_memory();
  } else {
    memcpy(p->feed, r->feed, r->n_feeds * sizeof *p->feed);
    memcpy(p->fetch, r->fetch, r->n_fetches * sizeof *p->fetch);
    if (!tern__session_build(r, p)) return p;
  }
  program_free(p);
  return NULL;
}

/* The program of this run, first in the list. */
static program *program_for(const request *r) {
  tern_session *s = r->session;
  for (program **at = &s->programs; *at; at = &(*at)->next) {
    program *p = *at;
    if (!serves(p, r)) continue;
    *at = p->next;
    p->next = s->programs;
    return s->programs = p;
  }
  program *p = make_program(r);
  if (!p) return NULL;
  p->next = s->programs;
  s->programs = p;
  if (++s->n_programs > MAX_PROGRAMS) drop_last(s);
  return p;
}

/* ---- feeds and fetches ---- */

static tern_rc bad_feed(const request *r, uint32_t i, const char *what) {
  char name[128], wanted[200], is[200];
  const tern__ir_value *v = &r->g->value[r->feed[i].value];
  const tern_tensor *x = r->given[i];
  return tern__fail(TERN_E_ARG,
                    "session_run: \"%s\" is %s%s%s of shape %s on %s, but is fed with %s of shape %s on %s%s",
                    tern__mode_name(r->trace, r->feed[i].value, name),
                    r->g->node[v->node].kind == TERN__IR_INPUT ? "a placeholder of " : "",
                    tern_dtype_name((tern_dtype)v->dtype), "", tern__mode_shape(r->trace, v->rank, v->shape, wanted),
                    v->device ? v->device->name : "host", tern_dtype_name((tern_dtype)x->dtype),
                    tern__shape_text(is, x->rank, x->shape), x->device ? x->device->name : "host", what);
}

/* The value of the graph that feed i stands for. */
static tern_rc fed_value(request *r, uint32_t i) {
  tern_tensor *p = r->feeds[i].placeholder;
  tern__tracer *trace = r->trace;
  if (!p || p->live != TERN__SYMBOLIC) {
    if (!p || p == TERN_NONE || p->live != TERN__LIVE) {
      tern__unusable(p, "session_run", (int)(2 * i + 1));
      return tern__recorded();
    }
    if (p->flags & TERN__VARIABLE)
      return tern__fail(TERN_E_ARG, "session_run: feed %u replaces variable \"%s\"; tern_assign it instead", i + 1,
                        p->variable->name);
    return tern__fail(TERN_E_ARG, "session_run: feed %u replaces an eager tensor, which is no value of the graph",
                      i + 1);
  }
  if (tern__tracer_of(p) != trace) {
    const tern__tracer *other = tern__tracer_of(p);
    return tern__fail(TERN_E_ARG, "session_run: feed %u replaces a value of %s%s%s, but the session runs graph \"%s\"",
                      i + 1, other->mode ? "graph \"" : "", other->mode ? other->name : "a graph that was released",
                      other->mode ? "\"" : "", r->g->name);
  }
  const uint32_t value = tern__tracer_value(trace, p);
  for (uint32_t k = 0; k < i; k++) {
    char name[128];
    if (r->feed[k].value == value)
      return tern__fail(TERN_E_ARG, "session_run: \"%s\" is fed twice, by feeds %u and %u",
                        tern__mode_name(trace, value, name), k + 1, i + 1);
  }
  r->feed[i].value = value;
  return TERN_OK;
}

/* What is fed, as a dense eager tensor that no assignment changes. */
static tern_rc given_value(request *r, uint32_t i) {
  tern_tensor *x = r->feeds[i].value;
  const tern__ir_value *v = &r->g->value[r->feed[i].value];
  if (x && x->live == TERN__SYMBOLIC)
    return tern__fail(TERN_E_ARG, "session_run: feed %u is symbolic; feed a value, which another run may fetch", i + 1);
  if (!tern__usable(x, "session_run", (int)(2 * i + 2))) return tern__recorded();
  if (x->flags & TERN__WEAK && v->device) {
    x = tern__solid(x, (tern_dtype)v->dtype);
    if (x && x->dtype != v->dtype) x = tern_cast(x, (tern_dtype)v->dtype);
    if (x && x->device != v->device) x = tern_to(x, v->device->name);
  } else if (x->flags & TERN__VARIABLE) {
    x = tern_reshape(x, tern_shape_of(x->rank, x->shape));
  }
  if (x) x = tern_contiguous(x);
  if (!(r->given[i] = x)) return tern__recorded();
  if (x->dtype != v->dtype) return bad_feed(r, i, "; tern_cast it");
  if (x->rank != v->rank) return bad_feed(r, i, "");
  if (x->device != v->device) return bad_feed(r, i, "; move it with tern_to");
  for (int d = 0; d < v->rank; d++) {
    const int64_t size = tern__mode_size(r->trace, v->shape[d]);
    if (size >= 0 && size != x->shape[d]) return bad_feed(r, i, "");
  }
  form *f = &r->feed[i];
  f->dtype = x->dtype;
  f->rank = x->rank;
  f->device = x->device;
  memcpy(f->shape, x->shape, x->rank * sizeof *x->shape);
  return TERN_OK;
}

/* The value that fetch i asks for, or *out where no run is needed: one reference. */
static tern_rc fetched_value(request *r, uint32_t i, tern_tensor *x, tern_tensor **out) {
  tern__tracer *trace = r->trace;
  r->fetch[i] = TERN__IR_NONE;
  *out = NULL;
  if (x == TERN_NONE) {
    *out = TERN_NONE;
    return TERN_OK;
  }
  if (x && x->live == TERN__SYMBOLIC) {
    const tern__tracer *other = tern__tracer_of(x);
    if (other != trace)
      return tern__fail(TERN_E_ARG, "session_run: fetch %u is of %s%s%s, but the session runs graph \"%s\"", i + 1,
                        other->mode ? "graph \"" : "", other->mode ? other->name : "a graph that was released",
                        other->mode ? "\"" : "", r->g->name);
    r->fetch[i] = tern__tracer_value(trace, x);
    return TERN_OK;
  }
  if (!tern__usable(x, "session_run", (int)i + 1)) return tern__recorded();
  if (x->flags & TERN__VARIABLE) {
    for (uint32_t k = 0; k < trace->n_current; k++)
      if (r->g->variable[k].variable == x) {
        r->fetch[i] = tern__tracer_value(trace, trace->current[k]);
        return TERN_OK;
      }
    x = tern_reshape(x, tern_shape_of(x->rank, x->shape)); /* the graph does not have it */
    if (!x) return tern__recorded();
  }
  *out = tern__ref(x);
  return TERN_OK;
}

/* ---- running ---- */

static tern_rc run_program(const request *r, tern_tensor **out) {
  program *p = program_for(r);
  if (!p) return tern__recorded();
  tern_tensor **in = tern__calloc(p->n_inputs + r->n_fetches + 1, sizeof *in), **result = in + p->n_inputs;
  if (!in) return no_memory();
  for (uint32_t i = 0; i < p->n_inputs; i++) in[i] = r->given[p->input[i]];
  const tern_rc rc = tern__program_run(p->run, in, result);
  for (uint32_t i = 0, at = 0; i < r->n_fetches && !rc; i++)
    if (r->fetch[i] != TERN__IR_NONE) out[i] = result[at++];
  free(in);
  return rc;
}

/* out: one reference each. */
static tern_rc prepare_and_run(request *r, tern_tensor *const *fetches, tern_tensor **out) {
  tern_rc rc = TERN_OK;
  bool any = false;
  for (uint32_t i = 0; i < r->n_feeds && !rc; i++) rc = fed_value(r, i);
  for (uint32_t i = 0; i < r->n_feeds && !rc; i++) rc = given_value(r, i);
  for (uint32_t i = 0; i < r->n_fetches && !rc; i++) {
    rc = fetched_value(r, i, fetches[i], &out[i]);
    any = any || r->fetch[i] != TERN__IR_NONE;
  }
  if (!rc && any) rc = run_program(r, out);
  for (uint32_t i = 0; i < r->n_fetches && rc; i++) {
    if (out[i] && out[i] != TERN_NONE) tern__unref(out[i]);
    out[i] = NULL;
  }
  return rc;
}

static tern_rc run_request(tern__thread *t, request *r, tern_tensor *const *fetches, tern_tensor **out) {
  const size_t forms = (r->n_feeds + 1) * sizeof *r->feed, tensors = (r->n_feeds + 1) * sizeof *r->given;
  char *memory = tern__calloc(1, forms + tensors + (r->n_fetches + 1) * sizeof *r->fetch);
  if (!memory) return no_memory();
  r->feed = (form *)(void *)memory;
  r->given = (tern_tensor **)(void *)(memory + forms);
  r->fetch = (uint32_t *)(void *)(memory + forms + tensors);
  const uint32_t hooks = t->hooks; /* what happens here is no part of any graph, nor on any tape */
  t->hooks = hooks & TERN__HOOK_TRACE; /* but in the trace */
  tern_scope_mark mark = tern_scope_begin();
  tern_rc rc = prepare_and_run(r, fetches, out);
  tern_scope_end(&mark);
  t->hooks = hooks;
  for (uint32_t i = 0; i < r->n_fetches && !rc; i++)
    if (out[i] != TERN_NONE && !(out[i] = tern__push(out[i]))) rc = tern__recorded();
  free(memory);
  return rc;
}

static tern_rc bad_call(const tern_session *s, const tern__thread *t) {
  if (!s) return tern__fail(TERN_E_ARG, "session_run: the session is NULL");
  if (!s->trace->mode) return tern__fail(TERN_E_ARG, "session_run: the session's graph was released");
  if (t->hooks & TERN__HOOK_GRAPH && t->trace->kind != TERN__TRACE_MODE)
    return tern__fail(TERN_E_ARG, "session_run: \"%s\" is being traced; run sessions outside of functions",
                      t->trace->name);
  return TERN_OK;
}

tern_rc tern_session_run(tern_session *s, const tern_feed *feeds, int n_feeds, tern_tensor *const *fetches,
                         int n_fetches, tern_tensor **out) {
  tern__thread *t = tern__thread_get();
  for (int i = 0; out && i < n_fetches; i++) out[i] = NULL;
  if (!t) return TERN_E_OOM;
  tern_rc rc = bad_call(s, t);
  if (rc) return rc;
  if (n_feeds < 0 || n_fetches < 0 || (n_feeds && !feeds) || (n_fetches && (!fetches || !out)))
    return tern__fail(TERN_E_ARG, "session_run: %d feeds and %d fetches; a list that is not empty must not be NULL",
                      n_feeds, n_fetches);
  if (atomic_flag_test_and_set(&s->busy))
    return tern__fail(TERN_E_ARG, "session_run: another thread is inside this session; give each thread its own");
  request r = {.session = s,
               .trace = s->trace,
               .g = s->trace->g,
               .feeds = feeds,
               .n_feeds = (uint32_t)n_feeds,
               .n_fetches = (uint32_t)n_fetches};
  rc = run_request(t, &r, fetches, out);
  atomic_flag_clear(&s->busy);
  return rc;
}
