/* OpenCL C text of matrix multiplication. The blocked form keeps a block of the result in vector registers and reads
   B by whole vectors (CPUs); the tiled form shares tiles through local memory (GPUs); the plain form does one result
   an item. */
#include "dot.h"

/* Before a loop at the edges: compilers would unroll and vectorise it, and take twice as long for the whole. */
#define RARE "#pragma clang loop vectorize(disable) unroll(disable)\n"

/* Batch: arguments, then the offset of each operand for batch number `batch`. who: the operands' letters, as "ABC". */
static void batch_args(ocl_text *t, const dot_shape *s, const char *who) {
  for (uint32_t d = 0; d < s->batch; d++) {
    ocl_add(t, ", long bs%u", d);
    for (const char *w = who; *w; w++) ocl_add(t, ", long b%c%u", *w, d);
  }
}

/* Results go to the epilogue? */
static bool fused(const dot_shape *s) { return s->epilogue && !s->apart; }

/* epilogue(.., batch indices, m, n, */
static void call_text(ocl_text *t, const dot_shape *s, bool vector, const char *m, const char *n) {
  ocl_add(t, "epilogue%s(%s", vector ? "_v" : "", s->epilogue->args);
  for (uint32_t d = 0; d < s->batch; d++) ocl_add(t, "at%u, ", d);
  ocl_add(t, "%s, %s, ", m, n);
}

static void batch_offsets(ocl_text *t, const dot_shape *s, const char *who) {
  for (uint32_t d = 0; d < s->batch && fused(s); d++) ocl_add(t, "  ix at%u;\n", d);
  for (const char *w = who; *w; w++) ocl_add(t, "  ix o%c = 0;\n", *w);
  if (!s->batch) return;
  ocl_add(t, "  { ix rest = batch, at;\n");
  for (uint32_t d = s->batch; d-- > 0;) {
    if (d)
      ocl_add(t, "    at = rest %% (ix)bs%u; rest /= (ix)bs%u;\n", d, d);
    else
      ocl_add(t, "    at = rest;\n");
    for (const char *w = who; *w; w++) ocl_add(t, "    o%c += at * (ix)b%c%u;\n", *w, *w, d);
    if (fused(s)) ocl_add(t, "    at%u = at;\n", d);
  }
  ocl_add(t, "  }\n");
}

static void one_result_args(ocl_text *t, const dot_shape *s, const char *name) {
  ocl_add(t,
          "void %s(__global const I_T *A, long a0, __global const I_T *B, long b0, __global %s *C, long c0, long M, "
          "long N,\n"
          "  long K, long ars, long acs, long brs, long bcs, long crs, long ccs, long batches",
          name, fused(s) ? "acc_t" : "O_T");
  batch_args(t, s, "ABC");
  ocl_add(t, "%s) {\n%s", fused(s) ? s->epilogue->params : "", fused(s) ? s->epilogue->setup : "");
}

static void plain_text(ocl_text *t, const dot_shape *s, bool row) {
  ocl_add(t, "__kernel __attribute__((reqd_work_group_size(%d, 1, 1)))\n", DOT_LOCAL);
  one_result_args(t, s, row ? "dot_row" : "dot_plain");
  ocl_add(t, "  ulong id = get_global_id(0);\n"
             "  if (id >= (ulong)M * (ulong)N * (ulong)batches) return;\n"
             "  const ix n = (ix)(id %% (ulong)N); id /= (ulong)N;\n"
             "  const ix m = (ix)(id %% (ulong)M);\n"
             "  const ix batch = (ix)(id / (ulong)M);\n");
  batch_offsets(t, s, "ABC");
  ocl_add(t, "  A += a0 + oA + m * (ix)ars; B += b0 + oB + n * (ix)bcs; C += c0 + oC;\n"
             "  acc_t sum = 0;\n"
             "  ix k = 0;\n");
  if (row) {
    ocl_add(t, "  acc_v part = (acc_v)(0);\n"
               "  for (; k + VW <= (ix)K; k += VW) part += vload_v(A + k) * vload_v(B + k);\n"
               "  acc_t lane[VW];\n"
               "  vstore_v(part, lane);\n"
               "  for (int h = VW / 2; h > 0; h /= 2) for (int i = 0; i < h; i++) lane[i] += lane[i + h];\n"
               "  sum = lane[0];\n"
               "  for (; k < (ix)K; k++) sum += (acc_t)I_LD(A, k) * (acc_t)I_LD(B, k);\n");
  } else {
    ocl_add(t, "  for (; k < (ix)K; k++) sum += (acc_t)I_LD(A, k * (ix)acs) * (acc_t)I_LD(B, k * (ix)brs);\n");
  }
  if (fused(s)) {
    ocl_add(t, "  ");
    call_text(t, s, false, "m", "n");
    ocl_add(t, "E_X(sum));\n}\n");
  } else {
    ocl_add(t, "  O_ST(C, m * (ix)crs + n * (ix)ccs, (O_C)sum);\n}\n");
  }
}

