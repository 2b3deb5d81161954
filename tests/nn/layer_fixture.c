/* See layer_fixture.h. */
#include "nn/layer_fixture.h"
#include "support/values.h"
#include <stdlib.h>
#include <string.h>

enum { MOST = FIXTURE_MAX_ARRAYS };
static const double tolerance = 3e-5;

typedef struct run { /* self of the compiled function */
  tern_layer *layer;
  bool masked;
  int n_weights;
  tern_tensor *weight[MOST];
} run;

static tern_tensor *tensor_of(const fixture_array *a) {
  return tern_constant((tern_shape){.rank = a->rank, .dim = {a->shape[0], a->shape[1], a->shape[2], a->shape[3]}},
                       a->dtype, a->data, a->count);
}

static void compare(tern_tensor *got, const fixture_array *want, const char *what) {
  double *values = malloc((want->count + 1) * sizeof *values);
  for (size_t i = 0; i < want->count; i++) values[i] = ((const float *)want->data)[i];
  CHECK_VALUES(got, ((tern_shape){.rank = want->rank, .dim = {want->shape[0], want->shape[1], want->shape[2]}}),
               TERN_F32, values, 0, tolerance, what);
  free(values);
}

/* x, dy, mask -> the result, gradients of x and of the weights */
static tern_rc body(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out) {
  const run *r = self;
  tern_tensor *sources[MOST] = {in[0]}, *y;
  (void)n_in, (void)n_out;
  tern_tape *tape = tern_tape_begin(NULL);
  if (!tape || tern_tape_watch(tape, in[0])) return TERN_E_OOM;
  y = tern_layer_call(r->layer, in[0], &(tern_layer_call_opts){.mask = r->masked ? in[2] : NULL});
  if (!y) return TERN_E_ARG;
  for (int i = 0; i < r->n_weights; i++) sources[i + 1] = r->weight[i];
  out[0] = y;
  return tern_tape_gradients(tape, &y, (tern_tensor *[]){in[1]}, 1, sources, r->n_weights + 1, out + 1, NULL);
}

static tern_tensor *part(tern_tensor *t, int64_t batch, int64_t time) {
  const tern_range of[] = {TERN_RANGE(0, batch, 1), TERN_RANGE(0, time, 1)};
  return t == TERN_NONE ? t : tern_contiguous(tern_slice(t, of, time ? 2 : 1));
}

/* The same numbers from the compiled function as eagerly, for other sizes too. */
static void compiled(run *r, const char *name, tern_tensor *const *in, int most_traces) {
  static const int64_t sizes[][2] = {{3, 5}, {2, 4}, {3, 2}, {1, 1}};
  const int n_out = r->n_weights + 2;
  tern_function *f = tern_function_new(body, r, 3, n_out, NULL);
  for (int i = 0; i < 4; i++) {
    TERN_SCOPE;
    char what[400];
    tern_tensor *a[MOST] = {0}, *b[MOST] = {0};
    const bool sequence = tern_rank(in[1]) == 3;
    tern_tensor *some[3] = {part(in[0], sizes[i][0], sizes[i][1]), part(in[1], sizes[i][0], sequence ? sizes[i][1] : 0),
                            part(in[2], sizes[i][0], sizes[i][1])};
    CHECK(body(r, some, 3, a, n_out) == TERN_OK, "%s: %s", name, tern_error());
    CHECK(tern_function_run(f, some, 3, b, n_out) == TERN_OK, "%s: %s", name, tern_error());
    for (int o = 0; o < n_out && a[o] && b[o]; o++) {
      snprintf(what, sizeof what, "%s: batch %d, time %d, result %d", name, (int)sizes[i][0], (int)sizes[i][1], o);
      CHECK(tern_allclose(b[o], a[o], 1e-5, 1e-5) == 1, "%s %s", what, tern_error());
    }
  }
  tern_function_info info = {0};
  CHECK(tern_function_get_info(f, &info) == TERN_OK, "%s: %s", name, tern_error());
  CHECK(info.traces <= most_traces, "%s: %d traces", name, info.traces);
  tern_function_release(f);
}

