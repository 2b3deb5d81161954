/* Reading the numbers of the text form (number.c writes them): each is rounded once. Independent of the locale. */
#include "graph/ir/text.h"
#include "tensor/dtype.h"
#include <errno.h>
#include <locale.h>
#include <pthread.h>
#include <stdlib.h>

static struct {
  pthread_once_t once;
  locale_t c; /* lives as long as the process */
} plain = {.once = PTHREAD_ONCE_INIT};

static void make_locale(void) { plain.c = newlocale(LC_ALL_MASK, "C", (locale_t)0); }

static bool whole(const char *text, size_t n) {
  size_t i = n && text[0] == '-';
  if (i == n) return false;
  for (; i < n; i++)
    if (text[i] < '0' || text[i] > '9') return false;
  return true;
}

static bool hex(const char *text, size_t n, int max_digits, uint64_t *bits) {
  if (n < 3 || n > 2 + (size_t)max_digits || text[0] != '0' || text[1] != 'x') return false;
  *bits = 0;
  for (size_t i = 2; i < n; i++) {
    const char c = text[i];
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) return false;
    *bits = *bits << 4 | (uint64_t)digit;
  }
  return true;
}

static bool is(const char *text, size_t n, const char *word) { return strlen(word) == n && !memcmp(text, word, n); }

/* A decimal float, inf, -inf or nan. single: rounded once, to float32. */
static bool decimal(const char *text, size_t n, bool single, double *x) {
  char copy[TERN__TEXT_NUMBER + 24], *end;
  if (!n || n >= sizeof copy) return false;
  const bool word = is(text, n, "inf") || is(text, n, "-inf") || is(text, n, "nan");
  for (size_t i = 0; i < n && !word; i++)
    if (!strchr("0123456789.eE+-", text[i]) || !text[i]) return false;
  memcpy(copy, text, n);
  copy[n] = 0;
  pthread_once(&plain.once, make_locale);
  if (!plain.c) return false;
  *x = single ? (double)strtof_l(copy, &end, plain.c) : strtod_l(copy, &end, plain.c);
  return end == copy + n;
}

static bool integer(const char *text, size_t n, bool is_unsigned, tern_word *w) {
  char copy[24], *end;
  if (!whole(text, n) || n >= sizeof copy) return false;
  memcpy(copy, text, n);
  copy[n] = 0;
  errno = 0;
  if (is_unsigned)
    w->u = strtoull(copy, &end, 10);
  else
    w->i = strtoll(copy, &end, 10);
  return !errno && !(is_unsigned && copy[0] == '-');
}

bool tern__word_of_text(const char *text, size_t n, tern_word *w) {
  if (hex(text, n, 16, &w->u)) return true;
  if (whole(text, n)) return integer(text, n, false, w);
  return decimal(text, n, false, &w->f);
}

bool tern__element_of_text(tern_dtype dtype, const char *text, size_t n, void *p) {
  const size_t item = tern__dtype_size[dtype];
  tern_word w;
  if (tern__is_float(dtype)) {
    if (hex(text, n, (int)item * 2, &w.u)) { /* little-endian: the low bytes come first, on every device of ours */
      memcpy(p, &w.u, item);
      return true;
    }
    if (!decimal(text, n, dtype == TERN_F32, &w.f)) return false;
    tern__store(dtype, p, tern__convert(w, TERN_F64, dtype));
    return true;
  }
  const bool is_unsigned = dtype == TERN_BOOL || tern__is_unsigned(dtype);
  if (!integer(text, n, is_unsigned, &w)) return false;
  const int bits = (int)item * 8;
  const bool fits = dtype == TERN_BOOL ? w.u <= 1
                    : bits == 64       ? true
                    : is_unsigned      ? w.u >> bits == 0
                                       : w.i >= -(INT64_C(1) << (bits - 1)) && w.i < INT64_C(1) << (bits - 1);
  if (fits) tern__store(dtype, p, w);
  return fits;
}

bool tern__scalar_of_text(tern_dtype dtype, const char *text, size_t n, tern_word *w) {
  uint64_t element = 0;
  if (!tern__element_of_text(dtype, text, n, &element)) return false;
  *w = tern__load(dtype, &element);
  return true;
}
