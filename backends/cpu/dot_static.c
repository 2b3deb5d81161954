/* Products in oneDNN's own layouts. A layout token is a place in a process-wide table of memory descriptors, so it
   carries the sizes and blocks of the array and means the same to every kernel; the table only grows. */
#include "dot_static.h"
#include "../common/nest.h"
#include "conv.h"

#if TERN_CPU_ONEDNN
#include <oneapi/dnnl/dnnl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

enum {
  LAYOUTS = 1024,
  CONTEXTS = 4,
  ARRAYS = 4 /* inputs, result, bias */,
  PACK_FROM = 64 * 64,
  PACK_ROWS_FROM = 4,
  PACK_ROWS_TO = 1024
};
#define TOKEN_MARK ((uint64_t)0x64 << 56) /* no small number is a token */

static struct {
  pthread_once_t once;
  pthread_mutex_t lock;
  dnnl_engine_t engine; /* for the life of the process; NULL: oneDNN does not work here */
  uint32_t n;
  dnnl_memory_desc_t md[LAYOUTS];
} table = {.once = PTHREAD_ONCE_INIT, .lock = PTHREAD_MUTEX_INITIALIZER};

static void engine_open(void) {
  if (dnnl_engine_create(&table.engine, dnnl_cpu, 0) != dnnl_success) table.engine = NULL;
}

/* ---- tokens ---- */

static bool layout_find(uint64_t token, dnnl_memory_desc_t *md) {
  const uint64_t i = (token ^ TOKEN_MARK) - 1;
  pthread_mutex_lock(&table.lock);
  const bool found = i < table.n;
  if (found) *md = table.md[i];
  pthread_mutex_unlock(&table.lock);
  return found;
}

/* 0: the table is full */
static uint64_t layout_token(const dnnl_memory_desc_t *md) {
  uint32_t i = 0;
  pthread_mutex_lock(&table.lock);
  while (i < table.n && !dnnl_memory_desc_equal(&table.md[i], md)) i++;
  const bool room = i < LAYOUTS;
  if (i == table.n && room) table.md[table.n++] = *md;
  pthread_mutex_unlock(&table.lock);
  return room ? TOKEN_MARK | (uint64_t)(i + 1) : 0;
}

int64_t cpu_static_elements(uint64_t layout) {
  dnnl_memory_desc_t md;
  return layout_find(layout, &md) ? (int64_t)(dnnl_memory_desc_get_size(&md) / sizeof(float)) : 0;
}

/* ---- descriptors of a region's arrays ---- */

struct product {
  uint32_t op;
  int64_t attr[8];
  int64_t groups;
  uint32_t slot[3];
  int64_t offset[3]; /* elements */
  dnnl_memory_desc_t md[3];
  bool packed[3];
  int32_t bias; /* argument, -1: none */
};

static bool literal(const tern_value *v) {
  for (uint32_t d = 0; d < v->rank; d++)
    if (TERN_IS_SYM(v->shape[d]) || (v->layout == 0 && (TERN_IS_SYM(v->stride[d]) || v->stride[d] < 0))) return false;
  return !TERN_IS_SYM(v->offset);
}

/* Does v lie dense with the dims in this order (outermost first)? Then *to has every stride, those of size 1 too */
static bool lies_dense(const tern_value *v, const uint32_t *order, dnnl_dims_t to) {
  int64_t next = 1;
  for (uint32_t i = v->rank; i-- > 0;) {
    const uint32_t d = order[i];
    if (v->shape[d] != 1 && v->stride[d] != next) return false;
    to[d] = next;
    next *= v->shape[d];
  }
  return true;
}

