/* A small transformer that learns text character by character, and writes some. The text: the licenses that Debian's
   base-files ships, or the files given; its last tenth is for validation. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tern/tern.h>

enum { WORDS = 97 /* 1 .. 95: what can be printed, 96: the end of a line, 0: all else */, BLOCK = 64, WIDTH = 128 };
enum { HEADS = 4, LAYERS = 3, BATCH = 32, STRIDE = 16 /* from one example to the next */, WRITTEN = 240 };

static const char *const licenses[] = {"/usr/share/common-licenses/GPL-2",      "/usr/share/common-licenses/GPL-3",
                                       "/usr/share/common-licenses/LGPL-2.1",   "/usr/share/common-licenses/GFDL-1.3",
                                       "/usr/share/common-licenses/Apache-2.0", "/usr/share/common-licenses/MPL-1.1"};

/* ---- text ---- */

static int32_t id_of(int c) { return c >= 32 && c < 127 ? c - 31 : c == '\n' ? 96 : 0; }
static char char_of(int64_t id) { return (char)(id >= 1 && id <= 95 ? id + 31 : id == 96 ? '\n' : '?'); }

typedef struct text {
  int32_t *id;
  int64_t n;
} text;

/* The files' characters as ids; runs of blanks are one. Says what cannot be read. */
static bool read_text(const char *const *paths, int n, text *t) {
  int64_t room = 0;
  for (int i = 0; i < n; i++) {
    FILE *f = fopen(paths[i], "r");
    if (!f) {
      perror(paths[i]);
      return false;
    }
    for (int c, before = 0; (c = getc(f)) != EOF; before = c) {
      if (c == ' ' && (before == ' ' || before == '\n')) continue;
      if (t->n == room) {
        room = room ? 2 * room : 1 << 16;
        int32_t *more = realloc(t->id, (size_t)room * sizeof *more);
        if (!more) return false;
        t->id = more;
      }
      t->id[t->n++] = id_of(c);
    }
    fclose(f);
  }
  return t->n > 20 * BLOCK;
}

/* [rows, BLOCK] of ids from `from` on, each row STRIDE behind the one before; shifted by one for what shall come
   out. */
static tern_tensor *windows(const text *t, int64_t from, int64_t to, int shift) {
  const int64_t rows = (to - from - BLOCK - 1) / STRIDE + 1;
  int32_t *all = malloc((size_t)(rows * BLOCK) * sizeof *all);
  if (!all) return NULL;
  for (int64_t r = 0; r < rows; r++) memcpy(all + r * BLOCK, t->id + from + r * STRIDE + shift, BLOCK * sizeof *all);
  tern_tensor *w = tern_constant(TERN_SHAPE(rows, BLOCK), TERN_I32, all, (size_t)(rows * BLOCK));
  free(all);
  return w;
}

/* ---- the net ---- */

/* A layer of one's own: learned positions are added. */
static tern_rc build_positions(void *self, tern_layer *layer, tern_shape input) {
  (void)self, (void)input;
  const tern_weight_opts small = {.initializer = "random_normal"};
  return tern_layer_weight(layer, "table", TERN_SHAPE(BLOCK, WIDTH), &small) ? TERN_OK : tern_error_code();
}

static tern_tensor *add_positions(void *self, tern_layer *layer, tern_tensor *x, int training) {
  (void)self, (void)training;
  return tern_add(x, tern_layer_get_weight(layer, 0));
}

static tern_layer *positions(void) {
  static const tern_layer_body body = {.name = "positions", .build = build_positions, .call = add_positions};
  return tern_layer_new(&body, NULL, NULL);
}

static tern_layer *block(void) {
  const tern_attention_layer_opts causal = {.causal = 1};
  const tern_norm_layer_opts norm = {.epsilon = 1e-5};
  return tern_chain(
      tern_residual(tern_layer_norm_layer(&norm), tern_multi_head_attention(HEADS, WIDTH / HEADS, &causal)),
      tern_residual(tern_layer_norm_layer(&norm), tern_dense(4 * WIDTH, &(tern_dense_opts){.activation = "gelu"}),
                    tern_dense(WIDTH, NULL)));
}

