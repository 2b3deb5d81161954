/* Collecting kernels: graphs and ops are compiled for the plugin's collecting device, opencl:bundle, in the way in
   which they are compiled for any other; it writes the bundle. */
#include "bundle.h"

#include "device/device.h"
#include "dispatch/dispatch.h"
#include "graph/compile.h"
#include "graph/sized.h"
#include "ops/table.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <tern/tern.h>

static const char device_name[] = "opencl:bundle";

static int failed(const char *what) { return bundle_failed(what, tern_error()); }

/* ---- graphs ---- */

static char *read_graph(const char *path, size_t *size) {
  char why[MANIFEST_WHY];
  if (strcmp(path, "-")) {
    char *text = manifest_load(path, 1u << 30, size, why);
    if (!text) bundle_failed("", why);
    return text;
  }
  size_t capacity = 1 << 16, n = 0, got;
  char *text = malloc(capacity);
  while (text && (got = fread(text + n, 1, capacity - n - 1, stdin)) > 0) {
    n += got;
    if (n + 1 < capacity) continue;
    char *larger = realloc(text, capacity *= 2);
    if (!larger) free(text);
    text = larger;
  }
  if (!text) bundle_failed(path, "no memory to read it");
  *size = n;
  return text;
}

static bool in_device(char c) {
  return c == '_' || c == ':' || c == '.' || c == '-' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
         (c >= 'A' && c <= 'Z');
}

/* Takes the devices out of a graph's text, "@cpu:0" and "on @cpu:0", so that all of it lies where it is read: the
   bundle is for another device than the one that the graph was written on. */
static size_t drop_devices(char *text, size_t size) {
  size_t to = 0;
  for (size_t i = 0; i < size;) {
    if (text[i] == '"') {
      do {
        if (text[i] == '\\' && i + 1 < size) text[to++] = text[i++];
        text[to++] = text[i++];
      } while (i < size && text[i] != '"');
    } else if (text[i] == '/' && i + 1 < size && text[i + 1] == '/') {
      while (i < size && text[i] != '\n') i++;
      continue;
    } else if (text[i] == '@' && (size - i < 5 || memcmp(text + i, "@none", 5))) {
      i++;
      if (i < size && text[i] == '"') {
        for (i++; i < size && text[i] != '"'; i++) continue;
        i++;
      } else
        while (i < size && in_device(text[i])) i++;
      if (to >= 4 && !memcmp(text + to - 4, " on ", 4)) to -= 3;
      continue;
    }
    if (i < size) text[to++] = text[i++];
  }
  text[to] = 0;
  return to;
}

static bool read_sizes(const bundle_request *q, tern__dims *dims, uint32_t *given) {
  for (int i = 0; i < q->n_sizes; i++) {
    const char *s = q->size[i];
    char *end = NULL;
    const int k = s[0] == 's' && s[1] >= '0' && s[1] - '0' < TERN__MAX_DIMS && s[2] == '=' ? s[1] - '0' : -1;
    const long long n = k < 0 ? 0 : strtoll(s + 3, &end, 10);
    if (n < 1 || n >= 1 << 24 || *end) return false;
    dims->size[k] = n;
    *given |= 1u << k;
  }
  return true;
}

/* The graph with the sizes that it leaves open: the kernels do not depend on them, but compiling asks for numbers. */
static tern__graph *sized(tern__graph *g, tern__dims dims, uint32_t given) {
  const uint32_t varies = tern__graph_varies(g);
  if (!varies) return g;
  if (varies & ~given) {
    tern__fail(TERN_E_ARG, "size s%d of graph \"%s\" varies: say --size s%d=N", __builtin_ctz(varies & ~given), g->name,
               __builtin_ctz(varies & ~given));
    return NULL;
  }
  dims.n = 32 - __builtin_clz(varies);
  return tern__graph_sized(g, &dims);
}

/* What did not become a kernel of the device. */
static int count_others(const char *notes) {
  int n = 0;
  for (const char *line = notes; *line; line += strcspn(line, "\n"), line += *line == '\n') {
    const size_t length = strcspn(line, "\n");
    unsigned step;
    char device[80];
    if (sscanf(line, " %u %79s", &step, device) != 2 || length < 6) continue;
    const bool here = !strcmp(device, device_name);
    const char *slow = strstr(line, "not native");
    if (!strchr(device, ':') || (here && (!slow || slow > line + length))) continue;
    fprintf(stderr, "tern-bundle: no kernel of the bundle:%.*s\n", (int)length, line);
    n++;
  }
  return n;
}

static int make_graph(const char *path, tern__dims dims, uint32_t given) {
  size_t size = 0;
  char *text = read_graph(path, &size);
  if (!text) return 1;
  tern__graph *read = tern__graph_parse(text, drop_devices(text, size)), *g = NULL;
  free(text);
  if (read && !tern__graph_verify(read, "reading")) g = sized(read, dims, given);
  if (g && g != read && tern__graph_verify(g, "--size")) {
    tern__graph_free(g);
    g = NULL;
  }
  const tern__compile_opts opts = {.name = path};
  tern__program *p = g ? tern__compile(g, &opts) : NULL;
  const int status = p ? 0 : failed(path);
  char *notes = p ? tern__program_explain(p) : NULL;
  if (notes && count_others(notes))
    fprintf(stderr, "tern-bundle: %s: those run on the CPU, or fail with TERN_FALLBACK=error\n", path);
  free(notes);
  if (p) tern__program_free(p);
  if (read && read != g) tern__graph_free(read);
  return status;
}

/* ---- ops ---- */

