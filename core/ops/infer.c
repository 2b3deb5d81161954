/* What the families' infer functions share: promotion, broadcasting into one space, operands. */
#include "device/device.h"
#include "dispatch/dispatch.h"
#include "ops/op.h"
#include "tensor/dtype.h"
#include <stdio.h>

tern_dtype tern__meet(const tern__call *c, int first, int n) {
  tern_dtype d = TERN_NO_DTYPE;
  bool weak_float = false, weak_int = false;
  for (int i = first; i < first + n; i++) {
    const tern_tensor *t = c->in[i];
    if (t == TERN_NONE) continue;
    if (t->flags & TERN__WEAK) {
      if (t->dtype == TERN_F64)
        weak_float = true;
      else
        weak_int = true;
    } else {
      d = d == TERN_NO_DTYPE ? (tern_dtype)t->dtype : tern__promote(d, (tern_dtype)t->dtype);
    }
  }
  if (d == TERN_NO_DTYPE) return weak_float ? TERN_F32 : TERN_I64;
  if (weak_float) return tern__promote_weak(d, true);
  return weak_int ? tern__promote_weak(d, false) : d;
}

static void describe(const tern__call *c, char *text, size_t size) {
  int at = 0;
  for (int i = 0; i < c->n_in && at < (int)size - 220; i++) {
    char shape[200];
    const tern_tensor *t = c->in[i];
    if (t == TERN_NONE)
      at += snprintf(text + at, size - (size_t)at, "%snone", i ? ", " : "");
    else if (t->flags & TERN__WEAK)
      at += snprintf(text + at, size - (size_t)at, "%sscalar", i ? ", " : "");
    else
      at += snprintf(text + at, size - (size_t)at, "%s%s %s", i ? ", " : "", tern_dtype_name((tern_dtype)t->dtype),
                     tern__shape_text(shape, t->rank, t->shape));
  }
}

tern_rc tern__space(const tern__call *c, tern__request *q) {
  int rank = 0;
  for (int i = 0; i < c->n_in; i++)
    if (c->in[i] != TERN_NONE && c->in[i]->rank > rank) rank = c->in[i]->rank;
  q->n_space = q->n_sizes = (uint8_t)rank;
  for (int d = 0; d < rank; d++) {
    q->size[d] = 1;
    q->role[d] = TERN__ROLE_MAP;
  }
  for (int i = 0; i < c->n_in; i++) {
    const tern_tensor *t = c->in[i];
    if (t == TERN_NONE) continue;
    for (int d = 0; d < t->rank; d++) {
      int64_t *size = &q->size[d + rank - t->rank];
      if (t->shape[d] == 1 || t->shape[d] == *size) continue;
      if (*size == 1) {
        *size = t->shape[d];
        continue;
      }
      char text[1400] = "";
      describe(c, text, sizeof text);
      return tern__fail(TERN_E_ARG,
                        "%s: the shapes of %s do not broadcast; sizes must be equal or 1, aligned at the last axis",
                        c->op->name, text);
    }
  }
  return TERN_OK;
}

tern_tensor *tern__optional(tern_tensor *t) { return t ? t : *tern__pending() ? NULL : TERN_NONE; }

tern_rc tern__check_dtype(const tern__call *c, tern_dtype d) {
  if (d > TERN_NO_DTYPE && d < TERN_DTYPE_END && c->op->dtypes >> d & 1) return TERN_OK;
  char accepted[160] = "", text[1400] = "";
  int at = 0;
  for (int k = 1; k < TERN_DTYPE_END; k++)
    if (c->op->dtypes >> k & 1)
      at +=
          snprintf(accepted + at, sizeof accepted - (size_t)at, "%s%s", at ? ", " : "", tern_dtype_name((tern_dtype)k));
  describe(c, text, sizeof text);
  return tern__fail(TERN_E_ARG, "%s: not defined for %s (of %s); it takes %s: tern_cast first", c->op->name,
                    tern_dtype_name(d), text, accepted);
}

