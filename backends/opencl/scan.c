/* CUMSUM, CUMPROD, CUMMAX, CUMMIN along one dim. Many rows: a work-item a row. Few long rows: chunks of a fixed
   length are folded, their totals are scanned, and each chunk is scanned again from its start value: chunk borders
   depend on sizes only. */
#include "ocl.h"

#include <stdlib.h>

enum { SCAN_LOCAL = 16, SCAN_CHUNK = 2048, SCAN_FEW_ROWS = 256 };

typedef struct scan_kernel {
  tern_kernel head;
  tern_value in, out;
  uint32_t n_args, rank, dim, acc; /* acc: bytes of the accumulator */
  int64_t flags;
  cl_kernel fold, spine, apply;
} scan_kernel;

static bool scan_values(const tern_region *r, const tern_value *v[3], uint32_t *op) {
  if (r->n_nodes != 1 || r->nodes[0].n_attr < 2) return false;
  *op = r->nodes[0].op;
  if (*op < TERN_OP_CUMSUM || *op > TERN_OP_CUMMIN || !ocl_single(r, *op, 1, v)) return false;
  const int64_t dim = r->attrs[r->nodes[0].attr].i, flags = r->attrs[r->nodes[0].attr + 1].i;
  const bool extreme = *op >= TERN_OP_CUMMAX;
  return v[0]->dtype == v[1]->dtype && v[0]->rank == v[1]->rank && v[0]->rank >= 1 && dim >= 0 && dim < v[0]->rank &&
         !(flags & ~(int64_t)3) && !(extreme && (flags & 1)) && (extreme || v[0]->dtype != TERN_BOOL);
}

tern_rc ocl_scan_supports(tern_dev *dev, const tern_region *r) {
  const tern_value *v[3];
  uint32_t op;
  (void)dev;
  return scan_values(r, v, &op) ? TERN_OK : TERN_E_UNSUPPORTED;
}

/* Integers accumulate unsigned (they wrap); float32 sums in float64 where the device has it. */
static const char *acc_type(const tern_dev *dev, uint32_t op, uint32_t dtype) {
  if (op >= TERN_OP_CUMMAX) return ocl_compute(dtype);
  if (ocl_is_float(dtype)) return dev->id->fp64 ? "double" : "float";
  return ocl_item_size(dtype) == 8 ? "ulong" : "uint";
}

static uint32_t acc_bytes(const tern_dev *dev, uint32_t op, uint32_t dtype) {
  if (op >= TERN_OP_CUMMAX) return ocl_is_float(dtype) && dtype != TERN_F64 ? 4 : ocl_item_size(dtype);
  if (ocl_is_float(dtype)) return dev->id->fp64 ? 8 : 4;
  return ocl_item_size(dtype) == 8 ? 8 : 4;
}

/* Head of scan_fold and scan_apply, up to the start of the chunk: X (and Y) point at the row, [lo, hi) is the chunk. */
static void scan_head(ocl_text *t, bool apply, uint32_t rank) {
  ocl_add(t, "__kernel __attribute__((reqd_work_group_size(%d, 1, 1)))\n", SCAN_LOCAL);
  ocl_add(t,
          "void scan_%s(__global const V_T *X, long x0, __global V_T *Y, long y0, __global acc_t *W, long w0, long "
          "rows, long L,\n"
          "  long chunk, long chunks, long flags, long xs, long ys",
          apply ? "apply" : "fold");
  for (uint32_t d = 0; d + 1 < rank; d++) ocl_add(t, ", long n%u, long xs%u, long ys%u", d, d, d);
  ocl_add(t, ") {\n"
             "  const ulong id = get_global_id(0);\n"
             "  if (id >= (ulong)rows * (ulong)chunks) return;\n"
             "  const ix part = (ix)(id %% (ulong)chunks);\n"
             "  ix rest = (ix)(id / (ulong)chunks), e;\n"
             "  X += x0; Y += y0; W += w0 + (ix)id;\n");
  for (uint32_t d = rank - 1; d-- > 0;)
    ocl_add(t, "  e = rest %% (ix)n%u; rest /= (ix)n%u; X += e * (ix)xs%u; Y += e * (ix)ys%u;\n", d, d, d, d);
  ocl_add(t, "  const ix lo = part * (ix)chunk, hi = min(lo + (ix)chunk, (ix)L);\n");
}

