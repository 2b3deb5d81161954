/* The helper functions that rendered kernels call, after the words of the dialect. t_..._f is for float32 (and the 16-bit floats,
   which compute in it), t_..._d for float64, t_..._l / _u for signed / unsigned integers in 64 bits. */
#include <stdlib.h>
#include <string.h>

#include "render_internal.h"

static const char opencl_words[] =
    "#define KERNEL __kernel\n#define GLOBAL __global\n#define LOCAL __local\n#define INLINE static inline\n#define "
    "RESTRICT restrict\n"
    "#define TID get_global_id(0)\n#define LID get_local_id(0)\n#define GRP get_group_id(0)\n"
    "#define BARRIER barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE)\n"
    "#define t_as_float(x) as_float((uint)(x))\n#define t_as_uint(x) as_uint(x)\n#define t_as_double(x) "
    "as_double((ulong)(x))\n"
    "#define t_as_ulong(x) as_ulong(x)\n"
    "#pragma OPENCL FP_CONTRACT OFF\n";

static const char opencl_fp64[] = "#pragma OPENCL EXTENSION cl_khr_fp64 : enable\n";

static const char floats16[] = "INLINE float t_from_h(ushort h) {\n"
                               "  const uint s = (uint)(h >> 15) << 31, e = (h >> 10) & 31, m = h & 1023;\n"
                               "  if (e == 31) return t_as_float(s | 0x7f800000u | m << 13);\n"
                               "  if (e) return t_as_float(s | (e + 112) << 23 | m << 13);\n"
                               "  const float f = (float)m * 0x1p-24f;\n"
                               "  return s ? -f : f;\n}\n"
                               "INLINE ushort t_to_h(float x) {\n" /* round to nearest, halves to even */
                               "  uint u = t_as_uint(x);\n"
                               "  const uint s = u >> 16 & 0x8000u;\n"
                               "  u &= 0x7fffffffu;\n"
                               "  if (u > 0x7f800000u) return (ushort)(s | 0x7e00u);\n"
                               "  if (u >= 0x477ff000u) return (ushort)(s | 0x7c00u);\n"
                               "  if (u < 0x38800000u) return (ushort)(s | (uint)rint(t_as_float(u) * 0x1p24f));\n"
                               "  u += 0xfffu + (u >> 13 & 1u);\n"
                               "  return (ushort)(s | (u - 0x38000000u) >> 13);\n}\n"
                               "INLINE float t_from_b(ushort b) { return t_as_float((uint)b << 16); }\n"
                               "INLINE ushort t_to_b(float x) {\n"
                               "  const uint u = t_as_uint(x);\n"
                               "  if ((u & 0x7fffffffu) > 0x7f800000u) return (ushort)(u >> 16 & 0x8000u | 0x7fc0u);\n"
                               "  return (ushort)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);\n}\n"
                               "INLINE float t_round_h(float x) { return t_from_h(t_to_h(x)); }\n"
                               "INLINE float t_round_b(float x) { return t_from_b(t_to_b(x)); }\n";

