/* The lower half of compiling. An instance of the graph with numbers becomes a list of ops as requests over buffers
   (lower.c); ops are gathered into groups, one kernel each (fuse.c); a group becomes a region and its launch (emit.c);
   groups get an order, buffers a place (memory.c); and all of it a program (run/). */
#ifndef TERN_GRAPH_PASSES_LOW_H_
#define TERN_GRAPH_PASSES_LOW_H_
#include "dispatch/dispatch.h"
#include "graph/compile.h"
#include "graph/ir/ir.h"
#include "tensor/tensor.h"

#define TERN__NO UINT32_MAX

/* ---- buffers ---- */

typedef enum tern__place {
  TERN__PLACE_ARENA,    /* planned; its own while the program runs */
  TERN__PLACE_INPUT,    /* the caller's operand `index` */
  TERN__PLACE_CONST,    /* tensor's */
  TERN__PLACE_VARIABLE, /* what variable `index` holds when the run begins */
  TERN__PLACE_NEXT,     /* what variable `index` holds when the run ends: memory of its own, then swapped in */
  TERN__PLACE_RESULT    /* result `index`, fresh in each run */
} tern__place;

typedef struct tern__lbuffer {
  uint8_t place;
  uint8_t dtype;
  bool written_part; /* by `write`: no group binds to it */
  uint32_t index;
  uint32_t same;  /* shares the memory of that buffer; TERN__NO: its own */
  uint32_t maker; /* the op that makes all of it, TERN__NO */
  int64_t numel;
  uint64_t bytes;
  struct tern__device *device;
  tern_tensor *tensor;           /* CONST: a reference */
  int32_t first, last;           /* steps between which it is alive (memory.c) */
  uint64_t offset;               /* ARENA */
  uint32_t n_readers, n_grouped; /* ops that read it; of those, ops of its maker's group */
  bool wanted;                   /* a result, or what a variable ends with */
  bool taken;                    /* another buffer has its memory */
} tern__lbuffer;

/* ---- ops ---- */

typedef enum tern__lkind {
  TERN__L_MAP,
  TERN__L_ROW,    /* nests: maps only; with reductions */
  TERN__L_ANCHOR, /* DOT, CONV: maps may follow */
  TERN__L_OPAQUE, /* one launch by itself */
  TERN__L_MOVE,   /* between devices */
  TERN__L_PRINT,
  TERN__L_COND,
  TERN__L_WHILE
} tern__lkind;

typedef struct tern__lop {
  uint8_t kind;
  uint32_t n_in, n_out; /* of the request; control ops: of the node */
  bool fixed;           /* some dims must not be merged */
  bool again;           /* of its node */
  uint16_t prims;       /* primitives in it */
  uint32_t node;        /* of the graph */
  uint32_t group;
  uint32_t *in, *out;    /* buffers read and made */
  uint32_t n_deps, *dep; /* ops that must come before */
  struct tern__device *device;
  struct tern__device *pin;          /* where it has to run; NULL: anywhere. While placing only */
  tern__request *q;                  /* operands' storages are &unit->ghost[buffer]; NULL: no compute */
  uint8_t position[TERN__MAX_SIZES]; /* in its group's component */
} tern__lop;

/* ---- groups ---- */

typedef struct tern__lgroup {
  uint32_t *op, n_ops, capacity; /* ascending once finished */
  uint8_t kind;                  /* of its most particular op */
  uint8_t rank;                  /* of the component, before merging */
  bool anchored;
  int64_t size[TERN_MAX_RANK];
  uint32_t reduced; /* positions that some member reduces */
  uint32_t prims;
  uint32_t sibling; /* next group that is launched with this one; TERN__NO */
  uint32_t head;    /* the first of the groups that are launched together: itself */
  bool dead;        /* merged into another */
  bool windowed;    /* reads what its head keeps inside, through windows */
  struct tern__device *device;
} tern__lgroup;

/* A launch, by buffers. */
typedef struct tern__larg {
  uint32_t buffer;
  uint64_t offset; /* bytes */
  bool written;
} tern__larg;
typedef struct tern__lword { /* a launch word that a SOURCE gives */
  uint32_t word, value;      /* value: of the graph */
  uint8_t dtype, from;
} tern__lword;

typedef struct tern__lstep {
  uint8_t kind; /* tern__lkind; nests, anchors and opaque ops are launches */
  uint32_t group, op;
  struct tern__device *device;
  const tern__kernel_class *kernel; /* of a single op, or of a region */
  tern_kernel *code;
  const char *name;
  tern__larg *arg;
  tern_word *word;
  tern__lword *dynamic;
  uint32_t n_args, n_words, n_dynamic, n_nodes;
  uint64_t workspace;
  uint32_t workspace_buffer; /* TERN__NO */
  uint64_t workspace_offset;
  uint64_t packed, constants; /* bit k: argument k (of the first 64) is packed; is a constant that was packed once */
  bool slow;                  /* the device refuses it: run as a request, with fallback */
} tern__lstep;

typedef struct tern__unit {
  tern__graph *g;
  const tern__compile_opts *opts;
  tern_tensor *fake;   /* of each value: shape, strides, offset, storage = &ghost[buffer] */
  uint32_t *base;      /* of each value: the value whose memory it is in (itself unless a view) */
  uint32_t *buffer_of; /* of each value */
  tern__storage *ghost;
  tern__lbuffer *buffer;
  uint32_t n_buffers, buffer_capacity;
  tern__lop *op;
  uint32_t n_ops, op_capacity;
  uint32_t *next;     /* of each variable: the buffer of its next value, TERN__NO: it keeps its value */
  uint32_t n_results; /* buffers in place RESULT */
  uint32_t *maker;    /* of each value: the op that makes it, TERN__NO */
  tern__lgroup *group;
  uint32_t n_groups, group_capacity;
  uint32_t *order; /* of live groups */
  uint32_t n_order;
  uint32_t *turn;      /* of each group: its place in the order */
  struct tern__arena { /* one a device */
    struct tern__device *device;
    uint64_t bytes;
  } * arena;
  uint32_t n_arenas;
  struct tern__layout *layout; /* NULL: nothing is packed */
  struct tern__layout_hold *hold;
  tern__lstep *step;
  uint32_t n_steps;
  double kernel_ms;
  tern__program_stats stats;
  struct tern__unit_chunk *chunks;
  char *why; /* explain text, grows */
  size_t why_size, why_capacity;
} tern__unit;

/* Zeroed memory that ends with the unit. NULL with the error set. */
void *tern__unit_alloc(tern__unit *u, size_t count, size_t size);
void tern__unit_free(tern__unit *u);
void tern__unit_note_text(tern__unit *u, const char *text);
void tern__unit_note(tern__unit *u, const char *format, ...) __attribute__((format(printf, 2, 3)));

tern_rc tern__unit_lower(tern__unit *u);
tern_rc tern__unit_fuse(tern__unit *u);
tern_rc tern__unit_order(tern__unit *u);  /* memory.c: order of the groups, in place */
tern_rc tern__unit_layout(tern__unit *u); /* layout.c: who works on packed arrays */
tern_rc tern__unit_emit(tern__unit *u);   /* steps, in order */
tern_rc tern__unit_memory(tern__unit *u); /* lifetimes and the plan */

/* The buffer whose memory b has. */
static inline uint32_t tern__root(const tern__unit *u, uint32_t b) {
  while (u->buffer[b].same != TERN__NO) b = u->buffer[b].same;
  return b;
}
/* Whether buffer b, made in the group, must be in memory: read outside of it, or a result. */
bool tern__needs_memory(const tern__unit *u, uint32_t b, uint32_t group);
#endif
