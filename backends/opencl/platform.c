/* Every device of every platform that the loader knows, in an order that does not depend on the loader's. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* strcasestr */
#endif
#include "bundle.h"

#define XXH_INLINE_ALL
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <xxhash.h>

/* OpenCL 2.0 and 2.1, not declared here */
enum { DEVICE_SVM_CAPABILITIES = 0x1053, DEVICE_MAX_NUM_SUB_GROUPS = 0x105C, SVM_COARSE = 1, SVM_FINE = 2 };

bool ocl_can_run(const ocl_id *id) { return id->compiler || id->bundled; }

bool ocl_is_cpu(const ocl_id *id) { return (id->type & CL_DEVICE_TYPE_CPU) && !(id->type & CL_DEVICE_TYPE_GPU); }

bool ocl_loops_long(const ocl_id *id) { return ocl_is_cpu(id) && !strcasestr(id->name, "llvmpipe"); }

static void device_string(cl_device_id d, cl_device_info what, char *out, size_t cap) {
  out[0] = 0;
  if (clGetDeviceInfo(d, what, cap, out, NULL) != CL_SUCCESS) {
    size_t n = 0;
    char *all = clGetDeviceInfo(d, what, 0, NULL, &n) == CL_SUCCESS && n ? malloc(n) : NULL;
    out[0] = 0;
    if (all && clGetDeviceInfo(d, what, n, all, NULL) == CL_SUCCESS) snprintf(out, cap, "%.*s", (int)cap - 1, all);
    free(all);
  }
  out[cap - 1] = 0;
}

static void platform_string(cl_platform_id p, cl_platform_info what, char *out, size_t cap) {
  out[0] = 0;
  if (clGetPlatformInfo(p, what, cap, out, NULL) != CL_SUCCESS) snprintf(out, cap, "unknown");
  out[cap - 1] = 0;
}

static cl_ulong device_number(cl_device_id d, cl_device_info what, size_t size) {
  cl_ulong wide = 0;
  cl_uint narrow = 0;
  if (size == sizeof narrow) return clGetDeviceInfo(d, what, size, &narrow, NULL) == CL_SUCCESS ? narrow : 0;
  return clGetDeviceInfo(d, what, size, &wide, NULL) == CL_SUCCESS ? wide : 0;
}

/* Short names by a piece of the platform's name; the first word in lower case for platforms that nobody listed. */
static void set_alias(ocl_id *id) {
  static const char *const known[][2] = {
      {"portable computing", "pocl"}, {"pocl", "pocl"},           {"rusticl", "rusticl"},    {"clover", "clover"},
      {"oclgrind", "oclgrind"},       {"fpga emul", "fpga-emu"},  {"intel(r) fpga", "fpga"}, {"xilinx", "xilinx"},
      {"nvidia", "nvidia"},           {"amd accelerated", "amd"}, {"intel", "intel"},        {"apple", "apple"},
      {"arm platform", "mali"},       {"qualcomm", "adreno"},     {"clvk", "clvk"}};
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
    if (strcasestr(id->platform_name, known[i][0])) {
      snprintf(id->alias, sizeof id->alias, "%s", known[i][1]);
      return;
    }
  size_t n = 0;
  for (const char *s = id->platform_name; *s && n < 24; s++) {
    const char c = (char)(*s | 32);
    const bool word = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); /* digits have bit 5 set already */
    if (word)
      id->alias[n++] = c;
    else if (n)
      break;
  }
  if (!n) snprintf(id->alias, sizeof id->alias, "device");
}

/* CL_FP_FMA says that there is one, which a CPU's runtime may compute by software */
static bool fast_fma(const tern_drv *drv, const ocl_id *id) {
  const cl_ulong config = device_number(id->device, CL_DEVICE_SINGLE_FP_CONFIG, sizeof(cl_device_fp_config));
  return (config & CL_FP_FMA) &&
         (!ocl_is_cpu(id) || strstr(drv->cpu_features, " fma ") || strstr(drv->cpu_features, " asimd "));
}

