/* Every MAP, REDUCE and SCAN primitive in every dtype and layout class: the cases are the product of three tables. */
#include "check.h"
#include <stdio.h>
#include <string.h>

/* How an operand lies: c dense; t the reverse order of dims; x the first two dims swapped; s every second element,
   padded rows; p padded rows; n last dim backwards; m all dims backwards; 0 one element; r last dim only; k all dims
   but the last; o dense, one element off its alignment; y, z stride 0 in the last, first dim, which is there all the
   same; = the same argument as input 0; P PARAM; K CONST. Output: also A, B in place over input 0, 1. */
typedef struct layout {
  const char *name;
  uint8_t rank, mask; /* mask: reduced dims, or the scanned dim */
  const char *in;
  char out;
  bool quick, wide;
} layout;

static const layout unary[] = {{"contiguous", 1, 0, "c", 'c', true, false},
                               {"transposed", 2, 0, "t", 'c', true, false},
                               {"strided", 2, 0, "s", 'c', false, false},
                               {"padded rows", 2, 0, "p", 'c', false, false},
                               {"reversed", 1, 0, "n", 'c', true, false},
                               {"all reversed, rank 3", 3, 0, "m", 'c', false, false},
                               {"broadcast scalar", 1, 0, "0", 'c', true, false},
                               {"broadcast row", 2, 0, "r", 'c', false, false},
                               {"broadcast column", 2, 0, "k", 'c', false, false},
                               {"permuted, rank 3", 3, 0, "x", 'c', false, false},
                               {"transposed, rank 4", 4, 0, "t", 'c', false, false},
                               {"transposed, rank 8", 8, 0, "t", 'c', false, false},
                               {"in place", 1, 0, "c", 'A', true, false},
                               {"in place, strided", 2, 0, "s", 'A', false, false},
                               {"offset", 1, 0, "o", 'o', false, false},
                               {"64-bit class", 2, 0, "t", 'c', false, true},
                               {"param", 1, 0, "P", 'c', true, false},
                               {"const", 1, 0, "K", 'c', false, false},
                               {"strided output", 2, 0, "c", 's', false, false}};

static const layout binary[] = {
    {"contiguous", 1, 0, "cc", 'c', true, false},        {"by a scalar", 1, 0, "c0", 'c', true, false},
    {"of a scalar", 1, 0, "0c", 'c', false, false},      {"by a param", 1, 0, "cP", 'c', true, false},
    {"of a param", 1, 0, "Pc", 'c', false, false},       {"by a const", 1, 0, "cK", 'c', false, false},
    {"by a row", 2, 0, "cr", 'c', true, false},          {"by a column", 2, 0, "ck", 'c', false, false},
    {"column by row", 2, 0, "kr", 'c', false, false},    {"transposed", 2, 0, "tc", 'c', true, false},
    {"both transposed", 2, 0, "tt", 'c', false, false},  {"strided", 2, 0, "sp", 'c', false, false},
    {"reversed", 1, 0, "nm", 'c', true, false},          {"with itself", 1, 0, "c=", 'c', false, false},
    {"permuted, rank 3", 3, 0, "xt", 'c', false, false}, {"rank 4", 4, 0, "tk", 'c', false, false},
    {"in place over a", 1, 0, "cc", 'A', true, false},   {"in place over b", 2, 0, "rc", 'B', false, false},
    {"offset", 1, 0, "oo", 'o', false, false},           {"64-bit class", 2, 0, "ct", 'c', false, true}};

static const layout ternary[] = {
    {"contiguous", 1, 0, "ccc", 'c', true, false}, {"row condition", 2, 0, "rcc", 'c', false, false},
    {"scalar b", 1, 0, "cc0", 'c', true, false},   {"param a", 1, 0, "cPc", 'c', false, false},
    {"transposed", 2, 0, "ctc", 'c', true, false}, {"strided", 2, 0, "stp", 'c', false, false},
    {"reversed", 3, 0, "mcn", 'c', false, false},  {"in place over a", 1, 0, "ccc", 'B', false, false},
    {"const b", 2, 0, "kcK", 'c', false, false},   {"64-bit class", 2, 0, "tcc", 'c', false, true}};

