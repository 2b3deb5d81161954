/* SCATTER: base [O, A, I] or one value, index [J], updates [O, J, I], out [O, A, I]. More updates than rows, so that
   the order of the updates to one row shows. */
#include "check.h"
#include <stdio.h>
#include <string.h>

enum { BASE, INDEX, SRC, OUT };

typedef struct scatter_case {
  const char *name;
  uint32_t dtype, index;
  unsigned mode;
  char base;            /* c contiguous, s strided, A in place, P a PARAM, C a CONST */
  char src, index_form; /* c, t transposed, b one column for all; c, s strided, n reversed */
  bool wide, quick;
} scatter_case;

static operand array(uint8_t kind, uint32_t dtype, int o, int a, int i) {
  operand x = {.kind = kind, .dtype = (uint8_t)dtype, .rank = 3, .alias = -1, .same_as = ONE};
  x.dim[0] = (uint8_t)o;
  x.dim[1] = (uint8_t)a;
  x.dim[2] = (uint8_t)i;
  return x;
}

static void strides(operand *x, int64_t o, int64_t a, int64_t i) {
  x->stride[0] = o;
  x->stride[1] = a;
  x->stride[2] = i;
}

static bool make_scatter(const void *context, int k, problem *p) {
  const scatter_case *c = context;
  static const int64_t sizes[][4] = {/* O, A, I, J */ {3, 11, 7, 40}, {1, 5, 33, 9}, {4, 3, 1, 70}, {1, 4000, 16, 900}};
  if (k >= (c->quick ? 2 : 4)) return false;
  p->op = TERN_OP_SCATTER;
  p->n_in = 3;
  p->n_out = 1;
  p->n_sizes = 4;
  p->n_attrs = 1;
  p->attr[0].u = c->mode;
  p->wide = c->wide;
  p->special = k & 1;
  const int64_t *s = sizes[k], step = c->base == 's' ? 2 : 1;
  for (int d = 0; d < 4; d++) {
    p->size[d] = s[d];
    p->role[d] = ROLE_FIXED;
  }
  p->arg[BASE] = array(TERN_V_IN, c->dtype, 0, 1, 2);
  strides(&p->arg[BASE], s[1] * s[2] * step, s[2] * step, step);
  if (c->base == 'P' || c->base == 'C') {
    const tern_word value = {.f = k & 1 ? 0 : 1.5};
    p->arg[BASE] = (operand){.kind = c->base == 'P' ? TERN_V_PARAM : TERN_V_CONST,
                             .dtype = (uint8_t)c->dtype,
                             .value = eval_cast(TERN_F64, c->dtype, value),
                             .alias = -1,
                             .same_as = ONE};
  }
  p->arg[INDEX] = (operand){.kind = TERN_V_IN,
                            .dtype = (uint8_t)c->index,
                            .rank = 1,
                            .dim = {3},
                            .stride = {c->index_form == 's'   ? 3
                                       : c->index_form == 'n' ? -1
                                                              : 1},
                            .alias = -1,
                            .same_as = ONE,
                            .fill = FILL_INDEX};
  p->arg[SRC] = array(TERN_V_IN, c->dtype, 0, 3, 2);
  if (c->src == 't')
    strides(&p->arg[SRC], s[3], 1, s[0] * s[3]);
  else if (c->src == 'b')
    strides(&p->arg[SRC], s[3], 1, 0);
  else
    strides(&p->arg[SRC], s[3] * s[2], s[2], 1);
  p->arg[OUT] = array(TERN_V_OUT, c->dtype, 0, 1, 2);
  strides(&p->arg[OUT], s[1] * s[2], s[2], 1);
  if (c->base == 'A') p->arg[OUT].alias = BASE;
  return true;
}

void run_scatter(runner *run) {
  static const char *const modes[] = {"add", "set", "max", "min"};
  static const scatter_case forms[] = {
      {.name = "int64", .index = TERN_I64, .base = 'c', .src = 'c', .index_form = 'c'},
      {.name = "int32, in place", .index = TERN_I32, .base = 'A', .src = 'c', .index_form = 'c'},
      {.name = "PARAM base", .index = TERN_I64, .base = 'P', .src = 'c', .index_form = 'c'},
      {.name = "CONST base, strided index", .index = TERN_I32, .base = 'C', .src = 'c', .index_form = 's'},
      {.name = "transposed updates, reversed index", .index = TERN_I64, .base = 'c', .src = 't', .index_form = 'n'},
      {.name = "strided base, updates broadcast", .index = TERN_I64, .base = 's', .src = 'b', .index_form = 'c'},
      {.name = "64-bit class", .index = TERN_I64, .base = 'c', .src = 'c', .index_form = 'c', .wide = true}};
  for (uint32_t d = TERN_BOOL; d < TERN_DTYPE_END; d++)
    for (unsigned mode = d == TERN_BOOL ? 1 : 0; mode < 4; mode++)
      for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        scatter_case c = forms[i];
        char name[128];
        c.dtype = d;
        c.mode = mode;
        c.quick = run->r->opt->quick;
        if (c.quick && i > 2) continue;
        snprintf(name, sizeof name, "SCATTER %s %s, %s", modes[mode], nest_dtype_name(d), c.name);
        run_case(run, name, make_scatter, &c);
      }
}
