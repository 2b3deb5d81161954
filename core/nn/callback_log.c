/* Logs of epochs in files: CSV (RFC 4180, a line an epoch, in the file at its end) and TensorBoard. */
#include "base/alloc.h"
#include "base/string.h"
#include "base/thread.h"
#include "nn/callback_parts.h"
#include "nn/model.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tern/io.h>

/* ---- CSV ---- */

typedef struct csv {
  char *path;
  char separator;
  bool append;
  FILE *file;
  char **column; /* names, "epoch" among them; NULL: the header is not written yet */
  int n_columns;
} csv;

static tern_rc csv_fail(const csv *c, const char *what) {
  return tern__fail(TERN_E_IO, "csv_log: %s %s: %s", what, c->path, strerror(errno));
}

static tern_rc csv_no_memory(const csv *c) {
  return tern__fail(TERN_E_OOM, "csv_log: %s: out of host memory", c->path);
}

static tern_rc csv_close(csv *c) {
  const bool failed = c->file && fclose(c->file);
  c->file = NULL;
  for (int i = 0; i < c->n_columns; i++) free(c->column[i]);
  free(c->column);
  c->column = NULL;
  c->n_columns = 0;
  return failed ? csv_fail(c, "cannot write to") : TERN_OK;
}

static tern_rc add_column(csv *c, const char *name) {
  char **more = tern__realloc(c->column, ((size_t)c->n_columns + 1) * sizeof *more);
  if (!more) return csv_no_memory(c);
  c->column = more;
  if (!(more[c->n_columns] = tern__strdup(name))) return csv_no_memory(c);
  c->n_columns++;
  return TERN_OK;
}

/* The header of a file that is there; *last: the file's last character, 0 when it is empty. */
static tern_rc read_header(csv *c, FILE *file, int *last) {
  tern__string cell = {0};
  tern_rc rc = TERN_OK;
  bool quoted = false;
  int ch;
  for (*last = 0; !rc && (ch = getc(file)) != EOF;) {
    *last = ch;
    const bool quote = ch == '"';
    if (quote && quoted) {
      const int next = getc(file);
      if (next != '"') {
        quoted = false;
        ungetc(next, file);
        continue;
      }
    } else if (quote) {
      quoted = true;
      continue;
    } else if (!quoted && (ch == c->separator || ch == '\n')) {
      rc = add_column(c, cell.text ? cell.text : "");
      tern__string_truncate(&cell, 0);
      if (ch == '\n') break;
      continue;
    }
    if (ch != '\r') rc = tern__string_append(&cell, &(char){(char)ch}, 1);
  }
  if (!rc && *last && *last != '\n') rc = add_column(c, cell.text ? cell.text : "");
  while (!rc && (ch = getc(file)) != EOF) *last = ch;
  if (!rc && ferror(file)) rc = csv_fail(c, "cannot read");
  tern__string_free(&cell);
  return rc == TERN_E_OOM ? csv_no_memory(c) : rc;
}

static int csv_begin(void *self, const tern_moment *moment) {
  (void)moment;
  csv *c = self;
  csv_close(c);
  int last = 0;
  FILE *before = c->append ? fopen(c->path, "r") : NULL;
  tern_rc rc = !c->append || before || errno == ENOENT ? TERN_OK : csv_fail(c, "cannot read");
  if (before) {
    rc = read_header(c, before, &last);
    fclose(before);
  }
  if (!rc && !(c->file = fopen(c->path, c->append ? "a" : "w"))) rc = csv_fail(c, "cannot open");
  /* a line that was cut off stays, but nothing is written behind it */
  if (!rc && last && last != '\n' && putc('\n', c->file) == EOF) rc = csv_fail(c, "cannot write to");
  return rc;
}

static tern_rc append_cell(const csv *c, tern__string *line, const char *text) {
  const char special[] = {c->separator, '"', '\n', '\r', 0};
  tern_rc rc = line->size ? tern__string_append(line, &c->separator, 1) : TERN_OK;
  if (!strpbrk(text, special)) return rc ? rc : tern__string_append_text(line, text);
  if (!rc) rc = tern__string_append(line, "\"", 1);
  for (const char *p = text; *p && !rc; p++) rc = tern__string_append(line, *p == '"' ? "\"\"" : p, *p == '"' ? 2 : 1);
  return rc ? rc : tern__string_append(line, "\"", 1);
}

