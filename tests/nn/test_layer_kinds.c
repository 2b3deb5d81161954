/* Layers beside their formulas: parameters that are refused, JSON, layers of the program's own, what is trained, who
   owns whom, sizes that are not known, dropout, initialisers. */
#include "base/alloc.h"
#include "nn/layer.h"
#include "support/values.h"
#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>

#define CONV(...) (&(tern_conv_layer_opts){__VA_ARGS__})
#define POOL(...) (&(tern_pool_layer_opts){__VA_ARGS__})
#define NORM(...) (&(tern_norm_layer_opts){__VA_ARGS__})
#define BATCH(...) (&(tern_batch_norm_layer_opts){__VA_ARGS__})

/* ---- parameters ---- */

static void refused(tern_layer *l, const char *part) {
  CHECK(!l, "a layer where \"%s\" was expected", part);
  CHECK_ERROR(TERN_E_ARG, part);
  tern_layer_release(l);
}

static void test_parameters(void) {
  refused(tern_dense(0, NULL), "Dense: units is 0; it must be at least 1");
  refused(tern_dense(INT64_MAX, NULL), "Dense: units is 9223372036854775807");
  refused(tern_dense(3, &(tern_dense_opts){.activation = "rely"}),
          "Dense: activation: there is no activation \"rely\"");
  refused(tern_dense(3, &(tern_dense_opts){.kernel_initializer = "x"}),
          "kernel_initializer: there is no initialiser \"x\"");
  refused(tern_dense(3, &(tern_dense_opts){.bias_initializer = ""}), "bias_initializer");
  refused(tern_dense(3, &(tern_dense_opts){.name = ""}), "name");
  refused(tern_dense(3, &(tern_dense_opts){.name = "a/b"}), "name");
  refused(tern_activation("swiss", NULL),
          "Activation: name: there is no activation \"swiss\"; there are: linear, relu");
  refused(tern_conv1d(0, 3, NULL), "Conv1D: filters is 0");
  refused(tern_conv1d(1, 0, NULL), "Conv1D: size is 0");
  refused(tern_conv1d(1, 3, CONV(.strides = {1, 2})), "Conv1D: strides and dilations have a second number");
  refused(tern_conv1d(1, 3, CONV(.padding = "full")), "padding is \"full\"; there are: valid, same, causal");
  refused(tern_conv2d(1, 3, 3, CONV(.padding = "causal")), "padding is \"causal\"; there are: valid, same");
  refused(tern_conv2d(1, 3, -1, NULL), "Conv2D: columns is -1");
  refused(tern_conv2d(1, 3, 3, CONV(.strides = {1, -1})), "Conv2D: strides is -1");
  refused(tern_conv2d(1, 3, 3, CONV(.dilations = {-2})), "Conv2D: dilations is -2");
  refused(tern_conv2d(3, 3, 3, CONV(.groups = 2)), "Conv2D: groups is 2, which does not divide the 3 filters");
  refused(tern_depthwise_conv2d(3, 3, 0, NULL), "DepthwiseConv2D: multiplier is 0");
  refused(tern_depthwise_conv2d(3, 3, 2, CONV(.groups = 2)), "DepthwiseConv2D: groups is 2");
  refused(tern_conv2d_transpose(3, 0, 0, NULL), "Conv2DTranspose: rows is 0");
  refused(tern_max_pool2d(POOL(.window = {-1})), "MaxPooling2D: window is -1");
  refused(tern_avg_pool1d(POOL(.strides = {1, 1})), "AveragePooling1D: window and strides have a second number");
  refused(tern_avg_pool2d(POOL(.keepdims = 1)), "AveragePooling2D: keepdims");
  refused(tern_avg_pool2d(POOL(.padding = "none")), "padding is \"none\"");
  refused(tern_global_max_pool1d(POOL(.window = {2})), "GlobalMaxPooling1D: it takes in all positions");
  refused(tern_reshape_layer(TERN_SHAPE(-1, -1), NULL), "Reshape: shape has size -1 at axis 1");
  refused(tern_reshape_layer(TERN_SHAPE(0), NULL), "Reshape: shape has size 0");
  refused(tern_reshape_layer(TERN_SHAPE(1, 1, 1, 1, 1, 1, 1, 1), NULL), "Reshape: shape has more than 7");
  refused(tern_dropout_layer(1, NULL), "Dropout: rate is 1; it must be at least 0 and less than 1");
  refused(tern_dropout_layer(-0.5, NULL), "Dropout: rate");
  refused(tern_dropout_layer(NAN, NULL), "Dropout: rate");
  refused(tern_masking(NAN, NULL), "Masking: value");
  refused(tern_embedding_layer(0, 2, NULL), "Embedding: words is 0");
  refused(tern_embedding_layer(2, -1, NULL), "Embedding: size is -1");
  refused(tern_embedding_layer(2, 1, &(tern_embedding_opts){.embeddings_initializer = "?"}), "embeddings_initializer");
  refused(tern_batch_norm_layer(BATCH(.momentum = 1)), "BatchNormalization: momentum is 1");
  refused(tern_batch_norm_layer(BATCH(.epsilon = -1)), "BatchNormalization: epsilon is -1");
  refused(tern_layer_norm_layer(NORM(.epsilon = INFINITY)), "LayerNormalization: epsilon is inf");
  refused(tern_rms_norm_layer(NORM(.epsilon = NAN)), "RMSNormalization: epsilon");
  refused(tern_group_norm_layer(0, NULL), "GroupNormalization: groups is 0");
}

