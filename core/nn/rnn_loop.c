/* A cell over all steps. Where its derivatives are written out the recurrence is one custom gradient: the way there
   keeps what each step had, stacked; the way back scans from the last step to the first for the gradient of the gates
   alone, and the gradients of the recurrent weights are then one product over all steps (as Appleyard, Kocisky and
   Blunsom, 2016, do). Else a tape sees through the scan. */
#include "base/alloc.h"
#include "base/thread.h"
#include "nn/rnn.h"
#include "tape/tape.h"
#include <stdlib.h>

/* operands of the custom gradient */
enum { ZX, RECURRENT, BIAS, DROP, MASK, STATES, MOST_IN = STATES + TERN__RNN_STATES };
enum { MOST_OUT = 2 * TERN__RNN_STATES + 2 + TERN__RNN_KEPT };

/* What a gradient may need after the layer is gone. */
typedef struct loop {
  const tern__cell *cell;
  int64_t units;
  bool keeps, sequence;
} loop;

/* Results: last states; outputs; states that came in (0), what the cell kept. */
static int results_of(const loop *l) {
  return l->cell->states + (l->sequence || l->keeps) + (l->keeps ? 1 + l->cell->kept : 0);
}

/* ---- there ---- */

typedef struct trip {
  const loop *l;
  const tern__step *s;
  bool masked;
} trip;

/* states, zx, mask -> states, output, state that came in, kept */
static tern_rc step_there(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const trip *t = self;
  const int n = t->l->cell->states;
  (void)n_in, (void)n_out;
  if (!t->l->cell->forward(t->s, in[n], in, out, t->l->keeps ? out + n + 2 : NULL)) return tern__recorded();
  for (int k = 0; k < n && t->masked; k++) out[k] = tern_where(in[n + 1], out[k], in[k]);
  if (t->l->sequence || t->l->keeps) out[n] = out[0];
  if (t->l->keeps) out[n + 1] = in[0];
  for (int k = 0; k < n_out; k++)
    if (!out[k]) return tern__recorded();
  return TERN_OK;
}

static tern_rc there(const loop *l, const tern__step *s, tern_tensor *zx, tern_tensor *mask, tern_tensor *const *state,
                     tern_tensor **out) {
  const trip t = {l, s, mask != TERN_NONE};
  return tern_scan(step_there, (void *)(uintptr_t)&t, state, l->cell->states, (tern_tensor *[]){zx, mask}, 1 + t.masked,
                   out, results_of(l) - l->cell->states, NULL);
}

/* ---- back ---- */

typedef struct trip_back {
  const loop *l;
  const tern__step *s;
  tern_tensor *transposed; /* recurrent kernel [gates * units, units] */
  bool masked, seeded;
} trip_back;

/* gradients of states; slopes, mask, gradients of outputs -> gradients of the states that came in; dz, more */
static tern_rc step_back(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const trip_back *t = self;
  const tern__cell *cell = t->l->cell;
  const int n = cell->states;
  tern_tensor *const *slope = in + n, *const *rest = slope + cell->slopes;
  tern_tensor *dnext[TERN__RNN_STATES], *dstate[TERN__RNN_STATES] = {0}, *through[TERN__RNN_STATES];
  tern_tensor *mask = t->masked ? *rest++ : NULL, *dz, *more = NULL;
  (void)n_in;
  for (int k = 0; k < n; k++) {
    dnext[k] = through[k] = k == 0 && t->seeded ? tern_add(in[k], *rest) : in[k];
    if (mask) dnext[k] = tern_where(mask, dnext[k], tern_scalar(0));
  }
  if (!cell->backward(t->s, slope, dnext, &dz, &more, dstate)) return tern__recorded();
  tern_tensor *dh = tern_matmul(dz, t->transposed);
  if (t->s->drop != TERN_NONE) dh = tern_mul(dh, t->s->drop);
  dstate[0] = dstate[0] ? tern_add(dh, dstate[0]) : dh;
  for (int k = 0; k < n; k++) out[k] = mask ? tern_where(mask, dstate[k], through[k]) : dstate[k];
  out[n] = dz;
  if (cell->split) out[n + 1] = more;
  for (int k = 0; k < n_out; k++)
    if (!out[k]) return tern__recorded();
  return TERN_OK;
}

/* [time, batch, n] as [time * batch, n]. */
static tern_tensor *rows(tern_tensor *x, int64_t n) { return tern_reshape(x, TERN_SHAPE(-1, n)); }

