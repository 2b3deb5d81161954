/* Lanes over several dims. Where the innermost dim that is not reduced is short (the channels of a pixel), blocks along
   it alone would be all overhead: so all such dims together, in row-major order, become the lanes. A stream that is not
   dense over them is "walked": its elements are copied between memory and a register, runs of the innermost dim, as
   many runs at once as lie evenly. */
#include "exec.h"
#include "exec_small.h"
#include <string.h>

enum {
  SHORT_RUN = 64,   /* a map nest is flat below this, whatever its size */
  MEDIUM_RUN = 256, /* large nests are flat below this; */
  LARGE = 16 << 10, /* elements, beyond what exec_small.h takes: that way knows nothing of flat reductions */
  FEWEST_RUNS = 4
};

/* ---- resolving ---- */

static uint32_t last_outer(const r_nest *r) {
  uint32_t last = UINT32_MAX;
  for (uint32_t d = 0; d < r->rank; d++)
    if (!(r->red_mask >> d & 1)) last = d;
  return last;
}

/* Elements that lie one after another along dim d, in so many of the streams of full level */
static uint32_t contiguous(const r_nest *r, uint32_t d) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < r->x->n_stream; i++)
    n += r->x->stream[i].kind == S_MEM && r->stream[i].stride[d] == r->x->stream[i].item;
  return n;
}

static int64_t elements(const r_nest *r, uint32_t mask) {
  int64_t n = 1;
  for (uint32_t d = 0; d < r->rank; d++)
    if (mask >> d & 1) n *= r->size[d];
  return n;
}

/* Longer runs only where every stream's lie one element after another: others may be transposed in tiles */
bool x_flat_map(const r_nest *r) {
  const uint32_t last = r->rank - 1;
  if (r->rank < 2 || r->size[last] >= MEDIUM_RUN) return false;
  if (r->size[last] < SHORT_RUN) return true;
  for (uint32_t i = 0; i < r->x->n_stream; i++)
    if (r->stream[i].stride[last] != r->x->stream[i].item && r->stream[i].stride[last]) return false;
  return elements(r, (1u << r->rank) - 1) >= LARGE;
}

bool x_flat_fold(const r_nest *r) {
  _Static_assert((int)LARGE > (int)X_SMALL_ELEMS, "small launches know nothing of flat reductions");
  const uint32_t all = (1u << r->rank) - 1, last = last_outer(r);
  if (r->mapping != M_COL || x_only_folds(r->x) /* from memory, many rows a call */ || elements(r, all) < LARGE)
    return false;
  const int64_t run = r->size[last];
  return run < MEDIUM_RUN && elements(r, all & ~r->red_mask) >= FEWEST_RUNS * run &&
         (r->lane_dim == last || contiguous(r, r->lane_dim) <= contiguous(r, last));
}

void x_flatten(r_nest *r) {
  r->n_flat = 0;
  for (uint32_t d = 0; d < r->rank; d++)
    if (!(r->red_mask >> d & 1)) r->flat[r->n_flat++] = d;
  for (uint32_t i = 0; i < r->x->n_stream; i++) {
    r_stream *const s = &r->stream[i];
    int64_t step = r->x->stream[i].item;
    bool dense = true, still = true;
    for (uint32_t k = r->n_flat; k-- > 0;) {
      const uint32_t d = r->flat[k];
      dense &= s->stride[d] == step;
      still &= s->stride[d] == 0;
      step *= r->size[d];
    }
    s->walk = !dense && !still;
    s->lane = dense ? r->x->stream[i].item : 0;
  }
  r->lanes = elements(r, ((1u << r->rank) - 1) & ~r->red_mask);
}

/* Blocks of whole runs, and of whole rows of runs where they fit: then runs are copied many at once */
int64_t x_flat_width(const r_nest *r, int64_t width) {
  int64_t unit = 1;
  for (uint32_t k = r->n_flat; k-- > 0 && unit * r->size[r->flat[k]] <= width;) unit *= r->size[r->flat[k]];
  return width - width % unit;
}

/* ---- running ---- */

