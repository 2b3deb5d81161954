/* Records of CSV files by RFC 4180: fields in quotes may hold separators, line ends, and quotes written twice. */
#include "base/alloc.h"
#include "data/csv.h"
#include <stdlib.h>

tern_rc tern__csv_open(tern__csv_records *r, const char *path, char separator) {
  *r = (tern__csv_records){.separator = separator, .line = 1};
  tern_rc rc = tern__reader_open(&r->reader, TERN__CSV, path);
  if (!rc) rc = tern__reader_fill(&r->reader);
  if (rc) return rc;
  const tern__reader *in = &r->reader;
  if (in->filled >= 3 && !memcmp(in->buffer, "\xef\xbb\xbf", 3)) r->reader.at = 3; /* UTF-8's byte order mark */
  return TERN_OK;
}

void tern__csv_close(tern__csv_records *r) {
  tern__reader_close(&r->reader);
  tern__string_free(&r->text);
  free(r->field);
  *r = (tern__csv_records){0};
}

static bool add(tern__csv_records *r, int c) {
  if (r->text.size + 1 >= r->text.capacity && tern__string_reserve(&r->text, r->text.size + 64)) return false;
  r->text.text[r->text.size++] = (char)c;
  return true;
}

static tern__csv_field *field_begin(tern__csv_records *r) {
  if (r->n == r->capacity) {
    const int capacity = r->capacity ? r->capacity * 2 : 16;
    tern__csv_field *field = tern__realloc(r->field, (size_t)capacity * sizeof *field);
    if (!field) return NULL;
    r->field = field;
    r->capacity = capacity;
  }
  tern__csv_field *f = &r->field[r->n++];
  *f = (tern__csv_field){.at = r->text.size, .line = r->line};
  return f;
}

/* The rest of the line, after an error that was recorded. Returns -2. */
static int skip_line(tern__csv_records *r) {
  int c;
  while ((c = tern__reader_byte(&r->reader)) >= 0 && c != '\n') continue;
  r->line += c == '\n';
  return -2;
}

static int no_memory(tern__csv_records *r) {
  tern__fail(TERN_E_OOM, TERN__CSV ": out of host memory for line %lld of %s", (long long)r->line, r->reader.path);
  return skip_line(r);
}

/* What a quoted field holds, its closing quote included. Returns the byte behind that: see tern__reader_byte. */
static int read_quoted(tern__csv_records *r, tern__csv_field *f) {
  f->quoted = true;
  for (;;) {
    int c = tern__reader_byte(&r->reader);
    if (c == -1) {
      tern__fail(TERN_E_IO, TERN__CSV ": %s, line %lld, column %d: the file ends inside of this quoted field",
                 r->reader.path, (long long)f->line, r->n - 1);
      return -2;
    }
    if (c == '"' && (c = tern__reader_byte(&r->reader)) != '"') return c;
    if (c < 0) return c;
    r->line += c == '\n';
    if (!add(r, c)) return no_memory(r);
  }
}

/* What a plain field holds. Returns as read_quoted; c: its first byte. */
static int read_plain(tern__csv_records *r, const tern__csv_field *f, int c) {
  for (; c >= 0 && c != '\n' && c != (unsigned char)r->separator; c = tern__reader_byte(&r->reader))
    if (!add(r, c)) return no_memory(r);
  if (c == '\n' && r->text.size > f->at && r->text.text[r->text.size - 1] == '\r') r->text.size--;
  return c;
}

/* Reads one field and what ends it: the separator, '\n', or -1 for the end of the file. -2: a recorded error. */
static int read_field(tern__csv_records *r) {
  tern__csv_field *f = field_begin(r);
  if (!f) return no_memory(r);
  int c = tern__reader_byte(&r->reader);
  if (c == '"') {
    c = read_quoted(r, f);
    if (c == '\r') {
      c = tern__reader_byte(&r->reader);
      if (c >= 0 && c != '\n') c = 0;
    }
    if (c >= 0 && c != '\n' && c != (unsigned char)r->separator) {
      tern__fail(TERN_E_IO,
                 TERN__CSV ": %s, line %lld, column %d: text behind the closing quote; a quote inside of a quoted "
                           "field is written twice",
                 r->reader.path, (long long)r->line, r->n - 1);
      return skip_line(r);
    }
  } else {
    c = read_plain(r, f, c);
  }
  if (c == -2) return c;
  f->size = r->text.size - f->at;
  return add(r, 0) ? c : no_memory(r);
}

int tern__csv_next(tern__csv_records *r) {
  for (;;) {
    r->n = 0;
    tern__string_truncate(&r->text, 0);
    int c;
    do c = read_field(r);
    while (c == (unsigned char)r->separator);
    if (c == -2) return tern__recorded();
    const bool empty = r->n == 1 && r->field[0].size == 0 && !r->field[0].quoted;
    r->line += c == '\n';
    if (!empty) return 1;
    if (c == -1) return 0;
  }
}
