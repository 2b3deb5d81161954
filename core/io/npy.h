/* NumPy's array format, described in numpy.lib.format: "\x93NUMPY", the version, the header's length, a dict in
   Python's notation with 'descr', 'fortran_order' and 'shape', the elements. What .npy files and the members of .npz
   files share. */
#ifndef TERN_CORE_IO_NPY_H_
#define TERN_CORE_IO_NPY_H_
#include "tensor/tensor.h"
#include <tern/io.h>

enum {
  TERN__NPY_HEADER_MAX = 65536, /* bytes of a dict that is read; NumPy itself writes 54 to 182 for plain arrays */
  TERN__NPY_ROOM = 512          /* bytes that hold a header as it is written: at most 320 */
};

/* Where the bytes of an array come from, in order. */
typedef struct tern__npy_source {
  /* The next `size` bytes, all of them. Records the error. */
  tern_rc (*read)(struct tern__npy_source *source, void *dst, size_t size);
  const char *label; /* the file, and the array in it: for messages */
  uint64_t left;     /* bytes that have not been read; counted down before read() */
} tern__npy_source;

typedef struct tern__npy {
  tern_dtype dtype;
  bool fortran, swapped; /* column-major; other byte order than the host's */
  int rank;
  int64_t shape[TERN_MAX_RANK];
} tern__npy;

/* Reads the header and checks it against source->left: what stays are the elements, no more and no less. Records the
   error. */
tern_rc tern__npy_header(tern__npy_source *source, tern__npy *array);
/* The dict alone, of `size` bytes; `label` is for the message. */
tern_rc tern__npy_dict(const char *text, size_t size, const char *label, tern__npy *array);
/* The elements as a tensor on a device, borrowed from the scope; NULL with the error set. */
tern_tensor *tern__npy_elements(tern__npy_source *source, const tern__npy *array, struct tern__device *device);

/* The header of t in `header` (TERN__NPY_ROOM bytes); returns its size, 0 with the error set where NumPy has no such
   dtype. op, what: for the message. */
size_t tern__npy_header_text(const tern_tensor *t, const char *op, const char *what, char *header);
#endif
