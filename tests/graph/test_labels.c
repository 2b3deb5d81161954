/* Labels and indices out of range in compiled functions: an error as it is eagerly where the host can see them, else
   what the header says: NaN for losses. The device tells for gathers. */
#include "support/values.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <tern/graph.h>
#include <tern/tern.h>

#define BODY(name) static tern_rc name(void *self, tern_tensor *const *in, int n_in, tern_tensor **out, int n_out)
#define UNUSED (void)self, (void)in, (void)n_in, (void)out, (void)n_out

enum { CLASSES = 3 };

static bool on_host(void) { return tern_default_device() && !strncmp(tern_default_device(), "cpu", 3); }

static tern_rc one(tern_tensor *y, tern_tensor **out) {
  *out = y;
  return y ? TERN_OK : tern_error_code();
}

typedef struct losing {
  bool computed, ignores, sparse;
  tern_loss_reduction reduction;
} losing;

static tern_tensor *loss_of(const losing *l, tern_tensor *logits, tern_tensor *labels) {
  const tern_loss_opts opts = {
      .reduction = l->reduction, .ignore = l->ignores, .ignore_class = l->ignores ? -7 : 0, .from_logits = 1};
  if (l->computed) labels = tern_neg(tern_neg(labels));
  return l->sparse ? tern_loss_sparse_categorical_crossentropy(labels, logits, &opts)
                   : tern_cross_entropy(logits, labels, &opts);
}

/* in: logits, labels */
BODY(loses) {
  (void)n_in, (void)n_out;
  return one(loss_of(self, in[0], in[1]), out);
}
/* The gradient behind it. */
BODY(loses_and_derives) {
  (void)n_out, (void)n_in;
  tern_tape *tape = tern_tape_begin(NULL);
  if (!tape || tern_tape_watch(tape, in[0]) || !(out[0] = loss_of(self, in[0], in[1]))) return tern_error_code();
  return tern_tape_gradient(tape, out[0], in, 1, out + 1);
}

static const double LOGITS[] = {0.5, -1, 2, 0, 1, 3, 1, 1, -2, 4, 0.25, 0};

/* Of each example; an ignored one has none, a wrong one NaN. */
static void by_hand(const int64_t *label, int n, bool ignores, double *loss, double *gradient) {
  for (int i = 0; i < n; i++) {
    const double *x = LOGITS + i * CLASSES;
    double sum = 0;
    for (int c = 0; c < CLASSES; c++) sum += exp(x[c]);
    const bool ignored = ignores && label[i] == -7, wrong = label[i] < 0 || label[i] >= CLASSES;
    loss[i] = ignored ? 0 : wrong ? NAN : log(sum) - x[label[i]];
    for (int c = 0; c < CLASSES; c++)
      gradient[i * CLASSES + c] = ignored ? 0 : wrong ? NAN : exp(x[c]) / sum - (c == label[i]);
  }
}

static tern_tensor *labels_of(const int64_t *label, int n, tern_dtype dtype) {
  double x[4];
  for (int i = 0; i < n; i++) x[i] = (double)label[i];
  return test_tensor(TERN_SHAPE(n), dtype, x);
}

