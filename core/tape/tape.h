/* The recorder of a thread: one record of ops, shared by all tapes that the thread has open. A value is a number for a
   tensor that some tape tracks; tensors hold the number (grad_id), never the tape. An entry is one op, with the
   operands that its gradient rule reads. Each tape is a bit in the masks of values and entries. The record is emptied
   when its last tape ends. */
#ifndef TERN_TAPE_RECORD_H_
#define TERN_TAPE_RECORD_H_
#include "ops/op.h"
#include <tern/tape.h>

#define TERN__MAX_TAPES 32

/* One op of the record. Behind it: in_value[n_in] (int32, -1: not tracked), then in[n_in] and out[n_out] (owned
   references, or NULL), then attr[n_attr]. */
typedef struct tern__entry {
  struct tern__entry *prev;
  const tern__op *op;
  uint32_t mask;     /* tapes that track it; 0: its tensors are released */
  int32_t first_out; /* value number of output 0; the others follow */
  uint16_t n_in, n_out, n_attr;
  uint16_t bytes; /* of the whole entry */
  bool holds;     /* references to tensors, or a closure */
} tern__entry;

typedef struct tern__value {
  uint64_t id; /* what a tensor's grad_id must be */
  uint32_t mask;
  uint32_t watched; /* tapes that watch it by name, or as a variable */
} tern__value;

typedef struct tern__chunk {
  struct tern__chunk *next;
  uint32_t used, capacity;
  _Alignas(16) char data[];
} tern__chunk;

struct tern_tape {
  struct tern_tape *outer;         /* begun before it on this thread; also links finished and free ones */
  struct tern__recorder *recorder; /* NULL: finished */
  tern__entry *start;              /* the record's last entry when the tape began (or was reset) */
  uint32_t first_value;            /* how many values there were then */
  uint32_t bit, depth;
  bool persistent, automatic;
  bool walking; /* its gradient is being taken */
};

typedef struct tern__recorder {
  tern__value *values;
  uint32_t n_values, value_capacity;
  uint32_t active;    /* bits of the tapes that record now */
  uint32_t automatic; /* those of them that watch variables by themselves */
  uint32_t open;      /* bits in use */
  uint32_t paused;    /* depth of TERN_NO_GRADIENT: nothing records */
  uint64_t stamp;     /* high bits of the ids that are given now */
  tern__entry *last;
  uint32_t n_holding; /* entries that hold something */
  tern__chunk *first_chunk, *chunk;
  struct tern_tape *tapes;    /* open, innermost first */
  struct tern_tape *finished; /* ended, but their scope is still open */
  struct tern_tape *free_tapes;
  /* watched tensors (by address, each with a reference) and their values: open addressing, capacity a power of two */
  struct tern__watched {
    tern_tensor *tensor;
    int32_t value;
  } * watched;
  uint32_t n_watched, watched_capacity;
  bool foreign; /* some watched tensor's id belongs to another thread's record */
  /* tern_checkpoint_call: note which variables are used, record nothing */
  struct tern__collector {
    tern_tensor **variables;
    int n, capacity;
    bool failed;
  } * collector;
} tern__recorder;

#define TERN__ID_BITS 28
#define TERN__ID_WATCHED (UINT64_C(1) << 63) /* the tensor is in the table of some record */
#define TERN__ID_INDEX ((UINT64_C(1) << TERN__ID_BITS) - 1)

static inline int32_t *tern__entry_values(tern__entry *e) { return (int32_t *)(e + 1); }
static inline tern_tensor **tern__entry_in(tern__entry *e) {
  return (tern_tensor **)((char *)(e + 1) + (((size_t)e->n_in * 4 + 7) & ~(size_t)7));
}
static inline tern_tensor **tern__entry_out(tern__entry *e) { return tern__entry_in(e) + e->n_in; }
static inline tern_word *tern__entry_attr(tern__entry *e) { return (tern_word *)(tern__entry_out(e) + e->n_out); }

/* record.c */
tern__recorder *tern__recorder_of(tern__thread *t); /* made when needed; NULL with the error set */
/* The value of a tensor on this record, -1 when no tape tracks it. Watches trainable variables where a tape does so by
   itself. */
int32_t tern__value_of(tern__recorder *r, tern_tensor *t);
/* A header of its own over the value that x has now (a snapshot, if x is a variable), with that place in the record (0:
   none). Owned; NULL with the error set. */
tern_tensor *tern__alias(tern_tensor *x, uint64_t id);
/* Watch t for the tapes in mask. False with the error set. */
bool tern__watch(tern__recorder *r, tern_tensor *t, uint32_t mask);
/* Append an op whose outputs are new tensors. */
bool tern__record_op(tern__thread *t, const tern__op *op, tern_tensor *const *in, int n_in, const tern_word *attr,
                     int n_attr, tern_tensor *const *out, int n_out);
/* Note the variables among in[] for the collector. */
void tern__collect(tern__recorder *r, tern_tensor *const *in, int n_in);
/* Take a tape's bit out of the record: from the last entry back to `start` and from first_value on, release what no
   other tape tracks. */
void tern__forget(tern__recorder *r, uint32_t bit, tern__entry *start, uint32_t first_value);
void tern__entry_release(tern__recorder *r, tern__entry *e);
/* Empty the record; no tape is open. */
void tern__record_clear(tern__recorder *r);
void tern__recorder_free(tern__recorder *r);
/* Set the thread's hook bit from what is active. */
void tern__hook_update(tern__thread *t);

/* custom.c */
/* The op under which tern_custom_gradient and tern_checkpoint_call are recorded: attribute 0 is a closure, a reference
   to which the entry owns. */
extern const tern__op tern__op_custom;
void tern__closure_release(tern_word closure);
/* A call that was computed already is recorded with a gradient rule of its own, as tern_custom_gradient's.
   release(self) is called once, on failure too. */
tern_rc tern__record_custom(tern__thread *t, tern_gradient_body gradient, void *self, void (*release)(void *self),
                            tern_tensor *const *in, int n_in, tern_tensor **out, int n_out);
/* A call that was computed in another way is recorded as one whose body runs again for the gradient, as
   tern_checkpoint_call's; random: where the generator stood before it. */
/* rule: gives the gradients instead, unless they are to be recorded themselves; NULL: none. */
typedef bool (*tern__call_rule)(void *self, const tern__grad *g, tern__random_state random, tern_tensor **din);
tern_rc tern__record_call(tern__thread *t, tern_function_body body, void *self, void (*release)(void *self),
                          tern__call_rule rule, void *rule_self,
                          tern__random_state random, tern_tensor *const *in, int n_in, tern_tensor *const *variables,
                          int n_variables, tern_tensor **out, int n_out);

/* tape.c */
/* The tape if it may be used now, on this thread; else the error is recorded and NULL returned. */
tern_tape *tern__tape_usable(tern_tape *tape, const char *what);
void tern__tape_finish(tern__recorder *r, tern_tape *tape);

/* backward.c */
/* g as a gradient for something of like's shape and dtype: summed over what broadcasting had added, expanded, cast.
   NULL in, NULL out. */
tern_tensor *tern__fit(tern_tensor *g, const tern_tensor *like);

#endif
