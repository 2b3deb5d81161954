/* Sessions: a run takes from the graph what its fetches need, with fed values as inputs and the sizes of what is fed in
   place of unknown ones, compiles that once for each set of fetches and form of feeds, and runs it. */
#include "base/alloc.h"
#include "device/device.h"
#include "graph/compile.h"
#include "graph/mode.h"
#include "tensor/dtype.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <tern/ops.h>

enum { MAX_PROGRAMS = 64 };

typedef struct form { /* a fed value */
  uint32_t value;
  uint8_t dtype, rank;
  tern__device *device;
  int64_t shape[TERN_MAX_RANK];
} form;

typedef struct program {
  struct program *next;
  uint32_t n_feeds, n_fetches, n_inputs;
  form *feed;
  uint32_t *fetch; /* values; TERN__IR_NONE: one that needs no run */
  uint32_t *input; /* which feed is input i */
  tern__program *run;
} program;

struct tern_session {
  tern__tracer *trace; /* a reference */
  program *programs;   /* the last used first */
  int n_programs;
  atomic_flag busy;
};

/* One run while it is prepared. */
typedef struct request {
  tern_session *session;
  const tern__graph *g;
  const tern_feed *feeds;
  uint32_t n_feeds, n_fetches;
  form *feed;
  uint32_t *fetch;
  tern_tensor **given; /* what is fed, plain */
} request;

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

/* ---- what is needed ---- */

typedef struct need {
  const tern__graph *g;
  const tern__mode *mode;
  uint32_t *feed_of; /* of each value: 1 + the feed that stands for it; 0: it is computed */
  bool *node;        /* that must run */
  bool *feed;        /* that is used */
} need;

static void need_value(need *n, uint32_t value) {
  if (value == TERN__IR_NONE) return;
  if (n->feed_of[value])
    n->feed[n->feed_of[value] - 1] = true;
  else
    n->node[n->g->value[value].node] = true;
}

static bool performed(const need *n, const tern__assignment *a) {
  return !n->feed_of[a->value] && n->node[n->g->value[a->value].node];
}

/* Whether the value is made by an update whose learning rate is drawn in this run: an optimiser's step is whole. */
static bool of_a_step(const need *n, uint32_t value) {
  for (int up = 0; up < 2; up++) { /* the assignment's node, the update's */
    const tern__ir_node *node = &n->g->node[n->g->value[value].node];
    for (uint32_t i = 0; i < node->n_in; i++) {
      const uint32_t from = node->in[i];
      if (from == TERN__IR_NONE || n->feed_of[from]) continue;
      const uint32_t maker = n->g->value[from].node;
      if (n->node[maker] && n->g->node[maker].kind == TERN__IR_SOURCE) return true;
    }
    if (node->n_in == 0 || node->in[0] == TERN__IR_NONE) return false;
    value = node->in[0];
  }
  return false;
}

/* Operands come before their users: one sweep from the end follows them all. */
static void sweep(need *n) {
  for (uint32_t i = n->g->n_nodes; i-- > 0;) {
    const tern__ir_node *node = &n->g->node[i];
    for (uint32_t k = 0; n->node[i] && k < node->n_in; k++) need_value(n, node->in[k]);
  }
}

static void need_fetches(need *n, const uint32_t *fetch, uint32_t n_fetches) {
  for (uint32_t i = 0; i < n_fetches; i++) need_value(n, fetch[i]);
  bool more = true;
  while (more) {
    sweep(n);
    more = false;
    for (uint32_t k = 0; k < n->mode->n_assignments; k++) {
      const tern__assignment *a = &n->mode->assignment[k];
      if (n->feed_of[a->value] || performed(n, a) || !of_a_step(n, a->value)) continue;
      need_value(n, a->value);
      more = true;
    }
  }
  for (uint32_t i = 0; i < n->g->n_nodes; i++) { /* a print runs when its operand does; texts can have them */
    const tern__ir_node *node = &n->g->node[i];
    if (node->kind == TERN__IR_PRINT && !n->feed_of[node->in[0]] && n->node[n->g->value[node->in[0]].node])
      n->node[i] = true;
  }
}

static void need_end(need *n) {
  free(n->feed_of);
  free(n->node);
  free(n->feed);
}

