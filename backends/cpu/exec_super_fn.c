/* The superinstructions that there are (see exec_super.h): those of the compositions that are run most, found by
   walking the regions of activations, normalisations, their gradients and optimisers, and every pair of + - *. */
#include "exec_super.h"
#include "vmath_div.h"
#include "vmath_erf.h"
#include "vmath_log.h"
#include "vmath_tanh.h"

/* N operands A, B .. E, each a vector of the block or one element (a bit in splat), which then stays where it is. BY is
   the number of the operand that is divided by, if it is a plain one: OVER(a, it) */
#define FN(NAME, N, BY, EXPR)                                                                                      \
  static void NAME(float *out, const float *const *in, uint32_t splat, int64_t n) {                                \
    _Alignas(64) float cell[N][VF_N];                                                                              \
    const float *p[5];                                                                                             \
    int64_t by[N];                                                                                                 \
    const int divides = splat >> BY & 1;                                                                           \
    const vm_divisor divisor = vm_divisor_of(divides ? *in[BY] : 1);                                               \
    (void)divisor, (void)divides;                                                                                  \
    for (int k = 0; k < N; k++) {                                                                                  \
      const int one = splat >> k & 1;                                                                              \
      if (one) vf_store(cell[k], vf_set(*in[k]));                                                                  \
      p[k] = one ? cell[k] : in[k];                                                                                \
      by[k] = one ? 0 : VF_N;                                                                                      \
    }                                                                                                              \
    for (int k = N; k < 5; k++) p[k] = p[0];                                                                       \
    int64_t i = 0;                                                                                                 \
    for (; i + VF_N <= n; i += VF_N) {                                                                             \
      const vf A = vf_load(p[0]), B = vf_load(p[1]), C = vf_load(p[2]), D = vf_load(p[3]), E = vf_load(p[4]);      \
      (void)B, (void)C, (void)D, (void)E;                                                                          \
      vf_store(out + i, EXPR);                                                                                     \
      for (int k = 0; k < N; k++) p[k] += by[k];                                                                   \
    }                                                                                                              \
    const int rest = (int)(n - i);                                                                                 \
    if (rest) {                                                                                                    \
      const vf A = vf_load_part(p[0], rest), B = vf_load_part(p[1], rest), C = vf_load_part(p[2], rest),           \
               D = vf_load_part(p[3], rest), E = vf_load_part(p[4], rest);                                         \
      (void)B, (void)C, (void)D, (void)E;                                                                          \
      vf_store_part(out + i, EXPR, rest);                                                                          \
    }                                                                                                              \
  }
#define OVER(a, b) (divides ? vm_div_by(a, &divisor) : (a) / (b))
#define SQUARE(a) ((a) * (a))

/* X(name, pattern, operands, operand divided by, value); the last is of vectors */
#define PAIRS(X)                                         \
  X(add_add, "++...", 3, 0, A + B + C)                   \
  X(add_sub, "+-...", 3, 0, A - B + C)                   \
  X(add_mul, "+*...", 3, 0, A * B + C)                   \
  X(sub_add, "-+...", 3, 0, A + B - C)                   \
  X(sub_sub, "--...", 3, 0, A - B - C)                   \
  X(sub_mul, "-*...", 3, 0, A * B - C)                   \
  X(less_add, "-.+..", 3, 0, A - (B + C))                \
  X(less_sub, "-.-..", 3, 0, A - (B - C))                \
  X(less_mul, "-.*..", 3, 0, A - B * C)                  \
  X(mul_add, "*+...", 3, 0, (A + B) * C)                 \
  X(mul_sub, "*-...", 3, 0, (A - B) * C)                 \
  X(mul_mul, "**...", 3, 0, A * B * C)                   \
  X(square_sub, "Q-..", 2, 0, SQUARE(A - B))             \
  X(add_mul_mul, "+*..*..", 4, 0, A * B + C * D)         \
  X(sub_mul_mul, "-*..*..", 4, 0, A * B - C * D)
