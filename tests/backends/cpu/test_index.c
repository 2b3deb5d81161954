/* GATHER, SORT, ARGSORT and the scans of the CPU backend on regions built by hand, against plain loops. Links the
   objects of backends/cpu without the plugin, so the host's error service is defined here. */
#include "../../../backends/cpu/cpu.h"
#include "../../../backends/cpu/dot_half.h"
#include <CUnit/Basic.h>
#include <math.h>
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

static uint64_t seed = 7;
static uint32_t rnd(uint32_t n) {
  seed = seed * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(seed >> 33) % n;
}

struct array {
  uint32_t dtype;
  int rank;
  int64_t shape[8], stride[8], count, offset;
  char *mem;
};

static bool is_real(uint32_t dtype) { return dtype >= TERN_F16 && dtype <= TERN_F64; }
static bool is_signed(uint32_t dtype) { return dtype >= TERN_I8 && dtype <= TERN_I64; }

static void put_real(char *p, uint32_t dtype, double v) {
  if (dtype == TERN_F64)
    *(double *)p = v;
  else if (dtype == TERN_F32)
    *(float *)p = (float)v;
  else if (dtype == TERN_F16)
    *(uint16_t *)p = to_f16((float)v);
  else
    *(uint16_t *)p = to_bf16((float)v);
}
static double get_real(const char *p, uint32_t dtype) {
  return dtype == TERN_F64   ? *(const double *)p
         : dtype == TERN_F32 ? (double)*(const float *)p
         : dtype == TERN_F16 ? (double)from_f16(*(const uint16_t *)p)
                             : (double)from_bf16(*(const uint16_t *)p);
}
static uint64_t bits(const char *p, uint32_t dtype) {
  uint64_t u = 0;
  memcpy(&u, p, cpu_item_size(dtype)); /* little endian */
  return u;
}
static int64_t as_signed(uint64_t u, uint32_t dtype) {
  const int shift = 64 - (int)cpu_item_size(dtype) * 8;
  return (int64_t)(u << shift) >> shift;
}

/* Few distinct values, so that ties are many; NaNs of different payloads, both zeros and infinities among the floats */
static void put(char *p, uint32_t dtype, bool odd) {
  if (is_real(dtype)) {
    static const double special[] = {0.0, -0.0, HUGE_VAL, -HUGE_VAL, NAN};
    put_real(p, dtype, odd && rnd(4) == 0 ? special[rnd(5)] : ((double)rnd(2001) - 1000) / 128);
    if (odd && rnd(20) == 0) { /* a NaN with a sign and a payload */
      const size_t size = cpu_item_size(dtype);
      memset(p, 0xFF, size);
      p[0] = (char)(1 + rnd(100));
    }
  } else if (dtype == TERN_BOOL) {
    *p = (char)rnd(2);
  } else {
    uint64_t u = (uint64_t)rnd(1 << 30) << 34 ^ (uint64_t)rnd(1 << 30) << 17 ^ rnd(1 << 30);
    if (rnd(2)) u = rnd(40);
    memcpy(p, &u, cpu_item_size(dtype));
  }
}

enum { DENSE, SPACED, REVERSED, TURNED, LAYOUTS };
static void make(struct array *x, int how, bool odd) {
  int64_t step = how == SPACED ? 2 : 1, low = 0, high = 0;
  for (int i = 0; i < x->rank; i++) {
    const int d = how == TURNED ? i : x->rank - 1 - i;
    x->stride[d] = x->shape[d] == 1 ? 0 : how == REVERSED && i == 0 ? -step : step;
    step *= x->shape[d];
  }
  for (int d = 0; d < x->rank; d++) *(x->stride[d] < 0 ? &low : &high) += (x->shape[d] - 1) * x->stride[d];
  x->offset = -low;
  x->count = high - low + 1;
  x->mem = malloc((size_t)x->count * cpu_item_size(x->dtype));
  for (int64_t i = 0; i < x->count; i++) put(x->mem + (size_t)i * cpu_item_size(x->dtype), x->dtype, odd);
}
static char *at(const struct array *x, const int64_t *index) {
  int64_t p = x->offset;
  for (int d = 0; d < x->rank; d++) p += index[d] * x->stride[d];
  return x->mem + p * (int64_t)cpu_item_size(x->dtype);
}

