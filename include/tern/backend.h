/* tern plugin ABI: everything that a backend sees. Standalone: C11 or C++17, includes no other tern header, and a plugin
   imports no symbol from the core. A plugin is a shared object `libtern-NAME.so` that exports one function,
   tern_plugin_query. docs/plugins.md walks through it; plugins/template is the smallest one.

   Version 0.x: may still change between minors. From 1.0 on: append only, never renumber. */
#ifndef TERN_BACKEND_H_
#define TERN_BACKEND_H_
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#define TERN_SA static_assert
#else
#define TERN_SA _Static_assert
#endif
#define TERN_ABI_MAJOR 0u
#define TERN_ABI_MINOR 5u
#define TERN_ABI ((TERN_ABI_MAJOR << 16) | TERN_ABI_MINOR)
#define TERN_MAX_RANK 8

/* Status of every call: 0 or one of these. Treat an unknown negative as INTERNAL. The core and the plugins share it. */
typedef int32_t tern_rc;
enum {
  TERN_OK = 0,
  TERN_E_UNSUPPORTED = -1, /* not by this device or build; somebody else may */
  TERN_E_OOM = -2,         /* memory, host or device */
  TERN_E_ARG = -3,         /* the caller's mistake */
  TERN_E_LOST = -4,        /* the device is gone; device_open gives a fresh one */
  TERN_E_TIMEOUT = -5,
  TERN_E_INTERNAL = -6,
  TERN_E_END = -7,         /* past the last item */
  TERN_E_IO = -8           /* a file cannot be read or written, or its content is wrong */
};

/* Element types. Numbers are for ever. A backend answers UNSUPPORTED to any it does not know. BOOL is one byte, 0 or
   1. */
typedef enum tern_dtype {
  TERN_NO_DTYPE = 0, TERN_BOOL = 1, TERN_I8, TERN_I16, TERN_I32, TERN_I64, TERN_U8, TERN_U16, TERN_U32, TERN_U64,
  TERN_F16, TERN_BF16, TERN_F32, TERN_F64, TERN_DTYPE_END
} tern_dtype;

/* Primitives: X(NAME, number, inputs, kind, dtypes). kind: how shapes relate (TERN_K_*). dtypes: which the input may
   have (TERN_D_*). Arithmetic is the same on every backend: integer overflow wraps, integer division and remainder by
   zero give 0, INT_MIN / -1 wraps, shifts by the width or more (or by a negative count) give 0 (-1 for an arithmetic
   right shift of a negative), float to int saturates and NaN gives 0, MAXIMUM / MINIMUM / AMAX / AMIN propagate NaN,
   float16 and bfloat16 compute in float32 and round once a node. */
