/* Static memory planning: offsets in one arena for buffers whose lifetimes are known, so that no two that live at the
   same time overlap and the arena is small. Knows neither devices nor ops. How it works stands in plan.c. */
#ifndef TERN_CORE_GRAPH_PASSES_PLAN_H_
#define TERN_CORE_GRAPH_PASSES_PLAN_H_
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/string.h"
#include "tern/backend.h"

typedef struct tern__buffer {
  int64_t lower, upper; /* it lives in [lower, upper); lower < upper */
  uint64_t size, align; /* bytes; align 0 means 1. Any positive alignment is honoured, not only powers of two */
  uint64_t offset;      /* the answer; 0 for a buffer of no size */
} tern__buffer;

typedef struct tern__plan_opts {
  uint64_t capacity; /* stop at the first plan of at most this height; 0: as low as can be found */
  uint64_t align;    /* of every buffer, besides its own (their least common multiple counts); 0: 1 */
  double seconds;    /* deadline; 0: TERN__PLAN_SECONDS. The quick plan is made even when it has passed already */
} tern__plan_opts;

#define TERN__PLAN_SECONDS 3.0

typedef struct tern__plan_report {
  uint64_t lower_bound; /* no plan is lower: the largest sum of sizes that live at one time, alignment counted in */
  uint64_t height;      /* bytes of arena that the plan needs: the largest offset + size */
  uint64_t naive;       /* the sum of all sizes, each rounded up to the alignment: an arena without reuse */
  bool proved;          /* no plan is lower than height */
  bool fits;            /* height <= capacity; true without a capacity */
  bool refuted;         /* capacity was given and no plan fits it */
  double seconds;       /* wall time taken */
  uint64_t nodes;       /* decisions that the exact search tried */
} tern__plan_report;

/* Fills every buffer's offset. TERN_OK also when the plan does not fit the capacity (it is still the best found);
   TERN_E_ARG for lower >= upper, or when sizes add up to more than 2^63 - 1; TERN_E_OOM. Deterministic as long as the
   deadline does not cut the search short. opts may be NULL (all defaults), report too. */
tern_rc tern__plan(tern__buffer *buffers, size_t count, const tern__plan_opts *opts, tern__plan_report *report);

/* Buffers in a CSV text (docs/formats.md, "Memory plans"). */
typedef struct tern__plan_rows {
  tern__buffer *buffers;
  char **ids; /* as written */
  size_t count;
} tern__plan_rows;

/* Reads a text of `size` bytes. TERN_E_IO for a malformed one: then message (of message_size bytes) says which line
   and why, beginning with "line N: "; TERN_E_OOM. After either *rows is empty. */
tern_rc tern__plan_read(const char *text, size_t size, tern__plan_rows *rows, char *message, size_t message_size);

/* Appends the rows in their order, with their offsets. */
tern_rc tern__plan_write(const tern__plan_rows *rows, tern__string *out);

/* Ends what tern__plan_read gave; an empty one is fine. */
void tern__plan_rows_free(tern__plan_rows *rows);

#endif
