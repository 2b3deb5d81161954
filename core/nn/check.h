/* What the kinds of layers ask of their parameters and inputs, with errors that name them. */
#ifndef TERN_NN_CHECK_H_
#define TERN_NN_CHECK_H_
#include "nn/layer.h"

/* Parameters: of the kind `kind`, by the name that the program uses. TERN_OK or an error. */
tern_rc tern__check_count(const char *kind, const char *what, int64_t given, int64_t least);
tern_rc tern__check_range(const char *kind, const char *what, double given, double low, double high);
tern_rc tern__check_activation(const char *kind, const char *what, const char *name);
tern_rc tern__check_initializer(const char *kind, const char *what, const char *name);
/* The input, batch included; axes: "[batch, time, channels]". */
tern_rc tern__check_rank(int rank, int wanted, const char *axes);
/* 0 is the standard value, TERN_ZERO exactly 0. */
double tern__number_or(double given, double standard);

/* The dtype of weights for inputs of dtype x: float32 unless that is a float. */
tern_dtype tern__weight_dtype(tern_dtype x);
/* x, integers as that float. */
tern_tensor *tern__as_float(tern_tensor *x);
/* activation(y + bias); bias NULL: none. */
tern_tensor *tern__biased(tern_tensor *y, tern_tensor *bias, const char *activation);
#endif
