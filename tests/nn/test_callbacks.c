/* Callbacks: decisions against Keras 3 (fixtures/callbacks.bin), files that they write, fits that go on, bad input.
   Most are driven by made-up moments; a small model stands behind them. */
#include "base/alloc.h"
#include "fixtures/fixtures.h"
#include "nn/callback.h"
#include "nn/callback_parts.h"
#include "support/values.h"
#include <dirent.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <tern/io.h>
#include <unistd.h>

/* ---- a folder of the test's own ---- */

static char folder[100];

static const char *path_of(const char *name) {
  static char path[4][300];
  static int turn;
  char *p = path[turn++ % 4];
  snprintf(p, sizeof path[0], "%s/%s", folder, name);
  return p;
}

static char *text_of(const char *path) {
  FILE *file = fopen(path, "r");
  char *text = calloc(1, 4096);
  if (file && text) text[fread(text, 1, 4095, file)] = 0;
  if (file) fclose(file);
  return text;
}

static void write_text(const char *path, const char *text) {
  FILE *file = fopen(path, "w");
  if (file) fputs(text, file);
  if (file) fclose(file);
}

static void text_is(const char *path, const char *expected) {
  char *text = text_of(path);
  CHECK(text && !strcmp(text, expected), "%s holds\n%s\nnot\n%s", path, text, expected);
  free(text);
}

static void check_text(const char *got, const char *expected) {
  CHECK(got && !strcmp(got, expected), "\"%s\", not \"%s\": %s", got ? got : "NULL", expected, tern_error());
}

/* ---- a model and moments ---- */

static tern_model *small_model(void) {
  return tern_sequential(
      tern_dense(1, &(tern_dense_opts){.input_shape = TERN_SHAPE(1), .kernel_initializer = "zeros"}));
}

static void set_all(tern_model *m, double value) {
  TERN_SCOPE;
  tern_tensor *v[4];
  const int n = tern_model_variables(m, v, 4);
  for (int i = 0; i < n; i++) CHECK(!tern_assign(v[i], tern_full_like(v[i], value)), "%s", tern_error());
}

static double first_of(tern_model *m) {
  TERN_SCOPE;
  tern_tensor *v[4];
  tern_model_variables(m, v, 4);
  return tern_item(tern_reshape(v[0], TERN_SHAPE()));
}

static int call(int (*f)(void *, const tern_moment *), tern_callback *c, const tern_moment *moment) {
  return f ? f(c->self, moment) : 0;
}

/* ---- Keras's decisions ---- */

