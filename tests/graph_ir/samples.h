/* Graphs for the tests of the IR: a few small ones by hand, random ones, and nodes in one call. */
#ifndef TERN_TESTS_GRAPH_IR_SAMPLES_H_
#define TERN_TESTS_GRAPH_IR_SAMPLES_H_
#include "graph/ir/ir.h"
#include <stdint.h>

/* Each returns the number of the node's first value; the graph must not run out of memory. */
uint32_t add_input(tern__graph *g, tern_dtype dtype, int rank, const int64_t *shape);
uint32_t add_const(tern__graph *g, tern_tensor *t); /* takes a reference of its own */
uint32_t add_variable(tern__graph *g, tern_tensor *v);
uint32_t add_scalar(tern__graph *g, double value);
uint32_t add_scalar_int(tern__graph *g, int64_t value);
/* An op whose one output has that type; attributes as words. */
uint32_t add_op(tern__graph *g, const char *op, const uint32_t *in, uint32_t n_in, const tern_word *attr,
                uint32_t n_attr, tern_dtype dtype, int rank, const int64_t *shape);
/* The same with the output's type from inference. TERN__IR_NONE when that refuses the call. */
uint32_t add_inferred(tern__graph *g, const char *op, const uint32_t *in, uint32_t n_in, const tern_word *attr,
                      uint32_t n_attr);
void set_type(tern__graph *g, uint32_t value, tern_dtype dtype, int rank, const int64_t *shape);
void set_name(tern__graph *g, uint32_t value, const char *name);

/* Every kind of node and every view, named values, optional operands left out, bodies, assignments. */
tern__graph *sample_all_kinds(void);
/* About n nodes of unary, binary, reduction, product and view ops; what nothing uses is returned. */
tern__graph *sample_random(uint64_t seed, int n);

/* The graph as text; the caller frees it. Fails the test (and returns "") when there is none. */
char *text_of(const tern__graph *g, int constants);
/* The graph of a text; NULL with the thread's error. */
tern__graph *parse(const char *text);
#endif
