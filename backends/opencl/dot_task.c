/* DOT for FPGAs: one work-item that goes over the whole product, block by block. A block of the result stays in
   registers while K runs, and the two loops over it are unrolled, so that each step of K is ROWS * COLUMNS multipliers
   at work at once; the additions of one step do not depend on each other. What follows the product is applied where it
   is stored. */
#include "epilogue.h"

#include <stdlib.h>
#include <string.h>

enum { ROWS = 4, COLUMNS = 16 };

typedef struct task_kernel {
  tern_kernel head;
  tern_value a, b, c;
  uint32_t in, out, rank, n_args;
  ocl_epilogue epilogue;
  cl_kernel kernel;
} task_kernel;

static tern_rc task_values(const tern_dev *dev, const tern_region *r, const tern_value *v[3], render_epilogue **e) {
  *e = NULL;
  if (!dev->id->task) return TERN_E_UNSUPPORTED;
  const tern_rc rc = ocl_epilogue_read(dev, r, TERN_OP_DOT, TERN_OP_DOT, -1, v, e);
  if (rc) return rc;
  const uint32_t in = v[0]->dtype, out = v[2]->dtype, rank = v[0]->rank;
  const bool widens = (in == TERN_I8 || in == TERN_U8) && out == TERN_I32;
  const bool fits = v[1]->dtype == in && in != TERN_BOOL && (out == in || widens) && rank >= 2 && rank == v[1]->rank &&
                    rank == v[2]->rank && (*e ? !(*e)->in_place : v[2]->alias < 0);
  if (fits) return TERN_OK;
  render_epilogue_free(*e);
  *e = NULL;
  return TERN_E_UNSUPPORTED;
}

tern_rc ocl_task_supports(tern_dev *dev, const tern_region *r) {
  const tern_value *v[3];
  render_epilogue *e;
  const tern_rc rc = task_values(dev, r, v, &e);
  if (!rc) render_epilogue_free(e);
  return rc;
}

/* ---- text ---- */

static void add_parameters(ocl_text *t, const render_epilogue *e, uint32_t batch) {
  ocl_add(
      t, "__kernel __attribute__((reqd_work_group_size(1, 1, 1)))\n"
         "void dot_task(__global const I_T *restrict A, const long a0, __global const I_T *restrict B, const long b0,\n"
         "  ");
  if (!e) ocl_add(t, "__global O_T *restrict C, const long c0, const long crs, const long ccs, ");
  ocl_add(t,
          "const long M, const long N, const long K, const long ars, const long acs, const long brs, const long bcs,\n"
          "  const long batches");
  for (uint32_t d = 0; d < batch; d++) {
    ocl_add(t, ", const long s%u, const long as%u, const long bs%u", d, d, d);
    if (!e) ocl_add(t, ", const long cs%u", d);
  }
  ocl_add(t, "%s) {\n%s", e ? e->params : "", e ? e->setup : "");
}

/* at<d>: the indices of the batch; oA, oB, oC: where its matrices begin. */
static void add_batch(ocl_text *t, const render_epilogue *e, uint32_t batch) {
  ocl_add(t, "for (ix batch = 0; batch < (ix)batches; batch++) {\n  ix rest = batch;\n");
  for (uint32_t d = batch; d-- > 0;)
    ocl_add(t, "  const ix at%u = %s; rest /= (ix)s%u;\n", d, d ? "rest % (ix)s" : "rest", d);
  ocl_add(t, "  (void)rest;\n");
  for (const char *o = e ? "ab" : "abc"; *o; o++) {
    ocl_add(t, "  const ix o%c = (ix)%c0", *o, *o);
    for (uint32_t d = 0; d < batch; d++) ocl_add(t, " + at%u * (ix)%cs%u", d, *o, d);
    ocl_add(t, ";\n");
  }
}

static void add_store(ocl_text *t, const render_epilogue *e, uint32_t batch) {
  ocl_add(t, "    for (int i = 0; i < ROWS; i++) for (int j = 0; j < COLUMNS; j++) {\n"
             "      const ix m = m0 + i, n = n0 + j;\n"
             "      if (m < (ix)M && n < (ix)N) ");
  if (!e) {
    ocl_add(t, "O_ST(C, oc + m * (ix)crs + n * (ix)ccs, (O_C)acc[i][j]);\n    }\n");
    return;
  }
  ocl_add(t, "epilogue(%s", e->args);
  for (uint32_t d = 0; d < batch; d++) ocl_add(t, "at%u, ", d);
  ocl_add(t, "m, n, E_X(acc[i][j]));\n    }\n");
}

