/* CUMSUM, CUMPROD, CUMMAX, CUMMIN along one dim. A block of neighbouring lines (`lanes`) advances together, so that
   contiguous lanes become vectors; float32 and float64 run in double, half types in float32, integers wrap. Few long
   lines are cut into chunks: totals, their prefix, then the chunks again; chunks depend on the length alone, so bits
   do not depend on the thread count. */
#include "cpu.h"
#include "dot_half.h"

#include <math.h>
#include <stdlib.h>

/* SCAN_APART: lanes in a block where neighbours do not touch (more would fight for the same cache sets) */
enum { SCAN_LANES = 64, SCAN_APART = 4, SCAN_CHUNK = 16384, SCAN_CHUNKS = 1024, SCAN_FEW = 8, SCAN_LONG = 65536 };

typedef union scan_acc {
  double f;
  float g;
  int64_t i;
  uint64_t u;
} scan_acc;

/* lanes lines of n items; steps in elements, negative from the end. acc: one each, in and out; out NULL: only acc is
   wanted */
struct lines {
  const void *in;
  void *out;
  int64_t n, lanes, in_step, out_step, in_lane, out_lane;
  bool exclusive;
  scan_acc *acc;
};
typedef void (*scan_fn)(const struct lines *l);

#define STEP(T, A, GET, PUT, OP, many, il, ol)                            \
  for (int64_t i = 0; i < (many); i++) {                                  \
    const A x = (A)GET(in[i * (il)]), old = acc[i], new_acc = OP(old, x); \
    acc[i] = new_acc;                                                     \
    out[i * (ol)] = (T)PUT(l->exclusive ? old : new_acc);                 \
  }
/* T: element, A: accumulator, M: its member of scan_acc */
#define SCAN(name, T, A, M, GET, PUT, OP)                                                                            \
  static void name(const struct lines *l) {                                                                          \
    const int64_t lanes = l->lanes;                                                                                  \
    const T *in = l->in;                                                                                             \
    T *out = l->out;                                                                                                 \
    A acc[SCAN_LANES];                                                                                               \
    for (int64_t i = 0; i < lanes; i++) acc[i] = l->acc[i].M;                                                        \
    if (!out) {                                                                                                      \
      for (int64_t t = 0; t < l->n; t++, in += l->in_step) acc[0] = OP(acc[0], (A)GET(*in));                         \
    } else if (lanes == 1) {                                                                                         \
      A sum = acc[0];                                                                                                \
      for (int64_t t = 0; t < l->n; t++, in += l->in_step, out += l->out_step) {                                     \
        const A old = sum;                                                                                           \
        sum = OP(sum, (A)GET(*in));                                                                                  \
        *out = (T)PUT(l->exclusive ? old : sum);                                                                     \
      }                                                                                                              \
      acc[0] = sum;                                                                                                  \
    } else if (l->in_lane == 1 && l->out_lane == 1) {                                                                \
      for (int64_t t = 0; t < l->n; t++, in += l->in_step, out += l->out_step) STEP(T, A, GET, PUT, OP, lanes, 1, 1) \
    } else if (lanes == SCAN_APART) {                                                                                \
      for (int64_t t = 0; t < l->n; t++, in += l->in_step, out += l->out_step)                                       \
        STEP(T, A, GET, PUT, OP, SCAN_APART, l->in_lane, l->out_lane)                                                \
    } else {                                                                                                         \
      for (int64_t t = 0; t < l->n; t++, in += l->in_step, out += l->out_step)                                       \
        STEP(T, A, GET, PUT, OP, lanes, l->in_lane, l->out_lane)                                                     \
    }                                                                                                                \
    for (int64_t i = 0; i < lanes; i++) l->acc[i].M = acc[i];                                                        \
  }
