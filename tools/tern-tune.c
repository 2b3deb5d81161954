/* tern-tune: has an OpenCL device's matrix products and convolutions measured, form by form, and remembered for later
   processes. It sets the plugin's options `tune` and `tune_report` in its own environment, runs each shape once through
   the public API, and shows what the plugin reports. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tern/tern.h>
#include <time.h>
#include <unistd.h>

static const char help[] =
    "usage: tern-tune [options]\n"
    "Measures who multiplies matrices fastest on an OpenCL device, for each class of shapes (sizes by powers of two), "
    "and\n"
    "remembers it in the cache folder: programs that start afterwards use it.\n"
    "  --device NAME    opencl:0 (default), opencl:pocl, ..\n"
    "  --shapes LIST    N (N x N x N), MxNxK or MxNxKxBATCH, and convolutions as "
    "conv:BATCHxCHANNELSxSIZExFILTERSxTAPS,\n"
    "                   with commas between them (default 64,128,256,512,1024,2048)\n"
    "  --dtype NAME     float32 (default) or float64, float16, int8, ..; also f32, f64, f16, bf16, i8, ..\n"
    "  --redo           measure again what is known\n"
    "  --list           what is known, and nothing else\n"
    "  --json           a line of JSON each\n"
    "  --help           this\n"
    "CLBlast is one of those that are tried; where it compiles its kernels first, that takes seconds.\n"
    "Exit status: 0 done, 1 something failed (on stderr), 2 wrong usage.\n";

enum { MAX_SHAPES = 256 };
typedef struct shape {
  char text[64];
  bool conv;
  int64_t n[5];
} shape;

typedef struct request {
  const char *device, *shapes;
  tern_dtype dtype;
  bool redo, list, json;
  shape shape[MAX_SHAPES];
  int n;
} request;

typedef struct report {
  char path[64];
  long read; /* bytes that were shown */
  int lines; /* that were shown */
} report;

static int dtype_named(const char *name) {
  static const char *const others[][2] = {{"f16", "float16"}, {"bf16", "bfloat16"}, {"f32", "float32"},
                                          {"f64", "float64"}, {"i8", "int8"},       {"i16", "int16"},
                                          {"i32", "int32"},   {"i64", "int64"},     {"u8", "uint8"},
                                          {"u16", "uint16"},  {"u32", "uint32"},    {"u64", "uint64"}};
  for (size_t i = 0; i < sizeof others / sizeof *others; i++)
    if (!strcmp(others[i][0], name)) name = others[i][1];
  for (int d = 1; d < TERN_DTYPE_END; d++)
    if (d != TERN_BOOL && !strcmp(tern_dtype_name((tern_dtype)d), name)) return d;
  return 0;
}

/* One item of --shapes. */
static bool read_shape(const char *text, size_t length, shape *s) {
  *s = (shape){.n = {0}};
  if (!length || length >= sizeof s->text) return false;
  memcpy(s->text, text, length);
  const char *at = s->text;
  s->conv = !strncmp(at, "conv:", 5);
  if (s->conv) at += 5;
  int n = 0;
  while (n < 5 && *at >= '1' && *at <= '9') {
    char *end;
    errno = 0;
    s->n[n++] = strtoll(at, &end, 10);
    if (errno || s->n[n - 1] > 1 << 20) return false;
    at = end;
    if (*at != 'x') break;
    at++;
  }
  if (*at || at[-1] == 'x') return false;
  if (s->conv) return n == 5;
  if (n == 1) s->n[1] = s->n[2] = s->n[0];
  if (n < 4) s->n[3] = 1;
  return n == 1 || n == 3 || n == 4;
}

static bool read_shapes(request *q) {
  for (const char *at = q->shapes; *at;) {
    const size_t length = strcspn(at, ",");
    if (q->n == MAX_SHAPES || !read_shape(at, length, &q->shape[q->n++])) {
      fprintf(stderr, "tern-tune: --shapes: \"%.*s\": expected N, MxNxK, MxNxKxBATCH or conv:BxCxSIZExFxTAPS\n",
              (int)length, at);
      return false;
    }
    at += length + (at[length] == ',');
  }
  return q->n > 0;
}

/* -1: go on; else the exit status. */
static int read_options(int argc, char **argv, request *q) {
  *q = (request){.device = "opencl:0", .shapes = "64,128,256,512,1024,2048", .dtype = TERN_F32};
  for (int i = 1; i < argc; i++) {
    const char *a = argv[i];
    if (!strcmp(a, "--help")) {
      fputs(help, stdout);
      return 0;
    }
    if (!strcmp(a, "--redo") || !strcmp(a, "--list") || !strcmp(a, "--json")) {
      *(a[2] == 'r' ? &q->redo : a[2] == 'l' ? &q->list : &q->json) = true;
      continue;
    }
    const bool device = !strcmp(a, "--device"), shapes = !strcmp(a, "--shapes"), dtype = !strcmp(a, "--dtype");
    const char *value = i + 1 < argc ? argv[++i] : "";
    if (!(device || shapes || dtype) || !*value) {
      fprintf(stderr, "tern-tune: unexpected \"%s\"\n%s", a, help);
      return 2;
    }
    if (device) q->device = value;
    if (shapes) q->shapes = value;
    if (dtype) q->dtype = (tern_dtype)dtype_named(value);
    if (!q->dtype) {
      fprintf(stderr, "tern-tune: --dtype \"%s\": no dtype that is multiplied has this name\n", value);
      return 2;
    }
  }
  return read_shapes(q) ? -1 : 2;
}

