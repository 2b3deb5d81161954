/* Prebound kernels for the commonest regions: one MAP over contiguous rank-1 operands, and one reduction of a
   contiguous rank-1 operand to one element. A launch is a few loads and a call; big ones go parallel, and very big
   results bypass the cache. */
#include "exec.h"
#include "exec_tiny.h"
#include "map.h"
#include <stdatomic.h>
#include <stdlib.h>

enum {
  MAP_GRAIN = 32 << 10,   /* elements a piece */
  STREAM_FROM = 32 << 20, /* bytes touched from which on stores bypass the cache */
  FOLD_GRAIN = 64 << 10,  /* elements a piece of a reduction */
  FOLD_PIECES = 64
};

typedef struct fast_map {
  tern_kernel base;
  cpu_map_fn fn, stream;
  int64_t n;                 /* literal or word */
  uint32_t out, n_in, bytes; /* bytes of one element of all operands */
  uint32_t item[4];          /* of the inputs (0: splat) and the output */
  uint32_t slot[3];          /* ARG: argument; PARAM: word */
  uint8_t kind[3];           /* TERN_V_IN, TERN_V_CONST or TERN_V_PARAM */
  uint32_t dtype[3];
  uint64_t imm[3]; /* CONST: stored value */
} fast_map;

typedef struct map_job {
  cpu_map_fn fn;
  char *out;
  const char *in[3];
  const uint32_t *item;
} map_job;

static void map_piece(void *ctx, int64_t lo, int64_t hi) {
  const map_job *const j = ctx;
  j->fn(j->out + lo * j->item[3], j->in[0] + lo * j->item[0], j->in[1] + lo * j->item[1], j->in[2] + lo * j->item[2],
        hi - lo);
}

/* Out of line, so that the small case needs no stack frame to speak of */
static __attribute__((noinline)) tern_rc map_big(const fast_map *k, char *out, const char *a, const char *b,
                                                 const char *c, int64_t n) {
  const bool stream = k->stream && n >= STREAM_FROM / k->bytes && out != a && out != b && out != c;
  map_job j = {stream ? k->stream : k->fn, out, {a, b, c}, k->item};
  cpu_parallel(n, MAP_GRAIN, map_piece, &j);
  return TERN_OK;
}

static tern_rc run_map1(const tern_kernel *kernel, const tern_launch *l) {
  const fast_map *const k = (const fast_map *)kernel;
  const int64_t n = TERN_LIT(k->n, l->words);
  char *const out = cpu_arg(l, k->out);
  const char *const a = cpu_arg(l, k->slot[0]);
  if (n > MAP_GRAIN) return map_big(k, out, a, a, a, n);
  k->fn(out, a, a, a, n);
  return TERN_OK;
}

static tern_rc run_map2(const tern_kernel *kernel, const tern_launch *l) {
  const fast_map *const k = (const fast_map *)kernel;
  const int64_t n = TERN_LIT(k->n, l->words);
  char *const out = cpu_arg(l, k->out);
  const char *const a = cpu_arg(l, k->slot[0]), *const b = cpu_arg(l, k->slot[1]);
  if (n > MAP_GRAIN) return map_big(k, out, a, b, a, n);
  k->fn(out, a, b, a, n);
  return TERN_OK;
}

/* Float32 arithmetic on two arguments: what fits a few vectors is done on the spot */
#define RUN_TINY(NAME, OP)                                                                                  \
  static tern_rc NAME(const tern_kernel *kernel, const tern_launch *l) {                                    \
    const fast_map *const k = (const fast_map *)kernel;                                                     \
    const int64_t n = TERN_LIT(k->n, l->words);                                                             \
    if (__builtin_expect(n > X_TINY_MOST, 0)) return run_map2(kernel, l);                                   \
    x_tiny(OP, 0, (float *)(void *)cpu_arg(l, k->out), (const float *)(const void *)cpu_arg(l, k->slot[0]), \
           (const float *)(const void *)cpu_arg(l, k->slot[1]), n);                                         \
    return TERN_OK;                                                                                         \
  }
RUN_TINY(run_add, X_ADD)
RUN_TINY(run_sub, X_SUB)
RUN_TINY(run_mul, X_MUL)
RUN_TINY(run_div, X_DIV)

