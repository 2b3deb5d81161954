/* What the benchmark programs share: the command line, clocks, medians, alternating pairs, one JSON line a case. A
   figure is the median of BENCH_PAIRS samples taken in turn with its peer's in one process; where the peer needs a
   process of its own, bench/run alternates two that --serve. */
#ifndef TERN_BENCH_H_
#define TERN_BENCH_H_
#include <tern/tern.h>

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BENCH_PAIRS = 11, BENCH_SERVED = 5 /* samples behind one answer of --serve */, BENCH_SKIP = 77 };

/* Seconds of one sample. */
#define BENCH_SECONDS 0.03

/* Does the work `reps` times. */
typedef void (*bench_fn)(void *context, long reps);

/* A case has `measure`, which prints its own line, or `loop`, whose time is compared by bench/run, or `once`, which
   gives one figure for that (NAN: it failed). */
typedef struct bench_case {
  const char *name; /* "dispatch/add3" */
  int (*measure)(
      const char *name); /* 0, 1 after a failure, BENCH_SKIP: cannot be measured here, the reason is on stderr */
  bench_fn loop;
  void *context;
  double ops; /* operations of one repetition of loop */
  double (*once)(void);
} bench_case;

/* One line of build/bench.jsonl, less `pass`, which bench/run adds. With a peer, `need` is the least ratio; without
   one it is the limit that `tern` must keep. NAN prints as null. */
typedef struct bench_row {
  const char *name, *device, *unit, *peer /* or NULL */;
  bool higher; /* larger figures are better */
  double tern, peer_value, ratio, need;
} bench_row;

/* Medians over the pairs; seconds a repetition, and peer / tern. */
typedef struct bench_pair {
  double tern, peer, ratio;
} bench_pair;

static inline double bench_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Lets worker threads that spin after their last work fall asleep, so that they do not disturb the next sample. */
static inline void bench_rest(void) { nanosleep(&(const struct timespec){.tv_nsec = 3000000}, NULL); }

