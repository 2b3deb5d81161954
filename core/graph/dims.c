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

static int64_t size_of(int64_t v) { return v < 0 ? -v : v; }

/* How unlikely it is that a program made it: large factors and a large rest are chance. */
static double unlikely(const polynomial *p) {
  double u = (double)size_of(p->rest) + 1;
  for (int k = 0; k < p->n_terms; k++) u *= (double)size_of(p->factor[k]);
  return p->n_terms > 1 ? 16 * u : u;
}

/* In the first n marks. The likeliest; false: none. */
static bool one_term(int64_t v, int n, polynomial *p) {
  bool found = false;
  for (int a = 0; a < n; a++)
    for (int b = -1; b <= a; b++) {
      const int64_t m = monomial(a, b), q = nearest(v, m), r = v - q * m;
      if (q == 0 || q > FACTOR || q < -FACTOR || r > REST || r < -REST) continue;
      const polynomial now = {.n_terms = 1, .a = {a}, .b = {b}, .factor = {q}, .rest = r};
      if (!found || unlikely(&now) < unlikely(p)) *p = now;
      found = true;
    }
  return found;
}

/* The same; *p: what it must be likelier than, if found. Small factors first: larger ones cannot be likelier. */
static bool two_terms(int64_t v, int n, polynomial *p, bool found) {
  for (int64_t size = 1; size <= PAIR && !(found && unlikely(p) <= 16 * (double)size); size++)
    for (int a = 0; a < n; a++)
      for (int k = 0; k < 2 * (a + 2); k++) {
        const int b = k / 2 - 1;
        const int64_t q = k % 2 ? -size : size, left = v - q * monomial(a, b);
        polynomial now;
        if ((left < SMALLEST && left > -SMALLEST) || !one_term(left, n, &now)) continue;
        if (size_of(now.factor[0]) > PAIR * 4096 || (now.a[0] == a && now.b[0] == b)) continue;
        now.n_terms = 2;
        now.a[1] = a;
        now.b[1] = b;
        now.factor[1] = q;
        if (!found || unlikely(&now) < unlikely(p)) *p = now;
        found = true;
      }
  return found;
}

/* Few digits, in decimal or in binary: somebody wrote it. What is made of marks does not look so. */
static bool written(int64_t v) {
  if (v < 0) v = -v;
  int64_t tens = v, twos = v;
  while (tens % 10 == 0) tens /= 10;
  while (twos % 2 == 0) twos /= 2;
  return tens < 10000 || twos < 64 || __builtin_popcountll((uint64_t)v + 1) == 1;
}

/* As a polynomial in the first n marks: of those that give just v the one of the smallest numbers. Sums of two terms
   come out by chance often, with factors and rests in the hundreds. */
static bool decode(int64_t v, int n, polynomial *p) {
  enum { SURE = 64 };
  if ((v < SMALLEST && v > -SMALLEST) || v >= largest || v <= -largest || written(v)) return false;
  const bool one = one_term(v, n, p);
  return (one && size_of(p->rest) <= SURE) || two_terms(v, n, p, one);
}

int64_t tern__dims_eval(const tern__dims *d, int64_t v, uint32_t *used) {
  polynomial p;
  if (used) *used = 0;
  if (!decode(v, d->n, &p)) return v;
  int64_t sum = p.rest;
  for (int k = 0; k < p.n_terms; k++) {
    sum += p.factor[k] * d->size[p.a[k]] * (p.b[k] < 0 ? 1 : d->size[p.b[k]]);
    if (used) *used |= 1u << p.a[k] | (p.b[k] < 0 ? 0 : 1u << p.b[k]);
  }
  return sum;
}

/* v as 1 or 2 by a polynomial, to within its last bits: the likelier of the two. 0: neither; else which. */
static int reciprocal(double v, int n, polynomial *p, int64_t *below) {
  int numerator = 0;
  for (int k = 1; k <= 2 && v != 0; k++) {
    const double inverse = k / v, whole = nearbyint(inverse);
    polynomial now;
    if (!(fabs(whole) >= SMALLEST && fabs(whole) < 0x1p52) || fabs(inverse - whole) > fabs(whole) * 0x1p-50 ||
        !decode((int64_t)whole, n, &now) || (numerator && unlikely(&now) >= unlikely(p)))
      continue;
    numerator = k;
    *p = now;
    *below = (int64_t)whole;
  }
  return numerator;
}

double tern__dims_eval_scalar(const tern__dims *d, double v) {
  polynomial p;
  int64_t below;
  if (v == 0 || !isfinite(v)) return v;
  if (v == trunc(v) && fabs(v) < 0x1p60) return (double)tern__dims_eval(d, (int64_t)v, 0);
  const int numerator = reciprocal(v, d->n, &p, &below);
  return numerator ? numerator / (double)tern__dims_eval(d, below, NULL) : v;
}

uint32_t tern__dims_used(int64_t v) {
  polynomial p;
  uint32_t used = 0;
  if (!decode(v, TERN__MAX_DIMS, &p)) return 0;
  for (int k = 0; k < p.n_terms; k++) used |= 1u << p.a[k] | (p.b[k] < 0 ? 0 : 1u << p.b[k]);
  return used;
}

const char *tern__dims_scalar_text(char *buffer, double v) {
  if (!isfinite(v) || fabs(v) >= 0x1p60) return NULL;
  if (v == trunc(v)) return tern__dims_used((int64_t)v) ? tern__dims_text(buffer, (int64_t)v) : NULL;
  polynomial p;
  int64_t below;
  const int numerator = reciprocal(v, TERN__MAX_DIMS, &p, &below);
  if (!numerator || numerator / (double)below != v) return NULL;
  buffer[0] = (char)('0' + numerator);
  buffer[1] = '/';
  tern__dims_text(buffer + 2, below);
  return buffer;
}

const char *tern__dims_text(char *buffer, int64_t v) {
  polynomial p;
  if (!decode(v, TERN__MAX_DIMS, &p)) {
    snprintf(buffer, TERN__DIMS_TEXT - 2, "%lld", (long long)v);
    return buffer;
  }
  int at = 0;
  for (int k = 0; k < p.n_terms; k++) {
    at += snprintf(buffer + at, TERN__DIMS_TEXT - 2 - (size_t)at, "%s", k ? " + " : "");
    if (p.factor[k] != 1)
      at += snprintf(buffer + at, TERN__DIMS_TEXT - 2 - (size_t)at, "%lld ", (long long)p.factor[k]);
    at += snprintf(buffer + at, TERN__DIMS_TEXT - 2 - (size_t)at, "s%d", p.a[k]);
    if (p.b[k] >= 0) at += snprintf(buffer + at, TERN__DIMS_TEXT - 2 - (size_t)at, " s%d", p.b[k]);
  }
  if (p.rest) snprintf(buffer + at, TERN__DIMS_TEXT - 2 - (size_t)at, " + %lld", (long long)p.rest);
  return buffer;
}
