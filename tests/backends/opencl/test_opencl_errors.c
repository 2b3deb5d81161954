/* What a program sees when OpenCL fails: no platform, a platform that does not start, a compiler, an allocation or any
   other call that fails, and a fork. tests/support/ocl_layer.c makes the calls fail, in processes of their own: every
   result must be right or an error that says what failed, and where a call fails once, the work succeeds when it is
   asked for again. */
#include "support/values.h"
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const double sums[] = {5, 7, 9}, products[] = {9, 12, 15, 19, 26, 33, 29, 40, 51};

/* 1: as expected; 0: an error, which is printed and cleared; -1: wrong values, or an error without a reason. */
static int outcome(tern_tensor *t, const double *expected, int n) {
  double *got = t ? test_values(t) : NULL;
  int rc = 1;
  if (got) {
    for (int i = 0; i < n; i++)
      if (got[i] != expected[i]) rc = -1;
  } else {
    rc = tern_error_code() != TERN_OK && strlen(tern_error()) > 20 ? 0 : -1;
  }
  if (rc != 1) printf("%s: %s\n", rc ? "WRONG" : "error", tern_error_code() ? tern_error() : "no error");
  tern_error_clear();
  free(got);
  return rc;
}

static int add(void) {
  TERN_SCOPE;
  return outcome(tern_add(tern_f32(TERN_SHAPE(3), 1, 2, 3), tern_f32(TERN_SHAPE(3), 4, 5, 6)), sums, 3);
}

static int multiply(void) {
  TERN_SCOPE;
  tern_tensor *a = tern_f32(TERN_SHAPE(3, 2), 1, 2, 3, 4, 5, 6), *b = tern_f32(TERN_SHAPE(2, 3), 1, 2, 3, 4, 5, 6);
  return outcome(tern_matmul(a, b), products, 9);
}

/* Right results or errors, twice; then right results, unless the device is lost. */
static int child_any(bool must_recover) {
  int failed = 0, wrong = 0, right = 0;
  for (int turn = 0; turn < 3; turn++) {
    const int rc[] = {add(), multiply()};
    for (int i = 0; i < 2; i++) failed += rc[i] == 0, wrong += rc[i] < 0;
    right = (rc[0] == 1) + (rc[1] == 1);
  }
  printf("failed %d, wrong %d, right at the end %d\n", failed, wrong, right);
  return wrong ? 1 : must_recover && right != 2 ? 2 : 0;
}

static int child_forked(void) {
  if (add() != 1) return 1;
  const pid_t pid = fork();
  if (!pid) {
    alarm(30); /* a queue that hangs */
    TERN_SCOPE;
    tern_add(tern_f32(TERN_SHAPE(3), 1, 2, 3), tern_f32(TERN_SHAPE(3), 4, 5, 6));
    printf("%s\n", tern_error());
    fflush(stdout);
    _exit(tern_error_code() != TERN_OK && strstr(tern_error(), "fork") ? 0 : 1);
  }
  int status = -1;
  return waitpid(pid, &status, 0) == pid && status == 0 && add() == 1 ? 0 : 2; /* the parent goes on */
}

/* Work whose kernels share local memory on GPUs: a product of several tiles, a sum, a softmax. */
static int child_local(void) {
  TERN_SCOPE;
  const int64_t n = 70;
  tern_tensor *a = tern_add(tern_eye(n, n, 0, TERN_F32), tern_ones(TERN_SHAPE(n, n), TERN_F32));
  const double miss = tern_item(tern_max(tern_abs(tern_sub(tern_matmul(a, a), tern_add(a, tern_scalar(71)))), NULL));
  const double sum = tern_item(tern_sum(a, NULL));
  const double share =
      tern_item(tern_max(tern_abs(tern_sub(tern_sum(tern_softmax(a, -1), TERN_AXES(1)), tern_scalar(1))), NULL));
  printf("product off by %g, sum %g, rows of softmax off by %g %s\n", miss, sum, share, tern_error());
  return !(miss == 0 && sum == n * n + n && share < 1e-6);
}

static int child(const char *name) {
  if (!strcmp(name, "local")) return child_local();

  if (!strcmp(name, "once")) return child_any(true);
  if (!strcmp(name, "lasting")) return child_any(false);
  if (!strcmp(name, "forked")) return child_forked();
  return add() == 1 ? 0 : 3; /* "works" */
}

