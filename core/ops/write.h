/* Memory in graphs: `empty`, a value whose elements do not matter, and `write`, a value with a strided part of it
   replaced. The eager core writes into memory (tern__write); these two are what a graph shows of that. */
#ifndef TERN_OPS_WRITE_H_
#define TERN_OPS_WRITE_H_
#include "ops/op.h"

/* empty: no operands; attributes: dtype, rank, sizes. */
extern const tern__op tern__op_empty;
/* write: operands: the whole (row-major), the source, which broadcasts to the part and is cast. Attributes: offset of
   the part in elements, its rank, its sizes, its strides. The result has the whole's shape and may take its memory. */
extern const tern__op tern__op_write;
enum { TERN__WRITE_ATTRS = 2 + 2 * TERN_MAX_RANK };
#endif