static void check_record(const fixture *f, const char *name, run *r, int most_traces) {
  const bool again = fixture_attr(f, "again", 0);
  tern_tensor *out[MOST] = {0};
  char what[400];
  r->masked = fixture_attr(f, "masked", 0);
  const int first = 2 + r->masked;
  tern_tensor *in[3] = {tensor_of(&f->in[0]), tensor_of(&f->in[r->masked + 1]),
                        r->masked ? tensor_of(&f->in[1]) : TERN_NONE};
  const tern_layer_call_opts opts = {.mask = in[2]};
  if (!CHECK(tern_layer_call(r->layer, in[0], &opts) != NULL, "%s: %s", name, tern_error())) return;
  r->n_weights = tern_layer_variables(r->layer, r->weight, MOST);
  if (!CHECK(r->n_weights == f->n_in - first, "%s: %d weights, Keras has %d", name, r->n_weights, f->n_in - first))
    return;
  for (int i = 0; i < r->n_weights; i++)
    CHECK(tern_assign(r->weight[i], tensor_of(&f->in[first + i])) == TERN_OK, "%s: %s", name, tern_error());
  tern_model *owner = again ? tern_sequential_n(&r->layer, 1) : NULL; /* what resets states */
  if (again) CHECK(owner && tern_reset_states(owner) == TERN_OK, "%s: %s", name, tern_error());
  if (CHECK(body(r, in, 3, out, r->n_weights + 2) == TERN_OK, "%s: %s", name, tern_error()))
    for (int i = 0; i < r->n_weights + 2; i++) {
      snprintf(what, sizeof what, "%s: %s %d", name, i ? "gradient" : "result", i);
      compare(out[i], &f->out[i], what);
    }
  if (again) {
    compare(tern_layer_call(r->layer, in[0], &opts), &f->out[r->n_weights + 2], "the second call");
    CHECK(tern_reset_states(owner) == TERN_OK, "%s: %s", name, tern_error());
    tern_function *g = tern_function_new(body, r, 3, r->n_weights + 2, NULL); /* its assignments are the graph's */
    CHECK(tern_function_run(g, in, 3, out, r->n_weights + 2) == TERN_OK, "%s: %s", name, tern_error());
    compare(out[0], &f->out[r->n_weights + 3], "behind a reset");
    compare(tern_layer_call(r->layer, in[0], &opts), &f->out[r->n_weights + 2], "the next");
    tern_function_release(g);
    tern_model_release(owner);
    r->layer = NULL;
  } else {
    compiled(r, name, in, most_traces);
  }
}

void layer_fixture_check(const char *file, layer_maker make, int stride, int most_traces) {
  fixtures reader;
  fixture f;
  int records = 0;
  const bool cpu = !strncmp(tern_default_device(), "cpu", 3);
  CHECK(fixtures_open(&reader, file), "%s: %s", file, reader.error);
  for (; fixtures_next(&reader, &f); records++) {
    TERN_SCOPE;
    char name[256];
    int at = snprintf(name, sizeof name, "%s", f.op);
    for (int i = 0; i < f.n_attrs && at < (int)sizeof name; i++)
      if (f.attr_value[i])
        at += snprintf(name + at, sizeof name - (size_t)at, " %s=%d", f.attr_name[i], (int)f.attr_value[i]);
    if (!cpu && records % stride) continue;
    run r = {.layer = make(&f)};
    if (!CHECK(r.layer != NULL, "%s: %s", name, tern_error())) continue;
    check_record(&f, name, &r, most_traces);
    tern_layer_release(r.layer);
    CHECK_NO_ERROR();
  }
  CHECK(!reader.error && records > 0, "%s: %s", file, reader.error ? reader.error : "no records");
  fixtures_close(&reader);
}
