/* Writing the numbers of the text form. Floats are the shortest decimals that read back to the same bits; each is read
   back before it is used, and where that fails (NaNs with a payload) the bits are written. Independent of the
   locale. */
#include "graph/ir/text.h"
#include "tensor/format_float.h"
#include <inttypes.h>
#include <stdio.h>

/* 0.001, 12.0, 1.5e-30: digits with a point or an exponent. */
static void digits_text(const tern__float *x, const tern__digits *d, char *text) {
  char *at = text;
  if (x->negative) *at++ = '-';
  if (d->exponent < -4 || d->exponent > 15) {
    *at++ = d->digit[0];
    if (d->count > 1) *at++ = '.';
    for (int i = 1; i < d->count; i++) *at++ = d->digit[i];
    sprintf(at, "e%d", d->exponent);
    return;
  }
  if (d->exponent < 0) *at++ = '0';
  for (int place = 0; place <= d->exponent; place++) *at++ = place < d->count ? d->digit[place] : '0';
  *at++ = '.';
  for (int zero = -1; zero > d->exponent; zero--) *at++ = '0';
  const int behind = d->exponent < 0 ? 0 : d->exponent + 1;
  for (int i = behind; i < d->count; i++) *at++ = d->digit[i];
  if (behind >= d->count) *at++ = '0';
  *at = 0;
}

static void float_text(tern_dtype dtype, const void *p, char *text) {
  const size_t item = tern__dtype_size[dtype];
  const tern__float x = tern__float_read(dtype, p);
  if (x.nan) {
    strcpy(text, "nan");
  } else if (x.inf) {
    strcpy(text, x.negative ? "-inf" : "inf");
  } else {
    tern__digits d;
    tern__float_digits(&x, true, -1, -1, &d);
    digits_text(&x, &d, text);
  }
  uint64_t again = 0, bits = 0;
  memcpy(&bits, p, item);
  if (tern__element_of_text(dtype, text, strlen(text), &again) && again == bits) return;
  sprintf(text, "0x%0*" PRIx64, (int)item * 2, bits);
}

static bool is_float(tern_dtype d) { return TERN_D_FLOAT >> d & 1; }

void tern__element_text(tern_dtype dtype, const void *p, char *text) {
  if (is_float(dtype)) {
    float_text(dtype, p, text);
    return;
  }
  const int unused = 64 - 8 * (int)tern__dtype_size[dtype];
  tern_word w = {.u = 0};
  memcpy(&w.u, p, tern__dtype_size[dtype]);
  if (TERN_D_SINT >> dtype & 1)
    sprintf(text, "%" PRId64, (int64_t)(w.u << unused) >> unused);
  else
    sprintf(text, "%" PRIu64, w.u);
}

void tern__scalar_text(tern_dtype dtype, tern_word w, char *text) {
  if (dtype == TERN_F64 || dtype == TERN_I64 || dtype == TERN_U64) /* a word is such an element */
    tern__element_text(dtype, &w, text);
  else
    tern__word_text(w, text);
}

/* Words are not typed. Infinities and floats of a usual size are written as floats (whole numbers of at most 53 bits
   never look like these, but for one that is the negative infinity), what is left as a number, or as bits when
   large. */
void tern__word_text(tern_word w, char *text) {
  const int64_t limit = INT64_C(1) << 53;
  const int exponent = (int)(w.u >> 52 & 2047) - 1023;
  const bool infinite = w.u << 1 == UINT64_C(0xffe0000000000000);
  if (infinite || (exponent >= -200 && exponent <= 200))
    float_text(TERN_F64, &w.f, text);
  else if (w.i >= -limit && w.i < INT64_C(1) << 60)
    sprintf(text, "%" PRId64, w.i);
  else
    sprintf(text, "0x%016" PRIx64, w.u);
}
