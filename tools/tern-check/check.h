/* What the files of tern-check share: the plugin under test, one device of it, the report, and a "problem": one op with
   numbers, which becomes a region in the form in which the core would send it. */
#ifndef TERN_CHECK_H_
#define TERN_CHECK_H_
#include <common/eval.h>
#include <common/nest.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <tern/backend.h>

/* ---- report.c: what the person and the exit status learn ---- */

typedef struct options {
  const char *path, *filter; /* filter: only cases and checks whose name contains it (and what they need); NULL = all */
  const char *settings[32];  /* "key=value" for host->option */
  int n_settings, device;    /* device: -1 = every visible one */
  bool quick, json, verbose, progress;
  unsigned slice;   /* one case in so many, chosen by a hash of its name; 0 and 1: all */
  long min_claimed; /* of one device; less is a failure */
  int max_shown;    /* failures printed in full */
} options;

enum { MAX_CHECKS = 64 };
typedef struct check_count { /* how often a check was made since the last listing, for --verbose */
  const char *name;
  long n, failed;
} check_count;

typedef struct report {
  const options *opt;
  const char *device;                  /* being checked; NULL before the first */
  long claimed, total, passed, failed; /* cases of this device */
  long checks, checks_failed;          /* ABI, memory, queues, threads, of this device */
  long shown, all_failed;
  long selected; /* names that the filter matched */
  check_count named[MAX_CHECKS];
  int n_named;
  int n_devices;
  bool first_json;
} report;

void report_begin(report *, const options *);
void report_device(report *, const char *name, const char *desc);
/* A named condition; the text after it is what to do or what was seen. Returns ok. name: static */
bool expect(report *, bool ok, const char *name, const char *format, ...) __attribute__((format(printf, 4, 5)));
void report_case(report *, bool ok, const char *name, const char *what); /* what: lines of detail, NULL when ok */
void report_skip(report *, const char *name, const char *why);
void report_progress(report *, const char *name);
void report_device_end(report *);
int report_end(report *); /* the exit status */
bool wanted(report *, const char *name);
bool report_begin_check(report *, const char *name); /* wanted? then it is what a crash handler names */
void report_current(const char *name);               /* what a crash handler names */

/* ---- plugin.c ---- */

typedef struct subject {
  void *handle;
  const tern_backend *table;
  tern_backend api;
  tern_host host;
  tern_drv *driver;
  const options *opt;
} subject;

const char *last_error(void); /* what the plugin said on this thread since error_clear, "" when nothing */
const char *said(void);       /* the same for reports */
void error_clear(void);
const char *rc_name(tern_rc);
bool subject_load(subject *, report *); /* ABI checks; false: nothing more can be tested */
bool subject_start(subject *, report *);
void subject_stop(subject *);

/* ---- device.c: calls with their blocks, and a count of what is open ---- */

typedef struct device {
  subject *s;
  const tern_backend *api;
  uint32_t index;
  tern_device_info info;
  tern_dev *dev;
  tern_queue *queue; /* NULL without ASYNC */
  tern_mem *image;   /* IMAGE_BYTES, for cases */
  tern_mem *workspace;
  uint64_t workspace_bytes;
  _Atomic long live; /* memory blocks, queues and kernels that are ours */
} device;

enum { IMAGE_BYTES = 20 << 20 };

bool device_describe(subject *, report *, uint32_t i, tern_device_info *info, bool *end);
tern_rc device_start(device *, subject *, uint32_t i, const tern_device_info *);
void device_stop(device *);
tern_rc dev_alloc(device *, uint64_t size, tern_mem **);
void dev_free(device *, tern_mem *);
tern_rc dev_queue(device *, tern_queue **);
void dev_queue_close(device *, tern_queue *);
void dev_queue_renew(device *); /* after a failure: a failed queue stays failed, and work may still be on its way */
tern_rc dev_wait(device *, tern_queue *); /* signal and sync */
tern_rc dev_upload(device *, tern_queue *, tern_mem *, uint64_t off, const void *from, uint64_t size);
tern_rc dev_download(device *, tern_queue *, void *to, tern_mem *, uint64_t off, uint64_t size); /* waits */
tern_rc dev_move(device *, tern_queue *, tern_mem *to, uint64_t to_off, tern_mem *from, uint64_t from_off,
                 uint64_t size, tern_dev *from_dev); /* from_dev: NULL or this device, which is the same */
tern_rc dev_compile(device *, const tern_region *, tern_kernel **, uint64_t *workspace);
void dev_kernel_free(device *, tern_kernel *);

/* ---- memory.c, threads.c ---- */
void check_memory(device *, report *);
void check_queues(device *, report *);
void check_threads(device *, report *);
void check_refusals(device *, report *);

/* ---- problem.c: from an op with numbers to a region, as the core does it ---- */

