/* See sweep.h. What is looked for is the form that tern_take and tern_scatter along axis 0 have in graphs: reshapes
   around an array [1, slices, size], the index [1] and a slice [1, 1, size]. */
#include "graph/passes/sweep.h"
#include "base/alloc.h"
#include "base/thread.h"
#include "graph/passes/rows.h"
#include "graph/passes/simplify_parts.h"
#include "ops/table.h"
#include "tensor/tensor.h"
#include <stdlib.h>
#include <string.h>

typedef struct sweep {
  tern__graph *g; /* the body */
  const tern__ir_node *loop;
  int64_t trips;
  uint32_t *uses;
  uint8_t *way;    /* of each input */
  uint32_t *slice; /* of each stack: the value that is its slice */
} sweep;

static bool is_op(const tern__ir_node *n, const tern__op *op) { return n->kind == TERN__IR_OP && n->op == op; }

static bool is_input(const tern__graph *g, uint32_t v, uint64_t number) {
  const tern__ir_node *n = tern__maker(g, v);
  return n->kind == TERN__IR_INPUT && n->attr[0].u == number;
}

static bool is_number(const tern__graph *g, uint32_t v, int64_t number) {
  const tern__ir_node *n = tern__maker(g, v);
  const bool whole = g->value[v].dtype == TERN_I64;
  return n->kind == TERN__IR_SCALAR && (whole ? n->attr[0].i == number : n->attr[0].f == (double)number);
}

/* The index is the count (1), or counts from the end (2); else 0. */
static int direction(const sweep *s, uint32_t v) {
  v = tern__behind_reshapes(s->g, v);
  if (is_input(s->g, v, 0)) return 1;
  const tern__ir_node *n = tern__maker(s->g, v);
  return is_op(n, &tern__op_sub) && is_number(s->g, n->in[0], s->trips - 1) && is_input(s->g, n->in[1], 0) ? 2 : 0;
}

/* How often the condition lets the loop run; 0: not known. */
static int64_t trips_of(const tern__ir_node *loop) {
  const tern__graph *c = loop->body[0], *b = loop->body[1];
  if (c->n_outputs != 1 || c->output[0] == TERN__IR_NONE || c->n_variables || b->n_outputs < 1) return 0;
  const tern__ir_node *less = tern__maker(c, c->output[0]);
  if (!is_op(less, &tern__op_less) || !is_input(c, less->in[0], 0)) return 0;
  const tern__ir_node *limit = tern__maker(c, less->in[1]), *next = tern__maker(b, b->output[0]);
  if (limit->kind != TERN__IR_SCALAR || c->value[less->in[1]].dtype != TERN_I64 || !is_op(next, &tern__op_add))
    return 0;
  const bool first = is_input(b, next->in[0], 0) && is_number(b, next->in[1], 1);
  if (!first && !(is_input(b, next->in[1], 0) && is_number(b, next->in[0], 1))) return 0;
  const int64_t trips = limit->attr[0].i, most = loop->attr[0].i;
  return trips > 0 && (most <= 0 || trips <= most) ? trips : 0;
}

/* Whether the outer value holds 0: the count begins there. */
static bool begins_with_zero(const tern__graph *g, uint32_t v) {
  const tern__ir_node *n = tern__maker(g, v);
  if (n->kind == TERN__IR_CONST && n->tensor->dtype == TERN_I64 && n->tensor->numel == 1) {
    return n->tensor->storage->host &&
           *(const int64_t *)(const void *)((const char *)n->tensor->storage->host + n->tensor->offset * 8) == 0;
  }
  return is_op(n, &tern__op_full) && g->value[v].rank == 0 && n->attr[n->n_attr - 1].i == 0; /* rank, dtype, value */
}

