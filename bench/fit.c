/* Layers and models: the small net of Keras's first page, from its layers to trained; steps of a convolutional net, of
   an LSTM and of a transformer, compiled, beside the same models elsewhere (peers/, through --serve). Memory is
   measured in a process of its own: the growth of peak RSS from before the model to the end of 100 steps. */
#include "bench.h"
#include "child.h"
#include "mnist_idle.h"

enum {
  CNN_BATCH = 64,
  CLASSES = 10,
  STEPS = 100,
  LSTM_BATCH = 32,
  FEATURES = 64,
  UNITS = 128,
  TEXT_BATCH = 16,
  BLOCK = 128
};
enum { MEMORY_STEPS = 100 };
enum { WORDS = 97, WIDTH = 128, HEADS = 4, LAYERS = 3 };

static void failed(const char *what) {
  if (tern_error_code()) fprintf(stderr, "%s: %s\n", what, tern_error());
}

/* ---- three examples, ten epochs ---- */

static void quickstart(void *unused, long reps) {
  (void)unused;
  for (long i = 0; i < reps; i++) {
    TERN_SCOPE;
    tern_tensor *x = tern_f32(TERN_SHAPE(3, 2), 1, 2, 3, 4, 5, 6), *y = tern_f32(TERN_SHAPE(3, 1), 0, 1, 0);
    tern_model *net =
        tern_sequential(tern_dense(4, &(tern_dense_opts){.activation = "relu", .input_shape = TERN_SHAPE(2)}),
                        tern_dense(1, &(tern_dense_opts){.activation = "sigmoid"}));
    tern_compile(net, &(tern_compile_opts){
                          .optimizer = "adam", .loss = "binary_crossentropy", .metrics = TERN_NAMES("accuracy")});
    tern_fit(net, x, y, &(tern_fit_opts){.epochs = 10, .progress = TERN_PROGRESS_NONE});
    tern_predict(net, x, &(tern_run_opts){.progress = TERN_PROGRESS_NONE});
    tern_model_release(net);
  }
  failed("fit/keras_quickstart");
}

/* ---- a model, its batch ---- */

typedef struct model {
  tern_model *(*make)(void);
  void (*batch)(tern_tensor **x, tern_tensor **y);
  tern_model *net;
  tern_tensor *x, *y;
} model;

static void begin(model *m) {
  if (m->net) return;
  TERN_SCOPE;
  tern_set_seed(1);
  m->batch(&m->x, &m->y);
  tern_keep(m->x);
  tern_keep(m->y);
  m->net = m->make();
  const tern_loss_opts logits = {.from_logits = 1};
  tern_compile(m->net, &(tern_compile_opts){
                           .optimizer = "adam", .loss = "sparse_categorical_crossentropy", .loss_opts = &logits});
  failed("a model");
}

static void train(void *context, long reps) {
  model *m = context;
  begin(m);
  for (long i = 0; i < reps; i++) tern_train_on_batch(m->net, m->x, m->y);
  failed("a step");
}

static void infer(void *context, long reps) {
  model *m = context;
  begin(m);
  const tern_run_opts whole = {.batch_size = 1 << 20, .progress = TERN_PROGRESS_NONE};
  for (long i = 0; i < reps; i++) {
    TERN_SCOPE;
    tern_predict(m->net, m->x, &whole);
  }
  failed("a prediction");
}

static tern_tensor *labels(tern_shape shape, int64_t n) {
  return tern_random_integers(shape, 0, n, &(tern_random_opts){.dtype = TERN_I32});
}

static tern_model *cnn(void) {
  const tern_conv_layer_opts first = {.activation = "relu", .padding = "same", .input_shape = TERN_SHAPE(28, 28, 1)},
                             second = {.activation = "relu", .padding = "same"};
  return tern_sequential(tern_conv2d(32, 3, 3, &first), tern_max_pool2d(NULL), tern_conv2d(64, 3, 3, &second),
                         tern_max_pool2d(NULL), tern_flatten_layer(NULL),
                         tern_dense(128, &(tern_dense_opts){.activation = "relu"}), tern_dense(CLASSES, NULL));
}
static void cnn_batch(tern_tensor **x, tern_tensor **y) {
  *x = tern_random_uniform(TERN_SHAPE(CNN_BATCH, 28, 28, 1), NULL);
  *y = labels(TERN_SHAPE(CNN_BATCH), CLASSES);
}

static tern_model *lstm(void) {
  return tern_sequential(
      tern_lstm(UNITS, &(tern_rnn_opts){.return_sequences = 1, .input_shape = TERN_SHAPE(-1, FEATURES)}),
      tern_dense(CLASSES, NULL));
}
static void lstm_batch(tern_tensor **x, tern_tensor **y) {
  *x = tern_random_normal(TERN_SHAPE(LSTM_BATCH, STEPS, FEATURES), NULL);
  *y = labels(TERN_SHAPE(LSTM_BATCH, STEPS), CLASSES);
}

