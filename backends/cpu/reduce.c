/* Reductions of contiguous rows and of columns for every element type; reduce_tmpl.h holds the loops. Integer
   arithmetic is done unsigned and at least 32 bits wide, so that it wraps without being undefined. */
#include "reduce.h"
#include <math.h>
#include <string.h>

enum { SUM_CHUNK = 4096, ARG_CHUNK = 4096 };
enum { SUM_FAR = 512 << 10, SUM_AHEAD = 2048 }; /* bytes: rows from which on sums prefetch, and how far ahead */
enum { K_SUM, K_PROD, K_MAX, K_MIN, K_ARGMAX, K_ARGMIN, N_KINDS };

typedef struct kind_fns {
  cpu_row_fn row;
  cpu_col_fn col;
  cpu_merge_fn merge;
} kind_fns;

/* The next loop's iterations touch different elements */
#if defined(__clang__)
#define CPU_IVDEP _Pragma("clang loop vectorize(assume_safety)")
#else
#define CPU_IVDEP _Pragma("GCC ivdep")
#endif

#if defined(__AVX512F__)
#include <immintrin.h>
/* max keeps its second operand when one is a NaN, so NaNs are looked for beside it, two vectors at a time; n >= 64 */
#define FAST_F32(name)                                                                                           \
  static float fast_##name##_f32(const float *x, int64_t n) {                                                    \
    __m512 m[4];                                                                                                 \
    for (int k = 0; k < 4; k++) m[k] = _mm512_loadu_ps(x + 16 * k);                                              \
    __mmask16 nan = _mm512_cmp_ps_mask(m[0], m[1], _CMP_UNORD_Q) | _mm512_cmp_ps_mask(m[2], m[3], _CMP_UNORD_Q); \
    for (int64_t i = 64; i < n; i += 64) {                                                                       \
      if (i + 64 > n) i = n - 64; /* the last ones twice */                                                      \
      for (int k = 0; k < 4; k += 2) {                                                                           \
        const __m512 a = _mm512_loadu_ps(x + i + 16 * k), b = _mm512_loadu_ps(x + i + 16 * k + 16);              \
        nan |= _mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q);                                                           \
        m[k] = _mm512_##name##_ps(a, m[k]);                                                                      \
        m[k + 1] = _mm512_##name##_ps(b, m[k + 1]);                                                              \
      }                                                                                                          \
    }                                                                                                            \
    if (nan) return NAN;                                                                                         \
    return _mm512_reduce_##name##_ps(                                                                            \
        _mm512_##name##_ps(_mm512_##name##_ps(m[0], m[1]), _mm512_##name##_ps(m[2], m[3])));                     \
  }
FAST_F32(max)
FAST_F32(min)
#define FAST_BEST_F32(name, x, n) \
  if (n >= 64) return fast_##name##_f32(x, n);
/* The order of across_f32, in registers */
static inline double fast_across_f32(const void *v) {
  const __m512 a = _mm512_loadu_ps(v);
  const __m512d all = _mm512_add_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(a)),
                                    _mm512_cvtps_pd(_mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a), 1))));
  const __m256d four = _mm256_add_pd(_mm512_castpd512_pd256(all), _mm512_extractf64x4_pd(all, 1));
  const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
  return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}
#define FAST_ACROSS 1
#else
#define FAST_BEST_F32(name, x, n)
#endif

/* uvec: what a lane is added in; mask: what a comparison gives; AU: what one accumulator is computed in */
#define VEC(type) __attribute__((vector_size(64), aligned(sizeof(type)), may_alias))
typedef float uvec_f32 VEC(float);
typedef int32_t mask_f32 VEC(float);
#define T float
#define FAST_BEST(name, x, n) FAST_BEST_F32(name, x, n)
#define S f32
#define AU double
#define IS_FLOAT 1
#define LOWEST -INFINITY
#define HIGHEST INFINITY
#ifdef FAST_ACROSS
#define ACROSS fast_across_f32
#endif
#include "reduce_tmpl.h"

