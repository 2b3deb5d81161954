/* Lines of text files as uint8 vectors. */
#include "base/string.h"
#include "data/data.h"
#include <stdlib.h>

typedef struct text {
  tern_dataset base;
  int n;
  char **paths; /* owned, one block */
} text;

typedef struct text_iter {
  tern__iter base;
  int file; /* the one that is open, or is opened next */
  bool open;
  tern__reader reader;
  tern__string line;
} text_iter;

#define OP "dataset_text"

static tern_rc open_file(text_iter *it) {
  const tern_rc rc = tern__reader_open(&it->reader, OP, ((const text *)it->base.dataset)->paths[it->file]);
  it->open = !rc;
  return rc;
}

static tern_rc text_begin(tern__iter *base) { return open_file((text_iter *)base); }

static void close_file(text_iter *it) {
  tern__reader_close(&it->reader);
  it->open = false;
  it->file++;
}

static void text_end(tern__iter *base) {
  text_iter *it = (text_iter *)base;
  tern__reader_close(&it->reader);
  tern__string_free(&it->line);
}

/* 1: a line; 0: the end of the file. */
static int read_line(text_iter *it) {
  tern__reader *r = &it->reader;
  tern__string_truncate(&it->line, 0);
  for (bool any = false;; any = true) {
    if (r->at == r->filled && tern__reader_fill(r)) return tern__recorded();
    if (r->at == r->filled) return any;
    const unsigned char *from = r->buffer + r->at, *end = memchr(from, '\n', r->filled - r->at);
    const size_t size = end ? (size_t)(end - from) : r->filled - r->at;
    r->at += size + (end != NULL);
    if (size && tern__string_append(&it->line, (const char *)from, size))
      return tern__fail(TERN_E_OOM, OP ": out of host memory for a line of %s", r->path);
    if (end) return 1;
  }
}

static int text_next(tern__iter *base, tern__element *out) {
  text_iter *it = (text_iter *)base;
  const text *d = (const text *)base->dataset;
  for (;;) {
    if (it->file == d->n) return 0;
    if (!it->open) {
      const tern_rc rc = open_file(it);
      if (rc) {
        it->file++;
        return rc;
      }
    }
    const int got = read_line(it);
    if (got > 0) break;
    close_file(it);
    if (got < 0) return got;
  }
  int64_t size = (int64_t)it->line.size;
  if (size && it->line.text[size - 1] == '\r') size--;
  tern__device *host = tern__device_host();
  tern_tensor *t = host ? tern__new(host, TERN_U8, 1, &size, OP) : NULL;
  if (!t) return tern__recorded();
  if (size) memcpy(tern__host_bytes(t), it->line.text, (size_t)size);
  out->n = 1;
  out->t[0] = t;
  return 1;
}

static int64_t text_size(const tern_dataset *d) {
  (void)d;
  return TERN__UNKNOWN;
}

static void text_release(tern_dataset *d) { free(((text *)d)->paths); }

static const tern__dataset_type text_type = {.name = OP,
                                             .state_bytes = sizeof(text_iter),
                                             .begin = text_begin,
                                             .next = text_next,
                                             .end = text_end,
                                             .size = text_size,
                                             .release = text_release};

tern_dataset *tern_dataset_text(const char *const *paths, int n) {
  if (n < 1 || !paths) {
    tern__fail(TERN_E_ARG, OP ": %d paths%s; give at least one", n, paths ? "" : " at NULL");
    return NULL;
  }
  char **copy = tern__copy_strings(OP, paths, n);
  text *d = copy ? tern__dataset_new(&text_type, sizeof *d, NULL) : NULL;
  if (!d) {
    free(copy);
    return NULL;
  }
  d->n = n;
  d->paths = copy;
  return &d->base;
}