static void show_line(const request *q, char *line) {
  char *field[4] = {NULL};
  int n = 0;
  for (char *at = line; at && n < 4;) {
    field[n++] = at;
    at = strchr(at, '\t');
    if (at) *at++ = 0;
  }
  if (n < 4) return;
  char *form = strstr(field[1], ": ");
  if (!form) return;
  *form = 0;
  form += 2;
  const bool measured = !strcmp(field[0], "measured"), fastest = atoi(field[3]) != 0;
  const double us = 1e6 * atof(field[2]);
  if (q->json)
    printf("{\"what\": \"%s\", \"form\": \"%s\", \"us\": %.4g, \"measured\": %s, \"fastest\": %s}\n", field[1], form,
           us, measured ? "true" : "false", fastest ? "true" : "false");
  else
    printf("%-44s %-24s %10.4g us%s\n", field[1], form, us, fastest ? "  *" : "");
}

/* Lines of the report that are new: those of what was measured, or of what was remembered. */
static void show(const request *q, report *r, bool remembered) {
  FILE *f = fopen(r->path, "r");
  char line[512];
  if (!f) return;
  fseek(f, r->read, SEEK_SET);
  while (fgets(line, sizeof line, f)) {
    line[strcspn(line, "\n")] = 0;
    if (!strncmp(line, "remembered", 10) != remembered) continue;
    show_line(q, line);
    r->lines++;
  }
  r->read = ftell(f);
  fclose(f);
  fflush(stdout);
}

static tern_tensor *filled(tern_shape of, tern_dtype dtype) { return tern_cast(tern_ones(of, TERN_F32), dtype); }

/* 0 or 1 with the reason on stderr. */
static int run(const request *q, const shape *s) {
  TERN_SCOPE;
  const int64_t *n = s->n;
  if (s->conv) {
    const tern_conv_opts opts = {.layout = TERN_NCHW, .padding = TERN_PAD_SAME};
    tern_conv(filled(TERN_SHAPE(n[0], n[1], n[2], n[2]), q->dtype),
              filled(TERN_SHAPE(n[3], n[1], n[4], n[4]), q->dtype), &opts);
  } else if (n[3] == 1) {
    tern_matmul(filled(TERN_SHAPE(n[0], n[2]), q->dtype), filled(TERN_SHAPE(n[2], n[1]), q->dtype));
  } else {
    tern_matmul(filled(TERN_SHAPE(n[3], n[0], n[2]), q->dtype), filled(TERN_SHAPE(n[3], n[2], n[1]), q->dtype));
  }
  tern_sync(NULL);
  if (!tern_error_code()) return 0;
  fprintf(stderr, "tern-tune: %s: %s\n", s->text, tern_error());
  tern_error_clear();
  return 1;
}

static int run_all(const request *q, report *r) {
  static const shape tiny = {.text = "32", .n = {32, 32, 32, 1}};
  if (q->list) { /* the plugin reads its file at the first product */
    const int rc = run(q, &tiny);
    show(q, r, true);
    if (!rc && !r->lines && !q->json) printf("nothing is known of %s yet\n", q->device);
    return rc;
  }
  int rc = 0;
  const bool terminal = isatty(STDERR_FILENO);
  for (int i = 0; i < q->n; i++) {
    if (terminal) fprintf(stderr, "%d of %d: %s ...\r", i + 1, q->n, q->shape[i].text);
    const int before = r->lines;
    rc |= run(q, &q->shape[i]);
    if (terminal) fprintf(stderr, "%60s\r", "");
    show(q, r, false);
    if (r->lines == before && !q->json)
      printf("%-44s nothing new: its class is known, or there is no choice (--list, --redo)\n", q->shape[i].text);
  }
  return rc;
}

int main(int argc, char **argv) {
  request q;
  const int status = read_options(argc, argv, &q);
  if (status >= 0) return status;
  report r = {.path = "/tmp/tern-tune-XXXXXX"};
  const int fd = mkstemp(r.path);
  if (fd < 0) {
    fprintf(stderr, "tern-tune: %s: %s\n", r.path, strerror(errno));
    return 1;
  }
  close(fd);
  setenv("TERN_DEVICE", q.device, 1);
  setenv("TERN_FALLBACK", "error", 1);
  setenv("TERN_OPENCL_GEMM", "auto", 1);
  setenv("TERN_OPENCL_TUNE", q.list ? "auto" : q.redo ? "redo" : "all", 1);
  setenv("TERN_OPENCL_TUNE_REPORT", r.path, 1);
  int rc = 1;
  const char *name = tern_default_device();
  if (!name)
    fprintf(stderr, "tern-tune: %s\n", tern_error());
  else if (strncmp(name, "opencl", 6))
    fprintf(stderr, "tern-tune: %s is not an OpenCL device: nothing of it is tuned\n", name);
  else
    rc = run_all(&q, &r);
  unlink(r.path);
  tern_error_clear();
  return tern_finish() || rc ? 1 : 0;
}