static tern_rc make_header(csv *c, const tern_moment *moment, tern__string *line) {
  tern_rc rc = add_column(c, "epoch");
  for (int i = 0; i < moment->n && !rc; i++) rc = add_column(c, moment->names[i]);
  for (int i = 0; i < c->n_columns && !rc; i++) rc = append_cell(c, line, c->column[i]);
  return rc ? rc : tern__string_append(line, "\n", 1);
}

/* A log that the file's header lacks would be lost. */
static tern_rc check_columns(const csv *c, const tern_moment *moment) {
  for (int i = 0; i <= moment->n; i++) {
    const char *name = i ? moment->names[i - 1] : "epoch";
    int k = 0;
    while (k < c->n_columns && strcmp(c->column[k], name)) k++;
    if (k == c->n_columns)
      return tern__fail(TERN_E_ARG, "csv_log: the header of %s has no \"%s\"; use another file, or the same separator",
                        c->path, name);
  }
  return TERN_OK;
}

static tern_rc append_values(const csv *c, const tern_moment *moment, tern__string *line) {
  tern_rc rc = TERN_OK;
  tern__string row = {0};
  for (int i = 0; i < c->n_columns && !rc; i++) {
    char text[TERN__NUMBER_TEXT];
    bool found = true;
    if (!strcmp(c->column[i], "epoch")) {
      snprintf(text, sizeof text, "%d", moment->epoch);
    } else {
      const double value = tern__log_of(moment, c->column[i], &found);
      if (found) tern__number_text(value, text);
    }
    rc = append_cell(c, &row, found ? text : "NA");
  }
  if (!rc) rc = tern__string_append(line, row.text ? row.text : "", row.size);
  tern__string_free(&row);
  return rc ? rc : tern__string_append(line, "\n", 1);
}

static int csv_epoch_end(void *self, const tern_moment *moment) {
  csv *c = self;
  tern__string line = {0};
  tern_rc rc = c->column ? check_columns(c, moment) : make_header(c, moment, &line);
  if (!rc) rc = append_values(c, moment, &line);
  if (rc == TERN_E_OOM) csv_no_memory(c);
  if (!rc && (!c->file || fwrite(line.text, 1, line.size, c->file) != line.size || fflush(c->file)))
    rc = csv_fail(c, "cannot write to");
  tern__string_free(&line);
  return rc;
}

static int csv_end(void *self, const tern_moment *moment) {
  (void)moment;
  return csv_close(self);
}

static void csv_release(void *self) {
  csv *c = self;
  csv_close(c);
  free(c->path);
  free(c);
}

tern_callback *tern_csv_log(const char *path, const tern_csv_log_opts *opts) {
  static const tern_callback_body body = {
      .begin = csv_begin, .epoch_end = csv_epoch_end, .end = csv_end, .release = csv_release};
  csv c = {.separator = opts && opts->separator ? opts->separator : ',', .append = opts && opts->append};
  if (!path || !*path) {
    tern__fail(TERN_E_ARG, "csv_log: the path is %s", path ? "empty" : "NULL");
    return NULL;
  }
  if (!strchr(",;:|\t ", c.separator)) {
    tern__fail(TERN_E_ARG, "csv_log: the separator is character %d; it may be , ; : | a tab or a space", c.separator);
    return NULL;
  }
  if (!(c.path = tern__strdup(path))) {
    tern__fail(TERN_E_OOM, "csv_log: out of host memory");
    return NULL;
  }
  tern_callback *callback = tern__callback_make("csv_log", &body, &c, sizeof c);
  if (!callback) free(c.path);
  return callback;
}

/* ---- TensorBoard ---- */

typedef struct boards {
  char *folder;
  tern_tensorboard_opts opts;
  tern_board *train, *validation; /* NULL: not open */
  bool graph_written;
} boards;

static tern_rc boards_close(boards *b) {
  const tern_rc rc = tern_board_close(b->train), again = tern_board_close(b->validation);
  b->train = b->validation = NULL;
  return rc ? rc : again;
}

static tern_rc open_board(const boards *b, const char *name, tern_board **board) {
  if (*board) return TERN_OK;
  tern__string path = {0};
  if (tern__string_append_format(&path, "%s/%s", b->folder, name))
    tern__fail(TERN_E_OOM, "tensorboard: out of host memory");
  else
    *board = tern_board_open(path.text);
  tern__string_free(&path);
  return *board ? TERN_OK : tern__recorded();
}

