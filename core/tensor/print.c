/* Printing: values are brought to the host, format.c does the text. */
#include "base/alloc.h"
#include "tensor/dtype.h"
#include "tensor/format.h"
#include "tensor/tensor.h"
#include <stdio.h>
#include <stdlib.h>

/* All elements on the host in row-major order. NULL with the error set. */
static void *host_values(tern_tensor *t) {
  const size_t bytes = (size_t)t->numel * tern__dtype_size[t->dtype];
  void *data = tern__calloc(1, bytes ? bytes : 1);
  if (!data) {
    tern__fail(TERN_E_OOM, "print: out of host memory for %zu bytes", bytes);
    return NULL;
  }
  if (!tern_to_host(t, data, bytes)) return data;
  free(data);
  return NULL;
}

static bool text_of(tern_tensor *t, bool values_only, tern__string *out) {
  if (!tern__usable(t, "print", 1)) return false;
  void *data = host_values(t);
  if (!data) return false;
  int64_t stride[TERN_MAX_RANK], n = 1;
  for (int d = t->rank; d-- > 0;) {
    stride[d] = n;
    n *= t->shape[d];
  }
  const tern_rc rc = values_only ? tern__format_array(out, t->dtype, t->rank, t->shape, stride, data, 0)
                                 : tern__format_tensor(out, t->dtype, t->rank, t->shape, stride, data);
  free(data);
  if (rc) tern__fail(rc, "print: out of host memory");
  return rc == TERN_OK;
}

static void print(tern_tensor *t, bool values_only) {
  const bool symbolic = t && t->live == TERN__SYMBOLIC; /* printed by name in eager mode too */
  if (symbolic || (tern__tracing_ops() && t && t != TERN_NONE && t->live == TERN__LIVE && t->flags & TERN__VARIABLE)) {
    tern__graph_listener.print(tern__tls, t, values_only);
    return;
  }
  tern__string s = {0};
  if (text_of(t, values_only, &s))
    printf("%s\n", s.text);
  else
    printf("tern.Tensor(error: %s)\n", tern_error());
  free(s.text);
}

void tern_print(tern_tensor *t) { print(t, false); }
void tern_print_values(tern_tensor *t) { print(t, true); }

char *tern_to_string(tern_tensor *t) {
  tern__string s = {0};
  if (text_of(t, false, &s)) return s.text;
  free(s.text);
  return NULL;
}