#define TERN_PRIMS(X)                                                                                               \
  /* --- MAP, one input: out has the input's dtype unless said otherwise --- */                                     \
  X(COPY, 1, 1, MAP, ANY)        /* identity; fills too, when the input is CONST or PARAM */                        \
  X(CAST, 2, 1, MAP, ANY)        /* out: any dtype. To BOOL: x != 0 */                                              \
  X(NEG, 3, 1, MAP, NUM)                                                                                            \
  X(EXP, 4, 1, MAP, FLOAT)                                                                                          \
  X(SQRT, 5, 1, MAP, FLOAT)                                                                                         \
  X(ABS, 6, 1, MAP, NUM)                                                                                            \
  X(SIGN, 7, 1, MAP, NUM)        /* -1, 0, 1; NaN gives NaN */                                                      \
  X(RSQRT, 8, 1, MAP, FLOAT)                                                                                        \
  X(RECIPROCAL, 9, 1, MAP, FLOAT)                                                                                   \
  X(EXP2, 10, 1, MAP, FLOAT)                                                                                        \
  X(EXPM1, 11, 1, MAP, FLOAT)                                                                                       \
  X(LOG, 12, 1, MAP, FLOAT)                                                                                         \
  X(LOG2, 13, 1, MAP, FLOAT)                                                                                        \
  X(LOG10, 14, 1, MAP, FLOAT)                                                                                       \
  X(LOG1P, 15, 1, MAP, FLOAT)                                                                                       \
  X(CBRT, 16, 1, MAP, FLOAT)                                                                                        \
  X(SIN, 17, 1, MAP, FLOAT)                                                                                         \
  X(COS, 18, 1, MAP, FLOAT)                                                                                         \
  X(TAN, 19, 1, MAP, FLOAT)                                                                                         \
  X(ASIN, 20, 1, MAP, FLOAT)                                                                                        \
  X(ACOS, 21, 1, MAP, FLOAT)                                                                                        \
  X(ATAN, 22, 1, MAP, FLOAT)                                                                                        \
  X(SINH, 23, 1, MAP, FLOAT)                                                                                        \
  X(COSH, 24, 1, MAP, FLOAT)                                                                                        \
  X(TANH, 25, 1, MAP, FLOAT)                                                                                        \
  X(ASINH, 26, 1, MAP, FLOAT)                                                                                       \
  X(ACOSH, 27, 1, MAP, FLOAT)                                                                                       \
  X(ATANH, 28, 1, MAP, FLOAT)                                                                                       \
  X(ERF, 29, 1, MAP, FLOAT)                                                                                         \
  X(ERFC, 30, 1, MAP, FLOAT)                                                                                        \
  X(ERFINV, 31, 1, MAP, FLOAT)                                                                                      \
  X(SINPI, 32, 1, MAP, FLOAT)    /* sin(pi x), exact at multiples of 1/2 */                                         \
  X(COSPI, 33, 1, MAP, FLOAT)                                                                                       \
  X(FLOOR, 34, 1, MAP, FLOAT)                                                                                       \
  X(CEIL, 35, 1, MAP, FLOAT)                                                                                        \
  X(ROUND, 36, 1, MAP, FLOAT)    /* halves to even */                                                               \
  X(TRUNC, 37, 1, MAP, FLOAT)                                                                                       \
  X(NOT, 38, 1, MAP, BOOLINT)    /* bitwise; logical on BOOL */                                                     \
  X(ISNAN, 39, 1, MAP, FLOAT)    /* out: BOOL */                                                                    \
  X(ISINF, 40, 1, MAP, FLOAT)    /* out: BOOL */                                                                    \
  X(ISFINITE, 41, 1, MAP, FLOAT) /* out: BOOL */                                                                    \
  X(SIGNBIT, 42, 1, MAP, FLOAT)  /* out: BOOL */                                                                    \
  /* --- MAP, two inputs of one dtype --- */                                                                        \
  X(ADD, 100, 2, MAP, NUM)                                                                                          \
  X(SUB, 101, 2, MAP, NUM)                                                                                          \
  X(MUL, 102, 2, MAP, NUM)                                                                                          \
  X(DIV, 103, 2, MAP, FLOAT)                                                                                        \
  X(MAXIMUM, 104, 2, MAP, ANY)                                                                                      \
  X(MINIMUM, 105, 2, MAP, ANY)                                                                                      \
  X(POW, 106, 2, MAP, NUM)       /* integers: by squaring, wrapping; a negative exponent gives 0 (1 for 1, +-1 for -1) */ \
  X(FLOORDIV, 107, 2, MAP, NUM)  /* floor of the exact quotient; an infinite a gives NaN unless b is 0, as NumPy */                                          \
  X(MOD, 108, 2, MAP, NUM)       /* a - b * floor(a / b): the sign of b (numpy.remainder) */                        \
  X(FMOD, 109, 2, MAP, NUM)      /* the sign of a (C fmod) */                                                       \
  X(ATAN2, 110, 2, MAP, FLOAT)                                                                                      \
  X(HYPOT, 111, 2, MAP, FLOAT)                                                                                      \
  X(COPYSIGN, 112, 2, MAP, FLOAT)                                                                                   \
  X(NEXTAFTER, 113, 2, MAP, F32UP) /* in the dtype's own spacing; float32 and float64 only */                       \
  X(AND, 114, 2, MAP, BOOLINT)                                                                                      \
  X(OR, 115, 2, MAP, BOOLINT)                                                                                       \
  X(XOR, 116, 2, MAP, BOOLINT)                                                                                      \
  X(SHL, 117, 2, MAP, INT)                                                                                          \
  X(SHR, 118, 2, MAP, INT)       /* arithmetic on signed dtypes */                                                  \
  X(EQ, 120, 2, MAP, ANY)        /* EQ .. GE: out BOOL */                                                           \
  X(NE, 121, 2, MAP, ANY)                                                                                           \
  X(LT, 122, 2, MAP, ANY)                                                                                           \
  X(LE, 123, 2, MAP, ANY)                                                                                           \
  X(GT, 124, 2, MAP, ANY)                                                                                           \
  X(GE, 125, 2, MAP, ANY)                                                                                           \
  /* --- MAP, three inputs --- */                                                                                   \
  X(WHERE, 200, 3, MAP, ANY)     /* BOOL condition, then two of the output's dtype */                               \
  /* --- REDUCE: attr0 = bit mask of the reduced dims, kept as literal 1 --- */                                     \
  X(SUM, 300, 1, REDUCE, NUM)    /* float16, bfloat16, float32 accumulate in at least float32, pairwise or better */ \
  X(AMAX, 301, 1, REDUCE, ANY)                                                                                      \
  X(AMIN, 302, 1, REDUCE, ANY)                                                                                      \
  X(PROD, 303, 1, REDUCE, NUM)                                                                                      \
  X(ANY, 304, 1, REDUCE, BOOL)                                                                                      \
  X(ALL, 305, 1, REDUCE, BOOL)                                                                                      \
  X(ARGMAX, 306, 1, REDUCE, ANY) /* out: I64, row-major index within the reduced dims; first of equals; the first NaN wins */ \
  X(ARGMIN, 307, 1, REDUCE, ANY)                                                                                    \
  /* --- SCAN: attr0 = the dim, attr1 = flags: 1 exclusive, 2 from the end --- */                                   \
  X(CUMSUM, 320, 1, SCAN, NUM)                                                                                      \
  X(CUMPROD, 321, 1, SCAN, NUM)                                                                                     \
  X(CUMMAX, 322, 1, SCAN, ANY)   /* exclusive is never asked of these two */                                        \
  X(CUMMIN, 323, 1, SCAN, ANY)                                                                                      \
  /* --- DOT: a [batch.., M, K], b [batch.., K, N], out [batch.., M, N]; a batch dim of an input may be a literal 1.    \
     Innermost-stride literals cover the last two dims. I8/U8 inputs may have an I32 out. --- */                    \
  X(DOT, 400, 2, DOT, NUM)                                                                                          \
  /* --- CONV: n = attr0 spatial dims, 1 or 2; x [N, C, I..], w [O, C/G, K..], y [N, O, J..]; attr1 = groups G, then for each spatial  \
     dim stride, dilation, pad before. y[n,o,j] = sum over c, k of x[n, g C/G + c, j stride + k dilation - pad] w[o,c,k], g = o / (O/G); \
     x counts as 0 outside. Any strides (NHWC is a permuted view). float16, bfloat16, float32 accumulate in at least float32 --- */ \
  X(CONV, 420, 2, CONV, FLOAT)    /* x, w: y */                                                                     \
  X(CONV_DX, 421, 2, CONV, FLOAT) /* y, w: x, its gradient with respect to x; also the transposed convolution */    \
  X(CONV_DW, 422, 2, CONV, FLOAT) /* x, y: w, its gradient with respect to w */                                     \
  /* --- data movement with indices --- */                                                                          \
  X(GATHER, 500, 2, GATHER, ANY) /* data [O, A, I], index [J] of I32 or I64, out [O, J, I]; negative counts from the end */ \
  X(SORT, 501, 1, SORT, ANY)     /* [O, A]: stable along the last dim; NaN last; attr0: 1 = descending (NaN first) */ \
  X(ARGSORT, 502, 1, SORT, ANY)  /* out: I64 */                                                                     \
  X(SCATTER, 510, 3, SCATTER, ANY) /* base [O, A, I] (or a rank-0 CONST or PARAM), index [J] of I32 or I64, src [O, J, I]; out [O, A, I] = \
     base, then for j ascending out[o, index[j], i] is attr0 0: += (not BOOL), 1: =, 2: max=, 3: min= src[o, j, i]. Negative counts from   \
     the end; out of range is dropped (and reported as GATHER does). The order of j is kept: the same bits in every run. out may  \
     be the same memory as base (then out's alias says so) */                                                           \
  /* --- no tensor inputs --- */                                                                                    \
  X(RNG, 600, 2, MAP, U64)       /* in: key, counter (rank-0 U64 PARAMs); attr0 = stream s. out U32: element i (row-major) is    \
     word i % 4 of Philox4x32-10 with counter {lo32(counter + i/4), hi32(counter + i/4), s, 0} and key {lo32(key), hi32(key)} */ \
  X(IOTA, 601, 0, MAP, ANY)      /* out: the index along dim attr0, as out's dtype */