/* Any mixture of arguments, constants and parameters */
static tern_rc run_map(const tern_kernel *kernel, const tern_launch *l) {
  const fast_map *const k = (const fast_map *)kernel;
  const int64_t n = TERN_LIT(k->n, l->words);
  uint64_t cell[3] = {0};
  const char *in[3] = {NULL, NULL, NULL};
  for (uint32_t i = 0; i < k->n_in; i++) {
    in[i] = (const char *)&cell[i];
    if (k->kind[i] == TERN_V_IN)
      in[i] = cpu_arg(l, k->slot[i]);
    else if (k->kind[i] == TERN_V_CONST)
      cell[i] = k->imm[i];
    else
      cpu_word_store(&cell[i], k->dtype[i], l->words[k->slot[i]]);
  }
  for (uint32_t i = k->n_in; i < 3; i++) in[i] = in[0];
  char *const out = cpu_arg(l, k->out);
  if (n > MAP_GRAIN) return map_big(k, out, in[0], in[1], in[2], n);
  k->fn(out, in[0], in[1], in[2], n);
  return TERN_OK;
}

/* 1: contiguous, 0: one element, -1: neither (as far as is known now) */
static int form_of(const tern_value *v) {
  if (v->layout) return -1;
  if (v->kind == TERN_V_CONST || v->kind == TERN_V_PARAM) return 0;
  if ((v->kind != TERN_V_IN && v->kind != TERN_V_OUT) || v->rank != 1) return -1;
  if (v->shape[0] == 1 || v->stride[0] == 0) return 0;
  return v->stride[0] == 1 ? 1 : -1;
}

static tern_rc compile_map(const tern_region *r, tern_kernel **out) {
  const tern_node *const nd = r->nodes;
  const tern_value *const o = &r->values[nest_out(r, 0)];
  uint32_t splat = 0;
  if (o->kind != TERN_V_OUT || o->rank != 1 || (form_of(o) != 1 && o->shape[0] != 1)) return TERN_E_UNSUPPORTED;
  if (nd->n_in == 0 || nd->n_in > 3) return TERN_E_UNSUPPORTED;
  for (uint32_t i = 0; i < nd->n_in; i++) { /* in place is for operands of the result's item size */
    if (o->alias >= 0 && cpu_item_size(r->values[nest_in(r, 0, i)].dtype) != cpu_item_size(o->dtype))
      return TERN_E_UNSUPPORTED;
    const int form = form_of(&r->values[nest_in(r, 0, i)]);
    if (form < 0) return TERN_E_UNSUPPORTED;
    splat |= (uint32_t)(form == 0 && o->shape[0] != 1) << i;
  }
  const uint32_t in_dtype = r->values[nest_in(r, 0, nd->op == TERN_OP_WHERE)].dtype;
  const cpu_map_fn fn = cpu_map(nd->op, in_dtype, o->dtype, splat);
  if (!fn) return TERN_E_UNSUPPORTED; /* this mixture of splats: the general way */
  fast_map *const k = calloc(1, sizeof *k);
  if (!k) return cpu_error(TERN_E_OOM, "cpu: no memory for a kernel");
  k->fn = fn;
  k->stream = in_dtype == o->dtype && nd->op != TERN_OP_WHERE ? cpu_map_stream(nd->op, in_dtype, splat) : NULL;
  k->n = o->shape[0];
  k->out = o->slot;
  k->n_in = nd->n_in;
  k->item[3] = k->bytes = (uint32_t)cpu_item_size(o->dtype);
  bool all_args = true;
  for (uint32_t i = 0; i < nd->n_in; i++) {
    const tern_value *const v = &r->values[nest_in(r, 0, i)];
    k->kind[i] = v->kind;
    k->slot[i] = v->slot;
    k->dtype[i] = v->dtype;
    k->item[i] = splat >> i & 1 ? 0 : (uint32_t)cpu_item_size(v->dtype);
    k->bytes += k->item[i];
    if (v->kind == TERN_V_CONST) cpu_word_store(&k->imm[i], v->dtype, v->imm);
    all_args &= v->kind == TERN_V_IN;
  }
  k->base.run = !all_args ? run_map : nd->n_in == 1 ? run_map1 : nd->n_in == 2 ? run_map2 : run_map;
  if (k->base.run == run_map2 && in_dtype == TERN_F32 && splat == 0 && nd->op >= TERN_OP_ADD && nd->op <= TERN_OP_DIV)
    k->base.run = ((tern_rc(*const[])(const tern_kernel *, const tern_launch *)){run_add, run_sub, run_mul,
                                                                                 run_div})[nd->op - TERN_OP_ADD];
  *out = &k->base;
  return TERN_OK;
}

