/* A trained model on a device without a compiler. `train` fits a perceptron to Fashion-MNIST and saves its weights, as
   float32 and as int8 with their scales; `predict` reads them in another process and classifies test images, in
   batches, with one compiled function. fpga_infer.sh puts the pieces together: docs/fpga.md. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tern/tern.h>

enum { PIXELS = 784, HIDDEN = 128, CLASSES = 10, BATCH = 128, N_FLOAT = 4, N_INT8 = 6 };

static const char *const float_names[N_FLOAT] = {"hidden weights", "hidden bias", "output weights", "output bias"};
/* Weights as int8; steps: what 1 stands for in the image (always 1/127), in both weights and in the hidden layer */
static const char *const int8_names[N_INT8] = {"hidden int8", "hidden bias", "output int8",
                                               "output bias", "steps",       "range"};

typedef struct request {
  const char *command, *weights, *out, *folder;
  int epochs, images, shape;
  int int8;
} request;

static int failed(const char *what) {
  fprintf(stderr, "fpga_infer: %s: %s\n", what, tern_error());
  return 1;
}

/* Files are read on the CPU, whatever the device: images [n, 784] of bytes, labels [n]. */
static tern_tensor *read_file(const char *folder, const char *name) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  tern_tensor *t = tern_read_idx(path);
  return t && tern_rank(t) == 3 ? tern_reshape(t, TERN_SHAPE(tern_dim(t, 0), -1)) : t;
}

/* ---- training ---- */

static tern_tensor *float_images(tern_tensor *bytes) { return tern_div(tern_cast(bytes, TERN_F32), tern_scalar(255)); }

static tern_tensor *float_logits(tern_tensor *const *w, tern_tensor *x) {
  tern_tensor *hidden = tern_relu(tern_add(tern_matmul(x, w[0]), w[1]));
  return tern_add(tern_matmul(hidden, w[2]), w[3]);
}

static tern_rc train_epoch(tern_tensor *const *w, tern_optimizer *optimizer, tern_tensor *images, tern_tensor *labels) {
  TERN_SCOPE;
  const int64_t n = tern_dim(images, 0);
  tern_tensor *order = tern_random_permutation(n, NULL);
  for (int64_t at = 0; at + BATCH <= n; at += BATCH) {
    TERN_SCOPE;
    tern_tensor *picked = tern_slice(order, &TERN_RANGE(at, at + BATCH, 1), 1), *gradients[N_FLOAT];
    tern_tape *tape = tern_tape_begin(NULL);
    tern_tensor *out = float_logits(w, float_images(tern_take(images, picked, 0)));
    tern_tensor *loss = tern_cross_entropy(out, tern_take(labels, picked, 0), NULL);
    tern_tape_gradient(tape, loss, w, N_FLOAT, gradients);
    tern_optimizer_apply(optimizer, gradients, w, N_FLOAT);
  }
  return tern_sync(NULL);
}

/* Weights of one layer in whole steps from -127 to 127; *step: one of them. */
static tern_tensor *quantised(tern_tensor *w, double *step) {
  *step = tern_item(tern_max(tern_abs(w), NULL)) / 127;
  return tern_cast(tern_round(tern_div(w, tern_scalar(*step))), TERN_I8);
}

static tern_rc save(const request *q, tern_tensor *const *w, tern_tensor *images) {
  const char *names[] = {float_names[0], float_names[1], float_names[2], float_names[3],
                         int8_names[0],  int8_names[2],  int8_names[4],  int8_names[5]};
  double first = 0, second = 0;
  tern_tensor *few = float_images(tern_slice(images, &TERN_RANGE(0, 1000, 1), 1));
  tern_tensor *hidden = tern_relu(tern_add(tern_matmul(few, w[0]), w[1])); /* how large it gets */
  const double range = tern_item(tern_max(hidden, NULL)) / 127;
  tern_tensor *a = quantised(w[0], &first), *b = quantised(w[2], &second);
  tern_tensor *const all[] = {w[0],
                              w[1],
                              w[2],
                              w[3],
                              a,
                              b,
                              tern_f32(TERN_SHAPE(2), (float)(first / 127), (float)(second * range)),
                              tern_f32(TERN_SHAPE(), (float)range)};
  return tern_safetensors_write(q->weights, names, all, 8, NULL, 0);
}

