/* Convolution through oneDNN: cached primitives for exact sizes, strides and thread count. The filters always go into a
   layout of oneDNN's choice; x and y stay where they are when one of them is NHWC, and are copied to and from a blocked
   layout otherwise (NCHW as it is takes twice as long). A cache's slot is held by one thread at a time. */
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

enum { SLOTS = 64, MOST = 1 << 15 /* it counts strides, dilations and padding in int */, EMPTY = 0, READY, REFUSED };
enum { X, W, Y };
enum {
  LEAST_CHANNELS = 32, /* of x, as measured with few and many, and pixels, where a gradient is turned */
  LEAST_PIXELS = 2048,
  MOST_TURNED = 1 << 18 /* elements of the filters, which are copied in each launch */
};

struct operand {
  dnnl_memory_t given, own; /* own: NULL where the primitive takes the array as it lies */
  dnnl_primitive_t reorder; /* given to own, or back for the result */
  size_t bytes;             /* of own, rounded up */
};
struct prim {
  bool turned;
  dnnl_primitive_t prim;
  dnnl_stream_t stream;
  dnnl_memory_t scratch;
  size_t scratch_bytes;
  struct operand array[3];
};
struct key { /* without padding: compared as memory */
  struct conv_job job;
  int64_t threads, turned;
};
struct slot {
  atomic_int busy;
  int state;
  atomic_uint_least64_t used, hash; /* hash 0: empty */
  struct key key;
  struct prim prim;
};
struct conv_cache {
  atomic_uint_least64_t clock;
  struct slot slot[SLOTS];
};

static struct {
  pthread_once_t once;
  dnnl_engine_t engine; /* for the life of the process; NULL: oneDNN does not work here */
} dnnl = {.once = PTHREAD_ONCE_INIT};

static void engine_open(void) {
  if (dnnl_engine_create(&dnnl.engine, dnnl_cpu, 0) != dnnl_success) dnnl.engine = NULL;
}

/* DIFF_SRC and so on where the array is the gradient */
static int arg_of(int64_t op, int array) {
  static const int args[][3] = {{DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST},
                                {DNNL_ARG_DIFF_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_DST},
                                {DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_DST}};
  return args[op - TERN_OP_CONV][array];
}
static int result_of(int64_t op) { return op == TERN_OP_CONV ? Y : op == TERN_OP_CONV_DX ? X : W; }

/* ---- descriptors ---- */

/* Strides of a dense array whose dims are order[0] (slowest) .. */
static void strides_in(const int64_t *size, const int *order, int64_t *stride) {
  int64_t next = 1;
  for (int i = 4; i-- > 0;) {
    stride[order[i]] = next;
    next *= size[order[i]];
  }
}

static bool lies_as(const int64_t *size, const int64_t *stride, const int64_t *dense) {
  for (int d = 0; d < 4; d++)
    if (size[d] != 1 && stride[d] != dense[d]) return false;
  return true;
}

static const int last[] = {0, 2, 3, 1} /* NHWC */, first[] = {0, 1, 2, 3}, hwio[] = {2, 3, 1, 0};

/* A stride along a dim of size 1 says nothing: those of a dense layout are put there where one fits */
static void settle(const int64_t *size, const struct conv_array *a, bool filters, dnnl_dims_t to) {
  int64_t dense[4];
  strides_in(size, filters ? hwio : last, dense);
  if (!lies_as(size, a->stride, dense)) strides_in(size, first, dense);
  const bool fits = lies_as(size, a->stride, dense);
  int64_t most = 1;
  for (int d = 0; d < 4; d++)
    if (size[d] > 1 && a->stride[d] * size[d] > most) most = a->stride[d] * size[d];
  for (int d = 0; d < 4; d++) to[d] = fits ? dense[d] : size[d] == 1 ? most : a->stride[d];
}

static bool is_dense(const int64_t *size, const struct conv_array *a, const int *order) {
  int64_t dense[4];
  strides_in(size, order, dense);
  return lies_as(size, a->stride, dense);
}

/* Take x and y as NHWC? With one channel or one pixel an array is both and says nothing */
static bool wants_last(const int64_t *x_size, const struct conv_array *x, const int64_t *y_size,
                       const struct conv_array *y) {
  const bool x_last = is_dense(x_size, x, last), y_last = is_dense(y_size, y, last);
  return (x_last && (y_last || !is_dense(x_size, x, first))) || (y_last && !is_dense(y_size, y, first));
}

