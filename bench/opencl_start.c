/* How an OpenCL device starts: a child process runs a compiled function of KERNELS distinct kernels once. The first
   child has empty caches (tern's and PoCL's own): how often it compiles. Those after it: how long from tern's first
   call to the result, in a process that has brought the platform and a context up already, which the bare API would
   need as well. */
#include "bench.h"

#if __has_include(<CL/cl.h>)
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KERNELS = 50, SIZE = 1000, STARTS = 5 };
extern char **environ;

/* ---- the child ---- */

/* The platforms, and a context on every device that a number may stand for. */
static bool start_platforms(void) {
  void *library = dlopen("libOpenCL.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library) return false;
  cl_platform_id platforms[16];
  cl_uint n = 0;
  __typeof__(&clGetPlatformIDs) get_platforms;
  __typeof__(&clGetDeviceIDs) get_devices;
  __typeof__(&clCreateContext) create;
  *(void **)&get_platforms = dlsym(library, "clGetPlatformIDs");
  *(void **)&get_devices = dlsym(library, "clGetDeviceIDs");
  *(void **)&create = dlsym(library, "clCreateContext");
  if (!get_platforms || !get_devices || !create || get_platforms(16, platforms, &n)) return false;
  for (cl_uint i = 0; i < n && i < 16; i++) {
    cl_device_id device;
    const cl_context_properties of[] = {CL_CONTEXT_PLATFORM, (cl_context_properties)platforms[i], 0};
    if (!get_devices(platforms[i], CL_DEVICE_TYPE_ALL, 1, &device, NULL)) create(of, 1, &device, NULL, NULL, NULL);
  }
  return n > 0;
}

/* Groups of elementwise ops, no two the same, kept apart by sorts. */
static tern_rc body(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  tern_tensor *x = in[0];
  for (int i = 0; i < KERNELS - 1; i++) {
    for (int bit = 0; bit < 6; bit++) x = (i >> bit) & 1 ? tern_mul(x, in[0]) : tern_add(x, in[0]);
    x = tern_sort(x, 0, NULL);
  }
  out[0] = x;
  return tern_error_code();
}

/* Writes the seconds to FD; without the function if `open`. */
static int child(int fd, bool open) {
  if (!start_platforms()) return BENCH_SKIP;
  const double start = bench_now();
  TERN_SCOPE;
  if (open) {
    const double item = tern_item(tern_f32(TERN_SHAPE(1), 1));
    return item != 1 || write(fd, &start, sizeof start) != (ssize_t)sizeof start;
  }
  tern_function *f = tern_function_new(body, NULL, 1, 1, NULL);
  float data[SIZE], out[SIZE];
  for (int i = 0; i < SIZE; i++) data[i] = (float)(i * 7 % 100) * 0.01f;
  tern_tensor *y = tern_call(f, tern_constant(TERN_SHAPE(SIZE), TERN_F32, data, SIZE));
  if (!y || tern_to_host(y, out, sizeof out)) {
    fprintf(stderr, "%s\n", tern_error());
    return 1;
  }
  const double seconds = bench_now() - start;
  tern_function_info info;
  if (tern_function_get_info(f, &info) || info.launches < KERNELS) return bench_fail("only %u launches", info.launches);
  if (write(fd, &seconds, sizeof seconds) != (ssize_t)sizeof seconds) return 1;
  tern_function_release(f);
  return tern_finish();
}

/* ---- the parent ---- */

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *at) {
  (void)st, (void)kind, (void)at;
  return remove(path);
}

