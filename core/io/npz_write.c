/* Writing .npz files as numpy.savez and savez_compressed do. A member's local header is written before it with room for
   what is known after it, and written again then; 64-bit fields stand where 32 bits are too few, or could be. */
#include "base/alloc.h"
#include "io/draft.h"
#include "io/npz.h"
#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>

enum { CHUNK = 64 << 10, LOCAL = 30, CENTRAL = 46, EXTRA = 28, END_ALL = 56 + 20 + 22 };
enum { UTF8 = 1 << 11, DATE = 1 << 5 | 1 }; /* 1 January 1980, as NumPy's: the same arrays give the same file */
#define SMALL 0xfff00000u                   /* packed by deflate, so much stays below 2^32 */

typedef struct item {
  const char *name;
  tern_tensor *tensor; /* a snapshot, borrowed from the writer's scope */
  uint32_t crc;
  uint64_t size, packed, begin; /* bytes of the array file; in the zip file; where it begins there */
  bool wide;                    /* its local header has 64-bit sizes */
} item;

typedef struct writer {
  tern__draft file;
  uint64_t at;
  bool compressed;
  item *now;
  z_stream z;
  unsigned char out[CHUNK];
} writer;

/* ---- numbers in headers ---- */

static unsigned char *put16(unsigned char *p, uint32_t v) {
  p[0] = (unsigned char)v;
  p[1] = (unsigned char)(v >> 8);
  return p + 2;
}
static unsigned char *put32(unsigned char *p, uint32_t v) { return put16(put16(p, v & 0xffff), v >> 16); }
static unsigned char *put64(unsigned char *p, uint64_t v) { return put32(put32(p, (uint32_t)v), (uint32_t)(v >> 32)); }
static uint32_t narrow(uint64_t v) { return v < 0xffffffff ? (uint32_t)v : 0xffffffff; }

static tern_rc put(writer *w, const void *data, size_t size) {
  w->at += size;
  return tern__draft_write(&w->file, data, size);
}

/* The part that both headers have: version to the length of the name, and which bits of the flags. */
static unsigned char *put_common(unsigned char *p, const writer *w, const item *it, bool wide) {
  bool plain = true;
  for (const char *c = it->name; *c; c++) plain &= (unsigned char)*c < 128;
  p = put16(p, wide ? 45 : 20);
  p = put16(p, plain ? 0 : UTF8);
  p = put16(p, w->compressed ? TERN__ZIP_DEFLATED : TERN__ZIP_STORED);
  p = put32(p, (uint32_t)DATE << 16);
  p = put32(p, it->crc);
  p = put32(p, wide ? 0xffffffff : (uint32_t)it->packed);
  p = put32(p, wide ? 0xffffffff : (uint32_t)it->size);
  return put16(p, (uint32_t)strlen(it->name) + 4);
}

static size_t local_header(unsigned char *header, const writer *w, const item *it) {
  unsigned char *p = put_common(put32(header, TERN__ZIP_LOCAL), w, it, it->wide);
  p = put16(p, it->wide ? 20 : 0);
  return (size_t)(p - header);
}

static tern_rc put_local(writer *w, const item *it) {
  unsigned char header[LOCAL], extra[20] = {0};
  tern_rc rc = put(w, header, local_header(header, w, it));
  if (!rc) rc = put(w, it->name, strlen(it->name));
  if (!rc) rc = put(w, ".npy", 4);
  put16(put16(extra, 1), 16);
  return rc || !it->wide ? rc : put(w, extra, sizeof extra);
}

/* The same again, now that checksum and sizes are known. */
static tern_rc mend_local(writer *w, const item *it) {
  unsigned char header[LOCAL], sizes[16];
  const tern_rc rc = tern__draft_patch(&w->file, it->begin, header, local_header(header, w, it));
  if (rc || !it->wide) return rc;
  put64(put64(sizes, it->size), it->packed);
  return tern__draft_patch(&w->file, it->begin + LOCAL + strlen(it->name) + 4 + 4, sizes, sizeof sizes);
}

