/* What the files of DOT agree on: dot.c (from a region to a kernel, which form serves a launch), dot_source.c (text),
   dot_run.c (launches), dot_tune.c (measures the forms of a class of shapes). */
#ifndef TERN_OCL_DOT_H_
#define TERN_OCL_DOT_H_
#include "epilogue.h"

typedef struct dot_shape { /* what the text depends on; sizes and strides are arguments */
  uint32_t in, out;        /* dtypes */
  uint32_t batch;          /* number of batch dims */
  bool idx32;
  uint32_t width;                  /* of a vector */
  const render_epilogue *epilogue; /* NULL: results are stored */
  bool apart;                      /* the epilogue is applied by `finish` alone */
  bool finish;                     /* that kernel may be wanted */
  bool tiled;                      /* the device can run tiles: */
  uint32_t side, span, depth;      /* side x side work-items for span x span results, depth deep, in local memory */
} dot_shape;

/* The parts of the text. Each is a section of its own, registered and built when a launch first needs it, because
   compilers are slow; but where nothing is built at run time, or register blocks are of no use, ONE has what there is:
   ONE    dot_plain; dot_tiled and finish where the shape says so
   PLAIN  dot_plain(AT, BT, CT, sizes, strides)   one result a work-item, any dtype and stride, local size DOT_LOCAL
   ROW    dot_row(the same)                       one result a work-item, both operands contiguous along K
   TILED  dot_tiled(the same)                     side x side work-items
   PACK   dot_pack(S, s0, P, p0, lanes, n, K, sl, sk, per batch: size, stride)
                                                  operand -> [batch][panel][K][lanes], zero padded
   FINISH finish (epilogue.h)                     with an epilogue only
   BLOCK + i  dot_block(A, a0, B, b0, C, c0, M, N, K, apanel, ars, acs, bpanel, brs, crs, ccs, super, add, batch: ..)
                                                  a register block a work-item, variant i / 3, A as dot_rows i % 3 says
   XT is a buffer and its element offset. With an epilogue that is not apart, C of dot_block is the workspace for sums
   over a part of K: [batch][M][N], in what is accumulated in; add is 1: begin with them, 2: leave them there, 3: both.
   dot_plain, dot_row, dot_tiled and dot_block take the epilogue's arguments last.
   Products of 8-bit integers are made in float32, 256 of them at most, which is exact, and added up in 32 bits. */
enum { DOT_LOCAL = 64, DOT_VARIANTS = 6 };
typedef enum dot_part {
  DOT_PART_ONE,
  DOT_PART_PLAIN,
  DOT_PART_ROW,
  DOT_PART_TILED,
  DOT_PART_PACK,
  DOT_PART_FINISH,
  DOT_PART_BLOCK,
  DOT_PARTS = DOT_PART_BLOCK + 3 * DOT_VARIANTS
} dot_part;
typedef enum dot_rows {             /* a block's rows of A */
                        DOT_ALONG,  /* contiguous along K */
                        DOT_PACKED, /* in a panel */
                        DOT_ACROSS  /* a step of any length from one k to the next: a transposed matrix */
} dot_rows;
typedef struct dot_block { /* rows x (vecs vectors) */
  uint32_t rows, vecs;
  dot_rows a;
} dot_block;
enum { DOT_ADD = 1, DOT_MORE = 2 };
void dot_text(ocl_text *t, const tern_dev *dev, const dot_shape *s, const dot_block *b, dot_part part);
bool dot_multiplies_floats(const dot_shape *s); /* blocks of integers do */
bool dot_adds_to_result(const dot_shape *s);    /* the result can hold sums over a part of K */

/* ---- a kernel ---- */

/* Numbers are stored on disk (tune.h). GUESS: by rule. The later ones are register blocks: variant, B as it is or
   packed. */
typedef enum dot_form {
  DOT_GUESS,
  DOT_PLAIN,
  DOT_ROW,
  DOT_TILED,
  DOT_CLBLAST,
  DOT_BLOCKS,
  DOT_FORMS = DOT_BLOCKS + 2 * DOT_VARIANTS
} dot_form;

typedef struct dot_kernel {
  tern_kernel head;
  dot_shape shape;
  uint32_t rank, n_args;
  tern_value a, b, c;
  ocl_epilogue epilogue;
  dot_block variant[DOT_VARIANTS]; /* of this device; rows 0: none */
  bool direct;                     /* operands can be read as vectors of what is multiplied */
  bool adds;                       /* see dot_adds_to_result */
  bool lazy;                       /* parts become sections when they are needed; else head.section has ONE */
  bool blocks;                     /* register blocks may be used */
  int wanted;                      /* the option: -1 auto, else a form that is preferred where it can serve */
  ocl_section *section[DOT_PARTS];
  cl_kernel part[DOT_PARTS];
  cl_kernel tiled; /* of ONE */
} dot_kernel;

typedef struct dot_sizes {
  int64_t m, n, k, batches;
  int64_t ars, acs, brs, bcs, crs, ccs;
  int64_t bsize[TERN_MAX_RANK], stride[3][TERN_MAX_RANK]; /* batch dims */
} dot_sizes;

typedef struct dot_plan {
  dot_form form; /* DOT_BLOCKS: any of them */
  uint32_t variant;
  dot_rows a;
  bool pack_b;
  uint64_t a_bytes, bytes; /* workspace: of A (64-byte multiple), and all */
  uint64_t c_at;           /* where the product lies in it; UINT64_MAX: not there */
} dot_plan;

/* The plan of form f (GUESS: by rule). False: it cannot serve these sizes. */
bool dot_plan_form(tern_dev *dev, const dot_kernel *k, const dot_sizes *s, dot_form f, dot_plan *p);
/* Bytes of an element of a packed panel or of sums */
uint32_t dot_acc_size(const dot_kernel *k);
int64_t dot_pieces(const dot_kernel *k, const dot_sizes *s);

/* dot_run.c: under the kernel's lock */
tern_rc dot_run(tern_dev *dev, tern_queue *q, dot_kernel *k, const tern_launch *l, const dot_sizes *s,
                const dot_plan *p);
/* Registers the sections that a plan needs. */
tern_rc dot_register(tern_dev *dev, dot_kernel *k, const dot_plan *p);
/* Makes those of a plan, or all that are registered, ready to launch; under the kernel's lock. */
void dot_plan_ready(tern_dev *dev, dot_kernel *k, const dot_plan *p);
tern_rc dot_registered_ready(tern_dev *dev, tern_kernel *head);
void dot_end(tern_dev *dev, dot_kernel *k);

/* dot_tune.c: the form for these sizes as it was measured, now or earlier (tune.h), or GUESS. The answer for a class of
   sizes is the same as long as the process lives. */
dot_form dot_tuned(tern_dev *dev, const dot_kernel *k, const dot_sizes *s);
#endif