static tern_layer *block(void) {
  const tern_attention_layer_opts causal = {.causal = 1};
  return tern_chain(
      tern_residual(tern_layer_norm_layer(NULL), tern_multi_head_attention(HEADS, WIDTH / HEADS, &causal)),
      tern_residual(tern_layer_norm_layer(NULL), tern_dense(4 * WIDTH, &(tern_dense_opts){.activation = "gelu"}),
                    tern_dense(WIDTH, NULL)));
}
static tern_model *transformer(void) {
  tern_layer *layers[LAYERS + 3] = {
      tern_embedding_layer(WORDS, WIDTH, &(tern_embedding_opts){.input_shape = TERN_SHAPE(BLOCK)})};
  for (int i = 0; i < LAYERS; i++) layers[1 + i] = block();
  layers[LAYERS + 1] = tern_layer_norm_layer(NULL);
  layers[LAYERS + 2] = tern_dense(WORDS, NULL);
  return tern_sequential_n(layers, LAYERS + 3);
}
static void text_batch(tern_tensor **x, tern_tensor **y) {
  *x = labels(TERN_SHAPE(TEXT_BATCH, BLOCK), WORDS);
  *y = labels(TERN_SHAPE(TEXT_BATCH, BLOCK), WORDS);
}

static void models(model nets[3]) {
  nets[0] = (model){.make = cnn, .batch = cnn_batch};
  nets[1] = (model){.make = lstm, .batch = lstm_batch};
  nets[2] = (model){.make = transformer, .batch = text_batch};
}

static void end(model *m) {
  tern_release(m->x);
  tern_release(m->y);
  tern_model_release(m->net);
}

/* ---- peak memory ---- */

/* Of this program's own memory, after what was there before begins anew with `reset`. */
static double peak_bytes(bool reset) {
  char line[128];
  double kilobytes = NAN;
  FILE *file = reset ? fopen("/proc/self/clear_refs", "w") : NULL;
  if (file) {
    fputs("5", file); /* the peak is what is resident now */
    fclose(file);
  }
  file = fopen("/proc/self/status", "r");
  while (file && fgets(line, sizeof line, file))
    if (!strncmp(line, "VmHWM:", 6)) kilobytes = strtod(line + 6, NULL);
  if (file) fclose(file);
  return 1024 * kilobytes;
}

static tern_model *tiny(void) {
  return tern_sequential(tern_dense(2, &(tern_dense_opts){.input_shape = TERN_SHAPE(2)}));
}
static void tiny_batch(tern_tensor **x, tern_tensor **y) {
  *x = tern_ones(TERN_SHAPE(2, 2), TERN_F32);
  *y = labels(TERN_SHAPE(2), 2);
}

/* In a fresh process: prints the bytes. A step of a small model comes first, so that what it loads does not count. */
static int memory_child(const char *which) {
  TERN_SCOPE;
  model nets[3], first = {.make = tiny, .batch = tiny_batch};
  const int k = *which - '0';
  if (k < 0 || k > 2 || which[1]) return bench_fail("--memory: %s is no number of a model", which) + 1;
  models(nets);
  train(&first, 1);
  const double before = peak_bytes(true);
  train(&nets[k], MEMORY_STEPS);
  if (bench_errors("fit/memory")) return 1;
  printf("%.0f\n", peak_bytes(false) - before);
  end(&first);
  end(&nets[k]);
  return tern_finish();
}

static double memory_bytes(const char *number) {
  return bench_child((char *const[]){"fit", "--memory", (char *)(uintptr_t)number, NULL});
}
static double cnn_memory(void) { return memory_bytes("0"); }
static double lstm_memory(void) { return memory_bytes("1"); }
static double transformer_memory(void) { return memory_bytes("2"); }

int main(int argc, char **argv) {
  if (argc == 3 && !strcmp(argv[1], "--memory")) return memory_child(argv[2]);
  if (argc == 2 && !strcmp(argv[1], "--idle")) return idle_child();
  TERN_SCOPE;
  model nets[3];
  models(nets);
  const bench_case cases[] = {{.name = "fit/keras_quickstart", .loop = quickstart, .ops = 1},
                              {.name = "train/cnn", .loop = train, .context = &nets[0], .ops = 1},
                              {.name = "train/lstm", .loop = train, .context = &nets[1], .ops = 1},
                              {.name = "infer/lstm", .loop = infer, .context = &nets[1], .ops = 1},
                              {.name = "train/transformer", .loop = train, .context = &nets[2], .ops = 1},
                              {.name = "infer/transformer_text", .loop = infer, .context = &nets[2], .ops = 1},
                              {.name = "fit/memory_cnn", .once = cnn_memory},
                              {.name = "fit/memory_lstm", .once = lstm_memory},
                              {.name = "fit/memory_transformer", .once = transformer_memory},
                              {.name = "fit/mnist_idle", .measure = idle_case}};
  const int rc = bench_main(argc, argv, "Layers and models.", cases, (int)(sizeof cases / sizeof *cases));
  for (int i = 0; i < 3; i++) end(&nets[i]);
  return tern_finish() || rc == 1 ? 1 : rc;
}
