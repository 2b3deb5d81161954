/* What index.c, sort.c and scatter.c share: reading a region's one node, and a launch's sizes and strides. */
#ifndef TERN_CPU_INDEX_H_
#define TERN_CPU_INDEX_H_
#include "cpu.h"

/* A strided array of a launch; literals of compile time are replaced by the launch's words. Strides in elements */
struct index_array {
  uint32_t dtype, slot;
  int rank;
  int64_t offset; /* a view's, in elements */
  int64_t shape[TERN_MAX_RANK], stride[TERN_MAX_RANK];
};

/* The array of value v if it is an argument, or (inputs) a view of one; false otherwise */
bool index_array_read(const tern_region *r, uint32_t v, bool output, struct index_array *x);
/* *to = x with the launch's numbers; returns the address of its first element, NULL when l is NULL */
char *index_array_resolve(const struct index_array *x, const tern_word *words, const tern_launch *l,
                          struct index_array *to);

tern_rc sort_compile(const tern_region *r, tern_kernel **kernel, tern_kernel_info *info);
tern_rc sort_supports(const tern_region *r);
tern_rc scatter_compile(const tern_region *r, tern_kernel **kernel, tern_kernel_info *info);
tern_rc scatter_supports(const tern_region *r);
#endif
