/* Learning rates as functions of the step. Formulas: Keras 3, keras/src/optimizers/schedules; the cosine is that of
   Loshchilov and Hutter, "SGDR", 2017, without restarts. */
#include "base/thread.h"
#include "nn/optimizer.h"
#include <math.h>

tern_rc tern__schedule_check(const char *op, const tern_schedule *s) {
  if (s->kind < TERN_SCHEDULE_CONSTANT || s->kind > TERN_SCHEDULE_EXPONENTIAL)
    return tern__fail(TERN_E_ARG, "%s: %d is not a kind of schedule; use one of TERN_SCHEDULE_*", op, s->kind);
  if (!isfinite(s->rate) || !isfinite(s->factor) || !isfinite(s->floor_factor) || !isfinite(s->warmup_start))
    return tern__fail(TERN_E_ARG, "%s: the schedule's rate, factor, floor_factor and warmup_start must be finite", op);
  if (s->warmup < 0) return tern__fail(TERN_E_ARG, "%s: a warm-up of %lld steps", op, (long long)s->warmup);
  if ((s->kind == TERN_SCHEDULE_COSINE || s->kind == TERN_SCHEDULE_EXPONENTIAL) && s->steps <= 0)
    return tern__fail(TERN_E_ARG, "%s: the schedule's `steps` is %lld; it must be positive", op, (long long)s->steps);
  if (s->kind != TERN_SCHEDULE_STEP) return TERN_OK;
  if (s->n_boundaries < 0 || (s->n_boundaries && !s->boundaries))
    return tern__fail(TERN_E_ARG, "%s: a schedule with %d boundaries at NULL or none", op, s->n_boundaries);
  for (int i = 1; i < s->n_boundaries; i++)
    if (s->boundaries[i] <= s->boundaries[i - 1])
      return tern__fail(TERN_E_ARG, "%s: boundary %d of the schedule, %lld, is not above the one before, %lld", op, i,
                        (long long)s->boundaries[i], (long long)s->boundaries[i - 1]);
  for (int i = 0; s->values && i <= s->n_boundaries; i++)
    if (!isfinite(s->values[i])) return tern__fail(TERN_E_ARG, "%s: value %d of the schedule is not finite", op, i);
  return TERN_OK;
}

/* Without warm-up. */
static double plain(const tern_schedule *s, int64_t step) {
  if (s->kind == TERN_SCHEDULE_STEP) {
    int passed = 0;
    while (passed < s->n_boundaries && s->boundaries[passed] < step) passed++;
    return s->values ? s->values[passed] : s->rate * pow(s->factor, passed);
  }
  if (s->kind == TERN_SCHEDULE_EXPONENTIAL) {
    const double p = (double)step / (double)s->steps;
    return s->rate * pow(s->factor, s->staircase ? floor(p) : p);
  }
  if (s->kind == TERN_SCHEDULE_COSINE) {
    const double done = step < s->steps ? (double)step / (double)s->steps : 1;
    const double cosine = 0.5 * (1 + cos(3.14159265358979323846 * done));
    return s->rate * ((1 - s->floor_factor) * cosine + s->floor_factor);
  }
  return s->rate;
}

double tern_schedule_at(const tern_schedule *s, int64_t step) {
  if (!s) tern__fail(TERN_E_ARG, "schedule_at: the schedule is NULL");
  if (!s || tern__schedule_check("schedule_at", s)) return NAN;
  if (step < 0) step = 0;
  if (step >= s->warmup) return plain(s, step - s->warmup);
  return s->warmup_start + (plain(s, 0) - s->warmup_start) * ((double)step / (double)s->warmup);
}
