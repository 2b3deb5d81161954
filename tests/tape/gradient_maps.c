/* Gradient cases of the elementwise ops, generated: each function with shapes that broadcast, host scalars, one tensor
   as both operands. */
#include "tape/gradients.h"
#include <string.h>

/* ---- one operand ---- */

typedef struct unary {
  const char *op;
  tern_tensor *(*f)(tern_tensor *x);
  double low, high, away;
} unary;
static tern_tensor *gelu(tern_tensor *x) { return tern_gelu(x, NULL); }
static tern_tensor *gelu_tanh(tern_tensor *x) { return tern_gelu(x, &(tern_gelu_opts){.tanh_form = 1}); }

/* Where each is smooth. */
static const unary unaries[] = {
    {"copy", tern_clone, -2, 2, 0},
    {"neg", tern_neg, -2, 2, 0},
    {"abs", tern_abs, -2, 2, 0.2},
    {"square", tern_square, -2, 2, 0},
    {"sqrt", tern_sqrt, 0.3, 3, 0},
    {"rsqrt", tern_rsqrt, 0.4, 3, 0},
    {"reciprocal", tern_reciprocal, -2, 2, 0.4},
    {"cbrt", tern_cbrt, -2, 2, 0.3},
    {"exp", tern_exp, -1.5, 1.5, 0},
    {"exp2", tern_exp2, -1.5, 1.5, 0},
    {"expm1", tern_expm1, -1.5, 1.5, 0},
    {"log", tern_log, 0.3, 3, 0},
    {"log2", tern_log2, 0.3, 3, 0},
    {"log10", tern_log10, 0.3, 3, 0},
    {"log1p", tern_log1p, -0.6, 2, 0},
    {"sin", tern_sin, -3, 3, 0},
    {"cos", tern_cos, -3, 3, 0},
    {"tan", tern_tan, -1.1, 1.1, 0},
    {"asin", tern_asin, -0.8, 0.8, 0},
    {"acos", tern_acos, -0.8, 0.8, 0},
    {"atan", tern_atan, -2, 2, 0},
    {"sinh", tern_sinh, -2, 2, 0},
    {"cosh", tern_cosh, -2, 2, 0},
    {"tanh", tern_tanh, -2, 2, 0},
    {"asinh", tern_asinh, -2, 2, 0},
    {"acosh", tern_acosh, 1.3, 3, 0},
    {"atanh", tern_atanh, -0.8, 0.8, 0},
    {"erf", tern_erf, -1.5, 1.5, 0},
    {"erfc", tern_erfc, -1.5, 1.5, 0},
    {"erfinv", tern_erfinv, -0.8, 0.8, 0},
    {"sinpi", tern_sinpi, -1, 1, 0},
    {"cospi", tern_cospi, -1, 1, 0},
    {"relu", tern_relu, -2, 2, 0.1},
    {"sigmoid", tern_sigmoid, -3, 3, 0},
    {"silu", tern_silu, -3, 3, 0},
    {"gelu", gelu, -2, 2, 0},
    {"gelu", gelu_tanh, -2, 2, 0},
};
static tern_tensor *run_unary(tern_tensor *const *x, int i) { return unaries[i].f(x[0]); }

static void visit_unaries(gradient_visit visit, void *context) {
  static const struct {
    const char *form;
    tern_shape shape;
  } forms[] = {{"(2, 3)", {2, {2, 3}}}, {"()", {0, {0}}}, {"(0, 3)", {2, {0, 3}}}, {"(2, 3, 4)", {3, {2, 3, 4}}}};
  for (size_t i = 0; i < sizeof unaries / sizeof *unaries; i++)
    for (size_t k = 0; k < sizeof forms / sizeof *forms; k++) {
      const unary *u = &unaries[i];
      const gradient_case c = {.op = u->op,
                               .form = forms[k].form,
                               .body = run_unary,
                               .number = (int)i,
                               .in = {{forms[k].shape, u->low, u->high, u->away, 0}},
                               .flags = k ? GRADIENT_MINOR : 0};
      visit(&c, context);
    }
}

/* ---- two operands ---- */

typedef struct binary {
  const char *op;
  tern_tensor *(*f)(tern_tensor *a, tern_tensor *b);
  gradient_input a, b;
  bool not_itself; /* f(a, a) has a kink everywhere */
} binary;
#define OF(from, to, gap) \
  { .low = (from), .high = (to), .away = (gap) }
static const binary binaries[] = {
    {"add", tern_add, OF(-2, 2, 0), OF(-2, 2, 0), false},
    {"sub", tern_sub, OF(-2, 2, 0), OF(-2, 2, 0), false},
    {"mul", tern_mul, OF(-2, 2, 0), OF(-2, 2, 0), false},
    {"div", tern_div, OF(-2, 2, 0.3), OF(-2, 2, 0.5), false},
    {"remainder", tern_remainder, OF(-5.8, -5.2, 0), OF(2, 2.05, 0), true}, /* a / b between whole numbers */
    {"fmod", tern_fmod, OF(-5.8, -5.2, 0), OF(2, 2.05, 0), true},
    {"pow", tern_pow, OF(0.5, 2, 0), OF(-2, 2, 0.3), false},
    {"maximum", tern_maximum, OF(-2, 2, 0), OF(-2, 2, 0), false},
    {"minimum", tern_minimum, OF(-2, 2, 0), OF(-2, 2, 0), false},
    {"atan2", tern_atan2, OF(-2, 2, 0.4), OF(-2, 2, 0.4), false},
    {"hypot", tern_hypot, OF(-2, 2, 0.4), OF(-2, 2, 0.4), false},
    {"copysign", tern_copysign, OF(-2, 2, 0.2), OF(-2, 2, 0.2), false},
    {"logaddexp", tern_logaddexp, OF(-2, 2, 0), OF(-2, 2, 0), false},
};

