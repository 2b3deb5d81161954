/* libFuzzer harness of the IDX reader: the input is a file's content, handed over through an anonymous file. A sound
   file must be sound again when its own bytes are read twice, and a refused one must say why. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memfd_create */
#endif
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "io/idx.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int holds) {
  if (!holds) {
    abort();
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const int fd = memfd_create("idx", 0);
  if (fd < 0) {
    return 0;
  }
  char path[64], message[256];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  if (write(fd, data, size) == (ssize_t)size) {
    tern__idx first, second;
    const tern_rc rc = tern__idx_read(path, &first, message, sizeof message);
    check(rc == TERN_OK || rc == TERN_E_IO || rc == TERN_E_OOM);
    check((rc == TERN_OK) == (message[0] == '\0'));
    check((rc == TERN_OK) == (first.data != NULL));
    if (rc == TERN_OK) {
      check(tern__idx_read(path, &second, message, sizeof message) == TERN_OK);
      check(first.rank >= 1 && first.rank <= TERN_MAX_RANK && first.size == second.size);
      check(memcmp(first.data, second.data, first.size) == 0);
      tern__idx_free(&second);
    }
    tern__idx_free(&first);
  }
  (void)close(fd);
  return 0;
}
