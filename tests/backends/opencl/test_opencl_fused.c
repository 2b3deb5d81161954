/* Fused regions on an OpenCL device: DOT, CONV, CONV_DX and CONV_DW with the MAP nodes behind them, and regions of many
   alike nests, random ones of every float dtype, against the reference evaluator. */
#include "../../../backends/common/eval.h"
#include "../../../backends/common/nest.h"
#include "../common/regions.h"
#include "opencl_host.h"

#include <math.h>

static bool has_fp64;
static unsigned n_checked;

/* ---- running a region ---- */

static tern_rc run_region(region_builder *b, unsigned char **got) {
  const tern_backend *api = host_state.api;
  info_block block = {0}, info = {0};
  block.region = b->region;
  info.kernel.struct_size = sizeof info.kernel;
  uint32_t want_static = 0;
  tern_kernel *k = NULL;
  tern_rc rc = api->supports(host_state.dev, &block.region, &want_static);
  if (!rc) rc = api->compile(host_state.dev, &block.region, &k, &info.kernel);
  if (rc) return rc;
  uint64_t bytes = info.kernel.workspace;
  if (bytes == UINT64_MAX) rc = api->workspace(host_state.dev, k, b->words, &bytes);
  tern_arg args[RB_MAX_ARGS];
  tern_mem *shared[RB_MAX_ARGS] = {0};
  for (uint32_t i = 0; i < b->region.n_args && !rc; i++) {
    const uint32_t item = size_of(b->args[i].dtype), front = 64;
    int32_t alias = -1;
    for (uint32_t v = 0; v < b->region.n_values; v++)
      if (b->values[v].kind == TERN_V_OUT && b->values[v].slot == i) alias = b->values[v].alias;
    if (alias >= 0) {
      args[i] = args[alias];
      continue;
    }
    const uint64_t size = (uint64_t)b->args[i].count * item;
    shared[i] = mem_new(size + front);
    args[i] = (tern_arg){shared[i], front + (uint64_t)b->args[i].origin * item};
    rc = shared[i] ? put(shared[i], front, b->args[i].data, size) : TERN_E_OOM;
  }
  tern_arg ws = {bytes ? mem_new(bytes + 64) : NULL, 64};
  const tern_launch l = {
      .args = args, .words = b->words, .n_args = b->region.n_args, .n_words = b->region.n_words, .workspace = ws};
  if (!rc) rc = api->launch(host_state.dev, host_state.q, k, &l);
  for (uint32_t i = 0; i < b->region.n_args && !rc; i++) {
    const uint64_t size = (uint64_t)b->args[i].count * size_of(b->args[i].dtype);
    got[i] = shared[i] ? malloc(size) : NULL;
    if (got[i]) rc = get(shared[i], 64, got[i], size);
  }
  finish();
  for (uint32_t i = 0; i < b->region.n_args; i++)
    if (shared[i]) api->mem_free(host_state.dev, shared[i]);
  if (ws.mem) api->mem_free(host_state.dev, ws.mem);
  api->kernel_free(host_state.dev, k);
  return rc;
}

static double epsilon(uint32_t dtype) {
  return dtype == TERN_F16 ? 0x1p-10 : dtype == TERN_BF16 ? 0x1p-7 : dtype == TERN_F32 ? 0x1p-23 : 0x1p-52;
}

/* All arguments as they are afterwards: those that nobody writes must not change. eps: of the roughest dtype within */
static bool same_results(const region_builder *b, unsigned char **got, unsigned char **want, double eps) {
  for (uint32_t i = 0; i < b->region.n_args; i++)
    for (int64_t k = 0; got[i] && k < b->args[i].count; k++) {
      const uint32_t dtype = b->args[i].dtype;
      const tern_word g = eval_load(got[i], k, dtype), w = eval_load(want[i], k, dtype);
      const double room = (eps > epsilon(dtype) ? eps : epsilon(dtype)) * 24 * (1 + fabs(w.f));
      const bool ok = dtype < TERN_F16 ? g.u == w.u : fabs(g.f - w.f) <= room || (isnan(g.f) && isnan(w.f));
      if (ok) continue;
      if (dtype < TERN_F16)
        printf("\n%s: argument %u element %lld: %lld, not %lld\n", b->name, i, (long long)k, (long long)g.i, (long long)w.i);
      else
        printf("\n%s: argument %u element %lld: %.9g, not %.9g\n", b->name, i, (long long)k, g.f, w.f);
      return false;
    }
  return true;
}

