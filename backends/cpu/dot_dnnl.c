/* DOT through oneDNN: one cached matmul primitive for exact sizes, strides and thread count. Its three memory objects
   are pointed anew at each run (6 ns, against some 200 ns to make one). */
#include "dot.h"

#if TERN_CPU_ONEDNN
#include <oneapi/dnnl/dnnl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct dot_prim {
  dnnl_primitive_t prim;
  dnnl_stream_t stream;
  dnnl_memory_t mem[3];
};

static struct {
  pthread_once_t once;
  dnnl_engine_t engine; /* for the life of the process; NULL: oneDNN does not work here */
} dnnl = {.once = PTHREAD_ONCE_INIT};

static void engine_open(void) {
  if (dnnl_engine_create(&dnnl.engine, dnnl_cpu, 0) != dnnl_success) dnnl.engine = NULL;
}

bool dot_prim_has(uint32_t in, uint32_t out) {
  if (in != out) return false;
  if (in == TERN_F32) return true;
  /* below this instruction set bfloat16 is emulated: converting to float32 is no slower */
  if (in != TERN_BF16) return false;
  const dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();
  return isa == dnnl_cpu_isa_avx512_core_bf16 || isa == dnnl_cpu_isa_avx512_core_amx;
}

/* Descriptor of an r x c matrix stack; sizes of 1 get the stride that a dense array would have */
static bool describe(const struct dot_job *j, const struct dot_mat *x, int64_t r, int64_t c, dnnl_memory_desc_t *md) {
  dnnl_dims_t dims, strides;
  int64_t ld;
  const char how = dot_layout(x, r, c, &ld);
  if (!how) return false;
  for (int d = 0; d < j->rank; d++) {
    dims[d] = x->batch[d] ? j->size[d] : 1;
    strides[d] = x->batch[d] ? x->batch[d] : (how == 'N' ? r : c) * ld;
    if (strides[d] < 0) return false;
  }
  dims[j->rank] = r, dims[j->rank + 1] = c;
  strides[j->rank] = how == 'N' ? ld : 1;
  strides[j->rank + 1] = how == 'N' ? 1 : ld;
  return dnnl_memory_desc_init_by_strides(md, j->rank + 2, dims, j->in == TERN_F32 ? dnnl_f32 : dnnl_bf16, strides) ==
         dnnl_success;
}

static bool make(struct dot_prim *p, const struct dot_job *j) {
  dnnl_memory_desc_t md[3];
  dnnl_matmul_desc_t op;
  dnnl_primitive_desc_t pd = NULL;
  if (!describe(j, &j->a, j->m, j->k, &md[0]) || !describe(j, &j->b, j->k, j->n, &md[1]) ||
      !describe(j, &j->o, j->m, j->n, &md[2]))
    return false;
  if (dnnl_matmul_desc_init(&op, &md[0], &md[1], NULL, &md[2]) != dnnl_success) return false;
  if (dnnl_primitive_desc_create(&pd, &op, NULL, dnnl.engine, NULL) != dnnl_success) return false;
  const char *name = NULL; /* "ref:any": the plain loops, slower than ours */
  bool ok =
      dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name) == dnnl_success && name && !strstr(name, "ref");
  ok = ok && dnnl_primitive_create(&p->prim, pd) == dnnl_success;
  dnnl_primitive_desc_destroy(pd);
  ok = ok && dnnl_stream_create(&p->stream, dnnl.engine, dnnl_stream_default_flags) == dnnl_success;
  for (int i = 0; ok && i < 3; i++)
    ok = dnnl_memory_create(&p->mem[i], &md[i], dnnl.engine, DNNL_MEMORY_NONE) == dnnl_success;
  return ok;
}

struct dot_prim *dot_prim_new(const struct dot_job *j) {
  pthread_once(&dnnl.once, engine_open);
  if (!dnnl.engine || j->out != j->in) return NULL;
  struct dot_prim *const p = calloc(1, sizeof *p);
  if (!p) return NULL;
  if (make(p, j)) return p;
  dot_prim_free(p);
  return NULL;
}

bool dot_prim_run(struct dot_prim *p, const struct dot_job *j) {
  if (dnnl_memory_set_data_handle(p->mem[0], j->a.p) != dnnl_success ||
      dnnl_memory_set_data_handle(p->mem[1], j->b.p) != dnnl_success ||
      dnnl_memory_set_data_handle(p->mem[2], j->o.p) != dnnl_success)
    return false;
  const dnnl_exec_arg_t args[3] = {{DNNL_ARG_SRC, p->mem[0]}, {DNNL_ARG_WEIGHTS, p->mem[1]}, {DNNL_ARG_DST, p->mem[2]}};
  return dnnl_primitive_execute(p->prim, p->stream, 3, args) == dnnl_success &&
         dnnl_stream_wait(p->stream) == dnnl_success;
}

void dot_prim_free(struct dot_prim *p) {
  if (!p) return;
  for (int i = 0; i < 3; i++)
    if (p->mem[i]) dnnl_memory_destroy(p->mem[i]);
  if (p->stream) dnnl_stream_destroy(p->stream);
  if (p->prim) dnnl_primitive_destroy(p->prim);
  free(p);
}

bool dot_sgemm_fits(const struct dot_job *j) {
  int64_t ld;
  const double flops = 2.0 * (double)j->m * (double)j->n * (double)j->k;
  return j->in == TERN_F32 && j->out == TERN_F32 && flops >= 2.0 * 256 * 256 * 256 && j->m >= 16 && j->n >= 16 &&
         dot_layout(&j->a, j->m, j->k, &ld) && dot_layout(&j->b, j->k, j->n, &ld) == 'N' &&
         dot_layout(&j->o, j->m, j->n, &ld) == 'N';
}

bool dot_sgemm_run(const struct dot_job *j) {
  int64_t la, lb, lo;
  const char ta = dot_layout(&j->a, j->m, j->k, &la), tb = dot_layout(&j->b, j->k, j->n, &lb);
  dot_layout(&j->o, j->m, j->n, &lo);
  for (int64_t i = 0; i < j->items; i++) {
    const float *const a = (const float *)(const void *)dot_item(j, &j->a, i, 4);
    const float *const b = (const float *)(const void *)dot_item(j, &j->b, i, 4);
    float *const o = (float *)(void *)dot_item(j, &j->o, i, 4);
    if (dnnl_sgemm(ta, tb, j->m, j->n, j->k, 1, a, la, b, lb, 0, o, lo) != dnnl_success) return false;
  }
  return true;
}

#else
bool dot_prim_has(uint32_t in, uint32_t out) {
  (void)in, (void)out;
  return false;
}
struct dot_prim *dot_prim_new(const struct dot_job *j) {
  (void)j;
  return NULL;
}
bool dot_prim_run(struct dot_prim *p, const struct dot_job *j) {
  (void)p, (void)j;
  return false;
}
void dot_prim_free(struct dot_prim *p) { (void)p; }
bool dot_sgemm_fits(const struct dot_job *j) {
  (void)j;
  return false;
}
bool dot_sgemm_run(const struct dot_job *j) {
  (void)j;
  return false;
}
#endif
