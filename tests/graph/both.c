/* Eager and traced, side by side. */
#include "graph/both.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 16 };

int both_same(const char *name, int result, tern_tensor *got, tern_tensor *expected, double ulps, double absolute) {
  char what[160];
  snprintf(what, sizeof what, "%s, result %d", name, result);
  double *values = expected ? test_values(expected) : NULL;
  if (!CHECK(values, "%s: no expected value: %s", what, tern_error())) return 0;
  tern_shape shape = {.rank = tern_rank(expected)};
  for (int d = 0; d < shape.rank; d++) shape.dim[d] = tern_dim(expected, d);
  const int same = CHECK_VALUES(got, shape, tern_dtype_get(expected), values, ulps, absolute, what);
  free(values);
  return same;
}

void both_ways(const char *name, tern_function_body body, void *self, tern_tensor *const *in, int n_in,
               tern_tensor **out, int n_out, double ulps, double absolute) {
  tern_tensor *expected[MOST] = {0}, *got[MOST] = {0};
  const tern_rc rc = body(self, in, n_in, expected, n_out);
  CHECK(rc == 0, "%s: eagerly %s: %s", name, tern_rc_name(rc), tern_error());
  tern_error_clear();
  for (int o = 0; out && o < n_out; o++) out[o] = expected[o];
  for (int way = 0; way < 3 && !rc; way++) {
    const tern_function_opts opts = {.name = name, .no_fuse = way == 1, .no_simplify = way == 2};
    tern_function *f = tern_function_new(body, self, n_in, n_out, &opts);
    for (int call = 0; call < 2; call++) {
      TERN_SCOPE;
      const tern_rc traced = tern_function_run(f, in, n_in, got, n_out);
      CHECK(traced == 0, "%s: traced %s: %s", name, tern_rc_name(traced), tern_error());
      tern_error_clear();
      for (int o = 0; o < n_out && !traced; o++) both_same(name, o, got[o], expected[o], ulps, absolute);
      if (traced) break;
    }
    tern_function_info info = {0};
    tern_function_get_info(f, &info);
    CHECK(info.traces == 1, "%s: %d traces", name, info.traces);
    tern_function_release(f);
  }
}

static double loss_of(tern_function_body body, void *self, tern_tensor *const *in, int n_in) {
  TERN_SCOPE;
  tern_tensor *out[MOST] = {0};
  if (body(self, in, n_in, out, n_in + 1)) return NAN;
  double *v = test_values(out[0]);
  const double loss = v ? v[0] : NAN;
  free(v);
  return loss;
}

void both_differences(const char *name, tern_function_body body, void *self, tern_tensor *const *in, int n_in,
                      double step, double absolute) {
  TERN_SCOPE;
  tern_tensor *out[MOST] = {0}, *moved[MOST];
  CHECK(body(self, in, n_in, out, n_in + 1) == 0, "%s: %s", name, tern_error());
  for (int i = 0; i < n_in; i++) {
    double *x = test_values(in[i]), *g = out[1 + i] ? test_values(out[1 + i]) : NULL;
    tern_shape shape = {.rank = tern_rank(in[i])};
    for (int d = 0; d < shape.rank; d++) shape.dim[d] = tern_dim(in[i], d);
    memcpy(moved, in, (size_t)n_in * sizeof *moved);
    for (int64_t k = 0; g && k < test_numel(shape); k++) {
      const double at = x[k];
      x[k] = at + step;
      moved[i] = test_tensor(shape, tern_dtype_get(in[i]), x);
      const double up = loss_of(body, self, moved, n_in);
      x[k] = at - step;
      moved[i] = test_tensor(shape, tern_dtype_get(in[i]), x);
      const double down = loss_of(body, self, moved, n_in), slope = (up - down) / (2 * step);
      x[k] = at;
      CHECK(fabs(slope - g[k]) <= absolute * (1 + fabs(slope)), "%s: gradient %d, element %d: %g, differences say %g",
            name, i, (int)k, g[k], slope);
    }
    CHECK(g, "%s: gradient %d is missing", name, i);
    free(x);
    free(g);
  }
}