/* The first call for a shape that does not fit. Ends l. */
static void misfit(tern_layer *l, tern_shape shape, const char *part) {
  TERN_SCOPE;
  CHECK(l && !tern_layer_call(l, tern_ones(shape, TERN_F32), NULL), "a result where \"%s\" was expected", part);
  CHECK_ERROR(TERN_E_ARG, part);
  tern_layer_release(l);
}

static void test_shapes(void) {
  misfit(tern_dense(2, NULL), TERN_SHAPE(3), "layer dense (Dense): its input has rank 1");
  misfit(tern_conv1d(2, 3, NULL), TERN_SHAPE(1, 3, 4, 5),
         "layer conv1d (Conv1D): its input has rank 4; it takes rank 3");
  misfit(tern_conv1d(2, 3, &(tern_conv_layer_opts){.name = "c"}), TERN_SHAPE(1, 2, 4), "layer c (Conv1D): conv");
  misfit(tern_conv2d(4, 3, 3, CONV(.groups = 2)), TERN_SHAPE(1, 3, 4, 5), "groups is 2, which does not divide the 5");
  misfit(tern_max_pool2d(NULL), TERN_SHAPE(1, 3, 4), "layer max_pooling2d (MaxPooling2D): its input has rank 3");
  misfit(tern_max_pool1d(NULL), TERN_SHAPE(1, 1, 4), "layer max_pooling1d (MaxPooling1D): max_pool");
  misfit(tern_global_avg_pool1d(NULL), TERN_SHAPE(2, 3), "layer global_average_pooling1d (GlobalAveragePooling1D)");
  misfit(tern_reshape_layer(TERN_SHAPE(2, 2), NULL), TERN_SHAPE(4, 3), "its input has 3 elements an example");
  misfit(tern_reshape_layer(TERN_SHAPE(2, -1), NULL), TERN_SHAPE(4, 3), "with 2 without the -1");
  misfit(tern_batch_norm_layer(BATCH(.axis = 3)), TERN_SHAPE(2, 3), "there is no axis 3");
  misfit(tern_layer_norm_layer(NORM(.axis = -2)), TERN_SHAPE(2, 3), "along axis 0 is not known");
  misfit(tern_group_norm_layer(2, NULL), TERN_SHAPE(2, 3), "groups is 2, which does not divide the 3 channels");
  misfit(tern_masking(0, NULL), TERN_SHAPE(2), "layer masking (Masking): its input has rank 1");
  misfit(tern_chain(tern_dense(3, NULL), tern_conv1d(2, 3, NULL)), TERN_SHAPE(2, 4), "layer conv1d (Conv1D): ");
  TERN_SCOPE;
  tern_layer *chain = tern_chain(tern_dense(3, NULL), tern_residual(tern_dense(3, NULL)), tern_dense(2, NULL));
  CHECK(tern_layer_call(chain, tern_ones(TERN_SHAPE(2, 5), TERN_F32), NULL) != NULL, "%s", tern_error());
  CHECK(!tern_layer_call(chain->inner[2], tern_ones(TERN_SHAPE(2, 5), TERN_F32), NULL), "a misfit");
  CHECK_ERROR(TERN_E_ARG, "layer dense_1 (Dense): matmul");
  CHECK(!tern_layer_call(chain->inner[1], tern_ones(TERN_SHAPE(2, 5), TERN_F32), NULL), "a misfit");
  CHECK_ERROR(TERN_E_ARG, "layer residual/dense (Dense): matmul");
  tern_layer_release(chain);
  tern_layer *norm = tern_batch_norm_layer(NULL);
  CHECK(!tern_layer_call(norm, tern_ones(TERN_SHAPE(2, 3), TERN_F32),
                         &(tern_layer_call_opts){.training = 1, .mask = tern_ones(TERN_SHAPE(2, 3), TERN_BOOL)}),
        "a mask that does not fit");
  CHECK_ERROR(TERN_E_ARG, "layer batch_normalization (BatchNormalization): its input has rank 2 and the mask rank 2");
  tern_layer_release(norm);
}

/* ---- JSON ---- */

static char *text_of(const tern_layer *l) {
  cJSON *json = tern__layer_to_json(l);
  char *text = cJSON_PrintUnformatted(json);
  cJSON_Delete(json);
  return text;
}

static tern_layer *parsed(const char *text, const tern_load_opts *opts) {
  cJSON *json = cJSON_Parse(text);
  CHECK(json != NULL, "the test's text is no JSON: %s", text);
  tern_layer *l = tern__layer_from_json(json, opts);
  cJSON_Delete(json);
  return l;
}

