/* DOT of the CPU backend on regions built by hand, against plain loops in long double (integers: in uint64_t). Links
   the objects of backends/cpu without the plugin, so the host's error service is defined here. */
#include "../../../backends/cpu/cpu.h"
#include "../../../backends/cpu/dot_half.h"
#include <CUnit/Basic.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static char message[512];
tern_rc cpu_error(tern_rc code, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(message, sizeof message, fmt, ap);
  va_end(ap);
  return code;
}

static uint64_t seed = 1;
static uint32_t rnd(uint32_t n) {
  seed = seed * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(seed >> 33) % n;
}

/* ---- one operand: a strided view into guarded memory ---- */
struct operand {
  uint32_t dtype;
  int rank;
  int64_t shape[8], stride[8], count, offset; /* elements of mem, first element's place */
  char *mem;
};

static void put(char *p, uint32_t dtype, int v) {
  switch (dtype) {
  case TERN_F32: *(float *)p = (float)v / 16; break;
  case TERN_F64: *(double *)p = (double)v / 16; break;
  case TERN_F16: *(uint16_t *)p = to_f16((float)v / 16); break;
  case TERN_BF16: *(uint16_t *)p = to_bf16((float)v / 16); break;
  case TERN_I8:
  case TERN_U8: *(uint8_t *)p = (uint8_t)v; break;
  case TERN_I16:
  case TERN_U16: *(uint16_t *)p = (uint16_t)(v * 257); break;
  case TERN_I32:
  case TERN_U32: *(uint32_t *)p = (uint32_t)v * 16843009u; break;
  default: *(uint64_t *)p = (uint64_t)(int64_t)v * 72340172838076673u;
  }
}
static long double real(const char *p, uint32_t dtype) {
  return dtype == TERN_F32   ? *(const float *)p
         : dtype == TERN_F64 ? *(const double *)p
         : dtype == TERN_F16 ? from_f16(*(const uint16_t *)p)
                             : from_bf16(*(const uint16_t *)p);
}
static uint64_t whole(const char *p, uint32_t dtype) {
  switch (dtype) {
  case TERN_I8: return (uint64_t) * (const int8_t *)p;
  case TERN_U8: return *(const uint8_t *)p;
  case TERN_I16: return (uint64_t) * (const int16_t *)p;
  case TERN_U16: return *(const uint16_t *)p;
  case TERN_I32: return (uint64_t) * (const int32_t *)p;
  case TERN_U32: return *(const uint32_t *)p;
  default: return *(const uint64_t *)p;
  }
}
static bool is_real(uint32_t dtype) { return dtype >= TERN_F16 && dtype <= TERN_F64; }

enum { DENSE, TURNED, PADDED, TURNED_PADDED, REVERSED, SPACED, LAYOUTS };
/* Memory of exactly the view's extent, so that the address sanitizer sees any excess. how: the last two dims' layout */
static void make(struct operand *x, int how) {
  const int r = x->rank;
  const int64_t rows = x->shape[r - 2], cols = x->shape[r - 1];
  int64_t step;
  switch (how) {
  case TURNED: x->stride[r - 2] = 1, x->stride[r - 1] = rows, step = rows * cols; break;
  case PADDED: x->stride[r - 2] = cols + 3, x->stride[r - 1] = 1, step = rows * (cols + 3); break;
  case TURNED_PADDED: x->stride[r - 2] = 1, x->stride[r - 1] = rows + 5, step = cols * (rows + 5); break;
  case REVERSED: x->stride[r - 2] = -cols, x->stride[r - 1] = 1, step = rows * cols; break;
  case SPACED: x->stride[r - 2] = 2 * cols, x->stride[r - 1] = 2, step = 2 * rows * cols; break;
  default: x->stride[r - 2] = cols, x->stride[r - 1] = 1, step = rows * cols;
  }
  for (int d = r - 3; d >= 0; d--) {
    x->stride[d] = x->shape[d] == 1 ? 0 : step;
    step *= x->shape[d];
  }
  int64_t low = 0, high = 0;
  for (int d = 0; d < r; d++) {
    const int64_t reach = (x->shape[d] - 1) * x->stride[d];
    *(reach < 0 ? &low : &high) += reach;
  }
  x->offset = -low;
  x->count = high - low + 1;
  const size_t size = cpu_item_size(x->dtype);
  x->mem = malloc((size_t)x->count * size);
  for (int64_t i = 0; i < x->count; i++) put(x->mem + (size_t)i * size, x->dtype, (int)rnd(101) - 50);
}
static char *at(const struct operand *x, const int64_t *index) {
  int64_t p = x->offset;
  for (int d = 0; d < x->rank; d++) p += x->shape[d] == 1 ? 0 : index[d] * x->stride[d];
  return x->mem + p * (int64_t)cpu_item_size(x->dtype);
}