/* What not every device has: asked for, and shown to people. `ext`: its extensions. */
static void describe_features(ocl_id *id, const char *profile, const char *ext) {
  const cl_device_id d = id->device;
  id->embedded = strstr(profile, "EMBEDDED") != NULL;
  id->fp64 = device_number(d, CL_DEVICE_DOUBLE_FP_CONFIG, sizeof(cl_device_fp_config)) != 0;
  id->fp16 = strstr(ext, "cl_khr_fp16") != NULL;
  id->int64 = !id->embedded || strstr(ext, "cles_khr_int64");
  if (!id->int64) id->useless = "the device lacks 64-bit integers (cles_khr_int64), which indices are computed in";
  id->images = device_number(d, CL_DEVICE_IMAGE_SUPPORT, sizeof(cl_bool)) != 0;
  id->out_of_order = device_number(d, CL_DEVICE_QUEUE_PROPERTIES, sizeof(cl_command_queue_properties)) &
                     CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE;
  id->command_buffers = strstr(ext, "cl_khr_command_buffer") != NULL;
  if (id->version >= 20) id->svm = device_number(d, DEVICE_SVM_CAPABILITIES, sizeof(cl_bitfield));
  id->subgroups = strstr(ext, "cl_khr_subgroups") || strstr(ext, "cl_intel_subgroups") ||
                  (id->version >= 21 && device_number(d, DEVICE_MAX_NUM_SUB_GROUPS, sizeof(cl_uint)));
  id->shuffles = strstr(ext, "cl_khr_subgroup_shuffle_relative") || strstr(ext, "cl_intel_subgroups");
  cl_uint dims = 0;
  size_t items[16] = {0};
  if (clGetDeviceInfo(d, CL_DEVICE_MAX_WORK_ITEM_DIMENSIONS, sizeof dims, &dims, NULL) == CL_SUCCESS && dims <= 16)
    clGetDeviceInfo(d, CL_DEVICE_MAX_WORK_ITEM_SIZES, dims * sizeof *items, items, NULL);
  memcpy(id->max_items, items, sizeof id->max_items);
  if (items[0] && id->max_group > items[0]) id->max_group = items[0]; /* ranges have one dimension nearly everywhere */
}

/* False, with the reason logged, for a device that generated OpenCL C 1.2 cannot reach. */
static bool describe(const tern_drv *drv, ocl_id *id) {
  char version[128], driver[128], platform[128], profile[64], ext[8192];
  device_string(id->device, CL_DEVICE_NAME, id->name, sizeof id->name);
  device_string(id->device, CL_DEVICE_VERSION, version, sizeof version);
  device_string(id->device, CL_DRIVER_VERSION, driver, sizeof driver);
  device_string(id->device, CL_DEVICE_PROFILE, profile, sizeof profile);
  device_string(id->device, CL_DEVICE_EXTENSIONS, ext, sizeof ext);
  platform_string(id->platform, CL_PLATFORM_VERSION, platform, sizeof platform);
  snprintf(id->versions, sizeof id->versions, "%s|%s|%s|%s|%s", id->platform_name, platform, id->name, version, driver);
  int major = 0, minor = 0;
  const char *why = NULL;
  if (sscanf(version, "OpenCL %d.%d", &major, &minor) != 2 || major * 10 + minor < 12)
    why = "it is older than OpenCL 1.2, or does not tell its version";
  else if (!device_number(id->device, CL_DEVICE_AVAILABLE, sizeof(cl_bool)))
    why = "it says that it is not available";
  else if (!device_number(id->device, CL_DEVICE_ENDIAN_LITTLE, sizeof(cl_bool)))
    why = "it is big-endian";
  if (why) {
    ocl_log(drv, 2, "opencl: %s / %s is left out: %s (%s)", id->platform_name, id->name, why, version);
    return false;
  }
  id->version = (cl_uint)(major * 10 + minor);
  id->compiler = device_number(id->device, CL_DEVICE_COMPILER_AVAILABLE, sizeof(cl_bool)) != 0;
  id->unified = device_number(id->device, CL_DEVICE_HOST_UNIFIED_MEMORY, sizeof(cl_bool)) != 0;
  id->fma = fast_fma(drv, id);
  id->mem_total = device_number(id->device, CL_DEVICE_GLOBAL_MEM_SIZE, sizeof(cl_ulong));
  id->max_alloc = device_number(id->device, CL_DEVICE_MAX_MEM_ALLOC_SIZE, sizeof(cl_ulong));
  id->local_mem = device_number(id->device, CL_DEVICE_LOCAL_MEM_SIZE, sizeof(cl_ulong));
  id->max_group = (size_t)device_number(id->device, CL_DEVICE_MAX_WORK_GROUP_SIZE, sizeof(size_t));
  id->param_size = (size_t)device_number(id->device, CL_DEVICE_MAX_PARAMETER_SIZE, sizeof(size_t));
  id->align = (cl_uint)device_number(id->device, CL_DEVICE_MEM_BASE_ADDR_ALIGN, sizeof(cl_uint)) / 8;
  id->units = (cl_uint)device_number(id->device, CL_DEVICE_MAX_COMPUTE_UNITS, sizeof(cl_uint));
  id->float_width = (cl_uint)device_number(id->device, CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT, sizeof(cl_uint));
  if (id->align < 64) id->align = 64;
  describe_features(id, profile, ext);
  const bool emulator = strcasestr(id->name, "emulat") || strcasestr(id->platform_name, "emulat");
  const bool grind = strcasestr(id->platform_name, "oclgrind") != NULL;
  id->fpga =
      (id->type & CL_DEVICE_TYPE_ACCELERATOR) && !grind && (!id->compiler || strcasestr(id->platform_name, "fpga"));
  id->hidden = grind || (emulator && strcmp(ocl_option(drv, "emulators", "0"), "1") != 0);
  set_alias(id);
  id->lazy_finish = !strcmp(id->alias, "rusticl");
  /* the kind's place: GPU, accelerator, CPU, others, and what has no number last */
  id->order = (id->type & CL_DEVICE_TYPE_GPU)           ? 0
              : (id->type & CL_DEVICE_TYPE_ACCELERATOR) ? 1
              : ocl_is_cpu(id)                          ? 2
                                                        : 3;
  if (id->hidden) id->order += 8;
  return true;
}

