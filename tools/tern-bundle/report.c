/* What vendors' compilers say of an image, read into the manifest: Intel's acl_quartus_report.txt (as the
   adjust_plls.tcl of its boards writes it) and AMD's xclbin.info (as xclbinutil --info prints it). Both are lines of
   NAME: VALUE. */
#include "bundle.h"

#include <stdlib.h>
#include <string.h>

/* The value of a line "NAME: VALUE" without the space around; NULL: another line. n: its length. */
static const char *value_of(const char *line, size_t length, const char *name, size_t *n) {
  size_t at = strspn(line, " \t");
  const size_t name_n = strlen(name);
  if (at + name_n + 1 > length || strncmp(line + at, name, name_n) || line[at + name_n] != ':') return NULL;
  at += name_n + 1;
  while (at < length && (line[at] == ' ' || line[at] == '\t')) at++;
  while (length > at && (line[length - 1] == ' ' || line[length - 1] == '\t' || line[length - 1] == '\r')) length--;
  *n = length - at;
  return line + at;
}

/* "95,011" or "243.75"; *end: behind it. */
static double number(const char *s, const char *stop, const char **end) {
  char digits[40];
  size_t n = 0;
  while (s < stop && *s == ' ') s++;
  const char *from = s;
  for (; s < stop && ((*s >= '0' && *s <= '9') || *s == '.' || *s == ','); s++)
    if (*s != ',' && n + 1 < sizeof digits) digits[n++] = *s;
  digits[n] = 0;
  *end = s;
  return s > from ? strtod(digits, NULL) : -1;
}

/* "95,011 / 427,200 ( 22 % )" as {"used", "of"}; "243.75" as {"used"}. False: not a number. */
static bool add_figure(cJSON *to, const char *name, const char *s, size_t n) {
  const char *stop = s + n, *end;
  const double used = number(s, stop, &end);
  if (used < 0) return false;
  cJSON *figure = cJSON_AddObjectToObject(to, name);
  cJSON_AddNumberToObject(figure, "used", used);
  while (end < stop && *end == ' ') end++;
  if (end < stop && *end == '/') {
    const double of = number(end + 1, stop, &end);
    if (of >= 0) cJSON_AddNumberToObject(figure, "of", of);
  }
  return true;
}

static bool add_text(cJSON *to, const char *name, const char *s, size_t n) {
  char text[300];
  snprintf(text, sizeof text, "%.*s", (int)n, s);
  return cJSON_AddStringToObject(to, name, text) != NULL;
}

static size_t line_length(const char *s) { return strcspn(s, "\n"); }
static const char *next_line(const char *s) {
  s += line_length(s);
  return s + (*s == '\n');
}

/* ---- Intel ---- */

static const struct {
  const char *line, *member, *unit;
} intel_lines[] = {{"ALUTs", "aluts", ""},
                   {"Registers", "registers", ""},
                   {"Logic utilization", "logic", ""},
                   {"DSP blocks", "dsp", ""},
                   {"Memory bits", "memory_bits", ""},
                   {"RAM blocks", "ram_blocks", ""},
                   {"Actual clock freq", "clock_mhz", " MHz"},
                   {"Kernel fmax", "fmax_mhz", " MHz"}};
enum { N_INTEL = sizeof intel_lines / sizeof intel_lines[0] };

static cJSON *read_intel(const char *text) {
  cJSON *r = cJSON_CreateObject(), *figures = NULL;
  int found = 0;
  if (!r || !cJSON_AddStringToObject(r, "kind", "acl_quartus_report") ||
      !(figures = cJSON_AddObjectToObject(r, "figures"))) {
    cJSON_Delete(r);
    return NULL;
  }
  for (const char *s = text; *s; s = next_line(s))
    for (int i = 0; i < N_INTEL; i++) {
      size_t n;
      const char *v = value_of(s, line_length(s), intel_lines[i].line, &n);
      if (v && !cJSON_HasObjectItem(figures, intel_lines[i].member))
        found += add_figure(figures, intel_lines[i].member, v, n);
    }
  if (found >= 4 && cJSON_HasObjectItem(figures, "fmax_mhz")) return r;
  cJSON_Delete(r);
  return NULL;
}

/* ---- AMD ---- */

typedef struct amd_state {
  cJSON *r, *clocks, *kernels, *memories, *last;
  enum { NOWHERE, SCALABLE, SYSTEM, MEMORY } part;
} amd_state;

/* Lines of a clock, or of a memory: the name comes first, the others belong to it. */
static void read_item(amd_state *a, const char *s, size_t length) {
  static const char *const clock[][2] = {{"Type", "type"},
                                         {"Frequency", "mhz"},
                                         {"Default Freq", "default_mhz"},
                                         {"Requested Freq", "requested_mhz"},
                                         {"Achieved Freq", "achieved_mhz"}};
  size_t n;
  const char *v = value_of(s, length, "Name", &n), *end;
  if (v) {
    a->last = cJSON_CreateObject();
    add_text(a->last, "name", v, n);
    cJSON_AddItemToArray(a->part == MEMORY ? a->memories : a->clocks, a->last);
    return;
  }
  if (!a->last) return;
  if (a->part == MEMORY) {
    if ((v = value_of(s, length, "Type", &n))) add_text(a->last, "type", v, n);
    if ((v = value_of(s, length, "Bank Used", &n))) cJSON_AddBoolToObject(a->last, "used", n == 3);
    return;
  }
  for (size_t i = 0; i < sizeof clock / sizeof clock[0]; i++) {
    if (!(v = value_of(s, length, clock[i][0], &n))) continue;
    if (i)
      cJSON_AddNumberToObject(a->last, clock[i][1], number(v, v + n, &end));
    else
      add_text(a->last, clock[i][1], v, n);
  }
}