/* ---- members ---- */

static tern_rc deflate_all(writer *w, int flush) {
  int rc = Z_OK;
  do {
    w->z.next_out = w->out;
    w->z.avail_out = CHUNK;
    rc = deflate(&w->z, flush);
    const tern_rc written = put(w, w->out, CHUNK - w->z.avail_out);
    if (written) return written;
  } while (w->z.avail_out == 0 || (flush == Z_FINISH && rc != Z_STREAM_END));
  return TERN_OK;
}

static tern_rc take(void *self, const void *data, size_t size) {
  writer *w = self;
  w->now->crc = (uint32_t)crc32_z(w->now->crc, data, size);
  if (!w->compressed) return put(w, data, size);
  w->z.next_in = (Bytef *)(uintptr_t)data; /* zlib does not write there */
  w->z.avail_in = (uInt)size;              /* at most a piece */
  return deflate_all(w, Z_NO_FLUSH);
}

static tern_rc write_elements(writer *w, const char *header, size_t header_size) {
  tern_rc rc = take(w, header, header_size);
  if (!rc) rc = tern__pieces_out(w->now->tensor, "npz_write", take, w);
  return !rc && w->compressed ? deflate_all(w, Z_FINISH) : rc;
}

static tern_rc write_member(writer *w, item *it) {
  char header[TERN__NPY_ROOM];
  const size_t header_size = tern__npy_header_text(it->tensor, "npz_write", it->name, header);
  if (!header_size) return TERN_E_ARG;
  it->size = header_size + (uint64_t)it->tensor->numel * tern__dtype_size[it->tensor->dtype];
  it->wide = it->size > SMALL;
  it->begin = w->at;
  it->crc = (uint32_t)crc32_z(0, NULL, 0);
  w->now = it;
  tern_rc rc = put_local(w, it);
  const uint64_t from = w->at;
  if (rc) return rc;
  if (w->compressed) {
    memset(&w->z, 0, sizeof w->z);
    if (deflateInit2(&w->z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY) != Z_OK)
      return tern__draft_no_memory("npz_write", w->file.path);
  }
  rc = write_elements(w, header, header_size);
  if (w->compressed) (void)deflateEnd(&w->z);
  it->packed = w->at - from;
  return rc ? rc : mend_local(w, it);
}

/* ---- the directory ---- */

static tern_rc put_central(writer *w, const item *it) {
  unsigned char header[CENTRAL], extra[EXTRA];
  const bool wide = it->wide || it->begin >= 0xffffffff;
  unsigned char *p = put32(header, TERN__ZIP_CENTRAL);
  p = put16(p, 3 << 8 | (wide ? 45 : 20)); /* made on Unix: the attributes are */
  p = put_common(p, w, it, wide);
  p = put16(p, wide ? EXTRA : 0);
  p = put16(put16(put16(p, 0), 0), 0); /* comment, first disk, kind */
  p = put32(p, 0600u << 16);
  p = put32(p, wide ? 0xffffffff : (uint32_t)it->begin);
  tern_rc rc = put(w, header, (size_t)(p - header));
  if (!rc) rc = put(w, it->name, strlen(it->name));
  if (!rc) rc = put(w, ".npy", 4);
  put64(put64(put64(put16(put16(extra, 1), EXTRA - 4), it->size), it->packed), it->begin);
  return rc || !wide ? rc : put(w, extra, EXTRA);
}

