/* DOT: from a region to a kernel, and which of the generated kernels (dot_source.c) or CLBlast serves a launch. Sizes
   are known at launch only; the choice and the workspace come from one function, so that they agree. */
#include "dot.h"

#include <stdlib.h>
#include <string.h>

enum { DOT_LONG = 1024, DOT_PIECE = 512 }; /* a K longer than this is done in pieces of about that */
enum { FEW = DOT_VARIANTS - 1 };           /* the variant for one or two rows */
enum { SHORT = 256 }; /* the lines that a block of a transposed A of this K touches stay in the first cache */

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

/* ---- sizes ---- */

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

uint32_t dot_acc_size(const dot_kernel *k) {
  const uint32_t size = ocl_item_size(k->shape.out);
  return size < 4 ? 4 : size;
}

int64_t dot_pieces(const dot_kernel *k, const dot_sizes *s) {
  return k->adds && s->k > DOT_LONG ? (s->k + DOT_PIECE - 1) / DOT_PIECE : 1;
}

/* ---- forms ---- */

/* CLBlast takes one unit stride an operand, and a unit one in the result; no broadcast other than of whole matrices. */
static bool clblast_fits(const dot_sizes *s) {
  const bool a = (s->acs == 1 && s->ars >= s->k) || (s->ars == 1 && s->acs >= s->m);
  const bool b = (s->bcs == 1 && s->brs >= s->n) || (s->brs == 1 && s->bcs >= s->k);
  return a && b && s->ccs == 1 && s->crs >= s->n;
}

