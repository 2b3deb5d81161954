/* Elements: loading, storing, rounding, and every MAP primitive on one element. */
#include "eval.h"

#include <math.h>
#include <string.h>

typedef tern_word word;

enum { SIGNED, UNSIGNED, REAL };
static int class_of(uint32_t dtype) {
  return dtype >= TERN_F16 ? REAL : dtype >= TERN_I8 && dtype <= TERN_I64 ? SIGNED : UNSIGNED;
}

static int bits_of(uint32_t dtype) {
  static const uint8_t bits[TERN_DTYPE_END] = {0, 1, 8, 16, 32, 64, 8, 16, 32, 64, 16, 16, 32, 64};
  return bits[dtype];
}

/* Round to `mantissa` fraction bits, halves to even; emin: exponent of the smallest normal; max: largest finite */
static double round_to(double x, int mantissa, int emin, double max) {
  if (x == 0 || !isfinite(x)) return x;
  const int e = ilogb(x) < emin ? emin : ilogb(x);
  const double r = ldexp(nearbyint(ldexp(x, mantissa - e)), e - mantissa);
  return fabs(r) > max ? copysign(INFINITY, x) : r;
}

static double round_real(uint32_t dtype, double x) {
  switch (dtype) {
  case TERN_F16: return round_to(x, 10, -14, 65504);
  case TERN_BF16: return round_to(x, 7, -126, 0x1.FEp127);
  case TERN_F32: return (float)x;
  default: return x;
  }
}

static word wrap(uint32_t dtype, uint64_t u) {
  const int bits = bits_of(dtype);
  if (dtype == TERN_BOOL) return (word){.u = u != 0};
  if (bits == 64) return (word){.u = u};
  u &= ((uint64_t)1 << bits) - 1;
  if (class_of(dtype) == SIGNED && u >> (bits - 1)) u |= ~(uint64_t)0 << bits;
  return (word){.u = u};
}

tern_word eval_fit(uint32_t dtype, word w) {
  return class_of(dtype) == REAL ? (word){.f = round_real(dtype, w.f)} : wrap(dtype, w.u);
}

static double half_to_double(uint16_t h) {
  const int e = h >> 10 & 31, m = h & 1023;
  const double x = e == 31 ? (m ? NAN : INFINITY) : e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
  return h >> 15 ? -x : x;
}

static uint16_t half_from_double(double x) { /* x is representable */
  const uint16_t sign = signbit(x) ? 0x8000 : 0;
  x = fabs(x);
  if (isnan(x)) return sign | 0x7e00;
  if (isinf(x)) return sign | 0x7c00;
  if (x < 0x1p-14) return sign | (uint16_t)ldexp(x, 24);
  const int e = ilogb(x);
  return sign | (uint16_t)((e + 15) << 10 | ((int)ldexp(x, 10 - e) & 1023));
}

tern_word eval_load(const void *base, int64_t i, uint32_t dtype) {
  uint32_t bits;
  float f;
  switch (dtype) {
  case TERN_BOOL: return (word){.u = ((const uint8_t *)base)[i] != 0};
  case TERN_I8: return (word){.i = ((const int8_t *)base)[i]};
  case TERN_I16: return (word){.i = ((const int16_t *)base)[i]};
  case TERN_I32: return (word){.i = ((const int32_t *)base)[i]};
  case TERN_I64: return (word){.i = ((const int64_t *)base)[i]};
  case TERN_U8: return (word){.u = ((const uint8_t *)base)[i]};
  case TERN_U16: return (word){.u = ((const uint16_t *)base)[i]};
  case TERN_U32: return (word){.u = ((const uint32_t *)base)[i]};
  case TERN_U64: return (word){.u = ((const uint64_t *)base)[i]};
  case TERN_F16: return (word){.f = half_to_double(((const uint16_t *)base)[i])};
  case TERN_BF16:
    bits = (uint32_t)((const uint16_t *)base)[i] << 16;
    memcpy(&f, &bits, sizeof f);
    return (word){.f = f};
  case TERN_F32: return (word){.f = ((const float *)base)[i]};
  default: return (word){.f = ((const double *)base)[i]};
  }
}

void eval_store(void *base, int64_t i, uint32_t dtype, word w) {
  uint32_t bits;
  float f;
  switch (dtype) {
  case TERN_F16: ((uint16_t *)base)[i] = half_from_double(w.f); return;
  case TERN_BF16:
    f = (float)w.f;
    memcpy(&bits, &f, sizeof bits);
    ((uint16_t *)base)[i] = isnan(f) ? 0x7fc0 : (uint16_t)(bits >> 16);
    return;
  case TERN_F32: ((float *)base)[i] = (float)w.f; return;
  case TERN_F64: ((double *)base)[i] = w.f; return;
  default: break;
  }
  switch (bits_of(dtype)) {
  case 1:
  case 8: ((uint8_t *)base)[i] = (uint8_t)w.u; return;
  case 16: ((uint16_t *)base)[i] = (uint16_t)w.u; return;
  case 32: ((uint32_t *)base)[i] = (uint32_t)w.u; return;
  default: ((uint64_t *)base)[i] = w.u; return;
  }
}

