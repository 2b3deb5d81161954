/* SORT and ARGSORT along the last dim. Items become unsigned keys of the same order and go through a radix sort. For
   ARGSORT -0 and 0 share a key and so do all NaNs; SORT uses keys that can be turned back, and afterwards puts zeros
   and NaNs into their first order, which is what a stable sort owes them. Rows in parallel, at most SORT_PIECES at a
   time, each with its scratch. */
#include "index.h"

#include <stdlib.h>
#include <string.h>

enum { SORT_PIECES = 16, SORT_STACK = 256 /* longest row whose scratch is on the stack */ };

struct sort_kernel {
  tern_kernel base;
  struct index_array in, out;
  bool positions, descending;
};

struct sort {
  uint32_t dtype;
  bool positions, descending;
  int width;                 /* bits of a key */
  uint64_t mask;             /* those bits */
  int64_t n, rows, pieces;   /* items in a row */
  int64_t in_step, out_step; /* bytes */
  uint64_t scratch_size;
  char *x, *y, *scratch;
  struct index_array in, out;
};

static bool sort_is_float(uint32_t dtype) { return dtype >= TERN_F16 && dtype <= TERN_F64; }

/* Magnitude bits above which a float is a NaN */
static uint64_t infinity(uint32_t dtype) {
  return dtype == TERN_F16 ? 0x7C00 : dtype == TERN_BF16 ? 0x7F80 : dtype == TERN_F32 ? 0x7F800000 : 0x7FF0000000000000;
}

static inline uint64_t raw(uint32_t dtype, const char *p) {
  switch (cpu_item_size(dtype)) {
  case 1: return *(const uint8_t *)p;
  case 2: return *(const uint16_t *)(const void *)p;
  case 4: return *(const uint32_t *)(const void *)p;
  default: return *(const uint64_t *)(const void *)p;
  }
}

/* Every NaN has the highest key. merge: -0 counts as 0; without it -0 lies just below. *special becomes true if there
   is a NaN or a -0 */
static inline uint64_t sort_key(uint32_t dtype, const char *p, bool merge, bool *special) {
  const uint64_t x = raw(dtype, p), top = (uint64_t)1 << (cpu_item_size(dtype) * 8 - 1);
  if (!sort_is_float(dtype)) return dtype >= TERN_I8 && dtype <= TERN_I64 ? x ^ top : x;
  const uint64_t mag = x & (top - 1);
  if (mag > infinity(dtype)) {
    *special = true;
    return top | (top - 1); /* SORT restores the very NaN later */
  }
  if (mag == 0) {
    *special |= x != 0;
    return merge ? top : x ? top - 1 : top;
  }
  return x & top ? top - 1 - mag : top | mag;
}

/* The item of a key that was made without merge */
static inline void sort_item(uint32_t dtype, char *p, uint64_t key) {
  const uint64_t top = (uint64_t)1 << (cpu_item_size(dtype) * 8 - 1);
  uint64_t x = key;
  if (sort_is_float(dtype))
    x = key & top ? key & (top - 1) : top | (top - 1 - key);
  else if (dtype >= TERN_I8 && dtype <= TERN_I64)
    x = key ^ top;
  switch (cpu_item_size(dtype)) {
  case 1: *(uint8_t *)p = (uint8_t)x; break;
  case 2: *(uint16_t *)(void *)p = (uint16_t)x; break;
  case 4: *(uint32_t *)(void *)p = (uint32_t)x; break;
  default: *(uint64_t *)(void *)p = x;
  }
}

/* y is x sorted, but for the order among zeros and the identity of NaNs: take those from x, in its order */
static void sort_restore(const struct sort *s, const char *x, char *y) {
  const uint64_t top = s->mask / 2 + 1, inf = infinity(s->dtype);
  const size_t size = cpu_item_size(s->dtype);
  int64_t zero = -1, nan = -1; /* first place of each in y */
  for (int64_t i = 0; i < s->n && (zero < 0 || nan < 0); i++) {
    const uint64_t mag = raw(s->dtype, y + i * s->out_step) & (top - 1);
    if (zero < 0 && mag == 0) zero = i;
    if (nan < 0 && mag > inf) nan = i;
  }
  for (int64_t i = 0; i < s->n; i++) {
    const char *const p = x + i * s->in_step;
    const uint64_t mag = raw(s->dtype, p) & (top - 1);
    if (mag == 0)
      memcpy(y + zero++ * s->out_step, p, size);
    else if (mag > inf)
      memcpy(y + nan++ * s->out_step, p, size);
  }
}

#define KEY uint32_t
#define POS uint32_t
#define NAME(x) x##_32_32
#include "sort_radix.h"
#define KEY uint64_t
#define POS uint32_t
#define NAME(x) x##_64_32
#include "sort_radix.h"
#define KEY uint64_t
#define POS uint64_t
#define NAME(x) x##_64_64
#include "sort_radix.h"

static void sort_row(const struct sort *s, const char *x, char *y, char *scratch) {
  if (s->n > UINT32_MAX)
    row_64_64(s, x, y, scratch);
  else if (s->width <= 32)
    row_32_32(s, x, y, scratch);
  else
    row_64_32(s, x, y, scratch);
}

