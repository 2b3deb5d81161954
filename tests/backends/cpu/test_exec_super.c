/* The executor's ways for many elements: superinstructions against the nodes one by one, bit for bit; arrays beyond the
   caches, and windows, against plain loops; the same bits for any number of threads. Links the backend's objects. */
#include "../../../backends/cpu/exec_super.h"
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

static void run(const region_builder *b) {
  union {
    tern_kernel_info info;
    char room[1024];
  } u;
  memset(&u, 0, sizeof u);
  u.info.struct_size = sizeof u.info;
  tern_kernel *k = NULL;
  CU_ASSERT_FATAL(cpu_nest_supports(&b->region) == TERN_OK && cpu_nest_compile(&b->region, &k, &u.info) == TERN_OK);
  tern_arg args[RB_MAX_ARGS];
  for (uint32_t a = 0; a < b->region.n_args; a++) args[a] = (tern_arg){(tern_mem *)(void *)b->args[a].data, 0};
  for (uint32_t v = 0; v < b->region.n_values; v++) /* in place: the input's memory */
    if (b->values[v].kind == TERN_V_OUT && b->values[v].alias >= 0) args[b->values[v].slot] = args[b->values[v].alias];
  const tern_launch l = {.args = args, .words = b->words, .n_args = b->region.n_args, .n_words = b->region.n_words};
  CU_ASSERT_EQUAL(u.info.workspace, 0);
  CU_ASSERT_EQUAL(k->run(k, &l), TERN_OK);
  if (k->destroy)
    k->destroy(k);
  else
    free(k);
}

static float *data_of(const region_builder *b, uint32_t v) { return (float *)(void *)b->args[b->values[v].slot].data; }

static long differences(const float *a, const float *b, int64_t n) {
  long bad = 0;
  for (int64_t i = 0; i < n; i++) bad += memcmp(&a[i], &b[i], 4) != 0 && !(isnan(a[i]) && isnan(b[i]));
  return bad;
}

/* ---- superinstructions ---- */

typedef struct tree {
  region_builder *b;
  const char *at;
  int64_t n;
  uint32_t ones, leaves; /* bit k: operand k is one element */
  uint32_t leaf[X_LEAVES];
} tree;

static uint32_t op_of(char c) {
  static const char letters[] = "+-*/NETRSQ<L=";
  static const uint32_t ops[] = {TERN_OP_ADD, TERN_OP_SUB,  TERN_OP_MUL, TERN_OP_DIV,  TERN_OP_NEG,
                                 TERN_OP_EXP, TERN_OP_TANH, TERN_OP_ERF, TERN_OP_SQRT, TERN_OP_MUL,
                                 TERN_OP_LT,  TERN_OP_LE,   TERN_OP_EQ};
  return ops[strchr(letters, c) - letters];
}

static bool compares(char c) { return strchr("<L=", c); }

static uint32_t build(tree *t) {
  const char c = *t->at++;
  if (c == '.') {
    const int64_t one = 1;
    const uint32_t k = t->leaves++;
    return t->leaf[k] = rb_in_range(t->b, TERN_F32, 1, t->ones >> k & 1 ? &one : &t->n, RB_DENSE, 0.1, 4);
  }
  const uint32_t x = build(t);
  if (c == 'Q') return rb_map(t->b, TERN_OP_MUL, x, x, RB_NONE);
  if (compares(c)) {
    const uint32_t y = build(t), mask = rb_map(t->b, op_of(c), x, y, RB_NONE), yes = build(t), no = build(t);
    return rb_map(t->b, TERN_OP_WHERE, mask, yes, no);
  }
  return rb_map(t->b, op_of(c), x, strchr("+-*/", c) ? build(t) : RB_NONE, RB_NONE);
}

/* The same, node by node over whole arrays; malloc'ed */
static float *compute(tree *t) {
  const char c = *t->at++;
  float *const out = malloc((size_t)t->n * sizeof *out);
  if (c == '.') {
    const uint32_t k = t->leaves++;
    const float *const x = data_of(t->b, t->leaf[k]);
    for (int64_t i = 0; i < t->n; i++) out[i] = x[t->ones >> k & 1 ? 0 : i];
    return out;
  }
  if (compares(c)) {
    float *part[4];
    bool *const mask = malloc((size_t)t->n);
    for (int k = 0; k < 4; k++) part[k] = compute(t);
    cpu_map(op_of(c), TERN_F32, TERN_BOOL, 0)(mask, part[0], part[1], part[0], t->n);
    for (int64_t i = 0; i < t->n; i++) out[i] = part[mask[i] ? 2 : 3][i];
    for (int k = 0; k < 4; k++) free(part[k]);
    free(mask);
    return out;
  }
  float *const x = compute(t), *const y = strchr("+-*/", c) ? compute(t) : NULL;
  cpu_map(op_of(c), TERN_F32, TERN_F32, 0)(out, x, y ? y : x, x, t->n);
  free(x);
  free(y);
  return out;
}

