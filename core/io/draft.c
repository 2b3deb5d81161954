/* See draft.h. The temporary file is made in the folder of the one that it will be, since only there a rename is one
   step. */
#include "io/draft.h"
#include "base/alloc.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TRIES = 1000 };

static tern_rc failed(const tern__draft *d, const char *what, const char *where) {
  const int reason = errno;
  return tern__fail(TERN_E_IO, "%s: %.300s: %s %.300s: %s", d->op, d->path, what, where, strerror(reason));
}

tern_rc tern__draft_no_memory(const char *op, const char *path) {
  return tern__fail(TERN_E_OOM, "%s: %.300s: out of host memory", op, path);
}

/* Where the file goes: through symbolic links, and never over what is no regular file. mode: of the file that is
   there, or -1. */
static tern_rc find_place(tern__draft *d, int *mode) {
  struct stat info;
  *mode = -1;
  if (stat(d->path, &info) == 0) {
    if (!S_ISREG(info.st_mode))
      return tern__fail(TERN_E_IO, "%s: %.300s is there and not a regular file", d->op, d->path);
    *mode = info.st_mode & 0777;
    d->target = realpath(d->path, NULL);
    if (!d->target) return failed(d, "cannot find", d->path);
  } else {
    d->target = tern__strdup(d->path);
    if (!d->target) return tern__draft_no_memory(d->op, d->path);
  }
  const char *slash = strrchr(d->target, '/');
  d->folder = tern__strdup(slash ? d->target : ".");
  if (!d->folder) return tern__draft_no_memory(d->op, d->path);
  if (slash) d->folder[slash == d->target ? 1 : slash - d->target] = '\0';
  return TERN_OK;
}

/* Makes the temporary file: ".tern-PROCESS-NUMBER.tmp" in the folder, of a name that nobody has. */
static tern_rc make_temporary(tern__draft *d, int mode) {
  const size_t size = strlen(d->folder) + 64;
  d->temporary = tern__calloc(size, 1);
  if (!d->temporary) return tern__draft_no_memory(d->op, d->path);
  for (int i = 0; i < TRIES; i++) {
    snprintf(d->temporary, size, "%s/.tern-%ld-%d.tmp", d->folder, (long)getpid(), i);
    d->fd = open(d->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    d->made = d->fd >= 0;
    if (d->made || errno != EEXIST) break;
  }
  if (!d->made) return failed(d, "cannot make", d->temporary);
  if (mode >= 0 && fchmod(d->fd, (mode_t)mode)) return failed(d, "cannot keep the permissions of", d->path);
  return TERN_OK;
}

tern_rc tern__draft_begin(tern__draft *d, const char *op, const char *path) {
  int mode;
  *d = (tern__draft){.op = op, .path = path, .fd = -1};
  const tern_rc rc = find_place(d, &mode);
  return rc ? rc : make_temporary(d, mode);
}

tern_rc tern__draft_write(tern__draft *d, const void *data, size_t size) {
  const char *from = data;
  while (size > 0) {
    const ssize_t n = write(d->fd, from, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failed(d, "cannot write", d->temporary);
    from += n;
    size -= (size_t)n;
  }
  return TERN_OK;
}

tern_rc tern__draft_patch(tern__draft *d, uint64_t at, const void *data, size_t size) {
  const char *from = data;
  while (size > 0) {
    const ssize_t n = pwrite(d->fd, from, size, (off_t)at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failed(d, "cannot write", d->temporary);
    from += n;
    at += (uint64_t)n;
    size -= (size_t)n;
  }
  return TERN_OK;
}

/* The rename itself must reach the disk. Some file systems cannot sync a folder and say EINVAL. */
static tern_rc sync_folder(const tern__draft *d) {
  const int folder = open(d->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return failed(d, "was written, but cannot open to sync its folder", d->folder);
  const tern_rc rc =
      fsync(folder) && errno != EINVAL ? failed(d, "was written, but cannot sync its folder", d->folder) : TERN_OK;
  (void)close(folder);
  return rc;
}

static tern_rc publish(tern__draft *d) {
  if (fsync(d->fd)) return failed(d, "cannot sync", d->temporary);
  const int closed = close(d->fd);
  d->fd = -1;
  if (closed) return failed(d, "cannot close", d->temporary);
  if (rename(d->temporary, d->target)) return failed(d, "cannot be put in place from", d->temporary);
  d->made = false;
  return sync_folder(d);
}

tern_rc tern__draft_end(tern__draft *d, tern_rc rc) {
  if (!rc) rc = publish(d);
  if (d->fd >= 0) (void)close(d->fd);
  if (d->made) (void)unlink(d->temporary);
  free(d->target);
  free(d->folder);
  free(d->temporary);
  return rc;
}
