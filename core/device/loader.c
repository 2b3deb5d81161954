/* Finds plugin files, opens them (dlopen) and starts their drivers, each no earlier than somebody asks. Whatever fails
   is remembered as the plugin's reason and never stops the others. */
#include "base/alloc.h"
#include "base/log.h"
#include "base/options.h"
#include "device/device.h"
#include "device/elf.h"
#include <dirent.h>
#include <dlfcn.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef TERN_PLUGIN_DIR
#define TERN_PLUGIN_DIR "/usr/local/lib/tern"
#endif

tern__registry tern__devices = {.lock = PTHREAD_MUTEX_INITIALIZER};
static _Thread_local char plugin_error[1024];

const char *tern__plugin_error(void) { return plugin_error; }
void tern__plugin_error_clear(void) { plugin_error[0] = 0; }

/* ---- what a plugin may ask of us ---- */

static tern_rc host_error(void *context, tern_rc code, const char *message) {
  (void)context;
  snprintf(plugin_error, sizeof plugin_error, "%s", message ? message : "");
  return code;
}

static void host_log(void *context, int level, const char *message) {
  const tern__plugin *p = context;
  tern__log(level, p->name ? p->name : p->file, "%s", message ? message : "");
}

static const char *host_option(void *context, const char *key) {
  const tern__plugin *p = context;
  if (!strcmp(key, "num_threads")) return strcmp(tern__opt()->num_threads, "0") ? tern__opt()->num_threads : NULL;
  if (!strcmp(key, "cache_dir")) return tern__cache_dir();
  return tern__plugin_option(p->name, key);
}

/* ---- finding ---- */

