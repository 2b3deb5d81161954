/* Training that is killed goes on: a child is ended by SIGKILL in the middle of an epoch, again and again, and what the
   last one reaches is, to the bit, what a run reaches that nobody ended. */
#include "support/values.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { EPOCHS = 6, ROWS = 96, BATCH = 8 };

/* Ends the process in the step that KILL_AT names, counted over this process's epochs. */
static int kill_at(void *self, const tern_moment *moment) {
  int64_t *left = self;
  (void)moment;
  if ((*left)-- == 0) raise(SIGKILL);
  return TERN_OK;
}

/* Trains with a checkpoint at PATH; prints how often epochs were run, and a sum of the weights' bits. */
static int child(const char *name) {
  TERN_SCOPE;
  const char *path = getenv("MODEL_PATH"), *at = getenv("KILL_AT");
  int64_t left = at ? atoll(at) : -1;
  tern_set_seed(11);
  tern_tensor *x = tern_random_normal(TERN_SHAPE(ROWS, 4), NULL);
  tern_tensor *y = tern_sum(x, TERN_AXES_KEEP(1));
  tern_model *m = tern_sequential(tern_dense(8, &(tern_dense_opts){.activation = "tanh", .input_shape = TERN_SHAPE(4)}),
                                  tern_dropout_layer(0.2, NULL), tern_dense(1, NULL));
  tern_compile(m, &(tern_compile_opts){.optimizer = "adam", .loss = "mean_squared_error"});
  const tern_callback_body killer = {.batch_end = kill_at};
  tern_callback *callbacks[] = {tern_model_checkpoint(path, &(tern_checkpoint_opts){.resume = 1}),
                                tern_callback_new(&killer, &left)};
  const tern_rc rc = tern_fit(m, x, y,
                              &(tern_fit_opts){.epochs = EPOCHS,
                                               .batch_size = BATCH,
                                               .seed = 5,
                                               .progress = TERN_PROGRESS_NONE,
                                               .callbacks = callbacks,
                                               .n_callbacks = 2});
  int n = 0;
  tern_history(m, "loss", &n);
  tern_tensor *weights[4];
  const int n_weights = rc ? 0 : tern_get_weights(m, weights, 4);
  printf("%s: %d epochs:", name, n);
  for (int i = 0; i < n_weights; i++) {
    float v[64] = {0};
    uint32_t bits = 0, word;
    tern_to_host(weights[i], v, (size_t)tern_size(weights[i]) * sizeof *v);
    for (int64_t k = 0; k < tern_size(weights[i]); k++) {
      memcpy(&word, &v[k], sizeof word);
      bits = bits * 31 + word;
    }
    printf(" %08x", bits);
  }
  printf("\n%s\n", rc ? tern_error() : "");
  for (int i = 0; i < 2; i++) tern_callback_release(callbacks[i]);
  tern_model_release(m);
  return rc ? 1 : tern_finish();
}

static const char *sums(const char *text) {
  const char *at = strstr(text, "epochs:");
  return at ? at : "nothing";
}

static void killed(void) {
  char folder[] = "/tmp/tern_resume_XXXXXX", whole[2000], text[2000], path[100], kill[40];
  CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(folder));
  snprintf(path, sizeof path, "MODEL_PATH=%s/whole", folder);
  CHECK(test_child("whole", (const char *[]){path, NULL}, whole, sizeof whole) == 0, "%s", whole);
  snprintf(path, sizeof path, "MODEL_PATH=%s/parts", folder);
  /* after 1.5 epochs; at once; in the first epoch after that; at an epoch's first step */
  static const int at[] = {ROWS / BATCH * 3 / 2, 0, ROWS / BATCH + 3, ROWS / BATCH};
  for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
    snprintf(kill, sizeof kill, "KILL_AT=%d", at[i]);
    const int status = test_child("killed", (const char *[]){path, kill, NULL}, text, sizeof text);
    CHECK(status == -SIGKILL, "%s: %d: %s", kill, status, text);
  }
  CHECK(test_child("parts", (const char *[]){path, NULL}, text, sizeof text) == 0, "%s", text);
  CHECK(!strcmp(sums(whole), sums(text)), "in one go: %s, in parts: %s", whole, text);
  char command[200];
  snprintf(command, sizeof command, "rm -r %s", folder);
  CU_ASSERT_EQUAL(system(command), 0);
}

static const test_case cases[] = {{"killed", killed}};
TEST_MAIN_CHILD("resume", cases, child)
