/* tern-info: what tern finds on this machine: plugins, devices, ops and how each device computes them, variables. Uses
   the public API alone. Text by default, --json for programs (docs/formats.md), --ops-markdown for docs/ops.md. */
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tern/base.h>
#include <tern/device.h>

static const char help[] =
    "usage: tern-info [options] [DEVICE]\n"
    "Without options: plugins and devices. With DEVICE (\"cpu\", \"opencl:0\"): that device only.\n"
    "  --ops            how each device computes each op: native, split into primitives, on the host\n"
    "  --env            the variables that tern reads\n"
    "  --json           plugins, devices, variables (and ops with --ops) as JSON\n"
    "  --ops-markdown   the table of ops as Markdown (docs/ops.md)\n"
    "  --help           this\n";

typedef struct request {
  bool ops, env, json, markdown;
  const char *device; /* NULL: all */
} request;

enum { MAX_DEVICES = 64 };
typedef struct devices {
  tern_device_desc it[MAX_DEVICES];
  int n;
} devices;

static const char *dtype_name(int d) {
  static const char *const names[] = {"",       "bool",   "int8",   "int16",   "int32",    "int64",   "uint8",
                                      "uint16", "uint32", "uint64", "float16", "bfloat16", "float32", "float64"};
  return d > 0 && d < TERN_DTYPE_END ? names[d] : "?";
}

/* The set as text; runs that everybody knows by one word. */
static const char *dtypes_text(uint32_t set, char *out, size_t size) {
  static const struct {
    uint32_t set;
    const char *name;
  } groups[] = {{TERN_D_ANY, "all"},
                {TERN_D_NUM, "all numbers"},
                {TERN_D_BOOLINT, "bool and integers"},
                {TERN_D_INT, "integers"},
                {TERN_D_FLOAT, "floats"},
                {TERN_D_SINT, "signed integers"},
                {TERN_D_UINT, "unsigned integers"}};
  for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
    if (set == groups[i].set) return groups[i].name;
  size_t n = 0;
  out[0] = 0;
  for (int d = 1; d < TERN_DTYPE_END; d++)
    if (set >> d & 1 && n < size) n += (size_t)snprintf(out + n, size - n, "%s%s", n ? " " : "", dtype_name(d));
  return *out ? out : "-";
}

static const char *kind_name(uint32_t kind) {
  static const char *const names[] = {"", "cpu", "gpu", "accelerator", "other", "fpga"};
  return kind < sizeof names / sizeof *names ? names[kind] : "?";
}

static const char *bytes_text(uint64_t n, char *out, size_t size) {
  static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double x = (double)n;
  int u = 0;
  while (x >= 1024 && u < 4) x /= 1024, u++;
  if (!n) return "unknown";
  snprintf(out, size, u ? "%.1f %s" : "%.0f %s", x, units[u]);
  return out;
}

/* The devices that were asked for; false after saying that there is none of that name. */
static bool find_devices(const request *q, devices *d) {
  tern_device_desc one;
  const size_t n = q->device ? strlen(q->device) : 0;
  for (int i = 0; tern_device_at(i, &one) == TERN_OK && d->n < MAX_DEVICES; i++) {
    const bool plugin =
        q->device && !strncmp(one.name, q->device, n) && one.name[n] == ':'; /* "cpu" means every cpu:N */
    if (!q->device || plugin || !strcmp(one.name, q->device) || !strcmp(one.alias, q->device)) d->it[d->n++] = one;
  }
  if (d->n || !q->device) return true;
  fprintf(stderr, "tern-info: there is no device \"%s\"; tern-info without arguments lists those there are\n",
          q->device);
  return false;
}

/* ---- text ---- */

static void print_plugins(void) {
  tern_plugin_info p;
  puts("Plugins");
  int i = 0;
  for (; tern_plugin_at(i, &p) == TERN_OK; i++) {
    printf("  %-10s %-8s %s\n", p.name ? p.name : "-", p.version ? p.version : "-", p.path);
    if (p.refused)
      printf("             not used: %s\n", p.refused);
    else if (p.score != 1)
      printf("             score %d\n", p.score);
  }
  if (!i) puts("  none found: set TERN_PLUGIN_PATH to the folder of libtern-*.so");
}