enum { TERN_K_MAP = 1, TERN_K_REDUCE, TERN_K_SCAN, TERN_K_DOT, TERN_K_GATHER, TERN_K_SORT, TERN_K_CONV, TERN_K_SCATTER };
enum { /* dtype sets, bit d = dtype d */
  TERN_D_BOOL = 1 << TERN_BOOL,
  TERN_D_SINT = 1 << TERN_I8 | 1 << TERN_I16 | 1 << TERN_I32 | 1 << TERN_I64,
  TERN_D_UINT = 1 << TERN_U8 | 1 << TERN_U16 | 1 << TERN_U32 | 1 << TERN_U64,
  TERN_D_INT = TERN_D_SINT | TERN_D_UINT,
  TERN_D_F32UP = 1 << TERN_F32 | 1 << TERN_F64,
  TERN_D_FLOAT = TERN_D_F32UP | 1 << TERN_F16 | 1 << TERN_BF16,
  TERN_D_U64 = 1 << TERN_U64,
  TERN_D_NUM = TERN_D_INT | TERN_D_FLOAT,
  TERN_D_BOOLINT = TERN_D_BOOL | TERN_D_INT,
  TERN_D_ANY = TERN_D_BOOL | TERN_D_NUM
};
enum tern_prim {
#define TERN_X(name, num, n, kind, dtypes) TERN_OP_##name = num,
  TERN_PRIMS(TERN_X)
#undef TERN_X
  TERN_OP_END_ = 0x7fff
};

