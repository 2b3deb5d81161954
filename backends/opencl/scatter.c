/* SCATTER: base, then the updates in the order of the index, without atomics: a work-item owns a range of rows and a
   run of columns of the output, fills them from base, walks the whole index and takes the updates that fall into its
   rows. An index out of range is dropped and sets the queue's flag, which the next sync reports. */
#include "ocl.h"

#include <common/eval.h>
#include <stdlib.h>

enum { SCATTER_LOCAL = 64, ADD = 0, SET, MAX, MIN, MODES };
enum { IN_PLACE, COPIED, FILLED }; /* where the output begins */
enum { FEW_PER_CPU_UNIT = 4, MANY_PER_GPU_UNIT = 256, PIECE = 4096 };

typedef struct scatter_kernel {
  tern_kernel head;
  tern_value base, index, src, out;
  uint32_t n_args, local;
  bool cpu, filled, in_place;
  cl_uint units;
  cl_kernel kernel;
} scatter_kernel;

typedef struct scatter_values {
  const tern_value *base, *index, *src, *out;
  uint32_t mode;
} scatter_values;

static bool is_arg(const tern_region *r, const tern_value *v, uint32_t kind, uint32_t rank) {
  return v->kind == kind && v->slot < r->n_args && v->rank == rank;
}

static bool scatter_read(const tern_region *r, scatter_values *v) {
  const tern_node *n = &r->nodes[0];
  if (r->n_nodes != 1 || n->op != TERN_OP_SCATTER || n->n_in != 3 || n->n_out != 1 || n->n_attr < 1) return false;
  if (r->attrs[n->attr].u >= MODES) return false;
  *v = (scatter_values){&r->values[r->edges[n->in]], &r->values[r->edges[n->in + 1]], &r->values[r->edges[n->in + 2]],
                        &r->values[r->edges[n->out]], (uint32_t)r->attrs[n->attr].u};
  const uint32_t dtype = v->out->dtype;
  const bool filled = v->base->kind == TERN_V_CONST || v->base->kind == TERN_V_PARAM;
  if (v->base->dtype != dtype || v->src->dtype != dtype || (v->mode == ADD && dtype == TERN_BOOL)) return false;
  return (filled || is_arg(r, v->base, TERN_V_IN, 3)) && is_arg(r, v->index, TERN_V_IN, 1) &&
         is_arg(r, v->src, TERN_V_IN, 3) && is_arg(r, v->out, TERN_V_OUT, 3) &&
         (v->index->dtype == TERN_I32 || v->index->dtype == TERN_I64);
}

tern_rc ocl_scatter_supports(tern_dev *dev, const tern_region *r) {
  scatter_values v;
  (void)dev;
  return scatter_read(r, &v) ? TERN_OK : TERN_E_UNSUPPORTED;
}

/* One update: element C[c] and S[s], as bits where that is the same (SET, sums of integers, which wrap) */
static void fold_text(ocl_text *t, uint32_t mode, uint32_t dtype) {
  const bool real = ocl_is_float(dtype);
  ocl_add(t, "void fold(__global B *C, ix c, __global const B *S, ix s) {\n");
  if (mode == SET)
    ocl_add(t, "  C[c] = S[s];\n}\n");
  else if (mode == ADD && !real)
    ocl_add(t, "  C[c] = (B)(C[c] + S[s]);\n}\n");
  else
    ocl_add(t, "  const V_C a = V_LD((__global const V_T *)C, c), x = V_LD((__global const V_T *)S, s);\n");
  if (mode == ADD && real)
    ocl_add(t, "  V_ST((__global V_T *)C, c, a + x);\n}\n");
  else if (mode == MAX || mode == MIN)
    ocl_add(t, "  V_ST((__global V_T *)C, c, (V_C)(%sa %s x ? a : x));\n}\n", real ? "a != a || " : "",
            mode == MAX ? ">" : "<");
}

