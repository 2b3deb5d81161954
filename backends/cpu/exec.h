/* The region executor: a block interpreter over the nests of common/nest.h. Three forms of a nest:
     x_nest   compiled: for each pass and phase a list of items over the nest's values (exec_compile.c)
     r_nest   resolved for one launch: sizes and strides are numbers, neighbouring dims are merged, a mapping is
              chosen and each item has become instructions (exec_resolve.c)
     work     one thread running it: a pointer for each value, registers, positions in memory (exec_run.c)
   Everything runs on "lanes": blocks of up to `width` elements along one dim, the lane dim; all other dims are loops.
   When the lane dim is reduced (ROW), a value that is the same for the whole row is one element, a "splat"; when it is
   an outer dim (COL), such a value is a vector of lanes. */
#ifndef TERN_CPU_EXEC_H_
#define TERN_CPU_EXEC_H_
#include "../common/nest.h"
#include "cpu.h"
#include "reduce.h"

enum { X_NONE = -1, X_MAX_NODES = 512, X_TEMPS = 3, X_TILE = 16, X_TILE_LANES = 256, X_LEAVES = 5, X_MOST_VALS = 2048 };

/* ---- compiled ---- */

/* in[k]: a float32 block, or one element where bit k of splat is set */
typedef void (*x_super_fn)(float *out, const float *const *in, uint32_t splat, int64_t n);

enum { X_LOAD, X_MAP, X_IOTA, X_RNG, X_REDUCE, X_STORE, X_SUPER, X_GONE };
typedef struct x_item {
  uint8_t kind, n_in;
  bool row;             /* the value is row-level: it lives in a row slot */
  bool copies;          /* X_MAP: a COPY */
  bool copy;            /* X_LOAD: must not stay a pointer into memory */
  uint32_t val;         /* value made (or stored), an index into nest->val */
  int32_t in[X_LEAVES]; /* operands; more than three: X_SUPER only */
  int32_t stream;       /* LOAD, STORE: memory. IOTA, RNG: index */
  int32_t direct;       /* MAP, IOTA, RNG: stream of a STORE in this list that may be written to at once, or X_NONE */
  uint32_t slot;        /* block register, or row slot, of the value; REDUCE: index into red */
  uint32_t dtype;       /* of the value */
  uint32_t in_dtype;    /* RNG: its attribute s; MAP: dtype of the data inputs */
  cpu_map_fn fn[8];     /* by splat mask, NULL where there is none */
  x_super_fn super;     /* X_SUPER */
} x_item;

enum { S_MEM, S_SCRATCH, S_INDEX };
typedef struct x_stream { /* something with an address for each index of the nest */
  uint8_t kind, item;     /* S_INDEX: item 1, the "address" is the index itself */
  bool loaded;            /* S_MEM: read, not stored to */
  bool kept;              /* S_MEM: an OUT that holds another value meanwhile */
  bool rng;               /* S_INDEX: row-major number of the element; else the index along `dim` */
  uint32_t value;         /* region's value */
  uint32_t to, mem;       /* S_MEM: as nest_layout; S_SCRATCH: mem = slot */
  uint32_t dim;
} x_stream;

typedef struct x_red {
  cpu_reduce r;
  cpu_map_fn cast;             /* float16, bfloat16 -> float32 before folding, or NULL */
  cpu_map_fn finish;           /* acc -> result where dtypes differ, or NULL */
  uint64_t start;              /* the identity as stored bytes */
  uint32_t in, val;            /* values */
  uint32_t acc_v, acc_i, slot; /* row slots of the accumulator and of the result */
  uint32_t pass;
  uint8_t in_item, acc_item, out_item;
} x_red;

typedef struct x_list {
  x_item *item;
  uint32_t n;
} x_list;
typedef struct x_nest {
  const nest *nest;
  x_list scalar, *pass, *phase; /* [n_pass], [n_pass + 1] */
  x_list *fused; /* [n_pass] the passes with superinstructions, registers and direct stores: what is run */
  x_stream *stream;
  x_red *red;
  uint32_t n_stream, n_red, n_reg, n_row, n_inst; /* n_inst: most instructions that resolving can make */
  uint32_t item_max, n_items;
} x_nest;

