/* Launches of DOT by a plan: packing, register blocks over pieces of K, the other forms, CLBlast. */
#include "dot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- parts: text to cl_kernel, when first needed ---- */

static dot_part block_part(const dot_plan *p) { return (dot_part)(DOT_PART_BLOCK + 3 * p->variant + (uint32_t)p->a); }

static tern_rc register_part(tern_dev *dev, dot_kernel *k, dot_part part) {
  if (k->section[part]) return TERN_OK;
  static const char *const names[] = {"DOT",        "DOT, plain",   "DOT, by rows",
                                      "DOT, tiled", "DOT, packing", "what follows a product"};
  const bool block = part >= DOT_PART_BLOCK;
  const uint32_t i = block ? (uint32_t)(part - DOT_PART_BLOCK) : 0;
  dot_block b = k->variant[i / 3];
  b.a = (dot_rows)(i % 3);
  char what[48];
  snprintf(what, sizeof what, "DOT, %u rows of %u vectors", b.rows, b.vecs);
  ocl_text text = {0};
  dot_text(&text, dev, &k->shape, &b, part);
  const tern_rc rc = text.failed ? ocl_error(dev->drv, dev->id, TERN_E_OOM, "no memory for the text of DOT")
                                 : ocl_section_get(dev, text.s, block ? what : names[part], &k->section[part]);
  free(text.s);
  return rc;
}

static tern_rc kernel_of(tern_dev *dev, dot_kernel *k, dot_part part, cl_kernel *out) {
  static const char *const names[] = {"dot_plain", "dot_plain", "dot_row", "dot_tiled", "dot_pack", "finish"};
  cl_kernel *at = &k->part[part];
  if (!*at) {
    tern_rc rc = register_part(dev, k, part);
    if (!rc) rc = ocl_section_ready(dev, k->section[part]);
    if (!rc) rc = ocl_kernel_new(dev, k->section[part], part < DOT_PART_BLOCK ? names[part] : "dot_block", at);
    if (rc) return rc;
  }
  *out = *at;
  return TERN_OK;
}

static dot_part one_part(dot_form form) {
  return form == DOT_TILED ? DOT_PART_TILED : form == DOT_ROW ? DOT_PART_ROW : DOT_PART_PLAIN;
}

/* The parts that a plan needs. */
static int parts_of(const dot_kernel *k, const dot_plan *p, dot_part out[3]) {
  int n = 0;
  if (p->form < DOT_CLBLAST) out[n++] = one_part(p->form);
  if (p->form == DOT_BLOCKS) out[n++] = block_part(p);
  if (p->a == DOT_PACKED || p->pack_b) out[n++] = DOT_PART_PACK;
  if (k->shape.epilogue && (k->shape.apart || p->form == DOT_CLBLAST)) out[n++] = DOT_PART_FINISH;
  return n;
}

tern_rc dot_register(tern_dev *dev, dot_kernel *k, const dot_plan *p) {
  dot_part part[3];
  tern_rc rc = TERN_OK;
  const int n = k->lazy ? parts_of(k, p, part) : 0;
  for (int i = 0; i < n && !rc; i++) rc = register_part(dev, k, part[i]);
  return rc;
}

/* Makes a part ready; where its cl_kernel stands is for who launches it. */
static tern_rc part_ready(tern_dev *dev, dot_kernel *k, dot_part part) {
  cl_kernel ignored;
  return kernel_of(dev, k, part, part == DOT_PART_FINISH ? &k->epilogue.finish : &ignored);
}

/* What fails is for the launch to say. */
void dot_plan_ready(tern_dev *dev, dot_kernel *k, const dot_plan *p) {
  dot_part part[3];
  const int n = parts_of(k, p, part);
  for (int i = 0; i < n && !part_ready(dev, k, part[i]);) i++;
}

tern_rc dot_registered_ready(tern_dev *dev, tern_kernel *head) {
  dot_kernel *k = (dot_kernel *)head;
  tern_rc rc = TERN_OK;
  for (int i = 0; i < DOT_PARTS && !rc; i++)
    if (k->section[i]) rc = part_ready(dev, k, (dot_part)i);
  return rc;
}