static bool need_begin(need *n, const request *r) {
  *n = (need){.g = r->g, .mode = r->session->trace->mode};
  n->feed_of = tern__calloc(r->g->n_values + 1, sizeof *n->feed_of);
  n->node = tern__calloc(r->g->n_nodes + 1, sizeof *n->node);
  n->feed = tern__calloc(r->n_feeds + 1, sizeof *n->feed);
  if (!n->feed_of || !n->node || !n->feed) return no_memory(), need_end(n), false;
  for (uint32_t i = 0; i < r->n_feeds; i++) n->feed_of[r->feed[i].value] = i + 1;
  return true;
}

/* The first fetch that needs a node. */
static uint32_t fetch_needing(const request *r, uint32_t node) {
  for (uint32_t i = 0; i < r->n_fetches; i++) {
    need n;
    if (!need_begin(&n, r)) return i;
    need_fetches(&n, &r->fetch[i], 1);
    const bool found = n.node[node];
    need_end(&n);
    if (found) return i;
  }
  return 0;
}

/* A placeholder that must be fed and is not. */
static tern_rc not_fed(const request *r, uint32_t placeholder, const char *why) {
  char name[128], fetch[128] = "", shape[200];
  const tern__tracer *trace = r->session->trace;
  const tern__ir_value *v = &r->g->value[placeholder];
  const uint32_t i = fetch_needing(r, v->node);
  if (r->fetch[i] != TERN__IR_NONE) tern__mode_name(trace, r->fetch[i], fetch);
  return tern__fail(TERN_E_ARG, "session_run: placeholder \"%s\" (%s, %s) is not fed, but fetch %u (\"%s\") needs %s",
                    tern__mode_name(trace, placeholder, name), tern__mode_shape(trace, v->rank, v->shape, shape),
                    tern_dtype_name((tern_dtype)v->dtype), i + 1, fetch, why);
}

/* ---- unknown sizes ---- */

typedef struct sizes {
  tern__dims dims;
  uint32_t known;                /* bits */
  uint32_t from[TERN__MAX_DIMS]; /* the feed that said it */
} sizes;

/* What size number k must be for `wanted` to be `size`, where nothing else in it is unknown; -1: cannot be told. */
static int64_t solve(const sizes *s, int k, int64_t wanted, int64_t size) {
  tern__dims d = s->dims;
  int64_t at[3];
  for (int x = 0; x < 3; x++) {
    d.size[k] = x;
    at[x] = tern__dims_eval(&d, wanted, NULL);
  }
  const int64_t step = at[1] - at[0];
  if (step == 0 || at[2] - at[1] != step || (size - at[0]) % step) return -1;
  return (size - at[0]) / step;
}

static tern_rc sizes_differ(const request *r, const sizes *s, uint32_t feed, int axis, int k) {
  char name[128], other[128], a[200], b[200];
  const tern__tracer *trace = r->session->trace;
  const form *f = &r->feed[feed], *g = &r->feed[s->from[k]];
  return tern__fail(
      TERN_E_ARG,
      "session_run: \"%s\" is fed with shape %s and \"%s\" with %s, but size %d of the first must agree with "
      "the second: both stand for the same unknown size (%lld); give one of the placeholders another "
      "number (-2, -3, ..)",
      tern__mode_name(trace, f->value, name), tern__shape_text(a, f->rank, f->shape),
      tern__mode_name(trace, g->value, other), tern__shape_text(b, g->rank, g->shape), axis,
      (long long)trace->mode->unknown[k].size);
}

/* What one feed says about unknown sizes. */
static tern_rc learn(const request *r, sizes *s, uint32_t feed) {
  const form *f = &r->feed[feed];
  const tern__ir_value *v = &r->g->value[f->value];
  for (int d = 0; d < v->rank; d++) {
    uint32_t used;
    const int64_t now = tern__dims_eval(&s->dims, v->shape[d], &used);
    const uint32_t open = used & ~s->known;
    if (!used) continue;
    if (!open) {
      if (now != f->shape[d]) return sizes_differ(r, s, feed, d, __builtin_ctz(used));
      continue;
    }
    const int k = __builtin_ctz(open);
    const int64_t size = open == 1u << k ? solve(s, k, v->shape[d], f->shape[d]) : -1;
    if (size < 0) continue;
    s->dims.size[k] = size;
    s->known |= 1u << k;
    s->from[k] = feed;
  }
  return TERN_OK;
}

