/* Products of literal sizes whose operands lie in layouts of oneDNN's choice, the tokens that name such layouts, and
   the copies into and out of them. */
#ifndef TERN_CPU_DOT_STATIC_H_
#define TERN_CPU_DOT_STATIC_H_
#include "cpu.h"

/* One DOT, CONV, CONV_DX or CONV_DW (two spatial dims) of float32 with literal sizes and strides, at least one array in
   a packed layout; or one COPY from or to a packed layout */
tern_rc cpu_static_supports(const tern_region *);
tern_rc cpu_static_compile(const tern_region *, tern_kernel **, tern_kernel_info *);
/* The same with a bias that the product adds: at argument `bias`, -1: none. Of the size of
   dim 1 of a CONV's result, contiguous */
tern_rc cpu_static_product(const tern_region *, int32_t bias, tern_kernel **, tern_kernel_info *);
/* Which layouts would make the product of this region faster: fills info->layout and layout_bytes, where the core gave
   them and the sizes are literal. Packed arrays of activations have no padding: a MAP may run over all their bytes */
void cpu_static_ask(const tern_region *, tern_kernel_info *);
/* Elements of float32 in an array of this layout, 0: unknown layout */
int64_t cpu_static_elements(uint64_t layout);
#endif
