/* Inside of tern_dataset_csv: records of a file (csv_record.c), numbers of fields (csv_number.c). */
#ifndef TERN_CORE_DATA_CSV_H_
#define TERN_CORE_DATA_CSV_H_
#include "base/string.h"
#include "data/data.h"
#include <locale.h>

#define TERN__CSV "dataset_csv"

typedef struct tern__csv_field {
  size_t at, size; /* in text, a NUL behind it */
  int64_t line;    /* where it begins, from 1 */
  bool quoted;
} tern__csv_field;

/* A file's records, one at a time (RFC 4180; lines end with \n or \r\n; empty lines do not count). */
typedef struct tern__csv_records {
  tern__reader reader;
  char separator;
  int64_t line; /* that is read next, from 1 */
  tern__string text;
  tern__csv_field *field; /* owned */
  int n, capacity;        /* fields of the newest record */
} tern__csv_records;

tern_rc tern__csv_open(tern__csv_records *r, const char *path, char separator);
/* Reads a record into text and field. 1; 0: the end; or an error, behind which the next call goes on. */
int tern__csv_next(tern__csv_records *r);
void tern__csv_close(tern__csv_records *r);

/* Words and their places, sorted. */
typedef struct tern__csv_words {
  char **word; /* owned, one block */
  int *order;  /* owned: places in the order of the words */
  int n;
} tern__csv_words;
tern_rc tern__csv_words_set(const char *const *words, tern__csv_words *out);
void tern__csv_words_free(tern__csv_words *w);
/* The first place of a word, or -1. */
int tern__csv_word(const tern__csv_words *w, const char *text);

/* Stores the number that text (NUL-terminated) spells as one element of dtype at dst. NULL; or why not, for an error:
   static text; "" when it is no number at all. */
const char *tern__csv_number(const char *text, tern_dtype dtype, void *dst, locale_t c);
/* The same for a number. */
const char *tern__csv_store(double value, tern_dtype dtype, void *dst);
#endif
