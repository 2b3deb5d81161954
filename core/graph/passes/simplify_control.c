/* Control flow that is decided: a COND whose predicate is known becomes the nodes of the body that it takes, a WHILE
   whose condition is false at once its states. */
#include "base/alloc.h"
#include "graph/passes/simplify_parts.h"
#include <stdlib.h>

typedef struct inliner {
  tern__graph *g;
  uint32_t first_new, *before, before_capacity;
  uint32_t *map, map_capacity; /* of values of g */
} inliner;

static bool no_memory(void) {
  tern__fail(TERN_E_OOM, "simplify: out of host memory");
  return false;
}

/* Grows map and before for what is in g now. */
static bool keep_up(inliner *s, uint32_t before) {
  const tern__graph *g = s->g;
  if (g->n_values > s->map_capacity) {
    uint32_t *map = tern__realloc(s->map, 2 * (size_t)g->n_values * sizeof *map);
    if (!map) return no_memory();
    for (uint32_t v = s->map_capacity; v < 2 * g->n_values; v++) map[v] = v;
    s->map = map;
    s->map_capacity = 2 * g->n_values;
  }
  const uint32_t added = g->n_nodes - s->first_new;
  if (added > s->before_capacity) {
    uint32_t *list = tern__realloc(s->before, (2 * (size_t)added + 16) * sizeof *list);
    if (!list) return no_memory();
    s->before = list;
    s->before_capacity = 2 * added + 16;
  }
  if (added) s->before[added - 1] = before;
  return true;
}

/* The graph's node of the variable, if it has one. */
static uint32_t variable_node(const tern__graph *g, const tern_tensor *variable) {
  for (uint32_t i = 0; i < g->n_variables; i++)
    if (g->variable[i].variable == variable) return g->variable[i].node;
  return TERN__IR_NONE;
}

/* Whether the body can stand where the node is: types agree, and it assigns no variable. in: what it takes. */
static bool fits(const tern__graph *g, const tern__ir_node *n, const uint32_t *in, uint32_t n_in,
                 const tern__graph *body) {
  if (body->n_inputs > n_in || body->n_outputs != n->n_out) return false;
  for (uint32_t k = 0; k < body->n_inputs; k++)
    if (in[k] == TERN__IR_NONE || !tern__same_type(&g->value[in[k]], &body->value[body->input[k]])) return false;
  for (uint32_t o = 0; o < n->n_out; o++)
    if (body->output[o] == TERN__IR_NONE ||
        !tern__same_type(&g->value[n->first_out + o], &body->value[body->output[o]]))
      return false;
  for (uint32_t i = 0; i < body->n_variables; i++)
    if (body->variable[i].value != body->node[body->variable[i].node].first_out) return false;
  return true;
}

/* Moves node n of a body to the end of g; to: values of the body in g. */
static bool move_node(inliner *s, uint32_t at, tern__graph *body, tern__ir_node *n, uint32_t *to) {
  tern__graph *g = s->g;
  if (n->kind == TERN__IR_VARIABLE) {
    const uint32_t have = variable_node(g, n->tensor);
    if (have != TERN__IR_NONE && (have < at || have >= s->first_new)) {
      to[n->first_out] = g->node[have].first_out;
      return true;
    }
  }
  for (uint32_t k = 0; k < n->n_in; k++)
    if (n->in[k] != TERN__IR_NONE) n->in[k] = to[n->in[k]];
  const uint32_t made = tern__graph_add(g, (tern__ir_kind)n->kind, n->op, n->in, n->n_in, n->attr, n->n_attr, n->n_out);
  if (made == TERN__IR_NONE || !keep_up(s, at)) return false;
  tern__ir_node *copy = &g->node[made];
  if (n->source) {
    copy->source = tern__graph_alloc(g, 1, sizeof *copy->source);
    if (!copy->source) return false;
    *copy->source = *n->source;
    n->source = NULL;
  }
  copy->pinned = n->pinned;
  copy->again = n->again;
  copy->device = n->device;
  copy->tensor = n->tensor;
  n->tensor = NULL;
  for (int b = 0; b < 2; b++) {
    copy->body[b] = n->body[b];
    n->body[b] = NULL;
  }
  for (uint32_t o = 0; o < n->n_out; o++) {
    tern__ir_value *v = &g->value[copy->first_out + o], *from = &body->value[n->first_out + o];
    const tern__ir_value own = *v;
    *v = *from;
    v->node = own.node;
    v->out = own.out;
    from->name = NULL;
    to[n->first_out + o] = copy->first_out + o;
  }
  return copy->kind != TERN__IR_VARIABLE || !tern__graph_add_variable(g, copy->tensor, made);
}

