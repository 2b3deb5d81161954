/* Softmax and normalisations of many rows against the general path, bit for bit, special values included; independent
   nests that share the threads against plain loops. Links the backend's objects. */
#include "../../../backends/cpu/cpu.h"
#include "../common/regions.h"
#include <CUnit/Basic.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

tern_rc cpu_error(tern_rc code, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  vprintf(fmt, ap);
  va_end(ap);
  printf("\n");
  return code;
}

static size_t bytes_of(const rb_arg *a) { return (size_t)a->count * cpu_item_size(a->dtype); }

/* Runs the region on copies of its arguments whose addresses are `odd` bytes past a multiple of 64. The elements of
   `out` afterwards; free them */
static float *run(const region_builder *b, uint32_t out, size_t odd) {
  union {
    tern_kernel_info info;
    char room[1024];
  } u;
  memset(&u, 0, sizeof u);
  u.info.struct_size = sizeof u.info;
  tern_kernel *k = NULL;
  CU_ASSERT_FATAL(cpu_nest_supports(&b->region) == TERN_OK && cpu_nest_compile(&b->region, &k, &u.info) == TERN_OK);
  tern_arg args[RB_MAX_ARGS];
  char *memory[RB_MAX_ARGS];
  for (uint32_t a = 0; a < b->region.n_args; a++) {
    memory[a] = aligned_alloc(64, (bytes_of(&b->args[a]) + odd + 64) / 64 * 64);
    CU_ASSERT_FATAL(memory[a] != NULL);
    if (b->args[a].data) memcpy(memory[a] + odd, b->args[a].data, bytes_of(&b->args[a])); /* else it is in place */
    args[a] = (tern_arg){(tern_mem *)(void *)memory[a], odd};
  }
  for (uint32_t v = 0; v < b->region.n_values; v++)
    if (b->values[v].kind == TERN_V_OUT && b->values[v].alias >= 0) args[b->values[v].slot] = args[b->values[v].alias];
  const tern_launch l = {
      .args = args, .words = b->words, .n_args = b->region.n_args, .n_words = b->region.n_words};
  CU_ASSERT_EQUAL(u.info.workspace, 0);
  CU_ASSERT_EQUAL(k->run(k, &l), TERN_OK);
  const uint32_t slot = b->values[out].alias >= 0 ? (uint32_t)b->values[out].alias : b->values[out].slot;
  const size_t bytes = bytes_of(&b->args[slot]);
  float *const result = malloc(bytes);
  CU_ASSERT_FATAL(result != NULL);
  memcpy(result, (char *)(void *)args[slot].mem + odd, bytes);
  for (uint32_t a = 0; a < b->region.n_args; a++) free(memory[a]);
  if (k->destroy)
    k->destroy(k);
  else
    free(k);
  return result;
}

static long differences(const float *a, const float *b, int64_t n) {
  long bad = 0;
  for (int64_t i = 0; i < n; i++) bad += memcmp(&a[i], &b[i], 4) != 0 && !(isnan(a[i]) && isnan(b[i]));
  return bad;
}

/* ---- rows ---- */

enum { SOFTMAX, LAYER, RMS };
typedef struct form {
  int op;
  bool scale, shift, in_place;
} form;

static uint32_t centre(region_builder *b, uint32_t x) {
  const uint32_t n = rb_size(b, TERN_F32, x, 2);
  return rb_map(b, TERN_OP_SUB, x, rb_map(b, TERN_OP_DIV, rb_reduce(b, TERN_OP_SUM, x, 2), n, RB_NONE), RB_NONE);
}

static uint32_t divided(region_builder *b, uint32_t x, int op) {
  if (op == SOFTMAX) {
    const uint32_t less = rb_map(b, TERN_OP_SUB, x, rb_reduce(b, TERN_OP_AMAX, x, 2), RB_NONE);
    const uint32_t e = rb_map(b, TERN_OP_EXP, less, RB_NONE, RB_NONE);
    return rb_map(b, TERN_OP_DIV, e, rb_reduce(b, TERN_OP_SUM, e, 2), RB_NONE);
  }
  const uint32_t c = op == LAYER ? centre(b, x) : x, square = rb_map(b, TERN_OP_MUL, c, c, RB_NONE);
  const uint32_t variance =
      rb_map(b, TERN_OP_DIV, rb_reduce(b, TERN_OP_SUM, square, 2), rb_size(b, TERN_F32, x, 2), RB_NONE);
  const uint32_t more = rb_map(b, TERN_OP_ADD, variance, rb_param(b, TERN_F32, 1e-5), RB_NONE);
  return rb_map(b, TERN_OP_DIV, c, rb_map(b, TERN_OP_SQRT, more, RB_NONE, RB_NONE), RB_NONE);
}

