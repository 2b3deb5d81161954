/* The directory of a zip file: found from the end of the file, with the 64-bit records where the old ones are too
   small. Nothing in it is believed before it was held against the file's size and the members' own headers; members
   may not overlap, so that a small file cannot hold many large ones. */
#include "base/alloc.h"
#include "io/npz.h"
#include "io/safetensors.h"
#include <stdlib.h>

enum { END = 22, LOCATOR = 20, END64 = 56, CENTRAL = 46, LOCAL = 30, COMMENT_MAX = 65535 };
enum { ENCRYPTED = 1, STRONG = 1 << 6, MASKED = 1 << 13 };

typedef struct directory {
  uint64_t at, size, count;
  uint64_t end; /* where the record behind it begins */
} directory;

const char *tern__npz_bad_name(const char *text, size_t size) {
  if (size == 0) return "is empty";
  if (size > 65000) return "has more than 65000 bytes";
  if (text[0] == '/') return "begins with /, as a path from the root does";
  for (size_t i = 0; i < size;) {
    const int n = tern__utf8_length((const unsigned char *)text + i, size - i);
    if (n == 0) return "is not UTF-8";
    if ((unsigned char)text[i] < 32 || text[i] == 127) return "has a control character";
    if (text[i] == '\\') return "has a backslash, which some take for a folder's end";
    i += (size_t)n;
  }
  for (size_t i = 0; i < size;) { /* from folder to folder */
    const char *slash = memchr(text + i, '/', size - i);
    const size_t n = slash ? (size_t)(slash - text) - i : size - i;
    if (n == 2 && text[i] == '.' && text[i + 1] == '.') return "has .. in it, which leads out of a folder";
    i += n + 1;
  }
  return NULL;
}

/* The 64-bit record, which the locator before the end record points to. */
static tern_rc read_end64(const tern_npz *f, uint64_t end_at, directory *d) {
  unsigned char locator[LOCATOR], end[END64];
  if (end_at < LOCATOR) return tern__npz_refuse(f, "its directory is damaged: a 64-bit record is missing");
  tern_rc rc = tern__npz_bytes(f, end_at - LOCATOR, locator, LOCATOR);
  if (rc) return rc;
  if (tern__get32(locator) != TERN__ZIP_LOCATOR64)
    return tern__npz_refuse(f, "its directory is damaged: a 64-bit record is missing");
  const uint64_t at = tern__get64(locator + 8);
  if (tern__get32(locator + 4) != 0 || tern__get32(locator + 16) > 1)
    return tern__npz_refuse(f, "is a part of a zip file in several parts; join them first");
  if (end_at - LOCATOR < END64 || at > end_at - LOCATOR - END64)
    return tern__npz_refuse(f, "its directory is damaged: the 64-bit record is said to be at byte %llu of %llu",
                            (unsigned long long)at, (unsigned long long)f->file_size);
  rc = tern__npz_bytes(f, at, end, END64);
  if (rc) return rc;
  if (tern__get32(end) != TERN__ZIP_END64)
    return tern__npz_refuse(f, "its directory is damaged: no 64-bit record at byte %llu", (unsigned long long)at);
  if (tern__get32(end + 16) || tern__get32(end + 20) || tern__get64(end + 24) != tern__get64(end + 32))
    return tern__npz_refuse(f, "is a part of a zip file in several parts; join them first");
  *d = (directory){
      .count = tern__get64(end + 32), .size = tern__get64(end + 40), .at = tern__get64(end + 48), .end = at};
  return TERN_OK;
}

/* Where the directory is: the end record is the last one whose comment reaches just to the end of the file. */
static tern_rc find_directory(const tern_npz *f, directory *d) {
  const size_t size = f->file_size < END + COMMENT_MAX ? (size_t)f->file_size : END + COMMENT_MAX;
  if (size < END) return tern__npz_refuse(f, "holds %llu bytes: no .npz file", (unsigned long long)f->file_size);
  unsigned char *tail = tern__calloc(size, 1);
  if (!tail) return tern__fail(TERN_E_OOM, "npz: %.300s: out of host memory", f->path);
  tern_rc rc = tern__npz_bytes(f, f->file_size - size, tail, size);
  size_t i = size - END;
  while (!rc && (tern__get32(tail + i) != TERN__ZIP_END || tern__get16(tail + i + 20) != size - END - i)) {
    if (i-- > 0) continue;
    rc = tern__npz_refuse(f, "has no directory at its end: truncated, or no .npz file");
    break;
  }
  if (!rc) {
    const unsigned char *end = tail + i;
    const uint32_t disks = tern__get16(end + 4) | tern__get16(end + 6), here = tern__get16(end + 8);
    *d = (directory){.count = tern__get16(end + 10), .size = tern__get32(end + 12), .at = tern__get32(end + 16)};
    d->end = f->file_size - size + i;
    if (d->count == 0xffff || d->size == 0xffffffff || d->at == 0xffffffff)
      rc = read_end64(f, d->end, d);
    else if (disks || here != d->count)
      rc = tern__npz_refuse(f, "is a part of a zip file in several parts; join them first");
  }
  free(tail);
  if (!rc && (d->at > d->end || d->size > d->end - d->at || d->count > d->size / CENTRAL))
    rc = tern__npz_refuse(f, "its directory of %llu members is said to be bytes %llu to %llu of %llu: damaged",
                          (unsigned long long)d->count, (unsigned long long)d->at,
                          (unsigned long long)(d->at + d->size), (unsigned long long)f->file_size);
  if (!rc && d->count > 1000000) rc = tern__npz_refuse(f, "has %llu members", (unsigned long long)d->count);
  return rc;
}

