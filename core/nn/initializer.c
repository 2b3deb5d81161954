/* Keras's initialisers: what weights begin with. Draws come from the process's generator, in the order of the calls. */
#include "base/thread.h"
#include "nn/layer.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Keras counts the inputs and outputs of a kernel by its last two axes, times the sizes of those before. */
static void fans(tern_shape shape, double *in, double *out) {
  double field = 1;
  for (int d = 0; d + 2 < shape.rank; d++) field *= (double)shape.dim[d];
  *in = shape.rank > 1 ? field * (double)shape.dim[shape.rank - 2] : shape.rank ? (double)shape.dim[0] : 1;
  *out = shape.rank > 1 ? field * (double)shape.dim[shape.rank - 1] : *in;
}

typedef enum { ZEROS, ONES, UNIFORM, NORMAL, TRUNCATED, SCALED_UNIFORM, SCALED_NORMAL, ORTHOGONAL, IDENTITY } form;
typedef enum { IN, AVERAGE } fan;
static const struct {
  const char *name;
  form form;
  fan fan;
  double scale; /* variance * fan, or a bound */
} table[] = {{"glorot_uniform", SCALED_UNIFORM, AVERAGE, 1},
             {"glorot_normal", SCALED_NORMAL, AVERAGE, 1},
             {"he_uniform", SCALED_UNIFORM, IN, 2},
             {"he_normal", SCALED_NORMAL, IN, 2},
             {"lecun_uniform", SCALED_UNIFORM, IN, 1},
             {"lecun_normal", SCALED_NORMAL, IN, 1},
             {"random_uniform", UNIFORM, IN, 0.05},
             {"uniform", UNIFORM, IN, 0.05},
             {"random_normal", NORMAL, IN, 0.05},
             {"normal", NORMAL, IN, 0.05},
             {"truncated_normal", TRUNCATED, IN, 0.05},
             {"orthogonal", ORTHOGONAL, IN, 1},
             {"identity", IDENTITY, IN, 1},
             {"zeros", ZEROS, IN, 0},
             {"ones", ONES, IN, 0}};
enum { N_TABLE = sizeof table / sizeof *table };

static tern_tensor *uniform(tern_shape shape, tern_dtype dtype, double bound) {
  return tern_random_uniform(shape, &(tern_random_opts){.low = -bound, .high = bound, .dtype = dtype});
}

/* Drawn in float64 only for that: not every device has it. */
static tern_dtype drawn_in(tern_dtype dtype) { return dtype == TERN_F64 ? TERN_F64 : TERN_F32; }

/* Normal numbers within two deviations, by the inverse of their distribution: sqrt(2) erfinv(u), u uniform within what
   the distribution has there. */
static tern_tensor *truncated(tern_shape shape, tern_dtype dtype, double deviation) {
  const double bound = erf(2 / sqrt(2));
  tern_tensor *u = uniform(shape, drawn_in(dtype), bound);
  return tern_cast(tern_mul(tern_erfinv(u), tern_scalar(sqrt(2) * deviation)), dtype);
}

/* Eight sums side by side, so that the compiler may use vectors. */
static double dot(const double *a, const double *b, int64_t n) {
  double sum[8] = {0};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int k = 0; k < 8; k++) sum[k] += a[i + k] * b[i + k];
  for (; i < n; i++) sum[0] += a[i] * b[i];
  return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

/* Rows made orthonormal one after the other, by Gram and Schmidt's way; again for a row of which little was left, as
   the rounding errors of what was taken away show then (Daniel, Gragg, Kaufman, Stewart, 1976). */
static void orthonormal(double *a, int64_t rows, int64_t columns) {
  for (int64_t r = 0; r < rows; r++) {
    double *row = a + r * columns, before, left = dot(row, row, columns);
    do {
      before = left;
      for (int64_t k = 0; k < r; k++) {
        const double *other = a + k * columns, part = dot(row, other, columns);
        for (int64_t c = 0; c < columns; c++) row[c] -= part * other[c];
      }
      left = dot(row, row, columns);
    } while (left < before / 2 && left > 0);
    const double scale = 1 / sqrt(left);
    for (int64_t c = 0; c < columns; c++) row[c] *= scale;
  }
}

