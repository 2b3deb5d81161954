/* DOT: which of the generated kernels (dot_source.c) or CLBlast serves a launch. Sizes are known at launch only; the
   choice and the workspace come from one function, so that they agree. */
#include "dot.h"

#include <stdlib.h>
#include <string.h>

/* An epilogue of more arrays than this (an optimiser's step: 6) runs along rows, behind the product: the short rows of a
   register block would be too many streams of memory at once */
enum { MANY_ARRAYS = 4 };
enum { DOT_LONG = 768, DOT_PIECE = 512 }; /* a K longer than this is done in pieces of about that */
typedef enum dot_form { DOT_PLAIN, DOT_ROW, DOT_TILED, DOT_BLOCK, DOT_CLBLAST } dot_form;

typedef struct dot_kernel {
  tern_kernel head;
  dot_shape shape;
  uint32_t rank, n_args;
  tern_value a, b, c;
  ocl_epilogue epilogue;
  bool direct; /* operands can be read as vectors of the accumulator */
  bool clblast;
  int wanted; /* the option: -1 auto, else a dot_form that is preferred where it can serve */
  cl_kernel plain, row, tiled, pack, block, block1;
} dot_kernel;

typedef struct dot_sizes {
  int64_t m, n, k, batches;
  int64_t ars, acs, brs, bcs, crs, ccs;
  int64_t bsize[TERN_MAX_RANK], stride[3][TERN_MAX_RANK]; /* batch dims */
} dot_sizes;

typedef struct dot_plan {
  dot_form form;
  bool few, pack_a, pack_b; /* few: the kernel with few rows */
  uint32_t rows, cols;      /* of a register block */
  uint64_t a_bytes, bytes;  /* workspace: of A (64-byte multiple), and all */
  uint64_t c_at;            /* where the product lies in it; UINT64_MAX: not there */
} dot_plan;

static tern_rc dot_values(const tern_dev *dev, const tern_region *r, const tern_value *v[3], render_epilogue **e) {
  const tern_rc rc = ocl_epilogue_read(dev, r, TERN_OP_DOT, TERN_OP_DOT, -1, v, e);
  if (rc) return rc;
  const uint32_t in = v[0]->dtype, out = v[2]->dtype;
  const bool widen = (in == TERN_I8 || in == TERN_U8) && out == TERN_I32;
  if (v[1]->dtype == in && in != TERN_BOOL && (out == in || widen) && v[0]->rank >= 2 && v[0]->rank == v[1]->rank &&
      v[0]->rank == v[2]->rank && (*e || v[2]->alias < 0))
    return TERN_OK;
  render_epilogue_free(*e);
  return TERN_E_UNSUPPORTED;
}

tern_rc ocl_dot_supports(tern_dev *dev, const tern_region *r) {
  const tern_value *v[3];
  render_epilogue *e = NULL;
  const tern_rc rc = dot_values(dev, r, v, &e);
  if (!rc) render_epilogue_free(e);
  return rc;
}

static void dot_destroy(tern_dev *dev, tern_kernel *head) {
  dot_kernel *k = (dot_kernel *)head;
  const cl_kernel all[] = {k->plain, k->row, k->tiled, k->pack, k->block, k->block1};
  (void)dev;
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
    if (all[i]) clReleaseKernel(all[i]);
  ocl_epilogue_end(&k->epilogue);
}

