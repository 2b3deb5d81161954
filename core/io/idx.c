/* IDX: header, then data in growing pieces from a byte source that unpacks gzip on the way. Inflate is driven here and
   not through gzread, which takes a truncated header for plain data and ignores garbage behind a gzip stream. */
#include "io/idx.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

enum { BUFFER_SIZE = 1 << 16, FIRST_PIECE = 1 << 16 };

typedef struct source {
  const char *path;
  FILE *file;
  bool gzip;         /* unpack */
  bool member_ended; /* gzip: between two members, where the file may end */
  bool zlib_open;
  int64_t plain_size; /* size of a regular file, else -1 */
  z_stream zlib;      /* next_in, avail_in: what buffer still holds, for plain files as well */
  char *message;
  size_t message_size;
  unsigned char buffer[BUFFER_SIZE];
} source;

static tern_rc __attribute__((format(printf, 3, 4))) fail(const source *s, tern_rc rc, const char *format, ...) {
  if (s->message_size == 0) {
    return rc;
  }
  const int used = snprintf(s->message, s->message_size, "%s: ", s->path);
  if (used > 0 && (size_t)used < s->message_size) {
    va_list args;
    va_start(args, format);
    (void)vsnprintf(s->message + used, s->message_size - (size_t)used, format, args);
    va_end(args);
  }
  return rc;
}

/* ---- bytes ---- */

/* Fills the buffer when it is empty; it stays empty at the end of the file. */
static tern_rc source_fill(source *s) {
  if (s->zlib.avail_in > 0) {
    return TERN_OK;
  }
  errno = 0;
  const size_t got = fread(s->buffer, 1, sizeof s->buffer, s->file);
  if (ferror(s->file)) {
    return fail(s, TERN_E_IO, "cannot be read: %s", strerror(errno));
  }
  s->zlib.next_in = s->buffer;
  s->zlib.avail_in = (uInt)got;
  return TERN_OK;
}

static tern_rc source_open(source *s) {
  errno = 0;
  s->file = fopen(s->path, "rb");
  if (!s->file) {
    return fail(s, TERN_E_IO, "cannot be opened: %s; expected an IDX file, plain or gzipped", strerror(errno));
  }
  struct stat info;
  s->plain_size = fstat(fileno(s->file), &info) == 0 && S_ISREG(info.st_mode) ? (int64_t)info.st_size : -1;
  const tern_rc rc = source_fill(s);
  if (rc != TERN_OK) {
    return rc;
  }
  s->gzip = s->zlib.avail_in >= 2 && s->buffer[0] == 0x1f && s->buffer[1] == 0x8b;
  if (!s->gzip) {
    return TERN_OK;
  }
  if (inflateInit2(&s->zlib, 16 + MAX_WBITS) != Z_OK) { /* 16: a gzip header and trailer */
    return fail(s, TERN_E_OOM, "no memory to unpack gzip");
  }
  s->zlib_open = true;
  return TERN_OK;
}

static void source_close(source *s) {
  if (s->zlib_open) {
    (void)inflateEnd(&s->zlib);
  }
  if (s->file) {
    (void)fclose(s->file);
  }
}

static tern_rc read_plain(source *s, unsigned char *to, size_t size, size_t *got) {
  *got = 0;
  while (*got < size) {
    const tern_rc rc = source_fill(s);
    if (rc != TERN_OK || s->zlib.avail_in == 0) {
      return rc;
    }
    const size_t left = size - *got, piece = left < s->zlib.avail_in ? left : s->zlib.avail_in;
    memcpy(to + *got, s->zlib.next_in, piece);
    s->zlib.next_in += piece;
    s->zlib.avail_in -= (uInt)piece;
    *got += piece;
  }
  return TERN_OK;
}