static double number(const fixture *f, const char *name) {
  const int64_t bits = fixture_attr(f, name, 0);
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static void early_stopping(const fixture *f, int n, tern_model *model) {
  const tern_early_stopping_opts opts = {.larger_is_better = fixture_attr(f, "larger", 0) ? 1 : -1,
                                         .patience = (int)fixture_attr(f, "patience", 0),
                                         .start_from = (int)fixture_attr(f, "start_from", 0),
                                         .restore_best = (int)fixture_attr(f, "restore", 0),
                                         .has_baseline = (int)fixture_attr(f, "has_baseline", 0),
                                         .min_delta = number(f, "min_delta"),
                                         .baseline = number(f, "baseline")};
  tern_callback *c = tern_early_stopping(&opts);
  if (!CHECK(c != NULL, "%s", tern_error())) return;
  for (int turn = 0; turn < 2; turn++) { /* and once more in another fit */
    tern_moment moment = {.model = model};
    CHECK(!call(c->body.begin, c, &moment), "begin");
    int stop = 0;
    for (moment.epoch = 0; !stop && moment.epoch < (int)f->in[0].count; moment.epoch++) {
      set_all(model, moment.epoch);
      moment.names = (const char *const[]){"loss", "val_loss"};
      moment.values = (const double[]){0, ((const double *)f->in[0].data)[moment.epoch]};
      moment.n = 2;
      stop = call(c->body.epoch_end, c, &moment);
      CHECK(stop >= 0, "%s", tern_error());
    }
    CHECK(!call(c->body.end, c, &moment), "%s", tern_error());
    const int64_t run = *(const int64_t *)f->out[0].data, best = *(const int64_t *)f->out[1].data;
    CHECK(moment.epoch == run, "%d: %d epochs, Keras %d", n, moment.epoch, (int)run);
    CHECK(first_of(model) == (double)best, "%d: weights of epoch %g, Keras %d", n, first_of(model), (int)best);
  }
  tern_callback_release(c);
}

static void plateau(const fixture *f, int n) {
  const tern_reduce_rate_opts opts = {.larger_is_better = fixture_attr(f, "larger", 0) ? 1 : -1,
                                      .patience = (int)fixture_attr(f, "patience", 0),
                                      .cooldown = (int)fixture_attr(f, "cooldown", 0),
                                      .factor = number(f, "factor"),
                                      .min_delta = number(f, "min_delta"),
                                      .min_rate = number(f, "min_rate")};
  tern_callback *c = tern_reduce_rate_on_plateau(&opts);
  tern_optimizer *o = tern_sgd(&(tern_sgd_opts){.learning_rate = 1});
  if (!CHECK(c && o, "%s", tern_error())) return;
  tern_moment moment = {.optimizer = o};
  CHECK(!call(c->body.begin, c, &moment), "begin");
  for (; moment.epoch < (int)f->in[0].count; moment.epoch++) {
    moment.names = (const char *const[]){"val_loss"};
    moment.values = &((const double *)f->in[0].data)[moment.epoch];
    moment.n = 1;
    CHECK(!call(c->body.epoch_end, c, &moment), "%s", tern_error());
    const double rate = tern_optimizer_learning_rate(o), keras = ((const double *)f->out[0].data)[moment.epoch];
    CHECK(fabs(rate - keras) <= 1e-6 * keras, "%d: epoch %d: rate %g, Keras %g", n, moment.epoch, rate, keras);
  }
  tern_callback_release(c);
  tern_optimizer_release(o);
}

static void test_keras(void) {
  fixtures file;
  fixture f;
  int n = 0;
  tern_model *model = small_model();
  const bool opened = fixtures_open(&file, TERN_FIXTURES "/callbacks.bin");
  if (!CHECK(opened && model, "callbacks.bin: %s; %s", file.error, tern_error())) return;
  for (; fixtures_next(&file, &f); n++)
    if (!strcmp(f.op, "early_stopping"))
      early_stopping(&f, n, model);
    else
      plateau(&f, n);
  CHECK(!file.error && n > 100, "callbacks.bin: record %d: %s", n, file.error ? file.error : "too few");
  fixtures_close(&file);
  tern_model_release(model);
}

/* A log that is not there; NaN; the direction by the name. */
static void test_monitors(void) {
  const char *const names[] = {"loss", "accuracy"};
  double values[] = {1, 0.5};
  tern_moment moment = {.names = names, .values = values, .n = 2};
  tern_callback *c = tern_early_stopping(NULL);
  CHECK(call(c->body.epoch_end, c, &moment) == TERN_E_ARG, "no val_loss");
  CHECK_ERROR(TERN_E_ARG, "early_stopping: there is no log \"val_loss\" (give the fit data for validation, or another "
                          "name); there are: loss, accuracy");
  tern_callback_release(c);
  c = tern_early_stopping(&(tern_early_stopping_opts){.monitor = "accuracy", .patience = 2});
  const double seen[] = {NAN, 0.5, NAN, 0.75, 0.6, 0.7};
  for (int i = 0; i < 6; i++) {
    moment.epoch = i;
    values[1] = seen[i];
    CHECK(call(c->body.epoch_end, c, &moment) == (i == 5 ? TERN_STOP_TRAINING : 0), "epoch %d", i);
  }
  tern_callback_release(c);
  CHECK(tern__larger_is_better(0, "val_auc") && tern__larger_is_better(0, "acc") && !tern__larger_is_better(0, "mae") &&
            !tern__larger_is_better(-1, "acc") && tern__larger_is_better(1, "mae"),
        "by the name");
  bool found;
  CHECK(tern__log_of(&moment, "loss", &found) == 1 && found, "loss");
  CHECK(isnan(tern__log_of(&moment, "lass", &found)) && !found, "lass");
}

static double halve(void *self, int epoch, double before) {
  ++*(int *)self;
  return epoch == 3 ? NAN : epoch ? before / 2 : before;
}

static void test_scheduler(void) {
  int calls = 0;
  tern_callback *c = tern_learning_rate_scheduler(halve, &calls);
  tern_optimizer *o = tern_adam(&(tern_adam_opts){.learning_rate = 0.5});
  tern_moment moment = {.optimizer = o};
  for (; moment.epoch < 3; moment.epoch++) CHECK(!call(c->body.epoch_begin, c, &moment), "%s", tern_error());
  CHECK(calls == 3 && tern_optimizer_learning_rate(o) == 0.125, "%d calls, rate %g", calls,
        tern_optimizer_learning_rate(o));
  CHECK(call(c->body.epoch_begin, c, &moment) < 0, "NaN");
  CHECK_ERROR(TERN_E_ARG, "learning_rate_scheduler: ");
  tern_callback_release(c);
  tern_optimizer_release(o);
  CHECK(!tern_learning_rate_scheduler(NULL, NULL), "NULL");
  CHECK_ERROR(TERN_E_ARG, "learning_rate_scheduler: the function is NULL");
}

/* ---- paths ---- */

static void test_paths(void) {
  const char *const names[] = {"loss", "val_loss", "val_accuracy"};
  const double values[] = {1234.5678, 0.0625, NAN};
  const tern_moment moment = {.epoch = 4, .names = names, .values = values, .n = 3};
  static const char *const good[][2] = {{"plain", "plain"},
                                        {"{epoch}", "5"},
                                        {"a{epoch:04d}b", "a0005b"},
                                        {"{epoch:3}", "  5"},
                                        {"{epoch:03}-{val_loss:.2f}.t", "005-0.06.t"},
                                        {"{loss}", "1234.5678"},
                                        {"{loss:10.1f}|{loss:09.2e}|{loss:.3}", "    1234.6|01.23e+03|1.23e+03"},
                                        {"{val_accuracy:.2f}{val_accuracy}", "nannan"},
                                        {"{{{epoch}}}%s%n", "{5}%s%n"}};
  static const char *const locales[] = {"C", "de_DE.UTF-8"};
  for (int l = 0; l < 2; l++) {
    if (!setlocale(LC_NUMERIC, locales[l])) continue;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
      bool places;
      CHECK(!tern__path_check("test", good[i][0], &places) && places == (i > 0), "%s: %s", good[i][0], tern_error());
      char *path = tern__path_fill("test", good[i][0], &moment);
      check_text(path, good[i][1]);
      free(path);
    }
  }
  setlocale(LC_NUMERIC, "C");
  static const char *const bad[] = {
      "{",        "}",         "{}",           "{epoch",    "{epoch:.2f}",         "{epoch:s}",
      "{loss:d}", "{loss:%n}", "a}b",          "{loss:.f}", "{loss:99999999999f}", "{loss:.99f}",
      "{a{b}}",   "{:d}",      "{loss:5.2fx}", ""};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    bool places;
    CHECK(tern__path_check("test", bad[i], &places) == TERN_E_ARG, "\"%s\" was taken", bad[i]);
    CHECK_ERROR(TERN_E_ARG, "test: the path");
    CHECK(!tern_model_checkpoint(bad[i], NULL), "\"%s\"", bad[i]);
    CHECK_ERROR(TERN_E_ARG, "model_checkpoint: the path");
  }
  CHECK(!tern__path_fill("test", "{val_mse}", &moment), "a log that is not there");
  CHECK_ERROR(TERN_E_ARG, "there is no log \"val_mse\"");
  CHECK(!tern_model_checkpoint("{epoch}", &(tern_checkpoint_opts){.resume = 1}), "resume");
  CHECK_ERROR(TERN_E_ARG, "resume needs one file, but the path \"{epoch}\" names many");
}

