/* A DOT or CONV with an epilogue of MAP nodes. dot_split.c cuts the region into the product alone and the epilogue
   alone, dot_direct.c runs the smallest ones as a list of map calls over one tile, dot_fuse.c all others: the product
   of a block of rows, then the epilogue over that block while it is in the cache. */
#ifndef TERN_CPU_DOT_FUSE_H_
#define TERN_CPU_DOT_FUSE_H_
#include "cpu.h"

/* One DOT, CONV, CONV_DX or CONV_DW whose operands are arguments or views of them and whose result is a TEMP or an OUT,
   with MAP nodes that lead to OUTs of the result's shape */
tern_rc cpu_fuse_supports(const tern_region *);
tern_rc cpu_fuse_compile(const tern_region *, tern_kernel **, tern_kernel_info *);

enum { FUSE_NODES = 256, FUSE_WORDS = 192 /* the region's and ours */, FUSE_ARGS = 64, FUSE_NONE = -1 };

/* Packed arrays (dot_static.h): the operands of the product may be packed, and all OUTs too (with one layout). Then the
   epilogue is one bias of dim 1, which the product adds, and nodes whose operands are of rank 0 or have that layout */

/* An argument of one of the parts: memory of an argument of the region, or the workspace (slot FUSE_NONE). Numbers are
   literals or words */
struct fuse_mem {
  int32_t slot;
  uint32_t item;
  int64_t offset;                /* in elements */
  int64_t stride[TERN_MAX_RANK]; /* of block dims only; 0: does not move */
};

struct fuse_part {
  tern_region region;
  struct fuse_mem mem[FUSE_ARGS];
};

/* In the parts, the result's sizes are words of their own (n_words + d), and so are its strides where it lies in the
   workspace (n_words + rank + d): a launch may set them for a block */
struct fuse_split {
  const tern_region *whole;
  struct fuse_part main, map;
  uint32_t op, dtype, rank, n_words;
  uint32_t result; /* value of the whole region that the first part makes: the product, or product + bias */
  uint32_t product;
  int32_t bias;    /* argument of main that it adds, or FUSE_NONE */
  bool fixed;      /* an array is packed: literal sizes, one block */
  uint64_t layout; /* of the OUTs. Not 0: the epilogue is of rank 1, over all elements of the array */
  uint64_t packed_bytes;
  int32_t home;                /* argument of map that the result lies in */
  bool in_workspace;           /* not in an OUT */
  bool result_is_out;          /* the region's own OUT */
  uint32_t block_dims;         /* bit d: dim d may be cut into blocks */
  int64_t size[TERN_MAX_RANK]; /* of the result, as the whole region has them */
  uint32_t *renamed;           /* value of the whole -> value of map; UINT32_MAX: not there */
  void *memory;                /* behind both regions */
};

/* UNSUPPORTED: not such a region. fuse_split_free in any case of success */
tern_rc fuse_split_build(const tern_region *r, struct fuse_split **out);
void fuse_split_free(struct fuse_split *s);

/* ---- dot_direct.c: small float32 and float64 products of rank 2 ---- */
struct fuse_direct;
/* NULL: not of that kind (or no memory) */
struct fuse_direct *fuse_direct_new(const struct fuse_split *s);
/* False: this launch is too large or lies badly; nothing was written */
bool fuse_direct_run(const struct fuse_direct *d, const tern_launch *l);
void fuse_direct_free(struct fuse_direct *d);
#endif
