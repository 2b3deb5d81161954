/* Finding the program of a small launch, and keeping the programs of a kernel (exec_small.h). */
#include "exec_small.h"
#include <stdatomic.h>
#include <stdlib.h>

enum {
  STACK_BYTES = 4096, /* up to which launch memory is on the stack */
  PROGRAMS = 16,      /* for so many different sizes a kernel */
  MISSED = 16         /* sizes without a program that are remembered */
};

struct x_small {
  const x_plan *plan;
  size_t launch_bytes;
  uint32_t n_key;
  int mode;
  uint32_t *key;                    /* words that sizes, strides and offsets come from, rising */
  _Atomic(p_prog *) prog[PROGRAMS]; /* filled from 0 on */
  atomic_ullong missed[MISSED];     /* hashes of words that had no program, by their last bits */
  atomic_flag building;
};

/* ---- finding ---- */

static bool same_key(const x_small *s, const p_prog *p, const tern_word *words) {
  for (uint32_t i = 0; i < s->n_key; i++)
    if (words[s->key[i]].u != p->key[i]) return false;
  return true;
}

static bool few_elements(const x_small *s, const tern_word *words) {
  for (uint32_t i = 0; i < s->plan->plan->n_nests; i++) {
    const nest *const n = s->plan->nest[i].nest;
    int64_t elems = 1;
    for (uint32_t d = 0; d < n->rank; d++) {
      elems *= TERN_LIT(n->size[d], words);
      if (elems > X_SMALL_ELEMS) return false;
    }
  }
  return true;
}

static uint64_t hash_key(const x_small *s, const tern_word *words) {
  uint64_t h = 1;
  for (uint32_t i = 0; i < s->n_key; i++) {
    h = (h ^ words[s->key[i]].u) * 0x9e3779b97f4a7c15u;
    h ^= h >> 29;
  }
  return h | 1;
}

/* No program for these words: build one if they have come before */
static __attribute__((noinline)) const p_prog *miss(x_small *s, const tern_launch *l) {
  if (atomic_load_explicit(&s->prog[PROGRAMS - 1], memory_order_relaxed) || !few_elements(s, l->words)) return NULL;
  const uint64_t h = hash_key(s, l->words);
  if (s->mode != X_SMALL_AT_ONCE &&
      atomic_exchange_explicit(&s->missed[h >> 8 & (MISSED - 1)], h, memory_order_relaxed) != h)
    return NULL;
  if (atomic_flag_test_and_set_explicit(&s->building, memory_order_acquire)) return NULL;
  uint32_t at = 0;
  const p_prog *found = NULL;
  for (; at < PROGRAMS && !found; at++) {
    const p_prog *const p = atomic_load_explicit(&s->prog[at], memory_order_acquire);
    if (!p) break;
    if (same_key(s, p, l->words)) found = p; /* another thread was first */
  }
  if (!found && at < PROGRAMS) {
    p_prog *const p = x_prog_build(s->plan, s->launch_bytes, l, s->key, s->n_key);
    atomic_store_explicit(&s->prog[at], p, memory_order_release);
    found = p;
  }
  atomic_flag_clear_explicit(&s->building, memory_order_release);
  return found;
}

static __attribute__((noinline)) bool run_scratch(const p_prog *p, const tern_launch *l) {
  char *const mem = cpu_scratch(CPU_SCRATCH_LAUNCH, p->bytes);
  if (mem) x_prog_run(p, l, mem);
  return mem;
}

static __attribute__((noinline)) bool run_stack(const p_prog *p, const tern_launch *l) {
  _Alignas(64) char mem[STACK_BYTES];
  x_prog_run(p, l, mem);
  return true;
}

bool x_small_launch(x_small *s, const tern_launch *l) {
  const p_prog *p = NULL;
  if (s->mode == X_SMALL_NEVER) return false;
  for (uint32_t i = 0; i < PROGRAMS; i++) {
    p = atomic_load_explicit(&s->prog[i], memory_order_acquire);
    if (!p || same_key(s, p, l->words)) break;
    p = NULL;
  }
  if (!p && !(p = miss(s, l))) return false;
  if (!p->n_inst) return false;
  return p->bytes <= STACK_BYTES ? run_stack(p, l) : run_scratch(p, l);
}

void x_small_mode(x_small *s, int mode) { s->mode = mode; }

/* ---- with the kernel ---- */

static void note_word(bool *used, uint32_t n_words, int64_t x) {
  if (TERN_IS_SYM(x) && TERN_SYM_ID(x) < n_words) used[TERN_SYM_ID(x)] = true;
}

static bool find_key(x_small *s, const tern_region *r) {
  bool *const used = calloc(r->n_words + 1, sizeof *used);
  s->key = calloc(r->n_words + 1, sizeof *s->key);
  if (used && s->key) {
    for (uint32_t v = 0; v < r->n_values; v++) {
      const tern_value *const x = &r->values[v];
      note_word(used, r->n_words, x->offset);
      for (uint32_t d = 0; d < x->rank && d < TERN_MAX_RANK; d++) {
        note_word(used, r->n_words, x->shape[d]);
        note_word(used, r->n_words, x->stride[d]);
      }
    }
    for (uint32_t w = 0; w < r->n_words; w++)
      if (used[w]) s->key[s->n_key++] = w;
  }
  const bool ok = used && s->key;
  free(used);
  return ok;
}

tern_rc x_small_new(const x_plan *plan, size_t bytes, x_small **out) {
  *out = NULL;
  x_small *const s = calloc(1, sizeof *s);
  if (!s) return TERN_E_OOM;
  s->plan = plan;
  s->launch_bytes = bytes;
  s->mode = X_SMALL_AUTO;
  for (int i = 0; i < PROGRAMS; i++) atomic_init(&s->prog[i], NULL);
  for (int i = 0; i < MISSED; i++) atomic_init(&s->missed[i], 0);
  atomic_flag_clear(&s->building);
  if (!find_key(s, plan->plan->region)) {
    x_small_free(s);
    return TERN_E_OOM;
  }
  *out = s;
  return TERN_OK;
}

void x_small_free(x_small *s) {
  if (!s) return;
  for (int i = 0; i < PROGRAMS; i++) free(atomic_load_explicit(&s->prog[i], memory_order_relaxed));
  free(s->key);
  free(s);
}
