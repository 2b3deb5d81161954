/* SCATTER: base, then updates into the rows that an index names, in the order of the index. The output is cut into
   ranges of its own rows and columns; whoever has a range walks the whole index and takes what falls into it, so no
   element is written by two threads and the result is the same however many there are. */
#include "index.h"

#include <stdlib.h>
#include <string.h>

enum { ADD, SET, MAX, MIN, MODES };

/* to[i] = combined(to[i], from[i]) with strides in bytes */
typedef void (*strided_fn)(char *to, int64_t to_i, const char *from, int64_t from_i, int64_t n);

struct scatter_kernel {
  tern_kernel base_kernel;
  struct index_array base, index, src, out;
  bool filled; /* base is one value */
  tern_value fill;
  cpu_map_fn dense;   /* contiguous columns */
  strided_fn strided; /* NULL (16-bit floats): dense one by one */
  uint32_t mode;
};

enum {
  PIECE = 16384,
  SHORT = 8
}; /* elements worth a piece of work; columns below which a call costs more than it saves */
struct scatter {
  const struct scatter_kernel *k;
  const char *base, *index, *src;
  char *out;
  bool wide, in_place;
  _Alignas(8) char value[8]; /* of a filled base */
  int64_t size, o, a, j, i;
  int64_t base_o, base_a, base_i, index_j, src_o, src_j, src_i, out_o, out_a, out_i; /* strides in bytes */
  int64_t parts_a, parts_i;
};

static int64_t read_index(const struct scatter *s, int64_t j) {
  const char *const p = s->index + j * s->index_j;
  return s->wide ? *(const int64_t *)(const void *)p : *(const int32_t *)(const void *)p;
}

/* ---- columns of one row ---- */

#define STRIDED(name, T, expression)                                                      \
  static void name(char *to, int64_t to_i, const char *from, int64_t from_i, int64_t n) { \
    for (int64_t i = 0; i < n; i++) {                                                     \
      T *const at = (T *)(void *)(to + i * to_i);                                         \
      const T x = *at, y = *(const T *)(const void *)(from + i * from_i);                 \
      (void)x;                                                                            \
      *at = (T)(expression);                                                              \
    }                                                                                     \
  }
