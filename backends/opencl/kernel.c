/* supports, compile and launch: each kind of region goes to the file that knows it. The first launch of a kernel has
   its section built and makes its cl_kernels; every other sets their arguments and enqueues them: nothing is allocated,
   nothing is waited for. */
#include "bundle.h"

#include <stdlib.h>
#include <string.h>

static const struct {
  tern_rc (*supports)(tern_dev *, const tern_region *);
  tern_rc (*compile)(tern_dev *, const tern_region *, tern_kernel **, tern_kernel_info *);
} kinds[] = {{ocl_task_supports, ocl_task_compile},       {ocl_dot_supports, ocl_dot_compile},
             {ocl_conv_supports, ocl_conv_compile},       {ocl_gather_supports, ocl_gather_compile},
             {ocl_scatter_supports, ocl_scatter_compile}, {ocl_sort_supports, ocl_sort_compile},
             {ocl_scan_supports, ocl_scan_compile},       {ocl_region_supports, ocl_region_compile}};
enum { N_KINDS = sizeof kinds / sizeof kinds[0] };

/* What holds for every kind: a compiler, and dtypes and layouts that the device has. */
static tern_rc common(const tern_dev *dev, const tern_region *r) {
  if (!ocl_can_run(dev->id) || !r->n_nodes || (r->flags & ~(uint32_t)(TERN_R_IDX32 | TERN_R_DETERMINISTIC)))
    return TERN_E_UNSUPPORTED;
  for (uint32_t i = 0; i < r->n_values; i++) {
    const tern_value *v = &r->values[i];
    if (v->layout || v->rank > TERN_MAX_RANK || !ocl_has_dtype(dev->id, v->dtype)) return TERN_E_UNSUPPORTED;
  }
  return TERN_OK;
}

static int kind_of(tern_dev *dev, const tern_region *r) {
  if (common(dev, r)) return -1;
  for (int i = 0; i < N_KINDS; i++)
    if (kinds[i].supports(dev, r) == TERN_OK) return i;
  return -1;
}

tern_rc ocl_supports(tern_dev *dev, const tern_region *r, uint32_t *want_static) {
  (void)want_static;
  if (!ocl_alive()) return ocl_forked(dev->drv);
  const int kind = kind_of(dev, r);
  if (kind < 0) return TERN_E_UNSUPPORTED;
  if (!dev->images) return TERN_OK;
  tern_kernel *k = NULL; /* nothing is built: a kernel is text so far, and a bundle has that text or it does not */
  const bool held = !kinds[kind].compile(dev, r, &k, NULL) && k->section && ocl_images_hold(dev, k->section->key);
  ocl_kernel_free(dev, k);
  return held ? TERN_OK : TERN_E_UNSUPPORTED;
}

tern_rc ocl_compile(tern_dev *dev, const tern_region *r, tern_kernel **out, tern_kernel_info *info) {
  if (!ocl_alive()) return ocl_forked(dev->drv);
  const int kind = kind_of(dev, r);
  if (kind < 0)
    return ocl_error(dev->drv, dev->id, TERN_E_UNSUPPORTED, "this region is not one that supports() accepts");
  if (!dev->collect) return kinds[kind].compile(dev, r, out, info);
  ocl_collect_begin(dev, r);
  *out = NULL;
  const tern_rc rc = ocl_collect_end(dev, kinds[kind].compile(dev, r, out, info));
  if (rc) ocl_kernel_free(dev, *out);
  if (rc) *out = NULL;
  return rc;
}

tern_rc ocl_workspace(tern_dev *dev, const tern_kernel *k, const tern_word *words, uint64_t *bytes) {
  if (!ocl_alive()) return ocl_forked(dev->drv); /* it may try CLBlast, or measure */
  if (k->workspace) return k->workspace(dev, k, words, bytes);
  *bytes = 0;
  return TERN_OK;
}

/* A bundle's images are changed by launches alone, and where kernels are collected nothing is built. */
tern_rc ocl_ready(tern_dev *dev, const tern_kernel *k) {
  if (!ocl_alive()) return ocl_forked(dev->drv);
  if (dev->images || dev->collect) return TERN_OK;
  tern_kernel *mine = (tern_kernel *)(uintptr_t)k;
  pthread_mutex_lock(&mine->lock);
  const tern_rc rc = ocl_kernel_ready(dev, mine);
  pthread_mutex_unlock(&mine->lock);
  return rc;
}

tern_rc ocl_launch(tern_dev *dev, tern_queue *q, const tern_kernel *k, const tern_launch *l) {
  if (!ocl_alive()) return ocl_forked(dev->drv);
  tern_kernel *mine = (tern_kernel *)(uintptr_t)k; /* its cl_kernels hold arguments: changed under the lock only */
  if (dev->collect && !strcmp(ocl_option(dev->drv, "bundle_eager", "0"), "1")) return TERN_OK; /* ops one by one */
  if (dev->collect)
    return ocl_error(dev->drv, dev->id, TERN_E_UNSUPPORTED,
                     "this device collects kernels for a bundle; nothing runs on it");
  if (q->recording) return ocl_record_launch(dev, q, mine, l);
  tern_rc rc = ocl_queue_enter(q);
  if (!rc && dev->images) rc = ocl_images_enter(dev, q, mine);
  if (rc) return rc;
  ocl_use_launch(q, l);
  pthread_mutex_lock(&mine->lock);
  rc = ocl_kernel_ready(dev, mine);
  if (!rc) rc = mine->launch(dev, q, mine, l);
  pthread_mutex_unlock(&mine->lock);
  if (dev->images) ocl_images_leave(dev);
  return rc;
}