/* Filters in groups have one more dim, the first */
static int filter_dims(const struct conv_job *j, const int64_t *size, dnnl_dims_t dims) {
  const int extra = j->groups > 1;
  dims[0] = j->groups;
  dims[extra] = size[0] / j->groups;
  for (int d = 1; d < 4; d++) dims[extra + d] = size[d];
  return 4 + extra;
}

static bool describe_given(const struct conv_job *j, int array, const int64_t *size, dnnl_memory_desc_t *md) {
  dnnl_dims_t strides, dims, wide;
  const struct conv_array *const a = array == X ? &j->x : array == W ? &j->w : &j->y;
  settle(size, a, array == W, strides);
  if (array != W) return dnnl_memory_desc_init_by_strides(md, 4, size, dnnl_f32, strides) == dnnl_success;
  const int n = filter_dims(j, size, dims), extra = n - 4;
  wide[0] = strides[0] * (size[0] / j->groups);
  for (int d = 0; d < 4; d++) wide[extra + d] = strides[d];
  return dnnl_memory_desc_init_by_strides(md, n, dims, dnnl_f32, wide) == dnnl_success;
}

static bool describe_wanted(const struct conv_job *j, int array, const int64_t *size, bool nhwc,
                            dnnl_memory_desc_t *md) {
  dnnl_dims_t dims;
  if (array == W) {
    const int n = filter_dims(j, size, dims);
    return dnnl_memory_desc_init_by_tag(md, n, dims, dnnl_f32, dnnl_format_tag_any) == dnnl_success;
  }
  return dnnl_memory_desc_init_by_tag(md, 4, size, dnnl_f32, nhwc ? dnnl_nhwc : dnnl_format_tag_any) == dnnl_success;
}

/* The primitive's descriptor, or NULL: oneDNN has only its plain loops for it */
static dnnl_primitive_desc_t choose(const struct conv_job *j, const dnnl_memory_desc_t *md,
                                    const_dnnl_primitive_attr_t attr, bool turned) {
  dnnl_dims_t stride, dilation, before, after;
  for (int d = 0; d < 2; d++) {
    stride[d] = j->stride[d], dilation[d] = j->dilation[d] - 1, before[d] = j->pad[d];
    after[d] = (j->out[d] - 1) * j->stride[d] + (j->taps[d] - 1) * j->dilation[d] + 1 - j->in[d] - j->pad[d];
  }
  dnnl_convolution_desc_t op;
  dnnl_primitive_desc_t forward = NULL, pd = NULL;
  if (dnnl_dilated_convolution_forward_desc_init(&op, dnnl_forward_training, dnnl_convolution_direct, &md[X], &md[W],
                                                 NULL, &md[Y], stride, dilation, before, after) != dnnl_success ||
      dnnl_primitive_desc_create(&forward, &op, attr, dnnl.engine, NULL) != dnnl_success)
    return NULL;
  if (j->op == TERN_OP_CONV) {
    pd = forward;
  } else {
    const dnnl_status_t rc =
        j->op == TERN_OP_CONV_DX
            ? dnnl_dilated_convolution_backward_data_desc_init(&op, dnnl_convolution_direct, &md[X], &md[W], &md[Y],
                                                               stride, dilation, before, after)
            : dnnl_dilated_convolution_backward_weights_desc_init(&op, dnnl_convolution_direct, &md[X], &md[W], NULL,
                                                                  &md[Y], stride, dilation, before, after);
    if (rc != dnnl_success || dnnl_primitive_desc_create(&pd, &op, attr, dnnl.engine, forward) != dnnl_success)
      pd = NULL;
    dnnl_primitive_desc_destroy(forward);
    if (!pd) return NULL;
  }
  const char *name = NULL;
  if (dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name) == dnnl_success && name &&
      (turned ? strstr(name, "brgconv") != NULL : !strstr(name, "ref")))
    return pd;
  dnnl_primitive_desc_destroy(pd);
  return NULL;
}

/* ---- CONV_DX as CONV ---- */

/* With steps of 1 the gradient is a convolution of dy by the filters seen from the other end, whose channels change
   places. oneDNN's newer kernels (brgconv) do only that way, a quarter faster than its older ones do the gradient.
   False: not so. t: the job, but for the filters' memory */
