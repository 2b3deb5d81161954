/* A recurrent layer in both directions. The copy that goes backwards gives its outputs in the order of its own steps;
   they are turned round before the two are merged. */
#include "base/alloc.h"
#include "base/thread.h"
#include "nn/rnn.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const merges[] = {"concat", "sum", "mul", "ave", NULL};

static tern_rc check(const void *params) {
  return tern__one_of("merge", ((const tern_bidirectional_opts *)params)->merge, merges) < 0 ? tern__recorded()
                                                                                             : TERN_OK;
}

/* Files may hold anything. */
static tern_rc build(tern_layer *l, tern_shape in, tern_dtype dtype) {
  const tern__rnn *there = tern__rnn_of(l->inner[0]), *back = tern__rnn_of(l->inner[1]);
  (void)in, (void)dtype;
  if (!there || !back || there->opts.backwards || !back->opts.backwards ||
      there->opts.return_sequences != back->opts.return_sequences)
    return tern__fail(TERN_E_ARG, "its layers must be a recurrent one and its like that goes backwards");
  return TERN_OK;
}

static tern_tensor *call(tern_layer *l, tern_tensor *x, tern__pass *p) {
  const tern_bidirectional_opts *o = l->params;
  tern__pass backward = *p;
  tern_tensor *there = tern__layer_run(l->inner[0], x, p);
  tern_tensor *back = there ? tern__layer_run(l->inner[1], x, &backward) : NULL;
  if (!back) return NULL;
  if (tern__rnn_of(l->inner[1])->opts.return_sequences) back = tern_flip(back, (int[]){1}, 1);
  switch (tern__one_of("merge", o->merge, merges)) {
  case 0: return tern_concat((tern_tensor *[]){there, back}, 2, -1);
  case 1: return tern_add(there, back);
  case 2: return tern_mul(there, back);
  default: return tern_mul(tern_add(there, back), tern_scalar(0.5));
  }
}

static const tern__field fields[] = {TERN__FIELD(TERN__TEXT, tern_bidirectional_opts, merge, "merge_mode")};

const tern__layer_kind tern__kind_bidirectional = {.name = "Bidirectional",
                                                   .stem = "bidirectional",
                                                   .inner = 2,
                                                   .params = sizeof(tern_bidirectional_opts),
                                                   .field = fields,
                                                   .n_fields = 1,
                                                   .check = check,
                                                   .build = build,
                                                   .call = call};

/* "forward_lstm", as Keras names it; in its options too, for copies. */
static bool name_it(tern_layer *l, const char *way, const char *name) {
  tern_rnn_opts *common = &tern__rnn_of(l)->opts; /* begins with those of all layers */
  char text[256];
  snprintf(text, sizeof text, "%s_%.200s", way, name);
  char *copy = tern__strdup(text), *another = tern__strdup(text);
  if (!copy || !another) {
    free(copy);
    free(another);
    return tern__fail(TERN_E_OOM, "Bidirectional: out of host memory") == TERN_OK;
  }
  free(l->name);
  l->name = copy;
  free((char *)(uintptr_t)common->name);
  common->name = another;
  return true;
}

static bool can_turn(const tern_layer *layer) {
  const tern__rnn *r = tern__rnn_of(layer);
  if (!r)
    tern__fail(TERN_E_ARG, "Bidirectional: %s is a %s; it must be a recurrent layer", tern_layer_name(layer),
               layer->kind->name);
  else if (r->opts.backwards)
    tern__fail(TERN_E_ARG, "Bidirectional: %s goes backwards; give the layer that goes forwards",
               tern_layer_name(layer));
  else if (layer->built)
    tern__fail(TERN_E_ARG, "Bidirectional: %s has weights already; give a new layer", tern_layer_name(layer));
  return r && !r->opts.backwards && !layer->built;
}

tern_layer *tern_bidirectional(tern_layer *layer, const tern_bidirectional_opts *opts) {
  tern_layer *both[2] = {layer, NULL};
  if (!layer) return NULL;
  if (can_turn(layer) && !layer->taken) {
    both[1] = tern__layer_copy(layer);
    if (both[1]) {
      tern__rnn_of(both[1])->opts.backwards = 1;
      const bool named =
          name_it(both[1], "backward", tern_layer_name(layer)) && name_it(layer, "forward", tern_layer_name(layer));
      if (!named) {
        tern_layer_release(both[1]);
        both[1] = NULL;
      }
    }
  }
  return tern__layer_new(&tern__kind_bidirectional, opts ? opts : &(tern_bidirectional_opts){0}, both, 2);
}