static word real_to_int(uint32_t dtype, double x) {
  const int bits = bits_of(dtype);
  if (isnan(x)) return (word){.u = 0};
  if (class_of(dtype) == SIGNED) {
    const double end = ldexp(1, bits - 1);
    const int64_t max = (int64_t)(((uint64_t)1 << (bits - 1)) - 1);
    return (word){.i = x >= end ? max : x < -end ? -max - 1 : (int64_t)x};
  }
  if (x <= 0) return (word){.u = 0};
  return (word){.u = x >= ldexp(1, bits) ? ~(uint64_t)0 >> (64 - bits) : (uint64_t)x};
}

tern_word eval_cast(uint32_t from, uint32_t to, word x) {
  const int a = class_of(from), b = class_of(to);
  if (to == TERN_BOOL) return (word){.u = a == REAL ? x.f != 0 : x.u != 0};
  if (a == REAL) return b == REAL ? eval_fit(to, x) : real_to_int(to, x.f);
  if (b != REAL) return wrap(to, x.u);
  if (to == TERN_F64) return (word){.f = a == SIGNED ? (double)x.i : (double)x.u};
  return (word){.f = round_real(to, a == SIGNED ? (float)x.i : (float)x.u)}; /* 16-bit floats: by way of float32 */
}

/* y with erf(y) = x: Winitzki's guess, then Halley steps; near 1 on erfc, since 1 - |x| is exact there */
static long double erf_inverse(long double x) {
  const long double a = fabsl(x);
  if (!(a < 1)) return a == 1 ? copysignl(INFINITY, x) : NAN;
  if (a == 0) return x;
  const long double two_by_root_pi = 1.12837916709551257389615890312154517L;
  if (a < 1e-10L) return x / two_by_root_pi;
  const long double l = logl((1 - a) * (1 + a)), t = 2 / (3.14159265358979323846L * 0.147L) + l / 2;
  long double y = sqrtl(sqrtl(t * t - l / 0.147L) - t);
  for (int k = 0; k < 6; k++) {
    const long double e = a > 0.5L ? (1 - a) - erfcl(y) : erfl(y) - a;
    const long double d = e / (two_by_root_pi * expl(-y * y));
    y -= d / (1 + y * d);
  }
  return copysignl(y, x);
}

static long double sin_pi(long double x) {
  if (!isfinite(x)) return NAN;
  const long double r = remainderl(x, 2); /* exact */
  if (r == truncl(r)) return copysignl(0, x);
  if (fabsl(r) == 0.5L) return copysignl(1, r);
  return sinl(3.14159265358979323846264338327950288L * (fabsl(r) > 0.5L ? copysignl(1 - fabsl(r), r) : r));
}

static long double cos_pi(long double x) {
  if (!isfinite(x)) return NAN;
  const long double r = fabsl(remainderl(x, 2));
  if (r == 0.5L) return 0;
  if (r == 0) return 1;
  if (r == 1) return -1;
  if (r > 0.25L && r < 0.75L) return sinl(3.14159265358979323846264338327950288L * (0.5L - r));
  return r <= 0.25L ? cosl(3.14159265358979323846264338327950288L * r)
                    : -cosl(3.14159265358979323846264338327950288L * (1 - r));
}

