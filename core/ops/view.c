/* Views as ops of the table: core/tensor/view.c makes them, and shows them to whoever records under these entries.
   Attributes: see tern__view_kind. */
#include "dispatch/dispatch.h"
#include "ops/table.h"
#include <tern/ops.h>

static void grad_reshape(const tern__grad *g, tern_tensor **din) {
  din[0] = tern_reshape(g->dout[0], tern_shape_of(g->in[0]->rank, g->in[0]->shape));
}

static void grad_permute(const tern__grad *g, tern_tensor **din) {
  int back[TERN_MAX_RANK];
  for (int d = 0; d < g->n_attr; d++) back[g->attr[d].i] = d;
  din[0] = tern_permute(g->dout[0], back, g->n_attr);
}

/* Attributes: the axis that was dropped or -1, then first element and step of each axis. */
static void grad_slice(const tern__grad *g, tern_tensor **din) {
  const tern_tensor *x = g->in[0];
  const int dropped = (int)g->attr[0].i;
  tern_tensor *part = dropped >= 0 ? tern_expand_dims(g->dout[0], dropped) : g->dout[0];
  tern_range ranges[TERN_MAX_RANK];
  for (int d = 0; d < x->rank && part; d++) {
    const int64_t first = g->attr[1 + 2 * d].i, by = g->attr[2 + 2 * d].i, n = part->shape[d];
    const int64_t stop = n ? first + (n - 1) * by + (by > 0 ? 1 : -1) : first;
    ranges[d] = TERN_RANGE(first, stop < 0 ? TERN_OPEN : stop, by);
  }
  din[0] = part ? tern_embed(part, tern_shape_of(x->rank, x->shape), ranges, x->rank) : NULL;
}

static void grad_expand(const tern__grad *g, tern_tensor **din) { din[0] = g->dout[0]; } /* the tape sums */

static tern_tensor *sample_reshape(const tern__sample *s) { return tern_reshape(s->x, (tern_shape){1, {6}}); }
static tern_tensor *sample_permute(const tern__sample *s) { return tern_transpose(s->x); }
static tern_tensor *sample_slice(const tern__sample *s) { return tern_slice(s->x, &TERN_RANGE(1, TERN_OPEN, 1), 1); }
static tern_tensor *sample_expand(const tern__sample *s) { return tern_expand(s->x, (tern_shape){3, {2, 2, 3}}); }

#define VIEW(id, args, text)                              \
  const tern__op tern__op_##id = {.name = #id,            \
                                  .family = "view",       \
                                  .operands = args,       \
                                  .doc = text,            \
                                  .number = TERN__N_##id, \
                                  .sample = sample_##id,  \
                                  .dtypes = TERN_D_ANY,   \
                                  .grad = grad_##id};
VIEW(reshape, "x, shape", "another shape of the same elements (flatten, squeeze, expand_dims)")
VIEW(permute, "x, order", "axes in another order (transpose)")
VIEW(slice, "x, ranges", "part of each axis, with steps (index)")
VIEW(expand, "x, shape", "broadcast to shape")