static const layout reduce[] = {{"all", 1, 1, "c", 'c', true, false},
                                {"last of 2", 2, 2, "c", 'c', true, false},
                                {"first of 2", 2, 1, "c", 'c', true, false},
                                {"middle of 3", 3, 2, "c", 'c', false, false},
                                {"outer and inner of 3", 3, 5, "c", 'c', false, false},
                                {"two of 4", 4, 10, "c", 'c', false, false},
                                {"all, transposed", 2, 3, "t", 'c', false, false},
                                {"last, transposed", 2, 2, "t", 'c', true, false},
                                {"first, strided", 2, 1, "s", 'c', false, false},
                                {"last, strided", 2, 2, "s", 'c', false, false},
                                {"last, reversed", 2, 2, "n", 'c', false, false},
                                {"all, reversed", 1, 1, "n", 'c', false, false},
                                {"rank 4, permuted", 4, 6, "t", 'c', false, false},
                                {"last, padded", 2, 2, "p", 'c', false, false},
                                {"last, offset", 2, 2, "o", 'c', false, false},
                                {"last, 64-bit class", 2, 2, "c", 'c', false, true},
                                {"last, stride 0", 2, 2, "y", 'c', false, false},
                                {"first, stride 0", 2, 1, "z", 'c', false, false}};

static const layout scan[] = {{"rank 1", 1, 0, "c", 'c', true, false},
                              {"last of 2", 2, 1, "c", 'c', true, false},
                              {"first of 2", 2, 0, "c", 'c', true, false},
                              {"middle of 3", 3, 1, "c", 'c', false, false},
                              {"last, transposed", 2, 1, "t", 'c', false, false},
                              {"first, strided", 2, 0, "s", 'c', false, false},
                              {"reversed", 1, 0, "n", 'c', false, false},
                              {"first of 3, permuted", 3, 0, "x", 'c', false, false},
                              {"last, 64-bit class", 2, 1, "c", 'c', false, true}};

static const int64_t sizes[][5][TERN_MAX_RANK] = {/* by rank: the instances */
                                                  {{0}},
                                                  {{1031}, {5}, {1}, {64}, {40009}},
                                                  {{37, 29}, {5, 70}, {3, 2}},
                                                  {{5, 7, 13}, {2, 3, 67}},
                                                  {{3, 5, 2, 11}, {2, 4, 9, 3}},
                                                  {{0}},
                                                  {{0}},
                                                  {{0}},
                                                  {{2, 3, 2, 2, 3, 2, 2, 3}, {3, 2, 2, 2, 2, 2, 3, 2}}};

typedef struct map_case {
  uint32_t op, in_dtype, out_dtype, flags; /* flags: of a SCAN */
  const layout *form;
  bool quick;
} map_case;

/* ---- operands ---- */

static void dims_of(problem *p, operand *o) {
  o->rank = p->n_space;
  for (int d = 0; d < o->rank; d++) o->dim[d] = (uint8_t)d;
}

/* Strides of memory in the order of dims order[0] (slowest) ..; every row of the fastest dim padded, its elements
   `step` apart. */
static void strides_of(const problem *p, operand *o, const int *order, int64_t step, int64_t pad) {
  int64_t next = step;
  for (int k = p->n_space; k-- > 0;) {
    o->stride[order[k]] = next;
    next = next * p->size[order[k]] + (k == p->n_space - 1 ? pad : 0);
  }
}

static void orders(const problem *p, char form, int *order) {
  for (int d = 0; d < p->n_space; d++) order[d] = form == 't' ? p->n_space - 1 - d : d;
  if (form == 'x') {
    order[0] = 1;
    order[1] = 0;
  }
}

static void keep_dims(operand *o, char form) {
  for (int d = 0; d < o->rank; d++) {
    const bool last = d == o->rank - 1;
    if (form == '0' || (form == 'r' && !last) || (form == 'k' && last)) {
      o->dim[d] = ONE;
      o->stride[d] = 0;
    }
  }
}

static tern_word scalar_value(uint32_t dtype, uint32_t fill, int k) {
  static const double values[] = {0.75, 2, -3};
  if (dtype == TERN_BOOL) return (tern_word){.u = (uint64_t)(k & 1)};
  if (fill == FILL_POSITIVE || (dtype >= TERN_U8 && dtype <= TERN_U64)) k %= 2;
  if (fill == FILL_UNIT) return eval_cast(TERN_F64, dtype, (tern_word){.f = 0.25 * values[k % 3]});
  return eval_cast(TERN_F64, dtype, (tern_word){.f = dtype < TERN_F16 && k % 3 == 0 ? 5 : values[k % 3]});
}

void operand_dense(problem *p, int i, uint8_t kind, uint32_t dtype, uint8_t fill) {
  operand *o = &p->arg[i];
  int order[TERN_MAX_RANK];
  o->kind = kind;
  o->dtype = (uint8_t)dtype;
  o->fill = fill;
  dims_of(p, o);
  orders(p, 'c', order);
  strides_of(p, o, order, 1, 0);
}

