/* Softmax and the normalisations (layer_norm, rms_norm) of large arrays of float32, row by row. The general path makes
   its passes over a row one after another, so that it computes while the memory waits, then the other way round. Here
   one loop does the last pass of a row, the middle one of the next and the first one of that after it, while more is
   fetched: an even mix of loads, arithmetic and stores. The results are bit for bit those that the general path
   has for arrays past 4 MB: the same functions, and sums in the same order. */
#include "exec.h"
#include "vmath_div.h"
#include "vmath_exp.h"
#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum {
  FROM = 1 << 20,         /* bytes touched */
  BYPASS_FROM = 32 << 20, /* results bypass the cache */
  STEP = 64,              /* floats of one turn of the loop: rows are a multiple */
  VECS = STEP / VF_N,
  QUAD = 16 / VF_N, /* vectors that hold 16 floats */
  BLOCK = 256,      /* floats summed before they go to double; */
  BARE = 4096,      /* where they come straight from memory */
  LONGEST = 8192,   /* floats of a row */
  PIECE = 64 << 10, /* floats of a piece of the work */
  LINE = 16,        /* floats of a cache line */
  LEAD = 512        /* floats from what is read to what is fetched */
};

typedef struct rows {
  int64_t n, count; /* floats of a row; rows */
  const float *in;
  float *out;
  int64_t in_step, out_step; /* floats from row to row */
  /* of a normalisation: */
  const float *scale, *shift;        /* NULL: none */
  float size, size_squares, epsilon; /* what the two sums are divided by */
  bool mean, bypass;
  atomic_bool oom;
} rows;

/* What one turn over a row works on: the last pass of a row whose middle values are `last`, the middle pass of `mid`,
   the first pass of `first`, beside which what lies at `ahead` is fetched */
typedef struct turn {
  const float *last, *mid, *first, *ahead;
  float *out, *keep; /* keep: middle values of `mid` (softmax) */
  float last_shift;  /* mean of last */
  vm_divisor by;     /* of last */
  float of_mid;      /* what the first pass found: best or mean */
  /* results */
  double sum_mid, sum_first;
  float best, least; /* of first; of the middle values */
} turn;
enum { NONE, EASY, CAREFUL };

static inline double across(const vf *v) { /* the order of reduce.c: the upper half onto the lower one */
  _Alignas(64) float lane[16];
  double part[8];
  for (int k = 0; k < QUAD; k++) vf_store(lane + k * VF_N, v[k]);
  for (int k = 0; k < 8; k++) part[k] = (double)lane[k] + (double)lane[k + 8];
  for (int k = 0; k < 4; k++) part[k] += part[k + 4];
  return (part[0] + part[2]) + (part[1] + part[3]);
}

/* (a + b) + (c + d), 16 lanes each, into double; leaves zeros */
VM_INLINE double take(vf *s) {
  vf all[QUAD];
  for (int k = 0; k < QUAD; k++) all[k] = (s[k] + s[QUAD + k]) + (s[2 * QUAD + k] + s[3 * QUAD + k]);
  for (int k = 0; k < VECS; k++) s[k] = vf_set(0);
  return across(all);
}

/* past: the cache is bypassed; p is aligned then */
VM_INLINE void put(float *p, vf v, const bool past) {
#if defined VM_AVX512
  if (past) {
    _mm512_stream_ps(p, (__m512)v);
    return;
  }
#elif defined VM_AVX2
  if (past) {
    _mm256_stream_ps(p, (__m256)v);
    return;
  }
#elif defined __x86_64__
  if (past) {
    _mm_stream_ps(p, (__m128)v);
    return;
  }
#endif
  (void)past;
  vf_store(p, v);
}

VM_INLINE void fetch(const float *p) { __builtin_prefetch(p); }

/* exp(x) for x <= 0 and NaN */
VM_INLINE vf exp_below(vf x) {
  vf n;
  const vf p = vm_exp_parts(vf_max(vf_set(-104.5f), x), &n);
  return vf_scale(p, n);
}

VM_INLINE float highest(vf *m) {
  for (int k = 1; k < VECS; k++) m[0] = vf_max(m[k], m[0]);
  float best = m[0][0];
  for (int k = 1; k < VF_N; k++) best = m[0][k] > best ? m[0][k] : best;
  return best;
}

