/* A CONV, perhaps with MAPs, whose result a nest reads through sliding windows: a convolution and its pooling. Both are
   kernels of their own. Some items of the batch at a time go through the first into a piece of workspace and from there
   through the second, while they are in the cache; threads take such blocks side by side where there are enough of
   them. Between the two the channels lie last, which suits both, whatever order the region's sizes have. */
#include "../common/nest.h"
#include "dot_fuse.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
  BLOCK_BYTES = 512 << 10, /* of the convolution's result: part of a second-level cache */
  MOST_LANES = 128,
  /* our launch words, behind the region's */
  W_ITEMS = 0, /* of the batch in this block, as the convolution counts them */
  W_SPAN,      /* size of the nest's first dim in this block */
  W_RESULT,    /* strides of the result, by dim */
  W_VIEW = W_RESULT + 4,
  OUR_WORDS = W_VIEW + TERN_MAX_RANK
};

struct part {
  tern_region region;
  tern_kernel *kernel;
  uint64_t bytes;           /* of workspace, UINT64_MAX: ask */
  int64_t step[FUSE_ARGS];  /* of each argument: elements from one item of the batch to the next, maybe a word */
  uint32_t item[FUSE_ARGS]; /* bytes of an element; 0: not used */
};

struct window_kernel {
  tern_kernel base;
  struct part conv, nest;
  tern_value result, view; /* as the region has them */
  uint32_t n_words, n_args;
  uint32_t batch; /* the view's dim that should walk through the batch: a launch's numbers tell whether it does */
};

/* ---- the parts of the region ---- */

struct builder {
  const tern_region *r;
  uint32_t conv, view; /* node; value */
  uint32_t result, batch;
  bool first[FUSE_NODES]; /* nodes of the first part */
};

static bool find(struct builder *b) {
  const tern_region *const r = b->r;
  uint32_t convs = 0, views = 0;
  uint64_t reduced = 0;
  if (r->n_nodes < 2 || r->n_nodes > FUSE_NODES || r->n_args >= FUSE_ARGS || r->n_words > FUSE_WORDS - OUR_WORDS)
    return false;
  for (uint32_t i = 0; i < r->n_nodes; i++) {
    const nest_prim *const p = nest_prim_of(r->nodes[i].op);
    if (!p || r->nodes[i].n_in != p->n_in || r->nodes[i].n_out != 1 || nest_out(r, i) >= r->n_values) return false;
    for (uint32_t k = 0; k < p->n_in; k++)
      if (nest_in(r, i, k) >= r->n_values) return false;
    if (p->op == TERN_OP_CONV) {
      b->conv = i;
      convs++;
    } else if ((p->kind != TERN_K_MAP && p->kind != TERN_K_REDUCE) || p->op == TERN_OP_IOTA || p->op == TERN_OP_RNG) {
      return false; /* those count from the array's start */
    } else if (p->kind == TERN_K_REDUCE) {
      if (r->nodes[i].n_attr < 1) return false;
      reduced |= r->attrs[r->nodes[i].attr].u;
    }
  }
  for (uint32_t v = 0; v < r->n_values; v++) {
    const tern_value *const x = &r->values[v];
    if (x->kind != TERN_V_VIEW || x->slot >= r->n_values || r->values[x->slot].kind != TERN_V_TEMP) continue;
    b->view = v;
    b->result = x->slot;
    views++;
  }
  while (reduced >> b->batch & 1) b->batch++; /* the first dim that stays */
  return convs == 1 && views == 1 && r->values[b->result].rank == 4 && b->batch < r->values[b->view].rank;
}

/* Marks the nodes that the result needs; false: some value of theirs is used elsewhere too, or stored */
static bool divide(struct builder *b) {
  const tern_region *const r = b->r;
  for (uint32_t i = r->n_nodes; i-- > 0;) {
    b->first[i] = nest_out(r, i) == b->result;
    for (uint32_t j = i + 1; j < r->n_nodes && !b->first[i]; j++)
      for (uint32_t k = 0; k < r->nodes[j].n_in && b->first[j]; k++) b->first[i] |= nest_in(r, j, k) == nest_out(r, i);
  }
  for (uint32_t i = 0; i < r->n_nodes; i++) {
    if (!b->first[i]) continue;
    if (r->values[nest_out(r, i)].kind != TERN_V_TEMP ||
        (i != b->conv && nest_prim_of(r->nodes[i].op)->kind != TERN_K_MAP))
      return false;
    for (uint32_t j = 0; j < r->n_nodes; j++)
      for (uint32_t k = 0; k < r->nodes[j].n_in && !b->first[j]; k++)
        if (nest_in(r, j, k) == nest_out(r, i)) return false;
  }
  return b->first[b->conv];
}