static int64_t word(tern_word *words, uint32_t *n, int64_t v, bool literal) {
  if (literal) return v;
  words[*n].i = v;
  return TERN_SYM((*n)++);
}

/* Compile and launch one node; the last array is the output */
static tern_rc run(uint32_t op, struct array *const *x, uint32_t n, const int64_t *attr, uint32_t n_attr) {
  static const uint32_t edges[3] = {0, 1, 2};
  const tern_node node = {.op = op, .n_in = n - 1, .n_out = 1, .n_attr = n_attr, .in = 0, .out = n - 1};
  tern_value v[3];
  tern_word words[64], attrs[2] = {{0}};
  tern_arg args[3];
  uint32_t n_words = 0;
  memset(v, 0, sizeof v);
  for (uint32_t i = 0; i < n; i++) {
    v[i].dtype = (uint16_t)x[i]->dtype, v[i].rank = (uint16_t)x[i]->rank, v[i].slot = i, v[i].alias = -1;
    v[i].kind = i == n - 1 ? TERN_V_OUT : TERN_V_IN;
    for (int d = 0; d < x[i]->rank; d++) {
      const bool one = x[i]->shape[d] == 1;
      v[i].shape[d] = word(words, &n_words, x[i]->shape[d], one);
      v[i].stride[d] = word(words, &n_words, x[i]->stride[d], one || (d == x[i]->rank - 1 && x[i]->stride[d] == 1));
    }
    args[i] = (tern_arg){(tern_mem *)x[i]->mem, (uint64_t)x[i]->offset * cpu_item_size(x[i]->dtype)};
  }
  for (uint32_t i = 0; i < n_attr; i++) attrs[i].i = attr[i];
  const tern_region r = {.struct_size = sizeof r,
                         .n_nodes = 1,
                         .n_values = n,
                         .n_args = n,
                         .n_words = n_words,
                         .nodes = &node,
                         .values = v,
                         .edges = edges,
                         .attrs = attrs};
  const bool scan = op >= TERN_OP_CUMSUM && op <= TERN_OP_CUMMIN;
  tern_kernel_info info = {0};
  tern_kernel *k = NULL;
  tern_rc rc = scan ? cpu_scan_compile(&r, &k, &info) : cpu_index_compile(&r, &k, &info);
  if (rc) return rc;
  const uint64_t bytes = info.workspace == UINT64_MAX ? k->workspace(k, words) : info.workspace;
  void *const ws = bytes ? aligned_alloc(64, bytes) : NULL;
  const tern_launch l = {.args = args, .words = words, .n_args = n, .n_words = n_words, .workspace = {ws, 0}};
  rc = k->run(k, &l);
  free(ws);
  k->destroy ? k->destroy(k) : free(k);
  return rc;
}

/* ---- gather ---- */
static int64_t gather(uint32_t dtype, uint32_t index_dtype, int64_t o, int64_t a, int64_t i, int64_t j, int layout) {
  struct array data = {.dtype = dtype, .rank = 3, .shape = {o, a, i}},
               index = {.dtype = index_dtype, .rank = 1, .shape = {j}};
  struct array out = {.dtype = dtype, .rank = 3, .shape = {o, j, i}};
  make(&data, layout, true);
  make(&index, layout == TURNED ? DENSE : layout, false);
  make(&out, (layout + (int)rnd(2)) % LAYOUTS, true);
  for (int64_t q = 0; q < j; q++) {
    const int64_t pick = (int64_t)rnd((uint32_t)(2 * a)) - a;
    memcpy(at(&index, &q), &pick, cpu_item_size(index_dtype));
  }
  int64_t bad = run(TERN_OP_GATHER, (struct array *[]){&data, &index, &out}, 3, NULL, 0) != TERN_OK;
  for (int64_t p = 0; p < o; p++)
    for (int64_t q = 0; q < j; q++)
      for (int64_t r = 0; r < i; r++) {
        int64_t pick = as_signed(bits(at(&index, &q), index_dtype), index_dtype);
        if (pick < 0) pick += a;
        bad += bits(at(&out, (int64_t[]){p, q, r}), dtype) != bits(at(&data, (int64_t[]){p, pick, r}), dtype);
      }
  free(data.mem), free(index.mem), free(out.mem);
  return bad;
}

