/* Numbers and words of CSV fields as elements of a dtype, whatever the program's locale. */
#include "base/alloc.h"
#include "data/csv.h"
#include "tensor/dtype.h"
#include <math.h>
#include <stdlib.h>

/* ---- words ---- */

static int by_word(const void *a, const void *b, void *self) {
  char **word = self;
  const int i = *(const int *)a, j = *(const int *)b, order = strcmp(word[i], word[j]);
  return order ? order : (i > j) - (i < j);
}

tern_rc tern__csv_words_set(const char *const *words, tern__csv_words *out) {
  *out = (tern__csv_words){0};
  if (!words) return TERN_OK;
  int n = 0;
  while (words[n]) n++;
  out->word = tern__copy_strings(TERN__CSV, words, n);
  out->order = tern__calloc((size_t)n + 1, sizeof *out->order);
  if (!out->word) return tern__recorded();
  if (!out->order) return tern__fail(TERN_E_OOM, TERN__CSV ": out of host memory");
  out->n = n;
  for (int i = 0; i < n; i++) out->order[i] = i;
  qsort_r(out->order, (size_t)n, sizeof *out->order, by_word, out->word);
  return TERN_OK;
}

void tern__csv_words_free(tern__csv_words *w) {
  free(w->word);
  free(w->order);
  *w = (tern__csv_words){0};
}

int tern__csv_word(const tern__csv_words *w, const char *text) {
  int low = 0, high = w->n;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (strcmp(w->word[w->order[middle]], text) < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return low < w->n && !strcmp(w->word[w->order[low]], text) ? w->order[low] : -1;
}

/* ---- numbers ---- */

/* Digits and at most one point; false for all else that may be a number too. value = mantissa / 10^places. */
typedef struct decimal {
  bool negative;
  uint64_t mantissa;
  int places;
} decimal;

static bool plain(const char *text, decimal *out) {
  *out = (decimal){.negative = *text == '-'};
  if (*text == '-' || *text == '+') text++;
  int digits = 0;
  bool point = false;
  for (; *text; text++) {
    if (*text == '.' && !point) {
      point = true;
      continue;
    }
    if (*text < '0' || *text > '9') return false;
    if (__builtin_mul_overflow(out->mantissa, 10, &out->mantissa) ||
        __builtin_add_overflow(out->mantissa, (uint64_t)(*text - '0'), &out->mantissa))
      return false;
    out->places += point;
    digits++;
  }
  return digits > 0;
}

static const char *whole(tern_dtype dtype, bool negative, uint64_t size, void *dst) {
  const int bits = 8 * (int)tern__dtype_size[dtype];
  const bool is_signed = !tern__is_unsigned(dtype);
  const uint64_t most = UINT64_MAX >> (64 - bits + is_signed);
  if (size > most + (negative && is_signed) || (negative && !is_signed && size)) return "is out of the dtype's range";
  tern__store(dtype, dst, (tern_word){.u = negative ? -size : size});
  return NULL;
}

const char *tern__csv_store(double value, tern_dtype dtype, void *dst) {
  if (tern__is_float(dtype)) {
    tern__store(dtype, dst, tern__convert((tern_word){.f = value}, TERN_F64, dtype));
    return NULL;
  }
  if (dtype == TERN_BOOL) {
    tern__store(dtype, dst, (tern_word){.u = value != 0});
    return NULL;
  }
  if (isnan(value)) return "is not an integer";
  if (!(fabs(value) < 0x1p64)) return "is out of the dtype's range";
  if (value != trunc(value)) return "is not an integer";
  return whole(dtype, value < 0, (uint64_t)fabs(value), dst);
}

/* Clinger, "How to read floating point numbers accurately", 1990: where the mantissa and the power of ten are exact, so
   is one division. */
static bool exact(const decimal *d, tern_dtype dtype, void *dst) {
  static const double power[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
  double value;
  if (dtype == TERN_F32 && d->mantissa <= 1 << 24 && d->places <= 10)
    value = (double)((float)d->mantissa / (float)power[d->places]);
  else if (dtype == TERN_F64 && d->mantissa <= UINT64_C(1) << 53 && d->places <= 22)
    value = (double)d->mantissa / power[d->places];
  else
    return false;
  tern__store(dtype, dst, (tern_word){.f = d->negative ? -value : value});
  return true;
}

const char *tern__csv_number(const char *text, tern_dtype dtype, void *dst, locale_t c) {
  decimal d;
  const bool is_plain = plain(text, &d);
  if (is_plain && exact(&d, dtype, dst)) return NULL;
  if (is_plain && d.places == 0 && tern__is_int(dtype)) return whole(dtype, d.negative, d.mantissa, dst);
  if (!*text || *text == ' ' || *text == '\t') return "";
  char *end;
  if (dtype == TERN_F32) { /* rounded once */
    const float value = strtof_l(text, &end, c);
    if (*end || end == text) return "";
    tern__store(dtype, dst, (tern_word){.f = (double)value});
    return NULL;
  }
  const double value = strtod_l(text, &end, c);
  return *end || end == text ? "" : tern__csv_store(value, dtype, dst);
}