/* The numbers that did not fit 32 bits are in extra field 1, in this order, those alone. */
static tern_rc read_extra64(const tern_npz *f, const unsigned char *extra, size_t size, tern__npz_entry *e) {
  uint64_t *const wide[3] = {&e->size, &e->packed, &e->begin};
  for (size_t at = 0; size - at >= 4;) {
    const size_t n = tern__get16(extra + at + 2);
    if (n > size - at - 4) break;
    if (tern__get16(extra + at) == 1) {
      const unsigned char *p = extra + at + 4;
      size_t left = n;
      for (int i = 0; i < 3; i++) {
        if (*wide[i] != 0xffffffff) continue;
        if (left < 8) return tern__npz_refuse(f, "its directory is damaged: a 64-bit field is too short");
        *wide[i] = tern__get64(p);
        p += 8;
        left -= 8;
      }
      return TERN_OK;
    }
    at += 4 + n;
  }
  for (int i = 0; i < 3; i++)
    if (*wide[i] == 0xffffffff) return tern__npz_refuse(f, "its directory is damaged: a 64-bit field is missing");
  return TERN_OK;
}

/* What the flags, the method and the sizes say; `name`: for messages. */
static tern_rc check_entry(const tern_npz *f, const tern__npz_entry *e, uint32_t flags, const char *name,
                           uint64_t directory_at) {
  if (flags & (ENCRYPTED | STRONG | MASKED))
    return tern__npz_refuse(f, "\"%.100s\" is encrypted; write it without a password", name);
  if (e->method != TERN__ZIP_STORED && e->method != TERN__ZIP_DEFLATED)
    return tern__npz_refuse(f, "\"%.100s\" is compressed by method %d; 0 (stored) and 8 (deflated) are known", name,
                            e->method);
  if (e->begin > directory_at || directory_at - e->begin < LOCAL || e->packed > directory_at - e->begin - LOCAL)
    return tern__npz_refuse(f,
                            "\"%.100s\" is said to be %llu bytes from byte %llu on, but the file has %llu before "
                            "its directory: truncated or damaged",
                            name, (unsigned long long)e->packed, (unsigned long long)e->begin,
                            (unsigned long long)directory_at);
  if (e->method == TERN__ZIP_STORED && e->size != e->packed)
    return tern__npz_refuse(f, "\"%.100s\" is stored in %llu bytes and said to have %llu", name,
                            (unsigned long long)e->packed, (unsigned long long)e->size);
  if (e->size / 1032 > e->packed) /* two bits stand for 258 bytes at the most */
    return tern__npz_refuse(f, "\"%.100s\" is said to hold %llu bytes, more than can be packed into %llu", name,
                            (unsigned long long)e->size, (unsigned long long)e->packed);
  return TERN_OK;
}

/* The local header, which must have the same name; it says where the bytes begin. */
static tern_rc check_local(const tern_npz *f, tern__npz_entry *e, const unsigned char *name, size_t size,
                           uint64_t directory_at) {
  unsigned char local[LOCAL];
  tern_rc rc = tern__npz_bytes(f, e->begin, local, LOCAL);
  if (rc) return rc;
  if (tern__get32(local) != TERN__ZIP_LOCAL || tern__get16(local + 26) != size ||
      (int)tern__get16(local + 8) != e->method)
    return tern__npz_refuse(f, "\"%.100s\" has no header of its own at byte %llu, or another one: damaged", e->name,
                            (unsigned long long)e->begin);
  e->data = e->begin + LOCAL + size + tern__get16(local + 28);
  if (e->data > directory_at || e->packed > directory_at - e->data)
    return tern__npz_refuse(f, "\"%.100s\" reaches into the directory: truncated or damaged", e->name);
  char *again = tern__calloc(size + 1, 1);
  if (!again) return tern__fail(TERN_E_OOM, "npz: %.300s: out of host memory", f->path);
  rc = tern__npz_bytes(f, e->begin + LOCAL, again, size);
  if (!rc && memcmp(again, name, size) != 0)
    rc = tern__npz_refuse(f, "\"%.100s\" has another name in its own header: damaged", e->name);
  free(again);
  return rc;
}