static bool check(region_builder *b, double eps) {
  unsigned char *want[RB_MAX_ARGS] = {0}, *got[RB_MAX_ARGS] = {0};
  void *args[RB_MAX_ARGS] = {0};
  char message[200] = "";
  bool ok = rb_copy_args(b, want, args);
  if (ok && tern_eval(&b->region, args, b->words, message, sizeof message)) {
    printf("\n%s: the reference refuses it: %s\n", b->name, message);
    ok = false;
  }
  const tern_rc rc = ok ? run_region(b, got) : TERN_OK;
  if (rc) printf("\n%s: %d: %s\n", b->name, rc, rc == TERN_E_UNSUPPORTED ? "not supported" : host_state.error);
  ok = ok && !rc && same_results(b, got, want, eps);
  for (uint32_t i = 0; i < b->region.n_args; i++) {
    free(want[i]);
    free(got[i]);
  }
  n_checked += ok;
  return ok;
}

/* ---- products ---- */

static uint32_t product_node(region_builder *b, uint32_t op, uint32_t x, uint32_t y, uint32_t dtype, uint32_t rank,
                             const int64_t *shape) {
  const uint32_t out = b->region.n_values++;
  b->values[out] = (tern_value){.kind = TERN_V_TEMP, .dtype = (uint16_t)dtype, .rank = (uint16_t)rank, .alias = -1};
  memcpy(b->values[out].shape, shape, rank * sizeof *shape);
  b->nodes[b->region.n_nodes++] =
      (tern_node){.op = op, .n_in = 2, .n_out = 1, .in = b->n_edges, .out = b->n_edges + 2, .attr = b->n_attrs};
  b->edges[b->n_edges++] = x;
  b->edges[b->n_edges++] = y;
  b->edges[b->n_edges++] = out;
  return out;
}

static void attribute(region_builder *b, int64_t x) {
  b->attrs[b->n_attrs++].i = x;
  b->nodes[b->region.n_nodes - 1].n_attr++;
}

static uint32_t product_in(region_builder *b, uint32_t dtype, uint32_t rank, const int64_t *shape, double size) {
  const int layout = (int)(rb_random(b) % RB_BROADCAST);
  return dtype < TERN_F16 ? rb_in(b, dtype, rank, shape, layout)
                          : rb_in_range(b, dtype, rank, shape, layout, -size, size);
}

static int64_t pick(region_builder *b, const int64_t *from, uint32_t n) { return from[rb_random(b) % n]; }

static uint32_t random_dot(region_builder *b, uint32_t in, uint32_t out, bool large) {
  static const int64_t ms[] = {1, 3, 8, 17, 40}, ns[] = {1, 5, 10, 32, 33, 70}, ks[] = {1, 7, 20, 64};
  const uint32_t batch = large ? 0 : (uint32_t)(rb_random(b) % 3), rank = batch + 2;
  int64_t a[4], c[4], d[4];
  for (uint32_t i = 0; i < batch; i++) {
    const int64_t n = rb_sym(b, 2 + (int64_t)(rb_random(b) % 3));
    a[i] = rb_random(b) % 4 ? n : 1;
    c[i] = rb_random(b) % 4 && a[i] != 1 ? 1 : n;
    d[i] = n;
  }
  const int64_t k = large ? 800 : pick(b, ks, 4);
  a[batch] = d[batch] = rb_sym(b, large ? 40 : pick(b, ms, 5));
  a[batch + 1] = c[batch] = rb_sym(b, k);
  c[batch + 1] = d[batch + 1] = rb_sym(b, large ? 130 : pick(b, ns, 6));
  const double size = 2 / sqrt((double)k);
  const uint32_t x = product_in(b, in, rank, a, size), y = product_in(b, in, rank, c, 1);
  return product_node(b, TERN_OP_DOT, x, y, out, rank, d);
}