/* Seconds of a child with its caches in `caches`; -1: it failed, -2: there is no OpenCL. Its log goes to `log`. */
static double start_once(const char *caches, const char *mode, int log) {
  int ends[2];
  if (pipe(ends)) return -1;
  const pid_t pid = fork();
  if (!pid) {
    char fd[16], pocl[128];
    snprintf(fd, sizeof fd, "%d", ends[1]);
    snprintf(pocl, sizeof pocl, "%s/pocl", caches);
    setenv("TERN_CACHE_DIR", caches, 1);
    setenv("POCL_CACHE_DIR", pocl, 1);
    setenv("TERN_LOG", "debug", 1);
    dup2(log, STDERR_FILENO);
    close(ends[0]);
    char *const argv[] = {"opencl_start", (char *)(uintptr_t)mode, fd, NULL};
    execve("/proc/self/exe", argv, environ);
    _exit(127);
  }
  close(ends[1]);
  double seconds = -1;
  const bool told = pid > 0 && read(ends[0], &seconds, sizeof seconds) == (ssize_t)sizeof seconds;
  close(ends[0]);
  int status = 1;
  if (pid > 0) waitpid(pid, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == BENCH_SKIP) return -2;
  return told && !status ? seconds : -1;
}

/* Lines of a log with this text. */
static int count(FILE *log, const char *text) {
  char line[2048];
  int n = 0;
  rewind(log);
  while (fgets(line, sizeof line, log)) n += strstr(line, text) != NULL;
  return n;
}

typedef struct figures {
  int builds;     /* of the first start */
  double seconds; /* of those after it */
} figures;

static int measure(const char *name, figures *out) {
  char caches[] = "/tmp/tern-bench-start-XXXXXX";
  FILE *first = tmpfile(), *later = tmpfile();
  if (!first || !later || !mkdtemp(caches)) return bench_fail("%s: no temporary files: %s", name, strerror(errno));
  double s[STARTS];
  double worst = start_once(caches, "--open", fileno(later)); /* the device's self-test, which its first opening does */
  if (ftruncate(fileno(later), 0)) return bench_fail("%s: no temporary files: %s", name, strerror(errno));
  rewind(later);
  if (worst >= 0) worst = start_once(caches, "--child", fileno(first));
  for (int i = 0; i < STARTS && worst >= 0; i++) {
    bench_rest();
    s[i] = start_once(caches, "--child", fileno(later));
    if (s[i] < 0) worst = s[i];
  }
  const int again = count(later, " built as one ");
  *out = (figures){.builds = count(first, " built as one ")};
  if (worst < 0 && worst > -2) { /* say why */
    char text[2048];
    rewind(first);
    while (fgets(text, sizeof text, first)) fputs(strstr(text, "debug") ? "" : text, stderr);
  }
  fclose(first);
  fclose(later);
  nftw(caches, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
  if (worst == -2) {
    bench_fail("%s: there is no OpenCL here", name);
    return BENCH_SKIP;
  }
  if (worst < 0) return bench_fail("%s: the child failed", name);
  if (again) return bench_fail("%s: the starts after the first compiled %d times", name, again);
  out->seconds = bench_median(s, STARTS);
  return 0;
}

static int second_case(const char *name) {
  figures f;
  const int rc = measure(name, &f);
  if (rc) return rc;
  const double ms = 1e3 * f.seconds;
  const bench_row row = {name, bench_device(), "ms", NULL, false, ms, NAN, 150 / ms, 150};
  bench_print(&row);
  return 0;
}

static int builds_case(const char *name) {
  figures f;
  const int rc = measure(name, &f);
  if (rc) return rc;
  const bench_row row = {name, bench_device(), "compiles", NULL, false, f.builds, NAN, NAN, 1};
  bench_print(&row);
  return 0;
}

int main(int argc, char **argv) {
  if (argc == 3 && !strcmp(argv[1], "--child")) return child(atoi(argv[2]), false);
  if (argc == 3 && !strcmp(argv[1], "--open")) return child(atoi(argv[2]), true);
  const bench_case cases[] = {{.name = "opencl/second_start", .measure = second_case},
                              {.name = "opencl/first_builds", .measure = builds_case}};
  return bench_main(argc, argv, "Start of a compiled function on an OpenCL device.", cases,
                    sizeof cases / sizeof *cases);
}
#else
int main(void) {
  fputs("opencl_start: built without the OpenCL headers\n", stderr);
  return BENCH_SKIP;
}
#endif