static int compare(const void *pa, const void *pb) {
  const ocl_id *a = pa, *b = pb;
  if (a->order != b->order) return a->order < b->order ? -1 : 1;
  int c = strcmp(a->platform_name, b->platform_name);
  if (!c) c = strcmp(a->versions, b->versions);
  if (!c) c = strcmp(a->name, b->name);
  return c ? c : (a->index > b->index) - (a->index < b->index);
}

static tern_rc add_platform(tern_drv *drv, cl_platform_id p) {
  cl_uint n = 0;
  char name[128];
  const cl_int err = clGetDeviceIDs(p, CL_DEVICE_TYPE_ALL, 0, NULL, &n);
  if (err != CL_SUCCESS || !n) { /* CL_DEVICE_NOT_FOUND: an empty platform */
    if (err != CL_SUCCESS && err != CL_DEVICE_NOT_FOUND) {
      platform_string(p, CL_PLATFORM_NAME, name, sizeof name);
      ocl_log(drv, 1, "opencl: the platform \"%s\" is left out: it does not list its devices: %s", name,
              ocl_cl_name(err));
    }
    return TERN_OK;
  }
  cl_device_id *devices = calloc(n, sizeof *devices);
  ocl_id *grown = realloc(drv->ids, (drv->n_ids + n) * sizeof *grown);
  if (grown) drv->ids = grown;
  if (!devices || !grown) {
    free(devices);
    return ocl_error(drv, NULL, TERN_E_OOM, "no memory for the device list");
  }
  cl_uint got = 0;
  if (clGetDeviceIDs(p, CL_DEVICE_TYPE_ALL, n, devices, &got) != CL_SUCCESS) got = 0;
  for (cl_uint i = 0; i < got && i < n; i++) {
    ocl_id *id = &drv->ids[drv->n_ids];
    *id = (ocl_id){.platform = p, .device = devices[i], .index = i};
    platform_string(p, CL_PLATFORM_NAME, id->platform_name, sizeof id->platform_name);
    if (clGetDeviceInfo(devices[i], CL_DEVICE_TYPE, sizeof id->type, &id->type, NULL) == CL_SUCCESS &&
        describe(drv, id))
      drv->n_ids++;
  }
  free(devices);
  return TERN_OK;
}

tern_rc ocl_enumerate(tern_drv *drv) {
  cl_uint n = 0;
  const cl_int err = clGetPlatformIDs(0, NULL, &n);
  if (err != CL_SUCCESS || !n) { /* CL_PLATFORM_NOT_FOUND_KHR (-1001): no driver is installed */
    ocl_log(drv, 3, "opencl: no platform: %s", ocl_cl_name(err));
    return TERN_OK;
  }
  drv->n_platforms = n;
  cl_platform_id *platforms = calloc(n, sizeof *platforms);
  if (!platforms) return ocl_error(drv, NULL, TERN_E_OOM, "no memory for the platform list");
  cl_uint got = 0;
  tern_rc rc = TERN_OK;
  if (clGetPlatformIDs(n, platforms, &got) != CL_SUCCESS) got = 0;
  for (cl_uint i = 0; i < got && i < n && !rc; i++) rc = add_platform(drv, platforms[i]);
  free(platforms);
  if (!rc && drv->n_ids) qsort(drv->ids, drv->n_ids, sizeof *drv->ids, compare);
  return rc;
}

