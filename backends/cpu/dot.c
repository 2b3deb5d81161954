/* DOT: from a region to a kernel, and from a launch's words to one dot_job. A launch reads its sizes and strides,
   folds and merges batch dims, turns the product so that the output's rows are contiguous, and hands it to the
   smallest sufficient machinery. */
#include "dot.h"

#include <stdlib.h>
#include <string.h>

struct num { /* a literal, or launch word `word` when that is not negative */
  int64_t lit;
  int32_t word;
};
struct operand {
  uint32_t slot;
  struct num offset, stride[TERN_MAX_RANK];
  bool stays[TERN_MAX_RANK]; /* a literal 1: broadcast along this dim */
};
struct dot_kernel {
  tern_kernel base;
  uint32_t in, out;
  int rank;
  bool fixed;                        /* choose by rule, not by the clock */
  bool packs;                        /* may need workspace */
  bool quick;                        /* rank 2, float32 or float64 */
  struct num size[TERN_MAX_RANK], k; /* size: of the output */
  struct operand a, b, o;
  struct dot_cache *cache;
};

/* What a launch does beside the product: which operands go through workspace, in float32 if half */
struct plan {
  bool small, own, pack_a, pack_b, pack_o;
  char turn_a, turn_b; /* layouts of the packed copies */
};

static inline int64_t read_num(const struct num *x, const tern_word *words) {
  const int64_t *const at = x->word < 0 ? &x->lit : &words[x->word].i; /* chosen without a branch */
  return *at;
}

static struct num make_num(int64_t x) {
  if (TERN_IS_SYM(x)) return (struct num){0, (int32_t)TERN_SYM_ID(x)};
  return (struct num){x, -1};
}

static bool is_half(uint32_t dtype) { return dtype == TERN_F16 || dtype == TERN_BF16; }
static bool is_float(uint32_t dtype) { return dtype == TERN_F32 || dtype == TERN_F64 || is_half(dtype); }

char dot_layout(const struct dot_mat *x, int64_t r, int64_t c, int64_t *ld) {
  if ((x->col == 1 || c == 1) && (r == 1 || x->row >= c)) {
    *ld = r == 1 ? c : x->row;
    return 'N';
  }
  if ((x->row == 1 || r == 1) && (c == 1 || x->col >= r)) {
    *ld = c == 1 ? r : x->col;
    return 'T';
  }
  return 0;
}

char *dot_item(const struct dot_job *j, const struct dot_mat *x, int64_t i, size_t item_size) {
  int64_t at = 0;
  for (int d = j->rank - 1; d >= 0; d--) {
    at += i % j->size[d] * x->batch[d];
    i /= j->size[d];
  }
  return x->p + at * (int64_t)item_size;
}

/* ---- a launch's numbers ---- */
static void read_mat(const struct dot_kernel *k, const struct operand *x, const tern_word *words, struct dot_mat *to) {
  to->row = read_num(&x->stride[k->rank - 2], words);
  to->col = read_num(&x->stride[k->rank - 1], words);
}

static void add_batch(struct dot_job *j, int64_t size, int64_t sa, int64_t sb, int64_t so) {
  if (size == 1) return;
  const int d = j->rank - 1;
  if (d >= 0 && j->a.batch[d] == sa * size && j->b.batch[d] == sb * size && j->o.batch[d] == so * size) {
    j->size[d] *= size; /* one dim with the one outside it */
    j->a.batch[d] = sa, j->b.batch[d] = sb, j->o.batch[d] = so;
    return;
  }
  j->size[j->rank] = size;
  j->a.batch[j->rank] = sa, j->b.batch[j->rank] = sb, j->o.batch[j->rank] = so;
  j->rank++;
}

