/* See rows.h. One pass over the body in order says of each value whether it has rows. A leaf that may be taken either
   way (what the loop only reads, constants to be made) counts as one without, until something needs its rows; then the
   pass begins anew. */
#include "graph/passes/rows.h"
#include "base/alloc.h"
#include "base/thread.h"
#include "device/device.h"
#include "graph/passes/simplify_parts.h"
#include "graph/passes/sweep.h"
#include "ops/table.h"
#include "ops/write.h"
#include "tensor/dtype.h"
#include <stdlib.h>
#include <string.h>

enum {
  LEAST_TRIPS = 4,
  LEAST_ROWS = 8, /* of a part: a product's kernel works on some rows at once */
  MOST_SHARED = 1 << 20 /* bytes that all parts read: each thread's cache has to hold them */,
  MOST_BYTES = 4 << 20 /* of what one trip computes: kernels on more keep all threads busy by themselves */
};

/* FLAT: reshaped; the rows lie behind each other in dense order */
typedef enum { NONE = 0, ROWS, FLAT } having;

typedef struct rows {
  tern__graph *g;
  const tern__ir_node *loop;
  int64_t n;    /* rows */
  uint8_t *has; /* by value: having */
  bool *taken;  /* by node: a leaf that is taken as rows */
  bool again;   /* one was taken just now */
} rows;

static tern__sweep_way way_of(const rows *r, uint64_t k) { return tern__sweep_way_of(r->loop, k); }

static bool sized(const rows *r, uint32_t v) {
  const tern__ir_value *x = &r->g->value[v];
  return !x->weak && x->rank > 0 && x->shape[0] == r->n;
}

/* What has no rows but could have them: a leaf becomes one with rows, or one that the value comes from. */
static bool take(rows *r, uint32_t v) {
  const uint32_t node = r->g->value[v].node;
  const tern__ir_node *n = &r->g->node[node];
  if (r->has[v] || !sized(r, v)) return false;
  const bool read = n->kind == TERN__IR_INPUT && n->attr[0].u >= r->loop->n_out && way_of(r, n->attr[0].u) == 0;
  const bool made = n->kind == TERN__IR_OP && (n->op == &tern__op_full || n->op == &tern__op_empty);
  if ((read || made) && !r->taken[node]) return r->taken[node] = r->again = true;
  if (read || made || n->kind != TERN__IR_OP) return false;
  for (uint32_t i = 0; i < n->n_in; i++)
    if (n->in[i] != TERN__IR_NONE && take(r, n->in[i])) return true;
  return false;
}

static having of_input(const rows *r, const tern__ir_node *n) {
  const uint64_t k = n->attr[0].u;
  const tern__sweep_way way = way_of(r, k);
  if (way >= TERN__SWEEP_STACK) return NONE; /* not read */
  if (way == TERN__SWEEP_WHOLE && k >= r->loop->n_out) return r->taken[r->g->value[n->first_out].node] ? ROWS : NONE;
  return sized(r, n->first_out) ? ROWS : NONE;
}

/* Elementwise: what has rows has them as the result's first axis. */
static bool is_aligned(rows *r, const tern__ir_node *n) {
  const tern__ir_value *out = &r->g->value[n->first_out];
  for (uint32_t i = 0; i < n->n_in; i++) {
    const uint32_t v = n->in[i];
    if (v == TERN__IR_NONE || r->g->value[v].weak) continue;
    const tern__ir_value *x = &r->g->value[v];
    if (r->has[v] == ROWS ? x->rank != out->rank : r->has[v] == FLAT) return false;
    if (r->has[v] == NONE && x->rank == out->rank && x->shape[0] != 1 && !take(r, v)) return false;
  }
  return true;
}

static bool is_product(const rows *r, const tern__ir_node *n) {
  const uint32_t a = n->in[0], b = n->in[1];
  const int ra = r->g->value[a].rank, rb = r->g->value[b].rank;
  if (r->has[a] != ROWS) return false;
  return r->has[b] == NONE ? ra >= 2 && rb == 2 : r->has[b] == ROWS && ra == rb && ra >= 3;
}

