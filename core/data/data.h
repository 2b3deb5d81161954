/* Input pipelines inside: datasets are nodes that never change, iterators are trees of states, elements are tensors or
   rows that nobody has looked at yet. Layer above core/io; what the public functions promise is in <tern/data.h>. */
#ifndef TERN_CORE_DATA_DATA_H_
#define TERN_CORE_DATA_DATA_H_
#include "device/device.h"
#include "tensor/tensor.h"
#include <pthread.h>
#include <tern/data.h>

/* ---- elements (element.c) ---- */

/* Arrays in host memory whose row i is element i. Never changes; counted. */
typedef struct tern__rows {
  _Atomic uint32_t refs;
  int n;
  int64_t count; /* rows */
  struct {
    tern_tensor *t;   /* row-major, on the host device; one reference */
    const char *base; /* of row 0 */
    size_t bytes;     /* of a row */
  } part[TERN_MAX_COMPONENTS];
} tern__rows;

/* Of tensors of rank 1 and more with the same number of rows, one reference to the caller. op: for errors; paths: what
   to call the tensors there, or NULL. NULL with the error set. */
tern__rows *tern__rows_new(const char *op, tern_tensor *const *tensors, int n, const char *const *paths);
void tern__rows_release(tern__rows *rows); /* NULL is allowed */

/* Row `row` of rows, or n tensors. Holds one reference to each thing that it names. A zeroed element holds nothing. */
typedef struct tern__element {
  int n;
  tern__rows *rows; /* NULL: t[] */
  int64_t row;
  tern_tensor *t[TERN_MAX_COMPONENTS];
} tern__element;

/* Let go of what it holds, and zero it. */
void tern__element_drop(tern__element *e);
/* Has tensors afterwards. */
tern_rc tern__element_solid(tern__element *e);
/* Made of what a program's function returned: n tensors borrowed from the scope, brought to the host. out is written on
   success only. */
tern_rc tern__element_from(const char *op, tern_tensor *const *tensors, int n, tern__element *out);
/* The same components and tensors again. */
void tern__element_copy(const tern__element *e, tern__element *out);
/* t as a row-major tensor on the host device, borrowed from the scope (or itself). NULL with the error set. */
tern_tensor *tern__host_dense(tern_tensor *t);
/* First byte of a tensor of tern__host_dense. */
static inline char *tern__host_bytes(const tern_tensor *t) {
  return t->storage->host + t->offset * (int64_t)tern__dtype_size[t->dtype];
}

/* An element in 16 bytes, for those who keep many. */
typedef struct tern__packed {
  tern__rows *rows;
  union {
    int64_t row;
    tern__element *element; /* rows == NULL */
  };
} tern__packed;
/* Moves e there. */
tern_rc tern__pack(tern__element *e, tern__packed *out);
/* Moves it back. */
void tern__unpack(tern__packed *p, tern__element *out);
/* Leaves p as it is. */
void tern__packed_copy(const tern__packed *p, tern__element *out);
void tern__packed_drop(tern__packed *p);
/* A list of them that grows. */
typedef struct tern__packed_list {
  tern__packed *item;
  int64_t count, capacity;
} tern__packed_list;
/* Moves e to the end; e is dropped on failure. */
tern_rc tern__packed_add(tern__packed_list *list, tern__element *e);
void tern__packed_clear(tern__packed_list *list);

/* ---- what a call of the program's runs in (guard.c) ---- */

/* A thread inside the pipeline: ops run at once, on the host device, unrecorded, in a scope of their own, and the
   errors that the program has not read yet are out of the way. */
typedef struct tern__guard {
  tern__thread *thread;
  tern_scope_mark scope;
  tern__device *device; /* that the thread used before */
  uint32_t hooks;
  uint8_t error_state; /* the error from before */
  tern_rc error_code;
  char error_text[sizeof(((tern__thread *)NULL)->error_text)];
} tern__guard;
/* TERN_OK, or an error (recorded), after which tern__leave must not be called. */
tern_rc tern__enter(tern__guard *g);
/* rc < 0: the error recorded inside becomes the thread's, unless an older one waits to be read. Returns rc. */
int tern__leave(tern__guard *g, int rc);

/* How something went on another thread. */
typedef struct tern__outcome {
  int rc;      /* 1: element; 0: the end; else an error */
  char *error; /* its text; owned; NULL when memory was short */
  tern__element element;
} tern__outcome;
/* Of rc < 0: takes the thread's error along. */
void tern__outcome_failed(tern__outcome *o, int rc);
/* Hands the outcome on to this thread: element to *out, or the error to the thread. Returns rc; zeroes o. */
int tern__outcome_take(tern__outcome *o, tern__element *out);
void tern__outcome_drop(tern__outcome *o);

/* The error that the program's function left, read or not, with "op: element NUMBER: " in front; without one, a text
   that says what rc it returned. Returns rc. */
int tern__fail_element(int rc, const char *op, int64_t number);
/* As pthread_create, with signals left to the program's threads. */
tern_rc tern__start_thread(pthread_t *thread, void *(*run)(void *), void *self, const char *op);

/* ---- datasets and iterators (dataset.c) ---- */

/* Set when whoever waits for elements gives up; those below it see it too. */
typedef struct tern__stop {
  atomic_bool set;
  const struct tern__stop *above;
} tern__stop;