static bool turn(const struct conv_job *j, struct conv_job *t) {
  int64_t x[4], w[4], y[4];
  if (j->op != TERN_OP_CONV_DX || j->groups != 1 || j->c < LEAST_CHANNELS || j->o < LEAST_CHANNELS / 2 ||
      j->n * j->out[0] * j->out[1] < LEAST_PIXELS || j->c * j->o * j->taps[0] * j->taps[1] > MOST_TURNED)
    return false;
  conv_sizes_x(j, x);
  conv_sizes_w(j, w);
  conv_sizes_y(j, y);
  if (!is_dense(x, &j->x, last) || !is_dense(w, &j->w, hwio) || !is_dense(y, &j->y, last)) return false;
  *t = *j;
  t->op = TERN_OP_CONV;
  t->c = j->o, t->o = j->c;
  t->x = j->y, t->y = j->x;
  for (int d = 0; d < 2; d++) {
    t->in[d] = j->out[d], t->out[d] = j->in[d];
    t->pad[d] = (j->taps[d] - 1) * j->dilation[d] - j->pad[d];
    if (j->stride[d] != 1 || t->pad[d] < 0) return false;
  }
  t->w.stride[0] = j->o, t->w.stride[1] = 1;
  t->w.stride[3] = j->c * j->o, t->w.stride[2] = t->w.stride[3] * j->taps[1];
  return true;
}

static size_t turned_bytes(const struct conv_job *t) {
  return (size_t)(t->taps[0] * t->taps[1] * t->c * t->o) * sizeof(float);
}

/* The last tap becomes the first */
static void turn_filters(const struct conv_job *t, char *to) {
  const int64_t taps = t->taps[0] * t->taps[1];
  const size_t each = turned_bytes(t) / (size_t)taps;
  for (int64_t k = 0; k < taps; k++) memcpy(to + (size_t)k * each, t->w.p + (size_t)(taps - 1 - k) * each, each);
}

/* ---- primitives ---- */

static void prim_free(struct prim *p) {
  for (int i = 0; i < 3; i++) {
    struct operand *const a = &p->array[i];
    if (a->reorder) dnnl_primitive_destroy(a->reorder);
    if (a->given) dnnl_memory_destroy(a->given);
    if (a->own) dnnl_memory_destroy(a->own);
  }
  if (p->scratch) dnnl_memory_destroy(p->scratch);
  if (p->stream) dnnl_stream_destroy(p->stream);
  if (p->prim) dnnl_primitive_destroy(p->prim);
  memset(p, 0, sizeof *p);
}

static size_t rounded(size_t n) { return (n + 63) & ~(size_t)63; }

static bool make_operand(struct operand *a, const dnnl_memory_desc_t *given, const dnnl_memory_desc_t *own,
                         bool result) {
  if (dnnl_memory_create(&a->given, given, dnnl.engine, DNNL_MEMORY_NONE) != dnnl_success) return false;
  if (dnnl_memory_desc_equal(given, own)) return true;
  dnnl_primitive_desc_t pd = NULL;
  a->bytes = rounded(dnnl_memory_desc_get_size(own));
  bool ok = dnnl_memory_create(&a->own, own, dnnl.engine, DNNL_MEMORY_NONE) == dnnl_success &&
            dnnl_reorder_primitive_desc_create(&pd, result ? own : given, dnnl.engine, result ? given : own,
                                               dnnl.engine, NULL) == dnnl_success;
  ok = ok && dnnl_primitive_create(&a->reorder, pd) == dnnl_success;
  if (pd) dnnl_primitive_desc_destroy(pd);
  return ok;
}

static bool make_all(struct prim *p, const struct conv_job *j, const dnnl_memory_desc_t *given,
                     const_dnnl_primitive_desc_t pd) {
  bool ok = dnnl_primitive_create(&p->prim, pd) == dnnl_success &&
            dnnl_stream_create(&p->stream, dnnl.engine, dnnl_stream_default_flags) == dnnl_success;
  for (int i = 0; ok && i < 3; i++) {
    const dnnl_memory_desc_t *const own = dnnl_primitive_desc_query_md(pd, dnnl_query_exec_arg_md, arg_of(j->op, i));
    ok = own && make_operand(&p->array[i], &given[i], own, i == result_of(j->op));
  }
  const dnnl_memory_desc_t *const scratch = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
  if (ok && scratch) {
    p->scratch_bytes = rounded(dnnl_memory_desc_get_size(scratch));
    ok = dnnl_memory_create(&p->scratch, scratch, dnnl.engine, DNNL_MEMORY_NONE) == dnnl_success;
  }
  return ok;
}