static tern_rc read_gzip(source *s, unsigned char *to, size_t size, size_t *got) {
  *got = 0;
  while (*got < size) {
    tern_rc rc = source_fill(s);
    if (rc != TERN_OK) {
      return rc;
    }
    if (s->zlib.avail_in == 0) {
      return s->member_ended ? TERN_OK
                             : fail(s, TERN_E_IO, "the gzip stream is cut off after %llu unpacked bytes, no end",
                                    (unsigned long long)s->zlib.total_out);
    }
    if (s->member_ended) { /* another member, or garbage */
      (void)inflateReset(&s->zlib);
      s->member_ended = false;
    }
    const size_t left = size - *got;
    const uInt room = left < BUFFER_SIZE ? (uInt)left : BUFFER_SIZE;
    s->zlib.next_out = to + *got;
    s->zlib.avail_out = room;
    const int state = inflate(&s->zlib, Z_NO_FLUSH);
    *got += room - s->zlib.avail_out;
    if (state == Z_MEM_ERROR) {
      return fail(s, TERN_E_OOM, "no memory to unpack gzip");
    }
    if (state != Z_OK && state != Z_STREAM_END) {
      return fail(s, TERN_E_IO, "the gzip stream is corrupt: %s", s->zlib.msg ? s->zlib.msg : "zlib cannot go on");
    }
    s->member_ended = state == Z_STREAM_END;
  }
  return TERN_OK;
}

/* Reads up to size bytes; fewer only at the end. */
static tern_rc source_read(source *s, void *to, size_t size, size_t *got) {
  return s->gzip ? read_gzip(s, to, size, got) : read_plain(s, to, size, got);
}

/* ---- header ---- */

static size_t item_size(tern_dtype dtype) {
  switch (dtype) {
  case TERN_I16: return 2;
  case TERN_I32:
  case TERN_F32: return 4;
  case TERN_F64: return 8;
  default: return 1;
  }
}

static tern_dtype dtype_of_code(unsigned code) {
  switch (code) {
  case 0x08: return TERN_U8;
  case 0x09: return TERN_I8;
  case 0x0b: return TERN_I16;
  case 0x0c: return TERN_I32;
  case 0x0d: return TERN_F32;
  case 0x0e: return TERN_F64;
  default: return TERN_NO_DTYPE;
  }
}

static tern_rc read_magic(source *s, tern__idx *out) {
  unsigned char magic[4];
  size_t got;
  const tern_rc rc = source_read(s, magic, sizeof magic, &got);
  if (rc != TERN_OK) {
    return rc;
  }
  if (got < sizeof magic) {
    return fail(s, TERN_E_IO, "holds %zu bytes, expected an IDX magic of 4", got);
  }
  if (magic[0] != 0 || magic[1] != 0) {
    return fail(s, TERN_E_IO, "begins with bytes %02x %02x %02x %02x, expected 00 00 TYPE RANK: not an IDX file",
                magic[0], magic[1], magic[2], magic[3]);
  }
  out->dtype = dtype_of_code(magic[2]);
  if (out->dtype == TERN_NO_DTYPE) {
    return fail(s, TERN_E_IO,
                "element type 0x%02x is unknown, expected 08 (uint8), 09 (int8), 0b (int16), 0c (int32), 0d (float32) "
                "or 0e (float64)",
                magic[2]);
  }
  out->rank = magic[3];
  if (out->rank < 1 || out->rank > TERN_MAX_RANK) {
    return fail(s, TERN_E_IO, "rank is %d, expected 1 to %d", out->rank, TERN_MAX_RANK);
  }
  return TERN_OK;
}

