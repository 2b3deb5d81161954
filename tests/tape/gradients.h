/* Gradients against finite differences. A case is one public op with options, the shapes of its inputs and where their
   values lie; a check of it compares the tape with differences of the op itself, in several layouts and dtypes. The
   tables of cases are beside this file. */
#ifndef TERN_TESTS_TAPE_GRADIENTS_H_
#define TERN_TESTS_TAPE_GRADIENTS_H_
#include "support/values.h"

enum { GRADIENT_INPUTS = 5, GRADIENT_NUMEL = 512 };

/* An input's values: spread evenly over [low, high] in random order, no two near each other, then moved `away` from 0
   and the first `zeros` of them made 0. low == high: no such input. */
typedef struct gradient_input {
  tern_shape shape;
  double low, high, away;
  int zeros;
} gradient_input;

enum {
  GRADIENT_FIRST_ONLY = 1, /* no second derivative: the op has none to speak of */
  GRADIENT_MINOR = 2,      /* another form of a case before it: left out where each kernel must be compiled */
  GRADIENT_WIDE_ONLY = 4,  /* float64 only */
};

typedef struct gradient_case {
  const char *op;   /* name in the table, or of a public function made of such */
  const char *form; /* what is special */
  tern_tensor *(*body)(tern_tensor *const *x, int form);
  int number; /* the form, for body */
  gradient_input in[GRADIENT_INPUTS];
  unsigned flags;
  double step;  /* of the differences; 0: 2^-18 */
  double loose; /* factor of the tolerance; 0: 1 */
} gradient_case;

/* in[]: sizes last. The comma before none: IN(0, 1, ) is a scalar. */
#define IN(from, to, ...) \
  { .shape = {TERN_COUNT(__VA_ARGS__), {__VA_ARGS__}}, .low = (from), .high = (to) }
#define IN_AWAY(from, to, gap, ...) \
  { .shape = {TERN_COUNT(__VA_ARGS__), {__VA_ARGS__}}, .low = (from), .high = (to), .away = (gap) }
#define IN_ZEROS(from, to, n, ...) \
  { .shape = {TERN_COUNT(__VA_ARGS__), {__VA_ARGS__}}, .low = (from), .high = (to), .zeros = (n) }

/* A case of a table; its inputs last. */
#define ROW(name, what, function, argument, bits, ...)                                                             \
  {                                                                                                                \
    .op = (name), .form = (what), .body = (function), .number = (argument), .flags = (bits), .in = { __VA_ARGS__ } \
  }

typedef void (*gradient_visit)(const gradient_case *c, void *context);
#define GRADIENT_ROWS(rows, visit, context) \
  for (size_t row_ = 0; row_ < sizeof(rows) / sizeof *(rows); row_++) visit(&(rows)[row_], context)

/* Every case of a table, in order: reductions with scans and products; arrangements are views, joins, picking, sorting
   and scattering; nn is activations, normalisation, attention, convolution and pooling. */
void gradient_map_cases(gradient_visit visit, void *context);
void gradient_reduce_cases(gradient_visit visit, void *context);
void gradient_arrange_cases(gradient_visit visit, void *context);
void gradient_nn_cases(gradient_visit visit, void *context);
void gradient_loss_cases(gradient_visit visit, void *context);

/* What was done with the cases of a table. */
typedef struct gradient_count {
  int cases, checks, left_out;
} gradient_count;
/* A visit that checks; context: a gradient_count. On a device that compiles kernels a slice is checked, the rest
   counted as left out. */
void gradient_check(const gradient_case *c, void *count);
/* All cases of a table, and a line of what was left out. */
void gradient_check_all(const char *table, void (*cases)(gradient_visit visit, void *context));
#endif