static void test_gather(void) {
  for (uint32_t t = TERN_BOOL; t < TERN_DTYPE_END; t++)
    for (int layout = 0; layout < LAYOUTS; layout++)
      for (int s = 0; s < 6; s++) {
        static const int64_t size[6][4] = {{1, 10, 1, 5}, {3, 7, 1, 20},    {1, 50, 33, 70},
                                           {4, 3, 9, 11}, {2, 2, 70001, 2}, {1, 1, 1, 1}};
        CU_ASSERT_EQUAL(gather(t, s % 2 ? TERN_I32 : TERN_I64, size[s][0], size[s][1], size[s][2], size[s][3], layout),
                        0);
      }
  CU_ASSERT_EQUAL(gather(TERN_F32, TERN_I64, 1, 100000, 1, 200000, DENSE), 0);
}

static void test_gather_out_of_range(void) {
  static const int64_t wrong[] = {5, -6, INT64_MAX, INT64_MIN};
  for (int w = 0; w < 4; w++) {
    struct array data = {.dtype = TERN_F32, .rank = 3, .shape = {2, 5, 3}},
                 index = {.dtype = TERN_I64, .rank = 1, .shape = {4}};
    struct array out = {.dtype = TERN_F32, .rank = 3, .shape = {2, 4, 3}};
    make(&data, DENSE, false), make(&index, DENSE, false), make(&out, DENSE, false);
    int64_t *const ix = (int64_t *)(void *)index.mem;
    ix[0] = 4, ix[1] = -5, ix[2] = wrong[w], ix[3] = 99;
    CU_ASSERT_EQUAL(run(TERN_OP_GATHER, (struct array *[]){&data, &index, &out}, 3, NULL, 0), TERN_E_ARG);
    char head[64];
    snprintf(head, sizeof head, "gather: index %lld is out of range for an axis of 5; ", (long long)wrong[w]);
    CU_ASSERT_EQUAL(strncmp(message, head, strlen(head)), 0);
    free(data.mem), free(index.mem), free(out.mem);
  }
}

/* ---- sort ---- */
/* Does a come strictly before b? NaN after all; descending is the exact reverse */
static bool before(const char *a, const char *b, uint32_t dtype, bool descending) {
  if (descending) {
    const char *const t = a;
    a = b, b = t;
  }
  if (is_real(dtype)) {
    const double x = get_real(a, dtype), y = get_real(b, dtype);
    return isnan(y) ? !isnan(x) : x < y;
  }
  const uint64_t x = bits(a, dtype), y = bits(b, dtype);
  return is_signed(dtype) ? as_signed(x, dtype) < as_signed(y, dtype) : x < y;
}

/* Reference: stable merge sort of positions */
static void merge_sort(const struct array *x, int64_t *index, int64_t *pos, int64_t *tmp, int64_t n, bool descending) {
  if (n < 2) return;
  const int64_t h = n / 2;
  const int last = x->rank - 1;
  merge_sort(x, index, pos, tmp, h, descending);
  merge_sort(x, index, pos + h, tmp, n - h, descending);
  int64_t i = 0, j = h, k = 0;
  while (i < h && j < n) {
    index[last] = pos[i];
    const char *const a = at(x, index);
    index[last] = pos[j];
    tmp[k++] = before(at(x, index), a, x->dtype, descending) ? pos[j++] : pos[i++];
  }
  while (i < h) tmp[k++] = pos[i++];
  while (j < n) tmp[k++] = pos[j++];
  memcpy(pos, tmp, (size_t)n * sizeof *pos);
}

