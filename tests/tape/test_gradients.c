/* Every differentiable op of the table has gradient cases, and the rest are known to have none; the cases of the
   elementwise ops hold; and what checking numbers (TERN_CHECK_NUMERICS) says of gradients. */
#include "tape/gradients.h"
#include "ops/op.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The result is of integers or bools, or made of no operand, or its derivative is 0 wherever it has one. */
static const char *const no_gradient[] = {"sign",
                                          "floor",
                                          "ceil",
                                          "round",
                                          "trunc",
                                          "bitwise_not",
                                          "logical_not",
                                          "isnan",
                                          "isinf",
                                          "isfinite",
                                          "signbit",
                                          "floor_divide",
                                          "nextafter",
                                          "matmul_int32",
                                          "equal",
                                          "not_equal",
                                          "less",
                                          "less_equal",
                                          "greater",
                                          "greater_equal",
                                          "logical_and",
                                          "logical_or",
                                          "logical_xor",
                                          "bitwise_and",
                                          "bitwise_or",
                                          "bitwise_xor",
                                          "left_shift",
                                          "right_shift",
                                          "any",
                                          "all",
                                          "argmax",
                                          "argmin",
                                          "one_hot",
                                          "argsort",
                                          "searchsorted",
                                          "unique",
                                          "max_pool_index",
                                          "full",
                                          "arange",
                                          "eye",
                                          "random_uniform",
                                          "random_normal",
                                          "random_integers",
                                          "random_bernoulli",
                                          "random_bits"};
enum { N_NO_GRADIENT = sizeof no_gradient / sizeof *no_gradient, OPS = 512 };

/* Public functions that are made of ops of the table and are not in it. */
static const char *const made_of_ops[] = {"dot"};

typedef struct names {
  const char *name[OPS];
  int n;
} names;

static bool among(const char *name, const char *const *list, int n) {
  for (int i = 0; i < n; i++)
    if (!strcmp(list[i], name)) return true;
  return false;
}

static void note(const gradient_case *c, void *context) {
  names *all = context;
  if (all->n < OPS && !among(c->op, all->name, all->n)) all->name[all->n++] = c->op;
}

static void every_op(void) {
  static names tested;
  gradient_map_cases(note, &tested);
  gradient_reduce_cases(note, &tested);
  gradient_arrange_cases(note, &tested);
  gradient_nn_cases(note, &tested);
  gradient_loss_cases(note, &tested);
  int ops = 0;
  for (const tern__op *op; (op = tern__op_at(ops + 1)); ops++) {
    const bool none = among(op->name, no_gradient, N_NO_GRADIENT), cases = among(op->name, tested.name, tested.n);
    CHECK(none != cases, "%s: %s", op->name,
          none ? "has gradient cases, but stands in no_gradient"
               : "has no gradient case: write one, or add it to no_gradient");
    CHECK(!none || !op->grad, "%s has a gradient rule, but stands in no_gradient", op->name);
    CHECK(none || op->grad || !op->infer || !strcmp(op->name, "take_along_axis"),
          "%s is computed, has gradient cases and no rule", op->name);
  }
  for (int i = 0; i < N_NO_GRADIENT; i++)
    CHECK(tern__op_named(no_gradient[i]) != NULL, "%s: no such op", no_gradient[i]);
  const int n_made = (int)(sizeof made_of_ops / sizeof *made_of_ops);
  for (int i = 0; i < n_made; i++)
    CHECK(among(made_of_ops[i], tested.name, tested.n), "%s has no gradient case", made_of_ops[i]);
  for (int i = 0; i < tested.n; i++)
    CHECK(tern__op_named(tested.name[i]) || among(tested.name[i], made_of_ops, n_made), "%s: no such op",
          tested.name[i]);
  printf("(%d ops, %d of them without a gradient) ", ops, N_NO_GRADIENT);
}

static void maps(void) { gradient_check_all("elementwise ops", gradient_map_cases); }

