/* Text of single floats and the column layout that an array of them shares: the rules of numpy's FloatingFormat and of
   its scalars' str(). Digits come from format_digits.c; nothing here asks the C library, so no locale matters. */
#include "tensor/format_float.h"

#include <math.h>
#include <string.h>

/* The formats: value = (-1)^s * 1.m * 2^(e - bias). limits: numpy switches to exponents at 10^min(8, digits that the
   type always keeps), which are 2, 3, 6 and 15; 0.0001 and the rounding of a quotient above 1000 are the type's own. */
typedef struct float_traits {
  int bytes, mantissa_bits, exponent_bits;
  tern__float_limits limits;
} float_traits;

static const float_traits *traits_of(tern_dtype dtype) {
  static const float_traits f16 = {2, 10, 5, {1e3, 0x1.a38p-14, 1000.25, 1e3}};
  static const float_traits bf16 = {2, 7, 8, {1e2, 0x1.a4p-14, 1002.0, 1e2}};
  static const float_traits f32 = {4, 23, 8, {1e6, 0x1.a36e2ep-14, 1000.0 + 0x1p-15, 1e6}};
  static const float_traits f64 = {8, 52, 11, {1e8, 0.0001, 1000.0, 1e16}};
  switch (dtype) {
  case TERN_F16: return &f16;
  case TERN_BF16: return &bf16;
  case TERN_F32: return &f32;
  case TERN_F64: return &f64;
  default: return NULL;
  }
}

bool tern__is_float(tern_dtype dtype) { return traits_of(dtype) != NULL; }

static uint64_t read_bits(const void *p, int bytes) {
  uint16_t h;
  uint32_t w;
  uint64_t d;
  switch (bytes) {
  case 2: return memcpy(&h, p, sizeof h), h;
  case 4: return memcpy(&w, p, sizeof w), w;
  default: return memcpy(&d, p, sizeof d), d;
  }
}

tern__float tern__float_read(tern_dtype dtype, const void *p) {
  const float_traits *const t = traits_of(dtype);
  const uint64_t bits = read_bits(p, t->bytes);
  const uint64_t top = (UINT64_C(1) << t->exponent_bits) - 1, unit = UINT64_C(1) << t->mantissa_bits;
  const uint64_t field = bits >> t->mantissa_bits & top, fraction = bits & (unit - 1);
  const int least = 2 - (1 << (t->exponent_bits - 1)) - t->mantissa_bits; /* exponent of the subnormals' last bit */
  tern__float x = {.negative = (bits >> (t->mantissa_bits + t->exponent_bits) & 1) != 0};
  if (field == top) {
    x.nan = fraction != 0;
    x.inf = fraction == 0;
    return x;
  }
  x.mantissa = field == 0 ? fraction : fraction + unit;
  x.exponent = field == 0 ? least : least + (int)field - 1;
  x.uneven = field > 1 && fraction == 0;
  return x;
}

double tern__float_value(const tern__float *x) {
  const double magnitude = x->nan ? (double)NAN : x->inf ? (double)INFINITY : ldexp((double)x->mantissa, x->exponent);
  return x->negative ? -magnitude : magnitude;
}

/* ---- single numbers ---- */

static int put_fill(char *text, int at, char c, int count) {
  for (int i = 0; i < count; i++) {
    text[at++] = c;
  }
  return at;
}

static int put_name(const tern__float *x, char *text) {
  const char *const name = x->nan ? "nan" : x->negative ? "-inf" : "inf";
  const size_t size = strlen(name);
  memcpy(text, name, size);
  return (int)size;
}

static int whole_digits(const tern__digits *d) { return d->exponent >= 0 ? d->exponent + 1 : 1; }

/* Digits behind the point in positional notation, without trailing zeros. */
static int fraction_digits(const tern__digits *d) {
  int count = d->count;
  while (count > 0 && d->digit[count - 1] == '0') {
    count--;
  }
  const int fraction = count - 1 - d->exponent;
  return count > 0 && fraction > 0 ? fraction : 0;
}

/* Digit of 10^place. */
static char digit_at(const tern__digits *d, int place) {
  const int i = d->exponent - place;
  return i >= 0 && i < d->count ? d->digit[i] : '0';
}

/* "-12.5": no padding, no zero after a bare point. */
static int put_positional(const tern__digits *d, bool negative, char *text) {
  int at = 0;
  if (negative) {
    text[at++] = '-';
  }
  for (int place = whole_digits(d) - 1; place >= 0; place--) {
    text[at++] = digit_at(d, place);
  }
  text[at++] = '.';
  const int fraction = fraction_digits(d);
  for (int place = -1; place >= -fraction; place--) {
    text[at++] = digit_at(d, place);
  }
  return at;
}

static int exponent_length(int exponent) { return exponent >= 100 || exponent <= -100 ? 3 : 2; }