typedef struct tern_drv tern_drv; /* handles: the plugin's own types, never looked into by the core */
typedef struct tern_dev tern_dev;
typedef struct tern_mem tern_mem;
typedef struct tern_queue tern_queue;
typedef struct tern_kernel tern_kernel;
typedef struct tern_program tern_program;

/* Extension chain: large optional features. Unknown types are skipped. */
enum { TERN_EXT_OPTIONS = 1 };
typedef struct tern_ext { uint32_t type, size; const struct tern_ext *next; } tern_ext;
/* TERN_EXT_OPTIONS: the plugin's settings, read with host->option("key"), set by TERN_<PLUGIN>_<KEY>; listed by
   tern-info */
typedef struct tern_option { const char *key, *value /* default, may be NULL */, *doc; } tern_option;
typedef struct tern_ext_options { tern_ext ext; uint32_t n; const tern_option *options; } tern_ext_options;

/* ---- FROZEN per major: these travel in arrays ---- */
typedef union tern_word { int64_t i; uint64_t u; double f; } tern_word; /* f for every float dtype, i for signed ints, u for unsigned/bool */

/* A size, stride or offset is a literal, or TERN_SYM(i): "launch word i". Equal symbols are equal sizes. */
#define TERN_SYM(i) (INT64_MIN + (int64_t)(i))
#define TERN_IS_SYM(x) ((x) < INT64_MIN + 65536)
#define TERN_SYM_ID(x) ((uint32_t)((uint64_t)(x) - (uint64_t)INT64_MIN))
#define TERN_LIT(x, words) (TERN_IS_SYM(x) ? (words)[TERN_SYM_ID(x)].i : (x))

