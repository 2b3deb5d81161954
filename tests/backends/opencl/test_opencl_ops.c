/* DOT, GATHER, SORT, ARGSORT and the cumulative ops of the OpenCL plugin against plain loops: dtypes, transposes,
   broadcast batches, odd sizes, workspace forms. Needs an OpenCL device; says so and exits with 77 when there is
   none. */
#include "opencl_host.h"

#include <math.h>

static float half_to_float(uint16_t h) {
  const int e = h >> 10 & 31, m = h & 1023;
  const float v = e == 31 ? (m ? NAN : INFINITY) : e ? ldexpf((float)(m + 1024), e - 25) : ldexpf((float)m, -24);
  return h & 0x8000 ? -v : v;
}
static uint16_t half_of(int small) { /* |small| <= 2048: exact */
  uint16_t best = 0;
  for (uint32_t h = 0; h < 0x7c00; h++)
    if (half_to_float((uint16_t)h) == (float)abs(small)) best = (uint16_t)h;
  return (uint16_t)(small < 0 ? best | 0x8000 : best);
}
static float bf16_to_float(uint16_t b) {
  const uint32_t u = (uint32_t)b << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}

/* Element i as double (integers below 2^53 here), and back from a small integer. */
static double load(const operand *o, int64_t i) {
  switch (o->dtype) {
  case TERN_I8: return ((int8_t *)o->data)[i];
  case TERN_I16: return ((int16_t *)o->data)[i];
  case TERN_I32: return ((int32_t *)o->data)[i];
  case TERN_I64: return (double)((int64_t *)o->data)[i];
  case TERN_BOOL:
  case TERN_U8: return ((uint8_t *)o->data)[i];
  case TERN_U16: return ((uint16_t *)o->data)[i];
  case TERN_U32: return ((uint32_t *)o->data)[i];
  case TERN_U64: return (double)((uint64_t *)o->data)[i];
  case TERN_F16: return half_to_float(((uint16_t *)o->data)[i]);
  case TERN_BF16: return bf16_to_float(((uint16_t *)o->data)[i]);
  case TERN_F32: return ((float *)o->data)[i];
  default: return ((double *)o->data)[i];
  }
}
static void store(operand *o, int64_t i, int v) {
  static uint16_t halves[33];
  const float f = (float)v;
  uint32_t u;
  memcpy(&u, &f, 4);
  if (!halves[32])
    for (int h = 0; h < 33; h++) halves[h] = half_of(h);
  switch (o->dtype) {
  case TERN_BOOL: ((uint8_t *)o->data)[i] = v & 1; break;
  case TERN_I8:
  case TERN_U8: ((uint8_t *)o->data)[i] = (uint8_t)v; break;
  case TERN_I16:
  case TERN_U16: ((uint16_t *)o->data)[i] = (uint16_t)v; break;
  case TERN_I32:
  case TERN_U32: ((uint32_t *)o->data)[i] = (uint32_t)v; break;
  case TERN_I64:
  case TERN_U64: ((int64_t *)o->data)[i] = v; break;
  case TERN_F16: ((uint16_t *)o->data)[i] = (uint16_t)(halves[abs(v) & 31] | (v < 0 ? 0x8000 : 0)); break;
  case TERN_BF16: ((uint16_t *)o->data)[i] = (uint16_t)(u >> 16); break;
  case TERN_F32: ((float *)o->data)[i] = f; break;
  default: ((double *)o->data)[i] = v;
  }
}

static void fill_small(operand *o, uint32_t *seed, int range) {
  const bool is_signed = o->dtype <= TERN_I64 || o->dtype >= TERN_F16;
  for (int64_t i = 0; i < o->n; i++) {
    const int v = (int)(random_u32(seed) % (uint32_t)(2 * range + 1)) - range;
    store(o, i, is_signed ? v : abs(v));
  }
}

/* ---- DOT ---- */

typedef struct dot_case {
  uint32_t in, out;
  int64_t batch[2], m, n, k;
  int at, bt, b_batch; /* transposed operands; b_batch 0: the second operand has one matrix */
} dot_case;

