/* The CPU backend's elementwise instructions: every MAP primitive x dtype x splat variant, against exact integer
   rules and long double libm, on special values, random bits and ordinary numbers; in place and with odd lengths.
   Links the backend's objects without the plugin, so the host's error service is defined here. */
#include "../../../backends/cpu/map.h"
#include <CUnit/Basic.h>
#include <stdio.h>
#include <stdlib.h>

tern_rc cpu_error(tern_rc code, const char *fmt, ...);
tern_rc cpu_error(tern_rc code, const char *fmt, ...) {
  (void)fmt;
  return code;
}

typedef long double real;
enum { N = 1019, GUARD = 64, MAX_REPORTS = 5 };
typedef struct prim { const char *name; uint32_t op, n_in, kind, dtypes; } prim;
static const prim prims[] = {
#define X(name, num, n, kind, dtypes) {#name, num, n, TERN_K_##kind, TERN_D_##dtypes},
  TERN_PRIMS(X)
#undef X
};
enum { N_PRIMS = sizeof prims / sizeof *prims };
static const struct { int digits, min_exp, max_exp; } formats[TERN_DTYPE_END] = { /* smallest normal 2^min_exp */
  [TERN_F16] = {11, -14, 15}, [TERN_BF16] = {8, -126, 127}, [TERN_F32] = {24, -126, 127}, [TERN_F64] = {53, -1022, 1023}
};
static const uint8_t bits_of[TERN_DTYPE_END] = {0, 1, 8, 16, 32, 64, 8, 16, 32, 64};

static uint64_t random_state = 88172645463325252u;
static uint64_t rnd(void) { /* xorshift64 (Marsaglia, 2003) */
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  return random_state ^= random_state << 17;
}
static bool is_float(uint32_t d) { return formats[d].digits != 0; }
static bool is_signed(uint32_t d) { return d >= TERN_I8 && d <= TERN_I64; }
static bool is_map(const prim *p) { return p->kind == TERN_K_MAP && p->op != TERN_OP_RNG && p->op != TERN_OP_IOTA; }

/* ---- reference values ---- */

static real unit_of(real x, uint32_t d) { /* one ulp of dtype d at x */
  const int e = x == 0 ? formats[d].min_exp : ilogbl(x);
  return ldexpl(1, (e < formats[d].min_exp ? formats[d].min_exp : e) - formats[d].digits + 1);
}
static real round_to(real x, uint32_t d) {
  if (isnan(x) || isinf(x) || x == 0) return x;
  const real u = unit_of(x, d), r = rintl(x / u) * u;
  return fabsl(r) >= ldexpl(1, formats[d].max_exp + 1) ? copysignl(INFINITY, x) : copysignl(r, x);
}
static real half_value(uint16_t h, uint32_t d) {
  const int mantissa_bits = formats[d].digits - 1, e = (h & 0x7fff) >> mantissa_bits, top = 0x7fff >> mantissa_bits;
  const int m = h & ((1 << mantissa_bits) - 1);
  const real sign = h >> 15 ? -1 : 1;
  if (e == top) return m ? copysignl(NAN, sign) : sign * INFINITY;
  return sign * ldexpl(e ? m + (1 << mantissa_bits) : m, (e ? e - 1 : 0) + formats[d].min_exp - mantissa_bits);
}
static real load_real(const void *p, int64_t i, uint32_t d) {
  switch (d) {
    case TERN_F16:
    case TERN_BF16: return half_value(((const uint16_t *)p)[i], d);
    case TERN_F32: return ((const float *)p)[i];
    case TERN_F64: return ((const double *)p)[i];
    default: return 0;
  }
}
static __int128 load_int(const void *p, int64_t i, uint32_t d) {
  switch (d) {
    case TERN_I8: return ((const int8_t *)p)[i];
    case TERN_I16: return ((const int16_t *)p)[i];
    case TERN_I32: return ((const int32_t *)p)[i];
    case TERN_I64: return ((const int64_t *)p)[i];
    case TERN_U16: return ((const uint16_t *)p)[i];
    case TERN_U32: return ((const uint32_t *)p)[i];
    case TERN_U64: return ((const uint64_t *)p)[i];
    default: return ((const uint8_t *)p)[i];
  }
}
static __int128 wrap(__int128 x, uint32_t d) {
  if (d == TERN_BOOL) return x != 0;
  const __int128 m = (__int128)1 << bits_of[d], r = ((x % m) + m) % m;
  return is_signed(d) && r >= m / 2 ? r - m : r;
}