/* Strides for oneDNN; false: two elements in one place */
static bool settle(const tern_value *v, dnnl_dims_t to) {
  static const uint32_t rows[] = {0, 1, 2, 3, 4, 5, 6, 7}, channels_last[] = {0, 2, 3, 1};
  if (lies_dense(v, rows, to) || (v->rank == 4 && lies_dense(v, channels_last, to))) return true;
  int64_t most = 1;
  for (uint32_t d = 0; d < v->rank; d++) {
    int64_t inner = 1; /* what the dims of smaller strides span */
    for (uint32_t e = 0; e < v->rank; e++)
      if (e != d && v->shape[e] != 1 && v->stride[e] <= v->stride[d])
        inner = v->stride[e] * v->shape[e] > inner ? v->stride[e] * v->shape[e] : inner;
    if (v->shape[d] != 1 && v->stride[d] < inner) return false;
    if (v->shape[d] != 1 && v->stride[d] * v->shape[d] > most) most = v->stride[d] * v->shape[d];
  }
  for (uint32_t d = 0; d < v->rank; d++) to[d] = v->shape[d] == 1 ? most : v->stride[d];
  return true;
}

/* A strided array, its first dim cut into groups */
static bool describe(const tern_value *v, int64_t groups, dnnl_memory_desc_t *md) {
  dnnl_dims_t dims, strides = {0}, wide;
  if (!settle(v, strides)) return false;
  const int extra = groups > 1, n = (int)v->rank + extra;
  dims[0] = groups;
  wide[0] = strides[0] * (v->shape[0] / groups);
  for (uint32_t d = 0; d < v->rank; d++) dims[extra + (int)d] = v->shape[d], wide[extra + (int)d] = strides[d];
  dims[extra] = v->shape[0] / groups;
  return dnnl_memory_desc_init_by_strides(md, n, dims, dnnl_f32, wide) == dnnl_success;
}

static bool fits(const dnnl_memory_desc_t *md, const tern_value *v, int64_t groups) {
  const int extra = groups > 1;
  if (md->ndims != (int)v->rank + extra || md->data_type != dnnl_f32) return false;
  if (extra && md->dims[0] != groups) return false;
  for (uint32_t d = 0; d < v->rank; d++)
    if (md->dims[extra + (int)d] != (d == 0 ? v->shape[0] / groups : v->shape[d])) return false;
  return true;
}

static bool read_array(const tern_region *r, uint32_t v, uint8_t kind, int64_t groups, struct product *p, int i) {
  if (v >= r->n_values) return false;
  const tern_value *const x = &r->values[v], *base = x;
  if (x->kind == TERN_V_VIEW && kind == TERN_V_IN && x->slot < r->n_values) base = &r->values[x->slot];
  if (base->kind != kind || base->alias >= 0 || base->slot >= r->n_args || x->dtype != TERN_F32 || !literal(x))
    return false;
  if (base != x && (base->layout || x->layout)) return false;
  p->slot[i] = base->slot;
  p->offset[i] = base != x ? x->offset : 0;
  p->packed[i] = x->layout != 0;
  if (!p->packed[i]) return describe(x, groups, &p->md[i]);
  return layout_find(x->layout, &p->md[i]) && fits(&p->md[i], x, groups);
}

/* Which of the three arrays are the filters of a CONV: input 1, or the result of CONV_DW */
static int filters_of(uint32_t op) { return op == TERN_OP_DOT ? -1 : op == TERN_OP_CONV_DW ? 2 : 1; }

/* The region's one product; result: any value kind that the caller allows is taken as it lies */
static bool read_product(const tern_region *r, uint32_t node, uint8_t result, struct product *p) {
  const tern_node *const n = &r->nodes[node];
  if (n->n_in != 2 || n->n_out != 1) return false;
  *p = (struct product){.op = n->op, .groups = 1, .bias = -1};
  if (n->op != TERN_OP_DOT) {
    if (n->op < TERN_OP_CONV || n->op > TERN_OP_CONV_DW || n->n_attr < 8) return false;
    for (int i = 0; i < 8; i++) p->attr[i] = r->attrs[n->attr + (uint32_t)i].i;
    p->groups = p->attr[1];
    if (p->attr[0] != 2 || p->groups < 1) return false;
    for (int i = 2; i < 8; i++)
      if (p->attr[i] < 0 || p->attr[i] > 1 << 15) return false;
  }
  const uint32_t v[3] = {r->edges[n->in], r->edges[n->in + 1], r->edges[n->out]};
  for (int i = 0; i < 3; i++)
    if (!read_array(r, v[i], i == 2 ? result : TERN_V_IN, filters_of(n->op) == i ? p->groups : 1, p, i)) return false;
  return true;
}