/* Columns of a dense whole, all rows of them: {offset, rank, sizes, strides} */
static bool is_columns(rows *r, const tern__ir_node *n) {
  const uint32_t whole = n->in[0], part = n->in[1];
  const int64_t rank = n->attr[1].i;
  if (r->has[part] != ROWS || !sized(r, whole) || rank < 1 || n->attr[2].i != r->n) return false;
  int64_t pitch = 1, last = n->attr[0].i;
  for (int d = 1; d < r->g->value[whole].rank; d++) pitch *= r->g->value[whole].shape[d];
  for (int64_t d = 1; d < rank; d++) last += (n->attr[2 + d].i - 1) * n->attr[2 + rank + d].i;
  if (n->attr[0].i < 0 || last < 0 || last >= pitch || n->attr[2 + rank].i != pitch) return false;
  for (int64_t d = 1; d < rank; d++)
    if (n->attr[2 + rank + d].i < 0) return false;
  return r->has[whole] == ROWS || take(r, whole);
}

static bool is_reduction(const tern__op *op) {
  return op == &tern__op_sum || op == &tern__op_mean || op == &tern__op_max || op == &tern__op_min;
}

/* What the one result of an op with operands that have rows has; NONE: the rows are mixed. */
static having of_op(rows *r, const tern__ir_node *n) {
  const uint32_t in = n->in[0], out = n->first_out;
  if (n->op == &tern__op_reshape) {
    if (sized(r, out)) return ROWS;
    const tern__ir_value *x = &r->g->value[out];
    int d = 0;
    while (d < x->rank && x->shape[d] == 1) d++;
    return d < x->rank && x->shape[d] % r->n == 0 ? FLAT : NONE;
  }
  if (!sized(r, out)) return NONE;
  bool kept = false;
  if (n->op == &tern__op_permute)
    kept = r->has[in] == ROWS && n->attr[0].i == 0;
  else if (n->op == &tern__op_slice)
    kept = r->has[in] == ROWS && n->attr[0].i != 0 && n->attr[1].i == 0 && n->attr[2].i == 1;
  else if (n->op == &tern__op_expand)
    kept = r->has[in] == ROWS && r->g->value[in].rank == r->g->value[out].rank;
  else if (n->op == &tern__op_matmul)
    kept = is_product(r, n);
  else if (n->op == &tern__op_write)
    kept = is_columns(r, n);
  else if (is_reduction(n->op))
    kept = r->has[in] == ROWS && !(n->attr[0].u & 1);
  else if (n->op == &tern__op_copy || tern__op_facts(n->op) & TERN__OP_MAP)
    kept = is_aligned(r, n);
  return kept ? ROWS : NONE;
}

static bool visit(rows *r, const tern__ir_node *n) {
  uint8_t *const has = r->has;
  bool any = false;
  switch (n->kind) {
  case TERN__IR_DEAD: return true;
  case TERN__IR_INPUT: has[n->first_out] = (uint8_t)of_input(r, n); return true;
  case TERN__IR_SCALAR:
  case TERN__IR_CONST: has[n->first_out] = NONE; return true;
  case TERN__IR_OP: break;
  default: return false;
  }
  if (n->n_out != 1 || n->op->draws) return false;
  for (uint32_t i = 0; i < n->n_in; i++) any |= n->in[i] != TERN__IR_NONE && has[n->in[i]];
  has[n->first_out] = (uint8_t)(any ? of_op(r, n) : r->taken[r->g->value[n->first_out].node] ? ROWS : NONE);
  return !any || has[n->first_out];
}

/* States keep what they have; some result has rows. */
static bool results_fit(const rows *r) {
  bool any = false;
  for (uint32_t k = 0; k < r->loop->n_out; k++) {
    const uint32_t v = r->g->output[k];
    if (v == TERN__IR_NONE) continue;
    if (way_of(r, k) < TERN__SWEEP_STACK && r->has[v] != r->has[r->g->input[k]]) return false;
    any |= r->has[v] != NONE;
  }
  return any;
}

static bool find(rows *r) {
  for (;;) {
    bool fits = true;
    r->again = false;
    for (uint32_t i = 0; i < r->g->n_nodes && fits; i++) fits = visit(r, &r->g->node[i]);
    if (!r->again) return fits && results_fit(r);
  }
}