#define SUM(a, b) ((a) + (b))
#define PROD(a, b) ((a) * (b))
#define MAX(a, b) ((b) > (a) ? (b) : (a))
#define MIN(a, b) ((b) < (a) ? (b) : (a))
#define FMAX(a, b) ((b) > (a) || (b) != (b) ? (b) : (a)) /* a NaN stays: nothing compares with it */
#define FMIN(a, b) ((b) < (a) || (b) != (b) ? (b) : (a))
#define FLOATS(op, OP)                                     \
  SCAN(op##_f32, float, double, f, , , OP)                 \
  SCAN(op##_f64, double, double, f, , , OP)                \
  SCAN(op##_f16, uint16_t, float, g, from_f16, to_f16, OP) \
  SCAN(op##_bf16, uint16_t, float, g, from_bf16, to_bf16, OP)
#define UNSIGNED(op, OP)                        \
  SCAN(op##_u8, uint8_t, uint64_t, u, , , OP)   \
  SCAN(op##_u16, uint16_t, uint64_t, u, , , OP) \
  SCAN(op##_u32, uint32_t, uint64_t, u, , , OP) \
  SCAN(op##_u64, uint64_t, uint64_t, u, , , OP)
#define SIGNED(op, OP)                        \
  SCAN(op##_i8, int8_t, int64_t, i, , , OP)   \
  SCAN(op##_i16, int16_t, int64_t, i, , , OP) \
  SCAN(op##_i32, int32_t, int64_t, i, , , OP) \
  SCAN(op##_i64, int64_t, int64_t, i, , , OP)
FLOATS(sum, SUM)
FLOATS(prod, PROD)
FLOATS(max, FMAX)
FLOATS(min, FMIN)
UNSIGNED(sum, SUM)
UNSIGNED(prod, PROD)
UNSIGNED(max, MAX)
UNSIGNED(min, MIN)
SIGNED(max, MAX)
SIGNED(min, MIN)

/* CUMSUM .. CUMMIN by dtype; sums and products modulo 2^64 end as those modulo the item's width, whatever the sign */
static const scan_fn table[4][TERN_DTYPE_END] = {{NULL, NULL, sum_u8, sum_u16, sum_u32, sum_u64, sum_u8, sum_u16,
                                                  sum_u32, sum_u64, sum_f16, sum_bf16, sum_f32, sum_f64},
                                                 {NULL, NULL, prod_u8, prod_u16, prod_u32, prod_u64, prod_u8, prod_u16,
                                                  prod_u32, prod_u64, prod_f16, prod_bf16, prod_f32, prod_f64},
                                                 {NULL, max_u8, max_i8, max_i16, max_i32, max_i64, max_u8, max_u16,
                                                  max_u32, max_u64, max_f16, max_bf16, max_f32, max_f64},
                                                 {NULL, min_u8, min_i8, min_i16, min_i32, min_i64, min_u8, min_u16,
                                                  min_u32, min_u64, min_f16, min_bf16, min_f32, min_f64}};

struct scan_kernel {
  tern_kernel base;
  scan_fn fn;
  uint32_t op, dtype, in_slot, out_slot;
  int rank, dim;
  bool exclusive, reverse;
  scan_acc start;
  int64_t offset, shape[TERN_MAX_RANK], in_stride[TERN_MAX_RANK], out_stride[TERN_MAX_RANK];
};

struct scan {
  const struct scan_kernel *k;
  const char *in;
  char *out;
  struct lines base;
  int rank; /* dims outside the scanned one and the lanes */
  int64_t size[TERN_MAX_RANK], in_stride[TERN_MAX_RANK], out_stride[TERN_MAX_RANK];
  int64_t item, lanes, block, blocks,
      outer; /* bytes, length of the lane dim, its blocks' length and number, product of size */
  int64_t chunk, n;
  scan_acc *total; /* of each chunk */
};

static void line_at(const struct scan *s, int64_t outer, int64_t lane, struct lines *l) {
  int64_t in = lane * s->base.in_lane, out = lane * s->base.out_lane;
  for (int d = s->rank - 1; d >= 0; d--) {
    in += outer % s->size[d] * s->in_stride[d];
    out += outer % s->size[d] * s->out_stride[d];
    outer /= s->size[d];
  }
  *l = s->base;
  l->in = s->in + in * s->item;
  l->out = s->out + out * s->item;
}

static void scan_piece(void *ctx, int64_t lo, int64_t hi) {
  const struct scan *const s = ctx;
  scan_acc acc[SCAN_LANES];
  for (int64_t t = lo; t < hi; t++) {
    struct lines l;
    const int64_t lane = t % s->blocks * s->block;
    line_at(s, t / s->blocks, lane, &l);
    l.lanes = s->lanes - lane < s->block ? s->lanes - lane : s->block;
    for (int64_t i = 0; i < l.lanes; i++) acc[i] = s->k->start;
    l.acc = acc;
    s->k->fn(&l);
  }
}

static struct lines chunk_of(const struct scan *s, int64_t c) {
  struct lines l = s->base;
  l.in = s->in + c * s->chunk * l.in_step * s->item;
  l.out = s->out + c * s->chunk * l.out_step * s->item;
  l.n = s->n - c * s->chunk < s->chunk ? s->n - c * s->chunk : s->chunk;
  return l;
}

static void chunk_total(void *ctx, int64_t lo, int64_t hi) {
  const struct scan *const s = ctx;
  for (int64_t c = lo; c < hi; c++) {
    struct lines l = chunk_of(s, c);
    s->total[c] = s->k->start;
    l.out = NULL;
    l.acc = &s->total[c];
    s->k->fn(&l);
  }
}

static void chunk_scan(void *ctx, int64_t lo, int64_t hi) {
  const struct scan *const s = ctx;
  for (int64_t c = lo; c < hi; c++) {
    struct lines l = chunk_of(s, c);
    scan_acc acc = s->total[c];
    l.acc = &acc;
    s->k->fn(&l);
  }
}

/* total[c] = what precedes chunk c. Done in the accumulator's type, outside the dtype's kernels */
static void prefix(const struct scan_kernel *k, scan_acc *total, int64_t chunks) {
  scan_acc sum = k->start;
  const bool half = k->dtype == TERN_F16 || k->dtype == TERN_BF16, real = k->dtype >= TERN_F16 && k->dtype <= TERN_F64;
  const bool sign = k->dtype >= TERN_I8 && k->dtype <= TERN_I64;
  for (int64_t c = 0; c < chunks; c++) {
    const scan_acc x = total[c], old = sum;
    total[c] = old;
    switch (k->op) {
    case TERN_OP_CUMSUM:
      if (half)
        sum.g = old.g + x.g;
      else if (real)
        sum.f = old.f + x.f;
      else
        sum.u = old.u + x.u;
      break;
    case TERN_OP_CUMPROD:
      if (half)
        sum.g = old.g * x.g;
      else if (real)
        sum.f = old.f * x.f;
      else
        sum.u = old.u * x.u;
      break;
    case TERN_OP_CUMMAX:
      if (half)
        sum.g = FMAX(old.g, x.g);
      else if (real)
        sum.f = FMAX(old.f, x.f);
      else if (sign)
        sum.i = MAX(old.i, x.i);
      else
        sum.u = MAX(old.u, x.u);
      break;
    default:
      if (half)
        sum.g = FMIN(old.g, x.g);
      else if (real)
        sum.f = FMIN(old.f, x.f);
      else if (sign)
        sum.i = MIN(old.i, x.i);
      else
        sum.u = MIN(old.u, x.u);
    }
  }
}

static void scan_long(struct scan *s) {
  scan_acc total[SCAN_CHUNKS];
  const char *const in = s->in;
  char *const out = s->out;
  s->total = total;
  s->chunk = s->n / SCAN_CHUNKS + 1 > SCAN_CHUNK ? s->n / SCAN_CHUNKS + 1 : SCAN_CHUNK;
  const int64_t chunks = (s->n + s->chunk - 1) / s->chunk;
  for (int64_t t = 0; t < s->outer * s->lanes; t++) {
    struct lines l;
    s->in = in, s->out = out;
    line_at(s, t / s->lanes, t % s->lanes, &l);
    s->in = l.in, s->out = l.out;
    cpu_parallel(chunks, 1, chunk_total, s);
    prefix(s->k, total, chunks);
    cpu_parallel(chunks, 1, chunk_scan, s);
  }
}

/* The scanned dim, the lane dim (the innermost other one) and the rest */
static void scan_read(const struct scan_kernel *k, const tern_launch *l, struct scan *s) {
  const tern_word *const w = l->words;
  int lane = -1;
  s->k = k;
  s->rank = 0, s->outer = 1, s->lanes = 1;
  s->base = (struct lines){.lanes = 1, .exclusive = k->exclusive};
  s->item = (int64_t)cpu_item_size(k->dtype);
  for (int d = 0; d < k->rank; d++)
    if (d != k->dim && TERN_LIT(k->shape[d], w) > 1) lane = d;
  for (int d = 0; d < k->rank; d++) {
    const int64_t size = TERN_LIT(k->shape[d], w), in = TERN_LIT(k->in_stride[d], w),
                  out = TERN_LIT(k->out_stride[d], w);
    if (d == k->dim) {
      s->n = s->base.n = size, s->base.in_step = in, s->base.out_step = out;
    } else if (d == lane) {
      s->lanes = size, s->base.in_lane = in, s->base.out_lane = out;
    } else if (size > 1) {
      s->size[s->rank] = size, s->in_stride[s->rank] = in, s->out_stride[s->rank++] = out;
      s->outer *= size;
    }
  }
  s->in = cpu_arg(l, k->in_slot) + TERN_LIT(k->offset, w) * s->item;
  s->out = cpu_arg(l, k->out_slot);
  if (!k->reverse) return;
  s->in += (s->n - 1) * s->base.in_step * s->item;
  s->out += (s->n - 1) * s->base.out_step * s->item;
  s->base.in_step = -s->base.in_step;
  s->base.out_step = -s->base.out_step;
}

static tern_rc scan_run(const tern_kernel *kernel, const tern_launch *l) {
  struct scan s;
  scan_read((const struct scan_kernel *)(const void *)kernel, l, &s);
  s.block = s.base.in_lane == 1 && s.base.out_lane == 1 ? SCAN_LANES : SCAN_APART;
  s.blocks = (s.lanes + s.block - 1) / s.block;
  if (s.outer * s.lanes <= SCAN_FEW && s.n >= SCAN_LONG) {
    scan_long(&s);
    return TERN_OK;
  }
  const int64_t work = (s.lanes < s.block ? s.lanes : s.block) * s.n;
  cpu_parallel(s.outer * s.blocks, work > 16384 ? 1 : 16384 / work + 1, scan_piece, &s);
  return TERN_OK;
}

/* The neutral element; a sum starts at -0 so that a leading -0 stays (an exclusive one at the 0 that it shows) */
static scan_acc start_of(uint32_t op, uint32_t dtype, bool exclusive) {
  const bool half = dtype == TERN_F16 || dtype == TERN_BF16, real = dtype >= TERN_F16 && dtype <= TERN_F64;
  const bool sign = dtype >= TERN_I8 && dtype <= TERN_I64;
  scan_acc a = {.u = 0};
  if (real) {
    const double x = op == TERN_OP_CUMSUM    ? (exclusive ? 0.0 : -0.0)
                     : op == TERN_OP_CUMPROD ? 1
                     : op == TERN_OP_CUMMAX  ? -HUGE_VAL
                                             : HUGE_VAL;
    if (half)
      a.g = (float)x;
    else
      a.f = x;
  } else if (op == TERN_OP_CUMPROD) {
    a.u = 1;
  } else if (op == TERN_OP_CUMMAX) {
    a.u = sign ? (uint64_t)INT64_MIN : 0;
  } else if (op == TERN_OP_CUMMIN) {
    a.u = sign ? (uint64_t)INT64_MAX : UINT64_MAX;
  }
  return a;
}

static const tern_value *scan_input(const tern_region *r, uint32_t v) {
  const tern_value *x = &r->values[v];
  if (x->kind == TERN_V_VIEW && x->slot < r->n_values) x = &r->values[x->slot];
  return x->kind == TERN_V_IN && !x->layout && x->slot < r->n_args ? x : NULL;
}

tern_rc cpu_scan_supports(const tern_region *r) {
  if (r->n_nodes != 1) return TERN_E_UNSUPPORTED;
  const tern_node *const n = &r->nodes[0];
  if (n->op < TERN_OP_CUMSUM || n->op > TERN_OP_CUMMIN || n->n_in != 1 || n->n_out != 1 || n->n_attr < 1)
    return TERN_E_UNSUPPORTED;
  const tern_value *const in = &r->values[r->edges[n->in]], *const out = &r->values[r->edges[n->out]];
  const int64_t dim = r->attrs[n->attr].i, flags = n->n_attr > 1 ? r->attrs[n->attr + 1].i : 0;
  if (!scan_input(r, r->edges[n->in]) || out->kind != TERN_V_OUT || out->layout || out->slot >= r->n_args)
    return TERN_E_UNSUPPORTED;
  if (in->dtype != out->dtype || in->rank != out->rank || in->rank > TERN_MAX_RANK || dim < 0 || dim >= in->rank)
    return TERN_E_UNSUPPORTED;
  if (in->dtype >= TERN_DTYPE_END || !table[n->op - TERN_OP_CUMSUM][in->dtype] || (flags & ~(int64_t)3))
    return TERN_E_UNSUPPORTED;
  if (flags & 1 && n->op >= TERN_OP_CUMMAX) return TERN_E_UNSUPPORTED;
  return TERN_OK;
}

tern_rc cpu_scan_compile(const tern_region *r, tern_kernel **kernel, tern_kernel_info *info) {
  const tern_rc rc = cpu_scan_supports(r);
  if (rc) return rc;
  struct scan_kernel *const k = calloc(1, sizeof *k);
  if (!k) return cpu_error(TERN_E_OOM, "scan: no memory for a kernel of %zu bytes", sizeof *k);
  const tern_node *const n = &r->nodes[0];
  const tern_value *const in = &r->values[r->edges[n->in]], *const out = &r->values[r->edges[n->out]];
  const int64_t flags = n->n_attr > 1 ? r->attrs[n->attr + 1].i : 0;
  k->base.run = scan_run;
  k->op = n->op, k->dtype = in->dtype;
  k->fn = table[n->op - TERN_OP_CUMSUM][in->dtype];
  k->in_slot = scan_input(r, r->edges[n->in])->slot;
  k->out_slot = out->slot;
  k->rank = in->rank, k->dim = (int)r->attrs[n->attr].i;
  k->exclusive = flags & 1, k->reverse = flags & 2;
  k->start = start_of(k->op, k->dtype, k->exclusive);
  k->offset = in->kind == TERN_V_VIEW ? in->offset : 0;
  for (int d = 0; d < k->rank; d++) {
    k->shape[d] = out->shape[d];
    k->in_stride[d] = in->stride[d];
    k->out_stride[d] = out->stride[d];
  }
  info->workspace = 0;
  *kernel = &k->base;
  return TERN_OK;
}