/* The result as an integer, reduced to the output's width. Inputs are small integers, so floats are exact. */
static double wrapped(double x, uint32_t dtype) {
  const long long v = (long long)x;
  switch (dtype) {
  case TERN_I8: return (int8_t)v;
  case TERN_U8: return (uint8_t)v;
  case TERN_I16: return (int16_t)v;
  case TERN_U16: return (uint16_t)v;
  default: return x;
  }
}

static void dot_operand(operand *o, uint32_t dtype, const int64_t *batch, int64_t rows, int64_t cols, bool transposed,
                        bool one) {
  *o = (operand){.dtype = dtype, .rank = 4, .shape = {one ? 1 : batch[0], one ? 1 : batch[1], rows, cols}};
  dense(o);
  if (transposed) {
    o->stride[2] = 1;
    o->stride[3] = rows;
  }
  if (o->shape[0] == 1) o->stride[0] = 0;
  if (o->shape[1] == 1) o->stride[1] = 0;
  o->data = calloc((size_t)o->n, size_of(dtype));
}

static void check_dot(const dot_case *c) {
  operand a, b, out;
  uint32_t seed = 77u + (uint32_t)(c->m * 31 + c->n * 7 + c->k);
  dot_operand(&a, c->in, c->batch, c->m, c->k, c->at, false);
  dot_operand(&b, c->in, c->batch, c->k, c->n, c->bt, !c->b_batch);
  dot_operand(&out, c->out, c->batch, c->m, c->n, false, false);
  fill_small(&a, &seed, c->in == TERN_F16 || c->in == TERN_BF16 ? 2 : 9);
  fill_small(&b, &seed, c->in == TERN_F16 || c->in == TERN_BF16 ? 2 : 9);
  const operand *list[] = {&a, &b, &out};
  one_node node;
  region_of(&node, TERN_OP_DOT, 0, 0, c->m % 2 && c->in == TERN_F32 ? TERN_R_IDX32 : 0, 3, list);
  const tern_rc rc = run_one(&node, 3, list);
  CU_ASSERT_EQUAL_FATAL(rc, TERN_OK);
  int64_t bad = 0;
  for (int64_t p = 0; p < c->batch[0] * c->batch[1]; p++)
    for (int64_t i = 0; i < c->m; i++)
      for (int64_t j = 0; j < c->n; j++) {
        const int64_t p0 = p / c->batch[1], p1 = p % c->batch[1];
        double sum = 0;
        for (int64_t k = 0; k < c->k; k++)
          sum += load(&a, p0 * a.stride[0] + p1 * a.stride[1] + i * a.stride[2] + k * a.stride[3]) *
                 load(&b, p0 * b.stride[0] + p1 * b.stride[1] + k * b.stride[2] + j * b.stride[3]);
        const double got = load(&out, p0 * out.stride[0] + p1 * out.stride[1] + i * out.stride[2] + j);
        const double tolerance = c->out == TERN_F16 ? 1e-3 : c->out == TERN_BF16 ? 1e-2 : 0;
        if (fabs(got - wrapped(sum, c->out)) > tolerance * fabs(sum)) bad++;
      }
  if (bad)
    printf("DOT dtype %u -> %u, %lldx%lldx%lld at %d bt %d: %lld wrong\n", c->in, c->out, (long long)c->m,
           (long long)c->n, (long long)c->k, c->at, c->bt, (long long)bad);
  CU_ASSERT_EQUAL(bad, 0);
  free(a.data);
  free(b.data);
  free(out.data);
}

