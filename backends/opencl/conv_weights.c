/* OpenCL C text of CONV_DW. A work-item sums a block of (columns x output channels) over a chunk of y's rows in vector
   registers; a last kernel adds the chunks in order. No atomics: the same bits in every run. */
#include "conv.h"

#define WEIGHT_ARGS                                                                                                 \
  "long N, long G, long B, long R, long T0, long T1, long A0, long A1, long D0, long D1, long st0, long st1, long " \
  "dl0, "                                                                                                           \
  "long dl1,\n  long pd0, long pd1, long xn, long xc, long x0, long x1, long yn, long yc, long y0, long y1, long "  \
  "rows, "                                                                                                          \
  "long chunks"

static void pack_text(ocl_text *t, const conv_shape *s) {
  conv_group(t, s, true);
  ocl_add(
      t,
      "void dw_pack(__global const I_T *Y, long yo, __global acc_t *P, long po, long N, long G, long B, long D0, long "
      "D1, long yn,\n  long yc, long y0, long y1) {\n"
      "  const long blocks = (B + LANES - 1) / LANES;\n"
      "  long id = (long)get_global_id(0);\n"
      "  if (id >= N * D0 * D1 * G * blocks) return;\n"
      "  P += po + id * LANES;\n"
      "  const long first = id %% blocks * LANES; id /= blocks;\n"
      "  const long g = id %% G; id /= G;\n"
      "  const long j1 = id %% D1; id /= D1;\n"
      "  const long j0 = id %% D0, n = id / D0;\n"
      "  Y += yo + n * yn + (g * B + first) * yc + j0 * y0 + j1 * y1;\n"
      "  for (int l = 0; l < LANES; l++) P[l] = first + l < B ? (acc_t)I_LD(Y, l * yc) : (acc_t)0;\n"
      "}\n");
}

static void row_text(ocl_text *t, const conv_shape *s, bool all) {
  for (uint32_t v = 0; v < s->vecs; v++) ocl_add(t, "        const acc_v y%u = vload_v(y + %u * VW);\n", v, v);
  for (uint32_t r = 0; r < s->rows; r++) {
    if (all)
      ocl_add(t, "        { const acc_v x = (acc_v)((acc_t)I_LD(X, a%u + at));", r);
    else
      ocl_add(t,
              "        { const ix u = j1 * (ix)st1 + o1_%u; const acc_v x = (acc_v)(in%u && u >= 0 && u < (ix)A1 ? "
              "(acc_t)I_LD(X, a%u + at) : (acc_t)0);",
              r, r, r);
    for (uint32_t v = 0; v < s->vecs; v++) ocl_add(t, " c%u_%u += x * y%u;", r, v, v);
    ocl_add(t, " }\n");
  }
}

