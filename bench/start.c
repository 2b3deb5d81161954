/* How long a program takes from its execve to the end of its first tern_print, and that a program on the CPU wakes no
   other driver. The program is this one, started again: it does what examples/hello.c does and then tells the time. */
#include "bench.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* The child: argv is PROGRAM --child FD; writes the clock after its first tern_print to FD. */
static int child(int fd) {
  TERN_SCOPE;
  tern_tensor *a = tern_f32(TERN_SHAPE(3), 1, 2, 3);
  tern_tensor *b = tern_f32(TERN_SHAPE(3), 4, 5, 6);
  tern_print(tern_add(a, b));
  const double end = bench_now();
  if (tern_error_code() || write(fd, &end, sizeof end) != (ssize_t)sizeof end) return 1;
  return tern_finish();
}

/* Runs the child with its stderr going to `err`; seconds from just before execve, or -1. It has the environment
   of this process. */
static double start_once(int err) {
  int ends[2];
  if (pipe(ends)) return -1;
  const pid_t pid = fork();
  if (!pid) {
    char fd[16];
    const int null = open("/dev/null", O_WRONLY);
    snprintf(fd, sizeof fd, "%d", ends[1]);
    dup2(null, STDOUT_FILENO);
    if (err >= 0) dup2(err, STDERR_FILENO);
    close(ends[0]);
    char *const argv[] = {"start", "--child", fd, NULL};
    const double start = bench_now();
    if (write(ends[1], &start, sizeof start) == (ssize_t)sizeof start) execve("/proc/self/exe", argv, environ);
    _exit(127);
  }
  close(ends[1]);
  double t[2] = {0, 0};
  const bool told = pid > 0 && read(ends[0], &t[0], sizeof t[0]) == (ssize_t)sizeof t[0] &&
                    read(ends[0], &t[1], sizeof t[1]) == (ssize_t)sizeof t[1];
  close(ends[0]);
  int status = 1;
  if (pid > 0) waitpid(pid, &status, 0);
  return told && !status ? t[1] - t[0] : -1;
}

static int time_case(const char *name) {
  double ms[BENCH_PAIRS];
  start_once(-1); /* so that the files are in memory */
  for (int i = 0; i < BENCH_PAIRS; i++) {
    bench_rest();
    ms[i] = 1e3 * start_once(-1);
    if (ms[i] < 0) return bench_fail("%s: the child failed", name);
  }
  const double median = bench_median(ms, BENCH_PAIRS);
  const bench_row row = {name, "cpu", "ms", NULL, false, median, NAN, 20 / median, 20};
  bench_print(&row);
  return 0;
}

/* Drivers other than the CPU's that the child's log names as started, -1 when the log does not even name the CPU's. */
static int other_drivers(FILE *log) {
  char line[512];
  int cpu = 0, others = 0;
  while (fgets(line, sizeof line, log)) {
    const char *at = strstr(line, "driver ");
    if (!at) continue;
    if (!strncmp(at, "driver cpu", 10))
      cpu++;
    else
      others++;
  }
  return cpu ? others : -1;
}

static int drivers_case(const char *name) {
  FILE *log = tmpfile();
  if (!log) return bench_fail("%s: no temporary file: %s", name, strerror(errno));
  char *before = getenv("TERN_LOG");
  before = before ? strdup(before) : NULL;
  setenv("TERN_LOG", "device:info", 1);
  const double seconds = start_once(fileno(log));
  if (before)
    setenv("TERN_LOG", before, 1);
  else
    unsetenv("TERN_LOG");
  free(before);
  rewind(log);
  const int others = seconds < 0 ? -1 : other_drivers(log);
  fclose(log);
  if (others < 0)
    return bench_fail("%s: the child failed, or TERN_LOG=device:info no longer says which drivers start", name);
  const bench_row row = {name, "cpu", "drivers", NULL, false, others, NAN, NAN, 0};
  bench_print(&row);
  return 0;
}

int main(int argc, char **argv) {
  if (argc == 3 && !strcmp(argv[1], "--child")) return child(atoi(argv[2]));
  const bench_case cases[] = {{.name = "start/hello", .measure = time_case},
                              {.name = "start/other_drivers", .measure = drivers_case}};
  return bench_main(argc, argv, "Start of a CPU program.", cases, sizeof cases / sizeof *cases);
}