void dot_end(tern_dev *dev, dot_kernel *k) {
  for (int i = 0; i < DOT_PARTS; i++) {
    if (k->part[i] && i != DOT_PART_FINISH) clReleaseKernel(k->part[i]); /* that is the epilogue's */
    ocl_section_put(dev, k->section[i]);
  }
  if (k->tiled) clReleaseKernel(k->tiled);
}

/* ---- what all forms share ---- */

/* Where the product is written. With an epilogue that takes it from registers: nowhere, any buffer will do */
static tern_arg result_of(const dot_kernel *k, const tern_launch *l, const dot_plan *p) {
  if (!k->shape.epilogue) return l->args[k->c.slot];
  if (p->c_at == UINT64_MAX) return (tern_arg){l->args[k->a.slot].mem, 0};
  return (tern_arg){l->workspace.mem, l->workspace.offset + p->c_at};
}

static void epilogue_args(const dot_kernel *k, const tern_launch *l, ocl_call *c) {
  if (!k->shape.apart) ocl_epilogue_args(&k->epilogue, l, c);
}

static void longs(ocl_call *c, const int64_t *words, size_t n) {
  for (size_t i = 0; i < n; i++) ocl_arg_long(c, words[i]);
}
#define LONGS(c, ...) \
  longs((c), (const int64_t[]){__VA_ARGS__}, sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t))

static void batch_args(const dot_kernel *k, const dot_sizes *s, ocl_call *c, uint32_t which) {
  for (uint32_t d = 0; d < k->shape.batch; d++) {
    ocl_arg_long(c, s->bsize[d]);
    for (uint32_t i = 0; i < 3; i++)
      if (which >> i & 1) ocl_arg_long(c, s->stride[i][d]);
  }
}

static tern_rc run_one(tern_dev *dev, tern_queue *q, dot_kernel *k, const tern_launch *l, const dot_sizes *s,
                       const dot_plan *p) {
  const bool tiled = p->form == DOT_TILED;
  const tern_arg to = result_of(k, l, p);
  cl_kernel kernel = tiled ? k->tiled : k->part[DOT_PART_ONE];
  const tern_rc rc = k->lazy ? kernel_of(dev, k, one_part(p->form), &kernel) : TERN_OK;
  if (rc) return rc;
  ocl_call c = ocl_call_of(q, kernel);
  ocl_arg_at(&c, &l->args[k->a.slot], ocl_item_size(k->shape.in));
  ocl_arg_at(&c, &l->args[k->b.slot], ocl_item_size(k->shape.in));
  ocl_arg_at(&c, &to, ocl_item_size(k->shape.out));
  LONGS(&c, s->m, s->n, s->k, s->ars, s->acs, s->brs, s->bcs, s->crs, s->ccs, s->batches);
  batch_args(k, s, &c, 7);
  epilogue_args(k, l, &c);
  if (!tiled) return ocl_run1(dev, q, &c, "DOT", (uint64_t)s->m * (uint64_t)s->n * (uint64_t)s->batches, DOT_LOCAL);
  const uint32_t span = k->shape.span;
  const size_t groups[3] = {(size_t)(s->n + span - 1) / span, (size_t)(s->m + span - 1) / span, (size_t)s->batches};
  const size_t local[3] = {k->shape.side, k->shape.side, 1};
  return ocl_run(dev, q, &c, "DOT", 3, groups, local);
}

/* ---- register blocks ---- */

static int64_t rows_of(const dot_kernel *k, const dot_plan *p) { return k->variant[p->variant].rows; }
static int64_t cols_of(const dot_kernel *k, const dot_plan *p) {
  return (int64_t)k->variant[p->variant].vecs * k->shape.width;
}

/* Operand i (0: A, by rows; 1: B, by columns) to panels at byte `at` of the workspace. */
static tern_rc run_pack(tern_dev *dev, tern_queue *q, dot_kernel *k, const tern_launch *l, const dot_sizes *s,
                        const dot_plan *p, uint32_t i, uint64_t at) {
  const int64_t lanes = i ? cols_of(k, p) : rows_of(k, p), n = i ? s->n : s->m;
  cl_kernel kernel;
  const tern_rc rc = kernel_of(dev, k, DOT_PART_PACK, &kernel);
  if (rc) return rc;
  ocl_call c = ocl_call_of(q, kernel);
  ocl_arg_at(&c, &l->args[i ? k->b.slot : k->a.slot], ocl_item_size(k->shape.in));
  ocl_arg_mem(&c, l->workspace.mem->buffer);
  LONGS(&c, (int64_t)((l->workspace.offset + at) / dot_acc_size(k)), lanes, n, s->k, i ? s->bcs : s->ars,
        i ? s->brs : s->acs);
  batch_args(k, s, &c, 1u << i);
  const size_t groups[3] = {(size_t)(s->k + 63) / 64, (size_t)((n + lanes - 1) / lanes), (size_t)s->batches};
  const size_t local[3] = {1, 1, 1};
  return ocl_run(dev, q, &c, "DOT (packing)", 3, groups, local);
}

