/* Recorded programs: launches that do not depend on each other run side by side, each on one thread, where that is
   measured to be faster than one after the other with all threads each. replay.c records, measures and decides;
   replay_plan.c finds what depends on what and divides the launches into segments; replay_wave.c runs a segment on the
   pool; replay_probe.c tells which launches give the same bits with one thread as with all. */
#ifndef TERN_CPU_REPLAY_H_
#define TERN_CPU_REPLAY_H_
#include "touch.h"
#include <stdatomic.h>

typedef struct replay_node { /* a launch */
  const tern_kernel *kernel;
  tern_launch launch; /* its arrays are the program's */
  touch_span *span;   /* one for each argument and one for the workspace */
  uint32_t n_spans;
  uint32_t next, n_next, before, n_before; /* in program.edge: launches that wait for it; that it waits for */
  uint32_t segment;
  uint32_t twin;          /* the first launch of the same kernel and words: the same work */
  bool steady, dirty;     /* same bits on one thread; addresses changed since they were last compared */
  uint64_t alone, single; /* ns: after each other, with all threads; on one thread */
} replay_node;

/* Launches order[first .. first + n), in program order. threads 0: one after the other; else side by side on so many,
   each as soon as those are done that it waits for */
typedef struct replay_segment {
  uint32_t first, n;
  int threads;
} replay_segment;

enum replay_state { REPLAY_ALONE, REPLAY_SINGLE, REPLAY_COMPARE, REPLAY_KEPT, REPLAY_GIVEN_UP };

struct tern_program {
  uint32_t n, words; /* words: of a row of bits */
  replay_node *node;
  uint32_t *edge, n_edges;
  uint64_t *reach; /* bit j of row i: launch i comes after launch j, at least through others */
  uint64_t *risky; /* bit j of row i: nothing keeps the two apart but that their memory does not meet */
  uint32_t *order, n_segments;
  replay_segment *segment;
  atomic_int *pending; /* of each launch, in a wave: launches that it waits for; CLAIMED: somebody has it */
  uint32_t *dirty, n_dirty;
  enum replay_state state;
  uint32_t runs;    /* in this state */
  uint64_t best[2]; /* ns, while comparing: one by one; in segments */
  bool always;      /* without measuring (tests) */
};

/* replay_plan.c. Whether what one writes is memory of the other */
bool replay_conflict(const replay_node *a, const replay_node *b);
/* False: out of memory, or no two launches are independent */
bool replay_depend(tern_program *p);
/* Whether the times (alone) leave room for a gain, were every launch as fast on one thread */
bool replay_could_pay(const tern_program *p, int threads);
/* Segments from the times, or (always) all that may be side by side. False: nothing is gained */
bool replay_plan(tern_program *p, int threads);

/* replay_wave.c: a segment of a wave. Launches after number *last are left out; *last becomes the first that failed,
   and *rc its status, which is reported */
void replay_wave(tern_program *p, const replay_segment *s, uint32_t *last, tern_rc *rc);

/* replay_probe.c */
bool replay_steady(const replay_node *n);

/* ---- plugin.c: where cpu_error of this thread goes; NULL: to the host ---- */
typedef struct cpu_caught {
  tern_rc rc;
  char text[512];
} cpu_caught;
void cpu_error_into(cpu_caught *c);
void cpu_debug(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* to the host's log, for debugging */

/* The entries of the ABI (replay.c). replay_set: 0 off, 1 measured, 2 always */
void replay_set(int mode);
bool replay_allowed(void); /* not off */
tern_rc replay_begin(tern_dev *, tern_queue *);
tern_rc replay_end(tern_dev *, tern_queue *, tern_program **);
tern_rc replay_update(tern_dev *, tern_program *, uint32_t nth, const tern_launch *);
tern_rc replay_run(tern_dev *, tern_queue *, const tern_program *);
void replay_free(tern_dev *, tern_program *);
/* 1 less the number of threads that record. A launch looks here first, by a plain load and not for 0: so it costs two
   instructions. Written atomically; a thread that records has written it itself */
extern int replay_quiet __attribute__((visibility("hidden")));
bool replay_recording(void); /* this thread is */
tern_rc replay_record(const tern_kernel *, const tern_launch *);
#endif
