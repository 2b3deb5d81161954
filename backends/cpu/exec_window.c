/* Pooling: SUM, AMAX or AMIN of float32 over a small window at each place of a sliding view, then MAPs of each result.
   The general path would step through the window's elements with blocks as short as a row of the result. Here a vector
   of neighbouring results goes over the whole window in registers, and the MAPs run on as many rows as fill a block. */
#include "exec.h"
#include "vmath.h"
#include <math.h>
#include <string.h>

enum {
  MOST_TAPS = 128,  /* elements of a window */
  FEWEST = 8192,    /* elements read: below, all paths fold in the very same order (see exec_small.c) */
  MOST_LANES = 512, /* results of a row, where it is contiguous in memory: longer ones do well without */
  BLOCK = 1024,     /* results that the MAPs see at once */
  MOST_MAPS = 4,
  MOST_SIDES = 4,
  GRAIN = 32 << 10 /* elements read, of a piece */
};

/* An array that a MAP reads besides: one element for each result */
typedef struct side {
  uint32_t val, stream;
  bool one; /* a row's results share theirs */
} side;

typedef struct window {
  const r_nest *r;
  uint32_t op, n_maps, n_taps;
  const x_item *map[MOST_MAPS];
  int64_t lanes, step; /* results of a row; floats from lane to lane */
  int64_t rows;
  uint32_t in;    /* stream */
  float *out;     /* dense */
  uint32_t value; /* val of the fold */
  uint32_t n_sides;
  side side[MOST_SIDES];
  bool same_sides;        /* all rows read the same */
  int64_t tap[MOST_TAPS]; /* floats from a window's first element */
} window;

/* ---- folding: n lanes, n <= VF_N, of one window each ---- */

#ifdef VM_AVX512
static __m512 load(const float *p, int64_t step, int n) {
  if (step == 1) return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
  if (step == 2) {
    const uint32_t have = n == 16 ? 0x7fffffffu : (1u << (2 * n - 1)) - 1;
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return _mm512_permutex2var_ps(_mm512_maskz_loadu_ps((__mmask16)have, p), even,
                                  _mm512_maskz_loadu_ps((__mmask16)(have >> 16), p + 16));
  }
  const __m512i at = _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                        _mm512_set1_epi32((int)step));
  return _mm512_mask_i32gather_ps(_mm512_setzero_ps(), (__mmask16)((1u << n) - 1), at, p, 4);
}
static inline __attribute__((always_inline)) void fold_step(const window *w, const float *p, int64_t step, int n,
                                                            float *out) {
  const __mmask16 have = (__mmask16)((1u << n) - 1);
  if (w->op == TERN_OP_SUM) {
    __m512d lo = _mm512_setzero_pd(), hi = lo;
    for (uint32_t k = 0; k < w->n_taps; k++) {
      const __m512 x = load(p + w->tap[k], step, n);
      lo = _mm512_add_pd(lo, _mm512_cvtps_pd(_mm512_castps512_ps256(x)));
      hi = _mm512_add_pd(hi, _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1)));
    }
    const __m512 all = _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(lo)), _mm512_cvtpd_ps(hi), 1);
    _mm512_mask_storeu_ps(out, have, all);
    return;
  }
  __m512 best = load(p + w->tap[0], step, n);
  for (uint32_t k = 1; k < w->n_taps; k++) {
    const __m512 x = load(p + w->tap[k], step, n);
    const __mmask16 wins =
        w->op == TERN_OP_AMAX ? _mm512_cmp_ps_mask(x, best, _CMP_GT_OQ) : _mm512_cmp_ps_mask(x, best, _CMP_LT_OQ);
    best = _mm512_mask_mov_ps(best, (__mmask16)(wins | _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q)), x);
  }
  _mm512_mask_storeu_ps(out, have, best);
}