static dot_sizes sizes_of(const dot_kernel *k, const tern_word *w) {
  const uint32_t r = k->rank;
  dot_sizes s = {.batches = 1};
  s.m = TERN_LIT(k->a.shape[r - 2], w);
  s.k = TERN_LIT(k->a.shape[r - 1], w);
  s.n = TERN_LIT(k->b.shape[r - 1], w);
  s.ars = TERN_LIT(k->a.stride[r - 2], w);
  s.acs = TERN_LIT(k->a.stride[r - 1], w);
  s.brs = TERN_LIT(k->b.stride[r - 2], w);
  s.bcs = TERN_LIT(k->b.stride[r - 1], w);
  const bool dense = k->shape.epilogue != NULL; /* if it is in memory at all */
  s.crs = dense ? s.n : TERN_LIT(k->c.stride[r - 2], w);
  s.ccs = dense ? 1 : TERN_LIT(k->c.stride[r - 1], w);
  const tern_value *v[3] = {&k->a, &k->b, &k->c};
  for (uint32_t d = 0; d + 2 < r; d++) {
    s.bsize[d] = TERN_LIT(k->c.shape[d], w);
    s.batches *= s.bsize[d];
    for (int i = 0; i < (dense ? 2 : 3); i++) s.stride[i][d] = v[i]->shape[d] == 1 ? 0 : TERN_LIT(v[i]->stride[d], w);
  }
  int64_t matrices = s.m * s.n;
  for (uint32_t d = r - 2; dense && d-- > 0; matrices *= s.bsize[d]) s.stride[2][d] = matrices;
  return s;
}

static uint32_t acc_size(const dot_kernel *k) {
  const uint32_t size = ocl_item_size(k->shape.out);
  return size < 4 ? 4 : size;
}

/* CLBlast takes one unit stride an operand, and a unit one in the result; no broadcast other than of whole matrices. */
static bool clblast_fits(const dot_sizes *s) {
  const bool a = (s->acs == 1 && s->ars >= s->k) || (s->ars == 1 && s->acs >= s->m);
  const bool b = (s->bcs == 1 && s->brs >= s->n) || (s->brs == 1 && s->bcs >= s->k);
  return a && b && s->ccs == 1 && s->crs >= s->n && s->batches <= 64;
}

static void plan_block(const dot_kernel *k, const dot_sizes *s, dot_plan *p) {
  p->few = (k->shape.has & DOT_HAS_BLOCK1) && s->m <= (int64_t)k->shape.rows1 * 2;
  p->rows = p->few ? k->shape.rows1 : k->shape.rows;
  p->cols = (p->few ? k->shape.vecs1 : k->shape.vecs) * k->shape.width;
  const uint64_t item = acc_size(k);
  /* B as it is: contiguous columns, and either a small matrix or too few rows to earn the packing back */
  const bool small = (uint64_t)s->k * (uint64_t)s->n * item <= (768u << 10) || s->m <= 32;
  p->pack_b = !k->direct || s->bcs != 1 || s->n < p->cols || !small;
  p->pack_a = !k->direct || (s->acs != 1 && s->n > 64);
  p->form = DOT_BLOCK;
  const uint64_t ni = ((uint64_t)s->m + p->rows - 1) / p->rows, nj = ((uint64_t)s->n + p->cols - 1) / p->cols;
  if (p->pack_a) p->a_bytes = ((uint64_t)s->batches * ni * p->rows * (uint64_t)s->k * item + 63) & ~(uint64_t)63;
  p->bytes = p->a_bytes;
  if (p->pack_b) p->bytes += (uint64_t)s->batches * nj * p->cols * (uint64_t)s->k * item;
}

static int64_t pieces_of(const dot_kernel *k, const dot_sizes *s) {
  return k->direct && s->k > DOT_LONG ? (s->k + DOT_PIECE - 1) / DOT_PIECE : 1;
}

static dot_plan form_of(const dot_kernel *k, const dot_sizes *s) {
  dot_plan p = {.form = DOT_PLAIN, .c_at = UINT64_MAX};
  const double work = (double)s->m * (double)s->n * (double)s->k;
  if (k->wanted == DOT_PLAIN) return p;
  if (k->clblast && clblast_fits(s) && (k->wanted == DOT_CLBLAST || work >= 256.0 * 256 * 256)) {
    p.form = DOT_CLBLAST;
    return p;
  }
  if ((k->shape.has & DOT_HAS_TILED) && (k->wanted == DOT_TILED || work >= 4096)) {
    p.form = DOT_TILED;
    return p;
  }
  if (!(k->shape.has & DOT_HAS_BLOCK)) return p;
  if ((k->shape.has & DOT_HAS_ROW) && s->acs == 1 && s->brs == 1 && (s->n < 8 || s->m < 4)) {
    p.form = DOT_ROW;
    return p;
  }
  if (work < 512 || (s->n < 8 && s->m < 8)) return p;
  plan_block(k, s, &p);
  return p;
}