static bool make(struct prim *p, const struct conv_job *j, bool turned) {
  int64_t size[3][4];
  dnnl_memory_desc_t given[3], wanted[3];
  dnnl_primitive_attr_t attr = NULL;
  dnnl_primitive_desc_t pd = NULL;
  conv_sizes_x(j, size[X]);
  conv_sizes_w(j, size[W]);
  conv_sizes_y(j, size[Y]);
  for (int i = 0; i < 3; i++)
    if (!describe_given(j, i, size[i], &given[i])) return false;
  if (dnnl_primitive_attr_create(&attr) != dnnl_success) return false;
  bool ok = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user) == dnnl_success;
  for (int nhwc = wants_last(size[X], &j->x, size[Y], &j->y); ok && !pd && nhwc >= 0; nhwc--) {
    for (int i = 0; ok && i < 3; i++) ok = describe_wanted(j, i, size[i], nhwc, &wanted[i]);
    if (ok) pd = choose(j, wanted, attr, turned);
  }
  ok = ok && pd && make_all(p, j, given, pd);
  p->turned = turned;
  if (pd) dnnl_primitive_desc_destroy(pd);
  dnnl_primitive_attr_destroy(attr);
  return ok;
}

static bool reorder(const struct prim *p, const struct operand *a, bool back) {
  const dnnl_exec_arg_t args[2] = {{DNNL_ARG_FROM, back ? a->own : a->given}, {DNNL_ARG_TO, back ? a->given : a->own}};
  return dnnl_primitive_execute(a->reorder, p->stream, 2, args) == dnnl_success;
}

static bool point(dnnl_memory_t m, void *at) { return dnnl_memory_set_data_handle(m, at) == dnnl_success; }

/* Places the copies: x and y in `buffers` while there is room, the rest in this thread's scratch */
static bool place(struct prim *p, const struct conv_job *j, char *buffers, uint64_t bytes) {
  void *given[3] = {j->x.p, j->w.p, j->y.p};
  bool inside[3] = {false};
  const size_t turned = p->turned ? rounded(turned_bytes(j)) : 0;
  size_t more = p->scratch_bytes + turned;
  for (int i = 0; i < 3; i++) {
    inside[i] = i != W && p->array[i].own && p->array[i].bytes <= bytes;
    if (inside[i])
      bytes -= p->array[i].bytes;
    else
      more += p->array[i].bytes;
  }
  char *rest = more ? cpu_scratch(CPU_SCRATCH_LAUNCH, more) : NULL;
  if (more && !rest) return false;
  if (turned) {
    turn_filters(j, rest);
    given[W] = rest;
    rest += turned;
  }
  for (int i = 0; i < 3; i++) {
    struct operand *const a = &p->array[i];
    if (!point(a->given, given[i])) return false;
    if (!a->own) continue;
    char **const from = inside[i] ? &buffers : &rest;
    if (!point(a->own, *from)) return false;
    *from += a->bytes;
  }
  return !p->scratch || point(p->scratch, p->scratch_bytes ? rest : NULL);
}

static bool run(struct prim *p, const struct conv_job *j, char *buffers, uint64_t bytes) {
  const int result = result_of(j->op);
  if (!place(p, j, buffers, bytes)) return false;
  dnnl_exec_arg_t args[4];
  for (int i = 0; i < 3; i++) {
    const struct operand *const a = &p->array[i];
    if (a->own && i != result && !reorder(p, a, false)) return false;
    args[i] = (dnnl_exec_arg_t){arg_of(j->op, i), a->own ? a->own : a->given};
  }
  args[3] = (dnnl_exec_arg_t){DNNL_ARG_SCRATCHPAD, p->scratch};
  bool ok = dnnl_primitive_execute(p->prim, p->stream, p->scratch ? 4 : 3, args) == dnnl_success;
  if (ok && p->array[result].own) ok = reorder(p, &p->array[result], true);
  return dnnl_stream_wait(p->stream) == dnnl_success && ok;
}

/* ---- the cache ---- */