/* Scratch of one row in bytes, rounded up to cache lines; sizes as sort_row chooses */
static uint64_t scratch_bytes(int64_t n, int width, bool positions) {
  const uint64_t key = n > UINT32_MAX || width > 32 ? 8 : 4, pos = !positions ? 0 : n > UINT32_MAX ? 8 : 4;
  return ((uint64_t)n * 2 * (key + pos) + 8 + 63) / 64 * 64;
}

static void sort_piece(void *ctx, int64_t lo, int64_t hi) {
  const struct sort *const s = ctx;
  _Alignas(64) char small[SORT_STACK * 24 + 64];
  for (int64_t p = lo; p < hi; p++) {
    char *const scratch = s->scratch ? s->scratch + (uint64_t)p * s->scratch_size : small;
    for (int64_t r = s->rows * p / s->pieces; r < s->rows * (p + 1) / s->pieces; r++) {
      int64_t left = r, x = 0, y = 0;
      for (int d = s->in.rank - 2; d >= 0; d--) {
        x += left % s->in.shape[d] * s->in.stride[d];
        y += left % s->in.shape[d] * s->out.stride[d];
        left /= s->in.shape[d];
      }
      sort_row(s, s->x + x * (int64_t)cpu_item_size(s->in.dtype), s->y + y * (int64_t)cpu_item_size(s->out.dtype),
               scratch);
    }
  }
}

/* All but the addresses */
static void sort_read(const struct sort_kernel *k, const tern_word *words, const tern_launch *l, struct sort *s) {
  s->x = index_array_resolve(&k->in, words, l, &s->in);
  s->y = index_array_resolve(&k->out, words, l, &s->out);
  memcpy(s->in.shape, s->out.shape, sizeof s->in.shape);
  s->dtype = s->in.dtype;
  s->positions = k->positions, s->descending = k->descending;
  s->width = (int)cpu_item_size(s->dtype) * 8;
  s->mask = UINT64_MAX >> (64 - s->width);
  s->n = s->out.shape[s->out.rank - 1];
  s->rows = 1;
  for (int d = 0; d < s->out.rank - 1; d++) s->rows *= s->out.shape[d];
  s->in_step = s->in.stride[s->in.rank - 1] * (int64_t)cpu_item_size(s->in.dtype);
  s->out_step = s->out.stride[s->out.rank - 1] * (int64_t)cpu_item_size(s->out.dtype);
  s->pieces = s->rows < SORT_PIECES ? s->rows : SORT_PIECES;
  if (s->rows > SORT_PIECES && s->n <= SORT_STACK)
    s->pieces = s->rows * s->n / 4096 + 1 < s->rows ? s->rows * s->n / 4096 + 1 : s->rows;
  if (s->rows * s->n < 2048) s->pieces = 1;
  s->scratch_size = s->n <= SORT_STACK ? 0 : scratch_bytes(s->n, s->width, s->positions);
}

static uint64_t sort_workspace(const tern_kernel *kernel, const tern_word *words) {
  struct sort s;
  sort_read((const struct sort_kernel *)(const void *)kernel, words, NULL, &s);
  return s.scratch_size * (uint64_t)s.pieces;
}

static tern_rc sort_run(const tern_kernel *kernel, const tern_launch *l) {
  struct sort s;
  sort_read((const struct sort_kernel *)(const void *)kernel, l->words, l, &s);
  s.scratch = NULL;
  if (s.scratch_size) {
    if (!l->workspace.mem)
      return cpu_error(TERN_E_ARG, "sort: this launch needs workspace and has none; ask workspace() with its words");
    s.scratch = (char *)l->workspace.mem + l->workspace.offset;
  }
  cpu_parallel(s.pieces, 1, sort_piece, &s);
  return TERN_OK;
}

static bool sort_arrays(const tern_region *r, struct index_array *in, struct index_array *out) {
  const tern_node *const n = &r->nodes[0];
  if (n->n_in != 1 || n->n_out != 1) return false;
  if (!index_array_read(r, r->edges[n->in], false, in) || !index_array_read(r, r->edges[n->out], true, out))
    return false;
  if (in->rank < 1 || in->rank != out->rank || cpu_item_size(in->dtype) == 0) return false;
  return out->dtype == (n->op == TERN_OP_ARGSORT ? (uint32_t)TERN_I64 : in->dtype);
}

tern_rc sort_supports(const tern_region *r) {
  struct index_array in, out;
  return sort_arrays(r, &in, &out) ? TERN_OK : TERN_E_UNSUPPORTED;
}

tern_rc sort_compile(const tern_region *r, tern_kernel **kernel, tern_kernel_info *info) {
  const tern_node *const n = &r->nodes[0];
  struct sort_kernel *const k = calloc(1, sizeof *k);
  if (!k) return cpu_error(TERN_E_OOM, "sort: no memory for a kernel of %zu bytes", sizeof *k);
  k->base.run = sort_run;
  k->base.workspace = sort_workspace;
  sort_arrays(r, &k->in, &k->out);
  k->positions = n->op == TERN_OP_ARGSORT;
  k->descending = n->n_attr > 0 && r->attrs[n->attr].i == 1;
  info->workspace = UINT64_MAX;
  *kernel = &k->base;
  return TERN_OK;
}