/* Batch strides of packed operands are those of the panels, in the order of the batch number. */
static void packed_strides(const dot_kernel *k, dot_sizes *s, uint32_t i, int64_t matrix) {
  int64_t stride = matrix;
  for (uint32_t d = k->shape.batch; d-- > 0;) {
    s->stride[i][d] = stride;
    stride *= s->bsize[d];
  }
}

/* A and B of the block kernels: as given or packed. a_step: elements from one k to the next */
typedef struct dot_operands {
  const tern_arg *a, *b;
  int64_t apanel, ars, a_step, bpanel, brs;
} dot_operands;

/* [at, at + depth) of K: panels of that depth stay in the caches. */
static tern_rc run_piece(tern_dev *dev, tern_queue *q, dot_kernel *k, const tern_launch *l, const dot_sizes *s,
                         const dot_plan *p, const dot_operands *o, int64_t at, int64_t depth) {
  const int64_t rows = rows_of(k, p), ni = (s->m + rows - 1) / rows, nj = (s->n + cols_of(k, p) - 1) / cols_of(k, p);
  const uint32_t item = dot_acc_size(k);
  cl_kernel kernel;
  const tern_rc rc = kernel_of(dev, k, block_part(p), &kernel);
  if (rc) return rc;
  ocl_call c = ocl_call_of(q, kernel);
  ocl_arg_mem(&c, o->a->mem->buffer);
  ocl_arg_long(&c, (int64_t)(o->a->offset / item) + at * o->a_step);
  ocl_arg_mem(&c, o->b->mem->buffer);
  ocl_arg_long(&c, (int64_t)(o->b->offset / item) + at * o->brs);
  const tern_arg to = result_of(k, l, p);
  const bool more = k->shape.epilogue && !k->shape.apart && at + depth < s->k;
  ocl_arg_at(&c, &to, ocl_item_size(k->shape.out));
  /* rows of A that fill about 512 KiB stay in the second cache while the panels of B pass */
  const int64_t fit = (512 << 10) / (depth * rows * item + 1);
  const int64_t super = fit < 1 ? 1 : fit < ni ? fit : ni;
  LONGS(&c, s->m, s->n, depth, o->apanel, o->ars, o->a_step, o->bpanel, o->brs, s->crs, s->ccs, super,
        (at > 0 ? DOT_ADD : 0) | (more ? DOT_MORE : 0));
  batch_args(k, s, &c, 7);
  epilogue_args(k, l, &c);
  const size_t groups[2] = {(size_t)(ni * nj), (size_t)s->batches}, local[2] = {1, 1};
  return ocl_run(dev, q, &c, "DOT", 2, groups, local);
}

static tern_rc run_block(tern_dev *dev, tern_queue *q, dot_kernel *k, const tern_launch *l, const dot_sizes *given,
                         const dot_plan *p) {
  tern_rc rc = p->a == DOT_PACKED ? run_pack(dev, q, k, l, given, p, 0, 0) : TERN_OK;
  if (!rc && p->pack_b) rc = run_pack(dev, q, k, l, given, p, 1, p->a_bytes);
  if (rc) return rc;
  dot_sizes s = *given;
  const int64_t rows = rows_of(k, p), cols = cols_of(k, p), ni = (s.m + rows - 1) / rows, nj = (s.n + cols - 1) / cols;
  const tern_arg pa = {l->workspace.mem, l->workspace.offset},
                 pb = {l->workspace.mem, l->workspace.offset + p->a_bytes};
  dot_operands o = {&l->args[k->a.slot], &l->args[k->b.slot], rows * s.ars, s.ars, s.acs, 0, s.brs};
  if (p->a == DOT_PACKED) {
    o.a = &pa, o.apanel = s.k * rows, o.ars = 1, o.a_step = rows;
    packed_strides(k, &s, 0, ni * o.apanel);
  }
  if (p->pack_b) {
    o.b = &pb, o.bpanel = s.k * cols, o.brs = cols;
    packed_strides(k, &s, 1, nj * o.bpanel);
  }
  const int64_t pieces = dot_pieces(k, &s), piece = (s.k + pieces - 1) / pieces;
  for (int64_t at = 0; at < s.k && !rc; at += piece)
    rc = run_piece(dev, q, k, l, &s, p, &o, at, s.k - at < piece ? s.k - at : piece);
  return rc;
}

