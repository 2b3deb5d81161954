/* The forms of DOT beside each other: the class of a product, and the time of one form over buffers of its own, so that
   a measurement reads and writes nothing of the user's. */
#include "dot.h"
#include "tune.h"

#include <stdio.h>
#include <string.h>

enum { SMALL = 512 }; /* multiply-adds: fewer are not worth a measurement */

static int side(int64_t inner, int64_t outer) { return inner == 1 ? 0 : outer == 1 ? 1 : 2; }

static uint64_t class_of(const dot_kernel *k, const dot_sizes *s) {
  const int layout = side(s->acs, s->ars) * 9 + side(s->bcs, s->brs) * 3 + side(s->ccs, s->crs);
  const uint32_t kind = TERN_OP_DOT << 16 | k->shape.in << 11 | k->shape.out << 6 | (uint32_t)layout;
  const int64_t sizes[] = {s->m, s->n, s->k, s->batches};
  return ocl_tune_class(kind, sizes, 4);
}

/* ---- one form, timed ---- */

typedef struct trial {
  tern_dev *dev;
  dot_kernel *k; /* a copy without epilogue */
  const dot_sizes *s;
  tern_mem *mem[3], *workspace;
  bool failed;
  char name[64];
} trial;

/* Elements from the first to the last */
static int64_t extent(const dot_sizes *s, const dot_kernel *k, int which) {
  const int64_t rows = which == 1 ? s->k : s->m, cols = which == 0 ? s->k : s->n;
  const int64_t rs = which == 0 ? s->ars : which == 1 ? s->brs : s->crs;
  const int64_t cs = which == 0 ? s->acs : which == 1 ? s->bcs : s->ccs;
  int64_t last = (rows - 1) * rs + (cols - 1) * cs;
  for (uint32_t d = 0; d < k->shape.batch; d++) last += (s->bsize[d] - 1) * s->stride[which][d];
  return last + 1;
}

static bool forward(const dot_sizes *s, const dot_kernel *k) {
  bool ok = s->m > 0 && s->n > 0 && s->k > 0 && s->batches > 0 && s->ars >= 0 && s->acs >= 0 && s->brs >= 0 &&
            s->bcs >= 0 && s->crs >= 0 && s->ccs >= 0;
  for (uint32_t d = 0; d < k->shape.batch; d++)
    for (int i = 0; i < 3; i++) ok &= s->stride[i][d] >= 0;
  return ok;
}

static bool buffers(trial *t) {
  static const uint8_t small[4] = {0x3d, 0x3d, 0x3d, 0x3d}; /* a plain number in every dtype */
  for (int i = 0; i < 3; i++) {
    const uint64_t bytes = (uint64_t)extent(t->s, t->k, i) * ocl_item_size(i < 2 ? t->k->shape.in : t->k->shape.out);
    const tern_mem_desc want = {.size = (bytes + 63) & ~(uint64_t)63};
    if (ocl_mem_alloc(t->dev, &want, &t->mem[i])) return false;
    if (clEnqueueFillBuffer(t->dev->aux, t->mem[i]->buffer, small, sizeof small, 0, (size_t)want.size, 0, NULL, NULL))
      return false;
  }
  return ocl_finish(t->dev, t->dev->aux) == CL_SUCCESS;
}

static double time_of(void *context, tern_queue *q, uint32_t form, int runs) {
  trial *t = context;
  dot_plan p;
  if (t->failed || !dot_plan_form(t->dev, t->k, t->s, (dot_form)form, &p)) return -1;
  if (p.bytes && (!t->workspace || t->workspace->size < p.bytes)) {
    const tern_mem_desc want = {.size = p.bytes};
    ocl_mem_free(t->dev, t->workspace);
    t->workspace = NULL;
    if (ocl_mem_alloc(t->dev, &want, &t->workspace)) return -1;
  }
  tern_arg args[3] = {{t->mem[0], 0}, {t->mem[1], 0}, {t->mem[2], 0}};
  const tern_launch l = {.args = args, .n_args = 3, .workspace = {t->workspace, 0}};
  ocl_finish(t->dev, q->q);
  const int64_t start = ocl_now();
  for (int i = 0; i < runs; i++)
    if (dot_run(t->dev, q, t->k, &l, t->s, &p)) {
      ocl_finish(t->dev, q->q); /* the buffers are freed soon */
      return -1;
    }
  return ocl_finish(t->dev, q->q) == CL_SUCCESS ? 1e-9 * (double)(ocl_now() - start) / runs : -1;
}