static void try_pattern(const char *pattern, uint32_t ones, int64_t n, uint64_t seed) {
  static region_builder b;
  rb_init(&b, pattern, seed);
  tree t = {.b = &b, .at = pattern, .n = n, .ones = ones};
  const uint32_t out = build(&t);
  rb_out(&b, out);
  for (uint32_t k = 0; k < t.leaves && seed % 3 == 0; k++)
    if (!(ones >> k & 1)) {
      static const float odd[] = {0, -0.0f, INFINITY, -INFINITY, NAN, 1e-42f, 3e38f, -5};
      for (int64_t i = k; i < n; i += 7) data_of(&b, t.leaf[k])[i] = odd[(uint64_t)(i / 7) % 8];
    }
  x_plan plan;
  CU_ASSERT_FATAL(x_plan_build(&b.region, 0, &plan) == TERN_OK);
  bool found = false;
  for (uint32_t i = 0; i < plan.nest[0].fused[0].n; i++) found |= plan.nest[0].fused[0].item[i].kind == X_SUPER;
  CU_ASSERT(found);
  x_plan_free(&plan);
  run(&b);
  t.at = pattern;
  t.leaves = 0;
  float *const want = compute(&t);
  const long bad = differences(data_of(&b, out), want, n);
  if (bad) printf("\n    %s with operands %x as one: %ld of %lld differ", pattern, ones, bad, (long long)n);
  CU_ASSERT_EQUAL(bad, 0);
  free(want);
  rb_free(&b);
}

static void test_patterns(void) {
  for (uint32_t k = 0; k < x_super_count; k++) {
    uint32_t leaves = 0;
    for (const char *p = x_super_table[k].pattern; *p; p++) leaves += *p == '.';
    for (uint32_t ones = 0; ones + 1 < 1u << leaves; ones++) {
      try_pattern(x_super_table[k].pattern, ones, 4500 + (int64_t)(k + ones) % 37, 100 * k + ones);
    }
  }
}

/* ---- beyond the caches ---- */

static uint32_t chain(region_builder *b, int64_t n, bool in_place) {
  const uint32_t x = rb_in_range(b, TERN_F32, 1, &n, RB_DENSE, -2, 2);
  const uint32_t z = rb_in_range(b, TERN_F32, 1, &n, RB_DENSE, -2, 2), one = rb_const(b, TERN_F32, 1);
  const uint32_t sum = rb_map(b, TERN_OP_ADD, rb_map(b, TERN_OP_MUL, x, z, RB_NONE), one, RB_NONE);
  const uint32_t square = rb_map(b, TERN_OP_MUL, rb_map(b, TERN_OP_NEG, x, RB_NONE, RB_NONE), x, RB_NONE);
  const uint32_t product = rb_map(b, TERN_OP_MUL, rb_map(b, TERN_OP_TANH, sum, RB_NONE, RB_NONE),
                                  rb_map(b, TERN_OP_EXP, square, RB_NONE, RB_NONE), RB_NONE);
  const uint32_t y = rb_map(b, TERN_OP_ADD, product, z, RB_NONE);
  if (in_place)
    rb_out_alias(b, y, b->values[z].slot, z);
  else
    rb_out(b, y);
  return y;
}

static void test_long_chain(void) {
  static region_builder b;
  for (int form = 0; form < 3; form++) {
    rb_init(&b, "chain", 5);
    const int64_t n = 3000000 + form;
    const uint32_t y = chain(&b, n, form == 2);
    float *const want = malloc((size_t)n * 4), *const x = data_of(&b, 0), *const z = malloc((size_t)n * 4);
    memcpy(z, b.args[1].data, (size_t)n * 4);
    float *const t = malloc((size_t)n * 4);
    for (int64_t i = 0; i < n; i++) t[i] = x[i] * z[i] + 1, want[i] = -x[i] * x[i];
    cpu_map(TERN_OP_TANH, TERN_F32, TERN_F32, 0)(t, t, t, t, n);
    cpu_map(TERN_OP_EXP, TERN_F32, TERN_F32, 0)(want, want, want, want, n);
    for (int64_t i = 0; i < n; i++) want[i] = t[i] * want[i] + z[i];
    run(&b);
    const uint32_t slot = form == 2 ? 1 : b.values[y].slot;
    CU_ASSERT_EQUAL(differences((float *)(void *)b.args[slot].data, want, n), 0);
    free(want);
    free(z);
    free(t);
    rb_free(&b);
  }
}