static void read_batch(const struct dot_kernel *k, const tern_word *words, struct dot_job *j) {
  for (int d = 0; d < k->rank - 2; d++)
    add_batch(j, read_num(&k->size[d], words), k->a.stays[d] ? 0 : read_num(&k->a.stride[d], words),
              k->b.stays[d] ? 0 : read_num(&k->b.stride[d], words), read_num(&k->o.stride[d], words));
  /* one b for all: the batch is more rows */
  if (j->rank == 1 && j->b.batch[0] == 0 &&
      (j->m == 1 || (j->a.batch[0] == j->m * j->a.row && j->o.batch[0] == j->m * j->o.row))) {
    if (j->m == 1) j->a.row = j->a.batch[0], j->o.row = j->o.batch[0];
    j->m *= j->size[0];
    j->rank = 0;
  }
  j->items = 1;
  for (int d = 0; d < j->rank; d++) j->items *= j->size[d];
}

static void transpose(struct dot_mat *x) {
  const int64_t row = x->row;
  x->row = x->col;
  x->col = row;
}

/* o^T = b^T a^T where that gives contiguous output rows, or makes the single column a single row */
static void turn(struct dot_job *j) {
  const bool column = j->n == 1 && j->m > 1;
  if (!column && !(j->m > 1 && j->n > 1 && j->o.col != 1 && j->o.row == 1)) return;
  const struct dot_mat a = j->a;
  const int64_t m = j->m;
  j->a = j->b, j->b = a;
  j->m = j->n, j->n = m;
  transpose(&j->a);
  transpose(&j->b);
  transpose(&j->o);
}

/* Keeps the addresses in *j, exchanged where the operands are */
static void read_job(const struct dot_kernel *k, const tern_word *words, struct dot_job *j) {
  j->in = k->in, j->out = k->out;
  j->rank = 0, j->items = 1;
  j->m = read_num(&k->size[k->rank - 2], words);
  j->n = read_num(&k->size[k->rank - 1], words);
  j->k = read_num(&k->k, words);
  read_mat(k, &k->a, words, &j->a);
  read_mat(k, &k->b, words, &j->b);
  read_mat(k, &k->o, words, &j->o);
  if (k->rank > 2) read_batch(k, words, j);
  if (is_float(j->in)) turn(j);
}

static double work_of(const struct dot_job *j) { return (double)j->m * (double)j->n * (double)j->k * (double)j->items; }

/* Pure function of the words: run and workspace() must agree */
static struct plan make_plan(const struct dot_kernel *k, const struct dot_job *j) {
  struct plan p = {0};
  int64_t ld;
  const char la = dot_layout(&j->a, j->m, j->k, &ld), lb = dot_layout(&j->b, j->k, j->n, &ld),
             lo = dot_layout(&j->o, j->m, j->n, &ld);
  if (!is_half(j->in) && dot_is_small(j->m, j->n, j->k)) {
    p.small = true;
    return p;
  }
  p.turn_a = la == 'T' ? 'T' : 'N';
  p.turn_b = lb == 'T' ? 'T' : 'N';
  if (is_half(j->in)) {
    const bool ready = la && lb && lo == 'N' && dot_lib_has(j->in, j->out);
    if (ready && !dot_is_small(j->m, j->n, j->k)) return p;
    p.own = work_of(j) <= 64 * 64 * 64;
    p.pack_a = p.pack_b = p.pack_o = !p.own;
    return p;
  }
  if (j->m == 1) {
    const bool rows = j->n > 1 && j->b.col == 1;
    p.pack_b = !rows && j->k > 1 && j->b.row != 1;
    p.pack_a = !rows && j->k > 1 && j->a.col != 1;
    p.pack_o = j->n > 1 && j->o.col != 1;
    p.turn_b = 'T';
    p.turn_a = 'N';
  } else {
    p.pack_a = !la, p.pack_b = !lb, p.pack_o = lo != 'N';
  }
  const bool any = p.pack_a || p.pack_b || p.pack_o;
  p.own = any && (!k->packs || work_of(j) <= 96 * 96 * 96);
  if (p.own) p.pack_a = p.pack_b = p.pack_o = false;
  return p;
}

/* Describe in *to the dense copy of x, r x c; batch dims that x repeats stay repeated. Returns its bytes, rounded up
   to 64, or UINT64_MAX when that overflows */
