/* The rules of each op, and what else is known of it. */
#include "graph/passes/simplify_rule_list.h"

#define LIST(...) ((const tern__identity[]){__VA_ARGS__, NULL})
#define R(name) tern__rule_##name

typedef struct row {
  uint32_t facts;
  const tern__identity *rules;
} row;

enum { MAP = TERN__OP_MAP, BOTH = MAP | TERN__OP_SWAPS, INTS = MAP | TERN__OP_SWAPS_INT };

static const row rows[TERN__N_END] = {
    [TERN__N_reshape] = {0, LIST(R(reshape_same), R(reshape_reshape), R(view_number), R(view_through))},
    [TERN__N_permute] = {0, LIST(R(permute_identity), R(permute_permute), R(view_number), R(view_through))},
    [TERN__N_slice] = {0, LIST(R(slice_all), R(slice_slice), R(slice_of_write), R(view_number))},
    [TERN__N_expand] = {0, LIST(R(expand_same), R(expand_expand), R(view_number))},
    [TERN__N_copy] = {0, LIST(R(copy_dense))},
    [TERN__N_cast] = {MAP, LIST(R(cast_same), R(cast_number), R(cast_cast))},
    [TERN__N_to] = {0, LIST(R(to_same), R(to_to))},
    [TERN__N_neg] = {MAP, LIST(R(undone), R(neg_sub))},
    [TERN__N_abs] = {MAP, LIST(R(idempotent), R(abs_neg), R(unsigned_same))},
    [TERN__N_sign] = {MAP, LIST(R(idempotent))},
    [TERN__N_relu] = {MAP, LIST(R(idempotent), R(unsigned_same))},
    [TERN__N_floor] = {MAP, LIST(R(idempotent))},
    [TERN__N_ceil] = {MAP, LIST(R(idempotent))},
    [TERN__N_round] = {MAP, LIST(R(idempotent))},
    [TERN__N_trunc] = {MAP, LIST(R(idempotent))},
    [TERN__N_bitwise_not] = {MAP, LIST(R(undone))},
    [TERN__N_logical_not] = {MAP, LIST(R(undone), R(not_compare))},
    [TERN__N_square] = {MAP, LIST(R(square_neg), R(inverse_pair))},
    [TERN__N_sqrt] = {MAP, LIST(R(sqrt_square))},
    [TERN__N_exp] = {MAP, LIST(R(inverse_pair))},
    [TERN__N_log] = {MAP, LIST(R(inverse_pair))},
    [TERN__N_exp2] = {MAP, LIST(R(inverse_pair))},
    [TERN__N_log2] = {MAP, LIST(R(inverse_pair))},
    [TERN__N_expm1] = {MAP, LIST(R(inverse_pair))},
    [TERN__N_log1p] = {MAP, LIST(R(inverse_pair))},
    [TERN__N_reciprocal] = {MAP, LIST(R(inverse_pair))},
    [TERN__N_rsqrt] = {MAP, NULL},
    [TERN__N_cbrt] = {MAP, NULL},
    [TERN__N_log10] = {MAP, NULL},
    [TERN__N_sin] = {MAP, NULL},
    [TERN__N_cos] = {MAP, NULL},
    [TERN__N_tan] = {MAP, NULL},
    [TERN__N_asin] = {MAP, NULL},
    [TERN__N_acos] = {MAP, NULL},
    [TERN__N_atan] = {MAP, NULL},
    [TERN__N_sinh] = {MAP, NULL},
    [TERN__N_cosh] = {MAP, NULL},
    [TERN__N_tanh] = {MAP, NULL},
    [TERN__N_asinh] = {MAP, NULL},
    [TERN__N_acosh] = {MAP, NULL},
    [TERN__N_atanh] = {MAP, NULL},
    [TERN__N_erf] = {MAP, NULL},
    [TERN__N_erfc] = {MAP, NULL},
    [TERN__N_erfinv] = {MAP, NULL},
    [TERN__N_sinpi] = {MAP, NULL},
    [TERN__N_cospi] = {MAP, NULL},
    [TERN__N_isnan] = {MAP, NULL},
    [TERN__N_isinf] = {MAP, NULL},
    [TERN__N_isfinite] = {MAP, NULL},
    [TERN__N_signbit] = {MAP, NULL},
    [TERN__N_sigmoid] = {MAP, NULL},
    [TERN__N_silu] = {MAP, NULL},
    [TERN__N_gelu] = {MAP, NULL},
    [TERN__N_add] = {INTS,
                     LIST(R(add_zero), R(and_or_same), R(and_or_number), R(add_neg), R(add_chain), R(full_to_scalar))},
    [TERN__N_sub] = {MAP,
                     LIST(R(sub_zero), R(sub_self), R(sub_from_zero), R(sub_neg), R(add_chain), R(full_to_scalar))},
    [TERN__N_mul] = {INTS, LIST(R(mul_one), R(mul_zero), R(and_or_same), R(and_or_number), R(mul_minus_one),
                                R(mul_chain), R(full_to_scalar))},
    [TERN__N_div] = {MAP, LIST(R(div_one), R(div_self), R(div_power_of_two), R(div_number), R(full_to_scalar))},
    [TERN__N_floor_divide] = {MAP, LIST(R(int_by_one), R(full_to_scalar))},
    [TERN__N_remainder] = {MAP, LIST(R(int_by_one), R(int_by_self), R(full_to_scalar))},
    [TERN__N_fmod] = {MAP, LIST(R(int_by_one), R(int_by_self), R(full_to_scalar))},
    [TERN__N_pow] = {MAP, LIST(R(pow_number), R(full_to_scalar))},
    [TERN__N_maximum] = {INTS, LIST(R(max_same), R(max_bound), R(full_to_scalar))},
    [TERN__N_minimum] = {INTS, LIST(R(max_same), R(max_bound), R(full_to_scalar))},
    [TERN__N_atan2] = {MAP, LIST(R(full_to_scalar))},
    [TERN__N_hypot] = {MAP, LIST(R(full_to_scalar))},
    [TERN__N_copysign] = {MAP, LIST(R(full_to_scalar))},
    [TERN__N_nextafter] = {MAP, LIST(R(full_to_scalar))},
    [TERN__N_logaddexp] = {MAP, LIST(R(full_to_scalar))},
    [TERN__N_equal] = {BOTH, LIST(R(compare_self), R(full_to_scalar))},
    [TERN__N_not_equal] = {BOTH, LIST(R(compare_self), R(full_to_scalar))},
    [TERN__N_less] = {MAP, LIST(R(compare_self), R(full_to_scalar))},
    [TERN__N_less_equal] = {MAP, LIST(R(compare_self), R(full_to_scalar))},
    [TERN__N_greater] = {MAP, LIST(R(compare_self), R(full_to_scalar))},
    [TERN__N_greater_equal] = {MAP, LIST(R(compare_self), R(full_to_scalar))},
    [TERN__N_logical_and] = {BOTH, LIST(R(and_or_same), R(and_or_number))},
    [TERN__N_logical_or] = {BOTH, LIST(R(and_or_same), R(and_or_number))},
    [TERN__N_logical_xor] = {BOTH, LIST(R(xor_same), R(xor_number))},
    [TERN__N_bitwise_and] = {BOTH, LIST(R(and_or_same), R(and_or_number), R(full_to_scalar))},
    [TERN__N_bitwise_or] = {BOTH, LIST(R(and_or_same), R(and_or_number), R(full_to_scalar))},
    [TERN__N_bitwise_xor] = {BOTH, LIST(R(xor_same), R(xor_number), R(full_to_scalar))},
    [TERN__N_left_shift] = {MAP, LIST(R(shift_zero), R(full_to_scalar))},
    [TERN__N_right_shift] = {MAP, LIST(R(shift_zero), R(full_to_scalar))},
    [TERN__N_where] = {MAP, LIST(R(where_known), R(where_same), R(where_not), R(full_to_scalar))},
    [TERN__N_clip] = {MAP, LIST(R(clip_nothing), R(full_to_scalar))},
    [TERN__N_sum] = {0, LIST(R(sum_one), R(reduce_reduce))},
    [TERN__N_prod] = {0, LIST(R(reduce_one), R(reduce_reduce))},
    [TERN__N_max] = {0, LIST(R(reduce_one), R(reduce_reduce))},
    [TERN__N_min] = {0, LIST(R(reduce_one), R(reduce_reduce))},
    [TERN__N_mean] = {0, LIST(R(sum_one), R(reduce_reduce))},
    [TERN__N_any] = {0, LIST(R(bool_one), R(reduce_reduce))},
    [TERN__N_all] = {0, LIST(R(bool_one), R(reduce_reduce))},
    [TERN__N_argmax] = {0, LIST(R(arg_one))},
    [TERN__N_argmin] = {0, LIST(R(arg_one))},
};
static const tern__identity *const write_rules = LIST(R(write_all));

uint32_t tern__op_facts(const tern__op *op) { return op->number < TERN__N_END ? rows[op->number].facts : 0; }

const tern__identity *tern__rules_of(const tern__op *op) {
  if (op->number < TERN__N_END) return rows[op->number].rules;
  return op == &tern__op_write ? write_rules : NULL;
}
