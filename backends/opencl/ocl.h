/* What the files of the OpenCL backend share: the driver (all devices of the loader), an open device, queues with
   tickets, programs with their disk cache, and the two calls through which every kernel is launched. */
#ifndef TERN_OCL_H_
#define TERN_OCL_H_
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <CL/cl_ext.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <tern/backend.h>

/* ---- platform.c: the devices ---- */

typedef struct ocl_id { /* one device of one platform, as enumerated; lives as long as the driver */
  cl_platform_id platform;
  cl_device_id device;
  cl_device_type type;
  uint32_t order, index; /* place of the kind in the numbering; number within its platform */
  char alias[64], platform_name[128], name[128];
  char versions[1024]; /* platform, device and driver versions: part of the cache key */
  bool hidden, fpga, compiler, fp64, int64, fp16, unified;
  cl_ulong mem_total, max_alloc, local_mem;
  size_t max_group, param_size;
  cl_uint align, units, float_width;
} ocl_id;

struct tern_drv {
  const tern_host *host;
  ocl_id *ids;
  uint32_t n_ids;
  char *cache_dir;    /* NULL: no disk cache */
  char *cpu_features; /* part of the cache key of CPU devices; never NULL */
  atomic_bool cache_warned;
};

tern_rc ocl_enumerate(tern_drv *drv);
tern_rc ocl_device_info(tern_drv *drv, uint32_t i, tern_device_info *info);
bool ocl_is_cpu(const ocl_id *id); /* few wide cores, no use for local memory */

/* ---- plugin.c: host services ---- */