/* ---- primitive descriptors ---- */

/* The place of x, w, y of a convolution among (input 0, input 1, result) */
static const uint8_t place_of[][3] = {{0, 1, 2}, {2, 1, 0}, {0, 2, 1}};

static dnnl_primitive_desc_t good(dnnl_primitive_desc_t pd) { /* not the plain loops */
  const char *name = NULL;
  if (dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name) == dnnl_success && name && !strstr(name, "ref"))
    return pd;
  dnnl_primitive_desc_destroy(pd);
  return NULL;
}

static dnnl_primitive_desc_t choose_matmul(const dnnl_memory_desc_t *md, const_dnnl_primitive_attr_t attr) {
  dnnl_matmul_desc_t op;
  dnnl_primitive_desc_t pd = NULL;
  if (dnnl_matmul_desc_init(&op, &md[0], &md[1], NULL, &md[2]) != dnnl_success ||
      dnnl_primitive_desc_create(&pd, &op, attr, table.engine, NULL) != dnnl_success)
    return NULL;
  return good(pd);
}

static bool bias_desc(const dnnl_memory_desc_t *y, dnnl_memory_desc_t *md) {
  const dnnl_dims_t dims = {y->dims[1]};
  return dnnl_memory_desc_init_by_tag(md, 1, dims, dnnl_f32, dnnl_a) == dnnl_success;
}

static dnnl_primitive_desc_t choose_conv(const struct product *p, const dnnl_memory_desc_t *md,
                                         const_dnnl_primitive_attr_t attr) {
  const dnnl_alg_kind_t alg = dnnl_convolution_direct; /* Winograd's method misses 1e-5 on 3x3 */
  const uint8_t *const at = place_of[p->op - TERN_OP_CONV];
  const dnnl_memory_desc_t *const x = &md[at[0]], *const w = &md[at[1]], *const y = &md[at[2]];
  dnnl_dims_t stride, dilation, before, after;
  for (int d = 0; d < 2; d++) {
    stride[d] = p->attr[2 + 3 * d], dilation[d] = p->attr[3 + 3 * d] - 1, before[d] = p->attr[4 + 3 * d];
    after[d] = (y->dims[2 + d] - 1) * stride[d] + (w->dims[w->ndims - 2 + d] - 1) * (dilation[d] + 1) + 1 -
               x->dims[2 + d] - before[d];
  }
  dnnl_convolution_desc_t op;
  dnnl_memory_desc_t bias;
  dnnl_primitive_desc_t forward = NULL, pd = NULL;
  if (p->bias >= 0 && !bias_desc(y, &bias)) return NULL;
  if (dnnl_dilated_convolution_forward_desc_init(&op, dnnl_forward_training, alg, x, w, p->bias >= 0 ? &bias : NULL, y,
                                                 stride, dilation, before, after) != dnnl_success ||
      dnnl_primitive_desc_create(&forward, &op, attr, table.engine, NULL) != dnnl_success)
    return NULL;
  if (p->op == TERN_OP_CONV) return good(forward);
  const dnnl_status_t rc =
      p->op == TERN_OP_CONV_DX
          ? dnnl_dilated_convolution_backward_data_desc_init(&op, alg, x, w, y, stride, dilation, before, after)
          : dnnl_dilated_convolution_backward_weights_desc_init(&op, alg, x, w, NULL, y, stride, dilation, before,
                                                                after);
  if (rc != dnnl_success || dnnl_primitive_desc_create(&pd, &op, attr, table.engine, forward) != dnnl_success)
    pd = NULL;
  dnnl_primitive_desc_destroy(forward);
  return pd ? good(pd) : NULL;
}