/* A NaN may be lost here: it comes back in the sum */
static float best_of(const float *x, int64_t n) {
  vf m[VECS];
  for (int k = 0; k < VECS; k++) m[k] = vf_load(x + k * VF_N);
  for (int64_t i = STEP; i < n; i += STEP)
    for (int k = 0; k < VECS; k++) m[k] = vf_max(vf_load(x + i + k * VF_N), m[k]);
  return highest(m);
}

/* last: how the last pass divides, or that there is none */
VM_INLINE void softmax_turn(turn *t, int64_t n, const int last, const bool mid, const bool past) {
  const vf of_mid = vf_set(t->of_mid);
  const vm_divisor by = t->by;
  const float *const ahead = t->ahead;
  vf sum[VECS], best[VECS], least[VECS];
  double total = 0;
  for (int k = 0; k < VECS; k++) sum[k] = vf_set(0), best[k] = vf_set(-INFINITY), least[k] = vf_set(1);
  for (int64_t lo = 0; lo < n; lo += BLOCK) {
    const int64_t hi = lo + BLOCK < n ? lo + BLOCK : n;
    for (int64_t i = lo; i < hi; i += STEP) {
      for (int k = 0; k < VECS; k++) {
        const int64_t at = i + k * VF_N;
        if (mid && k * VF_N % LINE == 0) fetch(ahead + at);
        if (last) {
          const vf e = vf_load(t->last + at);
          put(t->out + at, last == EASY ? vm_div_easily(e, &by) : vm_div_by(e, &by), past);
        }
        if (!mid) continue;
        const vf e = exp_below(vf_load(t->mid + at) - of_mid);
        vf_store(t->keep + at, e);
        sum[k] += e;
        least[k] = vf_min(e, least[k]);
        best[k] = vf_max(vf_load(t->first + at), best[k]);
      }
    }
    if (mid) total += take(sum);
  }
  if (!mid) return;
  t->sum_mid = total;
  t->best = highest(best);
  for (int k = 0; k < VECS; k++) least[k] = -least[k];
  t->least = -highest(least);
}

static const float *row_in(const rows *j, int64_t row) { return j->in + row * j->in_step; }

/* Beyond the element of the next row that is being read: rows mostly lie one behind the other */
static const float *row_ahead(const rows *j, int64_t row) {
  return row_in(j, row + 1 < j->count ? row + 1 : row) + LEAD;
}

VM_INLINE void softmax_rows(const rows *j, int64_t lo, int64_t hi, float *kept, const bool past) {
  turn t = {.of_mid = best_of(row_in(j, lo), j->n), .by = vm_divisor_of(1)};
  bool easy = false;
  for (int64_t r = lo; r < hi; r++) {
    t.mid = row_in(j, r);
    t.first = row_in(j, r + 1 < hi ? r + 1 : r);
    t.ahead = row_ahead(j, r);
    t.keep = kept + (r & 1) * j->n;
    t.last = kept + (~r & 1) * j->n;
    t.out = j->out + (r - 1) * j->out_step;
    if (r == lo)
      softmax_turn(&t, j->n, NONE, true, past);
    else if (easy)
      softmax_turn(&t, j->n, EASY, true, past);
    else
      softmax_turn(&t, j->n, CAREFUL, true, past);
    t.by = vm_divisor_of((float)t.sum_mid);
    easy = vm_easy(&t.by, t.least);
    t.of_mid = t.best;
  }
  t.last = t.keep;
  t.out = j->out + (hi - 1) * j->out_step;
  softmax_turn(&t, j->n, CAREFUL, false, past);
}

/* Where there is no scale or shift: 1 and -0, which change nothing */
VM_INLINE void norm_turn(turn *t, const rows *j, const bool last, const bool mid, const bool mean, const bool past) {
  const vf of_mid = vf_set(t->of_mid), last_shift = vf_set(t->last_shift);
  const vm_divisor by = t->by;
  const float *const ahead = t->ahead;
  const float *const scale = j->scale, *const shift = j->shift;
  const int64_t n = j->n;
  vf sum[VECS], squares[VECS];
  double total = 0, total_squares = 0;
  for (int k = 0; k < VECS; k++) sum[k] = squares[k] = vf_set(0);
  for (int64_t lo = 0; lo < n; lo += BLOCK) {
    const int64_t hi = lo + BLOCK < n ? lo + BLOCK : n;
    for (int64_t i = lo; i < hi; i += STEP) {
      for (int k = 0; k < VECS; k++) {
        const int64_t at = i + k * VF_N;
        if (mid && k * VF_N % LINE == 0) fetch(ahead + at);
        if (last) {
          const vf y = vm_div_by(vf_load(t->last + at) - last_shift, &by);
          const vf times = scale ? vf_load(scale + at) : vf_set(1), plus = shift ? vf_load(shift + at) : vf_set(-0.0f);
          put(t->out + at, y * times + plus, past);
        }
        if (!mid) continue;
        const vf c = vf_load(t->mid + at) - of_mid;
        squares[k] += c * c;
        if (mean) sum[k] += vf_load(t->first + at);
      }
    }
    if (mid) total_squares += take(squares);
    if (mid && mean && (hi % BARE == 0 || hi == n)) total += take(sum);
  }
  t->sum_mid = total_squares;
  t->sum_first = total;
}