/* The text must be just this, and come back from itself. Ends l. */
static void has_text(tern_layer *l, const char *expected) {
  char *text = l ? text_of(l) : NULL;
  CHECK(text && !strcmp(text, expected), "%s\ninstead of %s: %s", text ? text : "nothing", expected, tern_error());
  tern_layer *back = text ? parsed(text, NULL) : NULL;
  char *second = back ? text_of(back) : NULL;
  CHECK(second && !strcmp(text, second), "%s\ncame back as %s: %s", text, second ? second : "nothing", tern_error());
  cJSON *tree = back ? tern__layer_to_json(back) : NULL; /* without a text between */
  tern_layer *third = tree ? tern__layer_from_json(tree, NULL) : NULL;
  CHECK(third != NULL, "%s: %s", expected, tern_error());
  cJSON_Delete(tree);
  free(text);
  free(second);
  tern_layer_release(l);
  tern_layer_release(back);
  tern_layer_release(third);
}

static void test_json(void) {
  has_text(tern_dense(3, NULL), "{\"class\":\"Dense\",\"config\":{\"units\":3}}");
  has_text(tern_dense(3, &(tern_dense_opts){.name = "d", .input_shape = TERN_SHAPE(-1, 4), .frozen = 1, .no_bias = 1}),
           "{\"class\":\"Dense\",\"config\":{\"name\":\"d\",\"input_shape\":[-1,4],\"trainable\":false,\"units\":3,"
           "\"no_bias\":1}}");
  has_text(
      tern_conv2d(2, 3, 5, CONV(.strides = {2, 3}, .padding = "same")),
      "{\"class\":\"Conv2D\",\"config\":{\"filters\":2,\"kernel_size\":[3,5],\"padding\":\"same\",\"strides\":[2,3]}}");
  has_text(tern_reshape_layer(TERN_SHAPE(2, -1), NULL), "{\"class\":\"Reshape\",\"config\":{\"target_shape\":[2,-1]}}");
  has_text(tern_dropout_layer(0.1, &(tern_dropout_layer_opts){.seed = UINT64_MAX}),
           "{\"class\":\"Dropout\",\"config\":{\"rate\":0.1,\"seed\":\"18446744073709551615\"}}");
  has_text(tern_dropout_layer(1 / 3.0, NULL), "{\"class\":\"Dropout\",\"config\":{\"rate\":0.3333333333333333}}");
  has_text(tern_masking(-INFINITY, NULL), "{\"class\":\"Masking\",\"config\":{\"mask_value\":\"-Infinity\"}}");
  has_text(tern_masking(4.9406564584124654e-324, NULL),
           "{\"class\":\"Masking\",\"config\":{\"mask_value\":4.94065645841247e-324}}");
  has_text(tern_batch_norm_layer(BATCH(.momentum = TERN_ZERO, .axis = -2)),
           "{\"class\":\"BatchNormalization\",\"config\":{\"momentum\":0,\"axis\":-2}}");
  has_text(
      tern_chain(tern_flatten_layer(NULL), tern_residual(tern_activation("relu", NULL))),
      "{\"class\":\"Chain\",\"config\":{},\"layers\":[{\"class\":\"Flatten\",\"config\":{}},{\"class\":\"Residual\","
      "\"config\":{},\"layers\":[{\"class\":\"Activation\",\"config\":{\"activation\":\"relu\"}}]}]}");
  CHECK_NO_ERROR();
}

