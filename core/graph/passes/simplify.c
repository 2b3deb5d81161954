/* The driver: bodies of control nodes first, then all passes in turn until nothing changes. */
#include "graph/passes/simplify.h"

enum { ROUNDS = 8 };
#define FOLD_BYTES (UINT64_C(64) << 10)
#define MOST_FOLD_BYTES (UINT64_C(16) << 20) /* below what a size that varies is stood for by (dims.h) */

typedef tern_rc (*pass)(tern__graph *g, const tern__simplify_opts *opts, bool *changed);

static tern_rc simplify_bodies(tern__graph *g, const tern__simplify_opts *opts) {
  tern_rc rc = TERN_OK;
  for (uint32_t i = 0; i < g->n_nodes && !rc; i++)
    for (int b = 0; b < 2 && !rc; b++)
      if (g->node[i].body[b]) rc = tern__simplify(g->node[i].body[b], opts);
  return rc;
}

tern_rc tern__simplify(tern__graph *g, const tern__simplify_opts *opts) {
  static const pass passes[] = {tern__simplify_rewrite, tern__simplify_fold, tern__simplify_common,
                                tern__simplify_control, tern__simplify_dead};
  tern__simplify_opts o = opts ? *opts : (tern__simplify_opts){0};
  if (!o.fold_bytes) o.fold_bytes = FOLD_BYTES;
  if (o.fold_bytes > MOST_FOLD_BYTES) o.fold_bytes = MOST_FOLD_BYTES;
  if (o.rounds <= 0) o.rounds = ROUNDS;
  bool changed = true;
  tern_rc rc = simplify_bodies(g, &o);
  if (!rc) rc = tern__simplify_dead(g, &o, &changed);
  if (!rc) rc = tern__graph_compact(g);
  for (int round = 0; round < o.rounds && changed && !rc; round++) {
    changed = false;
    for (size_t p = 0; p < sizeof passes / sizeof *passes && !rc; p++) rc = passes[p](g, &o, &changed);
    if (!rc && changed) rc = tern__graph_compact(g);
  }
  return rc;
}
