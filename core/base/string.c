/* The growing string: one allocation, grown by half as much again, so that n appends cost O(total). */
#include "base/alloc.h"
#include "base/string.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void tern__string_free(tern__string *string) {
  free(string->text);
  *string = (tern__string){0};
}

tern_rc tern__string_reserve(tern__string *string, size_t extra) {
  if (extra >= SIZE_MAX - string->size) {
    return TERN_E_OOM;
  }
  const size_t needed = string->size + extra + 1;
  if (needed <= string->capacity) {
    return TERN_OK;
  }
  size_t capacity = string->capacity + string->capacity / 2;
  if (capacity < needed) {
    capacity = needed < 64 ? 64 : needed;
  }
  char *const text = tern__realloc(string->text, capacity);
  if (!text) {
    return TERN_E_OOM;
  }
  if (!string->text) {
    text[0] = '\0';
  }
  string->text = text;
  string->capacity = capacity;
  return TERN_OK;
}

tern_rc tern__string_append(tern__string *string, const char *text, size_t size) {
  const tern_rc rc = tern__string_reserve(string, size);
  if (rc != TERN_OK) {
    return rc;
  }
  if (size > 0) {
    memcpy(string->text + string->size, text, size);
  }
  string->size += size;
  string->text[string->size] = '\0';
  return TERN_OK;
}

tern_rc tern__string_append_text(tern__string *string, const char *text) {
  return tern__string_append(string, text, strlen(text));
}

tern_rc tern__string_append_fill(tern__string *string, char c, size_t count) {
  const tern_rc rc = tern__string_reserve(string, count);
  if (rc != TERN_OK) {
    return rc;
  }
  memset(string->text + string->size, c, count);
  string->size += count;
  string->text[string->size] = '\0';
  return TERN_OK;
}

static tern_rc append_decimal(tern__string *string, uint64_t magnitude, int negative) {
  char digits[21];
  size_t at = sizeof digits;
  do {
    digits[--at] = (char)('0' + magnitude % 10);
    magnitude /= 10;
  } while (magnitude != 0);
  if (negative) {
    digits[--at] = '-';
  }
  return tern__string_append(string, digits + at, sizeof digits - at);
}

tern_rc tern__string_append_u64(tern__string *string, uint64_t value) { return append_decimal(string, value, 0); }

tern_rc tern__string_append_i64(tern__string *string, int64_t value) {
  return append_decimal(string, value < 0 ? 0 - (uint64_t)value : (uint64_t)value, value < 0);
}

tern_rc tern__string_append_format(tern__string *string, const char *format, ...) {
  va_list args, again;
  va_start(args, format);
  va_copy(again, args);
  const int size = vsnprintf(NULL, 0, format, args);
  va_end(args);
  tern_rc rc = size < 0 ? TERN_E_ARG : tern__string_reserve(string, (size_t)size);
  if (rc == TERN_OK) {
    (void)vsnprintf(string->text + string->size, (size_t)size + 1, format, again);
    string->size += (size_t)size;
  }
  va_end(again);
  return rc;
}

void tern__string_truncate(tern__string *string, size_t size) {
  if (string->text && size <= string->size) {
    string->size = size;
    string->text[size] = '\0';
  }
}
