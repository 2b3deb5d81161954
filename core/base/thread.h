/* What a thread owns: its handle stack (scopes), error, hooks, free lists. Reached through one initial-exec TLS
   pointer; made on the thread's first use of the library, given back when the thread ends. */
#ifndef TERN_BASE_THREAD_H_
#define TERN_BASE_THREAD_H_
#include <stdatomic.h>
#include <stdbool.h>
#include <tern/base.h>

#define TERN__LIKELY(x) __builtin_expect(!!(x), 1)
#define TERN__UNLIKELY(x) __builtin_expect(!!(x), 0)
#define TERN__MAX_DEVICES 64
#define TERN__MEMO_SLOTS 1024 /* a power of two */

struct tern__device;
struct tern__pool_cache;

/* Reference counts. While the process has one thread (the C library knows: it sets the flag before it starts a second),
   plain arithmetic does; a locked instruction costs as much as half an eager op. */
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 32)
#include <sys/single_threaded.h>
#define TERN__SINGLE_THREADED __libc_single_threaded
#else
#define TERN__SINGLE_THREADED 0
#endif
static inline void tern__refs_up(_Atomic uint32_t *refs) {
  if (TERN__SINGLE_THREADED)
    atomic_store_explicit(refs, atomic_load_explicit(refs, memory_order_relaxed) + 1, memory_order_relaxed);
  else
    atomic_fetch_add_explicit(refs, 1, memory_order_relaxed);
}
/* True when that was the last. */
static inline bool tern__refs_down(_Atomic uint32_t *refs) {
  const uint32_t now = atomic_load_explicit(refs, memory_order_acquire);
  if (now == 1) return true;
  if (!TERN__SINGLE_THREADED) return atomic_fetch_sub_explicit(refs, 1, memory_order_acq_rel) == 1;
  atomic_store_explicit(refs, now - 1, memory_order_relaxed);
  return false;
}

/* Who wants to see every op on this thread. 0 = nobody. TAPE alone leaves the fast path open. */
enum {
  TERN__HOOK_SHADOW = 1,
  TERN__HOOK_TRACE = 2,
  TERN__HOOK_SYNC = 4,
  TERN__HOOK_NUMERICS = 8,
  TERN__HOOK_TAPE = 16,
  TERN__HOOK_GRAPH = 32 /* ops are not run but go into thread->trace */
};

struct tern__op;
struct tern__recorder;
struct tern__thread;
struct tern__tracer;
/* How a view came from its tensor; each is an op of the table to whoever records. Attributes: RESHAPE and EXPAND none;
   PERMUTE the order, a word an axis; SLICE the axis that was dropped or -1, then first element and step of each
   axis. */
typedef enum { TERN__VIEW_RESHAPE, TERN__VIEW_PERMUTE, TERN__VIEW_SLICE, TERN__VIEW_EXPAND } tern__view_kind;
/* What the layers above put here when they first need it (a tape when it begins). Each returns false with the error
   set. */
typedef struct tern__listener {
  bool (*op)(struct tern__thread *t, const struct tern__op *op, tern_tensor *const *in, int n_in, const tern_word *attr,
             int n_attr, tern_tensor *const *out, int n_out);
  bool (*view)(struct tern__thread *t, tern__view_kind kind, tern_tensor *from, const tern_word *attr, int n_attr,
               tern_tensor *view);
  void (*scope_end)(struct tern__thread *t, uint32_t depth); /* scopes deeper than depth are closed now */
  void (*thread_end)(struct tern__thread *t);
} tern__listener;
extern tern__listener tern__tape_listener;

/* What is computed again in a trace (tern_checkpoint_call): with values[] for n variables. */
typedef struct tern__repeat {
  uint32_t source; /* random numbers are those of the sources from this position on; 0: nothing is repeated */
  uint16_t number; /* of the replay */
  int n;
  tern_tensor *const *variables, *const *values;
} tern__repeat;
/* What stands in for running while thread->trace is set (core/graph/trace.c). Functions that return tensors return them
   borrowed from the scope, NULL with the error set. */