/* ---- CSV ---- */

static void epochs(tern_callback *c, tern_moment *moment, int from, int to) {
  CHECK(!call(c->body.begin, c, moment), "%s", tern_error());
  for (moment->epoch = from; moment->epoch < to; moment->epoch++)
    CHECK(!call(c->body.epoch_end, c, moment), "%s", tern_error());
  CHECK(!call(c->body.end, c, moment), "%s", tern_error());
}

static void test_csv(void) {
  const char *const names[] = {"loss", "a,\"b\"", "val_loss"};
  const double values[] = {0.1, INFINITY, NAN};
  tern_moment moment = {.names = names, .values = values, .n = 3};
  const char *path = path_of("log.csv");
  tern_callback *c = tern_csv_log(path, NULL);
  if (setlocale(LC_NUMERIC, "de_DE.UTF-8")) moment.steps = -1; /* numbers have a point all the same */
  epochs(c, &moment, 0, 2);
  setlocale(LC_NUMERIC, "C");
  text_is(path, "epoch,loss,\"a,\"\"b\"\"\",val_loss\n0,0.1,inf,nan\n1,0.1,inf,nan\n");
  epochs(c, &moment, 0, 1); /* another fit begins the file anew */
  text_is(path, "epoch,loss,\"a,\"\"b\"\"\",val_loss\n0,0.1,inf,nan\n");
  tern_callback_release(c);
  c = tern_csv_log(path, &(tern_csv_log_opts){.append = 1});
  moment.n = 2; /* without validation: not available */
  CHECK(!call(c->body.begin, c, &moment), "%s", tern_error());
  moment.epoch = 1;
  CHECK(!call(c->body.epoch_end, c, &moment), "%s", tern_error());
  text_is(path, "epoch,loss,\"a,\"\"b\"\"\",val_loss\n0,0.1,inf,nan\n1,0.1,inf,NA\n"); /* at once */
  tern_callback_release(c);                                                            /* without an end */
  write_text(path, "loss;epoch\n7;0\n9"); /* killed in the middle of a line */
  c = tern_csv_log(path, &(tern_csv_log_opts){.append = 1, .separator = ';'});
  moment.n = 1;
  epochs(c, &moment, 3, 4);
  text_is(path, "loss;epoch\n7;0\n9\n0.1;3\n");
  moment.n = 2;
  CHECK(!call(c->body.begin, c, &moment), "%s", tern_error());
  CHECK(call(c->body.epoch_end, c, &moment) < 0, "a log that the header lacks");
  CHECK_ERROR(TERN_E_ARG, "has no \"a,\"b\"\"");
  tern_callback_release(c);
  unlink(path);
  c = tern_csv_log(path, &(tern_csv_log_opts){.append = 1, .separator = '\t'});
  moment.n = 1;
  epochs(c, &moment, 0, 1);
  text_is(path, "epoch\tloss\n0\t0.1\n");
  tern_callback_release(c);
  unlink(path);
}

