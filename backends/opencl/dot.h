/* What dot.c (choice, launch) and dot_source.c (kernel text) agree on. */
#ifndef TERN_OCL_DOT_H_
#define TERN_OCL_DOT_H_
#include "epilogue.h"

/* Beside dot_plain; what a device will not use is left out, because compiling is slow. */
enum { DOT_HAS_ROW = 1, DOT_HAS_TILED = 2, DOT_HAS_BLOCK = 4, DOT_HAS_BLOCK1 = 8 };

typedef struct dot_shape { /* what the text depends on; sizes and strides are arguments */
  uint32_t in, out;        /* dtypes */
  uint32_t batch;          /* number of batch dims */
  bool idx32;
  uint32_t has;                             /* DOT_HAS_* */
  uint32_t rows, rows1, vecs, vecs1, width; /* register block: rows x (vecs vectors of width); the 1s: for few rows */
  const render_epilogue *epilogue; /* NULL: results are stored */
  bool apart;                      /* the epilogue is applied by `finish` alone */
  bool finish;                     /* that kernel is wanted */
  uint32_t side, span, depth; /* local-memory tiles: side x side work-items for span x span results, depth deep */
} dot_shape;

/* Kernels of the text:
   dot_plain(AT, BT, CT, sizes, strides)            one result a work-item, any dtype and stride, local size DOT_LOCAL
   dot_row(the same)                                one result a work-item, both operands contiguous along K
   dot_tiled(the same)                              side x side work-items
   dot_pack(S, s0, P, p0, lanes, n, K, sl, sk, per batch: size, stride)
                                                    operand -> [batch][panel][K][lanes], zero padded
   dot_block, dot_block1(A, a0, B, b0, C, c0, M, N, K, apanel, ars, acs, bpanel, brs, crs, ccs, super, add, batch: ..)
   finish (epilogue.h)                              with an epilogue only
   With an epilogue that is not apart, C is the workspace for sums over a part of K: [batch][M][N], in what is
   accumulated in; add is 1: begin with them, 2: leave them there, 3: both. All kernels but dot_pack and finish take the
   epilogue's arguments last.
   where XT is a buffer and its element offset. */
enum { DOT_LOCAL = 64 };
enum { DOT_ADD = 1, DOT_MORE = 2 };
void dot_text(ocl_text *t, const tern_dev *dev, const dot_shape *s);
#endif
