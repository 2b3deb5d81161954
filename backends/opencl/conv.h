/* What conv.c (choice, launch) and conv_source.c (kernel text) agree on. */
#ifndef TERN_OCL_CONV_H_
#define TERN_OCL_CONV_H_
#include "epilogue.h"

typedef struct conv_shape { /* what the text depends on; sizes and strides are arguments */
  uint32_t op, dtype;
  bool idx32, cpu;
  uint32_t dims;                   /* spatial */
  const render_epilogue *epilogue; /* NULL: results are stored */
  bool apart;                      /* the epilogue is applied by `finish` alone */
  uint32_t rows, vecs, width;      /* register block: rows x (vecs vectors of width) */
} conv_shape;

enum { CONV_LOCAL = 64 }; /* work-group of the kernels that make one result each, and of all kernels off the CPU */

/* One side of a convolution as a kernel sees it: `from` is gathered, `to` is made. CONV: x to y; CONV_DX: y to x, and
   then the pixels of x are visited by their remainder (phase) modulo the stride, so that a block shares its taps.
   Names of the text's arguments, all long:
     N batch, G groups, B channels of `to` a group, R channels of `from` a group, T0 T1 taps, A0 A1 size of from,
     D0 D1 size of to, E0 E1 pixels of a phase, F0 F1 phases, st dl pd stride, dilation, pad; strides: fn fc f0 f1 of
     from, dn dc d0 d1 of to
   Kernels for CONV and CONV_DX:
     conv_pack(W, P, G, B, R, T0, T1, wg, wb, wr, w0, w1)  filters -> [g][block of B][tap][R][vecs * width], zero padded
     conv_block(from, P, to, ..)                           a register block of results a work-item
     conv_plain(from, W, to, .., wg, wb, wr, w0, w1)       one result a work-item
     conv_depth(from, W, to, .., w0, w1)                   `width` channels of a pixel: G channels, one a group (F32, F64)
   Kernels that make results take the epilogue's arguments last, and do not touch `to` then, unless it is apart.
   Kernels for CONV_DW: x [N, G R, A], y [N, G B, D] to w; a column is (tap, r):
     dw_pack(Y, P, N, G, B, D0, D1, yn, yc, y0, y1)        y -> [n, j0, j1][g][B rounded up]
     dw_block(X, P, S, ..)                                 a register block of sums over one chunk of y's rows
     dw_plain(X, Y, S, ..)                                 one sum a work-item
     dw_depth(X, Y, S, ..)                                 `width` sums: as conv_depth
     dw_sum(S, W, ..)                                      the chunks added up in order; S: [chunk][g][column][B rounded up] */
void conv_text(ocl_text *t, const tern_dev *dev, const conv_shape *s);
void conv_text_weights(ocl_text *t, const conv_shape *s);      /* the part of CONV_DW (conv_weights.c) */
void conv_group(ocl_text *t, const conv_shape *s, bool plain); /* "__kernel" with its work-group size */
bool conv_fused(const conv_shape *s);                          /* results go to the epilogue */
/* epilogue(.., n, c, i0, i1, ; the indices as text */
void conv_call(ocl_text *t, const conv_shape *s, bool vector, const char *n, const char *c, const char *i0,
               const char *i1);
#endif
