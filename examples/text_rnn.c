/* The next character of a line of text, by an LSTM: lines of different lengths in padded batches, whose padding is
   masked. The text: the licenses that Debian's base-files ships, or the files given. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tern/tern.h>

enum { WORDS = 97 /* 0: padding, 1 .. 95: what can be printed, 96: all else */, EMBED = 32, UNITS = 128, BATCH = 32 };
enum { SHORTEST = 10, LONGEST = 100, SHOWN = 60 };

static const char *const licenses[] = {"/usr/share/common-licenses/GPL-2",      "/usr/share/common-licenses/GPL-3",
                                       "/usr/share/common-licenses/LGPL-2.1",   "/usr/share/common-licenses/GFDL-1.3",
                                       "/usr/share/common-licenses/Apache-2.0", "/usr/share/common-licenses/MPL-1.1"};

static int id_of(unsigned char c) { return c >= 32 && c < 127 ? c - 31 : 96; }

/* A line, bytes, to (ids of all but its last character, ids of all but its first). */
static int to_pair(void *self, tern_tensor *const *in, int n_in, tern_tensor **out) {
  (void)self, (void)n_in;
  unsigned char line[LONGEST];
  int32_t ids[LONGEST];
  const int64_t size = tern_dim(in[0], 0), n = size < LONGEST ? size : LONGEST;
  if (tern_to_host(tern_slice(in[0], &TERN_RANGE(0, n, 1), 1), line, (size_t)n)) return tern_error_code();
  for (int64_t i = 0; i < n; i++) ids[i] = id_of(line[i]);
  out[0] = tern_constant(TERN_SHAPE(n - 1), TERN_I32, ids, (size_t)n - 1);
  out[1] = tern_constant(TERN_SHAPE(n - 1), TERN_I32, ids + 1, (size_t)n - 1);
  return 2;
}

/* Long enough lines; every tenth or so, by a hash of its text (Fowler, Noll, Vo), is for validation. */
static int keep(void *self, tern_tensor *const *in, int n_in) {
  const int *validation = self;
  unsigned char line[LONGEST];
  const int64_t size = tern_dim(in[0], 0), n = size < LONGEST ? size : LONGEST;
  (void)n_in;
  if (n < SHORTEST || tern_to_host(tern_slice(in[0], &TERN_RANGE(0, n, 1), 1), line, (size_t)n)) return 0;
  uint32_t hash = 2166136261u;
  for (int64_t i = 0; i < n; i++) hash = (hash ^ line[i]) * 16777619u;
  return (hash % 10 == 0) == *validation;
}

static tern_dataset *lines(const char *const *paths, int n, const int *validation) {
  static const int64_t boundaries[] = {40, 60, 70}, sizes[] = {BATCH, BATCH, BATCH, BATCH};
  tern_dataset *d = tern_dataset_filter(tern_dataset_text(paths, n), keep, (void *)validation);
  d = tern_dataset_cache(tern_dataset_map(d, to_pair, NULL, NULL));
  if (!*validation) d = tern_dataset_shuffle(d, 0, &(tern_shuffle_opts){.seed = 1});
  d = tern_dataset_bucket_by_length(d, boundaries, sizes, 3, NULL);
  return tern_dataset_prefetch(d, 2, tern_default_device());
}

/* The line, and what the net thinks comes behind it: always the likeliest character. */
static void show(tern_model *net, const char *begin) {
  char text[SHOWN + 1];
  int32_t ids[SHOWN];
  int n = snprintf(text, sizeof text, "%s", begin);
  for (; n < SHOWN && !tern_error_code(); n++) {
    TERN_SCOPE;
    for (int i = 0; i < n; i++) ids[i] = id_of((unsigned char)text[i]);
    tern_tensor *x = tern_constant(TERN_SHAPE(1, n), TERN_I32, ids, (size_t)n);
    tern_tensor *next = tern_index(tern_predict(net, x, &(tern_run_opts){.progress = TERN_PROGRESS_NONE}), 1, -1);
    const int64_t id = tern_item_int(tern_argmax(next, NULL));
    text[n] = id >= 1 && id <= 95 ? (char)(id + 31) : '.';
    text[n + 1] = 0;
  }
  printf("%s|%s\n", begin, text + strlen(begin));
}

int main(int argc, char **argv) {
  static const int no = 0, yes = 1;
  const char *const *paths = licenses;
  int n = sizeof licenses / sizeof *licenses, epochs = 10, at = 1;
  if (argc > 2 && !strcmp(argv[1], "--epochs")) epochs = atoi(argv[2]), at = 3;
  if (argc > at && argv[at][0] == '-') {
    printf("usage: text_rnn [--epochs N] [FILE...]   train an LSTM to continue lines of text (TERN_DEVICE chooses the "
           "device)\n");
    return strcmp(argv[at], "--help") ? 2 : 0;
  }
  if (argc > at) paths = (const char *const *)argv + at, n = argc - at;
  TERN_SCOPE;
  tern_set_seed(1);
  tern_dataset *train = lines(paths, n, &no), *validation = lines(paths, n, &yes);
  const tern_embedding_opts ids = {.mask_zero = 1, .input_shape = TERN_SHAPE(-1)};
  tern_model *net = tern_sequential(tern_embedding_layer(WORDS, EMBED, &ids),
                                    tern_lstm(UNITS, &(tern_rnn_opts){.return_sequences = 1}), tern_dense(WORDS, NULL));
  tern_summary(net);
  const tern_loss_opts logits = {.from_logits = 1, .ignore = 1, .ignore_class = 0};
  tern_compile(net, &(tern_compile_opts){.optimizer_object = tern_adam(&(tern_adam_opts){.learning_rate = 0.003}),
                                         .loss = "sparse_categorical_crossentropy",
                                         .loss_opts = &logits});
  tern_fit_dataset(net, train, &(tern_fit_opts){.epochs = epochs, .validation_data = validation});
  const double *loss = tern_history(net, "val_loss", &n);
  if (loss) printf("validation loss: %.4f\n", loss[n - 1]);
  show(net, "This License");
  show(net, "You may copy and ");
  tern_model_release(net);
  tern_dataset_release(train);
  tern_dataset_release(validation);
  return tern_finish();
}
