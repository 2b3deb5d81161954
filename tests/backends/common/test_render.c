/* The renderer: kernels run on an OpenCL device through the bare API and compared with the reference evaluator. Every
   MAP and REDUCE primitive with every dtype, the composites, random regions; in the form for CPU-like and for GPU-like
   devices. Many regions share one program, since building is what costs. Skipped, with the reason, where there is no
   OpenCL device. */
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <CUnit/Basic.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../../backends/common/eval.h"
#include "../../../backends/common/nest.h"
#include "../../../backends/common/render.h"
#include "regions.h"
#include "support/test.h"

enum { MOST_CASES = 64, FRONT = 64 /* bytes before each argument, to try offsets */ };

typedef struct one_case {
  region_builder *b;
  render_program *p;
  double ulps, absolute;
  bool wide;
} one_case;
typedef struct batch {
  one_case cases[MOST_CASES];
  unsigned n;
  render_device dev;
} batch;

static cl_context context;
static cl_device_id device;
static cl_command_queue queue;
static bool has_fp64, has_shuffles;
static unsigned long n_kernels, n_regions, n_elements, n_left_out;

static bool open_device(void) {
  cl_platform_id platforms[16];
  cl_uint n = 0;
  if (clGetPlatformIDs(16, platforms, &n) || !n) return false;
  for (cl_uint i = 0; i < n && i < 16 && !device; i++)
    clGetDeviceIDs(platforms[i], CL_DEVICE_TYPE_ALL, 1, &device, NULL);
  if (!device) return false;
  cl_int rc;
  context = clCreateContext(NULL, 1, &device, NULL, NULL, &rc);
  if (rc) return false;
  queue = clCreateCommandQueue(context, device, 0, &rc);
  cl_device_fp_config fp = 0;
  clGetDeviceInfo(device, CL_DEVICE_DOUBLE_FP_CONFIG, sizeof fp, &fp, NULL);
  has_fp64 = fp != 0;
  static char ext[16384];
  if (clGetDeviceInfo(device, CL_DEVICE_EXTENSIONS, sizeof ext - 1, ext, NULL)) ext[0] = 0;
  has_shuffles = strstr(ext, "cl_intel_subgroups") || strstr(ext, "cl_khr_subgroup_shuffle_relative");
  if (!has_shuffles) printf("this device has no sub-groups with shuffles: reductions through them are not tested\n");
  return !rc;
}

static render_device cpu_like(void) {
  return (render_device){
      .dialect = RENDER_OPENCL, .cpu_like = true, .fp64 = has_fp64, .units = 2, .max_arg_bytes = 1024};
}

static render_device gpu_like(void) {
  render_device d = cpu_like();
  d.cpu_like = false;
  d.group = 64;
  d.task = getenv("TERN_TEST_TASK") != NULL; /* in their place those for FPGAs: one work-item */
  return d;
}

/* Where the device has them; else those of gpu_like once more */
static render_device with_subgroups(void) {
  render_device d = gpu_like();
  d.subgroups = has_shuffles;
  return d;
}

/* ---- comparing ---- */

static bool close_to(uint32_t dtype, tern_word got, tern_word want, double ulps, double absolute) {
  static const int mantissa[TERN_DTYPE_END] = {[TERN_F16] = 10, [TERN_BF16] = 7, [TERN_F32] = 23, [TERN_F64] = 52};
  static const int emin[TERN_DTYPE_END] = {[TERN_F16] = -14, [TERN_BF16] = -126, [TERN_F32] = -126, [TERN_F64] = -1022};
  if (dtype < TERN_F16) return got.u == want.u;
  if (isnan(want.f) || isnan(got.f)) return isnan(want.f) && isnan(got.f);
  if (got.f == want.f) return true;
  if (isinf(want.f) || isinf(got.f)) return false;
  const int e = want.f == 0 || ilogb(want.f) < emin[dtype] ? emin[dtype] : ilogb(want.f);
  return fabs(got.f - want.f) <= ulps * ldexp(1, e - mantissa[dtype]) + absolute;
}

/* FLOORDIV of an infinite operand is numpy.floor_divide's: by the remainder, so 1 / -inf is -1 and inf / 1 NaN. node:
   what made the value, its operands inputs of the same shape (or else w stands). */