/* Report "opencl:ALIAS: text" (id may be NULL) to the host; returns rc. */
tern_rc ocl_error(const tern_drv *drv, const ocl_id *id, tern_rc rc, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void ocl_log(const tern_drv *drv, int level, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
const char *ocl_option(const tern_drv *drv, const char *key, const char *otherwise);
int64_t ocl_now(void);               /* ns, monotonic */
const char *ocl_cl_name(cl_int err); /* "CL_OUT_OF_RESOURCES" */
/* True in the process that called init; false after a fork, where no OpenCL call may be made. */
bool ocl_alive(void);
tern_rc ocl_forked(const tern_drv *drv); /* the refusal */

/* ---- device.c, memory.c ---- */

typedef struct ocl_program ocl_program;
/* How recorded launches are run, and the entry points of cl_khr_command_buffer where that is used. */
typedef struct ocl_replays {
  bool list, buffer;
  bool overlap; /* a command buffer may be enqueued while it runs */
  clCreateCommandBufferKHR_fn create;
  clCommandNDRangeKernelKHR_fn kernel;
  clFinalizeCommandBufferKHR_fn finalize;
  clEnqueueCommandBufferKHR_fn enqueue;
  clReleaseCommandBufferKHR_fn release;
} ocl_replays;
enum { SETTLED = 8192 };
struct tern_dev {
  tern_drv *drv;
  const ocl_id *id;
  cl_context context;
  cl_command_queue aux;       /* maps, first touch of buffers, library warm-up */
  pthread_mutex_t build_lock; /* programs */
  ocl_program *programs;
  atomic_uint unsaved;        /* programs whose binary is not on disk yet */
  int64_t opened, save_spent; /* ns: when the device was opened; how long binaries were fetched and written */
  bool keep;                  /* compiled programs go to the disk cache */
  bool lean;                  /* builtins.c declares what programs call; set at open, under build_lock afterwards */
  bool late;                  /* the runtime compiles a kernel once more when it is launched (PoCL): see ocl_run */
  atomic_uintptr_t settled[SETTLED]; /* kernels for which it has, by address and kind of range; a hash table */
  atomic_ullong used;                /* bytes of all buffers */
  atomic_uint freed;                 /* buffers that were freed: a handle may come back as another buffer's */
  atomic_int clblast[2];             /* float32, float64: 0 not tried, 1 ready, -1 cannot be used */
  ocl_replays replays;               /* set at open */
};
struct tern_mem {
  cl_mem buffer;
  uint64_t size;
  bool imported;
};
tern_rc ocl_device_open(tern_drv *drv, uint32_t i, tern_dev **out);
void ocl_device_close(tern_dev *dev);
/* Map an OpenCL error of `what` to a status and report it. */
tern_rc ocl_failed(const tern_dev *dev, const char *what, cl_int err);
tern_rc ocl_mem_alloc(tern_dev *dev, const tern_mem_desc *want, tern_mem **out);
void ocl_mem_free(tern_dev *dev, tern_mem *mem);
tern_rc ocl_mem_map(tern_dev *dev, tern_mem *mem, uint64_t off, uint64_t size, uint32_t rw, void **out);
tern_rc ocl_mem_unmap(tern_dev *dev, tern_mem *mem, void *p);
tern_rc ocl_copy(tern_dev *dev, tern_queue *queue, const tern_copy *c);
tern_rc ocl_fill(tern_dev *dev, tern_queue *queue, tern_mem *mem, uint64_t off, uint64_t size, const void *pat,
                 uint32_t pat_size);

/* ---- queue.c ---- */

enum { OCL_TICKETS = 64, OCL_STAGE_HALF = 256 << 10 };
typedef struct ocl_ticket {
  uint64_t number;
  cl_event event;
} ocl_ticket;
struct tern_queue {
  tern_dev *dev;
  cl_command_queue q;
  pthread_mutex_t lock; /* the tickets: another queue's wait may look at them */
  uint64_t last, done;  /* last ticket given; highest known complete */
  atomic_bool open;     /* `last` has no event yet: nothing was enqueued since it was given */
  ocl_ticket ring[OCL_TICKETS];
  uint32_t n_ring; /* oldest first */
  tern_rc failed;
  char why[200];
  cl_mem flag; /* 4 ints that an index out of range sets: {1 GATHER or 2 SCATTER, index low, index high, axis size} */
  cl_int *flag_host; /* where a signal reads them to */
  bool flagged;      /* a launch since the last signal may have set them */
  char *stage[2];    /* staging of small uploads, two halves of OCL_STAGE_HALF */
  cl_event stage_busy[2];
  uint32_t stage_half, stage_used;
  cl_mem gemm_temp; /* CLBlast's temporary memory, grown when needed */
  size_t gemm_temp_size;
  tern_program *recording; /* between program_begin and program_end */
};
tern_rc ocl_queue_open(tern_dev *dev, uint32_t flags, tern_queue **out);
void ocl_queue_close(tern_dev *dev, tern_queue *q);
tern_rc ocl_queue_signal(tern_dev *dev, tern_queue *q, uint64_t *ticket);
tern_rc ocl_queue_wait(tern_dev *dev, tern_queue *q, tern_queue *other, uint64_t ticket);
tern_rc ocl_queue_sync(tern_dev *dev, tern_queue *q, uint64_t ticket, uint64_t timeout_ns);
/* Must come before anything is enqueued: pins down the last ticket, refuses a failed queue. */
tern_rc ocl_queue_enter_slow(tern_queue *q);
static inline tern_rc ocl_queue_enter(tern_queue *q) {
  if (!q->failed && !atomic_load_explicit(&q->open, memory_order_acquire)) return TERN_OK;
  return ocl_queue_enter_slow(q);
}
/* The flag buffer of index errors; marks the queue as flagged. NULL: no memory. */
cl_mem ocl_queue_flag(tern_queue *q);

/* ---- program.c, cache.c: source to kernels ---- */

typedef struct ocl_text { /* grows; after a failed allocation `failed` stays set and s may be NULL */
  char *s;
  size_t n, cap;
  bool failed;
} ocl_text;
void ocl_add(ocl_text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

struct ocl_program {
  ocl_program *next;
  uint64_t key[2];
  cl_program program;
  uint32_t refs;
  atomic_uchar save; /* 0 nothing to do, 1 built from source, 2 and launched as well */
};
/* A program for this source, shared by all who ask for the same text: from memory, from the disk cache, or built.
   `what` names it in errors. Give it back with ocl_program_put. */
tern_rc ocl_program_get(tern_dev *dev, const char *source, const char *what, ocl_program **out);
void ocl_program_put(tern_dev *dev, ocl_program *p);
tern_rc ocl_kernel_new(tern_dev *dev, const ocl_program *p, const char *name, cl_kernel *out);
/* Write the binaries of programs that were launched (or of all) to the disk cache, within a budget of time: PoCL
   compiles once more for each. The queue they ran on must be idle. */
void ocl_programs_save(tern_dev *dev, bool all);

void ocl_cache_key(const tern_dev *dev, const char *source, const char *options, uint64_t key[2]);
/* Payload of the file of this key, or NULL; caller frees. Checks everything before anybody else sees a byte. */
unsigned char *ocl_cache_read(const tern_drv *drv, const uint64_t key[2], size_t *size);
void ocl_cache_write(tern_drv *drv, const uint64_t key[2], const unsigned char *data, size_t size);

/* ---- builtins.c ---- */

/* Declarations of the OpenCL C functions that the source names, for a build without the runtime's header. */
void ocl_add_builtins(ocl_text *t, const tern_dev *dev, const char *source);

/* ---- kernel.c ---- */

/* The head of every kind of kernel. Arguments of a cl_kernel are set and enqueued under `lock`: two queues may launch
   one. */
struct tern_kernel {
  tern_rc (*launch)(tern_dev *, tern_queue *, tern_kernel *, const tern_launch *);
  tern_rc (*workspace)(tern_dev *, const tern_kernel *, const tern_word *, uint64_t *); /* NULL: fixed */
  void (*destroy)(tern_dev *, tern_kernel *);
  pthread_mutex_t lock;
  ocl_program *program;
};
tern_rc ocl_supports(tern_dev *dev, const tern_region *r, uint32_t *want_static);
tern_rc ocl_compile(tern_dev *dev, const tern_region *r, tern_kernel **out, tern_kernel_info *info);
tern_rc ocl_workspace(tern_dev *dev, const tern_kernel *k, const tern_word *words, uint64_t *bytes);
tern_rc ocl_launch(tern_dev *dev, tern_queue *q, const tern_kernel *k, const tern_launch *l);
void ocl_kernel_free(tern_dev *dev, tern_kernel *k);

/* Set arguments in order, then run: the first error is kept in rc and reported by ocl_run. */
typedef struct ocl_command ocl_command;
typedef struct ocl_call {
  cl_kernel kernel;
  cl_uint n;
  cl_int rc;
  ocl_command *command; /* of a recording, else NULL */
} ocl_call;
ocl_call ocl_record_call(tern_queue *q, cl_kernel kernel);
void ocl_record_arg(ocl_call *c, size_t size, const void *value);
static inline ocl_call ocl_call_of(tern_queue *q, cl_kernel kernel) {
  return q->recording ? ocl_record_call(q, kernel) : (ocl_call){.kernel = kernel};
}
static inline void ocl_arg(ocl_call *c, size_t size, const void *value) {
  if (c->command) {
    ocl_record_arg(c, size, value);
    return;
  }
  const cl_int rc = clSetKernelArg(c->kernel, c->n++, size, value);
  if (rc != CL_SUCCESS && c->rc == CL_SUCCESS) c->rc = rc;
}
static inline void ocl_arg_mem(ocl_call *c, cl_mem m) { ocl_arg(c, sizeof m, &m); }
static inline void ocl_arg_long(ocl_call *c, int64_t v) {
  const cl_long x = v;
  ocl_arg(c, sizeof x, &x);
}
/* What a cl_kernel's arguments are set to. Some runtimes take longer over setting one than over the rest of a launch.
   Used under the kernel's lock. */
typedef struct ocl_set {
  uint64_t value; /* a buffer's handle, or the bytes */
  uint32_t size;  /* 0: not set */
  uint32_t freed; /* of a buffer: dev->freed when it was set */
} ocl_set;
/* Sets argument c->n, unless it has that value. */
static inline void ocl_arg_kept(ocl_call *c, const tern_dev *dev, ocl_set *set, size_t size, const void *value,
                                bool buffer) {
  if (c->command) {
    ocl_record_arg(c, size, value);
    return;
  }
  ocl_set now = {.size = (uint32_t)size,
                 .freed = buffer ? atomic_load_explicit(&dev->freed, memory_order_relaxed) : 0};
  memcpy(&now.value, value, size);
  if (now.value == set->value && now.size == set->size && now.freed == set->freed) {
    c->n++;
    return;
  }
  const cl_int before = c->rc;
  c->rc = CL_SUCCESS;
  ocl_arg(c, size, value);
  *set = c->rc == CL_SUCCESS ? now : (ocl_set){0};
  if (before != CL_SUCCESS) c->rc = before;
}
/* A buffer and its offset in elements, in that order. */
static inline void ocl_arg_at(ocl_call *c, const tern_arg *a, uint32_t item) {
  ocl_arg_mem(c, a->mem->buffer);
  ocl_arg_long(c, (int64_t)(a->offset / item));
}
/* Enqueue over `groups[d] * local[d]` work-items. */
tern_rc ocl_run(tern_dev *dev, tern_queue *q, ocl_call *c, const char *what, cl_uint dims, const size_t *groups,
                const size_t *local);
/* One dimension of at least `items` work-items in groups of `local`. */
tern_rc ocl_run1(tern_dev *dev, tern_queue *q, ocl_call *c, const char *what, uint64_t items, size_t local);
/* Whether this is the first launch of a kernel over this kind of range. */
bool ocl_first_launch(tern_dev *dev, cl_kernel kernel, cl_uint dims, const size_t *global);
/* Check a launch against the region: argument count and buffers present. */
tern_rc ocl_check_launch(tern_dev *dev, const tern_launch *l, uint32_t n_args, uint64_t workspace);

/* ---- replay.c: launches that are recorded and run again. The calls of a queue that records come here ---- */

tern_rc ocl_program_begin(tern_dev *dev, tern_queue *q);
tern_rc ocl_program_end(tern_dev *dev, tern_queue *q, tern_program **out);
tern_rc ocl_program_update(tern_dev *dev, tern_program *p, uint32_t nth, const tern_launch *l);
tern_rc ocl_program_run(tern_dev *dev, tern_queue *q, const tern_program *p);
void ocl_program_free(tern_dev *dev, tern_program *p);
tern_rc ocl_record_launch(tern_dev *dev, tern_queue *q, tern_kernel *k, const tern_launch *l);
tern_rc ocl_record_run(tern_dev *dev, ocl_call *c, const char *what, cl_uint dims, const size_t *global,
                       const size_t *local);
tern_rc ocl_record_copy(tern_dev *dev, tern_queue *q, const tern_copy *c);
tern_rc ocl_record_fill(tern_dev *dev, tern_queue *q, tern_mem *mem, uint64_t off, uint64_t size, const void *pat,
                        uint32_t pat_size);
cl_mem ocl_record_flag(tern_queue *q);
void ocl_replays_open(tern_dev *dev); /* buffer.c */

/* ---- types.c: element types in OpenCL C ---- */

uint32_t ocl_item_size(uint32_t dtype);
bool ocl_has_dtype(const ocl_id *id, uint32_t dtype); /* can be loaded, computed and stored */
bool ocl_is_float(uint32_t dtype);
const char *ocl_dtype_name(uint32_t dtype); /* "float32" */
const char *ocl_storage(uint32_t dtype);    /* type of the buffer's elements: "half" for F16, "ushort" for BF16 */
const char *ocl_compute(uint32_t dtype);    /* type that arithmetic is done in */
/* Text shared by the generated programs: index type, and for each prefix P the macros P_LD(pointer, index) and
   P_ST(pointer, index, value) of a dtype, with types P_T (buffer) and P_C (compute). */
void ocl_add_prelude(ocl_text *t, const tern_dev *dev, bool idx32);
void ocl_add_dtype(ocl_text *t, const char *prefix, uint32_t dtype);

/* ---- the kinds of kernels: supports is pure, UNSUPPORTED for a region that is not its own ---- */

tern_rc ocl_region_supports(tern_dev *dev, const tern_region *r); /* region.c: MAP and REDUCE through the renderer */
tern_rc ocl_region_compile(tern_dev *dev, const tern_region *r, tern_kernel **out, tern_kernel_info *info);
tern_rc ocl_dot_supports(tern_dev *dev, const tern_region *r); /* dot.c */
tern_rc ocl_dot_compile(tern_dev *dev, const tern_region *r, tern_kernel **out, tern_kernel_info *info);
tern_rc ocl_conv_supports(tern_dev *dev, const tern_region *r); /* conv.c: CONV, CONV_DX, CONV_DW */
tern_rc ocl_conv_compile(tern_dev *dev, const tern_region *r, tern_kernel **out, tern_kernel_info *info);
tern_rc ocl_gather_supports(tern_dev *dev, const tern_region *r); /* gather.c */
tern_rc ocl_gather_compile(tern_dev *dev, const tern_region *r, tern_kernel **out, tern_kernel_info *info);
tern_rc ocl_scatter_supports(tern_dev *dev, const tern_region *r); /* scatter.c */
tern_rc ocl_scatter_compile(tern_dev *dev, const tern_region *r, tern_kernel **out, tern_kernel_info *info);
tern_rc ocl_sort_supports(tern_dev *dev, const tern_region *r); /* sort.c: SORT, ARGSORT */
tern_rc ocl_sort_compile(tern_dev *dev, const tern_region *r, tern_kernel **out, tern_kernel_info *info);
tern_rc ocl_scan_supports(tern_dev *dev, const tern_region *r); /* scan.c: CUMSUM .. CUMMIN */
tern_rc ocl_scan_compile(tern_dev *dev, const tern_region *r, tern_kernel **out, tern_kernel_info *info);

/* A region of exactly one node over one-per-argument IN and OUT values. Fills v[0..n_in-1] and v[n_in]. */
bool ocl_single(const tern_region *r, uint32_t op, uint32_t n_in, const tern_value *v[3]);
/* Shared by compile functions: zeroed kernel of `size` bytes with program and lock, or an error. */
tern_rc ocl_kernel_alloc(tern_dev *dev, size_t size, const char *source, const char *what, tern_kernel **out);

/* ---- clblast.c: a second provider of float32 and float64 DOT ---- */

/* Ready CLBlast for this device (parameters, known-answer warm-up); UNSUPPORTED when it cannot be used here. */
tern_rc ocl_clblast_ready(tern_dev *dev, uint32_t dtype);
typedef struct ocl_gemm { /* row-major, sizes and leading dimensions in elements; x_t: stored transposed */
  int64_t m, n, k, lda, ldb, ldc, a_off, b_off, c_off;
  bool a_t, b_t;
  cl_mem a, b, c;
} ocl_gemm;
tern_rc ocl_record_gemm(tern_queue *q, uint32_t dtype, const ocl_gemm *g);
tern_rc ocl_clblast_gemm(tern_dev *dev, tern_queue *q, uint32_t dtype, const ocl_gemm *g);
#endif
