/* Memory: buffers of the context, with every size checked before OpenCL sees it (some runtimes abort on what they
   cannot allocate). Where kernels work on the host's own memory, buffers are made over memory whose address is known
   (fine-grained SVM where the device has it, else aligned host memory), so that downloads, and uploads to an idle
   queue, are plain copies; whether a device really works so is tried out when it is opened. */
#include "bundle.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HOST_ALIGN = 4096, HUGE_PAGE = 2 << 20, HUGE_FROM = 4 << 20 };
enum { SVM_FINE_GRAIN_BUFFER = 2, MEM_SVM_FINE_GRAIN_BUFFER = 1 << 10 }; /* OpenCL 2.0, not declared here */

/* ---- host memory that kernels use in place ---- */

/* OpenCL 2.0: taken from the platform or the loader, since neither needs to have them. */
typedef void *(*svm_alloc_fn)(cl_context, cl_bitfield, size_t, cl_uint);
typedef void (*svm_free_fn)(cl_context, void *);

static void *function_of(const tern_dev *dev, const char *name) {
  void *f = clGetExtensionFunctionAddressForPlatform(dev->id->platform, name);
  return f ? f : dlsym(RTLD_DEFAULT, name);
}

/* Large blocks in huge pages, where the system gives some: reading them takes 2/3 of the time then. */
static void in_huge_pages(void *p, size_t bytes) {
#ifdef MADV_HUGEPAGE
  const uintptr_t first = ((uintptr_t)p + HOST_ALIGN - 1) / HOST_ALIGN * HOST_ALIGN, end = (uintptr_t)p + bytes;
  if (p && bytes >= HUGE_FROM) madvise((void *)first, (end - first) / HOST_ALIGN * HOST_ALIGN, MADV_HUGEPAGE);
#endif
}

static void *host_alloc(const tern_dev *dev, ocl_direct how, size_t bytes) {
  const size_t align = bytes >= HUGE_FROM ? HUGE_PAGE : HOST_ALIGN, whole = (bytes + align - 1) / align * align;
  void *p;
  if (how == OCL_DIRECT_SVM) {
    svm_alloc_fn alloc;
    *(void **)&alloc = dev->svm_alloc;
    p = alloc(dev->context, CL_MEM_READ_WRITE | MEM_SVM_FINE_GRAIN_BUFFER, whole, 0);
  } else {
    p = aligned_alloc(align, whole);
  }
  if (ocl_is_cpu(dev->id)) in_huge_pages(p, whole);
  return p;
}

static void host_free(const tern_dev *dev, ocl_direct how, void *p) {
  if (how == OCL_DIRECT_SVM && p && ocl_alive()) {
    svm_free_fn give;
    *(void **)&give = dev->svm_free;
    give(dev->context, p);
  } else if (how != OCL_DIRECT_SVM) {
    free(p);
  }
}

static bool all_are(const unsigned char *p, size_t n, unsigned char v) {
  for (size_t i = 0; i < n; i++)
    if (p[i] != v) return false;
  return true;
}

/* What the device writes is at the address, and the device reads what is written there: both twice, so that a runtime
   which copies at the first use is found out. */
static bool shares(tern_dev *dev, ocl_direct how) {
  enum { BYTES = 4096 };
  unsigned char *p = host_alloc(dev, how, BYTES), back[BYTES];
  if (!p) return false;
  memset(p, 0, BYTES);
  cl_int err;
  cl_mem b = clCreateBuffer(dev->context, CL_MEM_READ_WRITE | CL_MEM_USE_HOST_PTR, BYTES, p, &err);
  bool same = err == CL_SUCCESS;
  for (unsigned char v = 0x35; same && v < 0x37; v++) {
    err = clEnqueueFillBuffer(dev->aux, b, &v, 1, 0, BYTES, 0, NULL, NULL);
    if (err == CL_SUCCESS) err = ocl_finish(dev, dev->aux);
    same = err == CL_SUCCESS && all_are(p, BYTES, v);
    memset(p, v ^ 0xff, BYTES);
    if (same) err = clEnqueueReadBuffer(dev->aux, b, CL_TRUE, 0, BYTES, back, 0, NULL, NULL);
    same = same && err == CL_SUCCESS && all_are(back, BYTES, v ^ 0xff);
  }
  if (b) clReleaseMemObject(b);
  host_free(dev, how, p);
  return same;
}

