/* See values.h. */
#include "support/values.h"
#include "tensor/dtype.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

double test_rounded(double v, tern_dtype dtype) {
  unsigned char element[8];
  tern__store(dtype, element, tern__convert((tern_word){.f = v}, TERN_F64, dtype));
  return tern__word_double(tern__load(dtype, element), dtype);
}

int64_t test_numel(tern_shape shape) {
  int64_t n = 1;
  for (int d = 0; d < shape.rank; d++) n *= shape.dim[d];
  return n;
}

tern_tensor *test_tensor(tern_shape shape, tern_dtype dtype, const double *values) {
  const size_t n = (size_t)test_numel(shape), item = tern_dtype_size(dtype);
  unsigned char *data = malloc(n * item + 1);
  if (!data) return NULL;
  for (size_t i = 0; i < n; i++)
    tern__store(dtype, data + i * item, tern__convert((tern_word){.f = values[i]}, TERN_F64, dtype));
  tern_tensor *t = tern_constant(shape, dtype, data, n);
  free(data);
  return t;
}

double *test_values(tern_tensor *t) {
  const size_t n = (size_t)tern_size(t), item = tern_dtype_size(tern_dtype_get(t));
  const tern_dtype dtype = tern_dtype_get(t);
  unsigned char *data = malloc(n * item + 1);
  double *values = malloc(n * sizeof *values + 1);
  if (!t || !data || !values || tern_to_host(t, data, n * item)) {
    free(data);
    free(values);
    return NULL;
  }
  for (size_t i = 0; i < n; i++) values[i] = tern__word_double(tern__load(dtype, data + i * item), dtype);
  free(data);
  return values;
}

static void shape_text(char *text, size_t size, tern_shape shape) {
  int at = snprintf(text, size, "(");
  for (int d = 0; d < shape.rank; d++)
    at += snprintf(text + at, size - (size_t)at, "%s%lld", d ? ", " : "", (long long)shape.dim[d]);
  snprintf(text + at, size - (size_t)at, ")");
}

static int same_type(tern_tensor *got, tern_shape shape, tern_dtype dtype, const char *file, int line,
                     const char *what) {
  const tern_shape have = tern_shape_get(got);
  char a[200], b[200];
  shape_text(a, sizeof a, have);
  shape_text(b, sizeof b, shape);
  const bool shapes = have.rank == shape.rank && !memcmp(have.dim, shape.dim, (size_t)shape.rank * sizeof *shape.dim);
  const bool dtypes = dtype == TERN_NO_DTYPE || tern_dtype_get(got) == dtype;
  return test_check(shapes && dtypes, file, line, "%s: %s %s; expected %s %s", what,
                    tern_dtype_name(tern_dtype_get(got)), a, tern_dtype_name(dtype), b);
}

int test_values_are(tern_tensor *got, tern_shape shape, tern_dtype dtype, const double *expected, double ulps,
                    double absolute, const char *file, int line, const char *what) {
  if (!got) {
    test_check(0, file, line, "%s: %s", what, tern_error());
    tern_error_clear();
    return 0;
  }
  if (!same_type(got, shape, dtype, file, line, what)) return 0;
  double *values = test_values(got);
  if (!test_check(values != NULL, file, line, "%s: %s", what, tern_error())) {
    tern_error_clear();
    return 0;
  }
  const int64_t n = test_numel(shape);
  int64_t bad = -1;
  for (int64_t i = 0; i < n && bad < 0; i++) {
    const double a = values[i], b = expected[i];
    const bool near = a == b || (isnan(a) && isnan(b)) || fabs(a - b) <= absolute ||
                      test_ulps(a, b, (int)tern_dtype_get(got)) <= ulps;
    if (!near) bad = i;
  }
  if (bad < 0)
    test_check(1, file, line, " ");
  else
    test_check(0, file, line,
               "%s: element %lld of %lld is %.17g; expected %.17g (%s, %g ulp and %g allowed, off by %g ulp)", what,
               (long long)bad, (long long)n, values[bad], expected[bad], tern_dtype_name(tern_dtype_get(got)), ulps,
               absolute, test_ulps(values[bad], expected[bad], (int)tern_dtype_get(got)));
  free(values);
  return bad < 0;
}

uint64_t test_next(uint64_t *state) {
  uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 31);
}

int64_t test_below(uint64_t *state, int64_t n) { return (int64_t)(test_next(state) % (uint64_t)n); }

double test_uniform(uint64_t *state, double low, double high) {
  return low + (high - low) * (double)(test_next(state) >> 11) * 0x1p-53;
}

bool test_step(tern_shape shape, int64_t *index) {
  for (int d = shape.rank; d-- > 0;) {
    if (++index[d] < shape.dim[d]) return true;
    index[d] = 0;
  }
  return false;
}

int64_t test_at(tern_shape shape, const int64_t *index) {
  int64_t at = 0;
  for (int d = 0; d < shape.rank; d++) at = at * shape.dim[d] + index[d];
  return at;
}

/* ---- children ---- */

_Noreturn void test_exec(const char *path, const char *first, const char *second) {
  const char *arguments[16], *emulator = getenv("TERN_TEST_EMULATOR");
  char words[1024];
  int n = 0;
  snprintf(words, sizeof words, "%s", emulator ? emulator : "");
  for (char *rest = words, *word; n < 10 && (word = strtok_r(rest, " ", &rest));) arguments[n++] = word;
  arguments[n++] = path;
  arguments[n++] = first;
  arguments[n++] = second;
  arguments[n] = NULL;
  execvp(arguments[0], (char **)(uintptr_t)arguments);
  dprintf(STDERR_FILENO, "%s cannot be run: %s\n", arguments[0], strerror(errno));
  _exit(127);
}

static char program[4096];

static void become_child(const char *name, const char *const *environment, int out) {
  for (int i = 0; environment && environment[i]; i++) {
    char pair[4096];
    snprintf(pair, sizeof pair, "%s", environment[i]);
    char *value = strchr(pair, '=');
    if (!value) continue;
    *value++ = 0;
    setenv(pair, value, 1);
  }
  dup2(out, STDOUT_FILENO);
  dup2(out, STDERR_FILENO);
  test_exec(program, "--child", name);
}

int test_child(const char *name, const char *const *environment, char *text, size_t size) {
  int ends[2], status = 0;
  fflush(NULL);
  text[0] = 0;
  if (pipe(ends)) return 127;
  const pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    become_child(name, environment, ends[1]);
  }
  close(ends[1]);
  size_t at = 0;
  for (ssize_t n; (n = read(ends[0], text + at, size - 1 - at)) > 0 || (n < 0 && errno == EINTR);) {
    if (n > 0) at += (size_t)n;
    if (at == size - 1) break; /* the rest is not kept */
  }
  text[at] = 0;
  close(ends[0]);
  while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  if (child < 0) return 127;
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

int test_main_with_child(int argc, char **argv, const char *suite, const test_case *cases, int n,
                         int (*child)(const char *name)) {
  if (argc == 3 && !strcmp(argv[1], "--child")) return child(argv[2]);
  const ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
  if (length > 0)
    program[length] = 0;
  else
    snprintf(program, sizeof program, "%s", argv[0]);
  return test_main(argc, argv, suite, cases, n);
}
