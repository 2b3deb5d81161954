/* From source text to programs: shared by text within a device, kept on disk as binaries where the runtime does not do
   that itself. Some runtimes compile a kernel for its work-group size at the first launch, so a program's binary is
   fetched after it has run. */
#include "ocl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void ocl_add(ocl_text *t, const char *fmt, ...) {
  for (;;) {
    if (t->failed) return;
    va_list ap;
    va_start(ap, fmt);
    const size_t room = t->cap - t->n;
    const int n = vsnprintf(t->s ? t->s + t->n : NULL, t->s ? room : 0, fmt, ap);
    va_end(ap);
    if (n >= 0 && t->s && (size_t)n < room) {
      t->n += (size_t)n;
      return;
    }
    const size_t cap = (t->cap + (size_t)(n > 0 ? n : 0)) * 2 + 1024;
    char *s = n < 0 ? NULL : realloc(t->s, cap);
    if (!s) {
      t->failed = true;
      return;
    }
    t->s = s;
    t->cap = cap;
  }
}

static const char *build_options(const tern_dev *dev) {
  cl_device_fp_config fp = 0;
  clGetDeviceInfo(dev->id->device, CL_DEVICE_SINGLE_FP_CONFIG, sizeof fp, &fp, NULL);
  return (fp & CL_FP_CORRECTLY_ROUNDED_DIVIDE_SQRT) ? "-cl-std=CL1.2 -w -cl-fp32-correctly-rounded-divide-sqrt"
                                                    : "-cl-std=CL1.2 -w";
}

/* Report a failed build with the first lines of the compiler's log. */
static tern_rc build_failed(tern_dev *dev, cl_program p, const char *what, cl_int err) {
  if (err == CL_OUT_OF_HOST_MEMORY || err == CL_OUT_OF_RESOURCES || err == CL_DEVICE_NOT_AVAILABLE)
    return ocl_failed(dev, what, err);
  size_t n = 0;
  char *log = NULL;
  if (clGetProgramBuildInfo(p, dev->id->device, CL_PROGRAM_BUILD_LOG, 0, NULL, &n) == CL_SUCCESS && n)
    log = calloc(1, n + 1);
  if (log) clGetProgramBuildInfo(p, dev->id->device, CL_PROGRAM_BUILD_LOG, n, log, NULL);
  const tern_rc rc = err == CL_COMPILER_NOT_AVAILABLE ? TERN_E_UNSUPPORTED : TERN_E_INTERNAL;
  ocl_error(dev->drv, dev->id, rc, "the device's compiler refuses %s: %s: %.700s", what, ocl_cl_name(err),
            log ? log : "no log");
  free(log);
  return rc;
}

static cl_program from_binary(tern_dev *dev, const uint64_t key[2], const char *options) {
  size_t size = 0;
  unsigned char *data = ocl_cache_read(dev->drv, key, &size);
  if (!data) return NULL;
  const unsigned char *bytes = data;
  cl_int err, status = CL_SUCCESS;
  cl_program p = clCreateProgramWithBinary(dev->context, 1, &dev->id->device, &size, &bytes, &status, &err);
  if (p && err == CL_SUCCESS && status == CL_SUCCESS) err = clBuildProgram(p, 1, &dev->id->device, options, NULL, NULL);
  free(data);
  if (p && err == CL_SUCCESS && status == CL_SUCCESS) return p;
  ocl_log(dev->drv, 3, "opencl:%s: a cached binary is not accepted (%s): built again", dev->id->alias,
          ocl_cl_name(err));
  if (p) clReleaseProgram(p);
  return NULL;
}

static tern_rc from_source(tern_dev *dev, const char *source, const char *options, const char *what, cl_program *out) {
  cl_int err;
  cl_program p = clCreateProgramWithSource(dev->context, 1, &source, NULL, &err);
  if (err != CL_SUCCESS) return ocl_failed(dev, what, err);
  err = clBuildProgram(p, 1, &dev->id->device, options, NULL, NULL);
  if (err != CL_SUCCESS) {
    const tern_rc rc = build_failed(dev, p, what, err);
    clReleaseProgram(p);
    return rc;
  }
  *out = p;
  return TERN_OK;
}

/* Build with declarations of our own in place of the runtime's header; NULL when it does not compile so. */
static cl_program without_header(tern_dev *dev, const char *source, const char *options) {
  ocl_text text = {0};
  char lean[200];
  cl_int err;
  snprintf(lean, sizeof lean, "%s -D_OPENCL_H_", options);
  ocl_add_builtins(&text, dev, source);
  ocl_add(&text, "#line 1\n%s", source);
  const char *whole = text.s;
  cl_program p = text.failed ? NULL : clCreateProgramWithSource(dev->context, 1, &whole, NULL, &err);
  if (p && clBuildProgram(p, 1, &dev->id->device, lean, NULL, NULL) != CL_SUCCESS) {
    clReleaseProgram(p);
    p = NULL;
  }
  free(text.s);
  return p;
}

