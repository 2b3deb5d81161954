/* Layers made of layers: one behind the other, and that with x added. They have no weights of their own; those inside
   make theirs as shapes arrive. */
#include "base/thread.h"
#include "nn/layer.h"

static tern_tensor *call_chain(tern_layer *l, tern_tensor *x, tern__pass *p) {
  for (int i = 0; i < l->n_inner && x; i++) x = tern__layer_run(l->inner[i], x, p);
  return x;
}

const tern__layer_kind tern__kind_chain = {
    .name = "Chain", .stem = "chain", .inner = TERN__ANY_LAYERS, .params = sizeof(tern_layer_opts), .call = call_chain};

tern_layer *tern_chain_n(tern_layer *const *layers, int n, const tern_layer_opts *opts) {
  return tern__layer_new(&tern__kind_chain, opts ? opts : &(tern_layer_opts){0}, layers, n);
}

/* The mask is that of x, whatever the layers made of it. */
static tern_tensor *call_residual(tern_layer *l, tern_tensor *x, tern__pass *p) {
  tern__pass inside = *p;
  tern_tensor *y = call_chain(l, x, &inside);
  if (!y) return NULL;
  if (tern_rank(x) != tern_rank(y)) {
    tern__fail(TERN_E_ARG, "its layers turn rank %d into rank %d; x + layers(x) needs the same shape", tern_rank(x),
               tern_rank(y));
    return NULL;
  }
  return tern_add(x, y);
}

extern const tern__layer_kind tern__kind_residual;
const tern__layer_kind tern__kind_residual = {.name = "Residual",
                                              .stem = "residual",
                                              .inner = TERN__ANY_LAYERS,
                                              .params = sizeof(tern_layer_opts),
                                              .call = call_residual};

tern_layer *tern_residual_n(tern_layer *const *layers, int n, const tern_layer_opts *opts) {
  return tern__layer_new(&tern__kind_residual, opts ? opts : &(tern_layer_opts){0}, layers, n);
}
