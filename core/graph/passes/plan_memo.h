/* What the exact search refuted: a set of buffers over the floors of its sections. The same set over floors that are
   nowhere lower has no plan either. */
#ifndef TERN_CORE_GRAPH_PASSES_PLAN_MEMO_H_
#define TERN_CORE_GRAPH_PASSES_PLAN_MEMO_H_
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tern__memo {
  uint32_t *heads; /* [TERN__MEMO_HEADS]: a hash's newest entry, as an index into words; 0: none */
  uint32_t *words; /* entries: next, begin, end, both halves of the hash, the floors >> shift, rounded up */
  size_t used, room;
  int shift; /* so that every floor fits a word */
} tern__memo;

/* Allocates on the first call. Entries are kept; `highest` may only grow after tern__memo_clear. */
bool tern__memo_init(tern__memo *memo, uint64_t highest);
void tern__memo_free(tern__memo *memo);
void tern__memo_clear(tern__memo *memo);
/* `floor` is indexed by section; only begin .. end - 1 are read. Forgets everything when full. */
void tern__memo_add(tern__memo *memo, uint64_t hash, uint32_t begin, uint32_t end, const uint64_t *floor);
bool tern__memo_refuted(const tern__memo *memo, uint64_t hash, uint32_t begin, uint32_t end, const uint64_t *floor);

#endif