/* "-1.25e-05" with exactly `fraction` digits behind the point, and the point only when `point`. */
static int put_exponential(const tern__digits *d, bool negative, int fraction, bool point, int exponent_digits,
                           char *text) {
  int at = 0;
  if (negative) {
    text[at++] = '-';
  }
  text[at++] = d->digit[0];
  if (point) {
    text[at++] = '.';
  }
  for (int i = 1; i <= fraction; i++) {
    text[at++] = digit_at(d, d->exponent - i);
  }
  text[at++] = 'e';
  text[at++] = d->exponent < 0 ? '-' : '+';
  int rest = d->exponent < 0 ? -d->exponent : d->exponent;
  for (int i = exponent_digits - 1; i >= 0; i--) {
    text[at + i] = (char)('0' + rest % 10);
    rest /= 10;
  }
  return at + exponent_digits;
}

int tern__float_scalar_text(tern_dtype dtype, const tern__float *x, char *text) {
  if (x->nan || x->inf) {
    return put_name(x, text);
  }
  tern__digits d;
  tern__float_digits(x, true, -1, -1, &d);
  const double magnitude = fabs(tern__float_value(x));
  if (magnitude == 0 || (magnitude >= 0.0001 && magnitude < traits_of(dtype)->limits.scalar_max)) {
    int size = put_positional(&d, x->negative, text);
    if (text[size - 1] == '.') {
      text[size++] = '0';
    }
    return size;
  }
  const int fraction = d.count - 1;
  return put_exponential(&d, x->negative, fraction, fraction > 0, exponent_length(d.exponent), text);
}

/* ---- arrays ---- */

void tern__float_format_begin(tern__float_format *format, tern_dtype dtype) {
  *format = (tern__float_format){.limits = traits_of(dtype)->limits, .smallest = (double)INFINITY};
}

void tern__float_format_see(tern__float_format *format, const tern__float *x) {
  if (x->nan || x->inf) {
    format->any_special = true;
    format->any_negative_inf |= x->inf && x->negative;
    return;
  }
  const double magnitude = fabs(tern__float_value(x));
  if (magnitude > format->largest) {
    format->largest = magnitude;
  }
  if (magnitude > 0 && magnitude < format->smallest) {
    format->smallest = magnitude;
  }
}

void tern__float_format_choose(tern__float_format *format) {
  if (format->largest > 0) {
    const tern__float_limits *const limits = &format->limits;
    format->exponential = format->largest >= limits->array_max || format->smallest < limits->array_min ||
                          format->largest / format->smallest > limits->ratio;
  }
}

static void keep_larger(int *place, int value) {
  if (value > *place) {
    *place = value;
  }
}

void tern__float_format_measure(tern__float_format *format, const tern__float *x) {
  if (x->nan || x->inf) {
    return;
  }
  tern__digits d;
  const int sign = x->negative ? 1 : 0;
  if (!format->exponential) {
    tern__float_digits(x, false, TERN__PRECISION, -1, &d);
    keep_larger(&format->pad_left, sign + whole_digits(&d));
    keep_larger(&format->pad_right, fraction_digits(&d));
    return;
  }
  tern__float_digits(x, true, TERN__PRECISION + 1, -1, &d);
  while (d.count > 1 && d.digit[d.count - 1] == '0') {
    d.count--;
  }
  keep_larger(&format->pad_left, sign + 1);
  keep_larger(&format->fraction, d.count - 1);
  keep_larger(&format->exponent_digits, exponent_length(d.exponent));
}

void tern__float_format_end(tern__float_format *format) {
  if (format->exponential) {
    format->pad_right = format->exponent_digits + 2 + format->fraction; /* "e+" and the exponent */
  }
  if (format->any_special) {
    keep_larger(&format->pad_left, (format->any_negative_inf ? 4 : 3) - format->pad_right - 1);
  }
}

int tern__float_format_text(const tern__float_format *format, const tern__float *x, char *text) {
  char number[TERN__FLOAT_TEXT];
  tern__digits d;
  int size, left;
  if (x->nan || x->inf) {
    size = put_name(x, number);
    left = size - format->pad_right - 1;
  } else if (format->exponential) {
    tern__float_digits(x, true, format->fraction + 1, format->fraction + 1, &d);
    size = put_exponential(&d, x->negative, format->fraction, true, format->exponent_digits, number);
    left = (x->negative ? 1 : 0) + 1;
  } else {
    tern__float_digits(x, false, TERN__PRECISION, 0, &d);
    size = put_positional(&d, x->negative, number);
    left = (x->negative ? 1 : 0) + whole_digits(&d);
  }
  int at = put_fill(text, 0, ' ', format->pad_left - left);
  memcpy(text + at, number, (size_t)size);
  at += size;
  if (!format->exponential && !x->nan && !x->inf) {
    at = put_fill(text, at, ' ', format->pad_right - fraction_digits(&d));
  }
  return at;
}