static tern_word floor_division(const region_builder *b, const tern_node *node, unsigned char **want, int64_t k,
                                tern_word w) {
  double x[2];
  if (node->op != TERN_OP_FLOORDIV) return w;
  for (uint32_t i = 0; i < 2; i++) {
    const tern_value *v = &b->values[b->edges[node->in + i]];
    if (v->kind != TERN_V_IN || v->dtype < TERN_F16 || k >= b->args[v->slot].count) return w;
    x[i] = eval_load(want[v->slot], k, v->dtype).f;
  }
  if (x[1] == 0 || (isfinite(x[0]) && isfinite(x[1]))) return w;
  if (!isfinite(x[0]) || isnan(x[1])) return (tern_word){.f = NAN};
  return (tern_word){.f = x[0] != 0 && (x[0] < 0) != (x[1] < 0) ? -1 : 0};
}

static bool compare(const one_case *c, unsigned char **got, unsigned char **want) {
  const region_builder *b = c->b;
  unsigned wrong = 0;
  for (uint32_t i = 0; i < b->region.n_args; i++)
    for (int64_t k = 0; got[i] && k < b->args[i].count; k++) {
      uint32_t dtype = b->args[i].dtype, producer = 0;
      const tern_node *node = NULL;
      for (uint32_t v = 0; v < b->region.n_values; v++)
        if (b->values[v].kind == TERN_V_OUT && (b->values[v].slot == i || b->values[v].alias == (int32_t)i)) {
          dtype = b->values[v].dtype;
          producer = v;
        }
      for (uint32_t n = 0; n < b->region.n_nodes; n++)
        if (producer && nest_out(&b->region, n) == producer) node = &b->nodes[n];
      const tern_word g = eval_load(got[i], k, dtype), known = eval_load(want[i], k, dtype),
                      w = node ? floor_division(b, node, want, k, known) : known;
      n_elements++;
      if (close_to(dtype, g, w, c->ulps, c->absolute) || wrong++ > 3) continue;
      const char *op = node ? nest_prim_of(node->op)->name : "";
      fprintf(
          stderr, "%s: argument %u (%s, %s), element %lld: %.9g (%lld), wanted %.9g (%lld); first input there %.9g\n",
          b->name, i, op, nest_dtype_name(dtype), (long long)k, dtype >= TERN_F16 ? g.f : 0,
          (long long)(dtype < TERN_F16 ? g.i : 0), dtype >= TERN_F16 ? w.f : 0, (long long)(dtype < TERN_F16 ? w.i : 0),
          k < b->args[0].count && b->args[0].dtype >= TERN_F16 ? eval_load(want[0], k, b->args[0].dtype).f : 0);
    }
  return !wrong;
}

/* ---- running ---- */

static bool enqueue(const one_case *c, cl_program program, const tern_launch *l) {
  render_call *calls = calloc(c->p->max_calls + 1u, sizeof *calls);
  render_actual *actuals = calloc(c->p->max_actuals + 1u, sizeof *actuals);
  uint32_t n = 0;
  bool ok = render_bind(c->p, l, calls, &n, actuals) == TERN_OK;
  for (uint32_t i = 0; i < n && ok; i++) {
    cl_int rc;
    cl_kernel k = clCreateKernel(program, c->p->kernels[calls[i].kernel].name, &rc);
    for (uint32_t a = 0; a < calls[i].n_args && !rc; a++) {
      const render_actual *x = &actuals[calls[i].first + a];
      if (x->kind == RENDER_BYTES)
        rc = clSetKernelArg(k, a, x->size, x->value.bytes);
      else
        rc = clSetKernelArg(k, a, sizeof(cl_mem),
                            x->kind == RENDER_ARG ? (void *)&l->args[x->slot].mem : (void *)&l->workspace.mem);
    }
    const size_t global = calls[i].global, local = calls[i].local;
    if (!rc) rc = clEnqueueNDRangeKernel(queue, k, 1, NULL, &global, &local, 0, NULL, NULL);
    if (rc) fprintf(stderr, "%s: OpenCL error %d in %s\n", c->b->name, rc, c->p->kernels[calls[i].kernel].name);
    ok = !rc;
    if (k) clReleaseKernel(k);
    n_kernels++;
  }
  free(calls);
  free(actuals);
  return ok;
}

