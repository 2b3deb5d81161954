/* The table of refuted states (plan_memo.h): chains by hash in one block of words, which is emptied when full. A floor
   is kept in 32 bits, rounded up, and compared with one rounded down: so an entry never claims too much. */
#include "graph/passes/plan_memo.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

enum { HEADS = 1 << 16, FIRST = 1 << 16, MOST = 1 << 24, HEADER = 5, CHAIN = 64 };

bool tern__memo_init(tern__memo *m, uint64_t highest) {
  if (!m->heads) m->heads = tern__calloc(HEADS, sizeof *m->heads);
  if (!m->words) {
    m->words = tern__calloc(FIRST, sizeof *m->words);
    m->room = FIRST;
    m->used = 1;
  }
  if (!m->heads || !m->words) return false;
  int shift = 0;
  while (highest >> shift >= UINT32_MAX) shift++;
  if (m->used == 1 || shift > m->shift) {
    tern__memo_clear(m);
    m->shift = shift;
  }
  return true;
}

void tern__memo_free(tern__memo *m) {
  free(m->heads);
  free(m->words);
  *m = (tern__memo){0};
}

void tern__memo_clear(tern__memo *m) {
  if (!m->heads || m->used <= 1) return;
  memset(m->heads, 0, HEADS * sizeof *m->heads);
  m->used = 1;
}

static uint32_t *head_of(const tern__memo *m, uint64_t hash) { return &m->heads[hash & (HEADS - 1)]; }

void tern__memo_add(tern__memo *m, uint64_t hash, uint32_t begin, uint32_t end, const uint64_t *floor) {
  const size_t need = HEADER + (end - begin);
  if (m->used + need > m->room) {
    uint32_t *more = m->room < MOST ? tern__realloc(m->words, 2 * m->room * sizeof *more) : NULL;
    if (more) m->words = more, m->room *= 2;
    if (!more) tern__memo_clear(m);
    if (m->used + need > m->room) return;
  }
  uint32_t *head = head_of(m, hash), *entry = m->words + m->used;
  const uint64_t up = ((uint64_t)1 << m->shift) - 1;
  entry[0] = *head;
  entry[1] = begin;
  entry[2] = end;
  entry[3] = (uint32_t)hash;
  entry[4] = (uint32_t)(hash >> 32);
  for (uint32_t t = begin; t < end; t++) entry[HEADER + t - begin] = (uint32_t)((floor[t] + up) >> m->shift);
  *head = (uint32_t)m->used;
  m->used += need;
}

bool tern__memo_refuted(const tern__memo *m, uint64_t hash, uint32_t begin, uint32_t end, const uint64_t *floor) {
  int chain = 0;
  for (uint32_t at = *head_of(m, hash); at && chain < CHAIN; at = m->words[at], chain++) {
    const uint32_t *entry = m->words + at;
    if (entry[1] != begin || entry[2] != end || entry[3] != (uint32_t)hash || entry[4] != (uint32_t)(hash >> 32))
      continue;
    uint32_t t = begin;
    while (t < end && entry[HEADER + t - begin] <= floor[t] >> m->shift) t++;
    if (t == end) return true;
  }
  return false;
}