static uint32_t random_conv(region_builder *b, uint32_t op, uint32_t dtype) {
  static const int64_t per[] = {1, 2, 5, 16, 20, 33};
  const int64_t dims = 1 + (int64_t)(rb_random(b) % 2), groups = rb_random(b) % 3 ? 1 : 2 + 14 * (int64_t)(rb_random(b) % 2);
  const int64_t c = pick(b, per, groups > 1 ? 2 : 6), o = pick(b, per, groups > 1 ? 2 : 6);
  int64_t x[4], w[4], y[4], stride[2], dilation[2], pad[2];
  x[0] = y[0] = rb_sym(b, 1 + (int64_t)(rb_random(b) % 3));
  x[1] = rb_sym(b, c * groups), y[1] = rb_sym(b, o * groups);
  w[0] = rb_sym(b, o * groups), w[1] = rb_sym(b, c);
  w[0] = y[1];
  int64_t taps = c;
  for (int d = 0; d < dims; d++) {
    const int64_t size = 5 + (int64_t)(rb_random(b) % 7), k = 1 + (int64_t)(rb_random(b) % 3);
    stride[d] = 1 + (int64_t)(rb_random(b) % 2), dilation[d] = 1 + (int64_t)(rb_random(b) % 2);
    pad[d] = (int64_t)(rb_random(b) % 2);
    x[2 + d] = rb_sym(b, size), w[2 + d] = rb_sym(b, k);
    y[2 + d] = rb_sym(b, (size + 2 * pad[d] - dilation[d] * (k - 1) - 1) / stride[d] + 1);
    taps *= k;
  }
  const uint32_t rank = (uint32_t)dims + 2;
  const int64_t *first = op == TERN_OP_CONV_DX ? y : x, *second = op == TERN_OP_CONV_DW ? y : w,
                *result = op == TERN_OP_CONV ? y : op == TERN_OP_CONV_DX ? x : w;
  const uint32_t in0 = product_in(b, dtype, rank, first, 2 / sqrt((double)taps)), in1 = product_in(b, dtype, rank, second, 1);
  const uint32_t out = product_node(b, op, in0, in1, dtype, rank, result);
  attribute(b, dims);
  attribute(b, groups);
  for (int d = 0; d < dims; d++) {
    attribute(b, stride[d]);
    attribute(b, dilation[d]);
    attribute(b, pad[d]);
  }
  return out;
}

/* An operand beside x: full, one row or column of it, or a number */
static uint32_t beside(region_builder *b, uint32_t x, uint32_t *full) {
  const tern_value v = b->values[x];
  int64_t shape[TERN_MAX_RANK];
  for (uint32_t d = 0; d < v.rank; d++) shape[d] = 1;
  switch (rb_random(b) % 6) {
  case 0: return rb_const(b, v.dtype, v.dtype < TERN_F16 ? 3 : 0.75);
  case 1: return rb_param(b, v.dtype, v.dtype < TERN_F16 ? 2 : -0.5);
  case 2: shape[v.rank - 1] = v.shape[v.rank - 1]; break;
  case 3: shape[1] = v.shape[1]; break;
  case 4: return v.dtype == TERN_F16 || v.dtype == TERN_BF16 ? rb_const(b, v.dtype, 1) : rb_size(b, v.dtype, x, 2);
  default: memcpy(shape, v.shape, sizeof shape);
  }
  const bool whole = !memcmp(shape, v.shape, v.rank * sizeof *shape);
  const uint32_t in = v.dtype < TERN_F16
                          ? rb_in(b, v.dtype, v.rank, shape, (int)(rb_random(b) % RB_LAYOUTS))
                          : rb_in_range(b, v.dtype, v.rank, shape, (int)(rb_random(b) % RB_LAYOUTS), -1, 1);
  if (whole) *full = in;
  return in;
}

static uint32_t gelu(region_builder *b, uint32_t x) {
  const uint32_t dtype = b->values[x].dtype;
  const uint32_t e = rb_map(b, TERN_OP_ERF, rb_map(b, TERN_OP_MUL, x, rb_const(b, dtype, 0.70710678118654752), RB_NONE),
                            RB_NONE, RB_NONE);
  return rb_map(b, TERN_OP_MUL, rb_map(b, TERN_OP_MUL, x, rb_const(b, dtype, 0.5), RB_NONE),
                rb_map(b, TERN_OP_ADD, e, rb_const(b, dtype, 1), RB_NONE), RB_NONE);
}