/* ---- a region of one DOT ---- */
static int64_t word(tern_word *words, uint32_t *n, int64_t v, bool literal) {
  if (literal) return v;
  words[*n].i = v;
  return TERN_SYM((*n)++);
}
static void fill(tern_value *v, const struct operand *x, uint8_t kind, uint32_t slot, tern_word *words, uint32_t *n) {
  memset(v, 0, sizeof *v);
  v->dtype = (uint16_t)x->dtype, v->rank = (uint16_t)x->rank, v->kind = kind, v->slot = slot, v->alias = -1;
  for (int d = 0; d < x->rank; d++) {
    const bool last = d >= x->rank - 2, one = x->shape[d] == 1;
    v->shape[d] = one ? 1 : word(words, n, x->shape[d], false);
    v->stride[d] = one ? 0 : word(words, n, x->stride[d], last && x->stride[d] == 1);
  }
}

static tern_kernel *compile(const struct operand *a, const struct operand *b, const struct operand *o, tern_word *words,
                            uint32_t *n, tern_kernel_info *info) {
  static const uint32_t edges[3] = {0, 1, 2};
  const tern_node node = {.op = TERN_OP_DOT, .n_in = 2, .n_out = 1, .in = 0, .out = 2};
  tern_value values[3];
  *n = 0;
  fill(&values[0], a, TERN_V_IN, 0, words, n);
  fill(&values[1], b, TERN_V_IN, 1, words, n);
  fill(&values[2], o, TERN_V_OUT, 2, words, n);
  const tern_region r = {.struct_size = sizeof r,
                         .n_nodes = 1,
                         .n_values = 3,
                         .n_args = 3,
                         .n_words = *n,
                         .nodes = &node,
                         .values = values,
                         .edges = edges};
  tern_kernel *k = NULL;
  memset(info, 0, sizeof *info);
  CU_ASSERT_EQUAL_FATAL(cpu_dot_supports(&r), TERN_OK);
  CU_ASSERT_EQUAL_FATAL(cpu_dot_compile(&r, &k, info), TERN_OK);
  return k;
}

static void launch(const tern_kernel *k, const struct operand *a, const struct operand *b, const struct operand *o,
                   const tern_word *words, uint32_t n, const tern_kernel_info *info) {
  const tern_arg args[3] = {{(tern_mem *)a->mem, (uint64_t)a->offset * cpu_item_size(a->dtype)},
                            {(tern_mem *)b->mem, (uint64_t)b->offset * cpu_item_size(b->dtype)},
                            {(tern_mem *)o->mem, (uint64_t)o->offset * cpu_item_size(o->dtype)}};
  const uint64_t bytes = info->workspace == UINT64_MAX ? k->workspace(k, words) : info->workspace;
  void *const ws = bytes ? aligned_alloc(64, bytes) : NULL;
  const tern_launch l = {.args = args, .words = words, .n_args = 3, .n_words = n, .workspace = {ws, 0}};
  CU_ASSERT_EQUAL(k->run(k, &l), TERN_OK);
  free(ws);
}

