/* A body run eagerly and as a function, call after call with operands of other sizes, and the results compared. Used by
   the tests of single ops and of random graphs. */
#ifndef TERN_TESTS_GRAPH_TRACED_H_
#define TERN_TESTS_GRAPH_TRACED_H_
#include "support/values.h"

enum { TRACED_VALUES = 16 };

/* Makes the operands of call number `call` into in[] and brings variables and random numbers to where the call begins;
   0, or an error code: these operands do not exist. */
typedef tern_rc (*traced_operands)(void *self, int call, tern_tensor **in);

typedef struct traced {
  const char *name; /* for messages */
  tern_function_body body;
  traced_operands operands;
  void *self;
  int n_in, n_out, n_calls;
  tern_tensor *const *variables; /* compared after each call */
  int n_variables;
  const double *slack; /* of each result and variable, absolute; NULL: see tolerance */
  double tolerance;    /* of the largest element, relative; in units of its dtype's rounding. 0: the same bits */
} traced;

/* What the calls of traced_check came to. */
typedef struct traced_count {
  int functions, calls, compared, many_traces, left_out;
} traced_count;

/* Runs all calls eagerly, then as one function with these options; false when something differs (said). Calls that
   fail eagerly must fail in the function too when only_valid is 0, and are left out otherwise. */
bool traced_check(const traced *t, const tern_function_opts *opts, traced_count *count);

/* The same bits, or within `tolerance` roundings of the largest element and `slack`; text says what differs. */
bool traced_same(tern_tensor *got, tern_tensor *expected, double tolerance, double slack, char *text, size_t size);
#endif