/* ---- test data: special values, random bits, ordinary numbers ---- */

static const double specials[] = {0.0, -0.0, 1, -1, 0.5, -0.5, 1.5, -1.5, 2, -2, 3, -3, 0.25, -0.75, 7, 10, 100, -100, 1e5, -1e5,
  1e-3, 88.5, 89.2, -88, -103.9, 127.9, 709.5, -745.1, 8388608, 16777215, 33554434, 0x1p52, 0x1p53, 0x1p63, 0x1p64, -0x1p63,
  1e30, -1e30, 1e300, 3.4028234663852886e38, -3.4e38, 1.7976931348623157e308, 1e-40, -1e-45, 5e-324, 2.2e-308, 6.0e-8, 65504,
  65520, 0.99999994, -0.99999994, 0x1.fffffep-1, INFINITY, -INFINITY, NAN};
static void store_real(void *p, int64_t i, uint32_t d, double v) {
  if (d == TERN_F64) ((double *)p)[i] = v;
  else if (d == TERN_F32) ((float *)p)[i] = (float)v;
  else ((uint16_t *)p)[i] = map_half_from_f32((float)v, d);
}
static void fill_data(void *p, uint32_t d, int64_t n, int variant) {
  const int n_specials = (int)(sizeof specials / sizeof *specials);
  const size_t size = cpu_item_size(d);
  for (int64_t i = 0; i < n; i++) {
    const uint64_t r = rnd();
    memcpy((char *)p + (size_t)i * size, &r, size);
    if (d == TERN_BOOL) ((uint8_t *)p)[i] = r & 1;
    const int pick = (int)(rnd() % 8);
    if (is_float(d) && pick < 3) store_real(p, i, d, specials[r % (unsigned)n_specials]);
    if (is_float(d) && pick > (variant ? 3 : 5)) store_real(p, i, d, ldexp((double)(int64_t)r, -63) * (variant == 2 ? 1 : 20));
    /* quiet */
    if (is_float(d) && isnan(load_real(p, i, d))) store_real(p, i, d, r >> 62 & 1 ? -(double)NAN : (double)NAN);
    if (bits_of[d] > 1 && pick < 4) { /* small numbers, or the ends of the range */
      const int64_t v = pick < 3 ? (int64_t)(r % 23) - 11 : r & 1 ? INT64_MIN >> (64 - bits_of[d]) : INT64_MAX >> (64 - bits_of[d]);
      memcpy((char *)p + (size_t)i * size, &v, size);
    }
  }
}

/* ---- reference operations ---- */

