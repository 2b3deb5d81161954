/* One MAP node as a C expression: a template for floats and one for integers, by primitive. $0 $1 $2 are the operands
   (names or literals, so they may be repeated), $T the C type, $U its unsigned arithmetic type, $B its bits, $F the
   suffix f or d. */
#include <stdio.h>
#include <string.h>

#include "render_internal.h"

const char *const render__ctype[TERN_DTYPE_END] = {"",       "uchar", "char",  "short", "int",   "long",  "uchar",
                                                   "ushort", "uint",  "ulong", "float", "float", "float", "double"};
const char *const render__storage[TERN_DTYPE_END] = {"",       "uchar", "char",  "short",  "int",    "long",  "uchar",
                                                     "ushort", "uint",  "ulong", "ushort", "ushort", "float", "double"};

typedef struct form {
  uint32_t op;
  const char *real, *integer;
  bool exact; /* a 16-bit float result needs no rounding */
} form;
static const form forms[] = {
    {TERN_OP_COPY, "$0", "$0", true},
    {TERN_OP_NEG, "(-$0)", "(($T)(($U)0 - ($U)$0))", true},
    {TERN_OP_EXP, "t_exp_$F($0)", NULL, false},
    {TERN_OP_SQRT, "sqrt($0)", NULL, false},
    {TERN_OP_ABS, "fabs($0)", "($0 < 0 ? ($T)(($U)0 - ($U)$0) : $0)", true},
    {TERN_OP_SIGN, "($0 != $0 ? $0 : ($T)(($0 > 0) - ($0 < 0)))", "(($T)(($0 > 0) - ($0 < 0)))", true},
    {TERN_OP_RSQRT, "(($T)1 / sqrt($0))", NULL, false},
    {TERN_OP_RECIPROCAL, "(($T)1 / $0)", NULL, false},
    {TERN_OP_EXP2, "exp2($0)", NULL, false},
    {TERN_OP_EXPM1, "expm1($0)", NULL, false},
    {TERN_OP_LOG, "log($0)", NULL, false},
    {TERN_OP_LOG2, "log2($0)", NULL, false},
    {TERN_OP_LOG10, "log10($0)", NULL, false},
    {TERN_OP_LOG1P, "log1p($0)", NULL, false},
    {TERN_OP_CBRT, "cbrt($0)", NULL, false},
    {TERN_OP_SIN, "sin($0)", NULL, false},
    {TERN_OP_COS, "cos($0)", NULL, false},
    {TERN_OP_TAN, "tan($0)", NULL, false},
    {TERN_OP_ASIN, "asin($0)", NULL, false},
    {TERN_OP_ACOS, "acos($0)", NULL, false},
    {TERN_OP_ATAN, "atan($0)", NULL, false},
    {TERN_OP_SINH, "sinh($0)", NULL, false},
    {TERN_OP_COSH, "cosh($0)", NULL, false},
    {TERN_OP_TANH, "tanh($0)", NULL, false},
    {TERN_OP_ASINH, "asinh($0)", NULL, false},
    {TERN_OP_ACOSH, "acosh($0)", NULL, false},
    {TERN_OP_ATANH, "atanh($0)", NULL, false},
    {TERN_OP_ERF, "erf($0)", NULL, false},
    {TERN_OP_ERFC, "erfc($0)", NULL, false},
    {TERN_OP_ERFINV, "t_erfinv_$F($0)", NULL, false},
    {TERN_OP_SINPI, "t_sinpi_$F($0)", NULL, false},
    {TERN_OP_COSPI, "t_cospi_$F($0)", NULL, false},
    {TERN_OP_FLOOR, "floor($0)", NULL, true},
    {TERN_OP_CEIL, "ceil($0)", NULL, true},
    {TERN_OP_ROUND, "rint($0)", NULL, true},
    {TERN_OP_TRUNC, "trunc($0)", NULL, true},
    {TERN_OP_NOT, NULL, "(($T)~$0)", true},
    {TERN_OP_ISNAN, "($0 != $0)", NULL, true},
    {TERN_OP_ISINF, "(fabs($0) == ($T)INFINITY)", NULL, true},
    {TERN_OP_ISFINITE, "(fabs($0) < ($T)INFINITY)", NULL, true},
    {TERN_OP_SIGNBIT, "t_signbit_$F($0)", NULL, true},
    {TERN_OP_ADD, "($0 + $1)", "(($T)(($U)$0 + ($U)$1))", false},
    {TERN_OP_SUB, "($0 - $1)", "(($T)(($U)$0 - ($U)$1))", false},
    {TERN_OP_MUL, "($0 * $1)", "(($T)(($U)$0 * ($U)$1))", false},
    {TERN_OP_DIV, "($0 / $1)", NULL, false},
    {TERN_OP_MAXIMUM, "($0 > $1 || $0 != $0 ? $0 : $1)", "($0 > $1 ? $0 : $1)", true},
    {TERN_OP_MINIMUM, "($0 < $1 || $0 != $0 ? $0 : $1)", "($0 < $1 ? $0 : $1)", true},
    {TERN_OP_POW, "pow($0, $1)", "(($T)t_pow_$S($0, $1))", false},
    {TERN_OP_FLOORDIV, "t_floordiv_$F($0, $1)", "(($T)t_floordiv_$S($0, $1))", false},
    {TERN_OP_MOD, "t_mod_$F($0, $1)", "(($T)t_mod_$S($0, $1))", false},
    {TERN_OP_FMOD, "fmod($0, $1)", "(($T)t_fmod_$S($0, $1))", false},
    {TERN_OP_ATAN2, "atan2($0, $1)", NULL, false},
    {TERN_OP_HYPOT, "hypot($0, $1)", NULL, false},
    {TERN_OP_COPYSIGN, "copysign($0, $1)", NULL, true},
    {TERN_OP_NEXTAFTER, "t_nextafter_$F($0, $1)", NULL, true},
    {TERN_OP_AND, NULL, "(($T)($0 & $1))", true},
    {TERN_OP_OR, NULL, "(($T)($0 | $1))", true},
    {TERN_OP_XOR, NULL, "(($T)($0 ^ $1))", true},
    {TERN_OP_SHL, NULL, "($1 < 0 || $1 >= $B ? ($T)0 : ($T)(($U)$0 << $1))", true},
    {TERN_OP_SHR, NULL, "($1 < 0 || $1 >= $B ? ($T)($0 < 0 ? -1 : 0) : ($T)($0 >> $1))", true},
    {TERN_OP_EQ, "($0 == $1)", "($0 == $1)", true},
    {TERN_OP_NE, "($0 != $1)", "($0 != $1)", true},
    {TERN_OP_LT, "($0 < $1)", "($0 < $1)", true},
    {TERN_OP_LE, "($0 <= $1)", "($0 <= $1)", true},
    {TERN_OP_GT, "($0 > $1)", "($0 > $1)", true},
    {TERN_OP_GE, "($0 >= $1)", "($0 >= $1)", true},
    {TERN_OP_WHERE, "($0 ? $1 : $2)", "($0 ? $1 : $2)", true},
};

