/* SORT and ARGSORT along the last dim, stable: keys become unsigned integers whose order is the wanted one (NaN last,
   or first when descending), each with its index. Work-items sort short blocks; then every pass merges pairs of
   blocks, each work-item one piece of the result, whose start it finds by bisection (merge path: Odeh, Green, Mwassi,
   Shmueli, Birk, 2012). */
#include "ocl.h"

#include <stdlib.h>

enum { SORT_LOCAL = 16, SORT_BLOCK = 32, SORT_PIECE = 256 };

typedef struct sort_kernel {
  tern_kernel head;
  tern_value in, out;
  uint32_t n_args, rank, key; /* key: bytes */
  bool descending;
  cl_kernel blocks, merge, store;
} sort_kernel;

static bool sort_values(const tern_region *r, const tern_value *v[3], bool *arg, bool *descending) {
  if (r->n_nodes != 1 || r->nodes[0].n_attr < 1) return false;
  const uint32_t op = r->nodes[0].op;
  if ((op != TERN_OP_SORT && op != TERN_OP_ARGSORT) || !ocl_single(r, op, 1, v)) return false;
  const int64_t flags = r->attrs[r->nodes[0].attr].i;
  *arg = op == TERN_OP_ARGSORT;
  *descending = flags & 1;
  return !(flags & ~(int64_t)1) && v[0]->rank == v[1]->rank && v[0]->rank >= 1 && v[1]->alias < 0 &&
         v[1]->dtype == (*arg ? TERN_I64 : v[0]->dtype);
}

tern_rc ocl_sort_supports(tern_dev *dev, const tern_region *r) {
  const tern_value *v[3];
  bool arg, descending;
  (void)dev;
  return sort_values(r, v, &arg, &descending) ? TERN_OK : TERN_E_UNSUPPORTED;
}

/* key_of(x): unsigned, equal for equal values (-0 and 0, any two NaN), ascending in the order of SORT. */
static void key_text(ocl_text *t, uint32_t dtype, bool descending) {
  const bool wide = ocl_item_size(dtype) == 8;
  ocl_add(t, "typedef %s key_t;\nkey_t key_of(V_C x) {\n", wide ? "ulong" : "uint");
  if (dtype == TERN_F64)
    ocl_add(t,
            "  if (isnan(x)) return %s;\n"
            "  const ulong u = as_ulong(x == 0 ? 0.0 : x), k = (u >> 63) ? ~u : u | 0x8000000000000000ul;\n",
            descending ? "0" : "~0ul");
  else if (ocl_is_float(dtype))
    ocl_add(t,
            "  if (isnan(x)) return %s;\n"
            "  const uint u = as_uint(x == 0 ? 0.0f : x), k = (u >> 31) ? ~u : u | 0x80000000u;\n",
            descending ? "0" : "~0u");
  else if (dtype >= TERN_I8 && dtype <= TERN_I64)
    ocl_add(t, wide ? "  const key_t k = (ulong)x ^ 0x8000000000000000ul;\n"
                    : "  const key_t k = (uint)(int)x ^ 0x80000000u;\n");
  else
    ocl_add(t, "  const key_t k = x;\n");
  ocl_add(t, "  return %sk;\n}\n", descending ? "~" : "");
}

static void row_args(ocl_text *t, uint32_t rank) {
  for (uint32_t d = 0; d + 1 < rank; d++) ocl_add(t, ", long n%u, long s%u%s", d, d, "");
}
static void row_offset(ocl_text *t, uint32_t rank, const char *pointer) {
  ocl_add(t, "  ix rest = row, e;\n");
  for (uint32_t d = rank - 1; d-- > 0;)
    ocl_add(t, "  e = rest %% (ix)n%u; rest /= (ix)n%u; %s += e * (ix)s%u;\n", d, d, pointer, d);
}

