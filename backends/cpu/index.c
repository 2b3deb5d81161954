/* GATHER: rows of data picked by an index, every item size and stride. Each thread checks the indices that it uses;
   the first bad one (lowest position) is reported and nothing outside the data is read. */
#include "index.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

bool index_array_read(const tern_region *r, uint32_t v, bool output, struct index_array *x) {
  const tern_value *const value = &r->values[v], *base = value;
  x->offset = 0;
  if (value->kind == TERN_V_VIEW && !output) {
    if (value->slot >= r->n_values) return false;
    base = &r->values[value->slot];
    x->offset = value->offset;
  }
  const bool in_place = base->alias >= 0 && r->nodes[0].op != TERN_OP_SCATTER;
  if (base->kind != (output ? TERN_V_OUT : TERN_V_IN) || base->layout || base->slot >= r->n_args || in_place)
    return false;
  x->dtype = value->dtype;
  x->slot = base->slot;
  x->rank = value->rank;
  if (x->rank > TERN_MAX_RANK) return false;
  memcpy(x->shape, value->shape, sizeof x->shape);
  memcpy(x->stride, value->stride, sizeof x->stride);
  return true;
}

char *index_array_resolve(const struct index_array *x, const tern_word *words, const tern_launch *l,
                          struct index_array *to) {
  to->dtype = x->dtype, to->slot = x->slot, to->rank = x->rank;
  to->offset = TERN_LIT(x->offset, words);
  for (int d = 0; d < x->rank; d++) {
    to->shape[d] = TERN_LIT(x->shape[d], words);
    to->stride[d] = TERN_LIT(x->stride[d], words);
  }
  return l ? cpu_arg(l, x->slot) + to->offset * (int64_t)cpu_item_size(x->dtype) : NULL;
}

struct gather_kernel {
  tern_kernel base;
  struct index_array data, index, out;
};

enum { GATHER_BLOCK = 1 << 16 }; /* bytes of one row handled at once */
struct gather {
  const char *data, *index;
  char *out;
  bool wide;                               /* the index is I64 */
  int64_t size, o, a, j, i, blocks, block; /* item size, extents, pieces of a row and their length */
  int64_t data_o, data_a, data_i, index_j, out_o, out_j, out_i; /* strides in bytes */
  atomic_llong bad; /* lowest position in the index of an index out of range; LLONG_MAX: none */
};

static int64_t read_index(const struct gather *g, int64_t j) {
  const char *const p = g->index + j * g->index_j;
  return g->wide ? *(const int64_t *)(const void *)p : *(const int32_t *)(const void *)p;
}

static void report(struct gather *g, int64_t j) {
  long long seen = atomic_load(&g->bad);
  while (j < seen && !atomic_compare_exchange_weak(&g->bad, &seen, j)) continue;
}

#define COPY_ITEMS(T)                                                                                               \
  do {                                                                                                              \
    for (int64_t i = 0; i < n; i++) *(T *)(void *)(to + i * out_i) = *(const T *)(const void *)(from + i * data_i); \
  } while (0)
/* n items with byte strides */
static inline void copy_items(int64_t size, char *to, int64_t out_i, const char *from, int64_t data_i, int64_t n) {
  if (n > 1 && out_i == size && data_i == size) {
    memcpy(to, from, (size_t)(n * size));
    return;
  }
  switch (size) {
  case 1: COPY_ITEMS(uint8_t); break;
  case 2: COPY_ITEMS(uint16_t); break;
  case 4: COPY_ITEMS(uint32_t); break;
  default: COPY_ITEMS(uint64_t);
  }
}

static void gather_piece(void *ctx, int64_t lo, int64_t hi) {
  struct gather *const g = ctx;
  int64_t block = lo % g->blocks, j = lo / g->blocks % g->j, o = lo / g->blocks / g->j;
  for (int64_t t = lo; t < hi; t++) {
    int64_t at = read_index(g, j);
    if (at < 0) at += g->a;
    if (at < 0 || at >= g->a) {
      report(g, j);
    } else {
      const int64_t first = block * g->block, n = g->i - first < g->block ? g->i - first : g->block;
      copy_items(g->size, g->out + o * g->out_o + j * g->out_j + first * g->out_i, g->out_i,
                 g->data + o * g->data_o + at * g->data_a + first * g->data_i, g->data_i, n);
    }
    if (++block < g->blocks) continue;
    block = 0;
    if (++j < g->j) continue;
    j = 0;
    o++;
  }
}

