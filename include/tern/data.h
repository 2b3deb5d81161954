/* Input pipelines. A dataset describes a sequence of elements, each a tuple of 1 to TERN_MAX_COMPONENTS tensors in host
   memory; nothing is read before an iterator asks. Functions that make a dataset from another take that one over: it
   ends with the new one, or at once when the call fails. NULL in gives NULL out, so that they can be nested. What
   comes out depends on the seeds alone, never on threads. A dataset is not changed by its iterators: any number of
   them, in any threads; one iterator belongs to one thread at a time. */
#ifndef TERN_DATA_H_
#define TERN_DATA_H_
#include <tern/tensor.h>
#ifdef __cplusplus
extern "C" {
#endif

typedef struct tern_dataset tern_dataset;
enum { TERN_MAX_COMPONENTS = 8 };

/* ---- where elements come from. Each is owned: end it with tern_dataset_release ---- */

/* Element i: row i (along axis 0) of each tensor; all have the same number of rows. Keeps references, copies nothing
   (but tensors of another device, and those that are not row-major, once). */
TERN_API tern_dataset *tern_dataset_tensors(tern_tensor *const *tensors, int n);
/* int64 numbers of rank 0: start, start + step, .. below stop (above it when step is negative). */
TERN_API tern_dataset *tern_dataset_range(int64_t start, int64_t stop, int64_t step);
/* The rows of idx files (the format of MNIST, gzip or not) and of .npy files, one component a file. Files are read when
   the first iterator begins, and again when they have changed. */
TERN_API tern_dataset *tern_dataset_idx(const char *const *paths, int n);
/* As tern_dataset_idx, of .npy files. */
TERN_API tern_dataset *tern_dataset_npy(const char *const *paths, int n);
/* The rows of arrays of an .npz file, one component a name. */
TERN_API tern_dataset *tern_dataset_npz(const char *path, const char *const *names, int n);
/* columns: names (with a header) or numbers from 0 as text, of those that make component 0, a vector [n_columns];
   NULL = all but the label. label: the column of component 1, a number of rank 0; NULL = none. dtype, label_dtype: 0
   = float32, int64. no_header: the first line is data. separator: 0 = ','. missing: what an empty field counts as,
   when fill_missing is set; else it is an error. words: a field that is not a number is the place of its text in this
   list (NULL at the end); NULL: an error. Quoted fields as RFC 4180. */
typedef struct tern_csv_opts {
  const char *const *columns;
  int n_columns;
  const char *label;
  tern_dtype dtype, label_dtype;
  int no_header, fill_missing;
  char separator;
  double missing;
  const char *const *words;
} tern_csv_opts;
/* One element a record. Errors name file, line and column. */
TERN_API tern_dataset *tern_dataset_csv(const char *path, const tern_csv_opts *opts);
/* The lines of text files (gzip or not), one after the other, without their ends: uint8 vectors. */
TERN_API tern_dataset *tern_dataset_text(const char *const *paths, int n);
/* The next element: fills out[] (room for TERN_MAX_COMPONENTS) with tensors borrowed from the scope that is open around
   the call and returns their number; 0: no more; an error code: this element failed, the next call gives the one behind
   it. state: what `begin` gave for this iterator. */
typedef int (*tern_generate)(void *self, void *state, tern_tensor **out);
/* begin: called for each iterator, may be NULL; end: frees its state, may be NULL. release(self): called once, when the
   dataset ends; may be NULL. Calls for one iterator never overlap. */
typedef struct tern_generator {
  tern_generate next;
  tern_rc (*begin)(void *self, void **state);
  void (*end)(void *self, void *state);
  void (*release)(void *self);
} tern_generator;
/* Elements that the program makes. */
TERN_API tern_dataset *tern_dataset_generator(const tern_generator *generator, void *self);
/* Element i: the components of all datasets' elements i, side by side; ends with the shortest. */
TERN_API tern_dataset *tern_dataset_zip(tern_dataset *const *datasets, int n);
/* One after the other. */
TERN_API tern_dataset *tern_dataset_concat(tern_dataset *const *datasets, int n);

/* ---- what becomes of them ---- */

/* Makes an element of one: fills out[] (room for TERN_MAX_COMPONENTS) with tensors borrowed from the scope around the
   call and returns their number, or an error code. */
typedef int (*tern_map_body)(void *self, tern_tensor *const *in, int n_in, tern_tensor **out);
/* threads: 0 = on the iterator's own, -1 = one a processor; body must allow it. Elements stay in order. */
typedef struct tern_map_opts { int threads; } tern_map_opts;
/* body of each element. Random ops in it draw from numbers that belong to the element, so threads change nothing. self
   must outlive the dataset. */
TERN_API tern_dataset *tern_dataset_map(tern_dataset *d, tern_map_body body, void *self, const tern_map_opts *opts);
/* Elements for which keep returns 1; 0 leaves one out, less than 0 is an error code. */
TERN_API tern_dataset *tern_dataset_filter(tern_dataset *d, int (*keep)(void *self, tern_tensor *const *in, int n_in),
                                           void *self);
/* seed: 0 = drawn from the process's generator when the dataset is made. same_each_time: every iterator gives the same
   order; else each gives another one. */
typedef struct tern_shuffle_opts { uint64_t seed; int same_each_time; } tern_shuffle_opts;
/* In random order: each is drawn from the next `buffer` elements (0 = all of them). */
TERN_API tern_dataset *tern_dataset_shuffle(tern_dataset *d, int64_t buffer, const tern_shuffle_opts *opts);
typedef struct tern_batch_opts { int drop_remainder; } tern_batch_opts;
/* `size` elements stacked along a new axis 0; the last batch may be smaller. Shapes must be equal. */
TERN_API tern_dataset *tern_dataset_batch(tern_dataset *d, int64_t size, const tern_batch_opts *opts);
/* shapes: for each component the shape to pad to, -1 where it is that of the batch's largest; NULL = all -1. values:
   what pads each component; NULL = zeros. lengths: the size of axis 0 of component 0 before the padding becomes a
   further component, int64 [batch]. */
typedef struct tern_padded_opts {
  const tern_shape *shapes;
  const double *values;
  int n, drop_remainder, lengths;
} tern_padded_opts;
/* As tern_dataset_batch, with each element padded at the end of its axes. */
TERN_API tern_dataset *tern_dataset_padded_batch(tern_dataset *d, int64_t size, const tern_padded_opts *opts);
/* Padded batches of elements of similar length (axis 0 of component 0): bucket i holds lengths below boundaries[i] (the
   last, all others) and gives batches of sizes[i]; n boundaries, n + 1 sizes. */
TERN_API tern_dataset *tern_dataset_bucket_by_length(tern_dataset *d, const int64_t *boundaries, const int64_t *sizes,
                                                     int n, const tern_padded_opts *opts);
/* times over; -1 = for ever. A time that gives nothing ends it. */
TERN_API tern_dataset *tern_dataset_repeat(tern_dataset *d, int64_t times);
/* The first n elements; all but these. */
TERN_API tern_dataset *tern_dataset_take(tern_dataset *d, int64_t n);
/* All but the first n elements. */
TERN_API tern_dataset *tern_dataset_skip(tern_dataset *d, int64_t n);
/* Elements index, index + n, .. */
TERN_API tern_dataset *tern_dataset_shard(tern_dataset *d, int64_t n, int64_t index);
/* Kept in host memory by the first iterator that reaches the end without an error; later ones read nothing. All see
   what the first one would: random order and numbers belong behind it. */
TERN_API tern_dataset *tern_dataset_cache(tern_dataset *d);
/* Up to n elements (0 = 2) are made ahead by a thread of the iterator, and moved to `device` (NULL = they stay), so
   that reading and copying go on beside the program. */
TERN_API tern_dataset *tern_dataset_prefetch(tern_dataset *d, int n, const char *device);
/* Elements that fail are left out and counted (tern_iterator_skipped); `most` of them (0 = any number), then it
   fails. */
TERN_API tern_dataset *tern_dataset_skip_errors(tern_dataset *d, int64_t most);

/* Elements, as far as it is known without reading: -1 = endless, -2 = unknown. */
TERN_API int64_t tern_dataset_size(const tern_dataset *d);
/* NULL is allowed. Iterators that are open go on. */
TERN_API void tern_dataset_release(tern_dataset *d);

/* ---- reading ---- */

typedef struct tern_iterator tern_iterator;
/* Owned: tern_iterator_end. */
TERN_API tern_iterator *tern_dataset_begin(tern_dataset *d);
/* Fills out[] (room for TERN_MAX_COMPONENTS) with the next element, borrowed from the scope, and returns how many
   components it has. 0: the end. Less than 0: an error code, with a text that names what failed (file and record); the
   next call goes on behind it. */
TERN_API int tern_iterator_next(tern_iterator *it, tern_tensor **out);
/* Elements left out by tern_dataset_skip_errors so far. */
TERN_API int64_t tern_iterator_skipped(const tern_iterator *it);
/* Ends its threads. NULL is allowed. */
TERN_API void tern_iterator_end(tern_iterator *it);

#ifdef __cplusplus
}
#endif
#endif
