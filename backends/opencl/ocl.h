/* What the files of the OpenCL backend share: the driver (all devices of the loader), an open device, queues with
   tickets, sections and units of kernels, and the two calls through which every kernel is launched. */
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
  bool bundled, task;  /* text is rendered for a bundle's traits (bundle.h); single work-items where that form exists */
  bool collects;       /* the device of collect.c */
  bool refused;        /* its bundle cannot be used: opening it fails */
  char refusal[720];   /* why */
  bool hidden, fpga, compiler, fp64, int64, fp16, fma, unified;
  const char *useless; /* why nothing can run on it; NULL: it can */
  cl_uint version;     /* of OpenCL, 12 for 1.2 */
  bool images, out_of_order, command_buffers, subgroups, shuffles, embedded;
  size_t max_items[3]; /* work-items of a group by dimension */
  bool lazy_finish;    /* clFinish waits only for what was not flushed yet (rusticl of Mesa 22.3) */
  cl_ulong mem_total, max_alloc, local_mem;
  size_t max_group, param_size;
  cl_uint align, units, float_width;
  cl_bitfield svm; /* 0 before OpenCL 2.0 */
} ocl_id;

typedef struct ocl_bundles ocl_bundles;
struct tern_drv {
  const tern_host *host;
  ocl_bundles *bundles;
  ocl_id *ids;
  uint32_t n_ids, n_platforms;
  char *cache_dir;    /* NULL: no disk cache */
  char *cpu_features; /* part of the cache key of CPU devices; never NULL */
  atomic_bool cache_warned;
};

tern_rc ocl_enumerate(tern_drv *drv);
tern_rc ocl_device_info(tern_drv *drv, uint32_t i, tern_device_info *info);
bool ocl_can_run(const ocl_id *id); /* has a compiler, or a bundle in its place */
bool ocl_is_cpu(const ocl_id *id);  /* few wide cores, no use for local memory */
/* A CPU whose work-items may loop for long. Not llvmpipe (of Mesa 22.3 at least), which leaves the loops of a work-item
   after 65,535 rounds together without a word, and computes work-items side by side in vectors, as a GPU does. */
bool ocl_loops_long(const ocl_id *id);

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

typedef struct ocl_section ocl_section;
typedef struct ocl_tune ocl_tune;
typedef struct ocl_images ocl_images;
typedef struct ocl_collector ocl_collector;
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
/* Memory that kernels and the host share without copies: where it is, and who allocates it. Checked at open. */
typedef enum ocl_direct { OCL_NOT_DIRECT, OCL_DIRECT_HOST, OCL_DIRECT_SVM } ocl_direct;
enum { SETTLED = 8192 };
struct tern_dev {
  tern_drv *drv;
  const ocl_id *id;
  cl_context context;
  cl_command_queue aux;              /* maps, first touch of buffers, library warm-up */
  struct ocl_build *build;           /* sections and units; made at open */
  ocl_images *images;                /* of a device with a bundle, else NULL */
  ocl_collector *collect;            /* of the device that collects one, else NULL */
  bool keep;                         /* units go to the disk cache: their binaries, or */
  bool keep_text;                    /* their texts, since the runtime keeps what it compiles by itself */
  bool lean;                         /* builtins.c declares what programs call */
  bool late;                         /* a kernel is compiled once more when it is launched first (PoCL): see ocl_run */
  bool late_always;                  /* .. and at each launch (rusticl), with late */
  atomic_uintptr_t settled[SETTLED]; /* kernels for which it has, by address and kind of range; a hash table */
  atomic_ullong used;                /* bytes of all buffers */
  atomic_uint freed;                 /* buffers that were freed: a handle may come back as another buffer's */
  _Atomic(ocl_tune *) tune;          /* tune.c: made when first asked for */
  atomic_int clblast[2];             /* float32, float64: 0 not tried, 1 ready, -1 cannot be used */
  ocl_replays replays;               /* set at open */
  ocl_direct direct;                 /* set at open */
  void *svm_alloc, *svm_free;        /* clSVMAlloc, clSVMFree */
  bool staged;                       /* memory apart from the host's: large uploads go by an own queue */
};
struct tern_mem {
  cl_mem buffer;
  uint64_t size;
  bool imported;
  char *host;                       /* of a direct device: where the bytes are, always */
  void *own;                        /* the host memory that was allocated for it: gone with it */
  _Atomic(const tern_queue *) user; /* of a staged device: the queue that last used it, NULL: none yet; */
  atomic_ullong used;               /* and the ticket that covers that */
};
tern_rc ocl_device_open(tern_drv *drv, uint32_t i, tern_dev **out);
void ocl_device_close(tern_dev *dev);
tern_rc ocl_status(cl_int err);
tern_rc ocl_work_status(cl_int err);
/* clFinish, where that waits for everything. */
cl_int ocl_finish(const tern_dev *dev, cl_command_queue q);
/* Map an OpenCL error of `what` to a status and report it. */
tern_rc ocl_failed(const tern_dev *dev, const char *what, cl_int err);
ocl_direct ocl_direct_open(tern_dev *dev);
tern_rc ocl_mem_alloc(tern_dev *dev, const tern_mem_desc *want, tern_mem **out);
void ocl_mem_free(tern_dev *dev, tern_mem *mem);
tern_rc ocl_mem_map(tern_dev *dev, tern_mem *mem, uint64_t off, uint64_t size, uint32_t rw, void **out);
tern_rc ocl_mem_unmap(tern_dev *dev, tern_mem *mem, void *p);
tern_rc ocl_copy(tern_dev *dev, tern_queue *queue, const tern_copy *c);
tern_rc ocl_fill(tern_dev *dev, tern_queue *queue, tern_mem *mem, uint64_t off, uint64_t size, const void *pat,
                 uint32_t pat_size);