typedef struct x_plan {
  nest_plan *plan;
  x_nest *nest;
} x_plan;

tern_rc x_plan_build(const tern_region *, uint32_t flags, x_plan *);
void x_plan_free(x_plan *);

/* ---- resolved ---- */

enum { I_POINT, I_GATHER, I_IOTA, I_RNG, I_MAP, I_EXPAND, I_REDUCE, I_COPY, I_SCATTER, I_FILL, I_SUPER, I_STREAM };
typedef struct r_inst {
  uint8_t kind, item;
  bool one;  /* one element whatever the block: the result is a splat */
  bool row;  /* `off` is in the row area, else in the block registers */
  bool walk; /* the stream is walked dim by dim (exec_flat.c) */
  uint8_t dtype;
  uint32_t seed;        /* RNG: attribute s */
  int32_t out, a, b, c; /* indices into work.at */
  int32_t d, e;         /* I_SUPER */
  int32_t stream;
  int64_t off;  /* where the result goes, X_NONE: at[out] is set already */
  int64_t lane; /* bytes (S_INDEX: units) from lane to lane */
  cpu_map_fn fn;
  x_super_fn super;
  uint32_t splats;     /* I_SUPER: operands that are one element */
  int64_t ahead;       /* I_POINT, walks: bytes from here to what is fetched into the cache meanwhile, 0: nothing */
  uint8_t part, parts; /* of it, so much is fetched here */
  uint8_t from, to;    /* I_MAP, I_SUPER: lines of the block that each of the list's `fetched` fetches here */
} r_inst;

enum { X_FETCHED = 4, X_LINE = 64 };
typedef struct r_list {
  r_inst *inst;
  uint32_t n;
  bool bare;
  uint8_t n_fetched;
  int64_t fetch_ahead;        /* bytes */
  int32_t fetched[X_FETCHED]; /* in work.at: arrays of a map, of which its instructions fetch a later block together */
} r_list;                     /* bare: no registers; blocks may have any length */
typedef struct r_stream {
  int64_t base, lane; /* address of index 0; S_SCRATCH: offset in the thread's scratch area */
  int64_t outer[TERN_MAX_RANK], red[TERN_MAX_RANK]; /* steps of the loops */
  int64_t stride[TERN_MAX_RANK];                    /* by merged dim; walks use it */
  bool walk, tiled, local;                          /* local: base is an offset in the thread's scratch area */
  int64_t tile, tile_lane; /* tiled: its tile's offset in the scratch area; bytes from lane to lane in memory */
} r_stream;

enum { M_MAP, M_FLAT, M_ROW, M_COL };
typedef struct r_nest {
  const x_nest *x;
  const tern_launch *launch;
  const x_plan *plan;
  int mapping;
  uint32_t rank, red_mask; /* after merging */
  int64_t size[TERN_MAX_RANK];
  uint32_t lane_dim, n_outer, n_red;                       /* loops beside the lane dim */
  int64_t outer[TERN_MAX_RANK], red[TERN_MAX_RANK];        /* their sizes */
  int64_t red_index[TERN_MAX_RANK];                        /* step of the row-major reduced index */
  int64_t lanes, chunk, n_chunks, units, width, row_elems; /* row_elems: product of reduced sizes */
  r_list *pass, *phase;
  r_stream *stream;
  char **at;   /* [n_at] pointers of constants and scalars, NULL for the rest */
  bool *splat; /* [n_at] */
  uint32_t n_at, n_inst;
  r_inst *inst;
  bool *written; /* [n_stream] the store has been made direct */
  int64_t split, split_dim,
      piece;    /* SPLIT: number of pieces, red loop (n_red: the lanes), its length a piece; else split = 0 */
  bool streams; /* there is an I_STREAM */
  uint32_t n_flat, flat[TERN_MAX_RANK]; /* lanes over several dims: which, outermost first; 0: one dim */
  uint32_t n_tiled, tile_loop;          /* streams read through tiles, and the outer loop whose rows a tile holds */
  size_t reg_step, reg_bytes, row_slot, row_bytes, scratch_bytes; /* of one register; of one thread */
} r_nest;