typedef double uvec_f64 VEC(double);
typedef int64_t mask_f64 VEC(double);
#define T double
#define FAST_BEST(name, x, n)
#define S f64
#define AU double
#define IS_FLOAT 1
#define LOWEST -INFINITY
#define HIGHEST INFINITY
#include "reduce_tmpl.h"

typedef uint8_t uvec_i8 VEC(int8_t);
typedef int8_t mask_i8 VEC(int8_t);
#define T int8_t
#define FAST_BEST(name, x, n)
#define S i8
#define AU uint32_t
#define IS_FLOAT 0
#define LOWEST INT8_MIN
#define HIGHEST INT8_MAX
#include "reduce_tmpl.h"

typedef uint8_t uvec_u8 VEC(uint8_t);
typedef int8_t mask_u8 VEC(uint8_t);
#define T uint8_t
#define FAST_BEST(name, x, n)
#define S u8
#define AU uint32_t
#define IS_FLOAT 0
#define LOWEST 0
#define HIGHEST UINT8_MAX
#include "reduce_tmpl.h"

typedef uint16_t uvec_i16 VEC(int16_t);
typedef int16_t mask_i16 VEC(int16_t);
#define T int16_t
#define FAST_BEST(name, x, n)
#define S i16
#define AU uint32_t
#define IS_FLOAT 0
#define LOWEST INT16_MIN
#define HIGHEST INT16_MAX
#include "reduce_tmpl.h"

typedef uint16_t uvec_u16 VEC(uint16_t);
typedef int16_t mask_u16 VEC(uint16_t);
#define T uint16_t
#define FAST_BEST(name, x, n)
#define S u16
#define AU uint32_t
#define IS_FLOAT 0
#define LOWEST 0
#define HIGHEST UINT16_MAX
#include "reduce_tmpl.h"

typedef uint32_t uvec_i32 VEC(int32_t);
typedef int32_t mask_i32 VEC(int32_t);
#define T int32_t
#define FAST_BEST(name, x, n)
#define S i32
#define AU uint32_t
#define IS_FLOAT 0
#define LOWEST INT32_MIN
#define HIGHEST INT32_MAX
#include "reduce_tmpl.h"

typedef uint32_t uvec_u32 VEC(uint32_t);
typedef int32_t mask_u32 VEC(uint32_t);
#define T uint32_t
#define FAST_BEST(name, x, n)
#define S u32
#define AU uint32_t
#define IS_FLOAT 0
#define LOWEST 0
#define HIGHEST UINT32_MAX
#include "reduce_tmpl.h"

typedef uint64_t uvec_i64 VEC(int64_t);
typedef int64_t mask_i64 VEC(int64_t);
#define T int64_t
#define FAST_BEST(name, x, n)
#define S i64
#define AU uint64_t
#define IS_FLOAT 0
#define LOWEST INT64_MIN
#define HIGHEST INT64_MAX
#include "reduce_tmpl.h"

typedef uint64_t uvec_u64 VEC(uint64_t);
typedef int64_t mask_u64 VEC(uint64_t);
#define T uint64_t
#define FAST_BEST(name, x, n)
#define S u64
#define AU uint64_t
#define IS_FLOAT 0
#define LOWEST 0
#define HIGHEST UINT64_MAX
#include "reduce_tmpl.h"

static const kind_fns *const by_dtype[TERN_DTYPE_END] = {
    [TERN_BOOL] = kinds_u8, [TERN_I8] = kinds_i8,   [TERN_I16] = kinds_i16, [TERN_I32] = kinds_i32,
    [TERN_I64] = kinds_i64, [TERN_U8] = kinds_u8,   [TERN_U16] = kinds_u16, [TERN_U32] = kinds_u32,
    [TERN_U64] = kinds_u64, [TERN_F32] = kinds_f32, [TERN_F64] = kinds_f64};

static int kind_of(uint32_t op) {
  switch (op) {
  case TERN_OP_SUM: return K_SUM;
  case TERN_OP_PROD: return K_PROD;
  case TERN_OP_AMAX:
  case TERN_OP_ANY: return K_MAX; /* of bytes 0 and 1 */
  case TERN_OP_AMIN:
  case TERN_OP_ALL: return K_MIN;
  case TERN_OP_ARGMAX: return K_ARGMAX;
  case TERN_OP_ARGMIN: return K_ARGMIN;
  default: return -1;
  }
}