static tern_dtype dtype_named(const char *s, size_t n) {
  static const char *const names[] = {"bool", "i8",  "i16", "i32",  "i64", "u8", "u16",
                                      "u32",  "u64", "f16", "bf16", "f32", "f64"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
    if (strlen(names[i]) == n && !strncmp(names[i], s, n)) return (tern_dtype)(TERN_BOOL + i);
  return TERN_NO_DTYPE;
}

static tern_tensor *ones(int rank, tern_dtype dtype) {
  static const int64_t sizes[] = {2, 3};
  tern_shape shape = {rank, {0}};
  for (int d = 0; d < rank; d++) shape.dim[d] = d < rank - 2 ? 4 : sizes[d - rank + 2];
  tern_device_mark mark = tern_device_begin("cpu:0");
  tern_tensor *x = tern_ones(shape, dtype);
  tern_device_end(&mark);
  return tern_to(x, device_name);
}

/* One op of the list, by the small call that the op's table has for such questions. */
static int make_op(const char *s, size_t n) {
  char name[80];
  const size_t at = strcspn(s, ":,");
  const char *dtype_at = s + at + 1;
  const size_t dtype_n = at < n ? strcspn(dtype_at, ":,") : 0;
  const char *rank_at = dtype_at + dtype_n;
  snprintf(name, sizeof name, "%.*s", (int)at, s);
  const tern__op *op = tern__op_named(name);
  const tern_dtype dtype = at < n ? dtype_named(dtype_at, dtype_n) : TERN_NO_DTYPE;
  const int rank = at < n && rank_at < s + n && *rank_at == ':' ? atoi(rank_at + 1) : 2;
  char what[120];
  snprintf(what, sizeof what, "--ops %.*s", (int)n, s);
  if (!op || !op->sample) return bundle_failed(what, "no op has that name; tern-info --ops lists them");
  if (!dtype || !(op->dtypes >> dtype & 1))
    return bundle_failed(what, "the op does not compute in that dtype, as NAME:f32");
  if (rank < 2 || rank > 6) return bundle_failed(what, "a rank is 2 to 6");
  TERN_SCOPE;
  const tern__sample sample = {op, dtype, ones(rank, dtype), ones(rank, dtype)};
  return sample.x && sample.y && op->sample(&sample) ? 0 : failed(what);
}

static int make_ops(const char *list) {
  int status = 0;
  for (const char *s = list; *s && !status;) {
    const size_t n = strcspn(s, ",");
    if (n) status = make_op(s, n);
    s += n + (s[n] == ',');
  }
  return status;
}

/* ---- the plugin's options ---- */

static bool join(char *out, size_t room, const char *const *list, int n, char sign) {
  size_t at = strlen(out);
  for (int i = 0; i < n; i++) {
    const int put = snprintf(out + at, room - at, "%s%s", at ? (char[]){sign, 0} : "", list[i]);
    if (put < 0 || (size_t)put >= room - at) return false;
    at += (size_t)put;
  }
  return true;
}

static bool set_options(const bundle_request *q, const char *manifest) {
  static char target[4096], hints[16384];
  manifest_traits t;
  const char *name = q->target ? q->target : "fpga";
  if (!manifest_target(name, &t))
    return bundle_failed(name, "no such target; there are fpga, fpga-ndrange, gpu and cpu") == 0;
  for (int i = 0; i < q->n_traits; i++)
    if (!manifest_set_trait(&t, q->trait[i]))
      return bundle_failed(q->trait[i], "no such trait, or not a value of it") == 0;
  for (int i = 0; i < q->n_hints; i++)
    if (!manifest_hint_valid(q->hint[i]))
      return bundle_failed(q->hint[i], "a hint is KEY=VALUE or WHAT:KEY=VALUE") == 0;
  snprintf(target, sizeof target, "%s", name);
  if (!join(target, sizeof target, q->trait, q->n_traits, ',') || !join(hints, sizeof hints, q->hint, q->n_hints, ';'))
    return bundle_failed("", "too many traits or hints") == 0;
  setenv("TERN_OPENCL_BUNDLE_OUT", manifest, 1);
  setenv("TERN_OPENCL_BUNDLE_TARGET", target, 1);
  setenv("TERN_OPENCL_BUNDLE_HINTS", hints, 1);
  if (q->ops) setenv("TERN_OPENCL_BUNDLE_EAGER", "1", 1);
  unsetenv("TERN_OPENCL_BUNDLE");
  setenv("TERN_PLACEMENT", "pinned", 1);
  return true;
}

int bundle_make(const bundle_request *q) {
  char manifest[4096], why[MANIFEST_WHY];
  tern__dims dims = {.n = 0};
  uint32_t given = 0;
  const size_t n = strlen(q->out);
  const bool whole = n > 5 && !strcmp(q->out + n - 5, ".json");
  snprintf(manifest, sizeof manifest, "%s%s", q->out, whole ? "" : ".json");
  if (!read_sizes(q, &dims, &given))
    return bundle_failed("--size", "expected s0=N, and so on, with N from 1 to 16777215");
  if (!set_options(q, manifest)) return 2;
  if (remove(manifest) && errno != ENOENT) return bundle_failed(manifest, strerror(errno));
  tern_device_mark mark = tern_device_begin(device_name);
  if (tern_error_code()) return failed(device_name);
  int status = 0;
  for (int i = 0; i < q->n_graphs && !status; i++) status = make_graph(q->graph[i], dims, given);
  if (!status && q->ops) status = make_ops(q->ops);
  tern_device_end(&mark);
  if (status) return status;
  cJSON *m = manifest_read(manifest, why);
  if (!m) return bundle_failed("nothing was compiled for the bundle", why);
  fprintf(stderr, "tern-bundle: %s: %d sections in %s\n", manifest,
          cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(m, "sections")),
          manifest_string(cJSON_GetObjectItemCaseSensitive(m, "source"), "file"));
  cJSON_Delete(m);
  return 0;
}
