/* Regions that a device refuses run as parts, and parts that it refuses on the host, with the CPU's results: on
   simulated devices (plugins/virtual) without float64, with one node a kernel, with next to no primitives. */
#include "device/device.h"
#include "dispatch/dispatch.h"
#include "ops/update.h"
#include "support/values.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NO_FLOAT64 "dtypes=bool|int8|int16|int32|int64|uint8|uint16|uint32|uint64|float16|bfloat16|float32"
#define DEVICES "no64:" NO_FLOAT64 ";parts:nodes=1;both:nodes=1," NO_FLOAT64 ";copies:ops=copy"
static const char *const devices[] = {"virtual:no64", "virtual:parts", "virtual:both", "virtual:copies"};
enum { N_DEVICES = sizeof devices / sizeof *devices };

static tern_counters counters(const char *device) {
  tern_counters n = {0};
  CHECK(tern_counters_get(device, &n) == TERN_OK, "%s", tern_error());
  return n;
}

/* Some numbers in (-2, 2), on the default device. */
static tern_tensor *numbers(tern_shape shape, tern_dtype dtype, uint64_t seed) {
  double x[64];
  for (int i = 0; i < 64; i++) x[i] = test_uniform(&seed, -2, 2);
  return test_tensor(shape, dtype, x);
}

/* Whether both are NaN or close, element by element; dtypes and shapes the same. */
static void same(tern_tensor *got, tern_tensor *expected, double tolerance, const char *what, const char *device) {
  if (!CHECK(got && expected, "%s on %s: %s", what, device, tern_error())) {
    tern_error_clear();
    return;
  }
  const tern_dtype dtype = tern_dtype_get(expected);
  double *values = test_values(expected);
  const double digit = dtype == TERN_F16 ? 2e-3 : dtype == TERN_BF16 ? 2e-2 : dtype == TERN_F32 ? 1e-6 : 1e-13;
  double size = 1;
  for (int64_t i = 0; values && i < tern_size(expected); i++)
    if (isfinite(values[i]) && fabs(values[i]) > size) size = fabs(values[i]);
  char name[160];
  snprintf(name, sizeof name, "%s on %s", what, device);
  if (CHECK(values != NULL, "%s: %s", name, tern_error()))
    CHECK_VALUES(got, tern_shape_get(expected), dtype, values, 0, tolerance > 0 ? tolerance * digit * size : 0, name);
  free(values);
}

/* ---- every op of the table ---- */

static tern_tensor *sampled(const tern__op *op, tern_dtype dtype) {
  const tern_shape shape = {2, {2, 3}};
  const tern__sample s = {op, dtype, tern_ones(shape, dtype), tern_ones(shape, dtype)};
  tern_set_seed(5);
  tern_tensor *y = s.x && s.y ? op->sample(&s) : NULL;
  return y && y != TERN_NONE ? tern_to(y, "cpu") : y;
}

static void test_ops(void) {
  int n = 0;
  for (int number = 1; tern__op_at(number); number++) {
    const tern__op *op = tern__op_at(number);
    for (tern_dtype dtype = TERN_BOOL; dtype < TERN_DTYPE_END; dtype++) {
      if (!(op->dtypes >> dtype & 1) || !op->sample) continue;
      TERN_SCOPE;
      CHECK(tern_set_device("cpu") == TERN_OK, "%s", tern_error());
      tern_tensor *expected = sampled(op, dtype);
      if (!CHECK(expected != NULL, "%s: %s", op->name, tern_error())) continue;
      for (int d = 0; d < N_DEVICES; d++) {
        CHECK(tern_set_device(devices[d]) == TERN_OK, "%s", tern_error());
        char what[96];
        snprintf(what, sizeof what, "%s of %s", op->name, tern_dtype_name(dtype));
        tern_tensor *got = sampled(op, dtype);
        if (expected != TERN_NONE) same(got, expected, 8, what, devices[d]);
        n++;
      }
      CHECK_NO_ERROR();
    }
  }
  tern_set_device("cpu");
  CHECK(n > 4000, "%d samples", n);
}