/* Each operand's gradient has its own dtype, whatever they meet in. */
static void mixed_dtypes(void) {
  static const tern_dtype floats[] = {TERN_F32, TERN_F64, TERN_F16, TERN_BF16};
  tern_tensor *(*const ops[])(tern_tensor *, tern_tensor *) = {tern_mul,   tern_div,    tern_pow,
                                                               tern_hypot, tern_matmul, tern_maximum};
  static const char *const op[] = {"mul", "div", "pow", "hypot", "matmul", "maximum"};
  const double x[] = {1, 2, 0.5, 1.5}, y[] = {0.5, 1, 2, 3};
  for (int k = 0; k < 6; k++)
    for (int i = 0; i < 4; i++)
      for (int j = 0; j < 4; j++) {
        if (i == j || (k && i + j > 1 && k != 4)) continue;
        TERN_SCOPE;
        tern_tensor *a = test_tensor(TERN_SHAPE(2, 2), floats[i], x), *b = test_tensor(TERN_SHAPE(2, 2), floats[j], y);
        tern_tensor *const sources[] = {a, b};
        tern_tensor *g[2] = {NULL, NULL}, *wide[2];
        tern_tape *tape = tern_tape_begin(NULL);
        CHECK(!tern_tape_watch(tape, a) && !tern_tape_watch(tape, b), "%s", tern_error());
        if (!CHECK(!tern_tape_gradient(tape, ops[k](a, b), sources, 2, g), "%s: %s", op[k], tern_error())) return;
        CHECK(tern_dtype_get(g[0]) == floats[i] && tern_dtype_get(g[1]) == floats[j],
              "%s of %s and %s: gradients of %s and %s", op[k], tern_dtype_name(floats[i]), tern_dtype_name(floats[j]),
              tern_dtype_name(tern_dtype_get(g[0])), tern_dtype_name(tern_dtype_get(g[1])));
        tern_tensor *const wides[] = {tern_cast(a, TERN_F64), tern_cast(b, TERN_F64)};
        tape = tern_tape_begin(NULL);
        CHECK(!tern_tape_watch(tape, wides[0]) && !tern_tape_watch(tape, wides[1]), "%s", tern_error());
        CHECK(!tern_tape_gradient(tape, ops[k](wides[0], wides[1]), wides, 2, wide), "%s: %s", op[k], tern_error());
        for (int s = 0; s < 2; s++)
          CHECK(tern_allclose(tern_cast(g[s], TERN_F64), wide[s], 2e-2, 1e-2) == 1, "%s of %s and %s: gradient %d",
                op[k], tern_dtype_name(floats[i]), tern_dtype_name(floats[j]), s);
      }
  CHECK_NO_ERROR();
}

/* In a process with TERN_CHECK_NUMERICS=1: prints the error that the named computation gives. */
static int numerics(const char *what) {
  TERN_SCOPE;
  tern_tensor *x = tern_f64(TERN_SHAPE(3), 4, 0, 1), *g[1];
  if (strcmp(what, "sqrt") != 0) {
    const bool there = tern_log(tern_add(x, tern_scalar(!strcmp(what, "log") ? -2 : 2))) != NULL;
    printf("result %d: %s\n", there, tern_error());
  } else {
    tern_tape *tape = tern_tape_begin(NULL);
    const tern_rc rc = tern_tape_watch(tape, x);
    tern_tensor *y = tern_sum(tern_mul(tern_sqrt(x), tern_f64(TERN_SHAPE(3), 1, 0, 1)), NULL);
    const bool there = tern_tape_gradient(tape, y, &x, 1, g) == TERN_OK;
    printf("result %d %d: %s\n", (int)rc, there, tern_error());
  }
  tern_error_clear();
  return 0;
}

static void checked_numbers(void) {
  static const char *const environment[] = {"TERN_CHECK_NUMERICS=1", NULL};
  static const char *const unchecked[] = {"TERN_CHECK_NUMERICS=0", NULL};
  char text[4096];
  CHECK(test_child("fine", environment, text, sizeof text) == 0 && strstr(text, "result 1:"), "%s", text);
  CHECK(test_child("log", environment, text, sizeof text) == 0 && strstr(text, "result 0:") &&
            strstr(text, ": log is the first op") && strstr(text, "NaN"),
        "%s", text);
  CHECK(test_child("sqrt", environment, text, sizeof text) == 0 && strstr(text, "result 0 0:") &&
            strstr(text, "gradient of sqrt") && strstr(text, "div is the first op") && strstr(text, "NaN"),
        "%s", text);
  CHECK(test_child("log", unchecked, text, sizeof text) == 0 && strstr(text, "result 1:"), "%s", text);
  CHECK(test_child("sqrt", unchecked, text, sizeof text) == 0 && strstr(text, "result 0 1:"), "%s", text);
}

static const test_case cases[] = {{"every op has cases", every_op},
                                  {"elementwise ops", maps},
                                  {"mixed dtypes", mixed_dtypes},
                                  {"checked numbers", checked_numbers}};
TEST_MAIN_CHILD("gradients", cases, numerics)