enum {
  TERN_V_IN = 1, TERN_V_OUT, /* tern_launch.args[slot] */
  TERN_V_TEMP,               /* lives inside the region only; strides mean nothing */
  TERN_V_CONST,              /* rank 0, value in imm */
  TERN_V_PARAM,              /* rank 0, value in launch word `slot`, already of the value's dtype (learning rate, seed) */
  TERN_V_VIEW,               /* shape/stride/offset over value `slot` (a TEMP counts as dense row-major) */
  TERN_V_SIZE                /* rank 0: product of shape[d] of value `slot` over the bits d of imm.u, as dtype */
};
typedef struct tern_value {
  uint16_t dtype, rank;
  uint8_t kind, pad[3];
  uint32_t slot;
  int32_t alias;  /* OUT of a MAP region or a SCATTER: number of the IN argument that is the same memory in the same layout (in place), else -1 */
  tern_word imm;
  int64_t offset; /* VIEW only, in elements */
  int64_t shape[TERN_MAX_RANK];  /* >= 1 at launch: the core never sends empty work. A literal 1 broadcasts (its stride is 0) */
  int64_t stride[TERN_MAX_RANK]; /* in elements, may be negative; 0 (literal or word) = broadcast */
  uint64_t layout;               /* 0 = strided; else a packed layout that this backend asked for */
  uint64_t reserved[2];
} tern_value;
typedef struct tern_node { /* nodes are in topological order */
  uint32_t op, n_in, n_out, n_attr;
  uint32_t in, out, attr, pad; /* in/out: first index in region.edges; attr: first index in region.attrs */
} tern_node;
typedef struct tern_arg { tern_mem *mem; uint64_t offset; } tern_arg; /* byte offset, a multiple of the item size */
typedef struct tern_launch { /* hot: frozen, so that nobody checks its size. Everything is the caller's, valid during the call only */
  const tern_arg *args;
  const tern_word *words;
  uint32_t n_args, n_words;
  tern_arg workspace;
  uint64_t reserved[2];
} tern_launch;

/* ---- Growable: by pointer, one at a time, struct_size first. The core passes each in a zeroed block of at least 1 KiB
   and reads a plugin's table through a zeroed copy, so an older or newer partner reads zeros, never past the end
   ---- */
enum {
  TERN_R_IDX32 = 1, /* every element offset fits int32 */
  TERN_R_DETERMINISTIC = 2
};
typedef struct tern_span { uint32_t op, first, n, in, out; } tern_span; /* nodes [first, first+n) came from this composite */
/* What a backend compiles: an SSA program over tensors, for a whole class of sizes. All values of one connected MAP /
   REDUCE component have one rank and broadcast by literal 1. Within a MAP node all non-CAST inputs have one dtype. In
   `a + a` the two inputs are one argument. Argument numbers are dense, 0 .. n_args-1, inputs and outputs mixed as
   `slot` says. */