void x_flat_place(work *w, int64_t lane) {
  const r_nest *const r = w->r;
  for (uint32_t k = r->n_flat; k-- > 0;) {
    const int64_t size = r->size[r->flat[k]];
    w->index[k] = k ? lane % size : lane;
    lane = k ? lane / size : 0;
  }
}

typedef struct run_copy { /* `rows` runs of `bytes` bytes each */
  char *dst;
  const char *src;
  int64_t to, from; /* bytes from run to run */
  int64_t bytes, rows;
} run_copy;

#define VEC(n) typedef char vec##n __attribute__((vector_size(n), aligned(1), may_alias));
VEC(64)
VEC(32)
VEC(16)
VEC(8)
VEC(4)
VEC(2)

/* Runs of n .. 2n bytes: two pieces, which overlap. A run is loaded before it is stored */
#define PIECES(n)                                                                 \
  static void copy_runs_##n(const run_copy *c) {                                  \
    char *dst = c->dst;                                                           \
    const char *src = c->src;                                                     \
    const int64_t second = c->bytes - n;                                          \
    for (int64_t i = 0; i < c->rows; i++, dst += c->to, src += c->from) {         \
      const vec##n a = *(const vec##n *)src, b = *(const vec##n *)(src + second); \
      *(vec##n *)dst = a;                                                         \
      *(vec##n *)(dst + second) = b;                                              \
    }                                                                             \
  }
PIECES(64)
PIECES(32)
PIECES(16)
PIECES(8)
PIECES(4)
PIECES(2)

static void copy_long_runs(const run_copy *c) {
  char *dst = c->dst;
  const char *src = c->src;
  const int64_t second = c->bytes - 64;
  for (int64_t i = 0; i < c->rows; i++, dst += c->to, src += c->from) {
    for (int64_t b = 0; b < second; b += 64) *(vec64 *)(dst + b) = *(const vec64 *)(src + b);
    *(vec64 *)(dst + second) = *(const vec64 *)(src + second);
  }
}

static void copy_runs(const run_copy *c) {
  const int64_t n = c->bytes;
  if (n > 128)
    copy_long_runs(c);
  else if (n >= 64)
    copy_runs_64(c);
  else if (n >= 32)
    copy_runs_32(c);
  else if (n >= 16)
    copy_runs_16(c);
  else if (n >= 8)
    copy_runs_8(c);
  else if (n >= 4)
    copy_runs_4(c);
  else if (n >= 2)
    copy_runs_2(c);
  else
    for (int64_t i = 0; i < c->rows; i++) c->dst[i * c->to] = c->src[i * c->from];
}

/* `rows` runs of n elements; item: bytes; step, row: bytes from element to element and from run to run */
#define STRIDED(type)                                                                                         \
  static void gather_##type(char *reg, const char *at, int64_t step, int64_t row, int64_t n, int64_t rows) {  \
    for (int64_t k = 0; k < rows; k++, at += row)                                                             \
      for (int64_t i = 0; i < n; i++, reg += sizeof(type))                                                    \
        *(type *)(void *)reg = *(const type *)(const void *)(at + i * step);                                  \
  }                                                                                                           \
  static void repeat_##type(char *reg, const char *at, int64_t row, int64_t n, int64_t rows) {                \
    type *to = (type *)(void *)reg;                                                                           \
    for (int64_t k = 0; k < rows; k++, at += row, to += n) {                                                  \
      const type one = *(const type *)(const void *)at;                                                       \
      for (int64_t i = 0; i < n; i++) to[i] = one;                                                            \
    }                                                                                                         \
  }                                                                                                           \
  static void scatter_##type(const char *reg, char *at, int64_t step, int64_t row, int64_t n, int64_t rows) { \
    for (int64_t k = 0; k < rows; k++, at += row)                                                             \
      for (int64_t i = 0; i < n; i++, reg += sizeof(type))                                                    \
        *(type *)(void *)(at + i * step) = *(const type *)(const void *)reg;                                  \
  }
STRIDED(uint8_t)
STRIDED(uint16_t)
STRIDED(uint32_t)
STRIDED(uint64_t)

