/* OpenCL C text of CONV and CONV_DX: an implicit matrix product. A work-item keeps a block of (pixels x channels) in
   vector registers and walks over taps and source channels; what lies in the padding is skipped, or selected to 0. */
#include "conv.h"

#include <stdio.h>

#define GATHER_ARGS                                                                                                   \
  "long N, long G, long B, long R, long T0, long T1, long A0, long A1, long D0, long D1, long E0, long E1, long F0, " \
  "long F1,\n  long st0, long st1, long dl0, long dl1, long pd0, long pd1, long fn, long fc, long f0, long f1, long " \
  "dn, "                                                                                                              \
  "long dc, long d0, long d1"

void conv_group(ocl_text *t, const conv_shape *s, bool plain) {
  ocl_add(t, "__kernel __attribute__((reqd_work_group_size(%d, 1, 1)))\n", plain || !s->cpu ? CONV_LOCAL : 1);
}

bool conv_fused(const conv_shape *s) { return s->epilogue && !s->apart; }

void conv_call(ocl_text *t, const conv_shape *s, bool vector, const char *n, const char *c, const char *i0,
               const char *i1) {
  ocl_add(t, "epilogue%s(%s(ix)(%s), (ix)(%s), ", vector ? "_v" : "", s->epilogue->args, n, c);
  if (s->dims == 2) ocl_add(t, "(ix)(%s), ", i0);
  ocl_add(t, "(ix)(%s), ", i1);
}

static const char *params(const conv_shape *s) { return conv_fused(s) ? s->epilogue->params : ""; }

static const char *setup(const conv_shape *s) { return conv_fused(s) ? s->epilogue->setup : ""; }

static void pack_text(ocl_text *t, const conv_shape *s) {
  conv_group(t, s, true);
  ocl_add(t,
          "void conv_pack(__global const I_T *W, long wo, __global acc_t *P, long po, long G, long B, long R, long T0, "
          "long T1,\n  long wg, long wb, long wr, long w0, long w1) {\n"
          "  const long blocks = (B + LANES - 1) / LANES;\n"
          "  long id = (long)get_global_id(0);\n"
          "  if (id >= G * blocks * T0 * T1 * R) return;\n"
          "  P += po + id * LANES;\n"
          "  const long r = id %% R; id /= R;\n"
          "  const long t1 = id %% T1; id /= T1;\n"
          "  const long t0 = id %% T0; id /= T0;\n"
          "  const long first = id %% blocks * LANES, g = id / blocks;\n"
          "  W += wo + g * wg + first * wb + r * wr + t0 * w0 + t1 * w1;\n"
          "  for (int l = 0; l < LANES; l++) P[l] = first + l < B ? (acc_t)I_LD(W, l * wb) : (acc_t)0;\n"
          "}\n");
}

/* Where tap t of dimension d is read: u0 for pixel i0 */
static void source_text(ocl_text *t, const conv_shape *s, uint32_t d, const char *i, const char *u) {
  if (s->op == TERN_OP_CONV_DX)
    ocl_add(t, "const ix %s = (%s + (ix)pd%u - t%u * (ix)dl%u) / (ix)st%u;\n", u, i, d, d, d, d);
  else
    ocl_add(t, "const ix %s = %s * (ix)st%u + t%u * (ix)dl%u - (ix)pd%u;\n", u, i, d, d, d, d);
}

/* In CONV_DX, taps whose source is between two pixels count nothing for the whole phase */
static void phase_text(ocl_text *t, const conv_shape *s, uint32_t d, const char *i) {
  if (s->op == TERN_OP_CONV_DX)
    ocl_add(t, "    if ((%s + (ix)pd%u - t%u * (ix)dl%u) %% (ix)st%u != 0) continue;\n", i, d, d, d, d);
}

static void multiply_text(ocl_text *t, const conv_shape *s, bool all) {
  ocl_add(t, "        for (ix c = 0; c < (ix)R; c++) {\n          const ix at = c * (ix)fc;\n");
  for (uint32_t v = 0; v < s->vecs; v++) ocl_add(t, "          const acc_v w%u = vload_v(w + %u * VW);\n", v, v);
  ocl_add(t, "          w += LANES;\n");
  for (uint32_t r = 0; r < s->rows; r++) {
    if (all)
      ocl_add(t, "          { const acc_v x = (acc_v)((acc_t)I_LD(S, a%u + at));", r);
    else
      ocl_add(t, "          { const acc_v x = (acc_v)(ok%u ? (acc_t)I_LD(S, a%u + at) : (acc_t)0);", r, r);
    for (uint32_t v = 0; v < s->vecs; v++) ocl_add(t, " c%u_%u += x * w%u;", r, v, v);
    ocl_add(t, " }\n");
  }
  ocl_add(t, "        }\n");
}