/* ---- selftest.c ---- */

/* Known answers, unless this device and driver gave them before. UNSUPPORTED: it computes wrongly. */
tern_rc ocl_selftest(tern_dev *dev);

/* ---- queue.c ---- */

enum { OCL_TICKETS = 64, OCL_DOWNLOADS = 16, OCL_STAGE_HALF = 256 << 10 };
typedef struct ocl_ticket {
  uint64_t number;
  cl_event event;
} ocl_ticket;
/* A download of a direct device that nobody has waited for: done by whoever waits, or enqueued before other work. */
typedef struct ocl_download {
  cl_mem buffer;
  const char *host; /* of the buffer's first byte */
  void *to;
  size_t offset, size;
} ocl_download;
/* Host memory that transfers are fast from: pinned where the runtime gives it, else plain. */
typedef struct ocl_pinned {
  char *at;
  cl_mem buffer; /* NULL: malloc'ed */
} ocl_pinned;
struct tern_queue {
  tern_dev *dev;
  cl_command_queue q;
  pthread_mutex_t lock; /* the tickets: another queue's wait may look at them */
  uint64_t last, done;  /* last ticket given; highest known complete */
  uint64_t waits;       /* the ticket that covers the last wait for another queue */
  atomic_bool open;     /* `last` has no event yet: nothing was enqueued since it was given */
  ocl_ticket ring[OCL_TICKETS];
  uint32_t n_ring; /* oldest first */
  tern_rc failed;
  char why[200];
  cl_mem flag; /* 4 ints that an index out of range sets: {1 GATHER or 2 SCATTER, index low, index high, axis size} */
  tern_mem *flag_mem;
  cl_int *flag_host; /* where a signal reads them to */
  bool flagged;      /* a launch since the last signal may have set them */
  ocl_pinned stage;  /* of small uploads, two halves of OCL_STAGE_HALF */
  cl_event stage_busy[2];
  uint32_t stage_half, stage_used;
  struct ocl_transfer *transfer;        /* of large uploads of a staged device; made when first needed */
  ocl_download download[OCL_DOWNLOADS]; /* under the lock */
  atomic_uint n_downloads;
  cl_mem gemm_temp; /* CLBlast's temporary memory, grown when needed */
  size_t gemm_temp_size;
  unsigned gemm_own;       /* calls of CLBlast that take memory of their own */
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
  if (!q->failed && !atomic_load_explicit(&q->open, memory_order_acquire) &&
      !atomic_load_explicit(&q->n_downloads, memory_order_relaxed))
    return TERN_OK;
  return ocl_queue_enter_slow(q);
}
/* Nothing is in flight: what was enqueued was waited for. */
static inline bool ocl_queue_idle(const tern_queue *q) {
  return atomic_load_explicit(&q->open, memory_order_acquire) && q->done >= q->last &&
         !atomic_load_explicit(&q->n_downloads, memory_order_relaxed);
}
/* By the host, of a queue that is idle. */
void ocl_queue_copy_now(tern_queue *q, void *to, const void *from, size_t size);
/* Host memory is filled from mem when the next ticket has passed; of a direct device. */
tern_rc ocl_queue_download(tern_queue *q, const ocl_download *d);
/* The queue's error after a call that submits or waits for work: a device that does not take it is lost. */
tern_rc ocl_queue_failed(tern_queue *q, const char *what, cl_int err);
tern_rc ocl_pinned_open(tern_dev *dev, size_t bytes, ocl_pinned *out);
void ocl_pinned_close(tern_dev *dev, ocl_pinned *p);
/* transfer.c: a large upload by a queue of its own, in pieces; returns when the bytes were read. CL_INVALID_OPERATION:
   there is none, and nothing was done. */