/* ---- regions with what is easily overlooked: numbers alone, sizes, indices, casts into and out of float64 ---- */

/* Numbers multiply numbers: dout / n, the smoothed target's two, a label's NaN. */
static tern_tensor *entropy(tern_dtype dtype, bool classes, bool smooth) {
  tern_tensor *x = numbers(TERN_SHAPE(5, 4), dtype, 1);
  tern_tensor *labels =
      classes ? tern_i64(TERN_SHAPE(5), 3, 0, 1, 2, 1) : tern_softmax(numbers(TERN_SHAPE(5, 4), dtype, 2), 1);
  const tern_loss_opts opts = {.label_smoothing = smooth ? 0.25 : 0};
  tern_tape *outer = tern_tape_begin(NULL), *tape = tern_tape_begin(NULL);
  tern_tensor *first = NULL, *second = NULL;
  if (tern_tape_watch(outer, x) || tern_tape_watch(tape, x)) return NULL;
  tern_tensor *y = tern_cross_entropy(x, labels, &opts);
  if (tern_tape_gradient(tape, y, &x, 1, &first)) return NULL;
  if (tern_tape_gradient(outer, tern_sum(tern_square(first), NULL), &x, 1, &second)) return NULL;
  return tern_concat((tern_tensor *[]){tern_reshape(y, TERN_SHAPE(1)), tern_reshape(first, TERN_SHAPE(20)),
                                       tern_reshape(second, TERN_SHAPE(20))},
                     3, 0);
}

static tern_tensor *forms(int form) {
  switch (form) {
  case 0: return entropy(TERN_F64, true, false);
  case 1: return entropy(TERN_F64, false, false);
  case 2: return entropy(TERN_F64, true, true);
  case 3: return entropy(TERN_F64, false, true);
  case 4: return entropy(TERN_F32, true, true);
  case 5: return tern_mean(tern_i64(TERN_SHAPE(2, 3), 1, 2, 3, 4, 5, 9), TERN_AXES(1)); /* float64 inside */
  case 6: return tern_add(tern_cast(tern_scalar(0.1), TERN_F64), tern_cast(tern_scalar(3), TERN_I32));
  case 7: return tern_std(numbers(TERN_SHAPE(4, 6), TERN_F64, 3), TERN_AXES(0));
  case 8: return tern_div(tern_i32(TERN_SHAPE(3), 1, 2, 3), tern_i32(TERN_SHAPE(3, 1), 7, 8, 9)); /* float64 out */
  case 9: return tern_cast(tern_mul(tern_f64(TERN_SHAPE(2), 0.1, 1e300), tern_scalar(2)), TERN_F32);
  case 10: return tern_layer_norm(numbers(TERN_SHAPE(3, 8), TERN_F64, 4), TERN_NONE, TERN_NONE, NULL);
  case 11:
    return tern_equal(tern_i64(TERN_SHAPE(2), 1, 2),
                      tern_cast(tern_i64(TERN_SHAPE(2), 1, 3), TERN_U64)); /* compared in float64 */
  case 12: return tern_gelu(tern_permute(numbers(TERN_SHAPE(2, 3, 4), TERN_F64, 5), NULL, 3), NULL);
  case 13: return tern_softmax(tern_slice(numbers(TERN_SHAPE(6, 6), TERN_F64, 6), &TERN_RANGE(TERN_OPEN, 0, -2), 1), 0);
  case 14: return tern_softmax(numbers(TERN_SHAPE(1, 1), TERN_F64, 7), 1); /* every size is 1 */
  case 15: return tern_argmax(numbers(TERN_SHAPE(4, 5), TERN_F64, 8), TERN_AXES(0));
  default: return TERN_NONE;
  }
}