static uint32_t step(region_builder *b, uint32_t x, uint32_t *full) {
  const uint32_t dtype = b->values[x].dtype;
  const bool real = dtype >= TERN_F16;
  switch (rb_random(b) % (real ? 9 : 4)) {
  case 0:
  case 1: return rb_map(b, TERN_OP_ADD, x, beside(b, x, full), RB_NONE);
  case 2: return rb_map(b, TERN_OP_MAXIMUM, x, rb_const(b, dtype, 0), RB_NONE);
  case 3: return rb_map(b, TERN_OP_SUB, beside(b, x, full), x, RB_NONE);
  case 4: return gelu(b, x);
  case 5: return rb_map(b, TERN_OP_TANH, x, RB_NONE, RB_NONE);
  case 6:
    return rb_map(b, TERN_OP_WHERE, rb_map(b, TERN_OP_GT, x, rb_const(b, dtype, 0), RB_NONE), x,
                  rb_map(b, TERN_OP_MUL, x, rb_param(b, dtype, 0.25), RB_NONE));
  case 7: /* of numbers only: once a launch */
    x = rb_map(b, TERN_OP_MUL, x, rb_map(b, TERN_OP_SQRT, rb_param(b, dtype, 0.5), RB_NONE, RB_NONE), RB_NONE);
    return rb_cast(b, rb_cast(b, x, TERN_F32), dtype);
  default: return rb_map(b, TERN_OP_MUL, x, rb_in_range(b, dtype, b->values[x].rank, b->values[x].shape, RB_DENSE, -1, 1), RB_NONE);
  }
}

/* Steps behind product x, several OUTs, the last one maybe in place over the full operand or one of the product's */
static void epilogue(region_builder *b, uint32_t x) {
  const uint32_t product = x, steps = 1 + (uint32_t)(rb_random(b) % 4);
  uint32_t full = RB_NONE, made[8];
  for (uint32_t i = 0; i < steps; i++) made[i] = x = step(b, x, &full);
  if (b->values[product].kind == TERN_V_TEMP && rb_random(b) % 4 == 0) rb_out(b, product);
  for (uint32_t i = 0; i + 1 < steps; i++)
    if (b->values[made[i]].kind == TERN_V_TEMP && rb_random(b) % 4 == 0) rb_out(b, made[i]);
  if (b->values[x].kind != TERN_V_TEMP) return;
  const tern_value *f = full == RB_NONE ? NULL : &b->values[full];
  const bool dense = f && f->dtype == b->values[x].dtype && rb_random(b) % 2;
  bool distinct = dense; /* an argument that broadcasts is no memory for a result */
  for (uint32_t d = 0; dense && d < f->rank; d++) distinct &= f->shape[d] == 1 || TERN_LIT(f->stride[d], b->words) != 0;
  if (distinct)
    rb_out_alias(b, x, f->slot, full);
  else
    rb_out(b, x);
}

static void start(region_builder *b, const char *what, uint32_t dtype, uint64_t seed) {
  char name[64];
  snprintf(name, sizeof name, "%s %s seed %llu", what, nest_dtype_name(dtype), (unsigned long long)seed);
  rb_init(b, name, seed * 977 + dtype);
  snprintf(b->name, sizeof b->name, "%s", name);
  if (seed % 3) b->region.flags |= TERN_R_IDX32;
}

