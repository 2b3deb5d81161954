/* A compiled graph: steps in order, and frames. A frame holds what one run needs and nothing else touches: arguments,
   words, arenas; runs at the same time take a frame each. What changes from run to run is patched: the memory of
   operands, variables and results, and the words that sources give. */
#ifndef TERN_GRAPH_RUN_PROGRAM_H_
#define TERN_GRAPH_RUN_PROGRAM_H_
#include "graph/passes/low.h"
#include "graph/run/watch.h"

typedef struct tern__pstep {
  uint8_t kind; /* tern__lkind; TERN__L_OPAQUE and below: a launch */
  bool slow;
  uint32_t first_arg, n_args, first_word, n_words;
  tern__device *device;
  tern_rc (*launch)(tern_dev *, tern_queue *, const tern_kernel *, const tern_launch *);
  const tern_kernel *code;
  const tern__kernel_class *kernel;
  const char *name;
  tern__request *request; /* slow */
  uint32_t arena;         /* of the workspace */
  uint64_t workspace, workspace_offset;
  uint32_t node; /* MOVE, PRINT, COND, WHILE */
  tern__program *body[2];
  bool async;         /* MOVE from a queue into host memory: begun here, waited for by its first reader */
  uint32_t wait;      /* the first of the moves that must have arrived before this step, + 1; 0: none */
  uint32_t next_wait; /* of an async move: the next one that the same reader waits for, + 1 */
} tern__pstep;

typedef struct tern__pbuffer {
  uint8_t place, dtype;
  uint32_t index, root;
  uint64_t bytes, offset;
  uint32_t arena;
  tern__device *device;
  tern_tensor *tensor;
  uint32_t first_patch, n_patches; /* arguments that lie in it */
} tern__pbuffer;

typedef struct tern__ppatch {
  uint32_t arg;
  uint64_t offset;
} tern__ppatch;

typedef struct tern__presult { /* of the graph */
  uint32_t buffer;             /* TERN__NO: NONE */
  bool owner;                  /* nothing else has the buffer's memory */
  tern_tensor form;            /* dtype, shape, strides, offset */
} tern__presult;

typedef struct tern__pdynamic {
  uint32_t step;
  uint32_t word, source, out; /* word of the frame; number of the source, its output */
  uint8_t dtype, from;
} tern__pdynamic;

typedef struct tern__psource {
  tern__ir_source source;
  int64_t elements;
  uint32_t first, n; /* outputs, numbered through */
} tern__psource;

typedef struct tern__frame {
  struct tern__frame *next;
  tern_arg *arg;
  tern_word *word, *drawn; /* drawn: what the sources gave */
  tern_launch *launch;
  tern_program *replay; /* the whole run as the device recorded it; NULL: not yet */
  uint8_t *stale;       /* of each step: its arguments or words differ from the recorded ones */
  uint32_t n_stale, runs;
  uint64_t *ticket;       /* of each step: of an async move that is under way, else 0 */
  tern__storage *storage; /* of each buffer: where it is in this run; no references */
  tern__storage **arena;
  tern__storage **fresh; /* results and next values, while a run is under way */
} tern__frame;

/* An argument of a program that is one launch, without a frame. */
typedef struct tern__pdirect {
  uint8_t place; /* INPUT, CONST or RESULT */
  uint8_t item;
  uint32_t index; /* operand */
  uint64_t offset;
  tern_mem *mem; /* CONST */
} tern__pdirect;
enum { TERN__MAX_DIRECT = 8 };

struct tern__program {
  char *name;
  tern__pstep *step;
  tern__pbuffer *buffer;
  tern__ppatch *patch;
  tern__presult *result;
  tern__pdynamic *dynamic;
  tern__psource *source;
  tern_tensor **variable; /* references */
  uint32_t *next;         /* of each variable: the buffer of its next value, or TERN__NO */
  uint32_t *external;     /* buffers that are patched in each run */
  struct tern__arena *arena;
  uint32_t *step_of;    /* of each argument */
  _Atomic bool replays; /* the device records launches: a run is one call */
  tern_word *words;     /* as a frame begins */
  tern__larg *args;
  uint32_t n_steps, n_buffers, n_results, n_dynamic, n_sources, n_drawn, n_variables, n_external, n_arenas, n_args,
      n_words, n_fresh, n_inputs;
  uint32_t last_wait; /* the first of the async moves that no step reads, + 1: they end with the run */
  bool plain;         /* launches on one device, nothing else */
  tern__device *device;
  _Atomic(tern__frame *) frame; /* one that is free */
  pthread_mutex_t lock;
  tern__frame *frames; /* more of them */
  tern__watch *watch;  /* times its first runs; NULL: nobody does */
  uint32_t n_direct;   /* not 0: one launch with one result and nothing else */
  tern__pdirect direct[TERN__MAX_DIRECT];
  tern__program_stats stats;
  char *why;
  tern__graph *graph;             /* what was compiled: keeps sources and constants */
  struct tern__layout_hold *hold; /* kernels for literal sizes */
};

/* record.c: from a unit that is complete. Takes over its graph and notes. */
tern__program *tern__program_record(tern__unit *u);
/* program.c: a header over argument k of a step, for the duration of the step; one reference. NULL: out of memory. */
tern_tensor *tern__program_header(const tern__program *p, const tern__frame *f, const tern__pstep *s, uint32_t k,
                                  uint32_t value);
/* Results are made in buffers that are fresh in each run. The number of the one that result i is all of, dense;
   TERN__NO: it is no such result. */
uint32_t tern__program_fresh(const tern__program *p, uint32_t i);
/* tern__program_run, where given[k], if not NULL, is the memory for fresh buffer k: on its device, and of its size. Its
   results refer to that storage. given: n_results places, or NULL. */
tern_rc tern__program_run_into(tern__program *p, tern_tensor *const *in, tern_tensor **out,
                               tern__storage *const *given);
/* control.c: a COND or WHILE step. */
tern_rc tern__run_control(const tern__program *p, tern__frame *f, const tern__pstep *s);
/* A frame, fresh or used before. NULL with the error set. */
tern__frame *tern__frame_slow(tern__program *p, tern__thread *t);
void tern__frame_keep(tern__program *p, tern__frame *f);
static inline tern__frame *tern__frame_take(tern__program *p, tern__thread *t) {
  tern__frame *f;
  if (TERN__SINGLE_THREADED) {
    f = atomic_load_explicit(&p->frame, memory_order_relaxed);
    atomic_store_explicit(&p->frame, NULL, memory_order_relaxed);
  } else {
    f = atomic_exchange_explicit(&p->frame, NULL, memory_order_acquire);
  }
  return TERN__LIKELY(f != NULL) ? f : tern__frame_slow(p, t);
}
static inline void tern__frame_give(tern__program *p, tern__frame *f) {
  if (TERN__SINGLE_THREADED && TERN__LIKELY(!atomic_load_explicit(&p->frame, memory_order_relaxed))) {
    atomic_store_explicit(&p->frame, f, memory_order_relaxed);
    return;
  }
  tern__frame *none = NULL;
  if (!atomic_compare_exchange_strong_explicit(&p->frame, &none, f, memory_order_release, memory_order_relaxed))
    tern__frame_keep(p, f);
}
#endif