/* Results of one byte an element, whose blocks begin anywhere */
static void test_long_mask(void) {
  static region_builder b;
  const int64_t n = 9000001;
  rb_init(&b, "mask", 7);
  uint32_t in[3];
  for (int k = 0; k < 3; k++) in[k] = rb_in_range(&b, TERN_F32, 1, &n, RB_DENSE, -2, 2);
  const uint32_t y = rb_map(&b, TERN_OP_LT, rb_map(&b, TERN_OP_MUL, in[0], in[1], RB_NONE), in[2], RB_NONE);
  rb_out(&b, y);
  run(&b);
  const float *const p = data_of(&b, in[0]), *const q = data_of(&b, in[1]), *const r = data_of(&b, in[2]);
  const bool *const got = (const bool *)(const void *)data_of(&b, y);
  long bad = 0;
  for (int64_t i = 0; i < n; i++) bad += got[i] != (p[i] * q[i] < r[i]);
  CU_ASSERT_EQUAL(bad, 0);
  rb_free(&b);
}

/* (x + bias) z over rows of few elements, x's with gaps between them */
static void test_long_runs(void) {
  static region_builder b;
  static const int64_t sizes[] = {3, 32, 100, 192};
  for (int k = 0; k < 4; k++) {
    const int64_t n = sizes[k], rows = 9000000 / n, shape[] = {rows, n}, one_row[] = {1, n};
    rb_init(&b, "runs", (uint64_t)k);
    const uint32_t x = rb_in_range(&b, TERN_F32, 2, shape, RB_PADDED, -2, 2),
                   bias = rb_in_range(&b, TERN_F32, 2, one_row, RB_DENSE, -2, 2),
                   z = rb_in_range(&b, TERN_F32, 2, shape, RB_DENSE, -2, 2);
    const uint32_t y = rb_map(&b, TERN_OP_MUL, rb_map(&b, TERN_OP_ADD, x, bias, RB_NONE), z, RB_NONE);
    rb_out(&b, y);
    run(&b);
    const float *const p = data_of(&b, x), *const q = data_of(&b, bias), *const r = data_of(&b, z);
    const float *const got = data_of(&b, y);
    long bad = 0;
    for (int64_t i = 0; i < rows; i++)
      for (int64_t j = 0; j < n; j++) bad += got[i * n + j] != (p[i * (n + 3) + j] + q[j]) * r[i * n + j];
    CU_ASSERT_EQUAL(bad, 0);
    rb_free(&b);
  }
}

/* softmax of rows: sums in double beside it, and the bits of one thread and of three */
static void test_long_rows(void) {
  static region_builder b;
  static const int64_t shapes[][2] = {{5000, 1024}, {5000, 1000}, {1500, 5000}};
  for (int s = 0; s < 3; s++) {
    float *first = NULL;
    const int64_t rows = shapes[s][0], n = shapes[s][1];
    for (int threads = 1; threads <= 3; threads += 2) {
      cpu_threads_init(threads);
      rb_init(&b, "softmax", 9);
      const uint32_t x = rb_in_range(&b, TERN_F32, 2, shapes[s], RB_DENSE, -9, 9);
      const uint32_t less = rb_map(&b, TERN_OP_SUB, x, rb_reduce(&b, TERN_OP_AMAX, x, 2), RB_NONE);
      const uint32_t e = rb_map(&b, TERN_OP_EXP, less, RB_NONE, RB_NONE);
      const uint32_t y = rb_map(&b, TERN_OP_DIV, e, rb_reduce(&b, TERN_OP_SUM, e, 2), RB_NONE);
      rb_out(&b, y);
      run(&b);
      const float *const in = data_of(&b, x), *const out = data_of(&b, y);
      double worst = 0;
      for (int64_t r = 0; r < rows; r += 97) {
        double sum = 0;
        for (int64_t i = 0; i < n; i++) sum += exp((double)in[r * n + i]);
        for (int64_t i = 0; i < n; i++)
          worst = fmax(worst, fabs((double)out[r * n + i] / (exp((double)in[r * n + i]) / sum) - 1));
      }
      CU_ASSERT(worst < 3e-6);
      if (!first) {
        first = malloc((size_t)(rows * n) * 4);
        memcpy(first, out, (size_t)(rows * n) * 4);
      } else {
        CU_ASSERT_EQUAL(differences(first, out, rows * n), 0);
      }
      rb_free(&b);
    }
    free(first);
  }
  cpu_threads_init(0);
}