static bool is_signed(uint32_t dtype) { return dtype >= TERN_I8 && dtype <= TERN_I64; }

static void expand(render_text *t, const char *template, uint32_t dtype, const char *const *in) {
  const size_t item = nest_item_size(dtype);
  for (const char *c = template; *c; c++) {
    if (*c != '$') {
      render__put(t, "%c", *c);
      continue;
    }
    switch (*++c) {
    case 'T': render__put(t, "%s", render__ctype[dtype]); break;
    case 'U': render__put(t, "%s", item == 8 ? "ulong" : "uint"); break;
    case 'B': render__put(t, "%zu", 8 * item); break;
    case 'F': render__put(t, "%s", dtype == TERN_F64 ? "d" : "f"); break;
    case 'S': render__put(t, "%s", is_signed(dtype) ? "l" : "u"); break;
    default: render__put(t, "%s", in[*c - '0']); break;
    }
  }
}

const char *render__vector_form(uint32_t op) {
  static const struct {
    uint32_t op;
    const char *form;
  } own[] = {{TERN_OP_MAXIMUM, "select($1, $0, ($0 > $1) | ($0 != $0))"},
             {TERN_OP_MINIMUM, "select($1, $0, ($0 < $1) | ($0 != $0))"},
             {TERN_OP_WHERE, "select($2, $1, $0)"},
             {TERN_OP_EXP, "exp($0)"},
             {TERN_OP_SIN, "t_sin_v($0)"},
             {TERN_OP_COS, "t_cos_v($0)"},
             {TERN_OP_TAN, "t_tan_v($0)"}};
  for (size_t i = 0; i < sizeof own / sizeof *own; i++)
    if (own[i].op == op) return own[i].form;
  if (op >= TERN_OP_ISNAN && op <= TERN_OP_SIGNBIT) return NULL;
  for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
    if (forms[i].op == op)
      return forms[i].real && !strchr(forms[i].real, '?') && !strstr(forms[i].real, "t_") ? forms[i].real : NULL;
  return NULL;
}

void render__vector_expand(render_text *t, const char *template, const char *const *in) {
  for (const char *c = template; *c; c++) {
    if (*c != '$')
      render__put(t, "%c", *c);
    else if (*++c == 'T')
      render__put(t, "float16");
    else
      render__put(t, "%s", in[*c - '0']);
  }
}

