/* Small measurements of a device that does not declare its speed. */
#ifndef TERN_GRAPH_PASSES_COST_PROBE_H_
#define TERN_GRAPH_PASSES_COST_PROBE_H_
#include "device/device.h"

/* ns of: a one-element add; a product of two 256 x 256 matrices (0: the device has none); an add of 2^18 floats; an
   upload of 4 bytes; an upload of 1 MiB */
enum { TERN__PROBE_EMPTY, TERN__PROBE_DOT, TERN__PROBE_MOVE, TERN__PROBE_TOUCH, TERN__PROBE_SEND, TERN__PROBES };
#define TERN__PROBE_REGION UINT64_C(0x7465726e70726f62) /* stands for a region's key in the measurements */
#define TERN__PROBE_FLOPS (2.0 * 256 * 256 * 256)
#define TERN__PROBE_MOVED (3.0 * 4 * 262144)
#define TERN__PROBE_SENT 1048576.0

/* The least of a few tries each. False when the device cannot add floats by itself or something failed. Runs eagerly,
   seen by no tape or trace, and leaves no error. */
bool tern__probe(tern__device *d, uint64_t ns[TERN__PROBES]);
#endif