/* ---- windows ---- */

typedef struct pool {
  int64_t planes, h, w, window, step;
  uint32_t op;
} pool;

static void try_window(const pool *p) {
  static region_builder b;
  const int64_t oh = (p->h - p->window) / p->step + 1, ow = (p->w - p->window) / p->step + 1;
  const int64_t shape[] = {p->window, p->window, p->planes, oh, ow}, all = p->planes * p->h * p->w;
  const int64_t stride[] = {p->w, 1, p->h * p->w, p->step * p->w, p->step};
  rb_init(&b, "window", 3);
  const uint32_t x = rb_in_range(&b, TERN_F32, 1, &all, RB_DENSE, -2, 2);
  b.values[x].rank = 5;
  for (int d = 0; d < 5; d++) {
    b.values[x].shape[d] = rb_sym(&b, shape[d]);
    b.values[x].stride[d] = d == 4 && p->step == 1 ? 1 : rb_sym(&b, stride[d]);
  }
  uint32_t y = rb_reduce(&b, p->op, x, 3);
  if (p->op == TERN_OP_SUM) y = rb_map(&b, TERN_OP_DIV, y, rb_size(&b, TERN_F32, x, 3), RB_NONE);
  rb_out(&b, y);
  float *const in = data_of(&b, x);
  for (int64_t i = 5; i < all && p->planes % 2; i += 211) in[i] = i % 3 ? NAN : -INFINITY;
  run(&b);
  const float *out = data_of(&b, y);
  long bad = 0;
  for (int64_t q = 0; q < p->planes; q++)
    for (int64_t i = 0; i < oh; i++)
      for (int64_t j = 0; j < ow; j++, out++) {
        double want = p->op == TERN_OP_SUM ? 0 : p->op == TERN_OP_AMAX ? -INFINITY : INFINITY;
        for (int64_t k = 0; k < p->window * p->window; k++) {
          const double v = (double)in[(q * p->h + i * p->step + k / p->window) * p->w + j * p->step + k % p->window];
          if (p->op == TERN_OP_SUM)
            want += v;
          else if (isnan(v) || (p->op == TERN_OP_AMAX ? v > want : v < want))
            want = v;
        }
        const float f = p->op == TERN_OP_SUM ? (float)want / (float)(p->window * p->window) : (float)want;
        bad += memcmp(&f, out, 4) != 0 && !(isnan(f) && isnan(*out)) && !(fabsf(f - *out) < 1e-6f);
      }
  CU_ASSERT_EQUAL(bad, 0);
  rb_free(&b);
}

static void test_windows(void) {
  static const uint32_t ops[] = {TERN_OP_SUM, TERN_OP_AMAX, TERN_OP_AMIN};
  for (int o = 0; o < 3; o++)
    for (int64_t window = 2; window <= 4; window++)
      for (int64_t step = 1; step <= 4; step++)
        for (int64_t w = 11; w < 75; w += 7) try_window(&(pool){40 + w % 3, 12 + w % 5, w, window, step, ops[o]});
}

int main(void) {
  if (CU_initialize_registry() != CUE_SUCCESS) return 1;
  CU_pSuite s = CU_add_suite("cpu_exec_super", NULL, NULL);
  CU_add_test(s, "superinstructions have the bits of their nodes", test_patterns);
  CU_add_test(s, "a chain over large arrays, in place too", test_long_chain);
  CU_add_test(s, "masks beyond the caches", test_long_mask);
  CU_add_test(s, "short runs beyond the caches", test_long_runs);
  CU_add_test(s, "rows of large arrays, and numbers of threads", test_long_rows);
  CU_add_test(s, "windows", test_windows);
  CU_basic_set_mode(CU_BRM_VERBOSE);
  CU_basic_run_tests();
  const unsigned failed = CU_get_number_of_failures();
  CU_cleanup_registry();
  return failed != 0;
}
