/* See labels.h. */
#include "graph/labels.h"
#include "device/device.h"
#include "graph/trace.h"
#include "ops/loss.h"
#include "ops/table.h"
#include "tensor/dtype.h"
#include <string.h>

/* The input that value v is, in another shape or a wider integer; NULL: it is computed. */
static const tern__ir_node *input_of(const tern__graph *g, uint32_t v) {
  for (;;) {
    const tern__ir_node *n = &g->node[g->value[v].node];
    if (n->kind == TERN__IR_INPUT) return n;
    const bool same = n->kind == TERN__IR_OP && (n->op == &tern__op_reshape || n->op == &tern__op_cast);
    if (!same || n->in[0] == TERN__IR_NONE) return NULL;
    const tern_dtype from = (tern_dtype)g->value[n->in[0]].dtype, to = (tern_dtype)g->value[v].dtype;
    if (from != to && (!tern__is_int(from) || tern__dtype_size[from] >= tern__dtype_size[to])) return NULL;
    v = n->in[0];
  }
}

tern_rc tern__labels_note(tern__thread *t, const char *op, tern_tensor *labels, int64_t classes,
                          const int64_t *ignored) {
  tern__tracer *trace = t->trace;
  if (trace->kind != TERN__TRACE_FUNCTION || trace->quiet || trace->repeat.source || labels->device->queue)
    return TERN_OK;
  const uint32_t value = tern__tracer_value(trace, labels);
  if (value == TERN__IR_NONE) return tern__recorded();
  tern__graph *g = trace->g;
  const tern__ir_node *n = input_of(g, value);
  if (!n) return TERN_OK;
  const tern__ir_label label = {.op = op,
                                .input = (uint32_t)n->attr[0].u,
                                .classes = classes,
                                .ignore = ignored != NULL,
                                .ignored = ignored ? *ignored : 0};
  for (uint32_t i = 0; i < g->n_labels; i++)
    if (g->label[i].input == label.input && g->label[i].classes == label.classes &&
        g->label[i].ignore == label.ignore && g->label[i].ignored == label.ignored)
      return TERN_OK;
  tern__ir_label *all = tern__graph_alloc(g, g->n_labels + 1, sizeof *all);
  if (!all) return tern__recorded();
  if (g->n_labels) memcpy(all, g->label, g->n_labels * sizeof *all);
  all[g->n_labels++] = label;
  g->label = all;
  return TERN_OK;
}

bool tern__labels_ok(const tern__graph *g, tern_tensor *const *in) {
  for (uint32_t i = 0; i < g->n_labels; i++) {
    const tern__ir_label *l = &g->label[i];
    if (!tern__labels_in_range(l->op, in[l->input], l->classes, l->ignore ? &l->ignored : NULL, g->name)) return false;
  }
  return true;
}
