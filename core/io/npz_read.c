/* .npz files: opening, which checks the directory and the header of every array, and reading arrays, inflated on the
   way and held against their checksums. All reading is by pread, so that threads may read the same file. */
#include "base/alloc.h"
#include "device/device.h"
#include "io/npz.h"
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum { CHUNK = 64 << 10 };

tern_rc tern__npz_refuse(const tern_npz *f, const char *format, ...) {
  char text[600];
  va_list args;
  va_start(args, format);
  (void)vsnprintf(text, sizeof text, format, args);
  va_end(args);
  return tern__fail(TERN_E_IO, "npz: %.300s: %s", f->path, text);
}

tern_rc tern__npz_bytes(const tern_npz *f, uint64_t at, void *dst, size_t size) {
  char *to = dst;
  while (size > 0) {
    const ssize_t got = pread(f->fd, to, size, (off_t)at);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return tern__npz_refuse(f, "cannot be read: %s", strerror(errno));
    if (got == 0)
      return tern__npz_refuse(f, "was %llu bytes long when it was opened and has become shorter",
                              (unsigned long long)f->file_size);
    to += got;
    at += (uint64_t)got;
    size -= (size_t)got;
  }
  return TERN_OK;
}

/* ---- one member ---- */

typedef struct member {
  tern__npy_source source; /* first: read() is given this */
  const tern_npz *file;
  const tern__npz_entry *entry;
  uint64_t at, left; /* packed bytes that were not read */
  uint32_t crc;
  bool ended;
  z_stream z;
  unsigned char in[CHUNK];
  char label[500];
} member;

static tern_rc damaged(const member *m, const char *what) {
  return tern__npz_refuse(m->file, "\"%.100s\" is damaged: %s", m->entry->name, what);
}

/* Inflates until dst is full. */
static tern_rc unpack(member *m, void *dst, size_t size) {
  m->z.next_out = dst;
  m->z.avail_out = (uInt)size; /* at most a piece */
  while (m->z.avail_out > 0 || (size == 0 && !m->ended)) {
    if (m->ended) return damaged(m, "its compressed bytes end too early");
    if (m->z.avail_in == 0 && m->left > 0) {
      const size_t n = m->left < CHUNK ? (size_t)m->left : CHUNK;
      const tern_rc rc = tern__npz_bytes(m->file, m->at, m->in, n);
      if (rc) return rc;
      m->at += n;
      m->left -= n;
      m->z.next_in = m->in;
      m->z.avail_in = (uInt)n;
    }
    const int rc = inflate(&m->z, Z_NO_FLUSH);
    if (rc == Z_MEM_ERROR) return tern__fail(TERN_E_OOM, "npz: %.300s: out of host memory", m->file->path);
    if (rc == Z_STREAM_END)
      m->ended = true;
    else if (rc != Z_OK)
      return damaged(m, rc == Z_BUF_ERROR ? "its compressed bytes are cut off, or more than its size says"
                                          : "its compressed bytes cannot be inflated");
  }
  return TERN_OK;
}

static tern_rc read_member(tern__npy_source *source, void *dst, size_t size) {
  member *m = (member *)source;
  tern_rc rc;
  if (m->entry->method == TERN__ZIP_DEFLATED) {
    rc = unpack(m, dst, size);
  } else {
    rc = tern__npz_bytes(m->file, m->at, dst, size); /* within the member: packed is its size */
    m->at += size;
  }
  if (!rc) m->crc = (uint32_t)crc32_z(m->crc, dst, size);
  return rc;
}

/* member_end must follow unless this fails. */
static tern_rc member_begin(member *m, const tern_npz *f, const tern__npz_entry *e) {
  m->source = (tern__npy_source){.read = read_member, .label = m->label, .left = e->size};
  m->file = f;
  m->entry = e;
  m->at = e->data;
  m->left = e->packed;
  m->crc = (uint32_t)crc32_z(0, NULL, 0);
  m->ended = false;
  memset(&m->z, 0, sizeof m->z);
  snprintf(m->label, sizeof m->label, "%.250s: \"%.100s\"", f->path, e->name);
  if (e->method != TERN__ZIP_DEFLATED || inflateInit2(&m->z, -MAX_WBITS) == Z_OK) return TERN_OK;
  return tern__fail(TERN_E_OOM, "npz: %.300s: out of host memory", f->path);
}

static void member_end(member *m) {
  if (m->entry->method == TERN__ZIP_DEFLATED) (void)inflateEnd(&m->z);
}

