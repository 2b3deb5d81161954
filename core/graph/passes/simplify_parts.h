/* What the passes of simplification share. */
#ifndef TERN_GRAPH_PASSES_SIMPLIFY_PARTS_H_
#define TERN_GRAPH_PASSES_SIMPLIFY_PARTS_H_
#include "graph/passes/simplify.h"
#include "ops/table.h"
#include "ops/write.h"
#include "tensor/dtype.h"

/* A sweep of rules over the graph. */
typedef struct tern__rewrite {
  tern__graph *g;
  bool fast_math, changed, failed;
  uint32_t *map;      /* value -> the value that stands for it, which stands for itself */
  uint32_t *uses;     /* of each value; never too few */
  uint32_t capacity;  /* of both */
  uint32_t first_new; /* nodes from here on were added */
  uint32_t *before;   /* for each of them: the node that it goes before */
  uint32_t before_capacity;
} tern__rewrite;

/* One identity: true when node i was changed, or its value replaced. */
typedef bool (*tern__identity)(tern__rewrite *r, uint32_t i);

/* What the table knows of an op beside its rules. */
enum {
  TERN__OP_MAP = 1,      /* elementwise with broadcasting: element k of the result from elements k of the operands */
  TERN__OP_SWAPS = 2,    /* a and b may change places: always */
  TERN__OP_SWAPS_INT = 4 /* .. where the result is no float (of two NaN the first comes out) */
};
uint32_t tern__op_facts(const tern__op *op);
/* Ends with NULL; NULL: none. simplify_table.c */
const tern__identity *tern__rules_of(const tern__op *op);

static inline tern__ir_node *tern__maker(const tern__graph *g, uint32_t v) { return &g->node[g->value[v].node]; }
static inline bool tern__made_by(const tern__graph *g, uint32_t v, const tern__op *op) {
  const tern__ir_node *n = tern__maker(g, v);
  return n->kind == TERN__IR_OP && n->op == op;
}
/* What v is reshaped from, however often. */
static inline uint32_t tern__behind_reshapes(const tern__graph *g, uint32_t v) {
  while (tern__made_by(g, v, &tern__op_reshape)) v = tern__maker(g, v)->in[0];
  return v;
}
static inline bool tern__is_bits(tern_dtype d) { return d == TERN_BOOL || tern__is_int(d); }

/* simplify_rules.c */
bool tern__same_shape(const tern__ir_value *a, const tern__ir_value *b);
/* dtype, shape, device, weakness. */
bool tern__same_type(const tern__ir_value *a, const tern__ir_value *b);
/* Whether every element of v is one number known now: *w of dtype *d. */
bool tern__uniform(const tern__graph *g, uint32_t v, tern_word *w, tern_dtype *d);
/* The same, converted to dtype d, and equal to x (with its sign, where x is 0 and d a float). */
bool tern__is_number(const tern__graph *g, uint32_t v, tern_dtype d, double x);
/* Whether the number may be made of sizes that vary (dims.h). */
bool tern__varies(int64_t size);
bool tern__varies_word(tern_word w, tern_dtype d);

/* What rules do; all return true when it was done. */
bool tern__stand_in(tern__rewrite *r, uint32_t i, uint32_t value); /* false where the types differ */
bool tern__become(tern__rewrite *r, uint32_t i, const tern__op *op, const uint32_t *in, uint32_t n_in,
                  const tern_word *attr, uint32_t n_attr);
static inline bool tern__become1(tern__rewrite *r, uint32_t i, const tern__op *op, uint32_t a) {
  return tern__become(r, i, op, &a, 1, NULL, 0);
}
static inline bool tern__become2(tern__rewrite *r, uint32_t i, const tern__op *op, uint32_t a, uint32_t b) {
  return tern__become(r, i, op, (const uint32_t[]){a, b}, 2, NULL, 0);
}
/* `full` of a word of the result's dtype. */
bool tern__become_full(tern__rewrite *r, uint32_t i, tern_word w);
/* full of 0 or 1. */
bool tern__become_number(tern__rewrite *r, uint32_t i, int x);
/* A host scalar of dtype float64 or int64; a node of one operand and no attributes before node i, whose value has the
   dtype and device of the operand. TERN__IR_NONE on failure. */
uint32_t tern__new_scalar(tern__rewrite *r, tern_dtype d, tern_word w);
uint32_t tern__new_node(tern__rewrite *r, uint32_t i, const tern__op *op, uint32_t in, int rank, const int64_t *shape);

/* Moves nodes [first_new, ..) in front of the nodes before[k] (of the first first_new), keeping order, and numbers all
   anew. */
tern_rc tern__graph_settle(tern__graph *g, uint32_t first_new, const uint32_t *before);
/* Part [first, step, count] of each axis, as `write` and `slice` name it. */
bool tern__dense_strides(int rank, const int64_t *shape, const int64_t *stride);
#endif