static const char *name_of(void *context, uint32_t form) {
  static const char *const names[] = {"guess", "plain", "row", "tiled", "CLBlast"};
  trial *t = context;
  if (form < DOT_BLOCKS) return names[form];
  const dot_block *b = &t->k->variant[(form - DOT_BLOCKS) / 2];
  snprintf(t->name, sizeof t->name, "block %ux%u%s", b->rows, b->vecs * t->k->shape.width,
           (form - DOT_BLOCKS) & 1 ? ", packed" : "");
  return t->name;
}

/* Forms that may be best: not one result a work-item where there is much to do. */
static uint64_t forms_of(tern_dev *dev, const dot_kernel *k, const dot_sizes *s) {
  const double work = (double)s->m * (double)s->n * (double)s->k * (double)s->batches;
  uint64_t mask = 0;
  for (uint32_t f = DOT_BLOCKS; f < DOT_FORMS && k->blocks; f++) mask |= UINT64_C(1) << f;
  if (work < 1e6 || !k->blocks) mask |= 1u << DOT_PLAIN;
  if (s->m <= 16 || s->n <= 16) mask |= 1u << DOT_ROW;
  if (!k->blocks) mask |= 1u << DOT_TILED;
  if (ocl_tune_mode_of(dev) >= OCL_TUNE_ALL && work >= 1e6) mask |= 1u << DOT_CLBLAST;
  return mask;
}

static dot_form measure(tern_dev *dev, const dot_kernel *k, const dot_sizes *s, uint64_t class) {
  dot_kernel copy = *k;
  memset(&copy.epilogue, 0, sizeof copy.epilogue);
  memset(copy.section, 0, sizeof copy.section);
  memset(copy.part, 0, sizeof copy.part);
  copy.tiled = NULL;
  copy.shape.epilogue = NULL;
  copy.shape.apart = copy.shape.finish = false;
  copy.lazy = true; /* parts of its own */
  copy.a.slot = 0, copy.b.slot = 1, copy.c.slot = 2;
  copy.n_args = 3;
  trial t = {.dev = dev, .k = &copy, .s = s};
  char what[120];
  snprintf(what, sizeof what, "DOT %s %lld x %lld x %lld (%lld)", ocl_dtype_name(k->shape.in), (long long)s->m,
           (long long)s->n, (long long)s->k, (long long)s->batches);
  t.failed = !buffers(&t);
  dot_plan rule;
  dot_plan_form(dev, &copy, s, DOT_GUESS, &rule);
  const uint32_t guess = rule.form == DOT_BLOCKS ? DOT_BLOCKS + 2 * rule.variant + rule.pack_b : rule.form;
  const ocl_tune_how how = {
      .mask = forms_of(dev, k, s), .guess = guess, .time = time_of, .name = name_of, .context = &t, .what = what};
  const uint32_t form = ocl_tune_measure(dev, class, &how);
  dot_end(dev, &copy);
  for (int i = 0; i < 3; i++) ocl_mem_free(dev, t.mem[i]);
  ocl_mem_free(dev, t.workspace);
  return (dot_form)form;
}

dot_form dot_tuned(tern_dev *dev, const dot_kernel *k, const dot_sizes *s) {
  if (dev->id->bundled || !dev->id->compiler || (double)s->m * (double)s->n * (double)s->k < SMALL) return DOT_GUESS;
  const uint64_t class = class_of(k, s);
  bool known;
  const uint32_t form = ocl_tune_find(dev, class, &known);
  if (known) return (dot_form)form;
  if (ocl_tune_mode_of(dev) < OCL_TUNE_OWN || !forward(s, k)) return (dot_form)ocl_tune_pin(dev, class);
  return measure(dev, k, s, class);
}
