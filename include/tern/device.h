/* Devices: naming them, moving tensors, memory, waiting. Names are "cpu", "opencl:1", an alias such as "opencl:pocl", a
   kind ("gpu", "fpga", "accelerator") or "auto". The default comes from TERN_DEVICE. */
#ifndef TERN_DEVICE_H_
#define TERN_DEVICE_H_
#include <tern/base.h>
#ifdef __cplusplus
extern "C" {
#endif

/* Make `name` the process's default device. An unknown name is an error that lists the devices there are. */
TERN_API tern_rc tern_set_device(const char *name);
/* The full name of the device that this thread's new tensors go to ("cpu:0"). NULL with an error when there is none. */
TERN_API const char *tern_default_device(void);
/* Opaque; see tern_with_device. */
typedef struct tern_device_mark { void *outer; } tern_device_mark;
/* Use `name` on this thread until tern_device_end. Prefer the declaration tern_with_device(name). */
TERN_API tern_device_mark tern_device_begin(const char *name);
/* Restore what tern_device_begin replaced. */
TERN_API void tern_device_end(tern_device_mark *mark);
/* t on device `name`: itself when it is there, else a copy. */
TERN_API tern_tensor *tern_to(tern_tensor *t, const char *name);
/* Wait until everything submitted to every device (name NULL) or to one is done; reports its errors. */
TERN_API tern_rc tern_sync(const char *name);

/* Bytes: held by live tensors; kept for reuse; most ever live; TERN_MEM_LIMIT (0 = none). */
typedef struct tern_memory { uint64_t live, pooled, peak, limit; } tern_memory;
/* Memory of a device (NULL: the default one). */
TERN_API tern_rc tern_memory_info(const char *name, tern_memory *out);
/* Give pooled memory of every device back to it. */
TERN_API void tern_memory_trim(void);

/* Counters since the start, for tests and the curious. */
typedef struct tern_counters {
  uint64_t launches, compiles, fallbacks /* primitives that ran on the host instead */, splits /* composites run as primitives */;
} tern_counters;
/* Counters of a device (NULL: the default one). */
TERN_API tern_rc tern_counters_get(const char *name, tern_counters *out);

/* What one plugin file turned out to be. Strings live as long as the process. */
typedef struct tern_plugin_info {
  const char *path, *name /* NULL when refused before it was known */, *version, *refused /* reason, NULL = in use */;
  int score;
} tern_plugin_info;
/* Plugin i of those found, in order; TERN_E_END past the last. Loads them (not their drivers) on first use. */
TERN_API tern_rc tern_plugin_at(int i, tern_plugin_info *out);
/* What one device is. Strings live as long as the process. */
typedef struct tern_device_desc {
  const char *name /* "opencl:0" */, *alias /* "opencl:pocl", or "" */, *desc, *id, *features;
  uint32_t kind /* TERN_KIND_* */, dtypes /* bit d = dtype d */;
  uint64_t flags, mem_total, mem_free;
  int hidden;
} tern_device_desc;
/* Device i of all drivers, in order; TERN_E_END past the last. Starts every driver. */
TERN_API tern_rc tern_device_at(int i, tern_device_desc *out);

/* ---- what there is, for tools ---- */

/* One op of the table (docs/ops.md). dtypes: bit d = computed in dtype d. Tolerances of float32 results between
   devices. */
typedef struct tern_op_info {
  const char *name, *family, *operands, *doc;
  uint32_t dtypes;
  double absolute, relative, ulp;
} tern_op_info;
/* Op i, from 0; TERN_E_END past the last. */
TERN_API tern_rc tern_op_at(int i, tern_op_info *out);
/* How a device computes an op in a dtype: 1 by itself, 2 as several primitives, 3 on the host, 0 the op does not take
   that dtype, negative: a status. Compiles what it asks about. */
TERN_API int tern_op_support(const char *op, const char *device, tern_dtype dtype);
/* A variable that tern reads, its value now, its default. */
typedef struct tern_option_info { const char *variable, *value, *standard, *meaning; } tern_option_info;
/* Variable i, from 0; TERN_E_END past the last. */
TERN_API tern_rc tern_option_at(int i, tern_option_info *out);
/* Setting i that plugin number `plugin` (as in tern_plugin_at) declares: TERN_<PLUGIN>_<KEY>; TERN_E_END past the
   last. */
TERN_API tern_rc tern_plugin_option_at(int plugin, int i, tern_option_info *out);

#ifdef __cplusplus
}
struct tern_device_guard {
  tern_device_mark mark;
  explicit tern_device_guard(const char *name) : mark(tern_device_begin(name)) {}
  ~tern_device_guard() { tern_device_end(&mark); }
};
#define tern_with_device(name) tern_device_guard TERN_CAT(tern_device_, __LINE__)(name)
#else
/* A declaration: this thread uses device `name` in the rest of this block. */
#define tern_with_device(name) \
  __attribute__((cleanup(tern_device_end), unused)) tern_device_mark TERN_CAT(tern_device_, __LINE__) = tern_device_begin(name)
#endif
#endif