/* Column q is (tap, r); o0, o1: where its tap is at j = 0; k: its place in a source pixel */
static void block_text(ocl_text *t, const conv_shape *s) {
  conv_group(t, s, false);
  ocl_add(
      t,
      "void dw_block(__global const I_T *X, long xo, __global const acc_t *P, long po, __global acc_t *S, long so,\n  "
      "%s) {\n",
      WEIGHT_ARGS);
  ocl_add(t,
          "  const int COLS = %u;\n"
          "  const ix columns = (ix)T0 * (ix)T1 * (ix)R, tiles = (columns + COLS - 1) / COLS;\n"
          "  const ix blocks = ((ix)B + LANES - 1) / LANES;\n"
          "  long id = (long)get_global_id(0);\n"
          "  if (id >= (long)chunks * tiles * blocks * G) return;\n"
          "  const ix tile = (ix)(id %% tiles); id /= tiles;\n"
          "  const ix block = (ix)(id %% blocks); id /= blocks;\n"
          "  const ix g = (ix)(id %% G), chunk = (ix)(id / G);\n"
          "  X += xo + g * (ix)R * (ix)xc;\n"
          "  P += po + (g * blocks + block) * LANES;\n",
          s->rows);
  for (uint32_t r = 0; r < s->rows; r++) {
    ocl_add(t,
            "  const ix q%u = min(tile * COLS + %u, columns - 1), k%u = q%u %% (ix)R * (ix)xc;\n"
            "  const ix o0_%u = q%u / (ix)R / (ix)T1 * (ix)dl0 - (ix)pd0, o1_%u = q%u / (ix)R %% (ix)T1 * (ix)dl1 - "
            "(ix)pd1;\n",
            r, r, r, r, r, r, r, r);
    for (uint32_t v = 0; v < s->vecs; v++) ocl_add(t, "  acc_v c%u_%u = (acc_v)(0);\n", r, v);
  }
  ocl_add(t, "  ix low = 0, high = (ix)D1;\n"); /* of j1: all columns inside */
  for (uint32_t r = 0; r < s->rows; r++)
    ocl_add(t,
            "  low = max(low, o1_%u < 0 ? (-o1_%u + (ix)st1 - 1) / (ix)st1 : 0);\n"
            "  high = min(high, (ix)A1 - 1 - o1_%u < 0 ? 0 : ((ix)A1 - 1 - o1_%u) / (ix)st1 + 1);\n",
            r, r, r, r);
  ocl_add(t, "  const ix last = min((chunk + 1) * (ix)rows, (ix)N * (ix)D0);\n"
             "  for (ix row = chunk * (ix)rows; row < last; row++) {\n"
             "    const ix n = row / (ix)D0, j0 = row %% (ix)D0;\n"
             "    bool any = false, all = true;\n");
  for (uint32_t r = 0; r < s->rows; r++)
    ocl_add(t,
            "    const ix u0_%u = j0 * (ix)st0 + o0_%u;\n"
            "    const bool in%u = u0_%u >= 0 && u0_%u < (ix)A0;\n"
            "    any |= in%u; all &= in%u;\n"
            "    const ix a%u = n * (ix)xn + k%u + u0_%u * (ix)x0 + o1_%u * (ix)x1;\n",
            r, r, r, r, r, r, r, r, r, r, r);
  ocl_add(t, "    if (!any) continue;\n"
             "    __global const acc_t *y = P + n * (ix)yn + j0 * (ix)y0;\n"
             "    for (ix j1 = 0; j1 < (ix)D1; j1++, y += y1) {\n"
             "      const ix at = j1 * (ix)st1 * (ix)x1;\n"
             "      if (all && j1 >= low && j1 < high) {\n");
  row_text(t, s, true);
  ocl_add(t, "      } else {\n");
  row_text(t, s, false);
  ocl_add(t, "      }\n    }\n  }\n"
             "  S += so + (((long)chunk * G + g) * columns + tile * COLS) * blocks * LANES + block * LANES;\n");
  for (uint32_t r = 0; r < s->rows; r++) {
    ocl_add(t, "  if (tile * COLS + %u < columns) {", r);
    for (uint32_t v = 0; v < s->vecs; v++)
      ocl_add(t, " vstore_v(c%u_%u, S + %uL * blocks * LANES + %u * VW);", r, v, r, v);
    ocl_add(t, " }\n");
  }
  ocl_add(t, "}\n");
}

static void plain_text(ocl_text *t, const conv_shape *s) {
  conv_group(t, s, true);
  ocl_add(
      t,
      "void dw_plain(__global const I_T *X, long xo, __global const I_T *Y, long yo, __global acc_t *S, long so,\n  "
      "%s) {\n",
      WEIGHT_ARGS);
  ocl_add(t, "  const ix columns = (ix)T0 * (ix)T1 * (ix)R;\n"
             "  long id = (long)get_global_id(0);\n"
             "  if (id >= (long)chunks * G * columns * B) return;\n"
             "  S += so + id;\n"
             "  const ix b = (ix)(id %% B); id /= B;\n"
             "  const ix column = (ix)(id %% columns); id /= columns;\n"
             "  const ix g = (ix)(id %% G), chunk = (ix)(id / G);\n"
             "  const ix tap = column / (ix)R, o0 = tap / (ix)T1 * (ix)dl0 - (ix)pd0, o1 = tap %% (ix)T1 * (ix)dl1 - "
             "(ix)pd1;\n"
             "  X += xo + (g * (ix)R + column %% (ix)R) * (ix)xc;\n"
             "  Y += yo + (g * (ix)B + b) * (ix)yc;\n"
             "  const ix low = o1 < 0 ? (-o1 + (ix)st1 - 1) / (ix)st1 : 0;\n"
             "  const ix high = (ix)A1 - 1 - o1 < 0 ? 0 : min((ix)D1, ((ix)A1 - 1 - o1) / (ix)st1 + 1);\n"
             "  const ix last = min((chunk + 1) * (ix)rows, (ix)N * (ix)D0);\n"
             "  acc_t sum = 0;\n"
             "  for (ix row = chunk * (ix)rows; row < last; row++) {\n"
             "    const ix n = row / (ix)D0, j0 = row %% (ix)D0, u0 = j0 * (ix)st0 + o0;\n"
             "    if (u0 < 0 || u0 >= (ix)A0) continue;\n"
             "    const ix a = n * (ix)xn + u0 * (ix)x0 + o1 * (ix)x1, k = n * (ix)yn + j0 * (ix)y0;\n"
             "    for (ix j1 = low; j1 < high; j1++)\n"
             "      sum += (acc_t)I_LD(X, a + j1 * (ix)st1 * (ix)x1) * (acc_t)I_LD(Y, k + j1 * (ix)y1);\n"
             "  }\n"
             "  *S = sum;\n}\n");
}

