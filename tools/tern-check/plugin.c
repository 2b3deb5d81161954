/* Loads the plugin through its one symbol, with a host of our own, and checks what the ABI says about its table. */
#include "check.h"
#include <ctype.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char error_text[1024];
const char *last_error(void) { return error_text; }
const char *said(void) { return *error_text ? error_text : "(no message: call host->error)"; }
void error_clear(void) { error_text[0] = 0; }

const char *rc_name(tern_rc rc) {
  static const char *const names[] = {"TERN_OK",        "TERN_E_UNSUPPORTED", "TERN_E_OOM", "TERN_E_ARG", "TERN_E_LOST",
                                      "TERN_E_TIMEOUT", "TERN_E_INTERNAL",    "TERN_E_END", "TERN_E_IO"};
  return rc <= 0 && rc >= TERN_E_IO ? names[-rc] : "a code that does not exist";
}

static tern_rc host_error(void *ctx, tern_rc code, const char *message) {
  (void)ctx;
  snprintf(error_text, sizeof error_text, "%s", message ? message : "");
  return code;
}

static void host_log(void *ctx, int level, const char *message) {
  const subject *s = ctx;
  if (level <= 1 || s->opt->verbose)
    fprintf(stderr, "%s: %s\n", level == 0 ? "error" : level == 1 ? "warn" : "info", message ? message : "");
}

static const char *host_option(void *ctx, const char *key) {
  const subject *s = ctx;
  const size_t n = strlen(key);
  for (int i = 0; i < s->opt->n_settings; i++)
    if (!strncmp(s->opt->settings[i], key, n) && s->opt->settings[i][n] == '=') return s->opt->settings[i] + n + 1;
  return NULL;
}

static bool check_name(const subject *s, report *r) {
  const char *name = s->api.name;
  bool good = name && *name;
  for (const char *c = name; good && *c; c++)
    good = islower((unsigned char)*c) || isdigit((unsigned char)*c) || *c == '_';
  if (!expect(r, good, "abi: name", "the table's name is \"%s\": lower-case letters, digits and _ only",
              name ? name : "(null)"))
    return false;
  const char *file = strrchr(s->opt->path, '/') ? strrchr(s->opt->path, '/') + 1 : s->opt->path;
  const size_t n = strlen(name);
  const bool fits =
      !strncmp(file, "libtern-", 8) && !strncmp(file + 8, name, n) && (file[8 + n] == '.' || file[8 + n] == '-');
  expect(r, fits, "abi: file name",
         "a plugin named \"%s\" is found as libtern-%s.so or libtern-%s-VARIANT.so; this is %s", name, name, name,
         file);
  return expect(r, s->api.version && *s->api.version, "abi: version", "the table has no version text");
}

static bool check_entries(const subject *s, report *r) {
  const tern_backend *a = &s->api;
  const struct {
    const char *name;
    bool there;
  } required[] = {{"init", a->init},
                  {"device_info", a->device_info},
                  {"device_open", a->device_open},
                  {"device_close", a->device_close},
                  {"mem_alloc", a->mem_alloc},
                  {"mem_free", a->mem_free},
                  {"copy", a->copy},
                  {"supports", a->supports},
                  {"compile", a->compile},
                  {"launch", a->launch},
                  {"kernel_free", a->kernel_free}};
  bool all = true;
  for (size_t i = 0; i < sizeof required / sizeof *required; i++)
    all = expect(r, required[i].there, "abi: entries", "%s is required and is NULL", required[i].name) && all;
  const int queue = !!a->queue_open + !!a->queue_close + !!a->queue_signal + !!a->queue_wait + !!a->queue_sync;
  expect(r, queue == 0 || queue == 5, "abi: entries",
         "queue_open, _close, _signal, _wait and _sync come together; %d of 5 are set", queue);
  const int program =
      !!a->program_begin + !!a->program_end + !!a->program_update + !!a->program_run + !!a->program_free;
  expect(r, program == 0 || program == 5, "abi: entries",
         "program_begin, _end, _update, _run and _free come together; %d of 5 are set", program);
  return all;
}

static void check_options(const subject *s, report *r) {
  int links = 0;
  for (const tern_ext *e = s->api.ext; e && links < 64; e = e->next, links++) {
    if (e->type != TERN_EXT_OPTIONS) continue;
    const tern_ext_options *o = (const tern_ext_options *)e;
    expect(r, e->size >= sizeof *o, "abi: options", "the options extension's size is %u, less than %zu", e->size,
           sizeof *o);
    for (uint32_t i = 0; e->size >= sizeof *o && i < o->n; i++)
      expect(r, o->options[i].key && *o->options[i].key && o->options[i].doc && *o->options[i].doc, "abi: options",
             "option %u lacks its key or its text", i);
  }
  expect(r, links < 64, "abi: extensions", "the extension chain does not end");
}

bool subject_load(subject *s, report *r) {
  report_current("loading");
  char path[4096];
  snprintf(path, sizeof path, "%s%s", strchr(s->opt->path, '/') ? "" : "./", s->opt->path);
  s->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!expect(r, s->handle, "load", "dlopen: %s", s->handle ? "" : dlerror())) return false;
  const tern_backend *(*query)(uint32_t) = (const tern_backend *(*)(uint32_t))dlsym(s->handle, "tern_plugin_query");
  if (!expect(r, query, "load",
              "it does not export tern_plugin_query (hidden visibility? declare it as backend.h does)"))
    return false;
  s->table = query(TERN_ABI);
  if (!expect(r, s->table, "abi: query", "tern_plugin_query(%#x) answers NULL: built for another ABI", TERN_ABI))
    return false;
  expect(r, query(TERN_ABI) == s->table, "abi: query", "a second tern_plugin_query answers another table");
  expect(r, !query((TERN_ABI_MAJOR + 7) << 16), "abi: query", "a host of ABI %u.0 must be answered with NULL",
         TERN_ABI_MAJOR + 7);
  if (!expect(r, s->table->abi >> 16 == TERN_ABI_MAJOR, "abi: version",
              "the table says ABI %u.%u, tern-check has %u.%u", s->table->abi >> 16, s->table->abi & 0xffff,
              TERN_ABI_MAJOR, TERN_ABI_MINOR))
    return false;
  const uint32_t size = s->table->struct_size;
  if (!expect(r, size >= offsetof(tern_backend, cost) && size <= 65536, "abi: struct_size",
              "the table's struct_size is %u; sizeof(tern_backend) is %zu", size, sizeof s->api))
    return false;
  memcpy(&s->api, s->table, size < sizeof s->api ? size : sizeof s->api);
  const bool named = check_name(s, r), entries = check_entries(s, r);
  check_options(s, r);
  expect(r, s->api.flags == 0, "abi: flags", "the table's flags are %#llx; none is defined",
         (unsigned long long)s->api.flags);
  return named && entries;
}

bool subject_start(subject *s, report *r) {
  const int score = s->api.score ? s->api.score() : 1;
  if (score <= 0) {
    report_skip(r, s->api.name, "its score is 0: it cannot run on this machine");
    return false;
  }
  s->host = (tern_host){.struct_size = sizeof s->host,
                        .abi = TERN_ABI,
                        .ctx = s,
                        .error = host_error,
                        .log = host_log,
                        .option = host_option};
  report_current("init");
  error_clear();
  const tern_rc rc = s->api.init(&s->host, &s->driver);
  return expect(r, !rc, "init", "%s: %s", rc_name(rc), said());
}

void subject_stop(subject *s) {
  report_current("fini");
  if (s->api.fini) s->api.fini(s->driver);
}
