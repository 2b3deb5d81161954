/* cl_khr_command_buffer (provisional, revisions 0.9.x): which devices have it in a way that can be used, and a recorded
   program as one command buffer. Only clCommandNDRangeKernelKHR records: the calls that record copies and fills got
   another parameter in revision 0.9.5. PoCL 3.1 and 4.0 take a recorded kernel's arguments when the command buffer is
   enqueued, not when it is recorded; the commands' own kernels keep theirs, so both give the same. */
#include "replay.h"

#include <stdlib.h>

/* OpenCL 3.0, which this backend's headers are not told to declare */
enum { EXTENSIONS_WITH_VERSION = 0x1060, NAME_BYTES = 64 };
typedef struct name_version {
  cl_uint version; /* major 10 bits, minor 10, patch 12 */
  char name[NAME_BYTES];
} name_version;

/* The revision of an extension; 0 when the device lacks it or does not tell. */
static cl_uint revision_of(cl_device_id device, const char *extension) {
  size_t bytes = 0;
  cl_uint found = 0;
  if (clGetDeviceInfo(device, EXTENSIONS_WITH_VERSION, 0, NULL, &bytes) != CL_SUCCESS || !bytes) return 0;
  name_version *list = malloc(bytes);
  if (list && clGetDeviceInfo(device, EXTENSIONS_WITH_VERSION, bytes, list, NULL) == CL_SUCCESS)
    for (size_t i = 0; i < bytes / sizeof *list; i++)
      if (!strncmp(list[i].name, extension, sizeof list[i].name)) found = list[i].version;
  free(list);
  return found;
}

/* Entry points; false: one is missing. */
static bool load(ocl_replays *r, cl_platform_id platform) {
  *(void **)&r->create = clGetExtensionFunctionAddressForPlatform(platform, "clCreateCommandBufferKHR");
  *(void **)&r->kernel = clGetExtensionFunctionAddressForPlatform(platform, "clCommandNDRangeKernelKHR");
  *(void **)&r->finalize = clGetExtensionFunctionAddressForPlatform(platform, "clFinalizeCommandBufferKHR");
  *(void **)&r->enqueue = clGetExtensionFunctionAddressForPlatform(platform, "clEnqueueCommandBufferKHR");
  *(void **)&r->release = clGetExtensionFunctionAddressForPlatform(platform, "clReleaseCommandBufferKHR");
  return r->create && r->kernel && r->finalize && r->enqueue && r->release;
}

/* NULL: command buffers can be used. Else why not. */
static const char *open_buffers(ocl_replays *r, const ocl_id *id) {
  const cl_uint revision = revision_of(id->device, CL_KHR_COMMAND_BUFFER_EXTENSION_NAME);
  if (!revision) return "the device does not have cl_khr_command_buffer";
  if (revision >> 22 || (revision >> 12 & 0x3ff) != 9) return "its cl_khr_command_buffer is not of revision 0.9";
  cl_device_command_buffer_capabilities_khr can = 0;
  cl_command_queue_properties needs = 0;
  if (clGetDeviceInfo(id->device, CL_DEVICE_COMMAND_BUFFER_CAPABILITIES_KHR, sizeof can, &can, NULL) != CL_SUCCESS ||
      clGetDeviceInfo(id->device, CL_DEVICE_COMMAND_BUFFER_REQUIRED_QUEUE_PROPERTIES_KHR, sizeof needs, &needs, NULL) !=
          CL_SUCCESS)
    return "it does not answer for its command buffers";
  if (needs) return "its command buffers want queues that are not in order, or that take times";
  if (!load(r, id->platform)) return "an entry point of cl_khr_command_buffer is missing";
  r->overlap = can & CL_COMMAND_BUFFER_CAPABILITY_SIMULTANEOUS_USE_KHR;
  return NULL;
}

void ocl_replays_open(tern_dev *dev) {
  const char *wanted = ocl_option(dev->drv, "replay", "auto");
  const bool buffer = !strcmp(wanted, "buffer");
  dev->replays.list = strcmp(wanted, "off") != 0;
  if (!buffer) return;
  const char *why = open_buffers(&dev->replays, dev->id);
  dev->replays.buffer = !why;
  if (why) ocl_log(dev->drv, 2, "opencl:%s: command buffers are not used: %s", dev->id->alias, why);
}

/* ---- one program ---- */

static cl_int record(const ocl_replays *r, cl_command_buffer_khr buffer, const tern_program *p) {
  cl_int err = CL_SUCCESS;
  for (uint32_t i = 0; i < p->n && err == CL_SUCCESS; i++) {
    const ocl_command *m = p->command[i];
    cl_sync_point_khr point; /* not used: the queue, and so its command buffer, is in order */
    err = r->kernel(buffer, NULL, NULL, m->kernel, m->dims, NULL, m->global, m->local, 0, NULL, &point, NULL);
  }
  return err == CL_SUCCESS ? r->finalize(buffer) : err;
}

void ocl_buffer_make(tern_program *p, tern_queue *q) {
  const ocl_replays *r = &p->dev->replays;
  if (!r->buffer || p->buffer || !p->n) return;
  p->refused = true;
  for (uint32_t i = 0; i < p->n; i++)
    if (p->command[i]->kind != COMMAND_KERNEL) return;
  const cl_command_buffer_properties_khr overlap[] = {CL_COMMAND_BUFFER_FLAGS_KHR,
                                                      CL_COMMAND_BUFFER_SIMULTANEOUS_USE_KHR, 0};
  cl_int err;
  cl_command_buffer_khr buffer = r->create(1, &q->q, r->overlap ? overlap : NULL, &err);
  if (err == CL_SUCCESS) {
    err = record(r, buffer, p);
    if (err == CL_SUCCESS) {
      p->buffer = buffer;
      p->refused = false;
      return;
    }
    r->release(buffer);
  }
  ocl_log(p->dev->drv, 3, "opencl:%s: no command buffer: %s (%d)", p->dev->id->alias, ocl_cl_name(err), err);
}

cl_int ocl_buffer_run(tern_program *p, tern_queue *q) {
  const ocl_replays *r = &p->dev->replays;
  if (r->overlap) return r->enqueue(1, &q->q, p->buffer, 0, NULL, NULL);
  if (p->running) {
    cl_int state = CL_COMPLETE;
    const cl_int err = clGetEventInfo(p->running, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof state, &state, NULL);
    if (err == CL_SUCCESS && state > CL_COMPLETE) return CL_INVALID_OPERATION;
    clReleaseEvent(p->running);
    p->running = NULL;
  }
  return r->enqueue(1, &q->q, p->buffer, 0, NULL, &p->running);
}

void ocl_buffer_drop(tern_program *p) {
  if (ocl_alive()) {
    if (p->running) clReleaseEvent(p->running);
    if (p->buffer) p->dev->replays.release(p->buffer); /* a run in flight goes on */
  }
  p->running = NULL;
  p->buffer = NULL;
}