static double real_unary(uint32_t op, double x) {
  const long double l = x;
  switch (op) {
  case TERN_OP_COPY: return x;
  case TERN_OP_NEG: return -x;
  case TERN_OP_EXP: return (double)expl(l);
  case TERN_OP_SQRT: return sqrt(x);
  case TERN_OP_ABS: return fabs(x);
  case TERN_OP_SIGN: return isnan(x) ? x : (x > 0) - (x < 0);
  case TERN_OP_RSQRT: return (double)(1 / sqrtl(l));
  case TERN_OP_RECIPROCAL: return 1 / x;
  case TERN_OP_EXP2: return (double)exp2l(l);
  case TERN_OP_EXPM1: return (double)expm1l(l);
  case TERN_OP_LOG: return (double)logl(l);
  case TERN_OP_LOG2: return (double)log2l(l);
  case TERN_OP_LOG10: return (double)log10l(l);
  case TERN_OP_LOG1P: return (double)log1pl(l);
  case TERN_OP_CBRT: return (double)cbrtl(l);
  case TERN_OP_SIN: return (double)sinl(l);
  case TERN_OP_COS: return (double)cosl(l);
  case TERN_OP_TAN: return (double)tanl(l);
  case TERN_OP_ASIN: return (double)asinl(l);
  case TERN_OP_ACOS: return (double)acosl(l);
  case TERN_OP_ATAN: return (double)atanl(l);
  case TERN_OP_SINH: return (double)sinhl(l);
  case TERN_OP_COSH: return (double)coshl(l);
  case TERN_OP_TANH: return (double)tanhl(l);
  case TERN_OP_ASINH: return (double)asinhl(l);
  case TERN_OP_ACOSH: return (double)acoshl(l);
  case TERN_OP_ATANH: return (double)atanhl(l);
  case TERN_OP_ERF: return (double)erfl(l);
  case TERN_OP_ERFC: return (double)erfcl(l);
  case TERN_OP_ERFINV: return (double)erf_inverse(l);
  case TERN_OP_SINPI: return (double)sin_pi(l);
  case TERN_OP_COSPI: return (double)cos_pi(l);
  case TERN_OP_FLOOR: return floor(x);
  case TERN_OP_CEIL: return ceil(x);
  case TERN_OP_ROUND: return nearbyint(x);
  default: return trunc(x);
  }
}

static double floor_divide(double a, double b) {
  if (isinf(a) && b != 0) return NAN; /* as NumPy: an infinity has no quotient but by 0 */
  if (isinf(b) && !isnan(a) && a != 0 && (a < 0) != (b < 0)) return -1;
  if (b == 0 || !isfinite(a) || !isfinite(b)) return floor(a / b);
  const long double m = fmodl(a, b), t = rintl((a - m) / b); /* the exact quotient, towards 0 */
  const long double q = m != 0 && (m < 0) != (b < 0) ? t - 1 : t;
  return q == 0 ? copysign(0, a / b) : (double)q;
}

static double floor_mod(double a, double b) {
  const long double m = fmodl(a, b);
  if (m == 0) return copysign(0, b);
  return (m < 0) != (b < 0) ? (double)(m + b) : (double)m;
}

static double real_binary(uint32_t op, uint32_t dtype, double a, double b) {
  switch (op) {
  case TERN_OP_ADD: return a + b;
  case TERN_OP_SUB: return a - b;
  case TERN_OP_MUL: return a * b;
  case TERN_OP_DIV: return a / b;
  case TERN_OP_MAXIMUM: return isnan(a) || a > b ? a : b;
  case TERN_OP_MINIMUM: return isnan(a) || a < b ? a : b;
  case TERN_OP_POW: return (double)powl(a, b);
  case TERN_OP_FLOORDIV: return floor_divide(a, b);
  case TERN_OP_MOD: return floor_mod(a, b);
  case TERN_OP_FMOD: return fmod(a, b);
  case TERN_OP_ATAN2: return (double)atan2l(a, b);
  case TERN_OP_HYPOT: return (double)hypotl(a, b);
  case TERN_OP_COPYSIGN: return copysign(a, b);
  default: return dtype == TERN_F32 ? nextafterf((float)a, (float)b) : nextafter(a, b);
  }
}

static bool compare(uint32_t op, int cls, word a, word b) {
  const bool lt = cls == REAL ? a.f < b.f : cls == SIGNED ? a.i < b.i : a.u < b.u;
  const bool gt = cls == REAL ? a.f > b.f : cls == SIGNED ? a.i > b.i : a.u > b.u;
  const bool eq = cls == REAL ? a.f == b.f : a.u == b.u;
  switch (op) {
  case TERN_OP_EQ: return eq;
  case TERN_OP_NE: return !eq;
  case TERN_OP_LT: return lt;
  case TERN_OP_LE: return lt || eq;
  case TERN_OP_GT: return gt;
  default: return gt || eq;
  }
}

static uint64_t int_power(bool is_signed, uint64_t a, word e) {
  if (is_signed && e.i < 0) return a == 1 ? 1 : a == (uint64_t)-1 ? (e.i & 1 ? (uint64_t)-1 : 1) : 0;
  uint64_t r = 1;
  for (uint64_t n = e.u; n; n >>= 1, a *= a)
    if (n & 1) r *= a;
  return r;
}

static word int_divide(uint32_t op, bool is_signed, word a, word b) {
  if (b.u == 0) return (word){.u = 0};
  if (!is_signed) return (word){.u = op == TERN_OP_FLOORDIV ? a.u / b.u : a.u % b.u};
  if (b.i == -1) return (word){.u = op == TERN_OP_FLOORDIV ? 0 - a.u : 0};
  const int64_t q = a.i / b.i, m = a.i % b.i;
  const bool adjust = m != 0 && (m < 0) != (b.i < 0);
  if (op == TERN_OP_FMOD) return (word){.i = m};
  return (word){.i = op == TERN_OP_FLOORDIV ? q - adjust : adjust ? m + b.i : m};
}