/* The body's nodes in place of node `at`, whose outputs they give. */
static bool inline_body(inliner *s, uint32_t at, uint32_t which, const uint32_t *in) {
  tern__graph *g = s->g, *body = g->node[at].body[which];
  uint32_t *to = tern__calloc(body->n_values + 1u, sizeof *to);
  if (!to) return no_memory();
  for (uint32_t k = 0; k < body->n_inputs; k++) to[body->input[k]] = s->map[in[k]];
  bool ok = true;
  for (uint32_t i = 0; i < body->n_nodes && ok; i++) {
    const uint8_t kind = body->node[i].kind;
    if (kind != TERN__IR_INPUT && kind != TERN__IR_DEAD) ok = move_node(s, at, body, &body->node[i], to);
  }
  tern__ir_node *n = &g->node[at];
  for (uint32_t o = 0; o < n->n_out && ok; o++) s->map[n->first_out + o] = to[body->output[o]];
  n->kind = TERN__IR_DEAD;
  free(to);
  return ok;
}

/* What the condition's one result is, whatever the states are: -1 where that is not known. */
static int known_condition(const tern__graph *condition) {
  tern_word w;
  tern_dtype d;
  for (uint32_t i = 0; i < condition->n_nodes; i++)
    if (tern__ir_effect(&condition->node[i])) return -1;
  if (condition->n_outputs != 1 || !tern__uniform(condition, condition->output[0], &w, &d)) return -1;
  return tern__convert(w, d, TERN_BOOL).u != 0;
}

/* Whether node `at` went. */
static bool decide(inliner *s, uint32_t at, bool *failed) {
  const tern__graph *g = s->g;
  const tern__ir_node *n = &g->node[at];
  tern_word w;
  tern_dtype d;
  if (n->kind == TERN__IR_COND) {
    if (!tern__uniform(g, s->map[n->in[0]], &w, &d) || d != TERN_BOOL) return false;
    const uint32_t which = w.u ? 0 : 1;
    if (!fits(g, n, n->in + 1, n->n_in - 1, n->body[which])) return false;
    *failed = !inline_body(s, at, which, n->in + 1);
    return true;
  }
  if (n->kind != TERN__IR_WHILE || known_condition(n->body[0]) != 0) return false;
  for (uint32_t o = 0; o < n->n_out; o++)
    if (!tern__same_type(&g->value[n->first_out + o], &g->value[n->in[o]])) return false;
  for (uint32_t o = 0; o < n->n_out; o++) s->map[n->first_out + o] = s->map[n->in[o]];
  s->g->node[at].kind = TERN__IR_DEAD;
  return true;
}

/* Whether a control node that draws came out of a body. */
static bool adds_draws(const tern__graph *g, uint32_t first) {
  for (uint32_t i = first; i < g->n_nodes; i++)
    if (g->node[i].body[0] && tern__ir_draws(&g->node[i])) return true;
  return false;
}

tern_rc tern__simplify_control(tern__graph *g, const tern__simplify_opts *opts, bool *changed) {
  (void)opts;
  inliner s = {.g = g, .first_new = g->n_nodes};
  bool failed = !keep_up(&s, 0), some = false, drew = false;
  for (uint32_t i = 0; i < s.first_new && !failed; i++) {
    if (g->node[i].kind != TERN__IR_COND && g->node[i].kind != TERN__IR_WHILE) continue;
    const bool draws = tern__ir_draws(&g->node[i]); /* sources run first: none may come from behind a node that draws */
    if (!draws || !drew) some |= decide(&s, i, &failed);
    drew |= draws && (g->node[i].kind != TERN__IR_DEAD || adds_draws(g, s.first_new));
  }
  if (some) {
    tern__graph_replace_all(g, s.map);
    *changed = true;
  }
  tern_rc rc = failed ? TERN_E_OOM : TERN_OK;
  if (!rc && g->n_nodes > s.first_new) rc = tern__graph_settle(g, s.first_new, s.before);
  free(s.map);
  free(s.before);
  return rc;
}
