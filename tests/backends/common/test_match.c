/* The post-op matcher on hand-made epilogues: every pattern in its several spellings, chains, and what it must leave
   alone. */
#include "../../../backends/common/match.h"
#include "regions.h"
#include <CUnit/Basic.h>
#include <stdlib.h>
#include <string.h>

enum { M = 4, N = 6 };
static const int64_t shape[2] = {M, N};

/* A DOT whose result is a TEMP */
static uint32_t product(region_builder *b, const char *name) {
  const int64_t a[2] = {M, 3}, w[2] = {3, N};
  rb_init(b, name, 1);
  const uint32_t va = rb_in(b, TERN_F32, 2, a, RB_DENSE), vw = rb_in(b, TERN_F32, 2, w, RB_DENSE);
  b->nodes[0] = (tern_node){.op = TERN_OP_DOT, .n_in = 2, .n_out = 1, .in = 0, .out = 2};
  b->region.n_nodes = 1;
  const uint32_t v = b->region.n_values++;
  b->edges[b->n_edges++] = va;
  b->edges[b->n_edges++] = vw;
  b->edges[b->n_edges++] = v;
  b->values[v] = (tern_value){.kind = TERN_V_TEMP, .dtype = TERN_F32, .rank = 2, .alias = -1};
  memcpy(b->values[v].shape, shape, sizeof shape);
  return v;
}

static uint32_t k(region_builder *b, double x) { return rb_const(b, TERN_F32, x); }
static uint32_t bin(region_builder *b, uint32_t op, uint32_t x, uint32_t y, unsigned turn) {
  return turn & 1 ? rb_map(b, op, y, x, RB_NONE) : rb_map(b, op, x, y, RB_NONE);
}
static uint32_t one(region_builder *b, uint32_t op, uint32_t x) { return rb_map(b, op, x, RB_NONE, RB_NONE); }

/* turn: a bit for each commutative node: its inputs exchanged */
static uint32_t gelu(region_builder *b, uint32_t x, int how, unsigned turn) {
  const uint32_t e = one(b, TERN_OP_ERF,
                         how == 3 ? rb_map(b, TERN_OP_DIV, x, k(b, 1.41421356237309504880), RB_NONE)
                                  : bin(b, TERN_OP_MUL, x, k(b, 0.70710678118654752440), turn));
  const uint32_t plus = bin(b, TERN_OP_ADD, e, k(b, 1), turn >> 1);
  if (how == 1) return bin(b, TERN_OP_MUL, x, bin(b, TERN_OP_MUL, plus, k(b, 0.5), turn >> 2), turn >> 3);
  if (how == 2) return bin(b, TERN_OP_MUL, bin(b, TERN_OP_MUL, x, plus, turn >> 2), k(b, 0.5), turn >> 3);
  return bin(b, TERN_OP_MUL, bin(b, TERN_OP_MUL, x, k(b, 0.5), turn >> 2), plus, turn >> 3);
}

static uint32_t gelu_tanh(region_builder *b, uint32_t x, unsigned turn) {
  const uint32_t cube = bin(b, TERN_OP_MUL, rb_map(b, TERN_OP_MUL, x, x, RB_NONE), x, turn);
  const uint32_t in = bin(b, TERN_OP_ADD, x, bin(b, TERN_OP_MUL, cube, k(b, 0.044715), turn >> 1), turn >> 2);
  const uint32_t t = one(b, TERN_OP_TANH, bin(b, TERN_OP_MUL, in, k(b, 0.79788456080286535588), turn >> 3));
  return bin(b, TERN_OP_MUL, bin(b, TERN_OP_MUL, x, k(b, 0.5), turn >> 4), bin(b, TERN_OP_ADD, t, k(b, 1), turn >> 5),
             turn >> 6);
}

static uint32_t logistic(region_builder *b, uint32_t num, uint32_t x, unsigned turn) {
  return rb_map(b, TERN_OP_DIV, num, bin(b, TERN_OP_ADD, one(b, TERN_OP_EXP, one(b, TERN_OP_NEG, x)), k(b, 1), turn),
                RB_NONE);
}

static uint32_t kinds(region_builder *b, uint32_t x, uint32_t *kind, match_step *s, bool *whole) {
  const uint32_t n = match_epilogue(&b->region, x, s, 8, whole);
  for (uint32_t i = 0; i < n; i++) kind[i] = s[i].kind;
  return n;
}

/* A single step of this kind, and all of it */
static void expect_one(region_builder *b, uint32_t x, uint32_t y, uint32_t kind) {
  uint32_t got[8];
  match_step s[8];
  bool whole;
  rb_out(b, y);
  CU_ASSERT_EQUAL(kinds(b, x, got, s, &whole), 1);
  CU_ASSERT_EQUAL(got[0], kind);
  CU_ASSERT(whole);
  CU_ASSERT_EQUAL(s[0].out, y);
  rb_free(b);
}

