/* Building graphs: growing arrays of nodes and values; operand and attribute arrays lie in chunks that end with the
   graph. */
#include "graph/ir/ir.h"
#include "base/alloc.h"
#include "base/string.h"
#include "ops/table.h"
#include "tensor/tensor.h"
#include <stdlib.h>
#include <string.h>

typedef struct tern__ir_chunk {
  struct tern__ir_chunk *next;
  size_t used, capacity;
  _Alignas(16) char data[];
} tern__ir_chunk;

enum { CHUNK = 16 << 10 };

static tern_rc no_memory(void) { return tern__fail(TERN_E_OOM, "graph: out of host memory"); }

tern__graph *tern__graph_new(const char *name) {
  tern__graph *g = tern__calloc(1, sizeof *g);
  if (g && (g->name = tern__strdup(name && *name ? name : "graph"))) return g;
  free(g);
  no_memory();
  return NULL;
}

static void end_node(tern__ir_node *n) {
  if (n->tensor) tern__unref(n->tensor);
  if (n->source && n->source->release) n->source->release(n->source->self);
  for (int b = 0; b < 2; b++) tern__graph_free(n->body[b]);
  n->tensor = NULL;
  n->source = NULL;
  n->body[0] = n->body[1] = NULL;
}

void tern__graph_free(tern__graph *g) {
  if (!g) return;
  for (uint32_t i = 0; i < g->n_nodes; i++) end_node(&g->node[i]);
  for (uint32_t v = 0; v < g->n_values; v++) free(g->value[v].name);
  while (g->chunks) {
    tern__ir_chunk *c = g->chunks;
    g->chunks = c->next;
    free(c);
  }
  free(g->node);
  free(g->value);
  free(g->input);
  free(g->output);
  free(g->variable);
  free(g->name);
  free(g);
}

void *tern__graph_alloc(tern__graph *g, size_t count, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX / 2) {
    no_memory();
    return NULL;
  }
  bytes = (bytes + 15) & ~(size_t)15;
  if (!g->chunks || g->chunks->used + bytes > g->chunks->capacity) {
    const size_t capacity = bytes > CHUNK ? bytes : CHUNK;
    tern__ir_chunk *c = tern__calloc(1, sizeof *c + capacity);
    if (!c) {
      no_memory();
      return NULL;
    }
    c->capacity = capacity;
    c->next = g->chunks;
    g->chunks = c;
  }
  void *p = g->chunks->data + g->chunks->used;
  g->chunks->used += bytes;
  return p;
}

/* Room for `more` elements behind the first n. */
static bool grow(void *array, uint32_t *capacity, uint32_t n, uint32_t more, size_t size) {
  if (n + more <= *capacity) return true;
  uint32_t wanted = *capacity ? 2 * *capacity : 32;
  if (wanted < n + more) wanted = n + more;
  void *p = tern__realloc(*(void **)array, wanted * size);
  if (!p) {
    no_memory();
    return false;
  }
  memset((char *)p + *capacity * size, 0, (wanted - *capacity) * size);
  *(void **)array = p;
  *capacity = wanted;
  return true;
}

uint32_t tern__graph_add(tern__graph *g, tern__ir_kind kind, const tern__op *op, const uint32_t *in, uint32_t n_in,
                         const tern_word *attr, uint32_t n_attr, uint32_t n_out) {
  if (!grow(&g->node, &g->node_capacity, g->n_nodes, 1, sizeof *g->node) ||
      !grow(&g->value, &g->value_capacity, g->n_values, n_out, sizeof *g->value))
    return TERN__IR_NONE;
  uint32_t *operands = tern__graph_alloc(g, n_in, sizeof *operands);
  tern_word *words = tern__graph_alloc(g, n_attr, sizeof *words);
  if (!operands || !words) return TERN__IR_NONE;
  if (n_in) memcpy(operands, in, n_in * sizeof *in);
  if (n_attr) memcpy(words, attr, n_attr * sizeof *attr);
  g->node[g->n_nodes] = (tern__ir_node){.kind = (uint8_t)kind,
                                        .op = op,
                                        .n_in = n_in,
                                        .in = operands,
                                        .n_attr = (uint16_t)n_attr,
                                        .attr = words,
                                        .n_out = n_out,
                                        .first_out = g->n_values};
  for (uint32_t o = 0; o < n_out; o++)
    g->value[g->n_values++] = (tern__ir_value){.node = g->n_nodes, .out = (uint16_t)o};
  return g->n_nodes++;
}

static tern_rc append(uint32_t **list, uint32_t *n, uint32_t *capacity, uint32_t value) {
  if (!grow(list, capacity, *n, 1, sizeof **list)) return TERN_E_OOM;
  (*list)[(*n)++] = value;
  return TERN_OK;
}