/* Bytes of launch scratch that resolving a nest needs */
size_t x_resolve_bytes(const x_nest *);
/* mem: that many bytes, which r points into; ws_off: of nest_workspace */
void x_resolve(const x_plan *, const x_nest *, const tern_launch *, const uint64_t *ws_off, char *mem, r_nest *);
/* Would the kept values fit? Pure arithmetic on sizes */
bool x_scratch_fits(const x_nest *, const tern_word *words);
bool x_only_folds(const x_nest *); /* one pass of loads and reductions */

/* ---- running ---- */

typedef struct work {
  const r_nest *r;
  char **at;
  int64_t *cur, *pos;
  cpu_acc *acc; /* [n_red] */
  char *regs, *row, *scratch;
  int64_t n;                    /* lanes of the unit (COL), or elements */
  int64_t lo;                   /* first lane of the unit */
  int64_t rows;                 /* of the tile loop */
  int64_t index[TERN_MAX_RANK]; /* flat: of the block's first lane, by r->flat */
} work;

size_t x_work_bytes(const r_nest *);
void x_work_init(work *, const r_nest *, char *mem);
void x_acc_place(work *, char *row); /* put the row area there */
void x_unit_place(work *, int64_t unit);
void x_run_unit(work *, int64_t unit);
void x_run_phase(work *, uint32_t phase);
void x_run_pass(work *, uint32_t pass, int64_t piece);
void x_acc_start(work *, uint32_t pass);
void x_acc_finish(work *, uint32_t pass);

/* ---- lanes over several dims (exec_flat.c) ---- */
bool x_flat_map(const r_nest *);  /* is it better for this map nest? */
bool x_flat_fold(const r_nest *); /* and for this one, whose mapping is COL? */
void x_flatten(r_nest *);
int64_t x_flat_width(const r_nest *, int64_t width); /* lanes of a block: at most that many */
void x_flat_place(work *, int64_t lane);             /* a block begins there */
void x_flat_move(const work *, const r_inst *, char *reg, int64_t n);
/* n elements `step` bytes (S_INDEX: units) apart from `start` on, to or from reg as the instruction says */
void x_move_even(const work *, const r_inst *, char *reg, int64_t start, int64_t step, int64_t n);

/* ---- superinstructions (exec_super_run.c) ---- */
void x_super_emit(r_nest *, r_list *, const x_item *);
void x_super_run(const work *, const r_inst *, int64_t n);

/* ---- large arrays (exec_stream.c) ---- */
/* After x_resolve: of a nest that touches more than the caches hold, outputs bypass them, and inputs are fetched
   ahead */
void x_stream_plan(r_nest *);
void x_stream_ahead(const char *p, int64_t bytes, int64_t part, int64_t parts);
void x_stream_out(char *dst, const char *src, int64_t bytes); /* 64-byte aligned both, but for the last bytes */
void x_stream_end(void);

/* ---- moving elements (exec_move.c); strides in bytes ---- */
void x_gather(char *dst, const char *src, int64_t stride, size_t item, int64_t n);
void x_scatter(char *dst, int64_t stride, const char *src, size_t item, int64_t n);
void x_fill(char *dst, int64_t stride, const char *src, size_t item, int64_t n); /* n times the element at src */
void x_spread(char *dst, const char *src, size_t item, int64_t n);               /* n copies of one element */
/* dst[j][i] = src[i][j]; strides of rows in elements; i < rows, j < cols; stream: dst bypasses the cache if it can */
void x_transpose(void *dst, int64_t dst_ld, const void *src, int64_t src_ld, int64_t rows, int64_t cols, size_t item,
                 bool stream);

/* Runs the nest if it is a transposing COPY (exec_transpose.c); false: it is not */
bool x_try_transpose(const r_nest *);
/* Runs the nest if it reduces small windows of float32 (exec_window.c); false: it does not */
bool x_try_window(const r_nest *);
/* Runs the nest if it is a softmax or a normalisation of many rows (exec_rows.c); false: it is not */
bool x_try_rows(const r_nest *, bool *oom);

/* ---- prebound kernels of one node (exec_fast.c); UNSUPPORTED: not of that form ---- */
tern_rc x_fast_compile(const tern_region *, tern_kernel **);
#endif