static dnnl_primitive_desc_t choose(const struct product *p, const dnnl_memory_desc_t *md) {
  dnnl_primitive_attr_t attr = NULL;
  dnnl_primitive_desc_t pd = NULL;
  if (dnnl_primitive_attr_create(&attr) != dnnl_success) return NULL;
  if (dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user) == dnnl_success) {
    if (p->op == TERN_OP_DOT)
      pd = choose_matmul(md, attr);
    else
      pd = choose_conv(p, md, attr);
  }
  dnnl_primitive_attr_destroy(attr);
  return pd;
}

static int arg_of(uint32_t op, int i) {
  static const int dot[3] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST};
  static const int conv[][3] = {{DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST},
                                {DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_SRC},
                                {DNNL_ARG_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_WEIGHTS}};
  return op == TERN_OP_DOT ? dot[i] : conv[op - TERN_OP_CONV][i];
}

/* ---- kernels ---- */

struct context { /* memory objects are pointed anew at each run: one thread at a time */
  atomic_int busy;
  dnnl_stream_t stream;
  dnnl_memory_t mem[ARRAYS], scratch;
};
struct variant { /* for a number of threads */
  dnnl_primitive_t prim;
  struct context context[CONTEXTS];
};
struct static_kernel {
  tern_kernel base;
  uint32_t n_arrays;
  int arg[ARRAYS];
  uint32_t slot[ARRAYS];
  int64_t offset[ARRAYS]; /* bytes */
  dnnl_memory_desc_t md[ARRAYS], scratch;
  size_t scratch_bytes;
  bool threads;              /* worth several */
  struct variant variant[2]; /* one thread, all threads */
};

static void context_close(struct context *c) {
  for (int i = 0; i < ARRAYS; i++)
    if (c->mem[i]) dnnl_memory_destroy(c->mem[i]);
  if (c->scratch) dnnl_memory_destroy(c->scratch);
  if (c->stream) dnnl_stream_destroy(c->stream);
}

static bool context_open(const struct static_kernel *k, struct context *c) {
  bool ok = dnnl_stream_create(&c->stream, table.engine, dnnl_stream_default_flags) == dnnl_success;
  for (uint32_t i = 0; ok && i < k->n_arrays; i++)
    ok = dnnl_memory_create(&c->mem[i], &k->md[i], table.engine, DNNL_MEMORY_NONE) == dnnl_success;
  if (ok && k->scratch_bytes)
    ok = dnnl_memory_create(&c->scratch, &k->scratch, table.engine, DNNL_MEMORY_NONE) == dnnl_success;
  return ok;
}

static void static_destroy(tern_kernel *kernel) {
  struct static_kernel *const k = (struct static_kernel *)(void *)kernel;
  for (int v = 0; v < 2; v++) {
    for (int c = 0; c < CONTEXTS; c++) context_close(&k->variant[v].context[c]);
    if (k->variant[v].prim) dnnl_primitive_destroy(k->variant[v].prim);
  }
  free(k);
}

static int threads_set(int n) {
#ifdef _OPENMP
  const int before = omp_get_max_threads();
  if (before != n) omp_set_num_threads(n);
  return before;
#else
  (void)n;
  return 1;
#endif
}

