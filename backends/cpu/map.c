/* The elementwise instructions: one look-up over the families (see map.h), and what needs no arithmetic: COPY and
   WHERE. */
#include "map.h"

/* Elements as bits. Another type may have written them */
typedef uint8_t __attribute__((may_alias)) bits1;
typedef uint16_t __attribute__((may_alias)) bits2;
typedef uint32_t __attribute__((may_alias)) bits4;
typedef uint64_t __attribute__((may_alias)) bits8;

#define COPY_FN(SIZE)                                                                                    \
  static void copy_##SIZE(void *out, const void *a, const void *b, const void *c, int64_t n) {           \
    (void)b, (void)c;                                                                                    \
    if (out != a && n > 0) memcpy(out, a, (size_t)n * SIZE);                                             \
  }                                                                                                      \
  static void fill_##SIZE(void *out, const void *a, const void *b, const void *c, int64_t n) {           \
    bits##SIZE *o = out;                                                                                 \
    const bits##SIZE x = *(const bits##SIZE *)a;                                                         \
    (void)b, (void)c;                                                                                    \
    MAP_LOOP for (int64_t i = 0; i < n; i++) o[i] = x;                                                   \
  }
COPY_FN(1)
COPY_FN(2)
COPY_FN(4)
COPY_FN(8)

#define WHERE_FN(NAME, SIZE, X_, Y_)                                                                     \
  static void NAME(void *out, const void *a, const void *b, const void *c, int64_t n) {                  \
    bits##SIZE *o = out;                                                                                 \
    const bits1 *cond = a;                                                                               \
    const bits##SIZE *x = b, *y = c, x0 = *x, y0 = *y;                                                   \
    (void)x0, (void)y0;                                                                                  \
    MAP_LOOP for (int64_t i = 0; i < n; i++) {                                                           \
      const bits##SIZE p = X_, q = Y_;                                                                   \
      o[i] = cond[i] ? p : q;                                                                            \
    }                                                                                                    \
  }
#define WHERE_SIZE(SIZE)                    \
  WHERE_FN(where_0_##SIZE, SIZE, x[i], y[i]) \
  WHERE_FN(where_2_##SIZE, SIZE, x0, y[i])   \
  WHERE_FN(where_4_##SIZE, SIZE, x[i], y0)   \
  WHERE_FN(where_6_##SIZE, SIZE, x0, y0)
WHERE_SIZE(1)
WHERE_SIZE(2)
WHERE_SIZE(4)
WHERE_SIZE(8)

/* By log2 of the item size */
static const cpu_map_fn copies[4] = {copy_1, copy_2, copy_4, copy_8}, fills[4] = {fill_1, fill_2, fill_4, fill_8};
static const cpu_map_fn wheres[4][4] = { /* by the splat mask / 2 */
  {where_0_1, where_0_2, where_0_4, where_0_8}, {where_2_1, where_2_2, where_2_4, where_2_8},
  {where_4_1, where_4_2, where_4_4, where_4_8}, {where_6_1, where_6_2, where_6_4, where_6_8}
};

static cpu_map_fn float_find(uint32_t op, uint32_t dtype, uint32_t splat) {
  const cpu_map_fn fn = map_float_find(op, dtype, splat);
  if (fn) return fn;
  return dtype == TERN_F32 ? map_f32_find(op, splat) : dtype == TERN_F64 ? map_f64_find(op, splat) : NULL;
}

cpu_map_fn cpu_map(uint32_t op, uint32_t in_dtype, uint32_t out_dtype, uint32_t splat) {
  const size_t size = cpu_item_size(in_dtype);
  if (!size || splat > 7) return NULL;
  const int log_size = __builtin_ctzl(size);
  switch (op) {
    case TERN_OP_COPY: return splat > 1 ? NULL : splat ? fills[log_size] : copies[log_size];
    case TERN_OP_CAST: return splat || !cpu_item_size(out_dtype) ? NULL : map_cast_find(in_dtype, out_dtype);
    case TERN_OP_WHERE: return splat & 1 ? NULL : wheres[splat / 2][log_size];
    default: break;
  }
  if (in_dtype == TERN_F16 || in_dtype == TERN_BF16) return map_half_find(op, in_dtype, splat);
  cpu_map_fn fn = map_div_find(op, in_dtype, splat);
  if (!fn) fn = map_num_find(op, in_dtype, splat);
  if (!fn) fn = map_int_find(op, in_dtype, splat);
  return fn ? fn : float_find(op, in_dtype, splat);
}
