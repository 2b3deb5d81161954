/* Attention with its masks, against PyTorch, with first and second derivatives; dropout and embedding. */
#include "ops/gradients.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static tern_tensor *run_attention(const fixture *f, tern_tensor *const *in) {
  const tern_attention_opts opts = {.mask = fixture_attr(f, "operands", 0) > 3 ? in[3] : NULL,
                                    .causal = (int)fixture_attr(f, "causal", 0),
                                    .scale = record_double(f, "scale_bits", 0)};
  return tern_scaled_dot_product_attention(in[0], in[1], in[2], &opts);
}
static record_call choose(const char *op) { return strcmp(op, "attention") ? NULL : run_attention; }
static void test_records(void) { check_records("nn.bin", choose, 13); }

static void test_edges(void) {
  TERN_SCOPE;
  tern_tensor *x = tern_random_normal(TERN_SHAPE(2, 3), NULL);
  tern_tensor *mask = tern_bool(TERN_SHAPE(2, 2), 1, 1, 0, 0);
  tern_tensor *y = tern_scaled_dot_product_attention(x, x, x, &(tern_attention_opts){.mask = mask});
  double *got = test_values(y);
  for (int i = 0; got && i < 6; i++)
    CHECK(isfinite(got[i]) && (got[i] == 0) == (i > 2), "element %d of a row that sees %s: %g", i,
          i > 2 ? "nothing" : "all", got[i]);
  free(got);
  tern_tape *tape = tern_tape_begin(NULL);
  tern_tensor *gradient;
  tern_tape_watch(tape, x);
  y = tern_scaled_dot_product_attention(x, x, x, &(tern_attention_opts){.mask = mask});
  CHECK(!tern_tape_gradient(tape, tern_sum(y, NULL), &x, 1, &gradient), "%s", tern_error());
  CHECK(tern_item(tern_all(tern_isfinite(gradient), NULL)) == 1, "the gradient beside a row that sees nothing");
  tern_tensor *failed = tern_reshape(mask, TERN_SHAPE(3, 3));
  CHECK(!tern_scaled_dot_product_attention(x, x, x, &(tern_attention_opts){.mask = failed}), "a mask that failed");
  CHECK_ERROR(TERN_E_ARG, "reshape");
  /* without a mask and with one that hides nothing */
  tern_tensor *plain = tern_scaled_dot_product_attention(x, x, x, NULL);
  tern_tensor *open =
      tern_scaled_dot_product_attention(x, x, x, &(tern_attention_opts){.mask = tern_ones(TERN_SHAPE(2), TERN_BOOL)});
  CHECK(tern_allclose(plain, open, 1e-6, 1e-6) == 1, "a mask of ones");
  /* dropped weights: the mean over many keys of v = 1 stays 1 */
  tern_tensor *q = tern_zeros(TERN_SHAPE(1, 4), TERN_F32), *k = tern_zeros(TERN_SHAPE(4000, 4), TERN_F32),
              *v = tern_ones(TERN_SHAPE(4000, 1), TERN_F32);
  const tern_attention_opts drop = {.dropout = 0.25, .seed = 5};
  const double sum = tern_item(tern_scaled_dot_product_attention(q, k, v, &drop));
  CHECK(fabs(sum - 1) < 0.05 && sum != 1, "dropout of the weights: %g", sum);
  CHECK(tern_item(tern_scaled_dot_product_attention(q, k, v, &drop)) == sum, "the same seed");
  CHECK_NO_ERROR();
  CHECK(!tern_scaled_dot_product_attention(x, tern_transpose(x), x, NULL), "shapes");
  CHECK_ERROR(TERN_E_ARG, "do not fit");
  CHECK(!tern_scaled_dot_product_attention(x, x, x,
                                           &(tern_attention_opts){.mask = tern_ones(TERN_SHAPE(3, 2, 2), TERN_BOOL)}),
        "mask");
  CHECK_ERROR(TERN_E_ARG, "does not broadcast");
  CHECK(!tern_scaled_dot_product_attention(x, x, x,
                                           &(tern_attention_opts){.mask = tern_ones(TERN_SHAPE(2, 2), TERN_I32)}),
        "mask");
  CHECK_ERROR(TERN_E_ARG, "mask");
  CHECK(!tern_scaled_dot_product_attention(tern_ones(TERN_SHAPE(2, 3), TERN_I32), x, x, NULL), "integers");
  CHECK_ERROR(TERN_E_ARG, "q is int32");
  CHECK(!tern_scaled_dot_product_attention(x, x, x, &(tern_attention_opts){.dropout = 2}), "dropout");
  CHECK_ERROR(TERN_E_ARG, "rate is 2");
}