static bool execute(const struct static_kernel *k, const struct variant *v, struct context *c, const tern_launch *l) {
  dnnl_exec_arg_t args[ARRAYS + 1];
  int n = 0;
  for (uint32_t i = 0; i < k->n_arrays; i++) {
    if (dnnl_memory_set_data_handle(c->mem[i], cpu_arg(l, k->slot[i]) + k->offset[i]) != dnnl_success) return false;
    args[n++] = (dnnl_exec_arg_t){k->arg[i], c->mem[i]};
  }
  if (k->scratch_bytes) {
    if (dnnl_memory_set_data_handle(c->scratch, (char *)l->workspace.mem + l->workspace.offset) != dnnl_success)
      return false;
    args[n++] = (dnnl_exec_arg_t){DNNL_ARG_SCRATCHPAD, c->scratch};
  }
  return dnnl_primitive_execute(v->prim, c->stream, n, args) == dnnl_success &&
         dnnl_stream_wait(c->stream) == dnnl_success;
}

static bool run_variant(const struct static_kernel *k, const struct variant *v, const tern_launch *l) {
  for (int i = 0; i < CONTEXTS; i++) {
    struct context *const c = (struct context *)(uintptr_t)&v->context[i];
    int idle = 0;
    if (!atomic_compare_exchange_strong_explicit(&c->busy, &idle, 1, memory_order_acquire, memory_order_relaxed))
      continue;
    const bool done = execute(k, v, c, l);
    atomic_store_explicit(&c->busy, 0, memory_order_release);
    return done;
  }
  struct context own = {.stream = NULL}; /* more callers at once than contexts */
  const bool done = context_open(k, &own) && execute(k, v, &own, l);
  context_close(&own);
  return done;
}

static tern_rc static_run(const tern_kernel *kernel, const tern_launch *l) {
  const struct static_kernel *const k = (const struct static_kernel *)(const void *)kernel;
  if (k->scratch_bytes && !l->workspace.mem)
    return cpu_error(TERN_E_ARG, "packed product: this launch needs %zu bytes of workspace", k->scratch_bytes);
  const bool token = k->threads && cpu_pool_try();
  const int before = threads_set(token ? cpu_threads() : 1);
  const bool done = run_variant(k, &k->variant[token], l);
  threads_set(before);
  if (token) cpu_pool_done();
  return done ? TERN_OK : cpu_error(TERN_E_INTERNAL, "packed product: oneDNN failed");
}

/* Primitives differ by the number of threads that they are made for */
static bool make_variant(struct static_kernel *k, int which, dnnl_primitive_desc_t pd) {
  bool ok = pd && dnnl_primitive_create(&k->variant[which].prim, pd) == dnnl_success;
  const dnnl_memory_desc_t *const scratch = ok ? dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0) : NULL;
  if (scratch && dnnl_memory_desc_get_size(scratch) > k->scratch_bytes) {
    k->scratch = *scratch;
    k->scratch_bytes = dnnl_memory_desc_get_size(scratch);
  }
  if (pd) dnnl_primitive_desc_destroy(pd);
  return ok;
}

typedef dnnl_primitive_desc_t (*maker)(const void *what, const dnnl_memory_desc_t *md);

static bool make_variants(struct static_kernel *k, maker make, const void *what) {
  const int threads = cpu_threads();
  k->threads &= threads > 1;
  bool ok = true;
  for (int v = 0; ok && v <= k->threads; v++) {
    const int before = threads_set(v ? threads : 1);
    ok = make_variant(k, v, make(what, k->md));
    threads_set(before);
  }
  for (int v = 0; ok && v <= k->threads; v++)
    for (int c = 0; ok && c < CONTEXTS; c++) ok = context_open(k, &k->variant[v].context[c]);
  return ok;
}

static tern_rc finish(struct static_kernel *k, bool ok, tern_kernel **kernel, tern_kernel_info *info) {
  if (!ok) {
    static_destroy(&k->base);
    return TERN_E_UNSUPPORTED;
  }
  k->base.run = static_run;
  k->base.destroy = static_destroy;
  info->workspace = k->scratch_bytes;
  *kernel = &k->base;
  return TERN_OK;
}

/* ---- products ---- */