static tern_rc gather_run(const tern_kernel *kernel, const tern_launch *l) {
  const struct gather_kernel *const k = (const struct gather_kernel *)(const void *)kernel;
  struct index_array data, index, out;
  struct gather g;
  g.data = index_array_resolve(&k->data, l->words, l, &data);
  g.index = index_array_resolve(&k->index, l->words, l, &index);
  g.out = index_array_resolve(&k->out, l->words, l, &out);
  g.wide = index.dtype == TERN_I64;
  g.size = (int64_t)cpu_item_size(data.dtype);
  g.o = out.shape[0], g.a = data.shape[1], g.j = out.shape[1], g.i = out.shape[2];
  g.data_o = data.stride[0] * g.size, g.data_a = data.stride[1] * g.size, g.data_i = data.stride[2] * g.size;
  g.out_o = out.stride[0] * g.size, g.out_j = out.stride[1] * g.size, g.out_i = out.stride[2] * g.size;
  g.index_j = index.stride[0] * (g.wide ? 8 : 4);
  g.block = GATHER_BLOCK / g.size;
  g.blocks = (g.i + g.block - 1) / g.block;
  atomic_init(&g.bad, INT64_MAX);
  const int64_t row = (g.i < g.block ? g.i : g.block) + 3; /* a row costs about 3 items more than its own */
  cpu_parallel(g.o * g.j * g.blocks, 32768 / row + 1, gather_piece, &g);
  const int64_t bad = atomic_load(&g.bad);
  if (bad == INT64_MAX) return TERN_OK;
  const long long at = read_index(&g, bad), axis = g.a;
  return cpu_error(TERN_E_ARG, "gather: index %lld is out of range for an axis of %lld; indices run from %lld to %lld",
                   at, axis, -axis, axis - 1);
}

static bool gather_read(const tern_region *r, struct index_array *data, struct index_array *index,
                        struct index_array *out) {
  const tern_node *const n = &r->nodes[0];
  if (n->n_in != 2 || n->n_out != 1) return false;
  const uint32_t *const in = r->edges + n->in;
  if (!index_array_read(r, in[0], false, data) || !index_array_read(r, in[1], false, index) ||
      !index_array_read(r, r->edges[n->out], true, out))
    return false;
  if (data->rank != 3 || index->rank != 1 || out->rank != 3) return false;
  if (index->dtype != TERN_I32 && index->dtype != TERN_I64) return false;
  return data->dtype == out->dtype && cpu_item_size(data->dtype) > 0;
}

static bool is_sort(const tern_region *r) {
  return r->nodes[0].op == TERN_OP_SORT || r->nodes[0].op == TERN_OP_ARGSORT;
}

tern_rc cpu_index_supports(const tern_region *r) {
  struct index_array data, index, out;
  if (r->n_nodes != 1) return TERN_E_UNSUPPORTED;
  if (is_sort(r)) return sort_supports(r);
  if (r->nodes[0].op == TERN_OP_SCATTER) return scatter_supports(r);
  if (r->nodes[0].op != TERN_OP_GATHER) return TERN_E_UNSUPPORTED;
  return gather_read(r, &data, &index, &out) ? TERN_OK : TERN_E_UNSUPPORTED;
}

tern_rc cpu_index_compile(const tern_region *r, tern_kernel **kernel, tern_kernel_info *info) {
  const tern_rc rc = cpu_index_supports(r);
  if (rc) return rc;
  if (is_sort(r)) return sort_compile(r, kernel, info);
  if (r->nodes[0].op == TERN_OP_SCATTER) return scatter_compile(r, kernel, info);
  struct gather_kernel *const k = calloc(1, sizeof *k);
  if (!k) return cpu_error(TERN_E_OOM, "gather: no memory for a kernel of %zu bytes", sizeof *k);
  k->base.run = gather_run;
  gather_read(r, &k->data, &k->index, &k->out);
  info->workspace = 0;
  *kernel = &k->base;
  return TERN_OK;
}
