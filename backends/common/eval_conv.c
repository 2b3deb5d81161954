/* The reference for CONV and its two gradients: one walk over every product x * w that makes up a y, which each of the
   three adds to another array. Sums in long double, so that the order does not matter. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "eval_internal.h"

/* Sizes of x [n, c, in..], w [o, per, taps..], y [n, o, out..]; one spatial dim is two, the first of size 1 */
typedef struct geometry {
  int64_t n, c, o, groups, per;
  int64_t in[2], taps[2], out[2], stride[2], dilation[2], pad[2];
} geometry;

typedef struct walk {
  const tern_word *x, *w, *y; /* NULL: the one that is computed */
  long double *sum;
} walk;

static const char *read_geometry(const tern_word *attr, uint32_t n_attr, const eval_array *x, const eval_array *w,
                                 const eval_array *y, geometry *g) {
  const int64_t dims = n_attr ? attr[0].i : 0;
  if (dims < 1 || dims > 2 || n_attr < 2 + 3 * (uint32_t)dims) return "1 or 2 spatial dims, each with three attributes";
  const uint32_t rank = (uint32_t)dims + 2;
  if (x->rank != rank || w->rank != rank || y->rank != rank) return "the ranks must be 2 more than the spatial dims";
  *g = (geometry){.n = x->size[0], .c = x->size[1], .o = y->size[1], .groups = attr[1].i, .per = w->size[1]};
  for (int d = 0; d < 2; d++) {
    const int at = d - (2 - (int)dims); /* which spatial dim */
    g->in[d] = at < 0 ? 1 : x->size[2 + at];
    g->taps[d] = at < 0 ? 1 : w->size[2 + at];
    g->out[d] = at < 0 ? 1 : y->size[2 + at];
    g->stride[d] = at < 0 ? 1 : attr[2 + 3 * at].i;
    g->dilation[d] = at < 0 ? 1 : attr[3 + 3 * at].i;
    g->pad[d] = at < 0 ? 0 : attr[4 + 3 * at].i;
    if (g->stride[d] < 1 || g->dilation[d] < 1) return "strides and dilations are at least 1";
  }
  if (y->size[0] != g->n || w->size[0] != g->o) return "batch or output channels differ";
  if (g->groups < 1 || g->c != g->groups * g->per || g->o % g->groups) return "channels and groups do not fit";
  return NULL;
}

static void product(const walk *k, int64_t x, int64_t w, int64_t y) {
  if (!k->y)
    k->sum[y] += (long double)k->x[x].f * k->w[w].f;
  else if (!k->x)
    k->sum[x] += (long double)k->y[y].f * k->w[w].f;
  else
    k->sum[w] += (long double)k->x[x].f * k->y[y].f;
}

/* All taps of output element (n, o, j0, j1), whose number is y */
static void taps(const geometry *g, const walk *k, int64_t n, int64_t o, int64_t j0, int64_t j1, int64_t y) {
  const int64_t first = o / (g->o / g->groups) * g->per;
  for (int64_t c = 0; c < g->per; c++)
    for (int64_t k0 = 0; k0 < g->taps[0]; k0++)
      for (int64_t k1 = 0; k1 < g->taps[1]; k1++) {
        const int64_t i0 = j0 * g->stride[0] + k0 * g->dilation[0] - g->pad[0];
        const int64_t i1 = j1 * g->stride[1] + k1 * g->dilation[1] - g->pad[1];
        if (i0 < 0 || i0 >= g->in[0] || i1 < 0 || i1 >= g->in[1]) continue;
        product(k, ((n * g->c + first + c) * g->in[0] + i0) * g->in[1] + i1,
                ((o * g->per + c) * g->taps[0] + k0) * g->taps[1] + k1, y);
      }
}

const char *eval__conv(uint32_t op, const tern_word *attr, uint32_t n_attr, const eval_array *a, const eval_array *b,
                       const eval_array *out, uint32_t dtype) {
  const eval_array *x = op == TERN_OP_CONV_DX ? out : a, *w = op == TERN_OP_CONV_DW ? out : b,
                   *y = op == TERN_OP_CONV      ? out
                        : op == TERN_OP_CONV_DX ? a
                                                : b;
  geometry g;
  const char *const problem = read_geometry(attr, n_attr, x, w, y, &g);
  if (problem) return problem;
  int64_t count = 1, at = 0;
  for (uint32_t d = 0; d < out->rank; d++) count *= out->size[d];
  long double *const sum = calloc((size_t)count, sizeof *sum);
  if (!sum) return "out of memory";
  const walk k = {x == out ? NULL : x->data, w == out ? NULL : w->data, y == out ? NULL : y->data, sum};
  for (int64_t n = 0; n < g.n; n++)
    for (int64_t o = 0; o < g.o; o++)
      for (int64_t j0 = 0; j0 < g.out[0]; j0++)
        for (int64_t j1 = 0; j1 < g.out[1]; j1++) taps(&g, &k, n, o, j0, j1, at++);
  for (int64_t i = 0; i < count; i++) out->data[i] = eval_fit(dtype, (tern_word){.f = (double)sum[i]});
  free(sum);
  return NULL;
}