typedef struct tern__graph_hooks {
  tern_tensor *(*op)(struct tern__thread *t, struct tern__device *device, const struct tern__op *op,
                     tern_tensor *const *in, int n_in, const tern_word *attr, int n_attr);
  tern_rc (*into)(struct tern__thread *t, const struct tern__op *op, tern_tensor *const *in, int n_in,
                  const tern_word *attr, int n_attr, tern_tensor *const *out, int n_out);
  tern_rc (*write)(struct tern__thread *t, tern_tensor *dst, tern_tensor *src);
  bool (*view)(struct tern__thread *t, tern__view_kind kind, tern_tensor *from, const tern_word *attr, int n_attr,
               tern_tensor *view);
  tern_tensor *(*make)(struct tern__thread *t, struct tern__device *device, tern_dtype dtype, int rank,
                       const int64_t *shape); /* owned: one reference, in no scope */
  tern_tensor *(*move)(struct tern__thread *t, tern_tensor *from, struct tern__device *device);
  tern_tensor *(*read)(struct tern__thread *t, tern_tensor *variable); /* its value at this point of the trace */
  tern_rc (*assign)(struct tern__thread *t, tern_tensor *variable, tern_tensor *value); /* of its shape and dtype */
  /* n host scalars (out[]) that next gives anew in each run; elements: handed to it */
  tern_rc (*source)(struct tern__thread *t, const char *name,
                    tern_rc (*next)(void *self, int64_t elements, tern_word *out, int n_out), void *self,
                    tern_dtype dtype, int64_t elements, tern_tensor **out, int n);
  /* what make(self) draws with such a source, where it may stand in the order of a run; borrowed from the scope */
  tern_tensor *(*draw)(struct tern__thread *t, tern_tensor *(*make)(void *self), void *self);
  tern_rc (*print)(struct tern__thread *t, tern_tensor *x, bool values_only);
  int64_t (*size)(struct tern__thread *t, int64_t size, const char *what); /* a size as a number of this call */
  int64_t (*shown)(struct tern__thread *t, int64_t size); /* a size for people: of this call; -1: unknown */
  tern_rc (*unreadable)(const tern_tensor *t, const char *op);             /* the error for reading what has no value */
  bool (*usable)(const tern_tensor *t, const char *op, int argument);      /* a symbolic tensor */
  /* integers that must lie in [0, classes), or be *ignored (NULL: none); op: for the message, static */
  tern_rc (*labels)(struct tern__thread *t, const char *op, tern_tensor *labels, int64_t classes,
                    const int64_t *ignored);
  uint32_t (*position)(struct tern__thread *t); /* of what the next op makes */
  /* Ops from here on are that replay; they stay apart from what was computed first (no common subexpressions). Returns
     what was going on before, for repeated(). The number is given here. */
  tern__repeat (*repeat)(struct tern__thread *t, tern__repeat replay);
  void (*repeated)(struct tern__thread *t, tern__repeat before);
  void (*thread_end)(struct tern__thread *t);
} tern__graph_hooks;
extern tern__graph_hooks tern__graph_listener;

enum { TERN__ERROR_NONE, TERN__ERROR_UNREAD, TERN__ERROR_READ };

typedef struct tern__thread {
  tern_tensor **stack; /* handles of all open scopes */
  uint32_t top, capacity;
  uint32_t base;  /* where the innermost scope begins in the stack */
  uint32_t depth; /* open scopes */
  uint32_t hooks;
  uint32_t free_headers_count;
  tern_tensor *free_headers;       /* linked through their first pointer-sized spare field */
  struct tern__device *device;     /* override of tern_with_device, else NULL */
  struct tern__memo **memo;        /* calls seen before; NULL until the first */
  struct tern__recorder *recorder; /* of the tapes; NULL until the first */
  struct tern__tracer *trace;      /* where ops go while HOOK_GRAPH is set */
  struct tern__tracer *graph_mode; /* of the default graph; NULL until the first */
  uint32_t tape_depth; /* scopes open when the newest tape began; 0 = no tape, or one outside of any scope */
  struct tern__pool_cache *pool[TERN__MAX_DEVICES];
  const char *place_file; /* of the program's newest reading call (tern_at); NULL: not known */
  int place_line;
  bool warned_big_scope;
  uint8_t error_state;
  tern_rc error_code;
  char error_text[1024];
} tern__thread;

extern _Thread_local tern__thread *tern__tls __attribute__((tls_model("initial-exec")));

/* This thread's block, made when needed; NULL (with nothing recorded: there is nowhere) when memory is exhausted. */
tern__thread *tern__thread_make(void);
static inline tern__thread *tern__thread_get(void) {
  tern__thread *t = tern__tls;
  return TERN__LIKELY(t != NULL) ? t : tern__thread_make();
}

/* Ops in between run at once though the thread traces: constants, new variables. */
static inline uint32_t tern__eager_begin(tern__thread *t) {
  const uint32_t before = t->hooks & TERN__HOOK_GRAPH;
  t->hooks &= ~(uint32_t)TERN__HOOK_GRAPH;
  return before;
}
static inline void tern__eager_end(tern__thread *t, uint32_t before) { t->hooks |= before; }

/* Record the thread's error unless an unread one is pending. Returns rc. */
tern_rc tern__fail(tern_rc rc, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Puts text before that of the unread error, unless it begins so already; without one, nothing happens. */
void tern__error_prefix(const char *text);
/* The code of the error that a callee recorded on this thread, for returning it. */
static inline tern_rc tern__recorded(void) { return tern__tls ? tern__tls->error_code : TERN_E_OOM; }
/* The text of the pending error for a longer message; "". */
const char *tern__pending(void);
/* Move an unread error to the log and to the process's first error. */
void tern__error_flush(tern__thread *t);

/* The two halves of tern_finish that live here: print the first unread error (returns 1 if there was one); empty all
   scopes. */
int tern__finish_errors(void);
void tern__finish_scopes(void);

/* Put a new handle (one reference) under the innermost scope. On failure the reference is dropped and NULL returned. */
tern_tensor *tern__push(tern_tensor *t);
#endif