/* "epoch_loss", "batch_loss" */
static tern_rc write_scalar(tern_board *board, const char *kind, const char *name, int64_t step, double value) {
  tern__string tag = {0};
  const tern_rc rc = tern__string_append_format(&tag, "%s_%s", kind, name)
                         ? tern__fail(TERN_E_OOM, "tensorboard: out of host memory")
                         : tern_board_scalar(board, tag.text, step, value);
  tern__string_free(&tag);
  return rc;
}

static tern_rc write_histograms(boards *b, const tern_moment *moment) {
  const int n = tern_model_variables(moment->model, NULL, 0);
  tern_tensor **all = tern__calloc((size_t)n + 1, sizeof *all);
  if (!all) return tern__fail(TERN_E_OOM, "tensorboard: out of host memory");
  tern_model_variables(moment->model, all, n);
  tern_rc rc = TERN_OK;
  for (int i = 0; i < n && !rc; i++) {
    tern__string tag = {0};
    rc = tern__string_append_format(&tag, "%s/histogram", tern_variable_name(all[i]))
             ? tern__fail(TERN_E_OOM, "tensorboard: out of host memory")
             : tern_board_histogram(b->train, tag.text, moment->epoch, all[i]);
    tern__string_free(&tag);
  }
  free(all);
  return rc;
}

/* The training step, once there is one that was compiled. */
static tern_rc write_graph(boards *b, tern_model *m) {
  tern_function *f = !m ? NULL : m->train[0] ? m->train[0] : m->train[1];
  if (b->opts.no_graph || b->graph_written || !f) return TERN_OK;
  b->graph_written = true;
  return tern_board_graph(b->train, f);
}

static int boards_begin(void *self, const tern_moment *moment) {
  (void)moment;
  boards *b = self;
  b->graph_written = false;
  const tern_rc rc = boards_close(b);
  return rc ? rc : open_board(b, "train", &b->train);
}

static int boards_batch_end(void *self, const tern_moment *moment) {
  boards *b = self;
  const int64_t step = tern_optimizer_steps(moment->optimizer);
  tern_rc rc = TERN_OK;
  if (step % b->opts.batches == 0)
    for (int i = 0; i < moment->n && !rc; i++)
      rc = write_scalar(b->train, "batch", moment->names[i], step, moment->values[i]);
  return rc;
}

static int boards_epoch_end(void *self, const tern_moment *moment) {
  boards *b = self;
  tern_rc rc = TERN_OK;
  for (int i = 0; i < moment->n && !rc; i++) {
    const char *name = moment->names[i];
    const bool val = !strncmp(name, "val_", 4);
    if (val) rc = open_board(b, "validation", &b->validation);
    if (!rc)
      rc =
          write_scalar(val ? b->validation : b->train, "epoch", name + (val ? 4 : 0), moment->epoch, moment->values[i]);
  }
  if (!rc && moment->optimizer)
    rc = write_scalar(b->train, "epoch", "learning_rate", moment->epoch,
                      tern_optimizer_learning_rate(moment->optimizer));
  if (!rc && b->opts.histograms && moment->epoch % b->opts.histograms == 0) rc = write_histograms(b, moment);
  if (!rc) rc = write_graph(b, moment->model);
  if (!rc) rc = tern_board_flush(b->train);
  return rc || !b->validation ? rc : tern_board_flush(b->validation);
}

static int boards_end(void *self, const tern_moment *moment) {
  (void)moment;
  return boards_close(self);
}

static void boards_release(void *self) {
  boards *b = self;
  boards_close(b);
  free(b->folder);
  free(b);
}

tern_callback *tern_tensorboard(const char *folder, const tern_tensorboard_opts *opts) {
  boards b = {.opts = opts ? *opts : (tern_tensorboard_opts){0}};
  if (!folder || !*folder || b.opts.histograms < 0 || b.opts.batches < 0) {
    tern__fail(TERN_E_ARG, "tensorboard: folder is %s, histograms %d, batches %d; say which folder, numbers from 0 on",
               folder ? folder : "NULL", b.opts.histograms, b.opts.batches);
    return NULL;
  }
  if (!(b.folder = tern__strdup(folder))) {
    tern__fail(TERN_E_OOM, "tensorboard: out of host memory");
    return NULL;
  }
  tern_callback_body body = {
      .begin = boards_begin, .epoch_end = boards_epoch_end, .end = boards_end, .release = boards_release};
  if (b.opts.batches) body.batch_end = boards_batch_end; /* costs a wait a batch: only where it is asked for */
  tern_callback *callback = tern__callback_make("tensorboard", &body, &b, sizeof b);
  if (!callback) free(b.folder);
  return callback;
}