/* Each work-item computes (span/side)^2 results, spaced `side` apart so that neighbours store neighbours. */
static void tiled_text(ocl_text *t, const dot_shape *s) {
  ocl_add(t, "#define SIDE %u\n#define SPAN %u\n#define DEPTH %u\n#define EACH (SPAN / SIDE)\n", s->side, s->span,
          s->depth);
  ocl_add(t, "__kernel __attribute__((reqd_work_group_size(SIDE, SIDE, 1)))\n");
  one_result_args(t, s, "dot_tiled");
  ocl_add(t, "  __local acc_t ta[DEPTH][SPAN + 1], tb[DEPTH][SPAN + 1];\n"
             "  const ix batch = (ix)get_global_id(2);\n");
  batch_offsets(t, s, "ABC");
  ocl_add(t, "  A += a0 + oA; B += b0 + oB; C += c0 + oC;\n"
             "  const int lx = (int)get_local_id(0), ly = (int)get_local_id(1), id = ly * SIDE + lx;\n"
             "  const ix m0 = (ix)get_group_id(1) * SPAN, n0 = (ix)get_group_id(0) * SPAN;\n"
             "  acc_t acc[EACH][EACH];\n"
             "  for (int i = 0; i < EACH; i++) for (int j = 0; j < EACH; j++) acc[i][j] = 0;\n"
             "  for (ix k0 = 0; k0 < (ix)K; k0 += DEPTH) {\n"
             "    for (int e = id; e < DEPTH * SPAN; e += SIDE * SIDE) {\n"
             "      const int ka = acs == 1 ? e %% DEPTH : e / SPAN, ma = acs == 1 ? e / DEPTH : e %% SPAN;\n"
             "      const int kb = bcs == 1 ? e / SPAN : e %% DEPTH, nb = bcs == 1 ? e %% SPAN : e / DEPTH;\n"
             "      ta[ka][ma] = m0 + ma < (ix)M && k0 + ka < (ix)K\n"
             "        ? (acc_t)I_LD(A, (m0 + ma) * (ix)ars + (k0 + ka) * (ix)acs) : (acc_t)0;\n"
             "      tb[kb][nb] = n0 + nb < (ix)N && k0 + kb < (ix)K\n"
             "        ? (acc_t)I_LD(B, (k0 + kb) * (ix)brs + (n0 + nb) * (ix)bcs) : (acc_t)0;\n"
             "    }\n"
             "    barrier(CLK_LOCAL_MEM_FENCE);\n"
             "    for (int k = 0; k < DEPTH; k++) {\n"
             "      acc_t ra[EACH], rb[EACH];\n"
             "      for (int i = 0; i < EACH; i++) { ra[i] = ta[k][ly + i * SIDE]; rb[i] = tb[k][lx + i * SIDE]; }\n"
             "      for (int i = 0; i < EACH; i++) for (int j = 0; j < EACH; j++) acc[i][j] += ra[i] * rb[j];\n"
             "    }\n"
             "    barrier(CLK_LOCAL_MEM_FENCE);\n"
             "  }\n"
             "  for (int i = 0; i < EACH; i++) for (int j = 0; j < EACH; j++) {\n"
             "    const ix m = m0 + ly + i * SIDE, n = n0 + lx + j * SIDE;\n"
             "    if (m < (ix)M && n < (ix)N) ");
  if (fused(s)) {
    call_text(t, s, false, "m", "n");
    ocl_add(t, "E_X(acc[i][j]));\n  }\n}\n");
  } else {
    ocl_add(t, "O_ST(C, m * (ix)crs + n * (ix)ccs, (O_C)acc[i][j]);\n  }\n}\n");
  }
}

/* Sixteen rows of sixteen floats into sixteen columns: four rounds of perfect shuffles, each of which takes row i and
   row i + 8 to rows 2 i and 2 i + 1, element by element in turn */