static tern_rc make_program(tern_dev *dev, const char *source, const char *options, const char *what, cl_program *out) {
  *out = dev->lean ? without_header(dev, source, options) : NULL;
  if (*out) return TERN_OK;
  if (dev->lean)
    ocl_log(dev->drv, 3, "opencl:%s: %s does not build without the runtime's header: built with it", dev->id->alias,
            what);
  return from_source(dev, source, options, what, out);
}

/* Under build_lock: the one of this key, made when it is not there. */
static tern_rc find_or_build(tern_dev *dev, const char *source, const char *what, ocl_program **out) {
  const char *options = build_options(dev);
  uint64_t key[2];
  ocl_cache_key(dev, source, options, key);
  for (ocl_program *p = dev->programs; p; p = p->next)
    if (p->key[0] == key[0] && p->key[1] == key[1]) {
      p->refs++;
      *out = p;
      return TERN_OK;
    }
  ocl_program *p = calloc(1, sizeof *p);
  if (!p) return ocl_error(dev->drv, dev->id, TERN_E_OOM, "no memory for a program");
  *p = (ocl_program){.key = {key[0], key[1]}, .refs = 1, .next = dev->programs};
  if (dev->keep) p->program = from_binary(dev, key, options);
  if (!p->program) {
    const tern_rc rc = make_program(dev, source, options, what, &p->program);
    if (rc) {
      free(p);
      return rc;
    }
    if (dev->keep) {
      atomic_store(&p->save, 1);
      atomic_fetch_add(&dev->unsaved, 1);
    }
  }
  dev->programs = p;
  *out = p;
  return TERN_OK;
}

tern_rc ocl_program_get(tern_dev *dev, const char *source, const char *what, ocl_program **out) {
  pthread_mutex_lock(&dev->build_lock);
  const tern_rc rc = find_or_build(dev, source, what, out);
  pthread_mutex_unlock(&dev->build_lock);
  return rc;
}

/* Under build_lock. Half a second at once, and a fifth of the time since the device was opened: what does not fit is
   left to later syncs and later processes. */
static bool may_save(const tern_dev *dev) { return dev->save_spent < 500000000 + (ocl_now() - dev->opened) / 5; }

static void save(tern_dev *dev, ocl_program *p) {
  const int64_t start = ocl_now();
  size_t size = 0;
  cl_int err = CL_INVALID_OPERATION;
  if (!atomic_load(&dev->drv->cache_warned)) /* else there is nowhere to put it */
    err = clGetProgramInfo(p->program, CL_PROGRAM_BINARY_SIZES, sizeof size, &size, NULL);
  unsigned char *data = err == CL_SUCCESS && size ? malloc(size) : NULL;
  if (data) err = clGetProgramInfo(p->program, CL_PROGRAM_BINARIES, sizeof data, &data, NULL);
  if (data && err == CL_SUCCESS) ocl_cache_write(dev->drv, p->key, data, size);
  free(data);
  atomic_store(&p->save, 0);
  atomic_fetch_sub(&dev->unsaved, 1);
  dev->save_spent += ocl_now() - start;
}

void ocl_programs_save(tern_dev *dev, bool all) {
  if (!atomic_load(&dev->unsaved)) return;
  pthread_mutex_lock(&dev->build_lock);
  for (ocl_program *p = dev->programs; p && may_save(dev); p = p->next) {
    const unsigned state = atomic_load(&p->save);
    if (state == 2 || (state && all)) save(dev, p);
  }
  pthread_mutex_unlock(&dev->build_lock);
}

void ocl_program_put(tern_dev *dev, ocl_program *p) {
  if (!p) return;
  pthread_mutex_lock(&dev->build_lock);
  if (--p->refs == 0) {
    if (atomic_load(&p->save)) {
      if (may_save(dev))
        save(dev, p);
      else
        atomic_fetch_sub(&dev->unsaved, 1);
    }
    ocl_program **at = &dev->programs;
    while (*at && *at != p) at = &(*at)->next;
    if (*at) *at = p->next;
    clReleaseProgram(p->program);
    free(p);
  }
  pthread_mutex_unlock(&dev->build_lock);
}

tern_rc ocl_kernel_new(tern_dev *dev, const ocl_program *p, const char *name, cl_kernel *out) {
  cl_int err;
  *out = clCreateKernel(p->program, name, &err);
  return err == CL_SUCCESS ? TERN_OK : ocl_failed(dev, name, err);
}
