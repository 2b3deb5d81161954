/* Reading data. */
#ifndef TERN_IO_H_
#define TERN_IO_H_
#include <tern/base.h>
#ifdef __cplusplus
extern "C" {
#endif

/* The array in an idx file (the format of MNIST), gzip-compressed or not, on the default device. The error names the file and
   what is wrong with it. */
TERN_API tern_tensor *tern_read_idx(const char *path);

#ifdef __cplusplus
}
#endif
#endif