static void test_json_refused(void) {
  static const char *const bad[][2] = {
      {"[]", "an object with a \"class\""},
      {"{}", "an object with a \"class\""},
      {"{\"class\":3}", "an object with a \"class\""},
      {"{\"class\":\"Dens\"}", "there is no kind of layer \"Dens\"; there are: Chain, Residual"},
      {"{\"class\":\"Dense\",\"konfig\":{}}", "\"konfig\" is neither class, config nor layers"},
      {"{\"class\":\"Dense\",\"config\":[]}", "layer of class \"Dense\": \"config\" must be an object"},
      {"{\"class\":\"Dense\",\"config\":{\"unit\":3}}", "layer of class \"Dense\": it has no \"unit\""},
      {"{\"class\":\"Dense\",\"config\":{\"units\":\"three\"}}",
       "layer of class \"Dense\": \"units\" must be an integer"},
      {"{\"class\":\"Dense\",\"config\":{\"units\":2.5}}", "\"units\" must be an integer"},
      {"{\"class\":\"Dense\",\"config\":{\"units\":1e300}}", "\"units\" must be an integer"},
      {"{\"class\":\"Dense\",\"config\":{\"units\":null}}", "\"units\" must be an integer"},
      {"{\"class\":\"Dense\",\"config\":{}}", "Dense: units is 0"},
      {"{\"class\":\"Dense\",\"config\":{\"units\":3,\"activation\":7}}", "\"activation\" must be a text"},
      {"{\"class\":\"Dense\",\"config\":{\"units\":3,\"activation\":\"x\"}}", "there is no activation \"x\""},
      {"{\"class\":\"Dense\",\"config\":{\"units\":3,\"trainable\":1}}", "\"trainable\" must be true or false"},
      {"{\"class\":\"Dense\",\"config\":{\"units\":3,\"no_bias\":4294967296}}", "\"no_bias\" must be an integer"},
      {"{\"class\":\"Dense\",\"config\":{\"units\":3,\"input_shape\":3}}", "\"input_shape\" must be a list"},
      {"{\"class\":\"Dense\",\"config\":{\"units\":3,\"input_shape\":[1,2,3,4,5,6,7,8,9]}}",
       "must be a list of at most"},
      {"{\"class\":\"Dense\",\"config\":{\"units\":3,\"input_shape\":[-2]}}", "\"input_shape\" must be a list"},
      {"{\"class\":\"Dense\",\"config\":{\"units\":3,\"name\":\"a/b\"}}", "name"},
      {"{\"class\":\"Dense\",\"config\":{\"units\":3},\"layers\":[{\"class\":\"Flatten\"}]}", "1 layers are inside"},
      {"{\"class\":\"Chain\",\"layers\":{}}", "\"layers\" must be a list"},
      {"{\"class\":\"Chain\",\"layers\":[{\"class\":\"Flatten\"},7]}", "an object with a \"class\""},
      {"{\"class\":\"Conv2D\",\"config\":{\"filters\":1,\"kernel_size\":3}}",
       "\"kernel_size\" must be a list of integers"},
      {"{\"class\":\"Conv2D\",\"config\":{\"filters\":1,\"kernel_size\":[3,3,3]}}", "\"kernel_size\" must be a list"},
      {"{\"class\":\"Dropout\",\"config\":{\"rate\":\"0.5\"}}", "\"rate\" must be a number"},
      {"{\"class\":\"Dropout\",\"config\":{\"rate\":0.5,\"seed\":3}}", "\"seed\" must be a seed as text"},
      {"{\"class\":\"Dropout\",\"config\":{\"rate\":0.5,\"seed\":\"-3\"}}", "\"seed\" must be a seed as text"},
      {"{\"class\":\"Dropout\",\"config\":{\"rate\":0.5,\"seed\":\"18446744073709551616\"}}", "\"seed\""},
      {"{\"class\":\"Custom\"}", "\"body\", the name of its kind, is missing"},
      {"{\"class\":\"Custom\",\"config\":{\"body\":\"scale\"}}", "\"scale\", cannot be made: give its maker"},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) refused(parsed(bad[i][0], NULL), bad[i][1]);
  cJSON *deep = cJSON_Parse("{\"class\":\"Flatten\"}");
  for (int i = 0; i < 150; i++) {
    cJSON *outer = cJSON_Parse("{\"class\":\"Chain\",\"layers\":[]}");
    cJSON_AddItemToArray(cJSON_GetObjectItem(outer, "layers"), deep);
    deep = outer;
  }
  refused(tern__layer_from_json(deep, NULL), "more than 100 inside each other");
  cJSON_Delete(deep);
}

/* ---- layers of the program's own ---- */

typedef struct {
  double factor;
  int built, released;
} scale;

static tern_rc build_scale(void *self, tern_layer *l, tern_shape in) {
  scale *s = self;
  s->built++;
  CHECK(in.rank == 2 && in.dim[0] == -1 && in.dim[1] == 3, "built for rank %d", in.rank);
  tern_layer_weight(l, "shift", TERN_SHAPE(in.dim[1]), &(tern_weight_opts){.initializer = "ones"});
  tern_layer_weight(l, "seen", TERN_SHAPE(), &(tern_weight_opts){.initializer = "zeros", .frozen = 1});
  return tern_error_code();
}

static tern_tensor *call_scale(void *self, tern_layer *l, tern_tensor *x, int training) {
  const scale *s = self;
  if (s->factor == 0) return NULL;
  if (training) tern_assign_add(tern_layer_get_weight(l, 1), tern_scalar(1));
  return tern_add(tern_mul(x, tern_scalar(s->factor)), tern_layer_get_weight(l, 0));
}

static void release_scale(void *self) { ((scale *)self)->released++; }
static const tern_layer_body scale_body = {"scale", build_scale, call_scale, release_scale};
static tern_layer *make_scale(void *self, const tern_layer_opts *opts) {
  return tern_layer_new(&scale_body, self, opts);
}