static void fold_text(ocl_text *t, uint32_t op, uint32_t dtype) {
  if (op == TERN_OP_CUMSUM || op == TERN_OP_CUMPROD)
    ocl_add(t, "acc_t fold(acc_t a, acc_t x) { return a %s x; }\n", op == TERN_OP_CUMSUM ? "+" : "*");
  else /* a NaN stays */
    ocl_add(t, "acc_t fold(acc_t a, acc_t x) { return %sa %s x ? a : x; }\n", ocl_is_float(dtype) ? "isnan(a) || " : "",
            op == TERN_OP_CUMMAX ? ">" : "<");
}

static void scan_text(ocl_text *t, const tern_dev *dev, uint32_t op, uint32_t dtype, uint32_t rank, bool idx32) {
  const bool extreme = op >= TERN_OP_CUMMAX; /* starts with an element, which changes nothing when it is met again */
  const char *start = op == TERN_OP_CUMSUM ? "0" : op == TERN_OP_CUMPROD ? "1" : "(acc_t)V_LD(X, AT(lo) * (ix)xs)";
  ocl_add_prelude(t, dev, idx32);
  ocl_add_dtype(t, "V", dtype);
  ocl_add(t, "typedef %s acc_t;\n", acc_type(dev, op, dtype));
  fold_text(t, op, dtype);
  ocl_add(t, "#define AT(i) ((flags & 2) ? (ix)L - 1 - (i) : (i))\n"); /* element i of a row, or i from the end */
  scan_head(t, false, rank);
  ocl_add(t,
          "  acc_t a = %s;\n"
          "  for (ix i = lo; i < hi; i++) a = fold(a, (acc_t)V_LD(X, AT(i) * (ix)xs));\n"
          "  *W = a;\n}\n",
          start);
  scan_head(t, true, rank);
  ocl_add(t,
          "  acc_t a = %s;\n"
          "  if (part) a = %s;\n"
          "  for (ix i = lo; i < hi; i++) {\n"
          "    const acc_t next = fold(a, (acc_t)V_LD(X, AT(i) * (ix)xs));\n"
          "    V_ST(Y, AT(i) * (ix)ys, (V_C)((flags & 1) ? a : next));\n"
          "    a = next;\n"
          "  }\n}\n",
          start, extreme ? "fold(W[-1], a)" : "W[-1]");
  ocl_add(t, "__kernel __attribute__((reqd_work_group_size(1, 1, 1)))\n"
             "void scan_spine(__global acc_t *W, long w0, long chunks) {\n"
             "  W += w0 + (ix)get_global_id(0) * (ix)chunks;\n"
             "  for (ix i = 1; i < (ix)chunks; i++) W[i] = fold(W[i - 1], W[i]);\n"
             "}\n");
}

typedef struct scan_sizes {
  int64_t rows, length, chunk, chunks;
} scan_sizes;

static scan_sizes scan_sizes_of(const scan_kernel *k, const tern_word *w) {
  scan_sizes s = {.rows = 1};
  for (uint32_t d = 0; d < k->rank; d++) {
    const int64_t n = TERN_LIT(k->out.shape[d], w);
    if (d == k->dim)
      s.length = n;
    else
      s.rows *= n;
  }
  const bool split = s.rows < SCAN_FEW_ROWS && s.length >= 4 * SCAN_CHUNK;
  const int64_t most =
      (s.length + 1023) / 1024; /* the totals of a row are scanned by one work-item: at most 1024 of them */
  s.chunk = !split ? s.length : most > SCAN_CHUNK ? most : SCAN_CHUNK;
  s.chunks = (s.length + s.chunk - 1) / s.chunk;
  return s;
}

static uint64_t scan_bytes(const scan_kernel *k, const scan_sizes *s) {
  return s->chunks > 1 ? (uint64_t)s->rows * (uint64_t)s->chunks * k->acc : 0;
}

static tern_rc scan_workspace(tern_dev *dev, const tern_kernel *head, const tern_word *words, uint64_t *bytes) {
  const scan_kernel *k = (const scan_kernel *)head;
  const scan_sizes s = scan_sizes_of(k, words);
  (void)dev;
  *bytes = scan_bytes(k, &s);
  return TERN_OK;
}

