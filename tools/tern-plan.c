/* tern-plan: plans buffers with known lifetimes into one arena, by the planner that tern's graphs use. The file's rows
   go to stdout with their offsets, a report to stderr. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/string.h"
#include "graph/passes/plan.h"
#include "tern/base.h"

static const char help[] =
    "usage: tern-plan FILE.csv [options]\n"
    "Finds offsets in one arena for buffers whose lifetimes are known. FILE: columns id,lower,upper,size, a buffer a "
    "row,\n"
    "living in [lower, upper); - is stdin. The rows go to stdout with a column offset, a report goes to stderr.\n"
    "  --capacity N   the arena's bytes: stop at the first plan that fits; without it the arena is made small\n"
    "  --seconds S    time limit (default 3)\n"
    "  --align N      every offset is a multiple of N (default 1)\n"
    "  --json         the report as JSON\n"
    "  --help         this\n"
    "Exit status: 0 the plan fits, 1 it does not (the best one is printed), 2 wrong usage or a malformed file.\n";

typedef struct request {
  const char *path;
  tern__plan_opts opts;
  bool json;
} request;

enum { FITS = 0, TOO_HIGH = 1, BAD = 2 };

static bool whole(const char *text, uint64_t *out) {
  char *end;
  errno = 0;
  *out = *text >= '0' && *text <= '9' ? strtoull(text, &end, 10) : 0;
  return *out && !errno && !*end;
}

static bool seconds(const char *text, double *out) {
  char *end;
  *out = strtod(text, &end);
  return end != text && !*end && *out > 0 && *out < 1e9;
}

/* -1: go on; else the exit status. */
static int read_options(int argc, char **argv, request *q) {
  for (int i = 1; i < argc; i++) {
    const char *a = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
    if (!strcmp(a, "--help")) {
      fputs(help, stdout);
      return FITS;
    }
    if (!strcmp(a, "--json")) {
      q->json = true;
      continue;
    }
    const bool capacity = !strcmp(a, "--capacity"), align = !strcmp(a, "--align");
    if (capacity || align || !strcmp(a, "--seconds")) {
      i++;
      if (capacity ? whole(value, &q->opts.capacity)
          : align  ? whole(value, &q->opts.align)
                   : seconds(value, &q->opts.seconds))
        continue;
      fprintf(stderr, "tern-plan: %s \"%s\": expected a number above 0\n", a, value);
      return BAD;
    }
    if (q->path || (*a == '-' && a[1])) {
      fprintf(stderr, "tern-plan: unexpected \"%s\"\n%s", a, help);
      return BAD;
    }
    q->path = a;
  }
  if (q->path) return -1;
  fputs(help, stderr);
  return BAD;
}

/* The whole file. */
static tern_rc load(const char *path, tern__string *text) {
  static char piece[1 << 16];
  FILE *f = strcmp(path, "-") ? fopen(path, "rb") : stdin;
  tern_rc rc = f ? TERN_OK : TERN_E_IO;
  while (!rc) {
    const size_t n = fread(piece, 1, sizeof piece, f);
    if (n) rc = tern__string_append(text, piece, n);
    if (n < sizeof piece) {
      if (!rc && ferror(f)) rc = TERN_E_IO;
      break;
    }
  }
  if (rc) fprintf(stderr, "tern-plan: %s: %s\n", path, rc == TERN_E_OOM ? "no memory to read it" : strerror(errno));
  if (f && f != stdin) fclose(f);
  return rc;
}

static void print_json(const request *q, const tern__plan_report *r, size_t count) {
  fprintf(stderr, "{\"version\": 1, \"tool\": \"tern-plan\", \"buffers\": %zu, ", count);
  fprintf(stderr, "\"capacity\": ");
  fprintf(stderr, q->opts.capacity ? "%llu" : "null", (unsigned long long)q->opts.capacity);
  fprintf(stderr, ", \"height\": %llu, \"lower_bound\": %llu, \"naive\": %llu, \"fits\": %s, \"least\": %s, ",
          (unsigned long long)r->height, (unsigned long long)r->lower_bound, (unsigned long long)r->naive,
          r->fits ? "true" : "false", r->proved ? "true" : "false");
  fprintf(stderr, "\"impossible\": %s, \"seconds\": %.6f, \"decisions\": %llu}\n", r->refuted ? "true" : "false",
          r->seconds, (unsigned long long)r->nodes);
}

static void print_report(const request *q, const tern__plan_report *r, size_t count) {
  fprintf(stderr, "buffers        %zu\n", count);
  fprintf(stderr, "capacity used  %llu%s\n", (unsigned long long)r->height, r->proved ? " (no plan needs less)" : "");
  if (q->opts.capacity)
    fprintf(stderr, "capacity       %llu: %s\n", (unsigned long long)q->opts.capacity,
            r->fits      ? "fits"
            : r->refuted ? "does not fit; no plan does"
                         : "does not fit");
  fprintf(stderr, "lower bound    %llu\n", (unsigned long long)r->lower_bound);
  fprintf(stderr, "without reuse  %llu\n", (unsigned long long)r->naive);
  fprintf(stderr, "time           %.3f s\n", r->seconds);
}

static int plan(const request *q, tern__plan_rows *rows) {
  tern__plan_report report;
  tern__string out = {0};
  if (tern__plan(rows->buffers, rows->count, &q->opts, &report)) {
    fprintf(stderr, "tern-plan: %s: %s\n", q->path, tern_error());
    tern_error_clear();
    return BAD;
  }
  int status = report.fits ? FITS : TOO_HIGH;
  if (tern__plan_write(rows, &out) || fwrite(out.text, 1, out.size, stdout) != out.size || fflush(stdout)) {
    fprintf(stderr, "tern-plan: the plan cannot be written\n");
    status = BAD;
  }
  (q->json ? print_json : print_report)(q, &report, rows->count);
  tern__string_free(&out);
  return status;
}

int main(int argc, char **argv) {
  request q = {0};
  tern__plan_rows rows;
  tern__string text = {0};
  char message[256];
  int status = read_options(argc, argv, &q);
  if (status >= 0) return status;
  status = BAD;
  if (load(q.path, &text) == TERN_OK) {
    if (tern__plan_read(text.text ? text.text : "", text.size, &rows, message, sizeof message) == TERN_OK) {
      status = plan(&q, &rows);
      tern__plan_rows_free(&rows);
    } else
      fprintf(stderr, "tern-plan: %s: %s\n", q.path, message);
  }
  tern__string_free(&text);
  return status;
}
