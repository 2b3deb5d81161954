/* Running sums and products. Attributes of a call: axis, flags (1 exclusive, 2 from the end). */
#include "device/device.h"
#include "dispatch/dispatch.h"
#include "ops/table.h"
#include "tensor/dtype.h"
#include <tern/ops.h>

static tern_rc infer_scan(const tern__call *c, tern__request *q, tern__result *r) {
  tern_dtype d = tern__meet(c, 0, 1);
  if (!tern__is_float(d)) d = tern__is_unsigned(d) ? TERN_U64 : TERN_I64; /* as sum */
  const tern_rc rc = tern__space(c, q);
  if (rc) return rc;
  q->dtype = (uint8_t)d;
  q->role[c->attr[0].i] = TERN__ROLE_FIXED;
  q->n_attrs = 1;
  q->attr[0] = c->attr[1];
  tern__operand_of(q, 0, c->in[0], d);
  if (q->arg[0].kind == TERN_V_IN) { /* an axis of size 1 counts as present */
    q->arg[0].dim[c->attr[0].i] = (uint8_t)c->attr[0].i;
    if (q->size[c->attr[0].i] == 1) q->arg[0].stride[c->attr[0].i] = 1;
  }
  q->want[0] = q->arg[0].dtype == d ? 0 : (uint8_t)d;
  tern__result_space(q, r, d);
  tern__operand_out(q, 0, d, 0);
  return TERN_OK;
}

static void lower_scan(tern__builder *b) {
  const tern__request *q = tern__b_request(b);
  tern_word attr[2] = {{.i = 0}, q->attr[0]};
  for (int d = 0; d < q->n_space; d++)
    if (q->role[d] == TERN__ROLE_FIXED) attr[0].i = d;
  const int x = tern__b_in(b, 0);
  tern__b_out(b, 0, tern__b_node(b, q->op->prim, 1, &x, 0, 2, attr));
}

#define SCAN(id, primitive, text)                         \
  const tern__op tern__op_##id = {.name = #id,            \
                                  .family = "scan",       \
                                  .operands = "x, axis",  \
                                  .doc = text,            \
                                  .prim = primitive,      \
                                  .number = TERN__N_##id, \
                                  .dtypes = TERN_D_NUM,   \
                                  .infer = infer_scan,    \
                                  .lower = lower_scan,    \
                                  .absolute = 1e-5,       \
                                  .relative = 1e-5,       \
                                  .ulp = 84};
SCAN(cumsum, TERN_OP_CUMSUM, "running sum along axis")
SCAN(cumprod, TERN_OP_CUMPROD, "running product along axis")

static tern_tensor *scan(const tern__op *op, tern_tensor *x, int axis, const tern_scan_opts *opts) {
  if (!tern__usable(x, op->name, 1)) return NULL;
  const tern_word attr[] = {{.i = tern__axis(op->name, axis, x->rank)},
                            {.u = opts ? (opts->exclusive != 0) | (opts->reverse != 0) << 1 : 0}};
  return attr[0].i < 0 ? NULL : tern__run(op, &x, 1, attr, 2);
}

tern_tensor *tern_cumsum(tern_tensor *x, int axis, const tern_scan_opts *opts) {
  return scan(&tern__op_cumsum, x, axis, opts);
}
tern_tensor *tern_cumprod(tern_tensor *x, int axis, const tern_scan_opts *opts) {
  return scan(&tern__op_cumprod, x, axis, opts);
}