struct batch {        /* the dim of a part's values that walks through the batch */
  uint32_t dim, word; /* what its size becomes */
  int64_t size;
  bool none; /* this value has none: filters */
};

static bool has_batch(const tern_value *v, struct batch f) {
  return !f.none && f.dim < v->rank && v->shape[f.dim] == f.size;
}

/* Value v of the region as the part has it. The batch's size becomes ours */
static bool take(const struct builder *b, struct part *p, tern_value *values, uint32_t v, struct batch f) {
  const tern_region *const r = b->r;
  const tern_value *const from = &r->values[v];
  tern_value *const to = &values[v];
  const tern_value *base = from;
  if (to->kind) return true;
  *to = *from;
  if (from->layout) return false;
  if (from->kind == TERN_V_SIZE)
    return !(from->imm.u >> f.dim & 1) && from->slot < r->n_values && take(b, p, values, from->slot, f);
  if (from->kind == TERN_V_VIEW) {
    if (from->slot >= r->n_values || r->values[from->slot].kind != TERN_V_IN) return false;
    base = &r->values[from->slot];
    values[from->slot] = *base;
  }
  if (has_batch(from, f) && f.size != 1) to->shape[f.dim] = TERN_SYM(r->n_words + f.word);
  if (base->kind != TERN_V_IN && base->kind != TERN_V_OUT) return true;
  if (base->slot >= r->n_args) return false;
  const int64_t step = has_batch(from, f) ? from->stride[f.dim] : 0;
  if (p->item[base->slot] && p->step[base->slot] != step) return false;
  p->item[base->slot] = (uint32_t)cpu_item_size(base->dtype);
  p->step[base->slot] = step;
  return true;
}

static void lay(tern_value *v, uint8_t kind, uint32_t slot, uint32_t first_word) {
  v->kind = kind;
  v->slot = slot;
  v->alias = -1;
  v->offset = 0;
  for (uint32_t d = 0; d < v->rank; d++) v->stride[d] = v->shape[d] == 1 ? 0 : TERN_SYM(first_word + d);
}

/* The region of a part, in memory from one malloc (its values). The arguments keep their numbers; the result is one
   more */
static bool build(const struct builder *b, struct part *p, bool first) {
  const tern_region *const r = b->r;
  const tern_value *const x = &r->values[first ? b->result : b->view];
  const uint32_t dim = first ? 0 : b->batch;
  const struct batch f = {.dim = dim, .size = x->shape[dim], .word = first ? W_ITEMS : W_SPAN};
  tern_value *const values = calloc(1, r->n_values * sizeof *values + r->n_nodes * sizeof(tern_node));
  if (!values) return false;
  tern_node *const nodes = (tern_node *)(void *)(values + r->n_values);
  p->region = *r;
  p->region.values = values;
  p->region.nodes = nodes;
  p->region.n_nodes = 0;
  p->region.n_args = r->n_args + 1;
  p->region.n_words = r->n_words + OUR_WORDS;
  p->region.hint = NULL;
  p->region.n_spans = 0;
  if (!first) {
    values[b->view] = *x;
    lay(&values[b->view], TERN_V_IN, r->n_args, r->n_words + W_VIEW);
    if (f.size != 1) values[b->view].shape[dim] = TERN_SYM(r->n_words + W_SPAN);
  }
  for (uint32_t i = 0; i < r->n_nodes; i++) {
    if (b->first[i] != first) continue;
    const tern_node *const n = &r->nodes[i];
    nodes[p->region.n_nodes++] = *n;
    for (uint32_t k = 0; k < n->n_in; k++) {
      struct batch of = f;
      of.none = i == b->conv && k == 1;
      if (!take(b, p, values, nest_in(r, i, k), of)) return false;
    }
    if (!take(b, p, values, nest_out(r, i), f)) return false;
  }
  for (uint32_t v = 0; v < r->n_values; v++)
    if (!values[v].kind) values[v] = (tern_value){.kind = TERN_V_CONST, .dtype = TERN_F32, .alias = -1};
  if (first) {
    lay(&values[b->result], TERN_V_OUT, r->n_args, r->n_words + W_RESULT);
    if (f.size != 1) values[b->result].shape[0] = TERN_SYM(r->n_words + W_ITEMS);
  }
  p->item[r->n_args] = (uint32_t)cpu_item_size(x->dtype);
  return true;
}

