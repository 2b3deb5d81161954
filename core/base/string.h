/* A growing byte string for text that the core builds (array text, messages, reports). Zero-initialise it; every
   append either adds its whole text or leaves the string as it was and answers TERN_E_OOM. */
#ifndef TERN_CORE_BASE_STRING_H_
#define TERN_CORE_BASE_STRING_H_
#include <stddef.h>
#include <stdint.h>

#include "tern/backend.h"

typedef struct tern__string {
  char *text;            /* owned, NUL-terminated once anything was appended; NULL while empty and untouched */
  size_t size, capacity; /* bytes of text without the NUL; bytes allocated */
} tern__string;

/* Frees the text and makes the string empty again. */
void tern__string_free(tern__string *string);

/* Makes room for `extra` more bytes and the NUL, so that appends up to that size cannot fail. */
tern_rc tern__string_reserve(tern__string *string, size_t extra);

tern_rc tern__string_append(tern__string *string, const char *text, size_t size);
tern_rc tern__string_append_text(tern__string *string, const char *text); /* NUL-terminated */
tern_rc tern__string_append_fill(tern__string *string, char c, size_t count);
tern_rc tern__string_append_u64(tern__string *string, uint64_t value); /* decimal */
tern_rc tern__string_append_i64(tern__string *string, int64_t value);

/* Appends as printf would. Numbers with a fraction follow the locale: do not use it for those. */
tern_rc tern__string_append_format(tern__string *string, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Cuts the string back to `size` bytes, which must not exceed its size. */
void tern__string_truncate(tern__string *string, size_t size);

#endif
