/* The graph: a list of nodes in topological order over values in SSA form. A node is an op of the table (views, writes
   and copies between devices included), a leaf (input, constant, host scalar, variable), an effect (print) or a control
   node with graphs of its own. Shapes are numbers; in a graph traced for sizes that vary, some of them stand for a
   variable size (dims.h). A graph is built and changed by one thread. */
#ifndef TERN_GRAPH_IR_H_
#define TERN_GRAPH_IR_H_
#include "ops/op.h"

#define TERN__IR_NONE UINT32_MAX /* an operand that is left out (TERN_NONE) */

typedef enum tern__ir_kind {
  TERN__IR_DEAD = 0, /* removed by a pass; tern__ir_compact drops it */
  TERN__IR_OP,       /* node->op of in[] with attr[] */
  TERN__IR_INPUT,    /* argument, placeholder, or what a control node hands to its body; attr[0].u = its number */
  TERN__IR_CONST,    /* node->tensor, an eager tensor (one reference, never written) */
  TERN__IR_SCALAR,   /* a host scalar known now: attr[0] is the value, of the value's dtype (float64 or int64); weak */
  TERN__IR_SOURCE,   /* a host scalar that node->source gives anew in each run; weak */
  TERN__IR_VARIABLE, /* the value of variable node->tensor (one reference) when the run begins */
  TERN__IR_PRINT,    /* in[0] is printed when the run comes by; attr[0].u: 1 = values only. No output */
  TERN__IR_COND,     /* in[0]: BOOL, one element; in[1..]: inputs of both bodies, whose results are the outputs */
  TERN__IR_WHILE /* in[]: n_out states, then what the bodies read besides. body[0]: one BOOL element, whether to go on;
                        body[1]: the next states. attr[0].i: the most trips, 0 = no limit */
} tern__ir_kind;

/* What changes from run to run though no tensor carries it: random counters, a schedule's learning rate. next is called
   once a run, in the order of the nodes; the graph owns a reference to `owner` where release is set. */
typedef struct tern__ir_source {
  tern_rc (*next)(void *self, int64_t elements, tern_word *out, int n_out);
  void *self;
  void (*release)(void *self);
  const char *name; /* for the text form; static */
} tern__ir_source;

typedef struct tern__ir_value {
  uint32_t node; /* that makes it */
  uint16_t out;  /* as which of its outputs */
  uint8_t dtype, rank;
  bool weak; /* a host scalar: no memory, no device */
  int64_t shape[TERN_MAX_RANK];
  struct tern__device *device; /* where it lies; NULL for weak ones */
  char *name;                  /* owned; NULL: "%NUMBER" in the text form */
} tern__ir_value;

typedef struct tern__graph tern__graph;
typedef struct tern__ir_node {
  uint8_t kind;
  bool pinned;    /* the program asked for the device by name: placement leaves it alone */
  uint16_t again; /* not 0: computes a value a second time to save memory. Fusion must not draw it forward in time,
                          and it is no common subexpression but of nodes with the same number */
  uint16_t n_attr;
  uint32_t n_in, n_out;
  uint32_t first_out; /* outputs are values first_out, first_out + 1, .. */
  uint32_t *in;       /* value numbers; owned by the graph's arena, as attr */
  tern_word *attr;
  const tern__op *op;          /* OP */
  struct tern__device *device; /* where it runs; NULL: leaves without a place */
  tern_tensor *tensor;         /* CONST, VARIABLE */
  tern__ir_source *source;     /* SOURCE; in the arena */
  tern__graph *body[2];        /* COND: then, else; WHILE: condition, body. Owned */
} tern__ir_node;

/* A variable that the graph reads or assigns. */
typedef struct tern__ir_variable {
  tern_tensor *variable; /* the reference is the node's */
  uint32_t node;         /* its VARIABLE node */
  uint32_t value;        /* what it holds when the run ends; the node's own output: only read */
} tern__ir_variable;

/* Labels of a loss that are an argument of the function: each run looks whether they are classes (labels.h). Not in the
   text form. */
typedef struct tern__ir_label {
  const char *op; /* for messages; static */
  uint32_t input;
  bool ignore;              /* ignored is no class, and allowed */
  int64_t classes, ignored; /* classes: a size */
} tern__ir_label;

