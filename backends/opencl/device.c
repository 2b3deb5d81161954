/* Opening and closing a device: one context and one internal queue. Memory: buffers of the context, with every size
   checked before OpenCL sees it (some runtimes abort on what they cannot allocate). */
#include "ocl.h"

#include <stdlib.h>
#include <string.h>

/* What a call's error means to the core. */
static tern_rc status_of(cl_int err) {
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

tern_rc ocl_failed(const tern_dev *dev, const char *what, cl_int err) {
  return ocl_error(dev->drv, dev->id, status_of(err), "%s failed: %s (%d)", what, ocl_cl_name(err), err);
}

tern_rc ocl_device_open(tern_drv *drv, uint32_t i, tern_dev **out) {
  if (!ocl_alive()) return ocl_forked(drv);
  if (i >= drv->n_ids) return ocl_error(drv, NULL, TERN_E_ARG, "there is no device %u, only %u", i, drv->n_ids);
  const ocl_id *id = &drv->ids[i];
  tern_dev *dev = calloc(1, sizeof *dev);
  if (!dev) return ocl_error(drv, id, TERN_E_OOM, "no memory to open the device");
  dev->drv = drv;
  dev->id = id;
  dev->opened = ocl_now();
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
  pthread_mutex_init(&dev->build_lock, NULL);
  /* PoCL keeps what it compiles itself, and compiles everything once more when it is asked for a binary */
  const bool pocl = !strcmp(id->alias, "pocl");
  dev->lean = pocl && ocl_is_cpu(id);
  dev->late = pocl;
  dev->keep = drv->cache_dir && (!pocl || !strcmp(ocl_option(drv, "cache", "auto"), "always"));
  ocl_replays_open(dev);
  *out = dev;
  return TERN_OK;
}

void ocl_device_close(tern_dev *dev) {
  if (!dev) return;
  if (ocl_alive()) {
    ocl_programs_save(dev, true);
    while (dev->programs) { /* none is in use any more: every kernel was freed */
      ocl_program *p = dev->programs;
      dev->programs = p->next;
      clReleaseProgram(p->program);
      free(p);
    }
    clReleaseCommandQueue(dev->aux);
    clReleaseContext(dev->context);
  }
  pthread_mutex_destroy(&dev->build_lock);
  free(dev);
}

static double gib(uint64_t bytes) { return (double)bytes / (double)(1u << 30); }

/* Make the runtime find real memory now, where it would wait for the first use (GPUs): an allocation that succeeds
   and a launch that fails later could not be answered by freeing pooled blocks. */
static cl_int touch(tern_dev *dev, cl_mem buffer) {
  if (ocl_is_cpu(dev->id)) return CL_SUCCESS;
  const cl_int err =
      clEnqueueMigrateMemObjects(dev->aux, 1, &buffer, CL_MIGRATE_MEM_OBJECT_CONTENT_UNDEFINED, 0, NULL, NULL);
  return err != CL_SUCCESS ? err : clFinish(dev->aux);
}

static tern_rc check_request(tern_dev *dev, const tern_mem_desc *want) {
  const ocl_id *id = dev->id;
  if (want->flags || want->handle)
    return ocl_error(dev->drv, id, TERN_E_UNSUPPORTED, "this kind of memory import is not supported (flags %#x)",
                     want->flags);
  if (!want->size) return ocl_error(dev->drv, id, TERN_E_ARG, "a buffer of 0 bytes was asked for");
  if (want->align > id->align)
    return ocl_error(dev->drv, id, TERN_E_UNSUPPORTED, "alignment %llu asked, %u is what buffers have",
                     (unsigned long long)want->align, id->align);
  if (id->max_alloc && want->size > id->max_alloc)
    return ocl_error(dev->drv, id, TERN_E_OOM,
                     "out of device memory: %.3g GiB asked in one buffer, the device allows %.3g GiB", gib(want->size),
                     gib(id->max_alloc));
  if (!want->host_ptr) return TERN_OK;
  if (!ocl_is_cpu(id) || !id->unified)
    return ocl_error(dev->drv, id, TERN_E_UNSUPPORTED,
                     "host memory cannot be used in place on this device; copy it instead");
  if ((uintptr_t)want->host_ptr % 64)
    return ocl_error(dev->drv, id, TERN_E_UNSUPPORTED, "host memory at %p is not aligned to 64 bytes; copy it instead",
                     want->host_ptr);
  return TERN_OK;
}

tern_rc ocl_mem_alloc(tern_dev *dev, const tern_mem_desc *want, tern_mem **out) {
  if (!ocl_alive()) return ocl_forked(dev->drv);
  tern_rc rc = check_request(dev, want);
  if (rc) return rc;
  const bool import = want->host_ptr != NULL;
  tern_mem *mem = calloc(1, sizeof *mem);
  if (!mem) return ocl_error(dev->drv, dev->id, TERN_E_OOM, "no host memory for a buffer's header");
  *mem = (tern_mem){.size = want->size, .imported = import};
  const uint64_t before = import ? 0 : atomic_fetch_add(&dev->used, want->size);
  const uint64_t limit = dev->id->mem_total;
  cl_int err = CL_MEM_OBJECT_ALLOCATION_FAILURE;
  const bool fits = import || !limit || (before <= limit && want->size <= limit - before);
  if (fits) {
    const cl_mem_flags flags = CL_MEM_READ_WRITE | (import ? CL_MEM_USE_HOST_PTR : 0);
    mem->buffer = clCreateBuffer(dev->context, flags, (size_t)want->size, want->host_ptr, &err);
    if (err == CL_SUCCESS && !import) err = touch(dev, mem->buffer);
    if (err == CL_SUCCESS) {
      *out = mem;
      return TERN_OK;
    }
  }
  if (status_of(err) == TERN_E_OOM || err == CL_INVALID_BUFFER_SIZE)
    rc = ocl_error(dev->drv, dev->id, TERN_E_OOM, "out of device memory: %.3g GiB asked, %.3g of %.3g GiB in use (%s)",
                   gib(want->size), gib(before), gib(limit), ocl_cl_name(err));
  else
    rc = ocl_failed(dev, "creating a buffer", err);
  if (mem->buffer) clReleaseMemObject(mem->buffer);
  if (!import) atomic_fetch_sub(&dev->used, want->size);
  free(mem);
  return rc;
}

void ocl_mem_free(tern_dev *dev, tern_mem *mem) {
  atomic_fetch_add(&dev->freed, 1);
  if (!mem) return;
  if (ocl_alive()) clReleaseMemObject(mem->buffer);
  if (!mem->imported) atomic_fetch_sub(&dev->used, mem->size);
  free(mem);
}

tern_rc ocl_mem_map(tern_dev *dev, tern_mem *mem, uint64_t off, uint64_t size, uint32_t rw, void **out) {
  if (!ocl_alive()) return ocl_forked(dev->drv);
  if (!size || off > mem->size || size > mem->size - off)
    return ocl_error(dev->drv, dev->id, TERN_E_ARG, "map of %llu bytes at %llu of a buffer of %llu",
                     (unsigned long long)size, (unsigned long long)off, (unsigned long long)mem->size);
  cl_map_flags flags = (rw & 1 ? CL_MAP_READ : 0) | (rw & 2 ? CL_MAP_WRITE : 0);
  if (!flags) flags = CL_MAP_READ | CL_MAP_WRITE;
  cl_int err;
  void *p = clEnqueueMapBuffer(dev->aux, mem->buffer, CL_TRUE, flags, (size_t)off, (size_t)size, 0, NULL, NULL, &err);
  if (err != CL_SUCCESS) return ocl_failed(dev, "mapping a buffer", err);
  *out = p;
  return TERN_OK;
}

tern_rc ocl_mem_unmap(tern_dev *dev, tern_mem *mem, void *p) {
  if (!ocl_alive()) return ocl_forked(dev->drv);
  cl_int err = clEnqueueUnmapMemObject(dev->aux, mem->buffer, p, 0, NULL, NULL);
  if (err == CL_SUCCESS) err = clFinish(dev->aux);
  return err == CL_SUCCESS ? TERN_OK : ocl_failed(dev, "unmapping a buffer", err);
}
