/* What an op is: one table entry in its family's file. Everything that differs between ops is a column here. */
#ifndef TERN_OPS_OP_H_
#define TERN_OPS_OP_H_
#include "region/region.h"
#include "tensor/tensor.h"

/* One use of an op: the unit that hooks see. */
typedef struct tern__call {
  const struct tern__op *op;
  tern_tensor *const *in; /* TERN_NONE where an optional one is left out */
  int n_in;
  const tern_word *attr; /* the op's attributes, as its infer function reads them */
  int n_attr;
} tern__call;

/* What an op's outputs will be; filled by infer. shape is the public one (a request may see it with other dims). */
typedef struct tern__result {
  tern_dtype dtype;
  int rank;
  int64_t shape[TERN_MAX_RANK];
} tern__result;

/* One step of a backward pass, as an op's gradient rule sees it. in and out are the operands and results of the forward
   call: their data is there only where the op's `keeps` says so; else only shape, dtype and device. */
typedef struct tern__grad {
  const struct tern__op *op;
  tern_tensor *const *in, *const *out;
  tern_tensor *const
      *dout; /* gradients of out, of out's shape and dtype; TERN_NONE where none came (not with one output) */
  const tern_word *attr;
  int n_in, n_out, n_attr;
  uint32_t wanted; /* bit i: din[i] is asked for; the rule may fill others, they are not used */
} tern__grad;

enum { TERN__KEEP_A = 1, TERN__KEEP_B = 2, TERN__KEEP_C = 4, TERN__KEEP_OUT = 1 << 16 };
#define TERN__KEEP_IN(i) (1u << (i))

/* What tern-info calls an op with, to find out what a device does with it: x and y are ones, [2, 3], of dtype d (one of
   the op's dtypes) on the device that is asked. */
typedef struct tern__sample {
  const struct tern__op *op;
  tern_dtype d;
  tern_tensor *x, *y;
} tern__sample;

typedef struct tern__op {
  const char *name;         /* as in tern_NAME */
  const char *family;       /* the file: "map", "reduce", ... */
  const char *operands;     /* for docs: "a, b" */
  const char *doc;          /* one line */
  uint16_t prim;            /* the primitive that it is when computed in one node; 0: a composite */
  uint16_t number;          /* place in the table */
  uint32_t dtypes;          /* computed in one of these (bit d = dtype d) */
  uint8_t optional;         /* bit i: operand i may be TERN_NONE */
  uint32_t first_float : 1; /* integers are turned into a float first */
  uint32_t draws : 1;       /* random numbers: no two calls are the same */
  /* Check operands, fill the request but for OUT storages (and canonical form), and the results. */
  tern_rc (*infer)(const tern__call *c, tern__request *q, tern__result *results);
  void (*lower)(tern__builder *b);
  double absolute,
      relative; /* tolerance of float results between devices, of float32 (float64: 1e-8 of it; 16-bit: their epsilon) */
  double ulp;
  double of_nothing; /* reductions: the result over no elements; NaN: an error */
  /* The gradient rule: fills din[i] for every wanted i (they come filled with TERN_NONE: no gradient). Written with
     public ops, so that it can be recorded itself. din[i] may have any shape that broadcasting in[i] gives, and another
     float dtype: the caller sums and casts. A din[i] of NULL means that an op failed. NULL: no gradient flows through
     this op. */
  void (*grad)(const tern__grad *g, tern_tensor **din);
  uint32_t keeps; /* what the rule reads the data of: bit i input i, bit 16 + o output o */
  /* One small call of the op in dtype d on x's device, on whatever of x and y it takes; NULL with the error set. Called
     twice, and only what the second call does counts. Every op has one (the entries of single nodes do not). */
  tern_tensor *(*sample)(const tern__sample *s);
} tern__op;

/* table.c: op number i, NULL past the last. Numbers begin at 1. */
const tern__op *tern__op_at(int i);
/* The table entry that stands for one node of a primitive (for splitting a composite and for the conformance kit). */
const tern__op *tern__op_of_prim(uint32_t prim);
/* By public name; NULL. */
const tern__op *tern__op_named(const char *name);
/* By name, those too that only the core calls (updates of optimisers, what graphs are written with). NULL. */
const tern__op *tern__op_find(const char *name);
/* Facts of the primitive table. */
typedef struct tern__prim {
  const char *name;
  uint16_t number;
  int8_t n_in;
  uint8_t kind;
  uint32_t dtypes;
} tern__prim;
const tern__prim *tern__prim_of(uint32_t number); /* NULL: unknown */
const tern__prim *tern__prim_at(int i);           /* in the table's order; NULL past the last */

/* ---- shared by the families (infer.c) ---- */

/* The dtype that operands [0, n) of the call meet in; weak scalars count weakly, TERN_NONE not at all. */
tern_dtype tern__meet(const tern__call *c, int first, int n);
/* Broadcast the operands to one space: fills n_space, sizes, and operand i's dims and strides for i < n. */
tern_rc tern__space(const tern__call *c, tern__request *q);
/* The dtype check of the op's column, with an error that names what is accepted. */
tern_rc tern__check_dtype(const tern__call *c, tern_dtype d);
/* Operand i from a tensor, dims right-aligned in a space of n_space dims (weak scalars become PARAMs of dtype). */
void tern__operand_of(tern__request *q, int i, tern_tensor *t, tern_dtype param_dtype);
/* A rank-0 PARAM. */
void tern__operand_param(tern__request *q, int i, tern_dtype dtype, tern_word value);
/* Output o covers the whole space (dims not in `ones`, a bit mask, which it has as 1), row-major. */
void tern__operand_out(tern__request *q, int o, tern_dtype dtype, uint32_t ones);
/* An optional tensor of an options struct: TERN_NONE when it is left out (NULL), but NULL while an error is pending,
   since then it may be what failed. */
tern_tensor *tern__optional(tern_tensor *t);
/* Fill the result from the space. */
void tern__result_space(const tern__request *q, tern__result *r, tern_dtype dtype);
/* axis in 0 .. rank-1 from a possibly negative one; -1 with an error. */
int tern__axis(const char *op, int axis, int rank);

/* random.c: where the process's generator stands. A pass that is repeated seeks to where it began. */
typedef struct tern__random_state {
  uint64_t seed, counter;
} tern__random_state;
tern__random_state tern__random_get(void);
void tern__random_set(tern__random_state state);

/* Samples of the ops that have no attributes: the op of x, and of x and y. */
tern_tensor *tern__sample_x(const tern__sample *s);
tern_tensor *tern__sample_xy(const tern__sample *s);

/* Lowering of an op that is one node of its primitive, all inputs cast to what the request wants. */
void tern__lower_prim(tern__builder *b);
#endif