/* A host number from the range of an operand. */
static tern_tensor *number_of(const gradient_input *in) {
  const double x = in->low + 0.85 * (in->high - in->low);
  return tern_scalar(x > 0 ? x + in->away : x - in->away);
}
static tern_tensor *run_binary(tern_tensor *const *x, int i) { return binaries[i].f(x[0], x[1]); }
static tern_tensor *run_scalar_right(tern_tensor *const *x, int i) {
  return binaries[i].f(x[0], number_of(&binaries[i].b));
}
static tern_tensor *run_scalar_left(tern_tensor *const *x, int i) {
  return binaries[i].f(number_of(&binaries[i].a), x[0]);
}
static tern_tensor *run_itself(tern_tensor *const *x, int i) { return binaries[i].f(x[0], x[0]); }

static gradient_input shaped(gradient_input in, tern_shape shape) {
  in.shape = shape;
  return in;
}

static void visit_binaries(gradient_visit visit, void *context) {
  static const struct {
    const char *form;
    tern_shape a, b;
  } forms[] = {{"(2, 3) and (2, 3)", {2, {2, 3}}, {2, {2, 3}}}, {"(3, 1) and (4,)", {2, {3, 1}}, {1, {4}}},
               {"() and (2, 3)", {0, {0}}, {2, {2, 3}}},        {"(2, 3) and ()", {2, {2, 3}}, {0, {0}}},
               {"(0, 3) and (1, 3)", {2, {0, 3}}, {2, {1, 3}}}, {"() and ()", {0, {0}}, {0, {0}}}};
  const tern_shape plain = {2, {2, 3}};
  for (size_t i = 0; i < sizeof binaries / sizeof *binaries; i++) {
    const binary *b = &binaries[i];
    for (size_t k = 0; k < sizeof forms / sizeof *forms; k++) {
      const gradient_case c = {.op = b->op,
                               .form = forms[k].form,
                               .body = run_binary,
                               .number = (int)i,
                               .in = {shaped(b->a, forms[k].a), shaped(b->b, forms[k].b)},
                               .flags = k > 1 ? GRADIENT_MINOR : 0};
      visit(&c, context);
    }
    const gradient_case right = {
        b->op, "a host number on the right", run_scalar_right, (int)i, {shaped(b->a, plain)}, 0, 0, 0};
    const gradient_case left = {
        b->op, "a host number on the left", run_scalar_left, (int)i, {shaped(b->b, plain)}, GRADIENT_MINOR, 0, 0};
    const gradient_case itself = {b->op, "itself twice", run_itself, (int)i, {shaped(b->a, plain)}, GRADIENT_MINOR, 0,
                                  0};
    visit(&right, context);
    visit(&left, context);
    if (!b->not_itself) visit(&itself, context);
  }
}

/* ---- the rest ---- */

/* Alternating, of a shape. */
static tern_tensor *some(tern_shape shape) {
  uint8_t data[GRADIENT_NUMEL];
  for (int i = 0; i < GRADIENT_NUMEL; i++) data[i] = i % 3 != 1;
  return tern_constant(shape, TERN_BOOL, data, (size_t)test_numel(shape));
}
static tern_tensor *where(tern_tensor *const *x, int form) {
  static const tern_shape shape[] = {{2, {2, 3}}, {2, {3, 1}}, {0, {0}}};
  return tern_where(some(shape[form]), x[0], x[1]);
}
static tern_tensor *where_scalar(tern_tensor *const *x, int left) {
  tern_tensor *c = some(tern_shape_get(x[0]));
  return left ? tern_where(c, tern_scalar(2), x[0]) : tern_where(c, x[0], tern_scalar(2));
}
/* The values decide where they go; the condition itself has no gradient. */
static tern_tensor *where_positive(tern_tensor *const *x, int form) {
  (void)form;
  return tern_where(tern_greater(x[0], tern_scalar(0)), tern_square(x[0]), tern_neg(x[0]));
}
static tern_tensor *clip(tern_tensor *const *x, int form) {
  if (form == 1) return tern_clip(x[0], x[1], TERN_NONE);
  if (form == 2) return tern_clip(x[0], TERN_NONE, x[1]);
  if (form == 3) return tern_clip(x[0], tern_scalar(-0.8), tern_scalar(0.9));
  return tern_clip(x[0], x[1], x[2]);
}
/* Negative bases with whole exponents; and 0 to the 0, 1, 2. */
static tern_tensor *pow_whole(tern_tensor *const *x, int form) { return tern_pow(x[0], tern_scalar(form)); }
static tern_tensor *cast_there_and_back(tern_tensor *const *x, int form) {
  (void)form;
  return tern_cast(tern_cast(x[0], TERN_F32), TERN_F64);
}
/* Integer operands: no gradient is asked for them, and x's keeps its dtype. */
static tern_tensor *with_integers(tern_tensor *const *x, int form) {
  static const int32_t three[] = {3, -1, 2};
  static const uint8_t bits[] = {1, 0, 1};
  tern_tensor *i = tern_constant((tern_shape){1, {3}}, TERN_I32, three, 3);
  tern_tensor *b = tern_constant((tern_shape){1, {3}}, TERN_BOOL, bits, 3);
  if (form == 0) return tern_mul(x[0], i);
  if (form == 1) return tern_div(i, x[0]);
  if (form == 2) return tern_pow(x[0], i);
  return tern_add(tern_mul(x[0], b), tern_cast(i, TERN_I64));
}

