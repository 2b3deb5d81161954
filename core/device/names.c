/* Devices by name, the default device, opening. */
#include "base/alloc.h"
#include "base/log.h"
#include "base/options.h"
#include "device/device.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
  const char *name;
  uint32_t kind;
} kinds[] = {{"gpu", TERN_KIND_GPU}, {"accelerator", TERN_KIND_ACCELERATOR}, {"fpga", TERN_KIND_FPGA}};

/* Start every driver whose plugin is open and whose name begins with the name up to ':' (NULL: all). */
static void start(const char *name) {
  tern__registry *r = &tern__devices;
  const size_t n = name ? strcspn(name, ":") : 0;
  for (int i = 0; i < r->n_plugins; i++) {
    tern__plugin *p = &r->plugins[i];
    if (p->refused || !p->name || p->started) continue;
    if (!name || (strlen(p->name) == n && !strncmp(p->name, name, n))) tern__plugin_start(p);
  }
}

static tern__device *of_kind(uint32_t kind) {
  tern__registry *r = &tern__devices;
  for (int i = 0; i < r->n_devices; i++)
    if (r->devices[i]->info.kind == kind && !(r->devices[i]->flags & TERN_DEV_HIDDEN) &&
        !atomic_load(&r->devices[i]->refused))
      return r->devices[i];
  return NULL;
}

/* NAME, NAME:1, NAME:ALIAS, NAME:ALIAS/0, or an id. */
static tern__device *exact(const char *name) {
  tern__registry *r = &tern__devices;
  const char *slash = strrchr(name, '/');
  const size_t stem = slash ? (size_t)(slash - name) : strlen(name);
  int want = slash ? atoi(slash + 1) : 0;
  for (int i = 0; i < r->n_devices; i++) {
    tern__device *d = r->devices[i];
    if (!strcmp(d->name, name) || (*d->info.id && !strcmp(d->info.id, name))) return d;
    if (!strchr(name, ':') && !strcmp(d->plugin->name, name) && !(d->flags & TERN_DEV_HIDDEN)) return d;
  }
  for (int i = 0; i < r->n_devices; i++) {
    tern__device *d = r->devices[i];
    const char *alias = *d->alias ? d->alias : d->name;
    if (strlen(alias) == stem && !strncmp(alias, name, stem) && want-- == 0) return d;
  }
  return NULL;
}

/* All devices and refused plugins as text for an error. Returns malloc'ed text or NULL. */
static char *what_there_is(void) {
  tern__registry *r = &tern__devices;
  char *text = NULL;
  size_t size = 0;
  FILE *f = open_memstream(&text, &size);
  if (!f) return NULL;
  fprintf(f, "devices:");
  for (int i = 0; i < r->n_devices; i++) {
    fprintf(f, "%s %s", i ? "," : "", r->devices[i]->name);
    if (*r->devices[i]->alias) fprintf(f, " (%s)", r->devices[i]->alias);
    if (atomic_load(&r->devices[i]->refused)) fprintf(f, ", %s", r->devices[i]->info.features);
  }
  if (!r->n_devices) fprintf(f, " none");
  if (!r->n_plugins) fprintf(f, "; no libtern-*.so was found: set TERN_PLUGIN_PATH to their folder");
  for (int i = 0; i < r->n_plugins; i++)
    if (r->plugins[i].none) fprintf(f, "; %s", r->plugins[i].none);
  for (int i = 0; i < r->n_plugins; i++)
    if (r->plugins[i].refused && !r->plugins[i].outranked)
      fprintf(f, "; refused %s: %s", r->plugins[i].file, r->plugins[i].refused);
  fclose(f);
  return text;
}

static tern__device *automatic(void) {
  tern__device *d = of_kind(TERN_KIND_GPU);
  if (!d) d = of_kind(TERN_KIND_ACCELERATOR);
  if (!d) d = of_kind(TERN_KIND_FPGA);
  return d ? d : of_kind(TERN_KIND_CPU);
}

/* Caller holds the registry's lock. */
static tern__device *find(const char *name) {
  tern__devices.starved = false;
  if (tern__plugins_open(name)) return NULL;
  start(name);
  tern__device *d = exact(name);
  if (d) return d;
  if (tern__plugins_open(NULL)) return NULL;
  start(NULL);
  if (!strcmp(name, "auto")) d = automatic();
  for (size_t k = 0; k < sizeof kinds / sizeof *kinds && !d; k++)
    if (!strcmp(name, kinds[k].name)) d = of_kind(kinds[k].kind);
  if (!d) d = exact(name);
  if (d) return d;
  if (tern__devices.starved) {
    tern__fail(TERN_E_OOM, "%s: out of host memory while its plugin was opened", name);
    return NULL;
  }
  char *there = what_there_is();
  tern__fail(TERN_E_ARG, "no device is named \"%s\"; %s", name, there ? there : "(no memory to list them)");
  free(there);
  return NULL;
}