static dot_plan plan_of(const dot_kernel *k, const dot_sizes *s) {
  dot_plan p = form_of(k, s);
  const bool apart = k->shape.apart || p.form == DOT_CLBLAST;
  if (!k->shape.epilogue || (!apart && (p.form != DOT_BLOCK || pieces_of(k, s) == 1))) return p;
  p.c_at = (p.bytes + 63) & ~(uint64_t)63;
  p.bytes = p.c_at + (uint64_t)(s->batches * s->m * s->n) * (apart ? ocl_item_size(k->shape.out) : acc_size(k));
  return p;
}

/* Where the product is written. With an epilogue that takes it from registers: nowhere, any buffer will do */
static tern_arg result_of(const dot_kernel *k, const tern_launch *l, const dot_plan *p) {
  if (!k->shape.epilogue) return l->args[k->c.slot];
  if (p->c_at == UINT64_MAX) return (tern_arg){l->args[k->a.slot].mem, 0};
  return (tern_arg){l->workspace.mem, l->workspace.offset + p->c_at};
}

static void epilogue_args(const dot_kernel *k, const tern_launch *l, ocl_call *c) {
  if (!k->shape.apart) ocl_epilogue_args(&k->epilogue, l, c);
}

static tern_rc dot_workspace(tern_dev *dev, const tern_kernel *head, const tern_word *words, uint64_t *bytes) {
  const dot_kernel *k = (const dot_kernel *)head;
  const dot_sizes s = sizes_of(k, words);
  (void)dev;
  *bytes = plan_of(k, &s).bytes;
  return TERN_OK;
}

static void batch_args(const dot_kernel *k, const dot_sizes *s, ocl_call *c, uint32_t which) {
  for (uint32_t d = 0; d < k->shape.batch; d++) {
    ocl_arg_long(c, s->bsize[d]);
    for (uint32_t i = 0; i < 3; i++)
      if (which >> i & 1) ocl_arg_long(c, s->stride[i][d]);
  }
}

static tern_rc run_one(tern_dev *dev, tern_queue *q, const dot_kernel *k, const tern_launch *l, const dot_sizes *s,
                       const dot_plan *p) {
  const dot_form form = p->form;
  const tern_arg to = result_of(k, l, p);
  ocl_call c = ocl_call_of(q, form == DOT_TILED ? k->tiled : form == DOT_ROW ? k->row : k->plain);
  ocl_arg_at(&c, &l->args[k->a.slot], ocl_item_size(k->shape.in));
  ocl_arg_at(&c, &l->args[k->b.slot], ocl_item_size(k->shape.in));
  ocl_arg_at(&c, &to, ocl_item_size(k->shape.out));
  const int64_t words[] = {s->m, s->n, s->k, s->ars, s->acs, s->brs, s->bcs, s->crs, s->ccs, s->batches};
  for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) ocl_arg_long(&c, words[i]);
  batch_args(k, s, &c, 7);
  epilogue_args(k, l, &c);
  if (form != DOT_TILED)
    return ocl_run1(dev, q, &c, "DOT", (uint64_t)s->m * (uint64_t)s->n * (uint64_t)s->batches, DOT_LOCAL);
  const uint32_t span = k->shape.span;
  const size_t groups[3] = {(size_t)(s->n + span - 1) / span, (size_t)(s->m + span - 1) / span, (size_t)s->batches};
  const size_t local[3] = {k->shape.side, k->shape.side, 1};
  return ocl_run(dev, q, &c, "DOT", 3, groups, local);
}