/* What an iterator is told when it begins. */
typedef struct tern__run {
  uint64_t number; /* differs for each time that a dataset is gone through; 0: the first */
  const tern__stop *stop;
  _Atomic int64_t *skipped; /* of tern_iterator_skipped */
} tern__run;

static inline bool tern__stopped(const tern__run *run) {
  for (const tern__stop *s = run->stop; s; s = s->above)
    if (atomic_load_explicit(&s->set, memory_order_relaxed)) return true;
  return false;
}

/* A state begins with this. */
typedef struct tern__iter {
  const tern_dataset *dataset;
  tern__run run;
  struct tern__iter *source; /* of dataset->source[0], unless the type begins its sources itself */
  bool ended;
} tern__iter;

typedef struct tern__dataset_type {
  const char *name;   /* for errors */
  size_t state_bytes; /* zeroed before begin */
  bool begins_sources;
  tern_rc (*begin)(tern__iter *it); /* NULL: nothing to do. When it fails, end follows */
  /* 1: *out (zeroed before) has an element; 0: the end, and nothing comes behind it; else a recorded error, behind
     which the next call goes on */
  int (*next)(tern__iter *it, tern__element *out);
  void (*end)(tern__iter *it); /* NULL: nothing to do; the source has not ended yet */
  int64_t (*size)(const tern_dataset *d);
  void (*release)(tern_dataset *d); /* NULL: nothing to do; the sources are released behind it */
} tern__dataset_type;

/* A dataset begins with this. */
struct tern_dataset {
  _Atomic uint32_t refs;
  _Atomic uint64_t begun; /* iterators of the program's */
  const tern__dataset_type *type;
  int n_sources;
  tern_dataset **source; /* one reference each; &only where there is one */
  tern_dataset *only;
};

enum { TERN__ENDLESS = -1, TERN__UNKNOWN = -2 };

/* A zeroed dataset of `bytes` (its struct) that takes over `source` (NULL: it has none). On failure the source is
   released. */
void *tern__dataset_new(const tern__dataset_type *type, size_t bytes, tern_dataset *source);
/* As tern__dataset_new with n sources, all different. */
void *tern__dataset_join(const tern__dataset_type *type, size_t bytes, tern_dataset *const *sources, int n);
/* Begin an iterator of d. NULL with the error set. */
tern__iter *tern__begin(const tern_dataset *d, const tern__run *run);
/* Its next element: see tern__dataset_type. */
int tern__next(tern__iter *it, tern__element *out);
void tern__end(tern__iter *it); /* NULL is allowed */
/* Sizes of the datasets that keep their source's. */
int64_t tern__size_of_source(const tern_dataset *d);
/* Unknown, unless the source is empty. */
int64_t tern__size_at_most_source(const tern_dataset *d);

/* ---- random numbers ---- */

/* Another number for each pair (splitmix64's finaliser over both). */
uint64_t tern__mix(uint64_t a, uint64_t b);

/* ---- stacking (batch.c, padded.c) ---- */

/* A tensor on the host of `count` times that shape, its memory not set, one reference. NULL with the error set. */
tern_tensor *tern__stacked(const char *op, tern_dtype dtype, int rank, const int64_t *shape, int64_t count);
/* All of them have tensors afterwards, and the same number of components. */
tern_rc tern__packed_solid(const char *op, tern__packed *items, int64_t count);
/* Makes one element of `count` of them, which are dropped, whether it works or not. op: for errors. */
tern_rc tern__stack(const char *op, tern__packed *items, int64_t count, tern__element *out);

typedef struct tern__padding {
  tern_shape *shapes; /* owned; NULL: all -1 */
  double *values;     /* owned; NULL: zeros */
  int n;              /* of both */
  bool drop_remainder, lengths;
} tern__padding;
/* Copies and checks opts, which may be NULL. */
tern_rc tern__padding_set(const char *op, const tern_padded_opts *opts, tern__padding *out);
void tern__padding_free(tern__padding *p);
/* As tern__stack. */
tern_rc tern__stack_padded(const char *op, const tern__padding *padding, tern__packed *items, int64_t count,
                           tern__element *out);

/* ---- files (reader.c) ---- */

/* A file's bytes, unpacked where it is gzip. */
typedef struct tern__reader {
  const char *op, *path; /* borrowed */
  void *file;            /* gzFile */
  unsigned char *buffer;
  size_t at, filled;
  bool ended;
} tern__reader;
tern_rc tern__reader_open(tern__reader *r, const char *op, const char *path);
/* Makes at < filled; at the end of the file at == filled. An error is recorded with the path. */
tern_rc tern__reader_fill(tern__reader *r);
void tern__reader_close(tern__reader *r);
/* The next byte; -1 at the end, -2 with the error recorded. */
static inline int tern__reader_byte(tern__reader *r) {
  if (TERN__UNLIKELY(r->at == r->filled)) {
    if (tern__reader_fill(r)) return -2;
    if (r->at == r->filled) return -1;
  }
  return r->buffer[r->at++];
}
/* Copies of n strings in one block that free() ends. NULL with the error set (also when one of them is NULL). */
char **tern__copy_strings(const char *op, const char *const *texts, int n);
#endif