/* Wrong elements of o = a b. Floats: |error| <= unit * sum of |a||b| * tol + one rounding to the dtype */
static int64_t wrong(const struct operand *a, const struct operand *b, const struct operand *o) {
  static const long double unit[TERN_DTYPE_END] = {
      [TERN_F16] = 0x1p-11L, [TERN_BF16] = 0x1p-8L, [TERN_F32] = 0x1p-24L, [TERN_F64] = 0x1p-53L};
  const int r = o->rank;
  const int64_t depth = a->shape[r - 1];
  const size_t sa = cpu_item_size(a->dtype);
  int64_t index[8] = {0}, bad = 0;
  const int64_t ta = a->stride[r - 1] * (int64_t)sa, tb = b->stride[r - 2] * (int64_t)sa;
  for (;;) {
    int64_t ia[8], ib[8];
    memcpy(ia, index, sizeof ia);
    memcpy(ib, index, sizeof ib);
    ia[r - 1] = 0, ib[r - 2] = 0;
    const char *pa = at(a, ia), *pb = at(b, ib);
    long double sum = 0, mag = 0;
    uint64_t isum = 0;
    for (int64_t p = 0; p < depth; p++, pa += ta, pb += tb) {
      if (is_real(a->dtype)) {
        const long double t = real(pa, a->dtype) * real(pb, b->dtype);
        sum += t, mag += fabsl(t);
      } else {
        isum += whole(pa, a->dtype) * whole(pb, b->dtype);
      }
    }
    const char *const po = at(o, index);
    if (is_real(a->dtype)) {
      const long double acc = a->dtype == TERN_F64 ? 0x1p-53L : 0x1p-24L;
      bad += !(fabsl(real(po, o->dtype) - sum) <=
               mag * acc * 8 + fabsl(sum) * unit[o->dtype] * 1.01L + 1e-7L * (o->dtype == TERN_F16));
    } else {
      const int bits = (int)cpu_item_size(o->dtype) * 8;
      bad += (whole(po, o->dtype) ^ isum) << (64 - bits) != 0;
    }
    int d = r - 1;
    while (d >= 0 && ++index[d] == o->shape[d]) index[d--] = 0;
    if (d < 0) return bad;
  }
}

/* batch: up to three dims; bit d of lone_a / lone_b: that operand has a 1 there */
static int64_t one(uint32_t in, uint32_t out, int rank, const int64_t *batch, unsigned lone_a, unsigned lone_b,
                   int64_t m, int64_t n, int64_t k, int la, int lb, int lo) {
  struct operand a = {.dtype = in, .rank = rank}, b = a, o = {.dtype = out, .rank = rank};
  for (int d = 0; d < rank - 2; d++) {
    a.shape[d] = lone_a >> d & 1 ? 1 : batch[d];
    b.shape[d] = lone_b >> d & 1 ? 1 : batch[d];
    o.shape[d] = batch[d];
  }
  a.shape[rank - 2] = o.shape[rank - 2] = m;
  a.shape[rank - 1] = b.shape[rank - 2] = k;
  b.shape[rank - 1] = o.shape[rank - 1] = n;
  make(&a, la);
  make(&b, lb);
  make(&o, lo);
  tern_word words[64];
  uint32_t n_words;
  tern_kernel_info info;
  tern_kernel *const kernel = compile(&a, &b, &o, words, &n_words, &info);
  int64_t bad = 0;
  for (int again = 0; again < 2; again++) { /* the second one finds its choice in the cache */
    launch(kernel, &a, &b, &o, words, n_words, &info);
    bad += wrong(&a, &b, &o);
  }
  if (bad)
    printf("\n  dtype %u->%u rank %d m %lld n %lld k %lld layouts %d %d %d lone %u %u: %lld wrong", in, out, rank,
           (long long)m, (long long)n, (long long)k, la, lb, lo, lone_a, lone_b, (long long)bad);
  kernel->destroy(kernel);
  free(a.mem), free(b.mem), free(o.mem);
  return bad;
}