static uint64_t dense(const struct dot_job *j, const struct dot_mat *x, int64_t r, int64_t c, char layout,
                      uint32_t dtype, struct dot_mat *to) {
  to->row = layout == 'N' ? c : 1;
  to->col = layout == 'N' ? 1 : r;
  int64_t n;
  bool over = __builtin_mul_overflow(r, c, &n);
  for (int d = j->rank - 1; d >= 0; d--) {
    to->batch[d] = x->batch[d] ? n : 0;
    if (x->batch[d]) over |= __builtin_mul_overflow(n, j->size[d], &n);
  }
  over |= __builtin_mul_overflow(n, (int64_t)cpu_item_size(dtype), &n) || n > INT64_MAX / 4;
  return over ? UINT64_MAX : ((uint64_t)n + 63) & ~(uint64_t)63;
}

static uint32_t compute_dtype(uint32_t dtype) { return is_half(dtype) ? TERN_F32 : dtype; }

/* Bytes of the copies; their descriptions, addresses relative to base */
static uint64_t lay_out(const struct dot_job *j, const struct plan *p, char *base, struct dot_mat *a, struct dot_mat *b,
                        struct dot_mat *o) {
  const uint32_t dtype = compute_dtype(j->in);
  const uint64_t na = p->pack_a ? dense(j, &j->a, j->m, j->k, p->turn_a, dtype, a) : 0;
  const uint64_t nb = p->pack_b ? dense(j, &j->b, j->k, j->n, p->turn_b, dtype, b) : 0;
  const uint64_t no = p->pack_o ? dense(j, &j->o, j->m, j->n, 'N', dtype, o) : 0;
  if (na == UINT64_MAX || nb == UINT64_MAX || no == UINT64_MAX)
    return UINT64_MAX - 1; /* no device has it: out of memory */
  if (base) {
    a->p = base;
    b->p = base + na;
    o->p = base + na + nb;
  }
  return na + nb + no;
}

static uint64_t dot_workspace(const tern_kernel *kernel, const tern_word *words) {
  const struct dot_kernel *const k = (const struct dot_kernel *)(const void *)kernel;
  struct dot_job j;
  struct dot_mat a, b, o;
  if (!k->packs) return 0;
  j.a.p = j.b.p = j.o.p = NULL;
  read_job(k, words, &j);
  const struct plan p = make_plan(k, &j);
  return lay_out(&j, &p, NULL, &a, &b, &o);
}

/* ---- running ---- */
static void small_items(void *ctx, int64_t lo, int64_t hi) {
  for (int64_t i = lo; i < hi; i++) dot_small(ctx, i);
}

static void copy(const struct dot_job *j, const struct dot_mat *dst, uint32_t to, const struct dot_mat *src,
                 uint32_t from, int64_t r, int64_t c, char layout) {
  struct dot_copy x = {.dst = *dst, .src = *src, .dst_dtype = to, .src_dtype = from, .r = r, .c = c};
  if (layout == 'T') { /* rows of the copy are its columns */
    x.r = c, x.c = r;
    transpose(&x.dst);
    transpose(&x.src);
  }
  for (int d = 0; d < j->rank; d++) {
    if (src->batch[d] == 0 && dst->batch[d] == 0) continue; /* repeated: copied once */
    x.size[x.rank] = j->size[d];
    x.dst.batch[x.rank] = dst->batch[d], x.src.batch[x.rank] = src->batch[d];
    x.rank++;
  }
  dot_copy(&x);
}

static void run_core(const struct dot_kernel *k, const struct dot_job *j) {
  if (j->in == TERN_BF16 || j->m > 1)
    dot_lib(j, k->cache, k->fixed);
  else
    dot_vector(j);
}

static tern_rc run_packed(const struct dot_kernel *k, const struct dot_job *j, const struct plan *p,
                          const tern_launch *l) {
  struct dot_job c = *j;
  if (!l->workspace.mem)
    return cpu_error(TERN_E_ARG, "dot: this launch needs workspace and has none; ask workspace() with its words");
  const uint32_t dtype = compute_dtype(j->in);
  lay_out(j, p, (char *)l->workspace.mem + l->workspace.offset, &c.a, &c.b, &c.o);
  if (!p->pack_a) c.a = j->a;
  if (!p->pack_b) c.b = j->b;
  if (!p->pack_o) c.o = j->o;
  c.in = c.out = dtype;
  if (p->pack_a) copy(j, &c.a, dtype, &j->a, j->in, j->m, j->k, p->turn_a);
  if (p->pack_b) copy(j, &c.b, dtype, &j->b, j->in, j->k, j->n, p->turn_b);
  run_core(k, &c);
  if (p->pack_o) copy(j, &j->o, j->in, &c.o, dtype, j->m, j->n, 'N');
  return TERN_OK;
}