static int train(const request *q) {
  TERN_SCOPE;
  tern_set_seed(1);
  tern_tensor *images = read_file(q->folder, "train-images-idx3-ubyte.gz"),
              *labels = read_file(q->folder, "train-labels-idx1-ubyte.gz");
  if (!images || !labels) return failed("the data");
  const tern_random_opts into_hidden = {.stddev = sqrt(2.0 / PIXELS)}, into_output = {.stddev = sqrt(1.0 / HIDDEN)};
  tern_tensor *const w[N_FLOAT] = {tern_variable(tern_random_normal(TERN_SHAPE(PIXELS, HIDDEN), &into_hidden), NULL),
                                   tern_variable(tern_zeros(TERN_SHAPE(HIDDEN), TERN_F32), NULL),
                                   tern_variable(tern_random_normal(TERN_SHAPE(HIDDEN, CLASSES), &into_output), NULL),
                                   tern_variable(tern_zeros(TERN_SHAPE(CLASSES), TERN_F32), NULL)};
  tern_optimizer *optimizer = tern_adam(NULL);
  for (int epoch = 0; epoch < q->epochs; epoch++)
    if (train_epoch(w, optimizer, images, labels)) return failed("training");
  const tern_rc rc = save(q, w, images);
  tern_optimizer_release(optimizer);
  return rc ? failed(q->weights) : 0;
}

/* ---- predicting: in[0] are images [n, 784] of bytes, the others the weights ---- */

static tern_rc predict_float(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  out[0] = tern_argmax(float_logits(in + 1, float_images(in[0])), TERN_AXES(1));
  return out[0] ? TERN_OK : tern_error_code();
}

/* Of int8, added up in int32 */
static tern_tensor *product(tern_tensor *a, tern_tensor *b, tern_tensor *step, tern_tensor *bias) {
  return tern_add(tern_mul(tern_cast(tern_matmul_int32(a, b), TERN_F32), step), bias);
}

static tern_tensor *as_int8(tern_tensor *x) {
  return tern_cast(tern_clip(tern_round(x), tern_scalar(-127), tern_scalar(127)), TERN_I8);
}

/* in: images, weights, bias, weights, bias, the steps of both products, the step of the hidden layer */
static tern_rc predict_int8(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  (void)self, (void)n_in, (void)n_out;
  tern_tensor *first = tern_slice(in[5], &TERN_RANGE(0, 1, 1), 1), *second = tern_slice(in[5], &TERN_RANGE(1, 2, 1), 1);
  tern_tensor *x = as_int8(tern_mul(tern_cast(in[0], TERN_F32), tern_scalar(127.0 / 255)));
  tern_tensor *hidden = tern_relu(product(x, in[1], first, in[2]));
  tern_tensor *logits = product(as_int8(tern_div(hidden, in[6])), in[3], second, in[4]);
  out[0] = tern_argmax(logits, TERN_AXES(1));
  return out[0] ? TERN_OK : tern_error_code();
}

static int read_weights(const request *q, tern_tensor **w) {
  tern_safetensors *file = tern_safetensors_open(q->weights);
  for (int i = 0; file && i < (q->int8 ? N_INT8 : N_FLOAT); i++)
    if (!(w[i] = tern_safetensors_get(file, q->int8 ? int8_names[i] : float_names[i]))) return failed(q->weights);
  if (!file) return failed(q->weights);
  tern_safetensors_close(file);
  return 0;
}