static void sort_text(ocl_text *t, const tern_dev *dev, const tern_value *v[3], bool arg, bool descending, bool idx32) {
  const uint32_t rank = v[0]->rank;
  ocl_add_prelude(t, dev, idx32);
  ocl_add_dtype(t, "V", v[0]->dtype);
  key_text(t, v[0]->dtype, descending);
  /* blocks: keys and indices of one block, by insertion, into K and P ([rows][L] each) */
  ocl_add(t,
          "__kernel __attribute__((reqd_work_group_size(%d, 1, 1)))\n"
          "void sort_blocks(__global const V_T *X, long x0, __global key_t *K, long k0, __global uint *P, long p0, "
          "long items,\n"
          "  long L, long blocks, long xs",
          SORT_LOCAL);
  row_args(t, rank);
  ocl_add(t,
          ") {\n  const ulong id = get_global_id(0);\n  if (id >= (ulong)items) return;\n"
          "  const ix row = (ix)(id / (ulong)blocks), lo = (ix)(id %% (ulong)blocks) * %d, hi = min(lo + %d, (ix)L);\n"
          "  X += x0; K += k0 + row * (ix)L; P += p0 + row * (ix)L;\n",
          SORT_BLOCK, SORT_BLOCK);
  row_offset(t, rank, "X");
  ocl_add(t, "  for (ix i = lo; i < hi; i++) {\n"
             "    const key_t k = key_of(V_LD(X, i * (ix)xs));\n"
             "    ix j = i;\n"
             "    for (; j > lo && K[j - 1] > k; j--) { K[j] = K[j - 1]; P[j] = P[j - 1]; }\n"
             "    K[j] = k; P[j] = (uint)i;\n"
             "  }\n}\n");
  /* merge: blocks of `width` in K, P, pairwise, into Q, R; of equal keys the left one goes first */
  ocl_add(
      t,
      "__kernel __attribute__((reqd_work_group_size(%d, 1, 1)))\n"
      "void sort_merge(__global const key_t *K, long k0, __global const uint *P, long p0, __global key_t *Q, long q0,\n"
      "  __global uint *R, long r0, long items, long L, long pieces, long width) {\n"
      "  const ulong id = get_global_id(0);\n  if (id >= (ulong)items) return;\n"
      "  const ix at = (ix)(id / (ulong)pieces) * (ix)L, from = (ix)(id %% (ulong)pieces) * %d;\n"
      "  K += k0 + at; P += p0 + at; Q += q0 + at; R += r0 + at;\n",
      SORT_LOCAL, SORT_PIECE);
  ocl_add(t,
          "  for (ix done = from; done < min(from + %d, (ix)L);) {\n"
          "    const ix base = done - done %% (2 * (ix)width), mid = min(base + (ix)width, (ix)L), end = min(base + 2 "
          "* (ix)width, (ix)L);\n"
          "    const ix stop = min(end, min(from + %d, (ix)L)), want = done - base;\n"
          "    ix lo = max((ix)0, want - (end - mid)), hi = min(want, mid - base);\n"
          "    while (lo < hi) { /* how many of the first `want` come from the left block */\n"
          "      const ix a = (lo + hi) / 2;\n"
          "      if (K[mid + want - a - 1] >= K[base + a]) lo = a + 1; else hi = a;\n"
          "    }\n"
          "    ix a = base + lo, b = mid + want - lo;\n"
          "    for (; done < stop; done++) {\n"
          "      const bool left = a < mid && (b >= end || K[a] <= K[b]);\n"
          "      const ix take = left ? a++ : b++;\n"
          "      Q[done] = K[take]; R[done] = P[take];\n"
          "    }\n"
          "  }\n}\n",
          SORT_PIECE, SORT_PIECE);
  /* store: the values in order, or the indices */
  ocl_add(t,
          "__kernel __attribute__((reqd_work_group_size(64, 1, 1)))\n"
          "void sort_store(__global const V_T *X, long x0, __global %s *Y, long y0, __global const uint *P, long p0, "
          "long items,\n"
          "  long L, long xs, long ys",
          arg ? "long" : "V_T");
  for (uint32_t d = 0; d + 1 < rank; d++) ocl_add(t, ", long n%u, long xs%u, long ys%u", d, d, d);
  ocl_add(t, ") {\n  const ulong id = get_global_id(0);\n  if (id >= (ulong)items) return;\n"
             "  const ix row = (ix)(id / (ulong)L), i = (ix)(id %% (ulong)L);\n"
             "  ix rest = row, e;\n  X += x0; Y += y0;\n");
  for (uint32_t d = rank - 1; d-- > 0;)
    ocl_add(t, "  e = rest %% (ix)n%u; rest /= (ix)n%u; X += e * (ix)xs%u; Y += e * (ix)ys%u;\n", d, d, d, d);
  ocl_add(t, "  const ix p = (ix)P[p0 + (ix)id];\n");
  if (arg)
    ocl_add(t, "  Y[i * (ix)ys] = (long)p;\n}\n");
  else if (v[0]->dtype == TERN_F16)
    ocl_add(t, "  ((__global ushort *)Y)[i * (ix)ys] = ((__global const ushort *)X)[p * (ix)xs];\n}\n");
  else
    ocl_add(t, "  Y[i * (ix)ys] = X[p * (ix)xs];\n}\n");
}