ocl_direct ocl_direct_open(tern_dev *dev) {
  const ocl_id *id = dev->id;
  if (!id->unified) return OCL_NOT_DIRECT;
  if (id->svm & SVM_FINE_GRAIN_BUFFER) {
    dev->svm_alloc = function_of(dev, "clSVMAlloc");
    dev->svm_free = function_of(dev, "clSVMFree");
    if (dev->svm_alloc && dev->svm_free && shares(dev, OCL_DIRECT_SVM)) return OCL_DIRECT_SVM;
  }
  /* without SVM the standard asks for a map before the host looks; a CPU's caches do not */
  return ocl_is_cpu(id) && shares(dev, OCL_DIRECT_HOST) ? OCL_DIRECT_HOST : OCL_NOT_DIRECT;
}

/* ---- buffers ---- */

static double gib(uint64_t bytes) { return (double)bytes / (double)(1u << 30); }

/* Make the runtime find real memory now, where it would wait for the first use (GPUs): an allocation that succeeds
   and a launch that fails later could not be answered by freeing pooled blocks. */
static cl_int touch(tern_dev *dev, cl_mem buffer) {
  if (ocl_is_cpu(dev->id)) return CL_SUCCESS;
  const cl_int err =
      clEnqueueMigrateMemObjects(dev->aux, 1, &buffer, CL_MIGRATE_MEM_OBJECT_CONTENT_UNDEFINED, 0, NULL, NULL);
  return err != CL_SUCCESS ? err : ocl_finish(dev, dev->aux);
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
    return ocl_error(
        dev->drv, id, TERN_E_OOM,
        "out of device memory: %.3g GiB (%llu bytes) asked in one buffer, the device allows %.3g GiB (%llu)",
        gib(want->size), (unsigned long long)want->size, gib(id->max_alloc), (unsigned long long)id->max_alloc);
  if (!want->host_ptr) return TERN_OK;
  if (!ocl_is_cpu(id) || !id->unified)
    return ocl_error(dev->drv, id, TERN_E_UNSUPPORTED,
                     "host memory cannot be used in place on this device; copy it instead");
  if ((uintptr_t)want->host_ptr % 64)
    return ocl_error(dev->drv, id, TERN_E_UNSUPPORTED, "host memory at %p is not aligned to 64 bytes; copy it instead",
                     want->host_ptr);
  return TERN_OK;
}

/* The buffer itself, over host memory of its own where that is shared. */
static cl_int create(tern_dev *dev, tern_mem *mem, void *import) {
  cl_int err;
  mem->host = dev->direct ? import : NULL;
  if (dev->direct && !import) {
    mem->host = mem->own = host_alloc(dev, dev->direct, (size_t)mem->size);
    if (!mem->own) return CL_MEM_OBJECT_ALLOCATION_FAILURE;
    import = mem->own;
  }
  mem->buffer = clCreateBuffer(dev->context, CL_MEM_READ_WRITE | (import ? CL_MEM_USE_HOST_PTR : 0), (size_t)mem->size,
                               import, &err);
  if (err == CL_SUCCESS && !import) err = touch(dev, mem->buffer);
  return err;
}

static void destroy(tern_dev *dev, tern_mem *mem) {
  if (mem->buffer && ocl_alive()) clReleaseMemObject(mem->buffer);
  host_free(dev, dev->direct, mem->own);
  free(mem);
}