static word shift(uint32_t op, uint32_t dtype, word a, word b) {
  const bool is_signed = class_of(dtype) == SIGNED, negative = is_signed && a.i < 0;
  if (b.u >= (uint64_t)bits_of(dtype))
    return (word){.i = op == TERN_OP_SHR && negative ? -1 : 0}; /* a negative count is huge as u */
  if (op == TERN_OP_SHL) return (word){.u = a.u << b.u};
  return negative ? (word){.u = ~(~a.u >> b.u)} : (word){.u = a.u >> b.u};
}

static word int_map(uint32_t op, uint32_t dtype, const word *x) {
  const bool is_signed = class_of(dtype) == SIGNED;
  const word a = x[0];
  switch (op) {
  case TERN_OP_COPY: return a;
  case TERN_OP_NEG: return (word){.u = 0 - a.u};
  case TERN_OP_ABS: return (word){.u = is_signed && a.i < 0 ? 0 - a.u : a.u};
  case TERN_OP_SIGN: return is_signed ? (word){.i = (a.i > 0) - (a.i < 0)} : (word){.u = a.u > 0};
  case TERN_OP_NOT: return dtype == TERN_BOOL ? (word){.u = !a.u} : (word){.u = ~a.u};
  case TERN_OP_ADD: return (word){.u = a.u + x[1].u};
  case TERN_OP_SUB: return (word){.u = a.u - x[1].u};
  case TERN_OP_MUL: return (word){.u = a.u * x[1].u};
  case TERN_OP_MAXIMUM: return compare(TERN_OP_GT, is_signed ? SIGNED : UNSIGNED, a, x[1]) ? a : x[1];
  case TERN_OP_MINIMUM: return compare(TERN_OP_LT, is_signed ? SIGNED : UNSIGNED, a, x[1]) ? a : x[1];
  case TERN_OP_POW: return (word){.u = int_power(is_signed, a.u, x[1])};
  case TERN_OP_FLOORDIV:
  case TERN_OP_MOD:
  case TERN_OP_FMOD: return int_divide(op, is_signed, a, x[1]);
  case TERN_OP_AND: return (word){.u = a.u & x[1].u};
  case TERN_OP_OR: return (word){.u = a.u | x[1].u};
  case TERN_OP_XOR: return (word){.u = a.u ^ x[1].u};
  default: return shift(op, dtype, a, x[1]);
  }
}

tern_word eval_map(uint32_t op, uint32_t in, uint32_t out, const word *x) {
  const int cls = class_of(in);
  if (op == TERN_OP_CAST) return eval_cast(in, out, x[0]);
  if (op == TERN_OP_WHERE) return x[0].u ? x[1] : x[2];
  if (op >= TERN_OP_EQ && op <= TERN_OP_GE) return (word){.u = compare(op, cls, x[0], x[1])};
  switch (op) {
  case TERN_OP_ISNAN: return (word){.u = isnan(x[0].f) != 0};
  case TERN_OP_ISINF: return (word){.u = isinf(x[0].f) != 0};
  case TERN_OP_ISFINITE: return (word){.u = isfinite(x[0].f) != 0};
  case TERN_OP_SIGNBIT: return (word){.u = signbit(x[0].f) != 0};
  default: break;
  }
  if (cls != REAL) return wrap(out, int_map(op, in, x).u);
  const double y = op < TERN_OP_ADD ? real_unary(op, x[0].f) : real_binary(op, in, x[0].f, x[1].f);
  const bool small = out == TERN_F16 || out == TERN_BF16;
  return (word){.f = round_real(out, small ? (double)(float)y : y)};
}

uint32_t eval_rng(uint64_t key, uint64_t counter, uint32_t stream, uint64_t i) {
  uint32_t c[4] = {(uint32_t)(counter + i / 4), (uint32_t)((counter + i / 4) >> 32), stream, 0};
  uint32_t k[2] = {(uint32_t)key, (uint32_t)(key >> 32)};
  for (int round = 0; round < 10; round++) { /* Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011 */
    const uint64_t p = (uint64_t)0xD2511F53u * c[0], q = (uint64_t)0xCD9E8D57u * c[2];
    const uint32_t n[4] = {(uint32_t)(q >> 32) ^ c[1] ^ k[0], (uint32_t)q, (uint32_t)(p >> 32) ^ c[3] ^ k[1],
                           (uint32_t)p};
    memcpy(c, n, sizeof c);
    k[0] += 0x9E3779B9u;
    k[1] += 0xBB67AE85u;
  }
  return c[i % 4];
}
