/* Simulated devices: what the files of the plugin share, and how a test reads their clocks.

   TERN_VIRTUAL_DEVICES describes the devices: NAME:KEY=VALUE,KEY=VALUE;NAME:... . All are hidden: they are reached as
   virtual:NAME only. They compute with the kit's reference evaluator, at once, and count what the real thing would
   take. Keys:
     kind       cpu, gpu, accelerator, fpga or other (other)
     flops      float32 operations a second (no limit)         bandwidth  bytes a second of its memory (no limit)
     launch     time of an empty kernel (0)                    memory     bytes (1G)
     link       bytes a second to and from the host (no limit) latency    time of an empty transfer (0)
     ops        primitives: add|mul|dot (all)                  dtypes     float32|int64 (all)
     args       most arguments of a kernel (no limit)          nodes      most nodes of a region (no limit)
   Times end in ns, us, ms or s; numbers may be 5e11 or 1.2e10; bytes may end in K, M or G (1024s). "default" in place
   of all this, as leaving it out, gives `gpu` and `fpga` (virtual_default). */
#ifndef TERN_VIRTUAL_H_
#define TERN_VIRTUAL_H_
#include <stdbool.h>
#include <tern/backend.h>

enum { VIRTUAL_MAX = 16, VIRTUAL_OPS = 640 /* above every primitive's number */ };

/* The clock, in the plugin table's extension chain. Simulated time begins at 0 when the driver starts. `host` is the
   program's: it moves when it waits for a device. `device` is when the device's queue will have done everything: a
   launch or a copy begins when both the queue and the program have come that far, so devices work side by side.
   `launching` and `copying` are the parts of its queue's time spent so, and how often. */
enum { VIRTUAL_EXT_CLOCK = 0x56434c4b };
typedef struct virtual_clock {
  uint64_t host, device, launching, copying; /* ns */
  uint64_t launches, copies, bytes;          /* bytes over the link */
} virtual_clock;
typedef struct virtual_ext_clock {
  tern_ext ext;
  /* Clock of device number `device`, in the order of TERN_VIRTUAL_DEVICES; E_END past the last. Any thread. */
  tern_rc (*read)(uint32_t device, virtual_clock *out);
} virtual_ext_clock;

typedef struct virtual_spec {
  char name[32];
  uint32_t kind, dtypes, max_args, max_nodes;
  double flops, bandwidth, link; /* a second; 0: no limit */
  uint64_t launch_ns, latency_ns, memory;
  uint64_t ops[VIRTUAL_OPS / 64]; /* bit: the primitive's number */
} virtual_spec;

extern const char virtual_default[];
/* virtual_spec.c: at most VIRTUAL_MAX devices of `text` into spec[]; how many, or -1 with a sentence in message. */
int virtual_parse(const char *text, virtual_spec *spec, char *message, size_t size);
static inline bool virtual_has(const virtual_spec *s, uint32_t op) {
  return op < VIRTUAL_OPS && s->ops[op / 64] >> op % 64 & 1;
}
/* virtual_cost.c: ns of one launch by the roofline: its launch time and the longer of computing and moving. */
uint64_t virtual_cost(const virtual_spec *s, const tern_region *r, const tern_word *words);
/* ns of `bytes` over the link */
uint64_t virtual_transfer(const virtual_spec *s, uint64_t bytes);
#endif
