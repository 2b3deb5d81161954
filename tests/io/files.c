/* See files.h. */
#include "io/files.h"
#include "support/test.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void files_write(const char *path, const void *bytes, size_t size) {
  (void)unlink(path); /* some file systems sync a file that is cut to nothing and written anew */
  FILE *file = fopen(path, "wb");
  CHECK(file && fwrite(bytes, 1, size, file) == size && fclose(file) == 0, "cannot write %s", path);
}

void *files_read(const char *path, size_t *size) {
  FILE *file = fopen(path, "rb");
  void *bytes = file ? malloc(1 << 20) : NULL;
  *size = bytes ? fread(bytes, 1, 1 << 20, file) : 0;
  if (file) fclose(file);
  return bytes;
}

int files_left_over(const char *folder) {
  int n = 0;
  DIR *d = opendir(folder);
  for (const struct dirent *e; d && (e = readdir(d));)
    n += e->d_name[0] == '.' && strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
  if (d) closedir(d);
  return n;
}