/* One member at p, of which `left` bytes are there; *used: its bytes in the directory. Folders are left out. */
static tern_rc read_entry(tern_npz *f, const unsigned char *p, size_t left, uint64_t directory_at, size_t *used) {
  if (left < CENTRAL || tern__get32(p) != TERN__ZIP_CENTRAL)
    return tern__npz_refuse(f, "its directory is damaged after %d members", f->count);
  const size_t name_size = tern__get16(p + 28), extra = tern__get16(p + 30);
  *used = CENTRAL + name_size + extra + tern__get16(p + 32);
  if (*used > left) return tern__npz_refuse(f, "its directory is damaged: member %d is cut off", f->count);
  tern__npz_entry *e = &f->entries[f->count];
  *e = (tern__npz_entry){.method = (int)tern__get16(p + 10),
                         .crc = tern__get32(p + 16),
                         .packed = tern__get32(p + 20),
                         .size = tern__get32(p + 24),
                         .begin = tern__get32(p + 42)};
  const char *name = (const char *)p + CENTRAL;
  tern_rc rc = read_extra64(f, p + CENTRAL + name_size, extra, e);
  if (rc) return rc;
  if (name_size > 0 && name[name_size - 1] == '/' && e->size == 0) return TERN_OK;
  const char *bad = tern__npz_bad_name(name, name_size);
  if (bad) return tern__npz_refuse(f, "the name of member %d %s", f->count, bad);
  if (name_size < 5 || memcmp(name + name_size - 4, ".npy", 4) != 0)
    return tern__npz_refuse(f, "member \"%.*s\" is no array: its name does not end in .npy",
                            (int)(name_size < 100 ? name_size : 100), name);
  e->name = tern__calloc(name_size, 1);
  if (!e->name) return tern__fail(TERN_E_OOM, "npz: %.300s: out of host memory", f->path);
  memcpy(e->name, name, name_size - 4);
  f->count++;
  rc = check_entry(f, e, tern__get16(p + 8), e->name, directory_at);
  return rc ? rc : check_local(f, e, p + CENTRAL, name_size, directory_at);
}

static int compare_names(const void *a, const void *b) {
  return strcmp((*(const tern__npz_entry *const *)a)->name, (*(const tern__npz_entry *const *)b)->name);
}
static int compare_places(const void *a, const void *b) {
  const uint64_t x = (*(const tern__npz_entry *const *)a)->begin, y = (*(const tern__npz_entry *const *)b)->begin;
  return x < y ? -1 : x > y;
}

/* No two members overlap, no two have the same name; sorts by_name. */
static tern_rc check_together(tern_npz *f) {
  const tern__npz_entry **e = f->by_name;
  for (int i = 0; i < f->count; i++) e[i] = &f->entries[i];
  qsort(e, (size_t)f->count, sizeof *e, compare_places);
  for (int i = 1; i < f->count; i++)
    if (e[i - 1]->data + e[i - 1]->packed > e[i]->begin)
      return tern__npz_refuse(f, "\"%.100s\" and \"%.100s\" overlap: damaged", e[i - 1]->name, e[i]->name);
  qsort(e, (size_t)f->count, sizeof *e, compare_names);
  for (int i = 1; i < f->count; i++)
    if (!strcmp(e[i - 1]->name, e[i]->name)) return tern__npz_refuse(f, "has two arrays \"%.100s\"", e[i]->name);
  return TERN_OK;
}

tern_rc tern__npz_directory(tern_npz *f) {
  directory d = {0};
  tern_rc rc = find_directory(f, &d);
  if (rc) return rc;
  unsigned char *all = tern__calloc((size_t)d.size + 1, 1);
  f->entries = tern__calloc((size_t)d.count + 1, sizeof *f->entries);
  f->by_name = tern__calloc((size_t)d.count + 1, sizeof *f->by_name);
  if (!all || !f->entries || !f->by_name) {
    free(all);
    return tern__fail(TERN_E_OOM, "npz: %.300s: out of host memory for its directory", f->path);
  }
  rc = tern__npz_bytes(f, d.at, all, (size_t)d.size);
  size_t at = 0;
  for (uint64_t i = 0; i < d.count && !rc; i++) {
    size_t used = 0;
    rc = read_entry(f, all + at, (size_t)d.size - at, d.at, &used);
    at += used;
  }
  if (!rc && at != d.size)
    rc = tern__npz_refuse(f, "its directory is damaged: %llu bytes are left behind its members",
                          (unsigned long long)(d.size - at));
  free(all);
  return rc ? rc : check_together(f);
}