static void test_activations(void) {
  region_builder *const b = malloc(sizeof *b);
  uint32_t x;
  for (unsigned turn = 0; turn < 16; turn++)
    for (int how = 0; how < 4; how++) {
      x = product(b, "gelu");
      expect_one(b, x, gelu(b, x, how, turn), MATCH_GELU_ERF);
    }
  for (unsigned turn = 0; turn < 128; turn++) {
    x = product(b, "gelu_tanh");
    expect_one(b, x, gelu_tanh(b, x, turn), MATCH_GELU_TANH);
  }
  for (unsigned turn = 0; turn < 2; turn++) {
    x = product(b, "sigmoid");
    expect_one(b, x, logistic(b, k(b, 1), x, turn), MATCH_SIGMOID);
    x = product(b, "silu");
    expect_one(b, x, logistic(b, x, x, turn), MATCH_SILU);
    x = product(b, "silu2");
    expect_one(b, x, bin(b, TERN_OP_MUL, x, logistic(b, k(b, 1), x, turn), turn), MATCH_SILU);
    x = product(b, "relu");
    expect_one(b, x, bin(b, TERN_OP_MAXIMUM, x, k(b, 0), turn), MATCH_RELU);
  }
  x = product(b, "tanh");
  expect_one(b, x, one(b, TERN_OP_TANH, x), MATCH_UNARY);
  x = product(b, "square");
  expect_one(b, x, rb_map(b, TERN_OP_MUL, x, x, RB_NONE), MATCH_SQUARE);
  x = product(b, "cast");
  expect_one(b, x, rb_cast(b, x, TERN_F16), MATCH_CAST);
  free(b);
}

static void test_chain(void) {
  region_builder *const b = malloc(sizeof *b);
  const int64_t row[2] = {1, N}, col[2] = {M, 1};
  uint32_t got[8];
  match_step s[8];
  bool whole;
  const uint32_t x = product(b, "chain");
  const uint32_t bias = rb_in(b, TERN_F32, 2, row, RB_DENSE), res = rb_in(b, TERN_F32, 2, shape, RB_DENSE);
  const uint32_t scale = rb_in(b, TERN_F32, 2, col, RB_DENSE), mask = rb_in(b, TERN_BOOL, 2, shape, RB_DENSE);
  uint32_t y = gelu(b, rb_map(b, TERN_OP_ADD, x, bias, RB_NONE), 0, 5);
  y = rb_map(b, TERN_OP_MUL, rb_map(b, TERN_OP_ADD, res, y, RB_NONE), scale, RB_NONE);
  y = rb_map(b, TERN_OP_WHERE, mask, y, k(b, 0));
  rb_out(b, y);
  CU_ASSERT_EQUAL(kinds(b, x, got, s, &whole), 5);
  static const uint32_t want[5] = {MATCH_ADD, MATCH_GELU_ERF, MATCH_ADD, MATCH_MUL, MATCH_WHERE};
  CU_ASSERT_EQUAL(memcmp(got, want, sizeof want), 0);
  CU_ASSERT(whole);
  CU_ASSERT_EQUAL(s[0].value, bias);
  CU_ASSERT_EQUAL(s[0].form, MATCH_LAST);
  CU_ASSERT_EQUAL(s[2].value, res);
  CU_ASSERT_EQUAL(s[2].form, MATCH_FULL);
  CU_ASSERT_EQUAL(s[3].form, MATCH_OTHER);
  CU_ASSERT_EQUAL(s[4].condition, mask);
  CU_ASSERT_EQUAL(s[4].form, MATCH_SCALAR);
  rb_free(b);
  free(b);
}

/* Uses outside of a pattern, inner OUTs and near misses */
static void test_refusals(void) {
  region_builder *const b = malloc(sizeof *b);
  uint32_t got[8];
  match_step s[8];
  bool whole;
  uint32_t x = product(b, "x is used again");
  uint32_t y = gelu(b, x, 0, 0);
  rb_out(b, rb_map(b, TERN_OP_ADD, y, x, RB_NONE));
  CU_ASSERT_EQUAL(kinds(b, x, got, s, &whole), 0);
  CU_ASSERT(!whole);
  rb_free(b);

  x = product(b, "an inner value is an OUT");
  y = one(b, TERN_OP_NEG, x);
  const uint32_t e = one(b, TERN_OP_EXP, y);
  rb_out(b, rb_map(b, TERN_OP_DIV, k(b, 1), rb_map(b, TERN_OP_ADD, e, k(b, 1), RB_NONE), RB_NONE));
  rb_out(b, e);
  CU_ASSERT_EQUAL(kinds(b, x, got, s, &whole), 2); /* NEG, EXP; EXP is an OUT: the walk ends */
  CU_ASSERT(!whole);
  rb_free(b);

  x = product(b, "another constant");
  rb_out(b, rb_map(b, TERN_OP_MAXIMUM, x, k(b, 0.5), RB_NONE));
  CU_ASSERT_EQUAL(kinds(b, x, got, s, &whole), 1);
  CU_ASSERT_EQUAL(got[0], MATCH_MAX);
  CU_ASSERT(whole);
  rb_free(b);

  x = product(b, "x on the right");
  rb_out(b, rb_map(b, TERN_OP_SUB, k(b, 1), x, RB_NONE));
  CU_ASSERT_EQUAL(kinds(b, x, got, s, &whole), 0);
  CU_ASSERT(!whole);
  rb_free(b);

  x = product(b, "more than asked for");
  y = x;
  for (int i = 0; i < 12; i++) y = one(b, TERN_OP_TANH, y);
  rb_out(b, y);
  CU_ASSERT_EQUAL(kinds(b, x, got, s, &whole), 8);
  CU_ASSERT(!whole);
  rb_free(b);
  free(b);
}

int main(void) {
  if (CU_initialize_registry() != CUE_SUCCESS) return 1;
  CU_pSuite s = CU_add_suite("post-op matcher", NULL, NULL);
  CU_add_test(s, "activations", test_activations);
  CU_add_test(s, "chain", test_chain);
  CU_add_test(s, "refusals", test_refusals);
  CU_basic_set_mode(CU_BRM_VERBOSE);
  CU_basic_run_tests();
  const unsigned failed = CU_get_number_of_failures();
  CU_cleanup_registry();
  return failed != 0;
}