static void test_custom(void) {
  TERN_SCOPE;
  scale s = {.factor = 2}, t = {.factor = 3}, none = {0};
  tern_layer *l = tern_layer_new(&scale_body, &s, &(tern_layer_opts){.name = "mine"});
  tern_tensor *x = tern_f32(TERN_SHAPE(2, 3), 1, 2, 3, 4, 5, 6), *weights[3];
  CHECK_LIST(tern_layer_call(l, x, &(tern_layer_call_opts){.training = 1}), TERN_SHAPE(2, 3), TERN_F32, 3, 5, 7, 9, 11,
             13);
  CHECK(s.built == 1 && tern_layer_variables(l, weights, 3) == 2, "%s", tern_error());
  CHECK(!strcmp(tern_variable_name(weights[0]), "mine/shift") && tern_trainable(weights[0]), "first weight");
  CHECK(!strcmp(tern_variable_name(weights[1]), "mine/seen") && !tern_trainable(weights[1]), "second weight");
  CHECK_LIST(weights[1], TERN_SHAPE(), TERN_F32, 1);
  CHECK(!tern_layer_get_weight(l, 2), "a third weight");
  CHECK_ERROR(TERN_E_ARG, "layer mine has 2 weights");
  CHECK(!tern_layer_weight(l, "late", TERN_SHAPE(), NULL), "a late weight");
  CHECK_ERROR(TERN_E_ARG, "layer mine was built already");
  char *text = text_of(l);
  CHECK(!strcmp(text, "{\"class\":\"Custom\",\"config\":{\"name\":\"mine\",\"body\":\"scale\"}}"), "%s", text);
  const tern_layer_maker makers[] = {{"other", NULL, NULL}, {"scale", make_scale, &t}};
  tern_layer *copy = parsed(text, &(tern_load_opts){.makers = makers, .n_makers = 2});
  CHECK_LIST(tern_layer_call(copy, x, NULL), TERN_SHAPE(2, 3), TERN_F32, 4, 7, 10, 13, 16, 19);
  CHECK(copy && !strcmp(tern_layer_name(copy), "mine"), "the name");
  free(text);
  tern_layer_release(copy);
  tern_layer_release(l);
  CHECK(s.released == 1 && t.released == 1, "released %d, %d times", s.released, t.released);
  misfit(tern_layer_new(&scale_body, &none, NULL), TERN_SHAPE(1, 3), "layer scale (Custom): scale's call gave NULL");
  refused(tern_layer_new(&(tern_layer_body){.name = "x", .release = release_scale}, &none, NULL),
          "a body needs a call");
  refused(tern_layer_new(NULL, NULL, NULL), "body is NULL");
  CHECK(none.released == 2, "released %d times", none.released);
}

/* ---- trained or not; owners ---- */

static void test_trainable(void) {
  TERN_SCOPE;
  tern_layer *chain =
      tern_chain(tern_dense(3, NULL), tern_batch_norm_layer(NULL), tern_dense(2, &(tern_dense_opts){.frozen = 1}));
  tern_tensor *v[9], *x = tern_random_normal(TERN_SHAPE(8, 4), NULL);
  CHECK(tern_layer_call(chain, x, NULL) && tern_layer_variables(chain, v, 9) == 8, "%s", tern_error());
  static const char *const names[] = {"dense/kernel",
                                      "dense/bias",
                                      "batch_normalization/gamma",
                                      "batch_normalization/beta",
                                      "batch_normalization/moving_mean",
                                      "batch_normalization/moving_variance",
                                      "dense_1/kernel",
                                      "dense_1/bias"};
  for (int i = 0; i < 8; i++) {
    CHECK(!strcmp(tern_variable_name(v[i]), names[i]), "variable %d is %s", i, tern_variable_name(v[i]));
    CHECK(tern_trainable(v[i]) == (i < 4), "%s", names[i]);
  }
  CHECK(tern_layer_variables(chain, v, 3) == 8, "their number");
  tern_layer_set_trainable(chain, 0);
  for (int i = 0; i < 8; i++) CHECK(!tern_trainable(v[i]), "%s", names[i]);
  tern_tensor *before = tern_clone(v[4]);
  tern_layer_call(chain, x, &(tern_layer_call_opts){.training = 1}); /* frozen: no averages, as Keras */
  CHECK(tern_equal_all(before, v[4]) == 1, "a frozen layer's averages moved");
  tern_layer_set_trainable(chain, 1);
  for (int i = 0; i < 8; i++) CHECK(tern_trainable(v[i]) == (i < 4 || i > 5), "%s", names[i]);
  tern_layer_call(chain, x, &(tern_layer_call_opts){.training = 1});
  CHECK(tern_equal_all(before, v[4]) == 0, "the averages did not move");
  tern_layer_release(chain);
  CHECK_NO_ERROR();
}

static void test_owners(void) {
  tern_layer *dense = tern_dense(3, NULL), *chain = tern_chain(dense);
  refused(tern_chain(tern_flatten_layer(NULL), dense), "layer 1 (Dense) is part of a model already");
  refused(tern_chain(tern_flatten_layer(NULL), NULL), "layer 1 is NULL");
  tern_layer_release(dense);
  CHECK_ERROR(TERN_E_ARG, "belongs to a model");
  tern_layer *copy = tern__layer_copy(chain);
  char *a = text_of(chain), *b = copy ? text_of(copy) : NULL;
  CHECK(b && !strcmp(a, b) && copy->n_inner == 1 && copy->inner[0] != dense && !copy->built, "the copy is %s", b);
  free(a);
  free(b);
  tern_layer_release(copy);
  tern_layer_release(chain);
  tern_layer *same = tern_dense(1, &(tern_dense_opts){.name = "d"});
  misfit(tern_chain(same, tern_dense(1, &(tern_dense_opts){.name = "d"})), TERN_SHAPE(1, 1),
         "two layers are named \"d\"");
  CHECK(!tern_layer_call(NULL, NULL, NULL) && !tern_chain(tern_dense(-1, NULL)), "NULL gives NULL");
  CHECK_ERROR(TERN_E_ARG, "Dense: units is -1");
}

/* ---- sizes that vary, or are not known ---- */

