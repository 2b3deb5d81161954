/* Small launches as programs (exec_small.c) against the general executor: the same bits for random regions, for the
   well-known composites, for every float dtype and in place, with changing sizes and from several threads. */
#include "../../../backends/common/nest.h"
#include "../../../backends/cpu/exec_small.h"
#include "../../../backends/cpu/exec_tiny.h"
#include "../common/regions.h"
#include <CUnit/Basic.h>
#include <math.h>
#include <pthread.h>
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

static uint64_t first_seed = 1, n_seeds = 3000;

static tern_kernel *compile(const tern_region *r, uint64_t *ws) {
  union {
    tern_kernel_info info;
    char room[1024];
  } u;
  memset(&u, 0, sizeof u);
  u.info.struct_size = sizeof u.info;
  tern_kernel *k = NULL;
  if (cpu_nest_supports(r) != TERN_OK || cpu_nest_compile(r, &k, &u.info) != TERN_OK) return NULL;
  *ws = u.info.workspace;
  return k;
}

static void destroy(tern_kernel *k) {
  if (k->destroy)
    k->destroy(k);
  else
    free(k);
}

static tern_rc launch(const tern_kernel *k, const region_builder *b, void *const *at, uint64_t ws) {
  tern_arg args[RB_MAX_ARGS];
  for (uint32_t a = 0; a < b->region.n_args; a++) args[a] = (tern_arg){at[a], 0};
  const uint64_t bytes = ws == UINT64_MAX ? k->workspace(k, b->words) : ws;
  void *const space = bytes ? aligned_alloc(64, (bytes + 63) & ~(uint64_t)63) : NULL;
  const tern_launch l = {.args = args,
                         .words = b->words,
                         .n_args = b->region.n_args,
                         .n_words = b->region.n_words,
                         .workspace = {space, 0}};
  const tern_rc rc = k->run(k, &l);
  free(space);
  return rc;
}

/* The region by both ways; how many arguments differ in some bit */
static uint32_t differences(const region_builder *b) {
  unsigned char *storage[2][RB_MAX_ARGS];
  void *at[2][RB_MAX_ARGS];
  uint64_t ws = 0;
  uint32_t bad = 0;
  tern_kernel *const k = compile(&b->region, &ws);
  if (!k) return UINT32_MAX;
  for (int way = 0; way < 2; way++) {
    CU_ASSERT_FATAL(rb_copy_args(b, storage[way], at[way]));
    x_region_mode(k, way ? X_SMALL_AT_ONCE : X_SMALL_NEVER);
    CU_ASSERT_EQUAL(launch(k, b, at[way], ws), TERN_OK);
  }
  for (uint32_t a = 0; a < b->region.n_args; a++) {
    const size_t bytes = (size_t)b->args[a].count * nest_item_size(b->args[a].dtype);
    if (storage[0][a] && memcmp(storage[0][a], storage[1][a], bytes) != 0) bad++;
    free(storage[0][a]);
    free(storage[1][a]);
  }
  destroy(k);
  return bad;
}

static void describe(const region_builder *b) {
  printf("  %s\n", b->name);
  for (uint32_t i = 0; i < b->region.n_nodes; i++) {
    const tern_node *const n = &b->nodes[i];
    const uint32_t out = b->edges[n->out];
    printf("  v%u(kind %u alias %d) = %s", out, b->values[out].kind, b->values[out].alias, nest_prim_of(n->op)->name);
    for (uint32_t j = 0; j < n->n_in; j++) printf(" v%u", b->edges[n->in + j]);
    printf(" :");
    for (uint32_t d = 0; d < b->values[out].rank; d++)
      printf(" %lld", (long long)TERN_LIT(b->values[out].shape[d], b->words));
    printf("\n");
  }
}

static void test_random(void) {
  static region_builder b;
  uint32_t wrong = 0, refused = 0;
  for (uint64_t s = first_seed; s < first_seed + n_seeds && wrong < 3; s++) {
    rb_random_region(&b, s, false);
    const uint32_t bad = differences(&b);
    refused += bad == UINT32_MAX;
    if (bad && bad != UINT32_MAX) {
      printf("seed %llu: %u arguments differ\n", (unsigned long long)s, bad);
      describe(&b);
      wrong++;
    }
    rb_free(&b);
  }
  CU_ASSERT_EQUAL(wrong, 0);
  CU_ASSERT(refused < n_seeds / 20);
}

