/* Short forms for writing composites: what their lowerings and inferences share. 16-bit floats are computed in float32
   and rounded once. */
#ifndef TERN_OPS_COMPOSITE_H_
#define TERN_OPS_COMPOSITE_H_
#include "ops/table.h"
#include "tensor/dtype.h"

/* The dtype that a composite computes in when its result is d. */
static inline tern_dtype tern__wide(tern_dtype d) { return d == TERN_F64 ? TERN_F64 : TERN_F32; }
/* Input i in the wide dtype of the request. */
static inline int tern__c_in(tern__builder *b, int i) {
  return tern__b_cast(b, tern__b_in(b, i), tern__wide((tern_dtype)tern__b_request(b)->dtype));
}
/* A constant of the dtype of value `like`. */
static inline int tern__c_const(tern__builder *b, int like, double value) {
  return tern__b_const(b, tern__b_dtype(b, like), value);
}
static inline int tern__c_add(tern__builder *b, int x, int y) { return tern__b_map2(b, TERN_OP_ADD, x, y); }
static inline int tern__c_sub(tern__builder *b, int x, int y) { return tern__b_map2(b, TERN_OP_SUB, x, y); }
static inline int tern__c_mul(tern__builder *b, int x, int y) { return tern__b_map2(b, TERN_OP_MUL, x, y); }
static inline int tern__c_div(tern__builder *b, int x, int y) { return tern__b_map2(b, TERN_OP_DIV, x, y); }
/* x * value, x + value. */
static inline int tern__c_scale(tern__builder *b, int x, double value) {
  return tern__c_mul(b, x, tern__c_const(b, x, value));
}
static inline int tern__c_plus(tern__builder *b, int x, double value) {
  return tern__c_add(b, x, tern__c_const(b, x, value));
}
static inline int tern__c_exp(tern__builder *b, int x) { return tern__b_map1(b, TERN_OP_EXP, x); }
/* Over the request's reduced dims, which stay as 1. */
static inline int tern__c_sum(tern__builder *b, int x) {
  return tern__b_reduce(b, TERN_OP_SUM, x, tern__b_dtype(b, x));
}
static inline int tern__c_max(tern__builder *b, int x) {
  return tern__b_reduce(b, TERN_OP_AMAX, x, tern__b_dtype(b, x));
}
/* x / (1 + exp(-y)) */
static inline int tern__c_logistic(tern__builder *b, int x, int y) {
  return tern__c_div(b, x, tern__c_plus(b, tern__c_exp(b, tern__b_map1(b, TERN_OP_NEG, y)), 1));
}

/* Operand n of the request from t, cast to d by the region. */
static inline void tern__c_operand(tern__request *q, int n, tern_tensor *t, tern_dtype d) {
  tern__operand_of(q, n, t, d);
  q->want[n] = q->arg[n].dtype == d ? 0 : (uint8_t)d;
}
/* A PARAM of the wide dtype. */
static inline void tern__c_param(tern__request *q, int n, tern_dtype wide, double value) {
  tern__operand_param(q, n, wide, tern__convert((tern_word){.f = value}, TERN_F64, wide));
}
/* All operands of the call broadcast to one space, in the float that they meet in, one result of that shape (nn.c). */
tern_rc tern__infer_floats(const tern__call *c, tern__request *q, tern__result *r);
/* The same with the axis of attribute 0 reduced. */
tern_rc tern__infer_along(const tern__call *c, tern__request *q, tern__result *r);
#endif
