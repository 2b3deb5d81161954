/* Launches of few elements. A region whose nests are all small is translated, for the sizes and strides of one launch,
   into a flat program: every value is a dense array over its whole nest, so a node is one call however many rows there
   are, and what remains of a launch is the calls. A program is built when the same sizes come the second time, and is
   kept with the kernel; launches run it without locks. Results have the bits of the general path. */
#ifndef TERN_CPU_EXEC_SMALL_H_
#define TERN_CPU_EXEC_SMALL_H_
#include "exec.h"

typedef struct x_small x_small;

/* For a kernel whose plan outlives it; bytes: of launch memory that x_resolve and the workspace offsets need. *out is
   NULL, which is no error, where the region is no candidate. */
tern_rc x_small_new(const x_plan *, size_t bytes, x_small **out);
void x_small_free(x_small *);
/* True: done. False: the launch is not for this path, or not yet */
bool x_small_launch(x_small *, const tern_launch *);
/* For tests: never, as usual, or from the first launch on */
enum { X_SMALL_NEVER, X_SMALL_AUTO, X_SMALL_AT_ONCE };
void x_small_mode(x_small *, int mode);
void x_region_mode(tern_kernel *, int mode); /* exec.c: of a region's kernel; nothing for any other */

enum { X_SMALL_ELEMS = 2048 }; /* most of a nest */

/* ---- programs: built by exec_small_build.c, run by exec_small_run.c ---- */

enum {
  P_CELLS,
  P_SLOTS,
  P_CONSTS,
  P_WORK,
  P_ARGS
}; /* bases: 8-byte cells, dense arrays, constants, workspace, arguments */
typedef struct p_ref {
  uint32_t base;
  int32_t off;
} p_ref;

enum { P_MAP, P_COPY, P_TAKE, P_GATHER, P_SCATTER, P_FILL, P_IOTA, P_RNG, P_FOLD, P_SUM_F32, P_MAX_F32, P_MIN_F32 };
typedef struct p_inst {
  cpu_map_fn fn;
  p_ref out, a, b, c;
  int32_t n; /* elements; P_COPY: bytes */
  uint8_t kind, item;
  uint16_t more; /* number of its walk, take or fold */
} p_inst;

/* P_TAKE: byte offsets of the 4-byte elements of a tiny array; those past its end repeat the first */
enum { TAKE_MOST = 16 };
typedef struct p_take {
  int32_t off[TAKE_MOST];
} p_take;

/* Strided memory in the order of a dense array, or (IOTA, RNG) the index of each of its elements */
typedef struct p_walk {
  uint32_t rank;
  uint32_t attr;                                      /* IOTA: dtype; RNG: stream */
  int64_t size[TERN_MAX_RANK], stride[TERN_MAX_RANK]; /* strides in bytes (IOTA, RNG: units) */
} p_walk;

/* A reduction of a dense [outer, m, lanes]. Along lanes (rows): m blocks of lanes each, in pieces of `width`, give one
   result an outer index. Across them: `lanes` results */
typedef struct p_fold {
  const x_red *red;
  int64_t outer, m, lanes, width;
  int64_t together; /* across: rows that one call takes */
  bool across;
} p_fold;

typedef struct p_param {
  uint32_t word, dtype, cell;
} p_param;

typedef struct p_prog { /* immutable, one block of memory */
  const p_inst *inst;
  const p_walk *walk;
  const p_take *take;
  const p_fold *fold;
  const p_param *param;
  const char *consts;
  const uint64_t *key; /* the words that it was built for, at x_small's key positions */
  uint32_t n_inst, n_param, n_args;
  size_t table, cells, bytes; /* of launch memory: pointer table, cells, and all */
} p_prog;

/* For the words of this launch; key: numbers of those that matter. One without instructions: not for this path. NULL:
   no memory. Free with free() */
p_prog *x_prog_build(const x_plan *, size_t launch_bytes, const tern_launch *, const uint32_t *key, uint32_t n_key);
/* mem: p->bytes, aligned to 64 */
void x_prog_run(const p_prog *, const tern_launch *, char *mem);
#endif