static void dot_shapes(const char *gemm) {
  static const int64_t sizes[][3] = {{1, 1, 1},  {2, 3, 4},  {1, 64, 33},   {64, 1, 40},
                                     {7, 9, 11}, {8, 16, 5}, {33, 17, 100}, {65, 70, 129}};
  host_state.gemm = gemm;
  for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
    for (int t = 0; t < 4; t++) {
      const dot_case c = {TERN_F32, TERN_F32, {1, 1}, sizes[s][0], sizes[s][1], sizes[s][2], t & 1, t >> 1, 1};
      check_dot(&c);
    }
  const dot_case batched[] = {{TERN_F32, TERN_F32, {2, 3}, 9, 40, 21, 0, 0, 1},
                              {TERN_F32, TERN_F32, {3, 2}, 20, 33, 8, 1, 0, 0},
                              {TERN_F32, TERN_F32, {1, 5}, 4, 100, 16, 0, 1, 0}};
  for (size_t s = 0; s < 3; s++) check_dot(&batched[s]);
  host_state.gemm = NULL;
}
static void test_dot_auto(void) { dot_shapes("auto"); }
static void test_dot_plain(void) { dot_shapes("plain"); }
static void test_dot_tiled(void) { dot_shapes("tiled"); }

static void test_dot_dtypes(void) {
  static const uint32_t pairs[][2] = {
      {TERN_I8, TERN_I8},   {TERN_I8, TERN_I32},    {TERN_U8, TERN_I32},  {TERN_U8, TERN_U8},   {TERN_I16, TERN_I16},
      {TERN_U16, TERN_U16}, {TERN_I32, TERN_I32},   {TERN_U32, TERN_U32}, {TERN_I64, TERN_I64}, {TERN_U64, TERN_U64},
      {TERN_F16, TERN_F16}, {TERN_BF16, TERN_BF16}, {TERN_F64, TERN_F64}};
  info_block b;
  device_describe(0, &b);
  for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
    if (!(b.info.dtypes >> pairs[i][0] & 1)) continue;
    const dot_case small = {pairs[i][0], pairs[i][1], {2, 1}, 3, 5, 4, 0, 0, 1};
    const dot_case large = {pairs[i][0], pairs[i][1], {1, 2}, 18, 37, 70, 0, 1, 0};
    check_dot(&small);
    check_dot(&large);
  }
}

static void test_dot_packed(void) { /* large enough for packed panels, small enough for plain loops */
  const dot_case c = {TERN_F32, TERN_F32, {1, 1}, 61, 309, 811, 0, 0, 1};
  check_dot(&c);
}

static void test_dot_refused(void) {
  operand a = {.dtype = TERN_F32, .rank = 2, .shape = {2, 2}, .stride = {2, 1}, .n = 4}, b = a, out = a;
  const operand *list[] = {&a, &b, &out};
  one_node node;
  uint32_t want = 0;
  b.dtype = TERN_I32;
  CU_ASSERT_EQUAL(host_state.api->supports(host_state.dev, region_of(&node, TERN_OP_DOT, 0, 0, 0, 3, list), &want),
                  TERN_E_UNSUPPORTED);
  b.dtype = TERN_F32;
  CU_ASSERT_EQUAL(host_state.api->supports(host_state.dev, region_of(&node, TERN_OP_DOT, 0, 0, 64, 3, list), &want),
                  TERN_E_UNSUPPORTED);
  region_of(&node, TERN_OP_DOT, 0, 0, 0, 3, list);
  node.values[0].layout = 5;
  CU_ASSERT_EQUAL(host_state.api->supports(host_state.dev, &node.block.region, &want), TERN_E_UNSUPPORTED);
}

/* ---- GATHER ---- */

