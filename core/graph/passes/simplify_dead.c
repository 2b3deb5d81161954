/* Dead nodes: one sweep from the end, since operands come before their users. */
#include "base/alloc.h"
#include "graph/passes/simplify.h"
#include <stdlib.h>

/* A variable read in a body ends with another value: the control node assigns it. */
static bool assigns(const tern__graph *body) {
  for (uint32_t i = 0; body && i < body->n_variables; i++)
    if (body->variable[i].value != body->node[body->variable[i].node].first_out) return true;
  return false;
}

static bool stays(const tern__ir_node *n) {
  return n->kind == TERN__IR_INPUT || tern__ir_effect(n) || assigns(n->body[0]) || assigns(n->body[1]);
}

tern_rc tern__simplify_dead(tern__graph *g, const tern__simplify_opts *opts, bool *changed) {
  (void)opts;
  bool *live = tern__calloc(g->n_nodes ? g->n_nodes : 1, sizeof *live);
  if (!live) return tern__fail(TERN_E_OOM, "simplify: out of host memory");
  for (uint32_t i = 0; i < g->n_outputs; i++)
    if (g->output[i] != TERN__IR_NONE) live[g->value[g->output[i]].node] = true;
  for (uint32_t i = 0; i < g->n_variables; i++) {
    const tern__ir_variable *v = &g->variable[i];
    if (v->value == g->node[v->node].first_out) continue;
    live[g->value[v->value].node] = live[v->node] = true;
  }
  for (uint32_t i = g->n_nodes; i-- > 0;) {
    tern__ir_node *n = &g->node[i];
    if (n->kind == TERN__IR_DEAD) continue;
    if (!live[i] && !stays(n)) {
      n->kind = TERN__IR_DEAD;
      *changed = true;
      continue;
    }
    for (uint32_t k = 0; k < n->n_in; k++)
      if (n->in[k] != TERN__IR_NONE) live[g->value[n->in[k]].node] = true;
  }
  free(live);
  return TERN_OK;
}