static tern_layer *sequence_model(void) {
  return tern_chain(
      tern_embedding_layer(9, 4, &(tern_embedding_opts){.mask_zero = 1}), tern_dense(4, NULL),
      tern_batch_norm_layer(NULL), tern_layer_norm_layer(NULL),
      tern_residual(tern_reshape_layer(TERN_SHAPE(-1, 2, 2), NULL), tern_reshape_layer(TERN_SHAPE(-1, 4), NULL)),
      tern_conv1d(3, 2, CONV(.padding = "causal")), tern_dropout_layer(0, NULL), tern_global_avg_pool1d(NULL),
      tern_dense(2, NULL));
}

static tern_rc apply(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)n_in;
  (void)n_out;
  out[0] = tern_layer_call(self, in[0], &(tern_layer_call_opts){.training = 1});
  return out[0] ? TERN_OK : tern_error_code();
}

static tern_tensor *ids(int64_t batch, int64_t time) {
  return tern_remainder(tern_reshape(tern_arange(1, (double)(batch * time + 1), 1, TERN_I64), TERN_SHAPE(batch, time)),
                        tern_scalar_int(9));
}

static void test_sizes(void) {
  TERN_SCOPE;
  static const int64_t sizes[][2] = {{3, 5}, {2, 5}, {4, 7}, {1, 3}, {3, 5}, {8, 11}};
  tern_layer *l = sequence_model();
  tern_function *f = tern_function_new(apply, l, 1, 1, NULL);
  for (int i = 0; i < 6; i++) {
    tern_tensor *x = ids(sizes[i][0], sizes[i][1]);
    tern_tensor *got = tern_call(f, x), *expected = tern_layer_call(l, x, &(tern_layer_call_opts){.training = 1});
    CHECK(tern_allclose(got, expected, 1e-4, 1e-5) == 1, "batch %lld, time %lld: %s", (long long)sizes[i][0],
          (long long)sizes[i][1], tern_error());
  }
  tern_function_info info = {0};
  tern_function_get_info(f, &info);
  CHECK(info.traces <= 3, "%d traces", info.traces);
  tern_function_release(f);
  tern_graph *graph = tern_graph_new("g");
  tern_tensor *x = NULL, *y = NULL;
  {
    tern_with_graph(graph);
    x = tern_placeholder(TERN_SHAPE(-1, -2), TERN_I64, "x");
    y = tern_layer_call(l, x, NULL);
  }
  CHECK(y != NULL, "in graph mode: %s", tern_error());
  tern_session *session = tern_session_new(graph);
  for (int i = 0; i < 3 && y; i++) {
    tern_tensor *value = ids(sizes[i][0], sizes[i][1]), *got = NULL;
    CHECK(!tern_session_run(session, &(tern_feed){x, value}, 1, &y, 1, &got), "%s", tern_error());
    CHECK(tern_allclose(got, tern_layer_call(l, value, NULL), 1e-4, 1e-5) == 1, "in a session: %s", tern_error());
  }
  tern_session_release(session);
  tern_graph_release(graph);
  tern_layer_release(l);
  CHECK_NO_ERROR();
}

/* Images through a chain that is built in graph mode, with a batch that is not known. */
static void test_graph_mode(void) {
  TERN_SCOPE;
  tern_layer *l = tern_chain(tern_conv2d(4, 3, 3, CONV(.padding = "same", .activation = "relu")), tern_max_pool2d(NULL),
                             tern_batch_norm_layer(NULL), tern_depthwise_conv2d(3, 3, 1, NULL),
                             tern_flatten_layer(NULL), tern_reshape_layer(TERN_SHAPE(2, -1), NULL),
                             tern_group_norm_layer(2, NULL), tern_flatten_layer(NULL), tern_dense(3, NULL));
  tern_graph *graph = tern_graph_new("g");
  tern_tensor *x = NULL, *y = NULL;
  {
    tern_with_graph(graph);
    x = tern_placeholder(TERN_SHAPE(-1, 8, 8, 2), TERN_F32, "x");
    y = tern_layer_call(l, x, NULL);
  }
  CHECK(y != NULL, "in graph mode: %s", tern_error());
  tern_session *session = tern_session_new(graph);
  for (int batch = 1; batch < 4 && y; batch++) {
    tern_tensor *value = tern_random_normal(TERN_SHAPE(batch, 8, 8, 2), NULL), *got = NULL;
    CHECK(!tern_session_run(session, &(tern_feed){x, value}, 1, &y, 1, &got), "%s", tern_error());
    CHECK(tern_allclose(got, tern_layer_call(l, value, NULL), 1e-4, 1e-5) == 1, "batch %d: %s", batch, tern_error());
  }
  tern_session_release(session);
  tern_graph_release(graph);
  tern_layer_release(l);
  CHECK_NO_ERROR();
}

