/* Tables in text: each record of a CSV file is a vector of numbers and, where asked for, a label. */
#include "data/csv.h"
#include "base/alloc.h"
#include "tensor/dtype.h"
#include <stdio.h>
#include <stdlib.h>

typedef struct csv {
  tern_dataset base;
  char *path; /* owned, as all here */
  int n;      /* columns that were named; 0: all but the label */
  char **columns, **label /* one */;
  tern_dtype dtype, label_dtype;
  bool header, fill_missing;
  char separator;
  double missing;
  tern__csv_words words;
} csv;

typedef struct csv_iter {
  tern__iter base;
  tern__csv_records records;
  locale_t c;
  char **names; /* of the header; owned, one block; NULL: none */
  int width;    /* fields of each record; 0: not known yet */
  int *column;  /* owned: of component 0 */
  int n;
  int label;     /* -1: none */
  bool hopeless; /* the columns cannot be found */
} csv_iter;

#define CSV TERN__CSV

static const csv *of(const csv_iter *it) { return (const csv *)it->base.dataset; }

/* ---- which columns ---- */

/* The number of the column that a text names; -1 with the error set. */
static int find(const csv_iter *it, const char *text) {
  for (int i = 0; it->names && i < it->width; i++)
    if (!strcmp(it->names[i], text)) return i;
  int64_t number = *text ? 0 : -1;
  for (const char *c = text; *c && number >= 0; c++)
    number = *c >= '0' && *c <= '9' && number < INT32_MAX ? number * 10 + (*c - '0') : -1;
  if (number >= 0 && number < it->width) return (int)number;
  char list[512] = "";
  size_t at = 0;
  for (int i = 0; it->names && i < it->width && at < sizeof list; i++)
    at += (size_t)snprintf(list + at, sizeof list - at, "%s%s", i ? ", " : "", it->names[i]);
  if (it->names)
    tern__fail(TERN_E_ARG, CSV ": %s has no column \"%s\"; it has %s", of(it)->path, text, list);
  else
    tern__fail(TERN_E_ARG, CSV ": %s has no column \"%s\"; without a header columns are numbers from 0 to %d",
               of(it)->path, text, it->width - 1);
  return -1;
}

static tern_rc choose_columns(csv_iter *it) {
  const csv *d = of(it);
  it->label = d->label ? find(it, d->label[0]) : -1;
  if (d->label && it->label < 0) return tern__recorded();
  it->n = d->n ? d->n : it->width - (it->label >= 0);
  if (it->n == 0) return tern__fail(TERN_E_ARG, CSV ": %s has no column besides the label", d->path);
  it->column = tern__calloc((size_t)it->n, sizeof *it->column);
  if (!it->column) return tern__fail(TERN_E_OOM, CSV ": out of host memory for %d columns", it->n);
  for (int i = 0; i < it->n; i++) {
    it->column[i] = d->n ? find(it, d->columns[i]) : i + (it->label >= 0 && i >= it->label);
    if (it->column[i] < 0) return tern__recorded();
  }
  return TERN_OK;
}

static const char *field_text(const csv_iter *it, int i) { return it->records.text.text + it->records.field[i].at; }

static tern_rc read_header(csv_iter *it) {
  tern__csv_records *r = &it->records;
  const int got = tern__csv_next(r);
  if (got < 0) return got;
  if (got == 0) return tern__fail(TERN_E_IO, CSV ": %s is empty; its first line must name the columns", of(it)->path);
  const char **names = tern__calloc((size_t)r->n, sizeof *names);
  if (!names) return tern__fail(TERN_E_OOM, CSV ": out of host memory for %d columns", r->n);
  for (int i = 0; i < r->n; i++) names[i] = field_text(it, i);
  it->names = tern__copy_strings(CSV, names, r->n);
  free(names);
  it->width = r->n;
  return it->names ? choose_columns(it) : tern__recorded();
}

static tern_rc csv_begin(tern__iter *base) {
  csv_iter *it = (csv_iter *)base;
  const csv *d = of(it);
  it->c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
  if (!it->c) return tern__fail(TERN_E_OOM, CSV ": out of host memory for an iterator");
  const tern_rc rc = tern__csv_open(&it->records, d->path, d->separator);
  return rc || !d->header ? rc : read_header(it);
}

static void csv_end(tern__iter *base) {
  csv_iter *it = (csv_iter *)base;
  tern__csv_close(&it->records);
  if (it->c) freelocale(it->c);
  free(it->names);
  free(it->column);
}

/* ---- values ---- */

static tern_rc refuse(const csv_iter *it, int i, const char *why) {
  const tern__csv_field *f = &it->records.field[i];
  return tern__fail(TERN_E_IO, CSV ": %s, line %lld, column %d%s%.100s%s: %s", of(it)->path, (long long)f->line, i,
                    it->names ? " (\"" : "", it->names ? it->names[i] : "", it->names ? "\")" : "", why);
}

/* The field without the spaces and tabs around it; NULL when it holds a zero byte. */
static const char *trimmed(csv_iter *it, const tern__csv_field *f) {
  char *text = it->records.text.text + f->at, *end = text + f->size;
  while (*text == ' ' || *text == '\t') text++;
  while (end > text && (end[-1] == ' ' || end[-1] == '\t')) end--;
  *end = 0;
  return strlen(text) == (size_t)(end - text) ? text : NULL;
}