tern_rc ocl_mem_alloc(tern_dev *dev, const tern_mem_desc *want, tern_mem **out) {
  if (!ocl_alive()) return ocl_forked(dev->drv);
  if (dev->collect) return ocl_collect_alloc(dev, want, out);
  tern_rc rc = check_request(dev, want);
  if (rc) return rc;
  const bool import = want->host_ptr != NULL;
  tern_mem *mem = calloc(1, sizeof *mem);
  if (!mem) return ocl_error(dev->drv, dev->id, TERN_E_OOM, "no host memory for a buffer's header");
  mem->size = want->size;
  mem->imported = import;
  const uint64_t before = import ? 0 : atomic_fetch_add(&dev->used, want->size);
  const uint64_t limit = dev->id->mem_total;
  const bool fits = import || !limit || (before <= limit && want->size <= limit - before);
  const cl_int err = fits ? create(dev, mem, want->host_ptr) : CL_MEM_OBJECT_ALLOCATION_FAILURE;
  if (err == CL_SUCCESS) {
    ocl_images_add_mem(dev, mem);
    *out = mem;
    return TERN_OK;
  }
  if (ocl_status(err) == TERN_E_OOM || err == CL_INVALID_BUFFER_SIZE)
    rc = ocl_error(dev->drv, dev->id, TERN_E_OOM, "out of device memory: %.3g GiB asked, %.3g of %.3g GiB in use (%s)",
                   gib(want->size), gib(before), gib(limit), ocl_cl_name(err));
  else
    rc = ocl_failed(dev, "creating a buffer", err);
  destroy(dev, mem);
  if (!import) atomic_fetch_sub(&dev->used, want->size);
  return rc;
}

void ocl_mem_free(tern_dev *dev, tern_mem *mem) {
  if (dev->collect) {
    ocl_collect_free(mem);
    return;
  }
  if (!mem) return;
  if (ocl_alive()) ocl_images_drop_mem(dev, mem); /* its lock may have been held at a fork */
  atomic_fetch_add(&dev->freed, 1);
  if (!mem->imported) atomic_fetch_sub(&dev->used, mem->size);
  destroy(dev, mem);
}

tern_rc ocl_mem_map(tern_dev *dev, tern_mem *mem, uint64_t off, uint64_t size, uint32_t rw, void **out) {
  if (!ocl_alive()) return ocl_forked(dev->drv);
  if (!size || off > mem->size || size > mem->size - off)
    return ocl_error(dev->drv, dev->id, TERN_E_ARG, "map of %llu bytes at %llu of a buffer of %llu",
                     (unsigned long long)size, (unsigned long long)off, (unsigned long long)mem->size);
  if (mem->host) {
    *out = mem->host + off;
    return TERN_OK;
  }
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
  if (mem->host) return TERN_OK;
  cl_int err = clEnqueueUnmapMemObject(dev->aux, mem->buffer, p, 0, NULL, NULL);
  if (err == CL_SUCCESS) err = ocl_finish(dev, dev->aux);
  return err == CL_SUCCESS ? TERN_OK : ocl_failed(dev, "unmapping a buffer", err);
}

/* ---- pinned host memory ---- */

tern_rc ocl_pinned_open(tern_dev *dev, size_t bytes, ocl_pinned *out) {
  *out = (ocl_pinned){0};
  if (dev->staged) {
    cl_int err;
    out->buffer = clCreateBuffer(dev->context, CL_MEM_READ_WRITE | CL_MEM_ALLOC_HOST_PTR, bytes, NULL, &err);
    if (err == CL_SUCCESS)
      out->at =
          clEnqueueMapBuffer(dev->aux, out->buffer, CL_TRUE, CL_MAP_READ | CL_MAP_WRITE, 0, bytes, 0, NULL, NULL, &err);
    if (err == CL_SUCCESS && out->at) return TERN_OK;
    if (out->buffer) clReleaseMemObject(out->buffer);
    out->buffer = NULL;
    ocl_log(dev->drv, 3, "opencl:%s: no pinned memory (%s): plain memory is used", dev->id->alias, ocl_cl_name(err));
  }
  out->at = malloc(bytes);
  return out->at ? TERN_OK : ocl_error(dev->drv, dev->id, TERN_E_OOM, "no host memory for transfers");
}

void ocl_pinned_close(tern_dev *dev, ocl_pinned *p) {
  if (!p->buffer) {
    free(p->at);
  } else if (ocl_alive()) {
    clEnqueueUnmapMemObject(dev->aux, p->buffer, p->at, 0, NULL, NULL);
    clFinish(dev->aux);
    clReleaseMemObject(p->buffer);
  }
  *p = (ocl_pinned){0};
}
