/* MultiHeadAttention against Keras 3 (fixtures/attention_layer.bin), its dropout, and what is wrong with it. */
#include "nn/layer_fixture.h"
#include "support/values.h"
#include <string.h>

static tern_layer *layer_of(const fixture *f) {
  return tern_multi_head_attention(2, 3,
                                   &(tern_attention_layer_opts){.value_dim = fixture_attr(f, "value_dim", 0),
                                                                .causal = (int)fixture_attr(f, "causal", 0),
                                                                .no_bias = (int)fixture_attr(f, "no_bias", 0)});
}

/* Variable sizes hold products of two, [batch, heads, time, time] is one of three: each size is traced by itself. */
static void test_keras(void) { layer_fixture_check(TERN_FIXTURES "/attention_layer.bin", layer_of, 3, 5); }

static void test_dropout(void) {
  TERN_SCOPE;
  tern_layer *l = tern_multi_head_attention(2, 4, &(tern_attention_layer_opts){.dropout = 0.5});
  tern_tensor *x = tern_random_normal(TERN_SHAPE(2, 6, 8), &(tern_random_opts){.seed = 1});
  tern_tensor *a = tern_layer_call(l, x, NULL), *b = tern_layer_call(l, x, NULL);
  CHECK(tern_equal_all(a, b) == 1, "inference drops: %s", tern_error());
  tern_tensor *c = tern_layer_call(l, x, &(tern_layer_call_opts){.training = 1});
  CHECK(c && tern_equal_all(a, c) == 0, "training does not: %s", tern_error());
  tern_layer_release(l);
}

static void test_errors(void) {
  TERN_SCOPE;
  CHECK(!tern_multi_head_attention(0, 3, NULL), "heads");
  CHECK_ERROR(TERN_E_ARG, "heads is 0");
  CHECK(!tern_multi_head_attention(1, 3, &(tern_attention_layer_opts){.dropout = -1}), "dropout");
  CHECK_ERROR(TERN_E_ARG, "dropout is -1");
  tern_layer *l = tern_multi_head_attention(2, 3, &(tern_attention_layer_opts){.name = "look"});
  CHECK(!tern_layer_call(l, tern_ones(TERN_SHAPE(2, 3), TERN_F32), NULL), "rank 2");
  CHECK_ERROR(TERN_E_ARG, "layer look (MultiHeadAttention): its input has rank 2");
  CHECK(tern_layer_call(l, tern_ones(TERN_SHAPE(2, 3, 4), TERN_F32), NULL) != NULL, "%s", tern_error());
  CHECK(!tern_layer_call(l, tern_ones(TERN_SHAPE(2, 3, 5), TERN_F32), NULL), "features");
  CHECK_ERROR(TERN_E_ARG, "it must be [batch, time, 4]");
  tern_layer_release(l);
}

static const test_case cases[] = {{"as Keras", test_keras}, {"dropout", test_dropout}, {"errors", test_errors}};
TEST_MAIN("nn.attention_layer", cases)