/* Field i as one element of dtype at dst. */
static tern_rc value(csv_iter *it, int i, tern_dtype dtype, void *dst) {
  const csv *d = of(it);
  const char *text = trimmed(it, &it->records.field[i]), *why;
  char message[256];
  if (!text) return refuse(it, i, "the field holds a zero byte");
  if (!*text && d->fill_missing) {
    why = tern__csv_store(d->missing, dtype, dst);
    if (!why) return TERN_OK;
    snprintf(message, sizeof message, "the value for missing fields %s (%s)", why, tern_dtype_name(dtype));
    return refuse(it, i, message);
  }
  why = tern__csv_number(text, dtype, dst, it->c);
  if (!why) return TERN_OK;
  const int place = *why ? -1 : tern__csv_word(&d->words, text);
  if (place >= 0) why = tern__csv_store(place, dtype, dst);
  if (!why) return TERN_OK;
  if (!*text)
    snprintf(message, sizeof message, "the field is empty; fill_missing gives such fields a value");
  else if (*why)
    snprintf(message, sizeof message, "\"%.60s\" %s (%s)", text, why, tern_dtype_name(dtype));
  else
    snprintf(message, sizeof message, "\"%.60s\" is not a number%s", text,
             d->words.word ? " and none of the words" : "; `words` can give texts numbers");
  return refuse(it, i, message);
}

static tern_rc fill(csv_iter *it, tern__element *out) {
  const csv *d = of(it);
  const int64_t n = it->n;
  tern__device *host = tern__device_host();
  tern_tensor *x = host ? tern__new(host, d->dtype, 1, &n, CSV) : NULL;
  if (!x) return tern__recorded();
  out->t[out->n++] = x;
  char *dst = tern__host_bytes(x);
  const size_t item = tern__dtype_size[d->dtype];
  for (int i = 0; i < it->n; i++) {
    const tern_rc rc = value(it, it->column[i], d->dtype, dst + (size_t)i * item);
    if (rc) return rc;
  }
  if (it->label < 0) return TERN_OK;
  tern_tensor *y = tern__new(host, d->label_dtype, 0, NULL, CSV);
  if (!y) return tern__recorded();
  out->t[out->n++] = y;
  return value(it, it->label, d->label_dtype, tern__host_bytes(y));
}

static int csv_next(tern__iter *base, tern__element *out) {
  csv_iter *it = (csv_iter *)base;
  tern__csv_records *r = &it->records;
  if (it->hopeless) return 0;
  tern_rc rc = tern__csv_next(r);
  if (rc <= 0) return rc;
  const long long line = (long long)r->field[0].line;
  if (it->width == 0) {
    it->width = r->n;
    rc = choose_columns(it);
    it->hopeless = rc < 0;
  } else if (r->n != it->width) {
    rc = tern__fail(TERN_E_IO, CSV ": %s, line %lld: %d fields, but the %s has %d", of(it)->path, line, r->n,
                    it->names ? "header" : "first record", it->width);
  } else {
    rc = TERN_OK;
  }
  if (rc >= 0) rc = fill(it, out);
  if (!rc) return 1;
  tern__element_drop(out);
  return rc;
}

static int64_t csv_size(const tern_dataset *d) {
  (void)d;
  return TERN__UNKNOWN;
}

static void csv_release(tern_dataset *base) {
  csv *d = (csv *)base;
  free(d->path);
  free(d->columns);
  free(d->label);
  tern__csv_words_free(&d->words);
}

static const tern__dataset_type csv_type = {.name = CSV,
                                            .state_bytes = sizeof(csv_iter),
                                            .begin = csv_begin,
                                            .next = csv_next,
                                            .end = csv_end,
                                            .size = csv_size,
                                            .release = csv_release};

static tern_rc check(const char *path, const tern_csv_opts *o) {
  if (!path) return tern__fail(TERN_E_ARG, CSV ": the path is NULL");
  if (o->n_columns < 0 || (o->n_columns && !o->columns) || (o->columns && !o->n_columns))
    return tern__fail(TERN_E_ARG, CSV ": %d columns%s; leave both out for all columns", o->n_columns,
                      o->columns ? "" : " at NULL");
  if (o->dtype < 0 || o->dtype >= TERN_DTYPE_END || o->label_dtype < 0 || o->label_dtype >= TERN_DTYPE_END)
    return tern__fail(TERN_E_ARG, CSV ": %d or %d is not a dtype", (int)o->dtype, (int)o->label_dtype);
  if (o->separator == '"' || o->separator == '\n' || o->separator == '\r')
    return tern__fail(TERN_E_ARG, CSV ": fields cannot be separated by quotes or line ends");
  return TERN_OK;
}

static tern_rc copy_options(csv *d, const char *path, const tern_csv_opts *o) {
  if (!(d->path = tern__strdup(path))) return tern__fail(TERN_E_OOM, CSV ": out of host memory");
  if (o->n_columns && !(d->columns = tern__copy_strings(CSV, o->columns, o->n_columns))) return tern__recorded();
  if (o->label && !(d->label = tern__copy_strings(CSV, &o->label, 1))) return tern__recorded();
  d->n = o->n_columns;
  d->dtype = o->dtype ? o->dtype : TERN_F32;
  d->label_dtype = o->label_dtype ? o->label_dtype : TERN_I64;
  d->header = !o->no_header;
  d->fill_missing = o->fill_missing;
  d->separator = o->separator ? o->separator : ',';
  d->missing = o->missing;
  return tern__csv_words_set(o->words, &d->words);
}

tern_dataset *tern_dataset_csv(const char *path, const tern_csv_opts *opts) {
  const tern_csv_opts none = {0}, *o = opts ? opts : &none;
  if (check(path, o)) return NULL;
  csv *d = tern__dataset_new(&csv_type, sizeof *d, NULL);
  if (!d || !copy_options(d, path, o)) return d ? &d->base : NULL;
  tern_dataset_release(&d->base);
  return NULL;
}