static void taps_text(ocl_text *t, const conv_shape *s) {
  char i[16], u[16];
  ocl_add(t, "  for (ix t0 = 0; t0 < (ix)T0; t0++) {\n");
  phase_text(t, s, 0, "ph0");
  for (uint32_t r = 0; r < s->rows; r++) {
    snprintf(i, sizeof i, "i0_%u", r);
    snprintf(u, sizeof u, "u0_%u", r);
    ocl_add(t, "    ");
    source_text(t, s, 0, i, u);
    ocl_add(t, "    const bool in%u = u0_%u >= 0 && u0_%u < (ix)A0;\n", r, r, r);
  }
  ocl_add(t, "    for (ix t1 = 0; t1 < (ix)T1; t1++) {\n");
  phase_text(t, s, 1, "ph1");
  ocl_add(t, "      bool any = false, all = true;\n");
  for (uint32_t r = 0; r < s->rows; r++) {
    snprintf(i, sizeof i, "i1_%u", r);
    snprintf(u, sizeof u, "u1_%u", r);
    ocl_add(t, "      ");
    source_text(t, s, 1, i, u);
    ocl_add(t,
            "      const bool ok%u = in%u && u1_%u >= 0 && u1_%u < (ix)A1;\n"
            "      const ix a%u = ok%u ? n%u * (ix)fn + u0_%u * (ix)f0 + u1_%u * (ix)f1 : 0;\n"
            "      any |= ok%u; all &= ok%u;\n",
            r, r, r, r, r, r, r, r, r, r, r);
  }
  ocl_add(t, "      if (!any) continue;\n"
             "      __global const acc_t *w = P + ((long)t0 * T1 + (long)t1) * R * LANES;\n"
             "      if (all) {\n");
  multiply_text(t, s, true);
  ocl_add(t, "      } else {\n");
  multiply_text(t, s, false);
  ocl_add(t, "      }\n    }\n  }\n");
}

/* Pixel r of the block to the epilogue, a vector of channels at once where all of them are there */
static void fused_row_text(ocl_text *t, const conv_shape *s, uint32_t r) {
  char n[16], i0[16], i1[16], c[40];
  snprintf(n, sizeof n, "n%u", r);
  snprintf(i0, sizeof i0, "i0_%u", r);
  snprintf(i1, sizeof i1, "i1_%u", r);
  ocl_add(t, "  if (tile * ROWS + %u < pixels && i0_%u < (ix)D0 && i1_%u < (ix)D1) {\n", r, r, r);
  for (uint32_t v = 0; v < s->vecs; v++) {
    if (s->epilogue->vector && s->width == 16) {
      snprintf(c, sizeof c, "g * (ix)B + first + %u * VW", v);
      ocl_add(t, "    if (live >= %u * VW) ", v + 1);
      conv_call(t, s, true, n, c, i0, i1);
      ocl_add(t, "c%u_%u);\n    else {\n", r, v);
    } else {
      ocl_add(t, "    {\n");
    }
    ocl_add(t, "      vstore_v(c%u_%u, lane);\n      for (ix l = 0; l < min(live - %u * VW, (ix)VW); l++) ", r, v, v);
    snprintf(c, sizeof c, "g * (ix)B + first + %u * VW + l", v);
    conv_call(t, s, false, n, c, i0, i1);
    ocl_add(t, "E_X(lane[l]));\n    }\n");
  }
  ocl_add(t, "  }\n");
}

/* The block is written out as variables: compilers that do not unroll before they split arrays would keep it in
   memory */
