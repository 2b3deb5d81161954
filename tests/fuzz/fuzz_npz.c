/* libFuzzer harness of the .npz reader: the input is a file's content, handed over through an anonymous file. What is
   taken for sound has members within the file, with names that differ; each is read, or refused with a reason. Plugins
   are looked for beside the program, in ../lib/tern, since an array needs a device. */
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

#include "io/npz.h"

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

static void check_members(tern_npz *file, size_t size, const char *path) {
  for (int i = 0; i < tern_npz_count(file); i++) {
    TERN_SCOPE;
    const tern__npz_entry *e = &file->entries[i];
    check(e->data >= 30 && e->data <= size && e->packed <= size - e->data && !strstr(e->name, "../"));
    tern_tensor *t = tern_npz_get(file, tern_npz_name(file, i));
    check((t == NULL) == (tern_error_code() != TERN_OK));
    check(t || tern_error_code() == TERN_E_IO || tern_error_code() == TERN_E_OOM);
    check(t || strstr(tern_error(), path));
    check(!t || (uint64_t)tern_size(t) * tern_dtype_size(tern_dtype_get(t)) < e->size);
    tern_error_clear();
  }
  check(!tern_npz_name(file, tern_npz_count(file)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const int fd = memfd_create("npz", 0);
  if (fd < 0) return 0;
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  check(write(fd, data, size) == (ssize_t)size);
  TERN_SCOPE;
  tern_npz *file = tern_npz_open(path);
  check((file == NULL) == (tern_error_code() != TERN_OK));
  check(file || tern_error_code() == TERN_E_IO || tern_error_code() == TERN_E_OOM);
  check(file || strstr(tern_error(), path));
  tern_error_clear();
  if (file) check_members(file, size, path);
  tern_npz_close(file);
  (void)close(fd);
  return 0;
}