/* To another device, where there is one, and back. */
static tern_tensor *to_and_back(tern_tensor *const *x, int form) {
  (void)form;
  const char *here = tern_device_get(x[0]);
  tern_device_desc d;
  tern_tensor *y = tern_square(x[0]);
  for (int i = 0; !tern_device_at(i, &d); i++)
    if (strcmp(d.name, here)) return tern_to(tern_square(tern_to(y, d.name)), here);
  return tern_to(tern_square(tern_to(y, here)), here);
}

static const gradient_case others[] = {
    ROW("where", "all shapes equal", where, 0, 0, IN(-2, 2, 2, 3), IN(-2, 2, 2, 3)),
    ROW("where", "broadcast", where, 1, GRADIENT_MINOR, IN(-2, 2, 4), IN(-2, 2, 1, 4)),
    ROW("where", "scalars", where, 2, GRADIENT_MINOR, IN(-2, 2, ), IN(-2, 2, 2, 3)),
    ROW("where", "empty", where, 1, GRADIENT_MINOR, IN(-2, 2, 3, 0), IN(-2, 2, 3, 1)),
    ROW("where", "a host number on the right", where_scalar, 0, GRADIENT_MINOR, IN(-2, 2, 2, 3)),
    ROW("where", "a host number on the left", where_scalar, 1, GRADIENT_MINOR, IN(-2, 2, 2, 3)),
    ROW("where", "a condition of x", where_positive, 0, GRADIENT_MINOR, IN_AWAY(-2, 2, 0.2, 2, 3)),
    ROW("clip", "both sides", clip, 0, 0, IN(-2, 2, 3, 4), IN(-1.2, -0.6, 4), IN(0.5, 1.1, 3, 1)),
    ROW("clip", "low", clip, 1, GRADIENT_MINOR, IN(-2, 2, 3, 4), IN(-1.2, -0.6, )),
    ROW("clip", "high", clip, 2, GRADIENT_MINOR, IN(-2, 2, 4), IN(0.5, 1.1, 3, 4)),
    ROW("clip", "host numbers", clip, 3, GRADIENT_MINOR, IN(-2, 2, 3, 4)),
    ROW("pow", "negative bases, cubed", pow_whole, 3, 0, IN_AWAY(-2, 2, 0.2, 2, 3)),
    ROW("pow", "with zeros, to the 0", pow_whole, 0, GRADIENT_MINOR, IN_ZEROS(-2, 2, 2, 2, 3)),
    ROW("pow", "with zeros, to the 1", pow_whole, 1, GRADIENT_MINOR, IN_ZEROS(-2, 2, 2, 2, 3)),
    ROW("pow", "with zeros, to the 2", pow_whole, 2, GRADIENT_MINOR, IN_ZEROS(-2, 2, 2, 2, 3)),
    ROW("pow", "with zeros, to the 3", pow_whole, 3, GRADIENT_MINOR, IN_ZEROS(-2, 2, 2, 2, 3)),
    ROW("mul", "by integers", with_integers, 0, GRADIENT_MINOR, IN(-2, 2, 2, 3)),
    ROW("div", "of integers", with_integers, 1, GRADIENT_MINOR | GRADIENT_WIDE_ONLY, IN_AWAY(-2, 2, 0.4, 2, 3)),
    ROW("pow", "to integers", with_integers, 2, GRADIENT_MINOR, IN_AWAY(-2, 2, 0.4, 2, 3)),
    ROW("add", "integers and bools", with_integers, 3, GRADIENT_MINOR, IN(-2, 2, 2, 3)),
    /* the steps between float32 numbers are small beside a large step of the differences */
    {"cast", "to float32 and back", cast_there_and_back, 0, {IN(-2, 2, 2, 3)}, GRADIENT_WIDE_ONLY, 0.125, 20},
    ROW("to", "another device and back", to_and_back, 0, 0, IN(-2, 2, 2, 3)),
};

void gradient_map_cases(gradient_visit visit, void *context) {
  visit_unaries(visit, context);
  visit_binaries(visit, context);
  GRADIENT_ROWS(others, visit, context);
}
