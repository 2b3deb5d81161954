/* A region as text, for the debug log: one line a value that is not computed, one a node. */
#include "ops/op.h"
#include "region/region.h"
#include <stdio.h>

static void number(FILE *f, int64_t x) {
  if (TERN_IS_SYM(x))
    fprintf(f, "w%u", TERN_SYM_ID(x));
  else
    fprintf(f, "%lld", (long long)x);
}

static void list(FILE *f, const char *open, const int64_t *x, int n, const char *close) {
  fprintf(f, "%s", open);
  for (int d = 0; d < n; d++) {
    if (d) fprintf(f, ",");
    number(f, x[d]);
  }
  fprintf(f, "%s", close);
}

static void value(FILE *f, const tern_region *r, uint32_t id) {
  static const char *const kinds[] = {"?", "in", "out", "temp", "const", "param", "view", "size"};
  const tern_value *v = &r->values[id];
  fprintf(f, "%%%u:%s %s", id, v->kind <= TERN_V_SIZE ? kinds[v->kind] : "?", tern_dtype_name((tern_dtype)v->dtype));
  if (v->kind == TERN_V_IN || v->kind == TERN_V_OUT) fprintf(f, " arg%u", v->slot);
  if (v->kind == TERN_V_PARAM) fprintf(f, " w%u", v->slot);
  if (v->kind == TERN_V_CONST) fprintf(f, " %g", v->dtype >= TERN_F16 ? v->imm.f : (double)v->imm.i);
  if (v->kind == TERN_V_SIZE) fprintf(f, " of %%%u mask %llu", v->slot, (unsigned long long)v->imm.u);
  if (v->rank) list(f, " [", v->shape, v->rank, "]");
  if (v->kind == TERN_V_IN || v->kind == TERN_V_OUT) list(f, " stride [", v->stride, v->rank, "]");
}

char *tern__region_text(const tern_region *r) {
  char *text = NULL;
  size_t size = 0;
  FILE *f = open_memstream(&text, &size);
  if (!f) return NULL;
  for (uint32_t i = 0; i < r->n_nodes; i++) {
    const tern_node *n = &r->nodes[i];
    const tern__prim *p = tern__prim_of(n->op);
    fprintf(f, "%s  ", i ? "\n" : "");
    value(f, r, r->edges[n->out]);
    fprintf(f, " = %s(", p ? p->name : "?");
    for (uint32_t k = 0; k < n->n_in; k++) {
      if (k) fprintf(f, "; ");
      value(f, r, r->edges[n->in + k]);
    }
    fprintf(f, ")");
    for (uint32_t k = 0; k < n->n_attr; k++) fprintf(f, " attr%u=%lld", k, (long long)r->attrs[n->attr + k].i);
  }
  fclose(f);
  return text;
}