static dnnl_primitive_desc_t make_product(const void *what, const dnnl_memory_desc_t *md) { return choose(what, md); }

tern_rc cpu_static_product(const tern_region *r, int32_t bias, tern_kernel **kernel, tern_kernel_info *info) {
  struct product p;
  pthread_once(&table.once, engine_open);
  if (!table.engine || r->n_nodes != 1 || !read_product(r, 0, TERN_V_OUT, &p)) return TERN_E_UNSUPPORTED;
  if (!p.packed[0] && !p.packed[1] && !p.packed[2]) return TERN_E_UNSUPPORTED;
  if (bias >= 0 && p.op != TERN_OP_CONV) return TERN_E_UNSUPPORTED;
  p.bias = bias;
  struct static_kernel *const k = calloc(1, sizeof *k);
  if (!k) return cpu_error(TERN_E_OOM, "packed product: no memory for a kernel of %zu bytes", sizeof *k);
  double work = 1;
  for (int i = 0; i < 3; i++) {
    k->arg[i] = arg_of(p.op, i), k->slot[i] = p.slot[i], k->md[i] = p.md[i];
    k->offset[i] = p.offset[i] * (int64_t)sizeof(float);
    work *= (double)dnnl_memory_desc_get_size(&p.md[i]);
  }
  k->n_arrays = 3;
  k->threads = work > 4e12; /* the root of it: multiplications of a matrix product, times 8 */
  if (bias >= 0) {
    k->arg[3] = DNNL_ARG_BIAS, k->slot[3] = (uint32_t)bias;
    k->n_arrays = 4;
    if (!bias_desc(&p.md[2], &k->md[3])) return finish(k, false, kernel, info);
  }
  return finish(k, make_variants(k, make_product, &p), kernel, info);
}

/* ---- copies between layouts ---- */

static dnnl_primitive_desc_t make_copy(const void *what, const dnnl_memory_desc_t *md) {
  dnnl_primitive_desc_t pd = NULL;
  dnnl_primitive_attr_t attr = NULL;
  (void)what;
  if (dnnl_primitive_attr_create(&attr) != dnnl_success) return NULL;
  if (dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user) != dnnl_success ||
      dnnl_reorder_primitive_desc_create(&pd, &md[0], table.engine, &md[1], table.engine, attr) != dnnl_success)
    pd = NULL;
  dnnl_primitive_attr_destroy(attr);
  return pd;
}

/* Groups of the array that a token describes, seen as a value of this rank */
static int64_t groups_of(const tern_value *v) {
  dnnl_memory_desc_t md;
  if (!v->layout || !layout_find(v->layout, &md)) return 1;
  return md.ndims == (int)v->rank + 1 ? md.dims[0] : 1;
}

static tern_rc compile_copy(const tern_region *r, tern_kernel **kernel, tern_kernel_info *info) {
  const tern_node *const n = &r->nodes[0];
  if (n->n_in != 1 || n->n_out != 1) return TERN_E_UNSUPPORTED;
  const uint32_t from = r->edges[n->in], to = r->edges[n->out];
  if (from >= r->n_values || to >= r->n_values) return TERN_E_UNSUPPORTED;
  const tern_value *const a = &r->values[from], *const b = &r->values[to];
  struct product p = {.op = TERN_OP_COPY, .groups = a->layout ? groups_of(a) : groups_of(b)};
  for (uint32_t d = 0; d < a->rank; d++)
    if (a->rank != b->rank || a->shape[d] != b->shape[d]) return TERN_E_UNSUPPORTED;
  if (!read_array(r, from, TERN_V_IN, p.groups, &p, 0) || !read_array(r, to, TERN_V_OUT, p.groups, &p, 1) ||
      (!p.packed[0] && !p.packed[1]))
    return TERN_E_UNSUPPORTED;
  struct static_kernel *const k = calloc(1, sizeof *k);
  if (!k) return cpu_error(TERN_E_OOM, "copy between layouts: no memory for a kernel of %zu bytes", sizeof *k);
  for (int i = 0; i < 2; i++) {
    k->arg[i] = i ? DNNL_ARG_TO : DNNL_ARG_FROM, k->slot[i] = p.slot[i], k->md[i] = p.md[i];
    k->offset[i] = p.offset[i] * (int64_t)sizeof(float);
  }
  k->n_arrays = 2;
  k->threads = dnnl_memory_desc_get_size(&k->md[1]) > 1 << 17;
  return finish(k, make_variants(k, make_copy, NULL), kernel, info);
}