static tern_rc read_shape(source *s, tern__idx *out) {
  unsigned char sizes[TERN_MAX_RANK * 4];
  const size_t wanted = (size_t)out->rank * 4;
  size_t got;
  const tern_rc rc = source_read(s, sizes, wanted, &got);
  if (rc != TERN_OK) {
    return rc;
  }
  if (got < wanted) {
    return fail(s, TERN_E_IO, "the header ends after %zu bytes, expected %zu for rank %d", got + 4, wanted + 4,
                out->rank);
  }
  int64_t bytes = (int64_t)item_size(out->dtype);
  bool empty = false, overflow = false;
  for (int d = 0; d < out->rank; d++) {
    const unsigned char *const b = sizes + 4 * d;
    out->shape[d] = (int64_t)((uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3]);
    empty |= out->shape[d] == 0;
    overflow |= out->shape[d] != 0 && __builtin_mul_overflow(bytes, out->shape[d], &bytes);
  }
  if (overflow || (uint64_t)bytes >= SIZE_MAX / 2) {
    return fail(s, TERN_E_IO, "the header's sizes multiply to more bytes than an address space, expected below 2^63");
  }
  out->size = empty ? 0 : (size_t)bytes;
  const int64_t behind = s->plain_size - (int64_t)(4 + wanted); /* of a plain regular file: known before reading on */
  if (!s->gzip && behind >= 0 && (uint64_t)behind < out->size) {
    return fail(s, TERN_E_IO, "holds %lld bytes of data, expected %zu from its header: truncated", (long long)behind,
                out->size);
  }
  return TERN_OK;
}

/* ---- data ---- */

/* Reads out->size bytes into memory that doubles as they arrive. */
static tern_rc read_data(source *s, tern__idx *out) {
  size_t have = 0, room = 0;
  do {
    size_t next = room == 0 ? FIRST_PIECE : room * 2;
    if (next > out->size) {
      next = out->size > 0 ? out->size : 1;
    }
    void *const data = realloc(out->data, next);
    if (!data) {
      return fail(s, TERN_E_OOM, "no memory for %zu of its %zu bytes", next, out->size);
    }
    out->data = data;
    room = next;
    const size_t wanted = (room < out->size ? room : out->size) - have;
    size_t got = 0;
    const tern_rc rc = source_read(s, (char *)out->data + have, wanted, &got);
    if (rc != TERN_OK) {
      return rc;
    }
    have += got;
    if (got < wanted) {
      return fail(s, TERN_E_IO, "holds %zu bytes of data, expected %zu from its header: truncated", have, out->size);
    }
  } while (have < out->size);
  return TERN_OK;
}

/* Nothing may follow; reading on also checks a gzip stream's checksum. */
static tern_rc read_end(source *s, const tern__idx *out) {
  unsigned char extra;
  size_t got;
  const tern_rc rc = source_read(s, &extra, 1, &got);
  if (rc == TERN_OK && got > 0) {
    return fail(s, TERN_E_IO, "more data follows the %zu bytes that its header promises, expected the end", out->size);
  }
  return rc;
}

static void to_host_order(tern__idx *idx) {
  const size_t item = item_size(idx->dtype);
  if (item == 1 || __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__) {
    return;
  }
  unsigned char *const data = idx->data;
  for (size_t i = 0; i < idx->size; i += item) {
    for (size_t low = i, high = i + item - 1; low < high; low++, high--) {
      const unsigned char byte = data[low];
      data[low] = data[high];
      data[high] = byte;
    }
  }
}

tern_rc tern__idx_read(const char *path, tern__idx *out, char *message, size_t message_size) {
  *out = (tern__idx){0};
  if (message_size > 0) {
    message[0] = '\0';
  }
  source *const s = calloc(1, sizeof *s);
  if (!s) {
    if (message_size > 0) {
      (void)snprintf(message, message_size, "%s: no memory to read it", path);
    }
    return TERN_E_OOM;
  }
  s->path = path;
  s->message = message;
  s->message_size = message_size;
  tern_rc rc = source_open(s);
  rc = rc == TERN_OK ? read_magic(s, out) : rc;
  rc = rc == TERN_OK ? read_shape(s, out) : rc;
  rc = rc == TERN_OK ? read_data(s, out) : rc;
  rc = rc == TERN_OK ? read_end(s, out) : rc;
  source_close(s);
  free(s);
  if (rc != TERN_OK) {
    tern__idx_free(out);
    return rc;
  }
  to_host_order(out);
  return TERN_OK;
}

void tern__idx_free(tern__idx *idx) {
  free(idx->data);
  *idx = (tern__idx){0};
}
