/* Exact decimal digits of a binary float: Burger and Dybvig's free-format algorithm on small big integers. All is
   scaled so that value, the half gaps to both neighbours and the unit are integers; long division gives the digits. */
#include <string.h>

#include "tensor/format_float.h"

/* The largest number held is about 10 * 2^1078 (float64 subnormals and the scale of its largest value). */
enum { MAX_LIMBS = 40 };

typedef struct big {
  int size; /* limbs in use; the top one is not 0 */
  uint32_t limb[MAX_LIMBS];
} big;

static void big_set(big *a, uint64_t value) {
  a->limb[0] = (uint32_t)value;
  a->limb[1] = (uint32_t)(value >> 32);
  a->size = a->limb[1] ? 2 : a->limb[0] ? 1 : 0;
}

static void big_multiply(big *a, uint32_t factor) {
  uint64_t carry = 0;
  for (int i = 0; i < a->size; i++) {
    carry += (uint64_t)a->limb[i] * factor;
    a->limb[i] = (uint32_t)carry;
    carry >>= 32;
  }
  if (carry) {
    a->limb[a->size++] = (uint32_t)carry;
  }
}

static void big_multiply_pow10(big *a, int power) {
  for (; power >= 9; power -= 9) {
    big_multiply(a, 1000000000u);
  }
  for (; power > 0; power--) {
    big_multiply(a, 10);
  }
}

static void big_shift_left(big *a, int bits) {
  if (a->size == 0) {
    return;
  }
  const int limbs = bits / 32;
  memmove(a->limb + limbs, a->limb, (size_t)a->size * sizeof a->limb[0]);
  memset(a->limb, 0, (size_t)limbs * sizeof a->limb[0]);
  a->size += limbs;
  big_multiply(a, (uint32_t)1 << bits % 32);
}

static int big_compare(const big *a, const big *b) {
  if (a->size != b->size) {
    return a->size < b->size ? -1 : 1;
  }
  for (int i = a->size - 1; i >= 0; i--) {
    if (a->limb[i] != b->limb[i]) {
      return a->limb[i] < b->limb[i] ? -1 : 1;
    }
  }
  return 0;
}

static void big_add(big *sum, const big *a, const big *b) {
  const int size = a->size > b->size ? a->size : b->size;
  uint64_t carry = 0;
  for (int i = 0; i < size; i++) {
    carry += (uint64_t)(i < a->size ? a->limb[i] : 0) + (i < b->size ? b->limb[i] : 0);
    sum->limb[i] = (uint32_t)carry;
    carry >>= 32;
  }
  sum->size = size;
  if (carry) {
    sum->limb[sum->size++] = (uint32_t)carry;
  }
}

/* a -= b, where a >= b. */
static void big_subtract(big *a, const big *b) {
  uint64_t borrow = 0;
  for (int i = 0; i < a->size; i++) {
    const uint64_t difference = (uint64_t)a->limb[i] - (i < b->size ? b->limb[i] : 0) - borrow;
    a->limb[i] = (uint32_t)difference;
    borrow = difference >> 63;
  }
  while (a->size > 0 && a->limb[a->size - 1] == 0) {
    a->size--;
  }
}

/* a becomes a mod b; answers a / b, which is below 10. */
static int big_divide(big *a, const big *b) {
  int quotient = 0;
  while (big_compare(a, b) >= 0) {
    big_subtract(a, b);
    quotient++;
  }
  return quotient;
}

/* x = value / unit; low and high are half the gaps to the neighbours below and above, in the same unit. */
typedef struct scaled {
  big value, unit, low, high;
} scaled;

static void scaled_multiply10(scaled *s) {
  big_multiply(&s->value, 10);
  big_multiply(&s->low, 10);
  big_multiply(&s->high, 10);
}

/* Scales x by a power of ten into [0.1, 1) and answers the power: the exponent of the first digit, plus 1. */
static int scaled_begin(scaled *s, const tern__float *x) {
  const int up = x->exponent > 0 ? x->exponent : 0, down = x->exponent < 0 ? -x->exponent : 0;
  const int uneven = x->uneven ? 1 : 0; /* halves of halves: one more bit */
  big_set(&s->value, x->mantissa);
  big_shift_left(&s->value, up + 1 + uneven);
  big_set(&s->unit, 1);
  big_shift_left(&s->unit, down + 1 + uneven);
  big_set(&s->low, 1);
  big_shift_left(&s->low, up);
  big_set(&s->high, 1);
  big_shift_left(&s->high, up + uneven);

  const int bits = 64 - __builtin_clzll(x->mantissa) + x->exponent;              /* 2^(bits-1) <= x < 2^bits */
  int power = (int)((int64_t)(bits - 1) * 30103 / 100000) - (bits <= 1 ? 1 : 0); /* at most the answer */
  if (power > 0) {
    big_multiply_pow10(&s->unit, power);
  } else {
    big_multiply_pow10(&s->value, -power);
    big_multiply_pow10(&s->low, -power);
    big_multiply_pow10(&s->high, -power);
  }
  while (big_compare(&s->value, &s->unit) >= 0) {
    big_multiply(&s->unit, 10);
    power++;
  }
  return power;
}

/* Adds the last digit, or the one above it with the carry. */
static void finish(tern__digits *out, int digit, bool up) {
  if (!up || digit < 9) {
    out->digit[out->count++] = (char)('0' + digit + (up ? 1 : 0));
    return;
  }
  while (out->count > 0 && out->digit[out->count - 1] == '9') {
    out->count--;
  }
  if (out->count == 0) {
    out->digit[out->count++] = '1';
    out->exponent++;
    return;
  }
  out->digit[out->count - 1]++;
}

void tern__float_digits(const tern__float *x, bool total, int max_digits, int min_digits, tern__digits *out) {
  out->count = 0;
  out->exponent = 0;
  if (x->mantissa == 0) {
    out->digit[out->count++] = '0';
    return;
  }
  scaled s;
  int place = scaled_begin(&s, x); /* the next digit stands for 10^(place-1) */
  out->exponent = place - 1;
  int last = place - TERN__FLOAT_DIGITS, first = place; /* places where digits must end, and may end at the earliest */
  if (max_digits >= 0 && (total ? place - max_digits : -max_digits) > last) {
    last = total ? place - max_digits : -max_digits;
  }
  if (min_digits >= 0 && (total ? place - min_digits : -min_digits) < first) {
    first = total ? place - min_digits : -min_digits;
  }
  const int reach = x->mantissa % 2 == 0 ? 0 : 1; /* an even neighbour boundary itself reads back as x */
  for (;;) {
    scaled_multiply10(&s);
    place--;
    const int digit = big_divide(&s.value, &s.unit);
    big above;
    big_add(&above, &s.value, &s.high);
    const bool low = big_compare(&s.value, &s.low) <= -reach;
    const bool high = big_compare(&above, &s.unit) >= reach;
    if (((low || high) && place <= first) || place <= last) {
      bool up = high;
      if (low == high) {
        big_multiply(&s.value, 2);
        const int half = big_compare(&s.value, &s.unit);
        up = half > 0 || (half == 0 && digit % 2 != 0);
      }
      finish(out, digit, up);
      return;
    }
    out->digit[out->count++] = (char)('0' + digit);
  }
}
