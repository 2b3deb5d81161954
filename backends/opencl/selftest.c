/* A known-answer test of a device, when it is opened: one kernel whose results are compared exactly with the host's. It
   covers what all generated kernels rest on: sub-ranges of buffers, float32, 64-bit integers, float64 where the device
   claims it, local memory behind barriers, atomics, uploads and downloads. That a device has passed is kept in the
   cache folder, under a key of its runtime's, driver's and own versions. */
#include "ocl.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ITEMS = 256, GROUP = 64, LEAD = 3 /* elements before those that a buffer's offset names */, PARTS = 5 };

/* Of each work-item: its integer, float, long and double results, and the sum over its group up to the barrier. */
static const char text[] =
    "kernel void known_answers(global const int *in, long in_at, global long *out, long out_at, global int *total) {\n"
    "  local int part[64];\n"
    "  const int i = (int)get_global_id(0), l = (int)get_local_id(0);\n"
    "  const int x = in[in_at + i];\n"
    "  global long *mine = out + out_at + (long)i * 5;\n"
    "  mine[0] = x * 3 - i;\n"
    "  mine[1] = as_int((float)x * 0.5f + 0.25f);\n"
    "  mine[2] = ((long)x * 0x123456789L << 3) / ((long)i + 7) ^ ((long)x >> 5);\n"
    "#ifdef KNOWN_DOUBLE\n"
    "  mine[3] = as_long((double)x / 3.0 + 0.125);\n"
    "#else\n"
    "  mine[3] = 0;\n"
    "#endif\n"
    "  part[l] = x;\n"
    "  barrier(CLK_LOCAL_MEM_FENCE);\n"
    "  for (int step = LOCAL / 2; step > 0; step /= 2) {\n"
    "    if (l < step) part[l] += part[l + step];\n"
    "    barrier(CLK_LOCAL_MEM_FENCE);\n"
    "  }\n"
    "  mine[4] = part[0];\n"
    "  int seen = 0, old;\n"
    "  do {\n"
    "    old = seen;\n"
    "    seen = atomic_cmpxchg(total + 1, old, old + x);\n"
    "  } while (seen != old);\n"
    "}\n";

typedef struct self {
  tern_dev *dev;
  int local;
  cl_int in[LEAD + ITEMS], total[2];
  cl_long out[LEAD + ITEMS * PARTS];
  tern_mem *mem[3];
  tern_queue *q;
  ocl_section *section;
  cl_kernel kernel;
  char why[240];
} self;

/* ---- what is right ---- */

static cl_int input(int i) { return (cl_int)((uint32_t)(i * 2654435761u) >> 8) - 8000000; }

/* As the kernel computes it; overflow wraps. */
static cl_long expected(const self *s, int i, int part) {
  const cl_int x = s->in[LEAD + i];
  switch (part) {
  case 0: return x * 3 - i;
  case 1: {
    const float f = (float)x * 0.5f + 0.25f;
    cl_int bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
  }
  case 2: return (cl_long)((uint64_t)x * UINT64_C(0x123456789) << 3) / ((cl_long)i + 7) ^ ((cl_long)x >> 5);
  case 3: {
    const double d = (double)x / 3.0 + 0.125;
    cl_long bits = 0;
    if (s->dev->id->fp64) memcpy(&bits, &d, sizeof bits);
    return bits;
  }
  default: {
    cl_long sum = 0;
    for (int j = i / s->local * s->local, n = 0; n < s->local; n++) sum += s->in[LEAD + j + n];
    return sum;
  }
  }
}

static bool right(self *s) {
  static const char *const what[PARTS] = {"int32 arithmetic", "float32 arithmetic", "int64 arithmetic",
                                          "float64 arithmetic", "a sum in local memory, with barriers"};
  cl_int total = 5;
  for (int i = 0; i < ITEMS; i++) {
    total += s->in[LEAD + i];
    for (int part = 0; part < PARTS; part++) {
      const cl_long got = s->out[LEAD + i * PARTS + part], want = expected(s, i, part);
      if (got == want) continue;
      snprintf(s->why, sizeof s->why, "%s gave %llx instead of %llx (work-item %d)", what[part],
               (unsigned long long)got, (unsigned long long)want, i);
      return false;
    }
  }
  for (int i = 0; i < LEAD; i++)
    if (s->out[i] != -1) {
      snprintf(s->why, sizeof s->why, "a kernel wrote before the part of the buffer that it was given");
      return false;
    }
  if (s->total[1] == total && s->total[0] == 7) return true;
  snprintf(s->why, sizeof s->why, "atomic additions gave %d instead of %d", s->total[1], total);
  return false;
}

/* ---- the run ---- */

static tern_rc copy_all(self *s, bool up) {
  void *const at[] = {s->in, s->out, s->total};
  const size_t size[] = {sizeof s->in, sizeof s->out, sizeof s->total};
  tern_rc rc = TERN_OK;
  for (int i = 0; i < 3 && !rc; i++) {
    const tern_copy c = {.struct_size = sizeof c,
                         .size = size[i],
                         .src = up ? NULL : s->mem[i],
                         .dst = up ? s->mem[i] : NULL,
                         .host_src = up ? at[i] : NULL,
                         .host_dst = up ? NULL : at[i]};
    rc = ocl_copy(s->dev, s->q, &c);
  }
  return rc;
}

