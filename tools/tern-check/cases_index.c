/* The primitives whose operands differ in shape: DOT, GATHER, SORT and ARGSORT; and those without inputs: RNG, IOTA. */
#include "check.h"
#include <stdio.h>
#include <string.h>

/* ---- DOT: a [batch.., M, K], b [batch.., K, N] ---- */

typedef struct dot_case {
  const char *name;
  uint32_t dtype, out_dtype;
  bool turn_a, turn_b, step_a, one_batch_a, one_batch_b, wide, quick;
  int batch;
} dot_case;

/* rank n_space + 2; sizes `row` and `column` behind the space; turn: the other one is dense; step: neither is */
static void matrix(problem *p, int i, uint8_t kind, uint32_t dtype, int row, int column, bool turn, bool step,
                   bool one_batch) {
  operand *o = &p->arg[i];
  const int nb = p->n_space;
  o->kind = kind;
  o->dtype = (uint8_t)dtype;
  o->fill = FILL_SMALL;
  o->rank = (uint8_t)(nb + 2);
  o->dim[nb] = (uint8_t)row;
  o->dim[nb + 1] = (uint8_t)column;
  const int64_t unit = step ? 2 : 1;
  o->stride[nb] = turn ? unit : unit * p->size[column] + (step ? 1 : 0);
  o->stride[nb + 1] = turn ? unit * p->size[row] : unit;
  int64_t next = unit * p->size[row] * p->size[column] + (step ? p->size[row] : 0);
  for (int d = nb; d-- > 0;) {
    o->dim[d] = one_batch ? ONE : (uint8_t)d;
    o->stride[d] = one_batch ? 0 : next;
    next *= p->size[d];
  }
}

static bool make_dot(const void *context, int k, problem *p) {
  const dot_case *c = context;
  static const int64_t sizes[][4] = {
      /* batch, M, K, N */ {3, 17, 23, 9}, {2, 1, 40, 33}, {5, 64, 1, 5}, {2, 8, 16, 1}, {1, 70, 130, 65}};
  if (k >= (c->quick ? 2 : 5)) return false;
  p->op = TERN_OP_DOT;
  p->n_in = 2;
  p->n_out = 1;
  p->n_space = (uint8_t)c->batch;
  p->n_sizes = (uint8_t)(c->batch + 3);
  p->wide = c->wide;
  p->special = k == 1 && c->dtype < TERN_F16;
  const int64_t *s = sizes[k];
  for (int d = 0; d < c->batch; d++) {
    p->size[d] = s[0] + d + 1; /* no batch of 1: that is another class */
    p->role[d] = ROLE_MAP;
  }
  for (int d = 0; d < 3; d++) {
    p->size[c->batch + d] = s[d + 1];
    p->role[c->batch + d] = ROLE_FIXED;
  }
  const int m = c->batch, kk = m + 1, n = m + 2;
  matrix(p, 0, TERN_V_IN, c->dtype, m, kk, c->turn_a, c->step_a, c->one_batch_a);
  matrix(p, 1, TERN_V_IN, c->dtype, kk, n, c->turn_b, false, c->one_batch_b);
  matrix(p, 2, TERN_V_OUT, c->out_dtype, m, n, false, false, false);
  return true;
}

static void run_dot(runner *run) {
  static const dot_case forms[] = {
      {.name = "plain"},
      {.name = "a transposed", .turn_a = true},
      {.name = "b transposed", .turn_b = true},
      {.name = "both transposed", .turn_a = true, .turn_b = true},
      {.name = "a strided", .step_a = true},
      {.name = "batched", .batch = 1},
      {.name = "batched, a broadcast", .batch = 1, .one_batch_a = true},
      {.name = "batched, b broadcast, transposed", .batch = 1, .one_batch_b = true, .turn_b = true},
      {.name = "two batch dims, one broadcast", .batch = 2, .one_batch_a = true},
      {.name = "64-bit class", .wide = true}};
  for (uint32_t d = TERN_BOOL; d < TERN_DTYPE_END; d++)
    for (size_t i = 0; i < sizeof forms / sizeof *forms && (TERN_D_NUM >> d & 1); i++)
      for (int wider = 0; wider < (d == TERN_I8 || d == TERN_U8 ? 2 : 1); wider++) {
        dot_case c = forms[i];
        char name[128];
        c.dtype = d;
        c.out_dtype = wider ? TERN_I32 : d;
        c.quick = run->r->opt->quick;
        if (c.quick && i > 3 && i != 5) continue;
        snprintf(name, sizeof name, "DOT %s%s, %s", nest_dtype_name(d), wider ? " to int32" : "", c.name);
        run_case(run, name, make_dot, &c);
      }
}

