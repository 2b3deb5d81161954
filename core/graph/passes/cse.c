/* Common subexpressions: of nodes with the same op, attributes, operands, device and types the first one stays. What
   draws, has an effect, is memory to be written, or runs bodies is left alone. What is computed again to save memory
   meets only what the same replay computes: with the first one its value would be kept after all. */
#include "base/alloc.h"
#include "device/device.h"
#include "graph/passes/simplify_parts.h"
#include <stdlib.h>
#include <tern/tensor.h>

enum { MOST_BYTES = 4096 /* of a constant whose bytes are compared */ };

typedef struct table {
  tern__graph *g;
  const uint32_t *map;
  uint64_t *hash;
  uint32_t *node; /* + 1; 0: free */
  uint32_t mask;
  bool fast_math;
  char a[MOST_BYTES], b[MOST_BYTES];
} table;

static uint64_t mix(uint64_t h, uint64_t w) {
  h = (h ^ w) * UINT64_C(0x9e3779b97f4a7c15);
  return h ^ h >> 29;
}

static bool may_meet(const tern__ir_node *n) {
  if (n->kind == TERN__IR_CONST || n->kind == TERN__IR_SCALAR) return true;
  return n->kind == TERN__IR_OP && !n->op->draws && n->op != &tern__op_empty && n->n_out > 0;
}

/* Operands 0 and 1 may change places. */
static bool swaps(const table *t, const tern__ir_node *n) {
  if (n->kind != TERN__IR_OP || n->n_in != 2) return false;
  const uint32_t facts = tern__op_facts(n->op);
  return facts & TERN__OP_SWAPS ||
         (facts & TERN__OP_SWAPS_INT && (t->fast_math || !tern__is_float((tern_dtype)t->g->value[n->first_out].dtype)));
}

/* Elements in row-major order; false where they are too many. */
static bool bytes_of(const tern_tensor *x, char *data, size_t *size) {
  *size = (size_t)x->numel * tern__dtype_size[x->dtype];
  if (*size > MOST_BYTES || (x->flags & TERN__WEAK)) return false;
  if ((x->flags & TERN__CONTIG) && x->storage->host && !x->device->queue) {
    memcpy(data, x->storage->host + x->offset * tern__dtype_size[x->dtype], *size);
    return true;
  }
  return tern_to_host((tern_tensor *)x, data, *size) == TERN_OK;
}

static uint64_t hash_tensor(table *t, const tern_tensor *x, uint64_t h) {
  size_t size;
  if (!bytes_of(x, t->a, &size)) return mix(mix(h, (uint64_t)(uintptr_t)x->storage), (uint64_t)x->offset);
  size_t at = 0;
  for (; at + 8 <= size; at += 8) {
    uint64_t w;
    memcpy(&w, t->a + at, 8);
    h = mix(h, w);
  }
  for (; at < size; at++) h = mix(h, (uint8_t)t->a[at]);
  return h;
}

static bool same_tensor(table *t, const tern_tensor *x, const tern_tensor *y) {
  if (x == y) return true;
  if (x->storage && x->storage == y->storage && x->offset == y->offset &&
      !memcmp(x->stride, y->stride, x->rank * sizeof *x->stride))
    return true;
  size_t m, n;
  return bytes_of(x, t->a, &m) && bytes_of(y, t->b, &n) && m == n && !memcmp(t->a, t->b, m);
}

static uint64_t hash_of(table *t, const tern__ir_node *n) {
  const tern__ir_value *v = &t->g->value[n->first_out];
  uint64_t h = mix(n->kind | (uint64_t)n->again << 8, (uint64_t)(uintptr_t)n->op);
  for (int d = 0; d < v->rank; d++) h = mix(h, (uint64_t)v->shape[d]);
  h = mix(h, (uint64_t)v->dtype << 8 | v->rank);
  for (uint32_t k = 0; k < n->n_attr; k++) h = mix(h, n->attr[k].u);
  if (n->kind == TERN__IR_CONST) return hash_tensor(t, n->tensor, h);
  if (swaps(t, n)) return mix(h, (uint64_t)n->in[0] + n->in[1]);
  for (uint32_t k = 0; k < n->n_in; k++) h = mix(h, n->in[k]);
  return h;
}

static bool same_operands(const table *t, const tern__ir_node *a, const tern__ir_node *b) {
  if (!a->n_in || !memcmp(a->in, b->in, a->n_in * sizeof *a->in)) return true;
  return swaps(t, a) && a->in[0] == b->in[1] && a->in[1] == b->in[0];
}

static bool equal(table *t, const tern__ir_node *a, const tern__ir_node *b) {
  if (a->kind != b->kind || a->op != b->op || a->device != b->device || a->n_in != b->n_in || a->n_out != b->n_out ||
      a->again != b->again || a->n_attr != b->n_attr ||
      (a->n_attr && memcmp(a->attr, b->attr, a->n_attr * sizeof *a->attr)))
    return false;
  for (uint32_t o = 0; o < a->n_out; o++)
    if (!tern__same_type(&t->g->value[a->first_out + o], &t->g->value[b->first_out + o])) return false;
  return same_operands(t, a, b) && (a->kind != TERN__IR_CONST || same_tensor(t, a->tensor, b->tensor));
}

/* The node that i is equal to; i itself where it is the first of its kind, which is then in the table. */
static uint32_t first_of(table *t, uint32_t i) {
  const uint64_t h = hash_of(t, &t->g->node[i]);
  uint32_t at = (uint32_t)(h >> 20) & t->mask;
  for (; t->node[at]; at = (at + 1) & t->mask)
    if (t->hash[at] == h && equal(t, &t->g->node[t->node[at] - 1], &t->g->node[i])) return t->node[at] - 1;
  t->hash[at] = h;
  t->node[at] = i + 1;
  return i;
}

static void sweep(table *t, uint32_t *map, bool *changed) {
  tern__graph *g = t->g;
  bool some = false;
  for (uint32_t v = 0; v < g->n_values; v++) map[v] = v;
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    tern__ir_node *n = &g->node[i];
    if (n->kind == TERN__IR_DEAD) continue;
    for (uint32_t k = 0; k < n->n_in; k++)
      if (n->in[k] != TERN__IR_NONE) n->in[k] = map[n->in[k]];
    if (!may_meet(n)) continue;
    const uint32_t first = first_of(t, i);
    if (first == i) continue;
    tern__ir_node *kept = &g->node[first];
    kept->pinned |= n->pinned;
    for (uint32_t o = 0; o < n->n_out; o++) map[n->first_out + o] = kept->first_out + o;
    n->kind = TERN__IR_DEAD; /* so that later passes see its operands without it */
    some = true;
  }
  if (!some) return;
  tern__graph_replace_all(g, map);
  *changed = true;
}

tern_rc tern__simplify_common(tern__graph *g, const tern__simplify_opts *opts, bool *changed) {
  uint32_t size = 64;
  while (size < 2 * g->n_nodes) size *= 2;
  table *t = tern__calloc(1, sizeof *t);
  uint64_t *hash = tern__calloc(size, sizeof *hash);
  uint32_t *node = tern__calloc(size, sizeof *node), *map = tern__calloc(g->n_values + 1u, sizeof *map);
  const bool ok = t && hash && node && map;
  if (ok) {
    t->g = g;
    t->map = map;
    t->hash = hash;
    t->node = node;
    t->mask = size - 1;
    t->fast_math = opts && opts->fast_math;
    sweep(t, map, changed);
  }
  free(t);
  free(hash);
  free(node);
  free(map);
  return ok ? TERN_OK : tern__fail(TERN_E_OOM, "cse: out of host memory");
}
