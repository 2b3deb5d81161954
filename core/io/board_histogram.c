/* Histograms: the finite elements in 30 buckets of equal width from the least to the greatest. The tensor is read
   twice, piece by piece: once for its ends, once to count. */
#include "io/board.h"
#include "io/draft.h"
#include "tensor/dtype.h"
#include <math.h>

enum { BUCKETS = 30, BLOCK = 1024 };

typedef struct counting {
  tern_dtype dtype;
  bool ends_known;
  double min, max, sum, squares, scale; /* scale: buckets for a step of 1 */
  uint64_t n, count[BUCKETS];
} counting;

/* n elements as doubles; 64-bit integers are rounded. */
static void load(tern_dtype dtype, const char *data, int n, double *to) {
  if (dtype == TERN_F32) {
    for (int i = 0; i < n; i++) {
      float x;
      memcpy(&x, data + sizeof x * (size_t)i, sizeof x);
      to[i] = (double)x;
    }
    return;
  }
  const size_t item = tern__dtype_size[dtype];
  for (int i = 0; i < n; i++) to[i] = tern__word_double(tern__load(dtype, data + item * (size_t)i), dtype);
}

static void find_ends(counting *c, const double *x, int n) {
  for (int i = 0; i < n; i++) {
    if (!isfinite(x[i])) continue;
    c->min = c->n == 0 || x[i] < c->min ? x[i] : c->min;
    c->max = c->n == 0 || x[i] > c->max ? x[i] : c->max;
    c->sum += x[i];
    c->squares += x[i] * x[i];
    c->n++;
  }
}

static void count(counting *c, const double *x, int n) {
  for (int i = 0; i < n; i++) {
    if (!isfinite(x[i])) continue;
    const double place = (x[i] * 0.5 - c->min * 0.5) * c->scale; /* halves: max - min may overflow */
    c->count[place < BUCKETS - 1 ? (place > 0 ? (int)place : 0) : BUCKETS - 1]++;
  }
}

static tern_rc take(void *self, const void *data, size_t size) {
  counting *c = self;
  const size_t item = tern__dtype_size[c->dtype];
  const char *p = data;
  double block[BLOCK];
  for (size_t left = size / item; left > 0;) {
    const int n = left < BLOCK ? (int)left : BLOCK;
    load(c->dtype, p, n, block);
    if (c->ends_known)
      count(c, block, n);
    else
      find_ends(c, block, n);
    p += item * (size_t)n;
    left -= (size_t)n;
  }
  return TERN_OK;
}

static tern_rc write_counts(tern_board *b, const char *tag, int64_t step, const counting *c) {
  Tern__Board__HistogramProto histo = TERN__BOARD__HISTOGRAM_PROTO__INIT;
  Tern__Board__Value value = TERN__BOARD__VALUE__INIT;
  double limit[BUCKETS], bucket[BUCKETS];
  const int n = c->n == 0 ? 0 : c->min < c->max ? BUCKETS : 1; /* all equal: one bucket, without width */
  for (int i = 0; i < n; i++) {
    const double part = (i + 1.0) / n;
    limit[i] = i + 1 == n ? c->max : c->min * (1 - part) + c->max * part;
    bucket[i] = n == 1 ? (double)c->n : (double)c->count[i];
  }
  histo.has_min = histo.has_max = histo.has_num = histo.has_sum = histo.has_sum_squares = 1;
  histo.min = c->min;
  histo.max = c->max;
  histo.num = (double)c->n;
  histo.sum = c->sum;
  histo.sum_squares = c->squares;
  histo.n_bucket_limit = histo.n_bucket = (size_t)n;
  histo.bucket_limit = limit;
  histo.bucket = bucket;
  value.histo = &histo;
  return tern__board_value(b, "board_histogram", tag, step, &value);
}

tern_rc tern_board_histogram(tern_board *b, const char *tag, int64_t step, tern_tensor *t) {
  tern_rc rc = tern__board_tensor(b, "board_histogram", &t);
  if (rc) return rc;
  TERN_SCOPE;
  tern_tensor *now = tern__snapshot(t);
  if (!now) return tern__recorded();
  counting c = {.dtype = (tern_dtype)now->dtype};
  rc = tern__pieces_out(now, "board_histogram", take, &c);
  if (!rc && c.min < c.max) {
    c.ends_known = true;
    c.scale = BUCKETS / (c.max * 0.5 - c.min * 0.5);
    rc = tern__pieces_out(now, "board_histogram", take, &c);
  }
  return rc ? rc : write_counts(b, tag, step, &c);
}