/* ---- GATHER: data [O, A, I], index [J], out [O, J, I] ---- */

typedef struct gather_case {
  const char *name;
  uint32_t dtype, index;
  char form, index_form; /* c, t, s; c, s, n */
  bool wide, quick;
} gather_case;

static bool make_gather(const void *context, int k, problem *p) {
  const gather_case *c = context;
  static const int64_t sizes[][4] = {/* O, A, I, J */ {3, 11, 7, 20}, {1, 5, 33, 9}, {4, 2, 1, 70}, {1, 100, 1, 1}};
  if (k >= (c->quick ? 2 : 4)) return false;
  p->op = TERN_OP_GATHER;
  p->n_in = 2;
  p->n_out = 1;
  p->n_sizes = 4;
  p->wide = c->wide;
  p->special = k & 1;
  const int64_t *s = sizes[k];
  for (int d = 0; d < 4; d++) {
    p->size[d] = s[d];
    p->role[d] = ROLE_FIXED;
  }
  const bool t = c->form == 't', st = c->form == 's';
  const int64_t data[] = {t ? s[1] : s[1] * s[2] * (st ? 2 : 1), t ? 1 : s[2] * (st ? 2 : 1),
                          t    ? s[0] * s[1]
                          : st ? 2
                               : 1};
  p->arg[0] = (operand){
      .kind = TERN_V_IN, .dtype = (uint8_t)c->dtype, .rank = 3, .dim = {0, 1, 2}, .alias = -1, .same_as = ONE};
  memcpy(p->arg[0].stride, data, sizeof data);
  p->arg[1] = (operand){.kind = TERN_V_IN,
                        .dtype = (uint8_t)c->index,
                        .rank = 1,
                        .dim = {3},
                        .alias = -1,
                        .same_as = ONE,
                        .fill = FILL_INDEX};
  p->arg[1].stride[0] = c->index_form == 's' ? 3 : c->index_form == 'n' ? -1 : 1;
  p->arg[2] = (operand){
      .kind = TERN_V_OUT, .dtype = (uint8_t)c->dtype, .rank = 3, .dim = {0, 3, 2}, .alias = -1, .same_as = ONE};
  p->arg[2].stride[0] = s[3] * s[2];
  p->arg[2].stride[1] = s[2];
  p->arg[2].stride[2] = 1;
  return true;
}

static void run_gather(runner *run) {
  static const gather_case forms[] = {
      {.name = "int64", .index = TERN_I64, .form = 'c', .index_form = 'c'},
      {.name = "int32", .index = TERN_I32, .form = 'c', .index_form = 'c'},
      {.name = "transposed data", .index = TERN_I64, .form = 't', .index_form = 'c'},
      {.name = "strided data", .index = TERN_I32, .form = 's', .index_form = 's'},
      {.name = "reversed index", .index = TERN_I64, .form = 'c', .index_form = 'n'},
      {.name = "64-bit class", .index = TERN_I64, .form = 'c', .index_form = 'c', .wide = true}};
  for (uint32_t d = TERN_BOOL; d < TERN_DTYPE_END; d++)
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
      gather_case c = forms[i];
      char name[128];
      c.dtype = d;
      c.quick = run->r->opt->quick;
      if (c.quick && i > 2) continue;
      snprintf(name, sizeof name, "GATHER %s, %s", nest_dtype_name(d), c.name);
      run_case(run, name, make_gather, &c);
    }
}

/* ---- SORT, ARGSORT: along the last dim ---- */

typedef struct sort_case {
  uint32_t op, dtype, rank;
  bool down, backwards, wide, quick;
} sort_case;