/* The plugin opens it not at all: those who look for a device see why. Caller holds the device's lock. */
static void refuse(tern__device *d) {
  if (atomic_load(&d->refused)) return;
  snprintf(d->info.features, sizeof d->info.features, "refused: %.240s", tern__plugin_error());
  atomic_store(&d->refused, true);
}

static tern_rc open_device(tern__device *d) {
  tern__plugin_error_clear();
  tern_rc rc = d->api->device_open(d->plugin->driver, d->plugin_index, &d->dev);
  if (rc) {
    if (rc == TERN_E_UNSUPPORTED) refuse(d);
    return tern__fail(rc, "%s cannot be opened: %s", d->name,
                      *tern__plugin_error() ? tern__plugin_error() : tern_rc_name(rc));
  }
  if (d->flags & TERN_DEV_ASYNC) {
    tern__plugin_error_clear();
    rc = d->api->queue_open ? d->api->queue_open(d->dev, 0, &d->queue) : TERN_E_UNSUPPORTED;
    if (rc) {
      d->api->device_close(d->dev);
      return tern__fail(rc, "%s: no queue could be opened: %s", d->name,
                        *tern__plugin_error() ? tern__plugin_error() : tern_rc_name(rc));
    }
  }
  if (!d->fast) d->fast = tern__calloc64(TERN__FAST_OPS * TERN_DTYPE_END * TERN__FAST_PATTERNS * sizeof *d->fast);
  if (!d->fast) return tern__fail(TERN_E_OOM, "%s: out of host memory for the kernel table", d->name);
  if (d->queue) tern__drain_at_exit();
  atomic_store_explicit(&d->open, true, memory_order_release);
  return TERN_OK;
}

tern_rc tern__device_open(tern__device *d) {
  if (atomic_load_explicit(&d->open, memory_order_acquire)) return TERN_OK;
  pthread_mutex_lock(&d->lock);
  const tern_rc rc = atomic_load(&d->open) ? TERN_OK : open_device(d);
  pthread_mutex_unlock(&d->lock);
  return rc;
}

tern__device *tern__device_named(const char *name) {
  if (!name || !*name) {
    tern__fail(TERN_E_ARG, "a device's name is empty; tern-info lists the names");
    return NULL;
  }
  pthread_mutex_lock(&tern__devices.lock);
  tern__device *d = find(name);
  pthread_mutex_unlock(&tern__devices.lock);
  return d && !tern__device_open(d) ? d : NULL;
}

tern__device *tern__device_default(void) {
  tern__thread *t = tern__thread_get();
  if (t && t->device) return t->device;
  tern__device *d = atomic_load(&tern__devices.default_device);
  if (d) return d;
  d = tern__device_named(tern__opt()->device);
  tern__device *none = NULL;
  if (d && !atomic_compare_exchange_strong(&tern__devices.default_device, &none, d)) d = none;
  return d;
}

static bool serves_as_host(const tern__device *d) {
  return d->flags & TERN_DEV_HOST_MEM && !(d->flags & TERN_DEV_ASYNC);
}

/* The device that TERN_DEVICE has when nobody sets it, whatever the default is now. */
tern__device *tern__device_host(void) {
  tern__device *d = atomic_load(&tern__devices.host_device);
  if (d) return d;
  for (int i = 0; tern__option_at(i); i++)
    if (!strcmp(tern__option_at(i)->variable, "TERN_DEVICE")) d = tern__device_named(tern__option_at(i)->fallback);
  if (d && !serves_as_host(d)) {
    tern__fail(TERN_E_UNSUPPORTED, "%s has no host memory, so nothing can fall back to it", d->name);
    return NULL;
  }
  if (d) atomic_store(&tern__devices.host_device, d);
  return d;
}

/* ---- public ---- */

tern_rc tern_set_device(const char *name) {
  tern__device *d = tern__device_named(name);
  if (!d) return tern__recorded();
  atomic_store(&tern__devices.default_device, d);
  return TERN_OK;
}

const char *tern_default_device(void) {
  tern__device *d = tern__device_default();
  return d ? d->name : NULL;
}

tern_device_mark tern_device_begin(const char *name) {
  tern__thread *t = tern__thread_get();
  if (!t) return (tern_device_mark){NULL};
  const tern_device_mark mark = {t->device};
  tern__device *d = tern__device_named(name);
  if (d) t->device = d;
  return mark;
}

void tern_device_end(tern_device_mark *mark) {
  if (tern__tls && mark) tern__tls->device = mark->outer;
}

tern_rc tern_counters_get(const char *name, tern_counters *out) {
  tern__device *d = name ? tern__device_named(name) : tern__device_default();
  if (!d) return tern__recorded();
  *out = (tern_counters){.launches = tern__launches(d),
                         .compiles = d->stats.compiles,
                         .fallbacks = d->stats.fallbacks,
                         .splits = d->stats.splits};
  return TERN_OK;
}