static real ref_erfinv(real x) {
  const real a = fabsl(x), c = 0.886226925452758013649083741670572591L;
  if (!(a < 1)) return a == 1 ? copysignl(INFINITY, x) : NAN;
  real lo = 0, hi = 7;
  for (int i = 0; i < 70; i++) { /* bisection, then Newton for the last digits */
    const real mid = (lo + hi) / 2;
    if (a < 0.5L ? erfl(mid) < a : erfcl(mid) > 1 - a) lo = mid;
    else hi = mid;
  }
  if (a < 1e-6L) return x * c + x * x * x * c * 0.26179938779914943654L; /* pi / 12 */
  return copysignl(lo - (a < 0.5L ? erfl(lo) - a : (1 - a) - erfcl(lo)) * c * expl(lo * lo), x);
}
static real ref_sinpi(real x) {
  real y = fmodl(x, 2);
  if (isnan(y)) return y;
  if (fabsl(y) > 1) y -= copysignl(2, y);
  if (fabsl(y) == 1 || y == 0) return copysignl(0, x);
  if (fabsl(y) > 0.5L) y = copysignl(1, y) - y;
  return sinl(y * 3.14159265358979323846264338327950288L);
}
static real ref_cospi(real x) {
  real y = fabsl(fmodl(x, 2));
  y = y > 1 ? 2 - y : y;
  return isnan(y) ? y : y == 0.5L ? 0 : y < 0.25L ? cosl(y * 3.14159265358979323846264338327950288L) : ref_sinpi(0.5L - y);
}
static real ref_unary(uint32_t op, real x, uint32_t d) {
  switch (op) {
    case TERN_OP_NEG: return -x;
    case TERN_OP_EXP: return expl(x);
    case TERN_OP_SQRT: return d == TERN_F64 ? (real)sqrt((double)x) : sqrtl(x);
    case TERN_OP_ABS: return fabsl(x);
    case TERN_OP_SIGN: return x > 0 ? 1 : x < 0 ? -1 : x;
    case TERN_OP_RSQRT: return 1 / sqrtl(x);
    case TERN_OP_RECIPROCAL: return d == TERN_F64 ? (real)(1 / (double)x) : 1 / x;
    case TERN_OP_EXP2: return exp2l(x);
    case TERN_OP_EXPM1: return expm1l(x);
    case TERN_OP_LOG: return logl(x);
    case TERN_OP_LOG2: return log2l(x);
    case TERN_OP_LOG10: return log10l(x);
    case TERN_OP_LOG1P: return log1pl(x);
    case TERN_OP_CBRT: return cbrtl(x);
    case TERN_OP_SIN: return sinl(x);
    case TERN_OP_COS: return cosl(x);
    case TERN_OP_TAN: return tanl(x);
    case TERN_OP_ASIN: return asinl(x);
    case TERN_OP_ACOS: return acosl(x);
    case TERN_OP_ATAN: return atanl(x);
    case TERN_OP_SINH: return sinhl(x);
    case TERN_OP_COSH: return coshl(x);
    case TERN_OP_TANH: return tanhl(x);
    case TERN_OP_ASINH: return asinhl(x);
    case TERN_OP_ACOSH: return acoshl(x);
    case TERN_OP_ATANH: return atanhl(x);
    case TERN_OP_ERF: return erfl(x);
    case TERN_OP_ERFC: return erfcl(x);
    case TERN_OP_ERFINV: return ref_erfinv(x);
    case TERN_OP_SINPI: return ref_sinpi(x);
    case TERN_OP_COSPI: return ref_cospi(x);
    case TERN_OP_FLOOR: return floorl(x);
    case TERN_OP_CEIL: return ceill(x);
    case TERN_OP_ROUND: return rintl(x);
    case TERN_OP_TRUNC: return truncl(x);
    case TERN_OP_ISNAN: return isnan(x);
    case TERN_OP_ISINF: return isinf(x) != 0;
    case TERN_OP_ISFINITE: return isfinite(x);
    case TERN_OP_SIGNBIT: return signbit(x) != 0;
    default: return x; /* COPY */
  }
}
/* A float32 sum in double, or a float64 one in extended precision, would be rounded twice: these in the dtype itself */
static real ref_arith(uint32_t op, real x, real y, uint32_t d) {
  if (d == TERN_F64) {
    const double a = (double)x, b = (double)y;
    return op == TERN_OP_ADD ? a + b : op == TERN_OP_SUB ? a - b : op == TERN_OP_MUL ? a * b : a / b;
  }
  const float a = (float)x, b = (float)y;
  const float r = op == TERN_OP_ADD ? a + b : op == TERN_OP_SUB ? a - b : op == TERN_OP_MUL ? a * b : a / b;
  return round_to(r, d);
}
static real ref_floordiv(real x, real y, uint32_t d) {
  if (y == 0 || isnan(x) || isnan(y)) return x / y;
  if (isinf(x)) return NAN;
  const real rem = fmodl(x, y), quotient = isinf(y) ? 0 : rintl((x - rem) / y);
  const bool down = rem != 0 && (rem < 0) != (y < 0);
  const real r = quotient - down;
  return round_to(r == 0 ? copysignl(0, x / y) : r, d);
}
static real ref_mod(real x, real y, uint32_t d) {
  const real rem = fmodl(x, y);
  if (rem == 0) return copysignl(0, y);
  if (isnan(rem) || (rem < 0) == (y < 0)) return rem;
  return d == TERN_F64 ? (real)((double)rem + (double)y) : round_to((float)rem + (float)y, d);
}
static real ref_binary(uint32_t op, real x, real y, uint32_t d) {
  switch (op) {
    case TERN_OP_MAXIMUM: return isnan(x) || isnan(y) ? (real)NAN : x > y ? x : y;
    case TERN_OP_MINIMUM: return isnan(x) || isnan(y) ? (real)NAN : x < y ? x : y;
    case TERN_OP_POW: return powl(x, y);
    case TERN_OP_FLOORDIV: return ref_floordiv(x, y, d);
    case TERN_OP_MOD: return ref_mod(x, y, d);
    case TERN_OP_FMOD: return fmodl(x, y);
    case TERN_OP_ATAN2: return atan2l(x, y);
    case TERN_OP_HYPOT: return hypotl(x, y);
    case TERN_OP_COPYSIGN: return copysignl(x, y);
    case TERN_OP_NEXTAFTER: return d == TERN_F32 ? (real)nextafterf((float)x, (float)y) : nextafter((double)x, (double)y);
    case TERN_OP_EQ: return x == y;
    case TERN_OP_NE: return x != y;
    case TERN_OP_LT: return x < y;
    case TERN_OP_LE: return x <= y;
    case TERN_OP_GT: return x > y;
    case TERN_OP_GE: return x >= y;
    default: return ref_arith(op, x, y, d);
  }
}
static __int128 product(__int128 x, __int128 y, uint32_t d) {
  return wrap((__int128)((unsigned __int128)x * (unsigned __int128)y), d);
}
static __int128 ref_int_power(__int128 x, __int128 y, uint32_t d) {
  if (y < 0) return x == 1 ? 1 : x == -1 ? (y % 2 ? -1 : 1) : 0;
  __int128 r = 1;
  for (int bit = 63; bit >= 0; bit--) { /* from the top bit down */
    r = product(r, r, d);
    if ((uint64_t)y >> bit & 1) r = product(r, x, d);
  }
  return r;
}
static __int128 ref_int(uint32_t op, __int128 x, __int128 y, uint32_t d) {
  const int width = bits_of[d];
  const __int128 q = y ? x / y : 0, rem = y ? x % y : 0;
  const bool down = rem != 0 && (rem < 0) != (y < 0);
  switch (op) {
    case TERN_OP_NEG: return -x;
    case TERN_OP_ABS: return x < 0 ? -x : x;
    case TERN_OP_SIGN: return (x > 0) - (x < 0);
    case TERN_OP_NOT: return d == TERN_BOOL ? !x : ~x;
    case TERN_OP_ADD: return x + y;
    case TERN_OP_SUB: return x - y;
    case TERN_OP_MUL: return (__int128)((unsigned __int128)x * (unsigned __int128)y);
    case TERN_OP_MAXIMUM: return x > y ? x : y;
    case TERN_OP_MINIMUM: return x < y ? x : y;
    case TERN_OP_POW: return ref_int_power(x, y, d);
    case TERN_OP_FLOORDIV: return q - down;
    case TERN_OP_MOD: return down ? rem + y : rem;
    case TERN_OP_FMOD: return rem;
    case TERN_OP_AND: return x & y;
    case TERN_OP_OR: return x | y;
    case TERN_OP_XOR: return x ^ y;
    case TERN_OP_SHL: return y < 0 || y >= width ? 0 : (__int128)((unsigned __int128)x << y);
    case TERN_OP_SHR: return y < 0 || y >= width ? (x < 0 ? -1 : 0) : x >> y;
    case TERN_OP_EQ: return x == y;
    case TERN_OP_NE: return x != y;
    case TERN_OP_LT: return x < y;
    case TERN_OP_LE: return x <= y;
    case TERN_OP_GT: return x > y;
    case TERN_OP_GE: return x >= y;
    default: return x;
  }
}
static bool gives_bool(uint32_t op) {
  return (op >= TERN_OP_ISNAN && op <= TERN_OP_SIGNBIT) || (op >= TERN_OP_EQ && op <= TERN_OP_GE);
}
/* Units in the last place; 0: the correctly rounded result. Float64 leaves room for the C library's own errors */
static real tolerance(uint32_t op, uint32_t d) {
  if (op == TERN_OP_ERF || op == TERN_OP_ERFC || op == TERN_OP_ERFINV) return d == TERN_F64 ? 8 : 4;
  if (op == TERN_OP_RSQRT || (op >= TERN_OP_EXP2 && op <= TERN_OP_COSPI) || op == TERN_OP_EXP || op == TERN_OP_POW ||
      op == TERN_OP_ATAN2 || op == TERN_OP_HYPOT)
    return d == TERN_F64 ? 4 : 2;
  return 0;
}
/* got is within tolerance of want. Half formats: of a float32 result rounded once more */
static bool close_to(real got, real want, uint32_t op, uint32_t d) {
  real tol = tolerance(op, d);
  const real rounded = round_to(want, d);
  if (op == TERN_OP_FLOORDIV && fabsl(want) >= 0x1p53L) tol = 1; /* the floor of a float64 quotient is rounded */
  if (isnan(want)) return isnan(got);
  if (got == rounded && (got != 0 || signbit(got) == signbit(want) || op == TERN_OP_MAXIMUM || op == TERN_OP_MINIMUM)) return true;
  if (tol == 0 || isnan(got) || isinf(want) || want == 0) return false;
  if (isinf(got)) got = copysignl(ldexpl(1, formats[d].max_exp + 1), got);
  return fabsl(got - want) / unit_of(want, d) <= (d == TERN_F16 || d == TERN_BF16 ? 0.501L : tol);
}