static bool starts(const char *s, size_t length, const char *with) {
  return length >= strlen(with) && !strncmp(s, with, strlen(with));
}

static void read_amd_line(amd_state *a, const char *s, size_t length) {
  static const char *const once[][2] = {{"Generated by", "generated_by"},
                                        {"Content", "content"},
                                        {"Platform VBNV", "platform"},
                                        {"FPGA Device", "device"}};
  size_t n;
  const char *v;
  if (starts(s, length, "Scalable Clocks")) a->part = SCALABLE, a->last = NULL;
  if (starts(s, length, "System Clocks")) a->part = SYSTEM, a->last = NULL;
  if (starts(s, length, "Memory Configuration")) a->part = MEMORY, a->last = NULL;
  if (starts(s, length, "====")) a->part = NOWHERE;
  for (size_t i = 0; i < sizeof once / sizeof once[0]; i++)
    if (!cJSON_HasObjectItem(a->r, once[i][1]) && (v = value_of(s, length, once[i][0], &n)))
      add_text(a->r, once[i][1], v, n);
  if (*s == 'K' && (v = value_of(s, length, "Kernel", &n))) {
    char name[200];
    snprintf(name, sizeof name, "%.*s", (int)n, v);
    cJSON_AddItemToArray(a->kernels, cJSON_CreateString(name));
  }
  if (a->part != NOWHERE) read_item(a, s, length);
}

static cJSON *read_amd(const char *text) {
  if (!strstr(text, "xclbin Information")) return NULL;
  amd_state a = {.r = cJSON_CreateObject()};
  cJSON_AddStringToObject(a.r, "kind", "xclbin.info");
  a.clocks = cJSON_AddArrayToObject(a.r, "clocks");
  a.memories = cJSON_AddArrayToObject(a.r, "memories");
  a.kernels = cJSON_AddArrayToObject(a.r, "kernels");
  if (!a.kernels || !a.memories || !a.clocks) {
    cJSON_Delete(a.r);
    return NULL;
  }
  for (const char *s = text; *s; s = next_line(s)) read_amd_line(&a, s, line_length(s));
  if (cJSON_GetArraySize(a.kernels) && cJSON_GetArraySize(a.clocks)) return a.r;
  cJSON_Delete(a.r);
  return NULL;
}

/* ---- into the manifest, and out ---- */

static cJSON *image_of(cJSON *m, const char *file) {
  cJSON *images = cJSON_GetObjectItemCaseSensitive(m, "images"), *i;
  if (!file) return cJSON_GetArraySize(images) == 1 ? cJSON_GetArrayItem(images, 0) : NULL;
  cJSON_ArrayForEach(i, images) if (!strcmp(manifest_string(i, "file"), file)) return i;
  return NULL;
}

int bundle_report(const bundle_request *q) {
  char why[MANIFEST_WHY];
  size_t size = 0;
  if (!q->file) return bundle_failed("report", "which file? tern-bundle report NAME.json REPORT");
  cJSON *m = manifest_read(q->manifest, why);
  char *text = m ? manifest_load(q->file, 16u << 20, &size, why) : NULL;
  if (!text) {
    cJSON_Delete(m);
    return bundle_failed("", why);
  }
  cJSON *report = read_intel(text), *image = image_of(m, q->image);
  if (!report) report = read_amd(text);
  free(text);
  int status = 0;
  if (!report)
    status = bundle_failed(q->file, "is neither an acl_quartus_report.txt nor an xclbin.info, or has no figures");
  else if (!image)
    status = bundle_failed(q->manifest, q->image ? "has no image of that name"
                                                 : "has not exactly one image: say which with --image FILE");
  if (status) {
    cJSON_Delete(report);
    cJSON_Delete(m);
    return status;
  }
  cJSON_DeleteItemFromObjectCaseSensitive(image, "report");
  cJSON_AddItemToObject(image, "report", report);
  if (!manifest_write(m, q->manifest, why)) status = bundle_failed("", why);
  if (!status && q->json) {
    cJSON *out = cJSON_CreateObject();
    cJSON_AddNumberToObject(out, "version", 1);
    cJSON_AddItemToObject(out, "report", cJSON_Duplicate(report, true));
    char *line = cJSON_PrintUnformatted(out);
    if (line) puts(line);
    cJSON_free(line);
    cJSON_Delete(out);
  } else if (!status)
    bundle_print_report(image, "");
  cJSON_Delete(m);
  return status;
}

void bundle_print_report(const cJSON *image, const char *indent) {
  const cJSON *r = cJSON_GetObjectItemCaseSensitive(image, "report");
  char line[600];
  if (manifest_report_line(r, line, sizeof line)) printf("%s%s\n", indent, line);
}