static void gather_case(uint32_t dtype, uint32_t index, int64_t o, int64_t a, int64_t j, int64_t i, bool strided) {
  operand data = {.dtype = dtype, .rank = 3, .shape = {o, a, i}}, at = {.dtype = index, .rank = 1, .shape = {j}},
          out = data;
  uint32_t seed = 5;
  out.shape[1] = j;
  dense(&data), dense(&at), dense(&out);
  if (strided) { /* the data with its last two dims swapped in memory */
    data.stride[1] = 1;
    data.stride[2] = a;
  }
  data.data = malloc((size_t)data.n * size_of(dtype));
  at.data = malloc((size_t)at.n * size_of(index));
  out.data = calloc((size_t)out.n, size_of(dtype));
  for (int64_t k = 0; k < data.n * (int64_t)size_of(dtype); k++) ((uint8_t *)data.data)[k] = (uint8_t)random_u32(&seed);
  for (int64_t k = 0; k < j; k++) store(&at, k, (int)(random_u32(&seed) % (uint32_t)(2 * a)) - (int)a);
  const operand *list[] = {&data, &at, &out};
  one_node node;
  region_of(&node, TERN_OP_GATHER, 0, 0, 0, 3, list);
  CU_ASSERT_EQUAL_FATAL(run_one(&node, 3, list), TERN_OK);
  int64_t bad = 0;
  const size_t item = size_of(dtype);
  for (int64_t x = 0; x < o; x++)
    for (int64_t y = 0; y < j; y++)
      for (int64_t z = 0; z < i; z++) {
        int64_t row = (int64_t)load(&at, y);
        if (row < 0) row += a;
        const char *from =
            (char *)data.data + (size_t)(x * data.stride[0] + row * data.stride[1] + z * data.stride[2]) * item;
        bad += memcmp(from, (char *)out.data + (size_t)((x * j + y) * i + z) * item, item) != 0;
      }
  CU_ASSERT_EQUAL(bad, 0);
  free(data.data), free(at.data), free(out.data);
}

static void test_gather(void) {
  gather_case(TERN_F32, TERN_I64, 1, 10, 7, 1, false);
  gather_case(TERN_F32, TERN_I32, 3, 20, 11, 150, false);
  gather_case(TERN_U8, TERN_I64, 2, 9, 30, 65, true);
  gather_case(TERN_F16, TERN_I32, 4, 5, 6, 7, false);
  gather_case(TERN_I64, TERN_I64, 1, 100, 300, 3, false);
}

static void test_gather_range(void) { /* reads 0, and the next sync says which index; then the queue goes on */
  float values[4] = {1, 2, 3, 4}, got[3] = {9, 9, 9};
  int32_t index[3] = {1, 4, -5};
  operand data = {values, 4, 0, TERN_F32, 3, {1, 4, 1}, {4, 1, 1}}, at = {index, 3, 0, TERN_I32, 1, {3}, {1}},
          out = {got, 3, 0, TERN_F32, 3, {1, 3, 1}, {3, 1, 1}};
  const operand *list[] = {&data, &at, &out};
  one_node node;
  region_of(&node, TERN_OP_GATHER, 0, 0, 0, 3, list);
  CU_ASSERT_EQUAL(run_one(&node, 3, list), TERN_E_ARG);
  CU_ASSERT_PTR_NOT_NULL(strstr(host_state.error, "out of range for an axis of size 4"));
  CU_ASSERT(got[0] == 2 && got[1] == 0 && got[2] == 0);
  CU_ASSERT_EQUAL(finish(), TERN_OK);
  index[1] = 3, index[2] = -4;
  CU_ASSERT_EQUAL(run_one(&node, 3, list), TERN_OK);
  CU_ASSERT(got[0] == 2 && got[1] == 4 && got[2] == 1);
}

/* ---- SORT, ARGSORT ---- */

static const operand *sorted_row; /* for qsort: the row and the direction */
static int64_t sorted_at;
static bool sorted_down;
static int by_value(const void *pa, const void *pb) {
  const int64_t ia = *(const int64_t *)pa, ib = *(const int64_t *)pb;
  const double a = load(sorted_row, sorted_at + ia * sorted_row->stride[1]),
               b = load(sorted_row, sorted_at + ib * sorted_row->stride[1]);
  const int stable = (ia > ib) - (ia < ib);
  if (isnan(a) || isnan(b)) return isnan(a) && isnan(b) ? stable : (isnan(a) ? 1 : -1) * (sorted_down ? -1 : 1);
  const int c = (a > b) - (a < b);
  return c ? (sorted_down ? -c : c) : stable;
}

