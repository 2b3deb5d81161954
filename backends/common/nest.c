/* nest_build: which node goes to which nest. Nodes are taken in order; a REDUCE joins the first nest, not before those
   it needs, that has its reduced dims and its full size; an OUT joins one whose full or outer size it has. Whatever
   else a nest needs it recomputes from memory. nest_pass.c then orders each nest. Design: a nest is keyed by (full
   size, reduced dims). */
#include "nest_internal.h"

#include <stdlib.h>
#include <string.h>

struct nest_block {
  nest_block *next;
};

typedef struct whole_plan {
  nest_plan plan;
  nest_arena arena;
} whole_plan;

void *nest__alloc(nest_arena *a, size_t count, size_t size) {
  if (a->failed) return NULL;
  nest_block *b = size && count > (SIZE_MAX / 2) / size ? NULL : calloc(1, sizeof *b + 16 + count * size);
  if (!b) {
    a->failed = true;
    return NULL;
  }
  b->next = a->head;
  a->head = b;
  return (char *)b + 16; /* keeps the alignment of malloc */
}

void nest__arena_free(nest_arena *a) {
  for (nest_block *b = a->head, *next; b; b = next) {
    next = b->next;
    free(b);
  }
  a->head = NULL;
}

void nest_free(nest_plan *plan) {
  if (!plan) return;
  whole_plan *w = (whole_plan *)plan;
  nest__arena_free(&w->arena);
  free(w);
}

static void *copy_of(nest_arena *a, const void *from, size_t count, size_t size) {
  void *to = nest__alloc(a, count, size);
  if (to && count) memcpy(to, from, count * size);
  return to;
}

/* A region's edge and attribute arrays have no length: it is where the last node's part ends. */
static tern_region *copy_region(nest_arena *a, const tern_region *r) {
  tern_region *c = nest__alloc(a, 1, sizeof *c);
  if (!c) return NULL;
  *c = (tern_region){.struct_size = sizeof *c,
                     .flags = r->flags,
                     .n_nodes = r->n_nodes,
                     .n_values = r->n_values,
                     .n_args = r->n_args,
                     .n_words = r->n_words,
                     .n_hint_attrs = r->n_hint_attrs,
                     .n_spans = r->n_spans};
  memcpy(c->key, r->key, sizeof c->key);
  size_t edges = 0, attrs = 0;
  for (uint32_t i = 0; i < r->n_nodes; i++) {
    const tern_node *n = &r->nodes[i];
    const size_t in = (size_t)n->in + n->n_in, out = (size_t)n->out + n->n_out, attr = (size_t)n->attr + n->n_attr;
    if (n->n_in && in > edges) edges = in;
    if (n->n_out && out > edges) edges = out;
    if (n->n_attr && attr > attrs) attrs = attr;
  }
  c->nodes = copy_of(a, r->nodes, r->n_nodes, sizeof *r->nodes);
  c->values = copy_of(a, r->values, r->n_values, sizeof *r->values);
  c->edges = copy_of(a, r->edges, edges, sizeof *r->edges);
  c->attrs = copy_of(a, r->attrs, attrs, sizeof *r->attrs);
  c->hint = r->hint ? copy_of(a, r->hint, strlen(r->hint) + 1, 1) : NULL;
  c->hint_attrs = copy_of(a, r->hint_attrs, r->hint_attrs ? r->n_hint_attrs : 0, sizeof *r->hint_attrs);
  c->spans = copy_of(a, r->spans, r->spans ? r->n_spans : 0, sizeof *r->spans);
  return a->failed ? NULL : c;
}

static tern_rc out_of_memory(nest_build_state *b) {
  return nest__fail(b->message, b->message_size, TERN_E_OOM, "out of host memory while analysing a region of %u nodes",
                    b->r->n_nodes);
}

static tern_rc check_node_values(nest_build_state *b, uint32_t n, const uint8_t *known) {
  const tern_region *r = b->r;
  const tern_node *node = &r->nodes[n];
  for (uint32_t i = 0; i < node->n_in; i++) {
    const uint32_t v = r->edges[node->in + i];
    if (v >= r->n_values)
      return nest__fail(b->message, b->message_size, TERN_E_ARG, "node %u reads a value that does not exist", n);
    const uint32_t base = r->values[v].kind == TERN_V_VIEW ? r->values[v].slot : v;
    if (!known[base])
      return nest__fail(b->message, b->message_size, TERN_E_ARG, "node %u reads value %u before it is computed", n, v);
  }
  for (uint32_t i = 0; i < node->n_out; i++) {
    const uint32_t v = r->edges[node->out + i];
    if (v >= r->n_values || known[v] || (r->values[v].kind != TERN_V_OUT && r->values[v].kind != TERN_V_TEMP))
      return nest__fail(b->message, b->message_size, TERN_E_ARG, "node %u writes a value that it may not", n);
  }
  return TERN_OK;
}

