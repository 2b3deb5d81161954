/* tanh of float32 vectors. Everywhere: x + x^3 P(x^2) near zero, else by the exponential. On AVX-512, where a table of
   32 floats is one instruction away in registers, a polynomial of |x| - centre on each of 27 intervals: about half the
   work. */
#ifndef TERN_CPU_VMATH_TANH_H_
#define TERN_CPU_VMATH_TANH_H_
#include "vmath_exp.h"

#ifdef VM_AVX512
/* The intervals are the eighths of an octave of t = |x| + 1, 1 <= t < 16: narrow near zero, wide where tanh is flat.
   Column i belongs to the t whose exponent's two low bits and three leading significand bits are i, that is to
   |x| from 1 (i = 0) to 9, then from 0 to 1 (i = 24 .. 31); 9 and more give 1. First the centres, which are chosen such
   that tanh of them is nearly a float, then the coefficients of d^0 to d^5, each a weighted minimax fit after those
   before it were rounded. In the interval of zero the centre is 0 and tanh(d) = d + ..., so the relative error stays
   small. */
static const float vm_tanh_table[7][32] = {
  {1.1249803f, 1.375041f, 1.6249857f, 1.875007f, 2.124913f, 2.3750923f, 2.624981f, 2.8749886f, 3.2499137f,
   3.7500856f, 4.249991f, 4.749885f, 5.24997f, 5.7498617f, 6.250181f, 6.7500186f, 7.5001907f, 8.500381f, 9.0f, 9.0f,
   9.0f, 9.0f, 9.0f, 9.0f, 0.0f, 0.18750109f, 0.31248993f, 0.43750852f, 0.5624765f, 0.6874874f, 0.812479f,
   0.93751985f},
  {0.8092943f, 0.87983596f, 0.92534417f, 0.9540459f, 0.9718679f, 0.98284817f, 0.98955935f, 0.9936545f, 0.9969971f,
   0.99889463f, 0.99959314f, 0.9998503f, 0.9999449f, 0.99997973f, 0.99999255f, 0.99999726f, 0.9999994f, 0.99999994f,
   1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 0.0f, 0.18533425f, 0.30270058f, 0.41157714f, 0.5098126f, 0.59636545f,
   0.67095554f, 0.7340807f},
  {0.34504277f, 0.22588867f, 0.14373817f, 0.08979644f, 0.055472746f, 0.03400948f, 0.020772288f, 0.012650755f,
   0.005996749f, 0.0022095153f, 0.0008135575f, 0.00029943144f, 0.0001101464f, 4.0530776e-05f, 1.4901108e-05f,
   5.4836205e-06f, 1.2231419e-06f, 1.654712e-07f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 1.0f, 0.9656512f, 0.90837234f,
   0.83060426f, 0.74009115f, 0.64434826f, 0.5498187f, 0.46112555f},
  {-0.279243f, -0.19874611f, -0.13300769f, -0.08566997f, -0.053912148f, -0.033426072f, -0.020555342f, -0.012570428f,
   -0.0059783324f, -0.0022069118f, -0.0008131672f, -0.00029936357f, -0.00011013195f, -4.0527382e-05f, -1.489969e-05f,
   -5.4831053e-06f, -1.7127642e-06f, -8.9735875e-07f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 3.1189697e-07f,
   -0.17896792f, -0.27496463f, -0.34185743f, -0.37730765f, -0.3842669f, -0.36890396f, -0.33850327f},
  {0.110974684f, 0.09956912f, 0.07516582f, 0.051800705f, 0.033904932f, 0.02151646f, 0.013416751f, 0.008273805f,
   0.0039616195f, 0.0014680187f, 0.000541667f, 0.0001995154f, 7.3412804e-05f, 2.7016866e-05f, 9.932975e-06f,
   3.6553897e-06f, 8.141725e-07f, 1.08011015e-07f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, -0.33335564f, -0.2887152f,
   -0.21954913f, -0.13616414f, -0.054363996f, 0.014364345f, 0.06421529f, 0.09479156f},
  {0.0036666957f, -0.021117184f, -0.02512952f, -0.02085114f, -0.014990887f, -0.010021899f, -0.006438805f,
   -0.0040412196f, -0.0019781634f, -0.0007391015f, -0.00027351486f, -0.00010087035f, -3.71294e-05f, -1.3659114e-05f,
   -5.0270387e-06f, -1.8502603e-06f, 1.5325719e-06f, 2.8640186e-06f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f,
   0.00047280054f, 0.11286145f, 0.15780027f, 0.1696945f, 0.15331954f, 0.11943901f, 0.07990681f, 0.043290075f},
  {-0.03206883f, -0.009575104f, 0.0013747194f, 0.0046170577f, 0.004470858f, 0.0034131682f, 0.0023473704f,
   0.0015304581f, 0.00077116786f, 0.00029289743f, 0.00010903314f, 4.0286544e-05f, 1.4843512e-05f, 5.4624134e-06f,
   2.0104821e-06f, 7.3989133e-07f, 1.750331e-07f, 4.07084e-08f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.12998602f,
   0.09687629f, 0.044206314f, -0.006377232f, -0.039260916f, -0.058260463f, -0.056675807f, -0.055070948f}
};
/* Within 1.02 ulp of the truth (every float tried). In a loop the tables stay in 14 registers */
VM_INLINE vf vm_tanh(vf x) {
  const vf a = vf_min(vf_set(9.02f), vf_abs(x)); /* NaN passes */
  const __m512i at = _mm512_srli_epi32((__m512i)(a + 1.0f), 20);
  vf c[7];
#if defined __clang__
#pragma clang loop unroll(full)
#else
#pragma GCC unroll 8
#endif
  for (int i = 0; i < 7; i++)
    c[i] = (vf)_mm512_permutex2var_ps(_mm512_loadu_ps(vm_tanh_table[i]), at, _mm512_loadu_ps(vm_tanh_table[i] + 16));
  const vf d = a - c[0];
  const vf p = vf_fma(vf_fma(vf_fma(vf_fma(vf_fma(c[6], d, c[5]), d, c[4]), d, c[3]), d, c[2]), d, c[1]);
  return vf_copysign(p, x);
}
#else
/* Small |x|: x + x^3 P(x^2). Else 1 - 2 / (exp(2 |x|) + 1), which rounds to 1 from 9.02 on: errors of the exponential
   count for a third at most, so that one rounding of 2 |x| log2(e) is good enough */
VM_INLINE vf vm_tanh(vf x) {
  const vf a = vf_abs(x), z = x * x;
  const vf p = VM_POLY(z, -0.333332986f, 0.133319616f, -0.0537866317f, 0.0208041128f, -0.00590330036f);
  const vf small = vf_mad(z * x, p, x);
  const vf y = vf_min(vf_set(9.1f), a), round = vf_set(0x1.8p23f), slope = vf_set(2 * VM_LOG2E);
  const vf shifted = vf_mad(y, slope, round), f = vf_mad(y, slope, round - shifted); /* its low bits are n */
  const vf e = vf_mad(f, vm_exp2_tail(f), vf_set(1));
  const vf d = (vf)((vu)e + ((vu)shifted << 23)) + 1.0f;
  const vf large = vf_mad(1.0f / d, vf_set(-2), vf_set(1));
  return vf_copysign(vf_sel(vf_lt(vf_set(0.6f), a), large, small), x);
}
#endif
#endif