static void sort_case(uint32_t dtype, int64_t rows, int64_t n, bool down, bool swapped) {
  operand in = {.dtype = dtype, .rank = 2, .shape = {rows, n}}, out = in, arg;
  uint32_t seed = (uint32_t)n + 3;
  dense(&in), dense(&out);
  if (swapped) {
    in.stride[0] = 1;
    in.stride[1] = rows;
  }
  arg = out;
  arg.dtype = TERN_I64;
  in.data = calloc((size_t)in.n, size_of(dtype));
  out.data = calloc((size_t)in.n, size_of(dtype));
  arg.data = calloc((size_t)in.n, 8);
  fill_small(&in, &seed, 31);
  if (dtype == TERN_F32)
    for (int64_t i = 0; i < in.n; i += 5) ((float *)in.data)[i] = i % 3 ? NAN : i % 2 ? -0.0f : -INFINITY;
  if (dtype == TERN_F16)
    for (int64_t i = 0; i < in.n; i += 7) ((uint16_t *)in.data)[i] = 0x7e00;
  const operand *list[] = {&in, &out}, *arg_list[] = {&in, &arg};
  one_node node;
  region_of(&node, TERN_OP_SORT, down, 0, 0, 2, list);
  CU_ASSERT_EQUAL_FATAL(run_one(&node, 2, list), TERN_OK);
  region_of(&node, TERN_OP_ARGSORT, down, 0, TERN_R_IDX32, 2, arg_list);
  CU_ASSERT_EQUAL_FATAL(run_one(&node, 2, arg_list), TERN_OK);
  int64_t *order = malloc((size_t)n * 8), bad = 0;
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t i = 0; i < n; i++) order[i] = i;
    sorted_row = &in, sorted_at = r * in.stride[0], sorted_down = down;
    qsort(order, (size_t)n, 8, by_value);
    for (int64_t i = 0; i < n; i++) {
      bad += ((int64_t *)arg.data)[r * n + i] != order[i];
      const char *want = (char *)in.data + (size_t)(sorted_at + order[i] * in.stride[1]) * size_of(dtype);
      bad += memcmp((char *)out.data + (size_t)(r * n + i) * size_of(dtype), want, size_of(dtype)) != 0;
    }
  }
  if (bad)
    printf("SORT dtype %u %lldx%lld down %d: %lld wrong\n", dtype, (long long)rows, (long long)n, down, (long long)bad);
  CU_ASSERT_EQUAL(bad, 0);
  free(order), free(in.data), free(out.data), free(arg.data);
}

static void test_sort(void) {
  sort_case(TERN_F32, 3, 1, false, false);
  sort_case(TERN_F32, 5, 31, true, false);
  sort_case(TERN_F32, 2, 1000, false, true);
  sort_case(TERN_F32, 1, 20000, true, false);
  sort_case(TERN_BOOL, 2, 100, true, false);
  sort_case(TERN_I8, 2, 300, false, false);
  sort_case(TERN_U16, 2, 65, true, false);
  sort_case(TERN_I64, 3, 500, true, true);
  sort_case(TERN_U64, 1, 33, false, false);
  sort_case(TERN_F16, 2, 129, true, false);
  sort_case(TERN_BF16, 2, 64, false, false);
  info_block b;
  device_describe(0, &b);
  if (b.info.dtypes & TERN_D_F32UP & 1u << TERN_F64) sort_case(TERN_F64, 2, 700, true, false);
}

/* ---- cumulative ---- */

static double fold(uint32_t op, double a, double x) {
  if (op == TERN_OP_CUMSUM) return a + x;
  if (op == TERN_OP_CUMPROD) return a * x;
  if (isnan(a) || isnan(x)) return NAN;
  return op == TERN_OP_CUMMAX ? fmax(a, x) : fmin(a, x);
}