/* ---- running ---- */

static _Alignas(64) char in_a[N * 8 + GUARD], in_b[N * 8 + GUARD], in_c[N * 8 + GUARD], out[N * 8 + GUARD], saved[N * 8 + GUARD];
static int reports;

static void report(const char *name, uint32_t d, uint32_t splat, int64_t i, real x, real y, real got, real want) {
  if (reports++ < MAX_REPORTS)
    printf("\n    %s dtype %u splat %u [%lld]: (%La, %La) gave %La, want %La", name, d, splat, (long long)i, x, y, got, want);
}
static int64_t check(const prim *p, uint32_t d, uint32_t splat, int64_t n) {
  int64_t wrong = 0;
  for (int64_t i = 0; i < n; i++) {
    const int64_t ia = splat & 1 ? 0 : i, ib = splat & 2 ? 0 : i;
    if (is_float(d)) {
      const real x = load_real(in_a, ia, d), y = p->n_in > 1 ? load_real(in_b, ib, d) : 0;
      const real want = p->n_in == 1 ? ref_unary(p->op, x, d) : ref_binary(p->op, x, y, d);
      const real got = gives_bool(p->op) ? (real)(uint8_t)out[i] : load_real(out, i, d);
      if (gives_bool(p->op) ? got == want : close_to(got, want, p->op, d)) continue;
      report(p->name, d, splat, i, x, y, got, want);
    } else {
      const __int128 x = load_int(in_a, ia, d), y = load_int(in_b, ib, d);
      const uint32_t out_dtype = gives_bool(p->op) ? TERN_BOOL : d;
      const __int128 want = wrap(ref_int(p->op, x, y, d), out_dtype), got = load_int(out, i, out_dtype);
      if (got == want) continue;
      report(p->name, d, splat, i, (real)x, (real)y, (real)got, (real)want);
    }
    wrong++;
  }
  return wrong;
}
/* Alone, then in place over the first input that is not one element: the bits must be the same, and nothing past the
   end */