/* Batches of q->shape images; one answer a line goes to the file. */
static int answer(const request *q, tern_function *f, tern_tensor **in, int n_in, tern_tensor *images,
                  tern_tensor *labels) {
  FILE *file = fopen(q->out, "w");
  if (!file) return failed(q->out);
  int64_t *answers = malloc(8 * (size_t)q->shape), right = 0, asked = 0;
  uint8_t *truth = malloc((size_t)q->shape);
  int status = answers && truth ? 0 : 1;
  for (int at = 0; at + q->shape <= q->images && !status; at += q->shape) {
    TERN_SCOPE;
    tern_tensor *out;
    const tern_range part = TERN_RANGE(at, at + q->shape, 1);
    in[0] = tern_to(tern_slice(images, &part, 1), tern_device_get(in[1]));
    if (!in[0] || tern_function_run(f, in, n_in, &out, 1) || tern_to_host(out, answers, 8 * (size_t)q->shape) ||
        tern_to_host(tern_slice(labels, &part, 1), truth, (size_t)q->shape))
      status = failed("predicting");
    for (int i = 0; i < q->shape && !status; i++, asked++) {
      fprintf(file, "%lld\n", (long long)answers[i]);
      right += answers[i] == truth[i];
    }
  }
  if (!status) printf("%lld images, %.4f right\n", (long long)asked, (double)right / (double)(asked ? asked : 1));
  free(answers);
  free(truth);
  return fclose(file) || status;
}

static int predict(const request *q) {
  TERN_SCOPE;
  tern_tensor *in[1 + N_INT8] = {NULL};
  if (read_weights(q, in + 1)) return 1;
  tern_device_mark mark = tern_device_begin("cpu:0");
  tern_tensor *images = read_file(q->folder, "t10k-images-idx3-ubyte.gz"),
              *labels = read_file(q->folder, "t10k-labels-idx1-ubyte.gz");
  tern_device_end(&mark);
  if (!images || !labels) return failed("the data");
  const int n_in = 1 + (q->int8 ? N_INT8 : N_FLOAT);
  const tern_function_opts opts = {.name = q->int8 ? "predict_int8" : "predict"};
  tern_function *f = tern_function_new(q->int8 ? predict_int8 : predict_float, NULL, n_in, 1, &opts);
  const int status = f ? answer(q, f, in, n_in, images, labels) : failed("the function");
  tern_function_release(f);
  return status;
}

static int whole(const char *text) {
  char *end = NULL;
  const long n = strtol(text, &end, 10);
  return *end || n < 1 || n > 10000 ? 0 : (int)n;
}

int main(int argc, char **argv) {
  request q = {.command = argc > 1 ? argv[1] : "",
               .folder = "/usr/share/datasets/fashion-mnist",
               .epochs = 1,
               .images = 1000,
               .shape = 100};
  int good = argc > 2;
  for (int i = 2; i < argc && good; i++) {
    const char *next = i + 1 < argc ? argv[i + 1] : "";
    if (!strcmp(argv[i], "--epochs"))
      good = (q.epochs = whole(next)) > 0, i++;
    else if (!strcmp(argv[i], "--images"))
      good = (q.images = whole(next)) > 0, i++;
    else if (!strcmp(argv[i], "--shape"))
      good = (q.shape = whole(next)) > 0, i++;
    else if (!strcmp(argv[i], "--data"))
      q.folder = next, i++;
    else if (!strcmp(argv[i], "--int8"))
      q.int8 = 1;
    else if (!q.weights)
      q.weights = argv[i];
    else if (!q.out)
      q.out = argv[i];
    else
      good = 0;
  }
  const int training = !strcmp(q.command, "train");
  if (!good || !q.weights || (!training && (strcmp(q.command, "predict") != 0 || !q.out))) {
    fputs("usage: fpga_infer train WEIGHTS [--epochs N] [--data FOLDER]\n"
          "       fpga_infer predict WEIGHTS ANSWERS [--int8] [--shape N] [--images N] [--data FOLDER]\n"
          "TERN_DEVICE says where; --shape is the batch.\n",
          argc > 1 && !strcmp(argv[1], "--help") ? stdout : stderr);
    return argc > 1 && !strcmp(argv[1], "--help") ? 0 : 2;
  }
  const int status = training ? train(&q) : predict(&q);
  return tern_finish() || status;
}