uint32_t tern__graph_repeat(tern__graph *g, uint32_t value, const uint32_t *in) {
  const tern__ir_node from = g->node[g->value[value].node];
  const uint32_t node = tern__graph_add(g, (tern__ir_kind)from.kind, from.op, in, from.n_in, from.attr, from.n_attr, 1);
  if (node == TERN__IR_NONE) return node;
  const uint32_t out = g->node[node].first_out;
  g->node[node].device = from.device;
  g->node[node].pinned = from.pinned;
  g->node[node].again = from.again;
  g->value[out] = g->value[value];
  g->value[out].node = node;
  g->value[out].out = 0;
  g->value[out].name = NULL;
  return out;
}

uint64_t tern__ir_bytes(const tern__ir_value *v) {
  return v->weak ? 0 : (uint64_t)tern__numel(v->rank, v->shape) * tern__dtype_size[v->dtype];
}

tern_rc tern__graph_add_input(tern__graph *g, uint32_t value) {
  return append(&g->input, &g->n_inputs, &g->input_capacity, value);
}

tern_rc tern__graph_add_output(tern__graph *g, uint32_t value) {
  return append(&g->output, &g->n_outputs, &g->output_capacity, value);
}

tern_rc tern__graph_add_variable(tern__graph *g, tern_tensor *variable, uint32_t node) {
  if (!grow(&g->variable, &g->variable_capacity, g->n_variables, 1, sizeof *g->variable)) return TERN_E_OOM;
  g->variable[g->n_variables++] = (tern__ir_variable){variable, node, g->node[node].first_out};
  return TERN_OK;
}

typedef struct mapping {
  int64_t (*map)(void *context, int64_t size);
  void *context;
} mapping;

static int64_t mapped(const mapping *m, int64_t size) { return m->map ? m->map(m->context, size) : size; }

static bool clone_node(tern__graph *to, const tern__graph *g, const tern__ir_node *n, const mapping *m) {
  const uint32_t at = tern__graph_add(to, (tern__ir_kind)n->kind, n->op, n->in, n->n_in, n->attr, n->n_attr, n->n_out);
  if (at == TERN__IR_NONE) return false;
  tern__ir_node *copy = &to->node[at];
  copy->pinned = n->pinned;
  copy->again = n->again;
  copy->device = n->device;
  copy->tensor = n->tensor ? tern__ref(n->tensor) : NULL;
  if (n->source) { /* borrowed: the graph that owns it outlives its copies */
    copy->source = tern__graph_alloc(to, 1, sizeof *copy->source);
    if (!copy->source) return false;
    *copy->source = *n->source;
    copy->source->release = NULL;
  }
  for (uint32_t a = 0; a < n->n_attr; a++) copy->attr[a].i = mapped(m, n->attr[a].i);
  for (uint32_t o = 0; o < n->n_out; o++) {
    const tern__ir_value *v = &g->value[n->first_out + o];
    tern__ir_value *w = &to->value[copy->first_out + o];
    w->dtype = v->dtype;
    w->rank = v->rank;
    w->weak = v->weak;
    w->device = v->device;
    for (int d = 0; d < v->rank; d++) w->shape[d] = mapped(m, v->shape[d]);
    if (v->name && !(w->name = tern__strdup(v->name))) return no_memory(), false;
  }
  for (int b = 0; b < 2; b++)
    if (n->body[b] && !(copy->body[b] = tern__graph_clone(n->body[b], m->map, m->context))) return false;
  return true;
}

tern__graph *tern__graph_clone(const tern__graph *g, int64_t (*map)(void *context, int64_t size), void *context) {
  const mapping m = {map, context};
  tern__graph *to = tern__graph_new(g->name);
  bool ok = to != NULL;
  for (uint32_t i = 0; i < g->n_nodes && ok; i++) ok = clone_node(to, g, &g->node[i], &m);
  for (uint32_t i = 0; i < g->n_inputs && ok; i++) ok = !tern__graph_add_input(to, g->input[i]);
  for (uint32_t i = 0; i < g->n_outputs && ok; i++) ok = !tern__graph_add_output(to, g->output[i]);
  for (uint32_t i = 0; i < g->n_variables && ok; i++) {
    ok = !tern__graph_add_variable(to, g->variable[i].variable, g->variable[i].node);
    if (ok) to->variable[i].value = g->variable[i].value;
  }
  if (ok && g->n_labels) ok = (to->label = tern__graph_alloc(to, g->n_labels, sizeof *to->label)) != NULL;
  for (uint32_t i = 0; i < g->n_labels && ok; i++) {
    to->label[to->n_labels++] = g->label[i];
    to->label[i].classes = mapped(&m, g->label[i].classes);
  }
  if (ok) return to;
  tern__graph_free(to);
  return NULL;
}

void tern__graph_replace_all(tern__graph *g, const uint32_t *map) {
  for (uint32_t i = 0; i < g->n_nodes; i++)
    for (uint32_t k = 0; k < g->node[i].n_in; k++)
      if (g->node[i].in[k] != TERN__IR_NONE) g->node[i].in[k] = map[g->node[i].in[k]];
  for (uint32_t i = 0; i < g->n_outputs; i++)
    if (g->output[i] != TERN__IR_NONE) g->output[i] = map[g->output[i]];
  for (uint32_t i = 0; i < g->n_variables; i++) g->variable[i].value = map[g->variable[i].value];
}