static bool make_sort(const void *context, int k, problem *p) {
  const sort_case *c = context;
  static const int64_t lengths[] = {67, 300, 1, 2, 2049};
  if (k >= (c->quick ? 2 : 5)) return false;
  p->op = c->op;
  p->n_in = p->n_out = 1;
  p->n_space = p->n_sizes = (uint8_t)c->rank;
  p->n_attrs = 1;
  p->attr[0].u = c->down;
  p->wide = c->wide;
  p->special = k % 2 == 0;
  for (uint32_t d = 0; d < c->rank; d++) {
    p->size[d] = d == c->rank - 1 ? lengths[k] : 3 + d;
    p->role[d] = d == c->rank - 1 ? ROLE_FIXED : ROLE_MAP;
  }
  operand_dense(p, 0, TERN_V_IN, c->dtype, k == 0 ? FILL_TIES : FILL_ANY);
  operand_dense(p, 1, TERN_V_OUT, c->op == TERN_OP_SORT ? c->dtype : TERN_I64, 0);
  if (c->backwards) p->arg[0].stride[c->rank - 1] = -1;
  if (c->rank == 3) { /* rows in another order */
    p->arg[0].stride[0] = p->size[2];
    p->arg[0].stride[1] = p->size[2] * p->size[0];
  }
  return true;
}

static void run_sorts(runner *run) {
  for (uint32_t op = TERN_OP_SORT; op <= TERN_OP_ARGSORT; op++)
    for (uint32_t d = TERN_BOOL; d < TERN_DTYPE_END; d++)
      for (uint32_t form = 0; form < 6; form++) {
        const sort_case c = {
            op, d, form < 2 ? 1 : form == 5 ? 3 : 2, form & 1, form == 4, form == 3, run->r->opt->quick};
        char name[128];
        if (c.quick && form > 1) continue;
        snprintf(name, sizeof name, "%s %s, rank %u%s%s%s", nest_prim_of(op)->name, nest_dtype_name(d), c.rank,
                 c.down ? ", descending" : "", c.backwards ? ", reversed" : "", c.wide ? ", 64-bit class" : "");
        run_case(run, name, make_sort, &c);
      }
}

/* ---- RNG, IOTA ---- */

typedef struct source_case {
  uint32_t op, dtype, rank, dim, stream;
} source_case;

static bool make_rng(const void *context, int k, problem *p) {
  const source_case *c = context;
  static const int64_t counts[] = {1030, 3, 1, 64};
  static const uint64_t counters[] = {0, 0xfffffffeu, 7, UINT64_C(1) << 40};
  if (k >= 4) return false;
  p->op = TERN_OP_RNG;
  p->n_in = 2;
  p->n_out = 1;
  p->n_space = p->n_sizes = 1;
  p->size[0] = counts[k];
  p->n_attrs = 1;
  p->attr[0].u = c->stream;
  for (int i = 0; i < 2; i++) {
    p->arg[i].kind = TERN_V_PARAM;
    p->arg[i].dtype = TERN_U64;
    p->arg[i].value.u = i ? counters[k] : 0x123456789abcdefu * (uint64_t)(k + 1);
  }
  operand_dense(p, 2, TERN_V_OUT, TERN_U32, 0);
  return true;
}

static bool make_iota(const void *context, int k, problem *p) {
  const source_case *c = context;
  static const int64_t sizes[][3] = {{7, 5, 19}, {3, 90, 4}, {1, 1, 1}};
  if (k >= 3) return false;
  p->op = TERN_OP_IOTA;
  p->n_out = 1;
  p->n_space = p->n_sizes = (uint8_t)c->rank;
  p->n_attrs = 1;
  p->attr[0].u = c->dim;
  for (uint32_t d = 0; d < c->rank; d++) {
    p->size[d] = sizes[k][d];
    p->role[d] = d == c->dim ? ROLE_FIXED : ROLE_MAP;
  }
  operand_dense(p, 0, TERN_V_OUT, c->dtype, 0);
  return true;
}

void run_indexed(runner *run) {
  run_dot(run);
  run_gather(run);
  run_scatter(run);
  run_sorts(run);
  char name[128];
  for (uint32_t stream = 0; stream < 2; stream++) {
    const source_case c = {TERN_OP_RNG, TERN_U32, 1, 0, 3 * stream};
    snprintf(name, sizeof name, "RNG stream %u", c.stream);
    run_case(run, name, make_rng, &c);
  }
  for (uint32_t d = TERN_BOOL; d < TERN_DTYPE_END; d++)
    for (uint32_t rank = 1; rank <= 3; rank++)
      for (uint32_t dim = 0; dim < rank; dim++) {
        const source_case c = {TERN_OP_IOTA, d, rank, dim, 0};
        snprintf(name, sizeof name, "IOTA %s, dim %u of %u", nest_dtype_name(d), dim, rank);
        run_case(run, name, make_iota, &c);
      }
}