static int64_t sort(uint32_t dtype, int rank, int64_t o, int64_t a, int layout, bool descending) {
  struct array x = {.dtype = dtype, .rank = rank, .shape = {o, a}}, y = x, z = x;
  if (rank == 1) x.shape[0] = y.shape[0] = z.shape[0] = a, o = 1;
  z.dtype = TERN_I64;
  make(&x, layout, true), make(&y, (int)rnd(LAYOUTS), true), make(&z, (int)rnd(LAYOUTS), true);
  const int64_t attr = descending;
  int64_t bad = run(TERN_OP_SORT, (struct array *[]){&x, &y}, 2, &attr, 1) != TERN_OK;
  bad += run(TERN_OP_ARGSORT, (struct array *[]){&x, &z}, 2, &attr, 1) != TERN_OK;
  int64_t *const pos = malloc((size_t)a * 8), *const tmp = malloc((size_t)a * 8);
  for (int64_t r = 0; r < o; r++) {
    int64_t index[2] = {r, 0}, *const last = &index[rank - 1];
    for (int64_t i = 0; i < a; i++) pos[i] = i;
    merge_sort(&x, index, pos, tmp, a, descending);
    if (rank == 2) index[0] = r;
    for (int64_t i = 0; i < a; i++) {
      *last = pos[i];
      const uint64_t want = bits(at(&x, index), dtype);
      *last = i;
      bad += bits(at(&y, index), dtype) != want;
      bad += (int64_t)bits(at(&z, index), TERN_I64) != pos[i];
    }
  }
  if (bad)
    printf("\n  sort dtype %u rank %d %lld x %lld layout %d descending %d: %lld wrong", dtype, rank, (long long)o,
           (long long)a, layout, descending, (long long)bad);
  free(pos), free(tmp), free(x.mem), free(y.mem), free(z.mem);
  return bad;
}

static void test_sort(void) {
  for (uint32_t t = TERN_BOOL; t < TERN_DTYPE_END; t++)
    for (int layout = 0; layout < LAYOUTS; layout++)
      for (int descending = 0; descending < 2; descending++) {
        static const int64_t size[][2] = {{1, 1}, {3, 2}, {50, 17}, {40, 100}, {5, 257}, {20, 300}};
        for (size_t s = 0; s < sizeof size / sizeof *size; s++)
          CU_ASSERT_EQUAL(sort(t, 2, size[s][0], size[s][1], layout, descending), 0);
        CU_ASSERT_EQUAL(sort(t, 1, 1, 33 + rnd(2000), layout, descending), 0);
        CU_ASSERT_EQUAL(sort(t, 2, 1, layout == DENSE ? 9000 : 400, layout, descending), 0);
      }
  CU_ASSERT_EQUAL(sort(TERN_F32, 1, 1, 300000, DENSE, false), 0);
  CU_ASSERT_EQUAL(sort(TERN_I64, 1, 1, 100000, DENSE, true), 0);
}

