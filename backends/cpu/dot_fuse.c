/* Runs a DOT or CONV with its epilogue: the product of a block of the result, then the epilogue over that block while
   it is in the cache. Small results are one block; of large ones, whole items of the batch or many rows are taken at a
   time. Both parts are kernels of their own, each parallel in itself. */
#include "dot_fuse.h"
#include "dot_static.h"

#include <stdlib.h>
#include <string.h>

enum {
  BLOCK_FROM = 4 << 20, /* bytes of a result that is cut into blocks */
  BLOCK_BYTES = 1 << 20,
  BLOCK_ROWS = 512 /* of one product: each block packs its right operand anew */
};

struct fuse_kernel {
  tern_kernel base;
  tern_kernel *main, *map;
  uint64_t main_bytes, map_bytes; /* of workspace, UINT64_MAX: ask */
  struct fuse_split *s;
  struct fuse_direct *direct;
};

struct blocks {
  int64_t size[TERN_MAX_RANK], step[TERN_MAX_RANK];
};

/* A function of the sizes only */
static void cut(const struct fuse_split *s, const tern_word *words, struct blocks *b) {
  const int64_t item = (int64_t)cpu_item_size(s->dtype);
  int64_t bytes = item;
  for (uint32_t d = 0; d < s->rank; d++) {
    b->size[d] = b->step[d] = TERN_LIT(s->size[d], words);
    bytes *= b->size[d];
  }
  if (bytes < BLOCK_FROM || !s->block_dims) return;
  int64_t inner = item;
  for (uint32_t d = s->rank; d-- > 0; inner *= b->size[d]) {
    if (!(s->block_dims >> d & 1) || inner * b->size[d] <= BLOCK_BYTES) continue;
    const bool rows = s->op == TERN_OP_DOT && d + 2 == s->rank;
    int64_t step = BLOCK_BYTES / inner > 1 ? BLOCK_BYTES / inner : 1;
    if (rows && step < BLOCK_ROWS) step = BLOCK_ROWS;
    if (step >= b->size[d]) continue;
    b->step[d] = step;
    for (uint32_t e = 0; e < d; e++) b->step[e] = 1;
    return;
  }
}

static void set_words(const struct fuse_split *s, const tern_word *words, const int64_t *block, tern_word *to) {
  memcpy(to, words, s->n_words * sizeof *words);
  int64_t stride = 1;
  for (uint32_t d = s->rank; d-- > 0;) {
    to[s->n_words + d].i = block[d];
    to[s->n_words + s->rank + d].i = stride;
    stride *= block[d];
  }
}

static uint64_t result_bytes(const struct fuse_split *s, const int64_t *block) {
  if (s->in_workspace && s->layout) return cpu_round64(s->packed_bytes);
  int64_t bytes = (int64_t)cpu_item_size(s->dtype);
  bool over = false;
  for (uint32_t d = 0; d < s->rank; d++) over |= __builtin_mul_overflow(bytes, block[d], &bytes);
  return !s->in_workspace ? 0 : over ? UINT64_MAX / 4 : cpu_round64((uint64_t)bytes);
}

/* The product's and the epilogue's, for one block */
static void part_bytes(const struct fuse_kernel *k, const tern_word *words, const int64_t *block, uint64_t *main,
                       uint64_t *map) {
  tern_word w[FUSE_WORDS];
  set_words(k->s, words, block, w);
  const uint64_t a = cpu_kernel_bytes(k->main, k->main_bytes, w), b = cpu_kernel_bytes(k->map, k->map_bytes, w);
  if (a > *main) *main = a;
  if (b > *map) *map = b;
}

/* The last block may be smaller, and smaller products may need more */
static void all_bytes(const struct fuse_kernel *k, const tern_word *words, const struct blocks *b, uint64_t *main,
                      uint64_t *map) {
  int64_t last[TERN_MAX_RANK];
  *main = *map = 0;
  if (k->main_bytes != UINT64_MAX && k->map_bytes != UINT64_MAX) {
    *main = cpu_round64(k->main_bytes), *map = cpu_round64(k->map_bytes);
    return;
  }
  for (uint32_t d = 0; d < k->s->rank; d++) last[d] = (b->size[d] - 1) % b->step[d] + 1;
  part_bytes(k, words, b->step, main, map);
  part_bytes(k, words, last, main, map);
}

static uint64_t fuse_workspace(const tern_kernel *kernel, const tern_word *words) {
  const struct fuse_kernel *const k = (const struct fuse_kernel *)(const void *)kernel;
  struct blocks b;
  uint64_t main, map;
  cut(k->s, words, &b);
  all_bytes(k, words, &b, &main, &map);
  const uint64_t own = result_bytes(k->s, b.step);
  return main > UINT64_MAX / 4 || map > UINT64_MAX / 4 || own >= UINT64_MAX / 4 ? UINT64_MAX - 1 : own + main + map;
}

/* ---- running ---- */

static void place(const struct fuse_split *s, const struct fuse_part *p, const tern_launch *l, const int64_t *at,
                  tern_arg *args) {
  for (uint32_t i = 0; i < p->region.n_args; i++) {
    const struct fuse_mem *const m = &p->mem[i];
    if (m->slot == FUSE_NONE) {
      args[i] = l->workspace;
      continue;
    }
    int64_t element = TERN_LIT(m->offset, l->words);
    for (uint32_t d = 0; d < s->rank; d++)
      if (at[d]) element += at[d] * TERN_LIT(m->stride[d], l->words);
    args[i].mem = l->args[m->slot].mem;
    args[i].offset = (uint64_t)((int64_t)l->args[m->slot].offset + element * m->item);
  }
}

