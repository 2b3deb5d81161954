/* The smallest tern backend: one host-memory device that adds and multiplies float32, any rank and stride. What it
   refuses runs on the CPU. Copy it, rename it, and let docs/plugins.md and tern-check lead on. */
#include <tern/backend.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tern_kernel { /* what compile remembers: never a pointer into the region */
  uint32_t op;
  tern_value v[3]; /* a, b, out */
};
static const tern_host *host; /* lives as long as the plugin */

static tern_rc init(const tern_host *h, tern_drv **drv) { return host = h, *drv = NULL, TERN_OK; }
static tern_rc device_info(tern_drv *drv, uint32_t i, tern_device_info *info) {
  (void)drv;
  if (i > 0) return TERN_E_END;
  snprintf(info->name, sizeof info->name, "template");
  snprintf(info->desc, sizeof info->desc, "the plugin to copy");
  info->kind = TERN_KIND_OTHER;
  info->flags = TERN_DEV_HOST_MEM; /* memory is plain pointers; no queues: every call is complete on return */
  info->mem_align = 64;
  info->dtypes = 1u << TERN_F32;
  return TERN_OK;
}
static tern_rc device_open(tern_drv *d, uint32_t i, tern_dev **dev) { return (void)d, (void)i, *dev = NULL, TERN_OK; }
static void device_close(tern_dev *dev) { (void)dev; }

/* Memory: the handle is the pointer. */
static tern_rc mem_alloc(tern_dev *dev, const tern_mem_desc *want, tern_mem **mem) {
  (void)dev;
  if (want->host_ptr || want->handle || want->flags) return TERN_E_UNSUPPORTED;
  *mem = want->size < UINT64_C(1) << 48 ? aligned_alloc(64, (want->size + 63) & ~(uint64_t)63) : NULL;
  return *mem ? TERN_OK : host->error(host->ctx, TERN_E_OOM, "template: out of host memory");
}
static void mem_free(tern_dev *dev, tern_mem *mem) { (void)dev, free(mem); }
static tern_rc mem_map(tern_dev *dev, tern_mem *mem, uint64_t off, uint64_t size, uint32_t rw, void **p) {
  return (void)dev, (void)size, (void)rw, *p = (char *)mem + off, TERN_OK;
}
static tern_rc copy(tern_dev *dev, tern_queue *queue, const tern_copy *c) {
  (void)dev, (void)queue;
  if (c->flags) return TERN_E_UNSUPPORTED;
  char *dst = c->dst ? (char *)c->dst + c->dst_off : c->host_dst;
  const char *src = c->src ? (const char *)c->src + c->src_off : c->host_src;
  memmove(dst, src, c->size);
  return TERN_OK;
}

/* Compute: one ADD or MUL of two different float32 arguments. The answer must hold for every size. */
static tern_rc supports(tern_dev *dev, const tern_region *r, uint32_t *want_static) {
  (void)dev, (void)want_static;
  if (r->n_nodes != 1 || r->n_args != 3 || r->n_values != 3) return TERN_E_UNSUPPORTED;
  for (int i = 0; i < 3; i++) {
    const tern_value *v = &r->values[i];
    if (v->dtype != TERN_F32 || v->layout || (v->kind != TERN_V_IN && v->kind != TERN_V_OUT)) return TERN_E_UNSUPPORTED;
  }
  return r->nodes[0].op == TERN_OP_ADD || r->nodes[0].op == TERN_OP_MUL ? TERN_OK : TERN_E_UNSUPPORTED;
}
static tern_rc compile(tern_dev *dev, const tern_region *r, tern_kernel **out, tern_kernel_info *info) {
  (void)dev, (void)info;
  tern_kernel *k = malloc(sizeof *k);
  if (!k) return TERN_E_OOM;
  const uint32_t *e = r->edges, order[] = {e[r->nodes[0].in], e[r->nodes[0].in + 1], e[r->nodes[0].out]};
  for (int i = 0; i < 3; i++) k->v[i] = r->values[order[i]];
  k->op = r->nodes[0].op;
  *out = k;
  return TERN_OK;
}
static void kernel_free(tern_dev *dev, tern_kernel *k) { (void)dev, free(k); }

static tern_rc launch(tern_dev *dev, tern_queue *queue, const tern_kernel *k, const tern_launch *l) {
  (void)dev, (void)queue;
  int64_t n = 1;
  for (uint32_t d = 0; d < k->v[2].rank; d++) n *= TERN_LIT(k->v[2].shape[d], l->words);
  for (int64_t i = 0; i < n; i++) { /* slow and right: turn i into three strided places */
    float *p[3];
    for (int j = 0; j < 3; j++) {
      int64_t rest = i, at = 0;
      for (uint32_t d = k->v[2].rank; d-- > 0;) {
        const int64_t size = TERN_LIT(k->v[2].shape[d], l->words);
        at += rest % size * TERN_LIT(k->v[j].stride[d], l->words);
        rest /= size;
      }
      const tern_arg *arg = &l->args[k->v[j].slot];
      p[j] = (float *)(void *)((char *)arg->mem + arg->offset) + at;
    }
    *p[2] = k->op == TERN_OP_ADD ? *p[0] + *p[1] : *p[0] * *p[1];
  }
  return TERN_OK;
}

/* clang-format off */
static const tern_backend backend = {
  .struct_size = sizeof backend, .abi = TERN_ABI, .name = "template", .version = "1.0", .init = init,
  .device_info = device_info, .device_open = device_open, .device_close = device_close, .mem_alloc = mem_alloc,
  .mem_free = mem_free, .mem_map = mem_map, .copy = copy, .supports = supports, .compile = compile, .launch = launch,
  .kernel_free = kernel_free};
/* clang-format on */
const tern_backend *tern_plugin_query(uint32_t host_abi) { return host_abi >> 16 == TERN_ABI_MAJOR ? &backend : NULL; }
