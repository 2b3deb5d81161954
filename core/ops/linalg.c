/* Matrix products: the DOT primitive over [batch.., M, K] and [batch.., K, N]; everything else is views. */
#include "device/device.h"
#include "dispatch/dispatch.h"
#include "ops/table.h"
#include "tensor/dtype.h"
#include <tern/ops.h>

/* Operand i: batch dims aligned at their end in [0, nb), then two fixed sizes. */
static void matrix_operand(tern__request *q, int i, tern_tensor *t, int nb, int row, int column) {
  tern__operand *a = &q->arg[i];
  a->kind = TERN_V_IN;
  a->dtype = t->dtype;
  a->rank = (uint8_t)(nb + 2);
  a->storage = t->storage;
  a->offset = t->offset;
  const int extra = nb + 2 - t->rank;
  for (int d = 0; d < nb + 2; d++) {
    const bool one = d < extra || (d < nb && t->shape[d - extra] == 1);
    a->dim[d] = one ? TERN__ONE : (uint8_t)(d < nb ? d : d == nb ? row : column);
    a->stride[d] = one ? 0 : t->shape[d - extra] == 1 ? (d == nb + 1) : t->stride[d - extra];
  }
}

static tern_rc batch_space(const tern__call *c, tern__request *q, int nb) {
  for (int d = 0; d < nb; d++) {
    q->size[d] = 1;
    q->role[d] = TERN__ROLE_BATCH;
  }
  for (int i = 0; i < 2; i++)
    for (int d = 0; d < c->in[i]->rank - 2; d++) {
      int64_t *size = &q->size[d + nb - (c->in[i]->rank - 2)];
      const int64_t have = c->in[i]->shape[d];
      if (have == 1 || have == *size) continue;
      if (*size != 1) return TERN_E_ARG;
      *size = have;
    }
  return TERN_OK;
}

static tern_rc infer_matmul(const tern__call *c, tern__request *q, tern__result *r) {
  tern_tensor *x = c->in[0], *y = c->in[1];
  const tern_dtype d = tern__meet(c, 0, 2);
  const tern_rc rc = tern__check_dtype(c, d);
  if (rc) return rc;
  const int nb = (x->rank > y->rank ? x->rank : y->rank) - 2;
  const int64_t m = x->shape[x->rank - 2], k = x->shape[x->rank - 1], n = y->shape[y->rank - 1];
  if (k != y->shape[y->rank - 2] || batch_space(c, q, nb)) {
    char a[200], b[200];
    return tern__fail(
        TERN_E_ARG,
        "matmul: %s and %s do not fit: the last axis of the first must be as long as the last but one of the second%s",
        tern__shape_text(a, x->rank, x->shape), tern__shape_text(b, y->rank, y->shape),
        nb > 0 ? ", and the leading ones must broadcast" : "; tern_transpose turns one");
  }
  const int64_t sizes[] = {m, k, n};
  q->n_space = (uint8_t)nb;
  q->n_sizes = (uint8_t)(nb + 3);
  for (int i = 0; i < 3; i++) {
    q->size[nb + i] = sizes[i];
    q->role[nb + i] = TERN__ROLE_FIXED;
  }
  q->dtype = (uint8_t)d;
  matrix_operand(q, 0, x, nb, nb, nb + 1);
  matrix_operand(q, 1, y, nb, nb + 1, nb + 2);
  tern__operand *o = &q->arg[2];
  *o = (tern__operand){.kind = TERN_V_OUT, .dtype = (uint8_t)d, .rank = (uint8_t)(nb + 2)};
  uint64_t step = (uint64_t)m * (uint64_t)n; /* too large a shape is refused after this */
  for (int i = nb; i-- > 0;) {
    o->dim[i] = (uint8_t)i;
    o->stride[i] = (int64_t)step;
    step *= (uint64_t)q->size[i];
  }
  o->dim[nb] = (uint8_t)nb;
  o->stride[nb] = n;
  o->dim[nb + 1] = (uint8_t)(nb + 2);
  o->stride[nb + 1] = 1;
  r->dtype = d;
  r->rank = nb + 2;
  for (int i = 0; i < nb; i++) r->shape[i] = q->size[i];
  r->shape[nb] = m;
  r->shape[nb + 1] = n;
  return TERN_OK;
}