static void test_known(void) {
  static region_builder b;
  static const uint32_t dtypes[] = {TERN_F32, TERN_F64, TERN_F16, TERN_BF16};
  for (size_t t = 0; t < sizeof dtypes / sizeof *dtypes; t++)
    for (int in_place = 0; in_place < 2; in_place++)
      for (unsigned i = 0; rb_known(&b, i, dtypes[t], in_place); i++) {
        const uint32_t bad = differences(&b);
        if (bad) {
          printf("%s: %u arguments differ\n", b.name, bad);
          describe(&b);
        }
        CU_ASSERT(bad == 0 || bad == UINT32_MAX);
        rb_free(&b);
      }
}

/* Powers with one exponent for all are computed otherwise than those with many: an exponent for each row, for all,
   for each element, from a reduction, and as a constant */
static void test_powers(void) {
  static region_builder b;
  static const uint32_t dtypes[] = {TERN_F32, TERN_F64, TERN_F16, TERN_BF16, TERN_I32};
  static const double exponent[] = {2, 3, -1, 0.5, 1.7};
  for (size_t t = 0; t < sizeof dtypes / sizeof *dtypes; t++)
    for (int64_t cols = 1; cols < 200; cols = cols * 3 + 1)
      for (int how = 0; how < 10; how++) {
        rb_init(&b, "powers", (uint64_t)(100 * how + cols));
        const int64_t shape[2] = {rb_sym(&b, 5), rb_sym(&b, cols)};
        const int64_t one_row[2] = {shape[0], how & 1 ? shape[1] : 1};
        const double y = exponent[how / 2];
        const uint32_t x = rb_in_range(&b, dtypes[t], 2, shape, RB_DENSE, 0.1, 5);
        const uint32_t e = rb_in_range(&b, dtypes[t], 2, one_row, RB_DENSE, y, y);
        const uint32_t top = rb_reduce(&b, TERN_OP_AMIN, e, 2), all = rb_reduce(&b, TERN_OP_AMAX, e, 3);
        const uint32_t p = rb_map(&b, TERN_OP_POW, x, e, RB_NONE), q = rb_map(&b, TERN_OP_POW, p, top, RB_NONE);
        rb_out(&b, rb_map(&b, TERN_OP_ADD, q, rb_map(&b, TERN_OP_POW, x, all, RB_NONE), RB_NONE));
        rb_out(&b, rb_reduce(&b, TERN_OP_SUM, rb_map(&b, TERN_OP_POW, x, rb_const(&b, dtypes[t], y), RB_NONE), 2));
        CU_ASSERT_EQUAL(differences(&b), 0);
        rb_free(&b);
      }
}

/* exec_tiny.h's functions have the bits of the tables', for every length and operand form, and write no further */
static void test_tiny(void) {
  static const uint32_t ops[] = {TERN_OP_ADD,  TERN_OP_SUB, TERN_OP_MUL, TERN_OP_DIV, TERN_OP_NEG,
                                 TERN_OP_SQRT, TERN_OP_EXP, TERN_OP_LOG, TERN_OP_TANH};
  static const float special[] = {0.0f,   -0.0f, 1,       -1, INFINITY, -INFINITY, NAN,
                                  1e-42f, 3e38f, -1e-38f, 88, -104,     1e-6f};
  enum { N = X_TINY_MOST, ROOM = 64, TURNS = 40 };
  uint32_t wrong = 0, seen = 0, seed = 1;
  float a[ROOM], b[ROOM], mine[ROOM], want[ROOM];
  for (size_t o = 0; o < sizeof ops / sizeof *ops; o++)
    for (uint32_t splat = 0; splat < 3; splat++)
      for (int64_t n = 1; n <= N; n++) {
        const cpu_map_fn tiny = x_tiny_map(ops[o], splat, n), full = cpu_map(ops[o], TERN_F32, TERN_F32, splat);
        for (int turn = 0; tiny && full && turn < TURNS; turn++, seen++) {
          for (int i = 0; i < ROOM; i++) {
            seed = seed * 1664525 + 1013904223;
            a[i] = seed >> 29 ? (float)(seed >> 8) / (1 << 20) - 8 : special[(seed >> 8) % 13];
            seed = seed * 1664525 + 1013904223;
            b[i] = seed >> 29 ? (float)(seed >> 8) / (1 << 20) - 8 : special[(seed >> 8) % 13];
            mine[i] = want[i] = -7;
          }
          if (turn % 4 == 1) memcpy(mine, a, sizeof a), memcpy(want, a, sizeof a); /* in place */
          const bool place = turn % 4 == 1 && !(splat & 1);
          tiny(mine, place ? mine : a, b, a, n);
          full(want, place ? want : a, b, a, n);
          for (int i = 0; i < ROOM; i++)
            wrong += memcmp(&mine[i], &want[i], 4) != 0 && !(isnan(mine[i]) && isnan(want[i]));
        }
      }
  CU_ASSERT_EQUAL(wrong, 0);
  CU_ASSERT(seen > 10000);
}

