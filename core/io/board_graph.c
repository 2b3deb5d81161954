/* The graph of a function as TensorFlow's GraphDef: a node of ours is a node there, named by what the program called
   its value, else by its op; "/" in a name makes groups. Bodies of control nodes are groups within: their inputs hang
   on the control node's operands, and the control node on their results. */
#include "base/alloc.h"
#include "device/device.h"
#include "graph/dims.h"
#include "graph/function.h"
#include "graph/ir/text.h"
#include "io/board.h"
#include "tensor/tensor.h"
#include <stdio.h>
#include <stdlib.h>

enum { PRODUCER = 22 }; /* version of GraphDef: shapes in _output_shapes */

/* Everything is in blocks that are freed together. `bad`: memory ran out. */
typedef struct block {
  struct block *next;
  _Alignas(16) char data[];
} block;

typedef struct drawing {
  block *blocks;
  bool bad;
  Tern__Board__NodeDef **node;
  size_t n_nodes, node_room;
  char **names; /* open addressing */
  size_t n_names, name_room;
} drawing;

static void *room(drawing *d, size_t count, size_t size) {
  size_t bytes;
  if (d->bad || __builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX / 2) return NULL;
  block *b = tern__calloc(1, sizeof *b + bytes + 1);
  d->bad = !b;
  if (!b) return NULL;
  b->next = d->blocks;
  d->blocks = b;
  return b->data;
}

static char *copy(drawing *d, const char *text) {
  const size_t size = strlen(text) + 1;
  char *s = room(d, size, 1);
  return s ? memcpy(s, text, size) : NULL;
}

/* ---- names ---- */

static size_t place_of(char *const *names, size_t capacity, const char *name) {
  size_t hash = 1469598103934665603u; /* FNV-1a */
  for (const char *p = name; *p; p++) hash = (hash ^ (unsigned char)*p) * 1099511628211u;
  size_t i = hash & (capacity - 1);
  while (names[i] && strcmp(names[i], name) != 0) i = (i + 1) & (capacity - 1);
  return i;
}

/* False when it is there already. */
static bool add_name(drawing *d, char *name) {
  if (2 * d->n_names >= d->name_room) {
    const size_t capacity = d->name_room ? 2 * d->name_room : 256;
    char **names = room(d, capacity, sizeof *names);
    if (!names) return false;
    for (size_t i = 0; i < d->name_room; i++)
      if (d->names[i]) names[place_of(names, capacity, d->names[i])] = d->names[i];
    d->names = names;
    d->name_room = capacity;
  }
  const size_t i = place_of(d->names, d->name_room, name);
  if (d->names[i]) return false;
  d->names[i] = name;
  d->n_names++;
  return true;
}

/* "PREFIX" and the name with what TensorFlow allows in one, and a number behind it when that is taken. */
static char *fresh_name(drawing *d, const char *prefix, const char *name) {
  const size_t before = strlen(prefix), size = strlen(name);
  char *s = room(d, before + size + 24, 1);
  if (!s) return NULL;
  memcpy(s, prefix, before);
  for (size_t i = 0; i < size; i++) {
    const char c = name[i];
    const bool word = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.';
    const bool inner = i > 0 && (c == '-' || (c == '/' && i + 1 < size && name[i - 1] != '/'));
    s[before + i] = word || inner ? c : i > 0 ? '_' : '.';
  }
  for (long i = 1; !add_name(d, s) && !d->bad; i++) snprintf(s + before + size, 24, "_%ld", i);
  return s;
}

/* ---- nodes ---- */

static int type_of(int dtype) {
  static const int types[TERN_DTYPE_END] = {
      [TERN_BOOL] = 10, [TERN_I8] = 6,   [TERN_I16] = 5,  [TERN_I32] = 3,  [TERN_I64] = 9,
      [TERN_U8] = 4,    [TERN_U16] = 17, [TERN_U32] = 22, [TERN_U64] = 23, [TERN_F16] = 19,
      [TERN_BF16] = 14, [TERN_F32] = 1,  [TERN_F64] = 2};
  return dtype > 0 && dtype < TERN_DTYPE_END ? types[dtype] : 0;
}

static void add_input(drawing *d, Tern__Board__NodeDef *n, char *name) {
  if (!name || d->bad) return;
  if ((n->n_input & (n->n_input - 1)) == 0) { /* 0, 1, 2, 4, ..: full */
    char **more = room(d, n->n_input ? 2 * n->n_input : 1, sizeof *more);
    if (!more) return;
    if (n->n_input) memcpy(more, n->input, n->n_input * sizeof *more);
    n->input = more;
  }
  n->input[n->n_input++] = name;
}