/* Operand i (0: A, by rows; 1: B, by columns) to panels at byte `at` of the workspace. */
static tern_rc run_pack(tern_dev *dev, tern_queue *q, const dot_kernel *k, const tern_launch *l, const dot_sizes *s,
                        const dot_plan *p, uint32_t i, uint64_t at) {
  const int64_t lanes = i ? p->cols : p->rows, n = i ? s->n : s->m;
  ocl_call c = ocl_call_of(q, k->pack);
  ocl_arg_at(&c, &l->args[i ? k->b.slot : k->a.slot], ocl_item_size(k->shape.in));
  ocl_arg_mem(&c, l->workspace.mem->buffer);
  ocl_arg_long(&c, (int64_t)((l->workspace.offset + at) / acc_size(k)));
  const int64_t words[] = {lanes, n, s->k, i ? s->bcs : s->ars, i ? s->brs : s->acs};
  for (size_t w = 0; w < sizeof words / sizeof words[0]; w++) ocl_arg_long(&c, words[w]);
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

/* A and B of the block kernels: as given or packed. */
typedef struct dot_operands {
  const tern_arg *a, *b;
  int64_t apanel, ars, acs, bpanel, brs;
} dot_operands;

/* [at, at + depth) of K: panels of that depth stay in the caches. */
static tern_rc run_piece(tern_dev *dev, tern_queue *q, const dot_kernel *k, const tern_launch *l, const dot_sizes *s,
                         const dot_plan *p, const dot_operands *o, int64_t at, int64_t depth) {
  const int64_t ni = (s->m + p->rows - 1) / p->rows, nj = (s->n + p->cols - 1) / p->cols;
  const uint32_t item = acc_size(k);
  ocl_call c = ocl_call_of(q, p->few ? k->block1 : k->block);
  ocl_arg_mem(&c, o->a->mem->buffer);
  ocl_arg_long(&c, (int64_t)(o->a->offset / item) + at * o->acs);
  ocl_arg_mem(&c, o->b->mem->buffer);
  ocl_arg_long(&c, (int64_t)(o->b->offset / item) + at * o->brs);
  const tern_arg to = result_of(k, l, p);
  const bool more = k->shape.epilogue && !k->shape.apart && at + depth < s->k;
  ocl_arg_at(&c, &to, ocl_item_size(k->shape.out));
  /* rows of A that fill about 256 KiB stay in the cache */
  const int64_t fit = (256 << 10) / (depth * p->rows * item + 1);
  const int64_t super = fit < 1 ? 1 : fit < ni ? fit : ni;
  const int64_t words[] = {s->m,      s->n,   depth,  o->apanel, o->ars, o->acs,
                           o->bpanel, o->brs, s->crs, s->ccs,    super,  (at > 0 ? DOT_ADD : 0) | (more ? DOT_MORE : 0)};
  for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) ocl_arg_long(&c, words[i]);
  batch_args(k, s, &c, 7);
  epilogue_args(k, l, &c);
  const size_t groups[2] = {(size_t)(ni * nj), (size_t)s->batches}, local[2] = {1, 1};
  return ocl_run(dev, q, &c, "DOT", 2, groups, local);
}

static tern_rc run_block(tern_dev *dev, tern_queue *q, const dot_kernel *k, const tern_launch *l, dot_sizes *s,
                         const dot_plan *p) {
  tern_rc rc = p->pack_a ? run_pack(dev, q, k, l, s, p, 0, 0) : TERN_OK;
  if (!rc && p->pack_b) rc = run_pack(dev, q, k, l, s, p, 1, p->a_bytes);
  if (rc) return rc;
  const int64_t ni = (s->m + p->rows - 1) / p->rows, nj = (s->n + p->cols - 1) / p->cols;
  const tern_arg pa = {l->workspace.mem, l->workspace.offset},
                 pb = {l->workspace.mem, l->workspace.offset + p->a_bytes};
  int64_t apanel = p->rows * s->ars, ars = s->ars, acs = s->acs, bpanel = 0, brs = s->brs;
  if (p->pack_a) {
    apanel = s->k * p->rows, ars = 1, acs = p->rows;
    packed_strides(k, s, 0, ni * apanel);
  }
  if (p->pack_b) {
    bpanel = s->k * p->cols, brs = p->cols;
    packed_strides(k, s, 1, nj * bpanel);
  }
  const dot_operands o = {
      p->pack_a ? &pa : &l->args[k->a.slot], p->pack_b ? &pb : &l->args[k->b.slot], apanel, ars, acs, bpanel, brs};
  const int64_t pieces = pieces_of(k, s), piece = (s->k + pieces - 1) / pieces;
  for (int64_t at = 0; at < s->k && !rc; at += piece)
    rc = run_piece(dev, q, k, l, s, p, &o, at, s->k - at < piece ? s->k - at : piece);
  return rc;
}

