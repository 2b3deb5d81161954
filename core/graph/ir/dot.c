/* A graph for Graphviz: a box a node, coloured by kind, an arrow a use with dtype and shape, bodies as clusters. */
#include "graph/ir/text.h"
#include "device/device.h"
#include "tensor/tensor.h"
#include <inttypes.h>
#include <stdio.h>

typedef struct drawing {
  tern__writer *w;
  const tern__graph *g;
  uint32_t id;    /* of this graph; its nodes are gID_NUMBER */
  uint32_t *next; /* of the next graph */
  int depth;
} drawing;

static const char *colour_of(const tern__ir_node *n) {
  switch (n->kind) {
  case TERN__IR_INPUT: return "palegreen";
  case TERN__IR_CONST: return "lightgrey";
  case TERN__IR_SCALAR: return "whitesmoke";
  case TERN__IR_SOURCE: return "khaki";
  case TERN__IR_VARIABLE: return "lightsalmon";
  case TERN__IR_PRINT: return "plum";
  case TERN__IR_COND:
  case TERN__IR_WHILE: return "lightcyan";
  default: return tern__ir_is_view(n) ? "aliceblue" : "lightskyblue";
  }
}

/* Text inside a quoted label. */
static void put_label(tern__writer *w, const char *text) {
  for (const char *p = text; *p; p++) {
    if (*p == '"' || *p == '\\') tern__put(w, "\\");
    tern__putf(w, "%c", (unsigned char)*p < 32 ? ' ' : *p);
  }
}

static void put_edge(const drawing *d, uint32_t value, const char *to) {
  if (value >= d->g->n_values) return;
  const tern__ir_value *v = &d->g->value[value];
  tern__putf(d->w, "  g%" PRIu32 "_%" PRIu32 " -> %s [label=\"", d->id, v->node, to);
  if (v->out) tern__putf(d->w, "%u: ", v->out);
  tern__put_shape(d->w, (tern_dtype)v->dtype, v->rank, v->shape);
  tern__put(d->w, "\"];\n");
}

static void draw_graph(tern__writer *w, const tern__graph *g, uint32_t *next, int depth);

static void draw_node(const drawing *d, uint32_t at) {
  static const char *const words[][2] = {{"then", "else"}, {"condition", "do"}};
  const tern__ir_node *n = &d->g->node[at];
  char name[48];
  snprintf(name, sizeof name, "g%" PRIu32 "_%" PRIu32, d->id, at);
  tern__putf(d->w, "  %s [fillcolor=%s, label=\"", name, colour_of(n));
  put_label(d->w, tern__node_word(n));
  if (n->kind == TERN__IR_INPUT && n->n_attr) tern__putf(d->w, " #%" PRIu64, n->attr[0].u);
  if (n->kind == TERN__IR_VARIABLE && n->tensor && n->tensor->flags & TERN__VARIABLE) {
    tern__put(d->w, " ");
    put_label(d->w, n->tensor->variable->name);
  }
  if (n->kind == TERN__IR_SOURCE && n->source) tern__put(d->w, " "), put_label(d->w, n->source->name);
  if (n->kind == TERN__IR_SCALAR && n->n_attr && n->n_out) {
    char number[TERN__TEXT_NUMBER];
    tern__scalar_text((tern_dtype)d->g->value[n->first_out].dtype, n->attr[0], number);
    tern__putf(d->w, " %s", number);
  }
  if (n->n_out == 1 && d->g->value[n->first_out].name) {
    tern__put(d->w, "\\n%");
    put_label(d->w, d->g->value[n->first_out].name);
  }
  if (n->device) tern__put(d->w, "\\n"), put_label(d->w, n->device->name);
  tern__putf(d->w, "\"%s];\n", n->pinned ? ", penwidth=2" : "");
  for (uint32_t i = 0; i < n->n_in; i++) put_edge(d, n->in[i], name);
  for (int b = 0; b < 2; b++) {
    if (!n->body[b] || d->depth == TERN__TEXT_DEPTH) continue;
    const uint32_t body = *d->next;
    tern__putf(d->w, "  subgraph cluster_%" PRIu32 " {\n  label=\"%s ", body, words[n->kind == TERN__IR_WHILE][b]);
    put_label(d->w, n->body[b]->name);
    tern__put(d->w, "\"; style=rounded;\n");
    draw_graph(d->w, n->body[b], d->next, d->depth + 1);
    tern__put(d->w, "  }\n");
    if (n->body[b]->n_nodes) tern__putf(d->w, "  %s -> g%" PRIu32 "_0 [style=dotted, arrowhead=none];\n", name, body);
  }
}

static void draw_graph(tern__writer *w, const tern__graph *g, uint32_t *next, int depth) {
  const drawing d = {w, g, (*next)++, next, depth};
  char to[48];
  for (uint32_t i = 0; i < g->n_nodes && !w->bad; i++)
    if (g->node[i].kind != TERN__IR_DEAD) draw_node(&d, i);
  for (uint32_t i = 0; i < g->n_outputs; i++) {
    snprintf(to, sizeof to, "g%" PRIu32 "_result%" PRIu32, d.id, i);
    tern__putf(w, "  %s [shape=oval, fillcolor=white, label=\"result %" PRIu32 "\"];\n", to, i);
    put_edge(&d, g->output[i], to);
  }
  for (uint32_t i = 0; i < g->n_variables; i++) {
    const tern__ir_variable *v = &g->variable[i];
    if (v->node >= g->n_nodes || v->value == g->node[v->node].first_out) continue;
    snprintf(to, sizeof to, "g%" PRIu32 "_assign%" PRIu32, d.id, i);
    tern__putf(w, "  %s [shape=oval, fillcolor=lightsalmon, label=\"assign ", to);
    if (v->variable && v->variable->flags & TERN__VARIABLE) put_label(w, v->variable->variable->name);
    tern__put(w, "\"];\n");
    put_edge(&d, v->value, to);
  }
}

char *tern__graph_dot(const tern__graph *g) {
  tern__writer w = {.bad = false};
  uint32_t next = 0;
  tern__put(&w, "digraph \"");
  put_label(&w, g->name);
  tern__put(&w, "\" {\n  node [shape=box, style=\"filled,rounded\", fontname=\"sans-serif\"];\n"
                "  edge [fontname=\"sans-serif\", fontsize=10];\n");
  draw_graph(&w, g, &next, 1);
  tern__put(&w, "}\n");
  return tern__writer_end(&w);
}
