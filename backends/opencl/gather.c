/* GATHER: out[o, j, i] = data[o, index[j], i], elements moved as bits. A work-item moves a run of the last dim. An
   index out of range reads 0 and sets the queue's flag, which the next sync reports. An index is compared with 0 before
   it is widened: rusticl (Mesa 22.3) computes wrongly whether an int that became a long is less than a constant. */
#include "ocl.h"

#include <stdlib.h>

enum { GATHER_LOCAL = 64, GATHER_RUN = 64 };

typedef struct gather_kernel {
  tern_kernel head;
  tern_value data, index, out;
  uint32_t n_args;
  bool cpu;
  cl_kernel kernel;
} gather_kernel;

static bool gather_values(const tern_region *r, const tern_value *v[3]) {
  if (!ocl_single(r, TERN_OP_GATHER, 2, v)) return false;
  return v[0]->rank == 3 && v[1]->rank == 1 && v[2]->rank == 3 && v[0]->dtype == v[2]->dtype &&
         (v[1]->dtype == TERN_I32 || v[1]->dtype == TERN_I64) && v[2]->alias < 0;
}

tern_rc ocl_gather_supports(tern_dev *dev, const tern_region *r) {
  const tern_value *v[3];
  (void)dev;
  return gather_values(r, v) ? TERN_OK : TERN_E_UNSUPPORTED;
}

static void gather_text(ocl_text *t, const tern_dev *dev, uint32_t item, uint32_t index, bool idx32) {
  static const char *const bits[9] = {[1] = "uchar", [2] = "ushort", [4] = "uint", [8] = "ulong"};
  ocl_add_prelude(t, dev, idx32);
  ocl_add(t, "typedef %s T;\ntypedef %s I;\n", bits[item], ocl_storage(index));
  ocl_add(t, "__kernel __attribute__((reqd_work_group_size(%d, 1, 1)))\n", GATHER_LOCAL);
  ocl_add(t,
          "void gather(__global const T *D, long d0, __global const I *X, long x0, __global T *C, long c0, __global "
          "int *flag,\n"
          "  long O, long A, long J, long N, long ds0, long ds1, long ds2, long xs, long cs0, long cs1, long cs2, "
          "long run, long runs) {\n"
          "  ulong id = get_global_id(0);\n"
          "  if (id >= (ulong)O * (ulong)J * (ulong)runs) return;\n"
          "  const ix i0 = (ix)(id %% (ulong)runs) * (ix)run; id /= (ulong)runs;\n"
          "  const ix j = (ix)(id %% (ulong)J), o = (ix)(id / (ulong)J);\n"
          "  const ix n = min((ix)run, (ix)N - i0);\n"
          "  const I given = X[x0 + j * (ix)xs];\n"
          "  const long at = given < 0 ? (long)given + A : (long)given;\n"
          "  const bool in = at >= 0 && at < A;\n"
          "  C += c0 + o * (ix)cs0 + j * (ix)cs1 + i0 * (ix)cs2;\n"
          "  if (!in) {\n"
          "    if (atomic_cmpxchg((volatile __global int *)flag, 0, 1) == 0) {\n"
          "      flag[1] = (int)given; flag[2] = (int)((long)given >> 32); flag[3] = (int)min(A, (long)0x7fffffff);\n"
          "    }\n"
          "    for (ix i = 0; i < n; i++) C[i * (ix)cs2] = 0;\n"
          "    return;\n"
          "  }\n"
          "  D += d0 + o * (ix)ds0 + (ix)at * (ix)ds1 + i0 * (ix)ds2;\n"
          "  if (ds2 == 1 && cs2 == 1) for (ix i = 0; i < n; i++) C[i] = D[i];\n"
          "  else for (ix i = 0; i < n; i++) C[i * (ix)cs2] = D[i * (ix)ds2];\n"
          "}\n");
}

static tern_rc gather_launch(tern_dev *dev, tern_queue *q, tern_kernel *head, const tern_launch *l) {
  const gather_kernel *k = (const gather_kernel *)head;
  const tern_rc rc = ocl_check_launch(dev, l, k->n_args, 0);
  if (rc) return rc;
  const tern_word *w = l->words;
  const uint32_t item = ocl_item_size(k->data.dtype);
  ocl_call c = ocl_call_of(q, k->kernel);
  ocl_arg_at(&c, &l->args[k->data.slot], item);
  ocl_arg_at(&c, &l->args[k->index.slot], ocl_item_size(k->index.dtype));
  ocl_arg_at(&c, &l->args[k->out.slot], item);
  ocl_arg_mem(&c, ocl_queue_flag(q));
  int64_t shape[3], ds[3], cs[3];
  for (int d = 0; d < 3; d++) {
    shape[d] = TERN_LIT(k->out.shape[d], w);
    ds[d] = k->data.shape[d] == 1 ? 0 : TERN_LIT(k->data.stride[d], w);
    cs[d] = TERN_LIT(k->out.stride[d], w);
  }
  /* a CPU copies runs; on a GPU neighbours copy neighbours */
  const int64_t n = shape[2], run = !k->cpu ? 1 : n < GATHER_RUN ? n : GATHER_RUN, runs = (n + run - 1) / run;
  const int64_t words[] = {shape[0], TERN_LIT(k->data.shape[1], w),   shape[1], n,     ds[0], ds[1],
                           ds[2],    TERN_LIT(k->index.stride[0], w), cs[0],    cs[1], cs[2], run,
                           runs};
  for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) ocl_arg_long(&c, words[i]);
  return ocl_run1(dev, q, &c, "GATHER", (uint64_t)shape[0] * (uint64_t)shape[1] * (uint64_t)runs, GATHER_LOCAL);
}

static void gather_destroy(tern_dev *dev, tern_kernel *head) {
  gather_kernel *k = (gather_kernel *)head;
  (void)dev;
  if (k->kernel) clReleaseKernel(k->kernel);
}

static tern_rc gather_ready(tern_dev *dev, tern_kernel *head) {
  return ocl_kernel_new(dev, head->section, "gather", &((gather_kernel *)head)->kernel);
}

tern_rc ocl_gather_compile(tern_dev *dev, const tern_region *r, tern_kernel **out, tern_kernel_info *info) {
  const tern_value *v[3];
  (void)info;
  if (!gather_values(r, v)) return TERN_E_UNSUPPORTED;
  ocl_text text = {0};
  gather_text(&text, dev, ocl_item_size(v[0]->dtype), v[1]->dtype, r->flags & TERN_R_IDX32);
  tern_kernel *head = NULL;
  tern_rc rc = text.failed ? ocl_error(dev->drv, dev->id, TERN_E_OOM, "no memory for the text of GATHER")
                           : ocl_kernel_alloc(dev, sizeof(gather_kernel), text.s, "GATHER", &head);
  free(text.s);
  if (rc) return rc;
  gather_kernel *k = (gather_kernel *)head;
  k->head.ready = gather_ready;
  k->head.launch = gather_launch;
  k->head.destroy = gather_destroy;
  k->data = *v[0], k->index = *v[1], k->out = *v[2];
  k->n_args = r->n_args;
  k->cpu = ocl_is_cpu(dev->id);
  *out = head;
  return TERN_OK;
}