static void test_bad_csv(void) {
  CHECK(!tern_csv_log(NULL, NULL), "NULL");
  CHECK_ERROR(TERN_E_ARG, "csv_log: the path is NULL");
  CHECK(!tern_csv_log("x", &(tern_csv_log_opts){.separator = '"'}), "a quote");
  CHECK_ERROR(TERN_E_ARG, "csv_log: the separator is");
  tern_callback *c = tern_csv_log(path_of("none/such.csv"), NULL);
  CHECK(call(c->body.begin, c, &(tern_moment){0}) == TERN_E_IO, "no such folder");
  CHECK_ERROR(TERN_E_IO, "none/such.csv");
  tern_callback_release(c);
  c = tern_csv_log(folder, &(tern_csv_log_opts){.append = 1});
  CHECK(call(c->body.begin, c, &(tern_moment){0}) == TERN_E_IO, "a folder");
  CHECK_ERROR(TERN_E_IO, folder);
  tern_callback_release(c);
}

/* ---- fits ---- */

static tern_model *trained_model(void) {
  tern_set_seed(5);
  tern_model *m = tern_sequential(
      tern_dense(4, &(tern_dense_opts){.input_shape = TERN_SHAPE(3), .activation = "relu", .name = "first"}),
      tern_dropout_layer(0.5, NULL), tern_dense(1, NULL));
  if (!m || tern_compile(m, &(tern_compile_opts){
                                .optimizer = "adam", .loss = "mean_squared_error", .metrics = TERN_NAMES("mae")})) {
    CHECK(0, "%s", tern_error());
    tern_model_release(m);
    return NULL;
  }
  return m;
}

static tern_rc fit(tern_model *m, int epochs_, tern_callback *const *callbacks, int n) {
  TERN_SCOPE;
  tern_tensor *x = tern_reshape(tern_linspace(-1, 1, 36, TERN_F32), TERN_SHAPE(12, 3));
  tern_tensor *y = tern_sum(tern_square(x), TERN_AXES_KEEP(1));
  return tern_fit(m, x, y,
                  &(tern_fit_opts){.epochs = epochs_,
                                   .batch_size = 3,
                                   .progress = TERN_PROGRESS_NONE,
                                   .validation_split = 0.25,
                                   .no_shuffle = 1,
                                   .callbacks = callbacks,
                                   .n_callbacks = n});
}

static void same_weights(tern_model *a, tern_model *b) {
  TERN_SCOPE;
  tern_tensor *v[8], *w[8];
  const int n = tern_model_variables(a, v, 8);
  CHECK(n == tern_model_variables(b, w, 8), "numbers of variables");
  for (int i = 0; i < n; i++) CHECK(tern_equal_all(v[i], w[i]) == 1, "%s differs", tern_variable_name(v[i]));
}