typedef struct sort_sizes {
  int64_t rows, length;
  uint64_t keys, half; /* bytes of one set of keys (64-byte multiple); of keys and indices */
} sort_sizes;

static sort_sizes sort_sizes_of(const sort_kernel *k, const tern_word *w) {
  sort_sizes s = {.rows = 1, .length = TERN_LIT(k->out.shape[k->rank - 1], w)};
  for (uint32_t d = 0; d + 1 < k->rank; d++) s.rows *= TERN_LIT(k->out.shape[d], w);
  const uint64_t n = (uint64_t)s.rows * (uint64_t)s.length;
  s.keys = (n * k->key + 63) & ~(uint64_t)63;
  s.half = s.keys + ((n * 4 + 63) & ~(uint64_t)63);
  return s;
}

static tern_rc sort_workspace(tern_dev *dev, const tern_kernel *head, const tern_word *words, uint64_t *bytes) {
  const sort_kernel *k = (const sort_kernel *)head;
  const sort_sizes s = sort_sizes_of(k, words);
  (void)dev;
  *bytes = s.length > SORT_BLOCK ? 2 * s.half : s.half;
  return TERN_OK;
}

/* Keys, then indices, of half `h` of the workspace. */
static void arg_half(ocl_call *c, const tern_launch *l, const sort_kernel *k, const sort_sizes *s, uint32_t h) {
  const uint64_t at = l->workspace.offset + h * s->half;
  ocl_arg_mem(c, l->workspace.mem->buffer);
  ocl_arg_long(c, (int64_t)(at / k->key));
  ocl_arg_mem(c, l->workspace.mem->buffer);
  ocl_arg_long(c, (int64_t)((at + s->keys) / 4));
}

static tern_rc run_blocks(tern_dev *dev, tern_queue *q, const sort_kernel *k, const tern_launch *l,
                          const sort_sizes *s) {
  const tern_word *w = l->words;
  ocl_call c = ocl_call_of(q, k->blocks);
  ocl_arg_at(&c, &l->args[k->in.slot], ocl_item_size(k->in.dtype));
  arg_half(&c, l, k, s, 0);
  const int64_t blocks = (s->length + SORT_BLOCK - 1) / SORT_BLOCK;
  ocl_arg_long(&c, s->rows * blocks);
  ocl_arg_long(&c, s->length);
  ocl_arg_long(&c, blocks);
  ocl_arg_long(&c, TERN_LIT(k->in.stride[k->rank - 1], w));
  for (uint32_t d = 0; d + 1 < k->rank; d++) {
    ocl_arg_long(&c, TERN_LIT(k->out.shape[d], w));
    ocl_arg_long(&c, k->in.shape[d] == 1 ? 0 : TERN_LIT(k->in.stride[d], w));
  }
  return ocl_run1(dev, q, &c, "SORT", (uint64_t)(s->rows * blocks), SORT_LOCAL);
}

static tern_rc run_merge(tern_dev *dev, tern_queue *q, const sort_kernel *k, const tern_launch *l, const sort_sizes *s,
                         uint32_t from, int64_t width) {
  ocl_call c = ocl_call_of(q, k->merge);
  arg_half(&c, l, k, s, from);
  arg_half(&c, l, k, s, !from);
  const int64_t pieces = (s->length + SORT_PIECE - 1) / SORT_PIECE;
  const int64_t words[] = {s->rows * pieces, s->length, pieces, width};
  for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) ocl_arg_long(&c, words[i]);
  return ocl_run1(dev, q, &c, "SORT", (uint64_t)(s->rows * pieces), SORT_LOCAL);
}

