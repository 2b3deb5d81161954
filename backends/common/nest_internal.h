/* What the nest_*.c files share: the arena that a plan lives in and the state of one analysis. */
#ifndef TERN_NEST_INTERNAL_H_
#define TERN_NEST_INTERNAL_H_
#include "nest.h"

/* Memory of a plan: blocks freed together. After a failure every allocation returns NULL and `failed` stays set. */
typedef struct nest_block nest_block;
typedef struct nest_arena {
  nest_block *head;
  bool failed;
} nest_arena;
void *nest__alloc(nest_arena *, size_t count, size_t size); /* zeroed; never NULL for 0 bytes unless failed */
void nest__arena_free(nest_arena *);

/* One nest while it is being built */
typedef struct nest_proto {
  uint32_t rank, red, root; /* root: of its component */
  int64_t size[TERN_MAX_RANK];
  uint32_t *node, n_node; /* what it computes, ascending */
  uint32_t copy_of;       /* a last nest: the deferred OUT that it copies, else NEST_NONE */
} nest_proto;

typedef struct nest_build_state {
  const tern_region *r;
  nest_plan *plan;
  nest_arena *arena;
  nest *nests; /* plan->nests, while writable */
  char *message;
  size_t message_size;
  nest_proto *proto;
  uint32_t n_proto, n_ws;
  /* by value */
  uint32_t *producer; /* node or NEST_NONE */
  uint32_t *stage;    /* first nest that may use it */
  uint32_t *home;     /* the nest that stores it (targets) or reduces it, else NEST_NONE */
  uint32_t *parent;   /* union-find */
  uint32_t *ws;       /* number of its workspace slot or NEST_NONE */
  uint8_t *target;    /* it must be stored by its home: an OUT, or the base of a view */
  uint8_t *deferred;  /* an OUT that a last nest copies from the workspace */
} nest_build_state;

tern_rc nest__fail(char *message, size_t size, tern_rc, const char *format, ...) __attribute__((format(printf, 4, 5)));
tern_rc nest__check_value(const tern_region *, uint32_t value, char *message, size_t size);
/* Is v computed by nest j itself (true), or in memory / immediate by then? */
bool nest__computed(const nest_build_state *, uint32_t j, uint32_t v);
/* Argument number behind a value in memory (through a view), or NEST_NONE for the workspace and scalars */
uint32_t nest__arg_of(const nest_build_state *, uint32_t v);
/* Fill plan->nests[j]: levels, passes, stores, kept values. */
tern_rc nest__schedule(nest_build_state *, uint32_t j, uint32_t flags);
bool nest__same_place(const tern_value *a, const tern_value *b); /* same shape, strides, item size */
static inline bool nest__is_reduce(const tern_region *r, uint32_t node) {
  return nest_prim_of(r->nodes[node].op)->kind == TERN_K_REDUCE;
}
#endif