/* ---- scan ---- */
/* One line against long double (floats; tol: of the sum of magnitudes) or exact arithmetic */
static int64_t check_line(const struct array *x, const struct array *y, int64_t *index, int dim, uint32_t op,
                          bool exclusive, bool reverse) {
  const int64_t n = x->shape[dim];
  const uint32_t t = x->dtype;
  const double unit = t == TERN_F64 ? 0x1p-50 : t == TERN_F32 ? 0x1p-23 : t == TERN_F16 ? 0x1p-10 : 0x1p-7;
  long double sum = op == TERN_OP_CUMPROD, mag = 0;
  uint64_t u = op == TERN_OP_CUMPROD;
  int64_t bad = 0;
  for (int64_t i = 0; i < n; i++) {
    index[dim] = reverse ? n - 1 - i : i;
    const char *const px = at(x, index), *const py = at(y, index);
    const long double old = sum;
    const uint64_t old_u = u;
    if (is_real(t)) {
      const long double v = get_real(px, t);
      mag += fabsl(v);
      if (op == TERN_OP_CUMSUM)
        sum += v;
      else if (op == TERN_OP_CUMPROD)
        sum *= v;
      else if (i == 0 || isnan(v))
        sum = isnan(sum) ? sum : v;
      else if (op == TERN_OP_CUMMAX ? v > sum : v < sum)
        sum = v;
      const double got = get_real(py, t);
      const long double want = exclusive ? old : sum;
      if (isnan(want) || isinf(want))
        bad += isnan(want) ? !isnan(got) : got != (double)want;
      else if (op >= TERN_OP_CUMMAX)
        bad += got != (double)want;
      else
        bad += !(fabsl(got - want) <=
                 unit * (fabsl(want) + (op == TERN_OP_CUMSUM ? mag / (t == TERN_F32   ? 1e6L
                                                                      : t == TERN_F64 ? 1
                                                                                      : 4096)
                                                             : (t == TERN_F64 ? n * fabsl(want) : 0))) +
                     (t == TERN_F16 ? 1e-6 : 1e-40));
      continue;
    }
    const uint64_t v = is_signed(t) ? (uint64_t)as_signed(bits(px, t), t) : bits(px, t);
    if (op == TERN_OP_CUMSUM)
      u += v;
    else if (op == TERN_OP_CUMPROD)
      u *= v;
    else if (i == 0)
      u = v;
    else if (op == TERN_OP_CUMMAX)
      u = (is_signed(t) ? (int64_t)v > (int64_t)u : v > u) ? v : u;
    else
      u = (is_signed(t) ? (int64_t)v < (int64_t)u : v < u) ? v : u;
    bad += ((exclusive ? old_u : u) ^ bits(py, t)) << (64 - 8 * cpu_item_size(t)) != 0;
  }
  index[dim] = 0;
  return bad;
}

static int64_t scan(uint32_t op, uint32_t dtype, int rank, const int64_t *shape, int dim, int layout, int flags,
                    bool odd) {
  struct array x = {.dtype = dtype, .rank = rank}, y = x;
  memcpy(x.shape, shape, (size_t)rank * sizeof *shape);
  memcpy(y.shape, shape, (size_t)rank * sizeof *shape);
  make(&x, layout, odd), make(&y, (int)rnd(LAYOUTS), true);
  if (op == TERN_OP_CUMPROD && is_real(dtype)) /* near 1 */
    for (int64_t i = 0; i < x.count; i++)
      put_real(x.mem + (size_t)i * cpu_item_size(dtype), dtype, 1 + ((double)rnd(3) - 1) / 64);
  const int64_t attr[2] = {dim, flags};
  int64_t bad = run(op, (struct array *[]){&x, &y}, 2, attr, 2) != TERN_OK, index[8] = {0};
  for (;;) {
    bad += check_line(&x, &y, index, dim, op, flags & 1, flags & 2);
    int d = rank - 1;
    for (; d >= 0; d--) {
      if (d == dim) continue;
      if (++index[d] < shape[d]) break;
      index[d] = 0;
    }
    if (d < 0) break;
  }
  if (bad)
    printf("\n  scan op %u dtype %u rank %d dim %d layout %d flags %d n %lld: %lld wrong", op, dtype, rank, dim, layout,
           flags, (long long)shape[dim], (long long)bad);
  free(x.mem), free(y.mem);
  return bad;
}

