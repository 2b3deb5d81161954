/* The register tile of dot_own.c, for one float type; included twice. Before: T (element), V (vector of W elements),
   NAME(x), and NAME(load), NAME(load_n), NAME(store), NAME(store_n), NAME(fma), NAME(splat). */

/* o[mr][..] (+)= a[mr][k] b[k][..] for nv vectors of columns, of which the last has `tail` valid lanes unless full.
   All of mr, nv, full are constants after inlining, so that acc lives in registers */
static inline __attribute__((always_inline)) void NAME(tile)(const int mr, const int nv, const bool full, int tail,
                                                             int64_t k, const T *a, int64_t am, int64_t ak, const T *b,
                                                             int64_t bk, T *o, int64_t om, bool add) {
  V acc[8][8];
  DOT_UNROLL for (int i = 0; i < mr; i++) DOT_UNROLL for (int v = 0; v < nv; v++) acc[i][v] = (V){0};
  DOT_UNROLL_4 for (int64_t p = 0; p < k; p++) { /* ends in a jump that short loops predict */
    V bv[8];
    DOT_UNROLL for (int v = 0; v < nv; v++) bv[v] =
        full || v < nv - 1 ? NAME(load)(b + v * W) : NAME(load_n)(b + v * W, tail);
    DOT_UNROLL for (int i = 0; i < mr; i++) {
      const V av = NAME(splat)(a[i * am]);
      DOT_UNROLL for (int v = 0; v < nv; v++) acc[i][v] = NAME(fma)(av, bv[v], acc[i][v]);
    }
    a += ak;
    b += bk;
  }
  DOT_UNROLL for (int i = 0; i < mr; i++) DOT_UNROLL for (int v = 0; v < nv; v++) {
    T *const to = o + i * om + v * W;
    V sum = acc[i][v];
    if (full || v < nv - 1) {
      if (add) sum += NAME(load)(to);
      NAME(store)(to, sum);
    } else {
      if (add) sum += NAME(load_n)(to, tail);
      NAME(store_n)(to, sum, tail);
    }
  }
}

/* All m rows of one strip of columns, `most` rows at a time */
static inline __attribute__((always_inline)) void NAME(strip)(const int most, const int nv, const bool full, int tail,
                                                              int64_t m, int64_t k, const T *a, int64_t am, int64_t ak,
                                                              const T *b, int64_t bk, T *o, int64_t om, bool add) {
  for (; m >= most; m -= most, a += most * am, o += most * om)
    NAME(tile)(most, nv, full, tail, k, a, am, ak, b, bk, o, om, add);
  if (most > 4 && m >= 4) {
    NAME(tile)(4, nv, full, tail, k, a, am, ak, b, bk, o, om, add);
    m -= 4, a += 4 * am, o += 4 * om;
  }
  if (m >= 2) {
    NAME(tile)(2, nv, full, tail, k, a, am, ak, b, bk, o, om, add);
    m -= 2, a += 2 * am, o += 2 * om;
  }
  if (m >= 1) NAME(tile)(1, nv, full, tail, k, a, am, ak, b, bk, o, om, add);
}