/* Integers and 16-bit floats; a batch of none. */
static void test_dtypes(void) {
  TERN_SCOPE;
  tern_layer *dense = tern_dense(2, &(tern_dense_opts){.kernel_initializer = "ones"});
  CHECK_LIST(tern_layer_call(dense, tern_u8(TERN_SHAPE(1, 3), 1, 2, 250), NULL), TERN_SHAPE(1, 2), TERN_F32, 253, 253);
  tern_layer_release(dense);
  tern_layer *norm = tern_batch_norm_layer(BATCH(.momentum = TERN_ZERO));
  tern_tensor *y = tern_layer_call(norm, tern_cast(tern_f32(TERN_SHAPE(2, 1), 300, 900), TERN_F16),
                                   &(tern_layer_call_opts){.training = 1});
  CHECK_VALUES(y, TERN_SHAPE(2, 1), TERN_F16, ((const double[]){-1, 1}), 1, 0, "batch_norm in float16");
  CHECK_LIST(tern_layer_get_weight(norm, 2), TERN_SHAPE(1), TERN_F16, 600);
  tern_layer_release(norm);
  tern_layer *flat = tern_chain(tern_reshape_layer(TERN_SHAPE(-1, 2), NULL), tern_flatten_layer(NULL));
  CHECK(tern_equal_all(tern_layer_call(flat, tern_zeros(TERN_SHAPE(0, 3, 4), TERN_F32), NULL),
                       tern_zeros(TERN_SHAPE(0, 12), TERN_F32)) == 1,
        "%s", tern_error());
  tern_layer_release(flat);
  tern_layer *words = tern_embedding_layer(3, 2, NULL);
  CHECK(tern_rank(tern_layer_call(words, tern_f32(TERN_SHAPE(1, 2), 0, 2), NULL)) == 3, "ids in float32: %s",
        tern_error());
  tern_layer_release(words);
  CHECK_NO_ERROR();
}

/* ---- dropout ---- */

static void test_dropout(void) {
  TERN_SCOPE;
  tern_layer *l = tern_dropout_layer(0.25, NULL),
             *seeded = tern_dropout_layer(0.25, &(tern_dropout_layer_opts){.seed = 7});
  const tern_layer_call_opts training = {.training = 1};
  tern_tensor *x = tern_ones(TERN_SHAPE(100, 400), TERN_F32), *y = tern_layer_call(l, x, &training);
  CHECK(tern_layer_call(l, x, NULL) == x, "inference changes x");
  const double zeros = tern_item(tern_mean(tern_cast(tern_equal(y, tern_scalar(0)), TERN_F32), NULL));
  CHECK(fabs(zeros - 0.25) < 0.011, "%g of all are zeros", zeros); /* 5 standard deviations: 5 sqrt(0.1875 / 40000) */
  CHECK(fabs(tern_item(tern_max(y, NULL)) - 1 / 0.75) < 1e-6, "the others are %g", tern_item(tern_max(y, NULL)));
  CHECK(tern_equal_all(y, tern_layer_call(l, x, &training)) == 0, "twice the same");
  CHECK(tern_equal_all(tern_layer_call(seeded, x, &training), tern_layer_call(seeded, x, &training)) == 1, "the seed");
  tern_function *f = tern_function_new(apply, l, 1, 1, NULL);
  tern_tensor *a = tern_call(f, x), *b = tern_call(f, x);
  CHECK(a && tern_equal_all(a, b) == 0, "twice the same in a function: %s", tern_error());
  tern_function_release(f);
  tern_layer_release(l);
  tern_layer_release(seeded);
  CHECK_NO_ERROR();
}

/* ---- initialisers ---- */

/* Mean and standard deviation within 5 standard errors; all within the bound, and some near it. */
static void drawn(const char *name, tern_shape shape, double deviation, double bound) {
  TERN_SCOPE;
  const double n = (double)test_numel(shape);
  double *v = test_values(tern_initialize(name, shape, TERN_F32)), sum = 0, squares = 0, largest = 0;
  if (!CHECK(v != NULL, "%s: %s", name, tern_error())) return;
  for (int64_t i = 0; i < (int64_t)n; i++) {
    sum += v[i];
    squares += v[i] * v[i];
    largest = fmax(largest, fabs(v[i]));
  }
  free(v);
  const double mean = sum / n, got = sqrt(squares / n);
  CHECK(fabs(mean) < 5 * deviation / sqrt(n), "%s: mean %g", name, mean);
  CHECK(fabs(got / deviation - 1) < 5 / sqrt(n), "%s: deviation %g instead of %g", name, got, deviation);
  CHECK(largest <= bound * (1 + 1e-6) && (isinf(bound) || largest > 0.98 * bound), "%s: up to %g of %g", name, largest,
        bound);
}

