/* A layer of the program's own: two functions behind one kind. Files hold its name; who loads one brings a maker. */
#include "base/thread.h"
#include "nn/layer.h"
#include "nn/custom.h"
#include <string.h>

static tern_rc build_custom(tern_layer *l, tern_shape in, tern_dtype dtype) {
  const tern__custom *c = l->params;
  (void)dtype;
  return c->body.build ? c->body.build(c->self, l, in) : TERN_OK;
}

static tern_tensor *call_custom(tern_layer *l, tern_tensor *x, tern__pass *p) {
  const tern__custom *c = l->params;
  tern_tensor *y = c->body.call(c->self, l, x, p->training);
  if (!y) tern__fail(TERN_E_ARG, "%s's call gave NULL without an error", c->body.name);
  return y;
}

static void end_custom(tern_layer *l) {
  const tern__custom *c = l->params;
  if (c->body.release) c->body.release(c->self);
}

static tern_rc check_custom(const void *params) {
  const tern__custom *c = params;
  if (!c->body.call || !c->body.name || !*c->body.name || strchr(c->body.name, '/'))
    return tern__fail(TERN_E_ARG, "tern_layer_new: a body needs a call, and a name without '/'");
  return TERN_OK;
}

static const tern__field fields[] = {TERN__FIELD(TERN__TEXT, tern__custom, body.name, "body")};

const tern__layer_kind tern__kind_custom = {.name = "Custom",
                                            .stem = "custom",
                                            .params = sizeof(tern__custom),
                                            .opts = offsetof(tern__custom, opts),
                                            .state = 1, /* so that it is ended */
                                            .field = fields,
                                            .n_fields = 1,
                                            .check = check_custom,
                                            .build = build_custom,
                                            .call = call_custom,
                                            .end = end_custom};

tern_layer *tern_layer_new(const tern_layer_body *body, void *self, const tern_layer_opts *opts) {
  if (!body) {
    tern__fail(TERN_E_ARG, "tern_layer_new: body is NULL");
    return NULL;
  }
  tern__custom c = {.body = *body, .self = self};
  if (opts) c.opts = *opts;
  tern_layer *l = tern__layer_new(&tern__kind_custom, &c, NULL, 0);
  if (!l && body->release) body->release(self);
  return l;
}

tern_tensor *tern_layer_weight(tern_layer *layer, const char *name, tern_shape shape, const tern_weight_opts *opts) {
  if (!layer) return NULL;
  if (layer->built || !name || !*name || strchr(name, '/')) {
    tern__fail(TERN_E_ARG,
               layer->built ? "tern_layer_weight: layer %s was built already; weights are made in its build"
                            : "tern_layer_weight: a weight of layer %s needs a name without '/'",
               tern_layer_name(layer));
    return NULL;
  }
  return tern__layer_weight(layer, name, shape, opts && opts->dtype ? opts->dtype : TERN_F32,
                            opts ? opts->initializer : NULL, "glorot_uniform", opts && opts->frozen);
}
