/* One step of the recurrent cells. With the usual activations the derivatives are written out, in terms of what the
   forward step kept; with others a tape sees through `forward` instead. */
#include "nn/rnn.h"

static tern_tensor *one_minus(tern_tensor *x) { return tern_sub(tern_scalar(1), x); }
static tern_tensor *gate(const tern__step *s, tern_tensor *x) { return tern_activate(s->recurrent_activation, x); }
static tern_tensor *squash(const tern__step *s, tern_tensor *x) { return tern_activate(s->activation, x); }

/* Columns [from, to) * units of a row of gates. */
static tern_tensor *columns(const tern__step *s, tern_tensor *x, int64_t from, int64_t to) {
  return tern_slice(x, (tern_range[]){TERN_ALL, TERN_RANGE(from * s->units, to * s->units, 1)}, 2);
}

/* h times the recurrent kernel. */
static tern_tensor *product(const tern__step *s, tern_tensor *h) {
  return tern_matmul(s->drop == TERN_NONE ? h : tern_mul(h, s->drop), s->recurrent);
}

/* ---- simple: h' = f(zx + h U) ---- */

static bool simple_forward(const tern__step *s, tern_tensor *zx, tern_tensor *const *state, tern_tensor **next,
                           tern_tensor **kept) {
  (void)kept;
  next[0] = squash(s, tern_add(product(s, state[0]), zx));
  return next[0] != NULL;
}

static bool simple_slopes(const tern__step *s, tern_tensor *before, tern_tensor *y, tern_tensor *const *kept,
                          tern_tensor **slope) {
  (void)s, (void)before, (void)kept;
  slope[0] = one_minus(tern_square(y));
  return slope[0] != NULL;
}

static bool simple_backward(const tern__step *s, tern_tensor *const *slope, tern_tensor *const *dnext, tern_tensor **dz,
                            tern_tensor **more, tern_tensor **dstate) {
  (void)s, (void)more;
  *dz = tern_mul(dnext[0], slope[0]);
  dstate[0] = NULL;
  return *dz != NULL;
}

const tern__cell tern__cell_simple = {.gates = 1,
                                      .states = 1,
                                      .slopes = 1,
                                      .forward = simple_forward,
                                      .slopes_of = simple_slopes,
                                      .backward = simple_backward};

/* ---- lstm: gates i f c o; c' = f c + i g, h' = o tanh(c') ---- */

/* Sums are taken of each gate by itself: that leaves the product without anything behind it, and all the rest as one
   kernel. Kept are the gates and the c that came in. */
static bool lstm_forward(const tern__step *s, tern_tensor *zx, tern_tensor *const *state, tern_tensor **next,
                         tern_tensor **kept) {
  tern_tensor *inner = product(s, state[0]), *a[4];
  for (int k = 0; k < 4; k++) {
    tern_tensor *z = tern_add(columns(s, inner, k, k + 1), columns(s, zx, k, k + 1));
    a[k] = k == 2 ? squash(s, z) : gate(s, z);
    if (kept) kept[k] = a[k];
  }
  next[1] = tern_add(tern_mul(a[1], state[1]), tern_mul(a[0], a[2]));
  next[0] = tern_mul(a[3], squash(s, next[1]));
  if (kept) kept[4] = state[1];
  return next[0] != NULL;
}

/* What was kept: little is won by working anything out ahead, since it then comes from memory instead of the cache. */
static bool lstm_slopes(const tern__step *s, tern_tensor *before, tern_tensor *y, tern_tensor *const *kept,
                        tern_tensor **slope) {
  (void)s, (void)before, (void)y;
  for (int k = 0; k < 5; k++) slope[k] = kept[k];
  return true;
}

/* With t = tanh(c'): the gradient of c' grows by that of h' times o (1 - t^2), and that of a gate is that of c' or, of
   o, that of h', times what the gate was multiplied by and its own slope. */
static bool lstm_backward(const tern__step *s, tern_tensor *const *slope, tern_tensor *const *dnext, tern_tensor **dz,
                          tern_tensor **more, tern_tensor **dstate) {
  (void)s, (void)more;
  tern_tensor *i = slope[0], *f = slope[1], *g = slope[2], *o = slope[3], *c = slope[4], *dh = dnext[0];
  tern_tensor *t = tern_tanh(tern_add(tern_mul(f, c), tern_mul(i, g)));
  tern_tensor *dc = tern_add(dnext[1], tern_mul(tern_mul(dh, o), one_minus(tern_square(t))));
  tern_tensor *part[] = {
      tern_mul(tern_mul(dc, g), tern_mul(i, one_minus(i))), tern_mul(tern_mul(dc, c), tern_mul(f, one_minus(f))),
      tern_mul(tern_mul(dc, i), one_minus(tern_square(g))), tern_mul(tern_mul(dh, t), tern_mul(o, one_minus(o)))};
  *dz = tern_concat(part, 4, 1);
  dstate[0] = NULL;
  dstate[1] = tern_mul(dc, f);
  return *dz && dstate[1];
}

