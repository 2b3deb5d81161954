/* Random programs: a list of ops with operands and parameters, made from a seed, that holds for any sizes of its
   variable axes and knows how far rounding may spread in each value. Run eagerly or inside a traced function. */
#ifndef TERN_TESTS_GRAPH_RANDOM_GRAPH_H_
#define TERN_TESTS_GRAPH_RANDOM_GRAPH_H_
#include "support/values.h"

enum {
  RANDOM_STEPS = 60,
  RANDOM_VALUES = 96,
  RANDOM_INPUTS = 4,
  RANDOM_OUTPUTS = 5,
  RANDOM_CLASSES = 3,
  RANDOM_RANK = 4
};

/* mul * s[a] * s[b] + add; a, b -1: 1. */
typedef struct random_size {
  int8_t a, b;
  int16_t mul, add;
} random_size;

typedef struct random_form {
  tern_dtype dtype;
  int rank;
  random_size dim[RANDOM_RANK];
  bool exact;          /* the same bits whatever is fused */
  double bound, error; /* of the absolute values; how far two ways of computing it may lie apart */
} random_form;

typedef struct random_step {
  int op, in[3], n_in, p[8]; /* p: parameters of the op */
  double value;
  tern_dtype dtype;
} random_step;

typedef struct random_graph {
  uint64_t seed;
  int n_inputs, n_values, n_steps, n_outputs, n_variables;
  random_form form[RANDOM_VALUES]; /* inputs, constants, then what the steps make */
  random_step step[RANDOM_STEPS];
  int first_step_value, output[RANDOM_OUTPUTS];
  tern_tensor *constant, *variable[2]; /* references */
  double variable_error[2];
  int64_t size[RANDOM_CLASSES]; /* of the call: for operands only */
} random_graph;

/* A graph with up to `steps` ops; the variables and constants are made. False with the thread's error set. */
bool random_graph_make(random_graph *g, uint64_t seed, int steps);
void random_graph_end(random_graph *g);
/* Operands for these sizes, the variables at their beginnings. */
tern_rc random_graph_operands(random_graph *g, int call, tern_tensor **in);
/* The body (a tern_function_body). */
tern_rc random_graph_body(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out);
/* The program as text, for a report. */
void random_graph_print(const random_graph *g);
#endif