struct tern__graph {
  char *name; /* owned */
  tern__ir_node *node;
  tern__ir_value *value;
  uint32_t n_nodes, n_values, node_capacity, value_capacity;
  uint32_t *input, n_inputs;   /* values, in the order of the arguments */
  uint32_t *output, n_outputs; /* values; TERN__IR_NONE where a result is TERN_NONE */
  tern__ir_variable *variable;
  uint32_t n_variables, input_capacity, output_capacity, variable_capacity;
  tern__ir_label *label; /* in the arena */
  uint32_t n_labels;
  struct tern__ir_chunk *chunks; /* operand and attribute arrays */
};

/* ---- building (ir.c); every function that can fail records the error ---- */

tern__graph *tern__graph_new(const char *name); /* NULL on failure */
void tern__graph_free(tern__graph *g);          /* NULL is allowed; releases tensors, sources, bodies */
void *tern__graph_alloc(tern__graph *g, size_t count, size_t size); /* zeroed, ends with the graph; NULL on failure */
/* A node with copies of in and attr and n_out fresh values (dtype 0: the caller fills them in). TERN__IR_NONE on
   failure. */
uint32_t tern__graph_add(tern__graph *g, tern__ir_kind kind, const tern__op *op, const uint32_t *in, uint32_t n_in,
                         const tern_word *attr, uint32_t n_attr, uint32_t n_out);
/* The node of one output that makes `value`, once more at the end, with operands in[] (as many) and all else as it has:
   its output, without a name. TERN__IR_NONE on failure. */
uint32_t tern__graph_repeat(tern__graph *g, uint32_t value, const uint32_t *in);
/* Append to g->input / g->output / g->variable. */
tern_rc tern__graph_add_input(tern__graph *g, uint32_t value);
tern_rc tern__graph_add_output(tern__graph *g, uint32_t value);
tern_rc tern__graph_add_variable(tern__graph *g, tern_tensor *variable, uint32_t node);
/* A copy with every size mapped (NULL: as they are); tensors gain references. NULL on failure. */
tern__graph *tern__graph_clone(const tern__graph *g, int64_t (*map)(void *context, int64_t size), void *context);
/* Drop DEAD nodes and the values of no node, numbering the rest anew in order. */
tern_rc tern__graph_compact(tern__graph *g);
/* Node i moves to place number[i], a permutation that keeps topological order; values are numbered anew in that order.
   On failure the graph is as it was. */
tern_rc tern__graph_permute(tern__graph *g, const uint32_t *number);
/* Adds to uses[v], for each value v, how many operands of live nodes, outputs and variables at their end are v. */
void tern__graph_count_uses(const tern__graph *g, uint32_t *uses);
/* Every use of value `from` (operands, outputs, what variables end with) becomes `to`. O(graph): passes that replace
   many keep a map and apply it once with tern__graph_replace_all: map[v] = the value that stands for v. */
void tern__graph_replace_all(tern__graph *g, const uint32_t *map);
/* Whether the node must stay though nothing uses it (PRINT, a body with a PRINT). */
bool tern__ir_effect(const tern__ir_node *n);

/* Whether the node's bodies, or it, have a SOURCE. */
bool tern__ir_draws(const tern__ir_node *n);

/* Bytes of the value's elements; 0 for host scalars. */
uint64_t tern__ir_bytes(const tern__ir_value *v);

/* Views of another value of the graph: the ops reshape, permute, slice, expand. */
bool tern__ir_is_view(const tern__ir_node *n);

/* verify.c: SSA, order, arities, shapes and dtypes as inference gives them, devices, variables, bodies. The error names
   node and rule, and `after`, the pass that ran last. */
tern_rc tern__graph_verify(const tern__graph *g, const char *after);

/* text.c, parse.c, dot.c: docs/formats.md. Malloc'ed text; NULL with the error set. Constants of at most 16 elements
   are written in full, larger ones by shape and hash (constants != 0: in full, so that the parser can read them
   back). */
char *tern__graph_text(const tern__graph *g, int constants);
char *tern__graph_dot(const tern__graph *g);
/* Variables are made (with their values where the text has them, else zeros). Errors name line and column. */
tern__graph *tern__graph_parse(const char *text, size_t length);
#endif
