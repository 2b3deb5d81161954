/* What the files of CONV, CONV_DX and CONV_DW share. conv.c turns a launch into a conv_job (all numbers known, one
   spatial dim made two), conv_dnnl.c gives it to oneDNN, conv_own.c is the way without that library. */
#ifndef TERN_CPU_CONV_H_
#define TERN_CPU_CONV_H_
#include "cpu.h"

#ifndef TERN_CPU_ONEDNN
#define TERN_CPU_ONEDNN 1
#endif

/* Rank 4; strides in elements. x [n, c, in..], w [o, c / groups, taps..], y [n, o, out..] */
struct conv_array {
  char *p;
  int64_t stride[4];
};

/* y[n, o, j] = sum over c, k of x[n, g c/groups + c, j stride + k dilation - pad] w[o, c, k]; op says which of the
   three is computed. Every member counts 8 bytes, so that jobs may be compared as memory */
struct conv_job {
  int64_t op, dtype;
  int64_t n, c, o, groups, in[2], taps[2], out[2], stride[2], dilation[2], pad[2];
  struct conv_array x, w, y;
};

/* The sizes of the three arrays */
static inline void conv_sizes_x(const struct conv_job *j, int64_t *s) {
  s[0] = j->n, s[1] = j->c, s[2] = j->in[0], s[3] = j->in[1];
}
static inline void conv_sizes_w(const struct conv_job *j, int64_t *s) {
  s[0] = j->o, s[1] = j->c / j->groups, s[2] = j->taps[0], s[3] = j->taps[1];
}
static inline void conv_sizes_y(const struct conv_job *j, int64_t *s) {
  s[0] = j->n, s[1] = j->o, s[2] = j->out[0], s[3] = j->out[1];
}

/* ---- conv_own.c: every float dtype and stride; parallel. Patches of the source become the rows of a matrix, a tile of
   them at a time, and a matrix product does the rest. False: no memory for its scratch ---- */
bool conv_own(const struct conv_job *j);

/* ---- conv_few.c: CONV of float32 with few input channels, output channels last in y and in the filters; parallel.
   False: it is not that ---- */
bool conv_few(const struct conv_job *j);

/* ---- conv_dnnl.c: float32 with positive strides ---- */
struct conv_cache; /* primitives for exact jobs; belongs to one kernel */
/* NULL: no memory, or oneDNN is not there */
struct conv_cache *conv_cache_new(void);
void conv_cache_free(struct conv_cache *c);
/* False: oneDNN has no good way, or a slot is not to be had; nothing was written. buffers: `bytes` of memory for copies
   of x and y in oneDNN's layouts; it takes its own where that is too little */
bool conv_dnnl(struct conv_cache *c, const struct conv_job *j, char *buffers, uint64_t bytes);
#endif