/* One channel a group in and out, all channels side by side: a vector of groups, one tap */
static void depth_text(ocl_text *t, const conv_shape *s) {
  conv_group(t, s, true);
  ocl_add(
      t,
      "void dw_depth(__global const I_T *X, long xo, __global const I_T *Y, long yo, __global acc_t *S, long so,\n  "
      "%s) {\n",
      WEIGHT_ARGS);
  ocl_add(t, "  const ix columns = (ix)T0 * (ix)T1, blocks = (ix)G / VW;\n"
             "  long id = (long)get_global_id(0);\n"
             "  if (id >= (long)chunks * blocks * columns) return;\n"
             "  const ix g = (ix)(id %% blocks) * VW; id /= blocks;\n"
             "  const ix tap = (ix)(id %% columns), chunk = (ix)(id / columns);\n"
             "  const ix o0 = tap / (ix)T1 * (ix)dl0 - (ix)pd0, o1 = tap %% (ix)T1 * (ix)dl1 - (ix)pd1;\n"
             "  X += xo + g;\n"
             "  Y += yo + g;\n"
             "  const ix low = o1 < 0 ? (-o1 + (ix)st1 - 1) / (ix)st1 : 0;\n"
             "  const ix high = (ix)A1 - 1 - o1 < 0 ? 0 : min((ix)D1, ((ix)A1 - 1 - o1) / (ix)st1 + 1);\n"
             "  const ix last = min((chunk + 1) * (ix)rows, (ix)N * (ix)D0);\n"
             "  acc_v sum = (acc_v)(0);\n"
             "  for (ix row = chunk * (ix)rows; row < last; row++) {\n"
             "    const ix n = row / (ix)D0, j0 = row %% (ix)D0, u0 = j0 * (ix)st0 + o0;\n"
             "    if (u0 < 0 || u0 >= (ix)A0) continue;\n"
             "    const ix a = n * (ix)xn + u0 * (ix)x0 + o1 * (ix)x1, k = n * (ix)yn + j0 * (ix)y0;\n"
             "    for (ix j1 = low; j1 < high; j1++)\n"
             "      sum += vload_v(X + a + j1 * (ix)st1 * (ix)x1) * vload_v(Y + k + j1 * (ix)y1);\n"
             "  }\n"
             "  acc_t lane[VW];\n"
             "  vstore_v(sum, lane);\n"
             "  S += so + ((long)chunk * G + g) * columns + tap;\n"
             "  for (int l = 0; l < VW; l++) S[l * columns] = lane[l];\n}\n");
}

static void sum_text(ocl_text *t, const conv_shape *s) {
  conv_group(t, s, true);
  ocl_add(t,
          "void dw_sum(__global const acc_t *S, long so, __global I_T *W, long wo, long G, long B, long R, long T0, "
          "long T1, "
          "long wide,\n  long chunks, long wg, long wb, long wr, long w0, long w1%s) {\n%s"
          "  const long columns = T0 * T1 * R;\n"
          "  long id = (long)get_global_id(0);\n"
          "  if (id >= G * columns * B) return;\n"
          "  const long b = id %% B; id /= B;\n"
          "  const long column = id %% columns, g = id / columns;\n"
          "  S += so + (g * columns + column) * wide + b;\n"
          "  acc_t sum = S[0];\n"
          "  for (long c = 1; c < chunks; c++) sum += S[c * G * columns * wide];\n"
          "  const long tap = column / R;\n",
          conv_fused(s) ? s->epilogue->params : "", conv_fused(s) ? s->epilogue->setup : "");
  if (!conv_fused(s)) {
    ocl_add(t, "  I_ST(W + wo, g * wg + b * wb + column %% R * wr + tap / T1 * w0 + tap %% T1 * w1, (I_C)sum);\n}\n");
    return;
  }
  ocl_add(t, "  ");
  conv_call(t, s, false, "g * B + b", "column % R", "tap / T1", "tap % T1");
  ocl_add(t, "E_X(sum));\n}\n");
}

void conv_text_weights(ocl_text *t, const conv_shape *s) {
  pack_text(t, s);
  block_text(t, s);
  plain_text(t, s);
  if (s->dtype == TERN_F32 || s->dtype == TERN_F64) depth_text(t, s);
  sum_text(t, s);
}