/* ---- CLBlast ---- */

/* The step from one matrix of the batch to the next, where it is the same for all of them */
static bool uniform(const dot_kernel *k, const dot_sizes *s, int i, int64_t *step) {
  int64_t expected = 0;
  bool first = true;
  *step = 0;
  for (uint32_t d = k->shape.batch; d-- > 0;) {
    if (s->bsize[d] == 1) continue;
    if (!first && s->stride[i][d] != expected) return false;
    if (first) *step = s->stride[i][d];
    expected = s->stride[i][d] * s->bsize[d];
    first = false;
  }
  return true;
}

static tern_rc run_clblast(tern_dev *dev, tern_queue *q, const dot_kernel *k, const tern_launch *l, const dot_sizes *s,
                           const dot_plan *p) {
  const uint32_t item = ocl_item_size(k->shape.in);
  const tern_arg to = result_of(k, l, p), *a = &l->args[k->a.slot], *b = &l->args[k->b.slot], *c = &to;
  ocl_gemm g = {
      .m = s->m, .n = s->n, .k = s->k, .ldc = s->crs, .a = a->mem->buffer, .b = b->mem->buffer, .c = c->mem->buffer};
  g.a_t = s->acs != 1 || s->ars < s->k;
  g.b_t = s->bcs != 1 || s->brs < s->n;
  g.lda = g.a_t ? s->acs : s->ars;
  g.ldb = g.b_t ? s->bcs : s->brs;
  g.a_off = (int64_t)(a->offset / item);
  g.b_off = (int64_t)(b->offset / item);
  g.c_off = (int64_t)(c->offset / item);
  int64_t step[3];
  if (s->batches > 1 && uniform(k, s, 0, &step[0]) && uniform(k, s, 1, &step[1]) && uniform(k, s, 2, &step[2])) {
    g.batches = s->batches, g.a_step = step[0], g.b_step = step[1], g.c_step = step[2];
    return ocl_clblast_gemm(dev, q, k->shape.in, &g);
  }
  const ocl_gemm first = g;
  for (int64_t batch = 0; batch < s->batches; batch++) {
    int64_t at[3] = {0, 0, 0}, rest = batch;
    for (uint32_t d = k->shape.batch; d-- > 0;) {
      for (int i = 0; i < 3; i++) at[i] += rest % s->bsize[d] * s->stride[i][d];
      rest /= s->bsize[d];
    }
    g.a_off = first.a_off + at[0];
    g.b_off = first.b_off + at[1];
    g.c_off = first.c_off + at[2];
    const tern_rc rc = ocl_clblast_gemm(dev, q, k->shape.in, &g);
    if (rc) return rc;
  }
  return TERN_OK;
}

tern_rc dot_run(tern_dev *dev, tern_queue *q, dot_kernel *k, const tern_launch *l, const dot_sizes *s,
                const dot_plan *p) {
  tern_rc rc = p->form == DOT_CLBLAST  ? run_clblast(dev, q, k, l, s, p)
               : p->form == DOT_BLOCKS ? run_block(dev, q, k, l, s, p)
                                       : run_one(dev, q, k, l, s, p);
  if (rc || !k->shape.epilogue || (p->form != DOT_CLBLAST && !k->shape.apart)) return rc;
  if (k->lazy) rc = kernel_of(dev, k, DOT_PART_FINISH, &k->epilogue.finish);
  if (rc) return rc;
  int64_t size[TERN_MAX_RANK];
  memcpy(size, s->bsize, sizeof size);
  size[k->rank - 2] = s->m, size[k->rank - 1] = s->n;
  const tern_arg product = result_of(k, l, p);
  return ocl_epilogue_finish(dev, q, &k->epilogue, l, &product, k->shape.out, k->rank, size);
}
