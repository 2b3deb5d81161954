/* Renderer: a region of MAP / REDUCE nodes (through its nests) as kernel source text, and what to launch. One renderer, a table of
   words for each dialect (OpenCL C 1.2; CUDA C++). Depends on tern/backend.h alone.

   Use: at compile time, `render_build(region, device, name, &program, ...)`; the text to build is
   render_prelude(device, sources, n) followed by the sources, program->source of each (several programs may follow one prelude:
   their kernel names begin with `name`, which must differ). At launch, `render_bind` answers which kernels to enqueue, in order, with every argument's bytes: no
   allocation, no compilation for a new size. Kernels of one launch depend on each other: run them in order.
   OpenCL build options: "-cl-std=CL1.2", and "-cl-fp32-correctly-rounded-divide-sqrt" where the device has it; never
   relaxed maths. */
#ifndef TERN_RENDER_H_
#define TERN_RENDER_H_
#include <stdbool.h>
#include <tern/backend.h>

enum { RENDER_OPENCL = 1, RENDER_CUDA };

typedef struct render_device {
  uint32_t dialect;
  bool cpu_like; /* a work-item loops over long runs; false: a work-group shares a row, items take neighbours */
  bool fma;      /* multiplies and adds in one step, and fast */
  bool fp64;     /* without it: float64 is UNSUPPORTED, float32 sums are compensated */
  bool fp16;     /* not needed: float16 goes through 16-bit integers and float32 everywhere */
  uint32_t
      group; /* work-group size (threads a block) of the group-shared kernels; a power of two, <= the device's limit;
                          cpu_like: not used, every local size is 1 */
  uint32_t units;         /* compute units; 0 = 1 */
  uint64_t local_mem;     /* bytes of local memory a work-group; 0 = 16 KiB */
  uint32_t max_arg_bytes; /* bytes of kernel arguments (CL_DEVICE_MAX_PARAMETER_SIZE); 0 = 1024 */
  bool subgroups; /* cl_khr_subgroup_shuffle_relative or cl_intel_subgroups: lanes of a group hand values on directly */
  bool task; /* FPGAs: a kernel is one work-item that loops over the whole range, given as an argument; not with cpu_like */
  bool fixed_group; /* every kernel says its work-group size (reqd_work_group_size); task: always */
} render_device;

typedef struct render_kernel {
  const char *name;
  uint32_t n_args;
} render_kernel;

enum { RENDER_ARG = 1, RENDER_WORKSPACE, RENDER_BYTES };
typedef struct render_actual { /* one kernel argument of one launch, in the order of the kernel's parameters */
  uint32_t kind; /* RENDER_ARG: the buffer of launch->args[slot]; RENDER_WORKSPACE: the buffer of launch->workspace;
                    RENDER_BYTES: `size` bytes of `value`. Byte offsets of the buffers are among the BYTES */
  uint32_t slot, size;
  union {
    int32_t i32;
    int64_t i64;
    float f32;
    double f64;
    uint64_t u64;
    unsigned char bytes[8];
  } value;
} render_actual;

typedef struct render_call {
  uint32_t kernel;        /* index in program->kernels */
  uint32_t n_args, first; /* actuals[first .. first + n_args) */
  uint64_t global;        /* work-items, a multiple of local */
  uint32_t local;         /* always the same for one kernel */
} render_call;

typedef struct render_program { /* immutable after render_build; free with render_free */
  const char *source;
  const render_kernel *kernels;
  uint32_t n_kernels;
  uint32_t max_calls, max_actuals; /* room that render_bind needs at most */
  bool fixed_workspace; /* the workspace does not depend on the words (render_workspace accepts NULL words) */
} render_program;

/* UNSUPPORTED: not MAP / REDUCE, a dtype that the device lacks, too many arguments. message (may be NULL) says why.
   Keeps no pointer into region or device. */
tern_rc render_build(const tern_region *, const render_device *, const char *name, render_program **, char *message,
                     size_t message_size);
void render_free(render_program *);
/* Bytes of workspace for these words */
uint64_t render_workspace(const render_program *, const tern_word *words);
/* calls: [max_calls], actuals: [max_actuals], the caller's. Returns OK and *n_calls, or UNSUPPORTED when TERN_R_IDX32
   was promised but an iteration count does not fit int32. Many threads may call it at once. */
tern_rc render_bind(const render_program *, const tern_launch *, render_call *calls, uint32_t *n_calls,
                    render_actual *actuals);

/* The words of the dialect and those helper functions that the sources name: text in a malloc'ed block that the caller
   frees; NULL when out of memory */
char *render_prelude(const render_device *, const char *const *sources, uint32_t n_sources);

/* ---- epilogues: the MAP nodes behind a DOT or CONV, for kernels that make its result ---- */

/* Text of functions that a kernel calls where it would store element (i0, i1, ..) of the product:
     void epilogue(ARGS i0, i1, .., x)      x: the product, rounded to its dtype
     void epilogue_v(ARGS i0, i1, .., x)    with `vector` only: float16 x, sixteen elements from that one on along dim `lanes`
   They load the other operands and store all OUTs. An element's loads come before its stores. */
typedef struct render_epilogue { /* immutable; free with render_epilogue_free */
  const char *source;
  const char *params;  /* ", GLOBAL uchar *e_A2, const long e_O2, ..": for the end of the kernel's parameters */
  const char *args;    /* "e_A2, e_O2, .., ": what a call begins with */
  const char *setup;   /* statements for the kernel's begin: what is computed of numbers only */
  uint32_t n_params, n_bytes;
  uint32_t node;       /* the DOT or CONV */
  uint32_t n_full;     /* arrays of the result's shape that are read or written */
  bool vector, in_place; /* in_place: an OUT lies over an operand of the product, which must be complete before */
} render_epilogue;
/* UNSUPPORTED: not one node of a kind other than MAP and REDUCE, which has one result, with MAP nodes that lead to OUTs
   of its result's shape; or the like of render_build. */
tern_rc render_epilogue_build(const tern_region *, const render_device *, uint32_t lanes, render_epilogue **);
void render_epilogue_free(render_epilogue *);
/* actuals: [n_params] */
void render_epilogue_bind(const render_epilogue *, const tern_launch *, render_actual *actuals);

/* Part of any disk-cache key: rendered sources may change whenever this number does */
#define RENDER_VERSION 5u
#endif
