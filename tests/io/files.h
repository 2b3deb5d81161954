/* Small files for the tests of readers and writers. */
#ifndef TERN_TESTS_IO_FILES_H_
#define TERN_TESTS_IO_FILES_H_
#include <stddef.h>

/* Makes the file with these bytes; a failure fails the test. */
void files_write(const char *path, const void *bytes, size_t size);
/* A file's bytes, up to 1 MiB, owned by the caller. NULL when it cannot be read. */
void *files_read(const char *path, size_t *size);
/* Entries of the folder whose names begin with a dot: temporary files that were left. */
int files_left_over(const char *folder);
#endif