static bool run_case(const one_case *c, cl_program program) {
  region_builder *b = c->b;
  unsigned char *got[RB_MAX_ARGS] = {0}, *want[RB_MAX_ARGS] = {0};
  void *got_args[RB_MAX_ARGS], *want_args[RB_MAX_ARGS];
  cl_mem mem[RB_MAX_ARGS] = {0};
  tern_arg args[RB_MAX_ARGS] = {0};
  char message[256] = "out of memory";
  cl_int rc = 0;
  bool ok = rb_copy_args(b, got, got_args) && rb_copy_args(b, want, want_args) &&
            !tern_eval(&b->region, want_args, b->words, message, sizeof message);
  if (!ok) fprintf(stderr, "%s: evaluator: %s\n", b->name, message);
  for (uint32_t i = 0; i < b->region.n_args && ok; i++) {
    const size_t item = nest_item_size(b->args[i].dtype), bytes = (size_t)b->args[i].count * item;
    args[i].offset = FRONT + (size_t)b->args[i].origin * item;
    if (!got[i]) continue;
    mem[i] = clCreateBuffer(context, CL_MEM_READ_WRITE, FRONT + bytes, NULL, &rc);
    ok = !rc && !clEnqueueWriteBuffer(queue, mem[i], CL_TRUE, FRONT, bytes, got[i], 0, NULL, NULL);
    args[i].mem = (tern_mem *)mem[i];
  }
  for (uint32_t v = 0; v < b->region.n_values; v++)
    if (b->values[v].kind == TERN_V_OUT && b->values[v].alias >= 0)
      args[b->values[v].slot].mem = (tern_mem *)mem[b->values[v].alias];
  const uint64_t ws_bytes = render_workspace(c->p, b->words);
  cl_mem ws = clCreateBuffer(context, CL_MEM_READ_WRITE, ws_bytes + 128, NULL, &rc);
  const tern_launch l = {.args = args,
                         .words = b->words,
                         .n_args = b->region.n_args,
                         .n_words = b->region.n_words,
                         .workspace = {(tern_mem *)ws, 64}};
  ok = ok && !rc && enqueue(c, program, &l);
  for (uint32_t i = 0; i < b->region.n_args && ok; i++)
    if (mem[i])
      ok = !clEnqueueReadBuffer(queue, mem[i], CL_TRUE, FRONT,
                                (size_t)b->args[i].count * nest_item_size(b->args[i].dtype), got[i], 0, NULL, NULL);
  clFinish(queue);
  ok = ok && compare(c, got, want);
  for (uint32_t i = 0; i < RB_MAX_ARGS; i++) {
    if (mem[i]) clReleaseMemObject(mem[i]);
    free(got[i]);
    free(want[i]);
  }
  if (ws) clReleaseMemObject(ws);
  n_regions++;
  return ok;
}

static cl_program build(const batch *t) {
  const char *parts[MOST_CASES + 1] = {NULL};
  for (unsigned i = 0; i < t->n; i++) parts[i + 1] = t->cases[i].p->source;
  char *prelude = render_prelude(&t->dev, parts + 1, t->n);
  parts[0] = prelude;
  cl_int rc;
  cl_program program = clCreateProgramWithSource(context, t->n + 1, parts, NULL, &rc);
  if (!rc) rc = clBuildProgram(program, 1, &device, "-cl-std=CL1.2", NULL, NULL);
  if (rc) {
    static char log[8000];
    clGetProgramBuildInfo(program, device, CL_PROGRAM_BUILD_LOG, sizeof log - 1, log, NULL);
    fprintf(stderr, "build error %d\n%s\n", rc, log);
    const char *dump = getenv("TERN_TEST_DUMP");
    FILE *f = dump ? fopen(dump, "w") : NULL;
    for (unsigned i = 0; f && i <= t->n; i++) fputs(parts[i], f);
    if (f) fclose(f);
  }
  free(prelude);
  return rc ? NULL : program;
}

static void run_batch(batch *t) {
  cl_program program = t->n ? build(t) : NULL;
  if (t->n) CU_ASSERT_PTR_NOT_NULL(program);
  for (unsigned i = 0; i < t->n; i++) {
    if (program) CU_ASSERT(run_case(&t->cases[i], program));
    render_free(t->cases[i].p);
    rb_free(t->cases[i].b);
    free(t->cases[i].b);
  }
  if (program) clReleaseProgram(program);
  t->n = 0;
}

