/* empty and write (write.h). */
#include "ops/write.h"
#include "ops/table.h"
#include "tensor/tensor.h"
#include <string.h>

static tern_rc infer_empty(const tern__call *c, tern__request *q, tern__result *r) {
  q->n_in = q->n_sizes = q->n_space = 0;
  r->dtype = (tern_dtype)c->attr[0].i;
  r->rank = (int)c->attr[1].i;
  for (int d = 0; d < r->rank; d++) r->shape[d] = c->attr[2 + d].i;
  return TERN_OK;
}

/* The request is the COPY of the source to the part; the OUT's offset and strides are those of the part. */
static tern_rc infer_write(const tern__call *c, tern__request *q, tern__result *r) {
  const tern_tensor *whole = c->in[0];
  const int64_t offset = c->attr[0].i;
  const int rank = (int)c->attr[1].i;
  q->n_in = q->n_out = 1;
  q->dtype = whole->dtype;
  q->n_sizes = q->n_space = (uint8_t)rank;
  for (int d = 0; d < rank; d++) {
    q->size[d] = c->attr[2 + d].i;
    q->role[d] = TERN__ROLE_MAP;
  }
  tern__operand_of(q, 0, c->in[1], (tern_dtype)whole->dtype);
  if (q->arg[0].dtype != whole->dtype) q->want[0] = whole->dtype;
  tern__operand_out(q, 0, (tern_dtype)whole->dtype, 0);
  tern__operand *o = &q->arg[1];
  o->offset = offset;
  for (int d = 0; d < rank; d++) o->stride[d] = c->attr[2 + rank + d].i;
  r->dtype = (tern_dtype)whole->dtype;
  r->rank = whole->rank;
  memcpy(r->shape, whole->shape, sizeof whole->shape);
  return TERN_OK;
}

const tern__op tern__op_empty = {
    .name = "empty", .family = "graph", .number = 910, .dtypes = TERN_D_ANY, .infer = infer_empty};
const tern__op tern__op_write = {.name = "write",
                                 .family = "graph",
                                 .prim = TERN_OP_COPY,
                                 .number = 911,
                                 .dtypes = TERN_D_ANY,
                                 .infer = infer_write,
                                 .lower = tern__lower_prim};