#define NUMBERS(name, T, U)                       \
  STRIDED(add_##name, T, (U)x + (U)y)             \
  STRIDED(max_##name, T, x > y || x != x ? x : y) \
  STRIDED(min_##name, T, x < y || x != x ? x : y)
NUMBERS(i8, int8_t, uint32_t)
NUMBERS(i16, int16_t, uint32_t)
NUMBERS(i32, int32_t, uint32_t)
NUMBERS(i64, int64_t, uint64_t)
NUMBERS(u8, uint8_t, uint32_t)
NUMBERS(u16, uint16_t, uint32_t)
NUMBERS(u32, uint32_t, uint32_t)
NUMBERS(u64, uint64_t, uint64_t)
NUMBERS(f32, float, float)
NUMBERS(f64, double, double)
STRIDED(set_8, uint8_t, y)
STRIDED(set_16, uint16_t, y)
STRIDED(set_32, uint32_t, y)
STRIDED(set_64, uint64_t, y)

static strided_fn strided_of(uint32_t dtype, uint32_t mode) {
  static const struct {
    strided_fn add, max, min;
  } by_dtype[TERN_DTYPE_END] = {
#define ENTRY(dtype, name) [dtype] = {add_##name, max_##name, min_##name}
      [TERN_BOOL] = {NULL, max_u8, min_u8},
      ENTRY(TERN_I8, i8),
      ENTRY(TERN_I16, i16),
      ENTRY(TERN_I32, i32),
      ENTRY(TERN_I64, i64),
      ENTRY(TERN_U8, u8),
      ENTRY(TERN_U16, u16),
      ENTRY(TERN_U32, u32),
      ENTRY(TERN_U64, u64),
      ENTRY(TERN_F32, f32),
      ENTRY(TERN_F64, f64)};
#undef ENTRY
  if (mode == ADD) return by_dtype[dtype].add;
  if (mode == MAX) return by_dtype[dtype].max;
  if (mode == MIN) return by_dtype[dtype].min;
  switch (cpu_item_size(dtype)) {
  case 1: return set_8;
  case 2: return set_16;
  case 4: return set_32;
  default: return set_64;
  }
}

static void combine(const struct scatter *s, char *to, const char *from, int64_t n) {
  const bool dense = s->out_i == s->size && s->src_i == s->size;
  if (s->k->strided && (n < SHORT || !dense)) {
    s->k->strided(to, s->out_i, from, s->src_i, n);
  } else if (dense || n == 1) {
    if (s->k->mode == SET)
      s->k->dense(to, from, NULL, NULL, n);
    else
      s->k->dense(to, to, from, NULL, n);
  } else {
    for (int64_t i = 0; i < n; i++) s->k->dense(to + i * s->out_i, to + i * s->out_i, from + i * s->src_i, NULL, 1);
  }
}

static void set_columns(const struct scatter *s, char *to, const char *from, int64_t from_i, int64_t n) {
  if (s->out_i == s->size && from_i == s->size)
    memcpy(to, from, (size_t)(n * s->size));
  else
    strided_of(s->k->out.dtype, SET)(to, s->out_i, from, from_i, n);
}

/* ---- a range ---- */

static void begin_range(const struct scatter *s, int64_t o, int64_t a0, int64_t a1, int64_t i0, int64_t n) {
  char *to = s->out + o * s->out_o + a0 * s->out_a + i0 * s->out_i;
  const bool filled = s->k->filled, whole = n == s->i && s->out_i == s->size && s->out_a == n * s->size;
  if (filled) {
    static const char zero[8] = {0};
    if (whole && !memcmp(s->value, zero, sizeof zero)) {
      memset(to, 0, (size_t)((a1 - a0) * s->out_a));
      return;
    }
    for (int64_t a = a0; a < a1; a++, to += s->out_a) set_columns(s, to, s->value, 0, n);
    return;
  }
  const char *from = s->base + o * s->base_o + a0 * s->base_a + i0 * s->base_i;
  if (whole && s->base_i == s->size && s->base_a == s->out_a) {
    memcpy(to, from, (size_t)((a1 - a0) * s->out_a));
    return;
  }
  for (int64_t a = a0; a < a1; a++, to += s->out_a, from += s->base_a) set_columns(s, to, from, s->base_i, n);
}

static void scatter_range(void *ctx, int64_t lo, int64_t hi) {
  const struct scatter *const s = ctx;
  for (int64_t t = lo; t < hi; t++) {
    const int64_t part_i = t % s->parts_i, part_a = t / s->parts_i % s->parts_a, o = t / s->parts_i / s->parts_a;
    const int64_t a0 = s->a * part_a / s->parts_a, a1 = s->a * (part_a + 1) / s->parts_a;
    const int64_t i0 = s->i * part_i / s->parts_i, n = s->i * (part_i + 1) / s->parts_i - i0;
    if (!s->in_place) begin_range(s, o, a0, a1, i0, n);
    char *const out = s->out + o * s->out_o + i0 * s->out_i;
    const char *const src = s->src + o * s->src_o + i0 * s->src_i;
    for (int64_t j = 0; j < s->j; j++) {
      int64_t at = read_index(s, j);
      if (at < 0) at += s->a;
      if (at >= a0 && at < a1) combine(s, out + at * s->out_a, src + j * s->src_j, n);
    }
  }
}

/* ---- the launch ---- */

static int64_t at_most(int64_t n, int64_t limit) { return n < 1 ? 1 : n < limit ? n : limit; }

static void cut(struct scatter *s) {
  const int64_t work = 2 * s->j * s->i + (s->in_place ? 0 : s->a * s->i); /* of one o */
  const int64_t most = (4 * cpu_threads() + s->o - 1) / s->o, parts = at_most(work / PIECE, most);
  s->parts_a = at_most(parts, s->a);
  s->parts_i = at_most(parts / s->parts_a, at_most(s->i * s->size / 64, s->i));
}

static void resolve(struct scatter *s, const struct scatter_kernel *k, const tern_launch *l) {
  struct index_array base = {.dtype = k->out.dtype}, index, src, out;
  s->k = k;
  s->base = k->filled ? NULL : index_array_resolve(&k->base, l->words, l, &base);
  s->index = index_array_resolve(&k->index, l->words, l, &index);
  s->src = index_array_resolve(&k->src, l->words, l, &src);
  s->out = index_array_resolve(&k->out, l->words, l, &out);
  const int64_t size = s->size = (int64_t)cpu_item_size(out.dtype);
  s->wide = index.dtype == TERN_I64;
  s->o = out.shape[0], s->a = out.shape[1], s->i = out.shape[2], s->j = index.shape[0];
  s->base_o = base.stride[0] * size, s->base_a = base.stride[1] * size, s->base_i = base.stride[2] * size;
  s->src_o = src.stride[0] * size, s->src_j = src.stride[1] * size, s->src_i = src.stride[2] * size;
  s->out_o = out.stride[0] * size, s->out_a = out.stride[1] * size, s->out_i = out.stride[2] * size;
  s->index_j = index.stride[0] * (s->wide ? 8 : 4);
  s->in_place = !k->filled && s->base == s->out && (s->base_o == s->out_o || s->o == 1) &&
                (s->base_a == s->out_a || s->a == 1) && (s->base_i == s->out_i || s->i == 1);
  memset(s->value, 0, sizeof s->value);
  if (k->filled)
    cpu_word_store(s->value, out.dtype, k->fill.kind == TERN_V_CONST ? k->fill.imm : l->words[k->fill.slot]);
}

static tern_rc scatter_run(const tern_kernel *kernel, const tern_launch *l) {
  const struct scatter_kernel *const k = (const struct scatter_kernel *)(const void *)kernel;
  struct scatter s;
  resolve(&s, k, l);
  for (int64_t j = 0; j < s.j; j++) { /* before anything is written: a variable updated in place stays as it was */
    const int64_t at = read_index(&s, j);
    if (at < -s.a || at >= s.a)
      return cpu_error(TERN_E_ARG,
                       "scatter: index %lld is out of range for an axis of %lld; indices run from %lld to %lld",
                       (long long)at, (long long)s.a, -(long long)s.a, (long long)s.a - 1);
  }
  cut(&s);
  const int64_t work = (2 * s.j * s.i + s.a * s.i) / (s.parts_a * s.parts_i) + 1;
  cpu_parallel(s.o * s.parts_a * s.parts_i, PIECE / work + 1, scatter_range, &s);
  return TERN_OK;
}

static bool scatter_read(const tern_region *r, struct scatter_kernel *k) {
  const tern_node *const n = &r->nodes[0];
  if (n->op != TERN_OP_SCATTER || n->n_in != 3 || n->n_out != 1 || n->n_attr < 1) return false;
  const uint32_t *const in = r->edges + n->in;
  if (r->attrs[n->attr].u >= MODES || in[0] >= r->n_values) return false;
  k->mode = (uint32_t)r->attrs[n->attr].u;
  k->fill = r->values[in[0]];
  k->filled = k->fill.kind == TERN_V_CONST || k->fill.kind == TERN_V_PARAM;
  if (!k->filled && !index_array_read(r, in[0], false, &k->base)) return false;
  if (!index_array_read(r, in[1], false, &k->index) || !index_array_read(r, in[2], false, &k->src) ||
      !index_array_read(r, r->edges[n->out], true, &k->out))
    return false;
  const uint32_t dtype = k->out.dtype;
  if ((!k->filled && k->base.rank != 3) || k->index.rank != 1 || k->src.rank != 3 || k->out.rank != 3) return false;
  if (k->index.dtype != TERN_I32 && k->index.dtype != TERN_I64) return false;
  if (k->fill.dtype != dtype || k->src.dtype != dtype || (dtype == TERN_BOOL && k->mode == ADD)) return false;
  static const uint32_t ops[MODES] = {TERN_OP_ADD, TERN_OP_COPY, TERN_OP_MAXIMUM, TERN_OP_MINIMUM};
  k->dense = cpu_map(ops[k->mode], dtype, dtype, 0);
  k->strided = strided_of(dtype, k->mode);
  if (k->mode != SET && (dtype == TERN_F16 || dtype == TERN_BF16)) k->strided = NULL;
  return k->dense != NULL;
}

tern_rc scatter_supports(const tern_region *r) {
  struct scatter_kernel k;
  return scatter_read(r, &k) ? TERN_OK : TERN_E_UNSUPPORTED;
}

tern_rc scatter_compile(const tern_region *r, tern_kernel **kernel, tern_kernel_info *info) {
  struct scatter_kernel *const k = calloc(1, sizeof *k);
  if (!k) return cpu_error(TERN_E_OOM, "scatter: no memory for a kernel of %zu bytes", sizeof *k);
  if (!scatter_read(r, k)) {
    free(k);
    return TERN_E_UNSUPPORTED;
  }
  k->base_kernel.run = scatter_run;
  info->workspace = 0;
  *kernel = &k->base_kernel;
  return TERN_OK;
}
