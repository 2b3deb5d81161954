/* The OpenCL plugin's table, its options, and the services that the other files use: errors, log, options, fork
   check. */
#include "bundle.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* One page that the kernel wipes in a forked child: [0] is 1 where OpenCL may be called. Threads of the OpenCL
   runtimes do not survive a fork, and their queues then hang for ever. */
static struct {
  _Atomic(volatile unsigned char *) page;
  pid_t pid;
  bool by_pid; /* no wipe-on-fork here: compare process ids */
} process;

static tern_rc process_start(void) {
  if (atomic_load(&process.page)) return ocl_alive() ? TERN_OK : TERN_E_UNSUPPORTED;
  unsigned char *p =
      mmap(NULL, (size_t)sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return TERN_E_OOM;
  process.pid = getpid();
#ifdef MADV_WIPEONFORK
  process.by_pid = madvise(p, (size_t)sysconf(_SC_PAGESIZE), MADV_WIPEONFORK) != 0;
#else
  process.by_pid = true;
#endif
  p[0] = 1;
  atomic_store(&process.page, p);
  return TERN_OK;
}

bool ocl_alive(void) {
  volatile unsigned char *p = atomic_load_explicit(&process.page, memory_order_relaxed);
  return p && p[0] == 1 && (!process.by_pid || getpid() == process.pid);
}

tern_rc ocl_error(const tern_drv *drv, const ocl_id *id, tern_rc rc, const char *fmt, ...) {
  char text[1200];
  const int n = id ? snprintf(text, sizeof text, "opencl:%s: ", id->alias) : snprintf(text, sizeof text, "opencl: ");
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text + n, sizeof text - (size_t)n, fmt, ap);
  va_end(ap);
  return drv && drv->host && drv->host->error ? drv->host->error(drv->host->ctx, rc, text) : rc;
}

tern_rc ocl_forked(const tern_drv *drv) {
  return ocl_error(
      drv, NULL, TERN_E_UNSUPPORTED,
      "this process was forked after OpenCL had started; OpenCL does not survive a fork. Start the child with "
      "exec, or fork before the first use of an OpenCL device");
}

void ocl_log(const tern_drv *drv, int level, const char *fmt, ...) {
  if (!drv || !drv->host || !drv->host->log) return;
  char text[1200];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  drv->host->log(drv->host->ctx, level, text);
}

const char *ocl_option(const tern_drv *drv, const char *key, const char *otherwise) {
  const char *v = drv->host && drv->host->option ? drv->host->option(drv->host->ctx, key) : NULL;
  return v && *v ? v : otherwise;
}

int64_t ocl_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