static void gather_runs(char *reg, const char *at, int64_t step, int64_t row, size_t item, int64_t n, int64_t rows) {
  if (step == (int64_t)item) {
    copy_runs(&(run_copy){reg, at, n * step, row, n * step, rows});
    return;
  }
  if (step == 0) {
    switch (item) {
    case 1: repeat_uint8_t(reg, at, row, n, rows); break;
    case 2: repeat_uint16_t(reg, at, row, n, rows); break;
    case 4: repeat_uint32_t(reg, at, row, n, rows); break;
    default: repeat_uint64_t(reg, at, row, n, rows); break;
    }
    return;
  }
  switch (item) {
  case 1: gather_uint8_t(reg, at, step, row, n, rows); break;
  case 2: gather_uint16_t(reg, at, step, row, n, rows); break;
  case 4: gather_uint32_t(reg, at, step, row, n, rows); break;
  default: gather_uint64_t(reg, at, step, row, n, rows); break;
  }
}

static void scatter_runs(const char *reg, char *at, int64_t step, int64_t row, size_t item, int64_t n, int64_t rows) {
  if (step == (int64_t)item) {
    copy_runs(&(run_copy){at, reg, row, n * step, n * step, rows});
    return;
  }
  switch (item) {
  case 1: scatter_uint8_t(reg, at, step, row, n, rows); break;
  case 2: scatter_uint16_t(reg, at, step, row, n, rows); break;
  case 4: scatter_uint32_t(reg, at, step, row, n, rows); break;
  default: scatter_uint64_t(reg, at, step, row, n, rows); break;
  }
}

/* Runs that lie evenly, by what the instruction does */
static void move_runs(const work *w, const r_inst *in, char *reg, int64_t at, int64_t row, int64_t n, int64_t rows) {
  const r_nest *const r = w->r;
  const int64_t step = r->stream[in->stream].stride[r->flat[r->n_flat - 1]];
  if (in->kind == I_GATHER) {
    gather_runs(reg, (const char *)(intptr_t)at, step, row, in->item, n, rows);
    return;
  }
  if (in->kind == I_SCATTER || in->kind == I_COPY) {
    scatter_runs(reg, (char *)(intptr_t)at, step, row, in->item, n, rows);
    return;
  }
  for (int64_t k = 0; k < rows; k++)
    x_move_even(w, in, reg + (in->kind == I_FILL ? 0 : k * n * in->item), at + k * row, step, n);
}

void x_flat_move(const work *w, const r_inst *in, char *reg, int64_t n) {
  const r_nest *const r = w->r;
  const int64_t *const stride = r->stream[in->stream].stride;
  const uint32_t last = r->n_flat - 1, before = last - 1; /* two dims at least: else nothing is walked */
  const int64_t run = r->size[r->flat[last]];
  int64_t index[TERN_MAX_RANK], at = w->pos[in->stream];
  for (uint32_t k = 0; k <= last; k++) {
    index[k] = w->index[k];
    at += index[k] * stride[r->flat[k]];
  }
  if (in->ahead) x_stream_ahead((const char *)(intptr_t)at + in->ahead, n * in->item, 0, 1);
  for (;;) {
    const int64_t room = run - index[last], len = room < n ? room : n, whole = n / run;
    int64_t rows = 1;
    if (len == run) {
      rows = r->size[r->flat[before]] - index[before];
      rows = rows < whole ? rows : whole;
    }
    move_runs(w, in, reg, at, stride[r->flat[before]], len, rows);
    n -= rows * len;
    if (n == 0) return;
    reg += in->kind == I_FILL ? 0 : rows * len * in->item;
    at += rows * stride[r->flat[before]] - index[last] * stride[r->flat[last]];
    index[last] = 0;
    index[before] += rows;
    for (uint32_t k = before; k > 0 && index[k] == r->size[r->flat[k]]; k--) {
      at += stride[r->flat[k - 1]] - index[k] * stride[r->flat[k]];
      index[k] = 0;
      index[k - 1]++;
    }
  }
}