const tern__cell tern__cell_lstm = {.gates = 4,
                                    .states = 2,
                                    .kept = 5,
                                    .slopes = 5,
                                    .forward = lstm_forward,
                                    .slopes_of = lstm_slopes,
                                    .backward = lstm_backward};

/* ---- gru: gates z r h; h' = z h + (1 - z) hh ---- */

/* The reset gate behind the product: hh = f(zx + r (h U + b)). Kept are z, r, hh and what r was multiplied by. */
static bool gru_forward(const tern__step *s, tern_tensor *zx, tern_tensor *const *state, tern_tensor **next,
                        tern_tensor **kept) {
  tern_tensor *inner = product(s, state[0]);
  if (s->bias != TERN_NONE) inner = tern_add(inner, s->bias);
  tern_tensor *z = gate(s, tern_add(columns(s, zx, 0, 1), columns(s, inner, 0, 1)));
  tern_tensor *r = gate(s, tern_add(columns(s, zx, 1, 2), columns(s, inner, 1, 2)));
  tern_tensor *n = columns(s, inner, 2, 3);
  tern_tensor *hh = squash(s, tern_add(columns(s, zx, 2, 3), tern_mul(r, n)));
  next[0] = tern_add(tern_mul(z, state[0]), tern_mul(one_minus(z), hh));
  if (kept) kept[0] = z, kept[1] = r, kept[2] = hh, kept[3] = n;
  return next[0] != NULL;
}

/* The gradient of h' times a factor for each gate: slope[0] for the product, [time, batch, 3, units]; slope[1] for hh,
   whose product is behind r. */
static bool gru_slopes(const tern__step *s, tern_tensor *before, tern_tensor *y, tern_tensor *const *kept,
                       tern_tensor **slope) {
  (void)s, (void)y;
  tern_tensor *z = kept[0], *r = kept[1], *hh = kept[2], *n = kept[3];
  tern_tensor *to_hh = tern_mul(one_minus(z), one_minus(tern_square(hh)));
  tern_tensor *to_z = tern_mul(tern_sub(before, hh), tern_mul(z, one_minus(z)));
  tern_tensor *to_n = tern_mul(to_hh, r), *to_r = tern_mul(tern_mul(to_n, n), one_minus(r));
  slope[0] = tern_stack((tern_tensor *[]){to_z, to_r, to_n}, 3, 2);
  slope[1] = to_hh;
  slope[2] = z;
  return slope[0] && slope[1];
}

static bool gru_backward(const tern__step *s, tern_tensor *const *slope, tern_tensor *const *dnext, tern_tensor **dz,
                         tern_tensor **more, tern_tensor **dstate) {
  tern_tensor *dh = dnext[0];
  *dz = tern_reshape(tern_mul(tern_expand_dims(dh, 1), slope[0]), TERN_SHAPE(TERN_LIKE(dh, 0), 3 * s->units));
  *more = dh;
  dstate[0] = tern_mul(dh, slope[2]);
  return *dz && dstate[0];
}

static bool gru_finish(const tern__step *s, tern_tensor *const *slope, tern_tensor *dz, tern_tensor *more,
                       tern_tensor **dzx) {
  tern_tensor *same = tern_slice(dz, (tern_range[]){TERN_ALL, TERN_ALL, TERN_RANGE(0, 2 * s->units, 1)}, 3);
  *dzx = tern_concat((tern_tensor *[]){same, tern_mul(more, slope[1])}, 2, 2);
  return *dzx != NULL;
}

const tern__cell tern__cell_gru = {.gates = 3,
                                   .states = 1,
                                   .kept = 4,
                                   .slopes = 3,
                                   .split = true,
                                   .forward = gru_forward,
                                   .slopes_of = gru_slopes,
                                   .backward = gru_backward,
                                   .finish = gru_finish};

/* The reset gate before the product: hh = f(zx + (r h) U). */
static bool before_forward(const tern__step *s, tern_tensor *zx, tern_tensor *const *state, tern_tensor **next,
                           tern_tensor **kept) {
  tern_tensor *h = s->drop == TERN_NONE ? state[0] : tern_mul(state[0], s->drop);
  tern_tensor *inner = tern_matmul(h, columns(s, s->recurrent, 0, 2));
  tern_tensor *both = gate(s, tern_add(columns(s, zx, 0, 2), inner));
  tern_tensor *z = columns(s, both, 0, 1), *r = columns(s, both, 1, 2);
  tern_tensor *n = tern_matmul(tern_mul(r, h), columns(s, s->recurrent, 2, 3));
  tern_tensor *hh = squash(s, tern_add(columns(s, zx, 2, 3), n));
  (void)kept;
  next[0] = tern_add(tern_mul(z, state[0]), tern_mul(one_minus(z), hh));
  return next[0] != NULL;
}

const tern__cell tern__cell_gru_before = {.gates = 3, .states = 1, .forward = before_forward};
