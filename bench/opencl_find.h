/* The OpenCL device that tern uses, for benches that call OpenCL by themselves through functions found at run time. */
#ifndef TERN_BENCH_OPENCL_FIND_H_
#define TERN_BENCH_OPENCL_FIND_H_
#include <CL/cl.h>
#include <stdbool.h>
#include <string.h>

/* The device that tern's description names, so that both sides use the same one. */
static inline bool bench_find_device(__typeof__(&clGetPlatformIDs) platforms_of,
                                     __typeof__(&clGetPlatformInfo) platform_info_of,
                                     __typeof__(&clGetDeviceIDs) devices_of, __typeof__(&clGetDeviceInfo) info_of,
                                     const char *description, cl_device_id *device) {
  cl_platform_id platforms[16];
  cl_uint n_platforms = 0;
  if (platforms_of(16, platforms, &n_platforms)) return false;
  for (cl_uint p = 0; p < n_platforms && p < 16; p++) {
    char platform[128] = "";
    if (platform_info_of(platforms[p], CL_PLATFORM_NAME, sizeof platform - 1, platform, NULL)) continue;
    cl_device_id devices[16];
    cl_uint n = 0;
    if (devices_of(platforms[p], CL_DEVICE_TYPE_ALL, 16, devices, &n)) continue;
    for (cl_uint d = 0; d < n && d < 16; d++) {
      char name[256] = "";
      if (info_of(devices[d], CL_DEVICE_NAME, sizeof name - 1, name, NULL) || !*name) continue;
      *device = devices[d];
      if (strstr(description, name) && strstr(description, platform)) return true; /* a name may be part of another */
    }
  }
  return false;
}
#endif