/* The gradients of all operands, from the results of the scan: states, dz, more. */
static tern_rc gather(const loop *l, const tern__step *s, tern_tensor *before, tern_tensor *const *slope,
                      tern_tensor *const *found, tern_tensor *const *in, int n_in, tern_tensor **din) {
  const tern__cell *cell = l->cell;
  const int n = cell->states;
  tern_tensor *dz = found[n], *flat = rows(dz, cell->gates * l->units);
  for (int i = 0; i < n_in; i++) din[i] = TERN_NONE;
  din[ZX] = dz;
  if (cell->split && !cell->finish(s, slope, dz, found[n + 1], &din[ZX])) return tern__recorded();
  if (in[DROP] != TERN_NONE) before = tern_mul(before, in[DROP]);
  din[RECURRENT] = tern_matmul(tern_transpose(rows(before, l->units)), flat);
  if (in[BIAS] != TERN_NONE) din[BIAS] = tern_sum(flat, TERN_AXES(0));
  for (int k = 0; k < n; k++) din[STATES + k] = found[k];
  for (int i = 0; i < n_in; i++)
    if (!din[i]) return tern__recorded();
  return TERN_OK;
}

static tern_rc back(void *self, tern_tensor *const *in, int n_in, tern_tensor *const *out,
                    tern_tensor *const *out_gradients, int n_out, tern_tensor **din) {
  const loop *l = self;
  const tern__cell *cell = l->cell;
  const int n = cell->states;
  tern_tensor *carry[TERN__RNN_STATES], *xs[TERN__RNN_SLOPES + 2], *found[TERN__RNN_STATES + 2];
  tern_tensor *y = out[n], *before = out[n + 1], *dy = out_gradients[n];
  const tern__step s = {.units = l->units, .usual = true, .recurrent = in[RECURRENT], .drop = in[DROP]};
  for (int k = n + 1; k < n_out; k++)
    if (out_gradients[k] != TERN_NONE)
      return tern__fail(TERN_E_UNSUPPORTED, "a second derivative of a recurrent layer needs both tapes open when the "
                                            "layer is called");
  if (!cell->slopes_of(&s, before, y, out + n + 2, xs)) return tern__recorded();
  const trip_back t = {l, &s, tern_contiguous(tern_transpose(in[RECURRENT])), in[MASK] != TERN_NONE, dy != TERN_NONE};
  int n_xs = cell->slopes;
  if (t.masked) xs[n_xs++] = in[MASK];
  if (t.seeded) xs[n_xs++] = dy;
  for (int k = 0; k < n; k++) carry[k] = out_gradients[k] == TERN_NONE ? tern_zeros_like(out[k]) : out_gradients[k];
  const tern_rc rc = tern_scan(step_back, (void *)(uintptr_t)&t, carry, n, xs, n_xs, found, 1 + cell->split,
                               &(tern_scan_loop_opts){.reverse = 1});
  return rc ? rc : gather(l, &s, before, xs, found, in, n_in, din);
}

/* ---- both ---- */

static tern_rc there_body(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const loop *l = self;
  const tern__step s = {.units = l->units,
                        .activation = "tanh",
                        .recurrent_activation = "sigmoid",
                        .usual = true,
                        .recurrent = in[RECURRENT],
                        .bias = in[BIAS],
                        .drop = in[DROP]};
  (void)n_in, (void)n_out;
  return there(l, &s, in[ZX], in[MASK], in + STATES, out);
}

static tern_rc by_rule(const tern__recurrence *r, tern_tensor **out, int n_out) {
  loop *l = tern__calloc(1, sizeof *l);
  if (!l) return tern__fail(TERN_E_OOM, "out of host memory");
  *l = (loop){r->cell, r->step.units, true, r->sequence};
  tern_tensor *in[MOST_IN] = {r->zx, r->step.recurrent, r->step.bias, r->step.drop, r->mask};
  for (int k = 0; k < r->cell->states; k++) in[STATES + k] = r->state[k];
  return tern_custom_gradient(there_body, back, l, free, in, STATES + r->cell->states, out, n_out);
}

/* Whether one derivative is all that can be asked for: the rule has no more. */
static bool first_order(void) {
  const tern__thread *t = tern__thread_get();
  return t && t->recorder && !t->recorder->paused && __builtin_popcount(t->recorder->active) == 1;
}

tern_rc tern__recur(const tern__recurrence *r, tern_tensor **last, tern_tensor **all) {
  const bool rule = r->cell->slopes_of && r->step.usual && first_order();
  const loop l = {r->cell, r->step.units, rule, r->sequence};
  tern_tensor *out[MOST_OUT];
  const tern_rc rc = rule ? by_rule(r, out, results_of(&l)) : there(&l, &r->step, r->zx, r->mask, r->state, out);
  for (int k = 0; k < r->cell->states; k++) last[k] = rc ? NULL : out[k];
  *all = rc || !r->sequence ? NULL : out[r->cell->states];
  return rc;
}