static tern_rc check_aliases(const nest_build_state *b) {
  const tern_region *r = b->r;
  for (uint32_t i = 0; i < r->n_values; i++) {
    const tern_value *o = &r->values[i];
    if (o->kind != TERN_V_OUT) continue;
    if (o->alias >= (int64_t)r->n_args)
      return nest__fail(b->message, b->message_size, TERN_E_ARG, "value %u aliases no argument", i);
    for (uint32_t k = 0; k < r->n_values; k++) {
      const tern_value *w = &r->values[k];
      const bool both_out =
          w->kind == TERN_V_OUT && k != i && (w->slot == o->slot || (o->alias >= 0 && w->alias == o->alias));
      if (both_out || (w->kind == TERN_V_IN && w->slot == o->slot))
        return nest__fail(b->message, b->message_size, TERN_E_ARG, "values %u and %u claim the same argument", i, k);
    }
  }
  return TERN_OK;
}

static tern_rc check_region(nest_build_state *b) {
  const tern_region *r = b->r;
  uint8_t *known = nest__alloc(b->arena, r->n_values, 1);
  if (!known) return out_of_memory(b);
  if (r->n_nodes > 30000)
    return nest__fail(b->message, b->message_size, TERN_E_UNSUPPORTED, "a region of %u nodes (at most 30000)",
                      r->n_nodes);
  for (uint32_t v = 0; v < r->n_values; v++) {
    const tern_rc rc = nest__check_value(r, v, b->message, b->message_size);
    if (rc) return rc;
    known[v] = r->values[v].kind != TERN_V_OUT && r->values[v].kind != TERN_V_TEMP && r->values[v].kind != TERN_V_VIEW;
  }
  for (uint32_t n = 0; n < r->n_nodes; n++) {
    tern_rc rc = check_node_values(b, n, known);
    if (!rc) rc = nest_check_node(r, n, b->message, b->message_size);
    if (rc) return rc;
    const nest_prim *p = nest_prim_of(r->nodes[n].op);
    if (p->kind != TERN_K_MAP && p->kind != TERN_K_REDUCE)
      return nest__fail(b->message, b->message_size, TERN_E_UNSUPPORTED, "%s (node %u) is no part of a loop nest",
                        p->name, n);
    b->producer[nest_out(r, n)] = n;
    known[nest_out(r, n)] = 1;
  }
  for (uint32_t v = 0; v < r->n_values; v++)
    if (r->values[v].kind == TERN_V_OUT && !known[v])
      return nest__fail(b->message, b->message_size, TERN_E_ARG, "output value %u is never computed", v);
  return check_aliases(b);
}

static uint32_t find_root(uint32_t *parent, uint32_t v) {
  while (parent[v] != v) v = parent[v] = parent[parent[v]];
  return v;
}

static void find_components(nest_build_state *b) {
  const tern_region *r = b->r;
  for (uint32_t v = 0; v < r->n_values; v++) b->parent[v] = v;
  for (uint32_t n = 0; n < r->n_nodes; n++)
    for (uint32_t i = 0; i < r->nodes[n].n_in; i++)
      if (r->values[nest_in(r, n, i)].rank)
        b->parent[find_root(b->parent, nest_in(r, n, i))] = find_root(b->parent, nest_out(r, n));
}

static bool same_size(const int64_t *a, const int64_t *b, uint32_t rank) { return !memcmp(a, b, rank * sizeof *a); }

/* Has v the outer size of a nest: 1 in its reduced dims, the nest's size elsewhere? */
static bool is_outer(const nest_proto *p, const tern_value *v) {
  for (uint32_t d = 0; d < p->rank; d++)
    if (v->shape[d] != (p->red >> d & 1 ? 1 : p->size[d])) return false;
  return true;
}

static uint32_t new_proto(nest_build_state *b, const tern_value *full, uint32_t red, uint32_t root) {
  nest_proto *p = &b->proto[b->n_proto];
  *p = (nest_proto){.rank = full->rank, .red = red, .root = root, .copy_of = NEST_NONE};
  memcpy(p->size, full->shape, full->rank * sizeof *p->size);
  return b->n_proto++;
}