static char text[1 << 16];
static int run(const char *what, const char *fail) {
  char rule[200];
  snprintf(rule, sizeof rule, "OCL_LAYER_FAIL=%s", fail);
  return test_child(what, (const char *const[]){"OPENCL_LAYERS=" TERN_OCL_LAYER, rule, NULL}, text, sizeof text);
}

static void expect(int rc, const char *what, const char *part) {
  CHECK(rc == 0 && strstr(text, part), "%s: status %d: %s", what, rc, text);
}

static void test_no_platform(void) {
  static const char none[] = "clGetPlatformIDs:1+:-1001", dead[] = "clGetDeviceIDs:1+:-6";
  const char *const cpu[] = {"TERN_DEVICE=cpu", "OPENCL_LAYERS=" TERN_OCL_LAYER, "OCL_LAYER_FAIL=clGetDeviceIDs:1+:-6",
                             NULL};
  expect(run("lasting", none), "no platform", "devices: cpu:0");
  expect(run("lasting", dead), "a platform that does not start", "devices: cpu:0");
  CHECK(test_child("works", cpu, text, sizeof text) == 0, "the CPU beside a platform that does not start: %s", text);
}

static void test_fails(void) {
  static const struct {
    const char *rule, *says;
  } cases[] = {{"clCreateContext:1+:-6", "CL_OUT_OF_HOST_MEMORY"},
               {"clCreateCommandQueue:1+:-6", "CL_OUT_OF_HOST_MEMORY"},
               {"clCreateBuffer:1+:-4", "memory"},
               {"clCreateProgramWithSource:1+:-6,clCreateProgramWithBinary:1+:-42", "CL_OUT_OF_HOST_MEMORY"},
               {"clBuildProgram:1+:-11", "CL_BUILD_PROGRAM_FAILURE"},
               {"clCreateKernel:1+:-6", "CL_OUT_OF_HOST_MEMORY"},
               {"clEnqueueNDRangeKernel:1+:-5", "CL_OUT_OF_RESOURCES"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    expect(run("lasting", cases[i].rule), cases[i].rule, cases[i].says);
}

/* Each call fails once, early and later: no crash, no wrong value, and the third turn works. */
static void test_fails_once(void) {
  static const struct {
    const char *name;
    int code;
  } calls[] = {{"clCreateContext", -6},     {"clCreateBuffer", -4},      {"clBuildProgram", -11},
               {"clCreateKernel", -6},      {"clSetKernelArg", -6},      {"clEnqueueMapBuffer", -12},
               {"clEnqueueReadBuffer", -6}, {"clEnqueueWriteBuffer", -6}};
  for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
    for (int n = 1; n <= 3; n += 2) {
      char rule[100];
      snprintf(rule, sizeof rule, "%s:%d:%d", calls[i].name, n, calls[i].code);
      const int rc = run("once", rule);
      CHECK(rc == 0, "%s: status %d: %s", rule, rc, text);
    }
}

static void test_fork(void) {
  const int rc = test_child("forked", (const char *const[]){NULL}, text, sizeof text);
  CHECK(rc == 0, "status %d: %s", rc, text);
}

/* 1 KiB of local memory, the least that OpenCL's embedded profile allows: kernels that need more are not made. */
static void test_little_local_memory(void) {
  static const char *const forms[] = {"TERN_OPENCL_GEMM=tiled", "TERN_OPENCL_GEMM=auto"};
  for (int i = 0; i < 2; i++)
    CHECK(test_child("local",
                     (const char *const[]){"OPENCL_LAYERS=" TERN_OCL_LAYER, "OCL_LAYER_LOCAL_MEM=1024", forms[i],
                                           "TERN_OPENCL_TUNE=off", NULL},
                     text, sizeof text) == 0,
          "%s: %s", forms[i], text);
}

static const test_case cases[] = {{"no platform", test_no_platform},
                                  {"a call fails for good", test_fails},
                                  {"a call fails once", test_fails_once},
                                  {"a fork after use", test_fork},
                                  {"little local memory", test_little_local_memory}};
TEST_MAIN_CHILD("OpenCL errors", cases, child)
