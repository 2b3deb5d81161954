/* What the files of DOT share. dot.c turns a launch into a dot_job (one batched product with all numbers known),
   dot_pack.c makes its operands fit for the libraries, dot_lib.c runs it there, dot_own.c and dot_int.c are our own
   loops. */
#ifndef TERN_CPU_DOT_H_
#define TERN_CPU_DOT_H_
#include "cpu.h"

#ifndef TERN_CPU_ONEDNN
#define TERN_CPU_ONEDNN 1
#endif
#ifndef TERN_CPU_OPENBLAS
#define TERN_CPU_OPENBLAS 1
#endif

enum { DOT_BATCH_MAX = TERN_MAX_RANK - 2 };

/* One matrix of a stack of them; strides in elements */
struct dot_mat {
  char *p;
  int64_t row, col;
  int64_t batch[DOT_BATCH_MAX]; /* 0 = the same matrix again */
};

/* o[s] = a[s] b[s] for every index s of the batch; a: [m, k], b: [k, n], o: [m, n]. a and b have dtype in, o has
   dtype out */
struct dot_job {
  uint32_t in, out;
  int rank;               /* batch dims */
  int64_t m, n, k, items; /* items: product of size */
  int64_t size[DOT_BATCH_MAX];
  struct dot_mat a, b, o;
};

/* How a matrix of r x c lies: rows contiguous ('N'), columns contiguous ('T'), or neither (0). *ld: its leading
   dimension */
char dot_layout(const struct dot_mat *x, int64_t r, int64_t c, int64_t *ld);
/* Address of item `i` (row-major over the batch) */
char *dot_item(const struct dot_job *j, const struct dot_mat *x, int64_t i, size_t item_size);

/* ---- dot_pack.c ---- */
/* dst = src for all r x c matrices of the batch dims rank/size, converting float16 or bfloat16 to and from float32.
   Both are of the same number of items; parallel over rows */
struct dot_copy {
  struct dot_mat dst, src;
  uint32_t dst_dtype, src_dtype;
  int64_t r, c;
  int rank;
  int64_t size[DOT_BATCH_MAX];
};
void dot_copy(const struct dot_copy *c);

/* ---- dot_own.c: float32 and float64 ---- */
/* o = a b of one item, b and o with contiguous rows (col strides 1), any strides in a; one thread. add: o += a b */
void dot_block_f32(int64_t m, int64_t n, int64_t k, const float *a, int64_t am, int64_t ak, const float *b, int64_t bk,
                   float *o, int64_t om, bool add);
void dot_block_f64(int64_t m, int64_t n, int64_t k, const double *a, int64_t am, int64_t ak, const double *b,
                   int64_t bk, double *o, int64_t om, bool add);
/* Is an item small enough for dot_small to win over the libraries? Measured against the small-matrix kernels of
   OpenBLAS 0.3.21 */
static inline bool dot_is_small(int64_t m, int64_t n, int64_t k) {
  return m <= 64 && n <= 64 && k <= 64 && m * n * k <= 32 * 32 * 32;
}
/* The same where nothing has to be rearranged: with 32 vector registers our tiles keep up with the libraries' kernels
   up to here, so that the cost of calling these decides */
static inline bool dot_is_quick(int64_t m, int64_t n, int64_t k) {
#if defined(__AVX512F__)
  return m <= 64 && n <= 64 && k <= 64;
#else
  return dot_is_small(m, n, k);
#endif
}
/* One small item of any strides, on the calling thread */
void dot_small(const struct dot_job *j, int64_t item);
/* The whole job, every float dtype (in == out), any strides; parallel, no workspace. About half the speed of a
   library */
void dot_own(const struct dot_job *j);

/* Few rows, b and the output with contiguous rows: nothing is packed; strips of columns on `threads` threads of the
   pool, which the caller has. false: it does not fit */
bool dot_strip_fits(const struct dot_job *j);
/* Is it faster than the libraries, which pack b? Measured against oneDNN 2.6 with 32 vector registers: 3/4 of its time
   at 16 x 128 x 512, while b stays in the cache of a core */
static inline bool dot_strip_wins(const struct dot_job *j) {
#if defined(__AVX512F__)
  return dot_strip_fits(j) && j->in == TERN_F32 && j->k * j->n <= 1 << 18;
#else
  (void)j;
  return false;
#endif
}
bool dot_strip(const struct dot_job *j, int threads);
/* m == 1, o.col == 1: vector times matrix. b.col == 1, or k contiguous in a and b (a.col == 1, b.row == 1; any when k
   == 1) */
void dot_vector(const struct dot_job *j);

/* ---- dot_int.c: every integer dtype, any strides ---- */
void dot_int(const struct dot_job *j);

/* ---- dot_lib.c ---- */
struct dot_cache;
struct dot_cache *dot_cache_new(void);
void dot_cache_free(struct dot_cache *c);
/* The whole job by the fastest way known; in and out as dot_lib_has says. Each matrix laid out as dot_layout says 'N'
   or 'T', o 'N'. fixed: choose by rule, not by the clock */
void dot_lib(const struct dot_job *j, struct dot_cache *cache, bool fixed);
/* Does dot_lib take these dtypes as they are? */
bool dot_lib_has(uint32_t in, uint32_t out);

/* ---- dot_dnnl.c ---- */
struct dot_prim;
bool dot_prim_has(uint32_t in, uint32_t out);
/* A oneDNN matmul for exactly the sizes and strides of j, for the number of OpenMP threads now set; NULL: oneDNN has
   no good one */
struct dot_prim *dot_prim_new(const struct dot_job *j);
bool dot_prim_run(struct dot_prim *p, const struct dot_job *j);
/* Does oneDNN's own sgemm take the job, and is it the one to ask for: float32, large, b not transposed (for which it is
   slow). For such it is 5 to 10 % faster than the matmul primitive */
bool dot_sgemm_fits(const struct dot_job *j);
/* The whole job by it, items one after the other, with the threads now set */
bool dot_sgemm_run(const struct dot_job *j);
void dot_prim_free(struct dot_prim *p);
#endif