/* Every kind of row that is no plain numbers, and rows whose exponentials are tiny */
static void spoil(float *x, int64_t rows, int64_t n) {
  for (int64_t r = 0; r < rows; r++) {
    float *const q = x + r * n;
    const int kind = (int)(r % 13);
    if (kind == 1) q[r % n] = NAN;
    if (kind == 2) q[r % n] = INFINITY;
    if (kind == 3) q[r % n] = q[0] = -INFINITY;
    for (int64_t i = 0; i < n && kind >= 4 && kind <= 8; i++)
      q[i] = kind == 4   ? -INFINITY
             : kind == 5 ? NAN
             : kind == 6 ? 12 * q[i]
             : kind == 7 ? 3
                         : 1e-30f * (float)i;
  }
}

/* general: one more instruction, which changes nothing but what the region looks like */
static float *rows_of(const form *f, int64_t rows, int64_t n, bool general, size_t odd, int threads) {
  static region_builder b;
  const int64_t shape[] = {rows, n}, row[] = {1, n};
  cpu_threads_init(threads);
  rb_init(&b, "rows", 5);
  const uint32_t x = rb_in_range(&b, TERN_F32, 2, shape, RB_DENSE, -9, 9);
  uint32_t y = divided(&b, x, f->op);
  if (f->scale) y = rb_map(&b, TERN_OP_MUL, y, rb_in_range(&b, TERN_F32, 2, row, RB_DENSE, -2, 2), RB_NONE);
  if (f->shift) y = rb_map(&b, TERN_OP_ADD, y, rb_in_range(&b, TERN_F32, 2, row, RB_DENSE, -2, 2), RB_NONE);
  if (general) y = rb_map(&b, TERN_OP_MUL, y, rb_const(&b, TERN_F32, 1), RB_NONE);
  if (f->in_place)
    rb_out_alias(&b, y, b.values[x].slot, x);
  else
    rb_out(&b, y);
  spoil((float *)(void *)b.args[b.values[x].slot].data, rows, n);
  float *const out = run(&b, y, odd);
  rb_free(&b);
  cpu_threads_init(0);
  return out;
}

static void test_rows(void) {
  static const form forms[] = {
      {SOFTMAX, false, false, false}, {SOFTMAX, false, false, true}, {LAYER, true, true, false},
      {LAYER, false, false, true},    {LAYER, false, true, false},   {LAYER, true, false, false},
      {RMS, true, false, false},      {RMS, false, false, true}};
  /* in the caches; past them; a last block that is shorter; sums that reach double twice */
  static const int64_t shapes[][2] = {{700, 1024}, {4300, 1024}, {3000, 320}, {200, 8192}, {60000, 64}, {800, 1000}};
  for (size_t f = 0; f < sizeof forms / sizeof *forms; f++)
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
      const int64_t rows = shapes[s][0], n = shapes[s][1];
      float *const want = rows_of(&forms[f], rows, n, true, 0, 1);
      for (int k = 0; k < 3; k++) {
        float *const got = rows_of(&forms[f], rows, n, false, k == 1 ? 4 : 0, k == 2 ? 3 : 1);
        CU_ASSERT_EQUAL(differences(got, want, rows * n), 0);
        free(got);
      }
      free(want);
    }
}

/* ---- nests that share the threads ---- */

/* (x + 2) * x of arrays whose sizes differ by far, more of them than are taken at once */
static void test_shared(void) {
  enum { ARRAYS = 11 };
  static region_builder b;
  for (int threads = 1; threads <= 3; threads++)
    for (int64_t most = 3; most < 200000; most *= 40) {
      uint32_t x[ARRAYS], y[ARRAYS];
      cpu_threads_init(threads);
      rb_init(&b, "shared", 11);
      for (int i = 0; i < ARRAYS; i++) {
        const int64_t shape[] = {2 + i % 3, 1 + most * (i * i % 7) / (1 + i % 4)};
        x[i] = rb_in_range(&b, TERN_F32, 2, shape, RB_DENSE, -9, 9);
        const uint32_t more = rb_map(&b, TERN_OP_ADD, x[i], rb_const(&b, TERN_F32, 2), RB_NONE);
        rb_out(&b, y[i] = rb_map(&b, TERN_OP_MUL, more, x[i], RB_NONE));
      }
      for (int i = 0; i < ARRAYS; i++) {
        float *const got = run(&b, y[i], 0);
        const float *const in = (const float *)(const void *)b.args[b.values[x[i]].slot].data;
        long bad = 0;
        for (int64_t k = 0; k < rb_count(&b, y[i]); k++) bad += got[k] != (in[k] + 2) * in[k];
        CU_ASSERT_EQUAL(bad, 0);
        free(got);
      }
      rb_free(&b);
    }
  cpu_threads_init(0);
}

int main(void) {
  if (CU_initialize_registry() != CUE_SUCCESS) return 1;
  CU_pSuite s = CU_add_suite("cpu_exec_rows", NULL, NULL);
  CU_add_test(s, "softmax and normalisations have the general path's bits", test_rows);
  CU_add_test(s, "independent nests share the threads", test_shared);
  CU_basic_set_mode(CU_BRM_VERBOSE);
  CU_basic_run_tests();
  const unsigned failed = CU_get_number_of_failures();
  CU_cleanup_registry();
  return failed != 0;
}
