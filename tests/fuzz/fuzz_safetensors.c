/* libFuzzer harness of the safetensors reader: the input is a file's content, handed over through an anonymous file. A
   file that is taken for sound must be described by figures that fit it, and all of its data be there; a refused one
   must say why. An input that does not begin like a file is taken for a header alone, which is put into a file with
   the data that its last byte says. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memfd_create */
#endif
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "io/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int holds) {
  if (!holds) abort();
}

static void check_file(const char *path, size_t size) {
  tern_safetensors *file = tern_safetensors_open(path);
  check((file == NULL) == (tern_error_code() != TERN_OK));
  check(file || tern_error_code() == TERN_E_IO || tern_error_code() == TERN_E_OOM);
  check(file || strstr(tern_error(), path));
  tern_error_clear();
  uint64_t at = 0;
  for (int i = 0; i < tern_safetensors_count(file); i++) {
    const char *name = tern_safetensors_name(file, i);
    const tern__safetensors_entry *e = tern__safetensors_find(file, name);
    check(e && e->name == name && e->begin == at && e->end >= at && e->end <= size);
    check(e->rank >= 0 && e->rank <= TERN_MAX_RANK && tern__safetensors_dtype(e->dtype));
    check((uint64_t)tern__numel(e->rank, e->shape) * tern_dtype_size(e->dtype) == e->end - e->begin);
    at = e->end;
    char *bytes = malloc((size_t)(e->end - e->begin) + 1);
    check(bytes && tern__safetensors_bytes(file, e, 0, bytes, (size_t)(e->end - e->begin)) == TERN_OK);
    free(bytes);
  }
  if (file) {
    char names[40];
    check(strlen(tern__safetensors_names(file, names, sizeof names)) < sizeof names);
    (void)tern_safetensors_metadata(file, "a");
    check(!tern_safetensors_name(file, tern_safetensors_count(file)));
  }
  tern_safetensors_close(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const uint8_t zeros[256];
  const int fd = memfd_create("safetensors", 0);
  if (fd < 0) return 0;
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  size_t written = size;
  if (size > 0 && data[0] == '{') {
    const uint64_t length = size - 1;
    written = 8 + size - 1 + data[size - 1];
    check(write(fd, &length, 8) == 8 && write(fd, data, size - 1) == (ssize_t)(size - 1));
    check(write(fd, zeros, data[size - 1]) == data[size - 1]);
  } else {
    check(write(fd, data, size) == (ssize_t)size);
  }
  check_file(path, written);
  (void)close(fd);
  return 0;
}