static void shape_operand(problem *p, int i, char form, int k) {
  operand *o = &p->arg[i];
  int order[TERN_MAX_RANK];
  orders(p, form, order);
  strides_of(p, o, order, form == 's' ? 2 : 1, form == 's' ? 3 : form == 'p' ? 5 : 0);
  if (form == 'k')
    for (int d = 0; d < o->rank; d++) o->stride[d] /= p->size[o->rank - 1];
  keep_dims(o, form);
  for (int d = 0; d < o->rank; d++)
    if (form == 'm' || (form == 'n' && d == o->rank - 1)) o->stride[d] = -o->stride[d];
  if (form == 'y') { /* as reductions over a broadcast view see it */
    o->stride[0] = 1;
    o->stride[o->rank - 1] = 0;
  }
  if (form == 'z') o->stride[0] = 0;
  if (form == 'o') o->shift = 1;
  if (form == '=') o->same_as = 0;
  if (form == 'P' || form == 'K') {
    o->kind = form == 'P' ? TERN_V_PARAM : TERN_V_CONST;
    o->value = scalar_value(o->dtype, o->fill, form == 'P' ? k : 1);
    o->rank = 0;
  }
  if (form == 'A' || form == 'B') {
    const operand *donor = &p->arg[form - 'A'];
    memcpy(o->stride, donor->stride, sizeof o->stride);
    o->alias = form - 'A';
  }
}

/* ---- what goes in ---- */

static uint8_t fill_of(uint32_t op, int i) {
  switch (op) {
  case TERN_OP_SHL:
  case TERN_OP_SHR: return i ? FILL_SHIFT : FILL_ANY;
  case TERN_OP_POW: return i ? FILL_EXPONENT : FILL_POSITIVE;
  case TERN_OP_ASIN:
  case TERN_OP_ACOS:
  case TERN_OP_ATANH:
  case TERN_OP_ERFINV: return FILL_UNIT;
  case TERN_OP_LOG:
  case TERN_OP_LOG2:
  case TERN_OP_LOG10:
  case TERN_OP_SQRT:
  case TERN_OP_RSQRT:
  case TERN_OP_ACOSH: return FILL_POSITIVE;
  case TERN_OP_SIN:
  case TERN_OP_COS:
  case TERN_OP_TAN: return FILL_WIDE;
  case TERN_OP_CAST: return FILL_RANGE;
  case TERN_OP_SUM:
  case TERN_OP_CUMSUM: return FILL_SMALL;
  case TERN_OP_PROD:
  case TERN_OP_CUMPROD: return FILL_UNIT;
  default:
    return op == TERN_OP_SIGN || op == TERN_OP_ROUND || (op >= TERN_OP_AMAX && op < TERN_OP_CUMSUM) || op >= TERN_OP_EQ
               ? FILL_TIES
               : FILL_ANY;
  }
}

static bool make(const void *context, int k, problem *p) {
  const map_case *c = context;
  const layout *f = c->form;
  const int64_t *size = k < 5 ? sizes[f->rank][k] : sizes[0][0];
  if (k >= (c->quick ? 2 : 5) || !size[0] || (size[0] > 10000 && c->in_dtype != TERN_F32)) return false;
  const nest_prim *prim = nest_prim_of(c->op);
  p->op = c->op;
  p->n_in = (uint8_t)prim->n_in;
  p->n_out = 1;
  p->n_space = p->n_sizes = f->rank;
  p->wide = f->wide;
  p->special = k & 1;
  memcpy(p->size, size, f->rank * sizeof *size);
  for (int d = 0; d < f->rank; d++)
    p->role[d] = prim->kind == TERN_K_REDUCE && f->mask >> d & 1 ? ROLE_REDUCED
                 : prim->kind == TERN_K_SCAN && d == f->mask     ? ROLE_FIXED
                                                                 : ROLE_MAP;
  if (prim->kind == TERN_K_SCAN) {
    p->n_attrs = 2;
    p->attr[1].u = c->flags;
  }
  for (int i = 0; i < p->n_in; i++) {
    operand_dense(p, i, TERN_V_IN, c->op == TERN_OP_WHERE && i == 0 ? TERN_BOOL : c->in_dtype, fill_of(c->op, i));
    p->arg[i].finite = c->op == TERN_OP_FLOORDIV; /* NumPy and the Array API differ on floor_divide of an infinity */
    shape_operand(p, i, f->in[i], k);
  }
  operand *out = &p->arg[p->n_in];
  operand_dense(p, p->n_in, TERN_V_OUT, c->out_dtype, 0);
  if (prim->kind != TERN_K_REDUCE) {
    shape_operand(p, p->n_in, f->out, k);
    return true;
  }
  int64_t next = 1;
  for (int d = f->rank; d-- > 0;) {
    const bool gone = p->role[d] == ROLE_REDUCED;
    out->dim[d] = gone ? ONE : (uint8_t)d;
    out->stride[d] = gone ? 0 : next;
    if (!gone) next *= p->size[d];
  }
  return true;
}

