/* Files that are read from front to end, gzip or not. */
#include "base/alloc.h"
#include "data/data.h"
#include <errno.h>
#include <stdlib.h>
#include <zlib.h>

enum { BUFFER = 1 << 17 };

tern_rc tern__reader_open(tern__reader *r, const char *op, const char *path) {
  *r = (tern__reader){.op = op, .path = path};
  r->buffer = tern__calloc(BUFFER, 1);
  if (!r->buffer) return tern__fail(TERN_E_OOM, "%s: out of host memory to read %s", op, path);
  errno = 0;
  r->file = gzopen(path, "rbe");
  if (r->file) {
    gzbuffer(r->file, BUFFER);
    return TERN_OK;
  }
  const int reason = errno;
  tern__reader_close(r);
  return tern__fail(reason ? TERN_E_IO : TERN_E_OOM, "%s: %s cannot be opened: %s", op, path,
                    reason ? strerror(reason) : "out of host memory");
}

tern_rc tern__reader_fill(tern__reader *r) {
  r->at = r->filled = 0;
  if (r->ended || !r->file) return TERN_OK;
  errno = 0;
  const int got = gzread(r->file, r->buffer, BUFFER);
  const int reason = errno;
  if (got > 0) {
    r->filled = (size_t)got;
    return TERN_OK;
  }
  r->ended = true;
  int state = Z_OK;
  const char *text = gzerror(r->file, &state);
  if (state == Z_OK || state == Z_STREAM_END) return TERN_OK;
  if (state == Z_BUF_ERROR) text = "the gzip stream is cut off";
  if (state == Z_ERRNO) text = reason ? strerror(reason) : "input/output error";
  return tern__fail(state == Z_MEM_ERROR ? TERN_E_OOM : TERN_E_IO, "%s: %s cannot be read to its end: %s", r->op,
                    r->path, text);
}

void tern__reader_close(tern__reader *r) {
  if (r->file) gzclose(r->file);
  free(r->buffer);
  *r = (tern__reader){0};
}

char **tern__copy_strings(const char *op, const char *const *texts, int n) {
  size_t bytes = ((size_t)n + 1) * sizeof(char *);
  for (int i = 0; i < n; i++) {
    if (!texts[i]) {
      tern__fail(TERN_E_ARG, "%s: name %d of %d is NULL", op, i + 1, n);
      return NULL;
    }
    bytes += strlen(texts[i]) + 1;
  }
  char **copy = tern__calloc(bytes, 1);
  if (!copy) {
    tern__fail(TERN_E_OOM, "%s: out of host memory", op);
    return NULL;
  }
  char *at = (char *)(copy + n + 1);
  for (int i = 0; i < n; i++) {
    const size_t size = strlen(texts[i]) + 1;
    copy[i] = memcpy(at, texts[i], size);
    at += size;
  }
  return copy;
}
