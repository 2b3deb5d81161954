/* Waiting, and what a plugin's failure means: an error that names the device, and a device that may be lost. */
#include "base/log.h"
#include "device/device.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

tern_rc tern__device_failed(tern__device *d, tern_rc rc, const char *what) {
  if (rc > 0 || rc < TERN_E_IO) rc = TERN_E_INTERNAL;
  const char *why = *tern__plugin_error() ? tern__plugin_error() : tern_rc_name(rc);
  if (rc == TERN_E_LOST) atomic_store(&d->lost, true);
  return tern__fail(rc, "%s: %s failed: %s%s", d->name, what, why,
                    rc == TERN_E_LOST ? "; the device is lost: its tensors are gone, use another device or start again"
                                      : "");
}

tern_rc tern__queue_wait_held(tern__device *d) {
  uint64_t ticket = 0;
  const tern_rc rc = d->api->queue_signal(d->dev, d->queue, &ticket);
  return rc ? rc : d->api->queue_sync(d->dev, d->queue, ticket, UINT64_MAX);
}

tern_rc tern__queue_wait_ticket(tern__device *d, uint64_t ticket) {
  tern__plugin_error_clear();
  pthread_mutex_lock(&d->lock);
  const tern_rc rc = d->api->queue_sync(d->dev, d->queue, ticket, UINT64_MAX);
  pthread_mutex_unlock(&d->lock);
  return rc ? tern__device_failed(d, rc, "earlier work") : TERN_OK;
}

tern_rc tern__device_sync(tern__device *d) {
  if (!d->queue) return TERN_OK;
  tern__plugin_error_clear();
  pthread_mutex_lock(&d->lock);
  const tern_rc rc = tern__queue_wait_held(d);
  pthread_mutex_unlock(&d->lock);
  return rc ? tern__device_failed(d, rc, "earlier work") : TERN_OK;
}

/* At exit, in the process that opened the devices: wait for what is in flight, since the destructors of a driver's
   libraries run next, and its threads must not be at work then. Errors have nobody to read them any more. */
static struct {
  pthread_once_t once;
  pid_t process;
} at_exit = {.once = PTHREAD_ONCE_INIT};

static void drain(void) {
  if (getpid() != at_exit.process) return;
  for (int i = 0; i < atomic_load(&tern__devices.n_devices); i++) {
    tern__device *d = tern__devices.devices[i];
    if (!atomic_load(&d->open) || !d->queue || pthread_mutex_trylock(&d->lock)) continue; /* busy: a thread is inside */
    tern__queue_wait_held(d);
    pthread_mutex_unlock(&d->lock);
  }
}

static void register_drain(void) {
  at_exit.process = getpid();
  atexit(drain);
}

void tern__drain_at_exit(void) { pthread_once(&at_exit.once, register_drain); }

tern_rc tern_sync(const char *name) {
  tern__device *one = name ? tern__device_named(name) : NULL;
  if (name && !one) return tern__recorded();
  if (one) return tern__device_sync(one);
  tern_rc first = TERN_OK;
  for (int i = 0; i < atomic_load(&tern__devices.n_devices); i++) {
    tern__device *d = tern__devices.devices[i];
    const tern_rc rc = atomic_load(&d->open) ? tern__device_sync(d) : TERN_OK;
    if (!first) first = rc;
  }
  return first;
}