tern_rc cpu_static_compile(const tern_region *r, tern_kernel **kernel, tern_kernel_info *info) {
  pthread_once(&table.once, engine_open);
  if (!table.engine || r->n_nodes != 1) return TERN_E_UNSUPPORTED;
  if (r->nodes[0].op == TERN_OP_COPY) return compile_copy(r, kernel, info);
  return cpu_static_product(r, -1, kernel, info);
}

/* What oneDNN refuses shows only when its descriptors are made */
tern_rc cpu_static_supports(const tern_region *r) {
  bool packed = false;
  for (uint32_t i = 0; i < r->n_values; i++) packed |= r->values[i].layout != 0;
  tern_kernel *k = NULL;
  tern_kernel_info info = {.struct_size = sizeof info};
  if (!packed || cpu_static_compile(r, &k, &info) != TERN_OK) return TERN_E_UNSUPPORTED;
  static_destroy(k);
  return TERN_OK;
}

/* ---- what to ask for ---- */

static bool unpadded(const dnnl_memory_desc_t *md) {
  for (int d = 0; d < md->ndims; d++)
    if (md->padded_dims[d] != md->dims[d]) return false;
  return true;
}

static void ask_array(const struct product *p, int i, const dnnl_memory_desc_t *wanted, uint32_t slot,
                      tern_kernel_info *info) {
  const bool activation = p->op != TERN_OP_DOT && filters_of(p->op) != i;
  if (dnnl_memory_desc_equal(wanted, &p->md[i]) || (activation && !unpadded(wanted))) return;
  const uint64_t token = layout_token(wanted);
  if (!token) return;
  info->layout[slot] = token;
  info->layout_bytes[slot] = dnnl_memory_desc_get_size(wanted);
}

static bool any_format(dnnl_memory_desc_t *md) {
  dnnl_dims_t dims;
  const int n = md->ndims;
  memcpy(dims, md->dims, sizeof dims);
  return dnnl_memory_desc_init_by_tag(md, n, dims, dnnl_f32, dnnl_format_tag_any) == dnnl_success;
}

/* The OUT that a product's result ends in: of its shape, and all other OUTs too */
static bool result_slots(const tern_region *r, const tern_value *y, uint32_t *first) {
  bool found = false;
  for (uint32_t i = 0; i < r->n_values; i++) {
    const tern_value *const v = &r->values[i];
    if (v->kind != TERN_V_OUT) continue;
    if (v->rank != y->rank || memcmp(v->shape, y->shape, y->rank * sizeof *y->shape) || v->alias >= 0 ||
        v->dtype != TERN_F32)
      return false;
    if (found) return false;
    *first = i;
    found = true;
  }
  return found;
}

static bool channels_last(const dnnl_memory_desc_t *md) {
  dnnl_memory_desc_t last;
  return md->ndims == 4 && dnnl_memory_desc_init_by_tag(&last, 4, md->dims, dnnl_f32, dnnl_nhwc) == dnnl_success &&
         dnnl_memory_desc_equal(md, &last);
}