static void test_initializers(void) {
  const tern_shape matrix = TERN_SHAPE(150, 250), kernel = TERN_SHAPE(5, 4, 30, 50);
  /* fans: 150 and 250; 5 * 4 * 30 = 600 and 5 * 4 * 50 = 1000 */
  const struct {
    tern_shape shape;
    double in, out;
  } forms[] = {{matrix, 150, 250}, {kernel, 600, 1000}};
  for (int i = 0; i < 2; i++) {
    const double in = forms[i].in, mean = (in + forms[i].out) / 2, cut = 2 / 0.87962566103423978;
    drawn("glorot_uniform", forms[i].shape, sqrt(1 / mean), sqrt(3 / mean));
    drawn("glorot_normal", forms[i].shape, sqrt(1 / mean), cut * sqrt(1 / mean));
    drawn("he_uniform", forms[i].shape, sqrt(2 / in), sqrt(6 / in));
    drawn("he_normal", forms[i].shape, sqrt(2 / in), cut * sqrt(2 / in));
    drawn("lecun_uniform", forms[i].shape, sqrt(1 / in), sqrt(3 / in));
    drawn("lecun_normal", forms[i].shape, sqrt(1 / in), cut * sqrt(1 / in));
  }
  drawn("random_uniform", matrix, 0.05 / sqrt(3), 0.05);
  drawn("random_normal", matrix, 0.05, INFINITY);
  drawn("truncated_normal", matrix, 0.05 * 0.87962566103423978, 0.1);
  drawn("glorot_uniform", TERN_SHAPE(20000), sqrt(1 / 20000.0), sqrt(3 / 20000.0));
  TERN_SCOPE;
  CHECK_LIST(tern_initialize("identity", TERN_SHAPE(2, 3), TERN_F32), TERN_SHAPE(2, 3), TERN_F32, 1, 0, 0, 0, 1, 0);
  CHECK_LIST(tern_initialize("ones", TERN_SHAPE(2), TERN_F16), TERN_SHAPE(2), TERN_F16, 1, 1);
  CHECK_LIST(tern_initialize("zeros", TERN_SHAPE(), TERN_F32), TERN_SHAPE(), TERN_F32, 0);
  CHECK(!tern_initialize("uniforn", matrix, TERN_F32), "an unknown name");
  CHECK_ERROR(TERN_E_ARG, "there is no initialiser \"uniforn\"; there are: glorot_uniform");
  CHECK(!tern_initialize(NULL, matrix, TERN_F32), "NULL");
  CHECK_ERROR(TERN_E_ARG, "there is no initialiser");
  CHECK(!tern_initialize("identity", kernel, TERN_F32), "rank 4");
  CHECK_ERROR(TERN_E_ARG, "identity needs rank 2");
  CHECK(!tern_initialize("orthogonal", TERN_SHAPE(3), TERN_F32), "rank 1");
  CHECK_ERROR(TERN_E_ARG, "orthogonal needs rank 2");
  CHECK(tern_size(tern_initialize("orthogonal", TERN_SHAPE(3, 0), TERN_F32)) == 0, "none of it");
  CHECK_NO_ERROR();
}

static void test_orthogonal(void) {
  static const int64_t shapes[][2] = {{12, 50}, {40, 40}, {50, 12}, {1, 1}};
  const int n = strncmp(tern_default_device(), "cpu", 3) ? 1 : 4;
  for (int i = 0; i < n; i++)
    for (int wide = 0; wide < (n + 1) / 2; wide++) {
      TERN_SCOPE;
      const int64_t rows = shapes[i][0], columns = shapes[i][1], few = rows < columns ? rows : columns;
      const tern_dtype dtype = wide ? TERN_F64 : TERN_F32;
      tern_tensor *q = tern_initialize("orthogonal", TERN_SHAPE(rows, 1, columns), dtype);
      q = tern_reshape(q, TERN_SHAPE(rows, columns));
      tern_tensor *unit = rows < columns ? tern_matmul(q, tern_transpose(q)) : tern_matmul(tern_transpose(q), q);
      CHECK(tern_allclose(unit, tern_eye(few, few, 0, dtype), 1e-30, wide ? 1e-14 : 1e-6) == 1, "%lld x %lld: %s",
            (long long)rows, (long long)columns, tern_error());
    }
  CHECK_NO_ERROR();
}

/* ---- no memory ---- */

static void test_no_memory(void) {
  long n = 1;
  for (bool done = false; !done && n < 1000; n++) {
    TERN_SCOPE;
    tern__alloc_fail_at(n);
    tern_layer *l =
        tern_chain(tern_dense(3, &(tern_dense_opts){.activation = "relu", .name = "d"}), tern_flatten_layer(NULL));
    tern_layer *back = NULL;
    if (l) {
      cJSON *json = tern__layer_to_json(l);
      back = json ? tern__layer_from_json(json, NULL) : NULL;
      cJSON_Delete(json);
    }
    tern_tensor *y = back ? tern_layer_call(back, tern_ones(TERN_SHAPE(2, 3), TERN_F32), NULL) : NULL;
    tern__alloc_fail_at(0);
    done = y && !tern_error_code();
    CHECK(done || tern_error_code() == TERN_E_OOM, "allocation %ld: %s", n, tern_error());
    tern_error_clear();
    tern_layer_release(l);
    tern_layer_release(back);
  }
  CHECK(n > 20 && n < 1000, "%ld allocations", n);
}

static const test_case cases[] = {{"parameters", test_parameters},
                                  {"shapes", test_shapes},
                                  {"json", test_json},
                                  {"json_refused", test_json_refused},
                                  {"custom", test_custom},
                                  {"trainable", test_trainable},
                                  {"owners", test_owners},
                                  {"sizes", test_sizes},
                                  {"graph_mode", test_graph_mode},
                                  {"dtypes", test_dtypes},
                                  {"dropout", test_dropout},
                                  {"initializers", test_initializers},
                                  {"orthogonal", test_orthogonal},
                                  {"no_memory", test_no_memory}};
TEST_MAIN("layer_kinds", cases)
