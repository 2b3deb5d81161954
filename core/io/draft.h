/* Files that appear whole or not at all: written beside their place, synced and renamed. And the elements of tensors,
   piece by piece, between files and devices. */
#ifndef TERN_CORE_IO_DRAFT_H_
#define TERN_CORE_IO_DRAFT_H_
#include "tensor/tensor.h"
#include <tern/io.h>

/* A file on its way: written at `temporary`, wanted at `target`, both in `folder`. */
typedef struct tern__draft {
  const char *op;   /* that writes, for messages; static */
  const char *path; /* as the caller gave it, for messages */
  char *target, *folder, *temporary;
  int fd;
  bool made; /* the temporary file exists */
} tern__draft;

/* Makes the temporary file. tern__draft_end must follow, whatever this returns. */
tern_rc tern__draft_begin(tern__draft *d, const char *op, const char *path);
/* Appends. */
tern_rc tern__draft_write(tern__draft *d, const void *data, size_t size);
/* Bytes before the end once more, which is still where tern__draft_write goes on. */
tern_rc tern__draft_patch(tern__draft *d, uint64_t at, const void *data, size_t size);
/* rc TERN_OK: syncs the file and puts it in its place. Else, or if that fails: nothing is left of it. Returns rc, or
   the reason. */
tern_rc tern__draft_end(tern__draft *d, tern_rc rc);
/* "OP: PATH: out of host memory" */
tern_rc tern__draft_no_memory(const char *op, const char *path);

/* Another header over t's memory, so that nobody changes it meanwhile: an assignment would then take fresh memory. A
   weak scalar as float32, int64 and so on. Borrowed from the scope; NULL with the error set. */
tern_tensor *tern__snapshot(tern_tensor *t);
/* Hands all elements of t, a snapshot, to take() in row-major order, in pieces of whole elements. Waits for the device.
   Stops at the first error, which take() has recorded. */
tern_rc tern__pieces_out(tern_tensor *t, const char *op, tern_rc (*take)(void *self, const void *data, size_t size),
                         void *self);
/* The reverse for a fresh row-major tensor: give() fills each piece. */
tern_rc tern__pieces_in(tern_tensor *t, const char *op, tern_rc (*give)(void *self, void *data, size_t size),
                        void *self);
#endif