const char *ocl_cl_name(cl_int err) {
  static const struct {
    cl_int code;
    const char *name;
  } names[] = {{CL_SUCCESS, "CL_SUCCESS"},
               {CL_DEVICE_NOT_FOUND, "CL_DEVICE_NOT_FOUND"},
               {CL_DEVICE_NOT_AVAILABLE, "CL_DEVICE_NOT_AVAILABLE"},
               {CL_COMPILER_NOT_AVAILABLE, "CL_COMPILER_NOT_AVAILABLE"},
               {CL_MEM_OBJECT_ALLOCATION_FAILURE, "CL_MEM_OBJECT_ALLOCATION_FAILURE"},
               {CL_OUT_OF_RESOURCES, "CL_OUT_OF_RESOURCES"},
               {CL_OUT_OF_HOST_MEMORY, "CL_OUT_OF_HOST_MEMORY"},
               {CL_MEM_COPY_OVERLAP, "CL_MEM_COPY_OVERLAP"},
               {CL_BUILD_PROGRAM_FAILURE, "CL_BUILD_PROGRAM_FAILURE"},
               {CL_MAP_FAILURE, "CL_MAP_FAILURE"},
               {CL_MISALIGNED_SUB_BUFFER_OFFSET, "CL_MISALIGNED_SUB_BUFFER_OFFSET"},
               {CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST, "CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST"},
               {CL_INVALID_VALUE, "CL_INVALID_VALUE"},
               {CL_INVALID_DEVICE, "CL_INVALID_DEVICE"},
               {CL_INVALID_CONTEXT, "CL_INVALID_CONTEXT"},
               {CL_INVALID_COMMAND_QUEUE, "CL_INVALID_COMMAND_QUEUE"},
               {CL_INVALID_HOST_PTR, "CL_INVALID_HOST_PTR"},
               {CL_INVALID_MEM_OBJECT, "CL_INVALID_MEM_OBJECT"},
               {CL_INVALID_BINARY, "CL_INVALID_BINARY"},
               {CL_INVALID_BUILD_OPTIONS, "CL_INVALID_BUILD_OPTIONS"},
               {CL_INVALID_PROGRAM, "CL_INVALID_PROGRAM"},
               {CL_INVALID_PROGRAM_EXECUTABLE, "CL_INVALID_PROGRAM_EXECUTABLE"},
               {CL_INVALID_KERNEL_NAME, "CL_INVALID_KERNEL_NAME"},
               {CL_INVALID_KERNEL, "CL_INVALID_KERNEL"},
               {CL_INVALID_ARG_INDEX, "CL_INVALID_ARG_INDEX"},
               {CL_INVALID_ARG_VALUE, "CL_INVALID_ARG_VALUE"},
               {CL_INVALID_ARG_SIZE, "CL_INVALID_ARG_SIZE"},
               {CL_INVALID_KERNEL_ARGS, "CL_INVALID_KERNEL_ARGS"},
               {CL_INVALID_WORK_DIMENSION, "CL_INVALID_WORK_DIMENSION"},
               {CL_INVALID_WORK_GROUP_SIZE, "CL_INVALID_WORK_GROUP_SIZE"},
               {CL_INVALID_WORK_ITEM_SIZE, "CL_INVALID_WORK_ITEM_SIZE"},
               {CL_INVALID_EVENT, "CL_INVALID_EVENT"},
               {CL_INVALID_OPERATION, "CL_INVALID_OPERATION"},
               {CL_INVALID_BUFFER_SIZE, "CL_INVALID_BUFFER_SIZE"},
               {CL_INVALID_GLOBAL_WORK_SIZE, "CL_INVALID_GLOBAL_WORK_SIZE"},
               {-1001, "CL_PLATFORM_NOT_FOUND_KHR"}};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
    if (names[i].code == err) return names[i].name;
  return "an unknown OpenCL error";
}

/* First "flags" (x86) or "Features" (aarch64) line of /proc/cpuinfo: what a CPU runtime compiles for. */
static char *cpu_features(void) {
  FILE *f = fopen("/proc/cpuinfo", "r");
  char *line = NULL, *found = NULL;
  size_t cap = 0;
  while (f && !found && getline(&line, &cap, f) > 0)
    if (!strncmp(line, "flags", 5) || !strncmp(line, "Features", 8)) found = strdup(line);
  free(line);
  if (f) fclose(f);
  return found ? found : strdup("unknown");
}

static void driver_free(tern_drv *drv) {
  ocl_bundles_close(drv);
  free(drv->ids);
  free(drv->cache_dir);
  free(drv->cpu_features);
  free(drv);
}

/* Words that stand for nothing count as the default; whoever wrote one should know. */
static void check_options(const tern_drv *drv) {
  static const struct {
    const char *key, *words;
  } known[] = {{"gemm", "auto own plain tiled clblast"},
               {"tune", "auto 1 all redo off"},
               {"cache", "auto binary source off"},
               {"build", "background launch"},
               {"replay", "auto list buffer off"},
               {"no_compile", "0 1"},
               {"emulators", "0 1"}};
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
    const char *value = ocl_option(drv, known[i].key, NULL), *at = value ? known[i].words : "";
    const size_t n = value ? strlen(value) : 0;
    bool found = !value;
    while (!found && (at = strstr(at, value))) {
      found = (at == known[i].words || at[-1] == ' ') && (at[n] == ' ' || !at[n]);
      at += n;
    }
    if (!found)
      ocl_log(drv, 1, "opencl: the option %s is \"%s\", which is none of: %s; the first of them is taken", known[i].key,
              value, known[i].words);
  }
}

static tern_rc driver_init(const tern_host *host, tern_drv **out) {
  const tern_drv early = {.host = host};
  const tern_rc started = process_start();
  if (started == TERN_E_UNSUPPORTED) return ocl_forked(&early);
  if (started) return ocl_error(&early, NULL, started, "no memory for the driver");
  tern_drv *drv = calloc(1, sizeof *drv);
  if (!drv) return ocl_error(&early, NULL, TERN_E_OOM, "no memory for the driver");
  drv->host = host;
  check_options(drv);
  const char *dir = ocl_option(drv, "cache_dir", NULL);
  drv->cache_dir = dir ? strdup(dir) : NULL;
  drv->cpu_features = cpu_features();
  tern_rc rc = (dir && !drv->cache_dir) || !drv->cpu_features
                   ? ocl_error(drv, NULL, TERN_E_OOM, "no memory for the driver")
                   : ocl_enumerate(drv);
  if (!rc) rc = ocl_bundles_open(drv);
  if (!rc) rc = ocl_bundles_apply(drv);
  if (rc) {
    driver_free(drv);
    return rc;
  }
  *out = drv;
  return TERN_OK;
}