static void test_dot(void) {
  static const uint32_t dtypes[][2] = {{TERN_F32, TERN_F32}, {TERN_F32, TERN_F32}, {TERN_F16, TERN_F16},
                                       {TERN_BF16, TERN_BF16}, {TERN_F64, TERN_F64}, {TERN_I32, TERN_I32},
                                       {TERN_I8, TERN_I32},    {TERN_U8, TERN_U8},   {TERN_I64, TERN_I64}};
  static region_builder b;
  for (uint32_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
    for (uint64_t seed = 0; seed < (i < 2 ? 12 : 5); seed++) {
      const uint32_t in = dtypes[i][0], out = dtypes[i][1];
      if (in == TERN_F64 && !has_fp64) continue;
      start(&b, "DOT", in, seed + 100 * i);
      epilogue(&b, random_dot(&b, in, out, seed == 0 && out >= TERN_F32));
      CU_ASSERT(check(&b, in < TERN_F16 ? 0 : epsilon(in)));
      rb_free(&b);
    }
}

/* Whoever makes the product: also CLBlast, whose result a second kernel takes on */
static void test_providers(void) {
  static const char *const gemm[] = {"plain", "tiled", "clblast"};
  static region_builder b;
  for (uint32_t i = 0; i < 3; i++)
    for (uint64_t seed = 0; seed < 4; seed++) {
      host_state.gemm = gemm[i];
      start(&b, gemm[i], TERN_F32, seed + 500);
      epilogue(&b, random_dot(&b, TERN_F32, TERN_F32, seed == 0));
      CU_ASSERT(check(&b, epsilon(TERN_F32)));
      rb_free(&b);
    }
  host_state.gemm = NULL;
}

static void test_conv(void) {
  static const uint32_t ops[] = {TERN_OP_CONV, TERN_OP_CONV_DX, TERN_OP_CONV_DW};
  static const uint32_t dtypes[] = {TERN_F32, TERN_F16, TERN_BF16, TERN_F64};
  static region_builder b;
  for (uint32_t i = 0; i < 3; i++)
    for (uint32_t t = 0; t < 4; t++)
      for (uint64_t seed = 0; seed < (t ? 3 : 8); seed++) {
        if (dtypes[t] == TERN_F64 && !has_fp64) continue;
        start(&b, i == 0 ? "CONV" : i == 1 ? "CONV_DX" : "CONV_DW", dtypes[t], seed + 10 * i);
        epilogue(&b, random_conv(&b, ops[i], dtypes[t]));
        CU_ASSERT(check(&b, epsilon(dtypes[t])));
        rb_free(&b);
      }
}

/* x = gelu(x w) + x over x itself: the product must be complete before */
static void test_in_place(void) {
  static region_builder b;
  for (uint32_t t = 0; t < 2; t++) {
    const uint32_t dtype = t ? TERN_BF16 : TERN_F32;
    start(&b, "over its operand", dtype, 1);
    const int64_t m = rb_sym(&b, 37), n = rb_sym(&b, 51), x[2] = {m, n}, w[2] = {n, n};
    const uint32_t a = rb_in_range(&b, dtype, 2, x, RB_DENSE, -1, 1), c = rb_in_range(&b, dtype, 2, w, RB_PADDED, -0.2, 0.2);
    const uint32_t y = rb_map(&b, TERN_OP_ADD, gelu(&b, product_node(&b, TERN_OP_DOT, a, c, dtype, 2, x)), a, RB_NONE);
    rb_out_alias(&b, y, b.values[a].slot, a);
    CU_ASSERT(check(&b, epsilon(dtype)));
    rb_free(&b);
  }
  start(&b, "over its operand", TERN_F32, 2);
  const int64_t one = rb_sym(&b, 2), ch = rb_sym(&b, 20), side = rb_sym(&b, 9), tap = rb_sym(&b, 3);
  const int64_t x[4] = {one, ch, side, side}, w[4] = {ch, ch, tap, tap};
  const uint32_t a = rb_in_range(&b, TERN_F32, 4, x, RB_DENSE, -1, 1), c = rb_in_range(&b, TERN_F32, 4, w, RB_DENSE, -0.1, 0.1);
  const uint32_t p = product_node(&b, TERN_OP_CONV, a, c, TERN_F32, 4, x);
  for (int i = 0; i < 8; i++) attribute(&b, (const int64_t[]){2, 1, 1, 1, 1, 1, 1, 1}[i]);
  rb_out_alias(&b, rb_map(&b, TERN_OP_ADD, p, a, RB_NONE), b.values[a].slot, a);
  CU_ASSERT(check(&b, epsilon(TERN_F32)));
  rb_free(&b);
}

/* What is not ours is refused by supports(), not by compile() */
static void test_refused(void) {
  static region_builder b;
  start(&b, "refused", TERN_F32, 1);
  const int64_t m = rb_sym(&b, 4), n = rb_sym(&b, 6), x[2] = {m, n}, w[2] = {n, n};
  const uint32_t a = rb_in(&b, TERN_F32, 2, x, RB_DENSE), c = rb_in(&b, TERN_F32, 2, w, RB_DENSE);
  const uint32_t p = product_node(&b, TERN_OP_DOT, a, c, TERN_F32, 2, x);
  rb_out(&b, rb_reduce(&b, TERN_OP_SUM, p, 2));
  info_block block = {0};
  block.region = b.region;
  uint32_t want = 0;
  CU_ASSERT(host_state.api->supports(host_state.dev, &block.region, &want) == TERN_E_UNSUPPORTED);
  rb_free(&b);
}

/* One updated parameter: m = b m + g, p = p - lr m / (|m| + 1), over m and p */
static void update(region_builder *b, uint32_t lr, uint32_t rank, const int64_t *shape, uint32_t dtype) {
  uint32_t in[3];
  for (int i = 0; i < 3; i++) in[i] = rb_in_range(b, dtype, rank, shape, RB_DENSE, -1, 1);
  const uint32_t m = rb_map(b, TERN_OP_ADD, rb_map(b, TERN_OP_MUL, in[1], rb_const(b, dtype, 0.875), RB_NONE), in[2], RB_NONE);
  const uint32_t d = rb_map(b, TERN_OP_ADD, rb_map(b, TERN_OP_ABS, m, RB_NONE, RB_NONE), rb_const(b, dtype, 1), RB_NONE);
  const uint32_t p = rb_map(b, TERN_OP_SUB, in[0], rb_map(b, TERN_OP_MUL, lr, rb_map(b, TERN_OP_DIV, m, d, RB_NONE), RB_NONE), RB_NONE);
  rb_out_alias(b, m, b->values[in[1]].slot, in[1]);
  rb_out_alias(b, p, b->values[in[0]].slot, in[0]);
}

static void test_many_nests(void) {
  static const int64_t sizes[] = {5000, 7, 1, 300, 12345, 64};
  static region_builder b;
  for (uint32_t dtype = TERN_F16; dtype <= TERN_F64; dtype++) {
    if (dtype == TERN_F64 && !has_fp64) continue;
    for (uint32_t n = 1; n <= 4; n++) {
      start(&b, "many updates", dtype, n);
      const uint32_t lr = rb_param(&b, dtype, 0.125);
      for (uint32_t i = 0; i < n; i++) {
        const int64_t shape[2] = {rb_sym(&b, sizes[(i + n) % 6]), rb_sym(&b, 3 + i)};
        update(&b, lr, i == 2 ? 2 : 1, shape, dtype);
      }
      CU_ASSERT(check(&b, epsilon(dtype)));
      rb_free(&b);
    }
  }
  for (uint32_t form = 0; form < 3; form++) { /* rows, columns, one long row beside short ones */
    start(&b, "many reductions", TERN_F32, form);
    for (uint32_t i = 0; i < 5; i++) {
      const int64_t shape[2] = {rb_sym(&b, form == 2 ? 1 + i : 3 + 20 * i), rb_sym(&b, form == 2 && i < 2 ? 70000 : 5 + 9 * i)};
      const uint32_t x = rb_in_range(&b, TERN_F32, 2, shape, RB_DENSE, -1, 1);
      const uint32_t top = rb_reduce(&b, TERN_OP_AMAX, x, form == 1 ? 1 : 2);
      rb_out(&b, rb_map(&b, TERN_OP_SUB, x, top, RB_NONE));
    }
    CU_ASSERT(check(&b, epsilon(TERN_F32)));
    rb_free(&b);
  }
}

int main(int argc, char **argv) {
  if (!host_open(argc, argv)) return 0;
  info_block info;
  has_fp64 = !device_describe(0, &info) && (info.info.dtypes >> TERN_F64 & 1);
  if (CU_initialize_registry() != CUE_SUCCESS) return 1;
  CU_pSuite s = CU_add_suite("fused regions on an OpenCL device", NULL, NULL);
  CU_add_test(s, "DOT and what follows it", test_dot);
  CU_add_test(s, "DOT by other kernels", test_providers);
  CU_add_test(s, "CONV, CONV_DX, CONV_DW and what follows", test_conv);
  CU_add_test(s, "a result over an operand of the product", test_in_place);
  CU_add_test(s, "many nests in one region", test_many_nests);
  CU_add_test(s, "what supports() refuses", test_refused);
  CU_basic_set_mode(CU_BRM_VERBOSE);
  CU_basic_run_tests();
  const unsigned failed = CU_get_number_of_failures();
  printf("%u regions agree with the reference\n", n_checked);
  CU_cleanup_registry();
  host_close();
  return failed ? 1 : 0;
}