static const char integers[] =
    "INLINE long t_floordiv_l(long a, long b) {\n"
    "  if (b == 0) return 0;\n  if (b == -1) return (long)(0ul - (ulong)a);\n"
    "  const long q = a / b, m = a % b;\n  return m != 0 && (m < 0) != (b < 0) ? q - 1 : q;\n}\n"
    "INLINE long t_fmod_l(long a, long b) { return b == 0 || b == -1 ? 0 : a % b; }\n"
    "INLINE long t_mod_l(long a, long b) {\n"
    "  const long m = t_fmod_l(a, b);\n  return m != 0 && (m < 0) != (b < 0) ? m + b : m;\n}\n"
    "INLINE ulong t_floordiv_u(ulong a, ulong b) { return b == 0 ? 0 : a / b; }\n"
    "INLINE ulong t_fmod_u(ulong a, ulong b) { return b == 0 ? 0 : a % b; }\n"
    "INLINE ulong t_mod_u(ulong a, ulong b) { return t_fmod_u(a, b); }\n"
    "INLINE ulong t_pow_u(ulong a, ulong n) {\n"
    "  ulong r = 1;\n  for (; n; n >>= 1, a *= a) if (n & 1) r *= a;\n  return r;\n}\n"
    "INLINE long t_pow_l(long a, long n) {\n"
    "  if (n < 0) return a == 1 ? 1 : a == -1 ? (n & 1 ? -1 : 1) : 0;\n  return (long)t_pow_u((ulong)a, (ulong)n);\n}\n"
    /* Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011 */
    "INLINE uint t_philox(ulong key, ulong counter, uint stream, ulong i) {\n"
    "  const ulong n = counter + i / 4;\n"
    "  uint a = (uint)n, b = (uint)(n >> 32), c = stream, d = 0, k = (uint)key, h = (uint)(key >> 32);\n"
    "  for (int r = 0; r < 10; r++) {\n"
    "    const ulong p = 0xD2511F53ul * (ulong)a, q = 0xCD9E8D57ul * (ulong)c;\n"
    "    a = (uint)(q >> 32) ^ b ^ k; b = (uint)q; c = (uint)(p >> 32) ^ d ^ h; d = (uint)p;\n"
    "    k += 0x9E3779B9u; h += 0xBB67AE85u;\n  }\n"
    "  const uint w = (uint)(i % 4);\n  return w == 0 ? a : w == 1 ? b : w == 2 ? c : d;\n}\n";

/* Neumaier's compensated sum, for devices without float64 */
static const char sums[] = "INLINE void t_two_sum(float *a, float *c, float x) {\n"
                           "  const float t = *a + x;\n"
                           "  *c += fabs(*a) >= fabs(x) ? (*a - t) + x : (x - t) + *a;\n  *a = t;\n}\n"
                           "INLINE float t_sum_end(float a, float c) { const float s = a + c; return c == c && fabs(a) "
                           "< INFINITY ? s : a; }\n";

/* For both widths: R the type, F the letter. Exact argument reduction for sinpi / cospi. The floored quotient follows the exact one. */
static const char reals[] =
    "INLINE R t_sinpi_F(R x) {\n"
    "  const R r = x - (R)2 * rint(x * (R)0.5), h = fabs(r), a = h > (R)0.5 ? (R)1 - h : h;\n"
    "  return copysign(a <= (R)0.25 ? sin((R)3.14159265358979323846 * a) : cos((R)3.14159265358979323846 * ((R)0.5 - "
    "a)), r == 0 || h == 1 ? x : r);\n}\n"
    "INLINE R t_cospi_F(R x) {\n"
    "  const R h = fabs(x - (R)2 * rint(x * (R)0.5)), a = h > (R)0.5 ? (R)1 - h : h;\n"
    "  const R y = a <= (R)0.25 ? cos((R)3.14159265358979323846 * a) : sin((R)3.14159265358979323846 * ((R)0.5 - a));\n"
    "  return h > (R)0.5 ? -y : y;\n}\n"
    "INLINE R t_floordiv_F(R a, R b) {\n"
    "  if (b == 0 || !(fabs(a) < (R)INFINITY) || !(fabs(b) < (R)INFINITY)) return floor(a / b);\n"
    "  const R m = fmod(a, b), t = rint((a - m) / b), q = m != 0 && (m < 0) != (b < 0) ? t - (R)1 : t;\n"
    "  return q == 0 ? copysign((R)0, a / b) : q;\n}\n"
    "INLINE R t_mod_F(R a, R b) {\n"
    "  const R m = fmod(a, b);\n"
    "  if (m == 0) return copysign((R)0, b);\n"
    "  return (m < 0) != (b < 0) ? m + b : m;\n}\n";

