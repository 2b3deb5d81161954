/* See sized.h. Attributes are untyped words: a size is an integer between 2^24 and 2^60, whose bits are no common
   double; the reciprocal of one is a double below 2^-20, whose bits are no such integer. */
#include "graph/sized.h"
#include <math.h>
#include <stddef.h>

static int64_t map_size(void *dims, int64_t size) { return tern__dims_eval(dims, size, NULL); }

static void map_scalars(tern__graph *g, const tern__dims *dims) {
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    tern__ir_node *n = &g->node[i];
    if (n->kind == TERN__IR_SCALAR && g->value[n->first_out].dtype == TERN_F64)
      n->attr[0].f = tern__dims_eval_scalar(dims, n->attr[0].f);
    for (uint32_t a = 0; n->kind == TERN__IR_OP && a < n->n_attr; a++) {
      const double size = fabs(n->attr[a].f);
      if (size < 0x1p-20 && size > 0x1p-62) n->attr[a].f = tern__dims_eval_scalar(dims, n->attr[a].f);
    }
    for (int b = 0; b < 2; b++)
      if (n->body[b]) map_scalars(n->body[b], dims);
  }
}

tern__graph *tern__graph_sized(const tern__graph *g, const tern__dims *dims) {
  const bool vary = dims && dims->n;
  tern__dims copy = vary ? *dims : (tern__dims){0};
  tern__graph *sized = tern__graph_clone(g, vary ? map_size : NULL, &copy);
  if (sized && vary) map_scalars(sized, &copy);
  return sized;
}

static uint32_t scalar_varies(double v) {
  char text[TERN__DIMS_TEXT];
  if (!tern__dims_scalar_text(text, v)) return 0;
  uint32_t used = 0;
  for (const char *c = text; *c; c++)
    if (*c == 's') used |= 1u << (c[1] - '0');
  return used;
}

uint32_t tern__graph_varies(const tern__graph *g) {
  uint32_t used = 0;
  for (uint32_t v = 0; v < g->n_values; v++)
    for (int d = 0; d < g->value[v].rank && d < TERN_MAX_RANK; d++) used |= tern__dims_used(g->value[v].shape[d]);
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    const tern__ir_node *n = &g->node[i];
    const bool real = n->kind == TERN__IR_SCALAR && g->value[n->first_out].dtype == TERN_F64;
    for (uint32_t a = 0; a < n->n_attr; a++) {
      const double size = fabs(n->attr[a].f);
      const bool small = n->kind == TERN__IR_OP && size < 0x1p-20 && size > 0x1p-62;
      used |= tern__dims_used(n->attr[a].i) | (real || small ? scalar_varies(n->attr[a].f) : 0);
    }
    for (int b = 0; b < 2; b++)
      if (n->body[b]) used |= tern__graph_varies(n->body[b]);
  }
  return used;
}
