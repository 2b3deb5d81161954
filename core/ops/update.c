/* The update ops: one region each, from variable, gradient and slots to the new variable and slots. 16-bit floats are
   computed in float32 and rounded once. Formulas: keras/src/optimizers of Keras 3. Not in the op table: only optimisers
   call them, with tern__run_into. */
#include "ops/update.h"
#include "device/device.h"
#include "tensor/dtype.h"

/* Operands of the call: variable, gradient, slots, of the variable's shape and dtype (the caller has checked); the
   scale and the guard where the bits say so; then host scalars. Attributes: the bits, then the scalars for which a
   request has no room. */
static tern_rc infer_update(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_tensor *v = c->in[0];
  const tern_dtype d = (tern_dtype)v->dtype, wide = d == TERN_F64 ? TERN_F64 : TERN_F32;
  int n_tensors = 0;
  while (n_tensors < c->n_in && !(c->in[n_tensors]->flags & TERN__WEAK)) n_tensors++;
  const int n_out = n_tensors - 1 - !!(c->attr[0].u & TERN__UPDATE_SCALE) - !!(c->attr[0].u & TERN__UPDATE_GUARD);
  q->n_space = q->n_sizes = v->rank;
  for (int k = 0; k < v->rank; k++) {
    q->size[k] = v->shape[k];
    q->role[k] = TERN__ROLE_MAP;
  }
  q->dtype = (uint8_t)d;
  for (int i = 0; i < c->n_in; i++) tern__operand_of(q, i, c->in[i], wide);
  q->n_attrs = (uint8_t)c->n_attr;
  memcpy(q->attr, c->attr, (size_t)c->n_attr * sizeof *q->attr);
  q->n_in = (uint8_t)c->n_in;
  q->n_out = (uint8_t)n_out;
  for (int o = 0; o < n_out; o++) {
    tern__operand_out(q, o, d, 0);
    tern__result_space(q, &r[o], d);
  }
  return TERN_OK;
}

/* What every lowering begins with. */
typedef struct update {
  tern__builder *b;
  tern_dtype wide;
  uint32_t bits;
  int n_tensors, n_params; /* operands of the request: tensors, then PARAMs */
  int hyper;               /* number of the first of the rule's own scalars */
  int variable, gradient, rate;
  int fine; /* whether the guard is finite; -1: there is none */
} update;

static int mul(const update *u, int x, int y) { return tern__b_map2(u->b, TERN_OP_MUL, x, y); }
static int add(const update *u, int x, int y) { return tern__b_map2(u->b, TERN_OP_ADD, x, y); }
static int sub(const update *u, int x, int y) { return tern__b_map2(u->b, TERN_OP_SUB, x, y); }
static int over(const update *u, int x, int y) { return tern__b_map2(u->b, TERN_OP_DIV, x, y); }
static int root(const update *u, int x) { return tern__b_map1(u->b, TERN_OP_SQRT, x); }
static int tensor(const update *u, int i) { return tern__b_cast(u->b, tern__b_in(u->b, i), u->wide); }
static int slot(const update *u, int i) { return tensor(u, 2 + i); }

/* Scalar k of the call. */
static int scalar(const update *u, int k) {
  if (k < u->n_params) return tern__b_in(u->b, u->n_tensors + k);
  return tern__b_const(u->b, u->wide, tern__b_request(u->b)->attr[1 + k - u->n_params].f);
}
static int hyper(const update *u, int i) { return scalar(u, u->hyper + i); }

/* The gradient, scaled or limited. */
static update begin(tern__builder *b) {
  const tern__request *q = tern__b_request(b);
  update u = {.b = b, .wide = q->dtype == TERN_F64 ? TERN_F64 : TERN_F32, .bits = (uint32_t)q->attr[0].u};
  while (u.n_tensors < q->n_in && q->arg[u.n_tensors].kind == TERN_V_IN) u.n_tensors++;
  u.n_params = q->n_in - u.n_tensors;
  u.variable = tensor(&u, 0);
  u.gradient = tensor(&u, 1);
  u.rate = scalar(&u, 0);
  const bool guarded = u.bits & TERN__UPDATE_GUARD;
  u.fine = guarded ? tern__b_map1(b, TERN_OP_ISFINITE, tensor(&u, u.n_tensors - 1)) : -1;
  if (u.bits & TERN__UPDATE_SCALE) u.gradient = mul(&u, u.gradient, tensor(&u, u.n_tensors - 1 - guarded));
  if (u.bits & TERN__UPDATE_LIMIT) {
    const int limit = scalar(&u, u.n_params + q->n_attrs - 2);
    u.gradient = tern__b_map2(b, TERN_OP_MINIMUM, u.gradient, limit);
    u.gradient = tern__b_map2(b, TERN_OP_MAXIMUM, u.gradient, tern__b_map1(b, TERN_OP_NEG, limit));
  }
  u.hyper = u.bits & TERN__UPDATE_DECAY ? 2 : 1;
  return u;
}