static bool is_float(uint32_t dtype) { return dtype < TERN_DTYPE_END && (TERN_D_FLOAT >> dtype & 1); }

static tern_word lowest(uint32_t dtype) {
  if (is_float(dtype)) return (tern_word){.f = -INFINITY};
  if (!(TERN_D_SINT >> dtype & 1)) return (tern_word){.u = 0};
  return (tern_word){.i = INT64_MIN >> (64 - 8 * cpu_item_size(dtype))};
}

static tern_word highest(uint32_t dtype) {
  if (is_float(dtype)) return (tern_word){.f = INFINITY};
  if (dtype == TERN_BOOL) return (tern_word){.u = 1};
  const unsigned bits = 8 * (unsigned)cpu_item_size(dtype);
  if (TERN_D_SINT >> dtype & 1) return (tern_word){.i = INT64_MAX >> (64 - bits)};
  return (tern_word){.u = UINT64_MAX >> (64 - bits)};
}

static tern_word identity_of(int kind, uint32_t acc_dtype) {
  switch (kind) {
  case K_SUM: return (tern_word){.u = 0};
  case K_PROD: return is_float(acc_dtype) ? (tern_word){.f = 1} : (tern_word){.u = 1};
  case K_MAX:
  case K_ARGMAX: return lowest(acc_dtype);
  default: return highest(acc_dtype);
  }
}

tern_rc cpu_reduce_find(uint32_t op, uint32_t dtype, cpu_reduce *out) {
  const int kind = kind_of(op);
  if (kind < 0 || dtype == TERN_NO_DTYPE || dtype >= TERN_DTYPE_END) return TERN_E_UNSUPPORTED;
  if ((op == TERN_OP_ANY || op == TERN_OP_ALL) != (dtype == TERN_BOOL) &&
      (kind <= K_PROD || op == TERN_OP_ANY || op == TERN_OP_ALL))
    return TERN_E_UNSUPPORTED; /* ANY and ALL are of BOOL alone; SUM and PROD never */
  memset(out, 0, sizeof *out);
  out->in_dtype = dtype == TERN_F16 || dtype == TERN_BF16 ? TERN_F32 : dtype;
  out->acc_dtype = kind <= K_PROD && is_float(dtype) ? TERN_F64 : out->in_dtype;
  out->indexed = kind >= K_ARGMAX;
  out->out_dtype = out->indexed ? TERN_I64 : dtype;
  out->identity = identity_of(kind, out->acc_dtype);
  const kind_fns *const f = &by_dtype[out->in_dtype][kind];
  out->row = f->row;
  out->col = f->col;
  out->merge = f->merge;
  return TERN_OK;
}

static void spread(char *v, size_t item, int64_t n) { /* v[0] into v[1..n) by doubling */
  const size_t end = (size_t)n * item;
  for (size_t done = item; done < end;) {
    const size_t step = done < end - done ? done : end - done;
    memcpy(v + done, v, step);
    done += step;
  }
}

void cpu_reduce_start(const cpu_reduce *r, cpu_acc acc, int64_t n) {
  const size_t item = cpu_item_size(r->acc_dtype);
  char *const v = acc.v;
  cpu_word_store(v, r->acc_dtype, r->identity);
  spread(v, item, n);
  if (r->indexed)
    for (int64_t j = 0; j < n; j++) acc.i[j] = INT64_MAX;
}

void cpu_reduce_finish(const cpu_reduce *r, cpu_acc acc, void *out, int64_t n) {
  if (r->indexed)
    memcpy(out, acc.i, (size_t)n * sizeof *acc.i);
  else if (r->acc_dtype == r->out_dtype)
    memcpy(out, acc.v, (size_t)n * cpu_item_size(r->out_dtype));
  else
    cpu_map(TERN_OP_CAST, r->acc_dtype, r->out_dtype, 0)(out, acc.v, NULL, NULL, n);
}
