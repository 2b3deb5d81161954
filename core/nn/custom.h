/* Parameters of a layer of the program's own, for files: layer_json.c. */
#ifndef TERN_NN_CUSTOM_H_
#define TERN_NN_CUSTOM_H_
#include "nn/layer.h"
typedef struct tern__custom {
  tern_layer_body body;
  void *self;
  tern_layer_opts opts;
} tern__custom;
extern const tern__layer_kind tern__kind_custom;
#endif
