/* Runs the programs of exec_small.c: one call for each instruction, over all elements of its nest. */
#include "exec_small.h"
#include "exec_tiny.h"
#include <math.h>
#include <string.h>

/* ---- moving ---- */

static inline void move_run(char *dst, int64_t to, const char *src, int64_t from, size_t item, int64_t n) {
  if (to == from) { /* both dense */
    memcpy(dst, src, (size_t)n * item);
    return;
  }
  if (from == 0 && to == (int64_t)item && n >= 16) {
    x_spread(dst, src, item, n);
    return;
  }
  switch (item) {
  case 1:
    for (int64_t i = 0; i < n; i++) dst[i * to] = src[i * from];
    break;
  case 2:
    for (int64_t i = 0; i < n; i++) memcpy(dst + i * to, src + i * from, 2);
    break;
  case 4:
    for (int64_t i = 0; i < n; i++) memcpy(dst + i * to, src + i * from, 4);
    break;
  default:
    for (int64_t i = 0; i < n; i++) memcpy(dst + i * to, src + i * from, 8);
    break;
  }
}

static void copy_bytes(char *out, const char *a, size_t n) {
  if (n == 4)
    memcpy(out, a, 4);
  else if (n == 8)
    memcpy(out, a, 8);
  else
    memmove(out, a, n);
}

/* Into a slot, which has room for whole vectors: later loads then lie within one store (see exec_tiny.h) */
static inline void take8(char *out, const char *src, const int32_t *off) {
  float f[8];
  for (int i = 0; i < 8; i++) memcpy(&f[i], src + off[i], 4);
  const tiny8 all = {f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7]};
  memcpy(out, &all, sizeof all);
}

static void take(char *out, const char *src, const p_take *t, int64_t n) {
  take8(out, src, t->off);
  if (n > 8) take8(out + sizeof(tiny8), src, t->off + 8);
}

/* One run of a walk's innermost dim: `reg` is the dense side, `at` the address (or index) on the other */
static void one_run(const p_inst *in, const p_walk *w, char *const *base, char *reg, int64_t at, int64_t step,
                    int64_t n) {
  char *const mem = (char *)(intptr_t)at;
  uint64_t key, counter;
  switch (in->kind) {
  case P_GATHER: move_run(reg, in->item, mem, step, in->item, n); break;
  case P_SCATTER: move_run(mem, step, reg, in->item, in->item, n); break;
  case P_FILL: move_run(mem, step, reg, 0, in->item, n); break;
  case P_IOTA: cpu_iota(reg, w->attr, at, step, n); break;
  default:
    memcpy(&key, base[in->b.base] + in->b.off, 8);
    memcpy(&counter, base[in->c.base] + in->c.off, 8);
    for (int64_t i = 0; i < n; i += step == 1 ? n : 1)
      cpu_rng_u32((uint32_t *)(void *)reg + i, at + i * step, step == 1 ? n : 1, key, counter, w->attr);
    break;
  }
}

static void walk(const p_inst *in, const p_walk *w, char *const *base, char *reg, int64_t at) {
  const uint32_t last = w->rank - 1;
  const int64_t n = w->size[last], step = w->stride[last], advance = in->kind == P_FILL ? 0 : n * in->item;
  int64_t index[TERN_MAX_RANK] = {0};
  for (;;) {
    one_run(in, w, base, reg, at, step, n);
    reg += advance;
    uint32_t d = last;
    for (; d > 0; d--) {
      at += w->stride[d - 1];
      if (++index[d - 1] < w->size[d - 1]) break;
      at -= w->stride[d - 1] * w->size[d - 1];
      index[d - 1] = 0;
    }
    if (d == 0) return;
  }
}

/* ---- reductions ---- */

static void fold(const p_fold *f, char *acc_v, const char *x, char *acc_i) {
  const x_red *const red = f->red;
  const int64_t each = f->across ? f->lanes : 1, item = red->in_item;
  cpu_reduce_start(&red->r, (cpu_acc){acc_v, (int64_t *)(void *)acc_i}, f->outer * each);
  for (int64_t o = 0; o < f->outer; o++, x += f->m * f->lanes * item) {
    const cpu_acc acc = {acc_v + o * each * red->acc_item, (int64_t *)(void *)acc_i + (red->r.indexed ? o * each : 0)};
    for (int64_t m = 0; f->across && m < f->m; m += f->together)
      red->r.col(acc, x + m * f->lanes * item, f->lanes, f->together, f->lanes, m);
    for (int64_t m = 0; !f->across && m < f->m; m++)
      for (int64_t i = 0; i < f->lanes; i += f->width) {
        const int64_t at = m * f->lanes + i;
        red->r.row(acc, x + at * item, f->lanes - i < f->width ? f->lanes - i : f->width, at);
      }
  }
}

