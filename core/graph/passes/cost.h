/* What running a region takes, for placement: what was measured before, else what the device's plugin says (its `cost`
   entry), else a roofline over the device's speed. A speed that the plugin does not declare is measured once with small
   probes and remembered with the other measurements, in the file costs.bin of the cache folder (docs/formats.md). */
#ifndef TERN_GRAPH_PASSES_COST_H_
#define TERN_GRAPH_PASSES_COST_H_
#include "device/device.h"
#include <stdbool.h>

/* ---- devices ---- */

/* link_*: to and from host memory; both 0: the device works in host memory. The others are never 0. */
typedef struct tern__cost_model {
  uint64_t flops, bandwidth, launch_ns; /* a second, bytes a second, ns a launch */
  uint64_t link_bandwidth, link_ns;     /* bytes a second, ns a transfer */
} tern__cost_model;

/* The device's, which must be open. May run a few small kernels on it, once a process at most and not at all when the
   file has them; modest guesses stand in for what cannot be measured. Never fails and leaves no error. */
tern__cost_model tern__cost_model_of(tern__device *d);
/* launches, and the longer of computing and moving. Saturates below UINT64_MAX. */
uint64_t tern__cost_roofline(const tern__cost_model *m, uint64_t flops, uint64_t bytes, uint32_t launches);
/* Float operations of a region at these launch words (exponentials count 8), and bytes of all its arguments. */
void tern__cost_count(const tern_region *r, const tern_word *words, uint64_t *flops, uint64_t *bytes);
/* ns of one launch of the region on the device: measured, else the plugin's answer, else the roofline. UINT64_MAX never
   comes out: whether the device can run it is not asked here. */
uint64_t tern__cost_region(tern__device *d, const tern_region *r, const tern_word *words);
/* A launch of the region took ns: remember it. The first run of a kernel should not be told: it is no measure. */
void tern__cost_measured(tern__device *d, const tern_region *r, const tern_word *words, uint64_t ns);
/* Write what was measured since the last time to the cache folder; without one, nothing. */
void tern__cost_save(void);

/* ---- measurements ---- */

/* What was measured: a region's class (tern_region.key), a device (tern__cost_device) and a size. */
typedef struct tern__cost_key {
  uint64_t region[2], device;
  uint32_t bucket; /* tern__cost_bucket */
} tern__cost_key;
/* Sizes whose times may differ little: two buckets between n and 2n. */
uint32_t tern__cost_bucket(uint64_t bytes);
/* A number for a device and the driver that it has now. */
uint64_t tern__cost_device(const char *id, const char *driver);

/* Mean times by key. Any thread may call; a mean follows the last 64 times. */
typedef struct tern__history tern__history;
tern__history *tern__history_new(void); /* owned; NULL when memory is exhausted (nothing is recorded) */
void tern__history_free(tern__history *h);
/* False when memory is exhausted or 65536 keys are known already: then it is not remembered. */
bool tern__history_add(tern__history *h, const tern__cost_key *key, uint64_t ns);
/* False: never measured. */
bool tern__history_find(tern__history *h, const tern__cost_key *key, uint64_t *ns);
size_t tern__history_count(tern__history *h);
/* Take in what the file has and h has not. A file that is missing, foreign, damaged or cut is ignored as a whole (with
   a debug line in the log); false then. */
bool tern__history_load(tern__history *h, const char *path);
/* Write h, with what others added to the file meanwhile, beside path and rename it; makes the folder. IO is not
   recorded but logged once. */
tern_rc tern__history_save(tern__history *h, const char *path);
#endif
