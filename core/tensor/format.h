/* The text of an array, character for character what numpy 2.4 prints with its default options (precision 8, floatmode
   maxprec, linewidth 75, threshold 1000, edgeitems 3), from plain host memory. Independent of the locale. */
#ifndef TERN_CORE_TENSOR_FORMAT_H_
#define TERN_CORE_TENSOR_FORMAT_H_
#include <stdint.h>

#include "base/string.h"
#include "tern/backend.h"

/* Appends the text of an array: numpy.array2string, and for rank 0 the scalar's str(). data points to element [0,..,0],
   strides are in elements. prefix_columns columns are already used on the line (numpy's prefix): wrapped lines align
   under them. On TERN_E_OOM, or TERN_E_ARG (unknown dtype, rank outside 0..TERN_MAX_RANK, a negative size or column),
   out is as before. bfloat16 follows numpy's rules for a float type of 2 decimal digits, with the digits that tell a
   value from its bfloat16 neighbours (numpy itself has no layout for it). */
tern_rc tern__format_array(tern__string *out, tern_dtype dtype, int rank, const int64_t *shape, const int64_t *stride,
                           const void *data, int prefix_columns);

/* Appends the whole of what tern_print shows: "tern.Tensor([1. 2.], shape=(2,), dtype=float32)". From rank 2 on the
   array begins on a line of its own. Errors as above. */
tern_rc tern__format_tensor(tern__string *out, tern_dtype dtype, int rank, const int64_t *shape, const int64_t *stride,
                            const void *data);

/* Appends a shape as Python writes a tuple: "()", "(3,)", "(2, 3)". */
tern_rc tern__format_shape(tern__string *out, int rank, const int64_t *shape);

/* "float32" and so on; NULL for a number that is no dtype. Static. */
const char *tern__format_dtype_name(tern_dtype dtype);

#endif
