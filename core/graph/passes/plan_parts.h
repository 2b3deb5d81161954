/* Between the planner's files: an instance with time cut into sections, the quick plans and the exact search. */
#ifndef TERN_CORE_GRAPH_PASSES_PLAN_PARTS_H_
#define TERN_CORE_GRAPH_PASSES_PLAN_PARTS_H_
#include "graph/passes/plan.h"

/* Part of an instance that shares no time with the rest. Sections are numbered spans of time, one for each live set
   that is not contained in a neighbour's; two buffers overlap in time exactly when they share a section. */
typedef struct tern__part {
  uint32_t count, sections;
  uint32_t *first, *last; /* [count]: lives in sections first .. last - 1 */
  uint64_t *size;         /* [count]: rounded up to `unit`; above 0 */
  uint64_t *trim;         /* [count]: what the rounding added */
  uint64_t *align;        /* [count]: multiples of `unit` */
  uint64_t *offset;       /* [count]: the best plan so far */
  uint64_t height, bound; /* of that plan, without the trim; lower bound */
  uint64_t unit;          /* greatest common divisor of all alignments */
  uint64_t grain;         /* every offset that is a sum of sizes, aligned, is a multiple of this */
  uint64_t total;         /* sum of size: no sensible offset is above it, alignment aside */
} tern__part;

/* Seconds on a clock that never goes back. */
double tern__plan_now(void);
/* The next multiple of align at or above x. */
static inline uint64_t tern__plan_up(uint64_t x, uint64_t align) {
  const uint64_t over = align == 1 ? 0 : x % align;
  return over ? x + (align - over) : x;
}
/* Height of a plan of the part. */
uint64_t tern__part_height(const tern__part *part, const uint64_t *offset);

/* Plans by several orders, the best kept, until one is not above goal. There is a plan whatever the time. */
tern_rc tern__plan_greedy(tern__part *part, uint64_t goal, double deadline);
/* Repeated greedy placing where what came out too high goes first the next time. */
tern_rc tern__plan_repair(tern__part *part, uint64_t goal, uint32_t rounds, double deadline);

/* Exact search for a plan of at most some height. */
typedef struct tern__search tern__search;
typedef enum tern__found {
  TERN__FOUND,   /* part->offset and height are the plan */
  TERN__NONE,    /* there is no plan of that height */
  TERN__GAVE_UP, /* node budget spent */
  TERN__TIME_OUT,
  TERN__NO_MEMORY
} tern__found;
enum { TERN__SEARCH_ORDERS = 6 };
/* NULL: no memory, or an instance too large for it. */
tern__search *tern__search_new(tern__part *part);
tern__found tern__search_run(tern__search *search, uint64_t capacity, int order, uint64_t nodes, double deadline);
uint64_t tern__search_nodes(const tern__search *search);
void tern__search_free(tern__search *search);

#endif