static uint32_t claim(nest_build_state *b, uint32_t n, uint32_t from) {
  const tern_region *r = b->r;
  const uint32_t out = nest_out(r, n), root = find_root(b->parent, out);
  const bool reduce = nest__is_reduce(r, n);
  const tern_value *full = &r->values[reduce ? nest_in(r, n, 0) : out];
  const uint32_t red = reduce ? (uint32_t)nest_attr(r, n, 0) : 0;
  for (uint32_t k = from; k < b->n_proto; k++) {
    nest_proto *p = &b->proto[k];
    if (p->root != root || p->rank != full->rank) continue;
    const bool same = same_size(p->size, full->shape, full->rank);
    if (reduce && same && (p->red == red || !p->red)) {
      p->red = red;
      return k;
    }
    if (!reduce && (same || (p->red && is_outer(p, full)))) return k;
  }
  return new_proto(b, full, red, root);
}

/* First nest in which node n can be computed, all its inputs being in reach */
static uint32_t stage_of(const nest_build_state *b, uint32_t n) {
  uint32_t stage = 0;
  for (uint32_t i = 0; i < b->r->nodes[n].n_in; i++) {
    const uint32_t v = nest_in(b->r, n, i);
    const tern_value *val = &b->r->values[v];
    const bool view = val->kind == TERN_V_VIEW && b->home[val->slot] != NEST_NONE;
    const uint32_t s = view ? b->home[val->slot] + 1 : b->stage[v];
    if (s > stage) stage = s;
  }
  return stage;
}

static void assign(nest_build_state *b) {
  const tern_region *r = b->r;
  for (uint32_t v = 0; v < r->n_values; v++) {
    const tern_value *val = &r->values[v];
    if (val->kind == TERN_V_OUT) b->target[v] = 1;
  }
  for (uint32_t n = 0; n < r->n_nodes; n++)
    for (uint32_t i = 0; i < r->nodes[n].n_in; i++) {
      const tern_value *val = &r->values[nest_in(r, n, i)];
      if (val->kind == TERN_V_VIEW && b->producer[val->slot] != NEST_NONE) b->target[val->slot] = 1;
    }
  for (uint32_t n = 0; n < r->n_nodes; n++) {
    const uint32_t out = nest_out(r, n), stage = stage_of(b, n);
    const bool reduce = nest__is_reduce(r, n);
    b->stage[out] = stage;
    if (!reduce && !b->target[out]) continue;
    b->home[out] = claim(b, n, stage);
    if (reduce) b->stage[out] = b->home[out];
  }
}

bool nest__computed(const nest_build_state *b, uint32_t j, uint32_t v) {
  return b->producer[v] != NEST_NONE && (b->home[v] == NEST_NONE || b->home[v] >= j) && b->proto[j].copy_of != v;
}

uint32_t nest__arg_of(const nest_build_state *b, uint32_t v) {
  const tern_value *val = &b->r->values[v];
  const uint32_t base = val->kind == TERN_V_VIEW ? val->slot : v;
  if (b->ws[base] != NEST_NONE && b->r->values[base].kind != TERN_V_IN) return NEST_NONE;
  const uint32_t kind = b->r->values[base].kind;
  return kind == TERN_V_IN || kind == TERN_V_OUT ? b->r->values[base].slot : NEST_NONE;
}

static void need_slot(nest_build_state *b, uint32_t v) {
  if (b->ws[v] == NEST_NONE) b->ws[v] = b->n_ws++;
}

/* The nodes of nest j: everything that its reductions and targets need and that is not yet in memory */
static bool close_nest(nest_build_state *b, uint32_t j, uint8_t *mark) {
  const tern_region *r = b->r;
  memset(mark, 0, r->n_nodes + 1);
  nest_proto *p = &b->proto[j];
  for (uint32_t n = r->n_nodes; n-- > 0;) {
    if (b->home[nest_out(r, n)] == j) mark[n] = 1;
    if (!mark[n]) continue;
    p->n_node++;
    for (uint32_t i = 0; i < r->nodes[n].n_in; i++) {
      const uint32_t v = nest_in(r, n, i);
      const uint32_t base = r->values[v].kind == TERN_V_VIEW ? r->values[v].slot : v;
      if (base == v && nest__computed(b, j, v))
        mark[b->producer[v]] = 1;
      else if (b->producer[base] != NEST_NONE && r->values[base].kind == TERN_V_TEMP)
        need_slot(b, base);
    }
  }
  p->node = nest__alloc(b->arena, p->n_node, sizeof *p->node);
  if (!p->node) return false;
  for (uint32_t n = 0, k = 0; n < r->n_nodes; n++)
    if (mark[n]) p->node[k++] = n;
  return true;
}

