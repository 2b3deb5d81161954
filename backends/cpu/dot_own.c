/* DOT in float32 and float64 by our own loops: register tiles for small products (a library call alone costs more
   than a 2x2x2), vector times matrix, and blocked products where no BLAS was built in. */
#include "dot.h"
#include "dot_half.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <string.h>

#ifdef __clang__
#define DOT_UNROLL _Pragma("unroll")
#define DOT_UNROLL_4 _Pragma("unroll 4")
#else
#define DOT_UNROLL _Pragma("GCC unroll 8")
#define DOT_UNROLL_4 _Pragma("GCC unroll 4")
#endif

enum { DOT_K_BLOCK = 256, DOT_STACK = 4096 /* elements of one operand of a small product: 64 x 64 */ };

/* ---- vectors of the instruction set that this file is compiled for ---- */
#if defined(__AVX512F__)
#define DOT_WIDE 1
typedef __m512 vf32;
typedef __m512d vf64;
enum { W_F32 = 16, W_F64 = 8 };
static inline vf32 load_f32(const float *p) { return _mm512_loadu_ps(p); }
static inline vf32 load_n_f32(const float *p, int n) { return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
static inline void store_f32(float *p, vf32 v) { _mm512_storeu_ps(p, v); }
static inline void store_n_f32(float *p, vf32 v, int n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), v); }
static inline vf32 fma_f32(vf32 a, vf32 b, vf32 c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf32 splat_f32(float x) { return _mm512_set1_ps(x); }
static inline vf64 load_f64(const double *p) { return _mm512_loadu_pd(p); }
static inline vf64 load_n_f64(const double *p, int n) { return _mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1), p); }
static inline void store_f64(double *p, vf64 v) { _mm512_storeu_pd(p, v); }
static inline void store_n_f64(double *p, vf64 v, int n) { _mm512_mask_storeu_pd(p, (__mmask8)((1u << n) - 1), v); }
static inline vf64 fma_f64(vf64 a, vf64 b, vf64 c) { return _mm512_fmadd_pd(a, b, c); }
static inline vf64 splat_f64(double x) { return _mm512_set1_pd(x); }
#elif defined(__AVX2__) && defined(__FMA__)
#define DOT_WIDE 0
typedef __m256 vf32;
typedef __m256d vf64;
enum { W_F32 = 8, W_F64 = 4 };
static inline __m256i first_32(int n) { /* mask of the first n lanes */
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline __m256i first_64(int n) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}
static inline vf32 load_f32(const float *p) { return _mm256_loadu_ps(p); }
static inline vf32 load_n_f32(const float *p, int n) { return _mm256_maskload_ps(p, first_32(n)); }
static inline void store_f32(float *p, vf32 v) { _mm256_storeu_ps(p, v); }
static inline void store_n_f32(float *p, vf32 v, int n) { _mm256_maskstore_ps(p, first_32(n), v); }
static inline vf32 fma_f32(vf32 a, vf32 b, vf32 c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf32 splat_f32(float x) { return _mm256_set1_ps(x); }
static inline vf64 load_f64(const double *p) { return _mm256_loadu_pd(p); }
static inline vf64 load_n_f64(const double *p, int n) { return _mm256_maskload_pd(p, first_64(n)); }
static inline void store_f64(double *p, vf64 v) { _mm256_storeu_pd(p, v); }
static inline void store_n_f64(double *p, vf64 v, int n) { _mm256_maskstore_pd(p, first_64(n), v); }
static inline vf64 fma_f64(vf64 a, vf64 b, vf64 c) { return _mm256_fmadd_pd(a, b, c); }
static inline vf64 splat_f64(double x) { return _mm256_set1_pd(x); }
#else
#define DOT_WIDE 0
typedef float vf32 __attribute__((vector_size(16)));
typedef double vf64 __attribute__((vector_size(16)));
enum { W_F32 = 4, W_F64 = 2 };
static inline vf32 load_n_f32(const float *p, int n) {
  vf32 v = {0};
  memcpy(&v, p, (size_t)n * sizeof *p);
  return v;
}
static inline vf32 load_f32(const float *p) {
  vf32 v;
  memcpy(&v, p, sizeof v);
  return v;
}
static inline void store_f32(float *p, vf32 v) { memcpy(p, &v, sizeof v); }
static inline void store_n_f32(float *p, vf32 v, int n) { memcpy(p, &v, (size_t)n * sizeof *p); }
static inline vf32 fma_f32(vf32 a, vf32 b, vf32 c) { return a * b + c; }
static inline vf32 splat_f32(float x) { return (vf32){x, x, x, x}; }
static inline vf64 load_n_f64(const double *p, int n) {
  vf64 v = {0};
  memcpy(&v, p, (size_t)n * sizeof *p);
  return v;
}
static inline vf64 load_f64(const double *p) {
  vf64 v;
  memcpy(&v, p, sizeof v);
  return v;
}
static inline void store_f64(double *p, vf64 v) { memcpy(p, &v, sizeof v); }
static inline void store_n_f64(double *p, vf64 v, int n) { memcpy(p, &v, (size_t)n * sizeof *p); }
static inline vf64 fma_f64(vf64 a, vf64 b, vf64 c) { return a * b + c; }
static inline vf64 splat_f64(double x) { return (vf64){x, x}; }
#endif

#define T float
#define V vf32
#define W W_F32
#define NAME(x) x##_f32
#include "dot_tile.h"
#define T double
#define V vf64
#define W W_F64
#define NAME(x) x##_f64
#include "dot_tile.h"

static void block(uint32_t dtype, int64_t m, int64_t n, int64_t k, const char *a, int64_t am, int64_t ak, const char *b,
                  int64_t bk, char *o, int64_t om, bool add) {
  if (dtype != TERN_F64)
    dot_block_f32(m, n, k, (const float *)a, am, ak, (const float *)b, bk, (float *)o, om, add);
  else
    dot_block_f64(m, n, k, (const double *)a, am, ak, (const double *)b, bk, (double *)o, om, add);
}

/* dst[r][c] (dense rows of c) = src; float16 and bfloat16 become float32 */
static void gather2(uint32_t dtype, int64_t r, int64_t c, void *dst, const void *src, int64_t row, int64_t col) {
  for (int64_t i = 0; i < r; i++)
    for (int64_t j = 0; j < c; j++) {
      const int64_t at = i * row + j * col;
      if (dtype == TERN_F32)
        ((float *)dst)[i * c + j] = ((const float *)src)[at];
      else if (dtype == TERN_F64)
        ((double *)dst)[i * c + j] = ((const double *)src)[at];
      else if (dtype == TERN_F16)
        ((float *)dst)[i * c + j] = from_f16(((const uint16_t *)src)[at]);
      else
        ((float *)dst)[i * c + j] = from_bf16(((const uint16_t *)src)[at]);
    }
}

/* The way back */
static void scatter2(uint32_t dtype, int64_t r, int64_t c, void *dst, int64_t row, int64_t col, const void *src) {
  for (int64_t i = 0; i < r; i++)
    for (int64_t j = 0; j < c; j++) {
      const int64_t at = i * row + j * col;
      if (dtype == TERN_F32)
        ((float *)dst)[at] = ((const float *)src)[i * c + j];
      else if (dtype == TERN_F64)
        ((double *)dst)[at] = ((const double *)src)[i * c + j];
      else if (dtype == TERN_F16)
        ((uint16_t *)dst)[at] = to_f16(((const float *)src)[i * c + j]);
      else
        ((uint16_t *)dst)[at] = to_bf16(((const float *)src)[i * c + j]);
    }
}

/* The stack lies in here alone, so that a call that needs none does not pay for it */
static __attribute__((noinline)) void small_packed(const struct dot_job *j, const char *a, const char *b, char *o) {
  _Alignas(64) char bbuf[DOT_STACK * sizeof(double)], obuf[DOT_STACK * sizeof(double)];
  int64_t bk = j->b.row, om = j->o.row;
  const bool pack_o = j->o.col != 1 && j->n > 1;
  if (j->b.col != 1 && j->n > 1) {
    gather2(j->in, j->k, j->n, bbuf, b, j->b.row, j->b.col);
    b = bbuf, bk = j->n;
  }
  if (pack_o) om = j->n;
  block(j->in, j->m, j->n, j->k, a, j->a.row, j->a.col, b, bk, pack_o ? obuf : o, om, false);
  if (pack_o) scatter2(j->in, j->m, j->n, o, j->o.row, j->o.col, obuf);
}

void dot_small(const struct dot_job *j, int64_t item) {
  const size_t size = j->in == TERN_F32 ? 4 : 8;
  const char *a = j->a.p, *b = j->b.p;
  char *o = j->o.p;
  if (item) {
    a = dot_item(j, &j->a, item, size);
    b = dot_item(j, &j->b, item, size);
    o = dot_item(j, &j->o, item, size);
  }
  if ((j->b.col == 1 || j->n == 1) && (j->o.col == 1 || j->n == 1)) {
    block(j->in, j->m, j->n, j->k, a, j->a.row, j->a.col, b, j->b.row, o, j->o.row, false);
    return;
  }
  small_packed(j, a, b, o);
}

/* ---- blocked product: any strides, every float dtype ---- */
enum { OWN_ROWS = 96, OWN_COLS = 64 };
struct own {
  const struct dot_job *j;
  int64_t m_blocks, n_blocks;
};

/* One tile of an output. b always goes through a panel; a through one if it must be converted; the output through a
   tile unless it can be added to where it lies */
static void own_tile(const struct dot_job *j, int64_t m, int64_t n, const char *a, const char *b, char *o) {
  _Alignas(64) char panel[DOT_K_BLOCK * OWN_COLS * sizeof(double)], tile[OWN_ROWS * OWN_COLS * sizeof(double)];
  _Alignas(64) float a_panel[OWN_ROWS * DOT_K_BLOCK];
  const int64_t size = (int64_t)cpu_item_size(j->in);
  const bool half = j->in != TERN_F32 && j->in != TERN_F64;
  const bool direct = !half && (j->o.col == 1 || j->n == 1);
  for (int64_t p = 0; p < j->k; p += DOT_K_BLOCK) {
    const int64_t len = j->k - p < DOT_K_BLOCK ? j->k - p : DOT_K_BLOCK;
    const char *from = a + p * j->a.col * size;
    int64_t am = j->a.row, ak = j->a.col;
    gather2(j->in, len, n, panel, b + p * j->b.row * size, j->b.row, j->b.col);
    if (half) {
      gather2(j->in, m, len, a_panel, from, am, ak);
      from = (const char *)a_panel, am = len, ak = 1;
    }
    block(j->in, m, n, len, from, am, ak, panel, n, direct ? o : tile, direct ? j->o.row : n, p > 0);
  }
  if (!direct) scatter2(j->in, m, n, o, j->o.row, j->o.col, tile);
}

static void own_piece(void *ctx, int64_t lo, int64_t hi) {
  const struct own *const w = ctx;
  const struct dot_job *const j = w->j;
  const int64_t size = (int64_t)cpu_item_size(j->in), tiles = w->m_blocks * w->n_blocks;
  for (int64_t t = lo; t < hi; t++) {
    const int64_t item = t / tiles, i0 = t % tiles / w->n_blocks * OWN_ROWS, j0 = t % w->n_blocks * OWN_COLS;
    const int64_t m = j->m - i0 < OWN_ROWS ? j->m - i0 : OWN_ROWS, n = j->n - j0 < OWN_COLS ? j->n - j0 : OWN_COLS;
    own_tile(j, m, n, dot_item(j, &j->a, item, (size_t)size) + i0 * j->a.row * size,
             dot_item(j, &j->b, item, (size_t)size) + j0 * j->b.col * size,
             dot_item(j, &j->o, item, (size_t)size) + (i0 * j->o.row + j0 * j->o.col) * size);
  }
}

void dot_own(const struct dot_job *j) {
  struct own w = {.j = j, .m_blocks = (j->m + OWN_ROWS - 1) / OWN_ROWS, .n_blocks = (j->n + OWN_COLS - 1) / OWN_COLS};
  const int64_t work = (j->m < OWN_ROWS ? j->m : OWN_ROWS) * (j->n < OWN_COLS ? j->n : OWN_COLS) * j->k;
  cpu_parallel(j->items * w.m_blocks * w.n_blocks, work > 65536 ? 1 : 65536 / work + 1, own_piece, &w);
}

/* ---- few rows ---- */
enum { STRIP_ROWS = 64, STRIP_COLS = 64, STRIP_K = 4096 };

bool dot_strip_fits(const struct dot_job *j) {
  return j->in == j->out && (j->in == TERN_F32 || j->in == TERN_F64) && j->m <= STRIP_ROWS && j->k <= STRIP_K &&
         j->n >= STRIP_COLS / 2 && j->b.col == 1 && j->o.col == 1;
}

static void strip_piece(void *ctx, int64_t lo, int64_t hi) {
  const struct dot_job *const j = ctx;
  const size_t size = j->in == TERN_F32 ? 4 : 8;
  const int64_t blocks = (j->n + STRIP_COLS - 1) / STRIP_COLS;
  for (int64_t t = lo; t < hi; t++) {
    const int64_t item = t / blocks, j0 = t % blocks * STRIP_COLS, n = j->n - j0 < STRIP_COLS ? j->n - j0 : STRIP_COLS;
    block(j->in, j->m, n, j->k, dot_item(j, &j->a, item, size), j->a.row, j->a.col,
          dot_item(j, &j->b, item, size) + j0 * (int64_t)size, j->b.row,
          dot_item(j, &j->o, item, size) + j0 * (int64_t)size, j->o.row, false);
  }
}

bool dot_strip(const struct dot_job *j, int threads) {
  if (!dot_strip_fits(j)) return false;
  const int64_t blocks = (j->n + STRIP_COLS - 1) / STRIP_COLS;
  cpu_parallel_held(threads, j->items * blocks, 1, strip_piece, (void *)(uintptr_t)j);
  return true;
}

/* ---- vector times matrix ---- */
enum { VEC_COLS = 512, VEC_SPLIT_MAX = 256 };
struct vec {
  const struct dot_job *j;
  char layout;
  int64_t ld, blocks, k_step;
  double *partial; /* of the single dot product in pieces */
};

static void vec_piece(void *ctx, int64_t lo, int64_t hi) {
  const struct vec *const w = ctx;
  const struct dot_job *const j = w->j;
  const size_t size = j->in == TERN_F32 ? 4 : 8;
  for (int64_t t = lo; t < hi; t++) {
    const int64_t item = t / w->blocks, j0 = t % w->blocks * VEC_COLS, n = j->n - j0 < VEC_COLS ? j->n - j0 : VEC_COLS;
    const char *const a = dot_item(j, &j->a, item, size), *b = dot_item(j, &j->b, item, size);
    char *const o = dot_item(j, &j->o, item, size) + j0 * (int64_t)size;
    b += j0 * (w->layout == 'N' ? 1 : w->ld) * (int64_t)size;
    if (w->layout == 'N')
      block(j->in, 1, n, j->k, a, 0, j->a.col, b, w->ld, o, 0, false);
    else if (j->in == TERN_F32)
      dots_f32(n, j->k, (const float *)a, (const float *)b, w->ld, (float *)o);
    else
      dots_f64(n, j->k, (const double *)a, (const double *)b, w->ld, (double *)o);
  }
}

static void split_piece(void *ctx, int64_t lo, int64_t hi) {
  const struct vec *const w = ctx;
  const struct dot_job *const j = w->j;
  for (int64_t t = lo; t < hi; t++) {
    const int64_t p = t * w->k_step, len = j->k - p < w->k_step ? j->k - p : w->k_step;
    if (j->in == TERN_F32) {
      float y;
      dots_f32(1, len, (const float *)j->a.p + p, (const float *)j->b.p + p, 0, &y);
      w->partial[t] = (double)y;
    } else {
      dots_f64(1, len, (const double *)j->a.p + p, (const double *)j->b.p + p, 0, &w->partial[t]);
    }
  }
}

/* One long dot product: pieces of k whose length depends on k alone */
static void vec_split(struct vec *w) {
  const struct dot_job *const j = w->j;
  double partial[VEC_SPLIT_MAX], sum = 0;
  w->partial = partial;
  w->k_step = j->k / VEC_SPLIT_MAX + 1 > 32768 ? j->k / VEC_SPLIT_MAX + 1 : 32768;
  const int64_t pieces = (j->k + w->k_step - 1) / w->k_step;
  cpu_parallel(pieces, 1, split_piece, w);
  for (int64_t i = 0; i < pieces; i++) sum += partial[i];
  if (j->in == TERN_F32)
    *(float *)j->o.p = (float)sum;
  else
    *(double *)j->o.p = sum;
}

void dot_vector(const struct dot_job *j) {
  struct vec w = {.j = j, .blocks = (j->n + VEC_COLS - 1) / VEC_COLS};
  w.layout = j->n > 1 && j->b.col == 1 ? 'N' : 'T';
  w.ld = w.layout == 'N' ? j->b.row : j->b.col;
  if (j->items == 1 && j->n == 1 && j->k >= 65536) {
    vec_split(&w);
    return;
  }
  const int64_t work = (j->n < VEC_COLS ? j->n : VEC_COLS) * j->k;
  cpu_parallel(j->items * w.blocks, work > 16384 ? 1 : 16384 / work + 1, vec_piece, &w);
}