static void print_line(const char *label, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void print_line(const char *label, const char *format, ...) {
  va_list ap;
  printf("    %-9s ", label);
  va_start(ap, format);
  vprintf(format, ap);
  va_end(ap);
  putchar('\n');
}

static void print_counters(const char *name) {
  tern_counters c;
  if (tern_counters_get(name, &c)) return;
  print_line("counters", "%llu launches, %llu compiles, %llu on the host, %llu split", (unsigned long long)c.launches,
             (unsigned long long)c.compiles, (unsigned long long)c.fallbacks, (unsigned long long)c.splits);
}

static void print_device(const tern_device_desc *d, bool counters) {
  char a[32], b[32], types[160], flags[120] = "";
  printf("  %s%s%s%s\n", d->name, *d->alias ? "  (" : "", d->alias, *d->alias ? ")" : "");
  print_line("what", "%s", d->desc);
  print_line("kind", "%s%s", kind_name(d->kind), d->hidden ? ", hidden: reached by this name only" : "");
  if (*d->id) print_line("id", "%s", d->id);
  if (!d->mem_total && !d->mem_free)
    print_line("memory", "unknown");
  else
    print_line("memory", "%s, free %s", bytes_text(d->mem_total, a, sizeof a), bytes_text(d->mem_free, b, sizeof b));
  print_line("dtypes", "%s", d->dtypes ? dtypes_text(d->dtypes, types, sizeof types) : "as each op says (--ops)");
  snprintf(flags, sizeof flags, "%s%s%s%s", d->flags & TERN_DEV_HOST_MEM ? "host memory, " : "",
           d->flags & TERN_DEV_ASYNC ? "queues, " : "no queues, ",
           d->flags & TERN_DEV_IMPORT_HOST ? "imports host memory, " : "",
           d->flags & TERN_DEV_STATIC_ONLY ? "fixed sizes only, " : "");
  flags[strlen(flags) - 2] = 0;
  print_line("works by", "%s", flags);
  if (*d->features) print_line("features", "%s", d->features);
  if (counters) print_counters(d->name);
}

static void print_devices(const request *q, const devices *d) {
  puts("Devices");
  for (int i = 0; i < d->n; i++) print_device(&d->it[i], q->device != NULL);
  if (!d->n) puts("  none");
  const char *name = q->device ? NULL : tern_default_device();
  if (name) printf("Default device: %s\n", name);
}

static void print_variable(const tern_option_info *o) {
  const bool set = o->value && o->standard && strcmp(o->value, o->standard) != 0;
  printf("  %-22s %s%s%s\n", o->variable, o->value && *o->value ? o->value : "(empty)", set ? ", default " : "",
         set ? *o->standard ? o->standard : "(empty)" : "");
  printf("  %-22s %s\n", "", o->meaning);
}

/* Option i of the core and of every plugin in use, one after the other. */
static bool option_at(int i, tern_option_info *o) {
  tern_plugin_info p;
  if (tern_option_at(i, o) == TERN_OK) return true;
  tern_option_info skipped;
  for (int k = 0; tern_option_at(k, &skipped) == TERN_OK; k++) i--;
  for (int k = 0; tern_plugin_at(k, &p) == TERN_OK; k++) {
    if (p.refused) continue;
    for (int n = 0; tern_plugin_option_at(k, n, o) == TERN_OK; n++)
      if (i-- == 0) return true;
  }
  return false;
}

static void print_environment(void) {
  tern_option_info o;
  puts("Variables");
  for (int i = 0; option_at(i, &o); i++) print_variable(&o);
}

/* ---- how ops are computed ---- */

enum { NATIVE = 1, SPLIT, HOST, FAILED };

/* By dtype, how `device` computes `op`; the thread's error is cleared after a failure. */
static void support_of(const tern_op_info *op, const char *device, uint8_t *how) {
  for (int d = 1; d < TERN_DTYPE_END; d++) {
    const int s = op->dtypes >> d & 1 ? tern_op_support(op->name, device, (tern_dtype)d) : 0;
    how[d] = s == TERN_E_UNSUPPORTED ? HOST
             : s < 0                 ? FAILED
                                     : (uint8_t)s; /* TERN_FALLBACK=error refuses what would go to the host */
    if (s < 0) tern_error_clear();
  }
}

static const char *support_text(uint32_t all, const uint8_t *how, char *out, size_t size) {
  static const char *const names[] = {"", "native", "split", "host", "fails"};
  size_t n = 0;
  out[0] = 0;
  for (int s = NATIVE; s <= FAILED; s++) {
    uint32_t set = 0;
    char types[160];
    for (int d = 1; d < TERN_DTYPE_END; d++) set |= (uint32_t)(how[d] == s) << d;
    if (!set || n >= size) continue;
    if (set == all) return names[s];
    n += (size_t)snprintf(out + n, size - n, "%s%s (%s)", n ? ", " : "", names[s],
                          dtypes_text(set, types, sizeof types));
  }
  return out;
}

static void print_ops(const devices *d) {
  tern_op_info op;
  puts("Ops (native: one kernel; split: several primitives on the device; host: on the CPU, with copies)");
  for (int k = 0; k < d->n; k++) {
    const char *family = "";
    int totals[FAILED + 1] = {0};
    printf("  on %s\n", d->it[k].name);
    for (int i = 0; tern_op_at(i, &op) == TERN_OK; i++) {
      uint8_t how[TERN_DTYPE_END] = {0};
      char text[400];
      if (strcmp(family, op.family)) printf("    %s\n", family = op.family);
      support_of(&op, d->it[k].name, how);
      for (int t = 1; t < TERN_DTYPE_END; t++) totals[how[t]]++;
      printf("      %-20s %s\n", op.name, support_text(op.dtypes, how, text, sizeof text));
    }
    printf("    pairs of op and dtype: %d native, %d split, %d on the host, %d fail\n", totals[NATIVE], totals[SPLIT],
           totals[HOST], totals[FAILED]);
  }
}

/* ---- JSON ---- */

static void json_string(const char *s) {
  if (!s) {
    fputs("null", stdout);
    return;
  }
  putchar('"');
  for (; *s; s++) {
    const unsigned char c = (unsigned char)*s;
    if (c == '"' || c == '\\')
      printf("\\%c", c);
    else if (c < 32)
      printf("\\u%04x", c);
    else
      putchar(c);
  }
  putchar('"');
}

static void json_field(const char *name, const char *value, bool first) {
  printf("%s\"%s\": ", first ? "" : ", ", name);
  json_string(value);
}

static void json_dtypes(const char *name, uint32_t set) {
  printf(", \"%s\": [", name);
  for (int d = 1, n = 0; d < TERN_DTYPE_END; d++)
    if (set >> d & 1) printf("%s\"%s\"", n++ ? ", " : "", dtype_name(d));
  putchar(']');
}

static void json_plugins(void) {
  tern_plugin_info p;
  printf("\"plugins\": [");
  for (int i = 0; tern_plugin_at(i, &p) == TERN_OK; i++) {
    printf("%s\n  {", i ? "," : "");
    json_field("path", p.path, true);
    json_field("name", p.name, false);
    json_field("version", p.version, false);
    printf(", \"score\": %d", p.score);
    json_field("refused", p.refused, false);
    putchar('}');
  }
  printf("]");
}

static void json_devices(const devices *d) {
  printf(",\n\"devices\": [");
  for (int i = 0; i < d->n; i++) {
    const tern_device_desc *v = &d->it[i];
    printf("%s\n  {", i ? "," : "");
    json_field("name", v->name, true);
    json_field("alias", v->alias, false);
    json_field("description", v->desc, false);
    json_field("id", v->id, false);
    json_field("kind", kind_name(v->kind), false);
    json_field("features", v->features, false);
    printf(", \"memory_total\": %llu, \"memory_free\": %llu, \"hidden\": %s, \"host_memory\": %s, \"queues\": %s",
           (unsigned long long)v->mem_total, (unsigned long long)v->mem_free, v->hidden ? "true" : "false",
           v->flags & TERN_DEV_HOST_MEM ? "true" : "false", v->flags & TERN_DEV_ASYNC ? "true" : "false");
    json_dtypes("dtypes", v->dtypes);
    putchar('}');
  }
  printf("]");
}

static void json_environment(void) {
  tern_option_info o;
  printf(",\n\"variables\": [");
  for (int i = 0; option_at(i, &o); i++) {
    printf("%s\n  {", i ? "," : "");
    json_field("name", o.variable, true);
    json_field("value", o.value, false);
    json_field("default", o.standard, false);
    json_field("meaning", o.meaning, false);
    putchar('}');
  }
  printf("]");
}

static void json_support(const tern_op_info *op, const devices *d) {
  static const char *const names[] = {"", "native", "split", "host", "fails"};
  printf(", \"support\": {");
  for (int k = 0; k < d->n; k++) {
    uint8_t how[TERN_DTYPE_END] = {0};
    support_of(op, d->it[k].name, how);
    printf("%s", k ? ", " : "");
    json_string(d->it[k].name);
    printf(": {");
    for (int t = 1, n = 0; t < TERN_DTYPE_END; t++)
      if (how[t]) printf("%s\"%s\": \"%s\"", n++ ? ", " : "", dtype_name(t), names[how[t]]);
    putchar('}');
  }
  putchar('}');
}

static void json_ops(const devices *d) {
  tern_op_info op;
  printf(",\n\"ops\": [");
  for (int i = 0; tern_op_at(i, &op) == TERN_OK; i++) {
    printf("%s\n  {", i ? "," : "");
    json_field("name", op.name, true);
    json_field("family", op.family, false);
    json_field("operands", op.operands, false);
    json_field("doc", op.doc, false);
    printf(", \"absolute\": %g, \"relative\": %g, \"ulp\": %g", op.absolute, op.relative, op.ulp);
    json_dtypes("dtypes", op.dtypes);
    json_support(&op, d);
    putchar('}');
  }
  printf("]");
}

static void print_json(const request *q, const devices *d) {
  printf("{\"version\": 1, \"tern\": \"%s\",\n", tern_version());
  json_plugins();
  json_devices(d);
  json_environment();
  if (q->ops) json_ops(d);
  printf("}\n");
}

/* ---- docs/ops.md ---- */

static void cell(const char *text) { /* | would end the cell */
  for (; *text; text++) {
    if (*text == '|') putchar('\\');
    putchar(*text);
  }
}

static void print_markdown(void) {
  static const struct {
    const char *family, *title;
  } titles[] = {{"map_unary", "Elementwise, one operand"},
                {"map_binary", "Elementwise, two and three operands"},
                {"nn", "Neural networks"},
                {"reduce", "Reductions"},
                {"scan", "Scans"},
                {"linalg", "Linear algebra"},
                {"index", "Indexing and sorting"},
                {"create", "Creation"},
                {"random", "Random numbers"},
                {"join", "Joining"}};
  tern_op_info op;
  const char *family = "";
  puts("# Ops\n\nGenerated by `tern-info --ops-markdown` from the op table; do not edit.\n\n"
       "An op `name` is the function `tern_name`; one whose line says (behind ..) has none. The dtypes are those that it computes in; others are promoted first. "
       "Tolerance: how far\n"
       "float32 results of two devices may be apart, as absolute + relative * |value| and in ulp; \"exact\" means the "
       "same bits.");
  for (int i = 0; tern_op_at(i, &op) == TERN_OK; i++) {
    char types[160];
    if (strcmp(family, op.family)) {
      const char *title = family = op.family;
      for (size_t t = 0; t < sizeof titles / sizeof *titles; t++)
        if (!strcmp(titles[t].family, family)) title = titles[t].title;
      printf("\n## %s\n\n| op | operands | meaning | dtypes | tolerance |\n|---|---|---|---|---|\n", title);
    }
    printf("| `%s` | %s | ", op.name, *op.operands ? op.operands : "-");
    cell(op.doc);
    printf(" | %s | ", dtypes_text(op.dtypes, types, sizeof types));
    if (op.absolute == 0 && op.relative == 0 && op.ulp == 0)
      puts("exact |");
    else
      printf("%.2g + %.2g, %.3g ulp |\n", op.absolute, op.relative, op.ulp);
  }
}

/* ---- */

static bool parse(int argc, char **argv, request *q) {
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--ops"))
      q->ops = true;
    else if (!strcmp(argv[i], "--env"))
      q->env = true;
    else if (!strcmp(argv[i], "--json"))
      q->json = true;
    else if (!strcmp(argv[i], "--ops-markdown"))
      q->markdown = true;
    else if (*argv[i] != '-' && !q->device)
      q->device = argv[i];
    else
      return false;
  }
  return true;
}

int main(int argc, char **argv) {
  request q = {0};
  devices d = {.n = 0};
  if (argc == 2 && !strcmp(argv[1], "--help")) {
    fputs(help, stdout);
    return 0;
  }
  if (!parse(argc, argv, &q)) {
    fputs(help, stderr);
    return 2;
  }
  if (q.markdown) {
    print_markdown();
    return 0;
  }
  if (q.env && !q.json && !q.ops && !q.device) {
    print_environment();
    return 0;
  }
  if (q.ops && !q.json && !q.env)
    setenv("TERN_FALLBACK", "silent", 1); /* what goes to the host is in the table already */
  if (!find_devices(&q, &d)) return 1;
  if (q.json) {
    print_json(&q, &d);
    return 0;
  }
  if (!q.device && !q.ops) {
    printf("tern %s\n", tern_version());
    print_plugins();
  }
  if (q.ops)
    print_ops(&d);
  else
    print_devices(&q, &d);
  if (q.env) print_environment();
  return 0;
}