static tern_rc run_floats(const struct dot_kernel *k, struct dot_job *j, const tern_launch *l) {
  const struct plan p = make_plan(k, j);
  if (p.small) {
    const int64_t work = j->m * j->n * j->k;
    cpu_parallel(j->items, 65536 / work + 1, small_items, j);
  } else if (p.own) {
    dot_own(j);
  } else if (p.pack_a || p.pack_b || p.pack_o) {
    return run_packed(k, j, &p, l);
  } else {
    run_core(k, j);
  }
  return TERN_OK;
}

static inline char *address(const struct operand *x, const tern_launch *l, uint32_t dtype) {
  return cpu_arg(l, x->slot) + read_num(&x->offset, l->words) * (int64_t)cpu_item_size(dtype);
}

/* A small float product of rank 2 whose rows are contiguous, without a dot_job: some ns; false: not such a one */
static inline bool run_quick(const struct dot_kernel *k, const tern_launch *l) {
  const tern_word *const w = l->words;
  const int64_t m = read_num(&k->size[0], w), n = read_num(&k->size[1], w), d = read_num(&k->k, w);
  if (!dot_is_quick(m, n, d)) return false;
  const int64_t b_col = read_num(&k->b.stride[1], w), o_col = read_num(&k->o.stride[1], w);
  if ((b_col ^ 1) | (o_col ^ 1)) return false;
  const int64_t am = read_num(&k->a.stride[0], w), ak = read_num(&k->a.stride[1], w), bk = read_num(&k->b.stride[0], w);
  const int64_t om = read_num(&k->o.stride[0], w);
  const char *const a = address(&k->a, l, k->in), *const b = address(&k->b, l, k->in);
  char *const o = address(&k->o, l, k->out);
  if (k->in == TERN_F32)
    dot_block_f32(m, n, d, (const float *)a, am, ak, (const float *)b, bk, (float *)o, om, false);
  else
    dot_block_f64(m, n, d, (const double *)a, am, ak, (const double *)b, bk, (double *)o, om, false);
  return true;
}

static tern_rc dot_run(const tern_kernel *kernel, const tern_launch *l) {
  const struct dot_kernel *const k = (const struct dot_kernel *)(const void *)kernel;
  if (k->quick && run_quick(k, l)) return TERN_OK;
  struct dot_job j;
  j.a.p = address(&k->a, l, k->in);
  j.b.p = address(&k->b, l, k->in);
  j.o.p = address(&k->o, l, k->out);
  read_job(k, l->words, &j);
  if (!is_float(k->in)) {
    dot_int(&j);
    return TERN_OK;
  }
  return run_floats(k, &j, l);
}

/* ---- compiling ---- */
static void dot_destroy(tern_kernel *kernel) {
  struct dot_kernel *const k = (struct dot_kernel *)(void *)kernel;
  dot_cache_free(k->cache);
  free(k);
}

/* The argument behind value v and v's offset in it; NULL: v is not an argument's strided view */
static const tern_value *base_of(const tern_region *r, uint32_t v, int64_t *offset) {
  const tern_value *x = &r->values[v];
  *offset = 0;
  if (x->kind == TERN_V_VIEW) {
    *offset = x->offset;
    if (x->slot >= r->n_values) return NULL;
    x = &r->values[x->slot];
    if (x->kind != TERN_V_IN) return NULL;
  }
  return (x->kind == TERN_V_IN || x->kind == TERN_V_OUT) && x->layout == 0 && x->slot < r->n_args ? x : NULL;
}