static void test_scan(void) {
  for (uint32_t op = TERN_OP_CUMSUM; op <= TERN_OP_CUMMIN; op++)
    for (uint32_t t = op >= TERN_OP_CUMMAX ? TERN_BOOL : TERN_I8; t < TERN_DTYPE_END; t++)
      for (int layout = 0; layout < LAYOUTS; layout++)
        for (int flags = 0; flags < 4; flags++) {
          if (flags & 1 && op >= TERN_OP_CUMMAX) continue;
          for (int dim = 0; dim < 3; dim++)
            CU_ASSERT_EQUAL(scan(op, t, 3, (const int64_t[]){3, 11, 70}, dim, layout, flags, op >= TERN_OP_CUMMAX), 0);
          CU_ASSERT_EQUAL(scan(op, t, 1, (const int64_t[]){40}, 0, layout, flags, op >= TERN_OP_CUMMAX), 0);
          if ((op != TERN_OP_CUMPROD || !is_real(t)) && (layout + flags + (int)t) % 4 == 0) /* long: in chunks */
            CU_ASSERT_EQUAL(
                scan(op, t, 2, (const int64_t[]){2, 70001}, 1, layout, flags, op >= TERN_OP_CUMMAX && rnd(2)), 0);
        }
  CU_ASSERT_EQUAL(scan(TERN_OP_CUMSUM, TERN_F32, 1, (const int64_t[]){3000000}, 0, DENSE, 0, false), 0);
}

/* The same bits with one thread and with several */
static void test_scan_threads(void) {
  struct array x = {.dtype = TERN_F64, .rank = 1, .shape = {500000}}, y = x, z = x;
  make(&x, DENSE, false), make(&y, DENSE, false), make(&z, DENSE, false);
  const int64_t attr[2] = {0, 0};
  cpu_threads_init(1);
  CU_ASSERT_EQUAL(run(TERN_OP_CUMSUM, (struct array *[]){&x, &y}, 2, attr, 2), TERN_OK);
  cpu_threads_init(4);
  CU_ASSERT_EQUAL(run(TERN_OP_CUMSUM, (struct array *[]){&x, &z}, 2, attr, 2), TERN_OK);
  cpu_threads_init(0);
  CU_ASSERT_EQUAL(memcmp(y.mem, z.mem, (size_t)y.count * 8), 0);
  free(x.mem), free(y.mem), free(z.mem);
}

static void test_scan_zero_signs(void) {
  struct array x = {.dtype = TERN_F32, .rank = 1, .shape = {2}}, y = x;
  make(&x, DENSE, false), make(&y, DENSE, false);
  float *const in = (float *)(void *)x.mem, *const out = (float *)(void *)y.mem;
  in[0] = -0.0f, in[1] = 1;
  CU_ASSERT_EQUAL(run(TERN_OP_CUMSUM, (struct array *[]){&x, &y}, 2, (const int64_t[]){0, 0}, 2), TERN_OK);
  CU_ASSERT(signbit(out[0]) && out[1] == 1);
  CU_ASSERT_EQUAL(run(TERN_OP_CUMSUM, (struct array *[]){&x, &y}, 2, (const int64_t[]){0, 1}, 2), TERN_OK);
  CU_ASSERT(out[0] == 0 && !signbit(out[0]));
  CU_ASSERT_EQUAL(run(TERN_OP_CUMMAX, (struct array *[]){&x, &y}, 2, (const int64_t[]){0, 1}, 2), TERN_E_UNSUPPORTED);
  CU_ASSERT_EQUAL(run(TERN_OP_CUMSUM, (struct array *[]){&x, &y}, 2, (const int64_t[]){1, 0}, 2), TERN_E_UNSUPPORTED);
  free(x.mem), free(y.mem);
}

int main(void) {
  if (CU_initialize_registry() != CUE_SUCCESS) return 1;
  CU_pSuite s = CU_add_suite("cpu index, sort, scan", NULL, NULL);
  CU_add_test(s, "gather", test_gather);
  CU_add_test(s, "gather out of range", test_gather_out_of_range);
  CU_add_test(s, "sort and argsort", test_sort);
  CU_add_test(s, "scans", test_scan);
  CU_add_test(s, "scan bits and threads", test_scan_threads);
  CU_add_test(s, "scan zeros and refusals", test_scan_zero_signs);
  CU_basic_set_mode(CU_BRM_VERBOSE);
  CU_basic_run_tests();
  const unsigned failed = CU_get_number_of_failures();
  CU_cleanup_registry();
  return failed != 0;
}
