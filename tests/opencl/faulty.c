/* A kernel with a fault that oclgrind has to report, so that a test knows that its checks are on: race (two work-items
   write one element), unwritten (a value of private memory that nobody wrote). Ends with 0: what fails is the
   report. */
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <stdio.h>
#include <string.h>

static const char race[] = "kernel void faulty(global int *out, int n) { out[0] = (int)get_global_id(0) + n; }\n";
static const char unwritten[] = "kernel void faulty(global int *out, int n) {\n"
                                "  int sum[4];\n"
                                "  for (int i = 1; i < n; i++) sum[i] = i;\n"
                                "  out[get_global_id(0)] = sum[n - 4];\n"
                                "}\n";

int main(int argc, char **argv) {
  const char *source = argc == 2 && !strcmp(argv[1], "race")        ? race
                       : argc == 2 && !strcmp(argv[1], "unwritten") ? unwritten
                                                                    : NULL;
  if (!source) {
    fprintf(stderr, "usage: %s race|unwritten\n", argv[0]);
    return 2;
  }
  cl_platform_id platform;
  cl_device_id device;
  const cl_int four = 4;
  const size_t items = 8;
  cl_int err = clGetPlatformIDs(1, &platform, NULL);
  if (!err) err = clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 1, &device, NULL);
  cl_context c = err ? NULL : clCreateContext(NULL, 1, &device, NULL, NULL, &err);
  cl_command_queue q = err ? NULL : clCreateCommandQueue(c, device, 0, &err);
  cl_mem m = err ? NULL : clCreateBuffer(c, CL_MEM_READ_WRITE, items * sizeof four, NULL, &err);
  cl_program p = err ? NULL : clCreateProgramWithSource(c, 1, &source, NULL, &err);
  if (!err) err = clBuildProgram(p, 1, &device, NULL, NULL, NULL);
  cl_kernel k = err ? NULL : clCreateKernel(p, "faulty", &err);
  if (!err) err = clSetKernelArg(k, 0, sizeof(cl_mem), &m);
  if (!err) err = clSetKernelArg(k, 1, sizeof four, &four);
  if (!err) err = clEnqueueNDRangeKernel(q, k, 1, NULL, &items, &items, 0, NULL, NULL);
  if (!err) err = clFinish(q);
  if (k) clReleaseKernel(k);
  if (p) clReleaseProgram(p);
  if (m) clReleaseMemObject(m);
  if (q) clReleaseCommandQueue(q);
  if (c) clReleaseContext(c);
  if (err) fprintf(stderr, "faulty: OpenCL error %d\n", err);
  return 0;
}
