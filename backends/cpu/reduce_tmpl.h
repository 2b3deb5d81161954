/* Body of reduce.c for one element type: included once for each, with T (the type), AU (what an accumulator is
   computed in: unsigned, or double for floats), S (suffix) and IS_FLOAT, LOWEST, HIGHEST defined. Vectors of 64
   bytes, four at a time; the compiler cuts them to what the machine has. */
#define JOIN2(a, b) a##_##b
#define JOIN(a, b) JOIN2(a, b)
#define N(name) JOIN(name, S)

typedef T N(vec) __attribute__((vector_size(64), aligned(sizeof(T)), may_alias));
enum { N(lanes) = 64 / sizeof(T) };

#if IS_FLOAT
#define ABOVE(a, b) (((a) > (b)) | ((a) != (a))) /* a NaN wins, and stays */
#define BELOW(a, b) (((a) < (b)) | ((a) != (a)))
#define ACC double
#else
#define ABOVE(a, b) ((a) > (b))
#define BELOW(a, b) ((a) < (b))
#define ACC T
#endif

/* The sum of a vector's lanes: the upper half onto the lower one until one is left */
static inline __attribute__((always_inline, unused)) ACC N(across)(const N(vec) *a) {
  enum { L = N(lanes) };
  ACC part[L];
  for (int j = 0; j < L; j++) part[j] = (*a)[j];
  for (int half = L / 2; half > 0; half /= 2)
    for (int j = 0; j < half; j++) part[j] = (ACC)((AU)part[j] + (AU)part[j + half]);
  return part[0];
}
#ifndef ACROSS
#define ACROSS N(across)
#endif

/* Sums and products: floats in lanes of their own type for at most SUM_CHUNK elements, then pairwise into double;
   integers wrap. Products of floats go to double at once, since a lane of floats would lose range. */
static inline __attribute__((always_inline)) ACC N(sum)(ACC total, const T *x, int64_t n, const bool far) {
  enum { L = N(lanes) };
  while (n >= L) {
    N(vec) a = {0}, b = {0}, c = {0}, d = {0};
    int64_t i = 0;
    const int64_t end = n < SUM_CHUNK ? n : SUM_CHUNK;
    for (; i + 4 * L <= end; i += 4 * L) {
      if (far)
        for (int k = 0; k < 4; k++) __builtin_prefetch((const void *)((uintptr_t)(x + i + k * L) + SUM_AHEAD));
      a = (N(vec))((N(uvec))a + (N(uvec)) * (const N(vec) *)(x + i));
      b = (N(vec))((N(uvec))b + (N(uvec)) * (const N(vec) *)(x + i + L));
      c = (N(vec))((N(uvec))c + (N(uvec)) * (const N(vec) *)(x + i + 2 * L));
      d = (N(vec))((N(uvec))d + (N(uvec)) * (const N(vec) *)(x + i + 3 * L));
    }
    for (; i + L <= end; i += L) a = (N(vec))((N(uvec))a + (N(uvec)) * (const N(vec) *)(x + i));
    a = (N(vec))(((N(uvec))a + (N(uvec))b) + ((N(uvec))c + (N(uvec))d));
    total = (ACC)((AU)total + (AU)ACROSS(&a));
    x += i;
    n -= i;
  }
  for (int64_t i = 0; i < n; i++) total = (ACC)((AU)total + (AU)x[i]);
  return total;
}

/* Long rows are likely to come from memory, and the processor's own prefetching is a seventh slower than ours */
static void N(row_sum)(cpu_acc acc, const void *x, int64_t n, int64_t first) {
  ACC *const total = acc.v;
  (void)first;
  *total = n < SUM_FAR / (int64_t)sizeof(T) ? N(sum)(*total, x, n, false) : N(sum)(*total, x, n, true);
}

static void N(row_prod)(cpu_acc acc, const void *xv, int64_t n, int64_t first) {
  (void)first;
  const T *const x = xv;
  AU part[8] = {1, 1, 1, 1, 1, 1, 1, 1};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int j = 0; j < 8; j++) part[j] = (AU)(part[j] * (AU)x[i + j]);
  for (; i < n; i++) part[0] = (AU)(part[0] * (AU)x[i]);
  for (int half = 4; half > 0; half /= 2)
    for (int j = 0; j < half; j++) part[j] = (AU)(part[j] * part[j + half]);
  *(ACC *)acc.v = (ACC)((AU) * (ACC *)acc.v * part[0]);
}

