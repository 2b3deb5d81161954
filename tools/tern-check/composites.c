/* Regions of several nodes, as the core sends composites and fused groups: softmax, layer_norm, variance, gelu and the
   like. A backend may refuse them (the core then sends their primitives); what it claims is compared with the
   reference. */
#include "check.h"
#include <stdio.h>
#include <string.h>

#define MAP1(op, x) b_map(b, TERN_OP_##op, dtype_of(b, x), 1, (const uint32_t[]){x})
#define MAP2(op, x, y) b_map(b, TERN_OP_##op, dtype_of(b, x), 2, (const uint32_t[]){x, y})

static uint32_t dtype_of(const builder *b, uint32_t v) { return b->value[v].dtype; }

static bool softmax(builder *b) {
  const uint32_t x = b_in(b, 0), e = MAP1(EXP, MAP2(SUB, x, b_reduce(b, TERN_OP_AMAX, x)));
  b_out(b, 0, MAP2(DIV, e, b_reduce(b, TERN_OP_SUM, e)));
  return true;
}

static bool log_softmax(builder *b) {
  const uint32_t x = b_in(b, 0), s = MAP2(SUB, x, b_reduce(b, TERN_OP_AMAX, x));
  b_out(b, 0, MAP2(SUB, s, MAP1(LOG, b_reduce(b, TERN_OP_SUM, MAP1(EXP, s)))));
  return true;
}

static uint32_t centred(builder *b, uint32_t x, uint32_t *count) {
  *count = b_count(b, x, dtype_of(b, x));
  return MAP2(SUB, x, MAP2(DIV, b_reduce(b, TERN_OP_SUM, x), *count));
}

static bool variance(builder *b) {
  uint32_t n;
  const uint32_t c = centred(b, b_in(b, 0), &n);
  b_out(b, 0, MAP2(DIV, b_reduce(b, TERN_OP_SUM, MAP2(MUL, c, c)), n));
  return true;
}

static bool layer_norm(builder *b) {
  uint32_t n;
  const uint32_t c = centred(b, b_in(b, 0), &n), v = MAP2(DIV, b_reduce(b, TERN_OP_SUM, MAP2(MUL, c, c)), n);
  const uint32_t y = MAP2(MUL, c, MAP1(RSQRT, MAP2(ADD, v, b_const(b, dtype_of(b, c), 1e-3))));
  b_out(b, 0, MAP2(ADD, MAP2(MUL, y, b_in(b, 1)), b_in(b, 2)));
  return true;
}

static bool gelu(builder *b) { /* x / 2 (1 + erf(x / sqrt 2)) */
  const uint32_t x = b_in(b, 0), d = dtype_of(b, x);
  const uint32_t e = MAP1(ERF, MAP2(MUL, x, b_const(b, d, 0.70710678118654752440)));
  b_out(b, 0, MAP2(MUL, MAP2(MUL, x, b_const(b, d, 0.5)), MAP2(ADD, e, b_const(b, d, 1))));
  return true;
}

static bool rate_step(builder *b) { /* w - rate * (g + decay * w), rate a PARAM: an optimiser's step */
  const uint32_t w = b_in(b, 0), g = b_in(b, 1);
  b_out(b, 0, MAP2(SUB, w, MAP2(MUL, MAP2(ADD, g, MAP2(MUL, w, b_const(b, dtype_of(b, w), 0.01))), b_in(b, 2))));
  return true;
}

static bool one_hot(builder *b) {
  b_out(b, 0,
        b_map(b, TERN_OP_CAST, b->p->arg[1].dtype, 1,
              (const uint32_t[]){
                  b_map(b, TERN_OP_EQ, TERN_BOOL, 2, (const uint32_t[]){b_iota(b, 1, TERN_I64), b_in(b, 0)})}));
  return true;
}

static bool two_outputs(builder *b) { /* the sum of squares of every row, and the squares */
  const uint32_t x = b_in(b, 0), square = MAP2(MUL, x, x);
  const uint32_t total = b_reduce(b, TERN_OP_SUM, square);
  b_out(b, 0, total);
  b_out(b, 1, square);
  return true;
}

typedef struct composite {
  const char *name;
  bool (*lower)(builder *);
  const char *in;  /* f full, r one row (a value a column), p PARAM, i int64 column */
  const char *out; /* f full, k one value a row */
  uint8_t reduced; /* bit mask over (rows, columns) */
  bool any_dtype;
} composite;