static void transpose_text(ocl_text *t) {
  static const char hex[] = "0123456789abcdef";
  for (int half = 0; half < 2; half++) {
    ocl_add(t, "#define ZIP%d(a, b) (float16)(", half);
    for (int i = 8 * half; i < 8 * half + 8; i++) ocl_add(t, "%sa.s%c, b.s%c", i % 8 ? ", " : "", hex[i], hex[i]);
    ocl_add(t, ")\n");
  }
  ocl_add(t, "static void transpose(__global const float *from, long step, __global float *to, long l) {\n");
  for (int i = 0; i < 16; i++) ocl_add(t, "  const float16 r0_%d = vload16(0, from + %d * step);\n", i, i);
  for (int round = 0; round < 4; round++)
    for (int i = 0; i < 8; i++)
      for (int half = 0; half < 2; half++)
        ocl_add(t, "  const float16 r%d_%d = ZIP%d(r%d_%d, r%d_%d);\n", round + 1, 2 * i + half, half, round, i, round,
                i + 8);
  for (int i = 0; i < 16; i++) ocl_add(t, "  vstore16(r4_%d, 0, to + %d * l);\n", i, i);
  ocl_add(t, "}\n");
}

static void pack_text(ocl_text *t, const dot_shape *s) {
  const bool transposes = s->in == TERN_F32 && s->width == 16;
  if (transposes) transpose_text(t);
  ocl_add(t, "__kernel __attribute__((reqd_work_group_size(1, 1, 1)))\n"
             "void dot_pack(__global const I_T *S, long s0, __global mul_t *P, long p0, long lanes, long n, long K, "
             "long sl, long sk");
  batch_args(t, s, "S");
  ocl_add(
      t,
      ") {\n  const ix batch = (ix)get_global_id(2), panel = (ix)get_global_id(1), k0 = (ix)get_global_id(0) * 64;\n");
  batch_offsets(t, s, "S");
  ocl_add(t, "  const ix k1 = min(k0 + 64, (ix)K), l = (ix)lanes, first = panel * l, live = min(l, (ix)n - first);\n"
             "  S += s0 + oS + first * (ix)sl;\n"
             "  P += p0 + ((batch * (ix)get_global_size(1) + panel) * (ix)K) * l;\n"
             "  if (sl == 1) {\n"
             "    for (ix k = k0; k < k1; k++) {\n"
             "      for (ix i = 0; i < live; i++) P[k * l + i] = (mul_t)I_LD(S, k * (ix)sk + i);\n"
             "      for (ix i = live; i < l; i++) P[k * l + i] = 0;\n"
             "    }\n"
             "  } else {\n"
             "    ix done = 0;\n");
  if (transposes)
    ocl_add(t, "    if (sk == 1 && k1 - k0 == 64)\n"
               "      for (; done + 16 <= live; done += 16)\n"
               "        for (ix k = k0; k < k1; k += 16) transpose(S + done * (ix)sl + k, sl, P + k * l + done, l);\n");
  ocl_add(t, "    for (ix i = done; i < l; i++)\n"
             "      for (ix k = k0; k < k1; k++) P[k * l + i] = i < live ? (mul_t)I_LD(S, i * (ix)sl + k * (ix)sk) : "
             "(mul_t)0;\n"
             "  }\n}\n");
}

/* apanel: elements from one block of rows to the next; bpanel: the same of columns, 0 = B is not packed, its columns
   are contiguous and the last block is moved left so that no vector is cut (only its new columns are stored). Blocks
   are visited in groups of `super` blocks of rows, which stay in the cache while the panels of B pass by. */
static void block_head(ocl_text *t, const dot_shape *s, const dot_block *b) {
  ocl_add(t,
          "__kernel __attribute__((reqd_work_group_size(1, 1, 1)))\n"
          "void dot_block(__global const mul_t *A, long a0, __global const mul_t *B, long b0, __global %s *C, long c0, "
          "long M, long N,\n"
          "  long K, long apanel, long ars, long acs, long bpanel, long brs, long crs, long ccs, long super, long add",
          fused(s) ? "acc_t" : "O_T");
  batch_args(t, s, "ABC");
  ocl_add(t, "%s) {\n%s  const ix batch = (ix)get_global_id(1);\n", fused(s) ? s->epilogue->params : "",
          fused(s) ? s->epilogue->setup : "");
  batch_offsets(t, s, "ABC");
  ocl_add(t,
          "  const int R = %u, NR = %u * VW;\n"
          "  const ix ni = ((ix)M + R - 1) / R, nj = ((ix)N + NR - 1) / NR, per = (ix)super * nj, id = "
          "(ix)get_global_id(0);\n"
          "  const ix group = id / per, in = id %% per, high = min((ix)super, ni - group * (ix)super);\n"
          "  const ix i = group * (ix)super + in %% high, j = in / high, i0 = i * R;\n"
          "  const ix j0 = bpanel ? j * NR : min(j * NR, (ix)N - NR), jlo = j * NR - j0, jhi = min((ix)NR, (ix)N - "
          "j0);\n"
          "  __global const mul_t *b = B + b0 + oB + (bpanel ? j * (ix)bpanel : j0);\n"
          "  __global const mul_t *a = A + a0 + oA + i * (ix)apanel;\n"
          "  C += c0 + oC;\n",
          b->rows, b->vecs);
}