static void refuse(tern__plugin *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void refuse(tern__plugin *p, const char *format, ...) {
  char text[1200];
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  free(p->refused);
  p->refused = tern__strdup(text);
  if (!p->refused) p->refused = strdup("refused (and no memory to say why)");
  tern__log(TERN__LOG_INFO, "device", "plugin %s: %s", p->path, text);
}

static int is_plugin(const struct dirent *e) {
  const size_t n = strlen(e->d_name);
  return n > 11 && !strncmp(e->d_name, "libtern-", 8) && !strcmp(e->d_name + n - 3, ".so");
}

static tern_rc add_file(const char *folder, const char *file) {
  tern__registry *r = &tern__devices;
  const size_t size = strlen(folder) + strlen(file) + 2;
  char *path = tern__calloc(1, size);
  if (!path) return TERN_E_OOM;
  snprintf(path, size, "%s/%s", folder, file);
  for (int i = 0; i < r->n_plugins; i++)
    if (!strcmp(r->plugins[i].path, path)) { /* a folder named twice */
      free(path);
      return TERN_OK;
    }
  char *name = tern__strdup(file + 8);
  if (!name) {
    free(path);
    return TERN_E_OOM;
  }
  name[strlen(name) - 3] = 0;
  r->plugins[r->n_plugins++] = (tern__plugin){.path = path, .file = name};
  return TERN_OK;
}

#define MAX_PLUGINS 128

static tern_rc scan_folder(const char *named) {
  struct dirent **entries = NULL;
  char folder[PATH_MAX];
  if (!realpath(named, folder)) return TERN_OK; /* no such folder: no plugins */
  const int n = scandir(folder, &entries, is_plugin, alphasort);
  tern_rc rc = TERN_OK;
  for (int i = 0; i < n; i++) {
    if (!rc && tern__devices.n_plugins < MAX_PLUGINS) rc = add_file(folder, entries[i]->d_name);
    free(entries[i]);
  }
  if (n >= 0) free(entries);
  return rc;
}

/* <folder of libtern.so>/tern, then the one given when it was built. */
static tern_rc scan_installed(void) {
  Dl_info info;
  if (dladdr((void *)&tern__devices, &info) && info.dli_fname && strrchr(info.dli_fname, '/')) {
    char folder[4096];
    const int n = snprintf(folder, sizeof folder, "%.*s/tern", (int)(strrchr(info.dli_fname, '/') - info.dli_fname),
                           info.dli_fname);
    if (n > 0 && (size_t)n < sizeof folder) {
      const int before = tern__devices.n_plugins;
      const tern_rc rc = scan_folder(folder);
      if (rc || tern__devices.n_plugins > before) return rc;
    }
  }
  return scan_folder(TERN_PLUGIN_DIR);
}

static tern_rc scan(void) {
  tern__registry *r = &tern__devices;
  if (r->scanned) return TERN_OK;
  if (!r->plugins && !(r->plugins = tern__calloc(MAX_PLUGINS, sizeof *r->plugins)))
    return tern__fail(TERN_E_OOM, "out of host memory for the list of plugins");
  tern_rc rc = TERN_OK;
  for (const char *at = tern__opt()->plugin_path; *at && !rc;) {
    const size_t n = strcspn(at, ":");
    char folder[4096];
    if (n && n < sizeof folder) {
      snprintf(folder, sizeof folder, "%.*s", (int)n, at);
      rc = scan_folder(folder);
    }
    at += n + (at[n] == ':');
  }
  if (!rc) rc = scan_installed();
  if (rc) return tern__fail(rc, "out of host memory for the list of plugins");
  r->scanned = true;
  return TERN_OK;
}

/* ---- opening ---- */

static bool begins(const char *file, const char *name, size_t n) {
  return !strncmp(file, name, n) && (file[n] == 0 || file[n] == '-');
}

#define REQUIRED(member)                      \
  if (!p->api.member) {                       \
    refuse(p, "its table lacks %s", #member); \
    return;                                   \
  }

static void take_table(tern__plugin *p) {
  const tern_backend *(*query)(uint32_t) = (const tern_backend *(*)(uint32_t))dlsym(p->handle, "tern_plugin_query");
  if (!query) {
    refuse(p, "it does not export tern_plugin_query: not a tern plugin");
    return;
  }
  const tern_backend *table = query(TERN_ABI);
  if (!table) {
    refuse(p, "it does not serve this core's plugin ABI %u.%u; build it against this version's tern/backend.h",
           TERN_ABI_MAJOR, TERN_ABI_MINOR);
    return;
  }
  if (table->abi >> 16 != TERN_ABI_MAJOR) {
    refuse(p, "it was built for plugin ABI %u.%u, this core has %u.%u; the major versions must be equal",
           table->abi >> 16, table->abi & 0xffff, TERN_ABI_MAJOR, TERN_ABI_MINOR);
    return;
  }
  if (table->struct_size < offsetof(tern_backend, score) || table->struct_size > 65536 || !table->name) {
    refuse(p, "its table is damaged (struct_size %u, name %s)", table->struct_size,
           table->name ? table->name : "missing");
    return;
  }
  p->table = table;
  memcpy(&p->api, table, table->struct_size < sizeof p->api ? table->struct_size : sizeof p->api);
  REQUIRED(init)
  REQUIRED(device_info)
  REQUIRED(device_open)
  REQUIRED(device_close)
  REQUIRED(mem_alloc) REQUIRED(mem_free) REQUIRED(copy) REQUIRED(supports) REQUIRED(compile) REQUIRED(launch)
      REQUIRED(kernel_free) p->name = tern__strdup(p->api.name);
  p->version = tern__strdup(p->api.version ? p->api.version : "");
  if (!p->name || !p->version) {
    free(p->name);
    free(p->version);
    p->name = p->version = NULL;
    p->opened = false; /* the next who asks tries again */
    tern__devices.starved = true;
    return;
  }
  p->score = p->api.score ? p->api.score() : 1;
  if (p->score <= 0) refuse(p, "it says that it cannot run on this machine");
  if (!begins(p->file, p->name, strlen(p->name)))
    tern__log(TERN__LOG_WARN, "device", "%s calls itself \"%s\"; name the file libtern-%s.so, or it is found late",
              p->path, p->name, p->name);
}

static void open_file(tern__plugin *p) {
  p->opened = true;
  const char *problem = tern__elf_problem(p->path);
  if (problem) {
    refuse(p, "%s", problem);
    return;
  }
  p->handle = dlopen(p->path, RTLD_NOW | RTLD_LOCAL);
  if (!p->handle) {
    refuse(p, "dlopen: %s", dlerror());
    return;
  }
  take_table(p);
}

static bool competes(const tern__plugin *p, const char *name) {
  return p->name && !p->refused && !strcmp(p->name, name);
}

/* Of several plugins of one name a running one stays, else the highest score, then the earliest. */
static void choose(void) {
  tern__registry *r = &tern__devices;
  for (int i = 0; i < r->n_plugins; i++) {
    const tern__plugin *best = &r->plugins[i];
    if (!best->name || best->refused) continue;
    for (int j = 0; j < r->n_plugins; j++) {
      const tern__plugin *p = &r->plugins[j];
      if (competes(p, best->name) &&
          (p->started > best->started || (p->started == best->started && p->score > best->score)))
        best = p;
    }
    for (int j = 0; j < r->n_plugins; j++) {
      tern__plugin *p = &r->plugins[j];
      if (p == best || !competes(p, best->name)) continue;
      refuse(p, "%s is also named \"%s\" and %s", best->path, best->name,
             best->started            ? "runs already"
             : best->score > p->score ? "has a higher score"
                                      : "comes first");
      p->outranked = true;
    }
  }
}

tern_rc tern__plugins_open(const char *name) {
  tern__registry *r = &tern__devices;
  const tern_rc rc = scan();
  if (rc) return rc;
  const size_t n = name ? strcspn(name, ":") : 0;
  for (int i = 0; i < r->n_plugins; i++)
    if (!r->plugins[i].opened && (!name || begins(r->plugins[i].file, name, n))) open_file(&r->plugins[i]);
  choose();
  return TERN_OK;
}

/* ---- starting ---- */

static tern_rc add_device(tern__plugin *p, uint32_t i, const tern_device_info *info) {
  tern__registry *r = &tern__devices;
  const int at = atomic_load(&r->n_devices);
  if (at == TERN__MAX_DEVICES) return TERN_E_END;
  tern__device *d = tern__calloc64(sizeof *d);
  if (!d) return TERN_E_OOM;
  d->index = (uint32_t)at;
  d->plugin = p;
  d->plugin_index = i;
  d->api = &p->api;
  d->launch = p->api.launch;
  d->info = *info;
  d->info.name[sizeof d->info.name - 1] = d->info.desc[sizeof d->info.desc - 1] = d->info.id[sizeof d->info.id - 1] = 0;
  d->info.features[sizeof d->info.features - 1] = 0;
  d->flags = (uint32_t)info->flags;
  if (!strncmp(d->info.features, "refused: ", 9)) atomic_store(&d->refused, true);
  d->limit = tern__parse_bytes(tern__opt()->mem_limit);
  pthread_mutex_init(&d->lock, NULL);
  pthread_mutex_init(&d->pool_lock, NULL);
  int number = 0; /* visible devices of this plugin before it */
  for (int k = 0; k < at; k++) number += r->devices[k]->plugin == p && !(r->devices[k]->flags & TERN_DEV_HIDDEN);
  if (info->flags & TERN_DEV_HIDDEN)
    snprintf(d->name, sizeof d->name, "%.14s:%.60s", p->name, d->info.name);
  else
    snprintf(d->name, sizeof d->name, "%.60s:%d", p->name, number);
  if (*d->info.name && strcmp(d->info.name, p->name))
    snprintf(d->alias, sizeof d->alias, "%.14s:%.60s", p->name, d->info.name);
  r->devices[at] = d;
  atomic_store_explicit(&r->n_devices, at + 1, memory_order_release);
  p->n_devices++;
  return TERN_OK;
}

static tern_rc start_driver(tern__plugin *p) {
  p->host = (tern_host){.struct_size = sizeof p->host,
                        .abi = TERN_ABI,
                        .ctx = p,
                        .error = host_error,
                        .log = host_log,
                        .option = host_option};
  tern__plugin_error_clear();
  const tern_rc rc = p->api.init(&p->host, &p->driver);
  if (rc) refuse(p, "its driver did not start: %s%s%s", tern_rc_name(rc), *plugin_error ? ": " : "", plugin_error);
  p->running = !rc;
  return rc;
}

tern_rc tern__plugin_start(tern__plugin *p) {
  if (p->refused) return TERN_E_UNSUPPORTED;
  if (p->started) return TERN_OK;
  tern_rc rc = p->running ? TERN_OK : start_driver(p);
  while (!rc) { /* after the core itself ran out of memory, the next call goes on where this one stopped */
    union {
      tern_device_info info;
      char block[2048];
    } want;
    memset(&want, 0, sizeof want);
    want.info.struct_size = sizeof want.info;
    tern__plugin_error_clear();
    rc = p->api.device_info(p->driver, (uint32_t)p->n_devices, &want.info);
    if (rc == TERN_E_END) {
      if (!p->n_devices && *plugin_error && !p->none) p->none = tern__strdup(plugin_error);
      break;
    }
    if (rc && p->n_devices == 0)
      refuse(p, "it cannot describe its devices: %s%s%s", tern_rc_name(rc), *plugin_error ? ": " : "", plugin_error);
    if (!rc && want.info.flags & TERN_DEV_HOST_MEM && !p->api.mem_map) {
      refuse(p, "its device %u has host memory (TERN_DEV_HOST_MEM), but its table lacks mem_map",
             (unsigned)p->n_devices);
      return TERN_E_UNSUPPORTED;
    }
    if (!rc && (rc = add_device(p, (uint32_t)p->n_devices, &want.info)) == TERN_E_OOM) {
      tern__devices.starved = true;
      return rc;
    }
    if (rc) break;
  }
  p->started = p->running;
  if (rc != TERN_E_END) return rc;
  tern__log(TERN__LOG_INFO, "device", "driver %s (%s): %d devices", p->name, p->path, p->n_devices);
  return TERN_OK;
}

/* ---- looking ---- */

tern_rc tern_plugin_at(int i, tern_plugin_info *out) {
  tern__registry *r = &tern__devices;
  pthread_mutex_lock(&r->lock);
  tern_rc rc = tern__plugins_open(NULL);
  if (!rc && (i < 0 || i >= r->n_plugins)) rc = TERN_E_END;
  if (!rc) {
    const tern__plugin *p = &r->plugins[i];
    *out = (tern_plugin_info){
        .path = p->path, .name = p->name, .version = p->version, .refused = p->refused, .score = p->score};
  }
  pthread_mutex_unlock(&r->lock);
  return rc;
}

/* The settings in the plugin's TERN_EXT_OPTIONS, with the variables that set them. */
static tern_rc list_options(tern__plugin *p) {
  const tern_ext *e = p->table ? p->api.ext : NULL;
  while (e && e->type != TERN_EXT_OPTIONS) e = e->next;
  const tern_ext_options *declared = (const tern_ext_options *)e;
  if (p->options || !declared || e->size < sizeof *declared || declared->n > 1000) return TERN_OK;
  p->options = tern__calloc(declared->n + 1, sizeof *p->options);
  if (!p->options) return tern__fail(TERN_E_OOM, "out of host memory for a plugin's options");
  for (uint32_t k = 0; k < declared->n; k++) {
    const tern_option *o = &declared->options[k];
    char variable[160];
    tern__plugin_variable(p->name, o->key, variable, sizeof variable);
    const char *value = tern__plugin_option(p->name, o->key), *standard = o->value ? o->value : "";
    p->options[k] =
        (tern_option_info){tern__strdup(variable), value ? value : standard, standard, o->doc ? o->doc : ""};
    if (!p->options[k].variable) return tern__fail(TERN_E_OOM, "out of host memory for a plugin's options");
    p->n_options++;
  }
  return TERN_OK;
}

tern_rc tern_plugin_option_at(int plugin, int i, tern_option_info *out) {
  tern__registry *r = &tern__devices;
  pthread_mutex_lock(&r->lock);
  tern_rc rc = tern__plugins_open(NULL);
  tern__plugin *p = !rc && plugin >= 0 && plugin < r->n_plugins ? &r->plugins[plugin] : NULL;
  if (!rc) rc = p && p->name ? list_options(p) : TERN_E_END;
  if (!rc && (i < 0 || i >= p->n_options)) rc = TERN_E_END;
  if (!rc) *out = p->options[i];
  pthread_mutex_unlock(&r->lock);
  return rc;
}

tern_rc tern_device_at(int i, tern_device_desc *out) {
  tern__registry *r = &tern__devices;
  pthread_mutex_lock(&r->lock);
  tern_rc rc = tern__plugins_open(NULL);
  for (int k = 0; !rc && k < r->n_plugins; k++) tern__plugin_start(&r->plugins[k]);
  if (!rc && (i < 0 || i >= atomic_load(&r->n_devices))) rc = TERN_E_END;
  if (!rc) {
    const tern__device *d = r->devices[i];
    *out = (tern_device_desc){.name = d->name,
                              .alias = d->alias,
                              .desc = d->info.desc,
                              .id = d->info.id,
                              .features = d->info.features,
                              .kind = d->info.kind,
                              .dtypes = d->info.dtypes,
                              .flags = d->info.flags,
                              .mem_total = d->info.mem_total,
                              .mem_free = d->info.mem_free,
                              .hidden = (d->flags & TERN_DEV_HIDDEN) != 0};
  }
  pthread_mutex_unlock(&r->lock);
  return rc;
}