static void part_free(struct part *p) {
  free((void *)(uintptr_t)p->region.values);
  memset(p, 0, sizeof *p);
}

static tern_rc cut(const tern_region *r, struct window_kernel *k) {
  struct builder b = {.r = r};
  if (!find(&b) || !divide(&b)) return TERN_E_UNSUPPORTED;
  k->result = r->values[b.result];
  k->view = r->values[b.view];
  k->n_words = r->n_words;
  k->n_args = r->n_args;
  k->batch = b.batch;
  if (build(&b, &k->conv, true) && build(&b, &k->nest, false)) return TERN_OK;
  const bool memory = k->conv.region.values && k->nest.region.values;
  part_free(&k->conv);
  part_free(&k->nest);
  return memory ? TERN_E_UNSUPPORTED : TERN_E_OOM;
}

static bool parts_known(const struct window_kernel *k) {
  const tern_region *const r = &k->conv.region;
  return (r->n_nodes == 1 ? cpu_conv_supports(r) : cpu_fuse_supports(r)) == TERN_OK &&
         cpu_nest_supports(&k->nest.region) == TERN_OK;
}

tern_rc cpu_window_supports(const tern_region *r) {
  struct window_kernel k = {.n_words = 0};
  tern_rc rc = cut(r, &k);
  if (rc == TERN_OK && !parts_known(&k)) rc = TERN_E_UNSUPPORTED;
  part_free(&k.conv);
  part_free(&k.nest);
  return rc;
}

/* ---- numbers ---- */

/* The whole launch, and its blocks */
struct plan {
  int64_t items, span; /* of the batch; of the nest's dim for it */
  int64_t block;       /* items of a block */
  int64_t bytes;       /* of a block's result */
  int64_t stride[4], view[TERN_MAX_RANK], offset;
};

struct axes {
  int64_t size[4], dense[4], stride[4];
};

/* A stride over the dense result, along n elements, as one over the result as it lies here. False: it does not stay on
   one dim */
static bool translate(const struct axes *x, int64_t stride, int64_t n, int64_t *reach, int64_t *to) {
  int d = 0;
  *to = 0;
  if (n == 1 || stride == 0) return true;
  while (d < 4 && (x->size[d] == 1 || x->dense[d] > stride || stride % x->dense[d])) d++;
  if (d == 4) return false;
  reach[d] += stride / x->dense[d] * (n - 1);
  *to = stride / x->dense[d] * x->stride[d];
  return reach[d] < x->size[d];
}

static bool translate_all(const struct window_kernel *k, const tern_word *words, const struct axes *x, struct plan *p) {
  int64_t reach[4], offset = TERN_LIT(k->view.offset, words);
  p->offset = 0;
  if (offset < 0) return false;
  for (int d = 0; d < 4; d++) {
    reach[d] = offset / x->dense[d];
    offset %= x->dense[d];
    p->offset += reach[d] * x->stride[d];
  }
  for (uint32_t d = 0; d < k->view.rank; d++)
    if (!translate(x, TERN_LIT(k->view.stride[d], words), TERN_LIT(k->view.shape[d], words), reach, &p->view[d]))
      return false;
  return true;
}