static tern_rc run_store(tern_dev *dev, tern_queue *q, const sort_kernel *k, const tern_launch *l, const sort_sizes *s,
                         uint32_t from) {
  const tern_word *w = l->words;
  const uint32_t last = k->rank - 1;
  ocl_call c = ocl_call_of(q, k->store);
  ocl_arg_at(&c, &l->args[k->in.slot], ocl_item_size(k->in.dtype));
  ocl_arg_at(&c, &l->args[k->out.slot], ocl_item_size(k->out.dtype));
  ocl_arg_mem(&c, l->workspace.mem->buffer);
  ocl_arg_long(&c, (int64_t)((l->workspace.offset + from * s->half + s->keys) / 4));
  const int64_t words[] = {s->rows * s->length, s->length, TERN_LIT(k->in.stride[last], w),
                           TERN_LIT(k->out.stride[last], w)};
  for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) ocl_arg_long(&c, words[i]);
  for (uint32_t d = 0; d < last; d++) {
    ocl_arg_long(&c, TERN_LIT(k->out.shape[d], w));
    ocl_arg_long(&c, k->in.shape[d] == 1 ? 0 : TERN_LIT(k->in.stride[d], w));
    ocl_arg_long(&c, TERN_LIT(k->out.stride[d], w));
  }
  return ocl_run1(dev, q, &c, "SORT", (uint64_t)(s->rows * s->length), 64);
}

static tern_rc sort_launch(tern_dev *dev, tern_queue *q, tern_kernel *head, const tern_launch *l) {
  const sort_kernel *k = (const sort_kernel *)head;
  const sort_sizes s = sort_sizes_of(k, l->words);
  tern_rc rc = ocl_check_launch(dev, l, k->n_args, s.length > SORT_BLOCK ? 2 * s.half : s.half);
  if (rc) return rc;
  if (s.length > INT32_MAX)
    return ocl_error(dev->drv, dev->id, TERN_E_ARG, "SORT of rows of %lld elements; the limit is 2^31 - 1",
                     (long long)s.length);
  rc = run_blocks(dev, q, k, l, &s);
  uint32_t at = 0;
  for (int64_t width = SORT_BLOCK; width < s.length && !rc; width *= 2, at = !at)
    rc = run_merge(dev, q, k, l, &s, at, width);
  return rc ? rc : run_store(dev, q, k, l, &s, at);
}

static void sort_destroy(tern_dev *dev, tern_kernel *head) {
  sort_kernel *k = (sort_kernel *)head;
  (void)dev;
  if (k->blocks) clReleaseKernel(k->blocks);
  if (k->merge) clReleaseKernel(k->merge);
  if (k->store) clReleaseKernel(k->store);
}

static tern_rc sort_ready(tern_dev *dev, tern_kernel *head) {
  sort_kernel *k = (sort_kernel *)head;
  tern_rc rc = ocl_kernel_new(dev, head->section, "sort_blocks", &k->blocks);
  if (!rc) rc = ocl_kernel_new(dev, head->section, "sort_merge", &k->merge);
  return rc ? rc : ocl_kernel_new(dev, head->section, "sort_store", &k->store);
}

tern_rc ocl_sort_compile(tern_dev *dev, const tern_region *r, tern_kernel **out, tern_kernel_info *info) {
  const tern_value *v[3];
  bool arg, descending;
  if (!sort_values(r, v, &arg, &descending)) return TERN_E_UNSUPPORTED;
  ocl_text text = {0};
  sort_text(&text, dev, v, arg, descending, r->flags & TERN_R_IDX32);
  tern_kernel *head = NULL;
  tern_rc rc = text.failed ? ocl_error(dev->drv, dev->id, TERN_E_OOM, "no memory for the text of SORT")
                           : ocl_kernel_alloc(dev, sizeof(sort_kernel), text.s, "SORT", &head);
  free(text.s);
  if (rc) return rc;
  sort_kernel *k = (sort_kernel *)head;
  k->head.ready = sort_ready;
  k->head.launch = sort_launch;
  k->head.workspace = sort_workspace;
  k->head.destroy = sort_destroy;
  k->in = *v[0], k->out = *v[1];
  k->n_args = r->n_args;
  k->rank = v[0]->rank;
  k->key = ocl_item_size(v[0]->dtype) == 8 ? 8 : 4;
  k->descending = descending;
  if (info) info->workspace = UINT64_MAX;
  *out = head;
  return TERN_OK;
}
