/* What the eval*.c files share beside eval.h. */
#ifndef TERN_EVAL_INTERNAL_H_
#define TERN_EVAL_INTERNAL_H_
#include "eval.h"

/* An array of a convolution: row-major elements in their widest form */
typedef struct eval_array {
  uint32_t rank;
  const int64_t *size;
  tern_word *data;
} eval_array;

/* CONV, CONV_DX or CONV_DW of the node's two inputs into out, of dtype; attr: n_attr words. NULL, or what does not fit
   (static text) */
const char *eval__conv(uint32_t op, const tern_word *attr, uint32_t n_attr, const eval_array *a, const eval_array *b,
                       const eval_array *out, uint32_t dtype);
#endif
