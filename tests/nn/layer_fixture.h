/* Layers against records of make_rnn.py: results, gradients of x and of the weights, masks; eagerly and in a compiled
   function whose batch and time vary. */
#ifndef TERN_TESTS_LAYER_FIXTURE_H_
#define TERN_TESTS_LAYER_FIXTURE_H_
#include "fixtures/fixtures.h"
#include <tern/nn.h>

/* Makes the layer of a record; NULL with the thread's error set. */
typedef tern_layer *(*layer_maker)(const fixture *f);
/* The records of the file; every (stride)th one only on a device that compiles slowly. most_traces: how
   often the function may be traced for four sizes. */
void layer_fixture_check(const char *file, layer_maker make, int stride, int most_traces);
#endif