static tern_rc run_clblast(tern_dev *dev, tern_queue *q, const dot_kernel *k, const tern_launch *l,
                           const dot_sizes *s, const dot_plan *p) {
  const uint32_t item = ocl_item_size(k->shape.in);
  const tern_arg to = result_of(k, l, p), *a = &l->args[k->a.slot], *b = &l->args[k->b.slot], *c = &to;
  ocl_gemm g = {
      .m = s->m, .n = s->n, .k = s->k, .ldc = s->crs, .a = a->mem->buffer, .b = b->mem->buffer, .c = c->mem->buffer};
  g.a_t = s->acs != 1 || s->ars < s->k;
  g.b_t = s->bcs != 1 || s->brs < s->n;
  g.lda = g.a_t ? s->acs : s->ars;
  g.ldb = g.b_t ? s->bcs : s->brs;
  for (int64_t batch = 0; batch < s->batches; batch++) {
    int64_t at[3] = {0, 0, 0}, rest = batch;
    for (uint32_t d = k->shape.batch; d-- > 0;) {
      for (int i = 0; i < 3; i++) at[i] += rest % s->bsize[d] * s->stride[i][d];
      rest /= s->bsize[d];
    }
    g.a_off = (int64_t)(a->offset / item) + at[0];
    g.b_off = (int64_t)(b->offset / item) + at[1];
    g.c_off = (int64_t)(c->offset / item) + at[2];
    const tern_rc rc = ocl_clblast_gemm(dev, q, k->shape.in, &g);
    if (rc) return rc;
  }
  return TERN_OK;
}

static tern_rc dot_launch(tern_dev *dev, tern_queue *q, tern_kernel *head, const tern_launch *l) {
  const dot_kernel *k = (const dot_kernel *)head;
  dot_sizes s = sizes_of(k, l->words);
  const dot_plan p = plan_of(k, &s);
  tern_rc rc = ocl_check_launch(dev, l, k->n_args, p.bytes);
  if (rc) return rc;
  if (p.form == DOT_CLBLAST)
    rc = run_clblast(dev, q, k, l, &s, &p);
  else
    rc = p.form == DOT_BLOCK ? run_block(dev, q, k, l, &s, &p) : run_one(dev, q, k, l, &s, &p);
  if (rc || !k->shape.epilogue || (p.form != DOT_CLBLAST && !k->shape.apart)) return rc;
  int64_t size[TERN_MAX_RANK];
  memcpy(size, s.bsize, sizeof size);
  size[k->rank - 2] = s.m, size[k->rank - 1] = s.n;
  const tern_arg product = result_of(k, l, &p);
  return ocl_epilogue_finish(dev, q, &k->epilogue, l, &product, k->shape.out, k->rank, size);
}

/* Which kernels this device can use: register blocks on a CPU, tiles in local memory elsewhere. */
static uint32_t forms_for(const tern_dev *dev, const dot_shape *s, int wanted) {
  if (wanted == DOT_PLAIN) return 0;
  const bool f32up = s->in == TERN_F32 || s->in == TERN_F64;
  const uint32_t acc = ocl_item_size(s->out) == 8 ? 8 : 4;
  const bool fits =
      dev->id->max_group >= (size_t)s->side * s->side && dev->id->local_mem >= 2u * s->depth * (s->span + 1) * acc;
  if (wanted == DOT_TILED || !ocl_is_cpu(dev->id)) return fits ? DOT_HAS_TILED : 0;
  return DOT_HAS_BLOCK | (f32up ? DOT_HAS_ROW | DOT_HAS_BLOCK1 : 0);
}

static int wanted_form(const tern_dev *dev) {
  const char *o = ocl_option(dev->drv, "gemm", "auto");
  return !strcmp(o, "plain")     ? DOT_PLAIN
         : !strcmp(o, "tiled")   ? DOT_TILED
         : !strcmp(o, "clblast") ? DOT_CLBLAST
         : !strcmp(o, "own")     ? DOT_BLOCK
                                 : -1;
}