tern_rc tern__graph_compact(tern__graph *g) {
  uint32_t *value = tern__calloc(g->n_values ? g->n_values : 1, sizeof *value);
  uint32_t *node = tern__calloc(g->n_nodes ? g->n_nodes : 1, sizeof *node);
  if (!value || !node) {
    free(value);
    free(node);
    return no_memory();
  }
  uint32_t n_nodes = 0, n_values = 0;
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    tern__ir_node n = g->node[i];
    if (n.kind == TERN__IR_DEAD) {
      for (uint32_t o = 0; o < n.n_out; o++) free(g->value[n.first_out + o].name);
      end_node(&n);
      node[i] = TERN__IR_NONE;
      continue;
    }
    for (uint32_t o = 0; o < n.n_out; o++) {
      value[n.first_out + o] = n_values + o;
      g->value[n_values + o] = g->value[n.first_out + o];
      g->value[n_values + o].node = n_nodes;
    }
    n.first_out = n_values;
    n_values += n.n_out;
    node[i] = n_nodes;
    g->node[n_nodes++] = n;
  }
  g->n_nodes = n_nodes;
  g->n_values = n_values;
  tern__graph_replace_all(g, value);
  for (uint32_t i = 0; i < g->n_inputs; i++) g->input[i] = value[g->input[i]];
  uint32_t kept = 0;
  for (uint32_t i = 0; i < g->n_variables; i++) {
    if (node[g->variable[i].node] == TERN__IR_NONE) continue;
    g->variable[kept] = g->variable[i];
    g->variable[kept++].node = node[g->variable[i].node];
  }
  g->n_variables = kept;
  free(value);
  free(node);
  return TERN_OK;
}

void tern__graph_count_uses(const tern__graph *g, uint32_t *uses) {
  for (uint32_t i = 0; i < g->n_nodes; i++)
    for (uint32_t k = 0; g->node[i].kind != TERN__IR_DEAD && k < g->node[i].n_in; k++)
      if (g->node[i].in[k] != TERN__IR_NONE) uses[g->node[i].in[k]]++;
  for (uint32_t i = 0; i < g->n_outputs; i++)
    if (g->output[i] != TERN__IR_NONE) uses[g->output[i]]++;
  for (uint32_t i = 0; i < g->n_variables; i++) uses[g->variable[i].value]++;
}

tern_rc tern__graph_permute(tern__graph *g, const uint32_t *number) {
  uint32_t *value = tern__calloc(g->n_values + 1u, sizeof *value);
  tern__ir_node *nodes = tern__calloc(g->node_capacity, sizeof *nodes);
  tern__ir_value *values = tern__calloc(g->value_capacity, sizeof *values);
  if (!value || !nodes || !values) {
    free(value);
    free(nodes);
    free(values);
    return no_memory();
  }
  for (uint32_t i = 0; i < g->n_nodes; i++) nodes[number[i]] = g->node[i];
  uint32_t next = 0;
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    const uint32_t first = nodes[i].first_out;
    nodes[i].first_out = next;
    for (uint32_t o = 0; o < nodes[i].n_out; o++, next++) {
      value[first + o] = next;
      values[next] = g->value[first + o];
      values[next].node = i;
    }
  }
  free(g->node);
  free(g->value);
  g->node = nodes;
  g->value = values;
  tern__graph_replace_all(g, value);
  for (uint32_t i = 0; i < g->n_inputs; i++) g->input[i] = value[g->input[i]];
  for (uint32_t i = 0; i < g->n_variables; i++) g->variable[i].node = number[g->variable[i].node];
  free(value);
  return TERN_OK;
}

bool tern__ir_effect(const tern__ir_node *n) {
  if (n->kind == TERN__IR_PRINT || n->kind == TERN__IR_SOURCE) return true;
  for (int b = 0; b < 2; b++)
    for (uint32_t i = 0; n->body[b] && i < n->body[b]->n_nodes; i++)
      if (tern__ir_effect(&n->body[b]->node[i])) return true;
  return false;
}

bool tern__ir_draws(const tern__ir_node *n) {
  if (n->kind == TERN__IR_SOURCE) return true;
  for (int b = 0; b < 2; b++)
    for (uint32_t i = 0; n->body[b] && i < n->body[b]->n_nodes; i++)
      if (tern__ir_draws(&n->body[b]->node[i])) return true;
  return false;
}

bool tern__ir_is_view(const tern__ir_node *n) {
  return n->kind == TERN__IR_OP && (n->op == &tern__op_reshape || n->op == &tern__op_permute ||
                                    n->op == &tern__op_slice || n->op == &tern__op_expand);
}