static double third(void *self, int epoch, double before) {
  (void)self;
  return epoch == 1 ? before * 0.75 : before;
}

/* 4 epochs, and 2 that end, then a new process's 4: the same to the last bit, learning rate and dropout included. */
static void test_resume(void) {
  const char *path = path_of("deep/er/model.tern");
  tern_callback *rates[] = {tern_learning_rate_scheduler(third, NULL)};
  tern_model *whole = trained_model();
  if (!whole) return;
  CHECK(!fit(whole, 4, rates, 1), "%s", tern_error());
  for (int part = 0; part < 2; part++) {
    tern_model *m = trained_model();
    if (part) tern_set_seed(99);
    tern_callback *both[] = {tern_model_checkpoint(path, &(tern_checkpoint_opts){.resume = 1}), rates[0]};
    CHECK(m && both[0] && !fit(m, part ? 4 : 2, both, 2), "%s", tern_error());
    int n = 0, k = 0;
    const double *got = tern_history(m, "val_mae", &n), *expected = tern_history(whole, "val_mae", &k);
    CHECK(n == (part ? 4 : 2) && k == 4, "%d and %d epochs", n, k);
    for (int i = 0; i < n && i < k; i++) CHECK(got[i] == expected[i], "epoch %d: %.17g, %.17g", i, got[i], expected[i]);
    if (part) {
      same_weights(m, whole);
      CHECK(tern_optimizer_steps(NULL) == 0, "none");
    }
    tern_callback_release(both[0]);
    tern_model_release(m);
  }
  tern_callback_release(rates[0]);
  tern_model_release(whole);
  unlink(path);
}

static void resume_fails(const char *path, int code, const char *text) {
  TERN_SCOPE;
  tern_model *m = trained_model();
  tern_callback *c = tern_model_checkpoint(path, &(tern_checkpoint_opts){.resume = 1});
  CHECK(m && c && fit(m, 1, &c, 1) != TERN_OK, "a fit went on from %s", path);
  CHECK_ERROR(code, text);
  tern_callback_release(c);
  tern_model_release(m);
}

static void test_bad_resume(void) {
  const char *path = path_of("bad.tern");
  write_text(path, "nonsense");
  resume_fails(path, TERN_E_IO, "model_checkpoint: safetensors: ");
  tern_model *m = trained_model();
  CHECK(!tern_model_save(m, path), "%s", tern_error());
  resume_fails(path, TERN_E_ARG, "was not written during a fit");
  tern_model_release(m);
  unlink(path);
}

static bool exists(const char *path) { return !access(path, F_OK); }

static void test_checkpoints(void) {
  tern_model *m = trained_model();
  if (!m) return;
  CHECK(!fit(m, 1, NULL, 0), "%s", tern_error());
  tern_optimizer *o = tern_sgd(NULL);
  const char *const names[] = {"val_loss"};
  double value = 0;
  tern_moment moment = {.model = m, .optimizer = o, .names = names, .values = &value, .n = 1};
  tern_callback *c =
      tern_model_checkpoint(path_of("{epoch:02d}-{val_loss:.1f}.tern"), &(tern_checkpoint_opts){.best_only = 1});
  const double values[] = {3, 4, 2.5, NAN, 2.5};
  CHECK(!call(c->body.begin, c, &moment), "%s", tern_error());
  for (; moment.epoch < 5; moment.epoch++) {
    value = values[moment.epoch];
    CHECK(!call(c->body.epoch_end, c, &moment), "%s", tern_error());
  }
  static const char *const files[] = {"01-3.0.tern", "02-4.0.tern", "03-2.5.tern", "04-nan.tern", "05-2.5.tern"};
  for (int i = 0; i < 5; i++) {
    CHECK(exists(path_of(files[i])) == (i == 0 || i == 2), "%s", files[i]);
    if (i == 2) CHECK(!tern_model_load_weights(m, path_of(files[i])), "%s", tern_error());
    unlink(path_of(files[i]));
  }
  tern_callback_release(c);
  tern_optimizer_release(o);
  tern_model_release(m);
}