/* The extremes of windows of four, n vectors of neighbours. Of equal ones the first stays, as in fold_step */
static inline __attribute__((always_inline)) void extreme_of_4(const window *w, const float *p, int64_t n, bool most,
                                                               float *out) {
  const float *const p0 = p + w->tap[0], *const p1 = p + w->tap[1], *const p2 = p + w->tap[2],
                     *const p3 = p + w->tap[3];
  for (int64_t i = 0; i < n * VF_N; i += VF_N) {
    const __m512 a = _mm512_loadu_ps(p0 + i), b = _mm512_loadu_ps(p1 + i);
    const __m512 c = _mm512_loadu_ps(p2 + i), d = _mm512_loadu_ps(p3 + i);
    if (_mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q) | _mm512_cmp_ps_mask(c, d, _CMP_UNORD_Q)) {
      fold_step(w, p + i, 1, VF_N, out + i);
      continue;
    }
    const __m512 first = most ? _mm512_max_ps(b, a) : _mm512_min_ps(b, a);
    const __m512 last = most ? _mm512_max_ps(d, c) : _mm512_min_ps(d, c);
    _mm512_storeu_ps(out + i, most ? _mm512_max_ps(last, first) : _mm512_min_ps(last, first));
  }
}

/* Whole vectors of a row by a faster way; returns how many results */
static int64_t fold_vectors(const window *w, const float *p, float *out) {
  const int64_t n = w->lanes / VF_N;
  if (w->step != 1 || w->n_taps != 4 || w->op == TERN_OP_SUM) return 0;
  extreme_of_4(w, p, n, w->op == TERN_OP_AMAX, out);
  return n * VF_N;
}
#else
static int64_t fold_vectors(const window *w, const float *p, float *out) {
  (void)w, (void)p, (void)out;
  return 0;
}

static inline __attribute__((always_inline)) void fold_step(const window *w, const float *p, int64_t step, int n,
                                                            float *out) {
  if (w->op == TERN_OP_SUM) {
    double sum[VF_N] = {0};
    for (uint32_t k = 0; k < w->n_taps; k++)
      for (int j = 0; j < n; j++) sum[j] += (double)p[w->tap[k] + j * step];
    for (int j = 0; j < n; j++) out[j] = (float)sum[j];
    return;
  }
  const float sign = w->op == TERN_OP_AMAX ? 1 : -1;
  for (int j = 0; j < n; j++) {
    float best = p[w->tap[0] + j * step];
    for (uint32_t k = 1; k < w->n_taps; k++) {
      const float x = p[w->tap[k] + j * step];
      best = sign * x > sign * best || x != x ? x : best;
    }
    out[j] = best;
  }
}
#endif

static void fold_row(const window *w, const float *p, float *out) {
  for (int64_t i = fold_vectors(w, p, out); i < w->lanes; i += VF_N) {
    const int n = w->lanes - i < VF_N ? (int)(w->lanes - i) : VF_N;
    if (w->step == 1)
      fold_step(w, p + i, 1, n, out + i);
    else if (w->step == 2)
      fold_step(w, p + 2 * i, 2, n, out + i);
    else
      fold_step(w, p + w->step * i, w->step, n, out + i);
  }
}

/* ---- what comes after the fold ---- */

static const side *side_of(const window *w, int32_t v) {
  for (uint32_t k = 0; k < w->n_sides; k++)
    if ((int32_t)w->side[k].val == v) return &w->side[k];
  return NULL;
}

/* at: of each side, where its elements are for these n results */
static void run_maps(const window *w, float *x, const char *const *at, int64_t n) {
  for (uint32_t k = 0; k < w->n_maps; k++) {
    const x_item *const it = w->map[k];
    const void *arg[3];
    uint32_t mask = 0;
    for (uint32_t i = 0; i < 3; i++) {
      const int32_t v = it->in[i < it->n_in ? i : 0];
      const side *const s = side_of(w, v);
      const bool one = w->r->at[v] != NULL || (s && s->one);
      arg[i] = s ? at[s - w->side] : w->r->at[v] ? w->r->at[v] : (const char *)x;
      if (i < it->n_in) mask |= (uint32_t)one << i;
    }
    it->fn[mask](x, arg[0], arg[1], arg[2], n);
  }
}