/* Rows of the block to the epilogue: whole vectors where all sixteen columns are ours; or sums over a part of K */
static void fused_store_text(ocl_text *t, const dot_shape *s) {
  ocl_add(
      t,
      RARE
      "  for (int r = 0; r < R && i0 + r < (ix)M; r++) {\n"
      "    __global acc_t *to = C + (i0 + r) * (ix)crs + j0;\n"
      "    if (add & %d)\n" RARE "    for (ix c = jlo; c < jhi; c++) lane[r * NR + c] += to[c];\n"
      "    if (add & %d) {\n      for (ix c = jlo; c < jhi; c++) to[c] = lane[r * NR + c];\n      continue;\n    }\n",
      DOT_ADD, DOT_MORE);
  if (s->epilogue->vector) {
    ocl_add(t, "    for (ix v = 0; v < NR; v += VW) {\n      if (v >= jlo && v + VW <= jhi) ");
    call_text(t, s, true, "i0 + r", "j0 + v");
    ocl_add(t, "vload_v(lane + r * NR + v));\n      else for (ix c = max(v, jlo); c < min(v + VW, jhi); c++) ");
  } else {
    ocl_add(t, "    {\n      for (ix c = jlo; c < jhi; c++) ");
  }
  call_text(t, s, false, "i0 + r", "j0 + c");
  ocl_add(t, "E_X(lane[r * NR + c]));\n    }\n  }\n}\n");
}

/* One step along K, of A's rows at k or of its panel at `panel` */
static void step_text(ocl_text *t, const dot_block *b, uint32_t at) {
  ocl_add(t, "    {");
  for (uint32_t v = 0; v < b->vecs; v++) ocl_add(t, " const mul_v x%u = vload_m(b + %u * VW);", v, v);
  ocl_add(t, "\n");
  for (uint32_t r = 0; r < b->rows; r++) {
    if (b->a == DOT_PACKED)
      ocl_add(t, "      { const mul_v y = (mul_v)(a[%u]);", at * b->rows + r);
    else if (b->a == DOT_ACROSS)
      ocl_add(t, "      { const mul_v y = (mul_v)(row%u[ka]);", r);
    else
      ocl_add(t, "      { const mul_v y = (mul_v)(row%u[k + %u]);", r, at);
    for (uint32_t v = 0; v < b->vecs; v++) ocl_add(t, " c%u_%u += y * x%u;", r, v, v);
    ocl_add(t, " }\n");
  }
  if (b->a == DOT_ACROSS) ocl_add(t, "      ka += (ix)acs;\n");
  ocl_add(t, "      b += (ix)brs;\n    }\n");
}

/* The block is written out as variables: compilers that do not unroll before they split arrays would keep it in
   memory. */