/* ---- the product ---- */

static uint32_t out_dtype_of(uint32_t op, uint32_t in) {
  if (op == TERN_OP_ARGMAX || op == TERN_OP_ARGMIN) return TERN_I64;
  const bool predicate = (op >= TERN_OP_EQ && op <= TERN_OP_GE) || (op >= TERN_OP_ISNAN && op <= TERN_OP_SIGNBIT);
  return predicate ? TERN_BOOL : in;
}

static void run_layouts(runner *run, const nest_prim *prim, uint32_t in, uint32_t out, uint32_t flags,
                        const layout *forms, size_t n) {
  const bool quick = run->r->opt->quick;
  for (size_t i = 0; i < n; i++) {
    const layout *f = &forms[i];
    const bool in_place = f->out == 'A' || f->out == 'B',
               elsewhere = f->out == 's' && prim->op != TERN_OP_COPY && prim->op != TERN_OP_CAST;
    if ((quick && !f->quick) || (in_place && in != out) || elsewhere) continue;
    if (prim->op == TERN_OP_CAST && in != TERN_F32 && out != TERN_F32 && i % 3)
      continue; /* every pair, fewer layouts */
    const map_case c = {prim->op, in, out, flags, f, quick};
    char name[128];
    int used = snprintf(name, sizeof name, "%s %s", prim->name, nest_dtype_name(in));
    if (prim->op == TERN_OP_CAST)
      used += snprintf(name + used, sizeof name - (size_t)used, " to %s", nest_dtype_name(out));
    if (flags & 1) used += snprintf(name + used, sizeof name - (size_t)used, " exclusive");
    if (flags & 2) used += snprintf(name + used, sizeof name - (size_t)used, " from the end");
    snprintf(name + used, sizeof name - (size_t)used, ", %s", f->name);
    run_case(run, name, make, &c);
  }
}

static void run_kind(runner *run, const nest_prim *prim, uint32_t in, uint32_t out) {
#define FORMS(table) table, sizeof table / sizeof *table
  if (prim->kind == TERN_K_REDUCE)
    run_layouts(run, prim, in, out, 0, FORMS(reduce));
  else if (prim->kind == TERN_K_SCAN) {
    const bool exclusive = prim->op == TERN_OP_CUMSUM || prim->op == TERN_OP_CUMPROD;
    for (uint32_t flags = 0; flags < 4; flags++)
      if (exclusive || !(flags & 1)) run_layouts(run, prim, in, out, flags, FORMS(scan));
  } else if (prim->n_in == 1)
    run_layouts(run, prim, in, out, 0, FORMS(unary));
  else if (prim->n_in == 2)
    run_layouts(run, prim, in, out, 0, FORMS(binary));
  else
    run_layouts(run, prim, in, out, 0, FORMS(ternary));
#undef FORMS
}

void run_primitives(runner *run) {
  static const uint32_t ops[] = {
#define NUMBER(name, num, n, kind, dtypes) num,
      TERN_PRIMS(NUMBER)
#undef NUMBER
  };
  for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
    const nest_prim *prim = nest_prim_of(ops[i]);
    const bool mine = prim->kind == TERN_K_MAP || prim->kind == TERN_K_REDUCE || prim->kind == TERN_K_SCAN;
    if (!mine || prim->op == TERN_OP_RNG || prim->op == TERN_OP_IOTA) continue;
    for (uint32_t in = TERN_BOOL; in < TERN_DTYPE_END; in++) {
      if (!(prim->dtypes >> in & 1)) continue;
      if (prim->op != TERN_OP_CAST)
        run_kind(run, prim, in, out_dtype_of(prim->op, in));
      else
        for (uint32_t out = TERN_BOOL; out < TERN_DTYPE_END; out++)
          if (out != in) run_kind(run, prim, in, out);
    }
  }
}
