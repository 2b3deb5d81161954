/* Loop-nest analysis: turns a region of MAP and REDUCE nodes into loop nests with passes, which an executor interprets or a
   renderer prints. It depends on tern/backend.h alone; the core uses it for fusion legality and in-place grants, plugins for
   code. It is not ABI. Nothing here sees a number that is only known at launch: sizes stay literals or TERN_SYM words.

   A nest iterates over `size[rank]`. Its reduced dims are the mask `red` (0: a map nest); the others are its outer dims. A
   "row" is one outer index together with all reduced indices. The meaning of a nest, for each row independently:

     for p = 0 .. n_pass - 1:
       phase[p]:  once a row: compute phase[p].node[] in order (row-level MAP nodes), then perform phase[p].store[]
       pass[p]:   for each reduced index: compute pass[p].step[] in order, then save pass[p].keep[], then perform
                  pass[p].store[]. A step that is a REDUCE node folds its input into its accumulator; its result is ready
                  when the pass ends (REDUCE never appears in a phase)
     phase[n_pass] : as above, after the last pass

   `scalar[]`: MAP nodes of rank-0 values, computed once a launch, before all else. In a map nest a row is one element: there
   is one pass, phases are empty, and every value that is not scalar is NEST_FULL.

   Where an operand v of a node comes from (nest_find(nest, v)):
     src NEST_IMM   CONST, PARAM, SIZE of the region (rank 0)
     src NEST_ARG, NEST_WS   memory: load it with nest_layout(); NEST_ROW level: the same for the whole row, may be loaded once,
                    in the first phase or pass that uses it or earlier ones
     src NEST_NODE  computed here. SCALAR: once; ROW: in phase[at] (REDUCE: by pass[at - 1]) and alive to the end of the row;
                    FULL: a step of this very pass, unless keep != NEST_KEEP_NO and the pass is later than kept_at: then it
                    is not a step, load it from where it was kept (the memory of value `holder`, or scratch slot `holder`)
   A node that several passes need and that is not kept is a step of each of them.

   In place: an OUT whose memory is also an IN's is handled. The order that an executor must keep is only this: within a pass
   (phase), an element's loads come before its stores, and one element (row) is loaded and stored by the same worker, the same
   way in every pass. Where an order of passes cannot make it safe, the OUT is first written to the workspace and copied by
   a last nest. */
#ifndef TERN_NEST_H_
#define TERN_NEST_H_
#include <stdbool.h>
#include <tern/backend.h>

enum { NEST_SCALAR, NEST_ROW, NEST_FULL };               /* level */
enum { NEST_NODE, NEST_IMM, NEST_ARG, NEST_WS };         /* src, and where a store goes (NEST_ARG, NEST_WS) */
enum { NEST_KEEP_NO, NEST_KEEP_OUT, NEST_KEEP_SCRATCH }; /* keep */
enum { NEST_NO_SCRATCH = 1, NEST_NO_KEEP = 2 };          /* nest_build flags: no scratch slots; no kept values at all */
#define NEST_NONE UINT32_MAX

typedef struct nest_val { /* one value as one nest sees it */
  uint32_t value;         /* number in region->values */
  uint32_t node;          /* that computes it here, NEST_NONE unless src == NEST_NODE */
  uint32_t mem;           /* NEST_ARG: argument number; NEST_WS: number in plan->ws */
  uint32_t holder;        /* NEST_KEEP_OUT: an OUT value of this nest, same shape and dtype (often the value itself);
                             NEST_KEEP_SCRATCH: scratch slot, one element for each reduced index of the row */
  uint16_t at;            /* first phase (SCALAR: 0) or pass in which it can be computed; REDUCE: its pass + 1 */
  uint16_t kept_at;       /* the pass that keeps it */
  uint8_t level, src, keep, uses; /* uses: number of node inputs in this nest that read it, at most 255 */
} nest_val;

/* Write value into memory: `to` NEST_ARG: argument `mem`; NEST_WS: plan->ws[mem]. A NEST_WS copy of an OUT is dense. */
typedef struct nest_store {
  uint32_t value, to, mem;
} nest_store;

typedef struct nest_pass {
  const uint32_t *step; /* nodes, in order */
  const uint32_t *keep; /* values to save: NEST_KEEP_OUT with holder != itself, or NEST_KEEP_SCRATCH (an OUT that keeps
                           itself is among the stores) */
  const nest_store *store;
  uint32_t n_step, n_keep, n_store;
} nest_pass;

