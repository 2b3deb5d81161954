/* TERN_TRACE: a Chrome/Perfetto trace. Each device is a process; lane 0 is what it did, the other lanes are the threads
   that called ops. */
#ifndef TERN_DEVICE_TRACE_H_
#define TERN_DEVICE_TRACE_H_
#include "device/device.h"

/* Monotonic clock. */
uint64_t tern__now_ns(void);
/* Whether this thread traces. */
static inline bool tern__tracing(void) { return tern__tls && tern__tls->hooks & TERN__HOOK_TRACE; }
/* This thread's lane, from 1. */
int tern__trace_lane(void);
/* An event that began at began_ns and ends now. category: "op", "launch" or "transfer"; args: the inside of a JSON
   object. */
void tern__trace(const char *category, const char *name, const tern__device *d, int lane, uint64_t began_ns,
                 const char *args);
/* Write the end of the file, if there is one. */
void tern__trace_finish(void);
#endif
