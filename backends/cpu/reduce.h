/* Reductions, one function a kind: along a row (one accumulator) and down columns (an accumulator a column). The region
   executor picks blocks; nothing here knows threads or strides. */
#ifndef TERN_CPU_REDUCE_H_
#define TERN_CPU_REDUCE_H_
#include "cpu.h"

/* Accumulators of n columns (1 for a row): v is an array of the acc dtype; i, for ARGMAX and ARGMIN only, of indices */
typedef struct cpu_acc {
  void *v;
  int64_t *i;
} cpu_acc;

/* acc[0] takes in x[0..n), contiguous; x[k] has index first + k (rising from call to call) */
typedef void (*cpu_row_fn)(cpu_acc acc, const void *x, int64_t n, int64_t first);
/* acc[j] takes in x[r * ld + j] for r < rows, j < n; row r has index first + r */
typedef void (*cpu_col_fn)(cpu_acc acc, const void *x, int64_t ld, int64_t rows, int64_t n, int64_t first);
/* acc[j] takes in from[j], j < n, whose indices are all above those that acc has seen, or all below */
typedef void (*cpu_merge_fn)(cpu_acc acc, cpu_acc from, int64_t n);

typedef struct cpu_reduce {
  uint32_t in_dtype;  /* what row and col read: the value's dtype, but float32 for float16 and bfloat16 (CAST first) */
  uint32_t acc_dtype; /* of acc.v: float64 for sums and products of floats, else in_dtype */
  uint32_t out_dtype; /* of the result; I64 where the indices are the result */
  bool indexed;       /* acc.i is used, and is the result */
  tern_word identity; /* first value of an accumulator, as a word of acc_dtype; acc.i starts at INT64_MAX */
  cpu_row_fn row;
  cpu_col_fn col;
  cpu_merge_fn merge;
} cpu_reduce;

/* The reduction `op` of values of dtype. UNSUPPORTED: no such */
tern_rc cpu_reduce_find(uint32_t op, uint32_t dtype, cpu_reduce *out);
/* Accumulators of n columns: before anything */
void cpu_reduce_start(const cpu_reduce *r, cpu_acc acc, int64_t n);
/* The results of n columns into out (contiguous, of out_dtype) */
void cpu_reduce_finish(const cpu_reduce *r, cpu_acc acc, void *out, int64_t n);
#endif