/* Counts the uses of an input but for reshapes, and how many of them take its slices in which direction. */
static void follow(const sweep *s, uint32_t *takes, int *ways, uint32_t *others) {
  const tern__graph *g = s->g;
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    const tern__ir_node *n = &g->node[i];
    if (n->kind == TERN__IR_DEAD || is_op(n, &tern__op_reshape)) continue;
    for (uint32_t k = 0; k < n->n_in; k++) {
      if (n->in[k] == TERN__IR_NONE) continue;
      const tern__ir_node *from = tern__maker(g, tern__behind_reshapes(g, n->in[k]));
      if (from->kind != TERN__IR_INPUT) continue;
      const uint64_t input = from->attr[0].u;
      const int way = is_op(n, &tern__op_take) && k == 0 ? direction(s, n->in[1]) : 0;
      const tern__ir_value *all = &g->value[from->first_out], *three = &g->value[n->in[k]];
      const bool takes_it = way && all->rank > 0 && all->shape[0] == s->trips && three->rank == 3 &&
                            three->shape[0] == 1 && three->shape[1] == s->trips;
      if (takes_it) takes[input]++, ways[input] |= way;
      if (!takes_it) others[input]++;
    }
  }
  for (uint32_t o = 0; o < g->n_outputs; o++) {
    if (g->output[o] == TERN__IR_NONE) continue;
    const tern__ir_node *from = tern__maker(g, tern__behind_reshapes(g, g->output[o]));
    if (from->kind == TERN__IR_INPUT) others[from->attr[0].u]++;
  }
}

/* Whether output k is input k with a slice put in, and nothing else uses that stack. */
static void find_stack(sweep *s, uint32_t k, const uint32_t *others) {
  const tern__graph *g = s->g;
  if (g->output[k] == TERN__IR_NONE) return;
  const uint32_t v = tern__behind_reshapes(g, g->output[k]);
  const tern__ir_node *put = tern__maker(g, v);
  if (!is_op(put, &tern__op_scatter) || put->n_in != 3 || put->attr[0].i != TERN_SCATTER_SET) return;
  if (put->in[0] == TERN__IR_NONE || put->in[2] == TERN__IR_NONE ||
      !is_input(g, tern__behind_reshapes(g, put->in[0]), k))
    return;
  const tern__ir_value *stack = &g->value[tern__maker(g, tern__behind_reshapes(g, put->in[0]))->first_out],
                       *three = &g->value[put->in[0]];
  const tern__ir_value *slice = &g->value[put->in[2]];
  const int way = direction(s, put->in[1]);
  if (!way || others[k] != 1 || s->uses[v] != 1 || stack->rank < 1 || stack->shape[0] != s->trips || three->rank != 3 ||
      three->shape[0] != 1 || three->shape[1] != s->trips || slice->rank != 3 || slice->shape[0] != 1 ||
      slice->shape[1] != 1 || slice->shape[2] != three->shape[2] || slice->dtype != stack->dtype || slice->weak)
    return;
  s->way[k] = way == 1 ? TERN__SWEEP_STACK : TERN__SWEEP_STACK_BACK;
  s->slice[k] = put->in[2];
}

/* The use count of the last reshape before an output is 1 when the output is all that has it. */
static bool alone(const sweep *s, uint32_t k) {
  const tern__graph *g = s->g;
  for (uint32_t v = g->output[k]; is_op(tern__maker(g, v), &tern__op_reshape); v = tern__maker(g, v)->in[0])
    if (s->uses[v] != 1) return false;
  return true;
}

static bool find(sweep *s) {
  const tern__graph *g = s->g;
  const uint32_t n = g->n_inputs;
  uint32_t *takes = tern__calloc(2 * (size_t)n + 1, sizeof *takes), *others = takes ? takes + n : NULL;
  int *ways = tern__calloc((size_t)n + 1, sizeof *ways);
  if (takes && ways) {
    follow(s, takes, ways, others);
    tern__graph_count_uses(g, s->uses);
    for (uint32_t k = s->loop->n_out; k < n; k++)
      if (takes[k] && !others[k] && ways[k] != 3) s->way[k] = ways[k] == 1 ? TERN__SWEEP_SLICE : TERN__SWEEP_BACK;
    for (uint32_t k = 1; k < s->loop->n_out; k++) {
      if (!takes[k]) find_stack(s, k, others);
      if (s->way[k] && !alone(s, k)) s->way[k] = TERN__SWEEP_WHOLE;
    }
  }
  const bool ok = takes && ways;
  free(takes);
  free(ways);
  return ok;
}