static int64_t run_variant(const prim *p, uint32_t d, uint32_t splat, int64_t n) {
  const cpu_map_fn fn = cpu_map(p->op, d, d, splat);
  if (!fn) return splat == 0;
  const size_t size = gives_bool(p->op) ? 1 : cpu_item_size(d), bytes = (size_t)n * size;
  memset(out, 0x5a, sizeof out);
  fn(out, in_a, p->n_in > 1 ? in_b : NULL, NULL, n);
  int64_t wrong = check(p, d, splat, n);
  for (size_t i = bytes; i < bytes + GUARD; i++) wrong += out[i] != 0x5a;
  if (size != cpu_item_size(d)) return wrong;
  char *place = splat & 1 ? in_b : in_a;
  if (splat && p->n_in == 1) return wrong;
  memcpy(saved, place, sizeof saved);
  fn(place, in_a, p->n_in > 1 ? in_b : NULL, NULL, n);
  const bool same = memcmp(place, out, bytes) == 0;
  if (!same && reports++ < MAX_REPORTS) printf("\n    %s dtype %u splat %u: differs in place", p->name, d, splat);
  memcpy(place, saved, sizeof saved);
  return wrong + !same;
}
static void test_values(void) {
  for (int k = 0; k < N_PRIMS; k++) {
    const prim *p = &prims[k];
    if (!is_map(p) || p->op == TERN_OP_CAST || p->op == TERN_OP_WHERE) continue;
    int64_t wrong = 0;
    reports = 0;
    for (uint32_t d = 1; d < TERN_DTYPE_END; d++) {
      if (!(p->dtypes >> d & 1)) continue;
      static const int64_t lengths[] = {N, 1, 3, 8, 17, 31, 256, 1000};
      for (int round = 0; round < 8; round++) {
        fill_data(in_a, d, N, round % 3);
        fill_data(in_b, d, N, round % 3);
        for (uint32_t splat = 0; splat < (p->n_in == 2 ? 3u : p->op == TERN_OP_COPY ? 2u : 1u); splat++)
          wrong += run_variant(p, d, splat, lengths[round]);
      }
      if (p->n_in == 2 && is_float(d)) { /* the exponents that POW treats apart, and like scalars */
        static const double scalars[] = {2, 3, -1, 0.5, 0, 1, -2, INFINITY, -0.5, NAN};
        for (int i = 0; i < 10; i++) {
          store_real(in_b, 0, d, scalars[i]);
          wrong += run_variant(p, d, 2, 200);
        }
      }
    }
    CU_ASSERT_EQUAL(wrong, 0);
    if (wrong) printf("\n    %s: %lld wrong", p->name, (long long)wrong);
  }
}