cl_int ocl_transfer_upload(tern_queue *q, const tern_copy *c);
void ocl_transfer_close(tern_dev *dev, struct ocl_transfer *t);
/* What is enqueued now uses this memory. */
static inline void ocl_use(tern_queue *q, const tern_mem *given) {
  tern_mem *mem = (tern_mem *)(uintptr_t)given;
  if (!q->dev->staged || !mem) return;
  atomic_store_explicit(&mem->user, q, memory_order_relaxed);
  atomic_store_explicit(&mem->used, q->last + 1, memory_order_relaxed);
}
static inline void ocl_use_launch(tern_queue *q, const tern_launch *l) {
  if (!q->dev->staged) return;
  for (uint32_t i = 0; i < l->n_args; i++) ocl_use(q, l->args[i].mem);
  ocl_use(q, l->workspace.mem);
}
/* The flag buffer of index errors; marks the queue as flagged. NULL: no memory. */
cl_mem ocl_queue_flag(tern_queue *q);

/* ---- text.c: text that grows ---- */

typedef struct ocl_text { /* after a failed allocation `failed` stays set and s may be NULL */
  char *s;
  size_t n, cap;
  bool failed;
} ocl_text;
void ocl_add(ocl_text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void ocl_add_bytes(ocl_text *t, const char *bytes, size_t n);
/* XXH3-128 of some bytes and of texts, each with its final zero, low half first: what names files of the cache. */
void ocl_hash_texts(const void *head, size_t size, const char *const *texts, size_t n, uint64_t key[2]);

/* ---- section.c: what kernels are made from. A section is the text of one class of kernels, self-contained OpenCL C
   1.2 with plain names, known by the hash of its text alone; nothing is built when it is registered. Many sections are
   built as one unit (unit.c), in which every name of a section carries its key, so that the same name may be in all of
   them ---- */

enum { OCL_UNIT_SECTIONS = 64, OCL_UNIT_TEXT = 1 << 20 }; /* a unit is cut there */
enum { OCL_PENDING, OCL_BUILDING, OCL_READY, OCL_FAILED };
typedef struct ocl_unit ocl_unit;
struct ocl_section {
  uint64_t key[2]; /* XXH3-128 of the text, low half first */
  char *text, what[64];
  ocl_section *next, *next_pending;
  uint32_t refs;
  atomic_uchar state; /* OCL_PENDING .. */
  ocl_unit *unit;     /* where it is ready */
  tern_rc rc;         /* where it failed: what launches return, and report */
  char *why;
};
void ocl_section_key(const char *text, uint64_t key[2]);
/* The section of this text, shared by all who ask for it; builds nothing, copies the text. `what` names it in errors.
   Give it back with ocl_section_put. */
tern_rc ocl_section_get(tern_dev *dev, const char *text, const char *what, ocl_section **out);
void ocl_section_put(tern_dev *dev, ocl_section *s);
/* Returns when it is built. All sections of the device that wait to be built go into the same unit; what is on disk is
   loaded. A section whose text does not compile fails alone. */
tern_rc ocl_section_ready(tern_dev *dev, ocl_section *s);
/* Whether a unit that the device has (built, loaded or given) holds this section. */
bool ocl_section_known(tern_dev *dev, const uint64_t key[2]);
/* The name that `plain` has in a unit. False: too long. */
enum { OCL_NAME = 128 };
bool ocl_section_name(const uint64_t key[2], const char *plain, char out[OCL_NAME]);
/* A kernel of a section that is ready. Does nothing where *out is set. */
tern_rc ocl_kernel_new(tern_dev *dev, const ocl_section *s, const char *plain, cl_kernel *out);

/* ---- unit.c: programs of many sections ---- */

/* Appends the text of a unit of these sections: that text depends on theirs alone, not on the device. */
void ocl_unit_text(ocl_text *t, const uint64_t (*keys)[2], const char *const *texts, uint32_t n);
/* A built program that holds these sections (of a bundle, say) becomes a unit of the device, which keeps it until it is
   closed; takes over a reference to the program, also on failure. */
tern_rc ocl_unit_give(tern_dev *dev, cl_program program, const uint64_t (*keys)[2], uint32_t n);
const char *ocl_build_options(const tern_dev *dev);

/* ---- build.c: who builds pending sections, and when (more in build.h) ---- */

tern_rc ocl_build_open(tern_dev *dev);
void ocl_build_close(tern_dev *dev); /* ends the thread, drops all units */
/* Waits until the builder thread is idle and keeps it so until another section comes: a process must not end while its
   runtime compiles. */
void ocl_build_settle(tern_dev *dev);

/* ---- cache.c ---- */

bool ocl_make_dirs(const char *dir); /* this folder, and those that it lies in */

/* ---- builtins.c ---- */

/* Declarations of the OpenCL C functions that the source names, for a build without the runtime's header. */
void ocl_add_builtins(ocl_text *t, const tern_dev *dev, const char *source);

/* ---- kernel.c ---- */

/* The head of every kind of kernel. Arguments of a cl_kernel are set and enqueued under `lock`: two queues may launch
   one. */
struct tern_kernel {
  tern_rc (*ready)(tern_dev *, tern_kernel *); /* makes the cl_kernels; called again after a failure */
  tern_rc (*launch)(tern_dev *, tern_queue *, tern_kernel *, const tern_launch *);
  tern_rc (*workspace)(tern_dev *, const tern_kernel *, const tern_word *, uint64_t *); /* NULL: fixed */
  void (*destroy)(tern_dev *, tern_kernel *);
  pthread_mutex_t lock;
  bool is_ready; /* under the lock */
  ocl_section *section;
};
/* Builds its section and makes its cl_kernels, at its first launch or recording. Caller holds its lock. */
tern_rc ocl_kernel_get_ready(tern_dev *dev, tern_kernel *k);
static inline tern_rc ocl_kernel_ready(tern_dev *dev, tern_kernel *k) {
  return k->is_ready ? TERN_OK : ocl_kernel_get_ready(dev, k);
}
tern_rc ocl_supports(tern_dev *dev, const tern_region *r, uint32_t *want_static);
tern_rc ocl_compile(tern_dev *dev, const tern_region *r, tern_kernel **out, tern_kernel_info *info);
tern_rc ocl_workspace(tern_dev *dev, const tern_kernel *k, const tern_word *words, uint64_t *bytes);
tern_rc ocl_ready(tern_dev *dev, const tern_kernel *k);
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
  ocl_set now = {.size = (uint32_t)size, .freed = buffer ? atomic_load_explicit(&dev->freed, memory_order_relaxed) : 0};
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
/* Whether this is the first launch of a kernel over this kind of range, as all are on a late_always device. */
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

/* More arrays than this behind a product (an optimiser's step: 6) are done along rows, by a launch of their own: the
   short rows of a register block would be too many streams of memory at once. */
enum { OCL_EPILOGUE_ARRAYS = 4 };

/* ---- the kinds of kernels: supports is pure, UNSUPPORTED for a region that is not its own ---- */

tern_rc ocl_region_supports(tern_dev *dev, const tern_region *r); /* region.c: MAP and REDUCE through the renderer */
tern_rc ocl_region_compile(tern_dev *dev, const tern_region *r, tern_kernel **out, tern_kernel_info *info);
tern_rc ocl_task_supports(tern_dev *dev, const tern_region *r); /* dot_task.c: DOT as a single work-item */
tern_rc ocl_task_compile(tern_dev *dev, const tern_region *r, tern_kernel **out, tern_kernel_info *info);
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
/* Shared by compile functions: zeroed kernel of `size` bytes with section and lock, or an error. */
tern_rc ocl_kernel_alloc(tern_dev *dev, size_t size, const char *source, const char *what, tern_kernel **out);

/* ---- clblast.c: a second provider of float32 and float64 DOT, and of dense convolutions ---- */

/* Ready CLBlast for this device (parameters, known-answer warm-up: seconds where it compiles); UNSUPPORTED when it
   cannot be used here, as on a device without a compiler. */
tern_rc ocl_clblast_ready(tern_dev *dev, uint32_t dtype);
/* Row-major, sizes and leading dimensions in elements; x_t: stored transposed. batches > 1: that many products, x_step
   elements apart. As a convolution (conv.batch > 0): a is x [batch, channels, height, width], b the filters [kernels,
   channels, taps], c the result, all dense. */
typedef struct ocl_gemm {
  int64_t m, n, k, lda, ldb, ldc, a_off, b_off, c_off, batches, a_step, b_step, c_step;
  bool a_t, b_t;
  cl_mem a, b, c;
  struct {
    int64_t batch, channels, kernels, size[2], taps[2], pad[2], stride[2], dilation[2];
  } conv;
} ocl_gemm;
tern_rc ocl_record_gemm(tern_queue *q, uint32_t dtype, const ocl_gemm *g);
tern_rc ocl_clblast_gemm(tern_dev *dev, tern_queue *q, uint32_t dtype, const ocl_gemm *g);
#endif