/* Takes b over; runs it unless a slice of the tests leaves it out */
static void add(batch *t, region_builder *b, double ulps, double absolute) {
  char name[32], message[256];
  if (!test_chosen()) {
    n_left_out++;
    rb_free(b);
    free(b);
    return;
  }
  snprintf(name, sizeof name, "k%u", t->n);
  one_case *c = &t->cases[t->n];
  *c = (one_case){.b = b, .ulps = ulps, .absolute = absolute};
  if (render_build(&b->region, &t->dev, name, &c->p, message, sizeof message)) {
    fprintf(stderr, "%s: %s\n", b->name, message);
    CU_FAIL("render_build");
    rb_free(b);
    free(b);
    return;
  }
  if (++t->n == MOST_CASES) run_batch(t);
}

/* ---- the tests ---- */

static bool can(uint32_t dtype) { return dtype != TERN_F64 || has_fp64; }

static region_builder *new_region(const char *what, uint32_t dtype) {
  region_builder *b = malloc(sizeof *b);
  rb_init(b, what, dtype);
  snprintf(b->name, sizeof b->name, "%s %s", what, nest_dtype_name(dtype));
  return b;
}

/* Two inputs full of edge cases and ordinary numbers, all pairs of the edges */
static void special_inputs(region_builder *b, uint32_t dtype, uint32_t *x, uint32_t *y, uint32_t *c) {
  static const double edges[] = {0,    -0.0, 1,   -1,  0.5,  -0.5, 2,   -2,   3,        1.5,
                                 -2.5, 7,    -7,  100, -100, 31,   8,   0.25, INFINITY, -INFINITY,
                                 NAN,  1e-3, 300, 64,  63,   -128, 127, 255,  32767};
  enum { N = sizeof edges / sizeof *edges };
  const int64_t shape[1] = {rb_sym(b, N * N + 600)};
  *x = rb_in_range(b, dtype, 1, shape, RB_DENSE, dtype >= TERN_F16 || dtype <= TERN_I64 ? -6 : 0, 6);
  *y = rb_in_range(b, dtype, 1, shape, RB_DENSE, dtype >= TERN_F16 || dtype <= TERN_I64 ? -6 : 0, 6);
  *c = rb_in_range(b, TERN_BOOL, 1, shape, RB_DENSE, 0, 2);
  for (int i = 0; i < N * N; i++)
    for (int k = 0; k < 2; k++) {
      const double e = edges[k ? i % N : i / N];
      tern_word w = {.f = e};
      if (dtype < TERN_F16) w = eval_cast(TERN_F64, dtype, w);
      if (e == 32767 && dtype < TERN_F16)
        w.u = dtype == TERN_BOOL ? 1 : 1ull << (8 * nest_item_size(dtype) - 1); /* the smallest signed */
      eval_store(b->args[b->values[k ? *y : *x].slot].data, i, dtype, eval_fit(dtype, w));
    }
}

static void test_maps(void) {
  batch *t = calloc(1, sizeof *t);
  t->dev = cpu_like();
  for (uint32_t dtype = TERN_BOOL; dtype < TERN_DTYPE_END; dtype++) {
    if (!can(dtype)) continue;
    uint32_t op = TERN_OP_COPY;
    while (op <= TERN_OP_WHERE) {
      region_builder *b = new_region("map", dtype);
      uint32_t x, y, c, n = 0;
      special_inputs(b, dtype, &x, &y, &c);
      for (; op <= TERN_OP_WHERE && n < 18; op++) {
        const nest_prim *p = nest_prim_of(op);
        if (!p || p->op == TERN_OP_CAST || !(p->dtypes >> dtype & 1)) continue;
        rb_out(b, rb_map(b, op, op == TERN_OP_WHERE ? c : x, op == TERN_OP_WHERE ? x : y, y));
        n++;
      }
      if (n)
        add(t, b, dtype == TERN_F16 || dtype == TERN_BF16 ? 1 : 4, 0);
      else {
        rb_free(b);
        free(b);
      }
    }
    region_builder *b = new_region("cast", dtype);
    uint32_t x, y, c;
    special_inputs(b, dtype, &x, &y, &c);
    for (uint32_t to = TERN_BOOL; to < TERN_DTYPE_END; to++)
      if (can(to)) rb_out(b, rb_cast(b, x, to));
    const int64_t shape[1] = {b->values[x].shape[0]};
    rb_out(b, rb_iota(b, dtype, 1, shape, 0));
    if (dtype == TERN_U32) rb_out(b, rb_rng(b, 1, shape, 7));
    add(t, b, 0, 0);
  }
  run_batch(t);
  free(t);
}