static int64_t rounded(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

/* Whole blocks, and the loads that a block of few rows or columns makes for each multiply-add */
static double block_cost(const dot_kernel *k, const dot_sizes *s, uint32_t v) {
  const double rows = k->variant[v].rows, vecs = k->variant[v].vecs;
  return (double)rounded(s->m, k->variant[v].rows) * (double)rounded(s->n, k->variant[v].vecs * k->shape.width) *
         (1 + 0.5 * (rows + vecs) / (rows * vecs));
}

static uint32_t guess_variant(const dot_kernel *k, const dot_sizes *s) {
  if (k->variant[FEW].rows && s->m <= 2 * (int64_t)k->variant[FEW].rows) return FEW;
  uint32_t best = 0;
  for (uint32_t v = 1; v < FEW; v++)
    if (k->variant[v].rows && block_cost(k, s, v) < block_cost(k, s, best)) best = v;
  return best;
}

static void plan_block(const dot_kernel *k, const dot_sizes *s, uint32_t variant, int packed, dot_plan *p) {
  const uint64_t rows = k->variant[variant].rows, cols = k->variant[variant].vecs * k->shape.width;
  const uint64_t item = dot_acc_size(k);
  p->variant = variant;
  p->form = DOT_BLOCKS;
  /* B as it is: contiguous columns, and either a small matrix or too few rows to earn the packing back */
  const bool small = (uint64_t)s->k * (uint64_t)s->n * item <= (1u << 20) || s->m <= 32;
  p->pack_b = !k->direct || s->bcs != 1 || s->n < (int64_t)cols || (packed < 0 ? !small : packed);
  p->a = k->direct && s->acs == 1 ? DOT_ALONG : k->direct && s->ars == 1 && s->k <= SHORT ? DOT_ACROSS : DOT_PACKED;
  const uint64_t ni = ((uint64_t)s->m + rows - 1) / rows, nj = ((uint64_t)s->n + cols - 1) / cols;
  if (p->a == DOT_PACKED) p->a_bytes = ((uint64_t)s->batches * ni * rows * (uint64_t)s->k * item + 63) & ~(uint64_t)63;
  p->bytes = p->a_bytes;
  if (p->pack_b) p->bytes += (uint64_t)s->batches * nj * cols * (uint64_t)s->k * item;
}

static bool can_row(const dot_kernel *k, const dot_sizes *s) {
  return k->direct && ocl_is_float(k->shape.in) && s->acs == 1 && s->brs == 1;
}

static dot_form guess(tern_dev *dev, const dot_kernel *k, const dot_sizes *s) {
  const double work = (double)s->m * (double)s->n * (double)s->k;
  if (k->wanted == DOT_PLAIN) return DOT_PLAIN;
  const bool gpu = (dev->id->type & CL_DEVICE_TYPE_GPU) != 0;
  if ((k->wanted == DOT_CLBLAST || (k->wanted < 0 && gpu && work >= 256.0 * 256 * 256 && s->batches <= 64)) &&
      clblast_fits(s) && ocl_clblast_ready(dev, k->shape.in) == TERN_OK)
    return DOT_CLBLAST;
  if (k->shape.tiled && (k->wanted == DOT_TILED || (!k->blocks && work >= 4096))) return DOT_TILED;
  if (!k->blocks) return DOT_PLAIN;
  if (can_row(k, s) && (s->n < 8 || s->m < 4)) return DOT_ROW;
  return work < 4096 || (s->n < 8 && s->m < 8) ? DOT_PLAIN : DOT_BLOCKS;
}

bool dot_plan_form(tern_dev *dev, const dot_kernel *k, const dot_sizes *s, dot_form f, dot_plan *p) {
  *p = (dot_plan){.form = f, .c_at = UINT64_MAX};
  if (f == DOT_GUESS) p->form = guess(dev, k, s);
  if (p->form == DOT_TILED && !k->shape.tiled) return false;
  if (p->form == DOT_ROW && !(k->blocks && can_row(k, s))) return false;
  if (p->form == DOT_CLBLAST && !(clblast_fits(s) && ocl_clblast_ready(dev, k->shape.in) == TERN_OK)) return false;
  if (p->form >= DOT_BLOCKS) {
    const uint32_t code = (uint32_t)(f - DOT_BLOCKS), v = f == DOT_GUESS ? guess_variant(k, s) : code / 2;
    const int packed = f == DOT_GUESS ? -1 : (int)(code & 1);
    if (!k->blocks || v >= DOT_VARIANTS || !k->variant[v].rows) return false;
    plan_block(k, s, v, packed, p);
    if (packed >= 0 && p->pack_b != packed) return false; /* it is the other one of the pair */
  }
  const bool apart = k->shape.apart || p->form == DOT_CLBLAST;
  if (!k->shape.epilogue || (!apart && (p->form != DOT_BLOCKS || dot_pieces(k, s) == 1))) return true;
  p->c_at = (p->bytes + 63) & ~(uint64_t)63;
  p->bytes = p->c_at + (uint64_t)(s->batches * s->m * s->n) * (apart ? ocl_item_size(k->shape.out) : dot_acc_size(k));
  return true;
}

static dot_plan plan_of(tern_dev *dev, const dot_kernel *k, const dot_sizes *s) {
  dot_plan p;
  const dot_form f = k->wanted < 0 ? dot_tuned(dev, k, s) : DOT_GUESS;
  if (!dot_plan_form(dev, k, s, f, &p)) dot_plan_form(dev, k, s, DOT_GUESS, &p);
  return p;
}

static tern_rc dot_workspace(tern_dev *dev, const tern_kernel *head, const tern_word *words, uint64_t *bytes) {
  dot_kernel *k = (dot_kernel *)(uintptr_t)head;
  const dot_sizes s = sizes_of(k, words);
  const dot_plan p = plan_of(dev, k, &s);
  *bytes = p.bytes;
  if (!k->lazy || dev->collect) return TERN_OK;
  pthread_mutex_lock(
      &k->head.lock); /* sizes that are new may want another part: it is built before the queue is held */
  dot_plan_ready(dev, k, &p);
  pthread_mutex_unlock(&k->head.lock);
  return TERN_OK;
}

static tern_rc dot_launch(tern_dev *dev, tern_queue *q, tern_kernel *head, const tern_launch *l) {
  dot_kernel *k = (dot_kernel *)head;
  const dot_sizes s = sizes_of(k, l->words);
  const dot_plan p = plan_of(dev, k, &s);
  const tern_rc rc = ocl_check_launch(dev, l, k->n_args, p.bytes);
  return rc ? rc : dot_run(dev, q, k, l, &s, &p);
}

static void dot_destroy(tern_dev *dev, tern_kernel *head) {
  dot_kernel *k = (dot_kernel *)head;
  dot_end(dev, k);
  ocl_epilogue_end(&k->epilogue);
}

/* ---- from a region to a kernel ---- */

static int wanted_form(const tern_dev *dev) {
  const char *o = ocl_option(dev->drv, "gemm", "auto");
  return !strcmp(o, "plain")     ? DOT_PLAIN
         : !strcmp(o, "tiled")   ? DOT_TILED
         : !strcmp(o, "clblast") ? DOT_CLBLAST
         : !strcmp(o, "own")     ? DOT_BLOCKS
                                 : -1;
}

/* Register blocks, best first: as many accumulators as a CPU's registers hold beside an operand of each side (32
   vectors of 16 floats; or 16 that hold half of such a vector), for wide and for narrow results; the last has one
   row. */
static void variants_for(const tern_dev *dev, dot_kernel *k) {
  static const dot_block big[DOT_VARIANTS] = {{6, 4, DOT_ALONG}, {8, 3, DOT_ALONG}, {6, 2, DOT_ALONG},
                                              {8, 1, DOT_ALONG}, {4, 4, DOT_ALONG}, {1, 4, DOT_ALONG}};
  static const dot_block less[DOT_VARIANTS] = {{6, 1, DOT_ALONG}, {3, 2, DOT_ALONG}, {4, 1, DOT_ALONG},
                                               {0, 0, DOT_ALONG}, {0, 0, DOT_ALONG}, {1, 4, DOT_ALONG}};
  memcpy(k->variant, dev->id->float_width >= 16 ? big : less, sizeof k->variant);
  if (!k->direct) k->variant[FEW].rows = 0; /* packing costs more than it saves */
}

/* A tile: the largest square of work-items up to 16 x 16 that the device runs. */
static dot_shape shape_for(const tern_dev *dev, const tern_region *r, const tern_value *v[3]) {
  const uint32_t acc = ocl_item_size(v[2]->dtype) == 8 ? 8 : 4;
  dot_shape s = {.in = v[0]->dtype, .out = v[2]->dtype, .batch = v[2]->rank - 2, .idx32 = r->flags & TERN_R_IDX32};
  s.width = acc == 8 ? 8 : 16;
  s.side = dev->id->max_group >= 256 ? 16 : dev->id->max_group >= 64 ? 8 : 4;
  s.span = s.side * 4;
  s.depth = 16;
  s.tiled = dev->id->max_group >= (size_t)s.side * s.side && dev->id->local_mem >= 2u * s.depth * (s.span + 1) * acc;
  return s;
}

/* Where the parts are not registered one by one as they are needed */
static tern_rc one_ready(tern_dev *dev, tern_kernel *head) {
  dot_kernel *k = (dot_kernel *)head;
  tern_rc rc = ocl_kernel_new(dev, head->section, "dot_plain", &k->part[DOT_PART_ONE]);
  if (!rc && k->shape.finish) rc = ocl_kernel_new(dev, head->section, "finish", &k->epilogue.finish);
  if (!rc && k->shape.tiled) rc = ocl_kernel_new(dev, head->section, "dot_tiled", &k->tiled);
  return rc;
}

/* A kernel with its section, or, where that comes later, without. */
static tern_rc dot_alloc(tern_dev *dev, const dot_shape *shape, bool lazy, tern_kernel **out) {
  if (lazy) {
    dot_kernel *k = calloc(1, sizeof *k);
    if (!k) return ocl_error(dev->drv, dev->id, TERN_E_OOM, "no memory for a kernel");
    pthread_mutex_init(&k->head.lock, NULL);
    k->head.ready = dot_registered_ready;
    *out = &k->head;
    return TERN_OK;
  }
  ocl_text text = {0};
  dot_text(&text, dev, shape, NULL, DOT_PART_ONE);
  const tern_rc rc = text.failed ? ocl_error(dev->drv, dev->id, TERN_E_OOM, "no memory for the text of DOT")
                                 : ocl_kernel_alloc(dev, sizeof(dot_kernel), text.s, "DOT", out);
  free(text.s);
  if (!rc) (*out)->ready = one_ready;
  return rc;
}

/* Sizes that are known now: so is the form, and what it needs can be built with what else is pending. */
static tern_rc register_known(tern_dev *dev, dot_kernel *k) {
  const tern_value *const v[] = {&k->a, &k->b, &k->c};
  for (uint32_t i = 0; i < 3; i++)
    for (uint32_t d = 0; d < k->rank; d++)
      if (TERN_IS_SYM(v[i]->shape[d]) || (!(k->shape.epilogue && i == 2) && TERN_IS_SYM(v[i]->stride[d])))
        return TERN_OK;
  const dot_sizes s = sizes_of(k, NULL);
  const dot_plan p = plan_of(dev, k, &s);
  return dot_register(dev, k, &p);
}

tern_rc ocl_dot_compile(tern_dev *dev, const tern_region *r, tern_kernel **out, tern_kernel_info *info) {
  const tern_value *v[3];
  render_epilogue *e = NULL;
  tern_rc rc = dot_values(dev, r, v, &e);
  if (rc) return rc;
  const int wanted = wanted_form(dev);
  const bool cpu = ocl_is_cpu(dev->id);
  const bool lazy = cpu && dev->id->compiler && !dev->id->bundled;
  dot_shape shape = shape_for(dev, r, v);
  shape.epilogue = e;
  shape.apart = e && (e->in_place || e->n_full > OCL_EPILOGUE_ARRAYS);
  shape.finish = e && (shape.apart || shape.in == TERN_F32 || shape.in == TERN_F64);
  tern_kernel *head = NULL;
  rc = dot_alloc(dev, &shape, lazy, &head);
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
  k->direct = shape.in == TERN_F32 || shape.in == TERN_F64 ||
              (shape.in == shape.out && !ocl_is_float(shape.in) && ocl_item_size(shape.in) >= 4);
  k->adds = dot_adds_to_result(&shape);
  k->lazy = lazy;
  k->blocks = cpu && lazy && wanted != DOT_TILED;
  k->wanted = wanted;
  variants_for(dev, k);
  rc = ocl_epilogue_init(dev, &k->epilogue, e);
  if (!rc && k->lazy) rc = register_known(dev, k);
  if (rc) {
    ocl_kernel_free(dev, head);
    return rc;
  }
  if (info) info->workspace = UINT64_MAX;
  *out = head;
  return TERN_OK;
}
