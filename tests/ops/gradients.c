/* Two nested tapes: the inner one gives the first derivatives, the outer one differentiates them. Tolerances are
   relative to the largest value expected in an array: what sums of terms of that size can be held to. */
#include "ops/gradients.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

double record_double(const fixture *f, const char *name, double otherwise) {
  int64_t bits;
  memcpy(&bits, &otherwise, sizeof bits);
  bits = fixture_attr(f, name, bits);
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static double tolerance(tern_dtype d, int order) {
  const double one = d == TERN_F64 ? 1e-12 : d == TERN_F32 ? 1e-6 : d == TERN_F16 ? 2e-3 : 1.6e-2;
  return one * (order == 0 ? 4 : order == 1 ? 10 : 20);
}

static void compare(const fixture *f, int record, const char *what, int order, tern_tensor *got,
                    const fixture_array *expected) {
  char text[160];
  snprintf(text, sizeof text, "%s, record %d, %s, %s", f->op, record, tern_dtype_name(f->in[0].dtype), what);
  const double *e = expected->data;
  double largest = 0;
  for (size_t i = 0; i < expected->count; i++)
    if (isfinite(e[i])) largest = fmax(largest, fabs(e[i]));
  if (got == TERN_NONE) {
    CHECK(largest == 0, "%s: no gradient came", text);
    return;
  }
  CHECK_VALUES(got, tern_shape_of(expected->rank, expected->shape), TERN_NO_DTYPE, e, 0,
               tolerance(f->in[0].dtype, order) * fmax(largest, order ? 0.1 : 1e-3), text);
}

static tern_tensor *upload(const fixture_array *a) {
  return tern_constant(tern_shape_of(a->rank, a->shape), a->dtype, a->data, a->count);
}

void check_record(const fixture *f, int record, record_call call) {
  TERN_SCOPE;
  const int n = (int)fixture_attr(f, "operands", 0);
  const uint64_t first = (uint64_t)fixture_attr(f, "first", 0), again = (uint64_t)fixture_attr(f, "again", 0);
  const bool second = fixture_attr(f, "second", 0);
  tern_tensor *in[FIXTURE_MAX_ARRAYS], *sources[FIXTURE_MAX_ARRAYS], *gradients[FIXTURE_MAX_ARRAYS];
  for (int i = 0; i < f->n_in; i++) in[i] = upload(&f->in[i]);
  tern_tape *outer = second ? tern_tape_begin(NULL) : NULL, *inner = tern_tape_begin(NULL);
  int n_first = 0, through = 0, out = 1;
  for (int i = 0; i < n; i++) {
    if (!((first | again) >> i & 1)) continue;
    CHECK(!(second && tern_tape_watch(outer, in[i])) && !tern_tape_watch(inner, in[i]), "watch: %s", tern_error());
    if (i == fixture_attr(f, "through", 0)) through = n_first;
    if (first >> i & 1) sources[n_first++] = in[i];
  }
  tern_tensor *y = call(f, in);
  compare(f, record, "result", 0, y, &f->out[0]);
  if (y && n_first &&
      !CHECK(!tern_tape_gradients(inner, &y, &in[n], 1, sources, n_first, gradients, NULL), "%s, record %d: %s", f->op,
             record, tern_error()))
    y = NULL;
  for (int i = 0; y && i < n_first; i++) {
    char what[40];
    snprintf(what, sizeof what, "derivative %d", i);
    compare(f, record, what, 1, gradients[i], &f->out[out++]);
  }
  if (y && second) {
    tern_tensor *target = gradients[through], *results[FIXTURE_MAX_ARRAYS];
    int count = 0;
    for (int i = 0; i < n; i++)
      if (again >> i & 1) sources[count++] = in[i];
    if (CHECK(!tern_tape_gradients(outer, &target, &in[n + 1], 1, sources, count, results, NULL),
              "%s, record %d, second: %s", f->op, record, tern_error()))
      for (int i = 0; i < count; i++) compare(f, record, "second derivative", 2, results[i], &f->out[out++]);
  }
  CHECK_NO_ERROR();
  tern_tape_end(inner);
  tern_tape_end(outer);
}

void check_records(const char *file, record_call (*choose)(const char *op), int least) {
  char path[1024];
  fixtures reader;
  fixture record;
  int run = 0;
  snprintf(path, sizeof path, "%s/ops/%s", TERN_FIXTURES, file);
  if (!CHECK(fixtures_open(&reader, path), "%s: %s", path, reader.error ? reader.error : "?")) return;
  while (fixtures_next(&reader, &record)) {
    const record_call call = choose(record.op);
    if (call) check_record(&record, reader.record, call);
    run += call != NULL;
  }
  CHECK(!reader.error && run >= least, "%s: %s, %d records of at least %d", path, reader.error ? reader.error : "read",
        run, least);
  fixtures_close(&reader);
}
