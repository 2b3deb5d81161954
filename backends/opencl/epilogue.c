/* See epilogue.h. */
#include "epilogue.h"

#include <common/nest.h>
#include <stdlib.h>

enum { PRODUCT_BYTES = 416 /* arguments of the product's kernels, at most */, FINISH_LOCAL = 64, FINISH_RUN = 512 };

tern_rc ocl_epilogue_read(const tern_dev *dev, const tern_region *r, uint32_t low, uint32_t high, int lanes,
                          const tern_value *v[3], render_epilogue **out) {
  *out = NULL;
  if (r->n_nodes == 1)
    return r->nodes[0].op >= low && r->nodes[0].op <= high && ocl_single(r, r->nodes[0].op, 2, v) ? TERN_OK
                                                                                                  : TERN_E_UNSUPPORTED;
  const tern_node *n = NULL;
  for (uint32_t i = 0; i < r->n_nodes && !n; i++)
    if (r->nodes[i].op >= low && r->nodes[i].op <= high) n = &r->nodes[i];
  if (!n || n->n_in != 2 || n->n_out != 1) return TERN_E_UNSUPPORTED;
  for (uint32_t i = 0; i < 3; i++) {
    const uint32_t at = i < 2 ? r->edges[n->in + i] : r->edges[n->out];
    if (at >= r->n_values) return TERN_E_UNSUPPORTED;
    v[i] = &r->values[at];
    if (i < 2 && (v[i]->kind != TERN_V_IN || v[i]->slot >= r->n_args)) return TERN_E_UNSUPPORTED;
  }
  if (!v[2]->rank || (v[2]->kind == TERN_V_OUT && v[2]->alias >= 0)) return TERN_E_UNSUPPORTED;
  const render_device device = ocl_render_device(dev->id);
  render_epilogue *e = NULL;
  const tern_rc rc = render_epilogue_build(r, &device, lanes < 0 ? v[2]->rank - 1u : (uint32_t)lanes, &e);
  if (rc) return rc;
  if (&r->nodes[e->node] != n || e->n_bytes + PRODUCT_BYTES > device.max_arg_bytes) {
    render_epilogue_free(e);
    return TERN_E_UNSUPPORTED;
  }
  *out = e;
  return TERN_OK;
}

void ocl_add_epilogue(ocl_text *t, const tern_dev *dev, const render_epilogue *e, uint32_t dtype, const char *p) {
  ocl_text round = {0};
  ocl_add(&round, "#define E_X(x) %s((%s_C)(x))\n",
          dtype == TERN_F16    ? "t_round_h"
          : dtype == TERN_BF16 ? "t_round_b"
                               : "",
          p);
  const char *const sources[] = {e->source, round.s ? round.s : ""};
  const render_device device = ocl_render_device(dev->id);
  char *prelude = render_prelude(&device, sources, 2);
  if (!prelude || round.failed) t->failed = true;
  /* each node of the epilogue is rounded; a product's multiplications and additions may be one */
  if (prelude && !round.failed) ocl_add(t, "%s%s%s#pragma OPENCL FP_CONTRACT ON\n", prelude, round.s, e->source);
  free(prelude);
  free(round.s);
}

void ocl_add_finish(ocl_text *t, const tern_dev *dev, const render_epilogue *e, uint32_t rank, bool vector,
                    const char *p) {
  ocl_add(t,
          "__kernel __attribute__((reqd_work_group_size(%d, 1, 1)))\nvoid finish(__global const %s_T *Q, long q0, long "
          "piece",
          ocl_is_cpu(dev->id) ? 1 : FINISH_LOCAL, p);
  for (uint32_t d = 0; d < rank; d++) ocl_add(t, ", long n%u", d);
  ocl_add(
      t,
      "%s) {\n%s  const long last = n%u, pieces = (last + piece - 1) / piece;\n  long id = (long)get_global_id(0);\n"
      "  if (id >= pieces",
      e->params, e->setup, rank - 1);
  for (uint32_t d = 0; d + 1 < rank; d++) ocl_add(t, " * n%u", d);
  ocl_add(t, ") return;\n  const ix lo = (ix)(id %% pieces * piece), hi = min(lo + (ix)piece, (ix)last);\n"
             "  id /= pieces;\n  Q += q0 + id * last;\n");
  for (uint32_t d = rank - 1; d-- > 0;) ocl_add(t, "  const ix j%u = (ix)(id %% n%u); id /= n%u;\n", d, d, d);
  ocl_add(t, "  ix at = lo;\n");
  for (int v = vector ? 1 : 0; v >= 0; v--) {
    ocl_add(t, v ? "  for (; at + 16 <= hi; at += 16) epilogue_v(%s" : "  for (; at < hi; at++) epilogue(%s", e->args);
    for (uint32_t d = 0; d + 1 < rank; d++) ocl_add(t, "j%u, ", d);
    ocl_add(t, v ? "at, vload16(0, Q + at));\n" : "at, (%s_C)%s_LD(Q, at));\n", p, p);
  }
  ocl_add(t, "}\n");
}

tern_rc ocl_epilogue_init(tern_dev *dev, ocl_epilogue *e, render_epilogue *text) {
  e->text = text;
  if (!text) return TERN_OK;
  e->actuals = calloc(text->n_params + 1u, sizeof *e->actuals);
  return e->actuals ? TERN_OK : ocl_error(dev->drv, dev->id, TERN_E_OOM, "no memory for a kernel");
}

void ocl_epilogue_end(ocl_epilogue *e) {
  if (e->finish) clReleaseKernel(e->finish);
  render_epilogue_free(e->text);
  free(e->actuals);
}

void ocl_epilogue_args(const ocl_epilogue *e, const tern_launch *l, ocl_call *c) {
  if (!e->text) return;
  render_epilogue_bind(e->text, l, e->actuals);
  for (uint32_t i = 0; i < e->text->n_params; i++) {
    const render_actual *a = &e->actuals[i];
    if (a->kind == RENDER_ARG)
      ocl_arg_mem(c, l->args[a->slot].mem->buffer);
    else
      ocl_arg(c, a->size, &a->value);
  }
}

tern_rc ocl_epilogue_finish(tern_dev *dev, tern_queue *q, const ocl_epilogue *e, const tern_launch *l,
                            const tern_arg *product, uint32_t dtype, uint32_t rank, const int64_t *size) {
  const bool cpu = ocl_is_cpu(dev->id);
  const int64_t piece = cpu ? FINISH_RUN : 1;
  uint64_t items = (uint64_t)((size[rank - 1] + piece - 1) / piece);
  ocl_call c = ocl_call_of(q, e->finish);
  ocl_arg_at(&c, product, ocl_item_size(dtype));
  ocl_arg_long(&c, piece);
  for (uint32_t d = 0; d < rank; d++) ocl_arg_long(&c, size[d]);
  for (uint32_t d = 0; d + 1 < rank; d++) items *= (uint64_t)size[d];
  ocl_epilogue_args(e, l, &c);
  return ocl_run1(dev, q, &c, "what follows a product", items, cpu ? 1 : FINISH_LOCAL);
}
