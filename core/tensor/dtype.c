/* Sizes, names, promotion (https://data-apis.org/array-api/latest/API_specification/type_promotion.html, extended to
   mixed kinds as DECISIONS in docs/guide.md say), and conversion of single elements. float16: IEEE 754 binary16;
   bfloat16: upper half of binary32. Both round to nearest even. */
#include "tensor/dtype.h"
#include <math.h>
#include <string.h>

const uint8_t tern__dtype_size[TERN_DTYPE_END] = {0, 1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 2, 4, 8};

const char *tern_dtype_name(tern_dtype dtype) {
  static const char *const names[TERN_DTYPE_END] = {"no dtype", "bool",     "int8",    "int16",  "int32",
                                                    "int64",    "uint8",    "uint16",  "uint32", "uint64",
                                                    "float16",  "bfloat16", "float32", "float64"};
  return dtype > 0 && dtype < TERN_DTYPE_END ? names[dtype] : "no dtype";
}

size_t tern_dtype_size(tern_dtype dtype) { return dtype > 0 && dtype < TERN_DTYPE_END ? tern__dtype_size[dtype] : 0; }

tern_dtype tern__float_of(tern_dtype d) {
  if (tern__is_float(d)) return d;
  return d == TERN_I64 || d == TERN_U64 ? TERN_F64 : TERN_F32;
}

static tern_dtype promote_ints(tern_dtype a, tern_dtype b) {
  if (tern__is_unsigned(a) == tern__is_unsigned(b)) return tern__dtype_size[a] >= tern__dtype_size[b] ? a : b;
  const tern_dtype s = tern__is_unsigned(a) ? b : a, u = tern__is_unsigned(a) ? a : b;
  if (tern__dtype_size[s] > tern__dtype_size[u]) return s;
  return u == TERN_U64 ? TERN_F64 : (tern_dtype)(TERN_I8 + (u - TERN_U8) + 1); /* the next wider signed */
}

static tern_dtype promote_floats(tern_dtype a, tern_dtype b) {
  if (tern__dtype_size[a] == 2 && tern__dtype_size[b] == 2) return TERN_F32; /* float16 with bfloat16 */
  return tern__dtype_size[a] >= tern__dtype_size[b] ? a : b;
}

tern_dtype tern__promote(tern_dtype a, tern_dtype b) {
  if (a == b || b == TERN_BOOL) return a;
  if (a == TERN_BOOL) return b;
  const bool fa = tern__is_float(a), fb = tern__is_float(b);
  if (fa && fb) return promote_floats(a, b);
  if (!fa && !fb) return promote_ints(a, b);
  const tern_dtype f = fa ? a : b, i = fa ? b : a;
  if (f == TERN_F64 || tern__dtype_size[i] == 8) return TERN_F64;
  return TERN_F32;
}

tern_dtype tern__promote_weak(tern_dtype a, bool scalar_is_float) {
  if (tern__is_float(a)) return a;
  if (scalar_is_float) return tern__float_of(a);
  return a == TERN_BOOL ? TERN_I64 : a;
}

/* ---- single elements ---- */

static float half_to_float(uint16_t h) {
  const int exponent = (h >> 10) & 31, mantissa = h & 1023;
  const float sign = h & 0x8000 ? -1.0f : 1.0f;
  if (exponent == 31) return mantissa ? copysignf(NAN, sign) : sign * INFINITY;
  if (exponent == 0) return sign * ldexpf((float)mantissa, -24);
  return sign * ldexpf((float)(mantissa + 1024), exponent - 25);
}

/* Rounds once, from double. */
static uint16_t double_to_half(double x) {
  const uint16_t sign = signbit(x) ? 0x8000 : 0;
  const double a = fabs(x);
  if (isnan(x)) return sign | 0x7e00;
  if (a >= 65520.0) return sign | 0x7c00;
  if (a < 0x1p-14) return (uint16_t)(sign | (int)nearbyint(a * 0x1p24)); /* 1024 of it is the smallest normal */
  int e;
  const double m = frexp(a, &e);             /* a = m 2^e, m in [.5, 1) */
  const int bits = (int)nearbyint(m * 2048); /* 1024 .. 2048 */
  return (uint16_t)(sign | (((e + 14) << 10) + (bits - 1024)));
}