#define QUOTIENTS(X)                                                         \
  X(div_add, "/+...", 3, 2, OVER(A + B, C))                                  \
  X(div_sub, "/-...", 3, 2, OVER(A - B, C))                                  \
  X(div_mul, "/*...", 3, 2, OVER(A * B, C))                                  \
  X(over_add, "/.+..", 3, 0, A / (B + C))                                    \
  X(mul_div, "*/...", 3, 1, OVER(A, B) * C)                                  \
  X(mul_div_mul, "*/..*..", 4, 1, OVER(A, B) * (C * D))                      \
  X(mul_div_sub, "*/-....", 4, 2, OVER(A - B, C) * D)                        \
  X(mul_div_sub_mul, "*/-...*..", 5, 2, OVER(A - B, C) * (D * E))            \
  X(add_mul_div, "+*/....", 4, 1, OVER(A, B) * C + D)                        \
  X(add_mul_div_sub, "+*/-.....", 5, 2, OVER(A - B, C) * D + E)              \
  X(div_less_mul, "/-.*...", 4, 3, OVER(A - B * C, D))                       \
  X(div_sub_less_mul, "/--.*....", 5, 4, OVER(A - B * C - D, E))             \
  X(div_sub_mul_mul, "/-*..*...", 5, 4, OVER(A * B - C * D, E))
#define FUNCTIONS(X)                                                         \
  X(exp_neg, "EN.", 1, 0, vm_exp(-A))                                        \
  X(exp_sub, "E-..", 2, 0, vm_exp(A - B))                                    \
  X(exp_mul, "E*..", 2, 0, vm_exp(A * B))                                    \
  X(exp_mul_neg, "E*N..", 2, 0, vm_exp(-A * B))                              \
  X(exp_neg_mul, "EN*..", 2, 0, vm_exp(-(A * B)))                            \
  X(erf_mul, "R*..", 2, 0, vm_erf(A * B))                                    \
  X(tanh_mul, "T*..", 2, 0, vm_tanh(A * B))                                  \
  X(tanh_add, "T+..", 2, 0, vm_tanh(A + B))                                  \
  X(tanh_add_mul, "T+*...", 3, 0, vm_tanh(A * B + C))                        \
  X(tanh_mul_add_mul, "T*+*....", 4, 0, vm_tanh((A * B + C) * D))            \
  X(gelu_end, "**..+..", 4, 0, A * B * (C + D))                              \
  X(gelu_erf, "**..+R*...", 5, 0, A * B * (vm_erf(C * D) + E))              \
  X(logistic, "/.+EN..", 3, 0, A / (vm_exp(-B) + C))                         \
  X(tanh_back, "*-.*...", 4, 0, (A - B * C) * D)
#define UPDATES(X)                                                           \
  X(momentum, "+*-....", 4, 0, (A - B) * C + D)                              \
  X(velocity, "+*-*.....", 5, 0, (A * B - C) * D + E)                        \
  X(over_root, "/.+S..", 3, 0, A / (vm_sqrt(B) + C))                         \
  X(scaled_over_root, "/*..+S..", 4, 0, A * B / (vm_sqrt(C) + D))            \
  X(descend, "-./*..+S..", 5, 0, A - B * C / (vm_sqrt(D) + E))
#define CHOICES(X)                                                           \
  X(where_lt, "<....", 4, 0, vf_sel(vf_lt(A, B), C, D))                      \
  X(where_le, "L....", 4, 0, vf_sel(vf_le(A, B), C, D))                      \
  X(where_eq, "=....", 4, 0, vf_sel(vf_eq(A, B), C, D))
#define DEFINE(NAME, PATTERN, N, BY, EXPR) FN(NAME, N, BY, EXPR)
#define LIST(NAME, PATTERN, N, BY, EXPR) {PATTERN, NAME},
PAIRS(DEFINE)
QUOTIENTS(DEFINE)
FUNCTIONS(DEFINE)
UPDATES(DEFINE)
CHOICES(DEFINE)
const x_super x_super_table[] = {PAIRS(LIST) QUOTIENTS(LIST) FUNCTIONS(LIST) UPDATES(LIST) CHOICES(LIST)};
const uint32_t x_super_count = sizeof x_super_table / sizeof *x_super_table;
