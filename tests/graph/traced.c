/* See traced.h. */
#include "graph/traced.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static double rounding(tern_dtype d) {
  return d == TERN_F64 ? 0x1p-52 : d == TERN_F16 ? 0x1p-10 : d == TERN_BF16 ? 0x1p-7 : d == TERN_F32 ? 0x1p-23 : 0;
}

static bool same_number(double a, double b) { return a == b || (isnan(a) && isnan(b)); }

bool traced_same(tern_tensor *got, tern_tensor *expected, double tolerance, double more, char *text, size_t size) {
  text[0] = 0;
  if (got == TERN_NONE || expected == TERN_NONE) {
    if (got == expected) return true;
    snprintf(text, size, "one of the two is none");
    return false;
  }
  const tern_shape a = tern_shape_get(got), b = tern_shape_get(expected);
  const tern_dtype d = tern_dtype_get(expected);
  if (tern_dtype_get(got) != d || a.rank != b.rank || memcmp(a.dim, b.dim, (size_t)a.rank * sizeof *a.dim)) {
    snprintf(text, size, "%s of rank %d (%lld, ..) instead of %s of rank %d (%lld, ..)",
             tern_dtype_name(tern_dtype_get(got)), a.rank, a.rank ? (long long)a.dim[0] : 0, tern_dtype_name(d), b.rank,
             b.rank ? (long long)b.dim[0] : 0);
    return false;
  }
  double *x = test_values(got), *y = test_values(expected), largest = 0;
  const int64_t n = x && y ? test_numel(a) : 0;
  bool same = x && y;
  if (!same) snprintf(text, size, "%s", tern_error());
  for (int64_t i = 0; i < n; i++)
    if (isfinite(y[i])) largest = fmax(largest, fabs(y[i]));
  const double slack = more + tolerance * rounding(d) * fmax(largest, tolerance > 0 ? 0x1p-14 : 0);
  for (int64_t i = 0; i < n && same; i++) {
    same = same_number(x[i], y[i]) || fabs(x[i] - y[i]) <= slack;
    if (!same)
      snprintf(text, size, "element %lld of %lld (%s) is %.17g instead of %.17g, more than %.3g apart", (long long)i,
               (long long)n, tern_dtype_name(d), x[i], y[i], slack);
  }
  free(x);
  free(y);
  return same;
}

/* What a call leaves: results, then the variables. */
static int keep(const traced *t, tern_tensor *const *out, tern_tensor **kept) {
  int n = 0;
  for (int o = 0; o < t->n_out; o++) kept[n++] = out[o];
  for (int v = 0; v < t->n_variables; v++) {
    tern_tensor *copy = tern_clone(t->variables[v]);
    if (!copy) return -1;
    kept[n++] = copy;
  }
  return n;
}

/* One call both ways. */
static bool compare_call(const traced *t, tern_function *f, int call, traced_count *count) {
  TERN_SCOPE;
  tern_tensor *in[TRACED_VALUES], *out[TRACED_VALUES], *expected[2 * TRACED_VALUES], *got[2 * TRACED_VALUES];
  memset(out, 0, sizeof out);
  tern_rc rc = t->operands(t->self, call, in);
  if (!rc) rc = t->body(t->self, in, t->n_in, out, t->n_out);
  if (rc || keep(t, out, expected) < 0) {
    count->left_out++;
    tern_error_clear();
    return true;
  }
  memset(out, 0, sizeof out);
  rc = t->operands(t->self, call, in);
  if (!rc) rc = tern_function_run(f, in, t->n_in, out, t->n_out);
  count->calls++;
  const int n = rc ? -1 : keep(t, out, got);
  if (!CHECK(n >= 0, "%s, call %d: %s", t->name, call, tern_error())) {
    tern_error_clear();
    return false;
  }
  for (int i = 0; i < n; i++) {
    char text[200];
    count->compared++;
    if (!CHECK(traced_same(got[i], expected[i], t->tolerance, t->slack ? t->slack[i] : 0, text, sizeof text),
               "%s, call %d, %s %d: %s", t->name, call, i < t->n_out ? "result" : "variable",
               i < t->n_out ? i : i - t->n_out, text))
      return false;
  }
  return true;
}

static void explain(const traced *t, tern_function *f) {
  char *text = tern_explain(f);
  printf("%s: %.2000s\n", t->name, text ? text : "");
  free(text);
}

bool traced_check(const traced *t, const tern_function_opts *opts, traced_count *count) {
  tern_function *f = tern_function_new(t->body, t->self, t->n_in, t->n_out, opts);
  bool ok = f != NULL;
  count->functions++;
  for (int call = 0; call < t->n_calls && ok; call++) ok = compare_call(t, f, call, count);
  if (!ok && f && getenv("TERN_TEST_VERBOSE")) explain(t, f);
  tern_function_info info;
  if (f && !tern_function_get_info(f, &info) && info.traces > (t->n_calls > 4 ? 5 : 2)) {
    count->many_traces++;
    if (getenv("TERN_TEST_VERBOSE")) explain(t, f);
  }
  tern_function_release(f);
  return ok;
}