static const uint32_t pairs[][2] = {
    {TERN_F32, TERN_F32}, {TERN_F64, TERN_F64}, {TERN_F16, TERN_F16}, {TERN_BF16, TERN_BF16}, {TERN_I8, TERN_I8},
    {TERN_I8, TERN_I32},  {TERN_U8, TERN_U8},   {TERN_U8, TERN_I32},  {TERN_I16, TERN_I16},   {TERN_U16, TERN_U16},
    {TERN_I32, TERN_I32}, {TERN_U32, TERN_U32}, {TERN_I64, TERN_I64}, {TERN_U64, TERN_U64}};
enum { PAIRS = sizeof pairs / sizeof *pairs };

static void test_small_every_layout(void) {
  static const int64_t sizes[][3] = {{1, 1, 1}, {2, 2, 2},  {1, 7, 5},   {7, 1, 5},
                                     {3, 5, 1}, {1, 1, 40}, {17, 33, 9}, {8, 8, 8}};
  for (int p = 0; p < PAIRS; p++)
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
      for (int l = 0; l < LAYOUTS * LAYOUTS; l++)
        CU_ASSERT_EQUAL(one(pairs[p][0], pairs[p][1], 2, NULL, 0, 0, sizes[s][0], sizes[s][1], sizes[s][2], l % LAYOUTS,
                            l / LAYOUTS, (int)rnd(LAYOUTS)),
                        0);
}

static void test_random_sizes(void) {
  for (int t = 0; t < 280; t++) {
    const int p = t % PAIRS;
    const int64_t m = 1 + rnd(120), n = 1 + rnd(120), k = 1 + rnd(300);
    CU_ASSERT_EQUAL(
        one(pairs[p][0], pairs[p][1], 2, NULL, 0, 0, m, n, k, (int)rnd(LAYOUTS), (int)rnd(LAYOUTS), (int)rnd(LAYOUTS)),
        0);
  }
}

static void test_batches(void) {
  for (int t = 0; t < 420; t++) {
    const int p = t % PAIRS, rank = 3 + (int)rnd(3);
    const int64_t batch[3] = {1 + rnd(4), 1 + rnd(4), 1 + rnd(3)}, big = rnd(4) ? 20 : 70;
    CU_ASSERT_EQUAL(one(pairs[p][0], pairs[p][1], rank, batch, rnd(4) ? 0 : rnd(8), rnd(3) ? 0 : rnd(8),
                        1 + rnd((uint32_t)big), 1 + rnd((uint32_t)big), 1 + rnd((uint32_t)big), (int)rnd(LAYOUTS),
                        (int)rnd(LAYOUTS), (int)rnd(LAYOUTS)),
                    0);
  }
}

/* What is not packed (dot_strip): few rows, columns and terms around the sizes of its blocks; repeated operands */
static void test_few_rows(void) {
  static const int64_t rows[] = {2, 5, 6, 7, 16, 33, 64, 65}, columns[] = {31, 32, 64, 65, 130, 512},
                       terms[] = {70, 128, 300};
  for (int t = 0; t < 2; t++)
    for (int i = 0; i < 8; i++)
      for (int j = 0; j < 6; j++) {
        const int64_t k = terms[(i + j) % 3];
        CU_ASSERT_EQUAL(one(pairs[t][0], pairs[t][0], 2, NULL, 0, 0, rows[i], columns[j], k, (int)rnd(LAYOUTS),
                            rnd(2) ? DENSE : PADDED, rnd(2) ? DENSE : PADDED),
                        0);
      }
  const int64_t batch[3] = {3, 2, 1};
  CU_ASSERT_EQUAL(one(TERN_F32, TERN_F32, 4, batch, 0, 0, 16, 200, 100, DENSE, DENSE, DENSE), 0);
  CU_ASSERT_EQUAL(one(TERN_F32, TERN_F32, 4, batch, 0, 3, 16, 200, 100, DENSE, DENSE, DENSE), 0);
  CU_ASSERT_EQUAL(one(TERN_F32, TERN_F32, 2, NULL, 0, 0, 9, 60, 4200, DENSE, DENSE, DENSE), 0);
}

