/* The helper functions that rendered kernels call, after the words of the dialect: only those that the sources name,
   since a compiler takes longer over them than over a kernel. t_..._f is for float32 (and the 16-bit floats, which
   compute in it), t_..._d for float64, t_..._v for sixteen floats, t_..._l / _u for signed / unsigned integers in 64
   bits. */
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
    /* before a loop that is not worth a compiler's time: the rest of a vector loop, loops around loops */
    "#ifdef __clang__\n#define ONCE _Pragma(\"clang loop unroll(disable) vectorize(disable)\")\n#else\n"
    "#define ONCE\n#endif\n"
    "#pragma OPENCL FP_CONTRACT OFF\n";

static const char opencl_fp64[] = "#pragma OPENCL EXTENSION cl_khr_fp64 : enable\n";

enum { ALWAYS, WITH_FP64, WITHOUT_FP64 };

typedef struct helper {
  const char *name; /* ends in _F: there is one for each width, with R for the type and F for the letter in the text */
  uint32_t when;
  const char *text;
} helper;

/* A helper stands behind those that it calls */
static const helper helpers[] = {
    {"t_from_h", ALWAYS,
     "INLINE float t_from_h(ushort h) {\n"
     "  const uint s = (uint)(h >> 15) << 31, e = (h >> 10) & 31, m = h & 1023;\n"
     "  if (e == 31) return t_as_float(s | 0x7f800000u | m << 13);\n"
     "  if (e) return t_as_float(s | (e + 112) << 23 | m << 13);\n"
     "  const float f = (float)m * 0x1p-24f;\n"
     "  return s ? -f : f;\n}\n"},
    {"t_to_h", ALWAYS, /* round to nearest, halves to even */
     "INLINE ushort t_to_h(float x) {\n"
     "  uint u = t_as_uint(x);\n"
     "  const uint s = u >> 16 & 0x8000u;\n"
     "  u &= 0x7fffffffu;\n"
     "  if (u > 0x7f800000u) return (ushort)(s | 0x7e00u);\n"
     "  if (u >= 0x477ff000u) return (ushort)(s | 0x7c00u);\n"
     "  if (u < 0x38800000u) return (ushort)(s | (uint)rint(t_as_float(u) * 0x1p24f));\n"
     "  u += 0xfffu + (u >> 13 & 1u);\n"
     "  return (ushort)(s | (u - 0x38000000u) >> 13);\n}\n"},
    {"t_from_b", ALWAYS, "INLINE float t_from_b(ushort b) { return t_as_float((uint)b << 16); }\n"},
    {"t_to_b", ALWAYS,
     "INLINE ushort t_to_b(float x) {\n"
     "  const uint u = t_as_uint(x);\n"
     "  if ((u & 0x7fffffffu) > 0x7f800000u) return (ushort)(u >> 16 & 0x8000u | 0x7fc0u);\n"
     "  return (ushort)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);\n}\n"},
    {"t_round_h", ALWAYS, "INLINE float t_round_h(float x) { return t_from_h(t_to_h(x)); }\n"},
    {"t_round_b", ALWAYS, "INLINE float t_round_b(float x) { return t_from_b(t_to_b(x)); }\n"},
    {"t_odd", WITH_FP64, /* round to odd, so that a further rounding to 16 bits is the only one that counts */
     "INLINE float t_odd(double x) {\n"
     "  const float f = (float)x;\n"
     "  if ((double)f == x || x != x) return f;\n"
     "  const uint u = t_as_uint(f);\n"
     "  return t_as_float((fabs((double)f) > fabs(x) ? u - 1u : u) | 1u);\n}\n"},
    /* Sixteen floats at any address: as one access where the compiler lets us say so, since some runtimes' vstore16
       (PoCL 3.1) makes four. t_bypass_v: past the cache, which whatever hands results from a kernel to its reader
       orders as it does all stores */
    {"t_load_v", ALWAYS,
     "#ifdef __clang__\ntypedef float16 t_loose_l __attribute__((aligned(4)));\n"
     "#define t_load_v(p) (*(GLOBAL const t_loose_l *)(p))\n"
     "#else\n#define t_load_v(p) vload16(0, p)\n#endif\n"},
    {"t_store_v", ALWAYS,
     "#ifdef __clang__\ntypedef float16 t_loose_s __attribute__((aligned(4)));\n"
     "#define t_store_v(x, p) (*(GLOBAL t_loose_s *)(p) = (x))\n"
     "#else\n#define t_store_v(x, p) vstore16(x, 0, p)\n#endif\n"},
    {"t_aligned_v", ALWAYS, "#define t_aligned_v(p) (((size_t)(p) & 63) == 0)\n"},
    {"t_bypass_v", ALWAYS,
     "#if defined(__clang__) && defined(__has_builtin)\n#if __has_builtin(__builtin_nontemporal_store)\n"
     "#define t_bypass_v(x, p) __builtin_nontemporal_store(x, (GLOBAL float16 *)(p))\n"
     "#endif\n#endif\n#ifndef t_bypass_v\n#define t_bypass_v(x, p) t_store_v(x, p)\n#endif\n"},
    /* Many by one, rounded exactly as the divider rounds, which takes several times as long: Markstein, "Computation of
       elementary functions on the IBM RISC System/6000 processor", IBM J. Res. Dev. 34 (1990). With 1 / b in two parts
       q is off by little more than half an ulp, and the last step is right where nothing over- or underflows: all
       magnitudes in [2^-60, 2^60) */
    {"t_div_by_v", ALWAYS,
     "INLINE float16 t_div_by_v(float16 a, float b) {\n"
     "  const float r = 1.0f / b, low = fma(-b, r, 1.0f) * r, size = fabs(b);\n"
     "  const int16 m = (as_uint16(a) & 0x7fffffffu) - 0x21800000u < 0x3c000000u;\n"
     "  const ulong2 m2 = as_ulong2(convert_char16(m));\n"
     "  if (size >= 0x1p-60f && size < 0x1p60f && (m2.x & m2.y) == ~0ul) {\n"
     "    const float16 q = fma(a, (float16)(r), a * low);\n"
     "    return fma(fma((float16)(-b), q, a), (float16)(r), q);\n"
     "  }\n  return a / b;\n}\n"},
    /* The x of the lane d further on in the sub-group; anything past the last */
    {"t_down", ALWAYS,
     "#ifdef cl_khr_subgroup_shuffle_relative\n#define t_down(x, d) sub_group_shuffle_down(x, d)\n"
     "#else\n#define t_down(x, d) intel_sub_group_shuffle_down(x, x, d)\n#endif\n"},
    {"t_signbit_f", ALWAYS, "INLINE int t_signbit_f(float x) { return (int)(t_as_uint(x) >> 31); }\n"},
    {"t_signbit_d", WITH_FP64, "INLINE int t_signbit_d(double x) { return (int)(t_as_ulong(x) >> 63); }\n"},

    /* In the dtype's own spacing, by bits: some runtimes' nextafter (Mesa 22.3) leaves out the subnormal numbers */
    {"t_nextafter_f", ALWAYS,
     "INLINE float t_nextafter_f(float x, float y) {\n"
     "  const uint a = t_as_uint(x), b = t_as_uint(y), m = a & 0x7fffffffu, n = b & 0x7fffffffu;\n"
     "  if (m > 0x7f800000u || n > 0x7f800000u) return x + y;\n"
     "  if (a == b || (m | n) == 0) return y;\n"
     "  if (m == 0) return t_as_float((b & 0x80000000u) | 1u);\n"
     "  return t_as_float((a ^ b) >> 31 || m > n ? a - 1u : a + 1u);\n}\n"},
    {"t_nextafter_d", WITH_FP64,
     "INLINE double t_nextafter_d(double x, double y) {\n"
     "  const ulong a = t_as_ulong(x), b = t_as_ulong(y), most = ~0ul >> 1, inf = 0x7fful << 52, m = a & most, n = b & "
     "most;\n"
     "  if (m > inf || n > inf) return x + y;\n"
     "  if (a == b || (m | n) == 0) return y;\n"
     "  if (m == 0) return t_as_double((b & ~most) | 1ul);\n"
     "  return t_as_double((a ^ b) >> 63 || m > n ? a - 1ul : a + 1ul);\n}\n"},
    /* An int as a long. rusticl (Mesa 22.3) computes wrongly whether (long)x is less than a constant; compilers that
       know better make of this what they make of that. The functions below do not compare their arguments with 0 by
       their sign for the same reason. */
    {"t_long", ALWAYS, "#define t_long(x) ((long)((ulong)(uint)(x) << 32) >> 32)\n"},
    {"t_floordiv_l", ALWAYS,
     "INLINE long t_floordiv_l(long a, long b) {\n"
     "  if (b == 0) return 0;\n  if (b == -1) return (long)(0ul - (ulong)a);\n"
     "  const long q = a / b, m = a % b;\n  return m != 0 && (m ^ b) < 0 ? q - 1 : q;\n}\n"},
    {"t_fmod_l", ALWAYS, "INLINE long t_fmod_l(long a, long b) { return b == 0 || b == -1 ? 0 : a % b; }\n"},
    {"t_mod_l", ALWAYS,
     "INLINE long t_mod_l(long a, long b) {\n"
     "  const long m = t_fmod_l(a, b);\n  return m != 0 && (m ^ b) < 0 ? m + b : m;\n}\n"},
    {"t_floordiv_u", ALWAYS, "INLINE ulong t_floordiv_u(ulong a, ulong b) { return b == 0 ? 0 : a / b; }\n"},
    {"t_fmod_u", ALWAYS, "INLINE ulong t_fmod_u(ulong a, ulong b) { return b == 0 ? 0 : a % b; }\n"},
    {"t_mod_u", ALWAYS, "INLINE ulong t_mod_u(ulong a, ulong b) { return t_fmod_u(a, b); }\n"},
    {"t_pow_u", ALWAYS,
     "INLINE ulong t_pow_u(ulong a, ulong n) {\n"
     "  ulong r = 1;\n  for (; n; n >>= 1, a *= a) if (n & 1) r *= a;\n  return r;\n}\n"},
    {"t_pow_l", ALWAYS,
     "INLINE long t_pow_l(long a, long n) {\n"
     "  if ((int)(n >> 32) < 0) return a == 1 ? 1 : a == -1 ? (n & 1 ? -1 : 1) : 0;\n"
     "  return (long)t_pow_u((ulong)a, (ulong)n);\n}\n"},
    /* Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011 */
    {"t_philox", ALWAYS,
     "INLINE uint t_philox(ulong key, ulong counter, uint stream, ulong i) {\n"
     "  const ulong n = counter + i / 4;\n"
     "  uint a = (uint)n, b = (uint)(n >> 32), c = stream, d = 0, k = (uint)key, h = (uint)(key >> 32);\n"
     "  for (int r = 0; r < 10; r++) {\n"
     "    const ulong p = 0xD2511F53ul * (ulong)a, q = 0xCD9E8D57ul * (ulong)c;\n"
     "    a = (uint)(q >> 32) ^ b ^ k; b = (uint)q; c = (uint)(p >> 32) ^ d ^ h; d = (uint)p;\n"
     "    k += 0x9E3779B9u; h += 0xBB67AE85u;\n  }\n"
     "  const uint w = (uint)(i % 4);\n  return w == 0 ? a : w == 1 ? b : w == 2 ? c : d;\n}\n"},

    /* Neumaier's compensated sum, for devices without float64 */
    {"t_two_sum", WITHOUT_FP64,
     "INLINE void t_two_sum(float *a, float *c, float x) {\n"
     "  const float t = *a + x;\n"
     "  *c += fabs(*a) >= fabs(x) ? (*a - t) + x : (x - t) + *a;\n  *a = t;\n}\n"},
    {"t_sum_end", WITHOUT_FP64,
     "INLINE float t_sum_end(float a, float c) {\n"
     "  const float s = a + c;\n  return c == c && fabs(a) < INFINITY ? s : a;\n}\n"},

    /* Some runtimes' exp (PoCL 3.1) is infinite for the last numbers below the limit: e^709 in two parts, times the
       rest */
    {"t_exp_f", ALWAYS, "INLINE float t_exp_f(float x) { return exp(x); }\n"},
    {"t_exp_d", WITH_FP64,
     "INLINE double t_exp_d(double x) {\n"
     "  if (!(x > 709.0) || x > 710.0) return exp(x);\n"
     "  const double y = exp(x - 709.0);\n"
     "  return 0x1.d422d2be5dc9bp+1022 * y - 0x1.916aa7a2c8d07p+967 * y;\n}\n"},
    /* PoCL 3.1 gives small lanes a wrong result where another lane of the vector is large. Taylor's series below 2^-6,
       where the next term is less than half an ulp */
    {"t_sin_v", ALWAYS,
     "INLINE float16 t_sin_v(float16 x) {\n"
     "  const float16 s = x * x, y = x + x * s * (-0x1.555556p-3f + s * 0x1.111112p-7f);\n"
     "  return select(sin(x), y, fabs(x) < 0x1p-6f);\n}\n"},
    {"t_cos_v", ALWAYS,
     "INLINE float16 t_cos_v(float16 x) {\n"
     "  const float16 s = x * x, y = 1.0f - s * (0.5f - s * 0x1.555556p-5f);\n"
     "  return select(cos(x), y, fabs(x) < 0x1p-6f);\n}\n"},
    {"t_tan_v", ALWAYS,
     "INLINE float16 t_tan_v(float16 x) {\n"
     "  const float16 s = x * x, y = x + x * s * (0x1.555556p-2f + s * 0x1.111112p-3f);\n"
     "  return select(tan(x), y, fabs(x) < 0x1p-6f);\n}\n"},
    /* Exact argument reduction */
    {"t_sinpi_F", ALWAYS,
     "INLINE R t_sinpi_F(R x) {\n"
     "  const R r = x - (R)2 * rint(x * (R)0.5), h = fabs(r), a = h > (R)0.5 ? (R)1 - h : h;\n"
     "  return copysign(a <= (R)0.25 ? sin((R)3.14159265358979323846 * a)\n"
     "                               : cos((R)3.14159265358979323846 * ((R)0.5 - a)), r == 0 || h == 1 ? x : r);\n}\n"},
    {"t_cospi_F", ALWAYS,
     "INLINE R t_cospi_F(R x) {\n"
     "  const R h = fabs(x - (R)2 * rint(x * (R)0.5)), a = h > (R)0.5 ? (R)1 - h : h;\n"
     "  const R y = a <= (R)0.25 ? cos((R)3.14159265358979323846 * a)\n"
     "                           : sin((R)3.14159265358979323846 * ((R)0.5 - a));\n"
     "  return h > (R)0.5 ? -y : y;\n}\n"},
    /* The floor of the exact quotient, by the exact remainder; -1 for 1 / -inf and NaN for inf / 1, as
       numpy.floor_divide */
    {"t_floordiv_F", ALWAYS,
     "INLINE R t_floordiv_F(R a, R b) {\n"
     "  if (b == 0) return a / b;\n"
     "  const R m = fmod(a, b), t = rint((a - m) / b), q = m != 0 && (m < 0) != (b < 0) ? t - (R)1 : t;\n"
     "  return q == 0 ? copysign((R)0, a / b) : q;\n}\n"},
    {"t_mod_F", ALWAYS,
     "INLINE R t_mod_F(R a, R b) {\n"
     "  const R m = fmod(a, b);\n"
     "  if (m == 0) return copysign((R)0, b);\n"
     "  return (m < 0) != (b < 0) ? m + b : m;\n}\n"},

    /* Giles, "Approximating the erfinv function", GPU Computing Gems 2011: the single-precision polynomials */
    {"t_erfinv_f", WITHOUT_FP64,
     "INLINE float t_erfinv_f(float x) {\n"
     "  if (!(fabs(x) < 1.0f)) return fabs(x) == 1.0f ? copysign(INFINITY, x) : x - x + NAN;\n"
     "  float w = -log((1.0f - x) * (1.0f + x)), p;\n"
     "  if (w < 5.0f) {\n"
     "    w -= 2.5f;\n"
     "    p = 2.81022636e-08f; p = 3.43273939e-07f + p * w; p = -3.5233877e-06f + p * w;\n"
     "    p = -4.39150654e-06f + p * w; p = 0.00021858087f + p * w; p = -0.00125372503f + p * w;\n"
     "    p = -0.00417768164f + p * w; p = 0.246640727f + p * w; p = 1.50140941f + p * w;\n"
     "  } else {\n"
     "    w = sqrt(w) - 3.0f;\n"
     "    p = -0.000200214257f; p = 0.000100950558f + p * w; p = 0.00134934322f + p * w;\n"
     "    p = -0.00367342844f + p * w; p = 0.00573950773f + p * w; p = -0.0076224613f + p * w;\n"
     "    p = 0.00943887047f + p * w; p = 1.00167406f + p * w; p = 2.83297682f + p * w;\n"
     "  }\n  return p * x;\n}\n"},
    /* Wichura, "The percentage points of the normal distribution", Applied Statistics 37 (1988), AS 241, PPND16: the
       normal quantile of (1 + x) / 2, over the square root of 2 */
    {"t_ratio_d", WITH_FP64,
     "INLINE double t_ratio_d(double r, double a0, double a1, double a2, double a3, double a4, double a5, double a6,\n"
     "  double a7, double b1, double b2, double b3, double b4, double b5, double b6, double b7) {\n"
     "  return (((((((a7 * r + a6) * r + a5) * r + a4) * r + a3) * r + a2) * r + a1) * r + a0) /\n"
     "         (((((((b7 * r + b6) * r + b5) * r + b4) * r + b3) * r + b2) * r + b1) * r + 1.0);\n}\n"},
    {"t_erfinv_d", WITH_FP64,
     "INLINE double t_erfinv_d(double x) {\n"
     "  const double a = fabs(x), half_root = 0.70710678118654752440;\n"
     "  if (!(a < 1.0)) return a == 1.0 ? copysign((double)INFINITY, x) : x - x + (double)NAN;\n"
     "  if (a <= 0.85)\n"
     "    return x * (0.5 * half_root * t_ratio_d(0.180625 - 0.25 * a * a, 3.3871328727963666080,\n"
     "      133.14166789178437745, 1971.5909503065514427, 13731.693765509461125, 45921.953931549871457,\n"
     "      67265.770927008700853, 33430.575583588128105, 2509.0809287301226727, 42.313330701600911252,\n"
     "      687.18700749205790830, 5394.1960214247511077, 21213.794301586595867, 39307.895800092710610,\n"
     "      28729.085735721942674, 5226.4952788528545610));\n"
     "  const double r = sqrt(-log(0.5 * (1.0 - a)));\n"
     "  const double y = r <= 5.0\n"
     "    ? t_ratio_d(r - 1.6, 1.42343711074968357734, 4.63033784615654529590, 5.76949722146069140550,\n"
     "        3.64784832476320460504, 1.27045825245236838258, 0.241780725177450611770, 0.0227238449892691845833,\n"
     "        7.74545014278341407640e-4, 2.05319162663775882187, 1.67638483018380384940, 0.689767334985100004550,\n"
     "        0.148103976427480074590, 0.0151986665636164571966, 5.47593808499534494600e-4,\n"
     "        1.05075007164441684324e-9)\n"
     "    : t_ratio_d(r - 5.0, 6.65790464350110377720, 5.46378491116411436990, 1.78482653991729133580,\n"
     "        0.296560571828504891230, 0.0265321895265761230930, 1.24266094738807843860e-3,\n"
     "        2.71155556874348757815e-5, 2.01033439929228813265e-7, 0.599832206555887937690,\n"
     "        0.136929880922735805310, 0.0148753612908506148525, 7.86869131145613259100e-4,\n"
     "        1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15);\n"
     "  return copysign(half_root * y, x);\n}\n"},
    {"t_erfinv_f", WITH_FP64, "INLINE float t_erfinv_f(float x) { return (float)t_erfinv_d((double)x); }\n"},
};
enum { N_HELPERS = sizeof helpers / sizeof *helpers, LETTERS = 2 /* f, d */ };