static const tern_option options[] = {
    {"gemm", "auto",
     "who multiplies matrices: auto, own (generated kernels), plain (one element a work-item), tiled (local "
     "memory), or clblast"},
    {"tune", "auto",
     "who multiplies matrices, as it was measured on this device: auto (what was measured earlier counts), 1 (what was "
     "not is measured at its first use), all (CLBlast too, which may compile for seconds), redo (all, anew), off"},
    {"tune_report", "", "for tern-tune: a file that what was measured is appended to, a line each"},
    {"cache", "auto",
     "kernels in the cache folder: auto (compiled; as text where the OpenCL runtime keeps what it compiles itself, as "
     "PoCL does), binary, source, off"},
    {"build", "background",
     "when kernels are compiled: background (by a thread, or by the launch that needs them first), launch (by that "
     "alone)"},
    {"replay", "auto",
     "recorded launches of compiled graphs: auto (list), list (each enqueued with its arguments set already), buffer "
     "(cl_khr_command_buffer where the device has it, else list), off"},
    {"bundle", "",
     "manifests of kernels that were compiled ahead of time (docs/fpga.md), with : between them; the devices that "
     "their "
     "images are for run these and compile nothing"},
    {"target", "",
     "compile the kernels of a bundle's target (fpga, fpga-ndrange, gpu, cpu) on every device that can run them"},
    {"no_compile", "0", "1: no kernel is ever compiled from source; a device without a bundle supports nothing then"},
    {"bundle_scrub", "0", "1: a change of the image wipes device memory before it is restored, as on a board (tests)"},
    {"bundle_out", "", "for tern-bundle: a manifest to write; the device opencl:bundle then collects kernels for it"},
    {"bundle_eager", "0", "for tern-bundle: 1: launches on opencl:bundle do nothing, in place of being refused"},
    {"bundle_target", "fpga", "for tern-bundle: the target, and traits behind it: fpga,group=64"},
    {"bundle_hints", "", "for tern-bundle: KEY=VALUE or WHAT:KEY=VALUE, with ; between them"},
    {"bundle_image", "", "for tern-bundle: a manifest; opening a device compiles an image for it"},
    {"bundle_image_file", "image.bin", "for tern-bundle: that image's name, beside the manifest"},
    {"bundle_only", "", "for tern-bundle: sections that the image shall hold, with , between them"},
    {"emulators", "0", "1: FPGA emulators get a device number, and `fpga` finds them"},
};
static const tern_ext_options option_list = {.ext = {.type = TERN_EXT_OPTIONS, .size = sizeof option_list},
                                             .n = sizeof options / sizeof options[0],
                                             .options = options};

static const tern_backend backend = {.struct_size = sizeof backend,
                                     .abi = TERN_ABI,
                                     .name = "opencl",
                                     .version = "0.1",
                                     .ext = &option_list.ext,
                                     .init = driver_init,
                                     .fini = driver_free,
                                     .device_info = ocl_device_info,
                                     .device_open = ocl_device_open,
                                     .device_close = ocl_device_close,
                                     .mem_alloc = ocl_mem_alloc,
                                     .mem_free = ocl_mem_free,
                                     .mem_map = ocl_mem_map,
                                     .mem_unmap = ocl_mem_unmap,
                                     .queue_open = ocl_queue_open,
                                     .queue_close = ocl_queue_close,
                                     .queue_signal = ocl_queue_signal,
                                     .queue_wait = ocl_queue_wait,
                                     .queue_sync = ocl_queue_sync,
                                     .copy = ocl_copy,
                                     .fill = ocl_fill,
                                     .supports = ocl_supports,
                                     .compile = ocl_compile,
                                     .workspace = ocl_workspace,
                                     .launch = ocl_launch,
                                     .kernel_free = ocl_kernel_free,
                                     .program_begin = ocl_program_begin,
                                     .program_end = ocl_program_end,
                                     .program_update = ocl_program_update,
                                     .program_run = ocl_program_run,
                                     .program_free = ocl_program_free,
                                     .ready = ocl_ready};

const tern_backend *tern_plugin_query(uint32_t host_abi) { return host_abi >> 16 == TERN_ABI_MAJOR ? &backend : NULL; }