enum { MAX_OPERANDS = 10, MAX_SIZES = 12, ONE = 0xff };
enum { ROLE_MAP, ROLE_REDUCED, ROLE_FIXED };
enum { /* what the inputs hold */
       FILL_ANY,
       FILL_UNIT /* [-1, 1] */,
       FILL_POSITIVE,
       FILL_SMALL /* sums and products of these are exact in integers */,
       FILL_SHIFT /* counts around the width */,
       FILL_INDEX /* -size .. size - 1 */,
       FILL_TIES,
       FILL_EXPONENT,
       FILL_WIDE,
       FILL_RANGE /* floats of every magnitude up to 2^70, for casts */,
       FILL_TENTH /* one number, 0.1; in float16 0.01: sums of many stay finite */
};

typedef struct operand {
  uint8_t kind;                            /* TERN_V_IN, OUT, PARAM or CONST */
  uint8_t dtype, rank, dim[TERN_MAX_RANK]; /* index into size[], or ONE */
  uint8_t same_as, fill;
  bool finite; /* no NaN or infinity among the values */
  int64_t stride[TERN_MAX_RANK];
  int alias;          /* OUT: operand whose memory and strides it takes, or -1 */
  int64_t shift;      /* elements by which its memory is moved off its alignment */
  tern_word value;    /* PARAM, CONST */
  int64_t low, count; /* set by place(): lowest element touched, elements from there to the highest */
  uint64_t at;        /* byte of the image where element 0 is */
} operand;

typedef struct builder builder;
typedef struct problem {
  uint32_t op; /* a primitive; 0: `lower` builds the region */
  bool (*lower)(builder *);
  uint8_t n_in, n_out, n_sizes, n_space, n_attrs;
  uint8_t role[MAX_SIZES];
  int64_t size[MAX_SIZES];
  tern_word attr[8];
  operand arg[MAX_OPERANDS];
  bool wide;    /* a class without TERN_R_IDX32 */
  bool special; /* inputs include NaN, infinities and extreme numbers */
  bool tight;   /* a long SUM: within a few ulp, however many elements */
  uint64_t seed;
} problem;

enum { MAX_VALUES = 64, MAX_NODES = 32, MAX_EDGES = 128, MAX_WORDS = MAX_SIZES + MAX_OPERANDS * TERN_MAX_RANK };
struct builder {
  const problem *p;
  tern_region region;
  uint32_t n_edges, n_attrs;
  bool failed;
  tern_value value[MAX_VALUES];
  tern_node node[MAX_NODES];
  uint32_t edge[MAX_EDGES];
  tern_word attr[MAX_NODES];
};

void canonicalise(problem *);
bool build(builder *, const problem *);              /* of a canonical problem; the region points into the builder */
void make_static(builder *, const tern_word *words); /* every size and stride becomes a literal */
bool same_region(const builder *, const builder *);
uint32_t words_of(const problem *, tern_word *);
bool place(problem *, uint64_t *used);           /* operands into the image; false: too large */
uint32_t args_of(const problem *, uint64_t *at); /* byte of the image of each argument */
/* for `lower` */
uint32_t b_in(builder *, int i);
uint32_t b_const(builder *, uint32_t dtype, double);
uint32_t b_map(builder *, uint32_t op, uint32_t dtype, int n, const uint32_t *in);
uint32_t b_reduce(builder *, uint32_t op, uint32_t x);
uint32_t b_count(builder *, uint32_t x, uint32_t dtype);
uint32_t b_iota(builder *, int dim, uint32_t dtype);
void b_out(builder *, int o, uint32_t x);

/* ---- values.c, tolerance.c ---- */
void fill_inputs(const problem *, unsigned char *image);
/* How far `got` may be from `want`; scale: sum of magnitudes that went in (is_sum), else 0 */
bool close_enough(const problem *, uint32_t dtype, tern_word want, tern_word got, double scale);
double ulps_of(uint32_t op); /* 0: exact */

/* ---- run.c ---- */
typedef struct runner {
  device *d;
  report *r;
  unsigned char *inputs, *want, *got, *scales; /* IMAGE_BYTES each */
  builder *now, *before;
  tern_kernel *kernel; /* of `before` */
  uint64_t workspace;
  bool static_sizes;
} runner;
/* make(context, k, p): fill instance k of a case; false past the last. A case is one class, or a few */
typedef bool (*make_problem)(const void *context, int k, problem *p);
bool runner_open(runner *, device *, report *);
void runner_close(runner *);
void run_case(runner *, const char *name, make_problem, const void *context);
/* Launch and wait; *at: byte of the image of each argument */
tern_rc launch_image(device *, tern_queue *, const tern_kernel *, uint64_t workspace, const problem *, tern_mem *image);

/* ---- cases.c, cases_long.c, cases_index.c, cases_scatter.c, composites.c ---- */
void run_primitives(runner *);
void run_long_sums(runner *);
void run_indexed(runner *);
void run_convolutions(runner *);
bool is_sum(uint32_t op);
double conv_terms(const problem *); /* how many products one result of a CONV .. CONV_DW adds up */
void run_scatter(runner *);
void run_composites(runner *);
void operand_dense(problem *, int i, uint8_t kind, uint32_t dtype, uint8_t fill);
#endif
