/* What other files use of scatter.c. Arrays are three-dimensional, as the primitive's: [O, A, I], [J], [O, J, I]. */
#ifndef TERN_OPS_SCATTER_H_
#define TERN_OPS_SCATTER_H_
#include "region/region.h"
#include <tern/ops.h>

/* Zeros [O, a, I] with updates [O, J, I] added at indices [J] (int32 or int64). One launch; recorded. */
tern_tensor *tern__scatter_zeros(tern_tensor *indices, tern_tensor *updates, int64_t a);
/* Combine updates (shape of indices, then that of a slice; a dtype that promotes to the tensor's) into slices along
   axis 0 of a row-major tensor, in place, with one launch. mode: tern_scatter_mode. Recorded by no tape. Operands are
   moved to its device. */
tern_rc tern__scatter_into(tern_tensor *base_and_out, tern_tensor *indices, tern_tensor *updates, int mode);
/* An operand whose dims are the request's sizes dim[], never merged: t, or with t NULL a row-major output. */
void tern__fixed_operand(tern__operand *a, uint8_t kind, tern_tensor *t, tern_dtype dtype, int rank, const uint8_t *dim,
                         const int64_t *size);
#endif