static void test_presence(void) {
  for (int k = 0; k < N_PRIMS; k++)
    for (uint32_t d = 0; d <= TERN_DTYPE_END; d++) {
      const bool want = is_map(&prims[k]) && d < TERN_DTYPE_END && (prims[k].dtypes >> d & 1);
      const cpu_map_fn fn = cpu_map(prims[k].op, d, d, 0);
      if ((fn != NULL) != want) printf("\n    %s dtype %u: %s", prims[k].name, d, want ? "missing" : "should be NULL");
      CU_ASSERT((fn != NULL) == want);
      for (uint32_t splat = 1; want && prims[k].n_in == 2 && splat < 3; splat++)
        CU_ASSERT(cpu_map(prims[k].op, d, d, splat) != NULL);
    }
  CU_ASSERT(cpu_map(TERN_OP_END_, TERN_F32, TERN_F32, 0) == NULL);
  CU_ASSERT(cpu_map(TERN_OP_ADD, TERN_F32, TERN_F32, 3) == NULL && cpu_map(TERN_OP_ADD, TERN_F32, TERN_F32, 99) == NULL);
}

static bool cast_agrees(int64_t i, uint32_t from, uint32_t to) {
  if (is_float(from) && is_float(to)) {
    const real want = round_to(load_real(in_a, i, from), to), got = load_real(out, i, to);
    return isnan(want) ? isnan(got) : got == want && signbit(got) == signbit(want);
  }
  if (is_float(to)) return load_real(out, i, to) == round_to((real)load_int(in_a, i, from), to);
  if (!is_float(from)) return load_int(out, i, to) == wrap(load_int(in_a, i, from), to);
  const real x = load_real(in_a, i, from);
  if (to == TERN_BOOL) return load_int(out, i, to) == (x != 0);
  const __int128 top = ((__int128)1 << (bits_of[to] - is_signed(to))) - 1, bottom = is_signed(to) ? -top - 1 : 0;
  const __int128 want = isnan(x) ? 0 : x >= (real)top ? top : x <= (real)bottom ? bottom : (__int128)x;
  return load_int(out, i, to) == want;
}
static void test_cast(void) {
  for (uint32_t from = 1; from < TERN_DTYPE_END; from++)
    for (uint32_t to = 1; to < TERN_DTYPE_END; to++) {
      const cpu_map_fn fn = cpu_map(TERN_OP_CAST, from, to, 0);
      CU_ASSERT_FATAL(fn != NULL);
      int wrong = 0;
      for (int round = 0; round < 12; round++) {
        fill_data(in_a, from, N, round % 3);
        memset(out, 0x5a, sizeof out);
        const int64_t n = N - 13 * round;
        fn(out, in_a, NULL, NULL, n);
        for (int64_t i = 0; i < n; i++) wrong += !cast_agrees(i, from, to);
        for (size_t i = (size_t)n * cpu_item_size(to), end = i + GUARD; i < end; i++) wrong += out[i] != 0x5a;
        if (cpu_item_size(from) != cpu_item_size(to)) continue;
        memcpy(saved, out, sizeof saved);
        fn(in_a, in_a, NULL, NULL, n);
        wrong += memcmp(in_a, saved, (size_t)n * cpu_item_size(to)) != 0;
      }
      if (wrong) printf("\n    cast %u to %u: %d wrong", from, to, wrong);
      CU_ASSERT_EQUAL(wrong, 0);
    }
}
/* Every float16 and bfloat16 there and back, and every midpoint between float16 neighbours */
static void test_halves(void) {
  int wrong = 0;
  for (uint32_t d = TERN_F16; d <= TERN_BF16; d++)
    for (uint32_t h = 0; h < 65536; h++) {
      const float x = map_half_to_f32((uint16_t)h, d), next = map_half_to_f32((uint16_t)(h + 1), d), mid = (x + next) / 2;
      const real want = half_value((uint16_t)h, d);
      wrong += isnan(want) ? !isnan(x) : x != want || map_half_from_f32(x, d) != h;
      if (isfinite(x) && isfinite(next) && isfinite(mid))
        wrong += half_value(map_half_from_f32(mid, d), d) != round_to(mid, d);
    }
  CU_ASSERT_EQUAL(wrong, 0);
}