/* The first axis of a stack's slice, or of a state. */
static int64_t rows_of(const tern__graph *g, const tern__ir_node *loop) {
  for (uint32_t k = 0; k < loop->n_out; k++) {
    if (g->output[k] == TERN__IR_NONE || !(k || tern__sweep_way_of(loop, k) >= TERN__SWEEP_STACK)) continue;
    const uint32_t v = tern__behind_reshapes(g, g->output[k]);
    if (g->value[v].rank > 0) return g->value[v].shape[0];
  }
  return 0;
}

static bool is_small(const rows *r) {
  uint64_t shared = 0, computed = 0;
  for (uint32_t i = 0; i < r->g->n_nodes; i++) {
    const tern__ir_node *n = &r->g->node[i];
    if (n->kind == TERN__IR_DEAD || n->n_out != 1) continue;
    const bool leaf = n->kind != TERN__IR_OP,
               stack = n->kind == TERN__IR_INPUT && way_of(r, n->attr[0].u) >= TERN__SWEEP_STACK;
    if (!r->has[n->first_out])
      shared += leaf && !stack ? tern__ir_bytes(&r->g->value[n->first_out]) : 0;
    else
      computed += tern__ir_bytes(&r->g->value[n->first_out]);
  }
  return shared <= MOST_SHARED && computed <= MOST_BYTES;
}

/* Parts of equal size, at most one a thread. */
static int64_t parts_for(int64_t n, uint32_t threads) {
  for (int64_t p = threads; p > 1; p--)
    if (n % p == 0 && n / p >= LEAST_ROWS) return p;
  return 1;
}

/* A copy of a node's attributes with one size divided. */
static bool divide_attribute(tern__graph *g, tern__ir_node *n, uint32_t at, int64_t parts) {
  tern_word *attr = tern__graph_alloc(g, n->n_attr, sizeof *attr);
  if (!attr) return false;
  memcpy(attr, n->attr, n->n_attr * sizeof *attr);
  attr[at].i /= parts;
  n->attr = attr;
  return true;
}

static tern_rc divide(const rows *r, tern__ir_node *loop, int64_t parts) {
  tern__graph *g = r->g;
  for (uint32_t i = 0; i < g->n_nodes; i++) {
    tern__ir_node *n = &g->node[i];
    if (n->kind == TERN__IR_DEAD || !r->has[n->first_out]) continue;
    const uint32_t at = n->op == &tern__op_write || n->op == &tern__op_empty ? 2 : n->op == &tern__op_full ? 1 : 0;
    if (n->kind == TERN__IR_OP && at && !divide_attribute(g, n, at, parts)) return tern__recorded();
  }
  for (uint32_t v = 0; v < g->n_values; v++) {
    int64_t *size = g->value[v].shape;
    if (!r->has[v]) continue;
    while (r->has[v] == FLAT && *size == 1) size++;
    *size /= parts;
  }
  loop->attr[TERN__SWEEP_PARTS].i = parts;
  for (uint32_t k = 0; k < loop->n_in; k++) {
    const uint32_t v = way_of(r, k) >= TERN__SWEEP_STACK ? g->output[k] : g->input[k];
    if (v != TERN__IR_NONE && r->has[v]) loop->attr[TERN__SWEEP_WAY + k].i |= TERN__SWEEP_ROWS;
  }
  return TERN_OK;
}

tern_rc tern__rows_split(tern__ir_node *loop) {
  tern__graph *g = loop->body[1];
  const tern__device *d = loop->device;
  if (!d || d->queue || !d->api->team || d->info.team < 2 || g->n_variables || g->n_labels ||
      loop->attr[TERN__SWEEP_TRIPS].i < LEAST_TRIPS)
    return TERN_OK;
  rows r = {.g = g, .loop = loop, .n = rows_of(g, loop)};
  const int64_t parts = parts_for(r.n, d->info.team);
  if (parts < 2) return TERN_OK;
  for (uint32_t i = 0; i < g->n_nodes; i++)
    if (g->node[i].device && g->node[i].device != d) return TERN_OK;
  r.has = tern__calloc((size_t)g->n_values + 1, 1);
  r.taken = tern__calloc((size_t)g->n_nodes + 1, sizeof *r.taken);
  tern_rc rc = r.has && r.taken ? TERN_OK : tern__fail(TERN_E_OOM, "graph: out of host memory for a loop");
  if (!rc && find(&r) && is_small(&r)) rc = divide(&r, loop, parts);
  free(r.has);
  free(r.taken);
  return rc;
}