static tern_rc scan_pass(tern_dev *dev, tern_queue *q, const scan_kernel *k, const tern_launch *l, const scan_sizes *s,
                         cl_kernel kernel) {
  const tern_word *w = l->words;
  const uint32_t item = ocl_item_size(k->in.dtype);
  ocl_call c = ocl_call_of(q, kernel);
  ocl_arg_at(&c, &l->args[k->in.slot], item);
  ocl_arg_at(&c, &l->args[k->out.slot], item);
  ocl_arg_at(&c, s->chunks > 1 ? &l->workspace : &l->args[k->out.slot], s->chunks > 1 ? k->acc : item);
  const int64_t words[] = {s->rows,
                           s->length,
                           s->chunk,
                           s->chunks,
                           k->flags,
                           TERN_LIT(k->in.stride[k->dim], w),
                           TERN_LIT(k->out.stride[k->dim], w)};
  for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) ocl_arg_long(&c, words[i]);
  for (uint32_t d = 0; d < k->rank; d++) {
    if (d == k->dim) continue;
    ocl_arg_long(&c, TERN_LIT(k->out.shape[d], w));
    ocl_arg_long(&c, k->in.shape[d] == 1 ? 0 : TERN_LIT(k->in.stride[d], w));
    ocl_arg_long(&c, TERN_LIT(k->out.stride[d], w));
  }
  return ocl_run1(dev, q, &c, "a cumulative op", (uint64_t)s->rows * (uint64_t)s->chunks, SCAN_LOCAL);
}

static tern_rc scan_launch(tern_dev *dev, tern_queue *q, tern_kernel *head, const tern_launch *l) {
  const scan_kernel *k = (const scan_kernel *)head;
  const scan_sizes s = scan_sizes_of(k, l->words);
  tern_rc rc = ocl_check_launch(dev, l, k->n_args, scan_bytes(k, &s));
  if (!rc && s.chunks > 1) {
    rc = scan_pass(dev, q, k, l, &s, k->fold);
    if (rc) return rc;
    ocl_call c = ocl_call_of(q, k->spine);
    ocl_arg_at(&c, &l->workspace, k->acc);
    ocl_arg_long(&c, s.chunks);
    rc = ocl_run1(dev, q, &c, "a cumulative op", (uint64_t)s.rows, 1);
  }
  return rc ? rc : scan_pass(dev, q, k, l, &s, k->apply);
}

static void scan_destroy(tern_dev *dev, tern_kernel *head) {
  scan_kernel *k = (scan_kernel *)head;
  (void)dev;
  if (k->fold) clReleaseKernel(k->fold);
  if (k->spine) clReleaseKernel(k->spine);
  if (k->apply) clReleaseKernel(k->apply);
}

static tern_rc scan_ready(tern_dev *dev, tern_kernel *head) {
  scan_kernel *k = (scan_kernel *)head;
  tern_rc rc = ocl_kernel_new(dev, head->section, "scan_fold", &k->fold);
  if (!rc) rc = ocl_kernel_new(dev, head->section, "scan_spine", &k->spine);
  return rc ? rc : ocl_kernel_new(dev, head->section, "scan_apply", &k->apply);
}

tern_rc ocl_scan_compile(tern_dev *dev, const tern_region *r, tern_kernel **out, tern_kernel_info *info) {
  const tern_value *v[3];
  uint32_t op;
  if (!scan_values(r, v, &op)) return TERN_E_UNSUPPORTED;
  ocl_text text = {0};
  scan_text(&text, dev, op, v[0]->dtype, v[0]->rank, r->flags & TERN_R_IDX32);
  tern_kernel *head = NULL;
  tern_rc rc = text.failed ? ocl_error(dev->drv, dev->id, TERN_E_OOM, "no memory for the text of a cumulative op")
                           : ocl_kernel_alloc(dev, sizeof(scan_kernel), text.s, "a cumulative op", &head);
  free(text.s);
  if (rc) return rc;
  scan_kernel *k = (scan_kernel *)head;
  k->head.ready = scan_ready;
  k->head.launch = scan_launch;
  k->head.workspace = scan_workspace;
  k->head.destroy = scan_destroy;
  k->in = *v[0], k->out = *v[1];
  k->n_args = r->n_args;
  k->rank = v[0]->rank;
  k->dim = (uint32_t)r->attrs[r->nodes[0].attr].i;
  k->flags = r->attrs[r->nodes[0].attr + 1].i;
  k->acc = acc_bytes(dev, op, v[0]->dtype);
  if (info) info->workspace = UINT64_MAX;
  *out = head;
  return TERN_OK;
}