static float mean_of(const rows *j, const float *x) {
  vf s[VECS];
  double total = 0;
  if (!j->mean) return 0;
  for (int k = 0; k < VECS; k++) s[k] = vf_set(0);
  for (int64_t lo = 0; lo < j->n; lo += BARE) {
    const int64_t hi = lo + BARE < j->n ? lo + BARE : j->n;
    for (int64_t i = lo; i < hi; i += STEP)
      for (int k = 0; k < VECS; k++) s[k] += vf_load(x + i + k * VF_N);
    total += take(s);
  }
  return (float)total / j->size;
}

VM_INLINE void norm_rows(const rows *j, int64_t lo, int64_t hi, const bool mean, const bool past) {
  turn t = {.of_mid = mean_of(j, row_in(j, lo)), .by = vm_divisor_of(1)};
  for (int64_t r = lo; r < hi; r++) {
    t.mid = row_in(j, r);
    t.first = row_in(j, r + 1 < hi ? r + 1 : r);
    t.ahead = row_ahead(j, r);
    t.out = j->out + (r - 1) * j->out_step;
    if (r == lo)
      norm_turn(&t, j, false, true, mean, past);
    else
      norm_turn(&t, j, true, true, mean, past);
    t.by = vm_divisor_of(sqrtf((float)t.sum_mid / j->size_squares + j->epsilon));
    t.last_shift = t.of_mid;
    t.last = t.mid;
    t.of_mid = mean ? (float)t.sum_first / j->size : 0;
  }
  t.out = j->out + (hi - 1) * j->out_step;
  norm_turn(&t, j, true, false, mean, past);
}

static void run_softmax(void *ctx, int64_t lo, int64_t hi) {
  rows *const j = ctx;
  float *const kept = cpu_scratch(CPU_SCRATCH_PIECE, 2 * (size_t)j->n * sizeof *kept);
  if (!kept) {
    atomic_store(&j->oom, true);
    return;
  }
  if (!j->bypass) {
    softmax_rows(j, lo, hi, kept, false);
    return;
  }
  softmax_rows(j, lo, hi, kept, true);
  x_stream_end();
}

static void run_norm(void *ctx, int64_t lo, int64_t hi) {
  const rows *const j = ctx;
  if (!j->bypass)
    j->mean ? norm_rows(j, lo, hi, true, false) : norm_rows(j, lo, hi, false, false);
  else
    j->mean ? norm_rows(j, lo, hi, true, true) : norm_rows(j, lo, hi, false, true);
  if (j->bypass) x_stream_end();
}

/* ---- is it one? ---- */

static bool is_map(const r_nest *r, const x_item *it, uint32_t op, int32_t a, int32_t b) {
  if (it->kind != X_MAP || it->dtype != TERN_F32 || it->in_dtype != TERN_F32) return false;
  return r->plan->plan->region->nodes[r->x->nest->val[it->val].node].op == op && it->in[0] == a &&
         (it->n_in == 1 || it->in[1] == b);
}

static bool is_either(const r_nest *r, const x_item *it, uint32_t op, int32_t a, int32_t b) {
  return is_map(r, it, op, a, b) || is_map(r, it, op, b, a);
}

static bool is_fold(const r_nest *r, const x_item *it, uint32_t op, int32_t a) {
  return it->kind == X_REDUCE && it->dtype == TERN_F32 && it->in[0] == a &&
         r->plan->plan->region->nodes[r->x->nest->val[it->val].node].op == op;
}

static bool is_load(const r_nest *r, const x_item *it) {
  if (it->kind != X_LOAD || it->dtype != TERN_F32) return false;
  const x_stream *const s = &r->x->stream[it->stream];
  return s->kind == S_MEM && !s->kept;
}