/* Output o of the update: the new value of the variable (0) or of a slot. */
static void give(const update *u, int o, int value) {
  if (u->fine >= 0) value = tern__b_where(u->b, u->fine, value, o ? slot(u, o - 1) : u->variable);
  tern__b_out(u->b, o, value);
}

/* variable -= change + variable * decay: rounded once, since a decay is often close to the variable's last place. */
static void move(const update *u, int change) {
  if (u->bits & TERN__UPDATE_DECAY) change = add(u, change, mul(u, u->variable, scalar(u, 1)));
  give(u, 0, sub(u, u->variable, change));
}

/* m = momentum m - rate g; v += m, or with nesterov momentum m - rate g (Sutskever et al., 2013). */
static void lower_sgd(tern__builder *b) {
  const update u = begin(b);
  const int step = mul(&u, u.gradient, u.rate);
  if (!(u.bits & TERN__UPDATE_MOMENTUM)) {
    move(&u, step);
    return;
  }
  const int m = sub(&u, mul(&u, slot(&u, 0), hyper(&u, 0)), step);
  const int change = u.bits & TERN__UPDATE_NESTEROV ? sub(&u, mul(&u, m, hyper(&u, 0)), step) : m;
  give(&u, 1, m);
  move(&u, tern__b_map1(b, TERN_OP_NEG, change));
}

/* Kingma and Ba, 2015, in the form with epsilon outside of the bias correction; amsgrad: Reddi, Kale, Kumar, 2018. */
static void lower_adam(tern__builder *b) {
  const update u = begin(b);
  int m = slot(&u, 0), v = slot(&u, 1);
  m = add(&u, m, mul(&u, sub(&u, u.gradient, m), hyper(&u, 0)));
  v = add(&u, v, mul(&u, sub(&u, mul(&u, u.gradient, u.gradient), v), hyper(&u, 1)));
  give(&u, 1, m);
  give(&u, 2, v);
  if (u.bits & TERN__UPDATE_AMSGRAD) {
    v = tern__b_map2(b, TERN_OP_MAXIMUM, slot(&u, 2), v);
    give(&u, 3, v);
  }
  move(&u, over(&u, mul(&u, m, u.rate), add(&u, root(&u, v), hyper(&u, 2))));
}

/* decay x + (1 - decay) y, with the scalars i and i + 1 of the rule */
static int blend(const update *u, int x, int y, int i) {
  return add(u, mul(u, hyper(u, i), x), mul(u, hyper(u, i + 1), y));
}

/* Hinton, 2012 (lecture 6e); epsilon under the root; centered: Graves, 2013. */
static void lower_rmsprop(tern__builder *b) {
  const update u = begin(b);
  int next = 1;
  const int v = blend(&u, slot(&u, 0), mul(&u, u.gradient, u.gradient), 0);
  give(&u, 1, v);
  const int m = u.bits & TERN__UPDATE_MOMENTUM ? slot(&u, next++) : -1;
  int below = add(&u, v, hyper(&u, 2));
  if (u.bits & TERN__UPDATE_CENTERED) {
    const int average = blend(&u, slot(&u, next), u.gradient, 0);
    give(&u, 1 + next, average);
    below = add(&u, sub(&u, v, mul(&u, average, average)), hyper(&u, 2));
  }
  int change = over(&u, mul(&u, u.rate, u.gradient), root(&u, below));
  if (m >= 0) {
    change = add(&u, mul(&u, hyper(&u, 3), m), change);
    give(&u, 2, change);
  }
  move(&u, change);
}

/* Duchi, Hazan, Singer, 2011; epsilon under the root. */
static void lower_adagrad(tern__builder *b) {
  const update u = begin(b);
  const int sum = add(&u, slot(&u, 0), mul(&u, u.gradient, u.gradient));
  give(&u, 1, sum);
  move(&u, over(&u, mul(&u, u.rate, u.gradient), root(&u, add(&u, sum, hyper(&u, 0)))));
}

/* Chen et al., 2023, algorithm 2. */
static void lower_lion(tern__builder *b) {
  const update u = begin(b);
  const int m = slot(&u, 0), direction = tern__b_map1(b, TERN_OP_SIGN, blend(&u, m, u.gradient, 0));
  const int next = blend(&u, m, u.gradient, 2);
  move(&u, mul(&u, u.rate, direction));
  give(&u, 1, next);
}

/* Numbers of their own, between those of the op table and those of single primitives, so that classes never meet. */
#define UPDATE(id, place)                                           \
  const tern__op tern__op_##id##_update = {.name = #id "_update",   \
                                           .family = "optimizer",   \
                                           .number = 900 + (place), \
                                           .dtypes = TERN_D_FLOAT,  \
                                           .infer = infer_update,   \
                                           .lower = lower_##id};
UPDATE(sgd, 0)
UPDATE(adam, 1)
UPDATE(rmsprop, 2)
UPDATE(adagrad, 3)
UPDATE(lion, 4)
