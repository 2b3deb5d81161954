/* Long sums: 2^22 times one number. A sum whose rounding errors grow with its length passes the short cases and fails
   here: one plain float32 accumulator is half a million ulp away, 4096 of them side by side still 130, while pairwise
   summation with plain blocks of 128 is within 14. Sums in 16 bits stop growing long before the end. */
#include "check.h"
#include <stdio.h>
#include <string.h>

typedef struct long_form {
  const char *name;
  uint8_t rank, mask; /* mask: the reduced dim */
  int64_t size[2];
} long_form;

typedef struct long_case {
  uint32_t dtype;
  const long_form *form;
} long_case;

static bool make(const void *context, int k, problem *p) {
  const long_case *c = context;
  const long_form *f = c->form;
  if (k > 0) return false;
  p->op = TERN_OP_SUM;
  p->n_in = p->n_out = 1;
  p->n_space = p->n_sizes = f->rank;
  p->tight = true;
  for (int d = 0; d < f->rank; d++) {
    p->size[d] = f->size[d];
    p->role[d] = f->mask >> d & 1 ? ROLE_REDUCED : ROLE_MAP;
  }
  operand_dense(p, 0, TERN_V_IN, c->dtype, FILL_TENTH);
  operand_dense(p, 1, TERN_V_OUT, c->dtype, 0);
  operand *out = &p->arg[1];
  for (int d = 0; d < f->rank; d++) {
    const bool gone = p->role[d] == ROLE_REDUCED;
    if (gone) out->dim[d] = ONE;
    out->stride[d] = gone ? 0 : 1; /* one dim at most is left */
  }
  return true;
}

void run_long_sums(runner *run) {
  static const uint32_t dtypes[] = {TERN_F32, TERN_F16, TERN_BF16};
  static const long_form forms[] = {{"long", 1, 1, {(1 << 22) + 3}},
                                    {"long rows", 2, 2, {3, (1 << 20) + 77}},
                                    {"long columns", 2, 1, {(1 << 20) + 77, 3}}};
  for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
    for (size_t f = 0; f < sizeof forms / sizeof *forms; f++) {
      const long_case c = {dtypes[i], &forms[f]};
      char name[64];
      if (run->r->opt->quick && f) continue;
      snprintf(name, sizeof name, "SUM %s, %s", nest_dtype_name(dtypes[i]), forms[f].name);
      run_case(run, name, make, &c);
    }
}