static bool in_name(char c) {
  return c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_template(const helper *h) { return h->name[strlen(h->name) - 1] == 'F'; }

/* Marks the helpers that the text names. letter: what its own F stands for, 0 outside a template */
static void mark(const char *text, char letter, bool need[][LETTERS]) {
  for (const char *c = text; (c = strstr(c, "t_")); c += 2) {
    if (c != text && in_name(c[-1])) continue;
    size_t n = 2;
    while (in_name(c[n])) n++;
    const char last = c[n - 1] == 'F' ? letter : c[n - 1];
    for (size_t i = 0; i < N_HELPERS; i++) {
      const size_t size = strlen(helpers[i].name);
      if (size != n || strncmp(helpers[i].name, c, n - 1)) continue;
      if (!is_template(&helpers[i]) && helpers[i].name[n - 1] == last)
        need[i][0] = true;
      else if (is_template(&helpers[i]) && (last == 'f' || last == 'd'))
        need[i][last == 'd'] = true;
    }
  }
}

/* The text of a helper; of a template for one width */
static void put_helper(render_text *t, const helper *h, bool wide) {
  if (!is_template(h)) {
    render__put(t, "%s", h->text);
    return;
  }
  const char *from = h->text;
  for (const char *c = from; *c; c++) {
    const bool first = c == h->text || !in_name(c[-1]), ends = !in_name(c[1]);
    const bool type = *c == 'R' && first && ends, letter = *c == 'F' && !first && c[-1] == '_' && ends;
    if (!type && !letter) continue;
    render__put(t, "%.*s%s", (int)(c - from), from, type ? (wide ? "double" : "float") : wide ? "d" : "f");
    from = c + 1;
  }
  render__put(t, "%s", from);
}

static bool usable(const helper *h, bool wide, bool fp64) {
  if (h->when != ALWAYS) return fp64 == (h->when == WITH_FP64);
  return fp64 || !wide;
}

char *render_prelude(const render_device *dev, const char *const *sources, uint32_t n_sources) {
  bool need[N_HELPERS][LETTERS] = {{false}};
  render_text t = {0};
  for (uint32_t i = 0; i < n_sources; i++) mark(sources[i], 0, need);
  for (size_t i = N_HELPERS; i-- > 0;)
    for (int wide = 0; wide < LETTERS; wide++)
      if (need[i][wide] && usable(&helpers[i], wide, dev->fp64)) mark(helpers[i].text, wide ? 'd' : 'f', need);
  if (dev->fp64) render__put(&t, "%s", opencl_fp64);
  render__put(&t, "%s", opencl_words);
  if (dev->task) render__put(&t, "#undef ONCE\n#define ONCE\n"); /* FPGAs' compilers have rules of their own */
  for (size_t i = 0; i < N_HELPERS; i++)
    for (int wide = 0; wide < LETTERS; wide++)
      if (need[i][wide] && usable(&helpers[i], wide, dev->fp64)) put_helper(&t, &helpers[i], wide);
  if (!t.failed) return t.s;
  free(t.s);
  return NULL;
}