bool nest__same_place(const tern_value *a, const tern_value *b) {
  if (a->rank != b->rank || nest_item_size(a->dtype) != nest_item_size(b->dtype)) return false;
  for (uint32_t d = 0; d < a->rank; d++)
    if (a->shape[d] != b->shape[d] || (a->shape[d] != 1 && a->stride[d] != b->stride[d])) return false;
  return true;
}

/* May OUT o (aliasing an argument) be written by its home without a copy: no later nest reads the donor, and the home
   itself reads it at the same places only */
static bool alias_is_safe(const nest_build_state *b, uint32_t o) {
  const tern_region *r = b->r;
  for (uint32_t j = b->home[o]; j < b->n_proto; j++)
    for (uint32_t k = 0; k < b->proto[j].n_node; k++) {
      const uint32_t n = b->proto[j].node[k];
      for (uint32_t i = 0; i < r->nodes[n].n_in; i++) {
        const uint32_t v = nest_in(r, n, i);
        if (nest__arg_of(b, v) != (uint32_t)r->values[o].alias || nest__computed(b, j, v)) continue;
        if (j != b->home[o] || r->values[v].kind != TERN_V_IN || !nest__same_place(&r->values[v], &r->values[o]))
          return false;
      }
    }
  return true;
}

/* A view counts in the memory of the OUT, the workspace copy is dense: the two cannot be reconciled before the sizes
   are known */
static tern_rc refuse_viewed(const nest_build_state *b) {
  for (uint32_t v = 0; v < b->r->n_values; v++)
    if (b->r->values[v].kind == TERN_V_VIEW && b->deferred[b->r->values[v].slot])
      return nest__fail(b->message, b->message_size, TERN_E_UNSUPPORTED,
                        "value %u views an output that cannot be written in place", v);
  return TERN_OK;
}

static void defer_unsafe(nest_build_state *b) {
  const tern_region *r = b->r;
  for (uint32_t o = 0; o < r->n_values; o++) {
    if (r->values[o].kind != TERN_V_OUT || r->values[o].alias < 0 || alias_is_safe(b, o)) continue;
    b->deferred[o] = 1;
    b->plan->n_deferred++;
  }
  for (uint32_t o = 0; o < r->n_values; o++)
    if (b->deferred[o]) {
      need_slot(b, o);
      b->proto[new_proto(b, &r->values[o], 0, NEST_NONE)].copy_of = o;
    }
}

static void mark_dep(const nest_build_state *b, uint32_t j, uint32_t v, uint8_t *dep) {
  const tern_value *val = &b->r->values[v];
  const uint32_t base = val->kind == TERN_V_VIEW ? val->slot : v;
  if (b->home[base] != NEST_NONE && b->home[base] < j) dep[b->home[base]] = 1;
}

/* Nest j overwrites argument `arg`: it waits for the nests before it that read it */
static void mark_readers(const nest_build_state *b, uint32_t j, uint32_t arg, uint8_t *dep) {
  for (uint32_t i = 0; i < j; i++)
    for (uint32_t k = 0; k < b->proto[i].n_node; k++)
      for (uint32_t e = 0; e < b->r->nodes[b->proto[i].node[k]].n_in; e++)
        if (nest__arg_of(b, nest_in(b->r, b->proto[i].node[k], e)) == arg) dep[i] = 1;
}

static bool set_deps(nest_build_state *b, uint32_t j, uint8_t *dep) {
  const tern_region *r = b->r;
  const nest_proto *p = &b->proto[j];
  nest *t = &b->nests[j];
  memset(dep, 0, b->n_proto);
  for (uint32_t k = 0; k < p->n_node; k++) {
    for (uint32_t i = 0; i < r->nodes[p->node[k]].n_in; i++)
      if (!nest__computed(b, j, nest_in(r, p->node[k], i))) mark_dep(b, j, nest_in(r, p->node[k], i), dep);
    const uint32_t o = nest_out(r, p->node[k]);
    if (b->home[o] == j && r->values[o].kind == TERN_V_OUT && r->values[o].alias >= 0 && !b->deferred[o])
      mark_readers(b, j, (uint32_t)r->values[o].alias, dep);
  }
  if (p->copy_of != NEST_NONE) {
    dep[b->home[p->copy_of]] = 1;
    mark_readers(b, j, (uint32_t)r->values[p->copy_of].alias, dep);
  }
  for (uint32_t i = 0; i < j; i++) t->n_dep += dep[i];
  uint32_t *list = nest__alloc(b->arena, t->n_dep, sizeof *list);
  if (!list) return false;
  for (uint32_t i = 0, k = 0; i < j; i++)
    if (dep[i]) {
      list[k++] = i;
      if (b->nests[i].wave + 1 > t->wave) t->wave = b->nests[i].wave + 1;
    }
  t->dep = list;
  if (t->wave + 1 > b->plan->n_waves) b->plan->n_waves = t->wave + 1;
  return true;
}

