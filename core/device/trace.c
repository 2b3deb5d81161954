/* Events are written as they happen, under one lock; the file is opened at the first and completed by tern_finish. */
#include "device/trace.h"
#include "base/log.h"
#include "base/options.h"
#include <stdio.h>
#include <time.h>

static struct {
  pthread_mutex_t lock;
  FILE *file;
  bool closed; /* one trace a process; also set when the file cannot be opened */
  uint64_t began, events;
} trace = {.lock = PTHREAD_MUTEX_INITIALIZER};

static _Thread_local int lane;
static _Atomic int lanes;

uint64_t tern__now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int tern__trace_lane(void) {
  if (!lane) lane = atomic_fetch_add(&lanes, 1) + 1;
  return lane;
}

static bool open_file(uint64_t now) {
  if (trace.file || trace.closed) return trace.file != NULL;
  trace.file = fopen(tern__opt()->trace, "w");
  trace.began = now;
  trace.closed = !trace.file;
  if (trace.closed)
    tern__log(TERN__LOG_ERROR, "trace", "%s cannot be written; TERN_TRACE is ignored", tern__opt()->trace);
  else
    fprintf(trace.file, "{\"displayTimeUnit\":\"ns\",\"otherData\":{\"version\":1},\"traceEvents\":[");
  return trace.file != NULL;
}

void tern__trace(const char *category, const char *name, const tern__device *d, int on_lane, uint64_t began,
                 const char *args) {
  const uint64_t ended = tern__now_ns();
  pthread_mutex_lock(&trace.lock);
  if (open_file(began)) {
    const double start = began > trace.began ? (double)(began - trace.began) * 1e-3 : 0;
    fprintf(trace.file,
            "%s\n{\"ph\":\"X\",\"cat\":\"%s\",\"name\":\"%s\",\"pid\":%u,\"tid\":%d,\"ts\":%.3f,\"dur\":%.3f,\"args\":{"
            "%s}}",
            trace.events++ ? "," : "", category, name, d->index + 1, on_lane, start, (double)(ended - began) * 1e-3,
            args);
  }
  pthread_mutex_unlock(&trace.lock);
}

void tern__trace_finish(void) {
  pthread_mutex_lock(&trace.lock);
  if (trace.file) {
    for (int i = 0; i < tern__devices.n_devices; i++)
      fprintf(trace.file, "%s\n{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":%d,\"args\":{\"name\":\"%s\"}}",
              trace.events++ ? "," : "", i + 1, tern__devices.devices[i]->name);
    fprintf(trace.file, "\n]}\n");
    if (fclose(trace.file))
      tern__log(TERN__LOG_ERROR, "trace", "%s could not be written completely", tern__opt()->trace);
    trace.file = NULL;
    trace.closed = true;
  }
  pthread_mutex_unlock(&trace.lock);
}