/* Feeds that are used first: what the others say counts only where nobody else knows. */
static tern_rc learn_sizes(const request *r, const need *n, sizes *s) {
  tern_rc rc = TERN_OK;
  s->dims.n = n->mode->n_unknown;
  for (int round = 0; round < 2 && !rc; round++) /* the second checks what the first could not solve */
    for (uint32_t i = 0; i < r->n_feeds && !rc; i++)
      if (n->feed[i]) rc = learn(r, s, i);
  const uint32_t known = s->known;
  for (uint32_t i = 0; i < r->n_feeds && !rc && known != (1u << s->dims.n) - 1; i++) {
    sizes copy = *s;
    if (!n->feed[i] && !learn(r, &copy, i)) *s = copy;
  }
  return rc;
}

static uint32_t unknown_in(const sizes *s, int64_t size) {
  uint32_t used = 0;
  tern__dims_eval(&s->dims, size, &used);
  return used & ~s->known;
}

/* Every size that the run needs is known; else the error names the placeholder that has it. */
static tern_rc check_sizes(const request *r, const need *n, const sizes *s) {
  uint32_t missing = 0, at = 0;
  for (uint32_t i = 0; i < r->g->n_nodes && !missing; i++) {
    const tern__ir_node *node = &r->g->node[i];
    if (!n->node[i]) continue;
    for (uint32_t a = 0; a < node->n_attr; a++) missing |= unknown_in(s, node->attr[a].i);
    for (uint32_t o = 0; o < node->n_out; o++) {
      const tern__ir_value *v = &r->g->value[node->first_out + o];
      for (int d = 0; d < v->rank; d++) missing |= unknown_in(s, v->shape[d]);
    }
    at = node->first_out;
  }
  if (!missing) return TERN_OK;
  for (uint32_t i = 0; i < r->g->n_inputs; i++) {
    const tern__ir_value *v = &r->g->value[r->g->input[i]];
    for (int d = 0; d < v->rank; d++)
      if (v->shape[d] == tern__dims_mark(__builtin_ctz(missing))) return not_fed(r, r->g->input[i], "its size");
  }
  char name[128];
  return tern__fail(TERN_E_ARG, "session_run: a size of \"%s\" is not known; feed the placeholder that it comes from",
                    tern__mode_name(r->session->trace, at, name));
}

static int64_t map_size(void *context, int64_t size) {
  return tern__dims_eval(&((const sizes *)context)->dims, size, NULL);
}

static void map_scalars(tern__graph *g, const tern__dims *dims) {
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    tern__ir_node *n = &g->node[i];
    if (n->kind == TERN__IR_SCALAR && g->value[n->first_out].dtype == TERN_F64)
      n->attr[0].f = tern__dims_eval_scalar(dims, n->attr[0].f);
    for (int b = 0; b < 2; b++)
      if (n->body[b]) map_scalars(n->body[b], dims);
  }
}

/* ---- the part of the graph that runs ---- */

/* Input nodes for the feeds that are used, in front of the others. map: what stands for each value. */
static tern_rc put_inputs(tern__graph *g, const request *r, const need *n, program *p, uint32_t *map) {
  const uint32_t old = g->n_nodes;
  g->n_inputs = 0;
  for (uint32_t i = 0; i < r->n_feeds; i++) {
    if (!n->feed[i]) continue;
    const form *f = &r->feed[i];
    const tern_word number = {.u = p->n_inputs};
    const uint32_t node = tern__graph_add(g, TERN__IR_INPUT, NULL, NULL, 0, &number, 1, 1);
    if (node == TERN__IR_NONE) return tern__recorded();
    tern__ir_value *v = &g->value[g->node[node].first_out];
    v->dtype = f->dtype;
    v->rank = f->rank;
    v->device = g->node[node].device = f->device;
    memcpy(v->shape, f->shape, f->rank * sizeof *v->shape);
    map[f->value] = g->node[node].first_out;
    p->input[p->n_inputs++] = i;
    if (tern__graph_add_input(g, g->node[node].first_out)) return tern__recorded();
  }
  const uint32_t k = p->n_inputs;
  tern__ir_node *all = k ? tern__calloc(g->n_nodes, sizeof *all) : NULL;
  if (!k) return TERN_OK;
  if (!all) return no_memory();
  memcpy(all, g->node + old, k * sizeof *all);
  memcpy(all + k, g->node, old * sizeof *all);
  memcpy(g->node, all, g->n_nodes * sizeof *all);
  free(all);
  for (uint32_t v = 0; v < g->n_values; v++) g->value[v].node += g->value[v].node < old ? k : 0u - old;
  for (uint32_t i = 0; i < g->n_variables; i++) g->variable[i].node += k;
  return TERN_OK;
}