static void test_forms(void) {
  for (int form = 0;; form++) {
    TERN_SCOPE;
    CHECK(tern_set_device("cpu") == TERN_OK, "%s", tern_error());
    tern_tensor *expected = forms(form);
    if (expected == TERN_NONE) break;
    for (int d = 0; d < N_DEVICES; d++) {
      CHECK(tern_set_device(devices[d]) == TERN_OK, "%s", tern_error());
      char what[32];
      snprintf(what, sizeof what, "form %d", form);
      const tern_counters before = counters(NULL);
      same(tern_to(forms(form), "cpu"), expected, 8, what, devices[d]);
      const tern_counters after = counters(NULL);
      CHECK(d != 1 || after.fallbacks == before.fallbacks, "%s on %s: %llu nodes on the host", what, devices[d],
            (unsigned long long)(after.fallbacks - before.fallbacks));
      CHECK(d != 0 || form > 3 || (after.fallbacks > before.fallbacks && after.splits > before.splits),
            "%s on %s runs in parts", what, devices[d]);
    }
    CHECK_NO_ERROR();
  }
  tern_set_device("cpu");
}

/* ---- several results in one region, over their own operands ---- */

typedef struct rule {
  const tern__op *op;
  uint64_t bits;
  int slots, scalars;
} rule;
static const rule rules[] = {
    {&tern__op_sgd_update, TERN__UPDATE_MOMENTUM | TERN__UPDATE_NESTEROV | TERN__UPDATE_LIMIT, 1, 3},
    {&tern__op_adam_update, TERN__UPDATE_AMSGRAD | TERN__UPDATE_DECAY, 3, 5},
    {&tern__op_rmsprop_update, TERN__UPDATE_MOMENTUM | TERN__UPDATE_CENTERED, 3, 5},
    {&tern__op_adagrad_update, TERN__UPDATE_DECAY, 1, 3},
    {&tern__op_lion_update, TERN__UPDATE_DECAY, 1, 6},
};

/* The variable and its slots after an update, in place or into other tensors, one behind the other. */
static tern_tensor *updated(const rule *r, tern_dtype dtype, bool in_place) {
  tern_tensor *in[TERN__MAX_ARGS], *out[4];
  int n = 0;
  for (int i = 0; i < 2 + r->slots; i++) {
    tern_tensor *x = numbers(TERN_SHAPE(3, 4), dtype, 30 + (uint64_t)i);
    in[n++] = i < 2 ? x : tern_add(tern_abs(x), tern_scalar(i == 3 ? 3 : 1)); /* a variance above its mean's square */
  }
  const int n_out = 1 + r->slots;
  for (int o = 0; o < n_out; o++) out[o] = in_place ? in[o ? o + 1 : 0] : tern_zeros(TERN_SHAPE(3, 4), dtype);
  const int room = TERN__MAX_ARGS - n - n_out; /* the other scalars are attributes */
  tern_word attr[8] = {{.u = r->bits}};
  int n_attr = 1;
  for (int k = 0; k < r->scalars; k++) {
    const double x = k == 0 ? 0.5 : 0.125 * (1 + k);
    if (k < room)
      in[n++] = tern_scalar(x);
    else
      attr[n_attr++].f = x;
  }
  for (int o = 0; o < n_out; o++)
    if (!out[o]) return NULL;
  if (tern__run_into(r->op, in, n, attr, n_attr, out, n_out)) return NULL;
  tern_tensor *flat[4];
  for (int o = 0; o < n_out; o++) flat[o] = tern_to(tern_reshape(out[o], TERN_SHAPE(12)), "cpu");
  return tern_concat(flat, n_out, 0);
}

static void test_updates(void) {
  static const tern_dtype dtypes[] = {TERN_F64, TERN_F32, TERN_F16};
  for (size_t r = 0; r < sizeof rules / sizeof *rules; r++)
    for (int k = 0; k < 6; k++) {
      TERN_SCOPE;
      CHECK(tern_set_device("cpu") == TERN_OK, "%s", tern_error());
      tern_tensor *expected = updated(&rules[r], dtypes[k / 2], false);
      for (int d = 0; d < N_DEVICES; d++) {
        CHECK(tern_set_device(devices[d]) == TERN_OK, "%s", tern_error());
        same(updated(&rules[r], dtypes[k / 2], k % 2), expected, 8, rules[r].op->name, devices[d]);
      }
      CHECK_NO_ERROR();
    }
  tern_set_device("cpu");
}

