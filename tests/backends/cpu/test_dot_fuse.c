/* DOT and CONV with an epilogue, in the CPU backend, against the reference evaluator: random chains of MAP nodes over
   products of whole numbers (so that the products are exact), every dtype and layout, in place and not. */
#include "../../../backends/cpu/dot_fuse.h"
#include "../../../backends/common/eval.h"
#include "../../../backends/common/nest.h"
#include "../common/regions.h"
#include <CUnit/Basic.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char message[512];
tern_rc cpu_error(tern_rc code, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(message, sizeof message, fmt, ap);
  va_end(ap);
  return code;
}

static bool is_real(uint32_t dtype) { return dtype >= TERN_F16; }

/* ---- building ---- */

/* A node of two inputs and attributes; its result is a TEMP */
static uint32_t add_product(region_builder *b, uint32_t op, uint32_t x, uint32_t y, uint32_t dtype, uint32_t rank,
                            const int64_t *shape, const int64_t *attr, uint32_t n_attr) {
  tern_node *const n = &b->nodes[b->region.n_nodes++];
  *n = (tern_node){.op = op, .n_in = 2, .n_out = 1, .in = b->n_edges, .out = b->n_edges + 2, .attr = b->n_attrs};
  n->n_attr = n_attr;
  for (uint32_t i = 0; i < n_attr; i++) b->attrs[b->n_attrs++].i = attr[i];
  const uint32_t v = b->region.n_values++;
  b->edges[b->n_edges++] = x;
  b->edges[b->n_edges++] = y;
  b->edges[b->n_edges++] = v;
  b->values[v] = (tern_value){.kind = TERN_V_TEMP, .dtype = (uint16_t)dtype, .rank = (uint16_t)rank, .alias = -1};
  memcpy(b->values[v].shape, shape, rank * sizeof *shape);
  return v;
}

static uint32_t pick(region_builder *b, uint32_t n) { return (uint32_t)(rb_random(b) % n); }

static int layout_of(region_builder *b) { return (int)pick(b, RB_LAYOUTS); }

/* An operand that broadcasts to `shape`: dims become 1 at random (bias, scale), or none does (residual) */
static uint32_t operand(region_builder *b, uint32_t dtype, uint32_t rank, const int64_t *shape, bool full) {
  int64_t s[TERN_MAX_RANK];
  const uint32_t how = pick(b, 4);
  if (!full && how == 0) return pick(b, 2) ? rb_const(b, dtype, 2) : rb_param(b, dtype, 3);
  for (uint32_t d = 0; d < rank; d++)
    s[d] = full || how == 1 ? shape[d] : how == 2 ? (d + 1 == rank ? shape[d] : 1) : pick(b, 2) ? shape[d] : 1;
  return rb_in(b, dtype, rank, s, pick(b, 2) ? RB_DENSE : layout_of(b));
}

static uint32_t gelu(region_builder *b, uint32_t x, uint32_t dtype) {
  const uint32_t e = rb_map(b, TERN_OP_ERF, rb_map(b, TERN_OP_MUL, x, rb_const(b, dtype, 0.70710678118654752), RB_NONE),
                            RB_NONE, RB_NONE);
  return rb_map(b, TERN_OP_MUL, rb_map(b, TERN_OP_MUL, x, rb_const(b, dtype, 0.5), RB_NONE),
                rb_map(b, TERN_OP_ADD, e, rb_const(b, dtype, 1), RB_NONE), RB_NONE);
}

static uint32_t one_step(region_builder *b, uint32_t x, const int64_t *shape) {
  const uint32_t dtype = b->values[x].dtype, rank = b->values[x].rank;
  switch (pick(b, is_real(dtype) ? 9 : 4)) {
  case 0: return rb_map(b, TERN_OP_ADD, x, operand(b, dtype, rank, shape, false), RB_NONE);
  case 1: return rb_map(b, TERN_OP_MAXIMUM, x, rb_const(b, dtype, 0), RB_NONE);
  case 2: return rb_map(b, TERN_OP_ADD, operand(b, dtype, rank, shape, true), x, RB_NONE);
  case 3: return rb_map(b, TERN_OP_WHERE, operand(b, TERN_BOOL, rank, shape, true), x, rb_const(b, dtype, 0));
  case 4: return rb_map(b, TERN_OP_MUL, x, rb_const(b, dtype, 0.5), RB_NONE);
  case 5: return gelu(b, x, dtype);
  case 6: return rb_map(b, TERN_OP_TANH, x, RB_NONE, RB_NONE);
  case 7: return rb_map(b, TERN_OP_SUB, operand(b, dtype, rank, shape, false), x, RB_NONE);
  default: {
    const uint32_t up = rb_cast(b, x, dtype == TERN_F32 ? TERN_F64 : TERN_F32);
    return up;
  }
  }
}