/* few rows of many columns, drawn and made orthonormal: owned by the caller. NULL with the error set. */
static double *orthonormal_rows(int64_t few, int64_t many, tern_dtype dtype) {
  const size_t n = (size_t)few * (size_t)many;
  tern_tensor *drawn = tern_random_normal(TERN_SHAPE(few, many), &(tern_random_opts){.dtype = drawn_in(dtype)});
  double *a = drawn ? malloc(n * sizeof *a) : NULL;
  if (drawn && !a) tern__fail(TERN_E_OOM, "tern_initialize: out of host memory");
  /* float32 goes to the upper half, and is read from there before it is written over */
  float *narrow = (float *)(void *)a + n;
  const bool wide = drawn_in(dtype) == TERN_F64;
  if (!a || tern_to_host(drawn, wide ? (void *)a : narrow, n * (wide ? sizeof *a : sizeof *narrow))) {
    free(a);
    return NULL;
  }
  for (size_t i = 0; i < n && !wide; i++) {
    float f;
    memcpy(&f, narrow + i, sizeof f);
    memcpy(a + i, &(double){f}, sizeof *a);
  }
  orthonormal(a, few, many);
  return a;
}

/* A matrix [sizes but the last, the last] with orthonormal rows or columns (Saxe, McClelland, Ganguli, 2014). */
static tern_tensor *orthogonal(tern_shape shape, tern_dtype dtype) {
  if (shape.rank < 2) {
    tern__fail(TERN_E_ARG, "tern_initialize: orthogonal needs rank 2 or more");
    return NULL;
  }
  const int64_t columns = shape.dim[shape.rank - 1];
  int64_t rows = 1;
  for (int d = 0; d < shape.rank; d++)
    if (shape.dim[d] < 1 || (d + 1 < shape.rank && __builtin_mul_overflow(rows, shape.dim[d], &rows)))
      return tern_zeros(shape, dtype); /* empty, or the error for such a size */
  const int64_t few = rows < columns ? rows : columns, many = rows < columns ? columns : rows;
  double *a = orthonormal_rows(few, many, dtype);
  if (!a) return NULL;
  if (drawn_in(dtype) == TERN_F32)
    for (int64_t i = 0; i < few * many; i++) {
      const float f = (float)a[i];
      memcpy((float *)(void *)a + i, &f, sizeof f);
    }
  tern_tensor *q = tern_constant(TERN_SHAPE(few, many), drawn_in(dtype), a, (size_t)few * (size_t)many);
  free(a);
  return tern_contiguous(tern_reshape(tern_cast(rows < columns ? q : tern_transpose(q), dtype), shape));
}

static int find(const char *name) {
  int i = 0;
  while (i < N_TABLE && strcmp(name, table[i].name)) i++;
  return i;
}

tern_rc tern__initializer_check(const char *name) {
  if (!name || find(name) < N_TABLE) return TERN_OK;
  char list[400] = "";
  for (int k = 0, n = 0; k < N_TABLE; k++)
    n += snprintf(list + n, sizeof list - (size_t)n, "%s%s", k ? ", " : "", table[k].name);
  return tern__fail(TERN_E_ARG, "there is no initialiser \"%s\"; there are: %s", name, list);
}

tern_tensor *tern_initialize(const char *name, tern_shape shape, tern_dtype dtype) {
  if (tern__initializer_check(name ? name : "NULL")) return NULL;
  const int i = find(name);
  double in, out;
  fans(shape, &in, &out);
  const double n = table[i].fan == AVERAGE ? (in + out) / 2 : in, variance = table[i].scale / (n > 1 ? n : 1);
  switch (table[i].form) {
  case ZEROS: return tern_zeros(shape, dtype);
  case ONES: return tern_ones(shape, dtype);
  case UNIFORM: return uniform(shape, dtype, table[i].scale);
  case NORMAL: return tern_random_normal(shape, &(tern_random_opts){.stddev = table[i].scale, .dtype = dtype});
  case TRUNCATED: return truncated(shape, dtype, table[i].scale);
  case SCALED_UNIFORM: return uniform(shape, dtype, sqrt(3 * variance));
  /* the deviation of a normal number that is cut at two deviations is 0.8796.. of it */
  case SCALED_NORMAL: return truncated(shape, dtype, sqrt(variance) / 0.87962566103423978);
  case ORTHOGONAL: return orthogonal(shape, dtype);
  default: break;
  }
  if (shape.rank == 2) return tern_eye(shape.dim[0], shape.dim[1], 0, dtype);
  tern__fail(TERN_E_ARG, "tern_initialize: identity needs rank 2");
  return NULL;
}