/* ---- one kernel, many sizes, many threads: y = (x - mean(x)) over [rows, cols] ---- */

enum { MOST = 40 };

static void centred(region_builder *b, int64_t rows, int64_t cols) {
  rb_init(b, "centred", 7);
  const int64_t shape[2] = {rb_sym(b, rows), rb_sym(b, cols)};
  const uint32_t x = rb_in(b, TERN_F32, 2, shape, RB_DENSE), n = rb_size(b, TERN_F32, x, 2);
  const uint32_t mean = rb_map(b, TERN_OP_DIV, rb_reduce(b, TERN_OP_SUM, x, 2), n, RB_NONE);
  rb_out(b, rb_map(b, TERN_OP_SUB, x, mean, RB_NONE));
}

typedef struct shared {
  const tern_kernel *k;
  const region_builder *b;
  int64_t order;
  uint32_t bad;
} shared;

/* Sizes in a changing order, each three times running, so that programs are built and run all the time */
static void *hammer(void *ctx) {
  shared *const s = ctx;
  float x[MOST * MOST], y[MOST * MOST];
  for (int64_t turn = 0; turn < 400; turn++) {
    const int64_t rows = 1 + (turn * s->order) % 5, cols = 1 + (turn * (s->order + 2)) % 4 * 5;
    tern_word words[RB_MAX_WORDS];
    memcpy(words, s->b->words, sizeof words);
    for (uint32_t w = 0; w < s->b->region.n_words; w++) { /* 3 and 7 stand for rows and columns */
      words[w].i = words[w].i == 3 ? rows : words[w].i == 7 ? cols : words[w].i;
    }
    for (int64_t i = 0; i < rows * cols; i++) x[i] = (float)((i * 7 + turn) % 11);
    tern_arg args[2] = {{(tern_mem *)(void *)x, 0}, {(tern_mem *)(void *)y, 0}};
    const tern_launch l = {.args = args, .words = words, .n_args = 2, .n_words = s->b->region.n_words};
    for (int again = 0; again < 3; again++) {
      memset(y, 0, sizeof y);
      if (s->k->run(s->k, &l) != TERN_OK) s->bad++;
      for (int64_t r = 0; r < rows; r++) {
        double sum = 0;
        for (int64_t c = 0; c < cols; c++) sum += (double)x[r * cols + c];
        for (int64_t c = 0; c < cols; c++) {
          const double want = (double)x[r * cols + c] - sum / (double)cols, off = want - (double)y[r * cols + c];
          s->bad += off > 1e-5 || off < -1e-5;
        }
      }
    }
  }
  return NULL;
}

static void test_threads(void) {
  static region_builder b;
  enum { THREADS = 4 };
  centred(&b, 3, 7);
  uint64_t ws = 0;
  tern_kernel *const k = compile(&b.region, &ws);
  CU_ASSERT_FATAL(k != NULL && ws == 0);
  pthread_t thread[THREADS];
  shared s[THREADS];
  for (int t = 0; t < THREADS; t++) {
    s[t] = (shared){k, &b, t + 1, 0};
    CU_ASSERT_FATAL(pthread_create(&thread[t], NULL, hammer, &s[t]) == 0);
  }
  for (int t = 0; t < THREADS; t++) {
    pthread_join(thread[t], NULL);
    CU_ASSERT_EQUAL(s[t].bad, 0);
  }
  destroy(k);
  rb_free(&b);
}

int main(int argc, char **argv) {
  if (argc > 1) first_seed = strtoull(argv[1], NULL, 10);
  if (argc > 2) n_seeds = strtoull(argv[2], NULL, 10);
  if (CU_initialize_registry() != CUE_SUCCESS) return 1;
  CU_pSuite s = CU_add_suite("cpu_exec_small", NULL, NULL);
  CU_add_test(s, "random regions have the bits of the general path", test_random);
  CU_add_test(s, "so have the well-known composites, in place and not", test_known);
  CU_add_test(s, "powers", test_powers);
  CU_add_test(s, "functions of a few elements have the bits of the tables'", test_tiny);
  CU_add_test(s, "one kernel, many sizes, many threads", test_threads);
  CU_basic_set_mode(CU_BRM_VERBOSE);
  CU_basic_run_tests();
  const unsigned failed = CU_get_number_of_failures();
  CU_cleanup_registry();
  return failed != 0;
}
