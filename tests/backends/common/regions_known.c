/* The well-known composites as regions of primitives, each over sizes that are launch words, some in place. */
#include <stdio.h>

#include "regions.h"

typedef region_builder rb;
#define NONE RB_NONE

static uint32_t op1(rb *b, uint32_t op, uint32_t x) { return rb_map(b, op, x, NONE, NONE); }
static uint32_t op2(rb *b, uint32_t op, uint32_t x, uint32_t y) { return rb_map(b, op, x, y, NONE); }

/* [n, m] input of the usual kind */
static uint32_t matrix(rb *b, uint32_t dtype, int64_t n, int64_t m, int layout) {
  return rb_in(b, dtype, 2, (const int64_t[]){n, m}, layout);
}

static void finish(rb *b, uint32_t out, uint32_t x, bool in_place) {
  if (in_place)
    rb_out_alias(b, out, b->values[x].slot, x);
  else
    rb_out(b, out);
}

static void softmax(rb *b, uint32_t dt, bool in_place, uint64_t dims, int layout) {
  const int64_t shape[3] = {rb_sym(b, 5), rb_sym(b, 37), rb_sym(b, 19)};
  const uint32_t x = rb_in(b, dt, 3, shape, layout);
  const uint32_t e = op1(b, TERN_OP_EXP, op2(b, TERN_OP_SUB, x, rb_reduce(b, TERN_OP_AMAX, x, dims)));
  finish(b, op2(b, TERN_OP_DIV, e, rb_reduce(b, TERN_OP_SUM, e, dims)), x, in_place);
}

static void log_softmax(rb *b, uint32_t dt, bool in_place) {
  const uint32_t x = matrix(b, dt, rb_sym(b, 33), rb_sym(b, 71), RB_PADDED);
  const uint32_t c = op2(b, TERN_OP_SUB, x, rb_reduce(b, TERN_OP_AMAX, x, 2));
  const uint32_t l = op1(b, TERN_OP_LOG, rb_reduce(b, TERN_OP_SUM, op1(b, TERN_OP_EXP, c), 2));
  finish(b, op2(b, TERN_OP_SUB, c, l), x, in_place);
}

static void layer_norm(rb *b, uint32_t dt, bool in_place) {
  const int64_t m = rb_sym(b, 96);
  const uint32_t x = matrix(b, dt, rb_sym(b, 17), m, RB_DENSE), g = matrix(b, dt, 1, m, RB_DENSE),
                 h = matrix(b, dt, 1, m, RB_DENSE);
  const uint32_t n = rb_size(b, dt, x, 2);
  const uint32_t c = op2(b, TERN_OP_SUB, x, op2(b, TERN_OP_DIV, rb_reduce(b, TERN_OP_SUM, x, 2), n));
  const uint32_t var = op2(b, TERN_OP_DIV, rb_reduce(b, TERN_OP_SUM, op2(b, TERN_OP_MUL, c, c), 2), n);
  const uint32_t r = op1(b, TERN_OP_RSQRT, op2(b, TERN_OP_ADD, var, rb_const(b, dt, 1e-3)));
  const uint32_t y = op2(b, TERN_OP_ADD, op2(b, TERN_OP_MUL, op2(b, TERN_OP_MUL, c, r), g), h);
  finish(b, y, x, in_place);
}

static void variance(rb *b, uint32_t dt, bool in_place) {
  (void)in_place;
  const uint32_t x = matrix(b, dt, rb_sym(b, 40), rb_sym(b, 23), RB_PERMUTED), n = rb_size(b, dt, x, 1);
  const uint32_t mean = op2(b, TERN_OP_DIV, rb_reduce(b, TERN_OP_SUM, x, 1), n), c = op2(b, TERN_OP_SUB, x, mean);
  const uint32_t var = op2(b, TERN_OP_DIV, rb_reduce(b, TERN_OP_SUM, op2(b, TERN_OP_MUL, c, c), 1), n);
  rb_out(b, mean);
  rb_out(b, var);
}