struct conv_cache *conv_cache_new(void) {
  pthread_once(&dnnl.once, engine_open);
  return dnnl.engine ? calloc(1, sizeof(struct conv_cache)) : NULL;
}

void conv_cache_free(struct conv_cache *c) {
  if (!c) return;
  for (int i = 0; i < SLOTS; i++) prim_free(&c->slot[i].prim);
  free(c);
}

/* FNV-1a over words (Fowler, Noll, Vo); never 0 */
static uint64_t hash_of(const struct key *k) {
  uint64_t words[sizeof *k / sizeof(uint64_t)], h = 0xcbf29ce484222325u;
  memcpy(words, k, sizeof *k);
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) h = (h ^ words[i]) * 0x100000001b3u;
  return h | 1;
}

static bool slot_take(struct slot *s) {
  int expected = 0;
  return atomic_compare_exchange_strong_explicit(&s->busy, &expected, 1, memory_order_acquire, memory_order_relaxed);
}
static void slot_give(struct slot *s) { atomic_store_explicit(&s->busy, 0, memory_order_release); }

/* The slot of this key, held; or the least recently used free one, emptied; NULL: all that were tried are busy */
static struct slot *slot_find(struct conv_cache *c, const struct key *k) {
  const uint64_t hash = hash_of(k), tick = atomic_fetch_add_explicit(&c->clock, 1, memory_order_relaxed) + 1;
  for (int i = 0; i < SLOTS; i++) {
    struct slot *const s = &c->slot[i];
    if (atomic_load_explicit(&s->hash, memory_order_relaxed) != hash || !slot_take(s)) continue;
    if (s->state != EMPTY && !memcmp(&s->key, k, sizeof *k)) {
      atomic_store_explicit(&s->used, tick, memory_order_relaxed);
      return s;
    }
    slot_give(s);
  }
  for (int tries = 0; tries < 8; tries++) {
    int old = 0;
    for (int i = 1; i < SLOTS; i++)
      if (atomic_load_explicit(&c->slot[i].used, memory_order_relaxed) <
          atomic_load_explicit(&c->slot[old].used, memory_order_relaxed))
        old = i;
    struct slot *const s = &c->slot[old];
    atomic_store_explicit(&s->used, tick, memory_order_relaxed);
    if (!slot_take(s)) continue;
    prim_free(&s->prim);
    s->state = EMPTY;
    s->key = *k;
    atomic_store_explicit(&s->hash, hash, memory_order_relaxed);
    return s;
  }
  return NULL;
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

static bool by_primitive(struct conv_cache *c, const struct conv_job *j, bool turned, char *buffers, uint64_t bytes) {
  const double flops = 2.0 * (double)j->n * (double)j->o * (double)(j->out[0] * j->out[1]) *
                       (double)(j->c / j->groups * j->taps[0] * j->taps[1]);
  const bool token = flops > 4e5 && cpu_threads() > 1 && cpu_pool_try(); /* less is done before a second thread wakes */
  struct key k = {.job = *j, .threads = token ? cpu_threads() : 1, .turned = turned};
  k.job.x.p = k.job.w.p = k.job.y.p = NULL;
  const int before = threads_set((int)k.threads);
  struct slot *const s = slot_find(c, &k);
  bool done = false;
  if (s) {
    if (s->state == EMPTY) {
      s->state = make(&s->prim, j, turned) ? READY : REFUSED;
      if (s->state == REFUSED) prim_free(&s->prim);
    }
    done = s->state == READY && run(&s->prim, j, buffers, bytes);
    slot_give(s);
  }
  threads_set(before);
  if (token) cpu_pool_done();
  return done;
}

bool conv_dnnl(struct conv_cache *c, const struct conv_job *j, char *buffers, uint64_t bytes) {
  struct conv_job t;
  for (int d = 0; d < 2; d++)
    if (j->stride[d] > MOST || j->dilation[d] > MOST || j->pad[d] > MOST) return false;
  return (turn(j, &t) && by_primitive(c, &t, true, buffers, bytes)) || by_primitive(c, j, false, buffers, bytes);
}

#else
struct conv_cache *conv_cache_new(void) {
  return NULL;
}
void conv_cache_free(struct conv_cache *c) { (void)c; }
bool conv_dnnl(struct conv_cache *c, const struct conv_job *j, char *buffers, uint64_t bytes) {
  (void)c, (void)j, (void)buffers, (void)bytes;
  return false;
}
#endif
