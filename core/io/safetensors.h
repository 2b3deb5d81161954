/* What the reader and the writer of safetensors files and the checkpoints share. The format, described at
   https://github.com/huggingface/safetensors: 8 bytes of little-endian header length, a JSON object, the tensors'
   bytes. */
#ifndef TERN_CORE_IO_SAFETENSORS_H_
#define TERN_CORE_IO_SAFETENSORS_H_
#include "tensor/tensor.h"
#include <tern/io.h>

#define TERN__SAFETENSORS_HEADER_MAX 100000000u /* bytes of JSON: the reference implementation's limit */
#define TERN__SAFETENSORS_METADATA "__metadata__"
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "elements are copied as they are: little-endian");

/* One tensor of a file, checked against the file. */
typedef struct tern__safetensors_entry {
  const char *name; /* belongs to the file */
  tern_dtype dtype;
  int rank;
  int64_t shape[TERN_MAX_RANK];
  uint64_t begin, end; /* bytes, from the start of the data */
  int number;          /* place in the header */
} tern__safetensors_entry;

/* By name; NULL when there is none. */
const tern__safetensors_entry *tern__safetensors_find(const tern_safetensors *file, const char *name);
/* Bytes [at, at + size) of an entry into dst. Records the error. */
tern_rc tern__safetensors_bytes(const tern_safetensors *file, const tern__safetensors_entry *entry, uint64_t at,
                                void *dst, size_t size);
/* The entry as a fresh row-major tensor on a device, borrowed from the scope; NULL with the error set. */
tern_tensor *tern__safetensors_load(const tern_safetensors *file, const tern__safetensors_entry *entry,
                                    struct tern__device *device);
/* "a", "b" and so on into a buffer, cut short with "..." when there are more than fit; returns it. */
const char *tern__safetensors_names(const tern_safetensors *file, char *text, size_t size);

/* "F32" for TERN_F32; NULL for what is no dtype. */
const char *tern__safetensors_dtype(tern_dtype dtype);
/* Place in the reference writer's order of dtypes, 1 to 13; it writes the highest first, so that everything is
   aligned. */
int tern__safetensors_order(tern_dtype dtype);
/* Bytes of the UTF-8 sequence at s, of which `left` bytes are there: 1 to 4; 0 when it is none (Unicode 15, table
   3-7). */
int tern__utf8_length(const unsigned char *s, size_t left);
/* The strict part of JSON that headers are made of: strings of UTF-8 without control characters, and outside of them
   braces, brackets and whole numbers, at most three levels deep, no list longer than a shape. NULL, or what is wrong
   at byte *at. */
const char *tern__safetensors_scan(const char *text, size_t size, size_t *at);
#endif