const tern__op tern__op_matmul = {.name = "matmul",
                                  .family = "linalg",
                                  .operands = "a, b",
                                  .doc = "matrix product over the last two axes, the others broadcast",
                                  .prim = TERN_OP_DOT,
                                  .number = TERN__N_matmul,
                                  .dtypes = TERN_D_NUM,
                                  .infer = infer_matmul,
                                  .lower = tern__lower_prim,
                                  .absolute = 1e-4,
                                  .relative = 1e-4,
                                  .ulp = 840};

/* Both cast to the dtype where they meet, then multiplied. */
static tern_tensor *product(tern_tensor *a, tern_tensor *b) {
  if (a->dtype != b->dtype) {
    const tern_dtype d = tern__promote((tern_dtype)a->dtype, (tern_dtype)b->dtype);
    a = tern_cast(a, d);
    b = tern_cast(b, d);
    if (!a || !b) return NULL;
  }
  tern_tensor *const in[] = {a, b};
  if (a->shape[a->rank - 1] == 0 && a->shape[a->rank - 1] == b->shape[b->rank - 2]) { /* a sum over nothing */
    tern_shape s = {.rank = 2, .dim = {a->shape[a->rank - 2], b->shape[b->rank - 1]}};
    if (a->rank == 2 && b->rank == 2) return tern_zeros(s, (tern_dtype)a->dtype);
  }
  return tern__run(&tern__op_matmul, in, 2, NULL, 0);
}

tern_tensor *tern_matmul(tern_tensor *a, tern_tensor *b) {
  tern_tensor *fast = tern__run_matrices(&tern__op_matmul, a, b);
  if (TERN__LIKELY(fast != NULL)) return fast;
  if (!tern__usable(a, "matmul", 1) || !tern__usable(b, "matmul", 2)) return NULL;
  if (a->rank == 0 || b->rank == 0) {
    tern__fail(TERN_E_ARG, "matmul: operand %d is a scalar; use tern_mul", a->rank == 0 ? 1 : 2);
    return NULL;
  }
  const bool row = a->rank == 1, column = b->rank == 1;
  if (row && !(a = tern_expand_dims(a, 0))) return NULL;
  if (column && !(b = tern_expand_dims(b, 1))) return NULL;
  tern_tensor *c = product(a, b);
  if (c && column) c = tern_squeeze(c, -1);
  return c && row ? tern_squeeze(c, column ? -1 : -2) : c;
}

tern_tensor *tern_dot(tern_tensor *a, tern_tensor *b) {
  if (!tern__usable(a, "dot", 1) || !tern__usable(b, "dot", 2)) return NULL;
  if (a->rank == 0 || b->rank == 0) return tern_mul(a, b);
  if (b->rank <= 2) return tern_matmul(a, b);
  /* a [.., K] . b [.., K, N]: bring K to the front of b, one matrix product, restore */
  int order[TERN_MAX_RANK], at = 1;
  order[0] = b->rank - 2;
  tern_shape shape = {.rank = 0};
  if (a->rank + b->rank - 2 > TERN_MAX_RANK) {
    tern__fail(TERN_E_ARG, "dot: the result would have rank %d; the most there is is %d", a->rank + b->rank - 2,
               TERN_MAX_RANK);
    return NULL;
  }
  for (int d = 0; d + 1 < a->rank; d++) shape.dim[shape.rank++] = a->shape[d];
  for (int d = 0; d < b->rank; d++)
    if (d != b->rank - 2) {
      order[at++] = d;
      shape.dim[shape.rank++] = b->shape[d];
    }
  tern_tensor *wide = tern_permute(b, order, b->rank);
  if (!wide) return NULL;
  int64_t columns = 1;
  for (int d = 1; d < wide->rank; d++) columns *= wide->shape[d];
  tern_tensor *flat = tern_reshape(wide, (tern_shape){2, {wide->shape[0], columns}});
  return tern_reshape(tern_matmul(a, flat), shape);
}
