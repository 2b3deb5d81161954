/* Float32 divided by one number, where the processor's divider is the bottleneck (see vmath_div.h); elsewhere the loops
   of map_num.c do. */
#include "map.h"
#include "vmath_div.h"

#ifdef VM_AVX512
static void div_by(void *out, const void *a_, const void *b, const void *c, int64_t n) {
  float *o = out;
  const float *a = a_;
  const vm_divisor by = vm_divisor_of(*(const float *)b);
  int64_t i = 0;
  (void)c;
  for (; i + VF_N <= n; i += VF_N) vf_store(o + i, vm_div_by(vf_load(a + i), &by));
  const int rest = (int)(n - i);
  if (rest) vf_store_part(o + i, vf_load_part(a + i, rest) / by.b, rest);
}

cpu_map_fn map_div_find(uint32_t op, uint32_t dtype, uint32_t splat) {
  return op == TERN_OP_DIV && dtype == TERN_F32 && splat == 2 ? div_by : NULL;
}
#else
cpu_map_fn map_div_find(uint32_t op, uint32_t dtype, uint32_t splat) {
  (void)op, (void)dtype, (void)splat;
  return NULL;
}
#endif