void render__literal(render_text *t, uint32_t dtype, tern_word w) {
  if (dtype == TERN_F64) {
    render__put(t, "t_as_double(0x%llxul)", (unsigned long long)w.u);
  } else if (dtype >= TERN_F16) {
    const float f = (float)w.f;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    render__put(t,
                dtype == TERN_F16    ? "t_round_h(t_as_float(0x%xu))"
                : dtype == TERN_BF16 ? "t_round_b(t_as_float(0x%xu))"
                                     : "t_as_float(0x%xu)",
                bits);
  } else if (dtype == TERN_BOOL) {
    render__put(t, "((uchar)%d)", w.u != 0);
  } else {
    render__put(t, "((%s)0x%llxul)", render__ctype[dtype], (unsigned long long)w.u);
  }
}

static const char *rounding(uint32_t dtype) {
  return dtype == TERN_F16 ? "t_round_h" : dtype == TERN_BF16 ? "t_round_b" : "";
}

/* float to integer: saturate, NaN to 0. The bounds are powers of two, exact in every float type. */
static void put_saturate(render_text *t, const char *x, uint32_t to) {
  const size_t bits = 8 * nest_item_size(to);
  const char *type = render__ctype[to];
  const unsigned long long max = is_signed(to) ? (1ull << (bits - 1)) - 1 : ~0ull >> (64 - bits);
  render__put(t, "(%s != %s ? (%s)0 : %s >= 0x1p%zuf ? (%s)0x%llxul : ", x, x, type, x, is_signed(to) ? bits - 1 : bits,
              type, max);
  if (is_signed(to))
    render__put(t, "%s <= -0x1p%zuf ? (%s)0x%llxul : (%s)%s)", x, bits - 1, type, max + 1, type, x);
  else
    render__put(t, "%s <= 0 ? (%s)0 : (%s)%s)", x, type, type, x);
}

static void put_cast(render_text *t, const char *x, uint32_t from, uint32_t to) {
  if (from == to)
    render__put(t, "%s", x);
  else if (to == TERN_BOOL)
    render__put(t, "((uchar)(%s != 0))", x);
  else if (from >= TERN_F16 && to < TERN_F16)
    put_saturate(t, x, to);
  else if (from == TERN_I32 && to == TERN_I64)
    render__put(t, "t_long(%s)", x);
  else if (to == TERN_F16 || to == TERN_BF16)
    render__put(t, "%s(%s(%s))", rounding(to), from == TERN_F64 ? "t_odd" : "(float)", x);
  else
    render__put(t, "((%s)%s)", render__ctype[to], x);
}

/* Row-major number of the element in the value's own shape */
static void put_linear(render_kernel_text *k, uint32_t value, render_text *t) {
  const tern_value *v = &k->r->values[value];
  char buf[48];
  render__put(t, "(0ul");
  for (uint32_t d = 0; d < v->rank; d++) {
    if (v->shape[d] == 1) continue;
    render__put(t, " + (ulong)i%u", d);
    for (uint32_t e = d + 1; e < v->rank; e++)
      if (v->shape[e] != 1) render__put(t, " * (ulong)%s", render__size(k, v->shape[e], buf));
  }
  render__put(t, ")");
}

void render__expr(render_kernel_text *k, uint32_t node, const char *const *in, render_text *t) {
  const tern_node *n = &k->r->nodes[node];
  const uint32_t out = nest_out(k->r, node), to = k->r->values[out].dtype;
  if (n->op == TERN_OP_IOTA) {
    char index[24];
    const int64_t d = nest_attr(k->r, node, 0);
    const char *const widened = k->u->wide ? "((long)i%d)" : "t_long(i%d)";
    snprintf(index, sizeof index, k->r->values[out].shape[d] == 1 ? "0" : widened, (int)d);
    put_cast(t, index, TERN_I64, to);
    return;
  }
  if (n->op == TERN_OP_RNG) {
    render__put(t, "t_philox(%s, %s, %uu, ", in[0], in[1], (unsigned)nest_attr(k->r, node, 0));
    put_linear(k, out, t);
    render__put(t, ")");
    return;
  }
  const uint32_t from = k->r->values[nest_in(k->r, node, n->op == TERN_OP_WHERE)].dtype;
  if (n->op == TERN_OP_CAST) {
    put_cast(t, in[0], from, to);
    return;
  }
  for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
    if (forms[i].op != n->op) continue;
    const bool round = from >= TERN_F16 && !forms[i].exact;
    if (round) render__put(t, "%s(", rounding(from));
    if (n->op == TERN_OP_NOT && from == TERN_BOOL)
      render__put(t, "((uchar)!%s)", in[0]);
    else
      expand(t, from >= TERN_F16 ? forms[i].real : forms[i].integer, from, in);
    if (round) render__put(t, ")");
    return;
  }
  k->failed = true;
}