#define ROW_BEST(name, WINS, START)                                                                                \
  static T N(best_##name)(const T *x, int64_t n) {                                                                 \
    enum { L = N(lanes) };                                                                                         \
    FAST_BEST(name, x, n)                                                                                          \
    N(vec) m[4];                                                                                                   \
    T best = START;                                                                                                \
    int64_t i = 0;                                                                                                 \
    if (n >= 4 * L) {                                                                                              \
      for (int k = 0; k < 4; k++) m[k] = *(const N(vec) *)(x + k * L);                                             \
      for (i = 4 * L; i + 4 * L <= n; i += 4 * L)                                                                  \
        for (int k = 0; k < 4; k++) {                                                                              \
          const N(vec) v = *(const N(vec) *)(x + i + k * L);                                                       \
          const N(mask) w = (N(mask))WINS(v, m[k]);                                                                \
          m[k] = (N(vec))((w & (N(mask))v) | (~w & (N(mask))m[k]));                                                \
        }                                                                                                          \
      for (int k = 1; k < 4; k++) {                                                                                \
        const N(mask) w = (N(mask))WINS(m[k], m[0]);                                                               \
        m[0] = (N(vec))((w & (N(mask))m[k]) | (~w & (N(mask))m[0]));                                               \
      }                                                                                                            \
      for (int j = 0; j < L; j++) best = WINS(m[0][j], best) ? m[0][j] : best;                                     \
    }                                                                                                              \
    for (; i < n; i++) best = WINS(x[i], best) ? x[i] : best;                                                      \
    return best;                                                                                                   \
  }                                                                                                                \
  static void N(row_##name)(cpu_acc acc, const void *x, int64_t n, int64_t first) {                                \
    (void)first;                                                                                                   \
    const T best = N(best_##name)(x, n), old = *(T *)acc.v;                                                        \
    *(T *)acc.v = WINS(best, old) ? best : old;                                                                    \
  }                                                                                                                \
  /* The best of a chunk first; only a chunk that beats what was seen is searched for where it is */               \
  static void N(row_arg_##name)(cpu_acc acc, const void *xv, int64_t n, int64_t first) {                           \
    const T *const x = xv;                                                                                         \
    for (int64_t lo = 0; lo < n; lo += ARG_CHUNK) {                                                                \
      const int64_t m = n - lo < ARG_CHUNK ? n - lo : ARG_CHUNK;                                                   \
      const T best = N(best_##name)(x + lo, m), old = *(T *)acc.v;                                                 \
      if (*acc.i != INT64_MAX && (old != old || !WINS(best, old))) continue;                                       \
      int64_t i = lo;                                                                                              \
      while (x[i] != best && x[i] == x[i]) i++; /* a NaN best: the first NaN */                                    \
      *(T *)acc.v = best;                                                                                          \
      *acc.i = first + i;                                                                                          \
    }                                                                                                              \
  }                                                                                                                \
  static void N(col_##name)(cpu_acc acc, const void *xv, int64_t ld, int64_t rows, int64_t n, int64_t first) {     \
    (void)first;                                                                                                   \
    T *const m = acc.v;                                                                                            \
    for (int64_t r = 0; r < rows; r++) {                                                                           \
      const T *const x = (const T *)xv + r * ld;                                                                   \
      CPU_IVDEP for (int64_t j = 0; j < n; j++) m[j] = WINS(x[j], m[j]) ? x[j] : m[j];                             \
    }                                                                                                              \
  }                                                                                                                \
  static void N(col_arg_##name)(cpu_acc acc, const void *xv, int64_t ld, int64_t rows, int64_t n, int64_t first) { \
    T *const m = acc.v;                                                                                            \
    for (int64_t r = 0; r < rows; r++) {                                                                           \
      const T *const x = (const T *)xv + r * ld;                                                                   \
      for (int64_t j = 0; j < n; j++) {                                                                            \
        const bool wins = acc.i[j] == INT64_MAX || (m[j] == m[j] && WINS(x[j], m[j]));                             \
        m[j] = wins ? x[j] : m[j];                                                                                 \
        acc.i[j] = wins ? first + r : acc.i[j];                                                                    \
      }                                                                                                            \
    }                                                                                                              \
  }                                                                                                                \
  static void N(merge_##name)(cpu_acc acc, cpu_acc from, int64_t n) { N(col_##name)(acc, from.v, n, 1, n, 0); }    \
  /* Of equals, and of NaNs, the lower index */                                                                    \
  static void N(merge_arg_##name)(cpu_acc acc, cpu_acc from, int64_t n) {                                          \
    T *const m = acc.v;                                                                                            \
    const T *const x = from.v;                                                                                     \
    for (int64_t j = 0; j < n; j++) {                                                                              \
      if (from.i[j] == INT64_MAX) continue;                                                                        \
      const bool nan_m = m[j] != m[j], nan_x = x[j] != x[j];                                                       \
      const bool same = nan_m ? nan_x : m[j] == x[j];                                                              \
      const bool wins = acc.i[j] == INT64_MAX || (same ? from.i[j] < acc.i[j] : !nan_m && WINS(x[j], m[j]));       \
      m[j] = wins ? x[j] : m[j];                                                                                   \
      acc.i[j] = wins ? from.i[j] : acc.i[j];                                                                      \
    }                                                                                                              \
  }

ROW_BEST(max, ABOVE, LOWEST)
ROW_BEST(min, BELOW, HIGHEST)

/* Four rows at a time, so that the accumulators are read and written a quarter as often */
#define COL_FOLD(name, OP)                                                                                       \
  static void N(col_##name)(cpu_acc acc, const void *xv, int64_t ld, int64_t rows, int64_t n, int64_t first) {   \
    (void)first;                                                                                                 \
    ACC *const s = acc.v;                                                                                        \
    const T *x = xv;                                                                                             \
    int64_t r = 0;                                                                                               \
    for (; r + 4 <= rows; r += 4, x += 4 * ld) {                                                                 \
      const T *const x1 = x + ld, *const x2 = x1 + ld, *const x3 = x2 + ld;                                      \
      CPU_IVDEP for (int64_t j = 0; j < n; j++) s[j] =                                                           \
          (ACC)((AU)s[j] OP(AU)(AU)((AU)(AU)((AU)x[j] OP(AU) x1[j])OP(AU)(AU)((AU)x2[j] OP(AU) x3[j])));         \
    }                                                                                                            \
    for (; r < rows; r++, x += ld) CPU_IVDEP for (int64_t j = 0; j < n; j++) s[j] = (ACC)((AU)s[j] OP(AU) x[j]); \
  }                                                                                                              \
  static void N(merge_##name)(cpu_acc acc, cpu_acc from, int64_t n) {                                            \
    ACC *const s = acc.v;                                                                                        \
    const ACC *const x = from.v;                                                                                 \
    for (int64_t j = 0; j < n; j++) s[j] = (ACC)((AU)s[j] OP(AU) x[j]);                                          \
  }

COL_FOLD(sum, +)
COL_FOLD(prod, *)

static const kind_fns N(kinds)[N_KINDS] = {
    {N(row_sum), N(col_sum), N(merge_sum)},
    {N(row_prod), N(col_prod), N(merge_prod)},
    {N(row_max), N(col_max), N(merge_max)},
    {N(row_min), N(col_min), N(merge_min)},
    {N(row_arg_max), N(col_arg_max), N(merge_arg_max)},
    {N(row_arg_min), N(col_arg_min), N(merge_arg_min)},
};
#undef FAST_BEST
#undef ROW_BEST
#undef COL_FOLD
#undef ABOVE
#undef BELOW
#undef ACC
#undef ACROSS
#undef AU
#undef N
#undef JOIN
#undef JOIN2
#undef T
#undef S

#undef IS_FLOAT
#undef LOWEST
#undef HIGHEST