/* A node without inputs and attributes; NULL when memory ran out. */
static Tern__Board__NodeDef *add_node(drawing *d, char *name, const char *op) {
  Tern__Board__NodeDef *n = room(d, 1, sizeof *n);
  if (d->n_nodes == d->node_room) {
    const size_t capacity = d->node_room ? 2 * d->node_room : 64;
    Tern__Board__NodeDef **more = room(d, capacity, sizeof *more);
    if (more && d->n_nodes) memcpy(more, d->node, d->n_nodes * sizeof *more);
    if (more) d->node = more;
    d->node_room = capacity;
  }
  if (d->bad) return NULL;
  tern__board__node_def__init(n);
  n->name = name;
  n->op = copy(d, op);
  d->node[d->n_nodes++] = n;
  return n;
}

static Tern__Board__AttrValue *add_attr(drawing *d, Tern__Board__NodeDef *n, size_t i, const char *key) {
  Tern__Board__AttrEntry *entry = room(d, 1, sizeof *entry);
  Tern__Board__AttrValue *value = room(d, 1, sizeof *value);
  char *name = copy(d, key);
  if (d->bad) return NULL;
  tern__board__attr_entry__init(entry);
  tern__board__attr_value__init(value);
  entry->key = name;
  entry->value = value;
  n->attr[i] = entry;
  return value;
}

static Tern__Board__TensorShapeProto *shape_of(drawing *d, const tern__ir_value *v) {
  Tern__Board__TensorShapeProto *shape = room(d, 1, sizeof *shape);
  Tern__Board__Dim **dims = room(d, v->rank, sizeof *dims), *dim = room(d, v->rank, sizeof *dim);
  if (d->bad) return NULL;
  tern__board__tensor_shape_proto__init(shape);
  shape->n_dim = v->rank;
  shape->dim = dims;
  for (int i = 0; i < v->rank; i++) {
    tern__board__dim__init(&dim[i]);
    dim[i].has_size = 1;
    dim[i].size = tern__dims_used(v->shape[i]) ? -1 : v->shape[i];
    dims[i] = &dim[i];
  }
  return shape;
}

/* dtype of the first output, shapes of all. */
static void add_types(drawing *d, Tern__Board__NodeDef *n, const tern__graph *g, const tern__ir_node *from) {
  n->attr = room(d, 2, sizeof *n->attr);
  Tern__Board__AttrValue *type = n->attr ? add_attr(d, n, 0, "dtype") : NULL,
                         *shapes = type ? add_attr(d, n, 1, "_output_shapes") : NULL;
  Tern__Board__ListValue *list = room(d, 1, sizeof *list);
  Tern__Board__TensorShapeProto **shape = room(d, from->n_out, sizeof *shape);
  if (!shapes || d->bad) return;
  type->has_type = 1;
  type->type = type_of(g->value[from->first_out].dtype);
  tern__board__list_value__init(list);
  for (uint32_t i = 0; i < from->n_out; i++) shape[i] = shape_of(d, &g->value[from->first_out + i]);
  list->n_shape = from->n_out;
  list->shape = shape;
  shapes->list = list;
  n->n_attr = d->bad ? 0 : 2;
}

static const char *name_of(const tern__graph *g, const tern__ir_node *n) {
  if (n->n_out > 0 && g->value[n->first_out].name) return g->value[n->first_out].name;
  if (n->kind == TERN__IR_VARIABLE && n->tensor && n->tensor->flags & TERN__VARIABLE && *n->tensor->variable->name)
    return n->tensor->variable->name;
  return tern__node_word(n);
}

/* The edge that carries a value: its node's name, and ":1" for the second output. */
static char *edge(drawing *d, const tern__graph *g, char *const *name, uint32_t value) {
  if (value >= g->n_values || !name[g->value[value].node]) return NULL;
  char *node = name[g->value[value].node], *text;
  if (g->value[value].out == 0) return node;
  text = room(d, strlen(node) + 12, 1);
  if (text) snprintf(text, strlen(node) + 12, "%s:%u", node, g->value[value].out);
  return text;
}

static void draw(drawing *d, const tern__graph *g, const char *prefix, char *const *inputs, uint32_t n_inputs,
                 Tern__Board__NodeDef *around, int depth);

/* Bodies: then, else of all operands but the first; condition, do of all. */
static void draw_bodies(drawing *d, const tern__graph *g, const tern__ir_node *n, Tern__Board__NodeDef *node,
                        char *const *name, int depth) {
  static const char *const words[][2] = {{"then", "else"}, {"condition", "do"}};
  const uint32_t skip = n->kind == TERN__IR_COND ? 1 : 0;
  char **operand = room(d, n->n_in, sizeof *operand);
  for (uint32_t i = skip; i < n->n_in && operand; i++) operand[i - skip] = edge(d, g, name, n->in[i]);
  for (int b = 0; b < 2 && !d->bad; b++) {
    if (!n->body[b] || depth == TERN__TEXT_DEPTH) continue;
    char *prefix = room(d, strlen(node->name) + 16, 1);
    if (!prefix) return;
    snprintf(prefix, strlen(node->name) + 16, "%s/%s/", node->name, words[n->kind == TERN__IR_WHILE][b]);
    draw(d, n->body[b], prefix, operand, n->n_in - skip, node, depth + 1);
  }
}