/* A convolution of arrays with their channels last, as fast as in blocks: then only the filters are worth packing */
static dnnl_primitive_desc_t choose_as_given(const struct product *p, dnnl_memory_desc_t *md) {
  const int filters = filters_of(p->op);
  const char *name = NULL;
  for (int i = 0; i < 3; i++)
    if (i != filters && !channels_last(&p->md[i])) return NULL;
  for (int i = 0; i < 3; i++)
    if (i != filters) md[i] = p->md[i];
  dnnl_primitive_desc_t pd = choose(p, md);
  if (pd && dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name) == dnnl_success && name &&
      !strncmp(name, "brg", 3))
    return pd;
  if (pd) dnnl_primitive_desc_destroy(pd);
  for (int i = 0; i < 3; i++) any_format(&md[i]);
  return NULL;
}

void cpu_static_ask(const tern_region *r, tern_kernel_info *info) {
  uint32_t node = UINT32_MAX, out = 0;
  if (!info->layout || !info->layout_bytes) return;
  for (uint32_t i = 0; i < r->n_nodes; i++)
    if (r->nodes[i].op == TERN_OP_DOT || (r->nodes[i].op >= TERN_OP_CONV && r->nodes[i].op <= TERN_OP_CONV_DW))
      node = i;
  if (node == UINT32_MAX || r->nodes[node].n_out != 1) return;
  for (uint32_t i = 0; i < r->n_values; i++)
    if (r->values[i].layout) return;
  pthread_once(&table.once, engine_open);
  const uint32_t result = r->edges[r->nodes[node].out];
  if (!table.engine || !result_slots(r, &r->values[result], &out)) return;
  tern_region one = *r; /* the product as if its result went to the OUT */
  tern_node n = r->nodes[node];
  uint32_t edges[3] = {r->edges[n.in], r->edges[n.in + 1], out};
  n.in = 0, n.out = 2;
  one.nodes = &n, one.n_nodes = 1, one.edges = edges;
  struct product p;
  if (!read_product(&one, 0, TERN_V_OUT, &p)) return;
  dnnl_memory_desc_t md[3] = {p.md[0], p.md[1], p.md[2]};
  const bool dot = p.op == TERN_OP_DOT;
  if (dot && (p.md[1].dims[p.md[1].ndims - 1] * p.md[1].dims[p.md[1].ndims - 2] < PACK_FROM ||
              p.md[0].dims[p.md[0].ndims - 2] < PACK_ROWS_FROM || p.md[0].dims[p.md[0].ndims - 2] > PACK_ROWS_TO))
    return;
  for (int i = 0; i < 3; i++)
    if ((!dot || i == 1) && !any_format(&md[i])) return;
  const int before = threads_set(cpu_threads());
  dnnl_primitive_desc_t pd = dot ? NULL : choose_as_given(&p, md);
  if (!pd) pd = choose(&p, md);
  threads_set(before);
  if (!pd) return;
  for (int i = 0; i < 3; i++) {
    const dnnl_memory_desc_t *const wanted = dnnl_primitive_desc_query_md(pd, dnnl_query_exec_arg_md, arg_of(p.op, i));
    if (wanted && (!dot || i == 1)) ask_array(&p, i, wanted, p.slot[i], info);
  }
  dnnl_primitive_desc_destroy(pd);
}

#else
tern_rc cpu_static_supports(const tern_region *r) {
  (void)r;
  return TERN_E_UNSUPPORTED;
}
tern_rc cpu_static_compile(const tern_region *r, tern_kernel **kernel, tern_kernel_info *info) {
  (void)r, (void)kernel, (void)info;
  return TERN_E_UNSUPPORTED;
}
tern_rc cpu_static_product(const tern_region *r, int32_t bias, tern_kernel **kernel, tern_kernel_info *info) {
  (void)r, (void)bias, (void)kernel, (void)info;
  return TERN_E_UNSUPPORTED;
}
void cpu_static_ask(const tern_region *r, tern_kernel_info *info) { (void)r, (void)info; }
int64_t cpu_static_elements(uint64_t layout) {
  (void)layout;
  return 0;
}
#endif