/* A row's elements one after another */
static bool dense(const r_nest *r, int32_t stream) {
  return r->x->stream[stream].kind == S_MEM && r->stream[stream].lane == (int64_t)sizeof(float);
}

static bool find_ends(rows *j, const r_nest *r, const x_item *load, const x_item *store, int32_t val) {
  if (store->kind != X_STORE || store->in[0] != val || store->dtype != TERN_F32) return false;
  if (!dense(r, load->stream) || !dense(r, store->stream)) return false;
  const r_stream *const from = &r->stream[load->stream], *const to = &r->stream[store->stream];
  const int64_t item = (int64_t)sizeof(float), bytes = j->n * j->count * 2 * item;
  if (bytes < FROM || from->outer[0] % item || to->outer[0] % item) return false;
  j->in = (const float *)(intptr_t)from->base;
  j->out = (float *)(intptr_t)to->base;
  j->in_step = from->outer[0] / item;
  j->out_step = to->outer[0] / item;
  j->bypass = bytes >= BYPASS_FROM && j->in != j->out && (to->base | to->outer[0]) % 64 == 0;
  return true;
}

/* max(x); e = exp(x - max), kept, and its sum; e / sum */
static bool find_softmax(rows *j, const r_nest *r) {
  const x_nest *const x = r->x;
  if (x->n_red != 2 || x->phase[1].n || x->phase[2].n) return false;
  const x_list *const p = x->pass;
  if (p[0].n != 2 || p[1].n != 5 || p[2].n != 3) return false;
  const x_item *const a = p[0].item, *const b = p[1].item, *const c = p[2].item;
  const int32_t in = (int32_t)a[0].val, best = (int32_t)a[1].val;
  if (!is_load(r, &a[0]) || !is_fold(r, &a[1], TERN_OP_AMAX, in)) return false;
  if (!is_load(r, &b[0]) || (int32_t)b[0].val != in) return false;
  const int32_t e = (int32_t)b[2].val, sum = (int32_t)b[3].val;
  if (!is_map(r, &b[1], TERN_OP_SUB, in, best) || !is_map(r, &b[2], TERN_OP_EXP, (int32_t)b[1].val, X_NONE) ||
      !is_fold(r, &b[3], TERN_OP_SUM, e))
    return false;
  if (b[4].kind != X_STORE || b[4].in[0] != e) return false;
  const x_stream *const keep = &x->stream[b[4].stream];
  if (keep->kind == S_MEM && !keep->kept) return false; /* a result that is wanted */
  return c[0].kind == X_LOAD && (int32_t)c[0].val == e && is_map(r, &c[1], TERN_OP_DIV, e, sum) &&
         find_ends(j, r, &a[0], &c[2], (int32_t)c[1].val);
}

static bool number(const r_nest *r, int32_t val, float *out) {
  if (!r->at[val]) return false;
  memcpy(out, r->at[val], sizeof *out);
  return true;
}

/* An operand that is the same in every row */
static bool find_side(const r_nest *r, const x_item *it, const float **out) {
  if (!is_load(r, it) || !dense(r, it->stream) || r->stream[it->stream].outer[0]) return false;
  *out = (const float *)(intptr_t)r->stream[it->stream].base;
  return true;
}

/* deviation = sqrt(sum((x - mean)^2) / size + epsilon); centred: value of x - mean, X_NONE: x itself */
static bool find_deviation(rows *j, const r_nest *r, const x_list *pass, const x_list *phase, int32_t in, int32_t mean,
                           int32_t *deviation) {
  const x_item *it = pass->item;
  const uint32_t more = j->mean;
  if (pass->n != 3 + more || phase->n != 3 || !is_load(r, it) || (int32_t)it->val != in) return false;
  if (more && !is_map(r, ++it, TERN_OP_SUB, in, mean)) return false;
  const int32_t c = (int32_t)it->val;
  if (!is_map(r, it + 1, TERN_OP_MUL, c, c) || !is_fold(r, it + 2, TERN_OP_SUM, (int32_t)it[1].val)) return false;
  const x_item *const q = phase->item;
  const int32_t sum = (int32_t)it[2].val;
  if (!is_map(r, &q[0], TERN_OP_DIV, sum, q[0].in[1]) || !number(r, q[0].in[1], &j->size_squares)) return false;
  const int32_t variance = (int32_t)q[0].val, other = q[1].in[0] == variance ? q[1].in[1] : q[1].in[0];
  if (!is_either(r, &q[1], TERN_OP_ADD, variance, other) || !number(r, other, &j->epsilon)) return false;
  *deviation = (int32_t)q[2].val;
  return is_map(r, &q[2], TERN_OP_SQRT, (int32_t)q[1].val, X_NONE);
}