/* In one function: right labels, wrong ones, right ones again; batches of 4 and of 2. */
static void losses(void) {
  static const int64_t label[][4] = {{0, 2, 1, 0}, {0, 2, 3, 1}, {1, -1, 0, 2}, {2, -7, 1, 1}, {1, 1, 0, 2}};
  for (int kind = 0; kind < 8; kind++) {
    losing l = {.computed = kind & 1, .ignores = kind & 2, .sparse = kind & 4, .reduction = TERN_LOSS_NONE};
    tern_function *f = tern_function_new(loses_and_derives, &l, 2, 2, &(tern_function_opts){.name = "step"});
    for (int call = 0; call < 10; call++) {
      TERN_SCOPE;
      const int64_t *now = label[call % 5];
      const int n = call < 5 ? 4 : 2;
      double loss[4], gradient[4 * CLASSES];
      char what[60];
      snprintf(what, sizeof what, "kind %d, call %d", kind, call);
      by_hand(now, n, l.ignores, loss, gradient);
      bool wrong = false;
      for (int i = 0; i < n; i++) wrong = wrong || isnan(loss[i]);
      const tern_dtype dtype = call % 2 ? TERN_I64 : TERN_I32;
      tern_tensor *in[] = {test_tensor(TERN_SHAPE(n, CLASSES), TERN_F32, LOGITS), labels_of(now, n, dtype)}, *out[2];
      const tern_rc rc = tern_function_run(f, in, 2, out, 2);
      if (wrong && on_host() && !l.computed) {
        char text[40];
        int at = 0;
        while (!isnan(loss[at])) at++;
        snprintf(text, sizeof text, "label %d (number %d of", (int)now[at], at);
        CHECK(rc == TERN_E_ARG, "%s: a label that is no class gave a result", what);
        CHECK(strstr(tern_error(), l.sparse ? "sparse_categorical_crossentropy" : "cross_entropy"), "%s", tern_error());
        CHECK(strstr(tern_error(), "there are 3"), "%s", tern_error());
        CHECK(strstr(tern_error(), "\"step\""), "%s", tern_error());
        CHECK_ERROR(TERN_E_ARG, text);
        tern_error_clear();
        continue;
      }
      CHECK(!rc, "%s: %s", what, tern_error());
      CHECK_VALUES(out[0], TERN_SHAPE(n), TERN_F32, loss, 8, 1e-6, what);
      CHECK_VALUES(out[1], TERN_SHAPE(n, CLASSES), TERN_F32, gradient, 8, 1e-6, what);
    }
    tern_function_info info = {0};
    tern_function_get_info(f, &info);
    CHECK(info.traces <= 4, "kind %d: %d traces", kind, info.traces); /* two dtypes, each for one size and for any */
    tern_function_release(f);
  }
  CHECK_NO_ERROR();
}

/* The mean, whose factor is one over a size that varies; the call of one result; labels reshaped inside; the number of
   classes varies too; a variable is not assigned when a label is wrong. */
BODY(updates) {
  (void)n_in, (void)n_out;
  tern_tensor *flat = tern_reshape(in[1], TERN_SHAPE(TERN_LIKE(in[1], 0)));
  tern_tensor *loss = tern_cross_entropy(in[0], flat, NULL);
  if (!loss || tern_assign_add(self, loss)) return tern_error_code();
  return one(loss, out);
}

static void means(void) {
  tern_tensor *sum = tern_variable(tern_scalar(0), NULL);
  tern_function *f = tern_function_new(updates, sum, 2, 1, NULL);
  double expected = 0;
  for (int n = 1; n < 6; n++)
    for (int classes = 2; classes < 5; classes++)
      for (int wrong = 0; wrong < 2; wrong++) {
        TERN_SCOPE;
        double x[5 * 4], label[5], mean = 0;
        for (int i = 0; i < n; i++) {
          double all = 0;
          label[i] = (i + n) % classes;
          for (int c = 0; c < classes; c++) all += exp(x[i * classes + c] = sin(i + 3 * c));
          mean += (log(all) - x[i * classes + (int)label[i]]) / n;
        }
        if (wrong) label[n - 1] = n % 2 ? classes : -1;
        if (wrong && !on_host()) continue;
        tern_tensor *in[] = {test_tensor(TERN_SHAPE(n, classes), TERN_F32, x),
                             test_tensor(TERN_SHAPE(n, 1), TERN_I64, label)};
        tern_tensor *y = tern_call(f, in[0], in[1]);
        char what[60];
        snprintf(what, sizeof what, "%d examples, %d classes", n, classes);
        if (wrong) {
          CHECK(!y, "%s: %g is a class", what, label[n - 1]);
          CHECK_ERROR(TERN_E_ARG, "is no class");
          tern_error_clear();
        } else {
          expected += mean;
          CHECK_VALUES(y, TERN_SHAPE(), TERN_F32, &mean, 8, 1e-6, what);
        }
        CHECK_VALUES(sum, TERN_SHAPE(), TERN_F32, &expected, 64, 0, what);
      }
  tern_function_info info = {0};
  tern_function_get_info(f, &info);
  CHECK(info.traces <= 4, "%d traces", info.traces);
  CHECK_NO_ERROR();
  tern_function_release(f);
  tern_release(sum);
}

/* The forward call tells, also where a tape watches; an eager constant is an error of the trace. */
BODY(knows_its_labels) {
  UNUSED;
  return one(tern_cross_entropy(in[0], tern_i64(TERN_SHAPE(2), 0, 3), NULL), out);
}