static void test_larger(void) {
  static const int layouts[][3] = {{DENSE, DENSE, DENSE},    {TURNED, DENSE, DENSE},   {DENSE, TURNED, DENSE},
                                   {TURNED, TURNED, TURNED}, {SPACED, SPACED, SPACED}, {REVERSED, PADDED, REVERSED}};
  static const uint32_t dtypes[] = {TERN_F32, TERN_F64, TERN_F16, TERN_BF16, TERN_I32};
  for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++)
    for (size_t l = 0; l < sizeof layouts / sizeof *layouts; l++)
      CU_ASSERT_EQUAL(
          one(dtypes[d], dtypes[d], 2, NULL, 0, 0, 150, 130, 170, layouts[l][0], layouts[l][1], layouts[l][2]), 0);
}

static void test_vectors_and_long_sums(void) {
  for (int p = 0; p < 4; p++) {
    const uint32_t t = pairs[p][0];
    CU_ASSERT_EQUAL(one(t, t, 2, NULL, 0, 0, 1, 1, 300001, DENSE, TURNED, DENSE), 0);
    CU_ASSERT_EQUAL(one(t, t, 2, NULL, 0, 0, 1, 1, 100001, SPACED, DENSE, DENSE), 0);
    CU_ASSERT_EQUAL(one(t, t, 2, NULL, 0, 0, 1, 700, 900, DENSE, DENSE, DENSE), 0);
    CU_ASSERT_EQUAL(one(t, t, 2, NULL, 0, 0, 1, 700, 900, SPACED, TURNED, SPACED), 0);
    CU_ASSERT_EQUAL(one(t, t, 2, NULL, 0, 0, 700, 1, 900, DENSE, DENSE, SPACED), 0);
    CU_ASSERT_EQUAL(one(t, t, 2, NULL, 0, 0, 700, 1, 900, TURNED, SPACED, TURNED), 0);
    CU_ASSERT_EQUAL(one(t, t, 2, NULL, 0, 0, 700, 600, 1, DENSE, TURNED, DENSE), 0);
    CU_ASSERT_EQUAL(one(t, t, 2, NULL, 0, 0, 5, 6, 40000, TURNED, DENSE, DENSE), 0);
    CU_ASSERT_EQUAL(one(t, t, 2, NULL, 0, 0, 3, 70, 20000, DENSE, DENSE, DENSE), 0);
  }
}

/* One kernel, more shapes than its cache holds, from several threads at once */
struct shared {
  const tern_kernel *kernel;
  int first;
  int64_t bad;
};
static void *many_shapes(void *p) {
  struct shared *const s = p;
  for (int t = 0; t < 90; t++) {
    const int64_t m = 50 + (s->first + t) % 9 * 7, n = 60 + (s->first + t) % 10, k = 64;
    float *const a = malloc((size_t)(m * k) * 4), *const b = malloc((size_t)(k * n) * 4),
                 *const o = malloc((size_t)(m * n) * 4);
    for (int64_t i = 0; i < m * k; i++) a[i] = (float)(i % 13 - 6);
    for (int64_t i = 0; i < k * n; i++) b[i] = (float)(i % 7 - 3 + s->first);
    /* the order in which fill() numbers the words of dense a, b, o */
    const tern_word words[9] = {{m}, {k}, {k}, {k}, {n}, {n}, {m}, {n}, {n}};
    const tern_arg args[3] = {{(tern_mem *)a, 0}, {(tern_mem *)b, 0}, {(tern_mem *)o, 0}};
    const tern_launch l = {.args = args, .words = words, .n_args = 3, .n_words = 9};
    s->bad += s->kernel->run(s->kernel, &l) != TERN_OK;
    for (int64_t q = 0; q < m * n; q += 17) {
      float sum = 0; /* small integers: exact */
      for (int64_t i = 0; i < k; i++) sum += a[q / n * k + i] * b[i * n + q % n];
      s->bad += sum != o[q];
    }
    free(a), free(b), free(o);
  }
  return NULL;
}