void tern__operand_param(tern__request *q, int i, tern_dtype dtype, tern_word value) {
  tern__operand *a = &q->arg[i];
  a->kind = TERN_V_PARAM;
  a->dtype = (uint8_t)dtype;
  a->rank = 0;
  a->storage = NULL;
  a->value = value;
  a->weak = NULL;
}

void tern__operand_of(tern__request *q, int i, tern_tensor *t, tern_dtype param_dtype) {
  if (t->flags & TERN__WEAK) {
    tern__operand_param(q, i, param_dtype, tern__convert(t->imm, (tern_dtype)t->dtype, param_dtype));
    q->arg[i].weak = t;
    return;
  }
  if (t->device != q->device) { /* a rank-0 tensor in host memory: its value travels as a word */
    tern__operand_param(q, i, (tern_dtype)t->dtype,
                        tern__load((tern_dtype)t->dtype, t->storage->host + t->offset * tern__dtype_size[t->dtype]));
    q->arg[i].weak = TERN_NONE;
    return;
  }
  tern__operand *a = &q->arg[i];
  const int extra = q->n_space - t->rank;
  a->kind = TERN_V_IN;
  a->dtype = t->dtype;
  a->rank = q->n_space;
  a->storage = t->storage;
  a->offset = t->offset;
  for (int d = 0; d < q->n_space; d++) {
    const bool one = d < extra || t->shape[d - extra] == 1;
    a->dim[d] = one ? TERN__ONE : (uint8_t)d;
    a->stride[d] = one ? 0 : t->stride[d - extra];
  }
}

void tern__operand_out(tern__request *q, int o, tern_dtype dtype, uint32_t ones) {
  tern__operand *a = &q->arg[q->n_in + o];
  int64_t n = 1;
  a->kind = TERN_V_OUT;
  a->dtype = (uint8_t)dtype;
  a->rank = q->n_space;
  a->storage = NULL;
  a->offset = 0;
  for (int d = q->n_space; d-- > 0;) {
    const bool one = ones >> d & 1;
    a->dim[d] = one ? TERN__ONE : (uint8_t)d;
    a->stride[d] = one ? 0 : n;
    if (!one) n = (int64_t)((uint64_t)n * (uint64_t)q->size[d]); /* too large a shape is refused after this */
  }
}

void tern__result_space(const tern__request *q, tern__result *r, tern_dtype dtype) {
  r->dtype = dtype;
  r->rank = q->n_space;
  for (int d = 0; d < q->n_space; d++) r->shape[d] = q->size[d];
}

int tern__axis(const char *op, int axis, int rank) {
  const int d = axis < 0 ? axis + rank : axis;
  if (d >= 0 && d < rank) return d;
  tern__fail(TERN_E_ARG, "%s: axis %d does not exist in a tensor of rank %d", op, axis, rank);
  return -1;
}

tern_tensor *tern__sample_x(const tern__sample *s) { return tern__run(s->op, &s->x, 1, NULL, 0); }

tern_tensor *tern__sample_xy(const tern__sample *s) {
  tern_tensor *const in[] = {s->x, s->y};
  return tern__run(s->op, in, 2, NULL, 0);
}

void tern__lower_prim(tern__builder *b) {
  const tern__request *q = tern__b_request(b);
  int in[TERN__MAX_ARGS];
  for (int i = 0; i < q->n_in; i++) in[i] = tern__b_in(b, i);
  const tern__prim *p = tern__prim_of(q->op->prim);
  int out;
  if (p->kind == TERN_K_REDUCE) {
    out = tern__b_reduce(b, p->number, in[0], (tern_dtype)q->arg[q->n_in].dtype);
  } else if (p->number == TERN_OP_IOTA) {
    out = tern__b_iota(b, (int)q->attr[0].i, (tern_dtype)q->arg[q->n_in].dtype);
  } else if (p->number == TERN_OP_RNG) {
    out = tern__b_rng(b, in[0], in[1], (uint32_t)q->attr[0].u);
  } else {
    out = tern__b_node(b, p->number, q->n_in, in, 0, q->n_attrs, q->attr);
  }
  tern__b_out(b, 0, out);
}