static void through(void) {
  TERN_SCOPE;
  losing l = {.reduction = TERN_LOSS_MEAN};
  tern_function *f = tern_function_new(loses, &l, 2, 1, NULL);
  tern_tensor *x = test_tensor(TERN_SHAPE(2, 3), TERN_F32, LOGITS), *y, *d;
  for (int call = 0; call < 4; call++) {
    tern_tensor *in[] = {x, tern_i64(TERN_SHAPE(2), 1, call % 2 ? 3 : 2)};
    tern_tape *tape = tern_tape_begin(NULL);
    CHECK(!tern_tape_watch(tape, x), "%s", tern_error());
    const tern_rc rc = tern_function_run(f, in, 2, &y, 1);
    if (call % 2 && on_host()) {
      CHECK_ERROR(TERN_E_ARG, "label 3 (number 1");
      tern_error_clear();
      tern_tape_end(tape);
      continue;
    }
    CHECK(!rc && !tern_tape_gradient(tape, y, &x, 1, &d), "%s", tern_error());
    double *g = test_values(d);
    CHECK(g && isnan(g[5]) == (call % 2) && !isnan(g[0]), "call %d", call);
    free(g);
  }
  tern_function_release(f);
  f = tern_function_new(knows_its_labels, NULL, 1, 1, NULL);
  y = tern_call(f, x);
  if (on_host()) {
    CHECK(!y, "3 is a class");
    CHECK_ERROR(TERN_E_ARG, "label 3 (number 1)");
    tern_error_clear();
  }
  tern_function_release(f);
  CHECK_NO_ERROR();
}

/* ---- indices ---- */

enum { TAKE, ALONG, NESTED, ONE_HOT, KINDS };

/* in: x [4, 3], indices [4] */
BODY(picks) {
  const int kind = *(const int *)self;
  (void)n_in, (void)n_out;
  if (kind == TAKE) return one(tern_take(in[0], in[1], 1), out);
  if (kind == ALONG) return one(tern_take_along_axis(in[0], tern_expand_dims(in[1], 1), 1), out);
  if (kind == ONE_HOT) return one(tern_one_hot(in[1], CLASSES, TERN_F32), out);
  tern_tensor *both[] = {tern_arange(0, 4, 1, TERN_I64), in[1]};
  return one(tern_gather_nd(in[0], tern_stack(both, 2, 1)), out);
}

static void indices(void) {
  for (int kind = 0; kind < KINDS; kind++) {
    tern_function *f = tern_function_new(picks, &kind, 2, 1, &(tern_function_opts){.name = "picker"});
    for (int call = 0; call < 6; call++) {
      TERN_SCOPE;
      static const int64_t index[][4] = {{0, 2, 1, -1}, {0, 3, 1, 2}, {-4, 0, 0, 0}};
      const bool wrong = call % 3 && kind != ONE_HOT;
      tern_tensor *in[] = {test_tensor(TERN_SHAPE(4, CLASSES), TERN_F32, LOGITS),
                           labels_of(index[call % 3], 4, TERN_I64)};
      tern_tensor *y = tern_call_n(f, in, 2);
      double *values = y ? test_values(y) : NULL; /* where the device has a queue, this tells */
      CHECK(!values == wrong, "kind %d, call %d: %s", kind, call, tern_error());
      if (wrong) {
        CHECK_ERROR(TERN_E_ARG, "out of range");
        CHECK(!on_host() || !y, "kind %d: the call went well", kind);
      }
      tern_error_clear();
      tern_sync(NULL);
      tern_error_clear();
      for (int k = 0; k < 4 && values; k++) {
        const int64_t i = index[call % 3][k], at = i < 0 ? i + CLASSES : i;
        if (kind == TAKE) /* of the first row */
          CHECK(values[k] == LOGITS[at], "take: %g", values[k]);
        else if (kind != ONE_HOT)
          CHECK(values[k] == LOGITS[k * CLASSES + at], "kind %d: %g", kind, values[k]);
        for (int c = 0; c < CLASSES && kind == ONE_HOT; c++)
          CHECK(values[k * CLASSES + c] == (c == i), "one_hot of %d", (int)i);
      }
      free(values);
    }
    tern_function_release(f);
  }
  CHECK_NO_ERROR();
}

static const test_case cases[] = {
    {"losses", losses}, {"means", means}, {"gradients from outside", through}, {"indices", indices}};
TEST_MAIN("labels", cases)