static void block_text(ocl_text *t, const conv_shape *s) {
  const bool direct = s->dtype == TERN_F32 || s->dtype == TERN_F64;
  conv_group(t, s, false);
  ocl_add(
      t,
      "void conv_block(__global const I_T *S, long so, __global const acc_t *P, long po, __global I_T *D, long to,\n  "
      "%s%s) {\n%s",
      GATHER_ARGS, params(s), setup(s));
  ocl_add(t,
          "  const int ROWS = %u;\n"
          "  const ix pixels = (ix)N * (ix)E0 * (ix)E1, tiles = (pixels + ROWS - 1) / ROWS;\n"
          "  const ix blocks = ((ix)B + LANES - 1) / LANES;\n"
          "  long id = (long)get_global_id(0);\n"
          "  if (id >= (long)tiles * blocks * G * F0 * F1) return;\n"
          "  const ix tile = (ix)(id %% tiles); id /= tiles;\n"
          "  const ix block = (ix)(id %% blocks); id /= blocks;\n"
          "  const ix g = (ix)(id %% G); id /= G;\n"
          "  const ix ph1 = (ix)(id %% F1), ph0 = (ix)(id / F1);\n"
          "  S += so + g * (ix)R * (ix)fc;\n"
          "  P += po + ((long)g * blocks + block) * T0 * T1 * R * LANES;\n",
          s->rows);
  for (uint32_t r = 0; r < s->rows; r++) {
    ocl_add(t,
            "  const ix q%u = min(tile * ROWS + %u, pixels - 1), e%u = q%u %% ((ix)E0 * (ix)E1);\n"
            "  const ix n%u = q%u / ((ix)E0 * (ix)E1), i0_%u = ph0 + (ix)F0 * (e%u / (ix)E1), i1_%u = ph1 + (ix)F1 * "
            "(e%u %% "
            "(ix)E1);\n",
            r, r, r, r, r, r, r, r, r, r);
    for (uint32_t v = 0; v < s->vecs; v++) ocl_add(t, "  acc_v c%u_%u = (acc_v)(0);\n", r, v);
  }
  taps_text(t, s);
  ocl_add(t, "  const ix first = block * LANES, live = min((ix)B - first, (ix)LANES);\n  acc_t lane[LANES];\n"
             "  D += to + (g * (ix)B + first) * (ix)dc;\n");
  for (uint32_t r = 0; r < s->rows; r++) {
    if (conv_fused(s)) {
      fused_row_text(t, s, r);
      continue;
    }
    ocl_add(t,
            "  if (tile * ROWS + %u < pixels && i0_%u < (ix)D0 && i1_%u < (ix)D1) {\n"
            "    __global I_T *out = D + n%u * (ix)dn + i0_%u * (ix)d0 + i1_%u * (ix)d1;\n",
            r, r, r, r, r, r);
    if (direct) {
      ocl_add(t, "    if (dc == 1 && live == LANES) {");
      for (uint32_t v = 0; v < s->vecs; v++) ocl_add(t, " vstore_v(c%u_%u, out + %u * VW);", r, v, v);
      ocl_add(t, " } else {\n");
    } else {
      ocl_add(t, "    {\n");
    }
    for (uint32_t v = 0; v < s->vecs; v++) ocl_add(t, "      vstore_v(c%u_%u, lane + %u * VW);\n", r, v, v);
    ocl_add(t, "      for (ix l = 0; l < live; l++) I_ST(out, l * (ix)dc, (I_C)lane[l]);\n    }\n  }\n");
  }
  ocl_add(t, "}\n");
}

static void plain_text(ocl_text *t, const conv_shape *s) {
  conv_group(t, s, true);
  ocl_add(
      t,
      "void conv_plain(__global const I_T *S, long so, __global const I_T *W, long wo, __global I_T *D, long to,\n  "
      "%s,\n  long wg, long wb, long wr, long w0, long w1%s) {\n%s",
      GATHER_ARGS, params(s), setup(s));
  ocl_add(t, "  long id = (long)get_global_id(0);\n"
             "  if (id >= N * G * B * D0 * D1) return;\n"
             "  const ix b = (ix)(id %% B); id /= B;\n"
             "  const ix g = (ix)(id %% G); id /= G;\n"
             "  const ix i1 = (ix)(id %% D1); id /= D1;\n"
             "  const ix i0 = (ix)(id %% D0), n = (ix)(id / D0);\n"
             "  S += so + n * (ix)fn + g * (ix)R * (ix)fc;\n"
             "  W += wo + g * (ix)wg + b * (ix)wb;\n"
             "  acc_t sum = 0;\n"
             "  for (ix t0 = 0; t0 < (ix)T0; t0++) {\n");
  phase_text(t, s, 0, "i0");
  ocl_add(t, "    ");
  source_text(t, s, 0, "i0", "u0");
  ocl_add(t, "    if (u0 < 0 || u0 >= (ix)A0) continue;\n    for (ix t1 = 0; t1 < (ix)T1; t1++) {\n");
  phase_text(t, s, 1, "i1");
  ocl_add(t, "      ");
  source_text(t, s, 1, "i1", "u1");
  ocl_add(
      t,
      "      if (u1 < 0 || u1 >= (ix)A1) continue;\n"
      "      const ix a = u0 * (ix)f0 + u1 * (ix)f1, k = t0 * (ix)w0 + t1 * (ix)w1;\n"
      "      for (ix c = 0; c < (ix)R; c++) sum += (acc_t)I_LD(S, a + c * (ix)fc) * (acc_t)I_LD(W, k + c * (ix)wr);\n"
      "    }\n  }\n");
  if (!conv_fused(s)) {
    ocl_add(t, "  I_ST(D + to, n * (ix)dn + (g * (ix)B + b) * (ix)dc + i0 * (ix)d0 + i1 * (ix)d1, (I_C)sum);\n}\n");
    return;
  }
  ocl_add(t, "  ");
  conv_call(t, s, false, "n", "g * (ix)B + b", "i0", "i1");
  ocl_add(t, "E_X(sum));\n}\n");
}

