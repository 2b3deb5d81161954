/* What the kinds of layers ask of their parameters and inputs. */
#include "nn/check.h"
#include "base/thread.h"
#include "tensor/dtype.h"
#include <math.h>
#include <stdio.h>

tern_rc tern__check_count(const char *kind, const char *what, int64_t given, int64_t least) {
  return given >= least && given <= INT32_MAX
             ? TERN_OK
             : tern__fail(TERN_E_ARG, "%s: %s is %lld; it must be at least %lld and at most %d", kind, what,
                          (long long)given, (long long)least, INT32_MAX);
}

tern_rc tern__check_range(const char *kind, const char *what, double given, double low, double high) {
  if (given >= low && given < high) return TERN_OK;
  if (isinf(high))
    return tern__fail(TERN_E_ARG, "%s: %s is %g; it must be finite and at least %g", kind, what, given, low);
  return tern__fail(TERN_E_ARG, "%s: %s is %g; it must be at least %g and less than %g", kind, what, given, low, high);
}

/* Puts the parameter before the error of `rc`, if that has just been recorded. */
static tern_rc named(const char *kind, const char *what, tern_rc rc) {
  char text[200];
  snprintf(text, sizeof text, "%s: %s: ", kind, what);
  if (rc) tern__error_prefix(text);
  return rc;
}

tern_rc tern__check_activation(const char *kind, const char *what, const char *name) {
  return named(kind, what, tern__activation_check(name));
}

tern_rc tern__check_initializer(const char *kind, const char *what, const char *name) {
  return named(kind, what, tern__initializer_check(name));
}

tern_rc tern__check_rank(int rank, int wanted, const char *axes) {
  return rank == wanted ? TERN_OK
                        : tern__fail(TERN_E_ARG, "its input has rank %d; it takes rank %d, %s", rank, wanted, axes);
}

double tern__number_or(double given, double standard) { return given != 0 || signbit(given) ? given : standard; }

tern_dtype tern__weight_dtype(tern_dtype x) { return tern__is_float(x) ? x : TERN_F32; }

tern_tensor *tern__as_float(tern_tensor *x) { return tern_cast(x, tern__weight_dtype(tern_dtype_get(x))); }

tern_tensor *tern__biased(tern_tensor *y, tern_tensor *bias, const char *activation) {
  if (y && bias) y = tern_add(y, bias);
  return activation ? tern_activate(activation, y) : y;
}