/* Column-major instead of row-major, where the OUT has memory of its own */
static void turn_out(region_builder *b, uint32_t v) {
  tern_value *const x = &b->values[v];
  int64_t stride = 1;
  for (uint32_t d = 0; d < x->rank; d++) {
    const int64_t n = TERN_LIT(x->shape[d], b->words);
    x->stride[d] = x->shape[d] == 1 ? 0 : stride == 1 && d + 1 == x->rank ? 1 : rb_sym(b, stride);
    stride *= n;
  }
}

/* A chain of up to five steps behind x; the last value is an OUT, others sometimes */
static void epilogue(region_builder *b, uint32_t x, const int64_t *shape) {
  uint32_t at = x;
  if (pick(b, 8) == 0) rb_out(b, x);
  for (uint32_t i = 1 + pick(b, 5); i > 0; i--) {
    at = one_step(b, at, shape);
    if (i > 1 && pick(b, 8) == 0) rb_out(b, at);
  }
  uint32_t donor = RB_NONE;
  for (uint32_t v = 0; v < b->region.n_values && pick(b, 4); v++) {
    const tern_value *const d = &b->values[v];
    bool fits = d->kind == TERN_V_IN && d->dtype == b->values[at].dtype && d->rank == b->values[at].rank;
    for (uint32_t k = 0; fits && k < d->rank; k++)
      fits = d->shape[k] == b->values[at].shape[k] && (d->shape[k] == 1 || TERN_LIT(d->stride[k], b->words) != 0);
    if (fits) donor = v;
  }
  if (b->values[at].kind == TERN_V_OUT) return;
  if (donor != RB_NONE) {
    rb_out_alias(b, at, b->values[donor].slot, donor);
  } else {
    rb_out(b, at);
    if (pick(b, 4) == 0) turn_out(b, at);
  }
}

/* ---- running ---- */

static double tolerance(uint32_t dtype) {
  return dtype == TERN_F64 ? 1e-5 : dtype == TERN_F32 ? 4e-6 : dtype == TERN_F16 ? 4e-3 : 3e-2;
}

/* Elements that differ from the evaluator's; -1: not run */
static int64_t compare(region_builder *b, bool loose) {
  static unsigned char *want[RB_MAX_ARGS], *got[RB_MAX_ARGS];
  void *want_at[RB_MAX_ARGS], *got_at[RB_MAX_ARGS];
  const tern_region *const r = &b->region;
  CU_ASSERT_FATAL(rb_copy_args(b, want, want_at) && rb_copy_args(b, got, got_at));
  char why[256] = "";
  const tern_rc evaluated = tern_eval(r, want_at, b->words, why, sizeof why);
  if (evaluated != TERN_OK) printf("\n  evaluator: %s", why);
  CU_ASSERT_EQUAL_FATAL(evaluated, TERN_OK);
  CU_ASSERT_EQUAL_FATAL(cpu_fuse_supports(r), TERN_OK);
  tern_kernel *k = NULL;
  tern_kernel_info info = {.struct_size = sizeof info};
  CU_ASSERT_EQUAL_FATAL(cpu_fuse_compile(r, &k, &info), TERN_OK);
  tern_arg args[RB_MAX_ARGS];
  for (uint32_t i = 0; i < r->n_args; i++) args[i] = (tern_arg){(tern_mem *)got_at[i], 0};
  const uint64_t bytes = info.workspace == UINT64_MAX ? k->workspace(k, b->words) : info.workspace;
  void *const ws = bytes ? aligned_alloc(64, (bytes + 63) & ~(uint64_t)63) : NULL;
  const tern_launch l = {
      .args = args, .words = b->words, .n_args = r->n_args, .n_words = r->n_words, .workspace = {ws, 0}};
  CU_ASSERT_EQUAL(k->run(k, &l), TERN_OK);
  int64_t bad = 0;
  for (uint32_t i = 0; i < r->n_args; i++) {
    double scale = 1; /* differences of large 16-bit numbers keep their error */
    for (int64_t e = 0; loose && b->args[i].data && is_real(b->args[i].dtype) && e < b->args[i].count; e++)
      scale = fmax(scale, fabs(eval_load(want[i], e, b->args[i].dtype).f));
    for (int64_t e = 0; b->args[i].data && e < b->args[i].count; e++) {
      const uint32_t dtype = b->args[i].dtype;
      const tern_word x = eval_load(want[i], e, dtype), y = eval_load(got[i], e, dtype);
      if (!is_real(dtype)) {
        bad += x.u != y.u;
        continue;
      }
      const double tol = tolerance(loose && dtype == TERN_F64 ? TERN_F32 : loose ? TERN_BF16 : dtype);
      bad += !(fabs(x.f - y.f) <= tol * (scale + fabs(x.f)) || (isnan(x.f) && isnan(y.f)) || x.f == y.f);
    }
  }
  k->destroy(k);
  free(ws);
  for (uint32_t i = 0; i < r->n_args; i++) free(want[i]), free(got[i]);
  return bad;
}

