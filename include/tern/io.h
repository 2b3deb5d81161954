/* Reading and writing data. */
#ifndef TERN_IO_H_
#define TERN_IO_H_
#include <tern/base.h>
#ifdef __cplusplus
extern "C" {
#endif

/* The array in an idx file (the format of MNIST), gzip-compressed or not, on the default device. The error names the
   file and what is wrong with it. */
TERN_API tern_tensor *tern_read_idx(const char *path);

/* ---- safetensors: named tensors in one file (https://github.com/huggingface/safetensors) ---- */

/* Write tensors[i] under names[i] (all different, none "__metadata__"). metadata: pairs of strings, n_metadata of them,
   or NULL. The file appears whole or not at all: it is written beside its place, synced and renamed. Waits for the
   device. */
TERN_API tern_rc tern_safetensors_write(const char *path, const char *const *names, tern_tensor *const *tensors, int n,
                                        const char *const (*metadata)[2], int n_metadata);
typedef struct tern_safetensors tern_safetensors;
/* Open a file and check all of its header: sizes, dtypes, offsets, overlaps, the file's length. Owned: end it with
   tern_safetensors_close. */
TERN_API tern_safetensors *tern_safetensors_open(const char *path);
/* Number of tensors. */
TERN_API int tern_safetensors_count(const tern_safetensors *file);
/* Name of tensor i in the order of the data; NULL past the last. Valid until the file is closed. */
TERN_API const char *tern_safetensors_name(const tern_safetensors *file, int i);
/* The tensor of that name, on the default device; NULL with an error that lists the names when there is none. */
TERN_API tern_tensor *tern_safetensors_get(tern_safetensors *file, const char *name);
/* The metadata value of that key; NULL when there is none. */
TERN_API const char *tern_safetensors_metadata(const tern_safetensors *file, const char *key);
/* NULL is allowed. Tensors that came from the file stay. */
TERN_API void tern_safetensors_close(tern_safetensors *file);

/* Write variables under their names. Every one must have a name, and no two the same. */
TERN_API tern_rc tern_checkpoint_save(const char *path, tern_tensor *const *variables, int n);
/* Assign to each variable what the file holds under its name. Names, shapes and dtypes are checked first: either all
   variables change or none. The file may hold more. */
TERN_API tern_rc tern_checkpoint_restore(const char *path, tern_tensor *const *variables, int n);

/* ---- NumPy's .npy and .npz ---- */

/* The array in a .npy file (version 1 to 3, C or Fortran order, either byte order), on the default device. Dtypes that
   tern lacks (complex, text, objects) are an error. */
TERN_API tern_tensor *tern_npy_read(const char *path);
/* Version 1.0, C order. Whole or not at all, as tern_safetensors_write. bfloat16 is an error: NumPy has none. */
TERN_API tern_rc tern_npy_write(const char *path, tern_tensor *t);
/* An .npz file: arrays by name in a zip file, stored or deflated. Its directory and every header are checked. Owned. */
typedef struct tern_npz tern_npz;
/* Open and check such a file. */
TERN_API tern_npz *tern_npz_open(const char *path);
/* Number of arrays. */
TERN_API int tern_npz_count(const tern_npz *file);
/* Name of array i, without ".npy"; NULL past the last. Valid until the file is closed. */
TERN_API const char *tern_npz_name(const tern_npz *file, int i);
/* The array of that name on the default device; NULL with an error that lists the names when there is none. */
TERN_API tern_tensor *tern_npz_get(tern_npz *file, const char *name);
/* NULL is allowed. */
TERN_API void tern_npz_close(tern_npz *file);
typedef struct tern_npz_opts { int compressed; } tern_npz_opts;
/* As numpy.savez, or savez_compressed. Whole or not at all. */
TERN_API tern_rc tern_npz_write(const char *path, const char *const *names, tern_tensor *const *tensors, int n,
                                const tern_npz_opts *opts);

/* ---- DLPack: tensors of other libraries in this process, without a copy (https://dmlc.github.io/dlpack) ---- */

/* A DLManagedTensorVersioned (DLPack 1.x) that shares t's memory, which it keeps until its deleter is called; NULL with
   the error set. Waits for the device. What is not in host memory is copied there first. It is flagged read-only:
   tern's tensors do not change. */
TERN_API void *tern_to_dlpack(tern_tensor *t);
/* The same as a DLManagedTensor, for libraries from before DLPack 1.0, which cannot say "read-only". */
TERN_API void *tern_to_dlpack_legacy(tern_tensor *t);
/* A tensor over the memory of a DLManagedTensorVersioned, whose deleter is called once, when nothing uses it any more
   (at once where the memory had to be copied). A failed call has not taken it over. Memory of the host; any strides. */
TERN_API tern_tensor *tern_from_dlpack(void *managed);
/* The same for a DLManagedTensor. */
TERN_API tern_tensor *tern_from_dlpack_legacy(void *managed);

/* ---- TensorBoard: event files that `tensorboard --logdir FOLDER` shows. One writer a file, one thread at a time
   ---- */

typedef struct tern_board tern_board;
/* A new event file in folder, which is made if need be. Owned: tern_board_close. */
TERN_API tern_board *tern_board_open(const char *folder);
/* A number under a tag ("epoch_loss") at a step. */
TERN_API tern_rc tern_board_scalar(tern_board *b, const char *tag, int64_t step, double value);
/* How the elements of t are distributed, in 30 buckets. */
TERN_API tern_rc tern_board_histogram(tern_board *b, const char *tag, int64_t step, tern_tensor *t);
/* Pictures [n, height, width, 1 to 4 channels], uint8 or floats in [0, 1]; at most 16 are written. */
TERN_API tern_rc tern_board_images(tern_board *b, const char *tag, int64_t step, tern_tensor *t);
/* Text; TensorBoard shows it as Markdown. */
TERN_API tern_rc tern_board_text(tern_board *b, const char *tag, int64_t step, const char *text);
struct tern_function;
/* The graph of a function that was called before, nodes grouped by the names that its ops were given. */
TERN_API tern_rc tern_board_graph(tern_board *b, struct tern_function *function);
/* Hand what was written so far to the file. */
TERN_API tern_rc tern_board_flush(tern_board *b);
/* Flushes. NULL is allowed. */
TERN_API tern_rc tern_board_close(tern_board *b);

#ifdef __cplusplus
}
#endif
#endif