/* (x - mean) / deviation, then maybe * scale, then maybe + shift. Loads come anywhere */
static bool find_result(rows *j, const r_nest *r, const x_list *l, int32_t in, int32_t mean, int32_t deviation) {
  const x_item *load = NULL;
  const float *side[2] = {NULL, NULL};
  int32_t side_val[2] = {X_NONE, X_NONE}, value = X_NONE;
  uint32_t n_sides = 0, state = 0; /* 0: x, 1: centred, 2: divided, 3: scaled, 4: shifted */
  for (uint32_t i = 0; i + 1 < l->n; i++) {
    const x_item *const it = &l->item[i];
    const int32_t newest = n_sides ? side_val[n_sides - 1] : X_NONE;
    if (it->kind == X_LOAD && (int32_t)it->val == in) {
      if (!is_load(r, it)) return false;
      load = it;
      value = in;
      state = j->mean ? 0 : 1;
      continue;
    }
    if (it->kind == X_LOAD) {
      if (n_sides == 2 || !find_side(r, it, &side[n_sides])) return false;
      side_val[n_sides++] = (int32_t)it->val;
      continue;
    }
    if (!load) return false;
    if (state == 0 && is_map(r, it, TERN_OP_SUB, value, mean)) {
      state = 1;
    } else if (state == 1 && is_map(r, it, TERN_OP_DIV, value, deviation)) {
      state = 2;
    } else if (state == 2 && n_sides && !j->scale && is_either(r, it, TERN_OP_MUL, value, newest)) {
      j->scale = side[n_sides - 1];
      state = 3;
    } else if ((state == 2 || state == 3) && n_sides && is_either(r, it, TERN_OP_ADD, value, newest) &&
               side[n_sides - 1] != j->scale) {
      j->shift = side[n_sides - 1];
      state = 4;
    } else {
      return false;
    }
    value = (int32_t)it->val;
  }
  const uint32_t used = (j->scale != NULL) + (j->shift != NULL);
  return state >= 2 && used == n_sides && find_ends(j, r, load, &l->item[l->n - 1], value);
}

static bool find_norm(rows *j, const r_nest *r) {
  const x_nest *const x = r->x;
  j->mean = x->nest->n_pass == 3;
  int32_t in, mean = X_NONE, deviation;
  uint32_t p = 0;
  if (x->n_red != x->nest->n_pass - 1 || x->pass[0].n < 2 || !is_load(r, &x->pass[0].item[0])) return false;
  in = (int32_t)x->pass[0].item[0].val;
  if (j->mean) {
    const x_list *const q = &x->phase[1];
    if (x->pass[0].n != 2 || !is_fold(r, &x->pass[0].item[1], TERN_OP_SUM, in) || q->n != 1 ||
        !is_map(r, &q->item[0], TERN_OP_DIV, (int32_t)x->pass[0].item[1].val, q->item[0].in[1]) ||
        !number(r, q->item[0].in[1], &j->size))
      return false;
    mean = (int32_t)q->item[0].val;
    p = 1;
  }
  return find_deviation(j, r, &x->pass[p], &x->phase[p + 1], in, mean, &deviation) &&
         find_result(j, r, &x->pass[p + 1], in, mean, deviation);
}

bool x_try_rows(const r_nest *r, bool *oom) {
  const uint32_t n_pass = r->x->nest->n_pass;
  if (r->mapping != M_ROW || r->n_outer != 1 || r->n_red || r->split || (n_pass != 2 && n_pass != 3) ||
      r->lanes % STEP || r->lanes > LONGEST || r->x->phase[0].n || r->x->phase[n_pass].n)
    return false;
  rows j = {.n = r->lanes, .count = r->outer[0]};
  const bool softmax = n_pass == 3 && find_softmax(&j, r);
  if (!softmax && !find_norm(&j, r)) return false;
  atomic_init(&j.oom, false);
  const int64_t grain = PIECE / j.n;
  cpu_parallel(j.count, grain > 0 ? grain : 1, softmax ? run_softmax : run_norm, &j);
  *oom = atomic_load(&j.oom);
  return true;
}