static uint32_t kind_of(const ocl_id *id) {
  if (id->fpga) return TERN_KIND_FPGA;
  if (id->type & CL_DEVICE_TYPE_GPU) return id->hidden ? TERN_KIND_OTHER : TERN_KIND_GPU;
  if (id->type & CL_DEVICE_TYPE_ACCELERATOR) return TERN_KIND_ACCELERATOR;
  return id->type & CL_DEVICE_TYPE_CPU ? TERN_KIND_CPU : TERN_KIND_OTHER;
}

static void features(const ocl_id *id, char *out, size_t size) {
  char items[80] = "";
  if (id->max_items[1])
    snprintf(items, sizeof items, " items:%zux%zux%zu", id->max_items[0], id->max_items[1], id->max_items[2]);
  const char *compiler = id->compiler ? "" : id->bundled ? "bundle " : "no-compiler ";
  const char *svm = id->svm & SVM_FINE ? "svm:fine " : id->svm & SVM_COARSE ? "svm:coarse " : "";
  snprintf(out, size, "%s%s%s%s%s%s%s%s%s%sunits:%u vector:%u group:%zu local:%llu align:%u%s",
           id->embedded ? "embedded " : "", id->fp64 ? "fp64 " : "", id->fp16 ? "fp16 " : "", compiler,
           id->unified ? "unified " : "", svm, id->images ? "images " : "", id->out_of_order ? "out-of-order " : "",
           id->command_buffers ? "command-buffer " : "", id->subgroups ? "sub-groups " : "", id->units, id->float_width,
           id->max_group, (unsigned long long)id->local_mem, id->align, items);
}

/* Why there is no device at all: the core shows it to who asks for one. */
static void tell_none(const tern_drv *drv) {
  if (!drv->n_platforms)
    ocl_error(drv, NULL, TERN_E_END,
              "no OpenCL driver is installed. A GPU's comes with its vendor's driver (Debian: nvidia-opencl-icd, "
              "intel-opencl-icd, mesa-opencl-icd); pocl-opencl-icd runs on any CPU; clinfo -l shows what is found");
  else
    ocl_error(
        drv, NULL, TERN_E_END,
        "%u OpenCL platforms are installed, but none has a device of OpenCL 1.2 or later; TERN_LOG=info says why, "
        "clinfo shows what they have",
        drv->n_platforms);
}

tern_rc ocl_device_info(tern_drv *drv, uint32_t i, tern_device_info *info) {
  if (i == 0 && !drv->n_ids) tell_none(drv);
  if (i >= drv->n_ids) return TERN_E_END;
  const ocl_id *id = &drv->ids[i];
  info->kind = kind_of(id);
  info->flags = (id->collects ? 0 : TERN_DEV_ASYNC) | (id->hidden ? TERN_DEV_HIDDEN : 0);
  if (ocl_is_cpu(id) && id->unified) info->flags |= TERN_DEV_IMPORT_HOST;
  snprintf(info->name, sizeof info->name, "%s", id->alias);
  snprintf(info->desc, sizeof info->desc, "%.70s (%.50s)", id->name, id->platform_name);
  const XXH128_hash_t h = XXH3_128bits(id->platform_name, strlen(id->platform_name));
  const XXH64_hash_t d = XXH3_64bits(id->name, strlen(id->name));
  snprintf(info->id, sizeof info->id, "%016llx-%u", (unsigned long long)(h.low64 ^ (d * 0x9E3779B97F4A7C15u)),
           id->index);
  info->mem_total = id->mem_total;
  info->max_alloc = id->max_alloc;
  info->mem_align = id->align;
  info->max_queues = 0;
  /* A kernel takes a buffer, its offset and two words for each argument of a nest, beside 64 bytes. Nests that are
     independent get as many kernels as they need: where one nest of usual size fits, a region may have many */
  const size_t nest = id->param_size > 64 + 8 * 24 ? (id->param_size - 64) / 24 : 8;
  info->max_args = nest >= 40 ? 512 : (uint32_t)nest;
  info->max_nodes = 2048; /* of text that a compiler takes in a few seconds */
  info->max_epilogue = OCL_EPILOGUE_ARRAYS;
  info->dtypes = 0;
  for (uint32_t t = TERN_BOOL; t < TERN_DTYPE_END; t++)
    if (ocl_has_dtype(id, t)) info->dtypes |= 1u << t;
  if (id->useless || id->refused)
    snprintf(info->features, sizeof info->features, "refused: %.240s", id->useless ? id->useless : id->refusal);
  else
    features(id, info->features, sizeof info->features);
  if (id->bundled && !id->collects) ocl_bundle_features(drv, id, info->features, sizeof info->features);
  return TERN_OK;
}