static tern_rc put_end(writer *w, uint64_t begin, uint64_t count) {
  unsigned char end[END_ALL], *p = end;
  const uint64_t here = w->at, size = here - begin;
  if (count >= 0xffff || begin >= 0xffffffff || size >= 0xffffffff) {
    p = put64(put32(p, TERN__ZIP_END64), 44);
    p = put16(put16(p, 3 << 8 | 45), 45);
    p = put32(put32(p, 0), 0);
    p = put64(put64(put64(put64(p, count), count), size), begin);
    p = put32(put64(put32(put32(p, TERN__ZIP_LOCATOR64), 0), here), 1);
  }
  const uint32_t few = count < 0xffff ? (uint32_t)count : 0xffff;
  p = put16(put16(put16(put16(put32(p, TERN__ZIP_END), 0), 0), few), few);
  p = put16(put32(put32(p, narrow(size)), narrow(begin)), 0);
  return put(w, end, (size_t)(p - end));
}

static tern_rc write_file(writer *w, const char *path, item *items, int n) {
  tern_rc rc = tern__draft_begin(&w->file, "npz_write", path);
  for (int i = 0; i < n && !rc; i++) rc = write_member(w, &items[i]);
  const uint64_t begin = w->at;
  for (int i = 0; i < n && !rc; i++) rc = put_central(w, &items[i]);
  if (!rc) rc = put_end(w, begin, (uint64_t)n);
  return tern__draft_end(&w->file, rc);
}

/* ---- what is to be written ---- */

static int compare_names(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static tern_rc check_names(const char *path, const char *const *names, int n) {
  const char **sorted = tern__calloc((size_t)n + 1, sizeof *sorted);
  if (!sorted) return tern__draft_no_memory("npz_write", path);
  tern_rc rc = TERN_OK;
  for (int i = 0; i < n && !rc; i++) {
    sorted[i] = names[i];
    const char *bad = names[i] ? tern__npz_bad_name(names[i], strlen(names[i])) : "is NULL";
    if (bad) rc = tern__fail(TERN_E_ARG, "npz_write: %.300s: name %d %s", path, i, bad);
  }
  if (!rc) qsort(sorted, (size_t)n, sizeof *sorted, compare_names);
  for (int i = 1; i < n && !rc; i++)
    if (!strcmp(sorted[i - 1], sorted[i]))
      rc = tern__fail(TERN_E_ARG, "npz_write: %.300s: two of the names are \"%.200s\"; they must differ", path,
                      sorted[i]);
  free(sorted);
  return rc;
}

static tern_rc take_tensors(item *items, const char *const *names, tern_tensor *const *tensors, int n) {
  char header[TERN__NPY_ROOM];
  for (int i = 0; i < n; i++) {
    items[i].name = names[i];
    if (!tern__usable(tensors[i], "npz_write", i + 1)) return TERN_E_ARG;
    if (!tern__readable(tensors[i], "npz_write")) return tern__recorded();
    items[i].tensor = tern__snapshot(tensors[i]);
    if (!items[i].tensor) return tern__recorded();
    if (!tern__npy_header_text(items[i].tensor, "npz_write", names[i], header)) return TERN_E_ARG;
  }
  return TERN_OK;
}

tern_rc tern_npz_write(const char *path, const char *const *names, tern_tensor *const *tensors, int n,
                       const tern_npz_opts *opts) {
  if (!path) return tern__fail(TERN_E_ARG, "npz_write: the path is NULL");
  if (n < 0 || (n > 0 && (!names || !tensors)))
    return tern__fail(TERN_E_ARG, "npz_write: %d arrays were promised, names or tensors are NULL", n);
  tern_rc rc = check_names(path, names, n);
  if (rc) return rc;
  item *items = tern__calloc((size_t)n + 1, sizeof *items);
  writer *w = tern__calloc(1, sizeof *w);
  tern_scope_mark mark = tern_scope_begin();
  if (!items || !w)
    rc = tern__draft_no_memory("npz_write", path);
  else
    rc = take_tensors(items, names, tensors, n);
  if (!rc) {
    w->compressed = opts && opts->compressed;
    rc = write_file(w, path, items, n);
  }
  tern_scope_end(&mark);
  free(w);
  free(items);
  return rc;
}
