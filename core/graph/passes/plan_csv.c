/* Buffers as CSV (docs/formats.md, "Memory plans"): one pass over the text, every field checked, ids in a hash
   table. */
#include "graph/passes/plan.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

enum column { ID, LOWER, UPPER, SIZE, OFFSET, COLUMNS };
static const char *const names[COLUMNS] = {"id", "lower", "upper", "size", "offset"};

typedef struct field {
  const char *text;
  size_t size;
} field;

typedef struct reader {
  const char *at, *end; /* what is left of the text */
  size_t line;
  char *message;
  size_t message_size;
  enum column order[COLUMNS]; /* of the file */
  int columns;
  tern__plan_rows rows;
  size_t room, table_size; /* a power of two, above twice the rows; 0 at first */
  uint32_t *table;         /* row + 1 by hash of its id; 0: free */
  uint64_t total;          /* of all sizes */
} reader;

static tern_rc __attribute__((format(printf, 2, 3))) malformed(const reader *r, const char *format, ...) {
  if (!r->message_size) return TERN_E_IO;
  const int used = snprintf(r->message, r->message_size, "line %zu: ", r->line);
  if (used > 0 && (size_t)used < r->message_size) {
    va_list args;
    va_start(args, format);
    vsnprintf(r->message + used, r->message_size - (size_t)used, format, args);
    va_end(args);
  }
  return TERN_E_IO;
}

static tern_rc no_memory(const reader *r) {
  if (r->message_size) snprintf(r->message, r->message_size, "line %zu: no memory for more rows", r->line);
  return TERN_E_OOM;
}

/* At most 40 characters of a field, for messages. */
static int shown(field f) { return f.size > 40 ? 40 : (int)f.size; }

/* The next line's fields; their number, COLUMNS + 1 for more than that; -1 at the end. Empty lines are skipped. */
static int next_line(reader *r, field *fields) {
  while (r->at < r->end) {
    const char *stop = memchr(r->at, '\n', (size_t)(r->end - r->at));
    const char *next = stop ? stop + 1 : r->end, *end = stop ? stop : r->end, *from = r->at;
    r->at = next;
    r->line++;
    if (end > from && end[-1] == '\r') end--;
    if (from == end) continue;
    for (int n = 1;; n++) {
      const char *comma = memchr(from, ',', (size_t)(end - from));
      if (n > COLUMNS) return n;
      fields[n - 1] = (field){from, (size_t)((comma ? comma : end) - from)};
      if (!comma) return n;
      from = comma + 1;
    }
  }
  return -1;
}

static tern_rc read_header(reader *r) {
  field f[COLUMNS];
  unsigned seen = 0;
  r->columns = next_line(r, f);
  if (r->columns < 0) {
    r->line++;
    return malformed(r, "the file is empty; the first line must name the columns id,lower,upper,size");
  }
  for (int i = 0; i < r->columns && r->columns <= COLUMNS; i++) {
    int c = 0;
    while (c < COLUMNS && (strlen(names[c]) != f[i].size || memcmp(names[c], f[i].text, f[i].size) != 0)) c++;
    if (c == COLUMNS)
      return malformed(r, "there is no column \"%.*s\"; the first line must name id,lower,upper,size", shown(f[i]),
                       f[i].text);
    if (seen >> c & 1) return malformed(r, "the column %s is there twice", names[c]);
    seen |= 1u << c;
    r->order[i] = (enum column)c;
  }
  if (r->columns > COLUMNS || (seen & 15) != 15)
    return malformed(r, "the first line must name the columns id,lower,upper,size (and offset, which is not read)");
  return TERN_OK;
}

/* Decimal digits alone, at most 2^63 - 1. */
static tern_rc read_number(const reader *r, enum column c, field f, uint64_t *out) {
  uint64_t x = 0;
  if (!f.size) return malformed(r, "%s is empty; expected a number", names[c]);
  if (*f.text == '-' && f.size > 1) return malformed(r, "%s is negative (%.*s)", names[c], shown(f), f.text);
  for (size_t i = 0; i < f.size; i++) {
    const unsigned digit = (unsigned char)f.text[i] - (unsigned)'0';
    if (digit > 9) return malformed(r, "%s is \"%.*s\"; expected a whole number", names[c], shown(f), f.text);
    if (x > ((uint64_t)INT64_MAX - digit) / 10)
      return malformed(r, "%s is %.*s, above 2^63 - 1", names[c], shown(f), f.text);
    x = x * 10 + digit;
  }
  *out = x;
  return TERN_OK;
}

static size_t hash(const char *text) { /* FNV-1a */
  uint64_t h = 0xcbf29ce484222325u;
  for (; *text; text++) h = (h ^ (unsigned char)*text) * 0x100000001b3u;
  return (size_t)(h ^ (h >> 32));
}

