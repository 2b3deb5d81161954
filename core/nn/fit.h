/* What fit.c and evaluate.c share. */
#ifndef TERN_NN_FIT_H_
#define TERN_NN_FIT_H_
#include "nn/model.h"

/* Batches of (x, y, weights) in host memory; y and weights may be NULL. Owned; NULL with the error set. batch: 0 =
   32. */
tern_dataset *tern__batches(tern_tensor *x, tern_tensor *y, tern_tensor *weights, int batch);
/* Loss and metrics over a dataset, up to `most` batches (0 = all): tern__model_figures has them then. bar: may be
   NULL. */
tern_rc tern__model_test_all(tern_model *m, tern_dataset *data, int64_t most, tern__bar *bar, const char *op);
#endif