static bool has_half(const region_builder *b) {
  for (uint32_t v = 0; v < b->region.n_values; v++)
    if (b->values[v].dtype == TERN_F16 || b->values[v].dtype == TERN_BF16) return true;
  return false;
}

static const uint32_t pairs[][2] = {{TERN_F32, TERN_F32},   {TERN_F64, TERN_F64}, {TERN_F16, TERN_F16},
                                    {TERN_BF16, TERN_BF16}, {TERN_I8, TERN_I32},  {TERN_U8, TERN_I32},
                                    {TERN_I32, TERN_I32},   {TERN_I64, TERN_I64}};

static int64_t size_of(region_builder *b, int64_t most, bool literal) {
  const int64_t n = 1 + pick(b, (uint32_t)most);
  return n == 1 ? 1 : literal ? n : rb_sym(b, n);
}

/* A random product of rank 2 to 4 */
static void random_dot(region_builder *b, uint64_t seed, int64_t most, int pair, bool literal) {
  int64_t a[4], w[4], o[4];
  rb_init(b, "dot", seed);
  b->exact = true;
  const uint32_t rank = pick(b, 2) ? 2 : 3 + pick(b, 2), in = pairs[pair][0], out = pairs[pair][1];
  for (uint32_t d = 0; d + 2 < rank; d++) {
    const int64_t n = size_of(b, 4, literal);
    const uint32_t how = pick(b, 4);
    o[d] = n, a[d] = how == 1 ? 1 : n, w[d] = how == 2 ? 1 : n;
    if (how == 1) w[d] = n;
  }
  const int64_t m = size_of(b, most, literal), n = size_of(b, most, literal), k = size_of(b, most, literal);
  a[rank - 2] = m, a[rank - 1] = k, w[rank - 2] = k, w[rank - 1] = n, o[rank - 2] = m, o[rank - 1] = n;
  const uint32_t va = rb_in(b, in, rank, a, pick(b, 2) ? RB_DENSE : layout_of(b));
  const uint32_t vw = rb_in(b, in, rank, w, pick(b, 2) ? RB_DENSE : layout_of(b));
  epilogue(b, add_product(b, TERN_OP_DOT, va, vw, out, rank, o, NULL, 0), o);
}

static void test_random_dots(void) {
  enum { PAIRS = sizeof pairs / sizeof *pairs };
  region_builder *const b = malloc(sizeof *b);
  for (uint64_t seed = 0; seed < 640; seed++) {
    random_dot(b, seed, seed % 3 ? 9 : 70, (int)(seed % PAIRS), seed % 5 == 0);
    const int64_t bad = compare(b, has_half(b));
    if (bad) printf("\n  seed %llu: %lld wrong", (unsigned long long)seed, (long long)bad);
    CU_ASSERT_EQUAL(bad, 0);
    rb_free(b);
  }
  free(b);
}

/* Results beyond the size from which they are cut into blocks of rows, or of items */
static void test_blocks(void) {
  static const int64_t sizes[][4] = {{1, 1200, 900, 3}, {9, 330, 360, 4}, {3, 800, 450, 2}, {1, 20000, 55, 3}};
  region_builder *const b = malloc(sizeof *b);
  for (uint64_t t = 0; t < 8; t++) {
    const int64_t *const z = sizes[t % 4];
    rb_init(b, "blocks", 7 * t + 1);
    b->exact = true;
    const uint32_t rank = z[0] == 1 ? 2 : 3;
    const int64_t n0 = rb_sym(b, z[0]), m = rb_sym(b, z[1]), n = rb_sym(b, z[2]), k = rb_sym(b, z[3]);
    const int64_t a[3] = {n0, m, k}, w[3] = {t & 4 ? n0 : 1, k, n}, o[3] = {n0, m, n};
    const uint32_t va = rb_in(b, TERN_F32, rank, a + 3 - rank, layout_of(b));
    const uint32_t vw = rb_in(b, TERN_F32, rank, w + 3 - rank, layout_of(b));
    epilogue(b, add_product(b, TERN_OP_DOT, va, vw, TERN_F32, rank, o + 3 - rank, NULL, 0), o + 3 - rank);
    CU_ASSERT_EQUAL(compare(b, false), 0);
    rb_free(b);
  }
  free(b);
}