/* Steps `by` rows on, at most to the end of the innermost dim of rows */
static void next_rows(const r_nest *r, int64_t *index, int64_t *at, const uint32_t *stream, uint32_t n, int64_t by) {
  for (uint32_t d = r->rank - 1; d-- > 0;) {
    if (r->red_mask >> d & 1) continue;
    index[d] += by;
    const bool turn = index[d] == r->size[d];
    for (uint32_t k = 0; k < n; k++) at[k] += r->stream[stream[k]].stride[d] * (turn ? by - r->size[d] : by);
    if (!turn) return;
    index[d] = 0;
    by = 1;
  }
}

static void run_rows(void *ctx, int64_t lo, int64_t hi) {
  const window *const w = ctx;
  const r_nest *const r = w->r;
  const int64_t most = BLOCK / w->lanes > 0 && w->same_sides ? BLOCK / w->lanes : 1;
  int64_t index[TERN_MAX_RANK] = {0}, at[1 + MOST_SIDES], rest = lo;
  uint32_t stream[1 + MOST_SIDES] = {w->in};
  float tiled[MOST_SIDES][BLOCK];
  const char *from[MOST_SIDES];
  for (uint32_t k = 0; k < w->n_sides; k++) stream[1 + k] = w->side[k].stream;
  for (uint32_t k = 0; k <= w->n_sides; k++) at[k] = r->stream[stream[k]].base;
  for (uint32_t d = r->rank - 1; d-- > 0;) {
    if (r->red_mask >> d & 1) continue;
    index[d] = rest % r->size[d];
    rest /= r->size[d];
    for (uint32_t k = 0; k <= w->n_sides; k++) at[k] += index[d] * r->stream[stream[k]].stride[d];
  }
  for (uint32_t k = 0; k < w->n_sides && most > 1; k++) {
    from[k] = w->side[k].one ? (const char *)(intptr_t)at[1 + k] : (const char *)tiled[k];
    for (int64_t row = 0; row < most && !w->side[k].one; row++)
      memcpy(tiled[k] + row * w->lanes, (const char *)(intptr_t)at[1 + k], (size_t)w->lanes * sizeof(float));
  }
  uint32_t inner = r->rank - 2; /* the innermost dim of rows */
  while (inner > 0 && r->red_mask >> inner & 1) inner--;
  for (int64_t row = lo; row < hi;) {
    float *const out = w->out + row * w->lanes;
    const int64_t end = row + most < hi ? row + most : hi, first = row;
    for (uint32_t k = 0; k < w->n_sides && most == 1; k++) from[k] = (const char *)(intptr_t)at[1 + k];
    while (row < end) {
      const int64_t left = most == 1 ? 1 : r->size[inner] - index[inner], n = left < end - row ? left : end - row;
      const int64_t step = r->stream[w->in].stride[inner];
      for (int64_t i = 0; i < n; i++)
        fold_row(w, (const float *)(intptr_t)(at[0] + i * step), out + (row - first + i) * w->lanes);
      next_rows(r, index, at, stream, 1 + w->n_sides, n);
      row += n;
    }
    run_maps(w, out, from, (end - first) * w->lanes);
  }
}

/* ---- is it one? ---- */

/* A load whose elements lie densely along the lanes, or which all lanes share */
static bool find_side(window *w, const x_item *it) {
  const r_nest *const r = w->r;
  if (w->n_sides == MOST_SIDES || it->dtype != TERN_F32 || r->x->stream[it->stream].kind != S_MEM) return false;
  const r_stream *const s = &r->stream[it->stream];
  const int64_t lane = s->stride[r->rank - 1];
  if ((lane != 0 && lane != sizeof(float)) || s->tiled || s->local) return false;
  for (uint32_t d = 0; d + 1 < r->rank; d++)
    if (!(r->red_mask >> d & 1) && s->stride[d]) w->same_sides = false;
  w->side[w->n_sides++] = (side){.val = it->val, .stream = (uint32_t)it->stream, .one = lane == 0};
  return true;
}