typedef struct tern_region {
  uint32_t struct_size, flags, n_nodes, n_values, n_args, n_words;
  const tern_node *nodes;
  const tern_value *values;
  const uint32_t *edges;
  const tern_word *attrs;
  uint64_t key[2];  /* stable across runs and machines: safe as a disk-cache key */
  const char *hint; /* composite's name ("softmax") or NULL; args are in the composite's order */
  const tern_word *hint_attrs;
  uint32_t n_hint_attrs, n_spans;
  const tern_span *spans;
} tern_region;
typedef struct tern_kernel_info { /* compile fills it */
  uint32_t struct_size, flags;
  uint64_t workspace; /* bytes; UINT64_MAX = depends on the words: ask workspace() */
  uint64_t *layout, *layout_bytes; /* the core's zeroed arrays, one entry an argument: packed layout wanted (static regions
                                      only), 0 = as given. Pack / unpack = a COPY region between layouts */
} tern_kernel_info;
enum {
  TERN_DEV_HOST_MEM = 1,     /* mem_map is free, permanent and coherent */
  TERN_DEV_ASYNC = 2,        /* has queues. Without it queue is NULL, every call is complete on return and
                                launch/copy/fill may run in many threads at once */
  TERN_DEV_STATIC_ONLY = 4,  /* only literal sizes (a bundle, an FPGA) */
  TERN_DEV_WORD_STRIDES = 8, /* takes innermost strides as words too (default: 0 and 1 are literals at every rank) */
  TERN_DEV_IMPORT_HOST = 16, /* mem_alloc accepts host_ptr */
  TERN_DEV_HIDDEN = 32       /* an emulator or checker: no number of its own, reached by name or id only */
};
enum { TERN_KIND_CPU = 1, TERN_KIND_GPU, TERN_KIND_ACCELERATOR, TERN_KIND_OTHER, TERN_KIND_FPGA };
typedef struct tern_device_info {
  uint32_t struct_size, kind; /* TERN_KIND_* */
  uint64_t flags;
  char name[64] /* short, for aliases: "pocl" */, desc[128] /* for people */, id[48] /* stable across runs */;
  uint64_t mem_total, mem_free, max_alloc; /* bytes; 0 = unknown */
  uint32_t mem_align, max_queues, max_args, max_nodes; /* 0 = no limit */
  uint32_t dtypes;       /* bit d: the device computes dtype d. 0 = ask supports() */
  char features[256];    /* for people: "fp64 fp16 svm". One that begins "refused: " goes on to say why the device is
                            listed but cannot be used */
  /* declared costs, for placement; 0 = unknown, the core measures */
  uint64_t flops;          /* float32 multiplications and additions a second of a large DOT */
  uint64_t bandwidth;      /* bytes a second to and from the device's own memory */
  uint64_t launch_ns;      /* of an empty kernel */
  uint64_t link_bandwidth, link_ns; /* to and from host memory: bytes a second, and the latency of one transfer */
  uint32_t max_epilogue, team;      /* max_epilogue: maps behind a DOT or CONV in one launch: arrays of the result's size that they may
                                       read and write beside it; those with more are launched by themselves. 0 = no limit.
                                       team: threads that the call team has at most; 0 = none */
} tern_device_info;
typedef struct tern_mem_desc { /* host_ptr / handle: import instead of allocate; flags name the kind */
  uint32_t struct_size, flags;
  uint64_t size, align;
  void *host_ptr;
  uint64_t handle;
} tern_mem_desc;
typedef struct tern_copy { /* one of (src, host_src), one of (dst, host_dst); src_dev when not dev */
  uint32_t struct_size, flags;
  tern_mem *dst, *src;
  tern_dev *src_dev;
  void *host_dst;
  const void *host_src;
  uint64_t dst_off, src_off, size;
} tern_copy;
typedef struct tern_host { /* lives as long as the plugin */
  uint32_t struct_size, abi;
  void *ctx;
  tern_rc (*error)(void *ctx, tern_rc code, const char *msg); /* returns code; only inside a call from the core, on its thread */
  void (*log)(void *ctx, int level, const char *msg);         /* any thread; level: 0 error, 1 warn, 2 info, 3 debug */
  const char *(*option)(void *ctx, const char *key);          /* NULL when unset; valid as long as the plugin. Core-wide keys:
                                                                 "num_threads", "cache_dir" */
} tern_host;