/* What variables end with: the last assignment that is performed. The others only are read. */
static void set_variables(tern__graph *g, const need *n, bool *live) {
  for (uint32_t i = 0; i < g->n_variables; i++) g->variable[i].value = g->node[g->variable[i].node].first_out;
  for (uint32_t k = 0; k < n->mode->n_assignments; k++) {
    const tern__assignment *a = &n->mode->assignment[k];
    if (!performed(n, a)) continue;
    g->variable[a->variable].value = a->value;
    live[g->variable[a->variable].node] = true;
  }
}

static tern_rc cut(tern__graph *g, const request *r, const need *n, program *p) {
  const uint32_t old = g->n_nodes, n_values = g->n_values;
  uint32_t *map = tern__calloc(n_values + r->n_feeds + 1, sizeof *map);
  bool *live = tern__calloc(old + r->n_feeds + 1, sizeof *live);
  tern_rc rc = map && live ? TERN_OK : no_memory();
  if (!rc) {
    for (uint32_t v = 0; v < n_values + r->n_feeds; v++) map[v] = v;
    rc = put_inputs(g, r, n, p, map);
  }
  if (!rc) {
    const uint32_t k = p->n_inputs;
    for (uint32_t i = 0; i < k; i++) live[i] = true;
    memcpy(live + k, n->node, old * sizeof *live);
    tern__graph_replace_all(g, map);
    set_variables(g, n, live);
    g->n_outputs = 0;
    for (uint32_t i = 0; i < r->n_fetches && !rc; i++)
      if (r->fetch[i] != TERN__IR_NONE) rc = tern__graph_add_output(g, map[r->fetch[i]]);
    for (uint32_t i = 0; i < g->n_nodes; i++)
      if (!live[i]) g->node[i].kind = TERN__IR_DEAD;
  }
  free(map);
  free(live);
  return rc ? rc : tern__graph_compact(g);
}

static tern_rc check_placeholders(const request *r, const need *n) {
  for (uint32_t i = 0; i < r->g->n_nodes; i++)
    if (n->node[i] && r->g->node[i].kind == TERN__IR_INPUT) return not_fed(r, r->g->node[i].first_out, "it");
  return TERN_OK;
}

static tern_rc build(const request *r, program *p) {
  need n;
  sizes s = {.known = 0};
  if (!need_begin(&n, r)) return tern__recorded();
  need_fetches(&n, r->fetch, r->n_fetches);
  tern_rc rc = check_placeholders(r, &n);
  if (!rc && n.mode->n_unknown) rc = learn_sizes(r, &n, &s);
  if (!rc && n.mode->n_unknown) rc = check_sizes(r, &n, &s);
  tern__graph *g = rc ? NULL : tern__graph_clone(r->g, s.dims.n ? map_size : NULL, &s);
  if (!rc && !g) rc = tern__recorded();
  if (!rc) rc = cut(g, r, &n, p);
  need_end(&n);
  if (rc) {
    tern__graph_free(g);
    return rc;
  }
  if (s.dims.n) map_scalars(g, &s.dims);
  p->run = tern__compile(g, &(tern__compile_opts){.name = r->g->name});
  return p->run ? TERN_OK : tern__recorded();
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
    if (!build(r, p)) return p;
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
  return tern__fail(
      TERN_E_ARG, "session_run: \"%s\" is %s%s%s of shape %s on %s, but is fed with %s of shape %s on %s%s",
      tern__mode_name(r->session->trace, r->feed[i].value, name),
      r->g->node[v->node].kind == TERN__IR_INPUT ? "a placeholder of " : "", tern_dtype_name((tern_dtype)v->dtype), "",
      tern__mode_shape(r->session->trace, v->rank, v->shape, wanted), v->device ? v->device->name : "host",
      tern_dtype_name((tern_dtype)x->dtype), tern__shape_text(is, x->rank, x->shape),
      x->device ? x->device->name : "host", what);
}

/* The value of the graph that feed i stands for. */
static tern_rc fed_value(request *r, uint32_t i) {
  tern_tensor *p = r->feeds[i].placeholder;
  tern__tracer *trace = r->session->trace;
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
    const int64_t size = tern__mode_size(r->session->trace, v->shape[d]);
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
  tern__tracer *trace = r->session->trace;
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
  t->hooks = 0;
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
  request r = {
      .session = s, .g = s->trace->g, .feeds = feeds, .n_feeds = (uint32_t)n_feeds, .n_fetches = (uint32_t)n_fetches};
  rc = run_request(t, &r, fetches, out);
  atomic_flag_clear(&s->busy);
  return rc;
}