static void logsumexp(rb *b, uint32_t dt, bool in_place) {
  (void)in_place;
  const uint32_t x = matrix(b, dt, rb_sym(b, 3), rb_sym(b, 257), RB_REVERSED), m = rb_reduce(b, TERN_OP_AMAX, x, 3);
  const uint32_t s = rb_reduce(b, TERN_OP_SUM, op1(b, TERN_OP_EXP, op2(b, TERN_OP_SUB, x, m)), 3);
  rb_out(b, op2(b, TERN_OP_ADD, op1(b, TERN_OP_LOG, s), m));
}

static void gelu(rb *b, uint32_t dt, bool in_place) {
  const uint32_t x = rb_in(b, dt, 1, (const int64_t[]){rb_sym(b, 1003)}, RB_DENSE);
  const uint32_t e = op1(b, TERN_OP_ERF, op2(b, TERN_OP_MUL, x, rb_const(b, dt, 0.70710678118654752)));
  const uint32_t h = op2(b, TERN_OP_MUL, x, rb_const(b, dt, 0.5));
  finish(b, op2(b, TERN_OP_MUL, h, op2(b, TERN_OP_ADD, e, rb_const(b, dt, 1))), x, in_place);
}

static void softmax_backward(rb *b, uint32_t dt, bool in_place) {
  const int64_t n = rb_sym(b, 21), m = rb_sym(b, 45);
  const uint32_t y = matrix(b, dt, n, m, RB_DENSE), dy = matrix(b, dt, n, m, RB_DENSE);
  const uint32_t s = rb_reduce(b, TERN_OP_SUM, op2(b, TERN_OP_MUL, y, dy), 2);
  finish(b, op2(b, TERN_OP_MUL, y, op2(b, TERN_OP_SUB, dy, s)), dy, in_place);
}

/* One Adam step of two parameters: six outputs, all in place when asked */
static void adam(rb *b, uint32_t dt, bool in_place) {
  const uint32_t lr = rb_param(b, dt, 0.01), b1 = rb_const(b, dt, 0.9), b2 = rb_const(b, dt, 0.999),
                 eps = rb_const(b, dt, 1e-3);
  const uint32_t c1 = rb_const(b, dt, 0.1), c2 = rb_const(b, dt, 0.001);
  for (int k = 0; k < 2; k++) {
    const int64_t shape[1] = {rb_sym(b, k ? 77 : 1200)};
    const uint32_t p = rb_in(b, dt, 1, shape, RB_DENSE), g = rb_in(b, dt, 1, shape, RB_DENSE),
                   m = rb_in(b, dt, 1, shape, RB_DENSE);
    const uint32_t v = rb_in_range(b, dt, 1, shape, RB_DENSE, 0, 2);
    const uint32_t m2 = op2(b, TERN_OP_ADD, op2(b, TERN_OP_MUL, m, b1), op2(b, TERN_OP_MUL, g, c1));
    const uint32_t v2 =
        op2(b, TERN_OP_ADD, op2(b, TERN_OP_MUL, v, b2), op2(b, TERN_OP_MUL, op2(b, TERN_OP_MUL, g, g), c2));
    const uint32_t step =
        op2(b, TERN_OP_DIV, op2(b, TERN_OP_MUL, m2, lr), op2(b, TERN_OP_ADD, op1(b, TERN_OP_SQRT, v2), eps));
    finish(b, op2(b, TERN_OP_SUB, p, step), p, in_place);
    finish(b, m2, m, in_place);
    finish(b, v2, v, in_place);
  }
}