static tern_rc prepare(self *s) {
  tern_dev *dev = s->dev;
  for (int i = 0; i < LEAD + ITEMS; i++) s->in[i] = input(i);
  memset(s->out, 0xff, sizeof s->out);
  s->total[0] = 7, s->total[1] = 5;
  const size_t size[] = {sizeof s->in, sizeof s->out, sizeof s->total};
  tern_rc rc = TERN_OK;
  for (int i = 0; i < 3 && !rc; i++) {
    const tern_mem_desc want = {.struct_size = sizeof want, .size = size[i]};
    rc = ocl_mem_alloc(dev, &want, &s->mem[i]);
  }
  if (!rc) rc = ocl_queue_open(dev, 0, &s->q);
  ocl_text t = {0};
  ocl_add(&t, "%s#define LOCAL %d\n%s",
          dev->id->fp64 ? "#ifdef cl_khr_fp64\n#pragma OPENCL EXTENSION cl_khr_fp64 : enable\n#endif\n"
                          "#define KNOWN_DOUBLE\n"
                        : "",
          s->local, text);
  if (t.failed) rc = TERN_E_OOM;
  if (!rc) rc = ocl_section_get(dev, t.s, "the self-test", &s->section);
  free(t.s);
  if (!rc) rc = ocl_section_ready(dev, s->section);
  return rc ? rc : ocl_kernel_new(dev, s->section, "known_answers", &s->kernel);
}

static tern_rc launch(self *s) {
  tern_rc rc = copy_all(s, true);
  if (!rc) rc = ocl_queue_enter(s->q);
  if (rc) return rc;
  ocl_call c = ocl_call_of(s->q, s->kernel);
  ocl_arg_mem(&c, s->mem[0]->buffer);
  ocl_arg_long(&c, LEAD);
  ocl_arg_mem(&c, s->mem[1]->buffer);
  ocl_arg_long(&c, LEAD);
  ocl_arg_mem(&c, s->mem[2]->buffer);
  const size_t items = ITEMS, local = (size_t)s->local;
  cl_int err = c.rc;
  if (err == CL_SUCCESS) err = clEnqueueNDRangeKernel(s->q->q, c.kernel, 1, NULL, &items, &local, 0, NULL, NULL);
  rc = err == CL_SUCCESS ? TERN_OK : ocl_queue_failed(s->q, "the self-test", err);
  for (int i = 0; i < 3; i++) ocl_use(s->q, s->mem[i]);
  if (!rc) rc = copy_all(s, false);
  uint64_t ticket = 0;
  if (!rc) rc = ocl_queue_signal(s->dev, s->q, &ticket);
  return rc ? rc : ocl_queue_sync(s->dev, s->q, ticket, UINT64_MAX);
}

static void clear(self *s) {
  if (s->kernel) clReleaseKernel(s->kernel);
  ocl_section_put(s->dev, s->section);
  ocl_queue_close(s->dev, s->q);
  for (int i = 0; i < 3; i++)
    if (s->mem[i]) ocl_mem_free(s->dev, s->mem[i]);
  free(s);
}

/* ---- passes that are remembered: an empty file whose name says it all ---- */

static bool path_of(const tern_dev *dev, char out[4096]) {
  const char *const parts[] = {dev->id->platform_name, dev->id->name, dev->id->versions, text,
                               ocl_is_cpu(dev->id) ? dev->drv->cpu_features : ""};
  if (!dev->drv->cache_dir) return false;
  uint64_t key[2];
  ocl_hash_texts(NULL, 0, parts, sizeof parts / sizeof parts[0], key);
  const int n = snprintf(out, 4096, "%s/opencl-tested-%016llx%016llx", dev->drv->cache_dir, (unsigned long long)key[1],
                         (unsigned long long)key[0]);
  return n > 0 && n < 4096;
}

static void remember(const char *path) {
  const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666); /* without a folder: next time */
  if (fd >= 0) close(fd);
}

tern_rc ocl_selftest(tern_dev *dev) {
  char path[4096];
  struct stat st;
  if (!dev->id->compiler || dev->id->bundled) return TERN_OK;
  const bool kept = path_of(dev, path);
  if (kept && !stat(path, &st) && S_ISREG(st.st_mode)) return TERN_OK;
  self *s = calloc(1, sizeof *s);
  if (!s) return ocl_error(dev->drv, dev->id, TERN_E_OOM, "no memory for the self-test");
  const int64_t start = ocl_now();
  s->dev = dev;
  for (s->local = 1; s->local < GROUP && (size_t)s->local * 2 <= dev->id->max_group;) s->local *= 2;
  tern_rc rc = prepare(s);
  if (!rc) rc = launch(s);
  if (!rc && !right(s))
    rc = ocl_error(dev->drv, dev->id, TERN_E_UNSUPPORTED,
                   "the device computes wrongly and is not used: in its self-test %s. Its driver: %.300s", s->why,
                   dev->id->versions);
  if (!rc && kept) remember(path);
  ocl_log(dev->drv, 3, "opencl:%s: self-test %s, %.1f ms", dev->id->alias, rc ? "failed" : "passed",
          (double)(ocl_now() - start) / 1e6);
  clear(s);
  return rc;
}
