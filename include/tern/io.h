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

#ifdef __cplusplus
}
#endif
#endif
