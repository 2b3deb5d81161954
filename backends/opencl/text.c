/* Text that grows; the hash of texts. */
#include "ocl.h"

#define XXH_INLINE_ALL
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

/* Room for n more characters and the 0 after them. */
static bool room_for(ocl_text *t, size_t n) {
  if (t->failed) return false;
  if (t->s && n < t->cap - t->n) return true;
  const size_t cap = (t->cap + n) * 2 + 1024;
  char *s = cap < n ? NULL : realloc(t->s, cap);
  if (!s) {
    t->failed = true;
    return false;
  }
  if (!t->s) s[0] = 0;
  t->s = s;
  t->cap = cap;
  return true;
}

void ocl_add(ocl_text *t, const char *fmt, ...) {
  va_list ap, again;
  va_start(ap, fmt);
  va_copy(again, ap);
  const size_t room = t->s ? t->cap - t->n : 0;
  const int n = t->failed ? -1 : vsnprintf(t->s ? t->s + t->n : NULL, room, fmt, ap);
  if (n < 0)
    t->failed = true;
  else if ((size_t)n >= room && room_for(t, (size_t)n))
    vsnprintf(t->s + t->n, t->cap - t->n, fmt, again);
  if (!t->failed) t->n += (size_t)n;
  va_end(again);
  va_end(ap);
}

void ocl_add_bytes(ocl_text *t, const char *bytes, size_t n) {
  if (!room_for(t, n)) return;
  memcpy(t->s + t->n, bytes, n);
  t->n += n;
  t->s[t->n] = 0;
}

void ocl_hash_texts(const void *head, size_t size, const char *const *texts, size_t n, uint64_t key[2]) {
  XXH3_state_t state;
  XXH3_128bits_reset(&state);
  XXH3_128bits_update(&state, head, size);
  for (size_t i = 0; i < n; i++) XXH3_128bits_update(&state, texts[i], strlen(texts[i]) + 1);
  const XXH128_hash_t h = XXH3_128bits_digest(&state);
  key[0] = h.low64;
  key[1] = h.high64;
}
