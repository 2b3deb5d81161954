/* All elements of a dataset as numbers, and small files to read. */
#ifndef TERN_TESTS_DATA_COLLECT_H_
#define TERN_TESTS_DATA_COLLECT_H_
#include "support/values.h"
#include <stdint.h>

typedef struct collected {
  int64_t *shapes; /* for each tensor in order its rank and sizes */
  double *values;  /* all elements of all tensors in order */
  size_t n_shapes, n_values;
  int elements, components /* of the first element */, errors;
  int error_at[16];     /* how many elements came before each error */
  char error[16][1024]; /* their texts */
} collected;

/* Goes through it once, with a new iterator or with one that is begun; ends neither dataset nor iterator. The tensors
   must be on `device`. Free what comes out with collected_free. */
collected collect(tern_dataset *d);
collected collect_from(tern_iterator *it, const char *device);
/* collect, and the dataset ends. */
collected collect_all(tern_dataset *d);
void collected_free(collected *c);
bool collected_equal(const collected *a, const collected *b);

/* The values in order must be these. */
void check_sequence(collected got, const double *expected, size_t n, const char *file, int line);
#define CHECK_SEQUENCE(dataset, ...)                                  \
  check_sequence(collect_all(dataset), (const double[]){__VA_ARGS__}, \
                 sizeof((const double[]){__VA_ARGS__}) / sizeof(double), __FILE__, __LINE__)

/* The path of a file in a temporary folder of this program's, valid until the next but seven call; written when bytes
   is not NULL. The folder is removed when the program ends. */
const char *test_file(const char *name, const void *bytes, size_t size);
/* The same for text, gzipped when packed. */
const char *test_text_file(const char *name, const char *text, bool packed);
#endif
