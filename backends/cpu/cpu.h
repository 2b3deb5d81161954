/* What the files of the CPU backend share. One kernel type: compile fills in `run`, launch calls it. Everything here is
   compiled once for each instruction set (baseline, AVX2, AVX-512), each into its own shared object. */
#ifndef TERN_CPU_H_
#define TERN_CPU_H_
#include <stdbool.h>
#include <stdlib.h>
#include <tern/backend.h>

struct cpu_touch;
struct tern_kernel {
  tern_rc (*run)(const tern_kernel *, const tern_launch *);
  void (*destroy)(tern_kernel *); /* NULL: free() */
  uint64_t (*workspace)(const tern_kernel *,
                        const tern_word *words); /* bytes, where compile said UINT64_MAX; NULL: none */
  struct cpu_touch *touch; /* what a launch reads and writes (touch.h); NULL: not known. plugin.c's */
};

static inline uint64_t cpu_round64(uint64_t n) { return (n + 63) & ~(uint64_t)63; }
/* Workspace of a kernel that is a part of another one: what its compile said, or what it says of these words */
static inline uint64_t cpu_kernel_bytes(const tern_kernel *k, uint64_t said, const tern_word *words) {
  if (said != UINT64_MAX) return cpu_round64(said);
  return k->workspace ? cpu_round64(k->workspace(k, words)) : 0;
}
static inline void cpu_kernel_free(tern_kernel *k) { /* NULL is allowed */
  if (k && k->destroy)
    k->destroy(k);
  else
    free(k);
}

/* ---- map.c: elementwise instructions ---- */

/* out[i] = op(a[i], b[i], c[i]) for i < n; operands are contiguous and aligned to their item size; an operand named in
   the splat mask of the look-up is one element, read once. out may be the same memory as any operand of the same item
   size, element for element. Shorter inputs (unary) ignore b and c. */
typedef void (*cpu_map_fn)(void *out, const void *a, const void *b, const void *c, int64_t n);
/* NULL: no such instruction. in_dtype: that of the data inputs (of inputs 1 and 2 for WHERE). out_dtype matters for
   CAST. splat: bit i = input i is one element; NULL where that variant does not exist (mask 0 always does). Covers
   every MAP primitive except RNG and IOTA, for every dtype of its set. */
cpu_map_fn cpu_map(uint32_t op, uint32_t in_dtype, uint32_t out_dtype, uint32_t splat);
/* out[i] = word (first + i) % 4 ... of the RNG primitive */
void cpu_rng_u32(uint32_t *out, int64_t first, int64_t n, uint64_t key, uint64_t counter, uint32_t stream);
/* out[i] = start + i * step, as dtype (integers wrap) */
void cpu_iota(void *out, uint32_t dtype, int64_t start, int64_t step, int64_t n);
/* Store a launch word as one element of dtype (PARAM and CONST values) */
void cpu_word_store(void *out, uint32_t dtype, tern_word w);

static inline size_t cpu_item_size(uint32_t dtype) {
  static const uint8_t size[TERN_DTYPE_END] = {0, 1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 2, 4, 8};
  return dtype < TERN_DTYPE_END ? size[dtype] : 0;
}

/* ---- threads.c ---- */

/* Call fn(ctx, lo, hi) over [0, n) in pieces of `grain` (the last may be shorter), from up to cpu_threads() threads.
   Pieces depend on n and grain only, never on the thread count. One launch at a time has the pool: others run on their
   own thread. */
void cpu_parallel(int64_t n, int64_t grain, void (*fn)(void *ctx, int64_t lo, int64_t hi), void *ctx);
int cpu_threads(void);
/* Take / give back the process-wide right to use several threads (for libraries that thread by themselves) */
bool cpu_pool_try(void);
void cpu_pool_done(void);
/* As cpu_parallel, with the pool that the caller has (cpu_pool_try), on this many threads */
void cpu_parallel_held(int threads, int64_t n, int64_t grain, void (*fn)(void *ctx, int64_t lo, int64_t hi), void *ctx);
/* part(context, i) for each i < n on a thread of its own, none with a team of its own; false, having called none:
   somebody has the pool. */
bool cpu_team(int64_t n, void (*part)(void *context, uint32_t i), void *context);
unsigned cpu_pool_refused(void);   /* how often this thread asked and somebody had it */
void cpu_threads_init(int wanted); /* 0 = all */

/* This thread's scratch memory, one block for each user (a launch, what its pieces share, a piece): at least `bytes`,
   aligned to 64, contents undefined, valid until the same user asks again on this thread. NULL when out of memory.
   Grows only, so that a thread allocates at its first launches and never again. */
enum { CPU_SCRATCH_LAUNCH, CPU_SCRATCH_SPLIT, CPU_SCRATCH_PIECE, CPU_SCRATCH_USERS };
void *cpu_scratch(int user, size_t bytes);
void cpu_scratch_fini(void); /* before the plugin is unloaded */

/* ---- score.c: fitness of this build for the machine, 0 = unusable ---- */
int cpu_score(void);

/* ---- host services, set at init ---- */
tern_rc cpu_error(tern_rc code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- compilers: each answers UNSUPPORTED for a region that is not its own. supports() must be pure ---- */
tern_rc cpu_nest_supports(const tern_region *); /* MAP and REDUCE regions of any number of nodes (exec*.c) */
tern_rc cpu_nest_compile(const tern_region *, tern_kernel **, tern_kernel_info *);
tern_rc cpu_dot_supports(const tern_region *); /* DOT (dot.c) */
tern_rc cpu_dot_compile(const tern_region *, tern_kernel **, tern_kernel_info *);
tern_rc cpu_conv_supports(const tern_region *); /* CONV, CONV_DX, CONV_DW (conv*.c) */
tern_rc cpu_conv_compile(const tern_region *, tern_kernel **, tern_kernel_info *);
tern_rc cpu_window_supports(const tern_region *); /* CONV and a nest that sees its result through windows
                                                     (conv_window.c) */
tern_rc cpu_window_compile(const tern_region *, tern_kernel **, tern_kernel_info *);
tern_rc cpu_index_supports(const tern_region *); /* GATHER, SORT, ARGSORT, SCATTER (index.c, sort.c, scatter.c) */
tern_rc cpu_index_compile(const tern_region *, tern_kernel **, tern_kernel_info *);
tern_rc cpu_scan_supports(const tern_region *); /* CUMSUM .. CUMMIN (scan.c) */
tern_rc cpu_scan_compile(const tern_region *, tern_kernel **, tern_kernel_info *);

static inline char *cpu_arg(const tern_launch *l, uint32_t slot) {
  return (char *)l->args[slot].mem + l->args[slot].offset;
}
#endif