/* Mean over rows of logsumexp(x) - x[label], the label picked by comparing with IOTA */
static void cross_entropy(rb *b, uint32_t dt, bool in_place) {
  (void)in_place;
  const int64_t n = rb_sym(b, 50), m = rb_sym(b, 10);
  const int64_t full[2] = {n, m};
  const uint32_t x = matrix(b, dt, n, m, RB_DENSE),
                 y = rb_in_range(b, TERN_I32, 2, (const int64_t[]){n, 1}, RB_DENSE, 0, 10);
  const uint32_t mx = rb_reduce(b, TERN_OP_AMAX, x, 2);
  const uint32_t s = rb_reduce(b, TERN_OP_SUM, op1(b, TERN_OP_EXP, op2(b, TERN_OP_SUB, x, mx)), 2);
  const uint32_t hit = op2(b, TERN_OP_EQ, rb_iota(b, TERN_I32, 2, full, 1), y);
  const uint32_t pick = rb_reduce(b, TERN_OP_SUM, rb_map(b, TERN_OP_WHERE, hit, x, rb_const(b, dt, 0)), 2);
  const uint32_t loss = op2(b, TERN_OP_SUB, op2(b, TERN_OP_ADD, op1(b, TERN_OP_LOG, s), mx), pick);
  rb_out(b, op2(b, TERN_OP_DIV, rb_reduce(b, TERN_OP_SUM, loss, 1), rb_size(b, dt, x, 1)));
}

/* x -= mean over both dims: the sum must be complete before the first store */
static void centre(rb *b, uint32_t dt, bool in_place) {
  const uint32_t x = matrix(b, dt, rb_sym(b, 64), rb_sym(b, 1100), RB_DENSE);
  const uint32_t mean = op2(b, TERN_OP_DIV, rb_reduce(b, TERN_OP_SUM, x, 3), rb_size(b, dt, x, 3));
  finish(b, op2(b, TERN_OP_SUB, x, mean), x, in_place);
}

/* Row and column sums and a map of both: three nests, two of them in place unsafe */
static void two_axes(rb *b, uint32_t dt, bool in_place) {
  const uint32_t x = matrix(b, dt, rb_sym(b, 31), rb_sym(b, 47), RB_DENSE);
  const uint32_t y = op2(b, TERN_OP_SUB, x, rb_reduce(b, TERN_OP_AMAX, x, 2));
  const uint32_t z = op2(b, TERN_OP_ADD, rb_reduce(b, TERN_OP_SUM, x, 1), x);
  finish(b, y, x, in_place);
  rb_out(b, z);
  rb_out(b, rb_reduce(b, TERN_OP_ARGMIN, y, 1));
}

bool rb_known(region_builder *b, unsigned i, uint32_t dtype, bool in_place) {
  static const char *const names[] = {"softmax last", "softmax first",    "softmax middle", "softmax two axes",
                                      "log_softmax",  "layer_norm",       "variance",       "logsumexp",
                                      "gelu",         "softmax backward", "adam",           "cross entropy",
                                      "centre",       "two axes"};
  if (i >= sizeof names / sizeof *names) return false;
  rb_init(b, names[i], i + 1);
  snprintf(b->name, sizeof b->name, "%s%s, dtype %u", names[i], in_place ? " in place" : "", dtype);
  switch (i) {
  case 0: softmax(b, dtype, in_place, 4, RB_DENSE); break;
  case 1: softmax(b, dtype, in_place, 1, RB_DENSE); break;
  case 2: softmax(b, dtype, in_place, 2, RB_PADDED); break;
  case 3: softmax(b, dtype, in_place, 5, RB_DENSE); break;
  case 4: log_softmax(b, dtype, in_place); break;
  case 5: layer_norm(b, dtype, in_place); break;
  case 6: variance(b, dtype, in_place); break;
  case 7: logsumexp(b, dtype, in_place); break;
  case 8: gelu(b, dtype, in_place); break;
  case 9: softmax_backward(b, dtype, in_place); break;
  case 10: adam(b, dtype, in_place); break;
  case 11: cross_entropy(b, dtype, in_place); break;
  case 12: centre(b, dtype, in_place); break;
  default: two_axes(b, dtype, in_place); break;
  }
  return true;
}