static void task_text(ocl_text *t, const tern_dev *dev, const tern_region *r, const tern_value *const v[3],
                      const render_epilogue *e) {
  const uint32_t out = v[2]->dtype, batch = v[2]->rank - 2;
  /* integers wrap: they accumulate unsigned, in the result's width or in 32 bits */
  const char *acc = ocl_is_float(out) ? ocl_compute(out) : ocl_item_size(out) == 8 ? "ulong" : "uint";
  ocl_add_prelude(t, dev, r->flags & TERN_R_IDX32);
  ocl_add_dtype(t, "I", v[0]->dtype);
  ocl_add_dtype(t, "O", out);
  ocl_add(t, "typedef %s acc_t;\n#define ROWS %d\n#define COLUMNS %d\n", acc, ROWS, COLUMNS);
  if (e) ocl_add_epilogue(t, dev, e, out, "O");
  add_parameters(t, e, batch);
  add_batch(t, e, batch);
  ocl_add(t, "  for (ix m0 = 0; m0 < (ix)M; m0 += ROWS) for (ix n0 = 0; n0 < (ix)N; n0 += COLUMNS) {\n"
             "    acc_t acc[ROWS][COLUMNS];\n"
             "    #pragma unroll\n    for (int i = 0; i < ROWS; i++) {\n"
             "      #pragma unroll\n      for (int j = 0; j < COLUMNS; j++) acc[i][j] = 0;\n    }\n"
             "    for (ix k = 0; k < (ix)K; k++) {\n"
             "      acc_t a[ROWS], b[COLUMNS];\n"
             "      #pragma unroll\n      for (int i = 0; i < ROWS; i++)\n"
             "        a[i] = m0 + i < (ix)M ? (acc_t)I_LD(A, oa + (m0 + i) * (ix)ars + k * (ix)acs) : (acc_t)0;\n"
             "      #pragma unroll\n      for (int j = 0; j < COLUMNS; j++)\n"
             "        b[j] = n0 + j < (ix)N ? (acc_t)I_LD(B, ob + k * (ix)brs + (n0 + j) * (ix)bcs) : (acc_t)0;\n"
             "      #pragma unroll\n      for (int i = 0; i < ROWS; i++) {\n"
             "        #pragma unroll\n        for (int j = 0; j < COLUMNS; j++) acc[i][j] += a[i] * b[j];\n      }\n"
             "    }\n");
  add_store(t, e, batch);
  ocl_add(t, "  }\n}\n}\n");
}

/* ---- launch ---- */

static tern_rc task_ready(tern_dev *dev, tern_kernel *head) {
  return ocl_kernel_new(dev, head->section, "dot_task", &((task_kernel *)head)->kernel);
}

static void task_destroy(tern_dev *dev, tern_kernel *head) {
  task_kernel *k = (task_kernel *)head;
  (void)dev;
  if (k->kernel) clReleaseKernel(k->kernel);
  ocl_epilogue_end(&k->epilogue);
}

static int64_t stride_of(const tern_value *v, uint32_t d, const tern_word *w) {
  return v->shape[d] == 1 ? 0 : TERN_LIT(v->stride[d], w);
}

static tern_rc task_launch(tern_dev *dev, tern_queue *q, tern_kernel *head, const tern_launch *l) {
  const task_kernel *k = (const task_kernel *)head;
  const uint32_t m = k->rank - 2, n = k->rank - 1;
  const tern_word *w = l->words;
  tern_rc rc = ocl_check_launch(dev, l, k->n_args, 0);
  if (rc) return rc;
  ocl_call c = ocl_call_of(q, k->kernel);
  ocl_arg_at(&c, &l->args[k->a.slot], ocl_item_size(k->in));
  ocl_arg_at(&c, &l->args[k->b.slot], ocl_item_size(k->in));
  if (!k->epilogue.text) {
    ocl_arg_at(&c, &l->args[k->c.slot], ocl_item_size(k->out));
    ocl_arg_long(&c, TERN_LIT(k->c.stride[m], w));
    ocl_arg_long(&c, TERN_LIT(k->c.stride[n], w));
  }
  int64_t batches = 1;
  for (uint32_t d = 0; d < m; d++) batches *= TERN_LIT(k->c.shape[d], w);
  const int64_t words[] = {TERN_LIT(k->a.shape[m], w),  TERN_LIT(k->b.shape[n], w),
                           TERN_LIT(k->a.shape[n], w),  TERN_LIT(k->a.stride[m], w),
                           TERN_LIT(k->a.stride[n], w), TERN_LIT(k->b.stride[m], w),
                           TERN_LIT(k->b.stride[n], w), batches};
  for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) ocl_arg_long(&c, words[i]);
  for (uint32_t d = 0; d < m; d++) {
    ocl_arg_long(&c, TERN_LIT(k->c.shape[d], w));
    ocl_arg_long(&c, stride_of(&k->a, d, w));
    ocl_arg_long(&c, stride_of(&k->b, d, w));
    if (!k->epilogue.text) ocl_arg_long(&c, stride_of(&k->c, d, w));
  }
  ocl_epilogue_args(&k->epilogue, l, &c);
  return ocl_run1(dev, q, &c, "DOT", 1, 1);
}

tern_rc ocl_task_compile(tern_dev *dev, const tern_region *r, tern_kernel **out, tern_kernel_info *info) {
  const tern_value *v[3];
  render_epilogue *e;
  tern_rc rc = task_values(dev, r, v, &e);
  if (rc) return rc;
  ocl_text text = {0};
  task_text(&text, dev, r, v, e);
  tern_kernel *head = NULL;
  rc = text.failed ? ocl_error(dev->drv, dev->id, TERN_E_OOM, "no memory for the text of DOT")
                   : ocl_kernel_alloc(dev, sizeof(task_kernel), text.s, "DOT", &head);
  free(text.s);
  if (rc) {
    render_epilogue_free(e);
    return rc;
  }
  task_kernel *k = (task_kernel *)head;
  k->head.ready = task_ready;
  k->head.launch = task_launch;
  k->head.destroy = task_destroy;
  k->a = *v[0], k->b = *v[1], k->c = *v[2];
  k->in = v[0]->dtype;
  k->out = v[2]->dtype;
  k->rank = v[2]->rank;
  k->n_args = r->n_args;
  rc = ocl_epilogue_init(dev, &k->epilogue, e);
  if (rc) {
    ocl_kernel_free(dev, head);
    return rc;
  }
  if (info) info->workspace = 0;
  *out = head;
  return TERN_OK;
}