static bool dtypes_known(uint32_t in, uint32_t out) {
  if (in <= TERN_BOOL || in >= TERN_DTYPE_END) return false;
  return in == out || ((in == TERN_I8 || in == TERN_U8) && out == TERN_I32);
}

tern_rc cpu_dot_supports(const tern_region *r) {
  int64_t offset;
  if (r->n_nodes != 1 || r->nodes[0].op != TERN_OP_DOT || r->nodes[0].n_in != 2 || r->nodes[0].n_out != 1)
    return TERN_E_UNSUPPORTED;
  const uint32_t *const in = r->edges + r->nodes[0].in, *const out = r->edges + r->nodes[0].out;
  const tern_value *const a = &r->values[in[0]], *const b = &r->values[in[1]], *const o = &r->values[out[0]];
  const tern_value *const ba = base_of(r, in[0], &offset), *const bb = base_of(r, in[1], &offset),
                          *const bo = base_of(r, out[0], &offset);
  if (!ba || !bb || !bo || ba->kind != TERN_V_IN || bb->kind != TERN_V_IN || o->kind != TERN_V_OUT)
    return TERN_E_UNSUPPORTED;
  if (a->rank < 2 || a->rank > TERN_MAX_RANK || b->rank != a->rank || o->rank != a->rank) return TERN_E_UNSUPPORTED;
  if (a->dtype != b->dtype || !dtypes_known(a->dtype, o->dtype) || o->alias >= 0) return TERN_E_UNSUPPORTED;
  return TERN_OK;
}

static void fill_operand(const tern_region *r, uint32_t v, struct operand *x) {
  int64_t offset;
  const tern_value *const value = &r->values[v], *const base = base_of(r, v, &offset);
  x->slot = base->slot;
  x->offset = make_num(offset);
  for (int d = 0; d < value->rank; d++) {
    x->stride[d] = make_num(value->stride[d]);
    x->stays[d] = value->shape[d] == 1;
  }
}

/* A matrix with a literal 1 among its last two strides (or a literal size of 1) is laid out well except for
   overlapping or reversed views: those take our own loops, so that the usual kernel needs no workspace */
static bool may_pack(const tern_value *v) {
  const int64_t *const s = v->stride + v->rank - 2, *const n = v->shape + v->rank - 2;
  return s[0] != 1 && s[1] != 1 && !(n[0] == 1 && n[1] == 1);
}

tern_rc cpu_dot_compile(const tern_region *r, tern_kernel **kernel, tern_kernel_info *info) {
  const tern_rc rc = cpu_dot_supports(r);
  if (rc) return rc;
  struct dot_kernel *const k = calloc(1, sizeof *k);
  if (!k) return cpu_error(TERN_E_OOM, "dot: no memory for a kernel of %zu bytes", sizeof *k);
  const uint32_t *const in = r->edges + r->nodes[0].in, *const out = r->edges + r->nodes[0].out;
  const tern_value *const a = &r->values[in[0]], *const b = &r->values[in[1]], *const o = &r->values[out[0]];
  k->base.run = dot_run;
  k->base.destroy = dot_destroy;
  k->base.workspace = dot_workspace;
  k->in = a->dtype, k->out = o->dtype;
  k->rank = a->rank;
  k->quick = k->rank == 2 && (k->in == TERN_F32 || k->in == TERN_F64);
  k->fixed = r->flags & TERN_R_DETERMINISTIC;
  for (int d = 0; d < k->rank; d++) k->size[d] = make_num(o->shape[d]);
  k->k = make_num(a->shape[k->rank - 1]);
  fill_operand(r, in[0], &k->a);
  fill_operand(r, in[1], &k->b);
  fill_operand(r, out[0], &k->o);
  k->packs = is_half(k->in) || (is_float(k->in) && (may_pack(a) || may_pack(b) || may_pack(o)));
  if (is_float(k->in)) {
    k->cache = dot_cache_new();
    if (!k->cache) {
      free(k);
      return cpu_error(TERN_E_OOM, "dot: no memory for a kernel's cache of primitives");
    }
  }
  info->workspace = k->packs ? UINT64_MAX : 0;
  *kernel = &k->base;
  return TERN_OK;
}