static tern_model *network(void) {
  const tern_embedding_opts ids = {.input_shape = TERN_SHAPE(BLOCK)};
  const tern_norm_layer_opts norm = {.epsilon = 1e-5};
  tern_layer *layers[LAYERS + 4] = {tern_embedding_layer(WORDS, WIDTH, &ids), positions()};
  for (int i = 0; i < LAYERS; i++) layers[2 + i] = block();
  layers[LAYERS + 2] = tern_layer_norm_layer(&norm);
  layers[LAYERS + 3] = tern_dense(WORDS, NULL);
  return tern_sequential_n(layers, LAYERS + 4);
}

/* Characters drawn one by one by the net's probabilities, behind a beginning of BLOCK characters. */
static void write_text(tern_model *net, const int32_t *begin) {
  int32_t ids[BLOCK];
  memcpy(ids, begin, sizeof ids);
  for (int i = 0; i < BLOCK; i++) putchar(char_of(ids[i]));
  printf(" ...\n");
  for (int i = 0; i < WRITTEN && !tern_error_code(); i++) {
    TERN_SCOPE;
    tern_tensor *x = tern_constant(TERN_SHAPE(1, BLOCK), TERN_I32, ids, BLOCK);
    tern_tensor *all = tern_predict(net, x, &(tern_run_opts){.progress = TERN_PROGRESS_NONE});
    tern_tensor *last = tern_slice(all, (tern_range[]){TERN_ALL, TERN_RANGE(BLOCK - 1, BLOCK, 1)}, 2);
    /* the largest of logits with Gumbel noise is a draw by their probabilities */
    const tern_random_opts open = {.low = 1e-9, .high = 1};
    tern_tensor *noise = tern_neg(tern_log(tern_neg(tern_log(tern_random_uniform(TERN_SHAPE(1, 1, WORDS), &open)))));
    const int64_t id = tern_item_int(tern_argmax(tern_add(tern_mul(last, tern_scalar(1.25)), noise), NULL));
    memmove(ids, ids + 1, (BLOCK - 1) * sizeof *ids);
    ids[BLOCK - 1] = (int32_t)id;
    putchar(char_of(id));
  }
  putchar('\n');
}

int main(int argc, char **argv) {
  const char *const *paths = licenses;
  int n = sizeof licenses / sizeof *licenses, epochs = 4, at = 1;
  if (argc > 2 && !strcmp(argv[1], "--epochs")) epochs = atoi(argv[2]), at = 3;
  if (argc > at && argv[at][0] == '-') {
    printf(
        "usage: transformer [--epochs N] [FILE...]   train a transformer on text and let it write (TERN_DEVICE chooses "
        "the device)\n");
    return strcmp(argv[at], "--help") ? 2 : 0;
  }
  if (argc > at) paths = (const char *const *)argv + at, n = argc - at;
  TERN_SCOPE;
  tern_set_seed(1);
  text t = {0};
  if (!read_text(paths, n, &t)) {
    fprintf(stderr, "transformer: there is not enough text\n");
    free(t.id);
    return 1;
  }
  const int64_t cut = t.n * 9 / 10;
  tern_model *net = network();
  tern_summary(net);
  const tern_loss_opts logits = {.from_logits = 1};
  tern_compile(net, &(tern_compile_opts){.optimizer_object = tern_adam(&(tern_adam_opts){.learning_rate = 0.001}),
                                         .loss = "sparse_categorical_crossentropy",
                                         .loss_opts = &logits});
  tern_fit(net, windows(&t, 0, cut, 0), windows(&t, 0, cut, 1),
           &(tern_fit_opts){.epochs = epochs,
                            .batch_size = BATCH,
                            .validation_x = windows(&t, cut, t.n, 0),
                            .validation_y = windows(&t, cut, t.n, 1)});
  const double *loss = tern_history(net, "val_loss", &n);
  if (loss) printf("validation loss: %.4f\n", loss[n - 1]);
  write_text(net, t.id);
  free(t.id);
  tern_model_release(net);
  return tern_finish();
}