tern_rc ocl_kernel_get_ready(tern_dev *dev, tern_kernel *k) {
  tern_rc rc = k->section ? ocl_section_ready(dev, k->section) : TERN_OK;
  if (!rc) rc = k->ready(dev, k);
  k->is_ready = !rc;
  return rc;
}

void ocl_kernel_free(tern_dev *dev, tern_kernel *k) {
  if (!k) return;
  if (ocl_alive()) {
    ocl_images_forget(dev, k);
    if (k->destroy) k->destroy(dev, k);
    ocl_section_put(dev, k->section);
  }
  pthread_mutex_destroy(&k->lock);
  free(k);
}

tern_rc ocl_kernel_alloc(tern_dev *dev, size_t size, const char *source, const char *what, tern_kernel **out) {
  tern_kernel *k = calloc(1, size);
  if (!k) return ocl_error(dev->drv, dev->id, TERN_E_OOM, "no memory for a kernel");
  const tern_rc rc = ocl_section_get(dev, source, what, &k->section);
  if (rc) {
    free(k);
    return rc;
  }
  pthread_mutex_init(&k->lock, NULL);
  *out = k;
  return TERN_OK;
}

/* A table that is full answers yes: a wait too many. */
bool ocl_first_launch(tern_dev *dev, cl_kernel kernel, cl_uint dims, const size_t *global) {
  if (dev->late_always) return true;
  bool wide = false; /* PoCL makes another variant of a kernel for ranges past 65535 */
  for (cl_uint d = 0; d < dims; d++) wide |= global[d] > 65535;
  const uintptr_t entry = (uintptr_t)kernel | wide;
  for (uintptr_t i = (entry >> 4) * UINT64_C(0x9E3779B97F4A7C15) >> 51, n = 0; n < 64; i++, n++) {
    uintptr_t seen = atomic_load_explicit(&dev->settled[i % SETTLED], memory_order_relaxed);
    if (seen == entry) return false;
    if (!seen && atomic_compare_exchange_strong(&dev->settled[i % SETTLED], &seen, entry)) return true;
  }
  return true;
}

/* PoCL compiles a kernel for its range on a thread of its own when it is launched first, rusticl at each launch. A
   process that ends during that crashes in LLVM or never ends, since LLVM's tables are gone by then, and no handler at
   exit can come early enough; so such a launch waits. (It costs rusticl little: 430 us for 365.) */
tern_rc ocl_run(tern_dev *dev, tern_queue *q, ocl_call *c, const char *what, cl_uint dims, const size_t *groups,
                const size_t *local) {
  if (c->rc != CL_SUCCESS) return ocl_failed(dev, what, c->rc);
  size_t global[3];
  for (cl_uint d = 0; d < dims; d++) {
    if (!groups[d] || __builtin_mul_overflow(groups[d], local[d], &global[d]))
      return ocl_error(dev->drv, dev->id, TERN_E_ARG, "%s: a range of %zu groups of %zu", what, groups[d], local[d]);
  }
  if (c->command) return ocl_record_run(dev, c, what, dims, global, local);
  cl_int err = clEnqueueNDRangeKernel(q->q, c->kernel, dims, NULL, global, local, 0, NULL, NULL);
  if (err == CL_SUCCESS && dev->late && ocl_first_launch(dev, c->kernel, dims, global)) err = ocl_finish(dev, q->q);
  return err == CL_SUCCESS ? TERN_OK : ocl_queue_failed(q, what, err);
}

tern_rc ocl_run1(tern_dev *dev, tern_queue *q, ocl_call *c, const char *what, uint64_t items, size_t local) {
  const size_t groups = (size_t)((items + local - 1) / local);
  return ocl_run(dev, q, c, what, 1, &groups, &local);
}

tern_rc ocl_check_launch(tern_dev *dev, const tern_launch *l, uint32_t n_args, uint64_t workspace) {
  if (l->n_args < n_args)
    return ocl_error(dev->drv, dev->id, TERN_E_ARG, "a launch with %u arguments for a kernel of %u", l->n_args, n_args);
  for (uint32_t i = 0; i < n_args; i++)
    if (!l->args[i].mem) return ocl_error(dev->drv, dev->id, TERN_E_ARG, "a launch without argument %u", i);
  if (workspace && (!l->workspace.mem || l->workspace.offset > l->workspace.mem->size ||
                    workspace > l->workspace.mem->size - l->workspace.offset))
    return ocl_error(dev->drv, dev->id, TERN_E_ARG, "a launch without its workspace of %llu bytes",
                     (unsigned long long)workspace);
  return TERN_OK;
}

bool ocl_single(const tern_region *r, uint32_t op, uint32_t n_in, const tern_value *v[3]) {
  if (r->n_nodes != 1 || r->nodes[0].op != op || r->nodes[0].n_in != n_in || r->nodes[0].n_out != 1 || n_in > 2)
    return false;
  const tern_node *n = &r->nodes[0];
  for (uint32_t i = 0; i < n_in; i++) {
    v[i] = &r->values[r->edges[n->in + i]];
    if (v[i]->kind != TERN_V_IN || v[i]->slot >= r->n_args) return false;
  }
  v[n_in] = &r->values[r->edges[n->out]];
  return v[n_in]->kind == TERN_V_OUT && v[n_in]->slot < r->n_args;
}