/* Rows that are written into a matrix: what lies between them stays. */
static void test_gaps(void) {
  for (int d = 0; d < N_DEVICES; d++) {
    TERN_SCOPE;
    CHECK(tern_set_device(devices[d]) == TERN_OK, "%s", tern_error());
    tern_tensor *rows[] = {tern_f64(TERN_SHAPE(2, 1), 1, 2), tern_f64(TERN_SHAPE(2, 2), 3, 4, 5, 6)};
    CHECK_LIST(tern_concat(rows, 2, 1), TERN_SHAPE(2, 3), TERN_F64, 1, 3, 4, 2, 5, 6);
    tern_tensor *v = tern_variable(tern_f64(TERN_SHAPE(4), 1, 2, 3, 4), NULL);
    CHECK(v && !tern_assign_add(v, tern_f64(TERN_SHAPE(4), 1, 1, 1, 1)), "%s", tern_error());
    CHECK_LIST(v, TERN_SHAPE(4), TERN_F64, 2, 3, 4, 5);
    CHECK_NO_ERROR();
  }
  tern_set_device("cpu");
}

/* ---- TERN_FALLBACK ---- */

static int child(const char *name) {
  (void)name;
  {
    TERN_SCOPE;
    tern_with_device("virtual:no64");
    tern_tensor *y = entropy(TERN_F64, true, false), *again = y ? entropy(TERN_F64, true, false) : NULL;
    if (again)
      printf("value %.6f fallbacks\n", tern_item(tern_slice(again, &TERN_RANGE(0, 1, 1), 1)));
    else
      printf("failed %s: %s\n", tern_rc_name(tern_error_code()), tern_error());
    tern_error_clear();
  }
  return tern_finish();
}

static int count(const char *in, const char *part) {
  int n = 0;
  for (const char *at = in; (at = strstr(at, part)); at += strlen(part)) n++;
  return n;
}

static void test_modes(void) {
  static char text[65536];
  test_child("entropy", (const char *const[]){"TERN_FALLBACK=silent", NULL}, text, sizeof text);
  CHECK(strstr(text, "value ") && !strstr(text, "runs on the host"), "silent: %s", text);
  test_child("entropy", (const char *const[]){"TERN_FALLBACK=warn", NULL}, text, sizeof text);
  CHECK(strstr(text, "value ") &&
            count(text, ": its part AMAX: virtual:no64 does not compute it on float64; it runs") == 1 &&
            count(text, ": its part WHERE: virtual:no64 does not") == 1,
        "warn: %s", text);
  test_child("entropy", (const char *const[]){"TERN_FALLBACK=error", NULL}, text, sizeof text);
  CHECK(strstr(text, "failed TERN_E_UNSUPPORTED") &&
            strstr(text, "virtual:no64 does not compute it on float64, and TERN_FALLBACK=error forbids the host"),
        "error: %s", text);
}

static const test_case cases[] = {{"every op", test_ops},
                                  {"forms of regions", test_forms},
                                  {"several results", test_updates},
                                  {"gaps", test_gaps},
                                  {"TERN_FALLBACK", test_modes}};

int main(int argc, char **argv) {
  setenv("TERN_PLUGIN_PATH", TERN_PLUGINS ":" TERN_TEST_PLUGINS, 1);
  setenv("TERN_VIRTUAL_DEVICES", DEVICES, 1);
  if (argc < 2 || strcmp(argv[1], "--child") != 0) setenv("TERN_FALLBACK", "silent", 1);
  return test_main_with_child(argc, argv, "plugins/fallback", cases, (int)(sizeof cases / sizeof *cases), child);
}