static void test_reductions(void) {
  static const uint32_t ops[] = {TERN_OP_SUM, TERN_OP_AMAX, TERN_OP_AMIN,   TERN_OP_PROD,
                                 TERN_OP_ANY, TERN_OP_ALL,  TERN_OP_ARGMAX, TERN_OP_ARGMIN};
  static const uint64_t dims[] = {4, 2, 7, 5};
  batch *t = calloc(1, sizeof *t);
  for (int form = 0; form < (has_shuffles ? 3 : 2); form++) {
    t->dev = form == 2 ? with_subgroups() : form ? gpu_like() : cpu_like();
    for (uint32_t dtype = TERN_BOOL; dtype < TERN_DTYPE_END; dtype++)
      for (unsigned k = 0; k < 3 && can(dtype); k++) {
        region_builder *b = new_region("reduce", dtype);
        const int64_t shape[3] = {rb_sym(b, 3), 70, rb_sym(b, k == 2 ? 201 : 33)};
        const uint32_t x =
            rb_in_range(b, dtype, 3, shape,
                        k == 0   ? RB_DENSE
                        : k == 1 ? RB_PADDED
                                 : RB_DENSE,
                        dtype == TERN_BOOL || dtype >= TERN_U8 ? 0.9 : -3, dtype == TERN_BOOL ? 1.9 : 1.1);
        if (dtype >= TERN_F16) eval_store(b->args[b->values[x].slot].data, 77, dtype, (tern_word){.f = NAN});
        for (unsigned i = 0; i < sizeof ops / sizeof *ops; i++)
          if (nest_prim_of(ops[i])->dtypes >> dtype & 1) rb_out(b, rb_reduce(b, ops[i], x, dims[k]));
        add(t, b, 2, dtype == TERN_F64 ? 1e-11 : 0);
      }
    run_batch(t);
  }
  free(t);
}

static void test_composites(void) {
  batch *t = calloc(1, sizeof *t);
  for (int form = 0; form < 3; form++) {
    t->dev = form == 1 ? gpu_like() : cpu_like();
    if (form == 2) t->dev.fp64 = false;           /* compensated sums */
    for (unsigned d = 0; d < (form ? 1 : 2); d++) /* float16 once */
      for (unsigned i = 0;; i++) {
        region_builder *b = malloc(sizeof *b);
        const uint32_t dtype = d ? TERN_F16 : TERN_F32;
        if (!rb_known(b, i, dtype, (i + form + d) % 2)) {
          free(b);
          break;
        }
        if (i % 3 == 0) b->region.flags = 0; /* long indices */
        add(t, b, 16, d ? 4e-3 : 1e-5);
      }
    run_batch(t);
  }
  free(t);
}

/* Few long rows: the split form, in several passes and in place */
static void test_long_rows(void) {
  batch *t = calloc(1, sizeof *t);
  for (int form = 0; form < 2; form++) {
    t->dev = form ? gpu_like() : cpu_like();
    for (int k = 0; k < 4; k++) {
      region_builder *b = new_region("long row", TERN_F32);
      const int64_t shape[2] = {k % 2 + 1, rb_sym(b, 100003)};
      const uint32_t x = rb_in(b, TERN_F32, 2, shape, RB_DENSE), m = rb_reduce(b, TERN_OP_AMAX, x, 2);
      if (k < 2) {
        const uint32_t e = rb_map(b, TERN_OP_EXP, rb_map(b, TERN_OP_SUB, x, m, RB_NONE), RB_NONE, RB_NONE);
        const uint32_t y = rb_map(b, TERN_OP_DIV, e, rb_reduce(b, TERN_OP_SUM, e, 2), RB_NONE);
        if (k)
          rb_out_alias(b, y, b->values[x].slot, x);
        else
          rb_out(b, y);
        rb_out(b, m);
      } else {
        rb_out(b, rb_reduce(b, TERN_OP_SUM, x, k == 2 ? 2 : 3));
        rb_out(b, rb_reduce(b, TERN_OP_ARGMIN, x, k == 2 ? 2 : 3));
        rb_out(b, m);
      }
      add(t, b, 16, 0);
    }
    run_batch(t);
  }
  free(t);
}

