/* What a launch reads and writes: bytes of memory, from its kernel's region and its words. Known for every kernel that
   the plugin compiled; launches whose memory does not meet may run side by side. */
#ifndef TERN_CPU_TOUCH_H_
#define TERN_CPU_TOUCH_H_
#include "cpu.h"

/* How a value of the region lies in an argument's memory */
typedef struct touch_view {
  uint32_t slot, rank, item, dtype;
  bool written;
  int64_t bytes; /* of a packed layout; 0: strided, -1: unknown */
  int64_t offset, shape[TERN_MAX_RANK], stride[TERN_MAX_RANK];
} touch_view;

typedef struct cpu_touch {
  uint32_t n_args, n_views;
  uint64_t workspace;  /* bytes; UINT64_MAX: by the words */
  bool library;        /* a product: libraries may sum in another order where they have fewer threads */
  bool sums_by_thread; /* CONV_DW: they do */
  touch_view view[];
} cpu_touch;

/* Bytes [lo, hi) of memory; where period is not 0, of each period only `width` bytes from lo on (rows of a matrix whose
   other columns are somebody else's). lo == hi: none */
typedef struct touch_span {
  uintptr_t lo, hi, period, width;
  bool written;
} touch_span;

/* NULL: out of memory. Freed with free() */
cpu_touch *touch_new(const tern_region *r, uint64_t workspace);
/* Of each argument, then of the workspace: n_args + 1 spans. An argument that several values share has one span */
void touch_spans(const tern_kernel *k, const tern_launch *l, touch_span *span);
/* Argument `slot` only, moved from old memory to new */
static inline void touch_move(touch_span *s, const tern_arg *from, const tern_arg *to) {
  const uintptr_t by = ((uintptr_t)to->mem + to->offset) - ((uintptr_t)from->mem + from->offset);
  s->lo += by;
  s->hi += by;
}
bool touch_meet(const touch_span *a, const touch_span *b); /* they have a byte in common, as far as spans tell */
static inline bool touch_conflict(const touch_span *a, const touch_span *b) {
  return (a->written || b->written) && touch_meet(a, b);
}
#endif