static inline int bench_compare(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Sorts v. */
static inline double bench_median(double *v, int n) {
  qsort(v, (size_t)n, sizeof *v, bench_compare);
  return n % 2 ? v[n / 2] : 0.5 * (v[n / 2 - 1] + v[n / 2]);
}

/* Seconds a repetition, to the end of what a device was left to do. */
static inline double bench_time(bench_fn f, void *context, long reps) {
  const double start = bench_now();
  f(context, reps);
  tern_sync(NULL);
  return (bench_now() - start) / (double)reps;
}

/* How many repetitions take about `seconds` (half of it to all of it); warms up on the way. A count is enough only when
   three runs in a row are long: one long run may be the first one's setup, or another process's turn. */
static inline long bench_reps(bench_fn f, void *context, double seconds) {
  f(context, 1);
  long reps = 1;
  for (int enough = 0; enough < 3 && reps < 1L << 40;) {
    if (bench_time(f, context, reps) * (double)reps >= seconds / 2) {
      enough++;
    } else {
      reps *= 2;
      enough = 0;
    }
  }
  return reps;
}

/* BENCH_PAIRS pairs, tern first, each sample about `seconds` long. */
static inline bench_pair bench_pairs(bench_fn tern, void *a, bench_fn peer, void *b, double seconds) {
  const long n = bench_reps(tern, a, seconds), m = bench_reps(peer, b, seconds);
  double mine[BENCH_PAIRS], other[BENCH_PAIRS], ratio[BENCH_PAIRS];
  for (int i = 0; i < BENCH_PAIRS; i++) {
    bench_rest();
    mine[i] = bench_time(tern, a, n);
    bench_rest();
    other[i] = bench_time(peer, b, m);
    ratio[i] = other[i] / mine[i];
  }
  return (bench_pair){bench_median(mine, BENCH_PAIRS), bench_median(other, BENCH_PAIRS),
                      bench_median(ratio, BENCH_PAIRS)};
}

static inline void bench_number(const char *key, double value) {
  if (isfinite(value))
    printf(", \"%s\": %.6g", key, value);
  else
    printf(", \"%s\": null", key);
}

static inline void bench_print(const bench_row *r) {
  printf("{\"case\": \"%s\", \"device\": \"%s\", \"unit\": \"%s\", \"better\": \"%s\"", r->name, r->device, r->unit,
         r->higher ? "higher" : "lower");
  bench_number("tern", r->tern);
  if (r->peer)
    printf(", \"peer\": \"%s\"", r->peer);
  else
    printf(", \"peer\": null");
  bench_number("peer_value", r->peer_value);
  bench_number("ratio", r->ratio);
  bench_number("need", r->need);
  printf("}\n");
  fflush(stdout);
}

/* A message on stderr; returns 1, the failure of a case. */
__attribute__((format(printf, 1, 2))) static inline int bench_fail(const char *format, ...) {
  va_list list;
  va_start(list, format);
  vfprintf(stderr, format, list);
  va_end(list);
  fputc('\n', stderr);
  return 1;
}

/* 1, with the text on stderr, when this thread has an error: a loop that failed measured nothing. */
static inline int bench_errors(const char *name) {
  return tern_error_code() ? bench_fail("%s: %s", name, tern_error()) : 0;
}

/* The median of BENCH_SERVED samples that take about BENCH_SECONDS together; seconds an operation. */
static inline double bench_loop(const bench_case *c, long *reps) {
  double sample[BENCH_SERVED];
  if (!*reps) *reps = bench_reps(c->loop, c->context, BENCH_SECONDS / BENCH_SERVED);
  for (int i = 0; i < BENCH_SERVED; i++) sample[i] = bench_time(c->loop, c->context, *reps) / c->ops;
  return bench_median(sample, BENCH_SERVED);
}

/* Answers each name of a loop on stdin with its seconds an operation, or "error ...", until the end of stdin. */
static inline int bench_serve(const bench_case *cases, int n) {
  long reps[64] = {0};
  char line[128];
  while (fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\r\n")] = 0;
    int i = 0;
    while (i < n && i < 64 && !((cases[i].loop || cases[i].once) && !strcmp(cases[i].name, line))) i++;
    if (i == n || i == 64) {
      printf("error no such case\n");
    } else {
      const double seconds = cases[i].once ? cases[i].once() : bench_loop(&cases[i], &reps[i]);
      if (bench_errors(line) || isnan(seconds))
        printf("error tern failed\n");
      else
        printf("%.9g\n", seconds);
    }
    fflush(stdout);
  }
  return 0;
}

/* The default device as a row names it: "cpu", "opencl:0", and where it was asked for by its implementation's name,
   "opencl:pocl". */
static inline const char *bench_device(void) {
  const char *name = tern_default_device(), *asked = getenv("TERN_DEVICE");
  if (name && asked && !strncmp(asked, "opencl:", 7)) return asked;
  return !name ? "" : strncmp(name, "cpu", 3) ? name : "cpu";
}

static inline bool bench_wanted(const char *name, int argc, char **argv) {
  for (int i = 1; i < argc; i++)
    if (!strncmp(name, argv[i], strlen(argv[i]))) return true;
  return argc < 2;
}

/* Case c by itself: its own line, or the time of its loop with no peer beside it. */
static inline int bench_run(const bench_case *c) {
  if (c->measure) return c->measure(c->name);
  if (c->once) {
    const bench_row row = {c->name, bench_device(), "", NULL, false, c->once(), NAN, NAN, NAN};
    bench_print(&row);
    return isnan(row.tern);
  }
  long reps = 0;
  double v[BENCH_PAIRS];
  for (int i = 0; i < BENCH_PAIRS; i++) v[i] = bench_loop(c, &reps);
  if (bench_errors(c->name)) return 1;
  const bench_row row = {c->name, bench_device(), "ns", NULL, false, 1e9 * bench_median(v, BENCH_PAIRS), NAN, NAN, NAN};
  bench_print(&row);
  return 0;
}

/* The whole of a program: --help, --list, --serve, or the cases whose names begin with an argument. */
static inline int bench_main(int argc, char **argv, const char *about, const bench_case *cases, int n) {
  if (argc == 2 && !strcmp(argv[1], "--serve")) return bench_serve(cases, n);
  const bool help = argc == 2 && !strcmp(argv[1], "--help"), list = argc == 2 && !strcmp(argv[1], "--list");
  if (help)
    printf("%s\nusage: %s [CASE...]   cases whose names begin so (default all), a JSON line each on stdout\n"
           "       --list          the cases\n       --serve         answer names on stdin with seconds an operation\n"
           "cases:\n",
           about, argv[0]);
  if (!help && argc > 1 && argv[1][0] == '-' && !list)
    return bench_fail("%s: unknown option %s; try --help", argv[0], argv[1]) + 1;
  int result = 0;
  for (int i = 0; i < n; i++) {
    if (help || list) {
      printf("%s%s\n", help ? "  " : "", cases[i].name);
    } else if (bench_wanted(cases[i].name, argc, argv)) {
      const int rc = bench_run(&cases[i]);
      if (rc && result != 1) result = rc;
      tern_error_clear();
    }
  }
  return result;
}
#endif