static void draw_node(drawing *d, const tern__graph *g, uint32_t at, const char *prefix, char *const *inputs,
                      uint32_t n_inputs, char **name, int depth) {
  const tern__ir_node *n = &g->node[at];
  name[at] = fresh_name(d, prefix, name_of(g, n));
  Tern__Board__NodeDef *node = name[at] ? add_node(d, name[at], tern__node_word(n)) : NULL;
  if (!node) return;
  if (n->device) {
    char device[100];
    snprintf(device, sizeof device, "/device:%s", n->device->name);
    node->device = copy(d, device);
  }
  for (uint32_t i = 0; i < n->n_in; i++) add_input(d, node, edge(d, g, name, n->in[i]));
  if (n->kind == TERN__IR_INPUT && inputs && n->n_attr && n->attr[0].u < n_inputs)
    add_input(d, node, inputs[n->attr[0].u]);
  if (n->n_out > 0) add_types(d, node, g, n);
  draw_bodies(d, g, n, node, name, depth);
}

/* What the graph gives: results of the function become nodes, those of a body inputs of the node around it. Variables
   that end with another value have a node for that. */
static void draw_ends(drawing *d, const tern__graph *g, const char *prefix, char *const *name,
                      Tern__Board__NodeDef *around) {
  for (uint32_t i = 0; i < g->n_outputs && !d->bad; i++) {
    char *from = edge(d, g, name, g->output[i]);
    Tern__Board__NodeDef *n = around;
    if (!n && from) n = add_node(d, fresh_name(d, prefix, "result"), "result");
    if (n) add_input(d, n, from);
  }
  for (uint32_t i = 0; i < g->n_variables && !d->bad; i++) {
    const tern__ir_variable *v = &g->variable[i];
    if (v->node >= g->n_nodes || v->value == g->node[v->node].first_out || !name[v->node]) continue;
    char *variable = name[v->node], *text = room(d, strlen(variable) + 8, 1);
    if (!text) return;
    snprintf(text, strlen(variable) + 8, "%s/assign", variable);
    Tern__Board__NodeDef *n = add_node(d, fresh_name(d, "", text), "assign");
    if (!n) return;
    add_input(d, n, variable);
    add_input(d, n, edge(d, g, name, v->value));
  }
}

static void draw(drawing *d, const tern__graph *g, const char *prefix, char *const *inputs, uint32_t n_inputs,
                 Tern__Board__NodeDef *around, int depth) {
  char **name = room(d, g->n_nodes, sizeof *name);
  for (uint32_t i = 0; i < g->n_nodes && !d->bad; i++)
    if (g->node[i].kind != TERN__IR_DEAD) draw_node(d, g, i, prefix, inputs, n_inputs, name, depth);
  if (!d->bad) draw_ends(d, g, prefix, name, around);
}

/* ---- the event ---- */

static tern_rc write_graph(void *self, const tern__graph *g) {
  tern_board *b = self;
  drawing d = {0};
  Tern__Board__GraphDef def = TERN__BOARD__GRAPH_DEF__INIT;
  Tern__Board__VersionDef version = TERN__BOARD__VERSION_DEF__INIT;
  Tern__Board__Event event = TERN__BOARD__EVENT__INIT;
  draw(&d, g, "", NULL, 0, NULL, 1);
  version.has_producer = 1;
  version.producer = PRODUCER;
  def.versions = &version;
  def.n_node = d.n_nodes;
  def.node = d.node;
  const size_t size = d.bad ? 0 : tern__board__graph_def__get_packed_size(&def);
  event.graph_def.data = room(&d, size, 1);
  tern_rc rc = TERN_OK;
  if (d.bad) {
    rc = tern__fail(TERN_E_OOM, "board_graph: %.400s: out of host memory for the graph of \"%.100s\"",
                    tern__board_path(b), g->name);
  } else {
    event.has_graph_def = 1;
    event.graph_def.len = tern__board__graph_def__pack(&def, event.graph_def.data);
    rc = tern__board_event(b, "board_graph", &event);
  }
  while (d.blocks) {
    block *next = d.blocks->next;
    free(d.blocks);
    d.blocks = next;
  }
  return rc;
}

tern_rc tern_board_graph(tern_board *b, struct tern_function *function) {
  if (!b) return tern__fail(TERN_E_ARG, "board_graph: the writer is NULL");
  return tern__function_look(function, "board_graph", write_graph, b);
}