static void test_shared_kernel(void) {
  struct operand a = {.dtype = TERN_F32, .rank = 2, .shape = {3, 5}}, b = a, o = a;
  make(&a, DENSE), make(&b, DENSE), make(&o, DENSE);
  tern_word words[64];
  uint32_t n;
  tern_kernel_info info;
  tern_kernel *const k = compile(&a, &b, &o, words, &n, &info);
  CU_ASSERT_EQUAL(n, 9);
  pthread_t thread[4];
  struct shared s[4];
  for (int t = 0; t < 4; t++) {
    s[t] = (struct shared){k, t / 2, 0};
    CU_ASSERT_EQUAL_FATAL(pthread_create(&thread[t], NULL, many_shapes, &s[t]), 0);
  }
  for (int t = 0; t < 4; t++) {
    pthread_join(thread[t], NULL);
    CU_ASSERT_EQUAL(s[t].bad, 0);
  }
  k->destroy(k);
  free(a.mem), free(b.mem), free(o.mem);
}

static void test_refusals(void) {
  static const uint32_t edges[3] = {0, 1, 2};
  tern_node node = {.op = TERN_OP_DOT, .n_in = 2, .n_out = 1, .in = 0, .out = 2};
  tern_value v[3];
  tern_word words[16];
  uint32_t n = 0;
  const struct operand x = {.dtype = TERN_F32, .rank = 2, .shape = {4, 4}, .stride = {4, 1}};
  for (uint32_t i = 0; i < 3; i++) fill(&v[i], &x, i == 2 ? TERN_V_OUT : TERN_V_IN, i, words, &n);
  const tern_region r = {
      .struct_size = sizeof r, .n_nodes = 1, .n_values = 3, .n_args = 3, .nodes = &node, .values = v, .edges = edges};
  CU_ASSERT_EQUAL(cpu_dot_supports(&r), TERN_OK);
  v[2].dtype = TERN_F64;
  CU_ASSERT_EQUAL(cpu_dot_supports(&r), TERN_E_UNSUPPORTED);
  v[2].dtype = TERN_F32, v[2].alias = 0;
  CU_ASSERT_EQUAL(cpu_dot_supports(&r), TERN_E_UNSUPPORTED);
  v[2].alias = -1, node.op = TERN_OP_ADD;
  CU_ASSERT_EQUAL(cpu_dot_supports(&r), TERN_E_UNSUPPORTED);
}

int main(void) {
  if (CU_initialize_registry() != CUE_SUCCESS) return 1;
  CU_pSuite s = CU_add_suite("cpu dot", NULL, NULL);
  CU_add_test(s, "few rows", test_few_rows);
  CU_add_test(s, "small, every layout", test_small_every_layout);
  CU_add_test(s, "random sizes", test_random_sizes);
  CU_add_test(s, "batches and broadcasts", test_batches);
  CU_add_test(s, "larger", test_larger);
  CU_add_test(s, "vectors and long sums", test_vectors_and_long_sums);
  CU_add_test(s, "one kernel, many shapes and threads", test_shared_kernel);
  CU_add_test(s, "refusals", test_refusals);
  CU_basic_set_mode(CU_BRM_VERBOSE);
  CU_basic_run_tests();
  const unsigned failed = CU_get_number_of_failures();
  CU_cleanup_registry();
  return failed != 0;
}
