/* libFuzzer harness of the .npy reader: the input is a file's content, handed over through an anonymous file. What is
   taken for sound is an array whose elements are all there; what is refused says why. An input that begins with { is
   taken for a header's dict alone, which is put into a file with as many bytes behind as it asks for. Plugins are
   looked for beside the program, in ../lib/tern, since an array needs a device. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memfd_create */
#endif
#include <libgen.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "io/npy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static void check(int holds) {
  if (!holds) abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc;
  char program[4096], path[4200];
  snprintf(program, sizeof program, "%s", (*argv)[0]);
  snprintf(path, sizeof path, "%s/../lib/tern", dirname(program));
  setenv("TERN_PLUGIN_PATH", path, 0);
  return 0;
}

/* The dict as a file, whose elements are those that it asks for if there are not too many. */
static void write_dict(int fd, const uint8_t *data, size_t size) {
  static const char zeros[1 << 16];
  tern__npy array;
  if (size > 65535) size = 65535;
  const uint8_t head[] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (uint8_t)size, (uint8_t)(size >> 8)};
  check(write(fd, head, sizeof head) == sizeof head && write(fd, data, size) == (ssize_t)size);
  char *exact = malloc(size); /* nothing may be read behind it */
  check(exact != NULL);
  memcpy(exact, data, size);
  if (tern__npy_dict(exact, size, "dict", &array) == TERN_OK) {
    const int64_t n = tern__numel(array.rank, array.shape);
    const uint64_t bytes = n < 0 ? 0 : (uint64_t)n * tern_dtype_size(array.dtype);
    check(array.rank >= 0 && array.rank <= TERN_MAX_RANK && tern_dtype_size(array.dtype) > 0);
    if (bytes <= sizeof zeros) check(write(fd, zeros, (size_t)bytes) == (ssize_t)bytes);
  }
  free(exact);
  tern_error_clear();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const int fd = memfd_create("npy", 0);
  if (fd < 0) return 0;
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  if (size > 0 && data[0] == '{')
    write_dict(fd, data, size);
  else
    check(write(fd, data, size) == (ssize_t)size);
  TERN_SCOPE;
  tern_tensor *t = tern_npy_read(path);
  check((t == NULL) == (tern_error_code() != TERN_OK));
  check(t || tern_error_code() == TERN_E_IO || tern_error_code() == TERN_E_OOM);
  check(t || strstr(tern_error(), path));
  if (t) {
    const size_t bytes = (size_t)tern_size(t) * tern_dtype_size(tern_dtype_get(t));
    char *elements = malloc(bytes + 1);
    check(elements && tern_to_host(t, elements, bytes) == TERN_OK);
    free(elements);
  }
  tern_error_clear();
  (void)close(fd);
  return 0;
}