/* False: sizes that no memory can have */
static bool make_plan(const struct window_kernel *k, const tern_word *words, struct plan *p) {
  struct axes x;
  int64_t all = 1;
  bool over = false;
  for (int d = 4; d-- > 0;) {
    x.size[d] = TERN_LIT(k->result.shape[d], words);
    x.dense[d] = all;
    over |= __builtin_mul_overflow(all, x.size[d], &all);
  }
  if (over || all > INT64_MAX / 16) return false;
  x.stride[1] = 1;
  x.stride[3] = x.size[1];
  x.stride[2] = x.stride[3] * x.size[3];
  x.stride[0] = x.stride[2] * x.size[2];
  const int64_t item = (int64_t)cpu_item_size(k->result.dtype), each = x.dense[0] * item;
  const int64_t size = TERN_LIT(k->view.shape[k->batch], words), step = TERN_LIT(k->view.stride[k->batch], words);
  p->items = p->block = x.size[0];
  p->span = size;
  const bool last = translate_all(k, words, &x, p);
  memcpy(p->stride, last ? x.stride : x.dense, sizeof p->stride);
  if (!last) { /* the result lies in the order of its sizes, and the view is what it says */
    p->offset = TERN_LIT(k->view.offset, words);
    for (uint32_t d = 0; d < k->view.rank; d++)
      p->view[d] = TERN_LIT(k->view.shape[d], words) == 1 ? 0 : TERN_LIT(k->view.stride[d], words);
  } else if (size == x.size[0] && (step == x.dense[0] || size == 1) && p->offset < x.dense[0]) {
    p->block = each > BLOCK_BYTES / 2 ? 1 : BLOCK_BYTES / each; /* that dim does walk through the batch */
    if (p->block > p->items) p->block = p->items;
    const int64_t threads = cpu_threads(), blocks = (p->items - 1) / p->block + 1;
    const int64_t even = blocks > 1 ? (blocks + threads - 1) / threads * threads : 1; /* as much for each thread */
    p->block = even < p->items ? (p->items + even - 1) / even : blocks > 1 ? 1 : p->items;
  }
  p->bytes = each * p->block;
  return true;
}

static void set_words(const struct window_kernel *k, const struct plan *p, const tern_word *words, int64_t items,
                      tern_word *to) {
  memcpy(to, words, k->n_words * sizeof *words);
  tern_word *const own = to + k->n_words;
  own[W_ITEMS].i = items;
  own[W_SPAN].i = p->block == p->items ? p->span : items;
  for (int d = 0; d < 4; d++) own[W_RESULT + d].i = p->stride[d];
  for (uint32_t d = 0; d < TERN_MAX_RANK; d++) own[W_VIEW + d].i = d < k->view.rank ? p->view[d] : 0;
}

/* Blocks side by side, where there are at least as many as threads; else one at a time, each with all threads */
static int64_t lanes(const struct plan *p) {
  const int64_t blocks = (p->items - 1) / p->block + 1,
                threads = cpu_threads() < MOST_LANES ? cpu_threads() : MOST_LANES;
  return blocks > 1 && blocks >= threads ? threads : 1;
}

struct bytes {
  uint64_t result, conv, nest, lane;
};

static void bytes_of(const struct window_kernel *k, const struct plan *p, const tern_word *words, struct bytes *b) {
  tern_word w[FUSE_WORDS];
  b->result = cpu_round64((uint64_t)p->bytes);
  b->conv = b->nest = 0;
  for (int last = 0; last < 2; last++) { /* the last block may be smaller, and smaller ones may need more */
    set_words(k, p, words, last ? (p->items - 1) % p->block + 1 : p->block, w);
    const uint64_t first = cpu_kernel_bytes(k->conv.kernel, k->conv.bytes, w),
                   second = cpu_kernel_bytes(k->nest.kernel, k->nest.bytes, w);
    if (first > b->conv) b->conv = first;
    if (second > b->nest) b->nest = second;
  }
  b->lane = b->result + b->conv + b->nest;
}

static uint64_t window_workspace(const tern_kernel *kernel, const tern_word *words) {
  const struct window_kernel *const k = (const struct window_kernel *)(const void *)kernel;
  struct plan p;
  struct bytes b;
  if (!make_plan(k, words, &p)) return UINT64_MAX - 1;
  bytes_of(k, &p, words, &b);
  return b.conv > UINT64_MAX / 1024 || b.nest > UINT64_MAX / 1024 ? UINT64_MAX - 1 : b.lane * (uint64_t)lanes(&p);
}

/* ---- running ---- */

struct run {
  const struct window_kernel *k;
  const tern_launch *l;
  const struct plan *plan;
  struct bytes bytes;
  int64_t lanes;
  atomic_int rc;
  atomic_bool taken[MOST_LANES];
};

static tern_rc run_part(const struct run *run, const struct part *p, const tern_word *words, int64_t at,
                        uint64_t result, uint64_t workspace) {
  const struct window_kernel *const k = run->k;
  tern_arg args[FUSE_ARGS];
  for (uint32_t i = 0; i < k->n_args; i++) {
    args[i] = run->l->args[i];
    if (p->item[i]) args[i].offset += (uint64_t)(at * TERN_LIT(p->step[i], words) * (int64_t)p->item[i]);
  }
  args[k->n_args] = run->l->workspace;
  args[k->n_args].offset += result;
  tern_launch part = {.args = args, .words = words, .n_args = k->n_args + 1, .n_words = k->n_words + OUR_WORDS};
  part.workspace = run->l->workspace;
  part.workspace.offset += workspace;
  return p->kernel->run(p->kernel, &part);
}

