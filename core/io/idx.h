/* Reader of IDX files, the format of MNIST and its relatives, plain or gzipped: a 4-byte magic (0, 0, element type,
   number of dimensions), the dimensions as big-endian uint32, then the elements, big-endian and row-major. */
#ifndef TERN_CORE_IO_IDX_H_
#define TERN_CORE_IO_IDX_H_
#include <stddef.h>
#include <stdint.h>

#include "tern/backend.h"

typedef struct tern__idx {
  tern_dtype dtype; /* u8, i8, i16, i32, f32 or f64 */
  int rank;         /* 1 .. TERN_MAX_RANK */
  int64_t shape[TERN_MAX_RANK];
  size_t size; /* bytes of data */
  void *data;  /* malloc'ed, host byte order, row-major; never NULL after success, also when size is 0 */
} tern__idx;

/* Reads a whole file into *out, which tern__idx_free ends. A file that is missing, unreadable, truncated, corrupt or
   longer than its header says gives TERN_E_IO, lack of memory TERN_E_OOM; then *out is zeroed and message (of
   message_size bytes, always terminated; may be NULL with size 0) says what was found and what was expected. Memory
   grows with the data that arrives, never with what a header claims. */
tern_rc tern__idx_read(const char *path, tern__idx *out, char *message, size_t message_size);

/* Frees the data and zeroes the struct. A zeroed struct is fine. */
void tern__idx_free(tern__idx *idx);

#endif
