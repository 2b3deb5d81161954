/* The part of a graph that a run needs: from its fetches back to what is fed, with fed values as inputs and the sizes
   of what is fed in place of unknown ones. */
#include "graph/session.h"
#include "graph/sized.h"
#include "base/alloc.h"
#include "device/device.h"
#include "tensor/dtype.h"
#include <stdlib.h>

typedef tern__session_form form;
typedef tern__session_program program;
typedef tern__session_request request;

static tern_rc no_memory(void) { return tern__fail(TERN_E_OOM, "session_run: out of host memory"); }

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
  *n = (need){.g = r->g, .mode = r->trace->mode};
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
  const tern__tracer *trace = r->trace;
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
  const tern__tracer *trace = r->trace;
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
                    tern__mode_name(r->trace, at, name));
}

/* ---- the part of the graph that runs ---- */

/* Moves the last n of count elements to the front. */
static tern_rc to_front(void *array, size_t count, size_t n, size_t size) {
  char *all = array, *last = tern__calloc(n, size);
  if (!last) return no_memory();
  memcpy(last, all + (count - n) * size, n * size);
  memmove(all + n * size, all, (count - n) * size);
  memcpy(all, last, n * size);
  free(last);
  return TERN_OK;
}

static tern_rc add_inputs(tern__graph *g, const request *r, const need *n, program *p) {
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
    p->input[p->n_inputs++] = i;
  }
  return TERN_OK;
}

/* Input nodes for the feeds that are used, in front of the others, as their values are. map: the number that each value
   of the graph has then, or that of what is fed for it. */
static tern_rc put_inputs(tern__graph *g, const request *r, const need *n, program *p, uint32_t *map) {
  const uint32_t n_values = g->n_values;
  tern_rc rc = add_inputs(g, r, n, p);
  const uint32_t k = p->n_inputs;
  if (!rc && k) rc = to_front(g->node, g->n_nodes, k, sizeof *g->node);
  if (!rc && k) rc = to_front(g->value, g->n_values, k, sizeof *g->value);
  if (rc) return rc;
  for (uint32_t i = 0; i < g->n_nodes; i++) g->node[i].first_out = i < k ? i : g->node[i].first_out + k;
  for (uint32_t v = 0; v < g->n_values; v++) g->value[v].node = v < k ? v : g->value[v].node + k;
  for (uint32_t i = 0; i < g->n_variables; i++) g->variable[i].node += k;
  for (uint32_t v = 0; v < n_values; v++) map[v] = v + k;
  for (uint32_t i = 0; i < k; i++) map[r->feed[p->input[i]].value] = i;
  g->n_inputs = 0;
  for (uint32_t i = 0; i < k && !rc; i++) rc = tern__graph_add_input(g, i);
  return rc;
}

/* What variables end with: the last assignment that is performed. The others only are read. */
static void set_variables(tern__graph *g, const need *n, const uint32_t *map, bool *live) {
  for (uint32_t i = 0; i < g->n_variables; i++) g->variable[i].value = g->node[g->variable[i].node].first_out;
  for (uint32_t k = 0; k < n->mode->n_assignments; k++) {
    const tern__assignment *a = &n->mode->assignment[k];
    if (!performed(n, a)) continue;
    g->variable[a->variable].value = map[a->value];
    live[g->variable[a->variable].node] = true;
  }
}

static tern_rc cut(tern__graph *g, const request *r, const need *n, program *p) {
  const uint32_t n_nodes = g->n_nodes, n_values = g->n_values;
  uint32_t *map = tern__calloc(n_values + 1, sizeof *map);
  bool *live = tern__calloc(n_nodes + r->n_feeds + 1, sizeof *live);
  tern_rc rc = map && live ? TERN_OK : no_memory();
  if (!rc) {
    g->n_outputs = 0; /* of a graph that was read from text */
    rc = put_inputs(g, r, n, p, map);
  }
  if (!rc) {
    tern__graph_replace_all(g, map);
    for (uint32_t i = 0; i < g->n_nodes; i++) live[i] = i < p->n_inputs || n->node[i - p->n_inputs];
    set_variables(g, n, map, live);
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

tern_rc tern__session_build(const request *r, program *p) {
  need n;
  sizes s = {.known = 0};
  if (!need_begin(&n, r)) return tern__recorded();
  need_fetches(&n, r->fetch, r->n_fetches);
  tern_rc rc = check_placeholders(r, &n);
  if (!rc && n.mode->n_unknown) rc = learn_sizes(r, &n, &s);
  if (!rc && n.mode->n_unknown) rc = check_sizes(r, &n, &s);
  tern__graph *g = rc ? NULL : tern__graph_sized(r->g, &s.dims);
  if (!rc && !g) rc = tern__recorded();
  if (!rc) rc = cut(g, r, &n, p);
  need_end(&n);
  if (rc) {
    tern__graph_free(g);
    return rc;
  }
  p->run = tern__compile(g, &(tern__compile_opts){.name = r->g->name});
  return p->run ? TERN_OK : tern__recorded();
}