/* Few floats one after the other, as reduce.c takes what does not fill a vector; four results at a time, since each is
   a chain. A result's elements are `step` apart, neighbouring results `next`. */
#define SHORT_FOLD(name, TYPE, START, STEP)                                                                \
  static void name##_some(float *o, const float *x, int64_t next, int64_t step, int64_t n, int64_t many) { \
    for (; many >= 4; many -= 4, o += 4, x += 4 * next) {                                                  \
      TYPE some[4] = {START, START, START, START};                                                         \
      for (int64_t i = 0; i < n; i++)                                                                      \
        for (int k = 0; k < 4; k++) {                                                                      \
          const float v = x[k * next + i * step];                                                          \
          const TYPE t = some[k];                                                                          \
          some[k] = STEP;                                                                                  \
        }                                                                                                  \
      for (int k = 0; k < 4; k++) o[k] = (float)some[k];                                                   \
    }                                                                                                      \
    for (; many > 0; many--, o++, x += next) {                                                             \
      TYPE t = START;                                                                                      \
      for (int64_t i = 0; i < n; i++) {                                                                    \
        const float v = x[i * step];                                                                       \
        t = STEP;                                                                                          \
      }                                                                                                    \
      *o = (float)t;                                                                                       \
    }                                                                                                      \
  }                                                                                                        \
  static void name(const p_fold *f, char *out, const char *in) {                                           \
    float *const o = (float *)(void *)out;                                                                 \
    const float *const x = (const float *)(const void *)in;                                                \
    const int64_t n = f->m * f->lanes;                                                                     \
    if (!f->across) name##_some(o, x, n, 1, n, f->outer);                                                  \
    for (int64_t k = 0; f->across && k < f->outer; k++)                                                    \
      name##_some(o + k * f->lanes, x + k * n, 1, f->lanes, f->m, f->lanes);                               \
  }
SHORT_FOLD(short_sum, double, 0, t + (double)v)
SHORT_FOLD(short_max, float, -INFINITY, ((v > t) | (v != v)) ? v : t)
SHORT_FOLD(short_min, float, INFINITY, ((v < t) | (v != v)) ? v : t)

/* ---- the program ---- */

void x_prog_run(const p_prog *p, const tern_launch *l, char *mem) {
  char **const base = (char **)(void *)mem;
  char *const cells = mem + p->table;
  base[P_CELLS] = cells;
  base[P_SLOTS] = cells + p->cells;
  base[P_CONSTS] = (char *)(uintptr_t)p->consts;
  base[P_WORK] = (char *)l->workspace.mem;
  if (base[P_WORK]) base[P_WORK] += l->workspace.offset;
  for (uint32_t i = 0; i < p->n_args; i++) base[P_ARGS + i] = cpu_arg(l, i);
  for (uint32_t i = 0; i < p->n_param; i++)
    cpu_word_store(cells + p->param[i].cell, p->param[i].dtype, l->words[p->param[i].word]);
  const p_inst *in = p->inst;
  for (const p_inst *const end = in + p->n_inst; in < end; in++) {
    char *const out = base[in->out.base] + in->out.off;
    const char *const a = base[in->a.base] + in->a.off;
    switch (in->kind) {
    case P_MAP: in->fn(out, a, base[in->b.base] + in->b.off, base[in->c.base] + in->c.off, in->n); break;
    case P_COPY: copy_bytes(out, a, (size_t)in->n); break;
    case P_TAKE: take(out, a, &p->take[in->more], in->n); break;
    case P_SCATTER:
    case P_FILL: walk(in, &p->walk[in->more], base, (char *)(uintptr_t)a, (int64_t)(intptr_t)out); break;
    case P_GATHER: walk(in, &p->walk[in->more], base, out, (int64_t)(intptr_t)a); break;
    case P_IOTA:
    case P_RNG: walk(in, &p->walk[in->more], base, out, 0); break;
    case P_SUM_F32: short_sum(&p->fold[in->more], out, a); break;
    case P_MAX_F32: short_max(&p->fold[in->more], out, a); break;
    case P_MIN_F32: short_min(&p->fold[in->more], out, a); break;
    default: fold(&p->fold[in->more], out, a, base[in->b.base] + in->b.off); break;
    }
  }
}