/* y = x + x w in place over x, which the product reads too */
static void test_in_place_over_an_operand(void) {
  region_builder *const b = malloc(sizeof *b);
  for (uint64_t t = 0; t < 8; t++) {
    rb_init(b, "over x", t);
    b->exact = true;
    const int64_t m = rb_sym(b, t < 6 ? 5 : 17000), n = rb_sym(b, t < 6 ? 3 + (int64_t)t : 63);
    const int64_t x[2] = {m, n}, w[2] = {n, n};
    const uint32_t vx = rb_in(b, TERN_F32, 2, x, RB_DENSE), vw = rb_in(b, TERN_F32, 2, w, RB_DENSE);
    const uint32_t y = add_product(b, TERN_OP_DOT, vx, vw, TERN_F32, 2, x, NULL, 0);
    const uint32_t z = t % 2 ? rb_map(b, TERN_OP_ADD, y, vx, RB_NONE) : rb_map(b, TERN_OP_NEG, y, RB_NONE, RB_NONE);
    rb_out_alias(b, z, b->values[vx].slot, vx);
    CU_ASSERT_EQUAL(compare(b, false), 0);
    rb_free(b);
  }
  free(b);
}

/* The donor of an OUT in place is also read through a transposing view */
static void test_views(void) {
  region_builder *const b = malloc(sizeof *b);
  for (uint64_t t = 0; t < 6; t++) {
    rb_init(b, "views", t);
    b->exact = true;
    const int64_t m = rb_sym(b, t < 4 ? 6 : 1100), k = rb_sym(b, 3), s[2] = {m, m}, turned[2] = {1, m};
    const int64_t a[2] = {m, k}, w[2] = {k, m}, w_turned[2] = {1, k};
    const uint32_t va = rb_in(b, TERN_F32, 2, a, RB_DENSE), vw = rb_in(b, TERN_F32, 2, a, RB_DENSE);
    const uint32_t res = rb_in(b, TERN_F32, 2, s, RB_DENSE);
    const uint32_t view = rb_view(b, res, 2, s, turned, 0);
    const uint32_t y = add_product(b, TERN_OP_DOT, va, rb_view(b, vw, 2, w, w_turned, 0), TERN_F32, 2, s, NULL, 0);
    const uint32_t z = rb_map(b, TERN_OP_ADD, rb_map(b, TERN_OP_ADD, y, view, RB_NONE), res, RB_NONE);
    if (t % 2)
      rb_out_alias(b, z, b->values[res].slot, res);
    else
      rb_out(b, z);
    CU_ASSERT_EQUAL(compare(b, false), 0);
    rb_free(b);
  }
  free(b);
}

/* Sizes, indices and random words inside the epilogue forbid blocks */
static void test_generators(void) {
  region_builder *const b = malloc(sizeof *b);
  for (uint64_t t = 0; t < 4; t++) {
    rb_init(b, "generators", t);
    b->exact = true;
    const int64_t m = rb_sym(b, t % 2 ? 1300 : 4), n = rb_sym(b, t % 2 ? 900 : 6), k = rb_sym(b, 3);
    const int64_t a[2] = {m, k}, w[2] = {k, n}, o[2] = {m, n};
    const uint32_t va = rb_in(b, TERN_F32, 2, a, RB_DENSE), vw = rb_in(b, TERN_F32, 2, w, RB_DENSE);
    const uint32_t y = add_product(b, TERN_OP_DOT, va, vw, TERN_F32, 2, o, NULL, 0);
    const uint32_t i = rb_iota(b, TERN_F32, 2, o, t / 2 ? 0 : 1);
    const uint32_t z =
        rb_map(b, TERN_OP_ADD, rb_map(b, TERN_OP_ADD, y, i, RB_NONE), rb_size(b, TERN_F32, t / 2 ? y : va, 3), RB_NONE);
    rb_out(b, z);
    CU_ASSERT_EQUAL(compare(b, false), 0);
    rb_free(b);
  }
  free(b);
}

/* ---- CONV ---- */