/* One channel a group in and out, all channels side by side: a vector of channels of one pixel */
static void depth_text(ocl_text *t, const conv_shape *s) {
  conv_group(t, s, true);
  ocl_add(
      t,
      "void conv_depth(__global const I_T *S, long so, __global const I_T *W, long wo, __global I_T *D, long to,\n  "
      "%s,\n  long w0, long w1%s) {\n%s",
      GATHER_ARGS, params(s), setup(s));
  ocl_add(t, "  const ix blocks = (ix)G / VW;\n"
             "  long id = (long)get_global_id(0);\n"
             "  if (id >= N * blocks * D0 * D1) return;\n"
             "  const ix g = (ix)(id %% blocks) * VW; id /= blocks;\n"
             "  const ix i1 = (ix)(id %% D1); id /= D1;\n"
             "  const ix i0 = (ix)(id %% D0), n = (ix)(id / D0);\n"
             "  S += so + n * (ix)fn + g;\n"
             "  W += wo + g;\n"
             "  acc_v sum = (acc_v)(0);\n"
             "  for (ix t0 = 0; t0 < (ix)T0; t0++) {\n");
  phase_text(t, s, 0, "i0");
  ocl_add(t, "    ");
  source_text(t, s, 0, "i0", "u0");
  ocl_add(t, "    if (u0 < 0 || u0 >= (ix)A0) continue;\n    for (ix t1 = 0; t1 < (ix)T1; t1++) {\n");
  phase_text(t, s, 1, "i1");
  ocl_add(t, "      ");
  source_text(t, s, 1, "i1", "u1");
  ocl_add(t, "      if (u1 < 0 || u1 >= (ix)A1) continue;\n"
             "      sum += vload_v(S + u0 * (ix)f0 + u1 * (ix)f1) * vload_v(W + t0 * (ix)w0 + t1 * (ix)w1);\n"
             "    }\n  }\n");
  if (!conv_fused(s)) {
    ocl_add(t, "  vstore_v(sum, D + to + n * (ix)dn + g + i0 * (ix)d0 + i1 * (ix)d1);\n}\n");
    return;
  }
  const bool vector = s->epilogue->vector && s->width == 16;
  ocl_add(t, vector ? "  " : "  acc_t lane[VW];\n  vstore_v(sum, lane);\n  for (int l = 0; l < VW; l++) ");
  conv_call(t, s, vector, "n", vector ? "g" : "g + l", "i0", "i1");
  ocl_add(t, vector ? "sum);\n}\n" : "E_X(lane[l]));\n}\n");
}

void conv_text(ocl_text *t, const tern_dev *dev, const conv_shape *s) {
  ocl_add_prelude(t, dev, s->idx32);
  ocl_add_dtype(t, "I", s->dtype);
  const char *acc = ocl_compute(s->dtype);
  ocl_add(t, "typedef %s acc_t;\ntypedef %s%u acc_v;\n#define VW %u\n#define LANES %u\n", acc, acc, s->width, s->width,
          s->width * s->vecs);
  ocl_add(t, "#define vload_v(p) vload%u(0, p)\n#define vstore_v(v, p) vstore%u(v, 0, p)\n", s->width, s->width);
  if (s->epilogue) ocl_add_epilogue(t, dev, s->epilogue, s->dtype, "I");
  if (s->apart) ocl_add_finish(t, dev, s->epilogue, s->dims + 2, false, "I");
  if (s->op == TERN_OP_CONV_DW) {
    conv_text_weights(t, s);
    return;
  }
  pack_text(t, s);
  block_text(t, s);
  plain_text(t, s);
  if (s->dtype == TERN_F32 || s->dtype == TERN_F64) depth_text(t, s);
}