static void test_where(void) {
  for (uint32_t d = 1; d < TERN_DTYPE_END; d++)
    for (uint32_t splat = 0; splat < 8; splat += 2) {
      const cpu_map_fn fn = cpu_map(TERN_OP_WHERE, d, d, splat);
      const size_t size = cpu_item_size(d);
      CU_ASSERT_FATAL(fn != NULL);
      fill_data(in_c, TERN_BOOL, N, 0);
      fill_data(in_a, d, N, 0);
      fill_data(in_b, d, N, 0);
      fn(out, in_c, in_a, in_b, N);
      int wrong = 0;
      for (size_t i = 0; i < N; i++) {
        const char *want = in_c[i] ? in_a + (splat & 2 ? 0 : i) * size : in_b + (splat & 4 ? 0 : i) * size;
        wrong += memcmp(out + i * size, want, size) != 0;
      }
      CU_ASSERT_EQUAL(wrong, 0);
    }
}

static void ref_philox(uint32_t w[4], uint64_t key, uint64_t counter, uint32_t stream) {
  uint32_t k[2] = {(uint32_t)key, (uint32_t)(key >> 32)}, x[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), stream, 0};
  for (int r = 0; r < 10; r++) {
    const uint64_t p = (uint64_t)0xD2511F53 * x[0], q = (uint64_t)0xCD9E8D57 * x[2];
    const uint32_t y[4] = {(uint32_t)(q >> 32) ^ x[1] ^ k[0], (uint32_t)q, (uint32_t)(p >> 32) ^ x[3] ^ k[1], (uint32_t)p};
    memcpy(x, y, sizeof x);
    k[0] += 0x9E3779B9, k[1] += 0xBB67AE85;
  }
  memcpy(w, x, sizeof x);
}
static void test_rng(void) {
  /* Random123's known answer for zeros */
  static const uint32_t known[4] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
  uint32_t w[300], r[4];
  cpu_rng_u32(w, 0, 4, 0, 0, 0);
  CU_ASSERT(memcmp(w, known, sizeof known) == 0);
  int wrong = 0;
  for (int64_t first = 0; first < 9; first++)
    for (int64_t n = 0; n < 300; n += 1 + n / 7) {
      const uint64_t key = rnd(), counter = first & 1 ? rnd() : 0xfffffff0u;
      memset(w, 0, sizeof w);
      cpu_rng_u32(w, first, n, key, counter, 77);
      for (int64_t i = 0; i < n; i++) {
        ref_philox(r, key, counter + (uint64_t)((first + i) / 4), 77);
        wrong += w[i] != r[(first + i) % 4];
      }
      wrong += n < 300 && w[n] != 0;
    }
  CU_ASSERT_EQUAL(wrong, 0);
}

static void test_iota_and_words(void) {
  static const int64_t starts[] = {0, -7, 250, 2049, INT64_MAX - 3, -(1LL << 40)}, steps[] = {1, 0, -3, 129, 1LL << 33};
  for (uint32_t d = 1; d < TERN_DTYPE_END; d++) {
    int wrong = 0;
    for (int s = 0; s < 30; s++) {
      cpu_iota(out, d, starts[s % 6], steps[s % 5], 40);
      for (int64_t i = 0; i < 40; i++) {
        const int64_t v = (int64_t)((uint64_t)starts[s % 6] + (uint64_t)i * (uint64_t)steps[s % 5]);
        wrong += is_float(d) ? load_real(out, i, d) != round_to(v, d) : load_int(out, i, d) != wrap(v, d);
      }
    }
    for (int s = 0; s < 500; s++) {
      tern_word word = {.u = rnd() >> rnd() % 64};
      if (is_float(d)) word.f = s < 50 ? specials[s] : ldexp((double)(int64_t)rnd(), (int)(rnd() % 300) - 200);
      cpu_word_store(out, d, word);
      const real want = is_float(d) ? round_to(word.f, d) : 0;
      wrong += is_float(d) ? load_real(out, 0, d) != want && !isnan(want)
                           : load_int(out, 0, d) != wrap(is_signed(d) ? (__int128)word.i : (__int128)word.u, d);
    }
    CU_ASSERT_EQUAL(wrong, 0);
  }
}

