/* Opening and closing a device: one context and one internal queue; and what an OpenCL error means to the core. */
#include "bundle.h"
#include "tune.h"
#include "build.h"

#include <stdlib.h>
#include <string.h>

/* Of a call that creates or asks something. */
tern_rc ocl_status(cl_int err) {
  switch (err) {
  case CL_SUCCESS: return TERN_OK;
  case CL_MEM_OBJECT_ALLOCATION_FAILURE:
  case CL_OUT_OF_RESOURCES:
  case CL_OUT_OF_HOST_MEMORY: return TERN_E_OOM;
  case CL_DEVICE_NOT_AVAILABLE:
  case CL_INVALID_COMMAND_QUEUE: return TERN_E_LOST;
  default: return TERN_E_INTERNAL;
  }
}

/* Of a call that submits work or waits for it: once the device works, resources that are missing are its end. */
tern_rc ocl_work_status(cl_int err) { return err == CL_OUT_OF_RESOURCES ? TERN_E_LOST : ocl_status(err); }

cl_int ocl_finish(const tern_dev *dev, cl_command_queue q) {
  if (dev->id->lazy_finish) clEnqueueMarkerWithWaitList(q, 0, NULL, NULL);
  return clFinish(q);
}

tern_rc ocl_failed(const tern_dev *dev, const char *what, cl_int err) {
  return ocl_error(dev->drv, dev->id, ocl_status(err), "%s failed: %s (%d)", what, ocl_cl_name(err), err);
}

/* No context, no queue: sections alone. */
static tern_rc open_collector(tern_dev *dev, tern_dev **out) {
  tern_rc rc = ocl_build_open(dev);
  if (!rc) {
    dev->build->background = false;
    rc = ocl_collect_open(dev);
  }
  if (!rc)
    *out = dev;
  else
    ocl_device_close(dev);
  return rc;
}

/* The images of the device's bundle, if it has one; or one is made. */
static tern_rc open_bundle(tern_dev *dev, tern_dev **out) {
  const char *make = ocl_option(dev->drv, "bundle_image", "");
  if (!ocl_can_run(dev->id) || dev->id->bundled || !dev->id->compiler) dev->build->background = dev->keep = false;
  tern_rc rc = ocl_images_open(dev);
  if (!rc && *make) rc = ocl_image_make(dev, make);
  if (!rc) rc = ocl_selftest(dev);
  if (!rc && ocl_is_cpu(dev->id) && !ocl_loops_long(dev->id))
    ocl_log(
        dev->drv, 2,
        "opencl:%s: llvmpipe leaves a work-item's loops after 65,535 rounds: results that need more in one work-item "
        "(long products, SCATTER with many indices) are wrong on it",
        dev->id->alias);
  if (!rc)
    *out = dev;
  else
    ocl_device_close(dev);
  return rc;
}

tern_rc ocl_device_open(tern_drv *drv, uint32_t i, tern_dev **out) {
  if (!ocl_alive()) return ocl_forked(drv);
  if (i >= drv->n_ids) return ocl_error(drv, NULL, TERN_E_ARG, "there is no device %u, only %u", i, drv->n_ids);
  const ocl_id *id = &drv->ids[i];
  if (id->useless) return ocl_error(drv, id, TERN_E_UNSUPPORTED, "%s", id->useless);
  tern_dev *dev = calloc(1, sizeof *dev);
  if (!dev) return ocl_error(drv, id, TERN_E_OOM, "no memory to open the device");
  dev->drv = drv;
  dev->id = id;
  if (id->collects) return open_collector(dev, out);
  const cl_context_properties props[] = {CL_CONTEXT_PLATFORM, (cl_context_properties)id->platform, 0};
  cl_int err;
  dev->context = clCreateContext(props, 1, &id->device, NULL, NULL, &err);
  if (err == CL_SUCCESS) dev->aux = clCreateCommandQueue(dev->context, id->device, 0, &err);
  if (err != CL_SUCCESS) {
    const tern_rc rc = ocl_failed(dev, "opening the device", err);
    if (dev->context) clReleaseContext(dev->context);
    free(dev);
    return rc;
  }
  const tern_rc built = ocl_build_open(dev);
  if (built) {
    clReleaseCommandQueue(dev->aux);
    clReleaseContext(dev->context);
    free(dev);
    return built;
  }
  /* PoCL keeps what it compiles itself, and compiles everything once more when it is asked for a binary */
  const bool pocl = !strcmp(id->alias, "pocl");
  dev->lean = pocl && ocl_is_cpu(id);
  dev->late_always = !strcmp(id->alias, "rusticl");
  dev->late = pocl || dev->late_always;
  const char *cache = ocl_option(drv, "cache", "auto");
  dev->keep = drv->cache_dir && strcmp(cache, "off");
  dev->keep_text = !strcmp(cache, "source") || (pocl && strcmp(cache, "binary"));
  ocl_replays_open(dev);
  dev->direct = ocl_direct_open(dev);
  dev->staged = !dev->direct && !id->unified;
  return open_bundle(dev, out);
}

void ocl_device_close(tern_dev *dev) {
  if (!dev) return;
  if (ocl_alive()) {
    ocl_tune_close(dev);
    ocl_build_close(dev);
    ocl_images_close(dev);
    ocl_collect_close(dev);
    if (dev->aux) clReleaseCommandQueue(dev->aux);
    if (dev->context) clReleaseContext(dev->context);
  }
  free(dev);
}