/* One block of k: strips of columns from wide to narrow */
static void NAME(columns)(int64_t m, int64_t n, int64_t k, const T *a, int64_t am, int64_t ak, const T *b, int64_t bk,
                          T *o, int64_t om, bool add) {
  if (n <= W) { /* narrow ones first: the smallest products have the least time to look around */
    if (n == W)
      NAME(strip)(8, 1, true, W, m, k, a, am, ak, b, bk, o, om, add);
    else
      NAME(strip)(8, 1, false, (int)n, m, k, a, am, ak, b, bk, o, om, add);
    return;
  }
  if (m == 1)
    for (; n >= 8 * W; n -= 8 * W, b += 8 * W, o += 8 * W) NAME(tile)(1, 8, true, W, k, a, am, ak, b, bk, o, om, add);
#if DOT_WIDE
  for (; n >= 4 * W; n -= 4 * W, b += 4 * W, o += 4 * W) NAME(strip)(6, 4, true, W, m, k, a, am, ak, b, bk, o, om, add);
  if (n > 3 * W) {
    NAME(strip)(6, 4, false, (int)(n - 3 * W), m, k, a, am, ak, b, bk, o, om, add);
    return;
  }
  if (n == 3 * W) {
    NAME(strip)(8, 3, true, W, m, k, a, am, ak, b, bk, o, om, add);
    return;
  }
  if (n > 2 * W) {
    NAME(strip)(8, 3, false, (int)(n - 2 * W), m, k, a, am, ak, b, bk, o, om, add);
    return;
  }
#endif
  for (; n >= 2 * W; n -= 2 * W, b += 2 * W, o += 2 * W)
    NAME(strip)(DOT_WIDE ? 8 : 6, 2, true, W, m, k, a, am, ak, b, bk, o, om, add);
  if (n > W) {
    NAME(strip)(DOT_WIDE ? 8 : 6, 2, false, (int)(n - W), m, k, a, am, ak, b, bk, o, om, add);
  } else if (n == W) {
    NAME(strip)(8, 1, true, W, m, k, a, am, ak, b, bk, o, om, add);
  } else if (n > 0) {
    NAME(strip)(8, 1, false, (int)n, m, k, a, am, ak, b, bk, o, om, add);
  }
}

/* k in blocks: a chain of at most DOT_K_BLOCK roundings, then one addition a block */
void NAME(dot_block)(int64_t m, int64_t n, int64_t k, const T *a, int64_t am, int64_t ak, const T *b, int64_t bk, T *o,
                     int64_t om, bool add) {
  if (k <= DOT_K_BLOCK) {
    NAME(columns)(m, n, k, a, am, ak, b, bk, o, om, add);
    return;
  }
  for (int64_t p = 0; p < k; p += DOT_K_BLOCK) {
    const int64_t len = k - p < DOT_K_BLOCK ? k - p : DOT_K_BLOCK;
    NAME(columns)(m, n, len, a + p * ak, am, ak, b + p * bk, bk, o, om, add || p > 0);
  }
}

/* y[j] = x . b[j], j < n: rows of b are ld apart, x and each row contiguous. Blocks of k are summed in double */
static void NAME(dots)(int64_t n, int64_t k, const T *x, const T *b, int64_t ld, T *y) {
  for (int64_t j = 0; j < n; j += 4) {
    const int rows = n - j < 4 ? (int)(n - j) : 4;
    const T *row[4];
    double sum[4] = {0};
    for (int r = 0; r < 4; r++) row[r] = b + (j + (r < rows ? r : 0)) * ld;
    for (int64_t p = 0; p < k; p += 2048) {
      const int64_t len = k - p < 2048 ? k - p : 2048;
      V acc[4][2] = {{{0}}};
      int64_t q = 0;
      for (; q + 2 * W <= len; q += 2 * W)
        for (int h = 0; h < 2; h++) {
          const V xv = NAME(load)(x + p + q + h * W);
          DOT_UNROLL for (int r = 0; r < 4; r++) acc[r][h] =
              NAME(fma)(xv, NAME(load)(row[r] + p + q + h * W), acc[r][h]);
        }
      for (; q < len; q += W) {
        const int some = len - q < W ? (int)(len - q) : W;
        const V xv = NAME(load_n)(x + p + q, some);
        DOT_UNROLL for (int r = 0; r < 4; r++) acc[r][0] = NAME(fma)(xv, NAME(load_n)(row[r] + p + q, some), acc[r][0]);
      }
      for (int r = 0; r < 4; r++) {
        const V both = acc[r][0] + acc[r][1];
        T lane = 0;
        for (int i = 0; i < W; i++) lane += both[i];
        sum[r] += (double)lane;
      }
    }
    for (int r = 0; r < rows; r++) y[j + r] = (T)sum[r];
  }
}
#undef T
#undef V
#undef W
#undef NAME
