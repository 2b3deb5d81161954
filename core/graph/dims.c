/* Reading polynomials in the marks back. */
#include "graph/dims.h"
#include <math.h>
#include <stdio.h>

/* Primes near 30 million, apart from each other and from multiples of round numbers. */
static const int64_t mark[TERN__MAX_DIMS] = {29986577, 31260049, 33112553, 34780183, 36422989, 38191117};
enum { SMALLEST = 1 << 24, REST = 4096, FACTOR = 1 << 20, PAIR = 64 };
static const int64_t largest = INT64_C(1) << 60;

int64_t tern__dims_mark(int i) { return mark[i]; }

typedef struct polynomial {
  int n_terms, a[2], b[2]; /* term k: factor * mark[a] * mark[b], b -1: linear */
  int64_t factor[2], rest;
} polynomial;

static int64_t monomial(int a, int b) { return b < 0 ? mark[a] : mark[a] * mark[b]; }

static int64_t nearest(int64_t v, int64_t m) { return (v + (v >= 0 ? m / 2 : -(m / 2))) / m; }

static bool one_term(int64_t v, polynomial *p) {
  for (int a = 0; a < TERN__MAX_DIMS; a++)
    for (int b = -1; b <= a; b++) {
      const int64_t m = monomial(a, b), q = nearest(v, m), r = v - q * m;
      if (q == 0 || q > FACTOR || q < -FACTOR || r > REST || r < -REST) continue;
      *p = (polynomial){.n_terms = 1, .a = {a}, .b = {b}, .factor = {q}, .rest = r};
      return true;
    }
  return false;
}

static bool two_terms(int64_t v, polynomial *p) {
  for (int a = 0; a < TERN__MAX_DIMS; a++)
    for (int b = -1; b <= a; b++)
      for (int64_t q = -PAIR; q <= PAIR; q++) {
        const int64_t left = v - q * monomial(a, b);
        polynomial rest;
        if (q == 0 || (left < SMALLEST && left > -SMALLEST) || !one_term(left, &rest)) continue;
        if (rest.factor[0] > PAIR * 4096 || rest.factor[0] < -PAIR * 4096) continue;
        *p = rest;
        p->n_terms = 2;
        p->a[1] = a;
        p->b[1] = b;
        p->factor[1] = q;
        return true;
      }
  return false;
}

/* Few digits, in decimal or in binary: somebody wrote it. What is made of marks does not look so. */
static bool written(int64_t v) {
  if (v < 0) v = -v;
  int64_t tens = v, twos = v;
  while (tens % 10 == 0) tens /= 10;
  while (twos % 2 == 0) twos /= 2;
  return tens < 10000 || twos < 64 || __builtin_popcountll((uint64_t)v + 1) == 1;
}

static bool decode(int64_t v, polynomial *p) {
  if ((v < SMALLEST && v > -SMALLEST) || v >= largest || v <= -largest || written(v)) return false;
  return one_term(v, p) || two_terms(v, p);
}

int64_t tern__dims_eval(const tern__dims *d, int64_t v, uint32_t *used) {
  polynomial p;
  if (used) *used = 0;
  if (!decode(v, &p)) return v;
  int64_t sum = p.rest;
  for (int k = 0; k < p.n_terms; k++) {
    if (p.a[k] >= d->n || p.b[k] >= d->n) return v;
    sum += p.factor[k] * d->size[p.a[k]] * (p.b[k] < 0 ? 1 : d->size[p.b[k]]);
    if (used) *used |= 1u << p.a[k] | (p.b[k] < 0 ? 0 : 1u << p.b[k]);
  }
  return sum;
}

double tern__dims_eval_scalar(const tern__dims *d, double v) {
  if (v == 0 || !isfinite(v)) return v;
  if (v == trunc(v) && fabs(v) < 0x1p60) return (double)tern__dims_eval(d, (int64_t)v, 0);
  for (int numerator = 1; numerator <= 2; numerator++) {
    const double inverse = numerator / v, whole = nearbyint(inverse);
    if (fabs(whole) < SMALLEST || fabs(whole) >= 0x1p52 || fabs(inverse - whole) > fabs(whole) * 0x1p-50) continue;
    uint32_t used;
    const int64_t size = tern__dims_eval(d, (int64_t)whole, &used);
    if (used) return numerator / (double)size;
  }
  return v;
}

const char *tern__dims_text(char *buffer, int64_t v) {
  polynomial p;
  if (!decode(v, &p)) {
    snprintf(buffer, 64, "%lld", (long long)v);
    return buffer;
  }
  int at = 0;
  for (int k = 0; k < p.n_terms; k++) {
    at += snprintf(buffer + at, 64 - (size_t)at, "%s", k ? " + " : "");
    if (p.factor[k] != 1) at += snprintf(buffer + at, 64 - (size_t)at, "%lld ", (long long)p.factor[k]);
    at += snprintf(buffer + at, 64 - (size_t)at, "s%d", p.a[k]);
    if (p.b[k] >= 0) at += snprintf(buffer + at, 64 - (size_t)at, " s%d", p.b[k]);
  }
  if (p.rest) snprintf(buffer + at, 64 - (size_t)at, " + %lld", (long long)p.rest);
  return buffer;
}
