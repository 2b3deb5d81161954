/* MAP and REDUCE regions: text and launch plan come from the renderer (backends/common/render.h); this file builds
   the section, and turns each planned call into set arguments and one enqueue. */
#include "epilogue.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct region_kernel {
  tern_kernel head;
  render_program *rendered;
  cl_kernel *kernels;
  ocl_set **set;      /* of each kernel, by argument */
  render_call *calls; /* room for render_bind, used under the kernel's lock */
  render_actual *actuals;
  uint32_t n_args;
  char what[48];
} region_kernel;

render_device ocl_render_device(const ocl_id *id) {
  uint32_t group = 1;
  const uint64_t local = id->local_mem ? id->local_mem : 16384; /* the renderer wants 16 bytes an item */
  while (group < 256 && group * 2 <= id->max_group && 32ull * group <= local) group *= 2;
  return (render_device){.dialect = RENDER_OPENCL,
                         .cpu_like = ocl_loops_long(id),
                         .task = id->task,
                         .fixed_group = id->bundled,
                         .fma = id->fma && !id->bundled,
                         .subgroups = id->shuffles && !id->bundled,
                         .fp64 = id->fp64,
                         .fp16 = id->fp16,
                         .group = group,
                         .units = id->units,
                         .local_mem = id->local_mem,
                         .max_arg_bytes = (uint32_t)(id->param_size > UINT32_MAX ? UINT32_MAX : id->param_size)};
}

tern_rc ocl_region_supports(tern_dev *dev, const tern_region *r) {
  const render_device device = ocl_render_device(dev->id);
  render_program *p = NULL;
  const tern_rc rc = render_build(r, &device, "region", &p, NULL, 0);
  if (rc) return TERN_E_UNSUPPORTED;
  render_free(p);
  return TERN_OK;
}

static void region_destroy(tern_dev *dev, tern_kernel *head) {
  region_kernel *k = (region_kernel *)head;
  (void)dev;
  for (uint32_t i = 0; k->kernels && i < k->rendered->n_kernels; i++)
    if (k->kernels[i]) clReleaseKernel(k->kernels[i]);
  for (uint32_t i = 0; k->set && i < k->rendered->n_kernels; i++) free(k->set[i]);
  free(k->set);
  free(k->kernels);
  free(k->calls);
  free(k->actuals);
  render_free(k->rendered);
}

static tern_rc region_workspace(tern_dev *dev, const tern_kernel *head, const tern_word *words, uint64_t *bytes) {
  const region_kernel *k = (const region_kernel *)head;
  (void)dev;
  *bytes = render_workspace(k->rendered, words);
  return TERN_OK;
}

static tern_rc region_call(tern_dev *dev, tern_queue *q, const region_kernel *k, const tern_launch *l,
                           const render_call *call) {
  ocl_call c = ocl_call_of(q, k->kernels[call->kernel]);
  for (uint32_t i = 0; i < call->n_args; i++) {
    const render_actual *a = &k->actuals[call->first + i];
    if (a->kind == RENDER_BYTES) {
      ocl_arg_kept(&c, dev, &k->set[call->kernel][i], a->size, &a->value, false);
      continue;
    }
    const tern_mem *mem = a->kind == RENDER_ARG ? l->args[a->slot].mem : l->workspace.mem;
    if (!mem) return ocl_error(dev->drv, dev->id, TERN_E_ARG, "%s: a launch without its workspace", k->what);
    ocl_arg_kept(&c, dev, &k->set[call->kernel][i], sizeof mem->buffer, &mem->buffer, true);
  }
  const size_t local = call->local, groups = (size_t)(call->global / (local ? local : 1));
  return ocl_run(dev, q, &c, k->what, 1, &groups, &local);
}