static void test_dropout(void) {
  TERN_SCOPE;
  enum { N = 20000 };
  const tern_dtype floats[] = {TERN_F16, TERN_BF16, TERN_F32, TERN_F64};
  for (int k = 0; k < 4; k++) {
    tern_tensor *y = tern_dropout(tern_full(TERN_SHAPE(N), floats[k], 3), 0.25, &(tern_dropout_opts){.seed = 7});
    double *got = test_values(y);
    int zeros = 0, wrong = 0;
    for (int i = 0; got && i < N; i++) {
      zeros += got[i] == 0;
      wrong += got[i] != 0 && got[i] != test_rounded(4, floats[k]);
    }
    CHECK(got && wrong == 0 && abs(zeros - N / 4) < 300, "%s: %d zeros of %d, %d neither 0 nor 4",
          tern_dtype_name(floats[k]), zeros, N, wrong);
    free(got);
  }
  tern_tensor *x = tern_random_normal(TERN_SHAPE(50, 40), NULL);
  CHECK(tern_equal_all(tern_dropout(x, 0.5, NULL), tern_dropout(x, 0.5, NULL)) == 0,
        "the process's generator moves on");
  CHECK(tern_equal_all(tern_dropout(x, 0, NULL), x) == 1, "rate 0");
  CHECK(tern_equal_all(tern_dropout(x, 0.9, &(tern_dropout_opts){.inference = 1}), x) == 1, "inference");
  /* the gradient passes where the value did; infinities that are dropped are 0 */
  tern_tape *tape = tern_tape_begin(NULL);
  tern_tensor *g = NULL;
  tern_tape_watch(tape, x);
  tern_tensor *y = tern_dropout(x, 0.5, NULL);
  CHECK(!tern_tape_gradient(tape, y, &x, 1, &g), "%s", tern_error());
  CHECK(tern_allclose(tern_mul(g, x), y, 1e-6, 1e-6) == 1, "gradient of dropout");
  double *of_infinity = test_values(tern_dropout(tern_full(TERN_SHAPE(100), TERN_F32, INFINITY), 0.5, NULL));
  for (int i = 0; of_infinity && i < 100; i++)
    CHECK(of_infinity[i] == 0 || of_infinity[i] == INFINITY, "%g", of_infinity[i]);
  free(of_infinity);
  CHECK_NO_ERROR();
  CHECK(tern_item(tern_sum(tern_abs(tern_dropout(x, 1, NULL)), NULL)) == 0, "everything is dropped");
  CHECK(!tern_dropout(x, 1.5, NULL), "rate");
  CHECK_ERROR(TERN_E_ARG, "rate is 1.5");
  CHECK(!tern_dropout(x, NAN, NULL), "rate");
  CHECK_ERROR(TERN_E_ARG, "rate is nan");
  CHECK(!tern_dropout(tern_ones(TERN_SHAPE(2), TERN_I32), 0.5, NULL), "integers");
  CHECK_ERROR(TERN_E_ARG, "int32");
}

static void test_embedding(void) {
  TERN_SCOPE;
  tern_tensor *table = tern_f32(TERN_SHAPE(3, 2), 1, 2, 3, 4, 5, 6), *ids = tern_u8(TERN_SHAPE(2, 2), 2, 0, 0, 1),
              *g = NULL;
  tern_tape *tape = tern_tape_begin(NULL);
  tern_tape_watch(tape, table);
  tern_tensor *rows = tern_embedding(table, ids);
  CHECK_LIST(rows, TERN_SHAPE(2, 2, 2), TERN_F32, 5, 6, 1, 2, 1, 2, 3, 4);
  CHECK(!tern_tape_gradient(tape, tern_mul(rows, rows), &table, 1, &g) || tern_error_code(), "gradient");
  CHECK_LIST(g, TERN_SHAPE(3, 2), TERN_F32, 4, 8, 6, 8, 10, 12);
  CHECK_NO_ERROR();
  CHECK(!tern_embedding(table, tern_f32(TERN_SHAPE(1), 0)), "float ids");
  CHECK_ERROR(TERN_E_ARG, "embedding");
  tern_tensor *bad = tern_embedding(table, tern_i32(TERN_SHAPE(1), 3));
  if (!bad) CHECK_ERROR(TERN_E_ARG, "embedding of 3 rows"); /* a device that runs later says so when it is waited for */
  double *waited = bad ? test_values(bad) : NULL;
  free(waited);
  tern_error_clear();
}

static const test_case cases[] = {
    {"records", test_records}, {"masks", test_edges}, {"dropout", test_dropout}, {"embedding", test_embedding}};
TEST_MAIN("attention", cases)