static const composite composites[] = {{"softmax", softmax, "f", "f", 2, false},
                                       {"softmax over the first dim", softmax, "f", "f", 1, false},
                                       {"log_softmax", log_softmax, "f", "f", 2, false},
                                       {"variance", variance, "f", "k", 2, false},
                                       {"variance over all", variance, "f", "k", 3, false},
                                       {"layer_norm", layer_norm, "frr", "f", 2, false},
                                       {"gelu", gelu, "f", "f", 0, false},
                                       {"optimiser step", rate_step, "ffp", "f", 0, false},
                                       {"one_hot", one_hot, "i", "f", 0, true},
                                       {"squares and their sum", two_outputs, "f", "kf", 2, false}};

typedef struct composite_case {
  const composite *c;
  uint32_t dtype;
  char form;
} composite_case; /* form: c dense, t transposed, A in place */

static void output(problem *p, int i, char form, uint32_t dtype) {
  operand_dense(p, i, TERN_V_OUT, dtype, 0);
  if (form == 'f') return;
  int64_t next = 1;
  for (int d = 2; d-- > 0;) {
    const bool gone = p->role[d] == ROLE_REDUCED;
    p->arg[i].dim[d] = gone ? ONE : (uint8_t)d;
    p->arg[i].stride[d] = gone ? 0 : next;
    if (!gone) next *= p->size[d];
  }
}

static bool make(const void *context, int k, problem *p) {
  const composite_case *c = context;
  static const int64_t sizes[][2] = {{13, 37}, {3, 300}, {70, 2}};
  if (k >= 3) return false;
  p->lower = c->c->lower;
  p->n_in = (uint8_t)strlen(c->c->in);
  p->n_out = (uint8_t)strlen(c->c->out);
  p->n_space = p->n_sizes = 2;
  for (int d = 0; d < 2; d++) {
    p->size[d] = sizes[k][d];
    p->role[d] = c->c->reduced >> d & 1 ? ROLE_REDUCED : c->c->any_dtype ? ROLE_FIXED : ROLE_MAP;
  }
  for (int i = 0; i < p->n_in; i++) {
    const char form = c->c->in[i];
    operand_dense(p, i, TERN_V_IN, form == 'i' ? TERN_I64 : c->dtype, form == 'i' ? FILL_SMALL : FILL_UNIT);
    operand *o = &p->arg[i];
    if (form == 'r' || form == 'i') {
      const int gone = form == 'i';
      o->dim[gone] = ONE;
      o->stride[gone] = 0;
      if (gone) o->stride[0] = 1;
    }
    if (form == 'f' && c->form == 't') {
      o->stride[0] = 1;
      o->stride[1] = p->size[0];
    }
    if (form == 'p')
      *o = (operand){.kind = TERN_V_PARAM,
                     .dtype = (uint8_t)c->dtype,
                     .value = {.f = 0.25 * (k + 1)},
                     .alias = -1,
                     .same_as = ONE};
  }
  for (int i = 0; i < p->n_out; i++) output(p, p->n_in + i, c->c->out[i], c->dtype);
  if (c->form == 'A') p->arg[p->n_in].alias = 0;
  return true;
}

void run_composites(runner *run) {
  static const struct {
    char form;
    const char *name;
  } forms[] = {{'c', "dense"}, {'t', "transposed"}, {'A', "in place"}};
  for (size_t i = 0; i < sizeof composites / sizeof *composites; i++)
    for (uint32_t d = TERN_BOOL; d < TERN_DTYPE_END; d++)
      for (size_t f = 0; f < 3; f++) {
        const composite *c = &composites[i];
        if (!((c->any_dtype ? TERN_D_ANY : TERN_D_FLOAT) >> d & 1)) continue;
        /* in place is asked of MAP regions only, and over an input of the output's own shape */
        if ((forms[f].form == 'A' && (c->out[0] != 'f' || c->in[0] != 'f' || c->reduced)) ||
            (forms[f].form != 'c' && c->in[0] != 'f'))
          continue;
        const composite_case one = {c, d, forms[f].form};
        char name[128];
        snprintf(name, sizeof name, "composite %s %s, %s", c->name, nest_dtype_name(d), forms[f].name);
        run_case(run, name, make, &one);
      }
}