/* ---- one number out of a contiguous array ---- */

typedef struct fast_fold {
  tern_kernel base;
  cpu_reduce red;
  int64_t n; /* literal or word */
  uint32_t in, out, item;
} fast_fold;

typedef struct part { /* an accumulator on a cache line of its own */
  _Alignas(64) uint64_t v;
  int64_t i;
} part;

typedef struct fold_job {
  const fast_fold *k;
  const char *in;
  int64_t grain;
  part parts[FOLD_PIECES];
} fold_job;

static cpu_acc start(const fast_fold *k, part *p) {
  const cpu_acc acc = {&p->v, &p->i};
  p->i = INT64_MAX;
  cpu_word_store(&p->v, k->red.acc_dtype, k->red.identity);
  return acc;
}

static void fold_piece(void *ctx, int64_t lo, int64_t hi) {
  fold_job *const j = ctx;
  for (; lo < hi; lo += j->grain) { /* several pieces at once when there is one thread */
    const int64_t n = hi - lo < j->grain ? hi - lo : j->grain;
    j->k->red.row(start(j->k, &j->parts[lo / j->grain]), j->in + lo * j->k->item, n, lo);
  }
}

static void fold_big(const fast_fold *k, const char *in, char *out, int64_t n) {
  fold_job j;
  j.k = k;
  j.in = in;
  j.grain = (n + FOLD_PIECES - 1) / FOLD_PIECES;
  j.grain = (j.grain + 4095) / 4096 * 4096;
  if (j.grain < FOLD_GRAIN) j.grain = FOLD_GRAIN;
  cpu_parallel(n, j.grain, fold_piece, &j);
  const cpu_acc acc = {&j.parts[0].v, &j.parts[0].i};
  for (int64_t p = 1; p * j.grain < n; p++) k->red.merge(acc, (cpu_acc){&j.parts[p].v, &j.parts[p].i}, 1);
  cpu_reduce_finish(&k->red, acc, out, 1);
}

static tern_rc run_fold(const tern_kernel *kernel, const tern_launch *l) {
  const fast_fold *const k = (const fast_fold *)kernel;
  const int64_t n = TERN_LIT(k->n, l->words);
  const char *const in = cpu_arg(l, k->in);
  char *const out = cpu_arg(l, k->out);
  if (n > FOLD_GRAIN) {
    fold_big(k, in, out, n);
    return TERN_OK;
  }
  part p;
  const cpu_acc acc = start(k, &p);
  k->red.row(acc, in, n, 0);
  cpu_reduce_finish(&k->red, acc, out, 1);
  return TERN_OK;
}

static tern_rc compile_fold(const tern_region *r, tern_kernel **out) {
  const tern_value *const v = &r->values[nest_in(r, 0, 0)], *const o = &r->values[nest_out(r, 0)];
  cpu_reduce red;
  if (v->kind != TERN_V_IN || form_of(v) != 1 || o->kind != TERN_V_OUT || o->rank != 1 || o->layout)
    return TERN_E_UNSUPPORTED;
  if (nest_attr(r, 0, 0) != 1 || cpu_reduce_find(r->nodes[0].op, v->dtype, &red) != TERN_OK) return TERN_E_UNSUPPORTED;
  if (red.in_dtype != v->dtype) return TERN_E_UNSUPPORTED; /* halves are widened block by block: the general way */
  fast_fold *const k = calloc(1, sizeof *k);
  if (!k) return cpu_error(TERN_E_OOM, "cpu: no memory for a kernel");
  k->base.run = run_fold;
  k->red = red;
  k->n = v->shape[0];
  k->in = v->slot;
  k->out = o->slot;
  k->item = (uint32_t)cpu_item_size(v->dtype);
  *out = &k->base;
  return TERN_OK;
}

tern_rc x_fast_compile(const tern_region *r, tern_kernel **out) {
  if (r->n_nodes != 1 || r->nodes[0].n_out != 1) return TERN_E_UNSUPPORTED;
  const uint32_t op = r->nodes[0].op;
  const nest_prim *const p = nest_prim_of(op);
  if (!p || op == TERN_OP_RNG || op == TERN_OP_IOTA) return TERN_E_UNSUPPORTED;
  if (p->kind == TERN_K_MAP) return compile_map(r, out);
  return p->kind == TERN_K_REDUCE ? compile_fold(r, out) : TERN_E_UNSUPPORTED;
}