/* The fold's result goes through MAPs of it, of single numbers and of arrays, into one store */
static bool find_maps(window *w) {
  const x_list *const early = &w->r->x->phase[0], *const l = &w->r->x->phase[1];
  for (uint32_t i = 0; i < early->n; i++)
    if (early->item[i].kind != X_LOAD || !find_side(w, &early->item[i])) return false;
  int32_t value = (int32_t)w->value;
  if (l->n == 0) return false;
  for (uint32_t i = 0; i + 1 < l->n; i++) {
    const x_item *const it = &l->item[i];
    uint32_t mask = 0;
    if (it->kind == X_LOAD) {
      if (!find_side(w, it)) return false;
      continue;
    }
    if (w->n_maps == MOST_MAPS || it->kind != X_MAP || it->n_in > 2 || it->dtype != TERN_F32 ||
        it->in_dtype != TERN_F32)
      return false;
    for (uint32_t k = 0; k < it->n_in; k++) {
      const side *const s = side_of(w, it->in[k]);
      if (w->r->at[it->in[k]] || (s && s->one))
        mask |= 1u << k;
      else if (!s && it->in[k] != value)
        return false;
    }
    if (!it->fn[mask] || mask + 1 == 1u << it->n_in) return false;
    w->map[w->n_maps++] = it;
    value = (int32_t)it->val;
  }
  const x_item *const last = &l->item[l->n - 1];
  if (last->kind != X_STORE || last->in[0] != value) return false;
  const r_stream *const s = &w->r->stream[last->stream];
  if (w->r->x->stream[last->stream].item != sizeof(float)) return false;
  int64_t step = sizeof(float);
  for (uint32_t d = w->r->rank; d-- > 0;) {
    if (w->r->red_mask >> d & 1) continue;
    if (s->stride[d] != step) return false;
    step *= w->r->size[d];
  }
  w->out = (float *)(intptr_t)s->base;
  return true;
}

static bool find_taps(window *w) {
  const r_nest *const r = w->r;
  const r_stream *const s = &r->stream[w->in];
  int64_t n = 1;
  w->tap[0] = 0;
  for (uint32_t d = r->rank; d-- > 0;) { /* each reduced dim, innermost first, multiplies what is there */
    if (!(r->red_mask >> d & 1)) continue;
    if (r->size[d] > MOST_TAPS / n) return false;
    for (int64_t i = 1; i < r->size[d]; i++)
      for (int64_t k = 0; k < n; k++) w->tap[i * n + k] = w->tap[k] + i * s->stride[d] / (int64_t)sizeof(float);
    n *= r->size[d];
  }
  w->n_taps = (uint32_t)n;
  return true;
}

bool x_try_window(const r_nest *r) {
  const x_nest *const x = r->x;
  const uint32_t last = r->rank - 1;
  if (x->nest->n_pass != 1 || x->n_red != 1 || x->pass[0].n != 2 || (r->red_mask >> last & 1) || r->rank < 2)
    return false;
  const x_item *const load = &x->pass[0].item[0], *const fold = &x->pass[0].item[1];
  if (load->kind != X_LOAD || fold->kind != X_REDUCE || load->dtype != TERN_F32 || fold->dtype != TERN_F32)
    return false;
  window w = {.r = r, .same_sides = true, .in = (uint32_t)load->stream, .value = fold->val};
  const r_stream *const s = &r->stream[w.in];
  w.op = r->plan->plan->region->nodes[x->nest->val[fold->val].node].op;
  w.lanes = r->size[last];
  w.step = s->stride[last] / (int64_t)sizeof(float);
  if ((w.op != TERN_OP_SUM && w.op != TERN_OP_AMAX && w.op != TERN_OP_AMIN) || w.step < 1 || w.step > 1 << 20 ||
      (w.step == 1 && w.lanes > MOST_LANES) || x->stream[w.in].kind != S_MEM || !find_taps(&w) || !find_maps(&w))
    return false;
  w.rows = 1;
  for (uint32_t d = 0; d < last; d++) w.rows *= r->red_mask >> d & 1 ? 1 : r->size[d];
  const int64_t each = w.lanes * w.n_taps;
  if ((w.rows < 2 && w.step == 1) || w.rows < FEWEST / each) return false;
  const int64_t grain = GRAIN / each > 0 ? GRAIN / each : 1;
  cpu_parallel(w.rows, grain, run_rows, &w);
  return true;
}