static void run_block(struct run *run, int64_t block, int64_t lane) {
  const struct window_kernel *const k = run->k;
  const struct plan *const p = run->plan;
  const struct bytes *const b = &run->bytes;
  const int64_t at = block * p->block, items = p->items - at < p->block ? p->items - at : p->block;
  const uint64_t from = (uint64_t)lane * b->lane;
  tern_word words[FUSE_WORDS];
  set_words(k, p, run->l->words, items, words);
  tern_rc rc = run_part(run, &k->conv, words, at, from, from + b->result);
  if (rc == TERN_OK)
    rc = run_part(run, &k->nest, words, at, from + (uint64_t)p->offset * k->nest.item[k->n_args],
                  from + b->result + b->conv);
  if (rc != TERN_OK) atomic_store(&run->rc, rc);
}

static void run_blocks(void *ctx, int64_t lo, int64_t hi) {
  struct run *const run = ctx;
  int64_t lane = 0;
  while (atomic_exchange_explicit(&run->taken[lane], true, memory_order_acquire)) lane = (lane + 1) % run->lanes;
  for (int64_t block = lo; block < hi; block++) run_block(run, block, lane);
  atomic_store_explicit(&run->taken[lane], false, memory_order_release);
}

static tern_rc window_run(const tern_kernel *kernel, const tern_launch *l) {
  struct plan p;
  struct run run = {.k = (const struct window_kernel *)(const void *)kernel, .l = l, .plan = &p};
  if (!make_plan(run.k, l->words, &p) || !l->workspace.mem)
    return cpu_error(TERN_E_ARG, "convolution and pooling: this launch needs workspace and has none; ask workspace() "
                                 "with its words");
  bytes_of(run.k, &p, l->words, &run.bytes);
  run.lanes = lanes(&p);
  const int64_t blocks = (p.items - 1) / p.block + 1;
  if (run.lanes > 1)
    cpu_parallel(blocks, 1, run_blocks, &run);
  else
    run_blocks(&run, 0, blocks);
  const tern_rc rc = (tern_rc)atomic_load(&run.rc);
  return rc == TERN_OK ? rc : cpu_error(rc, "convolution and pooling: a block of the batch failed (out of memory?)");
}

/* ---- compiling ---- */

static void window_destroy(tern_kernel *kernel) {
  struct window_kernel *const k = (struct window_kernel *)(void *)kernel;
  struct part *const part[2] = {&k->conv, &k->nest};
  for (int i = 0; i < 2; i++) {
    cpu_kernel_free(part[i]->kernel);
    part_free(part[i]);
  }
  free(k);
}

static tern_rc compile_parts(struct window_kernel *k) {
  tern_kernel_info first = {.struct_size = sizeof first}, second = first;
  const tern_region *const r = &k->conv.region;
  tern_rc rc =
      r->n_nodes == 1 ? cpu_conv_compile(r, &k->conv.kernel, &first) : cpu_fuse_compile(r, &k->conv.kernel, &first);
  if (rc == TERN_OK) rc = cpu_nest_compile(&k->nest.region, &k->nest.kernel, &second);
  k->conv.bytes = first.workspace;
  k->nest.bytes = second.workspace;
  return rc;
}

tern_rc cpu_window_compile(const tern_region *r, tern_kernel **kernel, tern_kernel_info *info) {
  struct window_kernel *const k = calloc(1, sizeof *k);
  if (!k) return cpu_error(TERN_E_OOM, "convolution and pooling: no memory for a kernel of %zu bytes", sizeof *k);
  tern_rc rc = cut(r, k);
  if (rc != TERN_OK) {
    free(k);
    return rc;
  }
  k->base.run = window_run;
  k->base.destroy = window_destroy;
  k->base.workspace = window_workspace;
  rc = parts_known(k) ? compile_parts(k) : TERN_E_UNSUPPORTED;
  if (rc != TERN_OK) {
    window_destroy(&k->base);
    return rc;
  }
  info->workspace = UINT64_MAX;
  *kernel = &k->base;
  return TERN_OK;
}