/* Slices come and go by themselves. Reshapes that nothing uses any more are dropped with the scatters. */
static void rewrite(sweep *s) {
  tern__graph *g = s->g;
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    tern__ir_node *n = &g->node[i];
    if (!is_op(n, &tern__op_take)) continue;
    const uint32_t from = tern__behind_reshapes(g, n->in[0]);
    if (tern__maker(g, from)->kind != TERN__IR_INPUT || !s->way[tern__maker(g, from)->attr[0].u]) continue;
    n->op = &tern__op_reshape;
    n->in[0] = from;
    n->n_in = 1;
    n->n_attr = 0;
  }
  for (uint32_t k = 0; k < g->n_inputs; k++) {
    if (s->way[k] >= TERN__SWEEP_STACK) g->output[k] = s->slice[k];
    if (s->way[k] != TERN__SWEEP_SLICE && s->way[k] != TERN__SWEEP_BACK) continue;
    tern__ir_value *v = &g->value[g->input[k]];
    v->rank--;
    memmove(v->shape, v->shape + 1, v->rank * sizeof *v->shape);
  }
}

/* Whether the count is needed for more than slices: in the body, or behind the loop. */
static bool counts(const tern__graph *outer, const tern__ir_node *loop, uint32_t *uses) {
  const tern__graph *g = loop->body[1];
  for (uint32_t v = 0; v < g->n_values; v++) uses[v] = 0;
  tern__graph_count_uses(g, uses);
  bool used = uses[g->input[0]] > 1;
  for (uint32_t i = 0; i < outer->n_nodes && !used; i++)
    for (uint32_t k = 0; outer->node[i].kind != TERN__IR_DEAD && k < outer->node[i].n_in && !used; k++)
      used = outer->node[i].in[k] == loop->first_out;
  for (uint32_t o = 0; o < outer->n_outputs && !used; o++) used = outer->output[o] == loop->first_out;
  for (uint32_t i = 0; i < outer->n_variables && !used; i++) used = outer->variable[i].value == loop->first_out;
  return used;
}

/* What was found becomes attributes of the node, and the body follows them. */
static bool settle(tern__graph *g, tern__ir_node *loop, sweep *s) {
  const uint32_t n = loop->n_in;
  tern_word *attr = tern__graph_alloc(g, n + TERN__SWEEP_WAY, sizeof *attr);
  bool changed = false;
  if (!attr) return false;
  rewrite(s);
  attr[0] = loop->attr[0];
  attr[TERN__SWEEP_TRIPS].i = s->trips;
  attr[TERN__SWEEP_PARTS].i = 1;
  for (uint32_t k = 0; k < n; k++) attr[TERN__SWEEP_WAY + k].i = s->way[k];
  for (uint32_t k = 0; k < loop->n_out; k++)
    if (s->way[k] >= TERN__SWEEP_STACK) loop->in[k] = loop->in[0];
  loop->attr = attr;
  loop->n_attr = (uint16_t)(n + TERN__SWEEP_WAY);
  if (tern__simplify_dead(s->g, NULL, &changed)) return false;
  if (!counts(g, loop, s->uses)) s->g->output[0] = TERN__IR_NONE;
  return !tern__simplify_dead(s->g, NULL, &changed) && !tern__graph_compact(s->g);
}

static tern_rc sweep_loop(tern__graph *g, tern__ir_node *loop) {
  sweep s = {.g = loop->body[1], .loop = loop, .trips = trips_of(loop)};
  const uint32_t n = loop->n_in;
  if (!s.trips || !begins_with_zero(g, loop->in[0]) || s.g->n_inputs != n || n > UINT16_MAX - TERN__SWEEP_WAY)
    return TERN_OK;
  s.uses = tern__calloc((size_t)s.g->n_values + 1, sizeof *s.uses);
  s.way = tern__calloc((size_t)n + 1, 1);
  s.slice = tern__calloc((size_t)n + 1, sizeof *s.slice);
  const bool ok = s.uses && s.way && s.slice && find(&s) && settle(g, loop, &s);
  free(s.uses);
  free(s.way);
  free(s.slice);
  return ok ? tern__rows_split(loop) : tern__fail(TERN_E_OOM, "graph: out of host memory for a loop");
}

tern_rc tern__graph_sweep(tern__graph *g) {
  tern_rc rc = TERN_OK;
  bool any = false, changed = false;
  for (uint32_t i = 0; i < g->n_nodes && !rc; i++) {
    tern__ir_node *n = &g->node[i];
    if (n->kind != TERN__IR_WHILE || tern__sweeps(n)) continue;
    rc = sweep_loop(g, n);
    any |= tern__sweeps(n);
  }
  if (any && !rc) rc = tern__simplify_dead(g, NULL, &changed);
  return rc || !any ? rc : tern__graph_compact(g);
}