/* Float32 functions on a sweep of all bit patterns, 2 ulp (erf, erfc and erfinv 4) against double or long double */
static void test_sweep(void) {
  static const uint32_t ops[] = {TERN_OP_EXP, TERN_OP_EXP2, TERN_OP_EXPM1, TERN_OP_LOG, TERN_OP_LOG2, TERN_OP_LOG10,
    TERN_OP_LOG1P, TERN_OP_TANH, TERN_OP_ERF, TERN_OP_ERFC, TERN_OP_SIN, TERN_OP_COS, TERN_OP_SINPI, TERN_OP_COSPI,
    TERN_OP_SQRT, TERN_OP_RSQRT, TERN_OP_CBRT};
  enum { STEP = 40009, BLOCK = 509 };
  for (size_t k = 0; k < sizeof ops / sizeof *ops; k++) {
    const cpu_map_fn fn = cpu_map(ops[k], TERN_F32, TERN_F32, 0);
    int wrong = 0;
    float x[BLOCK], y[BLOCK];
    for (uint64_t u = 0; u < 1ull << 32;) {
      for (int i = 0; i < BLOCK; i++, u += STEP) memcpy(&x[i], &(uint32_t){(uint32_t)u}, 4);
      fn(y, x, NULL, NULL, BLOCK);
      for (int i = 0; i < BLOCK; i++) {
        const real want = ref_unary(ops[k], x[i], TERN_F32);
        if (close_to(y[i], want, ops[k], TERN_F32)) continue;
        wrong++;
        report("sweep", ops[k], 0, i, x[i], 0, y[i], want);
      }
    }
    CU_ASSERT_EQUAL(wrong, 0);
  }
}

static void test_stream(void) {
  static const uint32_t ops[] = {TERN_OP_ADD, TERN_OP_SUB, TERN_OP_MUL, TERN_OP_DIV, TERN_OP_COPY};
  CU_ASSERT(cpu_map_stream(TERN_OP_EXP, TERN_F32, 0) == NULL && cpu_map_stream(TERN_OP_ADD, TERN_I32, 0) == NULL);
  for (uint32_t d = TERN_F32; d <= TERN_F64; d++)
    for (int k = 0; k < 5; k++)
      for (uint32_t splat = 0; splat < (ops[k] == TERN_OP_COPY ? 2u : 3u); splat++)
        for (size_t shift = 0; shift < 17; shift += 3) {
          const cpu_map_fn fn = cpu_map_stream(ops[k], d, splat), plain = cpu_map(ops[k], d, d, splat);
          const size_t size = cpu_item_size(d);
          const int64_t n = N - 40;
          if (!fn) continue; /* none on this machine */
          fill_data(in_a, d, N, 0);
          fill_data(in_b, d, N, 0);
          memset(out, 0x5a, sizeof out);
          memset(saved, 0x5a, sizeof saved);
          fn(out + shift * size, in_a + size, k == 4 ? NULL : in_b, NULL, n);
          plain(saved + shift * size, in_a + size, k == 4 ? NULL : in_b, NULL, n);
          int wrong = memcmp(out, saved, sizeof out) != 0;
          for (int64_t i = 0; wrong && i < n; i++) { /* only the payload of a NaN may differ */
            const real x = load_real(out + shift * size, i, d), y = load_real(saved + shift * size, i, d);
            wrong = !(x == y || (isnan(x) && isnan(y)));
            if (wrong) break;
          }
          CU_ASSERT_EQUAL(wrong, 0);
        }
}

int main(void) {
  if (CU_initialize_registry() != CUE_SUCCESS) return 1;
  CU_pSuite s = CU_add_suite("cpu map", NULL, NULL);
  CU_add_test(s, "every primitive and dtype is there", test_presence);
  CU_add_test(s, "values, splats, in place", test_values);
  CU_add_test(s, "casts", test_cast);
  CU_add_test(s, "float16 and bfloat16, all values", test_halves);
  CU_add_test(s, "float32 functions over all magnitudes", test_sweep);
  CU_add_test(s, "where", test_where);
  CU_add_test(s, "random words", test_rng);
  CU_add_test(s, "iota and scalars", test_iota_and_words);
  CU_add_test(s, "non-temporal stores", test_stream);
  CU_basic_set_mode(CU_BRM_VERBOSE);
  CU_basic_run_tests();
  const unsigned failed = CU_get_number_of_failures();
  CU_cleanup_registry();
  return failed != 0;
}
