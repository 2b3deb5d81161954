/* Decimal text of binary floating-point numbers of any small format, as numpy's Dragon4 gives it. Private to
   core/tensor/format*.c. */
#ifndef TERN_CORE_TENSOR_FORMAT_FLOAT_H_
#define TERN_CORE_TENSOR_FORMAT_FLOAT_H_
#include <stdbool.h>
#include <stdint.h>

#include "tern/backend.h"

enum {
  TERN__PRECISION = 8,     /* numpy's print option: digits after the point */
  TERN__FLOAT_DIGITS = 24, /* more digits than any call asks for */
  TERN__FLOAT_TEXT = 64    /* more characters than one number takes, padding included */
};

/* One float, taken apart. Finite: value = mantissa * 2^exponent. */
typedef struct tern__float {
  bool negative, nan, inf;
  bool uneven; /* the float below is half as far away as the one above: a power of two that is not the least normal */
  uint64_t mantissa;
  int exponent;
} tern__float;

/* Decimal digits d.ddd * 10^exponent. */
typedef struct tern__digits {
  int count, exponent;
  char digit[TERN__FLOAT_DIGITS]; /* '0'..'9' */
} tern__digits;

/* What numpy's rule for choosing between 123.5 and 1.235e+02 compares with, each rounded to the dtype. */
typedef struct tern__float_limits {
  double array_max;  /* arrays: exponents from here on */
  double array_min;  /* arrays: exponents below this */
  double ratio;      /* arrays: exponents when largest / smallest exceeds this, before rounding the quotient */
  double scalar_max; /* rank 0: exponents from here on */
} tern__float_limits;

/* How the numbers of one array are laid out; numpy.FloatingFormat. */
typedef struct tern__float_format {
  tern__float_limits limits;
  bool exponential;
  int pad_left, pad_right; /* columns left and right of the point */
  int fraction;            /* exponential: digits after the point */
  int exponent_digits;     /* exponential: at least 2 */
  /* gathered by the first pass */
  double largest, smallest; /* magnitudes of the finite values other than 0; smallest is inf when there is none */
  bool any_special, any_negative_inf; /* nan or inf; -inf */
} tern__float_format;

bool tern__is_float(tern_dtype dtype);

/* Takes the float at p (any alignment) apart. dtype is one of the float dtypes. */
tern__float tern__float_read(tern_dtype dtype, const void *p);
double tern__float_value(const tern__float *x); /* exact: every format here fits a double */

/* The shortest decimal that tells x from its neighbours (round-half-even reading), cut off after max_digits digits
   when total, after max_digits digits behind the point otherwise, and with at least min_digits digits counted alike;
   negative: no limit. x is finite. Steele and White / Burger and Dybvig "Printing floating-point numbers quickly and
   accurately", figure 3, as numpy's Dragon4: stop at the first digit whose truncation or increment reads back. */
void tern__float_digits(const tern__float *x, bool total, int max_digits, int min_digits, tern__digits *out);

/* Laying out an array: begin, then see() every element, choose(), measure() every element, end(); then text() gives an
   element's text of at most TERN__FLOAT_TEXT bytes (no NUL) and answers its length. */
void tern__float_format_begin(tern__float_format *format, tern_dtype dtype);
void tern__float_format_see(tern__float_format *format, const tern__float *x);
void tern__float_format_choose(tern__float_format *format);
void tern__float_format_measure(tern__float_format *format, const tern__float *x);
void tern__float_format_end(tern__float_format *format);
int tern__float_format_text(const tern__float_format *format, const tern__float *x, char *text);

/* The text of a lone number, str() of a numpy scalar. */
int tern__float_scalar_text(tern_dtype dtype, const tern__float *x, char *text);

#endif