/* Register block: as many vectors as half of a CPU's registers hold, and enough of them to hide the latency of a
   multiply-add. A tile: the largest square of work-items up to 16 x 16 that the device runs. */
static dot_shape shape_for(const tern_dev *dev, const tern_region *r, const tern_value *v[3]) {
  const bool wide = ocl_item_size(v[2]->dtype) == 8;
  dot_shape s = {.in = v[0]->dtype, .out = v[2]->dtype, .batch = v[2]->rank - 2, .idx32 = r->flags & TERN_R_IDX32};
  s.width = wide ? 8 : 16;
  const bool big = dev->id->float_width >= 16; /* 32 vector registers */
  s.rows = big ? 12 : 6;
  s.vecs = big ? 2 : 1;
  s.rows1 = 1;
  s.vecs1 = 4;
  s.side = dev->id->max_group >= 256 ? 16 : dev->id->max_group >= 64 ? 8 : 4;
  s.span = s.side * 4;
  s.depth = 16;
  return s;
}

tern_rc ocl_dot_compile(tern_dev *dev, const tern_region *r, tern_kernel **out, tern_kernel_info *info) {
  const tern_value *v[3];
  render_epilogue *e = NULL;
  tern_rc rc = dot_values(dev, r, v, &e);
  if (rc) return rc;
  const int wanted = wanted_form(dev);
  dot_shape shape = shape_for(dev, r, v);
  const bool f32up = shape.in == TERN_F32 || shape.in == TERN_F64;
  const bool try_clblast = f32up && (wanted == DOT_CLBLAST || (wanted < 0 && !ocl_is_cpu(dev->id)));
  shape.has = forms_for(dev, &shape, wanted);
  shape.epilogue = e;
  shape.apart = e && (e->in_place || e->n_full > MANY_ARRAYS);
  shape.finish = e && (shape.apart || try_clblast);
  ocl_text text = {0};
  dot_text(&text, dev, &shape);
  tern_kernel *head = NULL;
  rc = text.failed ? ocl_error(dev->drv, dev->id, TERN_E_OOM, "no memory for the text of DOT")
                           : ocl_kernel_alloc(dev, sizeof(dot_kernel), text.s, "DOT", &head);
  free(text.s);
  if (rc) {
    render_epilogue_free(e);
    return rc;
  }
  dot_kernel *k = (dot_kernel *)head;
  k->head.launch = dot_launch;
  k->head.workspace = dot_workspace;
  k->head.destroy = dot_destroy;
  k->shape = shape;
  k->rank = v[2]->rank;
  k->n_args = r->n_args;
  k->a = *v[0], k->b = *v[1], k->c = *v[2];
  k->direct = f32up || (shape.in == shape.out && !ocl_is_float(shape.in) && ocl_item_size(shape.in) >= 4);
  k->wanted = wanted;
  k->clblast = try_clblast && ocl_clblast_ready(dev, shape.in) == TERN_OK;
  rc = ocl_epilogue_init(dev, &k->epilogue, e, head->program, shape.finish);
  if (!rc) rc = ocl_kernel_new(dev, head->program, "dot_plain", &k->plain);
  if (!rc && (shape.has & DOT_HAS_ROW)) rc = ocl_kernel_new(dev, head->program, "dot_row", &k->row);
  if (!rc && (shape.has & DOT_HAS_TILED)) rc = ocl_kernel_new(dev, head->program, "dot_tiled", &k->tiled);
  if (!rc && (shape.has & DOT_HAS_BLOCK)) rc = ocl_kernel_new(dev, head->program, "dot_pack", &k->pack);
  if (!rc && (shape.has & DOT_HAS_BLOCK)) rc = ocl_kernel_new(dev, head->program, "dot_block", &k->block);
  if (!rc && (shape.has & DOT_HAS_BLOCK1)) rc = ocl_kernel_new(dev, head->program, "dot_block1", &k->block1);
  if (rc) {
    ocl_kernel_free(dev, head);
    return rc;
  }
  if (info) info->workspace = UINT64_MAX;
  *out = head;
  return TERN_OK;
}