typedef struct nest_phase {
  const uint32_t *node;
  const nest_store *store;
  uint32_t n_node, n_store;
} nest_phase;

typedef struct nest {
  uint32_t rank, red;          /* red: bit d = dim d is reduced */
  int64_t size[TERN_MAX_RANK]; /* literals or TERN_SYM words */
  uint32_t n_pass, n_val, n_scalar, n_scratch, n_dep;
  uint32_t wave;           /* nests of one wave are independent; wave w + 1 starts when wave w is complete */
  const nest_pass *pass;   /* [n_pass] */
  const nest_phase *phase; /* [n_pass + 1] */
  const nest_val *val;     /* [n_val], by ascending value number */
  const uint32_t *scalar;  /* nodes */
  const uint32_t *dep;     /* earlier nests that must be complete before this one starts */
  const uint32_t *scratch; /* [n_scratch] the value kept in each slot (its dtype is the slot's) */
} nest;

typedef struct nest_ws {
  uint32_t value;
} nest_ws; /* dense row-major, of the shape and dtype of that value */

typedef struct nest_plan {   /* immutable after nest_build */
  const tern_region *region; /* a private deep copy (hint, spans included): valid as long as the plan */
  const nest *nests;         /* in an order that respects dep */
  const nest_ws *ws;
  uint32_t n_nests, n_ws, n_waves;
  uint32_t n_deferred; /* OUTs whose alias could not be honoured by ordering alone (copied by a last nest) */
} nest_plan;

/* Build the plan. UNSUPPORTED: a node that is neither MAP nor REDUCE, a packed layout; E_ARG: a malformed region; OOM.
   message (may be NULL) says why. The plan keeps no pointer into region. Free with nest_free. */
tern_rc nest_build(const tern_region *region, uint32_t flags, nest_plan **plan, char *message, size_t message_size);
void nest_free(nest_plan *);

/* The value as this nest sees it, or NULL when the nest does not use it */
const nest_val *nest_find(const nest *, uint32_t value);

/* Where the elements of a value are: element index = offset + sum of index[d] * stride[d]; stride is 0 in every dim
   whose size is a literal 1 in the value's shape. Base: argument (NEST_ARG) or workspace slot (NEST_WS) `mem`. */
typedef struct nest_addr {
  int64_t offset, stride[TERN_MAX_RANK];
} nest_addr;
/* For a value that is in memory: an IN, a VIEW, an OUT, a workspace value; to: NEST_ARG or NEST_WS, as in nest_val.src
   or nest_store.to. Holders: `to` and `mem` are those of the OUT's store. */
void nest_layout(const nest_plan *, uint32_t value, uint32_t to, const tern_word *words, nest_addr *);

/* Bytes of the whole workspace, 64-byte aligned slots; offset (may be NULL) gets [n_ws] byte offsets */
uint64_t nest_workspace(const nest_plan *, const tern_word *words, uint64_t *offset);

/* Value of a CONST, PARAM or SIZE */
tern_word nest_imm(const tern_region *, uint32_t value, const tern_word *words);

/* ---- small look-ups about primitives and values, useful to every backend ---- */
typedef struct nest_prim {
  const char *name;
  uint32_t op, n_in, kind, dtypes;
} nest_prim;
const nest_prim *nest_prim_of(uint32_t op); /* NULL: unknown */
size_t nest_item_size(uint32_t dtype);      /* 0: unknown */
const char *nest_dtype_name(uint32_t dtype);
/* Check one node's arity, dtypes and shapes against the table in backend.h; message as above */
tern_rc nest_check_node(const tern_region *, uint32_t node, char *message, size_t message_size);
/* True if `out`, an OUT, may be written in place over argument `arg` with no copy through the workspace */
bool nest_can_alias(const tern_region *, uint32_t out, uint32_t arg);

static inline uint32_t nest_in(const tern_region *r, uint32_t node, uint32_t i) {
  return r->edges[r->nodes[node].in + i];
}
static inline uint32_t nest_out(const tern_region *r, uint32_t node) { return r->edges[r->nodes[node].out]; }
static inline int64_t nest_attr(const tern_region *r, uint32_t node, uint32_t i) {
  return r->attrs[r->nodes[node].attr + i].i;
}
#endif