/* NULL is allowed where [opt]. Any thread may call; calls on one queue never overlap. */
typedef struct tern_backend {
  uint32_t struct_size, abi;
  const char *name, *version;
  uint64_t flags; /* none defined */
  const tern_ext *ext;
  int (*score)(void);                                                 /* [opt] 0 = unusable on this machine; runs on a baseline CPU; no score = 1 */
  tern_rc (*init)(const tern_host *, tern_drv **);                    /* first use of the driver; no devices is OK */
  void (*fini)(tern_drv *);                                           /* [opt] never at process exit */
  tern_rc (*device_info)(tern_drv *, uint32_t i, tern_device_info *); /* E_END past the last */
  tern_rc (*device_open)(tern_drv *, uint32_t i, tern_dev **);        /* again after E_LOST: a fresh handle */
  void (*device_close)(tern_dev *);                                   /* after every mem, queue, kernel of it is freed */
  tern_rc (*mem_alloc)(tern_dev *, const tern_mem_desc *, tern_mem **); /* large blocks; the core pools */
  void (*mem_free)(tern_dev *, tern_mem *);                           /* no work in flight uses it; must work after E_LOST */
  tern_rc (*mem_map)(tern_dev *, tern_mem *, uint64_t off, uint64_t size, uint32_t rw, void **); /* [opt] */
  tern_rc (*mem_unmap)(tern_dev *, tern_mem *, void *);               /* [opt] */
  tern_rc (*queue_open)(tern_dev *, uint32_t flags, tern_queue **);   /* this block [opt]: only with DEV_ASYNC */
  void (*queue_close)(tern_dev *, tern_queue *);
  tern_rc (*queue_signal)(tern_dev *, tern_queue *, uint64_t *ticket); /* flushes; ticket covers all before it; called when
                                                                          somebody must wait, not per launch */
  tern_rc (*queue_wait)(tern_dev *, tern_queue *, tern_queue *other, uint64_t ticket); /* UNSUPPORTED: the core waits on the host */
  tern_rc (*queue_sync)(tern_dev *, tern_queue *, uint64_t ticket, uint64_t timeout_ns); /* 0 = poll, UINT64_MAX = for ever. Reports
                                                                          errors of work up to ticket; a failed queue stays failed */
  tern_rc (*copy)(tern_dev *, tern_queue *, const tern_copy *);       /* host_src is consumed on return; host_dst filled by its ticket */
  tern_rc (*fill)(tern_dev *, tern_queue *, tern_mem *, uint64_t off, uint64_t size, const void *pat, uint32_t pat_size); /* [opt] */
  tern_rc (*supports)(tern_dev *, const tern_region *, uint32_t *want_static); /* pure, binding for every size; sets
                                                                          *want_static = 1: "send me literal sizes" */
  tern_rc (*compile)(tern_dev *, const tern_region *, tern_kernel **, tern_kernel_info *); /* keep no pointer into region */
  tern_rc (*workspace)(tern_dev *, const tern_kernel *, const tern_word *words, uint64_t *bytes); /* [opt] */
  tern_rc (*launch)(tern_dev *, tern_queue *, const tern_kernel *, const tern_launch *); /* no allocation, no wait */
  void (*kernel_free)(tern_dev *, tern_kernel *);
  tern_rc (*cost)(tern_dev *, const tern_region *, const tern_word *words, uint64_t *ns); /* [opt] */
  /* [opt] replay: between begin and end, launch/copy/fill on this queue (without queues: of the calling thread) are
     recorded, not run. program_run without queues may give UNSUPPORTED, having run nothing: launch one by one, and do
     not ask for this program again */
  tern_rc (*program_begin)(tern_dev *, tern_queue *);
  tern_rc (*program_end)(tern_dev *, tern_queue *, tern_program **);
  tern_rc (*program_update)(tern_dev *, tern_program *, uint32_t nth_launch, const tern_launch *); /* new args/words; UNSUPPORTED: re-record */
  tern_rc (*program_run)(tern_dev *, tern_queue *, const tern_program *);
  void (*program_free)(tern_dev *, tern_program *);
  tern_rc (*ready)(tern_dev *, const tern_kernel *);                  /* [opt] does what compile left for the first launch (a build), which
                                                                          may take long; called before that by whoever wants it, with no
                                                                          queue held, in any threads. A failure is launch's to report */
  tern_rc (*team)(tern_dev *, uint32_t n, void (*part)(void *context, uint32_t i), void *context); /* [opt] devices without queues:
                                                                          part(context, i) for each i below n, once, side by side on the
                                                                          device's own threads; what a part launches runs on its thread
                                                                          alone. Returns when all are done. UNSUPPORTED, having called
                                                                          none: the threads are busy */
} tern_backend;

#define TERN_EXPORT __attribute__((visibility("default")))
/* The one exported symbol; cheap, no driver is touched. NULL = cannot serve this host_abi. */
TERN_EXPORT const tern_backend *tern_plugin_query(uint32_t host_abi);

TERN_SA(sizeof(tern_word) == 8 && sizeof(tern_arg) == 16 && sizeof(tern_node) == 32, "frozen");
TERN_SA(sizeof(tern_value) == 184, "frozen");
TERN_SA(offsetof(tern_value, shape) == 32 && offsetof(tern_value, layout) == 160, "frozen");
TERN_SA(sizeof(tern_launch) == 56, "frozen");
#ifdef __cplusplus
}
#endif
#endif