static void scatter_text(ocl_text *t, const tern_dev *dev, const scatter_values *v, uint32_t local, bool idx32) {
  static const char *const bits[9] = {[1] = "uchar", [2] = "ushort", [4] = "uint", [8] = "ulong"};
  ocl_add_prelude(t, dev, idx32);
  ocl_add_dtype(t, "V", v->out->dtype);
  ocl_add(t, "typedef %s B;\ntypedef %s I;\n", bits[ocl_item_size(v->out->dtype)], ocl_storage(v->index->dtype));
  fold_text(t, v->mode, v->out->dtype);
  ocl_add(t, "__kernel __attribute__((reqd_work_group_size(%u, 1, 1)))\n", local);
  ocl_add(t,
          "void scatter(__global const B *D, long d0, __global const I *X, long x0, __global const B *S, long s0,\n"
          "  __global B *C, long c0, __global int *flag, B value, long begin, long O, long A, long J, long N,\n"
          "  long ds0, long ds1, long ds2, long xs, long ss0, long ss1, long ss2, long cs0, long cs1, long cs2,\n"
          "  long run, long runs, long parts) {\n"
          "  ulong id = get_global_id(0);\n"
          "  if (id >= (ulong)O * (ulong)parts * (ulong)runs) return;\n"
          "  const ix i0 = (ix)(id %% (ulong)runs) * (ix)run; id /= (ulong)runs;\n"
          "  const long part = (long)(id %% (ulong)parts);\n"
          "  const ix o = (ix)(id / (ulong)parts);\n"
          "  const long a0 = A * part / parts, a1 = A * (part + 1) / parts;\n"
          "  const ix n = min((ix)run, (ix)N - i0);\n"
          "  C += c0 + o * (ix)cs0 + i0 * (ix)cs2;\n"
          "  if (begin == %d) {\n"
          "    D += d0 + o * (ix)ds0 + i0 * (ix)ds2;\n"
          "    for (long a = a0; a < a1; a++)\n"
          "      for (ix i = 0; i < n; i++) C[(ix)a * (ix)cs1 + i * (ix)cs2] = D[(ix)a * (ix)ds1 + i * (ix)ds2];\n"
          "  } else if (begin == %d) {\n"
          "    for (long a = a0; a < a1; a++)\n"
          "      for (ix i = 0; i < n; i++) C[(ix)a * (ix)cs1 + i * (ix)cs2] = value;\n"
          "  }\n",
          COPIED, FILLED);
  ocl_add(t,
          "  S += s0 + o * (ix)ss0 + i0 * (ix)ss2;\n"
          "  X += x0;\n"
          "  for (ix j = 0; j < (ix)J; j++) {\n"
          "    const I given = X[j * (ix)xs];\n"
          "    const long at = given < 0 ? (long)given + A : (long)given;\n" /* see gather.c */
          "    if (at < 0 || at >= A) {\n"
          "      if (atomic_cmpxchg((volatile __global int *)flag, 0, 2) == 0) {\n"
          "        flag[1] = (int)given; flag[2] = (int)((long)given >> 32); flag[3] = (int)min(A, (long)0x7fffffff);\n"
          "      }\n"
          "      continue;\n"
          "    }\n"
          "    if (at < a0 || at >= a1) continue;\n"
          "    const ix c = (ix)at * (ix)cs1, s = j * (ix)ss1;\n"
          "    if (cs2 == 1 && ss2 == 1) for (ix i = 0; i < n; i++) fold(C, c + i, S, s + i);\n"
          "    else for (ix i = 0; i < n; i++) fold(C, c + i * (ix)cs2, S, s + i * (ix)ss2);\n"
          "  }\n"
          "}\n");
}

typedef struct scatter_cut {
  int64_t run, runs, parts; /* columns of a work-item, runs in a row, ranges of rows */
} scatter_cut;

static int64_t at_most(int64_t n, int64_t limit) { return n < 1 ? 1 : n < limit ? n : limit; }

/* On a CPU few work-items with long runs, on a GPU neighbours for neighbouring columns. Each range of rows reads the
   whole index again, so there are no more of them than keep the device busy. */
static scatter_cut cut(const scatter_kernel *k, int64_t o, int64_t a, int64_t j, int64_t n) {
  const int64_t want = (int64_t)k->units * (k->cpu ? FEW_PER_CPU_UNIT : MANY_PER_GPU_UNIT);
  scatter_cut c = {.run = k->cpu ? n : 1};
  if (k->cpu && o * a < want && n > 64) c.run = 64;
  c.runs = (n + c.run - 1) / c.run;
  const int64_t busy = (want + o * c.runs - 1) / (o * c.runs), work = (a + 2 * j) * c.run / (k->cpu ? PIECE : 1);
  c.parts = at_most(busy < work ? busy : work, a);
  return c;
}

static bool same_place(const scatter_kernel *k, const tern_launch *l, const int64_t *shape, const int64_t *ds,
                       const int64_t *cs) {
  if (k->in_place) return true;
  const tern_arg *d = &l->args[k->base.slot], *c = &l->args[k->out.slot];
  bool same = d->mem == c->mem && d->offset == c->offset;
  for (int i = 0; i < 3; i++) same &= ds[i] == cs[i] || shape[i] == 1;
  return same;
}