static void block_text(ocl_text *t, const dot_shape *s, const dot_block *b, bool direct) {
  enum { STEPS = 2 /* along K, unrolled */, DOT_EXACT = 256 /* 255 * 255 * 256 < 2^24 */ };
  const bool floats = dot_multiplies_floats(s);
  block_head(t, s, b);
  if (b->a == DOT_ACROSS) ocl_add(t, "  ix ka = 0;\n");
  for (uint32_t r = 0; r < b->rows && b->a != DOT_PACKED; r++)
    ocl_add(t, "  __global const mul_t *row%u = a + (min(i0 + %u, (ix)M - 1) - i0) * (ix)ars;\n", r, r);
  ocl_add(t, "  acc_t lane[%u * VW];\n  ix k = 0;\n", b->rows * b->vecs);
  if (floats)
    ocl_add(t,
            "  float part[%u * VW];\n  for (int i = 0; i < %u * VW; i++) lane[i] = 0;\n"
            "  while (k < (ix)K) {\n  const ix end = min(k + %d, (ix)K);\n",
            b->rows * b->vecs, b->rows * b->vecs, DOT_EXACT);
  else
    ocl_add(t, "  const ix end = (ix)K;\n");
  for (uint32_t r = 0; r < b->rows; r++)
    for (uint32_t v = 0; v < b->vecs; v++) ocl_add(t, "  mul_v c%u_%u = (mul_v)(0);\n", r, v);
  ocl_add(t, "  for (; k + %d <= end; k += %d) {\n", STEPS, STEPS);
  for (uint32_t i = 0; i < STEPS; i++) step_text(t, b, i);
  if (b->a == DOT_PACKED) ocl_add(t, "    a += %u;\n", STEPS * b->rows);
  ocl_add(t, "  }\n  for (; k < end; k++) {\n");
  step_text(t, b, 0);
  if (b->a == DOT_PACKED) ocl_add(t, "    a += %u;\n", b->rows);
  ocl_add(t, "  }\n");
  for (uint32_t r = 0; r < b->rows; r++)
    for (uint32_t v = 0; v < b->vecs; v++) {
      const uint32_t at = r * b->vecs + v;
      if (floats)
        ocl_add(t, "  vstore_v(c%u_%u, part + %u * VW);\n", r, v, at);
      else
        ocl_add(t, "  vstore_v(c%u_%u, lane + %u * VW);\n", r, v, at);
    }
  if (floats)
    ocl_add(t, "  for (int i = 0; i < %u * VW; i++) lane[i] += (acc_t)(int)part[i];\n  }\n", b->rows * b->vecs);
  if (fused(s)) {
    fused_store_text(t, s);
    return;
  }
  ocl_add(t, RARE "  for (int r = 0; r < R && i0 + r < (ix)M; r++) {\n"
                  "    __global O_T *to = C + (i0 + r) * (ix)crs + j0 * (ix)ccs;\n");
  if (direct) /* only then is a long K cut, and later pieces added to the result */
    ocl_add(t,
            "    if (jlo == 0 && jhi == NR && ccs == 1) {\n"
            "      for (int v = 0; v < NR; v += VW) {\n"
            "        acc_v sum = vload_v(lane + r * NR + v);\n"
            "        if (add) sum += vload_v((__global const acc_t *)to + v);\n"
            "        vstore_v(sum, (__global acc_t *)to + v);\n"
            "      }\n"
            "      continue;\n"
            "    }\n"
            "    if (add)\n" RARE "    for (ix c = jlo; c < jhi; c++) lane[r * NR + c] += (acc_t)to[c * (ix)ccs];\n");
  ocl_add(t, RARE "    for (ix c = jlo; c < jhi; c++) O_ST(to, c * (ix)ccs, (O_C)lane[r * NR + c]);\n"
                  "  }\n}\n");
}

bool dot_multiplies_floats(const dot_shape *s) { return s->in == TERN_I8 || s->in == TERN_U8; }

bool dot_adds_to_result(const dot_shape *s) {
  const uint32_t size = ocl_item_size(s->out);
  return s->out == TERN_F32 || s->out == TERN_F64 || (!ocl_is_float(s->out) && size >= 4);
}

void dot_text(ocl_text *t, const tern_dev *dev, const dot_shape *s, const dot_block *b, dot_part part) {
  ocl_add_prelude(t, dev, s->idx32);
  ocl_add_dtype(t, "I", s->in);
  ocl_add_dtype(t, "O", s->out);
  /* integers wrap: they accumulate unsigned, in the output's width or in 32 bits */
  const uint32_t size = ocl_item_size(s->out);
  const char *acc = ocl_is_float(s->out) ? ocl_compute(s->out) : size == 8 ? "ulong" : "uint";
  const char *mul = dot_multiplies_floats(s) && part != DOT_PART_ONE ? "float" : acc;
  ocl_add(t, "typedef %s acc_t;\ntypedef %s%u acc_v;\ntypedef %s mul_t;\ntypedef %s%u mul_v;\n#define VW %u\n", acc,
          acc, s->width, mul, mul, s->width, s->width);
  ocl_add(
      t,
      "#define vload_v(p) vload%u(0, p)\n#define vstore_v(v, p) vstore%u(v, 0, p)\n#define vload_m(p) vload%u(0, p)\n",
      s->width, s->width, s->width);
  const bool finish = part == DOT_PART_FINISH || (part == DOT_PART_ONE && s->finish);
  if (s->epilogue && part != DOT_PART_PACK && (fused(s) || finish)) ocl_add_epilogue(t, dev, s->epilogue, s->out, "O");
  if (finish) ocl_add_finish(t, dev, s->epilogue, s->batch + 2, s->epilogue->vector, "O");
  if (part == DOT_PART_PLAIN || part == DOT_PART_ONE) plain_text(t, s, false);
  if (part == DOT_PART_ROW) plain_text(t, s, true);
  if (part == DOT_PART_TILED || (part == DOT_PART_ONE && s->tiled)) tiled_text(t, s);
  if (part == DOT_PART_PACK) pack_text(t, s);
  if (part >= DOT_PART_BLOCK) block_text(t, s, b, dot_adds_to_result(s));
}
