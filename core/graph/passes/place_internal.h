/* What the place*.c files share. A `place` holds a problem made ready, with nodes renumbered by the order in which the
   scheduler takes them ("positions"), and the state of the schedule being looked at.

   The search keeps a base: a complete schedule with snapshots at regular positions. A trial changes the devices of some
   positions and simulates from the snapshot before the first of them only, and stops as soon as it cannot be better. */
#ifndef TERN_GRAPH_PASSES_PLACE_INTERNAL_H_
#define TERN_GRAPH_PASSES_PLACE_INTERNAL_H_
#include "graph/passes/place.h"

#define PLACE_OVER UINT64_MAX /* the bound was passed */
enum { PLACE_GAPS = 12, PLACE_SNAPSHOTS = 32, PLACE_NONE = -1 };

/* When a device or a link is busy: all of [0, tail) but the gaps, which are in order. When there are too many, the
   earliest is forgotten. */
typedef struct place_timeline {
  uint64_t tail;
  uint32_t n;
  struct {
    uint64_t from, to;
  } gap[PLACE_GAPS];
} place_timeline;

/* What orders schedules: the makespan, then all the time that devices and links are busy. */
typedef struct place_cost {
  uint64_t makespan, load;
} place_cost;

typedef struct place {
  const tern__place_problem *problem;
  uint32_t n, n_devices, n_values, n_units, n_outs;
  uint32_t *order, *position;                      /* position -> node, node -> position */
  uint64_t *time;                                  /* [position][device], clamped */
  uint32_t *in_first, *in;                         /* by position, values */
  int32_t *maker, *home, *out;                     /* [value]: position or -1, device or -1, device or -1 */
  uint64_t *leg;                                   /* [value][device]: ns over that device's link; 0: no link */
  uint64_t *tail;                                  /* [position][device]: least ns from its end to the end of all */
  uint64_t *head;                                  /* [position][device]: least ns from the start to its end */
  uint32_t *outs;                                  /* values that have to end somewhere */
  uint32_t *unit;                                  /* [position]: nodes that move together */
  uint32_t *member_first, *member;                 /* positions of each unit, rising */
  uint64_t *mask;                                  /* [unit]: devices that can run all of it */
  uint32_t *next_first, *next, *prev_first, *prev; /* units that read what a unit makes, and the reverse */
  /* the schedule being simulated */
  uint8_t *at; /* [position]: device */
  uint64_t *start, *finish, *arrival;
  uint32_t *stamp, *writer; /* of arrival[value][device]: the run, and the position that asked for it */
  uint32_t run;
  place_timeline *line; /* devices, then links */
  uint64_t top, load;
  uint64_t work; /* positions simulated so far */
  /* the base */
  uint64_t *base_finish, *base_arrival;
  uint32_t *base_writer; /* UINT32_MAX: not copied there */
  uint32_t stride;       /* positions between snapshots */
  place_timeline *snapshot;
  place_cost *snapshot_cost;
  place_cost base;
  void *memory;
} place;

/* place_sim.c. prepare: *out is owned, ended by place__free; errors are recorded. */
tern_rc place__prepare(const tern__place_problem *problem, place **out);
void place__free(place *s);
/* Put the next node into the schedule in s->line, at s->at[i]; its finish. */
uint64_t place__put(place *s, uint32_t i);
/* From nothing: all timelines empty, a new run. */
void place__begin(place *s);
/* Bring outputs home after the last node; the makespan. */
uint64_t place__end(place *s);
/* The schedule of s->at, of which positions below `from` are the base's; PLACE_OVER once it must exceed `bound`.
   s->load is set. */
uint64_t place__trial(place *s, uint32_t from, uint64_t bound);
/* Make the schedule of s->at the base; positions below `from` are the base's already. */
void place__rebase(place *s, uint32_t from);
uint32_t place__copies(const place *s); /* of the last complete run */
/* Time over both links of a value that goes from device a to b */
static inline uint64_t place__way(const place *s, uint32_t value, int32_t a, uint32_t b) {
  const uint64_t *leg = s->leg + (size_t)value * s->n_devices;
  return a < 0 || (uint32_t)a == b ? 0 : leg[a] + leg[b];
}
static inline bool place__better(place_cost a, place_cost b) {
  return a.makespan < b.makespan || (a.makespan == b.makespan && a.load < b.load);
}

/* What the search is allowed and has found. */
typedef struct place_search {
  place *s;
  uint64_t limit;  /* of s->work */
  double deadline; /* CLOCK_MONOTONIC seconds, 0: none */
  uint64_t random;
  uint8_t *best, *saved; /* [position] */
  place_cost best_cost;
  uint32_t *queue, *mark, *list; /* scratch of region growth: [unit] */
  uint8_t *seen;                 /* the same */
  uint32_t *ends;                /* scratch: [position] */
  uint32_t marks;
} place_search;
bool place__out_of_time(const place_search *q);
/* place_start.c: assignments into s->at. */
enum { PLACE_HEFT, PLACE_LOOKAHEAD, PLACE_CLUSTERS, PLACE_GREEDY_END };
void place__greedy(place *s, int how, uint32_t *parent, uint64_t *mask); /* scratch: [unit] each */
/* Everything on device d where it can, elsewhere on the fastest. */
void place__all_on(place *s, uint32_t d);
/* place_search.c: improve the base until no move helps or time is up. */
void place__improve(place_search *q);
/* Move some connected units at random; the base is set. */
void place__shake(place_search *q, uint32_t moves);
/* place_exact.c: branch and bound from q->best on; true: the best is proven. At most `nodes` positions are put. */
bool place__exact(place_search *q, uint64_t nodes);
#endif