static void scan_case(uint32_t op, uint32_t dtype, int64_t rows, int64_t n, uint32_t dim, int flags, bool nan) {
  operand in = {.dtype = dtype, .rank = 3, .shape = {2, rows, n}}, out;
  uint32_t seed = (uint32_t)n;
  dense(&in);
  out = in;
  in.data = calloc((size_t)in.n, size_of(dtype));
  out.data = calloc((size_t)in.n, size_of(dtype));
  fill_small(&in, &seed, op == TERN_OP_CUMPROD ? 1 : 9);
  if (nan) ((float *)in.data)[in.n / 2] = NAN;
  const operand *list[] = {&in, &out};
  one_node node;
  region_of(&node, op, dim, flags, 0, 2, list);
  CU_ASSERT_EQUAL_FATAL(run_one(&node, 2, list), TERN_OK);
  int64_t bad = 0;
  const int64_t length = in.shape[dim], step = in.stride[dim];
  for (int64_t i = 0; i < in.n; i++) {
    if (i / step % length) continue; /* starts of the lines only */
    double a = op == TERN_OP_CUMPROD, want = a;
    for (int64_t k = 0; k < length; k++) {
      const int64_t at = i + (flags & 2 ? length - 1 - k : k) * step;
      const double x = load(&in, at);
      const double next = k || op < TERN_OP_CUMMAX ? fold(op, a, x) : x;
      want = flags & 1 ? a : next;
      a = next;
      const double got = load(&out, at);
      bad += !(got == wrapped(want, isnan(want) ? TERN_F64 : dtype) || (isnan(got) && isnan(want)));
    }
  }
  if (bad)
    printf("scan op %u dtype %u n %lld dim %u flags %d: %lld wrong\n", op, dtype, (long long)n, dim, flags,
           (long long)bad);
  CU_ASSERT_EQUAL(bad, 0);
  free(in.data), free(out.data);
}

static void test_scan(void) {
  for (int flags = 0; flags < 4; flags++) {
    scan_case(TERN_OP_CUMSUM, TERN_F32, 3, 100, 2, flags, false);
    scan_case(TERN_OP_CUMPROD, TERN_I32, 40, 5, 1, flags, false);
  }
  scan_case(TERN_OP_CUMSUM, TERN_I8, 2, 500, 2, 0, false);
  scan_case(TERN_OP_CUMSUM, TERN_U64, 2, 50, 0, 0, false);
  scan_case(TERN_OP_CUMMAX, TERN_F32, 2, 60, 2, 0, true);
  scan_case(TERN_OP_CUMMIN, TERN_F32, 2, 60, 2, 2, true);
  scan_case(TERN_OP_CUMMAX, TERN_BOOL, 2, 60, 2, 0, false);
  scan_case(TERN_OP_CUMSUM, TERN_F32, 1, 20000, 2, 1, false); /* split in chunks */
  scan_case(TERN_OP_CUMMIN, TERN_F32, 1, 20000, 2, 2, true);
  scan_case(TERN_OP_CUMSUM, TERN_BF16, 2, 6, 2, 0, false);
}

int main(int argc, char **argv) {
  char dir[] = "/tmp/tern-opencl-XXXXXX";
  host_state.cache_dir = getenv("TERN_CACHE_DIR");
  if (!host_state.cache_dir) host_state.cache_dir = mkdtemp(dir);
  if (!host_open(argc, argv)) return 77;
  CU_initialize_registry();
  CU_pSuite s = CU_add_suite("opencl ops", NULL, NULL);
  CU_add_test(s, "dot, automatic choice", test_dot_auto);
  CU_add_test(s, "dot, plain", test_dot_plain);
  CU_add_test(s, "dot, tiled", test_dot_tiled);
  CU_add_test(s, "dot, dtypes", test_dot_dtypes);
  CU_add_test(s, "dot, packed", test_dot_packed);
  CU_add_test(s, "dot, refused", test_dot_refused);
  CU_add_test(s, "gather", test_gather);
  CU_add_test(s, "gather, index out of range", test_gather_range);
  CU_add_test(s, "sort and argsort", test_sort);
  CU_add_test(s, "cumulative", test_scan);
  CU_basic_set_mode(CU_BRM_VERBOSE);
  CU_basic_run_tests();
  const unsigned failed = CU_get_number_of_failures();
  CU_cleanup_registry();
  host_close();
  return failed != 0;
}