/* Reductions over an outer dim of float32: lanes are rows where the innermost stride allows it */
static void test_columns(void) {
  static const int64_t inner[] = {5, 16, 100};
  batch *t = calloc(1, sizeof *t);
  for (int form = 0; form < 2; form++) {
    t->dev = form ? gpu_like() : cpu_like();
    for (int k = 0; k < 9; k++) {
      region_builder *b = new_region("columns", TERN_F32);
      const int64_t m = rb_sym(b, inner[k % 3]), n = rb_sym(b, 41), o = rb_sym(b, 3);
      const int64_t full[3] = {n, o, m}, row[3] = {1, o, m}, last[3] = {1, 1, m}, first[3] = {n, 1, 1};
      const uint64_t dims = k < 3 ? 1 : k < 6 ? 2 : 3;
      const uint32_t x = rb_in(b, TERN_F32, 3, full, k % 2 ? RB_PADDED : RB_DENSE),
                     y = rb_in(b, TERN_F32, 3, k < 3 ? row : last, RB_DENSE);
      const uint32_t z = rb_in(b, TERN_F32, 3, first, RB_DENSE), scale = rb_param(b, TERN_F32, 0.25);
      if (k % 2) eval_store(b->args[b->values[x].slot].data, 3, TERN_F32, (tern_word){.f = NAN});
      const uint32_t s = rb_map(b, TERN_OP_ADD, rb_map(b, TERN_OP_MUL, x, y, RB_NONE),
                                rb_map(b, TERN_OP_MUL, z, scale, RB_NONE), RB_NONE);
      const uint32_t most = rb_reduce(b, TERN_OP_AMAX, s, dims), c = rb_map(b, TERN_OP_SUB, s, most, RB_NONE);
      const uint32_t w = rb_map(b, TERN_OP_WHERE, rb_map(b, TERN_OP_LT, c, scale, RB_NONE),
                                rb_map(b, TERN_OP_EXP, c, RB_NONE, RB_NONE), s);
      const uint32_t sum = rb_reduce(b, TERN_OP_SUM, w, dims), low = rb_reduce(b, TERN_OP_AMIN, x, dims);
      rb_out_alias(b, rb_map(b, TERN_OP_DIV, w, sum, RB_NONE), b->values[x].slot, x);
      rb_out(b, rb_map(b, TERN_OP_MAXIMUM, rb_map(b, TERN_OP_SQRT, sum, RB_NONE, RB_NONE), low, RB_NONE));
      rb_out(b, most);
      add(t, b, 16, 1e-6);
    }
    run_batch(t);
  }
  free(t);
}

static void test_random(void) {
  const char *n = getenv("TERN_TEST_REGIONS"), *first = getenv("TERN_TEST_FIRST");
  const unsigned from = first ? (unsigned)atoi(first) : 1, many = n ? (unsigned)atoi(n) : 24;
  batch *t = calloc(1, sizeof *t);
  for (int form = 0; form < 2 && has_fp64; form++) {
    t->dev = form ? gpu_like() : cpu_like();
    for (unsigned seed = from; seed < from + many; seed++) {
      region_builder *b = malloc(sizeof *b);
      rb_random_region(b, seed, true);
      add(t, b, 0, 0);
    }
    run_batch(t);
  }
  free(t);
}

int main(void) {
  if (!open_device()) {
    printf("SKIPPED test_render: no OpenCL platform with a device on this machine\n");
    return 0;
  }
  if (CU_initialize_registry()) return 1;
  CU_pSuite s = CU_add_suite("render", NULL, NULL);
  CU_add_test(s, "every MAP primitive", test_maps);
  CU_add_test(s, "every REDUCE primitive", test_reductions);
  CU_add_test(s, "composites", test_composites);
  CU_add_test(s, "long rows", test_long_rows);
  CU_add_test(s, "columns", test_columns);
  CU_add_test(s, "random regions", test_random);
  const char *only = getenv("TERN_TEST_ONLY"); /* the name of one test */
  for (CU_pTest test = s->pTest; test && only; test = test->pNext) test->fActive = !strcmp(test->pName, only);
  CU_basic_set_mode(CU_BRM_NORMAL);
  CU_basic_run_tests();
  printf("%lu regions, %lu kernel launches, %lu elements compared\n", n_regions, n_kernels, n_elements);
  if (n_left_out) printf("A SLICE: TERN_TEST_SLICE leaves out %lu regions\n", n_left_out);
  const unsigned failed = CU_get_number_of_failures();
  CU_cleanup_registry();
  clReleaseCommandQueue(queue);
  clReleaseContext(context);
  return failed != 0;
}