static tern_rc region_launch(tern_dev *dev, tern_queue *q, tern_kernel *head, const tern_launch *l) {
  const region_kernel *k = (const region_kernel *)head;
  tern_rc rc = ocl_check_launch(dev, l, k->n_args, 0);
  if (rc) return rc;
  uint32_t n = 0;
  rc = render_bind(k->rendered, l, k->calls, &n, k->actuals);
  if (rc)
    return ocl_error(dev->drv, dev->id, rc, "%s: the sizes of this launch do not fit the kernel's 32-bit indices",
                     k->what);
  for (uint32_t i = 0; i < n && !rc; i++) rc = region_call(dev, q, k, l, &k->calls[i]);
  return rc;
}

static char *region_source(const render_device *device, const render_program *p) {
  char *prelude = render_prelude(device, &p->source, 1);
  ocl_text text = {0};
  if (prelude) ocl_add(&text, "%s\n%s", prelude, p->source);
  free(prelude);
  if (!text.failed) return text.s;
  free(text.s);
  return NULL;
}

/* Room for the kernels and for a launch. */
static tern_rc region_finish(tern_dev *dev, region_kernel *k) {
  const render_program *p = k->rendered;
  k->kernels = calloc(p->n_kernels ? p->n_kernels : 1, sizeof *k->kernels);
  k->calls = calloc(p->max_calls ? p->max_calls : 1, sizeof *k->calls);
  k->actuals = calloc(p->max_actuals ? p->max_actuals : 1, sizeof *k->actuals);
  k->set = calloc(p->n_kernels ? p->n_kernels : 1, sizeof *k->set);
  bool room = k->kernels && k->calls && k->actuals && k->set;
  for (uint32_t i = 0; room && i < p->n_kernels; i++)
    room = (k->set[i] = calloc(p->kernels[i].n_args + 1u, sizeof **k->set)) != NULL;
  return room ? TERN_OK : ocl_error(dev->drv, dev->id, TERN_E_OOM, "no memory for a kernel");
}

static tern_rc region_ready(tern_dev *dev, tern_kernel *head) {
  region_kernel *k = (region_kernel *)head;
  tern_rc rc = TERN_OK;
  for (uint32_t i = 0; i < k->rendered->n_kernels; i++) /* a change of the image made new ones, perhaps */
    memset(k->set[i], 0, k->rendered->kernels[i].n_args * sizeof *k->set[i]);
  for (uint32_t i = 0; i < k->rendered->n_kernels && !rc; i++)
    rc = ocl_kernel_new(dev, head->section, k->rendered->kernels[i].name, &k->kernels[i]);
  return rc;
}

tern_rc ocl_region_compile(tern_dev *dev, const tern_region *r, tern_kernel **out, tern_kernel_info *info) {
  const render_device device = ocl_render_device(dev->id);
  render_program *p = NULL;
  char message[256] = "";
  tern_rc rc = render_build(r, &device, "region", &p, message, sizeof message);
  if (rc) return ocl_error(dev->drv, dev->id, rc, "no kernel for this region: %s", message);
  char what[48];
  snprintf(what, sizeof what, "%s",
           r->hint           ? r->hint
           : r->n_nodes == 1 ? "an elementwise or reduction op"
                             : "a fused region");
  char *source = region_source(&device, p);
  tern_kernel *head = NULL;
  rc = source ? ocl_kernel_alloc(dev, sizeof(region_kernel), source, what, &head)
              : ocl_error(dev->drv, dev->id, TERN_E_OOM, "no memory for the text of %s", what);
  free(source);
  if (rc) {
    render_free(p);
    return rc;
  }
  region_kernel *k = (region_kernel *)head;
  k->head.ready = region_ready;
  k->head.launch = region_launch;
  k->head.workspace = region_workspace;
  k->head.destroy = region_destroy;
  k->rendered = p;
  k->n_args = r->n_args;
  snprintf(k->what, sizeof k->what, "%s", what);
  rc = region_finish(dev, k);
  if (rc) {
    ocl_kernel_free(dev, head);
    return rc;
  }
  if (info) info->workspace = p->fixed_workspace ? render_workspace(p, NULL) : UINT64_MAX;
  *out = head;
  return TERN_OK;
}
