/* Files into tensors. */
#include "io/idx.h"
#include "tensor/tensor.h"
#include <tern/io.h>

tern_tensor *tern_read_idx(const char *path) {
  tern__idx idx;
  char message[512] = "";
  const tern_rc rc = path ? tern__idx_read(path, &idx, message, sizeof message) : TERN_E_ARG;
  if (rc) {
    tern__fail(rc, "read_idx: %s", path ? message : "the path is NULL");
    return NULL;
  }
  tern_tensor *t =
      tern_constant(tern_shape_of(idx.rank, idx.shape), idx.dtype, idx.data, (size_t)tern__numel(idx.rank, idx.shape));
  tern__idx_free(&idx);
  return t;
}