/* Files named so in a folder, and their bytes. */
static int event_files(const char *path, long *bytes) {
  DIR *d = opendir(path);
  int n = 0;
  *bytes = 0;
  for (struct dirent *e; d && (e = readdir(d));) {
    if (strncmp(e->d_name, "events.out.tfevents", 19)) continue;
    char file[600];
    struct stat s;
    snprintf(file, sizeof file, "%s/%s", path, e->d_name);
    if (!stat(file, &s)) *bytes += s.st_size;
    unlink(file);
    n++;
  }
  if (d) closedir(d);
  rmdir(path);
  return n;
}

static void test_tensorboard(void) {
  tern_model *m = trained_model();
  if (!m) return;
  tern_callback *plain = tern_tensorboard(path_of("board"), &(tern_tensorboard_opts){.no_graph = 1});
  CHECK(plain && !plain->body.batch_end, "no wait a batch");
  CHECK(!fit(m, 2, &plain, 1), "%s", tern_error());
  long train = 0, validation = 0, more = 0;
  int n = event_files(path_of("board/train"), &train), k = event_files(path_of("board/validation"), &validation);
  CHECK(n == 1 && k == 1 && train > 100 && validation > 100, "%d, %d files of %ld, %ld bytes", n, k, train, validation);
  tern_callback *full = tern_tensorboard(path_of("board"), &(tern_tensorboard_opts){.histograms = 1, .batches = 2});
  CHECK(!fit(m, 2, &full, 1), "%s", tern_error());
  n = event_files(path_of("board/train"), &more);
  CHECK(n == 1 && more > 2 * train, "%d files, %ld, %ld bytes", n, train, more);
  event_files(path_of("board/validation"), &validation);
  rmdir(path_of("board"));
  tern_callback_release(plain);
  tern_callback_release(full);
  tern_model_release(m);
  CHECK(!tern_tensorboard(NULL, NULL), "NULL");
  CHECK_ERROR(TERN_E_ARG, "tensorboard: folder is NULL");
}

static void test_bad_options(void) {
  CHECK(!tern_early_stopping(&(tern_early_stopping_opts){.patience = -1}), "patience -1");
  CHECK_ERROR(TERN_E_ARG, "early_stopping: patience is -1");
  CHECK(!tern_early_stopping(&(tern_early_stopping_opts){.min_delta = NAN}), "NaN");
  CHECK_ERROR(TERN_E_ARG, "early_stopping: min_delta is");
  CHECK(!tern_reduce_rate_on_plateau(&(tern_reduce_rate_opts){.factor = 1}), "factor 1");
  CHECK_ERROR(TERN_E_ARG, "reduce_rate_on_plateau: factor is 1");
  CHECK(!tern_callback_new(NULL, NULL), "NULL");
  CHECK_ERROR(TERN_E_ARG, "callback_new: body is NULL");
  tern_callback_release(NULL);
}

/* Every allocation of the constructors fails once. */
static void test_no_memory(void) {
  for (int kind = 0; kind < 6; kind++)
    for (int n = 1; n < 20; n++) {
      tern__alloc_fail_at(n);
      tern_callback *c = kind == 0   ? tern_early_stopping(NULL)
                         : kind == 1 ? tern_reduce_rate_on_plateau(NULL)
                         : kind == 2 ? tern_model_checkpoint("x", NULL)
                         : kind == 3 ? tern_csv_log("x", NULL)
                         : kind == 4 ? tern_tensorboard("x", NULL)
                                     : tern_learning_rate_scheduler(third, NULL);
      tern__alloc_fail_at(0);
      if (c) {
        CHECK(n > 2, "kind %d: %d allocations", kind, n - 1);
        tern_callback_release(c);
        break;
      }
      CHECK_ERROR(TERN_E_OOM, "out of host memory");
    }
}

static const test_case cases[] = {{"keras", test_keras},
                                  {"monitors", test_monitors},
                                  {"scheduler", test_scheduler},
                                  {"paths", test_paths},
                                  {"csv", test_csv},
                                  {"bad csv", test_bad_csv},
                                  {"resume", test_resume},
                                  {"bad resume", test_bad_resume},
                                  {"checkpoints", test_checkpoints},
                                  {"tensorboard", test_tensorboard},
                                  {"bad options", test_bad_options},
                                  {"no memory", test_no_memory}};

int main(int argc, char **argv) {
  snprintf(folder, sizeof folder, "/tmp/tern-callbacks-XXXXXX");
  if (!mkdtemp(folder)) return 1;
  const int rc = test_main(argc, argv, "callbacks", cases, (int)(sizeof cases / sizeof *cases));
  rmdir(path_of("deep/er"));
  rmdir(path_of("deep"));
  rmdir(folder);
  return rc;
}