static bool set_workspace(nest_build_state *b) {
  nest_ws *ws = nest__alloc(b->arena, b->n_ws, sizeof *ws);
  if (!ws) return false;
  for (uint32_t v = 0; v < b->r->n_values; v++)
    if (b->ws[v] != NEST_NONE) ws[b->ws[v]].value = v;
  b->plan->ws = ws;
  b->plan->n_ws = b->n_ws;
  return true;
}

static bool alloc_state(nest_build_state *b) {
  const size_t n = b->r->n_values;
  uint32_t **const by_value[] = {&b->producer, &b->stage, &b->home, &b->parent, &b->ws};
  for (size_t i = 0; i < sizeof by_value / sizeof *by_value; i++) {
    *by_value[i] = nest__alloc(b->arena, n, sizeof **by_value[i]);
    if (!*by_value[i]) return false;
  }
  b->target = nest__alloc(b->arena, n, 1);
  b->deferred = nest__alloc(b->arena, n, 1);
  b->proto = nest__alloc(b->arena, (size_t)b->r->n_nodes * 2, sizeof *b->proto);
  if (b->arena->failed) return false;
  for (size_t v = 0; v < n; v++) b->producer[v] = b->home[v] = b->ws[v] = NEST_NONE;
  return true;
}

static tern_rc analyse(nest_build_state *b, uint32_t flags) {
  if (!alloc_state(b)) return out_of_memory(b);
  tern_rc rc = check_region(b);
  if (rc) return rc;
  find_components(b);
  assign(b);
  uint8_t *mark = nest__alloc(b->arena, (size_t)b->r->n_nodes * 2 + 1, 1);
  for (uint32_t j = 0; j < b->n_proto; j++)
    if (!mark || !close_nest(b, j, mark)) return out_of_memory(b);
  defer_unsafe(b);
  if ((rc = refuse_viewed(b))) return rc;
  b->nests = nest__alloc(b->arena, b->n_proto, sizeof *b->nests);
  if (!b->nests || !set_workspace(b)) return out_of_memory(b);
  b->plan->nests = b->nests;
  b->plan->n_nests = b->n_proto;
  for (uint32_t j = 0; j < b->n_proto && !rc; j++) {
    if (!set_deps(b, j, mark)) return out_of_memory(b);
    rc = nest__schedule(b, j, flags);
    if (rc == TERN_E_OOM) return out_of_memory(b);
  }
  return rc;
}

/* What only the analysis needs goes when it ends; the plan's arena keeps the rest. Both are one arena: the analysis is
   small. */
tern_rc nest_build(const tern_region *region, uint32_t flags, nest_plan **plan, char *message, size_t message_size) {
  *plan = NULL;
  if (message && message_size) *message = 0;
  whole_plan *w = calloc(1, sizeof *w);
  if (!w) return nest__fail(message, message_size, TERN_E_OOM, "out of host memory");
  nest_build_state b = {.plan = &w->plan, .arena = &w->arena, .message = message, .message_size = message_size};
  b.r = w->plan.region = copy_region(&w->arena, region);
  tern_rc rc = b.r ? analyse(&b, flags) : nest__fail(message, message_size, TERN_E_OOM, "out of host memory");
  if (rc)
    nest_free(&w->plan);
  else
    *plan = &w->plan;
  return rc;
}

bool nest_can_alias(const tern_region *region, uint32_t out, uint32_t arg) {
  if (out >= region->n_values || region->values[out].kind != TERN_V_OUT || arg > INT32_MAX) return false;
  tern_value *values = malloc(region->n_values * sizeof *values);
  if (!values) return false;
  memcpy(values, region->values, region->n_values * sizeof *values);
  values[out].alias = (int32_t)arg;
  tern_region r = *region;
  r.values = values;
  nest_plan *plan = NULL, *before = NULL;
  const bool ok = !nest_build(&r, 0, &plan, NULL, 0) && !nest_build(region, 0, &before, NULL, 0) &&
                  plan->n_deferred <= before->n_deferred;
  nest_free(plan);
  nest_free(before);
  free(values);
  return ok;
}