/* After all bytes: the stream ends here too, and the checksum is right. */
static tern_rc member_check(member *m) {
  unsigned char nothing;
  if (m->entry->method == TERN__ZIP_DEFLATED) {
    const tern_rc rc = unpack(m, &nothing, 0);
    if (rc) return rc;
    if (m->left > 0 || m->z.avail_in > 0) return damaged(m, "bytes follow its compressed bytes");
  }
  return m->crc == m->entry->crc ? TERN_OK : damaged(m, "its checksum (CRC-32) is wrong");
}

/* ---- the public functions ---- */

static tern_rc check_headers(const tern_npz *f) {
  member *m = tern__calloc(1, sizeof *m);
  if (!m) return tern__fail(TERN_E_OOM, "npz: %.300s: out of host memory", f->path);
  tern_rc rc = TERN_OK;
  for (int i = 0; i < f->count && !rc; i++) {
    tern__npy array;
    rc = member_begin(m, f, &f->entries[i]);
    if (rc) break;
    rc = tern__npy_header(&m->source, &array);
    member_end(m);
  }
  free(m);
  return rc;
}

static tern_rc open_file(tern_npz *f) {
  struct stat info;
  f->fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a fifo must not block */
  if (f->fd < 0) return tern__npz_refuse(f, "cannot be opened: %s", strerror(errno));
  if (fstat(f->fd, &info)) return tern__npz_refuse(f, "cannot be looked at: %s", strerror(errno));
  if (!S_ISREG(info.st_mode)) return tern__npz_refuse(f, "is not a regular file");
  f->file_size = (uint64_t)info.st_size;
  const tern_rc rc = tern__npz_directory(f);
  return rc ? rc : check_headers(f);
}

tern_npz *tern_npz_open(const char *path) {
  tern_npz *f = path ? tern__calloc(1, sizeof *f) : NULL;
  if (f) {
    f->fd = -1;
    f->path = tern__strdup(path);
  }
  if (!f || !f->path) {
    free(f);
    if (path)
      tern__fail(TERN_E_OOM, "npz_open: %.300s: out of host memory", path);
    else
      tern__fail(TERN_E_ARG, "npz_open: the path is NULL");
    return NULL;
  }
  if (!open_file(f)) return f;
  tern_npz_close(f);
  return NULL;
}

void tern_npz_close(tern_npz *f) {
  if (!f) return;
  if (f->fd >= 0) (void)close(f->fd);
  for (int i = 0; i < f->count; i++) free(f->entries[i].name);
  free(f->entries);
  free(f->by_name);
  free(f->path);
  free(f);
}

int tern_npz_count(const tern_npz *f) { return f ? f->count : 0; }

const char *tern_npz_name(const tern_npz *f, int i) { return f && i >= 0 && i < f->count ? f->entries[i].name : NULL; }

static int compare_name(const void *name, const void *entry) {
  return strcmp(name, (*(const tern__npz_entry *const *)entry)->name);
}

/* No array of that name: the error lists those that there are, as many as fit. */
static void not_there(const tern_npz *f, const char *name) {
  char names[450] = "no arrays";
  size_t at = 0;
  for (int i = 0; i < f->count; i++) {
    const char *one = f->entries[i].name, *comma = i ? ", " : "";
    if (at + strlen(one) + 10 > sizeof names) {
      snprintf(names + at, sizeof names - at, "%s...", comma);
      break;
    }
    at += (size_t)snprintf(names + at, sizeof names - at, "%s\"%s\"", comma, one);
  }
  tern__fail(TERN_E_ARG, "npz: %.300s: has no array \"%.100s\"; it has %s", f->path, name, names);
}

tern_tensor *tern_npz_get(tern_npz *f, const char *name) {
  tern__thread *thread = tern__thread_get();
  if (!thread) return NULL;
  if (!f || !name) {
    tern__fail(TERN_E_ARG, "npz_get: the %s is NULL", f ? "name" : "file");
    return NULL;
  }
  const tern__npz_entry *const *e = bsearch(name, f->by_name, (size_t)f->count, sizeof *f->by_name, compare_name);
  if (!e) {
    not_there(f, name);
    return NULL;
  }
  tern__device *device = tern__device_here(thread);
  member *m = device ? tern__calloc(1, sizeof *m) : NULL;
  if (!m) {
    if (device) tern__fail(TERN_E_OOM, "npz: %.300s: out of host memory", f->path);
    return NULL;
  }
  tern_tensor *t = NULL;
  if (!member_begin(m, f, *e)) {
    tern__npy array;
    if (!tern__npy_header(&m->source, &array)) t = tern__npy_elements(&m->source, &array, device);
    if (t && member_check(m)) t = NULL;
    member_end(m);
  }
  free(m);
  return t;
}
