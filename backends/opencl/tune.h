/* Which provider or form serves a class of shapes best on this device, as it was measured: a table in memory that is
   read without a lock, and a small file in the cache folder (docs/formats.md). An entry is never changed while the
   process lives, because a launch and the workspace that was asked for before it must agree. */
#ifndef TERN_OCL_TUNE_H_
#define TERN_OCL_TUNE_H_
#include "ocl.h"

enum { OCL_TUNE_GUESS = 0, OCL_TUNE_FORMS = 64 };
/* The option `tune`. OFF: nothing is measured or remembered. KNOWN: what is remembered counts. OWN: a class that is not
   known is measured, forms of tern's own. ALL: with CLBlast too. REDO: ALL, and what is remembered does not count. */
typedef enum ocl_tune_mode { OCL_TUNE_OFF, OCL_TUNE_KNOWN, OCL_TUNE_OWN, OCL_TUNE_ALL, OCL_TUNE_REDO } ocl_tune_mode;
ocl_tune_mode ocl_tune_mode_of(tern_dev *dev);

/* A class of shapes, below 2^56 and not 0: `kind` (op, dtypes, layouts, ..; 24 bits) and sizes by their binary
   logarithm, 5 bits each, 6 at most. */
uint64_t ocl_tune_class(uint32_t kind, const int64_t *sizes, uint32_t n);

/* Seconds that form f takes, of so many runs in the queue; below 0: it cannot be used here. */
typedef double (*ocl_tune_time)(void *context, tern_queue *q, uint32_t form, int runs);
/* The form of this class: OCL_TUNE_GUESS where there is none. Measures when the option says so: then `time` is called
   for the forms of `mask` (bit f), some of them often; name(form) is for the log. */
typedef struct ocl_tune_how {
  uint64_t mask;
  uint32_t guess; /* another form must be faster than this one by more than chance */
  ocl_tune_time time;
  const char *(*name)(void *context, uint32_t form);
  void *context;
  const char *what; /* "DOT float32 128 x 128 x 128" */
} ocl_tune_how;
/* how: NULL only looks. *known: there is an entry. */
uint32_t ocl_tune_find(tern_dev *dev, uint64_t class, bool *known);
uint32_t ocl_tune_measure(tern_dev *dev, uint64_t class, const ocl_tune_how *how);
/* The entry of this class is a guess from now on, unless there is one. Returns what it is */
uint32_t ocl_tune_pin(tern_dev *dev, uint64_t class);
void ocl_tune_close(tern_dev *dev);
#endif