static void random_conv(region_builder *b, uint64_t seed, uint32_t dtype, bool literal) {
  rb_init(b, "conv", seed);
  b->exact = true;
  const uint32_t dims = 1 + pick(b, 2), rank = dims + 2, op = TERN_OP_CONV + pick(b, 3);
  int64_t x[4], w[4], y[4], attr[8] = {dims, 1 + pick(b, 2)};
  const int64_t g = attr[1], c = g * (1 + pick(b, 9)), o = g * (1 + pick(b, 9)), n = size_of(b, 3, literal);
  x[0] = y[0] = n;
  x[1] = c == 1 ? 1 : literal ? c : rb_sym(b, c), y[1] = w[0] = o == 1 ? 1 : literal ? o : rb_sym(b, o);
  w[1] = c / g == 1 ? 1 : g == 1 ? x[1] : literal ? c / g : rb_sym(b, c / g);
  for (uint32_t d = 0; d < dims; d++) {
    const int64_t taps = 1 + pick(b, 3), stride = 1 + pick(b, 2), pad = pick(b, 2), in = taps + pick(b, 9);
    const int64_t out = (in + 2 * pad - taps) / stride + 1;
    attr[2 + 3 * d] = stride, attr[3 + 3 * d] = 1, attr[4 + 3 * d] = pad;
    x[2 + d] = in == 1 ? 1 : rb_sym(b, in), w[2 + d] = taps == 1 ? 1 : rb_sym(b, taps);
    y[2 + d] = out == 1 ? 1 : rb_sym(b, out);
  }
  int64_t *const from[3][2] = {{x, w}, {y, w}, {x, y}}, *const to[3] = {y, x, w};
  const uint32_t i = op - TERN_OP_CONV;
  const uint32_t p = rb_in(b, dtype, rank, from[i][0], pick(b, 2) ? RB_DENSE : RB_PERMUTED);
  const uint32_t q = rb_in(b, dtype, rank, from[i][1], pick(b, 2) ? RB_DENSE : layout_of(b));
  epilogue(b, add_product(b, op, p, q, dtype, rank, to[i], attr, 2 + 3 * dims), to[i]);
}

static void test_random_convs(void) {
  static const uint32_t dtypes[] = {TERN_F32, TERN_F32, TERN_F64, TERN_F16, TERN_BF16};
  region_builder *const b = malloc(sizeof *b);
  for (uint64_t seed = 0; seed < 300; seed++) {
    random_conv(b, seed, dtypes[seed % 5], seed % 2);
    const int64_t bad = compare(b, has_half(b));
    if (bad) printf("\n  seed %llu: %lld wrong", (unsigned long long)seed, (long long)bad);
    CU_ASSERT_EQUAL(bad, 0);
    rb_free(b);
  }
  free(b);
}

/* ---- refusals ---- */

static void test_refusals(void) {
  region_builder *const b = malloc(sizeof *b);
  for (int t = 0; t < 4; t++) {
    rb_init(b, "refused", 3);
    const int64_t m = rb_sym(b, 4), s[2] = {m, m};
    uint32_t x = rb_in(b, TERN_F32, 2, s, RB_DENSE);
    const uint32_t w = rb_in(b, TERN_F32, 2, s, RB_DENSE);
    if (t == 0) x = rb_map(b, TERN_OP_NEG, x, RB_NONE, RB_NONE); /* a prologue */
    uint32_t y = add_product(b, TERN_OP_DOT, x, w, TERN_F32, 2, s, NULL, 0);
    if (t == 1) y = add_product(b, TERN_OP_DOT, y, w, TERN_F32, 2, s, NULL, 0); /* two products */
    y = t == 2 ? rb_reduce(b, TERN_OP_SUM, y, 2) : rb_map(b, TERN_OP_NEG, y, RB_NONE, RB_NONE);
    rb_out(b, y);
    CU_ASSERT_EQUAL(cpu_fuse_supports(&b->region), t == 3 ? TERN_OK : TERN_E_UNSUPPORTED);
    rb_free(b);
  }
  free(b);
}

int main(void) {
  if (CU_initialize_registry() != CUE_SUCCESS) return 1;
  CU_pSuite s = CU_add_suite("cpu products with epilogues", NULL, NULL);
  CU_add_test(s, "random DOTs", test_random_dots);
  CU_add_test(s, "blocks", test_blocks);
  CU_add_test(s, "in place over an operand", test_in_place_over_an_operand);
  CU_add_test(s, "views", test_views);
  CU_add_test(s, "indices and sizes", test_generators);
  CU_add_test(s, "random CONVs", test_random_convs);
  CU_add_test(s, "refusals", test_refusals);
  CU_basic_set_mode(CU_BRM_VERBOSE);
  CU_basic_run_tests();
  const unsigned failed = CU_get_number_of_failures();
  CU_cleanup_registry();
  return failed != 0;
}