static tern_rc scatter_launch(tern_dev *dev, tern_queue *q, tern_kernel *head, const tern_launch *l) {
  const scatter_kernel *k = (const scatter_kernel *)head;
  const tern_rc rc = ocl_check_launch(dev, l, k->n_args, 0);
  if (rc) return rc;
  const tern_word *w = l->words;
  const uint32_t item = ocl_item_size(k->out.dtype);
  int64_t shape[3], ds[3], ss[3], cs[3];
  for (int d = 0; d < 3; d++) {
    shape[d] = TERN_LIT(k->out.shape[d], w);
    ds[d] = k->filled || k->base.shape[d] == 1 ? 0 : TERN_LIT(k->base.stride[d], w);
    ss[d] = k->src.shape[d] == 1 ? 0 : TERN_LIT(k->src.stride[d], w);
    cs[d] = TERN_LIT(k->out.stride[d], w);
  }
  uint64_t value = 0;
  if (k->filled) eval_store(&value, 0, k->out.dtype, k->base.kind == TERN_V_CONST ? k->base.imm : w[k->base.slot]);
  const int64_t j = TERN_LIT(k->index.shape[0], w), o = shape[0], a = shape[1], n = shape[2];
  const int64_t begin = k->filled ? FILLED : same_place(k, l, shape, ds, cs) ? IN_PLACE : COPIED;
  const scatter_cut c = cut(k, o, a, j, n);
  ocl_call call = ocl_call_of(q, k->kernel);
  ocl_arg_at(&call, &l->args[begin == COPIED ? k->base.slot : k->out.slot], item);
  ocl_arg_at(&call, &l->args[k->index.slot], ocl_item_size(k->index.dtype));
  ocl_arg_at(&call, &l->args[k->src.slot], item);
  ocl_arg_at(&call, &l->args[k->out.slot], item);
  ocl_arg_mem(&call, ocl_queue_flag(q));
  ocl_arg(&call, item, &value);
  const int64_t index = TERN_LIT(k->index.stride[0], w);
  const int64_t words[] = {begin, o,     a,     j,     n,     ds[0], ds[1], ds[2],  index,
                           ss[0], ss[1], ss[2], cs[0], cs[1], cs[2], c.run, c.runs, c.parts};
  for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) ocl_arg_long(&call, words[i]);
  return ocl_run1(dev, q, &call, "SCATTER", (uint64_t)o * (uint64_t)c.parts * (uint64_t)c.runs, k->local);
}

static void scatter_destroy(tern_dev *dev, tern_kernel *head) {
  scatter_kernel *k = (scatter_kernel *)head;
  (void)dev;
  if (k->kernel) clReleaseKernel(k->kernel);
}

static tern_rc scatter_ready(tern_dev *dev, tern_kernel *head) {
  return ocl_kernel_new(dev, head->section, "scatter", &((scatter_kernel *)head)->kernel);
}

tern_rc ocl_scatter_compile(tern_dev *dev, const tern_region *r, tern_kernel **out, tern_kernel_info *info) {
  scatter_values v;
  (void)info;
  if (!scatter_read(r, &v)) return TERN_E_UNSUPPORTED;
  ocl_text text = {0};
  const bool cpu = ocl_loops_long(dev->id);
  const uint32_t local = cpu ? 1 : SCATTER_LOCAL;
  scatter_text(&text, dev, &v, local, r->flags & TERN_R_IDX32);
  tern_kernel *head = NULL;
  tern_rc rc = text.failed ? ocl_error(dev->drv, dev->id, TERN_E_OOM, "no memory for the text of SCATTER")
                           : ocl_kernel_alloc(dev, sizeof(scatter_kernel), text.s, "SCATTER", &head);
  free(text.s);
  if (rc) return rc;
  scatter_kernel *k = (scatter_kernel *)head;
  k->head.ready = scatter_ready;
  k->head.launch = scatter_launch;
  k->head.destroy = scatter_destroy;
  k->base = *v.base, k->index = *v.index, k->src = *v.src, k->out = *v.out;
  k->filled = v.base->kind != TERN_V_IN;
  k->in_place = !k->filled && v.out->alias >= 0 && (uint32_t)v.out->alias == v.base->slot;
  k->n_args = r->n_args;
  k->cpu = cpu;
  k->local = local;
  k->units = dev->id->units ? dev->id->units : 1;
  *out = head;
  return TERN_OK;
}