/* The table's place of the id: free, or of the row that has it. */
static uint32_t *find_id(const reader *r, const char *id) {
  size_t at = hash(id) & (r->table_size - 1);
  while (r->table[at] && strcmp(r->rows.ids[r->table[at] - 1], id) != 0) at = (at + 1) & (r->table_size - 1);
  return &r->table[at];
}

static tern_rc grow(reader *r) {
  if (r->rows.count < r->room) return TERN_OK;
  const size_t room = r->room * 2 + 64;
  size_t size = 256;
  while (size < room * 2) size *= 2;
  if (room >= UINT32_MAX) return no_memory(r);
  tern__buffer *buffers = tern__realloc(r->rows.buffers, room * sizeof *buffers);
  if (buffers) r->rows.buffers = buffers;
  char **ids = tern__realloc(r->rows.ids, room * sizeof *ids);
  if (ids) r->rows.ids = ids;
  uint32_t *table = tern__calloc(size, sizeof *table);
  if (!buffers || !ids || !table) {
    free(table);
    return no_memory(r);
  }
  free(r->table);
  r->table = table;
  r->table_size = size;
  r->room = room;
  for (size_t i = 0; i < r->rows.count; i++) *find_id(r, ids[i]) = (uint32_t)i + 1;
  return TERN_OK;
}

static tern_rc keep_id(reader *r, field f) {
  if (!f.size) return malformed(r, "id is empty");
  for (size_t i = 0; i < f.size; i++)
    if ((unsigned char)f.text[i] < 32 || f.text[i] == '"') return malformed(r, "id has a quote or a control character");
  char *id = tern__calloc(f.size + 1, 1);
  if (!id) return no_memory(r);
  memcpy(id, f.text, f.size);
  uint32_t *place = find_id(r, id);
  if (*place) {
    free(id);
    return malformed(r, "id %.*s is in row %u already", shown(f), f.text, *place);
  }
  r->rows.ids[r->rows.count] = id;
  *place = (uint32_t)++r->rows.count;
  return TERN_OK;
}

static tern_rc read_row(reader *r, const field *f, int n) {
  uint64_t value[COLUMNS] = {0};
  field id = {"", 0};
  if (n != r->columns)
    return malformed(r, "%s%d columns; expected %d", n > COLUMNS ? "more than " : "", n > COLUMNS ? COLUMNS : n,
                     r->columns);
  for (int i = 0; i < n; i++) {
    if (r->order[i] == ID) id = f[i];
    if (r->order[i] == ID || r->order[i] == OFFSET) continue;
    const tern_rc rc = read_number(r, r->order[i], f[i], &value[r->order[i]]);
    if (rc) return rc;
  }
  if (value[LOWER] >= value[UPPER])
    return malformed(r, "lower is %llu and upper %llu; upper must be greater", (unsigned long long)value[LOWER],
                     (unsigned long long)value[UPPER]);
  r->total += value[SIZE];
  if (r->total > INT64_MAX) return malformed(r, "the sizes up to here add up to more than 2^63 - 1");
  tern_rc rc = grow(r);
  if (rc) return rc;
  r->rows.buffers[r->rows.count] =
      (tern__buffer){.lower = (int64_t)value[LOWER], .upper = (int64_t)value[UPPER], .size = value[SIZE], .align = 1};
  return keep_id(r, id);
}

tern_rc tern__plan_read(const char *text, size_t size, tern__plan_rows *rows, char *message, size_t message_size) {
  reader r = {.at = text, .end = text + size, .message = message, .message_size = message_size};
  field f[COLUMNS];
  if (message_size) *message = 0;
  *rows = (tern__plan_rows){0};
  tern_rc rc = read_header(&r);
  for (int n; !rc && (n = next_line(&r, f)) >= 0;) rc = read_row(&r, f, n);
  free(r.table);
  if (rc)
    tern__plan_rows_free(&r.rows);
  else
    *rows = r.rows;
  return rc;
}

tern_rc tern__plan_write(const tern__plan_rows *rows, tern__string *out) {
  tern_rc rc = tern__string_append_text(out, "id,lower,upper,size,offset\n");
  for (size_t i = 0; i < rows->count && !rc; i++) {
    const tern__buffer *b = &rows->buffers[i];
    rc = tern__string_append_text(out, rows->ids[i]);
    if (!rc)
      rc = tern__string_append_format(out, ",%lld,%lld,%llu,%llu\n", (long long)b->lower, (long long)b->upper,
                                      (unsigned long long)b->size, (unsigned long long)b->offset);
  }
  return rc;
}

void tern__plan_rows_free(tern__plan_rows *rows) {
  for (size_t i = 0; i < rows->count; i++) free(rows->ids[i]);
  free(rows->ids);
  free(rows->buffers);
  *rows = (tern__plan_rows){0};
}