static float bf16_to_float(uint16_t h) {
  const uint32_t bits = (uint32_t)h << 16;
  float f;
  memcpy(&f, &bits, sizeof f);
  return f;
}

static uint16_t double_to_bf16(double x) {
  float f = (float)x;
  uint32_t bits;
  memcpy(&bits, &f, sizeof bits);
  if (isnan(x)) return (uint16_t)(bits >> 16 | 0x40);
  /* f rounded x already: undo a tie that this made (round to odd, then to even) */
  if ((double)f != x && isfinite(f)) {
    const bool up = fabs((double)f) > fabs(x);
    if (up) bits--;
    bits |= 1;
  }
  bits += 0x7fff + ((bits >> 16) & 1);
  return (uint16_t)(bits >> 16);
}

tern_word tern__load(tern_dtype d, const void *p) {
  tern_word w = {.u = 0};
  union {
    int8_t b;
    int16_t h;
    int32_t i;
    uint16_t s;
    uint32_t u;
    float f;
  } x;
  switch (d) {
  case TERN_BOOL:
  case TERN_U8: w.u = *(const uint8_t *)p; break;
  case TERN_I8: w.i = *(const int8_t *)p; break;
  case TERN_I16:
    memcpy(&x, p, 2);
    w.i = x.h;
    break;
  case TERN_I32:
    memcpy(&x, p, 4);
    w.i = x.i;
    break;
  case TERN_U16:
    memcpy(&x, p, 2);
    w.u = x.s;
    break;
  case TERN_U32:
    memcpy(&x, p, 4);
    w.u = x.u;
    break;
  case TERN_F16:
    memcpy(&x, p, 2);
    w.f = (double)half_to_float(x.s);
    break;
  case TERN_BF16:
    memcpy(&x, p, 2);
    w.f = (double)bf16_to_float(x.s);
    break;
  case TERN_F32:
    memcpy(&x, p, 4);
    w.f = (double)x.f;
    break;
  case TERN_I64:
  case TERN_U64:
  case TERN_F64: memcpy(&w, p, 8); break;
  default: break;
  }
  return w;
}

void tern__store(tern_dtype d, void *p, tern_word w) {
  uint16_t h;
  float f;
  switch (d) {
  case TERN_F16:
    h = double_to_half(w.f);
    memcpy(p, &h, 2);
    break;
  case TERN_BF16:
    h = double_to_bf16(w.f);
    memcpy(p, &h, 2);
    break;
  case TERN_F32:
    f = (float)w.f;
    memcpy(p, &f, 4);
    break;
  default: memcpy(p, &w, tern__dtype_size[d]); break; /* little-endian: the low bytes */
  }
}

double tern__word_double(tern_word w, tern_dtype d) {
  return tern__is_float(d) ? w.f : d == TERN_BOOL || tern__is_unsigned(d) ? (double)w.u : (double)w.i;
}

static tern_word double_to_int(double x, tern_dtype to) {
  tern_word w = {.u = 0};
  if (isnan(x)) return w;
  const int bits = 8 * tern__dtype_size[to];
  if (tern__is_unsigned(to)) {
    const double top = ldexp(1, bits);
    w.u = x <= 0 ? 0 : x >= top ? UINT64_MAX >> (64 - bits) : (uint64_t)x;
  } else {
    const double top = ldexp(1, bits - 1);
    w.i = x >= top    ? (int64_t)(UINT64_MAX >> (65 - bits))
          : x <= -top ? -(int64_t)(UINT64_MAX >> (65 - bits)) - 1
                      : (int64_t)x;
  }
  return w;
}

tern_word tern__convert(tern_word w, tern_dtype from, tern_dtype to) {
  tern_word r = {.u = 0};
  const bool from_float = tern__is_float(from);
  if (to == TERN_BOOL) {
    r.u = from_float ? w.f != 0 : w.u != 0;
    return r;
  }
  if (tern__is_float(to)) {
    uint8_t element[8];
    r.f = tern__word_double(w, from);
    tern__store(to, element, r); /* rounds */
    return tern__load(to, element);
  }
  if (from_float) return double_to_int(w.f, to);
  return tern__load(to, &w); /* integers wrap: the low bytes */
}