/* Giles, "Approximating the erfinv function", GPU Computing Gems 2011: the single-precision polynomials */
static const char erfinv_start[] =
    "INLINE float t_erfinv_start(float x) {\n"
    "  float w = -log((1.0f - x) * (1.0f + x)), p;\n"
    "  if (w < 5.0f) {\n"
    "    w -= 2.5f;\n"
    "    p = 2.81022636e-08f; p = 3.43273939e-07f + p * w; p = -3.5233877e-06f + p * w; p = -4.39150654e-06f + p * w;\n"
    "    p = 0.00021858087f + p * w; p = -0.00125372503f + p * w; p = -0.00417768164f + p * w; p = 0.246640727f + p * "
    "w;\n"
    "    p = 1.50140941f + p * w;\n"
    "  } else {\n"
    "    w = sqrt(w) - 3.0f;\n"
    "    p = -0.000200214257f; p = 0.000100950558f + p * w; p = 0.00134934322f + p * w; p = -0.00367342844f + p * w;\n"
    "    p = 0.00573950773f + p * w; p = -0.0076224613f + p * w; p = 0.00943887047f + p * w; p = 1.00167406f + p * w;\n"
    "    p = 2.83297682f + p * w;\n"
    "  }\n  return p * x;\n}\n";

static const char erfinv_single[] =
    "INLINE float t_erfinv_f(float x) {\n"
    "  if (!(fabs(x) < 1.0f)) return fabs(x) == 1.0f ? copysign(INFINITY, x) : x - x + NAN;\n"
    "  return t_erfinv_start(x);\n}\n"
    "INLINE int t_signbit_f(float x) { return (int)(t_as_uint(x) >> 31); }\n";

/* With float64: Halley steps from the start; near 1 on erfc, as 1 - |x| is exact there */
static const char erfinv_double[] =
    "INLINE double t_erfinv_d(double x) {\n"
    "  const double a = fabs(x);\n"
    "  if (!(a < 1.0)) return a == 1.0 ? copysign((double)INFINITY, x) : x - x + (double)NAN;\n"
    "  if (a < 1e-10) return x * 0.88622692545275801365;\n"
    "  const float g = (float)a;\n"
    "  double y = g < 1.0f ? (double)t_erfinv_start(g) : sqrt(-log(1.0 - a));\n"
    "  for (int i = 0; i < 3; i++) {\n"
    "    const double e = a > 0.5 ? (1.0 - a) - erfc(y) : erf(y) - a, d = e / (1.12837916709551257390 * exp(-y * y));\n"
    "    y -= d / (1.0 + y * d);\n  }\n"
    "  return copysign(y, x);\n}\n"
    "INLINE float t_erfinv_f(float x) { return (float)t_erfinv_d((double)x); }\n"
    "INLINE int t_signbit_f(float x) { return (int)(t_as_uint(x) >> 31); }\n"
    "INLINE int t_signbit_d(double x) { return (int)(t_as_ulong(x) >> 63); }\n"
    /* round to odd, so that a further rounding to 16 bits is the only one that counts */
    "INLINE float t_odd(double x) {\n"
    "  const float f = (float)x;\n"
    "  if ((double)f == x || x != x) return f;\n"
    "  const uint u = t_as_uint(f);\n"
    "  return t_as_float((fabs((double)f) > fabs(x) ? u - 1u : u) | 1u);\n}\n";

static void put_reals(render_text *t, const char *type, char letter) {
  for (const char *c = reals; *c; c++) {
    const bool alone = *c == 'R' && !strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZ_", c[1]) &&
                       (c == reals || !strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZ_", c[-1]));
    if (alone)
      render__put(t, "%s", type);
    else if (*c == 'F' && c[-1] == '_' && c[1] == '(')
      render__put(t, "%c", letter);
    else
      render__put(t, "%c", *c);
  }
}

char *render_prelude(const render_device *dev) {
  render_text t = {0};
  if (dev->fp64) render__put(&t, "%s", opencl_fp64);
  render__put(&t, "%s%s%s", opencl_words, floats16, integers);
  if (!dev->fp64) render__put(&t, "%s", sums);
  put_reals(&t, "float", 'f');
  if (dev->fp64) put_reals(&t, "double", 'd');
  render__put(&t, "%s%s", erfinv_start, dev->fp64 ? erfinv_double : erfinv_single);
  if (!t.failed) return t.s;
  free(t.s);
  return NULL;
}