static tern_rc run_block(const struct fuse_kernel *k, const tern_launch *l, const int64_t *at, const int64_t *block,
                         const tern_arg *main_ws, const tern_arg *map_ws) {
  tern_word words[FUSE_WORDS];
  tern_arg args[FUSE_ARGS];
  const struct fuse_split *const s = k->s;
  set_words(s, l->words, block, words);
  tern_launch part = {.args = args, .words = words, .n_words = s->n_words + 2 * s->rank};
  part.n_args = s->main.region.n_args;
  part.workspace = *main_ws;
  place(s, &s->main, l, at, args);
  const tern_rc rc = k->main->run(k->main, &part);
  if (rc != TERN_OK || !k->map) return rc;
  part.n_args = s->map.region.n_args;
  part.workspace = *map_ws;
  place(s, &s->map, l, at, args);
  return k->map->run(k->map, &part);
}

static tern_rc fuse_run(const tern_kernel *kernel, const tern_launch *l) {
  const struct fuse_kernel *const k = (const struct fuse_kernel *)(const void *)kernel;
  if (k->direct && fuse_direct_run(k->direct, l)) return TERN_OK;
  const struct fuse_split *const s = k->s;
  struct blocks b;
  uint64_t main_bytes, map_bytes;
  int64_t at[TERN_MAX_RANK] = {0}, block[TERN_MAX_RANK];
  cut(s, l->words, &b);
  all_bytes(k, l->words, &b, &main_bytes, &map_bytes);
  const uint64_t own = result_bytes(s, b.step);
  if (own + main_bytes + map_bytes && !l->workspace.mem)
    return cpu_error(TERN_E_ARG, "fused product: this launch needs workspace and has none; ask workspace() with its "
                                 "words");
  tern_arg main_ws = l->workspace, map_ws = l->workspace;
  main_ws.offset += own;
  map_ws.offset += own + main_bytes;
  for (;;) {
    for (uint32_t d = 0; d < s->rank; d++) block[d] = b.size[d] - at[d] < b.step[d] ? b.size[d] - at[d] : b.step[d];
    const tern_rc rc = run_block(k, l, at, block, &main_ws, &map_ws);
    if (rc != TERN_OK) return rc;
    uint32_t d = s->rank;
    for (; d > 0; d--) {
      at[d - 1] += b.step[d - 1];
      if (at[d - 1] < b.size[d - 1]) break;
      at[d - 1] = 0;
    }
    if (d == 0) return TERN_OK;
  }
}

/* ---- compiling ---- */

static void fuse_destroy(tern_kernel *kernel) {
  struct fuse_kernel *const k = (struct fuse_kernel *)(void *)kernel;
  cpu_kernel_free(k->main);
  cpu_kernel_free(k->map);
  fuse_direct_free(k->direct);
  fuse_split_free(k->s);
  free(k);
}

static tern_rc compile_product(const struct fuse_split *s, tern_kernel **k, tern_kernel_info *info) {
  const tern_region *const r = &s->main.region;
  if (s->fixed) return cpu_static_product(r, s->bias, k, info);
  return s->op == TERN_OP_DOT ? cpu_dot_compile(r, k, info) : cpu_conv_compile(r, k, info);
}

/* What oneDNN makes of packed arrays shows when the product is compiled */
static bool parts_known(const struct fuse_split *s) {
  if (s->map.region.n_nodes && cpu_nest_supports(&s->map.region) != TERN_OK) return false;
  if (!s->fixed)
    return (s->op == TERN_OP_DOT ? cpu_dot_supports(&s->main.region) : cpu_conv_supports(&s->main.region)) == TERN_OK;
  tern_kernel *k = NULL;
  tern_kernel_info info = {.struct_size = sizeof info};
  if (compile_product(s, &k, &info) != TERN_OK) return false;
  cpu_kernel_free(k);
  return true;
}

tern_rc cpu_fuse_supports(const tern_region *r) {
  struct fuse_split *s;
  const tern_rc rc = fuse_split_build(r, &s);
  if (rc != TERN_OK) return rc;
  const bool known = parts_known(s);
  fuse_split_free(s);
  return known ? TERN_OK : TERN_E_UNSUPPORTED;
}

static tern_rc compile_parts(struct fuse_kernel *k) {
  tern_kernel_info main = {.struct_size = sizeof main}, map = main;
  tern_rc rc = compile_product(k->s, &k->main, &main);
  if (rc == TERN_OK && k->s->map.region.n_nodes) rc = cpu_nest_compile(&k->s->map.region, &k->map, &map);
  k->main_bytes = main.workspace;
  k->map_bytes = map.workspace;
  return rc;
}

tern_rc cpu_fuse_compile(const tern_region *r, tern_kernel **kernel, tern_kernel_info *info) {
  struct fuse_split *s;
  tern_rc rc = fuse_split_build(r, &s);
  if (rc != TERN_OK) return rc;
  struct fuse_kernel *const k = calloc(1, sizeof *k);
  if (!k) {
    fuse_split_free(s);
    return cpu_error(TERN_E_OOM, "fused product: no memory for a kernel of %zu bytes", sizeof *k);
  }
  k->s = s;
  k->base.run = fuse_run;
  k->base.destroy = fuse_destroy;
  k->base.workspace = fuse_workspace;
  rc = parts_known(s) ? compile_parts(k) : TERN_E_UNSUPPORTED;
  if (rc != TERN_OK) {
    fuse_destroy(&k->base);
    return rc;
  }
  if (!s->fixed) k->direct = fuse_direct_new(s);
  info->workspace = s->in_workspace || k->main_bytes || k->map_bytes ? UINT64_MAX : 0;
  *kernel = &k->base;
  return TERN_OK;
}
